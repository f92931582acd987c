# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A view of a shell script: its commands, arrays and assignments, each with its place in the text.

This module util is PRIVATE to the collection: it can change at any time.

It is no shell: it splits a Bash or POSIX sh script into words the way the shell does (quotes, continuation lines,
comments, here-documents, substitutions) so that single words can be replaced and all other characters stay. Nothing is
run. What the text alone does not tell is kept as a piece that says so.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, Union

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


@dataclass(frozen=True)
class Text:
    """Characters that stand for themselves, quotes taken off."""

    value: str


@dataclass(frozen=True)
class Variable:
    """``$name``, ``${name}``, ``${name:-default}`` or ``${name[@]}``."""

    name: str
    default: str | None
    quoted: bool


@dataclass(frozen=True)
class Substitution:
    """``$(...)`` or backticks; ``source`` stands at offset ``start`` of the script."""

    source: str
    start: int


@dataclass(frozen=True)
class Opaque:
    """What is only known when the script runs."""

    source: str


Piece = Union[Text, Variable, Substitution, Opaque]


@dataclass(frozen=True)
class Word:
    """One word of a command, at ``text[start:end]``, quotes included."""

    start: int
    end: int
    pieces: tuple[Piece, ...]

    @property
    def literal(self) -> str | None:
        """The value, where nothing in it has to be expanded."""
        if all(isinstance(piece, Text) for piece in self.pieces):
            return "".join(piece.value for piece in self.pieces if isinstance(piece, Text))
        return None


@dataclass(frozen=True)
class Place:
    """Where something stands: its offset, and the numbers of the blocks (functions, branches, loops) around it."""

    start: int
    blocks: tuple[int, ...]

    def reaches(self, other: Place) -> bool:
        """Whether the shell, when it comes to ``other``, has been here before (loops and calls not looked at)."""
        return self.start < other.start and self.blocks == other.blocks[: len(self.blocks)]


@dataclass(frozen=True)
class Assignment:
    """``name=value`` or ``name+=value``, or the variable of a loop over words."""

    name: str
    append: bool
    pieces: tuple[Piece, ...]
    place: Place
    others: tuple[tuple[Piece, ...], ...] = ()  # what else it gives, in a loop over words


@dataclass(frozen=True)
class Array:
    """``name=( ... )`` or ``name+=( ... )``; ``inside`` is the offset behind ``(``.

    ``set -- ...`` is one with the name ``@``, and ``set -- "$@" ...`` appends to it.
    """

    name: str
    append: bool
    words: tuple[Word, ...]
    start: int
    inside: int
    place: Place


_Item = TypeVar("_Item", Assignment, Array)


@dataclass(frozen=True)
class Command:
    """A simple command without its assignments, redirections and leading reserved words."""

    words: tuple[Word, ...]
    place: Place


