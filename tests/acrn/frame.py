# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame of a scenario for the emulated machine: VMs, their memory and boot arguments, and an empty IVSHMEM element.

The regions are not written here: that is the work of the collection. What differs from a scenario of a real board:

- ACPI_PARSE_ENABLED is n: the board XML says all that ACRN would read from DMAR and FADT.
- RDT, UC_LOCK and SPLIT_LOCK detection and HYPERV are off: the processor has none of them.
- The RAM of pre-launched VMs lies where nobody else looks for memory (board.Machine.given).
- VMs that acrn-dm starts have no serial port of the hypervisor: it would take what they write before acrn-dm sees it.
- Pre-launched VMs of v2.6 and before are told to poll their serial port (POLLED_UNTIL), those of v2.3 that there is PCI
  (UNBRIDGED_UNTIL).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import List, Tuple

import board

PRE, SERVICE, POST = "PRE_LAUNCHED_VM", "SERVICE_VM", "POST_LAUNCHED_VM"
KERNEL_TAG, INITRD_TAG = "Linux_bzImage", "Linux_ramdisk"

# The time stamp counter advances one tick an instruction and says 2.4 GHz, so that each delay costs 48 times too much:
# the kernel is told a slower one.
BOOTARGS = (
    "console=ttyS0 nohpet no_timer_check tsc=reliable tsc_early_khz=50000 nokaslr nopti nopcid mitigations=off "
    "lpj=50000 quiet reboot=acpi"
)


@dataclass(frozen=True)
class Vm:
    """A VM of the frame. ``memory``: bytes; ``cpus``: numbers of the processors it may use."""

    name: str
    order: str = PRE
    cpus: tuple[int, ...] = (0,)
    memory: int = 256 * board.MB
    bootargs: str = ""

    @property
    def args(self) -> str:
        """All arguments of its kernel."""
        more = " pci=conf1 mem=1G intel_iommu=off" if self.order == SERVICE else ""
        return f"{BOOTARGS}{more} {self.bootargs}".rstrip()


Version = Tuple[int, int]
Fields = List[Tuple[str, object]]
LATEST = (99, 0)
# The first release whose scenario can name the VM whose console is shown.
CONSOLE_SINCE = (3, 3)
# Up to here the ACPI tables of a pre-launched VM name no serial port (acpi_gen/asl_gen.py) and say that the hardware is
# reduced (facp.asl): Linux gives such a port no interrupt, and what a program writes to it is never sent.
POLLED_UNTIL = (2, 6)
# Up to here the ramdisk stands right behind the file of the kernel (boot/guest/vboot_info.c), where one unpacks itself.
RAMDISK_BEHIND_UNTIL = (2, 4)
# Up to here a pre-launched VM has a host bridge only beside a passthrough device (scenario_config/pci_dev_c.py), and a
# kernel that finds none looks for no other function unless it is told to.
UNBRIDGED_UNTIL = (2, 3)
# The first release whose scenario calls the Service VM so.
_SERVICE_VM_SINCE = (2, 7)
# Up to here a pre-launched VM beside a Service VM has to be of a severity above it (hv_prebuild/vm_cfg_checks.c).
_SAFETY_UNTIL = (2, 6)
# The first and the last release whose tools know an option; all of a dialect know those that are not named.
_KNOWN = {
    "HV_RAM_SIZE": ((2, 3), (2, 6)),
    "HV_RAM_START": ((2, 3), (2, 6)),
    "IOMMU_BUS_NUM": ((2, 3), (2, 7)),
    "MAX_IR_ENTRIES": ((2, 3), (2, 7)),
    "UOS_RAM_SIZE": ((2, 3), (2, 4)),
    "SOS_RAM_SIZE": ((2, 3), (2, 4)),
    "NVMX_ENABLED": ((2, 5), (2, 7)),
    "MAX_EFI_MMAP_ENTRIES": ((2, 6), (2, 6)),
    "ENFORCE_TURNOFF_AC": ((2, 3), (3, 0)),
    "ENFORCE_TURNOFF_GP": ((2, 6), (3, 0)),
    "SECURITY_VM_FIXUP": ((2, 6), LATEST),
    "VCAT_ENABLED": ((2, 7), LATEST),
    "MAX_VM_NUM": ((2, 7), LATEST),
    "MCE_ON_PSC_DISABLED": ((2, 3), (3, 0)),
    "MCE_ON_PSC_ENABLED": ((3, 1), LATEST),
    "SPLIT_LOCK_DETECTION_ENABLED": ((3, 1), LATEST),
    "UC_LOCK_DETECTION_ENABLED": ((3, 1), LATEST),
    "CONSOLE_VM": (CONSOLE_SINCE, LATEST),
}


