# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole proof, with guests whose memory is a file: steps of each stage, what guest_probe answers, the report."""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
import xml.etree.ElementTree as ET

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _journal, _kernel, _probe
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _report, _verdict, _verify
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel
from ansible_collections.acrn.ivshmem.tests.unit.schemas import holds

SIZE = 2 << 20


def region(name, vms, provided_by="device_model", size=2):
    """A region of a plan; ``vms`` maps IDs to slots."""
    return {
        "name": name,
        "provided_by": provided_by,
        "size": size,
        "region_id": None,
        "vms": [{"name": f"VM{vm}", "id": vm, "vbdf": f"00:{slot:02x}.0", "slot": slot} for vm, slot in vms.items()],
    }


class Fleet:
    """ACRN hosts with guests that really share files."""

    def __init__(self, folder, hosts):
        self.folder = folder
        self.hosts = hosts
        self.kernels = {}
        self.regions = {}
        self.vars = {}
        self.holders = []
        for host, regions in hosts.items():
            for each in regions:
                memory = os.path.join(folder, f"{host}-{each['provided_by']}-{each['name']}")
                with open(memory, "wb") as handle:
                    handle.write(os.urandom(SIZE))
                for vm in each["vms"]:
                    self.attach(f"{host}-{vm['name']}", host, vm, memory, each["provided_by"])

    def attach(self, guest, host, vm, memory, provided_by):
        if guest not in self.kernels:
            self.kernels[guest] = FakeKernel(os.path.join(self.folder, guest))
            self.kernels[guest].register = lambda _address, _offset: vm["id"]
            self.kernels[guest].put("/proc/1/maps", "")
            os.makedirs(self.kernels[guest].path("/proc/1/fd"))
            self.vars[guest] = {"acrn_host": host, "acrn_vm": vm["name"]}
        kernel = self.kernels[guest]
        address = "0000:" + vm["vbdf"]
        kernel.add(address, driver=_kernel.UIO, vectors=8 if provided_by == "hypervisor" else 0)
        path = kernel.path(f"{_kernel.SYSFS}/devices/{address}/resource2")
        os.unlink(path)
        os.symlink(memory, path)
        kernel.put(f"{_kernel.SYSFS}/devices/{address}/resource0", bytes(256))

    def bytes(self):
        return {
            name: open(os.path.join(self.folder, name), "rb").read()
            for name in os.listdir(self.folder)
            if os.path.isfile(os.path.join(self.folder, name))
        }

    def use(self, guest, slot="06"):
        """A program of a guest maps a function."""
        self.kernels[guest].put("/proc/77/comm", "camera\n")
        self.kernels[guest].put("/proc/77/maps", f"1-2 rw-s 0 00:1 1 /sys/devices/pci0/0000:00:{slot}.0/resource2\n")
        os.makedirs(self.kernels[guest].path("/proc/77/fd"), exist_ok=True)

    def redirect(self, guest, slot, memory):
        path = self.kernels[guest].path(f"{_kernel.SYSFS}/devices/0000:00:{slot}.0/resource2")
        os.unlink(path)
        os.symlink(memory, path)

    def start(self, guests=None, hosts=(), **options):
        guests = list(self.kernels if guests is None else guests)
        for guest in guests:
            mine = self.vars[guest]
            for stage in _verify.STAGES:
                mine.pop(_verify.variable(stage), None)
            known = [{"name": f"VM{number}", "id": number} for number in range(5)]
            regions = self.hosts.get(mine["acrn_host"], [])
            mine["__verify_claim"] = _verify.claim(regions, mine["acrn_vm"], mine["acrn_host"], known, ["h1", "h2"])
        plan = _verify.fleet(self.vars, guests, hosts, **options)
        # As Ansible keeps it: a fact is plain data.
        self.plan = json.loads(json.dumps(plan))
        for guest, regions in self.plan["service"].items():
            memory = [{"name": each["name"], "held_by": self.holders} for each in regions]
            self.vars[guest][_verify.SERVICE] = {"memory": memory}
        return guests

    def session(self):
        return _verify.Session(self.plan, self.vars)

    def run(self, guests, stage):
        found = {}
        for guest in guests:
            results = _probe.run_steps(self.kernels[guest], self.session().rendered(guest, stage))
            found[guest] = {"results": results, "boot_id": _kernel.proof(self.kernels[guest])["boot_id"]}
        for guest, registered in found.items():
            self.vars[guest][_verify.variable(stage)] = json.loads(json.dumps(registered))

    def report(self, **options):
        session = self.session()
        value = _verdict.as_value(_verdict.report(session, **options), session)
        return holds("verify", {**value, "time": "2026-11-26T12:00:00+00:00"})

    def prove(self, guests=None, lost=(), between=None, require=None, asked=True, **options):
        """All stages; ``lost`` guests stop answering after they have written, ``between`` is called then."""
        guests = self.start(guests, **options)
        alive = [guest for guest in guests if guest not in lost]
        self.run(guests, "look")
        if self.plan["options"]["mode"] != "false":
            self.run(guests, "recover")
        self.run(guests, "write")
        if between:
            between()
        self.run(alive, "read")
        if self.plan["options"]["mode"] != "false":
            self.run(alive, "end")
        for guest in lost:
            for stage in ("read", "end"):
                self.vars[guest][_verify.variable(stage)] = {"unreachable": True, "msg": "gone"}
        return self.report(**({"require": require} if require else {}), asked=asked)


@pytest.fixture
def fleet():
    shared = [region("a", {1: 6, 2: 5, 3: 8}), region("b", {1: 7, 3: 9}, "hypervisor")]
    # The path of a socket has room for 107 bytes, and pytest's own directories may be too long for it.
    with tempfile.TemporaryDirectory(prefix="fleet-", dir="/tmp") as folder:
        yield Fleet(folder, {"h1": shared, "h2": [region("a", {1: 6, 2: 5})]})


def pairs(report):
    return {(each["region"], each["from"], each["to"]) for each in report["pairs"]}


def rows(report):
    return [(row["region"], row["vm"], row["what"]) for row in report["problems"]]


def states(report):
    return {each["region"]: each["state"] for each in report["regions"]}


A1, B1, A2 = "dm:/a on h1", "hv:/b on h1", "dm:/a on h2"
WHOLE = {A1: "proved", B1: "proved", A2: "proved"}


