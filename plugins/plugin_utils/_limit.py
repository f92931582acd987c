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
    here = {need: [name for name in every[need] if name in run] for need in NEEDS}
    refused: list[str] = []
    if any(every[need] for need in needs) and not any(here[need] for need in needs):
        wanted = " or ".join(_GROUPS[need] for need in needs)
        refused.append(
            f"{limit} has no host of the group {wanted}, and nothing would be done: write --limit with one of "
            f"{some(name for need in needs for name in every[need])}; what is built for a host is built on its builder "
            "without that being in the limit"
        )
    if not with_hosts:
        return {"refused": refused, "told": []}
    missing: dict[str, list[str]] = {}
    for guest in here[GUESTS]:
        host = of_guest.get(guest, "")
        if host in every[HOSTS] and host not in run:
            missing.setdefault(host, []).append(guest)
    if missing:
        # What mends this mends the first, too.
        refused = [
            f"{', '.join(guests)}: the devices are known by the plan of {host}, which is not in this run"
            for host, guests in missing.items()
        ]
        refused.append(f"write {wider(limit, run, missing)}")
    absent = [guest for guest in every[GUESTS] if guest not in run]
    left = {host: [guest for guest in absent if of_guest.get(guest) == host] for host in here[HOSTS]}
    return {
        "refused": refused,
        "told": [
            f"{host}: {some(guests)} {'is' if len(guests) == 1 else 'are'} not in this run, so nothing is bound or "
            f"proved there; {wider(limit, run, guests)}"
            for host, guests in left.items()
            if guests
        ],
    }
