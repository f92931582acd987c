# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ivshmem devices of acrn-dm: its ``-s`` argument, the slots, and what the devices have to agree with.

This module util is PRIVATE to the collection: it can change at any time.

acrn-dm reads ``-s [bus:]slot[:function],device[,options]`` with decimal numbers, separated by ``:``, ``/`` or ``.``
(devicemodel/hw/pci/core.c, pci_parse_slot and parse_bdf), and ``ivshmem,NAME,SIZE_MB[,REGION_ID]``
(devicemodel/hw/pci/ivshmem.c, pci_ivshmem_init). Scripts that call it are read by ``_view``, edited by ``_edit``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    LONGEST_REGION_NAME,
    LONGEST_VM_NAME,
    REGION_IDS_SINCE,
    REGION_NAME,
    RESERVED_SLOTS,
    SIZES,
    SLOT_ORDER,
    VM_NAMES_SINCE,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    DEVICE_OPTIONS,
    HYPERVISOR,
    POST_LAUNCHED,
    PREFIXES,
    PROVIDERS,
    Bdf,
    Device,
    IvshmemError,
    read_device,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._words import meant

if TYPE_CHECKING:
    from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario
    from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import Vm

# devicemodel/core/main.c, long_options of all releases. --ssram is not here: only v3.0+ takes a value, and ACRN's own
# generator writes none.
_LONG_OPTIONS = """elf_file ioc_node lpc pci_slot memsize uuid kernel ramdisk bootargs gvtargs mac_seed vsbl ovmf
    iasl cpu_affinity part_info virtio_poll intr_monitor cmd_monitor acpidev_pt apcidev_pt mmiodev_pt vtpm2
    logger_setting pm_notify_channel pm_by_vuart"""
LONG_WITH_VALUE = frozenset(_LONG_OPTIONS.split())
SHORT_WITH_VALUE = frozenset("EkrBsmlUGi")


# Arguments


def parse_slot(text: str) -> Bdf:
    """Read ``[bus:]slot[:function]`` as acrn-dm does, in decimal. Raises IvshmemError out of range or unreadable."""
    fields = re.split(r"[:/.]", text, maxsplit=2)
    numbers = []
    for part in fields:
        # strtol: blanks and a sign in front, anything behind is not looked at.
        match = re.match(r"[ \t\n\v\f\r]*([+-]?[0-9]{1,18})", part)
        numbers.append(int(match.group(1)) if match else -1)
    bus, slot, function = [0, *numbers, 0] if len(numbers) == 1 else [0, *numbers] if len(numbers) == 2 else numbers
    if not (0 <= bus <= 255 and 0 <= slot <= 31 and 0 <= function <= 7):
        raise IvshmemError(
            f"'{text}' is no PCI slot for acrn-dm: write [bus:]slot[:function] in decimal with slot 0..31, "
            "function 0..7"
        )
    return Bdf(bus, slot, function)


def format_slot(bdf: Bdf) -> str:
    """The shortest form that acrn-dm reads as this address."""
    if bdf.bus:
        return f"{bdf.bus}:{bdf.device}:{bdf.function}"
    return f"{bdf.device}:{bdf.function}" if bdf.function else str(bdf.device)


@dataclass(frozen=True)
class PciArgument:
    """The value of ``-s``. ``options`` is what follows the device's name, without the comma."""

    bdf: Bdf
    device: str
    options: str = ""


def parse_pci(text: str) -> PciArgument:
    """Read the value of ``-s``. Raises IvshmemError as parse_slot does, and where no device is named."""
    slot, comma, rest = text.partition(",")
    if not comma:
        raise IvshmemError(f"'{text}' names no device: write slot,device[,options]")
    device, _comma, options = rest.partition(",")
    return PciArgument(parse_slot(slot), device, options)


def format_pci(argument: PciArgument) -> str:
    """The value of ``-s``; ``parse_pci`` reads it back."""
    tail = f",{argument.options}" if argument.options else ""
    return f"{format_slot(argument.bdf)},{argument.device}{tail}"


