# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Windows of a shared memory that are overwritten for a proof, and how each byte of them comes back.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone. What was in a window is in a journal, a file that only root
can read, before the first byte changes. What is written is made from a seed, so at any later time each byte of the
window shows whether it still is the proof's (then the old byte is put back) or somebody has written it since (then it
is his), whatever happened to the bytes beside it.

Several proofs can be at work in one memory, in guests that know nothing of each other's journals. So what is written
says that it is a proof's, whose, and how far it reaches (a mark): no proof saves, as what was there, what another one
will take away.

The bytes of applications are in the memory and in the journal, and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# Bytes of one window. A journal holds it in the memory of the guest, which may be small.
LIMIT = 16 << 20
# Bytes of a token, of which its mark leaves enough that chance does not give them.
LEAST = 32
# Bytes of a mailbox: a mark stands so near that it is found from the end of its window.
MAILBOX = 4096
FORMAT = 3
# A look at so many bytes is followed at once by writing them: what a program writes between is in danger.
STEP = 64
# The words of a mailbox count the round trips of a measurement.
ROUNDS = 200
SEED = re.compile(r"[0-9a-f]{32,128}")
# Programs write zeros, and ones in all bits, most of all: what is written by them must not look like the proof's.
_BYTES = bytes([0x5A, *range(1, 255), 0xA5])
# What each piece of a token begins with: MARK, who writes, and how many bytes it is to the end of the window.
MARK = bytes.fromhex("a71dc46e9358e23b")
_WRITER, _REACH = 2, 4
_HEADER = len(MARK) + _WRITER + _REACH
_HEAD = re.compile(re.escape(MARK) + rb"([\x01-\x80]{%d})([\x01-\x80]{%d})" % (_WRITER, _REACH))
# A writer that has not said who it is. Who has, is known again by the number.
NOBODY = 0x3FFF


class Memory(Protocol):
    """What is mapped, or a bytearray."""

    def __len__(self) -> int: ...
    def __getitem__(self, where: slice) -> bytes: ...
    def __setitem__(self, where: slice, value: bytes) -> None: ...


@dataclass(frozen=True)
class Window:
    """Where a guest writes, and what: bytes made from ``seed``, and at the end ``mailbox`` bytes of words.

    ``writer`` is the number by which those who use the memory know the guest: 0 to NOBODY.
    """

    offset: int
    length: int
    seed: str
    mailbox: int = 0
    writer: int = NOBODY

    def __post_init__(self) -> None:
        numbers = (self.offset, self.length, self.mailbox, self.writer)
        if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in numbers):
            raise IvshmemError(f"offset, length, mailbox and writer of a window are whole numbers, not {numbers}")
        if self.mailbox > MAILBOX or self.writer > NOBODY:
            raise IvshmemError(f"a mailbox has at most {MAILBOX} bytes, and a writer is a number up to {NOBODY}")
        if self.length > LIMIT:
            raise IvshmemError(
                f"a window has at most {LIMIT} bytes, for its guest keeps what was there: not {self.length}"
            )
        if self.token_length < LEAST or self.mailbox % 4:
            raise IvshmemError(
                f"a window of {self.length} bytes is too short: the token needs {LEAST} and measuring {self.mailbox}"
            )
        if not isinstance(self.seed, str) or not SEED.fullmatch(self.seed):
            raise IvshmemError("the seed of a window is 32 to 128 hexadecimal digits")

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def token_length(self) -> int:
        return self.length - self.mailbox

    @property
    def random(self) -> int:
        """How many bytes are made from the seed."""
        return self.token_length - _HEADER * len(self._heads())

    def _heads(self) -> range:
        """Where a mark stands, from the start of the window."""
        return range(0, self.token_length - _HEADER + 1, STEP)

    def is_random(self, where: int) -> bool:
        """Whether a byte of the token is made from the seed, and not part of a mark."""
        return where % STEP >= _HEADER or where - where % STEP not in self._heads()

    def content(self) -> bytes:
        token = hashlib.shake_256(bytes.fromhex(self.seed)).digest(self.token_length)
        content = bytearray(token.translate(_BYTES) + bytes(self.mailbox))
        writer = _digits(self.writer, _WRITER)
        for head in self._heads():
            content[head : head + _HEADER] = MARK + writer + _digits(self.length - head, _REACH)
        return bytes(content)

    def fits(self, size: int) -> None:
        if self.end > size:
            raise IvshmemError(f"a window of {self.length} bytes at {self.offset} does not lie within {size} bytes")


@dataclass(frozen=True)
class Saved:
    """A window that was overwritten, with what was there."""

    window: Window
    bytes: bytes


@dataclass
class Outcome:
    """Bytes that are back, and those that a program has written since; ranges that the memory does not take back."""

    windows: int = 0
    restored: int = 0
    left: int = 0
    stuck: tuple[tuple[int, int], ...] = ()


def random_seed() -> str:
    return os.urandom(32).hex()


# -- marks -------------------------------------------------------------------------------------------------------------


def _digits(number: int, count: int) -> bytes:
    """A number to the base of 128, in bytes that no program writes by itself."""
    return bytes((number >> 7 * place & 0x7F) + 1 for place in range(count))


