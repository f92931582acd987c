# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user without privileges, with an /etc of its own: the machine gets neither a user nor a rule of sudo.

All of it lies in a namespace of mounts. Directories of root that the tests need (a Python below /root) are put where
the user can see them; all else of root's is closed to the user.
"""

from __future__ import annotations

import functools
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

from ansible_collections.acrn.ivshmem.tests.integration_acrn import controller

UID = 47110
NAME = "acrn-ivshmem-test"


def _closed(path):
    """The topmost directory on the way that others may not pass; None where all are open."""
    for parent in [*reversed(pathlib.Path(path).parents), pathlib.Path(path)]:
        if not os.stat(parent).st_mode & 0o001:
            return str(parent)
    return None


def _mounts(etc, stage):
    """Shell commands that make the namespace."""
    needed = {sys.prefix, sys.base_prefix, str(controller.ROOT), str(controller.ROOT.parents[2])}
    needed |= {os.path.realpath(path) for path in needed}
    # The outer ones first, so that a bind covers what is below.
    hidden = {path: closed for path in sorted(needed) if (closed := _closed(path))}
    lines = [f"mount --bind {shlex.quote(str(etc))} /etc"]
    for number, path in enumerate(hidden):
        place = stage / str(number)
        place.mkdir(parents=True)
        lines.append(f"mount --bind {shlex.quote(path)} {shlex.quote(str(place))}")
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(closed)}" for closed in sorted(set(hidden.values()))]
    for number, path in enumerate(hidden):
        lines.append(f"mkdir -p {shlex.quote(path)}")
        lines.append(f"mount --bind {shlex.quote(str(stage / str(number)))} {shlex.quote(path)}")
    return lines


def words(folder, rules):
    """What stands before a command, so that this user runs it. ``rules`` is a file of sudo, without any None."""
    etc = folder / "etc"
    shutil.rmtree(etc, ignore_errors=True)
    subprocess.run(["cp", "-a", "/etc", str(etc)], check=True)
    for name, line in (
        ("passwd", f"{NAME}:x:{UID}:{UID}::/tmp:/bin/sh"),
        ("group", f"{NAME}:x:{UID}:"),
        ("shadow", f"{NAME}:*:19000:0:99999:7:::"),
    ):
        with open(etc / name, "a", encoding="utf-8") as handle:
            handle.write(f"{line}\n")
    if rules is not None:
        path = etc / "sudoers.d" / NAME
        path.write_text(rules)
        path.chmod(0o440)
        subprocess.run(["visudo", "-c", "-f", str(path)], check=True, capture_output=True)
    stage = folder / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    home = folder / "user"
    home.mkdir(exist_ok=True)
    os.chown(home, UID, UID)
    # Locks of tests are their own and root's; these are where a user has them.
    settings = f"env -u ACRN_IVSHMEM_LOCKS HOME={shlex.quote(str(home))}"
    become = f'exec setpriv --reuid {UID} --regid {UID} --clear-groups -- {settings} "$@"'
    script = "\n".join(["set -e", *_mounts(etc, stage), become])
    return ("unshare", "-m", "sh", "-c", script, "sh")


@functools.lru_cache(maxsize=None)
def why_not(folder):
    """Why there can be no such user here; None where there can."""
    lacking = [name for name in ("sudo", "visudo", "setpriv", "unshare") if not shutil.which(name)]
    if lacking:
        return f"{', '.join(lacking)}: not installed"
    command = 'sudo -n true && exec "$@"'
    done = subprocess.run(
        [
            *words(folder, f"{NAME} ALL=(root) NOPASSWD: ALL\n"),
            "sh",
            "-c",
            command,
            "sh",
            sys.executable,
            "-c",
            "import ansible",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else f"no user of its own: {done.stderr.strip()}"
