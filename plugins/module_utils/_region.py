# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The declaration of shared-memory regions: values, the mapping form and the compact form.

This module util is PRIVATE to the collection: it can change at any time.

Only the form is read here; whether a region can work on an ACRN version is decided in ``_rules``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import REGION_IDS, SIZES

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


# What a module takes of a device; read_device reads it. ``peers`` and ``provided_by`` come with a device of a plan.
DEVICE_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "provided_by": {"type": "str", "choices": [HYPERVISOR, DEVICE_MODEL]},
    "size": {"type": "int"},
    "vbdf": {"type": "str", "aliases": ["bdf"]},
    "slot": {"type": "int"},
    "region_id": {"type": "int"},
    "nth": {"type": "int"},
    "nth_of": {"type": "int"},
    "peers": {"type": "list", "elements": "int"},
}


@dataclass(frozen=True)
class Device:
    """The ivshmem device that one VM has of a region, as far as it is said: None is not said.

    ``size`` is in MB, ``place`` the PCI address in the VM. Where nothing else tells it, it is the ``nth`` (from 1) of
    ``nth_of`` functions that fit, in the order of their addresses.
    """

    name: str | None = None
    provided_by: str | None = None
    size: int | None = None
    place: Bdf | None = None
    region_id: int | None = None
    nth: int | None = None
    nth_of: int | None = None

    @property
    def prefixed(self) -> str:
        """The name as acrn-dm takes it."""
        return PREFIXES.get(self.provided_by or "", "") + (self.name or "")

    @property
    def slot(self) -> int | None:
        return None if self.place is None else self.place.slot

    @property
    def address(self) -> str | None:
        """The address as sysfs has it."""
        return None if self.place is None else f"0000:{self.place}"

    def describe(self) -> str:
        """The name, and what the function in the VM is told by."""
        parts = [
            *([f"vbdf {self.place}"] if self.place else []),
            *([f"region ID {self.region_id}"] if self.region_id else []),
            *([f"size {self.size} MB"] if self.size else []),
            *([f"number {self.nth} of {self.nth_of}"] if self.nth else []),
        ]
        return (f"'{self.name}' " if self.name else "") + f"({', '.join(parts)})"


@dataclass(frozen=True)
class RegionVm:
    """A VM of a region, by scenario name or by ID, with the vBDF that the user asks for, if any.

    ``also`` is its ID where it is named and the ID is given, too.
    """

    vm: str | int
    vbdf: Bdf | None = None
    also: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Region:
    """One shared-memory region. ``size`` is in MB, ``region_id`` the PCI subsystem ID of ACRN v3.3 and later.

    ``reserved`` is how many bytes at its end applications leave to the proof. ACRN knows nothing of it. ``place`` is
    where it is declared, and no part of what it is.
    """

    name: str
    provided_by: str
    size: int
    vms: tuple[RegionVm, ...]
    region_id: int | None = None
    reserved: int | None = None
    place: str = field(default="", compare=False)

    @property
    def prefixed(self) -> str:
        """The name as acrn-dm and the hypervisor compare it: ``hv:/name`` or ``dm:/name``."""
        return PREFIXES[self.provided_by] + self.name


class _Mistakes:
    """What is wrong with one region, each with the key in it that is to be mended, such as ``vms[1].vbdf``."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, key: str, text: str) -> None:
        self.found.append((key, text))


class RegionError(IvshmemError):
    """All that is wrong with one region. ``mistakes`` has key and text of each; no key means the whole of it."""

    def __init__(self, mistakes: Iterable[tuple[str, str]]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(text for _key, text in self.mistakes))


def placed_text(place: str, key: str, text: str) -> str:
    """A sentence about a region with its place in front: the variable, the index in it, and the key."""
    return f"{place}{f'.{key}' if key else ''}: {text}" if place else text


def provider_of(value: Any) -> str | None:
    """The provider that somebody means: in ACRN's own words and those of its guide as well, in any letter case."""
    if not isinstance(value, str):
        return None
    word = re.sub(r"[ _-]+", "", value).lower()
    if word.endswith("land"):
        word = word[: -len("land")]
    return {"hv": HYPERVISOR, "hypervisor": HYPERVISOR, "dm": DEVICE_MODEL, "devicemodel": DEVICE_MODEL}.get(word)


