# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's way into a host of the emulator, and into its VMs: sectors of its disk, which is a file here."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import struct
import time

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

SECTOR = 512
HEADER = struct.Struct("<4sII")


class Connection(ConnectionBase):
    transport = "mailbox"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def close(self):
        self._connected = False

    def _head(self, handle, place):
        magic, number, length = HEADER.unpack(os.pread(handle, HEADER.size, place * SECTOR))
        return (number, length) if magic == b"MAIL" else (0, 0)

    def _asked(self, **wish):
        """The host's answer to a request."""
        requests, answers = self.get_option("requests"), self.get_option("answers")
        if self.get_option("vm_disk"):
            wish = {"do": "hand on", "disk": self.get_option("vm_disk"), "wish": wish}
        with open(self.get_option("image"), "r+b", buffering=0) as disk:
            fcntl.flock(disk, fcntl.LOCK_EX)
            handle = disk.fileno()
            number = self._head(handle, requests)[0] + 1
            data = json.dumps(wish).encode()
            if len(data) > (answers - requests - 1) * SECTOR:
                raise AnsibleError(f"{len(data)} bytes do not fit into the mailbox")
            os.pwrite(handle, data, (requests + 1) * SECTOR)
            os.pwrite(handle, HEADER.pack(b"MAIL", number, len(data)), requests * SECTOR)
            end = time.monotonic() + self.get_option("patience")
            while self._head(handle, answers)[0] != number:
                if time.monotonic() > end:
                    raise AnsibleConnectionFailure("the host in the emulator does not answer")
                time.sleep(0.02)
            answer = json.loads(os.pread(handle, self._head(handle, answers)[1], (answers + 1) * SECTOR))
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