def test_regions_that_only_their_order_tells_apart():
    """ACRN v2.x places them itself, all of one size and without region IDs."""
    regions = [
        region("a", {1: 6, 2: 5}, "hypervisor"),
        region("b", {1: 7, 3: 5}, "hypervisor"),
        region("c", {1: 9, 2: 8, 3: 6}, "hypervisor"),
    ]
    with tempfile.TemporaryDirectory(prefix="fleet-", dir="/tmp") as folder:
        fleet = Fleet(folder, {"h1": regions})
        unplaced = [{**each, "vms": [{**vm, "vbdf": None, "slot": None} for vm in each["vms"]]} for each in regions]
        fleet.hosts = {"h1": unplaced}
        report = fleet.prove(write=True)
        assert report["ok"], report["table"]
        assert states(report) == {f"hv:/{name} on h1": "proved" for name in "abc"}
        # The other way round nothing is what it is taken for.
        fleet.hosts = {"h1": [unplaced[1], unplaced[0], unplaced[2]]}
        report = fleet.prove(write=True)
        assert not report["ok"] and {state for name, state in states(report).items() if "/c" not in name} == {"failed"}


@pytest.mark.parametrize("write", ["idle", True, "yes"])
def test_every_ordered_pair_of_every_region(fleet, write):
    before = fleet.bytes()
    report = fleet.prove(write=write)
    assert report["ok"], report["table"]
    three = {(A1, f"VM{a}", f"VM{b}") for a in (1, 2, 3) for b in (1, 2, 3) if a != b}
    two = {(B1, "VM1", "VM3"), (B1, "VM3", "VM1")}
    assert pairs(report) == three | two | {(A2, "VM1", "VM2"), (A2, "VM2", "VM1")}
    assert states(report) == WHOLE and report["failed"] == {} and report["kept"] == ["h1", "h2"]
    assert fleet.bytes() == before
    assert len(report["doorbells"]) == 2
    assert all("capable, not receivable" in bell["result"] for bell in report["doorbells"])
    # A and B are one pair, as people count.
    assert report["summary"][0] == "regions: 3 proved; pairs of VMs that share their memory: 5; doorbells received: 0"
    assert "dm:/a on h1: proved between VM1, VM2, VM3" in report["summary"]
    assert len([line for line in report["summary"] if "no doorbell to VM1, VM3: capable" in line]) == 1


def test_unasked_a_proof_writes_64_bytes_for_each_vm(fleet):
    fleet.start()
    fleet.run(fleet.kernels, "look")
    writes = [step for step in fleet.session().rendered("h1-VM3", "write") if step["operation"] == "write"]
    assert [(step["offset"], step["length"], step["only_idle"]) for step in writes] == [
        (SIZE - 64, 64, True),
        (SIZE - 64, 64, True),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, "true") for value in (True, "true", "True", "YES", " on ", 1, "1")),
        *((value, "false") for value in (False, "false", "False", "no", "Off", 0, "0")),
        *((value, "idle") for value in ("idle", "Idle", " IDLE\n")),
    ],
)
def test_the_mode_is_what_the_word_says(value, expected):
    assert _verify.mode(value) == expected
    assert _verify.mode(value, read_only=True) == "false"


@pytest.mark.parametrize("value", ["", None, "maybe", 2, [], "idel"])
def test_another_word_is_no_mode(value):
    with pytest.raises(IvshmemError, match=r"verify_write is .*: write idle, true or false"):
        _verify.mode(value)


def test_where_a_program_could_be_disturbed_nothing_is_written(fleet):
    fleet.use("h1-VM1")
    before = fleet.bytes()

    def look():
        found = fleet.bytes()
        assert found["h1-device_model-a"] == before["h1-device_model-a"]
        assert found["h1-hypervisor-b"] != before["h1-hypervisor-b"]

    report = fleet.prove(between=look)
    assert report["ok"] and states(report) == {**WHOLE, A1: "alike"}
    (line,) = [line for line in report["summary"] if line.startswith(A1)]
    assert line.endswith("nothing was written, so that is no proof (camera (process 77) in VM1 uses it)")
    assert fleet.bytes() == before


def test_no_doorbell_is_rung_where_a_program_may_listen(fleet):
    fleet.use("h1-VM3", "09")
    report = fleet.prove()
    assert states(report)[B1] == "alike"
    assert {bell["result"] for bell in report["doorbells"]} == {"not rung: a program may listen"}


def test_a_program_of_the_service_vm_counts(fleet):
    fleet.holders = [{"pid": 5, "command": "/usr/bin/acrn-dm VM1", "vm": "VM1"}]
    assert states(fleet.prove()) == WHOLE
    fleet.holders = [*fleet.holders, {"pid": 6, "command": "/opt/logger --key s3cret", "vm": None}]
    report = fleet.prove()
    assert states(report) == {A1: "alike", B1: "proved", A2: "alike"}
    assert "logger in the Service VM uses it" in str(report["summary"]) and "s3cret" not in str(report)


@pytest.mark.parametrize("answer", [None, {}, {"failed": True}, {"memory": 5}, {"memory": [{"name": "a"}]}, []])
def test_where_the_service_vm_does_not_say_the_region_is_not_idle(fleet, answer):
    guests = fleet.start()
    fleet.vars[next(iter(fleet.plan["service"]))][_verify.SERVICE] = answer
    fleet.run(guests, "look")
    assert not fleet.session().idle("h1", fleet.session().regions["h1"][0])


def test_a_region_of_which_a_vm_is_missing_is_not_idle(fleet):
    before = fleet.bytes()
    report = fleet.prove(["h1-VM1", "h1-VM2"], between=lambda: None)
    assert states(report) == {A1: "alike", B1: "unproved"}
    assert "of VM3 it is not known who uses it" in str(report["summary"])
    assert fleet.bytes() == before
    assert states(fleet.prove(["h1-VM1", "h1-VM2"], write=True)) == {A1: "partly", B1: "unproved"}


def test_reserved_bytes_are_the_proofs_whoever_uses_the_rest(fleet):
    fleet.hosts["h1"][0]["reserved"] = 100
    fleet.use("h1-VM1")
    before = fleet.bytes()["h1-device_model-a"]

    def look():
        assert fleet.bytes()["h1-device_model-a"][:-100] == before[:-100]

    report = fleet.prove(between=look)
    assert states(report) == WHOLE
    assert fleet.bytes()["h1-device_model-a"] == before


def test_the_least_that_can_be_reserved_is_enough_for_every_vm_of_acrn():
    vms = {number: number + 3 for number in range(16)}
    whole = _verify.shared({**region("a", vms), "reserved": 4096})
    for options in (_verify.Options(measure=True), _verify.Options("true", length=1 << 20, measure=True)):
        parts = [_verify.part(whole, index, options) for index in range(16)]
        assert min(each.offset for each in parts) >= SIZE - 4096
        assert all(each.token_length >= 64 for each in parts)


