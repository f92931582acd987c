# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _linux as linux


def test_kernel_with_hsm_named_for_acrn_comes_first():
    configs = {
        "6.1.0-9-amd64": "CONFIG_ACRN_HSM=m\n",
        "6.1.0-10-amd64": "CONFIG_ACRN_HSM=m\n",
        "5.15.0-acrn-service-vm": "CONFIG_ACRN_HSM=y\n",
        "6.8.0": "# CONFIG_ACRN_HSM is not set\n",
        "5.4.0-acrn": "CONFIG_ACRN_VHM=y\n",
    }
    assert linux.service_vm_kernels(configs, linux.drivers("3.3")) == [
        "5.15.0-acrn-service-vm",
        "6.1.0-10-amd64",
        "6.1.0-9-amd64",
    ]
    assert linux.service_vm_kernels(configs, linux.drivers("v2.7"))[1] == "5.4.0-acrn"


@pytest.mark.parametrize(
    ("cmdline", "initrd", "found"),
    [
        ("quiet root=a ro root=b splash", True, ["root=b"]),
        ("rootwait root=a rootflags=x rootflags=y", False, ["root=a", "rootflags=y", "rootwait"]),
        ("rd.luks.uuid=1 root=a rd.luks.uuid=2 rd.luks.uuid=1", True, ["root=a", "rd.luks.uuid=1", "rd.luks.uuid=2"]),
        ("rd.luks.uuid=1 root=a cryptdevice=x", False, ["root=a"]),
        ("quiet", True, []),
        # A kernel by itself mounts its root read-only, and who mounts no root later may be without a fstab.
        ("root=a ro rw", True, ["root=a", "rw"]),
        ("rw root=a ro", True, ["root=a"]),
    ],
)
def test_root_arguments(cmdline, initrd, found):
    assert linux.root_arguments(cmdline.split(), initrd) == found


@pytest.mark.parametrize("before", ["root=a ro", "rw root=a rootflags=x rd.lvm.lv=1 rd.lvm.lv=2 rootfstype=btrfs"])
@pytest.mark.parametrize("scenario", ["", "rw rootwait root=/dev/nvme0n1p2 rootfstype=ext4 rootflags=x rd.lvm.lv=1"])
@pytest.mark.parametrize("chosen", ["", "ro rootdelay=3", "root=b rootflags=y rd.lvm.lv=2 rw"])
def test_root_arguments_are_the_same_once_the_entry_runs(before, scenario, chosen):
    def entry(running):
        return linux.root_arguments(running.split(), True, scenario.split(), chosen.split())

    first = entry(before)
    again = entry(" ".join([scenario, *first, "panic=60", chosen]))
    # The root itself is named by the caller.
    assert again[1:] == first[1:]


def test_release_of_a_kernel():
    assert linux.release("vmlinuz-6.1.80-acrn") == "6.1.80-acrn"
    assert linux.release("bzImage") == ""
    assert linux.release_of_image(b"\x7fELF" + bytes(4096)) == ""
    assert linux.release_of_image(b"") == ""


def test_own_arguments():
    words = (
        "BOOT_IMAGE=/k root=UUID=r ro hugepages=10 rd.luks.uuid=1 rootflags=x panic=5 $extra console=a console=b -- x"
    )
    assert linux.own_arguments(words.split()) == ["ro", "hugepages=10", "console=a", "console=b"]
    assert linux.lacking(words.split(), {"ro", "console=b"}) == ["hugepages=10", "console=a"]
