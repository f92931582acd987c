# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.acrn.ivshmem.plugins.filter import regions as filters


def region(name, *vms, provided_by="hypervisor", size=2, region_id=None):
    return {"name": name, "provided_by": provided_by, "size": size, "region_id": region_id, "vms": list(vms)}


def vm(vm_id, name, slot):
    vbdf = None if slot is None else f"00:{slot:02x}.0"
    return {"id": vm_id, "name": name, "load_order": "post_launched", "vbdf": vbdf, "slot": slot}


PLAN = {
    "acrn_version": "3.3",
    "vms": [{"id": 0, "name": "RT"}, {"id": 1, "name": "HMI"}, {"id": 2, "name": "LOG"}],
    "regions": [
        region("a", vm(0, "RT", None), vm(1, "HMI", 8), region_id=4096),
        region("b", vm(1, "HMI", 16), vm(2, "LOG", 8), provided_by="device_model", size=64),
    ],
}


def test_compact_and_mapping_are_two_forms_of_one_region():
    mapping = {"name": "test", "provided_by": "device_model", "size": 2, "vms": [1, 2]}
    assert filters.from_compact("dm:/test, 2, 1:2") == mapping
    assert filters.to_compact(mapping) == "dm:/test, 2, 1:2"


@pytest.mark.parametrize("name", ["from_compact", "to_compact"])
def test_a_bad_region_is_told_by_the_filter_that_met_it(name):
    with pytest.raises(AnsibleFilterError, match=f"acrn.ivshmem.{name}: region 'test'"):
        filters.FilterModule().filters()[name]("test")


@pytest.mark.parametrize("ref", ["HMI", 1, "1"])
def test_devices_of_a_vm_by_name_or_id(ref):
    devices = filters.vm_devices(PLAN, ref)
    assert [(device["name"], device["vbdf"], device["slot"], device["peers"]) for device in devices] == [
        ("a", "00:08.0", 8, [0]),
        ("b", "00:10.0", 16, [2]),
    ]
    assert filters.vm_slots(PLAN, ref) == {"a": 8, "b": 16}


def test_a_vm_that_the_plan_does_not_have_is_an_error_with_those_it_has():
    with pytest.raises(AnsibleFilterError, match=r"no VM 'HMU'; its VMs are RT \(0\), HMI \(1\), LOG \(2\)"):
        filters.vm_devices(PLAN, "HMU")


def build(**changes):
    return {"source": "/opt/acrn", "board": "b.xml", "scenario": "s.xml", "name": "s", "digest": "d", **changes}


def test_hosts_share_a_build_when_all_but_the_path_of_the_scenario_is_equal():
    hosts = [
        {"inventory_hostname": "h1", "scenario_build_inputs": build(scenario="h1/s.xml")},
        {"inventory_hostname": "h2", "scenario_build_inputs": build(scenario="h2/s.xml", release=True)},
        {"inventory_hostname": "h3", "scenario_build_inputs": build(scenario="h3/s.xml")},
        {"inventory_hostname": "h4", "scenario_build_inputs": {}},
        {"inventory_hostname": "h5"},
        {"inventory_hostname": "h6", "scenario_build_inputs": build(digest="other")},
    ]
    builds = filters.distinct_builds(hosts)
    assert [each["hosts"] for each in builds] == [["h1", "h3"], ["h2"], ["h6"]]
    assert builds[0]["scenario"] == "h1/s.xml"


def test_guests_whose_vm_was_started_just_now():
    hostvars = {
        "host": {"launch_just_started": ["VM1"], "scenario_plan": {"vms": [{"id": 2, "name": "VM1"}]}},
        "other": {},
        "by-name": {"acrn_host": "host", "acrn_vm": "VM1"},
        "by-id": {"acrn_host": "host", "acrn_vm": 2},
        "not-started": {"acrn_host": "host", "acrn_vm": "VM2"},
        "elsewhere": {"acrn_host": "other", "acrn_vm": "VM1"},
        "nowhere": {},
    }
    guests = [name for name in hostvars if name not in ("host", "other")]
    assert filters.just_started(guests, hostvars) == ["by-name", "by-id"]


HOSTS = [
    {"inventory_hostname": name, "scenario_build_inputs": {"digest": digest, "scenario": name}}
    for name, digest in (("a", 1), ("b", 2), ("c", 1), ("d", 3))
]


def built_by(hosts, builders, hostvars):
    """Where the builds of these hosts lie after a run over them."""
    for name in builders:
        hostvars.setdefault(name, {})
    for share in filters.dealt_builds(hosts, builders).values():
        made = [
            {"item": number, "directory": f"{share['builder']}/key{build['digest']}", "key": f"key{build['digest']}"}
            for number, build in enumerate(share["builds"])
        ]
        made[:1] = [{**each, "manifest": {}} for each in made[:1]]
        hostvars[share["builder"]]["hypervisor_build_results"] = filters.build_results(made, share["builds"])
    return filters.built(builders, hostvars)


