# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters of the role verify: the steps of each stage, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.acrn.ivshmem.plugins.module_utils import _verify
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


def _told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except IvshmemError as exc:
            raise AnsibleFilterError(f"acrn.ivshmem.{name}: {exc}") from exc

    return call


def probe_exchange(
    first: Sequence[Mapping[str, Any]], hostvars: Any, host: str, guests: Any, measure: Any = False
) -> Any:
    return _verify.exchange(first, host, hostvars, list(guests), bool(measure))


def probe_end(first: Sequence[Mapping[str, Any]], hostvars: Any, host: str, guests: Any) -> Any:
    return _verify.end(first, host, hostvars, list(guests))


def probe_report(hostvars: Any, guests: Any) -> Any:
    return _verify.as_value(_verify.report(hostvars, list(guests)))


def proof(hostvars: Any, host: str, guests: Any) -> str:
    return _verify.proof(hostvars, host, list(guests))


def probed(guests: Any, hostvars: Any) -> list[str]:
    """Guests that can take part in a proof: a program has to map the memory there, and the only one is in Python."""

    def can(variables: Any) -> bool:
        return variables.get("guest_os", "linux") == "linux" and bool(boolean(variables.get("guest_python", True)))

    return [guest for guest in guests if can(hostvars[guest])]


def probe_peers(guests: Any, hostvars: Any) -> dict[str, list[str]]:
    return _verify.peers(hostvars, guests)


def unproved(guests: Any, hostvars: Any) -> list[str]:
    return _verify.unproved(hostvars, probed(guests, hostvars))


class FilterModule:
    """The filters of the role verify."""

    def filters(self) -> dict[str, Any]:
        return {
            "probe_begin": _told("probe_begin", _verify.begin),
            "probe_exchange": _told("probe_exchange", probe_exchange),
            "probe_end": _told("probe_end", probe_end),
            "proof": _told("proof", proof),
            "probed": _told("probed", probed),
            "unproved": _told("unproved", unproved),
            "probe_peers": _told("probe_peers", probe_peers),
            "probe_report": _told("probe_report", probe_report),
        }
