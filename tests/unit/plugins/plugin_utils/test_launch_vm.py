# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import subprocess

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch import _vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._devices import launch
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._vms import Settings
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _launch_text

render = _launch_text.renderer()


def script(vm, found, plan, settings):
    return render(_vms.values(vm, found, plan, settings))


PLAN = {
    "dialect": "v3",
    "acrn_version": "3.3",
    "vms": [
        {"id": 0, "name": "PRE", "load_order": "pre_launched"},
        {"id": 2, "name": "VM1", "load_order": "post_launched"},
    ],
    "regions": [{"name": "log", "provided_by": "device_model", "size": 2}],
}
DEVICES = [{"name": "log", "provided_by": "device_model", "size": 2, "slot": 3, "vbdf": "00:03.0"}]
FULL = {
    "name": "VM1",
    "memory": 1024,
    "uuid": "495ae2e5-2603-4d64-af76-d4bc5a8ec0e5",
    "cpu_affinity": [1, 2],
    "console": "@stdio:stdio_port",
    "disks": [{"path": "/disk one.img"}, {"path": "/b.img", "slot": 9, "options": "writethru"}],
    "nics": [{"tap": "tap0", "vhost": True}, {"tap": "tap1", "bridge": "br1", "mac_seed": "seed"}],
    "passthrough": [{"bdf": "00:1F.6", "options": "enable_ptm"}],
    "kernel": "/k",
    "ramdisk": "/r",
    "bootargs": "root=/dev/vda it's",
    "ovmf": "/OVMF.fd",
    "windows": True,
    "rtvm": True,
    "lpc": True,
    "extra_args": ["--ssram"],
}


def settings(**changes):
    values = {
        "mode": "template",
        "version": "3.3",
        "dir": "/launch",
        "acrn_dm": "acrn-dm",
        "bridge": "acrn-br0",
        "host": "press-1",
        "scenario_path": "",
        "hypervisor_manifest": "",
        "units": True,
        "unit_directory": "/units",
        "unit": "[Unit]\n",
        "enabled": True,
        "started": False,
        "can_start": True,
        "hsm": ["/dev/acrn_hsm"],
        "absent": [],
    }
    return Settings(**{**values, **changes})


def refused(vm, plan=None, **changes):
    own = settings(**changes)
    return _vms.problems([{"name": "VM1", "memory": 512, **vm}], plan or PLAN, own.mode, own.version)


def test_a_good_vm_has_no_problem():
    assert refused({}) == []
    assert refused(FULL) == []


@pytest.mark.parametrize(
    ("vm", "text"),
    [
        ({"name": "a b"}, "VM 'a b': a name has 1 to 15 characters"),
        ({"name": "OTHER"}, "VM 'OTHER': is not in the scenario; its VMs are PRE, VM1"),
        ({"name": "PRE"}, "VM 'PRE': is pre_launched in the scenario"),
        ({"memory": None}, "memory (in MB) is missing"),
        ({"memory": 64}, "memory must be at least 128 MB"),
        ({"disks": [{"path": "/a,b"}]}, 'disk "/a,b" has a character that is not allowed there'),
        ({"disks": [{"path": ""}]}, 'disk "" has a character'),
        ({"ovmf": "-x"}, 'ovmf "-x" has a character'),
        ({"nics": [{"tap": "a/b"}]}, 'tap "a/b" is no name for a tap device'),
        ({"passthrough": [{"bdf": "1f.6"}]}, 'passthrough "1f.6" is no PCI address'),
        ({"bootargs": "a\nb"}, '"a\\nb" has a line break'),
        ({"disks": [{"path": "/a", "options": "a\tb"}]}, '"a\\tb" has a line break or another control character'),
    ],
)
def test_what_is_refused(vm, text):
    assert text in refused(vm)[0]


@pytest.mark.parametrize(
    ("vm", "text"),
    [
        (
            {"disks": [{"path": "/a", "slot": 3}, {"path": "/b", "slot": "3"}]},
            'disks "/b" is at slot 3, where disks "/a"',
        ),
        (
            {"disks": [{"path": "/a", "slot": 9}], "nics": [{"tap": "tap0", "slot": 9}]},
            'nics "tap0" is at slot 9, where',
        ),
        ({"disks": [{"path": "/a", "slot": 1}]}, 'disks "/a" cannot have slot 1: write 3 to 30'),
        ({"nics": [{"tap": "tap0", "slot": 31}]}, 'nics "tap0" cannot have slot 31'),
        ({"passthrough": [{"bdf": "00:02.0", "slot": 0}]}, 'passthrough "00:02.0" cannot have slot 0'),
        ({"disks": [{"path": "/a", "slot": 40}]}, "cannot have slot 40"),
    ],
)
def test_slots_at_which_acrn_dm_would_end(vm, text):
    (problem,) = refused(vm)
    assert text in problem


