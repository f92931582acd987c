# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module traces does on a machine: what the collection has left there is found, and taken away.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils import _traces
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import locked, read_file, replace_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import make_devices
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._dm_memory import Processes

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def clear(module: AnsibleModule) -> dict[str, Any]:
    """Take away the traces that the options name, locked against what writes there. Raises IvshmemError, OSError."""
    with locked(*([] if module.check_mode else _locked(module.params)), what="traces"):
        return _removed(module)


def _scripts(told: Mapping[str, Any]) -> dict[str, str]:
    """The launch script of each VM."""
    return {vm["name"]: vm["script"] or f"{told['directory']}/{vm['name']}.sh" for vm in told["vms"]}


def _declared(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The regions of the declaration, and those that VMs have of their own."""
    regions = [dict(region) for region in told["regions"]]
    for vm in told["vms"]:
        for device in make_devices(vm["devices"], None, sized=False):
            regions.append({"name": device.name, "provided_by": device.provided_by, "size": device.size or 0})
    return regions


def _of_launch(told: Mapping[str, Any]) -> _traces.Removal:
    return _traces.of_launch(
        _traces.Launch(
            directory=told["directory"],
            unit_directory=told["unit_directory"],
            scripts=_scripts(told),
            regions=_declared(told),
            running=frozenset(vm.vm for vm in Processes().vms()),
        )
    )


def _find(params: Mapping[str, Any]) -> _traces.Removal:
    """What goes, of the one machine that the options are about."""
    if params["launch"]:
        return _of_launch(params["launch"])
    if params["builder"]:
        told = params["builder"]
        return _traces.of_builder(told["artifacts_dir"], told["work_dir"], told["venv"] or "", told["clone"] or "")
    told = params["controller"]
    return _traces.of_controller(told["directory"], told["files"], told["cache"] or "")


def _locked(params: Mapping[str, Any]) -> list[str]:
    """What is locked meanwhile: what the modules lock that write there, as far as it is there."""
    launch, builder = params["launch"], params["builder"]
    found = []
    if launch:
        found = list(_scripts(launch).values())
    elif builder:
        found = [builder["artifacts_dir"], builder["work_dir"]]
    return [path for path in found if os.path.exists(path)]


def _removed(module: AnsibleModule) -> dict[str, Any]:
    removal = _find(module.params)
    old = {path: read_file(path).decode("utf-8", "replace") for path in removal.written}
    removed = [*removal.gone, *removal.emptied()]
    if not module.check_mode:
        # First what is kept in another form: its copy is among what goes.
        for path, data in removal.written.items():
            replace_file(module, path, data)
        _traces.apply(removal)
    for text in removal.kept:
        module.warn(text)
    result = {
        "changed": bool(removed or removal.written),
        "removed": removed,
        "restored": sorted(removal.written),
        "kept": removal.kept,
        "memory": removal.memory,
    }
    if module._diff:
        paths = "".join(f"{path}\n" for path in removed)
        result["diff"] = [{"before": paths, "after": "", "before_header": "removed", "after_header": "removed"}] + [
            {"before": old[path], "after": data.decode("utf-8", "replace"), "before_header": path, "after_header": path}
            for path, data in removal.written.items()
        ]
    return result