@pytest.mark.parametrize("planned", [True, False])
def test_declared_bytes_are_written_and_nothing_else(fleet, planned):
    """Cameras work on region a in VM1 and on region b in VM3: a is proved, b only read."""
    if not planned:
        fleet.hosts["h1"] = [
            {**each, "vms": [{"name": vm["name"], "vbdf": vm["vbdf"]} for vm in each["vms"]]}
            for each in fleet.hosts["h1"]
        ]
    fleet.hosts["h1"][0]["reserved"] = 4096
    fleet.use("h1-VM1", "06")
    fleet.use("h1-VM3", "09")
    before = fleet.bytes()
    written = []

    def look():
        now = fleet.bytes()
        written.extend(name for name in now if name.startswith("h1-") and now[name] != before[name])
        assert now["h1-device_model-a"][:-4096] == before["h1-device_model-a"][:-4096]

    report = fleet.prove(between=look)
    assert states(report)[A1] == "proved"
    assert set(written) == {"h1-device_model-a"}
    assert fleet.bytes() == before


def test_a_chosen_offset_is_not_reserved(fleet):
    fleet.hosts["h1"][0]["reserved"] = 4096
    for vm in fleet.hosts["h1"][0]["vms"]:
        fleet.use(f"h1-{vm['name']}", vm["vbdf"][3:5])
    assert states(fleet.prove(offset=0))[A1] != "proved"


def test_one_call_a_stage_whatever_the_number_of_regions(fleet):
    fleet.start()
    fleet.run(fleet.kernels, "look")
    assert [step["operation"] for step in fleet.session().rendered("h1-VM3", "write")] == ["write", "write", "arm"]


def test_guest_with_another_memory_is_found_from_both_sides(fleet, tmp_path):
    stale = tmp_path / "stale"
    stale.write_bytes(os.urandom(SIZE))
    fleet.redirect("h1-VM2", "05", stale)
    before = fleet.bytes()
    report = fleet.prove()
    assert set(rows(report)) == {
        *((A1, "VM1", "bytes of VM2"), (A1, "VM3", "bytes of VM2"), (A1, "VM2", "bytes of VM1")),
        (A1, "VM2", "bytes of VM3"),
    }
    assert (A1, "VM1", "VM3") in pairs(report)
    assert fleet.bytes() == before
    assert report["table"][0].split() == ["REGION", "VM", "WHAT", "EXPECTED", "FOUND"]
    assert states(report) == {**WHOLE, A1: "failed"}
    # Each row is booked on the guest that it is about, and on no other.
    assert set(report["failed"]) == {"h1-VM1", "h1-VM2", "h1-VM3"} and report["kept"] == ["h2"]
    assert not any("bytes of VM1" in line for line in report["failed"]["h1-VM3"])


def test_the_table_ends_with_what_to_do(fleet):
    fleet.hosts["h1"][0]["size"] = fleet.hosts["h1"][1]["size"] = 4
    fleet.hosts["h2"][0]["vms"][0]["vbdf"] = "00:0a.0"
    report = fleet.prove()
    told = report["table"][1 + len(report["problems"]) :]
    assert [line.split(":")[0] for line in told] == ["size", "size", "PCI slot"]
    assert "started again" in told[0] and "install the hypervisor" in told[1] and "correct the vbdf" in told[2]
    assert all(row["mend"] and any(row["mend"] in line for line in told) for row in report["problems"])


@pytest.mark.parametrize("land", ["dm:/a on h", "hv:/a on h"])
@pytest.mark.parametrize(
    "what",
    [
        *("PCI slot", "PCI function", "size", "region ID", "bytes of VM1", "memory", "doorbell from VM1, vector 0"),
        *("bytes put back", "IVPosition", "registers"),
    ],
)
def test_every_row_that_cannot_say_it_itself_has_a_mend(land, what):
    assert _verdict.mend(land, what)


def test_wrong_slot_is_told_once(fleet):
    fleet.hosts["h2"][0]["vms"][0]["vbdf"] = "00:0a.0"
    report = fleet.prove()
    assert rows(report) == [(A2, "VM1", "PCI slot")]
    assert "00:06.0 (2 MB)" in report["problems"][0]["found"]
    assert list(report["failed"]) == ["h2-VM1"]


def test_wrong_size(fleet):
    fleet.hosts["h2"][0]["size"] = 4
    assert rows(fleet.prove()) == [(A2, "VM1", "size"), (A2, "VM2", "size")]


def test_the_guest_of_another_vm_is_found(fleet):
    fleet.kernels["h1-VM3"].register = lambda _address, _offset: 4
    assert rows(fleet.prove()) == [(B1, "VM3", "IVPosition")]
    # ACRN up to v3.2 may show 0.
    fleet.kernels["h1-VM3"].register = lambda _address, _offset: 0
    assert fleet.prove()["ok"]


def test_registers_behind_which_nobody_is_are_no_other_vm(fleet):
    # What v3.3 shows of the eighth region of a VM: its hypervisor has no address range left for it.
    fleet.kernels["h1-VM3"].register = lambda _address, _offset: 0xFFFFFFFF
    report = fleet.prove()
    assert rows(report) == [(B1, "VM3", "registers")]
    assert "MAX_EMULATED_MMIO" in report["table"][-1]


@pytest.mark.parametrize(
    ("msg", "printed", "found"),
    [
        ("no route to host.", None, "no route to host."),
        (
            "Premature end of stream.\n>>> Standard Error\nsudo: a password is required",
            "",
            "Premature end of stream: sudo",
        ),
        (
            "MODULE FAILURE\nSee stdout/stderr for the exact error",
            "Traceback:\nOSError: full\n",
            "MODULE FAILURE: OSError",
        ),
        ("No start of json char found", "python3: not found\n\n", "No start of json char found: python3: not found"),
    ],
)
def test_unreachable_guest(fleet, msg, printed, found):
    def lose():
        fleet.vars["h2-VM2"]["__verify_look"] = {"unreachable": True, "msg": msg, "module_stderr": printed}

    guests = fleet.start()
    alive = [guest for guest in guests if guest != "h2-VM2"]
    fleet.run(alive, "look")
    lose()
    for stage in ("write", "read", "end"):
        fleet.run(alive, stage)
    report = fleet.report()
    assert rows(report) == [("-", "h2-VM2", "guest")] and list(report["failed"]) == ["h2-VM2"]
    assert report["problems"][0]["acrn_host"] == "h2" and report["problems"][0]["found"].startswith(found)
    assert states(report) == {A1: "proved", B1: "proved", A2: "unproved"} and report["kept"] == ["h1"]


