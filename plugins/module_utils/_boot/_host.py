# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Service VM's hypervisors: the builds in /boot/acrn, what each boot entry loads, and what proves that one runs.

What the boot loader holds is the business of _loader.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Callable, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _entries as core
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _linux as linux
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _menu
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._artifact import IMAGE, MANIFEST, SCENARIO, Artifact
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import State
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._files import (
    FRESH,
    MEGABYTE,
    Root,
    Run,
    forget,
    making,
    replace,
    sync_directory,
    write_new,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._loader import Loader, loader_of
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import digest_of, named, walk
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _functions, _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Device, IvshmemError

# Left free beside the files themselves: grub.cfg, the state, and what the next kernel's installation begins with.
SPARE = 8 * MEGABYTE
NO_INITRD = "none"
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True)
class Settings:
    """What a user chose for the boot entries of a host."""

    cmdline: str = ""
    panic: int = 60
    root: str = ""
    kernel: str = ""
    initrd: str = ""
    modules: tuple[tuple[str, str], ...] = ()
    title: str = ""
    keep: int = 2
    sign: str = ""

    @property
    def chosen_root(self) -> str:
        """The root that a user has named: of several a kernel takes the last, and ``cmdline`` is the end of them."""
        return linux.root_of(self.cmdline.split()) or self.root


def _absent(path: str, what: str, option: str) -> IvshmemError:
    """The error of a file that is to be booted. ``option`` names it; so does the role's, with hypervisor_ before it."""
    option = f"{option}, in the role hypervisor_{option}"
    return IvshmemError(f"{path}: {what} is not on the host; bring it there, or name another ({option})")


