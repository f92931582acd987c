# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook plan over a fleet of which one host breaks a rule."""

from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import command, sample


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
        return done, {each["host"]: each for each in json.loads((tmp_path / "plan.json").read_text())}

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
