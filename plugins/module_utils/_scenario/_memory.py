# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much shared memory a hypervisor can hold on a board: what ACRN's config tools and the linker would find.

This module util is PRIVATE to the collection: it can change at any time.

ACRN asks three things. Up to v3.2 regions are part of the hypervisor's image: its size (HV_RAM_SIZE) has a cap, and it
goes into the first range of System RAM that holds it, which must be low enough for the linker. From v3.3 on they are
one block of the host's RAM, taken at boot without a look at what stands there already. And in every version the Service
VM's BARs must find room in the PCI windows of the board.
All sizes are in MB, addresses in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Tuple

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    HYPERVISOR,
    POST_LAUNCHED,
    PRE_LAUNCHED,
    SERVICE,
    Region,
    RegionVm,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import Board, Resource, Span
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V3

Version = Tuple[int, int]
_MB = 1 << 20
_PAGE = 4096
_ALIGN = 2 * _MB
_4G = 1 << 32

# The most that HV_RAM_SIZE may be (HV_RAM_SIZE_MAX in hv_config/board_defconfig.py and static_allocators/hv_ram.py).
CAP = 1024
# Code is reached by 32-bit signed addresses: an image at 2 GiB or above does not link (bsp/ld/link_ram.ld.in).
_LINKED = 1 << 31
# HV_RAM_SIZE without regions by the number of VMs, in v2.2 (hv_config/board_defconfig.py), then in v2.3 and v2.4.
_V22_RAM = {2: 120, 3: 150, 4: 180, 5: 210, 6: 250, 7: 280, 8: 328}
_V23_RAM = {**_V22_RAM, 4: 190, 7: 300}


def _by_table(table: dict[int, int]) -> Callable[[Scenario], int]:
    return lambda scenario: table[min(max(len(scenario.vms), 2), 8)]


def _posts(scenario: Scenario) -> int:
    # Each post-launched VM has 16 MB for its trusted world in the image.
    return 16 * sum(vm.load_order == POST_LAUNCHED for vm in scenario.vms)


def _by_posts(scenario: Scenario) -> int:
    return 20 + _posts(scenario)


def _by_capacity(scenario: Scenario) -> int:
    return 20 + 4 * scenario.max_vm_num + 16 * scenario.trusty_vms


@dataclass(frozen=True)
class Image:
    """How ACRN versions up to ``until`` place the hypervisor's image, which holds the regions.

    HV_RAM_SIZE is ``base`` and ``factor`` times the sum of the regions, of which ``least`` MB are there always.
    ``offset`` is where the search for RAM begins, with ``front`` MB before the image; None where the scenario alone
    says where the image is. ``sized``: an HV_RAM_SIZE of the scenario wins, and the linker alone decides.
    """

    until: Version
    base: Callable[[Scenario], int]
    factor: int
    least: int
    offset: int | None
    front: int
    sized: bool
    counts: tuple[str, ...] = (HYPERVISOR,)

    def needed(self, scenario: Scenario, total: int) -> int:
        """HV_RAM_SIZE with regions of so many MB."""
        return self.base(scenario) + self.factor * max(total, self.least)


_BOTH = (HYPERVISOR, DEVICE_MODEL)
# v2.2 and v2.3: misc/acrn-config/hv_config/board_defconfig.py; then misc/config_tools/static_allocators/hv_ram.py.
# v2.7 computes the size and checks its cap, but takes the start from the scenario (0x400000 where it has none).
_IMAGES = (
    Image((2, 2), _by_table(_V22_RAM), 1, 0, 256 * _MB, 16, True),
    Image((2, 4), _by_table(_V23_RAM), 1, 0, 256 * _MB, 16, True),
    Image((2, 6), _by_posts, 2, 2, 256 * _MB, 16, True),
    Image((2, 7), _by_posts, 2, 2, None, 0, False),
    Image((3, 1), lambda scenario: 20 + 40 * len(scenario.vms), 2, 2, 4 * _MB, 0, False, _BOTH),
    Image(
        (3, 2),
        _by_capacity,
        1,
        2,
        4 * _MB,
        0,
        False,
        _BOTH,
    ),
)


