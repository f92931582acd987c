# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import SLOT_ORDER
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, IvshmemError, parse_regions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._launch_xml import render_launch
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import place_regions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import parse_version, version_of_tree
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.scenarios import (
    VMS,
    around,
    block_v2,
    block_v3,
    found,
    pci_devs,
    region_v3,
    vuart,
)

V27, V33 = (2, 7), (3, 3)
VERSION = {"v2": V27, "v3": V33}
REAL = scenarios.real_files() or [pytest.param(None, "", id="none")]
TEXTS = {"hypervisor": "Hypervisor", "device_model": "Device Model"}


def real(path):
    """The bytes of a file of reference data and its ACRN version."""
    if path is None:
        pytest.skip(f"no reference data in {scenarios.SHARED}")
    return path.read_bytes(), parse_version(path.parts[-3])


def edit(text, *regions, state="exact", version=None, **more):
    """The text with regions, which another edit leaves as it is."""
    data = text if isinstance(text, bytes) else text.encode()
    version = version or VERSION[read_scenario(data, "f").dialect]
    new = decide(data, "f", regions, state, version=version, **more).data
    assert decide(new, "f", regions, state, version=version, **more).data == new
    return new if isinstance(text, bytes) else new.decode()


def vbdfs(text, *regions, **more):
    """Where the devices stand, {region: {VM: vBDF}}, in the text with these regions."""
    return {name: region[3] for name, region in found(edit(text, *regions, **more), "v3").items()}


# -- what is written -------------------------------------------------------------------------------------------------


def test_a_new_region_of_v3():
    text = edit(scenarios.scenario("v3"), {"name": "cam", "size": 4, "vms": ["PRE0", "POST2"], "region_id": 4096})
    assert text == scenarios.scenario(
        "v3",
        """\
      <IVSHMEM>
        <IVSHMEM_REGION>
          <NAME>cam</NAME>
          <PROVIDED_BY>Hypervisor</PROVIDED_BY>
          <IVSHMEM_SIZE>4</IVSHMEM_SIZE>
          <IVSHMEM_REGION_ID>4096</IVSHMEM_REGION_ID>
          <IVSHMEM_VMS>
            <IVSHMEM_VM>
              <VM_NAME>PRE0</VM_NAME>
              <VBDF>00:08.0</VBDF>
            </IVSHMEM_VM>
            <IVSHMEM_VM>
              <VM_NAME>POST2</VM_NAME>
              <VBDF>00:08.0</VBDF>
            </IVSHMEM_VM>
          </IVSHMEM_VMS>
        </IVSHMEM_REGION>
      </IVSHMEM>
""",
    )


def test_a_new_region_of_v2():
    text = edit(scenarios.scenario("v2"), "hv:/a, 2, 0:2", {"name": "b", "size": 16, "vms": ["PRE0", "SVC", 3]})
    assert text == scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2", "hv:/b, 16, 0:1:3"))


def test_hypervisor_regions_come_first():
    regions = ["dm:/d, 2, POST2:POST3", "hv:/h, 2, 0:2"]
    assert list(found(edit(scenarios.scenario("v3"), *regions), "v3")) == ["h", "d"]
    wrong = block_v3(
        "        <!-- of d -->\n",
        region_v3("d", ("POST2", "00:08.0"), ("POST3", "00:08.0"), provider="Device Model"),
        region_v3("h", ("PRE0", "00:08.0"), ("POST2", "00:09.0")),
    )
    text = edit(scenarios.scenario("v3", wrong), *regions)
    assert list(found(text, "v3")) == ["h", "d"]
    assert re.search(r"<!-- of d -->\s*<IVSHMEM_REGION>\s<NAME>d<", text)


@pytest.mark.parametrize(
    "block",
    [
        "<IVSHMEM/>",
        "<IVSHMEM></IVSHMEM>",
        "",
        block_v3(region_v3("a", ("PRE0", "00:08.0"), ("POST2", "00:08.0"))),
        block_v3(region_v3("a", ("PRE0", "00:08.0"))),
    ],
)
@pytest.mark.parametrize("state", ["exact", "present"])
def test_acrn_sees_a_region_of_a_file_without_white_space(block, state):
    """ACRN leaves out a region without text between its children (xforms/ivshmem_cfg.h.xsl, v3.0 to v3.3)."""
    text = re.sub(r">\s+<", "><", scenarios.scenario("v3", block).partition("\n")[2])
    text = f'<acrn-config board="board">\n{text}'
    new = edit(text, "hv:/a, 2, 0:2", "hv:/b, 4, 0:2", state=state)
    assert list(found(new, "v3")) == ["a", "b"]
    for node in ElementTree.fromstring(new).iter("IVSHMEM_REGION"):
        assert node.text or any(child.tail for child in node)


def test_dm_regions_are_not_written_to_a_v2_scenario_but_returned():
    data = scenarios.scenario("v2").encode()
    outcome = decide(data, "f", ["dm:/d, 2, 2:3", "hv:/h, 2, 0:2"], version=V27)
    assert found(outcome.data, "v2") == ("y", ["hv:/h, 2, 0:2"])
    assert [(each.region.prefixed, [str(vm.vbdf) for vm in each.vms]) for each in outcome.regions] == [
        ("hv:/h", ["None", "00:1e.0"]),
        ("dm:/d", ["00:1d.0", "00:1e.0"]),
    ]
    for block in (None, ""):
        data = scenarios.scenario("v2", block).encode()
        assert decide(data, "f", ["dm:/d, 2, 2:3"], version=V27).data == data


