# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of site would do: as values, and as text."""

from __future__ import annotations

import json
import re

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.acrn.ivshmem.plugins.filter import plan as filters
from ansible_collections.acrn.ivshmem.tests.unit.plugins.filter.test_regions import PLAN, region, vm
from ansible_collections.acrn.ivshmem.tests.unit.schemas import holds


def planned(**more):
    return {"inventory_hostname": "press-1", "scenario_plan": PLAN, "scenario_build_inputs": {"digest": 1}, **more}


def plan_of(**more):
    results = [{"directory": "/a/k1", "key": "k1", "manifest": {}, "hosts": ["press-1"]}]
    (found,) = fleet_of(planned(**more), one={"hypervisor_build_results": results})["hosts"]
    return found


def fleet_of(*hosts, guests=(), one=None, **others):
    """The plan of hosts with one builder and the variables of guests."""
    groups = {"acrn_hosts": [host["inventory_hostname"] for host in hosts], "acrn_builders": ["one"]}
    groups.update(acrn_guests=list(guests), all=[*groups["acrn_hosts"], *guests])
    hostvars = {"one": one or {}, **{host["inventory_hostname"]: host for host in hosts}, **others}
    return holds("plan", filters.plan_fleet(groups, hostvars, guests))


def test_the_regions_that_a_run_adds_changes_and_removes():
    gone = region("gone", vm(1, "HMI", 9))
    moved = region("b", vm(1, "HMI", 17), vm(2, "LOG", 8), provided_by="device_model", size=64)
    kept = {**PLAN["regions"][0], "vms": PLAN["regions"][0]["vms"][::-1]}
    plan = {**PLAN, "changed": True, "before": [moved, gone, kept]}
    found = plan_of(scenario_plan=plan)["regions"]
    assert [(each["name"], each["change"]) for each in found] == [("a", "keep"), ("b", "change"), ("gone", "remove")]
    assert [each["change"] for each in plan_of(scenario_plan={**plan, "before": []})["regions"]] == ["add", "add"]
    # No file of ACRN v2.x tells of dm-land.
    found = plan_of(scenario_plan={**plan, "dialect": "v2", "before": []})["regions"]
    assert [each["change"] for each in found] == ["add", None]


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ({"plan_hypervisor": {"running_key": "k1"}}, False),
        ({"plan_hypervisor": {"running_key": "k0"}}, True),
        ({"plan_hypervisor": {"running_key": None}}, True),
        ({"plan_hypervisor": {}}, None),
        ({}, None),
    ],
)
def test_a_reboot_is_needed_where_another_hypervisor_runs(more, needed):
    assert plan_of(**more)["hypervisor"]["reboot_needed"] is needed


@pytest.mark.parametrize(
    ("before", "needed"),
    [
        (PLAN["regions"], None),
        (PLAN["regions"][1:], True),
        ([*PLAN["regions"], region("gone", vm(1, "HMI", 9))], True),
        (PLAN["regions"][:1], None),  # no hypervisor has dm-land regions
    ],
)
def test_other_regions_need_a_reboot_wherever_the_hypervisor_is_built(before, needed):
    host = planned(scenario_plan={**PLAN, "before": before}, scenario_build_inputs={})
    whole = fleet_of(host)
    (plan,) = whole["hosts"]
    assert (plan["build"], plan["hypervisor"]["reboot_needed"]) == (None, needed)
    text = "\n".join(filters.plan_table(whole))
    assert ("built elsewhere" in text, "reboot needed" in text) == (bool(needed), bool(needed))


def test_vms_that_a_run_starts_and_restarts_and_those_that_it_leaves():
    found = plan_of(
        plan_launch={"same": False, "differences": ["d"]},
        launch_outdated=["A", "B"],
        launch_restarted=["A"],
        launch_just_started=["C", "A"],
    )
    assert found["vms"] == {"restarted": ["A"], "started": ["C"], "outdated": ["B"]}
    assert found["differences"] == ["d"]
    assert plan_of()["vms"] is None


def test_of_a_host_that_was_asked_and_launches_nothing_all_is_known():
    asked = {"running_key": None, "builds": []}
    still = {"restarted": [], "started": [], "outdated": []}
    assert plan_of(plan_hypervisor=asked)["vms"] == still
    assert plan_of(plan_hypervisor=asked, launch_vms=[{"name": "PLC"}])["vms"] is None
    assert plan_of(plan_hypervisor=asked, launch_mode="generate")["vms"] is None


