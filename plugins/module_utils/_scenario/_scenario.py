# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scenario XML: its VMs, its regions, and what it shall have.

This module util is PRIVATE to the collection: it can change at any time.

Two dialects exist, up to ACRN v2.7 and from v3.0 on (_vm.dialect_of): what differs in how regions are written stands in
_lines and _elements, each a kind of _block.Block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import SLOT_ORDER
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    HYPERVISOR,
    MOST_REGIONS,
    MOST_VMS,
    POST_LAUNCHED,
    Bdf,
    IvshmemError,
    Region,
    some,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._block import Block, region_nodes
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._elements import Elements
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._lines import Lines
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import (
    PlacedRegion,
    PlacedVm,
    Places,
    place_regions,
    taken,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V2, V3, Vm, dialect_of, read_vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document


class Scenario:
    """A scenario as it stands in a file."""

    def __init__(self, document: Document) -> None:
        """Read VMs and regions. Raises IvshmemError for a file that is no scenario of a known dialect."""
        self.document = document
        self.where = document.where
        root = document.root
        _refuse_others(document)
        self.board = root.attributes.get("board", "")
        self.name = root.attributes.get("scenario", "")
        self.dialect = dialect_of(root)
        self.vms = read_vms(document, self.dialect)
        self._by_id = {str(vm.id): vm for vm in self.vms}
        # Of two with one name the first counts.
        self._by_name = {vm.name: vm for vm in reversed(self.vms)}
        self.block: Block = (Elements if self.dialect == V3 else Lines)(document)
        self.regions, self.enabled = self.block.regions, self.block.enabled
        self.max_emulated_mmio = self._capacity("MAX_EMULATED_MMIO", 16)
        self.max_vm_num = self._capacity("MAX_VM_NUM", 16 if self.dialect == V3 else 8)
        self.max_pci_devices = self._capacity("MAX_PCI_DEV_NUM", 96)
        # HV_RAM_SIZE in MB, which ACRN computes later than v2.6, and HV_RAM_START; 0 where they are not set.
        self.hv_ram_size = self._hexadecimal("HV_RAM_SIZE") >> 20
        self.hv_ram_start = self._hexadecimal("HV_RAM_START")
        self.trusty_vms = sum(vm.value("secure_world_support") == "y" for vm in root.all("vm"))

    @property
    def in_effect(self) -> tuple[Region, ...]:
        """The regions of the file that ACRN builds: none where they are switched off."""
        return self.regions if self.enabled else ()

    def _capacity(self, tag: str, default: int) -> int:
        text = self.document.root.value(f"hv/CAPACITIES/{tag}")
        return int(text) if re.fullmatch("[0-9]{1,9}", text) else default

    def _hexadecimal(self, tag: str) -> int:
        text = self.document.root.value(f"hv/MEMORY/{tag}")
        return int(text, 16) if re.fullmatch(r"0x[0-9A-Fa-f]{1,16}", text) else 0

    def vm(self, ref: str | int) -> Vm:
        """The VM of a name or an ID (digits are an ID unless a VM has that name). Raises IvshmemError."""
        found = (self._by_name.get(ref) if isinstance(ref, str) else None) or self._by_id.get(str(ref))
        if found:
            return found
        raise IvshmemError(f"{self.where}: has no VM '{ref}'; its VMs are {self.known_vms}")

    @property
    def known_vms(self) -> str:
        """The VMs in words."""
        return some(f"{vm.name} ({vm.id})" for vm in self.vms)

    def resolved(self, region: Region) -> tuple[tuple[Vm, Bdf | None], ...]:
        """The VMs of a region that the scenario has, with their vBDFs of the declaration."""
        found = []
        for ref in region.vms:
            try:
                found.append((self.vm(ref.vm), ref.vbdf))
            except IvshmemError:
                continue
        return tuple(found)

    def declared(self) -> list[Any]:
        """The regions of the file that ACRN builds, as ivshmem_regions has them; see Block.declared."""
        return self.block.declared(self._reference)

    def _reference(self, ref: str | int) -> str | int:
        # The name of a VM that v2.x names by its ID, where that name means no other VM.
        try:
            vm = self.vm(ref)
        except IvshmemError:
            return ref
        return vm.name if self.vm(vm.name) is vm else vm.id

    def merged(self, declared: Iterable[Region], exact: bool) -> tuple[Region, ...]:
        """The regions that the scenario shall have: hv-land first, those in the file before new ones.

        With ``exact`` these are the declared ones alone, else the others of the file as well. A region ID that the
        file has stays unless the declaration gives one. A name that is declared twice is there twice. Regions of the
        file that are switched off are there only when a region of the declaration switches them on: v2.x has one
        switch for all.
        """
        declared = tuple(declared)
        others = not exact and (self.enabled or any(region.provided_by == HYPERVISOR for region in declared))
        new: dict[str, list[Region]] = {}
        for region in declared:
            new.setdefault(region.name, []).append(region)
        result = []
        for old in self.regions:
            for region in new.pop(old.name, [old] if others else []):
                result.append(region if region.region_id is not None else replace(region, region_id=old.region_id))
        result += [region for regions in new.values() for region in regions]
        # ACRN wants the hypervisor's regions first (see Elements); in this order a second read finds them as well.
        return tuple(sorted(result, key=lambda region: region.provided_by != HYPERVISOR))

    def as_found(self) -> tuple[PlacedRegion, ...]:
        """The regions that ACRN builds from the file where they are now, without VMs that are not in the scenario."""
        known = {vm.name for vm in self.vms} | {str(vm.id) for vm in self.vms}
        regions = [
            replace(region, vms=tuple(ref for ref in region.vms if str(ref.vm) in known)) for region in self.in_effect
        ]
        if self.dialect == V2:
            return place_regions(self, regions)
        return tuple(
            PlacedRegion(region, tuple(PlacedVm(self.vm(ref.vm), ref.vbdf) for ref in region.vms)) for region in regions
        )

    def places(self) -> Places:
        """The vBDFs that the file gives to its regions."""
        return {(region.name, vm.id): vbdf for region in self.regions for vm, vbdf in self.resolved(region) if vbdf}

    def for_key(self) -> bytes:
        """The bytes of the file in a form that is the same for two files of which ACRN builds the same hypervisor."""
        return self.block.for_key(
            {
                vm.name: [slot for slot in SLOT_ORDER if slot not in taken(vm, ())]
                for vm in self.vms
                if vm.load_order == POST_LAUNCHED
            }
        )


def _refuse_others(document: Document) -> None:
    """Raise IvshmemError for a file that is no scenario, or larger than any of ACRN's."""
    root, where = document.root, document.where
    if root.tag != "acrn-config":
        raise IvshmemError(f"{where}: its root is <{root.tag}>, not <acrn-config>: this is no scenario XML")
    if root.all("user_vm") or root.all("uos") or not root.all("vm"):
        kind = "a launch XML" if root.all("user_vm") or root.all("uos") else "a file without VMs"
        raise IvshmemError(f"{where}: is {kind}; give the scenario XML, which has <vm> elements")
    for tag, most, nodes in (("vm", MOST_VMS, root.all("vm")), ("IVSHMEM_REGION", MOST_REGIONS, region_nodes(root))):
        if len(nodes) > most:
            raise IvshmemError(f"{where}: has {len(nodes)} {tag} elements; {most} is the limit here")


def read_scenario(data: bytes, where: str) -> Scenario:
    """Read the bytes of a scenario XML; ``where`` names the file in messages. Raises IvshmemError."""
    return Scenario(Document(data, where))