class Host(Root):
    """The machine that this code runs on: builds and entries in /boot/acrn, the Service VM's kernel, proofs."""

    def __init__(self, run: Run, base: str = "/", dry: bool = False) -> None:
        super().__init__(run, base, dry)
        self.loader: Loader = loader_of(self)
        self.boot_dir = self.path("boot/acrn")
        self.state_file = os.path.join(self.boot_dir, "state.json")

    # ---- reading ----

    def state(self) -> State:
        """What earlier runs left in state.json."""
        try:
            text = self.text(self.state_file, "", mend="")
            return State.parse(json.loads(text)) if text else State()
        except (ValueError, RecursionError, IvshmemError) as exc:
            raise IvshmemError(
                f"{named(self.state_file, exc)}; move it away: it only tells which hypervisor was the default before, "
                "and which trials have failed"
            ) from exc

    def artifact(self, key: str) -> Artifact:
        """A build that the host has. Raises IvshmemError."""
        folder = os.path.join(self.boot_dir, core.check_key(key))
        if not os.path.exists(os.path.join(folder, MANIFEST)):
            raise IvshmemError(
                f"{folder}: this host has no build {key}; give the directory of the "
                "artefact (artifact_dir, in the role hypervisor_artifact_dir)"
            )
        try:
            return Artifact.parse(
                self.text(os.path.join(folder, MANIFEST), mend=""), self.data(os.path.join(folder, SCENARIO))
            )
        except IvshmemError as exc:
            raise IvshmemError(f"{named(folder, exc)}; install {key} again from its artefact") from exc

    def builds(self) -> list[str]:
        """The keys of the builds on the disk, the oldest first."""
        found = []
        for path in glob.glob(os.path.join(glob.escape(self.boot_dir), "*", MANIFEST)):
            # A link that leads nowhere is found, too.
            if os.path.exists(path):
                found.append((os.path.getmtime(path), os.path.basename(os.path.dirname(path))))
        return [key for _time, key in sorted(found)]

    def lacking(self, artifact: Artifact, sign: str = "") -> list[str]:
        """Files of a build that are missing here, have other bytes, or lack the signature that they shall have."""
        folder = os.path.join(self.boot_dir, artifact.key)
        found = []
        for name, facts in artifact.files.items():
            path = os.path.join(folder, name)
            try:
                whole = os.path.getsize(path) == facts["size"] and digest_of(path) == facts["sha256"]
                whole = whole and (not sign or os.path.exists(path + self.loader.signature))
            except OSError:
                whole = False
            if not whole:
                found.append(name)
        try:
            same = json.loads(self.text(os.path.join(folder, MANIFEST), "null")) == artifact.manifest
        except (ValueError, RecursionError, IvshmemError):
            same = False
        return found if same else [*found, MANIFEST]

    def entries(self) -> dict[str, str]:
        """The menu entries of all builds on the host: name -> text."""
        found = {}
        for path in glob.glob(os.path.join(glob.escape(self.boot_dir), "*", "entry-*.cfg")):
            key, name = path.split(os.sep)[-2:]
            found[f"{key}.{name[6:-4]}"] = self.text(path)
        return found

    # ---- what belongs to the Service VM's kernel ----

    def cmdline(self) -> list[str]:
        """The arguments of the running kernel."""
        return self.text(self.path("proc/cmdline")).split()

    def runs_acrn(self) -> bool:
        """Whether this is a Service VM: ACRN's driver makes its device nowhere else."""
        return self._prove_device()[0]

    def config(self, release: str) -> str:
        """The configuration of a kernel; empty where none is found."""
        for name in linux.CONFIGS:
            text = self.text(self.path(name.format(release)), "")
            if text:
                return text
        running = self.text(self.path("proc/sys/kernel/osrelease"), "").strip()
        packed = self.path("proc/config.gz")
        if running == release and os.path.exists(packed):
            with gzip.open(packed, "rt", encoding="latin-1") as handle:
                return handle.read()
        return ""

    def kernel(self, chosen: str, options: Sequence[str]) -> str:
        """The path of the Service VM's kernel: as chosen, or the best one with one of these options in its
        configuration. Raises IvshmemError.
        """
        if chosen:
            if not os.path.isfile(chosen):
                raise _absent(chosen, "this kernel for the Service VM", "kernel")
            return chosen
        paths: dict[str, str] = {}
        for pattern in linux.KERNELS:
            for path in sorted(glob.glob(self.path(f"boot/{pattern}"))):
                if os.path.isfile(path) and not path.endswith(
                    (self.loader.signature, ".old", ".bak", ".dpkg-bak", ".img")
                ):
                    paths.setdefault(linux.release(os.path.basename(path)), path)
        configs = {release: self.config(release) for release in paths}
        fitting = linux.service_vm_kernels(configs, options)
        if fitting:
            return paths[fitting[0]]
        seen = ", ".join(release if configs[release] else f"{release} (without a config)" for release in sorted(paths))
        raise IvshmemError(
            f"none of the kernels in /boot ({seen or 'there is none'}) has {' or '.join(options)} in its "
            "/boot/config-VERSION or /lib/modules/VERSION/config, which the Service VM needs; install ACRN's kernel, "
            "or name one (kernel, in the role hypervisor_kernel)"
        )

    def initrd_of(self, kernel: str) -> str:
        """The initrd that belongs to a kernel, by its release; empty where there is none."""
        names = [linux.release(os.path.basename(path)) for path in (kernel, os.path.realpath(kernel))]
        for release in [*names, linux.release_of_image(self.data(kernel, 65536))]:
            for pattern in linux.INITRDS if release else ():
                path = os.path.join(os.path.dirname(kernel), pattern.format(release))
                if os.path.isfile(path):
                    return path
        plain = os.path.join(os.path.dirname(kernel), linux.PLAIN.get(os.path.basename(kernel), ""))
        return plain if os.path.isfile(plain) else ""

    def _node(self, root: str) -> str:
        # The device file that a root argument means on this host.
        kind, _equals, value = root.partition("=")
        folder = {"UUID": "uuid", "LABEL": "label", "PARTUUID": "partuuid", "PARTLABEL": "partlabel"}.get(kind)
        path = f"dev/disk/by-{folder}/{value}" if folder else root.lstrip("/")
        return os.path.realpath(self.path(path))

    def _needs_initrd(self, root: str) -> bool:
        udev = False
        if root.startswith("/dev/"):
            path = self.path(root[1:])
            udev = os.path.islink(path) or os.path.basename(os.path.realpath(path)).startswith("dm-")
        return linux.needs_initrd(root, udev)

    def _same_without_initrd(self, root: str) -> str:
        # The partition of a file system, as a kernel alone finds it.
        node = self._node(root)
        for path in sorted(glob.glob(self.path("dev/disk/by-partuuid/*"))):
            if os.path.exists(node) and os.path.realpath(path) == node:
                return f"PARTUUID={os.path.basename(path)}"
        return "PARTUUID=... (blkid tells it)"

    def root_arguments(self, settings: Settings, bootargs: str, kernel: str, initrd: str) -> list[str]:
        """The kernel arguments that say where the root is: as chosen, or as the running kernel has them, but for those
        that the scenario (``bootargs``) gives.

        Raises IvshmemError where the kernel could not find it.
        """
        running = linux.root_arguments(self.cmdline(), bool(initrd), bootargs.split(), settings.cmdline.split())
        before = linux.root_of(running)
        if settings.root.startswith("root=") or len(settings.root.split()) > 1:
            raise IvshmemError(
                f"root is {settings.root!r} (in the role hypervisor_root): write what stands behind root=, such as "
                "UUID=... or /dev/sda3, and other arguments into cmdline (in the role hypervisor_cmdline)"
            )
        root = settings.chosen_root or before
        if not root:
            raise IvshmemError(
                "the running kernel has no root= argument; name the root file system (root, in the "
                "role hypervisor_root)"
            )
        if not initrd and self._needs_initrd(root):
            instead = " instead of the root= of hypervisor_cmdline" if linux.root_of(settings.cmdline.split()) else ""
            raise IvshmemError(
                f"root={root}: only an initrd can find this root file system, and none is loaded with {kernel}. Make "
                "its initrd (update-initramfs -c -k VERSION, dracut --kver VERSION), name one (initrd, in the role "
                f"hypervisor_initrd), or name the partition{instead}: hypervisor_root={self._same_without_initrd(root)}"
            )
        if root != before and before and self._node(root) != self._node(before):
            return [f"root={root}"]  # what mounts another file system says nothing of this one
        return [f"root={root}", *(word for word in running if linux.key(word) != "root")]

    def _initrd(self, wanted: core.Modules, settings: Settings, kernel: str) -> str:
        # The initrd for the entry; empty for none.
        if settings.initrd == NO_INITRD:
            return ""
        found = settings.initrd or self.initrd_of(kernel)
        if not found and wanted.ramdisk:
            raise IvshmemError(
                f"{kernel}: the scenario wants an initrd ({wanted.ramdisk}), and beside this kernel is none; make it, "
                f"or name one (initrd, in the role hypervisor_initrd, or {NO_INITRD} for none)"
            )
        if not found or wanted.ramdisk or not wanted.sharers:
            return found
        root = settings.chosen_root or linux.root_of(self.cmdline())
        whom = ", ".join(wanted.sharers)
        if root and not self._needs_initrd(root):
            self.warnings.append(
                f"{found} is not loaded: the scenario has no ramdisk_mod, so that the pre-launched {whom} would get "
                "it too; give the Service VM a ramdisk_mod to load it"
            )
            return ""
        raise IvshmemError(
            f"{found}: the Service VM needs this initrd for root={root}, and the scenario has no ramdisk_mod, so that "
            f"the pre-launched {whom} would get it too. Give the Service VM a ramdisk_mod in the scenario, such as "
            f"Linux_ramdisk, or name the partition, which needs none: hypervisor_root={self._same_without_initrd(root)}"
        )

    def _service_vm(
        self, artifact: Artifact, wanted: core.Modules, given: dict[str, str], settings: Settings
    ) -> tuple[list[tuple[str, str]], list[str]]:
        # Files with their tags, an initrd last, and the arguments, for the Service VM's kernel.
        tag = wanted.kernel or ""
        kernel = given.pop(tag, None) or self.kernel(settings.kernel, linux.drivers(artifact.version))
        if not os.path.isfile(kernel):
            raise _absent(kernel, f"the file for the module {tag!r}", "modules")
        initrd = given.pop(wanted.ramdisk, None) or self._initrd(wanted, settings, kernel)
        arguments = self.root_arguments(settings, wanted.bootargs, kernel, initrd)
        return [(kernel, tag), *([(initrd, wanted.ramdisk)] if initrd else [])], arguments

    def acrn_entry(self) -> _menu.AcrnEntry | None:
        """The entry of the host, and not of this collection, that boots ACRN: the one in use, as far as can be told."""
        if core.running_entry(self.text(self.path("proc/cmdline"))):
            return None
        return _menu.in_use(self.loader.own_entries(), self.cmdline() if self.runs_acrn() else None)

    def arguments_in_use(self) -> list[str]:
        """The kernel arguments of the host's own ACRN entry, or, where a Service VM runs that no entry of the menu
        explains, those of the running kernel; without those that each entry of this collection has.
        """
        entry = self.acrn_entry()
        if entry:
            return linux.own_arguments(entry.arguments)
        if self.runs_acrn() and not core.running_entry(self.text(self.path("proc/cmdline"))):
            return linux.own_arguments(self.cmdline())
        return []

    def lacking_arguments(self, artifact: Artifact, settings: Settings) -> list[str]:
        """Arguments in use on the host that a new entry would not give, nor the scenario."""
        wanted = core.wanted_modules(artifact.scenario, artifact.version)
        return linux.lacking(self.arguments_in_use(), {*settings.cmdline.split(), *wanted.bootargs.split()})

    def render(self, artifact: Artifact, settings: Settings) -> tuple[str, str]:
        """Name and text of the entry for a build. Raises IvshmemError where something that it needs is not there."""
        wanted = core.wanted_modules(artifact.scenario, artifact.version)
        given = dict(settings.modules)
        modules, arguments = self._service_vm(artifact, wanted, given, settings) if wanted.kernel else ([], [])
        initrds = [path for path, _tag in modules[1:]]
        for tag in wanted.others:
            if tag not in given:
                raise IvshmemError(
                    f"the scenario's pre-launched VMs want a module {tag!r}, and nothing says which file it is; "
                    f"name it (modules, in the role hypervisor_modules: {{{tag}: /path/on/the/host}})"
                )
            modules.append((given.pop(tag), tag))
        modules += [(path, tag) for tag, path in sorted(given.items())]
        for path, tag in modules:
            if not os.path.isfile(path):
                what, name = f"the file for the module {tag!r}", "modules"
                if path == settings.initrd or (not tag and path in initrds):
                    what, name = "this initrd", "initrd"
                raise _absent(path, what, name)
        folder = os.path.join(self.boot_dir, artifact.key)
        for tag in wanted.acpi:
            # A build without these tables boots no pre-launched VM; the builder has them if the scenario has such VMs.
            if f"acpi/{tag}.bin" not in artifact.files:
                raise IvshmemError(
                    f"the artefact {artifact.key} has no acpi/{tag}.bin, which its scenario wants; build it again"
                )
            modules.append((os.path.join(folder, "acpi", f"{tag}.bin"), tag))
        if settings.panic:
            arguments.append(f"panic={settings.panic}")
        title = settings.title or f"ACRN {artifact.version} {artifact.manifest.get('name', '')}".strip()
        entry, text = self.loader.render(
            f"{title} ({artifact.key[:12]})",
            artifact.key,
            os.path.join(folder, IMAGE),
            " ".join([*arguments, settings.cmdline]),
            modules,
            initrds,
        )
        self._check_length(wanted, [*arguments, *settings.cmdline.split(), f"{core.MARKER}={entry}"])
        return entry, text

    @staticmethod
    def _check_length(wanted: core.Modules, words: Sequence[str]) -> None:
        needed = len(" ".join([wanted.bootargs, *words]).encode("utf-8", "surrogateescape")) + 1
        if wanted.kernel and needed > linux.BOOTARGS_SIZE:
            raise IvshmemError(
                f"the arguments of the scenario and of the boot entry are {needed} bytes together, and ACRN has room "
                f"for {linux.BOOTARGS_SIZE}; shorten the bootargs of the scenario, or cmdline (in the role "
                "hypervisor_cmdline)"
            )

    def secure_boot(self) -> bool:
        """Whether the firmware checks signatures."""
        try:
            with open(self.path(_SECURE_BOOT), "rb") as handle:
                return handle.read(5)[4:5] == b"\1"
        except OSError:
            return False

    def own_files(self) -> list[str]:
        """What this collection has made in /boot/acrn. ACRN's guides put files of users there, too."""
        found = []
        for name in sorted(os.listdir(self.boot_dir)) if os.path.isdir(self.boot_dir) else []:
            path = os.path.join(self.boot_dir, name)
            build = any(
                os.path.exists(os.path.join(path, each)) for each in (MANIFEST, f"{MANIFEST}{self.loader.signature}")
            )
            ours = name in (os.path.basename(self.state_file), "before") or (name.startswith(".") and FRESH in name)
            if ours or build or glob.glob(os.path.join(glob.escape(path), "entry-*.cfg")):
                found.append(path)
        return found

    def untouched(self) -> bool:
        """Whether nothing of this collection is on the host, which may have no GRUB at all."""
        return self.loader.untouched() and not self.own_files()

    # ---- writing; each of these is a whole step, and does nothing in check mode but say that it would ----

    def save_state(self, state: State, before: State) -> None:
        """Write state.json if it has to change. It tells of other changes and is not one by itself."""
        if state.as_dict() == before.as_dict() or self.dry:
            return
        self.check_writable(self.state_file, "what is done has to be noted there")
        os.makedirs(self.boot_dir, exist_ok=True)
        replace(self.state_file, (json.dumps(state.as_dict(), indent=1, sort_keys=True) + "\n").encode(), 0o644)

    def sweep(self) -> None:
        """Remove what killed runs left."""
        if self.dry:
            return
        folders = [self.boot_dir, *self.loader.folders(), self.path("usr/share/acrn")]
        # An entry lies beside the files of its build.
        places = [glob.escape(folder) for folder in folders] + [os.path.join(glob.escape(self.boot_dir), "*")]
        for place in places:
            for path in glob.glob(os.path.join(place, f".*{FRESH}*")):
                forget(path)

    def check_room(self, artifact: Artifact, lacking: Iterable[str]) -> None:
        """Raise IvshmemError if files of a build do not fit in /boot."""
        # A damaged file is replaced by a rename: until then both are there.
        needed = sum(artifact.files[name]["size"] for name in lacking if name != MANIFEST)
        near = self.boot_dir if os.path.isdir(self.boot_dir) else os.path.dirname(self.boot_dir)
        self.check_writable(near, f"the build {artifact.key} has to be written there")
        info = os.statvfs(near)
        free = info.f_bavail * info.f_frsize
        if needed and needed + SPARE > free:
            raise IvshmemError(
                f"{near}: {free // MEGABYTE} MB are free, the build {artifact.key} needs "
                f"{-(-needed // MEGABYTE)} MB and {SPARE // MEGABYTE} MB "
                "shall stay free; make room (old kernels), or keep fewer builds (keep, in the role hypervisor_keep)"
            )

    def add_files(self, artifact: Artifact, lacking: Iterable[str], staged: str, sign: str) -> None:
        """Bring a build's files from a directory to their place: the whole directory at once, or the broken ones."""
        lacking = list(lacking)
        if not lacking or not self.begin(f"files of {artifact.key}", self.boot_dir):
            return
        place = os.path.join(self.boot_dir, artifact.key)
        whole = os.path.isdir(place)
        folder = os.path.join(self.boot_dir, f".{artifact.key}.{FRESH}")
        with making(folder):
            self._fill(folder, artifact, [*(name for name in lacking if name != MANIFEST), MANIFEST], staged, sign)
            if whole:
                for directory, _folders, names in walk(folder):
                    target = os.path.join(place, os.path.relpath(directory, folder))
                    if not os.path.isdir(target):
                        forget(target)
                    os.makedirs(target, exist_ok=True)
                    for name in sorted(names, key=lambda name: name == MANIFEST):
                        # A rename does not replace a directory, which is none of a build either.
                        if os.path.isdir(os.path.join(target, name)):
                            forget(os.path.join(target, name))
                        os.rename(os.path.join(directory, name), os.path.join(target, name))
                    sync_directory(target)
                forget(folder)
            else:
                os.rename(folder, place)
        sync_directory(self.boot_dir)

    def _fill(self, folder: str, artifact: Artifact, names: Sequence[str], staged: str, sign: str) -> None:
        """Bring files of a build into a new directory and to the disk, each only if it is what the build says."""
        os.makedirs(folder, mode=0o755)
        for name in names:
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(os.path.join(staged, name), "rb") as handle:
                data = handle.read()
            is_now = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            # Where only the size were another one, each run would find it damaged.
            if name != MANIFEST and any(artifact.files[name][key] != value for key, value in is_now.items()):
                raise IvshmemError(
                    f"{name} of the artefact {artifact.key} is not what its {MANIFEST} says; build it again"
                )
            if name == IMAGE and b"\xd6\x50\x52\xe8" not in data[:32768]:
                raise IvshmemError(f"{name} of the artefact {artifact.key} is no multiboot2 image; build it again")
            write_new(path, data, 0o644)
            if sign and name != MANIFEST:
                self.loader.sign(sign, path)
        for directory, _folders, _files in walk(folder):
            sync_directory(directory)

    def add_entry(self, entry: str, text: str) -> None:
        """Keep an entry's text beside the build's files."""
        key, revision = entry.split(".")
        path = os.path.join(self.boot_dir, key, f"entry-{revision}.cfg")
        if self.text(path, "") != text and self.begin(f"entry {entry}", path):
            replace(path, text.encode(), 0o644)

    def prune(self, keys: Sequence[str], entries: Sequence[str]) -> list[str]:
        """Remove builds and entries that are not named; the menu must be without them. Returns the keys that went."""
        gone = []
        for path in glob.glob(os.path.join(glob.escape(self.boot_dir), "*", MANIFEST)):
            key = os.path.basename(os.path.dirname(path))
            if key in keys:
                continue
            gone.append(key)
            if self.begin(f"old build {key}", self.boot_dir):
                # In one step out of the way, so that a half of it is never taken for a build.
                away = os.path.join(self.boot_dir, f".{key}.{FRESH}-old")
                os.rename(os.path.dirname(path), away)
                forget(away)
        for entry in set(self.entries()) - set(entries):
            key, revision = entry.split(".")
            if key in keys and self.begin(f"old entry {entry}", self.boot_dir):
                forget(os.path.join(self.boot_dir, key, f"entry-{revision}.cfg"))
        return gone

    def forget_state(self) -> None:
        """Remove what earlier runs have noted."""
        if os.path.lexists(self.state_file) and self.begin(self.state_file, self.boot_dir):
            forget(self.state_file)
            sync_directory(self.boot_dir)

    def remove_own_files(self) -> None:
        """Remove what this collection has made in /boot/acrn, and that directory if nothing else is in it."""
        for what in self.own_files():
            if what != self.state_file and self.begin(what, self.boot_dir):
                folder, name = os.path.split(what)
                # In one step out of the way, so that the next run knows a half of it as its own.
                away = os.path.join(folder, f".{name}.{FRESH}-old") if FRESH not in name else what
                os.rename(what, away)
                forget(away)
        if os.path.isdir(self.boot_dir) and not self.dry and not os.listdir(self.boot_dir):
            os.rmdir(self.boot_dir)

    # ---- proofs ----

    def proofs(
        self, entry: str, names: Sequence[str], regions: Sequence[Device], commands: Sequence[str]
    ) -> list[dict[str, Any]]:
        """What shows that a hypervisor runs as it should: a list of name, ok and detail."""
        running = self.loader.boot().running
        found = [
            {
                "name": "entry",
                "ok": running == entry,
                "detail": f"the running kernel was booted by {running or 'the entry of the host'}",
            }
        ]
        tests: dict[str, Callable[[], tuple[bool, str]]] = {
            "hypervisor": self._prove_hypervisor,
            "device": self._prove_device,
            "regions": lambda: self._prove_regions(regions),
        }
        for name in names:
            ok, detail = tests[name]()
            found.append({"name": name, "ok": ok, "detail": detail})
        for command in commands:
            code, output, errors = self.run(shlex.split(command))
            said = (errors or output).strip().splitlines()[-1:]
            found.append(
                {"name": command, "ok": code == 0, "detail": f"exit code {code}" + (f": {said[0]}" if said else "")}
            )
        return found

    def _prove_hypervisor(self) -> tuple[bool, str]:
        # Reads CPUID leaf 0x40000000, where ACRN says ACRNACRNACRN.
        words = ["systemd-detect-virt", "--vm"]
        code, output, errors = self.run(words)
        found = output.strip()
        # It ends with 1 where there is no hypervisor. One that could not look judges no hypervisor.
        if not found or (code != 0 and found != "none"):
            raise IvshmemError(f"{' '.join(words)} ends with code {code}: {(errors or output).strip() or 'no word'}")
        return found == "acrn", f"{words[0]} says {found}"

    def _prove_device(self) -> tuple[bool, str]:
        for name in ("acrn_hsm", "acrn_vhm"):
            if os.path.exists(self.path(f"dev/{name}")):
                return True, f"/dev/{name}"
        return False, "there is neither /dev/acrn_hsm nor /dev/acrn_vhm"

    def _prove_regions(self, regions: Sequence[Device]) -> tuple[bool, str]:
        functions = {function.bdf: function.size // MEGABYTE for function in _functions.scan(_kernel.Kernel(self.base))}
        wrong = []
        free = dict(functions)
        for region in regions:
            # Without a place ACRN's build chose it (v2.x): any function of the size will do.
            alike = (bdf for bdf, found in sorted(free.items()) if found == region.size)
            at = str(region.place) if region.place else next(alike, "?")
            if free.pop(at, None) != region.size:
                seen = f"{functions[at]} MB" if at in functions else "nothing"
                wrong.append(f"{region.name}: {region.size} MB wanted at {at}, {seen} there")
        return not wrong, "; ".join(wrong) or f"{len(regions)} of {len(regions)} regions of the Service VM are there"


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
