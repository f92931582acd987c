# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts and VMs wait for a step that nobody has allowed or nobody can take, and what ends the wait.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller, on what the plays have left in the variables of hosts. All playbooks ask here: which guests
are left alone, what a plan and a report say of a host, and what the table NEXT STEPS has.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._words import convert
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _variables

Values = Mapping[str, Any]

# States of a host, in the order in which they end.
REFUSED = "refused"  # what this run would do is not what was approved
LOST = "lost"  # the host or guest could not be reached, or its step has failed
ELSEWHERE = "elsewhere"  # the plan wants another hypervisor, and no tree says how to build it
NOT_BUILT = "not_built"  # the run is without the phase build (--tags), or the builder does not answer
BUILT = "built"
INSTALLED = "installed"
UNKNOWN = "unknown"  # the hypervisor that runs is not known to have what launch scripts need
# States of a VM.
OUTDATED = "outdated"
STOPPED = "stopped"
UNLAUNCHED = "unlaunched"
STATES = (REFUSED, LOST, ELSEWHERE, NOT_BUILT, BUILT, INSTALLED, UNKNOWN, OUTDATED, STOPPED, UNLAUNCHED)

# Where each state is told, under a heading of its own.
PAGE = "docs/waiting.md"

# Ansible's JSON output puts 11 characters around a line of a list.
WIDTH = 68
COLUMNS = (16, 18, 30)
TITLE = ("WHO", "WAITS", "WHAT ENDS IT")
# So many names are told of hosts that are alike.
NAMES = 24


# What starts a VM where launch_started=true would not.
_STARTS = {
    "nobody": "start it by its script",
    "no_systemd": "start it by its script; there is no systemd for launch_units",
    "no_acrn": "boot ACRN, then -e launch_started=true",
}


@dataclass(frozen=True)
class Wait:
    """One who waits. ``vm`` is empty for the host itself; ``guests`` are left alone until the wait has ended."""

    host: str
    vm: str
    state: str
    what: str
    end: str
    guests: tuple[str, ...] = ()


