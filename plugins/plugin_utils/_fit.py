# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether launch scripts fit the hypervisor that a host will run, which a rollback changes behind their back.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, PREFIXES

Values = Mapping[str, Any]


def unfit(found: Values, builds: Values, key: str | None) -> list[str]:
    """A sentence for each device of a script that the hypervisor lacks, and for what cannot be told.

    ``found`` is what launch_info returned, ``builds`` what hypervisor_info did, ``key`` the build that the host runs,
    or None for one that is not of this collection.
    """
    build = next((each for each in builds.get("builds") or [] if key and each["key"] == key), None)
    sizes = None if build is None else {each["name"]: each["size"] for each in build.get("regions") or []}
    return [*_told(found, sizes), *(f"cannot be read: {problem}" for problem in found.get("problems") or [])]


def _told(found: Values, sizes: Mapping[str, int] | None) -> Iterator[str]:
    prefix = PREFIXES[HYPERVISOR]
    for script in found.get("scripts") or []:
        for vm in script["vms"]:
            for device in vm["devices"]:
                name = str(device["name"])
                if not name.startswith(prefix):
                    continue
                where = f"{script['path']}, line {device['line']}: VM {vm['name']} has {name}"
                size = None if sizes is None else sizes.get(name, sizes.get(name[len(prefix) :]))
                if sizes is None:
                    yield f"{where}; whether the host's own hypervisor has it is not known"
                elif size is None:
                    yield f"{where}, which that hypervisor does not have"
                elif size != device["size"]:
                    yield f"{where} with {device['size']} MB, which has {size} MB there"