def _number(digits: bytes) -> int:
    return sum((digit - 1) << 7 * place for place, digit in enumerate(digits))


@dataclass(frozen=True)
class Mark:
    """A piece of a proof's window that stands in the memory, from its start to the end of the window."""

    offset: int
    end: int
    writer: int

    def is_of(self, writer: int) -> bool:
        """Whether a guest has written it, as far as it has said who it is."""
        return self.writer == writer != NOBODY


def _around(memory: Memory, start: int, end: int) -> tuple[int, bytes]:
    """A copy of a range, and of what lies before it as far as the mark of a window that reaches into it can be."""
    first = max(0, start - STEP - _HEADER - MAILBOX)
    return first, bytes(memory[first : min(end + _HEADER, len(memory))])


def _marks(copy: tuple[int, bytes], start: int, end: int) -> Iterator[Mark]:
    first, data = copy
    for found in _HEAD.finditer(data):
        offset, reach = first + found.start(), _number(found.group(2))
        if offset < end and start < offset + reach:
            yield Mark(offset, offset + reach, _number(found.group(1)))


def marks(memory: Memory, start: int, end: int) -> list[Mark]:
    """The marks of proofs that stand in a range, or reach into it."""
    return list(_marks(_around(memory, start, end), start, end))


def forgotten(memory: Memory, start: int, end: int, writer: int, saved: Sequence[Saved]) -> list[Mark]:
    """Marks of this guest that it will not take away: it has booted since, and its journal is gone."""
    mine = [each.window for each in saved]
    return [
        mark
        for mark in marks(memory, start, end)
        if mark.is_of(writer) and not any(each.offset <= mark.offset < each.end for each in mine)
    ]


def unmark(memory: Memory, found: Iterable[Mark]) -> None:
    """Let marks say no more that they are some: what was there is lost, but others may write there again."""
    for mark in found:
        if memory[mark.offset : mark.offset + len(MARK)] == MARK:
            memory[mark.offset : mark.offset + 1] = bytes([MARK[0] ^ 0x55])


def _refuse_marks(copy: tuple[int, bytes], window: Window) -> None:
    """Raise IvshmemError where another proof is at work in a window: its bytes, saved, would come back after it."""
    found = [mark for mark in _marks(copy, window.offset, window.end) if not mark.is_of(window.writer)]
    if found:
        whose = sorted({mark.writer for mark in found})
        raise IvshmemError(
            f"bytes of another proof stand from {found[0].offset} to {max(mark.end for mark in found)} (writer "
            f"{', '.join('not told' if each == NOBODY else str(each) for each in whose)}), so nothing was written: let "
            "that one end; if none runs, one in which that guest takes part puts them back"
        )


# -- the file ----------------------------------------------------------------------------------------------------------


_FIELDS = ("offset", "length", "seed", "mailbox", "writer")


def path_of(address: str) -> str:
    return f"{_kernel.RUN}/{address}.json"


def _digest(windows: Any) -> str:
    return hashlib.sha256(json.dumps(windows, sort_keys=True).encode()).hexdigest()


def _saved(entry: Any) -> Saved:
    """Raises what Python raises for the many things that a foreign file can hold, or IvshmemError."""
    window = Window(*(entry[key] for key in _FIELDS))
    saved = base64.b64decode(entry["saved"], validate=True)
    if len(saved) != window.length:
        raise ValueError("bytes are missing")
    return Saved(window, saved)


def read(kernel: _kernel.Kernel, address: str) -> list[Saved]:
    """Windows that were overwritten and not put back yet, the latest last.

    Raises IvshmemError for a journal that cannot be read whole: it is kept, and in its region nothing is written.
    """
    path = path_of(address)
    try:
        text = kernel.content(path)
        if text is None:
            return []
        value = json.loads(text)
        if value["format"] != FORMAT or value["sha256"] != _digest(value["windows"]):
            raise ValueError("it is damaged, or of another version of the collection")
        return [_saved(entry) for entry in value["windows"]]
    except OSError as exc:
        raise _kernel.told(exc, path) from exc
    except (ValueError, TypeError, KeyError, RecursionError, IvshmemError) as exc:
        why = exc if isinstance(exc, (ValueError, IvshmemError)) else "it is no such journal"
        raise IvshmemError(
            f"{path} cannot be read ({why}). It holds bytes that a proof has saved, so it is left as it is, nothing "
            "is written to this region: look what it is, then remove it, or start the VM again, which forgets it"
        ) from exc


def write(kernel: _kernel.Kernel, address: str, entries: Sequence[Saved]) -> None:
    path = path_of(address)
    if not entries:
        kernel.remove(path)
        return
    windows = [
        {**{key: getattr(each.window, key) for key in _FIELDS}, "saved": base64.b64encode(each.bytes).decode()}
        for each in entries
    ]
    value = {"format": FORMAT, "sha256": _digest(windows), "windows": windows}
    _kernel.make_folder(kernel)
    try:
        kernel.replace(path, json.dumps(value), mode=0o600)
    except OSError as exc:
        raise _kernel.told(exc, path) from exc


