# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

DEVICES = """<acrn-config board="b"><PCI_DEVICE>
\t00:02.0 VGA compatible controller: Intel Corporation (rev 02)
\t00:1f.3 Audio device: 00:05.0 is no device
\tRegion 0: Memory at a0000000
\t01:00.0 Ethernet
</PCI_DEVICE>
<devices><bus type="pci" address="0x0">
  <device address="0x80001"><vendor>0x8086</vendor></device><device address="0x10000"/>
  <device address="0x9ffff"/><device/><device address="here"/><device address="0x200000"/>
  <bus type="pci" address="0x1"><device address="0xa0000"/></bus>
</bus><bus type="pci" address="zero"><device address="0xb0000"/></bus><bus type="usb"><device address="0x3"/></bus>
</devices></acrn-config>"""


def test_a_board_that_is_a_link_which_was_checked_out_as_text():
    with pytest.raises(IvshmemError, match=r"^f: holds only the path \.\./board\.xml: .* make it a link again"):
        read_board(b"../board.xml", "f")


def test_native_is_what_lspci_lists_and_the_others_are_only_named():
    board = read_board(DEVICES.encode(), "f")
    assert [str(bdf) for bdf in board.native] == ["00:02.0", "00:08.1", "00:1f.3", "01:00.0"]
    assert [str(bdf) for bdf in board.named] == ["00:01.0"]
    assert (board.name, board.largest_ram) == ("b", 0)


def test_lspci_with_domains():
    text = DEVICES.replace("\t00:02.0", "\t0000:00:03.0 Display\n\t10000:e0:04.0 NVMe\n\t00:02.0")
    assert [str(bdf) for bdf in read_board(text.encode(), "f").native][:2] == ["00:02.0", "00:03.0"]


def test_ram_is_the_largest_block():
    mib = 1 << 20
    board = read_board(scenarios.board_xml(ram=[(0x1000, 512), (mib, 3 * mib), (64 * mib, 2 * mib)]).encode(), "f")
    assert board.largest_ram == 3


def test_which_version_has_written_a_board():
    old = '<acrn-config board="b"><BIOS_INFO/><PCI_DEVICE/></acrn-config>'
    assert read_board(old.encode(), "f").made_by == ((2, 2), (2, 4))
    assert read_board(old.replace("<BIOS_INFO/>", "").encode(), "f").made_by is None


@pytest.mark.parametrize("text", [scenarios.scenario("v3"), scenarios.launch_xml(), "<board><PCI_DEVICE/></board>"])
def test_no_board(text):
    with pytest.raises(IvshmemError, match=r"^f: is no board XML .* board_inspector\.py"):
        read_board(text.encode(), "f")


@pytest.mark.parametrize("version", ["v2.7", "v3.3"])
def test_boards_of_acrn(version):
    path = scenarios.SHARED / "acrn-data" / version / "whl-ipc-i5" / "whl-ipc-i5.xml"
    if not path.exists():
        pytest.skip(f"no reference data in {scenarios.SHARED}")
    board = read_board(path.read_bytes(), str(path))
    assert board.name == "whl-ipc-i5"
    assert {Bdf(0, 0, 0), Bdf(0, 2, 0), Bdf(0, 0x14, 0)} <= set(board.native)
    assert 1024 < board.largest_ram < 65536
    assert board.made_by[0] == ((2, 5) if version == "v2.7" else (3, 0))
