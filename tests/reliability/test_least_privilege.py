# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A user without privileges runs the playbooks, with the rule of sudo that SECURITY.md shows, and without any."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path

import pytest

from ansible_collections.acrn.ivshmem.tests.integration_acrn import controller
from ansible_collections.acrn.ivshmem.tests.reliability import figures, plant, unprivileged

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(plant.why_not() is not None, reason=str(plant.why_not())),
]


def rules():
    """The rule of SECURITY.md, for the user of the test."""
    text = (controller.ROOT / "SECURITY.md").read_text(encoding="utf-8")
    found = re.search(r"^# /etc/sudoers\.d/ansible .*?(?=^```)", text, re.M | re.S).group()
    assert re.search(r"^ansible ALL=\(root\)", found, re.M)
    return re.sub(r"\bansible\b", unprivileged.NAME, found)


@pytest.fixture(name="place", scope="module")
def _place():
    # The directories of pytest are closed to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        why = unprivileged.why_not(folder)
        if why:
            pytest.skip(why)
        place = plant.Plant(folder, 1)
        temporary = {"ansible_remote_tmp": f"/tmp/.ansible-{unprivileged.NAME}"}
        place.inventory["all"]["vars"].update(temporary)
        for name in ("acrn_hosts", "acrn_guests"):
            place.inventory["all"]["children"][name].setdefault("vars", {})["ansible_become"] = True
        place.write()
        # The inventory is the user's, the machines are root's.
        for path in (place.folder, *place.folder.iterdir()):
            os.chown(path, unprivileged.UID, unprivileged.UID)
        os.chown(place.folder / "machines", 0, 0)
        yield place


@pytest.fixture(name="made", scope="module")
def _made(place):
    """After site with become."""
    before = {name: place.state(name) for name in (*place.acrn_hosts, *place.guests)}
    place.before = unprivileged.words(place.folder.parent, rules())
    done = place.run("site")
    assert done.returncode == 0, done.stdout[-5000:]
    return before


def test_nothing_that_was_written_is_open_to_others(place, made):
    """Root's on the machines, the user's on the controller, and of nobody else's to write."""
    seen = 0
    for name, before in made.items():
        now = place.state(name)
        for path in now.keys() - before.keys():
            about = os.lstat(place.root(name) / path)
            seen += 1
            assert (about.st_uid, about.st_gid) == (0, 0), (name, path)
            if not stat.S_ISLNK(about.st_mode):
                assert not about.st_mode & 0o022, (name, path, oct(about.st_mode))
                if path.endswith((".before-acrn-ivshmem", ".json")) or "run/acrn-ivshmem" in path:
                    assert not about.st_mode & 0o077, (name, path, oct(about.st_mode))
    kept = place.folder / ".acrn-ivshmem"
    for path in [kept, *kept.rglob("*")]:
        about = path.lstat()
        seen += 1
        assert about.st_uid == unprivileged.UID, path
        assert not about.st_mode & 0o022, (path, oct(about.st_mode))
    assert place.state("h001") != made["h001"] and place.state("h001-vm0") != made["h001-vm0"]
    assert seen >= 8
    figures.add("playbooks by a user without privileges", 1, 1)


def test_plan_and_report_need_no_root(place, made):
    place.before = unprivileged.words(place.folder.parent, None)
    for playbook, option in (("plan", "plan_ask=false"), ("report", "report_ask=false")):
        done = place.run(playbook, "-e", option, "-e", "ansible_become=false")
        assert done.returncode == 0, done.stdout[-5000:]
    # Without a rule sudo asks for a password, and nothing is done.
    before = {name: place.state(name) for name in made}
    done = place.run("site")
    assert done.returncode != 0
    assert re.search(r"^fatal: \[h001\].*sudo: a password is required", done.stdout, re.M), done.stdout[-5000:]
    assert {name: place.state(name) for name in made} == before
    assert "Traceback" not in done.stdout
    figures.add("playbooks by a user without privileges", 3, 3)
