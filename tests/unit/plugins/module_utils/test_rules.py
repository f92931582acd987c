# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    IvshmemError,
    parse_region,
    parse_regions,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import ERROR, WARNING
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rules import RULES, check, refuse
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.scenarios import VMS, pci_devs, vuart

BY_ID = {rule.id: rule for rule in RULES}
LONG = "PRE_LAUNCHED_VM0"  # 16 characters


def region(name="r", vms=("PRE0", "POST2"), **more):
    return parse_region({"name": name, "size": 2, "vms": list(vms), **more})


def at(vm, vbdf):
    return {"name": vm, "vbdf": vbdf}


def dm(name="r", vms=("POST2", "POST3"), **more):
    return region(name, vms, provided_by="device_model", **more)


def findings(regions, version=(3, 3), board=None, text=None, dialect=None, **document):
    """What the rules find; the document is one of scenarios.scenario() or a given text."""
    dialect = dialect or ("v2" if version and version < (3, 0) else "v3")
    data = text if text is not None else scenarios.scenario(dialect, **document)
    known = None if board is None else read_board(board.encode(), "board")
    return check(read_scenario(data.encode(), "line.xml"), regions, version, known)


def eight(count, **more):
    return [region(f"r{number}", **more) for number in range(count)]


V3_ONE_LINE = scenarios.scenario("v3").replace("\n", "")
V3_TWO_LINE_TAG = scenarios.scenario("v3").replace("<acrn-config ", "<acrn-config\n")
BOARD = scenarios.board_xml(["00:02.0", "00:14.3", "01:09.0"])
NAMING = scenarios.board_xml(["00:02.0"], tree='<device address="0xb0004"/>')
MADE_2 = '<acrn-config board="b"><BIOS_INFO/><PCI_DEVICE/><processors/></acrn-config>'
MADE_3 = MADE_2.replace("<processors/>", "<processors/><ioapics/>")
SMALL = scenarios.board_xml(ram=((1 << 20, 512 << 20),))
HOLED = scenarios.board_xml(ram=((4 << 20, 484 << 20), (1 << 32, 2 << 30)))
WINDOW = scenarios.board_xml(ram=((1 << 20, 1 << 30), (1 << 32, 2 << 30)), windows=((0x80000000, 0x9FFFFFFF),))
LINES = scenarios.board_xml(lines=("80000000-9fffffff : PCI Bus 0000:00",))
FIXED = scenarios.scenario("v2", hv="<MEMORY><HV_RAM_SIZE>0x16800000</HV_RAM_SIZE></MEMORY>")
ZEPHYR = "<os_config><kern_type>KERNEL_ZEPHYR</kern_type></os_config>"
CONF1 = "<os_config><bootargs>rw pci=conf1 quiet</bootargs></os_config>"
SVC = (1, "SVC", "service")
TWINS = (*VMS[:2], (2, "TWIN", "post"), (3, "TWIN", "post"))
BROKEN = scenarios.block_v3(
    scenarios.region_v3("a", ("PRE0", "00:08.0"), ("POST2", "00:08.0"), size="two"),
    scenarios.region_v3("b", ("PRE0", "00:09.0"), ("POST2", "00:09.0")),
    scenarios.region_v3("b", ("PRE0", "00:0a.0"), ("POST2", "00:0a.0")),
)

OLD = scenarios.block_v3(scenarios.region_v3("r", ("SVC", "00:14.0"), ("POST2", "00:08.0")))
OFF = scenarios.block_v2("hv:/off, 2, 0:2", enabled="n")

