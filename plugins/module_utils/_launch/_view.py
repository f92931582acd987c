# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launch scripts as they are: which VMs they start with acrn-dm, and the PCI devices that they give them.

This module util is PRIVATE to the collection: it can change at any time.

Read are ``acrn-dm ...`` with continuation lines, and ``acrn-dm "${dm_params[@]}"`` with the array that ACRN's
launch_cfg_gen.py writes since v3.0 (``add_virtual_device SLOT ivshmem NAME,SIZE``).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    LONG_WITH_VALUE,
    SHORT_WITH_VALUE,
    ivshmem_options,
    parse_slot,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell import (
    Array,
    Assignment,
    Command,
    Opaque,
    Piece,
    Place,
    Script,
    Substitution,
    Text,
    Variable,
    Word,
    parse_script,
    parse_words,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, IvshmemError

# devicemodel/hw/pci/core.c v3.0+, pci_parse_slot: said to be ignored, and acrn-dm exits with 1.
OBSOLETE = frozenset(("pci-gvt", "virtio-hdcp", "npk", "virtio-coreu"))

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
_LOCATED = re.compile(r"\s*(?:which|command -v|type -P)\s+([\w./-]+)\s*(?:2>\s*/dev/null)?\s*")
_COMMENT_LINE = re.compile(r"[ \t]*\\\r?\n[ \t]*(?=#)")
_QUESTIONS = frozenset(("-v", "--version", "-h", "--help"))
_BINARY = re.compile(r"acrn-dm(?:[-._][\w.-]*)?")
_GENERATED = {"add_virtual_device": "", "add_passthrough_device": "passthru"}
_HARMLESS = frozenset(("add_cpus", "add_interrupt_storm_monitor", "add_logger_settings", ":", "true"))
# Stands in a value for what only a run of the script tells. A shell word cannot hold it.
_UNKNOWN = "\0"
# Calls within substitutions within each other that are looked into; deeper ones count as calls.
_DEEPEST = 8
# A bus has 32 slots of 8 functions. An edit of a script with thousands of devices would take minutes.
_DEVICES = 256


@dataclass(frozen=True)
class Holder:
    """Words in which devices stand: those of a command behind acrn-dm, or those of an array."""

    words: tuple[Word, ...]
    array: Array | None
    begin: int  # where a first word can be added: behind acrn-dm, or behind the bracket
    place: Place


@dataclass(frozen=True)
class PciDevice:
    """One ``-s`` that was found. ``bdf`` or ``options`` is None where the text does not tell."""

    bdf: Bdf | None
    kind: str
    options: str | None
    line: int
    holder: Holder
    first: int  # its words in the holder, both inclusive
    last: int
    edit: tuple[int, int, str, str] | None  # place of the value, and what to put before and behind a new one
    generated: bool = False
    variable: str = ""
    certain: bool = True
    names: frozenset[str] = frozenset()  # of an ivshmem device, as far as it can be read
    doubtful: bool = False  # whether the VM gets it, which one or where, only a run tells

    @property
    def may_share(self) -> bool:
        """Whether it is an ivshmem device of which the text does not tell all, or may be one."""
        if self.kind == "ivshmem":
            return self.options is None or self.doubtful
        return self.doubtful or _UNKNOWN in self.kind or (not self.kind and self.bdf is None)

    @property
    def odd(self) -> str | None:
        """Why a region cannot be declared so, if acrn-dm takes it."""
        if self.bdf is not None and (self.bdf.bus or self.bdf.function):
            return f"is at {self.bdf}, and a region has a slot of bus 0 to itself"
        return None


@dataclass
class _Arguments:
    """What is gathered while the arguments of a call are read, in their order."""

    holders: list[Holder] = field(default_factory=list)
    devices: list[PciDevice] = field(default_factory=list)
    positional: list[tuple[Word, tuple[str, ...]]] = field(default_factory=list)
    uuids: list[tuple[str, ...]] = field(default_factory=list)
    unseen: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """One call of acrn-dm."""

    line: int
    holders: tuple[Holder, ...]
    devices: tuple[PciDevice, ...]
    names: tuple[str, ...]  # what the VM's name can be; empty or with _UNKNOWN where it is not known
    source: str  # the word that is the name
    uuids: tuple[str, ...]  # the same for -U
    unseen: tuple[tuple[int, str], ...]
    comment_line: int | None  # of a comment that stands between the continuation lines and so ends the command
    binaries: tuple[str, ...]  # what acrn-dm itself is written as, if the text tells

    @property
    def name(self) -> str | None:
        if len(self.names) == 1 and self.names[0] and _UNKNOWN not in self.names[0]:
            return self.names[0]
        return None

    @property
    def uuid(self) -> str | None:
        return self.uuids[0] if len(self.uuids) == 1 and _UNKNOWN not in self.uuids[0] else None

    def maybe(self, vm: str, uuid: str | None = None) -> bool:
        """Whether the call can be one for a VM, among others."""
        given = [each.lower() for each in self.uuids] if uuid else []
        return any(_can_be(name, vm) for name in self.names) or any(_can_be(each, uuid or "") for each in given)

    @property
    def told(self) -> str:
        """Which VM it starts, for a message."""
        if not self.names:
            return (
                f"no name: the comment in line {self.comment_line} ends the command" if self.comment_line else "no name"
            )
        if any(_UNKNOWN in name for name in self.names):
            return f"the name {self.source} is only known when the script runs"
        return " or ".join(self.names)

    @property
    def style(self) -> str:
        return "array" if any(holder.array for holder in self.holders) else "command"


def _can_be(known: str, value: str) -> bool:
    """Whether what is known of a text, with _UNKNOWN for the rest, can be a value."""
    return re.fullmatch(".*".join(map(re.escape, known.split(_UNKNOWN))), value, re.DOTALL) is not None


@dataclass(frozen=True)
class ScriptVm:
    """What a script says about one of its acrn-dm calls."""

    name: str | None
    uuid: str | None
    line: int
    style: str
    told: str  # the name, or why there is none


class View:
    """A script as acrn-dm calls. ``where`` goes into messages."""

    def __init__(self, text: str, where: str, depth: int = 0) -> None:
        self.text = text
        self.where = where
        self.depth = depth
        self._known: dict[tuple[Variable, Place, int], list[str]] = {}
        self._passing: dict[str, bool] = {}
        self.calls: list[Call] = []
        # Where acrn-dm may be run in a way that cannot be read: the line and the words.
        self.hidden: list[tuple[int, str]] = []
        foreign = _is_foreign(text)
        self.script: Script = parse_script("" if foreign else text, where)
        if foreign:
            for match in _NAMED.finditer(text):
                self._hide_at(text.count("\n", 0, match.end()) + 1, text.splitlines()[text.count("\n", 0, match.end())])
        for command in self.script.commands:
            found = self._acrn_dm(command)
            if found is not None:
                self.calls.append(self._call(command, *found))
            elif self._hides(command):
                self._hide(command.words[0].start, self._source_of(command))
        self._hide_in_texts()

    def _hide(self, start: int, source: str) -> None:
        self._hide_at(self.script.line(start), source)

    def _hide_at(self, line: int, source: str) -> None:
        text = " ".join(source.split())
        self.hidden.append((line, text if len(text) < 70 else text[:66] + " ..."))

    def _source_of(self, command: Command) -> str:
        return self.text[command.words[0].start : command.words[-1].end]

    def _hides(self, command: Command) -> bool:
        """Whether a command that is no call of acrn-dm may run one: by xargs, by a shell with a text, by a name in a
        variable, or by a function of the script."""
        values = [self.values(word.pieces, command.place) for word in command.words]
        bare = [each[0].rpartition("/")[2] for each in values]
        wrappers = next((at for at, each in enumerate(bare) if not (each in _WRAPPERS or _WRAPPED.match(each))), 0)
        first = bare[wrappers if bare[0] in _WRAPPERS else 0]
        rest = [value for each in values[1:] for value in each]
        named = [value for each in values for value in each if _NAMED.search(value)]
        if first in _MENTIONS or _QUESTIONS & set(rest[-1:]):
            return False
        if bare[0] == "command" and {"-v", "-V"} & set(bare):
            return False
        if any(_NAMED.search(value) for value in values[0]) and any(" " in value for value in values[0]):
            return True
        if first in self.script.functions:
            return bool(named) and self._passes_on(first)
        if first in _RUNNERS:
            return bool(named)
        exact = any(_BINARY.fullmatch(value.rpartition("/")[2]) for value in rest)
        return exact or (_UNKNOWN in values[0][0] and any(",ivshmem," in value for value in rest))

    def _passes_on(self, function: str) -> bool:
        """Whether a function runs what it is given."""
        if function not in self._passing:
            self._passing[function] = self._runs_arguments(function)
        return self._passing[function]

    def _runs_arguments(self, function: str) -> bool:
        self.script.look(len(self.script.commands))
        blocks = self.script.functions[function]
        for command in self.script.commands:
            pieces = [word.pieces[0] for word in command.words if word.pieces]
            given = [each for each in pieces if isinstance(each, Variable) and each.name in ("@", "*", "1")]
            lead = command.words[0].literal
            runs = lead is None or lead in _WRAPPERS or lead in _RUNNERS or lead in self.script.functions
            if given and runs and blocks & set(command.place.blocks):
                return True
        return False

    def _hide_in_texts(self) -> None:
        """Calls in command substitutions, and in here-documents where something can run them."""
        pieces = [piece for command in self.script.commands for word in command.words for piece in word.pieces]
        pieces += [
            piece
            for each in self.script.assignments.values()
            for item in each
            for piece in (*item.pieces, *(piece for other in item.others for piece in other))
        ]
        pieces += [piece for array in self.script.arrays for word in array.words for piece in word.pieces]
        for piece in pieces:
            if isinstance(piece, Substitution) and _NAMED.search(piece.source) and self._has_call(piece.source):
                self._hide(piece.start, piece.source)
        runs = any((command.words[0].literal or "").rpartition("/")[2] in _SHELLS for command in self.script.commands)
        for start, text in self.script.documents if runs else ():
            if _NAMED.search(text) and self._has_call(text):
                at = start + next(match.start() for match in [_NAMED.search(text)] if match)
                self._hide(at, text[at - start :].splitlines()[0])

    def _has_call(self, text: str) -> bool:
        if self.depth >= _DEEPEST:
            return True
        try:
            inner = View(text, self.where, self.depth + 1)
        except IvshmemError:
            return True
        return bool(inner.calls or inner.hidden)

    # Values

    def values(self, pieces: Sequence[Piece], place: Place, depth: int = 0) -> list[str]:
        """All values that a word can have at a place as far as the text tells; _UNKNOWN stands for the rest."""
        parts: list[list[str]] = []
        for piece in pieces:
            if isinstance(piece, Text):
                parts.append([piece.value])
            elif isinstance(piece, Variable) and depth < 6:
                parts.append(self._variable(piece, place, depth))
            elif isinstance(piece, Substitution) and _LOCATED.fullmatch(piece.source):
                # What which prints is the same program.
                match = _LOCATED.fullmatch(piece.source)
                parts.append([match.group(1) if match else _UNKNOWN])
            else:
                parts.append([_UNKNOWN])
        count = 1
        for part in parts:
            count *= len(part)
        if count > 32:
            return [_UNKNOWN]
        return list(dict.fromkeys("".join(choice) for choice in itertools.product(*parts)))

    def _variable(self, piece: Variable, place: Place, depth: int) -> list[str]:
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
                result.append(_UNKNOWN)
        if piece.default is not None and any(value in ("", _UNKNOWN) for value in result):
            result.append(piece.default)
        return list(dict.fromkeys(result))

    def _assigned(self, piece: Variable, place: Place, depth: int) -> list[str]:
        """What the assignments that count at a place give a variable, in their order."""
        function = self.script.function(place)
        known = self.script.assigned(piece.name, place)
        own = [item for item in known if self.script.function(item.place) == function]
        others = [item for item in known if self.script.function(item.place) != function]
        if not known:
            return [_UNKNOWN]
        result: list[str] = []
        elsewhere: list[str] = []
        calls = self.script.called(function) if function else []
        if others and calls and not any(item.place.reaches(place) and not item.append for item in own):
            for call in calls:
                result += self._variable(piece, call.place, depth + 1) if depth < 6 else [_UNKNOWN]
        else:
            elsewhere = [value for item in others for value in self._made(item, depth)]
            if own and not others and not any(item.place.reaches(place) and not item.append for item in own):
                # Where no branch is taken that sets it.
                result = [""]
        for item in own:
            made = self._made(item, depth)
            if item.append:
                longer = [before + value for before in result or [""] for value in made]
                result = longer if item.place.reaches(place) else [*result, *longer]
                if self.script.looped(item.place) - set(place.blocks):
                    result += [_UNKNOWN + value for value in made]
            else:
                result = made if item.place.reaches(place) else [*result, *made]
        return list(dict.fromkeys([*result, *elsewhere]))

    def _made(self, item: Assignment, depth: int) -> list[str]:
        """What an assignment gives, each time that it is made."""
        return [value for pieces in (item.pieces, *item.others) for value in self.values(pieces, item.place, depth + 1)]

    def _positional(self, number: int, place: Place, depth: int) -> list[str]:
        """What $1 and so on can be: of a function, what its calls give it."""
        function = self.script.function(place)
        arrays = [array for array in self.script.arrays if array.name == "@"]
        if number == 0 or any(self.script.function(each) == function for each in self.script.shifts):
            return [_UNKNOWN]
        own = [array for array in arrays if self.script.function(array.place) == function]
        if own:
            last = own[-1]
            if len(own) == 1 and not last.append and last.place.reaches(place) and self._plain_words(last.words):
                found = last.words[number - 1 : number]
                return self.values(found[0].pieces, last.place, depth + 1) if found else [""]
            return [_UNKNOWN]
        calls = self.script.called(function) if function else []
        result: list[str] = []
        for call in calls:
            if not self._plain_words(call.words[: number + 1]):
                return [_UNKNOWN]
            given = call.words[number : number + 1]
            result += self.values(given[0].pieces, call.place, depth + 1) if given else [""]
        return list(dict.fromkeys(result)) or [_UNKNOWN]

    @staticmethod
    def _plain_words(words: Sequence[Word]) -> bool:
        """Whether each word is one argument for certain."""
        return not any(
            isinstance(piece, (Substitution, Opaque))
            or (isinstance(piece, Variable) and (piece.name in "@*" or piece.name.endswith("[@]")))
            for word in words
            for piece in word.pieces
        )

    # Finding the calls

    def _acrn_dm(self, command: Command) -> tuple[int, list[Array]] | None:
        """The index of the word acrn-dm, where this command runs it (and does not merely mention it), and the arrays
        that the word stands for, if it is not acrn-dm itself."""
        before = ""
        for index, word in enumerate(command.words):
            arrays = self._arrays(word, command.place)[0] if _is_list(word) else []
            named = arrays[0].words[0] if arrays and arrays[0].words else word
            names = [value.rpartition("/")[2] for value in self.values(named.pieces, command.place)]
            if any(_BINARY.fullmatch(name) for name in names):
                asks = {argument.literal for argument in command.words[index + 1 :]} & _QUESTIONS
                located = command.words[0].literal == "command" and before in ("-v", "-V")
                return None if asks or located else (index, arrays)
            wrapper = all(name.partition(" ")[0] in _WRAPPERS or not name for name in names)
            if index == 0 and not wrapper:
                return None
            # Behind sudo and the like: their options, values of these, and assignments.
            if names[0] in _MENTIONS or not (wrapper or before.startswith("-") or _WRAPPED.match(word.literal or "")):
                return None
            before = names[0]
        return None

    def _call(self, command: Command, index: int, arrays: Sequence[Array]) -> Call:
        word = command.words[index]
        binary = arrays[0].words[0] if arrays and arrays[0].words else word
        found = _Arguments()
        if arrays and not self._arrays(word, command.place)[1]:
            found.unseen.append((word.start, self._source(word)))
        for number, array in enumerate(arrays):
            words, begin = (array.words[1:], array.words[0].end) if number == 0 else (array.words, array.inside)
            self._read(Holder(words, _bracketed(array), begin, array.place), command, found)
        self._read(Holder(command.words[index + 1 :], None, word.end, command.place), command, found)
        # acrn-dm's getopt lets the name stand anywhere; where a script gives several words that are no option, the last
        # one is the name and the others belong to options that are not known here.
        names: tuple[str, ...] = ()
        source = ""
        for other, values in found.positional[:-1]:
            if any(value.startswith(_UNKNOWN) for value in values):
                found.unseen.append((other.start, self._source(other)))
        if found.positional:
            named, names = found.positional[-1]
            source = self._source(named)
            found.unseen = [item for item in found.unseen if item[0] != named.start]
        unseen = tuple((self.script.line(start), source) for start, source in dict.fromkeys(found.unseen))
        comment = _COMMENT_LINE.match(self.text, command.words[-1].end)
        return Call(
            self.script.line(word.start),
            tuple(found.holders),
            tuple(found.devices),
            names,
            source,
            found.uuids[-1] if found.uuids else (),
            unseen,
            self.script.line(comment.end()) if comment else None,
            tuple(value for value in self.values(binary.pieces, command.place) if _UNKNOWN not in value),
        )

    def _arrays(self, word: Word, place: Place) -> tuple[list[Array], bool]:
        """The arrays that a word like "${dm_params[@]}" or "$@" stands for: the last assignment before a place and what
        is appended to it up to there, and whether that is certain."""
        piece = word.pieces[0]
        name = piece.name if isinstance(piece, Variable) else ""
        if name.endswith("[@]"):
            same = [array for array in self.script.arrays if array.name == name[:-3]]
            certain = name[:-3] not in self.script.unknown | self.script.elements
        else:
            function = self.script.function(place)
            shifted = any(self.script.function(each) == function for each in self.script.shifts)
            same = [a for a in self.script.arrays if a.name == "@" and self.script.function(a.place) == function]
            if not same and function:
                # What the function is called with.
                same = [
                    Array("@", False, call.words[1:], call.words[0].start, call.words[0].end, call.place)
                    for call in self.script.called(function)
                ]
                return same[-1:], len(same) == 1 and not shifted
            certain = not shifted and bool(same) and not same[0].append
        result: list[Array] = []
        for array in self.script.reaching(same, place):
            if array.append:
                result.append(array)
            else:
                certain = certain and (not result or array.place.reaches(place))
                result = [array]
        return result, certain and bool(result)

    def _read(self, holder: Holder, command: Command, found: _Arguments, depth: int = 0) -> None:
        """Read the words of a holder, and those of the arrays in it at their place."""
        found.holders.append(holder)
        words = holder.words
        index = 0
        while index < len(words):
            word = words[index]
            piece = word.pieces[0] if len(word.pieces) == 1 else None
            values = self.values(word.pieces, holder.place)
            value = values[0]
            following = words[index + 1] if index + 1 < len(words) else None
            step = 1
            if _is_list(word):
                arrays, certain = self._arrays(word, holder.place) if depth < 6 else ([], False)
                if not certain:
                    found.unseen.append((word.start, self._source(word)))
                for array in arrays:
                    inner = Holder(array.words, _bracketed(array), array.inside, array.place)
                    self._read(inner, command, found, depth + 1)
            elif isinstance(piece, Substitution):
                self._substitution(holder, index, piece, holder.place, found)
            elif value in ("-s", "--pci_slot") and following is not None:
                found.devices.append(self._plain(holder, index, index + 1, following, "", command.place))
                step = 2
            elif value.startswith("--pci_slot=") and word.literal is not None:
                found.devices.append(self._plain(holder, index, index, word, "--pci_slot=", command.place))
            elif value.startswith("-s") and word.literal is not None:
                found.devices.append(self._plain(holder, index, index, word, "-s", command.place))
            elif re.fullmatch(r"--\w+|-\w", value):
                if value in ("-U", "--uuid") and following is not None:
                    found.uuids.append(tuple(self.values(following.pieces, holder.place)))
                step = 2 if value[2:] in LONG_WITH_VALUE or value[1:] in SHORT_WITH_VALUE else 1
            elif any(isinstance(part, Variable) and not part.quoted for part in word.pieces):
                self._variables(holder, index, word, values, found)
            elif any(",ivshmem," in value for value in values):
                # An option that getopt takes all the same: several letters together, or a part of its name.
                found.unseen.append((word.start, self._source(word)))
            elif not value.startswith("-"):
                found.positional.append((word, tuple(values)))
            index += step
        if len(found.devices) > _DEVICES:
            line = self.script.line(holder.begin)
            raise IvshmemError(
                f"{self.where}: line {line}: a call of acrn-dm has more than {_DEVICES} devices, "
                "which no PCI bus takes; see what the script is"
            )

    def _source(self, word: Word) -> str:
        return self.text[word.start : word.end]

    def _plain(self, holder: Holder, first: int, last: int, word: Word, prefix: str, place: Place) -> PciDevice:
        raw = self._source(word)
        quote = raw[0] if len(raw) > 1 and raw[0] in "\"'" and raw[-1] == raw[0] else ""
        edit = (word.start, word.end, quote + prefix, quote)
        values = self.values(word.pieces, holder.place)
        devices = [self._device(value[len(prefix) :], word, holder, first, last) for value in values]
        ours = next((device for device in devices if device.kind == "ivshmem"), devices[0])
        names = {name or _UNKNOWN for device in devices for name in device.names}
        # An array is filled elsewhere: in a loop, or not always.
        apart = not holder.place.reaches(place) and holder.place != place
        looped = bool(self.script.looped(holder.place) - set(place.blocks))
        sure = len(names) < 2 and {device.kind for device in devices} == {ours.kind}
        if ours.kind == "ivshmem":
            # Another slot, or another size, is another device.
            unplaced = any(_UNKNOWN in value[len(prefix) :].partition(",")[0] for value in values)
            sure = not unplaced and len({(device.bdf, device.options) for device in devices}) == 1
        return replace(
            ours,
            edit=edit,
            certain=len(values) == 1,
            doubtful=not sure or looped or (apart and self._branched(holder, place)),
        )

    def _branched(self, holder: Holder, place: Place) -> bool:
        """Whether the words of an array may be missing at a call."""
        extra = [block for block in holder.place.blocks if block not in place.blocks]
        functions = {block for blocks in self.script.functions.values() for block in blocks}
        return any(block not in functions for block in extra)

    def _device(self, value: str, word: Word, holder: Holder, first: int, last: int) -> PciDevice:
        slot, _comma, rest = value.partition(",")
        kind, _comma, options = rest.partition(",")
        bdf = None
        if _UNKNOWN not in slot:
            try:
                bdf = parse_slot(slot)
            except IvshmemError:
                bdf = None
        line = self.script.line(word.start)
        names = frozenset([options.partition(",")[0]] if kind == "ivshmem" else ())
        known = None if _UNKNOWN in options else options
        return PciDevice(bdf, kind, known, line, holder, first, last, None, names=names)

    def _substitution(self, holder: Holder, index: int, piece: Substitution, place: Place, found: _Arguments) -> None:
        """`add_virtual_device SLOT KIND OPTIONS` and the like, as launch_cfg_gen.py of v3.x writes them."""
        words = parse_words(self.text, piece.start, piece.start + len(piece.source), self.where)
        called = words[0].literal if words else ":"
        if called in _GENERATED and len(words) > 1:
            kind = [_GENERATED[called]] if _GENERATED[called] else []
            parts = [self.values(word.pieces, place)[0] for word in words[1:]]
            rest = [*kind, *parts[1:]]
            value = ",".join([parts[0], *rest[:1], *([" ".join(rest[1:])] if rest[1:] else [])])
            device = self._device(value, words[1], holder, index, index)
            edit = (words[1].start, words[-1].end, "", "")
            unplaced = _UNKNOWN in parts[0] and device.kind == "ivshmem"
            found.devices.append(replace(device, edit=edit, generated=True, doubtful=unplaced))
        elif called not in _HARMLESS:
            found.unseen.append((holder.words[index].start, self._source(holder.words[index])))

    def _variables(self, holder: Holder, index: int, word: Word, values: Sequence[str], found: _Arguments) -> None:
        """A word without quotes that becomes any number of arguments, such as $boot_audio_option."""
        plain: list[str] = []
        devices: list[PciDevice] = []
        for value in values:
            arguments = value.split()
            skip = False
            for number, argument in enumerate(arguments):
                following = arguments[number + 1] if number + 1 < len(arguments) else ""
                if skip:
                    skip = False
                elif argument in ("-s", "--pci_slot") and following:
                    devices.append(self._device(following, word, holder, index, index))
                    skip = True
                elif argument.startswith(("-s", "--pci_slot=")):
                    text = argument[2:] if argument.startswith("-s") else argument[len("--pci_slot=") :]
                    devices.append(self._device(text, word, holder, index, index))
                elif argument.startswith("-"):
                    skip = argument[2:] in LONG_WITH_VALUE or argument[1:] in SHORT_WITH_VALUE
                elif len(arguments) == 1:
                    plain.append(argument)
        name = self._source(word)
        seen = set()
        for device in devices:
            key = (device.bdf, device.kind, device.options)
            if key not in seen:
                alike = sum((other.bdf, other.kind, other.options) == key for other in devices)
                certain = alike == len(values)
                shared = device.kind == "ivshmem" and not certain
                found.devices.append(replace(device, variable=name, certain=certain, doubtful=shared))
            seen.add(key)
        if plain and not devices:
            found.positional.append((word, tuple(plain)))
        # A part of an argument that is not known adds none.
        if any(argument.startswith(_UNKNOWN) for value in values for argument in value.split()):
            found.unseen.append((word.start, name))


def _is_foreign(text: str) -> bool:
    """Whether a script is one of another language than a shell's."""
    words = [word for word in text.partition("\n")[0][2:].split() if not word.startswith("-")]
    if not text.startswith("#!") or not words:
        return False
    name = (words[1:] or words)[0] if words[0].rpartition("/")[2] == "env" else words[0]
    return _FOREIGN.match(name.rpartition("/")[2]) is not None


def _is_list(word: Word) -> bool:
    """Whether a word stands for any number of arguments: "$@" or "${array[@]}"."""
    piece = word.pieces[0] if len(word.pieces) == 1 else None
    return isinstance(piece, Variable) and (piece.name in "@*" or piece.name.endswith("[@]"))


def _bracketed(array: Array) -> Array | None:
    """The array, where its words need no continuation at the ends of lines."""
    return None if array.name == "@" else array


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def script_vms(data: bytes, where: str = "script") -> tuple[ScriptVm, ...]:
    """The acrn-dm calls of a script, in its order. Raises IvshmemError where quotes or brackets stay open."""
    return _told(View(decode(data), where))


def _told(view: View) -> tuple[ScriptVm, ...]:
    return tuple(ScriptVm(call.name, call.uuid, call.line, call.style, call.told) for call in view.calls)


def script_calls(data: bytes, where: str) -> tuple[tuple[ScriptVm, ...], list[str]]:
    """The acrn-dm calls of a script, and where it may run acrn-dm in a way that cannot be read, one sentence each."""
    view = View(decode(data), where)
    return _told(view), _hidden(view)


def binaries_of(data: bytes) -> tuple[str, ...]:
    """What a script calls acrn-dm as, each once, as far as the text tells. Raises IvshmemError."""
    view = View(decode(data), "script")
    return tuple(dict.fromkeys(binary for call in view.calls for binary in call.binaries))


@dataclass(frozen=True)
class FoundDevice:
    """An ivshmem device that a script has. What is None could not be read."""

    name: str | None
    size: int | None
    region_id: int | None
    slot: int | None
    line: int
    odd: str | None = None  # why no region can be declared so


def found_device(device: PciDevice) -> FoundDevice:
    name, size, region_id = ivshmem_options(device.options)
    usable = device.bdf is not None and not device.bdf.bus and not device.bdf.function
    return FoundDevice(
        name, size, region_id, device.bdf.device if usable and device.bdf else None, device.line, device.odd
    )


def script_devices(
    data: bytes, vm: str | None = None, where: str = "script", uuid: str | None = None
) -> tuple[FoundDevice, ...]:
    """The ivshmem devices of a script's calls for a VM (of its only VM without ``vm``), in its order, each once."""
    view = View(decode(data), where)
    found: dict[FoundDevice, FoundDevice] = {}
    for call in calls_of(view, vm, uuid):
        for device in map(found_device, (each for each in call.devices if each.kind == "ivshmem")):
            found.setdefault(replace(device, line=0), device)
    return tuple(found.values())


def unlike_calls(data: bytes, vm: str | None, where: str, uuid: str | None = None) -> str | None:
    """Why the devices of a VM depend on which of its calls is run, or None."""
    calls = calls_of(View(decode(data), where), vm, uuid)
    every = [{(each.bdf, each.options) for each in call.devices if each.kind == "ivshmem"} for call in calls]
    other = next((call for call, found in zip(calls, every) if found != every[0]), None)
    if other is None:
        return None
    told = f"VM '{calls[0].told}' is started with other ivshmem devices than in line {other.line}"
    return f"{where}: line {calls[0].line}: {told}; give both calls the same"


def slots_of(data: bytes) -> dict[str, int]:
    """The slots of the ivshmem devices of a script, by prefixed name; nothing where it cannot be read."""
    try:
        view = View(decode(data), "")
    except IvshmemError:
        return {}
    found = [found_device(device) for call in view.calls for device in call.devices if device.kind == "ivshmem"]
    return {device.name: device.slot for device in found if device.name is not None and device.slot is not None}


def calls_of(view: View, vm: str | None, uuid: str | None) -> list[Call]:
    """The calls that start a VM, and no other. Raises IvshmemError where that cannot be told, with the names and lines
    there are."""
    calls = view.calls
    view.script.look(len(calls))
    if view.hidden:
        raise IvshmemError("\n".join(_hidden(view)))
    if not calls:
        raise IvshmemError(
            f"{view.where}: no call of acrn-dm was found; expected 'acrn-dm ...' or 'acrn-dm \"${{dm_params[@]}}\"' "
            "as a command of its own"
        )
    own = _only_vm(view) if vm is None and not uuid else _calls_for(view, vm, uuid)
    if not own:
        raise IvshmemError(
            f"{view.where}: does not start VM '{vm}' ({_listed(calls)}); the last argument of acrn-dm must be the VM's "
            "name in the scenario"
        )
    return own


def _only_vm(view: View) -> list[Call]:
    """All calls, where they start one VM."""
    unread = [call for call in view.calls if call.names and call.name is None]
    if unread:
        raise _unclear(view, unread, "a VM")
    if len({call.name for call in view.calls}) > 1:
        told = _listed(view.calls)
        raise IvshmemError(f"{view.where}: starts several VMs ({told}); say with vm which one is meant")
    return view.calls


def _calls_for(view: View, vm: str | None, uuid: str | None) -> list[Call]:
    """The calls that start a VM by its UUID, else by its name; one call without either starts any VM."""
    calls = view.calls
    by_uuid = [call for call in calls if uuid and call.uuid and call.uuid.lower() == uuid.lower()]
    own = by_uuid or [call for call in calls if call.name == vm]
    unclear = [call for call in calls if call not in own and vm is not None and call.maybe(vm, uuid)]
    if by_uuid:
        # With -U its name does not matter, and another call's -U is another VM.
        unclear = [call for call in unclear if not call.uuid]
    if unclear:
        raise _unclear(view, unclear, f"VM '{vm}'")
    return calls if not own and len(calls) == 1 and not calls[0].names else own


def _listed(calls: Sequence[Call]) -> str:
    return "; ".join(f"line {call.line}: {call.told}" for call in calls)


def _hidden(view: View) -> list[str]:
    return [
        f"{view.where}: line {line}: acrn-dm may be run here in a way that cannot be read: {source}; write the "
        "call as a command of its own"
        for line, source in view.hidden
    ]


def _unclear(view: View, calls: Sequence[Call], what: str) -> IvshmemError:
    """Calls that can run for several VMs, or for which one is not known."""
    return IvshmemError(
        "\n".join(
            f"{view.where}: line {call.line}: whether this call of acrn-dm starts {what} alone cannot be told "
            f"({call.told}), so that other VMs might get the same memory; give each VM a call of its own with its name "
            "as the last argument"
            for call in calls
        )
    )
