# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launch scripts of others: what is read of them is what a shell gives acrn-dm, and the rest is told."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    ivshmem_options,
    make_devices,
    read_arguments,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._edit import edit_script
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._takeover import (
    read_script,
    read_unit,
    refuse_to_take,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.launch_scripts import READ, TOLD

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="Bash is not installed")
FAKE = '#!/bin/sh\n{ for each; do printf "%s\\037" "$each"; done; echo; } >> "$OUT"\n'


def run(text, folder):
    """What acrn-dm gets when a shell runs a script: VM -> its ivshmem devices as (slot, name, size)."""
    fake = folder / "acrn-dm"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    (folder / "sudo").write_text('#!/bin/sh\n[ "$1" != -E ] || shift\nexec "$@"\n')
    (folder / "sudo").chmod(0o755)
    script = folder / "script.sh"
    script.write_text(text.replace("/usr/bin/acrn-dm", str(fake)))
    out = folder / "out"
    out.write_text("")
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "OUT": str(out)}
    subprocess.run([BASH, str(script)], env=environment, cwd=folder, timeout=120, check=False, capture_output=True)
    found = {}
    for line in out.read_text().splitlines():
        name, _uuid, devices = read_arguments(line.split("\037")[:-1])
        ours = [device for device in devices if device.device == "ivshmem"]
        found[name] = sorted((device.bdf.device, *ivshmem_options(device.options)[:2]) for device in ours)
    return found


def read(text):
    found = read_script(text.encode(), "x.sh")
    devices = {
        vm["name"]: sorted((each["slot"], each["name"], each["size"]) for each in vm["devices"]) for vm in found["vms"]
    }
    return devices, found["problems"]


@needs_bash
@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_what_a_shell_makes_of_it(name, tmp_path):
    text, wanted = READ[name]
    assert read(text) == (wanted, [])
    assert run(text, tmp_path) == wanted


@pytest.mark.parametrize("name", READ)
def test_what_is_declared_as_it_is_changes_nothing(name):
    text, wanted = READ[name]
    for vm, devices in wanted.items():
        made = make_devices([{"slot": slot, "name": region, "size": size} for slot, region, size in devices])
        assert edit_script(text.encode(), made, vm=vm).data == text.encode()


@needs_bash
@pytest.mark.parametrize("name", TOLD)
def test_what_cannot_be_declared_is_told_with_its_line(name, tmp_path):
    text, told = TOLD[name]
    devices, problems = read(text)
    assert devices == {}
    assert problems[0].startswith(f"x.sh: {told}"), problems
    # What the module alone has is no way out of the role.
    assert "set state" not in problems[0], problems
    # It is a script that starts something.
    assert run(text, tmp_path)


# acrn-dm does not start with such a size, and who declares the region declares its ID, so these are mended.
MENDED = ("a size that acrn-dm refuses", "a region ID that nobody can declare")


@pytest.mark.parametrize("name", [name for name in TOLD if name not in MENDED])
def test_what_cannot_be_told_is_not_changed_either(name):
    """Whoever declares what the sample has, and no slots, gets a refusal with the line."""
    text = TOLD[name][0]
    wanted = make_devices([{"name": region, "size": 2} for region in ("hv:/plc", "dm:/log") if region in text])
    with pytest.raises(IvshmemError, match=r"(?m)^x\.sh: (line \d+|has ivshmem devices that are not declared)"):
        edited = edit_script(text.encode(), wanted, vm="vm1", where="x.sh")
        if edited.data != text.encode():
            refuse_to_take(text.encode(), "x.sh", "vm1", (device.prefixed for device in wanted))


@pytest.mark.parametrize(
    "first",
    [
        "#!/usr/bin/python3",
        "#!/usr/bin/env python3",
        "#!/usr/bin/env -S perl -w",
        "#! /usr/bin/expect -f",
        "#!/bin/tcsh",
    ],
)
def test_a_script_that_is_none_of_a_shell_is_told_where_it_names_acrn_dm(first):
    text = f'{first}\nimport os\n\nos.system("acrn-dm -s 7,ivshmem,hv:/plc,2 vm1")\n'
    devices, problems = read(text)
    assert devices == {} and len(problems) == 1
    assert problems[0].startswith("x.sh: line 4: acrn-dm may be run here in a way that cannot be read: os.system(")
    with pytest.raises(IvshmemError, match="line 4: acrn-dm may be run here"):
        edit_script(text.encode(), make_devices([{"name": "hv:/plc", "size": 2}]), vm="vm1", where="x.sh")
    assert read(f"{first}\nprint('hello')\n") == ({}, [])


@pytest.mark.parametrize(
    "words",
    [
        "--logger_setting console,level=4;kmsg,level=3",
        "-B quiet|verbose&so(on)",
        "-B a#b",
        "-B 'quiet; rw' -B \"it`s\"",
    ],
)
def test_what_is_no_operator_in_a_service_ends_no_command(words):
    """systemd runs no shell."""
    text = f"[Service]\nExecStart=/usr/bin/acrn-dm -A {words} \\\n  -s 7,ivshmem,hv:/plc,2 vm1 ; /bin/true\n"
    found = read_unit({"/x.service": text})
    assert found["problems"] == []
    assert [(vm["name"], vm["line"], [each["slot"] for each in vm["devices"]]) for vm in found["vms"]] == [
        ("vm1", 2, [7])
    ]
