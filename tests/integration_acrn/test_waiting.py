# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet of which each host waits for something else: the run ends well, and says who waits for what."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import sys

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT, command, next_steps, sample
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_launch_restart import ACRN_DM, CONTROL

MEMORY = f"acrn_wait_{os.getpid()}"
AWAY = {"ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_connection": "ssh", "ansible_ssh_retries": 0}


class Fleet:
    """Service VMs that are this machine, each with directories and names of VMs of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.common = sample(folder)
        for name, text in (("acrn-dm", ACRN_DM), ("control", CONTROL)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        shutil.copytree(ROOT / "tests/standin_tree", folder / "tree")
        self.hosts = {}
        self.guests = {}
        self.builder = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hypervisor_python": sys.executable,
            "hypervisor_artifacts_dir": str(folder / "artifacts"),
            "hypervisor_work_dir": str(folder / "work"),
        }

    def add(self, name, **variables):
        """A host with two VMs that run what their scripts say. They share a region of the hypervisor."""
        place = self.folder / name
        (place / "boot").mkdir(parents=True)
        text = (self.folder / "scenario.xml").read_text()
        self.vms = [f"{name.upper()}_{number}" for number in (1, 2)]
        for number, vm in enumerate(self.vms, 1):
            text = text.replace(f">VM{number}<", f">{vm}<")
        (place / "scenario.xml").write_text(text)
        control = str(self.folder / "control")
        self.hosts[name] = {
            **self.common,
            "acrn_scenario": str(place / "scenario.xml"),
            "launch_dir": str(place / "launch"),
            "launch_acrn_dm": str(self.folder / "acrn-dm"),
            "launch_hypervisor_manifest": str(place / "boot"),
            "launch_units": False,
            "launch_started": True,
            "launch_start_command": [control, "start", "{name}", "{script}"],
            "launch_stop_command": [control, "stop", "{name}"],
            "launch_vms": [{"name": vm, "memory": 512} for vm in self.vms],
            "ivshmem_regions": [{"name": "log", "size": 2, "vms": self.vms}],
            **variables,
        }
        # Nobody answers there: a guest that is not left alone ends the run with an error.
        self.guests[f"{name}-guest"] = {"acrn_host": name, "acrn_vm": self.vms[0], **AWAY}
        return place

    def play(self, playbook, *words):
        inventory = {
            "acrn_hosts": {"hosts": self.hosts},
            "acrn_builders": {"hosts": {"builder": self.builder}},
            "acrn_guests": {"hosts": self.guests},
        }
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
        options = ("-i", "inventory.yml", f"acrn.ivshmem.{playbook}", *words)
        done = command(self.folder, "ansible-playbook", *options, timeout=1200)
        return done, next_steps(done)

    def scripts(self, name):
        return {path.name: path.read_bytes() for path in (self.folder / name / "launch").glob("*")}

    def manifest(self, name, key="", **regions):
        place = self.folder / name / "boot" / key
        place.mkdir(parents=True, exist_ok=True)
        text = {"regions": [{"name": f"hv:/{region}", "size": size} for region, size in regions.items()]}
        (place / "manifest.json").write_text(json.dumps(text))


@contextlib.contextmanager
def ends(folder):
    """No VM that was started in a folder outlives this."""
    try:
        yield
    finally:
        for path in folder.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)
        (pathlib.Path("/dev/shm") / MEMORY).unlink(missing_ok=True)


@pytest.fixture(name="fleet")
def _fleet(tmp_path):
    with ends(tmp_path):
        yield Fleet(tmp_path)


def rows(lines):
    """Lines of a table with a bar between cells."""
    return [re.sub(r" {3,}", " | ", line.strip()) for line in lines]


def changed(done):
    return sum(int(number) for number in re.findall(r"changed=(\d+)", done.stdout))


def dm_region(fleet, size):
    return [{"name": MEMORY, "provided_by": "device_model", "size": size, "vms": fleet.vms}]


REGION = """<IVSHMEM><IVSHMEM_REGION>
  <NAME>same_log</NAME><PROVIDED_BY>Hypervisor</PROVIDED_BY><IVSHMEM_SIZE>2</IVSHMEM_SIZE>
  <IVSHMEM_VMS>
    <IVSHMEM_VM><VM_NAME>SAME_1</VM_NAME><VBDF>00:08.0</VBDF></IVSHMEM_VM>
    <IVSHMEM_VM><VM_NAME>SAME_2</VM_NAME><VBDF>00:08.0</VBDF></IVSHMEM_VM>
  </IVSHMEM_VMS>
