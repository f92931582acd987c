# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hypervisors a fleet needs, which builder makes which, and whose each one is.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller. Builds are dealt out to the builders. Each result says for which hosts it is, so
that nobody has to deal them out again to find one: the builders of a run may be a part of their group.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import check_key
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

Values = Mapping[str, Any]


def distinct(hosts: Iterable[Values]) -> list[dict[str, Any]]:
    """The hypervisors that a fleet needs, each once, with the hosts that share it.

    Two hosts share a build if everything that goes into it is equal: the digest of the scenario decides, not its path.
    """
    builds: dict[str, dict[str, Any]] = {}
    for host in hosts:
        build = host.get("scenario_build_inputs")
        if build:
            inputs = {name: value for name, value in build.items() if name not in ("scenario", "content")}
            key = json.dumps(inputs, sort_keys=True)
            builds.setdefault(key, {**build, "hosts": []})["hosts"].append(host["inventory_hostname"])
    return list(builds.values())


def builder_of(build: Values, builders: Sequence[str]) -> str:
    """The builder of a build. What is built decides, and not which other builds or hosts a run has.

    So a run with --limit finds what a run of the whole fleet has built, and with one more builder few builds move.
    """
    what = [build.get("digest"), os.path.basename(str(build.get("board") or "")), build.get("name")]
    return max(builders, key=lambda name: hashlib.sha256(json.dumps([name, *what]).encode()).digest())


def dealt(hosts: Iterable[Values], builders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The builder and its builds for the hosts that ask: for each builder one of those that need its builds.

    Builders that a run names (--limit) build for all; where it names none, each builds what is its own.
    """
    every = list(hosts)
    run = next((host["__limit_hosts"] for host in every if host.get("__limit_hosts")), None)
    chosen = [builder for builder in builders if run is None or builder in run] or list(builders)
    shares: dict[str, list[dict[str, Any]]] = {}
    for build in distinct(every):
        shares.setdefault(builder_of(build, chosen), []).append(build)
    # Distinct builds have no host in common, so no host asks twice.
    return {builds[0]["hosts"][0]: {"builder": builder, "builds": builds} for builder, builds in shares.items()}


def results(builds: Sequence[Values], made: Iterable[Values], now: float) -> list[dict[str, Any]]:
    """What the module hypervisor_build returned for builds, each with the hosts that it is for, and when it was asked.

    ``made`` are the results of a loop over the numbers of the builds.
    """
    made = [each for each in made if "skipped" not in each]
    for each in made:
        _check_place(each)
    return [{**each, "hosts": list(builds[each["item"]].get("hosts") or []), "asked": now} for each in made]


def _check_place(result: Values) -> None:
    """A build lies in a directory of its key: that is also its name on the controller. Raises IvshmemError."""
    directory, key = result.get("directory"), result.get("key")
    if directory is not None and check_key(str(key)) != os.path.basename(directory):
        raise IvshmemError(
            f"a builder answers that its build {key} lies in {directory!r}, which is no place of hypervisor_build; see "
            "who owns that builder"
        )


def refused(result: Values, builds: Sequence[Values]) -> list[dict[str, Any]]:
    """What the module would have returned for builds of which none was made.

    ``result`` is that of the task that failed: the module's own loop, or a step before it, for all of them.
    """
    found: Sequence[Values] = result.get("results") or []
    if found and all("item" in each for each in found):
        return [dict(each) for each in found]
    return [{"item": number, "failed": True, "msg": result.get("msg")} for number in range(len(builds))]


def _error(builder: str, result: Values) -> str | None:
    """Why a build could not be looked at."""
    if not (result.get("failed") or result.get("unreachable")):
        return None
    what = "cannot be reached: " if result.get("unreachable") else ""
    return f"builder {builder}: {what}{result.get('msg') or 'no reason given'}".strip()


def built(builders: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Where the hypervisor of each host lies, of all that was built or looked for in this run."""
    every = [
        (result.get("asked") or 0, builder, result)
        for builder in builders
        for result in hostvars[builder].get("hypervisor_build_results") or []
        if "away" not in result
    ]
    found: dict[str, dict[str, Any]] = {}
    # A playbook may have been there before, with other regions: the builder that was asked last knows.
    for _asked, builder, result in sorted(every, key=lambda each: each[0]):
        # In check mode, with the tree still to be fetched, a result has neither directory nor key.
        known = {name: result.get(name) for name in ("directory", "key")}
        for host in result.get("hosts") or []:
            found[host] = {
                "builder": builder,
                **known,
                "missing": "manifest" not in result,
                "error": _error(builder, result),
            }
    return found


def missing(away: Values | None) -> dict[str, Any] | None:
    """What built() would say of a hypervisor whose builder is ``away``; None of one whose builder is not."""
    if not away:
        return None
    builder = away["builder"]
    error = _error(builder, {"unreachable": True, "msg": away["msg"]})
    return {"builder": builder, "directory": None, "key": None, "missing": True, "error": error}


def away(builders: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The builder that does not answer, and what was said of it, for each host whose hypervisor it would have built."""
    return {
        host: {"builder": builder, "msg": str(result["away"])}
        for builder in builders
        for result in hostvars[builder].get("hypervisor_build_results") or []
        if "away" in result
        for host in result["hosts"]
    }
