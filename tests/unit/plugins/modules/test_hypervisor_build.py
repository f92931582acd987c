# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module hypervisor_build on the stand-in tree: make is real, the tree is not ACRN's."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.modules import hypervisor_build
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import standin

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
FORK = multiprocessing.get_context("fork")


class Bench:
    """A stand-in tree, its inputs, and the places to build in."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys
        self.tree = standin.copy_tree(folder / "tree")
        self.board, self.scenario = folder / "bench.xml", folder / "line.xml"
        self.board.write_bytes(standin.BOARD)
        self.scenario.write_bytes(standin.v3(("a", 2)))
        self.store, self.work, self.runs = folder / "store", folder / "work", folder / "runs"

    def params(self, check=False, diff=False, fault=None, delay=None, **params):
        """Module arguments; the stand-in's faults and its log of runs are variables of the environment."""
        environment = {"STANDIN_RUNS": str(self.runs), **params.pop("environment", {})}
        environment.update({"STANDIN_FAULT": fault} if fault else {})
        environment.update({"STANDIN_DELAY": str(delay)} if delay else {})
        return {
            "source": str(self.tree),
            "board": str(self.board),
            "scenario": str(self.scenario),
            "artifacts_dir": str(self.store),
            "work_dir": str(self.work),
            "python": sys.executable,
            "environment": environment,
            "_ansible_check_mode": check,
            "_ansible_diff": diff,
            **params,
        }

    def run(self, **params):
        """Run the module and return its result."""
        with patch_module_args(self.params(**params)), pytest.raises(SystemExit):
            hypervisor_build.main()
        return json.loads(self.capsys.readouterr().out)

    def builds(self):
        """How often the stand-in was built."""
        return len(self.runs.read_text().splitlines()) if self.runs.exists() else 0

    def kept(self):
        """What stands in the store and could be taken for an artefact, and what is left over there."""
        return sorted(os.listdir(str(self.store))) if self.store.exists() else []


@pytest.fixture(name="bench")
def _bench(tmp_path, capsys):
    return Bench(tmp_path, capsys)


def test_the_same_key_is_made_once(bench):
    tree = standin.snapshot(bench.tree)
    first = bench.run()
    assert (first["changed"], first["built"], bench.builds()) == (True, True, 1)
    assert first["regions"] == [{"name": "hv:/a", "size": 2, "region_id": 0}]
    assert (first["name"], first["board"], first["version"]) == ("line", "bench", "3.3")
    assert bench.kept() == [first["key"]]
    names = {"acrn.bin", "acrn.32.out", "acrn.out", "acpi/ACPI_VM0.bin", "ivshmem_cfg.h"}
    assert set(first["artifacts"]) == names | {"board.xml", "scenario.xml", "build.log", "manifest.json"}
    for path in first["artifacts"].values():
        assert os.path.getsize(path) > 0
    with open(first["artifacts"]["scenario.xml"], "rb") as handle:
        assert handle.read() == bench.scenario.read_bytes()
    kept = standin.snapshot(bench.store)
    second = bench.run()
    assert (second["changed"], second["built"], bench.builds()) == (False, False, 1)
    assert (second["key"], second["manifest"]) == (first["key"], first["manifest"])
    assert standin.snapshot(bench.store) == kept
    assert standin.snapshot(bench.tree) == tree


def test_check_mode_validates_and_writes_nothing(bench):
    before = standin.snapshot(bench.folder)
    predicted = bench.run(check=True)
    assert standin.snapshot(bench.folder) == before
    assert (predicted["changed"], predicted["built"], bench.builds()) == (True, False, 0)
    made = bench.run()
    assert (made["key"], made["directory"]) == (predicted["key"], predicted["directory"])
    assert bench.run(check=True)["changed"] is False
    bench.scenario.write_bytes(standin.v3(("a", 3)))
    refused = bench.run(check=True)
    assert refused["failed"]
    assert "3 MB cannot be the size of a region" in refused["msg"]


def test_a_diff_shows_what_is_new_against_the_last_build(bench):
    first = bench.run(diff=True)
    assert first["diff"]["before"] == ""
    bench.scenario.write_bytes(standin.v3(("a", 2), ("b", 4)))
    second = bench.run(diff=True)
    assert second["diff"]["before"] == first["diff"]["after"]
    assert "hv:/b, 4 MB" in second["diff"]["after"]
    assert "diff" not in bench.run(diff=True)


def test_a_change_is_seen_whatever_its_time(bench):
    first = bench.run()
    bench.scenario.write_bytes(standin.v3(("a", 4)))
    os.utime(str(bench.scenario), (1, 1))
    second = bench.run()
    assert second["changed"]
    assert second["key"] != first["key"]
    with open(second["artifacts"]["ivshmem_cfg.h"]) as handle:
        assert "0x400000UL" in handle.read()
    bench.scenario.write_bytes(standin.v3(("a", 2)))
    back = bench.run()
    assert (back["changed"], back["key"], bench.builds()) == (False, first["key"], 2)


