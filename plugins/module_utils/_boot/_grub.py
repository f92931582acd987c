# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GRUB's menu and its environment block, as texts. No file is read or written here.

Three variables of the environment block (grubenv) carry the state that GRUB itself sees:

- ``next_entry``: GRUB's own; the entry of the next boot only. GRUB clears it before it boots.
- ``acrn_ivshmem_default``: the entry of every other boot. Absent: the host's own default.
- ``acrn_ivshmem_tried``: written by GRUB, when it begins to boot one of our entries because of ``next_entry``.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _menu
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import (
    ENTRY,
    ID_PREFIX,
    MARKER,
    Boot,
    check_key,
    entry_of_id,
    running_entry,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# The last of the menu: an entry before others would shift the number by which a host may name its default.
SCRIPT = "/etc/grub.d/zzzz_acrn_ivshmem"
OLD_SCRIPTS = ("/etc/grub.d/42_acrn_ivshmem",)
DEFAULT = "acrn_ivshmem_default"
TRIED = "acrn_ivshmem_tried"
CUSTOM = "custom.cfg"
HOST = "acrn_ivshmem_host"
MENU = "acrn_ivshmem_menu"
NEXT = "next_entry"
# Where GRUB looks for a file's signature.
SIGNATURE = ".sig"

_ENV_HEADER = b"# GRUB Environment Block\n"
# As grub-editenv creates it.
NEW_ENV = _ENV_HEADER.ljust(1024, b"#")
# A backslash takes the next character as it is, also a line feed.
_ENV_LINE = re.compile(r"[^\\\n]*(?:\\.[^\\\n]*)*", re.S)
# GRUB's block has 1 KiB; a larger one than this is no block that anybody made for GRUB.
ENV_LIMIT = 64 * 1024
# grub-mkconfig puts an empty line before each section.
_SECTION = re.compile(r"(?m)^(?:\r?\n)?### BEGIN (/\S*)")


# ---- the environment block ----


def parse_env(data: bytes) -> dict[str, str]:
    """The variables of an environment block. Raises IvshmemError if it is none (grub-core/lib/envblk.c)."""
    if not data.startswith(_ENV_HEADER):
        raise IvshmemError("this is no environment block of GRUB; mend it with: grub-editenv - create")
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
        # An editor has taken away what fills it up.
        mend = (
            "make it anew: grub-editenv - create" if len(data) < len(NEW_ENV) else "remove variables with grub-editenv"
        )
        raise IvshmemError(f"{len(made)} bytes do not fit in its {len(data)}; {mend}")
    return made.ljust(len(data), b"#")


def boot_of(env: Mapping[str, str], cmdline: str) -> Boot:
    """The boot state, from grubenv and the running kernel's command line."""

    def name(text: str | None) -> str | None:
        return text if text and ENTRY.fullmatch(text) else None

    return Boot(running_entry(cmdline), name(env.get(DEFAULT)), entry_of_id(env.get(NEXT)), name(env.get(TRIED)))


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
    check_default(splice(grub_cfg, None)[end:], "grub.cfg", grub_cfg[:end].count("\n"))


def check_default(text: str, name: str, before: int = 0) -> None:
    """Raise IvshmemError if a part of the menu, behind ``before`` lines, overrules what boots once."""
    for command in _menu.parse(text):
        if command.depth == 0 and command.words[0] == "set" and "".join(command.words[1:2]).startswith("default="):
            raise IvshmemError(
                f"{name}, line {before + command.line}: sets {command.words[1]} for each boot, behind the part "
                "that boots next_entry once, so that no trial boot would begin; put the default into GRUB_DEFAULT of "
                "/etc/default/grub"
            )


def reads_custom(grub_cfg: str) -> bool:
    """Whether GRUB reads a custom.cfg beside its menu with it (grub.d/41_custom)."""
    reads = (
        command.words[1]
        for command in _menu.parse(grub_cfg)
        if command.words[0] in ("source", ".", "configfile") and len(command.words) > 1
    )
    return CUSTOM in grub_cfg and any(path.rsplit("/", 1)[-1] == CUSTOM for path in reads)


def waits_for_ever(grub_cfg: str) -> bool:
    """Whether GRUB waits at its menu until somebody chooses."""
    settings = [command.words[1:2] for command in _menu.parse(grub_cfg) if command.words[0] == "set"]
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
