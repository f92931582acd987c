# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole proof, with guests whose memory is a file: steps of each stage, what guest_probe answers, the report."""

from __future__ import annotations

import os

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils import _pci, _probe, _report, _verify
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel

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
        self.options = {}
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
            self.vars[guest] = {"acrn_host": host, "acrn_vm": vm["name"]}
        kernel = self.kernels[guest]
        address = "0000:" + vm["vbdf"]
        kernel.add(address, driver=_pci.UIO, vectors=8 if provided_by == "hypervisor" else 0)
        path = kernel.path(f"{_pci.SYSFS}/devices/{address}/resource2")
        os.unlink(path)
        os.symlink(memory, path)
        kernel.put(f"{_pci.SYSFS}/devices/{address}/resource0", bytes(256))

    def bytes(self):
        return {
            name: open(os.path.join(self.folder, name), "rb").read()
            for name in os.listdir(self.folder)
            if os.path.isfile(os.path.join(self.folder, name))
        }

    def first(self, guest):
        mine = self.vars[guest]
        return _verify.begin(self.hosts[mine["acrn_host"]], mine["acrn_vm"], mine["acrn_host"], **self.options)

    def run(self, guests, stage, steps):
        for guest in guests:
            self.vars[guest][stage] = {"results": _probe.run_steps(self.kernels[guest], steps(guest))}

    def prove(self, guests=None, lost=(), **options):
        """All three stages; ``lost`` guests stop answering after the first one."""
        self.options = options
        guests = list(guests or self.kernels)
        alive = [guest for guest in guests if guest not in lost]
        self.run(guests, _verify.BEGIN, self.first)
        if not options.get("read_only"):
            self.run(alive, _verify.EXCHANGE, lambda g: _verify.exchange(self.first(g), g, self.vars, guests))
            self.run(alive, _verify.END, lambda g: _verify.end(self.first(g), g, self.vars, guests))
        return _verify.as_value(_verify.report(self.vars, guests))


@pytest.fixture
def fleet(tmp_path):
    shared = [region("a", {1: 6, 2: 5, 3: 8}), region("b", {1: 7, 3: 9}, "hypervisor")]
    return Fleet(str(tmp_path), {"h1": shared, "h2": [region("a", {1: 6, 2: 5})]})


def pairs(report):
    return {(each["region"], each["from"], each["to"]) for each in report["pairs"]}


def rows(report):
    return [(row["region"], row["vm"], row["what"]) for row in report["problems"]]


def test_every_ordered_pair_of_every_region(fleet):
    before = fleet.bytes()
    report = fleet.prove()
    assert report["ok"], report["table"]
    three = {("dm:/a on h1", f"VM{a}", f"VM{b}") for a in (1, 2, 3) for b in (1, 2, 3) if a != b}
    two = {("hv:/b on h1", "VM1", "VM3"), ("hv:/b on h1", "VM3", "VM1")}
    elsewhere = {("dm:/a on h2", "VM1", "VM2"), ("dm:/a on h2", "VM2", "VM1")}
    assert pairs(report) == three | two | elsewhere
    assert fleet.bytes() == before
    assert len(report["doorbells"]) == 2
    assert all("capable, not receivable" in bell["result"] for bell in report["doorbells"])
    assert report["summary"][0] == "pairs of VMs that share their memory: 10; doorbells received: 0"


def test_one_call_a_stage_whatever_the_number_of_regions(fleet):
    assert [step["operation"] for step in fleet.first("h1-VM3")] == ["write", "write", "arm"]


def test_guest_with_another_memory_is_found_from_both_sides(fleet, tmp_path):
    stale = tmp_path / "stale"
    stale.write_bytes(os.urandom(SIZE))
    path = fleet.kernels["h1-VM2"].path(f"{_pci.SYSFS}/devices/0000:00:05.0/resource2")
    os.unlink(path)
    os.symlink(stale, path)
    before = fleet.bytes()
    report = fleet.prove()
    place = "dm:/a on h1"
    assert set(rows(report)) == {
        (place, "VM1", "bytes of VM2"),
        (place, "VM3", "bytes of VM2"),
        (place, "VM2", "bytes of VM1"),
        (place, "VM2", "bytes of VM3"),
    }
    assert (place, "VM1", "VM3") in pairs(report)
    assert fleet.bytes() == before
    assert report["table"][0].split() == ["REGION", "VM", "WHAT", "EXPECTED", "FOUND"]


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
    "what", ["PCI slot", "PCI function", "size", "region ID", "bytes of VM1", "memory", "doorbell from VM1, vector 0"]
)
def test_every_row_that_cannot_say_it_itself_has_a_mend(land, what):
    assert _verify.mend(land, what)