@pytest.mark.parametrize(("version", "written"), [((3, 2), None), ((3, 3), "5000"), (None, "5000")])
def test_a_region_id_in_the_file_stays_where_the_version_knows_it(version, written):
    block = block_v3(region_v3("a", ("PRE0", "00:08.0"), ("POST2", "00:08.0"), region_id=5000))
    data = scenarios.scenario("v3", block).encode()
    wanted = [{"name": "a", "size": 4, "vms": [0, 2], "region_id": 0 if version == (3, 2) else None}]
    assert found(decide(data, "f", wanted, version=version).data, "v3")["a"][1:3] == ("4", written)


def test_an_element_that_says_the_right_thing_keeps_its_bytes():
    block = """      <IVSHMEM kept="1">
        <IVSHMEM_REGION><!-- mine --><NAME
        >a</NAME><IVSHMEM_VMS><IVSHMEM_VM><VM_NAME>POST2</VM_NAME><VBDF>00:0A.0</VBDF><!-- v --></IVSHMEM_VM>
           <IVSHMEM_VM><VM_NAME>PRE&#48;</VM_NAME><VBDF>00:09.0</VBDF></IVSHMEM_VM></IVSHMEM_VMS><other/>
        </IVSHMEM_REGION>
      </IVSHMEM>
"""
    before = scenarios.scenario("v3", block)
    # Absent elements have ACRN's defaults, but the default size is told; a vBDF is lower-case.
    after = before.replace("00:0A.0", "00:0a.0").replace("<IVSHMEM_VMS>", "<IVSHMEM_SIZE>2</IVSHMEM_SIZE><IVSHMEM_VMS>")
    new = edit(before, "hv:/a, 2, 0:2")
    assert re.sub(r"\s+", "", new) == re.sub(r"\s+", "", after)
    assert edit(new, "hv:/a, 2, 2:0", state="present") == new


@pytest.mark.parametrize(
    ("block", "enabled"),
    [
        (block_v2("hv:/a,2 ,2: 0"), "y"),
        (block_v2("hv:/a, 0x2, 0:2"), "y"),
        (block_v2("<![CDATA[hv:/a, 2, 0:2]]>"), "y"),
        (block_v2("hv:/a, 2, 0:2<!-- two -->"), "y"),
    ],
)
def test_a_v2_line_that_means_the_same_keeps_its_bytes(block, enabled):
    text = scenarios.scenario("v2", block)
    assert edit(text, "hv:/a, 2, 0:2") == text


@pytest.mark.parametrize(
    "block",
    [
        block_v2(enabled="n"),
        block_v2("", enabled="n"),
        block_v2("", "", ""),
        block_v2("\n   hv:/a, 2, 0:2\n   ", ""),
        block_v2("hv:/a, 4, 0:2", "hv:/a, 2, 0:2"),
        block_v2("hv:/a, 2MB, 0:2"),
        block_v2("nonsense", "dm:/a, 2, 2:3"),
        "      <IVSHMEM/>\n",
        "      <IVSHMEM>\n      </IVSHMEM>\n",
        "",
    ],
)
def test_exact_makes_good_whatever_was_there(block):
    text = edit(scenarios.scenario("v2", block), "hv:/a, 2, 0:2")
    assert text == scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2"))


OFF = scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2", "hv:/b, 2,0:3", enabled="n"))


@pytest.mark.parametrize("switch", ["n", "", "Y", None])
def test_regions_that_are_switched_off_are_not_there(switch):
    element = "<IVSHMEM_ENABLED>n</IVSHMEM_ENABLED>"
    text = OFF.replace(element, "" if switch is None else element.replace("n<", f"{switch}<"))
    scenario = read_scenario(text.encode(), "f")
    assert (scenario.in_effect, scenario.as_found(), scenario.declared()) == ((), (), [])
    assert [region.name for region in scenario.regions] == ["a", "b"]
    on = read_scenario(OFF.replace(">n<", "> y <").encode(), "f")
    assert [placed.region.name for placed in on.as_found()] == ["a", "b"]


@pytest.mark.parametrize("off", [OFF, OFF.replace("<IVSHMEM_ENABLED>n</IVSHMEM_ENABLED>", "<!-- off -->")])
@pytest.mark.parametrize("state", ["exact", "present"])
@pytest.mark.parametrize("wanted", [[], ["dm:/d, 2, 2:3"]])
def test_who_wants_no_region_of_the_hypervisor_loses_none_that_is_off(off, state, wanted):
    assert edit(off, *wanted, state=state) == off


@pytest.mark.parametrize(
    ("state", "wanted", "lines"),
    [
        ("exact", ["hv:/a, 2, 0:2", "hv:/b, 2, 0:3"], ["hv:/a, 2, 0:2", "hv:/b, 2,0:3"]),
        ("exact", ["hv:/b, 2, 0:3"], ["hv:/b, 2,0:3"]),
        # One switch is for all of them.
        ("present", ["hv:/b, 2, 0:3"], ["hv:/a, 2, 0:2", "hv:/b, 2,0:3"]),
        ("present", ["hv:/c, 4, 0:2"], ["hv:/a, 2, 0:2", "hv:/b, 2,0:3", "hv:/c, 4, 0:2"]),
    ],
)
def test_a_declared_region_is_switched_on(state, wanted, lines):
    assert edit(OFF, *wanted, state=state) == scenarios.scenario("v2", block_v2(*lines))


def test_exact_takes_out_of_what_is_off_only_what_is_not_readable():
    text = scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2", "nonsense", "", enabled="n"))
    assert edit(text, state="present") == text
    assert edit(text) == scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2", "", enabled="n"))


def test_a_file_without_a_switch_gets_none_without_a_value():
    text = OFF.replace("        <IVSHMEM_ENABLED>n</IVSHMEM_ENABLED>\n", "")
    line = "        <IVSHMEM_REGION>hv:/a, 2, 0:2</IVSHMEM_REGION>\n"
    assert edit(text, "a", state="absent") == text.replace(line, "")


