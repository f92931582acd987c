# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The systemd unit of the role launch, read by systemd itself."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT, play

ROLE = ROOT / "roles/launch"
ODD = {
    "launch_environment": {"ODD": 'a "b" 100% $c', "PLAIN": "1"},
    "launch_hsm_devices": [],
    "launch_after": [],
    "launch_acrnctl": "",
    "launch_restart_policy": "no",
}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("variables", [{}, ODD], ids=["defaults", "odd"])
def test_systemd_takes_the_unit(tmp_path, variables):
    script = tmp_path / "VM-1.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    unit = tmp_path / "acrn-vm@.service"
    tasks = [
        {"ansible.builtin.include_vars": str(ROLE / "defaults/main.yml")},
        {"ansible.builtin.include_vars": str(ROLE / "vars/main.yml")},
        {
            "ansible.builtin.template": {
                "src": str(ROLE / "templates/acrn-vm@.service.j2"),
                "dest": str(unit),
                "mode": "0644",
            },
        },
    ]
    given = json.dumps({**variables, "launch_dir": str(tmp_path)})
    done = play(tmp_path, {}, {"tasks": tasks}, "-e", given, timeout=120)
    assert done.returncode == 0, done.stdout
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "acrn-vm@VM-1.service")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
        text=True,
    )
    assert (verified.returncode, verified.stdout) == (0, "")
    lines = unit.read_text().splitlines()
    assert ("ConditionPathExists=|/dev/acrn_hsm" in lines) == (variables is not ODD)
    assert (r'Environment="ODD=a \"b\" 100%% $c"' in lines) == (variables is ODD)
