# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and editing launch scripts. The judge of what a script means is Bash: it runs them with an acrn-dm that only
writes down its arguments."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import (
    check_vm_name,
    make_devices,
    options_of,
    parse_pci,
    read_arguments,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._devices import launch
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._edit import edit_script
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._view import script_devices, script_vms, slots_of
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario

SHARED = pathlib.Path(
    os.environ.get("ACRN_IVSHMEM_SHARED") or pathlib.Path(__file__).resolve().parents[4].parent / "shared"
)
GUIDE = SHARED / "enable-ivshmem-guide.txt"
BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="Bash is not installed")

PLAIN = """\
#!/bin/bash
mem_size=1024M
vm_name="VM1"   # the last argument below
acrn-dm -A -m $mem_size -s 0:0,hostbridge \\
   -s 3,virtio-blk,"/images/my disk.img" \\
   -s 5,ivshmem,dm:/old,2 \\
   --ovmf /usr/share/acrn/bios/OVMF.fd \\
   $vm_name
echo "ended: $?"
"""
ARRAY = """\
#!/bin/bash
function add_virtual_device() {
    echo -n "-s $1,$2"
    if [ -n "$3" ]; then
        echo -n ",$3"
    fi
}
vm_type='STANDARD_VM'
dm_params=(
    -m 1024M
    `add_virtual_device                       1:0 lpc`
    `add_virtual_device                       0:0 hostbridge`
    `add_virtual_device                       8 ivshmem hv:/old,2`
    `add_virtual_device                       3 virtio-blk ./disk.img`
    VM1
)

echo "Launch device model with parameters: ${dm_params[@]}"
acrn-dm "${dm_params[@]}"
"""


def edit(script, devices, **options):
    data = script if isinstance(script, bytes) else script.encode()
    return edit_script(data, make_devices(devices, sized=options.get("state") != "absent"), **options)


def changed_lines(before, after):
    """The lines that went and those that came."""
    old, new = before.splitlines(), after.decode().splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def run_bash(data, folder):
    """What the first acrn-dm call of a script gets from Bash, as a list of arguments."""
    (folder / "bin").mkdir(exist_ok=True)
    fake = folder / "bin" / "acrn-dm"
    fake.write_text('#!/bin/sh\n[ -e "$OUT" ] || printf "%s\\n" "$@" > "$OUT"\n')
    fake.chmod(0o755)
    (folder / "bin" / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (folder / "bin" / "sudo").chmod(0o755)
    script = folder / "script.sh"
    script.write_bytes(data.replace(b"\r\n", b"\n"))
    out = folder / "out"
    if out.exists():
        out.unlink()
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "OUT": str(out), "LC_ALL": "C.UTF-8"}
    subprocess.run([BASH, str(script)], env=environment, cwd=folder, timeout=30, check=False, capture_output=True)
    return os.fsdecode(out.read_bytes()).split("\n")[:-1] if out.exists() else None


# What an edit does


def test_plain_script():
    wanted = [{"name": "dm:/test", "size": 4, "vbdf": "00:10.0"}, {"name": "hv:/shm", "size": 2}]
    result = edit(PLAIN, wanted)
    gone, came = changed_lines(PLAIN, result.data)
    assert gone == ["   -s 5,ivshmem,dm:/old,2 \\"]
    assert came == ["   -s 16,ivshmem,dm:/test,4 \\", "   -s 8,ivshmem,hv:/shm,2 \\"]
    assert (result.vm, result.style, result.removed) == ("VM1", "command", ("dm:/old",))
    assert [(placed.device.slot, placed.line) for placed in result.devices] == [(16, 5), (8, 6)]
    assert not result.warnings


def test_generated_script():
    result = edit(ARRAY, [{"name": "hv:/old", "size": 2, "slot": 9}, {"name": "dm:/b", "size": 2, "region_id": 4097}])
    gone, came = changed_lines(ARRAY, result.data)
    assert gone == ["    `add_virtual_device                       8 ivshmem hv:/old,2`"]
    assert came == [
        "    `add_virtual_device                       9 ivshmem hv:/old,2`",
        "    `add_virtual_device                       8 ivshmem dm:/b,2,4097`",
    ]
    assert (result.vm, result.style) == ("VM1", "array")
    assert result.actions[0] == "region 'hv:/old': moved from slot 8 to slot 9"


def test_the_generators_own_devices_make_room():
    """launch_cfg_gen.py counts its virtio devices through slots that the scenario has for regions."""
    wanted = [{"name": "hv:/old", "size": 2, "slot": 3}, {"name": "hv:/new", "size": 2, "slot": 8}]
    with pytest.raises(IvshmemError, match=r"slot 3 .* is taken by virtio-blk"):
        edit(ARRAY, wanted)
    result = edit(ARRAY, wanted, makes_room=True)
    assert result.actions[0] == "virtio-blk: moved from slot 3 to slot 4, to make room for a region"
    slots = {
        line.split()[2].strip("`"): line.split()[1]
        for line in result.data.decode().splitlines()
        if "`add_virtual" in line
    }
    assert slots == {"lpc": "1:0", "hostbridge": "0:0", "ivshmem": "8", "virtio-blk": "4"}
    assert [(placed.device.prefixed, placed.device.slot) for placed in result.devices] == [
        ("hv:/old", 3),
        ("hv:/new", 8),
    ]
    assert edit(ARRAY, wanted, makes_room=True).data == result.data
    # What a person has placed stays, and so does what is passed through.
    for kept in (
        PLAIN,
        ARRAY.replace("add_virtual_device                       3 virtio-blk", "add_passthrough_device 3 0/3/0"),
    ):
        with pytest.raises(IvshmemError, match=r"slot 3 .* is taken by"):
            edit(kept, wanted, makes_room=True)


