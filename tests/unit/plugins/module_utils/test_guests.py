# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils import _guests

VMS = [{"name": "PLC", "id": 0}, {"name": "HMI", "id": 2}, {"name": "3", "id": 5}, {"name": "LOG", "id": 3}]


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("line-1", ""),
        (None, "acrn_host is not set"),
        (" ", "acrn_host is not set"),
        ("Line-1", "acrn_host is 'Line-1', which the inventory has not; did you mean line-1?"),
        ("far", "acrn_host is 'far', which the inventory has not; the hosts are line-1, line-2"),
        ("builder", "acrn_host is 'builder', which is not in the group acrn_hosts; the hosts are line-1, line-2"),
    ],
)
def test_the_host_of_a_guest(host, told):
    found = _guests.claims(
        {"g": {"acrn_host": host, "acrn_vm": 2}}, ["line-1", "line-2"], ["line-1", "line-2", "builder", "g"]
    )
    if told:
        assert found["guests"] == {}
        assert found["lost"][0].startswith(f"guest g: {told}")
    else:
        assert found == {"guests": {"line-1": {"g": 2}}, "lost": []}


def test_a_guest_whose_variables_cannot_be_worked_out():
    found = _guests.claims({"g": {"error": "acrn_host cannot be worked out: 'hall' is undefined"}}, ["line-1"])
    assert found["lost"] == ["guest g: acrn_host cannot be worked out: 'hall' is undefined"]


@pytest.mark.parametrize("vm", ["PLC", 0, "0", 2, "2", "3", "LOG", " HMI "])
def test_a_vm_by_name_or_id(vm):
    assert _guests.problems({"g": vm}, VMS) == []


@pytest.mark.parametrize(
    ("vm", "told"),
    [
        (None, "acrn_vm is not set"),
        ("", "acrn_vm is not set"),
        ("hmi", "acrn_vm is 'hmi', which the scenario has not; did you mean HMI?; its VMs: PLC (ID 0), HMI (ID 2)"),
        (True, "acrn_vm is 'True', which the scenario has not"),
        ([2], "acrn_vm is '[2]', which the scenario has not"),
        (7, "acrn_vm is '7', which the scenario has not"),
    ],
)
def test_a_vm_that_there_is_not(vm, told):
    (found,) = _guests.problems({"g": vm}, VMS)
    assert found.startswith(f"guest g: {told}")


def test_two_guests_that_are_one_vm_are_told_together():
    # Digits are the ID of LOG, but the name of another VM.
    same = {"a": "HMI", "b": 2, "c": "PLC", "d": "3", "e": "LOG", "f": "2"}
    assert [line.split(":")[0] for line in _guests.problems(same, VMS)] == ["guests a and b and f"]