def test_wrong_slot_is_told_once(fleet):
    fleet.hosts["h2"][0]["vms"][0]["vbdf"] = "00:0a.0"
    report = fleet.prove()
    assert rows(report) == [("dm:/a on h2", "VM1", "PCI slot")]
    assert "00:06.0 (2 MB)" in report["problems"][0]["found"]


def test_wrong_size(fleet):
    fleet.hosts["h2"][0]["size"] = 4
    assert rows(fleet.prove()) == [("dm:/a on h2", "VM1", "size"), ("dm:/a on h2", "VM2", "size")]


def test_peer_outside_the_inventory_is_no_problem_but_said(fleet):
    report = fleet.prove(guests=["h2-VM1"])
    assert report["ok"]
    assert report["skipped"] == ["dm:/a on h2: VM2 does not take part, so that VM1 has not read it"]


def test_unreachable_guest(fleet):
    guests = list(fleet.kernels)
    alive = [guest for guest in guests if guest != "h2-VM2"]
    fleet.prove(guests=alive)
    report = _verify.as_value(_verify.report(fleet.vars, guests))
    assert rows(report) == [("-", "h2-VM2", "guest")]
    assert report["problems"][0]["acrn_host"] == "h2"


@pytest.mark.parametrize("more", [{}, {"results": []}])
def test_module_that_failed_in_a_guest(fleet, more):
    fleet.prove()
    fleet.vars["h2-VM2"][_verify.BEGIN] = {"failed": True, "msg": "no sudo\nmore", **more}
    report = _verify.as_value(_verify.report(fleet.vars, list(fleet.kernels)))
    assert ("-", "h2-VM2", "guest") in rows(report)
    assert report["problems"][-1]["found"] == "no sudo" or report["problems"][0]["found"] == "no sudo"


def test_bytes_of_a_guest_that_drops_out_are_put_back_by_its_peers(fleet):
    before = fleet.bytes()
    report = fleet.prove(lost=["h1-VM1"])
    assert fleet.bytes() == before
    assert ("dm:/a on h1", "VM1", "bytes of VM2") in rows(report)
    assert {row["acrn_host"] for row in report["problems"]} == {"h1"}


def test_a_stage_that_failed_is_told_with_the_host(fleet):
    fleet.prove()
    fleet.vars["h2-VM2"][_verify.END] = {"failed": True, "msg": "gone"}
    report = _verify.as_value(_verify.report(fleet.vars, list(fleet.kernels)))
    assert [(row["vm"], row["what"], row["acrn_host"]) for row in report["problems"]] == [("h2-VM2", "end", "h2")]


@pytest.mark.parametrize("read_only", [False, True])
def test_what_was_looked_at_is_kept_as_it_was_declared(fleet, read_only):
    report = fleet.prove(guests=["h1-VM3", "h1-VM2", "h2-VM2", "h2-VM1"], read_only=read_only)
    a, b, other = sorted(report["regions"], key=lambda each: each["region"].split(" on ")[::-1])
    assert (a["region"], a["size"], a["took_part"]) == ("dm:/a on h1", 2, ["VM2", "VM3"])
    assert [(vm["vm"], vm["vm_id"], vm["vbdf"]) for vm in a["vms"]] == [
        *(("VM1", 1, "00:06.0"), ("VM2", 2, "00:05.0"), ("VM3", 3, "00:08.0")),
    ]
    assert (b["region"], b["region_id"], b["took_part"]) == ("hv:/b on h1", None, ["VM3"])
    assert (other["region"], other["took_part"]) == ("dm:/a on h2", ["VM1", "VM2"])


def shown(fleet, report, host):
    """State of a host, and of each region of it, as the playbook report shows them."""
    (found,) = _report.hosts_of([{"inventory_hostname": host, "scenario_plan": {"regions": fleet.hosts[host]}}], report)
    return found.state, [found.proof(each).state for each in found.regions]


@pytest.mark.parametrize("read_only", [False, True])
def test_the_report_shows_a_whole_proof_as_one(fleet, read_only):
    report = fleet.prove(read_only=read_only)
    assert shown(fleet, report, "h1") == ("ok", ["ok", "ok"])
    fleet.hosts["h1"][1]["size"] = 4
    assert shown(fleet, report, "h1") == ("partly", ["ok", "unknown"])


def test_the_report_shows_who_did_not_take_part(fleet):
    guests = [guest for guest in fleet.kernels if guest != "h1-VM2"]
    report = fleet.prove(guests=guests)
    assert report["ok"] and shown(fleet, report, "h1") == ("partly", ["partly", "ok"])
    report = _verify.as_value(_verify.report(fleet.vars, list(fleet.kernels)))
    assert not report["ok"] and shown(fleet, report, "h1") == ("failed", ["partly", "ok"])
    assert shown(fleet, report, "h2") == ("ok", ["ok"])


