# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Boot entries, the state of a host that tries them, and what is to be done next. No file is read or written here.

An *entry* is one way to boot one hypervisor: its name is ``KEY.REVISION``, the key of the build and a digest of
the menu entry's text, so a change of the kernel or of the command line is tried as carefully as a new hypervisor.
Nothing here knows which boot loader it is: the state that one has is a Boot, what the host remembers beside it a
State.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import PRE_LAUNCHED, SERVICE, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario

MARKER = "acrn_ivshmem.entry"
ID_PREFIX = "acrn-ivshmem-"
HISTORY = 50
SERVICE_VM_TAG = "Linux_bzImage"

_KEY = re.compile(r"[0-9a-z][0-9a-z_-]{3,63}")
ENTRY = re.compile(r"[0-9a-z][0-9a-z_-]{3,63}\.[0-9a-f]{8}")


def check_key(key: str) -> str:
    """The key itself, if it can be a directory name and part of a menu ID. Raises IvshmemError."""
    if not _KEY.fullmatch(key):
        raise IvshmemError(
            f"key {key!r} (in the role hypervisor_key): a key is 4 to 64 lower-case letters, digits, - and _"
        )
    return key


def key_of(entry: str | None) -> str | None:
    """The key of an entry's name."""
    return entry.split(".")[0] if entry else None


def entry_of_id(menu_id: str | None) -> str | None:
    """The name of the entry that a menu ID stands for; None for an ID that is not ours."""
    name = menu_id[len(ID_PREFIX) :] if menu_id and menu_id.startswith(ID_PREFIX) else ""
    return name if ENTRY.fullmatch(name) else None


# ---- what a scenario wants GRUB to load ----


@dataclass(frozen=True)
class Modules:
    """Tags of the modules that the hypervisor looks for: of the Service VM, and of the pre-launched VMs.

    ``ramdisk`` is empty where the scenario has no tag: ACRN then takes a module whose string is empty
    (hypervisor/boot/guest/vboot_info.c, get_mod_by_tag, v2.2 to v3.3). So does each VM in ``sharers``.
    """

    kernel: str | None
    ramdisk: str
    others: tuple[str, ...]
    acpi: tuple[str, ...]
    sharers: tuple[str, ...] = ()
    bootargs: str = ""


def wanted_modules(scenario: bytes, version: str = "", where: str = "scenario.xml of the artefact") -> Modules:
    """Read tags and boot arguments from the scenario XML that the builder compiled in. Raises IvshmemError."""
    kernel, ramdisk, bootargs = None, "", ""
    others: list[str] = []
    acpi: list[str] = []
    sharers: list[str] = []
    # Up to v2.4 a ramdisk is copied for each kind of kernel, later for a bzImage alone (bzimage_loader.c).
    any_kernel = re.match(r"v?2\.[2-4]\b", version) is not None
    for vm in read_scenario(scenario, where).vms:
        if vm.load_order == SERVICE:
            kernel, ramdisk, bootargs = vm.kern_mod or SERVICE_VM_TAG, vm.ramdisk_mod, vm.bootargs
        elif vm.load_order == PRE_LAUNCHED:
            others += [tag for tag in (vm.kern_mod, vm.ramdisk_mod) if tag and tag not in others]
            acpi.append(f"ACPI_VM{vm.id}")
            if not vm.ramdisk_mod and (any_kernel or vm.kern_type in ("", "KERNEL_BZIMAGE")):
                sharers.append(vm.name)
    return Modules(kernel, ramdisk, tuple(others), tuple(acpi), tuple(sharers), bootargs)


# ---- the state ----


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _event(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("time"), int):
        return False
    return all(value.get(name) is None or _text(value[name]) for name in ("event", "entry", "detail"))


# What the members of state.json are, where they are there.
_STATE_TYPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("previous", "wanted", "trial"), _text),
    "came_up": lambda value: isinstance(value, bool),
    "failed": lambda value: isinstance(value, dict) and all(map(_text, value.values())),
    "installed": lambda value: isinstance(value, list) and all(map(_text, value)),
    "history": lambda value: isinstance(value, list) and all(map(_event, value)),
}


@dataclass(frozen=True)
class Move:
    """A change of the default. It is noted before it is made, so the way back is known wherever the power goes."""

    before: str | None
    after: str | None
    given_up: bool = False  # somebody asked for it

    @classmethod
    def parse(cls, value: Any) -> Move:
        """From what as_dict() gave. Raises TypeError or KeyError."""
        made = cls(value["before"], value["after"], value["given_up"])
        if not all(name is None or _text(name) for name in (made.before, made.after)):
            raise TypeError("move")
        return made

    def as_dict(self) -> dict[str, Any]:
        return {"before": self.before, "after": self.after, "given_up": self.given_up}


