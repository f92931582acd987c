# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.acrn.ivshmem.plugins.filter.waiting import waiting
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _waiting

VMS = [
    {"id": 0, "name": "RT", "load_order": "pre_launched"},
    {"id": 1, "name": "SOS", "load_order": "service"},
    {"id": 2, "name": "VM1", "load_order": "post_launched"},
    {"id": 3, "name": "VM2", "load_order": "post_launched"},
    {"id": 4, "name": "VM3", "load_order": "post_launched"},  # no region, so nothing waits for it
]
REGIONS = [
    {"name": "a", "provided_by": "hypervisor", "size": 2, "vms": [VMS[0], VMS[2]]},
    {"name": "b", "provided_by": "device_model", "size": 4, "vms": [VMS[2], VMS[3]]},
]
GUESTS = [
    {"inventory_hostname": "g-rt", "acrn_vm": "RT"},
    {"inventory_hostname": "g-1", "acrn_vm": 2},
    {"inventory_hostname": "g-2", "acrn_vm": "VM2"},
]
BUILD = {"builder": "one", "directory": "/k1", "key": "k1", "missing": False}
RUNS = [{"name": "VM1"}, {"name": "VM2"}]


def look(running="k1", installed=("k1",), lacking=(), missing=(), **more):
    """What launch_state has found on a Service VM; by default all is as it should be."""
    found = {"running_key": running, "installed": list(installed), "known": running is not None, "unsure": []}
    found.update(lacking=list(lacking), missing=list(missing or lacking))
    return {
        "waits": bool(lacking),
        "hypervisor": found,
        "launched": ["VM1", "VM2"],
        "vms": RUNS,
        "others": [{"name": "VM3", "fits": None}],
        **more,
    }


def waits(build=True, builders=("one",), looked=None, **values):
    host = {
        "inventory_hostname": "line-1",
        "scenario_plan": {"vms": VMS, "regions": REGIONS, "start": []},
        "scenario_build_inputs": {"digest": 1},
        "__launch_compared": look() if looked is None else looked,
        **values,
    }
    return _waiting.Host(host, lambda: GUESTS, BUILD if build is True else build, builders).waits()


def told(*args, **values):
    return [(wait.vm, wait.state, wait.end, wait.guests) for wait in waits(*args, **values)]


ALL = ("g-rt", "g-1", "g-2")


def test_nobody_waits_where_all_is_as_planned():
    assert told() == []
    assert _waiting.table([]) == []
    # A host without a plan has failed, or is not in this run.
    assert told(scenario_plan=None) == []


OLD = look("k0", ["k0"], ["hv:/a"])
TOLD = look("k0", ["k0"])
TOLD["hypervisor"]["told"] = True


@pytest.mark.parametrize(
    ("values", "state", "end", "guests"),
    [
        ({"looked": OLD}, "built", "-e hypervisor_install=true", ALL),
        ({"looked": OLD, "hypervisor_install": "no"}, "built", "-e hypervisor_install=true", ALL),
        # By an earlier run, or by hand.
        (
            {"looked": look("k0", ["k0", "k1"], ["hv:/a"])},
            "installed",
            "-e hypervisor_install=true -e hypervisor_reboot=true",
            ALL,
        ),
        (
            {"looked": OLD, "hypervisor_install": True, "hypervisor_install_result": {"reboot_needed": True}},
            "installed",
            "-e hypervisor_reboot=true",
            ALL,
        ),
        # A plan, in which nothing is installed.
        ({"looked": OLD, "hypervisor_install": "true"}, "installed", "-e hypervisor_reboot=true", ALL),
        ({"looked": OLD, "build": None}, "not_built", "a run with the phase build", ALL),
        (
            {"looked": OLD, "build": None, "scenario_build_inputs": {}},
            "elsewhere",
            "acrn_source, to build it; once it runs: -e launch_hypervisor_manifest=",
            ALL,
        ),
        # It runs by its key, and its manifest has gone.
        ({"looked": look(lacking=["hv:/a"])}, "unknown", "-e launch_hypervisor_manifest=", ALL),
        # Other inputs of the build have changed: what launch scripts need is there.
        ({"looked": look("k0", ["k0"])}, "built", "-e hypervisor_install=true", ("g-rt",)),
        # Nobody was asked.
        ({"looked": {"unreachable": True}}, "built", "-e hypervisor_install=true", ("g-rt",)),
    ],
)
def test_a_host_that_waits_for_its_hypervisor(values, state, end, guests):
    found = [wait for wait in told(**values) if wait[0] == ""]
    assert found == [("", state, end, guests)]


