# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killing a process at one of its system calls, or letting that call fail, by strace."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
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
        return f"{self.call} {self.number}: {self.text[:120]}"

    @property
    def removes(self):
        """Whether the call only takes something away."""
        return self.call in ("unlink", "unlinkat", "rmdir")

    def faults(self):
        """A kill, a full disk, and another of the errors that the call can end with: not all of them at each call."""
        if self.call not in CALLS:
            return ("KILL",)
        others = [name for name in ERRORS if name != "ENOSPC"] + (["ENOLCK"] if self.call == "flock" else [])
        return ("KILL", "ENOSPC", others[self.number % len(others)])


# ---- what is traced ----


class Done:
    """What a traced process printed, or what went wrong in it."""

    def __init__(self, stdout, stderr=""):
        self.stdout, self.stderr = stdout, stderr


def command(words, **environment):
    """What runs a command under strace."""

    def run(*options):
        done = subprocess.run(
            ["strace", *options, *words],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, **environment},
        )
        return Done(done.stdout, done.stderr)

    return run


def forked(work, **environment):
    """What runs ``work()`` in a child under strace; its text is what the child prints.

    All that the test has imported is there already, so a run costs a tenth of that of a new interpreter.
    """

    def run(*options):
        here, there = socket.socketpair()
        child = os.fork()
        if not child:
            status = 1
            try:
                here.close()
                _may_be_traced()
                there.sendall(b"r")
                there.recv(1)
                os.environ.update(environment)
                tempfile.tempdir = None
                # A first run would write what later ones only read, and no run would be like another.
                sys.dont_write_bytecode = True
                try:
                    said = Done(work())
                except BaseException:
                    said = Done("", traceback.format_exc())
                # Not by write: that may be the call that fails.
                there.sendall(json.dumps(vars(said)).encode())
                status = 0
            finally:
                os._exit(status)
        there.close()
        # A tracer that comes before it is allowed to would be sent away.
        here.recv(1)
        words = ["strace", "-p", str(child), *options]
        with here, subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as tracer:
            # It reads the gate from now on, and not a call earlier.
            first = tracer.stderr.readline()
            if first.endswith(" attached\n"):
                here.send(b"x")
            else:
                os.kill(child, signal.SIGKILL)
            text = b"".join(iter(lambda: here.recv(1 << 16), b""))
            os.waitpid(child, 0)
            tracer.communicate(timeout=60)
        if text:
            return Done(**json.loads(text))
        return Done("", "" if first.endswith(" attached\n") else first)

    return run


def _may_be_traced():
    """Linux may let nobody but a parent trace a process (Yama)."""
    any_process = ctypes.c_ulong(-1)
    ctypes.CDLL(None).prctl(0x59616D61, any_process, 0, 0, 0)


@functools.lru_cache(maxsize=None)
def why_not():
    """Why nothing can be injected on this machine; None where it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    for runner in (command(["true"]), forked(lambda: str(os.getppid()))):
        with tempfile.NamedTemporaryFile("r") as log:
            done = runner("-o", log.name, "-e", "trace=getppid,exit_group")
            if "exit_group" not in log.read():
                return f"strace cannot trace here: {[*done.stderr.strip().splitlines(), '?'][-1]}"
    return None


# ---- points ----


def _calls(log):
    counts: dict[str, int] = {}
    with open(log, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            found = _LINE.match(line)
            if found:
                call, text, result = found.groups()
                counts[call] = counts.get(call, 0) + 1
                yield Point(call, counts[call], text), result


def points(run, log, mine, calls=CALLS):
    """The points of a run where it does what ``mine(TEXT)`` says is the test's, and what it printed."""
    done = run(*_options(log), "-e", f"trace={','.join(calls)}")
    assert done.stdout, done.stderr
    found = []
    for point, result in _calls(log):
        if point.call in _OPENS and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", point.text):
            continue
        # A call that found nothing to do changes nothing: unlink of what is not there.
        if mine(point.text) and not re.match(r"-1 (ENOENT|EEXIST)", result):
            found.append(point)
    return found, done.stdout


def inject(run, log, point, fault):
    """A run with a fault at a point: KILL or the name of an error. None where it did not come to the point."""
    what = "signal=KILL" if fault == "KILL" else f"error={fault}"
    options = ("-e", f"trace={point.call}", "-e", f"inject={point.call}:{what}:when={point.number}")
    done = run(*_options(log), *options)
    with open(log, encoding="utf-8", errors="replace") as handle:
        text = handle.read()
    hit = "+++ killed by SIGKILL +++" in text if fault == "KILL" else "(INJECTED)" in text
    return done if hit else None


def _options(log):
    return ("-y", "-s", "300", "-o", str(log))
