# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's side of QEMU's ivshmem protocol, seen by a client: order of the messages, descriptors, peer IDs."""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from pathlib import Path

import ivshmem_server
import pytest

VECTORS = 8


class Client:
    """What QEMU does with a connection: read the protocol's messages."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(5)
        self.socket.connect(str(path))
        self.memory: mmap.mmap | None = None
        self.id = -1
        self.vectors: dict[int, list[int]] = {}

    def message(self) -> tuple[int, int | None]:
        data, ancillary, _flags, _address = self.socket.recvmsg(8, socket.CMSG_SPACE(4))
        descriptors = array.array("i")
        for _level, _type, content in ancillary:
            descriptors.frombytes(content)
        assert len(data) == 8
        return struct.unpack("<q", data)[0], descriptors[0] if descriptors else None

    def read(self, peers: int) -> None:
        assert self.message() == (0, None)
        self.id, none = self.message()
        assert none is None
        minus_one, memory = self.message()
        assert minus_one == -1
        assert memory is not None
        self.memory = mmap.mmap(memory, os.fstat(memory).st_size)
        for _message in range(peers * VECTORS):
            peer, vector = self.message()
            assert vector is not None
            self.vectors.setdefault(peer, []).append(vector)

    def closed(self) -> bool:
        return self.socket.recv(8) == b""


@pytest.fixture
def server(tmp_path: Path) -> ivshmem_server.Server:
    server = ivshmem_server.Server()
    for region, peers in {"a": (0, 2, 5), "b": (2,)}.items():
        listeners = {}
        for peer in peers:
            listeners[peer] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listeners[peer].bind(str(tmp_path / f"{region}.{peer}"))
            listeners[peer].listen(1)
        server.add_region(region, 2 << 20, listeners)
    return server


def connect(server: ivshmem_server.Server, path: Path, peers: int) -> Client:
    client = Client(path)
    server.serve_once(5)
    client.read(peers)
    return client


def test_peer_id_is_vm_id_and_all_peers_are_told(server: ivshmem_server.Server, tmp_path: Path) -> None:
    client = connect(server, tmp_path / "a.2", 3)
    assert client.id == 2
    assert {peer: len(vectors) for peer, vectors in client.vectors.items()} == {0: VECTORS, 2: VECTORS, 5: VECTORS}


def test_memory_and_doorbell_between_peers(server: ivshmem_server.Server, tmp_path: Path) -> None:
    zero, two = connect(server, tmp_path / "a.0", 3), connect(server, tmp_path / "a.2", 3)
    other = connect(server, tmp_path / "b.2", 1)
    assert zero.memory and two.memory and other.memory
    assert zero.memory[:] == bytes(2 << 20)
    zero.memory[100:105] = b"hello"
    assert two.memory[100:105] == b"hello"
    assert other.memory[100:105] == bytes(5)
    os.write(two.vectors[0][3], struct.pack("Q", 1))
    assert struct.unpack("Q", os.read(zero.vectors[0][3], 8)) == (1,)
    for vector in (*zero.vectors[0], *zero.vectors[2], *other.vectors[2]):
        with pytest.raises(BlockingIOError):
            os.read(vector, 8)


def test_second_client_of_one_vm_is_refused(server: ivshmem_server.Server, tmp_path: Path) -> None:
    first = connect(server, tmp_path / "a.2", 3)
    second = Client(tmp_path / "a.2")
    server.serve_once(5)
    assert second.closed()
    first.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        first.socket.recv(1)


def test_vm_comes_back_with_its_id_and_others_keep_its_vectors(server: ivshmem_server.Server, tmp_path: Path) -> None:
    zero, two = connect(server, tmp_path / "a.0", 3), connect(server, tmp_path / "a.2", 3)
    two.socket.close()
    os.write(zero.vectors[2][1], struct.pack("Q", 1))  # rung while it is off: lost
    two = connect(server, tmp_path / "a.2", 3)  # also where its end has not been handled before
    assert two.id == 2
    with pytest.raises(BlockingIOError):
        os.read(two.vectors[2][1], 8)
    os.write(zero.vectors[2][1], struct.pack("Q", 1))
    assert struct.unpack("Q", os.read(two.vectors[2][1], 8)) == (1,)
    # QEMU 7.2 crashes when a peer is said to go and to come again: nobody is told.
    zero.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        zero.socket.recv(1)
