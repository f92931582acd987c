# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of site would do to each host, from what the playbook plan has found out.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Mapping, Sequence, Tuple

from ansible_collections.acrn.ivshmem.plugins.module_utils import _waiting
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import PREFIXES, some
from ansible_collections.acrn.ivshmem.plugins.module_utils._words import convert

Values = Mapping[str, Any]
# The cells of a line, and the words of its last one.
Row = Tuple[Tuple[str, ...], Sequence[str]]
HEADS: Row = (("HOST", "ACRN", "CHANGE", "REGION", "MB", "ID"), ["VMS AND SLOTS"])
HOST_HEADS: Row = (("HOST", "BUILD", "BUILD KEY", "REBOOT"), ["VMS"])
# Ansible's YAML output folds lines of more than 80 characters, its own indentation included.
WIDTH = 74


def _key(region: Values) -> str:
    return str(PREFIXES[region["provided_by"]] + region["name"])


def _facts(region: Values) -> Any:
    places = sorted((vm["id"], vm["vbdf"] or "") for vm in region["vms"])
    return region["size"], region["region_id"], places


def changes(plan: Values) -> list[dict[str, Any]]:
    """The regions of a plan, and after them those that go, each with ``change``.

    It is None where no file tells: a v2.x scenario has no dm-land regions.
    """
    if "before" not in plan:
        return [{**region, "change": None} for region in plan["regions"]]
    before = {_key(region): region for region in plan["before"]}
    found = []
    for region in plan["regions"]:
        old = before.pop(_key(region), None)
        change: str | None = "add" if old is None else "keep" if _facts(old) == _facts(region) else "change"
        if region["provided_by"] == "device_model" and plan.get("dialect") == "v2":
            change = None
        found.append({**region, "change": change})
    return [*found, *({**region, "change": "remove"} for region in before.values())]


def _is(host: Values, name: str) -> bool:
    return bool(convert(name, {"type": "bool"}, host.get(name)))


def error_of(host: Values) -> str | None:
    """Why a host has no plan, or a plan that is not whole."""
    return host.get("plan_error") or host.get("scenario_error") or None


