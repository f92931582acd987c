# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in makes of acrn-dm's arguments, short of running QEMU; and the lab's own description of itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import acrn_args
import acrn_dm
import labstate
import pytest

LAB = Path(acrn_dm.__file__).parent
CONFIG: dict[str, Any] = {
    "acrn_version": "2.7",
    "vms": {"vm0": {"id": 0, "prelaunched": True}, "vm1": {"id": 1}, "vm2": {"id": 2, "ssh_port": 4000}},
    "hv_regions": [{"name": "shm_region_0", "size": 2, "vms": [{"name": "vm0", "vbdf": "00:10.1"}, 2]}],
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> labstate.Lab:
    monkeypatch.setattr(labstate, "SHM", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    lab = labstate.Lab(tmp_path / "lab")
    lab.prepare()
    return lab


def command(lab: labstate.Lab, line: str, vm: str = "vm2") -> tuple[dict[str, str], list[str], list[str]]:
    """QEMU's devices by address, its whole command line, and the stand-in's notes."""
    config = labstate.parse_config(CONFIG)
    arguments = acrn_args.parse_arguments([*line.split(), vm], config.version, lambda *_: None)
    shared = {}
    for function in arguments.functions:
        device = acrn_args.parse_ivshmem(function.options, config.version, lambda *_: None)
        if function.device == "ivshmem" and device:
            shared[function] = device
    notes: list[str] = []
    words = acrn_dm.qemu_command(
        lab, config, config.vms[vm], Path("/image"), 512 << 20, arguments.functions, shared, notes.append
    )
    devices = {}
    for before, word in zip(words, words[1:]):
        match = re.fullmatch(r"(.*),addr=(0x[0-9a-f]+\.\d)(,multifunction=on)?", word)
        if before == "-device" and match:
            devices[match[2]] = match[1].split(",")[0] + (match[3] or "")
    return devices, words, notes


def test_devices_stand_at_their_slots(lab: labstate.Lab) -> None:
    line = (
        "-s 0:0,hostbridge -s 1:0,lpc -s 2,pci-gvt -s 5,virtio-console,@stdio:stdio_port -s 3,virtio-blk,/disk.img"
        " -s 4,virtio-net,tap0 -s 10,ivshmem,dm:/test,2 -s 11,ivshmem,hv:/shm_region_0,2 -s 7,virtio-rnd"
    )
    devices, words, notes = command(lab, line)
    assert devices == {
        "0x3.0": "virtio-blk-pci",
        "0x4.0": "virtio-net-pci",
        "0x5.0": "virtio-serial-pci",
        "0x7.0": "virtio-rng-pci",
        "0xa.0": "ivshmem-plain",
        "0xb.0": "ivshmem-doorbell",
    }
    assert f"memory-backend-file,id=region0,share=on,size={2 << 20},mem-path={labstate.SHM}/test" in words
    assert f"socket,id=region1,path={lab.run}/hv/shm_region_0.2" in words
    assert "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:4000-:22" in words
    assert notes == ["pci-gvt at 00:02.0 is left out", "the disk at 00:03.0 is the lab's, not /disk.img"]


def test_disk_and_card_are_added_where_the_script_has_none(lab: labstate.Lab) -> None:
    devices, _words, _notes = command(lab, "-s 30,virtio-rnd")
    assert devices == {"0x1e.0": "virtio-rng-pci", "0x1d.0": "virtio-blk-pci", "0x1c.0": "virtio-net-pci"}


def test_several_functions_of_one_slot(lab: labstate.Lab) -> None:
    devices, _words, _notes = command(lab, "-s 8:1,ivshmem,dm:/b,2 -s 8,ivshmem,dm:/a,2")
    assert devices["0x8.0"] == "ivshmem-plain,multifunction=on"
    assert devices["0x8.1"] == "ivshmem-plain"


@pytest.mark.parametrize("where", ["31", "1:6:0"])
def test_ivshmem_where_the_lab_has_no_slot(lab: labstate.Lab, where: str) -> None:
    with pytest.raises(labstate.LabError, match="slots 1 to 30"):
        command(lab, f"-s {where},ivshmem,dm:/a,2")


def test_dm_region(lab: labstate.Lab) -> None:
    said: list[str] = []

    def create(name: str, megabytes: int) -> bool:
        device = acrn_args.Ivshmem(False, name, megabytes << 20, 0)
        return acrn_dm.create_dm(lab, device, lambda _level, text: said.append(text))

    assert create("test", 2)
    path = labstate.SHM / "test"
    assert (path.stat().st_mode & 0o777, path.stat().st_size) == (0o600, 2 << 20)
    path.write_bytes(b"x" * (2 << 20))
    assert create("test", 2)
    assert path.read_bytes() == b"x" * (2 << 20)
    assert lab.dm_files() == [path]
    assert said == []
    assert not create("test", 4)
    assert said == [f"shm size is different, cur {4 << 20}, creator {2 << 20}"]
    assert not create("a/b", 2)
    assert said[-1] == "failed to get a/b status, error Invalid argument"
    (labstate.SHM / "link").symlink_to(path)
    assert not create("link", 2)


def test_hv_region_belongs_to_the_running_build(capsys: pytest.CaptureFixture[str]) -> None:
    config = labstate.parse_config(CONFIG)
    said: list[str] = []

    def create(vm: str, name: str, megabytes: int, used: list[str]) -> bool:
        device = acrn_args.Ivshmem(True, name, megabytes << 20, 0)
        regions = config.hv_regions
        return acrn_dm.create_hv(regions, config.vms.get(vm), device, used, lambda _level, text: said.append(text))

    used: list[str] = []
    assert create("vm2", "shm_region_0", 2, used)
    assert said == []
    for vm, name, size in [
        ("vm2", "shm_region_0", 2),
        ("vm1", "shm_region_0", 2),
        ("vm2", "shm_region_0", 4),
        ("vm2", "other", 2),
        ("unknown", "shm_region_0", 2),
    ]:
        assert not create(vm, name, size, used)
        assert said.pop() == "ACRN_IOCTL_CREATE_VDEV ioctl() returned an error: Invalid argument"
        used = used if vm != "vm2" else []
    assert "it has shm_region_0" in capsys.readouterr().err


def test_prelaunched_vm_gets_its_devices_from_the_scenario() -> None:
    config = labstate.parse_config(CONFIG)
    arguments = acrn_dm.prelaunched_arguments(config.vms["vm0"], config.hv_regions)
    assert [(f.bdf, f.options) for f in arguments.functions] == [("00:10.1", "hv:/shm_region_0,2")]
    with pytest.raises(labstate.LabError, match="needs a vbdf"):
        acrn_dm.prelaunched_arguments(config.vms["vm2"], config.hv_regions)


def test_vm_is_found_by_name_or_before_v27_by_uuid() -> None:
    data = {"vms": {"vm1": {"id": 1, "uuid": "495ae2e5-2603-4d64-af76-d4bc5a8ec0e5"}}}
    arguments = acrn_args.Arguments(vm="any", uuid="495AE2E5-2603-4D64-AF76-D4BC5A8EC0E5")
    old = labstate.parse_config({**data, "acrn_version": "2.6"})
    assert acrn_dm.find_vm(old, arguments) == old.vms["vm1"]
    assert acrn_dm.find_vm(labstate.parse_config(data), arguments) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vms": None}, "vms: a mapping is wanted"),
        ({"vms": {"a": {}}}, "vms.a: id is to be a number"),
        ({"vms": {"a": {"id": 1}, "b": {"id": 1}}}, "same id"),
        ({"vms": {"a": {"id": 1}, "b": {"id": 2, "ssh_port": 2201}}}, "same ssh_port"),
        ({"vms": {"a/b": {"id": 1}}}, "cannot be the name"),
        ({"surprise": 1}, "unknown key surprise"),
        ({"acrn_version": "new"}, "no ACRN version"),
        ({"hv_regions": [{"name": "a", "size": 2, "vms": ["nobody"]}]}, "vms has no nobody"),
        ({"hv_regions": [{"name": "a", "size": 2, "vms": [1], "provided_by": "device_model"}]}, "only regions"),
    ],
)
def test_faults_of_lab_json(change: dict[str, Any], words: str) -> None:
    with pytest.raises(labstate.LabError, match=words):
        labstate.parse_config({**CONFIG, **change})


