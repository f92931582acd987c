# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _report, _report_page

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


def place(host, region):
    return f"{_report.LANDS[region['provided_by']][0]}:/{region['name']} on {host}"


def pairs(host, region, absent=()):
    """All pairs of a region of which both VMs took part."""
    names = [vm["name"] for vm in region["vms"] if vm["name"] not in absent]
    both = [(one, other) for one in names for other in names if one != other]
    return [{"region": place(host, region), "from": a, "to": b, "result": "same bytes"} for a, b in both]


def record(host, region, absent=()):
    """What the role verify keeps of a region that it looked at."""
    vms = [{"vm": vm["name"], "vm_id": vm["id"], "vbdf": vm["vbdf"]} for vm in region["vms"]]
    took_part = [vm["vm"] for vm in vms if vm["vm"] not in absent]
    more = {"size": region["size"], "region_id": region["region_id"], "vms": vms, "took_part": took_part}
    return {"region": place(host, region), **more}


def problem(host, region=None, vm="VM2"):
    where = place(host, region) if region else "-"
    more = {"what": "bytes", "expected": "a", "found": "b", "mend": "start it", "acrn_host": host}
    return {"region": where, "vm": vm, **more}


def verified(*of, problems=(), **more):
    """The report of the role verify; ``of`` are tuples of host, region, and names of VMs that did not take part."""
    return {
        "time": "noon",
        "ok": not problems,
        "pairs": [each for one in of for each in pairs(*one)],
        "regions": [record(*one) for one in of],
        "problems": list(problems),
        "doorbells": [],
        "skipped": [],
        **more,
    }


def page(hosts, verified=None, made="now", absent=()):
    verified = verified or {}
    return _report_page.render(_report_page.view(_report.hosts_of(hosts, verified), verified, made, absent))


def words(*args, **more):
    return " ".join(Reader(page(*args, **more)).texts)


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
    assert "3 machines, 3 regions. Machines: 3 not proved yet." in text
    assert "No region is declared." in text
    assert len(reader.all("th")) == 12
    assert all(each["scope"] == "col" for each in reader.all("th"))


def svg(text):
    """The one drawing of a page."""
    (found,) = re.findall(r"<svg.*?</svg>", text, re.S)
    return ElementTree.fromstring(found)


def test_the_drawing_has_an_end_for_each_vm_of_a_region():
    drawing = svg(page([host("m", FAST, LOG)]))
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
    drawing = svg(page([host("m", *every)]))
    places = [(float(t.attrib["x"]), float(t.attrib["y"])) for t in drawing.iter("text") if "slot" in t.attrib["class"]]
    assert len(set(places)) == 64
    for x, y in places:
        near = [p for p in places if p != (x, y) and abs(p[0] - x) < 60 and abs(p[1] - y) < 14]
        assert near == []
        assert x + 50 <= float(drawing.attrib["width"])


ALL = [("m", FAST), ("m", LOG)]
NEWER = {**FAST, "size": 4}


@pytest.mark.parametrize(
    ("of", "problems", "more", "state"),
    [
        ([], [], {}, "unknown"),
        (ALL, [], {}, "ok"),
        (ALL[:1], [], {}, "partly"),
        ([("m", FAST, ["VM0"]), ("m", LOG)], [], {}, "partly"),
        ([("m", FAST, ["VM0"]), ("m", LOG, ["VM3"])], [], {}, "unknown"),
        ([("m1", FAST), ("m1", LOG)], [], {}, "unknown"),
        (ALL, [problem("m", LOG)], {}, "failed"),
        (ALL, [problem("m", vm="guest")], {}, "failed"),
        (ALL, [problem("m1", vm="guest")], {}, "ok"),
        (ALL, [problem("m", NEWER)], {}, "failed"),
        ([], [], {"report_error": "no"}, "failed"),
        ([], [], {"scenario_plan": {}}, "failed"),
        (ALL, [], {"scenario_plan": {"regions": [FAST, LOG], "changed": True}}, "waiting"),
    ],
)
def test_the_state_of_a_host(of, problems, more, state):
    (found,) = _report.hosts_of([host("m", FAST, LOG, **more)], verified(*of, problems=problems))
    assert found.state == state


THREE = region("three", *((vm, "post_launched", 8) for vm in (1, 2, 3)))


