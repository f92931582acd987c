# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module launch_script, from its arguments to the file."""

from __future__ import annotations

import json
import os
import stat

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _entries
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch import _running
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._places import place_regions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.modules import launch_script
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

VMS_OF_V2 = ((1, "SVC", "service"), (2, "VM1", "post"), (3, "VM2", "post"))

SCRIPT = """\
#!/bin/sh
exec acrn-dm -m 1G -s 0:0,hostbridge \\
  -s 5,ivshmem,dm:/test,2 \\
  VM1
"""
SCENARIO = """<acrn-config board="b" scenario="s">
  <hv><FEATURES><IVSHMEM>
    <IVSHMEM_REGION>
      <NAME>shm</NAME><PROVIDED_BY>Hypervisor</PROVIDED_BY><IVSHMEM_SIZE>2</IVSHMEM_SIZE>
      <IVSHMEM_REGION_ID>4096</IVSHMEM_REGION_ID>
      <IVSHMEM_VMS>
        <IVSHMEM_VM><VM_NAME>PRE</VM_NAME><VBDF>00:08.0</VBDF></IVSHMEM_VM>
        <IVSHMEM_VM><VM_NAME>VM1</VM_NAME><VBDF>00:10.0</VBDF></IVSHMEM_VM>
      </IVSHMEM_VMS>
    </IVSHMEM_REGION>
  </IVSHMEM></FEATURES></hv>
  <vm id="0"><load_order>PRE_LAUNCHED_VM</load_order><name>PRE</name></vm>
  <vm id="1"><load_order>SERVICE_VM</load_order><name>SVC</name></vm>
  <vm id="2"><load_order>POST_LAUNCHED_VM</load_order><name>VM1</name></vm>
</acrn-config>
"""
TEST = {"name": "dm:/test", "size": 4, "vbdf": "00:06.0"}


class Exit(Exception):
    """The module ended; the first argument is its result."""


@pytest.fixture(name="script")
def _script(tmp_path):
    path = tmp_path / "vm1.sh"
    path.write_text(SCRIPT)
    path.chmod(0o750)
    return path


