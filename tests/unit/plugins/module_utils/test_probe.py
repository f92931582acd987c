# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import json
import mmap
import os
import pathlib
import select
import socket
import struct
import tempfile
import time

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import (
    _figures,
    _functions,
    _idle,
    _interrupts,
    _journal,
    _kernel,
    _listener,
    _mapped,
    _probe,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel

A = "0000:00:06.0"
SIZE = 2 << 20
DEVICE = {"name": "shm", "bdf": "00:06.0", "size": 2}


def guest(folder, memory, vectors=8):
    """A guest whose BAR2 is a file that others can have, too."""
    kernel = FakeKernel(folder)
    kernel.add(A, driver=_kernel.UIO, vectors=vectors)
    path = kernel.path(f"{_kernel.SYSFS}/devices/{A}/resource2")
    os.unlink(path)
    os.symlink(memory, path)
    kernel.put(f"{_kernel.SYSFS}/devices/{A}/resource0", bytes(256))
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


SEED = "5eed" * 8


def test_what_one_writes_the_other_reads_and_all_comes_back(one, two, memory):
    before = memory.read_bytes()
    written = step(one, "write", offset=-8192, length=4096, seed=SEED)
    assert written["changed"] and written["written"] == 4096
    changed = memory.read_bytes()
    assert changed[:-8192] == before[:-8192] and changed[-4096:] == before[-4096:]
    assert changed[-8192:-4096] != before[-8192:-4096]
    seen = step(two, "read", offset=-8192, length=4096, seed=SEED)
    assert seen["problems"] == [] and not seen["changed"] and seen["same"] == 4096
    back = step(one, "restore", offset=-8192, length=4096, seed=SEED)
    assert (back["windows"], back["restored"], back["left"], back["lost"]) == (1, 4096, 0, 0)
    assert memory.read_bytes() == before
    again = step(one, "restore", offset=-8192, length=4096, seed=SEED)
    assert not again["changed"] and again["windows"] == 0 and again["problems"] == []


def test_nothing_of_the_memory_is_in_a_result(one, memory):
    secret = b"PASSWORD=hunter2"
    memory.write_bytes(secret * (SIZE // 16))
    steps = [
        {"operation": operation, "device": DEVICE, "seed": SEED, "nonce": "ab" * 16}
        for operation in ("look", "hash", "read", "write", "read", "restore", "check")
    ]
    results = _probe.run_steps(one, steps)
    assert {tuple(result) for result in results if result["operation"] == "write"}
    text = json.dumps(results)
    sums = [hashlib.sha256(secret * count).hexdigest() for count in (1, 256, SIZE // 16, SIZE // 16 // 64)]
    for told in (secret.decode(), base64.b64encode(secret).decode()[:18], secret.hex(), *(each[:16] for each in sums)):
        assert told not in text
    assert "saved" not in text


def test_bytes_of_another_seed_are_a_problem(one, memory):
    found = step(one, "read", seed=SEED)
    assert [problem["what"] for problem in found["problems"]] == ["bytes"]


def test_a_program_that_writes_in_the_window_hinders_no_reader(one, two, memory):
    step(one, "write", seed=SEED)
    with open(memory, "r+b") as handle:
        handle.seek(-3000, 2)
        handle.write(b"a program")
    seen = step(two, "read", seed=SEED)
    assert seen["problems"] == [] and 4096 - 9 <= seen["same"] < 4096


def test_a_run_that_died_is_made_good_by_the_next(one, memory):
    before = memory.read_bytes()
    step(one, "write")
    # Nobody restores. The next run starts with the bytes that were there first.
    step(one, "write", offset=0, length=64)
    step(one, "restore")
    assert memory.read_bytes() == before
    assert one.names(_kernel.RUN) == []


def test_bytes_that_nobody_can_put_back_are_named(one, memory):
    step(one, "write", seed=SEED, offset=512, length=64)
    # The guest boots again: its journal is gone, and the memory is not.
    one.remove(_journal.path_of(A))
    result = step(one, "restore", seed=SEED, offset=512, length=64)
    assert result["lost"] == 64
    (problem,) = result["problems"]
    assert problem["what"] == "bytes put back"
    assert problem["found"].startswith("64 bytes at offset 512, length 64, are still those of the proof")


@pytest.mark.parametrize("place", [-1, -3000, -4096])
def test_one_byte_of_a_program_costs_no_other(one, memory, place):
    before = bytearray(memory.read_bytes())
    step(one, "write")
    with open(memory, "r+b") as handle:
        handle.seek(place, 2)
        handle.write(bytes(1))
    before[place] = 0
    result = step(one, "restore")
    assert result["left"] <= 1 and result["problems"] == []
    assert memory.read_bytes() == before


@pytest.mark.parametrize("text", ["[1]", "[{}]", "[" * 100000, ""])
def test_a_damaged_journal_stops_no_other_region(one, memory, tmp_path, text):
    one.add("0000:00:07.0", driver=_kernel.UIO)
    one.put(f"{_kernel.SYSFS}/devices/0000:00:07.0/resource2", bytes(SIZE))
    one.put(_journal.path_of(A), text)
    before = memory.read_bytes()
    other = {"name": "b", "bdf": "00:07.0", "size": 2}
    steps = [{"operation": name, "device": device} for name in ("write", "restore") for device in (DEVICE, other)]
    first, second, third, fourth = _probe.run_steps(one, steps)
    for bad in (first, third):
        assert "/run/acrn-ivshmem/0000:00:06.0.json cannot be read" in bad["problems"][0]["found"]
    assert second["problems"] == fourth["problems"] == [] and fourth["restored"] == 4096
    assert memory.read_bytes() == before and one.text(_journal.path_of(A)) == text


def probes(kernel, memory, count, rounds):
    """Processes that write and put back at the same time."""
    children = []
    for _child in range(count):
        child = os.fork()
        if not child:
            status = 1
            try:
                for _round in range(rounds):
                    for operation in ("write", "restore"):
                        assert not step(kernel, operation)["problems"]
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    return [os.WEXITSTATUS(os.waitpid(child, 0)[1]) for child in children]


def test_probes_at_the_same_time_lose_no_byte(one, memory):
    before = memory.read_bytes()
    assert probes(one, memory, 4, 15) == [0] * 4
    assert memory.read_bytes() == before
    assert one.names(_kernel.RUN) == []


def test_the_lock_is_not_held_by_the_process_that_listens(one, memory):
    step(one, "write", offset=96, length=80, mailbox=16)
    assert step(one, "arm", echo=[[64, 160]], timeout=60)["problems"] == []
    with held(_kernel.LOCK, limit=5):
        pass
    step(one, "collect")
    os.wait()


class Users:
    """Processes of a guest, as /proc shows them."""

    def __init__(self, kernel):
        self.kernel = kernel
        kernel.put("/proc/1/comm", "init\n")
        kernel.put("/proc/1/maps", "7f00-7f01 r--p 00000000 08:01 1234  /usr/lib/libc.so.6\n7f01-7f02 rw-p 0 00:00 0\n")
        os.makedirs(kernel.path("/proc/1/fd"))

    def add(self, pid, maps="", opened=()):
        self.kernel.put(f"/proc/{pid}/comm", "camera\n")
        self.kernel.put(f"/proc/{pid}/maps", maps)
        os.makedirs(self.kernel.path(f"/proc/{pid}/fd"))
        for number, name in enumerate(opened):
            os.symlink(name, self.kernel.path(f"/proc/{pid}/fd/{number}"))


def test_a_function_that_nobody_uses_is_idle(one, memory):
    Users(one)
    looked = step(one, "look")
    assert looked["idle"] and looked["users"] == [] and looked["iv_position"] == 7 and looked["vectors"] == 8
    assert step(one, "write", only_idle=True, length=64)["idle"] is True
    step(one, "restore")


@pytest.mark.parametrize(
    "use",
    [
        {"maps": f"7f0-7f1 rw-s 0 00:16 12 /sys/devices/pci0000:00/{A}/resource2\n"},
        {"maps": f"7f0-7f1 rw-s 0 00:16 12 /sys/devices/pci0000:00/{A}/resource2_wc (deleted)\n"},
        {"maps": "7f0-7f1 rw-s 0 00:05 12 /dev/uio3\n"},
        {"maps": "7f0-7f1 rw-s fe000000 00:05 12 /dev/mem\n"},
        {"opened": ["/dev/uio3"]},
        {"opened": ["socket:[1]", f"/sys/devices/pci0000:00/{A}/resource0"]},
    ],
)
def test_who_uses_a_function_is_left_alone(one, memory, use):
    Users(one).add(812, **use)
    before = memory.read_bytes()
    looked = step(one, "look")
    assert looked["idle"] is False and looked["users"] == ["camera (process 812)"]
    written = step(one, "write", only_idle=True, length=64)
    assert written["idle"] is False and not written["changed"] and "record" not in written
    assert written["users"] == ["camera (process 812)"]
    assert memory.read_bytes() == before and one.names(_kernel.RUN) == []


def test_other_functions_and_nodes_are_no_use_of_this_one(one, memory):
    maps = "7f0-7f1 rw-s 0 00:16 12 /sys/devices/pci0000:00/0000:00:07.0/resource2\n"
    Users(one).add(812, maps=maps, opened=["/dev/uio33", "/dev/uio4", "/dev/memory", "/home/uio3"])
    assert step(one, "look")["idle"] is True


def test_a_process_that_cannot_be_looked_at_may_be_a_user(one, monkeypatch):
    Users(one).add(812)

    def refuse(_self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_idle._Process, "opened", refuse)
    assert "cannot be looked at" in step(one, "look")["users"][0]


def test_without_proc_nothing_is_idle(one, memory):
    assert step(one, "look")["idle"] is False


def test_another_driver_is_a_user(tmp_path, memory):
    kernel = guest(tmp_path / "other", memory)
    path = kernel.path(f"{_kernel.SYSFS}/devices/{A}/driver")
    os.unlink(path)
    os.symlink("../../../bus/pci/drivers/ivshmem", path)
    Users(kernel)
    assert step(kernel, "look")["users"] == ["driver ivshmem"]


def test_who_comes_while_it_writes_gets_his_bytes_back_at_once(one, memory, monkeypatch):
    users = Users(one)
    before = memory.read_bytes()
    real = _journal.overwrite

    def overwrite(*arguments):
        result = real(*arguments)
        users.add(812, opened=["/dev/uio3"])
        return result

    monkeypatch.setattr(_journal, "overwrite", overwrite)
    written = step(one, "write", only_idle=True, length=64)
    assert written["idle"] is False and "record" not in written
    assert memory.read_bytes() == before and one.names(_kernel.RUN) == []


def test_parts_of_a_memory_are_salted(one, two, memory):
    memory.write_bytes(bytes(SIZE - 10) + b"0123456789")
    first, second = (step(kernel, "hash", nonce="ab" * 16) for kernel in (one, two))
    assert first["sums"] == second["sums"] and first["used"] == [63]
    assert len(set(first["sums"])) == 64  # zeros do not look alike, either
    assert not set(first["sums"]) & set(step(one, "hash", nonce="cd" * 16)["sums"])
    assert "nonce" in step(one, "hash")["problems"][0]["found"]


def test_a_memory_that_is_shorter_than_its_bar_is_told(one, memory):
    os.truncate(memory, 4096)
    for operation in ("read", "write", "hash"):
        found = step(one, operation, seed=SEED, nonce="ab" * 16)["problems"][0]["found"]
        assert "resource2 cannot be mapped: it is shorter than the 2097152 bytes of its BAR" in found


@pytest.mark.parametrize(
    "text", ["garbage\n", "0x0 zz 0x1\n" * 3, "0x5 0x1 0x200\n" * 7, f"0x0 0x{'f' * 40} 0x1\n" * 7, ""]
)
def test_a_resource_file_that_cannot_be_read_fits_no_declaration(one, text):
    one.put(f"{_kernel.SYSFS}/devices/{A}/resource", text)
    assert [problem["what"] for problem in step(one, "write")["problems"]] == ["size"]


@pytest.mark.parametrize(
    ("operation", "options"),
    [
        *(
            ("arm", {"echo": echo})
            for echo in ([[1]], [1], [["a", "b"]], [[-4, 0]], [[0, SIZE]], [[2, 4]], [None], [[0, 4, 8]])
        ),
        *(("measure", {"request": 0, "reply": reply}) for reply in (None, -4, SIZE, 2, "x", 1 << 70)),
        ("measure", {"request": 1 << 70, "reply": 0}),
        ("measure", {"offset": 1 << 70}),
        ("read", {"offset": 1 << 70, "seed": SEED}),
        ("write", {"seed": "z"}),
        ("write", {"mailbox": 1 << 40}),
        ("ring", {"peer": 1 << 70}),
    ],
)
def test_steps_that_cannot_be_are_told(one, memory, operation, options):
    before = memory.read_bytes()
    (problem,) = step(one, operation, **options)["problems"]
    assert problem["what"] == operation and problem["found"]
    assert memory.read_bytes() == before


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
    one.add("0000:00:07.0", size=2, driver=_kernel.UIO)
    result = step(one, "check", device={"name": "x", "size": 2})
    assert "fits 2 functions" in result["problems"][0]["found"]
    # What others name by address is out of the question.
    steps = [{"operation": "check", "device": DEVICE}, {"operation": "check", "device": {"name": "x", "size": 2}}]
    assert [each["bdf"] for each in _probe.run_steps(one, steps)] == ["00:06.0", "00:07.0"]


def test_function_that_is_switched_off(one, memory):
    config = bytearray(one.data(f"{_kernel.SYSFS}/devices/{A}/config"))
    config[4] = 0
    one.put(f"{_kernel.SYSFS}/devices/{A}/config", bytes(config))
    assert "no driver has enabled it" in step(one, "read", seed=SEED)["problems"][0]["found"]


def test_a_step_that_fails_does_not_stop_the_next(one, memory):
    steps = [
        {"operation": "ring", "device": DEVICE, "peer": None},
        {"operation": "hash", "device": DEVICE, "nonce": "ab" * 16},
    ]
    first, second = _probe.run_steps(one, steps)
    assert first["problems"] and not second["problems"]
    assert len(second["sums"]) == 64


def test_doorbell_is_peer_and_vector_in_one_word(one):
    assert step(one, "ring", peer=2, vector=3)["changed"]
    registers = one.data(f"{_kernel.SYSFS}/devices/{A}/resource0")
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
    assert 1 << 30 | 8 << 16 | ord("u") << 8 | 100 == _interrupts.UIO_MSIX_DATA
    numbers = (0, 1, 2, 3, 4, 6, 8, 10)
    assert [ord(";") << 8 | 100 + number for number in numbers] == [
        _mapped.VFIO_GET_API_VERSION,
        _mapped.VFIO_CHECK_EXTENSION,
        _mapped.VFIO_SET_IOMMU,
        _mapped.VFIO_GROUP_GET_STATUS,
        _mapped.VFIO_GROUP_SET_CONTAINER,
        _mapped.VFIO_GROUP_GET_DEVICE_FD,
        _mapped.VFIO_DEVICE_GET_REGION_INFO,
        _mapped.VFIO_DEVICE_SET_IRQS,
    ]


def ears(memory, vectors=3):
    with open(memory, "r+b") as handle:
        mapped = _mapped.Mapped(mmap.mmap(handle.fileno(), SIZE))
    return _interrupts.Ears(mapped, [_interrupts.eventfd() for _vector in range(vectors)])


def test_listen_counts_each_vector(memory):
    listening = ears(memory)
    os.write(listening.events[2], struct.pack("<Q", 2))
    os.write(listening.events[0], struct.pack("<Q", 1))
    assert _interrupts.listen(listening, 5, wanted=3) == [1, 0, 2]
    begin = time.monotonic()
    assert _interrupts.listen(listening, 0.2) == [1, 0, 2]
    assert time.monotonic() - begin >= 0.2
    listening.close()


def test_agent_counts_while_no_module_runs(one, memory):
    listening = ears(memory)
    bell = os.dup(listening.events[1])
    _interrupts.start_agent(one, _functions.read_function(one, A), listening, 30)
    for _turn in range(3):
        os.write(bell, struct.pack("<Q", 1))
    assert _listener.collect(one, A) == [0, 3, 0]
    assert _listener.collect(one, A) is None
    os.close(bell)
    os.wait()


def test_agent_ends_by_itself(one, memory):
    _interrupts.start_agent(one, _functions.read_function(one, A), ears(memory), 0.2)
    assert os.WEXITSTATUS(os.wait()[1]) == 0
    assert one.names(_kernel.RUN) == []
    assert _listener.collect(one, A) is None


def test_round_trips_by_an_agent(one, two, memory):
    before = memory.read_bytes()
    step(one, "write", offset=0, length=80, mailbox=16)
    step(two, "write", offset=96, length=80, mailbox=16)
    armed = step(two, "arm", echo=[[64, 160]], timeout=60)
    assert armed["receivable"] is False and armed["problems"] == []
    measured = step(one, "measure", request=64, reply=160)
    assert measured["rounds"] == 200
    assert 0 < measured["round_trip_min_us"] <= measured["round_trip_us"]
    # It has no ears, but has been armed: its counts are there, and empty.
    assert step(two, "collect")["counts"] == []
    os.wait()
    for kernel in (one, two):
        assert step(kernel, "restore")["left"] == 0
    assert memory.read_bytes() == before


def test_an_agent_answers_no_bytes_of_programs(one, two, memory):
    """It goes on for some minutes where the run that made it has died."""
    before = memory.read_bytes()
    step(two, "write", offset=96, length=80, mailbox=16)
    step(two, "arm", echo=[[64, 160]], timeout=60)
    time.sleep(0.1)
    assert step(two, "restore")["left"] == 0
    os.wait()
    assert memory.read_bytes() == before


@pytest.mark.parametrize("saved", [False, True])
def test_an_agent_answers_where_the_bytes_are_saved_alone(one, memory, saved):
    """Somebody came before this guest could write: what stands in the place of the answers is his."""
    data = bytearray(memory.read_bytes())
    data[64:68], data[128:132] = struct.pack("<I", 5), b"mine"
    memory.write_bytes(data)
    if saved:
        step(one, "write", offset=256, length=80, mailbox=16)
    armed = step(one, "arm", echo=[[64, 128]], timeout=60)
    assert bool(armed["problems"]) == saved
    assert "in the mailbox of an earlier write" in str(armed) or not saved
    time.sleep(0.1)
    assert step(one, "collect")["problems"] == []
    assert step(one, "restore")["left"] == 0
    assert memory.read_bytes() == data


@pytest.mark.parametrize("operation", ["write", "restore", "collect", "look"])
def test_an_agent_that_hangs_is_told_of(one, memory, monkeypatch, operation):
    """It would go on writing into the memory behind the back of who has put everything back."""
    before = memory.read_bytes()
    monkeypatch.setattr(_listener, "ANSWER", 0.2)
    path = one.path(f"{_kernel.RUN}/{A}.sock")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen(4)
        problems = step(one, operation)["problems"]
    assert "does not answer" in problems[0]["found"] and path in problems[0]["found"]
    assert memory.read_bytes() == before
    # Of one that has ended, only its name is left.
    assert step(one, operation)["problems"] == []


def test_peer_that_does_not_answer(memory):
    with open(memory, "r+b") as handle, mmap.mmap(handle.fileno(), SIZE) as mapped:
        mapped[:256] = bytes(256)
        with pytest.raises(IvshmemError, match="has answered 0 of 5 round trips"):
            _figures.round_trips(mapped, 64, 128, rounds=5, timeout=0.1)


def test_throughput_leaves_the_bytes(one, memory):
    before = memory.read_bytes()
    assert "has saved the bytes" in step(one, "measure")["problems"][0]["found"]
    step(one, "write")
    measured = step(one, "measure")
    assert measured["read_mb_s"] > 0 and measured["write_mb_s"] > 0
    step(one, "restore")
    assert memory.read_bytes() == before


def test_eventfd_does_not_block():
    handle = _interrupts.eventfd()
    assert select.select([handle], [], [], 0) == ([], [], [])
    with pytest.raises(BlockingIOError):
        os.read(handle, 8)
    os.close(handle)
