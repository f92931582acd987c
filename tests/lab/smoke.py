# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boots three guests of a lab of its own, from launch scripts, and proves that the lab is what it says:

- both examples of ACRN's ivshmem guide: lspci shows the functions at the slots of the scripts, bytes written in one
  guest are read in the other, a doorbell rung in one arrives in the other as MSI-X interrupts on the right vectors;
- acrn-dm's refusals; a reboot and a power cycle of a guest; nothing is left behind at the end.

Prints one line per step and, at the end, what it cost. Exit code: 0 all well, 1 not, 77 it could not run here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GUEST = (HERE / "guest_ivshmem.py").read_bytes()
SHARED_MEMORY = "RAM memory: Red Hat, Inc. Inter-VM shared memory (rev 01)"

# The samples of the guide, but for the VM's name; the guide gives slot 6 to two devices of VM1.
VM1 = """#!/bin/sh
exec acrn-dm -A -m "${mem_size:-2048M}" -s 0:0,hostbridge \\
 -s 2,pci-gvt -G "$2" \\
 -s 5,virtio-console,@stdio:stdio_port \\
 -s SLOT,virtio-hyper_dmabuf \\
 -s 3,virtio-blk,/home/acrn/UserVM1.img \\
 -s 4,virtio-net,tap0 \\
 -s 6,ivshmem,dm:/DM_NAME,2 \\
 -s 7,virtio-rnd \\
 --ovmf /usr/share/acrn/bios/OVMF.fd \\
 vm1
"""
VM2 = """#!/bin/sh
exec acrn-dm -A -m "${mem_size:-2048M}" -s 0:0,hostbridge \\
 -s 2,pci-gvt -G "$2" \\
 -s 3,virtio-blk,/home/acrn/UserVM2.img \\
 -s 4,virtio-net,tap0 \\
 -s 5,ivshmem,dm:/DM_NAME,2 \\
 -s 10,ivshmem,hv:/shm_region_0,SIZE \\
 --ovmf /usr/share/acrn/bios/OVMF.fd \\
 vm2
"""


class Failed(Exception):
    pass