def refused(text, version):
    """What is told of a declaration that says what the file says."""
    declared = read_scenario(text.encode(), "f").declared()
    with pytest.raises(IvshmemError) as caught:
        decide(text.encode(), "f", declared, version=version)
    return str(caught.value)


def test_a_declaration_of_the_file_leaves_nothing_out_in_v3():
    both = [("PRE0", "00:08.0"), ("POST2", "00:0A.0")]
    good = region_v3("good", *both, region_id=4096)
    block = block_v3(
        good,
        region_v3("badsize", *both, size="4 MB"),
        region_v3("typo", *both, ("PROE0", "")),
        region_v3("good", ("POST2", "00:09.0"), ("POST3", "00:09.0"), provider="Device Model"),
        region_v3("prov", *both, provider="device_model"),
        region_v3("place", ("PRE0", "zz"), ("POST2", "")),
        "        <IVSHMEM_REGION/>\n",
    )
    declared = read_scenario(scenarios.scenario("v3", block).encode(), "f").declared()
    assert [each["name"] for each in declared] == ["good", "badsize", "typo", "good", "prov", "place"]
    assert declared[0] == {
        "name": "good",
        "provided_by": "hypervisor",
        "size": 2,
        "region_id": 4096,
        "vms": [{"name": "PRE0", "vbdf": "00:08.0"}, {"name": "POST2", "vbdf": "00:0a.0"}],
    }
    assert declared[2]["vms"][2] == {"name": "PROE0"}
    told = refused(scenarios.scenario("v3", block), V33)
    for words in ("'badsize': size must be", "'prov': provided_by must be", "'zz' is not a PCI address"):
        assert words in told
    for words in ("VM 'PROE0' is not in the scenario", "'good': is declared 2 times"):
        assert words in told
    alone = scenarios.scenario("v3", block_v3(region_v3("solo", ("NOBODY", "00:08.0"), ("POST2", "00:08.0"))))
    assert "VM 'NOBODY' is not in the scenario" in refused(alone, V33)
    assert "single VM" not in refused(alone, V33)
    text = scenarios.scenario("v3", block_v3(good)).replace("0A", "0a")
    assert edit(text, *read_scenario(text.encode(), "f").declared()) == text


def test_a_declaration_of_the_file_leaves_nothing_out_in_v2():
    lines = ["hv:/a, 2, 0:2", "hv:/b, 2MB, 0:2", "hv:/a, 4, 0:3", "hv:/c, 2, 0:9"]
    text = scenarios.scenario("v2", block_v2(*lines))
    declared = read_scenario(text.encode(), "f").declared()
    own = {"provided_by": "hypervisor", "size": 2}
    assert declared == [
        {"name": "a", **own, "vms": [{"name": "PRE0"}, {"name": "POST2"}]},
        *lines[1:3],
        {"name": "c", **own, "vms": [{"name": "PRE0"}, {"name": 9}]},
    ]
    told = refused(text, V27)
    for words in ("'hv:/b': size must be", "'a': is declared 2 times", "'c': VM '9' is not in the scenario"):
        assert words in told
    text = scenarios.scenario("v2", block_v2(lines[0], "dm:/d, 2, 2:3"), vms=[*VMS[:3], (3, "POST2", "post")])
    assert read_scenario(text.encode(), "f").declared()[1]["vms"] == [{"name": "POST2"}, {"name": 3}]


def test_new_regions_go_into_the_first_empty_elements_with_their_attributes():
    block = block_v2(enabled="n").replace(
        "      </IVSHMEM>", '        <IVSHMEM_REGION desc="a > b"></IVSHMEM_REGION>\n      </IVSHMEM>'
    )
    text = edit(scenarios.scenario("v2", block), "hv:/a, 2, 0:2")
    assert '<IVSHMEM_REGION desc="a > b">hv:/a, 2, 0:2</IVSHMEM_REGION>' in text
    assert edit(text) == scenarios.scenario("v2", block)


def test_present_leaves_alone_what_it_does_not_understand():
    lines = ("nonsense", "hv:/b, 2MB, 0:2", "dm:/d, 2, 2:3")
    text = edit(scenarios.scenario("v2", block_v2(*lines, enabled="n")), "hv:/a, 2, 0:2", state="present")
    assert text == scenarios.scenario("v2", block_v2(*lines, "hv:/a, 2, 0:2"))
    text = edit(text, "hv:/b, 2, 0:2", state="present")
    assert text == scenarios.scenario("v2", block_v2(lines[0], "hv:/b, 2, 0:2", lines[2], "hv:/a, 2, 0:2"))
    odd = region_v3("b", ("PRE0", "00:08.0"), ("POST2", "00:08.0"), size="two")
    text = edit(scenarios.scenario("v3", block_v3(odd)), "hv:/a, 2, 0:2", state="present")
    assert odd in text
    text = edit(text, "hv:/b, 2, 0:2", state="present")
    assert found(text, "v3")["b"][1] == "2"
    assert text.count("<NAME>b</NAME>") == 1


def test_absent_takes_out_every_region_of_the_name_and_no_other():
    lines = ["hv:/a, 2, 0:2", "hv:/b, 2, 0:2", "hv:/a, 4, 0:3", "hv:/a, x, 0"]
    assert edit(scenarios.scenario("v2", block_v2(*lines, enabled="n")), "a", state="absent") == scenarios.scenario(
        "v2", block_v2("hv:/b, 2, 0:2", enabled="n")
    )
    a, b = (region_v3(name, ("PRE0", "00:08.0"), ("POST2", "00:08.0")) for name in "ab")
    text = edit(scenarios.scenario("v3", block_v3(a, b, a)), {"name": "a"}, state="absent")
    assert text == scenarios.scenario("v3", block_v3(b))