def test_read_only_compares_and_writes_nothing(fleet, tmp_path):
    before = fleet.bytes()
    report = fleet.prove(read_only=True)
    assert report["ok"] and fleet.bytes() == before
    assert len(report["pairs"]) == 4
    with open(os.path.join(fleet.folder, "odd"), "wb") as handle:
        handle.write(bytes(SIZE))
    path = fleet.kernels["h2-VM2"].path(f"{_pci.SYSFS}/devices/0000:00:05.0/resource2")
    os.unlink(path)
    os.symlink(os.path.join(fleet.folder, "odd"), path)
    assert rows(fleet.prove(read_only=True)) == [("dm:/a on h2", "VM2", "memory")]


def test_two_memories_of_zeros_are_not_taken_for_one(fleet):
    for guest, address in (("h2-VM1", "0000:00:06.0"), ("h2-VM2", "0000:00:05.0")):
        path = fleet.kernels[guest].path(f"{_pci.SYSFS}/devices/{address}/resource2")
        os.unlink(path)
        with open(path, "wb") as handle:
            handle.write(bytes(SIZE))
    report = fleet.prove(read_only=True)
    assert report["ok"]
    assert {pair["region"] for pair in report["pairs"]} == {"dm:/a on h1", "hv:/b on h1"}
    zeros = "dm:/a on h2: VM1 and VM2 hold nothing but zeros, which proves nothing: let verify write"
    assert zeros in report["summary"]


def bell(fleet, counts):
    """The report when h1-VM3 could receive and has counted."""
    fleet.options = {}
    guests = ["h1-VM1", "h1-VM3"]
    fleet.run(guests, _verify.BEGIN, fleet.first)
    for result in fleet.vars["h1-VM3"][_verify.BEGIN]["results"]:
        if result["operation"] == "arm":
            result.update(receivable=True, reason=None)
    fleet.run(guests, _verify.EXCHANGE, lambda g: _verify.exchange(fleet.first(g), g, fleet.vars, guests))
    fleet.run(guests, _verify.END, lambda g: _verify.end(fleet.first(g), g, fleet.vars, guests))
    for result in fleet.vars["h1-VM3"][_verify.END]["results"]:
        if result["operation"] == "collect":
            result["counts"] = counts
    return _verify.as_value(_verify.report(fleet.vars, guests))


def test_doorbell_that_came_in(fleet):
    report = bell(fleet, [1, 0, 0, 0, 0, 0, 0, 0])
    assert report["ok"], report["table"]
    received = [each for each in report["doorbells"] if each["received"] is not None]
    assert [(each["from"], each["to"], each["vector"], each["received"]) for each in received] == [("VM1", "VM3", 0, 1)]
    registers = fleet.kernels["h1-VM1"].data(f"{_pci.SYSFS}/devices/0000:00:07.0/resource0")
    assert registers[0x0C:0x10] == bytes([0, 0, 3, 0])


def test_doorbell_that_cannot_be_rung_without_the_plan_is_said(fleet):
    vms = [{"name": "VM1", "vbdf": "00:07.0"}, {"name": "VM3", "vbdf": "00:09.0"}]
    fleet.hosts["h1"] = [{"name": "b", "size": 2, "vms": vms}]
    report = bell(fleet, [0] * 8)
    assert report["ok"]
    wanted = "VM1 to VM3: not rung: the VM ID of VM3 is not known without the plan of its ACRN host"
    assert f"hv:/b on h1: doorbell from {wanted}" in report["summary"]


@pytest.mark.parametrize("counts", [[0] * 8, None, [2] + [0] * 7, [0, 1] + [0] * 6])
def test_doorbell_that_did_not_come_in_as_rung(fleet, counts):
    report = bell(fleet, counts)
    assert ("hv:/b on h1", "VM3", "doorbell from VM1, vector 0") in rows(report)


@pytest.mark.parametrize("measure", [False, True])
@pytest.mark.parametrize("count", range(2, 17))
def test_parts_do_not_overlap(count, measure):
    shared = _verify.shared(region("a", {vm: vm + 3 for vm in range(count)}))
    parts = [_verify.part(shared, index, None, 4096, measure) for index in range(count)]
    assert all(start % 8 == 0 and length - mailbox >= 16 for start, length, mailbox in parts)
    ends = [start + length for start, length, _mailbox in parts]
    assert parts[0][0] == SIZE - 4096 and ends[-1] <= SIZE
    assert all(end <= start for end, (start, _length, _mailbox) in zip(ends, parts[1:]))


