# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scenario XML: its VMs, its regions, and new bytes for it with other regions.

This module util is PRIVATE to the collection: it can change at any time.

Two dialects exist. Up to ACRN v2.7 a region is a line of text, ``<IVSHMEM_REGION>hv:/name, 2, 0:2</...>``, and
``IVSHMEM_ENABLED`` turns them on; from v3.0 on a region is a tree of elements that names VMs and their vBDFs
(misc/config_tools/schema/types.xsd, IVSHMEMInfo). Which one a file speaks shows in its VMs: only v3.x has
``load_order``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, List, Mapping, Optional, Tuple

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    FIRST,
    FUNCTIONS_SINCE,
    HEXADECIMAL_IDS_SINCE,
    LAST,
    REGION_IDS_SINCE,
    SLOT_ORDER,
    V2_SLOT_ORDER,
    spelt,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    HYPERVISOR,
    MOST_REGIONS,
    MOST_VMS,
    POST_LAUNCHED,
    PRE_LAUNCHED,
    PROVIDERS,
    SERVICE,
    Bdf,
    IvshmemError,
    Region,
    RegionVm,
    parse_region,
    some,
    to_compact,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Content, Document, Node

V2, V3 = "v2", "v3"

# Children of an element as they shall be: each a child of now, or None for a new one, and its bytes.
Pairs = List[Tuple[Optional[Node], bytes]]

# Where regions are, by name of the region and ID of the VM.
Places = Mapping[Tuple[str, int], Bdf]

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
_V3_PROVIDERS = {"Hypervisor": HYPERVISOR, "Device Model": DEVICE_MODEL}
_V3_PROVIDER_TEXTS = {provider: text for text, provider in _V3_PROVIDERS.items()}
_V3_FIELDS = ("NAME", "PROVIDED_BY", "IVSHMEM_SIZE", "IVSHMEM_REGION_ID", "IVSHMEM_VMS")


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


def several_functions(vm: Vm, version: tuple[int, int] | None) -> bool:
    """Whether regions of a VM may be functions of one device; a launch script has no words for that."""
    return version is not None and version >= FUNCTIONS_SINCE and vm.load_order != POST_LAUNCHED


@dataclass(frozen=True)
class PlacedVm:
    """A VM of a region at its place. ``vbdf`` is None where ACRN's build chooses it (v2.x, not post-launched).

    ``chosen`` is a place that no declaration, file or host tells.
    """

    vm: Vm
    vbdf: Bdf | None
    chosen: bool = False


@dataclass(frozen=True)
class PlacedRegion:
    """A region with its VMs resolved and placed."""

    region: Region
    vms: tuple[PlacedVm, ...]

    def as_dict(self) -> dict[str, Any]:
        """The region as modules return it; ``slot`` is decimal, as acrn-dm takes it."""
        # Only where it is declared: no file of ACRN holds it.
        reserved = {} if self.region.reserved is None else {"reserved": self.region.reserved}
        return {
            **reserved,
            "name": self.region.name,
            "provided_by": self.region.provided_by,
            "size": self.region.size,
            "region_id": self.region.region_id,
            "vms": [
                {
                    "id": placed.vm.id,
                    "name": placed.vm.name,
                    "load_order": placed.vm.load_order,
                    "vbdf": str(placed.vbdf) if placed.vbdf else None,
                    "slot": placed.vbdf.slot if placed.vbdf else None,
                }
                for placed in self.vms
            ],
        }


def _regions(root: Node) -> list[Node]:
    return root.all("hv/FEATURES/IVSHMEM/IVSHMEM_REGION")


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


