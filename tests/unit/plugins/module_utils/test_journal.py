# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import random
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _journal
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._journal import Saved, Window
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel

A = "0000:00:06.0"
SEED = "5eed" * 8


@pytest.fixture
def kernel(tmp_path):
    return FakeKernel(tmp_path)


def journal(kernel):
    return kernel.path(_journal.path_of(A))


def put_back(kernel, memory):
    return _journal.restore(kernel, A, memory, _journal.read(kernel, A))


@given(
    length=st.integers(32, 400),
    offset=st.integers(0, 50),
    writes=st.lists(st.tuples(st.integers(0, 450), st.binary(min_size=1, max_size=9)), max_size=12),
    randomness=st.randoms(use_true_random=False),
)
def test_each_byte_is_the_old_one_or_that_of_the_program(tmp_path_factory, length, offset, writes, randomness):
    kernel = FakeKernel(tmp_path_factory.mktemp("guest"))
    memory = bytearray(bytes(randomness.getrandbits(8) for _byte in range(500)))
    before = bytes(memory)
    window = Window(offset, length, SEED)
    assert _journal.overwrite(kernel, A, memory, window) == length
    changed, token = bytes(memory), window.content()
    for where, data in writes:
        memory[where : where + len(data)] = data
    expected = bytearray(before)
    for where, byte in enumerate(memory):
        inside = offset <= where < offset + length
        if byte != changed[where] or (not inside and byte != before[where]):
            expected[where] = byte
        elif inside:
            assert token[where - offset] == byte
    outcome = put_back(kernel, memory)
    assert memory == expected
    assert (
        outcome.left == sum(expected[where] != before[where] for where in range(offset, offset + length))
        and not outcome.stuck
    )
    assert not os.path.exists(journal(kernel))


def test_a_run_that_ends_at_any_byte_is_made_good(kernel):
    """Killed while it writes: the window is half the old bytes and half the new ones."""
    before = os.urandom(300)
    window = Window(20, 256, SEED)
    token = window.content()
    for written in range(0, 257):
        memory = bytearray(before)
        _journal.write(kernel, A, [Saved(window, before[20:276])])
        memory[20 : 20 + written] = token[:written]
        put_back(kernel, memory)
        assert memory == before
        # Killed while it puts back, and again after the memory and before the journal.
        _journal.write(kernel, A, [Saved(window, before[20:276])])
        memory[20 + written : 276] = token[written:]
        put_back(kernel, memory)
        assert memory == before


def test_windows_that_lie_over_each_other_come_back_in_turn(kernel):
    memory = bytearray(os.urandom(300))
    before = bytes(memory)
    entries = []
    for number, (offset, length) in enumerate([(0, 200), (100, 200), (50, 64)]):
        window = Window(offset, length, f"{number:032x}")
        entries.append(Saved(window, bytes(memory[offset : offset + length])))
        memory[offset : offset + length] = window.content()
    memory[120:123] = b"app"
    _journal.write(kernel, A, entries)
    outcome = put_back(kernel, memory)
    assert outcome.windows == 3
    assert memory == before[:120] + b"app" + before[123:]


class Busy(bytearray):
    """A memory in which a program writes a byte at each access of the probe: the worst moment, each time."""

    def __init__(self, data):
        super().__init__(data)
        self.theirs = {}
        self.random = random.Random(4)
        self.calls = 0

    def __getitem__(self, where):
        self.calls += 1
        if self.calls % 3 == 0:
            place = self.random.randrange(len(self))
            self.theirs[place] = self.random.choice([0, 0xFF])
            bytearray.__setitem__(self, place, self.theirs[place])
        return bytearray.__getitem__(self, where)


def test_a_program_that_writes_all_the_time_loses_nothing(kernel):
    """It writes 0 and 255, which the proof never does, so whose a byte is can be told."""
    before = bytes(range(1, 255)) * 40
    memory = Busy(before)
    _journal.overwrite(kernel, A, memory, Window(1000, 8000, SEED))
    put_back(kernel, memory)
    found = bytes(bytearray.__getitem__(memory, slice(None)))
    expected = bytearray(before)
    for place, byte in memory.theirs.items():
        expected[place] = byte
    # What was written between the look at a byte and the next line is in danger, as it can be told from nothing.
    wrong = [place for place in range(len(before)) if found[place] != expected[place]]
    assert wrong == []


