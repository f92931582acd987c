# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for ACRN's device model (acrn-dm), for the lab: same command line, same words, QEMU instead of ACRN.

It reads the arguments as acrn-dm does (acrn_args.py), refuses what acrn-dm refuses, and then runs a QEMU guest with the
same devices at the same slots. Real are the guest's Linux, its PCI functions 1af4:1110, drivers, bytes and interrupts.
What stands in: ACRN itself. Disk, kernel, network and memory size are the lab's, whatever the command line says; a line
on stderr that begins with "acrn-dm (lab stand-in):" tells where the lab differs. See README.md for the whole list.

acrn-dm's log goes to stdout, as acrn-dm's does. SIGTERM, SIGINT and SIGHUP press the guest's power button and, if it is
still there after `stop_timeout` seconds or a second signal comes, end it. SIGQUIT ends it at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import acrn_args
import labstate
import subsystem
from acrn_args import ERROR, INFO, MB, NOTICE, WARNING, Arguments, Function, Ivshmem, Refused
from labstate import Config, HvRegion, Lab, LabError, Vm

# What a device of acrn-dm becomes in QEMU; the rest is left out. Slots keep their meaning either way.
_EQUIVALENT = {
    "ahci": "ich9-ahci",
    "ahci-cd": "ich9-ahci",
    "ahci-hd": "ich9-ahci",
    "virtio-console": "virtio-serial-pci",
    "virtio-input": "virtio-keyboard-pci",
    "virtio-rnd": "virtio-rng-pci",
    "wdt-i6300esb": "i6300esb",
    "xhci": "qemu-xhci",
}
# QEMU's machine brings these itself (at 00:00.0 and 00:1f.0).
_OWN = ("amd_hostbridge", "hostbridge", "igd-lpc", "lpc")
# no_timer_check: on a busy host the kernel may take a late timer for a broken one and panic; then it boots again.
_KERNEL_ARGUMENTS = (
    "console=ttyS0 loglevel=4 panic=1 no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 mitigations=off"
    " audit=0 apparmor=0 selinux=0 intel_iommu=on net.ifnames=0"
)
_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_PR_SET_PDEATHSIG = 1


def note(text: str) -> None:
    """Say where the lab is not like ACRN."""
    print(f"acrn-dm (lab stand-in): {text}", file=sys.stderr, flush=True)


class Console:
    """acrn-dm's log: stdout, levels up to 4 unless --logger_setting says otherwise."""

    def __init__(self) -> None:
        self.level = INFO

    def __call__(self, level: int, text: str) -> None:
        if level <= self.level:
            print(text, flush=True)


def create_dm(lab: Lab, device: Ivshmem, log: acrn_args.Log) -> bool:
    """The file of a dm-land region (hw/pci/ivshmem.c create_ivshmem_from_dm); False after acrn-dm's words.

    Made by the first VM with mode 0600 and never removed by acrn-dm; a file that is there must have the same size.
    """
    path = labstate.SHM / device.name
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    created = False
    try:
        if "/" in device.name or device.name in ("", ".", ".."):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as shm_open(3)
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            created = True
        except FileExistsError:
            descriptor = os.open(path, flags)
    except OSError as exc:
        log(WARNING, f"failed to get {device.name} status, error {exc.strerror}")
        return False
    try:
        if created:
            # The lab remembers the file: "lab down" and "lab reboot" remove it, as a reboot of the Service VM would.
            (lab.run / "dm" / device.name).touch()
            try:
                os.ftruncate(descriptor, device.size)
            except OSError:
                log(WARNING, f"can't resize the shm size {device.size}")
                return False
        current = os.fstat(descriptor).st_size
        if current != device.size:
            log(WARNING, f"shm size is different, cur {device.size}, creator {current}")
            return False
    finally:
        os.close(descriptor)
    return True