@pytest.mark.parametrize(
    "params",
    [
        {"name": "other"},
        {"release": True},
        {"make_args": ["EXTRA=1"]},
        {"environment": {"EXTRA": "1"}},
    ],
)
def test_every_input_makes_a_key_of_its_own(bench, params):
    assert bench.run(check=True)["key"] != bench.run(check=True, **params)["key"]


@pytest.mark.parametrize("params", [{"jobs": 7}, {"ccache": False}, {"environment": {"CCACHE_DIR": "/x"}}])
def test_what_does_not_reach_the_bytes_is_no_input(bench, params):
    assert bench.run(check=True)["key"] == bench.run(check=True, **params)["key"]


def test_two_builds_of_a_key_are_equal_wherever_they_are_made(bench):
    first = bench.run()
    moved = bench.folder / "moved"
    bench.tree.rename(moved)
    bench.tree = moved
    second = bench.run(artifacts_dir=str(bench.folder / "store2"), work_dir=str(bench.folder / "work2"))
    assert (second["built"], second["key"]) == (True, first["key"])
    for name in ("acrn.bin", "acrn.32.out", "acrn.out"):
        assert second["manifest"]["outputs"][name] == first["manifest"]["outputs"][name]


def test_check_mode_tells_of_a_tree_that_is_not_there(bench):
    found = bench.run(check=True, source=str(bench.folder / "none"))
    assert found["changed"] is True
    assert f"{bench.folder}/none: there is no ACRN tree yet" in str(found["warnings"])


@pytest.mark.parametrize("what", ["source", "python"])
@pytest.mark.parametrize("other", ["there", "awaited"])
def test_check_mode_waits_for_nothing_that_nobody_makes(bench, what, other):
    none, later = str(bench.folder / "none"), str(bench.folder / "later")
    params = {what: none}
    if other == "awaited":
        params["python" if what == "source" else "source"] = later
    assert bench.run(check=True, awaited=[none, later], **params)["changed"]
    found = bench.run(check=True, awaited=[later], **params)
    assert found["failed"] and none in found["msg"]


def test_force_builds_again_and_damage_is_repaired(bench):
    first = bench.run()
    forced = bench.run(force=True)
    assert (forced["changed"], forced["built"], bench.builds()) == (True, True, 2)
    with open(first["artifacts"]["acrn.bin"], "ab") as handle:
        handle.write(b"!")
    assert bench.run(check=True)["changed"]
    repaired = bench.run()
    assert (repaired["built"], repaired["manifest"]["outputs"]["acrn.bin"]) == (
        True,
        first["manifest"]["outputs"]["acrn.bin"],
    )
    assert bench.kept() == [first["key"]]


@pytest.mark.parametrize(
    ("fault", "scenario", "words"),
    [
        (None, standin.v3(("a", 3)), "refuses this scenario\n  /acrn-config/hv/FEATURES/IVSHMEM"),
        ("quiet", standin.v3(("a", 3)), "3 MB cannot be the size"),
        ("skip", None, "skipped the validation"),
        ("crash", None, "KeyError: 1 (standin.py line 1)"),
        ("drop", None, "missing: hv:/a, 2 MB"),
        ("stale", None, "holds the regions ['hv:/of_yesterday']"),
        ("magic", None, "no multiboot header"),
        ("compile", None, "common/hv_main.c:1:1: error: the stand-in was told to fail"),
        ("empty", None, "made no acrn.bin"),
    ],
)
def test_a_build_that_fails_leaves_nothing(bench, fault, scenario, words):
    if scenario:
        bench.scenario.write_bytes(scenario)
    failed = bench.run(fault=fault)
    assert failed["failed"]
    assert words in failed["msg"]
    assert len(failed["msg"].splitlines()) < 20
    assert os.path.getsize(failed["log"]) > 0
    assert bench.kept() == []
    bench.scenario.write_bytes(standin.v3(("a", 2)))
    assert bench.run()["built"]


def test_a_bad_scenario_costs_no_compile(bench):
    bench.scenario.write_bytes(standin.v3(("a", 3)))
    assert bench.run()["failed"]
    assert bench.run(fault="drop")["failed"]
    assert bench.builds() == 0


def test_warnings_are_told_and_do_not_stop_the_build(bench):
    made = bench.run(fault="warn")
    assert (made["built"], made["validation"]) == (True, ["/acrn-config/vm[1]: this VM looks lonely"])
    assert bench.run(fault="warn")["validation"] == made["validation"]


