# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with the packages of ACRN: grub-acrn and the launch tools read board and scenario in /usr/share/acrn.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._artifact import BOARD, SCENARIO, Artifact
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._files import (
    FRESH,
    copy,
    forget,
    making,
    sync_directory,
    write_new,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._host import Host
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import digest_of, digest_or_none


def _movable(path: str) -> bool:
    """Whether what is at a path is a file or a link, which can be copied and replaced, and no directory or FIFO."""
    return os.path.islink(path) or os.path.isfile(path)


def _in_the_way(path: str, kept: str) -> str:
    """What is no file where one is to be kept or replaced, if anything."""
    there = [each for each in (path, kept) if os.path.lexists(each) and not _movable(each)]
    folder = os.path.dirname(kept)
    if os.path.lexists(folder) and not os.path.isdir(folder):
        return f"{folder} is no directory"
    return f"{there[0]} is no file" if there else ""


def sync(host: Host, artifact: Artifact) -> None:
    """Keep /usr/share/acrn/{board,scenario}.xml in step, where a package made them."""
    for name in (BOARD, SCENARIO):
        path = host.path(f"usr/share/acrn/{name}")
        source = os.path.join(host.boot_dir, artifact.key, name)
        if not os.path.lexists(path) or not os.path.exists(source) or digest_of(source) == digest_or_none(path):
            continue
        kept = os.path.join(host.boot_dir, "before", name)
        odd = _in_the_way(path, kept)
        if odd:
            host.warnings.append(f"{path} is not that of the hypervisor: {odd}; move it away, and run this again")
            continue
        if not host.begin(path, path):
            continue
        if not os.path.lexists(kept):
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            copy(path, kept)
        # The link is replaced, not what it points to: that belongs to the package.
        fresh = os.path.join(os.path.dirname(path), f".{name}.{FRESH}")
        with making(fresh), open(source, "rb") as handle:
            write_new(fresh, handle.read(), 0o644)
            os.rename(fresh, path)
        sync_directory(os.path.dirname(path))


def restore(host: Host) -> None:
    """Give back what sync replaced."""
    for name in (BOARD, SCENARIO):
        kept, path = os.path.join(host.boot_dir, "before", name), host.path(f"usr/share/acrn/{name}")
        # Where the package has been removed since, nothing is to be given back, and the copy goes with the rest.
        if not os.path.isdir(os.path.dirname(path)):
            continue
        if not _movable(kept) or _in_the_way(path, kept):
            _tell_lost(host, path, kept)
            continue
        if not host.begin(path, path):
            continue
        copy(kept, path)
        forget(kept)


def _tell_lost(host: Host, path: str, kept: str) -> None:
    mend = "install again the package that it belongs to"
    if os.path.lexists(path) and not _movable(path):
        host.warnings.append(f"{path} is left as it is: it is no file; move it away, and {mend}")
        return
    digest = digest_or_none(path)
    builds = (os.path.join(host.boot_dir, key, os.path.basename(path)) for key in host.builds())
    if digest and digest in map(digest_or_none, builds):
        what = "is no file any more" if os.path.lexists(kept) else "is gone"
        host.warnings.append(f"{path} stays that of a build: the copy of what was there before, {kept}, {what}; {mend}")
