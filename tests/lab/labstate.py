# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab: its directory ($ACRN_LAB), the file lab.json that says what it holds, and who of it runs.

The lab's directory:

    $ACRN_LAB/lab.json              written by the user (or by Ansible); see README.md
    $ACRN_LAB/ssh_config            how ssh reaches the guests
    $ACRN_LAB/inventory.json        how Ansible reaches them
    $ACRN_LAB/guests/NAME/          disk.qcow2, console.log, launch.log
    $ACRN_LAB/run/                  locks, sockets, what runs; gone after "lab down"
    $ACRN_LAB/run/hypervisor.json   the hv regions that the running "build" has: those of lab.json when the lab came up
    $ACRN_LAB/run/dm/               names of the /dev/shm files that this lab's acrn-dm made

All of it belongs to the lab alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import acrn_args

HERE = Path(__file__).resolve().parent
SHM = Path("/dev/shm")
VECTORS = 8
_SUN_PATH = 107  # longest path of a unix socket


class LabError(Exception):
    """What is wrong with the lab, in words for its user."""


@dataclass(frozen=True)
class Vm:
    name: str
    id: int
    ssh_port: int
    uuid: str | None = None
    prelaunched: bool = False


@dataclass(frozen=True)
class HvRegion:
    """A region of the hypervisor: size in MB; members as VM ID -> "00:06.0" (None: a launch script says it)."""

    name: str
    size: int
    members: dict[int, str | None]
    region_id: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "size": self.size,
            "region_id": self.region_id,
            "vms": [{"name": vm, "vbdf": vbdf} for vm, vbdf in self.members.items()],
        }


@dataclass(frozen=True)
class Config:
    vms: dict[str, Vm]
    hv_regions: list[HvRegion]
    version: tuple[int, int] = (3, 3)
    image: str | None = None
    memory: int = 512
    cpus: int = 1
    stop_timeout: int = 60
    append: str = ""


def parse_config(data: Any) -> Config:
    """The meaning of lab.json's content. LabError names the place of a fault."""
    known = {"acrn_version", "append", "cpus", "hv_regions", "image", "memory", "ssh_port", "stop_timeout", "vms"}
    _keys(data, known, "lab.json")
    base = _number(data, "ssh_port", 2200, "lab.json")
    vms: dict[str, Vm] = {}
    for name, entry in _of(data.get("vms"), dict, "vms").items():
        where = f"vms.{name}"
        _keys(entry, {"id", "prelaunched", "ssh_port", "uuid"}, where)
        vm_id = _number(entry, "id", None, where)
        if "/" in name or name.startswith("."):
            raise LabError(f"{where}: this cannot be the name of a VM")
        vms[name] = Vm(
            name,
            vm_id,
            _number(entry, "ssh_port", base + vm_id, where),
            entry.get("uuid"),
            bool(entry.get("prelaunched", False)),
        )
    for what in ("id", "ssh_port"):
        values = [getattr(vm, what) for vm in vms.values()]
        if len(values) != len(set(values)):
            raise LabError(f"vms: two VMs have the same {what}")
    regions = []
    for index, entry in enumerate(_of(data.get("hv_regions", []), list, "hv_regions")):
        where = f"hv_regions[{index}]"
        # A region may be written as in the collection's own declaration.
        _keys(entry, {"name", "provided_by", "region_id", "size", "vms"}, where)
        if entry.get("provided_by", "hypervisor") != "hypervisor":
            raise LabError(f"{where}: only regions that the hypervisor provides belong here")
        members: dict[int, str | None] = {}
        for member in _of(entry.get("vms"), list, f"{where}.vms"):
            vm, vbdf = (member.get("name"), member.get("vbdf")) if isinstance(member, dict) else (member, None)
            member_id = vms[vm].id if vm in vms else vm
            if not isinstance(member_id, int):
                raise LabError(f"{where}: vms has no {vm}")
            members[member_id] = vbdf
        region_id = _number(entry, "region_id", 0, where)
        regions.append(HvRegion(str(entry.get("name")), _number(entry, "size", None, where), members, region_id))
    try:
        version = acrn_args.parse_version(str(data.get("acrn_version", "3.3")))
    except ValueError as exc:
        raise LabError(f"acrn_version: {exc}") from exc
    return Config(
        vms,
        regions,
        version,
        data.get("image"),
        _number(data, "memory", 512, "lab.json"),
        _number(data, "cpus", 1, "lab.json"),
        _number(data, "stop_timeout", 60, "lab.json"),
        str(data.get("append", "")),
    )


