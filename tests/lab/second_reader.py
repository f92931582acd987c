# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second pair of eyes on a scenario XML that the collection wrote: lxml and XPath, and nothing of the collection.

    second_reader.py BEFORE AFTER REGIONS

BEFORE and AFTER are scenario files, REGIONS is the JSON of what a declaration says: a list of mappings with name, size
(MB), and where they matter provided_by, region_id and vms (names, v2.x: IDs; or mappings with name and vbdf). Says what
is wrong and ends with 1: a region that is not in AFTER as declared, one that nobody declared, anything outside the
IVSHMEM element that is not as in BEFORE.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Mapping, Sequence

from lxml import etree  # type: ignore[import-untyped]

BLOCK = "/acrn-config/hv/FEATURES/IVSHMEM"
PROVIDERS = {"Hypervisor": "hypervisor", "Device Model": "device_model"}

Found = dict[str, dict[str, Any]]


def _tree(data: bytes) -> Any:
    return etree.fromstring(data, etree.XMLParser(resolve_entities=False)).getroottree()


def outside(data: bytes) -> str:
    """The canonical form (C14N) of all but the IVSHMEM element and the blanks around it."""
    tree = _tree(data)
    for block in tree.xpath(BLOCK):
        parent, before = block.getparent(), block.getprevious()
        tail = block.tail or ""
        parent.remove(block)
        if before is None:
            parent.text = (parent.text or "").rstrip() + tail.lstrip()
        else:
            before.tail = (before.tail or "").rstrip() + tail.lstrip()
    for features in tree.xpath("/acrn-config/hv/FEATURES"):
        last = features[-1] if len(features) else None
        if last is not None and not (last.tail or "").strip():
            last.tail = ""
    return str(etree.tostring(tree, method="c14n2", with_comments=True).decode())


def _text(element: Any, path: str) -> str:
    """The text at a path, "" where nothing is."""
    return str(element.xpath(f"string({path})")).strip()


def regions(data: bytes) -> Found:
    """The regions of a scenario by their names: size, provided_by, region_id, vms (name or ID: vBDF)."""
    tree = _tree(data)
    found: Found = {}
    for region in tree.xpath(f"{BLOCK}/IVSHMEM_REGION"):
        if len(region):
            name = _text(region, "NAME")
            row = {
                "size": int(_text(region, "IVSHMEM_SIZE")),
                "provided_by": PROVIDERS[_text(region, "PROVIDED_BY") or "Hypervisor"],
                "region_id": int(_text(region, "IVSHMEM_REGION_ID") or "0", 0),
                "vms": {_text(vm, "VM_NAME"): _text(vm, "VBDF") for vm in region.xpath("IVSHMEM_VMS/IVSHMEM_VM")},
            }
        elif (region.text or "").strip():
            name, size, vms = (part.strip() for part in region.text.split(","))
            name = name.removeprefix("hv:/")
            row = {"size": int(size), "provided_by": "hypervisor", "region_id": 0, "vms": dict.fromkeys(vms.split(":"))}
        else:
            continue
        if name in found:
            raise ValueError(f"region {name!r} is there twice")
        found[name] = row
    return found


def problems(before: bytes, after: bytes, declared: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a file that was written for a declaration; nothing where all is right."""
    found = regions(after)
    wrong = [f"region {name!r} is declared by nobody" for name in found if name not in {r["name"] for r in declared}]
    for region in declared:
        name = region["name"]
        if name not in found:
            wrong.append(f"region {name!r} is missing")
            continue
        for key in ("size", "provided_by", "region_id"):
            if region.get(key) is not None and found[name][key] != region[key]:
                wrong.append(f"region {name!r}: {key} is {found[name][key]}, not {region[key]}")
        wanted = [vm if isinstance(vm, Mapping) else {"name": vm} for vm in region["vms"]]
        names = [str(vm["name"]) for vm in wanted]
        if sorted(names) != sorted(found[name]["vms"]):
            wrong.append(f"region {name!r}: its VMs are {sorted(found[name]['vms'])}, not {sorted(names)}")
            continue
        for vm in wanted:
            place = found[name]["vms"][str(vm["name"])]
            if vm.get("vbdf") and place != vm["vbdf"]:
                wrong.append(f"region {name!r}: in {vm['name']} it is at {place}, not {vm['vbdf']}")
    if outside(before) != outside(after):
        wrong.append("something outside the IVSHMEM element is not as it was")
    return wrong


def main(before: str, after: str, declared: str) -> int:
    wrong = problems(Path(before).read_bytes(), Path(after).read_bytes(), json.loads(declared))
    print("\n".join(wrong) or f"{after} is as declared, and else as {before}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
