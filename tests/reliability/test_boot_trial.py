# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Histories of a Service VM with power cuts: no bad hypervisor is ever the default, and all of them come to an end.

A history is a series of calls of hypervisor_install, reboots, power cuts and errors, drawn from a seed. Some builds
hang, some run without proving themselves. After each step the boot loader's files have to be fit for the next boot.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import re

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _entries as core
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._host import Host
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.tests.reliability import figures, service_vm
from ansible_collections.acrn.ivshmem.tests.reliability.target import listing

# Good builds prove themselves, bad ones hang, shy ones run and are not seen to be ACRN.
NATURES = {"good1": "good", "good2": "good", "good3": "good", "bad_1": "bad", "bad_2": "bad", "shy_1": "shy"}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
# Functions of the system that change a disk; one that opens a file does so only with certain flags.
WRITES = ("fsync", "rename", "pwrite", "unlink", "mkdir", "rmdir", "symlink", "fchmod", "chown", "open")
# A history ends with this many steps at most that lead to a proven default: trial, reboot, proof, and what was before.
STEPS_TO_THE_END = 8


class PowerCut(BaseException):
    """The machine stops here."""


class Disk:
    """The calls that change a disk, of which one can fail or be the last."""

    def __init__(self, patch, number=0, error=None):
        self.count, self.number, self.error, self.dead = 0, number, error, False
        for name in WRITES:
            patch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, real):
        def call(*args, **kwargs):
            if name == "open" and not (len(args) > 1 and args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return real(*args, **kwargs)
            self.count += 1
            if self.dead or (self.count == self.number and self.error is None):
                self.dead = True  # what would clean up does not run either
                raise PowerCut
            if self.count == self.number:
                raise OSError(self.error, os.strerror(self.error), args[0] if isinstance(args[0], str) else None)
            return None if name == "fsync" else real(*args, **kwargs)

        return call


class Machine(service_vm.Machine):
    def command(self, words):
        return (0, "", "") if words[0] == "grub-script-check" else super().command(words)


class History:
    """One machine and what has happened to it."""

    def __init__(self, seed, folder, artifacts, monkeypatch):
        self.draw = random.Random(seed)
        self.machine = Machine(folder / f"root{seed}")
        self.artifacts, self.monkeypatch = artifacts, monkeypatch
        self.booted = set()
        self.key = self.draw.choice(sorted(NATURES))
        self.default = self.previous = None
        self.due = False  # a reboot
        self.told = [f"seed {seed}"]
        self.cuts = self.errors = self.calls = self.boots = 0
        self.reboot()

    # ---- what happens ----

    def nature(self, entry):
        return NATURES.get(core.key_of(entry), "host")

    def reboot(self):
        for _try in range(2):
            self.boots += 1
            running = self.machine.boot()
            if self.nature(running) != "bad":
                break
            self.told.append(f"{running} hangs")
        assert self.nature(running) != "bad", "it hangs again and again"
        self.booted.add(running)
        self.machine.virt = {"good": "acrn", "host": "none"}.get(self.nature(running), "qemu")
        self.told.append(f"runs {running}")
        self.due = False

    def call(self, fault=None, **params):
        """Run the module; the result, or None where it ended by a fault."""
        self.calls += 1
        # Some calls write much and some little.
        number = self.draw.randint(1, self.draw.choice((4, 12, 40))) if fault else 0
        error = self.draw.choice(ERRORS) if fault == "error" else None
        self.told.append(f"call {params}" + (f", {errno.errorcode.get(error, 'cut')} at {number}" if fault else ""))
        with self.monkeypatch.context() as patch:
            disk = Disk(patch, number, error)
            try:
                result = self.machine.call(proofs=["hypervisor"], **params)
            except PowerCut:
                self.cuts += 1
                result = None
            except (IvshmemError, OSError):
                assert fault or params["state"] != "present"
                self.errors += fault is not None
                result = None
        self.due = False
        if disk.dead:
            self.reboot()
        elif result:
            self.told[-1] += f" -> {result['outcome']}"
            self.due = result["reboot_needed"]
        return result

    def step(self):
        # Mostly in the order that leads somewhere: a host reboots when it is told to.
        weights = (3, 1, 0.3, 8) if self.due else (10, 1, 0.3, 1)
        kind = self.draw.choices(("present", "previous", "absent", "reboot"), weights)[0]
        self.kind = kind
        if kind == "reboot":
            return self.reboot()
        fault = self.draw.choices((None, "cut", "error"), (5, 3, 2))[0]
        if kind != "present":
            return self.call(fault, state=kind)
        # Mostly the same again: that is how a build gets from its trial to its proof.
        if self.draw.random() < 0.35:
            self.key = self.draw.choice(sorted(NATURES))
        flags = {"trial": self.draw.random() < 0.8, "retry": self.draw.random() < 0.2}
        return self.call(fault, state=kind, artifact=self.artifacts[self.key], keep=self.draw.choice((1, 2)), **flags)

    # ---- what must hold ----

    def look(self):
        root = self.machine.root
        host = Host(self.machine.command, str(root), True)
        assert (root / "boot/grub/grubenv").stat().st_size == 1024
        menu = (root / "boot/grub/grub.cfg").read_text()
        assert menu.startswith(service_vm.GRUB_CFG)
        boot, state = host.loader.boot(), host.state()
        state.settle(boot)
        for name, entry in (("default", boot.default), ("next", boot.next), ("previous", state.previous)):
            if entry is None:
                continue
            assert self.nature(entry) == "good" or name == "next", f"a {self.nature(entry)} build is {name}: {entry}"
            block = re.search(rf"--id {re.escape(core.ID_PREFIX + entry)} {{(.*?)\n}}", menu, re.S)
            assert block, f"the menu has no entry for {name}: {entry}"
            files = service_vm.LOADED.findall(block[1])
            assert len(files) == 3, f"{name}: {entry} loads {files}"
            for file in files:
                assert (root / file[1:]).is_file(), f"{name}: {entry} names {file}, which is not there"
        assert boot.default in {*self.booted, None}, f"a default that never ran: {boot.default}"
        # The way back is never lost, but by removal: a new default leads to the one before, a rollback may keep it.
        known = {self.previous, self.default}
        if self.kind == "absent":
            known.add(None)
        elif boot.default not in known:
            known = {self.default}
        assert state.previous in known, f"previous was {self.previous}, default {self.default}; now {state.previous}"
        self.previous, self.default = state.previous, boot.default

    def end(self):
        """Without faults a good build becomes the default, and then nothing is left to do, or behind."""
        key = self.draw.choice([key for key, nature in NATURES.items() if nature == "good"])
        given = {"state": "present", "artifact": self.artifacts[key], "trial": True}
        self.kind = "present"
        for number in itertools.count():
            result = self.call(retry=True, **given)
            self.look()
            if result and result["outcome"] == "default" and not result["reboot_needed"]:
                break
            assert number < STEPS_TO_THE_END, f"it comes to no end: {result}"
            self.reboot()
        before = listing(self.machine.root)
        assert self.call(**given)["changed"] is False
        assert listing(self.machine.root) == before
        assert not [path for path in before if "ivshmem-new" in path], sorted(before)
        self.reboot()
        assert core.key_of(self.machine.info()["running"]) == key


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    place = tmp_path_factory.mktemp("artifacts")
    return {key: service_vm.artifact(place / key, key) for key in NATURES}


def test_histories(tmp_path, artifacts, monkeypatch, long):
    wrong = []
    seen = {"histories": 0, "calls": 0, "boots": 0, "power cuts": 0, "errors": 0}
    # The last of the sample ends a removal where its menu is gone and what it has noted is not.
    for seed in range(1500) if long else (*range(20), 725):
        history = History(seed, tmp_path, artifacts, monkeypatch)
        try:
            for _step in range(history.draw.randint(4, 20)):
                history.step()
                history.look()
            history.end()
        except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError, IvshmemError) as exc:
            wrong.append("\n  ".join([*history.told, f"{type(exc).__name__}: {exc}"]))
        for name, value in (
            *(("histories", 1), ("calls", history.calls), ("boots", history.boots)),
            *(("power cuts", history.cuts), ("errors", history.errors)),
        ):
            seen[name] += value
    told = ", ".join(f"{value} {name}" for name, value in seen.items() if name != "histories")
    figures.add(f"histories of boot trials ({told})", seen["histories"], seen["histories"] - len(wrong))
    assert seen["power cuts"] and seen["errors"], "nothing was cut"
    assert not wrong, f"{len(wrong)} histories:\n" + "\n".join(wrong[:3])
