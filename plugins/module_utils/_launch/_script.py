# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What launch_script does on a Service VM: one launch script with its devices.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import original_of, read_file, replace_file, unified
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import check_manifest, uuid_of
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._devices import launch
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._edit import Edited
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._running import manifest_path, read_manifest
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._takeover import OWN, changes, refuse_to_take
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import binaries_of, script_devices, slots_of
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Module
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import given_version

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


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
    if changed and not ours and before is not None:
        _refuse_to_drop(params, edited, before)
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
        result["changes"] = changes(devices_before(before, edited.vm, uuid_in(params)), edited.devices, edited.vm)
    if params.get("acrn_dm"):
        result["start_problems"] = start_problems(module, edited.data, path, params["acrn_dm"])
    if module._diff:
        old, new = (data.decode("utf-8", "replace") for data in (before or b"", edited.data))
        result["diff"] = unified(old, new, path)
    return result


def _refuse_to_drop(params: Mapping[str, Any], edited: Edited, before: bytes) -> None:
    """Refuse to take devices out of a script of others, unless that is asked for."""
    if params["state"] == "exact" and not params["exclusive"]:
        wanted = (placed.device.prefixed for placed in edited.devices)
        refuse_to_take(before, params["path"], edited.vm or params["vm"], wanted, uuid_in(params))


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
    manifest = read_manifest(path)
    try:
        check_manifest(devices, manifest, path)
    except IvshmemError as exc:
        told = f"{where}: {exc}"
        if not module.check_mode:
            raise IvshmemError(told) from None
        module.warn(told)


def uuid_in(params: Mapping[str, Any]) -> str | None:
    """What -U has for the VM of a script, where that counts."""
    return uuid_of({"uuid": params.get("uuid")}, given_version(params["acrn_version"]))


def _edited(params: Mapping[str, Any], before: bytes | None, fresh: bool) -> tuple[Edited, str]:
    """The script as it shall be, and the file that its text is from."""
    start, where = before, params["path"]
    if params["src"] is not None:
        start, where = read_file(params["src"]), params["src"]
    elif params["content"] is not None:
        start = params["content"].encode("utf-8", "surrogateescape")
    scenario_path = params["scenario_path"]
    edited = launch(
        start or b"",
        where,
        params["devices"],
        scenario=read_scenario(read_file(scenario_path), scenario_path) if scenario_path else None,
        vm=params["vm"],
        uuid=params.get("uuid"),
        state=params["state"],
        version=given_version(params["acrn_version"]),
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


def devices_before(before: bytes | None, vm: str | None, uuid: str | None) -> Sequence[Any]:
    try:
        return script_devices(before or b"", vm, uuid=uuid)
    except IvshmemError:
        return ()


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
