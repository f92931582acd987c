# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trial boot of a hypervisor that panics: real ACRN, and real GRUB on a disk as hypervisor_install has left it.

The machine is switched off and on again after the panic, since ACRN's debug build stops there. Some 10 s of processor
time for each of the two boots.
"""

from __future__ import annotations

import os

import emulator
import image
import machines
import pytest
import real

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _grub
from ansible_collections.acrn.ivshmem.tests.unit.plugins.modules.test_hypervisor_install import Machine

pytestmark = pytest.mark.skipif(
    not os.environ.get("ACRN_SRC"), reason="no ACRN source: set ACRN_SRC to a clone with its tags, or to a tree"
)

HOST_ENTRY = "menuentry 'Host' --id host {\n\techo 'GRUB: the host without ACRN'\n}\n"


class Disk(Machine):
    """The root directory of the unit tests, whose boot loader and hypervisor are real here."""

    def __init__(self, root):
        super().__init__(root)
        (root / "boot/grub/grub.cfg").write_text(image.menu(HOST_ENTRY))
        self.path = root.with_name("disk.img")

    def command(self, words):
        if list(words[:2]) == ["grub-probe", "--target=fs_uuid"]:
            return 0, image.DISK_UUID + "\n", ""
        return super().command(words)

    def written(self):
        image.disk(self.path, self.root, emulator.CYLINDER)

    def power_on(self, folder, pattern):
        """Boot the disk, wait for a line on the console, and switch off. Returns the line; the disk is read back."""
        with emulator.Emulator(folder, self.path, machines.LAUNCHED.machine) as machine:
            found = machine.wait(pattern, 120)
            print(f"{found.group()!r} after {machine.cpu():.0f} CPU s")
        (self.root / "boot/grub/grubenv").write_bytes(image.read_disk(self.path, "/boot/grub/grubenv"))
        return found.group()


def test_trial_of_a_hypervisor_that_panics_comes_back_to_the_host(tmp_path):
    wanted = machines.LAUNCHED
    if real.source(wanted.version) is None:
        pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
    built = real.made(wanted, tmp_path / "made")
    disk = Disk(tmp_path / "root")
    armed = disk.call(artifact=built.artifact, trial=True)
    assert armed["outcome"] == "armed", armed
    disk.written()

    # The page that plays the registers of VT-d is filled by GRUB in the other tests; here nobody fills it.
    disk.power_on(tmp_path / "first", r"PANIC: [^\n]*\n")
    env = disk.env()
    assert env.get(_grub.NEXT, "") == ""
    assert env[_grub.TRIED] == armed["entry"]

    assert "the host without ACRN" in disk.power_on(tmp_path / "second", r"GRUB: the host[^\n]*\n")
    disk.run_entry(None)
    result = disk.call(artifact=built.artifact, trial=True)
    assert (result["failed"], result["outcome"], result["default"]) == (True, "fell_back", None)
    assert disk.info()["refused"].keys() == {armed["entry"]}
