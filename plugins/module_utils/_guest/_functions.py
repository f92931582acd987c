# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ivshmem PCI functions of a Linux guest, and which of them a device of the declaration is.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    DEVICE,
    REGION_ID_VENDOR,
    VENDOR,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._kernel import SYSFS, VFIO, Kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Device, IvshmemError, read_device

MB = 1024 * 1024
ALL = "all"

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# These go into a udev rule and into a shell command inside it.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_MODE = re.compile(r"0?[0-7]{3}")


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


def short(address: str) -> str:
    return address[5:] if address.startswith("0000:") else address


def megabytes(size: int) -> str:
    return f"{size // MB} MB" if size and size % MB == 0 else f"{size} bytes"


def parse_device(value: Mapping[str, Any]) -> Device:
    """One entry of the modules' ``devices``, as Ansible hands it over (absent options are None)."""
    name = value.get("name")
    where = f"device '{name}'"
    if name is not None and not _NAME.fullmatch(name):
        raise IvshmemError(
            f"device name '{name}': it becomes a file name in /dev/ivshmem, so use letters, digits, '_', '-' and '.'"
        )
    device = read_device(value, where)
    if device.place is None and device.region_id is None and device.size is None:
        raise IvshmemError(f"{where}: give vbdf (or slot), region_id or size, so that its function can be told")
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


def _alike(device: Device, functions: Sequence[Function]) -> list[Function]:
    """The functions that a device without an address may be: by region ID, else by size, of several by their order."""
    fits = [function for function in functions if not differences(device, function)]
    if device.region_id:
        with_id = [function for function in fits if function.region_id == device.region_id]
        fits = with_id if with_id or device.size is None else fits
    if not (fits and device.nth and device.nth_of):
        return fits
    if len(fits) != device.nth_of:
        raise IvshmemError(
            f"device {device.describe()} fits {len(fits)} functions, not {device.nth_of}: {listing(fits)}; "
            "see that the VM runs with the regions of the declaration"
        )
    return fits[device.nth - 1 : device.nth]


def select(functions: Sequence[Function], devices: Sequence[Device]) -> dict[Device, Function | None]:
    """The one function of each device, or None where the guest has none.

    Raises IvshmemError where a device fits several functions, where two devices fit the same one, and where the
    function at a given BDF is of another size or region ID: a guess would bind somebody else's memory.
    """
    chosen: dict[Device, Function | None] = {}
    taken: dict[str, Device] = {}
    # The surest first, so that a size alone is left with what nobody else names.
    for device in sorted(devices, key=lambda item: (item.place is None, item.region_id is None)):
        if device.address:
            fits = [function for function in functions if function.address == device.address]
        else:
            fits = [function for function in _alike(device, functions) if function.address not in taken]
        if len(fits) > 1:
            raise IvshmemError(
                f"device {device.describe()} fits {len(fits)} functions: {listing(fits)}; add its vbdf or region_id, "
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


def mode_bits(text: str | None) -> int | None:
    if text is None:
        return None
    if not _MODE.fullmatch(text):
        raise IvshmemError(f"mode '{text}': write it as octal digits in quotes, such as '0660'")
    return int(text, 8)


def group_name(text: str) -> str:
    if not _GROUP.fullmatch(text):
        raise IvshmemError(f"group '{text}' is not the name of a group")
    return text


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