def create_hv(regions: list[HvRegion], vm: Vm | None, device: Ivshmem, used: list[str], log: acrn_args.Log) -> bool:
    """Whether the running hypervisor gives this VM this region (hypervisor/dm/vpci/ivshmem.c create_ivshmem_vdev)."""
    for region in regions:
        fits = region.name == device.name and region.size * MB == device.size
        if fits and vm and vm.id in region.members and region.name not in used:
            used.append(region.name)
            return True
    log(ERROR, "ACRN_IOCTL_CREATE_VDEV ioctl() returned an error: Invalid argument")
    if vm is None:
        reason = "the scenario has no VM of this name"
    elif device.name not in [region.name for region in regions]:
        has = ", ".join(region.name for region in regions) or "none"
        reason = f"the running build has no region {device.name} (it has {has})"
    elif device.name in used:
        reason = f"this VM has hv:/{device.name} already"
    else:
        reason = f"hv:/{device.name} has another size in the running build, or VM {vm.id} is not one of its VMs"
    note(reason)
    return False


def init_devices(
    lab: Lab, version: tuple[int, int], vm: Vm | None, functions: list[Function], log: acrn_args.Log
) -> dict[Function, Ivshmem]:
    """Set up the devices in acrn-dm's order (hw/pci/core.c init_pci). Refused(1) if one cannot be had."""
    shared: dict[Function, Ivshmem] = {}
    used: list[str] = []
    regions = lab.hv_regions()
    for function in sorted(functions, key=lambda f: (f.device != "passthru", f.bus, f.slot, f.func)):
        log(NOTICE, f"pci init {function.device}\r")
        if function.device != "ivshmem":
            continue
        device = acrn_args.parse_ivshmem(function.options, version, log)
        if device is None or not (
            create_hv(regions, vm, device, used, log) if device.hv_land else create_dm(lab, device, log)
        ):
            log(ERROR, "pci ivshmem init failed")
            log(ERROR, "Unable to init vdev (22)")
            raise Refused(1)
        shared[function] = device
    return shared


def subsystem_ids(
    shared: dict[Function, Ivshmem], regions: list[HvRegion], version: tuple[int, int]
) -> dict[int, tuple[int, int]]:
    """PCI subsystem of each function, by slot << 3 | function. For hv-land the running build decides, not "-s"."""
    built = {region.name: region.region_id for region in regions}
    return {
        function.slot << 3 | function.func: (
            (0x8086, built[device.name] if device.hv_land else device.region_id) if version >= (3, 3) else (0, 0)
        )
        for function, device in shared.items()
    }


def _comma(text: object) -> str:
    """A value inside one of QEMU's option lists."""
    return str(text).replace(",", ",,")


