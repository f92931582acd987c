# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The memory of dm-land regions in /dev/shm: whether it fits, who uses it, and which VMs run with which devices.

This module util is PRIVATE to the collection: it can change at any time.

acrn-dm makes /dev/shm/NAME with the region's size, mode 0600, and never removes it. Where the file is there with
another size it says "shm size is different" and ends (devicemodel/hw/pci/ivshmem.c, create_ivshmem_from_dm).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    known_as,
    options_of,
    plain_options,
    read_arguments,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import DEVICE_MODEL, PREFIXES, Device, IvshmemError

MB = 1 << 20

_DEVICE_MODEL = re.compile(r"acrn[-_]dm(?:[-._][\w.-]*)?")
_INTERPRETER = re.compile(r"python|bash|dash|sh$|env$")
_UNIT = re.compile(r"/acrn-vm@([^/]+)\.service(?:/|$)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_]{1,27}")


@dataclass(frozen=True)
class Process:
    """A process; ``vm`` is the VM whose device model it is or belongs to, if it is one."""

    pid: int
    command: str
    vm: str | None


@dataclass(frozen=True)
class Memory:
    """The file of a region. ``size`` and ``wanted`` are in bytes; None: no file, or the region is to go."""

    name: str
    path: str
    size: int | None
    wanted: int | None
    holders: tuple[Process, ...] = ()

    @property
    def stale(self) -> bool:
        """Whether the file is in the way: of another size, or of a region that is no more."""
        return self.size is not None and self.size != self.wanted


@dataclass(frozen=True)
class RunningVm:
    """A device model that runs. ``devices`` are the values of its ivshmem arguments as (slot, options)."""

    pid: int
    vm: str
    devices: frozenset[tuple[int, str]]
    uuid: str | None = None  # what -U has

    def dm_regions(self) -> set[str]:
        """The names of its dm-land regions."""
        return {options[4:].split(",")[0] for _slot, options in self.devices if options[:4] == PREFIXES[DEVICE_MODEL]}

    def fits(self, wanted: Iterable[Device], version: tuple[int, int] | None = None) -> bool:
        """Whether it was started with these devices, as acrn-dm of this ACRN version reads them.

        One without a slot may be at any.
        """
        left = set(self.devices)
        for device in wanted:
            options, slots = options_of(device), range(32) if device.slot is None else [device.slot]
            match = [item for item in left if plain_options(item[1], version) == options and item[0] in slots]
            if not match:
                return False
            left.discard(match[0])
        return not left


class Processes:
    """A look at all processes. ``proc`` is another directory in tests."""

    def __init__(self, proc: str = "/proc") -> None:
        self.proc = proc
        self.unreadable: list[int] = []
        self._commands: dict[int, list[str]] = {}
        for entry in os.listdir(proc):
            if entry.isdigit():
                self._commands[int(entry)] = self._text(int(entry), "cmdline").split("\0")[:-1]

    def _text(self, pid: int, name: str) -> str:
        """A file of a process; empty where the process has gone."""
        try:
            with open(os.path.join(self.proc, str(pid), name), encoding="utf-8", errors="surrogateescape") as handle:
                return handle.read()
        except PermissionError:
            self.unreadable.append(pid)
            return ""
        except OSError:
            return ""

    def _arguments(self, pid: int) -> list[str] | None:
        """acrn-dm's arguments, where the process is one; a script that plays acrn-dm has an interpreter in front."""
        command = self._commands.get(pid, [])
        for index, word in enumerate(command[:4]):
            name = os.path.basename(word)
            if _DEVICE_MODEL.fullmatch(name):
                return command[index + 1 :]
            if not (_INTERPRETER.match(name) if index == 0 else word.startswith("-")):
                break
        return None

    def vm(self, pid: int) -> str | None:
        """The VM that a process belongs to: by its unit, or because it or an ancestor is acrn-dm."""
        unit = _UNIT.search(self._text(pid, "cgroup"))
        if unit:
            return unit.group(1)
        seen = set()
        while pid > 1 and pid not in seen:
            seen.add(pid)
            arguments = self._arguments(pid)
            if arguments is not None:
                return read_arguments(arguments)[0]
            match = re.search(r"^PPid:\s*(\d+)", self._text(pid, "status"), re.MULTILINE)
            pid = int(match.group(1)) if match else 0
        return None

    def vms(
        self, known: Sequence[Mapping[str, Any]] = (), version: tuple[int, int] | None = None
    ) -> tuple[RunningVm, ...]:
        """The device models that run, one for each VM, by PID. Those of ``known`` VMs have the names of these."""
        found: dict[str, RunningVm] = {}
        for pid in sorted(self._commands):
            arguments = self._arguments(pid)
            if arguments is None:
                continue
            given, uuid, devices = read_arguments(arguments)
            name = known_as(given, uuid, known, version)
            if name is None or name in found:
                continue
            ours = frozenset(
                (device.bdf.device, device.options)
                for device in devices
                if device.device == "ivshmem" and not device.bdf.bus and not device.bdf.function
            )
            found[name] = RunningVm(pid, name, ours, uuid)
        return tuple(found.values())

    def holders(self, files: Mapping[tuple[int, int], str]) -> dict[str, list[Process]]:
        """Who has files open or mapped; they are named by (device, inode), so that other mounts do not hide them."""
        result: dict[str, list[Process]] = {}
        for pid in sorted(self._commands):
            for key in self._mapped(pid) | self._opened(pid):
                if key in files:
                    command = " ".join(self._commands[pid])[:200] or self._text(pid, "comm").strip()
                    result.setdefault(files[key], []).append(Process(pid, command, self.vm(pid)))
        return result

    def _mapped(self, pid: int) -> set[tuple[int, int]]:
        found = set()
        for line in self._text(pid, "maps").splitlines():
            fields = line.split(None, 5)
            if len(fields) >= 5 and fields[4] != "0":
                major, _colon, minor = fields[3].partition(":")
                found.add((os.makedev(int(major, 16), int(minor, 16)), int(fields[4])))
        return found

    def _opened(self, pid: int) -> set[tuple[int, int]]:
        folder = os.path.join(self.proc, str(pid), "fd")
        found: set[tuple[int, int]] = set()
        try:
            numbers = os.listdir(folder)
        except PermissionError:
            self.unreadable.append(pid)
            return found
        except OSError:
            return found
        for number in numbers:
            try:
                status = os.stat(os.path.join(folder, number))
            except OSError:
                continue
            found.add((status.st_dev, status.st_ino))
        return found