def test_lock_tells_who_runs(lab: labstate.Lab) -> None:
    assert lab.runs("vm1") is None
    held = lab.lock("vm1")
    assert held is not None
    assert lab.lock("vm1") is None
    labstate.write_file(lab.run / "vm1.json", '{"pid": 1}')
    assert lab.runs("vm1") == {"pid": 1}
    os.close(held)
    assert lab.runs("vm1") is None


def stand_in(lab: labstate.Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    (lab.root / "lab.json").write_text(json.dumps({**CONFIG, "acrn_version": "3.3"}))
    environment = {**os.environ, "ACRN_LAB": str(lab.root)}
    return subprocess.run(
        [str(LAB / "acrn-dm"), *arguments],
        capture_output=True,
        env=environment,
        text=True,
        check=False,
    )


def test_command_refuses_before_anything_runs(lab: labstate.Lab) -> None:
    done = stand_in(lab, "-m", "64M", "vm1")
    assert (done.returncode, done.stdout, done.stderr) == (64, "", "acrn-dm: invalid memsize '64M'\n")
    done = stand_in(lab, "-m", "512M", "-s", "5,ivshmem,hv:/shm_region_0,2", "vm2")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-3:] == [
        "ACRN_IOCTL_CREATE_VDEV ioctl() returned an error: Invalid argument",
        "pci ivshmem init failed",
        "Unable to init vdev (22)",
    ]
    assert "it has none" in done.stderr
    done = stand_in(lab, "-m", "512M", "vm0")
    assert done.returncode == 1
    assert "pre-launched" in done.stderr
    assert not list(lab.run.glob("*.json"))


def test_command_without_a_lab(lab: labstate.Lab) -> None:
    (lab.root / "lab.json").unlink(missing_ok=True)
    done = subprocess.run(
        [str(LAB / "lab"), "status"], stderr=subprocess.PIPE, env={**os.environ, "ACRN_LAB": str(lab.root)}, check=False
    )
    assert done.returncode == 1
    assert b"lab.json: No such file or directory" in done.stderr
