# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that the modules start.

The functional core has no AnsibleModule, and AnsibleModule.run_command keeps all output until the end: a build of
minutes needs it in a log at once, and the whole tree of its processes has to end with the module.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
import signal
import subprocess  # lists of words, never a shell  # nosec B404
import time
from typing import IO, Any, Mapping, Sequence

# A program that is not there, as the shell counts it.
MISSING = 127
# Seconds that a group has to end after each signal.
PATIENCE = 5


class _Child(subprocess.Popen):  # type: ignore[type-arg]  # Popen takes no type argument on Python 3.8
    """A program without input, with both of its outputs in one place unless ``stderr`` has another."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: Any, **options: Any) -> None:
        super().__init__(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            **{"stderr": subprocess.STDOUT, **options},
        )


def run_quiet(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a short command; return its code and all it printed. A program that is missing or no program gives 127."""
    try:
        with _Child(command, environment, subprocess.PIPE) as child:
            printed: bytes = child.communicate()[0]
            return child.returncode, printed.decode("utf-8", "replace")
    except OSError as exc:
        return MISSING, str(exc)


def run_apart(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """The same with what it printed as an answer apart from its errors and warnings."""
    try:
        with _Child(command, environment, subprocess.PIPE, stderr=subprocess.PIPE) as child:
            output, errors = child.communicate()
            return child.returncode, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")
    except OSError as exc:
        return MISSING, "", str(exc)


def run_group(command: Sequence[str], environment: Mapping[str, str], output: IO[bytes], handles: Sequence[int]) -> int:
    """Run a command in a process group of its own, which ends when this call ends by an exception. Return the code.

    The command and its children hold ``handles`` (open files) too. Raises OSError where it cannot be started.
    """
    child = _Child(command, environment, output, start_new_session=True, pass_fds=tuple(handles))
    try:
        return child.wait()
    except BaseException:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _gone(child, number):
                break
        raise


def _gone(child: _Child, number: int) -> bool:
    """Send a signal to all that the child has started, and wait until the last of them has ended. Return if it has.

    The child often ends first: who waits for it alone leaves its children behind for a moment, or for ever.
    """
    until = time.monotonic() + PATIENCE
    try:
        os.killpg(child.pid, number)
        while time.monotonic() < until:
            child.poll()
            os.killpg(child.pid, 0)
            time.sleep(0.01)
    except ProcessLookupError:
        return True
    return False
