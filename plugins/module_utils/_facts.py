# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ACRN is, release by release: limits, names, PCI IDs, the order of slots, and what its tools run on.

This module util is PRIVATE to the collection: it can change at any time.

Each of these stands here alone; texts and checks elsewhere are made from it. The evidence for them is in docs/acrn.md.
A new release is a row of RELEASES. How much memory fits is a table of its own, in _scenario/_memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Mapping, Tuple

Version = Tuple[int, int]


@dataclass(frozen=True)
class Bound:
    """Versions from ``low`` on and below ``high``; without one of them there is no end."""

    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()

    def __str__(self) -> str:
        parts = [f">={'.'.join(map(str, self.low))}"] if self.low else []
        parts += [f"<{'.'.join(map(str, self.high))}"] if self.high else []
        return ",".join(parts) or "any version"

    def holds(self, text: str) -> bool:
        numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
        return (not self.low or numbers >= self.low) and (not self.high or numbers < self.high)


@dataclass(frozen=True)
class Needed:
    """GCC from ``major`` on needs ``word`` in CC."""

    major: int
    word: str
    why: str
    mend: str


@dataclass(frozen=True)
class Release:
    """What a release of ACRN brought or changed for those who build it.

    ``python`` and ``libraries`` run its config tools (found by running them); a library that is not named works in
    every version that was tried. ``gcc`` tells from which GCC on a word is wanted in CC, and why.
    """

    version: Version
    python: Bound
    libraries: Mapping[str, Bound] = field(default_factory=dict)
    gcc: tuple[Needed, ...] = ()


# lib/crypto/mbedtls/md.c compares an address, and hypervisor/Makefile has -Werror.
_ADDRESS = Needed(
    12,
    "-Wno-",
    "stops at {release} with -Werror=address in lib/crypto/mbedtls/md.c",
    "set CC=gcc-11 (or CC='gcc -Wno-error=address') in make_args (acrn_build.make_args in an inventory)",
)
# misc/hv_prebuild
_COMMON = Needed(
    10,
    "-fcommon",
    "cannot link the pre-build check of {release} (multiple definition of sos_pci_devs)",
    "set CC='{cc} -fcommon' in make_args (acrn_build.make_args in an inventory)",
)
# v2.2 and v2.3 call Element.getchildren, which Python 3.9 no longer has. v3.x reaches into the insides of elementpath
# (misc/config_tools/scenario_config/elementpath_overlay.py).
_OLD = Bound((3, 5), (3, 9))
_V30 = {"elementpath": Bound((2, 4), (2, 5, 1)), "xmlschema": Bound((1, 9), (1, 11))}
_V31 = {"elementpath": Bound((2, 5), (4,)), "xmlschema": Bound((), (3,))}
_V33 = {"elementpath": Bound((2, 5), (4, 3)), "xmlschema": Bound((), (3,))}

RELEASES = (
    Release((2, 2), _OLD, gcc=(_ADDRESS,)),
    Release((2, 3), _OLD, gcc=(_ADDRESS, _COMMON)),
    Release((2, 4), Bound((3, 6)), gcc=(_ADDRESS,)),
    Release((2, 5), Bound((3, 6)), gcc=(_ADDRESS,)),
    Release((2, 6), Bound((3, 6)), gcc=(_ADDRESS,)),
    Release((2, 7), Bound((3, 6)), gcc=(_ADDRESS,)),
    Release((3, 0), Bound((3, 6), (3, 12)), _V30, (_ADDRESS,)),
    Release((3, 1), Bound((3, 6), (3, 12)), _V31, (_ADDRESS,)),
    Release((3, 2), Bound((3, 6), (3, 12)), _V31),
    Release((3, 3), Bound((3, 6)), _V33),
)
FIRST, LAST = RELEASES[0].version, RELEASES[-1].version
# Scenario files of v2.x and of v3.x are of two kinds.
V2_LAST = max(release.version for release in RELEASES if release.version < (3, 0))
V3_FIRST = min(release.version for release in RELEASES if release.version >= (3, 0))


def release_of(version: Version) -> Release:
    """The row of a release; of one that is not known, that of the last known one before it, else the first."""
    before = [release for release in RELEASES if release.version <= version]
    return before[-1] if before else RELEASES[0]


def before(version: Version) -> Version:
    """The last known release before one."""
    return max(release.version for release in RELEASES if release.version < version)


def spelt(version: Version) -> str:
    """``v3.3``"""
    return f"v{version[0]}.{version[1]}"


# What some release brought: acrn-dm knows its VM by the name and not by a UUID, and refuses a longer one
# (MAX_VM_NAME_LEN, 16 with the NUL); the Service VM may share a region; region IDs (schema/types.xsd), which later may
# be hexadecimal as well; functions other than 0 that guests find (hypervisor/dm/vpci/ivshmem.c, the bit in function 0).
VM_NAMES_SINCE = (2, 7)
SERVICE_VM_SINCE = (2, 3)
REGION_IDS_SINCE = (3, 3)
HEXADECIMAL_IDS_SINCE = (3, 4)
FUNCTIONS_SINCE = (3, 3)

# Regions: schema/types.xsd (IVSHMEMRegionType, IVSHMEMSize); hypervisor/dm/vpci/ivshmem.c (mem_regions[8], and 32 bytes
# for a name with its prefix); doc/tutorials/enable_ivshmem.rst (IDs from 0x1 to 0xfff are reserved, 0 is none).
LONGEST_REGION_NAME = 27
LONGEST_VM_NAME = 15
REGION_NAME = re.compile(f"[A-Za-z0-9_]{{1,{LONGEST_REGION_NAME}}}")
VM_NAME = re.compile(f"[A-Za-z0-9_-]{{1,{LONGEST_VM_NAME}}}")
SIZES = tuple(1 << power for power in range(1, 10))
REGION_IDS = range(0x1000, 0x10000)
MOST_HYPERVISOR_REGIONS = 8

# PCI: hypervisor/dm/vpci/ivshmem.c (init_ivshmem_vdev), devicemodel/hw/pci/ivshmem.c (pci_ivshmem_init). From
# REGION_IDS_SINCE on the subsystem vendor is REGION_ID_VENDOR, and only then the subsystem device is the region ID.
VENDOR, DEVICE = 0x1AF4, 0x1110
REGION_ID_VENDOR = 0x8086

# Slots that no ivshmem device may take (launch_cfg_gen.py, VirtualBDFAllocator).
RESERVED_SLOTS = {
    0: "the host bridge",
    1: "the LPC bridge",
    2: "a passed-through GPU",
    31: "the LPC bridge of a passed-through GPU",
}
# What ACRN's Configurator fills in for shared memory (types.xsd, VBDF, acrn:defaults), and the rest that a
# post-launched VM may use (checks/vbdf_assignment.xsd). What has no place of its own begins with the rest.
_CONFIGURATOR = tuple(range(0x08, 0x10))
_REST = (*range(0x03, 0x08), *range(0x10, 0x1F))
SLOT_ORDER = (*_CONFIGURATOR, *_REST)
OTHERS_SLOT_ORDER = (*_REST, *_CONFIGURATOR)
# The scenario of v2.x says nothing of slots, and launch_cfg_gen.py there counts upwards from 3 through the devices of
# all VMs (library/launch_cfg_lib.py, virtual_dev_slot); from the other end shared memory is out of its way.
V2_SLOT_ORDER = tuple(range(0x1E, 0x02, -1))