@dataclass
class State:
    """What the host remembers beside grubenv, in state.json. Times are in seconds since 1970."""

    previous: str | None = None
    wanted: str | None = None  # the entry that the last run worked towards
    trial: str | None = None
    came_up: bool = False  # the trial's kernel was seen running
    move: Move | None = None  # a change of the default that was begun, and is not on record yet
    failed: dict[str, str] = field(default_factory=dict)
    installed: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def parse(cls, value: Any) -> State:
        """From what state.json holds. Raises IvshmemError."""
        if not isinstance(value, dict) or value.get("version") != 1:
            raise IvshmemError("state.json is of no version that this collection knows")
        try:
            for name, right in _STATE_TYPES.items():
                if value.get(name) is not None and not right(value[name]):
                    raise TypeError(name)
            move = Move.parse(value["move"]) if value.get("move") is not None else None
        except (TypeError, KeyError) as exc:
            raise IvshmemError(f"state.json is not what this collection writes (see {exc})") from exc
        lists = {name: value.get(name) or [] for name in ("installed", "history")}
        return cls(
            previous=value.get("previous"),
            wanted=value.get("wanted"),
            trial=value.get("trial"),
            came_up=bool(value.get("came_up")),
            move=move,
            failed=value.get("failed") or {},
            **lists,
        )

    def as_dict(self) -> dict[str, Any]:
        """What state.json shall hold."""
        return {
            "version": 1,
            "previous": self.previous,
            "wanted": self.wanted,
            "trial": self.trial,
            "came_up": self.came_up,
            "move": self.move.as_dict() if self.move else None,
            "failed": self.failed,
            "installed": self.installed,
            "history": self.history[-HISTORY:],
        }

    def settle(self, boot: Boot) -> Move | None:
        """Take a change of the default on record, if it was made, and return it; forget one that was not."""
        move, self.move = self.move, None
        if move is None or move.after != boot.default:
            return None
        self.previous = move.before
        return move

    def chosen(self, running: str | None) -> str | None:
        """The entry that runs, if it was the last to be made the default, and has not failed since."""
        changes = [line for line in self.history if line.get("event") in ("default", "rolled back")]
        last = changes[-1] if changes else {}
        right = last.get("event") == "default" and last.get("entry") == running and running not in self.failed
        return running if right and not self.trial else None

    def note(self, time: int, event: str, entry: str | None, detail: str = "") -> None:
        """Add a line to the history."""
        line = {"time": time, "event": event, "entry": entry}
        self.history.append({**line, "detail": detail} if detail else line)


@dataclass(frozen=True)
class Boot:
    """How the host is booted and how it will be: entry names, None for the host's own entry."""

    running: str | None
    default: str | None
    next: str | None
    tried: str | None


def running_entry(cmdline: str) -> str | None:
    """The entry that booted a kernel with this command line. The last marker counts."""
    found = re.findall(rf"(?:^|\s){re.escape(MARKER)}=(\S+)", cmdline)
    return found[-1] if found and ENTRY.fullmatch(found[-1]) else None


# What is to be done for an entry, by decide().
DONE = "done"  # it runs and is the default
PROVE = "prove"  # it runs and is not the default yet
ARM = "arm"  # it has to be booted once
WAIT = "wait"  # the next boot will be its trial
FELL_BACK = "fell_back"  # GRUB began to boot it, and it does not run
REFUSE = "refuse"  # it failed earlier


def decide(wanted: str | None, boot: Boot, state: State, retry: bool = False) -> str:
    """What the next step towards an entry (None: the host's own) is.

    The trial's outcome is read from what GRUB wrote, so it does not matter at which step the power went, or who
    rebooted the host.
    """
    if wanted == boot.running:
        return DONE if wanted == boot.default and state.trial is None else PROVE
    if wanted is None:
        return ARM if boot.default else WAIT
    if state.trial == wanted:
        if boot.next == wanted:
            return WAIT
        if boot.tried == wanted:
            # One that came up and was lost before it was judged, such as in a power cut, is tried again.
            return ARM if retry or state.came_up else FELL_BACK
    elif wanted in state.failed and not retry:
        return REFUSE
    return ARM


def fallen(boot: Boot, state: State) -> str | None:
    """The entry whose trial began, and ended with another one running, before a run has judged it."""
    trial = state.trial
    if trial and trial == boot.tried and trial not in (boot.running, boot.next) and not state.came_up:
        return trial
    return None


def why_fallen(boot: Boot) -> str:
    """The reason that is kept for such an entry."""
    return f"its trial boot ended with {boot.running or 'the entry of the host'} running"


def pending(boot: Boot, state: State) -> tuple[bool, str | None]:
    """Whether the host waits for a reboot, and for which entry (None: the host's own)."""
    goal = boot.default
    if boot.next:
        goal = boot.next
    elif state.wanted and state.wanted not in state.failed and state.wanted != fallen(boot, state):
        goal = state.wanted  # if it is not armed: its trial is due, and nobody has allowed it yet
    return (False, None) if goal == boot.running else (True, goal)


def with_found(installed: Sequence[str], found: Sequence[str]) -> list[str]:
    """Keys of builds, the oldest first: those on record, and before them those that only the disk knows."""
    return [*(key for key in found if key not in installed), *installed]


def kept_keys(wanted: str | None, boot: Boot, state: State, keep: int) -> list[str]:
    """Keys whose files stay: those that a boot may need, and the last ones until there are ``keep``; oldest first.

    An entry that failed is not among the last ones.
    """
    needed = {key_of(entry) for entry in (wanted, boot.running, boot.default, boot.next, state.previous, state.trial)}
    bad = {key_of(entry) for entry in state.failed}
    good = [key for key in state.installed if key not in bad or key in needed]
    last = good[-keep:] if keep > 0 else []
    return [key for key in state.installed if key in needed or key in last]


def kept_entries(
    entries: Iterable[str], keys: Sequence[str], wanted: str | None, boot: Boot, state: State
) -> list[str]:
    """Entries that stay in the menu, of all that the host has: those that a boot may need, and those of other
    kept keys.
    """
    needed = {wanted, boot.running, boot.default, boot.next, state.previous, state.trial}
    known = {key_of(entry) for entry in needed}
    return [entry for entry in entries if entry in needed or (key_of(entry) in keys and key_of(entry) not in known)]


def menu_order(entries: Iterable[str], keys: Sequence[str]) -> list[str]:
    """Entries in the order of the menu: that of the newest key first. ``keys``: the oldest first."""

    def order(entry: str) -> tuple[int, str]:
        key = key_of(entry)
        return (-keys.index(key) if key in keys else 1, entry)

    return sorted(entries, key=order)
