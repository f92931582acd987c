# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hypervisor alone does: where it fails as it boots, and what the collection says to that before."""

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
# The machine has 2 GB of memory. In the second case all of them fit, and the page tables of the VMs behind them do not.
TOO_MUCH = {"2048 MB": [512] * 4, "2016 MB": [512, 512, 512, 256, 128, 64, 32]}


@pytest.mark.long
@pytest.mark.parametrize("total", TOO_MUCH)
def test_sum_for_which_there_is_no_memory_is_refused_and_else_stops_the_hypervisor(total, tmp_path):
    sizes = TOO_MUCH[total]
    regions = [machines.region(f"part_{number}", size, *machines.ALL[1:]) for number, size in enumerate(sizes)]
    wanted = replace(machines.LAUNCHED, regions=regions)
    if real.source(wanted.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
    with pytest.raises(real.RealError, match=f"take {total}, at most 1972 MB fit"):
        real.made(wanted, tmp_path / "refused")
    # Without the board file nothing tells how much there is; ACRN's own tools do not look.
    built = real.made(replace(wanted, judged=False), tmp_path / "made")
    with emulator.Emulator(tmp_path / "run", real.disc(built, tmp_path, guests=False), wanted.machine) as machine:
        found = machine.wait(r"PANIC: e820_alloc_memory[^\n]*\n(.*\n)+?.*cannot be reserved|Start VM id", 120)
        print(f"{found.group()!r} after {machine.cpu():.0f} CPU s")
    assert "Requested memory from E820 cannot be reserved" in found.group()


@pytest.mark.long
@pytest.mark.parametrize("name", machines.OTHERS)
def test_hypervisor_of_each_release_boots_and_starts_its_vms(name, tmp_path):
    """Without guests: what takes longest is left out."""
    wanted = machines.OTHERS[name]
    if real.source(wanted.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
    built = real.made(wanted, tmp_path / "made")
    with emulator.Emulator(tmp_path / "run", real.disc(built, tmp_path, guests=False), wanted.machine) as machine:
        machine.wait(r"Start VM id: 1 name: PRE_STD_VM1", 200, stop=r"PANIC: [^\n]*\n")
        print(f"{name}: {machine.cpu():.0f} CPU s")