def _known(version: Version, fields: Fields) -> Fields:
    """Those of the fields that the tools of a release know."""
    return [
        (tag, _known(version, content) if isinstance(content, list) else content)
        for tag, content in fields
        if tag not in _KNOWN or _KNOWN[tag][0] <= version <= _KNOWN[tag][1]
    ]


def _tree(indent: int, tag: str, content: object) -> list[str]:
    """Lines of an element; content is text, or pairs of tag and content."""
    space = " " * indent
    name = tag.split(" ")[0]
    if not isinstance(content, (list, tuple)):
        return [f"{space}<{tag}>{content}</{name}>"]
    lines = [f"{space}<{tag}>"]
    for inner, value in content:
        lines += _tree(indent + 2, inner, value)
    return [*lines, f"{space}</{name}>"]


def _where(vms: Sequence[Vm], address: int) -> dict[str, int]:
    """Address of the RAM of each pre-launched VM: one behind the other."""
    found = {}
    for vm in vms:
        if vm.order == PRE:
            found[vm.name] = address
            address += vm.memory
    return found


def _os_config(vm: Vm, version: Version) -> tuple[str, object]:
    told = [" polled"] if vm.order == PRE and version <= POLLED_UNTIL else []
    told += [" pci=conf1,lastbus=1"] if vm.order == PRE and version <= UNBRIDGED_UNTIL else []
    args = vm.args + "".join(told)
    if vm.order == SERVICE and version < (3, 0):
        # A macro, for what is in board_private.
        args = "SERVICE_VM_OS_BOOTARGS" if version >= _SERVICE_VM_SINCE else "SOS_VM_BOOTARGS"
    fields = [
        ("kern_type", "KERNEL_BZIMAGE"),
        ("kern_mod", KERNEL_TAG),
        ("ramdisk_mod", INITRD_TAG),
        ("bootargs", args),
    ]
    return "os_config", [("name", "Linux"), *fields] if version < (3, 0) else fields


def _capacities(count: int, handlers: int) -> tuple[str, object]:
    return "CAPACITIES", [
        ("MAX_VM_NUM", count),
        ("MAX_EFI_MMAP_ENTRIES", 256),
        ("IOMMU_BUS_NUM", "0x100"),
        ("MAX_IR_ENTRIES", 256),
        ("MAX_IOAPIC_NUM", 1),
        ("MAX_PCI_DEV_NUM", 16),
        ("MAX_IOAPIC_LINES", 24),
        ("MAX_PT_IRQ_ENTRIES", 64),
        ("MAX_MSIX_TABLE_NUM", 16),
        ("MAX_EMULATED_MMIO", handlers),
    ]


_RDT = ("RDT", [("RDT_ENABLED", "n"), ("CDP_ENABLED", "n"), ("VCAT_ENABLED", "n")])


