# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came out of a proof: a line for each declared region, problems, whom they concern, and whether that is enough.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any
from xml.sax.saxutils import escape, quoteattr  # they write, and read nothing  # nosec B406

from ansible_collections.acrn.ivshmem.plugins.module_utils import _region
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _verify
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._verify import END, LOOK, READ, WRITE, Session, Shared

# What can be said of a region, the best first.
PROVED, PARTLY, ALIKE, UNPROVED, NOBODY, FAILED = STATES = ("proved", "partly", "alike", "unproved", "nobody", "failed")
REACHED = (PROVED, PARTLY, ALIKE)
ALL, REACHABLE, ANY = REQUIRE = ("all", "reachable", "any")
# What a processor reads where nothing answers.
ALL_ONES = 0xFFFFFFFF


@dataclass(frozen=True)
class Problem:
    """A row of the table, and the guest that it is booked on."""

    region: str
    vm: str
    what: str
    expected: str
    found: str
    guest: str
    acrn_host: str

    def as_dict(self) -> dict[str, str]:
        names = ("region", "vm", "what", "expected", "found", "guest", "acrn_host")
        return {**{name: getattr(self, name) for name in names}, "mend": mend(self.region, self.what)}

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        return self.region, self.vm, self.what, self.expected, self.found


@dataclass
class Found:
    """What is known of one region of a host. ``guests`` are those that took part, by VM."""

    host: str
    region: Shared
    guests: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    alike: int = 0
    reason: str = ""
    state: str = UNPROVED
    line: str = ""

    @property
    def place(self) -> str:
        return f"{self.region.key} on {self.host}"


@dataclass
class Outcome:
    """The whole of a proof. ``unmet`` are lines of what was asked for and not reached, with the guests concerned."""

    mode: str
    problems: list[Problem] = field(default_factory=list)
    regions: list[Found] = field(default_factory=list)
    doorbells: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unmet: list[tuple[str, list[str]]] = field(default_factory=list)

    def add(self, row: Sequence[str], guest: str, host: str) -> None:
        region, vm, what, expected, found = (str(each) for each in row)
        problem = Problem(region, vm, what, expected, found, guest, host)
        if problem not in self.problems:
            self.problems.append(problem)


# -- from answers to facts ---------------------------------------------------------------------------------------------


def report(session: Session, require: str = REACHABLE, asked: bool = True) -> Outcome:
    """What all guests have found out. ``asked`` is False where nobody wants more than to hear of problems."""
    outcome = Outcome(session.options.mode)
    for guest, who in session.guests.items():
        _of_guest(outcome, session, guest)
        if who.error:
            outcome.add(("-", guest, "inventory", "an ACRN host and one of its VMs", who.error), guest, who.acrn_host)
    for host, regions in session.regions.items():
        for region in regions:
            outcome.regions.append(_of_region(outcome, session, host, region))
    for found in outcome.regions:
        _judge(outcome, session, found)
    _require(outcome, session, require, asked)
    return outcome


def _of_guest(outcome: Outcome, session: Session, guest: str) -> None:
    """What a guest says is not as it should be, and what it does not say."""
    host = session.guests[guest].acrn_host
    for stage in _verify.STAGES:
        answers = session.answers(guest, stage)
        steps = session.steps(guest, stage)
        if answers.results is None:
            if stage == LOOK:
                outcome.add(("-", guest, "guest", "answers", answers.failure), guest, host)
                return
            # A stage that is not tried after one that failed has been told of already.
            if answers.tried or stage == END:
                outcome.add(("-", guest, stage, "done", answers.failure), guest, host)
            if stage == END:
                _not_put_back(outcome, session, guest)
            continue
        for step, result in zip(steps, answers.results):
            place, vm = f"{step.region.key} on {host}", _vm(session, guest, step.region)
            for problem in result["problems"]:
                what = problem["what"]
                if step.operation == "read" and step.peer:
                    what = f"{what} of {step.peer.name}"
                outcome.add((place, vm, what, problem["expected"], problem["found"]), guest, host)
            if not result["problems"] and not result["skipped"]:
                _note(outcome, session, guest, step, result)


def _vm(session: Session, guest: str, region: Shared) -> str:
    index = region.index(session.guests[guest].vm)
    return session.guests[guest].vm if index is None else region.vms[index].name


