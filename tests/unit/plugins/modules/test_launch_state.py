# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""launch_state sees every drift that the modules of the role launch would mend."""

from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch import _compare, _dm_memory, _running
from ansible_collections.acrn.ivshmem.plugins.modules import dm_memory, launch_script, launch_state

CONTENT = "#!/usr/bin/env bash\ndm_params=(\n    -s '0:0,hostbridge'\n    'VM1'\n)\nexec acrn-dm \"${dm_params[@]}\"\n"
DEVICES = [{"name": "dm:/test", "size": 2, "slot": 6}]


class ServiceVm:
    """A Service VM that is as it should be, in a directory."""

    def __init__(self, root):
        self.root = root
        self.script = root / "launch/VM1.sh"
        self.unit = root / "units/acrn-vm@.service"
        self.enabled = root / "units/wants"
        self.link = root / "launch/other.sh"
        self.memory = root / "shm/test"
        for folder in ("launch", "units", "shm", "proc"):
            (root / folder).mkdir()
            (root / folder).chmod(0o755)
        self.unit.write_text("[Unit]\n")
        self.unit.chmod(0o644)
        self.enabled.symlink_to(self.unit)
        self.link.symlink_to(self.script)
        self.run()
        with open(self.memory, "wb") as handle:
            handle.truncate(2 << 20)

    def run(self, *devices, pid=100):
        """Let VM1 run with these arguments, by default those of the plan."""
        folder = self.root / f"proc/{pid}"
        (folder / "fd").mkdir(parents=True, exist_ok=True)
        words = ["acrn-dm", *(devices or ["-s", "6,ivshmem,dm:/test,2"]), "VM1"]
        (folder / "cmdline").write_bytes(b"\0".join(word.encode() for word in words) + b"\0")

    def clear(self):
        """Take the directory of the scripts away."""
        for path in self.script.parent.iterdir():
            path.unlink()
        self.script.parent.rmdir()

    def stop(self):
        (self.root / "proc/100/cmdline").unlink()

    @property
    def wish(self):
        return {
            "scripts": [
                {"path": str(self.script), "content": CONTENT, "devices": DEVICES, "vm": "VM1", "mode": "0755"}
            ],
            "files": [
                {"path": str(self.script.parent), "state": "directory", "mode": "0755"},
                {"path": str(self.unit), "content": "[Unit]\n", "mode": "0644"},
                {"path": str(self.enabled), "state": "link"},
                {"path": str(self.root / "gone"), "state": "absent"},
                {"path": str(self.link), "state": "link", "src": str(self.script)},
            ],
            "regions": [{"name": "test", "size": 2}],
            "absent": ["old"],
            "vms": [{"name": "VM1", "devices": DEVICES}],
            "started": ["VM1"],
            "acrn_version": "3.3",
            "directory": str(self.memory.parent),
        }


@pytest.fixture
def host(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_compare, "Processes", lambda: _dm_memory.Processes(str(tmp_path / "proc")))
    host = ServiceVm(tmp_path)
    with patch_module_args(host.wish["scripts"][0]), pytest.raises(SystemExit):
        launch_script.main()
    assert json.loads(capsys.readouterr().out)["changed"]
    return host


@pytest.fixture
def compare(capsys):
    def run(wish):
        with patch_module_args({"wish": wish}), pytest.raises(SystemExit):
            launch_state.main()
        return json.loads(capsys.readouterr().out)

    return run


def snapshot(root):
    return {path: (os.lstat(path).st_mtime_ns, os.lstat(path).st_mode) for path in sorted(root.rglob("*"))}


def test_nothing_differs(host, compare):
    before = snapshot(host.root)
    result = compare(host.wish)
    assert (result["changed"], result["same"], result["differences"]) == (False, True, [])
    assert result["vms"] == [{"name": "VM1", "pid": 100, "fits": True}]
    assert snapshot(host.root) == before


