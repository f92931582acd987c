# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of the scenario file, and of what is known of the ACRN that it is for.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import FIRST, LAST, V2_LAST, V3_FIRST, spelt
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import some
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import (
    ERROR,
    WARNING,
    Context,
    Hit,
    Rules,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V3

RULES = Rules()


@RULES.add(
    "version-dialect",
    ERROR,
    "The ACRN version speaks the dialect of the scenario.",
    "upgrade the scenario with ACRN's own tools, or correct acrn_version",
    "v3.0 renamed the elements of the scenario XML; upgrader.py is its own migration",
)
def _version_dialect(context: Context) -> Iterator[Hit]:
    if context.version and (context.version >= V3_FIRST) != (context.scenario.dialect == V3):
        dialect = "v3.x" if context.scenario.dialect == V3 else "v2.x"
        yield Hit(f"{context.scenario.where} is a {dialect} scenario, but acrn_version is {spelt(context.version)}")


@RULES.add(
    "version-range",
    WARNING,
    f"ACRN versions from {spelt(FIRST)} to {spelt(LAST)} are known.",
    "check the result with care",
    "earlier versions have no ivshmem in the hypervisor",
    since=(0, 0),
)
def _version_range(context: Context) -> Iterator[Hit]:
    if context.version and not FIRST <= context.version <= LAST:
        yield Hit(f"acrn_version is {spelt(context.version)}")


@RULES.add(
    "version-unknown",
    WARNING,
    "The ACRN version is known.",
    "set acrn_version, or keep the scenario in an ACRN tree with its VERSION file",
    "limits and the memory budget differ between versions",
)
def _version_unknown(context: Context) -> Iterator[Hit]:
    if context.version is None and context.regions:
        yield Hit("the ACRN version is not known, so rules that hold for some versions only warn")


@RULES.add(
    "root-line",
    WARNING,
    "The root start tag stands alone on its line.",
    "write <acrn-config ...> on one line, with a line end behind it",
    "hypervisor/scripts/makefile/config.mk rewrites that line with sed, which loses what else is on it",
    since=V3_FIRST,
)
def _root_line(context: Context) -> Iterator[Hit]:
    document = context.scenario.document
    line, end_of_line, _rest = document.source[document.root.start :].partition(b"\n")
    tag = document.source[document.root.start : document.root.body]
    if line.rstrip() != tag or not end_of_line:
        yield Hit(f"{context.scenario.where}: the root start tag shares its line, or has several; the build breaks it")


@RULES.add(
    "region-unreadable",
    WARNING,
    "Every region of the file can be read, and none is there twice.",
    "correct or remove it; state exact replaces all regions",
    "state present leaves alone what it does not understand, and ACRN's build may fail on it",
)
def _region_unreadable(context: Context) -> Iterator[Hit]:
    document = context.scenario.document
    lines = [document.line(node) for node in context.scenario.block.unreadable]
    for line in lines[:10]:
        yield Hit(f"{document.where}: line {line} holds a region that is not readable, or there twice")
    if len(lines) > 10:
        yield Hit(f"{document.where}: so do {len(lines) - 10} more lines")


@RULES.add(
    "region-disabled",
    WARNING,
    "Up to v2.7 a scenario that lists regions has IVSHMEM_ENABLED y.",
    "declare those that you want, and remove the lines of the others",
    "else the hypervisor is built without regions (CONFIG_IVSHMEM_ENABLED in hypervisor/dm/vpci/ivshmem.c)",
    until=V2_LAST,
)
def _region_disabled(context: Context) -> Iterator[Hit]:
    scenario = context.scenario
    names = [region.name for region in scenario.regions if region.name not in context.declared]
    element = scenario.block.element
    if element and names and not scenario.enabled:
        wanted = {region.name for region in context.regions}
        line = scenario.document.line(element.first("IVSHMEM_ENABLED") or element)
        switch = f"{scenario.where}: IVSHMEM_ENABLED (line {line}) is not y"
        if wanted.intersection(names):
            yield Hit(f"{switch}, and the declared regions switch on what else the file lists: {some(names)}")
        else:
            yield Hit(f"{switch}, so ACRN ignores what the file lists: {some(names)}")
