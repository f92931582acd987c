# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proving that an ivshmem function works: bytes through BAR2, doorbells through BAR0, interrupts through vfio.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone. Register layout: hypervisor/dm/vpci/ivshmem.c.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import select
import socket
import statistics
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _functions, _idle, _journal, _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Device, IvshmemError

DOORBELL = 0x0C
WINDOW = 4096
# Into how many parts a memory is cut for comparing it with that of a peer.
PARTS = 64
# How much of the memory is copied at a time: guests are small.
CHUNK = 1 << 20
# Seconds that the process that listens has to answer.
ANSWER = 60.0
WRITING = ("write", "restore", "ring", "arm", "listen", "measure")

# include/uapi/linux/vfio.h: _IO(';', 100 + n)
VFIO_GET_API_VERSION = 0x3B64
VFIO_CHECK_EXTENSION = 0x3B65
VFIO_SET_IOMMU = 0x3B66
VFIO_GROUP_GET_STATUS = 0x3B67
VFIO_GROUP_SET_CONTAINER = 0x3B68
VFIO_GROUP_GET_DEVICE_FD = 0x3B6A
VFIO_DEVICE_GET_REGION_INFO = 0x3B6C
VFIO_DEVICE_SET_IRQS = 0x3B6E
VFIO_IOMMU_TYPES = (3, 1)
VFIO_NOIOMMU = 8
VFIO_GROUP_VIABLE = 1
VFIO_MSIX = 2
VFIO_DATA_EVENTFD_TRIGGER = 0x4 | 0x20
VFIO_CONFIG_REGION = 7

# acrn-kernel's uio_pci_generic ties an eventfd to an MSI-X vector: _IOW('u', 100, struct {int fd; int vector;})
UIO_MSIX_DATA = (1 << 30) | (8 << 16) | (ord("u") << 8) | 100


def position(size: int, offset: int | None, length: int | None) -> tuple[int, int]:
    """Offset and length of a window in ``size`` bytes, by default the last 4 KiB. A negative offset is from the end."""
    length = WINDOW if length is None else length
    offset = -length if offset is None else offset
    start = size + offset if offset < 0 else offset
    if length < 1 or start < 0 or start + length > size:
        raise IvshmemError(f"offset {offset} and length {length} do not lie within the {size} bytes of the memory")
    return start, length


def word_at(memory: mmap.mmap, offset: int) -> ctypes.c_uint32:
    """A 32-bit word that is loaded and stored in one access, as registers want it."""
    return ctypes.c_uint32.from_buffer(memory, offset)