class Scenario:
    """A scenario as it stands in a file."""

    def __init__(self, document: Document) -> None:
        """Read VMs and regions. Raises IvshmemError for a file that is no scenario of a known dialect."""
        self.document = document
        self.where = document.where
        root = document.root
        if root.tag != "acrn-config":
            raise IvshmemError(f"{self.where}: its root is <{root.tag}>, not <acrn-config>: this is no scenario XML")
        if root.all("user_vm") or root.all("uos") or not root.all("vm"):
            kind = "a launch XML" if root.all("user_vm") or root.all("uos") else "a file without VMs"
            raise IvshmemError(f"{self.where}: is {kind}; give the scenario XML, which has <vm> elements")
        self.board = root.attributes.get("board", "")
        self.name = root.attributes.get("scenario", "")
        for tag, most, nodes in (("vm", MOST_VMS, root.all("vm")), ("IVSHMEM_REGION", MOST_REGIONS, _regions(root))):
            if len(nodes) > most:
                raise IvshmemError(f"{self.where}: has {len(nodes)} {tag} elements; {most} is the limit here")
        self.dialect = V3 if any(vm.first("load_order") for vm in root.all("vm")) else V2
        self.vms = tuple(self._read_vms(root))
        self._by_id = {str(vm.id): vm for vm in self.vms}
        # Of two with one name the first counts.
        self._by_name = {vm.name: vm for vm in reversed(self.vms)}
        blocks = [node for node in root.walk() if node.tag == "IVSHMEM"]
        self.block = root.first("hv/FEATURES/IVSHMEM")
        if len(blocks) > 1:
            lines = some((document.line(node) for node in blocks), between=" and ")
            raise IvshmemError(f"{self.where}: has {len(blocks)} IVSHMEM elements, at lines {lines}; leave one")
        if blocks and not self.block:
            raise IvshmemError(
                f"{self.where}: its IVSHMEM element (line {document.line(blocks[0])}) is not in hv/FEATURES; move it"
            )
        # v3.x has no switch; up to v2.7 ACRN ignores the regions of a file unless it says y.
        self.enabled = self.dialect == V3 or bool(self.block and self.block.value("IVSHMEM_ENABLED") == "y")
        self.max_emulated_mmio = self._capacity("MAX_EMULATED_MMIO", 16)
        self.max_vm_num = self._capacity("MAX_VM_NUM", 16 if self.dialect == V3 else 8)
        self.max_pci_devices = self._capacity("MAX_PCI_DEV_NUM", 96)
        # HV_RAM_SIZE in MB, which ACRN computes later than v2.6, and HV_RAM_START; 0 where they are not set.
        self.hv_ram_size = self._hexadecimal("HV_RAM_SIZE") >> 20
        self.hv_ram_start = self._hexadecimal("HV_RAM_START")
        self.trusty_vms = sum(vm.value("secure_world_support") == "y" for vm in root.all("vm"))
        self.unreadable: list[Node] = []
        self._nodes: dict[str, Node] = {}
        self.regions = tuple(self._read_regions())

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

    def _read_vms(self, root: Node) -> Iterable[Vm]:
        of_type: dict[str, int] = {}
        ids = set()
        vuarts = _vuarts(root)
        for node in root.all("vm"):
            line = self.document.line(node)
            if not re.fullmatch("[0-9]{1,9}", node.attributes.get("id", "")):
                raise IvshmemError(f"{self.where}: the VM at line {line} has no numeric id")
            vm_id = int(node.attributes["id"])
            if vm_id in ids:
                raise IvshmemError(f"{self.where}: VM id {vm_id} is there twice, again at line {line}")
            ids.add(vm_id)
            vm_type = node.value("vm_type")
            tag, known = ("load_order", _LOAD_ORDERS) if self.dialect == V3 else ("vm_type", _V2_TYPES)
            load_order = known.get(node.value(tag))
            if load_order is None:
                raise IvshmemError(
                    f"{self.where}: VM {vm_id} (line {line}) has the {tag} '{node.value(tag)}', "
                    f"which no ACRN from {spelt(FIRST)} to {spelt(LAST)} knows"
                )
            nth = of_type.get(vm_type, 0)
            of_type[vm_type] = nth + 1
            uuids = () if self.dialect == V3 else _V2_UUIDS.get(vm_type, ())
            # v2.2 leaves post-launched VMs without a name.
            name = node.value("name") or f"VM{vm_id}"
            yield Vm(
                vm_id,
                name,
                load_order,
                vm_type,
                uuids[nth] if nth < len(uuids) else None,
                _functions(node, vuarts.get(name, ())),
                kern_type=node.value("os_config/kern_type"),
                kern_mod=node.value("os_config/kern_mod"),
                ramdisk_mod=node.value("os_config/ramdisk_mod"),
                bootargs=_bootargs(node),
            )

    def _read_regions(self) -> Iterable[Region]:
        for node in self.block.all("IVSHMEM_REGION") if self.block else ():
            text = node.text.strip()
            if not text and not node.children:
                continue
            try:
                region = self._read_v3(node) if self.dialect == V3 else parse_region(text)
            except IvshmemError:
                self.unreadable.append(node)
                continue
            if region.name in self._nodes:
                self.unreadable.append(node)
                continue
            self._nodes[region.name] = node
            yield region

    def _name(self, node: Node) -> str:
        # The name of a region of the file, readable or not.
        if self.dialect == V3:
            return node.value("NAME")
        name = node.text.split(",")[0].strip()
        return name[4:] if name[:4] in PROVIDERS else name

    def _read_v3(self, node: Node) -> Region:
        vms = []
        shared = node.all("IVSHMEM_VMS/IVSHMEM_VM")
        if len(shared) > MOST_VMS:
            raise IvshmemError(f"region '{node.value('NAME')}' has {len(shared)} VMs; {MOST_VMS} is the limit")
        for vm in shared:
            try:
                vbdf = Bdf.parse(vm.value("VBDF"))
            except IvshmemError:
                vbdf = None
            vms.append(RegionVm(vm.value("VM_NAME"), vbdf))
        region = parse_region({**self._values_v3(node), "vms": ["-"]})
        return replace(region, vms=tuple(vms))

    def _values_v3(self, node: Node) -> dict[str, Any]:
        # Without its VMs; what is no provider to ACRN is none here, whatever it says.
        provider = node.value("PROVIDED_BY") or "Hypervisor"
        return {
            "name": node.value("NAME"),
            "provided_by": _V3_PROVIDERS.get(provider, f"PROVIDED_BY {provider}"),
            "size": node.value("IVSHMEM_SIZE") or "2",
            "region_id": node.value("IVSHMEM_REGION_ID") or None,
        }

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
        """The regions of the file that ACRN builds, as ivshmem_regions has them, in file order.

        None is left out, for what is not declared is removed. One that cannot be read or is there twice, a VM that is
        not in the scenario, a vBDF that is none: each stands here in the file's own words, and the rules refuse it.
        """
        nodes = self.block.all("IVSHMEM_REGION") if self.block and self.enabled else []
        readable = {id(node): region for region, node in zip(self.regions, self._nodes.values())}
        return [self._declared(node, readable.get(id(node))) for node in nodes if node.children or node.text.strip()]

    def _declared(self, node: Node, region: Region | None) -> Any:
        own: Mapping[str, Any]
        if region:
            own = {key: getattr(region, key) for key in ("name", "provided_by", "size", "region_id")}
        elif self.dialect == V3:
            own = self._values_v3(node)
        else:
            return node.text.strip()
        vms: list[tuple[str | int, str]]
        if self.dialect == V3:
            vms = [(vm.value("VM_NAME"), _tidy(vm.value("VBDF"))) for vm in node.all("IVSHMEM_VMS/IVSHMEM_VM")]
        else:
            vms = [(self._reference(ref.vm), "") for ref in region.vms] if region else []
        shared = [{"name": name, **({"vbdf": vbdf} if vbdf else {})} for name, vbdf in vms]
        return {**{key: value for key, value in own.items() if value is not None}, "vms": shared}

    def _reference(self, ref: str | int) -> str | int:
        # The name of a VM that v2.x names by its ID, where that name means no other VM.
        try:
            vm = self.vm(ref)
        except IvshmemError:
            return ref
        return vm.name if self.vm(vm.name) is vm else vm.id

    # -- what shall be there -------------------------------------------------------------------------------------

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
        # ACRN wants the hypervisor's regions first (see _pairs_v3); in this order a second read finds them as well.
        return tuple(sorted(result, key=lambda region: region.provided_by != HYPERVISOR))

    def as_found(self) -> tuple[PlacedRegion, ...]:
        """The regions that ACRN builds from the file where they are now, without VMs that are not in the scenario."""
        known = {vm.name for vm in self.vms} | {str(vm.id) for vm in self.vms}
        regions = [
            replace(region, vms=tuple(ref for ref in region.vms if str(ref.vm) in known)) for region in self.in_effect
        ]
        if self.dialect == V2:
            return self.placed(regions)
        return tuple(
            PlacedRegion(region, tuple(PlacedVm(self.vm(ref.vm), ref.vbdf) for ref in region.vms)) for region in regions
        )

    def taken(self, vm: Vm, native: Iterable[Bdf]) -> dict[int, str]:
        """The device numbers of bus 0 that no region may use in a VM, and what holds each."""
        held = {function.bdf.device: function.what for function in vm.functions if function.bdf.bus == 0}
        held[0] = "the host bridge"
        if vm.load_order == SERVICE:
            held.update({bdf.device: f"the native device {bdf}" for bdf in native if bdf.bus == 0})
        if vm.load_order == POST_LAUNCHED:
            # acrn-dm: LPC, GPU and the LPC of GPU passthrough (misc/config_tools/launch_config/launch_cfg_gen.py).
            held.update(dict.fromkeys((0x01, 0x02, 0x1F), "acrn-dm"))
        return held

    def places(self) -> Places:
        """The vBDFs that the file gives to its regions."""
        return {(region.name, vm.id): vbdf for region in self.regions for vm, vbdf in self.resolved(region) if vbdf}

    def placed(
        self,
        regions: Iterable[Region],
        native: Iterable[Bdf] = (),
        earlier: Iterable[Places] = (),
        named: Iterable[Bdf] = (),
        version: tuple[int, int] | None = None,
    ) -> tuple[PlacedRegion, ...]:
        """Give every VM of every region its vBDF.

        A declared vBDF stands. Without one, that of the file (then of ``earlier`` ones) stays if it can be used;
        else the first free of SLOT_ORDER (V2_SLOT_ORDER) is taken, in the order of the regions. ``native`` are the PCI
        functions of the board, which the Service VM sees; there those that it only names (``named``) come last. In v2.x
        only post-launched VMs have a place to choose. Raises IvshmemError where a VM has no free place, or where a
        region names a VM that is not there.
        """
        regions = tuple(regions)
        native = tuple(native)
        taken = {vm.id: self.taken(vm, native) for vm in self.vms}
        # Where a region has function 0, a version with several functions for a device may have more of them.
        ours: dict[int, set[Bdf]] = {vm.id: set() for vm in self.vms}
        places: dict[tuple[str, int], Bdf] = {}

        def settle(region: Region, vm: Vm, vbdf: Bdf) -> None:
            places[region.name, vm.id] = vbdf
            ours[vm.id].add(vbdf)
            taken[vm.id].setdefault(vbdf.device, f"region '{region.name}'")

        def usable(vm: Vm, vbdf: Bdf) -> bool:
            if vbdf.bus or not vbdf.function:
                return not vbdf.bus and vbdf.device not in taken[vm.id]
            beside = replace(vbdf, function=0) in ours[vm.id] and vbdf not in ours[vm.id]
            return beside and several_functions(vm, version)

        first = V2_SLOT_ORDER if self.dialect == V2 else SLOT_ORDER
        last = {bdf.device for bdf in named}
        pairs = []
        for region in regions:
            for ref in region.vms:
                vm = self.vm(ref.vm)
                if self.dialect == V2 and vm.load_order != POST_LAUNCHED:
                    continue
                pairs.append((region, vm))
                if ref.vbdf:
                    settle(region, vm, ref.vbdf)
        for before in (self.places(), *earlier):
            # Functions 0 first, for others stand beside one.
            for region, vm in sorted(pairs, key=lambda pair: _function(before.get((pair[0].name, pair[1].id)))):
                vbdf = before.get((region.name, vm.id))
                if vbdf is not None and (region.name, vm.id) not in places and usable(vm, vbdf):
                    settle(region, vm, vbdf)
        chosen = {(region.name, vm.id) for region, vm in pairs} - set(places)
        for region, vm in pairs:
            if (region.name, vm.id) not in places:
                behind = last if vm.load_order == SERVICE else set()
                order = sorted(first, key=lambda slot, behind=behind: slot in behind)
                device = next((slot for slot in order if slot not in taken[vm.id]), None)
                if device is None:
                    raise IvshmemError(
                        f"{self.where}: VM '{vm.name}' has no free PCI slot left for region '{region.name}'; "
                        "put it into fewer regions"
                    )
                settle(region, vm, Bdf(0, device, 0))
        return tuple(
            PlacedRegion(
                region,
                tuple(
                    PlacedVm(vm, places.get((region.name, vm.id)), (region.name, vm.id) in chosen)
                    for vm in (self.vm(ref.vm) for ref in region.vms)
                ),
            )
            for region in regions
        )

    # -- new bytes -----------------------------------------------------------------------------------------------

    def rendered(
        self, regions: Iterable[PlacedRegion], keep_unreadable: bool = False, version: tuple[int, int] | None = None
    ) -> bytes:
        """The bytes of the file with these regions; the file's own bytes where nothing differs.

        Only the IVSHMEM element is written. An element that already says what it shall say keeps its bytes, so that
        attributes, comments and spelling survive. Regions that could not be read go unless ``keep_unreadable``, those
        that are switched off stay as they are unless a region is switched on.
        """
        document = self.document
        regions = tuple(regions)
        if self.block is None:
            source = self._with_new_block(regions, version)
        else:
            if self.dialect == V3:
                pairs = self._pairs_v3(self.block, regions, keep_unreadable, version)
            else:
                pairs = self._pairs_v2(self.block, regions, keep_unreadable)
            source = document.replaced(self.block, self._children(self.block, pairs))
        return document.encode(source)

    def without(self, names: Iterable[str]) -> bytes:
        """The bytes of the file without the regions of these names, and all else in it as it is."""
        names = set(names)
        document = self.document
        gone = [node for node in (*self._nodes.values(), *self.unreadable) if self._name(node) in names]
        if self.block is None or not gone:
            return document.encode(document.source)
        if self.dialect == V3:
            pairs: Pairs = [(child, document.raw(child)) for child in self.block.children if child not in gone]
        else:
            stay = [child for child in self.block.all("IVSHMEM_REGION") if child.text.strip() and child not in gone]
            pairs = self._lines_v2(self.block, {}, lambda _text, _key: False, stay)
        return document.encode(document.replaced(self.block, self._children(self.block, pairs)))

    def for_build(self) -> bytes:
        """The bytes of the file without what ACRN's build does not read: in v3.x the regions of the device model.

        Every transformation there takes the hypervisor's regions alone (xforms/*.xsl ask for PROVIDED_BY).
        """
        return self._edited((self._gap(node), node.end, b"") for node in self._outside())

    def for_key(self) -> bytes:
        """The bytes of the file in a form that is the same for two files of which ACRN builds the same hypervisor.

        As for_build(), and of v3.x without an IVSHMEM element that says nothing, and with the vBDFs of post-launched
        VMs as they would be chosen: the hypervisor takes the place that acrn-dm tells it (UNASSIGNED_VBDF in
        xforms/pci_dev.c.xsl).
        """
        block = self.block
        if self.dialect != V3 or block is None:
            return self.for_build()
        gone = {id(node) for node in self._outside()}
        if all(id(child) in gone for child in block.children):
            return self._edited([(self._gap(block), block.end, b"")])
        edits = [(self._gap(node), node.end, b"") for node in block.children if id(node) in gone]
        free = {
            vm.name: iter([slot for slot in SLOT_ORDER if slot not in self.taken(vm, ())])
            for vm in self.vms
            if vm.load_order == POST_LAUNCHED
        }
        for node in block.all("IVSHMEM_REGION"):
            for shared in node.all("IVSHMEM_VMS/IVSHMEM_VM") if id(node) not in gone else ():
                vbdf, slots = shared.first("VBDF"), free.get(shared.value("VM_NAME"))
                slot = next(slots, None) if slots and vbdf else None
                if vbdf and slot is not None and not vbdf.self_closing:
                    edits.append((vbdf.body, vbdf.body_end, str(Bdf(0, slot, 0)).encode()))
        return self._edited(sorted(edits))

    def _outside(self) -> list[Node]:
        # The regions that ACRN's build does not read.
        nodes = zip(self.regions, self._nodes.values())
        return [node for region, node in nodes if self.dialect == V3 and region.provided_by == DEVICE_MODEL]

    def _gap(self, node: Node) -> int:
        # Where the white space before an element begins, which goes with it.
        return len(self.document.source[: node.start].rstrip())

    def _edited(self, edits: Iterable[tuple[int, int, bytes]]) -> bytes:
        source, at = b"", 0
        for start, end, new in edits:
            source += self.document.source[at:start] + new
            at = end
        return self.document.encode(source + self.document.source[at:])

    def _children(self, node: Node, pairs: Pairs) -> bytes:
        same = [child for child, _raw in pairs] == node.children
        if same and all(child is not None and raw == self.document.raw(child) for child, raw in pairs):
            return self.document.raw(node)
        return self.document.with_children(node, pairs)

    def _with_new_block(self, regions: tuple[PlacedRegion, ...], version: tuple[int, int] | None) -> bytes:
        document = self.document
        content: Content
        if self.dialect == V3:
            content = [self._spec_v3(region, version) for region in regions]
        else:
            content = [("IVSHMEM_REGION", to_compact(region)) for region in self._v2_regions(regions)]
        if not content:
            return document.source
        if self.dialect == V2:
            content = [("IVSHMEM_ENABLED", "y"), *content]
        hv = document.root.first("hv")
        if hv is None:
            raise IvshmemError(f"{self.where}: has no <hv> element; an IVSHMEM element has no place in it")
        features = hv.first("FEATURES")
        parent, tag, followers = (features, "IVSHMEM", ("SSRAM", "CPU_PERFORMANCE_POLICY"))
        if parent is None:
            parent, tag, content, followers = hv, "FEATURES", [("IVSHMEM", content)], ("MEMORY", "CAPACITIES")
        pairs: Pairs = [(child, document.raw(child)) for child in parent.children]
        at = next((index for index, child in enumerate(parent.children) if child.tag in followers), len(pairs))
        eol = document.eol(parent.start)
        pairs.insert(at, (None, document.build(tag, content, document.child_indent(parent) or b"", eol)))
        return document.replaced(parent, document.with_children(parent, pairs))

    def _pairs_v3(
        self, block: Node, regions: tuple[PlacedRegion, ...], keep_unreadable: bool, version: tuple[int, int] | None
    ) -> Pairs:
        document = self.document
        by_node = {
            id(self._nodes[placed.region.name]): placed for placed in regions if placed.region.name in self._nodes
        }
        indent, eol = document.child_indent(block), document.eol(block.start)
        kept = self._kept(regions) if keep_unreadable else []
        others: Pairs = []
        of_provider: dict[str, Pairs] = {HYPERVISOR: [], DEVICE_MODEL: []}
        for child in block.children:
            placed = by_node.get(id(child))
            if placed:
                of_provider[placed.region.provided_by].append((child, self._updated_v3(child, placed, version)))
            elif child.tag != "IVSHMEM_REGION" or child in kept:
                others.append((child, document.raw(child)))
        for placed in regions:
            if placed.region.name not in self._nodes:
                tag, content = self._spec_v3(placed, version)
                # Its children stand on lines of their own even where the file is not indented (see _updated_v3).
                raw = document.build(tag, content, indent or b"", eol)
                of_provider[placed.region.provided_by].append((None, raw))
        # The build numbers all regions but counts the hypervisor's alone (static_allocators/lib/lib.py,
        # get_ivshmem_regions_by_tree), so these must come first.
        return others + of_provider[HYPERVISOR] + of_provider[DEVICE_MODEL]

    def _kept(self, regions: Iterable[PlacedRegion]) -> list[Node]:
        # What state present leaves alone: unreadable regions, unless the declaration says what they shall be.
        names = {placed.region.name for placed in regions}
        return [node for node in self.unreadable if self._name(node) not in names]

    def _fields_v3(self, placed: PlacedRegion, version: tuple[int, int] | None) -> dict[str, str | None]:
        region = placed.region
        knows_id = version is None or version >= REGION_IDS_SINCE
        return {
            "NAME": region.name,
            "PROVIDED_BY": _V3_PROVIDER_TEXTS[region.provided_by],
            "IVSHMEM_SIZE": str(region.size),
            "IVSHMEM_REGION_ID": str(region.region_id) if knows_id and region.region_id is not None else None,
        }

    def _vm_spec_v3(self, placed: PlacedVm) -> tuple[str, Content]:
        return "IVSHMEM_VM", [("VM_NAME", placed.vm.name), ("VBDF", str(placed.vbdf))]

    def _spec_v3(self, placed: PlacedRegion, version: tuple[int, int] | None) -> tuple[str, Content]:
        fields = [(tag, text) for tag, text in self._fields_v3(placed, version).items() if text is not None]
        vms = ("IVSHMEM_VMS", [self._vm_spec_v3(vm) for vm in placed.vms])
        return "IVSHMEM_REGION", [*fields, vms]

    def _updated_v3(self, node: Node, placed: PlacedRegion, version: tuple[int, int] | None) -> bytes:
        document = self.document
        wanted = self._fields_v3(placed, version)
        indent, eol = document.child_indent(node), document.eol(node.start)
        pairs: Pairs = []
        seen = set()
        for child in node.children:
            if child.tag in seen:
                continue
            seen.add(child.tag)
            if child.tag == "IVSHMEM_VMS":
                pairs.append((child, self._updated_vms_v3(child, placed)))
            elif child.tag not in wanted:
                pairs.append((child, document.raw(child)))
            else:
                text = wanted[child.tag]
                if text is not None:
                    same = child.tag == "IVSHMEM_REGION_ID" and _same_id(child.text, text, version)
                    pairs.append((child, document.raw(child) if same else self._text(child, text)))
        # Absent means Hypervisor and no ID to ACRN (default_populator.py fills the schema's defaults in).
        missing = [tag for tag in ("NAME", "IVSHMEM_SIZE", "PROVIDED_BY", "IVSHMEM_REGION_ID") if tag not in seen]
        for tag in missing:
            text = wanted[tag]
            if text is not None and text not in ("Hypervisor", "0"):
                later = _V3_FIELDS[_V3_FIELDS.index(tag) + 1 :]
                at = next((i for i, (child, _raw) in enumerate(pairs) if child and child.tag in later), len(pairs))
                pairs.insert(at, (None, document.build(tag, text, indent, eol)))
        if "IVSHMEM_VMS" not in seen:
            content = [self._vm_spec_v3(vm) for vm in placed.vms]
            pairs.append((None, document.build("IVSHMEM_VMS", content, indent, eol)))
        raw = self._children(node, pairs)
        # ACRN leaves out a region without any text between its children (xforms/ivshmem_cfg.h.xsl tests text()).
        head = node.body - node.start
        return raw if node.text else raw[:head] + eol + raw[head:]

    def _updated_vms_v3(self, node: Node, placed: PlacedRegion) -> bytes:
        document = self.document
        pending = {vm.vm.name: vm for vm in placed.vms}
        pairs: Pairs = []
        for child in node.children:
            vm = pending.pop(child.value("VM_NAME"), None)
            if vm is None:
                continue
            texts = {"VM_NAME": vm.vm.name, "VBDF": str(vm.vbdf)}
            inner: Pairs = [
                (each, self._text(each, texts[each.tag]) if each.tag in texts else document.raw(each))
                for each in child.children
            ]
            if child.first("VBDF") is None:
                new = document.build("VBDF", str(vm.vbdf), document.child_indent(child), document.eol(child.start))
                inner.append((None, new))
            pairs.append((child, self._children(child, inner)))
        for vm in pending.values():
            tag, content = self._vm_spec_v3(vm)
            pairs.append((None, document.build(tag, content, document.child_indent(node), document.eol(node.start))))
        return self._children(node, pairs)

    def _text(self, node: Node, text: str) -> bytes:
        return self.document.raw(node) if node.text == text else self.document.with_text(node, text)

    def _v2_regions(self, regions: Iterable[PlacedRegion]) -> list[Region]:
        # A dm-land region in the XML of v2.5 to v2.7 costs hypervisor memory and does nothing; v2.4 rejects it.
        return [
            replace(placed.region, vms=tuple(RegionVm(vm.vm.id) for vm in placed.vms))
            for placed in regions
            if placed.region.provided_by == HYPERVISOR
        ]

    def _pairs_v2(self, block: Node, regions: tuple[PlacedRegion, ...], keep_unreadable: bool) -> Pairs:
        wanted = {region.prefixed: region for region in self._v2_regions(regions)}

        def same(text: str, key: str) -> bool:
            try:
                old, new = parse_region(text), wanted[key]
            except IvshmemError:
                return False
            ids = sorted(str(vm.vm) for vm in old.vms)
            return old.size == new.size and ids == sorted(str(vm.vm) for vm in new.vms)

        lines = {key: to_compact(region) for key, region in wanted.items()}
        kept = []
        if keep_unreadable:
            # Nor does state present take a dm-land line out that somebody else wrote.
            found = {region: self._nodes[region.name] for region in self.regions if region.provided_by == DEVICE_MODEL}
            kept = [*self._kept(regions), *(found[each.region] for each in regions if each.region in found)]
        if not lines and not self.enabled and self._nodes:
            # Nobody wants a region here, and none is on: there is nothing to take out.
            nodes = block.all("IVSHMEM_REGION")
            kept = [node for node in nodes if keep_unreadable or node not in self.unreadable]
        return self._lines_v2(block, lines, same, kept)

    def _lines_v2(
        self, block: Node, lines: Mapping[str, str], same: Callable[[str, str], bool], kept: list[Node]
    ) -> Pairs:
        document = self.document
        pairs = _text_lines(document, block, "IVSHMEM_REGION", lines, same, kept)
        # What only stays was on or off before, and stays so.
        enabled = "y" if lines else "" if kept else "n"
        at = next((i for i, (child, _raw) in enumerate(pairs) if child and child.tag == "IVSHMEM_ENABLED"), None)
        if at is not None:
            switch = pairs[at][0]
            if enabled and switch is not None and switch.text.strip() != enabled:
                pairs[at] = (switch, document.with_text(switch, enabled))
        elif enabled == "y" or (enabled and block.children):
            indent, eol = document.child_indent(block), document.eol(block.start)
            pairs.insert(0, (None, document.build("IVSHMEM_ENABLED", enabled, indent, eol)))
        return pairs


