# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ivshmem PCI functions of a Linux guest: finding, selecting, binding, and keeping that over a reboot.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone. ``observe`` reads, ``plan`` decides without touching
anything, ``apply`` writes. Everything the guest's kernel is asked goes through ``Kernel``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import mmap
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._process import run_quiet
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, IvshmemError

UIO = "uio_pci_generic"
# Emptied at every boot.
RUN = "/run/acrn-ivshmem"
PROOF = f"{RUN}/proof"
LOCKDOWN = "/sys/kernel/security/lockdown"
SYSTEM = "/etc/os-release"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
VFIO = "vfio-pci"
DRIVERS = (UIO, VFIO)
NEW_ID = "new_id"
DRIVER_OVERRIDE = "driver_override"

# hypervisor/dm/vpci/ivshmem.c, init_ivshmem_vdev; devicemodel/hw/pci/ivshmem.c, pci_ivshmem_init
VENDOR = 0x1AF4
DEVICE = 0x1110
# Subsystem vendor of ACRN v3.3 and later; only then the subsystem device is the region ID.
REGION_ID_VENDOR = 0x8086

MB = 1024 * 1024
SYSFS = "/sys/bus/pci"
RULES = "/etc/udev/rules.d/70-acrn-ivshmem.rules"
RUN_RULES = "/run/udev/rules.d/70-acrn-ivshmem.rules"
NOIOMMU_CONF = "/etc/modprobe.d/acrn-ivshmem.conf"
NOIOMMU_PARAMETER = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
FILES = (RULES, RUN_RULES, NOIOMMU_CONF)
FOLDERS = tuple(os.path.dirname(path) for path in FILES)
# What a guest's modules hold while they read, change and write its files or its memory.
LOCK = "ivshmem of this guest"
MARKER = "# Managed by the Ansible module acrn.ivshmem.guest_device: changes made by hand are lost."
ALL = "all"

# What users map: registers (doorbell), shared memory, and the shared memory as write-combining.
RESOURCES = ("resource0", "resource2", "resource2_wc")

# What a module takes of a device: parse_device reads it.
DEVICE_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "bdf": {"type": "str", "aliases": ["vbdf"]},
    "slot": {"type": "int"},
    "region_id": {"type": "int"},
    "size": {"type": "int"},
    "provided_by": {"type": "str", "choices": ["hypervisor", "device_model"]},
    "peers": {"type": "list", "elements": "int"},
}

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_BLOCK = re.compile(r"^# function (\S+) name (\S+) driver (\S+)$", re.MULTILINE)
# These go into a udev rule and into a shell command inside it.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_MODE = re.compile(r"0?[0-7]{3}")
_LITTER = re.compile(r"\.acrn-ivshmem-.*\.new|\.acrn-ivshmem-[A-Za-z0-9]{6}")


class Kernel:
    """The guest's files and programs. ``root`` is another directory in tests only."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        # Open files of locks that are held, for a process that is left behind to let go of them.
        self.locks: tuple[int, ...] = ()

    def path(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def data(self, path: str, size: int = -1) -> bytes | None:
        """A file, or its first ``size`` bytes; None where it cannot be read. For what nobody writes back."""
        try:
            with open(self.path(path), "rb") as handle:
                return handle.read(size)
        except OSError:
            return None

    def text(self, path: str) -> str | None:
        data = self.data(path)
        return None if data is None else data.decode("utf-8", "replace")

    def content(self, path: str) -> str | None:
        """The whole of a file that is read to be written back; None only where there is none. Raises OSError.

        Bytes that are no UTF-8 come back as they were by ``replace``.
        """
        try:
            with open(self.path(path), "rb") as handle:
                return handle.read().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def link(self, path: str) -> str | None:
        """The last part of what a symbolic link points to."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError:
            return None

    def write(self, path: str, text: str) -> None:
        """Write to a sysfs attribute in one system call, so that the kernel's answer is the error of this call."""
        handle = os.open(self.path(path), os.O_WRONLY)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)

    def replace(self, path: str, text: str, mode: int = 0o644) -> None:
        """Give a file new content in one step. The caller holds the guest's lock, so one new name is enough."""
        real = self.path(path)
        folder, name = os.path.split(real)
        os.makedirs(folder, exist_ok=True)
        self.sweep(os.path.dirname(path))
        # udev and modprobe read only *.rules and *.conf, so that a left-over of a killed run does nothing.
        fresh = os.path.join(folder, f".acrn-ivshmem-{name}.new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(text.encode("utf-8", "surrogateescape"))
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(fresh, real)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise

    def sweep(self, folder: str) -> None:
        """Remove what runs that were killed have left of a file that they were about to replace."""
        for name in self.names(folder):
            if _LITTER.fullmatch(name):
                self.remove(f"{folder}/{name}")

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(path))

    def access(self, path: str) -> tuple[int, int] | None:
        """Group ID and permission bits, or None where there is no such file."""
        try:
            found = os.stat(self.path(path))
        except OSError:
            return None
        return found.st_gid, stat.S_IMODE(found.st_mode)

    def give(self, path: str, gid: int, mode: int) -> None:
        os.chown(self.path(path), -1, gid)
        os.chmod(self.path(path), mode)

    def run(self, *command: str) -> tuple[int, str]:
        """Exit status and output of a program; 127 where it is missing."""
        environment = dict(os.environ, LC_ALL="C")
        environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
        code, text = run_quiet(command, environment)
        return code, text.strip()

    def release(self) -> str:
        return os.uname().release

    def group_id(self, name: str) -> int | None:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def register(self, address: str, offset: int) -> int | None:
        """A 32-bit register of BAR0, or None where it cannot be mapped."""
        try:
            handle = os.open(self.path(f"{SYSFS}/devices/{address}/resource0"), os.O_RDWR | os.O_SYNC)
        except OSError:
            return None
        try:
            size = os.fstat(handle).st_size
            with mmap.mmap(handle, size) as memory:
                # One aligned 32-bit load: the device ignores any other width.
                word = ctypes.c_uint32.from_buffer(memory, offset)
                value = int(word.value)
                del word
                return value
        except (OSError, ValueError):
            return None
        finally:
            os.close(handle)


