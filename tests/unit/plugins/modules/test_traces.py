# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes and, above all, what stays. That nothing is left of a run of site is in tests/integration_acrn."""

from __future__ import annotations

import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.module_utils import _traces
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import ORIGINAL
from ansible_collections.acrn.ivshmem.plugins.modules import traces

MARK = "# Starts a VM. Written by the Ansible role acrn.ivshmem.launch: changes get lost.\n"
KEY = "0123456789abcdef0123456789abcdef"


def script(*devices, memory="1G", vm="VM1", head="#!/bin/sh\n"):
    lines = "".join(f"  -s {device} \\\n" for device in devices)
    return f"{head}exec acrn-dm -m {memory} -s 0:0,hostbridge \\\n{lines}  {vm}\n"


class Host:
    """A root directory with what the role launch has to do with."""

    def __init__(self, root):
        self.root = root
        for name in ("launch", "units", "wants/multi-user.target.wants", "active", "shm"):
            (root / name).mkdir(parents=True)

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def script(self, name, now, first=None):
        path = self.put(f"launch/{name}.sh", now)
        if first is not None:
            (self.root / f"launch/{name}.sh{ORIGINAL}").write_text(first)
        return path

    def unit(self, *vms, mark=MARK):
        self.put("units/acrn-vm@.service", mark)
        for vm in vms:
            (self.root / f"wants/multi-user.target.wants/acrn-vm@{vm}.service").symlink_to("../acrn-vm@.service")

    def remove(self, scripts=(), regions=(), running=(), do=True):
        removal = _traces.of_launch(
            _traces.Launch(
                directory=str(self.root / "launch"),
                unit_directory=str(self.root / "units"),
                scripts={name: str(self.root / path) for name, path in dict(scripts).items()},
                regions=regions,
                running=frozenset(running),
                wants=str(self.root / "wants"),
                active=str(self.root / "active"),
                memory=str(self.root / "shm"),
            )
        )
        if do:
            for path, data in removal.written.items():
                with open(path, "wb") as handle:
                    handle.write(data)
            _traces.apply(removal)
        return removal

    def files(self):
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir())


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_units_and_written_scripts_go(host):
    host.unit("VM1", "VM2")
    host.script("VM1", MARK + script("5,ivshmem,dm:/log,2"))
    host.script("VM2", "#!/bin/sh\n" + MARK + script(), first="")
    host.script("made", script(), first="")  # by ACRN's generator, which leaves no mark
    host.put("shm/log", "")
    removal = host.remove()
    assert (host.files(), removal.memory) == (["shm/log"], ["log"])
    assert not (host.root / "launch").exists()
    assert host.remove().gone == []


def test_what_others_wrote_stays(host):
    host.unit("VM9", mark="[Unit]\nDescription=my own\n")
    host.script("mine", script("5,ivshmem,dm:/mine,2"))
    host.put("launch/readme", "")
    before = host.files()
    removal = host.remove({"mine": "launch/mine.sh"}, [{"name": "mine", "provided_by": "device_model", "size": 2}])
    assert (host.files(), removal.memory) == (before, [])
    # It may be one that was edited, and has lost its copy.
    (told,) = removal.kept
    assert told.startswith(f"{host.root}/launch/mine.sh keeps dm:/mine: there is no {host.root}/launch/mine.sh.before")
    assert host.remove({"mine": "launch/mine.sh"}).kept == []


@pytest.mark.parametrize(
    ("now", "first", "after"),
    [
        # Nothing but devices has changed: the copy, with all that a strip could not give back.
        (script("9,ivshmem,hv:/a,2"), script("7,ivshmem,dm:/b,4"), script("7,ivshmem,dm:/b,4")),
        # The user has given the VM more memory since.
        (script("9,ivshmem,hv:/a,2", memory="2G"), script(memory="1G"), script(memory="2G")),
        (
            script("9,ivshmem,hv:/a,2", "8,ivshmem,dm:/b,4", memory="2G"),
            script("7,ivshmem,dm:/b,2", memory="1G"),
            script("7,ivshmem,dm:/b,2", memory="2G"),
        ),
        # Written anew over a script that was there.
        (MARK + script("9,ivshmem,hv:/a,2"), script("3,virtio-blk,/disk"), script("3,virtio-blk,/disk")),
    ],
)
def test_an_edited_script_becomes_what_it_was(host, now, first, after):
    path = host.script("VM1", now, first)
    removal = host.remove(do=False)
    assert removal.written[str(path)].decode() == after
    host.remove()
    assert (path.read_text(), host.files()) == (after, ["launch/VM1.sh"])
    assert host.remove().written == {}


