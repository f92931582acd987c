# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""acrn-dm's -s argument, slots, and what devices have to agree with."""

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import SLOT_ORDER
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    RESERVED_SLOTS,
    PciArgument,
    check_manifest,
    check_scenario,
    check_vm_name,
    devices_of_vm,
    format_pci,
    format_slot,
    free_slots,
    ivshmem_options,
    known_as,
    make_device,
    make_devices,
    options_of,
    parse_pci,
    parse_slot,
    place,
    read_arguments,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, Device, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario

SCENARIO = b"""<acrn-config board="b" scenario="s">
  <hv><FEATURES><IVSHMEM>
    <IVSHMEM_REGION>
      <NAME>shm</NAME><PROVIDED_BY>Hypervisor</PROVIDED_BY><IVSHMEM_SIZE>2</IVSHMEM_SIZE>
      <IVSHMEM_VMS>
        <IVSHMEM_VM><VM_NAME>PRE</VM_NAME><VBDF>00:08.0</VBDF></IVSHMEM_VM>
        <IVSHMEM_VM><VM_NAME>POST1</VM_NAME><VBDF>00:10.0</VBDF></IVSHMEM_VM>
      </IVSHMEM_VMS>
    </IVSHMEM_REGION>
    <IVSHMEM_REGION>
      <NAME>soft</NAME><PROVIDED_BY>Device Model</PROVIDED_BY><IVSHMEM_SIZE>4</IVSHMEM_SIZE>
      <IVSHMEM_REGION_ID>4096</IVSHMEM_REGION_ID>
      <IVSHMEM_VMS>
        <IVSHMEM_VM><VM_NAME>POST1</VM_NAME><VBDF>00:09.0</VBDF></IVSHMEM_VM>
        <IVSHMEM_VM><VM_NAME>POST2</VM_NAME><VBDF>00:09.0</VBDF></IVSHMEM_VM>
      </IVSHMEM_VMS>
    </IVSHMEM_REGION>
  </IVSHMEM></FEATURES></hv>
  <vm id="0"><load_order>PRE_LAUNCHED_VM</load_order><name>PRE</name></vm>
  <vm id="1"><load_order>SERVICE_VM</load_order><name>ACRN_Service_VM</name></vm>
  <vm id="2"><load_order>POST_LAUNCHED_VM</load_order><name>POST1</name></vm>
  <vm id="3"><load_order>POST_LAUNCHED_VM</load_order><name>POST2</name></vm>
</acrn-config>
"""


@pytest.fixture(name="scenario")
def _scenario():
    return read_scenario(SCENARIO, "scenario.xml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6", "00:06.0"),
        ("16", "00:10.0"),
        ("0:0", "00:00.0"),
        ("31:7", "00:1f.7"),
        ("7/1", "00:07.1"),
        ("7.1", "00:07.1"),
        ("1:2:3", "01:02.3"),
        ("255/31.7", "ff:1f.7"),
        (" 6", "00:06.0"),
        ("6x", "00:06.0"),
    ],
)
def test_slot_is_decimal_as_for_acrn_dm(text, expected):
    assert str(parse_slot(text)) == expected


@pytest.mark.parametrize("text", ["", "x", "32", "-1", "5:8", "256:1:0", "1:", "1:2:", "0x8:1:x", ":5"])
def test_slot_refused(text):
    with pytest.raises(IvshmemError, match="no PCI slot for acrn-dm"):
        parse_slot(text)


