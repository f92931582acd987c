# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first example of the README, as it stands there, on this machine as the host."""

from __future__ import annotations

import re
import shutil

import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_waiting import Fleet, ends

TREE = "/opt/acrn-hypervisor"


def test_the_first_example_goes_the_whole_way(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = yaml.safe_load(re.search(r"### A fleet\n\n```yaml\n(.*?)```", text, re.DOTALL).group(1))
    with ends(tmp_path):
        fleet = Fleet(tmp_path)
        fleet.add("press-1")
        hosts = example["acrn_hosts"]
        assert (list(hosts["hosts"]), hosts["vars"]["acrn_source"]) == (["press-1"], TREE)
        said = {**hosts["vars"], **hosts["hosts"]["press-1"]}
        for path, source in (
            ("acrn_scenario", "examples/demo/scenarios/press-line.xml"),
            ("acrn_board", "molecule/default/inventory/board.xml"),
        ):
            (tmp_path / said[path]).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / said[path])
        board = tmp_path / said["acrn_board"]
        board.write_text(board.read_text().replace('board="lab"', 'board="whl-ipc-i5"'))
        version = tmp_path / "tree/VERSION"
        version.write_text(re.sub("(?m)(?<=^MAJOR_VERSION=).*", "2", version.read_text()))
        version.write_text(re.sub("(?m)(?<=^MINOR_VERSION=).*", "7", version.read_text()))

        # What this machine has in place of GRUB, systemd and a tree in /opt.
        ways = {
            key: value
            for key, value in fleet.hosts["press-1"].items()
            if re.match("ansible_|launch_(?!vms|started)", key)
        }
        there = {"acrn_source": str(tmp_path / "tree"), "acrn_version": "", "launch_hypervisor_manifest": ""}
        fleet.hosts = {"press-1": {**ways, **said, **there, "hypervisor_install": False}}
        fleet.guests = {}
        done, steps = fleet.play("site")
        assert (done.returncode, steps) == (0, []), done.stdout
        assert list((tmp_path / "artifacts").glob("*/acrn.bin"))
        (script,) = fleet.scripts("press-1")
        assert b"ivshmem,hv:/press_state,4" in fleet.scripts("press-1")[script]
        assert (tmp_path / f"{script.partition('.')[0]}.pid").exists()
        done, steps = fleet.play("site")
        assert (done.returncode, steps, re.findall("changed=[1-9]", done.stdout)) == (0, [], []), done.stdout
