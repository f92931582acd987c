# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills and errors at every system call that writes, of every module that writes.

For each point of a module's run: the state afterwards is old or new, no file is half of either, the next run makes
what a run without a fault makes, byte for byte, and nothing is left behind. An error is told, and names a path.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys

import pytest

from ansible_collections.acrn.ivshmem.tests.reliability import figures, injection, probes, service_vm, target
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios, standin

pytestmark = pytest.mark.skipif(injection.why_not() is not None, reason=str(injection.why_not()))

LITTER = re.compile(r"ivshmem-new|\.acrn-ivshmem-|\.ansible_tmp|\.new$|~$|(^|/)\.new-")
LAUNCH = """\
#!/bin/sh
exec acrn-dm -m 1G -s 0:0,hostbridge \\
  -s 5,ivshmem,dm:/test,2 \\
  VM1
"""
SAMPLE = 4  # points of each case in a usual run


class Case:
    """A run of a module that changes something: ``prepare(FOLDER)`` makes what it finds and gives its parameters."""

    def __init__(self, name, module, prepare, world=None, free=(), check=None, names="/", fails=False, more=()):
        self.name, self.module, self.prepare = name, module, prepare
        self.more = more  # calls beside those that write, for what is written without a call
        self.fails = fails  # a run without a fault changes something, and tells of a failure
        self.kind = world
        self.free = free  # paths whose content may be neither old nor new
        self.check = check  # what else must hold after a fault: check(FOLDER)
        self.names = names  # what the message of an error names

    def world(self, folder):
        return {self.kind: str(folder / "w")} if self.kind else {}


class Bench:
    """One case, its states without a fault, and what a fault does to it."""

    def __init__(self, case, folder):
        self.case, self.place = case, folder / "place"
        self.log, self.kept = folder / "log", folder / "kept"
        self.place.mkdir()
        (self.place / "w").mkdir()
        self.params = case.prepare(self.place)
        self.environment = {"ACRN_IVSHMEM_LOCKS": str(self.place / "locks"), "TMPDIR": str(folder)}
        (self.place / "locks").mkdir(mode=0o700)
        shutil.copytree(self.place, self.kept, symlinks=True)
        self.old = self.state()
        self.run = injection.forked(self.work, **self.environment)
        self.points, said = injection.points(self.run, self.log, self.mine, (*injection.CALLS, *case.more))
        self.result = json.loads(said)
        assert self.result.get("changed") or case.fails, self.result
        assert bool(self.result.get("failed")) == case.fails, self.result
        self.new = self.state()
        assert self.new != self.old
        assert not self.litter()

    def work(self):
        target.enter(self.case.world(self.place))
        return json.dumps(target.call(self.case.module, self.params))

    def mine(self, text):
        """Whether a system call is about the case's files, and not about what only the simulation has."""
        # Of a call on an open file, that file counts, and not the data.
        opened = re.match(r"\d+<([^>]*)>", text)
        if str(self.place) not in (opened[1] if opened and "AT_" not in text else text):
            return False
        if self.case.more and "resource2>" in text:
            return True
        return not re.search(r"/w\.kernel|/w/sys/|/w/dev/|/tree/", text)

    def state(self):
        state = target.listing(self.place / "w")
        for path, value in state.items():
            if path.endswith("/manifest.json") and value:
                # How long a build took is of no run but its own.
                state[path] = (value[0], re.sub(rb'"(validation|configure|build)": [\d.]+', rb"\1", value[1]))
        return state

    def litter(self):
        return sorted(path for path in self.state() if LITTER.search(path))

    def reset(self):
        shutil.rmtree(self.place)
        shutil.copytree(self.kept, self.place, symlinks=True)

    def attack(self, point, fault):
        """What is wrong after a fault at a point, or None; False where the run did not come to it."""
        case = self.case
        self.reset()
        done = injection.inject(self.run, self.log, point, fault)
        if done is None:
            return False
        try:
            result = None if fault == "KILL" else self.told(done, point, fault)
            self.whole(point, fault, result)
            again = self.again()
            assert case.fails or not again.get("failed"), f"the next run fails: {again.get('msg')}"
            state = self.state()
            differs = sorted(path for path in {*state, *self.new} if state.get(path, 0) != self.new.get(path, 0))
            assert not differs, f"after the next run these differ from a clean run: {differs}"
        except AssertionError as exc:
            return f"{case.name}, {fault} at {point}: {exc}".replace(str(self.place), "")
        return None

    def again(self):
        os.environ.update(self.environment)
        try:
            return target.apart(self.case.module, self.params, self.case.world(self.place))
        finally:
            for name in self.environment:
                del os.environ[name]

    def told(self, done, point, fault):
        """The result of a run with an error. It is a result, and a failure names a path and the error."""
        try:
            result = json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"no result: {done.stdout[-200:]!r} {done.stderr[-300:]!r}") from None
        if result.get("failed"):
            message = str(result.get("msg"))
            assert "None" not in message.split(), f"a message without a name: {message}"
            assert re.search(self.case.names, message), f"the message names no place: {message}"
        return result

    def whole(self, point, fault, result):
        """Every file is as it was or as it is to be."""
        state = self.state()
        for path, value in state.items():
            if LITTER.search(path):
                # A killed run cannot clean up; any other can, unless it is that what fails.
                assert fault == "KILL" or point.removes, f"left behind: {path}"
            elif not path.startswith(self.case.free or "\0"):
                allowed = [states[path] for states in (self.old, self.new) if path in states]
                assert value in allowed, f"{path} is neither old nor new: {value}"
        for path in self.old:
            assert path in state or path not in self.new or path.startswith(self.case.free or "\0"), f"{path} is lost"
        if result and not result.get("failed") and not self.case.fails:
            assert state == self.new, f"success, but the state is not the new one: {result}"
        claim = re.match(r"(\S+): .*it was not changed", str((result or {}).get("msg")))
        if claim:
            path = os.path.relpath(claim[1], self.place / "w")
            assert state.get(path) == self.old.get(path), f"{path} was changed: {result['msg']}"
        if self.case.check:
            self.case.check(self.place)


