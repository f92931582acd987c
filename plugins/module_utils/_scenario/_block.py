# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The IVSHMEM element of a scenario XML: the regions in it, and new bytes for the file with others.

This module util is PRIVATE to the collection: it can change at any time.

Two dialects exist, each a class of its own: _lines (up to ACRN v2.7) and _elements (from v3.0 on). What both do stands
here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, List, Mapping, Optional, Tuple, Union

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, Region, some
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import PlacedRegion
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Content, Document, Node

# Children of an element as they shall be: each a child of now, or None for a new one, and its bytes.
Pairs = List[Tuple[Optional[Node], bytes]]
# A VM as a region names it.
Reference = Union[str, int]

REGION = "IVSHMEM_REGION"


def region_nodes(root: Node) -> list[Node]:
    """The elements of a scenario that are regions, or room for one."""
    return root.all(f"hv/FEATURES/IVSHMEM/{REGION}")


def with_pairs(document: Document, node: Node, pairs: Pairs) -> bytes:
    """The bytes of an element with these children: its own bytes where they are the ones that it has."""
    same = [child for child, _raw in pairs] == node.children
    if same and all(child is not None and raw == document.raw(child) for child, raw in pairs):
        return document.raw(node)
    return document.with_children(node, pairs)


class Block(ABC):
    """The IVSHMEM element of a file, which may not have one.

    ``regions`` are those that can be read, in file order, ``unreadable`` the elements of the others. Raises
    IvshmemError where there are two such elements, or one where ACRN does not look.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.element = document.root.first("hv/FEATURES/IVSHMEM")
        self._refuse_others()
        self.unreadable: list[Node] = []
        self._nodes: dict[str, Node] = {}
        self.regions = tuple(self._read())

    # -- what each dialect has of its own ------------------------------------------------------------------------

    @property
    @abstractmethod
    def enabled(self) -> bool:
        """Whether ACRN builds the regions of the file."""

    @abstractmethod
    def _region(self, node: Node) -> Region:
        """The region of an element. Raises IvshmemError for one that is none."""

    @abstractmethod
    def _name(self, node: Node) -> str:
        """The name of a region of the file, readable or not."""

    @abstractmethod
    def _said(self, node: Node, region: Region | None, spell: Callable[[Reference], Reference]) -> Any:
        """The region as ivshmem_regions has it; what cannot be read stands in the file's own words."""

    @abstractmethod
    def _content(self, regions: Iterable[PlacedRegion], version: tuple[int, int] | None) -> list[tuple[str, Content]]:
        """What stands in a new element."""

    @abstractmethod
    def _pairs(
        self,
        element: Node,
        regions: tuple[PlacedRegion, ...],
        keep_unreadable: bool,
        version: tuple[int, int] | None,
    ) -> Pairs:
        """What stands in the element that is there."""

    @abstractmethod
    def _pairs_without(self, element: Node, gone: list[Node]) -> Pairs:
        """What stays in the element without some regions."""

    def for_build(self) -> bytes:
        """The bytes of the file without what ACRN's build does not read."""
        return self.document.encode(self.document.source)

    def for_key(self, slots: Mapping[str, Iterable[int]]) -> bytes:
        """The bytes of the file in a form that is the same for two files of which ACRN builds the same hypervisor.

        ``slots`` are those that regions would get in each post-launched VM, by its name, if nobody chose.
        """
        return self.for_build()

    # -- reading -------------------------------------------------------------------------------------------------

    def _refuse_others(self) -> None:
        document = self.document
        found = [node for node in document.root.walk() if node.tag == "IVSHMEM"]
        if len(found) > 1:
            lines = some((document.line(node) for node in found), between=" and ")
            raise IvshmemError(f"{document.where}: has {len(found)} IVSHMEM elements, at lines {lines}; leave one")
        if found and not self.element:
            raise IvshmemError(
                f"{document.where}: its IVSHMEM element (line {document.line(found[0])}) is not in hv/FEATURES; move it"
            )

    def _read(self) -> Iterable[Region]:
        for node in self._filled():
            try:
                region = self._region(node)
            except IvshmemError:
                self.unreadable.append(node)
                continue
            if region.name in self._nodes:
                self.unreadable.append(node)
                continue
            self._nodes[region.name] = node
            yield region

    def _filled(self) -> list[Node]:
        # Without the empty elements that ACRN ships as placeholders.
        nodes = self.element.all(REGION) if self.element else []
        return [node for node in nodes if node.children or node.text.strip()]

    def declared(self, spell: Callable[[Reference], Reference]) -> list[Any]:
        """The regions that ACRN builds as ivshmem_regions has them, in file order, with VMs as ``spell`` has them.

        None is left out, for what is not declared is removed. One that cannot be read or is there twice, a VM that is
        not in the scenario, a vBDF that is none: each stands here in the file's own words, and the rules refuse it.
        """
        readable = {id(node): region for region, node in zip(self.regions, self._nodes.values())}
        nodes = self._filled() if self.enabled else []
        return [self._said(node, readable.get(id(node)), spell) for node in nodes]

    # -- new bytes -----------------------------------------------------------------------------------------------

    def rendered(
        self, regions: Iterable[PlacedRegion], keep_unreadable: bool = False, version: tuple[int, int] | None = None
    ) -> bytes:
        """The bytes of the file with these regions; the file's own bytes where nothing differs.

        Only the IVSHMEM element is written. An element that already says what it shall say keeps its bytes, so that
        attributes, comments and spelling survive. Regions that could not be read go unless ``keep_unreadable``, those
        that are switched off stay as they are unless a region is switched on.
        """
        document, element = self.document, self.element
        regions = tuple(regions)
        if element is None:
            return document.encode(self._with_new_element(self._content(regions, version)))
        pairs = self._pairs(element, regions, keep_unreadable, version)
        return document.encode(document.replaced(element, with_pairs(document, element, pairs)))

    def without(self, names: Iterable[str]) -> bytes:
        """The bytes of the file without the regions of these names, and all else in it as it is."""
        names = set(names)
        document, element = self.document, self.element
        gone = [node for node in (*self._nodes.values(), *self.unreadable) if self._name(node) in names]
        if element is None or not gone:
            return document.encode(document.source)
        pairs = self._pairs_without(element, gone)
        return document.encode(document.replaced(element, with_pairs(document, element, pairs)))

    def _kept(self, regions: Iterable[PlacedRegion]) -> list[Node]:
        # What state present leaves alone: unreadable regions, unless the declaration says what they shall be.
        names = {placed.region.name for placed in regions}
        return [node for node in self.unreadable if self._name(node) not in names]

    def _with_new_element(self, content: list[tuple[str, Content]]) -> bytes:
        document = self.document
        if not content:
            return document.source
        hv = document.root.first("hv")
        if hv is None:
            raise IvshmemError(f"{document.where}: has no <hv> element; an IVSHMEM element has no place in it")
        features = hv.first("FEATURES")
        parent, tag, followers = (features, "IVSHMEM", ("SSRAM", "CPU_PERFORMANCE_POLICY"))
        if parent is None:
            parent, tag, content, followers = hv, "FEATURES", [("IVSHMEM", content)], ("MEMORY", "CAPACITIES")
        pairs: Pairs = [(child, document.raw(child)) for child in parent.children]
        at = next((index for index, child in enumerate(parent.children) if child.tag in followers), len(pairs))
        eol = document.eol(parent.start)
        pairs.insert(at, (None, document.build(tag, content, document.child_indent(parent) or b"", eol)))
        return document.replaced(parent, document.with_children(parent, pairs))
