# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role launch on the controller: from the VMs that a user describes to scripts, files and devices.

This module util is PRIVATE to the collection: it can change at any time.

It is Python, and no template, because it is worked out for every host at every pass.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, Bdf, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._words import meant

Vm = Mapping[str, Any]
MODES = ("template", "generate", "edit")

# A shell, or acrn-dm's own commas, would make something else of other characters.
_SAFE = re.compile(r"(?!-)[A-Za-z0-9_./@+=:% -]+")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,14}")
_TAP = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_BDF = re.compile(r"[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]")
_CONTROL = re.compile(r"[\x00-\x1f]")
# acrn-dm takes no less (devicemodel/core/main.c).
_MEMORY = 128
# Slots 8 to 15 come last: shared memory without a place of its own goes there.
_FREE = (*range(3, 8), *range(16, 31), *range(8, 16))
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
    v2 = is_v2(version, plan)
    every = [f"VM '{vm.get('name')}': {text}" for vm in vms for text in _problems(vm, vms, plan, mode, v2)]
    # What is wrong with two of them is told once.
    return list(dict.fromkeys(every))


def _planned_problems(vm: Vm, plan: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit the scenario."""
    planned = {str(each["name"]): each for each in plan.get("vms") or []}
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


def _problems(vm: Vm, vms: Sequence[Vm], plan: Mapping[str, Any], mode: str, v2: bool) -> Iterator[str]:
    name = str(vm.get("name"))
    if not _NAME.fullmatch(name):
        yield "a name has 1 to 15 characters of A-Z, a-z, 0-9, _ and - (not first); rename it in the scenario and here"
    if sum(each.get("name") == vm.get("name") for each in vms) > 1:
        yield "is listed twice in launch_vms"
    yield from _planned_problems(vm, plan)
    if mode == "template" and vm.get("memory") is None:
        yield "memory (in MB) is missing"
    elif int(vm.get("memory") or _MEMORY) < _MEMORY:
        yield f"memory must be at least {_MEMORY} MB; acrn-dm refuses less"
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
    for nic in nics:
        tap = str(nic.get("tap"))
        if not _TAP.fullmatch(tap) or (v2 and "tap" not in tap):
            yield (
                f'tap {json.dumps(tap)} is no name for a tap device: 1 to 15 letters and digits, with "tap" in it up '
                "to ACRN v2.7"
            )
    for device in vm.get("passthrough") or []:
        if not _BDF.fullmatch(str(device.get("bdf"))):
            yield f"passthrough {json.dumps(device.get('bdf'))} is no PCI address such as 00:14.0"
    yield from _slot_problems(vm)
    texts = [*(vm.get("extra_args") or []), vm.get("bootargs"), vm.get("console")]
    texts += [each.get("options") for key in ("disks", "passthrough") for each in vm.get(key) or []]
    for text in texts:
        if _CONTROL.search(str(text or "")):
            yield f"{json.dumps(text)} has a line break or another control character"


def _slot_problems(vm: Vm) -> Iterator[str]:
    """Slots of disks and the like that acrn-dm would end at; those of shared memory are looked at in the script."""
    holders: dict[int, str] = {}
    for key, what in (("disks", "path"), ("nics", "tap"), ("passthrough", "bdf")):
        for item in vm.get(key) or []:
            if item.get("slot") is None:
                continue
            slot, told = int(item["slot"]), f"{key} {json.dumps(item.get(what))}"
            if slot not in _FREE and not (key == "passthrough" and slot in _FOR_PASSTHROUGH):
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


def wish(
    vms: Sequence[Vm], plan: Mapping[str, Any], planned: Callable[[str], list[Any]], settings: Settings
) -> dict[str, Any]:
    """All that the role wants of a Service VM. ``planned`` gives the devices of a VM in the plan.

    Where something is refused, ``state`` has nothing else.
    """
    found = problems(vms, plan, settings.mode, settings.version)
    result: dict[str, Any] = {"paths": {}, "devices": {}, "texts": {}, "state": {"refused": found}}
    if found:
        return result
    scripts = []
    for vm in vms:
        name = vm["name"]
        own = list(vm["devices"]) if vm.get("devices") is not None else planned(name) if "regions" in plan else []
        result["paths"][name] = path(vm, settings)
        result["devices"][name] = own
        if settings.mode == "template":
            try:
                result["texts"][name] = script(vm, own, plan, settings)
            except IvshmemError as exc:
                found.append(f"VM '{name}': {exc}")
        scripts.append(
            {
                "path": result["paths"][name],
                "content": result["texts"].get(name),
                "devices": own,
                "scenario_path": settings.scenario_path or None,
                "vm": name,
                "acrn_version": settings.version or None,
                "exclusive": settings.exclusive,
                "mode": None if settings.mode == "edit" else "0755",
            }
        )
    if not found:
        result["state"].update(
            hypervisor=hypervisor(plan, settings),
            others=[
                {"name": vm["name"], "devices": planned(vm["name"])}
                for vm in (plan.get("vms") or [] if "regions" in plan else [])
                if vm["load_order"] == "post_launched" and vm["name"] not in result["devices"]
            ],
            acrn_version=settings.version or None,
        )
    if vms and not found:
        result["state"].update(
            # What the generator will write is not known before it has run.
            scripts=scripts if settings.mode != "generate" else [],
            files=files(vms, settings),
            regions=dm_regions(plan, [each for own in result["devices"].values() for each in own]),
            absent=list(settings.absent),
            vms=[{"name": name, "devices": own} for name, own in result["devices"].items()],
            started=list(result["devices"]) if settings.started and settings.can_start else [],
            starter="units" if settings.units else "commands" if settings.can_start else "nobody",
            hsm=list(settings.hsm),
        )
    return result


# -- the script --------------------------------------------------------------------------------------------------------

_HAND_OVER = """
# Hands a PCI device over to pci-stub, so that acrn-dm can pass it through.
hand_over() {
    local device=/sys/bus/pci/devices/$1
    echo pci-stub > "$device/driver_override"
    if [ -e "$device/driver" ] && [ "$(basename "$(readlink -f "$device/driver")")" != pci-stub ]; then
        echo "$1" > "$device/driver/unbind"
    fi
    echo "$1" > /sys/bus/pci/drivers_probe
}
modprobe pci_stub
"""
_ADD_TAP = """
# Makes a tap device and puts it into a bridge, if that bridge is there.
add_tap() {
    if ! ip link show dev "$1" > /dev/null 2>&1; then
        ip tuntap add dev "$1" mode tap || return
    fi
    if [ -n "$2" ] && ip link show dev "$2" > /dev/null 2>&1; then
        ip link set dev "$1" master "$2"
    fi
    ip link set dev "$1" up
}
"""


def _word(value: Any) -> str:
    """A word of a Bash array, always in quotes: what an unquoted comma means there is not plain to every reader."""
    text = str(value)
    quoted = shlex.quote(text)
    return f"'{text}'" if quoted == text else quoted


class _Slots:
    """Hands out slots to what has none of its own."""

    def __init__(self, vm: Vm, found: Iterable[Mapping[str, Any]]) -> None:
        used: set[int] = set()
        for device in found:
            try:
                used.add(Bdf.parse(str(device["vbdf"])).slot if device.get("vbdf") else int(device["slot"]))
            except (IvshmemError, KeyError, TypeError, ValueError):
                continue  # it has none of its own either, or launch_script refuses it
        for key in ("disks", "nics", "passthrough"):
            used.update(int(item["slot"]) for item in vm.get(key) or [] if item.get("slot") is not None)
        self._free: list[int] = [slot for slot in _FREE if slot not in used]

    def of(self, item: Mapping[str, Any]) -> int:
        if item.get("slot") is not None:
            return int(item["slot"])
        if not self._free:
            raise IvshmemError(f"has more devices than the {len(_FREE)} PCI slots from 3 to 30 hold; remove some")
        return self._free.pop(0)


def script(vm: Vm, found: Sequence[Mapping[str, Any]], plan: Mapping[str, Any], settings: Settings) -> str:
    """A launch script without its ivshmem devices, for which it leaves room. ``vm`` has no problems."""
    nics, passthrough = vm.get("nics") or [], vm.get("passthrough") or []
    text = [
        "#!/usr/bin/env bash\n"
        f"# Starts the ACRN User VM {vm['name']}. Written by the Ansible role acrn.ivshmem.launch: changes get lost.\n"
    ]
    if passthrough:
        text.append(_HAND_OVER)
        text += [f"hand_over {shlex.quote('0000:' + device['bdf'].lower())}\n" for device in passthrough]
    if nics:
        text.append(_ADD_TAP)
        for nic in nics:
            bridge = nic["bridge"] if nic.get("bridge") is not None else settings.bridge
            text.append(f"add_tap {shlex.quote(nic['tap'])} {shlex.quote(bridge)}\n")
    text.append("\ndm_params=(\n")
    text += [f"    {argument}\n" for argument in _arguments(vm, _Slots(vm, found), settings, settings.is_v2(plan))]
    text.append(f'    {_word(vm["name"])}\n)\n\nexec {shlex.quote(settings.acrn_dm)} "${{dm_params[@]}}"\n')
    return "".join(text)


def _arguments(vm: Vm, slots: _Slots, settings: Settings, v2: bool) -> Iterator[str]:
    if v2:
        yield "-A"
    yield f"-m {int(vm['memory'])}M"
    if vm.get("uuid") is not None:
        yield f"-U {_word(vm['uuid'])}"
    if vm.get("cpu_affinity"):
        yield f"--cpu_affinity {_word(','.join(map(str, vm['cpu_affinity'])))}"
    yield "-s '0:0,hostbridge'"
    realtime = bool(vm.get("rtvm"))
    if vm["lpc"] if vm.get("lpc") is not None else not realtime:
        yield "-s '1:0,lpc'"
    if vm.get("console") is not None:
        console = str(vm["console"])
        if console.startswith("com"):
            yield f"-l {_word(console)}"
        else:
            yield f"-s {_word(f'{slots.of({})},virtio-console,{console}')}"
    for disk in vm.get("disks") or []:
        options = f",{disk['options']}" if disk.get("options") is not None else ""
        yield f"-s {_word(f'{slots.of(disk)},virtio-blk,' + disk['path'] + options)}"
    for number, nic in enumerate(vm.get("nics") or []):
        seed = nic["mac_seed"] if nic.get("mac_seed") is not None else f"{settings.host}-{vm['name']}"
        vhost = ",vhost" if nic.get("vhost") else ""
        if v2:
            yield f"-s {_word(f'{slots.of(nic)},virtio-net,' + nic['tap'] + vhost)}"
            if number == 0:
                yield f"--mac_seed {_word(seed)}"
        else:
            # acrn-dm only finds mac_seed directly behind the tap's name (hw/pci/virtio/virtio_net.c).
            yield f"-s {_word(f'{slots.of(nic)},virtio-net,tap=' + nic['tap'] + f',mac_seed={seed}{vhost}')}"
    for device in vm.get("passthrough") or []:
        options = f",{device['options']}" if device.get("options") is not None else ""
        bdf = re.sub("[:.]", "/", device["bdf"].lower())
        yield f"-s {_word(f'{slots.of(device)},passthru,{bdf}{options}')}"
    for key, option in (("kernel", "-k"), ("ramdisk", "-r"), ("bootargs", "-B"), ("ovmf", "--ovmf")):
        if vm.get(key) is not None:
            yield f"{option} {_word(vm[key])}"
    if vm.get("windows"):
        yield "--windows"
    if realtime:
        yield "--rtvm"
        yield "--lapic_pt"
        yield "--virtio_poll 1000000"
    for argument in vm.get("extra_args") or []:
        yield _word(argument)
