# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which VM of which ACRN host each guest says it is, and what is wrong with that.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Mapping, Sequence, Tuple

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import some
from ansible_collections.acrn.ivshmem.plugins.module_utils._words import meant

HOST, VM = "acrn_host", "acrn_vm"
# Name and ID of a VM.
Known = Sequence[Tuple[str, str]]


def variables_of(hostvars: Mapping[str, Any], name: Any) -> Mapping[str, Any]:
    """The variables of a host, and none where the inventory has no such host: hostvars.get does not find that out."""
    host = _text(name)
    found: Mapping[str, Any] = hostvars[host] if host and host in hostvars else {}
    return found


def known_vms(vms: Iterable[Mapping[str, Any]]) -> Known:
    """The VMs of a plan, as the functions below take them."""
    return [(str(vm["name"]), str(vm["id"])) for vm in vms]


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def host_problem(value: Any, hosts: Collection[str] | None, others: Collection[str] = ()) -> str:
    """What is wrong with an acrn_host, or nothing. ``hosts`` are those that it can be, ``others`` other names."""
    host = _text(value)
    if not host:
        return f"{HOST} is not set: it is the inventory name of the ACRN host that the VM runs on" + _listed(hosts)
    if hosts is None or host in hosts:
        return ""
    if host in others:
        return f"{HOST} is '{host}', which is not in the group acrn_hosts" + _listed(hosts)
    return f"{HOST} is '{host}', which the inventory has not{meant(host, hosts)}" + _listed(hosts)


def _listed(hosts: Collection[str] | None) -> str:
    return f"; the hosts are {some(hosts)}" if hosts else ""


def vm_problem(value: Any, host: str, known: Known) -> str:
    """What is wrong with an acrn_vm of a guest of ``host``, or nothing. Without VMs that are known all are right."""
    vm = _text(value)
    its = f"; its VMs: {some(f'{name} (ID {number})' for name, number in known)}" if known else ""
    if not vm:
        return f"{VM} is not set: it is the name or ID of the VM in the scenario of its ACRN host{its}"
    if not known or any(vm in each for each in known):
        return ""
    return f"{VM} is '{vm}', which {host} has not{meant(vm, [name for name, _number in known])}{its}"


def by_host(
    guests: Mapping[str, Mapping[str, Any]], hosts: Collection[str], every: Collection[str] = ()
) -> tuple[dict[str, dict[str, Any]], list[tuple[list[str], str]]]:
    """The guests of each host, each with the VM that it says it is; and those of no host, with what is wrong with them.

    ``guests`` have their variables acrn_host and acrn_vm, or ``error``: why these cannot be worked out.
    """
    found: dict[str, dict[str, Any]] = {}
    lost = []
    # Ansible has a group in no order that would be the same in the next run.
    for guest, said in sorted(guests.items()):
        problem = said.get("error") or host_problem(said.get(HOST), hosts, every)
        if problem:
            lost.append(([guest], problem))
        else:
            found.setdefault(_text(said[HOST]), {})[guest] = said.get(VM)
    return found, lost


def claims(
    guests: Mapping[str, Mapping[str, Any]], hosts: Collection[str], every: Collection[str] = ()
) -> dict[str, Any]:
    """The same, with a sentence for each guest of no host."""
    found, lost = by_host(guests, hosts, every)
    return {"guests": found, "lost": _sentences(lost)}


def _one_vm(guests: Mapping[str, Any], known: Known) -> list[tuple[str, list[str]]]:
    """The VMs that several guests say they are."""
    # Digits are an ID unless a VM has that name, as in the regions.
    names = {**{number: name for name, number in known}, **{name: name for name, _number in known}}
    found: dict[str, list[str]] = {}
    for guest, value in sorted(guests.items()):
        vm = _text(value)
        found.setdefault(names.get(vm, vm), []).append(guest)
    return [(vm, those) for vm, those in found.items() if len(those) > 1]


def same_problems(guests: Mapping[str, Any], vms: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What is wrong with guests of one host that say they are the same VM, by guest."""
    found = {}
    for vm, those in _one_vm(guests, known_vms(vms)):
        for guest in those:
            others = [other for other in those if other != guest]
            found[guest] = f"{VM} is {vm}, and so it is of {some(others)}; a VM is one guest"
    return found


def wrong(guests: Mapping[str, Any], vms: Iterable[Mapping[str, Any]]) -> list[tuple[list[str], str]]:
    """What is wrong with the VMs that guests of one host say they are, each with the guests that it is wrong with.

    ``vms`` are all those of its scenario.
    """
    known = known_vms(vms)
    found = {guest: vm_problem(value, "the scenario", known) for guest, value in guests.items()}
    right = {guest: value for guest, value in guests.items() if not found[guest]}
    return [
        *(([guest], problem) for guest, problem in found.items() if problem),
        *(
            (
                those,
                f"{VM} of each is {vm}, and a VM is one guest; give each its own VM, or remove one from acrn_guests",
            )
            for vm, those in _one_vm(right, known)
        ),
    ]


def problems(guests: Mapping[str, Any], vms: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the VMs that the guests of one host say they are, a sentence each."""
    return _sentences(wrong(guests, vms))


def _sentences(found: Iterable[tuple[Sequence[str], str]]) -> list[str]:
    return [f"{named(those)}: {problem}" for those, problem in found]


def named(guests: Sequence[str]) -> str:
    """Guests in words."""
    return f"guest{'' if len(guests) == 1 else 's'} {' and '.join(guests)}"
