# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples, as the playbook copies them: each of them can be planned as it stands."""

from __future__ import annotations

import json
import re

import pytest

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT, command

# Directory -> what is planned with, and the regions of each host.
EXAMPLES = {
    "demo": (
        ("-i", "inventory.yml", "acrn.ivshmem.plan"),
        {"press-1": ["press_state", "press_log"], "paint-1": ["paint_parts"]},
    ),
    "one-host": (("-i", "inventory.yml", "acrn.ivshmem.plan"), {"press-1": ["press_state", "press_log"]}),
    "realtime": (
        ("-i", "inventory.yml", "acrn.ivshmem.plan"),
        {"cell-1": ["safety", "motion"], "cell-2": ["exchange"]},
    ),
    "awx": (
        ("-i", "inventory/plant.acrn_scenario.yml", "plan.yml"),
        {"press-1": ["press_state"], "press-2": ["press_state"]},
    ),
}


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    words = ("ansible-playbook", "acrn.ivshmem.examples", "-e", f"examples_directory={folder}/fleet")
    done = command(folder, *words)
    assert (done.returncode, "changed=1" in done.stdout) == (0, True), done.stdout
    changed = folder / "fleet/one-host/inventory.yml"
    changed.write_text(changed.read_text() + "# mine\n")
    done = command(folder, *words)
    assert (done.returncode, "changed=0" in done.stdout) == (0, True), done.stdout
    assert changed.read_text().endswith("# mine\n")
    return folder / "fleet"


def test_each_example_is_tried(folder):
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    assert found == {*EXAMPLES, "application"} == {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()}
    text = (folder / "README.md").read_text()
    assert [name for name in found if f"[{name}](" not in text] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_planned(name, folder):
    words, expected = EXAMPLES[name]
    place = folder / name
    done = command(place, "ansible-playbook", *words, "-e", "plan_ask=false", "-e", f"plan_json={folder}/{name}.json")
    assert done.returncode == 0, done.stdout
    plan = json.loads((folder / f"{name}.json").read_text())
    assert {host["host"]: [region["name"] for region in host["regions"]] for host in plan["hosts"]} == expected
    # Nothing in the example is misspelt, and no rule has a doubt.
    assert re.findall(r"What nobody reads\] \**\nok.*", done.stdout) == []
    doubts = re.findall(r"WARNING.*", done.stdout)
    assert [line for line in doubts if not re.search("acrn_board|No inventory|provided hosts list", line)] == []
