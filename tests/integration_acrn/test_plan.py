# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook plan over a fleet of which one host breaks a rule."""

from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import command, sample
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_messages import undefined


@pytest.fixture
def plan(tmp_path):
    common = {**sample(tmp_path), "ivshmem_regions": ["hv:/log, 2, 2:3"]}
    hosts = {"bad": {"ivshmem_host_regions": ["hv:/odd, 3, 2:3"]}, "fine": {}, "last": {}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"acrn_hosts": {"vars": common, "hosts": hosts}}))

    def run(*words):
        (tmp_path / "plan.json").unlink(missing_ok=True)
        words = ("-e", f"plan_json={tmp_path}/plan.json", "-e", "plan_ask=false", *words)
        done = command(tmp_path, "ansible-playbook", "-i", "inventory.yml", "acrn.ivshmem.plan", *words)
        assert not (tmp_path / ".acrn-ivshmem").exists()
        return done, {each["host"]: each for each in json.loads((tmp_path / "plan.json").read_text())["hosts"]}

    return run


def test_a_host_that_breaks_a_rule_is_in_the_plan(plan):
    done, found = plan()
    assert done.returncode == 2, done.stdout
    assert sorted(found) == ["bad", "fine", "last"]
    assert "region 'odd': its size is 3 MB" in found["bad"]["error"]
    assert [found["fine"][name] for name in ("error", "scenario_changed")] == [None, True]
    assert [region["change"] for region in found["fine"]["regions"]] == ["add"]
    assert found["fine"]["hypervisor"]["reboot_needed"] is True


def test_a_plan_for_one_host(plan):
    done, found = plan("--limit", "last")
    assert (done.returncode, list(found)) == (0, ["last"]), done.stdout
    assert "hv:/log" in done.stdout


def test_a_plan_for_hosts_that_all_break_a_rule(plan):
    done, found = plan("--limit", "bad")
    assert (done.returncode, list(found)) == (2, ["bad"]), done.stdout