def look(wanted: Mapping[str, int], absent: Iterable[str], directory: str, processes: Processes) -> tuple[Memory, ...]:
    """The files of regions: ``wanted`` gives the size in MB by name, ``absent`` are names that are to go.

    Raises IvshmemError for a name that is no region's, for what is no file, and where the processes that could use a
    stale file cannot be looked at.
    """
    result = []
    files: dict[tuple[int, int], str] = {}
    sizes: dict[str, int | None] = {name: size * MB for name, size in wanted.items()}
    for name in absent:
        sizes.setdefault(name, None)
    for name, size in sizes.items():
        if not _NAME.fullmatch(name):
            raise IvshmemError(f"'{name}' is no name of a region: it has 1 to 27 characters of A-Z, a-z, 0-9 and _")
        path = os.path.join(directory, name)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            result.append(Memory(name, path, None, size))
            continue
        except OSError as exc:
            raise IvshmemError(f"{path}: cannot be looked at: {exc.strerror}") from exc
        if not stat.S_ISREG(status.st_mode):
            raise IvshmemError(
                f"{path}: is no plain file, so acrn-dm did not make it; look at it and remove it by hand"
            )
        result.append(Memory(name, path, status.st_size, size))
        files[(status.st_dev, status.st_ino)] = name
    if not any(memory.stale for memory in result):
        return tuple(result)
    holders = processes.holders(files)
    hidden = [pid for pid in processes.unreadable if processes.vm(pid) is not None]
    if hidden:
        raise IvshmemError(
            f"process {hidden[0]} is that of a VM and cannot be looked at, so it is not known whether it uses "
            f"{', '.join(memory.path for memory in result if memory.stale)}; run as root"
        )
    return tuple(
        Memory(memory.name, memory.path, memory.size, memory.wanted, tuple(holders.get(memory.name, ())))
        for memory in result
    )


def lacks_room(memories: Sequence[Memory], directory: str) -> str:
    """Why the memory of regions that acrn-dm still has to make does not fit; empty where it does.

    acrn-dm makes a sparse file: what is not there is only missed when a VM writes to it, and that VM dies.
    """
    fresh = [memory for memory in memories if memory.wanted is not None and memory.size != memory.wanted]
    needed = sum(memory.wanted or 0 for memory in fresh)
    if not needed:
        return ""
    try:
        found = os.statvfs(directory)
    except OSError as exc:
        raise IvshmemError(f"{directory}: the directory of dm-land regions cannot be used: {exc.strerror}") from exc
    free = found.f_bavail * found.f_frsize
    for memory in memories:
        # What is gone by now has given its room back.
        if memory.stale:
            with suppress(FileNotFoundError):
                free += os.stat(memory.path).st_blocks * 512
    if needed <= free:
        return ""
    names = ", ".join(memory.name for memory in fresh)
    return (
        f"{directory} has room for {free // MB} MB, and {needed // MB} MB are wanted for {names}; make room there, or "
        "mount it with a larger size"
    )


def explain(memory: Memory) -> str:
    """Why a stale file cannot be removed, and what to do."""
    held = sorted({f"VM {item.vm}" if item.vm else f"process {item.pid} ({item.command})" for item in memory.holders})
    have = f"{(memory.size or 0) / MB:g} MB"
    what = "the region is to go" if memory.wanted is None else f"{memory.wanted // MB} MB are wanted"
    return (
        f"{memory.path} has {have} and {what}, but it is in use by {', '.join(held)}. acrn-dm will refuse the "
        "new size until "
        "all of them have stopped; stop them together, then remove the file"
    )
