# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Regions in a scenario XML of ACRN v3.x: each is a tree of elements that names VMs and their vBDFs.

This module util is PRIVATE to the collection: it can change at any time.

The elements are those of misc/config_tools/schema/types.xsd, IVSHMEMInfo.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import HEXADECIMAL_IDS_SINCE, REGION_IDS_SINCE
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    HYPERVISOR,
    MOST_VMS,
    Bdf,
    IvshmemError,
    Region,
    RegionVm,
    parse_region,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._block import (
    REGION,
    Block,
    Pairs,
    Reference,
    with_pairs,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import PlacedRegion, PlacedVm
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Content, Node

_PROVIDERS = {"Hypervisor": HYPERVISOR, "Device Model": DEVICE_MODEL}
_PROVIDER_TEXTS = {provider: text for text, provider in _PROVIDERS.items()}
_FIELDS = ("NAME", "PROVIDED_BY", "IVSHMEM_SIZE", "IVSHMEM_REGION_ID", "IVSHMEM_VMS")
_VMS = "IVSHMEM_VMS/IVSHMEM_VM"


class Elements(Block):
    """The IVSHMEM element of a scenario of v3.x. It has no switch: what stands there is built."""

    @property
    def enabled(self) -> bool:
        return True

    def _name(self, node: Node) -> str:
        return node.value("NAME")

    def _region(self, node: Node) -> Region:
        vms = []
        shared = node.all(_VMS)
        if len(shared) > MOST_VMS:
            raise IvshmemError(f"region '{node.value('NAME')}' has {len(shared)} VMs; {MOST_VMS} is the limit")
        for vm in shared:
            try:
                vbdf = Bdf.parse(vm.value("VBDF"))
            except IvshmemError:
                vbdf = None
            vms.append(RegionVm(vm.value("VM_NAME"), vbdf))
        region = parse_region({**_values(node), "vms": ["-"]})
        return replace(region, vms=tuple(vms))

    def _said(self, node: Node, region: Region | None, spell: Callable[[Reference], Reference]) -> Any:
        own = _values(node)
        if region:
            own = {key: getattr(region, key) for key in own}
        vms = [(vm.value("VM_NAME"), _tidy(vm.value("VBDF"))) for vm in node.all(_VMS)]
        shared = [{"name": name, **({"vbdf": vbdf} if vbdf else {})} for name, vbdf in vms]
        return {**{key: value for key, value in own.items() if value is not None}, "vms": shared}

    def for_build(self) -> bytes:
        """The bytes of the file without the regions of the device model.

        Every transformation of ACRN's build takes the hypervisor's regions alone (xforms/*.xsl ask for PROVIDED_BY).
        """
        return self._edited((self._gap(node), node.end, b"") for node in self._outside())

    def for_key(self, slots: Mapping[str, Iterable[int]]) -> bytes:
        """As for_build(), without an element that says nothing, and with vBDFs of post-launched VMs that nobody chose.

        The hypervisor takes there the place that acrn-dm tells it (UNASSIGNED_VBDF in xforms/pci_dev.c.xsl).
        """
        element = self.element
        if element is None:
            return self.for_build()
        gone = {id(node) for node in self._outside()}
        if all(id(child) in gone for child in element.children):
            return self._edited([(self._gap(element), element.end, b"")])
        edits = [(self._gap(node), node.end, b"") for node in element.children if id(node) in gone]
        free = {name: iter(numbers) for name, numbers in slots.items()}
        for node in element.all(REGION):
            for shared in node.all(_VMS) if id(node) not in gone else ():
                vbdf, numbers = shared.first("VBDF"), free.get(shared.value("VM_NAME"))
                slot = next(numbers, None) if numbers and vbdf else None
                if vbdf and slot is not None and not vbdf.self_closing:
                    edits.append((vbdf.body, vbdf.body_end, str(Bdf(0, slot, 0)).encode()))
        return self._edited(sorted(edits))

    def _outside(self) -> list[Node]:
        # The regions that ACRN's build does not read.
        nodes = zip(self.regions, self._nodes.values())
        return [node for region, node in nodes if region.provided_by == DEVICE_MODEL]

    def _gap(self, node: Node) -> int:
        # Where the white space before an element begins, which goes with it.
        return len(self.document.source[: node.start].rstrip())

    def _edited(self, edits: Iterable[tuple[int, int, bytes]]) -> bytes:
        source, at = b"", 0
        for start, end, new in edits:
            source += self.document.source[at:start] + new
            at = end
        return self.document.encode(source + self.document.source[at:])

    def _content(self, regions: Iterable[PlacedRegion], version: tuple[int, int] | None) -> list[tuple[str, Content]]:
        return [_spec(region, version) for region in regions]

    def _pairs_without(self, element: Node, gone: list[Node]) -> Pairs:
        return [(child, self.document.raw(child)) for child in element.children if child not in gone]

    def _pairs(
        self,
        element: Node,
        regions: tuple[PlacedRegion, ...],
        keep_unreadable: bool,
        version: tuple[int, int] | None,
    ) -> Pairs:
        document = self.document
        by_node = {
            id(self._nodes[placed.region.name]): placed for placed in regions if placed.region.name in self._nodes
        }
        indent, eol = document.child_indent(element), document.eol(element.start)
        kept = self._kept(regions) if keep_unreadable else []
        others: Pairs = []
        of_provider: dict[str, Pairs] = {HYPERVISOR: [], DEVICE_MODEL: []}
        for child in element.children:
            placed = by_node.get(id(child))
            if placed:
                of_provider[placed.region.provided_by].append((child, self._updated(child, placed, version)))
            elif child.tag != REGION or child in kept:
                others.append((child, document.raw(child)))
        for placed in regions:
            if placed.region.name not in self._nodes:
                tag, content = _spec(placed, version)
                # Its children stand on lines of their own even where the file is not indented (see _updated).
                raw = document.build(tag, content, indent or b"", eol)
                of_provider[placed.region.provided_by].append((None, raw))
        # The build numbers all regions but counts the hypervisor's alone (static_allocators/lib/lib.py,
        # get_ivshmem_regions_by_tree), so these must come first.
        return others + of_provider[HYPERVISOR] + of_provider[DEVICE_MODEL]

    def _updated(self, node: Node, placed: PlacedRegion, version: tuple[int, int] | None) -> bytes:
        document = self.document
        wanted = _fields(placed, version)
        indent, eol = document.child_indent(node), document.eol(node.start)
        pairs: Pairs = []
        seen = set()
        for child in node.children:
            if child.tag in seen:
                continue
            seen.add(child.tag)
            if child.tag == "IVSHMEM_VMS":
                pairs.append((child, self._updated_vms(child, placed)))
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
                later = _FIELDS[_FIELDS.index(tag) + 1 :]
                at = next((i for i, (child, _raw) in enumerate(pairs) if child and child.tag in later), len(pairs))
                pairs.insert(at, (None, document.build(tag, text, indent, eol)))
        if "IVSHMEM_VMS" not in seen:
            content = [_vm_spec(vm) for vm in placed.vms]
            pairs.append((None, document.build("IVSHMEM_VMS", content, indent, eol)))
        raw = with_pairs(document, node, pairs)
        # ACRN leaves out a region without any text between its children (xforms/ivshmem_cfg.h.xsl tests text()).
        head = node.body - node.start
        return raw if node.text else raw[:head] + eol + raw[head:]

    def _updated_vms(self, node: Node, placed: PlacedRegion) -> bytes:
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
            pairs.append((child, with_pairs(document, child, inner)))
        for vm in pending.values():
            tag, content = _vm_spec(vm)
            pairs.append((None, document.build(tag, content, document.child_indent(node), document.eol(node.start))))
        return with_pairs(document, node, pairs)

    def _text(self, node: Node, text: str) -> bytes:
        return self.document.raw(node) if node.text == text else self.document.with_text(node, text)


def _values(node: Node) -> dict[str, Any]:
    # Without its VMs; what is no provider to ACRN is none here, whatever it says.
    provider = node.value("PROVIDED_BY") or "Hypervisor"
    return {
        "name": node.value("NAME"),
        "provided_by": _PROVIDERS.get(provider, f"PROVIDED_BY {provider}"),
        "size": node.value("IVSHMEM_SIZE") or "2",
        "region_id": node.value("IVSHMEM_REGION_ID") or None,
    }


def _fields(placed: PlacedRegion, version: tuple[int, int] | None) -> dict[str, str | None]:
    region = placed.region
    knows_id = version is None or version >= REGION_IDS_SINCE
    return {
        "NAME": region.name,
        "PROVIDED_BY": _PROVIDER_TEXTS[region.provided_by],
        "IVSHMEM_SIZE": str(region.size),
        "IVSHMEM_REGION_ID": str(region.region_id) if knows_id and region.region_id is not None else None,
    }


def _vm_spec(placed: PlacedVm) -> tuple[str, Content]:
    return "IVSHMEM_VM", [("VM_NAME", placed.vm.name), ("VBDF", str(placed.vbdf))]


def _spec(placed: PlacedRegion, version: tuple[int, int] | None) -> tuple[str, Content]:
    fields = [(tag, text) for tag, text in _fields(placed, version).items() if text is not None]
    return REGION, [*fields, ("IVSHMEM_VMS", [_vm_spec(vm) for vm in placed.vms])]


def _same_id(old: str, new: str, version: tuple[int, int] | None) -> bool:
    # The number as it is written there, unless the schema of the version has decimal numbers alone.
    hexadecimal = re.fullmatch(r"0[xX][0-9A-Fa-f]{1,16}", old)
    known = version is None or version >= HEXADECIMAL_IDS_SINCE
    return bool(hexadecimal and known and int(old, 16) == int(new))


def _tidy(vbdf: str) -> str:
    # A vBDF in the spelling of messages and results, and anything else as it is.
    try:
        return str(Bdf.parse(vbdf))
    except IvshmemError:
        return vbdf