</IVSHMEM_REGION></IVSHMEM>"""


def test_each_host_waits_for_its_own_step_and_the_run_ends_well(fleet):
    tree = {"acrn_source": str(fleet.folder / "tree")}
    fleet.add("built", **tree)
    fleet.add("installed", **tree)
    # Nobody says how its hypervisor is built, or what it has.
    fleet.add("elsewhere")
    # Its hypervisor is that of a scenario which has the region already.
    scenario = fleet.add("same") / "scenario.xml"
    scenario.write_text(scenario.read_text().replace("<IVSHMEM/>", REGION))
    # All hosts are this machine, where a VM that runs with a region shows that the hypervisor has it.
    fleet.hosts["same"]["ivshmem_regions"] = [{"name": "same_log", "size": 2, "vms": fleet.vms}]
    # dm-land needs no hypervisor.
    fleet.add("dm")
    fleet.hosts["dm"]["ivshmem_regions"] = dm_region(fleet, 2)
    fleet.add("told", launch_hypervisor_manifest="", launch_started=False)
    for name in ("same", "dm"):
        del fleet.guests[f"{name}-guest"]

    done, steps = fleet.play("site")
    assert done.returncode == 0, done.stdout
    assert [fleet.scripts(name) for name in ("built", "installed", "elsewhere")] == [{}, {}, {}]
    assert [len(fleet.scripts(name)) for name in ("same", "dm", "told")] == [2, 2, 2]
    assert rows(steps) == [
        "NEXT STEPS",
        "WHO | WAITS | WHAT ENDS IT",
        "elsewhere | not built, | acrn_source, to build it; once",
        "acrn_source not | it runs:",
        "set: hv:/log | -e launch_hypervisor_manifest=",
        "built, installed  built, not | -e hypervisor_install=true",
        "installed",
        "told TOLD_1 | does not run | -e launch_started=true",
        "TOLD_2",
        "More: docs/waiting.md #elsewhere, #built, #stopped",
    ]

    # Somebody installs one, and does not reboot.
    for path in (fleet.folder / "artifacts").glob("*/manifest.json"):
        if "INSTALLED_1" in (path.parent / "scenario.xml").read_text():
            fleet.manifest("installed", path.parent.name, log=2)
    done, steps = fleet.play("site")
    assert (done.returncode, changed(done)) == (0, 0), done.stdout
    assert "built | built, not | -e hypervisor_install=true" in rows(steps)
    assert "installed | installed, not | -e hypervisor_install=true" in rows(steps)
    # The plan says the same.
    done, planned = fleet.play("plan")
    assert (done.returncode, planned) == (0, steps), done.stdout


def test_a_vm_waits_for_its_restart(fleet):
    fleet.add("line")
    fleet.hosts["line"].update(ivshmem_regions=dm_region(fleet, 2))
    # A check starts no VM, and does not ask guests that only such a start would bring up.
    later = "line-guest: not asked in check mode, as this run would start their VMs first"
    done, steps = fleet.play("site", "--check")
    assert (done.returncode, steps, later in done.stdout) == (0, [], True), done.stdout
    guests, fleet.guests = fleet.guests, {}
    done, steps = fleet.play("site")
    assert (done.returncode, steps) == (0, []), done.stdout
    pids = [(fleet.folder / f"{vm}.pid").read_text() for vm in fleet.vms]

    fleet.hosts["line"]["ivshmem_regions"] = dm_region(fleet, 4)
    fleet.guests = guests
    done, steps = fleet.play("site")
    assert done.returncode == 0, done.stdout
    assert rows(steps[2:]) == [
        "line LINE_1 | runs the old | -e launch_restart=true",
        "LINE_2 | script",
        "More: docs/waiting.md #outdated",
    ]
    done, steps = fleet.play("site", "--check", "-e", "launch_restart=true")
    assert (done.returncode, steps, later in done.stdout) == (0, [], True), done.stdout

    # What could not start again is not stopped, and that is an error: it was asked for.
    (fleet.folder / "acrn-dm").rename(fleet.folder / "acrn-dm.away")
    done, _steps = fleet.play("site", "-e", "launch_restart=true")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert re.search(
        r"LINE_1, LINE_2 cannot be restarted: \S+/LINE_1.sh: there is no \S+/acrn-dm that could be run", said
    )
    (fleet.folder / "acrn-dm.away").rename(fleet.folder / "acrn-dm")
    # Nor is one for which the hypervisor has to be another one first.
    regions = [*dm_region(fleet, 4), {"name": "log", "size": 2, "vms": fleet.vms}]
    fleet.hosts["line"]["ivshmem_regions"] = regions
    done, steps = fleet.play("site", "-e", "launch_restart=true")
    assert done.returncode == 0, done.stdout
    assert steps[2].startswith("line              not built,")
    assert [(fleet.folder / f"{vm}.pid").read_text() for vm in fleet.vms] == pids
    assert [b"hv:/log" in text for text in fleet.scripts("line").values()] == [False, False]

    fleet.guests = {}
    fleet.hosts["line"]["ivshmem_regions"] = dm_region(fleet, 4)
    done, steps = fleet.play("site", "-e", "launch_restart=true")
    assert (done.returncode, steps) == (0, []), done.stdout
    assert [(fleet.folder / f"{vm}.pid").read_text() for vm in fleet.vms] != pids


def test_who_needs_a_builder_that_does_not_answer_waits_and_the_others_go_on(fleet):
    fleet.add("needs", acrn_source=str(fleet.folder / "tree"))
    fleet.add("other")
    fleet.hosts["other"]["ivshmem_regions"] = dm_region(fleet, 2)
    fleet.guests.clear()
    fleet.builder.update(AWAY)
    for playbook, options in (("site", ()), ("install", ("--limit", "needs"))):
        done, steps = fleet.play(playbook, *options)
        assert done.returncode == 2, done.stdout
        flat = " ".join(done.stdout.split())
        assert "builder, which builds the hypervisor of needs, cannot be reached: " in flat
        assert [row for row in rows(steps) if row.startswith("needs | builder cannot be | a run when it can be")]
    assert sorted(fleet.scripts("other")) == [f"{vm}.sh" for vm in fleet.vms]
    assert fleet.scripts("needs") == {}


def test_a_host_that_does_not_answer_gets_its_scenario_and_the_others_go_on(fleet):
    fleet.add("off", launch_vms=[], **AWAY)
    fleet.add("other")
    fleet.hosts["other"]["ivshmem_regions"] = dm_region(fleet, 2)
    fleet.guests.clear()
    done, _steps = fleet.play("site")
    assert done.returncode == 0, done.stdout
    assert [path for path in fleet.folder.glob("**/off/*.xml") if "<NAME>log</NAME>" in path.read_text()], done.stdout
    assert sorted(fleet.scripts("other")) == [f"{vm}.sh" for vm in fleet.vms]


def recap(done):
    """Who has failed or could not be reached, as the last lines have it."""
    lines = done.stdout.rpartition("PLAY RECAP")[2].splitlines()
    return [line.split()[0] for line in lines if re.search(r"(unreachable|failed)=[1-9]", line)]


def test_a_run_without_any_service_vm_ends_with_the_table(fleet):
    for name in ("one", "two"):
        fleet.add(name, **AWAY)
        fleet.hosts[name]["ivshmem_regions"] = dm_region(fleet, 2)
    fleet.guests.clear()
    for options, who in (((), "one, two"), (("--limit", "two"), "two")):
        done, steps = fleet.play("site", *options)
        assert (done.returncode, recap(done)) == (2, who.split(", ")), done.stdout
        assert rows(steps)[2:] == [
            f"{who} | not done, see its | a run again, once that is",
            "error above | mended",
            "More: docs/waiting.md #lost",
        ]
        assert "two cannot be reached: " in " ".join(done.stdout.split())


def test_a_run_that_ends_with_its_builds_ends_with_the_table(fleet):
    for name in ("one", "two"):
        fleet.add(name, acrn_source=str(fleet.folder / "tree"))
    (fleet.folder / "tree" / "Makefile").write_text("all:\n\tfalse\n")
    done, steps = fleet.play("site")
    assert (done.returncode, recap(done)) == (2, ["one"]), done.stdout
    assert "builder has not built all, see its error above, and the run stops here" in done.stdout
    assert rows(steps)[2:] == LOST_BOTH


LOST_BOTH = [
    "one, two | not done, see its | a run again, once that is",
    "error above | mended",
    "More: docs/waiting.md #lost",
]


def test_hosts_are_done_where_all_guests_are_lost(fleet):
    """Those of VMs that were started just now, and then those of VMs that run."""
    fleet.add("plant", guest_boot_timeout=1)
    fleet.hosts["plant"]["ivshmem_regions"] = dm_region(fleet, 2)
    fleet.guests["plant-guest"]["guest_boot_timeout"] = 1
    # Who does not boot in time has failed, who does not answer is unreachable.
    for code, options in ((2, ()), (4, ("--limit", "plant,plant-guest"))):
        done, steps = fleet.play("site", *options)
        assert (done.returncode, recap(done)) == (code, ["plant-guest"]), done.stdout
        assert len(fleet.scripts("plant")) == 2
        assert rows(steps)[2].startswith("plant-guest | not done, see its"), steps
    assert changed(done) == 0
