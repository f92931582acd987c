# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts that need neither ACRN nor an emulator."""

from __future__ import annotations

import _imp
import contextlib
import marshal
import operator
import os
import pty
import re
import select
import subprocess
import sys
import threading
import zipfile
from types import SimpleNamespace

import board
import devicemodel
import emulator
import frame
import host
import image
import pytest
import show
from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.modules import guest_device, guest_probe, launch_state
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._light_action import bundle

VMS = [
    frame.Vm("PRE_STD_VM0", memory=512 * board.MB),
    frame.Vm("PRE_STD_VM1", cpus=(1,)),
    frame.Vm("SERVICE", frame.SERVICE),
    frame.Vm("POST", frame.POST),
]


def test_board_is_one_that_the_collection_reads(tmp_path):
    path = tmp_path / "board.xml"
    path.write_text(board.board_xml(board.Machine()))
    assert read_board(path.read_bytes(), "board.xml") is not None


def test_ram_ends_where_the_machine_says():
    machine = board.Machine(memory=6 * board.GB)
    assert machine.high_end == 0x17FFFFFFF
    assert "100000000-17fffffff : System RAM" in board.board_xml(machine)


def test_grub_keeps_the_registers_of_the_remapping_unit_out_of_ram():
    first, *writes = board.grub_prelude(board.Machine(memory=5 * board.GB))
    assert first == "cutmem 0xbffe0000 0xbfff0000"
    assert len(writes) == len(board.DRHD_REGISTERS)


def test_small_machine_has_no_ram_above_the_pci_window():
    machine = board.Machine()
    assert machine.high_end is None
    assert board.grub_prelude(machine)[0] == "cutmem 0x7ffe0000 0x7fff0000"
    text = board.board_xml(machine)
    assert "100000000" not in text
    assert "7fff0000-7fffffff : ACPI Tables" in text
    assert "#define DRHD0_REG_BASE 0x7FFE0000UL" in text


@pytest.mark.parametrize("version", [(2, 7), (3, 3)])
def test_frame_has_the_vms_and_no_region(version):
    scenario = read_scenario(frame.scenario_xml(version, VMS, board.Machine()).encode(), "scenario.xml")
    assert [vm.name for vm in scenario.vms] == [vm.name for vm in VMS]
    assert [vm.load_order for vm in scenario.vms] == ["pre_launched", "pre_launched", "service", "post_launched"]
    assert not scenario.regions


@pytest.mark.parametrize("version", [(2, 7), (3, 3)])
def test_regions_go_into_a_frame(version):
    text = frame.scenario_xml(version, VMS, board.Machine())
    regions = [{"name": "a", "size": 2, "vms": ["PRE_STD_VM0", "PRE_STD_VM1"]}]
    result = decide(text.encode(), "scenario.xml", regions, version=version)
    assert b"hv:/a, 2, 0:1" in result.data or b"<NAME>a</NAME>" in result.data


def test_ram_of_pre_launched_vms_does_not_overlap():
    text = frame.scenario_xml((3, 3), VMS, board.Machine())
    assert "<start_hpa>0x50000000</start_hpa>" in text
    assert "<start_hpa>0x70000000</start_hpa>" in text


def test_ram_of_pre_launched_vms_is_nobody_elses():
    text = board.board_xml(board.Machine(), 512 * board.MB)
    assert "00100000-4fffffff : System RAM" in text and "70000000-7ffdffff : System RAM" in text
    assert board.grub_prelude(board.Machine(), 512 * board.MB)[0] == "cutmem 0x50000000 0x70000000"
    high = board.Machine(memory=6 * board.GB)
    assert "<start_hpa>0x100000000</start_hpa>" in frame.scenario_xml((3, 3), VMS, high)
    assert board.grub_prelude(high, 512 * board.MB) == board.grub_prelude(high)


@pytest.mark.parametrize(("version", "polled"), [((2, 6), 2), ((2, 7), 0), ((3, 3), 0)])
def test_serial_port_that_no_table_names_is_polled(version, polled):
    text = frame.scenario_xml(version, VMS, board.Machine())
    assert text.count(" polled</bootargs>") == polled


def test_archive_is_what_cpio_unpacks(tmp_path):
    data = image.archive({"init": b"#!/bin/sh\n", "a/b/c": b"text"}, ["init"], {"bin/sh": "busybox"})
    (tmp_path / "out").mkdir()
    listed = subprocess.run(["cpio", "-itv", "--quiet"], input=data, capture_output=True, check=True).stdout.decode()
    assert "-rwxr-xr-x" in next(line for line in listed.splitlines() if line.endswith(" init"))
    assert "sh -> busybox" in listed
    assert any(line.startswith("crw") and "dev/console" in line for line in listed.splitlines())
    assert any(line.startswith("drwx") and line.endswith(" a/b") for line in listed.splitlines())


