# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``site`` on a host that runs in the emulator: Ansible installs ACRN, reboots into it, and launches a VM there."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from itertools import permutations

import devicemodel
import emulator
import host
import image
import machines
import pytest
import real

pytestmark = pytest.mark.skipif(
    not os.environ.get("ACRN_SRC"), reason="no ACRN source: set ACRN_SRC to a clone with its tags, or to a tree"
)


def recap(said):
    """What Ansible counts in the end for all hosts: by word."""
    counted = Counter()
    for word, count in re.findall(r"(\w+)=(\d+)", said.rpartition("PLAY RECAP")[2]):
        counted[word] += int(count)
    return counted


@pytest.mark.long
def test_site_brings_acrn_its_regions_and_a_vm_to_a_host_and_changes_nothing_after_that(tmp_path):
    if real.source(machines.HOST.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{machines.HOST.text}")
    missing = " ".join(filter(None, (emulator.missing(), image.missing(), devicemodel.missing())))
    if missing:
        pytest.skip(f"Debian packages are missing: {missing}")
    at = host.Host(machines.HOST, tmp_path)
    with emulator.Emulator(tmp_path / "run", at.image, machines.HOST.machine, reboots=host.REBOOTS) as machine:
        machine.wait("acrn-host: ready", 600)
        first = recap(at.ansible(machine, "ansible-playbook", "acrn.ivshmem.site"))
        assert (first["failed"], first["unreachable"]) == (0, 0)
        assert first["changed"] > 0
        assert any("ACRN Hypervisor" in line.text for line in machine.lines)

        said = at.ansible(machine, "ansible", host.NAME, "-m", "acrn.ivshmem.hypervisor_info")
        info = json.loads(said.partition("=>")[2])
        assert info["running"] is not None
        assert info["default"] == info["running"]
        # Each of the two has read what the other wrote, and heard the other ring, once.
        both = set(permutations(vm.name for vm in machines.HOST.vms))
        report = json.loads((at.folder / host.REPORT).read_text())
        assert [each["state"] for each in report["regions"]] == ["proved"]
        assert {(each["from"], each["to"]) for each in report["pairs"]} == both
        assert {(each["from"], each["to"], each["received"]) for each in report["doorbells"]} == {
            (*each, 1) for each in both
        }
        second = recap(at.ansible(machine, "ansible-playbook", "acrn.ivshmem.site"))
        assert (second["failed"], second["unreachable"], second["changed"]) == (0, 0, 0)
        print(f"{machine.cpu():.0f} CPU s; {tmp_path}/run/serial.log")
