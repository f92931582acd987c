# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The artefacts that a builder keeps, by their keys.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._decide import FORMAT
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import IMAGE, LOG, MANIFEST, MARKER
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import digest_of, read_file, walk
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# What readers of a manifest rely on. Who can write to the store can write anything there.
_MANIFEST = {"key": str, "name": str, "board": str, "regions": list, "warnings": list, "inputs": dict, "outputs": dict}
_NOT_ONE = (OSError, IvshmemError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _manifest_in(folder: str) -> dict[str, Any]:
    """The manifest of an artefact. Raises one of _NOT_ONE where there is none."""
    value = json.loads(read_file(os.path.join(folder, MANIFEST)))
    for name, kind in _MANIFEST.items():
        if not isinstance(value[name], kind):
            raise ValueError(name)
    if not all({"name", "size", "region_id"} <= set(region) for region in value["regions"]):
        raise ValueError("regions")
    for name in (IMAGE, LOG):
        if name not in value["outputs"]:
            raise ValueError(name)
    return dict(value)


def find_artifact(artifacts_dir: str, key: str) -> dict[str, Any] | None:
    """The manifest of a finished artefact, or None. Every file that it lists is checked by size and digest."""
    folder = os.path.join(artifacts_dir, key)
    try:
        manifest = _manifest_in(folder)
        if manifest["key"] != key or manifest["inputs"]["format"] != FORMAT:
            return None
        for name, facts in manifest["outputs"].items():
            path = os.path.join(folder, name)
            about = os.stat(path)
            # A look into a pipe would wait for ever.
            if not stat.S_ISREG(about.st_mode) or about.st_size != facts["size"] or digest_of(path) != facts["sha256"]:
                return None
    except _NOT_ONE:
        return None
    return manifest


def last_manifest(artifacts_dir: str, board: str, name: str) -> dict[str, Any] | None:
    """The newest manifest of a board and scenario name, to show what a new build changes."""
    newest: tuple[float, dict[str, Any]] | None = None
    try:
        entries = list(os.scandir(artifacts_dir))
    except OSError:
        return None
    for entry in entries:
        try:
            manifest = _manifest_in(entry.path)
            if (manifest["board"], manifest["name"], manifest["key"]) == (board, name, entry.name):
                when = os.stat(os.path.join(entry.path, MANIFEST)).st_mtime
                newest = max(newest or (when, manifest), (when, manifest), key=lambda pair: pair[0])
        except _NOT_ONE:
            continue
    return newest[1] if newest else None


def outputs(folder: str) -> dict[str, dict[str, Any]]:
    outputs = {}
    for parent, _folders, names in walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            outputs[os.path.relpath(path, folder)] = {"sha256": digest_of(path), "size": os.path.getsize(path)}
    return dict(sorted(outputs.items()))


def own_folder(folder: str) -> None:
    """Make the work directory, and refuse one that holds other people's files: parts of it are wiped."""
    try:
        os.makedirs(folder, exist_ok=True)
        if not os.path.exists(os.path.join(folder, MARKER)):
            if os.listdir(folder):
                raise IvshmemError(
                    f"work_dir {folder}: is not empty and was not made by this module, which wipes parts of it; "
                    "give a directory of its own"
                )
            with open(os.path.join(folder, MARKER), "w", encoding="ascii") as handle:
                handle.write("Work directory of acrn.ivshmem.hypervisor_build: it may go while nothing builds.\n")
    except OSError as exc:
        raise IvshmemError(f"work_dir {folder}: cannot be used: {exc.strerror}") from exc


def sweep(artifacts_dir: str) -> None:
    """Remove what an interrupted build left; call it under the lock."""
    for entry in os.scandir(artifacts_dir):
        if entry.name.startswith(".new-") or entry.name.startswith(".old-"):
            shutil.rmtree(entry.path, ignore_errors=True)
