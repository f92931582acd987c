# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What scenario_regions does with files: reads them, has _request decide, writes what is another, and tells.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils import _guests
from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import Version
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import read_file, replace_file, unified
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch import _vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    HYPERVISOR,
    PREFIXES,
    SERVICE,
    IvshmemError,
    some,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import Board, read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import Outcome, decide, find_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario, read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import parse_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V2
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document

Params = Mapping[str, Any]
MOST_WARNINGS = 30


@dataclass(frozen=True)
class File:
    """A file that is made from another, or from itself: ``data`` is that of ``src``, ``before`` that of ``path``.

    ``option`` is the one that names ``src``. Without a launch XML its paths are empty.
    """

    option: str
    path: str
    src: str
    data: bytes | None
    before: bytes | None


@dataclass(frozen=True)
class Inputs:
    """All that is read. ``kept`` are the regions with their places that an earlier call has left, or None."""

    scenario: File
    launch: File
    board: Board | None
    version: Version | None
    kept: Any

    @property
    def version_text(self) -> str | None:
        """``3.3``"""
        return f"{self.version[0]}.{self.version[1]}" if self.version else None


@contextlib.contextmanager
def _named(params: Params, option: str) -> Iterator[None]:
    """Errors about a file begin with the variable that names it."""
    try:
        yield
    except IvshmemError as exc:
        name = (params["names"] or {}).get(option)
        raise IvshmemError(f"{name}: {exc}" if name else str(exc)) from None


def _file(params: Params, option: str, path: str) -> File:
    src = params[option] or path
    with _named(params, option):
        data = read_file(src) if src else None
    if src == path:
        return File(option, path, src, data, data)
    return File(option, path, src, data, read_file(path) if os.path.exists(path) else None)


def _read(params: Params) -> Inputs:
    if params["src"] == "":
        raise IvshmemError(f"{(params['names'] or {}).get('src', 'src')} is not set; give the path of the scenario XML")
    with _named(params, "board_path"):
        path = params["board_path"]
        board = read_board(read_file(path), path) if path else None
    scenario = _file(params, "src", params["path"])
    given = params["acrn_version"]
    tree = os.path.join(params["acrn_source"] or "/", "VERSION")
    return Inputs(
        scenario,
        _file(params, "launch_src", params["launch_path"] or ""),
        board,
        parse_version(given) if given else find_version(tree) or find_version(scenario.src),
        _kept(params["places_path"]),
    )


def _decided(params: Params, inputs: Inputs) -> Outcome:
    scenario, launch = inputs.scenario, inputs.launch
    if params["unset"] and params["state"] == "exact":
        _refuse_loss(params["unset"], scenario)
    try:
        return decide(
            scenario.data or b"",
            scenario.src,
            params["regions"],
            params["state"],
            version=inputs.version,
            board=inputs.board,
            launch=launch.data,
            launch_where=launch.src,
            earlier=scenario.before,
            known=[_places(inputs.kept), params["known_places"] or {}],
            others=lambda found: _mistakes(params, found, inputs.version_text or ""),
            declared_in=params["declared_in"] or _places_in(params),
        )
    except IvshmemError:
        # Where it is a file itself that is wrong, that is told with the variable.
        for file, reader in ((scenario, read_scenario), (launch, Document)):
            if file.data is not None:
                with _named(params, file.option):
                    reader(file.data, file.src)
        raise


def _write(module: Any, changes: Iterable[tuple[File, bytes]], places: bytes | None) -> list[str]:
    """Write files, and at last the places that were chosen; return the copies that were made of them."""
    backups: list[str | None] = []
    done: list[str] = []
    try:
        for file, new in changes:
            # A file that is changed in place was written by others, and is kept as it was.
            original = None if module.params[file.option] else file.before
            with _named(module.params, "path"):
                backups.append(replace_file(module, file.path, new, module.params["backup"], original=original))
            done.append(file.path)
        if places is not None:
            with _named(module.params, "path"):
                replace_file(module, module.params["places_path"], places)
    except IvshmemError as exc:
        # Together they are right again after the next run.
        already = f"; {' and '.join(done)} {'have' if done[1:] else 'has'} the new content already: run again"
        raise IvshmemError(f"{exc}{already if done else ''}") from exc
    return [backup for backup in backups if backup]


def set_regions(module: Any) -> dict[str, Any]:
    """Set the regions of a scenario; the caller holds the lock. Raises IvshmemError, which tells what was written."""
    params = module.params
    inputs = _read(params)
    outcome = _decided(params, inputs)
    regions = [placed.as_dict() for placed in outcome.regions]
    chosen = list(_chosen(outcome))
    # A machine without a Service VM has nobody to ask.
    asking = params["ask"] and bool(chosen) and any(vm.load_order == SERVICE for vm in outcome.scenario.vms)
    changes = list(_changes(inputs, outcome))
    places = [{key: each[key] for key in each if key != "reserved"} for each in regions]
    keeps = params["places_path"] is not None and outcome.scenario.dialect == V2 and inputs.kept != places
    backups: list[str] = []
    if not module.check_mode and not asking:
        text = json.dumps({"regions": places}, indent=1, sort_keys=True) + "\n"
        backups = _write(module, changes, text.encode() if keeps else None)
    _warn(module, outcome, chosen)
    result = {
        "changed": bool(changes) or keeps,
        **_found(inputs),
        **_told(inputs, outcome),
        "regions": regions,
        "chosen": chosen,
        "asking": asking,
    }
    if backups:
        result["backup_files"] = backups
    if module._diff:
        # A result that is not there yet is shown against what it starts from.
        result["diff"] = [
            unified(_text(_start(file), file.path), _text(new, file.path), file.path) for file, new in changes
        ]
    return result


