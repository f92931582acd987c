# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inputs of a few megabytes that somebody made to hold things up.

Each is read in a moment or refused in words that a person can read. There is no time in here: what is quadratic takes
minutes to days with these.
"""

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._artifact import Artifact
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder import _findings, _judge
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import ivshmem_options, parse_slot
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, parse_regions, some
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario import _request
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import parse_version, version_of_tree

SIZE = 4 * 1000 * 1000


def scenario(inner="", vms=3, hv=""):
    each = "".join(f'<vm id="{n}"><load_order>POST_LAUNCHED_VM</load_order><name>V{n}</name></vm>' for n in range(vms))
    block = f"<IVSHMEM>{inner}</IVSHMEM>" if not inner.startswith("<IVSHMEM/>") else inner
    return f"<acrn-config>\n{each}<hv>{hv}<FEATURES>{block}</FEATURES></hv></acrn-config>".encode()


def region(name, vms=("V1", "V2")):
    shared = "".join(f"<IVSHMEM_VM><VM_NAME>{vm}</VM_NAME><VBDF>00:08.0</VBDF></IVSHMEM_VM>\n" for vm in vms)
    return (
        f"<IVSHMEM_REGION>\n<NAME>{name}</NAME><IVSHMEM_SIZE>2</IVSHMEM_SIZE><IVSHMEM_VMS>{shared}</IVSHMEM_VMS>"
        "</IVSHMEM_REGION>\n"
    )


V2 = (
    '<acrn-config><vm id="0"><vm_type>POST_STD_VM</vm_type></vm><vm id="1"><vm_type>POST_STD_VM</vm_type></vm><hv>'
    "<FEATURES><IVSHMEM><IVSHMEM_ENABLED>y</IVSHMEM_ENABLED>%s</IVSHMEM></FEATURES></hv></acrn-config>"
)
ENDPOINT = "<endpoint><vm_name>V1</vm_name><vbdf>00:01.0</vbdf></endpoint>"
SCENARIOS = {
    "many VMs": (scenario(vms=10000), "10000 vm elements; 256 is the limit"),
    "many blocks": (scenario("<IVSHMEM/>" * 40000), "has 40000 IVSHMEM elements, at lines 2 and .* 39990 more; leave"),
    "many more blocks": (scenario("<IVSHMEM/>" * 300000), "more than 50000 elements"),
    "many regions": (scenario("<IVSHMEM_REGION/>" * 40000), "40000 IVSHMEM_REGION elements; 1000 is the limit"),
    "regions": (scenario("".join(region(f"r{n}") for n in range(1000))), None),
    "regions that are there twice": (scenario(region("r") * 1000), None),
    "a region of many VMs": (scenario(region("r", ["V1"] * 10000)), None),
    "a line of many VMs": ((V2 % f"<IVSHMEM_REGION>hv:/r, 2, {'0:' * 1900000}1</IVSHMEM_REGION>").encode(), None),
    "vUARTs": (
        scenario(
            vms=256,
            hv="<vuart_connections>"
            + f"<vuart_connection><type>pci</type>{ENDPOINT * 10}</vuart_connection>" * 1500
            + "</vuart_connections>",
        ),
        None,
    ),
    "a long number": (
        scenario(hv=f"<MEMORY><HV_RAM_SIZE>0x{'9' * SIZE}</HV_RAM_SIZE></MEMORY>")[-SIZE:],
        "well-formed",
    ),
    "a long ID": (scenario().replace(b'id="1"', b'id="' + b"1" * 1000000 + b'"'), "no numeric id"),
    "an ID in another script": (scenario().replace(b'id="1"', 'id="\u0661"'.encode()), "no numeric id"),
}


@pytest.mark.parametrize(("data", "told"), SCENARIOS.values(), ids=SCENARIOS)
def test_scenarios(data, told):
    wanted = [{"name": "new", "size": 2, "vms": ["V1", "V2"] if b"V1" in data else ["0", "1"]}]
    calls = [
        lambda: _request.describe(read_scenario(data, "f"), (3, 3), None),
        lambda: _request.decide(data, "f", wanted, "exact", earlier=data),
        lambda: _request.decide(data, "f", wanted, "present", (3, 3)),
        lambda: _request.decide(data, "f", ["r1"], "absent"),
    ]
    for call in calls:
        try:
            call()
        except IvshmemError as exc:
            assert len(str(exc)) < 20000
        else:
            assert told is None
    if told:
        with pytest.raises(IvshmemError, match=f"(?s)^f: .*{told}"):
            read_scenario(data, "f")


@pytest.mark.parametrize(
    "values",
    [
        [{"name": f"r{n}", "size": 3, "vms": ["nobody", "none"]} for n in range(1000)],
        [{"name": f"r{n}", "size": 2, "vms": ["V1", "V2"]} for n in range(1001)],
        [{"name": "r", "size": 2, "vms": ["V1"] * 100000}],
        ["hv:/r, 2, " + "0:" * SIZE + "1"],
        ["hv:/" + "r" * SIZE],
        [{"name": "r" * SIZE, "size": 2, "vms": ["V1", "V2"]}],
        [{"name": "r", "size": "9" * SIZE, "vms": ["V1", "V2"]}],
        [{"name": "r", "size": 2, "vms": ["V" * SIZE, "V2"]}],
        [None] * 1000,
    ],
)
def test_declarations(values):
    with pytest.raises(IvshmemError) as told:
        _request.decide(scenario(), "f", values, "exact", (3, 3))
    assert len(str(told.value)) < 20000


@pytest.mark.parametrize(
    "text", ["\n" * SIZE, "\t" * SIZE, "0" * SIZE, "0-" * 2000000, "00:01.0\n" * 400000, "0-0 : System RAM\n" * 200000]
)
def test_boards(text):
    data = f'<acrn-config board="b">\n<PCI_DEVICE>\n{text[: SIZE // 2]}</PCI_DEVICE><IOMEM_INFO>\n{text[: SIZE // 2]}'
    read_board((data + "</IOMEM_INFO></acrn-config>").encode(), "f")


def test_a_list_in_words():
    assert some([]) == ""
    assert some(range(11)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    assert some(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert some("abcdef", 2, "\n") == "a\nb\nand 4 more"


def test_no_message_is_longer_than_people_read():
    told = str(IvshmemError("a\n" * 100000 + "b" * SIZE))
    assert len(told) < 5000
    assert told.endswith("\nand 99941 more")
    assert str(IvshmemError("x" * SIZE)).endswith(f"x... ({SIZE} characters)")
    assert str(IvshmemError("a\nb")) == "a\nb"
    with pytest.raises(IvshmemError, match="1001 regions are declared; 1000 is the limit"):
        parse_regions([{}] * 1001)


def test_versions_and_numbers():
    for text in ("9" * SIZE, "3." + "9" * SIZE):
        with pytest.raises(IvshmemError) as told:
            parse_version(text)
        assert len(str(told.value)) < 5000
    assert version_of_tree(f"MAJOR_VERSION={'9' * SIZE}\nMINOR_VERSION=3\n") is None
    for text in ("9" * SIZE, "\n" * SIZE, f"0:{'9' * SIZE}"):
        with pytest.raises(IvshmemError):
            parse_slot(text)
    assert ivshmem_options(f"hv:/r,{' ' * SIZE},{'-' * SIZE}") == ("hv:/r", None, None)


@pytest.mark.parametrize(
    "line",
    [
        "a" * SIZE,
        "a." * 2000000,
        "Board  and scenario  are " * 100000,
        "ERROR:" + "." * SIZE,
        "ERROR:root:" + "Board  and scenario  are " * 100000,
        'File "' * 500000,
        "\x1b[" * 1000000,
        "\n" * 1000000,
    ],
)
def test_logs_of_a_build(line):
    assert sum(len(text) for text in _findings.telling_lines(line)) < 10000
    _findings.read_findings(line)


@pytest.mark.parametrize(
    "text",
    [
        "IVSHMEM_SHM_REGIONS " + "{" * SIZE,
        "IVSHMEM_SHM_REGIONS " + "{ .a" * 1000000,
        "IVSHMEM_SHM_REGIONS {" + " .a = " * 500000 + "}",
        "IVSHMEM_SHM_REGIONS {" + ".size = " + "9" * SIZE + "}",
        "IVSHMEM_SHM_REGIONS {.size = 0x1U, .region_id = " + "9" * 100000 + ", .name = x }",
        '#define IVSHMEM_SHM_REGION_1 "' * 100000,
        "#define" + " " * SIZE,
        "#define\n" * 500000,
    ],
)
def test_headers_of_a_build(text):
    try:
        assert _judge.read_header(text) == ()
    except IvshmemError as exc:
        assert len(str(exc)) < 20000


def test_a_manifest_that_is_nested_without_end():
    with pytest.raises(IvshmemError, match="not what hypervisor_build writes"):
        Artifact.parse('{"key": ' + "[" * 200000, b"")