def test_removing_gives_back_what_was_before_adding():
    for script in (PLAIN, ARRAY):
        bare = edit(script, []).data
        full = edit(bare, [{"name": "dm:/a", "size": 2}, {"name": "hv:/b", "size": 2}]).data
        assert full != bare
        assert edit(full, []).data == bare


def test_same_devices_change_nothing():
    for script, name in ((PLAIN, "dm:/old"), (ARRAY, "hv:/old")):
        result = edit(script, [{"name": name, "size": 2}])
        assert result.data == script.encode()
        assert not result.actions


def test_resize_keeps_the_slot():
    result = edit(PLAIN, [{"name": "dm:/old", "size": 16}])
    assert changed_lines(PLAIN, result.data)[1] == ["   -s 5,ivshmem,dm:/old,16 \\"]
    assert result.actions == ("region 'dm:/old': resized from 2 MB to 16 MB",)


def test_present_and_absent_leave_others():
    two = edit(PLAIN, [{"name": "dm:/b", "size": 2}], state="present")
    assert [device.name for device in script_devices(two.data)] == ["dm:/old", "dm:/b"]
    one = edit(two.data, [{"name": "dm:/old"}], state="absent")
    assert [device.name for device in script_devices(one.data)] == ["dm:/b"]
    assert edit(one.data, [{"name": "dm:/old"}], state="absent").data == one.data
    assert one.devices == ()


def test_hints_keep_slots_of_a_former_script():
    before = edit(PLAIN, [{"name": "dm:/a", "size": 2, "slot": 20}]).data
    assert slots_of(before) == {"dm:/a": 20}
    again = edit(PLAIN, [{"name": "dm:/a", "size": 2}], hints=slots_of(before))
    assert again.devices[0].device.slot == 20
    assert slots_of(b'"') == {}


def test_crlf_tabs_and_a_missing_last_newline_stay():
    script = "acrn-dm -A \\\r\n\t-s 0,hostbridge \\\r\n\t-s 5,ivshmem,dm:/old,2 \\\r\n\tVM1"
    result = edit(script, [{"name": "dm:/a", "size": 2}, {"name": "dm:/b", "size": 2}])
    assert result.data == (
        b"acrn-dm -A \\\r\n\t-s 0,hostbridge \\\r\n\t-s 8,ivshmem,dm:/a,2 \\\r\n\t-s 9,ivshmem,dm:/b,2 \\\r\n\tVM1"
    )


def test_bytes_that_are_no_utf8_stay():
    script = b"# caf\xe9 \xff\nacrn-dm -s 0,hostbridge -s 3,virtio-blk,/caf\xe9.img VM1 # \xe9\n"
    result = edit(script, [{"name": "dm:/a", "size": 2}])
    assert result.data == script.replace(b"hostbridge", b"hostbridge -s 8,ivshmem,dm:/a,2")


def test_region_that_is_there_twice_is_there_once():
    script = "acrn-dm -s 0,hostbridge -s 5,ivshmem,dm:/a,2 -s 9,ivshmem,dm:/a,2 VM1\n"
    assert edit(script, [{"name": "dm:/a", "size": 2, "slot": 9}]).data == (
        b"acrn-dm -s 0,hostbridge -s 9,ivshmem,dm:/a,2 VM1\n"
    )
    assert edit(script, [{"name": "dm:/a", "size": 2}]).data == b"acrn-dm -s 0,hostbridge -s 5,ivshmem,dm:/a,2 VM1\n"


def test_function_number_and_reserved_slot_are_mended():
    script = "acrn-dm -s 0,hostbridge -s 5:1,ivshmem,dm:/a,2 -s 2,ivshmem,dm:/b,2 VM1\n"
    result = edit(script, [{"name": "dm:/a", "size": 2}, {"name": "dm:/b", "size": 2}])
    assert result.data == b"acrn-dm -s 0,hostbridge -s 5,ivshmem,dm:/a,2 -s 8,ivshmem,dm:/b,2 VM1\n"
    assert "because slot 2 is that of a passed-through GPU" in result.actions[0]


