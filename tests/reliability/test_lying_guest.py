# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts whose Python answers what it likes, each with a lie of its own, beside one that is honest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from ansible_collections.acrn.ivshmem.plugins.modules import hypervisor_info
from ansible_collections.acrn.ivshmem.tests.integration_acrn import controller
from ansible_collections.acrn.ivshmem.tests.reliability import figures

# What a terminal obeys: a title, a cleared screen, a colour; as bytes of eight bits too.
SPOKEN = "\x1b]0;foreign\x07\x1b[2J\x9b31m\x08\r"
OBEYED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f]")
PROBE = {"changed": False, "boot_id": "a", "results": []}
INFO = {"changed": False, **dict.fromkeys(yaml.safe_load(hypervisor_info.RETURN))}
LAST = '"x": 1}'
STAYS = ("tagged", "summary", "difference", "deep", "list")


def lies(canary):
    """By name: keys that are added to a right answer, or the text in its place."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": canary}
    keys = {
        "addhost": {"add_host": {"host_name": "localhost", "groups": ["all"], "host_vars": local}, "changed": True},
        "newhost": {"add_host": {"host_name": "foreign", "groups": ["liars"], "host_vars": local}, "changed": True},
        "addgroup": {"add_group": "foreign", "parent_groups": ["all"]},
        "facts": {"ansible_facts": {"foreign": 1, "acrn_vm": "foreign", "verify_json": "foreign"}},
        "interpreter": {
            "ansible_facts": {"discovered_interpreter_python": canary, "ansible_python_interpreter": canary}
        },
        "stats": {"ansible_stats": {"data": {"foreign": 1}}},
        "unreachable": {"unreachable": True},
        "skipped": {"skipped": True},
        "include": {"include": "/etc/passwd", "include_args": {"foreign": 1}},
        "invocation": {"invocation": {"module_args": {"foreign": 1}}},
        "internal": {"_ansible_no_log": True, "_ansible_delegated_vars": local, "_ansible_notify": ["foreign"]},
        "items": {"ansible_loop_var": "foreign", "item": "foreign", "_ansible_item_label": "foreign"},
        "job": {"ansible_job_id": "foreign", "results_file": "foreign"},
        "exception": {"exception": ["foreign"]},
        "template": {"warnings": [f"{{{{ lookup('pipe', '{canary}') }}}}"]},
        "delegated": {"ansible_delegated_vars": local, "_ansible_delegated_vars": {**local, "ansible_host": "foreign"}},
        "included": {"include_variables": local, "ansible_included_var_files": ["/etc/passwd"], "_raw_params": canary},
        "kept": {"ansible_facts": {"foreign": 1}, "_ansible_facts_cacheable": True, "ansible_search_path": ["foreign"]},
        "shown": {
            "_ansible_verbose_always": True,
            "_ansible_verbose_override": True,
            "stdout": SPOKEN,
            "stderr": SPOKEN,
        },
        "tried": {"attempts": 3, "retries": "foreign", "_ansible_retry": True, "_ansible_parsed": False},
        "judged": {"failed_when_result": True, "failed_when_suppressed_exception": "foreign", "skip_reason": "foreign"},
        "loops": {"_ansible_item_result": True, "ansible_loop": {"foreign": 1}, "ansible_index_var": "foreign"},
        "ignored": {"_ansible_ignore_errors": "foreign", "_ansible_ignore_unreachable": True, "add_host": SPOKEN},
        "kept_files": {"_ansible_suppress_tmpdir_delete": True, "_ansible_no_log": "foreign", "add_group": SPOKEN},
        "warning": {"warnings": [SPOKEN], "deprecations": [{"msg": SPOKEN, "version": "9", "collection_name": "a.b"}]},
        "summary": {
            "warnings": [{"__ansible_type": "WarningSummary", "event": {"__ansible_type": "Event", "msg": SPOKEN}}]
        },
        "fields": {
            "running": SPOKEN,
            "default": SPOKEN,
            "msg": SPOKEN,
            "diff": {"before": SPOKEN, "after": "x" + SPOKEN},
        },
        "facts_spoken": {"ansible_facts": {"ansible_connection" + SPOKEN: 1}, "_ansible_x" + SPOKEN: SPOKEN},
        "difference": {"diff": 3},
        "warnings": {"warnings": [{"a": 1}], "deprecations": 3},
        "changed": {"changed": "foreign"},
        "failed": {"failed": ["foreign"]},
        "results": {"results": [{"unreachable": True}, 3], "builds": 3},
        "surrogate": {"msg": "\ud800", "results": [{"operation": "\ud800"}], "running": "\ud800"},
        "tagged": {"refused": {"__ansible_type": "TrustedAsTemplate", "value": "x"}},
    }
    texts = {
        "list": "[]",
        "nothing": "",
        "spoken": SPOKEN,
        "nan": '{"results": [], "builds": NaN, ' + LAST,
        "digits": '{"results": [], "builds": ' + "9" * 100000 + "," + LAST,
        "deep": '{"results": [], "builds": ' + "[" * 100000,
        "nested": '{"results": [{"label": '
        + '{"a":' * 600
        + "1"
        + "}" * 602
        + '], "refused": '
        + '{"a":' * 600
        + "1"
        + "}" * 601,
        "huge": "x" * (100 << 20),
    }
    return keys, texts


ENDLESS = {
    "endless": "exec yes",
    "endless_errors": "exec yes >&2",
    "endless_line": "exec cat /dev/zero",
    "endless_ssh": "exec yes",
}
PLAY = """
- hosts: liars
  gather_facts: false
  ignore_errors: true
  ignore_unreachable: true
  tasks:
    - acrn.ivshmem.guest_probe: {steps: []}
      register: probe
    - acrn.ivshmem.hypervisor_info:
      register: info
