# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The short way to a module's result, with Ansible itself and a process of its own."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from ansible_collections.acrn.ivshmem.plugins.action import guest_device, guest_probe, launch_state, scenario_regions
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _act, _binding, _functions, _kernel, _udev
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _light_action
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_shell import tell

EMPTY = {"refused": [], "scripts": [], "files": [], "regions": [], "absent": [], "vms": [], "started": []}
EMPTY_STATE = {
    "apply": False,
    "wish": {
        **EMPTY,
        "acrn_version": None,
        "directory": "/dev/shm",
        "hypervisor": None,
        "others": [],
        "starter": "commands",
        "hsm": [],
    },
}


def run_script(action, params, monkeypatch, magic=None):
    """What the target prints for the script that an action sends."""
    if magic:
        monkeypatch.setattr(_light_action, "MAGIC_NUMBER", magic)
    parts = _light_action.bundle(action.ActionModule.module)
    arguments = _light_action._encoded(json.dumps([params, True, False]).encode())
    script = _light_action._START % (parts, arguments)
    words = [sys.executable, "-S", "-E", "-"]
    done = subprocess.run(words, input=script, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return json.loads(done.stdout.split("\nacrn.ivshmem:")[1])


@pytest.mark.parametrize("magic", [None, b"none"], ids=["byte code", "source"])
def test_the_script_is_all_that_the_target_needs(magic, monkeypatch):
    params = {"steps": [], "proof": None, "strict": True}
    result = run_script(guest_probe, params, monkeypatch, magic)
    assert isinstance(result.pop("boot_id"), str)  # of the machine that the tests run on
    assert result == {"changed": False, "results": []}
    result = run_script(launch_state, EMPTY_STATE, monkeypatch, magic)
    assert isinstance(result.pop("vms"), list)  # those of the machine that the tests run on
    found = result.pop("hypervisor")
    assert (found["known"], found["lacking"], found["missing"]) == (True, [], [])
    quiet = {"changed": False, "same": True, "waits": False, "start": "commands", "files": {}}
    assert result == {**quiet, **{key: [] for key in ("differences", "changes", "launched", "others")}}


def test_a_mistake_of_ours_is_left_to_the_module(monkeypatch):
    answer = run_script(guest_device, {}, monkeypatch)
    assert "KeyError" in answer["heavy"]


@pytest.fixture
def play(tmp_path):
    if not os.path.exists(f"{os.path.dirname(sys.executable)}/ansible-playbook"):
        pytest.skip("needs ansible-playbook beside the Python of the tests")

    def run(task, *words, before=(), connection="local", pipelining=True, **variables):
        """Run a task by ansible-playbook; returns its result and the commands that Ansible started."""
        playbook = [{"hosts": "host", "gather_facts": False, "tasks": [*before, {**task, "register": "result"}]}]
        playbook[0]["tasks"].append({"ansible.builtin.debug": {"msg": "RESULT={{ result | to_json }}="}})
        (tmp_path / "play.json").write_text(json.dumps(playbook))
        values = {"ansible_connection": connection, "ansible_python_interpreter": sys.executable, **variables}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"host": values}}}))
        environment = {
            **os.environ,
            # Without a version manager's wrappers, which interpreter discovery would fall for.
            "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
            "ANSIBLE_PIPELINING": str(pipelining),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_NOCOLOR": "1",
        }
        command = ["ansible-playbook", "-vvv", "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.json"), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        text = done.stdout.split("RESULT=")[-1].split('="')[0]
        return json.loads(json.loads(f'"{text}"')), [line for line in done.stdout.splitlines() if "> EXEC " in line]

    return run


TASK = {"acrn.ivshmem.launch_state": {"wish": {"files": [{"path": "/", "state": "directory"}]}}}


def test_one_command_without_ansible_module(play):
    result, commands = play(TASK)
    assert (result["same"], result["changed"]) == (True, False)
    assert len(commands) == 1
    assert "-S -E -" in commands[0]


@pytest.mark.parametrize(
    "variables",
    [{"pipelining": False}, {"ansible_python_interpreter": "auto_silent"}],
    ids=["no pipelining", "interpreter unknown"],
)
def test_the_long_way_gives_the_same(play, variables):
    result, commands = play(TASK, **variables)
    assert result["same"]
    assert not any("-S -E -" in command for command in commands)