def test_a_region_is_proved_only_if_all_its_vms_took_part():
    """A guest that could not be reached is a problem of the host, and its region is not green."""
    unreachable = {**problem("m", vm="guest3"), "what": "guest", "expected": "answers", "found": "ssh: no route"}
    said = verified(("m", THREE, ["VM3"]), problems=[unreachable])
    (found,) = _report.hosts_of([host("m", THREE)], said)
    told = ("1 of 3 pairs have the same bytes", "VM3 did not take part")
    assert found.proof(THREE) == _report.Proof("partly", told)
    assert found.state == "failed"
    text = words([host("m", THREE)], said)
    assert "1 machine, 1 region. Machines: 1 not as declared." in text
    assert "The proof of noon failed : 1 problem, 0 of 1 region proved." in text
    assert "The proof found: guest3: guest: expected answers, found ssh: no route; start it" in text
    # The region has a label of its own.
    assert "partly proved 1 of 3 pairs" in text


def test_a_pair_that_was_not_read_is_not_proved():
    said = verified(("m", THREE))
    del said["pairs"][0]
    (found,) = _report.hosts_of([host("m", THREE)], said)
    assert found.proof(THREE) == _report.Proof("partly", ("2 of 3 pairs have the same bytes",))


def without(**more):
    return {**THREE, "vms": [{**vm, **more} if vm["id"] == 3 else vm for vm in THREE["vms"]]}


@pytest.mark.parametrize(
    "then",
    [
        {**THREE, "size": 4},
        {**THREE, "region_id": 4096},
        {**THREE, "vms": THREE["vms"][:2]},
        without(name="VM4", id=4),
        without(vbdf="00:09.0"),
        without(id=4),
    ],
)
def test_a_proof_of_an_earlier_plan_proves_nothing(then):
    (found,) = _report.hosts_of([host("m", THREE)], verified(("m", then)))
    assert found.proof(THREE) == _report.Proof("unknown", ("the proof is of an earlier plan",))
    assert found.state == "unknown"


def test_a_proof_that_does_not_say_of_what_proves_nothing():
    (found,) = _report.hosts_of([host("m", THREE)], verified(("m", THREE), regions=[]))
    assert found.proof(THREE).state == "unknown"


@pytest.mark.parametrize("then", [without(vbdf=None), without(name="3"), without(id=None, vbdf=None)])
def test_what_a_proof_without_a_plan_did_not_know_is_no_difference(then):
    (found,) = _report.hosts_of([host("m", THREE)], verified(("m", then)))
    assert found.proof(THREE).state == "ok"


def test_what_proof_and_hypervisor_say():
    said = verified(("m", FAST), ("m", LOG), problems=[problem("m", LOG), problem("m", NEWER, "VM9")])
    said["problems"][1]["region"] = "hv:/gone on m"
    info = {"running_key": "k1", "default_key": "k2", "next": None}
    text = words([host("m", FAST, LOG, report_hypervisor=info)], said)
    for told in (
        "2 problems, 1 of 2 regions proved",
        "1 of 1 pairs have the same bytes",
        "VM2: bytes: expected a, found b; start it",
        "hv:/gone on m: VM9: bytes",
        "k1",
        "k2",
    ):
        assert told in text
    assert "next boot" not in text


def test_doorbells_and_what_was_left_out_are_told():
    bell = {"region": "hv:/fast on m", "from": "VM0", "to": "VM2", "vector": 0, "received": 1, "result": "1 of 1"}
    deaf = {**bell, "from": "VM2", "to": "VM0", "vector": None, "received": None, "result": "no vfio"}
    line = "hv:/fast on m: VM7 does not take part, so that VM0 has not read it"
    said = verified(("m", FAST), ("m1", FAST), doorbells=[bell, deaf, deaf], skipped=[line])
    one, other = _report.hosts_of([host("m", FAST), host("m1", FAST)], said)
    assert one.proof(FAST).lines[1:] == ("1 of 1 doorbells received", "no doorbell to VM0: no vfio")
    assert other.proof(FAST).lines[1:] == ()
    assert words([host("m", FAST), host("m1", FAST)], said).count(line) == 1


def test_the_verdict_is_that_of_the_proof():
    hosts = [host("m", FAST)]
    assert "There is no proof yet" in words(hosts)
    assert "Proof of noon: no problem, 1 of 1 region proved." in words(hosts, verified(("m", FAST)))
    assert "The proof of noon failed" in words(hosts, verified(("m", FAST), ok=False))


def test_problems_of_hosts_that_are_not_on_the_page_are_told():
    unknown = {**problem("", vm="stray"), "acrn_host": ""}
    text = words([host("m", FAST)], verified(("m", FAST), problems=[problem("m2", LOG), unknown]))
    assert "The proof of noon failed : 2 problems" in text
    assert "not on this page: dm:/log on m2: VM2: bytes" in text
    assert "stray: bytes" in text


