# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No task of ours takes from a host what Ansible would make facts of."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door

PLUGINS = "ansible_collections.acrn.ivshmem.plugins"
ROOT = Path(__file__).resolve().parents[2]
PLACES = ("roles/*/tasks", "roles/*/handlers", "playbooks")
FILES = sorted(path for place in PLACES for path in ROOT.glob(f"{place}/**/*.yml"))
MODULES = sorted(path.stem for path in ROOT.glob("plugins/modules/*.py") if path.stem != "__init__")
# They ask no host.
CONTROLLER = (
    "add_host assert debug fail group_by include_role import_role include_tasks import_tasks import_playbook set_fact"
)
QUIET = {*CONTROLLER.split(), "meta", "include_vars", "set_stats", "validate_argument_spec", "pause"}


def open_tasks(node, local=False):
    """Modules of others that a host is asked by, with no door before its answer."""
    if isinstance(node, list):
        return [name for each in node for name in open_tasks(each, local)]
    if not isinstance(node, dict):
        return []
    local = local or "localhost" in (node.get("delegate_to"), node.get("hosts"))
    found = [] if local else [key for key in node if key.startswith("ansible.") and key.split(".")[-1] not in QUIET]
    inner = (node.get(key) for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"))
    return found + [name for each in inner for name in open_tasks(each, local)]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_answers_of_hosts_come_through_the_door(path):
    assert open_tasks(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("name", MODULES)
def test_each_module_of_ours_is_behind_the_door(name):
    """Without an action of its own Ansible would take its answer as it is, and send it any argument."""
    action = importlib.import_module(f"{PLUGINS}.action.{name}")
    assert issubclass(action.ActionModule, _door.DoorAction)


def test_an_open_task_is_found():
    task = {"ansible.builtin.command": "true"}
    assert open_tasks([{"hosts": "all", "tasks": [{"block": [task]}]}]) == ["ansible.builtin.command"]
    assert open_tasks([{"hosts": "localhost", "tasks": [task]}, {"delegate_to": "localhost", **task}]) == []