# For each rule: what breaks it, and what the finding must tell besides the region.
BREAKING = [
    ("region-name", [region("a" * 28)], {}, ["28 characters"]),
    ("region-name", [region("a-b")], {}, []),
    ("region-name", [region("gr\u00f6\u00dfe")], {}, []),
    ("region-name", [region("a b")], {}, []),
    ("region-duplicate", [region("r"), dm("r")], {}, ["2 times"]),
    *[("region-size", [region(size=size)], {}, [f"is {size} MB"]) for size in (-2, 0, 1, 3, 24, 1024, 4098)],
    *[
        ("region-reserved", [region(reserved=number)], {}, [f"{number} bytes of its 2 MB"])
        for number in (-4096, 1, 4095, 4104, (1 << 20) + 4096, 2 << 20, 1 << 62)
    ],
    ("region-count", eight(9), {}, ["9 regions", "limit is 8"]),
    ("region-count", eight(9, vms=[0, 2]), {"version": (2, 2)}, ["9 regions"]),
    ("region-id-version", [region(region_id=4096)], {"version": (3, 2)}, ["4096"]),
    ("region-id-version", [region(region_id=4096)], {"version": (2, 7)}, ["4096"]),
    *[("region-id-range", [region(region_id=number)], {}, [str(number)]) for number in (-1, 1, 4095, 65536, 70000)],
    ("region-id-duplicate", [region("a", region_id=5000), region("r", region_id=5000)], {}, ["5000", "'a'"]),
    ("vm-unknown", [region(vms=["PRE0", "POST9"])], {}, ["POST9", "PRE0 (0), SVC (1), POST2 (2), POST3 (3)"]),
    ("vm-unknown", [region(vms=[0, 9])], {"version": (2, 7)}, ["'9'"]),
    ("vm-twice", [region(vms=["PRE0", "POST2", 2])], {}, ["POST2", "ID 2", "2 times"]),
    ("vm-single", [region(vms=["PRE0"])], {}, ["single"]),
    ("vm-single", [region(vms=["PRE0", "PRE0"])], {}, ["single"]),
    ("vm-name", [region(vms=[0, 1])], {"vms": ((0, LONG, "pre"), SVC)}, [LONG, "16 characters"]),
    ("vm-name", [region(vms=[0, 1])], {"vms": ((0, "a b", "pre"), SVC), "version": (2, 7)}, ["'a b'"]),
    ("vm-name-duplicate", [region(vms=[0, 3])], {"vms": TWINS}, ["2 and 3", "'TWIN'"]),
    ("vm-name-duplicate", [dm(vms=["TWIN", 3])], {"vms": TWINS, "version": (2, 7)}, ["'TWIN'"]),
    ("dm-vm-kind", [dm(vms=["PRE0", "POST2"])], {}, ["PRE0", "pre-launched"]),
    ("dm-vm-kind", [dm(vms=["POST2", "SVC"])], {}, ["SVC", "Service VM"]),
    ("dm-vm-kind", [dm(vms=[1, 2])], {"version": (2, 7)}, ["SVC"]),
    ("service-vm", [region(vms=[0, 1])], {"version": (2, 2)}, ["SVC"]),
    ("vm-alone", [region(vms=[0, 2])], {"version": (2, 2), "more": {"PRE0": pci_devs("")}}, ["PRE0"]),
    ("vm-alone", [region(vms=[0, 2]), region("s", [0, 2])], {"version": (2, 2), "more": {"PRE0": ZEPHYR}}, ["PRE0"]),
    ("host-bridge", [region(vms=[0, 2])], {"version": (2, 3), "more": {"PRE0": pci_devs("")}}, ["PRE0"]),
    ("vbdf-function", [region(vms=["PRE0", at("POST2", "00:08.1")])], {}, ["00:08.1", "POST2"]),
    ("vbdf-function", [region(vms=["PRE0", at("POST2", "01:08.0")])], {}, ["01:08.0"]),
    ("vbdf-choice", [region(vms=[at("PRE0", "00:08.0"), "POST2"])], {"version": (2, 7)}, ["PRE0", "00:08.0"]),
    ("vbdf-choice", [region(vms=[at("SVC", "00:08.0"), "POST2"])], {"version": (2, 4)}, ["SVC"]),
    *[("vbdf-reserved", [region(vms=["PRE0", at("POST2", f"00:{n}.0")])], {}, [n]) for n in ("00", "02", "1f")],
    ("vbdf-reserved", [region(vms=[at("PRE0", "00:00.0"), "POST2"])], {}, ["00:00.0", "PRE0"]),
    ("vbdf-reserved", [dm(vms=[at("POST2", "00:01.0"), "POST3"])], {"version": (2, 7)}, ["00:01.0"]),
    (
        "vbdf-clash",
        [region("a", vms=["PRE0", at("POST2", "00:0a.0")]), region("r", vms=["PRE0", at("POST2", "0:0A.0")])],
        {},
        ["00:0a.0", "region 'a'"],
    ),
    (
        "vbdf-clash",
        [region(vms=["PRE0", at("POST2", "00:10.0")])],
        {"hv": vuart("talk", ("POST2", "00:10.0"), ("PRE0", "00:11.0"))},
        ["00:10.0", "vUART 'talk'"],
    ),
    (
        "vbdf-passthrough",
        [region(vms=[at("PRE0", "00:0c.0"), "POST2"])],
        {"more": {"PRE0": pci_devs("00:0c.0 Ethernet controller: of somebody")}},
        ["00:0c.0", "Ethernet"],
    ),
    (
        "vbdf-passthrough-post",
        [region(vms=["PRE0", at("POST2", "00:0c.0")])],
        {"more": {"POST2": pci_devs("00:0c.0 Ethernet controller: of somebody")}},
        ["00:0c.0", "Ethernet"],
    ),
    ("vbdf-native", [region(vms=[at("SVC", "00:14.0"), "POST2"])], {"board": BOARD}, ["00:14.0", "00:14.3"]),
    ("vbdf-function", [region(vms=[at("SVC", "00:0c.1"), "POST2"])], {"version": (3, 2)}, ["00:0c.1", "SVC"]),
    ("vbdf-function", [region(vms=[at("SVC", "00:0c.1"), "POST2"])], {}, ["00:0c.1", "vbdf of 00:0c.0"]),
    ("vbdf-function", [region(vms=[at("PRE0", "01:0c.1"), "POST2"])], {}, ["01:0c.1"]),
    (
        "vbdf-clash",
        [region("a", vms=[at("PRE0", "00:0a.1"), "POST2"]), region("r", vms=[at("PRE0", "00:0a.1"), "POST2"])],
        {},
        ["00:0a.1", "region 'a'"],
    ),
    ("vbdf-named", [region(vms=[at("SVC", "00:0b.0"), "POST2"])], {"board": NAMING}, ["00:0b.0", "00:0b.4"]),
    (
        "vbdf-moved",
        [region(vms=["SVC", "POST2"])],
        {"block": OLD, "board": BOARD},
        ["00:14.0 of VM 'SVC'", "becomes 00:08.0"],
    ),
    ("vbdf-lost", [region(vms=[1, 2])], {"version": (2, 4)}, ["SVC"]),
    ("vbdf-lost", [region(vms=[1, 2])], {"version": (2, 3)}, ["SVC"]),
    ("bar-size", [region(vms=[0, 2])], {"version": (2, 3), "vms": (VMS[0], (2, "WaaG", "post"))}, ["WaaG"]),
    ("bar-size", [region(vms=[0, 2])], {"version": (2, 2), "more": {"PRE0": ZEPHYR}}, ["PRE0"]),
    ("board-unknown", [region(vms=["SVC", "POST2"])], {}, ["SVC"]),
    ("board-version", [], {"board": MADE_2}, ["board 'b'", "v2.5 to v2.7", "this is v3.3"]),
    ("board-version", [], {"board": MADE_3, "version": (2, 7)}, ["v3.0 and later", "this is v2.7"]),
    ("emulated-mmio", eight(7), {}, ["7 hypervisor regions", "room for 6"]),
    (
        "emulated-mmio",
        eight(3),
        {"hv": "<CAPACITIES><MAX_EMULATED_MMIO>8</MAX_EMULATED_MMIO></CAPACITIES>"},
        ["3 hypervisor", "for 2"],
    ),
    ("memory-budget", eight(2, size=256), {"version": (2, 7), "vms": VMS[:3]}, ["512 MB", "494 MB"]),
    ("memory-budget", eight(2, size=512), {"board": SMALL}, ["1024 MB", "202 MB fit on board 'board'"]),
    ("memory-budget", eight(2, size=256), {"version": (2, 6), "text": FIXED}, ["512 MB", "HV_RAM_SIZE of 360"]),
    ("memory-budget", eight(2, size=128), {"version": (3, 1), "board": HOLED}, ["256 MB", "at most 150 MB", "'board'"]),
    ("memory-fixed", eight(2, size=128), {"version": (2, 4), "text": FIXED}, ["256 MB", "360 MB"]),
    ("memory-guess", eight(2, size=128), {"version": (3, 1)}, ["256 MB", "limit of 422 MB is a guess"]),
    ("memory-window", eight(2, size=256, vms=[1, 2]), {"version": (3, 3), "board": WINDOW}, ["'board'", "256 MB"]),
    ("memory-window", eight(3, size=256, vms=[1, 2]), {"version": (2, 4), "board": LINES}, ["'board'", "256 MB"]),
    ("region-alike", [region("a"), region("r")], {"version": (2, 7)}, ["PRE0", "'a'", "2 MB"]),
    ("memory-edge", eight(2, size=256, vms=[1, 2]), {"version": (2, 4), "board": LINES}, ["256 MB", "'board'"]),
    ("memory-boot", eight(2, size=256), {"version": (3, 2)}, ["512 MB"]),
    ("version-dialect", [], {"version": (2, 7), "dialect": "v3"}, ["v3.x", "v2.7"]),
    ("version-dialect", [], {"version": (3, 0), "dialect": "v2"}, ["v2.x", "v3.0"]),
    ("version-range", [], {"version": (3, 4)}, ["v3.4"]),
    ("version-range", [], {"version": (2, 1)}, ["v2.1"]),
    ("version-unknown", [region()], {"version": None}, []),
    ("root-line", [], {"text": V3_ONE_LINE}, ["line.xml"]),
    ("root-line", [], {"text": V3_TWO_LINE_TAG}, []),
    ("root-line", [], {"text": scenarios.scenario("v3").replace("\n", "\r")}, []),
    ("root-line", [], {"text": scenarios.scenario("v3").replace('line">', 'line"> <!-- x -->')}, []),
    ("region-unreadable", [], {"block": BROKEN}, ["line 6"]),
    ("region-unreadable", [], {"block": BROKEN}, ["line 8"]),
    ("region-disabled", [], {"version": (2, 7), "block": OFF}, ["line 6", "ignores", "off"]),
    ("region-disabled", [], {"version": None, "dialect": "v2", "block": OFF}, []),
]