# ---- the cases ----


def scenario_in_place(folder):
    (folder / "w/line.xml").write_text(scenarios.scenario("v3"))
    return {"path": str(folder / "w/line.xml"), "acrn_version": "3.3", "regions": ["hv:/a, 2, 0:2", "dm:/b, 2, 2:3"]}


def scenario_with_launch(folder):
    text = scenarios.scenario("v2", vms=scenarios.VMS[1:])
    (folder / "w/line.xml").write_text(text)
    (folder / "w/launch.xml").write_text(scenarios.launch_xml())
    return {
        "src": str(folder / "w/line.xml"),
        "path": str(folder / "w/made.xml"),
        "launch_src": str(folder / "w/launch.xml"),
        "launch_path": str(folder / "w/made-launch.xml"),
        "acrn_version": "2.7",
        "regions": ["hv:/a, 2, 1:2", "dm:/b, 2, 2:3"],
    }


def launch_edit(folder):
    path = folder / "w/vm1.sh"
    path.write_text(LAUNCH)
    path.chmod(0o750)
    return {"path": str(path), "devices": [{"name": "dm:/test", "size": 4, "vbdf": "00:06.0"}]}


def launch_new(folder):
    (folder / "vm1.sh").write_text(LAUNCH)
    given = launch_edit(folder)
    (folder / "w/vm1.sh").unlink()
    return {**given, "src": str(folder / "vm1.sh"), "mode": "0755"}


def stale_memory(folder):
    for name, size in (("log", 2), ("gone", 3), ("fits", 4)):
        with open(folder / "w" / name, "wb") as handle:
            handle.truncate(size << 20)
    regions = [{"name": "log", "size": 4}, {"name": "fits", "size": 4}]
    return {"directory": str(folder / "w"), "regions": regions, "absent": ["gone"]}


