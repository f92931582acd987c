# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The memory limits of this collection against ACRN's own allocators, on each side of each limit.

ACRN_SRC is an ACRN tree, or a directory of trees; ACRN_PYTHON a Python with lxml and defusedxml. ACRN_SCENARIOS is how
many scenarios of each tree are tried (default 8, spread over its boards; 0 is all of them). With --long, real builds
on each side of some limits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder import _decide, _model, _run
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, Region, RegionVm
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._memory import budget, service_places
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import place_regions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import find_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario

SOURCE = os.environ.get("ACRN_SRC", "")
PYTHON = os.environ.get("ACRN_PYTHON", sys.executable)
SCENARIOS = int(os.environ.get("ACRN_SCENARIOS", "8"))
LINKED = 1 << 31
# Sizes of the regions that the Service VM has, so that some fit and some do not.
SIZES = [[512] * 2, [512, 256, 128, 64, 32], [256] * 3, [256] * 4, [128] * 8, [512] * 8, [64, 512, 2, 256], [2]]


def trees():
    """The ACRN trees that ACRN_SRC names."""
    roots = [Path(SOURCE), *sorted(Path(SOURCE).iterdir())] if SOURCE and Path(SOURCE).is_dir() else []
    found = [root for root in roots if (root / "VERSION").is_file() and (root / "misc").is_dir()]
    return found or [pytest.param(None, id="none")]


def able(root):
    """The tree, if its tools can run."""
    if subprocess.run([PYTHON, "-c", "import lxml, defusedxml"], capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} (ACRN_PYTHON) lacks lxml or defusedxml")
    return root


@pytest.fixture(name="root", params=trees(), ids=lambda root: root.name if root else "none")
def _root(request):
    if request.param is None:
        pytest.skip("ACRN_SRC names no ACRN tree")
    return able(request.param)