class Mapped:
    """An ivshmem function that is open: ``memory`` is BAR2."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory

    def ring(self, peer: int, vector: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.memory.close()


class SysfsMapped(Mapped):
    """Through the resource files of sysfs: without driver, or with a uio one."""

    def __init__(self, kernel: _kernel.Kernel, function: _functions.Function, writable: bool = True) -> None:
        self.folder = kernel.path(function.sysfs)
        if not function.enabled:
            raise IvshmemError(
                f"function {function.bdf} does not answer to memory accesses: no driver has enabled it; bind it "
                "with guest_device"
            )
        super().__init__(self._map("resource2", function.size, writable))

    def _map(self, name: str, size: int, writable: bool) -> mmap.mmap:
        path = os.path.join(self.folder, name)
        try:
            handle = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
            try:
                protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
                # The length of the BAR exactly: the kernel refuses any more (EINVAL).
                return mmap.mmap(handle, size, mmap.MAP_SHARED, protection)
            finally:
                os.close(handle)
        except OSError as exc:
            hint = ""
            if exc.errno == errno.EPERM:
                hint = ": is the kernel locked down (Secure Boot)?"
            elif exc.errno == errno.EACCES:
                hint = ": root is needed (become: true), or membership in the group given to guest_device"
            elif exc.errno == errno.EINVAL:
                hint = ": does vfio-pci hold the function?"
            raise IvshmemError(f"{path} cannot be mapped: {exc.strerror}{hint}") from exc
        except (ValueError, OverflowError) as exc:
            raise IvshmemError(f"{path} cannot be mapped: it is shorter than the {size} bytes of its BAR") from exc

    def ring(self, peer: int, vector: int) -> None:
        registers = self._map("resource0", 256, True)
        try:
            word = word_at(registers, DOORBELL)
            word.value = peer << 16 | vector
            del word
        finally:
            registers.close()


def _ioctl(handle: int, request: int, argument: int | bytearray, what: str) -> int:
    """The return value of the call; a bytearray is changed in place (for bytes Python would return a copy)."""
    try:
        return int(fcntl.ioctl(handle, request, argument))
    except OSError as exc:
        raise IvshmemError(f"vfio: {what}: {exc.strerror}") from exc


class VfioMapped(Mapped):
    """Through VFIO: a group that is opened here, or a device that the running agent hands over.

    A group can be open once only, so while an agent listens for interrupts everybody else goes through it.
    """

    def __init__(self, kernel: _kernel.Kernel, function: _functions.Function) -> None:
        self.handles: list[int] = []
        self.device = -1
        try:
            device = from_agent(kernel, function.address)
            self.device = self._open(kernel, function) if device is None else device
            self.handles.append(self.device)
            config = self._region(VFIO_CONFIG_REGION)[1]
            command = struct.unpack("<H", os.pread(self.device, 2, config + 4))[0]
            # Memory decoding for the mapping, bus mastering for MSI-X.
            os.pwrite(self.device, struct.pack("<H", command | 0x06), config + 4)
            size, offset = self._region(2)
            super().__init__(mmap.mmap(self.device, size, offset=offset))
        except OSError as exc:
            self._close_handles()
            raise IvshmemError(f"function {function.bdf} cannot be used through vfio: {exc.strerror}") from exc
        except IvshmemError:
            self._close_handles()
            raise

    def _open(self, kernel: _kernel.Kernel, function: _functions.Function) -> int:
        node = _functions.vfio_node(kernel, function)
        if node is None:
            raise IvshmemError(f"function {function.bdf} has no node in /dev/vfio: bind it with guest_device")
        container = os.open(kernel.path("/dev/vfio/vfio"), os.O_RDWR | os.O_CLOEXEC)
        self.handles.append(container)
        try:
            group = os.open(kernel.path(node), os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                raise IvshmemError(f"{node} is in use by another program: stop that program first") from exc
            raise
        self.handles.append(group)
        status = bytearray(struct.pack("<II", 8, 0))
        _ioctl(group, VFIO_GROUP_GET_STATUS, status, "group status")
        if not struct.unpack("<II", bytes(status))[1] & VFIO_GROUP_VIABLE:
            raise IvshmemError(f"{node}: other functions of its IOMMU group are bound to other drivers")
        _ioctl(group, VFIO_GROUP_SET_CONTAINER, bytearray(struct.pack("<i", container)), "set container")
        wanted = (VFIO_NOIOMMU,) if "noiommu" in node else VFIO_IOMMU_TYPES
        kind = next((k for k in wanted if fcntl.ioctl(container, VFIO_CHECK_EXTENSION, k)), None)
        if kind is None:
            raise IvshmemError("the kernel offers no IOMMU type that this collection knows")
        _ioctl(container, VFIO_SET_IOMMU, kind, "set IOMMU type")
        name = bytearray(function.address.encode() + b"\0")
        return _ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name, f"open {function.bdf}")

    def _region(self, index: int) -> tuple[int, int]:
        """Size and file offset of a VFIO region."""
        info = bytearray(struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
        _ioctl(self.device, VFIO_DEVICE_GET_REGION_INFO, info, f"region {index}")
        fields = struct.unpack("<IIIIQQ", bytes(info))
        return fields[4], fields[5]

    def ring(self, peer: int, vector: int) -> None:
        # vfio carries out an aligned write of four bytes as one 32-bit access.
        os.pwrite(self.device, struct.pack("<I", peer << 16 | vector), self._region(0)[1] + DOORBELL)

    def interrupts(self, events: Sequence[int]) -> None:
        """Tie MSI-X vector i to events[i]."""
        size = 20 + 4 * len(events)
        request = struct.pack("<IIIII", size, VFIO_DATA_EVENTFD_TRIGGER, VFIO_MSIX, 0, len(events))
        request += struct.pack(f"<{len(events)}i", *events)
        _ioctl(self.device, VFIO_DEVICE_SET_IRQS, bytearray(request), "MSI-X")

    def _close_handles(self) -> None:
        while self.handles:
            os.close(self.handles.pop())

    def close(self) -> None:
        super().close()
        self._close_handles()


def opened(kernel: _kernel.Kernel, function: _functions.Function, writable: bool = True) -> Mapped:
    if function.driver == _kernel.VFIO:
        return VfioMapped(kernel, function)
    return SysfsMapped(kernel, function, writable)


# What is in the memory


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


# Interrupts


def eventfd() -> int:
    """A non-blocking eventfd; os.eventfd is there from Python 3.10 on only."""
    flags = os.O_NONBLOCK | os.O_CLOEXEC
    libc = ctypes.CDLL(None, use_errno=True)
    handle = int(libc.eventfd(0, flags))
    if handle < 0:
        raise IvshmemError(f"eventfd: {os.strerror(ctypes.get_errno())}")
    return handle


class Ears:
    """Eventfds of all vectors of a function, and what they counted."""

    def __init__(self, mapped: Mapped, events: list[int], extra: Sequence[int] = ()) -> None:
        self.mapped = mapped
        self.events = events
        self.extra = list(extra)
        self.counts = [0] * len(events)

    def take(self, ready: Iterable[int]) -> None:
        for handle in ready:
            if handle in self.events:
                with contextlib.suppress(BlockingIOError):
                    self.counts[self.events.index(handle)] += struct.unpack("<Q", os.read(handle, 8))[0]

    def close(self) -> None:
        for handle in [*self.events, *self.extra]:
            os.close(handle)
        self.mapped.close()


NOT_RECEIVABLE = (
    "capable, not receivable: needs driver vfio-pci in this guest (with an IOMMU, or guest_device's unsafe_noiommu), "
    "or the uio_pci_generic of acrn-kernel"
)


def listen_on(kernel: _kernel.Kernel, function: _functions.Function) -> Ears | str:
    """Have all MSI-X vectors of a function counted, or the reason why this guest cannot receive them."""
    if not function.vectors:
        return "no doorbell: the function has no MSI-X (regions of the Device Model have none)"
    if function.driver not in _kernel.DRIVERS or (function.driver == _kernel.UIO and not function.uio):
        return f"{NOT_RECEIVABLE}; the function has driver {function.driver or 'none'}"
    mapped = opened(kernel, function)
    events: list[int] = []
    try:
        events.extend(eventfd() for _vector in range(function.vectors))
        if isinstance(mapped, VfioMapped):
            mapped.interrupts(events)
            return Ears(mapped, events)
        node = os.open(kernel.path(f"/dev/{function.uio}"), os.O_RDWR | os.O_CLOEXEC)
        ears = Ears(mapped, events, [node])
    except BaseException:
        for handle in events:
            os.close(handle)
        mapped.close()
        raise
    try:
        for vector, handle in enumerate(events):
            fcntl.ioctl(node, UIO_MSIX_DATA, struct.pack("<ii", handle, vector))
    except OSError:
        # The mainline driver has no ioctl.
        ears.close()
        return NOT_RECEIVABLE
    return ears


def listen(ears: Ears, timeout: float, wanted: int = 0) -> list[int]:
    """Count for ``timeout`` seconds, or until ``wanted`` interrupts have come. The counts, one per vector."""
    deadline = time.monotonic() + timeout
    while not wanted or sum(ears.counts) < wanted:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        ears.take(select.select(ears.events, [], [], left)[0])
    return list(ears.counts)


def _socket_path(kernel: _kernel.Kernel, address: str) -> str:
    return kernel.path(f"{_kernel.RUN}/{address}.sock")


def _ask(kernel: _kernel.Kernel, address: str, command: bytes) -> tuple[bytes, list[int]] | None:
    """Answer and file descriptors of the agent of a function, or None where none runs.

    Raises IvshmemError for one that runs and does not answer: it may still write its words into the memory.
    """
    path = _socket_path(kernel, address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER)
        try:
            client.connect(path)
            client.sendall(command)
            chunks: list[bytes] = []
            handles: list[int] = []
            while True:
                data, extra, _flags, _address = client.recvmsg(65536, socket.CMSG_SPACE(16))
                for level, kind, body in extra:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        found = array.array("i")
                        found.frombytes(body[: len(body) - len(body) % found.itemsize])
                        handles.extend(found)
                if not data:
                    return b"".join(chunks), handles
                chunks.append(data)
        except socket.timeout:
            raise IvshmemError(
                f"{path}: the process that listens does not answer for {ANSWER:g} s: end it "
                f"(`fuser -k {path}`), and run again"
            ) from None
        except OSError:
            return None


def from_agent(kernel: _kernel.Kernel, address: str) -> int | None:
    answer = _ask(kernel, address, b"d")
    return answer[1][0] if answer and answer[1] else None


def agent_pid(kernel: _kernel.Kernel, address: str) -> int | None:
    """The process that listens for a function, which is no user of its memory."""
    answer = _ask(kernel, address, b"p")
    return int(answer[0]) if answer and answer[0].isdigit() else None


def collect(kernel: _kernel.Kernel, address: str) -> list[int] | None:
    """End the agent of a function and take its counts; None where none runs."""
    answer = _ask(kernel, address, b"c")
    if answer is None or not answer[0]:
        return None
    try:
        return [int(count) for count in json.loads(answer[0].decode())]
    except (ValueError, TypeError) as exc:
        raise IvshmemError(f"{_socket_path(kernel, address)} does not answer as an agent of guest_probe") from exc


def _serve(server: socket.socket, ears: Ears) -> socket.socket | None:
    """Answer one client; give back the one that asks for the counts, which end the agent."""
    client, _address = server.accept()
    client.settimeout(5)
    question = client.recv(1)
    if question == b"c":
        return client
    with client, contextlib.suppress(OSError):
        if question == b"p":
            client.sendall(str(os.getpid()).encode())
        elif isinstance(ears.mapped, VfioMapped):
            rights = array.array("i", [ears.mapped.device])
            client.sendmsg([b"d"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    return None


def _echo(pairs: Sequence[tuple[ctypes.c_uint32, ctypes.c_uint32]]) -> bool:
    """Answer the mailboxes; True if one had something new.

    A larger number is no question: when the measurement is over, programs' bytes are there again.
    """
    busy = False
    for source, target in pairs:
        asked = source.value
        if asked <= _journal.ROUNDS and target.value != asked:
            target.value = asked
            busy = True
    return busy


def _agent(server: socket.socket, ears: Ears, timeout: float, echo: Sequence[tuple[int, int]]) -> None:
    """Count interrupts and answer mailboxes until asked for the counts, or until the time is over."""
    deadline = time.monotonic() + timeout
    memory = ears.mapped.memory
    pairs = [(word_at(memory, source), word_at(memory, target)) for source, target in echo]
    hot = turn = 0
    while True:
        if _echo(pairs):
            hot = 2000
        if hot:
            # A peer measures: answer at once, and look at the rest now and then only.
            hot, turn = hot - 1, turn + 1
            if turn % 64:
                os.sched_yield()
                continue
        left = deadline - time.monotonic()
        if left <= 0:
            return
        wait = 0.0 if hot else 0.002 if pairs else left
        ready = select.select([server.fileno(), *ears.events], [], [], wait)[0]
        ears.take(ready)
        last = _serve(server, ears) if server.fileno() in ready else None
        if last is not None:
            # Interrupts that came just before the question count, too.
            ears.take(select.select(ears.events, [], [], 0)[0])
            pairs.clear()
            # Whoever has the answer may open the function at once, so it is given back first.
            ears.close()
            with last:
                last.sendall(json.dumps(ears.counts).encode())
            return


def start_agent(
    kernel: _kernel.Kernel,
    function: _functions.Function,
    ears: Ears,
    timeout: float,
    echo: Sequence[tuple[int, int]] = (),
) -> None:
    """Leave a process behind that listens, so that peers can ring while no module runs in this guest."""
    path = _socket_path(kernel, function.address)
    _kernel.make_folder(kernel)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(4)
    if os.fork():
        server.close()
        ears.close()
        return
    status = 1
    try:
        for handle in kernel.locks:
            # A lock is held until the last process that has it open ends, and this one outlives the module.
            os.close(handle)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for handle in range(3):
            # The pipe to the controller must end with the module, not with this process.
            os.dup2(null, handle)
        _agent(server, ears, timeout, echo)
        status = 0
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os._exit(status)


# Figures


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


# Steps, as guest_probe gets them


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