def test_each_error_is_its_own_and_the_plan_goes_on(tmp_path):
    common = {**sample(tmp_path), "ivshmem_regions": ["hv:/log, 2, 2:3"]}
    (tmp_path / "tree").mkdir()
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_ssh_retries": 0}
    hosts = {
        "fine": {},
        "off": away,
        "needed": {**away, "launch_vms": [{"name": "VM1", "memory": 512}]},
        "word": {"hypervisor_reboot": "maybe"},
        "undefined": {"launch_vms": "{{ nothing.there }}"},
        "no-scenario": {"acrn_scenario": "none.xml"},
        "no-python": {"ansible_python_interpreter": "/nowhere/python", "launch_vms": [{"name": "VM1", "memory": 512}]},
        "built": {"acrn_source": str(tmp_path / "tree")},
    }
    guests = {"g1": {"acrn_host": "fine", "acrn_vm": "VM9"}, "g2": {"acrn_host": "nowhere", "acrn_vm": "VM1"}}
    builder = {**away, "hypervisor_python": "/usr/bin/python3"}
    inventory = {
        "acrn_hosts": {"vars": common, "hosts": hosts},
        "acrn_guests": {"hosts": guests},
        "acrn_builders": {"hosts": {"builder-1": builder}},
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = command(
        tmp_path, "ansible-playbook", "-i", "hosts.yml", "acrn.ivshmem.plan", "-e", "plan_json=plan.json", timeout=600
    )
    assert done.returncode == 2, done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    errors = {who: each["error"] for each in plan["errors"] for who in each["who"]}
    expected = {
        "needed": "it cannot be reached: ",
        "word": "hypervisor_reboot is 'maybe': write true or false",
        "undefined": "launch_vms " + undefined("nothing"),
        "no-scenario": "acrn_scenario: ",
        "no-python": "The Python /nowhere/python was not found. no-python needs a Python: set its variable ",
        "built": "builder builder-1: cannot be reached: ",
        "guest g1": "acrn_vm is 'VM9'",
        "guest g2": "acrn_host is 'nowhere'",
    }
    assert {name: told in errors.get(name, "") for name, told in expected.items()} == dict.fromkeys(expected, True)
    assert set(errors) == set(expected), errors
    found = {each["host"]: each for each in plan["hosts"]}
    assert set(found) == set(hosts)
    assert found["off"]["unasked"] and [region["change"] for region in found["off"]["regions"]] == ["add"]
    assert plan["summary"]["errors"] == len(plan["errors"])
    recap = done.stdout[done.stdout.index("PLAY RECAP") :]
    assert recap.count("changed=0") == len(hosts), recap
    # What changes is shown, though nothing counts as changed.
    assert "+          <NAME>log</NAME>" in done.stdout


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "no variable says which regions this host shall have (ivshmem_regions"),
        ({"ivshmem_regions": None}, "ivshmem_regions is empty (null)"),
        (
            {"ivshmem_regions": ["hv:/log, 2, 2:3"], "ivshmem_host_regions": None},
            "ivshmem_host_regions is empty (null)",
        ),
        ({"ivshmem_regions": []}, None),
    ],
)
def test_regions_go_only_where_somebody_says_so(tmp_path, variables, told):
    common = sample(tmp_path)
    inventory = {"acrn_hosts": {"vars": {**common, "ivshmem_regions": ["hv:/log, 2, 2:3"]}, "hosts": {"line-1": {}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    made = command(tmp_path, "ansible-playbook", "-i", "hosts.yml", "acrn.ivshmem.site", "-e", "plan_ask=false")
    assert made.returncode == 0, made.stdout
    (found,) = (tmp_path / ".acrn-ivshmem/line-1").glob("*.xml")
    before = found.read_bytes()
    inventory["acrn_hosts"]["vars"] = {**common, **variables}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = command(tmp_path, "ansible-playbook", "-i", "hosts.yml", "acrn.ivshmem.site", "-e", "plan_ask=false")
    if told is None:
        assert done.returncode == 0 and found.read_bytes() != before, done.stdout
    else:
        assert done.returncode == 2 and found.read_bytes() == before
        text = " ".join(done.stdout.split())
        assert told in text and "would lose hv:/log" in text


def test_a_word_is_what_it_says_for_an_installation(tmp_path):
    common = {**sample(tmp_path), "ivshmem_regions": ["hv:/log, 2, 2:3"]}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"acrn_hosts": {"vars": common, "hosts": {"line-1": {}}}}))
    for word in ("false", "no", "off", "0"):
        given = ("-e", f"hypervisor_install={word}", "--check")
        done = command(
            tmp_path, "ansible-playbook", "-i", "hosts.yml", "acrn.ivshmem.site", "-e", "plan_ask=false", *given
        )
        assert done.returncode == 0, done.stdout
        assert "Install the hypervisor]" not in done.stdout.replace("PLAY [Install the hypervisor] ", "PLAY "), (
            done.stdout
        )
    given = ("-e", "hypervisor_install=maybe", "--check")
    done = command(tmp_path, "ansible-playbook", "-i", "hosts.yml", "acrn.ivshmem.site", *given)
    assert done.returncode != 0
    assert "hypervisor_install is 'maybe': write true or false" in " ".join(done.stdout.split())


def test_a_name_that_is_nearly_ours_is_told(tmp_path):
    common = {**sample(tmp_path), "ivshmem_regions": ["hv:/log, 2, 2:3"], "launch_restrat": True, "site_name": "hall 3"}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"acrn_hosts": {"vars": common, "hosts": {"line-1": {}}}}))
    given = ("-e", "plan_ask=false", "-e", "hypervisor_instal=true")
    done = command(tmp_path, "ansible-playbook", "-i", "hosts.yml", "acrn.ivshmem.site", "--check", *given)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout
    assert "launch_restrat is no variable of this collection; did you mean launch_restart?" in text
    assert "hypervisor_instal is no variable of this collection; did you mean hypervisor_install?" in text
    assert text.count("did you mean") == 2
