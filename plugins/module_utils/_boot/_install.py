# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The installation of a hypervisor: what one run does on a host, step by step, so that it may end after any of them.

Which step is next is decided in _boot, from what the boot loader and state.json say; files and boot loader are changed
in _host and _loader.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import base64
import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _entries as core
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _packaged
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._artifact import Artifact
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import State
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._host import Host, Settings, now
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import locked, unified
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    Device,
    IvshmemError,
    read_device,
)


class Failure(Exception):
    """The host is as it shall be after a failure; the outcome is told."""

    def __init__(self, outcome: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = dict(facts, outcome=outcome)


def hypervisor_devices(regions: Iterable[Mapping[str, Any]]) -> list[Device]:
    """The devices of the Service VM that a hypervisor makes. Raises IvshmemError with the region."""
    found = []
    for region in regions:
        device = read_device(region, f"regions: {region.get('name')}")
        if not device.name or device.size is None:
            raise IvshmemError(f"regions: {device.name}: name and size are needed to prove that a region is there")
        if device.provided_by != DEVICE_MODEL:
            found.append(device)
    return found


class Install:
    """One run, with the parameters of the module."""

    def __init__(self, params: Mapping[str, Any], host: Host) -> None:
        self.params = params
        self.host = host
        self.loader = host.loader
        self.boot = self.loader.boot()
        # What goes needs not be read.
        self.before = State() if params["state"] == "absent" else host.state()
        self.state = copy.deepcopy(self.before)
        self.diff: dict[str, str] | None = None
        self.regions: list[Device] = []
        self.moved()

    def save(self) -> None:
        self.host.save_state(self.state, self.before)
        self.before = copy.deepcopy(self.state)

    def note(self, event: str, entry: str | None, detail: str = "") -> None:
        self.state.note(now(), event, entry, detail)

    def move(self, entry: str | None, given_up: bool = False, disarm: bool = False) -> None:
        """Make an entry the default, and what was the default the way back."""
        # One that was the default until the boot loader lost it has its way back already.
        again = entry is not None and entry == self.state.chosen(self.boot.running)
        self.state.move = core.Move(self.state.previous if again else self.boot.default, entry, given_up)
        self.save()
        self.loader.set_default(entry, disarm)
        self.boot = replace(self.boot, default=entry)
        self.moved()

    def moved(self) -> None:
        """Record a change of the default, of this run or of one that ended before it could."""
        move = self.state.settle(self.boot)
        if move and move.given_up:
            self.state.failed[str(move.before)] = "it was left on request"
            self.note("rolled back", move.after, f"from {move.before}")

    def menu(self, texts: Sequence[str] | None) -> None:
        before, after = self.loader.set_menu(texts, self.params["sign"])
        first = self.diff["before"] if self.diff else before
        self.diff = unified(first, after, self.loader.menu_file)

    def settings(self) -> Settings:
        params = self.params
        return Settings(
            cmdline=params["cmdline"],
            panic=params["panic"],
            root=params["root"] or "",
            kernel=params["kernel"] or "",
            initrd=params["initrd"] or "",
            modules=tuple(sorted((str(tag), str(path)) for tag, path in params["modules"].items())),
            title=params["title"] or "",
            keep=params["keep"],
            sign=params["sign"],
        )

    def present(self) -> dict[str, Any]:
        given = self.params["_artifact"]
        if given:
            artifact = Artifact.parse(given["manifest.json"], base64.b64decode(given["scenario.xml"]))
            if self.params["key"] not in (None, artifact.key):
                raise IvshmemError(
                    f"the artefact is of the key {artifact.key}, and not {self.params['key']}: give one of both "
                    "(artifact_dir or key, in the role hypervisor_artifact_dir or hypervisor_key)"
                )
        elif self.params["key"]:
            artifact = self.host.artifact(self.params["key"])
        else:
            raise IvshmemError(
                "state=present wants key or artifact_dir (in the role hypervisor_key or hypervisor_artifact_dir)"
            )
        self.check_signing()
        self.loader.check_menu()
        settings = self.settings()
        self.regions = hypervisor_devices(self.params["regions"])
        entry, text = self.host.render(artifact, settings)
        facts: dict[str, Any] = {"key": artifact.key, "entry": entry, "differs": self.differs(artifact, settings)}
        step = core.decide(entry, self.boot, self.state, self.params["retry"])
        self.stop_if_bad(step, entry)
        if step == core.ARM:
            self.loader.check_one_shot()
            self.loader.warn_of_menu()

        lacking = self.host.lacking(artifact, settings.sign)
        if lacking:
            self.host.check_room(artifact, lacking)
        if lacking and not self.host.dry:
            if not given:
                raise IvshmemError(
                    f"{artifact.key}: {', '.join(lacking)} of this build are damaged here; give artifact_dir "
                    "(in the role hypervisor_artifact_dir)"
                )
            if not self.params["_staged"]:
                return dict(facts, outcome="waiting", reboot_needed=True, _missing=lacking)
        self.host.add_files(artifact, lacking, self.params["_staged"], settings.sign)
        if artifact.key not in self.state.installed:
            self.state.installed.append(artifact.key)
            self.note("installed", entry)
        # A record that was lost must not cost the files of what runs.
        self.state.installed = core.with_found(self.state.installed, self.host.builds())
        self.state.wanted = entry
        self.host.add_entry(entry, text)
        # The new entry comes first, then what it is for, and only then what nobody needs any more goes.
        texts = dict(self.host.entries(), **{entry: text})
        self.menu([texts[name] for name in core.menu_order(texts, self.state.installed)])
        self.forget_other_trial(entry)
        facts.update(self.go_on(step, entry, artifact))
        keys = core.kept_keys(entry, self.boot, self.state, settings.keep)
        entries = core.menu_order(core.kept_entries(texts, keys, entry, self.boot, self.state), self.state.installed)
        self.menu([texts[name] for name in entries])
        gone = self.host.prune(keys, entries)
        # What a run removed that ended before it could record it, is gone too.
        there = {artifact.key, *self.host.builds()}.difference(gone)
        self.state.installed = [key for key in self.state.installed if key in there]
        if len(self.state.failed) > core.HISTORY:
            kept = self.state.installed
            self.state.failed = {name: why for name, why in self.state.failed.items() if core.key_of(name) in kept}
        self.save()
        return facts

    def differs(self, artifact: Artifact, settings: Settings) -> list[str]:
        lacking = self.host.lacking_arguments(artifact, settings)
        if lacking:
            self.host.warnings.append(
                "the host's own boot entry for ACRN gives arguments that the new one lacks: "
                f"{' '.join(lacking)}; add those that are needed to cmdline (in the role hypervisor_cmdline)"
            )
        return lacking

    def check_signing(self) -> None:
        if self.host.secure_boot() and not self.params["sign"]:
            raise IvshmemError(
                "Secure Boot is on, and GRUB loads signed files only; say how files are signed "
                "(sign, in the role hypervisor_sign), or switch Secure Boot off in the firmware"
            )

    def forget_other_trial(self, entry: str) -> None:
        """Judge the trial of an entry that nobody wants any more, or take it back."""
        lost = core.fallen(self.boot, self.state)
        if lost and lost != entry:
            self.state.failed[lost] = core.why_fallen(self.boot)
            self.state.trial = None
            self.note("fell_back", lost, self.state.failed[lost])
        left = self.boot.next
        if left and left != entry and left == self.state.trial:
            self.loader.disarm()
            self.boot = replace(self.boot, next=None)
            self.state.trial, self.state.came_up = None, False
            self.note("disarmed", left)

    def stop_if_bad(self, step: str, entry: str) -> None:
        """Record and report a trial that failed."""
        if step == core.FELL_BACK:
            why = core.why_fallen(self.boot)
            self.fail(entry, "fell_back", why)
            raise Failure(
                "fell_back",
                f"{entry} was rolled back: {why}. The host is as it was before. Build a hypervisor "
                "that boots, or try this one again "
                "with retry (in the role hypervisor_retry)",
                reboot_needed=False,
                entry=entry,
            )
        if step == core.REFUSE:
            raise Failure(
                "refused",
                f"{entry} is not installed again: {self.state.failed[entry]}. Build a hypervisor that "
                "boots, or try this one again with "
                "retry (in the role hypervisor_retry)",
                reboot_needed=self.boot.running != self.boot.default,
                entry=entry,
            )

    def fail(self, entry: str, event: str, why: str) -> None:
        # First the default, then the record: a record that is missing is made again, a default that is wrong is not.
        if self.boot.default == entry:
            self.loader.set_default(self.state.previous)
        # One that still runs fails again with each run, which is no news.
        if self.state.failed.get(entry) != why or self.state.trial == entry:
            self.note(event, entry, why)
        self.state.failed[entry] = why
        self.state.trial, self.state.came_up = None, False
        self.save()

    def go_on(self, step: str, entry: str, artifact: Artifact) -> dict[str, Any]:
        if step == core.DONE:
            _packaged.sync(self.host, artifact)
            self.save()
            return {"outcome": "default", "reboot_needed": False}
        if step == core.PROVE:
            return self.prove(entry, artifact)
        if step == core.ARM and self.params["trial"]:
            # The record comes first. GRUB's own note tells later whether the trial really began.
            begun = self.state.trial == entry and not self.state.came_up and entry not in self.state.failed
            if not begun or self.boot.tried == entry:
                # Otherwise a run that ended before it could tell GRUB has recorded it.
                self.note("armed", entry)
            self.state.trial = entry
            self.state.came_up = False
            self.state.failed.pop(entry, None)
            self.save()
            self.loader.arm(entry)
            self.boot = replace(self.boot, next=entry, tried=None)
            return {"outcome": "armed", "reboot_needed": True}
        self.save()
        return {"outcome": "armed" if step == core.WAIT else "waiting", "reboot_needed": True}

    def prove(self, entry: str, artifact: Artifact) -> dict[str, Any]:
        params = self.params
        self.state.came_up = self.state.trial == entry
        self.save()
        # Nobody knows what a command does: in check mode it is not run.
        proofs = self.host.proofs(entry, params["proofs"], self.regions, [] if self.host.dry else params["commands"])
        wrong = [f"{proof['name']}: {proof['detail']}" for proof in proofs if not proof["ok"]]
        if wrong:
            why = "it runs, but " + "; ".join(wrong)
            self.fail(entry, "unproven", why)
            raise Failure(
                "unproven",
                f"{entry} did not prove itself: {why}. The next boot goes back to "
                f"{self.state_default(entry)}; the host is otherwise as it "
                "was before",
                reboot_needed=True,
                entry=entry,
                proofs=proofs,
            )
        if self.boot.default != entry:
            self.move(entry)
        self.state.trial, self.state.came_up = None, False
        self.state.failed.pop(entry, None)
        self.note("default", entry)
        self.save()
        _packaged.sync(self.host, artifact)
        return {"outcome": "default", "reboot_needed": False, "proofs": proofs}

    def state_default(self, entry: str) -> str:
        default = self.state.previous if self.boot.default == entry else self.boot.default
        return default or "the entry of the host"

    def previous(self) -> dict[str, Any]:
        if self.host.untouched():
            return self.own_entry()  # and nothing is noted, which would be a trace
        boot, state = self.boot, self.state
        if self.host.builds():
            self.loader.check_default(state.chosen(boot.running))
        target = boot.default
        if state.trial or (boot.running and boot.running != boot.default):
            # A trial is under way: the default is the previous one.
            if boot.next:
                self.loader.disarm()
            left = state.trial or boot.running
            if left and left not in state.failed:
                state.failed[left] = "it was given up on request"
                self.note("given up", left)
            state.trial, state.came_up = None, False
        elif boot.default and state.previous != boot.default and state.previous not in state.failed:
            target = state.previous
            self.check_record(boot.default)
            if target:
                self.check_way_back(target)
            self.move(target, True, disarm=bool(boot.next))
        state.wanted = None
        self.save()
        if target:
            _packaged.sync(self.host, self.host.artifact(str(core.key_of(target))))
        else:
            _packaged.restore(self.host)
        done = boot.running == target
        return {
            "outcome": "default" if done else "waiting",
            "reboot_needed": not done,
            "entry": target,
            "key": core.key_of(target),
        }

    def check_record(self, default: str) -> None:
        """Raise IvshmemError if state.json is lost, and with it which of several hypervisors was the one before."""
        own = core.key_of(default)
        others = [key for key in self.host.builds() if key != own]
        if others and own not in self.state.installed:
            raise IvshmemError(
                f"{self.host.state_file}: it does not tell of {own}, which is the default, so it was emptied or "
                "removed, and nobody knows which hypervisor was the default before. Boot a build that is here "
                f"(playbook acrn.ivshmem.install with hypervisor_key={' or '.join(others)}), or the host's own entry "
                "(playbook acrn.ivshmem.remove)"
            )

    def check_way_back(self, entry: str) -> None:
        """Raise IvshmemError if an entry that shall be booted again could not be."""
        key = str(core.key_of(entry))
        other = "(state=present), or boot the host's own entry (state=absent, playbook acrn.ivshmem.remove)"
        mend = f"install {key} again {other}"
        folder = os.path.join(self.host.boot_dir, key)
        if key not in self.host.builds():
            raise IvshmemError(f"{folder}: the build to go back to is not there any more; {mend}")
        try:
            lacking = self.host.lacking(self.host.artifact(key))
        except IvshmemError as exc:
            raise IvshmemError(f"{exc} {other}") from exc
        if lacking:
            raise IvshmemError(f"{folder}: the build to go back to is damaged ({', '.join(lacking)}); {mend}")
        if not self.loader.offers(entry):
            raise IvshmemError(f"{self.loader.menu_file}: the entry to go back to, {entry}, is not in the menu; {mend}")

    def absent(self) -> dict[str, Any]:
        host, boot = self.host, self.boot
        if self.loader.signs():
            self.check_signing()
        if os.path.exists(self.loader.menu_file) and not self.loader.untouched():
            self.loader.check_tools()
        self.loader.forget(disarm=bool(boot.next))
        # Before the menu: a removal that ends there must not name an entry as the way back that is no more.
        host.forget_state()
        self.menu(None)
        _packaged.restore(host)
        host.remove_own_files()
        return self.own_entry()

    def own_entry(self) -> dict[str, Any]:
        """The result where the host's own entry is the default."""
        waits = bool(self.boot.running)
        return {"outcome": "waiting" if waits else "default", "reboot_needed": waits, "entry": None, "key": None}


def work(params: Mapping[str, Any], host: Host, diff: bool = False) -> dict[str, Any]:
    """One run; the module's result. Raises IvshmemError and OSError."""
    install = Install(params, host)
    states = {"present": install.present, "previous": install.previous, "absent": install.absent}
    try:
        result = states[params["state"]]()
    except Failure as exc:
        result = dict(exc.facts, failed=True, msg=str(exc))
    if diff and install.diff:
        result["diff"] = install.diff
    if host.warnings:
        result["warnings"] = host.warnings
    boot = install.boot if host.dry else host.loader.boot()
    return dict(result, changed=bool(host.changed), steps=host.changed, running=boot.running, default=boot.default)


def run(params: Mapping[str, Any], host: Host, diff: bool = False) -> dict[str, Any]:
    """work(), alone on this host unless nothing is written."""
    present = params["state"] == "present"
    untouched = not present and host.untouched()
    if not untouched:
        host.loader.check_there()
    if host.dry or untouched:
        return work(params, host, diff)
    if present:
        host.loader.check_menu()
    # The lock is on a file that removal does not take away. Where somebody has removed GRUB, nothing can be installed.
    menu = host.loader.menu_file
    with locked(menu if os.path.isdir(os.path.dirname(menu)) else host.boot_dir, what="hypervisor_install"):
        host.sweep()
        return work(params, host, diff)
