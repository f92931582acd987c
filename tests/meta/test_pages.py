# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be looked up has its place: each rule, state, sign and column of the code is a heading of its page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import yaml

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _probe
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario import _rule, _rules
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import (
    _plan,
    _report,
    _report_page,
    _verdict,
    _verify,
    _waiting,
)

ROOT = Path(__file__).resolve().parents[2]


def headings(page, under=""):
    """The anchors of a page, or of one of its sections, as GitHub and the documentation site make them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^```.*?^```$", "", text)
    if under:
        (text,) = re.findall(rf"(?ms)^## {re.escape(under)}\n(.*?)(?=^## |\Z)", text)
    found = re.findall(r"(?m)^##+ +(.+?) *$", text)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found]


def test_each_rule_is_explained_where_its_messages_point_to():
    rules = [rule.id for rule in _rules.RULES]
    assert headings(_rule.PAGE) == rules
    for rule in _rules.RULES:
        finding = _rule.Finding(rule.id, rule.severity, "", "text", rule.mend)
        page, _hash, anchor = finding.pointer.partition("#")
        assert str(finding).endswith(f" [{finding.pointer}]")
        assert anchor in headings(page)
        assert finding.as_dict()["doc"].endswith(f"/{page}#{anchor}")


def test_links_of_findings_are_into_the_repository_of_the_collection():
    repository = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["repository"]
    assert f"{repository}/blob/main" == _rule.REPOSITORY


def test_each_state_of_those_who_wait_has_its_place():
    assert headings("docs/waiting.md", "States") == list(_waiting.STATES)


def words_of_waiting():
    """What stands in the column WAITS: the state and the pieces of its text, as the code has them."""
    names = {name for name, value in vars(_waiting).items() if name.isupper() and value in _waiting.STATES}
    for node in ast.walk(ast.parse(Path(_waiting.__file__).read_text(encoding="utf-8"))):
        parts = node.elts if isinstance(node, ast.Tuple) else node.args if isinstance(node, ast.Call) else []
        for state, what in zip(parts, parts[1:]):
            if isinstance(state, ast.Name) and state.id in names and isinstance(what, (ast.Constant, ast.JoinedStr)):
                yield getattr(_waiting, state.id), pieces(what)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "what":
            for value in (node.value.body, node.value.orelse) if isinstance(node.value, ast.IfExp) else [node.value]:
                yield "", pieces(value)


def pieces(node):
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return [part.value.strip() for part in parts if isinstance(part, ast.Constant)]


def test_what_is_told_of_those_who_wait_is_explained_under_their_state():
    text = (ROOT / "docs/waiting.md").read_text(encoding="utf-8")
    found = list(words_of_waiting())
    assert {state for state, _pieces in found if state} >= {*_waiting.STATES} - {"built", "unlaunched"}
    for state, told in found:
        section = re.search(rf"(?ms)^### {state}\n(.*?)(?=^##)", text)[1] if state else text
        assert [piece for piece in told if piece not in section] == [], state


def test_each_state_and_column_of_a_proof_has_its_place():
    assert headings("docs/proof.md", "States") == list(_verdict.STATES)
    problem = _verdict.Problem("hv:/a on h", "A", "size", "2 MB", "4 MB", "g", "h")
    columns = _verdict.table([problem])[0].split()
    assert headings("docs/proof.md", "The table of problems") == [column.lower() for column in columns]
    text = (ROOT / "docs/proof.md").read_text(encoding="utf-8")
    whats = {*(what.split()[0] for what in _verdict.MENDS), *_probe.STEPS, *_verify.STAGES, _verdict.PUT_BACK}
    assert [what for what in sorted(whats) if f"`{what}`" not in text] == []


def test_each_state_and_column_of_a_report_has_its_place():
    assert headings("docs/report.md", "States") == list(_report.STATES)
    text = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    assert [words for words in _report.STATES.values() if f"\n`{words}`: " not in text] == []
    template = (ROOT / _report_page.TEMPLATE).read_text(encoding="utf-8")
    columns = re.findall(r'"([^"]+)"', re.search(r"for title in \((.*?)\)", template)[1])
    assert headings("docs/report.md", "Columns") == [column.lower().replace(" ", "-") for column in columns]


def test_each_sign_and_word_of_a_plan_has_its_place():
    signs = headings("docs/plan.md", "Signs")
    assert signs[:5] == [str(change or "null") for change in ("add", "remove", "change", "keep", None)]
    assert {str(change or "null") for change in _plan.MARKS} == set(signs[:5])
    # What happens to devices and memory is told behind a "!".
    told = [
        {"region": "r", "vm": "A", "old": 1, "new": 2, "path": "p", "change": change}
        for change in ("remove", "move", "resize", "drop")
    ]
    assert {line.split()[0].removesuffix("s") for line in _plan._lost(told)} == {"remove", *signs[5:]}
    assert {line for each in told for line in _plan._lost([{**each, "change": "another"}])} == set()

    text = (ROOT / "docs/plan.md").read_text(encoding="utf-8")
    for change, mark in _plan.MARKS.items():
        assert f"\n### {change or 'null'}\n\n`{mark}`: " in text
    assert {words for words in _plan.LEGEND if len(words) > 1} <= {
        heading.replace("-", " ") for heading in headings("docs/plan.md", "Other words")
    }
    builds = [None, *({"needed": needed, "key": key} for needed in (True, False) for key in ("k", None))]
    hypervisors = [
        {"reboot_needed": needed, "rebooted_by_site": by} for needed in (True, False, None) for by in (True, False)
    ]
    lines = {
        re.sub(r" \(.*?\)", "", _plan._hypervisor({"build": build, "hypervisor": hypervisor}))
        for build in builds
        for hypervisor in hypervisors
    }
    words = {part for line in lines for part in line.split(", ")}
    assert {heading.replace("-", " ") for heading in headings("docs/plan.md", "Hypervisor")} == words
    vms = _plan._vms({"vms": {"restarted": ["A"], "started": ["A"], "outdated": ["A"]}})
    nothing = _plan._vms({"vms": {"restarted": [], "started": [], "outdated": []}})
    words = {part.rpartition(" ")[0] for part in vms.split("; ")} | {nothing}
    assert {heading.replace("-", " ") for heading in headings("docs/plan.md", "VMs that start")} == words


def test_each_number_of_the_summary_of_a_plan_is_explained():
    text = (ROOT / "docs/plan.md").read_text(encoding="utf-8")
    section = re.search(r"(?ms)^## Summary\n(.*?)^## ", text)[1]
    keys = [key for row in re.findall(r"(?m)^\| (`.*?) \|", section) for key in re.findall(r"`(\w+)`", row)]
    assert keys == list(_plan.summary([], []))
    assert {name for name, _words in _plan.SENTENCE} | {"hosts"} == set(keys)


def test_what_a_build_needs_is_the_same_in_the_readme_and_among_the_facts():
    tables = [
        re.findall(r"(?m)^\| ACRN \| Python \|.*\n(?:\|.*\n)+", (ROOT / page).read_text(encoding="utf-8"))
        for page in ("README.md", "docs/acrn.md")
    ]
    assert len(tables[0]) == 1
    assert tables[0] == tables[1]
