# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that ran before the collection came: nothing moves, and nothing goes, unasked."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import command
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.launch_scripts import READ, TOLD

# The scenario of a v2.x host, whose places only its launch scripts know.
V2 = """<acrn-config board="whl-ipc-i5" scenario="shared">
  <hv><FEATURES><IVSHMEM><IVSHMEM_ENABLED>y</IVSHMEM_ENABLED>
    <IVSHMEM_REGION>hv:/plc, 2, 1:2</IVSHMEM_REGION>
  </IVSHMEM></FEATURES></hv>
  <vm id="0"><vm_type>SERVICE_VM</vm_type><name>ACRN_Service_VM</name></vm>
  <vm id="1"><vm_type>POST_STD_VM</vm_type><name>VM1</name></vm>
  <vm id="2"><vm_type>POST_STD_VM</vm_type><name>VM2</name></vm>
</acrn-config>
"""
V3 = """<acrn-config board="whl-ipc-i5" scenario="shared">
  <hv><FEATURES><IVSHMEM>
    <IVSHMEM_REGION>
      <NAME>plc</NAME><PROVIDED_BY>Hypervisor</PROVIDED_BY><IVSHMEM_SIZE>2</IVSHMEM_SIZE>
      <IVSHMEM_REGION_ID>4097</IVSHMEM_REGION_ID>
      <IVSHMEM_VMS>
        <IVSHMEM_VM><VM_NAME>VM1</VM_NAME><VBDF>00:04.0</VBDF></IVSHMEM_VM>
        <IVSHMEM_VM><VM_NAME>VM2</VM_NAME><VBDF>00:09.0</VBDF></IVSHMEM_VM>
      </IVSHMEM_VMS>
    </IVSHMEM_REGION>
  </IVSHMEM></FEATURES></hv>
  <vm id="0"><load_order>SERVICE_VM</load_order><name>ACRN_Service_VM</name></vm>
  <vm id="1"><load_order>POST_LAUNCHED_VM</load_order><name>VM1</name></vm>
  <vm id="2"><load_order>POST_LAUNCHED_VM</load_order><name>VM2</name></vm>
</acrn-config>
"""
CLASSIC = """#!/bin/bash
function launch() {
vm_name=VM$1   # a hand-made script
acrn-dm -A -m 1024M -s 0:0,hostbridge \\
   -s 4,ivshmem,hv:/plc,2@ID@ \\
   -s 3,virtio-blk,"/images/$vm_name.img" \\
   -s 5,ivshmem,dm:/takeover_test,2 \\
   $vm_name
}
launch 1 "64 448 8"
"""
GENERATED = """#!/bin/bash
function add_virtual_device() {
    echo -n "-s $1,$2"
    if [ -n "$3" ]; then
        echo -n ",$3"
    fi
}
dm_params=(
    -m 1024M
    `add_virtual_device                       1:0 lpc`
    `add_virtual_device                       0:0 hostbridge`
    `add_virtual_device                       9 ivshmem hv:/plc,2@ID@`
    `add_virtual_device                       12 ivshmem dm:/takeover_test,2`
    `add_virtual_device                       3 virtio-blk ./disk.img`
    VM2
)
acrn-dm "${dm_params[@]}"
"""
# Up to v2.6 a VM is known by its UUID, and can have any name: ACRN's scripts of that time name it so.
UUIDS = {1: "d2795438-25d6-11e8-864e-cb7a18b34643", 2: "615db82a-e189-4b4f-8dbb-d321343e4ab3"}
BY_UUID = {
    "vm1.sh": [("vm_name=VM$1", "vm_name=post_vm_id$1"), ("-m 1024M", f"-m 1024M -U {UUIDS[1]}")],
    "vm2.sh": [("    VM2\n", f"    -U {UUIDS[2]}\n    post_vm_id2\n")],
}


