# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import time

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._process import run_group, run_quiet

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def test_a_missing_program_is_a_code_and_no_crash():
    code, text = run_quiet(["/does/not/exist"], {})
    assert code == 127
    assert "/does/not/exist" in text


def test_both_outputs_and_the_code_come_back():
    assert run_quiet(["sh", "-c", "echo one; echo two >&2; exit 3"], ENVIRONMENT) == (3, "one\ntwo\n")


def test_a_program_reads_no_input_and_only_its_own_environment():
    assert run_quiet(["sh", "-c", "cat; echo $HOME:$WISH"], {**ENVIRONMENT, "WISH": "yes"}) == (0, ":yes\n")


def test_the_output_is_in_the_file_and_the_handles_are_in_the_child(tmp_path):
    with open(tmp_path / "log", "wb") as log, open(tmp_path / "lock", "wb") as lock:
        command = ["sh", "-c", f"echo held >/proc/self/fd/{lock.fileno()}; echo said; exit 2"]
        assert run_group(command, ENVIRONMENT, log, [lock.fileno()]) == 2
    assert (tmp_path / "lock").read_text() == "held\n"
    assert (tmp_path / "log").read_text() == "said\n"


def test_an_exception_ends_the_children_of_the_command_too(tmp_path):
    def interrupt(number, frame):
        raise InterruptedError

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        with open(tmp_path / "log", "w+b") as log:
            signal.setitimer(signal.ITIMER_REAL, 1)
            with pytest.raises(InterruptedError):
                run_group(["sh", "-c", "sleep 60 & echo $!; wait"], ENVIRONMENT, log, [])
            log.seek(0)
            sleeper = int(log.read())
    finally:
        signal.signal(signal.SIGALRM, former)
    for _attempt in range(50):
        if not alive(sleeper):
            return
        time.sleep(0.1)
    pytest.fail("the grandchild outlived its group")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as handle:
            return handle.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