def _note(outcome: Outcome, session: Session, guest: str, step: _verify.Step, result: Mapping[str, Any]) -> None:
    place, vm = f"{step.region.key} on {session.guests[guest].acrn_host}", _vm(session, guest, step.region)
    if step.operation == "look":
        index = step.region.index(session.guests[guest].vm)
        number = None if index is None else step.region.vms[index].id
        row = None
        if result["iv_position"] == ALL_ONES:
            row = (place, vm, "registers", "answer", f"{ALL_ONES:#x}")
        # ACRN up to v3.2 may show 0.
        elif number is not None and result["iv_position"] not in (None, 0, number):
            row = (place, vm, "IVPosition", str(number), str(result["iv_position"]))
        if row:
            outcome.add(row, guest, session.guests[guest].acrn_host)
        if result["pending"] and session.options.mode == _verify.READ_ONLY:
            text = f"{place}: {vm} has bytes that an ended run has not put back; verify with writing does so"
            outcome.notes.append(text)
    elif step.operation == "restore" and result["left"]:
        written = _count(result["left"], "byte")
        text = f"{place}: {vm}: {written} of the window were written by a program meanwhile, and kept"
        outcome.notes.append(text)
    elif step.operation == "measure":
        figures = {name: value for name, value in result.items() if name not in ("problems", "skipped")}
        to = step.peer.name if step.peer else None
        outcome.figures.append({"region": place, "vm": vm, "to": to, **figures})


def _not_put_back(outcome: Outcome, session: Session, guest: str) -> None:
    host = session.guests[guest].acrn_host
    for step in session.steps(guest, WRITE):
        if step.operation == "write":
            where = f"offset {step.options['offset']}, length {step.options['length']}"
            known = "are" if session.wrote(guest, step.region) else "may be"
            text = f"not heard of: {where} {known} those of the proof; {guest} keeps the others in /run/acrn-ivshmem"
            place = f"{step.region.key} on {host}"
            outcome.add((place, _vm(session, guest, step.region), "bytes put back", "all", text), guest, host)


def _of_region(outcome: Outcome, session: Session, host: str, region: Shared) -> Found:
    found = Found(host, region)
    here = session.at(host, region)
    found.missing = session.missing(host, region)
    for index, guest in here.items():
        if session.answer(guest, LOOK, "look", region):
            found.guests[region.vms[index].name] = guest
    if len(found.guests) < 2:
        return found
    if session.writable(host, region):
        _pairs(session, found, here)
    else:
        _compare(outcome, session, found)
    if region.provided_by == _region.HYPERVISOR and session.options.doorbell:
        outcome.doorbells += _bells(outcome, session, found, here)
    return found


def _pairs(session: Session, found: Found, here: Mapping[int, str]) -> None:
    """Who has read what whom wrote."""
    region = found.region
    for reader, guest in here.items():
        name = region.vms[reader].name
        for index in here:
            peer = region.vms[index]
            if index == reader or peer.name not in found.guests or name not in found.guests:
                continue
            if session.answer(guest, READ, "read", region, peer):
                found.pairs.append((peer.name, name))
        write = session.answer(guest, WRITE, "write", region)
        if write and write["users"]:
            found.reason = f"{', '.join(write['users'][:3])} in {name} came meanwhile"


def _compare(outcome: Outcome, session: Session, found: Found) -> None:
    """Parts of the memory that did not change between two looks are the same in all guests, or it is not one memory."""
    region = found.region
    stable: dict[str, dict[int, str]] = {}
    used: set[int] = set()
    for name, guest in found.guests.items():
        first, second = (session.answer(guest, stage, "hash", region) for stage in (WRITE, READ))
        if first and second and len(first["sums"]) == len(second["sums"]):
            both = enumerate(zip(first["sums"], second["sums"]))
            stable[name] = {number: before for number, (before, after) in both if before == after}
            used.update(set(first["used"]) & set(second["used"]))
    if len(stable) < 2:
        found.reason = "fewer than two have answered" if session.options.mode == _verify.READ_ONLY else ""
        return
    compared: set[int] = set()
    for one, other in combinations(stable, 2):
        common = set(stable[one]) & set(stable[other])
        unlike = [number for number in common if stable[one][number] != stable[other][number]]
        compared |= common
        if unlike:
            row = (found.place, other, "memory", f"as in {one}", f"{len(unlike)} of {len(common)} parts differ")
            outcome.add(row, found.guests[other], found.host)
            outcome.add((found.place, one, "memory", f"as in {other}", row[4]), found.guests[one], found.host)
    found.alike = len(compared & used)
    if not compared:
        found.reason = "programs write all over it"
    elif not found.alike:
        found.reason = "it holds nothing but zeros, which are the same in every memory"


