# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters: what a run of site would do, for programs and for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.unsafe_proxy import wrap_var

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door, _plan
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._fleet import Fleet


def plan_fleet(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Any],
    guests: Iterable[str] = (),
    unclear: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What a run of site would do to each host, after the steps of the playbook plan."""
    # What hosts have said is in it, and stays text when it is kept as a fact.
    return dict(wrap_var(_door.plain(Fleet(groups, hostvars).plan(guests, time.time(), unclear), "the plan")))


def plan_table(plan: Mapping[str, Any]) -> list[str]:
    """What plan_fleet has found, as lines."""
    return list(wrap_var(_plan.table(_door.plain(plan, "the plan"))))


def plan_differences(plan: Mapping[str, Any]) -> list[str]:
    """What changes in files, by what plan_fleet has found."""
    return list(wrap_var(_plan.differences(_door.plain(plan, "the plan"))))


def plan_moved(text: str, plan: Mapping[str, Any], where: str = "the plan") -> dict[str, list[str]]:
    """Why hosts are not to get what was approved."""
    try:
        then = _plan.approved(text, where)
    except IvshmemError as exc:
        raise AnsibleFilterError(str(exc)) from None
    now = _door.plain(plan, "the plan")
    return dict(wrap_var({row["host"]: _plan.moved(then.get(row["host"]), row) for row in now["hosts"]}))


def told_once(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong with hosts, each mistake once with all hosts that have it."""
    return _plan.told_once(hosts)


class FilterModule:
    """The filters of plans."""

    def filters(self) -> dict[str, Any]:
        return {
            "plan_fleet": plan_fleet,
            "plan_table": plan_table,
            "plan_differences": plan_differences,
            "plan_moved": plan_moved,
            "told_once": told_once,
        }
