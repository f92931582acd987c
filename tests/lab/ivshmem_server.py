# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hypervisor side of hv-land: QEMU's ivshmem server protocol with ACRN's rule "peer ID = VM ID".

QEMU's docs/specs/ivshmem-spec describes the protocol: every message is a signed 64-bit number, little-endian, some with
a file descriptor. A client gets the version (0), its own ID, -1 with the memory, and then for each peer its ID once per
vector, each with that vector's eventfd. QEMU's own server picks the IDs; here each (region, VM ID) has a socket of its
own, and so the socket says the ID.

As in ACRN the VMs of a region are known from the start: every client hears of all of them, there or not, and of no
coming and going. (QEMU 7.2 frees a peer's vectors when it hears that the peer is gone, uses them when the same ID comes
back, and crashes.) A doorbell for a VM that is off is lost. The memory is anonymous (memfd) and zero at the start, as
the hypervisor's is after a boot.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import socket
import struct
import sys
from dataclasses import dataclass, field

import labstate
from labstate import VECTORS

MB = 1 << 20
_EFD_CLOEXEC, _EFD_NONBLOCK = 0o2000000, 0o4000


def eventfd() -> int:
    """A new event descriptor (os.eventfd exists from Python 3.10)."""
    descriptor = ctypes.CDLL(None, use_errno=True).eventfd(0, _EFD_CLOEXEC | _EFD_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "eventfd")
    return int(descriptor)


@dataclass
class Region:
    """A region's memory, the vectors of its VMs, and who is connected, by peer ID."""

    memory: int
    vectors: dict[int, list[int]]
    connections: dict[int, socket.socket] = field(default_factory=dict)


def send(connection: socket.socket, number: int, descriptor: int | None = None) -> None:
    """One message of the protocol."""
    ancillary = []
    if descriptor is not None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    connection.sendmsg([struct.pack("<q", number)], ancillary)


class Server:
    """All regions of one hypervisor. The caller gives sockets that listen already."""

    def __init__(self) -> None:
        self.regions: dict[str, Region] = {}
        self.selector = selectors.DefaultSelector()

    def add_region(self, name: str, size: int, listeners: dict[int, socket.socket]) -> None:
        """A region of `size` bytes, all zero; whoever connects to listeners[N] becomes its peer N."""
        memory = os.memfd_create(name)
        os.ftruncate(memory, size)
        self.regions[name] = Region(memory, {peer: [eventfd() for _number in range(VECTORS)] for peer in listeners})
        for peer, listener in listeners.items():
            self.selector.register(listener, selectors.EVENT_READ, (name, peer, None))

    def serve_once(self, timeout: float | None = None) -> None:
        """Handle what has happened, or wait for it for `timeout` seconds."""
        for key, _events in self.selector.select(timeout):
            name, peer, connection = key.data
            if connection is None:
                self._connect(name, peer, key.fileobj.accept()[0])  # type: ignore[union-attr]
            elif connection is self.regions[name].connections.get(peer):
                self._disconnect(name, peer)  # peers never speak: that it can be read is its end

    def _connect(self, name: str, peer: int, connection: socket.socket) -> None:
        region = self.regions[name]
        old = region.connections.get(peer)
        if old and select.select([old], [], [], 0)[0]:
            self._disconnect(name, peer)  # its end may not have been handled yet
        if peer in region.connections:
            print(f"{name}: VM {peer} is connected already", flush=True)
            connection.close()
            return
        print(f"{name}: VM {peer} comes", flush=True)
        for vector in region.vectors[peer]:
            with contextlib.suppress(BlockingIOError):
                os.read(vector, 8)  # what was rung while it was off
        connection.settimeout(5)
        try:
            send(connection, 0)
            send(connection, peer)
            send(connection, -1, region.memory)
            for other, vectors in region.vectors.items():
                for vector in vectors:
                    send(connection, other, vector)
        except OSError as exc:
            print(f"{name}: VM {peer}: {exc}", flush=True)
            connection.close()
            return
        region.connections[peer] = connection
        self.selector.register(connection, selectors.EVENT_READ, (name, peer, connection))

    def _disconnect(self, name: str, peer: int) -> None:
        print(f"{name}: VM {peer} goes", flush=True)
        connection = self.regions[name].connections.pop(peer)
        self.selector.unregister(connection)
        connection.close()


def main() -> int:
    """Be the hypervisor of $ACRN_LAB until SIGTERM: read its regions once, as a build does."""
    lab = labstate.Lab()
    lab.prepare()
    held = lab.lock("hypervisor")
    if held is None:
        print("the lab's hypervisor runs already", file=sys.stderr)
        return 1
    regions = lab.config().hv_regions
    for old in (lab.run / "hv").iterdir():
        old.unlink()
    server = Server()
    for region in regions:
        listeners = {}
        for vm_id in region.members:
            listeners[vm_id] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listeners[vm_id].bind(str(lab.socket(region.name, vm_id)))
            listeners[vm_id].listen(1)
        server.add_region(region.name, region.size * MB, listeners)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    state = {"pid": os.getpid(), "regions": [region.to_json() for region in regions]}
    labstate.write_file(lab.run / "hypervisor.json", json.dumps(state, indent=1) + "\n")
    try:
        while True:
            server.serve_once()
    finally:
        (lab.run / "hypervisor.json").unlink()
        for left in (lab.run / "hv").iterdir():
            left.unlink()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except labstate.LabError as exc:
        sys.exit(f"ivshmem_server: {exc}")
