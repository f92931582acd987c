# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of a proof, as guest_probe gets them: what each does, and what it answers.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _functions, _idle, _journal, _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._figures import round_trips, throughput
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._interrupts import (
    Ears,
    listen,
    listen_on,
    start_agent,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._listener import agent_pid, collect
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._mapped import CHUNK, Mapped, opened
from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Device, IvshmemError

WINDOW = 4096
# Into how many parts a memory is cut for comparing it with that of a peer.
PARTS = 64
WRITING = ("write", "restore", "ring", "arm", "listen", "measure")


def position(size: int, offset: int | None, length: int | None) -> tuple[int, int]:
    """Offset and length of a window in ``size`` bytes, by default the last 4 KiB. A negative offset is from the end."""
    length = WINDOW if length is None else length
    offset = -length if offset is None else offset
    start = size + offset if offset < 0 else offset
    if length < 1 or start < 0 or start + length > size:
        raise IvshmemError(f"offset {offset} and length {length} do not lie within the {size} bytes of the memory")
    return start, length


def digests(memory: mmap.mmap, start: int, length: int, nonce: str) -> tuple[list[str], list[int]]:
    """Salted digests of the parts of a window, and which of them hold anything but zeros.

    Whoever does not know the nonce cannot find out by guessing what a part holds.
    """
    sums, used = [], []
    each = -(-length // PARTS)
    for number, part in enumerate(range(start, start + length, each)):
        end = min(part + each, start + length)
        result = hashlib.sha256(nonce.encode() + number.to_bytes(2, "little"))
        blank = True
        for where in range(part, end, CHUNK):
            piece = memory[where : min(where + CHUNK, end)]
            blank = blank and piece == bytes(len(piece))
            result.update(piece)
        sums.append(result.hexdigest()[:32])
        if not blank:
            used.append(number)
    return sums, used


def keep_proof(kernel: _kernel.Kernel, text: str) -> None:
    """Keep a text until the guest boots again or a step writes. Without one, nothing is kept any more."""
    with held(_kernel.LOCK, what="guest_probe"):
        if not text:
            kernel.remove(_kernel.PROOF)
            return
        _kernel.make_folder(kernel)
        kernel.replace(_kernel.PROOF, text)


class Found:
    """Which function each device of the steps is, or what is wrong with it."""

    def __init__(self, functions: Sequence[_functions.Function], devices: Iterable[Device]) -> None:
        self.functions = functions
        self.chosen: dict[Device, _functions.Function | None] = {}
        self.problems: dict[Device, list[dict[str, str]]] = {}
        unique = list(dict.fromkeys(devices))
        by_address = {function.address: function for function in functions}
        for device in unique:
            if device.address:
                self._take(device, by_address.get(device.address))
        taken = {function.address for function in self.chosen.values() if function}
        rest = [function for function in functions if function.address not in taken]
        for device, function in self._by_size(rest, [device for device in unique if not device.address]).items():
            self._take(device, function)

    def _by_size(
        self, functions: Sequence[_functions.Function], devices: Sequence[Device]
    ) -> dict[Device, _functions.Function | None]:
        try:
            return _functions.select(functions, devices)
        except IvshmemError:
            result: dict[Device, _functions.Function | None] = {}
            for device in devices:
                try:
                    result.update(_functions.select(functions, [device]))
                except IvshmemError as exc:
                    self.problems[device] = [{"what": "PCI function", "expected": "one", "found": str(exc)}]
            return result

    def _take(self, device: Device, function: _functions.Function | None) -> None:
        if function is None:
            what, expected = "PCI function", device.describe()
            if device.address:
                what, expected = "PCI slot", _functions.short(device.address)
            found = f"no ivshmem function there; this guest has {_functions.listing(self.functions)}"
            self.problems[device] = [{"what": what, "expected": expected, "found": found}]
            return
        self.chosen[device] = function
        self.problems[device] = [
            {"what": what, "expected": expected, "found": found}
            for what, expected, found in _functions.differences(device, function)
        ]


@contextlib.contextmanager
def _memory(kernel: _kernel.Kernel, function: _functions.Function, writable: bool = True) -> Iterator[Mapped]:
    mapped = opened(kernel, function, writable)
    try:
        yield mapped
    finally:
        mapped.close()


def _window(step: Mapping[str, Any], size: int) -> _journal.Window:
    start, length = position(size, step.get("offset"), step.get("length"))
    seed = step.get("seed") or _journal.random_seed()
    return _journal.Window(start, length, seed, step.get("mailbox") or 0, _writer(step))


def _writer(step: Mapping[str, Any]) -> int:
    writer = step.get("writer")
    return _journal.NOBODY if writer is None else writer


def _users(kernel: _kernel.Kernel, function: _functions.Function) -> list[str]:
    return _idle.users(kernel, function, agent_pid(kernel, function.address))


def _step_look(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    facts = _functions.facts(kernel, function)
    names = ("size", "region_id", "vectors", "iv_position")
    users = _users(kernel, function)
    saved = _journal.read(kernel, function.address)
    pending = len(saved)
    # A function that cannot be mapped says so when it is written to.
    with contextlib.suppress(IvshmemError):
        if step.get("writer") is not None:
            with _memory(kernel, function, writable=False) as mapped:
                pending += len(_forgotten(function, mapped.memory, step, saved))
    return {**{name: facts[name] for name in names}, "users": users[:8], "idle": not users, "pending": pending}


def _forgotten(
    function: _functions.Function, memory: mmap.mmap, step: Mapping[str, Any], saved: Sequence[_journal.Saved]
) -> list[_journal.Mark]:
    """Marks in the window of a step that nobody will take away any more."""
    start, length = position(function.size, step.get("offset"), step.get("length"))
    return _journal.forgotten(memory, start, start + length, _writer(step), saved)


def _step_write(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    window = _window(step, function.size)
    # One that an earlier, broken run left behind might answer into the window.
    collect(kernel, function.address)
    record = {
        "offset": window.offset,
        "length": window.length,
        "token_length": window.token_length,
        "seed": window.seed,
    }
    if not step.get("only_idle"):
        with _memory(kernel, function) as mapped:
            written = _journal.overwrite(kernel, function.address, mapped.memory, window)
        return {"changed": True, "idle": None, "written": written, "record": record}
    users = _users(kernel, function)
    if users:
        return {"idle": False, "users": users[:8]}
    with _memory(kernel, function) as mapped:
        written = _journal.overwrite(kernel, function.address, mapped.memory, window)
        users = _users(kernel, function)
        if users:
            # Somebody came while this wrote: the bytes are gone again before he has made much of them.
            _restored(kernel, function, mapped.memory)
            return {"changed": True, "idle": False, "users": users[:8]}
    return {"changed": True, "idle": True, "written": written, "record": record}


def _step_read(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    if not step.get("seed"):
        raise IvshmemError("read needs the seed of a write")
    window = _window({**step, "mailbox": 0}, function.size)
    with _memory(kernel, function, writable=False) as mapped:
        found, random = _journal.standing(mapped.memory, window)
    result: dict[str, Any] = {"offset": window.offset, "length": window.length, "same": found}
    # A program that writes in the window takes some bytes; chance gives one of 254.
    if random < min(window.random, max(_journal.LEAST // 2, window.random // 8)):
        expected = f"what was written at {window.offset}, {window.length} bytes"
        result["problems"] = [{"what": "bytes", "expected": expected, "found": f"{found} of these bytes"}]
    return result


def _step_hash(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    if not _journal.SEED.fullmatch(step.get("nonce") or ""):
        raise IvshmemError("hash needs a nonce of 32 to 128 hexadecimal digits, the same in all guests")
    with _memory(kernel, function, writable=False) as mapped:
        sums, used = digests(mapped.memory, 0, function.size, step["nonce"])
    return {"sums": sums, "used": used}


def _restored(kernel: _kernel.Kernel, function: _functions.Function, memory: mmap.mmap) -> _journal.Outcome:
    return _journal.restore(kernel, function.address, memory, _journal.read(kernel, function.address))


def _step_restore(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    outcome = _journal.Outcome()
    collect(kernel, function.address)
    entries = _journal.read(kernel, function.address)
    lost = 0
    # With a seed, it is also seen whether a window is still as it was written, though no journal has its bytes; with a
    # writer, whether any of that one is.
    if entries or step.get("seed") or step.get("writer") is not None:
        with _memory(kernel, function) as mapped:
            if entries:
                outcome = _restored(kernel, function, mapped.memory)
            # What the journal had is back, and it is empty.
            forgotten = _forgotten(function, mapped.memory, step, ())
            if step.get("seed") and not any(entry.window.seed == step["seed"] for entry in entries):
                window = _window(step, function.size)
                lost = _lost(mapped.memory, window)
                if lost:
                    there = _journal.marks(mapped.memory, window.offset, window.end)
                    forgotten += [mark for mark in there if mark.writer == window.writer]
            _journal.unmark(mapped.memory, forgotten)
    result: dict[str, Any] = {
        "changed": outcome.restored > 0,
        "windows": outcome.windows,
        "restored": outcome.restored,
        "left": outcome.left,
        "lost": lost,
    }
    if lost:
        window = _window(step, function.size)
        found = f"{lost} bytes at offset {window.offset}, length {window.length}, are still those of the proof"
        found += ", and no journal has what was there: has the guest booted again?"
        result["problems"] = [{"what": "bytes put back", "expected": "all", "found": found}]
    return result


def _lost(memory: mmap.mmap, window: _journal.Window) -> int:
    """Bytes of a token that nobody can put back; chance does not count."""
    found, random = _journal.standing(memory, window)
    return found if random >= max(_journal.LEAST // 4, window.random // 16) else 0


def _step_ring(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    peer, vector = step.get("peer"), step.get("vector") or 0
    if peer is None or not 0 <= peer <= 0xFFFF or not 0 <= vector <= 0xFFFF:
        raise IvshmemError(f"ring needs a peer (the VM ID of the receiver) and a vector, not {peer} and {vector}")
    if not function.vectors:
        raise IvshmemError(f"function {function.bdf} has no doorbell (no MSI-X; regions of the Device Model have none)")
    count = step.get("count") or 1
    with _memory(kernel, function) as mapped:
        for _turn in range(count):
            mapped.ring(peer, vector)
    return {"changed": True, "peer": peer, "vector": vector, "count": count}


def _words(pair: Any, size: int) -> tuple[int, int]:
    """Offsets of two words in the memory."""
    words = list(pair) if isinstance(pair, (list, tuple)) else []
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in words)
    if len(words) != 2 or not whole or not all(0 <= each <= size - 4 and each % 4 == 0 for each in words):
        raise IvshmemError(f"{pair!r} are not the offsets of two words in {size} bytes (multiples of 4)")
    return words[0], words[1]


def _in_mailbox(windows: Iterable[_journal.Window], word: int) -> bool:
    return any(each.offset + each.token_length <= word <= each.offset + each.length - 4 for each in windows)


def _answered(kernel: _kernel.Kernel, function: _functions.Function, pairs: Iterable[Any]) -> list[tuple[int, int]]:
    """The pairs of words that are to be echoed. What is in the place of an answer has to be in the journal."""
    echo = [_words(pair, function.size) for pair in pairs]
    windows = [entry.window for entry in _journal.read(kernel, function.address)] if echo else []
    if not windows:
        # The write has found that somebody uses the memory, or there was none: nobody measures.
        return []
    for _request, reply in echo:
        if not _in_mailbox(windows, reply):
            raise IvshmemError("arm answers in the mailbox of an earlier write, and nowhere else")
    return echo


def _step_arm(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    echo = _answered(kernel, function, step.get("echo") or [])
    # An agent that an earlier, broken run left behind would keep the group to itself.
    collect(kernel, function.address)
    ears = listen_on(kernel, function)
    receivable = not isinstance(ears, str)
    result = {"receivable": receivable, "vectors": function.vectors, "reason": None if receivable else ears}
    if isinstance(ears, str):
        if not echo:
            return result
        ears = Ears(opened(kernel, function), [])
    start_agent(kernel, function, ears, step.get("timeout") or 300, echo)
    return result


def _step_collect(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    return {"counts": collect(kernel, function.address)}


def _step_listen(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    ears = listen_on(kernel, function)
    if isinstance(ears, str):
        return {"receivable": False, "reason": ears, "counts": None}
    try:
        counts = listen(ears, step.get("timeout") or 10, step.get("count") or 0)
    finally:
        ears.close()
    result: dict[str, Any] = {"receivable": True, "reason": None, "counts": counts}
    wanted = step.get("count") or 0
    if sum(counts) < wanted:
        found = f"{sum(counts)} in {step.get('timeout') or 10:g} s"
        result["problems"] = [{"what": "interrupts", "expected": str(wanted), "found": found}]
    return result


def _step_measure(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"changed": True}
    with _memory(kernel, function) as mapped:
        windows = [entry.window for entry in _journal.read(kernel, function.address)]
        if step.get("request") is None:
            start, length = position(function.size, step.get("offset"), step.get("length"))
            if not any(each.offset <= start and start + length <= each.offset + each.token_length for each in windows):
                raise IvshmemError("measure writes where an earlier write has saved the bytes, and nowhere else")
            result.update(throughput(mapped.memory, start, length))
        else:
            request, reply = _words([step["request"], step.get("reply")], function.size)
            if not _in_mailbox(windows, request):
                raise IvshmemError("measure asks in the mailbox of an earlier write, and nowhere else")
            result.update(round_trips(mapped.memory, request, reply))
    return result


def _step_check(kernel: _kernel.Kernel, function: _functions.Function, step: Mapping[str, Any]) -> dict[str, Any]:
    return {}


STEPS = {
    "check": _step_check,
    "look": _step_look,
    "write": _step_write,
    "read": _step_read,
    "hash": _step_hash,
    "restore": _step_restore,
    "ring": _step_ring,
    "arm": _step_arm,
    "collect": _step_collect,
    "listen": _step_listen,
    "measure": _step_measure,
}


def run_steps(
    kernel: _kernel.Kernel, steps: Sequence[Mapping[str, Any]], check_mode: bool = False
) -> list[dict[str, Any]]:
    """The result of each step, in order: ``problems`` is empty where all is as expected. No step stops the next.

    In check mode, steps that write (to memory, registers or interrupts) are skipped.
    """
    devices = [_functions.parse_device(step["device"]) for step in steps]
    if check_mode or not any(step["operation"] in WRITING for step in steps):
        return _run_all(kernel, steps, devices, check_mode)
    with held(_kernel.LOCK, what="guest_probe") as kernel.locks:
        try:
            # A proof that is being made again no longer stands.
            kernel.remove(_kernel.PROOF)
            return _run_all(kernel, steps, devices, check_mode)
        finally:
            kernel.locks = ()


def _run_all(
    kernel: _kernel.Kernel, steps: Sequence[Mapping[str, Any]], devices: Sequence[Device], check_mode: bool
) -> list[dict[str, Any]]:
    found = Found(_functions.scan(kernel), devices)
    results = []
    for step, device in zip(steps, devices):
        function = found.chosen.get(device)
        result: dict[str, Any] = {
            "operation": step["operation"],
            "bdf": function.bdf if function else None,
            "driver": function.driver if function else None,
            "changed": False,
            "skipped": False,
            "problems": list(found.problems.get(device, [])),
        }
        results.append(result)
        if function is None or result["problems"]:
            continue
        if check_mode and step["operation"] in WRITING:
            result["skipped"] = True
            continue
        try:
            result.update(STEPS[step["operation"]](kernel, function, step))
        except (IvshmemError, OSError, ValueError) as exc:
            why = _kernel.told(exc, exc.filename or function.bdf) if isinstance(exc, OSError) else exc
            result["problems"] = [{"what": step["operation"], "expected": "done", "found": str(why)}]
    return results
