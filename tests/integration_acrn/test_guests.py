# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests and launch_vms are held against the scenario with the regions, before anything is written."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import command, sample

UNREACHED = {"ansible_host": "127.0.0.1", "ansible_port": 9}


def play(folder, playbook, guests, *words, hosts=None, **variables):
    common = {**sample(folder), "ivshmem_regions": ["hv:/log, 2, 2:3"], **variables}
    inventory = {
        "acrn_hosts": {"vars": common, "hosts": hosts or {"line-1": {}, "line-2": {}}},
        "acrn_guests": {"vars": UNREACHED, "hosts": guests},
        "acrn_builders": {"hosts": {"builder": {"ansible_connection": "local"}}},
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    words = ("-e", "plan_ask=false", *words)
    if playbook == "plan":
        words = (*words, "-e", "plan_json=plan.json")
    done = command(folder, "ansible-playbook", "-i", "hosts.yml", f"acrn.ivshmem.{playbook}", *words)
    text = done.stdout
    if playbook == "plan":
        # Its lines are cut for terminals.
        errors = json.loads((folder / "plan.json").read_text())["errors"]
        text = "\n".join(f"{', '.join(each['who'])}: {each['error']}" for each in errors)
    return done, " ".join(text.split())


def written(folder):
    return [path for path in folder.glob(".acrn-ivshmem/**/*") if path.is_file()]


GUESTS = {
    "right": {"acrn_host": "line-2", "acrn_vm": "VM2"},
    "no-host": {"acrn_vm": "VM1"},
    "near": {"acrn_host": "lime-1", "acrn_vm": "VM1"},
    "builder-vm": {"acrn_host": "builder", "acrn_vm": "VM1"},
    "no-vm": {"acrn_host": "line-1"},
    "wrong-vm": {"acrn_host": "line-1", "acrn_vm": "vm1"},
    "one": {"acrn_host": "line-2", "acrn_vm": "VM1"},
    "same": {"acrn_host": "line-2", "acrn_vm": 2},
}
TOLD = [
    "guest no-host: acrn_host is not set: it is the inventory name of the ACRN host that the VM runs on; the hosts are "
    "line-1, line-2",
    "guest near: acrn_host is 'lime-1', which the inventory has not; did you mean line-1?",
    "guest builder-vm: acrn_host is 'builder', which is not in the group acrn_hosts",
    "guest no-vm: acrn_vm is not set: it is the name or ID of the VM in the scenario of its ACRN host; its VMs: ",
    "guest wrong-vm: acrn_vm is 'vm1', which the scenario has not; did you mean VM1?",
    "guests one and same: acrn_vm of each is VM1, and a VM is one guest",
]


@pytest.mark.parametrize("playbook", ["site", "plan"])
def test_every_guest_that_is_wrong_is_told_with_the_regions_and_nothing_is_written(tmp_path, playbook):
    odd = {"ivshmem_host_regions": ["hv:/odd, 3, 2:3"]}
    # The plan knows the VMs of hosts whose regions are right, and has the mistakes of each for itself.
    hosts = {"line-1": {}, "line-2": {}, "line-3": odd} if playbook == "plan" else {"line-1": odd, "line-2": {}}
    done, text = play(tmp_path, playbook, GUESTS, hosts=hosts)
    assert done.returncode != 0, done.stdout
    for told in TOLD:
        assert told in text, told
    assert "region 'odd': its size is 3 MB" in text
    assert "right" not in re.findall(r"guests? ([\w-]+)", text)
    assert written(tmp_path) == []


VMS = [{"name": "VM1"}, {"name": "VM0", "memory": 512}, {"name": "VM7", "memory": 512}]


@pytest.mark.parametrize("playbook", ["site", "plan"])
def test_vms_of_launch_scripts_are_told_before_anything_is_written(tmp_path, playbook):
    vms = [*VMS, {"name": "VM2", "memory": 512, "uuid": "abc"}, {"name": "VM2", "memory": 512}]
    done, text = play(tmp_path, playbook, {}, hosts={"line-1": {"launch_vms": vms}})
    assert done.returncode != 0, done.stdout
    for told in (
        "launch_vms: VM 'VM1': memory (in MB) is missing",
        "launch_vms: VM 'VM7': is not in the scenario; its VMs are ",
        "launch_vms: VM 'VM2': is listed twice in launch_vms",
    ):
        assert told in text, told
    assert "launch_vms: VM 'VM0': is pre_launched in the scenario" in text
    assert written(tmp_path) == []