def whole_number(value: Any, what: str) -> int:
    """A whole number, decimal or with 0x in front. Raises IvshmemError, which begins with ``what`` it is."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise IvshmemError(f"{what} must be a whole number, not {value!r}")
    if isinstance(value, int):
        return value
    text = value.strip()
    # Not left to int(), which also takes 1_6 and digits of every script.
    if re.fullmatch(r"-?[0-9]{1,19}|0[xX][0-9A-Fa-f]{1,16}", text):
        return int(text, 16 if "x" in text.lower() else 10)
    unit = {"size": " of MB without a unit", "reserved": " of bytes without a unit"}.get(what, "")
    raise IvshmemError(f"{what} must be a whole number{unit}, not '{value}'")


def check_limits(size: int | None, region_id: int | None) -> None:
    """Raise IvshmemError for a size (MB) or a region ID that no region can have. None is none, and so is an ID of 0."""
    if size is not None and size not in SIZES:
        raise IvshmemError(f"size {size} must be a power of two from {SIZES[0]} to {SIZES[-1]} MB")
    if region_id and region_id not in REGION_IDS:
        told = f"0 (none) or {REGION_IDS.start} to {REGION_IDS.stop - 1}"
        raise IvshmemError(f"region_id {region_id} must be {told}")


def read_place(vbdf: Any, slot: Any, of: str = "") -> tuple[Bdf | None, list[tuple[str, str]]]:
    """Where a device stands, by vBDF (hexadecimal) or by slot (decimal), and what is wrong, each with its key.

    ``of`` names what the device belongs to, such as `` of VM 'a'``.
    """
    place, wrong = None, []
    if isinstance(vbdf, str):
        try:
            place = Bdf.parse(vbdf) if vbdf else None
        except IvshmemError as exc:
            wrong.append(("vbdf", f"vbdf{of}: {exc}"))
    elif vbdf is not None:
        told = 'write it in quotes, since YAML reads 00:08.0 as a number: "00:08.0"'
        wrong.append(("vbdf", f"vbdf{of} is {vbdf!r}: {told}"))
    if slot is None:
        return place, wrong
    try:
        number = whole_number(slot, f"slot{of}")
    except IvshmemError as exc:
        return place, [*wrong, ("slot", str(exc))]
    if not 0 <= number <= 31:
        wrong.append(("slot", f"slot {number}{of} must be 0..31, in decimal"))
    elif place is not None and place.slot != number:
        told = f"slot {number}{of} is 00:{number:02x}.0, but its vbdf is {place}, which is slot {place.slot}"
        wrong.append(("slot", f"{told}; give one of them"))
    else:
        place = place or Bdf(0, number, 0)
    return place, wrong


def read_device(value: Mapping[str, Any], where: str) -> Device:
    """Size, place and region ID of a device within their limits, name and provider as they are given.

    An ID of 0 is the default of ACRN's schema, and none. Raises IvshmemError with all mistakes, a line each, which
    ``where`` begins.
    """
    place, mistakes = read_place(value.get("vbdf") or value.get("bdf"), value.get("slot"))
    wrong = [text for _key, text in mistakes]
    numbers: dict[str, int | None] = {}
    for key in ("size", "region_id", "nth", "nth_of"):
        try:
            numbers[key] = None if value.get(key) is None else whole_number(value[key], key)
            # One at a time, so that each is told.
            check_limits(numbers[key] if key == "size" else None, numbers[key] if key == "region_id" else None)
        except IvshmemError as exc:
            wrong.append(str(exc))
    nth, of = numbers.get("nth"), numbers.get("nth_of")
    if (nth is None) != (of is None) or (nth is not None and of is not None and not 1 <= nth <= of):
        wrong.append(f"nth {nth} and nth_of {of} must be numbers from 1 on, and nth the smaller one")
    if wrong:
        raise IvshmemError("\n".join(f"{where}: {text}" for text in wrong))
    return Device(
        value.get("name"), value.get("provided_by"), numbers["size"], place, numbers["region_id"] or None, nth, of
    )


def alike(regions: Iterable[Mapping[str, Any]]) -> dict[tuple[str, Any], dict[str, int]]:
    """What tells apart regions of one size in a VM, ``nth`` and ``nth_of``, by region (with prefix) and VM ID.

    ``regions`` are those of a plan. Only where ACRN's build chooses the places (v2.x): there the functions of a VM have
    the order of the regions in the scenario (static_allocators/bdf.py, insert_pt_devs_to_dev_dict), and no region ID.
    """
    same: dict[tuple[Any, int], list[str]] = {}
    for region in regions:
        for vm in region["vms"] if region["provided_by"] == HYPERVISOR else ():
            if vm["vbdf"] is None:
                same.setdefault((vm["id"], region["size"]), []).append(PREFIXES[HYPERVISOR] + region["name"])
    return {
        (name, vm): {"nth": number, "nth_of": len(names)}
        for (vm, _size), names in same.items()
        for number, name in enumerate(names, 1)
        if len(names) > 1
    }


def _integer(value: Any, what: str, where: str, key: str, wrong: _Mistakes) -> int:
    """A whole number; 0 where it is none, which is told."""
    try:
        return whole_number(value, what)
    except IvshmemError as exc:
        wrong.add(key, f"{where}: {exc}")
        return 0


def _region_vm(value: Any, where: str, key: str, wrong: _Mistakes) -> RegionVm | None:
    """A VM of a region; None where it names none, which is told."""
    vbdf, also = None, None
    if isinstance(value, Mapping):
        unknown = sorted(str(each) for each in set(value) - set(_VM_KEYS))
        if unknown:
            told = f"unknown key {', '.join(map(repr, unknown))} in a VM; the keys are name (or id) and vbdf (or slot)"
            wrong.add(key, f"{where}: {told}")
        named = [value[each] for each in ("name", "id") if value.get(each) is not None]
        if not named:
            wrong.add(key, f"{where}: a VM needs name or id, not {dict(value)!r}")
            return None
        vbdf, mistakes = read_place(value.get("vbdf"), value.get("slot"), f" of VM '{named[0]}'")
        for part, text in mistakes:
            wrong.add(f"{key}.{part}", f"{where}: {text}")
        value, also = named[0], named[1] if len(named) > 1 else None
    value = value.strip() if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        wrong.add(key, f"{where}: a VM is its name, its ID, or a mapping with name and vbdf, not {value!r}")
        return None
    return RegionVm(value, vbdf, also)


def _provider(value: Mapping[str, Any], name: str, where: str, wrong: _Mistakes) -> tuple[str, str]:
    """The provider by its key, or by the prefix of the name, and the name without that."""
    given = value.get("provided_by")
    provider = provider_of(given)
    if given is not None and provider is None:
        told = f"provided_by must be {HYPERVISOR} (hv-land) or {DEVICE_MODEL} (dm-land), not {given!r}"
        wrong.add("provided_by", f"{where}: {told}")
    by_prefix = PROVIDERS.get(name[:4])
    if not by_prefix:
        return provider or HYPERVISOR, name
    if not name[4:]:
        wrong.add("name", f"{where}: the name behind the prefix is missing; {_COMPACT_HINT}")
    if provider not in (None, by_prefix):
        told = f"the prefix says {by_prefix}, but provided_by is {given}; remove one"
        wrong.add("provided_by", f"{where}: {told}")
    return by_prefix, name[4:]


def _from_mapping(value: Mapping[str, Any]) -> Region:
    wrong = _Mistakes()
    name = value.get("name")
    if not isinstance(name, str) or not name.strip():
        wrong.add("name" if "name" in value else "", f"a region needs a name (a string), not {name!r}")
        name = "" if name is None else str(name)
    name = name.strip()
    where = f"region '{name}'"
    unknown = sorted(str(key) for key in set(value) - set(_KEYS))
    if unknown:
        told = f"unknown key {', '.join(map(repr, unknown))}; the keys are {', '.join(_KEYS)}"
        wrong.add("", f"{where}: {told}")
    provided_by, name = _provider(value, name, where, wrong)
    size = 0
    if "size" in value:
        size = _integer(value["size"], "size", where, "size", wrong)
    else:
        wrong.add("", f"{where}: size is missing; give it in MB")
    vms = value.get("vms")
    if not isinstance(vms, (list, tuple)) or not vms:
        if "vms" in value:
            wrong.add("vms", f"{where}: vms must be a list of at least two VMs, not {vms!r}")
        else:
            wrong.add("", f"{where}: vms is missing; list two VMs or more")
        vms = ()
    if len(vms) > MOST_VMS:
        wrong.add("vms", f"{where}: has {len(vms)} VMs; {MOST_VMS} is the limit")
        vms = ()
    found = [_region_vm(vm, where, f"vms[{index}]", wrong) for index, vm in enumerate(vms)]
    numbers = {}
    for key in ("region_id", "reserved"):
        given = value.get(key)
        numbers[key] = None if given is None else _integer(given, key, where, key, wrong)
    if wrong.found:
        raise RegionError(wrong.found)
    return Region(
        name=name,
        provided_by=provided_by,
        size=size,
        vms=tuple(vm for vm in found if vm is not None),
        region_id=numbers["region_id"],
        reserved=numbers["reserved"] or None,
    )


def _from_compact(value: str) -> Region:
    parts = [part.strip() for part in value.split(",")]
    if len(parts) != 3 or parts[0][:4] not in PROVIDERS or not all(parts):
        more = "; region_id, vbdf and reserved need the mapping" if len(parts) > 3 else ""
        raise RegionError([("", f"region '{value}' is not readable: {_COMPACT_HINT}{more}")])
    if parts[2].count(":") >= MOST_VMS:
        told = f"region '{parts[0]}': has {parts[2].count(':') + 1} VMs; {MOST_VMS} is the limit"
        raise RegionError([("", told)])
    vms = [vm.strip() for vm in parts[2].split(":")]
    if not all(vms):
        raise RegionError([("", f"region '{value}' has an empty VM between its colons: {_COMPACT_HINT}")])
    try:
        return _from_mapping(
            {
                "name": parts[0],
                "size": parts[1],
                "vms": [int(vm) if re.fullmatch("[0-9]{1,9}", vm) else vm for vm in vms],
            }
        )
    except RegionError as exc:
        # A string has no keys.
        raise RegionError([("", text) for _key, text in exc.mistakes]) from None


def parse_region(value: Any) -> Region:
    """Read one region: a Region, a mapping of the declaration, or the compact string ``hv:/name, 2, 0:2``.

    Raises RegionError, which names the region, the value and the form that is expected.
    """
    if isinstance(value, Region):
        return value
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if isinstance(value, str):
        return _from_compact(value)
    raise RegionError([("", f"a region is a mapping or a string, not {value!r}: {_COMPACT_HINT}")])


def parse_regions(values: Iterable[Any], places: Sequence[str] = ()) -> tuple[tuple[Region, ...], list[str]]:
    """Read a list of regions. Returns those that can be read, and what is wrong with each of the others.

    ``places``: where each of them is declared, such as ``ivshmem_host_regions[0]``.
    """
    regions, problems = [], []
    values = tuple(values)
    if len(values) > MOST_REGIONS:
        raise IvshmemError(f"{len(values)} regions are declared; {MOST_REGIONS} is the limit")
    for index, value in enumerate(values):
        place = places[index] if index < len(places) else ""
        try:
            region = parse_region(value)
            regions.append(replace(region, place=place) if place else region)
        except RegionError as exc:
            problems += [placed_text(place, key, text) for key, text in exc.mistakes]
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
