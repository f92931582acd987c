# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of where the devices of a VM stand.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import LAST, V2_LAST, V3_FIRST, spelt
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    HYPERVISOR,
    POST_LAUNCHED,
    SERVICE,
    Bdf,
    IvshmemError,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import place_regions, several_functions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import (
    ERROR,
    WARNING,
    Context,
    Hit,
    Rules,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import Vm

RULES = Rules()


def _several(context: Context, vm: Vm) -> bool:
    return several_functions(vm, context.version)


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
    "vbdf-passthrough",
    ERROR,
    "In a pre-launched or Service VM no region stands where a passthrough device may.",
    "choose another device number",
    "static_allocators/bdf.py (insert_pt_devs_to_dev_dict) keeps the number of some passthrough devices",
)
def _vbdf_passthrough(context: Context) -> Iterator[Hit]:
    return _passthrough(context, False)


@RULES.add(
    "vbdf-passthrough-post",
    WARNING,
    "In a post-launched VM a launch script often gives a passthrough device its native number.",
    "choose another device number, or see that the launch script gives that device another slot",
    "launch_config/launch_cfg_gen.py (add_passthrough_device)",
)
def _vbdf_passthrough_post(context: Context) -> Iterator[Hit]:
    return _passthrough(context, True)


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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