def test_the_last_copy_of_a_users_script_stays(host):
    """Somebody has removed the script itself; of one that was made here, an empty copy tells so."""
    for name, first in (("VM1", script("3,virtio-blk,/disk")), ("VM2", "")):
        host.script(name, script(), first).unlink()
    removal = host.remove()
    assert (host.files(), removal.written) == ([f"launch/VM1.sh{ORIGINAL}"], {})
    assert [text.split(" stays: ")[0] for text in removal.kept] == [str(host.root / f"launch/VM1.sh{ORIGINAL}")]
    assert host.remove().gone == []


def test_a_build_without_its_manifest_is_told(host):
    host.put("artifacts/" + "a" * 32 + "/acrn.bin", "")
    removal = _traces.of_builder(str(host.root / "artifacts"), str(host.root / "work"), "", "")
    assert removal.gone == [] and removal.emptied() == []
    assert "a" * 32 + " stays: it is named like a build" in "".join(removal.kept)


def test_a_script_elsewhere_and_the_link_to_it(host):
    host.put("home/hmi.sh", script("9,ivshmem,dm:/a,2"))
    host.put(f"home/hmi.sh{ORIGINAL}", script())
    (host.root / "launch/VM1.sh").symlink_to(host.root / "home/hmi.sh")
    (host.root / "launch/other.sh").symlink_to(host.root / "home/other.sh")
    removal = host.remove({"VM1": "home/hmi.sh"})
    assert (host.files(), removal.memory) == (["home/hmi.sh", "launch/other.sh"], ["a"])
    assert (host.root / "home/hmi.sh").read_text() == script()


def test_backups_go_with_the_script_that_is_what_it_was(host):
    path = host.script("VM1", script("9,ivshmem,hv:/a,2"), script())
    for time in ("2026-01-02@03:04:05", "2026-01-01@03:04:05"):
        (host.root / f"launch/VM1.sh.12.{time}~").write_text(script("8,ivshmem,hv:/a,2"))
    (host.root / "launch/VM1.sh.mine~").write_text("an editor's")
    host.remove()
    assert (path.read_text(), host.files()) == (script(), ["launch/VM1.sh", "launch/VM1.sh.mine~"])


def test_a_vm_that_runs_keeps_its_unit_and_script(host):
    host.unit("VM1")
    host.script("VM1", MARK + script("5,ivshmem,dm:/log,2"))
    host.put("shm/log", "x" * 2)
    (host.root / "active/invocation:acrn-vm@VM1.service").symlink_to("0123")
    removal = host.remove(regions=[{"name": "log", "provided_by": "device_model", "size": 2}])
    assert [path for path in host.files() if "wants" in path] == []  # it is not started again at the next boot
    assert {"launch/VM1.sh", "units/acrn-vm@.service"} <= set(host.files())
    assert (len(removal.kept), removal.memory) == (2, [])
    assert host.remove().gone == []
    (host.root / "active/invocation:acrn-vm@VM1.service").unlink()
    host.remove()
    assert host.files() == ["shm/log"]


def test_memory_of_a_declared_region_is_told_by_its_size(host):
    for name, size in (("small", 1 << 20), ("log", 2 << 20), ("mine", 2 << 20)):
        host.put(f"shm/{name}", "")
        os.truncate(host.root / f"shm/{name}", size)
    regions = [{"name": name, "provided_by": "device_model", "size": 2} for name in ("small", "log", "mine", "none")]
    host.script("mine", script("5,ivshmem,dm:/mine,2"))
    assert host.remove(regions=regions).memory == ["log"]


def test_a_script_that_cannot_be_read_stays(host):
    path = host.script("VM1", "exec acrn-dm 'open\n", script())
    removal = host.remove()
    assert path.exists()
    assert "is left as it is" in removal.kept[0]
    assert host.files() == ["launch/VM1.sh", f"launch/VM1.sh{ORIGINAL}"]


