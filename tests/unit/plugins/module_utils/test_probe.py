# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import mmap
import os
import pathlib
import select
import struct
import tempfile
import time

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils import _pci, _probe
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel

A = "0000:00:06.0"
SIZE = 2 << 20
DEVICE = {"name": "shm", "bdf": "00:06.0", "size": 2}


def guest(folder, memory, vectors=8):
    """A guest whose BAR2 is a file that others can have, too."""
    kernel = FakeKernel(folder)
    kernel.add(A, driver=_pci.UIO, vectors=vectors)
    path = kernel.path(f"{_pci.SYSFS}/devices/{A}/resource2")
    os.unlink(path)
    os.symlink(memory, path)
    kernel.put(f"{_pci.SYSFS}/devices/{A}/resource0", bytes(256))
    return kernel


@pytest.fixture
def tmp_path():
    """A short path, for the path of a Unix socket below it has room for 107 bytes alone."""
    with tempfile.TemporaryDirectory(prefix="iv") as folder:
        yield pathlib.Path(folder)


@pytest.fixture
def memory(tmp_path):
    path = tmp_path / "memory"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def one(tmp_path, memory):
    return guest(tmp_path / "one", memory)


@pytest.fixture
def two(tmp_path, memory):
    return guest(tmp_path / "two", memory)


def step(kernel, operation, check=False, device=None, **options):
    return _probe.run_steps(kernel, [{"operation": operation, "device": device or DEVICE, **options}], check)[0]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (None, None, (SIZE - 4096, 4096)),
        (None, 100, (SIZE - 100, 100)),
        (-8192, 4096, (SIZE - 8192, 4096)),
        (0, SIZE, (0, SIZE)),
    ],
)
def test_window(offset, length, expected):
    assert _probe.position(SIZE, offset, length) == expected


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (-1, 2), (0, SIZE + 1), (0, 0), (-SIZE - 1, 1), (0, -5)])
def test_window_outside_the_memory(offset, length):
    with pytest.raises(IvshmemError, match="do not lie within"):
        _probe.position(SIZE, offset, length)


def test_what_one_writes_the_other_reads_and_all_comes_back(one, two, memory):
    before = memory.read_bytes()
    written = step(one, "write", offset=-8192, length=4096)
    assert written["changed"]
    changed = memory.read_bytes()
    assert changed[:-8192] == before[:-8192] and changed[-4096:] == before[-4096:]
    assert changed[-8192:-4096] != before[-8192:-4096]
    record = written["record"]
    seen = step(two, "read", offset=record["offset"], length=record["token_length"], sha256=record["sha256"])
    assert seen["problems"] == [] and not seen["changed"]
    assert step(one, "restore")["restored"] == 1
    assert memory.read_bytes() == before
    assert step(one, "restore") == {**step(one, "restore"), "changed": False, "restored": 0}


def test_other_bytes_are_a_problem(one, memory):
    found = step(one, "read", sha256="0" * 64)
    assert [problem["what"] for problem in found["problems"]] == ["bytes"]


def test_a_run_that_died_is_made_good_by_the_next(one, memory):
    before = memory.read_bytes()
    step(one, "write")
    # Nobody restores. The next run starts with the bytes that were there first.
    step(one, "write", offset=0, length=64)
    step(one, "restore")
    assert memory.read_bytes() == before
    assert one.names(_probe._pci.RUN) == []


def test_a_peer_puts_back_what_a_lost_guest_has_written(one, two, memory):
    before = memory.read_bytes()
    record = step(one, "write")["record"]
    assert step(two, "restore", records=[record])["restored"] == 1
    assert memory.read_bytes() == before
    # The lost one comes back, with its journal: the token is gone, so it touches nothing.
    with open(memory, "r+b") as handle:
        handle.seek(-4096, 2)
        handle.write(b"new bytes of a program")
    after = memory.read_bytes()
    assert step(one, "restore")["left"] == 1
    assert memory.read_bytes() == after


