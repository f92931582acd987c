# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows a machine: ACRN's console as it boots and lists its VMs, and what the VMs found in their regions.

``show.py FOLDER`` is what script/demo runs with ``ACRN_DEMO_REAL=yes``; the console stays in FOLDER/run/serial.log.
"""

from __future__ import annotations

import sys
from pathlib import Path

import emulator
import image
import machines
import real

CASE = machines.TWO_PRE_LAUNCHED


def console(line: str) -> None:
    """Print a line of the console. What the VMs say for the tests is told in the end, in words."""
    if line.strip() and "acrn-test: {" not in line:
        print(f"  | {line}", flush=True)


def found(built: real.Built, told: real.Told) -> list[str]:
    """What each VM found in each region, a line each."""
    names = [vm.name for vm in built.wanted.vms]
    lines = []
    for region in built.regions:
        for vm in region["vms"]:
            said = told.regions[vm["id"], region["name"]]
            function = said["function"]
            arrived = [names[each["from"]] for each in said["bytes"]["read"] if each["same"] and not each["problems"]]
            rung = sum(sum(bell.get("counts") or []) for bell in said["bells"] or [])
            lines.append(
                f"{vm['name']}: {region['name']} of {function['size']} MB at {function['bdf']}, "
                f"bytes from {' and '.join(arrived) or 'nobody'}, {rung} doorbells"
            )
    return lines


def main(folder: Path) -> None:
    missing = " ".join(filter(None, (emulator.missing(), image.missing())))
    if missing:
        raise SystemExit(f"Debian packages are missing: {missing}")
    print("The collection writes the regions into the scenario and builds the hypervisor", flush=True)
    built = real.made(CASE, folder)
    print(f"{built.artifact}/acrn.bin boots in the emulator", flush=True)
    told = real.boot(built, folder, shown=console, commands=["vm_list"])
    print("", *found(built, told), f"{told.cpu:.0f} s of processor time", sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
