# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module dm_memory: what it removes and what it leaves."""

from __future__ import annotations

import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch import _clear, _dm_memory
from ansible_collections.acrn.ivshmem.plugins.modules import dm_memory

MB = 1 << 20


class Exit(Exception):
    """The module ended; the first argument is its result."""


@pytest.fixture(name="run")
def _run(monkeypatch, tmp_path, documented):
    def end(module, **result):
        documented(dm_memory.RETURN, result)
        raise Exit({"warnings": list(warnings), **result})

    warnings = []
    monkeypatch.setattr(dm_memory.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(
        dm_memory.AnsibleModule, "fail_json", lambda module, **result: end(module, failed=True, **result)
    )
    monkeypatch.setattr(dm_memory.AnsibleModule, "warn", lambda module, text: warnings.append(text))
    # Only processes of this test count, so that it does not matter who runs it.
    proc = tmp_path / "proc"
    proc.mkdir()
    monkeypatch.setattr(_clear, "Processes", lambda: _dm_memory.Processes(str(proc)))
    shm = tmp_path / "shm"
    shm.mkdir()

    def run(**arguments):
        warnings.clear()
        with patch_module_args({"directory": str(shm), **arguments}), pytest.raises(Exit) as ended:
            dm_memory.main()
        return ended.value.args[0]

    run.shm, run.proc = shm, proc
    return run


def make(run, name, size):
    with open(run.shm / name, "wb") as handle:
        handle.truncate(size)


def hold(run, name, vm, argument):
    place = run.proc / "77"
    (place / "fd").mkdir(parents=True)
    (place / "cmdline").write_bytes("\0".join(["acrn-dm", "-s", argument, vm, ""]).encode())
    (place / "fd" / "5").symlink_to(run.shm / name)


def test_removes_what_is_in_the_way(run):
    for name, size in (("keep", 2), ("resized", 2), ("gone", 4), ("foreign", 4)):
        make(run, name, size * MB)
    arguments = {"regions": [{"name": "keep", "size": 2}, {"name": "resized", "size": 4}], "absent": ["gone"]}
    predicted = run(**arguments, _ansible_check_mode=True, _ansible_diff=True)
    assert predicted["changed"]
    assert len(list(run.shm.iterdir())) == 4
    result = run(**arguments)
    assert result["removed"] == predicted["removed"] == [str(run.shm / "resized"), str(run.shm / "gone")]
    assert sorted(path.name for path in run.shm.iterdir()) == ["foreign", "keep"]
    assert predicted["diff"]["after"] == f"{run.shm / 'keep'} {2 * MB}\n"
    assert not run(**arguments)["changed"]


def test_leaves_what_is_in_use_and_says_who_has_it(run):
    make(run, "test", 2 * MB)
    hold(run, "test", "VM1", "6,ivshmem,dm:/test,2")
    result = run(
        regions=[{"name": "test", "size": 4}], vms=[{"name": "VM1", "devices": [{"name": "dm:/test", "size": 4}]}]
    )
    assert not result["changed"]
    assert "in use by VM VM1" in result["held"][0]
    assert result["warnings"] == result["held"]
    assert result["vms"] == [{"name": "VM1", "pid": 77, "fits": False}]
    assert result["memory"][0]["held_by"] == [
        {"pid": 77, "command": "acrn-dm -s 6,ivshmem,dm:/test,2 VM1", "vm": "VM1"}
    ]
    assert (run.shm / "test").exists()
    failed = run(regions=[{"name": "test", "size": 4}], on_held="fail")
    assert failed["failed"]
    assert "in use by VM VM1" in failed["msg"]
    assert not run(regions=[{"name": "test", "size": 4}], on_held="fail", _ansible_check_mode=True).get("failed")


def test_tells_of_regions_that_are_no_more(run):
    make(run, "old", 2 * MB)
    hold(run, "old", "VM1", "6,ivshmem,dm:/old,2")
    result = run(vms=[{"name": "VM1"}])
    assert result["others"] == ["old"]
    assert not result["changed"]
    # The memory of a VM that is not asked about is none of ours.
    assert run(vms=[{"name": "VM2"}])["others"] == []
    assert run(vms=[{"name": "VM1"}], regions=[{"name": "old", "size": 2}])["others"] == []


def test_region_that_a_foreign_vm_has_too_is_none_of_ours(run):
    make(run, "old", 2 * MB)
    hold(run, "old", "VM1", "6,ivshmem,dm:/old,2")
    place = run.proc / "78"
    place.mkdir()
    (place / "cmdline").write_bytes(b"acrn-dm\0-s\0005,ivshmem,dm:/old,2\0OTHER\0")
    assert run(vms=[{"name": "VM1"}])["others"] == []


def test_only_looks(run):
    make(run, "test", 2 * MB)
    result = run(absent=["test"], remove=False)
    assert not result["changed"]
    assert result["memory"][0]["stale"]
    assert (run.shm / "test").exists()


def test_bad_input(run):
    assert "is no name of a region" in run(absent=["../etc"])["msg"]
    assert "power of two" in run(vms=[{"name": "VM1", "devices": [{"name": "dm:/a", "size": 3}]}])["msg"]


def test_memory_that_does_not_fit(run, monkeypatch):
    make(run, "stale", 2 * MB)
    (run.shm / "stale").write_bytes(bytes(2 * MB))
    found = os.statvfs(run.shm)
    free = os.statvfs_result((found.f_bsize, found.f_frsize, 0, 0, 5 * MB // found.f_frsize, 0, 0, 0, 0, 255))
    monkeypatch.setattr(_dm_memory.os, "statvfs", lambda path: free)
    wanted = [{"name": "stale", "size": 4}, {"name": "new", "size": 2}]
    assert run(regions=wanted, _ansible_check_mode=True)["room"] == ""
    wanted[1]["size"] = 4
    told = run(regions=wanted, _ansible_check_mode=True)["room"]
    assert "has room for 7 MB, and 8 MB are wanted for stale, new" in told
    # What is there has its room.
    assert (
        run(regions=[{"name": "stale", "size": 2}, {"name": "new", "size": 4}], _ansible_check_mode=True)["room"] == ""
    )