@pytest.mark.parametrize(
    "script",
    [
        "acrn-dm -s 0,hostbridge VM1\n",
        "./bin/acrn-dm -s 0,hostbridge VM1 > log 2>&1 &\nwait\n",
        "exec acrn-dm -s 0,hostbridge VM1",
        "sudo -E taskset -c 0 env A=b acrn-dm -s 0,hostbridge VM1\n",
        "if ! acrn-dm -s 0,hostbridge VM1; then echo no; fi\n",
        "launch() { acrn-dm -s 0,hostbridge VM1; }\nlaunch\n",
        "launch()\n{\n\tacrn-dm \\\n\t\t-s 0,hostbridge \\\n\t\tVM1\n}\nlaunch\n",
        "(acrn-dm -s 0,hostbridge VM1)\n",
        'DM=${ACRN_DM:-acrn-dm}\n"$DM" -s 0,hostbridge VM1\n',
        'cmd=(acrn-dm -m 1G)\ncmd+=(-s 0,hostbridge VM1)\n"${cmd[@]}"\n',
        'p=(-m 1G -s 0,hostbridge); acrn-dm "${p[@]}" VM1\n',
        'p=(-m 1G\n  # a comment with \' a quote\n  -s 0,hostbridge # another "\n  VM1)\nacrn-dm "${p[@]}"\n',
        "p=(\n  -s 0,hostbridge\n  VM1\n)\nacrn-dm ${p[@]}\n",
        "acrn-dm -m 1G VM1\n",
        "acrn-dm VM1 \\\n  -m 1G\necho done\n",
        "acrn-dm -s 0,hostbridge -m \\\n  1G VM1\n",
        "acrn-dm -s0,hostbridge --pci_slot=3,virtio-rnd '-s' \"4,virtio-rnd\" VM1\n",
        "acrn-dm `# a comment` \\\n  -s 0,hostbridge \\\n  `# -s 8,ivshmem,dm:/no,2` \\\n  VM1\n",
        "cat <<EOF\nacrn-dm -s 0,hostbridge OTHER\nEOF\nacrn-dm -s 0,hostbridge VM1\n",
        "cat <<-'EOF'\n\tit's acrn-dm\n\tEOF\nx=$(( 1 << 2 ))\nacrn-dm -s 0,hostbridge VM1\n",
        "v=$(echo \"a ' b\") # it's\nacrn-dm -s 0,hostbridge VM1\n",
        "set -- VM1\nvm=VM1\nacrn-dm -s 0,hostbridge ${vm}\n",
        "case x in\nx) acrn-dm -s 0,hostbridge VM1 ;;\nesac\n",
        "[[ tap=a =~ tap=([^,]+) ]] && acrn-dm -s 0,hostbridge VM1\n",
        "f=$'\\n'\nacrn-dm -s 0,hostbridge -B \"root=/dev/vda rw \\\n quiet\" VM1\n",
        "acrn-dm -s 0,hostbridge -s 3,virtio-blk,\\\n/disk.img VM1\n",
    ],
)
@needs_bash
def test_bash_passes_what_was_asked_for(script, tmp_path):
    before = run_bash(script.encode(), tmp_path)
    assert before is not None, "the script of this test does not run"
    wanted = [{"name": "dm:/a", "size": 2}, {"name": "hv:/b", "size": 4, "slot": 29}]
    result = edit(script, wanted)
    assert result.vm == "VM1"
    after = run_bash(result.data, tmp_path)
    name, _uuid, devices = read_arguments(after)
    assert name == "VM1"
    ours = [(device.bdf.device, device.options) for device in devices if device.device == "ivshmem"]
    assert ours == [(8, "dm:/a,2"), (29, "hv:/b,4")]
    added = ["-s", "8,ivshmem,dm:/a,2", "-s", "29,ivshmem,hv:/b,4"]
    at = next(index for index in range(len(after)) if after[index : index + 4] == added)
    assert after[:at] + after[at + 4 :] == before
    assert edit(result.data, wanted).data == result.data
    bare = edit(result.data, []).data
    assert run_bash(bare, tmp_path) == before


# What is seen and what is refused


def test_guide_samples():
    if not GUIDE.exists():
        pytest.skip(f"the user guide is not there ({GUIDE})")
    text = GUIDE.read_text(encoding="utf-8")
    samples = []
    for part in text.split("Launch Script Sample\n")[1:]:
        lines = part.lstrip("\n").split("\n")
        end = next(index for index, line in enumerate(lines) if not line.strip().startswith(("acrn-dm", "-")))
        samples.append("\n".join(lines[:end]) + "\n")
    assert len(samples) == 3
    vm1, vm2, hv = samples

    # VM1 gives slot 6 to two devices: ours moves, and the run tells why.
    result = edit(vm1, [{"name": "dm:/test", "size": 2}], vm="VM1")
    gone, came = changed_lines(vm1, result.data)
    assert [line.strip() for line in gone] == ["-s 6,ivshmem,dm:/test,2 \\"]
    assert [line.strip() for line in came] == ["-s 8,ivshmem,dm:/test,2 \\"]
    assert result.actions == (
        "region 'dm:/test': moved from slot 6 to slot 8, because slot 6 is that of virtio-hyper_dmabuf (line 4)",
    )
    assert any("no VM name" in warning for warning in result.warnings)
    # Asked for slot 6, it is refused: the other device is not ours to move.
    with pytest.raises(IvshmemError, match=r"slot 6 \(00:06\.0\) is taken by virtio-hyper_dmabuf \(line 4\)"):
        edit(vm1, [{"name": "dm:/test", "size": 2, "slot": 6}], vm="VM1")

    assert edit(vm2, [{"name": "dm:/test", "size": 2}], vm="VM2").data == vm2.encode()
    assert edit(hv, [{"name": "hv:/shm_region_0", "size": 2}], vm="VM2").data == hv.encode()
    assert b"ivshmem" not in edit(vm2, [], vm="VM2").data


def test_devices_in_variables_take_their_slots():
    script = """\
option=""
if [ -e /dev/x ]; then
  option="-s 8,passthru,00/1f/3"
else
  option="-s 9,virtio-audio"
fi
acrn-dm -s 0,hostbridge $option --mac_seed $seed VM1
"""
    result = edit(script, [{"name": "dm:/a", "size": 2}])
    assert result.devices[0].device.slot == 10
    assert not result.warnings
    with pytest.raises(IvshmemError, match=r"slot 9 .* is taken by virtio-audio \(line 7\)"):
        edit(script, [{"name": "dm:/a", "size": 2, "slot": 9}])