@pytest.fixture(name="run")
def _run(monkeypatch, documented):
    def end(module, **result):
        documented(launch_script.RETURN, result)
        raise Exit({"warnings": list(warnings), **result})

    warnings = []
    monkeypatch.setattr(launch_script.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(
        launch_script.AnsibleModule, "fail_json", lambda module, **result: end(module, failed=True, **result)
    )
    monkeypatch.setattr(launch_script.AnsibleModule, "warn", lambda module, text: warnings.append(text))

    def run(**arguments):
        arguments = {key: str(value) if hasattr(value, "__fspath__") else value for key, value in arguments.items()}
        warnings.clear()
        with patch_module_args(arguments), pytest.raises(Exit) as ended:
            launch_script.main()
        return ended.value.args[0]

    return run


def test_edit_and_again(run, script):
    result = run(path=script, devices=[TEST])
    assert result["changed"]
    assert result["vm"] == "VM1"
    assert result["devices"] == [
        {
            "name": "test",
            "provided_by": "device_model",
            "size": 4,
            "region_id": None,
            "slot": 6,
            "vbdf": "00:06.0",
            "line": 3,
        }
    ]
    assert script.read_text() == SCRIPT.replace("5,ivshmem,dm:/test,2", "6,ivshmem,dm:/test,4")
    assert stat.S_IMODE(script.stat().st_mode) == 0o750
    assert not run(path=script, devices=[TEST])["changed"]


def test_check_mode_tells_and_writes_nothing(run, script):
    result = run(path=script, devices=[TEST], _ansible_check_mode=True, _ansible_diff=True)
    assert result["changed"]
    assert script.read_text() == SCRIPT
    assert result["diff"]["before"] == SCRIPT
    assert "6,ivshmem,dm:/test,4" in result["diff"]["after"]
    assert os.listdir(script.parent) == ["vm1.sh"]


def test_what_check_mode_predicts_is_written(run, script):
    predicted = run(path=script, devices=[TEST], _ansible_check_mode=True, _ansible_diff=True)["diff"]["after"]
    run(path=script, devices=[TEST])
    assert script.read_text() == predicted


def test_backup(run, script):
    result = run(path=script, devices=[], backup=True)
    with open(result["backup_file"], encoding="utf-8") as handle:
        assert handle.read() == SCRIPT
    assert "backup_file" not in run(path=script, devices=[], backup=True)


def test_a_script_of_others_is_kept_before_its_first_change(run, script):
    original = script.with_name("vm1.sh.before-acrn-ivshmem")
    assert not run(path=script, devices=[{**TEST, "size": 2, "vbdf": "00:05.0"}])["changed"]
    assert not original.exists()
    assert "original" not in run(path=script, devices=[TEST], _ansible_check_mode=True)
    assert not original.exists()
    assert run(path=script, devices=[TEST])["original"] == str(original)
    assert original.read_text() == SCRIPT
    assert stat.S_IMODE(original.stat().st_mode) == 0o600
    assert "original" not in run(path=script, devices=[])
    assert original.read_text() == SCRIPT


def test_nothing_undeclared_is_taken_from_a_script_of_others_unasked(run, script):
    other = {"name": "dm:/other", "size": 2}
    for arguments in (
        {"devices": [other]},
        {"devices": []},
        {"content": SCRIPT.replace("-s 5,ivshmem,dm:/test,2", "")},
    ):
        result = run(path=script, **{"devices": [], **arguments}, exclusive=False, vm="VM1")
        assert result["failed"], arguments
        assert f"{script}: has ivshmem devices that are not declared: dm:/test, 2 MB, slot 5 (line 3)" in result["msg"]
        assert "launch_exclusive: true" in result["msg"]
        assert script.read_text() == SCRIPT
    assert os.listdir(script.parent) == ["vm1.sh"]
    # What is declared may change, and then the script is one of ours.
    assert run(path=script, devices=[TEST, other], exclusive=False)["changed"]
    assert run(path=script, devices=[TEST], exclusive=False)["removed"] == ["dm:/other"]
    assert run(path=script, devices=[], exclusive=False)["removed"] == ["dm:/test"]


def test_a_script_that_was_made_here_is_no_script_of_others(run, tmp_path):
    script = tmp_path / "made.sh"
    assert run(path=script, content=SCRIPT, devices=[TEST], exclusive=False)["changed"]
    assert script.with_name("made.sh.before-acrn-ivshmem").read_text() == ""
    assert run(path=script, content=SCRIPT, devices=[], exclusive=False)["changed"]
    own = tmp_path / "own.sh"
    text = "# Written by the Ansible role acrn.ivshmem.launch: changes get lost.\n" + SCRIPT
    assert run(path=own, content=text, devices=[TEST], exclusive=False)["changed"]
    assert run(path=own, content=text, devices=[], exclusive=False)["changed"]
    assert not own.with_name("own.sh.before-acrn-ivshmem").exists()


def test_changes_of_devices_are_told_one_by_one(run, script):
    result = run(path=script, devices=[TEST, {"name": "dm:/new", "size": 2, "slot": 9}])
    assert result["changes"] == [
        {"change": "move", "region": "dm:/test", "vm": "VM1", "old": 5, "new": 6},
        {"change": "resize", "region": "dm:/test", "vm": "VM1", "old": 2, "new": 4},
        {"change": "add", "region": "dm:/new", "vm": "VM1", "old": None, "new": 9},
    ]
    assert run(path=script, devices=[TEST])["changes"] == [
        {"change": "remove", "region": "dm:/new", "vm": "VM1", "old": 9, "new": None}
    ]
    assert run(path=script, devices=[TEST])["changes"] == []


def test_link_stays_a_link(run, script, tmp_path):
    link = tmp_path / "link.sh"
    link.symlink_to("vm1.sh")
    assert run(path=link, devices=[TEST])["changed"]
    assert link.is_symlink()
    assert "dm:/test,4" in script.read_text()


def test_new_script_from_content_and_slots_of_the_old_one(run, tmp_path):
    path = tmp_path / "new.sh"
    device = {"name": "dm:/b", "size": 2}
    assert run(path=path, content=SCRIPT, devices=[{**device, "slot": 20}])["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    # The text to start from knows nothing of slot 20, the script that is there does.
    result = run(path=path, content=SCRIPT, devices=[device])
    assert not result["changed"]
    assert result["devices"][0]["slot"] == 20


def test_new_script_from_src_with_mode(run, script, tmp_path):
    path = tmp_path / "new.sh"
    assert run(path=path, src=script, devices=[TEST], mode="0700")["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert script.read_text() == SCRIPT
    path.chmod(0o600)
    assert run(path=path, src=script, devices=[TEST], mode="0700", _ansible_check_mode=True)["changed"]
    assert run(path=path, src=script, devices=[TEST], mode="0700")["changed"]
    assert not run(path=path, src=script, devices=[TEST], mode="0700")["changed"]


def test_check_mode_without_the_directory(run, tmp_path):
    path = tmp_path / "none" / "new.sh"
    assert run(path=path, content=SCRIPT, devices=[], _ansible_check_mode=True)["changed"]
    assert run(path=path, content=SCRIPT, devices=[])["failed"]
    assert not path.parent.exists()


def test_devices_from_the_scenario(run, script, tmp_path):
    scenario = tmp_path / "scenario.xml"
    scenario.write_text(SCENARIO)
    result = run(path=script, scenario_path=scenario, acrn_version="3.3")
    assert [(device["name"], device["slot"], device["region_id"]) for device in result["devices"]] == [
        ("shm", 16, 4096)
    ]
    assert result["removed"] == ["dm:/test"]
    assert "-s 16,ivshmem,hv:/shm,2,4096 \\\n" in script.read_text()
    assert run(path=script, scenario_path=scenario, acrn_version="3.2")["devices"][0]["region_id"] is None
    # It is written there, and acrn-dm of v3.2 does not read it.
    assert "-s 16,ivshmem,hv:/shm,2,4096 \\\n" in script.read_text()
    assert not run(path=script, scenario_path=scenario, vm="2", acrn_version="3.2")["changed"]


def test_slots_that_no_file_names_are_those_of_the_plan(run, script, tmp_path):
    """A scenario of v2.x has no place for them: the module that writes it and this one choose by the same order."""
    path = tmp_path / "scenario.xml"
    lines = ("hv:/a, 2, 0:2:3", "hv:/b, 4, 2:3")
    path.write_text(scenarios.scenario("v2", scenarios.block_v2(*lines), vms=((0, "PRE", "pre"), *VMS_OF_V2)))
    plan = read_scenario(path.read_bytes(), "scenario.xml")
    planned = [
        (end.vbdf.slot) for region in place_regions(plan, plan.regions) for end in region.vms if end.vm.name == "VM1"
    ]
    result = run(path=script, scenario_path=path, acrn_version="2.7")
    assert [device["slot"] for device in result["devices"]] == planned == [30, 29]
    assert not run(path=script, scenario_path=path, acrn_version="2.7")["changed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": [{"name": "dm:/test", "size": 4, "slot": 31}]}, "slot 31 (00:1f.0) is reserved"),
        ({"devices": [{"name": "dm:/te;st", "size": 4}]}, "1 to 27 characters"),
        ({"devices": [TEST], "vm": "VM2"}, "does not start VM 'VM2' (line 2: VM1)"),
        ({"devices": [{"name": "hv:/shm", "size": 4}], "with_scenario": True}, "has 4 MB, but 2 MB in the scenario"),
        ({"devices": [{"name": "hv:/no", "size": 4}], "with_scenario": True}, "is not in the scenario"),
        ({"devices": [], "vm": "PRE", "with_scenario": True}, "is a pre-launched VM"),
        ({"devices": [], "vm": "9", "with_scenario": True}, "has no VM '9'"),
        ({"devices": [TEST], "acrn_version": "new"}, "acrn_version 'new' is not a version"),
        ({"devices": [TEST], "path": "/nonexistent/vm.sh"}, "/nonexistent"),
    ],
)
def test_refused_and_untouched(run, script, tmp_path, arguments, message):
    arguments = {"path": script, **arguments}
    if arguments.pop("with_scenario", False):
        (tmp_path / "scenario.xml").write_text(SCENARIO)
        arguments["scenario_path"] = tmp_path / "scenario.xml"
    result = run(**arguments)
    assert result["failed"]
    assert message in result["msg"]
    assert script.read_text() == SCRIPT


