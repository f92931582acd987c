# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every rule that a declaration of regions must keep, in the order in which they are told.

This module util is PRIVATE to the collection: it can change at any time. The IDs of the rules are public.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, Region, some
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario import (
    _rules_file,
    _rules_memory,
    _rules_place,
    _rules_region,
    _rules_vm,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import Board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import ERROR, Context, Finding, Hit, Rule
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario

RULES: list[Rule] = [
    *_rules_region.RULES,
    *_rules_vm.RULES,
    *_rules_place.RULES,
    *_rules_memory.RULES,
    *_rules_file.RULES,
]


def _finding(rule: Rule, severity: str, hit: Hit) -> Finding:
    region = hit.region
    # One of the file alone has no place in a declaration.
    place = f"{region.place}.{hit.key}" if region and region.place and hit.key else region.place if region else ""
    return Finding(rule.id, severity, region.name if region else "", hit.text, rule.mend, place)


def check(
    scenario: Scenario,
    regions: Iterable[Region],
    version: tuple[int, int] | None = None,
    board: Board | None = None,
    declared: Collection[str] = (),
    guests: Mapping[int, str] | None = None,
) -> list[Finding]:
    """Hold regions against every rule of their ACRN version, and return all findings, errors first.

    ``declared``: the names of those that the user asked for. ``guests``: what VMs run, by ID, where it is known.
    """
    context = Context(scenario, tuple(regions), version, board, declared, guests or {})
    findings = []
    for rule in RULES:
        severity = rule.severity_for(version, scenario.dialect)
        if severity:
            findings += [_finding(rule, severity, hit) for hit in rule.check(context)]
    return sorted(findings, key=lambda finding: finding.severity != ERROR)


def refuse(findings: Iterable[Finding], where: str, unreadable: Iterable[str] = (), others: Iterable[str] = ()) -> None:
    """Raise one IvshmemError with every error among the findings, a line each; do nothing without errors.

    ``unreadable`` tells what is wrong with regions that no rule could be asked about, ``others`` what is wrong with
    those that use the VMs.
    """
    mistakes = [f"{ERROR}: {problem}" for problem in unreadable]
    mistakes += [str(finding) for finding in findings if finding.severity == ERROR]
    more = [f"{ERROR}: {problem}" for problem in others]
    if mistakes or more:
        total = len(mistakes) + len(more)
        count = f"{total} mistakes" if total > 1 else "a mistake"
        told = some([*mistakes, *more], 50, "\n")
        raise IvshmemError(
            f"{count}{'' if more else ' in the regions'}, held against {where}; nothing was changed\n{told}"
        )
