# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Service VM's boot loader shall hold, and what its state means. No file is read or written here.

An *entry* is one way to boot one hypervisor: its name is ``KEY.REVISION``, the key of the build and a digest of
the menu entry's text, so a change of the kernel or of the command line is tried as carefully as a new hypervisor.
Three variables of GRUB's environment block (grubenv) carry the state that GRUB itself sees:

- ``next_entry``: GRUB's own; the entry of the next boot only. GRUB clears it before it boots.
- ``acrn_ivshmem_default``: the entry of every other boot. Absent: the host's own default.
- ``acrn_ivshmem_tried``: written by GRUB, when it begins to boot one of our entries because of ``next_entry``.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.acrn.ivshmem.plugins.module_utils import _boot_menu
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import PRE_LAUNCHED, SERVICE, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario import read_scenario

# The last of the menu: an entry before others would shift the number by which a host may name its default.
SCRIPT = "/etc/grub.d/zzzz_acrn_ivshmem"
OLD_SCRIPTS = ("/etc/grub.d/42_acrn_ivshmem",)
MARKER = "acrn_ivshmem.entry"
DEFAULT = "acrn_ivshmem_default"
TRIED = "acrn_ivshmem_tried"
HOST = "acrn_ivshmem_host"
MENU = "acrn_ivshmem_menu"
NEXT = "next_entry"
ID_PREFIX = "acrn-ivshmem-"
HISTORY = 50
SERVICE_VM_TAG = "Linux_bzImage"

_KEY = re.compile(r"[0-9a-z][0-9a-z_-]{3,63}")
_ENTRY = re.compile(r"[0-9a-z][0-9a-z_-]{3,63}\.[0-9a-f]{8}")
_ENV_HEADER = b"# GRUB Environment Block\n"
# A backslash takes the next character as it is, also a line feed.
_ENV_LINE = re.compile(r"[^\\\n]*(?:\\.[^\\\n]*)*", re.S)
# GRUB's block has 1 KiB; a larger one than this is no block that anybody made for GRUB.
ENV_LIMIT = 64 * 1024
# grub-mkconfig puts an empty line before each section.
_SECTION = re.compile(r"(?m)^(?:\r?\n)?### BEGIN (/\S*)")


def check_key(key: str) -> str:
    """The key itself, if it can be a directory name and part of a menu ID. Raises IvshmemError."""
    if not _KEY.fullmatch(key):
        raise IvshmemError(f"key {key!r}: a key is 4 to 64 lower-case letters, digits, - and _")
    return key


def key_of(entry: str | None) -> str | None:
    """The key of an entry's name."""
    return entry.split(".")[0] if entry else None


def entry_of_id(menu_id: str | None) -> str | None:
    """The name of the entry that a menu ID stands for; None for an ID that is not ours."""
    name = menu_id[len(ID_PREFIX) :] if menu_id and menu_id.startswith(ID_PREFIX) else ""
    return name if _ENTRY.fullmatch(name) else None


# ---- the environment block ----


def parse_env(data: bytes) -> dict[str, str]:
    """The variables of an environment block. Raises IvshmemError if it is none (grub-core/lib/envblk.c)."""
    if not data.startswith(_ENV_HEADER):
        raise IvshmemError("grubenv: this is no environment block of GRUB; mend it with: grub-editenv - create")
    found: dict[str, str] = {}
    text, at = data.decode("latin-1"), len(_ENV_HEADER)
    while True:
        # One pass, for the block ends in a padding that may be long. What follows the last line feed is no line.
        match = _ENV_LINE.match(text, at)
        if match is None or text[match.end() : match.end() + 1] != "\n":
            return found
        at = match.end() + 1
        name, equals, value = match.group().partition("=")
        if equals and not name.startswith("#"):
            found[name] = re.sub(r"\\(.)", r"\1", value, flags=re.S)