def image_of(version: Version) -> Image | None:
    """How a version places the image that holds the regions; None where the image holds none (from v3.3 on)."""
    return next((image for image in _IMAGES if version <= image.until), None)


def _find(ram: Iterable[Span], size: int, offset: int) -> int:
    """Where ACRN puts so many bytes (library/board_cfg_lib.py, find_avl_memory); 0 where no range holds them."""
    for span in ram:
        # As there: the length of a range is last - first, a byte short.
        if span.first <= offset and offset + size <= span.last:
            return offset
        if span.first >= offset and size <= span.last - span.first:
            return span.first
    return 0


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def _links(image: Image, scenario: Scenario, board: Board | None, total: int) -> bool:
    """Whether an image with regions of so many MB gets a place where it can be linked and loaded."""
    start = scenario.hv_ram_start
    if not start and image.offset is not None and board and board.ram:
        needed = image.needed(scenario, total) * _MB
        found = _find(board.ram, image.front * _MB + needed, image.offset)
        start = _up(found + image.front * _MB, _ALIGN)
        if not found:
            # It is built for the bottom of memory, and the boot loader looks for room from there on.
            low = [span for span in board.ram if span.last < _4G]
            return any(max(span.first, start) + needed - 1 <= span.last for span in low)
    return start + total * _MB < _LINKED


# -- one block of RAM, from v3.3 on ------------------------------------------------------------------------------------


def _reserved(free: list[list[int]], size: int, below: int) -> Span | None:
    """What ACRN takes of RAM (e820_alloc_memory): the end of the last range that holds it; None where none does."""
    for place in reversed(free):
        start, end = place
        if size <= end - start and start + size <= below and (end <= below or end - start == size):
            place[1] = end - size
            return Span(end - size, end - 1)
    return None