def test_a_key_that_is_not_known_is_no_host_that_did_not_answer():
    asked = {"running_key": None, "builds": []}
    host = planned(plan_hypervisor=asked, scenario_plan={**PLAN, "before": []})
    result = {"directory": "", "key": None, "manifest": {}, "hosts": [host["inventory_hostname"]]}
    text = "\n".join(filters.plan_table(fleet_of(host, one={"hypervisor_build_results": [result]})))
    assert "key not known" in text and "did not answer" not in text


def test_a_mistake_of_several_hosts_is_told_once_with_all_of_them():
    hosts = [
        {"inventory_hostname": "a", "scenario_error": "size 3"},
        {"inventory_hostname": "b", "scenario_error": ""},
        {"inventory_hostname": "c", "plan_error": "no script"},
        {"inventory_hostname": "d", "scenario_error": "size 3"},
    ]
    assert filters.told_once(hosts) == ["a, d: size 3", "c: no script"]


def test_a_table_has_a_summary_then_hosts_then_errors_and_a_legend():
    info = {"plan_hypervisor": {"running_key": "k0"}, "hypervisor_install": True, "hypervisor_reboot": True}
    vms = {"plan_launch": {"same": False}, "launch_outdated": ["HMI"], "launch_restarted": ["HMI"]}
    empty = {"acrn_version": None, "scenario": "b.xml", "regions": []}
    before = [{**PLAN["regions"][0], "size": 4}, region("gone", vm(0, "RT", 9))]
    whole = fleet_of(
        planned(**info, **vms, scenario_plan={**PLAN, "scenario": "a.xml", "before": before}),
        {"inventory_hostname": "b", "scenario_plan": empty, "plan_error": "no\n  such script"},
        {"inventory_hostname": "c", "plan_error": "no such file"},
        {"inventory_hostname": "d", "plan_error": "no such file"},
        {"inventory_hostname": "not-planned"},
        one={"hypervisor_build_results": [{"directory": "/a/k1", "key": "k1", "hosts": ["press-1"]}]},
        guests=["g1"],
        g1={"acrn_host": "press-1", "acrn_vm": "HMU"},
    )
    lines = filters.plan_table(whole)
    assert lines[: lines.index("LEGEND")] == [
        "4 hosts: 1 region to add, 1 region to change, 1 region to remove, 1",
        "hypervisor to build, 1 reboot, 1 VM to restart, 3 errors",
        "",
        "press-1 (ACRN 3.3):",
        "  ~  hv:/a     2 MB   ID 4096  RT by build, HMI 8",
        "  +  dm:/b     64 MB           HMI 16, LOG 8",
        "  -  hv:/gone  2 MB            RT 9",
        "    hypervisor: to build (k1), reboot by this run",
        "    VMs: restart HMI",
        "",
        "b:",
        "    no regions",
        "    hypervisor: not built here",
        "    VMs: not known",
        "    error, told below",
        "",
        "c, d:",
        "    no plan",
        "    error, told below",
        "",
        "ERRORS",
        "b:",
        "  no",
        "  such script",
        "c, d:",
        "  no such file",
        "guest g1:",
        "  acrn_vm is 'HMU', which the scenario has not; its VMs: RT (ID 0),",
        "  HMI (ID 1), LOG (ID 2)",
        "",
    ]
    assert [line.split()[0] for line in lines[lines.index("LEGEND") + 1 :]] == ["+", "-", "~", "by", "not"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", whole["made"])
    assert whole["summary"]["errors"] == len(whole["errors"]) == 3


def test_hosts_that_are_alike_are_together():
    hosts = [planned(inventory_hostname=f"line-{number}") for number in range(60)]
    lines = filters.plan_table(fleet_of(*hosts))
    assert len(lines) < 20
    assert "and 36 more (ACRN 3.3):" in " ".join(lines)
    # What happens to files is told once as well, whatever the directory of a host is called.
    for host in hosts:
        path = f"/r/{host['inventory_hostname']}/s.xml"
        host["scenario_difference"] = {"before": "a\n", "after": "b\n", "before_header": path, "after_header": path}
    assert filters.plan_differences(fleet_of(*hosts))[-5:] == [
        "--- /r/HOST/s.xml",
        "+++ /r/HOST/s.xml",
        "@@ -1 +1 @@",
        "-a",
        "+b",
    ]
    # One by itself is called by its name.
    assert filters.plan_differences(fleet_of(hosts[7]))[:3] == ["line-7:", "--- /r/line-7/s.xml", "+++ /r/line-7/s.xml"]


def test_nothing_to_do_is_said():
    assert filters.plan_table(fleet_of(planned(scenario_plan={**PLAN, "before": PLAN["regions"]})))[0] == (
        "1 host: nothing to do"
    )


def test_a_script_that_changes_where_no_region_does_is_something_to_do():
    """Up to v2.x a dm-land region is in launch scripts alone."""
    brought = {
        "scripts": [{"path": "/opt/HMI.sh", "changed": True}, {"path": "/opt/PLC.sh", "changed": False}],
        "written": ["/etc/systemd/system/acrn-vm@.service"],
    }
    host = planned(scenario_plan={**PLAN, "before": PLAN["regions"]}, plan_differences=[brought])
    assert fleet_of(host)["hosts"][0]["writes"] == ["/opt/HMI.sh", "/etc/systemd/system/acrn-vm@.service"]
    assert filters.plan_table(fleet_of(host))[0] == "1 host: 2 files to write"


def test_a_variable_that_means_nothing_is_an_error_of_its_host():
    whole = fleet_of(planned(), planned(inventory_hostname="b", hypervisor_reboot="maybe"))
    assert [each["error"] and each["error"].partition(": ")[2] for each in whole["hosts"]] == [
        None,
        "hypervisor_reboot is 'maybe': write true or false",
    ]


def test_a_build_that_fails_is_an_error_of_its_hosts():
    results = [
        {"item": 0, "hosts": ["press-1"], "failed": True, "msg": "no gcc"},
        {"item": 1, "hosts": ["b"], "unreachable": True, "msg": "refused\n"},
    ]
    whole = fleet_of(planned(), planned(inventory_hostname="b"), one={"hypervisor_build_results": results})
    assert whole["errors"] == [
        {"who": ["press-1"], "error": "builder one: no gcc"},
        {"who": ["b"], "error": "builder one: cannot be reached: refused"},
    ]
    assert whole["summary"]["build"] == 0


def test_a_host_that_was_not_asked_says_why():
    whole = fleet_of(planned(plan_unasked="/opt/nopython: not\nfound", scenario_plan={**PLAN, "scenario": "s.xml"}))
    assert whole["hosts"][0]["unasked"] == "/opt/nopython: not\nfound"
    assert "    not known what runs: /opt/nopython: not found" in filters.plan_table(whole)


def test_plan_table_says_what_scripts_and_memory_lose():
    def change(what, name, vm, old, new, **more):
        return {"change": what, "region": name, "vm": vm, "old": old, "new": new, **more}

    told = [
        change("remove", "dm:/logs", "VM1", 5, None),
        change("remove", "dm:/logs", "VM2", 5, None),
        change("move", "hv:/plc", "VM1", 4, 30),
        change("resize", "dm:/b", "VM1", 2, 4),
        change("add", "dm:/new", "VM1", None, 9),
        change("drop", "dm:/logs", None, 2 << 20, None, path="/dev/shm/logs"),
        change("drop", "dm:/b", None, 2 << 20, 4 << 20, path="/dev/shm/b"),
        change("drop", "dm:/c", None, 3000, None, path="/dev/shm/c"),
    ]
    found = plan_of(plan_launch={"same": False, "changes": told})
    assert found["changes"] == told
    whole = fleet_of(planned(plan_launch={"same": False, "changes": told}))
    lines = filters.plan_table(whole)
    assert [line for line in lines[: lines.index("LEGEND")] if line.startswith("  !")] == [
        "  ! remove dm:/logs from VM1, VM2",
        "  ! move hv:/plc VM1 slot 4 -> 30",
        "  ! resize dm:/b VM1 2 -> 4 MB",
        "  ! drops 2 MB in /dev/shm/logs",
        "  ! drops 2 MB in /dev/shm/b, resize to 4 MB: its bytes are lost",
        "  ! drops 3000 bytes in /dev/shm/c",
    ]
    assert "1 device that moves, 3 times memory is lost" in " ".join(lines)


def test_a_table_is_narrow_enough_for_a_terminal():
    frames = region("f" * 27, *(vm(number, f"POST_STD_VM{number}", 8) for number in range(5)), region_id=65535)
    lines = filters.plan_table(fleet_of(planned(scenario_plan={**PLAN, "regions": [frames], "before": []})))
    assert max(map(len, lines)) <= 68
    assert "POST_STD_VM4 8" in "\n".join(lines)


# -- a plan that was approved ------------------------------------------------------------------------------------------

LOOK = {"same": False, "files": {"/opt/HMI.sh": "d1"}, "changes": [], "differences": ["/opt/HMI.sh: is another"]}
BEFORE = {**PLAN, "changed": True, "digest": "s1", "before": PLAN["regions"][1:]}


def moved(now, then=None):
    """Why the one host of a fleet is refused, whose plan was approved with other variables."""
    usual = {"scenario_plan": BEFORE, "plan_launch": LOOK, "plan_hypervisor": {"running_key": "k0"}}
    approved = json.dumps(fleet_of(planned(**usual, **(then or {}))))
    return filters.plan_moved(approved, fleet_of(planned(**{**usual, **now})))["press-1"]


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({}, None),
        ({"scenario_plan": {**BEFORE, "before": []}}, r"other regions: dm:/b \(= then, \+ now\)"),
        ({"scenario_plan": {**BEFORE, "digest": "s2"}}, "the scenario is another"),
        ({"plan_hypervisor": {"running_key": "k1"}}, "another hypervisor runs: k0 then, k1 now"),
        ({"hypervisor_install": True, "hypervisor_reboot": True}, "reboot needed then, .*reboot by this run now"),
        ({"launch_restarted": ["HMI"]}, "other VMs: restart HMI; then as they are"),
        ({"plan_launch": {**LOOK, "files": {"/opt/HMI.sh": "d2"}}}, "other files on the host: /opt/HMI.sh"),
        ({"plan_launch": {**LOOK, "differences": []}}, "what changes in files is something else"),
        ({"plan_launch": {}, "launch_vms": [{"name": "HMI"}]}, "nobody has asked the host"),
        ({"plan_unasked": "Connection refused"}, "cannot be asked: Connection refused"),
        ({"plan_error": "its size is 3 MB"}, "there is an error now: its size is 3 MB"),
    ],
)
def test_a_host_is_refused_where_a_run_would_do_something_else(now, told):
    found = moved(now)
    assert bool(found) is bool(told)
    assert not told or re.search(told, "; ".join(found)), found