@pytest.mark.parametrize(
    "values",
    [
        {"looked": OLD, "hypervisor_install": True, "hypervisor_reboot": True},  # a plan
        {"hypervisor_install_result": {"reboot_needed": False}},
        {"build": {**BUILD, "key": "other"}, "hypervisor_install_result": {"reboot_needed": False}},
        {"build": None},  # a run of other phases, where nothing is missing
        {"build": None, "scenario_build_inputs": {}, "looked": look(None, [])},
        {"looked": TOLD},  # that the hypervisor has all of them
        # The same of a host on which nothing is launched, so that it was not compared.
        {
            "looked": {},
            "build": None,
            "scenario_build_inputs": {},
            "launch_hypervisor_manifest": "",
            "launch_vms": RUNS,
            "plan_hypervisor": {"running_key": None, "builds": []},
        },
    ],
)
def test_a_host_that_does_not_wait(values):
    assert told(**values) == []


def test_what_depends_on_a_host_that_waits_is_not_told_again():
    outdated = {"launch_outdated": ["VM1"], "looked": look("k0", ["k0"], ["hv:/a"], vms=[])}
    assert [wait[:2] for wait in told(**outdated)] == [("", "built")]


def test_vms_that_wait():
    outdated = {"launch_outdated": ["VM1", "VM2"], "launch_restarted": [], "launch_just_started": []}
    assert told(**outdated) == [
        ("VM1", "outdated", "-e launch_restart=true", ("g-1",)),
        ("VM2", "outdated", "-e launch_restart=true", ("g-2",)),
    ]
    # Its guest has the devices that it is to have, whatever else is new in the script.
    fits = look(vms=[{"name": "VM1", "fits": True}, {"name": "VM2", "fits": False}])
    assert [(wait[0], wait[-1]) for wait in told(**outdated, looked=fits)] == [("VM1", ()), ("VM2", ("g-2",))]
    assert told(**{**outdated, "launch_restarted": ["VM1", "VM2"]}) == []
    for start in ("nobody", "no_systemd"):
        by_hand = told(**outdated, looked={**look(), "start": start})
        assert by_hand[0] == ("VM1", "outdated", "stop it and start it by hand", ("g-1",))
    unsure = look()
    unsure["hypervisor"]["unsure"] = ["VM1"]
    assert told(**outdated, looked=unsure, launch_restart="yes")[0][2].endswith("-e launch_hypervisor_manifest=")

    stopped = look(vms=RUNS[1:])
    assert told(looked=stopped) == [("VM1", "stopped", "-e launch_started=true", ("g-1",))]
    assert told(looked=stopped, launch_just_started=["VM1"]) == []
    for start, end in (
        ("nobody", "start it by its script"),
        ("no_systemd", "start it by its script; there is no systemd for launch_units"),
        ("no_acrn", "boot ACRN, then -e launch_started=true"),
        ("commands", "-e launch_started=true"),
    ):
        assert told(looked={**stopped, "start": start})[0][2] == end


@pytest.mark.parametrize(
    ("fits", "what"), [(True, None), (False, "runs without its regions"), (None, "nothing launches it")]
)
def test_a_vm_that_others_launch(fits, what):
    found = waits(looked=look(launched=["VM1"], others=[{"name": "VM2", "fits": fits}, {"name": "VM3", "fits": None}]))
    assert [(wait.vm, wait.state, wait.what, wait.guests) for wait in found] == (
        [("VM2", "unlaunched", what, ("g-2",))] if what else []
    )


def test_a_vm_that_nobody_has_seen_is_told_where_no_guest_tells():
    unseen = {"build": None, "scenario_build_inputs": {}, "looked": {"skipped": True}}
    values = {"scenario_plan": {"vms": VMS, "regions": REGIONS[1:], "start": []}, **unseen}
    assert told(**values) == []
    host = {"inventory_hostname": "line-1", "__launch_compared": {}, **values}
    found = _waiting.Host(host, builders=["one"]).waits()
    assert [(wait.vm, wait.state) for wait in found] == [("VM1", "unlaunched"), ("VM2", "unlaunched")]


def test_a_report_knows_what_runs_and_no_builder():
    def report(**info):
        return [(wait.state, wait.what) for wait in waits(None, None, {}, report_hypervisor=info, launch_vms=RUNS)]

    builds = [{"key": "k0", "regions": [{"name": "hv:/a", "size": 2}]}, {"key": "k1", "regions": []}]
    assert report() == []
    assert report(running_key="k0", builds=builds, reboot_needed=False) == []
    assert report(running_key="k1", builds=builds, reboot_needed=False) == [("elsewhere", "what runs has not hv:/a")]
    assert report(running_key="k1", builds=builds, reboot_needed=True) == [("installed", "installed, not rebooted")]


