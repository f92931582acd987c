# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real GRUB on a host with a boot menu of its own, whose default is a number behind other entries.

The root is found by UUID, as the initrd of a distribution does it, and the scenario has no tag for an initrd, as those
that come with ACRN.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parent
MACHINE = [sys.executable, "-B", str(HERE / "machine.py")]
PORT = 2546
SSH = ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Install
      acrn.ivshmem.hypervisor_install: "{{ given }}"
      register: install
      ignore_errors: true

    - name: Ask
      acrn.ivshmem.hypervisor_info:
      register: info

    - name: Say what it came to
      ansible.builtin.debug:
        msg: "result={{ [install, info] | to_json | b64encode }}!"
"""
# The host's own menu: an entry for ACRN by hand, and one behind all of Debian's that is its default.
OWN = """\
set -e
cat >/etc/grub.d/50_lab <<'END'
#!/bin/sh
cat <<'MENU'
menuentry 'ACRN by hand' --id own {
\tmultiboot2 /boot/acrn-own.bin root=UUID=@ hugepages=1 lab.own=1
\tmodule2 /boot/vmlinuz-KERNEL Linux_bzImage
}
menuentry 'Behind' --id behind {
\tlinux /boot/vmlinuz-KERNEL root=UUID=@ console=ttyS0 quiet mitigations=off audit=0 apparmor=0 lab.behind=1
\tinitrd /boot/initrd.img-KERNEL
}
MENU
END
sed -i "s/@/$(findmnt -n -o UUID /)/; s/KERNEL/$(uname -r)/" /etc/grub.d/50_lab
chmod 755 /etc/grub.d/50_lab
update-grub 2>&1
# The number of an entry is its place among those that stand in no other.
number=$(grep -E "^(menuentry|submenu) " /boot/grub/grub.cfg | grep -n "^menuentry 'Behind'" | cut -d: -f1)
sed -i "s/^GRUB_DEFAULT=.*/GRUB_DEFAULT=$((number - 1))/" /etc/default/grub
update-grub 2>&1
"""


class Lab:
    def __init__(self, image: Path, place: Path, scratch: Path) -> None:
        self.image, self.place, self.scratch = image, place, scratch
        self.key = ["-i", str(image / "id_ed25519"), "-p", str(PORT)]

    def power(self, *words: str) -> None:
        for word in words:
            subprocess.run([*MACHINE, word, str(self.place), "--timeout", "3600"], check=True)

    def ssh(self, command: str) -> str:
        words = ["ssh", *self.key, *SSH, "root@127.0.0.1", command]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def reboot(self) -> str:
        """Boot anew, and return what kind of entry it was."""
        self.ssh("sync")
        self.power("off", "on", "wait")
        self.cmdline = self.ssh("cat /proc/cmdline")
        return (
            "behind" if "lab.behind=1" in self.cmdline else "ours" if "acrn_ivshmem.entry=" in self.cmdline else "other"
        )

    def call(self, **given: object) -> tuple[dict, dict]:
        """Call the module once, and ask for the state."""
        (self.scratch / "given.json").write_text(json.dumps({"given": dict(given, proofs=[])}))
        variables = {
            "ansible_port": PORT,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": self.image / "id_ed25519",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": f"'{' '.join(SSH)} -o ControlMaster=no'",
        }
        words = ["ansible-playbook", "-i", "127.0.0.1,", str(self.scratch / "play.yml")]
        for name, value in variables.items():
            words += ["-e", f"{name}={value}"]
        done = subprocess.run(
            [*words, "-e", f"@{self.scratch}/given.json"], capture_output=True, text=True, check=False
        )
        assert "result=" in done.stdout, done.stdout + done.stderr
        packed = done.stdout.split("result=")[1].split("!")[0]
        install, info = json.loads(base64.b64decode(packed))
        return install, info


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if not shutil.which("qemu-system-x86_64") or not shutil.which("ansible-playbook"):
        pytest.skip("needs QEMU and ansible-playbook")
    cache = Path(os.environ.get("ACRN_IVSHMEM_CACHE", HERE.parents[2] / ".cache")) / "lab"
    built = subprocess.run([str(HERE / "build-image"), str(cache)], stdout=subprocess.PIPE, text=True, check=True)
    image = Path(built.stdout.splitlines()[-1])
    place = tmp_path / "vm"
    subprocess.run([*MACHINE, "create", str(place), "--image", str(image), "--port", str(PORT)], check=True)
    (tmp_path / "play.yml").write_text(PLAY)
    words = [
        sys.executable,
        "-B",
        str(HERE / "artifact.py"),
        str(tmp_path),
        "good",
        str(image / "boots.bin"),
        "untagged",
    ]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    yield Lab(image, place, tmp_path)
    subprocess.run([*MACHINE, "destroy", str(place)], check=True)


def test_boot_entry(lab: Lab) -> None:
    lab.power("on", "wait")
    lab.ssh(OWN)
    assert lab.reboot() == "behind"
    before = lab.ssh("cat /boot/grub/grub.cfg")
    kernel = lab.ssh("ls /boot/vmlinuz-*").strip()
    arguments = {
        "artifact_dir": str(lab.scratch / "good"),
        "kernel": kernel,
        "cmdline": "console=ttyS0 quiet mitigations=off audit=0 apparmor=0",
    }

    # What cannot boot is refused before anything is written.
    lab.ssh(f"mv {kernel.replace('vmlinuz', 'initrd.img')} /root/initrd")
    refused, _info = lab.call(**arguments)
    partition = lab.ssh("blkid -s PARTUUID -o value /dev/vda3").strip()
    assert refused["msg"].endswith(f"hypervisor_root=PARTUUID={partition}"), refused["msg"]
    assert lab.ssh("ls -A /boot/acrn 2>/dev/null; cat /boot/grub/grub.cfg") == before
    lab.ssh(f"mv /root/initrd {kernel.replace('vmlinuz', 'initrd.img')}")

    # The entries are there, and the default is what it was.
    waiting, info = lab.call(**arguments)
    assert (waiting["outcome"], waiting["differs"]) == ("waiting", ["hugepages=1", "lab.own=1"])
    assert info["arguments"] == ["hugepages=1", "lab.own=1"]
    assert lab.reboot() == "behind"

    # A trial with an initrd without a tag, and the root by its UUID.
    assert lab.call(**arguments, trial=True)[0]["outcome"] == "armed"
    assert lab.reboot() == "ours"
    assert lab.cmdline.startswith("root=UUID=")
    assert lab.call(**arguments)[0]["outcome"] == "default"
    assert lab.reboot() == "ours"

    # An entry that GRUB cannot load goes on to what the number of the host means.
    lab.ssh("mv /boot/acrn/good/acrn.bin /root/")
    assert lab.reboot() == "behind"
    lab.ssh("mv /root/acrn.bin /boot/acrn/good/")
    assert lab.reboot() == "ours"

    # A trial that GRUB cannot load goes on to the default.
    changed = {**arguments, "cmdline": arguments["cmdline"] + " lab.changed=1"}
    armed, info = lab.call(**changed, trial=True)
    assert (armed["outcome"], info["next"]) == ("armed", armed["entry"])
    lab.ssh(f"sed -i '/{armed['entry']} {{/,/^}}/s,/acrn.bin,/gone.bin,' /boot/grub/grub.cfg")
    assert lab.reboot() == "ours"
    assert "lab.changed" not in lab.cmdline
    assert lab.call(**changed)[0]["outcome"] == "fell_back"

    # The way back, and no trace.
    assert lab.call(state="previous")[0]["entry"] is None
    assert lab.reboot() == "behind"
    assert lab.call(state="absent")[0]["changed"]
    assert lab.ssh("cat /boot/grub/grub.cfg") == before
    assert lab.ssh("cp /boot/grub/grub.cfg /run/x; update-grub 2>/dev/null; cmp /run/x /boot/grub/grub.cfg") == ""
    assert lab.reboot() == "behind"