def test_a_guest_without_an_answer_never_costs_the_others_theirs(fleet):
    fleet.start()
    assert rows(fleet.report()) == [("-", guest, "guest") for guest in fleet.kernels]


def test_bytes_of_a_guest_that_drops_out_are_named(fleet):
    report = fleet.prove(lost=["h1-VM1"])
    (row,) = [row for row in report["problems"] if row["what"] == "bytes put back" and row["region"] == A1]
    assert row["guest"] == "h1-VM1" and f"offset {SIZE - 192}, length 64 are those of the proof" in row["found"]
    assert {row["guest"] for row in report["problems"]} == {"h1-VM1"}
    # No peer ever has what was there. The guest itself puts it back as soon as it is asked again.
    before = fleet.bytes()
    assert states(fleet.prove()) == WHOLE
    assert fleet.bytes() != before
    again = fleet.bytes()
    assert states(fleet.prove()) == WHOLE and fleet.bytes() == again


def test_a_guest_that_boots_in_between_has_lost_them_and_it_is_told(fleet):
    def boot():
        for address in ("0000:00:06.0", "0000:00:07.0"):
            fleet.kernels["h1-VM1"].remove(_journal.path_of(address))

    report = fleet.prove(between=boot)
    assert rows(report) == [(A1, "VM1", "bytes put back"), (B1, "VM1", "bytes put back")]
    assert f"64 bytes at offset {SIZE - 192}, length 64" in report["problems"][0]["found"]


def test_a_program_that_writes_into_a_chosen_window_is_told_and_kept(fleet):
    path = os.path.join(fleet.folder, "h1-device_model-a")
    before = bytearray(fleet.bytes()["h1-device_model-a"])

    def write():
        with open(path, "r+b") as handle:
            handle.seek(-3000, 2)
            handle.write(bytes(8))

    report = fleet.prove(write="true", between=write)
    before[-3000:-2992] = bytes(8)
    assert report["ok"] and states(report) == WHOLE
    assert any(re.match(r"dm:/a on h1: VM1: [78] bytes of the window", line) for line in report["summary"])
    assert fleet.bytes()["h1-device_model-a"] == before


def test_a_stage_that_failed_is_told_with_the_host(fleet):
    fleet.prove()
    fleet.vars["h2-VM2"]["__verify_end"] = {"failed": True, "msg": "gone"}
    found = [(row["region"], row["vm"], row["what"], row["acrn_host"]) for row in fleet.report()["problems"]]
    assert found == [("-", "h2-VM2", "end", "h2"), (A2, "VM2", "bytes put back", "h2")]


@pytest.mark.parametrize("write", ["idle", "false"])
def test_what_was_looked_at_is_kept_as_it_was_declared(fleet, write):
    report = fleet.prove(guests=["h1-VM3", "h1-VM2", "h2-VM2", "h2-VM1"], write=write)
    a, b, other = sorted(report["regions"], key=lambda each: each["region"].split(" on ")[::-1])
    assert (a["region"], a["size"], a["took_part"], a["missing"]) == (A1, 2, ["VM3", "VM2"], ["VM1"])
    assert [(vm["vm"], vm["vm_id"], vm["vbdf"]) for vm in a["vms"]] == [
        *(("VM1", 1, "00:06.0"), ("VM2", 2, "00:05.0"), ("VM3", 3, "00:08.0")),
    ]
    assert (b["region"], b["region_id"], b["took_part"]) == (B1, None, ["VM3"])
    assert (other["region"], other["took_part"]) == (A2, ["VM2", "VM1"])


def shown(fleet, report, host):
    """State of a host, and of each region of it, as the playbook report shows them."""
    (found,) = _report.hosts_of([{"inventory_hostname": host, "scenario_plan": {"regions": fleet.hosts[host]}}], report)
    return found.state, [found.proof(each).state for each in found.regions]


def test_the_report_shows_a_whole_proof_as_one(fleet):
    report = fleet.prove()
    assert shown(fleet, report, "h1") == ("ok", ["ok", "ok"])
    fleet.hosts["h1"][1]["size"] = 4
    assert shown(fleet, report, "h1") == ("partly", ["ok", "unknown"])


def test_the_report_calls_nothing_proved_that_was_only_read(fleet):
    assert shown(fleet, fleet.prove(write="false"), "h1") == ("partly", ["alike", "alike"])


def test_the_report_shows_who_did_not_take_part(fleet):
    guests = [guest for guest in fleet.kernels if guest != "h1-VM2"]
    report = fleet.prove(guests=guests, write="true")
    assert report["ok"] and shown(fleet, report, "h1") == ("partly", ["partly", "ok"])
    assert shown(fleet, report, "h2") == ("ok", ["ok"])


@pytest.mark.parametrize("write", ["false", False, "no"])
def test_read_only_compares_and_writes_nothing(fleet, tmp_path, write):
    before = fleet.bytes()
    trees = [kernel.snapshot() for kernel in fleet.kernels.values()]
    report = fleet.prove(write=write)
    assert report["ok"] and set(states(report).values()) == {"alike"} and report["kept"] == []
    assert fleet.bytes() == before and [kernel.snapshot() for kernel in fleet.kernels.values()] == trees
    odd = tmp_path / "odd"
    odd.write_bytes(bytes(SIZE))
    fleet.redirect("h2-VM2", "05", odd)
    assert rows(fleet.prove(write=write)) == [(A2, "VM2", "memory"), (A2, "VM1", "memory")]


def test_two_memories_of_zeros_are_not_taken_for_one(fleet, tmp_path):
    for number, (guest, slot) in enumerate((("h2-VM1", "06"), ("h2-VM2", "05"))):
        zeros = tmp_path / f"zeros{number}"
        zeros.write_bytes(bytes(SIZE))
        fleet.redirect(guest, slot, zeros)
    report = fleet.prove(write="false")
    assert states(report)[A2] == "unproved" and not report["ok"]
    assert report["unmet"] == [f"{A2}: not proved: it holds nothing but zeros, which are the same in every memory"]
    assert set(report["failed"]) == {"h2-VM1", "h2-VM2"}
    assert fleet.prove(write="false", asked=False)["ok"]