def _function(vbdf: Bdf | None) -> int:
    return vbdf.function if vbdf else 0


def _same_id(old: str, new: str, version: tuple[int, int] | None) -> bool:
    # The number as it is written there, unless the schema of the version has decimal numbers alone.
    hexadecimal = re.fullmatch(r"0[xX][0-9A-Fa-f]{1,16}", old)
    known = version is None or version >= HEXADECIMAL_IDS_SINCE
    return bool(hexadecimal and known and int(old, 16) == int(new))


def _text_lines(
    document: Document,
    parent: Node,
    tag: str,
    wanted: Mapping[str, str],
    same: Callable[[str, str], bool],
    kept: Iterable[Node] = (),
) -> Pairs:
    """The children of an element with its repeated one-line elements made to say what is wanted.

    ``wanted`` maps what a line begins with (the prefixed name) to its text, ``same`` tells whether a text of the file
    means the wanted one. Empty elements, which ACRN ships as placeholders, are filled first; none stays beside a
    filled one, since the v2.4 to v2.7 build fails on the pair, and one stays where all would go.
    """
    pending = dict(wanted)
    kept = list(kept)
    # None stands for a line that goes.
    lines: list[tuple[Node | None, bytes | None]] = []
    for child in parent.children:
        text = child.text.strip()
        key = text.split(",")[0].strip()
        if child.tag != tag or child in kept:
            lines.append((child, document.raw(child)))
        elif key in pending:
            new = pending.pop(key)
            clean = child.text == text and not child.children
            lines.append((child, document.raw(child) if clean and same(text, key) else document.with_text(child, new)))
        else:
            lines.append((child, None))
    ours = [index for index, child in enumerate(parent.children) if child.tag == tag]
    empty = [index for index in ours if not parent.children[index].text.strip() and lines[index][1] is None]
    for index in empty[: len(pending)]:
        node = parent.children[index]
        lines[index] = (node, document.with_text(node, pending.pop(next(iter(pending)))))
    if ours and not pending and all(lines[index][1] is None for index in ours):
        node = parent.children[(empty or ours)[0]]
        lines[(empty or ours)[0]] = (node, document.raw(node) if empty else document.emptied(node))
    at = ours[-1] + 1 if ours else len(lines)
    indent, eol = document.child_indent(parent), document.eol(parent.start)
    lines[at:at] = [(None, document.build(tag, text, indent, eol)) for text in pending.values()]
    return [(child, raw) for child, raw in lines if raw is not None]