def test_who_was_lost_on_the_way_is_told_as_that_alone():
    host = {
        "inventory_hostname": "h1",
        "scenario_plan": {"regions": REGIONS, "vms": VMS},
        "__launch_compared": look("k0", missing=["hv:/a"]),
    }
    groups = {"acrn_hosts": ["h1"], "acrn_guests": ["g-1"], "acrn_builders": ["one"]}
    hostvars = {"h1": host, "g-1": {"inventory_hostname": "g-1", "acrn_host": "h1", "acrn_vm": "VM1"}, "one": {}}
    assert waiting(groups, hostvars)["waits"]
    assert waiting(groups, hostvars, ["h1", "g-1"])["table"] == [
        "NEXT STEPS",
        "WHO               WAITS               WHAT ENDS IT",
        "h1, g-1           not done, see its   a run again, once that is",
        "                  error above         mended",
        "More: docs/waiting.md #lost",
    ]


def test_who_is_not_done_for_the_sake_of_the_lost_is_told():
    """Of an installation that was not begun nothing is said that only its end could tell."""
    groups = {"acrn_hosts": ["h1", "h2", "h3"], "acrn_builders": ["one"]}
    allowed = {"scenario_plan": {"regions": REGIONS, "vms": VMS}, "hypervisor_install": True}
    hostvars = {name: {"inventory_hostname": name, **allowed} for name in groups["acrn_hosts"]}
    hostvars["h2"]["hypervisor_install_result"] = {"outcome": "waiting", "reboot_needed": True, "key": "k1"}
    found = waiting(groups, {**hostvars, "one": {}}, ["h1"], groups["acrn_hosts"])["waits"]
    assert [(each["host"], each["state"], each["what"]) for each in found if not each["vm"]] == [
        ("h1", "lost", "not done, see its error above"),
        ("h2", "installed", "installed, not rebooted"),
        ("h3", "lost", "not done, the run has stopped before it"),
    ]
    # A host that a play has rescued says so itself.
    hostvars["h1"]["__acrn_lost"] = True
    assert waiting(groups, {**hostvars, "one": {}}, [], groups["acrn_hosts"])["waits"] == found


def test_vms_that_come_as_text_are_listed_all_the_same():
    """As ``-e launch_vms=[...]`` has them, where no Service VM is asked."""
    host = {"inventory_hostname": "h1", "scenario_plan": {"regions": REGIONS, "vms": VMS}}
    as_list = _waiting.Host({**host, "launch_vms": [{"name": "VM1"}]}, builders=["one"]).waits()
    assert _waiting.Host({**host, "launch_vms": '[{"name": "VM1"}]'}, builders=["one"]).waits() == as_list
    assert [wait.vm for wait in as_list] != [wait.vm for wait in _waiting.Host(host, builders=["one"]).waits()]


# -- the table ---------------------------------------------------------------------------------------------------------


def wait(host, vm="", state="built", what="built, not installed", end="-e hypervisor_install=true"):
    return {"host": host, "vm": vm, "state": state, "what": what, "end": end, "guests": []}


def test_the_table_puts_who_is_alike_together_in_the_order_of_the_steps():
    restart = ("outdated", "runs the old script", "-e launch_restart=true")
    phase = ("not_built", "not built in this run", "a run with the phase build")
    found = _waiting.table(
        [
            wait("line-4", "VM1", *restart),
            wait("line-4", "VM2", *restart),
            wait("line-1"),
            wait("line-2"),
            wait("line-3", "", *phase),
            wait("line-5", "", *phase),
        ]
    )
    assert found == [
        "NEXT STEPS",
        "WHO               WAITS               WHAT ENDS IT",
        "line-3, line-5    not built in this   a run with the phase build",
        "                  run",
        "line-1, line-2    built, not          -e hypervisor_install=true",
        "                  installed",
        "line-4 VM1 VM2    runs the old        -e launch_restart=true",
        "                  script",
        "More: docs/waiting.md #not_built, #built, #outdated",
    ]


@pytest.mark.parametrize("host", ["line-1", "press-line-1.plant.example.com"])
def test_an_option_stays_with_its_value(host):
    end = "a word; another: -e hypervisor_install=true -e hypervisor_reboot=true"
    lines = _waiting.table([wait(host, end=end)])
    found = [
        option for option in ("-e hypervisor_install=true", "-e hypervisor_reboot=true") if option in "|".join(lines)
    ]
    assert len(found) == 2


@pytest.mark.parametrize("name", ["line-{}", "press-line-{}.plant.example.com"])
def test_the_table_fits_a_terminal_of_80_columns(name):
    names = [name.format(number) for number in range(60)]
    lines = _waiting.table([wait(each) for each in names])
    assert all(len(line) <= 80 for line in json.dumps(lines, indent=8).splitlines())
    text = " ".join(lines)
    assert "-e hypervisor_install=true" in text
    assert [each in text for each in (names[23], names[24])] == [True, False]
    assert "36 more" in text