def ivshmem_options(options: str | None) -> tuple[str | None, int | None, int | None]:
    """Name with prefix, size in MB and region ID as acrn-dm reads them. None for what cannot be read.

    It counts the bytes of the memory in 32 bits, so that 4100 MB are 4, and a guest sees 16 bits of the region ID.
    """
    if options is None:
        return None, None, None
    fields = [*options.split(","), "", ""]
    size, region_id = map(_strtoul, fields[1:3])
    return fields[0], None if size is None else size % 4096, None if region_id is None else region_id & 0xFFFF


def _strtoul(text: str) -> int | None:
    """The number at the beginning of a text, as C's strtoul has it: what follows the digits is not looked at."""
    match = re.match(r"[ \t\n\v\f\r]*([+-]?)0*([0-9]{1,20})(?![0-9])", text)
    number = int(match.group(2)) if match else 1 << 64
    if number >= 1 << 64:
        return None
    return -number % (1 << 64) if match and match.group(1) == "-" else number


def uuid_of(vm: Mapping[str, Any], version: tuple[int, int] | None) -> str | None:
    """What acrn-dm's -U has for a VM, where the hypervisor knows a VM by that and by no name: before VM_NAMES_SINCE
    (hypervisor/arch/x86/guest/vmcall.c)."""
    uuid = vm.get("uuid")
    return str(uuid).lower() if uuid and (version is None or version < VM_NAMES_SINCE) else None


def known_as(
    name: str | None, uuid: str | None, vms: Iterable[Mapping[str, Any]], version: tuple[int, int] | None
) -> str | None:
    """The name that one of some VMs (with name and uuid) has, of what acrn-dm was given: by ``uuid``, where the
    hypervisor of that version goes by it, else as it is."""
    return next((str(vm["name"]) for vm in vms if uuid and uuid_of(vm, version) == uuid.lower()), name)


def read_arguments(arguments: Sequence[str]) -> tuple[str | None, str | None, tuple[PciArgument, ...]]:
    """The VM's name, its UUID and the PCI devices of acrn-dm's arguments, without the command itself, as a process has
    them.

    Devices that cannot be read are left out; name and UUID are None where there is none.
    """
    name = uuid = None
    devices = []
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        value = None
        index += 1
        if argument.startswith("--"):
            option, equals, given = argument[2:].partition("=")
            if option.startswith("pc") and "pci_slot".startswith(option):
                option = "pci_slot"  # getopt takes the beginning of a name that no other option has
            if equals:
                value = given
            elif option in LONG_WITH_VALUE and index < len(arguments):
                value, index = arguments[index], index + 1
            option = {"pci_slot": "s", "uuid": "U"}.get(option, "")
        elif argument.startswith("-") and len(argument) > 1:
            # Letters without a value may stand before the one that has it.
            at = next((at for at, letter in enumerate(argument) if at and letter in SHORT_WITH_VALUE), 0)
            option = argument[at]
            if at:
                value = argument[at + 1 :]
                if not value and index < len(arguments):
                    value, index = arguments[index], index + 1
        else:
            name = argument
            continue
        if option == "U":
            uuid = value
        elif option == "s" and value is not None:
            try:
                devices.append(parse_pci(value))
            except IvshmemError:
                continue
    return name, uuid, tuple(devices)


def options_of(device: Device) -> str:
    """What follows ``SLOT,ivshmem,``. acrn-dm reads the region ID in base 10 only."""
    return f"{device.prefixed},{device.size}" + (f",{device.region_id}" if device.region_id else "")


def plain_options(options: str | None, version: tuple[int, int] | None = None) -> str | None:
    """Options as options_of writes what acrn-dm reads of them: ``2M`` is 2, and an ID in hex is none.

    Before v3.3 each ID is: nothing behind the size is looked at there (devicemodel/hw/pci/ivshmem.c).
    """
    name, size, region_id = ivshmem_options(options)
    if name is None or size is None:
        return options
    if version is not None and version < REGION_IDS_SINCE:
        region_id = None
    return f"{name},{size}" + (f",{region_id}" if region_id else "")