def test_imports_of_the_guests_program_are_found_wherever_they_stand():
    source = "import json\nfrom math import pi\ndef late():\n    import mmap\nfrom ansible.module_utils import basic\n"
    assert image._imported(source) == {"json", "math", "mmap"}
    assert image._imported("from xml.parsers import expat") == {"xml.parsers", "xml.parsers.expat"}


# As the guests' program loads a module.
LOAD = """\
import binascii, marshal, sys, types, zlib
parts, magic = marshal.loads(zlib.decompress(binascii.a2b_base64(sys.stdin.read())))
light = types.ModuleType(parts[0][0])
sys.modules[parts[0][0]] = light
exec(parts[0][1], light.__dict__)
print(sys.prefix, sorted(light.load(parts[1:], magic).ARGUMENTS))
"""


@pytest.mark.parametrize("module", [guest_device, guest_probe, launch_state], ids=lambda each: each.__name__)
def test_python_of_the_virtual_machines_has_all_that_a_module_imports(module, tmp_path):
    text = bundle(module)
    files, programs = image.python(image.needed(image.sources_of(text)))
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (program,) = programs
    (tmp_path / program).chmod(0o755)
    found = subprocess.run(
        [tmp_path / program, "-S", "-c", LOAD],
        input=text,
        env={"PYTHONHOME": str(tmp_path / "usr")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.startswith(f"{tmp_path}/usr ['argument_spec'"), found.stderr


def test_guests_program_finds_what_it_uses_of_the_modules():
    source = (image.HERE / "guest/guest.py").read_text()
    used = set(re.findall(r"\bprobe(?:_module)?\.(_[\w.]+)", source))
    assert len(used) >= 3
    for path in sorted(used):
        operator.attrgetter(path)(guest_probe)


def test_message_of_a_failure_has_the_last_lines(tmp_path):
    machine = emulator.Emulator(tmp_path, tmp_path / "disc.iso", board.Machine())
    machine.lines = [emulator.Line(1.0, 0.5, f"line {number}") for number in range(60)]
    told = machine.told("it hangs")
    assert told.startswith("it hangs; the console's last lines")
    assert "line 59" in told and "line 19\n" not in told
    # A prompt, or what somebody is typing, has no end of line.
    machine._pending = b"ACRN:\\>vm_cons"
    assert machine.told("it hangs").endswith(r"ACRN:\>vm_cons")


def test_screen_that_the_emulator_writes_to_is_read(tmp_path):
    """Nobody looks at it, but a terminal that is full makes the emulator wait, after some minutes."""
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    os.close(slave)
    (tmp_path / "terminal.log").write_text(f'...\nBochs connected to screen "{name}"\n')
    machine = emulator.Emulator(tmp_path, tmp_path / "disc.iso", board.Machine())
    machine._screen = None
    machine._master = master
    _console, screen = machine._drained()
    written = 0
    try:
        os.set_blocking(master, False)
        for _round in range(100):
            written += os.write(master, b"x" * 4096)
            while select.select([screen], [], [], 0)[0]:
                os.read(screen, 65536)
    finally:
        os.close(screen)
        os.close(master)
    assert written > 64 * 1024


def test_demo_tells_what_each_vm_has_found_and_from_whom():
    vms = [{"id": 0, "name": "PRE_STD_VM0"}, {"id": 1, "name": "PRE_STD_VM1"}]
    built = SimpleNamespace(wanted=SimpleNamespace(vms=VMS[:2]), regions=[{"name": "state", "vms": vms}])

    def said(peer, same):
        return {
            "function": {"size": 2, "bdf": "00:08.0"},
            "bytes": {"read": [{"from": peer, "same": same, "problems": []}]},
            "bells": [{"counts": [1, 1]}, {"problems": []}],
        }

    told = SimpleNamespace(regions={(0, "state"): said(1, 4096), (1, "state"): said(0, 0)})
    assert show.found(built, told) == [
        "PRE_STD_VM0: state of 2 MB at 00:08.0, bytes from PRE_STD_VM1, 2 doorbells",
        "PRE_STD_VM1: state of 2 MB at 00:08.0, bytes from nobody, 2 doorbells",
    ]


@pytest.fixture(name="guest_programs")
def _guest_programs(monkeypatch):
    """What runs on a host in the emulator can be imported here."""
    monkeypatch.syspath_prepend(str(image.HERE / "guest"))
    yield
    for name in ("agent", "kept"):
        sys.modules.pop(name, None)


def test_program_runs_apart_with_what_was_compiled_of_its_modules(guest_programs, tmp_path, monkeypatch):
    import kept

    monkeypatch.setattr(kept, "CODE", f"{tmp_path}/")
    packed = tmp_path / "packed.zip"
    source = b"WORD = 'from its source'\n"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("kept_word.py", source)
    program = f"import sys; sys.path.insert(0, {str(packed)!r}); import kept_word; print(kept_word.WORD); sys.exit(3)"
    assert kept.apart(program.encode()) == (3, b"from its source\n", b"")
    code = compile("WORD = 'compiled before'", "kept_word", "exec")
    (tmp_path / _imp.source_hash(1, source).hex()).write_bytes(marshal.dumps(code))
    assert kept.apart(program.encode()) == (3, b"compiled before\n", b"")
    status, output, errors = kept.apart(b"raise ValueError('no')")
    assert (status, output) == (1, b"")
    assert errors.endswith(b"ValueError: no\n")


def test_stub_of_a_library_ends_a_program_that_needs_it_but_not_one_that_names_a_disk(tmp_path):
    def built(name, source, *more):
        (tmp_path / f"{name}.c").write_text(source)
        image.run("gcc", "-w", *more, "-o", str(tmp_path / name), str(tmp_path / f"{name}.c"), *libraries)
        return tmp_path / name

    libraries = []
    names = ("EVP_MD_CTX_new", "EVP_md5", "EVP_DigestInit_ex", "EVP_DigestFinal_ex", "EVP_MD_CTX_free", "RAND_bytes")
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in names)
    library = built("libcrypto.so", source, "-shared", "-fPIC", "-Wl,-soname,libcrypto.so")
    libraries = [str(library)]
    named = "int main(int count) { " + "".join(f"{name}(); " for name in names[:-1])
    program = built("program", named + "if (count > 1) RAND_bytes(); return 0; }\n")
    library.write_bytes(devicemodel._stub(program, library, tmp_path))
    env = {"LD_LIBRARY_PATH": str(tmp_path)}
    assert subprocess.run([str(program)], env=env, check=False).returncode == 0
    assert subprocess.run([str(program), "more"], env=env, check=False).returncode < 0


@contextlib.contextmanager
def serving(disk, places):
    """A host, or a VM, that answers what lies in this mailbox."""
    import agent

    stopped = threading.Event()

    def serve():
        last = 0
        while not stopped.is_set():
            last = agent.answer(disk, places, last)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def way(path, places, **more):
    """Ansible's connection by a mailbox."""
    connection_loader.add_directory(str(image.HERE / "plugins/connection"))
    connection = connection_loader.get("mailbox", PlayContext())
    connection.set_options(direct={"image": str(path), "patience": 20, **places, **more})
    return connection


def test_controller_reaches_the_host_by_sectors_of_its_disk(guest_programs, tmp_path):
    import agent

    path, places = tmp_path / "disk.img", {"requests": 8, "answers": 64}
    path.write_bytes(bytes(128 * 512))
    connection = way(path, places)
    with serving(agent.File(path), places):
        assert connection.exec_command("cat; echo no >&2; exit 4", b"text") == (4, b"text", b"no\n")
        for program in agent.STARTED:
            assert connection.exec_command(program, b"print('modules run')") == (0, b"modules run\n", b"")
        (tmp_path / "source").write_bytes(b"\0" * 700)
        connection.put_file(str(tmp_path / "source"), str(tmp_path / "target"))
        connection.fetch_file(str(tmp_path / "target"), str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == b"\0" * 700
        with pytest.raises(AnsibleError, match="FileNotFoundError"):
            connection.fetch_file(str(tmp_path / "nothing"), str(tmp_path / "back"))
        with pytest.raises(AnsibleError, match="do not fit"):
            connection.exec_command("cat", b"x" * 40000)


def test_host_hands_on_what_the_controller_asks_of_a_vm(guest_programs, monkeypatch, tmp_path):
    import agent

    path, places = tmp_path / "disk.img", {"requests": 8, "answers": 64}
    path.write_bytes(bytes(128 * 512))
    vm = tmp_path / "vm.img"
    vm.write_bytes(bytes(host.VM_DISK))
    connection = way(path, places, vm_disk=str(vm))
    with serving(agent.File(path), places):
        with serving(agent.File(vm), agent.VM_DISK):
            assert connection.exec_command("cat; exit 4", b"text") == (4, b"text", b"")
            assert agent.mail(agent.File(vm), agent.VM_DISK["answers"])[0] == 1
            with pytest.raises(AnsibleError, match="FileNotFoundError"):
                connection.fetch_file(str(tmp_path / "nothing"), str(tmp_path / "back"))
        monkeypatch.setattr(agent, "VM_PATIENCE", 0.1)
        with pytest.raises(AnsibleError, match=r"vm.img does not answer"):
            connection.exec_command("true")
    with pytest.raises(ValueError, match="2097154 bytes do not fit"):
        agent.post(agent.File(vm), agent.VM_DISK, "requests", 3, "x" * (1 << 21))
