# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What launch_state makes on a Service VM: the files and launch scripts that differ from the plan.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import locked, read_file, unified
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._compare import in_the_way
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._place import is_made, make, unlike
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._script import set_script
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Heavy, Light, Module
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def bring(module: Module) -> dict[str, Any]:
    """Make the files and scripts of a Service VM what compare() holds them against. VMs and memory are left.

    Raises IvshmemError, of what stands in the way before anything is touched.
    """
    if isinstance(module, Light):
        raise Heavy("it writes")
    params = module.params["wish"]
    refused = [*params["refused"], *in_the_way(params)]
    if refused:
        raise IvshmemError("\n".join(refused))
    folders = [wish for wish in params["files"] if wish["state"] == "directory"]
    files = [wish for wish in params["files"] if is_made(wish) and wish not in folders]
    locks = [] if module.check_mode else [each["path"] for each in [*params["scripts"], *files]]
    # A lock is that of a file in a directory; that two make the same one at once does no harm.
    diffs = _make(module, folders)
    with locked(*locks, what="launch"):
        diffs += _make(module, files)
        scripts = [_set(module, script) for script in params["scripts"]]
    written = [diff["after_header"] for diff in diffs]
    diffs += [script.pop("diff") for script in scripts if "diff" in script]
    changed = bool(written) or any(script["changed"] for script in scripts)
    return {"changed": changed, "written": written, "scripts": scripts, **_shown(module, diffs)}


def _shown(module: AnsibleModule, diffs: list[dict[str, str]]) -> dict[str, Any]:
    """The differences, for a run that asks for them."""
    return {"diff": [diff for diff in diffs if diff["before"] != diff["after"]]} if module._diff else {}


def _set(module: AnsibleModule, script: Mapping[str, Any]) -> dict[str, Any]:
    """Give one script its devices."""
    wish = module.params["wish"]
    common = {"src": None, "state": "exact", **{name: wish[name] for name in ("backup", "acrn_dm")}}
    return {**set_script(_Part(module, {**common, **script})), "vm": script["vm"], "path": script["path"]}


class _Part:
    """A module that is asked for one script of several."""

    def __init__(self, module: AnsibleModule, params: Mapping[str, Any]) -> None:
        self._module = module
        self.params = dict(params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _make(module: AnsibleModule, wishes: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Make files what they are to be. The differences that there were."""
    diffs = []
    for wish in wishes:
        problem = unlike(wish)
        if problem:
            diffs.append(_file_diff(wish, problem))
            if not module.check_mode:
                make(module, wish)
    return diffs


def _file_diff(wish: Mapping[str, Any], problem: str) -> dict[str, str]:
    """What a file comes from and to, in words where it is not its content."""
    path = wish["path"]
    if wish["content"] is not None and not problem.startswith("has mode"):
        before = "" if os.path.islink(path) else read_file(path, missing=b"").decode("utf-8", "replace")
        return unified(before, wish["content"], path)
    mode = f", mode {wish['mode']}" if wish["mode"] else ""
    to = f"leads to {wish['src']}" if wish["src"] is not None else wish["state"]
    return unified(f"{problem}\n", f"{to}{mode}\n", path)
