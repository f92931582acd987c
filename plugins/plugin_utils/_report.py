# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a report says of a fleet: the state of each host and region, and their drawings as Markdown.

This plugin util is PRIVATE to the collection: it can change at any time.

All text comes from inventories and machines. What shows it has to escape it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable

from ansible.errors import AnsibleError

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _waiting
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import check_texts

LANDS = {"hypervisor": ("hv", "hypervisor"), "device_model": ("dm", "device model")}
STATES = {
    "ok": "proved",
    "partly": "partly proved",
    "alike": "seen alike, not proved",
    "failed": "not as declared",
    "waiting": "not applied yet",
    "unknown": "not proved yet",
}
# What a report of the role verify has for each host.
PARTS = ("regions", "pairs", "problems", "doorbells", "skipped")
NOTHING: Mapping[str, Sequence[Any]] = dict.fromkeys(PARTS, ())
# Mermaid draws no more than 500 edges and 50000 letters at a time. An edge with its region and VM is some 100.
EDGES = 400
# So many names are told of hosts of which there is nothing to show.
NAMES = 20


@dataclass(frozen=True)
class Proof:
    """What is proved of a region. ``state`` is a key of STATES, ``lines`` say why."""

    state: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Host:
    """A machine: its plan, what it runs, and the part of the proof that is about it, by PARTS.

    ``error`` is why there is no plan.
    """

    name: str
    plan: Mapping[str, Any]
    info: Mapping[str, Any]
    board: str
    error: str
    said: Mapping[str, Sequence[Any]]
    waits: Sequence[Mapping[str, Any]] = ()

    @property
    def regions(self) -> Sequence[Mapping[str, Any]]:
        return self.plan.get("regions") or []

    @property
    def state(self) -> str:
        """Key of STATES."""
        if self.error or self.said["problems"]:
            return "failed"
        if self.plan.get("changed") or self.waits:
            return "waiting"
        states = {proof.state for proof in self.proofs}
        if states == {"ok"}:
            return "ok"
        return "partly" if states & {"ok", "partly", "alike"} else "unknown"

    def place(self, region: Mapping[str, Any]) -> str:
        """A region as the role verify names it."""
        return f"{LANDS[region['provided_by']][0]}:/{region['name']} on {self.name}"

    @cached_property
    def proofs(self) -> list[Proof]:
        """What is proved of each of the regions, in their order."""
        return [self.proof(region) for region in self.regions]

    @cached_property
    def _by_place(self) -> Mapping[str, Mapping[str, Sequence[Any]]]:
        return _grouped(self.said, place_of)

    def proof(self, region: Mapping[str, Any]) -> Proof:
        """What is proved of a region: the whole of it only if each of its VMs has taken part, and with this plan."""
        said = self._by_place.get(self.place(region), NOTHING)
        problems = tuple(problem_line(row) for row in said["problems"])
        if not (said["regions"] or said["pairs"] or problems):
            return Proof("unknown", ())
        if not said["regions"] or not _fits(said["regions"][0], region):
            return Proof("failed" if problems else "unknown", ("the proof is of an earlier plan", *problems))
        if said["regions"][0].get("state") == "alike" and not problems:
            return Proof("alike", (str(said["regions"][0].get("result") or ""),))
        return self._judged(region, said, problems)

    def _judged(self, region: Mapping[str, Any], said: Mapping[str, Sequence[Any]], problems: tuple[str, ...]) -> Proof:
        """What a proof of the region as it is planned says."""
        pairs = {(str(pair["from"]), str(pair["to"])) for pair in said["pairs"]}
        count = len(region["vms"])
        # Each VM reads what each other has written. A and B are one pair, as people count.
        wanted = count * (count - 1)
        both = sum((other, one) in pairs for one, other in pairs if one < other)
        took_part = said["regions"][0]["took_part"]
        absent = [vm["name"] for vm in region["vms"] if not any(_is(vm, who) for who in took_part)]
        lines = [
            f"{both} of {wanted // 2} pairs have the same bytes",
            *([f"{', '.join(absent)} did not take part"] if absent else []),
            *_doorbells(said["doorbells"]),
        ]
        if problems:
            return Proof("failed", (*problems, *lines))
        state = "unknown" if not pairs else "partly" if absent or len(pairs) < wanted else "ok"
        return Proof(state, tuple(lines))

    @property
    def others(self) -> list[str]:
        """Problems that are those of no region of the plan: of whole guests, and of regions that are gone."""
        places = {self.place(region) for region in self.regions}
        return [problem_line(row, place_of(row)) for row in self.said["problems"] if place_of(row) not in places]