# Where roles let a failure be, the host stays in the play, whatever core makes of its answer.
- hosts: STAYS
  gather_facts: false
  tasks:
    - acrn.ivshmem.hypervisor_info:
      failed_when: false
    - acrn.ivshmem.guarded: {module: ansible.builtin.slurp, args: {src: /none}}
      failed_when: false
    - ansible.builtin.set_fact: {stayed: true}
- hosts: liars
  gather_facts: false
  tasks:
    - ansible.builtin.command: "true"
      delegate_to: localhost
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        dest: "{{ out }}"
        content: "{{ {'groups': groups, 'hosts': dict(groups.liars | zip(groups.liars | map('extract', hostvars))),
                      'local': hostvars.localhost} | to_json }}"
"""


def seen(value):
    """The keys at any depth, and the text."""
    if isinstance(value, dict):
        return {*value, *(found for each in value.values() for found in seen(each))}
    if isinstance(value, list):
        return {found for each in value for found in seen(each)}
    return {value} if isinstance(value, str) else set()


@pytest.fixture(name="outcome")
def _outcome(tmp_path):
    ansible = f"{os.path.dirname(sys.executable)}/ansible-playbook"
    if not os.path.exists(ansible):
        pytest.skip("needs ansible-playbook beside the Python of the tests")
    canary = tmp_path / "canary"
    canary.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    canary.chmod(0o755)
    keys, texts = lies(str(canary))
    hosts = {"honest": {"ansible_python_interpreter": sys.executable}}
    # These go on for ever. OpenSSH is read in another way than a process of this machine.
    texts |= dict.fromkeys(ENDLESS, "")
    for name in (*keys, *texts):
        folder = tmp_path / name
        folder.mkdir()
        for way, right in (("light", PROBE), ("heavy", INFO)):
            text = texts[name] if name in texts else json.dumps({**right, **keys[name]})
            (folder / way).write_text(f"\nacrn.ivshmem:{text}\n" if way == "light" else text)
        python = folder / "python"
        script = 'cat >/dev/null\ncase " $* " in *" -S "*) way=light;; *) way=heavy;; esac\n'
        python.write_text(f"#!/bin/sh\n{script}{ENDLESS.get(name, f'cat {folder}/$way')}\n")
        python.chmod(0o755)
        hosts[name] = {"ansible_python_interpreter": str(python)}
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    hosts["endless_ssh"] |= {"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh)}
    local = {"ansible_connection": "local"}
    inventory = {"liars": {"hosts": hosts, "vars": local}, "ungrouped": {"hosts": {"localhost": local}}}
    inventory["ungrouped"]["hosts"]["localhost"] = {**local, "ansible_python_interpreter": sys.executable}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "play.yml").write_text(PLAY.replace("STAYS", ":".join(STAYS)))
    words = [
        ansible,
        "-v",
        "--diff",
        "-i",
        str(tmp_path / "hosts.json"),
        "-e",
        f"out={tmp_path}/out.json",
        f"{tmp_path}/play.yml",
    ]
    environment = {**os.environ, "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (tmp_path / "out.json").exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((tmp_path / "out.json").read_text()), done, tmp_path, (*keys, *texts)


def test_a_lie_harms_nobody_but_who_tells_it(outcome):
    out, done, folder, names = outcome
    assert not (folder / "ran").exists()
    assert sorted(out["groups"]["liars"]) == sorted(("honest", *names))
    assert "foreign" not in out["groups"]
    assert "foreign" not in seen([out["hosts"], out["local"]])
    assert len(done.stdout) < 1 << 20
    assert not OBEYED.search(done.stdout + done.stderr)
    assert out["hosts"]["honest"]["probe"]["results"] == []
    assert not out["hosts"]["honest"]["probe"]["failed"]
    assert not out["hosts"]["honest"]["info"]["failed"]
    assert all("stayed" in out["hosts"][name] for name in STAYS)
    refused = {name for name in names for way in ("probe", "info") if out["hosts"][name][way]["failed"]}
    wrong = {"difference", "warnings", "changed", "failed", "results", "surrogate", *lies("")[1], *ENDLESS}
    # What a tag is, depends on the version of ansible-core.
    assert refused - {"tagged", "summary"} == wrong
    for name in wrong - {"list", "nothing"}:
        told = [out["hosts"][name][way]["msg"] for way in ("probe", "info") if out["hosts"][name][way]["failed"]]
        assert any(f"{name}: the answer of acrn.ivshmem." in msg for msg in told), told
    figures.add("answers of lying hosts", 2 * len(names), 2 * len(names))


def test_a_host_that_never_answers_is_waited_for_as_long_as_is_said(tmp_path):
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    # Who is honest may be slow: the machine has more to do than this. To 0, Ansible waits without an end.
    hosts = {"honest": (sys.executable, 0), "silent": (str(silent), 3)}
    hosts = {
        name: {"ansible_connection": "local", "ansible_python_interpreter": path, "patience": seconds}
        for name, (path, seconds) in hosts.items()
    }
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    tasks = [
        {"acrn.ivshmem.guest_probe": {"steps": []}, "timeout": "{{ patience }}"},
        {"ansible.builtin.debug": {"msg": "went on"}},
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    settings = ("env", "ANSIBLE_PIPELINING=1")
    done = controller.command(tmp_path, *settings, "ansible-playbook", "-i", "hosts.json", "play.yml")
    assert done.returncode == 2, done.stdout
    assert re.search(r"\[silent\].*(failed|fatal|FAILED)", done.stdout), done.stdout
    assert re.search(r"ok: \[honest\] => \{\s*\"msg\": \"went on\"", done.stdout), done.stdout


def test_a_server_that_lets_nobody_in_does_not_speak_to_the_terminal(tmp_path):
    """What OpenSSH hands on of it before a login is in the message of a host that cannot be reached."""
    ssh = tmp_path / "ssh"
    (tmp_path / "banner").write_text(SPOKEN)
    ssh.write_text(f"#!/bin/sh\ncat {tmp_path}/banner >&2\nexit 255\n")
    ssh.chmod(0o755)
    variables = {"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh)}
    variables["ansible_python_interpreter"] = sys.executable
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"speaker": variables}}}))
    asked = (
        {"acrn.ivshmem.guest_probe": {"steps": []}},
        {"acrn.ivshmem.guest_device": {"devices": [], "python": False}},
        {"acrn.ivshmem.hypervisor_info": {}},
        {"acrn.ivshmem.guarded": {"module": "ansible.builtin.raw", "args": {"_raw_params": "exit 0"}}},
    )
    shown = {"ansible.builtin.debug": {"msg": "{{ said.msg }}"}}
    tasks = [each for task in asked for each in ({**task, "register": "said"}, shown)]
    play = [{"hosts": "all", "gather_facts": False, "ignore_unreachable": True, "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    settings = ("env", "ANSIBLE_PIPELINING=1")
    done = controller.command(tmp_path, *settings, "ansible-playbook", "-v", "-i", "hosts.json", "play.yml")
    assert done.stdout.count("UNREACHABLE! =>") == len(asked), done.stdout
    assert not OBEYED.search(done.stdout), done.stdout
    assert "\\u001b" not in done.stdout
    figures.add("answers of lying hosts", len(asked), len(asked))


# The liar's Python: what each module of ansible-core gives when all is well, and facts for the tasks that follow.
LIAR = """#!/bin/sh
cat >/dev/null
echo '{"changed": true, "path": "/nowhere", "files": [], "rc": 0, "stdout": "", "ansible_facts": FACTS}'
"""
GENERATE = """
- hosts: liar
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: acrn.ivshmem.launch, tasks_from: generate.yml}
      ignore_errors: true
    - ansible.builtin.include_role: {name: acrn.ivshmem.guest, tasks_from: group.yml}
