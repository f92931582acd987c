# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that a shell reads: a value in it is quoted, or a comment above the task says why that one needs no quotes.

The comment is ``# unquoted: EXPRESSION: reason``, with the expression as it stands between the braces.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("roles/*/tasks", "roles/*/handlers", "playbooks")
FILES = sorted(path for place in PLACES for path in ROOT.glob(f"{place}/**/*.yml"))

# The last one of each stands in the arguments of a module that another one runs.
SHELLS = re.compile(r"(ansible\.builtin\.)?(shell|raw)|_raw_params")
# As one string it is cut into words, like a shell's.
COMMANDS = re.compile(r"(ansible\.builtin\.)?(command|script)|cmd")
QUOTED = re.compile(r"\|\s*(map\('(ansible\.builtin\.)?quote'\)\s*\|\s*join\(' '\)|(ansible\.builtin\.)?quote)\s*$")
# A file of this collection, named in the task itself.
OWN_FILE = re.compile(r"lookup\('ansible\.builtin\.file', '[\w.]+'\)")


def values(text):
    """What stands between double braces."""
    return [" ".join(value.split()) for value in re.findall(r"\{\{-?(.*?)-?\}\}", text, re.S)]


def texts(node):
    """Every text of a YAML node that a shell, or something like it, will read, with its line."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from texts(item)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        shell, command = SHELLS.fullmatch(key.value or ""), COMMANDS.fullmatch(key.value or "")
        if isinstance(value, yaml.ScalarNode) and (shell or command):
            yield key.start_mark.line, value.value
        elif isinstance(value, yaml.MappingNode) and (shell or command):
            for name, option in value.value:
                if name.value in (("cmd", "_raw_params") if shell else ("cmd",)):
                    yield key.start_mark.line, option.value
        else:
            yield from texts(value)


def findings(source):
    """Values of a file of tasks that are neither quoted nor excused: line and expression."""
    lines = source.splitlines()
    found = []
    for line, text in texts(yaml.compose(source, Loader=yaml.SafeLoader)):
        start = line
        while start and not re.match(r"\s*- ", lines[start]):
            start -= 1
        while start and lines[start - 1].strip().startswith("#"):
            start -= 1
        excuses = [found.group(1) for found in re.finditer(r"# unquoted: (.+?): ", "\n".join(lines[start : line + 1]))]
        for value in values(text):
            if not (QUOTED.search(value) or OWN_FILE.fullmatch(value) or value in excuses):
                found.append((line + 1, value))
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_values_in_text_for_a_shell_are_quoted(path):
    assert findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ("- ansible.builtin.shell: ls {{ place }}", [(1, "place")]),
        ("- shell: {cmd: 'ls {{ place }}'}", [(1, "place")]),
        ("- block:\n    - raw: |\n        ls {{ place | default('x') }}", [(2, "place | default('x')")]),
        ("- ansible.builtin.command: ls {{ place }}", [(1, "place")]),
        ("- ansible.builtin.command:\n    cmd: ls {{ place }}", [(1, "place")]),
        ("- tasks:\n    - shell: ls {{ place | quote | upper }}", [(2, "place | quote | upper")]),
        ("- shell: ls {{ place | ansible.builtin.quote }}", []),
        ("- shell: ls {{ places | map('ansible.builtin.quote') | join(' ') }}", []),
        ("- acrn.ivshmem.guarded: {module: raw, args: {_raw_params: 'ls {{ place }}'}}", [(1, "place")]),
        ("- acrn.ivshmem.guarded: {module: command, args: {cmd: 'ls {{ place }}'}}", [(1, "place")]),
        ("- ansible.builtin.command: {argv: [ls, '{{ place }}']}", []),
        ("# unquoted: place: it is a number\n- shell: ls {{ place }}", []),
        ("# unquoted: place: it is a number\n- shell: ls {{ place }} {{ other }}", [(2, "other")]),
        ("# unquoted: place: it is a number\n- shell: ls\n- shell: ls {{ place }}", [(3, "place")]),
    ],
)
def test_the_scan_finds_what_it_is_for(task, found):
    assert findings(task) == found
