# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that was set up by hand, with guests that run: taken over, left as it is, proved, changed, and given back.

The two scripts are written in ACRN's two ways, that of v2.x's launch_uos.sh and that of the generator of v3.x.
With ``pytest -s`` it shows what Ansible says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parent
BY_HAND = """#!/bin/bash
# Made by hand in the manner of launch_uos.sh.
plc_slot=6
function launch_ubuntu()
{
vm_name=VM$1
#check if the vm is running or not
vm_ps=$(pgrep -a -f acrn-dm)
result=$(echo $vm_ps | grep -w "no_such_${vm_name}")
if [[ "$result" != "" ]]; then
  echo "$vm_name is running, can't create twice!"
  exit
fi
mem_size=512M
acrn-dm -A -m $mem_size -s 0:0,hostbridge \\
   -s ${plc_slot},ivshmem,hv:/plc,2@ID@ \\
   -s 3,virtio-blk,/home/acrn/uos$1.img \\
   -s 4,virtio-net,tap0 \\
   -s 7,ivshmem,dm:/@DM@,2 \\
   --ovmf /usr/share/acrn/bios/OVMF.fd \\
   $vm_name
}
launch_ubuntu 1
"""
GENERATED = """#!/bin/bash
# Launch script for VM name: VM2
function add_virtual_device() {
    echo -n "-s $1,$2"
    if [ -n "$3" ]; then
        echo -n ",$3"
    fi
}
dm_params=(
    -A
    -m 512M
    --ovmf /usr/share/acrn/bios/OVMF.fd
    `add_virtual_device                       1:0 lpc`
    `add_virtual_device                       0:0 hostbridge`
    `add_virtual_device                       9 ivshmem hv:/plc,2@ID@`
    `add_virtual_device                       12 ivshmem dm:/@DM@,2`
    `add_virtual_device                       3 virtio-blk /home/acrn/uos2.img`
    `add_virtual_device                       4 virtio-net tap=tap1`
    VM2
)
echo "Launch device model with parameters: ${dm_params[@]}"
acrn-dm "${dm_params[@]}"
"""
V2 = """<acrn-config board="whl-ipc-i5" scenario="shared">
  <hv><FEATURES><IVSHMEM><IVSHMEM_ENABLED>y</IVSHMEM_ENABLED>
    <IVSHMEM_REGION>hv:/plc, 2, 1:2</IVSHMEM_REGION>
  </IVSHMEM></FEATURES></hv>
  <vm id="0"><vm_type>SERVICE_VM</vm_type><name>ACRN_Service_VM</name></vm>
  <vm id="1"><vm_type>POST_STD_VM</vm_type><name>VM1</name></vm>
  <vm id="2"><vm_type>POST_STD_VM</vm_type><name>VM2</name></vm>
</acrn-config>
"""
# The file says other places than the scripts, as the guide's own example does.
V3 = """<acrn-config board="whl-ipc-i5" scenario="shared">
  <hv><FEATURES><IVSHMEM>
    <IVSHMEM_REGION>
      <NAME>plc</NAME><PROVIDED_BY>Hypervisor</PROVIDED_BY><IVSHMEM_SIZE>2</IVSHMEM_SIZE>
      <IVSHMEM_REGION_ID>4097</IVSHMEM_REGION_ID>
      <IVSHMEM_VMS>
        <IVSHMEM_VM><VM_NAME>VM1</VM_NAME><VBDF>00:06.0</VBDF></IVSHMEM_VM>
        <IVSHMEM_VM><VM_NAME>VM2</VM_NAME><VBDF>00:09.0</VBDF></IVSHMEM_VM>
      </IVSHMEM_VMS>
    </IVSHMEM_REGION>
  </IVSHMEM></FEATURES></hv>
  <vm id="0"><load_order>SERVICE_VM</load_order><name>ACRN_Service_VM</name></vm>
  <vm id="1"><load_order>POST_LAUNCHED_VM</load_order><name>VM1</name></vm>
  <vm id="2"><load_order>POST_LAUNCHED_VM</load_order><name>VM2</name></vm>
</acrn-config>
"""
BIND = "modprobe uio_pci_generic && echo 1af4 1110 > /sys/bus/pci/drivers/uio_pci_generic/new_id"
# What of a guest can hold a trace: files with mode, owner, size and digest, and what the functions are bound to.
LIST = r"""
find /etc /usr/lib/udev /usr/lib/modules-load.d /var/lib /root /dev/shm /run -xdev \
  \( -path /run/udev/data -o -path /run/systemd -o -path /run/log -o -path /var/lib/systemd -o -path /run/sshd.pid \
     -o -path /run/utmp -o -path /root/.ansible \) -prune -o ! -type d -printf '%M %U %G %s %p -> %l\n' \
  -o -type d -printf '%M %U %G %p/\n' | sort
for each in /sys/bus/pci/devices/*; do
  read -r id < $each/device
  if [ $id = 0x1110 ]; then
    read -r override < $each/driver_override
    echo "${each##*/} $(basename "$(readlink "$each/driver")") $override $(stat -c '%a %U %G' $each/resource2)"
  fi
done
ls -l /dev/ivshmem /dev/uio* 2>/dev/null | sed 's/ [A-Z][a-z]* .*:[0-9]* / /'
"""
# Of a run alone: what a guest keeps until it boots again.
VOLATILE = re.compile(r" /run/(acrn-ivshmem|udev)[/ ]|^total ")


