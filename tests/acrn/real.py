# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a declaration to VMs that run: the collection edits, builds and writes the boot entry, the emulator boots it.

``ACRN_SRC`` is a clone of acrn-hypervisor with its tags, one unpacked tree, or a directory of such trees.
``ACRN_PYTHON`` is a Python with the packages that ACRN's tools need (default: the one of these tests), and
``ACRN_PYTHON_3_0`` the one for v3.0, and so on, where a release needs another.
``ACRN_DM`` is a binary of ACRN's device model; without it, one is built from the source.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import board
import devicemodel
import emulator
import frame
import image
import yaml

from ansible_collections.acrn.ivshmem.plugins.module_utils import _region
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _entries, _grub
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._artifact import IMAGE, Artifact
from ansible_collections.acrn.ivshmem.plugins.modules import guest_device, guest_probe, launch_state
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._light_action import bundle

Version = tuple[int, int]
ROOT = Path(__file__).absolute().parents[2]
CACHE = Path(os.environ.get("ACRN_IVSHMEM_CACHE") or Path.home() / ".cache/acrn-ivshmem-lab") / "acrn"
PYTHON = os.environ.get("ACRN_PYTHON", sys.executable)
# What a build of the hypervisor reads of a tree.
PARTS = ("LICENSE", "Makefile", "VERSION", "paths.make", "devicemodel", "hypervisor", "misc")

# The name by which GRUB finds the disc: the time that stands in it.
DISC_TIME = "2026010100000000"
DISC_UUID = "2026-01-01-00-00-00-00"


class RealError(Exception):
    """Something could not be set up; the message says what."""


# -- sources -----------------------------------------------------------------------------------------------------------


def _version_of(tree: Path) -> Version | None:
    try:
        numbers = dict(re.findall(r"^(MAJOR|MINOR)_VERSION=(\d+)", (tree / "VERSION").read_text(), re.M))
        return int(numbers["MAJOR"]), int(numbers["MINOR"])
    except (OSError, KeyError):
        return None