def _page_tables(scenario: Scenario, ram: Iterable[Span]) -> tuple[int, int]:
    """Pages of the hypervisor's own tables (get_ppt_page_num), and of those of all VMs (get_ept_page_num)."""
    # As there: it adds up where the ranges end, not how long they are.
    reach = sum(span.last + 1 for span in ram) + _4G
    bars = 6 * scenario.max_pci_devices
    own = 2 + -(-reach // (1 << 30)) + bars
    return _up(own, 64), _up(own + -(-reach // _ALIGN) + bars, 64) * scenario.max_vm_num


def _guest_ram(scenario: Scenario, ram: Iterable[Span]) -> Iterator[Span]:
    """The RAM of pre-launched VMs (static_allocators/memory_allocator.py)."""
    asked = 0
    for node in scenario.document.root.all("vm"):
        if node.value("load_order") != "PRE_LAUNCHED_VM":
            continue
        for place in node.all("memory/hpa_region"):
            start, size = place.value("start_hpa"), place.value("size_hpa")
            if re.fullmatch("0x[0-9A-Fa-f]{1,16}", start) and re.fullmatch("[0-9]{1,9}", size) and int(size):
                yield Span(int(start, 16), int(start, 16) + int(size) * _MB - 1)
        size = node.value("memory/size")
        asked += int(size) * _MB if re.fullmatch("[0-9]{1,9}", size) else 0
    # Without an address they get the lowest of what is above 4 GiB; those with one are put beside them by hand.
    high = next((span.first for span in ram if span.first >= _4G), None)
    if high is not None and asked:
        yield Span(high, high + asked - 1)


class _Block:
    """What ACRN takes of a board's RAM as it boots, and what of that others need. Only the sum of regions changes."""

    def __init__(self, scenario: Scenario, ram: Sequence[Span]) -> None:
        self._free = [(_up(span.first, _PAGE), (span.last + 1) // _PAGE * _PAGE) for span in ram]
        self._own, self._guests = _page_tables(scenario, ram)
        own = _by_capacity(scenario) * _MB
        start = scenario.hv_ram_start or _up(_find(ram, own, 4 * _MB), _ALIGN)
        # Neither the hypervisor itself nor RAM that is a VM's is taken out of the map before (upstream does the first
        # now).
        self._kept = [Span(start, start + own - 1), *_guest_ram(scenario, ram)]

    def in_the_way(self, total: int) -> set[Span | None]:
        """What is overwritten with regions of so many MB; None in it where ACRN does not boot at all."""
        free = [list(span) for span in self._free]
        # allocate_ppt_pages, init_ivshmem_shared_memory, reserve_buffer_for_ept_pages
        wanted = [(self._own * _PAGE, _4G), (_up(self._own // 8, _PAGE), _4G), (_up(total * _MB, _ALIGN), 1 << 64)]
        wanted += [(self._guests * _PAGE, 1 << 64), (_up(self._guests // 8, _PAGE), 1 << 64)]
        taken = [_reserved(free, size, below) for size, below in wanted if size]
        found: set[Span | None] = {span for span in self._kept if any(each and each.overlaps(span) for each in taken)}
        return found | ({None} if None in taken else set())


def _block_limit(scenario: Scenario, board: Board, used: int) -> int:
    """The largest sum with which nothing is in the way that is not there without regions."""
    block = _Block(scenario, board.ram)
    always = block.in_the_way(0)

    def fits(total: int) -> bool:
        return block.in_the_way(total) <= always

    if fits(used):
        # Where a small sum finds no room, a larger one may, in another range.
        low, high = used // 2, max(used, board.largest_ram) // 2 + 1
    else:
        low, high = 0, used // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(2 * middle) else (low, middle)
    return 2 * low


def budget(
    scenario: Scenario, version: Version | None, board: Board | None, regions: Iterable[Region] = ()
) -> dict[str, Any] | None:
    """How much shared memory the hypervisor can hold, in MB; None where version or board are not known well enough.

    ``limit`` is the largest sum of sizes, ``used`` the sum for the given regions, ``counts`` the providers whose
    regions count, ``guess`` whether the board, which is not known, may allow less. ``unchecked`` is the sum from which
    on nobody but the linker can tell, since the scenario sets HV_RAM_SIZE; None where ``limit`` is sure. ``service_vm``
    is the largest region that the Service VM's PCI windows have room for besides the given ones, None if unknown.
    """
    if version is None:
        return None
    regions = tuple(regions)
    image = image_of(version)
    unchecked = None
    if image is None:
        if board is None or not board.largest_ram:
            return None
        counts, guess = [HYPERVISOR], False
        limit = _block_limit(scenario, board, sum(each.size for each in regions if each.provided_by == HYPERVISOR))
    else:
        counts, limit = list(image.counts), 0
        guess = image.offset is not None and not scenario.hv_ram_start and (board is None or not board.ram)
        for total in range(0, CAP + 1, 2):
            if image.needed(scenario, total) > CAP or not _links(image, scenario, board, total):
                break
            limit = total
        if image.sized and scenario.hv_ram_size:
            # ACRN computes all of the above, and then the linker has the size of the scenario.
            unchecked = min(limit, max(scenario.hv_ram_size - image.base(scenario), 0))
            # The hypervisor itself has at least 8 MB besides.
            limit = min(limit, max(scenario.hv_ram_size - _posts(scenario) - 8, 0))
    used = sum(region.size for region in regions if region.provided_by in counts)
    room = _room(scenario, version, board, regions)
    return {
        "limit": limit,
        "used": used,
        "counts": counts,
        "guess": guess,
        "unchecked": unchecked,
        "service_vm": room,
    }


# -- the Service VM's PCI windows --------------------------------------------------------------------------------------


class NoRoom(Exception):
    """No window has room for a BAR."""


def _first_free(windows: Iterable[Span], used: Iterable[Span], size: int, alignment: int) -> Span:
    """ACRN's first fit (get_free_addr in static_allocators/gpa.py, get_free_mmio up to v2.6). Raises NoRoom."""
    for window in windows:
        first = _up(window.first, alignment)
        found = Span(first, first + size - 1)
        for other in used:
            if found.overlaps(other):
                first = _up(other.last + 1, alignment)
                found = Span(first, first + size - 1)
        # As there: it need not be in the window with all of it.
        if found.overlaps(window):
            return found
    raise NoRoom


def _nested_removed(windows: list[Span], others: Iterable[Span]) -> list[Span]:
    # As removed_nested() there: it takes elements out of the list that it walks through, and so leaves some.
    result = list(windows)
    for window in result:
        for other in others:
            if other.contains(window) and window in result:
                result.remove(window)
    return sorted(result)


def _merged(spans: Iterable[Span]) -> list[Span]:
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.first <= result[-1].last + 1:
            result[-1] = Span(result[-1].first, max(result[-1].last, span.last))
        else:
            result.append(span)
    return result


def _inside(windows: Iterable[Span], span: Span) -> bool:
    return any(window.contains(span) for window in windows)


def _place_by_iomem(board: Board, sizes: Iterable[int]) -> Iterator[bool]:
    """v2.3 and v2.4 (board_config/vbar_base_h.py): the windows are those of /proc/iomem.

    For each size: whether all of it is in a window.
    """
    windows = sorted(span for span, text in board.iomem if "PCI Bus 0000:00" in text)
    others = sorted(span for span, text in board.iomem if "PCI Bus 0000:00" not in text)
    windows = _nested_removed(windows, others) if others else windows
    used = _merged(span for span in others if any(span.overlaps(window) for window in windows))
    for size in sizes:
        # It looks for the alignment besides the size, and aligns what it has found.
        for length, alignment, shift in ((_PAGE, _PAGE, 0), (_PAGE, _PAGE, 0), (size * _MB, _ALIGN, 0xC)):
            found = _first_free(windows, used, length + alignment, 1)
            first = _up(found.first, alignment)
            used.append(Span(first + shift, first + shift + length - 1))
            used.sort()
        yield _inside(windows, Span(first, first + length - 1))


def _windows(board: Board, version: Version) -> list[Span]:
    """The windows of the host bridge (get_pci_hole_native in static_allocators/gpa.py)."""
    holes = [each for each in board.resources if each.parent == "bus" and not each.width]
    if version <= (2, 5):
        holes = [each for each in holes if not each.id]
    if version <= (2, 6):
        holes = [each for each in holes if each.bus == 0]
    spans = {each.span for each in holes if not each.id.startswith("bar") and each.span.first >= _MB}
    if version <= (2, 7):
        inner = [each.span for each in board.resources if each.parent == "device" and each.on_pci]
        spans = {span for span in spans if any(span.contains(other) for other in inner)}
    return sorted(spans)


def _in_use(board: Board, version: Version, windows: list[Span]) -> list[Span]:
    """What stands in the windows (get_devs_mem_native)."""
    found = [each.span for each in board.resources if each.id and each.width]
    if version >= (3, 2):
        bridges = sorted({each.span for each in board.resources if each.bridge})
        found = [span for span in found if not any(bridge.contains(span) for bridge in bridges)]
        found += [one for one in bridges if not any(two.contains(one) for two in bridges if two != one)]
    return sorted(span for span in found if any(window.contains(span) for window in windows))


def _given_away(scenario: Scenario, board: Board) -> set[Span]:
    """What the devices of pre-launched VMs have, which the Service VM gets back (get_devs_mem_passthrough)."""
    given = {
        (function.bdf.bus, function.bdf.device << 16 | function.bdf.function)
        for vm in scenario.vms
        for function in vm.functions
        if vm.load_order == PRE_LAUNCHED and function.kind == "passthrough"
    }

    def has(each: Resource) -> bool:
        return each.parent == "device" and each.width and (each.bus, each.device) in given

    return {each.span for each in board.resources if has(each)}


def _vuarts(scenario: Scenario, vm_id: int, name: str) -> int:
    """How many PCI vUARTs the Service VM has; each has two BARs of a page."""
    if scenario.dialect == V3:
        return sum(
            connection.value("type") == "pci" and name in {end.value("vm_name") for end in connection.all("endpoint")}
            for connection in scenario.document.root.all("hv/vuart_connections/vuart_connection")
        )
    vms = [node for node in scenario.document.root.all("vm") if node.attributes.get("id") == str(vm_id)]
    found = [each for node in vms for tag in ("console_vuart", "communication_vuart") for each in node.all(tag)]
    on = [each for each in found if each.first("base") and each.value("base") != "INVALID_PCI_BASE"]
    return len({each.attributes["id"] for each in on if "id" in each.attributes})


def _place_by_tree(
    board: Board, version: Version, scenario: Scenario, sizes: Iterable[int], pages: int
) -> Iterator[bool]:
    """v2.5 and later (static_allocators/gpa.py): the windows are those of the device tree.

    For each size: whether all of it is in a window.
    """
    windows = _windows(board, version)
    given = _given_away(scenario, board)
    low = [window for window in windows if window.last < _4G]
    used = [span for span in _in_use(board, version, low) if span not in given]
    for _page in range(pages):
        used.append(_first_free(low, used, _PAGE, _PAGE))
        used.sort()
    high = [window for window in windows if window.last >= _4G]
    used += [span for span in _in_use(board, version, high) if span not in given]
    for size in sizes:
        found = _first_free([*low, *high], used, size * _MB, size * _MB)
        used.append(found)
        used.sort()
        yield _inside(windows, found)


def _room(scenario: Scenario, version: Version, board: Board | None, regions: tuple[Region, ...]) -> int | None:
    service = [vm.id for vm in scenario.vms if vm.load_order == SERVICE]
    if not service or board is None or not _is_told(board, version):
        return None

    def fits(size: int) -> bool:
        more = Region("", HYPERVISOR, size, (RegionVm(service[0]),))
        return all(place is not None for _region, place in service_places(scenario, version, board, [*regions, more]))

    return next((size for size in (512, 256, 128, 64, 32, 16, 8, 4, 2) if fits(size)), 0)


def service_places(
    scenario: Scenario, version: Version | None, board: Board | None, regions: Iterable[Region]
) -> Iterator[tuple[Region, bool | None]]:
    """The regions of the Service VM in the order in which ACRN finds room for them in its PCI windows.

    With each: whether all of it is in a window; None for one that finds no room, which is the last. Nothing where it
    cannot be told.
    """
    service = next((vm for vm in scenario.vms if vm.load_order == SERVICE), None)
    if service is None or board is None or version is None or not _is_told(board, version):
        return
    mine = [each for each in regions if each.provided_by == HYPERVISOR]
    inside = [each for each in mine if service in [vm for vm, _vbdf in scenario.resolved(each)]]
    if not inside:
        return
    if version <= (2, 4):
        # v2.3 gives the Service VM room for every region as soon as it is in one.
        order = mine if version <= (2, 3) else inside
        places = _place_by_iomem(board, [each.size for each in order])
    else:
        order = sorted(inside, key=lambda each: -each.size)
        pages = 2 * len(inside) + 2 * _vuarts(scenario, service.id, service.name)
        places = _place_by_tree(board, version, scenario, [each.size for each in order], pages)
    placed = 0
    try:
        for place in places:
            yield order[placed], place
            placed += 1
    except NoRoom:
        yield order[placed], None


def _is_told(board: Board, version: Version) -> bool:
    """Whether a board XML tells the Service VM's windows; from v2.5 on no build takes one without a device tree."""
    return version >= (2, 3) and (bool(board.resources) or version <= (2, 4))
