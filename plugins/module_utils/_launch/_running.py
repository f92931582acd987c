# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hypervisor a Service VM runs, as far as its boot entry and what is installed tell.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import key_of, running_entry
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import read_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

CMDLINE = "/proc/cmdline"


def command_line() -> str:
    """What the kernel was started with; nothing where that cannot be read."""
    try:
        with open(CMDLINE, encoding="utf-8", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def running_key() -> str | None:
    """The key of the build that runs; None for a hypervisor that this collection has not installed."""
    return key_of(running_entry(command_line()))


def installed(folder: str, name: str) -> list[str]:
    """The keys of the builds in hypervisor_install's directory that have a file of this name."""
    if not os.path.isdir(folder):
        return []
    return [key for key in sorted(os.listdir(folder)) if os.path.exists(os.path.join(folder, key, name))]


def manifest_path(path: str) -> str:
    """The manifest that is meant: the file itself, or in hypervisor_install's directory that of what runs."""
    return os.path.join(path, running_key() or "", "manifest.json") if os.path.isdir(path) else path


def read_manifest(path: str) -> Any:
    try:
        return json.loads(read_file(path).decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise IvshmemError(f"{path}: is no JSON: {exc}") from None
