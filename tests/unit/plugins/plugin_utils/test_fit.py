# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.acrn.ivshmem.plugins.plugin_utils._fit import unfit

BUILDS = {"builds": [{"key": "old", "regions": [{"name": "plc", "size": 2, "region_id": 0}]}, {"key": "new"}]}


def scripts(*devices, problems=()):
    found = [{"name": name, "size": size, "line": 7} for name, size in devices]
    return {
        "scripts": [{"path": "/l/VM1.sh", "vms": [{"name": "VM1", "devices": found}]}],
        "problems": list(problems),
    }


def test_devices_that_the_hypervisor_has_fit_and_those_of_acrn_dm_always():
    assert unfit(scripts(("hv:/plc", 2), ("dm:/log", 64)), BUILDS, "old") == []
    assert unfit(scripts(("dm:/log", 64)), BUILDS, None) == []


def test_devices_that_it_lacks_are_told_with_script_and_line():
    assert unfit(scripts(("hv:/new", 2), ("hv:/plc", 4)), BUILDS, "old") == [
        "/l/VM1.sh, line 7: VM VM1 has hv:/new, which that hypervisor does not have",
        "/l/VM1.sh, line 7: VM VM1 has hv:/plc with 4 MB, which has 2 MB there",
    ]


def test_of_the_own_entry_of_a_host_nothing_is_known():
    (told,) = unfit(scripts(("hv:/plc", 2)), BUILDS, None)
    assert told == "/l/VM1.sh, line 7: VM VM1 has hv:/plc; whether the host's own hypervisor has it is not known"


def test_a_script_that_cannot_be_read_is_told():
    told = unfit(scripts(problems=["/l/x.sh: line 3: a name that cannot be read"]), BUILDS, "old")
    assert told == ["cannot be read: /l/x.sh: line 3: a name that cannot be read"]
