# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launch scripts that were there before the collection: what they have, and what an edit would take from them.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import RESERVED_SLOTS
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    ivshmem_options,
    known_as,
    make_devices,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._dm_memory import RunningVm
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._edit import PlacedDevice, check_exact
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import (
    FoundDevice,
    script_calls,
    script_devices,
    unlike_calls,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import PREFIXES, Bdf, IvshmemError

# The second line of the scripts that the role launch writes from its own template.
OWN = b"Written by the Ansible role acrn.ivshmem.launch"


def changes(before: Sequence[FoundDevice], after: Iterable[PlacedDevice], vm: str | None) -> list[dict[str, Any]]:
    """What happens to the devices that a script has: ``move``, ``resize`` and ``remove``, and ``add`` for new ones."""
    wanted = {placed.device.prefixed: placed.device for placed in after}
    had = {device.name: device for device in reversed(before) if device.name}
    found: list[dict[str, Any]] = []

    def tell(change: str, name: str, old: Any, new: Any) -> None:
        found.append({"change": change, "region": name, "vm": vm, "old": old, "new": new})

    for name, device in had.items():
        own = wanted.get(name or "")
        if own is None:
            tell("remove", name or "", device.slot, None)
            continue
        if own.slot != device.slot:
            tell("move", name or "", device.slot, own.slot)
        if own.size != device.size:
            tell("resize", name or "", device.size, own.size)
    for name, own in wanted.items():
        if name not in had:
            tell("add", name, None, own.slot)
    return found


def refuse_to_take(before: bytes, where: str, vm: str | None, wanted: Iterable[str], uuid: str | None = None) -> None:
    """Raise IvshmemError where a script that nobody here has written has ivshmem devices that are not wanted.

    ``wanted`` are names with their prefix. One that cannot be read may be one of them or not, and is refused too.
    """
    way = "take them away with launch_exclusive: true (exclusive of the module)"
    try:
        devices = script_devices(before, vm, where, uuid)
    except IvshmemError as exc:
        if b"ivshmem" not in before:
            return
        raise IvshmemError(
            f"{exc}\n{where}: this script is not one of the collection's, and its ivshmem devices would be lost: "
            f"declare them and write the script in a readable form, or {way}"
        ) from None
    names = set(wanted)
    differ = unlike_calls(before, vm, where, uuid)
    odd = [differ] if differ else unlike_regions([device for device in devices if device.name in names], where)
    if odd:
        raise IvshmemError("\n".join(odd) + f"; write it so in the script, or {way}")
    lost = [device for device in devices if device.name not in names]
    if lost:
        told = "; ".join(_told(device) for device in lost)
        raise IvshmemError(
            f"{where}: has ivshmem devices that are not declared: {told}. The script was not written by this "
            "collection, so nothing is taken from it unasked. Add the regions to the declaration of the host, with the "
            f"VMs that have them, or {way}"
        )


def unlike_regions(devices: Sequence[FoundDevice], where: str) -> list[str]:
    """Devices that acrn-dm may take and that no region can be declared for, one sentence each."""
    found: list[str] = []
    lines: dict[str | None, int] = {}
    for device in devices:
        at = f"{where}: line {device.line}: {device.name}"
        if device.odd:
            found.append(f"{at} {device.odd}")
        elif device.name in lines:
            found.append(f"{at} is there twice (line {lines[device.name]}), and a VM has one device of a region")
        lines.setdefault(device.name, device.line)
    return found


def _told(device: FoundDevice) -> str:
    name = device.name or "one that cannot be read"
    size = f", {device.size} MB" if device.size is not None else ""
    slot = f", slot {device.slot}" if device.slot is not None else ""
    return f"{name}{size}{slot} (line {device.line})"


# -- what a host has ---------------------------------------------------------------------------------------------------


def read_script(data: bytes, where: str) -> dict[str, Any]:
    """The VMs that a script starts, each with its ivshmem devices, and what of it cannot be read."""
    vms: list[dict[str, Any]] = []
    try:
        calls, problems = script_calls(data, where)
    except IvshmemError as exc:
        return {"vms": [], "problems": str(exc).splitlines()}
    for call in calls:
        try:
            # Up to v2.6 the UUID is enough, and the name often one that only a run of the script tells.
            uuid = None if call.name else call.uuid
            if call.name is None and uuid is None:
                raise IvshmemError(
                    f"{where}: line {call.line}: which VM this call of acrn-dm starts is not clear ({call.told})"
                )
            check_exact(data, call.name, where, uuid)
            devices = script_devices(data, call.name, where, uuid)
            differ = unlike_calls(data, call.name, where, uuid)
            odd = [differ] if differ else unlike_regions(devices, where) or _unmade(devices, where)
            if odd:
                raise IvshmemError("\n".join(odd))
        except IvshmemError as exc:
            problems += str(exc).splitlines()
            continue
        own = {
            "name": call.name,
            "uuid": call.uuid,
            "style": call.style,
            "line": call.line,
            "devices": [_device(device) for device in devices],
        }
        if (call.name or uuid) not in [each["name"] or each["uuid"] for each in vms]:
            vms.append(own)
    return {"vms": vms, "problems": list(dict.fromkeys(problems))}


_EXEC = re.compile(r"\s*(ExecStart(?:Pre|Post)?)\s*=\s*([-@:+!|]*)(.*)", re.DOTALL)


def unit_commands(parts: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """The commands that a systemd service starts, each with its file and line.

    ``parts``: the texts of the service and of what is added to it (NAME.service.d), by their paths, in systemd's order.
    A specifier is a variable of no known value.
    """
    found: list[tuple[str, tuple[str, int, str]]] = []
    for path, text in parts.items():
        for first, line in _joined(text):
            match = _EXEC.match(line)
            if not match:
                continue
            kind, flags, words = match.group(1), match.group(2), match.group(3).split(None, 2)
            if not words:
                # Nothing takes away what came before it.
                found = [each for each in found if each[0] != kind]
            if "@" in flags:
                del words[1:2]  # what the command is to be called
            command = re.sub(r"%([A-Za-z%])", _specifier, " ".join(words))
            found += [(kind, (path, first, command))] if command else []
    return [command for _kind, command in found]


# What is no operator to systemd: all that a shell takes for one outside of quotes, but ";" as a word of its own.
_LITERAL = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|(?<!\S);(?=\s)\s|[;&|()<>#`]""", re.DOTALL)


def _literal(match: re.Match[str]) -> str:
    found = match.group()
    return f"\\{found}" if len(found) == 1 else found.replace("`", "\\`") if found[0] == '"' else found


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a service with those that they go on in, each with its number."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        first = at
        joined = lines[at]
        while joined.endswith("\\") and at + 1 < len(lines):
            at += 1
            if not lines[at].lstrip().startswith(("#", ";")):
                joined = joined[:-1] + " " + lines[at]
        at += 1
        yield first + 1, joined


def _specifier(match: re.Match[str]) -> str:
    return "%" if match.group(1) == "%" else f"${{unit_{match.group(1)}}}"


def unit_scripts(command: str) -> list[str]:
    """The paths in a service's command, as patterns for glob: what the instance is called can be anything."""
    words = re.findall(r"/[^\s'\";]+", command)
    return [re.sub(r"\$\{unit_.\}", "*", re.sub(r"([*?[])", r"[\1]", word)) for word in words]


def read_unit(parts: Mapping[str, str]) -> dict[str, Any]:
    """The VMs that a service starts with acrn-dm itself, as read_script tells those of a script."""
    result: dict[str, Any] = {"vms": [], "problems": []}
    for path, line, command in unit_commands(parts):
        if "acrn-dm" in command:
            command = _LITERAL.sub(_literal, command)
            own = read_script(("\n" * (line - 1) + command + "\n").encode("utf-8", "surrogateescape"), path)
            result = {key: result[key] + own[key] for key in result}
    return result


def _unmade(devices: Sequence[FoundDevice], where: str) -> list[str]:
    """Devices that acrn-dm itself refuses, or that nobody can declare."""
    found = []
    for device in devices:
        if device.slot is None and device.odd is None:
            found.append(f"{where}: line {device.line}: region '{device.name}': its slot is none that acrn-dm reads")
            continue
        try:
            shown = {key: value for key, value in _device(device).items() if key != "line"}
            make_devices([{key: value for key, value in shown.items() if value is not None}])
        except IvshmemError as exc:
            found.append(f"{where}: line {device.line}: {exc}")
    return found


def _device(device: FoundDevice) -> dict[str, Any]:
    return {"name": device.name, **{key: getattr(device, key) for key in ("size", "region_id", "slot", "line")}}


def running_vm(vm: RunningVm) -> dict[str, Any]:
    """A VM that runs, as launch_info returns it."""
    devices = []
    for slot, options in sorted(vm.devices):
        name, size, region_id = ivshmem_options(options)
        devices.append({"name": name, "size": size, "region_id": region_id, "slot": slot})
    return {"name": vm.vm, "uuid": vm.uuid, "pid": vm.pid, "devices": devices}


def places_in_use(
    found: Mapping[str, Any], known: Sequence[Mapping[str, Any]] = (), version: tuple[int, int] | None = None
) -> dict[str, dict[str, str]]:
    """The vBDFs that a host has in use, by prefixed region and VM, of what launch_info returns.

    ``known`` are the VMs of the scenario, with name and uuid.
    What a script says counts before what still runs, and both before the scenario of the installed build. A host can
    answer what it likes, and stops nobody by it: what is no place is none.
    """
    places: dict[str, dict[str, str]] = {}

    def put(name: Any, vm: Any, place: Any) -> None:
        with contextlib.suppress(IvshmemError):
            if name and isinstance(name, str) and isinstance(vm, str) and isinstance(place, str):
                Bdf.parse(place)
                places.setdefault(name, {})[vm] = place

    for region in _mappings(_mapping(found.get("installed")).get("regions")):
        for vm in _mappings(region.get("vms")):
            put(f"{PREFIXES.get(str(region.get('provided_by')))}{region.get('name')}", vm.get("name"), vm.get("vbdf"))
    files = [*_mappings(found.get("units")), *_mappings(found.get("scripts"))]
    scripted = [vm for file in files for vm in _mappings(file.get("vms"))]
    for vm in [*_mappings(found.get("running")), *scripted]:
        uuid = vm.get("uuid")
        name = known_as(vm.get("name"), uuid if isinstance(uuid, str) else None, known, version)
        for device in _mappings(vm.get("devices")):
            slot = device.get("slot")
            if isinstance(slot, int) and 0 <= slot < 32 and slot not in RESERVED_SLOTS:
                put(device.get("name"), name, str(Bdf(0, slot, 0)))
    return places


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, (list, tuple)) else []
