# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables that the collection documents: those of its roles and of its playbooks.

Read once per run, by the process that starts the workers: the action plugins import this.
"""

from __future__ import annotations

import pathlib
from typing import Any

import yaml

from ansible_collections.acrn.ivshmem.plugins.module_utils import _words

_ROOT = pathlib.Path(__file__).parents[2]


def _load(path: pathlib.Path) -> Any:
    with path.open(encoding="utf-8") as handle:
        return yaml.load(handle, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # nosec B506  # both are safe loaders


def _read() -> tuple[dict[str, Any], dict[str, Any], frozenset[str]]:
    own = _load(_ROOT / "meta" / "inventory_variables.yml")
    specs: dict[str, Any] = dict(own["options"])
    roles = {}
    for path in sorted(_ROOT.glob("roles/*/meta/argument_specs.yml")):
        roles[path.parts[-3]] = _load(path)["argument_specs"]
        for entry in roles[path.parts[-3]].values():
            specs.update(entry.get("options") or {})
    return specs, roles, frozenset(own["facts"])


SPECS, _ROLES, FACTS = _read()
KNOWN = frozenset({*SPECS, *FACTS})


def word(value: Any, name: str) -> Any:
    """What the value of a variable means. ``name`` may be that of a key too: ``acrn_build.release``."""
    first, *keys = name.split(".")
    spec = SPECS[first]
    for key in keys:
        spec = spec["options"][key]
    return _words.convert(name, spec, value)


def of_role(role: str, entry: str) -> dict[str, Any]:
    """The specs of the variables that an entry point of a role has."""
    return dict(_ROLES[role][entry]["options"])
