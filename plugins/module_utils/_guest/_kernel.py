# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Linux guest shows of itself in files, and how these files are changed.

This module util is PRIVATE to the collection: it can change at any time.

All of this room runs in the guest and needs the standard library alone. Everything that the guest's kernel is asked
goes through ``Kernel``, so that a directory, or what a shell has shown, can stand for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import mmap
import os
import re
import stat

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import (
    NO_FILE,
    NO_FILE_MEND,
    open_regular,
    size_text,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._process import run_quiet
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

UIO = "uio_pci_generic"
# Emptied at every boot.
RUN = "/run/acrn-ivshmem"
PROOF = f"{RUN}/proof"
LOCKDOWN = "/sys/kernel/security/lockdown"
SYSTEM = "/etc/os-release"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
VFIO = "vfio-pci"
DRIVERS = (UIO, VFIO)
NEW_ID = "new_id"
DRIVER_OVERRIDE = "driver_override"
SYSFS = "/sys/bus/pci"
RULES = "/etc/udev/rules.d/70-acrn-ivshmem.rules"
RUN_RULES = "/run/udev/rules.d/70-acrn-ivshmem.rules"
NOIOMMU_CONF = "/etc/modprobe.d/acrn-ivshmem.conf"
NOIOMMU_PARAMETER = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
FILES = (RULES, RUN_RULES, NOIOMMU_CONF)
FOLDERS = tuple(os.path.dirname(path) for path in FILES)
# What a guest's modules hold while they read, change and write its files or its memory.
LOCK = "ivshmem of this guest"

# Of a file that is read to be written back: a journal has the bytes of one window of at most 16 MB, as text.
LARGEST = 32 << 20

# What users map: registers (doorbell), shared memory, and the shared memory as write-combining.
RESOURCES = ("resource0", "resource2", "resource2_wc")
_LITTER = re.compile(r"\.acrn-ivshmem-.*\.new|\.acrn-ivshmem-[A-Za-z0-9]{6}")


class Kernel:
    """The guest's files and programs. ``root`` is another directory in tests only."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        # Open files of locks that are held, for a process that is left behind to let go of them.
        self.locks: tuple[int, ...] = ()

    def path(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def data(self, path: str, size: int = -1) -> bytes | None:
        """A file, or its first ``size`` bytes; None where it cannot be read. For what nobody writes back."""
        try:
            with open_regular(self.path(path)) as handle:
                return handle.read(size)
        except OSError:
            return None

    def text(self, path: str) -> str | None:
        data = self.data(path)
        return None if data is None else data.decode("utf-8", "replace")

    def content(self, path: str) -> str | None:
        """The whole of a file that is read to be written back; None only where there is none. Raises OSError.

        Bytes that are no UTF-8 come back as they were by ``replace``.
        """
        try:
            with open_regular(self.path(path)) as handle:
                data = handle.read(LARGEST + 1)
                if len(data) > LARGEST:
                    raise OSError(
                        errno.EFBIG,
                        f"larger than {size_text(LARGEST)}, which no file of its kind is; see what it is",
                        path,
                    )
                return data.decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def link(self, path: str) -> str | None:
        """The last part of what a symbolic link points to."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError:
            return None

    def write(self, path: str, text: str) -> None:
        """Write to a sysfs attribute in one system call, so that the kernel's answer is the error of this call."""
        handle = os.open(self.path(path), os.O_WRONLY)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)

    def replace(self, path: str, text: str, mode: int = 0o644) -> None:
        """Give a file new content in one step. The caller holds the guest's lock, so one new name is enough."""
        real = self.path(path)
        folder, name = os.path.split(real)
        os.makedirs(folder, exist_ok=True)
        self.sweep(os.path.dirname(path))
        # udev and modprobe read only *.rules and *.conf, so that a left-over of a killed run does nothing.
        fresh = os.path.join(folder, f".acrn-ivshmem-{name}.new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(text.encode("utf-8", "surrogateescape"))
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(fresh, real)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise

    def sweep(self, folder: str) -> None:
        """Remove what runs that were killed have left of a file that they were about to replace."""
        for name in self.names(folder):
            if _LITTER.fullmatch(name):
                self.remove(f"{folder}/{name}")

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(path))

    def access(self, path: str) -> tuple[int, int] | None:
        """Group ID and permission bits, or None where there is no such file."""
        try:
            found = os.stat(self.path(path))
        except OSError:
            return None
        return found.st_gid, stat.S_IMODE(found.st_mode)

    def give(self, path: str, gid: int, mode: int) -> None:
        os.chown(self.path(path), -1, gid)
        os.chmod(self.path(path), mode)

    def run(self, *command: str) -> tuple[int, str]:
        """Exit status and output of a program; 127 where it is missing."""
        environment = dict(os.environ, LC_ALL="C")
        environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
        code, text = run_quiet(command, environment)
        return code, text.strip()

    def release(self) -> str:
        return os.uname().release

    def group_id(self, name: str) -> int | None:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def register(self, address: str, offset: int) -> int | None:
        """A 32-bit register of BAR0, or None where it cannot be mapped."""
        try:
            handle = os.open(self.path(f"{SYSFS}/devices/{address}/resource0"), os.O_RDWR | os.O_SYNC)
        except OSError:
            return None
        try:
            size = os.fstat(handle).st_size
            with mmap.mmap(handle, size) as memory:
                # One aligned 32-bit load: the device ignores any other width.
                word = ctypes.c_uint32.from_buffer(memory, offset)
                value = int(word.value)
                del word
                return value
        except (OSError, ValueError):
            return None
        finally:
            os.close(handle)


def told(exc: OSError, what: str) -> IvshmemError:
    """An error of the kernel as this collection tells it."""
    if exc.errno in (errno.EACCES, errno.EPERM):
        return IvshmemError(f"{what}: {exc.strerror}: root is needed (become: true)")
    return IvshmemError(f"{what}: {exc.strerror}" + (f"; {NO_FILE_MEND}" if exc.strerror == NO_FILE else ""))


def make_folder(kernel: Kernel) -> None:
    os.makedirs(kernel.path(RUN), mode=0o700, exist_ok=True)


def proof(kernel: Kernel) -> dict[str, str | None]:
    """Which boot this is, and the proof that was kept since."""
    return {"boot_id": (kernel.text(BOOT_ID) or "").strip() or None, "proof": kernel.text(PROOF)}
