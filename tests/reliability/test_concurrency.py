# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many who write at once: nothing is lost, nothing is left behind, nothing is made twice."""

from __future__ import annotations

import multiprocessing
import os

from ansible_collections.acrn.ivshmem.tests.reliability import figures, target
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

FORK = multiprocessing.get_context("fork")
WRITERS = 20
LIMIT = 300  # seconds until a crowd is taken for stuck


def crowd(number, work):
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
    for job in jobs:
        job.join(LIMIT)
        if job.is_alive():
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

    codes = crowd(WRITERS, work)
    figures.add("writers at once on one scenario (writes)", WRITERS * rounds * 2, codes.count(0) * rounds * 2)
    assert codes == [0] * WRITERS