@pytest.mark.parametrize(("offset", "length"), [(-8, 4096), (4, 4096), (SIZE, 8), (None, 16)])
def test_windows_that_cannot_be(offset, length):
    shared = _verify.shared(region("a", {1: 5, 2: 6}))
    with pytest.raises(IvshmemError, match="region 'dm:/a'"):
        _verify.part(shared, 0, offset, length, False)


def test_each_mailbox_is_one_guests_and_both_sides_agree(fleet):
    """The word that A asks with is the one that B's agent watches, and the answer likewise."""
    fleet.options = {"measure": True, "doorbell": False}
    steps = {guest: fleet.first(guest) for guest in ("h1-VM1", "h1-VM2", "h1-VM3")}
    for guest in steps:
        results = []
        for step in steps[guest]:
            result = {"operation": step["operation"], "label": step["label"], "problems": []}
            if step["operation"] == "write":
                token = step["length"] - step["mailbox"]
                record = {"offset": step["offset"], "length": step["length"], "token_length": token, "sha256": ""}
                result["record"] = record
            results.append(result)
        fleet.vars[guest][_verify.BEGIN] = {"results": results}
    asked = set()
    for guest in steps:
        for step in _verify.exchange(steps[guest], guest, fleet.vars, list(steps), measure=True):
            if "request" in step:
                asked.add((step["label"]["region"], step["request"], step["reply"]))
    answered = {
        (step["label"]["region"], ask, reply)
        for own in steps.values()
        for step in own
        if step["operation"] == "arm"
        for ask, reply in step["echo"]
    }
    assert asked == answered
    assert len(asked) == 3 * 2 + 2 * 1
    words = [word for _region, *both in asked for word in both]
    assert all(word % 4 == 0 for word in words)


def test_declaration_without_plan(fleet):
    vms = ["VM1", {"name": "VM2", "vbdf": "00:05.0"}]
    declared = [{"name": "a", "provided_by": "device_model", "size": 2, "vms": vms}]
    assert [step["device"]["bdf"] for step in _verify.begin(declared, "VM2", "h")] == ["00:05.0"]
    assert [step["device"]["bdf"] for step in _verify.begin(declared, "VM1", "h")] == [None]
    assert [step["label"]["vm_id"] for step in _verify.begin(["hv:/a, 2, 0:2"], 2, "h")] == [2, 2]
    assert _verify.begin(["hv:/a, 2, 0:2"], 1, "h") == []


def bind(fleet, boots):
    """What the roles scenario and guest leave; ``boots`` are the guests' boot IDs."""
    for host, regions in fleet.hosts.items():
        fleet.vars[host] = {"scenario_plan": {"regions": regions}}
    for guest, kernel in fleet.kernels.items():
        if boots.get(guest):
            kernel.put(_pci.BOOT_ID, boots[guest] + "\n")
        fleet.vars[guest]["guest_result"] = {"changed": False, **_pci.proof(kernel)}


def keep(fleet):
    guests = list(fleet.kernels)
    for guest, kernel in fleet.kernels.items():
        proof = _verify.proof(fleet.vars, fleet.vars[guest]["acrn_host"], guests)
        if proof:
            _probe.keep_proof(kernel, proof)


@pytest.fixture
def proved(fleet):
    """A fleet whose regions have been proved, with the boots of its guests."""
    boots = {guest: f"boot of {guest}" for guest in fleet.kernels}
    bind(fleet, boots)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == list(fleet.kernels)
    assert fleet.prove()["ok"]
    keep(fleet)
    bind(fleet, boots)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == []
    return boots


def of(fleet, host):
    return [guest for guest in fleet.kernels if guest.startswith(host)]


def test_one_boot_ends_the_proof_of_its_host_alone(fleet, proved):
    # /run is emptied at a boot.
    fleet.kernels["h1-VM2"].remove(_pci.PROOF)
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
    path = kernel.path(f"{_pci.SYSFS}/devices/0000:00:06.0/resource2")
    os.unlink(path)
    with open(path, "wb") as handle:
        handle.write(bytes(SIZE))
    assert not fleet.prove()["ok"]
    bind(fleet, proved)
    assert _verify.unproved(fleet.vars, of(fleet, "h2")) == of(fleet, "h2")


def test_without_all_boots_nothing_is_kept(fleet):
    bind(fleet, {"h1-VM1": "a"})
    assert _verify.proof(fleet.vars, "h1", list(fleet.kernels)) == ""
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == list(fleet.kernels)


def test_a_look_keeps_the_proof(fleet, proved):
    assert fleet.prove(read_only=True)["ok"]
    bind(fleet, proved)
    assert _verify.unproved(fleet.vars, list(fleet.kernels)) == []