@dataclass(frozen=True)
class Bar:
    """A memory BAR: guest physical address and size, both in bytes."""

    address: int
    size: int


@dataclass(frozen=True)
class Function:
    """An ivshmem PCI function as sysfs shows it. ``vectors`` is 0 without MSI-X, None where it cannot be read."""

    address: str
    driver: str | None = None
    override: str | None = None
    subsystem_vendor: int = 0
    subsystem_device: int = 0
    bars: tuple[Bar | None, ...] = (None, None, None)
    vectors: int | None = None
    uio: str | None = None
    iommu_group: str | None = None
    enabled: bool = False

    @property
    def bdf(self) -> str:
        """The address as lspci prints it."""
        return short(self.address)

    @property
    def sysfs(self) -> str:
        return f"{SYSFS}/devices/{self.address}"

    @property
    def size(self) -> int:
        """Bytes of shared memory (BAR2)."""
        memory = self.bars[2]
        return 0 if memory is None else memory.size

    @property
    def region_id(self) -> int | None:
        """The region ID of ACRN v3.3 and later; None on older ones, which do not write it."""
        if self.subsystem_vendor != REGION_ID_VENDOR or self.subsystem_device == 0:
            return None
        return self.subsystem_device

    def describe(self) -> str:
        parts = [self.bdf, megabytes(self.size)]
        if self.region_id is not None:
            parts.append(f"region ID {self.region_id}")
        return f"{parts[0]} ({', '.join(parts[1:])})"


@dataclass(frozen=True)
class Device:
    """What the user says of one function. ``size`` is in MB; every value that is there must fit."""

    name: str | None = None
    address: str | None = None
    region_id: int | None = None
    size: int | None = None

    def describe(self) -> str:
        parts = []
        if self.address:
            parts.append(f"bdf {short(self.address)}")
        if self.region_id:
            parts.append(f"region ID {self.region_id}")
        if self.size:
            parts.append(f"size {self.size} MB")
        return (f"'{self.name}' " if self.name else "") + f"({', '.join(parts) or 'nothing to tell it by'})"


def short(address: str) -> str:
    return address[5:] if address.startswith("0000:") else address


def megabytes(size: int) -> str:
    return f"{size // MB} MB" if size and size % MB == 0 else f"{size} bytes"


def full_address(text: str) -> str:
    """``00:06.0`` or ``0000:00:06.0`` in sysfs form. Raises IvshmemError for anything else."""
    lower = text.strip().lower()
    if _ADDRESS.fullmatch(lower):
        return lower
    return f"0000:{Bdf.parse(text)}"


def parse_device(value: Mapping[str, Any]) -> Device:
    """One entry of the modules' ``devices``, as Ansible hands it over (absent options are None)."""
    name = value.get("name")
    if name is not None and not _NAME.fullmatch(name):
        raise IvshmemError(
            f"device name '{name}': it becomes a file name in /dev/ivshmem, so use letters, digits, '_', '-' and '.'"
        )
    address = full_address(value["bdf"]) if value.get("bdf") else None
    slot = value.get("slot")
    if slot is not None:
        if not 0 <= slot <= 31:
            raise IvshmemError(f"device '{name}': slot {slot} is not a PCI slot, which is 0 to 31 (decimal)")
        by_slot = f"0000:00:{slot:02x}.0"
        if address is None:
            address = by_slot
        elif address[5:10] != by_slot[5:10]:
            raise IvshmemError(
                f"device '{name}': slot {slot} (decimal) is {short(by_slot)}, but bdf says {short(address)}; give one"
            )
    # 0 is the default of ACRN's schema and means that no ID was given.
    device = Device(name, address, value.get("region_id") or None, value.get("size"))
    if device.address is None and device.region_id is None and device.size is None:
        raise IvshmemError(f"device '{name}': give bdf (or slot), region_id or size, so that its function can be told")
    return device


def parse_devices(values: Iterable[Mapping[str, Any]]) -> tuple[Device, ...]:
    devices = tuple(parse_device(value) for value in values)
    names = [device.name for device in devices if device.name]
    for name in names:
        if names.count(name) > 1:
            raise IvshmemError(f"two devices are named '{name}', but /dev/ivshmem/{name} can be one only: rename one")
    return devices


def _number(kernel: Kernel, path: str) -> int:
    text = kernel.text(path)
    try:
        return int((text or "0").strip(), 16)
    except ValueError:
        return 0


def _bars(text: str) -> tuple[Bar | None, ...]:
    bars: list[Bar | None] = []
    for line in text.splitlines()[:3]:
        try:
            start, end, flags = (int(part, 16) for part in line.split())
        except ValueError:
            # A BAR that cannot be read is none, so that the function has no size and fits no declaration.
            start, end, flags = 0, 0, 0
        bars.append(Bar(start, end - start + 1) if flags and 0 <= start <= end < 1 << 64 else None)
    return tuple([*bars, None, None, None][:3])


def msix_vectors(config: bytes | None) -> int | None:
    """Length of the MSI-X table by the capability list of a configuration space; None without the whole of it.

    An unprivileged reader gets 64 bytes, which hold no capability.
    """
    if config is None or len(config) < 256:
        return None
    if not config[0x06] & 0x10:
        return 0
    where, seen = config[0x34] & 0xFC, 0
    while where >= 0x40 and seen < 48:
        if config[where] == 0x11:
            return ((config[where + 2] | config[where + 3] << 8) & 0x7FF) + 1
        where, seen = config[where + 1] & 0xFC, seen + 1
    return 0


