# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be looked up has its place: each rule, state, sign and column of the code is a heading of its page."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario import _rules

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
    assert headings(_rules.PAGE) == rules
    for rule in _rules.RULES:
        finding = _rules.Finding(rule.id, rule.severity, "", "text", rule.mend)
        page, _hash, anchor = finding.pointer.partition("#")
        assert str(finding).endswith(f" [{finding.pointer}]")
        assert anchor in headings(page)
        assert finding.as_dict()["doc"].endswith(f"/{page}#{anchor}")


def test_links_of_findings_are_into_the_repository_of_the_collection():
    repository = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["repository"]
    assert f"{repository}/blob/main" == _rules.REPOSITORY