@pytest.mark.parametrize(
    "arguments",
    [
        {"devices": [{"name": "dm:/a", "size": 2, "slot": 31}, {"name": "dm:/b", "size": 2, "slot": 0}]},
        {"devices": [{"name": "dm:/a", "size": 2, "slot": 7}, {"name": "dm:/b", "size": 2, "slot": 7}]},
        {"devices": [{"name": "dm:/te;st", "size": 4}, {"name": "dm:/b", "size": 3}]},
        {"devices": [{"name": "hv:/shm", "size": 4}, {"name": "hv:/no", "size": 4}], "scenario": SCENARIO},
        {"devices": [{"name": "hv:/shm", "size": 2, "slot": 9}], "scenario": SCENARIO},
        {"devices": [{"name": "hv:/shm", "size": 2}], "manifest": '{"regions": []}'},
        {"devices": [], "scenario": SCENARIO.replace("POST_LAUNCHED", "PRE_LAUNCHED")},
    ],
)
def test_every_line_of_a_refusal_tells_where(run, script, tmp_path, arguments):
    """File and line of the acrn-dm call, where no other line is to blame."""
    arguments = {"path": script, **arguments}
    for key, option in (("scenario", "scenario_path"), ("manifest", "hypervisor_manifest")):
        if key in arguments:
            arguments[option] = tmp_path / key
            arguments[option].write_text(arguments.pop(key))
    lines = run(**arguments)["msg"].splitlines()
    assert lines
    assert [line for line in lines if not line.startswith(f"{script}: line 2: ")] == []
    assert script.read_text() == SCRIPT