def _chosen(outcome: Outcome) -> Iterator[dict[str, str]]:
    """The places that nobody has given."""
    for placed in outcome.regions:
        for vm in placed.vms:
            if vm.chosen:
                yield {"region": placed.region.prefixed, "vm": vm.vm.name, "vbdf": str(vm.vbdf)}


def _changes(inputs: Inputs, outcome: Outcome) -> Iterator[tuple[File, bytes]]:
    """The files that are to be written, with their new bytes."""
    for file, new in ((inputs.scenario, outcome.data), (inputs.launch, outcome.launch)):
        if new is not None and file.before != new:
            yield file, new


def _start(file: File) -> bytes:
    return (file.data if file.before is None else file.before) or b""


def _found(inputs: Inputs) -> dict[str, Any]:
    """What was there before."""
    file = inputs.scenario
    before = regions_of(_start(file), file.path)
    return {
        "before": before if inputs.kept is None else inputs.kept,
        "start": [
            {"name": region["name"], "size": region["size"]}
            for region in regions_of(file.data or b"", file.src)
            if region["provided_by"] == HYPERVISOR
        ],
    }


def _told(inputs: Inputs, outcome: Outcome) -> dict[str, Any]:
    """What is known of the scenario."""
    return {
        "vms": [vm.as_dict() for vm in outcome.scenario.vms],
        "dialect": outcome.scenario.dialect,
        "acrn_version": inputs.version_text,
        "digest": outcome.digest,
        "build_digest": outcome.build_digest,
        "content": _text(outcome.data, inputs.scenario.path),
        "launch_content": None if outcome.launch is None else _text(outcome.launch, inputs.launch.path),
        "findings": [finding.as_dict() for finding in outcome.findings],
    }


def _warn(module: Any, outcome: Outcome, chosen: Iterable[Mapping[str, str]]) -> None:
    path, unasked = module.params["path"], module.params["unasked"]
    told = ", ".join(f"{each['region']} in {each['vm']} {each['vbdf']}" for each in chosen)
    if unasked and told:
        module.warn(
            f"{path}: these places were chosen without knowing which ones are in use, and move where the host has "
            f"others: {told} ({unasked}); give vbdf to have them stay"
        )
    for finding in outcome.findings[:MOST_WARNINGS]:
        module.warn(f"{path}: {finding}")
    if len(outcome.findings) > MOST_WARNINGS:
        module.warn(f"{path}: {len(outcome.findings) - MOST_WARNINGS} more findings are in the result")


def _places_in(params: Params) -> list[str]:
    name = (params["names"] or {}).get("regions", "regions")
    return [f"{name}[{index}]" for index in range(len(params["regions"]))]


def _refuse_loss(unset: str, file: File) -> None:
    """Unset is not "none": nobody has said that the regions of these files shall go."""
    texts = (file.data, file.before)
    found = [region for data in texts if data is not None for region in regions_of(data, file.src)]
    names = list(dict.fromkeys(PREFIXES[region["provided_by"]] + region["name"] for region in found))
    if names:
        raise IvshmemError(
            f"{file.src}: {unset}, and this scenario would lose {some(names)}; declare what the host shall have, the "
            "whole of it (the playbook acrn.ivshmem.adopt writes it down), or ivshmem_regions: [] to remove them all"
        )


def regions_of(data: bytes, path: str) -> list[dict[str, Any]]:
    """The regions of a scenario; none where it is none, since with src anything may have been at path before."""
    try:
        return [placed.as_dict() for placed in read_scenario(data, path).as_found()]
    except IvshmemError:
        return []


def _mistakes(params: Params, scenario: Scenario, version: str) -> list[str]:
    """What is wrong with those that use the VMs of a scenario."""
    vms = [vm.as_dict() for vm in scenario.vms]
    plan = {"vms": vms, "dialect": scenario.dialect}
    scripts = _vms.problems(params["launch_vms"], plan, params["launch_mode"], version)
    return [*params["mistakes"], *_guests.problems(params["guests"], vms), *(f"launch_vms: {text}" for text in scripts)]


def _kept(path: str | None) -> Any:
    """The regions with their places that an earlier call has kept, or None."""
    if not path or not os.path.exists(path):
        return None
    try:
        regions = json.loads(read_file(path))["regions"]
        _places(regions)
        return regions
    except (ValueError, KeyError, TypeError) as exc:
        raise IvshmemError(f"{path}: cannot be read ({exc!r}); remove it, and places are chosen anew") from None


def _places(regions: Any) -> dict[str, dict[str, str]]:
    return {
        PREFIXES[region["provided_by"]] + region["name"]: {vm["name"]: vm["vbdf"] for vm in region["vms"] if vm["vbdf"]}
        for region in regions or []
    }


def make_folders(params: Params) -> None:
    """Make the directories of what is written, for sources that are there: a mistyped name leaves none behind."""
    for src, path in (("src", "path"), ("launch_src", "launch_path")):
        if params[src] and os.path.exists(params[src]):
            folder = os.path.dirname(os.path.realpath(params[path]))
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as exc:
                with _named(params, "path"):
                    raise IvshmemError(f"{folder}: this directory cannot be made: {exc.strerror}") from exc


def _text(data: bytes, name: str) -> str:
    try:
        return Document(data, name).source.decode("utf-8")
    except IvshmemError:  # with src, anything may have been at path before
        return data.decode("utf-8", "replace")
