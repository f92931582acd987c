# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that tells who waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import some
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door, _waiting
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._fleet import Fleet


def waiting(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Any],
    lost: Sequence[str] = (),
    stopped: Sequence[str] = (),
) -> dict[str, Any]:
    """Who waits for what after the plays of a playbook, the guests that are left alone, and the table.

    ``lost`` are hosts and guests without which the plays have gone on, beside those hosts that a play has rescued;
    ``stopped`` hosts that were not begun or not ended, since the run ends for the sake of the lost.
    """
    fleet = Fleet(groups, hostvars)
    hosts = {name: fleet.after(name) for name in fleet.hosts}
    found = {name: host.waits() for name, host in hosts.items()}
    for name in stopped:
        # Of an installation that was not begun nobody has said how it ended.
        known = found[name] if hosts[name].values.get("hypervisor_install_result") else []
        found[name] = known or [_waiting.stopped(name)]
    # What is known of a host that was lost on the way is half of it, but for why it was refused.
    for name in sorted({*lost, *(name for name, host in hosts.items() if host.values.get(_door.LOST))}):
        refused = [wait for wait in found.get(name, ()) if wait.state == _waiting.REFUSED]
        found[name] = refused or [_waiting.lost(name)]
    values = _waiting.as_values(wait for waits in found.values() for wait in waits)
    later = [guest for host in hosts.values() for guest in host.later()]
    left = [guest for wait in values for guest in wait["guests"]]
    return {
        "waits": values,
        "guests": list(dict.fromkeys([*left, *later])),
        "later": later,
        "table": _waiting.table(values),
        "away": _told(fleet.away),
    }


def _told(away: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A sentence for each builder that does not answer."""
    by_builder: dict[tuple[str, str], list[str]] = {}
    for host, found in away.items():
        by_builder.setdefault((found["builder"], found["msg"]), []).append(host)
    return [
        f"{builder}, which builds the hypervisor of {some(sorted(hosts))}, cannot be reached: {msg}. "
        "Bring it back, or name another builder in --limit beside the hosts, and run this again"
        for (builder, msg), hosts in by_builder.items()
    ]


class FilterModule:
    """The filter of playbooks."""

    def filters(self) -> dict[str, Any]:
        return {"waiting": waiting}