class Host:
    """An ACRN host after the plays. ``build`` is what _builds.built has for it, or None where nobody has said.

    ``builders`` are those that could build it, or None where none was asked in this playbook. ``guests`` gives the
    variables of its guests; of a fleet in which nobody waits they are not asked for. ``away`` is its builder, where
    that does not answer.
    """

    def __init__(
        self,
        values: Values,
        guests: Callable[[], Iterable[Values]] = tuple,
        build: Values | None = None,
        builders: Sequence[str] | None = None,
        away: str = "",
    ) -> None:
        self.name = str(values["inventory_hostname"])
        self.values = values
        self.plan: Values = values.get("scenario_plan") or {}
        self.build = build or {}
        self.builders = builders
        self.away = away
        self.install, self.reboot = (_is(values, name) for name in ("hypervisor_install", "hypervisor_reboot"))
        self.restart = _is(values, "launch_restart")
        look = values.get("__launch_compared") or {}
        self.look: Values = look if "hypervisor" in look else {}
        # Who can start VMs, as launch_state has it.
        self.start = str(self.look.get("start") or "units")
        info = values.get("plan_hypervisor") or values.get("report_hypervisor") or {}
        self.info: Values = info if "running_key" in info else {}
        self._guests = guests

    # -- what is known ----

    @property
    def asked(self) -> bool:
        return bool(self.look or self.info)

    @property
    def running_key(self) -> str | None:
        found = self.look.get("hypervisor") or self.info
        return found.get("running_key")

    @property
    def installed(self) -> list[str]:
        own = (self.look.get("hypervisor") or {}).get("installed")
        return list(own if own is not None else [each["key"] for each in self.info.get("builds") or []])

    @property
    def declared(self) -> dict[str, int]:
        """Size of the hv-land regions of the plan."""
        regions = self.plan.get("regions") or []
        return {region["name"]: region["size"] for region in regions if region["provided_by"] == "hypervisor"}

    @property
    def missing(self) -> list[str]:
        """hv-land regions that what runs is not known to have."""
        if self.look:
            return list(self.look["hypervisor"]["missing"])
        has = {region["name"]: region["size"] for region in self.plan.get("start") or []}
        for each in self.info.get("builds") or []:
            if each["key"] == self.running_key:
                has = {_bare(region["name"]): region["size"] for region in each.get("regions") or []}
        return [f"hv:/{name}" for name, size in self.declared.items() if has.get(name) != size]

    def of_vm(self, *names: str) -> tuple[str, ...]:
        """Guests of VMs; a guest has the name or the ID of its VM."""
        ids = {str(vm["id"]) for vm in self.plan.get("vms") or [] if vm["name"] in names}
        vms = {str(guest["inventory_hostname"]): str(guest.get("acrn_vm")) for guest in self._guests()}
        return tuple(guest for guest, vm in vms.items() if vm in names or vm in ids)

    def vms(self, *load_orders: str) -> list[str]:
        """VMs that have regions."""
        sharing = {vm["name"] for region in self.plan.get("regions") or [] for vm in region["vms"]}
        vms = self.plan.get("vms") or []
        return [vm["name"] for vm in vms if vm.get("load_order") in load_orders and vm["name"] in sharing]

    # -- what follows ----

    def waits(self) -> list[Wait]:
        if self.values.get("plan_refused"):
            guests = tuple(str(guest["inventory_hostname"]) for guest in self._guests())
            return [Wait(self.name, "", REFUSED, "not as approved", "a new plan, approved again", guests)]
        if not self.plan:
            return []
        own = self._hypervisor()
        found = [own] if own else []
        # Without builders nobody has looked at the VMs either.
        if self.builders is None or (own and self._left(own)):
            return found
        return [*found, *self._vms()]

    def later(self) -> tuple[str, ...]:
        """In check mode the guests of VMs that the run itself would start: until then they have not what it binds."""
        vms = [vm for key in ("launch_just_started", "launch_restarted") for vm in self.values.get(key) or []]
        return self.of_vm(*vms) if vms and self.values.get("ansible_check_mode") else ()

    def _left(self, wait: Wait) -> bool:
        """Whether launch scripts and VMs are as they were for the sake of the hypervisor."""
        return bool(self.look.get("waits")) or wait.state == UNKNOWN

    def _hypervisor(self) -> Wait | None:
        found = self._reason()
        if found is None:
            return None
        state, what, end = found
        # What the hypervisor starts has other devices until then; of the rest, what launch scripts would bring.
        names = self.vms("pre_launched", "service") if state in (BUILT, INSTALLED) or self.missing else []
        if self.look.get("waits") or (state == INSTALLED and not self.asked):
            names += self.vms("post_launched")
        return Wait(self.name, "", state, what, end, self.of_vm(*names))

    def _reason(self) -> tuple[str, str, str] | None:
        result = self.values.get("hypervisor_install_result")
        if result:
            return self._installed() if result["reboot_needed"] else self._doubt()
        if self.away:
            return NOT_BUILT, f"{self.away} cannot be reached", "a run when it can be, or with another builder"
        key = self.build.get("key")
        if self.info.get("reboot_needed") and not key and not self.look:
            return self._installed()
        if self._told() and not self.install:
            return None
        if self.build:
            # In check mode, before there is a tree, there is no key yet.
            if key and self.running_key == key:
                return self._doubt()
            if self.install:
                return None if self.reboot else self._installed()
            if key in self.installed:
                return self._installed()
            what = "built, not installed" if self.asked else "built, not known to run"
            return BUILT, what, "-e hypervisor_install=true"
        # A phase alone (--tags) has not looked, and may have asked no builder.
        if not self.asked or not self.missing:
            return self._doubt()
        told = _few(self.missing)
        if self.builders is None:
            return (ELSEWHERE, f"what runs has not {told}", "acrn.ivshmem.plan tells")
        if self.values.get("scenario_build_inputs"):
            return NOT_BUILT, "not built in this run", "a run with the phase build"
        end = "acrn_source, to build it; once it runs: -e launch_hypervisor_manifest="
        return ELSEWHERE, f"not built, acrn_source not set: {told}", end

    def _told(self) -> bool:
        """Whether somebody has said that what runs has all regions."""
        if self.look:
            return bool(self.look["hypervisor"].get("told"))
        return self.values.get("launch_hypervisor_manifest") == ""

    def _installed(self) -> tuple[str, str, str]:
        allow = "" if self.install else "-e hypervisor_install=true "
        return INSTALLED, "installed, not rebooted", f"{allow}-e hypervisor_reboot=true"

    def _doubt(self) -> tuple[str, str, str] | None:
        if not self.look.get("waits"):
            return None
        told = _few(self.look["hypervisor"]["lacking"])
        return UNKNOWN, f"not known to have {told}", "-e launch_hypervisor_manifest="

    def _vms(self) -> list[Wait]:
        running = {vm["name"]: vm.get("fits") for vm in self.look.get("vms") or []}
        restarted, started, outdated = (
            list(self.values.get(name) or []) for name in ("launch_restarted", "launch_just_started", "launch_outdated")
        )
        found = []
        for name in self.look.get("launched") or []:
            if name in outdated and name not in restarted:
                wait = self._vm(name, OUTDATED, "runs the old script", self._restart(name))
                # Whatever else is new in the script, its guest has the devices that it is to have.
                found.append(replace(wait, guests=()) if running.get(name) else wait)
            elif name not in running and name not in started:
                found.append(self._vm(name, STOPPED, "does not run", _STARTS.get(self.start, "-e launch_started=true")))
        return [*found, *self._unlaunched()]

    def _restart(self, name: str) -> str:
        if self.start in ("nobody", "no_systemd"):
            return "stop it and start it by hand"
        if self.restart and name in (self.look.get("hypervisor") or {}).get("unsure", ()):
            return "if the hypervisor has its regions: -e launch_hypervisor_manifest="
        return "-e launch_restart=true"

    def _unlaunched(self) -> list[Wait]:
        """Post-launched VMs that are to share memory, and that nothing of the collection launches."""
        fits = {vm["name"]: vm["fits"] for vm in self.look.get("others") or []}
        listed = [vm.get("name") for vm in _variables.word(self.values.get("launch_vms"), "launch_vms") or []]
        found = []
        for name in self.vms("post_launched"):
            if name in (self.look.get("launched") or listed):
                continue
            # Somebody else launches it, with the right devices or unseen and with a guest that tells by itself.
            if fits.get(name) or (name not in fits and self.of_vm(name)):
                continue
            what = "runs without its regions" if fits.get(name) is False else "nothing launches it"
            found.append(self._vm(name, UNLAUNCHED, what, "an entry in launch_vms"))
        return found

    def _vm(self, name: str, state: str, what: str, end: str) -> Wait:
        return Wait(self.name, name, state, what, end, self.of_vm(name))


