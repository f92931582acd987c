# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether anybody in a guest uses an ivshmem function: only where nobody does, a proof may write unasked.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone. In doubt, a function is in use: a process that cannot be
looked at, a mapping of all memory, a vfio device of which it cannot be told which it is.
"""

from __future__ import annotations

import os
import re
import stat

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _functions, _kernel


def _nodes(kernel: _kernel.Kernel, function: _functions.Function) -> set[str]:
    nodes = {f"/dev/{function.uio}"} if function.uio else set()
    node = _functions.vfio_node(kernel, function) if function.driver == _kernel.VFIO else None
    return nodes | ({node} if node else set())


def _names(function: _functions.Function, nodes: set[str]) -> re.Pattern[str]:
    """What the maps and the open files of a user name. Files of sysfs end so in every mount namespace."""
    words = [rf"/{re.escape(function.address)}/resource[0-5](?:_wc)?", "/dev/mem", *map(re.escape, nodes)]
    if function.driver == _kernel.VFIO:
        words.append(re.escape("anon_inode:[vfio-device]"))
    return re.compile(rf"(?:{'|'.join(words)})(?: \(deleted\))?$", re.MULTILINE)


def _number(kernel: _kernel.Kernel, path: str) -> int | None:
    """The device number of a node, which is the same in a container that has made its own node."""
    try:
        found = os.stat(kernel.path(path))
    except OSError:
        return None
    return found.st_rdev if stat.S_ISCHR(found.st_mode) else None


class _Process:
    def __init__(self, kernel: _kernel.Kernel, pid: int) -> None:
        self.folder = kernel.path(f"/proc/{pid}")

    def maps(self) -> str:
        with open(f"{self.folder}/maps", encoding="utf-8", errors="replace") as handle:
            return handle.read()

    def opened(self) -> list[tuple[str, str]]:
        """Each open file: what it is called, and where to ask for its device number."""
        found = []
        for name in os.listdir(f"{self.folder}/fd"):
            path = f"{self.folder}/fd/{name}"
            try:
                found.append((os.readlink(path), path))
            except FileNotFoundError:
                continue
        return found

    def command(self) -> str:
        try:
            with open(f"{self.folder}/comm", encoding="utf-8", errors="replace") as handle:
                return re.sub(r"[^ -~]", "?", handle.read(64).strip())
        except OSError:
            return "?"


def _uses(process: _Process, names: re.Pattern[str], numbers: set[int]) -> bool:
    if names.search(process.maps()):
        return True
    for name, path in process.opened():
        if names.search(name):
            return True
        if numbers and name.startswith("/"):
            try:
                found = os.stat(path)
            except OSError:
                continue
            if stat.S_ISCHR(found.st_mode) and found.st_rdev in numbers:
                return True
    return False


def users(kernel: _kernel.Kernel, function: _functions.Function, agent: int | None = None) -> list[str]:
    """Who uses a function, or may use it: a driver of the kernel, or processes as ``COMMAND (process PID)``.

    This process, and ``agent``, which listens for the proof, are no users.
    """
    if function.driver not in (None, *_kernel.DRIVERS):
        return [f"driver {function.driver}"]
    own = {os.getpid(), agent}
    found = []
    nodes = _nodes(kernel, function)
    names = _names(function, nodes)
    numbers = {number for number in (_number(kernel, node) for node in nodes) if number is not None}
    pids = [int(name) for name in kernel.names("/proc") if name.isdigit()]
    if not pids:
        return ["not known, as /proc cannot be read"]
    for pid in pids:
        if pid in own:
            continue
        process = _Process(kernel, pid)
        try:
            if _uses(process, names, numbers):
                found.append(f"{process.command()} (process {pid})")
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            found.append(f"perhaps {process.command()} (process {pid}), which cannot be looked at")
    return found
