# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one lock of the collection: who reads, changes and writes something holds it meanwhile.

This module util is PRIVATE to the collection: it can change at any time.

A lock is an flock(2) on a small file in a directory that only the user of the process can enter. Locking the subject
itself would be simpler, but whoever can read a file or a directory can lock it, and so hold up root for ever. The
kernel drops a lock when the last process that has the file open ends, however it ends.

The directory has to be the same for all processes of a user on a host, whatever session, cron job or ``become`` they
come from. So neither $XDG_RUNTIME_DIR nor /run/user decides (they are there for some sessions only), nor $HOME (sudo
may hand over that of somebody else):

- root: /run/acrn-ivshmem/lock
- others, and root where nothing can be made in /run: .cache/acrn-ivshmem/lock in the home directory that the user
  database names
- where that cannot be used at all (no such directory, read-only, not of the user): acrn-ivshmem-UID/lock in /var/tmp,
  or in /tmp

$ACRN_IVSHMEM_LOCKS names another one, for a home directory on a file system without locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# How long an edit of a file waits: edits take a moment, and what holds one up for minutes hangs.
LIMIT = 300.0
VARIABLE = "ACRN_IVSHMEM_LOCKS"
_RUN = "/run"
_OF_ROOT = ("acrn-ivshmem", "lock")
_LAST = ("/var/tmp", "/tmp")  # only a directory of its own there that nobody else can enter  # nosec B108
# A lock file that nobody holds goes after this many seconds.
_OLD = 86400
_NOTE = 1024
# Errors that say of a place that no directory of locks will ever be made there.
_UNUSABLE = (errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def held(*subjects: str, limit: float = LIMIT, what: str = "") -> Iterator[tuple[int, ...]]:
    """Be the only process of this user on this host that holds these subjects.

    A subject with a slash is the path of a file or directory: one lock for all its names (links, ``..``, bind mounts
    of directories), and the file itself need not be there. A subject without one is a name.
    ``limit``: seconds to wait. ``what``: what the lock is for, which those who wait for it are told.

    Gives the open lock files, one a subject, for ``pass_fds``: a child that has them keeps others out until it ends,
    even when this process is killed. Several subjects are taken in one order, so two calls never wait for each other;
    a call inside of another one with the same subject waits in vain.

    Raises IvshmemError that says who holds a subject when the limit is over, or names the path that cannot be locked.
    """
    handles: list[int] = []
    end = time.monotonic() + limit
    try:
        if subjects:
            folder = _folder()
            handles.append(folder)
            _sweep(folder)
            yield tuple(_take_all(folder, subjects, end, limit, what, handles))
        else:
            yield ()
    finally:
        for handle in reversed(handles):
            os.close(handle)


def path_of(name: str) -> str:
    """The lock file of root for a subject without a slash, for programs that take the same lock in another way."""
    return os.path.join(_RUN, *_OF_ROOT, _identity(name, []))


# -- what is locked ----------------------------------------------------------------------------------------------------


def _open_directory(path: str) -> int:
    try:
        # No permission to list is needed. The open file keeps the inode number from being given to another directory.
        return os.open(path, os.O_PATH | os.O_DIRECTORY)
    except OSError as exc:
        raise IvshmemError(f"{path}: this directory cannot be opened: {exc.strerror}") from exc


def _identity(subject: str, opened: list[int]) -> str:
    """The name of the lock file, the same for all names of a thing.

    A file is its name in a directory, for its inode changes with each edit.
    """
    if os.sep not in subject:
        return "name" + _word(subject)
    real = os.path.realpath(subject)
    folder, name = (real, "") if os.path.isdir(real) else os.path.split(real)
    opened.append(_open_directory(folder))
    info = os.fstat(opened[-1])
    return f"{info.st_dev:x}-{info.st_ino:x}" + (_word(name) if name else "")


def _word(name: str) -> str:
    # As much as people need. Two names that come out alike share a lock, which costs no more than some waiting.
    return f"-{zlib.crc32(os.fsencode(name)):08x}-" + re.sub(r"[^A-Za-z0-9._-]", "_", name)[:60]


def _identities(subjects: tuple[str, ...]) -> tuple[dict[str, str], list[int]]:
    """Name of the lock file -> subject, and the directories that have to stay open."""
    opened: list[int] = []
    found: dict[str, str] = {}
    try:
        for subject in subjects:
            found.setdefault(_identity(subject, opened), subject)
    except BaseException:
        for handle in opened:
            os.close(handle)
        raise
    return found, opened


def _take_all(
    folder: int, subjects: tuple[str, ...], end: float, limit: float, what: str, handles: list[int]
) -> list[int]:
    base = len(handles)
    while True:
        wanted, opened = _identities(subjects)
        handles += opened
        taken = []
        for name, subject in sorted(wanted.items()):
            taken.append(_take(folder, name, subject, end, limit, what))
            handles.append(taken[-1])
        # Where a link or a directory became another one while this waited, the lock is of the one before.
        again, opened = _identities(subjects)
        for handle in opened:
            os.close(handle)
        if again.keys() == wanted.keys():
            return taken
        for handle in reversed(handles[base:]):
            os.close(handle)
        del handles[base:]


# -- one lock ----------------------------------------------------------------------------------------------------------


def _take(folder: int, name: str, subject: str, end: float, limit: float, what: str) -> int:
    """An open lock file that is locked, and that has its name."""
    pause = 0.005
    while True:
        handle = _open_lock(folder, name, subject)
        try:
            if _lock(handle, subject):
                if _named(handle, folder, name):
                    _sign(handle, what)
                    return handle
            elif time.monotonic() >= end:
                raise IvshmemError(f"{subject}: {_holder(handle, folder, name, limit)}")
            else:
                time.sleep(pause)
                pause = min(pause * 1.5, 0.2)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open_lock(folder: int, name: str, subject: str) -> int:
    try:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as exc:
        raise _failed(folder, name, subject, exc) from exc
    info = os.fstat(handle)
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        os.close(handle)
        raise IvshmemError(f"{subject}: its lock file {_path(folder)}/{name} is not your own regular file; remove it")
    return handle


def _lock(handle: int, subject: str) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        raise _failed(handle, "", subject, exc) from exc
    return True


def _named(handle: int, folder: int, name: str) -> bool:
    """Whether an open file still is what its name stands for: somebody may have swept it."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _failed(handle: int, name: str, subject: str, exc: OSError) -> IvshmemError:
    path = os.path.join(_path(handle), name) if name else _path(handle)
    hint = ""
    if exc.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
        hint = f"; its file system has no locks: name a directory on a local one in the environment variable {VARIABLE}"
    return IvshmemError(f"{subject}: cannot be locked: {path}: {exc.strerror}{hint}")


def _path(handle: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return "the directory of locks"


# -- who holds it ------------------------------------------------------------------------------------------------------


def _sign(handle: int, what: str) -> None:
    """Note who holds the lock. It is held with or without the note, so a full disk costs no more than that."""
    try:
        with open("/proc/self/cmdline", "rb") as stream:
            command = stream.read(400).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        command = "?"
    # Hosts may share a home directory.
    note = f"{os.getpid()}\n{int(time.time())}\n{os.uname().nodename}\n{_plain(what)}\n{_plain(command)}\n"
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, note.encode("utf-8", "replace")[:_NOTE], 0)


def _plain(text: str) -> str:
    return re.sub(r"[^ -~]", "?", text)[:200]


def _holder(handle: int, folder: int, name: str, limit: float) -> str:
    """What a message says of a lock that cannot be had."""
    told = f"another process has held the lock for more than {limit:g} s"
    mend = f"wait for it, or end it if it hangs, and run again (`fuser -v {_path(folder)}/{name}` names it)"
    lines: list[str] = []
    with suppress(OSError):
        lines = [_plain(line) for line in os.pread(handle, _NOTE, 0).decode("utf-8", "replace").split("\n")]
    try:
        pid, when = int(lines[0]), time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(int(lines[1])))
        host, what, command = lines[2:5]
    except (IndexError, ValueError, OverflowError, OSError):
        return f"{told}; {mend}"
    who = f"process {pid} ({', '.join(word for word in (what, command) if word)}), since {when}"
    if host != os.uname().nodename:
        return f"{told}: {who}, on {host}; {mend}"
    if pid == os.getpid():
        return f"this process itself holds the lock already: {who}"
    if not os.path.exists(f"/proc/{pid}"):
        return f"{told}: a program that was started by {who}, and that outlives it; {mend}"
    return f"{told}: {who}; {mend}"


# -- where the locks are -----------------------------------------------------------------------------------------------


def _places() -> list[tuple[str, tuple[str, ...]]]:
    """Directories that are there, with what is to be made in them, the best first."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        folder, name = os.path.split(os.path.abspath(chosen))
        return [(folder, (name,))]
    uid = os.geteuid()
    places: list[tuple[str, tuple[str, ...]]] = []
    if uid == 0:
        places.append((_RUN, _OF_ROOT))
    try:
        home = pwd.getpwuid(uid).pw_dir
        if os.path.isabs(home) and os.stat(home).st_uid == uid:
            places.append((home, (".cache", "acrn-ivshmem", "lock")))
    except (KeyError, OSError):
        pass
    return places + [(folder, (f"acrn-ivshmem-{uid}", "lock")) for folder in _LAST]


def _folder() -> int:
    """The open directory of this user's locks. Raises IvshmemError."""
    places = _places()
    for base, names in places:
        try:
            return _descend(base, names)
        except OSError as exc:
            if exc.errno not in _UNUSABLE or (base, names) == places[-1]:
                path = os.path.join(base, *names)
                raise IvshmemError(
                    f"{path}: this directory, where locks are kept, cannot be used: {exc.strerror}; mend it, or name "
                    f"another one in the environment variable {VARIABLE}"
                ) from exc
    raise AssertionError("there is always a last place")


def _descend(base: str, names: tuple[str, ...]) -> int:
    """Open a directory that only this user can write, and make what is missing of it. Raises OSError, IvshmemError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    at = os.open(base, flags)
    path = base
    for name in names:
        path = os.path.join(path, name)
        try:
            # A user may have led .cache elsewhere; what lies below it is the collection's own.
            follow = 0 if name == ".cache" else os.O_NOFOLLOW
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=at)
            deeper = os.open(name, flags | follow, dir_fd=at)
        finally:
            os.close(at)
        at = deeper
        info = os.fstat(at)
        if name != ".cache" and (info.st_uid != os.geteuid() or info.st_mode & 0o022):
            os.close(at)
            raise IvshmemError(
                f"{path}: this directory, where locks are kept, belongs to user {info.st_uid} with mode "
                f"{stat.S_IMODE(info.st_mode):04o}, so that others could hold them for ever; it has to be of user "
                f"{os.geteuid()} and writable for nobody else: mend or remove it, or name another one in the "
                f"environment variable {VARIABLE}"
            )
    if stat.S_IMODE(os.fstat(at).st_mode) & 0o077:
        os.fchmod(at, 0o700)
    return at


def _sweep(folder: int) -> None:
    """Remove lock files that have long been free. Who waits for one sees that its name is gone (``_named``)."""
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                if time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < _OLD:
                    continue
                handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _named(handle, folder, name):
                        os.unlink(name, dir_fd=folder)
                finally:
                    os.close(handle)
