# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Service VM in a directory that outlives processes, and builds to install there."""

from __future__ import annotations

import base64
import hashlib
import json

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _host, _install
from ansible_collections.acrn.ivshmem.plugins.modules import hypervisor_install
from ansible_collections.acrn.ivshmem.tests.unit.plugins.modules.test_hypervisor_install import (
    DEFAULTS,
    GRUB_CFG,
    LOADED,
    SCENARIO,
    Machine,
)

__all__ = ["DEFAULTS", "GRUB_CFG", "LOADED", "SCENARIO", "Machine"]

MOMENT = 1700000000  # what its clock shows


def opened(root):
    """The machine in a directory that is there."""
    machine = Machine.__new__(Machine)
    machine.root, machine.virt, machine.commands = root, "acrn", {}
    return machine


def artifact(place, key, size=64):
    """A build with a key in a directory."""
    place.mkdir(parents=True)
    files = {
        "acrn.bin": b"\xd6\x50\x52\xe8" + key.encode() * size,
        "scenario.xml": SCENARIO.encode(),
        "board.xml": b"<b/>",
    }
    outputs = {}
    for name, data in files.items():
        (place / name).write_bytes(data)
        outputs[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    manifest = {"key": key, "name": "lab", "version": "3.3", "regions": [], "outputs": outputs}
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


def params(place=None, **others):
    """Parameters of hypervisor_install, with what its action plugin adds for a build in a directory."""
    given = dict(DEFAULTS, **others)
    if place is not None:
        given["_artifact"] = {
            "manifest.json": (place / "manifest.json").read_text(),
            "scenario.xml": base64.b64encode((place / "scenario.xml").read_bytes()).decode(),
        }
        given["_staged"] = str(place)
    return given


def enter(root):
    """Let hypervisor_install find this machine, and not the one that it runs on."""
    real = _host.Host
    machine = opened(root)
    hypervisor_install.Host = lambda _run, base="/", dry=False: real(machine.command, str(root), dry)
    _host.now = lambda: MOMENT
    _install.now = _host.now
