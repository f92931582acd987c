# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the words of a shell script can be at each place, as far as its text tells.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell import (
    Array,
    Assignment,
    Opaque,
    Piece,
    Place,
    Script,
    Substitution,
    Text,
    Variable,
    Word,
)

# Stands in a value for what only a run of the script tells. A shell word cannot hold it.
UNKNOWN = "\0"
_LOCATED = re.compile(r"\s*(?:which|command -v|type -P)\s+([\w./-]+)\s*(?:2>\s*/dev/null)?\s*")
# Variables that are made of variables.
_DEEPEST = 6
_MOST = 32


def can_be(known: str, value: str) -> bool:
    """Whether what is known of a text, with UNKNOWN for the rest, can be a value."""
    return re.fullmatch(".*".join(map(re.escape, known.split(UNKNOWN))), value, re.DOTALL) is not None


def is_list(word: Word) -> bool:
    """Whether a word stands for any number of arguments: "$@" or "${array[@]}"."""
    return len(word.pieces) == 1 and _is_list(word.pieces[0])


def _is_list(piece: Piece) -> bool:
    return isinstance(piece, Variable) and (piece.name in "@*" or piece.name.endswith("[@]"))


def _is_one(word: Word) -> bool:
    """Whether a word is one argument for certain."""
    return not any(isinstance(piece, (Substitution, Opaque)) or _is_list(piece) for piece in word.pieces)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


class Values:
    """The values of a script's words. All can raise IvshmemError where to tell them would have no end."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._known: dict[tuple[Variable, Place, int], list[str]] = {}

    def of(self, word: Word, place: Place) -> list[str]:
        """All values that a word can have at a place; UNKNOWN stands for what the text does not tell."""
        return self._joined(word.pieces, place, 0)

    def _joined(self, pieces: Sequence[Piece], place: Place, depth: int) -> list[str]:
        parts = [self._piece(piece, place, depth) for piece in pieces]
        if math.prod(map(len, parts)) > _MOST:
            return [UNKNOWN]
        return _unique("".join(choice) for choice in itertools.product(*parts))

    def _piece(self, piece: Piece, place: Place, depth: int) -> list[str]:
        if isinstance(piece, Text):
            return [piece.value]
        if isinstance(piece, Variable) and depth < _DEEPEST:
            return self._variable(piece, place, depth)
        # What which prints is the same program.
        located = _LOCATED.fullmatch(piece.source) if isinstance(piece, Substitution) else None
        return [located.group(1) if located else UNKNOWN]

    def _variable(self, piece: Variable, place: Place, depth: int) -> list[str]:
        if depth > _DEEPEST:
            return [UNKNOWN]
        key = (piece, place, depth)
        if key not in self._known:
            self._known[key] = self._looked_up(piece, place, depth)
        return self._known[key]

    def _looked_up(self, piece: Variable, place: Place, depth: int) -> list[str]:
        if piece.name.isdigit():
            result = self._positional(int(piece.name), place, depth)
        else:
            result = self._assigned(piece, place, depth)
            if piece.name in self.script.unknown or self.script.clouded(piece.name, place):
                result.append(UNKNOWN)
        if piece.default is not None and any(value in ("", UNKNOWN) for value in result):
            result.append(piece.default)
        return _unique(result)

    def _assigned(self, piece: Variable, place: Place, depth: int) -> list[str]:
        """What the assignments that count at a place give a variable, in their order."""
        known = self.script.assigned(piece.name, place)
        if not known:
            return [UNKNOWN]
        function = self.script.function(place)
        own = [item for item in known if self.script.function(item.place) == function]
        others = [item for item in known if self.script.function(item.place) != function]
        is_set = any(item.place.reaches(place) and not item.append for item in own)
        calls = self.script.called(function) if function and others and not is_set else []
        result: list[str] = []
        elsewhere: list[str] = []
        if calls:
            result = [value for call in calls for value in self._variable(piece, call.place, depth + 1)]
        elif others:
            elsewhere = [value for item in others for value in self._made(item, depth)]
        elif not is_set:
            # Where no branch is taken that sets it.
            result = [""]
        for item in own:
            result = self._behind(item, result, place, depth)
        return _unique([*result, *elsewhere])

    def _behind(self, item: Assignment, before: list[str], place: Place, depth: int) -> list[str]:
        """What a variable can be behind an assignment, from what it can be before it."""
        made = self._made(item, depth)
        given = [old + new for old in before or [""] for new in made] if item.append else made
        result = given if item.place.reaches(place) else [*before, *given]
        if item.append and self.script.looped(item.place) - set(place.blocks):
            result = [*result, *(UNKNOWN + value for value in made)]
        return result

    def _made(self, item: Assignment, depth: int) -> list[str]:
        """What an assignment gives, each time that it is made."""
        return [
            value for pieces in (item.pieces, *item.others) for value in self._joined(pieces, item.place, depth + 1)
        ]

    def _positional(self, number: int, place: Place, depth: int) -> list[str]:
        """What $1 and so on can be: of a function, what its calls give it."""
        function = self.script.function(place)
        if number == 0 or self._shifted(function):
            return [UNKNOWN]
        given = self._set_here(function)
        if not given:
            calls = self.script.called(function) if function else []
            sources = [(call.words[1:], call.place) for call in calls]
        elif len(given) == 1 and not given[0].append and given[0].place.reaches(place):
            sources = [(given[0].words, given[0].place)]
        else:
            return [UNKNOWN]
        result: list[str] = []
        for words, at in sources:
            if not all(map(_is_one, words[:number])):
                return [UNKNOWN]
            result += self._joined(words[number - 1].pieces, at, depth + 1) if number <= len(words) else [""]
        return _unique(result) or [UNKNOWN]

    def _shifted(self, function: str | None) -> bool:
        return any(self.script.function(each) == function for each in self.script.shifts)

    def _set_here(self, function: str | None) -> list[Array]:
        """What ``set --`` gives a function, or the script itself."""
        return [
            each for each in self.script.arrays if each.name == "@" and self.script.function(each.place) == function
        ]

    def arrays(self, word: Word, place: Place) -> tuple[list[Array], bool]:
        """The arrays that a word like "${dm_params[@]}" or "$@" stands for: the last assignment before a place and what
        is appended to it up to there, and whether that is certain."""
        piece = word.pieces[0]
        name = piece.name if isinstance(piece, Variable) else ""
        if name.endswith("[@]"):
            same = [array for array in self.script.arrays if array.name == name[:-3]]
            return self._gathered(same, place, name[:-3] not in self.script.unknown | self.script.elements)
        function = self.script.function(place)
        same = self._set_here(function)
        if same or not function:
            return self._gathered(same, place, not self._shifted(function) and bool(same) and not same[0].append)
        # What the function is called with.
        given = [
            Array("@", False, call.words[1:], call.words[0].start, call.words[0].end, call.place)
            for call in self.script.called(function)
        ]
        return given[-1:], len(given) == 1 and not self._shifted(function)

    def _gathered(self, same: Sequence[Array], place: Place, certain: bool) -> tuple[list[Array], bool]:
        result: list[Array] = []
        for array in self.script.reaching(same, place):
            if array.append:
                result.append(array)
            else:
                certain = certain and (not result or array.place.reaches(place))
                result = [array]
        return result, certain and bool(result)
