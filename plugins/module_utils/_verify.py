# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guests of a fleet do to prove their regions, and what comes out of it.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller. The proof has three stages, each one call of guest_probe in every guest, so that its cost
does not grow with the number of regions or pairs: ``begin`` (each guest overwrites its own part of a window, and
listens), ``exchange`` (each reads the parts of all others, and rings), ``end`` (counts, and the bytes come back).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils import _region
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

WINDOW = 4096
MB = 1024 * 1024
BEGIN, EXCHANGE, END = "__verify_begin", "__verify_exchange", "__verify_end"


@dataclass(frozen=True)
class Peer:
    """A VM of a region. ``id`` is its peer ID, None where only the name is known."""

    name: str
    id: int | None
    bdf: str | None

    def is_vm(self, vm: Any) -> bool:
        return str(vm) == self.name or (self.id is not None and str(vm) == str(self.id))


@dataclass(frozen=True)
class Shared:
    """A region as this step needs it. ``key`` is its name with prefix; ``size`` is in MB."""

    key: str
    provided_by: str
    size: int
    region_id: int | None
    vms: tuple[Peer, ...]


@dataclass
class Report:
    """The outcome. ``problems`` are rows (region, vm, what, expected, found).

    ``regions`` are those that were looked at, as they were declared then. ``acrn_hosts`` are those of the guests.
    """

    problems: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    regions: list[dict[str, Any]] = field(default_factory=list)
    acrn_hosts: dict[str, str] = field(default_factory=dict)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    doorbells: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def shared(value: Any) -> Shared:
    """A region of a plan (with VM names, IDs and vBDFs), or of a declaration as far as that says."""
    if isinstance(value, Mapping) and all(
        isinstance(vm, Mapping) and "name" in vm and "id" in vm for vm in value.get("vms") or [None]
    ):
        vms = tuple(Peer(str(vm["name"]), vm["id"], vm.get("vbdf") or None) for vm in value["vms"])
        key = _region.PREFIXES[value["provided_by"]] + value["name"]
        return Shared(key, value["provided_by"], value["size"], value.get("region_id"), vms)
    region = _region.parse_region(value)
    peers = []
    for vm in region.vms:
        number = vm.vm if isinstance(vm.vm, int) else None
        peers.append(Peer(str(vm.vm), number, str(vm.vbdf) if vm.vbdf else None))
    return Shared(region.prefixed, region.provided_by, region.size, region.region_id, tuple(peers))


def part(region: Shared, index: int, offset: int | None, length: int, measure: bool) -> tuple[int, int, int]:
    """Start, length and mailbox length of the part of VM number ``index`` in the window of a region.

    The window is cut into equal parts, so that all VMs write at the same time. With ``measure`` each ends with a word
    for every VM to ask it, and a word for every VM to be answered.
    """
    size, count = region.size * MB, len(region.vms)
    start = size - length if offset is None else offset
    each = length // count // 8 * 8
    mailbox = 8 * count if measure else 0
    if start < 0 or start % 8 or start + length > size:
        raise IvshmemError(
            f"region '{region.key}': the window at {start} of {length} bytes does not lie in its {size} bytes, or does "
            "not start at a multiple of 8"
        )
    if each - mailbox < 16:
        raise IvshmemError(f"region '{region.key}': a window of {length} bytes is too short for {count} VMs")
    return start + index * each, each, mailbox


def begin(
    regions: Iterable[Any],
    vm: Any,
    acrn_host: str,
    offset: int | None = None,
    length: int = WINDOW,
    read_only: bool = False,
    doorbell: bool = True,
    measure: bool = False,
    timeout: float = 300,
) -> list[dict[str, Any]]:
    """The steps of a guest's first stage. ``vm`` is the name or ID of its VM."""
    steps: list[dict[str, Any]] = []
    for region in [shared(value) for value in regions]:
        mine = [index for index, peer in enumerate(region.vms) if peer.is_vm(vm)]
        if not mine:
            continue
        index = mine[0]
        me = region.vms[index]
        device = {"name": region.key[4:], "bdf": me.bdf, "size": region.size, "region_id": region.region_id}
        label = {
            "region": region.key,
            "acrn_host": acrn_host,
            "vm": me.name,
            "vm_id": me.id,
            "vbdf": me.bdf,
            "index": index,
            "size": region.size,
            "region_id": region.region_id,
            "peers": [{"vm": peer.name, "vm_id": peer.id, "vbdf": peer.bdf} for peer in region.vms if peer is not me],
        }
        common = {"device": device, "label": label}
        if read_only:
            steps.append({"operation": "hash", **common})
            continue
        start, each, mailbox = part(region, index, offset, length, measure)
        steps.append({"operation": "write", "offset": start, "length": each, "mailbox": mailbox, **common})
        echo = []
        if measure:
            for other in range(len(region.vms)):
                if other != index:
                    there = part(region, other, offset, length, measure)
                    ask = there[0] + there[1] - mailbox + 4 * index
                    answer = start + each - mailbox + 4 * len(region.vms) + 4 * other
                    echo.append([ask, answer])
        if echo or (doorbell and region.provided_by == _region.HYPERVISOR):
            steps.append({"operation": "arm", "timeout": timeout, "echo": echo, **common})
    return steps