@pytest.mark.parametrize("dialect", ["v2", "v3"])
@pytest.mark.parametrize(
    "names", [["c"], ["hv:/c"], ["hv:/c, 2, 0:2"], [{"name": "c"}], [{"name": "c", "size": 3, "vms": []}], ["x", "c"]]
)
def test_absent_needs_a_name_alone(dialect, names):
    text = scenarios.scenario(dialect)
    assert edit(edit(text, "hv:/c, 2, 0:2"), *names, state="absent") == text


def test_absent_takes_regions_out_that_break_rules():
    vms = [("NIL", "zz"), ("POST2", "00:08.0")]
    broken = block_v3(region_v3("a", *vms, size=3, provider="Nobody"), region_v3("b", *vms, size=3))
    text = scenarios.scenario("v3", broken)
    assert edit(edit(text, "b", state="absent"), "a", state="absent") == scenarios.scenario("v3")


@pytest.mark.parametrize(("path", "dialect"), REAL)
def test_a_region_that_came_and_went_leaves_the_bytes_of_acrn(path, dialect):
    data, version = real(path)
    vms = scenarios.sharing(read_scenario(data, "f"), version)
    if len(vms) < 2:
        pytest.skip("a single VM")
    names = [f"r{number}" for number in range(3)]
    new = edit(data, *[f"hv:/{name}, 2, {vms[0].id}:{vms[1].id}" for name in names], state="present", version=version)
    assert new != data
    assert edit(new, *names, state="absent", version=version) == data


# -- where the element is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trap", ["<!-- {} -->", "<?keep {} ?>", "<note><![CDATA[{}]]></note>"])
def test_an_element_in_a_comment_or_cdata_is_none(trap):
    inside = trap.format("<IVSHMEM><IVSHMEM_REGION>hv:/old, 2, 0:2</IVSHMEM_REGION></IVSHMEM>")
    for block in (f"      {inside}\n", f"      {inside}\n{scenarios.EMPTY['v3']}      {inside}\n"):
        text = scenarios.scenario("v3", block)
        new = edit(text, "hv:/a, 2, 0:2")
        assert new.count(inside) == text.count(inside)
        assert list(found(new, "v3")) == ["a"]


@pytest.mark.parametrize("dialect", ["v2", "v3"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<FEATURES>\n      <RELOC>y</RELOC>\n    ", "<FEATURES>\n      <RELOC>y</RELOC>\n      @\n    "),
        ("<FEATURES>\n      <SSRAM/>\n    ", "<FEATURES>\n      @\n      <SSRAM/>\n    "),
        ("<FEATURES>", "<FEATURES>\n      @\n    "),
    ],
)
def test_a_missing_element_goes_where_the_schema_wants_it(dialect, before, after):
    whole = scenarios.scenario(dialect, "")
    text = re.sub(r"<FEATURES>.*(?=</FEATURES>)", before, whole, flags=re.DOTALL)
    new = edit(text, "hv:/a, 2, 0:2")
    assert re.sub(r"<IVSHMEM>.*</IVSHMEM>", "@", new, flags=re.DOTALL) == text.replace(before, after)


def test_missing_features_are_made():
    text = re.sub(r"\s*<FEATURES>.*</FEATURES>", "", scenarios.scenario("v3", hv="    <MEMORY/>\n"), flags=re.DOTALL)
    new = edit(text, "hv:/a, 2, 0:2")
    assert re.sub(r"    <FEATURES>\n.*\n    </FEATURES>\n", "", new, flags=re.DOTALL) == text
    assert new.index("</FEATURES>") < new.index("<MEMORY/>")


V3 = scenarios.scenario("v3")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (V3.replace("<hv>", "<hv><IVSHMEM/>"), "has 2 IVSHMEM elements, at lines 2 and 5; leave one"),
        (V3.replace("<IVSHMEM/>", "<IVSHMEM/><IVSHMEM/>"), "2 IVSHMEM elements"),
        (scenarios.scenario("v3", "", hv="<IVSHMEM/>"), r"\(line 6\) is not in hv/FEATURES; move it"),
        (V3.replace('id="3"', 'id="2"'), "VM id 2 is there twice, again at line"),
        (V3.replace('id="3"', 'id="three"'), "no numeric id"),
        (V3.replace(' id="3"', ""), "no numeric id"),
        (V3.replace("PRE_LAUNCHED_VM", "LAUNCHED_VM"), r"VM 0 \(line 8\) has the load_order 'LAUNCHED_VM'"),
        (scenarios.scenario("v2").replace("PRE_STD_VM", "VM"), "has the vm_type 'VM'"),
        (scenarios.scenario("v3", vms=()), "is a file without VMs"),
        (scenarios.launch_xml(), "is a launch XML; give the scenario XML"),
        (scenarios.launch_xml(tag="uos"), "is a launch XML"),
        (scenarios.board_xml(), "is a file without VMs"),
        ("<scenario/>", "its root is <scenario>, not <acrn-config>"),
        (re.sub(r"<hv>.*</hv>", "", V3, flags=re.DOTALL), "has no <hv> element"),
    ],
)
def test_files_that_are_refused(text, words):
    with pytest.raises(IvshmemError, match=f"^f: .*{words}"):
        edit(text, "hv:/a, 2, 0:2")


@pytest.mark.parametrize("data", [b"shared_launch_6user_vm.xml", b"../a b/line.xml\n"])
def test_a_link_that_was_checked_out_as_text(data):
    scenario = read_scenario(scenarios.scenario("v2").encode(), "s")
    for read in (lambda: read_scenario(data, "f"), lambda: render_launch(data, "f", scenario, ())):
        with pytest.raises(IvshmemError, match=f"f: holds only the path {data.decode().strip()}: .* out as text"):
            read()
    with pytest.raises(IvshmemError, match="not well-formed"):
        read_scenario(b"one.xml\ntwo.xml", "f")


