# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated fleet on one machine: N Service VMs with two guests each, every one with a root directory of its own.

The Python that Ansible calls is a wrapper which enters the root first: /usr and /tmp are those of this machine, all
else is the host's own. A guest's /sys has the two functions of its regions, and both guests of a host map the same
files, so bytes really pass between them. What no file can show (drivers, interrupts) is not measured here.

    fleet.py DIRECTORY HOSTS [--ssh PORT]      writes DIRECTORY/inventory.yml
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
# Byte code goes nowhere: where the tests have theirs would be a directory in the root of the machine.
WRAPPER = """\
#!/bin/sh
# Python inside {root}
exec unshare -m sh -c '
mount --rbind /usr {root}/usr
mount --bind /tmp {root}/tmp
unset PYTHONPYCACHEPREFIX
export PYTHONDONTWRITEBYTECODE=1
exec chroot {root} {python} "$@"' sh "$@"
"""
REGIONS: list[dict[str, Any]] = [
    {"name": "press_state", "size": 2, "vms": [{"name": "VM1", "vbdf": "00:08.0"}, {"name": "VM2", "vbdf": "00:08.0"}]},
    {
        "name": "press_log",
        "provided_by": "device_model",
        "size": 2,
        "vms": [{"name": "VM1", "vbdf": "00:09.0"}, {"name": "VM2", "vbdf": "00:09.0"}],
    },
]
VM_IDS = {"VM1": 2, "VM2": 3}
BOOT = "6b1f5b0e-3f0a-4d0c-8a55-6b0f6f9d9f3e"


def make_root(root: Path) -> None:
    """The directories that Python and a shell need."""
    for name in (
        "usr",
        "dev/shm",
        "etc/systemd/system",
        "run/udev",
        "tmp",
        "root",
        "sys/bus/pci/devices",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "dev/null").touch()
    # No process of this machine, and a boot that does not end.
    boot = root / "proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True, exist_ok=True)
    boot.write_text(f"{BOOT}\n")
    # For the playbook that is measured beside this collection.
    (root / "proc/modules").write_text("uio_pci_generic 16384 2 - Live 0x0000000000000000\n")
    (root / "etc/modules-load.d").mkdir(exist_ok=True)


def config_space(vectors: int) -> bytes:
    data = bytearray(256)
    data[0x04] = 0x02
    if vectors:
        data[0x06] = 0x10
        data[0x34] = 0x50
        data[0x50:0x52] = bytes([0x11, 0x00])
        struct.pack_into("<H", data, 0x52, vectors - 1)
    return bytes(data)


def add_function(root: Path, slot: int, region: dict[str, Any], memory: Path, uio: int, peer: int) -> None:
    """A function as sysfs shows it, bound to uio_pci_generic."""
    address = f"0000:00:{slot:02x}.0"
    device = root / "sys/bus/pci/devices" / address
    device.mkdir(parents=True)
    hv = region.get("provided_by", "hypervisor") == "hypervisor"
    size = region["size"] << 20
    bars = [(0xFEB00000 + slot * 0x1000, 256, 0x40200), (0, 0, 0), (slot << 32, size, 0x14220C)]
    if hv:
        bars[1] = (0xFEC00000 + slot * 0x1000, 4096, 0x40200)
    texts = {
        "vendor": "0x1af4\n",
        "device": "0x1110\n",
        "subsystem_vendor": "0x1af4\n",
        "subsystem_device": "0x1100\n",
        "driver_override": "(null)\n",
        "resource": "".join(f"{a:#018x} {a + s - 1 if s else 0:#018x} {f:#018x}\n" for a, s, f in bars)
        + "0x0 0x0 0x0\n" * 4,
    }
    for name, text in texts.items():
        (device / name).write_text(text)
    (device / "config").write_bytes(config_space(8 if hv else 0))
    # Sparse, and the same file for both guests.
    if not memory.exists():
        with open(memory, "wb") as handle:
            handle.truncate(size)
    os.link(memory, device / "resource2")
    (device / "resource0").write_bytes(bytes(8) + struct.pack("<I", peer) + bytes(4084))
    driver = root / "sys/bus/pci/drivers/uio_pci_generic"
    driver.mkdir(parents=True, exist_ok=True)
    (device / "driver").symlink_to("../../../../bus/pci/drivers/uio_pci_generic")
    (device / "uio" / f"uio{uio}").mkdir(parents=True)
    (root / f"dev/uio{uio}").touch()
    links = root / "dev/ivshmem"
    links.mkdir(exist_ok=True)
    (links / region["name"]).symlink_to(f"../uio{uio}")


