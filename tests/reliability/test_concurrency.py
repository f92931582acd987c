# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many who write at once: nothing is lost, nothing is left behind, nothing is made twice."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pathlib
import shutil
import sys
import time

import pytest

from ansible_collections.acrn.ivshmem.tests.reliability import figures, probes, target
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios, standin

FORK = multiprocessing.get_context("fork")
WRITERS = 20
CROWD = 8
LIMIT = 300  # seconds in which a crowd that is not stuck does the next thing together


def crowd(number, work, rounds=1):
    """Let processes begin ``work(INDEX, TOGETHER)`` at one moment; ``TOGETHER()`` waits for the others.

    Returns the exit codes. Where one fails, the others end too.
    """
    gate = FORK.Barrier(number)

    def one(index):
        try:
            gate.wait(LIMIT)
            work(index, lambda: gate.wait(LIMIT))
        except BaseException:
            gate.abort()
            raise

    jobs = [FORK.Process(target=one, args=(index,)) for index in range(number)]
    for job in jobs:
        job.start()
    end = time.monotonic() + LIMIT * rounds
    for job in jobs:
        # The gate ends who waits in vain. This is for a process that does not come back at all; killed at the gate
        # it would keep the others there.
        job.join(max(0.1, end - time.monotonic()))
    if any(job.is_alive() for job in jobs):
        for job in jobs:
            job.kill()
            job.join()
    return [job.exitcode for job in jobs]


def test_writers_of_one_scenario(tmp_path, long):
    """Each round adds a region per writer and takes it out again; in between all of them must be there."""
    path = tmp_path / "line.xml"
    clean = scenarios.scenario("v3").encode()
    path.write_bytes(clean)
    rounds = 100 if long else 3  # two writes each

    def work(index, together):
        for _round in range(rounds):
            for state, regions, count in (
                ("present", [f"dm:/r{index}, 2, 2:3"], WRITERS),
                ("absent", [f"r{index}"], 0),
            ):
                params = {"path": str(path), "acrn_version": "3.3", "state": state, "regions": regions}
                result = target.call("scenario_regions", params)
                assert result.get("changed"), result
                together()
                data = path.read_bytes()
                assert len(scenarios.found(data, "v3")) == count
                assert count or data == clean
                assert sorted(os.listdir(tmp_path)) == [path.name, f"{path.name}.before-acrn-ivshmem"]
                together()

    codes = crowd(WRITERS, work, rounds)
    figures.add("writers at once on one scenario (writes)", WRITERS * rounds * 2, codes.count(0) * rounds * 2)
    assert codes == [0] * WRITERS


def _build_params(folder, tree):
    return {
        **{"source": str(tree), "board": str(folder / "bench.xml"), "scenario": str(folder / "line.xml")},
        **{"artifacts_dir": str(folder / "store"), "work_dir": str(folder / "work"), "python": sys.executable},
        **{"jobs": 1, "ccache": False, "environment": {"STANDIN_RUNS": str(folder / "runs")}},
    }


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_builds_of_one_key(tmp_path, long):
    """All want the same build: one makes it, all get it whole."""
    tree = standin.copy_tree(tmp_path / "tree")
    (tmp_path / "bench.xml").write_bytes(standin.BOARD)
    (tmp_path / "line.xml").write_bytes(standin.v3(("a", 2)))
    rounds = 4 if long else 1

    def work(index, together):
        for _round in range(rounds):
            result = target.call("hypervisor_build", _build_params(tmp_path, tree))
            assert not result.get("failed"), result
            for name, facts in result["manifest"]["outputs"].items():
                data = pathlib.Path(result["directory"], name).read_bytes()
                assert hashlib.sha256(data).hexdigest() == facts["sha256"]
            together()
            if index == 0:
                made = (tmp_path / "runs").read_text().splitlines()
                assert len(made) == 1, f"it was made {len(made)} times"
                assert os.listdir(tmp_path / "store") == [result["key"]]
                shutil.rmtree(tmp_path / "store")
                (tmp_path / "runs").unlink()
            together()

    codes = crowd(CROWD, work, rounds)
    figures.add("builds of one key at once", CROWD * rounds, codes.count(0) * rounds)
    assert codes == [0] * CROWD


def _guest(folder, number):
    kernel = target.StoredKernel(folder / "w")
    kernel.build(*({"address": f"0000:00:{slot:02x}.0", "size": 1 << slot} for slot in range(1, number + 1)))
    return folder / "w"


def test_bindings_of_one_guest(tmp_path, long):
    """Each binds a function of its own and keeps the others': the rules of all of them are there."""
    rounds = 6 if long else 2

    def work(index, together):
        for number in range(rounds):
            if index == 0:
                _guest(tmp_path / str(number), CROWD)
            together()
            target.enter({"guest": str(tmp_path / str(number) / "w")})
            device = {"name": f"d{index}", "bdf": f"00:{index + 1:02x}.0", "size": 2 << index}
            result = target.call("guest_device", {"devices": [device]})
            assert result.get("changed"), result
            together()
            rules = (tmp_path / str(number) / "w/etc/udev/rules.d/70-acrn-ivshmem.rules").read_text()
            assert rules.count("# function ") == CROWD, rules
            assert not target.call("guest_device", {"devices": [device]})["changed"]
            together()

    for number in range(rounds):
        (tmp_path / str(number)).mkdir()
    codes = crowd(CROWD, work, rounds)
    figures.add("guest_device at once in one guest", CROWD * rounds, codes.count(0) * rounds)
    assert codes == [0] * CROWD


def test_probes_of_one_guest(tmp_path, long):
    """All write proofs into one memory, in windows that overlap; at the end every byte is what it was."""
    rounds = 20 if long else 4
    root = probes.guest(tmp_path)
    before = probes.memory(root)

    def work(index, together):
        target.enter({"guest": str(root)})
        for number in range(rounds):
            steps = [probes.step("write", offset=(index % 4) * 1000, length=4096, seed=f"{index * 100 + number:064x}")]
            result = target.call("guest_probe", {"steps": steps})
            assert not result.get("failed"), result
            if index % 2:
                result = target.call("guest_probe", {"steps": [probes.step("restore")]})
                assert not result.get("failed"), result

    codes = crowd(CROWD, work, rounds)
    target.apart("guest_probe", {"steps": [probes.step("restore")]}, {"guest": str(root)})
    lost = sum(one != other for one, other in zip(before, probes.memory(root)))
    figures.add("guest_probe at once in one guest", CROWD * rounds, codes.count(0) * rounds if not lost else 0)
    assert codes == [0] * CROWD
    assert not lost, f"{lost} bytes are lost"
