# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _limit

GROUPS = {"acrn_hosts": ["h1", "h2"], "acrn_guests": ["g1", "g2", "g3", "lost"], "acrn_builders": ["b"]}
OF_GUEST = {"g1": "h1", "g2": "h1", "g3": "h2", "lost": ""}


def look(run, needs=("hosts",), with_hosts=True, limit=None, groups=None):
    return _limit.looked_at(run, groups or GROUPS, OF_GUEST, limit or ",".join(run), needs, with_hosts)


def test_a_run_that_has_all_has_nothing_to_tell():
    assert look(["h1", "h2", "g1", "g2", "g3", "lost"]) == {"refused": [], "told": []}
    assert look(["h1", "g1", "g2"]) == {"refused": [], "told": []}


def test_guests_that_are_left_out_are_told():
    assert look(["h1", "g2"])["told"] == [
        "h1: g1 is not in this run, so nothing is bound or proved there; --limit 'h1,g2,g1'"
    ]
    assert look(["h1"])["refused"] == []
    assert look(["h1"], with_hosts=False) == {"refused": [], "told": []}


def test_hosts_that_are_left_out_are_refused_with_one_mend():
    found = look(["g1", "g2", "g3"], limit="acrn_guests")["refused"]
    assert found == [
        "g1, g2: the devices are known by the plan of h1, which is not in this run",
        "g3: the devices are known by the plan of h2, which is not in this run",
        "write --limit 'acrn_guests,h1,h2'",
    ]
    # The check of the guests says what is wrong with this one.
    assert look(["h1", "lost"])["refused"] == []


@pytest.mark.parametrize("limit", ["all:!h2", "acrn_guests:&g3", "@retry.txt", "~g[3]"])
def test_a_limit_that_more_names_would_not_widen_is_written_out(limit):
    assert look(["g3"], limit=limit)["refused"][-1] == "write --limit 'g3,h2'"


@pytest.mark.parametrize(
    ("needs", "run", "told"),
    [
        (
            ("hosts",),
            ["b"],
            "b has no host of the group acrn_hosts, and nothing would be done: write --limit with one of h1, h2",
        ),
        (("hosts", "guests"), ["b"], "b has no host of the group acrn_hosts or acrn_guests"),
        (("hosts", "guests"), ["g1"], None),
        (("hosts",), ["g1"], "g1 has no host of the group acrn_hosts"),
    ],
)
def test_a_run_that_would_do_nothing_is_refused(needs, run, told):
    found = look(run, needs, with_hosts=False)["refused"]
    assert len(found) == (told is not None) and all(line.startswith(told) for line in found)


def test_an_inventory_without_the_group_is_not_the_fault_of_the_limit():
    assert look(["x"], groups={"all": ["x", "y"]}) == {"refused": [], "told": []}
