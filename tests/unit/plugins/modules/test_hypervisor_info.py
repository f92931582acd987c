# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that nothing was installed on; what it tells after that is in the tests of hypervisor_install."""

from __future__ import annotations

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._host import Host
from ansible_collections.acrn.ivshmem.plugins.modules import hypervisor_info


def test_a_host_without_a_build_of_ours(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_text("BOOT_IMAGE=/vmlinuz root=/dev/sda1\n")
    (tmp_path / "boot/grub").mkdir(parents=True)
    result = hypervisor_info.look(Host(lambda words: (0, "", ""), str(tmp_path), True))
    nothing = ("running", "running_key", "default", "default_key", "next", "previous", "trial")
    assert [name for name in nothing if result[name] is not None] == []
    assert (result["builds"], result["history"], result["refused"]) == ([], [], {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["boot", "cmdline", "grub", "proc"]
