# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launch scripts as they are: which VMs they start with acrn-dm, and the PCI devices that they give them.

This module util is PRIVATE to the collection: it can change at any time.

Read are ``acrn-dm ...`` with continuation lines, and ``acrn-dm "${dm_params[@]}"`` with the array that ACRN's
launch_cfg_gen.py writes since v3.0 (``add_virtual_device SLOT ivshmem NAME,SIZE``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import ivshmem_options
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._arguments import Call, PciDevice, read_call
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._commands import Commands
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# devicemodel/hw/pci/core.c v3.0+, pci_parse_slot: said to be ignored, and acrn-dm exits with 1.
OBSOLETE = frozenset(("pci-gvt", "virtio-hdcp", "npk", "virtio-coreu"))


@dataclass(frozen=True)
class ScriptVm:
    """What a script says about one of its acrn-dm calls."""

    name: str | None
    uuid: str | None
    line: int
    style: str
    told: str  # the name, or why there is none


class View:
    """A script as acrn-dm calls. ``where`` goes into messages."""

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        self.where = where
        commands = Commands(text, where)
        self.script = commands.script
        # Where acrn-dm may be run in a way that cannot be read: the line and the words.
        self.hidden = commands.hidden
        self.calls = [read_call(commands.values, run) for run in commands.runs]


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def script_vms(data: bytes, where: str = "script") -> tuple[ScriptVm, ...]:
    """The acrn-dm calls of a script, in its order. Raises IvshmemError where quotes or brackets stay open."""
    return _told(View(decode(data), where))


def _told(view: View) -> tuple[ScriptVm, ...]:
    return tuple(ScriptVm(call.name, call.uuid, call.line, call.style, call.told) for call in view.calls)


def script_calls(data: bytes, where: str) -> tuple[tuple[ScriptVm, ...], list[str]]:
    """The acrn-dm calls of a script, and where it may run acrn-dm in a way that cannot be read, one sentence each."""
    view = View(decode(data), where)
    return _told(view), _hidden(view)


def binaries_of(data: bytes) -> tuple[str, ...]:
    """What a script calls acrn-dm as, each once, as far as the text tells. Raises IvshmemError."""
    view = View(decode(data), "script")
    return tuple(dict.fromkeys(binary for call in view.calls for binary in call.binaries))


@dataclass(frozen=True)
class FoundDevice:
    """An ivshmem device that a script has. What is None could not be read."""

    name: str | None
    size: int | None
    region_id: int | None
    slot: int | None
    line: int
    odd: str | None = None  # why no region can be declared so


def found_device(device: PciDevice) -> FoundDevice:
    name, size, region_id = ivshmem_options(device.options)
    usable = device.bdf is not None and not device.bdf.bus and not device.bdf.function
    return FoundDevice(
        name, size, region_id, device.bdf.device if usable and device.bdf else None, device.line, device.odd
    )


def script_devices(
    data: bytes, vm: str | None = None, where: str = "script", uuid: str | None = None
) -> tuple[FoundDevice, ...]:
    """The ivshmem devices of a script's calls for a VM (of its only VM without ``vm``), in its order, each once."""
    view = View(decode(data), where)
    found: dict[FoundDevice, FoundDevice] = {}
    for call in calls_of(view, vm, uuid):
        for device in map(found_device, (each for each in call.devices if each.kind == "ivshmem")):
            found.setdefault(replace(device, line=0), device)
    return tuple(found.values())


def unlike_calls(data: bytes, vm: str | None, where: str, uuid: str | None = None) -> str | None:
    """Why the devices of a VM depend on which of its calls is run, or None."""
    calls = calls_of(View(decode(data), where), vm, uuid)
    every = [{(each.bdf, each.options) for each in call.devices if each.kind == "ivshmem"} for call in calls]
    other = next((call for call, found in zip(calls, every) if found != every[0]), None)
    if other is None:
        return None
    told = f"VM '{calls[0].told}' is started with other ivshmem devices than in line {other.line}"
    return f"{where}: line {calls[0].line}: {told}; give both calls the same"


def slots_of(data: bytes) -> dict[str, int]:
    """The slots of the ivshmem devices of a script, by prefixed name; nothing where it cannot be read."""
    try:
        view = View(decode(data), "")
    except IvshmemError:
        return {}
    found = [found_device(device) for call in view.calls for device in call.devices if device.kind == "ivshmem"]
    return {device.name: device.slot for device in found if device.name is not None and device.slot is not None}


def calls_of(view: View, vm: str | None, uuid: str | None) -> list[Call]:
    """The calls that start a VM, and no other. Raises IvshmemError where that cannot be told, with the names and lines
    there are."""
    calls = view.calls
    view.script.look(len(calls))
    if view.hidden:
        raise IvshmemError("\n".join(_hidden(view)))
    if not calls:
        raise IvshmemError(
            f"{view.where}: no call of acrn-dm was found; expected 'acrn-dm ...' or 'acrn-dm \"${{dm_params[@]}}\"' "
            "as a command of its own"
        )
    own = _only_vm(view) if vm is None and not uuid else _calls_for(view, vm, uuid)
    if not own:
        raise IvshmemError(
            f"{view.where}: does not start VM '{vm}' ({_listed(calls)}); the last argument of acrn-dm must be the VM's "
            "name in the scenario"
        )
    return own


def _only_vm(view: View) -> list[Call]:
    """All calls, where they start one VM."""
    unread = [call for call in view.calls if call.names and call.name is None]
    if unread:
        raise _unclear(view, unread, "a VM")
    if len({call.name for call in view.calls}) > 1:
        told = _listed(view.calls)
        raise IvshmemError(f"{view.where}: starts several VMs ({told}); say with vm which one is meant")
    return view.calls


def _calls_for(view: View, vm: str | None, uuid: str | None) -> list[Call]:
    """The calls that start a VM by its UUID, else by its name; one call without either starts any VM."""
    calls = view.calls
    by_uuid = [call for call in calls if uuid and call.uuid and call.uuid.lower() == uuid.lower()]
    own = by_uuid or [call for call in calls if call.name == vm]
    unclear = [call for call in calls if call not in own and vm is not None and call.maybe(vm, uuid)]
    if by_uuid:
        # With -U its name does not matter, and another call's -U is another VM.
        unclear = [call for call in unclear if not call.uuid]
    if unclear:
        raise _unclear(view, unclear, f"VM '{vm}'")
    return calls if not own and len(calls) == 1 and not calls[0].names else own


def _listed(calls: Sequence[Call]) -> str:
    return "; ".join(f"line {call.line}: {call.told}" for call in calls)


def _hidden(view: View) -> list[str]:
    return [
        f"{view.where}: line {line}: acrn-dm may be run here in a way that cannot be read: {source}; write the "
        "call as a command of its own"
        for line, source in view.hidden
    ]


def _unclear(view: View, calls: Sequence[Call], what: str) -> IvshmemError:
    """Calls that can run for several VMs, or for which one is not known."""
    return IvshmemError(
        "\n".join(
            f"{view.where}: line {call.line}: whether this call of acrn-dm starts {what} alone cannot be told "
            f"({call.told}), so that other VMs might get the same memory; give each VM a call of its own with its name "
            "as the last argument"
            for call in calls
        )
    )