def _tidy(vbdf: str) -> str:
    # A vBDF in the spelling of messages and results, and anything else as it is.
    try:
        return str(Bdf.parse(vbdf))
    except IvshmemError:
        return vbdf


def read_scenario(data: bytes, where: str) -> Scenario:
    """Read the bytes of a scenario XML; ``where`` names the file in messages. Raises IvshmemError."""
    return Scenario(Document(data, where))


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

        pairs = _text_lines(document, parent, "shm_region", lines, same)
        if pairs != [(child, document.raw(child)) for child in parent.children]:
            source = source[: parent.start] + document.with_children(parent, pairs) + source[parent.end :]
    return document.encode(source)


_VERSION_LINE = re.compile(r"^(MAJOR|MINOR)_VERSION=([0-9]{1,4})\b", re.MULTILINE)


def parse_version(text: str) -> tuple[int, int]:
    """The version of a text such as ``3.3``, ``v2.7`` or ``3.0.2``: major and minor. Raises IvshmemError."""
    match = re.fullmatch(r"v?([0-9]{1,4})\.([0-9]{1,4})(?:\..*)?", text.strip())
    if not match:
        raise IvshmemError(f"acrn_version '{text}' is not a version: write it as 2.7 or 3.3")
    return int(match.group(1)), int(match.group(2))


def version_of_tree(text: str) -> tuple[int, int] | None:
    """The version in the text of an ACRN tree's VERSION file, or None where it has none."""
    found = dict(_VERSION_LINE.findall(text))
    return (int(found["MAJOR"]), int(found["MINOR"])) if len(found) == 2 else None
