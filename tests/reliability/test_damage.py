# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every file that a module reads, damaged, or replaced by something that is no file of its kind.

The module answers, in some seconds and in a gigabyte: with what it is to do, or with an error that a user can read.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import traceback

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._binding import Wish
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Refused
from ansible_collections.acrn.ivshmem.tests.reliability import figures, probes, service_vm, target, test_faults
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_shell import ACTS, SHELLS, Guest

SECONDS = 20  # of processor time; who waits for ever is ended after PATIENCE
PATIENCE = 120
MEMORY = 1 << 30
SAMPLE = 12


def text(data):
    return data.decode("utf-8", "replace")


# Name -> what lies in the place of a file, by its path and its bytes.
KINDS = {
    "a directory": lambda path, _data: path.mkdir(),
    "a link to itself": lambda path, _data: path.symlink_to(path.name),
    "a link to nothing": lambda path, _data: path.symlink_to("/none/at/all"),
    "a link to a device without an end": lambda path, _data: path.symlink_to("/dev/zero"),
    "a FIFO": lambda path, _data: os.mkfifo(path),
    "empty": lambda path, _data: path.write_bytes(b""),
    "zeros": lambda path, _data: path.write_bytes(bytes(1024)),
    "UTF-16": lambda path, data: path.write_bytes(text(data).encode("utf-16")),
    "UTF-16 without a mark": lambda path, data: path.write_bytes(text(data).encode("utf-16-le")),
    "UTF-32": lambda path, data: path.write_bytes(text(data).encode("utf-32")),
    "cut": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "padded": lambda path, data: path.write_bytes(data + b"#" * (5 << 20)),
    "no text": lambda path, data: path.write_bytes(b"\xff\xfe\x9b\x80" + data),
    "with a NUL": lambda path, data: path.write_bytes(data[: len(data) // 2] + b"\0" + data[len(data) // 2 :]),
    "with other ends of lines": lambda path, data: path.write_bytes(data.replace(b"\n", b"\r")),
    "without its last newline": lambda path, data: path.write_bytes(data.rstrip(b"\n")),
    "twice": lambda path, data: path.write_bytes(data + data),
}


def host(place):
    return test_faults.install_next(place)


def on_host(place, params):
    world = {"host": str(place / "w")}
    yield "hypervisor_info", {}, world
    yield "hypervisor_install", params, world
    for state in ("previous", "absent"):
        yield "hypervisor_install", service_vm.params(state=state), world


def bound(place):
    target.apart("guest_device", test_faults.guest_fresh(place), {"guest": str(place / "w")})


def in_guest(place, _params):
    world = {"guest": str(place / "w")}
    yield "guest_device", {"devices": test_faults.DEVICES, "group": "ivshmem"}, world
    yield "guest_device", {"devices": [], "exclusive": True}, world


def with_proof(place, params):
    world = {"guest": str(place / "w")}
    yield "guest_probe", params, world
    yield "guest_probe", {"steps": [probes.step("look"), probes.step("restore")]}, world


def itself(module):
    return lambda _place, params: [(module, params, {})]


# What makes the files, the runs that find them, and paths that are the kernel's, or a tool's.
CASES = {
    "Service VM": (host, on_host, ("artifacts",)),
    "guest": (bound, in_guest, ("w.", "w/sys", "w/dev")),
    "journal of a guest": (test_faults.probe_writes, with_proof, ("w.", "w/sys", "w/dev")),
    "scenario": (test_faults.scenario_in_place, itself("scenario_regions"), ()),
    "launch XML": (test_faults.scenario_with_launch, itself("scenario_regions"), ()),
    "launch script": (test_faults.launch_edit, itself("launch_script"), ()),
    "build": (test_faults.build, itself("hypervisor_build"), ("tree/",)),
}


def answer(module, params, world, locks):
    """The result of a module in a child that cannot go on for ever; where there is none, why."""
    here, there = target.FORK.Pipe(False)

    def work():
        os.environ["ACRN_IVSHMEM_LOCKS"] = str(locks)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        target.enter(world)
        try:
            there.send(target.call(module, params))
        except BaseException as exc:
            there.send("".join(traceback.format_exception(exc)[-2:]))

    job = target.FORK.Process(target=work)
    job.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        found = "no answer"
    job.join()
    return f"{found}, with code {job.exitcode}" if isinstance(found, str) else found


def wrong(found):
    """What is wrong with a result, or None."""
    if isinstance(found, str):
        return found
    message = str(found.get("msg") or "")
    if len(message) > 8000 or "None" in message.split() or "Errno" in message:
        return f"a message that nobody can read: {message[:300]}"
    return None


def files(place, skip):
    found = [path for path in sorted(place.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [name for name in (str(path.relative_to(place)) for path in found) if not name.startswith(skip or ("\0",))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
def test_damaged_files(case, tmp_path, long):
    prepare, runs, skip = CASES[case]
    place, kept = tmp_path / "place", tmp_path / "kept"
    (place / "w").mkdir(parents=True)
    params = prepare(place)
    shutil.copytree(place, kept, symlinks=True)
    attacks = [(name, kind, *run) for name in files(place, skip) for kind in KINDS for run in runs(place, params)]
    assert attacks
    if not long:
        attacks = random.Random(case).sample(attacks, min(len(attacks), SAMPLE))
    problems = []
    for name, kind, module, given, world in attacks:
        shutil.rmtree(place)
        shutil.copytree(kept, place, symlinks=True)
        data = (place / name).read_bytes()
        (place / name).unlink()
        KINDS[kind](place / name, data)
        problem = wrong(answer(module, given, world, tmp_path / "locks"))
        problems += [f"{name} is {kind}, {module}: {problem}"] if problem else []
    figures.add(f"damaged files: {case}", len(attacks), len(attacks) - len(problems))
    assert not problems, "\n".join(problems[:20])


class Patient(Guest):
    """A guest whose shell is ended where it waits for ever."""

    def words(self, command):
        return ["timeout", "-s", "KILL", str(PATIENCE // 4), *super().words(command)]


@pytest.mark.skipif(not SHELLS or not shutil.which("timeout"), reason="needs a plain shell and timeout")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.replace(" ", "-"))
def test_damaged_files_in_a_guest_without_python(kind, tmp_path):
    wish = Wish(devices=(), exclusive=True)
    names = (_kernel.RULES, _kernel.NOIOMMU_CONF, "/lib/modules/6.1.0-test/modules.dep", _kernel.PROOF)
    for number, name in enumerate(names):
        kernel = FakeKernel(tmp_path / str(number))
        kernel.add("0000:00:06.0", size=2)
        path = tmp_path / str(number) / name.lstrip("/")
        data = path.read_bytes() if path.exists() else b"# function 0000:00:06.0 name a driver vfio-pci\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        KINDS[kind](path, data)
        try:
            Patient(kernel, SHELLS[0], ACTS).act(wish)
        except (IvshmemError, Refused) as exc:
            assert re.search("/", str(exc)), exc
    figures.add("damaged files: guest without Python", len(names), len(names))
