# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook report: what it writes, of which hosts, and what it refuses."""

from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT, command
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

DECLARED = [{"name": "log", "provided_by": "device_model", "size": 2, "vms": ["POST2", "POST3"]}]


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """Two hosts, the second of which has no scenario file."""
    monkeypatch.setenv("PWD", str(tmp_path))
    (tmp_path / "good.xml").write_text(scenarios.scenario("v3", scenarios.block_v3()))
    hosts = {name: {"acrn_scenario": f"{scenario}.xml"} for name, scenario in (("m1", "good"), ("m2", "none"))}
    common = {"acrn_version": "3.3", "ivshmem_regions": DECLARED, "report_ask": False}
    inventory = {"acrn_hosts": {"hosts": hosts, "vars": common}}
    (tmp_path / "fleet.yml").write_text(yaml.safe_dump(inventory))
    return tmp_path


def report(folder, *options):
    return command(folder, "ansible-playbook", "-i", "fleet.yml", str(ROOT / "playbooks/report.yml"), *options)


def written(folder):
    return [(folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]


def test_all_hosts_are_shown_and_nothing_is_applied(fleet):
    done = report(fleet)
    assert done.returncode == 0, done.stdout
    page, text = written(fleet)
    assert "2 machines, 1 region. Machines: 1 not as declared, 1 not applied yet." in page
    assert "There is no proof yet" in page
    assert "## Without a plan\n\n- m2: " in text
    assert not (fleet / ".acrn-ivshmem").exists()


@pytest.mark.parametrize("limit", ["m1", "m1,localhost"])
def test_a_part_of_the_fleet(fleet, limit):
    done = report(fleet, "--limit", limit, "-e", "report_directory=.")
    assert done.returncode == 0, done.stdout
    for text in written(fleet):
        assert "1 machine, 1 region." in text
        assert "1 host not in this run: m2." in text
        assert "No region is declared" not in text


def test_a_proof_is_read_from_the_current_directory(fleet):
    (fleet / "verify.json").write_text(json.dumps({"ok": False, "time": "noon", "pairs": [], "problems": []}))
    done = report(fleet, "-e", "verify_json=verify.json")
    assert done.returncode == 0, done.stdout
    assert "The proof of noon failed" in written(fleet)[0]


def test_a_template_of_the_user(fleet):
    own = '{% extends "report.html.j2" %}{% block head %}<h1>Hall 7: {{ page.totals }}</h1>{% endblock %}'
    (fleet / "own.html.j2").write_text(own)
    done = report(fleet, "-e", "report_template=own.html.j2")
    assert done.returncode == 0, done.stdout
    assert "<h1>Hall 7: 2 machines, 1 region. Machines: " in written(fleet)[0]
    done = report(fleet, "-e", "report_template=gone.html.j2")
    assert done.returncode != 0
    assert f"report_template: {fleet}/gone.html.j2: No such file" in " ".join(done.stdout.split())


@pytest.mark.parametrize("content", [None, "no JSON"])
def test_a_proof_that_cannot_be_read_is_refused(fleet, content):
    if content:
        (fleet / "verify.json").write_text(content)
    done = report(fleet, "-e", "verify_json=verify.json")
    words = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert f"{fleet}/verify.json: " in words
    assert "give the file that acrn.ivshmem.verify has written" in words
    assert not (fleet / "report.html").exists()