def _bells(outcome: Outcome, session: Session, found: Found, here: Mapping[int, str]) -> list[dict[str, Any]]:
    """A row for each ordered pair: rung and heard, or why not."""
    region, rows = found.region, []
    for index, guest in here.items():
        to = region.vms[index]
        ears = session.answer(guest, WRITE, "arm", region)
        heard = session.answer(guest, END, "collect", region)
        rung = {peer.name: vector for peer, vector in _rings(session, region, here, to)}
        for peer in region.vms:
            if peer is to:
                continue
            row = {"region": found.place, "from": peer.name, "to": to.name, "vector": rung.get(peer.name)}
            if peer.name in rung:
                vector, counts = rung[peer.name], (heard or {}).get("counts") or []
                expected = sum(other == vector for other in rung.values())
                received = counts[vector] if vector < len(counts) else 0
                rows.append({**row, "received": received, "result": f"{received} of {expected} received"})
                if received != expected:
                    what = f"doorbell from {peer.name}, vector {vector}"
                    outcome.add(
                        (found.place, to.name, what, str(expected), f"{received} interrupts"), guest, found.host
                    )
            else:
                rows.append({**row, "received": None, "result": _silent(session, found, ears, to)})
    return rows


def _rings(
    session: Session, region: Shared, here: Mapping[int, str], to: _verify.Peer
) -> Iterable[tuple[_verify.Peer, int]]:
    for index, guest in here.items():
        steps, answers = session.steps(guest, READ), session.answers(guest, READ)
        for step, result in zip(steps, answers.results or []):
            ours = step.operation == "ring" and step.region is region and step.peer == to
            if ours and not result["problems"] and not result["skipped"]:
                yield region.vms[index], step.options["vector"]


def _silent(session: Session, found: Found, ears: Mapping[str, Any] | None, to: _verify.Peer) -> str:
    if not session.audible(found.host, found.region) or not session.writable(found.host, found.region):
        return "not rung: a program may listen"
    if ears and not ears["receivable"]:
        return str(ears["reason"] or "not receivable")
    if to.id is None:
        return f"not rung: the VM ID of {to.name} is not known without the plan of its ACRN host"
    return "not rung: one of the two does not take part, or has failed"


# -- from facts to a verdict -------------------------------------------------------------------------------------------


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _judge(outcome: Outcome, session: Session, found: Found) -> None:
    names = ", ".join(found.guests)
    wanted = len(found.guests) * (len(found.guests) - 1)
    missing = f"{', '.join(found.missing)} {'does' if len(found.missing) == 1 else 'do'} not take part"
    problems = [each for each in outcome.problems if each.region == found.place]
    users = [] if found.reason or session.writable(found.host, found.region) else _why(session, found)
    reason = found.reason or "; ".join(users)
    if problems:
        found.state, found.line = FAILED, f"not as declared, {_count(len(problems), 'problem')}"
    elif not found.guests:
        found.state, found.line = NOBODY, "nobody took part"
        if session.at(found.host, found.region):
            found.line += " that could be asked"
    elif len(found.guests) < 2:
        found.state, found.line = UNPROVED, f"not proved: {names} alone took part, and {missing}"
    elif found.pairs and len(found.pairs) >= wanted and not found.missing:
        found.state, found.line = PROVED, f"proved between {names}"
    elif found.pairs:
        found.state, found.line = PARTLY, f"partly proved: {len(found.pairs)} of {wanted} readings between {names}"
        found.line += f"; {missing}" if found.missing else ""
    elif found.alike:
        found.state, found.line = ALIKE, f"the same bytes are seen by {names}; nothing was written, so that is no proof"
        found.line += f" ({reason})" if reason else ""
        found.line += f"; {missing}" if found.missing else ""
    else:
        found.state, found.line = UNPROVED, f"not proved: {reason or 'no answers'}"


def _why(session: Session, found: Found) -> list[str]:
    """Why nothing was written to a region."""
    if session.options.mode == _verify.READ_ONLY:
        return ["only reading was asked for"]
    return session.users(found.host, found.region)[:3]