def test_hosts_that_were_not_in_the_run_are_counted_and_not_shown():
    absent = [f"other{number}" for number in range(25)]
    text = words([host("m", FAST)], absent=absent)
    assert "1 machine, 1 region." in text
    assert "25 hosts not in this run: other0, " in text
    assert "other19 and 5 more." in text
    assert "1 host not in this run: m2." in words([host("m", FAST)], absent=["m2"])
    assert "No region is declared" not in text


def test_a_host_without_a_plan_is_not_said_to_have_no_regions():
    none = {"scenario_plan": {}}
    text = words([host("m", FAST), host("lost", **none), host("odd", **none, report_error="rule 7")])
    assert "There is no plan: this run has ended early" in text
    assert "rule 7" in text
    assert "0 regions" not in text
    assert "No region is declared" not in text


def test_a_host_whose_files_differ_from_the_plan_is_told():
    plan = {"regions": [FAST], "changed": True}
    text = words([host("m", scenario_plan=plan)], verified(("m", FAST)))
    assert "Machines: 1 not applied yet." in text
    assert "acrn.ivshmem.site applies it" in text


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pairs": [], "problems": 1}'])
def test_a_file_that_is_no_proof_is_named_with_the_mend(text):
    with pytest.raises(IvshmemError, match=r"^/a/verify\.json: this is no.*; give the file that acrn\.ivshmem\.verify"):
        _report.proof(text, "/a/verify.json")


@pytest.mark.parametrize("text", ["\ud800", "\udcff", "a\0b"])
def test_a_proof_with_what_no_page_can_hold_is_none(text):
    said = verified(("m", FAST), skipped=[text])
    with pytest.raises(IvshmemError, match=r"this is no report of the role verify \(skipped\[0\] holds U\+"):
        _report.proof(json.dumps(said), "/a/verify.json")


def test_a_file_that_is_a_proof():
    said = verified(("m", FAST))
    assert _report.proof(json.dumps(said), "x") == said


def test_nothing_of_an_inventory_becomes_markup():
    bad = region(HOSTILE, (2, HOSTILE, 8), (3, "x", 9))
    bad["vms"][0]["name"] = HOSTILE
    hosts = [
        host(HOSTILE, bad, acrn_board=HOSTILE, report_hypervisor={"running_key": HOSTILE}),
        host("e", report_error=HOSTILE),
    ]
    odd = [{**problem(HOSTILE, bad, HOSTILE), "what": HOSTILE, "found": HOSTILE}, problem("x" + HOSTILE, vm=HOSTILE)]
    bell = {"region": place(HOSTILE, bad), "from": HOSTILE, "to": HOSTILE, "received": None, "result": HOSTILE}
    skipped = [f"{place(HOSTILE, bad)}: {HOSTILE}"]
    said = verified((HOSTILE, bad, ["x"]), problems=odd, doorbells=[bell], skipped=skipped, time=HOSTILE)
    text = page(hosts, said, made=HOSTILE, absent=[HOSTILE])
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


def charts(text):
    return re.findall(r"^```mermaid\n(.*?)\n```$", text, re.M | re.S)


def markdown(hosts, absent=()):
    return _report.markdown(_report.hosts_of(hosts, {}), "now", absent)


def test_the_drawing_for_wikis():
    odd = region('a"<b>&#', (0, "pre_launched", None), (2, "post_launched", 8))
    (chart,) = charts(markdown([host("m", odd, LOG)]))
    lines = chart.splitlines()
    assert lines[0] == "flowchart LR"
    assert '  r0(["hv:/a#quot;#lt;b#gt;#amp;#35; · 2 MB"])' in lines
    assert "  v0 ---|by build| r0" in lines
    assert "  v3 -.-|slot 8| r1" in lines


def test_hosts_that_look_the_same_are_drawn_once():
    text = markdown([*(host(f"m{number}", FAST) for number in range(9)), host("n", LOG), host("o")], ["p"])
    assert len(charts(text)) == 2
    assert "11 machines, 10 regions. Made now." in text
    assert "## 9 machines alike\n\nm0, m1, m2" in text
    assert "## n\n" in text
    assert "## o\n\nNo region is declared." in text
    assert "1 host not in this run: p." in text


