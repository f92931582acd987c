# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.filter import verify as filters


@pytest.mark.parametrize("no_python", [False, "no", "false"])
def test_guests_in_which_no_module_can_run_take_no_part(no_python):
    plan = {"scenario_plan": {"regions": []}}
    linux = {"acrn_host": "host", "acrn_vm": "VM1", "guest_result": {"boot_id": "a", "proof": None, "changed": False}}
    hostvars = {
        "host": plan,
        "linux": linux,
        "said": {**linux, "guest_os": "linux", "guest_python": True},
        "shell": {"acrn_host": "host", "acrn_vm": "VM2", "guest_python": no_python, "guest_result": {"changed": True}},
        "windows": {"acrn_host": "host", "acrn_vm": "VM3", "guest_os": "windows", "guest_result": {"changed": False}},
    }
    guests = ["linux", "said", "shell", "windows"]
    assert filters.probed(guests, hostvars) == ["linux", "said"]
    assert filters.unproved(guests, hostvars) == ["linux", "said"]
    # A proof of the others stands, whatever is bound or booted there.
    for guest in ("linux", "said"):
        hostvars[guest]["__verify_look"] = {"boot_id": "a"}
    report = {"problems": [], "kept": ["host"]}
    (kept,) = filters.proof(hostvars, report, "host", filters.probed(guests, hostvars))
    linux["guest_result"]["proof"] = kept
    assert kept and filters.unproved(guests, hostvars) == []

    # A problem ends it, and of a host of which nothing was found out, nothing changes.
    assert filters.proof(hostvars, {"problems": [{"acrn_host": "host"}], "kept": []}, "host", guests) == [""]
    assert filters.proof(hostvars, {"problems": [{"acrn_host": "other"}], "kept": []}, "host", guests) == []


class Looks(dict):
    """hostvars, of which each look costs Ansible all variables of a host, and of no other name."""

    count = 0

    def __getitem__(self, name):
        assert name in self
        self.count += 1
        return super().__getitem__(name)

    def get(self, name, default=None):
        return self[name]


@pytest.mark.parametrize("hosts", [3, 30])
def test_a_fleet_is_looked_at_host_by_host_and_not_in_pairs(hosts):
    hostvars = Looks({f"h{number}": {"scenario_plan": {"regions": []}} for number in range(hosts)})
    for number in range(2 * hosts):
        result = {"boot_id": "a", "proof": None, "changed": False}
        hostvars[f"g{number}"] = {"acrn_host": f"h{number // 2}", "acrn_vm": f"VM{number % 2}", "guest_result": result}
    guests = [name for name in hostvars if name.startswith("g")]
    assert filters.unproved(guests, hostvars) == guests
    assert hostvars.count <= 5 * len(guests)


def test_guests_of_which_no_host_is_known_may_be_peers_of_any():
    hostvars = {"a": {"acrn_host": "h1"}, "b": {"acrn_host": "h2"}, "c": {}, "d": {"acrn_host": "h1"}}
    assert filters.unproved("abcd", Looks(hostvars, h1={}, h2={})) == list("abcd")