# A function and its driver, or the node of one.
BOUND = re.compile(r"0000:00:")
NODE = re.compile(r".* /dev/uio\d+$")


def files_of(listing: list[str]) -> list[str]:
    return [line for line in listing if not BOUND.match(line) and not NODE.match(line)]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _number in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Host:
    """A Service VM that is this machine, with two guests that were started by hand."""

    def __init__(self, root: Path, version: str, image: str) -> None:
        self.root, self.version, self.image = root, version, image
        self.dm = f"takeover_{os.getpid()}"
        self.ports = free_ports(2)
        self.environment = {
            **os.environ,
            "ACRN_LAB": str(root / "lab"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "NO_COLOR": "1",
        }
        self.scripts = root / "scripts"
        for folder in (self.scripts, root / "lab"):
            folder.mkdir()
        (root / "scenario.xml").write_text(V2 if version == "2.7" else V3)
        for name, text in (("launch_uos.sh", BY_HAND), ("launch_user_vm_id2.sh", GENERATED)):
            path = self.scripts / name
            path.write_text(text.replace("@DM@", self.dm).replace("@ID@", "" if version == "2.7" else ",4097"))
            path.chmod(0o755)
        region = {"name": "plc", "size": 2, "region_id": 0 if version == "2.7" else 4097, "vms": ["VM1", "VM2"]}
        lab = {
            "acrn_version": version,
            "image": image,
            "vms": {f"VM{number}": {"id": number, "ssh_port": self.ports[number - 1]} for number in (1, 2)},
            "hv_regions": [region],
        }
        (root / "lab/lab.json").write_text(json.dumps(lab))

    def lab(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-B", str(HERE / "lab.py"), *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self) -> None:
        self.lab("up")
        self.lab("start", "VM1", "--", str(self.scripts / "launch_uos.sh"))
        self.lab("start", "VM2", "--", str(self.scripts / "launch_user_vm_id2.sh"))
        print(self.lab("wait", "--timeout", "3000"))
        for vm in ("VM1", "VM2"):
            # By hand, as ACRN's guide has it.
            self.lab("ssh", vm, BIND)

    def inventory(self, guests: dict[str, object] | None = None, **variables: object) -> None:
        """Write the inventory: the host as its user would describe it, and more."""
        line = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "acrn_version": self.version,
            "acrn_scenario": "scenario.xml",
            **variables,
        }
        common = {
            "acrn_host": "line-1",
            "ansible_host": "127.0.0.1",
            "ansible_user": "root",
            # A guest under TCG takes its time to greet.
            "ansible_ssh_timeout": 120,
            "ansible_ssh_private_key_file": f"{self.image}/id_ed25519",
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR",
            "ansible_python_interpreter": "/usr/bin/python3",
            **(guests or {}),
        }
        panels = {
            f"line-1-vm{number}": {"acrn_vm": f"VM{number}", "ansible_port": self.ports[number - 1]}
            for number in (1, 2)
        }
        text = {
            "all": {
                "children": {
                    "acrn_hosts": {"hosts": {"line-1": line}},
                    "acrn_guests": {"hosts": panels, "vars": common},
                }
            }
        }
        (self.root / "hosts.yml").write_text(yaml.safe_dump(text))

    def run(self, playbook: str, *options: str, ends: int = 0) -> str:
        words = ["ansible-playbook", "-i", "hosts.yml", f"acrn.ivshmem.{playbook}", *options]
        print("\n$", *words, flush=True)
        done = subprocess.run(
            words,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout, flush=True)
        assert done.returncode == ends, done.stdout
        return done.stdout

    def files(self) -> dict[str, tuple[bytes, float, int]]:
        """Scripts by name: bytes, time and mode."""
        found = {}
        for path in sorted(self.scripts.iterdir()):
            status = path.stat()
            found[path.name] = (path.read_bytes(), status.st_mtime, status.st_mode)
        return found

    def lives(self) -> list[str]:
        """What tells that a guest, and its device model, are the same as before."""
        boots = [self.lab("ssh", vm, "cat /proc/sys/kernel/random/boot_id") for vm in ("VM1", "VM2")]
        guests = json.loads(self.lab("status"))
        return [*boots, json.dumps(guests, sort_keys=True)]

    def listing(self, vm: str) -> list[str]:
        lines = self.lab("ssh", vm, LIST).splitlines()
        return [line for line in lines if not VOLATILE.search(line)]


@pytest.fixture(params=["2.7", "3.3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    if not shutil.which("qemu-system-x86_64") or not shutil.which("ansible-playbook"):
        pytest.skip("needs QEMU and ansible-playbook")
    cache = Path(os.environ.get("ACRN_IVSHMEM_CACHE", HERE.parents[1] / ".cache")) / "lab"
    built = subprocess.run([str(HERE / "build-image"), str(cache)], stdout=subprocess.PIPE, text=True, check=True)
    # A short path: sockets are in it.
    with tempfile.TemporaryDirectory(prefix="acrn-", dir="/tmp") as folder:
        host = Host(Path(folder), request.param, built.stdout.splitlines()[-1])
        try:
            yield host
        finally:
            host.lab("down")
            assert not Path("/dev/shm", host.dm).exists()


def unchanged(said: str) -> None:
    """Assert that a run changed nothing anywhere."""
    recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", said, re.M)
    assert {line[0] for line in recap} >= {"line-1", "line-1-vm1", "line-1-vm2"}, said
    assert {line[1:] for line in recap} == {("0", "0", "0")}, said


def test_takeover(host: Host) -> None:
    host.start()
    files, lives = host.files(), host.lives()
    lists = {vm: host.listing(vm) for vm in ("VM1", "VM2")}
    look = f'{{"adopt_launch_directories": ["{host.scripts}"]}}'

    # Before: what a declaration that does not know the host would do.
    scripts = [
        {"name": "VM1", "script": str(host.scripts / "launch_uos.sh")},
        {"name": "VM2", "script": str(host.scripts / "launch_user_vm_id2.sh")},
    ]
    by_hand = {"launch_mode": "edit", "launch_units": False, "launch_vms": scripts}
    moved = [{"name": "plc", "size": 2, "vms": [{"name": "VM1", "vbdf": "00:1e.0"}, "VM2"]}]
    host.inventory(ivshmem_regions=moved, **by_hand)
    flat = " ".join(host.run("plan", ends=2).split())
    assert f"has ivshmem devices that are not declared: dm:/{host.dm}, 2 MB, slot 7 (line 19)" in flat
    host.inventory(ivshmem_regions=moved, launch_exclusive=True, **by_hand)
    flat = " ".join(host.run("plan").split())
    assert "! move hv:/plc VM1 slot 6 -> 30" in flat
    assert f"remove dm:/{host.dm} from VM1, VM2" in flat
    host.inventory()
    flat = " ".join(host.run("plan", ends=2).split())
    assert "hv:/plc" in flat

    # Taken over, and left as it is.
    host.inventory()
    host.run("adopt", "-e", look)
    print(*(path.read_text() for path in sorted((host.root / "host_vars").glob("*/*.yml"))), sep="\n")
    host.run("plan")
    unchanged(host.run("site"))
    unchanged(host.run("site"))
    said = host.run("verify")
    for region in ("hv:/plc", f"dm:/{host.dm}"):
        assert re.search(rf"{region}.*proved", said), said
    unchanged(said)
    assert host.files() == files
    assert host.lives() == lives
    assert {vm: host.listing(vm) for vm in lists} == lists

    # Now the collection has its way: bindings that last, and one more region, which waits for a restart of the VMs.
    for number in (1, 2):
        path = host.root / f"host_vars/line-1-vm{number}/acrn_ivshmem.yml"
        assert "guest_devices: []" in path.read_text()
        path.write_text(path.read_text().replace("guest_devices: []", ""))
    host.run("site")
    assert any("/etc/udev/rules.d/70-acrn-ivshmem.rules" in line for line in host.listing("VM1"))
    own = yaml.safe_load((host.root / "host_vars/line-1/acrn_ivshmem.yml").read_text())
    more = {"name": f"{host.dm}_more", "provided_by": "device_model", "size": 2, "vms": ["VM1", "VM2"]}
    own["ivshmem_regions"].append(more)
    (host.root / "host_vars/line-1/acrn_ivshmem.yml").write_text(yaml.safe_dump(own))
    host.run("site", "--limit", "line-1")
    edited = host.files()
    assert len(edited) == 4
    for name, was in files.items():
        assert edited[f"{name}.before-acrn-ivshmem"][0] == was[0]
        assert edited[name][0].count(b"ivshmem") == was[0].count(b"ivshmem") + 1

    # And every trace goes again, in guests that run.
    host.run("remove", "--check", "--diff")
    assert host.files() == edited
    host.run("remove")
    for vm, was in lists.items():
        now = host.listing(vm)
        print(f"{vm}: {len(was)} files, {len(now)} now; gone {set(was) - set(now)}, new {set(now) - set(was)}")
        assert files_of(now) == files_of(was)
        # The collection has bound them for good, so it lets go of them as well.
        assert [line.split()[1:] for line in now if BOUND.match(line)] == [["(null)", "600", "root", "root"]] * 2
    assert {name: own[0] for name, own in host.files().items()} == {name: own[0] for name, own in files.items()}
    assert not (host.root / ".acrn-ivshmem").exists()
    unchanged(host.run("remove"))
    assert host.lives() == lives
