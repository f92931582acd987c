# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hypervisors a fleet needs, which builder makes which, and whose each one is.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller. Builds are dealt out to the builders of a run. Each result says for which hosts it is, so
that nobody has to deal them out again to find one: the builders of a run may be a part of their group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Mapping

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


def dealt(hosts: Iterable[Values], builders: Sequence[str], builder: str) -> list[dict[str, Any]]:
    """Those builds of a fleet that one of the builders makes: they are dealt out in turn."""
    return distinct(hosts)[list(builders).index(builder) :: len(builders)]


def results(builds: Sequence[Values], made: Iterable[Values]) -> list[dict[str, Any]]:
    """What the module hypervisor_build returned for builds, each with the hosts that it is for.

    ``made`` are the results of a loop over the numbers of the builds.
    """
    return [{**each, "hosts": list(builds[each["item"]].get("hosts") or [])} for each in made if "skipped" not in each]


def built(builders: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Where the hypervisor of each host lies, of all that was built or looked for in this run."""
    found: dict[str, dict[str, Any]] = {}
    for builder in builders:
        for result in hostvars[builder].get("hypervisor_build_results") or []:
            # In check mode, with the tree still to be fetched, a result has neither directory nor key.
            known = {name: result.get(name) for name in ("directory", "key")}
            for host in result.get("hosts") or []:
                found[host] = {"builder": builder, **known, "missing": "manifest" not in result}
    return found
