# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module launch_info, on a Service VM that is a directory."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch import _around, _dm_memory, _running
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._takeover import places_in_use
from ansible_collections.acrn.ivshmem.plugins.modules import launch_info

SCRIPT = "#!/bin/sh\nacrn-dm -s 0,hostbridge -s 5,ivshmem,dm:/logs,2 -s 6,ivshmem,hv:/plc,4,4097 VM1\n"
SCENARIO = """<acrn-config board="b" scenario="s">
  <hv><FEATURES><IVSHMEM><IVSHMEM_REGION>
    <NAME>plc</NAME><IVSHMEM_SIZE>4</IVSHMEM_SIZE>
    <IVSHMEM_VMS>
      <IVSHMEM_VM><VM_NAME>PRE</VM_NAME><VBDF>00:0c.0</VBDF></IVSHMEM_VM>
      <IVSHMEM_VM><VM_NAME>VM1</VM_NAME><VBDF>00:08.0</VBDF></IVSHMEM_VM>
    </IVSHMEM_VMS>
  </IVSHMEM_REGION></IVSHMEM></FEATURES></hv>
  <vm id="0"><load_order>PRE_LAUNCHED_VM</load_order><name>PRE</name></vm>
  <vm id="1"><load_order>POST_LAUNCHED_VM</load_order><name>VM1</name></vm>
</acrn-config>
"""


