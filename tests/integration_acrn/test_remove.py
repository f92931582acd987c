# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way out: what site has written on two Service VMs, a builder and the controller goes, and nothing else."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import sys

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import command, sample

ROOT = pathlib.Path(__file__).absolute().parents[2]
# A VM of that name may run on this machine for another test, and what runs is asked for by name.
VM = f"VM_{os.getpid()}"
# A user's own script, with an ivshmem device that nobody declared.
HAND = f"""\
#!/bin/sh
# started by hand since 2021
exec acrn-dm -m 1024M -s 0:0,hostbridge \\
  -s 5,ivshmem,dm:/mine,2 \\
  {VM}
"""


def tree(folder):
    """What lies in a folder, without Ansible's own files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if re.match(r"home(/|$)|inventory\.yml$", name):
            continue
        found[name] = (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else path.stat().st_mode
        )
    return found


class Fleet:
    """Two Service VMs and a builder, all of them this machine, each with directories of its own."""

    def __init__(self, folder):
        self.folder = folder
        variables = sample(folder)
        scenario = folder / "scenario.xml"
        scenario.write_text(scenario.read_text().replace(">VM1<", f">{VM}<"))
        shutil.copytree(ROOT / "tests/standin_tree", folder / "tree")
        for name in ("written", "edited", "units"):
            (folder / name).mkdir()
        self.script = folder / "edited/hmi.sh"
        self.script.write_text(HAND)
        self.script.chmod(0o750)
        common = {
            **variables,
            "acrn_source": str(folder / "tree"),
            "launch_units": False,
            "launch_hypervisor_manifest": "",
            "launch_unit_directory": str(folder / "units"),
            "ivshmem_regions": ["hv:/log, 2, 2:3"],
        }
        place = folder / "acrn-ivshmem"
        builder = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hypervisor_python": sys.executable,
            "hypervisor_artifacts_dir": str(place / "artifacts"),
            "hypervisor_work_dir": str(place / "work"),
            "hypervisor_venv": str(place / "venv"),
        }
        vm = {"name": VM, "memory": 512}
        hosts = {
            "writes": {"launch_dir": str(folder / "written/launch"), "launch_vms": [vm]},
            "edits": {
                "launch_mode": "edit",
                "launch_backup": True,
                "launch_exclusive": True,
                "launch_dir": str(folder / "edited"),
                "launch_vms": [{**vm, "script": str(self.script)}],
            },
        }
        self.inventory = {
            "acrn_hosts": {"vars": common, "hosts": hosts},
            "acrn_builders": {"hosts": {"builder": builder}},
            "acrn_guests": {"hosts": {}},
        }

    def add_guest(self, name, **variables):
        self.inventory["acrn_guests"]["hosts"][name] = {"acrn_host": "writes", "acrn_vm": VM, **variables}

    def play(self, playbook, *words):
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(self.inventory))
        words = ("-i", "inventory.yml", f"acrn.ivshmem.{playbook}", *words)
        return command(self.folder, "ansible-playbook", *words, timeout=1200)


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path)
    return made


def changed(done):
    return sum(int(number) for number in re.findall(r"changed=(\d+)", done.stdout))


def test_remove_takes_every_trace_of_site_and_nothing_else(fleet):
    before = tree(fleet.folder)
    done = fleet.play("site")
    assert done.returncode == 0, done.stdout
    with_site = tree(fleet.folder)
    assert {f"written/launch/{VM}.sh", ".acrn-ivshmem/edits/scenario.xml"} <= set(with_site)
    assert any(re.fullmatch(r"acrn-ivshmem/artifacts/[0-9a-f]{32}/acrn\.bin", name) for name in with_site)
    assert with_site["edited/hmi.sh"] != before["edited/hmi.sh"]

    # What others put beside it stays.
    (fleet.folder / "acrn-ivshmem/artifacts/notes").write_text("kept")
    predicted = fleet.play("remove", "--check", "--diff")
    assert predicted.returncode == 0, predicted.stdout
    assert f"{VM}.sh" in predicted.stdout
    assert tree(fleet.folder) == {**with_site, "acrn-ivshmem/artifacts/notes": b"kept"}

    done = fleet.play("remove")
    assert done.returncode == 0, done.stdout
    assert changed(done) == changed(predicted) > 0
    left = tree(fleet.folder)
    assert left.pop("acrn-ivshmem/artifacts/notes") == b"kept"
    for name in ("acrn-ivshmem", "acrn-ivshmem/artifacts"):
        left.pop(name)
    assert left == before

    again = fleet.play("remove")
    assert (again.returncode, changed(again)) == (0, 0), again.stdout


def test_remove_where_nothing_was_installed_and_somebody_cannot_be_reached(fleet):
    fleet.add_guest("here", ansible_connection="local", ansible_python_interpreter=sys.executable)
    fleet.add_guest("gone", ansible_host="127.0.0.1", ansible_port=9)
    before = tree(fleet.folder)
    done = fleet.play("remove")
    # The guest that cannot be reached is a failure of the run, and the only one.
    assert done.returncode == 4, done.stdout
    assert "Not done: gone." in done.stdout
    assert changed(done) == 0
    assert re.findall(r"failed=[^0]", done.stdout) == []
    assert tree(fleet.folder) == before


def test_guests_that_are_all_off_do_not_keep_the_service_vms_from_being_cleared(fleet):
    before = tree(fleet.folder)
    assert fleet.play("site").returncode == 0
    fleet.add_guest("gone", ansible_host="127.0.0.1", ansible_port=9, ansible_ssh_retries=0)
    done = fleet.play("remove")
    assert done.returncode == 4 and "Not done: gone." in done.stdout, done.stdout
    left = {name for name in tree(fleet.folder) if not name.startswith("acrn-ivshmem")}
    assert left == {name for name in before if not name.startswith("acrn-ivshmem")}


def test_a_builder_that_does_not_answer_keeps_its_builds_and_hinders_nobody(fleet):
    before = tree(fleet.folder)
    assert fleet.play("site").returncode == 0
    builder = fleet.inventory["acrn_builders"]["hosts"]["builder"]
    here = dict(builder)
    builder.update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=9, ansible_ssh_retries=0)
    done = fleet.play("remove")
    assert done.returncode == 2, done.stdout
    assert "Not done: builder: " in done.stdout and "remove_builder=false" in done.stdout
    left = tree(fleet.folder)
    assert {name for name in left if not name.startswith("acrn-ivshmem")} == set(before)
    assert any(re.fullmatch(r"acrn-ivshmem/artifacts/[0-9a-f]{32}/acrn\.bin", name) for name in left)
    assert fleet.play("remove", "-e", "remove_builder=false").returncode == 0

    fleet.inventory["acrn_builders"]["hosts"]["builder"] = here
    assert fleet.play("remove").returncode == 0
    assert tree(fleet.folder) == before


def test_the_phases_of_one_host(fleet):
    assert fleet.play("site").returncode == 0
    before = tree(fleet.folder)
    words = ("--limit", "writes,builder", "-e", "remove_controller=false", "-e", "remove_hypervisor=no")
    # A list that comes as text is one, too.
    words = (*words, "-e", f'launch_vms=[{{"name":"{VM}"}}]')
    done = fleet.play("remove", *words)
    assert done.returncode == 0, done.stdout
    after = tree(fleet.folder)
    # The other host may need the builds.
    assert sorted(set(before) - set(after)) == ["written/launch", f"written/launch/{VM}.sh"]
    assert "Not done: edits." in done.stdout
