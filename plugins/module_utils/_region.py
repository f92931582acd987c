# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The declaration of shared-memory regions: values, the mapping form and the compact form.

This module util is PRIVATE to the collection: it can change at any time.

Only the form is read here; whether a region can work on an ACRN version is decided in ``_rules``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HYPERVISOR = "hypervisor"
DEVICE_MODEL = "device_model"

# acrn-dm and the v2.x scenario XML tell the two providers apart by this prefix of the name
# (devicemodel/hw/pci/ivshmem.c, pci_ivshmem_init).
PREFIXES = {HYPERVISOR: "hv:/", DEVICE_MODEL: "dm:/"}
PROVIDERS = {prefix: provider for provider, prefix in PREFIXES.items()}

PRE_LAUNCHED = "pre_launched"
SERVICE = "service"
POST_LAUNCHED = "post_launched"

_BDF = re.compile(r"(?:0{1,4}:)?([0-9A-Fa-f]{1,2}):([01]?[0-9A-Fa-f])\.([0-7])")
_KEYS = ("name", "provided_by", "size", "vms", "region_id", "reserved")
# scenario_info returns load_order as well; it is what the scenario says, and no wish.
_VM_KEYS = ("name", "id", "vbdf", "slot", "load_order")
_COMPACT_HINT = 'write "hv:/NAME, SIZE_MB, VM:VM" or "dm:/NAME, SIZE_MB, VM:VM"'


# More than ACRN can hold (MAX_VM_NUM is 16, and each VM has fewer than 32 slots), and few enough for every check to be
# quick.
MOST_REGIONS, MOST_VMS = 1000, 256
_LINES, _WIDTH = 60, 2000


class IvshmemError(Exception):
    """What is wrong and how to mend it, in words for the user: of a hostile input no more than people can read."""

    def __str__(self) -> str:
        lines = super().__str__().split("\n")
        lines = [line if len(line) <= _WIDTH else f"{line[:_WIDTH]}... ({len(line)} characters)" for line in lines]
        return some(lines, _LINES, "\n")


def some(items: Iterable[object], most: int = 10, between: str = ", ") -> str:
    """A list in words: all of it, or of a long one the first and how many more there are."""
    texts = [str(item) for item in items]
    if len(texts) <= most + 1:
        return between.join(texts)
    return between.join(texts[:most]) + (f"{between}and" if "\n" in between else " and") + f" {len(texts) - most} more"


@dataclass(frozen=True, order=True)
class Bdf:
    """A PCI address: bus 0..255, device 0..31, function 0..7."""

    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Bdf:
        """Read ``BB:DD.F``, all hexadecimal, as the scenario XML and lspci write it.

        A PCI domain of zero in front is accepted. Raises IvshmemError for anything else.
        """
        match = _BDF.fullmatch(text.strip())
        if not match:
            raise IvshmemError(
                f"'{text}' is not a PCI address: write bus:device.function in hexadecimal with device 00..1f, "
                "such as 00:08.0"
            )
        bus, device, function = (int(part, 16) for part in match.groups())
        return cls(bus, device, function)

    @property
    def slot(self) -> int:
        """The device number; acrn-dm writes it in decimal (devicemodel/hw/pci/core.c, parse_bdf)."""
        return self.device

    def __str__(self) -> str:
        return f"{self.bus:02x}:{self.device:02x}.{self.function:x}"


@dataclass(frozen=True)
class RegionVm:
    """A VM of a region, by scenario name or by ID, with the vBDF that the user asks for, if any."""

    vm: str | int
    vbdf: Bdf | None = None


@dataclass(frozen=True)
class Region:
    """One shared-memory region. ``size`` is in MB, ``region_id`` the PCI subsystem ID of ACRN v3.3 and later.

    ``reserved`` is how many bytes at its end applications leave to the proof. ACRN knows nothing of it.
    """

    name: str
    provided_by: str
    size: int
    vms: tuple[RegionVm, ...]
    region_id: int | None = None
    reserved: int | None = None

    @property
    def prefixed(self) -> str:
        """The name as acrn-dm and the hypervisor compare it: ``hv:/name`` or ``dm:/name``."""
        return PREFIXES[self.provided_by] + self.name


