# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map of the code and the code agree, and its rooms know of each other what the map says."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("architecture", ROOT / "script" / "lib" / "architecture.py")
architecture = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architecture)

OWN = "ansible_collections.acrn.ivshmem.plugins."
CORE = sorted((ROOT / "plugins" / "module_utils").glob("**/_*.py"))


def imports(path):
    """The modules that a file imports when it runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    left_out = {id(child) for node in checking for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Of the collection's rooms, files are imported as names.
            room = (
                node.module.startswith(OWN) and (ROOT / "plugins" / node.module[len(OWN) :].replace(".", "/")).is_dir()
            )
            yield from (f"{node.module}.{alias.name}" if room else node.module for alias in node.names)


def test_the_map_has_each_file_with_what_it_says_of_itself():
    text = architecture.PAGE.read_text(encoding="utf-8")
    assert text == architecture.page(text), "run script/architecture"
    assert all(re.search(r"\| \S.+[.:] \|$", row.strip()) for row in architecture.rows()), (
        "a file says nothing of itself"
    )


def test_each_file_that_the_map_names_is_there():
    text = architecture.PAGE.read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:_[a-z]+/)?_[a-z_]+)(?:\.py)?(?:\.[A-Za-z_]+)?`", text))
    there = {
        name
        for path in architecture.files()
        for name in (path.stem, path.parent.name, f"{path.parent.name}/{path.stem}")
    }
    assert names - there == set()


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_knows_nothing_of_ansible(path):
    wrong = [
        name
        for name in imports(path)
        if (name.startswith(OWN) and not name.startswith(f"{OWN}module_utils"))
        or re.match(r"(ansible|jinja2|yaml|lxml)(\.|$)", name)
    ]
    assert wrong == []


def test_no_circle_of_imports():
    names = {path: OWN + ".".join(path.with_suffix("").relative_to(ROOT / "plugins").parts) for path in CORE}
    graph = {name: set(imports(path)) & set(names.values()) for path, name in names.items()}
    done = set()
    while len(done) < len(graph):
        free = {name for name, needs in graph.items() if name not in done and needs <= done}
        assert free, f"these import each other: {sorted(set(graph) - done)}"
        done |= free


def test_the_range_of_releases_is_told_the_same_everywhere():
    """Texts that a release does not change by itself; whoever adds one is led to them."""
    spelt = re.compile(r"v?(\d\.\d+) to v?(3\.\d+)")
    source = (ROOT / "plugins/module_utils/_facts.py").read_text(encoding="utf-8")
    rows = re.findall(r"^    Release\(\((\d), (\d+)\)", source, re.M)
    first, last = ".".join(rows[0]), ".".join(rows[-1])
    told = [
        (str(path.relative_to(ROOT)), match.group())
        for path in [ROOT / "README.md", ROOT / "galaxy.yml", *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/meta/*.yml")]
        for match in spelt.finditer(path.read_text(encoding="utf-8"))
        if match[1] == first
    ]
    assert told, "no text tells which releases are known"
    assert [each for each in told if not each[1].endswith(last)] == []
