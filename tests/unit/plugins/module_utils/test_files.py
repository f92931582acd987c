# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import locked, read_file, replace_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


class Module:
    """The part of AnsibleModule that replace_file uses."""

    def selinux_enabled(self):
        return False

    def set_fs_attributes_if_different(self, attributes, changed):
        return changed

    def backup_local(self, path):
        with open(path, "rb") as old, open(f"{path}.bak", "wb") as new:
            new.write(old.read())
        return f"{path}.bak"


def test_files_are_locked_under_whatever_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = pytest.raises(IvshmemError, match=r"line\.xml: this process itself holds the lock")
    with locked("line.xml"), told, locked(str(tmp_path / "line.xml"), limit=0.01):
        pass


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_read(tmp_path, make):
    make(str(tmp_path / "x"))
    with pytest.raises(
        IvshmemError, match=r"x: is not a regular file; move it away or name another file, and run this again$"
    ):
        read_file(str(tmp_path / "x"))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(IvshmemError, match="x: cannot be read: No such file"):
        read_file(str(tmp_path / "x"))


def test_a_huge_file_is_not_read(tmp_path):
    with open(str(tmp_path / "huge"), "wb") as handle:
        handle.truncate(100 * 1024 * 1024)
    with pytest.raises(IvshmemError, match="huge: larger than 4 MB"):
        read_file(str(tmp_path / "huge"))


def test_replaced_in_one_step(tmp_path):
    path = tmp_path / "line.xml"
    path.write_bytes(b"old")
    with open(str(path), "rb") as handle:
        assert replace_file(Module(), str(path), b"new") is None
        assert handle.read() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(str(tmp_path)) == ["line.xml"]


def test_what_a_killed_run_left_is_taken_over(tmp_path):
    path, left = tmp_path / "line.xml", tmp_path / ".line.xml.ivshmem-new"
    left.symlink_to(tmp_path / "elsewhere")
    assert replace_file(Module(), str(path), b"new", backup=True) is None
    assert (path.read_bytes(), os.listdir(str(tmp_path))) == (b"new", ["line.xml"])
    assert replace_file(Module(), str(path), b"newer", backup=True) == f"{path}.bak"


def test_owner_and_mode_are_there_before_the_name(tmp_path, monkeypatch):
    path = tmp_path / "line.xml"
    seen = []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda src, dest: (seen.append(os.stat(src).st_mode & 0o777), rename(src, dest)))
    mask = os.umask(0o027)
    try:
        replace_file(Module(), str(path), b"new")
    finally:
        os.umask(mask)
    path.chmod(0o604)
    replace_file(Module(), str(path), b"newer")
    assert (seen, path.stat().st_mode & 0o777) == ([0o640, 0o604], 0o604)


class Exit(Exception):
    """What fail_json does."""


@pytest.mark.parametrize("step", ["backup_local", "set_fs_attributes_if_different"])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, step):
    def fail(*_args):
        raise Exit

    path = tmp_path / "line.xml"
    path.write_bytes(b"old")
    monkeypatch.setattr(Module, step, fail)
    with pytest.raises(Exit):
        replace_file(Module(), str(path), b"new", backup=True, attributes={"mode": "0755"})
    assert path.read_bytes() == b"old"
    assert ".line.xml.ivshmem-new" not in os.listdir(str(tmp_path))


def test_no_backup_of_what_was_not_changed(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "line.xml"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(IvshmemError, match="No space left on device; it was not changed"):
        replace_file(Module(), str(path), b"new", backup=True)
    assert os.listdir(tmp_path) == ["line.xml"]
    assert path.read_bytes() == b"old"


def test_a_directory_that_cannot_be_written(tmp_path):
    left = tmp_path / ".line.xml.ivshmem-new"
    left.mkdir()
    (tmp_path / "line.xml").write_bytes(b"old")
    with pytest.raises(IvshmemError, match=r"line\.xml: cannot be written: .*; it was not changed"):
        replace_file(Module(), str(tmp_path / "line.xml"), b"new")
    assert (tmp_path / "line.xml").read_bytes() == b"old"