def _hv_v3(count: int, console: int | None, handlers: int) -> Fields:
    shown = [] if console is None else [("CONSOLE_VM", console)]
    return [
        ("BUILD_TYPE", "debug"),
        (
            "DEBUG_OPTIONS",
            [
                ("SERIAL_CONSOLE", "/dev/ttyS0"),
                ("MEM_LOGLEVEL", 5),
                ("NPK_LOGLEVEL", 5),
                ("CONSOLE_LOGLEVEL", 5),
                *shown,
            ],
        ),
        (
            "FEATURES",
            [
                ("RELOC_ENABLED", "y"),
                ("SCHEDULER", "SCHED_BVT"),
                ("MULTIBOOT2_ENABLED", "y"),
                ("ENFORCE_TURNOFF_AC", "y"),
                ("ENFORCE_TURNOFF_GP", "n"),
                ("SPLIT_LOCK_DETECTION_ENABLED", "n"),
                ("UC_LOCK_DETECTION_ENABLED", "n"),
                ("SECURITY_VM_FIXUP", "n"),
                _RDT,
                ("HYPERV_ENABLED", "n"),
                ("IOMMU_ENFORCE_SNP", "n"),
                ("ACPI_PARSE_ENABLED", "n"),
                ("L1D_VMENTRY_ENABLED", "n"),
                ("MCE_ON_PSC_DISABLED", "n"),
                ("MCE_ON_PSC_ENABLED", "n"),
                ("IVSHMEM", ""),
            ],
        ),
        ("MEMORY", [("STACK_SIZE", "0x2000")]),
        _capacities(count, handlers),
        ("MISC_CFG", [("GPU_SBDF", "0x00000010")]),
        ("vuart_connections", ""),
    ]


