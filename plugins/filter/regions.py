# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters: how plays and templates look at regions and plans."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.acrn.ivshmem.plugins.module_utils import _guests, _region
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _builds, _limit
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._fleet import claimed


def from_compact(value: Any) -> dict[str, Any]:
    """A region of the declaration, whatever its form, as a mapping."""
    try:
        return _region.to_mapping(_region.parse_region(value))
    except _region.IvshmemError as exc:
        raise AnsibleFilterError(f"acrn.ivshmem.from_compact: {exc}") from exc


def to_compact(value: Any) -> str:
    """A region of the declaration, whatever its form, as a compact string."""
    try:
        return _region.to_compact(_region.parse_region(value))
    except _region.IvshmemError as exc:
        raise AnsibleFilterError(f"acrn.ivshmem.to_compact: {exc}") from exc


def vm_devices(plan: Mapping[str, Any], vm: Any) -> list[dict[str, Any]]:
    """The ivshmem devices of one VM of a plan, with the IDs of the VMs at their other ends."""
    if plan.get("vms") and not any(str(vm) in (each["name"], str(each["id"])) for each in plan["vms"]):
        known = ", ".join(f"{each['name']} ({each['id']})" for each in plan["vms"])
        raise AnsibleFilterError(f"acrn.ivshmem.vm_devices: the plan has no VM '{vm}'; its VMs are {known}")
    devices = []
    order = _region.alike(plan["regions"])
    for region in plan["regions"]:
        own = [each for each in region["vms"] if str(vm) in (each["name"], str(each["id"]))]
        if own:
            devices.append(
                {
                    **{key: region[key] for key in ("name", "provided_by", "size", "region_id")},
                    "vbdf": own[0]["vbdf"],
                    "slot": own[0]["slot"],
                    "peers": [each["id"] for each in region["vms"] if each["id"] != own[0]["id"]],
                    **order.get((_region.PREFIXES[region["provided_by"]] + region["name"], own[0]["id"]), {}),
                }
            )
    return devices


def vm_slots(plan: Mapping[str, Any], vm: Any) -> dict[str, int | None]:
    """The slots of one VM of a plan, by region."""
    return {device["name"]: device["slot"] for device in vm_devices(plan, vm)}


def distinct_builds(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hypervisors that a fleet needs, each once, with the hosts that share it."""
    return _builds.distinct(hosts)


def dealt_builds(hosts: Iterable[Mapping[str, Any]], builders: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The hypervisors of a fleet, dealt out to its builders, by the hosts that ask these for them."""
    return _builds.dealt(hosts, list(builders))


def build_results(
    made: Iterable[Mapping[str, Any]] | Mapping[str, Any], builds: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What came of builds, each with the hosts that it is for; ``made`` may be what a task that failed has returned."""
    every = _builds.refused(made, builds) if isinstance(made, Mapping) else made
    try:
        return _builds.results(builds, every, time.time())
    except IvshmemError as exc:
        raise AnsibleFilterError(str(exc)) from None


def built(builders: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Where the hypervisor of each host lies: builder, directory and key."""
    return _builds.built(builders, hostvars)


def guest_claims(
    guests: Iterable[str], hostvars: Mapping[str, Any], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The guests of each ACRN host with the VM that each says it is, and what is wrong with those of no host.

    Ansible works out all variables of a guest for each look into hostvars, so a fleet is looked at once.
    """
    return _guests.claims(
        {guest: claimed(hostvars[guest]) for guest in guests}, groups.get("acrn_hosts") or [], groups.get("all") or []
    )


def limited(
    run: Iterable[str],
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Any],
    limit: str,
    needs: Sequence[str],
    with_hosts: bool = False,
) -> dict[str, list[str]]:
    """What a run with --limit leaves out: what is refused, and what is told."""
    guests = list(groups.get("acrn_guests") or []) if with_hosts else []
    of_guest = {guest: str(claimed(hostvars[guest]).get(_guests.HOST) or "") for guest in guests}
    return _limit.looked_at(list(run), groups, of_guest, str(limit), list(needs), with_hosts)


def just_started(guests: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Those of the guests whose VM was started in this run; a check starts none."""
    found = []
    for guest in guests:
        own = hostvars[guest]
        host = _guests.variables_of(hostvars, own.get("acrn_host"))
        if host.get("ansible_check_mode"):
            continue
        vms = (host.get("scenario_plan") or {}).get("vms", [])
        names = {str(own.get("acrn_vm")), *(vm["name"] for vm in vms if str(vm["id"]) == str(own.get("acrn_vm")))}
        if names & set(host.get("launch_just_started") or []):
            found.append(guest)
    return found


class FilterModule:
    """The filters of the collection."""

    def filters(self) -> dict[str, Any]:
        return {
            "from_compact": from_compact,
            "to_compact": to_compact,
            "vm_devices": vm_devices,
            "vm_slots": vm_slots,
            "distinct_builds": distinct_builds,
            "dealt_builds": dealt_builds,
            "build_results": build_results,
            "built": built,
            "guest_claims": guest_claims,
            "limited": limited,
            "just_started": just_started,
        }
