# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a host, changed so that the power may go at any instant.

A new file or directory gets its name only when it is whole and on the disk, and a file is replaced by a rename. A
change that others need is on the disk before them. What a killed run leaves behind has a name that begins with a dot,
and the next run removes it.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Callable, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import (
    LARGEST,
    NO_FILE_MEND,
    open_regular,
    read_file,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._process import MISSING
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

MEGABYTE = 1024 * 1024
# In the names of what is not whole yet.
FRESH = "ivshmem-new"

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Let an error name the whole path: on an open file it names none, and within a tree the last part."""
    try:
        yield
    except OSError as exc:
        if exc.filename is None:
            exc.filename = path
        elif not os.path.isabs(os.fsdecode(exc.filename)):
            exc.filename = os.path.join(path, os.fsdecode(exc.filename))
        raise


@contextmanager
def making(fresh: str) -> Iterator[None]:
    """Make a file or directory that is to be renamed; where that fails, nothing of it stays and fills the disk."""
    forget(fresh)
    try:
        yield
    except Exception:
        with suppress(OSError):
            forget(fresh)
        raise


def sync_directory(path: str) -> None:
    """Bring a directory's names to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_new(path: str, data: bytes, mode: int) -> None:
    """Write a file that is not there yet, down to the disk; its name is not."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with naming(path), os.fdopen(handle, "wb") as stream:
        stream.write(data)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())


def replace(path: str, data: bytes, mode: int | None = None) -> None:
    """Give a file new content by a rename; without ``mode`` it keeps mode and owner. The name is on the disk
    after it.
    """
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    fresh = os.path.join(folder, f".{name}.{FRESH}")
    try:
        before: os.stat_result | None = os.stat(real)
    except FileNotFoundError:
        before = None
    with making(fresh):
        write_new(fresh, data, mode if mode is not None else stat.S_IMODE(before.st_mode) if before else 0o644)
        if before is not None:
            os.chown(fresh, before.st_uid, before.st_gid)
        os.rename(fresh, real)
    sync_directory(folder)


def forget(path: str) -> None:
    """Remove a file or a directory, if it is there."""
    try:
        os.unlink(path)
    except OSError as exc:
        if exc.errno == errno.ENOENT:
            return
        if exc.errno not in (errno.EISDIR, errno.EPERM):
            raise
        with naming(path):
            shutil.rmtree(path)


def copy(source: str, target: str) -> None:
    """Put a copy of a file or of a link in the place of another, whole and on the disk."""
    folder, name = os.path.split(target)
    fresh = os.path.join(folder, f".{name}.{FRESH}")
    with making(fresh):
        shutil.copy2(source, fresh, follow_symlinks=False)
        if not os.path.islink(fresh):
            handle = os.open(fresh, os.O_RDONLY)
            try:
                with naming(fresh):
                    os.fsync(handle)
            finally:
                os.close(handle)
        os.rename(fresh, target)
    sync_directory(folder)


def runner(module: Any) -> Run:
    """How a module runs programs. One that is not there ends with 127, and does not end the module."""

    def run(words: Sequence[str]) -> tuple[int, str, str]:
        try:
            code, output, errors = module.run_command(list(words), handle_exceptions=False)
        except OSError as exc:
            return MISSING, "", f"{words[0]}: {exc.strerror}"
        return int(code), str(output), str(errors)

    return run


class Root:
    """The files and programs of the machine that this code runs on. ``base`` is another root directory for tests."""

    def __init__(self, run: Run, base: str = "/", dry: bool = False) -> None:
        self.run = run
        self.base = base
        self.dry = dry  # check mode: everything is found out, nothing is written
        self.changed: list[str] = []
        self.warnings: list[str] = []

    def path(self, name: str) -> str:
        return os.path.join(self.base, name)

    def text(self, path: str, missing: str | None = None, limit: int = LARGEST, mend: str = NO_FILE_MEND) -> str:
        """The text of a file. Raises IvshmemError, unless there is a text for a file that is missing.

        ``mend``: as of read_file.
        """
        kept = None if missing is None else missing.encode("utf-8", "surrogateescape")
        data = read_file(path, limit, kept, mend)
        return data.decode("utf-8", "surrogateescape")

    def data(self, path: str, size: int = -1) -> bytes:
        """The first bytes of a file. Raises IvshmemError."""
        try:
            with open_regular(path) as handle:
                return handle.read(size)
        except OSError as exc:
            raise IvshmemError(f"{path}: cannot be read: {exc.strerror}") from exc

    def ask(self, *words: str) -> str:
        """What a program prints. Raises IvshmemError if it fails."""
        code, output, errors = self.run(words)
        if code != 0:
            raise IvshmemError(f"{' '.join(words)} failed: {(errors or output).strip()}")
        return output.strip()

    def begin(self, what: str, path: str = "") -> bool:
        """Note a change of what is or will be at a path, and say whether to make it. Raises IvshmemError."""
        if path:
            self.check_writable(path, f"{what} is to be changed there")
        self.changed.append(what)
        return not self.dry

    def check_writable(self, path: str, why: str) -> None:
        """Raise IvshmemError if the file system of a path, which need not be there, is mounted read-only."""
        near = path
        while not os.path.isdir(near):
            near = os.path.dirname(near)
        if not os.statvfs(near).f_flag & os.ST_RDONLY:
            return
        top = os.path.realpath(near)
        while not os.path.ismount(top):
            top = os.path.dirname(top)
        raise IvshmemError(
            f"{near}: its file system is mounted read-only, and {why}; mount it writable (mount -o remount,rw {top}), "
            "and run this again"
        )