@pytest.fixture
def look(tmp_path, capsys, monkeypatch):
    for folder in ("launch", "proc/7/fd", "shm", "boot/key", "units"):
        (tmp_path / folder).mkdir(parents=True)
    words = ["acrn-dm", "-s", "7,ivshmem,dm:/logs,2", "VM2"]
    (tmp_path / "proc/7/cmdline").write_bytes(b"\0".join(word.encode() for word in words) + b"\0")
    (tmp_path / "cmdline").write_text("root=/dev/sda2 hugepages=4\n")
    (tmp_path / "shm/logs").write_bytes(b"x" * 4096)
    (tmp_path / "boot/key/scenario.xml").write_text(SCENARIO)
    monkeypatch.setattr(_around, "Processes", lambda: _dm_memory.Processes(str(tmp_path / "proc")))
    monkeypatch.setattr(_running, "CMDLINE", str(tmp_path / "cmdline"))

    def run(**scripts):
        for name, text in scripts.items():
            (tmp_path / f"launch/{name}.sh").write_text(text)
        arguments = {
            "paths": [str(tmp_path / "launch/vm1.sh"), str(tmp_path / "gone.sh")],
            "directories": [str(tmp_path / "launch"), str(tmp_path / "nowhere")],
            "hypervisor": str(tmp_path / "boot"),
            "memory": str(tmp_path / "shm"),
            "unit": str(tmp_path / "unit"),
            "units": [str(tmp_path / "units")],
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            launch_info.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_all_that_a_host_has(look, tmp_path):
    found = look(vm1=SCRIPT, other="#!/bin/sh\necho nothing of ours\n")
    assert [script["path"] for script in found["scripts"]] == [str(tmp_path / "launch/vm1.sh")]
    (vm,) = found["scripts"][0]["vms"]
    assert (vm["name"], vm["style"], vm["line"]) == ("VM1", "command", 2)
    assert vm["devices"] == [
        {"name": "dm:/logs", "size": 2, "region_id": None, "slot": 5, "line": 2},
        {"name": "hv:/plc", "size": 4, "region_id": 4097, "slot": 6, "line": 2},
    ]
    assert found["running"] == [
        {
            "name": "VM2",
            "uuid": None,
            "pid": 7,
            "devices": [{"name": "dm:/logs", "size": 2, "region_id": None, "slot": 7}],
        }
    ]
    assert found["memory"] == [{"name": "logs", "path": str(tmp_path / "shm/logs"), "size": 4096}]
    assert (found["cmdline"], found["unit"], found["changed"]) == ("root=/dev/sda2 hugepages=4", False, False)
    # A script counts before the scenario of the hypervisor.
    assert places_in_use(found) == {
        "dm:/logs": {"VM1": "00:05.0", "VM2": "00:07.0"},
        "hv:/plc": {"PRE": "00:0c.0", "VM1": "00:06.0"},
    }


def test_what_cannot_be_read_is_told_with_its_line(look, tmp_path):
    found = look(
        vm1=SCRIPT.replace("VM1", "$1"),
        more="acrn-dm -s 0,hostbridge $(cat options) VM3\n",
        broken="acrn-dm 'VM4\n",
    )
    launch = tmp_path / "launch"
    assert [script["vms"] for script in found["scripts"]] == [[], [], []]
    told = "\n".join(found["problems"])
    assert f"{launch}/vm1.sh: line 2: which VM this call of acrn-dm starts is not clear" in told
    assert f"{launch}/more.sh: line 1: $(cat options) is only known when the script runs" in told
    assert f"{launch}/broken.sh: line 1: a single quote is opened" in told


UNITS = {
    "plain": "[Service]\nType=simple\nExecStartPre=-/bin/mkdir -p /x\nExecStart=/opt/vm1.sh\n",
    "instance@": "[Service]\nExecStart=/opt/start-%i.sh %i\n",
    "direct": (
        "[Service]\nExecStart=@/usr/bin/acrn-dm vm \\\n# a comment\n  -s 0,hostbridge \\\n"
        "  -s 5,ivshmem,dm:/logs,2 VM3\n"
    ),
    "direct@": "[Service]\n\nExecStart=/usr/bin/acrn-dm -s 5,ivshmem,dm:/logs,2 %i\n",
    "shell": "[Service]\nExecStart=/bin/sh -c 'exec acrn-dm -s 5,ivshmem,dm:/logs,2 VM4'\n",
    "none": "[Service]\nExecStart=/bin/true acrn\n",
}


def test_scripts_have_any_name_without_an_ending(look, tmp_path):
    for name in ("start_vm5", "start_vm6.bak", "disk"):
        (tmp_path / "launch" / name).write_text(SCRIPT.replace("VM1", name) if name != "disk" else "acrn-dm VM9\n")
    (tmp_path / "launch/folder").mkdir()
    found = look(vm1=SCRIPT)
    assert [vm["name"] for each in found["scripts"] for vm in each["vms"]] == ["VM1", "start_vm5"]
    assert found["problems"] == []
    assert found["missing"] == [str(tmp_path / "gone.sh"), str(tmp_path / "nowhere")]


def test_services_that_start_vms(look, tmp_path):
    for name, text in UNITS.items():
        (tmp_path / f"units/{name}.service").write_text(text.replace("/opt", f"{tmp_path}/opt"))
    (tmp_path / "opt").mkdir()
    for name, vm in (("vm1", "VM1"), ("start-a", "VM2"), ("start-b", "VM5")):
        (tmp_path / f"opt/{name}.sh").write_text(SCRIPT.replace("VM1", vm))
    (tmp_path / "opt/start-c.sh").write_text("echo nothing\n")
    found = look()
    assert [script["path"].rpartition("/")[2] for script in found["scripts"]] == ["start-a.sh", "start-b.sh", "vm1.sh"]
    units = {unit["path"].rpartition("/")[2]: unit for unit in found["units"]}
    assert sorted(units) == ["direct.service", "direct@.service", "shell.service"]
    (vm,) = units["direct.service"]["vms"]
    assert (vm["name"], vm["line"], [device["slot"] for device in vm["devices"]]) == ("VM3", 2, [5])
    told = "\n".join(found["problems"])
    assert "direct@.service: line 3: which VM this call of acrn-dm starts is not clear (the name ${unit_i}" in told
    assert "shell.service: line 2: acrn-dm may be run here in a way that cannot be read" in told
    assert places_in_use(found)["dm:/logs"]["VM3"] == "00:05.0"


def test_what_is_added_to_a_service_counts(look, tmp_path):
    (tmp_path / "units/vm.service").write_text("[Service]\nExecStart=/usr/bin/acrn-dm -s 5,ivshmem,dm:/old,2 VM3\n")
    (tmp_path / "units/vm.service.d").mkdir()
    (tmp_path / "units/vm.service.d/20.conf").write_text(
        "[Service]\nExecStart=/usr/bin/acrn-dm -s 6,ivshmem,dm:/new,2 VM3\n"
    )
    found = look()
    assert [(vm["name"], vm["devices"][0]["name"]) for unit in found["units"] for vm in unit["vms"]] == [
        ("VM3", "dm:/old"),
        ("VM3", "dm:/new"),
    ]
    # An empty one takes away what came before it.
    (tmp_path / "units/vm.service.d/10.conf").write_text("[Service]\nExecStart=\n")
    (unit,) = look()["units"]
    assert unit["path"] == f"{tmp_path}/units/vm.service"
    assert [(vm["name"], vm["line"], vm["devices"][0]["name"]) for vm in unit["vms"]] == [("VM3", 2, "dm:/new")]
    (tmp_path / "units/vm.service.d/30.conf").write_text("\n\nExecStart=/usr/bin/acrn-dm -s 6,ivshmem,$X,2 VM3\n")
    assert f"{tmp_path}/units/vm.service.d/30.conf: line 3: which ivshmem device" in "\n".join(look()["problems"])


def test_a_host_that_did_not_answer_has_no_places():
    assert places_in_use({"unreachable": True, "msg": "no route"}) == {}