def test_a_path_of_the_targets_home_is_left_to_the_target(play):
    task = {"acrn.ivshmem.guest_probe": {"steps": []}}
    assert "-S -E -" in play(task)[1][0]
    task = {"acrn.ivshmem.scenario_regions": {"path": "~/there/is/no/such.xml", "regions": []}, "ignore_errors": True}
    result, commands = play(task)
    assert "/there/is/no" in result["msg"]
    assert commands


def test_on_the_controller_there_is_no_command_at_all_until_a_file_changes(play, tmp_path):
    path = tmp_path / "line.xml"
    path.write_text(scenarios.scenario("v3"))
    task = {"acrn.ivshmem.scenario_regions": {"path": str(path), "regions": ["hv:/a, 2, 0:2"], "acrn_version": "3.3"}}
    result, commands = play(task)
    assert result["changed"]
    assert commands
    result, commands = play(task)
    assert not result["changed"]
    assert commands == []
    result, commands = play({**task, "environment": {"A": "b"}})
    assert len(commands) == 1


def test_wrong_parameters_are_refused_in_the_modules_words(play):
    task = {"acrn.ivshmem.guest_device": {"driver": "none"}, "ignore_errors": True}
    result, _commands = play(task)
    assert result["msg"].startswith("value of driver must be one of")
    assert scenario_regions.ActionModule.in_process


def test_a_guest_without_python_costs_one_command_where_nothing_changes(play, tmp_path, monkeypatch):
    kernel = FakeKernel(tmp_path / "guest")
    kernel.add("0000:00:06.0")
    tell(kernel)
    monkeypatch.setenv("ACRN_IVSHMEM_ROOT", kernel.root)
    # The real uname is asked.
    release = os.uname().release
    kernel.put(f"/lib/modules/{release}/modules.dep", "x/uio_pci_generic.ko:\n")
    task = {
        "acrn.ivshmem.guest_device": {"devices": [{"name": "a", "bdf": "0:6.0"}], "python": "{{ no }}"},
        "check_mode": True,
        "diff": True,
    }
    variables = {"no": False, "ansible_python_interpreter": "/none"}
    result, commands = play(task, **variables)
    assert result["changed"] and result["actions"][0] == f"replace {_kernel.RULES}"
    assert result["diff"][1]["after"].startswith(_udev.MARKER)
    assert (result["devices"][0]["bdf"], result["devices"][0]["vectors"]) == ("00:06.0", 8)
    assert len(commands) == 1
    wish = _binding.Wish(devices=_functions.parse_devices([{"name": "a", "bdf": "00:06.0"}]))
    state = _binding.observe(kernel, wish)
    _act.apply(kernel, _binding.plan(state, wish), state)
    result, commands = play({**task, "check_mode": False}, **variables)
    assert not result["changed"] and result["devices"][0]["link"] == "/dev/ivshmem/a"
    assert len(commands) == 1
    task["acrn.ivshmem.guest_device"]["devices"] = [{"name": "a", "slot": 16, "bdf": "00:06.0"}]
    result, commands = play({**task, "ignore_errors": True}, **variables)
    assert "slot 16 is 00:10.0, but its vbdf is 00:06.0" in result["msg"] and not commands
    task["acrn.ivshmem.guest_device"]["devices"] = [{"name": "a", "slott": 16}]
    result, commands = play({**task, "ignore_errors": True}, **variables)
    assert "slott" in result["msg"] and not commands


def test_a_builder_that_says_nothing_of_the_release_is_asked_for_its_build(play):
    """Ansible up to 2.18 makes an empty text of what is null, on the way through a template."""
    root = pathlib.Path(__file__).absolute().parents[4]
    inventory = root / "molecule/default/inventory"
    build = {"source": str(root / "tests/standin_tree"), "board": str(inventory / "board.xml")}
    asked = {
        "ansible.builtin.include_role": {"name": "acrn.ivshmem.hypervisor", "tasks_from": "on_builder"},
        "vars": {
            "__hypervisor_builder": "host",
            "__hypervisor_step": "main",
            "__hypervisor_share_builds": [{**build, "scenario": str(inventory / "scenario.xml"), "hosts": ["host"]}],
        },
    }
    result, _calls = play(
        {"ansible.builtin.debug": {"var": "hypervisor_build_results"}},
        "--check",
        before=[asked],
        hypervisor_python=sys.executable,
        hypervisor_artifacts_dir=str(root / "no-such-artifacts"),
        hypervisor_work_dir=str(root / "no-such-work"),
    )
    (found,) = result["hypervisor_build_results"]
    assert re.fullmatch("[0-9a-f]{32}", found["key"])
