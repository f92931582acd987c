# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs with --limit and --tags: what they do, what they leave alone, and what they say of it."""

from __future__ import annotations

import re

import pytest

from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_remove import VM, Fleet, changed, tree


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path)
    # The hosts have different regions, so each has a build of its own; a second builder is as good as the first.
    made.inventory["acrn_hosts"]["hosts"]["edits"]["ivshmem_host_regions"] = ["hv:/more, 2, 2:3"]
    builder = made.inventory["acrn_builders"]["hosts"]["builder"]
    place = tmp_path / "second"
    made.inventory["acrn_builders"]["hosts"]["second"] = {
        **builder,
        "hypervisor_artifacts_dir": str(place / "artifacts"),
        "hypervisor_work_dir": str(place / "work"),
    }
    made.add_guest("panel", ansible_host="127.0.0.1", ansible_port=9)
    return made


def text(done):
    return " ".join(done.stdout.split())


def plays(done):
    """The tasks of each play that had any, but for the one that closes each run."""
    found = {}
    name = ""
    for line in done.stdout.splitlines():
        head = re.match(r"(PLAY|TASK) \[(.*)\] \*", line)
        if head and head[1] == "PLAY":
            name = head[2]
        elif head:
            found.setdefault(name, []).append(head[2])
    found.pop("Next steps", None)
    return found


def manifests(fleet):
    return sorted(path for path in fleet.folder.glob("*/artifacts/*/manifest.json"))


def test_a_host_by_itself_gets_all_that_is_asked_and_no_other_host_anything(fleet):
    del fleet.inventory["acrn_guests"]["hosts"]["panel"]
    planned = fleet.play("plan", "--limit", "writes")
    assert planned.returncode == 0, planned.stdout
    assert "to build" in planned.stdout and "edits" not in planned.stdout
    before = tree(fleet.folder)

    done = fleet.play("site", "--limit", "writes")
    assert done.returncode == 0, done.stdout
    (first,) = manifests(fleet)
    made = {name for name, value in tree(fleet.folder).items() if before.get(name) != value}
    assert {f"written/launch/{VM}.sh", ".acrn-ivshmem/writes/scenario.xml"} <= made
    assert [name for name in made if name.startswith(("edited", ".acrn-ivshmem/edits"))] == []

    whole = fleet.play("site")
    assert whole.returncode == 0, whole.stdout
    assert len(manifests(fleet)) == 2
    kept = tree(fleet.folder)
    for name in (f"written/launch/{VM}.sh", ".acrn-ivshmem/writes/scenario.xml"):
        assert kept[name] == (fleet.folder / name).read_bytes()
    again = fleet.play("site", "--limit", "edits")
    assert (again.returncode, changed(again)) == (0, 0), again.stdout
    assert tree(fleet.folder) == kept and first in manifests(fleet)


@pytest.mark.parametrize(
    ("playbook", "limit", "told"),
    [
        ("site", "panel", "panel: the devices are known by the plan of writes, which is not in this run"),
        ("site", "edits,panel", "write --limit 'edits,panel,writes'"),
        ("verify", "panel", "write --limit 'panel,writes'"),
        ("site", "builder", "builder has no host of the group acrn_hosts, and nothing would be done"),
        ("plan", "panel", "panel has no host of the group acrn_hosts"),
        ("install", "builder", "builder has no host of the group acrn_hosts"),
        ("rollback", "panel", "panel has no host of the group acrn_hosts"),
        ("report", "panel", "panel has no host of the group acrn_hosts"),
        ("remove", "builder", "builder has no host of the group acrn_hosts or acrn_guests"),
        ("adopt", "builder", "builder has no host of the group acrn_hosts or acrn_guests"),
    ],
)
def test_a_limit_that_leaves_out_what_is_needed_is_refused_before_anything_is_touched(fleet, playbook, limit, told):
    before = tree(fleet.folder)
    done = fleet.play(playbook, "--limit", limit)
    assert done.returncode == 2, done.stdout
    assert told in text(done)
    assert list(plays(done)) == ["Inventory and limit"]
    assert tree(fleet.folder) == before


