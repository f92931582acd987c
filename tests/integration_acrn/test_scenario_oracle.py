# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ACRN's own tools on files that this collection wrote: do they take them, and read in them what was asked for?

ACRN_SRC is an ACRN tree, or a directory of trees. ACRN_PYTHON is a Python with the packages that ACRN's tools need
(elementpath 2.5.3 and xmlschema 1.11.3 for v3.1 to v3.3; v3.0 wants elementpath 2.5.0), ACRN_EXAMPLES how many
declarations each tree gets.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide, find_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

SOURCE = os.environ.get("ACRN_SRC", "")
PYTHON = os.environ.get("ACRN_PYTHON", sys.executable)
EXAMPLES = int(os.environ.get("ACRN_EXAMPLES", "3"))


def trees():
    """The ACRN trees that ACRN_SRC names."""
    roots = [Path(SOURCE), *sorted(Path(SOURCE).iterdir())] if SOURCE and Path(SOURCE).is_dir() else []
    found = [root for root in roots if (root / "VERSION").is_file() and (root / "misc").is_dir()]
    return found or [pytest.param(None, id="none")]


class Tree:
    """An ACRN tree with one of its boards and the scenarios for it."""

    def __init__(self, root):
        self.root = root
        self.version = find_version(str(root / "VERSION"))
        data = root / "misc" / "config_tools" / "data"
        if not data.is_dir():
            data = root / "misc" / "vm_configs" / "xmls" / "config-xmls"
        folder = data / "whl-ipc-i5"
        self.board = folder / "whl-ipc-i5.xml"
        if not self.board.is_file():
            self.board = data.parent / "board-xmls" / "whl-ipc-i5.xml"
        texts = {path: path.read_bytes() for path in sorted(folder.glob("*.xml")) if "launch" not in path.name}
        self.scenarios = [path for path, text in texts.items() if text.count(b"<vm id=") > 1]
        self.launches = [path for path in sorted(folder.glob("*_launch_*.xml")) if b"shm_region" in path.read_bytes()]


