# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ACRN's own acrn-dm, on a Service VM under ACRN, is asked for what cannot be; and so is the collection.

One boot for all of it: four to five minutes of processor time, 20 s for each request that gets as far as a VM. It needs
``ACRN_SRC``; see README.md.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace

import machines
import pytest
from machines import VM2

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import check_manifest, make_devices
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._devices import launch
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario

pytestmark = pytest.mark.skipif(
    not os.environ.get("ACRN_SRC"), reason="no ACRN source: set ACRN_SRC to a clone with its tags, or to a tree"
)


@dataclass(frozen=True)
class Refusal:
    """What acrn-dm is asked for, what it or the hypervisor says, and what the collection says to the same."""

    devices: str
    real: str
    collection: str
    vm: str = VM2

    @property
    def arguments(self) -> str:
        devices = " ".join(f"-s {device}" for device in self.devices.split())
        return f"-m 128M --cpu_affinity 1 -s 0:0,hostbridge {devices} -k /guest/bzImage {self.vm}"


INVALID = r"ACRN_IOCTL_CREATE_VDEV.*Invalid argument"
REFUSALS = {
    "a name that the build does not have": Refusal(
        "8,ivshmem,hv:/nothing,2",
        INVALID,
        "region 'hv:/nothing' is not in the scenario, so the hypervisor does not have it",
    ),
    "a size that the build does not have": Refusal(
        "8,ivshmem,hv:/state,4", INVALID, "region 'hv:/state' has 4 MB, but 2 MB in the scenario"
    ),
    "a region of other VMs": Refusal(
        "9,ivshmem,hv:/own,2", INVALID, "region 'hv:/own' does not list VM 'POST_STD_VM2' (ID 2) in the scenario"
    ),
    "a region of the other land": Refusal(
        "9,ivshmem,hv:/table,4", INVALID, "region 'hv:/table' is not in the scenario"
    ),
    "a VM name that the build does not have": Refusal(
        "8,ivshmem,hv:/state,2", "vm_create failed|" + INVALID, "in the script: OTHER_VM", "OTHER_VM"
    ),
    "a VM name that is too long": Refusal(
        "8,ivshmem,hv:/state,2",
        "exceeds the maximum length: 15",
        "VM name 'POST_STD_VM_16ch' has more than 15 characters",
        "POST_STD_VM_16ch",
    ),
    "a slot twice": Refusal(
        "8,ivshmem,hv:/state,2 8,ivshmem,dm:/table,4",
        "pci slot 8:0 already occupied!",
        "slot 8 (00:08.0) is also asked for by region 'hv:/state'",
    ),
    "a slot that is none": Refusal(
        "40,ivshmem,hv:/state,2", "Invalid PCI slot info field", "slot 40 must be 0..31, in decimal"
    ),
    "a size that is no power of two": Refusal(
        "8,ivshmem,dm:/three,3", "Invalid shared memory size", "size 3 must be a power of two from 2 to 512 MB"
    ),
    "a name without land": Refusal(
        "8,ivshmem,state,2", "the ivshmem memory prefix name is incorrect", "region 'state': provided_by is missing"
    ),
    "memory of another size that is there": Refusal("8,ivshmem,dm:/table,8", "shm size is different, cur 8388608", ""),
}
# In a build without regions of the hypervisor nothing answers for them.
NONE = Refusal(
    "8,ivshmem,hv:/state,2", INVALID, "region 'hv:/state' is not in the scenario, so the hypervisor does not have it"
)
OFF = replace(
    machines.LAUNCHED, regions=machines.LAUNCHED.regions[2:], trials={"no region": NONE.arguments}, start=False
)
REFUSED = replace(machines.LAUNCHED, trials={name: each.arguments for name, each in REFUSALS.items()}, start=False)


@pytest.fixture(name="booted")
def _booted(boots):
    return boots("3.3-refused", REFUSED)


def told_by_the_collection(built, refusal):
    """What launch_script says to a script with these devices, beside the scenario and beside the manifest."""
    devices = []
    for text in refusal.devices.split():
        slot, _ivshmem, name, size = text.split(",")
        devices.append({"name": name, "size": int(size), "slot": int(slot)})
    scenario = read_scenario((built.artifact / "scenario.xml").read_bytes(), "scenario.xml")
    manifest = json.loads((built.artifact / "manifest.json").read_text())
    script = f"acrn-dm -m 128M -s 0:0,hostbridge {refusal.vm}\n".encode()
    said = []
    for known in (scenario, None):
        try:
            launch(script, "launch.sh", devices, scenario=known, version=built.wanted.version)
            check_manifest(make_devices(devices, built.wanted.version), manifest, "manifest.json")
        except IvshmemError as exc:
            said.append(str(exc))
    return said


def check(built, told, name, refusal):
    trial = next(each for each in told.all if each["what"] == "trial" and each["name"] == name)
    assert trial["status"] not in (0, 137), trial["lines"]
    assert re.search(refusal.real, "\n".join(trial["lines"])), trial["lines"]
    if refusal.collection:
        said = told_by_the_collection(built, refusal)
        assert any(refusal.collection in text for text in said), said


@pytest.mark.long
@pytest.mark.parametrize("name", REFUSALS)
def test_what_acrn_refuses_is_refused_before_anything_is_started(booted, name):
    built, told = booted
    check(built, told, name, REFUSALS[name])


@pytest.mark.long
def test_a_build_without_regions_refuses_them(boots):
    check(*boots("3.3-off", OFF), "no region", NONE)


@pytest.mark.long
def test_what_acrn_dm_reads_as_something_else(boots):
    _built, told = boots("3.3-misread", machines.MISREAD)
    functions = {where: said["function"] for where, said in told.regions.items()}
    for vm in (1, 2):
        # The script says 5000: region IDs of the hypervisor come from its build.
        assert functions[vm, "state"]["region_id"] == 4097
        # "4GB" is a 4 to acrn-dm, as is 4100, since it counts bytes in 32 bits.
        assert functions[vm, "table"]["size"] == 4
    # "0x1002" is a 0, and 66000 what 16 bits of it are.
    assert [functions[vm, "table"]["subsystem_device"] for vm in (1, 2)] == ["0000", "01d0"]
    # The collection holds none of it for what was asked for.
    result = told.one("launch_state")["result"]
    assert sorted((vm["name"], vm["fits"]) for vm in result["vms"]) == [(machines.VM1, False), (machines.VM2, False)]