def test_guests_that_a_limit_leaves_out_are_told_and_their_mistakes_are_not(fleet):
    fleet.add_guest("lost", acrn_host="nowhere")
    fleet.add_guest("wrong", acrn_host="edits", acrn_vm="VM9")
    fleet.add_guest("twice", acrn_vm=2)
    done = fleet.play("site", "--check", "--limit", "writes")
    assert done.returncode == 0, done.stdout
    told = "writes: panel, twice are not in this run, so nothing is bound or proved there; --limit 'writes,panel,twice'"
    assert told in text(done)
    assert "VM9" not in done.stdout and "nowhere" not in done.stdout

    done = fleet.play("site", "--check", "--limit", "writes,panel,twice,lost")
    assert done.returncode == 2
    assert f"guests panel and twice: acrn_vm of each is {VM}" in text(done)
    assert "guest lost: acrn_host is 'nowhere'" in text(done)
    assert "VM9" not in done.stdout


def test_each_phase_by_its_tag(fleet):
    """Each alone, in the wrong order: what it needs of an earlier one is worked out, and nothing of that is written."""
    plan, look = "Plan for the phases of this run", "Builds to install"
    written = (".acrn-ivshmem/writes/scenario.xml", f"written/launch/{VM}.sh")

    def run(*words):
        before = tree(fleet.folder)
        done = fleet.play("site", *words)
        after = tree(fleet.folder)
        found = plays(done)
        found.pop("Inventory and limit", None)
        assert "Refuse what is not built yet" not in found.get(plan, [])
        return done, list(found), {name for name, value in after.items() if before.get(name) != value}

    done, found, made = run("--tags", "launch")
    assert (done.returncode, found) == (0, [plan, "Launch scripts"]), done.stdout
    assert written[1] in made and written[0] not in made and not manifests(fleet)

    fleet.inventory["acrn_hosts"]["hosts"]["writes"]["hypervisor_install"] = True
    done, found, made = run("--tags", "install")
    assert (done.returncode, found, made) == (2, [plan, look], set()), done.stdout
    # The scenario is still to be written, and nothing of that counts as a change.
    assert changed(done) == 0, done.stdout
    assert "writes: what is to be installed is not built yet; write --tags build,install" in text(done)
    assert "edits:" not in text(done)
    del fleet.inventory["acrn_hosts"]["hosts"]["writes"]["hypervisor_install"]

    done, found, made = run("--tags", "build")
    assert (done.returncode, found) == (0, [plan, "Hypervisor"]), done.stdout
    assert len(manifests(fleet)) == 2 and written[0] not in made

    done, found, made = run("--tags", "guests")
    assert (done.returncode, found, made) == (4, [plan, "Guests"], set()), done.stdout

    done, found, made = run("--tags", "verify")
    assert (found, made) == ([plan, "Proof, where none stands"], set()), done.stdout

    done, found, made = run("--tags", "scenario")
    assert (done.returncode, found) == (0, ["Scenario"]), done.stdout
    assert made and all(name.startswith(".acrn-ivshmem") for name in made)

    # All the others are left, and what is there stays as it is.
    done, found, made = run("--skip-tags", "guests,verify")
    assert (done.returncode, changed(done), made) == (0, 0, set()), done.stdout
    assert found == ["Scenario", "Hypervisor", "Launch scripts"]
    done, found, made = run("--skip-tags", "scenario,build,launch,guests,verify")
    assert (done.returncode, changed(done), made, found) == (0, 0, set(), [plan, look]), done.stdout


def test_the_phases_are_listed(fleet):
    done = fleet.play("site", "--list-tags")
    found = set(re.findall(r"[a-z]+", " ".join(re.findall(r"TASK TAGS: \[(.*)\]", done.stdout))))
    assert found == {"always", "scenario", "build", "install", "launch", "guests", "verify"}
