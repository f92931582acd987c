# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what a user asks for to the new bytes of the files: the whole decision, without a file being written.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import open_regular
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    HYPERVISOR,
    PRE_LAUNCHED,
    PROVIDERS,
    SERVICE,
    Bdf,
    IvshmemError,
    Region,
    RegionVm,
    parse_regions,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import Board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._launch_xml import launch_guests, render_launch
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._memory import budget
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import PlacedRegion, Places, place_regions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import Finding
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rules import check, refuse
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario, read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import version_of_tree


@dataclass(frozen=True)
class Outcome:
    """What shall be: the regions at their places, what the rules say, and the new bytes of both files."""

    scenario: Scenario
    regions: tuple[PlacedRegion, ...]
    findings: tuple[Finding, ...]
    data: bytes
    launch: bytes | None

    @property
    def digest(self) -> str:
        """SHA-256 of the new scenario, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def build_digest(self) -> str:
        """The same of what decides the hypervisor."""
        return hashlib.sha256(read_scenario(self.data, self.scenario.where).for_key()).hexdigest()


def find_version(path: str) -> tuple[int, int] | None:
    """The version of the ACRN tree that a file lies in: that of the nearest VERSION file above it, or None."""
    folder = os.path.dirname(os.path.realpath(path))
    while True:
        try:
            with open_regular(os.path.join(folder, "VERSION")) as handle:
                found = version_of_tree(handle.read(4096).decode("utf-8", "replace"))
        except OSError:
            found = None
        parent = os.path.dirname(folder)
        if found or parent == folder:
            return found
        folder = parent


def names_to_remove(values: Iterable[Any]) -> tuple[Region, ...]:
    """Read what ``state: absent`` takes: names, or whole regions of which only the name counts."""
    regions = []
    for value in values:
        name = value.get("name") if isinstance(value, dict) else value
        if not isinstance(name, str) or not name.strip():
            raise IvshmemError(f"a region to remove is its name or a mapping with name, not {value!r}")
        name = name.split(",")[0].strip()
        provider = PROVIDERS.get(name[:4], HYPERVISOR)
        regions.append(Region(name[4:] if name[:4] in PROVIDERS else name, provider, 2, (RegionVm("-"),)))
    return tuple(regions)


def decide(
    data: bytes,
    where: str,
    values: Iterable[Any],
    state: str = "exact",
    version: tuple[int, int] | None = None,
    board: Board | None = None,
    launch: bytes | None = None,
    launch_where: str = "",
    earlier: bytes | None = None,
    known: Iterable[Mapping[str, Mapping[str, str]]] = (),
    others: Callable[[Scenario], Iterable[str]] = lambda scenario: (),
    declared_in: Sequence[str] = (),
) -> Outcome:
    """Decide what a scenario and its launch XML shall hold.

    ``earlier`` is an older result for the same host, whose vBDFs are kept where ``data`` has none of its own, and then
    those of ``known``: by prefixed name of the region and name of the VM. ``others`` tells what is wrong with those
    that use its VMs. ``declared_in`` says of each of ``values`` where it stands.

    Raises IvshmemError for input that is not readable, or that breaks a rule of severity error; all of them are told.
    """
    scenario = read_scenario(data, where)
    findings: tuple[Finding, ...] = ()
    if state == "absent":
        # Rules are not asked here: whatever is wrong with a file, its regions can be taken out.
        new = scenario.block.without({region.name for region in names_to_remove(values)})
        regions = read_scenario(new, where).as_found()
    else:
        declared, unreadable = parse_regions(values, declared_in)
        wanted = scenario.merged(declared, state == "exact")
        guests = {} if launch is None else launch_guests(launch, launch_where, scenario)
        findings = tuple(check(scenario, wanted, version, board, {region.name for region in declared}, guests))
        refuse(findings, where, unreadable, others(scenario))
        places = [*_readable(earlier, where), *(_places(scenario, each) for each in known)]
        native, named = (board.native, board.named) if board else ((), ())
        regions = place_regions(scenario, wanted, native, places, named, version)
        new = scenario.block.rendered(regions, keep_unreadable=state == "present", version=version)
    new_launch = None if launch is None else render_launch(launch, launch_where, scenario, regions)
    return Outcome(scenario, regions, findings, new, new_launch)


def _readable(earlier: bytes | None, where: str) -> list[Places]:
    if earlier is None:
        return []
    try:
        return [read_scenario(earlier, where).places()]
    except IvshmemError:
        return []


def _places(scenario: Scenario, known: Mapping[str, Mapping[str, str]]) -> Places:
    """Places by ID of the VM; what is no region, VM or address of the scenario is none."""
    found = {}
    for name, vms in known.items():
        for vm, vbdf in vms.items():
            try:
                found[name[4:] if name[:4] in PROVIDERS else name, scenario.vm(vm).id] = Bdf.parse(str(vbdf))
            except IvshmemError:
                continue
    return found


def describe(scenario: Scenario, version: tuple[int, int] | None, board: Board | None) -> dict[str, Any]:
    """What a scenario holds, as the module scenario_info returns it."""
    placed = scenario.as_found()
    devices: dict[int, list[dict[str, str]]] = {vm.id: [] for vm in scenario.vms}
    for region in placed:
        for vm in region.vms:
            if vm.vbdf:
                devices[vm.vm.id].append({"bdf": str(vm.vbdf), "kind": "ivshmem", "what": region.region.name})
    for each in scenario.vms:
        devices[each.id] += [
            {"bdf": str(function.bdf), "kind": function.kind, "what": function.what} for function in each.functions
        ]
        if each.load_order == SERVICE and board:
            given = {function.bdf for vm in scenario.vms for function in vm.functions if vm.load_order == PRE_LAUNCHED}
            devices[each.id] += [
                {"bdf": str(bdf), "kind": "native", "what": board.name} for bdf in board.native if bdf not in given
            ]
    return {
        "dialect": scenario.dialect,
        "acrn_version": f"{version[0]}.{version[1]}" if version else None,
        # Scenarios of v3.x do not name their board.
        "board": scenario.board or (board.name if board else ""),
        "scenario": scenario.name,
        "vms": [
            {**vm.as_dict(), "functions": sorted(devices[vm.id], key=lambda device: device["bdf"])}
            for vm in scenario.vms
        ],
        "regions": [region.as_dict() for region in placed],
        "memory": budget(scenario, version, board, scenario.in_effect),
        "findings": [finding.as_dict() for finding in check(scenario, scenario.in_effect, version, board)],
    }