def test_a_program_that_writes_all_over_the_memory_is_no_mistake_of_the_region(fleet):
    path = os.path.join(fleet.folder, "h2-device_model-a")

    def write():
        with open(path, "r+b") as handle:
            for part in range(64):
                handle.seek(part * SIZE // 64)
                handle.write(b"x" if part else b"y")
                handle.write(os.urandom(8))

    report = fleet.prove(write="false", between=write)
    assert report["problems"] == [] and states(report)[A2] == "unproved"
    assert "programs write all over it" in str(report["unmet"])

    def less():
        with open(path, "r+b") as handle:
            handle.write(os.urandom(8))

    assert states(fleet.prove(write="false", between=less))[A2] == "alike"


def test_what_is_asked_for_decides(fleet):
    only = ["h1-VM1", "h1-VM2"]
    assert fleet.prove(only, write=True)["ok"]
    report = fleet.prove(only, write=True, require="all")
    assert not report["ok"] and len(report["unmet"]) == 2
    assert set(report["failed"]) == set(only)
    assert fleet.prove(only, write=True, require="any")["ok"]
    # One VM alone proves nothing, and that is no success.
    for require in ("reachable", "any", "all"):
        report = fleet.prove(["h1-VM1"], require=require)
        assert not report["ok"] and list(report["failed"]) == ["h1-VM1"], require
    assert fleet.prove(["h1-VM1"], asked=False)["ok"]
    assert fleet.prove(require="all")["ok"]
    with pytest.raises(IvshmemError, match="verify_require is all, reachable, any"):
        fleet.prove(require="some")


def test_hosts_without_guests_are_told(fleet):
    fleet.vars["h3"] = {"scenario_plan": {"regions": [region("z", {1: 4, 2: 4})]}}
    fleet.vars["h4"] = {"scenario_plan": {"regions": []}, "ivshmem_regions": None}
    report = fleet.prove(hosts=["h1", "h3", "h4"])
    assert report["ok"] and states(report) == {**WHOLE, "dm:/z on h3": "nobody"}
    assert "dm:/z on h3: nobody took part" in report["summary"]
    assert not fleet.prove(hosts=["h3"], require="all")["ok"]
    report = fleet.prove([], hosts=["h3"])
    assert not report["ok"] and list(report["failed"]) == ["h3"]
    assert "at least two of its VMs have to be guests" in report["failed"]["h3"][0]
    assert fleet.prove([], hosts=["h4"])["ok"]


def test_no_region_is_no_proof_where_nobody_has_decided_that(fleet):
    why = "no variable says which regions this host shall have (ivshmem_regions)"
    fleet.vars["h4"] = {"scenario_plan": {"regions": [], "undeclared": why}}
    fleet.vars["h5"] = {"scenario_plan": {"regions": [], "undeclared": ""}}
    report = fleet.prove([], hosts=["h4", "h5"])
    assert not report["ok"] and list(report["failed"]) == ["h4"]
    assert report["failed"]["h4"] == [f"h4: nothing to prove: {why}; ivshmem_regions: [] says that it has none"]
    # In site nobody has asked for a proof, and beside hosts with regions such a host is one that has none.
    assert fleet.prove([], hosts=["h4"], asked=False)["ok"]
    assert fleet.prove(hosts=["h1", "h4"])["ok"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"acrn_vm": "VM9"}, "acrn_vm is 'VM9', which h1 has not; its VMs: VM0 (ID 0), VM1 (ID 1), VM2 (ID 2)"),
        ({"acrn_vm": ""}, "acrn_vm is not set"),
        ({"acrn_host": "line-9"}, "acrn_host is 'line-9', which the inventory has not"),
        ({"acrn_host": ""}, "acrn_host is not set"),
    ],
)
def test_a_guest_that_is_nowhere_is_named(fleet, change, why):
    fleet.vars["h1-VM1"].update(change)
    report = fleet.prove(write=True)
    (row,) = [row for row in report["problems"] if row["guest"] == "h1-VM1"]
    assert row["what"] == "inventory" and why in row["found"]
    assert list(report["failed"]) == ["h1-VM1"] and states(report) == {A1: "partly", B1: "unproved", A2: "proved"}


def test_two_guests_that_say_they_are_one_vm_take_no_part(fleet):
    fleet.vars["h1"] = {"scenario_plan": {"vms": [{"name": f"VM{number}", "id": number} for number in range(5)]}}
    fleet.vars["h1-VM3"]["acrn_vm"] = 1
    report = fleet.prove()
    rows = {row["guest"]: row["found"] for row in report["problems"]}
    assert rows["h1-VM3"] == "acrn_vm is VM1, and so it is of h1-VM1; a VM is one guest"
    assert rows["h1-VM1"] == "acrn_vm is VM1, and so it is of h1-VM3; a VM is one guest"
    assert fleet.plan["guests"]["h1-VM1"]["error"] and not fleet.plan["guests"]["h2-VM1"]["error"]


def test_a_guest_is_found_by_the_id_of_its_vm(fleet):
    fleet.vars["h1-VM1"]["acrn_vm"] = "1"
    assert fleet.prove()["ok"]


def bell(fleet, counts, guests=("h1-VM1", "h1-VM3"), **options):
    """The report when h1-VM3 could receive and has counted."""
    guests = fleet.start(guests, **options)
    fleet.run(guests, "look")
    fleet.run(guests, "write")
    for result in fleet.vars["h1-VM3"]["__verify_write"]["results"]:
        if result["operation"] == "arm":
            result.update(receivable=True, reason=None)
    fleet.run(guests, "read")
    fleet.run(guests, "end")
    for result in fleet.vars["h1-VM3"]["__verify_end"]["results"]:
        if result["operation"] == "collect":
            result["counts"] = counts
    return fleet.report()


def test_doorbell_that_came_in(fleet):
    report = bell(fleet, [1, 0, 0, 0, 0, 0, 0, 0])
    assert report["ok"], report["table"]
    received = [each for each in report["doorbells"] if each["received"] is not None]
    assert [(each["from"], each["to"], each["vector"], each["received"]) for each in received] == [("VM1", "VM3", 0, 1)]
    registers = fleet.kernels["h1-VM1"].data(f"{_kernel.SYSFS}/devices/0000:00:07.0/resource0")
    assert registers[0x0C:0x10] == bytes([0, 0, 3, 0])


def test_doorbell_that_cannot_be_rung_without_the_plan_is_said(fleet):
    vms = [{"name": "VM1", "vbdf": "00:07.0"}, {"name": "VM3", "vbdf": "00:09.0"}]
    fleet.hosts["h1"] = [{"name": "b", "size": 2, "vms": vms}]
    report = bell(fleet, [0] * 8)
    assert report["ok"]
    wanted = "not rung: the VM ID of VM3 is not known without the plan of its ACRN host"
    assert f"hv:/b on h1: no doorbell to VM3: {wanted}" in report["summary"]


