# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Subsystem IDs inside a QEMU that has not begun, as QEMU itself tells them afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import acrn_args
import acrn_dm
import labstate
import pytest
import subsystem

QEMU = ["qemu-system-x86_64", "-S", "-M", "q35,sata=off", "-m", "64M", "-nodefaults", "-display", "none"]


@pytest.mark.skipif(not shutil.which(QEMU[0]), reason="needs QEMU")
def test_each_function_gets_its_own() -> None:
    command = [*QEMU, "-qmp", "stdio"]
    for number, slot in enumerate((6, 5, 7)):
        command += ["-object", f"memory-backend-ram,id=m{number},size=2M"]
        command += ["-device", f"ivshmem-plain,memdev=m{number},addr={slot:#x}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdin and qemu.stdout

        def ask(what: str) -> Any:
            print(json.dumps({"execute": what}), file=qemu.stdin, flush=True)
            return json.loads(qemu.stdout.readline())["return"]  # type: ignore[union-attr]

        try:
            assert "QMP" in qemu.stdout.readline()
            ask("qmp_capabilities")
            assert ask("query-status")["status"] == "prelaunch"
            wanted = {6 << 3: (0x8086, 0x1000), 5 << 3: (0x8086, 0x1001), 9 << 3: (0x8086, 0x1002)}
            assert subsystem.write(qemu.pid, wanted) == [9 << 3]
            (bus,) = ask("query-pci")
        finally:
            qemu.kill()
    ids = {each["slot"]: (each["id"]["subsystem-vendor"], each["id"]["subsystem"]) for each in bus["devices"]}
    assert (ids[6], ids[5], ids[7]) == ((0x8086, 0x1000), (0x8086, 0x1001), (0x1AF4, 0x1100))


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ((3, 3), {0x30: (0x8086, 4096), 0x28: (0x8086, 4097), 0x38: (0x8086, 0)}),
        ((3, 2), dict.fromkeys((48, 40, 56), (0, 0))),
    ],
)
def test_what_acrn_of_each_version_writes(version: tuple[int, int], wanted: dict[int, tuple[int, int]]) -> None:
    regions = [labstate.HvRegion("a", 2, {}, 4096)]
    shared = {}
    # The number in "-s" does not count for hv-land, and a missing one is 0.
    for slot, options in ((6, "hv:/a,2,7"), (5, "dm:/b,2,4097"), (7, "dm:/c,2")):
        device = acrn_args.parse_ivshmem(options, version, lambda *_: None)
        assert device
        shared[acrn_args.Function(0, slot, 0, "ivshmem", options)] = device
    assert acrn_dm.subsystem_ids(shared, regions, version) == wanted
