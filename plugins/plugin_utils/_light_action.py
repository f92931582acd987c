# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugins of modules that run on every host at every pass.

A module run costs the target four times what its own work costs (see module_utils/_light.py). These actions send the
module's own files alone, in the one command that a pipelined module needs too. Where that cannot do, the module runs
as any other: without pipelining, asynchronously, on Windows, with an interpreter still to be discovered,
and as soon as it has a file to change.
"""

from __future__ import annotations

import binascii
import json
import marshal
import re
import sys
import types
import zlib
from importlib._bootstrap_external import MAGIC_NUMBER  # as the target does
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.basic import FILE_COMMON_ARGUMENTS

from ansible_collections.acrn.ivshmem.plugins.module_utils import _light
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door

_IMPORT = re.compile(
    r"^from (ansible_collections\.acrn\.ivshmem\.plugins\.module_utils[\w.]*) import (\([^)]*\)|.*)$",
    re.MULTILINE,
)
_MARK = "\nacrn.ivshmem:"
_START = """\
import binascii,json,marshal,types,zlib,sys
from importlib._bootstrap_external import MAGIC_NUMBER
parts,magic=marshal.loads(zlib.decompress(binascii.a2b_base64("%s")))
name,source,code=parts[0]
light=types.ModuleType(name)
sys.modules[name]=light
exec(marshal.loads(code) if magic==MAGIC_NUMBER else source,light.__dict__)
light.serve(parts[1:],magic,*json.loads(binascii.a2b_base64("%s")))
"""


def _source(module: types.ModuleType) -> str:
    with open(str(module.__file__), encoding="utf-8") as handle:
        return handle.read()


def _is_room(name: str) -> bool:
    return hasattr(sys.modules[name], "__path__")


def _collect(module: types.ModuleType, parts: dict[str, tuple[str, str, bytes]]) -> None:
    """Add a module, after all of this collection that it imports; what stands indented is for type checkers."""
    if module.__name__ in parts:
        return
    source = _source(module)
    for place, names in _IMPORT.findall(source):
        # A room has files, a file has what it is made of.
        files = [f"{place}.{name}" for name in re.findall(r"\w+", names)] if _is_room(place) else [place]
        for name in files:
            _collect(sys.modules[name], parts)
    code = compile(source, module.__name__, "exec", optimize=2)
    parts[module.__name__] = (module.__name__, source, marshal.dumps(code))


def bundle(module: types.ModuleType) -> str:
    """Name, source and byte code of _light, then of all that a module of the collection is made of, for _START.

    The byte code spares a target with the controller's version of Python the compilation.
    """
    parts: dict[str, tuple[str, str, bytes]] = {}
    _collect(_light, parts)
    _collect(module, parts)
    # Version 2 of the format has what every Python 3 can read.
    return _encoded(zlib.compress(marshal.dumps((list(parts.values()), MAGIC_NUMBER), 2), 9))


def _encoded(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


class LightAction(_door.DoorAction):
    """Runs ``module`` by the shortest way that gives its result."""

    # Strategies load the action in the main process, so this is there before the workers are forked.
    parts = ""
    # On the controller itself there is no need of another process.
    in_process = False
    _params: dict[str, Any] | None = None

    def _answer(self, task_vars: dict[str, Any]) -> Any:
        try:
            return self._run_light(task_vars)
        except _light.Heavy:
            return super()._answer(task_vars)

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() if self._params is None else self._params

    def _run_light(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The module's result. Raises Heavy where it needs AnsibleModule."""
        if self._task.async_val or getattr(self._connection._shell, "_IS_WINDOWS", False):
            raise _light.Heavy("no plain run of a POSIX host")
        params = self._params = self._validated()
        check, diff = bool(self._task.check_mode), bool(self._task.diff)
        environment = self._compute_environment_string()
        if self.in_process and self._connection.transport == "local" and not (self._connection.become or environment):
            return _light.call(self.module.main, _light.Light(params, check, diff))
        if not self._is_pipelining_enabled("new"):
            raise _light.Heavy("no pipelining")
        python = self._interpreter(task_vars)
        return self._ask(f"{environment} {python} -S -E -".strip(), params, check, diff)

    def _interface(self) -> dict[str, Any]:
        arguments = dict(self.module.ARGUMENTS)
        arguments.pop("supports_check_mode")
        if arguments.pop("add_file_common_args", False):
            arguments["argument_spec"] = {**FILE_COMMON_ARGUMENTS, **arguments["argument_spec"]}
        return arguments

    def _accepted(self) -> dict[str, Any]:
        """The arguments as the module would have them. Raises AnsibleActionFail."""
        _result, params = self.validate_argument_spec(**self._interface())
        return dict(params)

    def _validated(self) -> dict[str, Any]:
        paths = [name for name, spec in self._interface()["argument_spec"].items() if spec.get("type") == "path"]
        for name in paths:
            if re.search(r"[~$]", str(self._task.args.get(name) or "")):
                raise _light.Heavy("a path that the target has to expand")
        try:
            return self._accepted()
        except AnsibleActionFail as exc:
            raise _light.Heavy(str(exc)) from None  # the module says it in its own words

    def _interpreter(self, task_vars: dict[str, Any]) -> str:
        delegate = self._task.delegate_to
        variables = task_vars.get("ansible_delegated_vars", {}).get(delegate, {}) if delegate else task_vars
        try:
            python = C.config.get_config_value("INTERPRETER_PYTHON", variables=variables)
            python = str(self._templar.template(python))
        except AnsibleError as exc:
            raise _light.Heavy(str(exc)) from None
        if python.startswith("auto"):
            facts = variables.get("ansible_facts", {})
            python = facts.get("discovered_interpreter_python") or ""
        if not python:
            raise _light.Heavy("no interpreter known")
        return str(python)

    def _ask(self, command: str, params: dict[str, Any], check: bool, diff: bool) -> dict[str, Any]:
        script = _START % (self.parts, _encoded(json.dumps([params, check, diff]).encode()))
        done = self._low_level_execute_command(command, in_data=script.encode())
        answers = done["stdout"].split(_MARK)[1:]
        if not answers:
            raise _light.Heavy(done["stderr"])
        if len(answers) > 1:
            raise _door.Refused(f"it holds {len(answers)} results")
        answer = _door.read(answers[0].partition("\n")[0])
        if "heavy" in answer:
            raise _light.Heavy(str(answer["heavy"]))
        return answer
