# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many attacks were tried, and how many were survived."""

from __future__ import annotations

_COUNTS: dict[str, list[int]] = {}


def add(attack, tried, survived):
    """Count attacks of a kind."""
    entry = _COUNTS.setdefault(attack, [0, 0])
    entry[0] += tried
    entry[1] += survived


def rows():
    """One row for each kind of attack, in the order in which they were begun."""
    return [{"attack": attack, "tried": tried, "survived": survived} for attack, (tried, survived) in _COUNTS.items()]
