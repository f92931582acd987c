# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VMs of a scenario XML, of either dialect, with the PCI functions that it gives them besides shared memory.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import FIRST, LAST, spelt
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    POST_LAUNCHED,
    PRE_LAUNCHED,
    SERVICE,
    Bdf,
    IvshmemError,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document, Node

# What a scenario is written for: ACRN up to v2.7, and from v3.0 on.
V2, V3 = "v2", "v3"

_LOAD_ORDERS = {"PRE_LAUNCHED_VM": PRE_LAUNCHED, "SERVICE_VM": SERVICE, "POST_LAUNCHED_VM": POST_LAUNCHED}
# misc/config_tools/library/scenario_cfg_lib.py, VM_DB (v2.2 calls the Service VM SOS_VM, v2.7 SERVICE_VM).
_V2_TYPES = {
    "SAFETY_VM": PRE_LAUNCHED,
    "PRE_STD_VM": PRE_LAUNCHED,
    "PRE_RT_VM": PRE_LAUNCHED,
    "SOS_VM": SERVICE,
    "SERVICE_VM": SERVICE,
    "POST_STD_VM": POST_LAUNCHED,
    "POST_RT_VM": POST_LAUNCHED,
    "KATA_VM": POST_LAUNCHED,
}
# Up to v2.6 acrn-dm finds its VM by UUID (-U), and the n-th VM of a type has the n-th of these
# (misc/config_tools/library/scenario_cfg_lib.py, UUID_DB).
_V2_UUIDS = {
    "SAFETY_VM": ("fc836901-8685-4bc0-8b71-6e31dc36fa47",),
    "PRE_STD_VM": ("26c5e0d8-8f8a-47d8-8109-f201ebd61a5e", "dd87ce08-66f9-473d-bc58-7605837f935e"),
    "PRE_RT_VM": ("b2a92bec-ca6b-11ea-b106-3716a8ba0bb9",),
    "SOS_VM": ("dbbbd434-7a57-4216-a12c-2201f1ab0240",),
    "POST_STD_VM": (
        "d2795438-25d6-11e8-864e-cb7a18b34643",
        "615db82a-e189-4b4f-8dbb-d321343e4ab3",
        "38158821-5208-4005-b72a-8a609e4190d0",
        "a6750180-f87a-48d2-91d9-4e7f62b6519e",
        "d1816e4a-a9bb-4cb4-a066-3f1a8a5ce73f",
    ),
    "POST_RT_VM": ("495ae2e5-2603-4d64-af76-d4bc5a8ec0e5",),
    "KATA_VM": ("a7ada506-1ab0-4b6b-a0da-e513ca9b8c2f",),
}


@dataclass(frozen=True)
class Function:
    """A PCI function that a VM has besides its shared memory: ``kind`` is ``vuart`` or ``passthrough``."""

    bdf: Bdf
    kind: str
    what: str


@dataclass(frozen=True)
class Vm:
    """A VM of the scenario. ``uuid`` is what ``acrn-dm -U`` takes up to ACRN v2.6, None where there is none."""

    id: int
    name: str
    load_order: str
    vm_type: str
    uuid: str | None = None
    functions: tuple[Function, ...] = ()
    # Of os_config: kind of the kernel, tags of the multiboot modules, and what the build gives the kernel.
    kern_type: str = ""
    kern_mod: str = ""
    ramdisk_mod: str = ""
    bootargs: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The VM as modules return it, without its PCI functions and its kernel."""
        return {key: getattr(self, key) for key in ("id", "name", "load_order", "vm_type", "uuid")}


def _vuarts(root: Node) -> dict[str, list[Function]]:
    """The PCI functions of the vUART connections, by the name of the VM."""
    found: dict[str, list[Function]] = {}
    for connection in root.all("hv/vuart_connections/vuart_connection"):
        if connection.value("type").lower() != "pci":
            continue
        for endpoint in connection.all("endpoint"):
            try:
                function = Function(Bdf.parse(endpoint.value("vbdf")), "vuart", connection.value("name"))
            except IvshmemError:
                continue
            found.setdefault(endpoint.value("vm_name"), []).append(function)
    return found


def _functions(vm: Node, vuarts: Iterable[Function]) -> tuple[Function, ...]:
    found = []
    for pci_dev in vm.all("pci_devs/pci_dev"):
        words = pci_dev.text.split()
        try:
            found.append(Function(Bdf.parse(words[0]), "passthrough", pci_dev.text.strip()))
        except (IndexError, IvshmemError):
            continue
    return (*found, *vuarts)


def _bootargs(vm: Node) -> str:
    # v2.x keeps those of the Service VM apart, and its os_config names a macro that stands for them.
    private = vm.first("board_private")
    words = (private or vm).value("bootargs" if private else "os_config/bootargs").split()
    rootfs = private.value("rootfs") if private else ""
    return " ".join([f"root={rootfs}", *words] if rootfs else words)


def dialect_of(root: Node) -> str:
    """The dialect of a scenario: only VMs of v3.x have ``load_order``."""
    return V3 if any(vm.first("load_order") for vm in root.all("vm")) else V2


def read_vms(document: Document, dialect: str) -> tuple[Vm, ...]:
    """The VMs of a scenario, in file order. Raises IvshmemError for one without an own ID or a known kind."""
    of_type: dict[str, int] = {}
    found: dict[int, Vm] = {}
    vuarts = _vuarts(document.root)
    for node in document.root.all("vm"):
        vm_id = _id(document, node)
        if vm_id in found:
            raise IvshmemError(f"{document.where}: VM id {vm_id} is there twice, again at line {document.line(node)}")
        vm_type = node.value("vm_type")
        nth = of_type.get(vm_type, 0)
        of_type[vm_type] = nth + 1
        uuids = () if dialect == V3 else _V2_UUIDS.get(vm_type, ())
        # v2.2 leaves post-launched VMs without a name.
        name = node.value("name") or f"VM{vm_id}"
        found[vm_id] = Vm(
            vm_id,
            name,
            _load_order(document, dialect, vm_id, node),
            vm_type,
            uuids[nth] if nth < len(uuids) else None,
            _functions(node, vuarts.get(name, ())),
            kern_type=node.value("os_config/kern_type"),
            kern_mod=node.value("os_config/kern_mod"),
            ramdisk_mod=node.value("os_config/ramdisk_mod"),
            bootargs=_bootargs(node),
        )
    return tuple(found.values())


def _id(document: Document, node: Node) -> int:
    text = node.attributes.get("id", "")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise IvshmemError(f"{document.where}: the VM at line {document.line(node)} has no numeric id")
    return int(text)


def _load_order(document: Document, dialect: str, vm_id: int, node: Node) -> str:
    tag, known = ("load_order", _LOAD_ORDERS) if dialect == V3 else ("vm_type", _V2_TYPES)
    load_order = known.get(node.value(tag))
    if load_order is None:
        raise IvshmemError(
            f"{document.where}: VM {vm_id} (line {document.line(node)}) has the {tag} '{node.value(tag)}', "
            f"which no ACRN from {spelt(FIRST)} to {spelt(LAST)} knows"
        )
    return load_order
