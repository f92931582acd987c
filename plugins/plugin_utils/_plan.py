# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of site would do to each host, from what the playbook plan has found out.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Iterable
from typing import Any, Mapping, Sequence, Tuple

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import PREFIXES, IvshmemError, some
from ansible_collections.acrn.ivshmem.plugins.module_utils._words import convert
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _variables, _waiting

Values = Mapping[str, Any]
# The cells of a line, and the words of its last one.
Row = Tuple[Tuple[str, ...], Sequence[str]]
_OWN_WORDS = re.compile(r"\A(?:Task failed: )?.*?The (?:filter|lookup) plugin 'acrn\.ivshmem\.\w+' failed: ", re.DOTALL)
# Of the document that plan_json keeps.
FORMAT = 1
# With Ansible's JSON output around it, a line still fits a terminal of 80 columns.
WIDTH = _waiting.WIDTH
NAMES = _waiting.NAMES
MARKS = {"add": "+", "remove": "-", "change": "~", "keep": "=", None: "?"}
LEGEND = {
    "+": "is added",
    "-": "is removed",
    "~": "is changed",
    "=": "stays",
    "?": "no file tells: dm-land of ACRN v2.x is in no scenario",
    "!": "moves, or is lost",
    "by build": "ACRN's build chooses the place",
    "elsewhere": "a hypervisor has to be built, and acrn_source is not set",
    "not known": "the host was not asked, or did not answer",
}


# -- the plan of a host ------------------------------------------------------------------------------------------------


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


def _launches(host: Values) -> bool:
    return bool(_variables.word(host.get("launch_vms"), "launch_vms")) or host.get("launch_mode") == "generate"


def error_of(host: Values) -> str | None:
    """Why a host has no plan, or a plan that is not whole."""
    told = host.get("plan_error") or host.get("scenario_error")
    # What a filter or a lookup of the collection says, Ansible puts behind the way on which it came there.
    return _OWN_WORDS.sub("", str(told)) if told else None


def told_once(hosts: Iterable[Values]) -> list[str]:
    """What is wrong with the hosts; what is the same for several of them stands there once."""
    found = [([str(host["inventory_hostname"])], str(error_of(host))) for host in hosts if error_of(host)]
    return [f"{some(each['who'])}: {each['error']}" for each in together(found)]


def together(errors: Iterable[tuple[Sequence[str], str]]) -> list[dict[str, Any]]:
    """Errors with those who have them, each error once."""
    found: dict[str, list[str]] = {}
    for who, error in errors:
        found.setdefault(error, []).extend(who)
    return [{"who": list(dict.fromkeys(who)), "error": error} for error, who in found.items()]


def _difference(results: Iterable[Values]) -> list[str]:
    """The lines of what would change in files, by the ``diff`` of results."""
    found: list[str] = []
    for result in results:
        told = result.get("diff") or []
        for diff in told if isinstance(told, list) else [told]:
            old, new = (str(diff.get(key) or "").splitlines() for key in ("before", "after"))
            names = [str(diff.get(f"{key}_header") or key) for key in ("before", "after")]
            found += difflib.unified_diff(old, new, names[0], names[1], lineterm="")
    return found


def _writes(results: Iterable[Values]) -> list[str]:
    """The files on the Service VM that launch_state would write, scripts first."""
    found: list[str] = []
    for result in results:
        found += [script["path"] for script in result.get("scripts") or [] if script.get("changed")]
        found += result.get("written") or []
    return list(dict.fromkeys(map(str, found)))


def _reboot(key: str | None, info: Values, regions: Sequence[Values]) -> bool | None:
    if key:
        return info["running_key"] != key if "running_key" in info else None
    # What runs cannot be compared, but these are in no hypervisor yet.
    changed = [each for each in regions if each["change"] not in ("keep", None)]
    return any(each["provided_by"] == "hypervisor" for each in changed) or None


