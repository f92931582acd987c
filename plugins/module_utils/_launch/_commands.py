# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a script runs acrn-dm, and where it may do so in a way that cannot be read.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell import (
    Array,
    Command,
    Place,
    Substitution,
    Variable,
    Word,
    line_of,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell_reader import parse_script
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._values import UNKNOWN, Values, is_list
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# Commands that run another one, which stands among their arguments.
_WRAPPER_NAMES = """exec sudo doas env nohup command builtin nice ionice chrt taskset numactl setsid stdbuf unbuffer
    systemd-run timeout strace gdb flock prlimit setpriv cgexec unshare"""
_WRAPPERS = frozenset(_WRAPPER_NAMES.split())
_WRAPPED = re.compile(r"[-/]|[0-9]|[A-Za-z_][A-Za-z0-9_]*=")
# Commands that name acrn-dm, or show a call of it, and run none.
_MENTION_NAMES = """pkill killall pgrep pidof kill which echo printf logger ls cat ps grep egrep fgrep test [ [[ type
    hash rm cp mv ln chmod chown install touch stat file readlink realpath dirname basename md5sum sha256sum sed awk cut
    tr head tail tee wc sort diff cmp dpkg apt apt-get rpm dnf local export declare typeset readonly modprobe cd exit
    return fuser lsof setcap getcap wait sleep true false : case for select unset"""
_MENTIONS = frozenset(_MENTION_NAMES.split())
# Commands that run a text as a script, or a command with words of their own.
_SHELL_NAMES = "sh bash dash ash ksh zsh busybox su runuser ssh source . eval at batch"
_SHELLS = frozenset(_SHELL_NAMES.split())
_RUNNER_NAMES = "trap alias xargs parallel find watch script screen tmux start-stop-daemon"
_RUNNERS = frozenset(_RUNNER_NAMES.split()) | _SHELLS
# Interpreters whose scripts are read otherwise than a shell reads them.
_FOREIGN = re.compile(
    "python|pypy|perl|ruby|lua|node|php|tcl|wish|expect|[gmn]?awk|make|pwsh|fish|t?csh|rc$|xonsh|elvish|nu$|"
    "Rscript|julia|guile|groovy|ansible"
)
_NAMED = re.compile(r"(?:^|[\s/;&|('\"=])acrn-dm(?:[-._][\w.-]*)?(?=$|[\s;&|)'\"])")
_QUESTIONS = frozenset(("-v", "--version", "-h", "--help"))
_BINARY = re.compile(r"acrn-dm(?:[-._][\w.-]*)?")
# Calls within substitutions within each other that are looked into; deeper ones count as calls.
_DEEPEST = 8


@dataclass(frozen=True)
class Run:
    """A command that runs acrn-dm: the index of that word, and the arrays that it stands for, if it is not acrn-dm
    itself."""

    command: Command
    index: int
    arrays: Sequence[Array]

    @property
    def binary(self) -> Word:
        return _named(self.command.words[self.index], self.arrays)


def _named(word: Word, arrays: Sequence[Array]) -> Word:
    return arrays[0].words[0] if arrays and arrays[0].words else word