def change_env(data: bytes, changes: Mapping[str, str | None]) -> bytes:
    """An environment block of the same size with variables set, or removed where the value is None.

    Raises IvshmemError if they do not fit.
    """
    before = parse_env(data)
    after = {**before, **{name: value for name, value in changes.items() if value is not None}}
    for name, value in changes.items():
        if value is None:
            after.pop(name, None)
    if before == after:
        return data
    text = _ENV_HEADER.decode()
    for comment in re.findall(rb"^# .*\n", data[len(_ENV_HEADER) :], re.M):
        text += comment.decode("latin-1")
    for name, value in after.items():
        text += f"{name}={value}".replace("\\", "\\\\").replace("\n", "\\\n") + "\n"
    made = text.encode("latin-1")
    if len(made) > len(data):
        raise IvshmemError(
            f"grubenv: {len(made)} bytes do not fit in its {len(data)}; remove variables with grub-editenv"
        )
    return made.ljust(len(data), b"#")


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


# ---- the menu ----


@dataclass(frozen=True)
class Place:
    """A file as GRUB finds it: the UUID of its file system, and the path from that file system's root."""

    uuid: str
    path: str


def quoted(word: str) -> str:
    """A word for a GRUB script. Raises IvshmemError for control characters."""
    if re.search(r"[\x00-\x1f\x7f]", word):
        raise IvshmemError(f"{word!r}: a line of the boot menu cannot hold control characters")
    if re.fullmatch(r"[A-Za-z0-9_./:,=@%+-]+", word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def render_entry(
    title: str,
    key: str,
    image: Place,
    arguments: str,
    modules: Sequence[tuple[Place, str]],
    packed: Sequence[Place] = (),
) -> tuple[str, str]:
    """Name and text of the menu entry that boots a hypervisor.

    ``arguments`` is for the Service VM's kernel: ACRN appends its own command line to what the scenario says
    (hypervisor/boot/guest/vboot_info.c init_vm_bootargs_info). There the marker goes by which the running Service VM
    tells which entry booted it. ``modules``: files with their tags; an initrd is ``packed``, as it is on the disk.
    """
    loaded = [("module2 --nounzip" if place in packed else "module2", place, tag) for place, tag in modules]
    disks = {image.uuid: ""}
    lines = ["", f"\tsearch --no-floppy --fs-uuid --set=root {quoted(image.uuid)}"]

    def path_of(place: Place) -> str:
        if place.uuid not in disks:
            variable = f"acrn_ivshmem_disk{len(disks)}"
            disks[place.uuid] = f"(${variable})"
            lines.insert(1 + len(disks), f"\tsearch --no-floppy --fs-uuid --set={variable} {quoted(place.uuid)}")
        return disks[place.uuid] + quoted(place.path)

    words = " ".join(quoted(word) for word in arguments.split())
    loads = [f"multiboot2 {path_of(image)} {words}".rstrip() + f" {MARKER}=@ENTRY@"]
    loads += [f"{command} {path_of(place)} {quoted(tag) if tag else ''}".rstrip() for command, place, tag in loaded]
    lines += [f"\tif {command}; then" for command in loads]
    # GRUB before 2.12 takes nothing but numbers as a fallback, so an entry that cannot be booted goes on by itself:
    # from a trial to the default, and from the default to the host's own. Only a failure comes behind "boot".
    lines += ["\tboot", *["\tfi"] * len(loads)]
    lines += [
        '\tif [ -z "${boot_once}" ]; then',
        f"\t\tset {HOST}=1\n\t\texport {HOST}",
        f'\tfi\n\tconfigfile "${{{MENU}}}"',
    ]
    # Which entry a boot really began with is GRUB's to say: nobody else is there when a hypervisor hangs.
    # A host with a password for its menu shall boot this entry without one, as it does its others.
    lines[0] = (
        f"menuentry {quoted(title)} --class acrn --unrestricted --id {ID_PREFIX}@ENTRY@ {{\n"
        '\tif [ -n "${boot_once}" ]; then\n'
        f"\t\tset {TRIED}=@ENTRY@\n\t\tsave_env {TRIED}\n\tfi"
    )
    text = "\n".join([*lines, "}", ""])
    entry = f"{check_key(key)}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return entry, text.replace("@ENTRY@", entry)


def _end_of_next_entry(grub_cfg: str) -> int | None:
    """Where the part of a menu ends that boots ``next_entry`` once; None where it has none."""
    lines = grub_cfg.splitlines(keepends=True)
    inside, where = False, 0
    for at, line in enumerate(lines):
        if line.endswith('if [ "${next_entry}" ] ; then\n'):
            inside = True
        value, end = [*lines[at + 1 : at + 3], "", ""][:2]
        if inside and line == "else\n" and end == "fi\n" and re.fullmatch(r'\s*set default="[^\n]*"\n', value):
            return where + len(line) + len(value) + len(end)
        where += len(line)
    return None


def check_menu(grub_cfg: str) -> None:
    """Raise IvshmemError unless this is a menu in which an entry can be tried once, and that our section fits in."""
    # What GRUB writes by itself begins each script's part with such a line.
    if not re.search(r"(?m)^### BEGIN /", grub_cfg):
        raise IvshmemError("grub.cfg has no sections, so it was not made by grub-mkconfig; make it with update-grub")
    end = _end_of_next_entry(grub_cfg)
    if end is None:
        raise IvshmemError(
            "grub.cfg has no part that boots next_entry once, so it was not made by grub-mkconfig of "
            "GRUB 2; make it with update-grub"
        )
    for command in _boot_menu.parse(splice(grub_cfg, None)[end:]):
        if command.depth == 0 and command.words[0] == "set" and "".join(command.words[1:2]).startswith("default="):
            line = grub_cfg[:end].count("\n") + command.line
            raise IvshmemError(
                f"grub.cfg, line {line}: sets {command.words[1]} for each boot, behind the part that boots next_entry "
                "once, so that no trial boot would begin; put the default into GRUB_DEFAULT of /etc/default/grub"
            )


def waits_for_ever(grub_cfg: str) -> bool:
    """Whether GRUB waits at its menu until somebody chooses."""
    settings = [command.words[1:2] for command in _boot_menu.parse(grub_cfg) if command.words[0] == "set"]
    return ["timeout=-1"] in settings


def render_section(entries: Iterable[str]) -> str:
    """Our part of the menu: the entries, and the lines that choose the default among them."""
    return (
        "".join(entries)
        # GRUB knows the name of its menu while it reads it, and not when an entry is booted.
        + f"""\
if [ -n "${{config_file}}" ]; then
\tset {MENU}="${{config_file}}"
else
\tset {MENU}="${{prefix}}/grub.cfg"
fi
if [ -n "${{{HOST}}}" ]; then
\tunset {HOST}
elif [ -z "${{boot_once}}" -a -n "${{{DEFAULT}}}" ]; then
\tset default="{ID_PREFIX}${{{DEFAULT}}}"
fi
"""
    )


def render_script(section: str) -> str:
    """The file in /etc/grub.d that prints the section whenever somebody runs update-grub."""
    return (
        "#!/bin/sh\n"
        "# Written by the Ansible collection acrn.ivshmem, role hypervisor. Changes are lost.\n"
        'exec tail -n +4 "$0"\n'
    ) + section


def splice(grub_cfg: str, section: str | None) -> str:
    """grub.cfg with our section at its end, as grub-mkconfig would write it, or without; everything else as it was."""
    found = list(_SECTION.finditer(grub_cfg))
    starts = [match.start() for match in found]
    texts = [grub_cfg[: starts[0]] if starts else grub_cfg]
    for match, start, end in zip(found, starts, [*starts[1:], len(grub_cfg)]):
        script, text = match.group(1), grub_cfg[start:end]
        if script in (SCRIPT, *OLD_SCRIPTS):
            # What somebody wrote behind it stays. One that is cut ends where the next one begins.
            text = text.partition(f"### END {script} ###")[2].partition("\n")[2]
        texts.append(text)
    text = "".join(texts)
    if section is None:
        return text
    if not text.endswith("\n"):
        text += "\n"  # a line that somebody added by hand
    return f"{text}\n### BEGIN {SCRIPT} ###\n{section}### END {SCRIPT} ###\n"


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
    return found[-1] if found and _ENTRY.fullmatch(found[-1]) else None


def boot_of(env: Mapping[str, str], cmdline: str) -> Boot:
    """The boot state, from grubenv and the running kernel's command line."""

    def name(text: str | None) -> str | None:
        return text if text and _ENTRY.fullmatch(text) else None

    return Boot(running_entry(cmdline), name(env.get(DEFAULT)), entry_of_id(env.get(NEXT)), name(env.get(TRIED)))


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