def of_host(host: Values, built: Values | None, waits: Sequence[Values] = ()) -> dict[str, Any]:
    """What would happen to a host. ``host`` has its variables, ``built`` is what _builds.built says, or None.

    ``waits`` are those of the host, of the filter waiting.
    """
    plan = host.get("scenario_plan") or {}
    info, compared = (host.get(name) or {} for name in ("plan_hypervisor", "plan_launch"))
    key = (built or {}).get("key")
    regions = changes(plan) if plan else []
    # Of a host that was asked, and on which nothing is launched, there was nothing to compare.
    looked = "same" in compared or ("running_key" in info and not _launches(host))
    return {
        "host": host["inventory_hostname"],
        "error": error_of(host) or (built or {}).get("error"),
        # Why nobody knows which hypervisor runs.
        "unasked": host.get("plan_unasked") or None,
        "acrn_version": plan.get("acrn_version"),
        "scenario": plan.get("scenario"),
        "scenario_changed": plan.get("changed"),
        "scenario_digest": plan.get("digest"),
        "regions": regions,
        "build": None
        if built is None
        else {"key": key, "needed": built["missing"], **{name: built[name] for name in ("builder", "directory")}},
        "hypervisor": {
            "running_key": info.get("running_key"),
            "reboot_needed": _reboot(key, info, regions),
            "installed_by_site": _is(host, "hypervisor_install"),
            "rebooted_by_site": _is(host, "hypervisor_install") and _is(host, "hypervisor_reboot"),
        },
        "vms": _touched(host) if looked else None,
        "writes": _writes(host.get("plan_differences") or []),
        "differences": list(compared.get("differences") or []),
        "changes": list(compared.get("changes") or []),
        "files": dict(compared.get("files") or {}),
        "diff": _difference([{"diff": host.get("scenario_difference")}, *(host.get("plan_differences") or [])]),
        "waits": list(waits),
    }


def _touched(host: Values) -> dict[str, list[str]]:
    """The VMs that the role launch would touch, or leaves outdated."""
    started, restarted, outdated = (
        list(host.get(name) or []) for name in ("launch_just_started", "launch_restarted", "launch_outdated")
    )
    return {
        "restarted": restarted,
        "started": [name for name in started if name not in restarted],
        "outdated": [name for name in outdated if name not in restarted],
    }


def without(name: str, error: str) -> dict[str, Any]:
    """The row of a host whose variables cannot be worked out."""
    return {**of_host({"inventory_hostname": name}, None), "error": error}


# -- the plan of a fleet -----------------------------------------------------------------------------------------------


def document(hosts: Sequence[Values], others: Iterable[tuple[Sequence[str], str]], now: float) -> dict[str, Any]:
    """The plan of a fleet. ``others`` are guests, each with what is wrong with it."""
    errors = together([*(([each["host"]], each["error"]) for each in hosts if each["error"]), *others])
    return {
        "format": FORMAT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "summary": summary(hosts, errors),
        "errors": errors,
        "hosts": list(hosts),
    }


def summary(hosts: Sequence[Values], errors: Sequence[Values]) -> dict[str, int]:
    """How many of each thing."""
    regions = [region["change"] for host in hosts for region in host["regions"]]
    builds = {(host["build"]["builder"], host["build"]["key"] or host["host"]) for host in hosts if _builds(host)}
    changed = [change for host in hosts for change in host["changes"]]
    vms = [host["vms"] for host in hosts if host["vms"]]
    return {
        "hosts": len(hosts),
        **{name: regions.count(name) for name in ("add", "change", "remove")},
        "build": len(builds),
        "reboot": sum(bool(host["hypervisor"]["reboot_needed"]) for host in hosts),
        "write": sum(len(host["writes"]) for host in hosts),
        "restart": sum(len(each["restarted"]) for each in vms),
        "start": sum(len(each["started"]) for each in vms),
        "move": sum(change["change"] == "move" for change in changed),
        "lose": sum(change["change"] == "drop" for change in changed),
        "unasked": sum(bool(host["unasked"]) for host in hosts),
        "errors": len(errors),
    }


