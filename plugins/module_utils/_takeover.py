# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launch scripts that were there before the collection: what they have, and what an edit would take from them.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch_script import (
    FoundDevice,
    PlacedDevice,
    script_devices,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

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


def refuse_to_take(before: bytes, where: str, vm: str | None, wanted: Iterable[str]) -> None:
    """Raise IvshmemError where a script that nobody here has written has ivshmem devices that are not wanted.

    ``wanted`` are names with their prefix. One that cannot be read may be one of them or not, and is refused too.
    """
    way = "take them away with launch_exclusive: true (exclusive of the module)"
    try:
        devices = script_devices(before, vm, where)
    except IvshmemError as exc:
        if b"ivshmem" not in before:
            return
        raise IvshmemError(
            f"{exc}\n{where}: this script is not one of the collection's, and its ivshmem devices would be lost: "
            f"declare them and write the script in a readable form, or {way}"
        ) from None
    names = set(wanted)
    lost = [device for device in devices if device.name not in names]
    if lost:
        told = "; ".join(_told(device) for device in lost)
        raise IvshmemError(
            f"{where}: has ivshmem devices that are not declared: {told}. The script was not written by this "
            "collection, so nothing is taken from it unasked. Add the regions to the declaration of the host, with the "
            f"VMs that have them, or {way}"
        )


def _told(device: FoundDevice) -> str:
    name = device.name or "one that cannot be read"
    size = f", {device.size} MB" if device.size is not None else ""
    slot = f", slot {device.slot}" if device.slot is not None else ""
    return f"{name}{size}{slot} (line {device.line})"
