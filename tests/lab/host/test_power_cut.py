# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The power goes at ten moments of an installation on a real Service VM: it boots, and a second run gets there.

That machine boots by BIOS; the one of molecule/host by UEFI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parent
MACHINE = [sys.executable, "-B", str(HERE / "machine.py")]
PORT = 2545
MOMENTS = int(os.environ.get("ACRN_LAB_POWER_CUTS", "10"))
SSH = ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Install
      acrn.ivshmem.hypervisor_install:
        artifact_dir: "{{ artifact }}"
        trial: true
        kernel: "{{ kernel }}"
        root: /dev/vda3
        cmdline: console=ttyS0 quiet mitigations=off audit=0
        proofs: []
      register: install

    - name: Say what it came to
      ansible.builtin.debug:
        msg: "outcome={{ install.outcome }} changed={{ install.changed }}"

    - name: Sound and whole
      ansible.builtin.command: grub-script-check /boot/grub/grub.cfg
      changed_when: false
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    if not shutil.which("qemu-system-x86_64") or not shutil.which("ansible-playbook"):
        pytest.skip("needs QEMU and ansible-playbook")
    cache = Path(os.environ.get("ACRN_IVSHMEM_CACHE", HERE.parents[2] / ".cache")) / "lab"
    built = subprocess.run([str(HERE / "build-image"), str(cache)], stdout=subprocess.PIPE, text=True, check=True)
    image = Path(built.stdout.splitlines()[-1])
    place = tmp_path / "vm"
    subprocess.run([*MACHINE, "create", str(place), "--image", str(image), "--port", str(PORT)], check=True)
    yield image, place, tmp_path
    subprocess.run([*MACHINE, "destroy", str(place)], check=True)


def test_power_cut(lab: tuple[Path, Path, Path]) -> None:
    image, place, scratch = lab

    def power(*words: str) -> None:
        for word in words:
            subprocess.run([*MACHINE, word, str(place), "--timeout", "3600"], check=True)

    def install(key: str) -> subprocess.Popen[str]:
        variables = {
            "ansible_port": PORT,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": image / "id_ed25519",
            "ansible_python_interpreter": "/usr/bin/python3",
            "artifact": scratch / key,
            "kernel": kernel,
        }
        words = [
            "ansible-playbook",
            "-i",
            "127.0.0.1,",
            str(scratch / "play.yml"),
            "-e",
            f"ansible_ssh_common_args='{' '.join(SSH)} -o ControlMaster=no -o ServerAliveInterval=3'",
        ]
        for name, value in variables.items():
            words += ["-e", f"{name}={value}"]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    (scratch / "play.yml").write_text(PLAY)
    kernel = "/boot/vmlinuz-" + (image / "manifest.json").read_text().split('"kernel": "')[1].split('"')[0]
    for number in range(MOMENTS + 1):
        words = [
            sys.executable,
            "-B",
            str(HERE / "artifact.py"),
            str(scratch),
            f"key-{number}",
            str(image / "boots.bin"),
        ]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    power("on", "wait")
    began = time.monotonic()
    first = install("key-0")
    assert "outcome=armed changed=True" in first.communicate()[0]
    whole = time.monotonic() - began
    for number in range(1, MOMENTS + 1):
        running = install(f"key-{number}")
        time.sleep(whole * number / (MOMENTS + 1))
        power("off")
        running.communicate()
        power("on", "wait")  # whatever it boots, it boots
        again = install(f"key-{number}")
        said = again.communicate()[0]
        assert again.returncode == 0, said
        # The cut may have come after the trial was set up: then the machine has just been booted into it.
        assert "outcome=armed" in said or "outcome=default" in said, said
        once_more = install(f"key-{number}").communicate()[0]
        assert "changed=False" in once_more, once_more
    # After all this, the menu is byte for byte what the host's own tools make of it.
    words = ["ssh", "-i", str(image / "id_ed25519"), "-p", str(PORT), *SSH, "root@127.0.0.1"]
    made = "cp /boot/grub/grub.cfg /run/before && update-grub && cmp /run/before /boot/grub/grub.cfg"
    result = subprocess.run([*words, made], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
