# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    HYPERVISOR,
    Bdf,
    IvshmemError,
    Region,
    RegionVm,
    parse_region,
    parse_regions,
    to_compact,
    to_mapping,
)


def test_mapping_with_everything():
    region = parse_region(
        {
            "name": "cam_0",
            "provided_by": "hypervisor",
            "size": "64",
            "vms": ["PRE", 2, {"name": "POST", "vbdf": "00:0A.0"}, {"id": 3}],
            "region_id": "0x1000",
        }
    )
    vms = (RegionVm("PRE"), RegionVm(2), RegionVm("POST", Bdf(0, 10, 0)), RegionVm(3))
    assert region == Region("cam_0", HYPERVISOR, 64, vms, 4096)
    assert region.prefixed == "hv:/cam_0"


@pytest.mark.parametrize(
    ("text", "provider", "size", "vms"),
    [
        ("hv:/a, 2, 0:2", HYPERVISOR, 2, [0, 2]),
        ("dm:/a,512,1:2:3", DEVICE_MODEL, 512, [1, 2, 3]),
        ("  hv:/a ,\t4 , PRE : 1 ", HYPERVISOR, 4, ["PRE", 1]),
        ("hv:/a, 0x10, 007:POST-1", HYPERVISOR, 16, [7, "POST-1"]),
    ],
)
def test_compact(text, provider, size, vms):
    region = parse_region(text)
    assert (region.name, region.provided_by, region.size, [vm.vm for vm in region.vms]) == ("a", provider, size, vms)


def test_prefix_in_a_mapping_tells_the_provider():
    assert parse_region({"name": "dm:/a", "size": 2, "vms": [1, 2]}) == parse_region("dm:/a, 2, 1:2")


def mapping(**changes):
    return {"name": "r", "size": 2, "vms": ["A", "B"], **changes}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "r", "size": 2}, ["'r'", "vms is missing; list two VMs or more"]),
        (None, ["mapping or a string", "None"]),
        (7, ["mapping or a string"]),
        ([], ["mapping or a string"]),
        ({}, ["name"]),
        (mapping(name=12), ["name", "12"]),
        (mapping(name="hv:/"), ["hv:/", "missing"]),
        (mapping(siez=4), ["'r'", "unknown key 'siez'", "size"]),
        ({1: 2, None: 3, **mapping()}, ["'r'", "unknown key"]),
        ({"name": "r", "vms": [1, 2]}, ["'r'", "size is missing", "MB"]),
        (mapping(size="2MB"), ["'r'", "'2MB'", "without a unit"]),
        (mapping(size=2.0), ["'r'", "2.0"]),
        (mapping(size=True), ["'r'", "True"]),
        (mapping(size="1_6"), ["1_6"]),
        (mapping(size="\u0662"), ["size"]),
        (mapping(size="9" * 5000), ["size"]),
        (mapping(size=None), ["size", "None"]),
        (mapping(provided_by="service"), ["'r'", "hypervisor", "device_model", "'service'"]),
        (mapping(provided_by=["hypervisor"]), ["provided_by"]),
        (mapping(name="dm:/r", provided_by="hypervisor"), ["dm:/r", "device_model", "remove one"]),
        (mapping(region_id="id"), ["'r'", "region_id", "'id'"]),
        (mapping(reserved="4K"), ["'r'", "reserved", "of bytes without a unit", "'4K'"]),
        (mapping(reserved=4096.0), ["'r'", "reserved", "4096.0"]),
        (mapping(vms=[]), ["'r'", "at least two"]),
        (mapping(vms="0:2"), ["'r'", "list", "'0:2'"]),
        (mapping(vms=["A", ""]), ["'r'", "''"]),
        (mapping(vms=["A", "  "]), ["'r'"]),
        (mapping(vms=["A", True]), ["True"]),
        (mapping(vms=["A", {"name": "B", "slot": 8, 1: 2}]), ["'r'", "unknown key"]),
        (mapping(siez=4, vms=["A", {"name": "B", "vdbf": 1}]), ["'siez'", "'vdbf' in a VM"]),
        (mapping(vms=["A", {"vbdf": "00:08.0"}]), ["needs name or id"]),
        (mapping(vms=["A", {"name": "B", "slot": 9, "vbdf": "00:08.0"}]), ["slot 9", "00:08.0"]),
        (mapping(vms=["A", {"name": "B", "slot": 32}]), ["slot 32"]),
        (mapping(vms=["A", {"name": ["B"]}]), ["['B']"]),
        (mapping(vms=["A", {"name": "B", "vbdf": "8"}]), ["'r'", "'B'", "'8'", "00:08.0"]),
        # YAML 1.1 reads an unquoted 00:08.0 as a number of base 60.
        (mapping(vms=["A", {"name": "B", "vbdf": 8.0}]), ["'B'", "8.0", "quotes"]),
        ("hv:/r", ["hv:/r", "hv:/NAME, SIZE_MB, VM:VM"]),
        ("r, 2, 0:1", ["r, 2, 0:1", "hv:/NAME"]),
        ("xx:/r, 2, 0:1", ["hv:/NAME"]),
        ("hv:/r, 2, 0:1, 4096", ["hv:/NAME", "region_id", "need the mapping"]),
        ("hv:/r, , 0:1", ["hv:/NAME"]),
        ("hv:/r, 2, 0::1", ["empty VM"]),
        ("hv:/r, 2MB, 0:1", ["hv:/r", "'2MB'"]),
        ("hv:/, 2, 0:1", ["missing"]),
        ("", ["hv:/NAME"]),
    ],
)
def test_a_bad_declaration_is_told_with_its_value_and_the_mend(value, words):
    with pytest.raises(IvshmemError) as caught:
        parse_region(value)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("words", "provider"),
    [
        (["hypervisor", "Hypervisor", "HV", "hv", "hv-land"], HYPERVISOR),
        (["device_model", "Device Model", "device-model", "DM", "dm", "dm-land", " dm "], DEVICE_MODEL),
    ],
)
def test_a_provider_in_the_words_of_acrn_and_of_its_guide(words, provider):
    assert {parse_region(mapping(provided_by=word)).provided_by for word in words} == {provider}


