# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole host in the emulator, which Ansible's controller reaches: a disk with GRUB, and VMs with Python.

The host's files are in its initramfs, but for ``/boot``, ``/etc`` and ``/var``, which are on the disk and stay over a
reboot. It has neither a network card under ACRN nor an interrupt of its disk, so that guest/agent.py works the disk by
its ports, and the connection plugin ``mailbox`` leaves its requests in sectors behind the partition. What it asks of a
VM that acrn-dm has started, the host hands on by the VM's own disk, which is a file of the host.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ansible
import board
import devicemodel
import emulator
import frame
import image
import real
import yaml

HERE = Path(__file__).resolve().parent
SECTOR = 512
WHOLE = 480 * emulator.CYLINDER
MAILBOX = 24 * board.MB
# Sectors of the disk: its partition, requests of the controller and answers of the host.
WHERE = {
    "first": image.PARTITION // SECTOR,
    "sectors": (WHOLE - MAILBOX - image.PARTITION) // SECTOR,
    "requests": (WHOLE - MAILBOX) // SECTOR,
    "answers": (WHOLE - MAILBOX // 2) // SECTOR,
}
# Disks of the VMs that it launches, which hold requests and answers alone (VM_DISK of guest/agent.py).
VM_DISKS = "/run/disks"
VM_DISK = 4 * board.MB
NAME = "host"
# What the role verify has found, beside the inventory.
REPORT = "report.json"
REBOOTS = r"reboot: Restarting system"
# Python, as Ansible knows it.
PROGRAM = "/usr/bin/kept-python3"
# Seconds that a playbook, or a reboot, may take.
PATIENCE = 3600

# What nearly every module of Ansible imports, once for all of them.
_IMPORTED = """
    __future__ abc argparse ast atexit base64 binascii codecs collections.abc contextlib copy ctypes dataclasses
    datetime decimal difflib encodings.cp437 enum errno fcntl fnmatch functools gettext glob grp hashlib
    importlib.util inspect io itertools json keyword linecache locale logging marshal operator os.path pathlib
    pickle pkgutil platform pwd random re runpy select selectors shlex shutil signal socket stat string struct
    subprocess syslog tempfile textwrap threading time traceback types typing urllib.request uuid warnings weakref
    xml.parsers.expat xml.sax.saxutils zipfile zlib
"""
RELEASE = "6.1.0-acrn-emulated"

# What the host's own entry boots, without ACRN: the same kernel and files.
OWN = """\
menuentry 'Host' --id host {{
\tlinux /boot/vmlinuz-{release} root=/dev/ram0 {arguments} reboot=pci
\tinitrd /boot/initrd.img-{release}
}}
"""
# Programs of a host that Debian's would need a whole system for.
STANDS_IN = {
    "usr/bin/systemd-detect-virt": "dmesg | grep -q 'Hypervisor detected: ACRN' && echo acrn || { echo none; exit 1; }",
    "usr/bin/grub-probe": (
        f"case $1 in --target=fs_uuid) echo {image.DISK_UUID} ;; --target=fs) echo ext2 ;; *) echo ;; esac"
    ),
    "usr/bin/grub-mkrelpath": 'readlink -f "$1"',
    "usr/bin/kept-python3": 'exec /usr/bin/python3 -S -E -B /kept.pyc "$@"',
    "usr/bin/start-vm": (
        'vm=$(basename "$1" .sh)\n'
        f"mkdir -p {VM_DISKS}\n"
        f'truncate -s {VM_DISK >> 20}M {VM_DISKS}/"$vm"\n'
        'setsid "$1" </dev/null >/tmp/log/"$vm" 2>&1 &'
    ),
    "usr/bin/stop-vm": 'pkill -f "acrn-dm.* $1$"',
    "usr/bin/restart": "sync\n(sleep 0.5; mount -o remount,ro /disk; reboot -f) </dev/null >/dev/null 2>&1 &",
}


def _sent() -> list[Path]:
    """The sources of what Ansible may send to a host."""
    own = Path(ansible.__file__).parent
    names = ["stat", "copy", "file", "command", "slurp", "setup", "ping", "tempfile", "reboot", "raw"]
    paths = [own / f"modules/{name}.py" for name in names]
    paths += [path for path in (own / "module_utils").rglob("*.py") if "powershell" not in path.parts]
    paths += sorted((real.ROOT / "plugins/module_utils").rglob("*.py"))
    paths += sorted((real.ROOT / "plugins/modules").glob("*.py"))
    return paths


def _names() -> list[str]:
    # What Python and Ansible import late, or by a name that they make.
    more = [*_IMPORTED.split(), "concurrent.futures.thread", "configparser", "encodings.idna", "site"]
    agent = (HERE / "guest/agent.py").read_text()
    sources = [path.read_text() for path in _sent()]
    return [name for name in image.needed([agent, *sources]) if image.is_module(name)] + more


def _program(path: str, found: dict[str, bytes], programs: list[str]) -> None:
    found[path.lstrip("/")] = Path(path).read_bytes()
    programs.append(path.lstrip("/"))
    for library in image.libraries(path):
        found[library.lstrip("/")] = Path(library).read_bytes()
        programs.append(library.lstrip("/"))


def _library() -> bytes:
    """The program that works the disk's ports."""
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "ata.so"
        image.run("gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(target), str(HERE / "guest/ata.c"))
        image.run("strip", str(target))
        return target.read_bytes()


def _code() -> dict[str, bytes]:
    """What Python makes of these sources, by the name that guest/kept.py gives to each."""
    program = (
        "import _imp, marshal, sys\n"
        "for path in sys.argv[1:]:\n"
        "    source = open(path, 'rb').read()\n"
        "    code = compile(source, path, 'exec', dont_inherit=True, optimize=2)\n"
        "    marshal.dump(code, open(_imp.source_hash(1, source).hex(), 'wb'))\n"
    )
    with tempfile.TemporaryDirectory() as place:
        image.run(image.PYTHON, "-S", "-E", "-c", program, *map(str, _sent()), cwd=Path(place))
        return {f"code/{path.name}": path.read_bytes() for path in Path(place).iterdir()}


def _agent() -> dict[str, bytes]:
    """What answers the controller, in the host and in its VMs."""
    agent, kept = (str(HERE / f"guest/{name}.py") for name in ("agent", "kept"))
    code = image.compiled([agent, kept])
    imported = json.dumps(_IMPORTED.split()).encode()
    return {"agent.pyc": code[agent], "kept.pyc": code[kept], "imported.json": imported, **_code()}


def _init(name: str) -> bytes:
    return b"#!/bin/busybox sh\n" + (HERE / f"guest/{name}.sh").read_bytes()


def initramfs(version: real.Version) -> bytes:
    """What the host boots, with and without ACRN; its VMs boot the same Python."""
    answers = _agent()
    files: dict[str, bytes] = {
        "init": _init("host"),
        "disk.json": json.dumps(WHERE).encode(),
        "ata.so": _library(),
        **answers,
    }
    programs = ["init", "ata.so"]
    for name, text in STANDS_IN.items():
        files[name] = f"#!/bin/sh\n{text}\n".encode()
        programs.append(name)
    _program("/usr/bin/grub-script-check", files, programs)
    tree = real.source(version)
    if tree is None:
        raise real.RealError(f"ACRN_SRC has no ACRN v{version[0]}.{version[1]}")
    dm, dm_programs = devicemodel.files(devicemodel.program(tree, version, real.CACHE), version)
    files.update(dm)
    programs += dm_programs
    there = {library.lstrip("/") for library in image.libraries(os.path.realpath(image.PYTHON))}
    files = {name: data for name, data in files.items() if name not in there}
    links = {"usr/bin/env": "/bin/busybox", "sbin": "bin"}
    small = gzip.compress(image.archive(files, programs, links), 6, mtime=0)
    python = image.base(real.CACHE, _names())
    kept = "usr/bin/kept-python3"
    inner = {"init": _init("vm"), kept: files[kept], **answers}
    initrd = python + gzip.compress(image.archive(inner, ["init", kept], links), 6, mtime=0)
    vm = {"guest/initrd": initrd, "guest/bzImage": image.kernel(real.CACHE).read_bytes()}
    return python + small + gzip.compress(image.archive(vm), 0, mtime=0)


class Host:
    """A machine with a disk, before anything is installed on it, and Ansible's way to it."""

    def __init__(self, wanted: real.Wanted, folder: Path) -> None:
        self.wanted = wanted
        self.folder = folder
        self.image = folder / "disk.img"
        self._files(folder / "root")
        (folder / "board.xml").write_text(board.board_xml(wanted.machine, wanted.given))
        (folder / "scenario.xml").write_text(
            frame.scenario_xml(wanted.version, wanted.vms, wanted.machine, console=wanted.console)
        )
        (folder / "inventory.yml").write_text(yaml.safe_dump(self._inventory(), sort_keys=False))

    def _files(self, root: Path) -> None:
        for name in ("boot/grub", "etc/grub.d", "etc/default", "var/lib", "var/tmp"):
            (root / name).mkdir(parents=True)
        arguments = frame.Vm("", frame.SERVICE).args
        own = OWN.format(release=RELEASE, arguments=arguments)
        (root / "boot/grub/grub.cfg").write_text(image.menu(own, board.grub_prelude(self.wanted.machine)))
        (root / "boot/grub/grubenv").write_bytes(b"# GRUB Environment Block\n".ljust(1024, b"#"))
        shutil.copytree(image.GRUB, root / "boot/grub/i386-pc", ignore=shutil.ignore_patterns("*.img", "*.module"))
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        (root / "etc/os-release").write_text('NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\n')
        (root / f"boot/config-{RELEASE}").write_text("CONFIG_ACRN_HSM=y\n")
        (root / f"boot/vmlinuz-{RELEASE}").write_bytes(image.kernel(real.CACHE).read_bytes())
        (root / f"boot/initrd.img-{RELEASE}").write_bytes(initramfs(self.wanted.version))
        image.disk(self.image, root, emulator.CYLINDER, kind="ext2", least=WHOLE, behind=MAILBOX)
        if self.image.stat().st_size != WHOLE:
            raise real.RealError("the files of the host need a larger disk")

    def _inventory(self) -> dict[str, Any]:
        tree = real.source(self.wanted.version)
        host = {
            "acrn_version": self.wanted.text,
            "acrn_scenario": str(self.folder / "scenario.xml"),
            "acrn_board": str(self.folder / "board.xml"),
            "acrn_source": str(tree),
            "ivshmem_regions": [dict(region) for region in self.wanted.regions],
            "hypervisor_install": True,
            "hypervisor_reboot": True,
            "hypervisor_reboot_timeout": PATIENCE,
            "hypervisor_reboot_command": "/usr/bin/restart",
            "launch_vms": [
                {**vm, "disks": [{"path": f"{VM_DISKS}/{vm['name']}"}]} for vm in real.launch_vms(self.wanted)
            ],
            "launch_dir": "/var/lib/launch",
            "launch_units": False,
            "launch_started": True,
            "launch_start_command": ["/usr/bin/start-vm", "{script}"],
            "launch_stop_command": ["/usr/bin/stop-vm", "{name}"],
        }
        reached = {
            "ansible_connection": "mailbox",
            "mailbox_image": str(self.image),
            "mailbox_requests": WHERE["requests"],
            "mailbox_answers": WHERE["answers"],
            "ansible_python_interpreter": PROGRAM,
            "ansible_pipelining": True,
            "ansible_remote_tmp": "/tmp/.ansible",
        }
        builder = {
            "hypervisor_python": real.PYTHON,
            "hypervisor_artifacts_dir": str(real.CACHE / "artefacts"),
            "hypervisor_work_dir": str(real.CACHE / "work"),
        }
        # Drivers are in the kernel, and there is no udev. Doorbells are received by VFIO, and there is no IOMMU.
        driver = {"guest_driver": "vfio-pci", "guest_unsafe_noiommu": True, "guest_persist": False}
        guests: dict[str, Any] = {}
        # The Service VM is a guest, too: it has the region's function like any other.
        for vm in self.wanted.vms:
            launched = {"mailbox_vm_disk": f"{VM_DISKS}/{vm.name}"} if vm.order == frame.POST else {}
            guests[vm.name.lower()] = {"acrn_host": NAME, "acrn_vm": vm.name, **launched}
        return {
            "all": {"vars": builder},
            "emulated": {"children": {"acrn_hosts": {}, "acrn_guests": {}}, "vars": reached},
            "acrn_hosts": {"hosts": {NAME: host}},
            "acrn_guests": {"hosts": guests, "vars": {**driver, "verify_json": REPORT}},
        }

    def ansible(self, machine: emulator.Emulator, program: str, *words: str, seconds: float = PATIENCE) -> str:
        """What Ansible says while the machine runs. Raises RealError where it fails."""
        log = self.folder / "ansible.log"
        known = {
            "ANSIBLE_CONNECTION_PLUGINS": str(HERE / "plugins/connection"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "NO_COLOR": "1",
        }
        start = machine.cpu()
        with log.open("w") as output:
            running = subprocess.Popen(
                [str(Path(sys.executable).parent / program), "-i", "inventory.yml", *words],
                cwd=self.folder,
                env={**os.environ, **known},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                machine.until(lambda: running.poll() is not None, seconds)
            finally:
                running.kill()
                running.wait()
        said = log.read_text()
        print(f"{program} {' '.join(words)}: {machine.cpu() - start:.0f} CPU s")
        if running.returncode:
            raise real.RealError(machine.told(said))
        return said
