# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role launch on the controller: from the VMs that a user describes to scripts, files and devices.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    LONGEST_VM_NAME,
    OTHERS_SLOT_ORDER,
    VM_NAME,
    VM_NAMES_SINCE,
    spelt,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import argument_of, make_device, uuid_of
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, Bdf, IvshmemError, read_place
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import given_version, parse_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._words import meant

Vm = Mapping[str, Any]
MODES = ("template", "generate", "edit")

# A shell, or acrn-dm's own commas, would make something else of other characters.
_SAFE = re.compile(r"(?!-)[A-Za-z0-9_./@+=:% -]+")
_TAP = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_BDF = re.compile(r"[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]")
_CONTROL = re.compile(r"[\x00-\x1f]")
# acrn-dm takes no less (devicemodel/core/main.c).
_MEMORY = 128
_NO_UUID = (
    f"uuid is missing: before {spelt(VM_NAMES_SINCE)} the hypervisor knows a VM by it, and acrn-dm without -U starts "
    "the first standard VM; write the one that the hypervisor has for this VM"
)
# The bridges are in every script; a passed-through GPU has 2, and its LPC bridge 31.
_FOR_PASSTHROUGH = (2, 31)


@dataclass(frozen=True)
class Settings:
    """The variables of the role that have a part in it, under the same names without ``launch_``."""

    mode: str
    version: str
    dir: str
    acrn_dm: str
    bridge: str
    host: str
    scenario_path: str
    hypervisor_manifest: str
    units: bool
    unit_directory: str
    unit: str
    enabled: bool
    started: bool
    can_start: bool
    hsm: Sequence[str]
    absent: Sequence[str]
    exclusive: bool = False
    # Whether the hypervisor will be that of the plan when the scripts are used, as in check mode before a reboot.
    rebooted: bool = False
    backup: bool = False
    # The ACRN tree with the generator of launch scripts.
    source: str = ""

    def is_v2(self, plan: Mapping[str, Any]) -> bool:
        return is_v2(self.version, plan)


def is_v2(version: str, plan: Mapping[str, Any]) -> bool:
    """Whether acrn-dm has the arguments of v2.x."""
    major = re.match(r"v?(\d+)", version)
    return major.group(1) == "2" if major else plan.get("dialect") == "v2"


def problems(vms: Sequence[Vm], plan: Mapping[str, Any], mode: str, version: str) -> list[str]:
    """What cannot become a launch script, a sentence each."""
    if mode not in MODES:
        return [f"launch_mode is {', '.join(MODES[:-1])} or {MODES[-1]}, not '{mode}'{meant(mode, MODES)}"]
    try:
        by_uuid = bool(version) and parse_version(version) < VM_NAMES_SINCE
    except IvshmemError as exc:
        return [str(exc)]
    v2 = is_v2(version, plan)
    every = [f"VM '{vm.get('name')}': {text}" for vm in vms for text in _problems(vm, vms, plan, mode, v2)]
    if mode == "template" and by_uuid:
        every += [f"VM '{vm.get('name')}': {_NO_UUID}" for vm in vms if _lacks_uuid(vm, plan, version)]
    # What is wrong with two of them is told once.
    return list(dict.fromkeys(every))


def _planned(plan: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(each["name"]): each for each in plan.get("vms") or []}