def test_every_mistake_of_a_region_is_told_with_its_place():
    wrong = mapping(
        size="4M", provided_by="x", region_id="y", vms=["A", {"name": "B", "vbdf": 8, "nme": 1}, {"id": 3, "slot": 99}]
    )
    _good, told = parse_regions(["hv:/a, 2, 0:1", wrong, 7], ["all[0]", "own[0]", "own[1]"])
    assert [line.split(": ")[0] for line in told] == [
        "own[0].provided_by",
        "own[0].size",
        "own[0].vms[1]",
        "own[0].vms[1].vbdf",
        "own[0].vms[2].slot",
        "own[0].region_id",
        "own[1]",
    ]


def test_a_region_knows_where_it_is_declared_and_is_the_same_region():
    (region,), _told = parse_regions(["hv:/a, 2, 0:1"], ["own[0]"])
    assert region.place == "own[0]"
    assert region == parse_region("hv:/a, 2, 0:1")


def test_a_number_of_5000_digits_is_no_vm_id():
    assert parse_region("hv:/r, 2, 0:" + "9" * 5000).vms[1].vm == "9" * 5000


def test_all_bad_regions_are_told_beside_the_good_ones():
    good, told = parse_regions(["hv:/good, 2, 0:1", "bad", mapping(size="x"), mapping(name="other", vms=[])])
    assert good == (parse_region("hv:/good, 2, 0:1"),)
    assert [word in line for word, line in zip(["'bad'", "'r'", "'other'"], told)] == [True] * 3
    assert len(told) == 3


@pytest.mark.parametrize(
    ("text", "bdf"),
    [("00:08.0", (0, 8, 0)), ("0:1F.7", (0, 31, 7)), ("ff:0a.3", (255, 10, 3)), ("0000:00:08.0", (0, 8, 0))],
)
def test_bdf(text, bdf):
    parsed = Bdf.parse(f" {text} ")
    assert (parsed.bus, parsed.device, parsed.function) == bdf
    assert parsed.slot == bdf[1]
    assert Bdf.parse(str(parsed)) == parsed
    assert str(parsed) == str(parsed).lower()


@pytest.mark.parametrize(
    "text", ["", "8", "00:08", "00:20.0", "00:08.8", "100:08.0", "0001:00:08.0", "00:08.0 x", "00-08.0", "00:0\u0668.0"]
)
def test_no_bdf(text):
    with pytest.raises(IvshmemError, match=r"hexadecimal .* 00\.\.1f"):
        Bdf.parse(text)


def test_round_trips():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    bdfs = st.builds(Bdf, st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))
    vms = st.integers(0, 99) | st.text("aZ09_-", max_size=14).map("V{}".format)

    def regions(ids, places):
        return st.builds(
            Region,
            st.text("aZ09_", min_size=1, max_size=27),
            st.sampled_from([HYPERVISOR, DEVICE_MODEL]),
            st.integers(-1, 9999),
            st.lists(st.builds(RegionVm, vms, places), min_size=1, max_size=4).map(tuple),
            ids,
        )

    @hypothesis.given(regions(st.none() | st.integers(0, 0xFFFF), st.none() | bdfs))
    def through_a_mapping(region):
        assert parse_region(to_mapping(region)) == region

    @hypothesis.given(regions(st.none(), st.none()))
    def through_the_compact_string(region):
        assert parse_region(to_compact(region)) == region

    through_a_mapping()
    through_the_compact_string()


def test_anything_is_a_region_or_an_ivshmem_error():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    keys = st.sampled_from(["name", "provided_by", "size", "vms", "region_id", "id", "vbdf"]) | scalars
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
    )

    @hypothesis.given(st.dictionaries(keys, values, max_size=5) | st.text() | values)
    def check(value):
        try:
            parse_region(value)
        except IvshmemError as exc:
            assert str(exc)

    check()


def test_what_scenario_info_returns_is_a_declaration():
    vms = [
        {"id": 1, "name": "A", "load_order": "service", "vbdf": None, "slot": None},
        {"id": 2, "name": "B", "load_order": "post_launched", "vbdf": "00:0a.0", "slot": 10},
    ]
    region = parse_region({"name": "r", "provided_by": "hypervisor", "size": 2, "region_id": None, "vms": vms})
    assert to_mapping(region)["vms"] == ["A", {"name": "B", "vbdf": "00:0a.0"}]
    assert to_mapping(parse_region(mapping(vms=["A", {"id": 2, "slot": 10}])))["vms"][1]["vbdf"] == "00:0a.0"
