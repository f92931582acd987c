# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only fails when ACRN boots, beside what the collection says to it before anything is built."""

from __future__ import annotations

import os
from dataclasses import replace

import emulator
import machines
import pytest
import real

pytestmark = pytest.mark.skipif(
    not os.environ.get("ACRN_SRC"), reason="no ACRN source: set ACRN_SRC to a clone with its tags, or to a tree"
)
# The machine has 2 GB of memory.
TOO_MUCH = [machines.region(f"half_{number}", 512, machines.VM1, machines.VM2) for number in range(4)]


@pytest.mark.long
def test_sum_for_which_there_is_no_memory_is_refused_and_else_stops_the_hypervisor(tmp_path):
    wanted = replace(machines.LAUNCHED, regions=TOO_MUCH)
    if real.source(wanted.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
    with pytest.raises(real.RealError, match="2048 MB"):
        real.made(wanted, tmp_path / "refused")
    # Without the board file nothing tells how much there is; ACRN's own tools do not look.
    built = replace(real.made(replace(wanted, judged=False), tmp_path / "made"), scripts=())
    with emulator.Emulator(tmp_path / "run", real.disc(built, tmp_path), wanted.machine) as machine:
        found = machine.wait(r"PANIC: e820_alloc_memory[^\n]*\n(.*\n)+?.*cannot be reserved|acrn-test: init", 120)
        print(f"{found.group()!r} after {machine.cpu():.0f} CPU s")
    assert "Requested memory from E820 cannot be reserved" in found.group()
