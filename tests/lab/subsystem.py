# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PCI subsystem of ivshmem functions as ACRN has it: 8086 and the region ID from v3.3 on, before that nothing.

QEMU has no option for it and always says 1af4:1100. So it is written into the configuration spaces of a QEMU that has
all its devices and whose guest has not begun (-S). They are found by what stands in them, and which function each
belongs to by QEMU's own pointer to it: in PCIDevice (hw/pci/pci_device.h) five pointers stand before devfn.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Mapping

# vendor and device 1af4:1110; revision 1, class 0500; subsystem 1af4:1100
_CONFIG = re.compile(rb"\xf4\x1a\x10\x11.{4}\x01\x00\x00\x05.{32}\xf4\x1a\x00\x11", re.DOTALL)
_SUBSYSTEM = 0x2C
_DEVFN = 5 * 8
# The heap is smaller, the guest's memory is larger.
_LARGEST = 64 << 20


def _memory(pid: int, memory: int) -> dict[int, bytes]:
    """The writable memory of a process, by address."""
    found = {}
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        for line in maps:
            where, access = line.split()[:2]
            start, end = (int(word, 16) for word in where.split("-"))
            if access.startswith("rw-p") and end - start <= _LARGEST:
                try:
                    found[start] = os.pread(memory, end - start, start)
                except OSError:
                    continue  # nothing is behind it
    return found


def write(pid: int, wanted: Mapping[int, tuple[int, int]]) -> list[int]:
    """Give functions (by slot << 3 | function) their subsystem vendor and device; those that were not found."""
    left = set(wanted)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    try:
        parts = _memory(pid, memory)
        for start, data in parts.items():
            for config in _CONFIG.finditer(data):
                address = start + config.start()
                for part in parts.values():
                    at = part.find(struct.pack("<Q", address))
                    devfn = part[at + _DEVFN : at + _DEVFN + 4] if at >= 0 else b""
                    number = int.from_bytes(devfn, "little")
                    if len(devfn) == 4 and number in left:
                        os.pwrite(memory, struct.pack("<HH", *wanted[number]), address + _SUBSYSTEM)
                        left.remove(number)
                        break
    finally:
        os.close(memory)
    return sorted(left)