# What is just within each rule.
KEEPING = [
    ("region-name", [region("a" * 27), region("_"), region("A9_")], {}),
    ("region-duplicate", [region("r"), dm("R")], {}),
    ("region-size", [region(size=size) for size in (2, 4, 8, 16, 32, 64, 128, 256, 512)], {}),
    ("region-count", [*eight(8), *(dm(f"d{number}") for number in range(9))], {}),
    ("region-reserved", [region(reserved=number) for number in (None, 0, 4096, 1 << 20)], {}),
    ("region-id-version", [region(region_id=4096)], {}),
    ("region-id-version", [region(region_id=0)], {"version": (2, 7)}),
    ("region-id-range", [region(region_id=number) for number in (None, 0, 4096, 65535)], {}),
    ("region-id-duplicate", [region("a", region_id=0), region("b", region_id=0), region("c", region_id=4096)], {}),
    ("vm-unknown", [region(vms=["PRE0", 1, "2", "POST3"])], {}),
    ("vm-twice", [region("a"), region("b")], {}),
    ("vm-single", [region()], {}),
    ("vm-name", [region(vms=[0, 1])], {"vms": ((0, LONG[:15], "pre"), SVC)}),
    ("vm-name", [region(vms=[0, 1])], {"vms": ((0, "ACRN PRE-LAUNCHED VM0", "pre"), SVC), "version": (2, 6)}),
    ("vm-name", [region(vms=[1, 2])], {"vms": ((0, LONG, "pre"), SVC, VMS[2])}),
    ("vm-name-duplicate", [region(vms=[0, 1])], {"vms": TWINS}),
    ("vm-name-duplicate", [region(vms=[0, 3])], {"vms": TWINS, "version": (2, 6)}),
    ("dm-vm-kind", [dm(), region(vms=["PRE0", "SVC"])], {}),
    ("service-vm", [region(vms=[0, 1])], {"version": (2, 3)}),
    ("service-vm", [region(vms=[0, 2])], {"version": (2, 2)}),
    ("vm-alone", [region(vms=[0, 2])], {"version": (2, 2), "more": {"PRE0": pci_devs("00:14.3 USB")}}),
    ("vm-alone", [dm(vms=[2, 3])], {"version": (2, 2)}),
    ("vm-alone", [region(vms=[0, 2])], {"version": (2, 3)}),
    ("host-bridge", [region(vms=[0, 2])], {"version": (2, 3), "more": {"PRE0": pci_devs("00:14.3 USB")}}),
    ("host-bridge", [region(vms=[0, 2])], {"version": (2, 3), "more": {"PRE0": ZEPHYR}}),
    ("host-bridge", [region(vms=[0, 2])], {"version": (2, 3), "more": {"PRE0": CONF1}}),
    ("host-bridge", [region(vms=[1, 2])], {"version": (2, 3)}),
    ("host-bridge", [region(vms=[0, 2])], {"version": (2, 4)}),
    ("vbdf-function", [region(vms=["PRE0", at("POST2", "0:08.0")])], {}),
    ("vbdf-choice", [region(vms=[at("PRE0", "00:08.0"), "POST2"])], {"version": (3, 0)}),
    ("vbdf-choice", [region(vms=["PRE0", at("POST2", "00:08.0")])], {"version": (2, 7)}),
    ("vbdf-reserved", [region(vms=["PRE0", at("POST2", f"00:{n}.0")]) for n in ("03", "1e")], {}),
    ("vbdf-reserved", [region(vms=[at("PRE0", "00:1f.0"), at("SVC", "00:01.0")])], {}),
    ("vbdf-clash", [region("a", vms=["PRE0", at("POST2", "00:08.0")]), region(vms=[at("POST3", "00:08.0"), 0])], {}),
    (
        "vbdf-clash",
        [region(vms=[at("PRE0", "00:12.0"), at("POST2", "00:11.0")])],
        {"hv": vuart("talk", ("POST2", "00:10.0"), ("PRE0", "00:11.0"))},
    ),
    ("vbdf-passthrough", [region(vms=[at("PRE0", "00:0d.0"), 2])], {"more": {"PRE0": pci_devs("00:0c.0 Net")}}),
    ("vbdf-passthrough", [region(vms=[at("PRE0", "00:0c.0"), 2])], {"more": {"PRE0": pci_devs("01:0c.0 Net", "junk")}}),
    ("vbdf-passthrough-post", [region(vms=[0, at("POST2", "00:0c.0")])], {"more": {"POST3": pci_devs("00:0c.0 N")}}),
    ("vbdf-native", [region(vms=[at("SVC", "00:09.0"), at("POST2", "00:14.0")])], {"board": BOARD}),
    ("vbdf-function", [region("a", vms=[at("SVC", "00:0c.0"), 2]), region(vms=[at("SVC", "00:0c.7"), 2])], {}),
    ("vbdf-clash", [region("a", vms=[at("PRE0", "00:0c.0"), 2]), region(vms=[at("PRE0", "00:0c.7"), 2])], {}),
    ("vbdf-named", [region(vms=[at("SVC", "00:0d.0"), at("POST2", "00:0b.0")])], {"board": NAMING}),
    ("vbdf-moved", [region(vms=["SVC", "POST2"])], {"block": OLD}),
    ("vbdf-moved", [region(vms=[at("SVC", "00:09.0"), "POST2"])], {"block": OLD, "board": BOARD}),
    ("vbdf-lost", [region(vms=[1, 2])], {"version": (2, 5)}),
    ("vbdf-lost", [region(vms=[0, 2])], {"version": (2, 4)}),
    ("bar-size", [region(vms=[0, 2])], {"version": (2, 4), "vms": (VMS[0], (2, "WaaG", "post"))}),
    ("bar-size", [region(vms=[0, 2])], {"version": (2, 3), "vms": (VMS[0], (2, "Twin_Winter", "post"))}),
    ("bar-size", [dm(vms=[2, 3])], {"version": (2, 3), "vms": ((2, "WaaG", "post"), (3, "WIN", "post"))}),
    ("memory-fixed", eight(1, size=64), {"version": (2, 4), "text": FIXED}),
    ("memory-fixed", eight(2, size=128), {"version": (2, 7), "text": FIXED}),
    ("memory-guess", eight(1, size=256), {"version": (3, 1), "board": SMALL}),
    ("memory-guess", eight(1, size=256), {"version": (2, 7)}),
    ("memory-guess", eight(1, size=256), {"version": (3, 3)}),
    ("memory-guess", [], {"version": (3, 1)}),
    ("memory-window", eight(1, size=256, vms=[1, 2]), {"version": (3, 3), "board": WINDOW}),
    ("memory-window", eight(2, size=256), {"version": (3, 3), "board": WINDOW}),
    ("region-alike", [region("a"), region("r", size=4)], {"version": (2, 7)}),
    ("region-alike", [region("a"), region("r", vms=[2, 3])], {"version": (2, 7)}),
    ("region-alike", [region("a"), region("r")], {"version": (3, 0)}),
    ("memory-edge", eight(1, size=256, vms=[1, 2]), {"version": (3, 3), "board": WINDOW}),
    ("memory-edge", eight(1, size=256, vms=[1, 2]), {"version": (2, 4), "board": LINES}),
    ("memory-window", eight(1, size=256, vms=[1, 2]), {"version": (2, 4), "board": LINES}),
    ("board-unknown", [region(vms=["PRE0", "POST2"])], {}),
    ("board-unknown", [region(vms=["SVC", "POST2"])], {"board": BOARD}),
    ("board-unknown", [region(vms=["SVC", "POST2"])], {"version": (2, 7)}),
    ("board-version", [], {"board": MADE_2, "version": (2, 6)}),
    ("board-version", [], {"board": MADE_3}),
    ("board-version", [], {"board": MADE_3, "version": (3, 4)}),
    ("board-version", [], {"board": MADE_2, "version": None}),
    ("board-version", [], {"board": BOARD}),
    ("emulated-mmio", [*eight(6), dm()], {}),
    ("emulated-mmio", eight(7), {"hv": "<CAPACITIES><MAX_EMULATED_MMIO>18</MAX_EMULATED_MMIO></CAPACITIES>"}),
    ("memory-budget", [*eight(1, size=256), dm(vms=[2, 3], size=512)], {"version": (2, 7)}),
    ("memory-budget", eight(8, size=512), {"version": (3, 3)}),
    ("memory-boot", eight(2, size=128), {"version": (3, 2)}),
    ("memory-boot", eight(2, size=256), {"version": (3, 3)}),
    ("version-dialect", [], {"version": (2, 2)}),
    ("version-dialect", [], {"version": (3, 4)}),
    ("version-range", [], {"version": (2, 2)}),
    ("version-range", [], {"version": (3, 3)}),
    ("version-range", [region()], {"version": None}),
    ("version-unknown", [], {"version": None}),
    ("root-line", [], {"text": scenarios.scenario("v3").replace("\n", "\r\n").replace('line">', 'line">\t')}),
    ("root-line", [], {"text": scenarios.scenario("v2").replace("\n", ""), "version": (2, 7)}),
    ("region-unreadable", [], {"block": BROKEN.replace("two", "2").replace("<NAME>b<", "<NAME>c<", 1)}),
    ("region-disabled", [], {"version": (2, 7), "block": OFF.replace(">n<", ">y<")}),
]


