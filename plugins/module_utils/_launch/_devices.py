# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which VM a launch script starts, and which devices it is to get: from a list, or from the scenario.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    check_scenario,
    devices_of_vm,
    known_as,
    make_devices,
    uuid_of,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._edit import Edited, edit_script
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import View, calls_of, decode, script_vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import place_regions

if TYPE_CHECKING:
    from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario
    from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import Vm


def launch(
    data: bytes,
    where: str,
    devices: Sequence[Mapping[str, Any]] | None,
    *,
    scenario: Scenario | None = None,
    vm: str | None = None,
    uuid: str | None = None,
    state: str = "exact",
    version: tuple[int, int] | None = None,
    hints: Mapping[str, int] | None = None,
    makes_room: bool = False,
) -> Edited:
    """All that the module decides: which VM, which devices, whether they can work, and the script with them.

    Without ``devices`` they follow from the scenario. ``vm`` is a name, or an ID of the scenario; without it the script
    says which VM it starts. ``uuid`` is the VM's for acrn-dm's -U, which counts before its name where that release does
    so; a scenario tells it as well. Raises IvshmemError; then nothing is to be written.
    """
    name, uuid = vm, uuid_of({"uuid": uuid}, version)
    wanted: Sequence[Mapping[str, Any]] = devices or ()
    entry = None
    if scenario is not None:
        entry = _scenario_vm(data, where, scenario, vm, version)
        name, uuid = entry.name, uuid_of(entry.as_dict(), version) or uuid
        if devices is None:
            wanted = devices_of_vm(scenario, entry)
            hints = {**_chosen_slots(scenario, entry, version), **(hints or {})}
    try:
        made = make_devices(wanted, version, sized=state != "absent")
        if scenario is not None and entry is not None and state != "absent":
            check_scenario(made, scenario, entry)
    except IvshmemError as exc:
        at = _place_of(data, where, name, uuid)
        raise IvshmemError("\n".join(f"{at}: {line}" for line in str(exc).splitlines())) from None
    return edit_script(
        data,
        made,
        state=state,
        vm=name,
        uuid=uuid,
        hints=hints,
        acrn_version=version,
        where=where,
        makes_room=makes_room,
    )


def _chosen_slots(scenario: Scenario, vm: Vm, version: tuple[int, int] | None) -> dict[str, int]:
    """The slots that a plan of this scenario has for a VM: where its file names none, both choose the same."""
    return {
        placed.region.prefixed: end.vbdf.slot
        for placed in place_regions(scenario, scenario.regions, version=version)
        for end in placed.vms
        if end.vm.id == vm.id and end.vbdf is not None and not end.vbdf.function
    }


def _place_of(data: bytes, where: str, vm: str | None, uuid: str | None) -> str:
    """File and line of the acrn-dm call that starts a VM, for a message; the file alone where there is none."""
    try:
        return f"{where}: line {calls_of(View(decode(data), where), vm, uuid)[0].line}"
    except IvshmemError:
        return where


def _scenario_vm(data: bytes, where: str, scenario: Scenario, vm: str | None, version: tuple[int, int] | None) -> Vm:
    """The VM of the scenario that is given, or that the script starts."""
    if vm is not None:
        return scenario.vm(vm)
    found = {}
    calls = script_vms(data, where)
    known = [entry.as_dict() for entry in scenario.vms]
    for call in calls:
        name = known_as(call.name, call.uuid, known, version)
        found.update({entry.id: entry for entry in scenario.vms if entry.name == name})
    if len(found) == 1:
        return next(iter(found.values()))
    there = ", ".join(call.name or f"not readable (line {call.line})" for call in calls) or "none"
    told = ", ".join(f"{entry.name} ({entry.id})" for entry in scenario.vms)
    raise IvshmemError(
        f"{where}: which VM of {scenario.where} it starts is not clear (in the script: {there}; in the "
        f"scenario: {told}); "
        "say it with vm, and make the last argument of acrn-dm the VM's name in the scenario"
    )
