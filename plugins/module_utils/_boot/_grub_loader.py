# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GRUB on a host: the boot loader that _install works with, reading and changing its menu and its state.

grubenv, the file that GRUB itself writes, is overwritten in place by one write of one block; all else as in
_files.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _grub, _menu
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import ID_PREFIX, Boot, entry_of_id, key_of
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._files import (
    FRESH,
    Root,
    forget,
    making,
    naming,
    replace,
    sync_directory,
    write_new,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._grub import SIGNATURE, Place
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import NO_FILE, named, read_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# File systems that GRUB reads but does not write (Debian's /etc/grub.d/00_header check_writable).
_READ_ONLY = ("btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs")
# As long as the name of an entry: a build's key, and a digest of its text.
_LONGEST = 32 * "0" + ".00000000"

# A menu out of which our section is taken; nobody needs to understand the rest of it.
_LONGEST_MENU = 64 << 20


class Grub:
    """The GRUB of a host, behind the interface _loader.Loader."""

    signature = SIGNATURE

    def __init__(self, root: Root) -> None:
        self._root = root
        self._menu: dict[str, str] = {}  # what files of the menu hold, or in check mode would hold, after set_menu()
        self._script = root.path(_grub.SCRIPT[1:])
        self._old_scripts = [root.path(name[1:]) for name in _grub.OLD_SCRIPTS]
        self._folder = self._grub_dir()
        self.menu_file = root.path(f"boot/{self._folder}/grub.cfg")
        self._grubenv = root.path(f"boot/{self._folder}/grubenv")

    def _grub_dir(self) -> str:
        """Where this host's GRUB has its menu; Fedora, openSUSE and others name all of it grub2."""
        there = [name for name in ("grub", "grub2") if os.path.exists(self._root.path(f"boot/{name}/grub.cfg"))]
        if len(there) == 2 and any(
            os.path.exists(self._root.path(f"usr/{each}/grub2-mkconfig")) for each in ("sbin", "bin")
        ):
            there.reverse()
        return there[0] if there else "grub"

    def _tool(self, name: str) -> str:
        """A program of GRUB, such as ``probe``."""
        return f"{self._folder}-{name}"

    # ---- reading ----

    def env(self) -> dict[str, str]:
        """The variables of grubenv; none if the file is missing."""
        self._check_kind(self._grubenv, f"make it anew ({self._tool('editenv')} {self._grubenv} create)")
        try:
            data = read_file(self._grubenv, _grub.ENV_LIMIT, b"")
            return _grub.parse_env(data) if data or os.path.exists(self._grubenv) else {}
        except IvshmemError as exc:
            raise IvshmemError(named(self._grubenv, exc)) from exc

    def _seen_env(self) -> dict[str, str]:
        # GRUB takes a block that is none for an empty one, and boots the host's own default.
        try:
            return self.env()
        except IvshmemError:
            return {}

    def boot(self) -> Boot:
        """How the host is booted and how it will be."""
        return _grub.boot_of(self._seen_env(), self._root.text(self._root.path("proc/cmdline")))

    def own_entries(self) -> list[_menu.AcrnEntry]:
        """The entries of the host, and not of this collection, that boot ACRN."""
        entries = _menu.acrn_entries(self._root.text(self.menu_file, "")) + _menu.acrn_entries(self._custom())
        return [entry for entry in entries if not entry.id.startswith(ID_PREFIX)]

    def _custom(self) -> str:
        # What a user has beside the menu, and GRUB reads with it.
        path = os.path.join(os.path.dirname(self.menu_file), _grub.CUSTOM)
        return self._root.text(path, "") if _grub.reads_custom(self._root.text(self.menu_file, "")) else ""

    def offers(self, entry: str) -> bool:
        """Whether an entry of this collection is in the menu."""
        return f" --id {ID_PREFIX}{entry} {{" in self._root.text(self.menu_file, "")

    def check_default(self, entry: str | None) -> None:
        """Raise IvshmemError if the default is not known, though ``entry`` was made the default."""
        if self.env().get(_grub.DEFAULT) is None and entry:
            key = key_of(entry)
            raise IvshmemError(
                f"{self._grubenv}: it does not tell of {entry}, which was made the default, so it was emptied or "
                f"removed, and the next boot is the host's own. Make {key} the default again (playbook "
                f"acrn.ivshmem.install with hypervisor_key={key}), or stay with the host's own entry (playbook "
                "acrn.ivshmem.remove)"
            )

    def _check_kind(self, path: str, mend: str) -> None:
        """Raise IvshmemError if a directory or FIFO is where a file should be, before anything else is changed."""
        if os.path.exists(path) and not os.path.isfile(path):
            raise IvshmemError(f"{path}: {NO_FILE}; move it away, {mend}, and run this again")

    def _check_kinds(self) -> None:
        self._check_kind(self.menu_file, f"make the menu anew ({self._maker()})")
        self._check_kind(self._script, "look whose it is")

    def _maker(self) -> str:
        """The command that makes this host's menu."""
        return "update-grub" if self._folder == "grub" else f"grub2-mkconfig -o {self.menu_file}"

    def untouched(self) -> bool:
        """Whether nothing of this collection is in the boot loader, which need not be there."""
        self._check_kinds()
        menu, env = self._root.text(self.menu_file, "", _LONGEST_MENU), self._seen_env()
        return (
            not any(os.path.lexists(path) for path in (self._script, *self._old_scripts))
            and _grub.splice(menu, None) == menu
            and _grub.DEFAULT not in env
            and _grub.TRIED not in env
            and entry_of_id(env.get(_grub.NEXT)) is None
        )

    def folders(self) -> list[str]:
        """Directories in which files are made."""
        return [os.path.dirname(self._script), os.path.dirname(self.menu_file)]

    def _place(self, path: str) -> Place:
        """A path as GRUB sees it. The path need not be there; the directory that holds it must."""
        near = path
        while not os.path.exists(near):
            near = os.path.dirname(near)
        uuid = self._root.ask(self._tool("probe"), "--target=fs_uuid", near)
        own = self._root.ask(self._tool("mkrelpath"), near)
        return Place(uuid, own.rstrip("/") + path[len(near.rstrip("/")) :] if near != path else own)

    def render(
        self,
        title: str,
        key: str,
        image: str,
        arguments: str,
        modules: Sequence[tuple[str, str]],
        packed: Sequence[str],
    ) -> tuple[str, str]:
        """Name and text of an entry, from paths on the host: see _grub.render_entry."""
        places = {path: self._place(path) for path, _tag in modules}
        return _grub.render_entry(
            title,
            key,
            self._place(image),
            arguments,
            [(places[path], tag) for path, tag in modules],
            [places[path] for path in packed],
        )

    def check_there(self) -> None:
        """Raise IvshmemError if the file system with the menu is not there, so that nothing could be told of it, or
        the menu has nothing in it, not even the host's own entry.
        """
        self._check_kinds()
        boot = self._root.path("boot")
        lines = self._root.text(self._root.path("etc/fstab"), "").splitlines()
        named = any(re.match(r"\s*[^#\s]\S*\s+/boot/?\s", line) for line in lines)
        if named and (not os.path.isdir(boot) or not os.listdir(boot)):
            raise IvshmemError(
                f"{boot}: /etc/fstab names a file system for it, and it is empty, so that is not mounted; mount it "
                "(mount /boot), and run this again"
            )
        if os.path.isfile(self.menu_file) and not self._root.text(self.menu_file, "", _LONGEST_MENU).strip():
            raise IvshmemError(
                f"{self.menu_file}: the menu is empty, so that the host boots nothing by it, not even its own entry; "
                f"make the menu anew ({self._maker()}), and run this again"
            )

    def check_loader(self) -> None:
        """Raise IvshmemError with the reason if this host has no GRUB menu that this collection knows."""
        self.check_there()
        if os.path.exists(self.menu_file):
            return
        mend = "install GRUB 2 (update-grub, or grub2-mkconfig -o /boot/grub2/grub.cfg), which loads ACRN by multiboot2"
        for path in sorted(
            glob.glob(self._root.path("boot/efi/EFI/*/grub.cfg")) + glob.glob(self._root.path("efi/EFI/*/grub.cfg"))
        ):
            if "### BEGIN /" in self._root.text(path):
                raise IvshmemError(
                    f"{path}: the menu is on the EFI system partition, whose FAT cannot replace a file so that the "
                    "power may go; make it in /boot/grub2, and a grub.cfg here that reads it (as Fedora 34 and later)"
                )
        for name in ("boot/loader", "efi/loader", "boot/efi/loader"):
            if os.path.exists(self._root.path(f"{name}/loader.conf")):
                raise IvshmemError(f"/{name}/loader.conf: this host boots through systemd-boot, and not GRUB; {mend}")
        for pattern in ("boot/EFI/Linux/*.efi", "efi/EFI/Linux/*.efi", "boot/efi/EFI/Linux/*.efi"):
            for path in glob.glob(self._root.path(pattern)):
                raise IvshmemError(f"{path}: this host boots unified kernel images, and not GRUB's menu; {mend}")
        for name in ("boot/extlinux/extlinux.conf", "boot/syslinux/syslinux.cfg", "boot/refind_linux.conf"):
            if os.path.exists(self._root.path(name)):
                raise IvshmemError(f"/{name}: this host boots through another boot loader than GRUB; {mend}")
        raise IvshmemError(
            "there is no grub.cfg in /boot/grub or /boot/grub2, so this host does not boot through GRUB, or /boot is "
            f"not mounted; {mend}"
        )

    def check_tools(self) -> None:
        """Raise IvshmemError if the program that a new menu is held against is not there."""
        name = self._tool("script-check")
        code, output, errors = self._root.run([name, "--version"])
        if code != 0:
            raise IvshmemError(
                f"{name}, which reads a new {self.menu_file} before GRUB does, cannot be run: "
                f"{(errors or output).strip()}; install GRUB's tools (Debian: grub-common, Fedora: grub2-tools), or "
                "add their directory to PATH"
            )

    def check_menu(self) -> None:
        """Raise IvshmemError if this menu cannot take our entries."""
        self.check_loader()
        self.check_tools()
        self.env()
        menu = self._root.text(self.menu_file)
        try:
            _grub.check_menu(menu)
        except IvshmemError as exc:
            raise IvshmemError(f"{self.menu_file}: {exc}") from exc
        _grub.check_default(self._custom(), os.path.join(os.path.dirname(self.menu_file), _grub.CUSTOM))

    def warn_of_menu(self) -> None:
        """Tell what may keep a trial from beginning."""
        menu = self._root.text(self.menu_file)
        if _grub.waits_for_ever(menu):
            self._root.warnings.append(
                f"{self.menu_file}: GRUB waits for ever at its menu (GRUB_TIMEOUT=-1), and no trial boot begins until "
                "somebody chooses it"
            )
        if not glob.glob(self._root.path(f"boot/{self._folder}/*/multiboot2.mod")):
            self._root.warnings.append(
                f"/boot/{self._folder}: there is no multiboot2.mod, without which GRUB may not load ACRN; install "
                "GRUB's modules (Fedora: grub2-efi-x64-modules)"
            )

    def check_one_shot(self) -> None:
        """Raise IvshmemError if GRUB could not clear next_entry, so that a trial boot would be repeated for ever, or
        if the next boot belongs to somebody else.
        """
        folder = os.path.dirname(os.path.realpath(self._grubenv))
        for wanted, why in ((folder, "grubenv"), (os.path.dirname(self._script), "GRUB's scripts")):
            if not os.path.isdir(wanted):
                raise IvshmemError(f"{wanted}, the place of {why}, is no directory on this host; mount or make it")
        self._check_room()
        abstraction = self._root.ask(self._tool("probe"), "--target=abstraction", folder)
        kind = self._root.ask(self._tool("probe"), "--target=fs", folder)
        if abstraction or kind in _READ_ONLY:
            raise IvshmemError(
                f"{folder} is on {abstraction or kind}, where GRUB cannot write: it would boot a "
                "hypervisor that hangs again and again; "
                "put /boot on a plain partition with ext4"
            )
        other = self.env().get(_grub.NEXT)
        if other and entry_of_id(other) is None:
            raise IvshmemError(
                f"{self._grubenv}: the next boot is set to {other!r} already ({self._tool('reboot')}), and a trial "
                f"would take its place; reboot first, or take it back: {self._tool('editenv')} - unset {_grub.NEXT}"
            )

    def _check_room(self) -> None:
        """Raise IvshmemError if grubenv could not hold all that a trial and a default write into it."""
        try:
            block = read_file(self._grubenv, _grub.ENV_LIMIT, b"") or _grub.NEW_ENV
            most = {_grub.NEXT: ID_PREFIX + _LONGEST, _grub.DEFAULT: _LONGEST, _grub.TRIED: _LONGEST}
            _grub.change_env(block, most)
        except IvshmemError as exc:
            raise IvshmemError(named(self._grubenv, exc)) from exc

    # ---- writing; each of these is a whole step, and does nothing in check mode but say that it would ----

    def arm(self, entry: str) -> None:
        """Let the next boot, and no other, be that of an entry."""
        self._set_env({_grub.NEXT: ID_PREFIX + entry, _grub.TRIED: None}, "trial boot")

    def disarm(self) -> None:
        """Let the next boot be that of the default."""
        self._set_env({_grub.NEXT: None}, "no trial boot")

    def set_default(self, entry: str | None, disarm: bool = False) -> None:
        """Make an entry the default (None: that of the host), and with ``disarm`` of the next boot as well."""
        self._set_env({_grub.DEFAULT: entry, **({_grub.NEXT: None} if disarm else {})}, "default")

    def forget(self, disarm: bool) -> None:
        """Take out the state that is ours; the entries are set_menu's."""
        try:
            known = self.env()
        except IvshmemError as exc:
            known = {}
            if not self.untouched():
                self._root.warnings.append(f"{exc}. It is left as it is: GRUB takes it for an empty one")
        if known:
            gone = {_grub.DEFAULT: None, _grub.TRIED: None, **({_grub.NEXT: None} if disarm else {})}
            self._set_env(gone, "default")

    def signs(self) -> bool:
        """Whether a change of the menu makes a file that has to be signed."""
        return os.path.exists(self._script)

    def _set_env(self, changes: Mapping[str, str | None], what: str) -> None:
        """Change variables of grubenv by one write of one block, as GRUB does."""
        before = read_file(self._grubenv, _grub.ENV_LIMIT, b"")
        fresh = before or _grub.NEW_ENV
        after = _grub.change_env(fresh, changes)
        if after == before or (not before and after == fresh) or not self._root.begin(what, self._grubenv):
            return
        if not before:
            replace(self._grubenv, after, 0o644)
            return
        descriptor = os.open(self._grubenv, os.O_WRONLY)
        try:
            with naming(self._grubenv):
                os.pwrite(descriptor, after, 0)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def set_menu(self, texts: Sequence[str] | None, sign: str) -> tuple[str, str]:
        """Bring our entries into the menu, or (None) take them out, and return grub.cfg before and after."""
        # There is nothing to take out of a file that is not there.
        before = self._menu.get(self.menu_file) or (
            self._root.text(self.menu_file, "", _LONGEST_MENU) if texts is None else self._root.text(self.menu_file)
        )
        section = None if texts is None else _grub.render_section(texts)
        after = _grub.splice(before, section)
        script = "" if section is None else _grub.render_script(section)
        written = self._menu.get(self._script, self._root.text(self._script, ""))
        # grub-mkconfig passes over one that is not executable.
        idle = section is not None and self._script not in self._menu and not os.access(self._script, os.X_OK)
        if (written != script or idle) and self._root.begin(_grub.SCRIPT, self._script):
            if section is None:
                forget(self._script)
                sync_directory(os.path.dirname(self._script))
            else:
                replace(self._script, script.encode("utf-8", "surrogateescape"), 0o755)
        for path in self._old_scripts:
            if os.path.lexists(path) and self._root.begin(path, path):
                forget(path)
                sync_directory(os.path.dirname(path))
        if after != before and self._root.begin("grub.cfg", self.menu_file):
            self._replace_menu(after, sign)
        self._menu = {self.menu_file: after, self._script: script}
        return before, after

    def _replace_menu(self, text: str, sign: str) -> None:
        folder, name = os.path.split(os.path.realpath(self.menu_file))
        fresh, target = os.path.join(folder, f".{name}.{FRESH}"), os.path.join(folder, name)
        info = os.stat(self.menu_file)
        with making(fresh + SIGNATURE), making(fresh):
            write_new(fresh, text.encode("utf-8", "surrogateescape"), stat.S_IMODE(info.st_mode))
            code, output, errors = self._root.run([self._tool("script-check"), fresh])
            if code != 0:
                raise IvshmemError(
                    f"{self._tool('script-check')} refuses the new grub.cfg, and the old one stays: "
                    f"{(errors or output).strip()}"
                )
            if sign:
                self.sign(sign, fresh)
                os.rename(fresh + SIGNATURE, target + SIGNATURE)
            os.rename(fresh, target)
        sync_directory(folder)

    def sign(self, sign: str, path: str) -> None:
        """Sign a file. The signature lies beside it, since the file has to stay what its digest says."""
        forget(path + SIGNATURE)
        self._root.ask(*shlex.split(sign), path)
        try:
            handle = os.open(path + SIGNATURE, os.O_RDONLY)
        except FileNotFoundError as exc:
            raise IvshmemError(
                f"{sign}: this left no {path}{SIGNATURE}, where GRUB looks for the signature; "
                "use a command that makes a detached one, such as gpg --batch --detach-sign"
            ) from exc
        try:
            with naming(path + SIGNATURE):
                os.fsync(handle)
        finally:
            os.close(handle)
