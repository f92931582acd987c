# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of udev that keep functions bound over a reboot.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._functions import ALL
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._kernel import RESOURCES, VFIO
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

MARKER = "# Managed by the Ansible module acrn.ivshmem.guest_device: changes made by hand are lost."
_BLOCK = re.compile(r"^# function (\S+) name (\S+) driver (\S+)$", re.MULTILINE)


def rule_block(
    key: str, name: str | None, driver: str | None, group: str | None, mode: int | None, bound: str | None = None
) -> str:
    """The udev rules of one function (``key`` is its address) or of all of them (``ALL``).

    ``driver`` None leaves the binding out. By ``driver_override`` the rule binds this function and no other, also
    when the module was loaded earlier (then by drivers_probe) or the function appears later. ``bound`` is the driver
    that this collection has given the function without such a rule: what gives it back knows by that.
    """
    match = f'KERNEL=="{key}", ' if key != ALL else ""
    pci = f'ACTION=="add", SUBSYSTEM=="pci", {match}ATTR{{vendor}}=="0x1af4", ATTR{{device}}=="0x1110"'
    lines = [f"# function {key} name {name or '-'} driver {driver or bound or '-'}"]
    if driver:
        lines.append(
            f'{pci}, ATTR{{driver_override}}="{driver}", RUN{{builtin}}+="kmod load {driver}", '
            'ATTR{[subsystem/pci]drivers_probe}="$kernel"'
        )
    if driver == VFIO:
        return "\n".join(lines) + "\n"
    node = 'SUBSYSTEM=="uio", ' + (f'KERNELS=="{key}", ' if key != ALL else "")
    node += 'ATTRS{vendor}=="0x1af4", ATTRS{device}=="0x1110"'
    settings = []
    if name:
        settings.append(f'SYMLINK+="ivshmem/{name}"')
    if group:
        settings.append(f'GROUP="{group}"')
    if mode is not None:
        settings.append(f'MODE="{mode:04o}"')
        # $$ is udev's way to write a $ for the shell.
        change = f"chgrp {group} $$f && chmod {mode:04o} $$f" if group else f"chmod {mode:04o} $$f"
        lines.append(
            f"{pci}, RUN+=\"/bin/sh -c 'cd /sys$devpath && for f in {' '.join(RESOURCES)}; "
            f"do [ ! -e $$f ] || {{ {change}; }}; done'\""
        )
    if settings:
        lines.append(f"{node}, {', '.join(settings)}")
    return "\n".join(lines) + "\n"


def parse_rules(text: str | None, path: str) -> dict[str, tuple[str, str, str]]:
    """The blocks of a rules file: key -> (block, name, driver). Raises IvshmemError for a file of somebody else."""
    if not text:
        return {}
    if not text.startswith(MARKER):
        raise IvshmemError(f"{path} was not written by acrn.ivshmem.guest_device: move it away, nothing was changed")
    starts = list(_BLOCK.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return {
        match.group(1): (text[match.start() : end].rstrip("\n") + "\n", match.group(2), match.group(3))
        for match, end in zip(starts, ends)
    }


def render_rules(blocks: Mapping[str, str]) -> str | None:
    """The file for these blocks, or None where no file is wanted."""
    if not blocks:
        return None
    # What is said of one function comes after what is said of all: the last assignment counts for udev.
    return "\n".join([MARKER + "\n", *(blocks[key] for key in sorted(blocks, key=lambda key: (key != ALL, key)))])