class Commands:
    """The commands of a script: ``runs`` of acrn-dm, and ``hidden``, the line and words of what may be one.

    Raises IvshmemError where quotes or brackets stay open.
    """

    def __init__(self, text: str, where: str, depth: int = 0) -> None:
        self.text = text
        self.where = where
        self.depth = depth
        self.runs: list[Run] = []
        self.hidden: list[tuple[int, str]] = []
        self._passing: dict[str, bool] = {}
        foreign = _is_foreign(text)
        self.script = parse_script("" if foreign else text, where)
        self.values = Values(self.script)
        for match in _NAMED.finditer(text) if foreign else ():
            line = line_of(text, match.end())
            self._hide(line, text.splitlines()[line - 1])
        for command in self.script.commands:
            found = self._run(command)
            if found is not None:
                self.runs.append(found)
            elif self._hides(command):
                first, last = command.words[0], command.words[-1]
                self._hide(self.script.line(first.start), text[first.start : last.end])
        self._look_into_texts()

    def _hide(self, line: int, source: str) -> None:
        text = " ".join(source.split())
        self.hidden.append((line, text if len(text) < 70 else text[:66] + " ..."))

    def _run(self, command: Command) -> Run | None:
        """The run of acrn-dm that a command is, if it does not merely mention it."""
        before = ""
        for index, word in enumerate(command.words):
            arrays = self.values.arrays(word, command.place)[0] if is_list(word) else []
            names = self._names(_named(word, arrays), command.place)
            if any(_BINARY.fullmatch(name) for name in names):
                asks = {argument.literal for argument in command.words[index + 1 :]} & _QUESTIONS
                located = command.words[0].literal == "command" and before in ("-v", "-V")
                return None if asks or located else Run(command, index, arrays)
            if not _leads_on(word, names, before, index == 0):
                return None
            before = names[0]
        return None

    def _names(self, word: Word, place: Place) -> list[str]:
        return [_base(value) for value in self.values.of(word, place)]

    def _hides(self, command: Command) -> bool:
        """Whether a command that is no run of acrn-dm may be one: by xargs, by a shell with a text, by a name in a
        variable, or by a function of the script."""
        values = [self.values.of(word, command.place) for word in command.words]
        first = _wrapped([_base(each[0]) for each in values])
        if _mentions(first, values):
            return False
        if any(map(_NAMED.search, values[0])) and any(" " in value for value in values[0]):
            return True
        rest = [value for each in values[1:] for value in each]
        for word in filter(is_list, command.words[1:]):
            arrays, _certain = self.values.arrays(word, command.place)
            rest += [value for array in arrays for each in array.words for value in self.values.of(each, array.place)]
        named = any(map(_NAMED.search, [*values[0], *rest]))
        if first in self.script.functions:
            return named and self._passes_on(first)
        if first in _RUNNERS:
            return named
        if any(_BINARY.fullmatch(_base(value)) for value in rest):
            return True
        return UNKNOWN in values[0][0] and any(",ivshmem," in value for value in rest)

    def _passes_on(self, function: str) -> bool:
        """Whether a function runs what it is given."""
        if function not in self._passing:
            self.script.look(len(self.script.commands))
            blocks = self.script.functions[function]
            own = (command for command in self.script.commands if blocks & set(command.place.blocks))
            self._passing[function] = any(map(self._runs_arguments, own))
        return self._passing[function]

    def _runs_arguments(self, command: Command) -> bool:
        pieces = [word.pieces[0] for word in command.words if word.pieces]
        given = any(isinstance(each, Variable) and each.name in ("@", "*", "1") for each in pieces)
        lead = command.words[0].literal
        return given and (lead is None or lead in _WRAPPERS or lead in _RUNNERS or lead in self.script.functions)

    def _look_into_texts(self) -> None:
        """Runs in command substitutions, and in here-documents where something can run them."""
        for piece in self.script.pieces():
            if isinstance(piece, Substitution) and self._has_run(piece.source):
                self._hide(self.script.line(piece.start), piece.source)
        if not any(_base(command.words[0].literal or "") in _SHELLS for command in self.script.commands):
            return
        for start, text in self.script.documents:
            named = _NAMED.search(text)
            if named and self._has_run(text):
                self._hide(self.script.line(start + named.start()), text[named.start() :].splitlines()[0])

    def _has_run(self, text: str) -> bool:
        if not _NAMED.search(text):
            return False
        if self.depth >= _DEEPEST:
            return True
        try:
            inner = Commands(text, self.where, self.depth + 1)
        except IvshmemError:
            return True
        return bool(inner.runs or inner.hidden)


def _base(value: str) -> str:
    return value.rpartition("/")[2]


def _leads_on(word: Word, names: Sequence[str], before: str, first: bool) -> bool:
    """Whether acrn-dm may stand behind a word: behind sudo and the like, their options, values of these, and
    assignments."""
    if all(name.partition(" ")[0] in _WRAPPERS or not name for name in names):
        return True
    if first or names[0] in _MENTIONS:
        return False
    return before.startswith("-") or _WRAPPED.match(word.literal or "") is not None


def _wrapped(names: Sequence[str]) -> str:
    """The program that a command runs, behind sudo and the like."""
    if names[0] not in _WRAPPERS:
        return names[0]
    return next((name for name in names if not (name in _WRAPPERS or _WRAPPED.match(name))), names[0])


def _mentions(first: str, values: Sequence[Sequence[str]]) -> bool:
    """Whether a command can name acrn-dm without running it."""
    names = [_base(each[0]) for each in values]
    asks = len(values) > 1 and values[-1][-1] in _QUESTIONS
    return first in _MENTIONS or asks or (names[0] == "command" and bool({"-v", "-V"} & set(names)))


def _is_foreign(text: str) -> bool:
    """Whether a script is one of another language than a shell's."""
    words = [word for word in text.partition("\n")[0][2:].split() if not word.startswith("-")]
    if not text.startswith("#!") or not words:
        return False
    name = (words[1:] or words)[0] if words[0].rpartition("/")[2] == "env" else words[0]
    return _FOREIGN.match(name.rpartition("/")[2]) is not None
