# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.modules import scenario_info
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.scenarios import block_v3, region_v3


def execute(capsys, check=False, **params):
    params = {key: str(value) for key, value in params.items()}
    with patch_module_args({**params, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        scenario_info.main()
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "line.xml"
    block = block_v3(region_v3("a", ("SVC", "00:08.0"), ("POST2", "00:09.0"), size=16))
    path.write_text(scenarios.scenario("v3", block))
    (tmp_path / "board.xml").write_text(scenarios.board_xml(["00:08.0"]))
    return path


@pytest.mark.parametrize("check", [False, True])
def test_all_that_is_known(capsys, tmp_path, path, check):
    before = os.stat(str(path)).st_mtime_ns
    result = execute(capsys, check=check, path=path, board_path=tmp_path / "board.xml", acrn_version="3.3")
    assert (result["changed"], os.stat(str(path)).st_mtime_ns) == (False, before)
    assert (result["dialect"], result["acrn_version"]) == ("v3", "3.3")
    assert [vm["name"] for vm in result["vms"]] == ["PRE0", "SVC", "POST2", "POST3"]
    assert [[vm["slot"] for vm in region["vms"]] for region in result["regions"]] == [[8, 9]]
    memory = {
        "limit": 698,
        "used": 16,
        "counts": ["hypervisor"],
        "guess": False,
        "unchecked": None,
        "service_vm": None,
    }
    assert result["memory"] == memory
    assert [(finding["rule"], finding["severity"]) for finding in result["findings"]] == [("vbdf-native", "error")]


def test_version_comes_from_the_tree(capsys, tmp_path, path):
    assert execute(capsys, path=path)["acrn_version"] is None
    (tmp_path / "VERSION").write_text("MAJOR_VERSION=3\nMINOR_VERSION=2\n")
    result = execute(capsys, path=path)
    assert (result["acrn_version"], result["memory"]["limit"]) == ("3.2", 940)


@pytest.mark.parametrize("what", ["nowhere.xml", "board.xml", "."])
def test_what_is_no_scenario_is_told(capsys, tmp_path, path, what):
    result = execute(capsys, path=tmp_path / what)
    assert result["failed"]
    assert str(tmp_path / what) in result["msg"]
    assert "exception" not in result


def test_what_is_no_board_is_told(capsys, path):
    result = execute(capsys, path=path, board_path=path)
    assert result["msg"].startswith(f"{path}: is no board XML")
