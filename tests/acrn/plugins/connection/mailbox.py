# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's way into a host of the emulator, and into its VMs: sectors of its disk, which is a file here."""

from __future__ import annotations

import base64
import fcntl
import importlib.util
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.text.converters import to_bytes
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: mailbox
short_description: a host of the emulator, or a VM of it, by sectors of the host's disk
description: [For the tests of this collection.]
author: [acrn.ivshmem contributors]
options:
  image:
    description: The file of the disk.
    vars: [{name: mailbox_image}]
  requests:
    description: First sector of the requests.
    type: int
    vars: [{name: mailbox_requests}]
  answers:
    description: First sector of the answers.
    type: int
    vars: [{name: mailbox_answers}]
  vm_disk:
    description: For a VM, the file of the host that is its disk, by which the host hands the requests on.
    default: ""
    vars: [{name: mailbox_vm_disk}]
  patience:
    description: Seconds until an answer has to be there.
    type: int
    default: 1500
    vars: [{name: mailbox_patience}]
"""

# The host has the other end of the mailbox.
_spec = importlib.util.spec_from_file_location("mailbox_agent", Path(__file__).parents[2] / "guest/agent.py")
agent = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(agent)


class Connection(ConnectionBase):
    transport = "mailbox"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def close(self):
        self._connected = False

    def _asked(self, **wish):
        """The host's answer to a request."""
        places = {box: self.get_option(box) for box in ("requests", "answers")}
        if self.get_option("vm_disk"):
            wish = {"do": "hand on", "disk": self.get_option("vm_disk"), "wish": wish}
        disk = agent.File(self.get_option("image"))
        try:
            fcntl.flock(disk.handle, fcntl.LOCK_EX)
            answer = agent.ask(disk, places, wish, self.get_option("patience"))
        except TimeoutError as error:
            raise AnsibleConnectionFailure(f"the host in the emulator {error}") from error
        except ValueError as error:
            raise AnsibleError(str(error)) from error
        finally:
            disk.close()
        if "error" in answer:
            raise AnsibleError(answer["error"])
        return answer

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        given = base64.b64encode(to_bytes(in_data or b"")).decode()
        answer = self._asked(do="execute", command=cmd, input=given)
        return answer["code"], base64.b64decode(answer["output"]), base64.b64decode(answer["errors"])

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        with open(in_path, "rb") as handle:
            self._asked(do="put", path=out_path, data=base64.b64encode(handle.read()).decode())

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        data = base64.b64decode(self._asked(do="fetch", path=in_path)["data"])
        with open(out_path, "wb") as handle:
            handle.write(data)
