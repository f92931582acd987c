# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands, assignments and arrays of a shell script, and the blocks in which they stand.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell import (
    Array,
    Assignment,
    Command,
    Piece,
    Place,
    Script,
    Text,
    Variable,
    Word,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell_words import NAME, OPERATORS, Words, merged

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^\]\s]*\])?(\+?)=")
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
_EMPTY = re.compile(r"\([ \t]*\)")
# What the shell makes several words, or others, of.
_PATTERN = re.compile(r"[*?\[{~]")
_DECLARATIONS = frozenset(("declare", "typeset", "local", "export", "readonly"))
# ${name:=value} and ${name=value}.
_DEFAULTED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*):?=")
# $((...)), $[...] and the index of an array.
_ARITHMETIC = re.compile(r"\$\(\((.*?)\)\)|\[(.*?)\]", re.DOTALL)
# Names that arithmetic changes: name = 1, name += 1, name++ and ++name; ($name is one that it reads.)
_COUNTED = re.compile(
    r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^\]]*\])?\s*(?:\+\+|--|(?:[-+*/%&|^]|<<|>>)?=(?!=))"
    r"|(?:\+\+|--)\s*([A-Za-z_][A-Za-z0-9_]*)"
)


class _Reader(Words):
    """Reads commands."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text, where)
        self.script = Script(text, where=where)
        self.blocks: list[int] = []
        self.block = 0
        self.function: str | None = None  # the one whose block is the next to be opened
        self.chain: tuple[int, ...] = ()  # a block of its own for what stands behind &&, || or |
        self.shells: set[int] = set()  # the blocks that are subshells
        self.filled = False  # whether an array is all that the command has so far
        self.numbers: set[str] = set()  # the variables whose values are worked out as arithmetic
        self.arithmetic = 0  # where the next "))" is
        self._last_lines: dict[str, int] | None = None
        self._decided: tuple[list[Word], int, Word | None] = ([], 0, None)

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
            elif char in OPERATORS:
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
        for name in self.numbers:
            given = self.script.assignments.get(name, ())
            if any(item.append or not _is_number(item.pieces) for item in given):
                self.script.unknown.add(name)
        return self.script

    def word(self) -> Word:
        """Read one word, and note what its expansion does to variables."""
        word = super().word()
        source = self.text[word.start : word.end]
        self.script.unknown.update(_DEFAULTED.findall(source))
        for inner in _ARITHMETIC.findall(source) if "[" in source or "((" in source else ():
            self.script.unknown.update(name for pair in _COUNTED.findall("".join(inner)) for name in pair if name)
        return word

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
            self.balanced("(", ")", at)
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
        self.script.unknown.update(NAME.findall(self.text, self.pos, self.arithmetic))
        self._command(words)
        self.pos = self.arithmetic + 2
        return True

    def _delimiter(self) -> str | None:
        """The word that ends a here-document, or nothing where no such line follows (1 << 2 in arithmetic)."""
        while self.pos < self.end and self.text[self.pos] in " \t":
            self.pos += 1
        if self.pos >= self.end or self.text[self.pos] in "\r\n" or self.text[self.pos] in OPERATORS:
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
        # It stands in the block that they open.
        self._reserved(before)
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
            elif self.text[self.pos] in OPERATORS:
                self.pos += 1
            else:
                words.append(self.word())
        raise self.unclosed("'('", opened)

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

    def _reserved(self, words: list[Word]) -> None:
        """Take the reserved words from the beginning of a command, and do to the blocks what they do."""
        while words and (words[0].literal or "") in _RESERVED:
            reserved = words.pop(0).literal or ""
            self._turn(_RESERVED[reserved])
            if reserved in _LOOPS:
                self.script.loops.add(self.block)

    def _command(self, words: list[Word]) -> None:
        rest = list(words)
        self._reserved(rest)
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
        while first in ("command", "builtin") and len(rest) > 1:
            rest = rest[1:]
            first = rest[0].literal
        effect = _EFFECTS.get(first or "")
        if effect:
            effect(self, rest)

    def _declares(self, rest: list[Word]) -> None:
        options = "".join(word.literal or "" for word in rest[1:] if (word.literal or "").startswith("-"))
        for word in rest[1:]:
            self._assigned(word)
            if re.match(r"-\w*n", word.literal or ""):
                self.script.opaque.append(self._place(word))  # another name for a variable
            name = NAME.match(self.text, word.start, word.end)
            if name and set("lu") & set(options):
                self.script.unknown.add(name.group())  # its value is in letters of another case
            elif name and "i" in options:
                self.numbers.add(name.group())

    def _loops(self, rest: list[Word]) -> None:
        if len(rest) < 4 or rest[2].literal != "in" or self._expands(rest[3:]):
            return self._reads(rest)
        name, place = rest[1].literal or "", self._place(rest[1])
        values = [word.pieces for word in rest[3:]]
        given = Assignment(name, False, values[0], place, tuple(values[1:]))
        self.script.assignments.setdefault(name, []).append(given)

    def _reads(self, rest: list[Word]) -> None:
        names = [word.literal.partition("[") for word in rest[1:] if word.literal]
        self.script.unknown.update(name for name, _bracket, _index in names)
        self.script.elements.update(name for name, bracket, _index in names if bracket)

    def _prints(self, rest: list[Word]) -> None:
        if len(rest) > 2 and rest[1].literal == "-v":
            self.script.unknown.add(rest[2].literal or "")

    def _counts(self, rest: list[Word]) -> None:
        self.script.unknown.update(NAME.findall(self.text[rest[0].end : rest[-1].end]))

    def _evaluates(self, rest: list[Word]) -> None:
        self.script.opaque.append(self._place(rest[0]))

    def _shifts(self, rest: list[Word]) -> None:
        self.script.shifts.append(self._place(rest[0]))

    def _expands(self, words: list[Word]) -> bool:
        """Whether words without quotes stand for others than themselves."""
        return any(
            _PATTERN.search(self.text[word.start : word.end])
            or any(not isinstance(piece, Text) for piece in word.pieces)
            for word in words
        )

    def _sets(self, rest: list[Word]) -> None:
        """``set -- ...``, which gives the script or function its arguments."""
        if len(rest) < 2:
            return
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
        assignment = Assignment(match.group(1), bool(match.group(2)), tuple(merged(pieces)), self._place(word))
        self.script.assignments.setdefault(assignment.name, []).append(assignment)


_EFFECTS: dict[str, Callable[[_Reader, list[Word]], None]] = {
    **dict.fromkeys(_DECLARATIONS, _Reader._declares),
    **dict.fromkeys(("read", "mapfile", "readarray", "getopts", "select", "unset"), _Reader._reads),
    **dict.fromkeys(("eval", "source", "."), _Reader._evaluates),
    "for": _Reader._loops,
    "printf": _Reader._prints,
    "let": _Reader._counts,
    "shift": _Reader._shifts,
    "set": _Reader._sets,
}


def _is_number(pieces: Sequence[Piece]) -> bool:
    return all(isinstance(piece, Text) and piece.value.isdigit() for piece in pieces)


def _without_frame(line: str) -> str:
    """A line without the tabs before it and the carriage return behind it."""
    return (line[:-1] if line.endswith("\r") else line).lstrip("\t")


def parse_script(text: str, where: str = "script") -> Script:
    """Read a script. Raises IvshmemError with the line where a quote or bracket stays open."""
    return _Reader(text, where).run()