class Smoke:
    def __init__(self, root: Path, image: str) -> None:
        self.root = root
        self.begun = self.last = time.monotonic()
        self.cpu: dict[int, float] = {}
        self.dm_name = f"smoke-{os.getpid()}"
        self.ports = free_ports(3)
        self.environment = {
            **os.environ,
            "ACRN_LAB": str(root),
            "PATH": f"{HERE}{os.pathsep}{os.environ['PATH']}",
        }
        config = {
            "acrn_version": "2.7",
            "image": image,
            "vms": {
                "vm0": {"id": 0, "ssh_port": self.ports[0], "prelaunched": True},
                "vm1": {"id": 1, "ssh_port": self.ports[1]},
                "vm2": {"id": 2, "ssh_port": self.ports[2]},
            },
            "hv_regions": [{"name": "shm_region_0", "size": 2, "vms": [{"name": "vm0", "vbdf": "00:06.0"}, "vm2"]}],
        }
        (root / "lab.json").write_text(json.dumps(config))

    def lab(self, *arguments: str, data: bytes | None = None, code: int = 0, timeout: float = 900) -> str:
        """Run the lab's command; its output. Failed unless it ends with `code`."""
        done = subprocess.run(
            [str(HERE / "lab"), *arguments],
            env=self.environment,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        output = done.stdout.decode("utf-8", "replace")
        if done.returncode != code:
            raise Failed(f"lab {' '.join(arguments)}: ended with {done.returncode}\n{output}")
        return output

    def inside(self, vm: str, *arguments: str) -> str:
        """Run guest_ivshmem.py in a guest."""
        return self.lab("ssh", vm, f"python3 - {' '.join(arguments)}", data=GUEST).strip()

    def step(self, text: str) -> None:
        now = time.monotonic()
        print(f"ok {now - self.last:6.1f} s  {text}", flush=True)
        self.last = now

    def expect(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            raise Failed(f"{what}: {got!r} instead of {wanted!r}")

    def shared_functions(self, vm: str) -> list[str]:
        return [line for line in self.lab("ssh", vm, "lspci").splitlines() if "shared memory" in line]

    def script(self, vm: str, text: str, **replace: str) -> str:
        path = self.root / f"{vm}.sh"
        for old, new in {"DM_NAME": self.dm_name, **replace}.items():
            text = text.replace(old, new)
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def status(self) -> Any:
        return json.loads(self.lab("status"))

    def count_cpu(self) -> None:
        """Note the CPU time so far of the guests that run now."""
        for record in (self.root / "run").glob("vm*.json"):
            pid = json.loads(record.read_text())["qemu"]
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            self.cpu[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def doorbell(self, text: str) -> None:
        """vm2 rings vm0 (peer 0) on four vectors, with a message in the shared memory."""
        receiver = subprocess.Popen(
            [str(HERE / "lab"), "ssh", "vm0", "python3 - receive 00:06.0 4 120"],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert receiver.stdin and receiver.stdout
        receiver.stdin.write(GUEST.decode())
        receiver.stdin.close()
        self.expect("receiver", receiver.stdout.readline().strip(), "listening as peer 0")
        self.inside("vm2", "write", "00:0a.0", "0", text)
        self.inside("vm2", "ring", "00:0a.0", "0", "3", "0", "7", "5")
        heard = sorted(receiver.stdout.read().splitlines())
        receiver.wait(60)
        self.expect("interrupts", heard, [f"vector {number} x1: {text}" for number in (0, 3, 5, 7)])

    def memory(self, writer: tuple[str, str], reader: tuple[str, str]) -> None:
        token = os.urandom(8).hex()
        self.inside(*writer[:1], "write", writer[1], "4096", token)
        self.expect("memory", self.inside(reader[0], "read", reader[1], "4096", "16"), token)

    def run(self) -> None:
        self.lab("up")
        self.step("hypervisor with hv:/shm_region_0, and the pre-launched vm0, started")

        output = self.lab("start", "vm1", "--", self.script("vm1", VM1, SLOT="6"), code=1)
        if "pci slot 6:0 already occupied!" not in output:
            raise Failed(output)
        output = self.lab("start", "vm2", "--", self.script("vm2", VM2, SIZE="4"), code=1)
        if "ACRN_IOCTL_CREATE_VDEV ioctl() returned an error: Invalid argument" not in output:
            raise Failed(output)
        self.step("the guide's own VM1 sample (slot 6 twice) and a wrong hv size refused in acrn-dm's words")

        self.lab("start", "vm1", "--", self.script("vm1", VM1, SLOT="8"))
        self.lab("start", "vm2", "--", self.script("vm2", VM2, SIZE="2"))
        self.step("launch scripts of vm1 and vm2 started")
        self.lab("wait", "--timeout", "600")
        self.step("three guests can be logged in to")

        self.expect("vm0", self.shared_functions("vm0"), [f"00:06.0 {SHARED_MEMORY}"])
        self.expect("vm1", self.shared_functions("vm1"), [f"00:06.0 {SHARED_MEMORY}"])
        self.expect("vm2", self.shared_functions("vm2"), [f"00:05.0 {SHARED_MEMORY}", f"00:0a.0 {SHARED_MEMORY}"])
        self.step(f"lspci: vm1 and vm0 have 00:06.0 {SHARED_MEMORY}, vm2 has 00:05.0 and 00:0a.0")

        shm = Path("/dev/shm") / self.dm_name
        self.expect("mode and size", (shm.stat().st_mode & 0o777, shm.stat().st_size), (0o600, 2 << 20))
        bind = "modprobe uio_pci_generic && echo 1af4 1110 >/sys/bus/pci/drivers/uio_pci_generic/new_id"
        self.lab("ssh", "vm1", bind)
        self.lab("ssh", "vm2", bind)
        self.expect("uio", self.lab("ssh", "vm1", "ls /sys/bus/pci/devices/0000:00:06.0/uio").strip(), "uio0")
        self.step("bound to uio_pci_generic by new_id in vm1 and vm2")

        self.memory(("vm1", "00:06.0"), ("vm2", "00:05.0"))
        self.memory(("vm2", "00:05.0"), ("vm1", "00:06.0"))
        self.step(f"dm:/{self.dm_name}: a token of vm1 read in vm2, one of vm2 read in vm1")
        self.memory(("vm0", "00:06.0"), ("vm2", "00:0a.0"))
        self.step("hv:/shm_region_0: a token of vm0 read in vm2")
        self.doorbell("hello")
        self.step("doorbell: vm2 rang vm0 on vectors 3, 0, 7, 5; all four came, with the message")

        self.count_cpu()
        boot_id = self.lab("ssh", "vm2", "cat /proc/sys/kernel/random/boot_id")
        self.lab("ssh", "vm2", "touch /root/kept && sync && systemctl --no-block reboot")
        deadline = time.monotonic() + 60
        while self.status()["vms"]["vm2"]["state"] == "ready" and time.monotonic() < deadline:
            time.sleep(0.2)
        self.lab("wait", "vm2", "--timeout", "600")
        if self.lab("ssh", "vm2", "ls /root/kept && cat /proc/sys/kernel/random/boot_id").split()[-1] in boot_id:
            raise Failed("vm2 did not reboot")
        self.step("vm2 rebooted itself, its disk kept")
        self.memory(("vm1", "00:06.0"), ("vm2", "00:05.0"))
        self.doorbell("after-reboot")
        self.step("memory and doorbell after the reboot")

        self.count_cpu()
        self.lab("powercycle", "vm0")
        self.lab("wait", "vm0", "--timeout", "600")
        self.memory(("vm2", "00:0a.0"), ("vm0", "00:06.0"))
        self.doorbell("after-power-cycle")
        self.step("vm0 power-cycled; memory and doorbell again")

        self.count_cpu()
        self.lab("stop", "vm1")
        if "Power down" not in (self.root / "guests/vm1/console.log").read_text(errors="replace"):
            raise Failed("vm1 did not power off cleanly")
        self.step("vm1 powered off cleanly on SIGTERM")

    def clean(self) -> None:
        self.lab("down")
        left = [str(path) for path in (self.root / "run", Path("/dev/shm") / self.dm_name) if path.exists()]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ") + (entry / "environ").read_bytes()
                except OSError:
                    continue
                if str(self.root).encode() in words:
                    left.append(words[:100].decode("utf-8", "replace"))
        for port in self.ports:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    left.append(f"port {port}")
        if left:
            raise Failed(f"left behind: {left}")
        self.step("down: no process, port, socket or shared memory left")


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _number in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", help="where the image is or will be (default: as build-image)")
    parser.add_argument("--keep", action="store_true", help="keep the lab's directory, with consoles and logs")
    options = parser.parse_args()
    for tool in ("qemu-system-x86_64", "qemu-img", "ssh"):
        if not shutil.which(tool):
            print(f"skipped: {tool} is not installed")
            return 77
    cache = [options.cache] if options.cache else []
    begun = time.monotonic()
    built = subprocess.run([str(HERE / "build-image"), *cache], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        print("skipped: there is no guest image and it cannot be built here")
        return 77
    print(f"ok {time.monotonic() - begun:6.1f} s  image {built.stdout.strip()}", flush=True)
    root = Path(tempfile.mkdtemp(prefix="lab-"))
    smoke = Smoke(root, built.stdout.strip())
    code = 0
    try:
        smoke.run()
    except (Failed, subprocess.TimeoutExpired) as exc:
        print(f"FAILED: {exc}", flush=True)
        code = 1
    try:
        smoke.clean()
    except (Failed, subprocess.TimeoutExpired) as exc:
        print(f"FAILED: {exc}", flush=True)
        code = 1
    wall = time.monotonic() - smoke.begun
    load = os.getloadavg()[0]
    print(
        f"{wall:.0f} s wall, {sum(smoke.cpu.values()):.0f} s CPU of the guests, load {load:.1f}, {os.cpu_count()} cores"
    )
    if options.keep or code:
        print(f"kept: {root}")
    else:
        shutil.rmtree(root)
    return code


if __name__ == "__main__":
    sys.exit(main())
