# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-in for ACRN's config tools and compiler, for tests. Usage: configure | build; the rest is environment."""

from __future__ import annotations

import os
import sys
import time
from xml.etree import ElementTree

OUT = os.environ["HV_OBJDIR"]
FAULT = os.environ.get("STANDIN_FAULT")
MULTIBOOT2 = b"\xd6\x50\x52\xe8\0\0\0\0"


def regions_of(scenario: ElementTree.Element) -> list[tuple[str, int, int]]:
    """Name with prefix, size in MB and region ID of each region that the hypervisor provides."""
    found = []
    block = scenario.find("hv/FEATURES/IVSHMEM")
    for region in block.findall("IVSHMEM_REGION") if block is not None else []:
        if len(region):
            if region.findtext("PROVIDED_BY", "Hypervisor") == "Hypervisor":
                size, number = region.findtext("IVSHMEM_SIZE", "2"), region.findtext("IVSHMEM_REGION_ID", "0")
                found.append((f"hv:/{region.findtext('NAME')}", int(size), int(number, 0)))
        elif (region.text or "").strip() and block is not None and block.findtext("IVSHMEM_ENABLED") == "y":
            name, size = region.text.split(",")[:2]
            found.append((name.strip(), int(size), 0))
    return found


def write(name: str, data: bytes) -> None:
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as handle:
        handle.write(data)


def configure(name: str, scenario: ElementTree.Element) -> None:
    if FAULT == "crash":
        frame = '  File "standin.py", line 1, in <module>'
        print(f"Traceback (most recent call last):\n{frame}\nKeyError: 1", file=sys.stderr)
        return
    folder = f"configs/scenarios/{name}"
    found = regions_of(scenario)
    lines = [f'#define IVSHMEM_SHM_REGION_{index} "{region[0]}"' for index, region in enumerate(found)]
    lines.append("#define IVSHMEM_SHM_REGIONS \\")
    for index, (_name, size, number) in enumerate(found[:-1] if FAULT == "drop" else found):
        lines.append(
            f"{{ .name = IVSHMEM_SHM_REGION_{index}, .region_id = {number}, .size = {hex(size << 20)}UL, }}, \\"
        )
    write(f"{folder}/ivshmem_cfg.h", ("\n".join(lines) + "\n\n").encode())
    for file in ("vm_configurations.c", "pt_intx.c", "pci_dev.c", "misc_cfg.h"):
        write(f"{folder}/{file}", b"/* stand-in */\n")
    write("configs/boards/board_info.h", b"/* stand-in */\n")
    release = os.environ.get("RELEASE") or "n"
    write("configs/config.mk", f"CONFIG_SCENARIO={name}\nCONFIG_RELEASE={release}\n".encode())


def build(name: str, board: str, scenario: ElementTree.Element) -> int:
    if os.environ.get("STANDIN_RUNS"):
        with open(os.environ["STANDIN_RUNS"], "a", encoding="utf-8") as handle:
            handle.write(f"{name}\n")
    write("acrn.32.out", b"stand-in, half written")
    time.sleep(float(os.environ.get("STANDIN_DELAY") or 0))
    if FAULT == "compile":
        print("common/hv_main.c:1:1: error: the stand-in was told to fail", file=sys.stderr)
        return 1
    if FAULT == "empty":
        return 0
    words = ["This is a stand-in and not ACRN.", board, name, os.environ["USER"], os.environ["SOURCE_DATE_EPOCH"]]
    words += ["hv:/of_yesterday"] if FAULT == "stale" else [region[0] for region in regions_of(scenario)]
    body = b"".join(word.encode() + b"\0" for word in words)
    write("acrn.bin", (b"" if FAULT == "magic" else MULTIBOOT2) + body)
    write("acrn.32.out", b"\x7fELF" + body)
    write("acrn.out", b"\x7fELF" + body)
    for vm in scenario.findall("vm"):
        if "PRE_" in (vm.findtext("load_order") or vm.findtext("vm_type") or ""):
            write(f"acpi/ACPI_VM{vm.get('id')}.bin", b"stand-in")
    return 0


def main() -> int:
    scenario = ElementTree.parse(os.environ["SCENARIO"]).getroot()
    name = os.path.basename(os.environ["SCENARIO"])[: -len(".xml")]
    board = ElementTree.parse(os.environ["BOARD"]).getroot().get("board", "")
    if sys.argv[1] == "configure":
        configure(name, scenario)
        return 0
    return build(name, board, scenario)


if __name__ == "__main__":
    sys.exit(main())
