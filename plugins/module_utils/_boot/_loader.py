# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the installation of a hypervisor asks of a boot loader, and which one a host has.

A loader can boot an entry once (a trial) and then comes back to the default by itself, whatever the entry does. It
tells from its own notes whether a trial began. For another one than GRUB: a class with these members, and a line in
loader_of().

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import Boot
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._files import Root
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._grub_loader import Grub
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._menu import AcrnEntry


class Loader(Protocol):
    """A boot loader. Paths are those of the host. All but reading does nothing in check mode but say that it would."""

    signature: str  # how the name of a file's signature goes on
    menu_file: str  # what a second run of the installation is kept away from, and what a diff is of

    def boot(self) -> Boot:
        """How the host is booted and how it will be."""

    def own_entries(self) -> list[AcrnEntry]:
        """The entries of the host, and not of this collection, that boot ACRN."""

    def offers(self, entry: str) -> bool:
        """Whether an entry of this collection is in the menu."""

    def check_default(self, entry: str | None) -> None:
        """Raise IvshmemError if the default cannot be read, or is not known though ``entry`` was made the default."""

    def untouched(self) -> bool:
        """Whether nothing of this collection is in the boot loader, which need not be there."""

    def check_tools(self) -> None:
        """Raise IvshmemError if a program that a change of the menu needs is not there."""

    def check_there(self) -> None:
        """Raise IvshmemError if the menu is there only after a mount, or was emptied."""

    def check_menu(self) -> None:
        """Raise IvshmemError if the host has another boot loader, or a menu that cannot take our entries."""

    def check_one_shot(self) -> None:
        """Raise IvshmemError if an entry cannot be booted just once, or the next boot belongs to somebody else."""

    def warn_of_menu(self) -> None:
        """Tell, in warnings of the host, what may keep a trial from beginning."""

    def render(
        self,
        title: str,
        key: str,
        image: str,
        arguments: str,
        modules: Sequence[tuple[str, str]],
        packed: Sequence[str],
    ) -> tuple[str, str]:
        """Name and text of an entry: the hypervisor, arguments of the Service VM, files with their tags, and those of
        them that stay packed.
        """

    def set_menu(self, texts: Sequence[str] | None, sign: str) -> tuple[str, str]:
        """Make these our entries (None: take out all that is ours), and return the menu before and after."""

    def arm(self, entry: str) -> None:
        """Let the next boot, and no other, be that of an entry."""

    def disarm(self) -> None:
        """Let the next boot be that of the default."""

    def set_default(self, entry: str | None, disarm: bool = False) -> None:
        """Make an entry the default (None: that of the host), and with ``disarm`` of the next boot as well."""

    def forget(self, disarm: bool) -> None:
        """Take out the state that is ours; the entries are set_menu's."""

    def signs(self) -> bool:
        """Whether a removal changes a file that has to be signed."""

    def sign(self, sign: str, path: str) -> None:
        """Sign a file with a command. Raises IvshmemError."""

    def folders(self) -> list[str]:
        """Directories in which files are made."""


def loader_of(root: Root) -> Loader:
    """The boot loader of a host. That there is none is told by its check_menu()."""
    return Grub(root)
