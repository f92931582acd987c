# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and replacing a file so that no update is lost and no half of a file is ever seen.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import LIMIT, held
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# What is read of a file of configuration at most.
LARGEST = 4 * 1024 * 1024
ORIGINAL = ".before-acrn-ivshmem"
NO_FILE = "is not a regular file"
# How that is mended, where the reader says nothing else.
NO_FILE_MEND = "move it away or name another file, and run this again"
NAMELESS = "an empty path"
# The kernel takes 4096 bytes with the zero at the end. Python would walk down a longer path before it asks.
LONGEST = 4095


def check_paths(params: Mapping[str, Any], spec: Mapping[str, Any], place: str = "") -> None:
    """Raise IvshmemError for an argument of a module that is no path, before anything is read or made.

    ``spec`` is its argument_spec: Ansible itself takes any text for a path.
    """
    for name, option in spec.items():
        value, where = params.get(name), f"{place}{name}"
        kind = option.get("elements") if option.get("type") == "list" else option.get("type")
        for each in value if isinstance(value, list) else [value]:
            if kind == "dict" and option.get("options") and isinstance(each, dict):
                check_paths(each, option["options"], f"{where}.")
            if kind == "path" and isinstance(each, str):
                _check_path(each, where, bool(option.get("required") or option.get("default")))


def _check_path(path: str, where: str, needed: bool) -> None:
    if needed and not path:
        raise IvshmemError(f"{where} is empty; give a path")
    if "\0" in path:
        raise IvshmemError(f"{where} is {path!r}: a path has no character of zero")
    if len(os.fsencode(path)) > LONGEST:
        raise IvshmemError(f"{where} is {path[:40]}...: a path has at most {LONGEST} bytes")


@contextmanager
def locked(*paths: str, what: str = "", limit: float = LIMIT) -> Iterator[None]:
    """Keep all other processes that would edit these files waiting. Raises IvshmemError, see ``_lock.held``."""
    with held(*(os.path.abspath(path) for path in paths), limit=limit, what=what):
        yield


def open_regular(path: str) -> IO[bytes]:
    """A regular file, open for reading. Raises OSError, as for what cannot be opened for what is no such file.

    A FIFO would be waited for until somebody writes to it, and a device has no end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, NO_FILE, path)
    return os.fdopen(handle, "rb")


def read_file(path: str, limit: int = LARGEST, missing: bytes | None = None, mend: str = NO_FILE_MEND) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes. Raises IvshmemError that names the file.

    ``missing`` is what a file that is not there counts as; without it, that is an error too. ``mend`` says what to do
    about what is no file; empty where the caller says it.
    """
    try:
        with open_regular(path) as handle:
            data = handle.read(limit + 1)
    except OSError as exc:
        if missing is not None and exc.errno in (errno.ENOENT, errno.ENOTDIR):
            return missing
        why = f"cannot be read: {exc.strerror}"
        if exc.strerror == NO_FILE:
            why = f"{NO_FILE}; {mend}" if mend else NO_FILE
        raise IvshmemError(f"{path or NAMELESS}: {why}") from exc
    if len(data) > limit:
        raise IvshmemError(f"{path}: larger than {size_text(limit)}, which no file of its kind is; see what it is")
    return data


def named(path: str, problem: object) -> str:
    """A problem with the path that it is about, which it may name itself."""
    return str(problem) if path in str(problem) else f"{path}: {problem}"


