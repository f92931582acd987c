# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Launch scripts held against the real acrn-dm and the real launch_cfg_gen.py.

``ACRN_DM`` is an acrn-dm built from ACRN's source (or ``ACRN_SRC`` a tree in which ``make devicemodel`` was run), and
``ACRN_SRC`` an ACRN tree for the generator, run by ``ACRN_PYTHON`` (a Python with lxml and defusedxml; default is the
one of this test). Run as root on a machine without ACRN, acrn-dm reads all arguments and stops at
``Could not open /dev/acrn_vhm``; what it does not take makes it stop earlier, with another message. No VM is started.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import make_devices, parse_slot
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._edit import edit_script
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import script_devices, script_vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import version_of_tree
from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import play

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("ACRN_IVSHMEM_SHARED") or ROOT.parent / "shared")
SOURCE = pathlib.Path(os.environ["ACRN_SRC"]) if os.environ.get("ACRN_SRC") else None
TAKEN = "Could not open /dev/acrn_vhm"


@pytest.fixture(name="acrn_dm", scope="session")
def _acrn_dm():
    """Ask acrn-dm: a function from arguments to the last lines that it says."""
    path = os.environ.get("ACRN_DM") or (SOURCE and str(SOURCE / "build" / "devicemodel" / "acrn-dm"))
    if not path or not os.access(path, os.X_OK):
        pytest.skip("no acrn-dm: set ACRN_DM, or ACRN_SRC to a tree in which 'make devicemodel' was run")
    if os.getuid() != 0:
        pytest.skip("acrn-dm only reads its arguments as root")
    if os.path.exists("/dev/acrn_vhm") or os.path.exists("/dev/acrn_hsm"):
        pytest.skip("ACRN runs here: acrn-dm would start a VM")

    def ask(*arguments):
        done = subprocess.run(
            [path, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
            errors="replace",
        )
        return done.stdout

    ask.path = path
    said = ask("-v")
    ask.version = tuple(int(part) for part in re.search(r"(\d+)\.(\d+)", said).groups())
    return ask


def run_script(text, tmp_path, acrn_dm, head=""):
    """What acrn-dm says when Bash runs this text, which has nothing in it but variables and the call."""
    ovmf = tmp_path / "OVMF.fd"
    ovmf.write_bytes(b"x" * 0x200000)
    (tmp_path / "bin").mkdir(exist_ok=True)
    link = tmp_path / "bin" / "acrn-dm"
    if not link.exists():
        link.symlink_to(acrn_dm.path)
    text = text.replace("/usr/share/acrn/bios/OVMF.fd", str(ovmf))
    done = subprocess.run(
        [shutil.which("bash"), "-c", head + text],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
        errors="replace",
    )
    return done.stdout


@pytest.mark.parametrize(
    "slot",
    [
        "6",
        "31",
        "5:1",
        "5/1",
        "5.7",
        "0:5:0",
        "6x",
        " 6",
        "32",
        "-1",
        "5:8",
        "",
        "x",
        "1:",
        "40",
        "256:1:0",
        "+7",
        "07",
    ],
)
def test_slots_mean_what_acrn_dm_takes_them_for(acrn_dm, slot):
    answer = acrn_dm("-m", "512M", "-s", f"{slot},virtio-rnd", "VM1")
    try:
        parse_slot(slot)
    except IvshmemError:
        assert f'Invalid PCI slot info field "{slot},virtio-rnd"' in answer
    else:
        assert TAKEN in answer


@pytest.mark.parametrize(("first", "second"), [("6", "6:0"), ("16", "0:16:0"), ("7/1", "7.1"), ("6", "06")])
def test_two_ways_to_say_one_slot(acrn_dm, first, second):
    assert parse_slot(first) == parse_slot(second)
    assert "already occupied!" in acrn_dm(
        "-m", "512M", "-s", f"{first},virtio-rnd", "-s", f"{second},virtio-rnd", "VM1"
    )


def test_name_that_is_refused_here_is_refused_there(acrn_dm):
    script = "acrn-dm -m 512M -s 0:0,hostbridge {}\n"
    for name in ("A" * 15, "A" * 16):
        answer = acrn_dm("-m", "512M", "-s", "0:0,hostbridge", name)
        try:
            edit_script(script.format(name).encode(), ())
        except IvshmemError:
            assert "The name of the VM exceeds the maximum length: 15" in answer
        else:
            assert TAKEN in answer


def test_guide_sample(acrn_dm, tmp_path):
    guide = SHARED / "enable-ivshmem-guide.txt"
    if not guide.exists():
        pytest.skip(f"the user guide is not there ({guide})")
    part = guide.read_text(encoding="utf-8").split("VM1 Launch Script Sample\n")[1].lstrip("\n")
    lines = part.split("\n")
    end = next(index for index, line in enumerate(lines) if not line.strip().startswith(("acrn-dm", "-")))
    # The guide leaves out the VM's name, and pci-gvt is something that acrn-dm of v3.x ends at.
    script = "\n".join(line for line in lines[:end] if "pci-gvt" not in line) + "\n   VM1\n"
    head = "mem_size=1024M\n"
    assert "pci slot 6:0 already occupied!" in run_script(script, tmp_path, acrn_dm, head)
    devices = make_devices([{"name": "dm:/test", "size": 2}])
    edited = edit_script(script.encode(), devices)
    assert edited.devices[0].device.slot == 8
    assert TAKEN in run_script(edited.data.decode(), tmp_path, acrn_dm, head)
    if acrn_dm.version >= (3, 0):
        answer = acrn_dm("-m", "512M", "-s", "2,pci-gvt", "VM1")
        assert 'The "pci-gvt" parameter is obsolete and ignored' in answer
        assert TAKEN not in answer


VMS = [
    {
        "name": "VM1",
        "memory": 1024,
        "disks": [{"path": "/var/lib/my disk.img"}, {"path": "/dev/sda3", "options": "writethru", "slot": 9}],
        "nics": [{"tap": "tap_a", "vhost": True}, {"tap": "tap_b"}],
        "passthrough": [{"bdf": "00:02.0", "slot": 2}, {"bdf": "00:1F.3", "options": "d3hot_reset"}],
        "console": "@pty:pty_port",
        "ovmf": "/usr/share/acrn/bios/OVMF.fd",
        "windows": True,
        "extra_args": ["--logger_setting", "console,level=4;kmsg,level=3"],
        "devices": [{"name": "hv:/a", "size": 2, "vbdf": "00:08.0"}, {"name": "dm:/b", "size": 4, "vbdf": "00:1e.0"}],
    },
    {
        "name": "VM_2",
        "memory": 512,
        "console": "com1,stdio",
        "rtvm": True,
        "lpc": True,
        "disks": [{"path": f"/disk{number}.img"} for number in range(12)],
        "devices": [{"name": "dm:/b", "size": 4}, {"name": "dm:/c", "size": 4, "slot": 3, "region_id": 4097}],
    },
    {"name": "VM-3", "memory": 128, "devices": []},
]


def render(tmp_path, version, vms, **variables):
    """Run the role on this machine and give what it said; the scripts are in tmp_path/launch."""
    variables = {
        "launch_dir": str(tmp_path / "launch"),
        "launch_units": False,
        "launch_hypervisor_manifest": "",
        "launch_version": version,
        "launch_vms": vms,
        **variables,
    }
    return play(tmp_path, variables, {"roles": ["acrn.ivshmem.launch"]})


@pytest.mark.parametrize("version", ["2.7", "3.3"])
def test_rendered_scripts(acrn_dm, tmp_path, version):
    done = render(tmp_path, version, VMS)
    assert done.returncode == 0, done.stdout
    again = render(tmp_path, version, VMS)
    assert re.search(r"changed=0 .*failed=0", again.stdout), again.stdout
    for vm in VMS:
        path = tmp_path / "launch" / f"{vm['name']}.sh"
        text = path.read_text()
        subprocess.run(["bash", "-n", str(path)], check=True)
        if shutil.which("shellcheck"):
            checked = subprocess.run(["shellcheck", str(path)], stdout=subprocess.PIPE, check=False)
            assert checked.returncode == 0, checked.stdout.decode()
        # What is in front of the arguments would take devices of this machine.
        call = text[text.index("dm_params=(") :].replace("exec /usr/bin/acrn-dm", "acrn-dm")
        if f"{acrn_dm.version[0]}" == version[0]:
            assert TAKEN in run_script(call, tmp_path, acrn_dm), call
        names = [device.name for device in script_devices(text.encode())]
        assert names == [device["name"] for device in vm["devices"]]


BAD = [
    ({"name": "VM1;id"}, "a name has 1 to 15 characters"),
    ({"name": "VM2\nid"}, "a name has 1 to 15 characters"),
    ({"name": "$(id)"}, "a name has 1 to 15 characters"),
    ({"name": "-v"}, "a name has 1 to 15 characters"),
    ({"name": "ABCDEFGHIJKLMNOP"}, "a name has 1 to 15 characters"),
    ({"disks": [{"path": "/a;id"}]}, 'disk "/a;id" has a character that is not allowed'),
    ({"disks": [{"path": "/$(id)"}]}, 'disk "/$(id)" has a character that is not allowed'),
    ({"disks": [{"path": "/a\nid"}]}, 'disk "/a\\nid" has a character that is not allowed'),
    ({"disks": [{"path": "/a,b"}]}, 'disk "/a,b" has a character that is not allowed'),
    ({"ovmf": "/`id`"}, 'ovmf "/`id`" has a character that is not allowed'),
    ({"nics": [{"tap": "tap a"}]}, 'tap "tap a" is no name for a tap device'),
    ({"nics": [{"tap": "tap1", "bridge": "br0;id"}]}, 'bridge "br0;id" has a character that is not allowed'),
    ({"passthrough": [{"bdf": "0:2.0;id"}]}, '"0:2.0;id" is no PCI address'),
    ({"bootargs": "a\nb"}, '"a\\nb" has a line break'),
    ({"extra_args": ["a\nb c"]}, '"a\\nb c" has a line break'),
    ({"memory": 64}, "at least 128 MB"),
]


def test_refused_by_the_role(tmp_path):
    vms = [{"name": f"V{number}", "memory": 512, "devices": [], **change} for number, (change, _text) in enumerate(BAD)]
    done = render(tmp_path, "3.3", [*vms, {"name": "V7", "devices": []}])
    assert done.returncode != 0
    said = re.sub(r"\s+", " ", done.stdout.replace("\\n", "\n").replace("\\", ""))
    for text in [text for _change, text in BAD] + ["memory (in MB) is missing", "is listed twice in launch_vms"]:
        assert re.sub(r"\s+", " ", text.replace("\\n", "\n").replace("\\", "")) in said, (text, done.stdout)
    assert not (tmp_path / "launch").exists()


def test_refused_by_the_module(tmp_path):
    vms = [
        {"name": "V1", "memory": 512, "devices": [{"name": "dm:/a;id", "size": 2}]},
        {
            "name": "V2",
            "memory": 512,
            "disks": [{"path": "/a", "slot": 8}],
            "devices": [{"name": "dm:/a", "size": 2, "slot": 8}],
        },
    ]
    done = render(tmp_path, "3.3", vms)
    assert done.returncode != 0
    assert "1 to 27 characters" in done.stdout
    assert "is taken by virtio-blk" in done.stdout
    assert not (tmp_path / "launch").exists()


# The real generator

STUBS = """
probe_modules() { :; }
offline_cpus() { :; }
unbind_device() { :; }
create_tap() { :; }
mount_partition() { echo /tmp; }
unmount_partition() { :; }
"""


def harmless(text):
    """The part of a generated script that makes the arguments, without what would take devices of this machine."""
    marker = "# The followings are generated by launch_cfg_gen.py\n###\n"
    if marker in text:
        # Scenarios without a size of memory are completed by ACRN's build before the generator sees them.
        return text.replace(marker, marker + STUBS).replace("-m NoneM", "-m 1024M")
    variables = re.findall(
        r"^\s*((?:vm_name|mac_seed|mem_size|logger_setting|intr_storm_monitor|boot_audio_option)=.*)$", text, re.M
    )
    call = re.search(r"^acrn-dm (?:.*\\\n)*.*\n", text, re.M)
    return "\n".join(variables).replace("${mac:0:17}", "00:11:22:33:44:55") + "\n" + call.group()


def generate(tmp_path, board, scenario, launch_xml=None):
    """The scripts that launch_cfg_gen.py of ACRN_SRC writes."""
    tool = SOURCE / "misc" / "config_tools" / "launch_config" / "launch_cfg_gen.py"
    command = [
        os.environ.get("ACRN_PYTHON") or sys.executable,
        str(tool),
        "--board",
        str(board),
        "--scenario",
        str(scenario),
    ]
    command += ["--launch", str(launch_xml)] if launch_xml else []
    out = tmp_path / "out"
    done = subprocess.run(
        [*command, "--user_vmid", "0", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=120,
        check=False,
        errors="replace",
    )
    scripts = sorted(out.rglob("launch_u*_id*.sh"))
    if not scripts:
        pytest.skip(f"launch_cfg_gen.py itself has no answer for {scenario.name}: {done.stdout.splitlines()[-1]}")
    return scripts


@pytest.fixture(name="tree", scope="session")
def _tree():
    if SOURCE is None or not (SOURCE / "VERSION").exists():
        pytest.skip("no ACRN tree: set ACRN_SRC")
    python = os.environ.get("ACRN_PYTHON") or sys.executable
    if subprocess.run([python, "-c", "import lxml, defusedxml"], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip(f"{python} lacks lxml or defusedxml, which launch_cfg_gen.py needs: set ACRN_PYTHON")
    return version_of_tree((SOURCE / "VERSION").read_text(encoding="utf-8"))


def _pairs():
    """Board, scenario and launch XML of the tree that go together."""
    data = SOURCE / "misc" / "config_tools" / "data" if SOURCE else None
    if data is None or not data.is_dir():
        return []
    pairs = []
    for board in sorted(data.glob("*/*.xml")):
        if board.stem != board.parent.name:
            continue
        for path in sorted(board.parent.glob("*.xml")):
            text = path.read_text(encoding="utf-8")
            stem = re.match(r"(.+)_launch_", path.name)
            if "<user_vm " in text and stem:
                pairs.append((board, board.parent / f"{stem.group(1)}.xml", path))
            elif "POST_LAUNCHED_VM" in text and "<load_order>SERVICE_VM" in text:
                pairs.append((board, path, None))
    return pairs


@pytest.mark.parametrize(
    "files", _pairs() or [None], ids=lambda files: "/".join(files[2 if files[2] else 1].parts[-2:]) if files else "none"
)
def test_generated_scripts(tree, acrn_dm, tmp_path, files):
    if files is None:
        pytest.skip("ACRN_SRC has no scenarios")
    board, path, launch_xml = files
    scenario = read_scenario(path.read_bytes(), str(path))
    post = [vm for vm in scenario.vms if vm.load_order == "post_launched"]
    for number, script in enumerate(generate(tmp_path, board, path, launch_xml)):
        data = script.read_bytes()
        (called,) = script_vms(data, script.name)
        assert called.name
        assert called.style == ("array" if tree >= (3, 0) else "command")
        if tree >= (3, 0):
            assert called.name in [vm.name for vm in post]
        # One device of each kind, one at a place of its own and one wherever there is room.
        wanted = make_devices([{"name": "dm:/b", "size": 4, "slot": 20 + number}, {"name": "hv:/a", "size": 2}], tree)
        edited = edit_script(data, wanted, acrn_version=tree, where=script.name)
        assert not edited.warnings
        assert edit_script(edited.data, wanted, acrn_version=tree).data == edited.data
        assert edit_script(edited.data, (), acrn_version=tree).data == edit_script(data, (), acrn_version=tree).data
        subprocess.run(["bash", "-n"], input=edited.data, check=True)
        if acrn_dm.version[0] == tree[0]:
            answer = run_script(harmless(edited.data.decode()), tmp_path, acrn_dm)
            assert TAKEN in answer, answer


def test_generator_puts_every_vm_at_the_place_of_the_first(tree, acrn_dm, tmp_path):
    """The fault that is the reason for editing what the generator writes; v3.0 ignores places altogether."""
    if tree < (3, 1):
        pytest.skip("the generator of this version has no places")
    found = [files for files in _pairs() if files[1].name == "shared.xml"]
    if not found:
        pytest.skip("ACRN_SRC has no shared.xml")
    board, path, _none = found[0]
    places = {"POST_STD_VM1": 8, "POST_RT_VM1": 16, "POST_STD_VM2": 10}
    members = "".join(
        f"<IVSHMEM_VM><VM_NAME>{name}</VM_NAME><VBDF>00:{slot:02x}.0</VBDF></IVSHMEM_VM>"
        for name, slot in places.items()
    )
    region = (
        "<IVSHMEM><IVSHMEM_REGION><NAME>trio</NAME><PROVIDED_BY>Device Model</PROVIDED_BY>"
        "<IVSHMEM_SIZE>4</IVSHMEM_SIZE>"
        f"<IVSHMEM_REGION_ID>4096</IVSHMEM_REGION_ID><IVSHMEM_VMS>{members}</IVSHMEM_VMS></IVSHMEM_REGION></IVSHMEM>"
    )
    scenario = tmp_path / "shared.xml"
    scenario.write_text(path.read_text(encoding="utf-8").replace("<IVSHMEM/>", region), encoding="utf-8")
    theirs, ours = {}, {}
    for script in generate(tmp_path, board, scenario):
        data = script.read_bytes()
        name = script_vms(data)[0].name
        if name in places:
            theirs[name] = [(device.slot, device.region_id) for device in script_devices(data)]
            wanted = make_devices([{"name": "dm:/trio", "size": 4, "slot": places[name], "region_id": 4096}], tree)
            edited = edit_script(data, wanted, acrn_version=tree)
            ours[name] = [(device.slot, device.region_id) for device in script_devices(edited.data)]
            assert TAKEN in run_script(harmless(edited.data.decode()), tmp_path, acrn_dm)
    written = 4096 if tree >= (3, 3) else None
    assert theirs == {name: [(8, None)] for name in places}
    assert ours == {name: [(slot, written)] for name, slot in places.items()}