def _integer(value: Any, what: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise IvshmemError(f"{where}: {what} must be a whole number, not {value!r}")
    if isinstance(value, int):
        return value
    text = value.strip()
    # Not left to int(), which also takes 1_6 and digits of every script.
    if re.fullmatch(r"-?[0-9]{1,19}|0[xX][0-9A-Fa-f]{1,16}", text):
        return int(text, 16 if "x" in text.lower() else 10)
    unit = {"size": " of MB without a unit", "reserved": " of bytes without a unit"}.get(what, "")
    raise IvshmemError(f"{where}: {what} must be a whole number{unit}, not '{value}'")


def _region_vm(value: Any, where: str) -> RegionVm:
    vbdf = None
    if isinstance(value, Mapping):
        named = [value[key] for key in ("name", "id") if value.get(key) is not None]
        if not named:
            raise IvshmemError(f"{where}: a VM needs name or id, not {dict(value)!r}")
        vbdf = _vbdf(value.get("vbdf"), f"{where}: vbdf of VM '{named[0]}'")
        if value.get("slot") is not None:
            slot = _integer(value["slot"], f"slot of VM '{named[0]}'", where)
            if not 0 <= slot <= 31:
                raise IvshmemError(f"{where}: slot {slot} of VM '{named[0]}' must be 0..31, in decimal")
            if vbdf is not None and vbdf.slot != slot:
                raise IvshmemError(
                    f"{where}: slot {slot} of VM '{named[0]}' is 00:{slot:02x}.0, but its vbdf is {vbdf}; "
                    "give one of them"
                )
            vbdf = vbdf or Bdf(0, slot, 0)
        value = named[0]
    value = value.strip() if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise IvshmemError(f"{where}: a VM is its name, its ID, or a mapping with name and vbdf, not {value!r}")
    return RegionVm(value, vbdf)


def _vbdf(value: Any, where: str) -> Bdf | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise IvshmemError(f'{where} is {value!r}: write it in quotes, since YAML reads 00:08.0 as a number: "00:08.0"')
    try:
        return Bdf.parse(value)
    except IvshmemError as exc:
        raise IvshmemError(f"{where}: {exc}") from None


def _refuse_unknown(value: Mapping[str, Any], where: str) -> None:
    """Raise IvshmemError with all keys of a region and of its VMs that nobody knows."""
    own = sorted(str(key) for key in set(value) - set(_KEYS))
    vms = value.get("vms")
    inner = [vm for vm in vms if isinstance(vm, Mapping)] if isinstance(vms, (list, tuple)) else []
    others = sorted({str(key) for vm in inner for key in vm} - set(_VM_KEYS))
    told = []
    if own:
        told.append(f"unknown key {', '.join(map(repr, own))}; the keys are {', '.join(_KEYS)}")
    if others:
        told.append(f"unknown key {', '.join(map(repr, others))} in a VM; the keys are name (or id) and vbdf (or slot)")
    if told:
        raise IvshmemError(f"{where}: {'; '.join(told)}")


def _from_mapping(value: Mapping[str, Any]) -> Region:
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise IvshmemError(f"a region needs a name (a string), not {name!r}")
    where = f"region '{name}'"
    _refuse_unknown(value, where)
    provided_by = value.get("provided_by")
    by_prefix = PROVIDERS.get(name[:4])
    if by_prefix:
        name = name[4:]
        if not name:
            raise IvshmemError(f"{where}: the name behind the prefix is missing; {_COMPACT_HINT}")
        if provided_by not in (None, by_prefix):
            raise IvshmemError(f"{where}: the prefix says {by_prefix}, but provided_by is {provided_by}; remove one")
        provided_by = by_prefix
    provided_by = HYPERVISOR if provided_by is None else provided_by
    if provided_by not in list(PREFIXES):
        raise IvshmemError(
            f"{where}: provided_by must be {HYPERVISOR} (hv-land) or {DEVICE_MODEL} (dm-land), not {provided_by!r}"
        )
    if "size" not in value:
        raise IvshmemError(f"{where}: size is missing; give it in MB")
    vms = value.get("vms")
    if not isinstance(vms, (list, tuple)) or not vms:
        raise IvshmemError(f"{where}: vms must be a list of at least two VMs, not {vms!r}")
    if len(vms) > MOST_VMS:
        raise IvshmemError(f"{where}: has {len(vms)} VMs; {MOST_VMS} is the limit")
    region_id, reserved = value.get("region_id"), value.get("reserved")
    return Region(
        name=name,
        provided_by=provided_by,
        size=_integer(value["size"], "size", where),
        vms=tuple(_region_vm(vm, where) for vm in vms),
        region_id=None if region_id is None else _integer(region_id, "region_id", where),
        reserved=None if reserved is None else _integer(reserved, "reserved", where) or None,
    )


def _from_compact(value: str) -> Region:
    parts = [part.strip() for part in value.split(",")]
    if len(parts) != 3 or parts[0][:4] not in PROVIDERS or not all(parts):
        raise IvshmemError(f"region '{value}' is not readable: {_COMPACT_HINT}")
    if parts[2].count(":") >= MOST_VMS:
        raise IvshmemError(f"region '{parts[0]}': has {parts[2].count(':') + 1} VMs; {MOST_VMS} is the limit")
    vms = [vm.strip() for vm in parts[2].split(":")]
    if not all(vms):
        raise IvshmemError(f"region '{value}' has an empty VM between its colons: {_COMPACT_HINT}")
    return _from_mapping(
        {"name": parts[0], "size": parts[1], "vms": [int(vm) if re.fullmatch("[0-9]{1,9}", vm) else vm for vm in vms]}
    )


def parse_region(value: Any) -> Region:
    """Read one region: a Region, a mapping of the declaration, or the compact string ``hv:/name, 2, 0:2``.

    Raises IvshmemError, which names the region, the value and the form that is expected.
    """
    if isinstance(value, Region):
        return value
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if isinstance(value, str):
        return _from_compact(value)
    raise IvshmemError(f"a region is a mapping or a string, not {value!r}: {_COMPACT_HINT}")


def parse_regions(values: Iterable[Any]) -> tuple[tuple[Region, ...], list[str]]:
    """Read a list of regions. Returns those that can be read, and what is wrong with each of the others."""
    regions, problems = [], []
    values = tuple(values)
    if len(values) > MOST_REGIONS:
        raise IvshmemError(f"{len(values)} regions are declared; {MOST_REGIONS} is the limit")
    for value in values:
        try:
            regions.append(parse_region(value))
        except IvshmemError as exc:
            problems.append(str(exc))
    return tuple(regions), problems


def to_mapping(region: Region) -> dict[str, Any]:
    """The mapping form, with every key of the declaration that has a value."""
    result: dict[str, Any] = {
        "name": region.name,
        "provided_by": region.provided_by,
        "size": region.size,
        "vms": [vm.vm if vm.vbdf is None else {"name": vm.vm, "vbdf": str(vm.vbdf)} for vm in region.vms],
    }
    if region.region_id is not None:
        result["region_id"] = region.region_id
    if region.reserved is not None:
        result["reserved"] = region.reserved
    return result


def to_compact(region: Region) -> str:
    """The compact form. It has no room for vBDFs, a region ID and reserved bytes: these are left out."""
    return f"{region.prefixed}, {region.size}, {':'.join(str(vm.vm) for vm in region.vms)}"
