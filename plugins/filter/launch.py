# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter of the role launch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.acrn.ivshmem.plugins.filter.regions import vm_devices
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch import _takeover, _vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import given_version
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _adopt, _fit, _launch_text


def launch_wish(
    vms: Sequence[Mapping[str, Any]],
    plan: Mapping[str, Any],
    template: str = "",
    generated: Mapping[str, str] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """All that the role launch wants of a Service VM."""
    render = _launch_text.renderer(template)
    try:
        wanted = _vms.Settings(**settings)
        return _vms.wish(vms, plan, lambda name: vm_devices(plan, name), wanted, render, generated)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise AnsibleFilterError(f"acrn.ivshmem.launch_wish: launch_vms or a setting is malformed: {exc!r}") from exc


def places_in_use(
    found: Mapping[str, Any], vms: Iterable[Mapping[str, Any]] = (), acrn_version: str | None = None
) -> dict[str, dict[str, str]]:
    """The vBDFs that a host has in use, of what launch_info returned."""
    try:
        return _takeover.places_in_use(found, list(vms), given_version(acrn_version))
    except (IvshmemError, KeyError, TypeError, AttributeError) as exc:
        raise AnsibleFilterError(f"acrn.ivshmem.places_in_use: vms or acrn_version is malformed: {exc!r}") from exc


def adopted(
    found: Mapping[str, Any], scenario: Mapping[str, Any], old: Any = None, beside: Sequence[str] = ()
) -> dict[str, Any]:
    """The variables that leave a host as it is, and what its user should know."""
    try:
        result = _adopt.Adoption(scenario, old or None, found, beside)
    except IvshmemError as exc:
        raise AnsibleFilterError(f"acrn.ivshmem.adopted: {exc}") from exc
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise AnsibleFilterError(
            f"acrn.ivshmem.adopted: what the host says is no answer of launch_info: {exc!r}"
        ) from exc
    return {"variables": result.variables, "notes": list(dict.fromkeys(result.notes))}


def adopted_guest(text: str, persistent: bool = False) -> dict[str, Any]:
    """The variables that leave a guest as it is, and what its user should know."""
    variables, notes = _adopt.guest(text, persistent)
    return {"variables": variables, "notes": notes}


def adopt_overruled(variables: Mapping[str, Any], path: str) -> list[str]:
    """Which files beside a path would make Ansible take something else than the variables in it."""
    return _adopt.overruling(path, variables)


def unfit_scripts(found: Mapping[str, Any], builds: Mapping[str, Any], key: Any = None) -> list[str]:
    """The devices of launch scripts that a hypervisor lacks, of what launch_info and hypervisor_info returned."""
    return _fit.unfit(found, builds, key or None)


class FilterModule:
    """The filters of launch scripts."""

    def filters(self) -> dict[str, Any]:
        return {
            "launch_wish": launch_wish,
            "places_in_use": places_in_use,
            "unfit_scripts": unfit_scripts,
            "adopted": adopted,
            "adopted_guest": adopted_guest,
            "adopt_overruled": adopt_overruled,
        }
