# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""acrn-dm's command line as acrn-dm itself reads it: its order, its words, its exit codes.

The rules were read in ACRN v2.2 to v3.3 (devicemodel/core/main.c main(), hw/pci/core.c pci_parse_slot() and
parse_bdf(), core/vmmapi.c vm_parse_memsize(), hw/pci/ivshmem.c pci_ivshmem_init()) and compared with the answers of an
acrn-dm built from v3.3. Left out: whether the files of -k, -r, -E and --ovmf exist, and what -B, --acpidev_pt and their
like mean.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable
from dataclasses import dataclass, field

EX_USAGE = 64
MAX_NAME = 15
MB = 1 << 20

# Device names of "-s" that every version has; the two sets below differ.
_DEVICE_NAMES = """
    ahci ahci-cd ahci-hd amd_hostbridge dummy hostbridge igd-lpc ivshmem lpc passthru uart virtio-audio virtio-blk
    virtio-console virtio-gpio virtio-heci virtio-hyper_dmabuf virtio-i2c virtio-input virtio-ipu virtio-net virtio-rnd
    virtio-rpmb wdt-i6300esb xhci
"""
_DEVICES = frozenset(_DEVICE_NAMES.split())
_DEVICES_V2 = frozenset(["npk", "pci-gvt", "virtio-coreu", "virtio-hdcp"])
_DEVICES_V3 = frozenset(["vhost-vsock", "virtio-gpu"])

_LONG_WITH_VALUE = """elf_file ioc_node lpc pci_slot memsize kernel ramdisk bootargs gvtargs mac_seed vsbl ovmf
    cpu_affinity part_info virtio_poll intr_monitor acpidev_pt mmiodev_pt vtpm2 logger_setting pm_notify_channel
    pm_by_vuart"""
_LONG_WITHOUT = "acpi mptgen version help enable_trusty debugexit lapic_pt rtvm windows"
_SHORT_OF = {
    "--acpi": "-A",
    "--mptgen": "-Y",
    "--version": "-v",
    "--help": "-h",
    "--lpc": "-l",
    "--pci_slot": "-s",
    "--memsize": "-m",
    "--kernel": "-k",
    "--ramdisk": "-r",
    "--bootargs": "-B",
    "--elf_file": "-E",
    "--ioc_node": "-i",
    "--gvtargs": "-G",
    "--uuid": "-U",
    "--virtio_msix": "-W",
}
_OBSOLETE_V3 = {
    "-i": "-i, --ioc_node",
    "-Y": "-Y, --mptgen",
    "-G": "-G, --gvtargs",
    "--vsbl": "--vsbl",
    "--part_info": "--part_info",
    "--pm_by_vuart": "--pm_by_vuart",
}

ERROR, WARNING, NOTICE, INFO = 1, 2, 3, 4
Log = Callable[[int, str], None]


class Refused(Exception):
    """acrn-dm ends with this exit code; the last words, if any, are for stderr (err(3)) and not for its log."""

    def __init__(self, code: int, words: str = "") -> None:
        super().__init__(words)
        self.code = code


@dataclass(frozen=True)
class Function:
    """One "-s": bus 0..255, slot 0..31, function 0..7 (decimal on the command line), and the device's own options."""

    bus: int
    slot: int
    func: int
    device: str
    options: str | None

    @property
    def bdf(self) -> str:
        """The address as the guest shows it (hexadecimal), without the PCI domain."""
        return f"{self.bus:02x}:{self.slot:02x}.{self.func:x}"


@dataclass
class Arguments:
    """What a command line asks for. Memory in bytes; functions in the order of the command line."""

    vm: str = ""
    memory: int = 256 * MB
    functions: list[Function] = field(default_factory=list)
    uuid: str | None = None
    log_level: int = 4
    others: list[tuple[str, str]] = field(default_factory=list)


def parse_version(text: str) -> tuple[int, int]:
    """(3, 3) for "3.3", "v3.3" or "3.3.1". ValueError for anything else."""
    match = re.fullmatch(r"v?(\d+)\.(\d+)(\.\d+)?", text)
    if not match:
        raise ValueError(f"{text!r} is no ACRN version")
    return int(match[1]), int(match[2])