def _require(outcome: Outcome, session: Session, require: str, asked: bool) -> None:
    if require not in REQUIRE:
        raise IvshmemError(f"verify_require is {', '.join(REQUIRE)}, not '{require}'")
    if not asked:
        return
    reached = [found for found in outcome.regions if found.state in REACHED]
    for found in outcome.regions:
        # What is wrong with a region is booked already.
        if found.state != FAILED and not _is_enough(found, require, session.options.mode):
            outcome.unmet.append((f"{found.place}: {found.line}", _concerned(session, found)))
    if outcome.regions and not reached and not outcome.unmet and not outcome.problems:
        text = (
            "no region was proved: at least two of its VMs have to be guests (group acrn_guests) that Ansible can "
            "log in to"
        )
        outcome.unmet.append((text, list(session.guests) or [host for host, own in session.regions.items() if own]))
    if not outcome.regions:
        # No region by decision is a proof without a row; no region by a forgotten file is none at all.
        for host, why in session.undeclared.items():
            text = f"{host}: nothing to prove: {why}; ivshmem_regions: [] says that it has none"
            outcome.unmet.append((text, [host]))


def _is_enough(found: Found, require: str, mode: str) -> bool:
    """Whether what was found of a region is what ``verify_require`` asks for."""
    if require == ALL:
        reading = mode == _verify.READ_ONLY
        return found.state == PROVED or (reading and found.state == ALIKE and not found.missing)
    return require == ANY or len(found.guests) < 2 or found.state in REACHED


def _concerned(session: Session, found: Found) -> list[str]:
    here = list(found.guests.values()) or list(session.at(found.host, found.region).values())
    return here or [name for name, who in session.guests.items() if who.acrn_host == found.host] or [found.host]


# -- words -------------------------------------------------------------------------------------------------------------

# By the first word of WHAT, and the kind of region where it makes a difference.
START_ANEW = "stop all VMs of the region before the first is started again (site with launch_restart=true does so)"
BUILT = "install the hypervisor that was built for this plan and boot it (hypervisor_install, hypervisor_reboot)"
AGAIN = "run verify again; it puts back what an ended run has left in the memory, unless the guest boots before"
MENDS = {
    "guest": "start the VM, and see that Ansible can log in to its guest as root; set guest_python: false "
    "in the inventory where it has no Python; or leave it out of the run (--limit)",
    "write": AGAIN,
    "read": AGAIN,
    "end": AGAIN,
    "PCI": "the VM runs with other devices than declared: start it again with its launch script, or correct the vbdf",
    "size dm:/": f"the memory is as its first VM has made it: {START_ANEW}; or correct the declaration",
    "size hv:/": f"{BUILT}; or correct the declaration",
    "region dm:/": "start the VM again with its launch script, or correct the declaration",
    "region hv:/": f"{BUILT}; or correct the declaration",
    "bytes dm:/": f"one of them still has memory of an earlier run of its region: {START_ANEW}",
    "bytes hv:/": "their PCI functions are of different regions: compare slot, size and region ID with the scenario",
    "memory dm:/": f"one of them has memory of an earlier run: {START_ANEW}",
    "memory hv:/": "their PCI functions are of different regions: compare slot, size and region ID with the scenario",
    "registers": "the hypervisor has no address range left for them, and no doorbell of the function is heard: raise "
    "MAX_EMULATED_MMIO of the scenario (docs/rules.md#emulated-mmio), or give the VM fewer regions",
    "IVPosition": "the guest is another VM than the inventory says: correct its acrn_vm, or its address",
    "doorbell": "the peer is the VM ID of the scenario: see that the running hypervisor was built from this plan, and "
    "that no other program in the receiver takes the interrupts",
}
PUT_BACK = "bytes put back"


def mend(region: str, what: str) -> str:
    """What to do about a row of the table. Empty where FOUND says so itself."""
    if what == PUT_BACK:
        return AGAIN
    if region == "-" or what not in ("write", "read"):
        word = what.split(" ", 1)[0]
        return MENDS.get(word) or MENDS.get(f"{word} {region[:4]}", "")
    return ""


