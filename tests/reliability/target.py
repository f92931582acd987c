# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running modules of the collection as a target does, in processes that can be killed.

A *world* is what a module finds on its machine: ``{"guest": DIRECTORY}`` is a guest with a simulated kernel,
``{"host": DIRECTORY}`` a Service VM with a boot directory, ``{}`` this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib
import io
import json
import multiprocessing
import os
import pathlib
import sys

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel

PACKAGE = "ansible_collections.acrn.ivshmem"
ROOT = pathlib.Path(__file__).absolute().parents[2]
FORK = multiprocessing.get_context("fork")


class StoredKernel(FakeKernel):
    """A simulated kernel that all processes of a guest share, and that outlives them.

    What the kernel holds lies beside the guest's directory, under a lock. Each request to the kernel is told to a file
    first, by one system call: that one can be made to fail, as the kernel's own answer would.
    """

    KEPT = ("ids", "owners", "next_uio")

    def __init__(self, root):
        self.told = f"{root}.requests"
        self.kept = f"{root}.kernel"
        if not os.path.exists(self.kept):
            super().__init__(root)
            self._keep()
            return
        super(FakeKernel, self).__init__(str(root))
        self.kernel_release, self.duplicate_error = "6.1.0-test", True
        self.groups = {"root": 0, "ivshmem": 990}
        self.modules = {_kernel.UIO, _kernel.VFIO}
        self.writes, self.commands = [], []
        # Another process may be writing it.
        with self._alone():
            pass

    def _load(self):
        with open(self.kept, encoding="utf-8") as handle:
            held = json.load(handle)
        self.ids = {name: [tuple(entry) for entry in entries] for name, entries in held["ids"].items()}
        self.owners = {path: tuple(owner) for path, owner in held["owners"].items()}
        self.next_uio = held["next_uio"]

    def _keep(self):
        with open(self.kept, "w", encoding="utf-8") as handle:
            json.dump({name: getattr(self, name) for name in self.KEPT}, handle)

    @contextlib.contextmanager
    def _alone(self):
        with open(f"{self.kept}.lock", "w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._load()
            yield
            self._keep()

    def _tell(self, path, text):
        try:
            handle = os.open(self.told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(handle, text.encode())
            finally:
                os.close(handle)
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, self.path(path)) from exc

    def build(self, *functions):
        """Put functions into the guest: what FakeKernel.add takes."""
        for function in functions:
            self.add(**function)
        self._keep()

    def write(self, path, text):
        self._tell(path, text)
        with self._alone():
            return super().write(path, text)

    def run(self, *command):
        with self._alone():
            return super().run(*command)

    def give(self, path, gid, mode):
        self._tell(path, f"{gid} {mode}")
        with self._alone():
            return super().give(path, gid, mode)


def enter(world):
    """Make this process one on the machine that a world is."""
    if "guest" in world:
        _kernel.Kernel = functools.partial(StoredKernel, world["guest"])
    if "host" in world:
        from ansible_collections.acrn.ivshmem.tests.reliability import service_vm  # the other modules do without

        service_vm.enter(pathlib.Path(world["host"]))


def call(name, params):
    """The result of a module, run in this process."""
    from ansible.module_utils.testing import patch_module_args  # ansible-core 2.17 has none, and plants need none

    module = importlib.import_module(f"{PACKAGE}.plugins.modules.{name}")
    said = io.StringIO()
    with patch_module_args(params), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        module.main()
    result = json.loads(said.getvalue())
    result.pop("invocation", None)
    return result


def apart(name, params, world=None):
    """The result of a module, run in a child of this process."""
    here, there = FORK.Pipe(False)

    def work():
        enter(world or {})
        there.send(call(name, params))

    job = FORK.Process(target=work)
    job.start()
    there.close()
    try:
        result = here.recv()
    except EOFError:
        result = None
    job.join()
    assert result is not None, f"{name} ended without a result, with code {job.exitcode}"
    return result


def listing(folder, skip=()):
    """Every path below a folder: what a link points to, mode and bytes of a file, None for a directory."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            if os.path.relpath(path, folder).startswith(tuple(skip) or "\0"):
                continue
            if os.path.islink(path):
                value = os.readlink(path)
            elif os.path.isfile(path):
                value = (oct(os.stat(path).st_mode & 0o7777), pathlib.Path(path).read_bytes())
            else:
                value = None
            found[os.path.relpath(path, folder)] = value
    return found


def words(name, params, world=None):
    """The command that runs a module in a process of its own; its result goes to standard output."""
    script = str(pathlib.Path(__file__).absolute())
    return [sys.executable, "-B", script, name, json.dumps(params), json.dumps(world or {})]


if __name__ == "__main__":
    enter(json.loads(sys.argv[3]))
    print(json.dumps(call(sys.argv[1], json.loads(sys.argv[2]))))
