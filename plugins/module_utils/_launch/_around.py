# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What launch_info finds on a Service VM, whoever made it: scripts, services, VMs, builds, memory.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import glob
import os
from typing import Any, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import open_regular, read_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._dm_memory import Processes
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._running import (
    command_line,
    installed,
    manifest_path,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._takeover import (
    read_script,
    read_unit,
    running_vm,
    unit_commands,
    unit_scripts,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Module
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario

# Devices of a kernel under ACRN, from v2.5 on and before.
HSM = ("/dev/acrn_hsm", "/dev/acrn_vhm")


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
        "cmdline": command_line(),
        "acrn": any(map(os.path.exists, HSM)),
        "unit": os.path.lexists(params["unit"]),
        "missing": [path for path in [*params["paths"], *params["directories"]] if not os.path.exists(path)],
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
        found += [path for path in (os.path.join(folder, name) for name in names) if _is_script(path)]
    own: dict[str, str] = {}
    for path in found:
        own.setdefault(os.path.realpath(path), path)
    return list(own.values())


def _is_script(path: str) -> bool:
    """Whether a file of a directory may be a launch script: by its name, or, where that has no ending, by its start."""
    name = os.path.basename(path)
    if "." in name:
        return name.endswith(".sh")
    try:
        with open_regular(path) as handle:
            return handle.read(2) == b"#!"
    except OSError:
        return False


def _installed(folder: str | None, problems: list[str]) -> dict[str, Any] | None:
    """The scenario of the build that runs, or of the only one that is installed."""
    if not folder or not os.path.isdir(folder):
        return None
    path = os.path.join(os.path.dirname(manifest_path(folder)), "scenario.xml")
    if not os.path.exists(path):
        keys = installed(folder, "scenario.xml")
        if len(keys) != 1:
            return None
        path = os.path.join(folder, keys[0], "scenario.xml")
    try:
        scenario = read_scenario(read_file(path), path)
    except IvshmemError as exc:
        problems.append(str(exc))
        return None
    return {"path": path, "regions": [placed.as_dict() for placed in scenario.as_found()]}
