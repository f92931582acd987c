# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a call of acrn-dm gives its VM: the name, and the PCI devices with their places in the text.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import RESERVED_SLOTS
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    LONG_WITH_VALUE,
    SHORT_WITH_VALUE,
    parse_slot,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._commands import Run
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell import (
    Array,
    Place,
    Substitution,
    Variable,
    Word,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._shell_words import parse_words
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._values import UNKNOWN, Values, can_be, is_list
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, IvshmemError

_COMMENT_LINE = re.compile(r"[ \t]*\\\r?\n[ \t]*(?=#)")
_SLOT = ("-s", "--pci_slot")
_ATTACHED = re.compile(r"--pci_slot=|-s")
_OPTION = re.compile(r"--\w+|-\w")
_GENERATED = {"add_virtual_device": "", "add_passthrough_device": "passthru"}
_HARMLESS = frozenset(("add_cpus", "add_interrupt_storm_monitor", "add_logger_settings", ":", "true"))
# Arrays within arrays that are read.
_DEEPEST = 6
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
        return self.doubtful or UNKNOWN in self.kind or (not self.kind and self.bdf is None)

    @property
    def odd(self) -> str | None:
        """Why a region cannot be declared so, if acrn-dm takes it."""
        if self.bdf is not None and (self.bdf.bus or self.bdf.function):
            return f"is at {self.bdf}, and a region has a slot of bus 0 to itself"
        if self.bdf is not None and self.bdf.device in RESERVED_SLOTS:
            held = RESERVED_SLOTS[self.bdf.device]
            return f"is at slot {self.bdf.device}, which is that of {held}, and a region has one from 3 to 30"
        return None


@dataclass(frozen=True)
class Call:
    """One call of acrn-dm."""

    line: int
    holders: tuple[Holder, ...]
    devices: tuple[PciDevice, ...]
    names: tuple[str, ...]  # what the VM's name can be; empty or with UNKNOWN where it is not known
    source: str  # the word that is the name
    uuids: tuple[str, ...]  # the same for -U
    unseen: tuple[tuple[int, str], ...]
    comment_line: int | None  # of a comment that stands between the continuation lines and so ends the command
    binaries: tuple[str, ...]  # what acrn-dm itself is written as, if the text tells

    @property
    def name(self) -> str | None:
        if len(self.names) == 1 and self.names[0] and UNKNOWN not in self.names[0]:
            return self.names[0]
        return None

    @property
    def uuid(self) -> str | None:
        return self.uuids[0] if len(self.uuids) == 1 and UNKNOWN not in self.uuids[0] else None

    def maybe(self, vm: str, uuid: str | None = None) -> bool:
        """Whether the call can be one for a VM, among others."""
        given = [each.lower() for each in self.uuids] if uuid else []
        return any(can_be(name, vm) for name in self.names) or any(can_be(each, uuid or "") for each in given)

    @property
    def told(self) -> str:
        """Which VM it starts, for a message."""
        if not self.names:
            return (
                f"no name: the comment in line {self.comment_line} ends the command" if self.comment_line else "no name"
            )
        if any(UNKNOWN in name for name in self.names):
            return f"the name {self.source} is only known when the script runs"
        return " or ".join(self.names)

    @property
    def style(self) -> str:
        return "array" if any(holder.array for holder in self.holders) else "command"


class _Reader:
    """The arguments of one call, read in their order."""

    def __init__(self, values: Values, run: Run) -> None:
        self.values = values
        self.script = values.script
        self.place = run.command.place
        self.holders: list[Holder] = []
        self.devices: list[PciDevice] = []
        self.positional: list[tuple[Word, tuple[str, ...]]] = []
        self.within: tuple[Word, tuple[str, ...]] | None = None
        self.uuids: list[tuple[str, ...]] = []
        self.unseen: list[tuple[int, str]] = []
        word = run.command.words[run.index]
        if run.arrays and not values.arrays(word, self.place)[1]:
            self._unseen(word)
        for number, array in enumerate(run.arrays):
            words, begin = (array.words[1:], array.words[0].end) if number == 0 else (array.words, array.inside)
            self._read(Holder(words, _bracketed(array), begin, array.place))
        self._read(Holder(run.command.words[run.index + 1 :], None, word.end, self.place))

    def _source(self, word: Word) -> str:
        return self.script.text[word.start : word.end]

    def _unseen(self, word: Word) -> None:
        self.unseen.append((word.start, self._source(word)))

    def name(self) -> tuple[Word | None, tuple[str, ...]]:
        """The word that is the VM's name, and what it can be.

        acrn-dm's getopt lets the name stand anywhere; where a script gives several words that are no option, the last
        one is the name and the others belong to options that are not known here.
        """
        for other, values in self.positional[:-1]:
            if any(value.startswith(UNKNOWN) for value in values):
                self._unseen(other)
        if not self.positional:
            # All arguments may stand in one text, the name as its last one.
            return self.within or (None, ())
        named, names = self.positional[-1]
        self.unseen = [item for item in self.unseen if item[0] != named.start]
        return named, names

    def _read(self, holder: Holder, depth: int = 0) -> None:
        """Read the words of a holder, and those of the arrays in it at their place."""
        self.holders.append(holder)
        index = 0
        while index < len(holder.words):
            word = holder.words[index]
            if is_list(word):
                self._list(holder, word, depth)
                index += 1
            elif len(word.pieces) == 1 and isinstance(word.pieces[0], Substitution):
                self._substitution(holder, index, word.pieces[0])
                index += 1
            else:
                index += self._argument(holder, index)
        if len(self.devices) > _DEVICES:
            line = self.script.line(holder.begin)
            raise IvshmemError(
                f"{self.script.where}: line {line}: a call of acrn-dm has more than {_DEVICES} devices, "
                "which no PCI bus takes; see what the script is"
            )

    def _list(self, holder: Holder, word: Word, depth: int) -> None:
        arrays, certain = self.values.arrays(word, holder.place) if depth < _DEEPEST else ([], False)
        if not certain:
            self._unseen(word)
        for array in arrays:
            self._read(Holder(array.words, _bracketed(array), array.inside, array.place), depth + 1)

    def _argument(self, holder: Holder, index: int) -> int:
        """Read a word that is one argument, or a variable that becomes some. How many words belong to it."""
        word = holder.words[index]
        values = self.values.of(word, holder.place)
        value = values[0]
        following = holder.words[index + 1] if index + 1 < len(holder.words) else None
        attached = _ATTACHED.match(value) if word.literal is not None else None
        expands = any(isinstance(part, Variable) and not part.quoted for part in word.pieces)
        if value in _SLOT and following is not None:
            self.devices.append(self._plain(holder, index, index + 1, following, ""))
            return 2
        if attached:
            self.devices.append(self._plain(holder, index, index, word, attached.group()))
        elif _OPTION.fullmatch(value) and not (expands and len(values) > 1):
            if value in ("-U", "--uuid") and following is not None:
                self.uuids.append(tuple(self.values.of(following, holder.place)))
            return 2 if _takes_value(value) else 1
        elif expands:
            self._variables(holder, index, values)
        elif any(",ivshmem," in each for each in values):
            # An option that getopt takes all the same: several letters together, or a part of its name.
            self._unseen(word)
        elif not value.startswith("-"):
            self.positional.append((word, tuple(values)))
        return 1

    def _plain(self, holder: Holder, first: int, last: int, word: Word, prefix: str) -> PciDevice:
        """The device of a word behind ``-s``, or of one that begins with it."""
        raw = self._source(word)
        quote = raw[0] if len(raw) > 1 and raw[0] in "\"'" and raw[-1] == raw[0] else ""
        values = [value[len(prefix) :] for value in self.values.of(word, holder.place)]
        devices = [self._device(value, word, holder, first, last) for value in values]
        ours = next((device for device in devices if device.kind == "ivshmem"), devices[0])
        looped = bool(self.script.looped(holder.place) - set(self.place.blocks))
        return replace(
            ours,
            edit=(word.start, word.end, quote + prefix, quote),
            certain=len(values) == 1,
            doubtful=looped or self._may_lack(holder) or not _agree(devices, values),
        )

    def _may_lack(self, holder: Holder) -> bool:
        """Whether the words of an array, which is filled elsewhere, may be missing at the call."""
        if holder.place == self.place or holder.place.reaches(self.place):
            return False
        functions = {block for blocks in self.script.functions.values() for block in blocks}
        return any(block not in functions for block in holder.place.blocks if block not in self.place.blocks)

    def _device(self, value: str, word: Word, holder: Holder, first: int, last: int) -> PciDevice:
        slot, _comma, rest = value.partition(",")
        kind, _comma, options = rest.partition(",")
        bdf = None
        if UNKNOWN not in slot:
            try:
                bdf = parse_slot(slot)
            except IvshmemError:
                bdf = None
        line = self.script.line(word.start)
        names = frozenset([options.partition(",")[0]] if kind == "ivshmem" else ())
        known = None if UNKNOWN in options else options
        return PciDevice(bdf, kind, known, line, holder, first, last, None, names=names)

    def _substitution(self, holder: Holder, index: int, piece: Substitution) -> None:
        """`add_virtual_device SLOT KIND OPTIONS` and the like, as launch_cfg_gen.py of v3.x writes them."""
        words = parse_words(self.script.text, piece.start, piece.start + len(piece.source), self.script.where)
        called = words[0].literal if words else ":"
        if called in _GENERATED and len(words) > 1:
            kind = [_GENERATED[called]] if _GENERATED[called] else []
            parts = [self.values.of(word, holder.place)[0] for word in words[1:]]
            rest = [*kind, *parts[1:]]
            value = ",".join([parts[0], *rest[:1], *([" ".join(rest[1:])] if rest[1:] else [])])
            device = self._device(value, words[1], holder, index, index)
            edit = (words[1].start, words[-1].end, "", "")
            unplaced = UNKNOWN in parts[0] and device.kind == "ivshmem"
            self.devices.append(replace(device, edit=edit, generated=True, doubtful=unplaced))
        elif called not in _HARMLESS:
            self._unseen(holder.words[index])

    def _variables(self, holder: Holder, index: int, values: Sequence[str]) -> None:
        """A word without quotes that becomes any number of arguments, such as $boot_audio_option."""
        word = holder.words[index]
        read = [_split(value) for value in values]
        devices = [self._device(slot, word, holder, index, index) for slots, _names in read for slot in slots]
        keys = [(device.bdf, device.kind, device.options) for device in devices]
        first: dict[tuple[Bdf | None, str, str | None], PciDevice] = {}
        for key, device in zip(keys, devices):
            first.setdefault(key, device)
        for key, device in first.items():
            certain = keys.count(key) == len(values)
            shared = device.kind == "ivshmem" and not certain
            self.devices.append(replace(device, variable=self._source(word), certain=certain, doubtful=shared))
        names = tuple(name for value, (_slots, found) in zip(values, read) for name in found if name == value.strip())
        if names and not devices:
            self.positional.append((word, names))
        elif all(found for _slots, found in read):
            self.within = (word, tuple(dict.fromkeys(found[-1] for _slots, found in read)))
        # A part of an argument that is not known adds none.
        if any(argument.startswith(UNKNOWN) for value in values for argument in value.split()):
            self._unseen(word)


def _takes_value(option: str) -> bool:
    return option[2:] in LONG_WITH_VALUE or option[1:] in SHORT_WITH_VALUE


def _split(text: str) -> tuple[list[str], list[str]]:
    """What stands behind each ``-s`` of arguments in one text, and the arguments that are no options."""
    slots: list[str] = []
    names: list[str] = []
    arguments = iter(text.split())
    for argument in arguments:
        attached = _ATTACHED.match(argument)
        if argument in _SLOT:
            slots.append(next(arguments, ""))
        elif attached:
            slots.append(argument[attached.end() :])
        elif argument.startswith("-"):
            if _takes_value(argument):
                next(arguments, None)
        else:
            names.append(argument)
    return slots, names


def _agree(devices: Sequence[PciDevice], values: Sequence[str]) -> bool:
    """Whether all that a word can be is one device."""
    if all(device.kind != "ivshmem" for device in devices):
        return len({device.kind for device in devices}) == 1
    # Another slot, or another size, is another device.
    unplaced = any(UNKNOWN in value.partition(",")[0] for value in values)
    return not unplaced and len({(device.bdf, device.options) for device in devices}) == 1


def _bracketed(array: Array) -> Array | None:
    """The array, where its words need no continuation at the ends of lines."""
    return None if array.name == "@" else array


def read_call(values: Values, run: Run) -> Call:
    """What a run of acrn-dm gives its VM. Raises IvshmemError."""
    script, command = values.script, run.command
    reader = _Reader(values, run)
    named, names = reader.name()
    comment = _COMMENT_LINE.match(script.text, command.words[-1].end)
    return Call(
        script.line(command.words[run.index].start),
        tuple(reader.holders),
        tuple(reader.devices),
        names,
        script.text[named.start : named.end] if named else "",
        reader.uuids[-1] if reader.uuids else (),
        tuple((script.line(start), source) for start, source in dict.fromkeys(reader.unseen)),
        script.line(comment.end()) if comment else None,
        tuple(value for value in values.of(run.binary, command.place) if UNKNOWN not in value),
    )
