# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError

from ansible_collections.acrn.ivshmem.plugins.module_utils import _words
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.modules import scenario_regions
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _variables
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Contract
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._light_action import LightAction, bundle


class ActionModule(LightAction):
    """Runs the module without what it has no need of."""

    module = scenario_regions
    contract = Contract(scenario_regions.RETURN)
    parts = bundle(scenario_regions)
    in_process = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        variables = task_vars or {}
        wrong = self._wrong(variables) or self._launch_vms()
        result: dict[str, Any] = {"failed": True, "msg": wrong} if wrong else super().run(tmp, task_vars)
        # Whatever the way in which a task came to be in check mode: what the result has is in no file then.
        result["written"] = not self._task.check_mode
        # A play of somebody's own; the playbooks have told already what nobody reads.
        alone = "__limit_unread" not in variables
        own = {str(variables.get("inventory_hostname")): variables}
        told = _variables.unread(own, variables.get("groups") or {}) if alone else []
        told += _variables.unknown_board(variables.get("acrn_board"), self._task.args.get("acrn_source"))
        if told:
            result["warnings"] = [*result.get("warnings", []), *told]
        return result

    def _launch_vms(self) -> str:
        """Give the argument its meaning. A filter in the role would have what is wrong told behind words of Ansible."""
        args = dict(self._task.args)
        try:
            args["launch_vms"] = _variables.word(args.get("launch_vms"), "launch_vms") or []
        except IvshmemError as exc:
            return str(exc)
        self._task.args = args
        return ""

    def _wrong(self, variables: Mapping[str, Any]) -> str:
        """What is wrong with the variables of the inventory that other roles would stumble over, far from here."""
        values, told = {}, []
        for name in sorted(set(variables) & {*_variables.OWN, "launch_vms", "launch_mode"}):
            try:
                values[name] = self._templar.template(variables[name])
            except AnsibleError as exc:
                # The plan is made of these, and default() takes one for unset. Others are told where they are used.
                if name.startswith(("acrn_", "launch_")):
                    told.append(f"{name} cannot be worked out: {_variables.said(exc)}")
        return "; ".join([*told, *_words.problems(_variables.OWN, values)])
