# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of a run with their guests and builds, as filters look at them after the plays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils import _guests
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _builds, _door, _plan, _variables, _waiting


class Fleet:
    """Groups and variables of a run."""

    def __init__(self, groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Any]) -> None:
        self.groups = groups
        self.hostvars = hostvars
        self.hosts = list(groups.get("acrn_hosts") or [])
        self.builders = list(groups.get("acrn_builders") or ["localhost"])
        self.built = _builds.built(self.builders, hostvars)
        self.away = _builds.away(self.builders, hostvars)

    @functools.cached_property
    def _guests(self) -> dict[Any, list[Any]]:
        """Variables of guests by host. Of a fleet in which nobody waits they are not asked for."""
        found: dict[Any, list[Any]] = {}
        for guest in self.groups.get("acrn_guests") or []:
            own = self.hostvars[guest]
            found.setdefault(own.get("acrn_host"), []).append(own)
        return found

    def _of(self, host: str) -> Callable[[], list[Any]]:
        return lambda: self._guests.get(host, [])

    def after(self, host: str) -> _waiting.Host:
        """A host after the plays."""
        away = self.away.get(host, {}).get("builder", "")
        return _waiting.Host(self.hostvars[host], self._of(host), self.built.get(host), self.builders, away)

    def waits(self, host: str) -> list[dict[str, Any]]:
        """What a host and its VMs wait for."""
        return _waiting.as_values(self.after(host).waits())

    def plan(self, guests: Iterable[str], now: float, unclear: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """What a run of site would do. An error of one host or guest is its own.

        ``unclear`` is what _variables.unclear says of their values: site refuses them. A host has it in its row.
        """
        rows = [row for host in self.hosts for row in self._row(host)]
        told = {row["host"] for row in rows if row["error"]}
        values = [(each["who"], each["error"]) for each in unclear if not told & set(each["who"])]
        return _plan.document(rows, [*values, *self._wrong(list(guests))], now)

    def _row(self, host: str) -> list[dict[str, Any]]:
        variables = self.hostvars[host]
        try:
            if not (variables.get("scenario_plan") or _plan.error_of(variables)):
                return []
            # Plain values, so that one that cannot be worked out is found here.
            built = self.built.get(host) or _builds.missing(self.away.get(host))
            return [_door.plain(_plan.of_host(variables, built, self.waits(host)), host)]
        except (*_variables.UNKNOWN, IvshmemError) as exc:
            why = f"its variables cannot be worked out: {_variables.said(exc)}"
            return [_plan.without(host, _plan.error_of(variables) or why)]

    def _wrong(self, guests: Sequence[str]) -> list[tuple[list[str], str]]:
        claims, wrong = _guests.by_host(
            {guest: claimed(self.hostvars[guest]) for guest in guests}, self.hosts, self.groups.get("all") or []
        )
        for host, own in claims.items():
            plan = _guests.variables_of(self.hostvars, host).get("scenario_plan") or {}
            wrong += _guests.wrong(own, plan.get("vms") or [])
        return [([_guests.named(who)], told) for who, told in wrong]


def claimed(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Which VM of which host a guest says it is, or why that cannot be worked out."""
    found: dict[str, Any] = {}
    for name in (_guests.HOST, _guests.VM):
        try:
            found[name] = variables.get(name)
            str(found[name])
        except _variables.UNKNOWN as exc:
            found["error"] = f"{name} cannot be worked out: {_variables.said(exc)}"
    return found