def place_of(row: Any) -> str:
    """The region that a row of the report of the role verify is about, as ``hv:/NAME on HOST``, or ``-``."""
    # What was skipped is said in lines, which begin with the region.
    return row.partition(": ")[0] if isinstance(row, str) else str(row["region"])


def host_of(row: Any) -> str:
    told = "" if isinstance(row, str) else row.get("acrn_host")
    return str(told or place_of(row).partition(" on ")[2])


def problem_line(row: Mapping[str, Any], place: str = "") -> str:
    where = "" if place in ("", "-") else f"{place}: "
    text = f"{where}{row['vm']}: {row['what']}: expected {row['expected']}, found {row['found']}"
    return f"{text}; {row['mend']}" if row.get("mend") else text


def _is(vm: Mapping[str, Any], told: Any) -> bool:
    """Whether a proof means this VM. Without a plan it knew a VM as the declaration named it, by name or ID."""
    return str(told) in (vm["name"], str(vm["id"]))


def _fits(record: Mapping[str, Any], region: Mapping[str, Any]) -> bool:
    """Whether a region was proved as it is declared now. Addresses that were not known then are no difference."""

    def same(vm: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
        known = [(vm["id"], then.get("vm_id")), (vm["vbdf"], then.get("vbdf"))]
        return _is(vm, then["vm"]) and all(old in (None, "", now) for now, old in known)

    vms = record["vms"]
    return (
        (record["size"], record["region_id"], len(vms)) == (region["size"], region["region_id"], len(region["vms"]))
    ) and all(any(same(vm, then) for then in vms) for vm in region["vms"])


def _doorbells(bells: Sequence[Mapping[str, Any]]) -> list[str]:
    rung = [bell for bell in bells if bell["received"] is not None]
    lines = [f"{sum(bool(bell['received']) for bell in rung)} of {len(rung)} doorbells received"] if rung else []
    silent: dict[str, dict[str, None]] = {}
    for bell in bells:
        if bell["received"] is None:
            silent.setdefault(str(bell["result"]), {})[str(bell["to"])] = None
    return lines + [f"no doorbell to {', '.join(names)}: {why}" for why, names in silent.items()]


MEND = "give the file that acrn.ivshmem.verify has written (its verify_json), or leave verify_json out"
_TEXT, _NUMBER = (str,), (int, type(None))
# What the rows of each part have at least; what else is in them is not read.
ROWS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "regions": {"region": _TEXT, "size": (int,), "region_id": _NUMBER, "vms": (list,), "took_part": (list,)},
    "pairs": dict.fromkeys(("region", "from", "to", "result"), _TEXT),
    "problems": dict.fromkeys(("region", "vm", "what", "expected", "found"), _TEXT),
    "doorbells": {"region": _TEXT, "from": _TEXT, "to": _TEXT, "received": _NUMBER, "result": _TEXT},
}
_VM = {"vm": _TEXT, "vm_id": _NUMBER, "vbdf": (str, type(None))}


def _has(row: Any, wanted: Mapping[str, tuple[type, ...]], where: str) -> None:
    """Raises ValueError for a row that lacks something."""
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no mapping")
    for key, kinds in wanted.items():
        if key not in row or not isinstance(row[key], kinds) or isinstance(row[key], bool):
            raise ValueError(f"{where} has no {key}, or not of its type")


def _check_report(found: Any) -> None:
    if not isinstance(found, dict) or not all(isinstance(found.get(part), list) for part in ("pairs", "problems")):
        raise ValueError("it has pairs and problems")
    for part in PARTS:
        if not isinstance(found.get(part, []), list):
            raise ValueError(f"{part} is no list")
        for number, row in enumerate(found.get(part, []), 1):
            where = f"row {number} of {part}"
            if part == "skipped":
                if not isinstance(row, str):
                    raise ValueError(f"{where} is no text")
                continue
            _has(row, ROWS[part], where)
            for vm in row["vms"] if part == "regions" else ():
                _has(vm, _VM, f"a VM of {where}")
            if not isinstance(row.get("acrn_host", ""), str) or not isinstance(row.get("mend", ""), str):
                raise ValueError(f"{where} has an acrn_host or a mend that is no text")