class Host:
    """A Service VM that is this machine, with everything in a folder."""

    def __init__(self, folder: pathlib.Path, version: str) -> None:
        self.folder = folder
        self.version = version
        self.launch = folder / "scripts"
        self.launch.mkdir()
        (folder / "scenario.xml").write_text(V3 if version == "3.3" else V2)
        for name, text in (("vm1.sh", CLASSIC), ("vm2.sh", GENERATED)):
            path = self.launch / name
            text = text.replace("@ID@", ",4097" if version == "3.3" else "")
            for old, new in BY_UUID[name] if version == "2.6" else ():
                text = text.replace(old, new)
            path.write_text(text)
            path.chmod(0o755)
        self.inventory()

    @property
    def scripts(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.launch.iterdir())}

    def inventory(self, **variables: object) -> None:
        """Write the inventory: the host as its user would describe it, and more."""
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "acrn_version": self.version,
            "acrn_scenario": "scenario.xml",
            **variables,
        }
        text = {"all": {"children": {"acrn_hosts": {"hosts": {"line-1": host}}}}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(text))

    def by_hand(self, regions: list[str], **variables: object) -> None:
        """What somebody writes who knows regions and scripts, and thinks of no slots."""
        self.inventory(
            ivshmem_regions=regions,
            launch_mode="edit",
            launch_units=False,
            launch_hypervisor_manifest="",
            launch_vms=[
                {"name": "VM1", "script": str(self.launch / "vm1.sh")},
                {"name": "VM2", "script": str(self.launch / "vm2.sh")},
            ],
            **variables,
        )

    def run(self, playbook: str, *options: str) -> tuple[int, str]:
        done = command(self.folder, "ansible-playbook", "-i", "hosts.yml", f"acrn.ivshmem.{playbook}", *options)
        return done.returncode, re.sub(r"\s+", " ", done.stdout)


# What differs of v2.6 is how a VM is known, which the first way of all shows in each run.
V2_6 = pytest.param("2.6", marks=pytest.mark.long)


@pytest.fixture(name="host", params=[V2_6, "2.7", "3.3"])
def _host(request, tmp_path):
    return Host(tmp_path, request.param)


def test_slots_of_scripts_stay_also_without_an_earlier_result(host):
    host.by_hand(["hv:/plc, 2, VM1:VM2", "dm:/takeover_test, 2, VM1:VM2"])
    before = host.scripts
    for _time in range(2):
        rc, said = host.run("site")
        assert rc == 0, said
        assert host.scripts == before
        rc, said = host.run("site")
        assert (rc, "changed=0" in said, "Look which places are in use" in said) == (0, True, False), said
        # A job container keeps nothing.
        shutil.rmtree(host.folder / ".acrn-ivshmem")


def test_a_declared_slot_moves_the_device_and_the_plan_says_so(host):
    region = {"name": "dm:/takeover_test", "size": 2, "vms": [{"name": "VM1", "vbdf": "00:0a.0"}, "VM2"]}
    host.by_hand(["hv:/plc, 2, VM1:VM2", region])
    rc, said = host.run("plan")
    assert rc == 0, said
    assert "! move dm:/takeover_test VM1 slot 5 -> 10" in said


def test_devices_that_are_not_declared_are_refused_by_plan_and_site(host):
    host.by_hand(["hv:/plc, 2, VM1:VM2"])
    before = host.scripts
    for playbook in ("plan", "site"):
        rc, said = host.run(playbook)
        assert rc != 0, said
        assert "has ivshmem devices that are not declared: dm:/takeover_test, 2 MB, slot 5 (line 7)" in said
        assert "slot 12" in said
        assert host.scripts == before
    host.by_hand(["hv:/plc, 2, VM1:VM2"], launch_exclusive=True)
    rc, said = host.run("plan")
    assert "remove dm:/takeover_test from VM1, VM2" in said
    rc, said = host.run("site")
    assert rc == 0, said
    assert sorted(host.scripts) == ["vm1.sh", "vm1.sh.before-acrn-ivshmem", "vm2.sh", "vm2.sh.before-acrn-ivshmem"]
    assert host.scripts["vm1.sh.before-acrn-ivshmem"] == before["vm1.sh"]
    assert host.scripts["vm1.sh"] == before["vm1.sh"].replace(b"   -s 5,ivshmem,dm:/takeover_test,2 \\\n", b"")


