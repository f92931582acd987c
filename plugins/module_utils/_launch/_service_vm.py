# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What launch_script, dm_memory and launch_state do on a Service VM, each with the AnsibleModule that it is given.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping, Sequence, Union

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import (
    digest_or_none,
    locked,
    original_of,
    read_file,
    replace_file,
    unified,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    check_manifest,
    ivshmem_options,
    known_as,
    lacking,
    make_devices,
    manifest_regions,
    sizes_of,
    uuid_of,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._dm_memory import (
    Memory,
    Processes,
    RunningVm,
    explain,
    lacks_room,
    look,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._edit import Edited, launch
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._place import is_made, make, refusal, unlike
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._takeover import (
    OWN,
    changes,
    read_script,
    read_unit,
    refuse_to_take,
    running_vm,
    unit_commands,
    unit_scripts,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import (
    binaries_of,
    script_devices,
    script_vms,
    slots_of,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Heavy, Light
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, PREFIXES, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import parse_version

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

Module = Union["AnsibleModule", Light]

CMDLINE = "/proc/cmdline"
# Where systemd runs (sd_booted).
SYSTEMD = "/run/systemd/system"
# Devices of a kernel under ACRN, from v2.5 on and before.
HSM = ("/dev/acrn_hsm", "/dev/acrn_vhm")
# What hypervisor_install's boot entries have on their command line (_boot.py): KEY.REVISION.
_ENTRY = re.compile(r"(?:^|\s)acrn_ivshmem\.entry=([0-9a-z_-]+)\.[0-9a-f]{8}(?=\s|$)")


def running_key() -> str | None:
    """The key of the build that runs; None for a hypervisor that this collection has not installed."""
    try:
        with open(CMDLINE, encoding="utf-8", errors="replace") as handle:
            keys = _ENTRY.findall(handle.read())
    except OSError:
        return None
    return keys[-1] if keys else None


def manifest_path(path: str) -> str:
    """The manifest that is meant: the file itself, or in hypervisor_install's directory that of what runs."""
    return os.path.join(path, running_key() or "", "manifest.json") if os.path.isdir(path) else path


def _manifest(path: str) -> Any:
    try:
        return json.loads(read_file(path).decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise IvshmemError(f"{path}: is no JSON: {exc}") from None


def hold_against_hypervisor(module: Module, devices: Sequence[Any], path: str | None, where: str) -> None:
    """Refuse (or warn of) devices of hv-land regions that the hypervisor does not have. ``where`` is the script."""
    devices = [device for device in devices if device.provided_by == HYPERVISOR]
    if not devices or not path:
        return
    path = manifest_path(path)
    if not os.path.exists(path):
        module.warn(
            f"{where}: {path}: there is no such manifest, so it cannot be seen whether the hypervisor has the hv-land "
            "regions; acrn-dm ends with 'Invalid argument' if it has not"
        )
        return
    manifest = _manifest(path)
    try:
        check_manifest(devices, manifest, path)
    except IvshmemError as exc:
        told = f"{where}: {exc}"
        if not module.check_mode:
            raise IvshmemError(told) from None
        module.warn(told)


def set_script(module: Module) -> dict[str, Any]:
    """Give a launch script its devices; the caller holds the lock. Raises IvshmemError."""
    params = module.params
    path = params["path"]
    fresh = params["src"] is not None or params["content"] is not None
    before = read_file(path) if os.path.exists(path) or not fresh else None
    edited, where = _edited(params, before, fresh)
    hold_against_hypervisor(
        module,
        [placed.device for placed in edited.devices],
        params["hypervisor_manifest"],
        f"{where}: line {edited.line}",
    )
    changed = edited.data != before
    ours = os.path.lexists(original_of(path)) or OWN in (edited.data if before is None else before)
    if changed and not ours and before is not None and params["state"] == "exact" and not params["exclusive"]:
        wanted = (placed.device.prefixed for placed in edited.devices)
        refuse_to_take(before, path, edited.vm or params["vm"], wanted, _uuid(params))
    changed, kept = _write_script(module, edited.data, before, ours)
    for warning in edited.warnings:
        module.warn(warning)
    result: dict[str, Any] = {
        "changed": changed,
        "vm": edited.vm,
        "style": edited.style,
        "devices": [device.to_mapping() for device in edited.devices],
        "removed": list(edited.removed),
        "actions": list(edited.actions),
        "changes": [],
        **kept,
    }
    if changed and params["state"] == "exact":
        result["changes"] = changes(_devices_before(before, edited.vm, _uuid(params)), edited.devices, edited.vm)
    if params.get("acrn_dm"):
        result["start_problems"] = start_problems(module, edited.data, path, params["acrn_dm"])
    if module._diff:
        old, new = (data.decode("utf-8", "replace") for data in (before or b"", edited.data))
        result["diff"] = unified(old, new, path)
    return result


def _uuid(params: Mapping[str, Any]) -> str | None:
    """What -U has for the VM of a script, where that counts."""
    version = params["acrn_version"]
    return uuid_of({"uuid": params.get("uuid")}, parse_version(version) if version else None)


def _edited(params: Mapping[str, Any], before: bytes | None, fresh: bool) -> tuple[Edited, str]:
    """The script as it shall be, and the file that its text is from."""
    start, where = before, params["path"]
    if params["src"] is not None:
        start, where = read_file(params["src"]), params["src"]
    elif params["content"] is not None:
        start = params["content"].encode("utf-8", "surrogateescape")
    scenario_path, version = params["scenario_path"], params["acrn_version"]
    edited = launch(
        start or b"",
        where,
        params["devices"],
        scenario=read_scenario(read_file(scenario_path), scenario_path) if scenario_path else None,
        vm=params["vm"],
        uuid=params.get("uuid"),
        state=params["state"],
        version=parse_version(version) if version else None,
        hints=slots_of(before) if fresh and before is not None else None,
        # What comes from a generator just now, and not what stands on the host.
        makes_room=fresh,
    )
    return edited, where


def _write_script(module: Module, data: bytes, before: bytes | None, ours: bool) -> tuple[bool, dict[str, str]]:
    """Write what differs, mode and owner too. Whether anything did, and the copies that were made."""
    params, path = module.params, module.params["path"]
    attributes = module.load_file_common_arguments(params, path=os.path.realpath(path))
    if before is None and attributes["mode"] is None:
        attributes["mode"] = "0755"
    changed = data != before
    kept: dict[str, str | None] = {}
    if changed and not module.check_mode:
        original = None if ours else before or b""
        kept["backup_file"] = replace_file(module, path, data, params["backup"], attributes, original)
        kept["original"] = None if ours else original_of(path)
    if os.path.exists(path):
        try:
            changed = module.set_fs_attributes_if_different(attributes, changed)
        except (OSError, OverflowError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc
            raise IvshmemError(f"{path}: its owner or mode cannot be changed: {why}") from exc
    return changed, {name: copy for name, copy in kept.items() if copy}


def start_problems(module: AnsibleModule, data: bytes, where: str, acrn_dm: str) -> list[str]:
    """Why a VM could not be started by a script, as far as that can be known without starting it."""
    found = []
    first = data.split(b"\n", 1)[0].decode("utf-8", "replace")
    words = first[2:].split() if first.startswith("#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [shutil.which(words[1]) or words[1]] if len(words) > 1 else []
    if words and not os.access(words[0], os.X_OK):
        found.append(f"{where}: line 1: there is no {words[0]}")
    elif words and os.path.basename(words[0]) in ("sh", "bash", "dash", "ash", "ksh"):
        code, _output, errors = module.run_command([words[0], "-n"], data=data, binary_data=True)
        if code != 0:
            found.append(
                f"{where}: {words[0]} does not read it: {(errors.strip() or 'no reason given').splitlines()[0]}"
            )
    for binary in binaries_of(data):
        # Where the script has a PATH of its own, that is its business.
        looked_for = "/" not in binary and (b"PATH=" in data or shutil.which(binary))
        path = binary if "/" in binary else acrn_dm
        if path.startswith("/") and not looked_for and not os.access(path, os.X_OK):
            found.append(f"{where}: there is no {path} that could be run")
    return found


def look_around(module: Module) -> dict[str, Any]:
    """What a Service VM has: scripts with their VMs, VMs that run, the scenario of the installed build, and memory."""
    params = module.params
    problems: list[str] = []
    scripts = []
    started, units = _units(params["units"], problems)
    for path in _script_paths([*params["paths"], *started], params["directories"], problems):
        try:
            data = read_file(path)
        except IvshmemError as exc:
            problems.append(str(exc))
            continue
        found = read_script(data, path)
        if path in params["paths"] or found["vms"] or b"acrn-dm" in data:
            problems += found["problems"]
            scripts.append({"path": path, **found})
    processes = Processes()
    installed = _installed(params["hypervisor"], problems)
    names = {
        device["name"][4:]
        for vm in [*(vm for each in [*scripts, *units] for vm in each["vms"]), *map(running_vm, processes.vms())]
        for device in vm["devices"]
        if (device["name"] or "").startswith("dm:/")
    }
    with open(CMDLINE, encoding="utf-8", errors="replace") as handle:
        cmdline = handle.read().strip()
    return {
        "changed": False,
        "scripts": scripts,
        "units": units,
        "running": [running_vm(vm) for vm in processes.vms()],
        "installed": installed,
        "memory": [
            {"name": name, "path": path, "size": os.stat(path).st_size}
            for name, path in ((name, os.path.join(params["memory"], name)) for name in sorted(names))
            if os.path.isfile(path)
        ],
        "cmdline": cmdline,
        "acrn": any(map(os.path.exists, HSM)),
        "unit": os.path.lexists(params["unit"]),
        "problems": problems,
    }


def _units(folders: Sequence[str], problems: list[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The scripts that services start, where they name acrn-dm, and the services that start it themselves."""
    scripts: list[str] = []
    units = []
    for path, parts in _services(folders).items():
        texts: dict[str, str] = {}
        for part in parts:
            try:
                texts[part] = read_file(part, missing=b"").decode("utf-8", "surrogateescape")
            except IvshmemError as exc:
                problems.append(str(exc))
        for _part, _line, command in unit_commands(texts):
            scripts += [
                found for pattern in unit_scripts(command) for found in sorted(glob.glob(pattern)) if _starts(found)
            ]
        own = read_unit(texts)
        problems += own["problems"]
        if own["vms"] or own["problems"]:
            units.append({"path": path, **own})
    return scripts, units


def _services(folders: Sequence[str]) -> dict[str, list[str]]:
    """Each service with the files that it consists of: its own, and what an administrator adds to it."""
    added: dict[str, list[str]] = {}
    for path in (path for folder in folders for path in glob.glob(f"{glob.escape(folder)}/*.service.d/*.conf")):
        added.setdefault(os.path.basename(os.path.dirname(path)), []).append(path)
    own = [path for folder in folders for path in sorted(glob.glob(f"{glob.escape(folder)}/*.service"))]
    return {path: [path, *sorted(added.get(f"{os.path.basename(path)}.d", []), key=os.path.basename)] for path in own}


def _starts(path: str) -> bool:
    """Whether a file is a script that names acrn-dm."""
    try:
        data = read_file(path)
    except IvshmemError:
        return False
    return b"acrn-dm" in data and not data.startswith(b"\x7fELF")


def _script_paths(paths: Sequence[str], directories: Sequence[str], problems: list[str]) -> list[str]:
    """The scripts to read: those that are named and there, and those of directories."""
    found = [path for path in paths if os.path.exists(path)]
    for folder in directories:
        try:
            names = sorted(os.listdir(folder))
        except OSError as exc:
            if os.path.exists(folder):
                problems.append(f"{folder}: cannot be read: {exc.strerror}")
            continue
        found += [os.path.join(folder, name) for name in names if name.endswith(".sh")]
    own: dict[str, str] = {}
    for path in found:
        own.setdefault(os.path.realpath(path), path)
    return list(own.values())


def _installed(folder: str | None, problems: list[str]) -> dict[str, Any] | None:
    """The scenario of the build that runs, or of the only one that is installed."""
    if not folder or not os.path.isdir(folder):
        return None
    path = os.path.join(os.path.dirname(manifest_path(folder)), "scenario.xml")
    if not os.path.exists(path):
        keys = [name for name in os.listdir(folder) if os.path.exists(os.path.join(folder, name, "scenario.xml"))]
        if len(keys) != 1:
            return None
        path = os.path.join(folder, keys[0], "scenario.xml")
    try:
        scenario = read_scenario(read_file(path), path)
    except IvshmemError as exc:
        problems.append(str(exc))
        return None
    return {"path": path, "regions": [placed.as_dict() for placed in scenario.as_found()]}


def _devices_before(before: bytes | None, vm: str | None, uuid: str | None) -> Sequence[Any]:
    try:
        return script_devices(before or b"", vm, uuid=uuid)
    except IvshmemError:
        return ()


def clear_memory(module: Module, seen: Processes | None = None) -> dict[str, Any]:
    """Look at the running VMs, and remove memory of dm-land regions that is in the way. Raises IvshmemError."""
    params = module.params
    version = parse_version(params["acrn_version"]) if params["acrn_version"] else None
    devices = {vm["name"]: make_devices(vm["devices"], version) for vm in params["vms"]}
    processes = seen or Processes()
    wanted = {region["name"]: region["size"] for region in params["regions"]}
    running = processes.vms(params["vms"], version)
    memories = look(wanted, params["absent"], params["directory"], processes)
    free = [memory for memory in memories if memory.stale and not memory.holders] if params["remove"] else []
    room = lacks_room(memories, params["directory"])
    if not module.check_mode:
        _remove(free)
    held = _held(module, memories)
    # Memory of a VM that is not among vms is none of ours, even when it goes away between two calls.
    others = {name for vm in running if vm.vm in devices for name in vm.dm_regions()}
    foreign = {name for vm in running if vm.vm not in devices for name in vm.dm_regions()}
    result: dict[str, Any] = {
        "changed": bool(free),
        "room": room,
        "memory": list(map(_told, memories)),
        "removed": [memory.path for memory in free],
        "held": held,
        "others": sorted(others - foreign - set(wanted)),
        "vms": [
            {"name": vm.vm, "pid": vm.pid, "fits": vm.fits(devices[vm.vm]) if vm.vm in devices else None}
            for vm in running
        ],
    }
    if module._diff:
        there = [memory for memory in memories if memory.size is not None]
        before, after = (
            "".join(f"{memory.path} {memory.size}\n" for memory in some)
            for some in (there, [memory for memory in there if memory not in free])
        )
        result["diff"] = {"before": before, "after": after}
    return result


def _remove(memories: Iterable[Memory]) -> None:
    for memory in memories:
        try:
            # Somebody else may have removed it by now.
            with suppress(FileNotFoundError):
                os.unlink(memory.path)
        except OSError as exc:
            raise IvshmemError(f"{memory.path}: cannot be removed: {exc.strerror}") from exc


def _held(module: Module, memories: Iterable[Memory]) -> list[str]:
    """What is in the way and in use, in words; refused or warned of, as the user wants it."""
    held = [explain(memory) for memory in memories if memory.stale and memory.holders]
    if held and module.params["on_held"] == "fail" and not module.check_mode:
        raise IvshmemError("\n".join(held))
    for text in held:
        module.warn(text)
    return held


def _told(memory: Memory) -> dict[str, Any]:
    return {
        **{key: getattr(memory, key) for key in ("name", "path", "size", "wanted", "stale")},
        "held_by": [{"pid": item.pid, "command": item.command, "vm": item.vm} for item in memory.holders],
    }


def _shared_calls(scripts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """VMs that would get their devices in one call of acrn-dm, which has no name."""
    paths = [os.path.realpath(script["path"]) for script in scripts]
    for path in {path for path in paths if paths.count(path) > 1 and os.path.isfile(path)}:
        own = [script for script, real in zip(scripts, paths) if real == path]
        known = [{"name": script["vm"], "uuid": _uuid(script)} for script in own]
        named = {known_as(call.name, call.uuid, known, None) for call in script_vms(read_file(path), path)}
        vms = [script["vm"] for script in own if script["vm"] not in named]
        if vms:
            told = ", ".join(map(str, vms))
            yield f"{path}: does not start {told} by name; give each VM a call of acrn-dm of its own"


def _file_differences(params: Mapping[str, Any], warnings: list[str], told: list[dict[str, Any]]) -> Iterator[str]:
    for wish in params["files"]:
        problem = unlike(wish)
        if problem:
            yield f"{wish['path']}: {problem}"
    refused = _in_the_way(params)
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


def _in_the_way(params: Mapping[str, Any]) -> list[str]:
    """What of the files and scripts of a wish cannot be made, whatever it differs in."""
    return [*filter(None, map(refusal, filter(is_made, params["files"]))), *_shared_calls(params["scripts"])]


class _Part:
    """A module that is asked for one script of several."""

    def __init__(self, module: AnsibleModule, params: Mapping[str, Any]) -> None:
        self._module = module
        self.params = dict(params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def bring(module: Module) -> dict[str, Any]:
    """Make the files and scripts of a Service VM what compare() holds them against. VMs and memory are left.

    Raises IvshmemError, of what stands in the way before anything is touched.
    """
    if isinstance(module, Light):
        raise Heavy("it writes")
    params = module.params["wish"]
    refused = [*params["refused"], *_in_the_way(params)]
    if refused:
        raise IvshmemError("\n".join(refused))
    folders = [wish for wish in params["files"] if wish["state"] == "directory"]
    files = [wish for wish in params["files"] if is_made(wish) and wish not in folders]
    common = {"src": None, "state": "exact", **{name: params[name] for name in ("backup", "acrn_dm")}}
    # A lock is that of a file in a directory; that two make the same one at once does no harm.
    diffs = [diff for wish in folders for diff in _make(module, wish)]
    with locked(*([] if module.check_mode else [each["path"] for each in [*params["scripts"], *files]]), what="launch"):
        diffs += [diff for wish in files for diff in _make(module, wish)]
        scripts = [
            {**set_script(_Part(module, {**common, **script})), "vm": script["vm"], "path": script["path"]}
            for script in params["scripts"]
        ]
    written = [diff["after_header"] for diff in diffs]
    diffs += [script.pop("diff") for script in scripts if "diff" in script]
    return {
        "changed": bool(written) or any(script["changed"] for script in scripts),
        "written": written,
        "scripts": scripts,
        **({"diff": [diff for diff in diffs if diff["before"] != diff["after"]]} if module._diff else {}),
    }


def _make(module: AnsibleModule, wish: Mapping[str, Any]) -> list[dict[str, str]]:
    """Make a file what it is to be. The difference, if there was one."""
    problem = unlike(wish)
    if not problem:
        return []
    diff = _file_diff(wish, problem)
    if not module.check_mode:
        make(module, wish)
    return [diff]


def _file_diff(wish: Mapping[str, Any], problem: str) -> dict[str, str]:
    """What a file comes from and to, in words where it is not its content."""
    path = wish["path"]
    if wish["content"] is not None and not problem.startswith("has mode"):
        before = "" if os.path.islink(path) else read_file(path, missing=b"").decode("utf-8", "replace")
        return unified(before, wish["content"], path)
    mode = f", mode {wish['mode']}" if wish["mode"] else ""
    to = f"leads to {wish['src']}" if wish["src"] is not None else wish["state"]
    return unified(f"{problem}\n", f"{to}{mode}\n", path)


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
    version = parse_version(params["acrn_version"]) if params["acrn_version"] else None
    folder = wish["manifest"]
    found: dict[str, Any] = {"running_key": running_key(), "installed": [], "told": wish["has_all"], "known": True}
    found.update(missing=[], lacking=[], unsure=[])
    if folder and os.path.isdir(folder):
        names = sorted(os.listdir(folder))
        found["installed"] = [name for name in names if os.path.exists(os.path.join(folder, name, "manifest.json"))]
    if wish["has_all"]:
        return found
    path = manifest_path(folder) if folder else ""
    found["known"] = bool(path) and os.path.exists(path)
    if found["known"]:
        has = manifest_regions(_manifest(path), path)
    else:
        has = sizes_of(wish["regions"])
        for vm in running:
            has.update((name[4:], size) for name, size in map(_sized, vm.devices) if name[:4] == PREFIXES[HYPERVISOR])
    planned = make_devices(wish["planned"], version)
    found["missing"] = sorted({device.prefixed for device in planned if lacking([device], has)})
    scripts = {script["vm"]: script for script in params["scripts"]}
    for vm in params["vms"]:
        wanted = [device for device in make_devices(vm["devices"], version) if lacking([device], has)]
        if not wanted:
            continue
        found["unsure"].append(vm["name"])
        if not found["known"]:
            # A script that has the device already is none the worse for being written again.
            own = _scripted(scripts.get(vm["name"]), vm["name"])
            wanted = [device for device in wanted if (device.prefixed, device.size) not in own]
        found["lacking"] = sorted({*found["lacking"], *(device.prefixed for device in wanted)})
    return found


def _sized(device: tuple[int, str]) -> tuple[str, Any]:
    name, size, _region_id = ivshmem_options(device[1])
    return name or "", size


def _scripted(script: Mapping[str, Any] | None, vm: str) -> set[tuple[str | None, int | None]]:
    if not script or not os.path.isfile(script["path"]):
        return set()
    devices = _devices_before(read_file(script["path"]), vm, _uuid(script))
    return {(device.name, device.size) for device in devices}


def _others(
    wish: Sequence[Mapping[str, Any]], version: str | None, running: Sequence[RunningVm]
) -> list[dict[str, Any]]:
    """Whether VMs that others start run, and with the devices of the plan."""
    known = {vm.vm: vm for vm in running}
    parsed = parse_version(version) if version else None
    found = []
    for vm in wish:
        own = known.get(vm["name"])
        found.append({"name": vm["name"], "fits": own.fits(make_devices(vm["devices"], parsed)) if own else None})
    return found


def _start(params: Mapping[str, Any]) -> str:
    """Who can start VMs here: units, commands, nobody, or why units cannot: no_systemd, no_acrn."""
    if params["starter"] != "units":
        return str(params["starter"])
    if not os.path.isdir(SYSTEMD):
        return "no_systemd"
    return "no_acrn" if params["hsm"] and not any(map(os.path.exists, params["hsm"])) else "units"


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
    version = parse_version(params["acrn_version"]) if params["acrn_version"] else None
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
        "others": _others(params["others"], params["acrn_version"], running),
        "hypervisor": hypervisor,
        "waits": bool(hypervisor["lacking"]),
        "start": _start(params),
        # For plans: a pass that is no check reads no file twice.
        "files": {each["path"]: digest_or_none(each["path"]) for each in [*params["scripts"], *params["files"]]}
        if module.check_mode
        else {},
    }