@pytest.mark.parametrize("counts", [[0] * 8, None, [2] + [0] * 7, [0, 1] + [0] * 6])
def test_doorbell_that_did_not_come_in_as_rung(fleet, counts):
    report = bell(fleet, counts)
    assert (B1, "VM3", "doorbell from VM1, vector 0") in rows(report)


@pytest.mark.parametrize("write", ["idle", "true"])
@pytest.mark.parametrize("measure", [False, True])
@pytest.mark.parametrize("count", range(2, 17))
def test_parts_do_not_overlap(count, measure, write):
    shared = _verify.shared(region("a", {vm: vm + 3 for vm in range(count)}))
    options = _verify.Options(mode=write, measure=measure)
    parts = [_verify.part(shared, index, options) for index in range(count)]
    assert all(part.offset % 8 == 0 and part.token_length >= 64 for part in parts)
    ends = [part.offset + part.length for part in parts]
    assert ends[-1] <= SIZE
    assert all(end <= part.offset for end, part in zip(ends, parts[1:]))


@pytest.mark.parametrize(("offset", "length"), [(-8, 4096), (4, 4096), (SIZE, 8), (None, 16)])
def test_windows_that_cannot_be(fleet, offset, length):
    with pytest.raises(IvshmemError, match=r"region 'dm:/a'.*verify_window_length\)"):
        fleet.start(write="true", offset=offset, length=length)


def test_a_window_that_no_guest_could_keep_is_refused_before_anybody_is_asked(fleet):
    for each in fleet.hosts["h1"]:
        each["size"] = 512
    with pytest.raises(IvshmemError, match=r"3 VMs: a window has at most 16777216 bytes.*\(verify_window_length\)"):
        fleet.start(write="true", length=512 << 20)


def test_each_mailbox_is_one_guests_and_both_sides_agree(fleet):
    """The word that A asks with is the one that B's agent watches, and the answer likewise."""
    guests = fleet.start(measure=True, doorbell=False)
    before = fleet.bytes()
    fleet.run(guests, "look")
    asked, answered = set(), set()
    for guest in guests:
        for step in fleet.session().rendered(guest, "write"):
            answered |= {(guest[:2], step["device"]["name"], *pair) for pair in step.get("echo") or []}
    fleet.run(guests, "write")
    for guest in guests:
        for step in fleet.session().rendered(guest, "read"):
            if "request" in step:
                asked.add((guest[:2], step["device"]["name"], step["request"], step["reply"]))
    assert asked == answered and len(asked) == 3 * 2 + 2 * 1 + 2 * 1
    assert all(word % 4 == 0 for _host, _name, *both in asked for word in both)
    fleet.run(guests, "read")
    fleet.run(guests, "end")
    report = fleet.report()
    assert report["ok"], report["table"]
    assert len([each for each in report["figures"] if each.get("round_trip_us")]) == 10
    assert fleet.bytes() == before


def test_nothing_is_measured_where_a_program_could_lose_what_it_writes(fleet):
    fleet.use("h1-VM1")
    report = fleet.prove(measure=True, write=True)
    assert {each["region"] for each in report["figures"]} == {B1, A2}


def test_declaration_without_plan(fleet):
    vms = ["VM1", {"name": "VM2", "vbdf": "00:05.0"}]
    fleet.hosts["h1"] = [{"name": "a", "provided_by": "device_model", "size": 2, "vms": vms}]
    fleet.start(["h1-VM1", "h1-VM2", "h1-VM3"])
    session = fleet.session()
    one, two, none = (session.rendered(f"h1-VM{number}", "look") for number in (1, 2, 3))
    for asked, bdf in ((one, None), (two, "00:05.0")):
        (step,) = asked
        assert step["operation"] == "look"
        assert step["device"] == {"name": "a", "vbdf": bdf, "size": 2, "region_id": None}
    assert none == [] and one[0]["writer"] != two[0]["writer"]


def lies(good):
    """What a guest could say instead of an answer."""
    yield from (None, 5, "x", [], [good], {"results": None}, {"results": 7}, {"results": []}, {"results": {}})
    results = good["results"]
    yield {"results": results[:-1]}
    yield {"results": results[1:]}
    yield {"results": [*results, results[-1]] if results else [{}]}
    yield {"results": results * 2}
    yield {"results": list(reversed(results))} if len(results) > 1 else {"results": [None]}
    for number, result in enumerate(results):
        others = [None, [], "x", 7, {}]
        for key in result:
            for value in (
                None,
                -1,
                1 << 80,
                "x" * 10000,
                [],
                {},
                [[1]],
                [{"what": 1}],
                True,
                1.5,
                float("nan"),
                "\u202e\x1b[2J",
            ):
                others.append({**result, key: value})
            others.append({name: value for name, value in result.items() if name != key})
        others.append(
            {**result, "problems": [{"what": "size", "expected": "%s {{ 1 }}", "found": "\x1b[31m" * 500}] * 50}
        )
        others.append({**result, "region": "hv:/b on h1", "label": {"region": "hv:/b", "acrn_host": "h1", "vm": "VM3"}})
        for other in others:
            yield {"results": [*results[:number], other, *results[number + 1 :]]}


def ended(fleet, **options):
    """A run that was ended when all guests had written."""
    guests = fleet.start(**options)
    for stage in ("look", "recover", "write"):
        fleet.run(guests, stage)


@pytest.mark.parametrize("first", [{}, {"write": True}, {"write": True, "length": 65536}])
@pytest.mark.parametrize("second", [{}, {"write": True}, {"write": True, "length": 65536}, {"measure": True}])
@pytest.mark.parametrize("turned", [False, True])
def test_all_bytes_of_a_run_that_was_ended_come_back_wherever_the_next_one_writes(fleet, first, second, turned):
    before = fleet.bytes()
    ended(fleet, **first)
    assert fleet.bytes() != before
    # Which guest comes first is chance.
    guests = sorted(fleet.kernels, reverse=turned)
    assert fleet.prove(guests, **second)["ok"]
    assert fleet.bytes() == before


class Other:
    """The same machines as another controller sees them: it knows nothing of what the first one asks and hears."""

    def __init__(self, fleet):
        self.fleet = Fleet.__new__(Fleet)
        self.fleet.__dict__.update(fleet.__dict__, vars={guest: dict(own) for guest, own in fleet.vars.items()})

    def calls(self, guests, **options):
        """The calls of one proof, in their order."""
        self.fleet.start(guests, **options)
        return [(guest, stage) for stage in _verify.STAGES for guest in guests]

    def call(self, guest, stage):
        self.fleet.run([guest], stage)


OPTIONS = [{"measure": True}] + [
    {**each, "doorbell": False}
    for each in (
        {},
        {"write": True},
        {"write": True, "length": 65536},
        {"write": True, "offset": SIZE - 272, "length": 272},
    )
]