def test_a_host_that_does_not_answer_is_told_of(host):
    away = {"ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_connection": "ssh", "ansible_ssh_retries": 0}
    host.by_hand(["hv:/plc, 2, VM1:VM2", "dm:/takeover_test, 2, VM1:VM2"], **away)
    _rc, said = host.run("plan")
    assert "these places were chosen without knowing which ones are in use" in said, said
    assert "dm:/takeover_test in VM1" in said


# -- adopt -------------------------------------------------------------------------------------------------------------


def adopted(host):
    return yaml.safe_load((host.folder / "host_vars/line-1/acrn_ivshmem.yml").read_text())


@pytest.mark.parametrize("host", ["2.6", "2.7", "3.3"], indirect=True)
def test_a_host_is_taken_over_and_nothing_changes(host):
    """What is declared by reading is the same, byte for byte, after site."""
    host.inventory(launch_hypervisor_manifest="")
    before = host.scripts
    rc, said = host.run("adopt", "-e", f'{{"adopt_launch_directories": ["{host.launch}"]}}')
    assert rc == 0, said
    assert host.scripts == before
    variables = adopted(host)
    plc = {"name": "plc", "provided_by": "hypervisor", "size": 2}
    vms = [{"name": "VM1", "vbdf": "00:04.0"}, {"name": "VM2", "vbdf": "00:09.0"}]
    dm = {"name": "takeover_test", "provided_by": "device_model", "size": 2}
    dm_vms = [{"name": "VM1", "vbdf": "00:05.0"}, {"name": "VM2", "vbdf": "00:0c.0"}]
    ids = {"region_id": 4097} if host.version == "3.3" else {}
    assert variables["ivshmem_regions"] == [{**plc, "vms": vms, **ids}, {**dm, "vms": dm_vms}]
    assert (variables["launch_mode"], variables["launch_units"]) == ("edit", False)
    assert variables["launch_vms"] == [
        {"name": "VM1", "script": str(host.launch / "vm1.sh")},
        {"name": "VM2", "script": str(host.launch / "vm2.sh")},
    ]
    for playbook in ("plan", "site"):
        rc, said = host.run(playbook)
        assert rc == 0, said
        assert "LAUNCH SCRIPTS AND MEMORY" not in said
    assert re.search(r"line-1 : ok=\d+ changed=0 ", said), said
    assert host.scripts == before
    # Again, it says the same.
    assert host.run("adopt", "-e", f'{{"adopt_launch_directories": ["{host.launch}"]}}')[0] == 0
    assert adopted(host) == variables


def test_what_cannot_be_declared_is_told_and_kept(host):
    host.inventory(launch_hypervisor_manifest="")
    script = host.launch / "vm1.sh"
    script.write_text(script.read_text().replace("dm:/takeover_test,2", "dm:/own_of_vm1,2"))
    (host.launch / "many.sh").write_text("for vm in A B; do acrn-dm -s 0,hostbridge $vm; done\n")
    before = host.scripts
    rc, said = host.run("adopt", "-e", f'{{"adopt_launch_directories": ["{host.launch}"]}}')
    assert rc == 0, said
    assert "many.sh: line 1: which VM this call of acrn-dm starts is not clear (A or B)" in said
    assert "dm:/own_of_vm1: only VM1 has it" in said
    rc, said = host.run("site")
    assert re.search(r"line-1 : ok=\d+ changed=0 ", said), said
    assert (rc, host.scripts) == (0, before)


