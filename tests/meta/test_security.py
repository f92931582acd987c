# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SECURITY.md names a test for each of its statements about attackers, and the test is there."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def rows(text):
    """Name -> who shows it, of the table whose last column says so."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.endswith("| Shown by |"))
    found = {}
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :]):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found[cells[0]] = cells[-1]
    return found


def wrong(text):
    """What a text names and the project has not: files of tests, and functions of the file named before them."""
    problems, file = [], None
    for name in re.findall(r"`([^`\s]+)`", text):
        if name.endswith(".py"):
            paths = [ROOT / name] if "/" in name else sorted((ROOT / "tests").glob(f"**/{name}"))
            file = paths[0] if len(paths) == 1 and paths[0].is_file() else None
            if file is None:
                problems.append(f"{name}: not one file")
        elif name.startswith("test_"):
            tree = ast.parse(file.read_text(encoding="utf-8")) if file else ast.Module([], [])
            if not any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
                problems.append(f"{name}: not in {file.name if file else 'a file'}")
    return problems


@pytest.mark.parametrize("attacker", rows(TEXT))
def test_what_an_attacker_cannot_do_is_shown(attacker):
    shown = rows(TEXT)[attacker]
    assert re.search(r"`[^`]*test_\w+\.py`", shown), "no test is named"
    assert wrong(shown) == []


def test_all_that_is_named_is_there():
    assert wrong(TEXT) == []


def test_what_is_not_there_is_found():
    assert wrong("`test_door.py` (`test_nothing_at_all`), `tests/unit/test_gone.py`, `test_security.py`") == [
        "test_nothing_at_all: not in test_door.py",
        "tests/unit/test_gone.py: not one file",
    ]
    assert rows("| A | Shown by |\n|---|---|\n| x | `test_a.py` |\n\n| other | table |") == {"x": "`test_a.py`"}