# -- the memory --------------------------------------------------------------------------------------------------------


def _pieces(window: Window) -> Iterator[tuple[int, int]]:
    """Ends of pieces, counted from the start of the window."""
    for start in range(0, window.length, STEP):
        yield start, min(start + STEP, window.length)


def _ours(window: Window, content: bytes, where: int, byte: int) -> bool:
    """Whether a byte of the window is what the proof, or its measurement, has put there."""
    if where < window.token_length:
        return byte == content[where]
    return byte <= ROUNDS if (where - window.token_length) % 4 == 0 else byte == 0


def _replace(memory: Memory, window: Window, old: bytes | None, content: bytes, new: bytes) -> None:
    """Write ``new`` wherever the memory still holds ``old``; without it, wherever the bytes are the proof's."""
    base = window.offset
    for start, end in _pieces(window):
        expected = (content if old is None else old)[start:end]
        if memory[base + start : base + end] == expected:
            memory[base + start : base + end] = new[start:end]
            continue
        for where in range(start, end):
            at = slice(base + where, base + where + 1)
            now = memory[at][0]
            if now == old[where] if old is not None else _ours(window, content, where, now):
                memory[at] = new[where : where + 1]


def _changed(memory: Memory, window: Window, expected: bytes) -> Iterator[int]:
    """Where, from the start of the window, the memory holds something else."""
    base = window.offset
    for start, end in _pieces(window):
        now = memory[base + start : base + end]
        if now != expected[start:end]:
            yield from (start + index for index, byte in enumerate(now) if byte != expected[start + index])


def _ranges(places: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Offset and length of each run of places."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and sum(found[-1]) == place:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((place, 1))
    return tuple(found)


def put_back(memory: Memory, entries: Sequence[Saved]) -> Outcome:
    """Put each byte back that still is the proof's, the latest window first, and leave those that others wrote."""
    outcome = Outcome()
    for entry in entries:
        entry.window.fits(len(memory))
    stuck: list[int] = []
    for entry in reversed(entries):
        window, content = entry.window, entry.window.content()
        _replace(memory, window, None, content, entry.bytes)
        held = list(_changed(memory, window, entry.bytes))
        now = {where: memory[window.offset + where : window.offset + where + 1][0] for where in held}
        kept = [where for where in held if where < window.token_length and now[where] == content[where]]
        stuck += [window.offset + where for where in kept]
        outcome.windows += 1
        outcome.restored += window.length - len(held)
        outcome.left += len(held) - len(kept)
    outcome.stuck = _ranges(sorted(set(stuck)))
    return outcome


def restore(kernel: _kernel.Kernel, address: str, memory: Memory, entries: Sequence[Saved]) -> Outcome:
    """Put back what a journal holds, then remove it. Raises IvshmemError where the memory does not take the bytes."""
    try:
        outcome = put_back(memory, entries)
    except IvshmemError as exc:
        raise IvshmemError(f"{path_of(address)}: {exc}; it is kept, and nothing is put back from it") from exc
    if outcome.stuck:
        ranges = ", ".join(f"offset {start}, length {length}" for start, length in outcome.stuck[:8])
        raise IvshmemError(
            f"the memory does not take back {sum(length for _start, length in outcome.stuck)} bytes ({ranges}); "
            f"{path_of(address)} keeps them: make the memory writable, and run again"
        )
    write(kernel, address, [])
    return outcome


def overwrite(kernel: _kernel.Kernel, address: str, memory: Memory, window: Window) -> int:
    """Put the bytes of a window in place, after those of earlier windows came back. How many of them stand there.

    Raises IvshmemError where another proof is at work. The journal is there before the memory changes, so the next
    probe can put the bytes back even when this run dies. A byte that a program has written since it was saved is left
    alone, and is not one of the proof's.
    """
    window.fits(len(memory))
    earlier = read(kernel, address)
    if earlier:
        restore(kernel, address, memory, earlier)
    copy = _around(memory, window.offset, window.end)
    # In what is saved, and once more when it is: another proof may have come and gone in between.
    _refuse_marks(copy, window)
    start = window.offset - copy[0]
    entry = Saved(window, copy[1][start : start + window.length])
    write(kernel, address, [entry])
    content = window.content()
    try:
        _refuse_marks(_around(memory, window.offset, window.end), window)
        _replace(memory, window, entry.bytes, content, content)
        other = list(_changed(memory, window, content))
    except BaseException:
        restore(kernel, address, memory, [entry])
        raise
    if sum(saved != new for saved, new in zip(entry.bytes, content)) == sum(
        entry.bytes[where] != content[where] for where in other
    ):
        restore(kernel, address, memory, [entry])
        raise IvshmemError(f"the memory does not keep what is written (offset {window.offset}, {window.length} bytes)")
    return window.length - len(other)


def standing(memory: Memory, window: Window) -> tuple[int, int]:
    """How many bytes of a token are where it was written, and how many of those that are made from the seed."""
    window.fits(len(memory))
    other = [where for where in _changed(memory, window, window.content()) if where < window.token_length]
    return window.token_length - len(other), window.random - sum(map(window.is_random, other))