def test_a_file_that_is_there_is_not_written_over(host):
    host.inventory(launch_hypervisor_manifest="")
    own = host.folder / "host_vars/line-1/acrn_ivshmem.yml"
    own.parent.mkdir(parents=True)
    own.write_text("ivshmem_regions: []\n")
    rc, said = host.run("adopt", "-e", f'{{"adopt_launch_directories": ["{host.launch}"]}}')
    assert rc != 0
    assert "is there and says something else" in said
    assert "-ivshmem_regions: []" in said
    assert own.read_text() == "ivshmem_regions: []\n"
    shutil.rmtree(own.parent)
    own.parent.with_suffix(".yml").write_text("kept: true\n")
    rc, said = host.run("adopt")
    assert rc != 0
    assert "line-1.yml is there, and Ansible would not read it any more" in said


@pytest.mark.parametrize("name", ["acrn_scenario", "adopt_from"])
def test_what_is_no_scenario_is_told_by_its_variable(tmp_path, name):
    host = Host(tmp_path, "3.3")
    host.inventory(**{name: "befor.xml"})
    rc, said = host.run("adopt")
    assert rc == 2 and f"line-1: {name}: {tmp_path}/befor.xml: cannot be read: No such file or directory" in said
    assert not (tmp_path / "host_vars").exists()


@pytest.mark.parametrize("beside", ["host_vars/line-1/main.yml", "group_vars/acrn_hosts.yml"])
def test_what_the_inventory_says_already_does_not_beat_what_is_adopted(tmp_path, beside):
    """Own variables that count before the file are told, and regions of groups are not declared twice."""
    host = Host(tmp_path, "3.3")
    host.inventory(launch_hypervisor_manifest="")
    path = tmp_path / beside
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"ivshmem_group_regions": ["hv:/plc, 2, VM1:VM2"]}))
    scripts = host.scripts
    words = ("adopt", "-e", f'{{"adopt_launch_directories": ["{host.launch}"]}}')
    rc, said = host.run(*words)
    if "host_vars" in beside:
        assert rc == 2 and f"{path} sets ivshmem_group_regions, and Ansible takes that" in said
        assert sorted(each.name for each in path.parent.iterdir()) == ["main.yml"]
        path.unlink()
        rc, said = host.run(*words)
    else:
        assert adopted(host)["ivshmem_group_regions"] == []
    assert rc == 0, said
    assert host.run(*words)[0] == 0
    rc, said = host.run("site")
    assert (rc, re.search(r"line-1 : ok=\d+ changed=0 ", said) is not None) == (0, True), said
    assert host.scripts == scripts


@pytest.mark.parametrize("before", ["2.7", "3.3"])
def test_an_upgrade_keeps_ids_and_places(before, tmp_path):
    """ACRN's upgrader drops region IDs and numbers vBDFs from 00:08.0 on."""
    host = Host(tmp_path, "3.3")
    upgraded = re.sub(r"<IVSHMEM_REGION_ID>.*?</IVSHMEM_REGION_ID>\n", "", V3)
    upgraded = re.sub(r"<VBDF>.*?</VBDF>", "<VBDF>00:08.0</VBDF>", upgraded)
    (tmp_path / "scenario.xml").write_text(upgraded)
    (tmp_path / "before.xml").write_text(V2 if before == "2.7" else V3)
    host.inventory(launch_hypervisor_manifest="", adopt_from="before.xml")
    if before == "2.7":
        for path in host.launch.iterdir():
            path.write_text(path.read_text().replace(",4097", ""))
    scripts = host.scripts
    rc, said = host.run("adopt", "-e", f'{{"adopt_launch_directories": ["{host.launch}"]}}')
    assert rc == 0, said
    plc = adopted(host)["ivshmem_regions"][0]
    assert [vm["vbdf"] for vm in plc["vms"]] == ["00:04.0", "00:09.0"]
    assert (plc["name"], plc["size"], plc.get("region_id")) == ("plc", 2, 4097 if before == "3.3" else None)
    rc, said = host.run("site")
    assert (rc, re.search(r"line-1 : ok=\d+ changed=0 ", said) is not None) == (0, True), said
    assert host.scripts == scripts


