# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every rule that a declaration of regions must keep, each with an ID, a version range and its source in ACRN.

This module util is PRIVATE to the collection: it can change at any time. The IDs of the rules are public.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    FIRST,
    LAST,
    LONGEST_REGION_NAME,
    MOST_HYPERVISOR_REGIONS,
    REGION_IDS,
    REGION_IDS_SINCE,
    REGION_NAME,
    SERVICE_VM_SINCE,
    SIZES,
    V2_LAST,
    V3_FIRST,
    VM_NAME,
    VM_NAMES_SINCE,
    before,
    spelt,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    HYPERVISOR,
    POST_LAUNCHED,
    SERVICE,
    Bdf,
    IvshmemError,
    Region,
    placed_text,
    some,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import Board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._memory import budget, service_places
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import place_regions, several_functions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V2, V3, Vm
from ansible_collections.acrn.ivshmem.plugins.module_utils._words import meant

ERROR, WARNING = "error", "warning"
# Where each rule is explained, under its ID: a page of the collection, which the repository shows as well.
PAGE = "docs/rules.md"
REPOSITORY = "https://github.com/acrn-ivshmem/acrn.ivshmem/blob/main"


@dataclass(frozen=True)
class Context:
    """All that a rule may look at. ``version`` and ``board`` are None where nobody knows them.

    ``declared`` has the names of those regions that the user asked for; the others come from the file. ``guests`` tells
    what a VM runs, by its ID, where a launch XML says so.
    """

    scenario: Scenario
    regions: tuple[Region, ...]
    version: tuple[int, int] | None
    board: Board | None
    declared: Collection[str] = ()
    guests: Mapping[int, str] = field(default_factory=dict)

    @property
    def hypervisor_regions(self) -> tuple[Region, ...]:
        return tuple(region for region in self.regions if region.provided_by == HYPERVISOR)

    @cached_property
    def budget(self) -> dict[str, Any] | None:
        """How much memory the hypervisor has for regions."""
        return budget(self.scenario, self.version, self.board, self.regions)

    def vms(self) -> Iterator[tuple[Region, Vm, Bdf | None, str]]:
        """Every VM of every region that the scenario has, and its key in the declaration."""
        for region in self.regions:
            for index, ref in enumerate(region.vms):
                try:
                    vm = self.scenario.vm(ref.vm)
                except IvshmemError:
                    continue
                yield region, vm, ref.vbdf, f"vms[{index}]"


@dataclass(frozen=True)
class Hit:
    """What a rule found. ``key`` is what is to be mended of the region, where it is about one."""

    text: str
    region: Region | None = None
    key: str = ""


@dataclass(frozen=True)
class Rule:
    """One rule. ``since`` and ``until`` are the first and last ACRN version it holds for, both included."""

    id: str
    severity: str
    what: str
    mend: str
    source: str
    since: tuple[int, int]
    until: tuple[int, int] | None
    check: Callable[[Context], Iterable[Hit]]

    def severity_for(self, version: tuple[int, int] | None, dialect: str) -> str | None:
        """The severity on a version; None where the rule does not hold.

        Without a version the dialect decides: a rule that holds for all of its versions keeps its severity, one that
        holds for some of them warns.
        """
        until = self.until or (9999, 0)
        if version is not None:
            return self.severity if self.since <= version <= until else None
        first, last = (FIRST, V2_LAST) if dialect == V2 else (V3_FIRST, LAST)
        if self.since <= first and last <= until:
            return self.severity
        return WARNING if self.since <= last and first <= until else None


@dataclass(frozen=True)
class Finding:
    """What a rule found: ``region`` may be empty where the finding is about the whole declaration.

    ``place`` is what is to be mended, such as ``ivshmem_host_regions[0].size``, where the region is declared.
    """

    rule: str
    severity: str
    region: str
    message: str
    mend: str
    place: str = ""

    def __str__(self) -> str:
        about = f"region '{self.region}': " if self.region else ""
        return f"{self.severity}: {placed_text(self.place, '', about + self.message)}; {self.mend} [{self.pointer}]"

    @property
    def pointer(self) -> str:
        return f"{PAGE}#{self.rule}"

    def as_dict(self) -> dict[str, str]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "region": self.region,
            "place": self.place,
            "message": self.message,
            "mend": self.mend,
            "doc": f"{REPOSITORY}/{self.pointer}",
        }


