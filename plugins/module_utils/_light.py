# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running a module without what AnsibleModule costs.

This module util is PRIVATE to the collection: it can change at any time.

Most of what a module run costs is no work of the module: Ansible sends 56 files of its own, and the target compiles
them. The modules that run on every host at every pass therefore take their AnsibleModule as an argument, and get a
``Light`` one where that is enough. It is the same code that decides, so both give the same answer by construction. What
Light has not raises ``Heavy`` before anything is touched, and the action plugin runs the module as usual.
"""

from __future__ import annotations

import json
import marshal
import os
import stat
import sys
import types
from importlib._bootstrap_external import MAGIC_NUMBER  # importlib.util costs more
from typing import TYPE_CHECKING, Any, Callable, Mapping, NoReturn, Union

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

PACKAGE = "ansible_collections.acrn.ivshmem.plugins"
# File attributes that Light cannot compare; all of them are arguments of every module that writes files.
ATTRIBUTES = ("owner", "group", "seuser", "serole", "selevel", "setype", "attributes")


class Heavy(Exception):
    """This call needs a real AnsibleModule."""


class Done(BaseException):
    """The module has a result. No ``except Exception`` of a module may catch it."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__()
        self.result = result


class Light:
    """What a module needs of AnsibleModule as long as it changes no file: validated parameters in, one result out."""

    def __init__(self, params: Mapping[str, Any], check_mode: bool = False, diff: bool = False) -> None:
        self.params = dict(params)
        self.check_mode = check_mode
        self._diff = diff
        self.warnings: list[str] = []

    def __getattr__(self, name: str) -> Any:
        raise Heavy(name)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def exit_json(self, **result: Any) -> NoReturn:
        raise Done({"changed": False, **result})

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        raise Done({**result, "failed": True, "msg": msg})

    def load_file_common_arguments(self, params: Mapping[str, Any], path: str) -> dict[str, Any]:
        if any(params.get(name) is not None for name in ATTRIBUTES):
            raise Heavy("file attributes")
        return {"path": path, "mode": params.get("mode")}

    def set_fs_attributes_if_different(self, attributes: Mapping[str, Any], changed: bool) -> bool:
        if attributes["mode"] is None:
            return changed
        try:
            # As Ansible does: text is octal.
            mode = attributes["mode"] if isinstance(attributes["mode"], int) else int(attributes["mode"], 8)
        except ValueError:
            raise Heavy("a symbolic mode") from None
        if stat.S_IMODE(os.lstat(attributes["path"]).st_mode) != mode:
            raise Heavy("another mode")
        return changed


Module = Union["AnsibleModule", Light]


def call(main: Callable[..., Any], module: Light) -> dict[str, Any]:
    """The result of a module's main function. Raises Heavy."""
    try:
        main(lambda **_arguments: module)
    except Done as done:
        result = done.result
        if module.warnings:
            result["warnings"] = module.warnings
        return result
    raise RuntimeError("the module ended without a result")


# -- on the target -----------------------------------------------------------------------------------------------------


def load(parts: list[tuple[str, str, bytes]], magic: bytes) -> types.ModuleType:
    """Make modules in this order and return the last. ``parts``: name, source, byte code for Pythons of ``magic``."""
    same = magic == MAGIC_NUMBER
    packages = {
        ".".join(path[:length])
        for path in (name.split(".") for name, *_code in parts)
        for length in range(1, len(path))
    }
    for name in (*sorted(packages), "ansible", "ansible.module_utils"):
        package = types.ModuleType(name)
        package.__path__ = []
        sys.modules[name] = package
    basic = types.ModuleType("ansible.module_utils.basic")
    basic.AnsibleModule = Light  # type: ignore[attr-defined]
    sys.modules["ansible.module_utils.basic"] = basic
    module = basic
    for name, source, code in parts:
        module = types.ModuleType(name)
        sys.modules[name] = module
        parent, own = name.rsplit(".", 1)
        setattr(sys.modules[parent], own, module)
        # The collection's own modules, on their way from the controller: what any module of Ansible is, too.
        exec(marshal.loads(code) if same else compile(source, name, "exec"), module.__dict__)  # nosec B102 B302
    return module


def serve(parts: list[tuple[str, str, bytes]], magic: bytes, params: dict[str, Any], check: bool, diff: bool) -> None:
    """Print the result of the module that ``parts`` end with, or that it needs a real AnsibleModule."""
    try:
        answer = call(load(parts, magic).main, Light(params, check, diff))
    except Heavy as exc:
        answer = {"heavy": str(exc)}
    except Exception:
        import traceback

        answer = {"heavy": traceback.format_exc()}
    sys.stdout.write("\nacrn.ivshmem:" + json.dumps(answer) + "\n")
