# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tree of ACRN's source: which of its files a build reads, and what git says of it.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._ask import ask
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import Tree, Version
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import read_file, walk
from ansible_collections.acrn.ivshmem.plugins.module_utils._process import run_apart
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import version_of_tree

# The build time in the binary of a tree without git history: 2020-01-01 00:00:00 UTC.
DEFAULT_EPOCH = 1577836800

# What the hypervisor build reads of a tree, and what lies between but is not read: board and scenario data (they are
# inputs of their own) and the tools that write or show configurations.
_TREE_PARTS = (
    "Makefile",
    "VERSION",
    "LICENSE",
    "paths.make",
    "hypervisor",
    "misc/hv_prebuild",
    "misc/config_tools",
    "misc/acrn-config",
)
_TREE_EXCLUDED = {
    "hypervisor/build",
    "misc/config_tools/data",
    "misc/config_tools/configurator",
    "misc/config_tools/config_app",
    "misc/config_tools/launch_config",
    "misc/acrn-config/xmls",
    "misc/acrn-config/config_app",
    "misc/acrn-config/launch_config",
}
_LITTER = (".pyc", ".o", ".swp", "~")

# Programs by the text that shows a tree's need of them, with the Debian package that has them.
PROGRAMS = (
    ("iasl", re.compile(rb"\biasl\b"), "acpica-tools"),
    ("xsltproc", re.compile(rb"\bxsltproc\b"), "xsltproc"),
    ("xmllint", re.compile(rb"\bxmllint\b"), "libxml2-utils"),
)
_COMPILES = re.compile(rb"\$[({]CC[)}]")
_LIBRARIES = ("lxml", "defusedxml", "elementpath", "xmlschema", "kconfiglib")
_IMPORT = re.compile(rb"^[ \t]*(?:import|from)[ \t]+(lxml|defusedxml|elementpath|xmlschema|kconfiglib)\b", re.MULTILINE)


def _tree_files(source: str) -> Iterator[str]:
    for part in _TREE_PARTS:
        top = os.path.join(source, part)
        if os.path.isdir(top):
            for folder, folders, names in walk(top):
                inside = os.path.relpath(folder, source)
                folders[:] = sorted(
                    name
                    for name in folders
                    if name not in ("__pycache__", ".git") and f"{inside}/{name}" not in _TREE_EXCLUDED
                )
                links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
                yield from (f"{inside}/{name}" for name in sorted(names + links) if not name.endswith(_LITTER))
        elif os.path.lexists(top):
            yield part


def _link_target(path: str) -> bytes:
    return b"link " + os.fsencode(os.readlink(path)) if os.path.islink(path) else b"file"


def read_tree(source: str) -> Tree:
    """Digest what the hypervisor build reads of a tree, local changes included, with git or without.

    Raises IvshmemError where the directory is no ACRN tree of v2.2 or later.
    """
    version, text = _identified(source)
    total, needed = hashlib.sha256(), _Needed()
    for name in _tree_files(source):
        path = os.path.join(source, name)
        total.update(os.fsencode(name) + b"\0" + _link_target(path) + b"\0")
        if not os.path.isfile(path):
            continue
        try:
            with open(path, "rb") as handle:
                data = handle.read()
        except OSError as exc:
            raise IvshmemError(f"{path}: cannot be read: {exc.strerror}") from exc
        total.update(hashlib.sha256(data).digest())
        needed.add(name, data)
    if version >= (2, 4):
        needed.libraries.discard("kconfiglib")  # v2.4 still has the files that use it, but no longer runs them
    extra = re.search(r"^EXTRA_VERSION=(\S*)", text, re.MULTILINE)
    return Tree(
        path=source,
        version=version,
        version_text=f"{version[0]}.{version[1]}{extra.group(1) if extra else ''}",
        digest=total.hexdigest(),
        programs=tuple(sorted(needed.programs)),
        libraries=tuple(name for name in _LIBRARIES if name in needed.libraries),
        compiles=needed.compiles,
        git=read_git(source, version),
    )


def _identified(source: str) -> tuple[tuple[int, int], str]:
    """The version of a tree, and the text of its file VERSION. Raises IvshmemError where it is no ACRN tree."""
    if not os.path.isdir(source):
        raise IvshmemError(
            f"{source}: there is no such directory; it has to be an ACRN source tree (option source, acrn_source in an "
            "inventory)"
        )
    try:
        text = read_file(os.path.join(source, "VERSION"), 65536).decode("utf-8", "replace")
    except IvshmemError:
        text = ""
    version = version_of_tree(text)
    if version is None or not os.path.isfile(os.path.join(source, "hypervisor", "Makefile")):
        raise IvshmemError(
            f"{source}: is no ACRN source tree: it needs a VERSION file with MAJOR_VERSION and MINOR_VERSION, "
            "and hypervisor/Makefile"
        )
    if version < (2, 2):
        raise IvshmemError(f"{source}: is ACRN v{version[0]}.{version[1]}; shared memory regions came with v2.2")
    return version, text


class _Needed:
    """What the files of a tree ask of a builder."""

    def __init__(self) -> None:
        self.programs: set[str] = set()
        self.libraries: set[str] = set()
        self.compiles = False

    def add(self, name: str, data: bytes) -> None:
        base = os.path.basename(name)
        if base.endswith((".mk", ".sh")) or base == "Makefile" or "/acpi_gen/" in name:
            self.programs.update(program for program, pattern, _package in PROGRAMS if pattern.search(data))
        if name == "hypervisor/Makefile":
            self.compiles = bool(_COMPILES.search(data))
        if base.endswith(".py"):
            self.libraries.update(match.decode() for match in _IMPORT.findall(data))
        elif base == "kconfig.mk" and b"kconfiglib" in data:
            self.libraries.add("kconfiglib")


def git_environment(source: str) -> dict[str, str]:
    # ACRN's makefiles ask git about the directory that they run in. Without this a tree without .git that happens to
    # lie in somebody's repository would carry that repository's state into the binary.
    return {"GIT_CEILING_DIRECTORIES": os.path.dirname(os.path.realpath(source)), "LC_ALL": "C"}


def read_git(source: str, version: Version) -> dict[str, Any] | None:
    """What of the git state goes into the binary (hypervisor/Makefile, rule of version.h), or None without git."""
    if not os.path.lexists(os.path.join(source, ".git")) or not shutil.which("git"):
        return None
    environment = {**os.environ, **git_environment(source)}

    def git(*args: str) -> str:
        return ask(["git", "-C", source, *args], environment).strip()

    # Where git sees no repository or no commit there is nothing to tell, in ACRN's makefiles neither; whatever else it
    # fails at would make another key.
    words = ["git", "-C", source, "rev-parse", "--verify", "--quiet", "HEAD"]
    code, found, told = run_apart(words, environment)
    if (code, found, told) == (1, "", "") or (
        code == 128 and re.search("not a git repository|dubious ownership", told)
    ):
        return None
    commit = git("rev-parse", "HEAD")
    # "describe --dirty" also refreshes the index, without which diff-index takes a touched file for a changed one.
    state: dict[str, Any] = {
        "commit": commit,
        "describe": git("describe", "--dirty", "--always"),
        "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
        "tags": sorted(git("tag", "--points-at", "HEAD").split()),
        "dirty": bool(git("diff-index", "--name-only", "HEAD")),
        "commit_time": int(git("log", "-1", "--no-show-signature", "--format=%ct") or DEFAULT_EPOCH),
    }
    if version < (3, 2):
        merged = git("tag", "--merged", "HEAD").split()
        state["daily_tag"] = next((tag for tag in reversed(merged) if "acrn" in tag), "")
    return state