def test_more_devices_than_slots():
    disks = [{"path": f"/{number}.img"} for number in range(28)]
    assert wish([{"name": "VM1", "memory": 512, "disks": disks, "devices": []}])["state"]["refused"] == []
    full = wish([{"name": "VM1", "memory": 512, "disks": disks}])["state"]
    assert full == {"refused": ["VM 'VM1': has more devices than the 28 PCI slots from 3 to 30 hold; remove some"]}


def test_a_place_that_cannot_be_read_is_left_to_the_script():
    """launch_script refuses it with file and line."""
    text = script({"name": "VM1", "memory": 512}, [{"name": "x", "vbdf": "zz"}], PLAN, settings())
    assert "hostbridge" in text


def test_slots_may_be_texts():
    disks = [{"path": "/a", "slot": "3"}, {"path": "/b"}]
    text = script({"name": "VM1", "memory": 512, "disks": disks}, [], PLAN, settings())
    assert ("'3,virtio-blk,/a'" in text, "'4,virtio-blk,/b'" in text) == (True, True)


def test_a_mode_that_there_is_not():
    assert refused({}, mode="edti") == ["launch_mode is template, generate or edit, not 'edti'; did you mean edit?"]


def test_a_tap_of_v2_has_tap_in_its_name():
    assert refused({"nics": [{"tap": "eth7"}]}, version="3.3") == []
    assert "up to ACRN v2.7" in refused({"nics": [{"tap": "eth7"}]}, version="v2.7")[0]
    assert "up to ACRN v2.7" in refused({"nics": [{"tap": "eth7"}]}, {**PLAN, "dialect": "v2"}, version="")[0]


def test_a_vm_that_is_listed_twice_is_told_once():
    vm = {"name": "VM1", "memory": 512}
    assert _vms.problems([vm, vm], PLAN, "template", "3.3") == ["VM 'VM1': is listed twice in launch_vms"]


@pytest.mark.parametrize(
    ("vm", "told"),
    [
        ({"name": "vm1"}, "its VMs are PRE, VM1, VM2; did you mean VM1?"),
        ({"name": "2"}, "its VMs are PRE, VM1, VM2; did you mean VM2?"),
        ({"name": "VM2", "id": 1}, "its id is 1, and 2 in the scenario"),
        ({"name": "VM2", "uuid": "ab"}, "its uuid is ab, and cd in the scenario"),
        ({"name": "VM2", "id": "2", "uuid": "CD"}, None),
    ],
)
def test_what_a_vm_is_in_the_scenario(vm, told):
    orders = {"PRE": "pre_launched", "VM1": "post_launched", "VM2": "post_launched"}
    vms = [{"name": name, "id": number, "load_order": order} for number, (name, order) in enumerate(orders.items())]
    vms[2]["uuid"] = "cd"
    found = _vms.problems([{"memory": 512, **vm}], {"vms": vms}, "template", "2.6")
    assert [told in line for line in found] == ([True] if told else [])


