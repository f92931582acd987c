# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command of the lab. It works on the lab in $ACRN_LAB (default /run/acrn-lab), which lab.json there describes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import labstate
from labstate import HERE, Lab, LabError, Vm

_PYTHON = [sys.executable, "-B"]
_MARK = re.compile(r"acrn-lab: (boot|ready|stopped)\b")


def spawn(lab: Lab, command: list[str], log: Path, cwd: str | None = None) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one and holds none of its files."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {**os.environ, "ACRN_LAB": str(lab.root), "PATH": f"{HERE}{os.pathsep}{os.environ.get('PATH', '')}"}
    with open(log, "wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            cwd=cwd,
        )


def await_start(lab: Lab, name: str, process: subprocess.Popen[bytes], log: Path, timeout: float = 120) -> None:
    """Return when `name` runs; LabError with its log if the process ends first or nothing happens in time."""
    deadline = time.monotonic() + timeout
    while True:
        state = lab.runs(name)
        if state and ("qemu" in state or "regions" in state):
            return
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            ended = f"ended with {code}"
            if code is None:
                ended = f"did not start its VM in {timeout:.0f} s"
                os.killpg(process.pid, signal.SIGKILL)
            text = log.read_text(encoding="utf-8", errors="replace").strip()
            raise LabError(f"{name}: {shlex.join(process.args)} {ended}:\n{text}")  # type: ignore[arg-type]
        time.sleep(0.1)


def mark(lab: Lab, name: str) -> str:
    """How far a guest is: the last of the marks on its console ("boot", "ready", "stopped"), or "off"."""
    if not lab.runs(name):
        return "off"
    marks = _MARK.findall(lab.console(name).read_text(encoding="utf-8", errors="replace"))
    return str(marks[-1]) if marks else "boot"


def ssh_answers(port: int) -> bool:
    """Whether sshd itself greets: the port alone is QEMU's and always open."""
    try:
        # On a busy machine a guest takes long to greet, and who leaves early only keeps it busy.
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.settimeout(60)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_ready(lab: Lab, vm: Vm, timeout: float) -> float:
    """Wait until a guest can be logged in to; the seconds it took. LabError with the console's end if not."""
    begun = time.monotonic()
    while True:
        state = mark(lab, vm.name)
        if state == "ready" and ssh_answers(vm.ssh_port):
            return time.monotonic() - begun
        if state == "off" or time.monotonic() - begun > timeout:
            why = "is not running" if state == "off" else f"is not ready after {timeout:.0f} s ({state})"
            raise LabError(f"{vm.name} {why}{_tail(lab.console(vm.name))}")
        time.sleep(0.3)


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    return "".join(f"\n  | {line}" for line in lines)


def ssh_config(lab: Lab) -> str:
    """An ssh_config(5) for all guests of the lab, by name or as 127.0.0.1 with a port."""
    config = lab.config()
    image = lab.image(config)
    lines = [f"Host {vm.name}\n    Port {vm.ssh_port}\n" for vm in config.vms.values()]
    common = [
        "Host *",
        "HostName 127.0.0.1",
        "User root",
        f'IdentityFile "{image / "id_ed25519"}"',
        "IdentitiesOnly yes",
        f'UserKnownHostsFile "{image / "known_hosts"}"',
        "HostKeyAlias acrn-lab-guest",
        "StrictHostKeyChecking yes",
        "LogLevel ERROR",
    ]
    return "\n".join([*lines, "\n    ".join(common)]) + "\n"


def inventory(lab: Lab) -> dict[str, object]:
    """An Ansible inventory of the guests.

    Address and port are variables, not left to ssh_config: Ansible shares one ssh connection between all that has the
    same host, port and user, and so two labs with a "vm1" each would talk to the same guest.
    """
    hosts = {
        vm.name: {
            "ansible_host": "127.0.0.1",
            "ansible_port": vm.ssh_port,
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": f"-F {shlex.quote(str(lab.root / 'ssh_config'))}",
        }
        for vm in lab.config().vms.values()
    }
    return {"all": {"hosts": hosts}}


def write_access(lab: Lab) -> None:
    labstate.write_file(lab.root / "ssh_config", ssh_config(lab))
    labstate.write_file(lab.root / "inventory.json", json.dumps(inventory(lab), indent=2) + "\n")


def stop(lab: Lab, names: list[str], how: signal.Signals, timeout: float) -> None:
    """Signal what runs of these and wait for their ends; what outlives the time is killed."""
    pids = {}
    for name in names:
        state = lab.runs(name)
        if state:
            pids[name] = int(state["pid"])
            os.kill(pids[name], how)
    deadline = time.monotonic() + timeout
    while any(lab.runs(name) for name in pids):
        if time.monotonic() > deadline:
            for name, pid in pids.items():
                if lab.runs(name):
                    os.kill(pid, signal.SIGKILL)  # QEMU goes with it
            deadline += 5
        time.sleep(0.1)


def running(lab: Lab) -> list[str]:
    """Names of all VMs of this lab that run, known to lab.json or not."""
    names = [path.stem for path in lab.run.glob("*.lock")] if lab.run.is_dir() else []
    return sorted(name for name in names if name not in ("hypervisor", "up") and lab.runs(name))


@contextlib.contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    """One "up", "reboot" or "down" at a time."""
    lab.prepare()
    for _attempt in range(600):
        held = lab.lock("up")
        if held is not None:
            break
        time.sleep(0.1)
    else:
        raise LabError("another lab command is busy")
    try:
        yield
    finally:
        os.close(held)