"""


def test_no_fact_of_a_host_is_a_variable_of_the_roles(tmp_path):
    ran = tmp_path / "ran"
    canary = tmp_path / "canary"
    canary.write_text(f"#!/bin/sh\necho $0 >> {ran}\n")
    canary.chmod(0o755)
    facts = {
        "launch_generator_host": "localhost",
        "launch_python": str(canary),
        "launch_source": "/",
        "verify_json": str(ran),
        "ansible_connection": "local",
        "ansible_python_interpreter": str(canary),
    }
    liar = tmp_path / "python"
    liar.write_text(LIAR.replace("FACTS", json.dumps(facts)))
    liar.chmod(0o755)
    variables = {**controller.sample(tmp_path), "ansible_python_interpreter": str(liar)}
    variables |= {"guest_group": "root", "launch_board": "board.xml", "launch_scenario": "scenario.xml"}
    variables |= {"launch_plan": {}, "launch_launch_xml": "", "launch_version": "3.3"}
    inventory = {"all": {"hosts": {"liar": variables}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    shown = "    - ansible.builtin.debug: {msg: \"LEFT {{ verify_json | default('unset') }} {{ launch_python }}\"}\n"
    (tmp_path / "play.yml").write_text(GENERATE + shown)
    done = controller.command(tmp_path, "ansible-playbook", "-i", "hosts.json", "play.yml", "-v")
    assert "Make a work directory for the generator" in done.stdout, done.stdout
    assert not ran.exists(), done.stdout
    assert str(ran) not in done.stdout
    assert "localhost" not in done.stdout.replace("implicit localhost", ""), done.stdout
