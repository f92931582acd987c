# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection leaves on a Service VM, a builder and the controller, and how it goes away again.

This module util is PRIVATE to the collection: it can change at any time.

Each directory may be one that its user also has other files in. So nothing goes because of where it is: each file is
known by a mark inside, by its name together with what lies in it, or because the caller names it. docs/traces.md tells
the same row by row.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import MANIFEST, MARKER
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import (
    ORIGINAL,
    named,
    open_regular,
    original_of,
    read_file,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._devices import launch
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._takeover import OWN
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import script_devices, script_vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import DEVICE_MODEL, PREFIXES, IvshmemError

MB = 1 << 20
UNIT = "acrn-vm@.service"
# The directory of the controller beside the inventory; on builders it has no dot.
FOLDER = ".acrn-ivshmem"
# What Ansible calls a backup: the time is what tells the first one.
_BACKUP = r"\.\d+\.(\d{4}-\d\d-\d\d@\d\d:\d\d:\d\d)~"
_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass
class Removal:
    """What has to go, in this order. Nothing is touched before ``apply``."""

    gone: list[str] = field(default_factory=list)
    # Files that get other content, by path.
    written: dict[str, bytes] = field(default_factory=dict)
    # Directories that go if nothing of others is in them then.
    folders: list[str] = field(default_factory=list)
    # Sentences on what stays, and why.
    kept: list[str] = field(default_factory=list)
    # Names, without prefix, of dm-land regions whose memory nobody needs any more.
    memory: list[str] = field(default_factory=list)

    def emptied(self) -> list[str]:
        """The directories that nothing of others is in."""
        found: list[str] = []
        for folder in self.folders:
            if os.path.isdir(folder) and not os.path.islink(folder):
                going = {*self.gone, *found}
                if all(os.path.join(folder, name) in going for name in os.listdir(folder)):
                    found.append(folder)
        return found


# ---- a Service VM ----


@dataclass(frozen=True)
class Launch:
    """What the role launch was told. ``scripts``: VM -> its script; ``regions``: name, provided_by and size of each."""

    directory: str
    unit_directory: str
    scripts: Mapping[str, str]
    regions: Sequence[Mapping[str, Any]]
    running: frozenset[str] = frozenset()
    wants: str = "/etc/systemd/system"
    active: str = "/run/systemd/units"
    memory: str = "/dev/shm"  # acrn-dm's place, nothing is made there  # nosec B108


def of_launch(wish: Launch) -> Removal:
    """What goes from a Service VM: units, scripts that were written, and devices in scripts that were edited."""
    found = Removal()
    held = {*wish.running, *_units(wish, found)}
    paths = [*glob.glob(os.path.join(glob.escape(wish.directory), "*.sh")), *wish.scripts.values()]
    paths += [path[: -len(ORIGINAL)] for path in glob.glob(os.path.join(glob.escape(wish.directory), f"*{ORIGINAL}"))]
    for path in sorted(set(paths)):
        if os.path.islink(path):
            _link(path, wish, held, found)
    declared = {PREFIXES[each["provided_by"]] + each["name"] for each in wish.regions}
    for path in sorted({os.path.realpath(path) for path in paths}):
        try:
            _script(path, held, declared, found)
        except IvshmemError as exc:
            # Such as a directory that somebody has called so: it keeps nothing else from going.
            found.kept.append(f"{named(path, exc)}, so {path} is left as it is; see what it is, and remove it by hand")
    # A region that a script still has is still served.
    found.memory = sorted({*found.memory, *_declared_memory(wish)} - _still_used(paths, found))
    found.folders.append(wish.directory)
    return found


def _units(wish: Launch, found: Removal) -> set[str]:
    # The unit and what enables it. Returns the VMs that it runs: without it they could not be stopped well.
    unit = os.path.join(wish.unit_directory, UNIT)
    if os.path.lexists(unit) and not _is_written(unit):
        return set()
    for link in sorted(glob.glob(os.path.join(glob.escape(wish.wants), "*.wants", "acrn-vm@*.service"))):
        if os.path.islink(link) and os.path.basename(os.readlink(link)) == UNIT:
            found.gone.append(link)
    if not os.path.lexists(unit):
        return set()
    active = glob.glob(os.path.join(glob.escape(wish.active), "invocation:acrn-vm@*.service"))
    vms = {path[path.index("@") + 1 : -len(".service")] for path in map(os.path.basename, active)}
    if vms:
        found.kept.append(
            f"{unit} stays, since {', '.join(sorted(vms))} run under it; stop them (systemctl stop 'acrn-vm@*'), and "
            "run this again"
        )
    else:
        found.gone.append(unit)
    return vms


def _is_written(path: str) -> bool:
    try:
        with open_regular(path) as handle:
            return any(OWN in handle.readline(400) for _line in range(2))
    except OSError:
        return False


def _vm_of(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _link(path: str, wish: Launch, held: set[str], found: Removal) -> None:
    # The unit finds a script that is elsewhere by such a link.
    vm = _vm_of(path)
    if os.path.dirname(path) != wish.directory.rstrip("/") or wish.scripts.get(vm) != os.readlink(path):
        return
    if vm in held:
        found.kept.append(f"{path} stays, since {vm} runs; stop it, and run this again")
    else:
        found.gone.append(path)


def _script(path: str, held: set[str], declared: set[str], found: Removal) -> None:
    copy = original_of(path)
    first = read_file(copy, mend="") if os.path.lexists(copy) else None
    if first is None and not _is_written(path):
        _without_copy(path, declared, found)
        return
    data = read_file(path, mend="") if os.path.lexists(path) else None
    if data is None:
        if first:
            found.kept.append(
                f"{copy} stays: the script that it is a copy of is gone, so nothing else has what it held before; move "
                "it to where you want it, or remove it"
            )
        else:
            found.gone.append(copy)  # of a script that this collection has made
    elif first:
        _give_back(path, data, first, found)
    elif _vm_of(path) in held:
        found.kept.append(f"{path} stays, since {_vm_of(path)} runs; stop it, and run this again")
    else:
        found.memory += _dm_regions(data)
        found.gone += [path, *([copy] if first is not None else []), *backups(path)]


def _without_copy(path: str, declared: set[str], found: Removal) -> None:
    # Whoever had these devices before has them still: nothing tells whether they were edited in.
    data = read_file(path, mend="") if os.path.lexists(path) else b""
    try:
        left = sorted(declared & _names(data))
    except IvshmemError:
        return
    if left:
        found.kept.append(
            f"{path} keeps {', '.join(left)}: there is no {original_of(path)}, which tells what the script was before; "
            "take out these devices by hand if it had none"
        )


def _give_back(path: str, data: bytes, first: bytes, found: Removal) -> None:
    try:
        restored = original(data, first, path)
    except IvshmemError as exc:
        found.kept.append(f"{path} is left as it is, with {path}{ORIGINAL} beside it: {exc}")
        return
    if restored != data:
        found.written[path] = restored
        found.memory += sorted(set(_dm_regions(data)) - set(_dm_regions(restored)))
    found.gone += [original_of(path), *(backups(path) if restored == first else [])]


def backups(path: str) -> list[str]:
    """The copies of a file that Ansible has made, the oldest first."""
    fitting = re.compile(re.escape(os.path.basename(path)) + _BACKUP)
    found = []
    for each in glob.glob(glob.escape(path) + ".*~"):
        match = fitting.fullmatch(os.path.basename(each))
        if match:
            found.append((match.group(1), each))
    return [each for _time, each in sorted(found)]


def original(data: bytes, first: bytes, where: str) -> bytes:
    """A script as it was before this collection edited it; ``first`` is the copy that was made then.

    Where nothing but ivshmem devices has changed since, that is the copy, and also where the role has written the
    script anew. Otherwise the script gets the ivshmem devices of the copy. Raises IvshmemError where it cannot be read.
    """
    if OWN in data or _bare(data, where) == _bare(first, where):
        return first
    for vm in _vms(data, where):
        try:
            had = script_devices(first, vm, where)
        except IvshmemError:
            continue  # a VM that somebody has added since
        devices = [
            {key: getattr(device, key) for key in ("name", "size", "region_id", "slot")}
            for device in had
            if device.name
        ]
        data = launch(data, where, devices, vm=vm, state="exact").data
    return data


def _vms(data: bytes, where: str) -> list[str | None]:
    names = [call.name for call in script_vms(data, where)]
    return [None] if len(names) == 1 else [name for name in names if name]


def _bare(data: bytes, where: str) -> bytes:
    for vm in _vms(data, where):
        data = launch(data, where, [], vm=vm, state="exact").data
    return data


def _names(data: bytes) -> set[str]:
    """The regions of a script, with their prefixes. Raises IvshmemError where it cannot be read."""
    return {device.name for vm in _vms(data, "") for device in script_devices(data, vm) if device.name}


def _dm_regions(data: bytes) -> list[str]:
    prefix = PREFIXES[DEVICE_MODEL]
    try:
        names = _names(data)
    except IvshmemError:
        # Whatever is written like one may be one.
        names = set(re.findall(re.escape(prefix) + r"\w+", data.decode("latin-1")))
    return sorted(name[len(prefix) :] for name in names if name.startswith(prefix))


def _declared_memory(wish: Launch) -> list[str]:
    # A file of the same name and another size is somebody else's.
    found = []
    for region in wish.regions:
        path = os.path.join(wish.memory, region["name"])
        plain = region["provided_by"] == DEVICE_MODEL and os.path.isfile(path) and not os.path.islink(path)
        if plain and os.path.getsize(path) == int(region["size"]) * MB:
            found.append(region["name"])
    return found


def _still_used(paths: Iterable[str], found: Removal) -> set[str]:
    used: set[str] = set()
    for path in {os.path.realpath(path) for path in paths}:
        if path not in found.gone and os.path.isfile(path):
            used.update(_dm_regions(found.written.get(path) or read_file(path)))
    return used


# ---- a builder, and the controller ----


def of_builder(artifacts: str, work: str, venv: str, clone: str) -> Removal:
    """What goes from a builder: builds, the work directory, the Python environment, and a clone that a role made."""
    found = Removal()
    found.gone += _builds(artifacts)
    found.kept += [
        f"{path} stays: it is named like a build and has no {MANIFEST}; remove it if you did not make it"
        for path in _parts_of_builds(artifacts, found.gone)
        if os.path.exists(os.path.join(path, "acrn.bin"))
    ]
    if os.path.exists(os.path.join(work, MARKER)):
        found.gone.append(work)
    for path, sign in ((venv, "pyvenv.cfg"), (clone, ".git")):
        if not path or not os.path.exists(os.path.join(path, sign)):
            continue
        if _common([os.path.dirname(path)]):
            found.gone.append(path)
        else:
            found.kept.append(
                f"{path} stays: it is in no directory of this collection, so it may have been there before"
            )
    places = [artifacts, work, venv, clone]
    found.folders += [artifacts, *_common([os.path.dirname(place) for place in places if place])]
    return found


def _builds(folder: str) -> list[str]:
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*"))):
        if _KEY.fullmatch(os.path.basename(path)) and os.path.exists(os.path.join(path, MANIFEST)):
            found.append(path)
    left = [
        *glob.glob(os.path.join(glob.escape(folder), ".new-*")),
        *glob.glob(os.path.join(glob.escape(folder), ".old-*")),
    ]
    return found + sorted(path for path in left if os.path.isdir(path))


def _common(folders: Iterable[str]) -> list[str]:
    # Only a directory that has this collection's name is one that it made.
    return sorted({folder for folder in folders if os.path.basename(folder) in (FOLDER, FOLDER[1:])})


def of_controller(directory: str, files: Mapping[str, Sequence[str]], cache: str) -> Removal:
    """What goes from the controller. ``files``: for each host that goes, the names of what the role scenario wrote.

    ``cache``: where artefacts were put on their way, if no host needs them any more, else empty.
    """
    found = Removal()
    for host, names in files.items():
        own = os.path.join(directory, host)
        if os.path.basename(directory) == FOLDER and os.path.isdir(own):
            # Nobody else writes there, and the scenario may have had another name once.
            found.gone.append(own)
            continue
        for name in sorted({name for name in names if name}):
            path = os.path.join(own, name)
            found.gone += [each for each in (path, *backups(path)) if os.path.lexists(each)]
        found.folders.append(own)
    if cache:
        # A directory for each builder.
        for folder in (*sorted(glob.glob(os.path.join(glob.escape(cache), "*"))), cache):
            found.gone += _builds(folder) + _parts_of_builds(folder, found.gone)
            found.folders.append(folder)
    found.folders += _common([directory])
    return found


def _parts_of_builds(folder: str, known: Iterable[str]) -> list[str]:
    # A fetch that did not come as far as the manifest.
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*"))):
        if _KEY.fullmatch(os.path.basename(path)) and not os.path.exists(os.path.join(path, MANIFEST)):
            found.append(path)
    return [path for path in found if path not in known]


def apply(removal: Removal) -> list[str]:
    """Remove what is to go, but write no file. Returns the paths of what went, directories behind what was in them."""
    emptied = removal.emptied()
    for path in removal.gone:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
    for folder in emptied:
        os.rmdir(folder)
    return [*removal.gone, *emptied]