def pairs(root):
    """Boards with one of their scenarios, each read, as many as are wanted."""
    files = [path for path in sorted((root / "misc").rglob("*.xml")) if path.stat().st_size]
    boards, found = {}, []
    for path in files:
        try:
            boards[path.stem] = (path, read_board(path.read_bytes(), str(path)))
        except IvshmemError:
            continue
    for path in files:
        board = boards.get(path.parent.name)
        try:
            scenario = read_scenario(path.read_bytes(), str(path))
        except IvshmemError:
            continue
        if board and len(scenario.vms) > 1:
            found.append((*board, scenario))
    if SCENARIOS:
        found = found[:: max(len(found) // SCENARIOS, 1)][:SCENARIOS]
    assert found, f"{root} has no boards with scenarios"
    return found


def ask(root, cases):
    words = [PYTHON, "-B", str(Path(__file__).with_name("allocate.py")), str(root)]
    run = subprocess.run(words, input=json.dumps(cases), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def unplaced(scenario, version, board, regions):
    """The first region that finds no room."""
    return next((each for each, inside in service_places(scenario, version, board, regions) if inside is None), None)


def written(folder, number, scenario, regions, version):
    path = folder / f"{number}.xml"
    path.write_bytes(scenario.block.rendered(place_regions(scenario, regions), version=version))
    return str(path)


def regions(scenario, sizes, ids):
    return [Region(f"r{number}", "hypervisor", size, tuple(map(RegionVm, ids))) for number, size in enumerate(sizes)]


def split(total):
    """A sum as the sizes of regions; no version looks here at how many there are, or at powers of two."""
    return [size for size in (total // 2 // 2 * 2, total - total // 2 // 2 * 2) if size]


def others(scenario):
    """Two VMs without the Service VM where there are two."""
    ids = [vm.id for vm in scenario.vms if vm.load_order != "service"]
    return ids[:2] if len(ids) > 1 else [vm.id for vm in scenario.vms[:2]]


def holds(told):
    """Whether ACRN's tools give the image a place that can be linked."""
    return not isinstance(told["memory"], str) and int(told["memory"][0], 16) < LINKED


def test_the_limit_is_where_acrns_tools_have_it(root, tmp_path):
    version = find_version(str(root / "VERSION"))
    if version >= (3, 3):
        pytest.skip("from v3.3 on regions are no part of the image")
    cases, wanted = [], []
    for number, (path, board, scenario) in enumerate(pairs(root)):
        # What the linker has to say is not asked here.
        scenario.hv_ram_size = 0
        limit = budget(scenario, version, board)["limit"]
        for total in (limit, limit + 2):
            some = regions(scenario, split(total), others(scenario))
            cases.append([str(path), written(tmp_path, f"{number}-{total}", scenario, some, version)])
            wanted.append((total <= limit, scenario.where, total))
    wrong = [
        (told, case, asked) for told, case, asked in zip(ask(root, cases), cases, wanted) if holds(told) != asked[0]
    ]
    assert not wrong


# A kind of limit each: the range of RAM with twice the size of the regions, with both providers, and with their size.
REAL = {"v2.6": [128, 64, 16, 8], "v3.1": [256, 64, 2], "v3.2": [512, 128, 64, 32, 4, 2]}


@pytest.mark.long
@pytest.mark.parametrize("name", REAL)
def test_make_has_the_limit_where_we_have_it(name, tmp_path):
    """The hypervisor of a board with little low memory: it builds at the limit, and does not with 2 MB more."""
    root = next((each for each in trees() if isinstance(each, Path) and each.name == name), None)
    if root is None:
        pytest.skip(f"ACRN_SRC has no tree {name}")
    version = find_version(str(root / "VERSION"))
    path = root / "misc/config_tools/data/nuc11tnbi5"
    board = read_board((path / "nuc11tnbi5.xml").read_bytes(), "board")
    scenario = read_scenario((path / "hybrid.xml").read_bytes(), "scenario")
    sizes = REAL[name]
    assert budget(scenario, version, board)["limit"] == sum(sizes)

    def build(number, sizes):
        placed = place_regions(scenario, regions(scenario, sizes, [0, 1]), board.native, version=version)
        file = tmp_path / f"{number}.xml"
        file.write_bytes(scenario.block.rendered(placed, version=version))
        compiler = ("CC=gcc-11",) if version <= (3, 1) else ()
        request = _model.Request(
            source=str(root),
            board=str(path / "nuc11tnbi5.xml"),
            scenario=str(file),
            artifacts_dir=str(tmp_path / "store"),
            work_dir=str(tmp_path / "work"),
            make_args=compiler,
            python=PYTHON,
        )
        return _run.build(_decide.plan(request))

    assert build("at", sizes)[1]
    with pytest.raises(_model.BuildError, match="a place that is too high") as caught:
        build("above", [*sizes, 2])
    assert any("relocation truncated to fit" in line for line in caught.value.lines)


def test_the_service_vm_has_room_where_acrns_tools_find_it(root, tmp_path):
    version = find_version(str(root / "VERSION"))
    if version < (2, 3):
        pytest.skip("on v2.2 the Service VM shares nothing")
    cases, wanted = [], []
    for number, (path, board, scenario) in enumerate(pairs(root)):
        service = [vm.id for vm in scenario.vms if vm.load_order == "service"]
        if not service:
            continue
        ids = [*service, next(vm.id for vm in scenario.vms if vm.id not in service)]
        for index, sizes in enumerate([[], *SIZES]):
            some = regions(scenario, sizes, ids)
            cases.append([str(path), written(tmp_path, f"{number}-{index}", scenario, some, version)])
            wanted.append((unplaced(scenario, version, board, some), scenario.where, sizes))
    told = ask(root, cases)
    wrong, without, asked = [], False, 0
    for answer, case, (region, where, sizes) in zip(told, cases, wanted):
        if not sizes:
            without = answer["bars"] is None
            asked += without
        if without and (answer["bars"] is None) != (region is None):
            wrong.append((answer, case, where, sizes, region))
    assert asked, f"no scenario of {root} gets its BARs as it is: {told[0]['bars']}"
    assert not wrong
