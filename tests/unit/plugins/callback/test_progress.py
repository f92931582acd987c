# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from ansible_collections.acrn.ivshmem.plugins.callback.progress import Step, spell


def test_times_as_people_read_them():
    assert [spell(seconds) for seconds in (0, 59.9, 60, 754)] == ["0 s", "59 s", "1 min 0 s", "12 min 34 s"]


def test_a_line_names_some_and_counts_all():
    step = Step("Build")
    step.waiting = {f"h{number}": 0 for number in range(7)}
    step.waiting["h1"], step.waiting["h2"] = 1, 2
    step.ended = 3
    names = "h0, h1 (1 item done), h2 (2 items done), h3, h4 and 2 more"
    assert step.line(step.began + 61) == f"... Build: 3 of 10 hosts done, 1 min 1 s so far, running on {names}"
    step.hosts = 12
    assert "3 of 12 hosts done" in step.line(step.began)
    step.waiting, step.ended, step.hosts = {"h": 0}, 0, 1
    assert step.line(step.began + 5) == "... Build: 5 s so far, running on h"


@pytest.fixture
def lines(tmp_path):
    playbook = f"{os.path.dirname(sys.executable)}/ansible-playbook"
    if not os.path.exists(playbook):
        pytest.skip("needs ansible-playbook beside the Python of the tests")

    def run(tasks, interval, *words, hosts="a,b", code=0, **play):
        path = tmp_path / "play.json"
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, **play, "tasks": tasks}]))
        environment = {
            **os.environ,
            "ANSIBLE_CALLBACKS_ENABLED": "acrn.ivshmem.progress",
            "ACRN_IVSHMEM_PROGRESS_INTERVAL": str(interval),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        }
        words = (playbook, "-i", hosts, "-c", "local", str(path), *words)
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("... ")]

    return run


def sleep(seconds, **task):
    return {"name": "Sleep", "ansible.builtin.command": f"sleep {seconds}", **task}


def test_a_long_task_tells_how_far_it_is(lines):
    loop = {"loop": [0, 4], "when": "inventory_hostname == 'a'"}
    found = lines([sleep("{{ item }}", **loop)], 1)
    assert len(found) >= 2
    assert re.fullmatch(r"\.\.\. Sleep: 1 of 2 hosts done, \d s so far, running on a \(1 item done\)", found[-1]), found


def test_hosts_that_wait_for_a_fork_are_counted(lines):
    found = lines([sleep(3)], 1, "--forks", "1", hosts="a,b,c")
    assert re.search(r"0 of 3 hosts done, \d s so far, running on a$", found[0]), found


def test_a_batch_is_counted_without_hosts_that_failed(lines):
    fail = {"ansible.builtin.fail": {}, "when": "inventory_hostname == 'a'"}
    batch = {"serial": 3, "max_fail_percentage": 90}
    found = lines([fail, sleep(3)], 1, "--forks", "1", hosts="a,b,c,d,e", code=2, **batch)
    assert "0 of 2 hosts done" in found[0], found


def test_the_hosts_of_an_included_file_are_counted(lines, tmp_path):
    # No JSON: ansible-core 2.17 does not know where its tasks stand.
    (tmp_path / "some.yml").write_text("- name: Sleep\n  ansible.builtin.command: sleep 3\n")
    include = {"ansible.builtin.include_tasks": str(tmp_path / "some.yml"), "when": "inventory_hostname != 'a'"}
    found = lines([include], 1, "--forks", "1", hosts="a,b,c,d")
    assert "0 of 3 hosts done" in found[0], found


RESCUED = {"block": [{"ansible.builtin.fail": {}, "when": "inventory_hostname == 'a'"}], "rescue": [sleep(3)]}


@pytest.mark.parametrize("task", [sleep(3, run_once=True), RESCUED], ids=["once", "rescue"])
def test_hosts_that_have_nothing_to_do_are_not_counted(lines, task):
    found = lines([task], 1)
    assert re.fullmatch(r"\.\.\. Sleep: \d s so far, running on a", found[0]), found


@pytest.mark.parametrize("interval", [60, 0])
def test_a_short_task_says_nothing(lines, interval):
    assert lines([sleep(2)], interval) == []