@pytest.mark.parametrize("seed", range(10) if os.environ.get("ACRN_IVSHMEM_LONG") else [0])
def test_two_proofs_at_once_take_no_byte_from_each_other(fleet, seed):
    """Whatever call of the one comes between which calls of the other, to their end or broken off."""
    before = fleet.bytes()
    chance = random.Random(seed)
    for turn in range(6):
        calls = []
        for options in (chance.choice(OPTIONS), chance.choice(OPTIONS)):
            other, guests = Other(fleet), list(fleet.kernels)
            chance.shuffle(guests)
            asked = other.calls(guests, **options)
            if turn % 3 == 2:
                asked = asked[: chance.randrange(len(asked))]
            calls.append([(other, *call) for call in asked])
        while any(calls):
            other, guest, stage = chance.choice([each for each in calls if each]).pop(0)
            other.call(guest, stage)
        if turn % 3 == 2:
            assert fleet.prove(**chance.choice(OPTIONS))["ok"]
        now = fleet.bytes()
        wrong = {name: sum(a != b for a, b in zip(was, now[name])) for name, was in before.items() if was != now[name]}
        assert not wrong, f"turn {turn}: {wrong}"
    assert fleet.prove()["ok"]


def test_bytes_of_another_proof_are_told_and_nothing_is_written_over_them(fleet):
    """The other one still runs: its guests have written since this one looked."""
    before = fleet.bytes()
    other, guests = Other(fleet), list(fleet.kernels)
    fleet.start(guests)
    fleet.run(guests, "look")
    fleet.run(guests, "recover")
    for guest, stage in other.calls(["h1-VM1", "h1-VM2", "h1-VM3"], write=True):
        if stage in ("look", "recover", "write"):
            other.call(guest, stage)
    for stage in ("write", "read", "end"):
        fleet.run(guests, stage)
    report = fleet.report()
    assert states(report)[A1] == "failed" and states(report)[A2] == "proved"
    assert "bytes of another proof stand from" in str(report["problems"])
    for guest in ("h1-VM1", "h1-VM2", "h1-VM3"):
        other.call(guest, "end")
    assert fleet.bytes() == before and fleet.prove()["ok"]


def test_bytes_that_a_guest_has_forgotten_stop_no_later_proof(fleet):
    """A run was killed, then a guest has booted: nobody knows what was there, and another VM's window lies over it."""
    ended(fleet, write=True)
    for path in ("0000:00:06.0", "0000:00:05.0", "0000:00:08.0", "0000:00:07.0", "0000:00:09.0"):
        for kernel in fleet.kernels.values():
            if os.path.exists(kernel.path(_journal.path_of(path))):
                os.unlink(kernel.path(_journal.path_of(path)))
    lost = fleet.bytes()
    report = fleet.prove(write=True, length=65536)
    assert report["ok"], report["table"]
    assert not any(_journal.MARK in data for data in fleet.bytes().values())
    assert lost != fleet.bytes()


def test_nothing_is_written_over_bytes_that_could_not_be_put_back(fleet):
    before = fleet.bytes()
    ended(fleet)
    path = fleet.kernels["h1-VM1"].path(_journal.path_of("0000:00:06.0"))
    with open(path, "rb+") as handle:
        good = handle.read()
        handle.truncate(len(good) - 9)
    report = fleet.prove(write=True, length=65536)
    assert states(report)[A1] != "proved" and states(report)[B1] == states(report)[A2] == "proved"
    assert "cannot be read" in str(report["problems"])
    with open(path, "wb") as handle:
        handle.write(good)
    assert fleet.prove()["ok"]
    assert fleet.bytes() == before


@pytest.mark.parametrize("stage", _verify.STAGES)
@pytest.mark.parametrize("more", [-1, 1])
def test_too_few_or_too_many_results_are_a_failure_of_that_guest_by_name(fleet, stage, more):
    """Each of them is a good answer to a step; only their number is wrong."""
    if stage == "recover":
        ended(fleet)
    asked = []
    honest = fleet.run

    def run(guests, now):
        honest(guests, now)
        if now == stage:
            answer = fleet.vars["h2-VM2"][_verify.variable(stage)]
            asked.extend(answer["results"])
            answer["results"] = asked[:-1] if more < 0 else [*asked, asked[-1]]

    fleet.run = run
    report = fleet.prove()
    told = [row for row in report["problems"] if row["guest"] == "h2-VM2"]
    assert f"there are not {len(asked)} results" in str(told)
    assert {row["guest"] for row in report["problems"]} == {"h2-VM2"}
    assert states(report)[A2] != "proved" and states(report)[A1] == states(report)[B1] == "proved"


@pytest.mark.parametrize("stage", _verify.STAGES)
def test_a_lying_guest_hurts_nobody_but_itself(fleet, stage):
    """Whatever h2-VM2 says, h1 keeps its proof, and the steps of others are not its to choose."""
    if stage == "recover":
        ended(fleet)
    fleet.prove()
    name = _verify.variable(stage)
    good = fleet.vars["h2-VM2"][name]
    calm = {guest: [fleet.session().rendered(guest, each) for each in _verify.STAGES] for guest in of(fleet, "h1")}
    count = 0
    for lie in lies(good):
        fleet.vars["h2-VM2"][name] = lie
        session = fleet.session()
        for guest in fleet.kernels:
            for each in _verify.STAGES:
                for step in session.rendered(guest, each):
                    assert set(step) <= {
                        *("operation", "device", "offset", "length", "mailbox", "seed", "only_idle", "timeout", "echo"),
                        *("peer", "vector", "nonce", "writer"),
                    }
        assert {guest: [session.rendered(guest, each) for each in _verify.STAGES] for guest in calm} == calm
        report = fleet.report()
        assert states(report)[A1] == states(report)[B1] == "proved"
        assert {row["acrn_host"] for row in report["problems"]} <= {"h2"}
        text = json.dumps(report)
        assert len(text) < 200_000 and "\\u001b" not in text and "\\u202e" not in text
        ET.fromstring(_verdict.junit(report))
        _verdict.prometheus(report, 1.0)
        shown(fleet, report, "h2")
        count += 1
    assert count > 50