def table(problems: Sequence[Problem]) -> list[str]:
    """Lines of a table with a heading, columns as wide as they need to be, and below it what to do."""
    if not problems:
        return []
    lines = [("REGION", "VM", "WHAT", "EXPECTED", "FOUND"), *(each.row for each in problems)]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    told = dict.fromkeys((re.split(" of | from ", each.what)[0], mend(each.region, each.what)) for each in problems)
    return [
        *("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines),
        *(f"{what}: {text}" for what, text in told if text),
    ]


def both_ways(found: Found) -> int:
    """Pairs of VMs as people count them: A and B are one."""
    return sum((b, a) in found.pairs for a, b in found.pairs if a < b)


def summary(outcome: Outcome) -> list[str]:
    """A line for each region, then what else there is to know."""
    received = sum(1 for bell in outcome.doorbells if bell["received"])
    pairs = sum(both_ways(found) for found in outcome.regions)
    states = [found.state for found in outcome.regions]
    counts = [f"{states.count(state)} {state}" for state in STATES if state in states] or ["none declared"]
    shared = f"pairs of VMs that share their memory: {pairs}; doorbells received: {received}"
    lines = [f"regions: {', '.join(counts)}; {shared}"]
    lines += [f"{found.place}: {found.line}" for found in outcome.regions]
    silent: dict[tuple[str, str], dict[str, None]] = {}
    for bell in outcome.doorbells:
        if bell["received"] is None:
            silent.setdefault((bell["region"], bell["result"]), {})[bell["to"]] = None
    lines += [f"{place}: no doorbell to {', '.join(names)}: {why}" for (place, why), names in silent.items()]
    lines += outcome.notes
    for figure in outcome.figures:
        if figure.get("round_trip_us") is not None:
            lines.append(f"{figure['region']}: {figure['vm']} to {figure['to']} and back {figure['round_trip_us']} us")
        else:
            rates = f"reads {figure.get('read_mb_s')} MB/s, writes {figure.get('write_mb_s')} MB/s"
            lines.append(f"{figure['region']}: {figure['vm']} {rates}")
    return lines


def failed(outcome: Outcome, session: Session) -> dict[str, list[str]]:
    """The guests that have to fail, each with the lines that concern it."""
    lines: dict[str, list[str]] = {}
    for guest in dict.fromkeys(each.guest for each in outcome.problems):
        lines[guest] = table([each for each in outcome.problems if each.guest == guest])
    for text, guests in outcome.unmet:
        # Where none of the play is concerned, its first guest has to speak for the region.
        named = set(guests) & set(session.guests) or list(session.guests)[:1] or guests
        for guest in named:
            lines.setdefault(guest, []).append(text)
    return lines


def _kept(outcome: Outcome) -> list[str]:
    """ACRN hosts of which no more can be said by proving again before a guest boots."""
    bad = {each.acrn_host for each in outcome.problems}
    bad |= {found.host for found in outcome.regions if len(found.guests) > 1 and found.state not in REACHED}
    return [host for host in dict.fromkeys(found.host for found in outcome.regions) if host not in bad]


def as_value(outcome: Outcome, session: Session) -> dict[str, Any]:
    """The report as plain data, with the lines of the table of problems."""
    result = "same bytes"
    return {
        "ok": not outcome.problems and not outcome.unmet,
        "mode": outcome.mode,
        "problems": [each.as_dict() for each in outcome.problems],
        "unmet": [text for text, _guests in outcome.unmet],
        "regions": [_as_region(found) for found in outcome.regions],
        "pairs": [
            {"region": found.place, "from": one, "to": other, "result": result}
            for found in outcome.regions
            for one, other in found.pairs
        ],
        "doorbells": outcome.doorbells,
        "figures": outcome.figures,
        "skipped": outcome.notes,
        "table": table(outcome.problems),
        "summary": summary(outcome),
        "failed": failed(outcome, session),
        "kept": [] if outcome.mode == _verify.READ_ONLY else _kept(outcome),
    }


def _as_region(found: Found) -> dict[str, Any]:
    """A region as it was declared when it was looked at, so that a later reader sees whether that is still so."""
    region = found.region
    return {
        "region": found.place,
        "name": region.key,
        "acrn_host": found.host,
        "size": region.size,
        "region_id": region.region_id,
        "vms": [{"vm": peer.name, "vm_id": peer.id, "vbdf": peer.bdf} for peer in region.vms],
        "took_part": list(found.guests),
        "missing": found.missing,
        "state": found.state,
        "result": found.line,
    }


# -- files for other programs ------------------------------------------------------------------------------------------


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def junit(value: Mapping[str, Any]) -> str:
    """The report as JUnit XML: a suite for each ACRN host, a case for each region, one for what is no region's."""
    suites = []
    hosts = dict.fromkeys([*(each["acrn_host"] for each in value["regions"])])
    for host in hosts:
        cases = [_case(value, each) for each in value["regions"] if each["acrn_host"] == host]
        suites.append(_suite(host, cases, value["time"]))
    rest = [row for row in value["problems"] if row["region"] == "-"]
    lines = [f"{row['vm']}: {row['what']}: expected {row['expected']}, found {row['found']}" for row in rest]
    places = {each["region"] for each in value["regions"]}
    lines += [text for text in value["unmet"] if text.partition(": ")[0] not in places]
    if lines:
        suites.append(_suite("guests", [("the guests", "failure", "\n".join(lines))], value["time"]))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n{"".join(suites)}</testsuites>\n'


def _case(value: Mapping[str, Any], region: Mapping[str, Any]) -> tuple[str, str, str]:
    rows = [row for row in value["problems"] if row["region"] == region["region"]]
    texts = [f"{row['vm']}: {row['what']}: expected {row['expected']}, found {row['found']}" for row in rows]
    unmet = [text for text in value["unmet"] if text.startswith(f"{region['region']}: ")]
    if texts or unmet:
        return region["name"], "failure", "\n".join([*texts, *unmet])
    if region["state"] in (PROVED, PARTLY, ALIKE):
        return region["name"], "", region["result"]
    return region["name"], "skipped", region["result"]


def _suite(host: str, cases: Sequence[tuple[str, str, str]], time: str) -> str:
    name = quoteattr(_xml(f"acrn.ivshmem.verify {host}"))
    counts = [sum(kind == each for _name, kind, _text in cases) for each in ("failure", "skipped")]
    lines = [f'<testsuite name={name} tests="{len(cases)}" failures="{counts[0]}" errors="0" skipped="{counts[1]}" ']
    lines[0] += f'timestamp={quoteattr(_xml(time))} time="0">\n'
    for case, kind, text in cases:
        lines.append(f"<testcase classname={quoteattr(_xml(host))} name={quoteattr(_xml(case))}>")
        message = quoteattr(_xml(text.splitlines()[0] if text else ""))
        body = escape(_xml(text))
        lines.append(f"<{kind} message={message}>{body}</{kind}>" if kind else f"<system-out>{body}</system-out>")
        lines.append("</testcase>\n")
    return "".join([*lines, "</testsuite>\n"])


def _label(text: str) -> str:
    return '"' + str(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'


def prometheus(value: Mapping[str, Any], seconds: float) -> str:
    """The report for the textfile collector of Prometheus' node exporter."""
    lines = []

    def metric(name: str, text: str, samples: Iterable[tuple[Mapping[str, Any], Any]]) -> None:
        lines.extend([f"# HELP acrn_ivshmem_{name} {text}", f"# TYPE acrn_ivshmem_{name} gauge"])
        for labels, number in samples:
            inside = ",".join(f"{key}={_label(each)}" for key, each in labels.items())
            lines.append(f"acrn_ivshmem_{name}{'{' + inside + '}' if inside else ''} {number}")

    def of_regions(number: Any) -> list[tuple[Mapping[str, Any], Any]]:
        return [({"host": each["acrn_host"], "region": each["name"]}, number(each)) for each in value["regions"]]

    metric(
        "region_proved",
        "1 if all VMs of the region have read what the others wrote.",
        of_regions(lambda each: int(each["state"] == PROVED)),
    )
    metric("region_vms", "VMs of the region.", of_regions(lambda each: len(each["vms"])))
    metric("region_vms_proving", "VMs of the region that took part.", of_regions(lambda each: len(each["took_part"])))
    states = [
        ({"host": each["acrn_host"], "region": each["name"], "state": state}, int(each["state"] == state))
        for each in value["regions"]
        for state in STATES
    ]
    metric("region_state", "1 for the state that the region is in.", states)
    metric("verify_ok", "1 if nothing was wrong and all was proved that was asked for.", [({}, int(value["ok"]))])
    metric("verify_problems", "Rows of the table of problems.", [({}, len(value["problems"]))])
    metric("verify_timestamp_seconds", "When this was found, in seconds since 1970.", [({}, f"{seconds:.0f}")])
    return "\n".join(lines) + "\n"