def test_deep_nesting_is_no_trouble():
    depth = 90
    text = V3.replace("<RELOC>", "<a>" * depth + "</a>" * depth + "<RELOC>")
    assert around(edit(text, "hv:/a, 2, 0:2")) == around(text)


# -- properties ------------------------------------------------------------------------------------------------------


def expected(dialect, old, values, state):
    """What a stock parser shall read, without vBDFs: {name: (provider, size, VM names)}."""
    new = {region.name: region for region in parse_regions(values)[0]}
    if state == "exact":
        regions = new
    elif state == "present":
        regions = {**old, **new}
    else:
        regions = {name: region for name, region in old.items() if name not in new}
    names = [vm[1] for vm in VMS]
    shown = {
        region.name: (
            TEXTS[region.provided_by],
            str(region.size),
            {ref.vm if ref.vm in names else names[int(ref.vm)] for ref in region.vms},
        )
        for region in regions.values()
    }
    return shown if dialect == "v3" else {name: each for name, each in shown.items() if each[0] == "Hypervisor"}


def seen(data, dialect):
    """What a stock parser reads, in the form of expected()."""
    if dialect == "v3":
        return {name: (each[0], each[1], set(each[3])) for name, each in (found(data, dialect) or {}).items()}
    result = {}
    enabled, texts = found(data, dialect) or ("n", [])
    assert enabled == ("y" if texts else "n")
    for text in texts:
        assert re.fullmatch(r"hv:/\w+,\s?\d+\s?,\s?\d\s?(:\s?\d\s?)+", text), "the schema of v2.4 to v2.7"
        name, size, vms = text.split(",")
        result[name.strip()[4:]] = ("Hypervisor", size.strip(), {VMS[int(vm)][1] for vm in vms.split(":")})
    return result


def declarations(st, vms, posts):
    """Lists of regions that break no rule of v2.7 and v3.3: up to five of the names a to g."""

    def region(name, dm, size, of, compact, bdf):
        of = [vm for vm in dict.fromkeys(of) if vm in posts or not dm]
        if compact:
            return f"{'dm' if dm else 'hv'}:/{name}, {size}, {':'.join(map(str, of))}" if len(of) > 1 else None
        refs = [{"name": vm, "vbdf": f"00:{bdf:02X}.0"} if bdf and vm in posts else vm for vm in of]
        provider = "device_model" if dm else "hypervisor"
        return {"name": name, "provided_by": provider, "size": size, "vms": refs} if len(of) > 1 else None

    sizes, places = st.sampled_from([2, 4, 32]), st.sampled_from([0, 0, 3, 9, 10, 30])
    of = st.lists(st.sampled_from(vms), min_size=2, max_size=4)
    rows = st.lists(st.tuples(st.booleans(), sizes, of, st.booleans(), places), max_size=5)

    def regions(rows, names):
        # No two regions are declared at one place.
        once = {row[-1] or -number: (name, *row) for number, (row, name) in enumerate(zip(rows, names), 1)}
        return [each for each in (region(*row) for row in once.values()) if each]

    return st.builds(regions, rows, st.permutations("abcdefg"))


def compact_ones(values):
    """The regions that are declared without vBDFs."""
    return [value for value in values if isinstance(value, str)]


