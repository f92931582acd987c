# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guests of a fleet do to prove their regions.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller. The proof has four stages, each one call of guest_probe in every guest, so that its cost does
not grow with the number of regions or pairs: ``look`` (what the functions are, who uses them), ``write`` (each guest
overwrites its own part of a window, and listens), ``read`` (each reads the parts of all others, and rings), ``end``
(counts, and the bytes come back). A region in which nothing is written is hashed in ``write`` and in ``read`` instead.

Where an earlier run was ended before its ``end``, ``recover`` comes first: the windows of that run may have lain
elsewhere, so all guests have to have put their bytes back before any of them saves, as what was there, what it finds.

What a guest answers is matched with the steps that were made for it here, by position. Nothing that it says about
regions, offsets or other guests is used, and only fields of the type that is documented (``_answers``).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils import _guests, _region
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _journal
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _answers

WINDOW = 4096
# What a guest writes unasked: enough that chance does not give the same bytes, and a cache line.
TOKEN = 64
# Numbers of writers from here on are those of VMs of which only the name is known. No ID is so high.
NAMED = 4096
MB = 1024 * 1024
LOOK, RECOVER, WRITE, READ, END = STAGES = ("look", "recover", "write", "read", "end")
SERVICE = "__verify_service"
IDLE, CHOSEN, READ_ONLY = MODES = ("idle", "true", "false")


def variable(stage: str) -> str:
    """Where the role registers what a guest answers."""
    return f"__verify_{stage}"


@dataclass(frozen=True)
class Peer:
    """A VM of a region. ``id`` is its peer ID, None where only the name is known."""

    name: str
    id: int | None
    bdf: str | None
    nth: int | None = None
    nth_of: int | None = None

    @property
    def writer(self) -> int:
        """The number by which all proofs of a region know the VM: its ID, else one made from its name."""
        if self.id is not None:
            return self.id
        return NAMED + int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") % (
            _journal.NOBODY - NAMED
        )

    def is_vm(self, vm: Any) -> bool:
        return str(vm) == self.name or (self.id is not None and str(vm) == str(self.id))


@dataclass(frozen=True)
class Shared:
    """A region as this step needs it. ``key`` is its name with prefix, ``size`` is in MB, ``reserved`` in bytes."""

    key: str
    provided_by: str
    size: int
    region_id: int | None
    vms: tuple[Peer, ...]
    reserved: int = 0

    def set_aside(self, options: Options) -> bool:
        """Whether the window lies in bytes that are the proof's, whoever uses the rest."""
        return bool(self.reserved) and options.offset is None

    def index(self, vm: str) -> int | None:
        return next((index for index, peer in enumerate(self.vms) if peer.is_vm(vm)), None)


def _is_planned(value: Any) -> bool:
    """Whether a region is one of a plan, with VM names, IDs and vBDFs."""
    return isinstance(value, Mapping) and all(
        isinstance(vm, Mapping) and {"name", "id", "vbdf"} <= set(vm) for vm in value.get("vms") or [None]
    )


def all_shared(values: Sequence[Any]) -> list[Shared]:
    """The regions of a host."""
    order = _region.alike(value for value in values if _is_planned(value))
    return [shared(value, order) for value in values]


def shared(value: Any, order: Mapping[tuple[str, Any], Mapping[str, int]] | None = None) -> Shared:
    """A region of a plan, or of a declaration as far as that says."""
    if _is_planned(value):
        key = _region.PREFIXES[value["provided_by"]] + value["name"]
        vms = tuple(
            Peer(str(vm["name"]), vm["id"], vm["vbdf"] or None, **(order or {}).get((key, vm["id"]), {}))
            for vm in value["vms"]
        )
        reserved = value.get("reserved") or 0
        return Shared(key, value["provided_by"], value["size"], value.get("region_id"), vms, reserved)
    region = _region.parse_region(value)
    peers = []
    for vm in region.vms:
        number = vm.vm if isinstance(vm.vm, int) else None
        peers.append(Peer(str(vm.vm), number, str(vm.vbdf) if vm.vbdf else None))
    return Shared(
        region.prefixed, region.provided_by, region.size, region.region_id, tuple(peers), region.reserved or 0
    )


@dataclass(frozen=True)
class Options:
    """``mode`` is one of MODES; offset and length are those of the window in mode true."""

    mode: str = IDLE
    offset: int | None = None
    length: int = WINDOW
    doorbell: bool = True
    measure: bool = False
    timeout: float = 300


