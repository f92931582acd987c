# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.modules import guest_device
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _guest_shell
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Contract, printable
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._light_action import LightAction, bundle


class ActionModule(LightAction):
    """Runs the module without what it has no need of, and in guests without Python what the module would do there."""

    module = guest_device
    contract = Contract(guest_device.RETURN)
    parts = bundle(guest_device)

    def _answer(self, task_vars: dict[str, Any]) -> Any:
        if boolean(self._task.args.get("python", True), strict=False):
            return super()._answer(task_vars)
        if self._task.async_val:
            raise AnsibleActionFail("without Python in the guest there is no async")
        self._params = self._accepted()
        try:
            return _guest_shell.run(
                self._shell, guest_device, self._params, bool(self._task.check_mode), bool(self._task.diff)
            )
        except IvshmemError as exc:
            return {"failed": True, "msg": str(exc)}

    def _shell(self, command: str) -> str:
        """What a command in the guest prints, as ansible.builtin.raw would run it."""
        # With another executable Ansible would add words behind it, where a text that the shell reads has its end.
        done = self._low_level_execute_command(command, executable=False)
        if done["rc"] != 0:
            said = printable((done["stderr"] or done["stdout"]).strip()) or "it said nothing"
            raise IvshmemError(f"the guest's shell ended with {done['rc']}: {said}")
        return str(done["stdout"])
