# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import os

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.text.converters import to_text

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._artifact import MANIFEST, Artifact
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.modules import hypervisor_install
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Contract, DoorAction, Refused


class ActionModule(DoorAction):
    """Gives the module what the artefact on the controller says, and sends files only if the host lacks some."""

    _supports_async = False
    contract = Contract(hypervisor_install.RETURN)

    def _answer(self, task_vars):
        name = self._task.action
        args = dict(self._task.args)
        directory = args.get("artifact_dir")
        if directory:
            directory = os.path.expanduser(directory)
            args["_artifact"] = {
                "manifest.json": self._text(directory, "manifest.json"),
                # XML has an encoding of its own, which the module reads.
                "scenario.xml": base64.b64encode(self._read(directory, "scenario.xml")).decode(),
            }
        try:
            answer = self._execute_module(module_name=name, module_args=args, task_vars=task_vars)
            if directory and answer.get("_missing"):
                args["_staged"] = self._send(directory, self._files(args["_artifact"], answer["_missing"]))
                answer = self._execute_module(module_name=name, module_args=args, task_vars=task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return answer

    @staticmethod
    def _files(artifact, wanted):
        """What a host may ask for: files of the build, whatever else lies on the controller."""
        try:
            own = {MANIFEST, *Artifact.parse(artifact[MANIFEST], b"").files}
        except IvshmemError:
            own = set()
        if not isinstance(wanted, list) or not all(isinstance(name, str) and name in own for name in wanted):
            raise Refused("it asks for files that are not of this build")
        return sorted(set(wanted))

    @staticmethod
    def _read(directory, name):
        try:
            with open(os.path.join(directory, name), "rb") as handle:
                return handle.read()
        except OSError as exc:
            raise AnsibleActionFail(
                f"{directory}: this is no artefact of hypervisor_build on the controller: {exc}"
            ) from exc

    @classmethod
    def _text(cls, directory, name):
        try:
            return to_text(cls._read(directory, name), errors="surrogate_or_strict")
        except UnicodeError as exc:
            raise AnsibleActionFail(f"{os.path.join(directory, name)}: this is no text: {exc}") from exc

    def _send(self, directory, names):
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        staged = shell.join_path(shell.tmpdir, "artefact")
        folders = sorted({os.path.dirname(name) for name in names} - {""})
        made = self._low_level_execute_command(
            "mkdir -p " + " ".join(shell.quote(shell.join_path(staged, folder)) for folder in ["", *folders]),
            sudoable=False,
        )
        if made["rc"] != 0:
            raise AnsibleActionFail(f"no directory for the artefact on the host: {made['stderr']}")
        paths = [shell.tmpdir, staged, *(shell.join_path(staged, folder) for folder in folders)]
        for name in names:
            path = shell.join_path(staged, name)
            self._transfer_file(os.path.join(directory, name), path)
            paths.append(path)
        self._fixup_perms2(paths, execute=False)
        return staged
