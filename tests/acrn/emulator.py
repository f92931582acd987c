# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator: Bochs with ACRN's console on a pseudo terminal. No port is opened."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import board

# IA32_MISC_ENABLE with fast strings, which ACRN asks for (arch/x86/cpu_caps.c) and Bochs has not.
MSRS = "0x1a0 0 00000000 00000001 00000000 00000000 00000000 00000000\n"

CONFIG = """\
config_interface: textconfig
display_library: term
cpu: model=tigerlake, count={cpus}, ips=10000000, ignore_bad_msrs=1, msrs="msrs.def"
memory: guest={megabytes}, host={host}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
pci: enabled=1, chipset=i440fx
clock: sync=none, time0=utc
boot: {boot}
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: {drive}
com1: enabled=1, mode=term, dev={terminal}
sound: driver=dummy
speaker: enabled=0
log: bochs.log
panic: action=report
error: action=report
info: action=ignore
debug: action=ignore
"""


# A disc that is only read, or a disk whose size is a whole number of cylinders.
HEADS, SECTORS = 16, 63
CYLINDER = HEADS * SECTORS * 512


def drive(image: Path) -> dict[str, str]:
    """What CONFIG says of the image that is booted."""
    if image.suffix == ".iso":
        return {"boot": "cdrom", "drive": f'type=cdrom, path="{image}", status=inserted'}
    cylinders = image.stat().st_size // CYLINDER
    shape = f"cylinders={cylinders}, heads={HEADS}, spt={SECTORS}, translation=lba"
    return {"boot": "disk", "drive": f'type=disk, path="{image}", mode=flat, {shape}'}


class EmulatorError(Exception):
    """The emulator ended, or its time was over, before what was waited for had come; the message has the last lines."""


@dataclass
class Line:
    """A line of the console, with wall and CPU seconds since the start."""

    wall: float
    cpu: float
    text: str

    def __str__(self) -> str:
        return f"{self.wall:8.2f} {self.cpu:8.2f} {self.text}"


