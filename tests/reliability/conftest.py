# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the tests of reliability, and the table of figures that they end with."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from ansible_collections.acrn.ivshmem.tests.reliability import figures
from ansible_collections.acrn.ivshmem.tests.unit import conftest as unit

# Profiles of hypothesis come with it.
own_locks = unit.own_locks


@pytest.fixture
def long():
    """Whether this is the long run, which tries everything and not a sample."""
    return bool(os.environ.get("ACRN_IVSHMEM_LONG"))


def pytest_terminal_summary(terminalreporter):
    rows = figures.rows()
    if not rows:
        return
    terminalreporter.section("figures")
    for row in rows:
        terminalreporter.line(f"{row['attack']}: tried {row['tried']}, survived {row['survived']}")
    kept = os.environ.get("ACRN_IVSHMEM_FIGURES")
    if kept:
        pathlib.Path(kept).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
