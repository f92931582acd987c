# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ACRN itself, built by the collection from regions that a user declares, boots and does what the plan says.

Each machine is one boot of the emulator: one to five minutes of processor time. They need ``ACRN_SRC``; see README.md.
"""

from __future__ import annotations

import itertools
import os
import re

import board
import frame
import machines
import pytest

VECTORS = 8
MARK = "a process of the Service VM was here"

pytestmark = pytest.mark.skipif(
    not os.environ.get("ACRN_SRC"), reason="no ACRN source: set ACRN_SRC to a clone with its tags, or to a tree"
)
CASES = {**machines.CASES, **machines.MORE}


@pytest.fixture(
    name="booted",
    params=[pytest.param(name, marks=[pytest.mark.long] if name in machines.MORE else []) for name in CASES],
)
def _booted(request, boots):
    """The machine of a case, as the collection has made it, and what its VMs said."""
    return boots(request.param, CASES[request.param])


@pytest.fixture(name="launched", params=[name for name in machines.MORE if name.endswith("-launched")])
def _launched(request, boots):
    return boots(request.param, machines.MORE[request.param])


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
        assert function["bar0"]["size"] == built.wanted.registers
        assert function["vectors"] == (built.wanted.vectors if planned["provided_by"] == "hypervisor" else 0)
        assert function["driver"] == "uio_pci_generic"


def test_every_vm_reads_its_own_id_as_its_peer_id_from_3_3_on(booted):
    built, told = booted
    for planned, vm, said in of_each(built, told):
        if planned["provided_by"] == "device_model":
            # A function without a doorbell has no peer ID.
            assert said["function"]["iv_position"] is None
            continue
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
    for vm, made in enumerate(built.wanted.vms):
        if made.order == frame.POST:
            continue  # its places are those of its script
        mine = [planned for planned in built.regions if vm in [each["id"] for each in planned["vms"]]]
        places = [told.regions[vm, planned["name"]]["function"]["bdf"] for planned in mine]
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
        if planned["provided_by"] == "device_model" or not built.wanted.vectors:
            assert said["bells"] is None
            continue
        members = sorted(other["id"] for other in planned["vms"])
        heard = {(bell["from"], bell["to"]): bell for bell in said["bells"]}
        assert list(heard) == list(itertools.permutations(members, 2))
        for (sender, receiver), bell in heard.items():
            assert bell["problems"] == []
            if sender != vm["id"]:
                assert bell["receivable"], bell["reason"]
                assert bell["counts"] == [1 if receiver == vm["id"] else 0] * VECTORS


def test_doorbells_of_what_does_not_exist_ring_nowhere(booted):
    built, told = booted
    if not built.wanted.stray:
        pytest.skip("nothing of the kind is rung")
    heard = [said["stray"] for _planned, vm, said in of_each(built, told) if vm["id"] != 0]
    assert heard == [{"counts": [0] * VECTORS, "problems": []}] * len(built.regions)


@pytest.mark.long
def test_the_eighth_region_of_a_vm_is_not_heard_and_the_collection_warns(boots):
    built, told = boots("3.3-crowded", machines.CROWDED)
    assert "emulated-mmio" in [finding["rule"] for finding in built.plan["findings"]]
    for planned, vm, said in of_each(built, told):
        assert [each["same"] for each in said["bytes"]["read"]] == [4096]
        (heard,) = [bell["counts"] for bell in said["bells"] if bell["to"] == vm["id"]]
        # The one at the last address finds no room in the hypervisor's list of address ranges.
        last = planned["name"] == "big"
        assert heard == [0 if last else 1] * VECTORS
        assert said["function"]["iv_position"] == (0xFFFFFFFF if last else vm["id"])


@pytest.mark.long
def test_every_launched_vm_has_its_regions_at_the_slots_of_its_script(launched):
    built, told = launched
    found = 0
    for planned, vm, said in of_each(built, told):
        if vm["load_order"] != "post_launched":
            continue
        (script,) = [path.read_text() for path in built.scripts if path.stem == vm["name"]]
        prefix = "hv" if planned["provided_by"] == "hypervisor" else "dm"
        (slot,) = re.findall(rf"'(\d+),ivshmem,{prefix}:/{planned['name']},{planned['size']}\b", script)
        assert said["function"]["bdf"] == f"00:{int(slot):02x}.0"
        found += 1
    assert found == 5


@pytest.mark.long
def test_memory_of_the_device_model_is_a_file_of_the_service_vm(launched):
    _built, told = launched
    memory = told.one("memory")
    assert memory["size"] == 4 * board.MB
    for vm in (1, 2):
        # Written by a process of the Service VM before acrn-dm came, read in the guest.
        assert told.regions[vm, "table"]["mark"] == MARK


@pytest.mark.long
def test_launch_state_sees_that_the_vms_run_as_they_should(launched):
    _built, told = launched
    result = told.one("launch_state")["result"]
    assert result["differences"] == []
    assert result["same"] is True
    assert sorted((vm["name"], vm["fits"]) for vm in result["vms"]) == [(machines.VM1, True), (machines.VM2, True)]


@pytest.mark.long
def test_memory_of_another_size_is_told_before_acrn_refuses_it(launched):
    _built, told = launched
    result = told.one("launch_state_resized")["result"]
    assert result["same"] is False
    assert "/dev/shm/table" in "\n".join(result["differences"])