def test_slot_and_argument_round_trip():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    plain = st.text(st.characters(exclude_characters=",\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
    options = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    bdfs = st.builds(Bdf, st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))

    @hypothesis.given(bdfs, plain, options)
    def check(bdf, device, rest):
        assert parse_slot(format_slot(bdf)) == bdf
        argument = PciArgument(bdf, device, rest)
        assert parse_pci(format_pci(argument)) == argument

    check()


def test_slot_separators_mean_the_same():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies

    @hypothesis.given(
        st.integers(0, 255), st.integers(0, 31), st.integers(0, 7), st.sampled_from(":/."), st.sampled_from(":/.")
    )
    def check(bus, slot, function, first, second):
        assert parse_slot(f"{bus}{first}{slot}{second}{function}") == Bdf(bus, slot, function)

    check()


def test_argument_needs_a_device():
    with pytest.raises(IvshmemError, match="names no device"):
        parse_pci("5")


def test_options_write_the_region_id_in_decimal_and_last():
    device = make_device({"name": "dm:/test", "size": 2, "region_id": 0x1000})
    assert options_of(device) == "dm:/test,2,4096"
    assert options_of(make_device({"name": "dm:/test", "size": 2, "region_id": 0})) == "dm:/test,2"
    assert options_of(make_device({"name": "dm:/test", "size": 2, "region_id": 4096}, (3, 2))) == "dm:/test,2"
    assert options_of(make_device({"name": "dm:/test", "size": 2, "region_id": 4096}, (3, 3))) == "dm:/test,2,4096"


def test_device_from_its_vbdf_is_at_the_decimal_slot():
    assert make_device({"name": "a", "provided_by": "hypervisor", "size": 2, "vbdf": "00:10.0"}).slot == 16
    assert make_device({"name": "a", "provided_by": "hypervisor", "size": 2, "vbdf": "00:10.0", "slot": 16}).slot == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vbdf": "00:10.0", "slot": 10}, "slot 10 is 00:0a.0, but its vbdf is 00:10.0, which is slot 16"),
        ({"vbdf": "00:08.1"}, "write 00:08.0"),
        ({"vbdf": "01:08.0"}, "bus or function other than 0"),
        ({"vbdf": "8"}, "not a PCI address"),
        ({"size": 3}, "power of two from 2 to 512 MB"),
        ({"size": 1024}, "power of two from 2 to 512 MB"),
        ({"size": 1}, "power of two from 2 to 512 MB"),
        ({"size": None}, "size is missing"),
        ({"size": "2MB"}, "size must be a whole number of MB without a unit, not '2MB'"),
        ({"name": "dm:/a;b"}, "1 to 27 characters"),
        ({"name": "dm:/a b"}, "1 to 27 characters"),
        ({"name": "dm:/$(x)"}, "1 to 27 characters"),
        ({"name": "dm:/a\n"}, "1 to 27 characters"),
        ({"name": "dm:/ä"}, "1 to 27 characters"),
        ({"name": "dm:/" + "a" * 28}, "1 to 27 characters"),
        ({"name": "a"}, "provided_by is missing"),
        ({"name": "a", "provided_by": "qemu"}, "provided_by must be hypervisor or device_model"),
        ({"provided_by": "hypervisor"}, "the prefix says device_model"),
        ({"slot": 32}, "slot 32 must be 0..31"),
        ({"slot": True}, "slot must be a whole number"),
        ({"size": "1_6"}, "size must be a whole number of MB without a unit, not '1_6'"),
        ({"slott": 12}, "unknown key 'slott'; did you mean slot?; the keys are name, "),
        ({"slot": "\uff14"}, "slot must be a whole number"),
        ({"region_id": 4095}, "region_id 4095 must be 0 (none) or 4096 to 65535"),
        ({"region_id": 65536}, "region_id 65536 must be 0 (none) or 4096 to 65535"),
        ({"region_id": -1}, "region_id -1 must be 0 (none) or 4096 to 65535"),
    ],
)
def test_device_refused(change, message):
    value = {"name": "dm:/test", "size": 2, **change}
    with pytest.raises(IvshmemError) as error:
        make_device(value)
    assert message in str(error.value)
    assert f"region '{value['name']}'" in str(error.value)


def test_all_bad_devices_are_told_at_once():
    with pytest.raises(IvshmemError) as error:
        make_devices(
            [{"name": "dm:/a", "size": 3}, {"name": "dm:/b", "size": 2}, {"name": "dm:/b", "size": 2}, {"name": "hv:/"}]
        )
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "'dm:/b' is given twice" in lines[1]


def test_devices_that_go_need_no_size():
    assert make_devices([{"name": "dm:/a"}], sized=False)[0].prefixed == "dm:/a"


@pytest.mark.parametrize(("version", "refused"), [(None, True), ((2, 7), True), ((3, 3), True), ((2, 6), False)])
def test_vm_name_length(version, refused):
    check_vm_name("A" * 15, version)
    if refused:
        with pytest.raises(IvshmemError, match="more than 15 characters"):
            check_vm_name("A" * 16, version)
    else:
        check_vm_name("A" * 16, version)


# Places


def _device(name, slot=None):
    return Device(name, "device_model", 2, slot if slot is None else Bdf(0, slot, 0))


def test_slots_are_handed_out_in_order():
    devices = [_device(f"r{number}") for number in range(28)]
    assert [device.slot for device in place(devices, {}, {})] == list(SLOT_ORDER)
    with pytest.raises(IvshmemError, match="no PCI slot from 3 to 30 is free"):
        place([*devices, _device("r28")], {}, {})