def documents(st):
    """Scenarios of both dialects in many spellings: (bytes, encoding, dialect, {name: Region} of their regions)."""

    def document(dialect, old, place, indent, eol, comments, encoding, final):
        regions = {region.name: region for region in parse_regions(old)[0]}
        if dialect == "v2":
            regions = {name: each for name, each in regions.items() if each.provided_by == "hypervisor"}
        block = {"empty": None, "absent": "", "filled": None}[place]
        text = scenarios.scenario(dialect, block)
        if place == "filled":
            text = edit(text, *regions.values())
        else:
            regions = {}
        if comments:
            text = text.replace("<FEATURES>", "<FEATURES><!-- \u00e4 > -->").replace("</hv>", "</hv><?go on?>")
            text = text.replace("      <IVSHMEM_REGION>", "      <!-- before --><IVSHMEM_REGION>")
        text = re.sub(r"(?m)^ +", lambda lead: indent * (len(lead.group()) // 2), text)
        text = text if final else text.rstrip("\n")
        if eol == "none":
            text = re.sub(r"\n *", "", text)
        elif eol == "mixed":
            text = re.sub(r"(\n.*?)\n", "\\1\r\n", text)
        else:
            text = text.replace("\n", eol)
        declared, codec = encoding
        text = f"<?xml version='1.0'{declared}?>\n{text}" if declared else text
        return text.encode(codec), codec, dialect, regions

    # Of these codecs, utf-8-sig and utf-16 write a byte order mark.
    encodings = [
        ("", "utf-8"),
        (" encoding='UTF-8'", "utf-8-sig"),
        (" encoding='UTF-16'", "utf-16"),
        (' encoding="ISO-8859-1"', "latin-1"),
    ]
    names = [vm[1] for vm in VMS]
    return st.builds(
        document,
        st.sampled_from(["v2", "v3"]),
        declarations(st, names, scenarios.POSTS).map(compact_ones),
        st.sampled_from(["empty", "absent", "filled", "filled", "filled"]),
        st.sampled_from(["  ", "\t", "    ", " ", ""]),
        st.sampled_from(["\n", "\r\n", "mixed", "none"]),
        st.booleans(),
        st.sampled_from(encodings),
        st.booleans(),
    )


def check_edit(data, encoding, values, state, version):
    """Edit, and hold the result against: bytes outside, second edit. Returns the new bytes."""
    new = decide(data, "f", values, state, version=version).data
    before, after = data.decode(encoding), new.decode(encoding)
    if "<IVSHMEM" in before:
        assert around(after) == around(before)
    elif "<IVSHMEM" in after:
        # Taken out again, with the white space before it, the new element leaves what was there.
        assert re.sub(r"\s*<IVSHMEM>.*</IVSHMEM>", "", after, flags=re.DOTALL) == before
    assert decide(new, "f", values, state, version=version).data == new
    return new


def test_generated_documents():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    names = [vm[1] for vm in VMS]

    @hypothesis.given(
        documents(st), declarations(st, names, scenarios.POSTS), st.sampled_from(["exact", "present", "absent"])
    )
    def check(document, values, state):
        data, encoding, dialect, old = document
        if state == "present":
            # A declared vBDF may be that of a region in the file.
            values = compact_ones(values)
        new = check_edit(data, encoding, values, state, VERSION[dialect])
        assert seen(new, dialect) == expected(dialect, old, values, state)
        if new != data or state == "absent":
            removed = decide(new, "f", "abcdefg", "absent").data
            assert seen(removed, dialect) == {}
            if not old and "<IVSHMEM" in data.decode(encoding):
                assert removed == data

    check()


@pytest.mark.parametrize(("path", "dialect"), REAL)
def test_files_of_acrn(path, dialect):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    data, version = real(path)
    scenario = read_scenario(data, "f")
    usable = scenarios.sharing(scenario, version)
    if len(usable) < 2:
        pytest.skip("a single VM")
    ids = [vm.id for vm in usable]
    posts = [vm.id for vm in usable if vm.load_order == "post_launched"]

    @hypothesis.settings(max_examples=hypothesis.settings().max_examples // 10)
    @hypothesis.given(declarations(st, ids, posts), st.sampled_from(["exact", "present", "absent"]))
    def check(values, state):
        values = compact_ones(values)
        for variant in (data, data.replace(b"\n", b"\r\n"), data.rstrip()):
            new = check_edit(variant, "utf-8", values, state, version)
            hv = [region.name for region in parse_regions(values)[0] if region.provided_by == "hypervisor"]
            told = found(new, dialect)
            texts = [text.split(",")[0][4:] for text in told[1]] if dialect == "v2" else list(told)
            assert state == "absent" or set(hv) <= set(texts)
            assert state != "exact" or dialect == "v3" or hv == texts

    check()


# -- where devices go ------------------------------------------------------------------------------------------------


def test_order_of_slots():
    text = " ".join(f"{slot:02x}" for slot in SLOT_ORDER)
    assert text == "08 09 0a 0b 0c 0d 0e 0f 03 04 05 06 07 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e"


def test_regions_get_the_lowest_free_slot_in_each_vm():
    regions = ["hv:/a, 2, 0:2", "hv:/b, 2, 2:3", "dm:/c, 2, 2:3"]
    assert vbdfs(V3, *regions) == {
        "a": {"PRE0": "00:08.0", "POST2": "00:08.0"},
        "b": {"POST2": "00:09.0", "POST3": "00:08.0"},
        "c": {"POST2": "00:0a.0", "POST3": "00:09.0"},
    }


def test_slots_stay_when_regions_come_move_and_go():
    a, b, c, d = (f"hv:/{name}, 2, 0:2" for name in "abcd")
    text = edit(V3, a, b, c)
    assert edit(text, c, a, b) == text
    first = vbdfs(text, a, b, c)
    assert vbdfs(text, d, c, b, a) == {**first, "d": {"PRE0": "00:0b.0", "POST2": "00:0b.0"}}
    text = edit(text, a, c)
    assert vbdfs(text, a, c) == {"a": first["a"], "c": first["c"]}
    # A freed slot is the lowest free one.
    assert vbdfs(text, a, c, d)["d"] == first["b"]
    assert vbdfs(text, "hv:/a, 4, 0:2:3", c)["a"] == {**first["a"], "POST3": "00:08.0"}


def test_slots_of_an_earlier_file_stay():
    text = edit(V3, "hv:/a, 2, 0:2", "hv:/b, 2, 0:2")
    later = edit(text, "hv:/b, 2, 0:2")
    new = decide(V3.encode(), "f", ["hv:/c, 2, 0:2", "hv:/b, 2, 0:2"], version=V33, earlier=later.encode())
    assert [region[3]["PRE0"] for region in found(new.data, "v3").values()] == ["00:08.0", "00:09.0"]
    # The file itself comes first, and an earlier one that is not readable is as good as none.
    other = edit(V3, "hv:/b, 2, 0:2").encode()
    assert decide(text.encode(), "f", ["hv:/b, 2, 0:2"], version=V33, earlier=other).data.decode() == later
    assert decide(V3.encode(), "f", ["hv:/b, 2, 0:2"], version=V33, earlier=b"junk").data


def test_declared_slots_go_before_all_others():
    text = edit(V3, "hv:/a, 2, 0:2")
    wanted = {"name": "b", "size": 2, "vms": ["PRE0", {"name": "POST2", "vbdf": "00:08.0"}]}
    placed = vbdfs(text, "hv:/a, 2, 0:2", wanted)
    assert placed["b"]["POST2"] == "00:08.0"
    assert placed["a"]["POST2"] == "00:09.0"


def test_taken_slots_are_left_out():
    text = scenarios.scenario(
        "v3",
        hv=vuart("talk", ("PRE0", "00:09.0"), ("POST2", "00:08.0"), ("SVC", "00:0a.0")),
        more={"PRE0": pci_devs("00:08.2 Net", "01:0a.0 other bus"), "POST3": pci_devs("0000:00:08.0 Disk")},
    )
    native = [Bdf.parse(bdf) for bdf in ("00:08.0", "00:09.3", "01:0b.0")]
    scenario = read_scenario(text.encode(), "f")
    (placed,) = place_regions(scenario, parse_regions(["hv:/a, 2, 0:1:2:3"])[0], native)
    assert [str(vm.vbdf) for vm in placed.vms] == ["00:0a.0", "00:0b.0", "00:09.0", "00:09.0"]


def test_a_slot_of_the_file_that_something_else_holds_is_given_up():
    a = region_v3("a", ("PRE0", "00:08.0"), ("POST2", "00:1f.0"), ("POST3", "01:08.1"), ("SVC", "junk"))
    b = region_v3("b", ("PRE0", "00:00.0"), ("POST2", "00:02.0"))
    text = scenarios.scenario("v3", block_v3(a, b), more={"PRE0": pci_devs("00:08.0 Net")})
    assert vbdfs(text, "hv:/a, 2, 0:1:2:3", "hv:/b, 2, 0:2") == {
        "a": {"PRE0": "00:09.0", "SVC": "00:08.0", "POST2": "00:08.0", "POST3": "00:08.0"},
        "b": {"PRE0": "00:0a.0", "POST2": "00:09.0"},
    }


def test_numbers_that_the_board_only_names_come_last_in_the_service_vm():
    scenario = read_scenario(V3.encode(), "f")
    named = [Bdf(0, slot, 0) for slot in (0x08, 0x09, 0x0B)]
    (placed,) = place_regions(scenario, parse_regions(["hv:/a, 2, 0:1"])[0], named=named)
    assert [str(vm.vbdf) for vm in placed.vms] == ["00:08.0", "00:0a.0"]
    last = place_regions(scenario, parse_regions([f"hv:/r{number}, 2, 0:1" for number in range(27)])[0], named=named)
    assert [str(each.vms[1].vbdf) for each in last[-2:]] == ["00:08.0", "00:09.0"]
    # One that the file has stays.
    text = scenarios.scenario("v3", block_v3(region_v3("a", ("PRE0", "00:08.0"), ("SVC", "00:0b.0"))))
    (kept,) = place_regions(read_scenario(text.encode(), "f"), parse_regions(["hv:/a, 2, 0:1"])[0], named=named)
    assert str(kept.vms[1].vbdf) == "00:0b.0"


@pytest.mark.parametrize(
    ("version", "regions", "places"),
    [
        ((3, 3), "abc", ["00:0c.0", "00:0c.1", "00:0c.4"]),
        ((3, 2), "abc", ["00:0c.0", "00:08.0", "00:09.0"]),
        (None, "abc", ["00:0c.0", "00:08.0", "00:09.0"]),
        # Without function 0 nobody looks for the others.
        ((3, 3), "bc", ["00:08.0", "00:09.0"]),
    ],
)
def test_functions_other_than_0_stay_where_guests_find_them(version, regions, places):
    functions = {"a": "0", "b": "1", "c": "4"}
    # The others stand before function 0 in the file.
    block = [
        region_v3(name, ("SVC", f"00:0c.{functions[name]}"), ("POST2", f"00:0c.{functions[name]}")) for name in "cba"
    ]
    scenario = read_scenario(scenarios.scenario("v3", block_v3(*block)).encode(), "f")
    placed = place_regions(scenario, parse_regions([f"hv:/{name}, 2, 1:2" for name in regions])[0], version=version)
    assert [str(each.vms[0].vbdf) for each in placed] == places
    # acrn-dm has no words for them.
    assert all(each.vms[1].vbdf.function == 0 for each in placed)


@pytest.mark.parametrize(("version", "kept"), [((3, 3), "4096"), ((3, 4), "0x1000"), (None, "0x1000")])
def test_a_hexadecimal_region_id_keeps_its_bytes_where_the_schema_takes_it(version, kept):
    text = scenarios.scenario(
        "v3", block_v3(region_v3("a", ("PRE0", "00:08.0"), ("POST2", "00:08.0"), region_id="0x1000"))
    )
    for number in (None, 4096, "0x1000"):
        wanted = {"name": "a", "size": 2, "vms": [0, 2], **({} if number is None else {"region_id": number})}
        new = decide(text.encode(), "f", [wanted], version=version).data
        assert new.decode() == text.replace("0x1000", kept)
    new = decide(text.encode(), "f", [{"name": "a", "size": 2, "vms": [0, 2], "region_id": 4097}], version=version).data
    assert new.decode() == text.replace("0x1000", "4097")


def test_a_vm_without_a_free_slot():
    regions = [f"dm:/r{number}, 2, 2:3" for number in range(28)]
    assert len({vms["POST2"] for vms in vbdfs(V3, *regions).values()}) == 28
    with pytest.raises(IvshmemError, match="f: VM 'POST2' has no free PCI slot left for region 'last'; put"):
        edit(V3, *regions, "dm:/last, 2, 2:3")


def test_in_v2_only_post_launched_vms_have_a_slot():
    scenario = read_scenario(scenarios.scenario("v2").encode(), "f")
    wanted = {"name": "b", "size": 2, "vms": [0, {"id": 2, "vbdf": "00:08.0"}]}
    placed = place_regions(scenario, parse_regions(["hv:/a, 2, 0:1:2", wanted])[0])
    slots = [[vm["slot"] for vm in region.as_dict()["vms"]] for region in placed]
    assert slots == [[None, None, 30], [None, 8]]


# -- VMs -------------------------------------------------------------------------------------------------------------


def test_names_of_digits_are_ids_unless_a_vm_has_that_name():
    scenario = read_scenario(scenarios.scenario("v3", vms=((0, "3", "pre"), *VMS[1:])).encode(), "f")
    assert [scenario.vm(ref).id for ref in (0, "0", 3, "3", "POST3")] == [0, 0, 3, 0, 3]
    with pytest.raises(IvshmemError, match=r"f: has no VM '9'; its VMs are 3 \(0\), SVC \(1\)"):
        scenario.vm(9)


def test_vms_of_v22():
    text = scenarios.scenario("v2").replace("SERVICE_VM", "SOS_VM").replace("<name>POST3</name>", "<name></name>")
    vms = read_scenario(text.encode(), "f").vms
    assert [(vm.name, vm.load_order, (vm.uuid or "")[:8]) for vm in vms] == [
        ("PRE0", "pre_launched", "26c5e0d8"),
        ("SVC", "service", "dbbbd434"),
        ("POST2", "post_launched", "d2795438"),
        ("VM3", "post_launched", "615db82a"),
    ]


def test_odd_numbers_of_the_scenario_count_as_not_set():
    odd = "<CAPACITIES><MAX_EMULATED_MMIO>\u00b2</MAX_EMULATED_MMIO><MAX_VM_NUM>many</MAX_VM_NUM></CAPACITIES>"
    scenario = read_scenario(scenarios.scenario("v3", hv=odd).encode(), "f")
    assert (scenario.max_emulated_mmio, scenario.max_vm_num, scenario.hv_ram_size) == (16, 16, 0)


# -- the launch XML --------------------------------------------------------------------------------------------------


def launch(text, *regions):
    scenario = read_scenario(scenarios.scenario("v2").encode(), "f")
    placed = place_regions(scenario, parse_regions(regions)[0])
    new = render_launch(text.encode(), "launch.xml", scenario, placed)
    assert render_launch(new, "launch.xml", scenario, placed) == new
    return new.decode()


@pytest.mark.parametrize("tag", ["uos", "user_vm"])
def test_launch_xml_numbers_vms_from_the_service_vm_on(tag):
    text = scenarios.launch_xml(tag=tag)
    new = launch(text, "hv:/a, 2, 0:2", "hv:/b, 64, 2:3", "dm:/d, 2, 2:3")
    lines = re.findall(r'id="(\d)"|<shm_region>(.*?)</shm_region>', new)
    assert lines == [("1", ""), ("", "hv:/a,2"), ("", "hv:/b,64"), ("2", ""), ("", "hv:/b,64")]
    assert launch(new) == text.replace("<shm_region></shm_region>", "<shm_region/>")


@pytest.mark.parametrize("empty", ["<shm_regions/>", "<shm_regions></shm_regions>", ""])
def test_launch_xml_without_a_placeholder(empty):
    text = scenarios.launch_xml(regions=empty)
    assert launch(text, "hv:/b, 2, 0:1") == text
    new = launch(text, "hv:/b, 2, 1:3")
    assert new.count("<shm_region>hv:/b,2</shm_region>") == 1
    assert new.index('id="2"') < new.index("hv:/b,2")


@pytest.mark.parametrize("text", [scenarios.scenario("v2"), scenarios.board_xml(), "<x><uos/></x>"])
def test_no_launch_xml(text):
    with pytest.raises(IvshmemError, match=r"^launch\.xml: is no launch XML"):
        launch(text, "hv:/a, 2, 0:2")


def test_no_launch_xml_for_v3():
    with pytest.raises(IvshmemError, match=r"^l: ACRN v3\.x has no launch XML with shared memory"):
        decide(V3.encode(), "f", [], version=V33, launch=scenarios.launch_xml().encode(), launch_where="l")


# -- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"), [("3.3", V33), ("v2.7", V27), (" 3.0.2 ", (3, 0)), ("3.10", (3, 10)), ("2.7.x", V27)]
)
def test_version(text, version):
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "3", "latest", "3.x", "-3.3", "3.3-rc1", "v"])
def test_no_version(text):
    with pytest.raises(IvshmemError, match=f"acrn_version '{text}' is not a version: write it as"):
        parse_version(text)