def guest_hostname(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "guest"


def mac(vm_id: int, index: int) -> str:
    """The lab's card (index 0) has the prefix that the guest's lab-network looks for."""
    return f"52:54:00:a{'c' if index == 0 else 'd'}:{vm_id & 0xFF:02x}:{index:02x}"


def qemu_command(
    lab: Lab,
    config: Config,
    vm: Vm,
    image: Path,
    memory: int,
    functions: list[Function],
    shared: dict[Function, Ivshmem],
    tell: Callable[[str], None] = note,
) -> list[str]:
    """QEMU's command line for a guest (without the monitor). `tell` hears of what differs from acrn-dm's."""
    guest = lab.guest(vm.name)
    command = ["qemu-system-x86_64", "-name", _comma(f"acrn-lab-{vm.name}"), "-accel", "tcg,thread=multi"]
    # q35 with its IOMMU: without remapping of interrupts vfio in the guest would not hand out MSI-X.
    command += ["-M", "q35,sata=off,smbus=off", "-device", "intel-iommu,intremap=on"]
    command += ["-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-m", f"{memory // MB}M", "-smp", str(config.cpus)]
    command += ["-kernel", str(image / "kernel"), "-initrd", str(image / "initrd"), "-append"]
    command += [f"{_KERNEL_ARGUMENTS} systemd.hostname={guest_hostname(vm.name)} {config.append}".rstrip()]
    command += ["-chardev", f"file,id=console,append=on,path={_comma(lab.console(vm.name))}"]
    command += ["-serial", "chardev:console"]
    command += ["-drive", f"if=none,id=disk,format=qcow2,cache=unsafe,file={_comma(guest / 'disk.qcow2')}"]
    command += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{vm.ssh_port}-:22"]
    command += ["-object", "rng-random,id=random,filename=/dev/urandom"]

    devices: dict[Function, str] = {}
    disks = cards = regions = 0
    for function in functions:
        name = function.device
        options = ""
        if name in _OWN:
            continue
        if name == "ivshmem":
            region = shared[function]
            if function.bus or function.slot in (0, 31):
                raise LabError(f"the lab's guests have slots 1 to 30 of bus 0, not {function.bdf}")
            if region.hv_land:
                path = _comma(lab.socket(region.name, vm.id))
                command += ["-chardev", f"socket,id=region{regions},path={path}"]
                options = f"ivshmem-doorbell,chardev=region{regions},vectors={labstate.VECTORS}"
            else:
                path = _comma(labstate.SHM / region.name)
                memory_file = f"memory-backend-file,id=region{regions},share=on,size={region.size},mem-path={path}"
                command += ["-object", memory_file]
                options = f"ivshmem-plain,memdev=region{regions}"
            regions += 1
        elif function.bus or function.slot in (0, 31):
            tell(f"{name} at {function.bdf} is left out: the lab's guests have slots 1 to 30 of bus 0")
            continue
        elif name == "virtio-blk":
            if disks == 0:
                tell(f"the disk at {function.bdf} is the lab's, not {function.options}")
                options = "virtio-blk-pci,drive=disk"
            else:
                tell(f"the disk at {function.bdf} is 16 MB of nothing, not {function.options}")
                command += ["-drive", f"if=none,id=disk{disks},driver=null-co,size=16M,read-zeroes=on"]
                options = f"virtio-blk-pci,drive=disk{disks}"
            disks += 1
        elif name == "virtio-net":
            if cards:
                command += ["-netdev", f"user,id=net{cards},restrict=on"]
            options = f"virtio-net-pci,netdev=net{cards or ''},mac={mac(vm.id, cards)},romfile="
            cards += 1
        elif name == "virtio-rnd":
            options = "virtio-rng-pci,rng=random"
        elif name in _EQUIVALENT:
            options = _EQUIVALENT[name]
        else:
            tell(f"{name} at {function.bdf} is left out")
            continue
        devices[function] = options

    taken = {function.slot for function in functions if function.bus == 0}
    free = iter([slot for slot in range(30, 0, -1) if slot not in taken])
    if disks == 0:
        devices[Function(0, next(free), 0, "virtio-blk", None)] = "virtio-blk-pci,drive=disk"
    if cards == 0:
        devices[Function(0, next(free), 0, "virtio-net", None)] = (
            f"virtio-net-pci,netdev=net,mac={mac(vm.id, 0)},romfile="
        )
    several = {function.slot for function in devices if function.func}
    for function, options in devices.items():
        # QEMU reads addr= as hexadecimal, acrn-dm's slots are decimal.
        address = f"addr={function.slot:#x}.{function.func}"
        multi = ",multifunction=on" if function.slot in several and function.func == 0 else ""
        command += ["-device", f"{options},{address}{multi}"]
    return command


def _child() -> None:
    """In QEMU's process before it starts: die with the stand-in, and let no signal stay blocked."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


class Monitor:
    """QEMU's machine protocol over a socket pair, so that no path and no port is needed."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.heard = b""
        self.say("qmp_capabilities")
        self.say("query-status")  # answered when all devices are there

    def say(self, command: str) -> None:
        with contextlib.suppress(OSError):  # if QEMU is gone the caller sees that by itself
            self.ours.sendall(json.dumps({"execute": command}).encode())

    def hear(self, text: bytes) -> bool:
        """Whether QEMU has said this so far."""
        try:
            while True:
                got = self.ours.recv(65536)
                self.heard = self.heard[-65536:] + got
                if not got:
                    break
        except OSError:
            pass
        return text in self.heard


def run_qemu(command: list[str], stop_timeout: int, started: Callable[[int], None]) -> int | None:
    """Run QEMU in the foreground until the guest powers off or a signal ends it: acrn-dm's exit code. None: it reboots.

    The signals of _STOP and SIGCHLD must be blocked; `started` hears QEMU's process ID when QEMU has set all up and the
    guest has not begun.
    """
    monitor = Monitor()
    descriptor = monitor.theirs.fileno()
    command = [*command, "-S", "-chardev", f"socket,id=monitor,fd={descriptor}"]
    command += ["-mon", "chardev=monitor,mode=control"]
    # A session of its own: Ctrl-C is for the stand-in, which then asks the guest.
    qemu = subprocess.Popen(
        command, pass_fds=[descriptor], preexec_fn=_child, start_new_session=True, stdin=subprocess.DEVNULL
    )
    monitor.theirs.close()
    greeted = False
    deadline: float | None = None
    while qemu.poll() is None:
        wait = 0.1 if not greeted else 2.0 if deadline else 60.0
        got = signal.sigtimedwait(_STOP | {signal.SIGCHLD}, wait)
        if not greeted and monitor.hear(b'"prelaunch"'):
            greeted = True
            started(qemu.pid)
            monitor.say("cont")
        if got is None:
            if deadline and time.monotonic() > deadline + 10:
                qemu.kill()
            elif deadline and time.monotonic() > deadline:
                note("the guest does not power off; ending it")
                monitor.say("quit")
            elif deadline:
                monitor.say("system_powerdown")  # a guest that was still booting has not heard the first one
        elif got.si_signo != signal.SIGCHLD:
            monitor.say("quit" if got.si_signo == signal.SIGQUIT or deadline else "system_powerdown")
            deadline = deadline or time.monotonic() + stop_timeout
    reset = monitor.hear(b'"reason": "guest-reset"')
    monitor.ours.close()
    if qemu.returncode:
        note(f"QEMU ended with {qemu.returncode}")
        return 1
    return None if reset else 0


def supervise(command: list[str], stop_timeout: int, started: Callable[[int], None]) -> int:
    """Run a guest over its reboots.

    A reboot starts QEMU anew: under TCG a reset in the same process boots at half the speed, for QEMU then watches
    every write to memory that once held translated code.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP | {signal.SIGCHLD})
    code = None
    while code is None:
        code = run_qemu([*command, "-no-reboot"], stop_timeout, started)
    return code


def find_vm(config: Config, arguments: Arguments) -> Vm | None:
    """The VM of the scenario: by UUID before v2.7, by name from then on."""
    if config.version < (2, 7) and arguments.uuid:
        return next((vm for vm in config.vms.values() if vm.uuid and vm.uuid.lower() == arguments.uuid.lower()), None)
    return config.vms.get(arguments.vm)


def launch(lab: Lab, config: Config, vm: Vm | None, arguments: Arguments, log: acrn_args.Log, argv: list[str]) -> int:
    """From vm_create on (core/main.c main)."""
    lab.prepare()
    log(NOTICE, f"vm_create: {arguments.vm}")
    if vm is None:
        # ACRN would start a VM that no region belongs to; the lab has no address for it.
        log(NOTICE, "vm_init_vdevs")
        init_devices(lab, config.version, vm, arguments.functions, log)
        raise LabError(f"lab.json has no VM {arguments.vm}")
    for _attempt in range(10):
        held = lab.lock(vm.name)
        if held is not None:
            break
        time.sleep(0.5)
    else:
        log(ERROR, f"failed to create VM {arguments.vm}, Invalid argument.")
        log(ERROR, "vm_create failed")
        note("it runs already")
        return 1
    state = {"argv": argv, "cwd": os.getcwd(), "pid": os.getpid(), "ssh_port": vm.ssh_port}
    record = lab.run / f"{vm.name}.json"

    ids: dict[int, tuple[int, int]] = {}

    def started(qemu: int) -> None:
        for number in subsystem.write(qemu, ids):
            note(f"00:{number >> 3:02x}.{number & 7} keeps QEMU's subsystem 1af4:1100: this QEMU is not as expected")
        labstate.write_file(record, json.dumps({**state, "qemu": qemu}) + "\n")

    labstate.write_file(record, json.dumps(state) + "\n")
    try:
        log(NOTICE, f"vm_setup_memory: size={arguments.memory:#x}")
        log(NOTICE, "vm_init_vdevs")
        shared = init_devices(lab, config.version, vm, arguments.functions, log)
        ids.update(subsystem_ids(shared, lab.hv_regions(), config.version))
        memory = min(arguments.memory, config.memory * MB)
        if memory < arguments.memory:
            note(f"{memory // MB} MB of memory, not {arguments.memory // MB}")
        for option, value in arguments.others:
            if option in ("-k", "-r", "-B", "-E", "--ovmf", "--windows", "--enable_trusty"):
                note(f"{option} {value}".rstrip() + " has no effect: the lab's guests boot the lab's Linux")
        image = lab.image(config)
        disk = lab.guest(vm.name) / "disk.qcow2"
        disk.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not disk.exists():
            create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image / "disk.raw"), str(disk)]
            subprocess.run(create, check=True)
        lab.console(vm.name).write_bytes(b"")
        command = qemu_command(lab, config, vm, image, memory, arguments.functions, shared)
        return supervise(command, config.stop_timeout, started)
    finally:
        record.unlink()


def prelaunched_arguments(vm: Vm, regions: list[HvRegion]) -> Arguments:
    """A pre-launched VM gets its devices from the hypervisor, at the addresses that the scenario says."""
    arguments = Arguments(vm=vm.name)
    for region in regions:
        if vm.id not in region.members:
            continue
        match = re.fullmatch(r"00:([01]?[0-9a-f])\.([0-7])", region.members[vm.id] or "")
        if not match:
            raise LabError(f"hv_regions: {region.name} needs a vbdf such as 00:06.0 for the pre-launched VM {vm.name}")
        options = f"hv:/{region.name},{region.size}"
        arguments.functions.append(Function(0, int(match[1], 16), int(match[2]), "ivshmem", options))
    arguments.memory = 512 * MB
    return arguments


def main(argv: list[str]) -> int:
    log = Console()
    try:
        lab = Lab()
        config = lab.config()
        if argv[:1] == ["--lab-prelaunched"]:
            vm: Vm | None = config.vms[argv[1]]
            assert vm is not None
            return launch(lab, config, vm, prelaunched_arguments(vm, lab.hv_regions()), log, argv)
        arguments = acrn_args.parse_arguments(argv, config.version, log)
        log.level = arguments.log_level
        vm = find_vm(config, arguments)
        if vm and vm.prelaunched:
            log(ERROR, f"failed to create VM {arguments.vm}, Invalid argument.")
            log(ERROR, "vm_create failed")
            note("this is a pre-launched VM: the hypervisor starts it, not acrn-dm")
            return 1
        return launch(lab, config, vm, arguments, log, argv)
    except Refused as refused:
        if str(refused) == "version":
            print(f"DM: the lab's stand-in for acrn-dm {config.version[0]}.{config.version[1]}")
        elif str(refused):
            usage = "Usage: acrn-dm [-A] [-m mem] [-s pci] ... <vm> (the lab's stand-in)"
            print(usage if str(refused) == "usage" else f"acrn-dm: {refused}", file=sys.stderr)
        return refused.code
    except LabError as exc:
        note(str(exc))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