def walk(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, which takes a directory that cannot be read for an empty one. Raises IvshmemError for that."""

    def refuse(exc: OSError) -> None:
        if exc.errno != errno.ENOENT:
            raise IvshmemError(f"{exc.filename}: cannot be read: {exc.strerror}") from exc

    return os.walk(top, onerror=refuse)


def digest_of(path: str) -> str:
    """SHA-256 of a file of any size. Raises OSError."""
    found = hashlib.sha256()
    with open_regular(path) as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def digest_or_none(path: str) -> str | None:
    """The same; None of what is no regular file, or cannot be read."""
    try:
        return digest_of(path)
    except OSError:
        return None


def size_text(size: int) -> str:
    """A limit in words."""
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} KB"


def replace_file(
    module: AnsibleModule,
    path: str,
    data: bytes,
    backup: bool = False,
    attributes: Mapping[str, Any] | None = None,
    original: bytes | None = None,
    follow: bool = True,
) -> str | None:
    """Give a file new content in one step, and return the path of the backup, if one was asked for and made.

    ``original``: what the file has, to be kept by ``keep_original``.

    Call it inside ``locked(path)``. A symbolic link is followed and stays a link, or is what is replaced where
    ``follow`` is false; mode, owner and SELinux label of an existing file stay, unless ``attributes`` (as of
    ``load_file_common_arguments``) say otherwise. Nothing comes after the rename, so an error means that all is as it
    was. Raises IvshmemError.
    """
    real = os.path.realpath(path) if follow or not os.path.islink(path) else os.path.abspath(path)
    folder, name = os.path.split(real)
    # A fixed name, not a random one: a process killed half-way leaves at most this one file, and the next call,
    # which holds the same lock, takes it over. So it is removed here, and not by add_cleanup_file: that acts when the
    # module ends, without the lock, and would take the file of the next call.
    fresh = os.path.join(folder, f".{name}.ivshmem-new")
    backup_file = None
    labels = module.selinux_enabled()
    copy = original_of(path) if original is not None and not os.path.lexists(original_of(path)) else None
    if original is not None:
        keep_original(path, original)
    try:
        before = os.stat(real) if os.path.exists(real) and not os.path.islink(real) else None
        _remove(fresh)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            _adorn(stream.fileno(), before)
            os.fsync(stream.fileno())
        if labels:
            label = module.selinux_default_context(real) if before is None else module.selinux_context(real)
            module.set_context_if_different(fresh, label, False)
        if attributes:
            # An immutable file could not be renamed.
            module.set_fs_attributes_if_different({**attributes, "path": fresh, "attributes": None}, False)
        if backup and before is not None:
            backup_file = module.backup_local(real)
        os.rename(fresh, real)
    except BaseException as exc:
        # Also where Ansible ends the module, for an owner that there is not. One more backup with each run that fails
        # would fill the disk, and nothing has changed that it would be for; a copy of what was before the first change
        # would be taken for that later, whatever others have changed by then.
        for made in (backup_file, copy):
            if made:
                with suppress(OSError):
                    _remove(made)
        # The latter two are what Python says of an owner that cannot be one.
        if isinstance(exc, (OSError, OverflowError, ValueError)):
            why = exc.strerror if isinstance(exc, OSError) else exc
            raise IvshmemError(f"{path or NAMELESS}: cannot be written: {why}; it was not changed") from exc
        raise
    finally:
        with suppress(OSError):
            _remove(fresh)
    return backup_file or None


def _adorn(handle: int, before: os.stat_result | None) -> None:
    """Give a new file the owner and the mode of the one that it replaces, or those of any new file."""
    if before is None:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        return
    own = os.fstat(handle)
    if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
        # Who is not root and edits a file of somebody else, in a directory of his own, becomes its owner.
        with suppress(PermissionError):
            os.fchown(handle, before.st_uid, before.st_gid)
    os.fchmod(handle, stat.S_IMODE(before.st_mode))


def original_of(path: str) -> str:
    """Where the content lies that a file had before the collection changed it for the first time.

    It is in a directory whose files may be run or read by others (udev, acrnd, GRUB), which know them by their ending.
    """
    return os.path.realpath(path) + ORIGINAL


def keep_original(path: str, data: bytes) -> str:
    """Keep what a file had before its first change; empty where it was not there. Call it inside ``locked(path)``.

    Nobody but the owner can read the copy, nobody can run it, and one that is there already stays.
    """
    copy = original_of(path)
    if os.path.lexists(copy):
        if not os.path.isfile(copy):
            raise IvshmemError(f"{copy}: {NO_FILE}; move it away, as what {path} had is to be kept there")
        return copy
    fresh = f"{copy}.new"
    try:
        _remove(fresh)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(fresh, copy)
    except OSError as exc:
        raise IvshmemError(f"{copy}: cannot be written: {exc.strerror}; {path} was not changed") from exc
    finally:
        with suppress(OSError):
            _remove(fresh)
    return copy


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def unified(before: str, after: str, path: str) -> dict[str, str]:
    """The value of ``diff`` in a module's result; Ansible makes the unified diff of it."""
    return {"before": before, "after": after, "before_header": path, "after_header": path}
