# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters of the role verify: the steps of each stage, and the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _verdict, _verify
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._variables import word


def _told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except IvshmemError as exc:
            raise AnsibleFilterError(f"acrn.ivshmem.{name}: {exc}") from exc

    return call


def probe_steps(fleet: Mapping[str, Any], hostvars: Any, guest: str, stage: str) -> Any:
    if guest not in fleet["guests"]:
        return []
    return _verify.Session(fleet, hostvars).rendered(guest, stage)


def probe_report(fleet: Mapping[str, Any], hostvars: Any, require: str = "reachable", asked: bool = True) -> Any:
    session = _verify.Session(fleet, hostvars)
    value = _verdict.as_value(_verdict.report(session, str(require).strip().lower(), asked), session)
    # With the zone, as programs and people in other places read it, too.
    return {**value, "time": datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")}


def probe_prometheus(value: Mapping[str, Any]) -> str:
    return _verdict.prometheus(value, time.time())


def proof(hostvars: Any, report: Mapping[str, Any], host: str, guests: Any) -> list[str]:
    kept = _verify.to_keep(report, hostvars, host, list(guests))
    return [] if kept is None else [kept]


def probed(guests: Any, hostvars: Any) -> list[str]:
    """Guests that can take part in a proof: a program has to map the memory there, and the only one is in Python."""

    def can(variables: Any) -> bool:
        return variables.get("guest_os", "linux") == "linux" and bool(
            word(variables.get("guest_python", True), "guest_python")
        )

    return [guest for guest in guests if can(hostvars[guest])]


def unproved(guests: Any, hostvars: Any) -> list[str]:
    return _verify.unproved(hostvars, probed(guests, hostvars))


class FilterModule:
    """The filters of the role verify."""

    def filters(self) -> dict[str, Any]:
        return {
            "probe_claim": _told("probe_claim", _verify.claim),
            "probe_fleet": _told("probe_fleet", _verify.fleet),
            "probe_steps": _told("probe_steps", probe_steps),
            "probe_report": _told("probe_report", probe_report),
            "probe_junit": _told("probe_junit", _verdict.junit),
            "probe_prometheus": _told("probe_prometheus", probe_prometheus),
            "proof": _told("proof", proof),
            "probed": _told("probed", probed),
            "unproved": _told("unproved", unproved),
        }
