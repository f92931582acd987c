# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether what was built is what was asked for.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import HEADER, BuildError, BuiltRegion, Plan
from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import V3_FIRST
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import walk
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, some


def read_header(text: str) -> tuple[BuiltRegion, ...]:
    """The regions of a generated ivshmem_cfg.h. Raises IvshmemError for one that cannot be read."""
    names = dict(re.findall(r'^#define\s+(IVSHMEM_SHM_REGION_\d+)\s+"([^"]*)"', text, re.MULTILINE))
    regions = []
    body = text.partition("IVSHMEM_SHM_REGIONS")[2]
    for block in re.findall(r"\{([^{}]*)\}", body):
        values = dict(re.findall(r"\.(\w+)\s*=\s*([^,\s]+)", block))
        try:
            size = int(re.sub(r"[UL]+$", "", values["size"]), 16)
            region_id = int(values.get("region_id") or "0", 0)
            regions.append(BuiltRegion(names[values["name"]], size, region_id))
        except (KeyError, ValueError) as exc:
            raise IvshmemError(f"the generated {HEADER} has a region that cannot be read: {block.strip()}") from exc
    return tuple(regions)


def compare_regions(wanted: Iterable[BuiltRegion], found: Iterable[BuiltRegion], what: str, todo: Plan) -> None:
    missing = sorted(map(str, set(wanted) - set(found)))
    extra = sorted(map(str, set(found) - set(wanted)))
    if missing or extra or len(list(wanted)) != len(list(found)):
        parts = [f"missing: {some(missing, between='; ')}"] if missing else []
        parts += [f"not asked for: {some(extra, between='; ')}"] if extra else []
        hint = ""
        if missing and not extra and todo.tree.version >= V3_FIRST:
            hint = (
                ". ACRN leaves out an IVSHMEM_REGION element without white space between its children "
                "(xforms/ivshmem_cfg.h.xsl tests text()): write each child on a line of its own"
            )
        details = ", ".join(parts) or "a region twice"
        raise BuildError(f"{todo.request.scenario}: {what} does not hold the regions of the scenario ({details}){hint}")


def read_text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as handle:
        return handle.read()


def find_files(out: str, name: str) -> list[str]:
    return [os.path.join(folder, name) for folder, _folders, names in walk(out) if name in names]


_MAGICS = {"multiboot2": b"\xd6\x50\x52\xe8", "multiboot": b"\x02\xb0\xad\x1b"}


def check_binary(data: bytes, todo: Plan) -> None:
    """Prove from the bytes of acrn.bin that it can be booted and is of this board, scenario and these regions.

    A boot loader looks for its magic at aligned places of the first 32 KiB (multiboot) or 8 KiB. Raises BuildError.
    """
    start = data[:32768]
    if not any(start[place : place + 4] in _MAGICS.values() for place in range(0, len(start) - 3, 4)):
        raise BuildError("acrn.bin has no multiboot header: GRUB could not load it")
    for what, text in (("board", todo.board_name), ("scenario", todo.name)):
        if text.encode() + b"\0" not in data:
            raise BuildError(f"acrn.bin does not carry the {what} name '{text}'")
    found = {match.decode() for match in re.findall(rb"[hd][mv]:/\w{1,28}(?=\0)", data)}
    wanted = {region.name for region in todo.regions}
    if found != wanted:
        raise BuildError(
            f"acrn.bin holds the regions {sorted(found) or 'none'}, the scenario asks for {sorted(wanted)}"
        )