def test_version_of_a_tree():
    assert version_of_tree("MAJOR_VERSION=3\nMINOR_VERSION=3\nEXTRA_VERSION=-unstable\n") == V33
    assert version_of_tree("# MAJOR_VERSION=3\nMINOR_VERSION=3\n") is None
    assert version_of_tree("1.2.3") is None


def of_key(*regions, **document):
    return read_scenario(
        scenarios.scenario("v3", block_v3(*regions) if regions else None, **document).encode(), "f"
    ).for_key()


A = region_v3("a", ("PRE0", "00:08.0"), ("POST2", "00:08.0"))
B = region_v3("b", ("POST2", "00:09.0"), ("POST3", "00:08.0"))
DM = region_v3("d", ("POST2", "00:0a.0"), ("POST3", "00:0a.0"), provider="Device Model")


def test_what_the_build_does_not_read_is_not_in_the_key():
    assert of_key(A, DM, B) == of_key(A, B)
    assert of_key(DM) == of_key()
    moved = B.replace("00:09.0", "00:1e.0").replace("00:08.0", "00:03.0")
    assert of_key(A, moved) == of_key(A, B)
    # Places that are chosen are those of the key, so that most files are their own.
    text = scenarios.scenario("v3", block_v3(A, B)).encode()
    assert read_scenario(text, "f").for_key() == text


def test_what_the_build_reads_is_in_the_key():
    keys = {
        of_key(A, B),
        of_key(B, A),
        of_key(A),
        of_key(A.replace("PRE0</VM_NAME>", "SVC</VM_NAME>")),
        of_key(A, B.replace("<NAME>b", "<NAME>c")),
        of_key(A.replace("00:08.0", "00:09.0", 1), B),
        of_key(A, B, vms=((0, "PRE0", "pre"), (2, "POST2", "post"), (3, "POST3", "pre"))),
    }
    assert len(keys) == 7


def test_a_build_is_of_the_file_without_regions_of_the_device_model():
    with_dm = read_scenario(scenarios.scenario("v3", block_v3(A, DM)).encode(), "f")
    assert with_dm.block.for_build() == scenarios.scenario("v3", block_v3(A)).encode()
    plain = scenarios.scenario("v3", block_v3(A)).encode()
    assert read_scenario(plain, "f").block.for_build() == plain
    old = scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2", "dm:/b, 2, 2:3")).encode()
    assert read_scenario(old, "f").block.for_build() == read_scenario(old, "f").for_key() == old