def _planned_problems(vm: Vm, plan: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit the scenario."""
    planned = _planned(plan)
    name = str(vm.get("name"))
    own = planned.get(name)
    if planned and own is None:
        by_id = [each for each, known in planned.items() if str(known["id"]) == name]
        near = f"; did you mean {by_id[0]}?" if by_id else meant(name, planned)
        yield f"is not in the scenario; its VMs are {', '.join(planned)}{near}"
    if own is None:
        return
    if own["load_order"] != "post_launched":
        yield f"is {own['load_order']} in the scenario; acrn-dm only starts post-launched VMs: take it out"
    for key in ("id", "uuid"):
        said, known = vm.get(key), own.get(key)
        if said is not None and known is not None and str(said).strip().lower() != str(known).strip().lower():
            yield f"its {key} is {said}, and {known} in the scenario; leave it out, or write that of the scenario"


def _lacks_uuid(vm: Vm, plan: Mapping[str, Any], version: str) -> bool:
    return str(vm.get("name")) in _planned(plan) and not _uuid(vm, plan, version)


def _problems(vm: Vm, vms: Sequence[Vm], plan: Mapping[str, Any], mode: str, v2: bool) -> Iterator[str]:
    yield from _name_problems(vm, vms)
    yield from _planned_problems(vm, plan)
    if mode == "template" and vm.get("memory") is None:
        yield "memory (in MB) is missing"
    elif int(vm.get("memory") or _MEMORY) < _MEMORY:
        yield f"memory must be at least {_MEMORY} MB; acrn-dm refuses less"
    yield from _word_problems(vm)
    yield from _device_problems(vm, v2)
    yield from _slot_problems(vm)
    texts = [*(vm.get("extra_args") or []), vm.get("bootargs"), vm.get("console")]
    texts += [each.get("options") for key in ("disks", "passthrough") for each in vm.get(key) or []]
    for text in texts:
        if _CONTROL.search(str(text or "")):
            yield f"{json.dumps(text)} has a line break or another control character"


def _device_problems(vm: Vm, v2: bool) -> Iterator[str]:
    for tap in (str(nic.get("tap")) for nic in vm.get("nics") or []):
        if not _TAP.fullmatch(tap) or (v2 and "tap" not in tap):
            yield (
                f'tap {json.dumps(tap)} is no name for a tap device: 1 to 15 letters and digits, with "tap" in it up '
                "to ACRN v2.7"
            )
    for device in vm.get("passthrough") or []:
        if not _BDF.fullmatch(str(device.get("bdf"))):
            yield f"passthrough {json.dumps(device.get('bdf'))} is no PCI address such as 00:14.0"


def _name_problems(vm: Vm, vms: Sequence[Vm]) -> Iterator[str]:
    name = str(vm.get("name"))
    if vm.get("name") is None:
        yield "its name is missing; write that of the scenario"
    elif not VM_NAME.fullmatch(name) or name[0] == "-":
        told = f"a name has 1 to {LONGEST_VM_NAME} characters of A-Z, a-z, 0-9, _ and - (not first)"
        yield f"{told}; rename it in the scenario and here"
    if sum(each.get("name") == vm.get("name") for each in vms) > 1:
        yield "is listed twice in launch_vms"


def _word_problems(vm: Vm) -> Iterator[str]:
    """Values that a launch script has as a word, and that are none there."""
    nics = vm.get("nics") or []
    words = {
        "disk": [disk.get("path") for disk in vm.get("disks") or []],
        "tap": [nic.get("tap") for nic in nics],
        "bridge": [nic["bridge"] for nic in nics if "bridge" in nic],
        "mac_seed": [nic["mac_seed"] for nic in nics if "mac_seed" in nic],
        **{key: [vm[key]] for key in ("script", "ovmf", "kernel", "ramdisk", "uuid") if vm.get(key) is not None},
    }
    for key, values in words.items():
        for value in values:
            if not _SAFE.fullmatch(str(value)):
                yield (
                    f"{key} {json.dumps(value)} has a character that is not allowed there (allowed are letters, "
                    "digits, blanks and _ . / @ + = : % -)"
                )


def _slot_problems(vm: Vm) -> Iterator[str]:
    """Slots of disks and the like that acrn-dm would end at; those of shared memory are looked at in the script."""
    holders: dict[int, str] = {}
    for key, what in (("disks", "path"), ("nics", "tap"), ("passthrough", "bdf")):
        for item in vm.get(key) or []:
            if item.get("slot") is None:
                continue
            slot, told = int(item["slot"]), f"{key} {json.dumps(item.get(what))}"
            if slot not in OTHERS_SLOT_ORDER and not (key == "passthrough" and slot in _FOR_PASSTHROUGH):
                yield f"{told} cannot have slot {slot}: write 3 to 30 in decimal, for passthrough of a GPU also 2 or 31"
            elif slot in holders:
                yield f"{told} is at slot {slot}, where {holders[slot]} is; give one of them another slot, or none"
            holders.setdefault(slot, told)


def dm_regions(plan: Mapping[str, Any], found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Name and size of the dm-land regions of a plan and of the devices of all VMs."""
    sizes = {
        region["name"]: region["size"]
        for region in plan.get("regions") or []
        if region["provided_by"] == "device_model"
    }
    for device in found:
        name = str(device["name"])
        if name.startswith("dm:/"):
            sizes[name[len("dm:/") :]] = device.get("size")
        elif not name.startswith("hv:/") and device.get("provided_by") == "device_model":
            sizes[name] = device.get("size")
    return [{"name": name, "size": size} for name, size in sizes.items() if size is not None]


def path(vm: Vm, settings: Settings) -> str:
    """The launch script of a VM."""
    return str(vm["script"]) if settings.mode == "edit" and vm.get("script") else f"{settings.dir}/{vm['name']}.sh"


def files(vms: Sequence[Vm], settings: Settings) -> list[dict[str, Any]]:
    """What has to be on the Service VM besides the scripts, as launch_state takes it."""
    if not vms:
        return []
    needed = settings.units or any(path(vm, settings).startswith(f"{settings.dir}/") for vm in vms)
    wanted: list[dict[str, Any]] = [{"path": settings.dir, "state": "directory", "mode": "0755"}] if needed else []
    if settings.mode == "edit":
        # What is there keeps its mode.
        wanted = [{**each, "mode": None} for each in wanted]
    if not settings.units:
        return wanted
    wanted.append({"path": f"{settings.unit_directory}/acrn-vm@.service", "content": settings.unit, "mode": "0644"})
    for vm in vms:
        unit = f"acrn-vm@{vm['name']}.service"
        enabled = vm["enabled"] if vm.get("enabled") is not None else settings.enabled
        link = f"/etc/systemd/system/multi-user.target.wants/{unit}"
        wanted.append({"path": link, "state": "link" if enabled else "absent"})
        if enabled:
            # Masked, it does not start for all that, and systemd_service has to say so.
            wanted.append({"path": f"/etc/systemd/system/{unit}", "state": "absent"})
        if settings.started:
            # systemd has such a link for every unit that is active.
            wanted.append({"path": f"/run/systemd/units/invocation:{unit}", "state": "link"})
        own = f"{settings.dir}/{vm['name']}.sh"
        if path(vm, settings) != own:
            wanted.append({"path": own, "state": "link", "src": vm["script"]})
    return wanted


def hypervisor(plan: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What is known on the controller about the hypervisor, as launch_state takes it."""
    regions = [region for region in plan.get("regions") or [] if region["provided_by"] == HYPERVISOR]
    return {
        "manifest": settings.hypervisor_manifest or None,
        "has_all": settings.rebooted or not settings.hypervisor_manifest,
        "regions": list(plan.get("start") or []),
        "planned": [{"name": f"hv:/{region['name']}", "size": region["size"]} for region in regions],
    }


def _path_problems(vms: Sequence[Vm], settings: Settings) -> Iterator[str]:
    """Paths of the Service VM that would be seen from wherever a module runs, and a tree that is missing."""
    named = {
        "launch_dir": settings.dir,
        **({"launch_unit_directory": settings.unit_directory} if settings.units else {}),
    }
    if settings.mode == "edit":
        named.update({f"script of VM '{vm['name']}'": vm["script"] for vm in vms if vm.get("script")})
    for name, value in named.items():
        if vms and not str(value).startswith("/"):
            yield f"{name} is '{value}': write a path of the Service VM, which begins with /"
    if vms and settings.mode == "generate" and not settings.source:
        yield "launch_mode: generate has ACRN's launch_cfg_gen.py write the scripts: set acrn_source (or launch_source)"


def wish(
    vms: Sequence[Vm],
    plan: Mapping[str, Any],
    planned: Callable[[str], list[Any]],
    settings: Settings,
    render: Callable[[Mapping[str, Any]], str],
    generated: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All that the role wants of a Service VM. ``planned`` gives the devices of a VM in the plan, ``render`` makes the
    text of a script from values(). ``generated`` are the scripts that ACRN's generator has written, by VM.

    Where something is refused, ``state`` has nothing else.
    """
    refused = [*problems(vms, plan, settings.mode, settings.version), *_path_problems(vms, settings)]
    if refused:
        return {"paths": {}, "devices": {}, "state": {"refused": refused}}
    known = "regions" in plan
    devices = {vm["name"]: _devices_of(vm, planned if known else None) for vm in vms}
    texts = dict(generated or {})
    if settings.mode == "template":
        refused = _rendered(vms, lambda vm: render(values(vm, devices[vm["name"]], plan, settings)), texts)
    paths = {vm["name"]: path(vm, settings) for vm in vms}
    result: dict[str, Any] = {"paths": paths, "devices": devices, "state": {"refused": refused}}
    if refused:
        return result
    result["state"].update(
        hypervisor=hypervisor(plan, settings),
        others=_others(plan, planned, devices) if known else [],
        acrn_version=settings.version or None,
    )
    if vms:
        result["state"].update(_launched(vms, plan, settings, result, texts))
    uuids = _uuids([*(plan.get("vms") or []), *vms], settings)
    for each in (each for key in ("others", "scripts", "vms") for each in result["state"].get(key, ())):
        name = each.get("vm") or each["name"]
        each.update({"uuid": uuids[name]} if name in uuids else {})
    return result


def _others(
    plan: Mapping[str, Any], planned: Callable[[str], list[Any]], launched: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The post-launched VMs of the plan that the role does not launch."""
    names = [vm["name"] for vm in plan.get("vms") or [] if vm["load_order"] == "post_launched"]
    return [{"name": name, "devices": planned(name)} for name in names if name not in launched]


def _devices_of(vm: Vm, planned: Callable[[str], list[Any]] | None) -> list[Any]:
    """The devices that a VM is given, else those of the plan, where it is known."""
    if vm.get("devices") is not None:
        return list(vm["devices"])
    return planned(vm["name"]) if planned else []


def _rendered(vms: Sequence[Vm], render: Callable[[Vm], str], texts: dict[str, str]) -> list[str]:
    """Add the script of each VM, by its name. Why some cannot be made."""
    refused = []
    for vm in vms:
        try:
            texts[vm["name"]] = render(vm)
        except IvshmemError as exc:
            refused.append(f"VM '{vm['name']}': {exc}")
    return refused


def _uuids(vms: Iterable[Vm], settings: Settings) -> dict[str, str]:
    """What acrn-dm's -U has for each VM, where that release of ACRN knows it by that."""
    version = given_version(settings.version)
    found = {str(vm["name"]): uuid_of(vm, version) for vm in vms if vm.get("uuid") is not None}
    return {name: uuid for name, uuid in found.items() if uuid}


def _launched(
    vms: Sequence[Vm],
    plan: Mapping[str, Any],
    settings: Settings,
    result: Mapping[str, Any],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """What launch_state makes and looks at for VMs that are launched. ``texts`` are scripts, by VM."""
    devices = result["devices"]
    scripts = [
        {
            "path": result["paths"][name],
            "content": texts.get(name),
            "devices": own,
            "scenario_path": settings.scenario_path or None,
            "vm": name,
            "acrn_version": settings.version or None,
            "exclusive": settings.exclusive,
            "mode": None if settings.mode == "edit" else "0755",
        }
        for name, own in devices.items()
    ]
    return {
        # What the generator will write is not known before it has run.
        "scripts": scripts if settings.mode != "generate" or texts else [],
        "files": files(vms, settings),
        "backup": settings.backup,
        "acrn_dm": settings.acrn_dm or None,
        "regions": dm_regions(plan, [each for own in devices.values() for each in own]),
        "absent": list(settings.absent),
        "vms": [{"name": name, "devices": own} for name, own in devices.items()],
        "started": list(devices) if settings.started and settings.can_start else [],
        "starter": "units" if settings.units else "commands" if settings.can_start else "nobody",
        "hsm": list(settings.hsm),
    }


# -- the script --------------------------------------------------------------------------------------------------------


class _Slots:
    """Hands out slots to what has none of its own."""

    def __init__(self, vm: Vm, found: Iterable[Mapping[str, Any]]) -> None:
        used: set[int] = set()
        for device in found:
            # Without one it has none of its own either, or launch_script refuses it.
            place, _wrong = read_place(device.get("vbdf"), device.get("slot"))
            used.update([place.slot] if place else [])
        for key in ("disks", "nics", "passthrough"):
            used.update(int(item["slot"]) for item in vm.get(key) or [] if item.get("slot") is not None)
        self._free: list[int] = [slot for slot in OTHERS_SLOT_ORDER if slot not in used]

    def of(self, item: Mapping[str, Any]) -> int:
        if item.get("slot") is not None:
            return int(item["slot"])
        if not self._free:
            raise IvshmemError(
                f"has more devices than the {len(OTHERS_SLOT_ORDER)} PCI slots from 3 to 30 hold; remove some"
            )
        return self._free.pop(0)


def _ivshmem(found: Iterable[Mapping[str, Any]], version: tuple[int, int] | None) -> list[str]:
    """The values of -s for devices whose slot is known. launch_script finds one for others, and refuses bad ones."""
    made = []
    for device in found:
        try:
            each = make_device(device, version)
        except IvshmemError:
            continue
        if each.slot is not None:
            made.append(argument_of(each, Bdf(0, each.slot, 0)))
    return made


def _uuid(vm: Vm, plan: Mapping[str, Any], version: str) -> str | None:
    """What -U gets. From VM_NAMES_SINCE on acrn-dm has no such option; where the version is not known, a user may."""
    own = vm.get("uuid")
    if not version:
        return None if own is None else str(own)
    planned = _planned(plan).get(str(vm["name"]), {})
    return uuid_of({"uuid": own or planned.get("uuid")}, parse_version(version))


def values(vm: Vm, found: Sequence[Mapping[str, Any]], plan: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What the template of a launch script gets. ``vm`` has no problems; what it leaves open is chosen here.

    Raises IvshmemError where there are more devices than slots.
    """
    v2, slots, realtime = settings.is_v2(plan), _Slots(vm, found), bool(vm.get("rtvm"))
    console = None if vm.get("console") is None else str(vm["console"])
    if console and not console.startswith("com"):
        console = f"{slots.of({})},virtio-console,{console}"
    return {
        "name": vm["name"],
        "host": settings.host,
        "acrn_dm": settings.acrn_dm,
        "v2": v2,
        "memory": int(vm["memory"]),
        "uuid": _uuid(vm, plan, settings.version),
        "cpu_affinity": ",".join(map(str, vm.get("cpu_affinity") or [])),
        "ivshmem": _ivshmem(found, given_version(settings.version)),
        "lpc": bool(vm["lpc"]) if vm.get("lpc") is not None else not realtime,
        "console": console,
        "disks": [
            {"slot": slots.of(disk), "path": disk["path"], "options": disk.get("options")}
            for disk in vm.get("disks") or []
        ],
        "nics": [
            {
                "slot": slots.of(nic),
                "tap": nic["tap"],
                "bridge": nic["bridge"] if nic.get("bridge") is not None else settings.bridge,
                "mac_seed": nic["mac_seed"] if nic.get("mac_seed") is not None else f"{settings.host}-{vm['name']}",
                "vhost": bool(nic.get("vhost")),
            }
            for nic in vm.get("nics") or []
        ],
        "passthrough": [
            {"slot": slots.of(device), "bdf": f"0000:{device['bdf'].lower()}", "options": device.get("options")}
            for device in vm.get("passthrough") or []
        ],
        **{key: vm.get(key) for key in ("kernel", "ramdisk", "bootargs", "ovmf")},
        "windows": bool(vm.get("windows")),
        "rtvm": realtime,
        "extra_args": list(vm.get("extra_args") or []),
        "vm": vm,
    }
