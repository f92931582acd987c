# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths, owners and modes that mean nothing, in all modules that take them: an error in words, and nothing changed."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import traceback

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.reliability import figures, target, test_faults
from ansible_collections.acrn.ivshmem.tests.reliability.test_faults import Case

SECONDS = 60
# ``W`` is what the case may write to, with the things in it that ``prepared`` makes.
PATHS = {
    "zero": "W/a\0b",
    "long name": "W/" + "x" * 300,
    "long path": "W/" + "y/" * 3000 + "x",
    "line feed": "W/a\nb",
    "empty": "",
    # Where root itself can make nothing: a build would find its place in / well.
    "no place": "/proc",
    "here": ".",
    "null": "/dev/null",
    "full": "/dev/full",
    "process": "/proc/version",
    "directory": "W",
    "below a file": "W/file/x",
    "of nobody": "~no-such-user/x",
    "loop": "W/loop",
    "leads nowhere": "W/dangling",
    "FIFO": "W/fifo",
    "FIFO below": "W/fifo/x",
}
ATTRIBUTES = [
    *({"mode": mode} for mode in ("99999999999999999999", "banana", "u+s,g=o", "07777777")),
    *({"owner": owner} for owner in ("no-such-user", "99999999999999", "-5", str(1 << 32), "a\0b")),
    *({"group": group} for group in ("no such", "99999999999999", "-5", "a\0b")),
    {"mode": "0644", "owner": "root", "group": "no-such-group"},
]


def scenario_read(folder):
    return {"path": test_faults.scenario_in_place(folder)["path"]}


def scripts_read(folder):
    test_faults.launch_edit(folder)
    return {"directories": [str(folder / "w")]}


CASES = (
    Case("scenario_info", "scenario_info", scenario_read),
    Case("scenario in place", "scenario_regions", test_faults.scenario_in_place),
    Case("scenario with launch XML", "scenario_regions", test_faults.scenario_with_launch),
    Case("launch script edit", "launch_script", test_faults.launch_edit),
    Case("launch script new", "launch_script", test_faults.launch_new),
    Case("dm_memory", "dm_memory", test_faults.stale_memory),
    Case("text_file", "text_file", test_faults.text_other),
    Case("hypervisor_build", "hypervisor_build", test_faults.build, free=("store",)),
    Case("hypervisor_install", "hypervisor_install", test_faults.install_first, "host", free=("boot/acrn",)),
)


def paths_of(module):
    """The options of a module that are paths."""
    documented = yaml.safe_load(importlib.import_module(f"{target.PACKAGE}.plugins.modules.{module}").DOCUMENTATION)
    return [name for name, option in documented["options"].items() if option.get("type") == "path"]


def takes_attributes(module):
    return module == "launch_script"


def attempts(case):
    for option in paths_of(case.module):
        for name, path in PATHS.items():
            yield f"{option} {name}", {option: path}
    if takes_attributes(case.module):
        for attributes in ATTRIBUTES:
            yield str(attributes), attributes


def attack(case, folder, more):
    """What is wrong with the answer to a call with these arguments, or None."""
    (folder / "w").mkdir(parents=True)
    params = case.prepare(folder)
    world = folder / "w"
    (folder / "w/file").write_text("x")
    os.symlink("loop", folder / "w/loop")
    os.symlink("nowhere/x", folder / "w/dangling")
    os.mkfifo(folder / "w/fifo")
    params |= {
        key: re.sub("^W", str(world), value) if key not in ("mode", "owner", "group") else value
        for key, value in more.items()
    }
    before = target.listing(world)
    here, there = target.FORK.Pipe(False)

    def work():
        target.enter(case.world(folder))
        try:
            there.send(target.call(case.module, params))
        except BaseException:
            there.send({"traceback": traceback.format_exc()[-600:]})

    job = target.FORK.Process(target=work)
    job.start()
    there.close()
    try:
        result = here.recv() if here.poll(SECONDS) else {"traceback": f"no answer in {SECONDS} s"}
    except EOFError:
        result = {"traceback": "no answer at all"}
    job.kill()
    job.join()
    after = target.listing(world)
    said = str(result.get("msg", ""))
    if "traceback" in result:
        return result["traceback"]
    if not result.get("failed"):
        return None
    changed = {path for path in {*before, *after} if before.get(path, 0) != after.get(path, 0)}
    changed = sorted(path for path in changed if not path.startswith(case.free or "\0"))
    if changed and not ("already: run again" in said and all(name in said for name in changed)):
        return f"failed, and has changed {changed[:5]}: {said[:300]}"
    if not re.match(r"[\w/'\"~.(]", said):
        return f"an error without a name: {said[:300]}"
    if "None" in said.split() or len(said) > 20000:
        return f"an error that nobody can read: {said[:300]}"
    return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_arguments_that_mean_nothing(case, tmp_path, long, monkeypatch):
    (tmp_path / "locks").mkdir(mode=0o700)
    monkeypatch.setenv("ACRN_IVSHMEM_LOCKS", str(tmp_path / "locks"))
    monkeypatch.chdir(tmp_path)
    every = list(attempts(case))
    # Another part for each case, so that all of them together try everything.
    step = 1 if long else 6
    chosen = every[CASES.index(case) % step :: step]
    wrong = []
    for number, (name, more) in enumerate(chosen):
        problem = attack(case, tmp_path / str(number), more)
        if problem:
            wrong.append(f"{case.name}, {name}: {problem}")
        shutil.rmtree(tmp_path / str(number))
    figures.add("arguments that mean nothing", len(chosen), len(chosen) - len(wrong))
    assert not wrong, f"{len(wrong)} of {len(chosen)}:\n" + "\n".join(wrong)