def arguments(text, tmp_path):
    """What acrn-dm gets from a script, and what else the script calls."""
    for name in ("acrn-dm", "ip", "modprobe"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
        program.chmod(0o755)
    script = tmp_path / "launch.sh"
    # The devices of this machine are not to be touched.
    script.write_text(text.replace("/sys/bus/pci", str(tmp_path / "pci")))
    (tmp_path / "pci/devices/0000:00:1f.6").mkdir(parents=True)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_all_arguments_of_v3(tmp_path):
    lines = arguments(script(FULL, DEVICES, PLAN, settings()), tmp_path)
    assert lines[lines.index("acrn-dm") + 1 :] == [
        *("-m", "1024M", "--cpu_affinity", "1,2"),
        *(
            "-s",
            "0:0,hostbridge",
            "-s",
            "3,ivshmem,dm:/log,2",
            "-s",
            "1:0,lpc",
            "-s",
            "4,virtio-console,@stdio:stdio_port",
        ),
        *("-s", "5,virtio-blk,/disk one.img", "-s", "9,virtio-blk,/b.img,writethru"),
        *("-s", "6,virtio-net,tap=tap0,mac_seed=press-1-VM1,vhost", "-s", "7,virtio-net,tap=tap1,mac_seed=seed"),
        *("-s", "16,passthru,00/1f/6,enable_ptm", "-k", "/k", "-r", "/r", "-B", "root=/dev/vda it's"),
        *("--ovmf", "/OVMF.fd", "--windows", "--rtvm", "--lapic_pt", "--virtio_poll", "1000000", "--ssram", "VM1"),
    ]
    assert "modprobe" in lines
    assert (tmp_path / "pci/devices/0000:00:1f.6/driver_override").read_text() == "pci-stub\n"


@pytest.mark.parametrize(
    ("version", "own", "planned", "written"),
    [
        ("2.6", None, "AB", "ab"),
        ("2.6", "cd", None, "cd"),
        # acrn-dm has no -U any more.
        ("2.7", "cd", "cd", None),
        ("3.3", "cd", None, None),
        # Nobody knows whether it has, but the user.
        ("", "cd", None, "cd"),
        ("", None, "ab", None),
    ],
)
def test_a_vm_is_known_by_its_uuid_up_to_v2_6(version, own, planned, written):
    vms = [{"id": 1, "name": "VM1", "load_order": "post_launched", "uuid": planned}]
    vm = {"name": "VM1", "memory": 512, **({"uuid": own} if own else {})}
    text = script(vm, [], {**PLAN, "dialect": "v2", "vms": vms}, settings(version=version))
    assert re.findall(r"-U '?(\w+)", text) == ([written] if written else [])


def test_a_vm_without_a_uuid_would_be_another_one_up_to_v2_6():
    """acrn-dm takes that of the first standard VM (devicemodel/core/vmmapi.c)."""
    vms = [{"id": 1, "name": "VM1", "load_order": "post_launched", "uuid": None}]
    plan = {**PLAN, "vms": vms}
    (told,) = _vms.problems([{"name": "VM1", "memory": 512}], plan, "template", "2.6")
    assert told.startswith("VM 'VM1': uuid is missing: before v2.7")
    assert _vms.problems([{"name": "VM1", "memory": 512}], plan, "template", "2.7") == []
    assert _vms.problems([{"name": "VM1"}], plan, "edit", "2.6") == []
    (told,) = _vms.problems([{"name": "VM1", "memory": 512}], plan, "template", "two")
    assert "'two' is not a version" in told


def test_what_is_other_in_v2(tmp_path):
    lines = arguments(script({**FULL, "passthrough": []}, [], PLAN, settings(version="2.7")), tmp_path)
    assert lines[lines.index("acrn-dm") + 1] == "-A"
    assert "5,virtio-net,tap0,vhost" in lines
    assert "6,virtio-net,tap1" in lines
    assert lines.count("--mac_seed") == 1


def test_a_small_vm(tmp_path):
    lines = arguments(script({"name": "VM1", "memory": 512}, [], PLAN, settings()), tmp_path)
    assert lines == ["acrn-dm", "-m", "512M", "-s", "0:0,hostbridge", "-s", "1:0,lpc", "VM1"]


def test_slots_of_regions_are_left_alone():
    found = [{"slot": slot} for slot in (3, 4, 5, 6, 7)] + [{"vbdf": "00:10.0"}]
    text = script({"name": "VM1", "memory": 512, "disks": [{"path": "/a"}]}, found, PLAN, settings())
    assert "'17,virtio-blk,/a'" in text


def wish(vms, **changes):
    return _vms.wish(vms, PLAN, lambda name: DEVICES, settings(**changes), render)


def test_the_wish_of_a_template():
    result = wish([{"name": "VM1", "memory": 512}], started=True, absent=["old"])
    state = result["state"]
    assert state["refused"] == []
    assert "'VM1'" in state["scripts"][0]["content"]
    assert state["files"][3]["state"] == "absent"
    assert [each["path"] for each in state["files"]] == [
        "/launch",
        "/units/acrn-vm@.service",
        "/etc/systemd/system/multi-user.target.wants/acrn-vm@VM1.service",
        "/etc/systemd/system/acrn-vm@VM1.service",
        "/run/systemd/units/invocation:acrn-vm@VM1.service",
    ]
    assert state["regions"] == [{"name": "log", "size": 2}]
    assert (state["absent"], state["started"]) == (["old"], ["VM1"])
    assert state["vms"] == [{"name": "VM1", "devices": DEVICES}]


def test_the_wish_for_scripts_of_ones_own():
    vm = {"name": "VM1", "script": "/mine.sh", "enabled": False, "devices": [{"name": "dm:/x", "size": 4}]}
    state = wish([vm], mode="edit")["state"]
    assert (state["scripts"][0]["path"], state["scripts"][0]["content"]) == ("/mine.sh", None)
    assert state["scripts"][0]["mode"] is None
    assert {"path": "/launch/VM1.sh", "state": "link", "src": "/mine.sh"} in state["files"]
    assert state["files"][2]["state"] == "absent"
    assert {"name": "x", "size": 4} in state["regions"]
    assert wish([vm], mode="generate", source="/tree")["state"]["scripts"] == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dir": "launch"}, "launch_dir is 'launch': write a path of the Service VM, which begins with /"),
        ({"unit_directory": "~/units"}, "launch_unit_directory is '~/units': write a path"),
        ({"mode": "edit"}, "script of VM 'VM1' is 'mine.sh': write a path"),
        ({"mode": "generate"}, "set acrn_source (or launch_source)"),
    ],
)
def test_a_path_that_is_seen_from_nowhere_and_a_tree_that_is_missing(settings, told):
    vm = {"name": "VM1", "memory": 512, "script": "mine.sh"}
    assert [text for text in wish([vm], **settings)["state"]["refused"] if told in text]
    assert wish([], **settings)["state"]["refused"] == []