def mode(value: Any, read_only: bool = False, check: bool = False) -> str:
    """The mode that a variable means, written as YAML, as ``-e`` or in an INI file."""
    word = str(value).strip().lower()
    if word == IDLE:
        found = IDLE
    elif word in ("true", "yes", "on", "1", "y", "t", "1.0"):
        found = CHOSEN
    elif word in ("false", "no", "off", "0", "n", "f", "0.0"):
        found = READ_ONLY
    else:
        raise IvshmemError(f"verify_write is {value!r}: write idle, true or false")
    return READ_ONLY if read_only or check else found


def part(region: Shared, index: int, options: Options) -> _journal.Window:
    """The part of VM number ``index`` in the window of a region, with an empty seed.

    The window is cut into equal parts, so that all VMs write at the same time. With ``measure`` each ends with a word
    for every VM to ask it, and a word for every VM to be answered.
    """
    size, count = region.size * MB, len(region.vms)
    mailbox = 8 * count if options.measure else 0
    length = options.length if options.mode == CHOSEN else count * (TOKEN + mailbox)
    if region.set_aside(options):
        length = min(length, region.reserved // 8 * 8)
    start = size - length if options.offset is None else options.offset
    each = length // count // 8 * 8
    if start < 0 or start % 8 or start + length > size:
        raise IvshmemError(
            f"region '{region.key}': the window at {start} of {length} bytes does not lie in its {size} bytes, or does "
            "not start at a multiple of 8 (verify_window_offset, verify_window_length)"
        )
    try:
        return _journal.Window(start + index * each, each, "00" * 16, mailbox)
    except IvshmemError as exc:
        raise IvshmemError(f"region '{region.key}' of {count} VMs: {exc} (verify_window_length)") from exc


# -- who takes part ----------------------------------------------------------------------------------------------------


def claim(
    regions: Iterable[Any], vm: Any, acrn_host: Any, known: Iterable[Any] = (), hosts: Iterable[str] | None = None
) -> dict[str, Any]:
    """What one guest says in the inventory: its VM, its host, and all regions of that.

    ``known`` are the VMs of the host where its plan is known, ``hosts`` all names that acrn_host can have.
    """
    vm, host = str(vm), str(acrn_host)
    return {
        "vm": vm,
        "acrn_host": host,
        "regions": [dict(value) if isinstance(value, Mapping) else value for value in regions],
        "error": _guests.host_problem(host, None if hosts is None else list(hosts))
        or _guests.vm_problem(vm, host, _guests.known_vms(known)),
    }


@dataclass
class Guest:
    """A guest as the inventory has it. ``error`` is why it cannot be asked."""

    vm: str
    acrn_host: str
    error: str = ""


def fleet(
    hostvars: Mapping[str, Any],
    guests: Sequence[str],
    hosts: Iterable[str] = (),
    write: Any = IDLE,
    read_only: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """All that the stages need to know of the inventory, as plain data. ``hosts`` are ACRN hosts without guests, too.

    Ansible works out all variables of a host for each look into hostvars, so a fleet is looked at once.
    """
    found: dict[str, Any] = {"nonce": os.urandom(32).hex(), "options": {"mode": mode(write, read_only), **options}}
    found["guests"], found["hosts"], found["undeclared"] = {}, {}, {}
    for guest in guests:
        said = hostvars[guest].get("__verify_claim") or {
            "vm": "",
            "acrn_host": str(hostvars[guest].get("acrn_host") or ""),
            "error": "has dropped out of the run by an earlier error",
        }
        found["guests"][guest] = {key: said[key] for key in ("vm", "acrn_host", "error")}
        if not said["error"]:
            found["hosts"].setdefault(said["acrn_host"], said["regions"])
    for host in hosts:
        found["hosts"].setdefault(host, None)
    for host in found["hosts"]:
        _look_at(found, host, _guests.variables_of(hostvars, host))
    session = Session(found, hostvars)
    for regions in session.regions.values():
        for region in regions:
            # A window that cannot be is told before anybody is asked.
            part(region, 0, session.options)
    found["service"] = session.service()
    return found


def _look_at(found: dict[str, Any], host: str, variables: Mapping[str, Any]) -> None:
    """The regions of a host, why it has none, and which of its guests are one and the same VM."""
    plan = variables.get("scenario_plan") or {}
    if found["hosts"][host] is None:
        found["hosts"][host] = plan.get("regions") or variables.get("ivshmem_regions") or []
    if plan.get("undeclared"):
        found["undeclared"][host] = str(plan["undeclared"])
    right = {name: who for name, who in found["guests"].items() if who["acrn_host"] == host and not who["error"]}
    here = {name: who["vm"] for name, who in right.items()}
    if len(here) > 1:
        for guest, problem in _guests.same_problems(here, plan.get("vms") or []).items():
            found["guests"][guest]["error"] = problem


# -- the stages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A step of a guest, and what it is about: never what comes back says so."""

    operation: str
    region: Shared
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: Peer | None = None

    def as_dict(self, own: Peer) -> dict[str, Any]:
        """The step as a module takes it, for the VM that does it."""
        region = self.region
        device: dict[str, Any] = {
            "name": region.key[4:],
            "vbdf": own.bdf,
            "size": region.size,
            "region_id": region.region_id,
        }
        if own.nth:
            device.update(nth=own.nth, nth_of=own.nth_of)
        return {"operation": self.operation, "device": device, **self.options}


class Session:
    """One proof: the steps of each guest at each stage, made from the fleet and from what was answered so far."""

    def __init__(self, plan: Mapping[str, Any], hostvars: Mapping[str, Any]) -> None:
        self.nonce = str(plan["nonce"])
        self.options = Options(**plan["options"])
        self.hostvars = hostvars
        self.regions = {host: all_shared(values) for host, values in plan["hosts"].items()}
        self.guests = {name: Guest(**values) for name, values in plan["guests"].items()}
        # ACRN host -> why nobody has said which regions it has.
        self.undeclared: Mapping[str, str] = plan["undeclared"]
        self._steps: dict[tuple[str, str], list[Step]] = {}
        self._answers: dict[tuple[str, str], _answers.Answers] = {}
        self._vars: dict[str, Mapping[str, Any]] = {}

    # Who is who

    def own(self, guest: str) -> list[tuple[Shared, int]]:
        """The regions of a guest, and its number in each."""
        who = self.guests[guest]
        if who.error:
            return []
        places = [(region, region.index(who.vm)) for region in self.regions.get(who.acrn_host, [])]
        return [(region, index) for region, index in places if index is not None]

    def at(self, host: str, region: Shared) -> dict[int, str]:
        """The guests of a region, by their number in it."""
        found: dict[int, str] = {}
        for name, who in self.guests.items():
            index = None if who.error or who.acrn_host != host else region.index(who.vm)
            if index is not None:
                found.setdefault(index, name)
        return found

    def variables(self, guest: str) -> Mapping[str, Any]:
        if guest not in self._vars:
            names = [variable(stage) for stage in STAGES] + [SERVICE]
            every = self.hostvars[guest]
            self._vars[guest] = {name: every[name] for name in names if name in every}
        return self._vars[guest]

    # Answers

    def answers(self, guest: str, stage: str) -> _answers.Answers:
        key = (guest, stage)
        if key not in self._answers:
            steps = [(step.operation, step.options) for step in self.steps(guest, stage)]
            self._answers[key] = _answers.read(self.variables(guest).get(variable(stage)), steps)
        return self._answers[key]

    def answer(self, guest: str, stage: str, operation: str, region: Shared, peer: Peer | None = None) -> Any:
        """What a step of a guest has found, or None where it has found nothing, or problems."""
        found = self.answers(guest, stage).results
        for step, result in zip(self.steps(guest, stage), found or []):
            if step.operation == operation and step.region is region and step.peer == peer:
                return None if result["problems"] or result["skipped"] else result
        return None

    # What may be done

    def missing(self, host: str, region: Shared) -> list[str]:
        """VMs of a region that do not take part."""
        here = self.at(host, region)
        looked = {index for index, guest in here.items() if self.answer(guest, LOOK, "look", region)}
        return [peer.name for index, peer in enumerate(region.vms) if index not in looked]

    def users(self, host: str, region: Shared) -> list[str]:
        """Why a region is not known to be idle; empty where it is."""
        absent = self.missing(host, region)
        if absent:
            return [f"of {', '.join(absent)} it is not known who uses it"]
        found = []
        for index, guest in self.at(host, region).items():
            look = self.answer(guest, LOOK, "look", region)
            if not look["idle"]:
                found.append(f"{', '.join(look['users'][:3]) or 'somebody'} in {region.vms[index].name} uses it")
        return found + self._service_vm(host, region)

    def _service_vm(self, host: str, region: Shared) -> list[str]:
        """Programs of the Service VM can open the file of a dm-land region."""
        if region.provided_by != _region.DEVICE_MODEL:
            return []
        for name, who in self.guests.items():
            if who.acrn_host == host and SERVICE in self.variables(name):
                holders = _answers.holders(self.variables(name)[SERVICE], region.key[4:])
                if holders is not None:
                    return [f"{each} in the Service VM uses it" for each in holders[:3]]
        return ["of the Service VM it is not known who uses it"]

    def idle(self, host: str, region: Shared) -> bool:
        return not self.users(host, region)

    def unrecovered(self, guest: str, region: Shared) -> bool:
        """Whether a guest still has bytes to put back that an earlier run has left."""
        look = self.answer(guest, LOOK, "look", region)
        return bool(look and look["pending"]) and not self.answer(guest, RECOVER, "restore", region)

    def writable(self, host: str, region: Shared) -> bool:
        here = self.at(host, region)
        if self.options.mode == READ_ONLY or len(here) < 2:
            return False
        if any(self.unrecovered(guest, region) for guest in here.values()):
            return False
        return self.options.mode == CHOSEN or region.set_aside(self.options) or self.idle(host, region)

    def audible(self, host: str, region: Shared) -> bool:
        """Whether doorbells may be rung: an application may listen where it is not idle."""
        return self.options.mode == CHOSEN or self.idle(host, region)

    def measured(self, host: str, region: Shared) -> bool:
        return self.options.measure and self.writable(host, region) and self.idle(host, region)

    # Steps

    def window(self, host: str, region: Shared, index: int) -> dict[str, Any]:
        where = part(region, index, self.options)
        text = json.dumps([self.nonce, host, region.key, index])
        seed = hashlib.sha256(text.encode()).hexdigest()
        writer = region.vms[index].writer
        place = {"offset": where.offset, "length": where.length, "mailbox": where.mailbox}
        return {**place, "seed": seed, "writer": writer}

    def reach(self, region: Shared, index: int) -> dict[str, Any]:
        """The windows of all VMs of a region, in which one looks for what it has left and forgotten."""
        first, last = (part(region, each, self.options) for each in (0, len(region.vms) - 1))
        return {"offset": first.offset, "length": last.end - first.offset, "writer": region.vms[index].writer}

    def steps(self, guest: str, stage: str) -> list[Step]:
        key = (guest, stage)
        if key not in self._steps:
            self._steps[key] = getattr(self, f"_{stage}")(guest)
        return self._steps[key]

    def rendered(self, guest: str, stage: str) -> list[dict[str, Any]]:
        """The steps as guest_probe takes them."""
        index = {region.key: index for region, index in self.own(guest)}
        return [step.as_dict(step.region.vms[index[step.region.key]]) for step in self.steps(guest, stage)]

    def service(self) -> dict[str, list[dict[str, Any]]]:
        """For which dm-land regions the Service VM has to be asked who uses their files, and by which guest's task."""
        found: dict[str, list[dict[str, Any]]] = {}
        for host, regions in self.regions.items():
            here = [name for name, who in self.guests.items() if who.acrn_host == host and not who.error]
            wanted = [
                {"name": region.key[4:], "size": region.size}
                for region in regions
                if region.provided_by == _region.DEVICE_MODEL and len(self.at(host, region)) == len(region.vms)
            ]
            if here and wanted and self.options.mode != READ_ONLY:
                found[here[0]] = wanted
        return found

    def _look(self, guest: str) -> list[Step]:
        reading = self.options.mode == READ_ONLY
        return [Step("look", region, {} if reading else self.reach(region, index)) for region, index in self.own(guest)]

    def _recover(self, guest: str) -> list[Step]:
        if self.options.mode == READ_ONLY:
            return []
        looks = ((region, index, self.answer(guest, LOOK, "look", region)) for region, index in self.own(guest))
        return [
            Step("restore", region, self.reach(region, index))
            for region, index, look in looks
            if look and look["pending"]
        ]

    def _hash(self, region: Shared) -> Step:
        return Step("hash", region, {"nonce": hashlib.sha256(f"{self.nonce} {region.key}".encode()).hexdigest()})

    def _write(self, guest: str) -> list[Step]:
        steps = []
        host = self.guests[guest].acrn_host
        for region, index in self.own(guest):
            if not self.answer(guest, LOOK, "look", region):
                continue
            if not self.writable(host, region):
                steps.append(self._hash(region))
                continue
            only_idle = self.options.mode == IDLE and not region.set_aside(self.options)
            steps.append(Step("write", region, {**self.window(host, region, index), "only_idle": only_idle}))
            echo = self._echo(host, region, index) if self.measured(host, region) else []
            rung = self.options.doorbell and region.provided_by == _region.HYPERVISOR and self.audible(host, region)
            if echo or rung:
                steps.append(Step("arm", region, {"timeout": self.options.timeout, "echo": echo}))
        return steps

    def _echo(self, host: str, region: Shared, index: int) -> list[list[int]]:
        count = len(region.vms)
        mine = part(region, index, self.options)
        pairs = []
        for other in range(count):
            if other != index:
                theirs = part(region, other, self.options)
                ask = theirs.offset + theirs.token_length + 4 * index
                pairs.append([ask, mine.offset + mine.token_length + 4 * count + 4 * other])
        return pairs

    def wrote(self, guest: str, region: Shared) -> bool:
        found = self.answer(guest, WRITE, "write", region)
        return bool(found and found["written"])

    def _read(self, guest: str) -> list[Step]:
        steps: list[Step] = []
        host = self.guests[guest].acrn_host
        for region, index in self.own(guest):
            if not self.answer(guest, LOOK, "look", region):
                continue
            if not self.writable(host, region):
                steps.append(self._hash(region))
                continue
            own = part(region, index, self.options)
            measured = self.measured(host, region) and self.wrote(guest, region)
            if measured:
                steps.append(Step("measure", region, {"offset": own.offset, "length": own.token_length}))
            for other, peer_guest in self.at(host, region).items():
                if other != index and self.wrote(peer_guest, region):
                    steps += self._pair(host, region, index, other, peer_guest, measured)
        return steps

    def _pair(self, host: str, region: Shared, index: int, other: int, peer_guest: str, measured: bool) -> list[Step]:
        """What a guest does with one of its peers."""
        peer, count = region.vms[other], len(region.vms)
        theirs, mine = part(region, other, self.options), part(region, index, self.options)
        window = self.window(host, region, other)
        where = {"offset": theirs.offset, "length": theirs.token_length, "seed": window["seed"]}
        steps = [Step("read", region, where, peer)]
        ears = self.answer(peer_guest, WRITE, "arm", region)
        if ears and ears["receivable"] and ears["vectors"] and peer.id is not None and self.options.doorbell:
            # Each sender has a vector of its own, so that the receiver can tell who rang.
            steps.append(Step("ring", region, {"peer": peer.id, "vector": index % ears["vectors"]}, peer))
        if measured and ears:
            request = mine.offset + mine.token_length + 4 * other
            reply = theirs.offset + theirs.token_length + 4 * count + 4 * index
            steps.append(Step("measure", region, {"request": request, "reply": reply}, peer))
        return steps

    def _end(self, guest: str) -> list[Step]:
        """Each guest puts its own bytes back. No other can."""
        if self.options.mode == READ_ONLY:
            return []
        host = self.guests[guest].acrn_host
        first = self.steps(guest, WRITE)
        steps = [Step("collect", step.region) for step in first if step.operation == "arm"]
        written = [step.region for step in first if step.operation == "write"]
        for region, index in self.own(guest):
            if region in written:
                steps.append(Step("restore", region, self.window(host, region, index)))
            elif self.unrecovered(guest, region):
                steps.append(Step("restore", region))
        return steps


def to_keep(report: Mapping[str, Any], hostvars: Mapping[str, Any], host: str, guests: Iterable[str]) -> str | None:
    """What the guests of an ACRN host shall keep after a proof: its name, nothing, or, if None, what they have.

    What speaks against the regions ends what an earlier proof has said of them, whether or not anything was written.
    """
    if any(problem["acrn_host"] == host for problem in report["problems"]):
        return ""
    # A guest tells its boot before anything is written: if it boots later, its proof is one of another boot.
    return (proof(hostvars, host, guests, variable(LOOK)) or None) if host in report["kept"] else None


def proof(hostvars: Mapping[str, Any], host: str, guests: Iterable[str], told: str = "guest_result") -> str:
    """What a proof of an ACRN host's regions would stand for: its plan, and which boot of which guest took part.

    Empty where that is not known: of a guest that could not say which boot this is, or without a plan. ``told`` is
    the variable in which it has said so.
    """
    plan = _guests.variables_of(hostvars, host).get("scenario_plan") or {}
    boots = {}
    for guest in guests:
        variables = hostvars[guest]
        if variables.get("acrn_host") == host:
            said = variables.get(told)
            boots[guest] = [str(variables.get("acrn_vm")), said.get("boot_id") if isinstance(said, Mapping) else None]
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