def argument_of(device: Device, bdf: Bdf) -> str:
    """The value of ``-s`` for a device at a place."""
    return format_pci(PciArgument(bdf, "ivshmem", options_of(device)))


def make_device(value: Mapping[str, Any], acrn_version: tuple[int, int] | None = None, sized: bool = True) -> Device:
    """Read one entry of ``devices``: name (prefix allowed), provided_by, size (MB), slot (decimal) or vbdf, region_id.

    A region ID is dropped for an ACRN version before 3.3, whose acrn-dm does not know it. Without ``sized`` the size
    may be missing, for devices that are to go. Raises IvshmemError that names the region, the value and the mend.
    """
    name = str(value.get("name") or "")
    where = f"region '{name}'"
    for key in sorted(map(str, set(value) - {*DEVICE_OPTIONS, "bdf"})):
        told = f"the keys are {', '.join(DEVICE_OPTIONS)}"
        raise IvshmemError(f"{where}: unknown key '{key}'{meant(key, DEVICE_OPTIONS)}; {told}")
    provided_by = value.get("provided_by")
    by_prefix = PROVIDERS.get(name[:4])
    if by_prefix:
        name = name[4:]
        if provided_by not in (None, by_prefix):
            raise IvshmemError(f"{where}: the prefix says {by_prefix}, but provided_by is {provided_by}; remove one")
        provided_by = by_prefix
    if provided_by is None:
        raise IvshmemError(
            f"{where}: provided_by is missing: {HYPERVISOR} (hv-land) or {DEVICE_MODEL} (dm-land), or write the prefix "
            "hv:/ or dm:/ in front of the name"
        )
    if provided_by not in PREFIXES:
        raise IvshmemError(f"{where}: provided_by must be {HYPERVISOR} or {DEVICE_MODEL}, not '{provided_by}'")
    if not REGION_NAME.fullmatch(name):
        raise IvshmemError(
            f"{where}: a region name has 1 to {LONGEST_REGION_NAME} characters of A-Z, a-z, 0-9 and _; rename it"
        )
    device = replace(read_device(value, where), name=name, provided_by=provided_by)
    place = device.place
    if device.size is None:
        if sized:
            raise IvshmemError(f"{where}: size is missing; give it in MB")
        device = replace(device, size=SIZES[0])
    if place is not None and (place.bus or place.function):
        raise IvshmemError(
            f"{where}: vbdf {place} has a bus or function other than 0, which a launched VM cannot have; "
            f"write 00:{place.device:02x}.0 or another free device"
        )
    if acrn_version is not None and acrn_version < REGION_IDS_SINCE:
        device = replace(device, region_id=None)
    return device


def make_devices(
    values: Iterable[Mapping[str, Any]], acrn_version: tuple[int, int] | None = None, sized: bool = True
) -> tuple[Device, ...]:
    """Read ``devices``. Raises one IvshmemError that tells of every bad entry and of names given twice, a line each."""
    devices: list[Device] = []
    problems = []
    for value in values:
        try:
            device = make_device(value, acrn_version, sized)
        except IvshmemError as exc:
            problems.append(str(exc))
            continue
        if any(device.prefixed == other.prefixed for other in devices):
            problems.append(f"region '{device.prefixed}' is given twice; a VM has one device of a region")
        devices.append(device)
    if problems:
        raise IvshmemError("\n".join(problems))
    return tuple(devices)


def check_vm_name(name: str, acrn_version: tuple[int, int] | None = None) -> None:
    """Raise IvshmemError for a name that acrn-dm refuses."""
    length = len(name.encode("utf-8", "surrogateescape"))
    if length > LONGEST_VM_NAME and (acrn_version is None or acrn_version >= VM_NAMES_SINCE):
        raise IvshmemError(
            f"VM name '{name}' has more than {LONGEST_VM_NAME} characters: acrn-dm refuses it; shorten the name in the "
            "scenario and in the script"
        )