def test_bytes_of_a_program_are_left_alone(one, memory):
    step(one, "write")
    with open(memory, "r+b") as handle:
        handle.seek(-1, 2)
        last = handle.read(1)
        handle.seek(-1, 2)
        handle.write(bytes([last[0] ^ 0xFF]))
    before = memory.read_bytes()
    result = step(one, "restore")
    assert (result["restored"], result["left"]) == (0, 1)
    assert memory.read_bytes() == before


def test_saved_bytes_of_another_size_are_refused(one, memory):
    record = step(one, "write")["record"]
    step(one, "restore")
    before = memory.read_bytes()
    result = step(one, "restore", records=[{**record, "offset": SIZE - 10}])
    assert "does not fit" in result["problems"][0]["found"]
    assert memory.read_bytes() == before


def test_memory_that_keeps_nothing_is_told_and_left_as_it_was(one):
    class Sieve(bytearray):
        def __setitem__(self, where, value):
            pass

    with pytest.raises(IvshmemError, match="does not keep"):
        _probe.write_token(one, A, Sieve(8192), 0, 4096)
    assert _probe.read_journal(one, A) == []


@pytest.mark.parametrize("operation", _probe.WRITING)
def test_check_mode_writes_nothing(one, memory, operation):
    before, tree = memory.read_bytes(), one.snapshot()
    result = step(one, operation, check=True, peer=1)
    assert result["skipped"] and not result["changed"]
    assert memory.read_bytes() == before and one.snapshot() == tree


@pytest.mark.parametrize(
    ("device", "what"),
    [
        ({**DEVICE, "size": 4}, "size"),
        ({**DEVICE, "bdf": "00:07.0"}, "PCI slot"),
        ({"name": "x", "size": 64}, "PCI function"),
    ],
)
def test_what_is_not_as_declared_is_not_touched(one, memory, device, what):
    before = memory.read_bytes()
    result = step(one, "write", device=device)
    assert [problem["what"] for problem in result["problems"]] == [what]
    assert not result["changed"] and memory.read_bytes() == before


def test_two_functions_of_one_size_are_not_guessed(one):
    one.add("0000:00:07.0", size=2, driver=_pci.UIO)
    result = step(one, "check", device={"name": "x", "size": 2})
    assert "fits 2 functions" in result["problems"][0]["found"]
    # What others name by address is out of the question.
    steps = [{"operation": "check", "device": DEVICE}, {"operation": "check", "device": {"name": "x", "size": 2}}]
    assert [each["bdf"] for each in _probe.run_steps(one, steps)] == ["00:06.0", "00:07.0"]


def test_function_that_is_switched_off(one, memory):
    config = bytearray(one.data(f"{_pci.SYSFS}/devices/{A}/config"))
    config[4] = 0
    one.put(f"{_pci.SYSFS}/devices/{A}/config", bytes(config))
    assert "no driver has enabled it" in step(one, "read")["problems"][0]["found"]


def test_a_step_that_fails_does_not_stop_the_next(one, memory):
    steps = [
        {"operation": "ring", "device": DEVICE, "peer": None},
        {"operation": "hash", "device": DEVICE},
    ]
    first, second = _probe.run_steps(one, steps)
    assert first["problems"] and not second["problems"]
    assert second["length"] == SIZE


def test_doorbell_is_peer_and_vector_in_one_word(one):
    assert step(one, "ring", peer=2, vector=3)["changed"]
    registers = one.data(f"{_pci.SYSFS}/devices/{A}/resource0")
    assert struct.unpack_from("<I", registers, 0x0C)[0] == 2 << 16 | 3
    assert registers[:0x0C] == bytes(0x0C) and registers[0x10:] == bytes(256 - 0x10)


@pytest.mark.parametrize("options", [{}, {"peer": 1 << 16}, {"peer": 1, "vector": -1}])
def test_doorbell_needs_a_peer(one, options):
    assert "needs a peer" in step(one, "ring", **options)["problems"][0]["found"]


def test_region_of_the_device_model_has_no_doorbell(tmp_path, memory):
    kernel = guest(tmp_path / "dm", memory, vectors=0)
    assert "no doorbell" in step(kernel, "ring", peer=1)["problems"][0]["found"]
    assert "no doorbell" in step(kernel, "arm")["reason"]


