# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: notification
short_description: Say how far a long step is
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - While a task runs for long (a build, the wait for a reboot, an image), writes a line to standard error every few
    seconds. It tells on how many hosts the task has ended, and of how many, how many items of a loop are done, on
    which hosts it runs, and how long it has taken so far.
  - The hosts of a task are those of the play (with C(serial), of the batch) that have not failed, or those for which
    its file was included. Of a handler, of a task with C(run_once) or in a C(rescue), and of a role that was included,
    only the hosts are known on which it has begun.
  - With the strategy P(ansible.builtin.free#strategy) it tells of the task alone that began last.
  - Short tasks print nothing.
options:
  interval:
    description: Seconds between two lines, and before the first one. V(0) for no lines at all.
    type: float
    default: 15
    ini:
      - section: acrn_ivshmem_progress
        key: interval
    env:
      - name: ACRN_IVSHMEM_PROGRESS_INTERVAL
requirements:
  - enabling in configuration (C(callbacks_enabled = acrn.ivshmem.progress))
"""

import os
import threading
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

# So many hosts are named.
NAMED = 5


def spell(seconds: float) -> str:
    """A time as people read it."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Step:
    """A task that runs. Hosts are added as it begins on them: on no more at once than there are forks.

    ``hosts``: on how many it will run, as far as that is known.
    """

    def __init__(self, name: str, hosts: int = 0) -> None:
        self.name = name
        self.hosts = hosts
        self.began = time.monotonic()
        self.waiting: dict[str, int] = {}
        self.ended = 0

    def line(self, now: float) -> str:
        """How far it is."""
        total = max(self.hosts, self.ended + len(self.waiting))
        names = [
            f"{host} ({items} {'item' if items == 1 else 'items'} done)" if items else host
            for host, items in list(self.waiting.items())[:NAMED]
        ]
        more = len(self.waiting) - len(names)
        text = ", ".join(names) + (f" and {more} more" if more > 0 else "")
        done = f"{self.ended} of {total} hosts done, " if total > 1 else ""
        return f"... {self.name}: {done}{spell(now - self.began)} so far, running on {text}"


def in_rescue(task: Any) -> bool:
    """Whether a task is for hosts alone that failed before."""
    parent = task._parent
    while parent:
        if any(each._uuid == task._uuid for each in getattr(parent, "rescue", [])):
            return True
        task, parent = parent, parent._parent
    return False


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core has no types
    """Says how far a long step is."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "acrn.ivshmem.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._step: Step | None = None
        self._play: Any = None
        self._included: dict[str, int] = {}
        self._end = threading.Event()

    def _watch(self, interval: float) -> None:
        told = 0.0
        while not self._end.wait(min(interval, 1) / 2):
            step = self._step
            now = time.monotonic()
            if step is None or not step.waiting or now - max(told, step.began) < interval:
                continue
            told = now
            # No print: another thread may fork at any time, and a lock of Python's would stay locked in the child.
            os.write(2, f"{step.line(now)}\n".encode())

    def _hosts(self, task: Any) -> int:
        """On how many hosts a task will run, 0 where that is not known."""
        if task.run_once or in_rescue(task):
            return 0
        if task.all_parents_static():
            return len(self._play.get_variable_manager().get_vars(play=self._play)["ansible_play_batch"])
        return self._included.get(task.get_path().rpartition(":")[0], 0)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        interval = float(self.get_option("interval"))
        if interval > 0:
            threading.Thread(target=self._watch, args=(interval,), daemon=True).start()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play
        self._included = {}

    def v2_playbook_on_include(self, included_file: Any) -> None:
        self._included[included_file._filename] = len(included_file._hosts)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._step = Step(task.get_name(), self._hosts(task))

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._step = Step(task.get_name())

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if self._step:
            self._step.waiting.setdefault(host.get_name(), 0)

    def _item(self, result: Any) -> None:
        host = result._host.get_name()
        if self._step and host in self._step.waiting:
            self._step.waiting[host] += 1

    v2_runner_item_on_ok = v2_runner_item_on_failed = v2_runner_item_on_skipped = _item

    def _ended(self, result: Any, **_other: Any) -> None:
        if self._step and self._step.waiting.pop(result._host.get_name(), None) is not None:
            self._step.ended += 1

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._ended(result)

    v2_runner_on_ok = v2_runner_on_skipped = v2_runner_on_unreachable = _ended

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end.set()