def proof(text: str, path: str) -> dict[str, Any]:
    """The report of the role verify from the text of its file."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise IvshmemError(f"{path}: this is not JSON ({exc}); {MEND}") from exc
    try:
        _check_report(found)
        check_texts(found)
    except (ValueError, RecursionError, AnsibleError) as exc:
        raise IvshmemError(f"{path}: this is no report of the role verify ({exc}); {MEND}") from exc
    return dict(found)


def hosts_of(variables: Iterable[Mapping[str, Any]], verified: Mapping[str, Any]) -> list[Host]:
    """Hosts from their variables (those that the playbook report sets) and from what the role verify reported."""
    said = _grouped(verified, host_of)
    found = []
    for each in variables:
        name = str(each["inventory_hostname"])
        plan = each.get("scenario_plan") or {}
        error = str(each.get("report_error") or "")
        found.append(
            Host(
                name,
                plan,
                each.get("report_hypervisor") or {},
                str((each.get("scenario_build_inputs") or {}).get("board") or each.get("acrn_board") or ""),
                error or ("" if plan else "There is no plan: this run has ended early on the host."),
                said.get(name, NOTHING),
                _waiting.as_values(_waiting.Host(each).waits()),
            )
        )
    return found


def _grouped(said: Mapping[str, Any], key: Callable[[Any], str]) -> dict[str, dict[str, list[Any]]]:
    """The rows of a report of the role verify by a key that each has, and by PARTS."""
    found: dict[str, dict[str, list[Any]]] = {}
    for part in PARTS:
        for row in said.get(part) or []:
            found.setdefault(key(row), {each: [] for each in PARTS})[part].append(row)
    return found


def counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def absent_hosts(names: Sequence[str]) -> str:
    """Who is not in this run, with as many names as one likes to read."""
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return f"{counted(len(names), 'host')} not in this run: {', '.join(names[:NAMES])}{more}." if names else ""


def totals(hosts: Sequence[Host]) -> str:
    """How much a report is about."""
    return f"{counted(len(hosts), 'machine')}, {counted(sum(len(host.regions) for host in hosts), 'region')}"


def _flowcharts(host: Host) -> list[str]:
    """Mermaid flowcharts of a host, without its name: nearly always one, several where Mermaid would refuse it."""

    def quoted(text: str) -> str:
        # Mermaid's own entities: quotes and angle brackets would end the label or become HTML.
        for sign, entity in (("#", "#35;"), ("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
            text = text.replace(sign, entity)
        return f'"{" ".join(text.split())}"'

    parts: list[list[Mapping[str, Any]]] = []
    edges = EDGES + 1
    for region in host.regions:
        edges += len(region["vms"])
        if edges > EDGES:
            parts.append([])
            edges = len(region["vms"])
        parts[-1].append(region)
    charts = []
    for part in parts:
        lines = ["flowchart LR"]
        vms = {vm["id"]: vm["name"] for region in part for vm in region["vms"]}
        lines += [f"  v{vm}[{quoted(f'{vm} · {name}')}]" for vm, name in sorted(vms.items())]
        for index, region in enumerate(part):
            land = LANDS[region["provided_by"]][0]
            label = f"{land}:/{region['name']} · {region['size']} MB"
            lines.append(f"  r{index}([{quoted(label)}])")
            for vm in region["vms"]:
                slot = "by build" if vm["slot"] is None else f"slot {vm['slot']}"
                line = "---" if land == "hv" else "-.-"
                lines.append(f"  v{vm['id']} {line}|{slot}| r{index}")
        charts.append("\n".join(lines))
    return charts


def markdown(hosts: Sequence[Host], made: str, absent: Sequence[str] = ()) -> str:
    """The drawings for wikis: Markdown with Mermaid in it. Hosts that look the same are drawn once.

    Wikis refuse a drawing of a whole fleet: Mermaid has limits.
    """

    def plain(text: str) -> str:
        # HTML first: not every Markdown knows a backslash before an angle bracket.
        return re.sub(r"([\\`*_{}\[\]()#!|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))

    alike: dict[tuple[str, ...], list[Host]] = {}
    for host in hosts:
        if not host.error:
            alike.setdefault(tuple(_flowcharts(host)), []).append(host)
    blocks = ["# Shared memory of the fleet", f"{totals(hosts)}. Made {plain(made)}."]
    if absent:
        blocks.append(plain(absent_hosts(absent)))
    for charts, same in alike.items():
        names = ", ".join(plain(host.name) for host in same)
        blocks += [f"## {names}"] if len(same) <= 4 else [f"## {len(same)} machines alike", names]
        blocks += [f"```mermaid\n{chart}\n```" for chart in charts] or ["No region is declared."]
    errors = [f"- {plain(host.name)}: {plain(host.error)}" for host in hosts if host.error]
    if errors:
        blocks += ["## Without a plan", "\n".join(errors)]
    return "\n\n".join(blocks) + "\n"
