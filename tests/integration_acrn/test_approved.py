# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan that was approved: site does that and nothing else, host by host."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import find_version
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_memory_oracle import PYTHON, able, trees
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_waiting import (
    MEMORY,
    Fleet,
    changed,
    dm_region,
    ends,
)


@pytest.fixture(name="fleet")
def _fleet(tmp_path):
    with ends(tmp_path):
        fleet = Fleet(tmp_path)
        for name in ("still", "declared", "edited"):
            fleet.add(name, launch_started=False)
            fleet.hosts[name]["ivshmem_regions"] = dm_region(fleet, 2)
        # Of a host that is refused, guests are left alone too.
        del fleet.guests["still-guest"], fleet.guests["edited-guest"]
        yield fleet


@pytest.fixture(name="generator")
def _generator():
    """An ACRN tree of v3.3, whose launch_cfg_gen.py can run."""
    for root in trees():
        if isinstance(root, Path) and find_version(str(root / "VERSION")) == (3, 3):
            return able(root)
    return pytest.skip("ACRN_SRC names no tree of ACRN v3.3")


def test_site_does_what_was_approved_and_refuses_what_has_moved(fleet):
    made, _steps = fleet.play("plan", "-e", "plan_json=plan.json")
    assert made.returncode == 0, made.stdout
    before = {name: (fleet.folder / name / "scenario.xml").read_bytes() for name in fleet.hosts}
    # Somebody declares another size, and somebody else writes a script.
    fleet.hosts["declared"]["ivshmem_regions"][0]["size"] = 4
    (fleet.folder / "edited" / "launch").mkdir()
    script = fleet.folder / "edited" / "launch" / "EDITED_1.sh"
    script.write_text("#!/bin/sh\nacrn-dm -m 256M EDITED_1\n")

    done, steps = fleet.play("site", "-e", "plan=plan.json")
    assert done.returncode == 2, done.stdout
    assert re.search(r"\[declared\]: FAILED! .*other regions: dm:/\w+ \(\+ then, \+ now\)", done.stdout), done.stdout
    assert re.search(r"\[edited\]: FAILED! .*other files on the host: \S+/EDITED_1\.sh", done.stdout), done.stdout
    assert len(fleet.scripts("still")) == 2
    assert fleet.scripts("declared") == {}
    assert fleet.scripts("edited") == {"EDITED_1.sh": script.read_bytes()}
    # Where the scenario is written is decided for each host, too.
    written = {name for name in fleet.hosts if (fleet.folder / name / "scenario.xml").read_bytes() != before[name]}
    assert written <= {"still"}
    assert any("not as approved" in line for line in steps), steps

    # What the plan wanted is there: that is no other thing.
    done, _steps = fleet.play("site", "-e", "plan=plan.json", "--limit", "still")
    assert (done.returncode, changed(done)) == (0, 0), done.stdout


def test_a_plan_that_refuses_all_hosts_ends_with_the_table(fleet):
    assert fleet.play("plan", "-e", "plan_json=plan.json")[0].returncode == 0
    for own in fleet.hosts.values():
        own["ivshmem_regions"][0]["size"] = 4
    done, steps = fleet.play("site", "-e", "plan=plan.json")
    assert (done.returncode, changed(done)) == (2, 0), done.stdout
    assert sum("not as approved" in line for line in steps) == 1, done.stdout
    assert all(name in " ".join(steps) for name in fleet.hosts)


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ("[]", (), "this is no plan that acrn.ivshmem.plan of this version has kept"),
        (json.dumps({"format": 1, "hosts": []}), ("--tags", "launch"), "a plan is approved as a whole"),
    ],
)
def test_what_is_no_approved_plan_is_refused_before_anything_is_touched(fleet, text, words, told):
    (fleet.folder / "plan.json").write_text(text)
    done, _steps = fleet.play("site", "-e", "plan=plan.json", "-e", "plan_ask=false", *words)
    assert done.returncode == 2
    assert told in done.stdout
    assert [fleet.scripts(name) for name in fleet.hosts] == [{}, {}, {}]


