# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interrupts of a function: counted here, or by a process that stays while no module runs.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _functions, _journal, _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._listener import socket_path
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._mapped import Mapped, VfioMapped, opened, word_at
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# acrn-kernel's uio_pci_generic ties an eventfd to an MSI-X vector: _IOW('u', 100, struct {int fd; int vector;})
UIO_MSIX_DATA = (1 << 30) | (8 << 16) | (ord("u") << 8) | 100


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
    path = socket_path(kernel, function.address)
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
