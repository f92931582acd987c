# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process that listens for the interrupts of a function, as others in the guest ask it.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone.
"""

from __future__ import annotations

import array
import json
import socket

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

# Seconds that it has to answer.
ANSWER = 60.0


def socket_path(kernel: _kernel.Kernel, address: str) -> str:
    return kernel.path(f"{_kernel.RUN}/{address}.sock")


def _ask(kernel: _kernel.Kernel, address: str, command: bytes) -> tuple[bytes, list[int]] | None:
    """Answer and file descriptors of the agent of a function, or None where none runs.

    Raises IvshmemError for one that runs and does not answer: it may still write its words into the memory.
    """
    path = socket_path(kernel, address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER)
        try:
            client.connect(path)
            client.sendall(command)
            chunks: list[bytes] = []
            handles: list[int] = []
            while True:
                data, extra, _flags, _address = client.recvmsg(65536, socket.CMSG_SPACE(16))
                for level, kind, body in extra:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        found = array.array("i")
                        found.frombytes(body[: len(body) - len(body) % found.itemsize])
                        handles.extend(found)
                if not data:
                    return b"".join(chunks), handles
                chunks.append(data)
        except socket.timeout:
            raise IvshmemError(
                f"{path}: the process that listens does not answer for {ANSWER:g} s: end it "
                f"(`fuser -k {path}`), and run again"
            ) from None
        except OSError:
            return None


def from_agent(kernel: _kernel.Kernel, address: str) -> int | None:
    answer = _ask(kernel, address, b"d")
    return answer[1][0] if answer and answer[1] else None


def agent_pid(kernel: _kernel.Kernel, address: str) -> int | None:
    """The process that listens for a function, which is no user of its memory."""
    answer = _ask(kernel, address, b"p")
    return int(answer[0]) if answer and answer[0].isdigit() else None


def collect(kernel: _kernel.Kernel, address: str) -> list[int] | None:
    """End the agent of a function and take its counts; None where none runs."""
    answer = _ask(kernel, address, b"c")
    if answer is None or not answer[0]:
        return None
    try:
        return [int(count) for count in json.loads(answer[0].decode())]
    except (ValueError, TypeError) as exc:
        raise IvshmemError(f"{socket_path(kernel, address)} does not answer as an agent of guest_probe") from exc