def strtol(text: str) -> tuple[int, str] | None:
    """C's strtol() in base 10: the number and the text that follows it, or None if no number leads the text."""
    match = re.match(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", text)
    return (int(match[1]), text[match.end() :]) if match else None


def parse_memsize(text: str) -> int | None:
    """Bytes of "-m", or None for "invalid memsize": below 128 MB, or no unit (acrn-dm's own fault, kept here)."""
    match = re.match(r"[ \t\n\v\f\r]*\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)(.?)", text)
    shift = {"g": 30, "m": 20, "k": 10}.get(match[2].lower()) if match else None
    if match is None or shift is None:
        return None
    digits = match[1]
    size = (int(digits, 8) if digits[0] == "0" and digits[1:2] not in ("x", "X") else int(digits, 0)) << shift
    return size if size >= 128 * MB else None


def parse_bdf(text: str) -> tuple[int, int, int] | None:
    """(bus, slot, func) of "[bus:]slot[:func]", or None if a part has no number. ":", "/" and "." all separate."""
    parts = re.split("[:/.]", text)[:3]
    numbers = [strtol(part) for part in parts]
    if any(number is None for number in numbers):
        return None
    values = [number[0] for number in numbers if number is not None]
    if len(values) == 1:
        values.append(0)
    if len(values) == 2:
        values.insert(0, 0)
    return values[0], values[1], values[2]


def parse_slot(text: str, taken: list[Function], version: tuple[int, int], log: Log) -> Function:
    """One "-s" argument (hw/pci/core.c pci_parse_slot). Refused(1) after acrn-dm's words; `taken`: what came before."""
    where, comma, rest = text.partition(",")
    if not comma:
        log(ERROR, f'Invalid PCI slot info field "{text}"')
        raise Refused(1)
    device, comma, config = rest.partition(",")
    options = config if comma else None
    if options is not None and options.startswith("b,"):
        options = options[2:]
    if version >= (3, 0) and device in _DEVICES_V2:
        # The words say "ignored", but acrn-dm v3.x ends here.
        log(WARNING, f'The "{device}" parameter is obsolete and ignored')
        raise Refused(1)
    bdf = parse_bdf(where)
    if bdf is None or not (0 <= bdf[0] <= 255 and 0 <= bdf[1] <= 31 and 0 <= bdf[2] <= 7):
        log(ERROR, f'Invalid PCI slot info field "{text}"')
        raise Refused(1)
    bus, slot, func = bdf
    if any((other.bus, other.slot, other.func) == bdf for other in taken):
        log(ERROR, f"pci slot {slot}:{func} already occupied!")
        raise Refused(1)
    known = _DEVICES | (_DEVICES_V2 if version < (3, 0) else _DEVICES_V3)
    if device not in known:
        log(ERROR, f'pci slot {slot}:{func}: unknown device "{device}"')
        raise Refused(1)
    return Function(bus, slot, func, device, options)


@dataclass(frozen=True)
class Ivshmem:
    """The options of an ivshmem device. `name` without prefix; size in bytes; region_id 0 before v3.3."""

    hv_land: bool
    name: str
    size: int
    region_id: int


def parse_ivshmem(options: str | None, version: tuple[int, int], log: Log) -> Ivshmem | None:
    """Options of "-s N,ivshmem,..." (hw/pci/ivshmem.c pci_ivshmem_init), or None after acrn-dm's words.

    As acrn-dm: what follows the digits of the size is not looked at, and the product in bytes is cut to 32 bits.
    """
    fields = (options or "").split(",", 2)
    prefix, name = fields[0][:4], fields[0][4:]
    if prefix not in ("hv:/", "dm:/"):
        log(WARNING, "the ivshmem memory prefix name is incorrect")
        return None
    number = strtol(fields[1]) if len(fields) > 1 else None
    if number is None:
        log(WARNING, f"the shared memory size is incorrect, {fields[1] if len(fields) > 1 else '(null)'}")
        return None
    size = (number[0] * MB) & 0xFFFFFFFF
    if size < 2 * MB or size >= 1024 * MB or size & (size - 1):
        log(
            WARNING,
            f"Invalid shared memory size {size // MB}, the size range is [2MB,512MB], the unit is megabyte"
            " and the value must be a power of 2",
        )
        return None
    region_id = 0
    if len(fields) > 2 and version >= (3, 3):
        number = strtol(fields[2])
        if number is None:
            log(WARNING, f"shared memory region ID is incorrect, {fields[2]}, 0 will used.")
        else:
            region_id = number[0] & 0xFFFF
    return Ivshmem(prefix == "hv:/", name, size, region_id)


def _options_of(version: tuple[int, int]) -> tuple[str, list[str]]:
    """getopt's tables for a version."""
    short = "AhYvE:k:r:B:s:m:l:G:i:"
    long = [f"{name}=" for name in _LONG_WITH_VALUE.split()] + _LONG_WITHOUT.split()
    if version < (2, 7):
        short += "U:"
        long.append("uuid=")
    if version < (3, 0):
        short += "W"
        long += ["virtio_msix", "ssram", "psram"]
    else:
        long += ["iasl=", "cmd_monitor=", "ssram=", "virtio_msi"]
    return short, long


def parse_arguments(argv: list[str], version: tuple[int, int], log: Log) -> Arguments:
    """Read acrn-dm's arguments (without its own name). Raises Refused where acrn-dm ends."""
    short, long = _options_of(version)
    try:
        pairs, rest = getopt.gnu_getopt(argv, short, long)
        error = None
    except getopt.GetoptError as exc:
        # getopt(3) tells of a bad option only when it gets there: what stands before it is read first.
        pairs, rest, error = _until(argv, short, long), [], exc
    arguments = Arguments()
    for given, value in pairs:
        option = _SHORT_OF.get(given, given)
        if option == "-h":
            raise Refused(0, "usage")
        if option == "-v":
            raise Refused(0, "version")
        _take(arguments, option, value, version, log)
        arguments.others.append((option, value))
    if error is not None:
        raise Refused(1, error.msg)
    if len(rest) != 1:
        if version >= (2, 7):
            log(ERROR, "You must provide the name of the Virtual Machine (VM) you want to start. Exiting.")
        raise Refused(1, "usage")
    arguments.vm = rest[0]
    flags = {option for option, value in arguments.others}
    if version >= (3, 0) and "--lapic_pt" in flags and "--rtvm" not in flags:
        log(WARNING, "Only a Realtime VM can use local APIC pass through, '--lapic_pt' is invalid here.")
    if len(arguments.vm) > (MAX_NAME if version >= (2, 7) else 127):
        log(ERROR, f"The name of the VM exceeds the maximum length: {MAX_NAME}")
        raise Refused(1)
    return arguments


def _take(arguments: Arguments, option: str, value: str, version: tuple[int, int], log: Log) -> None:
    """Take one option in. Raises Refused."""
    if option == "-s":
        arguments.functions.append(parse_slot(value, arguments.functions, version, log))
    elif option == "-m":
        memory = parse_memsize(value)
        if memory is None:
            raise Refused(EX_USAGE, f"invalid memsize '{value}'")
        arguments.memory = memory
    elif option == "-U":
        arguments.uuid = value
    elif option == "-l" and value.split(",")[0].lower() not in ("com1", "com2", "com3", "com4", "com5"):
        raise Refused(EX_USAGE, f"invalid lpc device configuration '{value}'")
    elif option == "--virtio_poll":
        number = strtol(value)
        if number is None or not 1 <= number[0] <= 10000000:
            raise Refused(EX_USAGE, f"invalid virtio poll interval {value}")
    elif option == "--pm_notify_channel":
        if not re.fullmatch("ioc|power_button|uart(,allow_trigger_s5)?", value) and version >= (2, 3):
            raise Refused(EX_USAGE, f"invalid pm_notify_channel: {value}")
        if version >= (3, 0):
            log(WARNING, 'The "--pm_notify_channel" parameter is obsolete')
    elif option == "--logger_setting":
        arguments.log_level = _logger_setting(value, arguments.log_level)
    elif option in _OBSOLETE_V3 and version >= (3, 0):
        log(WARNING, f'The "{_OBSOLETE_V3[option]}" parameter is obsolete and ignored')


def _until(argv: list[str], short: str, long: list[str]) -> list[tuple[str, str]]:
    """The options that stand before the first bad one."""
    for end in range(len(argv) - 1, -1, -1):
        try:
            return getopt.gnu_getopt(argv[:end], short, long)[0]
        except getopt.GetoptError:
            continue
    return []


def _logger_setting(value: str, level: int) -> int:
    """The console's log level after a --logger_setting such as "console,level=4;kmsg,level=3"."""
    for part in value.split(";"):
        name, _comma, setting = part.partition(",")
        number = strtol(setting[6:]) if setting.startswith("level=") else None
        if number is None:
            raise Refused(EX_USAGE, f"invalid logger setting params {value}")
        if name == "console":
            level = number[0]
    return level
