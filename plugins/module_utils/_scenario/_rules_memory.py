# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of the memory that the regions take.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import DEVICE_MODEL
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._memory import service_places
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import (
    ERROR,
    WARNING,
    Context,
    Hit,
    Rules,
)

RULES = Rules()


def _providers(counts: Collection[str]) -> str:
    return "regions of both providers" if DEVICE_MODEL in counts else "hypervisor regions"


@RULES.add(
    "memory-budget",
    ERROR,
    "All regions together fit the memory that the hypervisor has for them on its board.",
    "make regions smaller or fewer, or provide some by the device model",
    "static_allocators/hv_ram.py and find_avl_memory of library/board_cfg_lib.py up to v3.2 (HV_RAM_SIZE is at most "
    "1 GiB and goes into the first System RAM range that holds it; from 2 GiB on the image does not link); "
    "from v3.3 on one block of the e820 map at boot, which panics where there is none, and may lie over the hypervisor "
    "or the RAM of pre-launched VMs (e820_alloc_memory in arch/x86/e820.c; get_ept_page_num in guest/ept.c)",
)
def _memory_budget(context: Context) -> Iterator[Hit]:
    found = context.budget
    if found and found["used"] > found["limit"]:
        board = f" on board '{context.board.name}'" if context.board and not found["guess"] else ""
        fixed = f" within the HV_RAM_SIZE of {context.scenario.hv_ram_size} MB that the scenario sets"
        within = fixed if found["unchecked"] is not None else board
        yield Hit(f"the {_providers(found['counts'])} take {found['used']} MB, at most {found['limit']} MB fit{within}")


@RULES.add(
    "memory-guess",
    WARNING,
    "Up to v3.2 the board tells how much memory regions may take.",
    "give the board XML",
    "find_avl_memory of library/board_cfg_lib.py: HV_RAM_SIZE goes into one of the board's System RAM ranges",
    until=(3, 2),
)
def _memory_guess(context: Context) -> Iterator[Hit]:
    found = context.budget
    if found and found["guess"] and 0 < found["used"] <= found["limit"]:
        limit = f"the limit of {found['limit']} MB is a guess without the board, which may allow less"
        yield Hit(f"the {_providers(found['counts'])} take {found['used']} MB, and {limit}")


@RULES.add(
    "memory-fixed",
    WARNING,
    "Up to v2.6 a scenario that sets HV_RAM_SIZE leaves room in it for the hypervisor and all regions.",
    "empty HV_RAM_SIZE in the scenario, and ACRN computes it",
    "xforms/config_common.xsl (hv_config/board_defconfig.py up to v2.3): the value of the scenario wins, and what does "
    "not fit into it fails in the linker",
    until=(2, 6),
)
def _memory_fixed(context: Context) -> Iterator[Hit]:
    found = context.budget
    if found and found["unchecked"] is not None and found["unchecked"] < found["used"] <= found["limit"]:
        size = context.scenario.hv_ram_size
        yield Hit(f"regions of {found['used']} MB may not fit into the HV_RAM_SIZE of {size} MB that the scenario sets")


@RULES.add(
    "memory-window",
    ERROR,
    "The regions of the Service VM find room in the PCI windows of the board.",
    "make regions of the Service VM smaller or fewer, or leave it out of some",
    "static_allocators/gpa.py (get_free_addr), board_config/vbar_base_h.py up to v2.4 (get_free_mmio)",
    since=(2, 3),
)
def _memory_window(context: Context) -> Iterator[Hit]:
    for region, inside in service_places(context.scenario, context.version, context.board, context.regions):
        if inside is None and context.board:
            room = f"the PCI windows of board '{context.board.name}' have no room for its {region.size} MB"
            yield Hit(f"{room} in the Service VM, besides the other regions", region, "size")


@RULES.add(
    "memory-edge",
    WARNING,
    "A region of the Service VM is in a PCI window with all of its memory.",
    "make regions of the Service VM smaller or fewer, or leave it out of some",
    "static_allocators/gpa.py (get_free_addr) and board_config/vbar_base_h.py take what only begins in a window",
    since=(2, 3),
)
def _memory_edge(context: Context) -> Iterator[Hit]:
    for region, inside in service_places(context.scenario, context.version, context.board, context.regions):
        if inside is False and context.board:
            where = f"beyond the end of a PCI window of board '{context.board.name}'"
            yield Hit(f"ACRN's build puts a part of its {region.size} MB in the Service VM {where}", region, "size")


@RULES.add(
    "memory-boot",
    WARNING,
    "On v3.2 regions of 512 MB and more together build but may not boot.",
    "stay below 512 MB in all, or use ACRN v3.3 or later",
    "projectacrn/acrn-hypervisor issue 8502: the image grows by the size of the regions",
    since=(3, 2),
    until=(3, 2),
)
def _memory_boot(context: Context) -> Iterator[Hit]:
    total = sum(region.size for region in context.regions)
    if total >= 512:
        yield Hit(f"the regions take {total} MB of the hypervisor image")
