# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What dm_memory does on a Service VM: memory of dm-land regions, and the VMs that use it.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Iterable, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import make_devices
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._dm_memory import (
    Memory,
    Processes,
    RunningVm,
    explain,
    lacks_room,
    look,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Module
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import given_version


def clear_memory(module: Module, seen: Processes | None = None) -> dict[str, Any]:
    """Look at the running VMs, and remove memory of dm-land regions that is in the way. Raises IvshmemError."""
    params = module.params
    version = given_version(params["acrn_version"])
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
    own = [vm for vm in running if vm.vm in devices]
    # Memory of a VM that is not among vms is none of ours, even when it goes away between two calls.
    foreign = [vm for vm in running if vm.vm not in devices]
    result: dict[str, Any] = {
        "changed": bool(free),
        "room": room,
        "memory": list(map(_told, memories)),
        "removed": [memory.path for memory in free],
        "held": held,
        "others": sorted(_regions_of(own) - _regions_of(foreign) - set(wanted)),
        "vms": [
            {"name": vm.vm, "pid": vm.pid, "fits": vm.fits(devices[vm.vm], version) if vm.vm in devices else None}
            for vm in running
        ],
    }
    if module._diff:
        result["diff"] = _diff(memories, free)
    return result


def _regions_of(running: Iterable[RunningVm]) -> set[str]:
    return {name for vm in running for name in vm.dm_regions()}


def _diff(memories: Iterable[Memory], free: Sequence[Memory]) -> dict[str, str]:
    there = [memory for memory in memories if memory.size is not None]
    before, after = (
        "".join(f"{memory.path} {memory.size}\n" for memory in some)
        for some in (there, [memory for memory in there if memory not in free])
    )
    return {"before": before, "after": after}


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
