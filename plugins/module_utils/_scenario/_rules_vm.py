# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of the VMs of a region.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    SERVICE_VM_SINCE,
    VM_NAME,
    VM_NAMES_SINCE,
    before,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    HYPERVISOR,
    POST_LAUNCHED,
    PRE_LAUNCHED,
    SERVICE,
    IvshmemError,
    Region,
    some,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import ERROR, WARNING, Context, Hit, Rules
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import Vm
from ansible_collections.acrn.ivshmem.plugins.module_utils._words import meant

RULES = Rules()


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


@RULES.add(
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


def _alone(context: Context) -> Iterator[tuple[Region, Vm, str]]:
    """Pre-launched VMs with a region of the hypervisor and without a passthrough device, each of them once."""
    told = set()
    for region, vm, _vbdf, key in context.vms():
        if vm.load_order != PRE_LAUNCHED or region.provided_by != HYPERVISOR or vm in told:
            continue
        if not any(function.kind == "passthrough" for function in vm.functions):
            told.add(vm)
            yield region, vm, key


@RULES.add(
    "vm-alone",
    ERROR,
    "On v2.2 a pre-launched VM with a region has a passthrough device.",
    "give it one in pci_devs, take it out of the region, or use ACRN v2.3 or later",
    "scenario_config/pci_dev_c.py of v2.2 makes no list of devices for it, and the linker misses it",
    until=(2, 2),
)
def _vm_alone(context: Context) -> Iterator[Hit]:
    for region, vm, key in _alone(context):
        yield Hit(f"VM '{vm.name}' is pre-launched and has no passthrough device", region, key)


@RULES.add(
    "host-bridge",
    WARNING,
    "On v2.3 a pre-launched VM has a host bridge only beside a passthrough device, and Linux finds no PCI without one.",
    "add pci=conf1,lastbus=1 to the bootargs of that VM, give it a passthrough device, or use ACRN v2.4 or later",
    "scenario_config/pci_dev_c.py; pci_sanity_check in arch/x86/pci/direct.c of Linux, and pci_mmcfg_check_reserved in "
    "mmconfig-shared.c, which asks for it",
    since=(2, 3),
    until=(2, 3),
)
def _host_bridge(context: Context) -> Iterator[Hit]:
    for region, vm, key in _alone(context):
        told = {option for word in vm.bootargs.split() if word.startswith("pci=") for option in word[4:].split(",")}
        if vm.kern_type != "KERNEL_ZEPHYR" and "conf1" not in told:
            yield Hit(f"VM '{vm.name}' has no host bridge, and its Linux says that there is no PCI", region, key)