def test_variable_has_the_value_of_the_last_assignment_before():
    script = """\
function other {
  vm_name=wrong
  if x; then vm_name=wrong2; fi
}
launch() {
  vm_name=early
  vm_name="VM1"
  case $1 in
  a) option="-s 8,virtio-rnd" ;;
  *) option="-s 9,virtio-rnd" ;;
  esac
  acrn-dm -s 0,hostbridge $option $vm_name
  vm_name=late
}
"""
    result = edit(script, [{"name": "dm:/a", "size": 2}])
    assert result.vm == "VM1"
    assert result.devices[0].device.slot == 10
    maybe = script.replace('  vm_name="VM1"\n', "  if y; then\n    vm_name=VM1\n  else\n    vm_name=VM2\n  fi\n")
    assert script_vms(maybe.encode())[0].name is None


def test_what_only_a_run_tells_is_warned_of_where_it_may_stay():
    result = edit('acrn-dm -s 0,hostbridge $extra `cat more` "$@" VM1\n', [], state="present")
    assert [warning.split(": ")[2].split(" is only known")[0] for warning in result.warnings] == [
        "$extra",
        "`cat more`",
        '"$@"',
    ]


@pytest.mark.parametrize(
    ("script", "warning"),
    [
        ("acrn-dm -s 0,hostbridge \\\n # no name \\\n VM1\n", "the comment in line 2 ends the command"),
        ("acrn-dm -s 0,hostbridge --ovmf x\n", "gets no VM name as its last argument"),
        ("acrn-dm -s 3,virtio-rnd -s 3:0,lpc VM1\n", "lpc is at slot 3 where line 1 has virtio-rnd"),
        ("acrn-dm -s 2,pci-gvt VM1\n", "calls pci-gvt obsolete and ends"),
        ("acrn-dm -s 40,virtio-rnd VM1\n", "the slot of 'virtio-rnd' cannot be read"),
        ("acrn-dm -s 5,ivshmem,$x VM1\n", "the options of this ivshmem device cannot be read"),
    ],
)
def test_warnings(script, warning):
    result = edit(script, [], state="present" if "$x" in script else "exact")
    assert len(result.warnings) == 1
    assert warning in result.warnings[0]
    assert result.data == script.encode()


def test_no_warning_of_pci_gvt_before_v3():
    assert not edit("acrn-dm -s 2,pci-gvt VM1\n", [], acrn_version=(2, 7)).warnings


@pytest.mark.parametrize(
    ("script", "devices", "message"),
    [
        ("echo acrn-dm\nsudo pkill acrn-dm\nacrn-dm -v\n", [], "no call of acrn-dm was found"),
        ("acrn-dm A\nacrn-dm B\n", [], "starts several VMs (line 1: A; line 2: B)"),
        ("acrn-dm ABCDEFGHIJKLMNOP\n", [], "line 1: VM name 'ABCDEFGHIJKLMNOP' has more than 15"),
        ('x=1\nacrn-dm -s "0,hostbridge VM1\n', [], "line 2: a double quote is opened and never closed"),
        ("p=(\n-s 1,lpc\n", [], "line 1: '(' is opened and never closed"),
        ("acrn-dm $(x VM1\n", [], "line 1: '(' is opened and never closed"),
        (
            "s='-s 8,ivshmem,dm:/a,4'\nacrn-dm $s VM1\n",
            [{"name": "dm:/a", "size": 2}],
            "has to be changed comes from the variable $s",
        ),
        ("s='-s 8,ivshmem,dm:/a,4'\nacrn-dm $s VM1\n", [], "has to be removed comes from the variable $s"),
        ("acrn-dm -s 8,virtio-rnd VM1\n", [{"name": "dm:/a", "size": 2, "slot": 8}], "taken by virtio-rnd (line 1)"),
        ("acrn-dm -s 8,virtio-rnd VM1\n", [{"name": "dm:/a", "size": 2, "slot": 1}], "reserved for the LPC bridge"),
    ],
)
def test_refused(script, devices, message):
    with pytest.raises(IvshmemError) as error:
        edit(script, devices, where="vm.sh")
    assert message in str(error.value)
    assert str(error.value).startswith("vm.sh: ")


def test_device_in_a_variable_that_is_right_stays():
    script = "s='-s 8,ivshmem,dm:/a,2'\nacrn-dm $s VM1\n"
    assert edit(script, [{"name": "dm:/a", "size": 2}]).data == script.encode()


def test_present_does_not_take_the_slot_of_another_region():
    script = "acrn-dm -s 8,ivshmem,dm:/a,2 VM1\n"
    with pytest.raises(IvshmemError, match=r"taken by ivshmem dm:/a \(line 1\)"):
        edit(script, [{"name": "dm:/b", "size": 2, "slot": 8}], state="present")
    assert edit(script, [{"name": "dm:/b", "size": 2, "slot": 8}]).data == b"acrn-dm -s 8,ivshmem,dm:/b,2 VM1\n"