def _of(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise LabError(f"{where}: {'a mapping' if kind is dict else 'a list'} is wanted here")
    return value


def _keys(value: Any, known: set[str], where: str) -> None:
    unknown = set(_of(value, dict, where)) - known
    if unknown:
        raise LabError(f"{where}: unknown key {', '.join(sorted(unknown))}")


def _number(data: dict[str, Any], key: str, default: int | None, where: str) -> int:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise LabError(f"{where}: {key} is to be a number")
    return value


def write_file(path: Path, text: str) -> None:
    """Replace a file in one step."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


class Lab:
    """Paths of a lab and the questions that can be asked of it."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or Path(os.environ.get("ACRN_LAB") or "/run/acrn-lab")).absolute()
        self.run = self.root / "run"

    def guest(self, name: str) -> Path:
        return self.root / "guests" / name

    def console(self, name: str) -> Path:
        return self.guest(name) / "console.log"

    def socket(self, region: str, vm_id: int) -> Path:
        """Where the ivshmem server awaits this VM for this region."""
        path = self.run / "hv" / f"{region}.{vm_id}"
        if len(os.fsencode(path)) > _SUN_PATH:
            raise LabError(f"{path}: too long for a socket; choose a shorter ACRN_LAB")
        return path

    def config(self) -> Config:
        path = self.root / "lab.json"
        try:
            return parse_config(json.loads(path.read_text(encoding="utf-8")))
        except OSError as exc:
            raise LabError(f"{path}: {exc.strerror} (ACRN_LAB names the lab's directory)") from exc
        except (LabError, ValueError) as exc:
            raise LabError(f"{path}: {exc}") from exc

    def prepare(self) -> None:
        for directory in (self.root, self.run, self.run / "hv", self.run / "dm", self.root / "guests"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def image(self, config: Config) -> Path:
        """The image's directory: what lab.json says, else what build-image has in its cache."""
        if config.image:
            image = Path(config.image)
        else:
            check = [str(HERE / "build-image"), "--check"]
            found = subprocess.run(check, stdout=subprocess.PIPE, text=True, check=False)
            if found.returncode:
                raise LabError(f"there is no guest image yet: run {HERE / 'build-image'} as root")
            image = Path(found.stdout.strip())
        if not (image / "disk.raw").exists():
            raise LabError(f"{image} holds no guest image (see build-image)")
        return image

    def lock(self, name: str) -> int | None:
        """Take the lock of a VM (or "hypervisor", or "up") for the life of this process; None if another has it."""
        descriptor = os.open(self.run / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def runs(self, name: str) -> dict[str, Any] | None:
        """What the holder of a lock wrote about itself (at least {"pid": N}); None if nobody holds it."""
        if not (self.run / f"{name}.lock").exists():
            return None
        descriptor = self.lock(name)
        if descriptor is not None:
            os.close(descriptor)
            return None
        try:
            state = json.loads((self.run / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None  # it has only just begun
        return state if isinstance(state, dict) else None

    def hv_regions(self) -> list[HvRegion]:
        """The regions of the running build; none if no hypervisor runs."""
        state = self.runs("hypervisor")
        return parse_config({"vms": {}, "hv_regions": state["regions"]}).hv_regions if state else []

    def dm_files(self) -> list[Path]:
        """Those of the /dev/shm files made by this lab that are still there."""
        records = (self.run / "dm").iterdir() if (self.run / "dm").is_dir() else iter(())
        return sorted(SHM / record.name for record in records if (SHM / record.name).exists())