@pytest.mark.parametrize("how", [{}, {"check": True}, {"validate_only": True}])
def test_a_vm_that_the_scenario_does_not_have_is_told(bench, how):
    def told(found):
        # Ansible keeps those of other calls of this process.
        return [str(each) for each in found.get("warnings", []) if str(bench.scenario) in str(each)]

    assert told(bench.run(**how)) == []
    scenario = bench.scenario.read_text()
    (name, *_others) = re.findall("<VM_NAME>(.*?)</VM_NAME>", scenario)
    bench.scenario.write_text(scenario.replace(f"<VM_NAME>{name}<", "<VM_NAME>OTHER_VM<"))
    found = bench.run(**how)
    assert "failed" not in found
    (warning,) = told(found)
    assert f"{bench.scenario}: error: region 'a': VM 'OTHER_VM' is not in the scenario, which has " in warning


def test_validate_only(bench):
    result = bench.run(validate_only=True)
    assert (result["changed"], result["built"], bench.kept(), bench.builds()) == (False, False, [], 0)
    bench.scenario.write_bytes(standin.v3(("a", 3)))
    assert bench.run(validate_only=True)["errors"] == [
        "/acrn-config/hv/FEATURES/IVSHMEM/IVSHMEM_REGION/IVSHMEM_SIZE: 3 MB cannot be the size of a region"
    ]


def test_v2_takes_its_name_from_the_attribute(bench):
    (bench.tree / "VERSION").write_text("MAJOR_VERSION=2\nMINOR_VERSION=7\n")
    bench.scenario.write_bytes(standin.v2("hv:/a, 2, 0:2"))
    made = bench.run()
    assert (made["name"], made["regions"][0]["name"], made["version"]) == ("bench_line", "hv:/a", "2.7")
    other = bench.run(name="other")
    assert (other["built"], other["name"]) == (True, "other")
    with open(other["artifacts"]["scenario.xml"], "rb") as handle:
        assert handle.read() == bench.scenario.read_bytes().replace(b'"bench_line"', b'"other"')


def test_hosts_with_equal_scenarios_share_a_build_under_one_name(bench):
    twin = bench.folder / "twin.xml"
    shutil.copy(str(bench.scenario), str(twin))
    assert bench.run(check=True)["key"] != bench.run(check=True, scenario=str(twin))["key"]
    assert bench.run(name="both")["built"]
    assert not bench.run(name="both", scenario=str(twin))["built"]


def test_a_scenario_may_come_as_text(bench):
    text = bench.scenario.read_text()
    bench.scenario.unlink()
    made = bench.run(scenario_content=text)
    assert (made["built"], made["name"]) == (True, "line")
    bench.scenario.write_text(text)
    assert not bench.run()["changed"]


def test_a_file_called_scenario_is_named_after_its_directory(bench):
    folder = bench.folder / "host_a"
    folder.mkdir()
    path = folder / "scenario.xml"
    shutil.copy(str(bench.scenario), str(path))
    assert bench.run(scenario=str(path))["name"] == "host_a"


def test_board_and_scenario_by_name(bench):
    data = bench.tree / "misc" / "config_tools" / "data" / "bench"
    data.mkdir(parents=True)
    (data / "bench.xml").write_bytes(standin.BOARD)
    (data / "tree_line.xml").write_bytes(standin.v3())
    assert bench.run(board="bench", scenario="tree_line")["name"] == "tree_line"
    failed = bench.run(board="wench")
    assert "board 'wench': there is no such file" in failed["msg"]
    failed = bench.run(board="")
    assert "no board is given" in failed["msg"] and "acrn_board" in failed["msg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda bench: bench.scenario.unlink(), "there is no such file"),
        (lambda bench: bench.scenario.write_bytes(b"<acrn-config><vm/>"), "line.xml"),
        (lambda bench: bench.scenario.write_bytes(standin.v2()), "is in the dialect of ACRN v2.x"),
        (lambda bench: bench.scenario.write_bytes(standin.v3().replace(b">\n", b">", 1)), "must stand alone"),
        (lambda bench: bench.board.write_bytes(b"<acrn-config/>"), "no board attribute"),
        (lambda bench: shutil.rmtree(str(bench.tree)), "no such directory"),
    ],
)
def test_a_wrong_input_is_refused_before_anything_is_touched(bench, change, words):
    change(bench)
    assert words in bench.run()["msg"]
    assert (bench.kept(), bench.work.exists()) == ([], False)


def test_missing_programs_are_named_together_with_their_packages(bench):
    (bench.tree / "hypervisor" / "Makefile").write_text("x:\n\t$(CC) x.c\n\txsltproc y\n\tiasl z\n")
    programs = bench.folder / "bin"
    programs.mkdir()
    (programs / "make").symlink_to(shutil.which("make"))
    message = bench.run(environment={"PATH": str(programs)}, make_args=["CC=gcc-11"])["msg"]
    assert "iasl, xsltproc, gcc-11, objcopy, bash: not found" in message
    assert "apt-get install acpica-tools xsltproc gcc-11 libc6-dev binutils bash" in message


