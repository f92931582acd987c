# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run with --limit leaves out: what it cannot do without, and what its user should know.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller. Builders do not matter here: hosts of the run ask them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import some

# What a playbook works on, by the words in which it says so.
HOSTS, GUESTS = NEEDS = ("hosts", "guests")
_GROUPS = {HOSTS: "acrn_hosts", GUESTS: "acrn_guests"}


def wider(limit: str, run: Sequence[str], more: Iterable[str]) -> str:
    """The --limit that has more hosts. What a pattern takes away, or a file names, is written out."""
    start = ",".join(run) if re.search(r"[&!@~]", limit) else limit
    return f"--limit '{','.join([start, *more])}'"


def looked_at(
    run: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    of_guest: Mapping[str, str],
    limit: str,
    needs: Collection[str],
    with_hosts: bool,
) -> dict[str, list[str]]:
    """What is refused in a run, and what is told.

    ``needs``: a run without any of these does nothing. ``with_hosts``: guests are nothing without their ACRN hosts,
    whose plans tell their devices. ``of_guest`` has the ACRN host of each guest.
    """
    every = {need: list(groups.get(_GROUPS[need]) or []) for need in NEEDS}
    refused = _nobody(run, {need: every[need] for need in needs}, limit)
    if not with_hosts:
        return {"refused": refused, "told": []}
    missing = _by_host(
        (guest for guest in every[GUESTS] if guest in run), of_guest, (host for host in every[HOSTS] if host not in run)
    )
    if missing:
        # What mends this mends the first, too.
        refused = [
            f"{', '.join(guests)}: the devices are known by the plan of {host}, which is not in this run"
            for host, guests in missing.items()
        ]
        refused.append(f"write {wider(limit, run, missing)}")
    left = _by_host(
        (guest for guest in every[GUESTS] if guest not in run), of_guest, (host for host in every[HOSTS] if host in run)
    )
    told = [
        f"{host}: {some(guests)} {'is' if len(guests) == 1 else 'are'} not in this run, so nothing is bound or "
        f"proved there; {wider(limit, run, guests)}"
        for host, guests in left.items()
    ]
    return {"refused": refused, "told": told}


def _nobody(run: Sequence[str], needed: Mapping[str, Sequence[str]], limit: str) -> list[str]:
    """Why a run does nothing, where a limit has left none of the hosts that it needs, by their kind."""
    names = [name for need in needed.values() for name in need]
    if not names or any(name in run for name in names):
        return []
    return [
        f"{limit} has no host of the group {' or '.join(_GROUPS[need] for need in needed)}, and nothing would be done: "
        f"write --limit with one of {some(names)}; what is built for a host is built on its builder without that "
        "being in the limit"
    ]


def _by_host(guests: Iterable[str], of_guest: Mapping[str, str], hosts: Iterable[str]) -> dict[str, list[str]]:
    """Guests by their ACRN host, for those hosts that have any."""
    found: dict[str, list[str]] = {host: [] for host in hosts}
    for guest in guests:
        found.get(of_guest.get(guest, ""), []).append(guest)
    return {host: each for host, each in found.items() if each}
