# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What launch_state compares on a Service VM: whether all that launches VMs is as its plan has it.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import digest_or_none, read_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    ivshmem_options,
    known_as,
    lacking,
    make_devices,
    manifest_regions,
    sizes_of,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._clear import clear_memory
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._dm_memory import Processes, RunningVm
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._place import is_made, refusal, unlike
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._running import (
    installed,
    manifest_path,
    read_manifest,
    running_key,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._script import devices_before, set_script, uuid_in
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import script_vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Heavy, Light, Module
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, PREFIXES, Device, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import given_version

# Where systemd runs (sd_booted).
SYSTEMD = "/run/systemd/system"


def compare(module: Module) -> dict[str, Any]:
    """Whether a Service VM is as its plan has it; nothing is changed. Raises IvshmemError, as the modules would."""
    params = module.params["wish"]
    if params["refused"]:
        raise IvshmemError("\n".join(params["refused"]))
    own = {
        "on_held": "warn",
        "remove": True,
        **{name: params[name] for name in ("regions", "absent", "vms", "directory")},
    }
    warnings: list[str] = []
    # First the scripts: what they refuse, they tell with their file and line.
    told: list[dict[str, Any]] = []
    differences = list(_file_differences(params, warnings, told))
    # What the last device is taken from goes as well.
    kept = {region["name"] for region in params["regions"]}
    gone = {each["region"][4:] for each in told if each["change"] == "remove" and each["region"].startswith("dm:/")}
    own["absent"] = [*params["absent"], *sorted(gone - kept - set(params["absent"]))]
    processes = Processes()
    memory = clear_memory(Light({**own, "acrn_version": params["acrn_version"]}, check_mode=True), processes)
    version = given_version(params["acrn_version"])
    running = processes.vms([*params["vms"], *params["others"]], version)
    hypervisor = _hypervisor(params, running)
    told += [
        {
            "change": "drop",
            "region": f"dm:/{each['name']}",
            "vm": None,
            "old": each["size"],
            "new": each["wanted"],
            "path": each["path"],
        }
        for each in memory["memory"]
        if each["stale"]
    ]
    differences += _vm_differences(params, memory)
    if hypervisor["lacking"]:
        has = "has not" if hypervisor["known"] else "is not known to have"
        names = ", ".join(hypervisor["lacking"])
        module.warn(f"launch scripts and VMs stay as they are: the hypervisor that runs {has} {names}")
    # What differs is looked at again by the modules that change it, and they warn themselves.
    for text in [] if differences else warnings:
        module.warn(text)
    return {
        "changed": False,
        "same": not differences,
        "differences": differences,
        "changes": told,
        "vms": memory["vms"],
        "launched": [vm["name"] for vm in params["vms"]],
        "others": _others(params["others"], version, running),
        "hypervisor": hypervisor,
        "waits": bool(hypervisor["lacking"]),
        "start": _start(params),
        # For plans: a pass that is no check reads no file twice.
        "files": {each["path"]: digest_or_none(each["path"]) for each in [*params["scripts"], *params["files"]]}
        if module.check_mode
        else {},
    }


def _file_differences(params: Mapping[str, Any], warnings: list[str], told: list[dict[str, Any]]) -> Iterator[str]:
    for wish in params["files"]:
        problem = unlike(wish)
        if problem:
            yield f"{wish['path']}: {problem}"
    refused = in_the_way(params)
    for script in params["scripts"]:
        if script["content"] is None and not os.path.isfile(script["path"]):
            what = "is no file" if os.path.lexists(script["path"]) else "is not there"
            refused.append(
                f"launch_vms: the script of VM '{script['vm']}', {script['path']}, {what}; write its path as script, "
                "or have it written (launch_mode: template)"
            )
            continue
        module = Light({"src": None, "state": "exact", "backup": False, **script}, check_mode=True)
        try:
            result = set_script(module)
            told += result["changes"]
            if result["changed"]:
                yield f"{script['path']}: {'has other content' if os.path.exists(script['path']) else 'is missing'}"
        except Heavy:
            yield f"{script['path']}: has another mode"
        except IvshmemError as exc:
            refused.append(str(exc))
        warnings += module.warnings
    if refused:
        raise IvshmemError("\n".join(refused))


def in_the_way(params: Mapping[str, Any]) -> list[str]:
    """What of the files and scripts of a wish cannot be made, whatever it differs in."""
    return [*filter(None, map(refusal, filter(is_made, params["files"]))), *_shared_calls(params["scripts"])]


def _shared_calls(scripts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """VMs that would get their devices in one call of acrn-dm, which has no name."""
    paths = [os.path.realpath(script["path"]) for script in scripts]
    for path in {path for path in paths if paths.count(path) > 1 and os.path.isfile(path)}:
        own = [script for script, real in zip(scripts, paths) if real == path]
        known = [{"name": script["vm"], "uuid": uuid_in(script)} for script in own]
        named = {known_as(call.name, call.uuid, known, None) for call in script_vms(read_file(path), path)}
        vms = [script["vm"] for script in own if script["vm"] not in named]
        if vms:
            told = ", ".join(map(str, vms))
            yield f"{path}: does not start {told} by name; give each VM a call of acrn-dm of its own"


def _vm_differences(params: Mapping[str, Any], memory: Mapping[str, Any]) -> Iterator[str]:
    for each in memory["memory"]:
        if each["stale"]:
            yield f"{each['path']}: is stale"
    running = {vm["name"]: vm["fits"] for vm in memory["vms"]}
    for name, fits in running.items():
        if fits is False:
            yield f"VM {name}: runs with other devices"
    for name in params["started"]:
        if name not in running:
            yield f"VM {name}: does not run"


def _hypervisor(params: Mapping[str, Any], running: Sequence[RunningVm]) -> dict[str, Any]:
    """Which hypervisor runs, and which of the wanted hv-land regions it is not known to have. Raises IvshmemError.

    Where it has no manifest, a region counts that a VM runs with, and one that the scenario has had from the start.
    """
    wish = params["hypervisor"] or {"has_all": True, "manifest": None, "regions": [], "planned": []}
    folder = wish["manifest"] or ""
    found: dict[str, Any] = {
        "running_key": running_key(),
        "installed": installed(folder, "manifest.json"),
        "told": wish["has_all"],
        "known": True,
        **{"missing": [], "lacking": [], "unsure": []},
    }
    if wish["has_all"]:
        return found
    path = manifest_path(folder)
    found["known"] = os.path.exists(path)
    has = manifest_regions(read_manifest(path), path) if found["known"] else _seen(wish["regions"], running)
    version = given_version(params["acrn_version"])

    def lacked(devices: Sequence[Mapping[str, Any]]) -> list[Device]:
        return [device for device in make_devices(devices, version) if lacking([device], has)]

    found["missing"] = sorted({device.prefixed for device in lacked(wish["planned"])})
    unsure = {vm["name"]: devices for vm in params["vms"] for devices in [lacked(vm["devices"])] if devices}
    # A script that has the device already is none the worse for being written again.
    scripts = [] if found["known"] else [script for script in params["scripts"] if script["vm"] in unsure]
    written = {script["vm"]: _scripted(script) for script in scripts}
    found["unsure"] = list(unsure)
    found["lacking"] = sorted(
        {
            device.prefixed
            for vm, devices in unsure.items()
            for device in devices
            if (device.prefixed, device.size) not in written.get(vm, ())
        }
    )
    return found


def _seen(regions: Sequence[Mapping[str, Any]], running: Sequence[RunningVm]) -> dict[str, int | None]:
    """The hv-land regions that the hypervisor has, by what the scenario had at first and what VMs run with."""
    has = sizes_of(regions)
    for vm in running:
        has.update((name[4:], size) for name, size in map(_sized, vm.devices) if name[:4] == PREFIXES[HYPERVISOR])
    return has


def _sized(device: tuple[int, str]) -> tuple[str, Any]:
    name, size, _region_id = ivshmem_options(device[1])
    return name or "", size


def _scripted(script: Mapping[str, Any]) -> set[tuple[str | None, int | None]]:
    """Name and size of each device that a script has."""
    if not os.path.isfile(script["path"]):
        return set()
    devices = devices_before(read_file(script["path"]), script["vm"], uuid_in(script))
    return {(device.name, device.size) for device in devices}


def _others(
    wish: Sequence[Mapping[str, Any]], version: tuple[int, int] | None, running: Sequence[RunningVm]
) -> list[dict[str, Any]]:
    """Whether VMs that others start run, and with the devices of the plan."""
    known = {vm.vm: vm for vm in running}
    found = []
    for vm in wish:
        own = known.get(vm["name"])
        fits = own.fits(make_devices(vm["devices"], version), version) if own else None
        found.append({"name": vm["name"], "fits": fits})
    return found


def _start(params: Mapping[str, Any]) -> str:
    """Who can start VMs here: units, commands, nobody, or why units cannot: no_systemd, no_acrn."""
    if params["starter"] != "units":
        return str(params["starter"])
    if not os.path.isdir(SYSTEMD):
        return "no_systemd"
    return "no_acrn" if params["hsm"] and not any(map(os.path.exists, params["hsm"])) else "units"