DRIFTS = {
    "script changed": (lambda host: host.script.write_text(CONTENT), "VM1.sh: has other content"),
    "script gone": (lambda host: host.script.unlink(), "VM1.sh: is missing"),
    "script's mode": (lambda host: host.script.chmod(0o644), "VM1.sh: has another mode"),
    "directory's mode": (lambda host: host.script.parent.chmod(0o700), "launch: has mode 0700"),
    "unit changed": (lambda host: host.unit.write_text("[Unit]"), "acrn-vm@.service: has other content"),
    "unit's mode": (lambda host: host.unit.chmod(0o600), "acrn-vm@.service: has mode 0600"),
    "unit gone": (lambda host: host.unit.unlink(), "acrn-vm@.service: is missing"),
    "not enabled": (lambda host: host.enabled.unlink(), "wants: is missing"),
    "no link": (lambda host: (host.enabled.unlink(), host.enabled.touch()), "wants: is no link"),
    "enabled": (lambda host: (host.root / "gone").symlink_to("x"), "gone: is there"),
    "memory's size": (lambda host: os.truncate(host.memory, 1 << 20), "shm/test: is stale"),
    "memory of a region that is gone": (lambda host: (host.root / "shm/old").touch(), "shm/old: is stale"),
    "VM stopped": (lambda host: host.stop(), "VM VM1: does not run"),
    "VM runs with another slot": (
        lambda host: host.run("-s", "7,ivshmem,dm:/test,2"),
        "VM VM1: runs with other devices",
    ),
    "VM runs without": (lambda host: host.run("-m", "512M"), "VM VM1: runs with other devices"),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_every_drift_is_seen(name, host, compare):
    drift, text = DRIFTS[name]
    drift(host)
    before = snapshot(host.root)
    result = compare(host.wish)
    assert not result["same"]
    assert [line for line in result["differences"] if line.endswith(text)], result["differences"]
    assert snapshot(host.root) == before


# What apply mends; the rest is systemd's and the VMs'.
FILES = (
    *("script changed", "script gone", "script's mode", "directory's mode"),
    *("unit changed", "unit's mode", "unit gone"),
)


@pytest.fixture
def apply(capsys):
    def run(wish, **more):
        params = {"wish": wish, "apply": True, **{f"_ansible_{name}": value for name, value in more.items()}}
        with patch_module_args(params), pytest.raises(SystemExit):
            launch_state.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("name", DRIFTS)
def test_what_is_compared_is_what_is_made(name, host, compare, apply):
    """Check mode tells what is done; then no difference is left in files, and a second run changes nothing."""
    DRIFTS[name][0](host)
    signs = [line for line in compare(host.wish)["differences"] if name not in FILES]
    before = snapshot(host.root)
    told = apply(host.wish, check_mode=True, diff=True)
    assert snapshot(host.root) == before
    done = apply(host.wish, diff=True)
    assert (told["changed"], told["written"]) == (done["changed"], done["written"])
    assert done["changed"] is (name in FILES)
    assert bool(done["diff"]) is (name in FILES and "script's" not in name), done["diff"]
    assert compare(host.wish)["differences"] == signs
    after = snapshot(host.root)
    again = apply(host.wish)
    assert (again["changed"], again["written"], snapshot(host.root)) == (False, [], after)


def test_a_first_run_makes_all_of_it(host, compare, apply):
    bare = host.root / "new"
    wish = json.loads(json.dumps(host.wish).replace(str(host.root), str(bare)))
    wish = {**wish, "regions": [], "vms": [], "started": [], "directory": str(host.memory.parent)}
    wish["files"] = [each for each in wish["files"] if {"content", "src"} & set(each) or each["state"] == "directory"]
    wish["files"].append({"path": f"{bare}/units", "state": "directory", "mode": "0755"})
    told = apply(wish, check_mode=True)
    assert not bare.exists()
    done = apply(wish)
    assert told["written"] == done["written"] and len(done["written"]) == 4
    assert [(each["vm"], each["changed"]) for each in done["scripts"]] == [("VM1", True)]
    assert compare(wish)["same"]
    assert os.path.samefile(bare / "launch/other.sh", bare / "launch/VM1.sh")


def test_a_directory_may_be_a_link(host, compare, apply):
    host.script.parent.rename(host.root / "elsewhere")
    host.script.parent.symlink_to(host.root / "elsewhere")
    assert compare(host.wish)["same"] and not apply(host.wish)["changed"]
    assert os.path.islink(host.script.parent)
    (host.root / "elsewhere").rename(host.root / "away")
    assert compare(host.wish)["failed"]
    assert "is no directory, and is not replaced" in apply(host.wish)["msg"]


IN_THE_WAY = {
    "file for a directory": (lambda host: [host.clear(), host.script.parent.write_text("x")], "is no directory"),
    "file for a link": (lambda host: [host.link.unlink(), host.link.write_text("x")], "is no link"),
    "directory for a link": (lambda host: [host.link.unlink(), host.link.mkdir()], "is a directory"),
    "directory for a file": (lambda host: [host.unit.unlink(), host.unit.mkdir()], "is a directory"),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_others_have_put_there_is_refused_before_anything_is_touched(name, host, compare, apply):
    change, told = IN_THE_WAY[name]
    if "directory's" not in name and host.script.exists():
        host.script.write_text(CONTENT)
    change(host)
    before = snapshot(host.root)
    for call in (compare, apply):
        result = call(host.wish)
        assert result["failed"] and told in result["msg"], result
    assert snapshot(host.root) == before


def test_a_link_to_a_file_of_others_is_replaced_and_not_followed(host, apply):
    other = host.root / "other"
    other.write_text("mine")
    host.unit.unlink()
    host.unit.symlink_to(other)
    assert apply(host.wish)["written"] == [str(host.unit)]
    assert (host.unit.is_symlink(), host.unit.read_text(), other.read_text()) == (False, "[Unit]\n", "mine")


OURS = ("script changed", "script gone", "script's mode", "memory's size", "memory of a region that is gone")


@pytest.mark.parametrize("name", ["nothing", *OURS])
def test_the_modules_that_mend_say_the_same(name, host, compare, capsys):
    if name != "nothing":
        DRIFTS[name][0](host)
    host.stop()  # so that memory that is in the way can be removed
    wish = {**host.wish, "started": []}
    memory = {key: wish[key] for key in ("regions", "absent", "vms", "acrn_version", "directory")}
    changed = []
    for module, params in ((launch_script, wish["scripts"][0]), (dm_memory, memory)):
        with patch_module_args({**params, "_ansible_check_mode": True}), pytest.raises(SystemExit):
            module.main()
        changed.append(json.loads(capsys.readouterr().out)["changed"])
    assert changed == [name in OURS[:3], name in OURS[3:]]
    assert compare(wish)["same"] is not any(changed)


def test_a_link_that_leads_elsewhere(host, compare):
    wish = host.wish
    wish["files"][2]["src"] = "/elsewhere"
    assert compare(wish)["differences"] == [f"{host.enabled}: leads to {host.unit}"]


def test_what_is_refused_comes_before_all_else(host, compare):
    result = compare({**host.wish, "refused": ["VM 'a': one", "VM 'a': two"]})
    assert (result["failed"], result["msg"]) == (True, "VM 'a': one\nVM 'a': two")


def test_it_fails_where_the_script_would_be_refused(host, compare):
    wish = host.wish
    wish["scripts"][0]["devices"] = [*DEVICES, {"name": "dm:/other", "size": 2, "slot": 6}]
    result = compare(wish)
    assert result["failed"]
    assert "slot 6" in result["msg"]


def test_a_script_to_edit_that_is_not_there_is_told_with_its_variable(host, compare):
    wish = host.wish
    wish["scripts"][0]["content"] = None
    host.script.unlink()
    assert compare(wish)["msg"].startswith(
        f"launch_vms: the script of VM 'VM1', {host.script}, is not there; write its path as script, or have it written"
    )
    host.script.mkdir()
    assert f"{host.script}, is no file; " in compare(wish)["msg"]


def test_every_script_that_is_refused_is_told(host, compare):
    wish = host.wish
    second = {**wish["scripts"][0], "path": f"{host.script.parent}/VM2.sh", "content": CONTENT.replace("VM1", "VM2")}
    wish["scripts"][0]["devices"] = [{"name": "dm:/te;st", "size": 2}]
    wish["vms"][0]["devices"] = wish["scripts"][0]["devices"]
    wish["scripts"].append({**second, "vm": "VM2", "devices": [{"name": "dm:/a", "size": 2, "slot": 31}]})
    first, last = compare(wish)["msg"].splitlines()
    assert first.startswith(f"{host.script}: line 6: region 'dm:/te;st': ")
    assert last.startswith(f"{host.script.parent}/VM2.sh: line 6: region 'dm:/a': slot 31 (00:1f.0) is reserved")


def test_what_scripts_and_memory_would_lose_is_told(host, compare):
    wish = host.wish
    wish["scripts"][0]["devices"] = [{"name": "dm:/new", "size": 2, "slot": 7}]
    wish["regions"] = [{"name": "new", "size": 2}]
    result = compare(wish)
    assert [(each["change"], each["region"], each["old"], each["new"]) for each in result["changes"]] == [
        ("remove", "dm:/test", 6, None),
        ("add", "dm:/new", None, 7),
        ("drop", "dm:/test", 2 << 20, None),
    ]
    assert result["changes"][-1]["path"] == str(host.memory)
    assert compare(host.wish)["changes"] == []


def test_vms_that_share_a_call_are_refused(host, compare):
    script = {"path": str(host.root / "both.sh"), "devices": [], "exclusive": True}
    (host.root / "both.sh").write_text("acrn-dm -s 0,hostbridge --ovmf x\n")
    result = compare({**host.wish, "scripts": [{**script, "vm": "A"}, {**script, "vm": "B"}]})
    assert f"{host.root}/both.sh: does not start A, B by name" in result["msg"]
    (host.root / "both.sh").write_text("acrn-dm -s 0,hostbridge A\nacrn-dm -s 0,hostbridge B\n")
    assert "failed" not in compare({**host.wish, "scripts": [{**script, "vm": "A"}, {**script, "vm": "B"}]})


# -- the hypervisor ----------------------------------------------------------------------------------------------------

REGION = {"name": "hv:/log", "size": 2, "slot": 7}


class Hypervisor:
    """Which regions the hypervisor of the Service VM is known to have."""

    def __init__(self, host, compare, monkeypatch):
        self.host, self.compare = host, compare
        self.folder = host.root / "boot"
        self.folder.mkdir()
        self.cmdline = host.root / "cmdline"
        monkeypatch.setattr(_running, "CMDLINE", str(self.cmdline))
        self.runs(None)

    def runs(self, key):
        self.cmdline.write_text(f"quiet acrn_ivshmem.entry={key}.01234567\n" if key else "quiet\n")

    def install(self, key, *regions):
        (self.folder / key).mkdir()
        (self.folder / key / "manifest.json").write_text(json.dumps({"regions": list(regions)}))

    def ask(self, *devices, **more):
        wish = self.host.wish
        wish["scripts"][0]["devices"] = wish["vms"][0]["devices"] = list(devices)
        planned = [{"name": each["name"], "size": each["size"]} for each in devices if each["name"].startswith("hv:/")]
        wish["hypervisor"] = {"manifest": str(self.folder), "planned": planned, **more}
        found = self.compare(wish)
        return found["waits"], {key: found["hypervisor"][key] for key in ("missing", "lacking", "unsure", "known")}


@pytest.fixture
def hypervisor(host, compare, monkeypatch):
    return Hypervisor(host, compare, monkeypatch)


HAS = (False, {"missing": [], "lacking": [], "unsure": [], "known": True})
HAS_NOT = (True, {"missing": ["hv:/log"], "lacking": ["hv:/log"], "unsure": ["VM1"], "known": True})


def test_what_the_hypervisor_of_the_collection_has(hypervisor):
    hypervisor.install("key-1", {"name": "hv:/log", "size": 4})
    hypervisor.install("key-2", {"name": "hv:/log", "size": 2}, {"name": "hv:/more", "size": 2})
    hypervisor.runs("key-1")
    assert hypervisor.ask(*DEVICES, REGION) == HAS_NOT
    # A script that has it already, and a scenario, do not count against a manifest.
    hypervisor.host.script.write_text(CONTENT.replace("    'VM1'", "    -s 7,ivshmem,hv:/log,2\n    'VM1'"))
    assert hypervisor.ask(*DEVICES, REGION, regions=[{"name": "log", "size": 2}]) == HAS_NOT
    assert hypervisor.ask(*DEVICES) == HAS
    hypervisor.runs("key-2")
    assert hypervisor.ask(*DEVICES, REGION) == HAS
    found = hypervisor.compare({**hypervisor.host.wish, "hypervisor": {"manifest": str(hypervisor.folder)}})[
        "hypervisor"
    ]
    assert (found["running_key"], found["installed"]) == ("key-2", ["key-1", "key-2"])


def test_what_a_hypervisor_of_others_has(hypervisor):
    unknown = (True, {**HAS_NOT[1], "known": False})
    has = (False, {**HAS[1], "known": False})
    assert hypervisor.ask(*DEVICES, REGION) == unknown
    assert hypervisor.ask(*DEVICES) == has
    # It is told.
    assert hypervisor.ask(*DEVICES, REGION, has_all=True) == HAS
    # The scenario that it was built from has it.
    assert hypervisor.ask(*DEVICES, REGION, regions=[{"name": "log", "size": 4}]) == unknown
    assert hypervisor.ask(*DEVICES, REGION, regions=[{"name": "log", "size": 2}]) == has
    # A VM runs with it.
    hypervisor.host.run("-s", "9,ivshmem,hv:/log,2")
    assert hypervisor.ask(*DEVICES, REGION) == has


def test_a_script_that_has_the_device_may_be_written_and_its_vm_not_be_stopped(hypervisor):
    script = hypervisor.host.script
    script.write_text(script.read_text().replace("    'VM1'", "    -s '7,ivshmem,hv:/log,2'\n    'VM1'"))
    waits, found = hypervisor.ask(*DEVICES, REGION)
    assert (waits, found["lacking"], found["unsure"], found["missing"]) == (False, [], ["VM1"], ["hv:/log"])
    script.write_text(script.read_text().replace("hv:/log,2", "hv:/log,4"))
    assert hypervisor.ask(*DEVICES, REGION)[1]["lacking"] == ["hv:/log"]


def test_vms_that_others_start(host, compare):
    wish = host.wish
    wish["others"] = [{"name": "VM1", "devices": DEVICES}, {"name": "VM2", "devices": DEVICES}]
    assert compare(wish)["others"] == [{"name": "VM1", "fits": True}, {"name": "VM2", "fits": None}]
    host.run("-m", "512M")
    assert compare(wish)["others"][0] == {"name": "VM1", "fits": False}
