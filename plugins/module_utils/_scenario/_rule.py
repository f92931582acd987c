# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rule of regions is: its ID, its version range, its source in ACRN, what it looks at and what it finds.

This module util is PRIVATE to the collection: it can change at any time. The IDs of the rules are public.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, List

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import FIRST, LAST, V2_LAST, V3_FIRST
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    HYPERVISOR,
    Bdf,
    IvshmemError,
    Region,
    placed_text,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import Board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._memory import budget
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V2, Vm

ERROR, WARNING = "error", "warning"
# Where each rule is explained, under its ID: a page of the collection, which the repository shows as well.
PAGE = "docs/rules.md"
REPOSITORY = "https://github.com/acrn-ivshmem/acrn.ivshmem/blob/main"


@dataclass(frozen=True)
class Context:
    """All that a rule may look at. ``version`` and ``board`` are None where nobody knows them.

    ``declared`` has the names of those regions that the user asked for; the others come from the file. ``guests`` tells
    what a VM runs, by its ID, where a launch XML says so.
    """

    scenario: Scenario
    regions: tuple[Region, ...]
    version: tuple[int, int] | None
    board: Board | None
    declared: Collection[str] = ()
    guests: Mapping[int, str] = field(default_factory=dict)

    @property
    def hypervisor_regions(self) -> tuple[Region, ...]:
        return tuple(region for region in self.regions if region.provided_by == HYPERVISOR)

    @cached_property
    def budget(self) -> dict[str, Any] | None:
        """How much memory the hypervisor has for regions."""
        return budget(self.scenario, self.version, self.board, self.regions)

    def vms(self) -> Iterator[tuple[Region, Vm, Bdf | None, str]]:
        """Every VM of every region that the scenario has, and its key in the declaration."""
        for region in self.regions:
            for index, ref in enumerate(region.vms):
                try:
                    vm = self.scenario.vm(ref.vm)
                except IvshmemError:
                    continue
                yield region, vm, ref.vbdf, f"vms[{index}]"


@dataclass(frozen=True)
class Hit:
    """What a rule found. ``key`` is what is to be mended of the region, where it is about one."""

    text: str
    region: Region | None = None
    key: str = ""


@dataclass(frozen=True)
class Rule:
    """One rule. ``since`` and ``until`` are the first and last ACRN version it holds for, both included."""

    id: str
    severity: str
    what: str
    mend: str
    source: str
    since: tuple[int, int]
    until: tuple[int, int] | None
    check: Callable[[Context], Iterable[Hit]]

    def severity_for(self, version: tuple[int, int] | None, dialect: str) -> str | None:
        """The severity on a version; None where the rule does not hold.

        Without a version the dialect decides: a rule that holds for all of its versions keeps its severity, one that
        holds for some of them warns.
        """
        until = self.until or (9999, 0)
        if version is not None:
            return self.severity if self.since <= version <= until else None
        first, last = (FIRST, V2_LAST) if dialect == V2 else (V3_FIRST, LAST)
        if self.since <= first and last <= until:
            return self.severity
        return WARNING if self.since <= last and first <= until else None


@dataclass(frozen=True)
class Finding:
    """What a rule found: ``region`` may be empty where the finding is about the whole declaration.

    ``place`` is what is to be mended, such as ``ivshmem_host_regions[0].size``, where the region is declared.
    """

    rule: str
    severity: str
    region: str
    message: str
    mend: str
    place: str = ""

    def __str__(self) -> str:
        about = f"region '{self.region}': " if self.region else ""
        return f"{self.severity}: {placed_text(self.place, '', about + self.message)}; {self.mend} [{self.pointer}]"

    @property
    def pointer(self) -> str:
        return f"{PAGE}#{self.rule}"

    def as_dict(self) -> dict[str, str]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "region": self.region,
            "place": self.place,
            "message": self.message,
            "mend": self.mend,
            "doc": f"{REPOSITORY}/{self.pointer}",
        }


if TYPE_CHECKING:
    Check = Callable[[Context], Iterable[Hit]]


class Rules(List[Rule]):
    """Rules in the order in which they are told."""

    def add(
        self,
        rule_id: str,
        severity: str,
        what: str,
        mend: str,
        source: str,
        since: tuple[int, int] = FIRST,
        until: tuple[int, int] | None = None,
    ) -> Callable[[Check], Check]:
        """Make a rule of the function that is decorated, which yields a Hit for each thing that it finds."""

        def register(check: Check) -> Check:
            self.append(Rule(rule_id, severity, what, mend, source, since, until, check))
            return check

        return register
