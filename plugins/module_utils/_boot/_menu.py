# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host's own grub.cfg says, read and not run: which entries boot ACRN, and with what. No file is read here.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r]|\\\n)+)|(?P<end>[\n;])|(?P<comment>\#[^\n]*)
    |(?P<word>(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s;'"\\])+)|(?P<odd>.)""",
    re.X | re.S,
)
_PIECE = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)|([^'"\\]+)""", re.S)
# They stand before a command on its line.
_BEFORE = ("then", "else", "do", "if", "elif", "while", "until", "!")
_MULTIBOOT = ("multiboot2", "multiboot")
_MODULE = ("module2", "module")


@dataclass
class Command:
    """A command of a GRUB script: its words without quotes, variables as they are, and what it has in braces."""

    words: list[str]
    line: int
    depth: int  # how many conditions and loops it stands in
    body: list[Command] = field(default_factory=list)


def _unquoted(word: str) -> str:
    def piece(match: re.Match[str]) -> str:
        single, double, escaped, plain = match.groups()
        if double is not None:
            return re.sub(r'\\([$"\\\n])', lambda found: "" if found[1] == "\n" else found[1], double)
        return next(part for part in (single, escaped, plain) if part is not None)

    return _PIECE.sub(piece, word)


def parse(text: str) -> list[Command]:
    """The commands of a script. Text that is no script gives what can be told of it, and no error."""
    top: list[Command] = []
    blocks = [top]
    words: list[str] = []
    line, began, depth = 1, 1, 0

    def settle() -> Command | None:
        nonlocal words, depth
        while words and words[0] in _BEFORE:
            depth += words.pop(0) in ("if", "while", "until")
        if words and words[0] in ("fi", "done"):
            depth = max(0, depth - 1)
            words.pop(0)
        made = Command(words, began, depth) if words else None
        if made:
            blocks[-1].append(made)
        words = []
        return made

    for match in _TOKEN.finditer(text):
        token = match[0]
        if match.lastgroup == "word":
            if not words:
                began = line
            if token == "{" and words:  # a token of the menu, no password  # nosec B105
                opened = settle()
                if opened:
                    blocks.append(opened.body)
            elif token == "}" and not words:  # a token of the menu, no password  # nosec B105
                if len(blocks) > 1:
                    blocks.pop()
            else:
                words.append(_unquoted(token))
        elif match.lastgroup == "end":
            settle()
        line += token.count("\n")
    settle()
    return top


# ---- entries that boot ACRN ----


@dataclass(frozen=True)
class AcrnEntry:
    """A menu entry that boots ACRN: its arguments, and path, tag and further words of each module."""

    title: str
    id: str
    image: str
    arguments: tuple[str, ...]
    modules: tuple[tuple[str, str, tuple[str, ...]], ...]

    def as_dict(self) -> dict[str, Any]:
        """The entry as modules return it."""
        return {
            "title": self.title,
            "id": self.id or None,
            "image": self.image,
            "arguments": list(self.arguments),
            "modules": [{"path": path, "tag": tag, "arguments": list(more)} for path, tag, more in self.modules],
        }


def _entries(commands: Sequence[Command]) -> Iterator[Command]:
    for command in commands:
        if command.words[0] == "submenu":
            yield from _entries(command.body)
        elif command.words[0] == "menuentry":
            yield command


def _id(words: Sequence[str]) -> str:
    for option, value in zip(words, words[1:]):
        if option in ("--id", "$menuentry_id_option", "${menuentry_id_option}"):
            return value
        if option.startswith("--id="):
            return option[5:]
    return words[-1][5:] if words and words[-1].startswith("--id=") else ""


def _operands(words: Sequence[str]) -> list[str]:
    rest = list(words[1:])
    while rest and rest[0].startswith("--"):
        rest.pop(0)
    return rest


def acrn_entries(grub_cfg: str) -> list[AcrnEntry]:
    """The entries of a menu that load ACRN by multiboot, in the order of the menu."""
    found = []
    for entry in _entries(parse(grub_cfg)):
        loads = [_operands(command.words) for command in entry.body if command.words[0] in _MULTIBOOT]
        if not loads or not loads[-1] or "acrn" not in loads[-1][0].lower():
            continue
        modules = [_operands(command.words) for command in entry.body if command.words[0] in _MODULE]
        found.append(
            AcrnEntry(
                entry.words[1] if len(entry.words) > 1 else "",
                _id(entry.words),
                loads[-1][0],
                tuple(loads[-1][1:]),
                tuple((words[0], (*words, "", "")[1], tuple(words[2:])) for words in modules if words),
            )
        )
    return found


def in_use(entries: Sequence[AcrnEntry], cmdline: Sequence[str] | None) -> AcrnEntry | None:
    """The entry that booted a Service VM with this command line, or (None: ACRN does not run) the first one.

    ACRN puts the arguments of the entry behind those of the scenario, in their order.
    """
    if cmdline is None:
        return entries[0] if entries else None

    def fits(entry: AcrnEntry) -> bool:
        rest = iter(cmdline)
        return all(word in rest for word in entry.arguments if "$" not in word)

    return max((entry for entry in entries if fits(entry)), key=lambda entry: len(entry.arguments), default=None)
