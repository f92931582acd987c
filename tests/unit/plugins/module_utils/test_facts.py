# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils import _facts
from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import RELEASES, before, release_of, spelt


def test_releases_stand_in_their_order_once():
    versions = [release.version for release in RELEASES]
    assert versions == sorted(set(versions))
    assert (versions[0], versions[-1]) == (_facts.FIRST, _facts.LAST)
    assert before(_facts.V3_FIRST) == _facts.V2_LAST


@pytest.mark.parametrize(
    ("version", "row"), [((2, 1), (2, 2)), ((2, 2), (2, 2)), ((2, 9), (2, 7)), ((3, 3), (3, 3)), ((9, 0), _facts.LAST)]
)
def test_a_release_that_is_not_known_is_as_the_one_before(version, row):
    assert release_of(version).version == row


def test_orders_of_slots_hand_out_the_same_slots():
    orders = [_facts.SLOT_ORDER, _facts.OTHERS_SLOT_ORDER, _facts.V2_SLOT_ORDER]
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(3, 31))}
    assert not set(_facts.SLOT_ORDER) & set(_facts.RESERVED_SLOTS)


def test_limits_as_acrn_spells_them():
    assert (_facts.SIZES[0], _facts.SIZES[-1], len(_facts.SIZES)) == (2, 512, 9)
    assert (_facts.REGION_IDS.start, _facts.REGION_IDS[-1]) == (0x1000, 0xFFFF)
    assert re.fullmatch(r"v\d\.\d", spelt(_facts.LAST))
