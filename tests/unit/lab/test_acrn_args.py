# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in reads a command line as acrn-dm does. ACRN_DM=/path/to/acrn-dm (v3.3) compares it with the real one."""

from __future__ import annotations

import os
import re
import subprocess

import acrn_args
import pytest

V27, V33 = (2, 7), (3, 3)

# (arguments, exit code or None, what it says last): noted from an acrn-dm built from ACRN v3.3.
ANSWERS = [
    ("-s 0:0,hostbridge -s 6,virtio-rnd -s 6,ivshmem,dm:/t,2 vm1", 1, "pci slot 6:0 already occupied!"),
    ("-s 6:1,virtio-rnd -s 0.6.1,virtio-rnd vm1", 1, "pci slot 6:1 already occupied!"),
    ("-s 2,pci-gvt vm1", 1, 'The "pci-gvt" parameter is obsolete and ignored'),
    ("-s 40,virtio-rnd vm1", 1, 'Invalid PCI slot info field "40,virtio-rnd"'),
    ("-s 6 vm1", 1, 'Invalid PCI slot info field "6"'),
    ("-s 6, vm1", 1, 'pci slot 6:0: unknown device ""'),
    ("-s x,virtio-rnd vm1", 1, 'Invalid PCI slot info field "x,virtio-rnd"'),
    ("-s 6:8,virtio-rnd vm1", 1, 'Invalid PCI slot info field "6:8,virtio-rnd"'),
    ("-s 300:6:0,virtio-rnd vm1", 1, 'Invalid PCI slot info field "300:6:0,virtio-rnd"'),
    ("-s 6,virtio-foo vm1", 1, 'pci slot 6:0: unknown device "virtio-foo"'),
    ("-s 0x6,virtio-rnd -s 0,hostbridge vm1", 1, "pci slot 0:0 already occupied!"),
    ("-m 64M vm1", 64, "acrn-dm: invalid memsize '64M'"),
    ("-m 512 vm1", 64, "acrn-dm: invalid memsize '512'"),
    ("-m 134217728b vm1", 64, "acrn-dm: invalid memsize '134217728b'"),
    ("-m lots vm1", 64, "acrn-dm: invalid memsize 'lots'"),
    ("-m 1g vm1", None, ""),
    ("-m 0x200MB vm1", None, ""),
    ("-m 01000M vm1", None, ""),
    ("-m 512M averylongvmname1", 1, "The name of the VM exceeds the maximum length: 15"),
    ("-m 512M averylongvmname", None, ""),
    ("-m 512M", 1, "You must provide the name of the Virtual Machine (VM) you want to start. Exiting."),
    ("-m 512M a b", 1, "You must provide the name of the Virtual Machine (VM) you want to start. Exiting."),
    ("vm1 -m 512M", None, ""),
    ("--memsize 64M vm1", 64, "acrn-dm: invalid memsize '64M'"),
    ("--memsize=512M --pci_slot=6,virtio-rnd vm1", None, ""),
    ("-U 495ae2e5-2603-4d64-af76-d4bc5a8ec0e5 vm1", 1, "option -U not recognized"),
    ("-W vm1", 1, "option -W not recognized"),
    ("--foo vm1", 1, "option --foo not recognized"),
    ("-s 6,virtio-rnd -s 6,virtio-rnd --foo vm1", 1, "pci slot 6:0 already occupied!"),
    ("--virtio_poll 0 vm1", 64, "acrn-dm: invalid virtio poll interval 0"),
    ("--virtio_poll 1000000 --rtvm --lapic_pt vm1", None, ""),
    (
        "--lapic_pt vm1",
        None,
        "Only a Realtime VM can use local APIC pass through, '--lapic_pt' is invalid here.",
    ),
    ("--pm_notify_channel foo vm1", 64, "acrn-dm: invalid pm_notify_channel: foo"),
    ("--pm_notify_channel uart vm1", None, 'The "--pm_notify_channel" parameter is obsolete'),
    ("--vsbl y vm1", None, 'The "--vsbl" parameter is obsolete and ignored'),
    ("-G x vm1", None, 'The "-G, --gvtargs" parameter is obsolete and ignored'),
    ("-l com9,stdio vm1", 64, "acrn-dm: invalid lpc device configuration 'com9,stdio'"),
    ("-l COM1,stdio vm1", None, ""),
    ("--cpu_affinity 0,1 --windows vm1", None, ""),
]