def test_one_of_several_vms():
    script = "a() {\n acrn-dm -s 0,hostbridge A\n}\nb() {\n acrn-dm -s 0,hostbridge B\n}\n"
    assert [(vm.name, vm.line) for vm in script_vms(script.encode())] == [("A", 2), ("B", 5)]
    result = edit(script, [{"name": "dm:/a", "size": 2}], vm="B")
    assert changed_lines(script, result.data)[1] == [" acrn-dm -s 0,hostbridge -s 8,ivshmem,dm:/a,2 B"]
    with pytest.raises(IvshmemError, match="does not start VM 'C'"):
        edit(script, [], vm="C")


def test_two_calls_of_one_vm_get_the_same():
    script = "if x; then\n acrn-dm -s 8,virtio-rnd V\nelse\n acrn-dm -s 9,virtio-rnd V\nfi\n"
    result = edit(script, [{"name": "dm:/a", "size": 2}])
    assert result.data.count(b"-s 10,ivshmem,dm:/a,2") == 2


V2 = b"""<acrn-config board="b" scenario="s">
  <hv><FEATURES><IVSHMEM><IVSHMEM_ENABLED>y</IVSHMEM_ENABLED>
    <IVSHMEM_REGION>hv:/shm, 2, 0:1</IVSHMEM_REGION>
  </IVSHMEM></FEATURES></hv>
  <vm id="0"><vm_type>SOS_VM</vm_type></vm>
  <vm id="1"><vm_type>POST_STD_VM</vm_type></vm>
</acrn-config>
"""


def test_vm_is_found_by_its_uuid():
    scenario = read_scenario(V2, "s.xml")
    uuid = scenario.vm(1).uuid
    assert uuid
    script = f"acrn-dm -U {uuid.upper()} -s 0,hostbridge vm1\n".encode()
    result = launch(script, "vm.sh", None, scenario=scenario, version=(2, 2))
    assert [(placed.device.prefixed, placed.device.slot) for placed in result.devices] == [("hv:/shm", 30)]
    other = script.replace(uuid.upper().encode(), b"12345678-1234-1234-1234-123456789012")
    with pytest.raises(IvshmemError, match=r"which VM of s\.xml it starts is not clear \(in the script: vm1;"):
        launch(other, "vm.sh", None, scenario=scenario, version=(2, 2))


# One call for several VMs, and what cannot be told


