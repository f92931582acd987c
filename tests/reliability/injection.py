# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killing a command at one of its system calls, or letting that call fail, by strace."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass

# System calls that change something. One that opens a file does so only with certain flags.
CALLS = (
    *("openat", "open", "creat", "write", "pwrite64", "writev", "sendfile", "copy_file_range", "ftruncate", "truncate"),
    *("fsync", "fdatasync", "fchmod", "chmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "utimensat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "flock", "setxattr", "fallocate"),
)
_OPENS = ("openat", "open", "creat")
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += +(\S.*)")
ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES", "EINTR")


@dataclass(frozen=True)
class Point:
    """The ``number``-th call of its name in a process (from 1), with strace's text of its arguments."""

    call: str
    number: int
    text: str

    def __str__(self):
        return f"{self.call} {self.number}: {self.text}"

    @property
    def removes(self):
        """Whether the call only takes something away."""
        return self.call in ("unlink", "unlinkat", "rmdir")

    def errors(self):
        """Errors that the call can end with."""
        return (*ERRORS, "ENOLCK") if self.call == "flock" else ERRORS


@functools.lru_cache(maxsize=None)
def why_not():
    """Why nothing can be injected on this machine; None where it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    words = ["strace", "-o", os.devnull, "-e", "inject=getppid:error=EIO", "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"strace cannot trace here: {done.stderr.strip().splitlines()[-1]}"


def _strace(words, log, *options, **environment):
    return subprocess.run(
        ["strace", "-y", "-s", "300", "-o", str(log), *options, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "0", **environment},
    )


def _calls(log):
    counts: dict[str, int] = {}
    with open(log, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            found = _LINE.match(line)
            if found:
                call, text, result = found.groups()
                counts[call] = counts.get(call, 0) + 1
                yield Point(call, counts[call], text), result


def points(words, log, mine, **environment):
    """The points of a command where it changes what ``mine(TEXT)`` says is the test's; the command must succeed."""
    done = _strace(words, log, "-e", f"trace={','.join(CALLS)}", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = []
    for point, result in _calls(log):
        if point.call in _OPENS and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", point.text):
            continue
        # A call that found nothing to do changes nothing: unlink of what is not there.
        if mine(point.text) and not re.match(r"-1 (ENOENT|EEXIST)", result):
            found.append(point)
    return found, done.stdout


def inject(words, log, point, fault, **environment):
    """Run a command with a fault at a point: KILL or the name of an error.

    Returns the finished process, or None where it did not come to the point.
    """
    what = "signal=KILL" if fault == "KILL" else f"error={fault}"
    options = ("-e", f"trace={point.call}", "-e", f"inject={point.call}:{what}:when={point.number}")
    done = _strace(words, log, *options, **environment)
    with open(log, encoding="utf-8", errors="replace") as handle:
        text = handle.read()
    hit = "+++ killed by SIGKILL +++" in text if fault == "KILL" else "(INJECTED)" in text
    return done if hit else None
