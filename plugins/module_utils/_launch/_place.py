# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a Service VM beside its launch scripts: directories, units and links, compared and made by one description.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Callable, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import read_file, replace_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

Wish = Mapping[str, Any]


def is_made(wish: Wish) -> bool:
    """Whether a file is one to make. A link to anything, and one that is to go, only show what systemd does."""
    return wish["state"] == "directory" or wish["content"] is not None or wish["src"] is not None


def unlike(wish: Wish) -> str | None:
    """What is wrong with a file, or None. ``wish`` is one of launch_state's files. Raises IvshmemError."""
    path = wish["path"]
    # A directory may be reached by a link, which is nobody's business here; a file that is a link is another one.
    look = os.stat if wish["state"] == "directory" else os.lstat
    try:
        found = look(path)
    except OSError:
        lost = wish["state"] == "directory" and os.path.lexists(path)
        return "leads nowhere" if lost else None if wish["state"] == "absent" else "is missing"
    kinds = {"file": stat.S_ISREG, "directory": stat.S_ISDIR, "link": stat.S_ISLNK}
    if wish["state"] == "absent":
        return "is there"
    if not kinds[wish["state"]](found.st_mode):
        return f"is no {wish['state']}"
    if wish["mode"] is not None and stat.S_IMODE(found.st_mode) != int(wish["mode"], 8):
        return f"has mode {stat.S_IMODE(found.st_mode):04o}"
    if wish["src"] is not None and os.readlink(path) != wish["src"]:
        return f"leads to {os.readlink(path)}"
    if wish["content"] is not None and read_file(path) != _content(wish):
        return "has other content"
    return None


def refusal(wish: Wish) -> str | None:
    """Why a file cannot be made what it is to be without taking away what somebody else has put there, or None."""
    path, state = wish["path"], wish["state"]
    if state == "directory" and os.path.lexists(path) and not os.path.isdir(path):
        return f"{path}: is no directory, and is not replaced; move it away, or name another directory (launch_dir)"
    if state in ("file", "link") and os.path.lexists(path):
        if os.path.isdir(path) and not os.path.islink(path):
            return f"{path}: is a directory, and is not replaced; move it away"
        if state == "link" and not os.path.islink(path):
            return f"{path}: is no link, and is not replaced; move it away, or give its path as the VM's script"
    return None


def make(module: AnsibleModule, wish: Wish) -> None:
    """Make a file what it is to be; the caller has seen that it is not, and that it may be. Raises IvshmemError."""
    try:
        _MAKERS[wish["state"]](module, wish)
    except OSError as exc:
        raise IvshmemError(f"{wish['path']}: cannot be made a {wish['state']}: {exc.strerror}") from exc


def _content(wish: Wish) -> bytes:
    return str(wish["content"]).encode("utf-8", "surrogateescape")


def _directory(module: AnsibleModule, wish: Wish) -> None:
    os.makedirs(wish["path"], exist_ok=True)
    if wish["mode"] is not None:
        attributes = module.load_file_common_arguments({"mode": wish["mode"]}, path=os.path.realpath(wish["path"]))
        module.set_fs_attributes_if_different(attributes, False)


def _file(module: AnsibleModule, wish: Wish) -> None:
    attributes = module.load_file_common_arguments({"mode": wish["mode"]}, path=wish["path"])
    # Where a link stood, the file that it leads to is not ours.
    replace_file(module, wish["path"], _content(wish), attributes=attributes, follow=False)


def _link(_module: AnsibleModule, wish: Wish) -> None:
    folder, name = os.path.split(wish["path"])
    fresh = os.path.join(folder, f".{name}.ivshmem-new")
    if os.path.lexists(fresh):
        os.unlink(fresh)
    os.symlink(wish["src"], fresh)
    try:
        os.rename(fresh, wish["path"])
    except OSError:
        os.unlink(fresh)
        raise


_MAKERS: Mapping[str, Callable[[AnsibleModule, Wish], None]] = {"directory": _directory, "file": _file, "link": _link}
