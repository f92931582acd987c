# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import functools
from typing import Any

from ansible.errors import AnsibleAction, AnsibleActionFail

from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door

# What their documentation does not have, or with another type than they return.
_MORE: dict[str, dict[str, _door.Spec]] = {
    "command": {"cmd": {"type": "raw"}},
    "pip": {"cmd": {"type": "raw"}},
    "raw": {
        "stdout": {"type": "str"},
        "stderr": {"type": "str"},
        "stdout_lines": {"type": "list", "elements": "str"},
        "stderr_lines": {"type": "list", "elements": "str"},
    },
}


@functools.cache
def _contract(path: str, name: str) -> _door.Contract:
    """What the module file ``path`` documents. In check mode and by errors modules return less than they say."""
    with open(path, encoding="utf-8") as handle:
        tree = ast.parse(handle.read())
    texts = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["RETURN"]
    ]
    documented = dict(_door.Contract(str(texts[0]) if texts else None).keys)
    documented.update(_MORE.get(name, {}))
    returns = {key: {**spec, "returned": "sometimes"} for key, spec in documented.items() if key not in _door.COMMON}
    return _door.Contract(None, **returns)


class ActionModule(_door.DoorAction):
    """Runs another module, and keeps of the host's answer what that module documents."""

    # How an asynchronous task went, Ansible asks by itself, and takes what it is answered.
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        self._name = str(self._task.args.get("module") or "")
        arguments = self._task.args.get("args")
        if set(self._task.args) - {"module", "args"} or not isinstance(arguments or {}, dict):
            raise AnsibleActionFail("guarded takes module, a name, and args, a dictionary")
        found = self._shared_loader_obj.module_loader.find_plugin_with_context(self._name, mod_type=".py")
        if not found.resolved:
            raise AnsibleActionFail(f"there is no module {self._name!r}")
        self._path = str(found.plugin_resolved_path)
        self._given = dict(arguments or {})
        short = self._name.rpartition(".")[2]
        self.most = _door.FILE if short == "fetch" else _door.BYTES
        self.contract = _contract(self._path, short)
        if self._task.check_mode:
            # By the controller's own wish, so no host can hide a task by it.
            self.contract = _door.Contract(None, **self.contract.keys, skipped={"type": "bool"})
        return super().run(tmp, task_vars)

    def _asked(self) -> str:
        return self._name

    def _arguments(self) -> dict[str, Any]:
        # Which options of another module are secret is known on the host alone.
        return {"module": self._name}

    def _answer(self, task_vars: dict[str, Any]) -> Any:
        task = self._task.copy()
        task.action = self._name
        task.args = dict(self._given)
        loader = self._shared_loader_obj.action_loader
        name = self._name if loader.has_plugin(self._name) else "ansible.legacy.normal"
        inner = loader.get(
            name,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        try:
            with _door.read_by_core():
                return inner.run(task_vars=task_vars)
        except AnsibleAction as exc:
            skipped = "Skip" in type(exc).__name__
            return {**exc.result, "skipped" if skipped else "failed": True, "msg": exc.message}
        finally:
            for key in ("_discovered_interpreter_key", "_discovered_interpreter"):
                setattr(self, key, getattr(inner, key, None))