def test_mermaid_takes_every_drawing_of_a_fleet():
    """200 hosts, all of them different, and one with more than any has: Mermaid takes 500 edges and 50000 letters."""
    ends = ((2, "post_launched", 8), (3, "post_launched", 9))
    fleet = [host(f"m{n}", FAST, region(f"own{n}", *ends)) for n in range(200)]
    big = [region(f"{'r' * 24}{n:03}", *((vm, "post_launched", 8) for vm in range(16))) for n in range(40)]
    text = markdown([*fleet, host("big", *big)])
    found = charts(text)
    assert len(found) == 202
    assert all(len(re.findall(r" (?:---|-\.-)\|", chart)) <= 500 and len(chart) < 50000 for chart in found)
    assert sum(chart.count("---|") for chart in found[200:]) == 640
    assert text.count("\n```") == 2 * len(found)


def test_nothing_of_an_inventory_becomes_markdown():
    hosts = [host("a`b*c_d\n## <i>", FAST), host("e", report_error="no\n```\n[x](javascript:y) <img>")]
    text = markdown(hosts, ["<b>"])
    assert r"## a\`b\*c\_d \#\# &lt;i&gt;" in text
    assert r"- e: no \`\`\` \[x\]\(javascript:y\) &lt;img&gt;" in text
    assert "&lt;b&gt;" in text
    assert len(re.findall("^#", text, re.M)) == 3


def test_a_label_cannot_end_its_drawing():
    odd = region("x\n```\ny", (0, "pre_launched", None), (2, "post_launched", 8))
    assert markdown([host("m", odd)]).count("\n```") == 2


GOOD = {
    "pairs": [{"region": "hv:/a on h", "from": "VM0", "to": "VM1", "result": "same bytes"}],
    "problems": [{"region": "hv:/a on h", "vm": "VM0", "what": "size", "expected": "2 MB", "found": "4 MB"}],
    "regions": [
        {
            "region": "hv:/a on h",
            "size": 2,
            "region_id": None,
            "vms": [{"vm": "VM0", "vm_id": 0, "vbdf": "00:06.0"}],
            "took_part": ["VM0"],
        }
    ],
    "doorbells": [{"region": "hv:/a on h", "from": "VM0", "to": "VM1", "received": 1, "result": "1 of 1 received"}],
    "skipped": ["hv:/a on h: text"],
}


def test_a_file_that_is_no_report_is_refused_whatever_it_lacks():
    assert _report.proof(json.dumps(GOOD), "f") == GOOD
    bad = ["[" * 100000, "[]", "{}", "7"]
    for part, rows in GOOD.items():
        bad += [json.dumps({**GOOD, part: value}) for value in (None, 5, "x", {}, [None], [[]], [7])]
        for key in rows[0] if isinstance(rows[0], dict) else ():
            without = {name: value for name, value in rows[0].items() if name != key}
            bad += [json.dumps({**GOOD, part: [row]}) for row in (without, {**rows[0], key: {"x": 1}})]
    bad.append(json.dumps({**GOOD, "regions": [{**GOOD["regions"][0], "vms": [{"vm": "VM0"}]}]}))
    for text in bad:
        with pytest.raises(IvshmemError, match=r"^f: this is no"):
            _report.proof(text, "f")


def rendered(tmp_path, text, hosts, name="own.html.j2"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return _report_page.render(_report_page.view(_report.hosts_of(hosts, {}), {}, "now"), str(tmp_path / name))


OWN_HEAD = '{% extends "report.html.j2" %}{% block head %}<h1>Hall 7, {{ page.hosts[0].name }}</h1>{% endblock %}'


@pytest.mark.parametrize("name", ["own.html.j2", "report.html.j2"])
def test_a_template_of_the_user_extends_that_of_the_collection(tmp_path, name):
    text = rendered(tmp_path, OWN_HEAD, [host(HOSTILE, FAST)], name)
    reader = Reader(text)
    assert f"Hall 7, {HOSTILE}" in reader.texts
    assert len(reader.all("script")) == 1
    assert len(reader.all("svg")) == 1
    assert "Shared memory of the fleet" not in [each for each in reader.texts if "Made" in each]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, r"No such file or directory"),
        ("\n\n{% if %}", r"own\.html\.j2:3: "),
        ("{{ page.hots }}", r"own\.html\.j2: .*hots"),
        ("{% extends 'other.j2' %}", r"own\.html\.j2: there is no template other\.j2"),
        ("{{ page.hosts.__class__.__mro__ }}", r"unsafe"),
        ("{{ 1 / 0 }}", r"division by zero"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(tmp_path, text, told):
    if text is not None:
        (tmp_path / "own.html.j2").write_text(text, encoding="utf-8")
    page = _report_page.view(_report.hosts_of([host("m", FAST)], {}), {}, "now")
    with pytest.raises(IvshmemError, match=rf"^report_template: .*{told}"):
        _report_page.render(page, str(tmp_path / "own.html.j2"))
