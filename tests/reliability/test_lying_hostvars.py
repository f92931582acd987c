# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every filter that reads what hosts have answered, with answers that are twisted and went through the door.

A filter runs for all hosts at once: it has to answer, or to fail by the project's own error, and what an honest host
said must come out as it does beside honest hosts. Text of a host stays text, whatever it looks like.
"""

from __future__ import annotations

import functools
import json
import sys

import pytest

hypothesis = pytest.importorskip("hypothesis")

from ansible.errors import AnsibleError  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.template import Templar  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from ansible_collections.acrn.ivshmem.plugins.filter import launch, plan, regions, report, verify  # noqa: E402
from ansible_collections.acrn.ivshmem.plugins.modules import (  # noqa: E402
    dm_memory,
    guest_device,
    guest_probe,
    hypervisor_build,
    hypervisor_info,
    launch_info,
    launch_state,
)
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door, _verify  # noqa: E402
from ansible_collections.acrn.ivshmem.tests.integration_acrn import controller  # noqa: E402
from ansible_collections.acrn.ivshmem.tests.reliability import figures  # noqa: E402
from ansible_collections.acrn.ivshmem.tests.reliability.test_fuzz import twists  # noqa: E402

FILTERS = {
    name: function
    for module in (launch, plan, regions, report, verify)
    for name, function in module.FilterModule().filters().items()
}
VMS = [
    {"id": number, "name": f"VM{number}", "load_order": order, "uuid": None}
    for number, order in ((0, "pre_launched"), (2, "post_launched"), (3, "post_launched"))
]


def region(name, provided_by, *ids):
    vms = [{**vm, "vbdf": "00:09.0", "slot": 9} for vm in VMS if vm["id"] in ids]
    return {"name": name, "provided_by": provided_by, "size": 2, "region_id": None, "reserved": None, "vms": vms}


LEDGER, GOSSIP = region("ledger", "hypervisor", 0, 3), region("gossip", "device_model", 2, 3)
GROUPS = {"acrn_hosts": ["h1"], "acrn_builders": ["builder"]}
PLAN = {
    "acrn_version": "3.3",
    "dialect": "v3",
    "scenario": "line.xml",
    "changed": True,
    "vms": VMS,
    "regions": [LEDGER, GOSSIP],
    "before": [LEDGER],
}
# What is honest, by the variable that a role keeps it in, with the module that says it.
DEVICE = {"name": "dm:/gossip", "size": 2, "slot": 9, "region_id": None, "line": 3}
ANSWERS = {
    "guest_result": (
        guest_device,
        {
            "changed": False,
            "devices": [{"name": "gossip", "bdf": "00:09.0"}],
            "boot_id": "a",
            "proof": "b",
            "actions": [],
        },
    ),
    "__verify_service": (
        dm_memory,
        {
            "changed": False,
            **{name: [] for name in ("removed", "held", "others", "vms")},
            "memory": [
                {"name": "gossip", "path": "/dev/shm/gossip", "held_by": [{"pid": 1, "command": "a b", "vm": None}]}
            ],
        },
    ),
    "plan_hypervisor": (
        hypervisor_info,
        {
            "changed": False,
            **dict.fromkeys(_door.Contract(hypervisor_info.RETURN).keys),
            "running_key": "a" * 16,
            "builds": [],
        },
    ),
    "plan_launch": (
        launch_state,
        {
            "changed": True,
            "same": False,
            "differences": ["/a.sh: has other content"],
            "changes": [
                {"change": "move", "region": "dm:/gossip", "vm": "VM2", "old": 5, "new": 9, "path": None},
                {
                    "change": "drop",
                    "region": "dm:/gossip",
                    "vm": None,
                    "old": 1 << 20,
                    "new": None,
                    "path": "/dev/shm/a",
                },
            ],
            "vms": [{"name": "VM2", "pid": 3}],
        },
    ),
    "hypervisor_build_results": (
        hypervisor_build,
        {
            "changed": True,
            **dict.fromkeys(_door.Contract(hypervisor_build.RETURN).keys),
            **{"key": "a" * 16, "directory": "/b/a", "built": True, "manifest": {"key": "a" * 16}, "regions": []},
        },
    ),
    "found": (
        launch_info,
        {
            "changed": False,
            "scripts": [
                {
                    "path": "/a.sh",
                    "problems": [],
                    "vms": [{"name": "VM2", "uuid": None, "line": 1, "devices": [DEVICE]}],
                }
            ],
            "units": [],
            "running": [{"name": "VM2", "pid": 1, "devices": [DEVICE]}],
            "installed": {"path": "/b", "regions": [LEDGER]},
            **{
                "memory": [],
                "cmdline": "quiet acrn_ivshmem.entry=a",
                "acrn": True,
                "unit": True,
                "missing": ["/root"],
                "problems": ["/a.sh: odd"],
            },
        },
    ),
}
STEPS = {
    "look": {"idle": True, "users": [], "vectors": None, "iv_position": None, "pending": 0},
    "hash": {"sums": ["0" * 32], "used": [0]},
    "arm": {"receivable": True, "vectors": 8, "reason": None},
    "collect": {"counts": [1] * 8},
    "restore": {"windows": 1, "restored": 1, "left": 0, "lost": 0},
    "ring": {},
}
LIAR, HONEST = "h1-vm2", ("h1-vm0", "h1-vm3")


def admitted(module, answer, spread=None):
    """A result as it is registered: what the door lets in, or that it did not."""
    try:
        return _door.Contract(module.RETURN, **(spread or {})).admit(answer)
    except _door.Refused as exc:
        return {"failed": True, "changed": False, "msg": exc.message}


def told(step):
    """What an honest guest answers to a step."""
    result = {"operation": step["operation"], "problems": [], "skipped": False, **STEPS.get(step["operation"], {})}
    if step["operation"] == "write":
        result.update(written=step["length"], users=[])
    if step["operation"] == "read":
        result.update(same=step["length"])
    return result


def fleet_variables(lies):
    """Variables of all hosts where the answers in ``lies`` stand for those of the liars."""
    known = {name: admitted(module, lies.get(name, answer)) for name, (module, answer) in ANSWERS.items()}
    host = {
        **{"inventory_hostname": "h1", "scenario_plan": PLAN, "scenario_build_inputs": {"board": "b", "scenario": "s"}},
        **{name: known[name] for name in ("plan_hypervisor", "plan_launch")},
        "report_hypervisor": known["plan_hypervisor"],
        # Lists that the role launch makes of answers.
        **{
            name: [each.get("name") for each in known["plan_launch"].get("vms") or [] if isinstance(each, dict)]
            for name in ("launch_just_started", "launch_restarted", "launch_outdated")
        },
    }
    results = [{**known["hypervisor_build_results"], "hosts": ["h1"], "item": 0}]
    found = {"h1": host, "builder": {"inventory_hostname": "builder", "hypervisor_build_results": results}}
    for vm in VMS:
        name = f"h1-vm{vm['id']}"
        honest = admitted(*ANSWERS["guest_result"])
        found[name] = {
            **{"inventory_hostname": name, "acrn_host": "h1", "acrn_vm": vm["name"]},
            "guest_result": known["guest_result"] if name == LIAR else honest,
            "__verify_claim": FILTERS["probe_claim"](PLAN["regions"], vm["name"], "h1", VMS),
        }
    found[LIAR]["__verify_service"] = known["__verify_service"]
    return found, known


def proved(found, lie):
    """The report of a proof in which ``lie(STAGE, RESULTS)`` answers for the liar."""
    guests = [LIAR, *HONEST]
    fleet = FILTERS["probe_fleet"](found, guests, ["h1"], write="true")
    # Windows are made of it; two proofs shall be alike.
    fleet["nonce"] = "0" * 64
    for stage in _verify.STAGES:
        for guest in guests:
            steps = FILTERS["probe_steps"](fleet, found, guest, stage)
            answer = {"changed": False, "boot_id": "a", "results": [told(step) for step in steps]}
            if guest == LIAR:
                answer = lie(stage, answer)
            found[guest][_verify.variable(stage)] = admitted(guest_probe, answer)
    return FILTERS["probe_report"](fleet, found)


def of_the_ledger(value):
    return [
        row
        for part in ("regions", "pairs", "doorbells", "problems")
        for row in value[part]
        if "ledger" in row["region"]
    ]


def every_filter(found, known, value):
    """Calls each filter that reads what hosts said. Yields name and outcome."""
    hosts = [found["h1"]]
    calls = {
        "proof": (found, value, "h1", [LIAR, *HONEST]),
        "probed": ([LIAR, *HONEST], found),
        "unproved": ([LIAR, *HONEST], found),
        "just_started": ([LIAR, *HONEST], found),
        "probe_junit": (value,),
        "probe_prometheus": (value,),
        "plan_fleet": (GROUPS, found),
        "report_page": (hosts, value, "noon", "", ""),
        "report_markdown": (hosts, "noon"),
        "places_in_use": (known["found"],),
        "adopted": (known["found"], {**PLAN, "regions": [LEDGER]}),
        "distinct_builds": (hosts,),
    }
    for name, arguments in calls.items():
        try:
            outcome = FILTERS[name](*arguments)
            json.dumps(outcome)
            if name == "plan_fleet":
                name, outcome = "plan_table", FILTERS["plan_table"](outcome)
        except AnsibleError as exc:
            outcome = exc
        yield name, outcome


def samples():
    return {name: json.dumps(answer).encode() for name, (_module, answer) in ANSWERS.items()}


def test_answers_that_are_twisted(long):
    survived = [0]
    base = of_the_ledger(proved(fleet_variables({})[0], lambda _stage, answer: answer))
    assert len(base) >= 3
    for name, outcome in every_filter(
        *fleet_variables({}), proved(fleet_variables({})[0], lambda _stage, answer: answer)
    ):
        assert not isinstance(outcome, Exception), (name, outcome)

    @hypothesis.settings(database=None, deadline=None, max_examples=1000 if long else 60)
    @hypothesis.given(st.data())
    def attack(data):
        lies = {
            name: json.loads(data.draw(twists(sample)))
            for name, sample in samples().items()
            if data.draw(st.booleans())
        }
        found, known = fleet_variables(lies)
        chosen = data.draw(st.sampled_from(_verify.STAGES))

        def lie(stage, answer):
            return json.loads(data.draw(twists(json.dumps(answer).encode()))) if stage == chosen else answer

        value = proved(found, lie)
        assert of_the_ledger(value) == base
        for name, outcome in every_filter(found, known, value):
            if isinstance(outcome, Exception):
                assert name in ("adopted",), f"{name} is read for all hosts at once: {outcome}"
        survived[0] += 1

    wrong = 1
    try:
        attack()
        wrong = 0
    finally:
        figures.add("filters over twisted answers", survived[0] + wrong, survived[0])


def one_stage(chosen, answer, stage, right):
    return answer if stage == chosen else right


@pytest.mark.parametrize("message", ["\n", "\u2028", "\u00a0", "\u2029\nx", "", None, "x" * 100_000])
def test_failures_without_words(message):
    """A failure of which nothing is left on a line is that guest's, as one that says why is."""
    base = of_the_ledger(proved(fleet_variables({})[0], lambda _stage, answer: answer))
    # Where no run was ended, nobody is asked to recover.
    asked = [stage for stage in _verify.STAGES if stage != _verify.RECOVER]
    for stage in asked:
        for failed in ({"failed": True}, {"unreachable": True}, {}):
            answer = {"changed": False, **failed, "msg": message}
            value = proved(fleet_variables({})[0], functools.partial(one_stage, stage, answer))
            assert of_the_ledger(value) == base
            assert any(problem["vm"] == LIAR for problem in value["problems"]), value["problems"]
    figures.add("failures without words", 3 * len(asked), 3 * len(asked))


