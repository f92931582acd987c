# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines that the tests boot: VMs, and the regions as a user would declare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import board
import frame
import real

PRE0 = frame.Vm("PRE_STD_VM0", cpus=(0,), bootargs="vmid=0")
PRE1 = frame.Vm("PRE_STD_VM1", cpus=(1,), bootargs="vmid=1")
BEHIND = frame.Vm("PRE_STD_VM0", cpus=(1,), bootargs="vmid=0")
SERVICE_BEHIND = frame.Vm("ACRN_Service_VM", frame.SERVICE, bootargs="vmid=1")
SERVICE = frame.Vm("ACRN_Service_VM", frame.SERVICE, bootargs="vmid=0")
# Three of them share two processors.
SMALL = [
    frame.Vm(f"PRE_STD_VM{number}", cpus=(min(number, 1),), memory=128 * board.MB, bootargs=f"vmid={number}")
    for number in range(3)
]
POST1 = frame.Vm("POST_STD_VM1", frame.POST, cpus=(0,), memory=128 * board.MB, bootargs="vmid=1")
POST2 = frame.Vm("POST_STD_VM2", frame.POST, cpus=(1,), memory=128 * board.MB, bootargs="vmid=2")

TWO = (PRE0.name, PRE1.name)
THREE = tuple(vm.name for vm in SMALL)
VM1, VM2 = POST1.name, POST2.name
ALL = (SERVICE.name, VM1, VM2)


def region(name: str, size: int, *vms: str | Mapping[str, str], **more: object) -> dict[str, Any]:
    return {"name": name, "size": size, "vms": list(vms), **more}


def at(vbdf: str) -> list[Mapping[str, str]]:
    """Both pre-launched VMs, with a region at this address."""
    return [{"name": name, "vbdf": vbdf} for name in TWO]


# Peer and vector of doorbells for what is not there: vectors behind the last, peers without a VM.
STRAY = ((1, 8), (1, 255), (1, 0xFFFF), (2, 0), (15, 0), (16, 3), (0xFFFF, 0))

TWO_PRE_LAUNCHED = real.Wanted(
    (3, 3),
    [PRE0, PRE1],
    [region("shm_region_0", 2, *TWO), region("big", 8, *TWO, region_id=4097)],
    stray=STRAY,
)
LAUNCHED = real.Wanted(
    (3, 3),
    [SERVICE, POST1, POST2],
    [
        region("state", 2, *ALL, region_id=4097),
        region("own", 2, *ALL[:2]),
        region("table", 4, VM1, VM2, provided_by="device_model", region_id=4098),
    ],
)
# Its launch scripts, as somebody has changed them: what acrn-dm takes, and reads as something else.
MISREAD = replace(
    LAUNCHED,
    regions=[*LAUNCHED.regions[:2], region("table", 4, VM1, VM2, provided_by="device_model")],
    scripts_by_hand={
        "hv:/state,2,4097": "hv:/state,2,5000",
        # The first is that of VM 1, the second that of VM 2.
        "10,ivshmem,dm:/table,4": "10,ivshmem,dm:/table,4GB,0x1002",
        "'9,ivshmem,dm:/table,4": "'9,ivshmem,dm:/table,4100,66000",
    },
)
# A host on which ACRN is installed, and one VM is launched.
HOST = real.Wanted((3, 3), [SERVICE, POST1], [region("state", 2, *ALL[:2], region_id=4097)])

BIG = board.Machine(memory=5 * board.GB)


def _beside_service_vm(version: tuple[int, int]) -> real.Wanted:
    """A pre-launched VM and the Service VM, with one region."""
    regions = [region("state", 2, SERVICE_BEHIND.name, BEHIND.name)]
    return real.Wanted(version, [BEHIND, SERVICE_BEHIND], regions, replace(BIG, display=version < (3, 0)))


def _launched(version: tuple[int, int]) -> real.Wanted:
    """A Service VM and two VMs that it starts, without region IDs, which v3.3 has first.

    Up to v2.7 ACRN's build chooses the addresses in the Service VM, where order alone tells regions of one size apart.
    """
    table = region("table", 4, VM1, VM2, provided_by="device_model")
    regions = [region("state", 2, *ALL), region("own", 4, *ALL[:2]), table]
    return replace(LAUNCHED, version=version, regions=regions, machine=replace(BIG, display=version < (3, 0)))


CASES = {
    "3.3-two-pre-launched": TWO_PRE_LAUNCHED,
    "2.7-two-pre-launched": real.Wanted(
        (2, 7),
        [PRE0, PRE1],
        [region("shm_region_0", 2, *TWO), region("big", 8, *TWO)],
        replace(BIG, display=True),
    ),
    "2.7-service-vm": _beside_service_vm((2, 7)),
    "3.3-service-vm": _beside_service_vm((3, 3)),
}
# Eight regions, each of which takes two of the address ranges that the hypervisor emulates for a VM: it has 16 unless
# the scenario says more.
_EIGHT = [
    region("big", 4, *at("00:14.0"), region_id=4098),
    *[region(f"new_{size}", size, *TWO) for size in (2, 8, 16, 32, 64, 128, 256)],
]
CROWDED = real.Wanted((3, 3), [PRE0, PRE1], _EIGHT)
# Under --long.
MORE = {
    "3.3-launched": LAUNCHED,
    # The first case after a change of its declaration: a region moved and resized, one gone, seven new.
    "3.3-changed": replace(CROWDED, before=[TWO_PRE_LAUNCHED.regions], handlers=32),
}
# Three VMs in one region, and two regions of one size that each share with another VM.
_SHARED = [region("all", 4, *THREE), region("left", 2, *THREE[:2]), region("right", 2, THREE[0], THREE[2])]
# v2.7 refuses pre-launched VMs that share a processor.
_APART = [replace(vm, cpus=(number,)) for number, vm in enumerate(SMALL)]
MORE["2.7-three"] = real.Wanted((2, 7), _APART, _SHARED, replace(BIG, cpus=3, display=True))
# The two are functions of one device.
MORE["3.3-three"] = real.Wanted(
    (3, 3),
    SMALL,
    [
        _SHARED[0],
        region("left", 2, {"name": THREE[0], "vbdf": "00:08.0"}, THREE[1]),
        region("right", 2, {"name": THREE[0], "vbdf": "00:08.1"}, THREE[2]),
    ],
)

# The other releases, with two regions; 3.4 is what master calls itself. v2.2 builds no pre-launched VM that has no
# passthrough device ("undefined reference to `vm0_pci_devs'"), and there is none in the emulator. v2.4 has physical
# addresses of 39 bits at most (MAXIMUM_PA_WIDTH), and the emulator's processor has 40: it panics.
RELEASES = ((2, 3), (2, 5), (2, 6), (3, 0), (3, 1), (3, 2), (3, 4))
OTHERS = {}
for _version in RELEASES:
    _machine = board.Machine(display=_version < (3, 0))
    _wanted = real.Wanted(_version, [PRE0, PRE1], [region("a", 2, *TWO), region("b", 4, *TWO)], _machine)
    OTHERS[f"{_wanted.text}-two-pre-launched"] = _wanted
MORE.update(OTHERS)
for _version in ((2, 5), (2, 6), (3, 0), (3, 1), (3, 2), (3, 4)):
    _wanted = _beside_service_vm(_version)
    MORE[f"{_wanted.text}-service-vm"] = _wanted
for _version in ((2, 7), (3, 2)):
    _wanted = _launched(_version)
    MORE[f"{_wanted.text}-launched"] = _wanted