def test_hypervisor_without_the_region(run, script, tmp_path):
    manifest = tmp_path / "manifest.json"
    arguments = {"path": script, "devices": [{"name": "hv:/shm", "size": 2}], "hypervisor_manifest": manifest}
    manifest.write_text(json.dumps({"regions": [{"name": "hv:/shm", "size": 4, "region_id": 0}]}))
    result = run(**arguments)
    assert "region 'hv:/shm' has 4 MB in it, not 2 MB" in result["msg"]
    assert "Rebuild the hypervisor, install it and reboot" in result["msg"]
    assert script.read_text() == SCRIPT
    # In check mode the hypervisor may be one that an earlier task would have replaced.
    result = run(**arguments, _ansible_check_mode=True)
    assert result["changed"]
    assert "has 4 MB in it" in result["warnings"][0]
    manifest.write_text("{")
    assert "is no JSON" in run(**arguments)["msg"]
    manifest.write_text(json.dumps({"regions": [{"name": "hv:/shm", "size": 2, "region_id": 0}]}))
    result = run(**arguments)
    assert result["changed"]
    assert not result["warnings"]


def test_the_running_hypervisor_of_several(run, script, tmp_path, monkeypatch):
    for key, size in (("aaaa", 4), ("bbbb", 2)):
        (tmp_path / "boot" / key).mkdir(parents=True)
        regions = [{"name": "hv:/shm", "size": size, "region_id": 0}]
        (tmp_path / "boot" / key / "manifest.json").write_text(json.dumps({"regions": regions}))
    cmdline = tmp_path / "cmdline"
    monkeypatch.setattr(_running, "CMDLINE", str(cmdline))
    arguments = {
        "path": script,
        "devices": [{"name": "hv:/shm", "size": 2}],
        "hypervisor_manifest": tmp_path / "boot",
        "_ansible_check_mode": True,
    }
    for text, warning in (
        ("quiet", "boot/manifest.json: there is no such manifest"),
        (f"quiet {_entries.MARKER}=aaaa.01234567 splash\n", "has 4 MB in it, not 2 MB"),
        (f"{_entries.MARKER}=aaaa.01234567 {_entries.MARKER}=bbbb.01234567\n", None),
    ):
        cmdline.write_text(text)
        warnings = run(**arguments)["warnings"]
        assert warning in warnings[0] if warning else not warnings
        key = _entries.key_of(_entries.running_entry(text))
        assert (
            _running.manifest_path(str(tmp_path / "boot")).split("boot/")[1]
            == (f"{key}/" if key else "") + "manifest.json"
        )


def test_unknown_hypervisor_is_warned_of(run, script, tmp_path):
    gone = tmp_path / "gone.json"
    result = run(path=script, devices=[{"name": "hv:/shm", "size": 2}], hypervisor_manifest=gone)
    assert "there is no such manifest" in result["warnings"][0]
    assert not run(path=script, devices=[TEST], hypervisor_manifest=gone)["warnings"]


def test_devices_as_the_filter_gives_them(run, script):
    device = {"name": "test", "provided_by": "device_model", "size": 2, "region_id": None, "vbdf": None, "slot": None}
    assert not run(path=script, devices=[{**device, "peers": [1, 3]}])["changed"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("#!/bin/sh\n/bin/true/acrn-dm -m 1G VM1\n", "there is no /bin/true/acrn-dm that could be run"),
        ("#!/bin/sh\n/bin/sh/../acrn-dm.away -m 1G VM1\n", "that could be run"),
        ("#!/bin/sh\nacrn-dm -m 1G VM1\n", "there is no {here}/acrn-dm that could be run"),
        ("#!/no/such/shell\n{there} -m 1G VM1\n", "line 1: there is no /no/such/shell"),
        ("#!/bin/sh\n{there} -m 1G VM1\nif true; then\n", "/bin/sh does not read it: "),
        ("#!/bin/sh\nPATH=/opt:$PATH\nacrn-dm -m 1G VM1\n", None),
        ("#!/usr/bin/env sh\n{there} -m 1G VM1\n", None),
        ("{there} -m 1G VM1\n", None),
    ],
)
def test_why_a_script_could_not_start_its_vm(run, tmp_path, text, problem):
    there = tmp_path / "there" / "acrn-dm"
    there.parent.mkdir()
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    values = {"here": tmp_path, "there": there}
    path = tmp_path / "VM1.sh"
    path.write_text(text.format(**values))
    arguments = {"path": path, "devices": [TEST], "_ansible_check_mode": True}
    assert "start_problems" not in run(**arguments)
    found = run(**arguments, acrn_dm=tmp_path / "acrn-dm")["start_problems"]
    assert len(found) == (problem is not None)
    assert not problem or problem.format(**values) in found[0]