def text_new(folder):
    return {"path": str(folder / "w/report.html"), "content": "<p>\u00e4</p>\n" * 9999}


def text_other(folder):
    given = text_new(folder)
    (folder / "w/report.html").write_text("old\n")
    (folder / "w/report.html").chmod(0o640)
    return given


FUNCTIONS = ({"address": "0000:00:06.0", "size": 2}, {"address": "0000:00:10.0", "size": 4})
DEVICES = [{"name": "a", "vbdf": "00:06.0", "size": 2}, {"name": "b", "vbdf": "00:10.0", "size": 4}]


def guest_fresh(folder):
    target.StoredKernel(folder / "w").build(*FUNCTIONS)
    return {"devices": DEVICES, "group": "ivshmem"}


def guest_cleared(folder):
    target.apart("guest_device", guest_fresh(folder), {"guest": str(folder / "w")})
    return {"devices": [], "exclusive": True}


def _install(folder, *keys, **more):
    """Builds that are the default one after the other; then the parameters for the next one."""
    root = folder / "w"
    root.rmdir()
    machine = service_vm.Machine(root)
    *before, last = [service_vm.artifact(folder / "artifacts" / key, key) for key in keys]
    world = {"host": str(root)}
    for place in before:
        assert target.apart("hypervisor_install", service_vm.params(place, trial=True), world)["outcome"] == "armed"
        machine.boot()
        assert target.apart("hypervisor_install", service_vm.params(place), world)["outcome"] == "default"
    return machine, last, service_vm.params(last, trial=True, **more)


def install_first(folder):
    return _install(folder, "aaaa")[2]


def install_next(folder):
    return _install(folder, "aaaa", "bbbb", "cccc", keep=1)[2]


def install_absent(folder):
    _install(folder, "aaaa", "bbbb")
    return service_vm.params(state="absent")


def install_proves(folder):
    machine, _last, params = _install(folder, "aaaa", "bbbb", "cccc", keep=1)
    target.apart("hypervisor_install", params, {"host": str(folder / "w")})
    machine.boot()
    return params


def install_unproven(folder):
    return {**install_proves(folder), "proofs": ["device"]}


def install_fallen(folder):
    params = install_proves(folder)
    machine = service_vm.opened(folder / "w")
    machine.boot()
    return params


def install_previous(folder):
    _install(folder, "aaaa", "bbbb", "cccc")
    return service_vm.params(state="previous")


def build(folder):
    """An artefact beside one of another scenario; only what this process itself writes is attacked, not make."""
    tree, store = standin.copy_tree(folder / "tree"), folder / "w/store"
    (folder / "bench.xml").write_bytes(standin.BOARD)
    (folder / "line.xml").write_bytes(standin.v3(("a", 2)))
    return {
        **{"source": str(tree), "board": str(folder / "bench.xml"), "scenario": str(folder / "line.xml")},
        **{"artifacts_dir": str(store), "work_dir": str(folder / "work"), "python": sys.executable},
        **{"jobs": 1, "ccache": False},
    }


def probe_writes(folder):
    """A proof that was made and not ended, and another one over it; what counts is that every byte comes back."""
    root = probes.guest(folder)
    first = {"steps": [probes.step("write", offset=0, length=4096, seed="11" * 32)]}
    assert target.apart("guest_probe", first, {"guest": str(root)})["changed"]
    seed = "22" * 32
    return {"steps": [probes.step("write", offset=-4096, length=4096, seed=seed), probes.step("read", seed=seed)]}


