# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every scenario that ACRN ships, edited in every way, and what its allocators say: a row of figures for each release.

ACRN_SRC, ACRN_PYTHON and ACRN_SCENARIOS are those of test_memory_oracle. The rows are lines of JSON in
``$ACRN_IVSHMEM_FIGURES``, a file, if that is set. What a row counts:

- edits: files that were written. ``bad`` are those of which a second run makes something else, that lxml does not read
  as declared, or that have another byte outside the IVSHMEM element.
- refused: declarations within the limits of a region that were refused; ``false`` are those of which ACRN refuses
  neither the file nor the memory.
- left to the linker: refused for their memory, where ACRN's allocators do not compute it.
- asked: accepted files that ACRN's allocators were asked about; ``wrong`` are those that they refuse.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, Region, RegionVm
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import place_regions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide, find_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_memory_oracle import ask, holds, pairs, trees
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_second_reader import reader
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

# Sizes of regions that all of the VMs share.
SHARED = [[2], [64], [128], [256], [512], [64] * 8, [512, 256, 128], [512, 512], [512] * 8]
BLOCK = re.compile(rb"\s*<IVSHMEM(?:\s[^>]*)?(?:/>|>.*?</IVSHMEM>)\s*", re.S)


def outside(data):
    """The bytes before and behind the IVSHMEM element; None where there is none."""
    parts = BLOCK.split(data, maxsplit=1)
    return parts if len(parts) == 2 else None


def same_outside(before, after):
    old, new = outside(before), outside(after)
    if old and new:
        return old == new
    return b"".join(before.split()) == b"".join(b"".join(new or [after]).split())


class Bench:
    """A scenario with its board, and what became of the edits of it."""

    def __init__(self, path, board, scenario, version, count):
        self.board_path, self.board, self.version, self.count = path, board, version, count
        self.where = scenario.where
        self.data = Path(self.where).read_bytes()
        self.v3 = scenario.dialect == "v3"
        # HV_RAM_SIZE in the scenario: the allocators take it as it is, and what does not fit fails in the linker.
        self.fixed = bool(scenario.hv_ram_size)
        self.vms = scenarios.sharing(scenario, version)
        self.posts = [vm for vm in self.vms if vm.load_order == "post_launched"]
        self.wrong = []
        self.refused = []

    def region(self, name, vms, size=2, **more):
        return {"name": name, "size": size, "vms": [vm.id for vm in vms], **more}

    def edit(self, data, values, state="exact"):
        """The bytes that an edit makes of a file; None where it is refused."""
        try:
            outcome = decide(data, self.where, values, state, self.version, self.board)
        except IvshmemError as exc:
            self.refused.append((values, sorted(set(re.findall(r"rules\.md#([a-z-]+)\]", str(exc))))))
            return None
        self.count["edits"] += 1
        again = decide(outcome.data, self.where, values, state, self.version, self.board).data
        if again != outcome.data:
            self.wrong.append(("a second run changes it", values))
        if not same_outside(data, outcome.data):
            self.wrong.append(("other bytes outside", values))
        if state == "exact":
            wanted = [self.told(value) for value in values if self.v3 or value.get("provided_by") != "device_model"]
            self.wrong += [(text, values) for text in reader.problems(data, outcome.data, wanted)]
        return outcome.data

    def told(self, value):
        """A declaration in the words of the second reader."""
        names = {vm.id: vm.name if self.v3 else str(vm.id) for vm in self.vms}
        return {**value, "vms": [names[vm] for vm in value["vms"]]}

    def every_edit(self):
        for pair in combinations(self.vms, 2):
            self.edit(self.data, [self.region("t", pair)])
        two = self.vms[:2]
        first = self.edit(self.data, [self.region("t", two)], "present")
        for data in (first,) if first else ():
            both = self.edit(data, [self.region("u", two)], "present")
            self.edit(data, [self.region("t", two, 4)], "present")
            self.edit(data, [self.region("t", self.vms[:3])], "present")
            self.edit(both or data, ["t"], "absent")
            self.edit(both or data, [])
        found = [
            {"name": each.region.name, "size": each.region.size, "vms": [vm.vm.id for vm in each.vms]}
            for each in read_scenario(self.data, self.where).as_found()
        ]
        self.edit(self.data, [])
        if found:
            self.edit(self.data, found)
        if len(self.posts) > 1:
            self.edit(self.data, [self.region("d", self.posts[:2], provided_by="device_model")])
        self.edit(self.data, [self.region(f"r{number}", two) for number in range(8)])
        self.count["scenarios"] += 1
        before = len(self.refused)
        assert self.edit(self.data, [self.region(f"r{number}", two) for number in range(9)]) is None
        assert "region-count" in self.refused.pop(before)[1]

    def shared(self):
        """Files with regions of all VMs, and whether they were accepted: what ACRN's allocators are asked about."""
        for sizes in SHARED:
            values = [self.region(f"r{number}", self.vms, size) for number, size in enumerate(sizes)]
            data = self.edit(self.data, values)
            yield values, data, data or self.forced(values)

    def forced(self, values):
        """The file that a refused declaration would be."""
        scenario = read_scenario(self.data, self.where)
        wanted = [
            Region(value["name"], "hypervisor", value["size"], tuple(map(RegionVm, value["vms"]))) for value in values
        ]
        try:
            return scenario.block.rendered(
                place_regions(scenario, wanted, self.board.native, version=self.version), version=self.version
            )
        except IvshmemError:
            return None


