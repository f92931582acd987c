# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a board XML says that matters to shared memory: PCI functions, and what lies where in its address space.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document, Node

# lspci writes the PCI domain where there are several; a function of another domain is on none of these buses.
_PCI_LINE = re.compile(r"^[ \t]*(?:0000:)?([0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\.[0-7])\s", re.MULTILINE)
_IOMEM_LINE = re.compile(r"^[ \t]*([0-9a-f]{1,16})-([0-9a-f]{1,16}) :(.*)$", re.MULTILINE)


def _number(text: str | None) -> int | None:
    return int(text, 16) if text and re.fullmatch(r"(0[xX])?[0-9A-Fa-f]{1,16}", text) else None


@dataclass(frozen=True, order=True)
class Span:
    """A range of addresses, both ends included."""

    first: int
    last: int

    def overlaps(self, other: Span) -> bool:
        return self.first <= other.last and other.first <= self.last

    def contains(self, other: Span) -> bool:
        return self.first <= other.first and other.last <= self.last


@dataclass(frozen=True)
class Resource:
    """A memory resource of the device tree, with what ACRN's allocators ask about the element that has it.

    ``id`` is such as ``bar0``, empty where there is none; ``width`` tells whether it is the BAR of a device. ``bus`` is
    the number of the bus that has the resource, or of the bus of the ``device`` (number and function as in the file)
    that has it. ``on_pci``: that bus is of type pci. ``bridge``: a PCI bus is below the element.
    """

    span: Span
    id: str
    width: bool
    parent: str
    bus: int | None
    device: int | None
    on_pci: bool
    bridge: bool


@dataclass(frozen=True)
class Board:
    """A board: its name, its PCI functions, and the lines and resources that tell of its address space.

    ``native`` are the functions that lspci lists; ``named`` are others that its device tree names, which only ACPI
    knows: root ports that are fused off, and the like. ``iomem`` has the lines of /proc/iomem.
    """

    name: str
    native: tuple[Bdf, ...]
    named: tuple[Bdf, ...] = ()
    iomem: tuple[tuple[Span, str], ...] = ()
    resources: tuple[Resource, ...] = ()
    # The first and the last ACRN version whose board_inspector writes such a file, where that can be told.
    made_by: tuple[tuple[int, int], tuple[int, int]] | None = None

    @property
    def ram(self) -> tuple[Span, ...]:
        """The ranges of System RAM, lowest first."""
        return tuple(sorted(span for span, text in self.iomem if text.strip() == "System RAM"))

    @property
    def largest_ram(self) -> int:
        """The largest contiguous block of RAM in MB, 0 if unknown."""
        return max((span.last + 1 - span.first for span in self.ram), default=0) >> 20


def _tree(node: Node, bus: Node | None = None) -> Iterator[tuple[Node, Node | None]]:
    """Every element below one, with the bus that it hangs on (a bus hangs on itself)."""
    # Without recursion, for a hostile file may nest deeper than Python does.
    ahead = [(node, bus)]
    while ahead:
        each, above = ahead.pop()
        own = each if each.tag == "bus" else above
        yield each, own
        ahead += [(child, own) for child in reversed(each.children)]


def _resources(root: Node) -> Iterator[Resource]:
    for node, bus in _tree(root):
        owned = [child for child in node.children if child.tag == "resource"]
        for resource in owned:
            own = resource.attributes
            low, high = _number(own.get("min")), _number(own.get("max"))
            if own.get("type") != "memory" or own.get("len", "0x0") == "0x0" or low is None or high is None:
                continue
            of_bus = bus.attributes if bus else {}
            yield Resource(
                Span(low, high),
                own.get("id", ""),
                "width" in own,
                node.tag,
                _number(of_bus.get("address")),
                _number(node.attributes.get("address")) if node.tag == "device" else None,
                of_bus.get("type") == "pci",
                any(child.tag == "bus" and child.attributes.get("type") == "pci" for child in node.children),
            )


def _made_by(root: Node) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """By the parts that came with a version, and that each board has from then on."""
    if not root.all("BIOS_INFO"):
        return None  # written by hand
    if not root.all("processors"):
        return (2, 2), (2, 4)
    return ((3, 0), (9999, 0)) if any(node.tag == "ioapics" for node in root.walk()) else ((2, 5), (2, 7))


def read_board(data: bytes, where: str) -> Board:
    """Read the bytes of a board XML. Raises IvshmemError for a file that is none.

    Native PCI functions are those of PCI_DEVICE (the output of lspci, what checks/vbdf_assignment.xsd looks at), and of
    the device tree those with a vendor, which lspci lists as well; the others of bus 0 have no device behind them.
    """
    root = Document(data, where).root
    if root.tag != "acrn-config" or not root.all("PCI_DEVICE"):
        raise IvshmemError(f"{where}: is no board XML (no acrn-config/PCI_DEVICE); make one with board_inspector.py")
    native = {Bdf.parse(text) for node in root.all("PCI_DEVICE") for text in _PCI_LINE.findall(node.text)}
    named: set[Bdf] = set()
    for bus in (node for node in root.walk() if node.tag == "bus" and node.attributes.get("type") == "pci"):
        if _number(bus.attributes.get("address")) == 0:
            for device in bus.all("device"):
                address = _number(device.attributes.get("address"))
                # Function 0xffff stands for all functions of a device (ACPI, _ADR), which have entries of their own.
                if address is not None and address & 0xFFFF <= 7 and address >> 16 <= 0x1F:
                    bdf = Bdf(0, address >> 16, address & 0xFFFF)
                    (native if device.first("vendor") else named).add(bdf)
    iomem = tuple(
        (Span(int(first, 16), int(last, 16)), text)
        for node in root.all("IOMEM_INFO")
        for first, last, text in _IOMEM_LINE.findall(node.text)
    )
    name = root.attributes.get("board", "")
    return Board(
        name, tuple(sorted(native)), tuple(sorted(named - native)), iomem, tuple(_resources(root)), _made_by(root)
    )