def test_slot_that_is_asked_for_decides_and_a_present_one_stays():
    placed = place([_device("a"), _device("b"), _device("c", 8)], {9: "lpc (line 1)"}, {"dm:/a": 5, "dm:/b": 8})
    assert [device.slot for device in placed] == [5, 10, 8]


def test_two_devices_may_swap_their_slots():
    placed = place([_device("a", 6), _device("b", 5)], {}, {"dm:/a": 5, "dm:/b": 6})
    assert [device.slot for device in placed] == [6, 5]


def test_every_slot_that_cannot_be_had_is_told():
    with pytest.raises(IvshmemError) as error:
        place(
            [_device("a", 6), _device("b", 31), _device("c", 7), _device("d", 7)],
            {6: "virtio-rnd (line 4)"},
            {},
            "vm.sh",
        )
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("vm.sh: region 'dm:/a': slot 6 (00:06.0) is taken by virtio-rnd (line 4); ")
    assert "free slots 3-5, 8-30" in lines[0]
    assert "slot 31 (00:1f.0) is reserved for the LPC bridge" in lines[1]
    assert "slot 7 (00:07.0) is also asked for by region 'dm:/c'" in lines[2]


def test_no_two_devices_share_a_slot():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    slots = st.integers(0, 31)

    @hypothesis.given(
        st.lists(st.none() | slots, max_size=12),
        st.dictionaries(slots, st.just("x (line 1)"), max_size=10),
        st.dictionaries(st.integers(0, 11).map(lambda n: f"dm:/r{n}"), slots, max_size=8),
    )
    def check(asked, taken, present):
        devices = [_device(f"r{number}", slot) for number, slot in enumerate(asked)]
        try:
            placed = place(devices, taken, present)
        except IvshmemError:
            wanted = [slot for slot in asked if slot is not None]
            assert len(set(wanted)) < len(wanted) or set(wanted) & (set(taken) | set(RESERVED_SLOTS))
            return
        got = [device.slot for device in placed]
        assert len(set(got)) == len(got)
        assert not set(got) & (set(taken) | set(RESERVED_SLOTS))
        assert all(before.slot in (None, after.slot) for before, after in zip(devices, placed))
        assert [device.name for device in placed] == [device.name for device in devices]
        # What was given once is given again.
        again = place(devices, taken, {device.prefixed: device.slot for device in placed})
        assert again == placed

    check()


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ("dm:/log,4", ("dm:/log", 4, None)),
        ("dm:/log,4GB,0x1002", ("dm:/log", 4, 0)),
        # Bytes are counted in 32 bits, and the PCI register has 16.
        ("dm:/log,4100,66000", ("dm:/log", 4, 464)),
        ("dm:/log,4096", ("dm:/log", 0, None)),
        ("dm:/log, +0008", ("dm:/log", 8, None)),
        ("dm:/log,-4092", ("dm:/log", 4, None)),
        ("dm:/log,18446744073709551616,", ("dm:/log", None, None)),
        ("dm:/log,MB", ("dm:/log", None, None)),
        ("dm:/log", ("dm:/log", None, None)),
    ],
)
def test_options_are_read_as_acrn_dm_does(options, read):
    assert ivshmem_options(options) == read


def test_free_slots():
    assert free_slots({8, 9, 3})[:3] == [10, 11, 12]


# Agreement


def test_devices_follow_from_the_scenario(scenario):
    devices = make_devices(devices_of_vm(scenario, scenario.vm("POST1")))
    assert [(options_of(device), device.slot) for device in devices] == [("hv:/shm,2", 16), ("dm:/soft,4,4096", 9)]
    check_scenario(devices, scenario, scenario.vm("POST1"))


