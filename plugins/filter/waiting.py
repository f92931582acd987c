# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that tells who waits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils import _builds, _waiting
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import some


def waiting(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """Who waits for what after the plays of a playbook, the guests that are left alone, and the table."""
    builders = groups.get("acrn_builders") or ["localhost"]
    built = _builds.built(builders, hostvars)
    away = _builds.away(builders, hostvars)

    @functools.cache
    def guests() -> dict[Any, list[Any]]:
        found: dict[Any, list[Any]] = {}
        for guest in groups.get("acrn_guests") or []:
            own = hostvars[guest]
            found.setdefault(own.get("acrn_host"), []).append(own)
        return found

    def of(host: str) -> Callable[[], list[Any]]:
        return lambda: guests().get(host, [])

    waits = []
    for name in groups.get("acrn_hosts") or []:
        host = _waiting.Host(hostvars[name], of(name), built.get(name), builders, away.get(name, {}).get("builder", ""))
        waits += host.waits()
    values = _waiting.as_values(waits)
    left = [guest for wait in values for guest in wait["guests"]]
    return {"waits": values, "guests": list(dict.fromkeys(left)), "table": _waiting.table(values), "away": _told(away)}


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
