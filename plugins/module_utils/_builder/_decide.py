# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a build is made from, and the key of all that goes into its bytes.

This module util is PRIVATE to the collection: it can change at any time.

What is made is kept under that key, whole or not at all. ACRN's own make decides by file times and names what to make
again, and gets it wrong in several ways; so each build starts from nothing, in one canonical directory (that also is
what lets ccache help).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import (
    BuiltRegion,
    Plan,
    Request,
    Tree,
    Version,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tools import (
    check_python,
    find_programs,
    find_python,
    probe_python,
    toolchain_of,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tree import (
    DEFAULT_EPOCH,
    git_environment,
    read_tree,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import REGION_IDS_SINCE, V3_FIRST
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import read_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import HYPERVISOR, IvshmemError, some
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import ERROR
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rules import check
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario, read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V3
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document

# Part of every key: raise it when the way of building changes so that old artefacts no longer stand for new ones.
FORMAT = 1
BUILD_USER = "acrn"

# The module decides about these; the build would not be the one that the key stands for.
_OWN_VARIABLES = {
    *("O", "HV_OBJDIR", "HV_OUT", "ROOT_OUT", "TARGET_DIR", "MAKEFLAGS"),
    *("BOARD", "SCENARIO", "RELEASE", "BOARD_FILE", "SCENARIO_FILE", "KCONFIG_FILE"),
}
_OWN_ENVIRONMENT = ("MAKEFLAGS", "GNUMAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEFILES", "BASH_ENV", "ENV", "LC_ALL")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
# make and ACRN's scripts take paths apart at white space and expand $; sed and make patterns have # and %.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@,=~-]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def _existing(value: str, candidates: Sequence[str], what: str) -> str:
    if os.path.isfile(value):
        return os.path.abspath(value)
    if _PLAIN_NAME.fullmatch(value):
        for candidate in candidates:
            if os.path.isfile(candidate):
                return candidate
    if not value:
        where = f"name its XML file, or one that the ACRN tree has (acrn_{what} in an inventory)"
        raise IvshmemError(f"no {what} is given; {where}")
    tried = [value, *candidates] if _PLAIN_NAME.fullmatch(value) else [value]
    raise IvshmemError(f"{what} '{value}': there is no such file (looked for {', '.join(tried)})")


def _find_inputs(request: Request) -> tuple[str, str]:
    data = os.path.join(request.source, "misc", "config_tools", "data")
    old = os.path.join(request.source, "misc", "acrn-config", "xmls")
    board = _existing(
        request.board,
        [f"{data}/{request.board}/{request.board}.xml", f"{old}/board-xmls/{request.board}.xml"],
        "board",
    )
    if request.scenario_content is not None:
        return board, request.scenario
    folder = os.path.basename(board)[: -len(".xml")] if board.endswith(".xml") else request.board
    scenario = _existing(
        request.scenario,
        [f"{data}/{folder}/{request.scenario}.xml", f"{old}/config-xmls/{folder}/{request.scenario}.xml"],
        "scenario",
    )
    return board, scenario


def scenario_name(path: str, scenario: Scenario, wanted: str | None) -> str:
    """The name that goes into the binary: the wanted one, or the one that ACRN's make would take.

    That is the scenario attribute up to v2.7, and later the file's name, or its directory's for ``scenario.xml``
    (hypervisor/scripts/makefile/config.mk, determine_config). Raises IvshmemError for a name that make cannot take.
    """
    name = wanted
    if not name and scenario.dialect != V3:
        name = scenario.name
    if not name:
        name = os.path.basename(path)
        name = name[: -len(".xml")] if name.endswith(".xml") else name
        if name == "scenario":
            name = os.path.basename(os.path.dirname(os.path.abspath(path)))
    if not _PLAIN_NAME.fullmatch(name) or name.endswith(".xml"):
        raise IvshmemError(
            f"{path}: '{name}' cannot be a scenario name: make and the file system take letters, digits, _, . and -; "
            "give another one in the name parameter"
        )
    return name


def _named(data: bytes, scenario: Scenario, name: str, where: str) -> bytes:
    """The scenario with its name in the place where ACRN up to v2.7 reads it; later versions take the file's name."""
    if scenario.dialect == V3 or scenario.name == name:
        return data
    document = scenario.document
    start, end = document.root.start, document.root.body
    tag = document.source[start:end]
    if b"scenario" in tag:
        tag = re.sub(rb"""(\sscenario\s*=\s*)("[^"]*"|'[^']*')""", rb'\g<1>"' + name.encode() + b'"', tag, count=1)
    else:
        tag = tag.replace(b"<acrn-config", b'<acrn-config scenario="' + name.encode() + b'"', 1)
    changed = document.encode(document.source[:start] + tag + document.source[end:])
    if read_scenario(changed, where).name != name:
        raise IvshmemError(f"{where}: the scenario attribute of its root cannot be set to '{name}'; set it there")
    return changed


def expected_regions(scenario: Scenario, version: Version) -> tuple[BuiltRegion, ...]:
    """The regions that a hypervisor of this scenario must have.

    Those provided by the hypervisor. A ``dm:/`` text in a scenario of v2.x is compiled in like the others. v2.x has
    none while IVSHMEM_ENABLED is not ``y``. Region IDs go in from v3.3 on. Raises IvshmemError for a region that
    cannot be read.
    """
    if scenario.block.unreadable:
        lines = some(scenario.document.line(node) for node in scenario.block.unreadable)
        raise IvshmemError(f"{scenario.where}: the IVSHMEM_REGION at line {lines} cannot be read; correct or remove it")
    if scenario.dialect == V3:
        chosen = [region for region in scenario.regions if region.provided_by == HYPERVISOR]
    else:
        chosen = list(scenario.in_effect)
    with_id = version >= REGION_IDS_SINCE
    return tuple(
        BuiltRegion(region.prefixed, region.size << 20, (region.region_id or 0) if with_id else 0) for region in chosen
    )


def _root_line(scenario: Scenario, version: Version) -> None:
    if version < V3_FIRST:
        return
    root = scenario.document.root
    rest = scenario.document.source[root.body : root.body + 4096].split(b"\n")[0]
    before = scenario.document.source[: root.start].split(b"\n")[-1]
    if rest.strip() or before.strip():
        raise IvshmemError(
            f"{scenario.where}: the root start tag <acrn-config ...> must stand alone on its line: ACRN's make "
            "replaces that whole line, and what else stands on it would be lost"
        )


def _check_words(request: Request) -> dict[str, str]:
    """Refuse make arguments, variables and paths that would make another build than the key says."""
    variables = {}
    for word in request.make_args:
        match = _VARIABLE.fullmatch(word)
        if not match:
            raise IvshmemError(f"make_args: '{word}' is not of the form VARIABLE=value")
        if match.group(1) in _OWN_VARIABLES:
            hint = "use the release parameter" if match.group(1) == "RELEASE" else "the module sets it"
            raise IvshmemError(f"make_args: {match.group(1)} cannot be given; {hint}")
        variables[match.group(1)] = match.group(2)
    for name in request.environment:
        if name in _OWN_ENVIRONMENT:
            raise IvshmemError(f"environment: {name} cannot be given; the module sets it")
    for what, path in (("source", request.source), ("work_dir", request.work_dir)):
        if not _PLAIN_PATH.fullmatch(path):
            raise IvshmemError(
                f"{what} '{path}': make cannot take a path with white space or one of $ # % : & ' \" in it"
            )
    return variables


def build_directory(work_dir: str) -> str:
    """The one directory that O= ever points to for builds of this work directory."""
    return os.path.join(work_dir, "O")


def plan(request: Request) -> Plan:
    """Decide a build: read tree, board, scenario and tools, and compute the key. Writes nothing.

    Raises IvshmemError where an input is missing or cannot work, before any time is spent on a build.
    """
    variables = _check_words(request)
    tree = read_tree(request.source)
    board_path, scenario_path = _find_inputs(request)
    board, content = read_file(board_path), request.scenario_content
    data = read_file(scenario_path) if content is None else content.encode("utf-8")
    board_name = Document(board, board_path).root.attributes.get("board", "")
    if not board_name:
        raise IvshmemError(f"{board_path}: its root has no board attribute: this is no board XML")
    scenario = read_scenario(data, scenario_path)
    _check_scenario(scenario, scenario_path, tree, board_name, board_path)
    name = scenario_name(scenario_path, scenario, request.name)
    # What the build does not read is no part of it: two files that differ in nothing else are one build, and its
    # artefact is the same whichever of them comes first.
    decisive = _named(scenario.for_key(), scenario, name, scenario_path)
    data = _named(scenario.block.for_build(), scenario, name, scenario_path)

    environment = _environment(request, tree)
    # make's own default, which ACRN's "CC ?= gcc" does not override.
    cc = variables.get("CC") or environment.get("CC") or "cc"
    python = find_python(request.python, environment)
    programs = find_programs(tree, cc, variables, environment)
    probe = probe_python(python, tree, environment, False)
    check_python(tree, probe, python)
    toolchain = toolchain_of(tree, programs, cc, variables, environment)
    toolchain["python"] = probe["python"]
    toolchain.update({f"python {library}": probe["found"][library] for library in tree.libraries})
    inputs = {
        "format": FORMAT,
        "tree": {"version": tree.version_text, "digest": tree.digest, "git": tree.git},
        "board": hashlib.sha256(board).hexdigest(),
        "scenario": hashlib.sha256(decisive).hexdigest(),
        "name": name,
        "release": request.release,
        "make_args": list(request.make_args),
        "environment": {key: value for key, value in sorted(request.environment.items()) if key != "CCACHE_DIR"},
        "toolchain": toolchain,
    }
    return Plan(
        request=request,
        tree=tree,
        key=key_of(inputs),
        inputs=inputs,
        name=name,
        board_name=board_name,
        board=board,
        scenario=data,
        regions=expected_regions(scenario, tree.version),
        pre_launched=tuple(vm.id for vm in scenario.vms if vm.load_order == "pre_launched"),
        mistakes=tuple(
            str(finding) for finding in check(scenario, scenario.regions, tree.version) if finding.severity == ERROR
        ),
        python=python,
        cc=cc,
        environment=environment,
    )


def _check_scenario(scenario: Scenario, path: str, tree: Tree, board_name: str, board_path: str) -> None:
    """Raise IvshmemError where a scenario is not one for the tree and the board."""
    if (scenario.dialect == V3) != (tree.version >= V3_FIRST):
        raise IvshmemError(
            f"{path}: is in the dialect of ACRN {'v3.x' if scenario.dialect == V3 else 'v2.x'}, but "
            f"{tree.path} is v{tree.version_text}; give a scenario of that version"
        )
    if scenario.dialect != V3 and scenario.board and scenario.board != board_name:
        raise IvshmemError(f"{path}: is for the board '{scenario.board}', but {board_path} describes '{board_name}'")
    _root_line(scenario, tree.version)


def _environment(request: Request, tree: Tree) -> dict[str, str]:
    """What ACRN's tools run with: little of this machine's own environment, and nothing that differs by the time."""
    found = {key: value for key, value in os.environ.items() if key in ("HOME", "TMPDIR", "CCACHE_DIR")}
    found["PATH"] = os.environ.get("PATH") or os.defpath
    epoch = tree.git["commit_time"] if tree.git else DEFAULT_EPOCH
    found.update({"USER": BUILD_USER, "SOURCE_DATE_EPOCH": str(epoch), **request.environment})
    return {**found, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", **git_environment(request.source)}


def key_of(inputs: Mapping[str, Any]) -> str:
    """The key of a build: 32 hexadecimal digits of a digest over all that decides its bytes."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
