# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of dm-land regions and the processes that use them: real files, real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import make_devices
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._dm_memory import (
    MB,
    Processes,
    RunningVm,
    explain,
    look,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

HOLD = """
import mmap, sys
handle = open(sys.argv[1], "r+b")
mapping = mmap.mmap(handle.fileno(), 0) if sys.argv[2] == "map" else None
if mapping:
    handle.close()
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holding(path, how, tmp_path, vm="VM1"):
    """A process that is called acrn-dm and has a file open or mapped."""
    program = tmp_path / "acrn-dm"
    program.write_text(HOLD)
    command = [sys.executable, str(program), str(path), how, "-s", "6,ivshmem,dm:/test,2", vm]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.stdin.close()
            process.wait(timeout=20)


def _file(folder, name, size):
    path = folder / name
    with open(path, "wb") as handle:
        handle.truncate(size)
    return path


def test_what_is_in_the_way(tmp_path):
    _file(tmp_path, "right", 2 * MB)
    _file(tmp_path, "small", MB)
    _file(tmp_path, "gone", 4 * MB)
    found = look({"right": 2, "small": 2, "new": 2}, ["gone", "right"], str(tmp_path), Processes())
    assert [(memory.name, memory.stale) for memory in found] == [
        ("right", False),
        ("small", True),
        ("new", False),
        ("gone", True),
    ]
    assert not any(memory.holders for memory in found)


@pytest.mark.parametrize("how", ["map", "open"])
def test_who_holds_it(tmp_path, how):
    path = _file(tmp_path, "test", 2 * MB)
    with holding(path, how, tmp_path) as process:
        (memory,) = look({"test": 4}, [], str(tmp_path), Processes())
        assert [(holder.pid, holder.vm) for holder in memory.holders] == [(process.pid, "VM1")]
        text = explain(memory)
        assert f"{path} has 2 MB and 4 MB are wanted, but it is in use by VM VM1." in text
        assert "stop them together" in text
        # A new file of that name is another one: nobody holds it.
        path.unlink()
        _file(tmp_path, "test", 2 * MB)
        assert not look({"test": 4}, [], str(tmp_path), Processes())[0].holders
    assert not look({"test": 4}, [], str(tmp_path), Processes())[0].holders


def test_running_vms_and_their_devices(tmp_path):
    path = _file(tmp_path, "test", 2 * MB)
    with holding(path, "open", tmp_path, "DM_MEMORY_TEST") as process:
        running = {vm.vm: vm for vm in Processes().vms()}["DM_MEMORY_TEST"]
    assert running.pid == process.pid
    assert running.dm_regions() == {"test"}
    assert running.fits(make_devices([{"name": "dm:/test", "size": 2}]))
    assert running.fits(make_devices([{"name": "dm:/test", "size": 2, "slot": 6}]))
    assert not running.fits(make_devices([{"name": "dm:/test", "size": 2, "slot": 7}]))
    assert not running.fits(make_devices([{"name": "dm:/test", "size": 4}]))
    assert not running.fits(())
    assert not running.fits(make_devices([{"name": "dm:/test", "size": 2}, {"name": "dm:/b", "size": 2}]))


def test_vm_without_devices_fits_none():
    assert RunningVm(1, "VM", frozenset()).fits(())
    assert RunningVm(1, "VM", frozenset([(6, "dm:/test,2M,0x1388")])).fits(
        make_devices([{"name": "dm:/test", "size": 2}])
    )


@pytest.mark.parametrize(("version", "fits"), [((2, 7), True), ((3, 2), True), ((3, 3), False), (None, False)])
def test_a_region_id_counts_where_acrn_dm_reads_it(version, fits):
    running = RunningVm(1, "VM", frozenset([(6, "dm:/test,2,4097")]))
    assert running.fits(make_devices([{"name": "dm:/test", "size": 2}], version), version) is fits


def _proc(folder, pid, command, cgroup="0::/\n", parent=1):
    place = folder / str(pid)
    (place / "fd").mkdir(parents=True)
    (place / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))
    (place / "cgroup").write_text(cgroup)
    (place / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")
    (place / "maps").write_text(
        "00400000-00401000 r-xp 00000000 00:00 0\n7f00-7f01 rw-s 0 00:1a 77 /x (deleted)\nodd\n"
    )
    return place


def test_vm_of_a_process_is_told_by_its_unit_or_its_parents(tmp_path):
    proc = tmp_path / "proc"
    shm = _file(tmp_path, "test", MB)
    unit = "0::/system.slice/system-acrn\\x2dvm.slice/acrn-vm@HMI-1.service\n"
    places = [
        _proc(proc, 10, ["/usr/bin/acrn-dm", "-m", "1G", "VM1"]),
        _proc(proc, 11, ["helper"], parent=10),
        _proc(proc, 12, ["qemu-system-x86_64", "-name", "x"], unit),
        _proc(proc, 13, ["cat"]),
        _proc(proc, 14, ["python3", "-B", "/lab/acrn_dm.py", "-s", "3,virtio-rnd", "VM2"]),
        _proc(proc, 15, ["vim", "acrn-dm.c", "VM3"]),
    ]
    (proc / "self").mkdir()
    for place in places:
        (place / "fd" / "3").symlink_to(shm)
    processes = Processes(str(proc))
    (memory,) = look({}, ["test"], str(tmp_path), processes)
    assert [(holder.pid, holder.vm) for holder in memory.holders] == [
        (10, "VM1"),
        (11, "VM1"),
        (12, "HMI-1"),
        (13, None),
        (14, "VM2"),
        (15, None),
    ]
    assert "in use by VM HMI-1, VM VM1, VM VM2, process 13 (cat)" in explain(memory)
    assert [vm.vm for vm in processes.vms()] == ["VM1", "VM2"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 28, "a b"])
def test_only_names_of_regions(tmp_path, name):
    with pytest.raises(IvshmemError, match="is no name of a region"):
        look({}, [name], str(tmp_path), Processes())


def test_what_is_no_file_is_left_alone(tmp_path):
    (tmp_path / "test").symlink_to("/etc/passwd")
    with pytest.raises(IvshmemError, match="is no plain file"):
        look({"test": 2}, [], str(tmp_path), Processes())


def test_vm_that_cannot_be_looked_at_makes_it_unknown(tmp_path, monkeypatch):
    proc = tmp_path / "proc"
    _file(tmp_path, "test", MB)
    _proc(proc, 10, ["acrn-dm", "VM1"])
    _proc(proc, 11, ["bash"])
    refuse = os.listdir

    def listdir(path):
        if str(path).endswith("fd"):
            raise PermissionError(13, "Permission denied", path)
        return refuse(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(IvshmemError, match=r"process 10 is that of a VM .* run as root"):
        look({"test": 2}, [], str(tmp_path), Processes(str(proc)))
    (proc / "10" / "cmdline").write_bytes(b"other\0")
    assert look({"test": 2}, [], str(tmp_path), Processes(str(proc)))[0].stale