def told_once(hosts: Iterable[Values]) -> list[str]:
    """What is wrong with the hosts; what is the same for several of them stands there once."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        error = error_of(host)
        if error:
            found.setdefault(str(error), []).append(str(host["inventory_hostname"]))
    return [f"{some(names)}: {error}" for error, names in found.items()]


def of_host(host: Values, built: Values | None, waits: Sequence[Values] = ()) -> dict[str, Any]:
    """What would happen to a host. ``host`` has its variables, ``built`` is what _builds.built says, or None.

    ``waits`` are those of the host, of the filter waiting.
    """
    plan = host.get("scenario_plan") or {}
    info, compared = (host.get(name) or {} for name in ("plan_hypervisor", "plan_launch"))
    key = (built or {}).get("key")
    regions = changes(plan) if plan else []
    if key:
        reboot = info["running_key"] != key if "running_key" in info else None
    else:
        # What runs cannot be compared, but these are in no hypervisor yet.
        changed = [each for each in regions if each["change"] not in ("keep", None)]
        reboot = any(each["provided_by"] == "hypervisor" for each in changed) or None
    started, restarted = (list(host.get(name) or []) for name in ("launch_just_started", "launch_restarted"))
    return {
        "host": host["inventory_hostname"],
        "error": error_of(host),
        # Why nobody knows which hypervisor runs.
        "unasked": host.get("plan_unasked") or None,
        "acrn_version": plan.get("acrn_version"),
        "scenario": plan.get("scenario"),
        "scenario_changed": plan.get("changed"),
        "regions": regions,
        "build": None
        if built is None
        else {"key": key, "needed": built["missing"], **{name: built[name] for name in ("builder", "directory")}},
        "hypervisor": {
            "running_key": info.get("running_key"),
            "reboot_needed": reboot,
            "installed_by_site": _is(host, "hypervisor_install"),
            "rebooted_by_site": _is(host, "hypervisor_install") and _is(host, "hypervisor_reboot"),
        },
        "vms": {
            "restarted": restarted,
            "started": [name for name in started if name not in restarted],
            "outdated": [name for name in host.get("launch_outdated") or [] if name not in restarted],
        }
        if "same" in compared
        else None,
        "differences": list(compared.get("differences") or []),
        "changes": list(compared.get("changes") or []),
        "waits": list(waits),
    }


def of_hosts(
    hosts: Iterable[Values], built: Mapping[str, Values], waits: Sequence[Values] = ()
) -> list[dict[str, Any]]:
    """What would happen to hosts that have a plan, or an error that left them without. ``built`` as _builds has it."""
    own: dict[str, list[Values]] = {}
    for wait in waits:
        own.setdefault(wait["host"], []).append(wait)
    return [
        of_host(host, built.get(host["inventory_hostname"]), own.get(host["inventory_hostname"], ()))
        for host in hosts
        if host.get("scenario_plan") or error_of(host)
    ]


def _region_row(start: tuple[str, str], region: Values) -> Row:
    vms = [f"{vm['name']} {'by build' if vm['slot'] is None else vm['slot']}," for vm in region["vms"]]
    rest = (_key(region), str(region["size"]), str(region["region_id"] or "-"))
    return (*start, region["change"] or "?", *rest), [*vms[:-1], *(last.rstrip(",") for last in vms[-1:])] or ["-"]


def _host_row(plan: Values) -> Row:
    build, hypervisor, vms = plan["build"], plan["hypervisor"], plan["vms"]
    needed = hypervisor["reboot_needed"]
    if needed is None:
        reboot = "not known" if build else "-"
    elif not needed:
        reboot = "no"
    else:
        reboot = "by this run" if hypervisor["rebooted_by_site"] else "needed"
    words = {"restarted": "restart", "started": "start", "outdated": "restart by hand"}
    told = "; ".join(f"{word} {', '.join(vms[key])}" for key, word in words.items() if vms[key]) if vms else "not known"
    if plan["error"]:
        told = "error, told below"
    made = ("elsewhere" if needed else "-") if build is None else "to build" if build["needed"] else "there"
    return (plan["host"], made, (build or {}).get("key") or "-", reboot), (told or "-").split(" ")


def _told(changes: Sequence[Values]) -> list[str]:
    """What happens to devices of launch scripts and to memory, a line each; VMs that lose one region are together."""
    lost: dict[str, list[str]] = {}
    lines = []
    for each in changes:
        name, old, new = each["region"], each["old"], each["new"]
        if each["change"] == "remove":
            lost.setdefault(name, []).append(str(each["vm"]))
        elif each["change"] == "move":
            lines.append(f"move {name} {each['vm']} slot {'?' if old is None else old} -> {new}")
        elif each["change"] == "resize":
            lines.append(f"resize {name} {each['vm']} {old} -> {new} MB")
        elif each["change"] == "drop":
            size = f"{old / (1 << 20):g} MB"
            what = f"drops {size} in {each['path']}"
            lines.append(what if new is None else f"{what}, resize to {new >> 20} MB: its bytes are lost")
    removed = [f"remove {name} from {', '.join(vms)}" for name, vms in lost.items()]
    return [*removed, *lines]


def _change_rows(plans: Sequence[Values]) -> list[Row]:
    rows: list[Row] = [((plan["host"],), line.split(" ")) for plan in plans for line in _told(plan["changes"])]
    return [(("HOST",), ["LAUNCH", "SCRIPTS", "AND", "MEMORY"]), *rows] if rows else []


def _aligned(rows: Sequence[Row]) -> list[str]:
    """Lines of a table. A last cell that is too long goes on in the next line, which repeats the first cell."""
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _words in rows))]
    lines = []
    for row, words in rows:
        cells = list(row)
        for text in _filled(words, WIDTH - sum(widths) - 2 * len(widths)):
            lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths)), text]))
            cells[1:] = [""] * (len(cells) - 1)
    return lines


def _filled(words: Sequence[str], width: int) -> list[str]:
    """Words in lines of at most a width, at least one word in each."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def table(plans: Sequence[Values]) -> list[str]:
    """The lines of tables: the regions of each host, what comes of them, and what scripts and memory lose."""
    rows: list[Row] = [HEADS]
    for plan in plans:
        start = (plan["host"], plan["acrn_version"] or "?")
        rows += [_region_row(start, region) for region in plan["regions"]]
        if not plan["regions"]:
            rows.append(((*start, "-", "(none)" if plan["scenario"] else "?", "-", "-"), ["-"]))
    changed = _change_rows(plans)
    lost = ["", *_aligned(changed)] if changed else []
    unasked = [((plan["host"],), str(plan["unasked"]).split()) for plan in plans if plan["unasked"]]
    if unasked:
        lost += ["", *_aligned([(("HOST",), ["NOT", "KNOWN", "WHAT", "RUNS,", "SINCE"]), *unasked])]
    steps = _waiting.table(wait for plan in plans for wait in plan["waits"])
    hosts = _aligned([HOST_HEADS, *(_host_row(plan) for plan in plans)])
    return [*_aligned(rows), "", *hosts, *lost, *(["", *steps] if steps else [])]