@pytest.mark.parametrize(
    ("vm", "device", "message"),
    [
        ("PRE", {"name": "hv:/shm", "size": 2}, "VM 'PRE' (ID 0) is a pre-launched VM in the scenario"),
        ("1", {"name": "dm:/other", "size": 2}, "VM 'ACRN_Service_VM' (ID 1) is a service VM"),
        (
            "POST1",
            {"name": "hv:/nope", "size": 2},
            "(hv-land regions there: hv:/shm); add it to the scenario and rebuild",
        ),
        ("POST1", {"name": "hv:/soft", "size": 4}, "is not in the scenario"),
        ("POST1", {"name": "hv:/shm", "size": 4}, "has 4 MB, but 2 MB in the scenario"),
        ("POST1", {"name": "dm:/soft", "size": 2}, "has 2 MB, but 4 MB in the scenario"),
        ("POST2", {"name": "hv:/shm", "size": 2}, "does not list VM 'POST2' (ID 3)"),
        ("POST1", {"name": "dm:/shm", "size": 2}, "is provided by the hypervisor in the scenario, as 'hv:/shm'"),
        ("POST1", {"name": "hv:/shm", "size": 2, "slot": 10}, "is at vBDF 00:10.0 (slot 16)"),
    ],
)
def test_device_against_the_scenario(scenario, vm, device, message):
    with pytest.raises(IvshmemError) as error:
        check_scenario(make_devices([device]), scenario, scenario.vm(vm))
    assert message in str(error.value)


def test_dm_region_need_not_be_in_the_scenario(scenario):
    check_scenario(make_devices([{"name": "dm:/own", "size": 2}]), scenario, scenario.vm("POST2"))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"name": "hv:/b", "size": 2}, "region 'hv:/b' is not in it"),
        ({"name": "hv:/a", "size": 4}, "region 'hv:/a' has 2 MB in it, not 4 MB"),
        ({"name": "hv:/soft", "size": 2}, "region 'hv:/soft' is not in it"),
    ],
)
def test_manifest_that_does_not_fit(device, message):
    manifest = {"regions": [{"name": "hv:/a", "size": 2, "region_id": 0}, {"name": "dm:/soft", "size": 2}]}
    with pytest.raises(IvshmemError) as error:
        check_manifest(make_devices([device]), manifest, "m.json")
    assert message in str(error.value)
    assert "Rebuild the hypervisor, install it and reboot" in str(error.value)


def test_manifest_that_fits():
    devices = make_devices([{"name": "hv:/a", "size": 2}, {"name": "dm:/x", "size": 2}])
    check_manifest(devices, {"regions": [{"name": "hv:/a", "size": 2}]}, "m.json")
    check_manifest(devices, {"regions": [{"name": "a", "size": 2, "provided_by": "hypervisor"}]}, "m.json")


@pytest.mark.parametrize("manifest", [[], {}, {"regions": 5}, None])
def test_manifest_that_is_none(manifest):
    with pytest.raises(IvshmemError, match="not the manifest of a hypervisor build"):
        check_manifest((), manifest, "m.json")


# Arguments of a process


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-A -m 1G -s 0:0,hostbridge -s 6,ivshmem,dm:/test,2 VM1", ("VM1", ["0,hostbridge", "6,ivshmem,dm:/test,2"])),
        ("VM1 -s6,ivshmem,dm:/test,2", ("VM1", ["6,ivshmem,dm:/test,2"])),
        ("--pci_slot=6,ivshmem,dm:/t,2 --ovmf x --windows VM1", ("VM1", ["6,ivshmem,dm:/t,2"])),
        ("--pci_slot 7/1,virtio-rnd --rtvm", (None, ["7:1,virtio-rnd"])),
        ("-s 40,nothing -s 5,ok VM1 -l", ("VM1", ["5,ok"])),
        ("", (None, [])),
    ],
)
def test_arguments_of_a_process(arguments, expected):
    name, _uuid, devices = read_arguments(arguments.split())
    assert (name, [format_pci(device) for device in devices]) == expected


@pytest.mark.parametrize("words", ["-U ABC vm1", "--uuid ABC vm1", "--uuid=ABC vm1", "-AUABC vm1"])
def test_the_uuid_of_a_process_is_that_of_a_vm_up_to_v2_6(words):
    name, uuid, _devices = read_arguments(words.split())
    vm = {"name": "VM1", "uuid": "abc"}
    for version, known in (((2, 6), "VM1"), (None, "VM1"), ((2, 7), "vm1")):
        assert known_as(name, uuid, [vm], version) == known


@pytest.mark.parametrize(
    "words",
    [
        ["-As", "7,ivshmem,dm:/a,2"],
        ["-AWs7,ivshmem,dm:/a,2"],
        ["--pci", "7,ivshmem,dm:/a,2"],
        ["--pci_s=7,ivshmem,dm:/a,2"],
    ],
)
def test_a_process_is_read_as_getopt_reads_it(words):
    name, _uuid, devices = read_arguments(["-m", "512M", *words, "VM1"])
    assert name == "VM1"
    assert [(device.bdf.slot, device.device, device.options) for device in devices] == [(7, "ivshmem", "dm:/a,2")]