def source(version: Version) -> Path | None:
    """The tree of an ACRN version, taken out of the clone if it has to be; None where there is none."""
    given = os.environ.get("ACRN_SRC", "")
    if not given or not Path(given).is_dir():
        return None
    for tree in (Path(given), *sorted(Path(given).iterdir())):
        if tree.is_dir() and _version_of(tree) == version and (tree / "misc").is_dir():
            return tree
    tag = f"v{version[0]}.{version[1]}"
    kept = CACHE / "src" / tag
    if kept.is_dir():
        return kept
    asked = ["git", "-C", given, "archive", "--format=tar", tag, "--", *PARTS]
    done = subprocess.run(asked, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        return None
    fresh = kept.with_name(f".{tag}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as packed:
        packed.extractall(fresh)
    fresh.rename(kept)
    return kept


# -- the collection's part ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """One machine: its ACRN version, its VMs, and the regions as a user would declare them."""

    version: Version
    vms: Sequence[frame.Vm]
    regions: Sequence[Mapping[str, Any]]
    machine: board.Machine = field(default_factory=board.Machine)
    # ID of the VM whose console is shown.
    console: int = 0
    # What acrn-dm is asked to start first, by name: its arguments. It should refuse all of them.
    trials: Mapping[str, str] = field(default_factory=dict)
    # Whether the VMs that are launched are started in the end.
    start: bool = True
    # Declarations that the file had before: what it has now is a change of the last of them.
    before: Sequence[Sequence[Mapping[str, Any]]] = ()
    # What somebody changes in the file after that: texts and what stands in their place.
    by_hand: Mapping[str, str] = field(default_factory=dict)
    # What somebody changes in the launch scripts after the role has written them.
    scripts_by_hand: Mapping[str, str] = field(default_factory=dict)
    # Whether the collection knows the board when it judges the regions.
    judged: bool = True
    # How many address ranges of a VM the hypervisor emulates (MAX_EMULATED_MMIO).
    handlers: int = 16
    # Peers and vectors that the first VM of each region rings in the end, and that do not exist.
    stray: Sequence[tuple[int, int]] = ()

    @property
    def service(self) -> int | None:
        """The ID of the Service VM, if it has VMs to launch."""
        launched = any(vm.order == frame.POST for vm in self.vms)
        return next((number for number, vm in enumerate(self.vms) if launched and vm.order == frame.SERVICE), None)

    @property
    def given(self) -> int:
        """Bytes of RAM that pre-launched VMs have."""
        return sum(vm.memory for vm in self.vms if vm.order == frame.PRE)

    @property
    def vectors(self) -> int:
        """How many vectors a doorbell of the hypervisor has."""
        return 8 if self.version >= (2, 3) else 0

    @property
    def registers(self) -> int:
        """The size of BAR0."""
        return 256 if self.version >= (2, 4) else 4096

    @property
    def text(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True)
class Built:
    """What the collection made of it.

    The artefact's directory, the plan with its regions and VMs, launch scripts by their path in the Service VM, and
    what the role ``launch`` gives the module launch_state.
    """

    wanted: Wanted
    artifact: Path
    regions: Sequence[Mapping[str, Any]]
    plan: Mapping[str, Any]
    scripts: Sequence[Path] = ()
    state: Mapping[str, Any] | None = None


def launch_vms(wanted: Wanted) -> list[dict[str, Any]]:
    """``launch_vms`` of the role ``launch``: all VMs that are launched."""
    return [
        {
            "name": vm.name,
            "memory": vm.memory // board.MB,
            "cpu_affinity": list(vm.cpus),
            "kernel": "/guest/bzImage",
            "ramdisk": "/guest/initrd",
            "bootargs": vm.args,
            "console": "com1,stdio",
        }
        for vm in wanted.vms
        if vm.order == frame.POST
    ]


def _launch(wanted: Wanted, folder: Path) -> dict[str, Any]:
    """Variables of the role ``launch``. It writes here; the Service VM gets the files."""
    return {
        "launch_vms": launch_vms(wanted),
        "launch_plan": "{{ plan }}",
        "launch_dir": str(folder / "launch"),
        "launch_units": False,
        "launch_hypervisor_manifest": "{{ build.directory }}/manifest.json",
    }


def _tasks(wanted: Wanted, folder: Path, tree: Path) -> list[dict[str, Any]]:
    compiler = ["CC=gcc-11"] if wanted.version <= (3, 1) and shutil.which("gcc-11") else []
    if compiler and wanted.version == (2, 3):
        compiler = ["CC=gcc-11 -fcommon"]
    build = {
        "source": str(tree),
        "board": str(folder / "board.xml"),
        "scenario": str(folder / "scenario.xml"),
        "artifacts_dir": str(CACHE / "artefacts"),
        "work_dir": str(CACHE / "work"),
        "python": os.environ.get(f"ACRN_PYTHON_{wanted.version[0]}_{wanted.version[1]}", PYTHON),
        # Not that of the test's folder: the same machine is not built again by the next run.
        "name": "emulated",
        "make_args": compiler,
    }
    scenario = {"path": str(folder / "scenario.xml"), "acrn_version": wanted.text}
    if wanted.judged:
        scenario["board_path"] = str(folder / "board.xml")
    edits = [
        {
            "name": "Set the regions",
            "acrn.ivshmem.scenario_regions": {**scenario, "regions": [dict(region) for region in regions]},
            "register": "plan",
        }
        for regions in (*wanted.before, wanted.regions)
    ]
    for old, new in wanted.by_hand.items():
        change = {"path": str(folder / "scenario.xml"), "regexp": re.escape(old), "replace": new}
        edits.append({"name": "Change the file by hand", "ansible.builtin.replace": change})
    kept = {
        "dest": str(folder / "result.json"),
        "content": "{{ {'plan': plan, 'build': build, 'launch': __launch_wish | default(none)} | to_json }}",
        "mode": "0600",
    }
    # Public, so that what it compares a Service VM with can be kept.
    launch = {"name": "Launch", "ansible.builtin.include_role": {"name": "acrn.ivshmem.launch", "public": True}}
    return [
        *edits,
        {"name": "Build the hypervisor", "acrn.ivshmem.hypervisor_build": build, "register": "build"},
        *([] if wanted.service is None else [launch]),
        {"name": "Keep what was said", "ansible.builtin.copy": kept},
    ]


def made(wanted: Wanted, folder: Path) -> Built:
    """Edit the frame of a scenario and build the hypervisor, by the collection's own modules. Raises RealError."""
    tree = source(wanted.version)
    if tree is None:
        raise RealError(f"ACRN_SRC has no ACRN v{wanted.text}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board.xml").write_text(board.board_xml(wanted.machine, wanted.given, named=wanted.version >= (2, 6)))
    (folder / "scenario.xml").write_text(
        frame.scenario_xml(wanted.version, wanted.vms, wanted.machine, console=wanted.console, handlers=wanted.handlers)
    )
    play = {
        "name": "Make a machine",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable, **_launch(wanted, folder)},
        "tasks": _tasks(wanted, folder, tree),
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "play.yml"],
        cwd=folder,
        env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "0", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RealError(done.stdout)
    result = json.loads((folder / "result.json").read_text())
    artifact = Path(result["build"]["directory"])
    launch = result["launch"] or {}
    scripts = [Path(launch["paths"][vm.name]) for vm in wanted.vms if vm.name in launch.get("paths", {})]
    return Built(wanted, artifact, result["plan"]["regions"], result["plan"], scripts, launch.get("state"))


# -- the machine -------------------------------------------------------------------------------------------------------


def job(built: Built) -> dict[str, Any]:
    """What the guests are told: each region with its VMs, and where its function is to be found in each of them."""
    regions: list[dict[str, Any]] = []
    # Where ACRN's build chose the addresses, order alone tells regions of one size apart.
    order = _region.alike(built.regions)
    for region in built.regions:
        vms = {vm["id"]: vm for vm in region["vms"]}
        prefixed = _region.PREFIXES[region["provided_by"]] + region["name"]
        devices = {}
        for number, vm in vms.items():
            device = {"name": region["name"], "vbdf": vm["vbdf"], "size": region["size"]}
            device.update(order.get((prefixed, number), {}))
            if region.get("region_id"):
                device["region_id"] = region["region_id"]
            devices[str(number)] = device
        regions.append(
            {
                "name": region["name"],
                "vms": sorted(vms),
                "devices": devices,
                "doorbell": region["provided_by"] == "hypervisor" and built.wanted.vectors > 0,
            }
        )
    found = {"regions": regions, "patience": 3000, "console": built.wanted.console, "stray": built.wanted.stray}
    if built.scripts:
        found["launch"] = {
            "by": built.wanted.service,
            "scripts": [str(script) for script in built.scripts],
            "trials": dict(built.wanted.trials),
            "start": built.wanted.start,
            "memory": {each["name"]: each["size"] for each in built.regions if each["provided_by"] == "device_model"},
            "state": built.state,
        }
    return found


def service_files(built: Built) -> tuple[dict[str, bytes], list[str]]:
    """What a Service VM has more than its guests: acrn-dm, the launch scripts, the kernel; and which are programs."""
    if not built.scripts:
        return {}, []
    tree = source(built.wanted.version)
    if tree is None:
        raise RealError(f"ACRN_SRC has no ACRN v{built.wanted.text}")
    version = built.wanted.version
    files, programs = devicemodel.files(devicemodel.program(tree, version, CACHE), version)
    for script in built.scripts:
        name, text = str(script).lstrip("/"), script.read_text()
        for old, new in built.wanted.scripts_by_hand.items():
            text = text.replace(old, new)
        files[name] = text.encode()
        programs.append(name)
    # launch_state compares with it, as it would with the one in /boot/acrn.
    manifest = built.artifact / "manifest.json"
    files[str(manifest).lstrip("/")] = manifest.read_bytes()
    files["guest/bzImage"] = image.kernel(CACHE).read_bytes()
    return files, programs


def entry(built: Built) -> str:
    """The menu entry that hypervisor_install would write, for a host that is the disc."""
    artifact = Artifact.parse(
        (built.artifact / "manifest.json").read_text(), (built.artifact / "scenario.xml").read_bytes()
    )
    wanted = _entries.wanted_modules(artifact.scenario, artifact.version)
    tags = dict.fromkeys([tag for tag in (wanted.kernel, wanted.ramdisk) if tag] + list(wanted.others))
    places = {frame.KERNEL_TAG: "/bzImage", frame.INITRD_TAG: "/initrd"}
    modules = [(_grub.Place(DISC_UUID, places[tag]), tag) for tag in tags]
    modules += [(_grub.Place(DISC_UUID, f"/{tag}.bin"), tag) for tag in wanted.acpi]
    packed = [place for place, tag in modules if tag == frame.INITRD_TAG]
    _name, text = _grub.render_entry(
        f"ACRN {artifact.version}", artifact.key, _grub.Place(DISC_UUID, f"/{IMAGE}"), "", modules, packed
    )
    return text


def _guests(built: Built) -> dict[str, Path | bytes]:
    bundles = {"guest_device": bundle(guest_device), "guest_probe": bundle(guest_probe)}
    if built.scripts:
        bundles["launch_state"] = bundle(launch_state)
    initrd = image.initramfs(CACHE, job(built), bundles, *service_files(built))
    if built.wanted.version > frame.RAMDISK_BEHIND_UNTIL:
        return {"bzImage": image.kernel(CACHE), "initrd": initrd}
    return {"bzImage": image.with_room(image.kernel(CACHE).read_bytes()), "initrd": initrd}


def disc(built: Built, folder: Path, *, guests: bool = True) -> Path:
    """A disc that boots the hypervisor with all that its VMs need; without ``guests``, they have nothing to run."""
    # Zeros would be a kernel without an address, which the hypervisor does not start.
    nothing = b"\1" * board.MB
    files: dict[str, Path | bytes] = _guests(built) if guests else {"bzImage": nothing, "initrd": nothing}
    files[IMAGE] = built.artifact / IMAGE
    for table in sorted((built.artifact / "acpi").glob("*.bin")):
        files[table.name] = table
    lines = [
        "serial --unit=0 --speed=115200",
        "terminal_output serial",
        *board.grub_prelude(built.wanted.machine, built.wanted.given),
        "set timeout=0",
    ]
    path = folder / "disc.iso"
    image.disc(path, files, "\n".join([*lines, entry(built)]), DISC_TIME)
    return path


@dataclass(frozen=True)
class Told:
    """What the VMs said: by VM and region, all of it in its order, and the CPU seconds of the emulator until then."""

    devices: Mapping[str, Any]
    regions: Mapping[tuple[int, str], Mapping[str, Any]]
    cpu: float
    all: Sequence[Mapping[str, Any]] = ()

    def one(self, what: str) -> Any:
        """The only thing of this kind that was said."""
        (found,) = [each for each in self.all if each["what"] == what]
        return found


def _read(lines: Sequence[emulator.Line]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        match = re.search(r"acrn-test: (\{.*\})$", line.text)
        if match:
            found.append(json.loads(match.group(1)))
    return found


def boot(
    built: Built,
    folder: Path,
    seconds: float = 1200,
    *,
    shown: Callable[[str], None] | None = None,
    commands: Sequence[str] = (),
) -> Told:
    """Boot the machine and return what its VMs say when they are done. Raises EmulatorError.

    ``shown`` gets each line of the console; ``commands`` are typed on the hypervisor's own console in the end.
    """
    wanted = built.wanted
    with emulator.Emulator(folder / "run", disc(built, folder), wanted.machine, shown=shown) as machine:
        if wanted.version < frame.CONSOLE_SINCE:
            # No option of the scenario shows the console of a VM from the start.
            machine.wait(r"ACRN:", seconds)
            # The shell takes a character every 40 ms of its time, some 20 s of the emulator's while VMs work: nothing
            # of them is heard for five minutes, and all of it then. VM 0 needs no number.
            machine.type(f"vm_console {wanted.console or ''}".rstrip() + "\r")
        machine.wait(r"acrn-test: ended 0", seconds, stop=r"acrn-test: ended [1-9][^\n]*\n")
        told, cpu = _read(machine.lines), machine.cpu()
        for number, command in enumerate(commands):
            # Ctrl-Space leaves the console of a VM, from v3.3 on with an e behind it (debug/console.c).
            leave = "\0e" if wanted.version >= frame.CONSOLE_SINCE else "\0"
            machine.type(f"{command}\r" if number else f"{leave}{command}\r")
            machine.wait(rf"{command}[^>]*\n(?s:.*)ACRN:", seconds)
    regions = {}
    for each in told:
        if each["what"] == "region":
            regions[each["vm"], each["region"]] = each
        elif each["what"] == "peer":
            regions[each["peer"], each["told"]["region"]] = each["told"]
        elif each["what"] == "memory":
            regions.update({(int(vm), each["region"]): theirs for vm, theirs in each["told"].items()})
    devices: Mapping[str, Any] = next((each["result"] for each in told if each["what"] == "guest_device"), {})
    return Told(devices, regions, cpu, told)