def same_words(fleet):
    """The hosts with something to do, and the rows of the plan; what a dry run of site says is held against them."""
    plan, planned = fleet.play("plan", "-e", "plan_json=plan.json")
    dry, told = fleet.play("site", "--check")
    assert (plan.returncode, dry.returncode) == (0, 0), plan.stdout + dry.stdout
    rows = {row["host"]: row for row in json.loads((fleet.folder / "plan.json").read_text())["hosts"]}
    counts = {name: int(number) for name, number in re.findall(r"^(\S+) +: .*changed=(\d+)", dry.stdout, re.M)}
    to_do = {
        name for name, row in rows.items() if row["scenario_changed"] or row["diff"] or any((row["vms"] or {}).values())
    }
    assert ({name for name in rows if counts[name]}, told) == (to_do, planned)
    return to_do, rows, planned


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "every"])
def test_a_plan_says_what_a_dry_run_of_site_says(fleet, every):
    """One notion of check mode: the hosts with something to do, the VMs, and who waits are the same in both."""
    # One has a script to change and a VM that runs the old one.
    fleet.hosts["declared"]["launch_started"] = True
    # One has scripts that somebody wrote, one those of a template of its own, one is to get a region of a hypervisor
    # that nobody has built.
    by_hand = fleet.add("hand", launch_mode="edit", launch_started=False)
    fleet.hosts["hand"]["ivshmem_regions"] = dm_region(fleet, 2)
    (by_hand / "launch").mkdir()
    for vm in fleet.vms:
        (by_hand / "launch" / f"{vm}.sh").write_text(f"#!/bin/sh\nacrn-dm -m 256M -s 0:0,hostbridge {vm}\n")
    fleet.add("own", launch_started=False, launch_template=str(fleet.folder / "own.sh.j2"))
    (fleet.folder / "own.sh.j2").write_text("{% extends 'vm.sh.j2' %}\n")
    fleet.hosts["own"]["ivshmem_regions"] = dm_region(fleet, 2)
    fleet.add("waits")
    whole, waiting, others = ["declared"], ["waits"], {"hand", "own"}
    if every:
        # One has all, one has not begun, and one is to get a region of a hypervisor that nobody will install.
        fleet.hosts["still"]["launch_started"] = True
        whole.append("still")
        others.add("edited")
        fleet.add("builds", acrn_source=str(fleet.folder / "tree"))
        waiting.append("builds")
    else:
        del fleet.hosts["still"], fleet.hosts["edited"]
    fleet.guests.clear()
    done, _steps = fleet.play("site", "--limit", ",".join(whole))
    assert done.returncode == 0, done.stdout
    fleet.hosts["declared"]["launch_vms"][0]["memory"] = 256
    fleet.hosts["declared"]["launch_restart"] = True
    to_do, rows, steps = same_words(fleet)
    assert to_do == {"declared", *others, *waiting}
    assert rows["declared"]["vms"]["restarted"] == ["DECLARED_1"]
    assert [name for name in waiting if any(name in line for line in steps)] == waiting
    if every:
        # And where all that may be done has been done.
        done, _steps = fleet.play("site")
        assert done.returncode == 0, done.stdout
        to_do, _rows, after = same_words(fleet)
        assert (to_do, bool(after)) == (set(), True)


def test_a_plan_says_what_a_dry_run_of_site_says_of_generated_scripts(fleet, generator):
    names = ["POST_STD_VM1", "POST_STD_VM2"]
    data = generator / "misc/config_tools/data/whl-ipc-i5"
    fleet.hosts.clear()
    fleet.guests.clear()
    place = fleet.add(
        "made",
        acrn_board=str(data / "whl-ipc-i5.xml"),
        launch_mode="generate",
        launch_source=str(generator),
        launch_python=PYTHON,
        launch_started=False,
        launch_vms=[{"name": name} for name in names],
    )
    shutil.copy(data / "shared.xml", place / "scenario.xml")
    fleet.hosts["made"]["ivshmem_regions"] = [
        {"name": MEMORY, "provided_by": "device_model", "size": 2, "vms": names},
    ]
    fleet.guests.clear()
    to_do, rows, _steps = same_words(fleet)
    assert to_do == {"made"}
    assert any("POST_STD_VM1.sh" in line for line in rows["made"]["diff"])
    done, _steps = fleet.play("site")
    assert done.returncode == 0, done.stdout
    assert fleet.scripts("made").keys() >= {f"{name}.sh" for name in names}
    to_do, _rows, _steps = same_words(fleet)
    assert to_do == set()
