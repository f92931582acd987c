# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Regions in a scenario XML of ACRN v2.x: each is a line of text, ``<IVSHMEM_REGION>hv:/name, 2, 0:2</...>``.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Mapping, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    HYPERVISOR,
    PROVIDERS,
    IvshmemError,
    Region,
    RegionVm,
    parse_region,
    to_compact,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._block import REGION, Block, Pairs, Reference
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import PlacedRegion
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Content, Document, Node

_SWITCH = "IVSHMEM_ENABLED"


class Lines(Block):
    """The IVSHMEM element of a scenario of v2.x."""

    @property
    def enabled(self) -> bool:
        """Up to v2.7 ACRN ignores the regions of a file unless it says y."""
        return bool(self.element and self.element.value(_SWITCH) == "y")

    def _name(self, node: Node) -> str:
        name = node.text.split(",")[0].strip()
        return name[4:] if name[:4] in PROVIDERS else name

    def _region(self, node: Node) -> Region:
        return parse_region(node.text.strip())

    def _said(self, node: Node, region: Region | None, spell: Callable[[Reference], Reference]) -> Any:
        if region is None:
            return node.text.strip()
        own = {key: getattr(region, key) for key in ("name", "provided_by", "size")}
        return {**own, "vms": [{"name": spell(ref.vm)} for ref in region.vms]}

    def _content(self, regions: Iterable[PlacedRegion], version: tuple[int, int] | None) -> list[tuple[str, Content]]:
        lines: list[tuple[str, Content]] = [(REGION, to_compact(region)) for region in _hypervisors(regions)]
        return [(_SWITCH, "y"), *lines] if lines else []

    def _pairs_without(self, element: Node, gone: list[Node]) -> Pairs:
        stay = [node for node in element.all(REGION) if node.text.strip() and node not in gone]
        return self._switched(element, {}, lambda _text, _key: False, stay)

    def _pairs(
        self,
        element: Node,
        regions: tuple[PlacedRegion, ...],
        keep_unreadable: bool,
        version: tuple[int, int] | None,
    ) -> Pairs:
        wanted = {region.prefixed: region for region in _hypervisors(regions)}

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
            nodes = element.all(REGION)
            kept = [node for node in nodes if keep_unreadable or node not in self.unreadable]
        return self._switched(element, lines, same, kept)

    def _switched(
        self, element: Node, lines: Mapping[str, str], same: Callable[[str, str], bool], kept: list[Node]
    ) -> Pairs:
        document = self.document
        pairs = text_lines(document, element, REGION, lines, same, kept)
        # What only stays was on or off before, and stays so.
        enabled = "y" if lines else "" if kept else "n"
        at = next((i for i, (child, _raw) in enumerate(pairs) if child and child.tag == _SWITCH), None)
        if at is not None:
            switch = pairs[at][0]
            if enabled and switch is not None and switch.text.strip() != enabled:
                pairs[at] = (switch, document.with_text(switch, enabled))
        elif enabled == "y" or (enabled and element.children):
            indent, eol = document.child_indent(element), document.eol(element.start)
            pairs.insert(0, (None, document.build(_SWITCH, enabled, indent, eol)))
        return pairs


def _hypervisors(regions: Iterable[PlacedRegion]) -> list[Region]:
    # A dm-land region in the XML of v2.5 to v2.7 costs hypervisor memory and does nothing; v2.4 rejects it.
    return [
        replace(placed.region, vms=tuple(RegionVm(vm.vm.id) for vm in placed.vms))
        for placed in regions
        if placed.region.provided_by == HYPERVISOR
    ]


def text_lines(
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
    _fill_empty(document, parent, ours, lines, pending)
    at = ours[-1] + 1 if ours else len(lines)
    indent, eol = document.child_indent(parent), document.eol(parent.start)
    lines[at:at] = [(None, document.build(tag, text, indent, eol)) for text in pending.values()]
    return [(child, raw) for child, raw in lines if raw is not None]


def _fill_empty(
    document: Document,
    parent: Node,
    ours: Sequence[int],
    lines: list[tuple[Node | None, bytes | None]],
    pending: dict[str, str],
) -> None:
    """Put what is pending into elements that are empty; where no line would stay, one empty element does."""
    empty = [index for index in ours if not parent.children[index].text.strip() and lines[index][1] is None]
    for index in empty[: len(pending)]:
        node = parent.children[index]
        lines[index] = (node, document.with_text(node, pending.pop(next(iter(pending)))))
    if ours and not pending and all(lines[index][1] is None for index in ours):
        node = parent.children[(empty or ours)[0]]
        lines[(empty or ours)[0]] = (node, document.raw(node) if empty else document.emptied(node))
