# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils import _lock
from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


@contextlib.contextmanager
def holder(*subjects):
    """Another process that holds subjects until the end of the block."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with held(*subjects, limit=10, what="the other one"):
                os.write(writer, b"x")
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x"
        yield pid
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def refused(*subjects, limit=0.05):
    with pytest.raises(IvshmemError) as told, held(*subjects, limit=limit):
        pass
    return str(told.value)


def files_of(folder):
    return sorted(os.listdir(os.path.join(str(folder), "locks")))


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    monkeypatch.setenv(_lock.VARIABLE, str(tmp_path / "locks"))
    return tmp_path / "locks"


def test_one_process_at_a_time_and_who_it_is(tmp_path):
    path = str(tmp_path / "line.xml")
    with holder(path) as pid:
        told = refused(path)
        with held(str(tmp_path / "other.xml"), limit=0.05):
            pass
    assert told.startswith(f"{path}: another process has held the lock for more than 0.05 s: process {pid} (the other")
    assert f"since {time.strftime('%Y-')}" in told
    assert "pytest" in told
    # Killed: the lock went with it.
    with held(path, limit=0.05):
        assert "this process itself holds the lock already" in refused(path)
    with held(path, limit=0.05):
        pass


@pytest.mark.parametrize("other", ["links/line.xml", "link/line.xml", "real/../real/line.xml", "real//line.xml"])
def test_all_names_of_a_file_are_one_lock(tmp_path, other):
    for name in ("real", "links"):
        (tmp_path / name).mkdir()
    (tmp_path / "links" / "line.xml").symlink_to("../real/line.xml")
    (tmp_path / "link").symlink_to("real")
    with holder(str(tmp_path / "real" / "line.xml")):
        refused(str(tmp_path / other))


def test_a_bind_mount_is_the_same_place(tmp_path):
    for name in ("real", "bound"):
        (tmp_path / name).mkdir()
    if os.geteuid() or subprocess.run(["mount", "--bind", "real", "bound"], cwd=str(tmp_path), check=False).returncode:
        pytest.skip("no mounts here")
    try:
        with holder(str(tmp_path / "real" / "f"), str(tmp_path / "real")):
            refused(str(tmp_path / "bound" / "f"))
            refused(str(tmp_path / "bound"))
    finally:
        subprocess.run(["umount", str(tmp_path / "bound")], check=True)


def test_an_edit_by_rename_changes_no_lock(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with holder(str(path)):
        (tmp_path / "g").write_text("new")
        os.rename(str(tmp_path / "g"), str(path))
        refused(str(path))


def test_a_directory_a_file_in_it_and_a_name_are_three_things(tmp_path):
    with holder(str(tmp_path)), holder(str(tmp_path / "f")), holder(str(tmp_path.name)):
        assert len(files_of(tmp_path)) == 3


def test_a_subject_twice_and_none_at_all(tmp_path):
    with held(str(tmp_path / "f"), str(tmp_path / "." / "f"), limit=0.05) as handles:
        assert len(handles) == 1
    with held() as handles:
        assert handles == ()


def test_two_subjects_in_any_order_never_wait_for_each_other(tmp_path):
    code = (
        "import sys\n"
        "from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held\n"
        "for _turn in range(300):\n    with held(*sys.argv[1:], limit=60):\n        pass\n"
    )
    both = [str(tmp_path / "a"), str(tmp_path / "b")]
    runs = [subprocess.Popen([sys.executable, "-c", code, *order], env=environment()) for order in (both, both[::-1])]
    assert [run.wait(60) for run in runs] == [0, 0]


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_writers_of_many_processes_lose_nothing(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = (
        "import sys, pathlib, os\n"
        "from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "for turn in range(50):\n    with held(str(path), limit=60):\n"
        "        value = int(path.read_text())\n"
        "        path.with_name('new').write_text(str(value + 1))\n"
        "        os.rename(path.with_name('new'), path)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(counter)], env=environment()) for _number in range(6)]
    assert [run.wait(120) for run in runs] == [0] * 6
    assert counter.read_text() == "300"


def test_a_child_that_outlives_its_parent_keeps_others_out(tmp_path):
    path = str(tmp_path / "f")
    code = (
        "import os, subprocess, sys\n"
        "from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held\n"
        "with held(sys.argv[1], limit=5, what='a build') as handles:\n"
        "    child = subprocess.Popen(['sleep', '60'], pass_fds=handles, stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n    os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment(), stdout=subprocess.PIPE, check=True, timeout=60
    )
    try:
        assert "a program that was started by process" in refused(path)
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)
    with held(path, limit=10):
        pass


def test_without_handles_a_child_holds_nothing(tmp_path):
    path = str(tmp_path / "f")
    with held(path, limit=1):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with held(path, limit=1):
            pass
    finally:
        child.kill()
        child.wait()


def test_no_other_user_can_take_it_or_hold_it_up(tmp_path, locks):
    if os.geteuid():
        pytest.skip("needs root")
    path = tmp_path / "f"
    path.write_text("x")
    os.chmod(str(tmp_path), 0o755)
    for folder in list(tmp_path.parents)[:3]:
        os.chmod(str(folder), os.stat(str(folder)).st_mode | 0o055)
    with held(str(path), limit=1):
        pass
    inside = [str(locks / name) for name in files_of(tmp_path)]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        opened = []
        # Everything that it can open it locks: the file, its directory, that of the locks, what is in there.
        for place in [str(path), str(tmp_path), str(locks), *inside]:
            with contextlib.suppress(OSError):
                opened.append(os.open(place, os.O_RDONLY))
                fcntl.flock(opened[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(writer, b"%d" % len(opened))
        time.sleep(60)
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"2"
        with held(str(path), limit=0.5):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("kind", ["symlink", "file", "writable", "foreign"])
def test_a_directory_that_others_prepared_is_refused(tmp_path, locks, kind):
    if kind == "symlink":
        (tmp_path / "theirs").mkdir(mode=0o700)
        locks.symlink_to("theirs")
    elif kind == "file":
        locks.write_text("")
    else:
        locks.mkdir()
        os.chmod(str(locks), 0o777 if kind == "writable" else 0o700)
        if kind == "foreign":
            if os.geteuid():
                pytest.skip("needs root")
            os.chown(str(locks), 65534, 65534)
    told = refused(str(tmp_path / "f"))
    assert told.startswith(f"{locks}: this directory, where locks are kept, ")
    assert "ACRN_IVSHMEM_LOCKS" in told


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path, locks):
    with held("x", limit=1):
        pass
    (name,) = files_of(tmp_path)
    os.unlink(str(locks / name))
    (locks / name).symlink_to(tmp_path / "victim")
    assert "cannot be locked" in refused("x")
    assert not (tmp_path / "victim").exists()


def test_the_directory_is_closed_to_others(tmp_path, locks):
    locks.mkdir(mode=0o755)
    with held("x", limit=1):
        pass
    assert os.stat(str(locks)).st_mode & 0o777 == 0o700
    (name,) = files_of(tmp_path)
    assert os.stat(str(locks / name)).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, code):
    def flock(_handle, _flags):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_lock.fcntl, "flock", flock)
    told = refused(str(tmp_path / "f"))
    assert told.startswith(f"{tmp_path}/f: cannot be locked: {tmp_path}/locks")
    assert os.strerror(code) in told
    assert ("ACRN_IVSHMEM_LOCKS" in told) == (code != errno.EIO)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    real = os.open

    def full(path, flags, *args, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(_lock.os, "open", full)
    assert "No space left on device" in refused(str(tmp_path / "f"))


def test_a_note_does_not_speak_to_the_terminal(locks):
    name = _lock._identity("thing", [])
    locks.mkdir(mode=0o700)
    with open(locks / name, "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write("1\n1700000000\nhost\x1b]0;x\x07\u009b31m\nwhat\u2028\ncommand\n")
        handle.flush()
        with pytest.raises(IvshmemError) as caught, _lock.held("thing", limit=0):
            pass
    assert "on host?]0;x??31m" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_note_that_cannot_be_written_costs_no_lock(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_lock.os, "pwrite", full)
    path = str(tmp_path / "f")
    with holder(path):
        told = refused(path)
    assert f"fuser -v {tmp_path}/locks/" in told


def test_no_directory_to_lock(tmp_path):
    assert refused(f"{tmp_path}/nowhere/a").startswith(
        f"{tmp_path}/nowhere: this directory cannot be opened: No such file"
    )


def test_a_link_that_changes_while_somebody_waits(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("a")
    with holder(str(tmp_path / "b" / "f")):
        first = holder(str(tmp_path / "a" / "f"))
        first.__enter__()
        pid = os.fork()
        if pid == 0:
            time.sleep(0.2)
            os.unlink(str(tmp_path / "link"))
            os.symlink("b", str(tmp_path / "link"))
            os._exit(0)
        real = _lock._take
        taken = []

        def take(*args):
            if not taken:
                os.waitpid(pid, 0)
                first.__exit__(None, None, None)
            taken.append(args[1])
            return real(*args)

        _lock._take = take
        try:
            refused(str(tmp_path / "link" / "f"), limit=1)
        finally:
            _lock._take = real
    assert len(set(taken)) == 2


def test_old_lock_files_go_and_held_ones_stay(tmp_path, locks):
    with held("gone", limit=1):
        pass
    with holder("kept"):
        for name in files_of(tmp_path):
            os.utime(str(locks / name), (0, 0))
        with held("new", limit=1):
            pass
        assert sorted(name.rpartition("-")[2] for name in files_of(tmp_path)) == ["kept", "new"]
        refused("kept")


def test_no_handle_stays_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    with held(str(tmp_path / "f"), "x", limit=1):
        pass
    with holder("x"):
        refused(str(tmp_path / "f"), "x")
    refused(f"{tmp_path}/nowhere/a", "x")
    assert len(os.listdir("/proc/self/fd")) == len(before)


# -- where ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Without the variable: a home directory and places that the test may use."""
    monkeypatch.delenv(_lock.VARIABLE)
    for name in ("home", "run", "last"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(_lock, "_RUN", str(tmp_path / "run"))
    monkeypatch.setattr(_lock, "_LAST", (str(tmp_path / "nothing"), str(tmp_path / "last")))
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))

    class Entry:
        pw_dir = str(tmp_path / "home")

    monkeypatch.setattr(_lock.pwd, "getpwuid", lambda _uid: Entry)
    return Entry


