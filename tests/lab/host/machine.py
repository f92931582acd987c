# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's Service VMs: machines that boot from their own disk, with a power switch.

  machine create DIRECTORY --image IMAGE --port PORT [--firmware bios|uefi] [--region SLOT:MB ...]
  machine on|off|cycle|wait|status DIRECTORY
  machine destroy DIRECTORY

DIRECTORY holds one machine. Its power goes without a warning (off, cycle), as a plug is pulled. ``wait`` returns when
it can be logged in to (root, by the image's key, on 127.0.0.1 and the port).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

READY = "acrn-lab: ready"


def command(place: Path) -> list[str]:
    """The QEMU command line of a machine."""
    config = json.loads((place / "machine.json").read_text())
    words = ["qemu-system-x86_64", "-M", "q35,sata=off,smbus=off", "-accel", "tcg,thread=multi", "-m", "512"]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-serial", f"file:{place}/console.log"]
    # A reset ends QEMU, and it is started anew: kept, its translations of the old kernel's code would make every write
    # of GRUB to the same memory a hundred times slower.
    words += ["-no-reboot", "-drive", f"file={place}/disk.qcow2,if=virtio,cache=writeback"]
    words += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{config['port']}-:22"]
    words += ["-device", f"virtio-net-pci,netdev=net,mac=52:54:00:ac:10:{config['port'] % 256:02x},romfile="]
    for number, region in enumerate(config["regions"]):
        slot, size = region.split(":")
        words += ["-object", f"memory-backend-ram,id=region{number},share=on,size={size}M"]
        words += ["-device", f"ivshmem-plain,memdev=region{number},addr={slot}"]
    if config["firmware"] == "uefi":
        words += ["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd"]
        words += ["-drive", f"if=pflash,format=raw,file={place}/firmware.fd"]
    return words


def pid_of(place: Path, name: str) -> int | None:
    """The process of a pid file, if it is alive."""
    try:
        pid = int((place / name).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def supervise(place: Path) -> None:
    """Run QEMU again and again until the machine is switched off."""
    turn_page(place)
    (place / "supervisor.pid").write_text(str(os.getpid()))
    while not (place / "off").exists():
        with open(place / "qemu.log", "ab") as log:
            began = time.monotonic()
            turn_page(place)
            process = subprocess.Popen(command(place), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            (place / "qemu.pid").write_text(str(process.pid))
            if (place / "off").exists():
                process.kill()
            process.wait()
            (place / "boots").write_text(str(boots(place) + 1))
            if time.monotonic() - began < 1:
                log.write(b"machine: QEMU ended at once\n")
                return


def turn_page(place: Path) -> None:
    """Put the console of the last boot away, so that nobody takes it for that of the next one."""
    console = place / "console.log"
    if console.exists():
        with open(place / "consoles.log", "ab") as whole:
            whole.write(console.read_bytes())
        console.unlink()


def boots(place: Path) -> int:
    """How many boots of the machine are over."""
    try:
        return int((place / "boots").read_text())
    except FileNotFoundError:
        return 0


def on(place: Path) -> None:
    if pid_of(place, "supervisor.pid"):
        return
    with contextlib.suppress(FileNotFoundError):
        (place / "off").unlink()
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.nice(5)
        try:
            supervise(place)
        finally:
            os._exit(0)
    while not pid_of(place, "supervisor.pid"):
        time.sleep(0.05)


def cut(place: Path) -> int | None:
    """End QEMU at once, and return its process."""
    pid = pid_of(place, "qemu.pid")
    # A number that was left behind may be somebody else's by now.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if pid and f"file={place}/disk.qcow2".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    return pid


def cycle(place: Path) -> None:
    """Cut the power for a moment, and return when it is back."""
    pid = cut(place)
    while pid and pid_of(place, "supervisor.pid") and pid_of(place, "qemu.pid") in (None, pid):
        time.sleep(0.05)


def off(place: Path) -> None:
    (place / "off").touch()
    while pid_of(place, "supervisor.pid"):
        cut(place)
        time.sleep(0.1)


def wait(place: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    console = place / "console.log"
    while time.monotonic() < end:
        if console.exists() and READY in console.read_text(errors="replace"):
            return
        if not pid_of(place, "supervisor.pid"):
            sys.exit(f"machine: {place} is off; see {place}/qemu.log")
        time.sleep(0.3)
    tail = "\n".join(console.read_text(errors="replace").splitlines()[-15:]) if console.exists() else ""
    sys.exit(f"machine: {place} is not up after {seconds:.0f} s\n{tail}")


def create(place: Path, image: Path, port: int, firmware: str, regions: list[str]) -> None:
    place.mkdir(parents=True)
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.resolve() / "disk.raw")]
    subprocess.run([*words, str(place / "disk.qcow2")], check=True)
    if firmware == "uefi":
        shutil.copy("/usr/share/OVMF/OVMF_VARS.fd", place / "firmware.fd")
    config = {"port": port, "firmware": firmware, "regions": regions}
    (place / "machine.json").write_text(json.dumps(config) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["create", "on", "off", "cycle", "wait", "status", "destroy"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--firmware", choices=["bios", "uefi"], default="bios")
    parser.add_argument("--region", action="append", default=[])
    parser.add_argument("--timeout", type=float, default=300)
    args = parser.parse_args()
    place = args.directory.absolute()
    if args.what == "create":
        create(place, args.image, args.port, args.firmware, args.region)
    elif args.what == "on":
        on(place)
    elif args.what == "off":
        off(place)
    elif args.what == "cycle":
        cycle(place)
    elif args.what == "wait":
        wait(place, args.timeout)
    elif args.what == "status":
        print("on" if pid_of(place, "supervisor.pid") else "off")
    elif place.exists():
        off(place)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
