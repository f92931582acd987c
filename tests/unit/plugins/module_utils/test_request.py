# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import (
    decide,
    describe,
    find_version,
    names_to_remove,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.scenarios import (
    block_v2,
    block_v3,
    pci_devs,
    region_v3,
    vuart,
)

V3 = scenarios.scenario("v3").encode()


def names(outcome):
    return [placed.region.prefixed for placed in outcome.regions]


def test_states():
    both = decide(V3, "f", ["hv:/a, 2, 0:2", "dm:/b, 2, 2:3"], version=(3, 3))
    assert names(both) == ["hv:/a", "dm:/b"]
    more = decide(both.data, "f", ["hv:/c, 2, 0:2"], "present", version=(3, 3))
    assert names(more) == ["hv:/a", "hv:/c", "dm:/b"]
    fewer = decide(more.data, "f", ["a", "b", "unknown"], "absent")
    assert names(fewer) == ["hv:/c"]
    assert decide(more.data, "f", ["hv:/c, 2, 0:2"], version=(3, 3)).data == fewer.data
    none = decide(fewer.data, "f", [], version=(3, 3))
    assert (names(none), none.data) == ([], V3)
    assert none.digest == hashlib.sha256(V3).hexdigest()


def test_a_region_may_change_its_provider():
    data = decide(V3, "f", ["hv:/a, 2, 2:3"], version=(3, 3)).data
    outcome = decide(data, "f", ["dm:/a, 2, 2:3"], "present", version=(3, 3))
    assert names(outcome) == ["dm:/a"]
    assert outcome.data.count(b"<NAME>") == 1


def test_declarations_and_rules_are_told_at_once():
    with pytest.raises(IvshmemError) as caught:
        decide(V3, "f", ["junk", "hv:/a", {"name": "b"}, "hv:/c, 3, 0:2"], version=(3, 3))
    first, *told = str(caught.value).splitlines()
    assert first == "5 mistakes in the regions, held against f; nothing was changed"
    assert [word in line for word, line in zip(["'junk'", "'hv:/a'", "'b'", "'b'", "'c'"], told)] == [True] * 5
    with pytest.raises(IvshmemError) as caught:
        decide(V3, "f", ["hv:/a, 3, 0:2", "hv:/a, 2, 0:9"], version=(3, 3))
    assert [line.split("[")[-1] for line in str(caught.value).splitlines()[1:]] == [
        "docs/rules.md#region-duplicate]",
        "docs/rules.md#region-size]",
        "docs/rules.md#vm-unknown]",
    ]


def test_warnings_are_kept():
    outcome = decide(V3, "f", ["hv:/a, 2, 1:2"])
    assert [finding.rule for finding in outcome.findings] == ["board-unknown", "version-unknown"]
    unreadable = scenarios.scenario("v2", block_v2("hv:/junk")).encode()
    outcome = decide(unreadable, "f", ["hv:/a, 2, 0:2"], "present", version=(2, 7))
    assert [finding.rule for finding in outcome.findings] == ["region-unreadable"]


@pytest.mark.parametrize("value", [None, 3, "", " ", {}, {"name": 4}, {"name": ""}, [], ["a"]])
def test_no_name_to_remove(value):
    with pytest.raises(IvshmemError, match="a region to remove is its name"):
        names_to_remove(["a", value])


def test_board_keeps_the_service_vm_off_native_devices():
    board = read_board(scenarios.board_xml(["00:08.0", "00:09.1"]).encode(), "board")
    outcome = decide(V3, "f", ["hv:/a, 2, SVC:POST2"], version=(3, 3), board=board)
    assert [vm["slot"] for vm in outcome.regions[0].as_dict()["vms"]] == [10, 8]
    assert outcome.findings == ()


@pytest.mark.parametrize(("tag", "kind"), [("uos", "uos_type"), ("user_vm", "user_vm_type")])
def test_what_a_launch_xml_says_of_guests_is_asked(tag, kind):
    launch = scenarios.launch_xml(users=(1, 2), tag=tag)
    launch = launch.replace(f'<{tag} id="1">', f'<{tag} id="1"><{kind}>WINDOWS</{kind}>')
    assert "WINDOWS" in launch
    found = {}
    for version in ((2, 3), (2, 4)):
        outcome = decide(
            scenarios.scenario("v2").encode(), "f", ["hv:/a, 2, 0:2:3"], version=version, launch=launch.encode()
        )
        found[version] = [finding.message for finding in outcome.findings if finding.rule == "bar-size"]
    assert found == {(2, 3): ["VM 'POST2' seems to run Windows or Zephyr, whose driver refuses the device"], (2, 4): []}


def test_launch_xml_goes_with_the_scenario():
    launch = scenarios.launch_xml().encode()
    data = scenarios.scenario("v2").encode()
    outcome = decide(data, "f", ["hv:/a, 2, 1:3"], version=(2, 7), launch=launch, launch_where="l")
    assert outcome.launch.replace(b"hv:/a,2", b"") == launch
    assert outcome.launch.index(b'id="2"') < outcome.launch.index(b"hv:/a,2")
    gone = decide(outcome.data, "f", ["a"], "absent", launch=outcome.launch, launch_where="l")
    assert b"hv:/" not in gone.data + gone.launch


OFF = scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2", "hv:/b, 2, 0:3", enabled="n")).encode()