def test_journal_is_there_before_the_memory_changes(kernel):
    class Watched(bytearray):
        def __setitem__(self, where, value):
            assert os.path.exists(journal(kernel))
            super().__setitem__(where, value)

    memory = Watched(os.urandom(4096))
    _journal.overwrite(kernel, A, memory, Window(0, 4096, SEED))
    assert stat.S_IMODE(os.stat(journal(kernel)).st_mode) == 0o600
    put_back(kernel, memory)


def test_a_full_disk_stops_it_before_the_first_byte(kernel, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    memory = bytearray(4096)
    monkeypatch.setattr(kernel, "replace", full)
    with pytest.raises(IvshmemError, match=r"/run/acrn-ivshmem/0000:00:06.0.json: No space left"):
        _journal.overwrite(kernel, A, memory, Window(0, 4096, SEED))
    assert memory == bytes(4096)


def test_a_mailbox_comes_back_whatever_was_measured_in_it(kernel):
    memory = bytearray(os.urandom(4096))
    before = bytes(memory)
    window = Window(64, 128, SEED, mailbox=32)
    _journal.overwrite(kernel, A, memory, window)
    memory[64 + 96 : 64 + 104] = bytes([200, 0, 0, 0, 17, 0, 0, 0])
    memory[64 + 104 : 64 + 108] = b"\x01\x02\x03\x04"
    put_back(kernel, memory)
    assert memory[64 + 105 : 64 + 108] == b"\x02\x03\x04"
    assert memory[: 64 + 105] == before[: 64 + 105] and memory[64 + 108 :] == before[64 + 108 :]


def good(kernel):
    _journal.write(kernel, A, [Saved(Window(0, 32, SEED), bytes(32))])
    with open(journal(kernel), encoding="utf-8") as handle:
        return handle.read()


def damages(text):
    yield from (text[:length] for length in (0, 1, len(text) // 2, len(text) - 1))
    yield from ("[1]", "[{}]", "{}", "null", "7", '"x"', "[" * 100000, '{"a":' * 100000, "\udcff", "1" * 5000)
    value = json.loads(text)
    yield json.dumps({**value, "format": _journal.FORMAT + 1})
    window = value["windows"][0]
    for change in ({"offset": 1}, {"offset": -1}, {"length": 33}, {"seed": "x"}, {"saved": "AAAA"}, {"saved": None}):
        windows = [{**window, **change}]
        yield json.dumps({**value, "windows": windows})
        yield json.dumps({**value, "windows": windows, "sha256": _journal._digest(windows)})


def test_a_damaged_journal_is_told_and_kept(kernel):
    for text in damages(good(kernel)):
        if '"offset": 1, ' in text and json.loads(text)["sha256"] == _journal._digest(json.loads(text)["windows"]):
            continue  # that is a good one
        data = text.encode("utf-8", "surrogateescape")
        with open(journal(kernel), "wb") as handle:
            handle.write(data)
        memory = bytearray(64)
        told = r"^/run/acrn-ivshmem/0000:00:06.0.json cannot be read.*remove it"
        with pytest.raises(IvshmemError, match=told):
            put_back(kernel, memory)
        with pytest.raises(IvshmemError, match=told):
            _journal.overwrite(kernel, A, memory, Window(0, 32, SEED))
        with open(journal(kernel), "rb") as handle:
            assert handle.read() == data
        assert memory == bytes(64)


def test_a_journal_that_cannot_be_opened_is_not_none(kernel):
    os.makedirs(journal(kernel))
    with pytest.raises(IvshmemError, match="is not a regular file; move it away"):
        _journal.read(kernel, A)


def test_a_journal_of_a_larger_memory_is_told_and_kept(kernel):
    _journal.write(kernel, A, [Saved(Window(100, 32, SEED), bytes(32))])
    with pytest.raises(IvshmemError, match="100 does not lie within 64 bytes; it is kept"):
        put_back(kernel, bytearray(64))
    assert os.path.exists(journal(kernel))


def test_bytes_that_the_memory_does_not_take_back_are_named_and_kept(kernel):
    class Rom(bytearray):
        rom = False

        def __setitem__(self, where, value):
            if not self.rom:
                super().__setitem__(where, value)

    # No byte may be what the probe writes there by chance: it would need no putting back.
    memory = Rom(256)
    memory[32:96] = bytes(byte ^ 0xFF for byte in Window(32, 64, SEED).content())
    _journal.overwrite(kernel, A, memory, Window(32, 64, SEED))
    memory.rom = True
    with pytest.raises(IvshmemError, match=r"does not take back .*offset 32, length 64\); .*0000:00:06.0.json keeps"):
        put_back(kernel, memory)
    memory.rom = False
    put_back(kernel, memory)
    assert not os.path.exists(journal(kernel))


@pytest.mark.parametrize("length", [32, 786_300, 786_400, 2_097_152])
def test_a_window_of_any_length_comes_back(kernel, length):
    memory = bytearray(os.urandom(2 << 20))
    before = bytes(memory)
    _journal.overwrite(kernel, A, memory, Window(0, length, SEED))
    assert memory != before
    assert put_back(kernel, memory).restored == length
    assert memory == before


@pytest.mark.parametrize(
    ("window", "why"),
    [
        ((0, _journal.LIMIT + 1, SEED), "at most 16777216 bytes"),
        ((0, 31, SEED), "too short"),
        ((0, 32, SEED, 20), "too short"),
        ((-1, 32, SEED), "whole numbers"),
        ((0, 32.5, SEED), "whole numbers"),
        ((0, True, SEED), "whole numbers"),
        ((0, 32, "xy"), "hexadecimal"),
        ((0, 32, None), "hexadecimal"),
        ((0, 32, SEED, 0, -1), "whole numbers"),
        ((0, 32, SEED, 0, 16384), "up to 16383"),
        ((0, 8192, SEED, 4100), "at most 4096"),
    ],
)
def test_windows_that_cannot_be_kept_are_refused(window, why):
    with pytest.raises(IvshmemError, match=why):
        Window(*window)


def test_what_programs_write_most_is_never_the_proofs():
    content = Window(0, 1 << 20, SEED).content()
    assert 0 not in content and 0xFF not in content
    assert len(set(content)) == 254


def test_standing_counts_the_bytes_of_the_token():
    window = Window(10, 100, SEED)
    memory = bytearray(200)
    assert _journal.standing(memory, window) == (0, 0)
    memory[10:110] = window.content()
    assert _journal.standing(memory, window) == (100, 72)
    memory[30:34] = bytes(4)
    assert _journal.standing(memory, window) == (96, 68)
    # What all proofs have alike says nothing of this one.
    memory[10:110] = Window(10, 100, SEED[::-1]).content()
    assert _journal.standing(memory, window)[1] < 8


@pytest.mark.parametrize("length", [32, 64, 77, 4096])
@pytest.mark.parametrize("mailbox", [0, 128])
def test_a_window_is_known_from_each_of_its_bytes(length, mailbox):
    memory = bytearray(os.urandom(16384))
    window = Window(8000, length + mailbox, SEED, mailbox, 5)
    memory[8000 : window.end] = window.content()
    for where in range(8000, window.end):
        (mark, *_more) = _journal.marks(memory, where, where + 1)
        assert (mark.end, mark.writer) == (window.end, 5) and mark.offset <= where
    assert not _journal.marks(memory, 0, 8000) and not _journal.marks(memory, window.end, 16384)
    assert len(_journal.marks(memory, 0, 16384)) == -(-(length - 13) // 64)


def test_a_mark_that_is_cut_is_none():
    memory = bytearray(128)
    memory[-8:] = _journal.MARK
    memory[0:8] = _journal.MARK
    assert not _journal.marks(memory, 0, 128)