def lost(name: str) -> Wait:
    """What a host or guest waits for that a play has gone on without."""
    return Wait(name, "", LOST, "not done, see its error above", "a run again, once that is mended")


def stopped(name: str) -> Wait:
    """What a host waits for in front of which the run has ended."""
    return Wait(name, "", LOST, "not done, the run has stopped before it", "a run again, once that is mended")


def _is(values: Values, name: str) -> bool:
    return bool(convert(name, {"type": "bool"}, values.get(name)))


def _bare(name: str) -> str:
    return name[4:] if name[:4] == "hv:/" else name


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])])


def as_values(waits: Iterable[Wait]) -> list[dict[str, Any]]:
    """Waits for programs and for templates."""
    return [{**asdict(wait), "guests": list(wait.guests)} for wait in waits]


def table(waits: Iterable[Values]) -> list[str]:
    """The lines of the table NEXT STEPS, who is alike together; none where nobody waits."""
    alike: dict[tuple[int, str, str], dict[str, list[str]]] = {}
    for wait in waits:
        key = (STATES.index(wait["state"]), wait["what"], wait["end"])
        alike.setdefault(key, {}).setdefault(wait["host"], []).extend([wait["vm"]] if wait["vm"] else [])
    if not alike:
        return []
    rows = [(_who(hosts), what, end) for (_state, what, end), hosts in sorted(alike.items())]
    longest = [max(len(word) for cell in column for word in _tied(cell).split()) for column in zip(*rows)]
    narrow = any(found > width for found, width in zip(longest, COLUMNS))
    lines = _stacked(rows) if narrow else [line for row in [TITLE, *rows] for line in _columns(row)]
    states = dict.fromkeys(STATES[at] for at, _what, _end in sorted(alike))
    more = ", ".join(f"#{state}" for state in states)
    return ["NEXT STEPS", *lines, *_wrapped(f"More: {PAGE} {more}", WIDTH)]


def _who(hosts: Mapping[str, Sequence[str]]) -> str:
    names = [f"{host} {' '.join(vms)}".strip() for host, vms in hosts.items()]
    more = [f"and {len(names) - NAMES} more"] if len(names) > NAMES else []
    return ", ".join([*names[:NAMES], *more])


def _tied(text: str) -> str:
    """A text in which an option stays with its value, so that it can be copied."""
    return re.sub(r"(?<=^-e) |(?<= -e) ", "\0", text)


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(_tied(text), width, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def _stacked(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """For names that are too long for a column."""
    lines = []
    for who, what, end in rows:
        lines += _wrapped(f"{who}:", WIDTH)
        lines += [f"  {line}" for line in _wrapped(f"{what}: {end}", WIDTH - 2)]
    return lines


def _columns(cells: tuple[str, str, str]) -> list[str]:
    columns = [_wrapped(cell, width) for cell, width in zip(cells, COLUMNS)]
    height = max(map(len, columns))
    padded = [[*column, *[""] * (height - len(column))] for column in columns]
    return ["  ".join(text.ljust(width) for text, width in zip(line, COLUMNS)).rstrip() for line in zip(*padded)]