def _builds(host: Values) -> bool:
    return bool(host["build"] and host["build"]["needed"] and not host["error"])


def _counted(number: int, one: str) -> str:
    """A number with its noun, the first word of what is counted."""
    noun, _blank, rest = one.partition(" ")
    return f"{number} {noun}{'' if number == 1 else 's'} {rest}".rstrip()


SENTENCE = (
    ("add", "region to add"),
    ("change", "region to change"),
    ("remove", "region to remove"),
    ("build", "hypervisor to build"),
    ("reboot", "reboot"),
    ("write", "file to write"),
    ("restart", "VM to restart"),
    ("start", "VM to start"),
    ("move", "device that moves"),
    ("lose", "time memory is lost"),
    ("unasked", "host not asked"),
    ("errors", "error"),
)


def sentence(found: Mapping[str, int]) -> str:
    """The summary in one line of words."""
    parts = [_counted(found[name], words) for name, words in SENTENCE if found[name]]
    return f"{_counted(found['hosts'], 'host')}: {', '.join(parts) or 'nothing to do'}"


# -- a plan that was approved ------------------------------------------------------------------------------------------


def approved(text: str, where: str) -> dict[str, Values]:
    """The hosts of a plan that plan_json has kept. Raises IvshmemError where it is none."""
    rows: dict[str, Values] = {}
    try:
        found = json.loads(text)
        rows = {str(row["host"]): dict(row) for row in found["hosts"]}
        known = found["format"] == FORMAT
        for row in rows.values():
            # What can be shown, and compared with itself, has all that is looked at.
            known = known and bool(_block(row)) and not [look for look in _LOOKS if look(row, row)]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        known = False
    if not known:
        raise IvshmemError(
            f"{where}: this is no plan that acrn.ivshmem.plan of this version has kept; make one with -e plan_json=FILE"
        )
    return rows


def moved(then: Values | None, now: Values) -> list[str]:
    """Why a host must not get what was approved, a sentence each; nothing where this run would do just that.

    A host that has become what the plan wanted, so that nothing is left to do, is as approved too.
    """
    if then is None:
        return ["the plan does not have this host"]
    if then["error"]:
        return [f"the plan had an error: {then['error']}"]
    if now["error"]:
        return [f"there is an error now: {now['error']}"]
    if _target(then) == _target(now) and not _to_do(now):
        return []
    return [told for told in (look(then, now) for look in _LOOKS) if told]


def _target(row: Values) -> Any:
    regions = [{**region, "change": None} for region in row["regions"] if region["change"] != "remove"]
    return row["scenario_digest"], regions, (row["build"] or {}).get("key")


def _to_do(row: Values) -> bool:
    vms, hypervisor = row["vms"], row["hypervisor"]
    if vms is None or vms["restarted"] or vms["started"]:
        return True
    reboots = hypervisor["reboot_needed"] and hypervisor["installed_by_site"]
    return bool(reboots or any(row[key] for key in ("scenario_changed", "diff", "changes", "differences")))


def _other_regions(then: Values, now: Values) -> str | None:
    old, new = ({_key(region): region for region in row["regions"]} for row in (then, now))
    changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    told = [f"{name} ({_mark(old.get(name))} then, {_mark(new.get(name))} now)" for name in changed]
    return f"other regions: {some(told, 4)}" if told else None


def _mark(region: Values | None) -> str:
    return MARKS[region["change"]] if region else " "


def _other_scenario(then: Values, now: Values) -> str | None:
    same = all(then[key] == now[key] for key in ("scenario_digest", "scenario_changed"))
    return None if same else f"the scenario is another: {now['scenario']}"


def _other_build(then: Values, now: Values) -> str | None:
    keys = [(row["build"] or {}).get("key") for row in (then, now)]
    return None if keys[0] == keys[1] else f"another hypervisor: {keys[0] or 'none'} then, {keys[1] or 'none'} now"