def duplicates(bench):
    names = [vm.name for vm in read_scenario(bench.data, bench.where).vms]
    return len(names) != len(set(names))


def fits(answer, base, version):
    """Whether ACRN's allocators place all of it; what they refuse without any region too is not asked."""
    memory = version >= (3, 3) or isinstance(base["memory"], str) or holds(answer)
    return memory and (version < (2, 3) or base["bars"] is not None or answer["bars"] is None)


def keep(row):
    """Add a row to the figures, whoever else does so at this time."""
    if os.environ.get("ACRN_IVSHMEM_FIGURES"):
        with open(os.environ["ACRN_IVSHMEM_FIGURES"], "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@pytest.mark.parametrize("tree", trees(), ids=lambda tree: tree.name if tree else "none")
def test_every_scenario(tree, tmp_path):
    if tree is None:
        pytest.skip("ACRN_SRC names no ACRN tree")
    version, count, bad, cases, asked = find_version(str(tree / "VERSION")), Counter(), [], [], []
    refused: Counter = Counter()
    benches = [Bench(*each, version, count) for each in pairs(tree)]
    for number, bench in enumerate(benches):
        if len(bench.vms) < 2:
            continue
        bench.every_edit()
        cases.append([str(bench.board_path), bench.where])
        asked.append(None)
        for index, (values, accepted, data) in enumerate(bench.shared()):
            if data is not None:
                file = tmp_path / f"{number}-{index}.xml"
                file.write_bytes(data)
                cases.append([str(bench.board_path), str(file)])
                asked.append((bench, values, accepted is not None))
        bad += [(bench.where, *each) for each in bench.wrong]
        refused.update(rule for _values, rules in bench.refused for rule in rules)
        # Of names the scenario itself tells; of memory, the allocators.
        of_names = [rules for _values, rules in bench.refused if "vm-name-duplicate" in rules]
        count["refused"] += len(bench.refused)
        count["false"] += 0 if not of_names or duplicates(bench) else len(of_names)
        others = [
            each for each in bench.refused if not {"vm-name-duplicate", "memory-budget", "memory-window"} & set(each[1])
        ]
        bad += [(bench.where, "refused", *each) for each in others]
    wrong, base = [], None
    for case, answer in zip(asked, ask(tree, cases)):
        if case is None:
            base = answer
            continue
        bench, values, accepted = case
        told = fits(answer, base, version)
        count["asked" if accepted else "refused of memory"] += 1
        sizes = [value["size"] for value in values]
        if accepted and not told:
            wrong.append((bench.where, sizes, answer))
        elif not accepted and told and bench.fixed:
            count["left to the linker"] += 1
        elif not accepted and told and not duplicates(bench) and version < (3, 3):
            count["false"] += 1
            bad.append((bench.where, "refused, and ACRN takes it", sizes, answer))
    boards = {str(bench.board_path) for bench in benches}
    keep(
        {
            "release": tree.name,
            "boards": len(boards),
            **count,
            "bad": len(bad),
            "wrong": len(wrong),
            "rules": dict(refused),
        }
    )
    assert (bad, wrong) == ([], [])
    assert count["edits"] > 10 * count["scenarios"]