# What the devices have to agree with


def devices_of_vm(scenario: Scenario, vm: Vm) -> list[dict[str, Any]]:
    """The entries of ``devices`` that a scenario gives to one of its VMs."""
    return [
        {
            "name": region.name,
            "provided_by": region.provided_by,
            "size": region.size,
            "vbdf": None if vbdf is None else str(vbdf),
            "region_id": region.region_id,
        }
        for region in scenario.regions
        for member, vbdf in scenario.resolved(region)
        if member.id == vm.id
    ]


def check_scenario(devices: Iterable[Device], scenario: Scenario, vm: Vm) -> None:
    """Raise IvshmemError where devices and scenario contradict each other; every contradiction is told, a line each.

    The hypervisor compares the name with its prefix and the size with what was compiled into it
    (hypervisor/dm/vpci/ivshmem.c, create_ivshmem_vdev); a difference is only "Invalid argument" at launch.
    """
    problems = []
    if vm.load_order != POST_LAUNCHED:
        kind = vm.load_order.replace("_", "-")
        problems.append(
            f"VM '{vm.name}' (ID {vm.id}) is a {kind} VM in the scenario: acrn-dm only starts post-launched "
            "VMs, so it has "
            "no launch script"
        )
    regions = {region.prefixed: region for region in scenario.regions}
    for device in devices:
        told = f"region '{device.prefixed}'"
        region = regions.get(device.prefixed)
        if region is None:
            if device.provided_by == HYPERVISOR:
                known = ", ".join(sorted(name for name in regions if name.startswith("hv:/"))) or "none"
                problems.append(
                    f"{told} is not in the scenario, so the hypervisor does not have it (hv-land regions there: "
                    f"{known}); "
                    "add it to the scenario and rebuild, or correct the name"
                )
            elif f"hv:/{device.name}" in regions:
                problems.append(
                    f"{told} is provided by the hypervisor in the scenario, as 'hv:/{device.name}': acrn-dm would take "
                    "other memory, a file in /dev/shm; correct the prefix or the name"
                )
            continue
        if region.size != device.size:
            problems.append(f"{told} has {device.size} MB, but {region.size} MB in the scenario; make them equal")
        members = {member.id: vbdf for member, vbdf in scenario.resolved(region)}
        if vm.id not in members:
            problems.append(
                f"{told} does not list VM '{vm.name}' (ID {vm.id}) in the scenario; add the VM there or leave "
                "the device out"
            )
            continue
        vbdf = members[vm.id]
        if vbdf is not None and device.slot not in (None, vbdf.slot):
            problems.append(
                f"{told} is at vBDF {vbdf} (slot {vbdf.slot}) for VM '{vm.name}' in the scenario, but slot "
                f"{device.slot} is "
                "asked for; make them equal"
            )
    if problems:
        raise IvshmemError("\n".join(problems))


def manifest_regions(manifest: Any, where: str) -> dict[str, Any]:
    """Name and size of the hv-land regions of a built hypervisor.

    ``manifest`` is the manifest.json that the hypervisor build leaves beside acrn.bin; only its list ``regions`` with
    ``name``, ``provided_by`` and ``size`` is looked at. Without that list nothing can be said: IvshmemError.
    """
    regions = manifest.get("regions") if isinstance(manifest, Mapping) else None
    if not isinstance(regions, list):
        raise IvshmemError(f"{where}: has no list 'regions'; it is not the manifest of a hypervisor build")
    return sizes_of(regions)


def sizes_of(regions: Iterable[Any]) -> dict[str, Any]:
    """The sizes of hv-land regions by their names, of mappings that may have others among them."""
    built = {}
    for region in regions:
        if isinstance(region, Mapping):
            name = str(region.get("name"))
            name = name[4:] if name[:4] == PREFIXES[HYPERVISOR] else name
            if region.get("provided_by", HYPERVISOR) == HYPERVISOR:
                built[name] = region.get("size")
    return built


