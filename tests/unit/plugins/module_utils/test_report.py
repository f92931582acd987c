# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils import _report

FILES = Path(__file__).resolve().parents[4] / "playbooks/files"
HOSTILE = '"><script>alert(1)</script>&{x}'


def region(name, *vms, provided_by="hypervisor", size=2, region_id=None):
    ends = [
        {"id": vm, "name": f"VM{vm}", "load_order": order, "vbdf": slot and f"00:{slot:02x}.0", "slot": slot}
        for vm, order, slot in vms
    ]
    return {"name": name, "provided_by": provided_by, "size": size, "region_id": region_id, "vms": ends}


def host(name, *regions, **more):
    plan = {"acrn_version": "3.3", "regions": list(regions)}
    return {"inventory_hostname": name, "scenario_plan": plan, "acrn_board": "/b/board.xml", **more}


FAST = region("fast", (0, "pre_launched", None), (2, "post_launched", 8), region_id=4096)
LOG = region("log", (2, "post_launched", 9), (3, "post_launched", 8), provided_by="device_model", size=64)


def pair(place):
    return {"region": place, "from": "VM2", "to": "VM3", "result": "same bytes"}


def page(hosts, verified=None, made="now"):
    verified = verified or {}
    style, script = ((FILES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return _report.page(_report.hosts_of(hosts, verified), made, verified.get("time", ""), style, script)


class Reader(HTMLParser):
    """Tags, attributes and text of a page; every tag has to be closed where it belongs."""

    VOID = ("meta", "input", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_every_host_vm_and_region_is_there():
    reader = Reader(page([host("m1", FAST, LOG), host("m2", LOG), host("m3")]))
    assert [each["data-state"] for each in reader.all("details")] == ["unknown"] * 3
    assert [each["data-lands"] for each in reader.all("details")] == ["dm hv", "dm", ""]
    text = " ".join(reader.texts)
    for word in (
        "m1",
        "m2",
        "hv:/fast",
        "dm:/log",
        "64 MB",
        "4096",
        "board.xml",
        "place chosen by the build",
        "00:08.0",
    ):
        assert word in text
    assert "3 machines, 3 regions: 3 not proved yet." in text
    assert "No region is declared." in text
    assert len(reader.all("th")) == 12
    assert all(each["scope"] == "col" for each in reader.all("th"))


def test_the_drawing_has_an_end_for_each_vm_of_a_region():
    (found,) = _report.hosts_of([host("m", FAST, LOG)], {})
    drawing = ElementTree.fromstring(_report.drawing(found)).find("svg")
    assert drawing.attrib["role"] == "img"
    assert "fast (2 MB) of VM0, VM2" in drawing.find("title").text
    classes = [each.attrib["class"] for each in drawing.iter("path")]
    assert classes == ["line", "line", "line", "edge hv", "edge dm"]
    boxes = [each.attrib["class"] for each in drawing.iter("rect")]
    assert sorted(boxes) == ["region dm", "region hv", "vm post_launched", "vm post_launched", "vm pre_launched"]
    assert [each.attrib["class"] for each in drawing.iter("circle")] == ["end hv", "end hv", "end dm", "end dm"]
    assert [each.text for each in drawing.iter("text") if each.attrib["class"] == "slot"] == [
        *("by build", "slot 8", "slot 9", "slot 8"),
    ]


def test_no_label_of_a_full_drawing_lies_on_another():
    every = [region("r" * 27, *((vm, "post_launched", 8) for vm in range(8))) for _number in range(8)]
    (found,) = _report.hosts_of([host("m", *every)], {})
    drawing = ElementTree.fromstring(_report.drawing(found)).find("svg")
    places = [(float(t.attrib["x"]), float(t.attrib["y"])) for t in drawing.iter("text") if "slot" in t.attrib["class"]]
    assert len(set(places)) == 64
    for x, y in places:
        near = [p for p in places if p != (x, y) and abs(p[0] - x) < 60 and abs(p[1] - y) < 14]
        assert near == []
        assert x + 50 <= float(drawing.attrib["width"])


@pytest.mark.parametrize(
    ("pairs", "problems", "more", "state"),
    [
        ([], [], {}, "unknown"),
        (["hv:/fast on m", "dm:/log on m"], [], {}, "ok"),
        (["hv:/fast on m"], [], {}, "unknown"),
        (["hv:/fast on m1", "dm:/log on m1"], [], {}, "unknown"),
        (["hv:/fast on m", "dm:/log on m"], ["dm:/log on m"], {}, "failed"),
        ([], [], {"report_error": "no"}, "failed"),
    ],
)
def test_the_state_of_a_host(pairs, problems, more, state):
    rows = [{"region": each, "vm": "VM2", "what": "bytes", "expected": "a", "found": "b"} for each in problems]
    verified = {"pairs": [pair(each) for each in pairs], "problems": rows}
    (found,) = _report.hosts_of([host("m", FAST, LOG, **more)], verified)
    assert found.state == state


def test_what_proof_and_hypervisor_say():
    rows = [{"region": "dm:/log on m", "vm": "VM2", "what": "bytes", "expected": "a", "found": "b"}]
    verified = {"time": "noon", "pairs": [pair("hv:/fast on m")] * 2, "problems": rows}
    info = {"running_key": "k1", "default_key": "k2", "next": None}
    text = " ".join(Reader(page([host("m", FAST, LOG, report_hypervisor=info)], verified)).texts)
    for words in ("Proof of noon.", "2 pairs have the same bytes", "VM2: bytes: expected a, found b", "k1", "k2"):
        assert words in text
    assert "next boot" not in text


def test_nothing_of_an_inventory_becomes_markup():
    bad = region(HOSTILE, (2, HOSTILE, 8), (3, "x", 9))
    bad["vms"][0]["name"] = HOSTILE
    hosts = [
        host(HOSTILE, bad, acrn_board=HOSTILE, report_hypervisor={"running_key": HOSTILE}),
        host("e", report_error=HOSTILE),
    ]
    text = page(hosts, {"time": HOSTILE, "pairs": [pair(HOSTILE)], "problems": []}, made=HOSTILE)
    reader = Reader(text)
    assert len(reader.all("script")) == 1
    assert "<script>alert" not in text
    assert HOSTILE in "".join(reader.texts)
    assert not [
        name for _tag, attributes in reader.tags for name in attributes if name.startswith("on") and name != "onsubmit"
    ]


def test_nothing_comes_from_the_network():
    assert not re.search(r"https?://|//cdn|@import|url\(|src=", page([host("m", FAST)]))


def test_the_page_is_the_same_for_the_same_fleet():
    assert page([host("m", FAST, LOG)]) == page([host("m", FAST, LOG)])


def test_two_hundred_hosts_are_closed_and_small():
    text = page([host(f"m{number}", FAST, LOG) for number in range(200)])
    assert len(text) < 2_000_000
    assert not [each for each in Reader(text).all("details") if "open" in each]


def test_mermaid():
    text = _report.mermaid(_report.hosts_of([host('a"b', FAST, LOG)], {}))
    lines = text.splitlines()
    assert lines[0] == "flowchart LR"
    assert '  subgraph h0 ["a#quot;b"]' in lines
    assert "    h0v0 ---|by build| h0r0" in lines
    assert "    h0v3 -.-|slot 8| h0r1" in lines
    assert text.count("subgraph") == text.count("\n  end")
