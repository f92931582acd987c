# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Words of a shell script: where each begins and ends, and of what pieces it is.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell import (
    Opaque,
    Piece,
    Substitution,
    Text,
    Variable,
    Word,
    line_of,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# Substitutions inside of each other, each in quotes.
DEEPEST = 50
BLANK = " \t\r"
OPERATORS = ";&|()<>"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[^ \t\r\n;&|()<>'\"\\$`]+")
_PLAIN_IN_QUOTES = re.compile(r'[^"\\$`]+')
_CONTINUATION = re.compile(r"\\\r?\n")
_PARAMETER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*])(\[[@*]\])?(?::?-([^${}`\"'\\]*))?")
_BRACES = re.compile(r"\{[^{}]*(?:,|\.\.)[^{}]*\}")


class Words:
    """A position in ``text[base:end]``, and the words that are read from there on."""

    def __init__(self, text: str, where: str, base: int = 0, end: int | None = None) -> None:
        self.text = text
        self.where = where
        self.pos = base
        self.end = len(text) if end is None else end
        self.depth = 0

    def unclosed(self, what: str, start: int) -> IvshmemError:
        return IvshmemError(
            f"{self.where}: line {line_of(self.text, start)}: {what} is opened and never closed; "
            "check the script with 'bash -n'"
        )

    def _find(self, what: str, start: int, name: str) -> int:
        found = self.text.find(what, self.pos, self.end)
        if found < 0:
            raise self.unclosed(name, start)
        return found

    def word(self) -> Word:
        """The word at the position, which must not be blank."""
        start = self.pos
        pieces: list[Piece] = []
        bare = ""  # what has no quotes; anything else is an x
        while self.pos < self.end:
            char = self.text[self.pos]
            if char in BLANK or char == "\n" or char in OPERATORS:
                break
            if char == "'":
                pieces.append(Text(self._single()))
            elif char == '"':
                self._double(pieces)
            elif char == "\\":
                pieces.append(Text(self._escaped("")))
            elif char == "$":
                pieces.append(self._dollar(quoted=False))
            elif char == "`":
                pieces.append(self._backtick())
            else:
                text = self._plain(_PLAIN)
                pieces.append(text)
                bare += text.value
                continue
            bare += "x"
        if _BRACES.search(bare):
            # Bash makes several words of it, other shells do not.
            return Word(start, self.pos, (Opaque(self.text[start : self.pos]),))
        return Word(start, self.pos, tuple(merged(pieces)))

    def _single(self) -> str:
        start = self.pos
        self.pos += 1
        close = self._find("'", start, "a single quote")
        value = self.text[self.pos : close]
        self.pos = close + 1
        return value

    def _escaped(self, only: str) -> str:
        """What a backslash and its next character stand for; inside double quotes only some are escaped."""
        match = _CONTINUATION.match(self.text, self.pos, self.end)
        if match:
            self.pos = match.end()
            return ""
        char = self.text[self.pos + 1 : min(self.pos + 2, self.end)]
        self.pos = min(self.pos + 2, self.end)
        return char if not only or char in only else "\\" + char

    def _double(self, pieces: list[Piece]) -> None:
        start = self.pos
        self.pos += 1
        while self.pos < self.end:
            char = self.text[self.pos]
            if char == '"':
                self.pos += 1
                return
            if char == "\\":
                pieces.append(Text(self._escaped('$`"\\')))
            elif char == "$":
                pieces.append(self._dollar(quoted=True))
            elif char == "`":
                pieces.append(self._backtick())
            else:
                pieces.append(self._plain(_PLAIN_IN_QUOTES))
        raise self.unclosed("a double quote", start)

    def _plain(self, pattern: re.Pattern[str]) -> Text:
        """The characters from here on that mean nothing but themselves."""
        match = pattern.match(self.text, self.pos, self.end)
        start, self.pos = self.pos, match.end() if match else self.pos + 1
        return Text(self.text[start : self.pos])

    def _backtick(self) -> Piece:
        start = self.pos
        self.pos += 1
        while self.pos < self.end:
            if self.text[self.pos] == "\\":
                self.pos += 2
                continue
            if self.text[self.pos] == "`":
                self.pos += 1
                return Substitution(self.text[start + 1 : self.pos - 1], start + 1)
            self.pos += 1
        raise self.unclosed("a backtick", start)

    def _dollar(self, quoted: bool) -> Piece:
        start = self.pos
        following = self.text[start + 1 : min(start + 2, self.end)]
        if following == "(":
            return self._substituted()
        if following == "{":
            return self._braced(quoted)
        if following == "[":
            self.pos += 1
            self.balanced("[", "]", start)
            return Opaque(self.text[start : self.pos])
        if following == "'" and not quoted:
            return self._c_quoted()
        match = NAME.match(self.text, start + 1, self.end)
        if match:
            self.pos = match.end()
            return Variable(match.group(), None, quoted)
        if following and following in "0123456789@*#?$!-":
            self.pos = start + 2
            return Variable(following, None, quoted)
        self.pos = start + 1
        return Text("$")

    def _substituted(self) -> Piece:
        """``$(...)`` or ``$((...))``."""
        start = self.pos
        self.pos += 1
        self.balanced("(", ")", start)
        if self.text.startswith("$((", start):
            return Opaque(self.text[start : self.pos])
        return Substitution(self.text[start + 2 : self.pos - 1], start + 2)

    def _braced(self, quoted: bool) -> Piece:
        """``${...}``."""
        start = self.pos
        self.pos += 1
        self.balanced("{", "}", start)
        inner = self.text[start + 2 : self.pos - 1]
        match = _PARAMETER.fullmatch(inner)
        if not match:
            return Opaque(inner)
        return Variable(match.group(1) + ("[@]" if match.group(2) else ""), match.group(3), quoted)

    def _c_quoted(self) -> Piece:
        """``$'...'``: its escapes are those of C; none of the words that matter here is written so."""
        start = self.pos
        self.pos += 2
        while self.pos < self.end and self.text[self.pos] != "'":
            self.pos += 2 if self.text[self.pos] == "\\" else 1
        if self.pos >= self.end:
            raise self.unclosed("a quote", start)
        self.pos += 1
        return Opaque(self.text[start : self.pos])

    def balanced(self, opening: str, closing: str, start: int) -> None:
        """Move behind the bracket that closes the one at the position, quoted ones not counted."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise IvshmemError(
                f"{self.where}: line {line_of(self.text, start)}: quotes and substitutions are over {DEEPEST} inside "
                "of each other, which no launch script needs; write it plainer"
            )
        self._to_the_end(opening, closing, start)
        self.depth -= 1

    def _to_the_end(self, opening: str, closing: str, start: int) -> None:
        depth = 0
        while self.pos < self.end:
            char = self.text[self.pos]
            if char == "\\":
                self.pos += 2
                continue
            if char == "'":
                self._single()
                continue
            if char == '"':
                self._double([])
                continue
            if char == "#" and opening == "(" and self.text[self.pos - 1] in " \t\n;":
                self.comment()
                continue
            self.pos += 1
            if char == opening:
                depth += 1
            elif char == closing:
                depth -= 1
                if depth == 0:
                    return
        raise self.unclosed(f"'{opening}'", start)

    def blank(self) -> bool:
        """Move over one blank or continuation, if one is here."""
        if self.text[self.pos] in BLANK:
            self.pos += 1
            return True
        match = _CONTINUATION.match(self.text, self.pos, self.end)
        if match:
            self.pos = match.end()
        return bool(match)

    def comment(self) -> bool:
        """Move to the end of the line, if a comment starts here."""
        if self.text[self.pos] != "#":
            return False
        newline = self.text.find("\n", self.pos, self.end)
        self.pos = self.end if newline < 0 else newline
        return True


def merged(pieces: list[Piece]) -> Iterator[Piece]:
    """The pieces with neighbouring texts made one."""
    text = ""
    for piece in pieces:
        if isinstance(piece, Text):
            text += piece.value
            continue
        if text:
            yield Text(text)
            text = ""
        yield piece
    if text:
        yield Text(text)


def parse_words(text: str, start: int, end: int, where: str = "script") -> tuple[Word, ...]:
    """The words of ``text[start:end]``, with offsets into ``text``: the inside of a substitution, say."""
    reader = Words(text, where, start, end)
    words = []
    while reader.pos < reader.end:
        if reader.text[reader.pos] == "\n" or reader.text[reader.pos] in OPERATORS:
            reader.pos += 1
        elif not (reader.blank() or reader.comment()):
            words.append(reader.word())
    return tuple(words)
