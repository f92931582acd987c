# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A build as it reaches a host: its manifest, and which of its files go there.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _entries as core
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

IMAGE = "acrn.bin"
MANIFEST = "manifest.json"
BOARD = "board.xml"
SCENARIO = "scenario.xml"
_BOOT_FILES = re.compile(r"acrn\.bin|acpi/ACPI_VM[0-9]{1,2}\.bin|serial\.conf|scenario\.xml|board\.xml")


@dataclass(frozen=True)
class Artifact:
    """A build: its manifest, and the scenario that is compiled in."""

    key: str
    manifest: Mapping[str, Any]
    scenario: bytes

    @property
    def version(self) -> str:
        """The version of ACRN, such as 3.3; empty where the manifest does not say it."""
        return str(self.manifest.get("version") or "")

    @property
    def files(self) -> dict[str, Mapping[str, Any]]:
        """What goes to the host: path -> size and sha256."""
        return {name: facts for name, facts in self.manifest["outputs"].items() if _BOOT_FILES.fullmatch(name)}

    @classmethod
    def parse(cls, manifest: str, scenario: bytes) -> Artifact:
        """From what both files hold. Raises IvshmemError."""
        try:
            value = json.loads(manifest)
            key = core.check_key(str(value["key"]))
            for name, facts in value["outputs"].items():
                # To Python, true is the number 1.
                sized = isinstance(facts["size"], int) and not isinstance(facts["size"], bool)
                if not re.fullmatch(r"[0-9a-f]{64}", facts["sha256"]) or not sized:
                    raise ValueError(f"{name} has no digest, or no size")
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as exc:
            raise IvshmemError(f"{MANIFEST} of the artefact is not what hypervisor_build writes: {exc}") from exc
        made = cls(key, value, scenario)
        for name in (IMAGE, SCENARIO):
            if name not in made.files:
                raise IvshmemError(f"{MANIFEST} of the artefact {key} lists no {name}; build it again")
        return made