def run_vm(root: Path, pid: int, vm: str, regions: Sequence[dict[str, Any]]) -> None:
    """A VM that runs as its launch script starts it, as /proc shows it: guests of one that does not are left alone."""
    words = ["/usr/bin/acrn-dm"]
    for region, vbdf in devices(regions, vm):
        land = "hv" if region.get("provided_by", "hypervisor") == "hypervisor" else "dm"
        words += ["-s", f"{int(vbdf[3:5], 16)},ivshmem,{land}:/{region['name']},{region['size']}"]
    (root / f"proc/{pid}/fd").mkdir(parents=True)
    (root / f"proc/{pid}/cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in [*words, vm]))


def wrapper(path: Path, root: Path) -> str:
    path.write_text(WRAPPER.format(root=shlex.quote(str(root)), python=PYTHON))
    path.chmod(0o755)
    return str(path)


def read_inventory(path: Path) -> dict[str, Any]:
    inventory: dict[str, Any] = yaml.safe_load(path.read_text())
    return inventory


def make(
    directory: Path,
    hosts: int,
    ssh_port: int | None,
    regions: Sequence[dict[str, Any]] = (),
    vm_ids: Mapping[str, int] | None = None,
) -> None:
    regions, vm_ids = list(regions or REGIONS), vm_ids or VM_IDS
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name in ("scenario.xml", "board.xml"):
        shutil.copy(PROJECT / "molecule/default/inventory" / name, directory / name)
    acrn_hosts: dict[str, Any] = {}
    acrn_guests: dict[str, Any] = {}
    for number in range(1, hosts + 1):
        host, *guests = names(number, vm_ids)
        base = directory / "machines" / host
        root = base / "root"
        make_root(root)
        (root / "sys").mkdir(exist_ok=True)
        for pid, vm in enumerate(vm_ids, 100):
            run_vm(root, pid, vm, regions)
        acrn_hosts[host] = {"ansible_python_interpreter": wrapper(base / "python", root)}
        for guest, (vm, peer) in zip(guests, vm_ids.items()):
            guest_root = base / vm
            make_root(guest_root)
            (guest_root / "run/udev/control").touch()
            for index, (region, vbdf) in enumerate(devices(regions, vm)):
                slot = int(vbdf[3:5], 16)
                add_function(guest_root, slot, region, base / region["name"], index, peer)
            python = wrapper(base / f"python-{vm}", guest_root)
            acrn_guests[guest] = {"acrn_host": host, "acrn_vm": vm, "ansible_python_interpreter": python}
    # Files that Ansible sends have to be seen from inside of the roots.
    connection: dict[str, Any] = {"ansible_connection": "local", "ansible_remote_tmp": "/tmp/.ansible-bench"}
    if ssh_port:
        connection |= {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": ssh_port,
            "ansible_ssh_private_key_file": str(directory / "key"),
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR",
            # One connection a host, not one for all of them.
            "ansible_control_path": str(directory / "cp-{{ inventory_hostname }}"),
        }
    inventory = {
        "all": {
            "vars": connection,
            "children": {
                "acrn_hosts": {
                    "hosts": acrn_hosts,
                    "vars": {
                        "acrn_scenario": "scenario.xml",
                        "acrn_board": "board.xml",
                        "acrn_version": "3.3",
                        "acrn_source": str(PROJECT / "tests/standin_tree"),
                        "ivshmem_regions": regions,
                        # /usr is that of this machine.
                        "launch_dir": "/etc/acrn/launch",
                        "launch_hypervisor_manifest": "",
                        "launch_vms": [
                            {"name": "VM1", "memory": 512, "disks": [{"path": "/var/lib/acrn/VM1.img"}]},
                            {"name": "VM2", "memory": 512, "disks": [{"path": "/var/lib/acrn/VM2.img"}]},
                        ],
                    },
                },
                "acrn_builders": {
                    "hosts": {
                        "builder": {
                            "ansible_connection": "local",
                            "ansible_python_interpreter": sys.executable,
                            "hypervisor_artifacts_dir": str(directory / "artifacts"),
                            "hypervisor_work_dir": str(directory / "work"),
                            "hypervisor_python": sys.executable,
                        }
                    }
                },
                "acrn_guests": {"hosts": acrn_guests},
            },
        }
    }
    (directory / "inventory.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))


def devices(regions: Sequence[dict[str, Any]], vm: str) -> list[tuple[dict[str, Any], str]]:
    """The regions of a VM, each with the vBDF."""
    return [(region, each["vbdf"]) for region in regions for each in region["vms"] if each["name"] == vm]


def names(number: int, vm_ids: Mapping[str, int] | None = None) -> list[str]:
    """The hosts that make up a Service VM and its guests."""
    return [f"h{number:03}", *(f"h{number:03}-{vm.lower()}" for vm in vm_ids or VM_IDS)]


def clone(directory: Path, hosts: int, vm_ids: Mapping[str, int] | None = None) -> None:
    """Give all machines the files that the first one has got, as a run on each of them would."""
    vm_ids = vm_ids or VM_IDS
    for number in range(2, hosts + 1):
        for part in ("root", *vm_ids):
            source, target = (directory / "machines" / names(each, vm_ids)[0] / part for each in (1, number))
            for name in ("etc", "run", "var"):
                if (source / name).exists():
                    shutil.copytree(source / name, target / name, symlinks=True, dirs_exist_ok=True)
        for place in (".acrn-ivshmem", "peer"):
            if (directory / place).exists():
                target = directory / place / names(number)[0]
                shutil.copytree(directory / place / names(1)[0], target, dirs_exist_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a simulated fleet.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("hosts", type=int)
    parser.add_argument("--ssh", type=int)
    arguments = parser.parse_args()
    make(arguments.directory.resolve(), arguments.hosts, arguments.ssh)


if __name__ == "__main__":
    main()