def ids(cases):
    return [f"{case[0]}-{number}" for number, case in enumerate(cases)]


@pytest.mark.parametrize(("rule", "regions", "setting", "words"), BREAKING, ids=ids(BREAKING))
def test_broken_rule(rule, regions, setting, words):
    told = [finding for finding in findings(regions, **setting) if finding.rule == rule]
    assert told, f"{rule} is not told"
    assert {finding.severity for finding in told} == {BY_ID[rule].severity}
    assert {finding.mend for finding in told} == {BY_ID[rule].mend}
    text = "\n".join(map(str, told))
    assert [word for word in [*words, f"[docs/rules.md#{rule}]", BY_ID[rule].mend] if word not in text] == []
    # A finding about one region names it, and only one that is asked for.
    assert {finding.region for finding in told} <= {"", *(each.name for each in regions)}
    if len(regions) == 1 and rule != "version-unknown":
        assert told[0].region == regions[0].name


@pytest.mark.parametrize(("rule", "regions", "setting"), KEEPING, ids=ids(KEEPING))
def test_kept_rule(rule, regions, setting):
    assert [str(finding) for finding in findings(regions, **setting) if finding.rule == rule] == []


@pytest.mark.parametrize("rule", sorted(BY_ID))
def test_rule_is_complete_and_has_both_examples(rule):
    assert rule in {case[0] for case in BREAKING}
    assert rule in {case[0] for case in KEEPING}
    assert all(getattr(BY_ID[rule], field.name) for field in dataclasses.fields(BY_ID[rule]) if field.name != "until")
    assert BY_ID[rule].severity in (ERROR, WARNING)