def test_each_build_is_dealt_out_once_and_found_again():
    builders = ["one", "two", "three"]
    dealt = filters.dealt_builds([*HOSTS, {"inventory_hostname": "e"}], builders)
    assert sorted(build["digest"] for share in dealt.values() for build in share["builds"]) == [1, 2, 3]
    assert all(host in share["builds"][0]["hosts"] for host, share in dealt.items())
    assert len({share["builder"] for share in dealt.values()}) == len(dealt)
    found = built_by(HOSTS, builders, {})
    assert {host: each["key"] for host, each in found.items()} == {"a": "key1", "b": "key2", "c": "key1", "d": "key3"}
    assert found["a"] == found["c"] and found["a"]["directory"] == f"{found['a']['builder']}/key1"
    # The first of each builder is made, and no other.
    assert [each["missing"] for each in found.values()].count(False) == len(
        [host for share in dealt.values() for host in share["builds"][0]["hosts"]]
    )


def test_a_build_has_the_same_builder_in_a_run_of_other_hosts():
    builders = ["one", "two", "three"]
    whole = {
        build["digest"]: share["builder"]
        for share in filters.dealt_builds(HOSTS, builders).values()
        for build in share["builds"]
    }
    assert len(set(whole.values())) > 1
    for host in HOSTS:
        (share,) = filters.dealt_builds([host], builders).values()
        assert share["builder"] == whole[host["scenario_build_inputs"]["digest"]]
    moved = filters.dealt_builds(HOSTS, [*builders, "four"])
    for share in moved.values():
        for build in share["builds"]:
            assert share["builder"] in (whole[build["digest"]], "four")


@pytest.mark.parametrize(
    ("run", "builders"), [(["a", "two"], {"two"}), (["a"], {"one", "two"}), (None, {"one", "two"})]
)
def test_builders_that_a_limit_names_build_all(run, builders):
    hosts = [{**host, "__limit_hosts": run} if run else host for host in HOSTS]
    dealt = filters.dealt_builds(hosts, ["one", "two"])
    assert {share["builder"] for share in dealt.values()} <= builders
    assert sum(len(share["builds"]) for share in dealt.values()) == 3


def test_the_builder_that_was_asked_last_knows():
    hostvars = {"one": {}, "two": {}}
    build = [{"digest": 1, "hosts": ["a"]}]
    for key, builder in (("newer", "one"), ("older", "two")):
        asked = {"newer": 2.0, "older": 1.0}[key]
        (result,) = filters.build_results([{"item": 0, "key": key, "directory": f"/d/{key}"}], build)
        hostvars[builder]["hypervisor_build_results"] = [{**result, "asked": asked}]
    assert filters.built(["one", "two"], hostvars)["a"]["key"] == "newer"


@pytest.mark.parametrize(
    ("key", "directory"),
    [("abcd", "/d/.."), ("abcd", "/d/"), ("abcd", "/d/abcd\n"), ("..", "/d/.."), ("ab/../cd", "/d/cd"), (None, "/d/x")],
)
def test_a_build_that_lies_in_no_directory_of_its_key_is_refused(key, directory):
    """The name of that directory is a name on the controller, too."""
    with pytest.raises(AnsibleFilterError, match=r"no place of hypervisor_build|lower-case letters"):
        filters.build_results([{"item": 0, "key": key, "directory": directory}], [{"hosts": ["a"]}])


def test_what_was_not_built_has_no_result():
    assert filters.build_results([{"item": 0, "skipped": True}], [{"digest": 1}]) == []
    (result,) = filters.build_results([{"item": 0}], [{"digest": 1}])
    assert {**result, "asked": 0} == {"item": 0, "hosts": [], "asked": 0}


def test_regions_of_one_size_are_told_apart_by_their_order_where_acrn_places_them():
    def shared(name, size, *vms, provided_by="hypervisor"):
        ends = [{"id": vm, "name": f"VM{vm}", "vbdf": vbdf, "slot": None} for vm, vbdf in vms]
        return {"name": name, "provided_by": provided_by, "size": size, "region_id": None, "vms": ends}

    regions = [
        shared("a", 2, (0, None), (1, None)),
        shared("b", 4, (0, None), (1, None)),
        shared("c", 2, (0, None), (2, "00:06.0")),
        shared("d", 2, (1, None), (2, "00:07.0")),
        shared("e", 2, (1, "00:09.0"), (2, "00:08.0"), provided_by="device_model"),
    ]
    devices = {vm: filters.vm_devices({"regions": regions}, vm) for vm in ("VM0", 1, "VM2")}
    found = {
        vm: {device["name"]: (device.get("nth"), device.get("nth_of")) for device in own} for vm, own in devices.items()
    }
    none = (None, None)
    assert found == {
        "VM0": {"a": (1, 2), "b": none, "c": (2, 2)},
        1: {"a": (1, 2), "b": none, "d": (2, 2), "e": none},
        "VM2": {"c": none, "d": none, "e": none},
    }