def read_function(kernel: Kernel, address: str) -> Function:
    base = f"{SYSFS}/devices/{address}"
    override = (kernel.text(f"{base}/driver_override") or "").strip()
    uio = kernel.names(f"{base}/uio")
    config = kernel.data(f"{base}/config", 256)
    return Function(
        address=address,
        driver=kernel.link(f"{base}/driver"),
        override=None if override in ("", "(null)") else override,
        subsystem_vendor=_number(kernel, f"{base}/subsystem_vendor"),
        subsystem_device=_number(kernel, f"{base}/subsystem_device"),
        bars=_bars(kernel.text(f"{base}/resource") or ""),
        vectors=msix_vectors(config),
        uio=uio[0] if uio else None,
        iommu_group=kernel.link(f"{base}/iommu_group"),
        # Bit 1 of the command register: the function answers to memory accesses.
        enabled=bool(config and len(config) > 4 and config[4] & 0x02),
    )


def scan(kernel: Kernel) -> tuple[Function, ...]:
    """Every ivshmem function of the guest, by address."""
    found = []
    for address in kernel.names(f"{SYSFS}/devices"):
        base = f"{SYSFS}/devices/{address}"
        if _number(kernel, f"{base}/vendor") == VENDOR and _number(kernel, f"{base}/device") == DEVICE:
            found.append(read_function(kernel, address))
    return tuple(found)


def listing(functions: Sequence[Function]) -> str:
    return ", ".join(function.describe() for function in functions) or "none"


def differences(device: Device, function: Function) -> list[tuple[str, str, str]]:
    """What of a device's size and region ID is not as said: (what, expected, found).

    The region ID is compared only where the hypervisor writes one (v3.3 and later).
    """
    result = []
    if device.size and function.size != device.size * MB:
        result.append(("size", f"{device.size} MB", megabytes(function.size)))
    visible = function.subsystem_vendor == REGION_ID_VENDOR
    if device.region_id and visible and function.region_id != device.region_id:
        result.append(("region ID", str(device.region_id), str(function.region_id or 0)))
    return result


def select(functions: Sequence[Function], devices: Sequence[Device]) -> dict[Device, Function | None]:
    """The one function of each device, or None where the guest has none.

    Raises IvshmemError where a device fits several functions, where two devices fit the same one, and where the
    function at a given BDF is of another size or region ID: a guess would bind somebody else's memory.
    """
    chosen: dict[Device, Function | None] = {}
    taken: dict[str, Device] = {}
    # The surest first, so that a size alone is left with what nobody else names.
    for device in sorted(devices, key=lambda item: (item.address is None, item.region_id is None)):
        if device.address:
            fits = [function for function in functions if function.address == device.address]
        else:
            fits = [function for function in functions if not differences(device, function)]
            with_id = [function for function in fits if device.region_id and function.region_id == device.region_id]
            if device.region_id and device.size is None:
                fits = with_id
            fits = with_id or fits
            fits = [function for function in fits if function.address not in taken]
        if len(fits) > 1:
            raise IvshmemError(
                f"device {device.describe()} fits {len(fits)} functions: {listing(fits)}; add its bdf or region_id, "
                "or give the regions different sizes"
            )
        chosen[device] = fits[0] if fits else None
        if not fits:
            continue
        other = taken.setdefault(fits[0].address, device)
        if other is not device:
            raise IvshmemError(f"devices {other.describe()} and {device.describe()} are one function: {fits[0].bdf}")
        for what, expected, found in differences(device, fits[0]):
            raise IvshmemError(
                f"device {device.describe()}: {what} should be {expected}, but function {fits[0].bdf} has {found}; "
                "correct the declaration, or the launch script or scenario that made the function"
            )
    return {device: chosen[device] for device in devices}


@dataclass(frozen=True)
class Wish:
    """What guest_device is asked for. ``devices`` None means every ivshmem function, an empty tuple none."""

    devices: tuple[Device, ...] | None = None
    driver: str = UIO
    method: str = NEW_ID
    present: bool = True
    force: bool = False
    persist: bool = True
    exclusive: bool = False
    group: str | None = None
    mode: int | None = None
    unsafe_noiommu: bool = False


@dataclass(frozen=True)
class State:
    """What there is before anything is done."""

    functions: tuple[Function, ...] = ()
    files: Mapping[str, str | None] = field(default_factory=dict)
    release: str = ""
    lockdown: str = "none"
    distribution: str = ""
    loaded: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    noiommu: bool = False
    udev: bool = True
    gid: int | None = None
    access: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """One change. ``kind`` names a branch of ``apply``."""

    kind: str
    target: str = ""
    value: str = ""

    def describe(self) -> str:
        """One line for the user; the content of a file is in the diff."""
        value = "" if self.kind == "replace" else self.value
        return " ".join(part for part in (self.kind, self.target, value) if part)


@dataclass(frozen=True)
class Plan:
    """The changes in their order, and what they are about. ``after`` maps an address to its driver afterwards."""

    actions: tuple[Action, ...]
    selected: tuple[tuple[Device | None, Function], ...]
    before: Mapping[str, str]
    after: Mapping[str, str]
    files: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.actions)


def mode_bits(text: str | None) -> int | None:
    if text is None:
        return None
    if not _MODE.fullmatch(text):
        raise IvshmemError(f"mode '{text}': write it as octal digits in quotes, such as '0660'")
    return int(text, 8)


def _group_name(text: str) -> str:
    if not _GROUP.fullmatch(text):
        raise IvshmemError(f"group '{text}' is not the name of a group")
    return text


def module_missing(kernel: Kernel, driver: str) -> bool:
    """True where the running kernel's module list is there and does not know the driver."""
    base = f"/lib/modules/{kernel.release()}"
    lists = [kernel.data(f"{base}/{name}", 1 << 24) for name in ("modules.dep", "modules.builtin")]
    if lists[0] is None:
        return False
    names = {driver.replace("-", "_").encode(), driver.replace("_", "-").encode()}
    return not any(b"/" + name + b".ko" in (data or b"") for name in names for data in lists)


def _own_file(kernel: Kernel, path: str) -> str | None:
    try:
        return kernel.content(path)
    except OSError as exc:
        # What cannot be read must not pass for a file that is not there, and be written anew.
        raise told(exc, path) from exc