def _vm_v3(vm: Vm, address: int | None) -> Fields:
    fields: Fields = [("load_order", vm.order), ("vm_type", "STANDARD_VM"), ("name", vm.name)]
    if vm.order != SERVICE:
        fields.append(("cpu_affinity", [("pcpu", [("pcpu_id", cpu)]) for cpu in vm.cpus]))
    if address is not None:
        region = [("start_hpa", f"{address:#x}"), ("size_hpa", vm.memory // board.MB)]
        fields.append(("memory", [("hpa_region", region)]))
    if vm.order != POST:
        fields.append(_os_config(vm, (3, 0)))
    fields.append(("console_vuart", "None" if vm.order == POST else "COM Port 1"))
    if vm.order == PRE:
        fields.append(("mmio_resources", [("TPM2", "n")]))
    return fields


def _hv_v2(count: int, handlers: int) -> Fields:
    return [
        (
            "DEBUG_OPTIONS",
            [
                ("RELEASE", "n"),
                ("SERIAL_CONSOLE", "/dev/ttyS0"),
                ("MEM_LOGLEVEL", 5),
                ("NPK_LOGLEVEL", 5),
                ("CONSOLE_LOGLEVEL", 5),
                ("LOG_DESTINATION", 7),
                ("LOG_BUF_SIZE", "0x40000"),
            ],
        ),
        (
            "FEATURES",
            [
                ("RELOC", "y"),
                ("SCHEDULER", "SCHED_BVT"),
                ("MULTIBOOT2", "y"),
                ("ENFORCE_TURNOFF_AC", "y"),
                ("ENFORCE_TURNOFF_GP", "n"),
                ("SECURITY_VM_FIXUP", "n"),
                _RDT,
                ("NVMX_ENABLED", "n"),
                ("HYPERV_ENABLED", "n"),
                ("IOMMU_ENFORCE_SNP", "n"),
                ("ACPI_PARSE_ENABLED", "n"),
                ("L1D_VMENTRY_ENABLED", "n"),
                ("MCE_ON_PSC_DISABLED", "n"),
                ("IVSHMEM", [("IVSHMEM_ENABLED", "n"), ("IVSHMEM_REGION", "")]),
            ],
        ),
        (
            "MEMORY",
            [
                ("STACK_SIZE", "0x2000"),
                ("HV_RAM_SIZE", ""),
                ("HV_RAM_START", ""),
                ("LOW_RAM_SIZE", "0x00010000"),
                ("UOS_RAM_SIZE", "0x200000000"),
                ("SOS_RAM_SIZE", "0x400000000"),
                ("PLATFORM_RAM_SIZE", "0x180000000"),
            ],
        ),
        _capacities(count, handlers),
        ("MISC_CFG", [("GPU_SBDF", "0x00000010")]),
    ]


def _types_v2(version: Version, beside_service: bool) -> dict[str, str]:
    """What the VMs of each load order are."""
    pre = "SAFETY_VM" if beside_service and version <= _SAFETY_UNTIL else "PRE_STD_VM"
    service = "SERVICE_VM" if version >= _SERVICE_VM_SINCE else "SOS_VM"
    return {PRE: pre, SERVICE: service, POST: "POST_STD_VM"}


def _vm_v2(version: Version, number: int, vm: Vm, vm_type: str, address: int | None) -> Fields:
    other = 1 if number == 0 else 0
    fields: Fields = [
        ("vm_type", vm_type),
        ("name", vm.name),
        ("guest_flags", [("guest_flag", 0)]),
        ("cpu_affinity", [("pcpu_id", cpu) for cpu in vm.cpus]),
        ("clos", [("vcpu_clos", 0)]),
        ("epc_section", [("base", 0), ("size", 0)]),
    ]
    if address is not None:
        memory = [("start_hpa", f"{address:#x}"), ("size", f"{vm.memory:#x}"), ("start_hpa2", "0x0")]
        fields.append(("memory", [*memory, ("size_hpa2", "0x0")]))
    if vm.order != POST:
        fields.append(_os_config(vm, version))
    target = [("target_vm_id", other), ("target_uart_id", 1)]
    legacy = ("type", "VUART_LEGACY_PIO")
    console = "INVALID_COM_BASE" if vm.order == POST else "COM1_BASE"
    interrupt = "COM1_IRQ"
    if vm.order == SERVICE:
        # What it is called in the names of other things.
        service = "SERVICE_VM" if version >= _SERVICE_VM_SINCE else "SOS"
        console, interrupt = f"{service}_COM1_BASE", f"{service}_COM1_IRQ"
        fields.append(("memory", [("start_hpa", 0), ("size", "0x20000000")]))
        fields.append(("board_private", [("rootfs", "/dev/ram0"), ("bootargs", vm.args)]))
    return [
        *fields,
        ('legacy_vuart id="0"', [legacy, ("base", console), ("irq", interrupt)]),
        ('legacy_vuart id="1"', [legacy, ("base", "INVALID_COM_BASE"), ("irq", "COM2_IRQ"), *target]),
        ('console_vuart id="0"', [("base", "INVALID_PCI_BASE")]),
        ('communication_vuart id="1"', [("base", "INVALID_PCI_BASE"), *target]),
        ("pci_devs", [("pci_dev", "")]),
        ("mmio_resources", [("TPM2", "n")]),
    ]


def scenario_xml(
    version: Version,
    vms: Sequence[Vm],
    machine: board.Machine,
    *,
    console: int | None = None,
    handlers: int = 16,
) -> str:
    """A scenario without regions.

    ``console``: ID of the VM whose console is shown from the start (v3.3 and later; None is the hypervisor's own).
    ``handlers``: how many address ranges of a VM the hypervisor emulates.
    """
    where = _where(vms, machine.given)
    hv = _hv_v2(len(vms), handlers) if version < (3, 0) else _hv_v3(len(vms), console, handlers)
    types = _types_v2(version, any(vm.order == SERVICE for vm in vms))
    content: Fields = [("hv", _known(version, hv))]
    for number, vm in enumerate(vms):
        address = where.get(vm.name)
        fields = _vm_v3(vm, address) if version >= (3, 0) else _vm_v2(version, number, vm, types[vm.order], address)
        content.append((f'vm id="{number}"', fields))
    return "\n".join(_tree(0, 'acrn-config board="bochs" scenario="emulated"', content)) + "\n"
