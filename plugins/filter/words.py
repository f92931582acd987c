# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that gives a variable its meaning."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible import context
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _variables


def word(value: Any, name: str) -> Any:
    """What the value of a variable means."""
    try:
        return _variables.word(value, name)
    except KeyError:
        raise AnsibleFilterError(f"acrn.ivshmem.word: the collection has no variable {name}") from None
    except IvshmemError as exc:
        raise AnsibleFilterError(str(exc)) from None


def builder_settings(
    variables: Mapping[str, Any], asking: Mapping[str, Any] | None = None, here: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The variables of the role hypervisor that a builder has, each with its default where it is not set.

    ``here`` are the values in a play in which a host with the variables ``asking`` asks: what differs from those of
    that host was said by the play, and holds for the builder too.
    """
    found = {}
    for name, spec in _variables.of_role("hypervisor", "main").items():

        def own(of: Mapping[str, Any], name: str = name, spec: Mapping[str, Any] = spec) -> Any:
            value = of.get(name)
            return spec.get("default") if value is None else value

        said = None if here is None else here.get(name)
        by_play = here is not None and (said or None) != (own(asking or {}) or None)
        found[name] = said if by_play else own(variables)
    return found


def told_true(hosts: Iterable[str], hostvars: Mapping[str, Any], name: str, default: bool = False) -> list[str]:
    """Those of the hosts for which a boolean variable is true, or is so where nobody has set it."""
    values = {host: word(hostvars[host].get(name), name) for host in hosts}
    return [host for host, value in values.items() if (default if value is None else value)]


def controller_path(value: Any, name: str, base: Any = None) -> str:
    """The path on the controller that the value of a variable means."""
    try:
        return _variables.controller_path(value, name, str(base or ""))
    except IvshmemError as exc:
        raise AnsibleFilterError(str(exc)) from None


def known_group(groups: Mapping[str, Any], name: str) -> str:
    """A group that has hosts, by its name."""
    try:
        return _variables.known_group(groups, name)
    except IvshmemError as exc:
        raise AnsibleFilterError(str(exc)) from None


def unread(hosts: Iterable[str], hostvars: Any, groups: Mapping[str, Any]) -> list[str]:
    """What of an inventory nobody reads, because it is misspelt or set for the wrong hosts."""
    # The controller builds where nobody else does, and need not be in the inventory.
    values = {host: hostvars.raw_get(host) for host in {**dict.fromkeys(hosts), "localhost": None}}
    named = {host: values[host] for host in hosts}
    extra = load_extra_vars(DataLoader())
    return [
        *_variables.unread(named, groups),
        *_variables.misplaced(values, groups, extra),
        *_variables.overruled(values, groups, extra),
    ]


def unclear(hosts: Iterable[str], hostvars: Any) -> list[dict[str, Any]]:
    """Which variables cannot be worked out, though they are set."""
    # Each look puts all variables of a host together anew.
    values_of = functools.lru_cache(None)(hostvars.__getitem__)
    return _variables.unclear(
        {host: hostvars.raw_get(host) for host in hosts}, lambda host, name: values_of(host)[name]
    )


def refused_tags(phases: Sequence[str], run: Sequence[str], skip: Sequence[str]) -> list[str]:
    """Why the tags of a run are refused."""
    # No variable tells which playbook a run began with.
    return _variables.refused_tags(phases, run, skip, _variables.alone(context.CLIARGS.get("args") or ()))


class FilterModule:
    """The filters that give variables their meaning."""

    def filters(self) -> dict[str, Any]:
        return {
            "word": word,
            "told_true": told_true,
            "controller_path": controller_path,
            "known_group": known_group,
            "unread": unread,
            "unclear": unclear,
            "refused_tags": refused_tags,
            "builder_settings": builder_settings,
        }
