# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests without Python: a shell shows what there is and carries out what _guest/_binding decides here.

A look costs one command, and where something has to change, one more acts and looks again. What a guest answers is
nobody's word but its own: what does not fit the form to the letter is refused as a whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils import _lock
from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import DEVICE, VENDOR
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _act, _binding, _kernel, _udev
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Refused

FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "roles", "guest", "files")
MARK = "acrn.ivshmem: "
# Of a file; the scripts give a byte more of a longer one.
BYTES = 65536
# Functions, nodes or names in one directory: ACRN makes eight regions.
ENTRIES = 256
# Linux takes no argument of a program that is longer, and a command is one.
COMMAND = 120_000
TURNS = 3

# Whether it is done: what is to be run, with a shell, in the guest; its output comes back.
Ask = Callable[[str], str]

_WORD = r"[A-Za-z0-9_.:+~-]{1,255}"
_PATH = rf"(?:/{_WORD}){{1,12}}"
_LINES = {
    kind: re.compile(form)
    for kind, form in {
        "r": rf"({_WORD})",
        "g": r"([0-9]{0,10})",
        "f": rf"({_PATH})",
        "x": rf"({_PATH})",
        "e": rf"({_PATH})",
        "l": rf"({_PATH}) ({_WORD})",
        "n": rf"({_PATH}) ({_WORD})",
        "a": rf"([0-9]{{1,10}}) ([0-7]{{1,5}}) ({_PATH})",
    }.items()
}
_HEX = re.compile(r"(?: +[0-9a-f]{2}){1,16} *")
_SUM = re.compile(r"[0-9]{1,10} [0-9]{1,10}")
_FAILED = re.compile(r"failed ([0-9]{1,4}) ([a-z]{1,20})(?: (.*))?")
# What no terminal and no file of ours should get. Tabs and ends of lines are harmless.
_CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f]")


class SeenKernel(_kernel.Kernel):
    """A guest as guest_look.sh has shown it. Raises Refused for what the script does not write."""

    def __init__(self, lines: Iterable[str]) -> None:
        super().__init__()
        self.bytes: dict[str, bytearray] = {}
        self.unread: set[str] = set()
        self.there: set[str] = set()
        self.links: dict[str, str] = {}
        self.entries: dict[str, list[str]] = {}
        self.owners: dict[str, tuple[int, int]] = {}
        self.kernel_release = ""
        self.gid: int | None = None
        current = ""
        for line in lines:
            if current and _HEX.fullmatch(line):
                self.bytes[current] += bytes.fromhex(line)
                if len(self.bytes[current]) > BYTES:
                    raise Refused(f"{current} is longer than {BYTES} bytes")
                continue
            kind, blank, rest = line[:1], line[1:2], line[2:]
            found = _LINES[kind].fullmatch(rest) if kind in _LINES and blank == " " else None
            if not found:
                raise Refused(f"it has a line that is none of the look's: {line[:100]!r}")
            current = ""
            first, *more = found.groups()
            if kind == "f":
                current = first
                if first in self.bytes:
                    raise Refused(f"it has {first} twice")
                self.bytes[first] = bytearray()
            else:
                self._take(kind, first, more)
        if not self.kernel_release:
            raise Refused("it lacks the kernel's release")

    def _take(self, kind: str, first: str, more: list[str]) -> None:
        if kind == "r":
            self.kernel_release = first
        elif kind == "g":
            self.gid = int(first) if first else None
        elif kind == "x":
            self.unread.add(first)
        elif kind == "e":
            self.there.add(first)
        elif kind == "l":
            self.links[first] = more[0]
        elif kind == "n":
            names = self.entries.setdefault(first, [])
            names.append(more[0])
            if len(names) > ENTRIES:
                raise Refused(f"{first} has more than {ENTRIES} entries")
        else:
            self.owners[more[1]] = (int(first), int(more[0], 8))

    def data(self, path: str, size: int = -1) -> bytes | None:
        found = self.bytes.get(path)
        return None if found is None else bytes(found if size < 0 else found[:size])

    def content(self, path: str) -> str | None:
        if path in self.unread:
            raise IvshmemError(f"{path} cannot be read: is this root (become: true)?")
        if path not in self.bytes:
            return None
        text = self.bytes[path].decode("utf-8", "surrogateescape")
        if text.startswith(_udev.MARKER) and _CONTROL.search(text):
            raise IvshmemError(f"{path} has control characters, which nobody but somebody else writes there: remove it")
        return text

    def exists(self, path: str) -> bool:
        return path in self.there or path in self.bytes

    def names(self, path: str) -> list[str]:
        return sorted(self.entries.get(path, []))

    def link(self, path: str) -> str | None:
        return self.links.get(path)

    def access(self, path: str) -> tuple[int, int] | None:
        return self.owners.get(path)

    def release(self) -> str:
        return self.kernel_release

    def group_id(self, name: str) -> int | None:
        return self.gid

    def register(self, address: str, offset: int) -> int | None:
        """No shell maps memory."""
        return None


# -- what is asked -----------------------------------------------------------------------------------------------------