def test_without_units_there_is_only_the_directory():
    state = wish([{"name": "VM1", "memory": 512}], units=False, started=True, can_start=False)["state"]
    assert [each["path"] for each in state["files"]] == ["/launch"]
    assert state["started"] == []


def test_nothing_is_wanted_without_vms_or_with_a_problem():
    assert sorted(wish([])["state"]) == ["acrn_version", "hypervisor", "others", "refused"]
    assert list(wish([{"name": "VM1"}])["state"]) == ["refused"]


PLC = {"name": "hv:/plc", "size": 4, "slot": 30, "provided_by": "hypervisor", "region_id": 4097}
OPEN = {"name": "dm:/own", "size": 2}


@pytest.mark.parametrize("version", ["3.3", "2.7"])
@pytest.mark.parametrize("vm", [FULL, {"name": "VM1", "memory": 512}], ids=["full", "small"])
def test_the_template_puts_devices_where_launch_script_would(vm, version):
    """So a script of this template is not changed again, and one of a template without them comes to the same."""
    number, found = (int(version[0]), int(version[2])), [PLC, *DEVICES]
    text = script(vm, found, PLAN, settings(version=version))
    bare = "".join(line for line in text.splitlines(keepends=True) if ",ivshmem," not in line)
    assert text.count(",ivshmem,") == 2 and (",4,4097'" in text) == (version == "3.3")
    for start in (text, bare):
        assert launch(start.encode(), "f", found, vm="VM1", version=number).data.decode() == text


def test_a_device_without_a_slot_is_left_to_launch_script():
    vm = {"name": "VM1", "memory": 512, "disks": [{"path": "/a"}]}
    text = script(vm, [OPEN], PLAN, settings())
    assert ",ivshmem," not in text
    assert b"-s '8,ivshmem,dm:/own,2'" in launch(text.encode(), "f", [OPEN], vm="VM1", version=(3, 3)).data


def test_a_template_of_the_user(tmp_path):
    path = tmp_path / "mine.sh.j2"
    path.write_text(
        "#!/bin/sh\n# {{ vm.color }}\nexec {{ acrn_dm | quote }} -m {{ memory }}M"
        "{% for device in ivshmem %} -s {{ device | word }}{% endfor %} {{ name | word }}\n"
    )
    own = _launch_text.renderer(str(path))
    vm = {"name": "VM1", "memory": 512, "color": "red"}
    found = own(_vms.values(vm, DEVICES, PLAN, settings()))
    assert found == "#!/bin/sh\n# red\nexec acrn-dm -m 512M -s '3,ivshmem,dm:/log,2' 'VM1'\n"
    state = _vms.wish([vm], PLAN, lambda name: DEVICES, settings(), own)["state"]
    assert state["scripts"][0]["content"] == found
    path.write_text("{% extends 'vm.sh.j2' %}")
    assert _launch_text.renderer(str(path))(_vms.values(vm, [], PLAN, settings())) == script(vm, [], PLAN, settings())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ nothing }}", "mine.sh.j2: UndefinedError: 'nothing' is undefined"),
        ("a\n{% if %}", "mine.sh.j2:2: Expected an expression"),
        ("{{ name.__class__.__mro__ }}", "mine.sh.j2: SecurityError"),
        (None, "mine.sh.j2: No such file or directory"),
    ],
)
def test_a_template_that_fails_is_refused_with_variable_file_and_vm(tmp_path, text, told):
    path = tmp_path / "mine.sh.j2"
    if text is not None:
        path.write_text(text)
    own = _launch_text.renderer(str(path))
    with pytest.raises(IvshmemError, match=r"launch_template: .*mine"):
        own(_vms.values({"name": "VM1", "memory": 512}, [], PLAN, settings()))
    (refused,) = _vms.wish([{"name": "VM1", "memory": 512}], PLAN, lambda name: [], settings(), own)["state"]["refused"]
    assert refused.startswith("VM 'VM1': launch_template: ") and told in refused
