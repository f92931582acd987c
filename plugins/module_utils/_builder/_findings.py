# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ACRN's tools say while they run, and what they mean by it.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

_WIDTH = 2000
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LOGGED = re.compile(r"(CRITICAL|ERROR|WARNING):[\w.]*:(.*)")
_SUMMARY = re.compile(r"Board .* and scenario .* are (potentially )?inconsistent")
# Only announces the lines that follow.
_OLD_FAILURE = "Scenario xml file validation failed"
_RAISED = re.compile(r"\w+(\.\w+)*(Error|Exception|Exit|Interrupt)\b.*")
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_TROUBLE = re.compile(
    r"(: (fatal )?error: |undefined reference|multiple definition of|^Failed to |not found$|\*\*\* "
    # The assembler, the linker (ld and lld), and xmlschema, whose exceptions go on for lines.
    r"|value 0x[0-9a-f]+ truncated|will not fit in region|overflowed by|cannot move location counter|^(Reason|Path): "
    # ACRN's check of the VMs before it compiles (misc/hv_prebuild).
    r"|^sanitize_vm_config\b|exceed the max clos|configuration check fail!)"
)
# The linker says it of every place that reaches too far.
_REACH = re.compile(r"relocation truncated to fit|relocation R_X86_64_\w+ out of range")
# What some of these lines mean for whoever declares regions.
_MEANING = (
    (
        re.compile(r"will not fit in region|overflowed by"),
        "the hypervisor with its regions is larger than its memory; make regions smaller or fewer, and empty "
        "HV_RAM_SIZE in the scenario if it is set",
    ),
    (
        re.compile(_REACH.pattern + r"|value 0x[0-9a-f]+ truncated"),
        "the hypervisor with its regions got a place that is too high for it; make regions smaller or fewer, for the "
        "board has no lower range of RAM that holds them",
    ),
    (
        re.compile(r"undefined reference to `vm\d+_pci_devs'"),
        "v2.2 makes no list of devices for a pre-launched VM with a region and without a passthrough device; give it "
        "one in pci_devs, take it out of the region, or build v2.3 or later",
    ),
)


@dataclass(frozen=True)
class Findings:
    """What ACRN's validator said: errors and warnings, and whether it did not run at all."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    skipped: bool


def _lines(text: str) -> list[str]:
    # Nobody reads more of a line, and the patterns below would try again and again in it.
    return [line[:_WIDTH] for line in _COLOUR.sub("", text).splitlines()]


def read_findings(text: str) -> Findings:
    """Pick the validator's own lines out of the output of make.

    v3.x logs ``SEVERITY:root:/path: message`` (scenario_config/validator.py); up to v2.7 scenario_cfg_gen.py prints one
    line that tells of the failure and then an ``Error: key: message`` line for each finding.
    """
    errors: list[str] = []
    warnings: list[str] = []
    skipped = False
    for line in _lines(text):
        logged = _LOGGED.match(line)
        if "is not installed" in line and "Python package" in line:
            skipped = True
        elif logged and not _SUMMARY.search(line):
            (warnings if logged.group(1) == "WARNING" else errors).append(logged.group(2).strip())
        elif line.startswith("Error: ") and _OLD_FAILURE not in line:
            errors.append(line[len("Error: ") :].strip())
        elif line.startswith("Warning: "):
            warnings.append(line[len("Warning: ") :].strip())
    return Findings(tuple(dict.fromkeys(errors)), tuple(dict.fromkeys(warnings)), skipped)


def telling_lines(text: str, limit: int = 15) -> list[str]:
    """The lines of a log that tell why a build failed: compiler errors, the ends of tracebacks, make's last words."""
    lines = [line.strip() for line in _lines(text)]
    chosen, place, reach = [], "", False
    for line in lines:
        frame = _FRAME.match(line)
        if frame:
            place = f" ({os.path.basename(frame.group(1))} line {frame.group(2)})"
        elif _RAISED.fullmatch(line):
            chosen.append(line[:400] + place)
            place = ""
        elif _TROUBLE.search(line) or (_REACH.search(line) and not reach):
            chosen.append(line[:400])
            reach = reach or bool(_REACH.search(line))
    chosen = list(dict.fromkeys(chosen)) or [line[:400] for line in lines if line][-5:]
    return chosen if len(chosen) <= limit else [*chosen[: limit - 1], chosen[-1]]


def meaning(lines: Iterable[str]) -> str:
    """What telling lines mean, to stand behind the words that a build failed; empty where they speak for themselves."""
    lines = tuple(lines)
    return next((f": {text}" for found, text in _MEANING if any(found.search(line) for line in lines)), "")
