# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PowerShell for Windows guests, read by a parser. Nothing runs it here: that takes Windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(ROOT.glob("roles/*/files/*.ps1"))
POWERSHELL = tree_sitter.Language(tree_sitter_powershell.language())


def mistakes(source):
    """Numbers of the lines, from 1, that PowerShell would not take."""
    nodes = [tree_sitter.Parser(POWERSHELL).parse(source).root_node]
    found = []
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.is_error or node.is_missing:
            found.append(node.start_point[0] + 1)
    return sorted(found)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_it_is_powershell(path):
    source = path.read_bytes()
    assert not mistakes(source)
    assert mistakes(source[: source.rindex(b"}")]), "the parser would not see a lost brace"


def test_there_is_some():
    assert SCRIPTS