def observe(kernel: Kernel, wish: Wish) -> State:
    functions = scan(kernel)
    lockdown = re.search(r"\[(\w+)\]", kernel.text(LOCKDOWN) or "")
    system = re.search(r'^ID="?([\w.-]+)', kernel.text(SYSTEM) or "", re.MULTILINE)
    access = {}
    for function in functions:
        paths = [f"{function.sysfs}/{name}" for name in RESOURCES]
        if function.uio:
            paths.append(f"/dev/{function.uio}")
        for path in paths:
            found = kernel.access(path)
            if found is not None:
                access[path] = found
    links = {name: kernel.link(f"/dev/ivshmem/{name}") or "" for name in kernel.names("/dev/ivshmem")}
    return State(
        functions=functions,
        files={path: _own_file(kernel, path) for path in FILES},
        release=kernel.release(),
        lockdown=lockdown.group(1) if lockdown else "none",
        distribution=system.group(1) if system else "",
        loaded=frozenset(driver for driver in DRIVERS if kernel.exists(f"{SYSFS}/drivers/{driver}")),
        missing=frozenset(driver for driver in (wish.driver,) if module_missing(kernel, driver)),
        noiommu=(kernel.text(NOIOMMU_PARAMETER) or "N").strip() in ("Y", "1"),
        udev=kernel.exists("/run/udev/control"),
        gid=kernel.group_id(wish.group) if wish.group else None,
        access=access,
        links=links,
    )


def rule_block(
    key: str, name: str | None, driver: str | None, group: str | None, mode: int | None, bound: str | None = None
) -> str:
    """The udev rules of one function (``key`` is its address) or of all of them (``ALL``).

    ``driver`` None leaves the binding out. By ``driver_override`` the rule binds this function and no other, also
    when the module was loaded earlier (then by drivers_probe) or the function appears later. ``bound`` is the driver
    that this collection has given the function without such a rule: what gives it back knows by that.
    """
    match = f'KERNEL=="{key}", ' if key != ALL else ""
    pci = f'ACTION=="add", SUBSYSTEM=="pci", {match}ATTR{{vendor}}=="0x1af4", ATTR{{device}}=="0x1110"'
    lines = [f"# function {key} name {name or '-'} driver {driver or bound or '-'}"]
    if driver:
        lines.append(
            f'{pci}, ATTR{{driver_override}}="{driver}", RUN{{builtin}}+="kmod load {driver}", '
            'ATTR{[subsystem/pci]drivers_probe}="$kernel"'
        )
    if driver == VFIO:
        return "\n".join(lines) + "\n"
    node = 'SUBSYSTEM=="uio", ' + (f'KERNELS=="{key}", ' if key != ALL else "")
    node += 'ATTRS{vendor}=="0x1af4", ATTRS{device}=="0x1110"'
    settings = []
    if name:
        settings.append(f'SYMLINK+="ivshmem/{name}"')
    if group:
        settings.append(f'GROUP="{group}"')
    if mode is not None:
        settings.append(f'MODE="{mode:04o}"')
        # $$ is udev's way to write a $ for the shell.
        change = f"chgrp {group} $$f && chmod {mode:04o} $$f" if group else f"chmod {mode:04o} $$f"
        lines.append(
            f"{pci}, RUN+=\"/bin/sh -c 'cd /sys$devpath && for f in {' '.join(RESOURCES)}; "
            f"do [ ! -e $$f ] || {{ {change}; }}; done'\""
        )
    if settings:
        lines.append(f"{node}, {', '.join(settings)}")
    return "\n".join(lines) + "\n"