def parse(line: str, version: tuple[int, int]) -> tuple[int | None, list[str]]:
    """Exit code (None: acrn-dm goes on) and what it says, in order."""
    said: list[str] = []
    try:
        acrn_args.parse_arguments(line.split(), version, lambda _level, text: said.append(text))
    except acrn_args.Refused as refused:
        if str(refused) not in ("", "usage"):
            said.append(str(refused) if refused.code == 1 else f"acrn-dm: {refused}")
        return refused.code, said
    return None, said


@pytest.mark.parametrize(("line", "code", "words"), ANSWERS)
def test_answers_of_v33(line: str, code: int | None, words: str) -> None:
    got, said = parse(line, V33)
    assert (got, (said or [""])[-1]) == (code, words)


@pytest.mark.skipif("ACRN_DM" not in os.environ, reason="ACRN_DM names no acrn-dm of ACRN v3.3")
@pytest.mark.parametrize(("line", "code", "words"), ANSWERS)
def test_real_acrn_dm(line: str, code: int | None, words: str) -> None:
    """The real one goes on until it misses ACRN's device, and does not share getopt's words for an unknown option."""
    command = [os.environ["ACRN_DM"], *line.split()]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    went_on = "Could not open /dev/acrn_vhm" in done.stdout
    assert (None if went_on else done.returncode) == code
    if not re.match("option .* not recognized", words):
        assert words in done.stdout


def test_v27_reads_what_v33_refuses() -> None:
    line = "-A -m 512M -s 0:0,hostbridge -s 2,pci-gvt -G x -W --ssram -s 6,virtio-hyper_dmabuf vm1"
    assert parse(line, V27) == (None, [])
    assert parse("-U 495ae2e5 vm1", V27)[0] == 1
    assert parse("-U 495ae2e5 vm1", (2, 6)) == (None, [])
    assert parse("--ssram 1 vm1", V27)[0] == 1


def test_functions() -> None:
    line = (
        "-s 2:1,passthru,0/2/0 -s 10,ivshmem,hv:/a,2,7 -s 3,virtio-blk,b,/disk.img -s 4,virtio-net,tap=t,mac_seed=x v"
    )
    arguments = acrn_args.parse_arguments(line.split(), V33, lambda *_: None)
    assert [(f.bdf, f.device, f.options) for f in arguments.functions] == [
        ("00:02.1", "passthru", "0/2/0"),
        ("00:0a.0", "ivshmem", "hv:/a,2,7"),
        ("00:03.0", "virtio-blk", "/disk.img"),
        ("00:04.0", "virtio-net", "tap=t,mac_seed=x"),
    ]
    assert arguments.vm == "v"
    assert arguments.memory == 256 << 20


@pytest.mark.parametrize(
    ("options", "version", "wanted"),
    [
        ("dm:/test,2", V33, acrn_args.Ivshmem(False, "test", 2 << 20, 0)),
        ("hv:/shm_region_0,512,4096", V33, acrn_args.Ivshmem(True, "shm_region_0", 512 << 20, 4096)),
        ("hv:/shm_region_0,2,4096", (3, 2), acrn_args.Ivshmem(True, "shm_region_0", 2 << 20, 0)),
        ("dm:/a,2,0x1000", V33, acrn_args.Ivshmem(False, "a", 2 << 20, 0)),
        ("dm:/a,2MB", V33, acrn_args.Ivshmem(False, "a", 2 << 20, 0)),
        ("dm:/a,4098", V33, acrn_args.Ivshmem(False, "a", 2 << 20, 0)),
        ("dm:/a,1", V33, None),
        ("dm:/a,3", V33, None),
        ("dm:/a,1024", V33, None),
        ("dm:/a", V33, None),
        ("/a,2", V33, None),
        (None, V33, None),
    ],
)
def test_ivshmem_options(options: str | None, version: tuple[int, int], wanted: acrn_args.Ivshmem | None) -> None:
    said: list[str] = []
    assert acrn_args.parse_ivshmem(options, version, lambda _level, text: said.append(text)) == wanted
    assert bool(said) == (wanted is None)


def test_versions() -> None:
    assert acrn_args.parse_version("v3.3") == V33
    assert acrn_args.parse_version("2.7.1") == V27
    with pytest.raises(ValueError, match="no ACRN version"):
        acrn_args.parse_version("master")
