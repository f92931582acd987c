# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A build: what is asked for, what a tree is, and the plan that comes of it.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Sequence, Tuple

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

Version = Tuple[int, int]
MARKER = ".acrn-ivshmem-build"
MANIFEST = "manifest.json"
# In every artefact, whatever else.
IMAGE, LOG = "acrn.bin", "build.log"
HEADER = "ivshmem_cfg.h"


class BuildError(IvshmemError):
    """A build or validation that failed. ``lines`` is what ACRN's tools said, ``log`` the file with all of it."""

    def __init__(self, message: str, lines: Sequence[str] = (), log: str | None = None) -> None:
        super().__init__(message)
        self.lines = list(lines)
        self.log = log


@dataclass(frozen=True)
class Request:
    """What the user asks for. Paths are absolute; ``environment`` and ``make_args`` come on top of the module's own."""

    source: str
    board: str
    scenario: str
    artifacts_dir: str
    work_dir: str
    scenario_content: str | None = None
    name: str | None = None
    release: bool | None = None
    make_args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 1
    python: str | None = None
    ccache: bool | None = None


@dataclass(frozen=True)
class Tree:
    """An ACRN source tree: version, content digest, and what its tools need."""

    path: str
    version: Version
    version_text: str
    digest: str
    programs: tuple[str, ...]
    libraries: tuple[str, ...]
    compiles: bool
    git: Mapping[str, Any] | None

    @property
    def kconfig(self) -> bool:
        """Whether this is v2.2 or v2.3, where make takes the XML files by other names and in three steps."""
        return self.version < (2, 4)


@dataclass(frozen=True)
class BuiltRegion:
    """A hypervisor region as it is compiled in: name with prefix, size in bytes, region ID (0 where there is none)."""

    name: str
    size: int
    region_id: int = 0

    def __str__(self) -> str:
        return f"{self.name}, {self.size >> 20} MB" + (f", ID {self.region_id}" if self.region_id else "")

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size >> 20, "region_id": self.region_id}


@dataclass(frozen=True)
class Plan:
    """A build that is decided: nothing has been written yet."""

    request: Request
    tree: Tree
    key: str
    inputs: Mapping[str, Any]
    name: str
    board_name: str
    board: bytes
    scenario: bytes
    regions: tuple[BuiltRegion, ...]
    pre_launched: tuple[int, ...]
    python: str
    cc: str
    environment: Mapping[str, str]
    # What breaks a rule of the collection in the scenario, whether ACRN's own tools see it or not.
    mistakes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Where the artefact is, or will be."""
        return os.path.join(self.request.artifacts_dir, self.key)