@dataclass
class Script:
    """All that was found in ``text``, in the order of the text."""

    text: str
    commands: list[Command] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    assignments: dict[str, list[Assignment]] = field(default_factory=dict)
    # Variables that a loop, read or the like sets to what the text does not tell.
    unknown: set[str] = field(default_factory=set)
    # Arrays of which single elements are set.
    elements: set[str] = field(default_factory=set)
    # The block of each function, by name, and the blocks that run any number of times.
    functions: dict[str, set[int]] = field(default_factory=dict)
    loops: set[int] = field(default_factory=set)
    # Where eval, or a file that is sourced, can set every variable.
    opaque: list[Place] = field(default_factory=list)
    shifts: list[Place] = field(default_factory=list)
    # Here-documents: the offset of the text and the text.
    documents: list[tuple[int, str]] = field(default_factory=list)
    where: str = "script"
    _named: set[str] = field(default_factory=set)
    _owners: dict[int, str] = field(default_factory=dict)
    _looks: int = 0

    def look(self, number: int) -> None:
        """Count what is looked at to tell a value. Raises IvshmemError where that would have no end."""
        self._looks += number
        if self._looks > LOOKS:
            raise IvshmemError(
                f"{self.where}: it uses variables, functions or acrn-dm itself so often that what acrn-dm gets cannot "
                "be told; take the part that runs acrn-dm into a script of its own"
            )

    def pieces(self) -> Iterator[Piece]:
        """What all words of commands, assignments and arrays consist of."""
        for command in self.commands:
            for word in command.words:
                yield from word.pieces
        for assignments in self.assignments.values():
            for item in assignments:
                yield from itertools.chain(item.pieces, *item.others)
        for array in self.arrays:
            for word in array.words:
                yield from word.pieces

    def function(self, place: Place) -> str | None:
        """The innermost function that holds a place."""
        if not place.blocks or not self.functions:
            return None
        if not self._owners:
            for name, blocks in reversed(self.functions.items()):
                self._owners.update(dict.fromkeys(blocks, name))
        return next((self._owners[block] for block in reversed(place.blocks) if block in self._owners), None)

    def looped(self, place: Place) -> set[int]:
        """The loops around a place."""
        return self.loops & set(place.blocks)

    def called(self, name: str) -> list[Command]:
        """The commands that call a function."""
        self.look(len(self.commands))
        return [command for command in self.commands if command.words[0].literal == name]

    def _runs(self, place: Place) -> bool:
        """Whether something ever comes to a place, as far as functions decide that."""
        function = self.function(place)
        if function is not None and not self._named:
            self._named = {word.literal or "" for each in self.commands for word in each.words}
        return function is None or function in self._named

    def assigned(self, name: str, place: Place) -> list[Assignment]:
        """The assignments that can give a variable its value at a place."""
        return self.reaching(self.assignments.get(name, []), place)

    def reaching(self, items: Iterable[_Item], place: Place) -> list[_Item]:
        """The assignments that count at a place: the last one that is always made before it, those behind that one,
        and those of loops and functions that may run in between; all of them, where there is none such."""
        given = list(items)
        self.look(len(given))
        function = self.function(place)
        every = [item for item in given if self.function(item.place) == function or self._runs(item.place)]
        certain = [item for item in every if item.place.reaches(place) and not item.append]
        if not certain or self.function(certain[-1].place) != function:
            # A function sees what its caller has set, wherever that stands.
            return every
        last = certain[-1].place
        again = self.looped(place) - set(last.blocks)

        def counts(item: _Item) -> bool:
            elsewhere = self.function(item.place) not in (None, function)
            return last.start <= item.place.start < place.start or bool(again & set(item.place.blocks)) or elsewhere

        return [item for item in every if counts(item)]

    def clouded(self, name: str, place: Place) -> bool:
        """Whether eval or a sourced file may set a variable behind its assignments that are known."""
        if not self.opaque:
            return False
        self.look(len(self.opaque))
        reached = [item.place.start for item in self.assignments.get(name, []) if item.place.reaches(place)]
        since = max(reached, default=-1)
        return any(
            item.start > since and (item.start < place.start or self.function(item) or self.looped(item))
            for item in self.opaque
            if self._runs(item)
        )

    def line(self, offset: int) -> int:
        """The line, counted from 1, of an offset."""
        return self.text.count("\n", 0, offset) + 1