RULES: list[Rule] = []

if TYPE_CHECKING:
    _Check = Callable[[Context], Iterable[Hit]]


def _rule(
    rule_id: str,
    severity: str,
    what: str,
    mend: str,
    source: str,
    since: tuple[int, int] = FIRST,
    until: tuple[int, int] | None = None,
) -> Callable[[_Check], _Check]:
    """Register a check, which yields a Hit for each thing that it finds."""

    def register(check: _Check) -> _Check:
        RULES.append(Rule(rule_id, severity, what, mend, source, since, until, check))
        return check

    return register


# -- the region itself -----------------------------------------------------------------------------------------------


@_rule(
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


@_rule(
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


@_rule(
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


@_rule(
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


@_rule(
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


@_rule(
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


@_rule(
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


@_rule(
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


# -- its VMs ---------------------------------------------------------------------------------------------------------


@_rule(
    "vm-unknown",
    ERROR,
    "Every VM of a region is in the scenario.",
    "use a name or an ID of the scenario",
    "v3.x accepts an unknown name and leaves the VM without the device; v2.x library/scenario_cfg_lib.py refuses it",
)
def _vm_unknown(context: Context) -> Iterator[Hit]:
    for region in context.regions:
        for index, ref in enumerate(region.vms):
            try:
                found = context.scenario.vm(ref.vm)
            except IvshmemError:
                near = meant(str(ref.vm), [vm.name for vm in context.scenario.vms])
                told = f"VM '{ref.vm}' is not in the scenario, which has {context.scenario.known_vms}{near}"
                yield Hit(told, region, f"vms[{index}]")
                continue
            if ref.also is not None and str(ref.also) != str(found.id):
                yield Hit(f"VM '{ref.vm}' has the ID {found.id}, and not {ref.also}", region, f"vms[{index}].id")


@_rule(
    "vm-twice",
    ERROR,
    "A VM is in a region once.",
    "name it once",
    "schema/checks/ivsh_memory.xsd, library/scenario_cfg_lib.py (share_mem_check)",
)
def _vm_twice(context: Context) -> Iterator[Hit]:
    for region in context.regions:
        for vm, count in Counter(vm for vm, _vbdf in context.scenario.resolved(region)).items():
            if count > 1:
                yield Hit(f"VM '{vm.name}' (ID {vm.id}) is named {count} times", region, "vms")


@_rule(
    "vm-single",
    ERROR,
    "A region has at least two VMs.",
    "add the VM that it shall talk to, or drop the region",
    "schema/types.xsd up to v2.7; v3.x accepts a region that nobody shares",
)
def _vm_single(context: Context) -> Iterator[Hit]:
    for region in context.regions:
        if len({str(ref.vm) for ref in region.vms}) < 2:
            yield Hit("has a single VM", region, "vms")


@_rule(
    "vm-name",
    ERROR,
    "A VM of a region has a name of 1 to 15 letters, digits, - and _.",
    "rename the VM in the scenario and in its launch script",
    "schema/types.xsd (VMNameType) from v3.0, acrn_common.h (MAX_VM_NAME_LEN 16) from v2.7: acrn-dm names its VM by it",
    since=VM_NAMES_SINCE,
)
def _vm_name(context: Context) -> Iterator[Hit]:
    told = set()
    for region, vm, _vbdf, key in context.vms():
        if vm not in told and not VM_NAME.fullmatch(vm.name):
            told.add(vm)
            yield Hit(
                f"the name '{vm.name}' of VM {vm.id} has {len(vm.name)} characters, or ones not allowed", region, key
            )


@_rule(
    "vm-name-duplicate",
    ERROR,
    "A VM of a region has a name that no other VM has.",
    "rename one of them in the scenario and in its launch script",
    "schema/config.xsd (vmNameUnique); regions of v3.x say which VMs they mean by name, and so does acrn-dm from v2.7",
    since=VM_NAMES_SINCE,
)
def _vm_name_duplicate(context: Context) -> Iterator[Hit]:
    counts = Counter(vm.name for vm in context.scenario.vms)
    told = set()
    for region, vm, _vbdf, key in context.vms():
        if counts[vm.name] > 1 and vm.name not in told:
            told.add(vm.name)
            ids = some((each.id for each in context.scenario.vms if each.name == vm.name), between=" and ")
            yield Hit(f"the VMs {ids} have the same name '{vm.name}'", region, key)


@_rule(
    "dm-vm-kind",
    ERROR,
    "Only post-launched VMs share a dm-land region.",
    "use provided_by: hypervisor, or leave the VM out",
    "acrn-dm emulates it (devicemodel/hw/pci/ivshmem.c); v3.x accepts other VMs in the XML without effect",
)
def _dm_vm_kind(context: Context) -> Iterator[Hit]:
    for region, vm, _vbdf, key in context.vms():
        if region.provided_by == DEVICE_MODEL and vm.load_order != POST_LAUNCHED:
            kind = "the Service VM" if vm.load_order == SERVICE else "a pre-launched VM"
            yield Hit(f"is provided by the device model, but VM '{vm.name}' is {kind}", region, key)


@_rule(
    "service-vm",
    ERROR,
    "On v2.2 the Service VM cannot share a region.",
    "leave the Service VM out, or use ACRN v2.3 or later",
    "misc/acrn-config/library/scenario_cfg_lib.py (share_mem_check) of v2.2",
    until=before(SERVICE_VM_SINCE),
)
def _service_vm(context: Context) -> Iterator[Hit]:
    for region, vm, _vbdf, key in context.vms():
        if vm.load_order == SERVICE and region.provided_by == HYPERVISOR:
            yield Hit(f"VM '{vm.name}' is the Service VM", region, key)


# -- where the device stands -----------------------------------------------------------------------------------------


def _several(context: Context, vm: Vm) -> bool:
    return several_functions(vm, context.version)


@_rule(
    "vbdf-function",
    ERROR,
    "A vBDF is on bus 00 and has function 0; from v3.3 on Service and pre-launched VMs may have others beside a region "
    "with function 0.",
    "write it as 00:DD.0",
    "launch_config/launch_cfg_gen.py drops bus and function; hypervisor/dm/vpci/ivshmem.c tells guests of further "
    "functions from v3.3 on, and only where function 0 is a region",
)
def _vbdf_function(context: Context) -> Iterator[Hit]:
    first = {
        (vm.id, vbdf.device) for _region, vm, vbdf, _key in context.vms() if vbdf and not (vbdf.bus or vbdf.function)
    }
    for region, vm, vbdf, key in context.vms():
        if not vbdf or not (vbdf.bus or vbdf.function):
            continue
        if vbdf.bus or not _several(context, vm):
            yield Hit(f"the vBDF {vbdf} of VM '{vm.name}' is not on bus 00 with function 0", region, f"{key}.vbdf")
        elif (vm.id, vbdf.device) not in first:
            where = f"no region of it has a vbdf of 00:{vbdf.device:02x}.0"
            yield Hit(f"VM '{vm.name}' does not look for the vBDF {vbdf}, since {where}", region, f"{key}.vbdf")


@_rule(
    "vbdf-choice",
    ERROR,
    "Up to v2.7 ACRN's build places the device of pre-launched and Service VMs.",
    "remove vbdf from that VM",
    "static_allocators/bdf.py (find_unused_bdf) of v2.x; the scenario XML has no place for a vBDF",
    until=V2_LAST,
)
def _vbdf_choice(context: Context) -> Iterator[Hit]:
    for region, vm, vbdf, key in context.vms():
        if vbdf and vm.load_order != POST_LAUNCHED:
            yield Hit(f"VM '{vm.name}' cannot be given the vBDF {vbdf} in a v2.x scenario", region, f"{key}.vbdf")


@_rule(
    "vbdf-reserved",
    ERROR,
    "The device number is 03 to 1e in a post-launched VM and not 00 in any other.",
    "use a device number from 03 to 1e",
    "schema/checks/vbdf_assignment.xsd for post-launched VMs; 00:00.0 is the host bridge (static_allocators/bdf.py)",
)
def _vbdf_reserved(context: Context) -> Iterator[Hit]:
    for region, vm, vbdf, key in context.vms():
        if vbdf is None or vbdf.bus:
            continue
        allowed = range(0x03, 0x1F) if vm.load_order == POST_LAUNCHED else range(0x01, 0x20)
        if vbdf.device not in allowed:
            yield Hit(
                f"device {vbdf.device:02x} of the vBDF {vbdf} of VM '{vm.name}' is reserved", region, f"{key}.vbdf"
            )


@_rule(
    "vbdf-clash",
    ERROR,
    "No two devices of a VM have the same device number; from v3.3 on Service and pre-launched VMs may have several "
    "functions of one.",
    "choose another device number, or leave vbdf out to have a free one chosen",
    "schema/checks/vbdf_assignment.xsd compares text, so 00:0A.0 and 00:0a.0 pass there",
)
def _vbdf_clash(context: Context) -> Iterator[Hit]:
    def place(vm: Vm, bdf: Bdf) -> tuple[int, int, int]:
        return vm.id, bdf.device, bdf.function if _several(context, vm) else 0

    holders: dict[tuple[int, int, int], str] = {}
    for vm in context.scenario.vms:
        for function in vm.functions:
            if function.kind == "vuart" and not function.bdf.bus:
                holders[place(vm, function.bdf)] = f"vUART '{function.what}'"
    for region, vm, vbdf, key in context.vms():
        if vbdf and not vbdf.bus:
            holder = holders.setdefault(place(vm, vbdf), f"region '{region.name}'")
            if holder != f"region '{region.name}'":
                yield Hit(f"the vBDF {vbdf} of VM '{vm.name}' is taken by {holder}", region, f"{key}.vbdf")


def _passthrough(context: Context, post_launched: bool) -> Iterator[Hit]:
    for region, vm, vbdf, key in context.vms():
        for function in vm.functions:
            if function.kind != "passthrough" or vbdf is None or (vm.load_order == POST_LAUNCHED) != post_launched:
                continue
            if (function.bdf.bus, function.bdf.device) == (vbdf.bus, vbdf.device):
                yield Hit(
                    f"the vBDF {vbdf} of VM '{vm.name}' is that of its device {function.what}", region, f"{key}.vbdf"
                )


@_rule(
    "vbdf-passthrough",
    ERROR,
    "In a pre-launched or Service VM no region stands where a passthrough device may.",
    "choose another device number",
    "static_allocators/bdf.py (insert_pt_devs_to_dev_dict) keeps the number of some passthrough devices",
)
def _vbdf_passthrough(context: Context) -> Iterator[Hit]:
    return _passthrough(context, False)


@_rule(
    "vbdf-passthrough-post",
    WARNING,
    "In a post-launched VM a launch script often gives a passthrough device its native number.",
    "choose another device number, or see that the launch script gives that device another slot",
    "launch_config/launch_cfg_gen.py (add_passthrough_device)",
)
def _vbdf_passthrough_post(context: Context) -> Iterator[Hit]:
    return _passthrough(context, True)


@_rule(
    "vbdf-native",
    ERROR,
    "In the Service VM no region stands on a native device of the board.",
    "choose a device number that the board leaves free",
    "schema/checks/vbdf_assignment.xsd compares whole BDFs, so another function of a native device passes there",
)
def _vbdf_native(context: Context) -> Iterator[Hit]:
    native = {bdf.device: bdf for bdf in (context.board.native if context.board else ()) if bdf.bus == 0}
    for region, vm, vbdf, key in context.vms():
        if vm.load_order == SERVICE and vbdf and not vbdf.bus and vbdf.device in native:
            yield Hit(
                f"the vBDF {vbdf} of VM '{vm.name}' stands on the native device {native[vbdf.device]}",
                region,
                f"{key}.vbdf",
            )


@_rule(
    "vbdf-named",
    WARNING,
    "In the Service VM no region stands where the board's ACPI tables name a device, though none is there.",
    "choose a device number that the board does not name, unless guests find the region where it is",
    "the device tree of the board XML names root ports that are fused off; ACRN looks at the devices that lspci lists",
    since=V3_FIRST,
)
def _vbdf_named(context: Context) -> Iterator[Hit]:
    board = context.board
    native = {bdf.device for bdf in (board.native if board else ()) if bdf.bus == 0}
    named = {bdf.device: bdf for bdf in (board.named if board else ()) if bdf.device not in native}
    for region, vm, vbdf, key in context.vms():
        if vm.load_order == SERVICE and vbdf and not vbdf.bus and vbdf.device in named:
            what = f"the number of {named[vbdf.device]}, which the board names but does not have"
            yield Hit(f"the vBDF {vbdf} of VM '{vm.name}' has {what}", region, f"{key}.vbdf")


@_rule(
    "vbdf-moved",
    WARNING,
    "A region stays at the vBDF that the file gives it.",
    "give vbdf to choose another place",
    "the place that the file has cannot be used (see the rules on vBDFs), so another one is chosen",
    since=V3_FIRST,
)
def _vbdf_moved(context: Context) -> Iterator[Hit]:
    scenario, board = context.scenario, context.board
    native, named = (board.native, board.named) if board else ((), ())
    before = scenario.places()
    asked = {(region.name, vm.id) for region, vm, vbdf, key in context.vms() if vbdf}
    try:
        placed = place_regions(scenario, context.regions, native, (), named, context.version)
    except IvshmemError:
        # Other rules tell what is wrong.
        return
    for each in placed:
        for at in each.vms:
            key = (each.region.name, at.vm.id)
            old = before.get(key) if key not in asked else None
            if old and old != at.vbdf:
                told = f"its vBDF {old} of VM '{at.vm.name}' cannot be kept, and becomes {at.vbdf}"
                yield Hit(told, each.region, "vms")


@_rule(
    "vbdf-lost",
    WARNING,
    "On v2.3 and v2.4 the Service VM finds a region only where its guest looks behind function 0 of the host bridge.",
    "see in the Service VM that the devices are there (lspci -d 1af4:1110), or use ACRN v2.5 or later",
    "scenario_config/pci_dev_c.py (find_unused_bdf) places it at 00:00.1 and up; acrn-hypervisor issue 5869",
    since=(2, 3),
    until=(2, 4),
)
def _vbdf_lost(context: Context) -> Iterator[Hit]:
    for region, vm, _vbdf, key in context.vms():
        if vm.load_order == SERVICE and region.provided_by == HYPERVISOR:
            yield Hit(
                f"VM '{vm.name}' is the Service VM, where ACRN's build gives it a function other than 0", region, key
            )


_STRICT_GUESTS = re.compile(r"zephyr|windows|waag|(?<![a-z])win(?![a-z])", re.IGNORECASE)


@_rule(
    "bar-size",
    WARNING,
    "On v2.2 and v2.3 a guest takes registers of 4096 bytes; drivers of Windows and Zephyr want 256.",
    "use ACRN v2.4 or later for this guest, or provide the region by the device model",
    "hypervisor/dm/vpci/ivshmem.c (IVSHMEM_MMIO_BAR_SIZE); projectacrn/acrn-hypervisor issue 5717",
    until=(2, 3),
)
def _bar_size(context: Context) -> Iterator[Hit]:
    for region, vm, _vbdf, key in context.vms():
        system = context.guests.get(vm.id, "") or f"{vm.name} {vm.kern_type}"
        if region.provided_by == HYPERVISOR and _STRICT_GUESTS.search(system):
            yield Hit(f"VM '{vm.name}' seems to run Windows or Zephyr, whose driver refuses the device", region, key)


@_rule(
    "board-unknown",
    WARNING,
    "Without the board XML nobody can tell which devices the Service VM has.",
    "give the board XML",
    "schema/checks/vbdf_assignment.xsd",
    since=V3_FIRST,
)
def _board_unknown(context: Context) -> Iterator[Hit]:
    if context.board is None:
        for region, vm, _vbdf, key in context.vms():
            if vm.load_order == SERVICE:
                yield Hit(f"VM '{vm.name}' is the Service VM, and its vBDF was not held against the board", region, key)


@_rule(
    "board-version",
    WARNING,
    "The board XML is one that the board_inspector of the ACRN version writes.",
    "make it anew on the host with misc/config_tools/board_inspector of the ACRN tree that is built",
    "board_inspector: processors from v2.5 on, ioapics (extractors/40-acpi-tables.py) from v3.0 on",
)
def _board_version(context: Context) -> Iterator[Hit]:
    board, version = context.board, context.version
    if board and board.made_by and version and not board.made_by[0] <= version <= board.made_by[1]:
        first, last = board.made_by
        words = f"{spelt(first)} and later" if last > LAST else f"{spelt(first)} to {spelt(last)}"
        yield Hit(f"board '{board.name}' is written as ACRN {words} does, and this is {spelt(version)}")


@_rule(
    "emulated-mmio",
    WARNING,
    "A VM has MMIO handlers for about six hypervisor regions.",
    "raise hv/CAPACITIES/MAX_EMULATED_MMIO (1 to 128) or give the VM fewer regions",
    "each takes two of MAX_EMULATED_MMIO (hypervisor/dm/io_req.c), and one that finds none left has a dead doorbell",
)
def _emulated_mmio(context: Context) -> Iterator[Hit]:
    count = Counter(vm for region, vm, _vbdf, _key in context.vms() if region.provided_by == HYPERVISOR)
    # Interrupt controller, MMCFG, vUART and MSI-X tables of passthrough devices need some as well.
    limit = (context.scenario.max_emulated_mmio - 4) // 2
    for vm, devices in count.items():
        if devices > limit:
            yield Hit(f"VM '{vm.name}' has {devices} hypervisor regions, MAX_EMULATED_MMIO leaves room for {limit}")


@_rule(
    "region-alike",
    WARNING,
    "Up to v2.7 two regions of a Service or pre-launched VM had better differ in size.",
    "they are told apart by the order in which ACRN's build places them; give one of them another size if programs in "
    "the guest look for it by its size",
    "static_allocators/bdf.py (find_unused_bdf); hypervisor/dm/vpci/ivshmem.c writes no subsystem ID up to v3.2",
    until=V2_LAST,
)
def _region_alike(context: Context) -> Iterator[Hit]:
    first: dict[tuple[int, int], str] = {}
    for region, vm, _vbdf, key in context.vms():
        if region.provided_by == HYPERVISOR and vm.load_order != POST_LAUNCHED:
            other = first.setdefault((vm.id, region.size), region.name)
            if other != region.name:
                alike = f"only the order of its functions tells it from region '{other}', of {region.size} MB too"
                yield Hit(f"in VM '{vm.name}' {alike}", region, key)


# -- memory ----------------------------------------------------------------------------------------------------------


def _providers(counts: Collection[str]) -> str:
    return "regions of both providers" if DEVICE_MODEL in counts else "hypervisor regions"


@_rule(
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


@_rule(
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


@_rule(
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


@_rule(
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


@_rule(
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


@_rule(
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


# -- the file and what is known of it --------------------------------------------------------------------------------


@_rule(
    "version-dialect",
    ERROR,
    "The ACRN version speaks the dialect of the scenario.",
    "upgrade the scenario with ACRN's own tools, or correct acrn_version",
    "v3.0 renamed the elements of the scenario XML; upgrader.py is its own migration",
)
def _version_dialect(context: Context) -> Iterator[Hit]:
    if context.version and (context.version >= V3_FIRST) != (context.scenario.dialect == V3):
        dialect = "v3.x" if context.scenario.dialect == V3 else "v2.x"
        yield Hit(f"{context.scenario.where} is a {dialect} scenario, but acrn_version is {spelt(context.version)}")


@_rule(
    "version-range",
    WARNING,
    f"ACRN versions from {spelt(FIRST)} to {spelt(LAST)} are known.",
    "check the result with care",
    "earlier versions have no ivshmem in the hypervisor",
    since=(0, 0),
)
def _version_range(context: Context) -> Iterator[Hit]:
    if context.version and not FIRST <= context.version <= LAST:
        yield Hit(f"acrn_version is {spelt(context.version)}")


@_rule(
    "version-unknown",
    WARNING,
    "The ACRN version is known.",
    "set acrn_version, or keep the scenario in an ACRN tree with its VERSION file",
    "limits and the memory budget differ between versions",
)
def _version_unknown(context: Context) -> Iterator[Hit]:
    if context.version is None and context.regions:
        yield Hit("the ACRN version is not known, so rules that hold for some versions only warn")


@_rule(
    "root-line",
    WARNING,
    "The root start tag stands alone on its line.",
    "write <acrn-config ...> on one line, with a line end behind it",
    "hypervisor/scripts/makefile/config.mk rewrites that line with sed, which loses what else is on it",
    since=V3_FIRST,
)
def _root_line(context: Context) -> Iterator[Hit]:
    document = context.scenario.document
    line, end_of_line, _rest = document.source[document.root.start :].partition(b"\n")
    tag = document.source[document.root.start : document.root.body]
    if line.rstrip() != tag or not end_of_line:
        yield Hit(f"{context.scenario.where}: the root start tag shares its line, or has several; the build breaks it")


@_rule(
    "region-unreadable",
    WARNING,
    "Every region of the file can be read, and none is there twice.",
    "correct or remove it; state exact replaces all regions",
    "state present leaves alone what it does not understand, and ACRN's build may fail on it",
)
def _region_unreadable(context: Context) -> Iterator[Hit]:
    document = context.scenario.document
    lines = [document.line(node) for node in context.scenario.block.unreadable]
    for line in lines[:10]:
        yield Hit(f"{document.where}: line {line} holds a region that is not readable, or there twice")
    if len(lines) > 10:
        yield Hit(f"{document.where}: so do {len(lines) - 10} more lines")


@_rule(
    "region-disabled",
    WARNING,
    "Up to v2.7 a scenario that lists regions has IVSHMEM_ENABLED y.",
    "declare those that you want, and remove the lines of the others",
    "else the hypervisor is built without regions (CONFIG_IVSHMEM_ENABLED in hypervisor/dm/vpci/ivshmem.c)",
    until=V2_LAST,
)
def _region_disabled(context: Context) -> Iterator[Hit]:
    scenario = context.scenario
    names = [region.name for region in scenario.regions if region.name not in context.declared]
    element = scenario.block.element
    if element and names and not scenario.enabled:
        wanted = {region.name for region in context.regions}
        line = scenario.document.line(element.first("IVSHMEM_ENABLED") or element)
        switch = f"{scenario.where}: IVSHMEM_ENABLED (line {line}) is not y"
        if wanted.intersection(names):
            yield Hit(f"{switch}, and the declared regions switch on what else the file lists: {some(names)}")
        else:
            yield Hit(f"{switch}, so ACRN ignores what the file lists: {some(names)}")


def _finding(rule: Rule, severity: str, hit: Hit) -> Finding:
    region = hit.region
    # One of the file alone has no place in a declaration.
    place = f"{region.place}.{hit.key}" if region and region.place and hit.key else region.place if region else ""
    return Finding(rule.id, severity, region.name if region else "", hit.text, rule.mend, place)


def check(
    scenario: Scenario,
    regions: Iterable[Region],
    version: tuple[int, int] | None = None,
    board: Board | None = None,
    declared: Collection[str] = (),
    guests: Mapping[int, str] | None = None,
) -> list[Finding]:
    """Hold regions against every rule of their ACRN version, and return all findings, errors first.

    ``declared``: the names of those that the user asked for. ``guests``: what VMs run, by ID, where it is known.
    """
    context = Context(scenario, tuple(regions), version, board, declared, guests or {})
    findings = []
    for rule in RULES:
        severity = rule.severity_for(version, scenario.dialect)
        if severity:
            findings += [_finding(rule, severity, hit) for hit in rule.check(context)]
    return sorted(findings, key=lambda finding: finding.severity != ERROR)


def refuse(findings: Iterable[Finding], where: str, unreadable: Iterable[str] = (), others: Iterable[str] = ()) -> None:
    """Raise one IvshmemError with every error among the findings, a line each; do nothing without errors.

    ``unreadable`` tells what is wrong with regions that no rule could be asked about, ``others`` what is wrong with
    those that use the VMs.
    """
    mistakes = [f"{ERROR}: {problem}" for problem in unreadable]
    mistakes += [str(finding) for finding in findings if finding.severity == ERROR]
    more = [f"{ERROR}: {problem}" for problem in others]
    if mistakes or more:
        total = len(mistakes) + len(more)
        count = f"{total} mistakes" if total > 1 else "a mistake"
        told = some([*mistakes, *more], 50, "\n")
        raise IvshmemError(
            f"{count}{'' if more else ' in the regions'}, held against {where}; nothing was changed\n{told}"
        )