def _text(name: str) -> str:
    with open(os.path.join(FILES, name), encoding="utf-8") as handle:
        return handle.read()


def _call(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _asked(wish: _binding.Wish) -> str:
    files = (
        *_kernel.FILES,
        _kernel.LOCKDOWN,
        _kernel.SYSTEM,
        _kernel.NOIOMMU_PARAMETER,
        _kernel.BOOT_ID,
        _kernel.PROOF,
    )
    words = (f"{VENDOR:#06x}", f"{DEVICE:#06x}", wish.group or "", *files)
    return f"asked() {{ {_call('look', *words)}; }}\n"


def look_script(wish: _binding.Wish) -> str:
    """What shows a guest."""
    return f"{_text('guest_look.sh')}{_asked(wish)}show </dev/null\n"


def act_script(wish: _binding.Wish, todo: _binding.Plan, state: _binding.State, digest: str) -> str:
    """What carries out a plan in a guest that still is as the look with this sum has shown it, and shows it again."""
    steps = [_call("try", action.kind, action.target, action.value) for action in todo.actions]
    back = [_call("step", action.kind, action.target, action.value) for action in _binding.undo(todo, state)]
    lines = [
        # ':' for a plan without files: a function has to do something.
        *("undo() {", *back, ":", "}"),
        # Nothing may read what is to come of this text, which is the shell's standard input.
        "main() {",
        _call("hold", _lock.path_of(_kernel.LOCK), str(int(_lock.LIMIT))),
        _call("unchanged", digest),
        _call("sweep", *_kernel.FOLDERS),
        *steps,
        "show",
        "}",
        "main </dev/null",
    ]
    return _text("guest_look.sh") + _text("guest_act.sh") + _asked(wish) + "\n".join(lines) + "\n"


def command(script: str) -> str:
    """A script as a command for any shell. It is the standard input of sh: nothing is copied, nothing stays behind."""
    # No line of it can be this one, whatever stands in a file of the guest.
    end = f"ACRN_IVSHMEM_{hashlib.sha256(script.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
    text = f"sh -s <<'{end}'\n{script}{end}\n"
    if len(text.encode("utf-8", "surrogateescape")) > COMMAND:
        raise IvshmemError("the files of this guest are too long to be written by a shell: give fewer devices at once")
    return text


# -- what is answered --------------------------------------------------------------------------------------------------


def _parts(output: str) -> tuple[str, list[str], str]:
    """The word of an answer, the lines of what is there, and their sum. Around it, a login may print what it likes."""
    lines = [line.rstrip("\r") for line in output.split("\n")]
    marks = [(index, line[len(MARK) :]) for index, line in enumerate(lines) if line.startswith(MARK)]
    if len(marks) == 1:
        return marks[0][1], [], ""
    if len(marks) != 2 or marks[0][1] != "seen" or not marks[1][1].startswith("end "):
        raise Refused("it is not what the look or the act prints")
    digest = marks[1][1][4:]
    if not _SUM.fullmatch(digest):
        raise Refused("its sum is none")
    return "seen", lines[marks[0][0] + 1 : marks[1][0]], digest


def _refused_step(word: str, todo: _binding.Plan, release: str) -> IvshmemError:
    kind, _blank, detail = word.partition(" ")
    if kind == "locked":
        return IvshmemError(
            f"{_kernel.LOCK}: another process has held the lock for more than {_lock.LIMIT:g} s: {detail.strip()}; "
            "wait for it, or end it if it hangs, and run again"
        )
    if kind == "unlockable":
        return IvshmemError(f"{_kernel.LOCK}: cannot be locked: {detail.strip()}: is this root (become: true)?")
    found = _FAILED.fullmatch(word)
    if not found or not 0 < int(found[1]) <= len(todo.actions):
        raise Refused(f"it is not what the act prints: {word[:100]!r}")
    return _act.failure(todo.actions[int(found[1]) - 1], release, found[2], (found[3] or "").strip())


def carry_out(ask: Ask, wish: _binding.Wish, check: bool) -> tuple[SeenKernel, _binding.Plan]:
    """Bring about a wish; returns the guest as it is afterwards, and what was done, or with ``check`` would be."""
    for _turn in range(TURNS):
        word, lines, digest = _parts(ask(command(look_script(wish))))
        if word != "seen":
            raise Refused("it is not what the look prints")
        seen = SeenKernel(lines)
        state = _binding.observe(seen, wish)
        todo = _binding.plan(state, wish)
        if check or not todo.changed:
            return seen, todo
        word, lines, _digest = _parts(ask(command(act_script(wish, todo, state, digest))))
        if word == "seen":
            return SeenKernel(lines), todo
        if word.strip() != "other":
            raise _refused_step(word, todo, seen.release())
    raise IvshmemError(f"what this guest has was changed by somebody else meanwhile, {TURNS} times: run again")


def run(ask: Ask, module: Any, params: dict[str, Any], check: bool, diff: bool) -> dict[str, Any]:
    """The result of guest_device (``module``) in a guest without Python."""
    seen, todo = carry_out(ask, module.wish_of(params), check)
    return {**module.result_of(seen, todo, diff), "warnings": list(todo.warnings)}
