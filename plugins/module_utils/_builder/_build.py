# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What hypervisor_build does on a builder: the artefact of what is asked for, built where there is none yet.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._decide import plan
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import LOG, MANIFEST, Plan, Request
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._run import build, validate
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._store import find_artifact, last_manifest
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tools import find_python
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tree import read_tree

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def build_or_find(module: AnsibleModule) -> dict[str, Any]:
    """The artefact of what is asked for, built where there is none yet. Raises BuildError and IvshmemError."""
    began = time.monotonic()
    params = module.params
    if module.check_mode and _awaits(module):
        return {"changed": True, "built": False, "seconds": 0.0}
    todo = plan(_request(params))
    for mistake in todo.mistakes:
        # ACRN's tools build some of them without a word, such as a VM that the scenario does not have.
        module.warn(f"{params['scenario']}: {mistake}")
    regions = [region.as_dict() for region in todo.regions]
    result: dict[str, Any] = {
        "key": todo.key,
        "directory": todo.path,
        "name": todo.name,
        "board": todo.board_name,
        "version": todo.tree.version_text,
        "regions": regions,
    }
    manifest = find_artifact(todo.request.artifacts_dir, todo.key)
    needed = (manifest is None or params["force"]) and not params["validate_only"]
    if module._diff and needed:
        result["diff"] = _diff(todo, regions)
    built = False
    if needed and not module.check_mode:
        manifest, built = build(todo, params["force"])
    result.update({"validation": validate(todo, module.tmpdir)} if manifest is None else _facts(todo, manifest))
    changed = built or (needed and module.check_mode)
    return dict(result, changed=changed, built=built, seconds=round(time.monotonic() - began, 2))


def _facts(todo: Plan, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to tell of an artefact."""
    artifacts = {name: os.path.join(todo.path, name) for name in [*manifest["outputs"], MANIFEST]}
    return {
        "manifest": manifest,
        "artifacts": artifacts,
        "log": artifacts[LOG],
        "validation": manifest["warnings"],
    }


def _awaits(module: AnsibleModule) -> bool:
    """Whether an earlier step of the run makes what a build needs; what is there already is judged."""
    params = module.params
    places = [params[name] for name in ("source", "python") if os.path.isabs(params[name] or "")]
    missing = [place for place in places if not os.path.exists(place)]
    to_come = [place for place in missing if params["awaited"] is None or place in params["awaited"]]
    if to_come:
        _judge_what_is_there(module, missing, to_come)
    return bool(to_come)


def _request(params: Mapping[str, Any]) -> Request:
    artifacts_dir = os.path.abspath(params["artifacts_dir"])
    return Request(
        source=os.path.realpath(params["source"]),
        board=params["board"],
        scenario=params["scenario"],
        scenario_content=params["scenario_content"],
        artifacts_dir=artifacts_dir,
        work_dir=os.path.realpath(params["work_dir"] or os.path.join(artifacts_dir, ".work")),
        name=params["name"],
        release=params["release"],
        make_args=tuple(params["make_args"]),
        environment={str(key): str(value) for key, value in params["environment"].items()},
        jobs=params["jobs"] or len(os.sched_getaffinity(0)),
        python=params["python"],
        ccache=params["ccache"],
    )


def _as_text(key: str, board: str, name: str, regions: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"key: {key}", f"board: {board}", f"scenario: {name}", "regions:"]
    lines += [f"  - {region['name']}, {region['size']} MB, ID {region['region_id']}" for region in regions]
    return "\n".join(lines) + "\n"


def _diff(todo: Plan, regions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    before = last_manifest(todo.request.artifacts_dir, todo.board_name, todo.name)
    return {
        "before": _as_text(before["key"], before["board"], before["name"], before["regions"]) if before else "",
        "after": _as_text(todo.key, todo.board_name, todo.name, regions),
        "before_header": "last build",
        "after_header": todo.path,
    }


def _judge_what_is_there(module: AnsibleModule, missing: Sequence[str], to_come: Sequence[str]) -> None:
    """Refuse, before tree and Python have all come, what nobody makes and what cannot be built from."""
    params = module.params
    if params["python"] in missing and params["python"] not in to_come:
        find_python(params["python"], os.environ)
    if params["source"] not in to_come:
        read_tree(params["source"])
    else:
        module.warn(
            f"{params['source']}: there is no ACRN tree yet, so this build could not be looked at; it needs the "
            "tree there (acrn_source of its hosts), or hypervisor_repo to clone it from"
        )