@pytest.mark.parametrize(
    ("state", "declared", "there", "told"),
    [
        ("exact", [], [], "ACRN ignores what the file lists: a, b;"),
        ("exact", ["hv:/a, 2, 0:2"], ["hv:/a"], "ACRN ignores what the file lists: b;"),
        ("exact", ["hv:/a, 2, 0:2", "hv:/b, 2, 0:3"], ["hv:/a", "hv:/b"], None),
        ("present", ["hv:/a, 2, 0:2"], ["hv:/a", "hv:/b"], "regions switch on what else the file lists: b;"),
        ("present", ["dm:/d, 2, 2:3"], ["dm:/d"], "ACRN ignores what the file lists: a, b;"),
        ("absent", ["a"], [], None),
    ],
)
def test_regions_that_are_switched_off_are_told(state, declared, there, told):
    outcome = decide(OFF, "f", declared, state, version=(2, 7))
    assert names(outcome) == there
    findings = [finding for finding in outcome.findings if finding.rule != "region-alike"]
    assert [told in str(finding) for finding in findings] == ([True] if told else [])
    again = decide(outcome.data, "f", declared, state, version=(2, 7))
    assert (again.data, names(again)) == (outcome.data, there)


def test_description_of_regions_that_are_switched_off():
    told = describe(read_scenario(OFF, "f"), (2, 7), None)
    assert (told["regions"], told["memory"]["used"]) == ([], 0)
    assert [finding["rule"] for finding in told["findings"]] == ["region-disabled"]
    on = describe(read_scenario(OFF.replace(b">n<", b">y<"), "f"), (2, 7), None)
    assert (len(on["regions"]), on["memory"]["used"]) == (2, 4)
    assert [finding["rule"] for finding in on["findings"]] == ["region-alike"]


def test_version_of_the_nearest_tree(tmp_path):
    scenario = tmp_path / "acrn" / "misc" / "VERSION" / "line.xml"
    scenario.parent.mkdir(parents=True)
    scenario.touch()
    (tmp_path / "acrn" / "VERSION").write_text("MAJOR_VERSION=3\nMINOR_VERSION=2\nEXTRA_VERSION=\n")
    (tmp_path / "acrn" / "misc" / "VERSION" / "VERSION").write_bytes(b"1.0\xff\n")
    (tmp_path / "link.xml").symlink_to(scenario)
    assert find_version(str(scenario)) == (3, 2)
    assert find_version(str(tmp_path / "link.xml")) == (3, 2)
    assert find_version(str(tmp_path / "acrn" / "nowhere" / "x.xml")) == (3, 2)
    assert find_version(str(tmp_path / "x.xml")) is None


def test_description():
    block = block_v3(
        region_v3("a", ("PRE0", "00:09.0"), ("GONE", "00:08.0"), size=64),
        region_v3("d", ("POST2", "00:08.0"), ("POST3", ""), provider="Device Model", size=16),
        region_v3("d", ("POST2", "00:0a.0")),
    )
    text = scenarios.scenario(
        "v3",
        block,
        hv=vuart("talk", ("PRE0", "00:0b.0"), ("SVC", "junk")),
        more={"PRE0": pci_devs("00:08.0 Net: card", "junk"), "SVC": pci_devs("")},
    )
    told = describe(read_scenario(text.encode(), "f"), (3, 2), None)
    assert (told["dialect"], told["acrn_version"], told["board"], told["scenario"]) == ("v3", "3.2", "board", "line")
    assert [vm["id"] for vm in told["vms"]] == [0, 1, 2, 3]
    assert told["vms"][0]["functions"] == [
        {"bdf": "00:08.0", "kind": "passthrough", "what": "00:08.0 Net: card"},
        {"bdf": "00:09.0", "kind": "ivshmem", "what": "a"},
        {"bdf": "00:0b.0", "kind": "vuart", "what": "talk"},
    ]
    assert [(region["name"], [vm["vbdf"] for vm in region["vms"]]) for region in told["regions"]] == [
        ("a", ["00:09.0"]),
        ("d", ["00:08.0", None]),
    ]
    assert told["memory"] == {
        "limit": 940,
        "used": 80,
        "counts": ["hypervisor", "device_model"],
        "guess": True,
        "unchecked": None,
        "service_vm": None,
    }
    assert [finding["rule"] for finding in told["findings"]] == ["vm-unknown", "memory-guess", "region-unreadable"]


def test_a_service_vm_has_the_functions_of_the_board_that_no_pre_launched_vm_has():
    more = {"PRE0": pci_devs("00:14.0 Net: card"), "POST2": pci_devs("00:15.0 Sound: card")}
    text = scenarios.scenario("v3", block_v3(region_v3("a", ("SVC", "00:09.0"), ("POST2", "00:08.0"))), more=more)
    text = text.replace(' board="board"', "")
    board = read_board(scenarios.board_xml(["00:02.0", "00:14.0", "00:15.0"]).encode(), "b")
    told = describe(read_scenario(text.encode(), "f"), (3, 3), board)
    functions = {vm["name"]: [(each["bdf"], each["kind"]) for each in vm["functions"]] for vm in told["vms"]}
    assert functions["SVC"] == [("00:02.0", "native"), ("00:09.0", "ivshmem"), ("00:15.0", "native")]
    assert (functions["PRE0"], functions["POST3"]) == ([("00:14.0", "passthrough")], [])
    assert told["board"] == "board"


def test_description_of_v2():
    text = scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2"))
    told = describe(read_scenario(text.encode(), "f"), None, None)
    assert (told["acrn_version"], told["memory"]) == (None, None)
    assert [vm["slot"] for vm in told["regions"][0]["vms"]] == [None, 30]
    # Where nobody knows the version, what is wrong on one of them is told.
    assert [finding["rule"] for finding in told["findings"]] == ["vm-alone", "host-bridge", "version-unknown"]