def up(lab: Lab) -> None:
    """The hypervisor with the regions of lab.json, and the pre-launched VMs. What runs is left alone."""
    config = lab.config()
    write_access(lab)
    if not lab.runs("hypervisor"):
        log = lab.root / "hypervisor.log"
        server = spawn(lab, [*_PYTHON, str(HERE / "ivshmem_server.py")], log)
        await_start(lab, "hypervisor", server, log)
    for vm in config.vms.values():
        if vm.prelaunched and not lab.runs(vm.name):
            log = lab.guest(vm.name) / "launch.log"
            guest = spawn(lab, [*_PYTHON, str(HERE / "acrn_dm.py"), "--lab-prelaunched", vm.name], log)
            await_start(lab, vm.name, guest, log)


def down(lab: Lab, how: signal.Signals, disks: bool) -> None:
    """End all that runs, and remove the shared memory; the guests' disks too if `disks`."""
    timeout = 10.0
    if how == signal.SIGTERM:
        timeout += lab.config().stop_timeout
    stop(lab, running(lab), how, timeout)
    stop(lab, ["hypervisor"], signal.SIGTERM, 5)
    for path in lab.dm_files():
        path.unlink()
    for record in (lab.run / "dm").iterdir():
        record.unlink()
    if disks:
        for disk in (lab.root / "guests").glob("*/disk.qcow2"):
            disk.unlink()


def start(lab: Lab, vm: Vm, command: list[str], cwd: str | None = None) -> None:
    """Run a launch script (any command that ends up in acrn-dm) in the background until its VM runs."""
    if lab.runs(vm.name):
        raise LabError(f"{vm.name} runs already")
    log = lab.guest(vm.name) / "launch.log"
    await_start(lab, vm.name, spawn(lab, command, log, cwd), log)


def status(lab: Lab) -> dict[str, object]:
    config = lab.config()
    vms = {
        vm.name: {"id": vm.id, "ssh_port": vm.ssh_port, "state": mark(lab, vm.name), "prelaunched": vm.prelaunched}
        for vm in config.vms.values()
    }
    return {
        "lab": str(lab.root),
        "hypervisor": "running" if lab.runs("hypervisor") else "off",
        "hv_regions": [region.to_json() for region in lab.hv_regions()],
        "dm_files": [str(path) for path in lab.dm_files()],
        "vms": vms,
    }


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, vm: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if vm:
            sub.add_argument("vm", metavar="NAME", nargs=vm if vm != "1" else None)
        return sub

    add("up", 'start the "hypervisor" (the hv regions of lab.json) and the pre-launched VMs')
    add("reboot", "as a reboot of the host: power off all, then up; only now does a changed lab.json count")
    sub = add("down", "end all, leave no process, port, socket, shared memory or disk")
    sub.add_argument("--keep-disks", action="store_true")
    add("status", "what runs, as JSON")
    sub = add("start", "run a launch script in the background: lab start NAME -- SCRIPT [ARG...]", "1")
    sub.add_argument("script", nargs=argparse.REMAINDER, metavar="-- SCRIPT")
    sub = add("wait", "until guests can be logged in to (default: all that run)", "*")
    sub.add_argument("--timeout", type=float, default=300, help="seconds (default: 300)")
    add("stop", "press the power button of guests", "+")
    sub = add("powercycle", "pull the plug of a guest and start it again with the same acrn-dm arguments", "1")
    add("access", "write ssh_config and inventory.json (up does it too): how ssh and Ansible reach the guests")
    sub = add("ssh", "log in to a guest, or run a command there", "1")
    sub.add_argument("remote", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def main(argv: list[str]) -> int:
    options = arguments_parser().parse_args(argv)
    lab = Lab()
    config = lab.config() if options.command != "down" else None

    def vm(name: str) -> Vm:
        assert config is not None
        if name not in config.vms:
            raise LabError(f"lab.json has no VM {name} (it has {', '.join(config.vms)})")
        return config.vms[name]

    command = options.command
    if command == "up":
        with _alone(lab):
            up(lab)
    elif command == "reboot":
        with _alone(lab):
            down(lab, signal.SIGTERM, disks=False)
            up(lab)
    elif command == "down":
        if lab.root.is_dir():
            with _alone(lab):
                down(lab, signal.SIGQUIT, disks=not options.keep_disks)
            shutil.rmtree(lab.run)
    elif command == "status":
        print(json.dumps(status(lab), indent=2))
    elif command == "start":
        script = options.script[1:] if options.script[:1] == ["--"] else options.script
        start(lab, vm(options.vm), script)
    elif command == "wait":
        for name in options.vm or running(lab):
            print(f"{name}: ready after {wait_ready(lab, vm(name), options.timeout):.1f} s")
    elif command == "stop":
        assert config is not None
        stop(lab, [vm(name).name for name in options.vm], signal.SIGTERM, config.stop_timeout + 10)
    elif command == "powercycle":
        state = lab.runs(vm(options.vm).name)
        if not state:
            raise LabError(f"{options.vm} is not running")
        stop(lab, [options.vm], signal.SIGQUIT, 10)
        start(lab, vm(options.vm), [*_PYTHON, str(HERE / "acrn_dm.py"), *state["argv"]], state["cwd"])
    elif command == "access":
        lab.prepare()
        write_access(lab)
    elif command == "ssh":
        write_access(lab)
        os.execvp("ssh", ["ssh", "-F", str(lab.root / "ssh_config"), vm(options.vm).name, *options.remote])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as exc:
        sys.exit(f"lab: {exc}")
    except KeyboardInterrupt:
        sys.exit(130)
