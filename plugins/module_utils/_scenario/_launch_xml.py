# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The launch XML of ACRN v2.x, from which its generator makes launch scripts: the regions of its VMs.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, SERVICE, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._block import Pairs
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._lines import text_lines
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import PlacedRegion
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V3
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document, Node


def _launch_users(data: bytes, where: str) -> tuple[Document, list[Node]]:
    document = Document(data, where)
    users = [node for node in document.root.children if node.tag in ("user_vm", "uos")]
    if document.root.tag != "acrn-config" or not users:
        raise IvshmemError(f"{where}: is no launch XML: it has no <user_vm> (or <uos>) elements")
    return document, users


def _before_users(scenario: Scenario) -> int:
    # A launch XML numbers its VMs from the Service VM on.
    return next((vm.id for vm in scenario.vms if vm.load_order == SERVICE), 0)


def launch_guests(data: bytes, where: str, scenario: Scenario) -> dict[int, str]:
    """What the VMs of a v2.x launch XML run, such as WINDOWS, by their ID in the scenario. Raises IvshmemError."""
    found = {}
    for user in _launch_users(data, where)[1]:
        number = user.attributes.get("id", "")
        if re.fullmatch("[0-9]{1,9}", number):
            found[int(number) + _before_users(scenario)] = user.value("user_vm_type") or user.value("uos_type")
    return found


def render_launch(data: bytes, where: str, scenario: Scenario, regions: Iterable[PlacedRegion]) -> bytes:
    """The bytes of a v2.x launch XML whose ``shm_region`` elements agree with the scenario.

    A launch XML numbers its VMs from the Service VM on (misc/config_tools/library/launch_cfg_lib.py,
    set_shm_regions), and its generator takes ``hv:/name,size`` without a space. dm-land regions have no place in it:
    the generator refuses what the scenario XML does not list. Raises IvshmemError for anything but a launch XML.
    """
    if scenario.dialect == V3:
        raise IvshmemError(f"{where}: ACRN v3.x has no launch XML with shared memory; leave launch_path out")
    document, users = _launch_users(data, where)
    service = _before_users(scenario)
    wanted: dict[str, dict[str, str]] = {}
    for placed in regions:
        if placed.region.provided_by == HYPERVISOR:
            for vm in placed.vms:
                lines = wanted.setdefault(str(vm.vm.id - service), {})
                lines[placed.region.prefixed] = f"{placed.region.prefixed},{placed.region.size}"
    source = document.source
    for user in reversed(users):
        lines = wanted.get(user.attributes.get("id", ""), {})
        parent = user.first("shm_regions")
        if parent is None:
            if not lines:
                continue
            spec = [("shm_region", text) for text in lines.values()]
            new = document.build("shm_regions", spec, document.child_indent(user), document.eol(user.start))
            pairs: Pairs = [*((child, document.raw(child)) for child in user.children), (None, new)]
            source = source[: user.start] + document.with_children(user, pairs) + source[user.end :]
            continue

        def same(text: str, key: str, lines: Mapping[str, str] = lines) -> bool:
            return text == lines[key]

        pairs = text_lines(document, parent, "shm_region", lines, same)
        if pairs != [(child, document.raw(child)) for child in parent.children]:
            source = source[: parent.start] + document.with_children(parent, pairs) + source[parent.end :]
    return document.encode(source)
