# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills and errors at every system call that writes of the shell that acts in a guest without Python.

A point is a call on a path, in whichever of the shell's processes. A fault there is an error, the end of that process
alone, or that of all of them at once. What holds afterwards is what holds for modules (test_faults.py).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _act, _binding, _functions, _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._binding import Wish
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Refused
from ansible_collections.acrn.ivshmem.tests.reliability import figures, injection
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_shell import ACTS, Guest, state_of

pytestmark = [
    pytest.mark.skipif(injection.why_not() is not None, reason=str(injection.why_not())),
    pytest.mark.skipif(not shutil.which("dash"), reason="needs dash"),
]

SAMPLE = 3  # points of each case in a usual run
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += +(\S.*)")
_OPENS = ("openat", "open", "creat")
_WISH = Wish(
    devices=_functions.parse_devices([{"name": "a", "bdf": "00:06.0"}, {"name": "b", "bdf": "00:10.0"}]),
    group="ivshmem",
)
CASES = {"binds": (None, _WISH), "gives back": (_WISH, Wish(devices=(), exclusive=True))}


class Traced(Guest):
    """A guest whose shell acts under strace."""

    def __init__(self, kernel, *options, cut=False):
        super().__init__(kernel, ["dash"], ACTS)
        self.options, self.cut = options, cut
        self.log = f"{kernel.root}.log"

    def __call__(self, command):
        if "main </dev/null" not in command:
            return super().__call__(command)
        words = ["strace", "-f", "-y", "-s", "300", "-o", self.log, *self.options, *self.words(command)]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(words, env=self.environment(), start_new_session=True, **streams) as process:
            while self.cut and process.poll() is None:
                # The process that is stopped at the point stops all that wait for it.
                if "--- stopped by SIGSTOP" in self.said():
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(0.02)
            out, err = process.communicate(timeout=120)
        if process.returncode:
            raise IvshmemError(f"the guest's shell ended with {process.returncode}: {err.decode()}")
        return out.decode()

    def said(self):
        if not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as handle:
            return handle.read()


class Bench:
    def __init__(self, folder, name):
        self.folder, self.count = folder, 0
        self.before, self.wish = CASES[name]
        kernel = self.kernel()
        self.old = state_of(kernel)
        guest = Traced(kernel, "-e", f"trace={','.join(injection.CALLS)}")
        assert guest.act(self.wish)[1].changed
        self.new = state_of(kernel)
        self.points = sorted(set(self.found(guest.said(), kernel.root)))

    def kernel(self):
        self.count += 1
        kernel = FakeKernel(self.folder / str(self.count))
        kernel.add("0000:00:06.0", size=2)
        kernel.add("0000:00:10.0", size=4)
        if self.before:
            state = _binding.observe(kernel, self.before)
            _act.apply(kernel, _binding.plan(state, self.before), state)
        return kernel

    def found(self, log, root):
        """Call, path and which of the calls of a process on that path."""
        counts: dict[tuple[str, ...], int] = {}
        for pid, call, text, result in _LINE.findall(log):
            paths = re.findall(rf'[<"]{re.escape(root)}([^">]*)[">]', text)
            if not paths:
                continue
            number = counts[pid, call, paths[0]] = counts.get((pid, call, paths[0]), 0) + 1
            reads = call in _OPENS and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", text)
            if not reads and not result.startswith(("-1 ENOENT", "-1 EEXIST")):
                yield call, paths[0], number

    def attack(self, point, fault):
        """What is wrong after a fault at a point, or None; False where the run did not come to it."""
        call, path, number = point
        kernel = self.kernel()
        what = {"KILL": "signal=KILL", "CUT": "signal=STOP"}.get(fault, f"error={fault}")
        options = ("-P", f"{kernel.root}{path}", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}")
        guest = Traced(kernel, *options, cut=fault == "CUT")
        failure = None
        try:
            guest.act(self.wish)
        except (IvshmemError, Refused) as exc:
            failure = str(exc)
        if not re.search(r"killed by SIGKILL|\(INJECTED\)|SIGSTOP", guest.said()):
            return False
        try:
            if failure is None:
                assert state_of(kernel) == self.new, "success, but the state is not the new one"
            for name in _kernel.FILES:
                allowed = [state[0].get(name) for state in (self.old, self.new)]
                assert kernel.data(name) in allowed, f"{name} is neither old nor new"
            again = Guest(kernel, ["dash"], ACTS)
            again.act(self.wish)
            found, clean = state_of(kernel), self.new
            assert found == clean, f"the next run makes {set(found[0].items()) ^ set(clean[0].items())}, {found[1:]}"
        except (AssertionError, IvshmemError, Refused) as exc:
            return f"{fault} at {point}: {failure}: {exc}"
        finally:
            shutil.rmtree(kernel.root)
        return None


@pytest.mark.parametrize("name", CASES)
def test_kill_and_errno(name, tmp_path, long):
    bench = Bench(tmp_path, name)
    assert bench.points
    attacks = []
    for number, point in enumerate(bench.points):
        errors = ["ENOSPC", ("EIO", "EROFS", "EACCES")[number % 3]]
        if point[1] == ".ask" and name == "gives back":
            # What the kernel does not take is an id that it does not have: to a shell all of its errors are one.
            errors = []
        attacks += [(point, fault) for fault in ("KILL", "CUT", *errors)]
    if not long:
        attacks = random.Random(name).sample(attacks, min(len(attacks), SAMPLE))
    wrong, reached = [], {"KILL": [0, 0], "errno": [0, 0]}
    for point, fault in attacks:
        problem = bench.attack(point, fault)
        if problem is not False:
            count = reached["KILL" if fault in ("KILL", "CUT") else "errno"]
            count[0] += 1
            count[1] += problem is None
            wrong += [problem] if problem else []
    for kind, (tried, survived) in reached.items():
        figures.add(f"{kind} at writing system calls: shell in a guest, {name}", tried, survived)
    assert sum(tried for tried, _survived in reached.values()) >= len(attacks) * 0.9, "the runs are not alike"
    assert not wrong, "\n".join([f"{len(wrong)} of {len(attacks)}:", *wrong])