# -- scripts as people write them --------------------------------------------------------------------------------------

# Some of each kind; what is read of all of them, the unit tests hold against a shell.
HAND_MADE = {
    **{name: READ[name][0] for name in ("launch_uos", "set", "several calls", "quotes")},
    **{
        name: TOLD[name][0]
        for name in (
            "a loop over VMs",
            "a function for all",
            "arguments of the caller",
            "a slot of a branch",
            "a device that may come",
            "a command in a variable",
            "a comment between",
            "functions of a slot",
        )
    },
}


@pytest.fixture(name="fleet")
def _fleet(tmp_path):
    """A host for each sample, all of them this machine."""
    hosts = {}
    for number, (name, text) in enumerate(HAND_MADE.items()):
        folder = tmp_path / f"scripts-{number}"
        folder.mkdir()
        (folder / "start.sh").write_text(text)
        (folder / "start.sh").chmod(0o755)
        hosts[f"host-{number:02}"] = name
    return Fleet(tmp_path, hosts)


class Fleet:
    """Hosts by name, with the name of the sample that each has."""

    def __init__(self, folder: pathlib.Path, hosts: dict[str, str]) -> None:
        self.folder = folder
        self.hosts = hosts
        (folder / "scenario.xml").write_text(V2.replace("VM1", "vm1").replace("VM2", "vm2"))

    def launch(self, host: str) -> str:
        return str(self.folder / f"scripts-{int(host[-2:])}")

    def scripts(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.folder.glob("scripts-*/*"))}

    def inventory(self, variables) -> None:
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "acrn_version": "2.7",
            "acrn_scenario": "scenario.xml",
            "launch_hypervisor_manifest": "",
        }
        hosts = {host: {"adopt_launch_directories": [self.launch(host)], **variables(host)} for host in self.hosts}
        text = {"all": {"children": {"acrn_hosts": {"hosts": hosts, "vars": common}}}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(text))

    def run(self, playbook: str) -> tuple[int, str]:
        words = ("ansible-playbook", "-i", "hosts.yml", "-f", "8", f"acrn.ivshmem.{playbook}")
        done = command(self.folder, *words, timeout=1800)
        return done.returncode, done.stdout


def _recap(said: str) -> dict[str, tuple[str, str]]:
    """What a run changed, and where it failed, by host."""
    found = re.findall(r"^(host-\d+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=\d+\s+failed=(\d+)", said, re.M)
    return {host: (changed, failed) for host, changed, failed in found}


def test_hosts_with_any_script_are_taken_over_and_nothing_changes(fleet):
    fleet.inventory(lambda _host: {})
    before = fleet.scripts()
    rc, said = fleet.run("adopt")
    assert rc == 0, said
    for host, name in fleet.hosts.items():
        text = (fleet.folder / f"host_vars/{host}/acrn_ivshmem.yml").read_text()
        own = yaml.safe_load(text)
        if name in READ:
            assert [vm["name"] for vm in own["launch_vms"]] == list(READ[name][1]), name
        else:
            assert "launch_vms" not in own, name
            assert f"# - {fleet.launch(host)}/start.sh: {TOLD[name][1]}" in text, name
    for playbook in ("plan", "site", "site"):
        rc, said = fleet.run(playbook)
        assert rc == 0, said
    assert _recap(said) == dict.fromkeys(fleet.hosts, ("0", "0")), said
    assert fleet.scripts() == before


