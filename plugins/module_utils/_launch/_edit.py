# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launch scripts with other ivshmem devices: the edit, by single words.

This module util is PRIVATE to the collection: it can change at any time.

All bytes but those of the words that are replaced, added or removed stay, and the result is read again and compared
with what was wanted before anybody may write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    OTHERS_SLOT_ORDER,
    RESERVED_SLOTS,
    V3_FIRST,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    argument_of,
    check_vm_name,
    format_slot,
    options_of,
    place,
    plain_options,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._arguments import Call, Holder, PciDevice
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import (
    OBSOLETE,
    View,
    calls_of,
    decode,
    found_device,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, Device, IvshmemError

STATES = ("exact", "present", "absent")
# The role launch has no such option as state: there it is launch_vms that says whose scripts are edited.
LEFT_ALONE = (
    ", or leave the script as it is: take its VM out of launch_vms (with the module alone: state: present leaves "
    "alone what it is not given)"
)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def check_exact(data: bytes, vm: str | None, where: str, uuid: str | None = None) -> None:
    """Raise IvshmemError where the ivshmem devices of a VM cannot all be read from its script."""
    edit = _Edit(data, (), "exact", vm, uuid, {}, None, where)
    for call in calls_of(edit.view, vm, uuid):
        edit.refuse_unread(call)


@dataclass(frozen=True)
class PlacedDevice:
    """A device as it stands in the script afterwards."""

    device: Device
    line: int

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for a module's result."""
        return {
            "name": self.device.name,
            "provided_by": self.device.provided_by,
            "size": self.device.size,
            "region_id": self.device.region_id,
            "slot": self.device.slot,
            "vbdf": None if self.device.place is None else str(self.device.place),
            "line": self.line,
        }


@dataclass(frozen=True)
class Edited:
    """A script after the edit. ``actions`` and ``warnings`` are for the user, one sentence each."""

    data: bytes
    vm: str | None
    line: int  # of the acrn-dm call
    style: str
    devices: tuple[PlacedDevice, ...]
    removed: tuple[str, ...]
    actions: tuple[str, ...]
    warnings: tuple[str, ...]


def edit_script(
    data: bytes,
    devices: Sequence[Device],
    *,
    state: str = "exact",
    vm: str | None = None,
    uuid: str | None = None,
    hints: Mapping[str, int] | None = None,
    acrn_version: tuple[int, int] | None = None,
    where: str = "script",
    makes_room: bool = False,
) -> Edited:
    """Give a VM's acrn-dm call the ivshmem devices.

    ``state``: exact = these and no other ones, present = at least these, absent = none of these names. ``hints``
    (prefixed name -> slot) are slots to keep for devices that the script does not have yet. Where several calls start
    the VM, each gets the devices. ``makes_room``: virtio devices that launch_cfg_gen.py has placed may go to other
    slots, since it takes those of regions too. Raises IvshmemError with line numbers; then nothing is to be written.
    """
    edit = _Edit(data, devices, state, vm, uuid, hints or {}, acrn_version, where)
    if makes_room and state != "absent":
        edit.make_room()
    return edit.run()


def _is_free_choice(device: PciDevice) -> bool:
    """Whether the generator could as well have put a device elsewhere: nothing else names the slot of virtio."""
    return device.generated and device.kind.startswith("virtio")


class _Edit:
    def __init__(
        self,
        data: bytes,
        devices: Sequence[Device],
        state: str,
        vm: str | None,
        uuid: str | None,
        hints: Mapping[str, int],
        acrn_version: tuple[int, int] | None,
        where: str,
    ) -> None:
        if state not in STATES:
            raise IvshmemError(f"state must be one of {', '.join(STATES)}, not '{state}'")
        self.devices = tuple(devices)
        self.state = state
        self.vm = vm
        self.uuid = uuid
        self.hints = hints
        self.version = acrn_version
        self.where = where
        self.view = View(decode(data), where)
        self.actions: list[str] = []
        self.warnings: list[str] = []
        self.removed: list[str] = []

    def run(self) -> Edited:
        calls = calls_of(self.view, self.vm, self.uuid)
        name = self._named(calls)
        wanted = () if self.state == "absent" else self.devices
        gone = {device.prefixed for device in self.devices} if self.state == "absent" else None
        for call in calls:
            self.refuse_unread(call)
            self._warn(call)
        placed = self._place(calls, wanted, gone)
        before = self.view.text
        for index in range(len(calls)):
            self._edit_call(index, placed, gone)
        cut = [call for call in calls if call.comment_line and not call.names]
        if cut and self.view.text != before:
            raise IvshmemError(
                f"{self.where}: line {cut[0].line}: the comment in line {cut[0].comment_line} ends the command, and "
                "acrn-dm gets nothing of what stands behind it; move the comment above the command"
            )
        calls = calls_of(self.view, self.vm, self.uuid)
        lines = {(found_device(device).name or ""): device.line for device in reversed(self._ivshmem(calls[0]))}
        return Edited(
            _encode(self.view.text),
            name,
            calls[0].line,
            calls[0].style,
            tuple(PlacedDevice(device, lines.get(device.prefixed, calls[0].line)) for device in placed),
            tuple(dict.fromkeys(self.removed)),
            tuple(self.actions),
            tuple(dict.fromkeys(self.warnings)),
        )

    def _named(self, calls: Sequence[Call]) -> str | None:
        """The name of the VM that calls start, which acrn-dm has to take."""
        # By its UUID it is the VM that was asked for, whatever it is called there.
        by_uuid = bool(self.uuid and self.uuid in (each.lower() for each in calls[0].uuids))
        name = (by_uuid and self.vm) or calls[0].name or self.vm
        for known in filter(None, {name, *(call.name for call in calls)}):
            try:
                check_vm_name(known, self.version)
            except IvshmemError as exc:
                raise IvshmemError(f"{self.where}: line {calls[0].line}: {exc}") from None
        return name

    def make_room(self) -> None:
        """Move virtio devices of the generator's form away from where devices are to be."""
        slots = {device.slot for device in self.devices if device.slot is not None}
        while True:
            calls = calls_of(self.view, self.vm, self.uuid)
            devices = [(each.bdf, each) for call in calls for each in call.devices if each.bdf and not each.bdf.bus]
            taken = slots.union(bdf.device for bdf, _device in devices)
            free = next((slot for slot in OTHERS_SLOT_ORDER if slot not in taken), None)
            moving = [each for each in devices if each[0].device in slots and _is_free_choice(each[1])]
            if not moving or free is None:
                return
            bdf, device = moving[0]
            if device.edit is None:
                raise self._fixed(device, "moved")
            start, end = device.edit[:2]
            _old, rest = self.view.text[start:end].split(None, 1)
            why = "to make room for a region"
            self.actions.append(f"{device.kind}: moved from slot {bdf.device} to slot {free}, {why}")
            self._replace(start, end, f"{format_slot(Bdf(0, free, bdf.function))} {rest}")

    def refuse_unread(self, call: Call) -> None:
        """Refuse what would have to be called exact, or changed, without being known."""
        names = {device.prefixed for device in self.devices}
        problems = [
            (
                device.line,
                "which ivshmem device this is, at which slot, or whether the VM gets it, is only known when the script "
                "runs",
            )
            for device in call.devices
            if device.may_share and (self.state == "exact" or device.names & names)
        ]
        if self.state == "exact":
            problems += [
                (line, f"{source} is only known when the script runs, and ivshmem devices may be in it")
                for line, source in call.unseen
            ]
        if problems:
            raise IvshmemError(
                "\n".join(
                    f"{self.where}: line {line}: {text}; write the arguments in the acrn-dm command itself"
                    + (LEFT_ALONE if self.state == "exact" else "")
                    for line, text in dict.fromkeys(problems)
                )
            )

    @staticmethod
    def _ivshmem(call: Call) -> list[PciDevice]:
        return [device for device in call.devices if device.kind == "ivshmem"]

    def _call(self, index: int) -> Call:
        return calls_of(self.view, self.vm, self.uuid)[index]

    def _warn(self, call: Call) -> None:
        """What acrn-dm will not take or what cannot be seen here, though it is not for us to change."""
        if not call.names:
            comment = call.comment_line
            why = f": the comment in line {comment} ends the command, move it above" if comment else ""
            self.warnings.append(
                f"{self.where}: line {call.line}: acrn-dm gets no VM name as its last argument and will refuse to start"
                + why
            )
        for line, source in call.unseen:
            self.warnings.append(
                f"{self.where}: line {line}: {source} is only known when the script runs; PCI slots and "
                "ivshmem devices in it are not seen"
            )
        others: dict[Bdf, PciDevice] = {}
        for device in call.devices:
            at = f"{self.where}: line {device.line}"
            if device.bdf is None:
                self.warnings.append(f"{at}: the slot of '{device.kind or '-s'}' cannot be read; it is left alone")
            elif device.kind != "ivshmem":
                if device.bdf in others and device.certain and others[device.bdf].certain:
                    self.warnings.append(
                        f"{at}: {device.kind} is at slot {format_slot(device.bdf)} where line "
                        f"{others[device.bdf].line} has "
                        f"{others[device.bdf].kind}; acrn-dm will refuse to start"
                    )
                others[device.bdf] = device
            elif device.options is None:
                self.warnings.append(f"{at}: the options of this ivshmem device cannot be read; it is left alone")
            if device.kind in OBSOLETE and (self.version is None or self.version >= V3_FIRST):
                self.warnings.append(
                    f"{at}: acrn-dm of ACRN v3.0 and later calls {device.kind} obsolete and ends; remove the "
                    "device there"
                )

    def _place(self, calls: Sequence[Call], wanted: Sequence[Device], gone: set[str] | None) -> tuple[Device, ...]:
        taken, found_at = self._held(calls, {device.prefixed: device for device in wanted}, gone)
        present = {**self.hints, **found_at}
        placed = place(wanted, taken, present, f"{self.where}: line {calls[0].line}")
        for item in placed:
            before = found_at.get(item.prefixed)
            if before is not None and before != item.slot:
                held = taken.get(before) or RESERVED_SLOTS.get(before)
                why = f", because slot {before} is that of {held}" if held else ""
                self.actions.append(f"region '{item.prefixed}': moved from slot {before} to slot {item.slot}{why}")
        return placed

    def _held(
        self, calls: Sequence[Call], names: Mapping[str, Device], gone: set[str] | None
    ) -> tuple[dict[int, str], dict[str, int]]:
        """The slots of what is to stay, with what is there, and those of the devices that are wanted, by name."""
        taken: dict[int, str] = {}
        present: dict[str, int] = {}
        for device in (device for call in calls for device in call.devices):
            if device.bdf is None or device.bdf.bus:
                continue
            name = found_device(device).name if device.kind == "ivshmem" else None
            slot = device.bdf.device
            if name is not None and name in names:
                if name not in present or slot == names[name].slot:
                    present[name] = slot
            elif name is None or self.state == "present" or (gone is not None and name not in gone):
                taken.setdefault(slot, f"{device.kind}{f' {name}' if name else ''} (line {device.line})")
        return taken, present

    # Edits: one word or line at a time, the script is read again after each

    def _edit_call(self, index: int, placed: Sequence[Device], gone: set[str] | None) -> None:
        before = self._rest(self._call(index))
        names = {device.prefixed: device for device in placed}
        kept: set[str] = set()
        number = 0
        while True:
            found = self._ivshmem(self._call(index))
            if number >= len(found):
                break
            device = found[number]
            name = found_device(device).name
            device_wanted = names.get(name or "")
            if device_wanted is not None and name not in kept and self._first(found, number, device_wanted):
                kept.add(name or "")
                self._respell(device, device_wanted)
                number += 1
            elif device.options is None or not self._goes(name, gone, names):
                number += 1
            else:
                self._remove(device, name or "")
        for wanted in placed:
            if wanted.prefixed not in kept:
                self._add(index, wanted)
        self._check(index, before, placed)

    def _goes(self, name: str | None, gone: set[str] | None, names: Mapping[str, Device]) -> bool:
        """Whether a device that is not the one to keep is taken out: a second one of the region always is."""
        if gone is not None:
            return name in gone
        return self.state == "exact" or name in names

    @staticmethod
    def _first(found: Sequence[PciDevice], number: int, wanted: Device) -> bool:
        """Of several devices of one region the one at the wanted slot stays, else the first."""
        alike = [device for device in found[number:] if found_device(device).name == wanted.prefixed]
        right = [device for device in alike if found_device(device).slot == wanted.slot]
        return (right or alike)[0] is found[number]

    def _fixed(self, device: PciDevice, what: str) -> IvshmemError:
        return IvshmemError(
            f"{self.where}: line {device.line}: an ivshmem device that has to be {what} comes from the variable "
            f"{device.variable or 'of its arguments'}; write its -s argument in the acrn-dm command itself, or set the "
            "variable right by hand"
        )

    def _plain(self, device: PciDevice) -> str | None:
        """What the acrn-dm of this version reads of a device."""
        return plain_options(device.options, self.version)

    def _respell(self, device: PciDevice, wanted: Device) -> None:
        if wanted.slot is None:
            raise ValueError("a device is written at its slot")
        bdf = Bdf(0, wanted.slot, 0)
        if device.bdf == bdf and self._plain(device) == options_of(wanted) and device.certain:
            return
        if device.edit is None:
            raise self._fixed(device, "changed")
        start, end, front, behind = device.edit
        new = argument_of(wanted, bdf)
        if device.generated:
            new = f"{wanted.slot} ivshmem {options_of(wanted)}"
        size = found_device(device).size
        if size is not None and size != wanted.size:
            self.actions.append(f"region '{wanted.prefixed}': resized from {size} MB to {wanted.size} MB")
        elif not any(f"'{wanted.prefixed}'" in action for action in self.actions):
            self.actions.append(f"region '{wanted.prefixed}': corrected in line {device.line}")
        self._replace(start, end, front + new + behind)

    def _replace(self, start: int, end: int, new: str) -> None:
        text = self.view.text
        self.view = View(text[:start] + new + text[end:], self.where)

    def _line_bounds(self, start: int, end: int) -> tuple[int, int]:
        """The whole lines that hold ``text[start:end]``, the last newline not included."""
        text = self.view.text
        newline = text.find("\n", end)
        return text.rfind("\n", 0, start) + 1, len(text) if newline < 0 else newline

    def _remove(self, device: PciDevice, name: str) -> None:
        if device.edit is None:
            raise self._fixed(device, "removed")
        text = self.view.text
        words = device.holder.words
        start, end = words[device.first].start, words[device.last].end
        first, stop = self._line_bounds(start, end)
        before, behind = text[first:start], text[end:stop].rstrip("\r")
        continued = behind.endswith("\\")
        last_on_line = not behind.rstrip("\\").strip()
        if last_on_line and not before.strip() and stop < len(text) and (continued or device.holder.array is not None):
            span = (first, stop + 1)
        elif before.strip():
            span = (start - (len(before) - len(before.rstrip())), end)
        elif not last_on_line:
            span = (start, end + len(behind) - len(behind.lstrip()))
        else:
            # The command ends here: without the line above's continuation the next command would be joined to it.
            span = (words[device.first - 1].end if device.first else device.holder.begin, end)
        self.removed.append(name)
        self.actions.append(f"region '{name}': removed from line {device.line}")
        self._replace(span[0], span[1], "")

    def _add(self, index: int, wanted: Device) -> None:
        if wanted.slot is None:
            raise ValueError("a device is written at its slot")
        call = self._call(index)
        rest = self._rest(call)
        argument = argument_of(wanted, Bdf(0, wanted.slot, 0))
        anchor, holder, end = self._anchor(call)
        # As the neighbour has it, so that what keeps a checker of shell scripts quiet there does so here.
        quote = anchor.edit[3] if anchor is not None and anchor.edit is not None else ""
        element = f"-s {quote}{argument}{quote}"
        if holder.array is not None and any(d.generated for d in call.devices if d.holder == holder):
            # The layout of launch_cfg_gen.py, add_dynamic_dm_parameter.
            element = f"`{'add_virtual_device':40s} {wanted.slot} ivshmem {options_of(wanted)}`"
        expected = len(self._ivshmem(call)) + 1
        for start, new in self._insertions(anchor, holder, end, element):
            text = self.view.text
            trial = View(text[:start] + new + text[start:], self.where)
            try:
                after = calls_of(trial, self.vm, self.uuid)[index]
            except (IvshmemError, IndexError):
                continue
            if self._rest(after, trial) == rest and len(self._ivshmem(after)) == expected:
                self.view = trial
                self.actions.append(f"region '{wanted.prefixed}': added at slot {wanted.slot}")
                return
        raise IvshmemError(
            f"{self.where}: line {call.line}: no place was found in the acrn-dm command for '-s {argument}'; write the "
            "command one argument a line"
        )

    @staticmethod
    def _anchor(call: Call) -> tuple[PciDevice | None, Holder, int]:
        """Behind which device a new one goes: the last ivshmem, else the host bridge, else the last device."""
        written = [device for device in call.devices if device.edit is not None]
        for choice in (
            [device for device in written if device.kind == "ivshmem"][-1:],
            [device for device in written if device.kind == "hostbridge"][:1],
            written[-1:],
        ):
            if choice:
                return choice[0], choice[0].holder, choice[0].holder.words[choice[0].last].end
        holder = next((holder for holder in reversed(call.holders) if holder.array is not None), call.holders[0])
        return None, holder, holder.begin

    def _insertions(
        self, anchor: PciDevice | None, holder: Holder, end: int, element: str
    ) -> Iterable[tuple[int, str]]:
        """Places to try: a line of its own behind the anchor's, then the same line."""
        text = self.view.text
        begin = end if anchor is None else holder.words[anchor.first].start
        first, stop = self._line_bounds(begin, end)
        if stop < len(text):
            eol = "\r\n" if text[:stop].endswith("\r") else "\n"
            line = text[first:stop].rstrip("\r")
            continuation = re.search(r"[ \t]*\\$", line)
            next_line = text[stop + 1 : self._line_bounds(stop + 1, stop + 1)[1]]
            indent = re.match(r"[ \t]*", line if not text[first:begin].strip() and anchor else next_line)
            front = indent.group() if indent and (anchor or next_line.strip()) else "    "
            if not front and holder.array is None:
                front = "   "
            if holder.array is not None:
                yield stop + 1, front + element + eol
            elif continuation:
                yield stop + 1, front + element + continuation.group() + eol
        yield end, f" {element}"
        yield end, f"{element} "

    def _rest(self, call: Call, view: View | None = None) -> tuple[str, ...]:
        """All words of a call that are no ivshmem device: these may not change."""
        view = view or self.view
        result = []
        for number, holder in enumerate(call.holders):
            ours = {
                word
                for device in call.devices
                if device.kind == "ivshmem" and device.edit is not None and device.holder is holder
                for word in range(device.first, device.last + 1)
            }
            result.append(str(number))
            result += [view.text[w.start : w.end] for i, w in enumerate(holder.words) if i not in ours]
        return tuple(result)

    def _check(self, index: int, before: tuple[str, ...], placed: Sequence[Device]) -> None:
        """The last gate: what acrn-dm will get is what was asked for and all else is as before."""
        call = self._call(index)
        found = {(found_device(each).name, each.bdf, self._plain(each)) for each in self._ivshmem(call)}
        wanted = {(device.prefixed, Bdf(0, device.slot or 0, 0), options_of(device)) for device in placed}
        readable = {item for item in found if item[2] is not None}
        if not wanted <= found or (self.state == "exact" and readable != wanted) or self._rest(call) != before:
            raise IvshmemError(
                f"{self.where}: line {call.line}: the layout of this acrn-dm command is not understood well enough to "
                "change it safely; write one argument a line, without variables in the ivshmem devices"
            )