# How many assignments, calls and the like are looked at to tell the values of a script.
LOOKS = 50_000
# Substitutions inside of each other, each in quotes.
DEEPEST = 50
_BLANK = " \t\r"
_OPERATORS = ";&|()<>"
_PLAIN = re.compile(r"[^ \t\r\n;&|()<>'\"\\$`]+")
_PLAIN_IN_QUOTES = re.compile(r'[^"\\$`]+')
_CONTINUATION = re.compile(r"\\\r?\n")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^\]\s]*\])?(\+?)=")
_PARAMETER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*])(\[[@*]\])?(?::?-([^${}`\"'\\]*))?")
_REDIRECTION = re.compile(r"<<<|<<-|<<|>>|>&|<&|>\||<>|<|>")
# What each reserved word does to the blocks around what follows it.
_OPEN, _NEXT, _CLOSE, _STAY = "open", "next", "close", "stay"
_RESERVED = {
    **dict.fromkeys(("if", "while", "until", "{"), _OPEN),
    **dict.fromkeys(("else", "elif"), _NEXT),
    **dict.fromkeys(("fi", "done", "esac", "}"), _CLOSE),
    **dict.fromkeys(("then", "do", "!", "time"), _STAY),
}
_OPENING = frozenset(("for", "select", "case"))
_LOOPS = frozenset(("for", "select", "while", "until"))
_BRACES = re.compile(r"\{[^{}]*(?:,|\.\.)[^{}]*\}")
_EMPTY = re.compile(r"\([ \t]*\)")
# What the shell makes several words, or others, of.
_PATTERN = re.compile(r"[*?\[{~]")
_DECLARATIONS = frozenset(("declare", "typeset", "local", "export", "readonly"))
_READERS = frozenset(("read", "mapfile", "readarray", "getopts", "select", "for", "unset"))
_EVALUATORS = frozenset(("eval", "source", "."))


class _Lexer:
    def __init__(self, text: str, where: str, base: int = 0, end: int | None = None) -> None:
        self.text = text
        self.where = where
        self.pos = base
        self.end = len(text) if end is None else end
        self.script = Script(text, where=where)
        self.blocks: list[int] = []
        self.block = 0
        self.function: str | None = None  # the one whose block is the next to be opened
        self.chain: tuple[int, ...] = ()  # a block of its own for what stands behind &&, || or |
        self.shells: set[int] = set()  # the blocks that are subshells
        self.filled = False  # whether an array is all that the command has so far
        self.depth = 0
        self.arithmetic = 0  # where the next "))" is
        self._last_lines: dict[str, int] | None = None
        self._decided: tuple[list[Word], int, Word | None] = ([], 0, None)

    def _unclosed(self, what: str, start: int) -> IvshmemError:
        return IvshmemError(
            f"{self.where}: line {self.script.line(start)}: {what} is opened and never closed; "
            "check the script with 'bash -n'"
        )

    def _find(self, what: str, start: int, name: str) -> int:
        found = self.text.find(what, self.pos, self.end)
        if found < 0:
            raise self._unclosed(name, start)
        return found

    # Words

    def word(self) -> Word:
        """The word at the position, which must not be blank."""
        start = self.pos
        pieces: list[Piece] = []
        bare = ""  # what has no quotes; anything else is an x
        while self.pos < self.end:
            char = self.text[self.pos]
            if char in _BLANK or char == "\n" or char in _OPERATORS:
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
        return Word(start, self.pos, tuple(_merged(pieces)))

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
        raise self._unclosed("a double quote", start)

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
        raise self._unclosed("a backtick", start)

    def _dollar(self, quoted: bool) -> Piece:
        start = self.pos
        following = self.text[start + 1 : min(start + 2, self.end)]
        if following == "(":
            self.pos = start + 1
            self._balanced("(", ")", start)
            if self.text.startswith("$((", start):
                return Opaque(self.text[start : self.pos])
            return Substitution(self.text[start + 2 : self.pos - 1], start + 2)
        if following == "{":
            self.pos = start + 1
            self._balanced("{", "}", start)
            inner = self.text[start + 2 : self.pos - 1]
            match = _PARAMETER.fullmatch(inner)
            if not match:
                return Opaque(inner)
            return Variable(match.group(1) + ("[@]" if match.group(2) else ""), match.group(3), quoted)
        if following == "'" and not quoted:
            # $'...': its escapes are those of C; none of the words that matter here is written so.
            self.pos = start + 2
            while self.pos < self.end and self.text[self.pos] != "'":
                self.pos += 2 if self.text[self.pos] == "\\" else 1
            if self.pos >= self.end:
                raise self._unclosed("a quote", start)
            self.pos += 1
            return Opaque(self.text[start : self.pos])
        match = _NAME.match(self.text, start + 1, self.end)
        if match:
            self.pos = match.end()
            return Variable(match.group(), None, quoted)
        if following and following in "0123456789@*#?$!-":
            self.pos = start + 2
            return Variable(following, None, quoted)
        self.pos = start + 1
        return Text("$")

    def _balanced(self, opening: str, closing: str, start: int) -> None:
        """Move behind the bracket that closes the one at the position, quoted ones not counted."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise IvshmemError(
                f"{self.where}: line {self.script.line(start)}: quotes and substitutions are over {DEEPEST} inside "
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
        raise self._unclosed(f"'{opening}'", start)

    # Commands

    def _turn(self, what: str) -> None:
        """Enter a block, the next branch of one, or leave it."""
        if what in (_NEXT, _CLOSE) and self.blocks:
            self.blocks.pop()
        if what in (_OPEN, _NEXT):
            self.block += 1
            self.blocks.append(self.block)
        self.chain = ()
        if what == _OPEN and self.function is not None:
            self.script.functions.setdefault(self.function, set()).add(self.block)
            self.function = None

    def _apart(self) -> None:
        """What comes now may not happen, or not be seen behind it."""
        self.block += 1
        self.chain = (self.block,)

    def _place(self, word: Word) -> Place:
        return Place(word.start, (*self.blocks, *self.chain))

    def blank(self) -> bool:
        """Move over one blank or continuation, if one is here."""
        if self.text[self.pos] in _BLANK:
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

    def run(self) -> Script:
        """Read everything."""
        words: list[Word] = []
        redirected = False
        documents: list[tuple[str, bool]] = []
        while self.pos < self.end:
            if self.blank() or self.comment():
                continue
            char = self.text[self.pos]
            if char == "\n":
                self.pos += 1
                self._command(words)
                words, redirected = [], False
                for ending, tabs in documents:
                    self._skip_document(ending, tabs)
                documents = []
            elif char in "<>" or (char == "&" and self.text.startswith("&>", self.pos)):
                redirected = self._redirect(words, documents) or redirected
            elif char == "(" and self._parenthesis(words):
                words = []
            elif char in _OPERATORS:
                self.pos += 1
                self._command(words)
                words, redirected = [], False
                self._operate(char)
            else:
                word = self.word()
                if redirected:
                    redirected = False
                elif not self._array(word, words):
                    words.append(word)
        self._command(words)
        return self.script

    def _redirect(self, words: list[Word], documents: list[tuple[str, bool]]) -> bool:
        """Move over a redirection. Whether the next word is what it leads to."""
        at = self.pos
        self.pos += self.text[at] == "&"
        match = _REDIRECTION.match(self.text, self.pos, self.end)
        operator = match.group() if match else ""
        self.pos += len(operator)
        if words and words[-1].end == at and (words[-1].literal or "").isdigit():
            words.pop()
        if operator in ("<", ">") and self.text.startswith("(", self.pos):
            self._balanced("(", ")", at)
            return False
        if operator not in ("<<", "<<-"):
            return True
        delimiter = self._delimiter()
        if delimiter is not None:
            documents.append((delimiter, operator == "<<-"))
        return False

    def _operate(self, char: str) -> None:
        """What an operator behind a command, or before one, does to the blocks."""
        doubled = char in "&|" and self.text.startswith(char, self.pos)
        self.pos += doubled
        if doubled or char == "|":
            self._apart()
        elif char == "(":
            self._turn(_OPEN)
            self.shells.add(self.block)
        elif char == ")" and self.blocks and self.blocks[-1] in self.shells:
            self._turn(_CLOSE)
        elif char == ";" and self.text.startswith(";", self.pos) and self.blocks:
            self._turn(_NEXT)  # the next branch of a case

    def _parenthesis(self, words: list[Word]) -> bool:
        """Move over what is no subshell: the brackets of a function's name, and arithmetic."""
        brackets = _EMPTY.match(self.text, self.pos, self.end)
        name = words[-1].literal if words else None
        if brackets and name:
            self.function = name
            self._command(words[:-1] if words[0].literal != "function" else [])
            self.pos = brackets.end()
            return True
        if not self.text.startswith("((", self.pos):
            return False
        if self.arithmetic < self.pos + 2:
            # Where none follows, it is not looked for again at each bracket.
            found = self.text.find("))", self.pos + 2, self.end)
            self.arithmetic = len(self.text) if found < 0 else found
        if self.arithmetic >= self.end:
            return False
        self.script.unknown.update(_NAME.findall(self.text, self.pos, self.arithmetic))
        self._command(words)
        self.pos = self.arithmetic + 2
        return True

    def _delimiter(self) -> str | None:
        """The word that ends a here-document, or nothing where no such line follows (1 << 2 in arithmetic)."""
        while self.pos < self.end and self.text[self.pos] in " \t":
            self.pos += 1
        if self.pos >= self.end or self.text[self.pos] in "\r\n" or self.text[self.pos] in _OPERATORS:
            return None
        literal = self.word().literal
        return literal if literal and self._last_line(literal) > self.pos else None

    def _last_line(self, content: str) -> int:
        """Where the last line begins that has this content and nothing else; -1 where there is none."""
        if self._last_lines is None:
            # Once for all delimiters: a search for each of them would make reading quadratic.
            self._last_lines, at = {}, 0
            for line in self.text[: self.end].split("\n"):
                self._last_lines[_without_frame(line)] = at
                at += len(line) + 1
        return self._last_lines.get(_without_frame(content), -1)

    def _skip_document(self, delimiter: str, tabs: bool) -> None:
        begin = self.pos
        while self.pos < self.end:
            newline = self.text.find("\n", self.pos, self.end)
            stop = self.end if newline < 0 else newline
            line = self.text[self.pos : stop].rstrip("\r")
            self.pos = min(stop + 1, self.end)
            if (line.lstrip("\t") if tabs else line) == delimiter:
                break
        self.script.documents.append((begin, self.text[begin : self.pos]))

    def _array(self, word: Word, before: list[Word]) -> bool:
        """Read ``name=( ... )``, if that is what ``word`` begins."""
        if self.pos >= self.end or self.text[self.pos] != "(":
            return False
        match = _ASSIGNMENT.fullmatch(self.text, word.start, word.end)
        if not match or not self._assigning(before):
            return False
        opened = self.pos
        self.pos += 1
        words: list[Word] = []
        while self.pos < self.end:
            if self.text[self.pos] == "\n":
                self.pos += 1
            elif self.blank() or self.comment():
                continue
            elif self.text[self.pos] == ")":
                self.script.arrays.append(
                    Array(match.group(1), bool(match.group(2)), tuple(words), word.start, opened + 1, self._place(word))
                )
                self.pos += 1
                self.filled = True
                return True
            elif self.text[self.pos] in _OPERATORS:
                self.pos += 1
            else:
                words.append(self.word())
        raise self._unclosed("'('", opened)

    def _assigning(self, before: list[Word]) -> bool:
        """Whether words that came before leave a word to be an assignment."""
        words, seen, first = self._decided
        if words is not before or seen > len(before):
            seen, first = 0, None
        # Each word is looked at once: a command may have thousands, and as many arrays.
        for word in before[seen:] if first is None else ():
            if word.literal not in _RESERVED and not _ASSIGNMENT.match(self.text, word.start, word.end):
                first = word
                break
        self._decided = (before, len(before), first)
        return first is None or first.literal in _DECLARATIONS

    def _command(self, words: list[Word]) -> None:
        rest = list(words)
        while rest and (rest[0].literal or "") in _RESERVED:
            reserved = rest.pop(0).literal or ""
            self._turn(_RESERVED[reserved])
            if reserved in _LOOPS:
                self.script.loops.add(self.block)
        given = next((at for at, word in enumerate(rest) if not self._is_assignment(word)), len(rest))
        chain = self.chain
        if given and given < len(rest):
            # They are for this command alone, whose own words do not see them. A function does.
            self._apart()
        for word in rest[:given]:
            self._assigned(word)
        self.chain = chain
        if rest[given:]:
            self._simple(rest[given:])
        if words or self.filled:
            self.chain = ()
        self.filled = False

    def _simple(self, rest: list[Word]) -> None:
        first = rest[0].literal
        if first == "function" and len(rest) > 1:
            self.function = rest[1].literal
            if rest[-1].literal == "{":
                self._turn(_OPEN)
            return
        if first in _OPENING:
            self._turn(_OPEN)
        if first in _LOOPS:
            self.script.loops.add(self.block)
        self._effects(first, rest)
        self.script.commands.append(Command(tuple(rest), self._place(rest[0])))

    def _effects(self, first: str | None, rest: list[Word]) -> None:
        """What a command does to variables."""
        script = self.script
        if first in _DECLARATIONS:
            for word in rest[1:]:
                self._assigned(word)
                if re.match(r"-\w*n", word.literal or ""):
                    script.opaque.append(self._place(word))  # another name for a variable
        elif first == "for" and len(rest) > 3 and rest[2].literal == "in" and not self._expands(rest[3:]):
            name, place = rest[1].literal or "", self._place(rest[1])
            values = [word.pieces for word in rest[3:]]
            script.assignments.setdefault(name, []).append(Assignment(name, False, values[0], place, tuple(values[1:])))
        elif first in _READERS:
            names = [word.literal.partition("[") for word in rest[1:] if word.literal]
            script.unknown.update(name for name, _bracket, _index in names)
            script.elements.update(name for name, bracket, _index in names if bracket)
        elif first == "printf" and len(rest) > 2 and rest[1].literal == "-v":
            script.unknown.add(rest[2].literal or "")
        elif first == "let":
            script.unknown.update(_NAME.findall(self.text[rest[0].end : rest[-1].end]))
        elif first in _EVALUATORS:
            script.opaque.append(self._place(rest[0]))
        elif first == "shift":
            script.shifts.append(self._place(rest[0]))
        elif first == "set" and len(rest) > 1:
            self._set(rest)

    def _expands(self, words: list[Word]) -> bool:
        """Whether words without quotes stand for others than themselves."""
        return any(
            _PATTERN.search(self.text[word.start : word.end])
            or any(not isinstance(piece, Text) for piece in word.pieces)
            for word in words
        )

    def _set(self, rest: list[Word]) -> None:
        """``set -- ...``, which gives the script or function its arguments."""
        at = next((index for index, word in enumerate(rest) if word.literal == "--"), None)
        if at is None:
            if (rest[1].literal or "x")[0] in "+-":
                return
            at = 0
        words, kept = [], False
        for word in rest[at + 1 :]:
            piece = word.pieces[0] if len(word.pieces) == 1 else None
            if isinstance(piece, Variable) and piece.name == "@":
                kept = True
            else:
                words.append(word)
        self.script.arrays.append(Array("@", kept, tuple(words), rest[0].start, rest[at].end, self._place(rest[0])))

    def _is_assignment(self, word: Word) -> bool:
        return _ASSIGNMENT.match(self.text, word.start, word.end) is not None

    def _assigned(self, word: Word) -> None:
        match = _ASSIGNMENT.match(self.text, word.start, word.end)
        if not match:
            return
        pieces = list(word.pieces)
        head = match.end() - match.start()
        if pieces and isinstance(pieces[0], Text):
            pieces[0] = Text(pieces[0].value[head:])
        if "[" in match.group():
            self.script.elements.add(match.group(1))
        assignment = Assignment(match.group(1), bool(match.group(2)), tuple(_merged(pieces)), self._place(word))
        self.script.assignments.setdefault(assignment.name, []).append(assignment)


def _without_frame(line: str) -> str:
    """A line without the tabs before it and the carriage return behind it."""
    return (line[:-1] if line.endswith("\r") else line).lstrip("\t")


def _merged(pieces: list[Piece]) -> Iterator[Piece]:
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


def parse_script(text: str, where: str = "script") -> Script:
    """Read a script. Raises IvshmemError with the line where a quote or bracket stays open."""
    return _Lexer(text, where).run()


def parse_words(text: str, start: int, end: int, where: str = "script") -> tuple[Word, ...]:
    """The words of ``text[start:end]``, with offsets into ``text``: the inside of a substitution, say."""
    lexer = _Lexer(text, where, start, end)
    words = []
    while lexer.pos < lexer.end:
        if lexer.text[lexer.pos] == "\n" or lexer.text[lexer.pos] in _OPERATORS:
            lexer.pos += 1
        elif not (lexer.blank() or lexer.comment()):
            words.append(lexer.word())
    return tuple(words)