def results(variables: Mapping[str, Any], stage: str) -> list[Mapping[str, Any]] | None:
    """What a guest's task of a stage returned, or None where it has not run or has failed."""
    registered = variables.get(stage)
    if not isinstance(registered, Mapping) or registered.get("failed") or "results" not in registered:
        return None
    return list(registered["results"])


def _of(
    found: Iterable[Mapping[str, Any]] | None, operation: str, label: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The result of an operation on a region of the same ACRN host."""
    for result in found or []:
        other = result.get("label") or {}
        same = all(other.get(key) == label[key] for key in ("region", "acrn_host"))
        if same and result["operation"] == operation:
            return result
    return None


def _device(steps: Sequence[Mapping[str, Any]], label: Mapping[str, Any]) -> dict[str, Any]:
    for step in steps:
        if step["label"]["region"] == label["region"]:
            return dict(step["device"])
    raise IvshmemError(f"region '{label['region']}' is not among the steps of the first stage")


def exchange(
    first: Sequence[Mapping[str, Any]],
    host: str,
    hostvars: Mapping[str, Any],
    guests: Sequence[str],
    measure: bool = False,
) -> list[dict[str, Any]]:
    """The steps of a guest's second stage. ``first`` are its steps of the first one."""
    steps: list[dict[str, Any]] = []
    for own in results(hostvars[host], BEGIN) or []:
        if own["operation"] != "write" or not own.get("record"):
            continue
        label = own["label"]
        device = _device(first, label)
        if measure:
            where = {"offset": own["record"]["offset"], "length": own["record"]["token_length"]}
            steps.append({"operation": "measure", "device": device, "label": label, **where})
        for guest in guests:
            peer = _of(results(hostvars[guest], BEGIN), "write", label) if guest != host else None
            if not peer or not peer.get("record"):
                continue
            record, other = peer["record"], peer["label"]
            pair = {**label, "from": other["vm"], "to": label["vm"]}
            read = {"offset": record["offset"], "length": record["token_length"], "sha256": record["sha256"]}
            steps.append({"operation": "read", "device": device, "label": pair, **read})
            ears = _of(results(hostvars[guest], BEGIN), "arm", label)
            away = {**label, "from": label["vm"], "to": other["vm"]}
            if ears and ears.get("receivable") and other["vm_id"] is not None:
                # Each sender has a vector of its own, so that the receiver can tell who rang.
                ring = {"peer": other["vm_id"], "vector": label["index"] % ears["vectors"]}
                steps.append({"operation": "ring", "device": device, "label": away, **ring})
            if measure and ears:
                count = len(label["peers"]) + 1
                mine = own["record"]["offset"] + own["record"]["token_length"] + 4 * other["index"]
                theirs = record["offset"] + record["token_length"] + 4 * count + 4 * label["index"]
                words = {"request": mine, "reply": theirs}
                steps.append({"operation": "measure", "device": device, "label": away, **words})
    return steps


def end(
    first: Sequence[Mapping[str, Any]], host: str, hostvars: Mapping[str, Any], guests: Sequence[str]
) -> list[dict[str, Any]]:
    """The steps of a guest's last stage. The bytes of a guest that has dropped out are put back by the others."""
    steps: list[dict[str, Any]] = []
    lost = [guest for guest in guests if guest != host and results(hostvars[guest], EXCHANGE) is None]
    for step in first:
        common = {"device": dict(step["device"]), "label": step["label"]}
        if step["operation"] == "arm":
            steps.insert(0, {"operation": "collect", **common})
        elif step["operation"] == "write":
            found = [_of(results(hostvars[guest], BEGIN), "write", step["label"]) for guest in lost]
            records = [dict(each["record"]) for each in found if each and each.get("record")]
            steps.append({"operation": "restore", "records": records, **common})
    return steps


def _place(label: Mapping[str, Any]) -> str:
    return f"{label['region']} on {label['acrn_host']}"


def _declared(label: Mapping[str, Any], present: Iterable[str]) -> dict[str, Any]:
    """A region as it was declared when it was looked at, so that a later reader sees whether that is still so."""
    vms = list(label["peers"])
    vms.insert(label["index"], {key: label[key] for key in ("vm", "vm_id", "vbdf")})
    took_part = [vm["vm"] for vm in vms if vm["vm"] in present]
    same = {key: label[key] for key in ("size", "region_id")}
    return {"region": _place(label), **same, "vms": vms, "took_part": took_part}


def _failure(variables: Mapping[str, Any], stage: str) -> str:
    registered = variables.get(stage)
    if isinstance(registered, Mapping) and registered.get("msg"):
        return str(registered["msg"]).splitlines()[0]
    return "unreachable, or stopped by an earlier error"


def _count_doorbells(
    report: Report, hostvars: Mapping[str, Any], guests: Sequence[str], rings: list[tuple[Mapping[str, Any], int, int]]
) -> None:
    for guest in guests:
        for ears in results(hostvars[guest], BEGIN) or []:
            label = ears.get("label") or {}
            if ears["operation"] != "arm" or not str(label.get("region")).startswith("hv:/"):
                continue
            if not ears.get("receivable"):
                for peer in label["peers"]:
                    reason = {"result": ears.get("reason") or "not tried", "received": None}
                    pair = {"region": _place(label), "from": peer["vm"], "to": label["vm"], "vector": None}
                    report.doorbells.append({**pair, **reason})
                continue
            heard = _of(results(hostvars[guest], END), "collect", label)
            counts = list((heard or {}).get("counts") or [])
            mine = [ring for ring in rings if _place(ring[0]) == _place(label) and ring[0]["to"] == label["vm"]]
            for peer in label["peers"]:
                pair = {"region": _place(label), "from": peer["vm"], "to": label["vm"]}
                vector = next((number for sent, number, _times in mine if sent["from"] == peer["vm"]), None)
                if vector is None:
                    why = "the sender does not take part, or has failed"
                    if label["vm_id"] is None:
                        why = f"the VM ID of {label['vm']} is not known without the plan of its ACRN host"
                    report.doorbells.append({**pair, "vector": None, "received": None, "result": f"not rung: {why}"})
                    continue
                expected = sum(times for _sent, number, times in mine if number == vector)
                received = counts[vector] if vector < len(counts) else 0
                told = f"{received} of {expected} received"
                report.doorbells.append({**pair, "vector": vector, "received": received, "result": told})
                if received != expected:
                    row = (_place(label), label["vm"], f"doorbell from {peer['vm']}, vector {vector}")
                    report.problems.append((*row, str(expected), f"{received} interrupts"))


def report(hostvars: Mapping[str, Any], guests: Sequence[str]) -> Report:
    """What all guests have found out. Missing answers are problems, too; peers outside the inventory are not."""
    outcome = Report()
    rings: list[tuple[Mapping[str, Any], int, int]] = []
    read: set[tuple[str, str, str]] = set()
    wanted: dict[tuple[str, str, str], bool] = {}
    hashes: dict[str, dict[str, str]] = {}
    blank: set[tuple[str, str]] = set()
    present: dict[str, set[str]] = {}
    labels: dict[str, Mapping[str, Any]] = {}
    for guest in guests:
        variables = hostvars[guest]
        outcome.acrn_hosts[guest] = str(variables.get("acrn_host") or "")
        stages = {stage: results(variables, stage) for stage in (BEGIN, EXCHANGE, END)}
        if stages[BEGIN] is None:
            row = ("-", guest, "guest", "answers", _failure(variables, BEGIN))
            outcome.problems.append(row)
            continue
        for stage, found in stages.items():
            if found is None and stage in variables:
                registered = variables[stage]
                if not registered.get("skipped"):
                    outcome.problems.append(("-", guest, stage[9:], "done", _failure(variables, stage)))
            for result in found or []:
                label = result["label"]
                place = _place(label)
                for problem in result["problems"]:
                    what = problem["what"]
                    if result["operation"] == "read":
                        what = f"{what} of {label['from']}"
                    row = (place, label["vm"], what, problem["expected"], problem["found"])
                    if row not in outcome.problems:
                        outcome.problems.append(row)
                if stage == BEGIN:
                    present.setdefault(place, set()).add(label["vm"])
                    labels.setdefault(place, label)
                if result["problems"]:
                    if result["operation"] == "read":
                        read.add((place, label["from"], label["to"]))
                    elif stage == BEGIN:
                        for peer in label["peers"]:
                            # Said already, by the row of the guest itself.
                            read.update({(place, label["vm"], peer["vm"]), (place, peer["vm"], label["vm"])})
                    continue
                if result["operation"] == "write":
                    wanted.update({(place, peer["vm"], label["vm"]): True for peer in label["peers"]})
                elif result["operation"] == "hash":
                    hashes.setdefault(place, {})[label["vm"]] = result["sha256"]
                    if result["blank"]:
                        blank.add((place, label["vm"]))
                elif result["operation"] == "read":
                    read.add((place, label["from"], label["to"]))
                    outcome.pairs.append(
                        {"region": place, "from": label["from"], "to": label["to"], "result": "same bytes"}
                    )
                elif result["operation"] == "ring":
                    rings.append((label, result["vector"], result["count"]))
                elif result["operation"] == "measure":
                    names = ("read_mb_s", "write_mb_s", "round_trip_us", "round_trip_min_us", "rounds")
                    figures = {name: result[name] for name in names if name in result}
                    outcome.figures.append({"region": place, "vm": label["vm"], "to": label.get("to"), **figures})
    for place, sender, reader in wanted:
        if sender not in present.get(place, set()):
            text = f"{place}: {sender} does not take part, so that {reader} has not read it"
            if text not in outcome.skipped:
                outcome.skipped.append(text)
        elif (place, sender, reader) not in read:
            outcome.problems.append((place, reader, f"bytes of {sender}", "read", "not read"))
    for place, sums in hashes.items():
        first = min(sums)
        for vm in sorted(sums)[1:]:
            if sums[vm] == sums[first] and (place, vm) in blank:
                text = f"{place}: {first} and {vm} hold nothing but zeros, which proves nothing: let verify write"
                outcome.skipped.append(text)
            elif sums[vm] == sums[first]:
                outcome.pairs.append({"region": place, "from": first, "to": vm, "result": "same hash"})
            else:
                expected = f"sha256 {sums[first][:16]}, as in {first}"
                outcome.problems.append((place, vm, "memory", expected, f"sha256 {sums[vm][:16]}"))
    _count_doorbells(outcome, hostvars, guests, rings)
    outcome.regions = [_declared(label, present[place]) for place, label in labels.items()]
    return outcome


def proof(hostvars: Mapping[str, Any], host: str, guests: Iterable[str]) -> str:
    """What a proof of an ACRN host's regions would stand for: its plan, and which boot of which guest took part.

    Empty where that is not known: of a guest that could not say which boot this is, or without a plan.
    """
    plan = hostvars.get(host, {}).get("scenario_plan") or {}
    boots = {}
    for guest in guests:
        variables = hostvars[guest]
        if variables.get("acrn_host") == host:
            boots[guest] = [str(variables.get("acrn_vm")), (variables.get("guest_result") or {}).get("boot_id")]
    if not plan or not boots or not all(boot for _vm, boot in boots.values()):
        return ""
    text = json.dumps([plan["regions"], boots], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def peers(hostvars: Mapping[str, Any], guests: Iterable[str]) -> dict[str, list[str]]:
    """The guests of each ACRN host, and under the empty name those of which it is not known.

    Ansible works out all variables of a host for each look into hostvars, so a fleet is to be looked at once.
    """
    found: dict[str, list[str]] = {"": []}
    for guest in guests:
        found.setdefault(str(hostvars[guest].get("acrn_host") or ""), []).append(guest)
    return found


def unproved(hostvars: Mapping[str, Any], guests: Sequence[str]) -> list[str]:
    """The guests of those ACRN hosts for which no proof stands, and those of which the host is not known."""
    found = set()
    for host, own in peers(hostvars, guests).items():
        wanted = proof(hostvars, host, own) if host else ""
        kept = [hostvars[guest].get("guest_result") or {} for guest in own]
        if not wanted or any(each.get("proof") != wanted or each.get("changed") for each in kept):
            found.update(own)
    return [guest for guest in guests if guest in found]


# By the first word of WHAT, and the kind of region where it makes a difference.
START_ANEW = "stop all VMs of the region before the first is started again (site with launch_restart=true does so)"
BUILT = "install the hypervisor that was built for this plan and boot it (hypervisor_install, hypervisor_reboot)"
MENDS = {
    "guest": "start the VM, and see that Ansible can log in to its guest as root; set guest_python: false "
    "in the inventory where it has no Python; or leave it out of the run (--limit)",
    "exchange": "run verify again; it puts back what an ended run has left in the memory",
    "end": "run verify again; it puts back what an ended run has left in the memory",
    "PCI": "the VM runs with other devices than declared: start it again with its launch script, or correct the vbdf",
    "size dm:/": f"the memory is as its first VM has made it: {START_ANEW}; or correct the declaration",
    "size hv:/": f"{BUILT}; or correct the declaration",
    "region dm:/": "start the VM again with its launch script, or correct the declaration",
    "region hv:/": f"{BUILT}; or correct the declaration",
    "bytes dm:/": f"one of them still has memory of an earlier run of its region: {START_ANEW}",
    "bytes hv:/": "their PCI functions are of different regions: compare slot, size and region ID with the scenario",
    "memory dm:/": f"unless a program writes now, one of them has memory of an earlier run: {START_ANEW}",
    "memory hv:/": "unless a program writes now, their PCI functions are of different regions",
    "doorbell": "the peer is the VM ID of the scenario: see that the running hypervisor was built from this plan, and "
    "that no other program in the receiver takes the interrupts",
}


def mend(region: str, what: str) -> str:
    """What to do about a row of the table. Empty where FOUND says so itself."""
    word = what.split(" ", 1)[0]
    return MENDS.get(word) or MENDS.get(f"{word} {region[:4]}", "")


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with a heading, columns as wide as they need to be, and below it what to do."""
    lines = [("REGION", "VM", "WHAT", "EXPECTED", "FOUND"), *rows]
    widths = [max(len(str(line[column])) for line in lines) for column in range(5)]
    told = dict.fromkeys((re.split(" of | from ", row[2])[0], mend(row[0], row[2])) for row in rows)
    return [
        *("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines),
        *(f"{what}: {text}" for what, text in told if text),
    ]


def summary(outcome: Report) -> list[str]:
    """What has been proved, and what has not been and why, a line each."""
    received = sum(1 for bell in outcome.doorbells if bell["received"])
    lines = [f"pairs of VMs that share their memory: {len(outcome.pairs)}; doorbells received: {received}"]
    for bell in outcome.doorbells:
        if bell["received"] is None:
            lines.append(f"{bell['region']}: doorbell from {bell['from']} to {bell['to']}: {bell['result']}")
    lines += outcome.skipped
    for figure in outcome.figures:
        if "round_trip_us" in figure:
            lines.append(f"{figure['region']}: {figure['vm']} to {figure['to']} and back {figure['round_trip_us']} us")
        else:
            rates = f"reads {figure['read_mb_s']} MB/s, writes {figure['write_mb_s']} MB/s"
            lines.append(f"{figure['region']}: {figure['vm']} {rates}")
    return lines


def as_value(outcome: Report) -> dict[str, Any]:
    """The report as plain data, with the lines of the table of problems."""
    names = ("region", "vm", "what", "expected", "found", "mend", "acrn_host")
    rows = []
    for row in outcome.problems:
        acrn_host = row[0].partition(" on ")[2] or outcome.acrn_hosts.get(row[1], "")
        rows.append(dict(zip(names, (*row, mend(row[0], row[2]), acrn_host))))
    return {
        "ok": not outcome.problems,
        "problems": rows,
        "regions": outcome.regions,
        "pairs": outcome.pairs,
        "doorbells": outcome.doorbells,
        "figures": outcome.figures,
        "skipped": outcome.skipped,
        "table": table(outcome.problems) if outcome.problems else [],
        "summary": summary(outcome),
    }