TEMPLATES = {
    "plan": "{{ groups | acrn.ivshmem.plan_fleet(hosts) }}",
    "table": "{{ groups | acrn.ivshmem.plan_fleet(hosts) | acrn.ivshmem.plan_table }}",
    "places": "{{ found | acrn.ivshmem.places_in_use }}",
    "guest": "{{ guest | acrn.ivshmem.adopted_guest }}",
    "report": "{{ [hosts.h1] | acrn.ivshmem.report_markdown('noon') }}",
    "started": "{{ ['h1-vm2'] | acrn.ivshmem.just_started(hosts) }}",
    "proof": "{{ hosts | acrn.ivshmem.proof({'problems': [], 'kept': ['h1']}, 'h1', ['h1-vm2']) }}",
}


def trusted(text):
    try:
        from ansible.template import trust_as_template
    except ImportError:
        return text
    return trust_as_template(text)


def behind_filters(name, canary):
    """What a play has behind a filter in each of three tasks, when all text of a host is a template that makes a file.

    set_fact keeps what a filter gave, and the next task uses it.
    """
    text = f"{{{{ lookup('pipe', 'touch {canary}') }}}}"

    def said(value):
        if isinstance(value, dict):
            return {key: said(each) for key, each in value.items()}
        if isinstance(value, list):
            return [said(each) for each in value]
        return text if isinstance(value, str) else value

    found, known = fleet_variables({key: said(answer) for key, (_module, answer) in ANSWERS.items()})
    guest = admitted(guest_probe, {"boot_id": "a", "results": [{"operation": f"00:09.0 {text.replace(' ', '')}"}]})
    variables = {"groups": GROUPS, "hosts": found, "found": known["found"], "guest": guest["results"][0]["operation"]}
    seen = []
    for template in (TEMPLATES[name], "{{ kept }}", "{{ kept }}"):
        templar = Templar(loader=DataLoader(), variables=variables)
        variables = {**variables, "kept": templar.template(trusted(template))}
        seen.append(str(variables["kept"]))
    return seen


ASK = """
import json, sys
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
from ansible_collections.acrn.ivshmem.tests.reliability.test_lying_hostvars import behind_filters
print(json.dumps(behind_filters(*sys.argv[1:])))
"""


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_of_a_host_is_no_template_behind_a_filter(name, tmp_path):
    # By Ansible's own loader, which wants to be there first.
    done = controller.command(tmp_path, sys.executable, "-c", ASK, name, str(tmp_path / "ran"))
    assert done.returncode == 0, done.stdout
    seen = json.loads(done.stdout.splitlines()[-1])
    assert not (tmp_path / "ran").exists()
    assert len(set(seen)) == 1, seen
    if name in ("plan", "table", "guest", "places"):
        assert "lookup(" in seen[0], seen
