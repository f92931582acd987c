# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a board XML says that matters to shared memory: PCI functions and RAM.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document, Node

_PCI_LINE = re.compile(r"^[ \t]*([0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\.[0-7])\s", re.MULTILINE)
_RAM_LINE = re.compile(r"^[ \t]*([0-9a-f]{1,16})-([0-9a-f]{1,16}) : System RAM[ \t\r]*$", re.MULTILINE)


def _address(node: Node) -> int:
    # Something that is no address counts as none, like the function 0xffff.
    text = node.attributes.get("address", "")
    return int(text, 16) if re.fullmatch(r"(0[xX])?[0-9A-Fa-f]{1,16}", text) else 0xFFFF


@dataclass(frozen=True)
class Board:
    """A board: its name, its PCI functions, and its largest contiguous block of RAM in MB (0 if unknown)."""

    name: str
    native: tuple[Bdf, ...]
    largest_ram: int


def read_board(data: bytes, where: str) -> Board:
    """Read the bytes of a board XML. Raises IvshmemError for a file that is none.

    PCI functions come from PCI_DEVICE (the output of lspci, what checks/vbdf_assignment.xsd looks at) and from the
    device tree of bus 0 (what static_allocators/bdf.py looks at), RAM from IOMEM_INFO (/proc/iomem).
    """
    root = Document(data, where).root
    if root.tag != "acrn-config" or not root.all("PCI_DEVICE"):
        raise IvshmemError(f"{where}: is no board XML (no acrn-config/PCI_DEVICE); make one with board_inspector.py")
    native = {Bdf.parse(text) for node in root.all("PCI_DEVICE") for text in _PCI_LINE.findall(node.text)}
    for bus in (node for node in root.walk() if node.tag == "bus" and node.attributes.get("type") == "pci"):
        if _address(bus) == 0:
            for device in bus.all("device"):
                address = _address(device)
                # Function 0xffff stands for all functions of a device (ACPI, _ADR), which have entries of their own.
                if address & 0xFFFF <= 7 and address >> 16 <= 0x1F:
                    native.add(Bdf(0, address >> 16, address & 0xFFFF))
    ranges = [found for node in root.all("IOMEM_INFO") for found in _RAM_LINE.findall(node.text)]
    blocks = [int(last, 16) + 1 - int(first, 16) for first, last in ranges]
    return Board(root.attributes.get("board", ""), tuple(sorted(native)), max(blocks, default=0) >> 20)