def test_ids_are_unique():
    assert len(BY_ID) == len(RULES)


@pytest.mark.parametrize(
    ("since", "until", "version", "dialect", "expected"),
    [
        ((2, 2), None, (3, 3), "v3", ERROR),
        ((2, 2), None, (9, 9), "v3", ERROR),
        ((2, 2), (2, 7), (2, 7), "v2", ERROR),
        ((2, 2), (2, 7), (3, 0), "v3", None),
        ((3, 3), None, (3, 2), "v3", None),
        # Without a version: certain for all of the dialect, possible for some, out of the question for the other.
        ((2, 2), None, None, "v2", ERROR),
        ((2, 2), (2, 7), None, "v2", ERROR),
        ((2, 2), (2, 7), None, "v3", None),
        ((2, 2), (2, 2), None, "v2", WARNING),
        ((2, 2), (3, 2), None, "v2", ERROR),
        ((2, 2), (3, 2), None, "v3", WARNING),
        ((2, 7), None, None, "v2", WARNING),
        ((3, 0), None, None, "v3", ERROR),
        ((3, 0), None, None, "v2", None),
        ((3, 3), None, None, "v3", WARNING),
    ],
)
def test_severity_by_version(since, until, version, dialect, expected):
    rule = dataclasses.replace(BY_ID["region-name"], since=since, until=until)
    assert rule.severity_for(version, dialect) == expected