@dataclass
class Emulator:
    """A machine that boots an image. Use it as a context manager: leaving it ends the emulator."""

    directory: Path
    image: Path
    machine: board.Machine
    # Gets each line of the console as it comes.
    shown: Callable[[str], None] | None = None
    # What the console says before a reboot, where the machine may do that.
    reboots: str = ""
    lines: list[Line] = field(default_factory=list)
    _pending: bytes = field(default=b"", init=False)

    def __enter__(self) -> Emulator:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        # Bochs marks the image of a disk that it has open by a lock file, and ends when it finds one of an ended run.
        for left in (*self.directory.glob("*.lock"), Path(f"{self.image}.lock")):
            left.unlink(missing_ok=True)
        text = CONFIG.format(
            cpus=self.machine.cpus,
            megabytes=self.machine.memory // board.MB,
            host=min(1024, self.machine.memory // board.MB),
            **drive(self.image),
            terminal=os.ttyname(slave),
        )
        (self.directory / "bochsrc").write_text(text)
        (self.directory / "msrs.def").write_text(MSRS)
        # Debian's Bochs is the debugger: it waits for a command, and wants a terminal.
        (self.directory / "go").write_text("c\n")
        self._slave = slave
        self._start = time.monotonic()
        self._screen: int | None = None
        self.text = ""
        self._log = open(self.directory / "serial.log", "w", encoding="utf-8")  # closed in __exit__
        self._spent = self._last = 0.0
        self._power_on()
        return self

    def _power_on(self) -> None:
        # A test that is killed ends nothing itself: who waits for it shall not find two emulators the next time.
        mortal = ["setpriv", "--pdeathsig", "KILL"]
        command = [*mortal, "script", "-qfc", f"exec {shlex.join(mortal)} bochs -q -f bochsrc -rc go", "terminal.log"]
        self._process = subprocess.Popen(
            command,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "LC_ALL": "C"},
        )

    def _ended(self) -> bool:
        """Whether the machine is off. After a reboot it is switched on again: Bochs' BIOS takes no other reset."""
        if self._process.poll() is None:
            return False
        if not (self.reboots and re.search(self.reboots, self.text)):
            return True
        self.text = ""
        self._spent = self._last
        if self._screen is not None:
            os.close(self._screen)
            self._screen = None
        for left in ("bochs.log", "terminal.log"):
            (self.directory / left).rename(self.directory / f"{left}.before")
        Path(f"{self.image}.lock").unlink(missing_ok=True)
        self._power_on()
        return False

    def __exit__(self, *unused: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        for descriptor in (self._master, self._slave, self._screen):
            if descriptor is not None:
                os.close(descriptor)

    def _drained(self) -> list[int]:
        """What is to be read: the console, and the screen, whose terminal stops Bochs when nobody reads it."""
        if self._screen is None:
            with contextlib.suppress(OSError):
                said = (self.directory / "terminal.log").read_text(errors="replace")
                found = re.search(r'connected to screen "(/dev/pts/\d+)"', said)
                if found:
                    self._screen = os.open(found.group(1), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
                    tty.setraw(self._screen)
        return [self._master] if self._screen is None else [self._master, self._screen]

    def cpu(self) -> float:
        """CPU seconds of the emulator."""
        ticks = 0
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                    # script runs the emulator as its child, in a session of its own.
                    if int(fields[1]) == self._process.pid:
                        ticks += int(fields[11]) + int(fields[12])
        self._last = max(self._last, self._spent + ticks / os.sysconf("SC_CLK_TCK"))
        return self._last

    def _take(self, data: bytes) -> None:
        self.text += data.decode("utf-8", "replace")
        self._pending += data
        *lines, self._pending = self._pending.split(b"\n")
        if lines:
            wall, cpu = time.monotonic() - self._start, self.cpu()
            for raw in lines:
                line = Line(wall, cpu, raw.decode("utf-8", "replace").rstrip())
                self.lines.append(line)
                self._log.write(f"{line}\n")
                if self.shown:
                    self.shown(line.text)
            self._log.flush()

    def wait(self, pattern: str, seconds: float, *, stop: str | None = None) -> re.Match[str]:
        """Return the first match of ``pattern`` in what the console says from now on, and forget all up to its end.

        Raises EmulatorError after ``seconds`` of CPU time of the emulator, when it ends, and when ``stop`` comes first.
        """
        limit = self.cpu() + seconds
        # The machine may be busy with others; the wall clock only bounds what hangs without spending CPU time.
        end = time.monotonic() + 10 * seconds + 60
        while True:
            found = re.search(pattern, self.text, re.M)
            if found:
                self.text = self.text[found.end() :]
                return found
            if stop and re.search(stop, self.text, re.M):
                raise EmulatorError(self.told(f"{stop!r} came before {pattern!r}"))
            if self._ended():
                raise EmulatorError(self.told(f"the emulator ended before {pattern!r} came"))
            if self.cpu() > limit or time.monotonic() > end:
                raise EmulatorError(self.told(f"{pattern!r} did not come in {seconds:.0f} s of CPU time"))
            self._listen()

    def until(self, ended: Callable[[], bool], seconds: float) -> None:
        """Read the console until something outside of the machine has ended. Raises EmulatorError."""
        limit = self.cpu() + seconds
        while not ended():
            if self._ended():
                raise EmulatorError(self.told("the emulator ended"))
            if self.cpu() > limit:
                raise EmulatorError(self.told(f"{seconds:.0f} s of CPU time are over"))
            self._listen()

    def _listen(self) -> None:
        """Take what the console says within half a second."""
        for ready in select.select(self._drained(), [], [], 0.5)[0]:
            with contextlib.suppress(BlockingIOError):
                data = os.read(ready, 65536)
                if ready == self._master:
                    self._take(data)

    def type(self, text: str) -> None:
        """Type on the console, slowly: the hypervisor looks at it every 40 ms of its own time."""
        for character in text.encode():
            os.write(self._master, bytes([character]))
            time.sleep(0.05)

    def told(self, why: str, count: int = 40) -> str:
        """A message with the last lines of the console, and what has come of the next."""
        begun = self._pending.decode("utf-8", "replace").strip()
        lines = [*self.lines, f"and a line that has not ended: {begun}"] if begun else self.lines
        last = "\n".join(f"  {line}" for line in lines[-count:])
        return f"{why}; the console's last lines (wall s, CPU s), all of them in {self.directory}/serial.log:\n{last}"


def missing() -> str:
    """Debian packages that are not there, as words of a command line; empty where nothing is missing."""
    needs: dict[str, Callable[[], bool]] = {
        "bochs": lambda: shutil.which("bochs") is not None,
        "bochsbios": lambda: Path("/usr/share/bochs/BIOS-bochs-latest").exists(),
        "vgabios": lambda: Path("/usr/share/bochs/VGABIOS-lgpl-latest").exists(),
        "bochs-term": lambda: bool(list(Path("/usr/lib").glob("**/bochs/plugins/libbx_term_gui.so*"))),
    }
    return " ".join(name for name, there in needs.items() if not there())