@pytest.mark.parametrize(
    "script",
    [
        # A name from arguments, with each call of the function or script for another VM.
        "launch() {\n acrn-dm -s 0,hostbridge vm$1\n}\nlaunch 1\nlaunch 2\n",
        "function launch {\n name=vm$1\n acrn-dm -s 0,hostbridge $name\n}\nlaunch 1; launch 2\n",
        "launch() { acrn-dm -s 0,hostbridge $1; }\nwhile read each; do launch $each; done < list\n",
        "inner() { acrn-dm -s 0,hostbridge $1; }\nouter() { inner $1; }\nouter vm1\nouter vm2\n",
        "launch() { shift; acrn-dm -s 0,hostbridge $1; }\nlaunch vm2 vm1\n",
        'launch() { acrn-dm -s 0,hostbridge $1; }\n"$@"\n',
        "acrn-dm -s 0,hostbridge $1\n",
        "acrn-dm -s 0,hostbridge ${1:-vm1}\n",
        "vm=${VM:-vm1}\nacrn-dm -s 0,hostbridge $vm\n",
        'acrn-dm -s 0,hostbridge "${@:1}"\n',
        # Loops.
        "for vm in vm1 vm2; do\n acrn-dm -s 0,hostbridge $vm\ndone\n",
        "for n in 1 2; do acrn-dm -s 0,hostbridge vm$n & done; wait\n",
        "for vm; do acrn-dm -s 0,hostbridge $vm; done\n",
        "for vm in $(ls /vms); do acrn-dm -s 0,hostbridge $vm; done\n",
        "for vm in *.img; do acrn-dm -s 0,hostbridge $vm; done\n",
        "for vm in vm{1,2}; do acrn-dm -s 0,hostbridge $vm; done\n",
        "for ((i=1;i<3;i++)); do acrn-dm -s 0,hostbridge vm$i; done\n",
        "i=1\nwhile [ $i -le 2 ]; do\n acrn-dm -s 0,hostbridge vm$i\n i=$((i+1))\ndone\n",
        "i=1\nuntil [ $i -gt 2 ]; do acrn-dm -s 0,hostbridge vm$i; let i++; done\n",
        "vm=vm1\nfor n in x y; do acrn-dm -s 0,hostbridge $vm; vm=vm2; done\n",
        # Branches and later assignments.
        "case $1 in\na) vm=vm1 ;;\n*) vm=vm2 ;;\nesac\nacrn-dm -s 0,hostbridge $vm\n",
        "vm=vm1\n[ -e /x ] && vm=vm2\nacrn-dm -s 0,hostbridge $vm\n",
        "vm=vm1\n[ -e /x ] ||\n export vm=vm2\nacrn-dm -s 0,hostbridge $vm\n",
        "vm=vm1\nlaunch() { acrn-dm -s 0,hostbridge $vm; }\nlaunch\nvm=vm2\nlaunch\n",
        "named() { vm=$1; }\nvm=vm0\nnamed vm1\nacrn-dm -s 0,hostbridge $vm\nnamed vm2\n",
        # What only a run tells.
        "vm=$(hostname)\nacrn-dm -s 0,hostbridge $vm\n",
        "vm=vm1\n. /etc/vm.conf\nacrn-dm -s 0,hostbridge $vm\n",
        'vm=vm1\neval "$(cat settings)"\nacrn-dm -s 0,hostbridge $vm\n',
        "read vm\nacrn-dm -s 0,hostbridge $vm\n",
        "acrn-dm -s 0,hostbridge vm1\nacrn-dm -s 5,ivshmem,dm:/secret,2 $other\n",
        # acrn-dm run by something else.
        "echo vm1 vm2 | xargs -n 1 acrn-dm -s 0,hostbridge\n",
        "acrn-dm -s 0,hostbridge vm1\necho vm1 | xargs acrn-dm -s 5,ivshmem,dm:/secret,2\n",
        'acrn-dm -s 0,hostbridge vm1\nsh -c "acrn-dm -s 5,ivshmem,dm:/secret,2 vm1"\n',
        "acrn-dm -s 0,hostbridge vm1\neval acrn-dm -s 5,ivshmem,dm:/secret,2 vm1\n",
        "acrn-dm -s 0,hostbridge vm1\nbash <<EOF\nacrn-dm -s 5,ivshmem,dm:/secret,2 vm1\nEOF\n",
        "acrn-dm -s 0,hostbridge vm1\nout=$(acrn-dm -s 5,ivshmem,dm:/secret,2 vm1)\n",
        'c="acrn-dm -s 5,ivshmem,dm:/secret,2 vm1"\nacrn-dm -s 0,hostbridge vm1\n$c\n',
        'acrn-dm -s 0,hostbridge vm1\nrun() { "$@"; }\nrun acrn-dm -s 5,ivshmem,dm:/secret,2 vm1\n',
        "acrn-dm -s 0,hostbridge vm1\n$DM -s 5,ivshmem,dm:/secret,2 vm1\n",
        "acrn-dm -s 0,hostbridge vm1\ntrap 'acrn-dm -s 5,ivshmem,dm:/secret,2 vm1' EXIT\n",
        "acrn-dm -s 0,hostbridge vm1\nalias dm='acrn-dm -s 5,ivshmem,dm:/secret,2'\ndm vm1\n",
        # Arguments that are gathered.
        'acrn-dm -s 0,hostbridge "$@" vm1\n',
        "acrn-dm -s 0,hostbridge $* vm1\n",
        'set -- -s 0,hostbridge\nshift 0\nacrn-dm "$@" vm1\n',
        'set -- "$@" -s 0,hostbridge\nacrn-dm "$@" vm1\n',
        'if x; then set -- -s 5,ivshmem,dm:/secret,2; else set -- -s 0,hostbridge; fi\nacrn-dm "$@" vm1\n',
        'if x; then p=(-s 5,ivshmem,dm:/secret,2); else p=(-s 0,hostbridge); fi\nacrn-dm "${p[@]}" vm1\n',
        'p=(-s 0,hostbridge)\nif x; then p+=(-s 5,ivshmem,dm:/secret,2); fi\nacrn-dm "${p[@]}" vm1\n',
        'p=(-s 0,hostbridge)\nfor n in a b; do p+=(-s "5,ivshmem,dm:/$n,2"); done\nacrn-dm "${p[@]}" vm1\n',
        'p=(-s 0,hostbridge)\np[9]="-s5,ivshmem,dm:/secret,2"\nacrn-dm "${p[@]}" vm1\n',
        'mapfile -t p < args\nacrn-dm "${p[@]}" vm1\n',
        'acrn-dm "${undefined[@]}" vm1\n',
        "acrn-dm -s 0,hostbridge $(cat args) vm1\n",
        "o=$(cat args)\nacrn-dm -s 0,hostbridge $o vm1\n",
        "o='-s 3,virtio-rnd'\n. ./more\nacrn-dm -s 0,hostbridge $o vm1\n",
        "o='-s 0,hostbridge'\nif x; then o=\"$o -s 5,ivshmem,dm:/secret,2\"; fi\nacrn-dm $o vm1\n",
        "d=$(cat device)\nacrn-dm -s 0,hostbridge -s $d vm1\n",
        "acrn-dm -s 0,hostbridge -s 5,ivshmem,$x,2 vm1\n",
        "acrn-dm -s 0,hostbridge -s 5,ivshmem,dm:/$1,2 vm1\n",
    ],
)
def test_what_cannot_be_told_is_refused_with_its_line(script):
    with pytest.raises(IvshmemError, match=r"^vm\.sh: line \d+: "):
        edit(script, [], vm="vm1", where="vm.sh")
    with pytest.raises(IvshmemError, match=r"^vm\.sh: line \d+: "):
        edit(script, [{"name": "dm:/a", "size": 2}], vm="vm1", where="vm.sh")