def lacking(devices: Iterable[Device], built: Mapping[str, Any]) -> list[str]:
    """What is wrong with hv-land devices for a hypervisor that has these regions, a sentence each."""
    problems = []
    for device in devices:
        if device.provided_by != HYPERVISOR:
            continue
        name = device.name or ""
        if name not in built:
            problems.append(f"region '{device.prefixed}' is not in it")
        elif built[name] != device.size:
            problems.append(f"region '{device.prefixed}' has {built[name]} MB in it, not {device.size} MB")
    return problems


def check_manifest(devices: Iterable[Device], manifest: Any, where: str) -> None:
    """Raise IvshmemError for an hv-land device that the built hypervisor does not have with that size."""
    problems = lacking(devices, manifest_regions(manifest, where))
    if problems:
        raise IvshmemError(
            f"the hypervisor of {where} does not fit: {'; '.join(problems)}. "
            "acrn-dm would end with 'Invalid argument'. "
            "Rebuild the hypervisor, install it and reboot the host first; then deploy the launch script"
        )


# Slots


def free_slots(taken: Iterable[int]) -> list[int]:
    """The slots that an ivshmem device can still take, best first."""
    taken = set(taken)
    return [slot for slot in SLOT_ORDER if slot not in taken]


def _ranges(numbers: Iterable[int]) -> str:
    """``3-5, 8`` for 8, 3, 4, 5."""
    result: list[list[int]] = []
    for number in sorted(numbers):
        if result and result[-1][-1] == number - 1:
            result[-1].append(number)
        else:
            result.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in result)


def place(
    devices: Sequence[Device],
    taken: Mapping[int, str],
    present: Mapping[str, int],
    where: str = "script",
) -> tuple[Device, ...]:
    """Give every device a slot.

    A slot that is asked for decides. Otherwise the slot in ``present`` (prefixed name -> slot) is kept while it is
    usable, else the first free one of SLOT_ORDER is taken. ``taken`` tells what is at the slots of other devices.
    Raises one IvshmemError with every slot that cannot be had, who holds it, and the free ones.
    """
    problems = []
    chosen: dict[int, str] = {}
    result: dict[str, Device] = {}
    wanted = {device.slot for device in devices if device.slot is not None}
    for device in devices:
        slot = device.slot
        if slot is None:
            continue
        held = None
        if slot in RESERVED_SLOTS:
            held = f"is reserved for {RESERVED_SLOTS[slot]}"
        elif slot in taken:
            held = f"is taken by {taken[slot]}"
        elif slot in chosen:
            held = f"is also asked for by region '{chosen[slot]}'"
        if held:
            free = _ranges(free_slots({*taken, *wanted})) or "(none is left)"
            problems.append(
                f"{where}: region '{device.prefixed}': slot {slot} (00:{slot:02x}.0) {held}; "
                f"give it one of the free slots {free} (slot in decimal, or vbdf in hexadecimal)"
            )
        chosen[slot] = device.prefixed
        result[device.prefixed] = device
    if problems:
        raise IvshmemError("\n".join(problems))
    for device in devices:
        slot = present.get(device.prefixed, 0)
        if device.slot is None and slot in SLOT_ORDER and slot not in taken and slot not in chosen:
            chosen[slot] = device.prefixed
            result[device.prefixed] = replace(device, place=Bdf(0, slot, 0))
    for device in devices:
        if device.prefixed not in result:
            free_now = free_slots({*taken, *chosen})
            if not free_now:
                raise IvshmemError(
                    f"{where}: region '{device.prefixed}': no PCI slot from 3 to 30 is free; remove a device "
                    "from the VM"
                )
            chosen[free_now[0]] = device.prefixed
            result[device.prefixed] = replace(device, place=Bdf(0, free_now[0], 0))
    return tuple(result[device.prefixed] for device in devices)