def test_mainline_uio_cannot_receive(one):
    # A plain file answers the ioctl of acrn-kernel as the mainline driver does: ENOTTY.
    result = step(one, "listen", timeout=0.1)
    assert result["receivable"] is False
    assert result["reason"].startswith("capable, not receivable: needs driver vfio-pci")
    assert result["problems"] == []


def test_ioctl_numbers():
    # asm-generic/ioctl.h: direction << 30 | size << 16 | type << 8 | number
    assert 1 << 30 | 8 << 16 | ord("u") << 8 | 100 == _probe.UIO_MSIX_DATA
    numbers = (0, 1, 2, 3, 4, 6, 8, 10)
    assert [ord(";") << 8 | 100 + number for number in numbers] == [
        _probe.VFIO_GET_API_VERSION,
        _probe.VFIO_CHECK_EXTENSION,
        _probe.VFIO_SET_IOMMU,
        _probe.VFIO_GROUP_GET_STATUS,
        _probe.VFIO_GROUP_SET_CONTAINER,
        _probe.VFIO_GROUP_GET_DEVICE_FD,
        _probe.VFIO_DEVICE_GET_REGION_INFO,
        _probe.VFIO_DEVICE_SET_IRQS,
    ]


def ears(memory, vectors=3):
    with open(memory, "r+b") as handle:
        mapped = _probe.Mapped(mmap.mmap(handle.fileno(), SIZE))
    return _probe.Ears(mapped, [_probe.eventfd() for _vector in range(vectors)])


def test_listen_counts_each_vector(memory):
    listening = ears(memory)
    os.write(listening.events[2], struct.pack("<Q", 2))
    os.write(listening.events[0], struct.pack("<Q", 1))
    assert _probe.listen(listening, 5, wanted=3) == [1, 0, 2]
    begin = time.monotonic()
    assert _probe.listen(listening, 0.2) == [1, 0, 2]
    assert time.monotonic() - begin >= 0.2
    listening.close()


def test_agent_counts_while_no_module_runs(one, memory):
    listening = ears(memory)
    bell = os.dup(listening.events[1])
    _probe.start_agent(one, _pci.read_function(one, A), listening, 30)
    for _turn in range(3):
        os.write(bell, struct.pack("<Q", 1))
    assert _probe.collect(one, A) == [0, 3, 0]
    assert _probe.collect(one, A) is None
    os.close(bell)
    os.wait()


def test_agent_ends_by_itself(one, memory):
    _probe.start_agent(one, _pci.read_function(one, A), ears(memory), 0.2)
    assert os.WEXITSTATUS(os.wait()[1]) == 0
    assert one.names(_probe._pci.RUN) == []
    assert _probe.collect(one, A) is None


def test_round_trips_by_an_agent(one, two, memory):
    memory.write_bytes(bytes(SIZE))
    armed = step(two, "arm", echo=[[64, 128]], timeout=60)
    assert armed["receivable"] is False and armed["problems"] == []
    measured = step(one, "measure", request=64, reply=128)
    assert measured["rounds"] == 200
    assert 0 < measured["round_trip_min_us"] <= measured["round_trip_us"]
    # It has no ears, but has been armed: its counts are there, and empty.
    assert step(two, "collect")["counts"] == []
    os.wait()


def test_peer_that_does_not_answer(memory):
    with open(memory, "r+b") as handle, mmap.mmap(handle.fileno(), SIZE) as mapped:
        mapped[:256] = bytes(256)
        with pytest.raises(IvshmemError, match="has answered 0 of 5 round trips"):
            _probe.round_trips(mapped, 64, 128, rounds=5, timeout=0.1)


def test_throughput_leaves_the_bytes(one, memory):
    before = memory.read_bytes()
    measured = step(one, "measure")
    assert measured["read_mb_s"] > 0 and measured["write_mb_s"] > 0
    assert memory.read_bytes() == before


def test_eventfd_does_not_block():
    handle = _probe.eventfd()
    assert select.select([handle], [], [], 0) == ([], [], [])
    with pytest.raises(BlockingIOError):
        os.read(handle, 8)
    os.close(handle)
