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
    step.waiting, step.ended = {"h": 0}, 0
    assert step.line(step.began + 5) == "... Build: 5 s so far, running on h"


@pytest.fixture
def lines(tmp_path):
    playbook = f"{os.path.dirname(sys.executable)}/ansible-playbook"
    if not os.path.exists(playbook):
        pytest.skip("needs ansible-playbook beside the Python of the tests")

    def run(seconds, interval):
        sleep = {"ansible.builtin.command": "sleep {{ item }}", "name": "Sleep"}
        tasks = [{**sleep, "loop": [0, seconds], "when": "inventory_hostname == 'a'"}]
        path = tmp_path / "play.json"
        path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        environment = {
            **os.environ,
            "ANSIBLE_CALLBACKS_ENABLED": "acrn.ivshmem.progress",
            "ACRN_IVSHMEM_PROGRESS_INTERVAL": str(interval),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        }
        words = [playbook, "-i", "a,b", "-c", "local", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [line for line in done.stderr.splitlines() if line.startswith("... ")]

    return run


def test_a_long_task_tells_how_far_it_is(lines):
    found = lines(4, interval=1)
    assert len(found) >= 2
    assert re.fullmatch(r"\.\.\. Sleep: 1 of 2 hosts done, \d s so far, running on a \(1 item done\)", found[-1]), found


def test_a_short_task_says_nothing(lines):
    assert lines(2, interval=60) == []
