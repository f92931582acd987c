#!/usr/bin/python3
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application's side of a region of shared memory: opening it, and a ring of messages as in acrn_ivshmem.h.

  acrn_ivshmem.py send REGION [PEER]     reads lines, puts each into the ring, and rings VM PEER, if it is given
  acrn_ivshmem.py receive REGION         prints each line; ends after the line "."

Python has no memory barriers. This relies on x86, which keeps the order of one processor's stores, and of its loads.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import struct
import sys
import time

MAGIC, HEAD, DOORBELL = 0x474E4952, 192, 0x0C


class Region:
    """A region that is open: ``memory`` is BAR2."""

    def __init__(self, what: str) -> None:
        self.sysfs = self._find(what)
        path = f"{self.sysfs}/resource2" if self.sysfs else what
        # The whole of it: the kernel refuses a longer mapping, and read() and write() on resource2 fail.
        self.memory = self._map(path, os.stat(path).st_size)

    @staticmethod
    def _find(what: str) -> str:
        """The function's directory; empty for a plain file."""
        if "/" not in what and ":" in what:
            return f"/sys/bus/pci/devices/{what}"
        real = os.path.realpath(what)
        if stat.S_ISREG(os.stat(real).st_mode):
            return ""
        # /dev/ivshmem/NAME leads to /dev/uioN, whose number changes from boot to boot.
        node = os.path.basename(real)
        if not node.startswith("uio"):
            raise OSError(f"{what} leads to {real}, which is no uio device")
        return f"/sys/class/uio/{node}/device"

    @staticmethod
    def _map(path: str, size: int) -> mmap.mmap:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(handle, size)
        finally:
            os.close(handle)

    def ring(self, peer: int, vector: int) -> None:
        """Ring the doorbell of a peer, which is the VM's ID in the scenario. hv-land only."""
        registers = self._map(f"{self.sysfs}/resource0", 256)
        # One store of 32 bits: a slice would be four.
        word = ctypes.c_uint32.from_buffer(registers, DOORBELL)
        word.value = peer << 16 | vector
        del word
        registers.close()


class Ring:
    """One writer, one reader."""

    def __init__(self, memory: mmap.mmap, create: bool = False) -> None:
        self._memory = memory
        room = len(memory) - HEAD
        self._capacity = 1 << min(room.bit_length() - 1, 30)
        if create:
            struct.pack_into("<II", memory, 0, 0, self._capacity)
        self._magic, self._written, self._read = (ctypes.c_uint32.from_buffer(memory, place) for place in (0, 64, 128))
        if create:
            self._written.value = self._read.value = 0
            self._magic.value = MAGIC

    def made(self) -> bool:
        """Whether the writer has made the ring."""
        return self._magic.value == MAGIC and struct.unpack_from("<I", self._memory, 4)[0] == self._capacity

    def _copy(self, at: int, length: int, content: bytes | None = None) -> bytes:
        at &= self._capacity - 1
        first = min(length, self._capacity - at)
        parts = ((HEAD + at, 0, first), (HEAD, first, length - first))
        if content is None:
            return b"".join(self._memory[place : place + count] for place, _start, count in parts)
        for place, start, count in parts:
            self._memory[place : place + count] = content[start : start + count]
        return content

    def put(self, message: bytes) -> bool:
        """Whether there was room for the message."""
        content = struct.pack("<I", len(message)) + message
        used = (self._written.value - self._read.value) & 0xFFFFFFFF
        if used + len(content) > self._capacity:
            return False
        self._copy(self._written.value, len(content), content)
        self._written.value += len(content)
        return True

    def get(self) -> bytes | None:
        """The next message, or None. Raises ValueError where what is there is none: a peer can write what it likes."""
        at = self._read.value
        used = (self._written.value - at) & 0xFFFFFFFF
        if not used:
            return None
        length = struct.unpack("<I", self._copy(at, 4))[0] if 4 <= used <= self._capacity else used
        if length > used - 4:
            raise ValueError("what is in the ring is no message")
        message = self._copy(at + 4, length)
        self._read.value = at + 4 + length
        return message


def main(words: list[str]) -> int:
    """The command line."""
    if len(words) < 2 or words[0] not in ("send", "receive"):
        print(__doc__, file=sys.stderr)
        return 2
    region = Region(words[1])
    if words[0] == "send":
        ring = Ring(region.memory, create=True)
        for line in sys.stdin.buffer:
            while not ring.put(line.rstrip(b"\n")):
                time.sleep(0.001)  # the reader is behind
            if len(words) > 2:
                region.ring(int(words[2]), 0)
        return 0
    ring = Ring(region.memory)
    while not ring.made():
        time.sleep(0.001)  # the writer has not begun
    while True:
        message = ring.get()
        if message == b".":
            return 0
        if message is None:
            time.sleep(0.001)
        else:
            print(message.decode(errors="replace"), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
