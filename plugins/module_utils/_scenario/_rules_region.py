# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of a region itself: its name, size, number and ID.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    LONGEST_REGION_NAME,
    MOST_HYPERVISOR_REGIONS,
    REGION_IDS,
    REGION_IDS_SINCE,
    REGION_NAME,
    SIZES,
    before,
    spelt,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import some
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import ERROR, Context, Hit, Rules

RULES = Rules()


@RULES.add(
    "region-name",
    ERROR,
    f"A region name is 1 to {LONGEST_REGION_NAME} ASCII letters, digits and underscores.",
    f"use 1 to {LONGEST_REGION_NAME} of A-Z, a-z, 0-9 and _",
    "schema/types.xsd (IVSHMEMRegionType); with the hv:/ prefix the hypervisor has 32 bytes for it (dm/vpci/ivshmem.c)",
)
def _region_name(context: Context) -> Iterator[Hit]:
    for region in context.regions:
        if not REGION_NAME.fullmatch(region.name):
            length = f" ({len(region.name)} characters)" if len(region.name) > LONGEST_REGION_NAME else ""
            yield Hit(f"its name{length} is not one that every ACRN version takes", region, "name")


@RULES.add(
    "region-duplicate",
    ERROR,
    "Region names are unique on a host, across hv-land and dm-land.",
    "give each region a name of its own",
    "library/scenario_cfg_lib.py (share_mem_check) up to v2.7; v3.x fails to compile",
)
def _region_duplicate(context: Context) -> Iterator[Hit]:
    for name, count in Counter(region.name for region in context.regions).items():
        if count > 1:
            same = [region for region in context.regions if region.name == name]
            where = some((region.place for region in same if region.place), between=" and ")
            yield Hit(f"is declared {count} times{f': {where}' if where else ''}", same[-1], "name")


@RULES.add(
    "region-size",
    ERROR,
    f"The size is a power of two from {SIZES[0]} to {SIZES[-1]} MB.",
    f"use {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]} (MB)",
    "schema/types.xsd (IVSHMEMSize), library/scenario_cfg_lib.py (share_mem_check), devicemodel/hw/pci/ivshmem.c",
)
def _region_size(context: Context) -> Iterator[Hit]:
    for region in context.regions:
        if region.size not in SIZES:
            yield Hit(f"its size is {region.size} MB", region, "size")


@RULES.add(
    "region-reserved",
    ERROR,
    "The bytes reserved for the proof are whole pages of 4096, and at most half of the region.",
    "use a multiple of 4096 (one is enough for 16 VMs), at most half of the size, or leave it out",
    "the proof writes up to 192 bytes for each VM, of which ACRN has at most 16; nothing of ACRN knows it",
)
def _region_reserved(context: Context) -> Iterator[Hit]:
    for region in context.regions:
        reserved = region.reserved
        if reserved is not None and (reserved % 4096 or not 0 < reserved <= region.size << 19):
            yield Hit(f"{reserved} bytes of its {region.size} MB are reserved", region, "reserved")


@RULES.add(
    "region-count",
    ERROR,
    "At most eight regions of a host are provided by the hypervisor.",
    "drop regions, merge some, or provide some by the device model",
    "hypervisor/dm/vpci/ivshmem.c (mem_regions[8]); v3.x does not check it and fails to compile",
)
def _region_count(context: Context) -> Iterator[Hit]:
    count = len(context.hypervisor_regions)
    if count > MOST_HYPERVISOR_REGIONS:
        yield Hit(f"{count} regions are provided by the hypervisor, the limit is {MOST_HYPERVISOR_REGIONS}")


@RULES.add(
    "region-id-version",
    ERROR,
    f"Region IDs exist from {spelt(REGION_IDS_SINCE)} on.",
    f"remove region_id, or build ACRN {spelt(REGION_IDS_SINCE)} or later",
    "schema/types.xsd (IVSHMEM_REGION_ID since v3.3): earlier validators reject the element",
    until=before(REGION_IDS_SINCE),
)
def _region_id_version(context: Context) -> Iterator[Hit]:
    for region in context.regions:
        if region.region_id:
            yield Hit(f"has the region ID {region.region_id}, which this ACRN cannot give it", region, "region_id")


@RULES.add(
    "region-id-range",
    ERROR,
    "A region ID is 0 (none) or 4096 to 65535 (0x1000 to 0xffff).",
    "use 0 or a number from 4096 to 65535",
    "doc/tutorials/enable_ivshmem.rst (IDs 0x1 to 0xfff are reserved); it becomes the 16-bit PCI subsystem ID",
)
def _region_id_range(context: Context) -> Iterator[Hit]:
    for region in context.regions:
        if region.region_id and region.region_id not in REGION_IDS:
            reserved = " (reserved)" if 0 < region.region_id < REGION_IDS.start else ""
            yield Hit(f"its region ID is {region.region_id}{reserved}", region, "region_id")


@RULES.add(
    "region-id-duplicate",
    ERROR,
    "A region ID other than 0 is unique on a host.",
    "give each region an ID of its own",
    "guests tell regions apart by the PCI subsystem ID (hypervisor/dm/vpci/ivshmem.c); not checked upstream",
)
def _region_id_duplicate(context: Context) -> Iterator[Hit]:
    first: dict[int, str] = {}
    for region in context.regions:
        if region.region_id:
            other = first.setdefault(region.region_id, region.name)
            if other != region.name:
                yield Hit(f"its region ID {region.region_id} is that of region '{other}' too", region, "region_id")