def test_everything_is_told_at_once_errors_first():
    wrong = [region("a-b", size=3), region("c", vms=["PRE0", "NIL"]), region("d", vms=["SVC", at("POST2", "00:01.0")])]
    told = findings(wrong, version=None)
    errors = ["region-name", "region-size", "vm-unknown", "vbdf-reserved"]
    assert [finding.rule for finding in told] == [*errors, "board-unknown", "version-unknown"]
    with pytest.raises(IvshmemError) as caught:
        refuse(told, "line.xml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 mistakes in the regions, held against line.xml; nothing was changed"
    assert [line.split("#")[-1] for line in lines[1:]] == [f"{rule}]" for rule in errors]
    refuse([finding for finding in told if finding.severity == WARNING], "line.xml")


def test_a_finding_names_what_is_to_be_mended_in_the_declaration():
    values = [
        {"name": "a-b", "size": 3, "vms": ["PRE0", "post2"]},
        {"name": "c", "size": 2, "vms": ["PRE0", {"name": "POST2", "vbdf": "00:01.0"}]},
        {"name": "c", "size": 2, "vms": ["PRE0", {"name": "POST2", "id": 3}]},
    ]
    regions, _problems = parse_regions(values, ["all[0]", "all[1]", "own[0]"])
    told = {finding.rule: str(finding) for finding in findings(regions)}
    assert "error: all[0].name: region 'a-b': its name" in told["region-name"]
    assert "error: all[0].size: region 'a-b': its size" in told["region-size"]
    assert "error: all[1].vms[1].vbdf: region 'c': device 01" in told["vbdf-reserved"]
    assert "own[0].name: region 'c': is declared 2 times: all[1] and own[0];" in told["region-duplicate"]
    unknown = [str(finding) for finding in findings(regions) if finding.rule == "vm-unknown"]
    assert "all[0].vms[1]: region 'a-b': VM 'post2' is not in the scenario" in unknown[0]
    assert "did you mean POST2?" in unknown[0]
    assert "own[0].vms[1].id: region 'c': VM 'POST2' has the ID 2, and not 3" in unknown[1]


@pytest.mark.parametrize(("path", "_dialect"), scenarios.real_files() or [pytest.param(None, "", id="none")])
def test_files_of_acrn_break_no_rule(path, _dialect):
    if path is None:
        pytest.skip(f"no reference data in {scenarios.SHARED}")
    version = tuple(int(part) for part in path.parts[-3][1:].split("."))
    scenario = read_scenario(path.read_bytes(), str(path))
    # Without its board nobody can tell the memory of these, which is what that warning says.
    found = [str(finding) for finding in check(scenario, scenario.regions, version) if finding.rule != "memory-guess"]
    assert found == []