@pytest.fixture(params=trees(), ids=lambda root: root.name if root else "none")
def tree(request):
    if request.param is None:
        pytest.skip("ACRN_SRC names no ACRN tree")
    tree = Tree(request.param)
    modules = "lxml, defusedxml, elementpath, xmlschema" if tree.version >= (2, 4) else "lxml"
    if subprocess.run([PYTHON, "-c", f"import {modules}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{PYTHON} (ACRN_PYTHON) lacks one of {modules}")
    return tree


def configure(tree, scenario, out):
    """Run all of a build that reads the scenario. Returns its complaints, and the generated files by their names."""
    if not all(map(shutil.which, ("make", "gcc", "iasl", "xsltproc", "xmllint"))):
        pytest.skip("no make, gcc, iasl, xsltproc or xmllint")
    shutil.rmtree(out, ignore_errors=True)
    settings = [f"BOARD={tree.board}", f"SCENARIO={scenario}", f"O={out}"]
    path = os.pathsep.join([os.path.dirname(PYTHON), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["make", "-C", str(tree.root), "hvdefconfig", *settings]
    run = subprocess.run(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    # v2.4 to v3.1 end with 0 where validation fails.
    bad = re.compile(
        r"^(CRITICAL|ERROR|WARNING):|validation failed|Traceback|\bError\b|\*\*\*|[Ff]ailed to|runtime error"
    )
    complaints = [line for line in run.stdout.splitlines() if bad.search(line)]
    if run.returncode:
        complaints.append(f"make ended with {run.returncode}")
    files = {path.name: path.read_text() for path in Path(out).rglob("*.[ch]")}
    return complaints, files


def check_v2_settings(tree, scenario):
    """What the tool of v2.2 and v2.3, which have no hvdefconfig, complains about."""
    script = (
        "import json, sys\n"
        "tool, board, scenario = sys.argv[1:]\n"
        "sys.path.insert(0, tool + '/scenario_config')\n"
        "import scenario_cfg_gen as gen, common\n"
        "common.prepare = lambda: {}\n"
        "common.BOARD_INFO_FILE, common.SCENARIO_INFO_FILE = board, scenario\n"
        "common.get_vm_num(scenario)\n"
        "common.get_vm_types()\n"
        "gen.get_scenario_item_values(board, scenario)\n"
        "print(json.dumps(gen.validate_scenario_setting(board, scenario)[0]))\n"
    )
    words = [PYTHON, "-B", "-c", script, str(tree.root / "misc" / "acrn-config"), str(tree.board), str(scenario)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    return [f"{key}: {text}" for key, text in told.items()], {}


def oracle(tree, scenario, out):
    return configure(tree, scenario, out) if tree.version >= (2, 4) else check_v2_settings(tree, scenario)


def declare(dice, tree, scenario):
    """Some regions within the rules, of any VMs, providers and sizes."""
    regions = []
    for number in range(dice.randint(1, 9)):
        posts = [vm for vm in scenario.vms if vm.load_order == "post_launched"]
        dm = len(posts) > 1 and dice.random() < 0.3
        usable = posts if dm else scenarios.sharing(scenario, tree.version)
        if len(usable) < 2:
            continue
        region = {
            "name": dice.choice(["r", "Region_", "a" * 26]) + str(number),
            "provided_by": "device_model" if dm else HYPERVISOR,
            "size": dice.choice([2, 2, 4, 8, 16, 32, 64]),
            "vms": [vm.id for vm in dice.sample(usable, dice.randint(2, len(usable)))],
        }
        if tree.version >= (3, 3) and dice.random() < 0.5:
            region["region_id"] = 4096 + number
        if dice.random() < 0.3:
            chosen = {vm.id for vm in usable if tree.version >= (3, 0) or vm.load_order == "post_launched"}
            slot = dice.randint(3, 30)
            region["vms"] = [{"id": vm, "vbdf": f"00:{slot:02X}.0"} if vm in chosen else vm for vm in region["vms"]]
        regions.append(region)
    return regions


def written(dice, tree, path):
    """A random declaration and its outcome; what breaks a rule is left out until the rest does not."""
    scenario = read_scenario(path.read_bytes(), str(path))
    board = read_board(tree.board.read_bytes(), str(tree.board))
    regions = declare(dice, tree, scenario)
    while True:
        try:
            return decide(path.read_bytes(), str(path), regions, version=tree.version, board=board)
        except IvshmemError as exc:
            name = re.search(r"error: region '(\w+)'", str(exc))
            regions = [each for each in regions if each["name"] != name.group(1)] if name else regions[:-1]


def generated(files):
    """The hypervisor's regions in the generated code, {name: (size, number of VMs, their places)}."""
    header, code = files["ivshmem_cfg.h"], files["pci_dev.c"]
    names = dict(re.findall(r'#define\s+(IVSHMEM_SHM_REGION_\d+)\s+"(.*)"', header))
    sizes = dict(re.findall(r"\.name = (\w+),[^}]*?\.size = (0x[0-9a-f]+)UL", header))
    regions = {name: (int(sizes[key], 16) >> 20, []) for key, name in names.items()}
    for device in re.findall(r"\{(?:[^{}]|\{[^{}]*\})*vpci_ivshmem_ops(?:[^{}]|\{[^{}]*\})*\}", code):
        key = re.search(r"\.shm_region_name = (\w+)", device).group(1)
        # The place, where it is fixed.
        place = re.search(r"\.b = 0[xX](\w+)U,\s*\.d = 0[xX](\w+)U", device)
        regions[names[key]][1].append(":".join(place.groups()) if place else "")
    return {name: (size, sorted(places)) for name, (size, places) in regions.items()}


def asked(outcome):
    """The same as generated() of what was asked for. In v2.x the build chooses every place."""
    v3 = outcome.scenario.dialect == "v3"
    return {
        placed.region.prefixed: (
            placed.region.size,
            sorted(
                "" if vm.vm.load_order == "post_launched" else f"00:{vm.vbdf.device:02x}" if v3 else "any"
                for vm in placed.vms
            ),
        )
        for placed in outcome.regions
        if placed.region.provided_by == HYPERVISOR
    }


def test_acrn_takes_what_is_written(tree, tmp_path):
    dice = random.Random(f"{tree.version}")
    before = {}
    for number in range(EXAMPLES):
        path = tree.scenarios[number % len(tree.scenarios)]
        outcome = written(dice, tree, path)
        new = tmp_path / path.name
        new.write_bytes(outcome.data)
        if path not in before:
            before[path] = oracle(tree, path, tmp_path / "out")[0]
        complaints, files = oracle(tree, new, tmp_path / "out")
        shown = [placed.as_dict() for placed in outcome.regions]
        assert [line for line in complaints if line not in before[path]] == [], shown
        if files and asked(outcome):
            told = generated(files)
            if outcome.scenario.dialect == "v2":
                told = {name: (size, ["any" if at else "" for at in places]) for name, (size, places) in told.items()}
            assert {name: (size, sorted(at)) for name, (size, at) in told.items()} == asked(outcome), shown


@pytest.mark.parametrize(
    ("wrong", "since"),
    [(("<IVSHMEM_SIZE>4<", "<IVSHMEM_SIZE>3<", ", 4, ", ", 3, "), (2, 2)), (("spoilt", "spo-ilt") * 2, (2, 4))],
)
def test_acrn_does_complain(tree, tmp_path, wrong, since):
    """A file that is wrong on purpose: without this, an oracle that says nothing would pass for one that agrees."""
    if tree.version < since:
        pytest.skip("not checked by this version")
    read = [(path, read_scenario(path.read_bytes(), "f")) for path in tree.scenarios]
    able = [(path, [vm.id for vm in scenarios.sharing(scenario, tree.version)][:2]) for path, scenario in read]
    path, ids = next((path, ids) for path, ids in able if len(ids) == 2)
    data = decide(path.read_bytes(), "f", [{"name": "spoilt", "size": 4, "vms": ids}], version=tree.version).data
    new = tmp_path / path.name
    for old, bad in zip(wrong[::2], wrong[1::2]):
        data = data.replace(old.encode(), bad.encode())
    new.write_bytes(data)
    assert oracle(tree, new, tmp_path / "out")[0]


def test_launch_xml_is_taken_by_acrn(tree, tmp_path):
    """launch_cfg_gen.py of v2.x makes launch scripts with the regions of the launch XML."""
    if not tree.launches or tree.version >= (3, 0):
        pytest.skip("this version has no launch XML with shared memory")
    tool = next(tree.root.glob("misc/*/launch_config/launch_cfg_gen.py"))
    done = 0
    for launch in tree.launches:
        path = launch.with_name(f"{launch.name.split('_launch_')[0]}.xml")
        if path not in tree.scenarios:
            continue
        try:
            Document(launch.read_bytes(), str(launch))
        except IvshmemError:  # one launch XML of v2.4 is not well-formed
            continue
        scenario = read_scenario(path.read_bytes(), str(path))
        posts = [vm.id for vm in scenario.vms if vm.load_order == "post_launched"]
        ids = [vm.id for vm in scenarios.sharing(scenario, tree.version)]
        if not posts or len(ids) < 2:
            continue
        outcome = decide(
            path.read_bytes(),
            str(path),
            [{"name": "cam", "size": 16, "vms": ids}, {"name": "log", "size": 2, "vms": [ids[0], ids[-1]]}],
            version=tree.version,
            launch=launch.read_bytes(),
            launch_where=str(launch),
        )
        new, new_launch = tmp_path / path.name, tmp_path / launch.name
        new.write_bytes(outcome.data)
        new_launch.write_bytes(outcome.launch)
        out = tmp_path / f"out-{launch.stem}"
        words = [PYTHON, "-B", str(tool), "--board", str(tree.board), "--out", str(out)]
        number = ["--uosid" if tree.version < (2, 7) else "--user_vmid", "0"]
        words += ["--scenario", str(new), "--launch", str(new_launch), *number]
        run = subprocess.run(words, capture_output=True, text=True, check=False)
        scripts = "\n".join(script.read_text() for script in out.rglob("*.sh"))
        assert "ivshmem,hv:/cam,16" in scripts, run.stdout + run.stderr
        done += 1
    assert done