@pytest.mark.parametrize(
    "script",
    [
        "launch() {\n name=vm$1\n acrn-dm -s 0,hostbridge $name\n}\nlaunch 1 more\n",
        "launch() { acrn-dm -s 0,hostbridge $1; }\nif x; then launch vm1; else launch vm1; fi\n",
        "inner() { acrn-dm -s 0,hostbridge $1; }\nouter() { inner $1; }\nouter vm1\n",
        "launch() { local vm=$1; shift; acrn-dm -s 0,hostbridge vm1; }\nlaunch a b\n",
        "for vm in vm1; do acrn-dm -s 0,hostbridge $vm; done\n",
        "for try in 1 2 3; do acrn-dm -s 0,hostbridge vm1 && break; done\n",
        "while true; do vm=vm1; acrn-dm -s 0,hostbridge $vm; vm=late; done\n",
        "set -- vm1 more\nacrn-dm -s 0,hostbridge $1\n",
        'set -- -A -m 512M -s 0:0,hostbridge\nset -- "$@" -s 6,virtio-rnd\nexec acrn-dm "$@" vm1\n'.replace(
            'set -- "$@"', 'set -- "$@"'
        ),
        'launch() { acrn-dm "$@"; }\nlaunch -s 0,hostbridge vm1\n',
        'DM=$(command -v acrn-dm)\n[ -x "$DM" ] || exit 1\n$DM -s 0,hostbridge vm1\n',
        "PRE='taskset -c 1'\n$PRE acrn-dm -s 0,hostbridge vm1\n",
        "flock /run/vm1.lock acrn-dm -s 0,hostbridge vm1\n",
        "o='-s 3,virtio-rnd'\no=\"$o -s 4,virtio-rnd\"\no+=' -s 6,virtio-rnd'\nacrn-dm -s 0,hostbridge $o vm1\n",
        'p=(-s 0,hostbridge)\np+=(-s 4,virtio-rnd)\nacrn-dm "${p[@]}" vm1\n',
        'set -e -u\nlog() { echo "$@"; }\nlog starting acrn-dm\npidof acrn-dm && exit\nacrn-dm -s 0,hostbridge vm1\n',
        "source /etc/profile\nacrn-dm -s 0,hostbridge vm1\n",
        "#acrn-dm -s 0,hostbridge $1\n: acrn-dm\nacrn-dm -s 0,hostbridge vm1 # acrn-dm $2\n",
        "acrn-dm -s 0,hostbridge vm1\nacrn-dm -s 0,hostbridge -s 5,ivshmem,dm:/b,2 other$1\n",
        "killall acrn-dm; sudo pkill -f acrn-dm\nif ! command -v acrn-dm > /dev/null; then exit 1; fi\n"
        "acrn-dm -s 0,hostbridge vm1\n",
        "mac=$(cat /sys/x)\nacrn-dm -s 0,hostbridge --mac_seed ${mac:9:8}-vm1 --pm_by_vuart pty,/run/$mac vm1\n",
        "case $1 in\nstart) acrn-dm -s 0,hostbridge vm1 ;;\nstop) acrnctl stop vm1 ;;\nesac\n",
    ],
)
def test_a_call_that_certainly_runs_for_one_vm_works(script):
    wanted = [{"name": "dm:/a", "size": 2}]
    result = edit(script, wanted, vm="vm1")
    assert result.data.count(b"-s 8,ivshmem,dm:/a,2") == 1
    assert edit(result.data, wanted, vm="vm1").data == result.data
    assert edit(result.data, [], vm="vm1").data == script.encode()


@needs_bash
def test_arguments_gathered_by_set_are_read(tmp_path):
    script = (
        "#!/bin/sh\nset -- -A -m 512M \\\n  -s 0:0,hostbridge \\\n  -s 6,ivshmem,dm:/alpha,2\n"
        'set -- "$@" -s 8,virtio-rnd\nexec acrn-dm "$@" plc\n'
    ).replace('set -- "$@"', 'set -- "$@"')
    assert edit(script, [{"name": "dm:/alpha", "size": 2}], vm="plc").data == script.encode()
    result = edit(script, [{"name": "dm:/beta", "size": 2}], vm="plc")
    devices = read_arguments(run_bash(result.data, tmp_path))[2]
    assert [(d.bdf.device, d.options) for d in devices if d.device == "ivshmem"] == [(9, "dm:/beta,2")]
    bare = edit(script, [], vm="plc").data
    assert b"ivshmem" not in bare
    assert len(read_arguments(run_bash(bare, tmp_path))[2]) == 2


# Any script


def _scripts(st):
    """Scripts with plain arguments or an array, in many layouts; gives (bytes, what other devices there are)."""

    @st.composite
    def build(draw):
        eol = draw(st.sampled_from(["\n", "\n", "\r\n"]))
        indent = draw(st.sampled_from(["", " ", "   ", "\t", "    \t"]))
        others = draw(st.lists(st.integers(3, 30), unique=True, max_size=6))
        ours = draw(st.lists(st.integers(3, 30).filter(lambda slot: slot not in others), unique=True, max_size=4))
        words = ["-A", "-m 1G", "-s 0:0,hostbridge"]
        quote = draw(st.sampled_from(["", '"', "'"]))
        words += [f"-s {slot},virtio-blk,{quote}/disk{slot}.img{quote}" for slot in others]
        form = draw(
            st.sampled_from(["-s {},ivshmem,dm:/r{},2", "-s{},ivshmem,dm:/r{},4", '-s "{},ivshmem,dm:/r{},2,4096"'])
        )
        words += [form.format(slot, number) for number, slot in enumerate(ours)]
        words += draw(
            st.lists(st.sampled_from(["--windows", "-B 'a  b'", "--ovmf $ovmf", '-l "com1,stdio"']), max_size=3)
        )
        words = draw(st.permutations(words))
        words = [*words, "$vm"] if draw(st.booleans()) else ["VM1", *words]
        array = draw(st.booleans())
        lines = [
            "#!/bin/bash",
            "ovmf=/x/OVMF.fd",
            'vm="VM1"',
            draw(st.sampled_from(["", "# it's acrn-dm", "echo 'a' > /dev/null"])),
        ]
        chunks = []
        while words:
            count = draw(st.integers(1, 4))
            chunks.append(" ".join(words[:count]))
            words = words[count:]
        if array:
            note = st.sampled_from(["", "", " # -s 5,ivshmem,dm:/no,2", " # it's"])
            lines += ["p=(", *(indent + chunk + draw(note) for chunk in chunks), ")", 'acrn-dm "${p[@]}"']
        else:
            joined = (" \\" + eol + indent).join(["acrn-dm", *chunks])
            lines += joined.split(eol)
        lines += draw(st.sampled_from([[], ["echo $?"], ["", "# end"]]))
        text = eol.join(lines) + draw(st.sampled_from(["", eol]))
        return text.encode() + draw(st.sampled_from([b"", b"\n# \xff\xe9\n"]))

    return build()


