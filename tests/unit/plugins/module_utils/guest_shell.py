# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shells that run the scripts of guests without Python over a simulated guest.

Everything of the scripts is real but the programs that no user may run, or that ask the real kernel. Those are
functions of the shell, which every shell takes before a program.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _guest_shell

SHELLS = [shell for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(shell[0])]
LAST = ("show </dev/null\n", "main </dev/null\n")
# Owners that FakeKernel has only noted.
STANDS_FOR = """\
uname() { if [ "$1" = -r ]; then cat "$root.release"; else echo guest; fi; }
stat() {
    case $3 in "$root"/sys/* | "$root"/dev/*) ;; *) command stat "$@"; return ;; esac
    awk -v p="${3#"$root"}" '$1 == p { print "a", $2, $3, p }' "$root.owners"
}
"""
# What changes something asks the simulated kernel, which answers as the real one does.
ACTS = """\
ask() {
    printf '%s\\n' "$1" >"$root.ask" || return 1
    read -r said <"$root.answer"
}
put() {
    ask "put	$1	$2" && [ -z "$said" ] || fail error "$said"
}
modprobe() {
    ask "run	modprobe	$1"
    [ "$said" = 0 ]
}
udevadm() {
    if [ "$1" = trigger ]; then ask "run	udevadm	trigger	$4"; fi
}
chgrp() { ask "give	${2#"$root"}	$1	-"; }
chmod() {
    case $2 in "$root"/sys/* | "$root"/dev/*) ask "give	${2#"$root"}	-1	$1" ;; *) command chmod "$@" ;; esac
}
"""


def tell(kernel):
    """Lay down beside the guest what the functions answer with."""
    kernel.put("/etc/group", "".join(f"{name}:x:{gid}:\n" for name, gid in kernel.groups.items()))
    with open(f"{kernel.root}.owners", "w", encoding="utf-8") as handle:
        handle.writelines(f"{path} {gid} {mode:o}\n" for path, (gid, mode) in kernel.owners.items())
    with open(f"{kernel.root}.release", "w", encoding="utf-8") as handle:
        handle.write(f"{kernel.kernel_release}\n")


def with_functions(command, functions):
    """The command of the controller, with functions before its last line."""
    line = next(line for line in LAST if line in command)
    before, after = command.rsplit(line, 1)
    return f"{before}{functions}{line}{after}"


@contextlib.contextmanager
def answering(kernel):
    """The kernel hears what ACTS ask, one line each, and answers by one."""
    ends = []
    for name in ("ask", "answer"):
        path = f"{kernel.root}.{name}"
        if os.path.exists(path):
            os.unlink(path)
        os.mkfifo(path)
        # Open for both, so that neither side waits for the other to open it.
        ends.append(os.open(path, os.O_RDWR))

    def serve():
        with os.fdopen(ends[0], "r", encoding="utf-8") as asked:
            for line in asked:
                if line == "stop\n":
                    return
                os.write(ends[1], f"{_answer(kernel, *line.rstrip(chr(10)).split(chr(9)))}\n".encode())

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield
    finally:
        with open(f"{kernel.root}.ask", "w", encoding="utf-8") as asked:
            asked.write("stop\n")
        server.join()
        os.close(ends[1])


def _answer(kernel, what, *words):
    try:
        if what == "put":
            kernel.write(*words)
            return ""
        if what == "run":
            return kernel.run(*words)[0]
        path, gid, mode = words
        old = kernel.owners[path]
        kernel.give(path, int(gid), old[1] if mode == "-" else int(mode, 8))
        return ""
    except OSError as exc:
        return exc.strerror
    finally:
        # The rest of the scripts reads files, and the group of a function's node is of the one that there is now.
        tell(kernel)


class Guest:
    """What asks a guest: an object for ``_guest_shell.carry_out``. It counts, and keeps what it was asked."""

    def __init__(self, kernel, shell, functions=""):
        self.kernel, self.shell, self.functions = kernel, shell, functions
        self.commands = []

    def words(self, command):
        """What runs a command of the controller, with the programs that stand for real ones."""
        tell(self.kernel)
        # The shell of a login is one shell, and sh, which it starts, another.
        text = with_functions(command, STANDS_FOR + self.functions).replace("sh -s", " ".join([*self.shell, "-s"]), 1)
        return [*self.shell, "-c", text]

    def environment(self):
        return dict(os.environ, ACRN_IVSHMEM_ROOT=self.kernel.root)

    def __call__(self, command):
        self.commands.append(command)
        words, environment = self.words(command), self.environment()
        done = subprocess.run(words, capture_output=True, env=environment, check=False, stdin=subprocess.DEVNULL)
        assert done.stderr == b"", done.stderr
        assert done.returncode == 0
        return done.stdout.decode("utf-8", "surrogateescape")

    def act(self, wish):
        with answering(self.kernel):
            return _guest_shell.carry_out(self, wish, False)

    def plan(self, wish):
        return _guest_shell.carry_out(self, wish, True)[1]


def state_of(kernel):
    """What a run leaves: files, links, modes of the files in /etc, and what the kernel holds."""
    kept = ("/etc/group", "/run/acrn-ivshmem")
    found = {path[len(kernel.root) :]: value for path, value in kernel.snapshot().items() if path.startswith("/")}
    state = {path: value for path, value in found.items() if not path.startswith(kept)}
    modes = {path: os.stat(kernel.path(path)).st_mode for path in _kernel.FILES if kernel.exists(path)}
    return state, modes, dict(kernel.owners), {driver: list(ids) for driver, ids in kernel.ids.items()}