def _other_run(then: Values, now: Values) -> str | None:
    if now["unasked"] and not then["unasked"]:
        return f"the host cannot be asked: {now['unasked']}"
    if (now["vms"] is None) != (then["vms"] is None):
        return "nobody had asked the host" if then["vms"] is None else "nobody has asked the host"
    old, new = then["hypervisor"], now["hypervisor"]
    if old == new:
        return None
    if old["running_key"] != new["running_key"]:
        return f"another hypervisor runs: {old['running_key'] or 'another'} then, {new['running_key'] or 'another'} now"
    return f"the host would get it otherwise: {_hypervisor(then)} then, {_hypervisor(now)} now"


def _other_vms(then: Values, now: Values) -> str | None:
    return None if then["vms"] == now["vms"] or not then["vms"] else f"other VMs: {_vms(now)}; then {_vms(then)}"


def _other_files(then: Values, now: Values) -> str | None:
    every = {*then["files"], *now["files"]}
    paths = sorted(path for path in every if then["files"].get(path) != now["files"].get(path))
    if paths:
        return f"other files on the host: {some(paths, 4)}"
    same = all(then[key] == now[key] for key in ("differences", "changes", "diff"))
    return None if same else "what changes in files is something else"


_LOOKS = (_other_regions, _other_scenario, _other_build, _other_run, _other_vms, _other_files)


# -- as text -----------------------------------------------------------------------------------------------------------


def _region_row(region: Values) -> Row:
    vms = [f"{vm['name']} {'by build' if vm['slot'] is None else vm['slot']}," for vm in region["vms"]]
    number = "" if region["region_id"] is None else f"ID {region['region_id']}"
    cells = (MARKS[region["change"]], _key(region), f"{region['size']} MB", number)
    return cells, [*vms[:-1], *(last.rstrip(",") for last in vms[-1:])] or ["-"]


def _hypervisor(plan: Values) -> str:
    build, hypervisor = plan["build"], plan["hypervisor"]
    needed = hypervisor["reboot_needed"]
    if build is None:
        made = "to be built elsewhere" if needed else "not built here"
    else:
        made = f"{'to build' if build['needed'] else 'is built'} ({build['key'] or 'key not known'})"
    if needed is None:
        reboot = "what runs is not known" if build else ""
    else:
        by = "by this run" if hypervisor["rebooted_by_site"] else "needed"
        reboot = f"reboot {by}" if needed else "no reboot"
    return ", ".join(part for part in (made, reboot) if part)


def _vms(plan: Values) -> str:
    words = {"restarted": "restart", "started": "start", "outdated": "restart by hand"}
    if not plan["vms"]:
        return "not known"
    told = [f"{word} {', '.join(plan['vms'][key])}" for key, word in words.items() if plan["vms"][key]]
    return "; ".join(told) or "as they are"


def _lost(changed: Sequence[Values]) -> list[str]:
    """What happens to devices of launch scripts and to memory, a line each; VMs that lose one region are together."""
    lost: dict[str, list[str]] = {}
    lines = []
    for each in changed:
        name, old, new = each["region"], each["old"], each["new"]
        if each["change"] == "remove":
            lost.setdefault(name, []).append(str(each["vm"]))
        elif each["change"] == "move":
            lines.append(f"move {name} {each['vm']} slot {'?' if old is None else old} -> {new}")
        elif each["change"] == "resize":
            lines.append(f"resize {name} {each['vm']} {old} -> {new} MB")
        elif each["change"] == "drop":
            # A file of somebody else has any size.
            size = f"{old} bytes" if old % (1 << 20) or not old else f"{old >> 20} MB"
            what = f"drops {size} in {each['path']}"
            lines.append(what if new is None else f"{what}, resize to {new >> 20} MB: its bytes are lost")
    return [*(f"remove {name} from {', '.join(vms)}" for name, vms in lost.items()), *lines]


