# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running ACRN's tools: validation, configuration and build, each in a place of its own.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._decide import build_directory
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._findings import (
    Findings,
    meaning,
    read_findings,
    telling_lines,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._judge import (
    check_binary,
    compare_regions,
    find_files,
    read_header,
    read_text,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import (
    HEADER,
    LOG,
    MANIFEST,
    BuildError,
    Plan,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._store import (
    find_artifact,
    outputs,
    own_folder,
    sweep,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tools import (
    check_python,
    prefix_maps,
    probe_python,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tree import read_tree
from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held
from ansible_collections.acrn.ivshmem.plugins.module_utils._process import run_group
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# ACRN's validator ends with 1 for mere warnings too, and ACRN's scripts take that for a failure (v3.0 and v3.1 even
# stop without one). The line that it prints last tells the two apart.
_PYTHON_WRAPPER = """#!/bin/sh
case "${{1-}}" in
*/scenario_config/validator.py)
    text=$({python} "$@" 2>&1)
    code=$?
    printf '%s\\n' "$text" >&2
    case "$text" in *"are potentially inconsistent"*) code=0 ;; esac
    exit "$code"
    ;;
esac
exec {python} "$@"
"""


@contextmanager
def _signals() -> Iterator[None]:
    """Let a signal that asks this process to end raise SystemExit, so that what it started ends too."""

    def handler(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            before[number] = signal.signal(number, handler)
    except ValueError:
        pass  # not the main thread: signals arrive elsewhere
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _run_logged(command: Sequence[str], environment: Mapping[str, str], log: str, locks: Sequence[int]) -> int:
    """Run a command with its output going to the end of a file; its whole process group ends with this process.

    The children hold the lock files too, so that a make which outlives a killed parent still keeps others out.
    """
    with open(log, "ab") as output, _signals():
        output.write(("+ " + " ".join(shlex.quote(word) for word in command) + "\n").encode())
        output.flush()
        return run_group(command, environment, output, locks)


@dataclass(frozen=True)
class _Place:
    """The files of one run of make: a build in the work directory, or a validation in a temporary one."""

    root: str
    locks: tuple[int, ...] = ()

    @property
    def out(self) -> str:
        return build_directory(self.root)

    @property
    def log(self) -> str:
        return os.path.join(self.root, LOG)


def _prepare(todo: Plan, place: _Place) -> tuple[list[list[str]], list[list[str]], dict[str, str]]:
    """Lay inputs and wrappers; return the commands that configure, those that build, and their environment."""
    for part in ("O", "in", "bin"):
        shutil.rmtree(os.path.join(place.root, part), ignore_errors=True)
    inputs = os.path.join(place.root, "in")
    os.makedirs(os.path.join(inputs, todo.name))
    os.makedirs(place.out)
    os.makedirs(os.path.join(place.root, "bin"))
    board = os.path.join(inputs, "board.xml")
    # In a directory of its own name, since v3.x names scenario.xml after its directory.
    scenario = os.path.join(inputs, todo.name, f"{todo.name}.xml")
    wrapper = os.path.join(place.root, "bin", "python3")
    for path, data in (
        (board, todo.board),
        (scenario, todo.scenario),
        (wrapper, _PYTHON_WRAPPER.format(python=shlex.quote(todo.python)).encode()),
        (place.log, b""),
    ):
        with open(path, "wb") as handle:
            handle.write(data)
    os.chmod(wrapper, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)

    environment = dict(todo.environment)
    environment["PATH"] = os.path.dirname(wrapper) + os.pathsep + environment["PATH"]
    cc = [todo.cc]
    if todo.tree.compiles:
        use_ccache = todo.request.ccache
        if use_ccache is None:
            use_ccache = shutil.which("ccache", path=environment["PATH"]) is not None
        if use_ccache and "ccache" not in todo.cc:
            cc.insert(0, "ccache")
            environment.setdefault("CCACHE_DIR", os.path.join(todo.request.work_dir, "ccache"))
        cc += prefix_maps(todo.cc, todo.tree.path, place.out, environment)
    common = [word for word in todo.request.make_args if not word.startswith("CC=")] + ["CC=" + " ".join(cc)]
    release = todo.request.release
    jobs = f"-j{todo.request.jobs}"
    if todo.tree.kconfig:
        base = ["make", "--no-print-directory", "-C", os.path.join(todo.tree.path, "hypervisor")]
        common += [f"HV_OBJDIR={place.out}/hypervisor", f"BOARD_FILE={board}", f"SCENARIO_FILE={scenario}"]
        common += [f"TARGET_DIR={place.out}/cfg", *([] if release is None else [f"RELEASE={int(release)}"])]
        os.makedirs(f"{place.out}/cfg")
        configure = [[*base, "defconfig", *common], [*base, "oldconfig", *common]]
        return configure, [[*base, jobs, "all", *common]], environment
    base = ["make", "--no-print-directory", "-C", todo.tree.path]
    common += [f"O={place.out}", f"BOARD={board}", f"SCENARIO={scenario}"]
    common += [] if release is None else [f"RELEASE={'y' if release else 'n'}"]
    return [[*base, "hvdefconfig", *common]], [[*base, jobs, "hypervisor", *common]], environment


_GENERATED = ("vm_configurations.c", "pt_intx.c", "pci_dev.c", "misc_cfg.h", "board_info.h")


def _configure(
    todo: Plan, place: _Place, commands: Iterable[Sequence[str]], environment: Mapping[str, str]
) -> Findings:
    """Run ACRN's configuration step, which populates defaults and validates, and judge it by what it said and made.

    make's return code proves nothing here: up to v3.1 it is 0 when the validation failed.
    """
    code = 0
    for command in commands:
        code = code or _run_logged(command, environment, place.log, place.locks)
    text = read_text(place.log)
    findings = read_findings(text)
    where = todo.request.scenario
    if findings.skipped:
        raise BuildError(
            f"{where}: ACRN skipped the validation of the scenario since a Python package is missing; "
            "give an interpreter that has it in the python parameter",
            telling_lines(text),
        )
    # Up to v3.1 a config tool that crashes leaves code 0 and half of the files; the traceback is what remains of it.
    crashed = "Traceback (most recent call last)" in text
    made = not crashed and all(find_files(place.out, name) for name in _GENERATED)
    if findings.errors:
        raise BuildError(f"{where}: ACRN v{todo.tree.version_text} refuses this scenario", findings.errors)
    if code or not made:
        raise BuildError(
            f"{where}: the config tools of ACRN v{todo.tree.version_text} fail on this scenario", telling_lines(text)
        )
    headers = find_files(place.out, HEADER)
    found = read_header(read_text(headers[0])) if headers else ()
    compare_regions(todo.regions, found, f"the generated {HEADER}", todo)
    return findings


def validate(todo: Plan, folder: str) -> list[str]:
    """Let ACRN's own tools judge the scenario, in an empty directory that the caller removes; return the warnings.

    Raises BuildError with ACRN's own lines.
    """
    check_python(todo.tree, probe_python(todo.python, todo.tree, todo.environment, True), todo.python)
    place = _Place(folder)
    # Nothing is compiled here, and a cache would be a trace outside of the folder.
    todo = replace(todo, request=replace(todo.request, ccache=False))
    configure, _make, environment = _prepare(todo, place)
    return list(_configure(todo, place, configure, environment).warnings)


def _collect(todo: Plan, place: _Place, folder: str) -> None:
    """Copy what was made into a directory, after checking that it is what was asked for. Raises BuildError."""
    made = os.path.join(place.out, "hypervisor")
    names = ["acrn.bin", "acrn.32.out"]
    names += [name for name in ("acrn.out", "serial.conf") if os.path.isfile(os.path.join(made, name))]
    names += [f"acpi/ACPI_VM{vm}.bin" for vm in todo.pre_launched]
    for name in names:
        path = os.path.join(made, name)
        if not os.path.isfile(path) or not os.path.getsize(path):
            raise BuildError(f"make succeeded, but made no {name}", telling_lines(read_text(place.log)))
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        shutil.copyfile(path, os.path.join(folder, name))
    with open(os.path.join(folder, "acrn.bin"), "rb") as handle:
        check_binary(handle.read(), todo)
    release = todo.request.release
    for path in find_files(place.out, "config.mk"):
        on = re.search(r"^CONFIG_RELEASE=y", read_text(path), re.MULTILINE) is not None
        if release is not None and on != release:
            raise BuildError(f"release is {release}, but ACRN built the {'release' if on else 'debug'} variant")
    for path in find_files(place.out, HEADER)[:1]:
        shutil.copyfile(path, os.path.join(folder, HEADER))
    for name, data in (("board.xml", todo.board), ("scenario.xml", todo.scenario)):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(data)
    shutil.copyfile(place.log, os.path.join(folder, LOG))


def build(todo: Plan, force: bool = False, patience: float = 7200) -> tuple[dict[str, Any], bool]:
    """Make the artefact of a plan unless it is there; return its manifest and whether it was made now.

    One build at a time runs per work directory and per store. ``patience`` is how many seconds to wait for another
    one. The artefact appears by one rename, after all checks. Raises BuildError with ACRN's own lines and the log.
    """
    request = todo.request
    if not force:
        manifest = find_artifact(request.artifacts_dir, todo.key)
        if manifest:
            return manifest, False
    try:
        os.makedirs(request.artifacts_dir, exist_ok=True)
    except OSError as exc:
        raise IvshmemError(f"artifacts_dir {request.artifacts_dir}: cannot be made: {exc.strerror}") from exc
    own_folder(request.work_dir)
    with held(request.artifacts_dir, request.work_dir, limit=patience, what=f"hypervisor_build of {todo.key}") as locks:
        if not force:
            manifest = find_artifact(request.artifacts_dir, todo.key)
            if manifest:
                return manifest, False
        sweep(request.artifacts_dir)
        place = _Place(request.work_dir, locks)
        try:
            return _build(todo, place), True
        except BuildError as exc:
            exc.log = place.log
            raise
        except OSError as exc:
            raise BuildError(f"the build failed: {exc}", log=place.log) from exc


def _build(todo: Plan, place: _Place) -> dict[str, Any]:
    request = todo.request
    began = time.monotonic()
    check_python(todo.tree, probe_python(todo.python, todo.tree, todo.environment, True), todo.python)
    configure, make, environment = _prepare(todo, place)
    findings = _configure(todo, place, configure, environment)
    configured = time.monotonic()
    for command in make:
        if _run_logged(command, environment, place.log, place.locks):
            lines = telling_lines(read_text(place.log))
            what = f"{request.scenario}: make hypervisor failed for ACRN v{todo.tree.version_text}{meaning(lines)}"
            raise BuildError(what, lines)
    now = read_tree(request.source)
    if (now.digest, now.git) != (todo.tree.digest, todo.tree.git):
        raise BuildError(f"{request.source}: the source tree changed while it was being built; run again")
    fresh = tempfile.mkdtemp(prefix=".new-", dir=request.artifacts_dir)
    try:
        _collect(todo, place, fresh)
        manifest = {
            "key": todo.key,
            "name": todo.name,
            "board": todo.board_name,
            "version": todo.tree.version_text,
            "regions": [region.as_dict() for region in todo.regions],
            "warnings": list(findings.warnings),
            "inputs": todo.inputs,
            "outputs": outputs(fresh),
            "seconds": {
                "configure": round(configured - began, 2),
                "build": round(time.monotonic() - began, 2),
            },
        }
        with open(os.path.join(fresh, MANIFEST), "w", encoding="utf-8") as handle:
            json.dump(manifest, handle, indent=2, sort_keys=True)
            handle.write("\n")
        # Others fetch and install what was built; it holds no secret.
        os.chmod(fresh, 0o755)  # nosec B103
        if os.path.lexists(todo.path):
            os.rename(todo.path, tempfile.mkdtemp(prefix=".old-", dir=request.artifacts_dir))
        os.rename(fresh, todo.path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sweep(request.artifacts_dir)
    return manifest
