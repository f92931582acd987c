# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection ``local``, lost at a certain call.

A file for each host (``weather``) holds how many calls there were, at which one
something happens, and what:

off      the host cannot be reached from this call on
before   the connection is lost before the command runs, once
answer   the command runs, and the connection is lost before it has answered, once
killed   the command runs, and what it prints is cut, as where the system ends a process, once
middle:N a process of the command is killed at the N-th call of its own that could change a file (strace), once
"""

from __future__ import annotations

import fcntl
import shlex

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import local

DOCUMENTATION = """
name: lossy
short_description: local, lost at a certain call
description: For tests.
options:
  weather:
    description: The file of this host.
    type: str
    required: true
    vars: [{name: lossy_weather}]
  become_success_timeout:
    description: As of local.
    type: int
    default: 10
  become_strip_preamble:
    description: As of local.
    type: bool
    default: true
extends_documentation_fragment: [connection_pipelining]
"""


# Not write: an interpreter that starts, and a shell that tells something, do that too.
CHANGES = "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,fsync,fchmod,ftruncate,flock,symlink,pwrite64"


class Connection(local.Connection):
    transport = "lossy"

    def _weather(self):
        with open(self.get_option("weather"), "r+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            count, number, fault = [*handle.read().split(" "), ""][:3]
            handle.seek(0)
            handle.write(f"{int(count) + 1} {number} {fault}")
            handle.truncate()
        come = int(count) + 1
        return fault if number != "0" and (come == int(number) or (fault == "off" and come > int(number))) else ""

    def exec_command(self, cmd, in_data=None, sudoable=True):
        fault = self._weather()
        if fault in ("off", "before"):
            raise AnsibleConnectionFailure("the connection is lost")
        kind, _colon, when = fault.partition(":")
        if kind == "middle":
            inject = f"inject={CHANGES}:signal=KILL:when={when}"
            traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={CHANGES}", "-e", inject]
            cmd = f"{shlex.join(traced)} /bin/sh -c {shlex.quote(cmd)}"
        code, out, err = super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        if fault == "answer":
            raise AnsibleConnectionFailure("the connection is lost, and with it the answer")
        return (137, out[: len(out) // 2], b"Killed\n") if fault == "killed" else (code, out, err)
