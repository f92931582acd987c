# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role launch with VMs that run: processes that hold the memory of dm-land regions as acrn-dm does."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT, play

NAME = f"acrn_test_{os.getpid()}"
MEMORY = pathlib.Path("/dev/shm") / NAME

ACRN_DM = f"#!{sys.executable}\n" + (ROOT / "tests/lab/acrn_dm_memory.py").read_text()
CONTROL = """\
#!/bin/sh -e
# start|stop NAME SCRIPT
cd "$(dirname "$0")"
echo "$1 $2" >> order
if [ "$1" = start ]; then
    # Here, since the shell behind & may be late, and what an earlier start said is no answer.
    : > "$2.log"
    setsid "$3" > "$2.log" 2>&1 < /dev/null &
    echo $! > "$2.pid"
    until grep -q . "$2.log"; do sleep 0.05; done
    # Else what it says is why.
    grep -q ready "$2.log" || { cat "$2.log" >&2; exit 1; }
    exit 0
fi
kill -INT "$(cat "$2.pid")"
while [ -e "/proc/$(cat "$2.pid")/maps" ] && grep -q . "/proc/$(cat "$2.pid")/maps"; do sleep 0.05; done
"""


@pytest.fixture(name="vms")
def _vms(tmp_path):
    for name, text in (("acrn-dm", ACRN_DM), ("control", CONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    yield tmp_path
    for path in tmp_path.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)
    MEMORY.unlink(missing_ok=True)


def run_role(folder, size, *options):
    """What the role said, and the order in which it stopped and started VMs."""
    region = {"name": f"dm:/{NAME}", "size": size}
    control = str(folder / "control")
    variables = {
        "launch_dir": str(folder / "launch"),
        "launch_acrn_dm": str(folder / "acrn-dm"),
        "launch_hypervisor_manifest": "",
        "launch_version": "3.3",
        "launch_units": False,
        "launch_started": True,
        "launch_start_command": [control, "start", "{name}", "{script}"],
        "launch_stop_command": [control, "stop", "{name}"],
        "launch_vms": [
            {"name": "RESTART_A", "memory": 512, "devices": [region]},
            {"name": "RESTART_B", "memory": 512, "devices": [{**region, "slot": 20}]},
            {"name": "RESTART_C", "memory": 512, "devices": []},
        ],
    }
    (folder / "order").write_text("")
    done = play(folder, variables, {"roles": ["acrn.ivshmem.launch"]}, *options)
    return re.sub(r"\s+", " ", done.stdout), (folder / "order").read_text().splitlines()


def test_peers_of_a_resized_region_restart_together_and_only_when_asked(vms):
    said, order = run_role(vms, 2)
    assert order == ["start RESTART_A", "start RESTART_B", "start RESTART_C"], said
    assert re.search("changed=0 ", run_role(vms, 2)[0])

    said, order = run_role(vms, 4)
    assert order == []
    assert "RESTART_A, RESTART_B still run with the arguments of an earlier launch script" in said
    assert "is in use by VM RESTART_A, VM RESTART_B" in said
    assert MEMORY.stat().st_size == 2 << 20

    restart = ("-e", '{"launch_restart": true}')
    said, order = run_role(vms, 4, *restart, "--check")
    assert (order, re.search(r"changed=[1-9]", said) is not None) == ([], True), said
    said, order = run_role(vms, 4, *restart)
    assert order == ["stop RESTART_A", "stop RESTART_B", "start RESTART_A", "start RESTART_B"], said
    assert MEMORY.stat().st_size == 4 << 20
    assert re.search("changed=0 ", run_role(vms, 4, *restart)[0])


def test_nothing_is_stopped_where_a_stranger_keeps_the_memory(vms):
    run_role(vms, 2)
    stranger = [str(vms / "acrn-dm"), "-s", f"5,ivshmem,dm:/{NAME},2", "STRANGER"]
    with subprocess.Popen(stranger, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        said, order = run_role(vms, 4, "-e", '{"launch_restart": true}')
        process.send_signal(signal.SIGINT)
    assert order == []
    assert "RESTART_A, RESTART_B cannot be restarted now" in said
    assert "VM STRANGER" in said