def test_report_for_continuous_integration(fleet):
    fleet.hosts["h2"][0]["vms"][0]["vbdf"] = "00:0a.0"
    fleet.vars["h1-VM2"]["acrn_vm"] = "VM9"
    report = fleet.prove(require="all")
    root = ET.fromstring(_verdict.junit(report))
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"acrn.ivshmem.verify h1", "acrn.ivshmem.verify h2", "acrn.ivshmem.verify guests"}
    one = suites["acrn.ivshmem.verify h1"]
    assert (one.get("tests"), one.get("failures"), one.get("timestamp")) == ("2", "1", "2026-11-26T12:00:00+00:00")
    cases = {case.get("name"): case for case in one}
    assert "VM2 does not take part" in cases["dm:/a"].find("failure").text
    assert cases["hv:/b"].find("system-out").text == "proved between VM1, VM3"
    assert "PCI slot" in suites["acrn.ivshmem.verify h2"].find("testcase/failure").text


def test_report_for_monitoring(fleet):
    report = fleet.prove(["h1-VM1", "h1-VM3", "h2-VM1"], write=True)
    lines = _verdict.prometheus(report, 1795694400.4).splitlines()
    assert 'acrn_ivshmem_region_proved{host="h1",region="dm:/a"} 0' in lines
    assert 'acrn_ivshmem_region_proved{host="h1",region="hv:/b"} 1' in lines
    assert 'acrn_ivshmem_region_state{host="h1",region="dm:/a",state="partly"} 1' in lines
    assert 'acrn_ivshmem_region_vms_proving{host="h2",region="dm:/a"} 1' in lines
    assert "acrn_ivshmem_verify_ok 1" in lines
    assert "acrn_ivshmem_verify_timestamp_seconds 1795694400" in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    pattern = r'[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? \d+'
    assert all(re.fullmatch(pattern, line) for line in lines if not line.startswith("#"))


def bind(fleet, boots):
    """What the roles scenario and guest leave; ``boots`` are the guests' boot IDs."""
    for host, regions in fleet.hosts.items():
        fleet.vars[host] = {"scenario_plan": {"regions": regions}}
    for guest, kernel in fleet.kernels.items():
        if boots.get(guest):
            kernel.put(_kernel.BOOT_ID, boots[guest] + "\n")
        fleet.vars[guest]["guest_result"] = {"changed": False, **_kernel.proof(kernel)}


def keep(fleet, report):
    """What the role does with a report."""
    guests = list(fleet.kernels)
    for guest, kernel in fleet.kernels.items():
        proof = _verify.to_keep(report, fleet.vars, fleet.vars[guest]["acrn_host"], guests)
        if proof is not None:
            _probe.keep_proof(kernel, proof)


@pytest.fixture
def proved(fleet):
    """A fleet whose regions have been proved, with the boots of its guests."""
    boots = {guest: f"boot of {guest}" for guest in fleet.kernels}
    bind(fleet, boots)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == list(fleet.kernels)
    report = fleet.prove()
    assert report["ok"]
    keep(fleet, report)
    bind(fleet, boots)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == []
    return boots


def of(fleet, host):
    return [guest for guest in fleet.kernels if guest.startswith(host)]


def test_one_boot_ends_the_proof_of_its_host_alone(fleet, proved):
    # /run is emptied at a boot.
    fleet.kernels["h1-VM2"].remove(_kernel.PROOF)
    bind(fleet, {**proved, "h1-VM2": "another boot"})
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == of(fleet, "h1")


def test_a_peers_boot_ends_the_proof_even_where_the_text_is_still_there(fleet, proved):
    bind(fleet, {**proved, "h2-VM1": "another boot"})
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == of(fleet, "h2")


def test_another_plan_ends_the_proof(fleet, proved):
    fleet.hosts["h2"].append(region("c", {1: 8, 2: 6}))
    bind(fleet, proved)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == of(fleet, "h2")


def test_a_guest_that_was_bound_just_now_is_proved_again(fleet, proved):
    fleet.vars["h2-VM2"]["guest_result"]["changed"] = True
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == of(fleet, "h2")


def test_a_new_proof_that_fails_leaves_none(fleet, proved):
    kernel = fleet.kernels["h2-VM1"]
    path = kernel.path(f"{_kernel.SYSFS}/devices/0000:00:06.0/resource2")
    os.unlink(path)
    with open(path, "wb") as handle:
        handle.write(bytes(SIZE))
    assert not fleet.prove()["ok"]
    bind(fleet, proved)
    assert _verify.unproved(fleet.vars, of(fleet, "h2")) == of(fleet, "h2")


@pytest.mark.parametrize("options", [{}, {"write": "true"}, {"read_only": True}])
def test_a_new_proof_stands_as_well_as_the_old_one(fleet, proved, options):
    """Also where nothing but the proof is asked for, so that nobody has bound anything before."""
    for guest in fleet.kernels:
        del fleet.vars[guest]["guest_result"]
    report = fleet.prove(**options)
    assert report["ok"]
    keep(fleet, report)
    bind(fleet, proved)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == []


def test_a_proof_that_only_reads_and_fails_leaves_none(fleet, proved):
    """Where programs use the regions, nothing is written, and yet what is found speaks against the proof of before."""
    other = os.path.join(fleet.folder, "other")
    for name, content in fleet.bytes().items():
        if name.startswith("h2-"):
            with open(other, "wb") as handle:
                handle.write(content[::-1])
    fleet.redirect("h2-VM1", "06", other)
    report = fleet.prove(read_only=True)
    assert {each["acrn_host"] for each in report["problems"]} == {"h2"}
    keep(fleet, report)
    bind(fleet, proved)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == of(fleet, "h2")


def test_a_guest_that_boots_while_it_is_proved_is_proved_again(fleet, proved):
    def boot():
        fleet.kernels["h2-VM1"].put(_kernel.BOOT_ID, "another boot\n")

    report = fleet.prove(between=boot)
    keep(fleet, report)
    bind(fleet, {**proved, "h2-VM1": "another boot"})
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == of(fleet, "h2")


@pytest.mark.parametrize("said", [None, [], "x", {}, {"boot_id": None}, {"boot_id": ""}])
def test_without_all_boots_nothing_is_kept(fleet, said):
    bind(fleet, {"h1-VM1": "a"})
    report = fleet.prove()
    assert _verify.to_keep(report, fleet.vars, "h1", list(fleet.kernels)) is None
    for guest in of(fleet, "h1"):
        fleet.vars[guest][_verify.variable("look")] = {"boot_id": "a"}
    assert _verify.to_keep(report, fleet.vars, "h1", list(fleet.kernels))
    fleet.vars["h1-VM1"][_verify.variable("look")] = said
    assert _verify.to_keep(report, fleet.vars, "h1", list(fleet.kernels)) is None
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == list(fleet.kernels)


def test_a_look_keeps_the_proof(fleet, proved):
    assert fleet.prove(write="false")["ok"]
    bind(fleet, proved)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == []
