# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's commands and plays on this machine, with this copy of the collection."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import yaml

from ansible_collections.acrn.ivshmem.tests.unit.schemas import kept

ROOT = pathlib.Path(__file__).absolute().parents[2]


def sample(folder):
    """Put a scenario and its board into a folder. Returns variables of a Service VM that is this machine."""
    for name in ("scenario.xml", "board.xml"):
        shutil.copy(ROOT / "molecule/default/inventory" / name, folder / name)
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "acrn_version": "3.3",
        "acrn_scenario": "scenario.xml",
        "acrn_board": "board.xml",
    }


def command(folder, *words, timeout=300):
    """Run a command that belongs to this Python, in a folder and with Ansible's home there.

    Returns the finished process, which has all that was printed in ``stdout``.
    """
    environment = {
        **os.environ,
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "NO_COLOR": "1",
    }
    environment["PATH"] = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    if ROOT.parents[1].name == "ansible_collections":
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT.parents[2])
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
        text=True,
        errors="replace",
    )
    kept(folder, words)
    return done


def next_steps(done):
    """The lines of the table NEXT STEPS that a run has ended with, if it has one."""
    lines = [line.strip().strip('",') for line in done.stdout.splitlines()]
    steps = lines[lines.index("NEXT STEPS") :] if "NEXT STEPS" in lines else []
    return steps[: steps.index("]") if "]" in steps else None]


def play(folder, variables, content, *options, timeout=300):
    """Run a play on this machine itself. ``content`` is what it does: its roles or tasks."""
    text = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable, **variables},
        **content,
    }
    (folder / "play.yml").write_text(yaml.safe_dump([text]))
    return command(folder, "ansible-playbook", "-i", "localhost,", "play.yml", *options, timeout=timeout)