def bytes_come_back(folder):
    """A proof that ends leaves the memory as it was before all of them."""
    root = folder / "w"
    if probes.memory(root) == probes.MEMORY:
        return
    copy = folder / "copy"
    shutil.copytree(root, copy, symlinks=True)
    shutil.copy(f"{root}.kernel", f"{copy}.kernel")
    result = target.apart("guest_probe", {"steps": [probes.step("restore")]}, {"guest": str(copy)})
    assert not result.get("failed"), result
    wrong = [at for at, byte in enumerate(probes.memory(copy)) if byte != probes.MEMORY[at]]
    assert not wrong, f"{len(wrong)} bytes are lost, from offset {wrong[0]} on"
    assert not (copy / f"run/acrn-ivshmem/{probes.ADDRESS}.json").exists()
    shutil.rmtree(copy)


def boots(folder):
    """What GRUB would boot now is whole, whatever it is; the state can be read."""
    machine = service_vm.opened(folder / "w")
    copy = service_vm.opened(folder / "boots")
    shutil.rmtree(copy.root, ignore_errors=True)
    shutil.copytree(machine.root, copy.root)
    for _boot in range(2):
        copy.boot()
    assert "problem" not in copy.info()
    shutil.rmtree(copy.root)


# What a step of several writes in between: the record of the steps, the menu with the new entries beside the old ones,
# and what the boot loader is told.
BOOT = ("boot/acrn/state.json", "boot/grub/grub.cfg", "boot/grub/grubenv", "etc/grub.d/42_acrn_ivshmem")
# What is the kernel's, and what a request to it is called by.
KERNEL = ("sys/", "dev/")
ASKED = r"/|uio_pci_generic|vfio-pci|[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"

# Around what is written to a memory.
MAPS = ("mmap", "close", "msync")

CASES = [
    Case("scenario_regions in place", "scenario_regions", scenario_in_place),
    Case("scenario_regions with launch XML", "scenario_regions", scenario_with_launch),
    Case("launch_script edits", "launch_script", launch_edit),
    Case("launch_script makes", "launch_script", launch_new),
    Case("dm_memory", "dm_memory", stale_memory),
    Case("text_file makes", "text_file", text_new),
    Case("text_file replaces", "text_file", text_other),
    Case("hypervisor_build", "hypervisor_build", build, free=("store/.new-", "store/.old-")),
    Case("guest_probe", "guest_probe", probe_writes, "guest", ("sys/", "run/"), bytes_come_back, ASKED, more=MAPS),
    Case("guest_device clears", "guest_device", guest_cleared, "guest", KERNEL, names=ASKED),
    *(
        Case(f"hypervisor_install, {prepare.__name__[8:]}", "hypervisor_install", prepare, "host", BOOT, boots)
        for prepare in (install_first, install_next, install_proves, install_previous, install_absent)
    ),
    *(
        Case(f"hypervisor_install, {name}", "hypervisor_install", prepare, "host", BOOT, boots, "/|cccc", fails=True)
        for name, prepare in (("unproven", install_unproven), ("fallen", install_fallen))
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_kill_and_errno(case, tmp_path, long):
    bench = Bench(case, tmp_path)
    assert bench.points, "the module writes nothing"
    attacks = [(point, fault) for point in bench.points for fault in point.faults()]
    if not long:
        # By the name of the case, so that another case does not change the sample.
        attacks = random.Random(case.name).sample(attacks, min(len(attacks), SAMPLE))
    wrong, reached = [], {"KILL": [0, 0], "errno": [0, 0]}
    for point, fault in attacks:
        problem = bench.attack(point, fault)
        if problem is not False:
            count = reached["KILL" if fault == "KILL" else "errno"]
            count[0] += 1
            count[1] += problem is None
            wrong += [problem] if problem else []
    for name, (tried, survived) in reached.items():
        figures.add(f"{name} at writing system calls: {case.name}", tried, survived)
    assert sum(tried for tried, _survived in reached.values()) >= len(attacks) * 0.95, "the runs are not alike"
    assert not wrong, "\n".join([f"{len(wrong)} of {len(attacks)}:", *wrong])
