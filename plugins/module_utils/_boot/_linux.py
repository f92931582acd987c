# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the Service VM's Linux needs of its boot entry: a kernel, its initrd, and a root that these two can find.

No file is read here.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import MARKER

# MAX_BOOTARGS_SIZE (hypervisor/boot/include/boot.h): scenario and entry together, and the zero at the end. What does
# not fit is left out as a whole, and with it the word that names the entry.
BOOTARGS_SIZE = 2048

# How arguments name a root that the kernel itself resolves (init/do_mounts.c name_to_dev_t); anything else is for an
# initrd: UUID=, LABEL=, ZFS=, what dracut knows, names with a slash (LVM, /dev/mapper, /dev/disk), and devices that
# somebody has to put together first.
_BY_KERNEL = re.compile(
    r"PART(?:UUID|LABEL)=.+|/dev/(?:(?:cciss|ida|rd)/)?(?!dm-|md|bcache|drbd|nbd)[^/]+|[0-9]+:[0-9]+(?::.*)?|[0-9a-fA-F]+"
    r"|(?:mtd|ubi).+"
)
# What says where the root is, and how it is mounted. Of rd.* (dracut) there may be several.
_ROOT_KEYS = ("root", "rootflags", "rootfstype", "rootwait", "rootdelay", "nfsroot", "ostree", "zfs", "bootfs")
_MODES = ("rw", "ro")
_INITRD_KEYS = re.compile(r"rd\..+|rd_.+|cryptdevice|cryptopts|cryptkey|luks(\..+)?")
# What a boot loader or this collection adds, and what is not the entry's own.
_NOT_OWN = ("BOOT_IMAGE", "initrd", MARKER, "panic")

# By the names that kernels of distributions and of ACRN have (grub.d/10_linux, ACRN's debian/grub/25_linux_acrn).
KERNELS = ("vmlinuz-*", "vmlinux-*", "kernel-*", "bzImage-*", "linux-*")
CONFIGS = (
    "boot/config-{}",
    "lib/modules/{}/config",
    "usr/lib/modules/{}/config",
    "etc/kernels/kernel-config-{}",
    "lib/modules/{}/build/.config",
)
INITRDS = (
    "initrd.img-{}",
    "initrd-{}.img",
    "initrd-{}.gz",
    "initrd-{}",
    "initramfs-{}.img",
    "initramfs-genkernel-{}",
    "initramfs-genkernel-x86-{}",
    "initramfs-genkernel-x86_64-{}",
)


# What kernel-install puts beside a kernel of this name, in a directory of the version.
PLAIN = {"linux": "initrd"}


def key(word: str) -> str:
    """The name of a kernel argument."""
    return word.partition("=")[0]


def release(name: str) -> str:
    """The release in the name of a kernel's file, such as 6.1.80 in ``vmlinuz-6.1.80``; empty where there is none."""
    return name.partition("-")[2]


def release_of_image(head: bytes) -> str:
    """The release that a bzImage tells in its header (Documentation/arch/x86/boot.rst); empty for another image."""
    if head[0x202:0x206] != b"HdrS":
        return ""
    at = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    words = head[at : at + 128].split(b"\0")[0].split()
    return words[0].decode("latin-1") if words else ""


# ---- the kernel ----


def drivers(version: str) -> tuple[str, ...]:
    """The options of a kernel that can be a Service VM's. acrn-dm of v2.x opens /dev/acrn_vhm of older kernels too."""
    return ("CONFIG_ACRN_HSM",) if not version.lstrip("v").startswith("2.") else ("CONFIG_ACRN_HSM", "CONFIG_ACRN_VHM")


def service_vm_kernels(configs: Mapping[str, str], options: Iterable[str]) -> list[str]:
    """Releases of the kernels that can be a Service VM's, the best first. ``configs``: release -> text of its config.

    A generic distribution kernel may have CONFIG_ACRN_HSM too, so one that is named for ACRN comes first.
    """

    def order(name: str) -> tuple[bool, list[tuple[int, str]]]:
        words = re.findall(r"(\d+)|([A-Za-z]+)", name)
        return ("acrn" in name, [(int(number or -1), word) for number, word in words])

    wanted = "|".join(options)
    fitting = [name for name, text in configs.items() if re.search(rf"^(?:{wanted})=[ym]\s*$", text, re.M)]
    return sorted(fitting, key=order, reverse=True)


# ---- the root ----


def root_of(words: Iterable[str]) -> str:
    """The value of the last ``root=``, which is the one that counts; empty where there is none."""
    return next((word[5:] for word in reversed(list(words)) if word.startswith("root=")), "")


def _rooted(words: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """What a kernel with these arguments goes by: the last of each key, and what only an initrd reads."""
    last: dict[str, str] = {}
    several: list[str] = []
    for word in words:
        if key(word) in _ROOT_KEYS:
            last[key(word)] = word
        elif word in _MODES:
            last[_MODES[0]] = word
        elif _INITRD_KEYS.fullmatch(key(word)) and word not in several:
            several.append(word)
    return last, several


def root_arguments(
    words: Iterable[str], initrd: bool, scenario: Iterable[str] = (), chosen: Iterable[str] = ()
) -> list[str]:
    """All of a command line that says where the root is and how it is mounted, root= first; without what only an
    initrd reads.

    The kernel of a Service VM runs with what the ``scenario`` gives, then the entry, at its end what a user has
    ``chosen``. None of that is the entry's own: once it runs, it would be taken for another one than is wanted.
    """
    last, several = _rooted(words)
    given, for_initrd = _rooted(scenario)
    own, own_for_initrd = _rooted(chosen)
    kept = [last["root"]] if "root" in last else []
    for name in (*_ROOT_KEYS[1:], _MODES[0]):
        # A kernel mounts its root read-only by itself.
        if name in last and name not in own and last[name] not in (given.get(name), "ro"):
            kept.append(last[name])
    return kept + [word for word in several if initrd and word not in (*for_initrd, *own_for_initrd)]


def needs_initrd(root: str, made_by_udev: bool = False) -> bool:
    """Whether a kernel cannot find this root by itself. ``made_by_udev``: it is a link or a mapped device."""
    return made_by_udev or not _BY_KERNEL.fullmatch(root)


# ---- arguments ----


def own_arguments(words: Iterable[str]) -> list[str]:
    """The arguments of an entry that the collection would not give by itself, as hypervisor_cmdline takes them."""
    ours = (*_ROOT_KEYS, *_NOT_OWN)
    # Behind -- are those of the first process.
    kept = [
        word
        for word in itertools.takewhile(lambda word: word != "--", words)
        if key(word) not in ours and "$" not in word
    ]
    return [word for word in kept if not _INITRD_KEYS.fullmatch(key(word))]


def lacking(used: Iterable[str], given: Collection[str]) -> list[str]:
    """The arguments in use that a new entry does not have, each once."""
    return [word for word in dict.fromkeys(own_arguments(used)) if word not in given]
