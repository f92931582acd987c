# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fast the memory of a region is, and how soon a peer answers.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _journal
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._mapped import CHUNK, word_at
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


def throughput(memory: mmap.mmap, start: int, length: int, seconds: float = 0.3) -> dict[str, float]:
    """MB/s of reading the whole memory (at most ``seconds``) and of writing a window again and again."""
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        where = done % len(memory)
        done += len(memory[where : where + CHUNK])
    read = done / (time.perf_counter() - begin)
    block = memory[start : start + length]
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for _turn in range(64):
            memory[start : start + length] = block
        done += 64 * length
    wrote = done / (time.perf_counter() - begin)
    return {"read_mb_s": round(read / 1e6, 1), "write_mb_s": round(wrote / 1e6, 1)}


def round_trips(
    memory: mmap.mmap, request: int, reply: int, rounds: int = _journal.ROUNDS, timeout: float = 10.0
) -> dict[str, float]:
    """Microseconds from storing a word until the peer's agent has answered it in its own word."""
    ask, answer = word_at(memory, request), word_at(memory, reply)
    times: list[float] = []
    limit = time.monotonic() + timeout
    try:
        for number in range(1, rounds + 1):
            begin = time.perf_counter()
            ask.value = number
            while answer.value != number:
                if time.monotonic() > limit:
                    raise IvshmemError(f"the peer has answered {len(times)} of {rounds} round trips in {timeout:g} s")
                os.sched_yield()
            times.append((time.perf_counter() - begin) * 1e6)
    finally:
        del ask, answer
    return {
        "round_trip_us": round(statistics.median(times), 1),
        "round_trip_min_us": round(min(times), 1),
        "rounds": len(times),
    }