def test_a_v2_scenario_of_another_board_is_refused(bench):
    (bench.tree / "VERSION").write_text("MAJOR_VERSION=2\nMINOR_VERSION=7\n")
    bench.scenario.write_bytes(standin.v2().replace(b'"bench"', b'"shelf"'))
    assert "is for the board 'shelf'" in bench.run()["msg"]


def test_the_python_parameter(bench):
    failed = bench.run(python=str(bench.folder / "none"))
    assert "neither an interpreter nor a virtual environment" in failed["msg"]
    venv = bench.folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python3").write_text(f'#!/bin/sh\necho used >> {venv}/used\nexec {sys.executable} "$@"\n')
    (venv / "bin" / "python3").chmod(0o755)
    assert bench.run(python=str(venv))["built"]
    # Asked for its version, asked for its libraries, and run by make for validator, configuration and build.
    assert len((venv / "used").read_text().splitlines()) == 5


def test_a_tree_that_changes_while_it_is_built_makes_no_artefact(bench):
    process = start(bench, delay=3)
    wait_for_half_a_build(bench)
    (bench.tree / "LICENSE").write_text("new")
    result = finish(process)
    assert "changed while it was being built" in result["msg"]
    assert bench.kept() == []


# -- more than one process ---------------------------------------------------------------------------------------------


def start(bench, **params):
    """Run the module in another process; its result is what ``finish`` returns."""
    receive, send = FORK.Pipe(duplex=False)

    def body():
        read, write = os.pipe()
        os.dup2(write, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        try:
            with patch_module_args(bench.params(**params)):
                hypervisor_build.main()
        except SystemExit as exc:
            if exc.code not in (0, 1, None):
                raise  # a signal, not the end of a module: there is no result
        sys.stdout.flush()
        send.send(os.read(read, 1 << 20).decode())

    process = FORK.Process(target=body, daemon=True)
    process.start()
    send.close()
    return process, receive


def finish(started):
    process, receive = started
    text = receive.recv()
    process.join(60)
    return json.loads(text)


def wait_for_half_a_build(bench):
    """Wait until the stand-in has written the first of its files and sleeps."""
    half = bench.work / "O" / "hypervisor" / "acrn.32.out"
    end = time.monotonic() + 60
    while not half.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_calls_for_one_key_make_it_once(bench):
    both = [start(bench, delay=1), start(bench, delay=1)]
    results = [finish(started) for started in both]
    assert sorted(result["built"] for result in results) == [False, True]
    assert sorted(result["changed"] for result in results) == [False, True]
    assert results[0]["key"] == results[1]["key"]
    assert bench.builds() == 1


def test_calls_for_different_keys_take_turns(bench):
    started = [start(bench, delay=1, name=name) for name in ("one", "two", "three")]
    results = [finish(process) for process in started]
    assert all(result["built"] for result in results)
    for result in results:
        with open(result["artifacts"]["acrn.bin"], "rb") as handle:
            assert b"\0" + result["name"].encode() + b"\0" in handle.read()
    assert bench.kept() == sorted(result["key"] for result in results)


def test_one_store_with_two_work_directories_makes_a_key_once(bench):
    both = [start(bench, delay=1, work_dir=str(bench.folder / name)) for name in ("w1", "w2")]
    assert sorted(finish(started)["built"] for started in both) == [False, True]
    assert bench.builds() == 1


def sleepers(bench):
    """The makes that build in the directory of this bench."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as handle:
            words = handle.read().split(b"\0")
            if words[0] == b"make" and any(os.fsencode(str(bench.work)) in word for word in words):
                found.append(words)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_build_that_is_told_to_end_takes_its_make_along(bench, number):
    process = start(bench, delay=60)[0]
    wait_for_half_a_build(bench)
    assert sleepers(bench)
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == 128 + number
    assert sleepers(bench) == []
    assert bench.kept() == []
    assert bench.run()["built"]


def test_a_killed_build_leaves_nothing_and_its_make_keeps_others_out(bench):
    process = start(bench, delay=3)[0]
    wait_for_half_a_build(bench)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert bench.kept() == []
    # The orphaned make still writes into the build directory, so the next build has to wait until it is done.
    made = bench.run()
    assert made["built"]
    assert time.monotonic() - began > 1
    assert (bench.builds(), bench.kept()) == (2, [made["key"]])


def test_leftovers_of_a_crash_are_swept(bench):
    (bench.store / ".new-x").mkdir(parents=True)
    (bench.store / ".old-x").mkdir()
    made = bench.run()
    assert bench.kept() == [made["key"]]