def test_who_declares_them_by_hand_moves_nothing_either(fleet):
    """Regions without places, as somebody writes them who thinks of no slots."""

    def variables(host):
        text = HAND_MADE[fleet.hosts[host]]
        names = [name for name in ("hv:/plc", "dm:/log", "dm:/cam") if name in text]
        regions = [f"{name}, {4 if name.endswith('cam') else 2}, vm1:vm2" for name in names]
        vms = [vm for vm in ("vm1", "vm2") if vm in READ.get(fleet.hosts[host], (0, ["vm1"]))[1]]
        return {
            "ivshmem_regions": regions,
            "launch_mode": "edit",
            "launch_units": False,
            "launch_vms": [{"name": vm, "script": f"{fleet.launch(host)}/start.sh"} for vm in vms],
        }

    fleet.inventory(variables)
    before = fleet.scripts()
    rc, said = fleet.run("site")
    assert rc != 0, said
    flat = re.sub(r"\s+", " ", said)
    after = fleet.scripts()
    for host, name in fleet.hosts.items():
        path = f"{fleet.launch(host)}/start.sh"
        assert after[path] == before[path], name
        assert f"{path}.before-acrn-ivshmem" not in after, name
        assert (_recap(said)[host][1] == "0") == (name in READ), (name, said)
        if name in TOLD:
            assert re.search(rf"{re.escape(path)}: (line \d+|has ivshmem devices)", flat), name


# -- ACRN's own upgrader -----------------------------------------------------------------------------------------------

ACRN = pathlib.Path(os.environ.get("ACRN_SRC") or "/nowhere")
UPGRADER = ACRN / "v3.3/misc/config_tools/scenario_config/upgrader.py"


@pytest.mark.skipif(not UPGRADER.exists(), reason="ACRN_SRC has no folder v3.3 with a tree")
def test_the_upgrader_of_acrn_moves_nothing(tmp_path):
    """A declaration of v2.7 goes on with the scenario that the upgrader of v3.3 has made of its file."""
    host = Host(tmp_path, "2.7")
    before = (ACRN / "v2.7/misc/config_tools/data/whl-ipc-i5/shared.xml").read_text()
    region = "<IVSHMEM_REGION>hv:/plc, 2, 1:2</IVSHMEM_REGION>"
    before = before.replace("<IVSHMEM_ENABLED>n<", "<IVSHMEM_ENABLED>y<").replace("<IVSHMEM_REGION/>", region)
    (tmp_path / "before.xml").write_text(before)
    words = [os.environ.get("ACRN_PYTHON", sys.executable), "-B", str(UPGRADER), "before.xml", "scenario.xml"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert "<VBDF>00:08.0</VBDF>" in (tmp_path / "scenario.xml").read_text()
    for path in host.launch.iterdir():
        text = path.read_text().replace("VM$1", "POST_STD_VM$1").replace("VM2", "POST_RT_VM1")
        path.write_text(text)
    scripts = host.scripts
    host.version = "3.3"
    host.inventory(launch_hypervisor_manifest="", adopt_from="before.xml")
    rc, said = host.run("adopt", "-e", f'{{"adopt_launch_directories": ["{host.launch}"]}}')
    assert rc == 0, said
    (plc, dm) = adopted(host)["ivshmem_regions"]
    vms = [{"name": "POST_STD_VM1", "vbdf": "00:04.0"}, {"name": "POST_RT_VM1", "vbdf": "00:09.0"}]
    assert plc == {"name": "plc", "provided_by": "hypervisor", "size": 2, "vms": vms}
    assert (dm["name"], [vm["vbdf"] for vm in dm["vms"]]) == ("takeover_test", ["00:05.0", "00:0c.0"])
    rc, said = host.run("site")
    assert (rc, re.search(r"line-1 : ok=\d+ changed=0 ", said) is not None) == (0, True), said
    assert host.scripts == scripts
    made = (tmp_path / ".acrn-ivshmem/line-1/scenario.xml").read_text()
    assert re.findall(r"<VBDF>(.*?)</VBDF>", made) == ["00:04.0", "00:09.0", "00:05.0", "00:0c.0"]