def parse_rules(text: str | None, path: str) -> dict[str, tuple[str, str, str]]:
    """The blocks of a rules file: key -> (block, name, driver). Raises IvshmemError for a file of somebody else."""
    if not text:
        return {}
    if not text.startswith(MARKER):
        raise IvshmemError(f"{path} was not written by acrn.ivshmem.guest_device: move it away, nothing was changed")
    starts = list(_BLOCK.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return {
        match.group(1): (text[match.start() : end].rstrip("\n") + "\n", match.group(2), match.group(3))
        for match, end in zip(starts, ends)
    }


def render_rules(blocks: Mapping[str, str]) -> str | None:
    """The file for these blocks, or None where no file is wanted."""
    if not blocks:
        return None
    # What is said of one function comes after what is said of all: the last assignment counts for udev.
    return "\n".join([MARKER + "\n", *(blocks[key] for key in sorted(blocks, key=lambda key: (key != ALL, key)))])


def id_text(function: Function | None = None) -> str:
    """What new_id and remove_id take, in hexadecimal: every ivshmem function, or those of one region ID."""
    text = f"{VENDOR:04x} {DEVICE:04x}"
    if function is None:
        return text
    return f"{text} {function.subsystem_vendor:04x} {function.subsystem_device:04x}"


def _narrow(function: Function, others: Sequence[Function]) -> str | None:
    """The narrowest id that fits this function and none of the others, or None where no id can tell them apart."""
    if not others:
        return id_text()
    same = (function.subsystem_vendor, function.subsystem_device)
    if all((other.subsystem_vendor, other.subsystem_device) != same for other in others):
        return id_text(function)
    return None


def module_mend(driver: str, state: State) -> str:
    option = "CONFIG_UIO_PCI_GENERIC" if driver == UIO else "CONFIG_VFIO_PCI"
    if state.distribution == "ubuntu":
        return f"install linux-modules-extra-{state.release}"
    if state.distribution == "debian":
        return "install linux-image-amd64 (the cloud kernel leaves some out) and reboot, or another kernel"
    return f"install the extra modules of that kernel, or one built with {option}"


def _version(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else (99, 0)


def _refuse(state: State, wish: Wish, selected: Sequence[tuple[Device | None, Function]]) -> None:
    """Raise IvshmemError for what would fail or do harm, before anything is touched."""
    # A driver that this module itself gave it, by its own rules file, is no stranger: to change over needs no force.
    ours: dict[str, str] = {}
    for path in (RUN_RULES, RULES):
        ours.update({key: block[2] for key, block in parse_rules(state.files.get(path), path).items()})
    held = [
        function
        for _device, function in selected
        if function.driver not in (None, wish.driver, ours.get(function.address), ours.get(ALL)) and not wish.force
    ]
    if held:
        raise IvshmemError(
            "\n".join(
                f"function {function.bdf} is held by driver '{function.driver}', wanted is '{wish.driver}': "
                "stop what uses it and set force, or leave it out of devices"
                for function in held
            )
        )
    unbound = [function for _device, function in selected if function.driver != wish.driver]
    # Where nothing is bound there is nothing that could not work, and all can be given back.
    if selected and wish.driver == UIO and state.lockdown != "none":
        raise IvshmemError(
            f"the kernel is locked down ({state.lockdown}, as with Secure Boot), so that no program may map the shared "
            f"memory (resource2): boot the guest without lockdown, or use driver {VFIO} with an IOMMU"
        )
    if unbound and wish.driver not in state.loaded and wish.driver in state.missing:
        raise IvshmemError(f"kernel {state.release} has no module {wish.driver}: {module_mend(wish.driver, state)}")
    if unbound and wish.driver == UIO and _version(state.release) < (4, 13):
        raise IvshmemError(
            f"kernel {state.release}: before Linux 4.13 {UIO} refuses a function without an interrupt line, which "
            f"every ivshmem function of ACRN is ('No IRQ assigned to device'): use a newer kernel or driver {VFIO}"
        )
    if wish.driver == VFIO:
        bare = [function.bdf for function in unbound if function.iommu_group is None]
        if bare and not state.noiommu and not wish.unsafe_noiommu:
            raise IvshmemError(
                f"{VFIO} needs an IOMMU, and {', '.join(bare)} is in no IOMMU group: give the guest one (and "
                "intel_iommu=on), or set unsafe_noiommu on a kernel with CONFIG_VFIO_NOIOMMU, which taints it"
            )
    if selected and wish.persist and not state.udev:
        raise IvshmemError("this guest runs no udev, which binds after a reboot: set persist to false")
    for path, text in state.files.items():
        if text and not text.startswith(MARKER):
            raise IvshmemError(f"{path} was not written by acrn.ivshmem.guest_device: move it away")


def _choose(state: State, wish: Wish) -> list[tuple[Device | None, Function]]:
    if wish.devices is None:
        if wish.present and not state.functions:
            raise IvshmemError(
                "this guest has no ivshmem function (1af4:1110): start its VM with the device (acrn-dm -s "
                "SLOT,ivshmem,NAME,SIZE; for pre-launched and Service VM by the scenario)"
            )
        return [(None, function) for function in state.functions]
    chosen = select(state.functions, wish.devices)
    absent = [device for device, function in chosen.items() if function is None]
    if wish.present and absent:
        raise IvshmemError(
            "\n".join(f"device {device.describe()}: the guest has no such ivshmem function" for device in absent)
            + f"\nivshmem functions of this guest: {listing(state.functions)}"
        )
    return [(device, function) for device, function in chosen.items() if function is not None]


def refuse_beside_all(blocks: Mapping[str, object]) -> None:
    """Raise IvshmemError where the rules name every function: one of them alone cannot be told from the rest then."""
    if ALL in blocks:
        raise IvshmemError(
            "an earlier call without devices made every ivshmem function of this guest persistent: first name "
            "those that shall stay (state present, exclusive), or release all (state absent without devices)"
        )


class _Planner:
    """Collects actions and the picture before and after them."""

    def __init__(self, state: State, wish: Wish, selected: list[tuple[Device | None, Function]]) -> None:
        self.state = state
        self.wish = wish
        self.selected = selected
        self.actions: list[Action] = []
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.files: dict[str, tuple[str, str]] = {}
        self.warnings: list[str] = []
        # For the default of 0600 of a group's files that nobody asked for: a group without access is no use.
        self.mode = 0o660 if wish.group and wish.mode is None else wish.mode

    def show(self, function: Function, driver: str | None) -> None:
        self.before[function.bdf] = f"driver: {function.driver or 'none'}"
        self.after[function.bdf] = f"driver: {driver or 'none'}"

    def note(self, function: Function, before: str, after: str) -> None:
        self.before[function.bdf] += f"\n{before}"
        self.after[function.bdf] += f"\n{after}"

    def file(self, path: str, text: str | None) -> bool:
        old = self.state.files.get(path)
        if (old or "") == (text or "") and (old is None) == (text is None):
            return False
        self.files[path] = (old or "", text or "")
        self.actions.append(Action("remove", path) if text is None else Action("replace", path, text))
        return True

    def rules(self, persistent: Mapping[str, str], passing: Mapping[str, str]) -> None:
        if any([self.file(RULES, render_rules(persistent)), self.file(RUN_RULES, render_rules(passing))]):
            self.actions.append(Action("reload"))

    def present(self) -> None:
        wish, state = self.wish, self.state
        old = parse_rules(state.files.get(RULES), RULES)
        passing = parse_rules(state.files.get(RUN_RULES), RUN_RULES)
        keys = [ALL] if wish.devices is None else [function.address for _device, function in self.selected]
        names = {function.address: device.name for device, function in self.selected if device}
        earlier = {**passing, **old}
        if wish.devices is not None and not wish.exclusive:
            refuse_beside_all(earlier)
        kept = {} if wish.exclusive or wish.devices is None else earlier
        if wish.exclusive:
            self.release_stale([key for key in earlier if key not in keys], earlier)
        access_group = _group_name(wish.group) if wish.group else None
        bound = {} if wish.persist else self.bound_by_us(earlier)
        blocks = {
            key: rule_block(
                key, names.get(key), wish.driver if wish.persist else None, access_group, self.mode, bound.get(key)
            )
            for key in keys
        }
        # Where the rule is one for all of them, it still is each of them that was bound or was not.
        blocks.update({key: rule_block(key, None, None, None, None, bound[key]) for key in bound if key not in keys})
        rest = {key: block for key, (block, _name, _driver) in kept.items() if key not in keys}
        lasting = {key: block for key, block in rest.items() if key in old}
        fleeting = {key: block for key, block in rest.items() if key not in old}
        # A rule without binding, name or access would be a comment alone, which says something of what was bound only.
        useful = {key: block for key, block in blocks.items() if block.count("\n") > 1 or key in bound}
        (lasting if wish.persist else fleeting).update(useful)
        if not state.udev and fleeting:
            self.warnings.append("this guest runs no udev: names in /dev/ivshmem are not made")
            # For the next run, which reads it as well.
            heads = {key: block.partition("\n")[0] for key, block in fleeting.items()}
            fleeting = {key: f"{head}\n" for key, head in heads.items() if not head.endswith(" -")}
        if wish.unsafe_noiommu and wish.driver == VFIO:
            text = f"{MARKER}\noptions vfio enable_unsafe_noiommu_mode=1\n"
            self.file(NOIOMMU_CONF, text if wish.persist else state.files.get(NOIOMMU_CONF))
        elif wish.exclusive:
            self.file(NOIOMMU_CONF, None)
        self.rules(lasting, fleeting)
        if wish.driver == VFIO and (wish.group or wish.mode is not None):
            self.warnings.append(f"group and mode are for {UIO} only: {VFIO} nodes are numbered by the kernel")
        self.bind_all()
        for device, function in self.selected:
            self.open_up(device, function)

    def bound_by_us(self, earlier: Mapping[str, tuple[str, str, str]]) -> dict[str, str]:
        """The functions that this run binds, or an earlier one has by its rule: nobody else has bound those by hand."""
        driver = self.wish.driver
        found = {}
        for _device, function in self.selected:
            rules = [earlier[key] for key in (function.address, ALL) if key in earlier]
            if function.driver != driver or any(rule[2] == driver for rule in rules):
                found[function.address] = driver
        return found

    def bind_all(self) -> None:
        wish, state = self.wish, self.state
        pending = [function for _device, function in self.selected if function.driver != wish.driver]
        for _device, function in self.selected:
            self.show(function, wish.driver)
        if not pending:
            return
        if wish.unsafe_noiommu and wish.driver == VFIO and not state.noiommu:
            self.actions.append(Action("noiommu"))
        if wish.driver not in state.loaded:
            self.actions.append(Action("modprobe", wish.driver))
        for function in pending:
            if function.driver:
                self.actions.append(Action("unbind", function.address, function.driver))
        self.take_back()
        chosen = {function.address for _device, function in self.selected}
        # new_id takes every unbound function that it fits: those that were not selected must not be among them.
        freed = {action.target for action in self.actions if action.kind == "unbind"}
        others = [
            function
            for function in state.functions
            if function.address not in chosen and (function.driver is None or function.address in freed)
        ]
        ids: dict[str, None] = {}
        for function in pending:
            text = _narrow(function, others) if wish.method == NEW_ID else None
            if text is None:
                if function.override != wish.driver:
                    self.actions.append(Action("override", function.address, wish.driver))
                continue
            if function.override not in (None, wish.driver):
                self.actions.append(Action("override", function.address, ""))
            ids[text] = None
        self.actions.extend(Action("new_id", wish.driver, text) for text in ids)
        self.actions.extend(Action("bind", function.address, wish.driver) for function in pending)

    def open_up(self, device: Device | None, function: Function) -> None:
        wish, state = self.wish, self.state
        if wish.driver == VFIO:
            return
        paths = [f"{function.sysfs}/{name}" for name in RESOURCES]
        paths = [path for path in paths if path in state.access]
        paths.append(f"/dev/{function.uio}" if function.uio else "")
        for path in paths:
            gid, mode = state.access.get(path, (0, 0o600))
            wanted = (gid if state.gid is None else state.gid, mode if self.mode is None else self.mode)
            if (self.mode is not None or wish.group) and (wanted != (gid, mode) or (wish.group and state.gid is None)):
                self.actions.append(Action("access", path or function.address, f"{wish.group or ''} {wanted[1]:o}"))
                label = os.path.basename(path) or "uio node"
                self.note(function, f"{label}: {gid} {mode:04o}", f"{label}: {wish.group or gid} {wanted[1]:04o}")
        name = device.name if device else None
        if name and state.udev and (function.uio is None or state.links.get(name) != function.uio):
            self.actions.append(Action("link", function.address, name))
            link = f"/dev/ivshmem/{name}"
            before = state.links.get(name) or "none"
            self.note(function, f"{link}: {before}", f"{link}: {function.uio or 'the uio node'}")

    def release(self, function: Function, drivers: Sequence[str], ours: bool) -> None:
        """Give a function back: these drivers let go of it, resource files as the kernel makes them."""
        self.show(function, None if function.driver in drivers else function.driver)
        if function.driver in drivers:
            self.actions.append(Action("unbind", function.address, str(function.driver)))
        if function.override in drivers:
            self.actions.append(Action("override", function.address, ""))
            self.note(function, f"driver_override: {function.override}", "driver_override: none")
        if not ours:
            return
        for name in RESOURCES:
            path = f"{function.sysfs}/{name}"
            found = self.state.access.get(path)
            if found is not None and found != (0, 0o600):
                self.actions.append(Action("access", path, "root 600"))
                self.note(function, f"{name}: {found[0]} {found[1]:04o}", f"{name}: 0 0600")

    def release_stale(self, stale: Iterable[str], blocks: Mapping[str, tuple[str, str, str]]) -> None:
        chosen = {function.address for _device, function in self.selected}
        by_address = {function.address: function for function in self.state.functions}
        for key in sorted(stale):
            targets = list(by_address.values()) if key == ALL else [by_address[key]] if key in by_address else []
            driver = blocks[key][2]
            for function in targets:
                if function.address in chosen or (key == ALL and function.address in blocks):
                    continue
                self.release(function, (driver,) if driver in DRIVERS else (), ours=True)
                if driver not in DRIVERS and function.driver in DRIVERS:
                    self.warnings.append(
                        f"function {function.bdf} had its driver {function.driver} before this collection came, and "
                        "keeps it: state absent takes it away"
                    )
        self.take_back()

    def take_back(self) -> None:
        """Take the id out of each driver that gives a function back. What else it has bound stays bound.

        Before the function: after a kill in between, a function that is bound still tells the next run of the id.
        """
        freed = {action.value: None for action in self.actions if action.kind == "unbind" and action.value in DRIVERS}
        for driver in freed:
            action = Action("remove_id", driver, id_text())
            if action not in self.actions:
                first = next(at for at, one in enumerate(self.actions) if (one.kind, one.value) == ("unbind", driver))
                self.actions.insert(first, action)

    def absent(self) -> None:
        wish, state = self.wish, self.state
        old = parse_rules(state.files.get(RULES), RULES)
        passing = parse_rules(state.files.get(RUN_RULES), RUN_RULES)
        if wish.devices is None:
            gone = set(old) | set(passing)
        else:
            addresses = {function.address for _device, function in self.selected}
            addresses |= {device.address for device in wish.devices if device.address}
            names = {device.name for device in wish.devices if device.name}
            refuse_beside_all({**passing, **old})
            gone = {key for key, (_b, name, _d) in {**passing, **old}.items() if key in addresses or name in names}
        ours = {key: block for key, block in {**passing, **old}.items() if key in gone}
        for _device, function in self.selected:
            # What an earlier call bound to another driver is given back just so: its rule goes, too.
            rules = [ours[key] for key in (function.address, ALL) if key in ours]
            taken = [driver for _block, _name, driver in rules if driver in DRIVERS]
            self.release(function, (wish.driver, *taken), ours=bool(rules))
        self.take_back()
        if wish.devices is None:
            self.file(NOIOMMU_CONF, None)
        self.rules(
            {key: block for key, (block, _n, _d) in old.items() if key not in gone},
            {key: block for key, (block, _n, _d) in passing.items() if key not in gone},
        )


def plan(state: State, wish: Wish) -> Plan:
    """What has to be done, in order. Raises IvshmemError, before anything is touched, for what cannot work."""
    selected = _choose(state, wish)
    planner = _Planner(state, wish, selected)
    if wish.present:
        _refuse(state, wish, selected)
        planner.present()
    else:
        planner.absent()
    return Plan(
        actions=tuple(planner.actions),
        selected=tuple(selected),
        before=planner.before,
        after=planner.after,
        files=planner.files,
        warnings=tuple(planner.warnings),
    )


def told(exc: OSError, what: str) -> IvshmemError:
    """An error of the kernel as this collection tells it."""
    if exc.errno in (errno.EACCES, errno.EPERM):
        return IvshmemError(f"{what}: {exc.strerror}: root is needed (become: true)")
    return IvshmemError(f"{what}: {exc.strerror}")


def failure(action: Action, release: str, why: str, detail: str) -> IvshmemError:
    """A step that failed: ``why`` is a word for what was wrong, ``detail`` what the guest says of it."""
    target, value = action.target, action.value
    log = "see the guest's kernel log (dmesg)"
    if why == "unbound":
        found, _blank, said = detail.partition(" ")
        found = "None" if found == "-" else found
        hint = f"has the guest an IOMMU? {log.capitalize()}" if value == VFIO else log
        return IvshmemError(
            f"function {short(target)} was not bound to {value} ({said or 'the kernel gives no reason'}; "
            f"driver now: {found}): {hint}"
        )
    if why == "module":
        mend = module_mend(target, State(release=release))
        return IvshmemError(f"modprobe {target} failed ({detail or 'no driver appeared'}): {mend}")
    if why == "noiommu":
        return IvshmemError(
            f"kernel {release} was built without CONFIG_VFIO_NOIOMMU: give the guest an IOMMU, "
            "or a kernel with that option"
        )
    if why == "group":
        group = value.split(" ")[0]
        return IvshmemError(f"the guest has no group '{group}': create it first (ansible.builtin.group)")
    if why == "nodeless":
        return IvshmemError(f"function {short(target)} is bound, but has no uio node: {log}")
    if why == "nameless":
        return IvshmemError(f"udev has not made /dev/ivshmem/{value} for {detail}: see 'udevadm test' on the guest")
    hint = ": root is needed (become: true)" if re.search(r"permission denied|not permitted", detail.lower()) else ""
    return IvshmemError(f"{action.describe()}: {detail or 'it failed'}{hint}")


class _Failed(Exception):
    """A step that failed: the last two arguments of ``failure``."""


def _bind(kernel: Kernel, address: str, driver: str) -> None:
    """Bind what new_id or the override has made bindable, unless that write has bound it already."""
    base = f"{SYSFS}/devices/{address}"
    if kernel.link(f"{base}/driver") == driver:
        return
    said = ""
    try:
        # An id that was there before binds nothing when it is written again, hence the explicit bind.
        kernel.write(f"{SYSFS}/drivers/{driver}/bind", address)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            said = str(exc.strerror)
    found = kernel.link(f"{base}/driver")
    if found != driver:
        raise _Failed("unbound", f"{found or '-'} {said}")


def _remove_id(kernel: Kernel, driver: str, text: str) -> None:
    # Kernels before 5.11 keep an id as often as it was written; one that is not there is ENODEV.
    for _turn in range(16):
        try:
            kernel.write(f"{SYSFS}/drivers/{driver}/remove_id", text)
        except OSError as exc:
            if exc.errno == errno.ENODEV:
                return
            raise


def _modprobe(kernel: Kernel, driver: str) -> None:
    status, output = kernel.run("modprobe", driver)
    if status != 0 or not kernel.exists(f"{SYSFS}/drivers/{driver}"):
        raise _Failed("module", output)


def _noiommu(kernel: Kernel) -> None:
    kernel.run("modprobe", "vfio")
    if not kernel.exists(NOIOMMU_PARAMETER):
        raise _Failed("noiommu", "")
    kernel.write(NOIOMMU_PARAMETER, "1")


def _give(kernel: Kernel, target: str, value: str) -> None:
    group, mode = value.split(" ")
    path = target
    if not target.startswith("/"):
        function = read_function(kernel, target)
        if function.uio is None:
            return
        path = f"/dev/{function.uio}"
    gid = kernel.group_id(group) if group else -1
    if gid is None:
        raise _Failed("group", "")
    kernel.give(path, gid, int(mode, 8))


def _link(kernel: Kernel, address: str, name: str) -> None:
    kernel.run("udevadm", "settle", "--timeout=10")
    function = read_function(kernel, address)
    if function.uio is None:
        raise _Failed("nodeless", "")
    if kernel.link(f"/dev/ivshmem/{name}") == function.uio:
        return
    # udev has named the node before the rule was there: let it look again.
    kernel.run("udevadm", "trigger", "--action=change", "--subsystem-match=uio", f"--sysname-match={function.uio}")
    kernel.run("udevadm", "settle", "--timeout=10")
    if kernel.link(f"/dev/ivshmem/{name}") != function.uio:
        raise _Failed("nameless", function.uio)


def _act(kernel: Kernel, action: Action) -> None:
    kind, target, value = action.kind, action.target, action.value
    if kind == "replace":
        kernel.replace(target, value)
    elif kind == "remove":
        kernel.remove(target)
    elif kind == "reload":
        # udevd watches its directories, too; where this program is missing, so is what it would talk to.
        kernel.run("udevadm", "control", "--reload")
    elif kind == "modprobe":
        _modprobe(kernel, target)
    elif kind == "noiommu":
        _noiommu(kernel)
    elif kind == "unbind":
        kernel.write(f"{SYSFS}/drivers/{value}/unbind", target)
    elif kind == "override":
        kernel.write(f"{SYSFS}/devices/{target}/driver_override", value + "\n")
    elif kind == "new_id":
        try:
            kernel.write(f"{SYSFS}/drivers/{target}/new_id", value)
        except OSError as exc:
            if exc.errno != errno.EEXIST:
                raise
    elif kind == "remove_id":
        _remove_id(kernel, target, value)
    elif kind == "bind":
        _bind(kernel, target, value)
    elif kind == "access":
        _give(kernel, target, value)
    elif kind == "link":
        _link(kernel, target, value)
    else:
        raise AssertionError(kind)


def undo(todo: Plan, state: State) -> tuple[Action, ...]:
    """What gives the files of this collection their earlier content when a step fails."""
    before = {path: state.files.get(path) for path in todo.files}
    actions = [Action("remove", path) if old is None else Action("replace", path, old) for path, old in before.items()]
    return (*actions, Action("reload")) if actions else ()


def apply(kernel: Kernel, todo: Plan, state: State) -> None:
    """Carry out a plan. When a step fails, the files of this collection get their earlier content back."""
    for folder in FOLDERS:
        kernel.sweep(folder)
    try:
        for action in todo.actions:
            try:
                _act(kernel, action)
            except _Failed as exc:
                raise failure(action, kernel.release(), *exc.args) from exc
            except OSError as exc:
                raise told(exc, action.describe()) from exc
    except IvshmemError:
        for action in undo(todo, state):
            with contextlib.suppress(OSError):
                _act(kernel, action)
        raise


def vfio_node(kernel: Kernel, function: Function) -> str | None:
    """The /dev/vfio node of the function's group, whichever kind it is."""
    for prefix in ("", "noiommu-"):
        node = f"/dev/vfio/{prefix}{function.iommu_group}"
        if function.iommu_group is not None and kernel.exists(node):
            return node
    return None


def facts(kernel: Kernel, function: Function, device: Device | None = None) -> dict[str, Any]:
    """The return value of the modules for one function."""
    node = None
    if function.uio:
        node = f"/dev/{function.uio}"
    elif function.driver == VFIO:
        node = vfio_node(kernel, function)
    position = None
    # Without MSI-X the register means nothing (dm-land: always 0), and vfio owns the registers for itself.
    if function.vectors and function.driver != VFIO and function.enabled:
        position = kernel.register(function.address, 8)
    bars: dict[str, Any] = {}
    for index, found in enumerate(function.bars):
        bars[f"bar{index}"] = None if found is None else {"address": f"{found.address:#x}", "size": found.size}
    name = device.name if device else None
    link = f"/dev/ivshmem/{name}" if name and function.uio and kernel.exists(f"/dev/ivshmem/{name}") else None
    return {
        "name": name,
        "bdf": function.bdf,
        "sysfs_path": function.sysfs,
        "driver": function.driver,
        "uio": function.uio,
        "node": node,
        "link": link,
        "resource2": f"{function.sysfs}/resource2",
        "size": function.size // MB,
        **bars,
        "subsystem_vendor": f"{function.subsystem_vendor:04x}",
        "subsystem_device": f"{function.subsystem_device:04x}",
        "region_id": function.region_id,
        "msix": None if function.vectors is None else function.vectors > 0,
        "vectors": function.vectors,
        "iv_position": position,
    }


def make_folder(kernel: Kernel) -> None:
    os.makedirs(kernel.path(RUN), mode=0o700, exist_ok=True)


def proof(kernel: Kernel) -> dict[str, str | None]:
    """Which boot this is, and the proof that was kept since."""
    return {"boot_id": (kernel.text(BOOT_ID) or "").strip() or None, "proof": kernel.text(PROOF)}


def diffs(todo: Plan) -> list[dict[str, str]]:
    """The value of ``diff`` in a module's result: the functions, then each file."""
    result = []
    for bdf in todo.before:
        if todo.before[bdf] != todo.after[bdf]:
            headers = {"before_header": bdf, "after_header": bdf}
            result.append({**headers, "before": todo.before[bdf] + "\n", "after": todo.after[bdf] + "\n"})
    for path, (before, after) in todo.files.items():
        result.append({"before_header": path, "after_header": path, "before": before, "after": after})
    return result
