# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hypervisor alone does: where it fails as it boots, and what the collection says to that before."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import emulator
import machines
import pytest
import real

pytestmark = pytest.mark.skipif(
    not os.environ.get("ACRN_SRC"), reason="no ACRN source: set ACRN_SRC to a clone with its tags, or to a tree"
)
# The machine has 2 GB of memory. In the second case all of them fit, and the page tables of the VMs behind them do not.
TOO_MUCH = {"2048 MB": [512] * 4, "2016 MB": [512, 512, 512, 256, 128, 64, 32]}
MOST = [512, 512, 512, 256, 128, 32, 16, 4]


def parts(sizes):
    """The machine with VMs to launch, and regions of these sizes."""
    regions = [machines.region(f"part_{number}", size, *machines.ALL[1:]) for number, size in enumerate(sizes)]
    wanted = replace(machines.LAUNCHED, regions=regions)
    if real.source(wanted.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
    return wanted


MEMORY = r"PANIC: e820_alloc_memory[^\n]*\n(.*\n)+?.*cannot be reserved|Create VM0-VCPU1"

# Both VMs run, or why they do not.
LAST = r"PANIC: [^\n]*\n|Start VM id: 1 name: PRE_STD_VM1"


def started(built, folder, pattern=MEMORY):
    """The line of the pattern that comes: how far the hypervisor has got, or why it has not."""
    with emulator.Emulator(folder / "run", real.disc(built, folder, guests=False), built.wanted.machine) as machine:
        found = machine.wait(pattern, 200)
        print(f"{found.group()!r} after {machine.cpu():.0f} CPU s")
    return found.group()


@pytest.mark.long
@pytest.mark.parametrize("total", TOO_MUCH)
def test_sum_for_which_there_is_no_memory_is_refused_and_else_stops_the_hypervisor(total, tmp_path):
    wanted = parts(TOO_MUCH[total])
    with pytest.raises(real.RealError, match=f"take {total}, at most {sum(MOST)} MB fit"):
        real.made(wanted, tmp_path / "refused")
    # Without the board file nothing tells how much there is; ACRN's own tools do not look.
    built = real.made(replace(wanted, judged=False), tmp_path / "made")
    assert "Requested memory from E820 cannot be reserved" in started(built, tmp_path)


@pytest.mark.long
def test_largest_sum_that_the_collection_takes_boots(tmp_path):
    # Nothing is left for a Service VM's own kernel then.
    assert started(real.made(parts(MOST), tmp_path / "made"), tmp_path) == "Create VM0-VCPU1"


NINTH = """\
  <IVSHMEM_REGION>
    <NAME>ninth</NAME>
    <PROVIDED_BY>Hypervisor</PROVIDED_BY>
    <IVSHMEM_SIZE>2</IVSHMEM_SIZE>
    <IVSHMEM_VMS>
      <IVSHMEM_VM><VM_NAME>PRE_STD_VM0</VM_NAME><VBDF>00:10.0</VBDF></IVSHMEM_VM>
      <IVSHMEM_VM><VM_NAME>PRE_STD_VM1</VM_NAME><VBDF>00:10.0</VBDF></IVSHMEM_VM>
    </IVSHMEM_VMS>
  </IVSHMEM_REGION>
</IVSHMEM>"""
MANY = [machines.region(f"part_{number}", 2, *machines.TWO) for number in range(8)]
PAIR = [machines.region("one", 2, *machines.at("00:08.0")), machines.region("other", 4, *machines.at("00:09.0"))]


@dataclass(frozen=True)
class Mistake:
    """Regions, a change of the file by hand that makes a mistake, and what ACRN's build says to it, nothing where it
    builds; and the same as a declaration, with what the collection says."""

    regions: Sequence[Mapping[str, Any]]
    by_hand: Mapping[str, str]
    real: str
    declared: Sequence[Mapping[str, Any]]
    collection: str


MISTAKES = {
    "a ninth region": Mistake(
        MANY,
        {"</IVSHMEM>": NINTH},
        "excess elements in array initializer",
        [*MANY, machines.region("ninth", 2, *machines.TWO)],
        "9 regions are provided by the hypervisor, the limit is 8",
    ),
    "a vBDF twice": Mistake(
        PAIR,
        {"<VBDF>00:09.0</VBDF>": "<VBDF>00:08.0</VBDF>"},
        "contains multiple virtual UART controllers or IVSHMEM interfaces using BDF 00:08.0",
        [PAIR[0], machines.region("other", 4, *machines.at("00:08.0"))],
        "region 'other': the vBDF 00:08.0 of VM 'PRE_STD_VM0' is taken by region 'one'",
    ),
    "a VM name that the scenario does not have": Mistake(
        PAIR,
        {"<VM_NAME>PRE_STD_VM1</VM_NAME>": "<VM_NAME>OTHER_VM</VM_NAME>"},
        "",
        [machines.region("one", 2, "PRE_STD_VM0", "OTHER_VM")],
        "region 'one': VM 'OTHER_VM' is not in the scenario",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", MISTAKES)
def test_what_acrns_build_refuses_or_gets_wrong_is_refused_before_it(name, tmp_path):
    mistake = MISTAKES[name]
    wanted = replace(machines.TWO_PRE_LAUNCHED, regions=mistake.regions)
    if real.source(wanted.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
    with pytest.raises(real.RealError, match=re.escape(mistake.collection)):
        real.made(replace(wanted, regions=mistake.declared), tmp_path / "declared")
    by_hand = replace(wanted, by_hand=mistake.by_hand)
    if mistake.real:
        with pytest.raises(real.RealError, match=re.escape(mistake.real)):
            real.made(by_hand, tmp_path / "made")
    else:
        assert real.made(by_hand, tmp_path / "made").artifact.is_dir()


@pytest.mark.long
@pytest.mark.parametrize("name", machines.OTHERS)
def test_hypervisor_of_each_release_boots_and_starts_its_vms(name, tmp_path):
    """Without guests: what takes longest is left out."""
    wanted = machines.OTHERS[name]
    if real.source(wanted.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
    assert "Start VM" in started(real.made(wanted, tmp_path / "made"), tmp_path, LAST)


@pytest.mark.long
def test_hypervisor_of_v3_2_boots_with_a_region_of_512_mb(tmp_path):
    """The rule memory-boot warns of it: the region is a part of the image there, which not every machine can load."""
    wanted = real.Wanted((3, 2), [machines.PRE0, machines.PRE1], [machines.region("a", 512, *machines.TWO)])
    if real.source(wanted.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
    assert "Start VM" in started(real.made(wanted, tmp_path / "made"), tmp_path, LAST)