@pytest.mark.parametrize("kind", ["directory", "fifo", "nowhere"])
@pytest.mark.parametrize("name", ["VM1.sh", f"VM1.sh{ORIGINAL}", "own.sh"])
def test_what_is_no_script_keeps_nothing_else_from_going(host, name, kind):
    host.script("VM1", script("5,ivshmem,dm:/log,2"), script())
    host.unit()
    path = host.root / "launch" / name
    path.unlink(missing_ok=True)
    if kind == "nowhere":
        path.symlink_to("nowhere")
    else:
        path.mkdir() if kind == "directory" else os.mkfifo(path)
    removal = host.remove()
    assert path.is_symlink() or path.exists()
    assert not (host.root / "units/acrn-vm@.service").exists()
    if kind != "nowhere":
        (told,) = removal.kept
        assert f"{path}: is not a regular file, so" in told and told.endswith("see what it is, and remove it by hand")


def test_a_builder_keeps_what_is_not_a_build(host):
    artifacts = host.root / "acrn-ivshmem/artifacts"
    host.put(f"acrn-ivshmem/artifacts/{KEY}/manifest.json", "{}")
    host.put("acrn-ivshmem/artifacts/.new-1/acrn.bin", "")
    for name in (f"{KEY[:-1]}x/manifest.json", f"{KEY[::-1]}/notes", "mine"):
        host.put(f"acrn-ivshmem/artifacts/{name}", "")
    host.put("mywork/file", "")
    host.put("myvenv/pyvenv.cfg", "")
    host.put("acrn-ivshmem/acrn/.git/HEAD", "")
    removal = _traces.of_builder(
        *(str(host.root / name) for name in ("acrn-ivshmem/artifacts", "mywork", "myvenv")), ""
    )
    removal.gone = _traces.apply(removal)
    assert sorted(os.listdir(artifacts)) == sorted([f"{KEY[:-1]}x", KEY[::-1], "mine"])
    assert {"mywork/file", "myvenv/pyvenv.cfg", "acrn-ivshmem/acrn/.git/HEAD"} <= set(host.files())
    assert "myvenv stays" in removal.kept[0]


def test_artefacts_of_each_builder_go_from_the_controller(host):
    for name in (f"one/{KEY}/manifest.json", f"two/{KEY}/acrn.bin", f"{KEY}/manifest.json", "two/notes"):
        host.put(f"cache/{name}", "{}")
    _traces.apply(_traces.of_controller(str(host.root / "none"), {}, str(host.root / "cache")))
    assert host.files() == ["cache/two/notes"]
    assert sorted(os.listdir(host.root / "cache")) == ["two"]


def test_a_directory_of_ones_own_on_the_controller_keeps_the_rest(host):
    host.put("scenarios/h1/line.xml", "")
    host.put("scenarios/h1/line.xml.12.2026-01-02@03:04:05~", "")
    host.put("scenarios/h1/mine.xml", "")
    host.put(".acrn-ivshmem/h1/an-earlier-name.xml", "")
    for folder in ("scenarios", ".acrn-ivshmem"):
        _traces.apply(_traces.of_controller(str(host.root / folder), {"h1": ["line.xml", ""]}, ""))
    assert host.files() == ["scenarios/h1/mine.xml"]
    assert not (host.root / ".acrn-ivshmem").exists()


def test_the_module_predicts_what_it_does(host, monkeypatch):
    ended = []
    monkeypatch.setattr(traces.AnsibleModule, "exit_json", lambda module, **result: ended.append(result))
    path = host.script("VM1", script("9,ivshmem,dm:/a,2"), script())
    path.chmod(0o750)
    host.script("VM2", MARK)
    arguments = {"launch": {"directory": str(host.root / "launch"), "unit_directory": str(host.root / "units")}}
    for check in (True, False, False):
        with patch_module_args({**arguments, "_ansible_check_mode": check, "_ansible_diff": True}):
            traces.main()
    assert ended[0] == ended[1]
    assert (ended[0]["changed"], ended[0]["restored"], ended[0]["memory"]) == (True, [str(path)], ["a"])
    assert (ended[2]["changed"], path.read_text(), path.stat().st_mode & 0o777) == (False, script(), 0o750)