def test_a_host_that_nobody_had_asked_is_refused_where_somebody_asks_now():
    assert moved({}, {"plan_unasked": "it did not answer"}) == []
    approved = json.dumps(fleet_of(planned(scenario_plan=BEFORE)))
    now = fleet_of(planned(scenario_plan=BEFORE, plan_launch=LOOK))
    assert filters.plan_moved(approved, now)["press-1"] == [
        "nobody had asked the host",
        "other files on the host: /opt/HMI.sh",
    ]


def test_a_host_that_is_what_the_plan_wanted_is_as_approved():
    done = {"scenario_plan": {**BEFORE, "changed": False, "before": PLAN["regions"]}}
    done["plan_launch"] = {"same": True, "files": {"/opt/HMI.sh": "d2"}}
    assert moved({**done, "plan_hypervisor": {"running_key": "k1"}}) == []
    # The same, and a VM to restart, is not what was approved.
    assert moved({**done, "launch_restarted": ["HMI"]}) != []


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(format=2),
        lambda plan: plan.pop("hosts"),
        lambda plan: plan.update(hosts=[1]),
        lambda plan: plan["hosts"][0].pop("files"),
        lambda plan: plan["hosts"][0].update(regions=[{}]),
        lambda plan: plan["hosts"][0].update(vms=["HMI"]),
        lambda plan: plan["hosts"][0].update(build=7),
    ],
)
def test_what_is_no_plan_is_refused(change):
    plan = fleet_of(planned(plan_launch=LOOK))
    document = json.loads(json.dumps(plan))
    change(document)
    for text in (json.dumps(document), json.dumps(document)[:-9], "[" * 100_000):
        with pytest.raises(AnsibleFilterError, match=r"plan\.json: this is no plan"):
            filters.plan_moved(text, plan, "plan.json")