@needs_bash
def test_any_script(tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    wishes = st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([2, 4]), st.none() | st.sampled_from([0, 4096])),
        max_size=4,
        unique_by=lambda wish: wish[0],
    )

    @hypothesis.settings(max_examples=60)
    @hypothesis.given(_scripts(st), wishes)
    def check(data, wanted):
        devices = make_devices([{"name": f"dm:/r{n}", "size": size, "region_id": rid} for n, size, rid in wanted])
        result = edit_script(data, devices)
        # What Bash gives to acrn-dm: our devices at free slots, and all else as before.
        name, _uuid, before = read_arguments(run_bash(data, tmp_path))
        after_name, _uuid, after = read_arguments(run_bash(result.data, tmp_path))
        assert name == after_name == "VM1"
        assert {device.options for device in after if device.device == "ivshmem"} == {options_of(d) for d in devices}
        assert [d for d in after if d.device != "ivshmem"] == [d for d in before if d.device != "ivshmem"]
        assert len({device.bdf for device in after}) == len(after)
        # A second time there is nothing to do, and without our devices nothing of the edit is left: no other byte went.
        assert edit_script(result.data, devices).data == result.data
        assert edit_script(result.data, ()).data == edit_script(data, ()).data

    check()


def test_garbage_never_breaks_the_reader():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    parts = [
        "acrn-dm",
        " ",
        "-s",
        "5,ivshmem,dm:/a,2",
        "\\\n",
        "\n",
        "'",
        '"',
        "`",
        "$(",
        ")",
        "(",
        "p=(",
        "${x}",
        "<<E",
        "#",
        "\0",
        "VM1",
        ";",
        "é",
    ]

    @hypothesis.given(st.lists(st.sampled_from(parts), max_size=25).map("".join) | st.text(max_size=40))
    def check(text):
        data = text.encode("utf-8", "surrogatepass")
        wanted = make_devices([{"name": "dm:/a", "size": 2}])
        try:
            result = edit_script(data, wanted)
        except IvshmemError:
            return
        assert edit_script(result.data, wanted).data == result.data

    check()


def test_names_of_the_guide_pass():
    for name in ("VM1", "POST_STD_VM1"):
        check_vm_name(name)
    assert parse_pci("6,ivshmem,dm:/test,2").options == "dm:/test,2"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cat <<A <<B\nA\nB\nacrn-dm VM1\n", 1),
        ("cat <<E\nacrn-dm VM1\n", 1),  # no line ends it, so it is none
        ("cat <<-E\n\tacrn-dm x\n\tE\r\nacrn-dm VM1\n", 1),
        ("cat <<E\nE E\nE\nacrn-dm VM1\nE\n", 1),
        ("echo $((1 << 2)) ((a<<E))\nacrn-dm VM1\n", 1),
    ],
)
def test_here_documents(text, found):
    assert len(script_vms(text.encode())) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"$(' * 5000, "line 1: quotes and substitutions are over 50 inside of each other"),
        ("a=$a\n" * 1000 + "acrn-dm $a VM1\n" * 60, "so often that what acrn-dm gets cannot be told"),
        ("\nacrn-dm " + "-s 3,ivshmem,dm:/a,2 " * 257 + "VM1\n", "line 2: a call of acrn-dm has more than 256 devices"),
        ("a=(" + "-s 3,virtio-blk,x " * 300 + ")\nacrn-dm ${a[@]} VM1\n", "more than 256 devices"),
    ],
)
def test_scripts_without_end_are_refused(text, message):
    with pytest.raises(IvshmemError, match=message):
        script_vms(text.encode())


def test_reading_grows_with_the_length():
    """By the calls that are made and not by time: twice the script, about twice the work."""

    def work(number, text):
        seen = [0]

        def count(_frame, _event, _argument):
            seen[0] += 1

        data = (text * number + "acrn-dm VM1\n").encode()
        sys.setprofile(count)
        try:
            script_vms(data)
        finally:
            sys.setprofile(None)
        return seen[0]

    for text in ("<<E\n", "w a=() ", "a=1 a=() ", "((", "f() { :; }\n", "f\n", "x && ", "a=(1)\n", "cat <<E\nE\n"):
        assert work(80, text) < 2.6 * work(40, text), text


@pytest.mark.parametrize("version", [(2, 7), (3, 2), (3, 3), None])
def test_a_region_id_stays_where_acrn_dm_does_not_read_it(version):
    script = "acrn-dm -s 6,ivshmem,dm:/log,2,4097 VM1\n"
    done = edit(script, [{"name": "dm:/log", "size": 2, "slot": 6}], acrn_version=version)
    stays = version is not None and version < (3, 3)
    assert done.data.decode() == (script if stays else script.replace(",4097", ""))
