# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version of ACRN, as users and source trees write it.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import re

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

_VERSION_LINE = re.compile(r"^(MAJOR|MINOR)_VERSION=([0-9]{1,4})\b", re.MULTILINE)


def parse_version(text: str) -> tuple[int, int]:
    """The version of a text such as ``3.3``, ``v2.7`` or ``3.0.2``: major and minor. Raises IvshmemError."""
    match = re.fullmatch(r"v?([0-9]{1,4})\.([0-9]{1,4})(?:\..*)?", text.strip())
    if not match:
        raise IvshmemError(f"acrn_version '{text}' is not a version: write it as 2.7 or 3.3")
    return int(match.group(1)), int(match.group(2))


def given_version(text: str | None) -> tuple[int, int] | None:
    """The version that somebody gives, or None where nobody does. Raises IvshmemError."""
    return parse_version(text) if text else None


def version_of_tree(text: str) -> tuple[int, int] | None:
    """The version in the text of an ACRN tree's VERSION file, or None where it has none."""
    found = dict(_VERSION_LINE.findall(text))
    return (int(found["MAJOR"]), int(found["MINOR"])) if len(found) == 2 else None