def _aligned(rows: Sequence[Row]) -> list[str]:
    """Lines of a table. A last cell that is too long goes on in the next line, or stands there as a whole."""
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _words in rows))]
    start = 2 + sum(widths) + 2 * len(widths)
    longest = max(len(word) for _cells, words in rows for word in words)
    lines = []
    for row, words in rows:
        cells = "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths))
        if start + longest > WIDTH:
            lines += [cells.rstrip(), *(f"       {text}" for text in filled(words, WIDTH - 7))]
            continue
        first, *rest = filled(words, WIDTH - start)
        lines += [f"{cells}  {first}", *(f"{'':{start}}{text}" for text in rest)]
    return lines


def filled(words: Iterable[str], width: int) -> list[str]:
    """Words in lines of at most a width, at least one word in each."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _indented(text: str, mark: str = " ") -> list[str]:
    first, *rest = filled(text.split(), WIDTH - 4) or [""]
    return [f"  {mark} {first}", *(f"    {line}" for line in rest)]


def _block(plan: Values) -> list[str]:
    """What happens to a host, without its name."""
    regions = [_region_row(region) for region in plan["regions"]]
    lines = _aligned(regions) if regions else _indented("no regions" if plan["scenario"] else "no plan")
    if regions or plan["scenario"]:
        lines += _indented(f"hypervisor: {_hypervisor(plan)}")
        lines += _indented(f"VMs: {_vms(plan)}")
    for line in _lost(plan["changes"]):
        lines += _indented(line, "!")
    if plan["unasked"]:
        lines += _indented(f"not known what runs: {plan['unasked']}")
    return [*lines, *(_indented("error, told below") if plan["error"] else [])]


def _who(names: Sequence[str], more: str = "") -> list[str]:
    return filled(f"{some(names, NAMES)}{more}:".split(), WIDTH)


def _blocks(plans: Sequence[Values]) -> list[str]:
    """A block for hosts that are alike, under their names."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for plan in plans:
        version = f" (ACRN {plan['acrn_version']})" if plan["acrn_version"] else ""
        alike.setdefault((version, *_block(plan)), []).append(plan["host"])
    return [line for (version, *lines), names in alike.items() for line in ["", *_who(names, version), *lines]]


def _errors(errors: Sequence[Values]) -> list[str]:
    lines = []
    for each in errors:
        lines += _who(each["who"])
        for line in each["error"].splitlines():
            lines += [f"  {part}" for part in filled(line.split(), WIDTH - 2)]
    return ["", "ERRORS", *lines] if lines else []


def _legend(lines: Sequence[str]) -> list[str]:
    """What stands for what, of all that was said."""
    marks = {line[2:3] for line in lines if line[:2] == "  "}
    text = " ".join(" ".join(lines).split()).replace("(key not known)", "")
    told = [(sign, words) for sign, words in LEGEND.items() if (sign in marks if len(sign) == 1 else sign in text)]
    return ["", "LEGEND", *_aligned([((sign,), words.split()) for sign, words in told])] if told else []


def differences(plan: Values) -> list[str]:
    """What changes in files, once for hosts of which it is the same."""
    alike: dict[tuple[str, ...], list[Values]] = {}
    for host in plan["hosts"]:
        # A file is named after its host, or lies in the directory of its host.
        lines = tuple(line.replace(f"/{host['host']}/", "/HOST/") for line in host["diff"])
        if lines:
            alike.setdefault(lines, []).append(host)
    told = [(hosts, lines if len(hosts) > 1 else hosts[0]["diff"]) for lines, hosts in alike.items()]
    return [line for hosts, lines in told for line in [*_who([host["host"] for host in hosts]), *lines]]


def table(plan: Values) -> list[str]:
    """The lines of a plan: its summary, the hosts with those that are alike together, errors, and who waits."""
    lines = [*filled(sentence(plan["summary"]).split(), WIDTH), *_blocks(plan["hosts"]), *_errors(plan["errors"])]
    steps = _waiting.table(wait for host in plan["hosts"] for wait in host["waits"])
    # NEXT STEPS are the end of it, as of a run of site.
    return [*lines, *_legend(lines), *(["", *steps] if steps else [])]