def used(tmp_path):
    with held("x", limit=1):
        pass
    return [
        os.path.relpath(folder, str(tmp_path))
        for folder, _folders, names in os.walk(str(tmp_path))
        if any(name.endswith("-x") for name in names)
    ]


@pytest.mark.parametrize("home", ["there", "missing", "relative", "foreign", "no entry"])
def test_the_directory_of_a_user(tmp_path, monkeypatch, user, home):
    uid = os.geteuid()
    monkeypatch.setattr(_lock, "_RUN", str(tmp_path / "no-run"))
    if home == "missing":
        user.pw_dir = str(tmp_path / "gone")
    elif home == "relative":
        user.pw_dir = "home"
    elif home == "foreign":
        user.pw_dir = "/proc/1" if uid else "/"
        if not uid:
            os.chown(str(tmp_path / "home"), 65534, 65534)
            user.pw_dir = str(tmp_path / "home")
    elif home == "no entry":
        monkeypatch.setattr(_lock.pwd, "getpwuid", {}.__getitem__)
    wanted = "home/.cache/acrn-ivshmem/lock" if home == "there" else f"last/acrn-ivshmem-{uid}/lock"
    assert used(tmp_path) == [wanted]
    assert used(tmp_path) == [wanted]


def test_the_directory_of_root(tmp_path, monkeypatch, user):
    monkeypatch.setattr(_lock.os, "geteuid", lambda: 0)
    if os.getuid():
        pytest.skip("needs root")
    assert used(tmp_path) == ["run/acrn-ivshmem/lock"]


def test_a_cache_that_leads_elsewhere(tmp_path, monkeypatch, user):
    monkeypatch.setattr(_lock, "_RUN", str(tmp_path / "no-run"))
    (tmp_path / "big").mkdir()
    (tmp_path / "home" / ".cache").symlink_to("../big")
    assert used(tmp_path) == ["big/acrn-ivshmem/lock"]
