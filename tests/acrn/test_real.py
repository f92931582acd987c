# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ACRN itself, built by the collection from regions that a user declares, boots and does what the plan says.

Each test is one boot of the emulator: one to two minutes of processor time. They need ``ACRN_SRC``; see README.md.
"""

from __future__ import annotations

import itertools
import os

import board
import frame
import pytest
import real

VECTORS = 8
PRE0 = frame.Vm("PRE_STD_VM0", cpus=(0,), bootargs="vmid=0")
PRE1 = frame.Vm("PRE_STD_VM1", cpus=(1,), bootargs="vmid=1")
BEHIND = frame.Vm("PRE_STD_VM0", cpus=(1,), bootargs="vmid=0")
SERVICE = frame.Vm("ACRN_Service_VM", frame.SERVICE, bootargs="vmid=1")

pytestmark = pytest.mark.skipif(
    not os.environ.get("ACRN_SRC"), reason="no ACRN source: set ACRN_SRC to a clone with its tags, or to a tree"
)


def region(name, size, *vms, **more):
    return {"name": name, "size": size, "vms": list(vms), **more}


TWO = ("PRE_STD_VM0", "PRE_STD_VM1")
CASES = {
    "3.3-two-pre-launched": real.Wanted(
        (3, 3),
        [PRE0, PRE1],
        [region("shm_region_0", 2, *TWO), region("big", 8, *TWO, region_id=4097)],
    ),
    "2.7-two-pre-launched": real.Wanted(
        (2, 7),
        [PRE0, PRE1],
        [region("shm_region_0", 2, *TWO), region("big", 8, *TWO)],
        board.Machine(display=True),
    ),
    "3.3-service-vm": real.Wanted(
        (3, 3),
        [BEHIND, SERVICE],
        [region("state", 2, "ACRN_Service_VM", "PRE_STD_VM0")],
    ),
}


@pytest.fixture(name="booted", params=CASES)
def _booted(request, boots):
    """The machine of a case, as the collection has made it, and what its VMs said."""
    return boots(request.param, CASES[request.param])


def of_each(built, told):
    """Each region of each of its VMs: the plan's region, the plan's VM, and what that VM said."""
    for planned in built.regions:
        for vm in planned["vms"]:
            yield planned, vm, told.regions[vm["id"], planned["name"]]


def test_function_is_where_the_plan_says_with_its_size_and_registers(booted):
    built, told = booted
    for planned, vm, said in of_each(built, told):
        function = said["function"]
        if vm["vbdf"]:
            assert function["bdf"] == vm["vbdf"]
        assert function["size"] == planned["size"]
        assert function["bar2"]["size"] == planned["size"] * board.MB
        assert function["bar0"]["size"] == 256
        assert function["vectors"] == VECTORS
        assert function["driver"] == "uio_pci_generic"


def test_every_vm_reads_its_own_id_as_its_peer_id_from_3_3_on(booted):
    built, told = booted
    for _planned, vm, said in of_each(built, told):
        # v2.7 shows 0 in every VM; its doorbells go by the VM ID all the same.
        assert said["function"]["iv_position"] == (vm["id"] if built.wanted.version >= (3, 3) else 0)


def test_region_id_is_the_subsystem_id_from_3_3_on(booted):
    built, told = booted
    for planned, _vm, said in of_each(built, told):
        assert said["function"]["region_id"] == planned["region_id"]
        if built.wanted.version >= (3, 3):
            assert said["function"]["subsystem_device"] == f"{planned['region_id'] or 0:04x}"


def test_regions_of_a_file_without_addresses_come_in_their_order(booted):
    built, told = booted
    if built.wanted.version >= (3, 0):
        pytest.skip("the file has addresses")
    for vm in range(len(built.wanted.vms)):
        places = [told.regions[vm, planned["name"]]["function"]["bdf"] for planned in built.regions]
        assert places == sorted(places)


def test_bytes_arrive_in_all_directions_and_are_put_back(booted):
    built, told = booted
    for planned, vm, said in of_each(built, told):
        peers = sorted(other["id"] for other in planned["vms"] if other["id"] != vm["id"])
        assert said["bytes"] == {
            "wrote": [],
            "read": [{"from": peer, "same": 4096, "problems": []} for peer in peers],
            "back": True,
            "restored": [],
        }


def test_doorbells_ring_in_the_peer_on_each_vector_and_nowhere_else(booted):
    built, told = booted
    for planned, vm, said in of_each(built, told):
        members = sorted(other["id"] for other in planned["vms"])
        heard = {(bell["from"], bell["to"]): bell for bell in said["bells"]}
        assert list(heard) == list(itertools.permutations(members, 2))
        for (sender, receiver), bell in heard.items():
            assert bell["problems"] == []
            if sender != vm["id"]:
                assert bell["receivable"], bell["reason"]
                assert bell["counts"] == [1 if receiver == vm["id"] else 0] * VECTORS
