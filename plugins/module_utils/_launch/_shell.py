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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, Union

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# How many assignments, calls and the like are looked at to tell the values of a script.
LOOKS = 50_000


def line_of(text: str, offset: int) -> int:
    """The line, counted from 1, of an offset."""
    return text.count("\n", 0, offset) + 1


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
    _named: set[str | None] | None = None  # the words of commands; None among them where one is not known
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
        if function is None:
            return True
        if self._named is None:
            self._named = {word.literal or "" for each in self.commands for word in each.words}
            self._named |= {each.words[0].literal for each in self.commands}
        # A command of which only a run tells what it is can be any function: $step, or start_$vm.
        return bool({function, None} & self._named)

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
        return line_of(self.text, offset)
