# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user reads who has made a mistake in the inventory: which variable, where in it, and how it is mended."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml
from ansible.release import __version__ as ansible_version

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT, command, sample

# One needs no inventory, and is none of a fleet.
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml") if path.stem != "examples")


def region(**more):
    return {"name": "log", "size": 4, "vms": ["VM1", "VM2"], **more}


# Up to ansible-core 2.18 nothing says which name it is.
NAMED = tuple(map(int, ansible_version.split(".")[:2])) >= (2, 19)


def undefined(name):
    """What is told of a variable that uses a name that nobody has set."""
    return f"cannot be worked out: {repr(name) if NAMED else 'a name in it'} is undefined"


# Variables of a host, and what is told of it; None where the input is right.
INPUTS = {
    "size": ({"ivshmem_host_regions": [region(size="4M")]}, "ivshmem_host_regions[0].size: region 'log': size must be"),
    "place": (
        {"ivshmem_host_regions": ["hv:/a, 2, 2:3", region(vms=["VM1", {"name": "VM2", "vbdf": 8}])]},
        "ivshmem_host_regions[1].vms[1].vbdf: region 'log': vbdf of VM 'VM2' is 8: write it in quotes",
    ),
    "several": ({"ivshmem_host_regions": [region(size=3, vms=["vm1", "VM2"])]}, "2 mistakes in the regions"),
    "letter-case": ({"ivshmem_host_regions": [region(vms=["vm1", "VM2"])]}, "did you mean VM1?"),
    "twice": (
        {"ivshmem_group_regions": [region()], "ivshmem_host_regions": [region()]},
        "is declared 2 times: ivshmem_group_regions[0] and ivshmem_host_regions[0]",
    ),
    "mapping": ({"ivshmem_host_regions": region()}, "write a dash before its first key"),
    "undefined-regions": ({"ivshmem_host_regions": "{{ no }}"}, "ivshmem_host_regions " + undefined("no")),
    "undefined-scenario": ({"acrn_scenario": "{{ no }}/scenario.xml"}, "acrn_scenario " + undefined("no")),
    "undefined-board": ({"acrn_board": "{{ no }}"}, "acrn_board " + undefined("no")),
    "undefined-vms": ({"launch_vms": "{{ no }}"}, "launch_vms " + undefined("no")),
    "vms-key": ({"launch_vms": [{"name": "VM1", "memroy": 512}]}, "launch_vms[0]: unknown key 'memroy'"),
    "vms-number": ({"launch_vms": [{"name": "VM1", "memory": "2G"}]}, "launch_vms[0].memory is '2G': write a whole"),
    "vms-nameless": ({"launch_vms": [{"memory": 512}]}, "its name is missing"),
    "board-for-scenario": ({"acrn_scenario": "board.xml"}, "acrn_scenario: FOLDER/board.xml: is a file without VMs"),
    "broken-scenario": ({"acrn_scenario": "broken.xml"}, "acrn_scenario: FOLDER/broken.xml: is not well-formed XML"),
    "broken-board": ({"acrn_board": "broken.xml"}, "acrn_board: FOLDER/broken.xml: is not well-formed XML"),
    "broken-launch": (
        {"acrn_launch_xml": "broken.xml", "acrn_version": "2.7"},
        "acrn_launch_xml: FOLDER/broken.xml: is not well-formed XML",
    ),
    "acrn-words": ({"ivshmem_host_regions": [region(provided_by="Device Model")]}, None),
    "id-and-name": (
        {"ivshmem_host_regions": [region(vms=["VM1", {"name": "VM2", "id": 2}])]},
        "has the ID 3, and not 2",
    ),
    "no-scenario": ({"acrn_scenario": None}, "acrn_scenario is not set"),
    "scenario-missing": ({"acrn_scenario": "x/none.xml"}, "acrn_scenario: FOLDER/x/none.xml: cannot be read"),
    "scenario-list": ({"acrn_scenario": ["scenario.xml"]}, "acrn_scenario is ['scenario.xml']: write"),
    "board-missing": ({"acrn_board": "none.xml"}, "acrn_board: FOLDER/none.xml: cannot be read"),
    "slash": ({"acrn_scenario": "./scenario.xml/", "ivshmem_host_regions": []}, None),
    "key": ({"acrn_build": {"releas": True}}, "acrn_build: unknown key 'releas'"),
    "half": ({"acrn_version": "3{{ half }}"}, "acrn_version holds U+D800 (half of a character"),
    "byte": ({"ivshmem_host_regions": [region(name="a{{ byte }}")]}, "regions[0].name holds U+DCFF"),
    "nul": ({"acrn_board": "a{{ nul }}.xml"}, "board_path holds U+0000 (NUL)"),
    "source-list": ({"acrn_source": ["tree"]}, "acrn_source is ['tree']: write a path"),
}


def plan(folder, inventory, *options, playbook="plan"):
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    words = ("ansible-playbook", "-i", "hosts.yml", f"acrn.ivshmem.{playbook}", "-e", "plan_ask=false", *options)
    return command(folder, *words)


def test_every_mistake_names_variable_place_and_mend(tmp_path):
    common = {**sample(tmp_path), "ivshmem_regions": []}
    (tmp_path / "broken.xml").write_text("<acrn-config>\n<vm>\n</acrn-config>\n")
    hosts = {name: variables for name, (variables, _told) in INPUTS.items()}
    inventory = {"acrn_hosts": {"vars": common, "hosts": hosts}}
    no_text = ("-e", r"half=\ud800 byte=\udcff nul=\x00")
    done = plan(tmp_path, inventory, "-e", "plan_json=plan.json", *no_text)
    assert done.returncode == 2, done.stdout
    found = {each["host"]: each["error"] for each in json.loads((tmp_path / "plan.json").read_text())["hosts"]}
    for name, (_variables, told) in INPUTS.items():
        if told is None:
            assert found[name] is None, (name, found[name])
        else:
            assert told.replace("FOLDER", str(tmp_path)) in found[name], (name, found[name])
            assert "failed: " not in found[name], found[name]


def test_a_value_that_cannot_be_worked_out_ends_a_run_before_anything_is_touched(tmp_path):
    vault = "$ANSIBLE_VAULT;1.1;AES256\n" + "61" * 40 + "\n"
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"acrn_hosts": {"hosts": {"line-1": {**sample(tmp_path), "ivshmem_regions": [region()]}}}})
    )
    (tmp_path / "host_vars/line-1").mkdir(parents=True)
    text = "remove_guests: '{{ no }}'\nacrn_board: !vault |\n" + "".join(f"  {line}\n" for line in vault.splitlines())
    (tmp_path / "host_vars/line-1/own.yml").write_text(text)
    done = command(tmp_path, "ansible-playbook", "-i", "hosts.yml", "acrn.ivshmem.remove", "-e", "plan_ask=false")
    flat = " ".join(done.stdout.split())
    assert done.returncode == 2, done.stdout
    assert "line-1: acrn_board cannot be worked out: " in flat and "vault" in flat
    assert "line-1: remove_guests " + undefined("no") in flat
    assert "PLAY [Guests]" not in done.stdout


def vaulted(folder, name, text):
    """A variable in a vault of its own, as a line of a YAML file."""
    (folder / "password").write_text("secret")
    words = ("ansible-vault", "encrypt_string", "--vault-password-file", "password", "--name", name, text)
    done = command(folder, *words)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    start = lines.index(f"{name}: !vault |")
    own = [lines[start], *(line for line in lines[start + 1 :] if line.startswith(" "))]
    return "\n".join([*own, ""])


def test_what_is_in_a_vault_counts_and_is_not_shown(tmp_path):
    own = {**sample(tmp_path), "ivshmem_regions": [region()], "launch_vms": [{"name": "VM1"}]}
    secret = {"acrn_scenario": "scenario.xml", "acrn_version": "3.3", "acrn_board": "board.xml", "launch_restart": "no"}
    hosts = {"line-1": {key: value for key, value in own.items() if key not in secret}, "line-2": own}
    (tmp_path / "host_vars").mkdir()
    text = "".join(vaulted(tmp_path, *each) for each in secret.items())
    memory = "  " + vaulted(tmp_path, "memory", "512").replace("\n", "\n  ").rstrip() + "\n"
    (tmp_path / "host_vars/line-1.yml").write_text(f"{text}launch_vms:\n- name: VM1\n{memory}")
    words = ("--vault-password-file", "password", "-e", "plan_json=plan.json")
    done = plan(tmp_path, {"acrn_hosts": {"hosts": hosts}}, *words)
    told = {each["host"]: each for each in json.loads((tmp_path / "plan.json").read_text())["hosts"]}
    # The other one lacks the memory.
    assert done.returncode == 2 and "memory (in MB) is missing" in told["line-2"]["error"], done.stdout
    assert told["line-1"]["error"] is None, told["line-1"]["error"]
    assert [each["name"] for each in told["line-1"]["regions"]] == ["log"]

    (tmp_path / "host_vars/line-1.yml").write_text(text + vaulted(tmp_path, "launch_units", "hunter2"))
    done = plan(tmp_path, {"acrn_hosts": {"hosts": hosts}}, *words, playbook="site")
    assert done.returncode == 2
    assert "line-1: launch_units has a part in a vault, and is no value that it can have" in done.stdout, done.stdout
    assert "hunter2" not in done.stdout


def test_a_mistake_of_several_hosts_is_told_once(tmp_path):
    common = {**sample(tmp_path), "ivshmem_regions": [region(size=3)]}
    inventory = {"acrn_hosts": {"vars": common, "hosts": {"line-1": {}, "line-2": {}, "line-3": {}}}}
    done = plan(tmp_path, inventory, playbook="site")
    assert done.returncode == 2
    # Newer versions of ansible-core tell each failure by two lines.
    assert done.stdout.count("fatal:") == 1, done.stdout
    assert "error: ivshmem_regions[0].size: region 'log': its size is 3 MB" in " ".join(done.stdout.split())
    assert "line-1, line-2, line-3: a mistake in the regions, held against" in " ".join(done.stdout.split())
    assert not list((tmp_path / ".acrn-ivshmem").rglob("*.xml"))


@pytest.mark.parametrize("beside", [False, True])
def test_regions_of_all_groups_of_a_host_are_joined(tmp_path, beside):
    common = sample(tmp_path)
    values = {"plant": [region(name="of_plant")], "hall_a": [region(name="of_a")], "hall_b": "{{ [of_b] }}"}
    inventory = {
        "acrn_hosts": {"vars": common, "hosts": {"line-1": {}, "line-2": {"ivshmem_group_regions": []}}},
        "plant": {"children": {"hall_a": {"hosts": {"line-1": {}}}}},
        "hall_b": {"vars": {"of_b": region(name="of_b")}, "hosts": {"line-1": {}, "line-2": {}}},
    }
    if beside:
        (tmp_path / "group_vars").mkdir()
        for name, value in values.items():
            (tmp_path / "group_vars" / f"{name}.yml").write_text(yaml.safe_dump({"ivshmem_group_regions": value}))
    else:
        inventory["plant"]["vars"] = {"ivshmem_group_regions": values["plant"]}
        inventory["plant"]["children"]["hall_a"]["vars"] = {"ivshmem_group_regions": values["hall_a"]}
        inventory["hall_b"]["vars"]["ivshmem_group_regions"] = values["hall_b"]
    done = plan(tmp_path, inventory, "-e", "plan_json=plan.json")
    assert done.returncode == 0, done.stdout
    found = {each["host"]: each["regions"] for each in json.loads((tmp_path / "plan.json").read_text())["hosts"]}
    assert sorted(each["name"] for each in found["line-1"]) == ["of_a", "of_b", "of_plant"]
    assert found["line-2"] == []


def test_a_relative_path_is_seen_from_the_inventory_in_every_variable(tmp_path):
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    common = {**sample(fleet), "ivshmem_regions": [region()], "acrn_source": "tree", "scenario_directory": "results"}
    del common["acrn_version"]
    shutil.copytree(ROOT / "tests/standin_tree", fleet / "tree")
    builder = {name: common[name] for name in ("ansible_connection", "ansible_python_interpreter")}
    builder.update({f"hypervisor_{name}": str(tmp_path / name) for name in ("artifacts_dir", "work_dir")})
    builder["hypervisor_python"] = common["ansible_python_interpreter"]
    inventory = {
        "acrn_hosts": {"vars": common, "hosts": {"line-1": {}}},
        "acrn_builders": {"hosts": {"builder": builder}},
    }
    (fleet / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def play(name, *options):
        words = ("ansible-playbook", "-i", "fleet/hosts.yml", f"acrn.ivshmem.{name}", *options)
        done = command(tmp_path, *words)
        assert done.returncode == 0, done.stdout

    play("site", "-e", "plan_ask=false")
    assert (fleet / "results/line-1/scenario.xml").exists()
    assert list((tmp_path / "artifacts_dir").glob("*/manifest.json"))
    play("plan", "-e", "plan_ask=false", "-e", "plan_json=plan.json")
    (told,) = json.loads((fleet / "plan.json").read_text())["hosts"]
    assert told["build"]["needed"] is False
    play("report", "-e", "report_ask=false", "-e", "report_directory=pages", "--check")
    (fleet / "pages").mkdir()
    play("report", "-e", "report_ask=false", "-e", "report_directory=pages/")
    assert (fleet / "pages/report.html").exists()


@pytest.mark.parametrize("option", ["--tags", "--skip-tags"])
def test_a_misspelt_tag_is_refused(tmp_path, option):
    inventory = {"acrn_hosts": {"hosts": {"line-1": {**sample(tmp_path), "ivshmem_regions": [region()]}}}}
    done = plan(tmp_path, inventory, option, "scenarios", playbook="site")
    assert done.returncode == 2 and "scenarios is no tag of a phase; did you mean scenario?" in done.stdout, done.stdout
    assert not (tmp_path / ".acrn-ivshmem").exists()


@pytest.mark.parametrize("words", ["--tags nothing", "--skip-tags PLAYBOOK"])
def test_each_playbook_does_something_with_a_tag_or_refuses_it(tmp_path, words):
    inventory = {"acrn_hosts": {"hosts": {"line-1": {**sample(tmp_path), "ivshmem_regions": [region()]}}}}
    playbook = {"--tags nothing": "verify"}.get(words, "plan")
    done = plan(tmp_path, inventory, *words.replace("PLAYBOOK", playbook).split(), playbook=playbook)
    assert done.returncode == 2 and "nothing would be done" in done.stdout, done.stdout


PHASES = ["guests", "launch", "hypervisor", "builder", "controller"]
OFF = {
    "install": {"hypervisor_install": "no"},
    "remove": {f"remove_{phase}": False for phase in PHASES},
}


@pytest.mark.parametrize("limit", [(), ("--limit", "line-1")])
@pytest.mark.parametrize("playbook", OFF)
def test_a_run_in_which_all_is_switched_off_is_refused(tmp_path, playbook, limit):
    own = {**sample(tmp_path), "ivshmem_regions": [region()], **OFF[playbook]}
    hosts = {"line-1": {}, "line-2": {list(OFF[playbook])[-1]: True} if limit else {}}
    done = plan(tmp_path, {"acrn_hosts": {"vars": own, "hosts": hosts}}, "--check", *limit, playbook=playbook)
    said = " ".join(done.stdout.split())
    assert done.returncode == 2 and "false for all hosts of this run, and nothing would be done" in said, done.stdout
    assert ", ".join(OFF[playbook]) + ": " in said
    assert "PLAY [Plan]" not in said and "PLAY [Guests]" not in said


def test_each_play_has_a_tag_of_its_playbook():
    for name in PLAYBOOKS:
        path = ROOT / "playbooks" / f"{name}.yml"
        first, *plays = yaml.safe_load(path.read_text())
        phases = first["vars"]["__limit_phases"]
        assert phases == [path.stem] or path.stem == "site"
        assert {tag for play in plays for tag in play["tags"]} - {"always"} == set(phases), path


def test_a_playbook_that_imports_one_keeps_its_own_tags(tmp_path):
    inventory = {"acrn_hosts": {"hosts": {"line-1": {**sample(tmp_path), "ivshmem_regions": [region()]}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    own = {"hosts": "localhost", "gather_facts": False, "tags": ["backup"], "tasks": [{"ansible.builtin.debug": {}}]}
    other = {"ansible.builtin.import_playbook": "acrn.ivshmem.plan", "tags": ["regions"]}
    (tmp_path / "plant.yml").write_text(yaml.safe_dump([own, other]))
    for tag, told in (("backup", "Hello world"), ("regions", "1 region to add")):
        words = ("ansible-playbook", "-i", "hosts.yml", "plant.yml", "-e", "plan_ask=false", "--tags", tag)
        done = command(tmp_path, *words)
        assert done.returncode == 0, done.stdout
        assert [word for word in ("Hello world", "1 region to add") if word in done.stdout] == [told]


def test_a_host_without_sudo_leaves_its_lines_unknown_and_the_others_as_they_are(tmp_path):
    common = {**sample(tmp_path), "ivshmem_regions": [region()]}
    sudo = {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_exe": str(tmp_path / "none")}
    inventory = {"acrn_hosts": {"vars": common, "hosts": {"line-1": sudo}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = command(
        tmp_path, "ansible-playbook", "-i", "hosts.yml", "acrn.ivshmem.plan", "-e", "plan_json=plan.json", timeout=600
    )
    assert done.returncode == 0, done.stdout
    assert "not known what runs: " in done.stdout
    (told,) = json.loads((tmp_path / "plan.json").read_text())["hosts"]
    assert told["error"] is None and [each["name"] for each in told["regions"]] == ["log"]


def test_a_builder_without_its_python_is_told_with_the_variable_that_names_one(tmp_path):
    host = {**sample(tmp_path), "acrn_source": str(tmp_path / "acrn"), "ivshmem_regions": [region()]}
    builder = {"ansible_connection": "local", "ansible_python_interpreter": str(tmp_path / "no-python")}
    done = plan(
        tmp_path, {"acrn_hosts": {"hosts": {"line-1": host}}, "acrn_builders": {"hosts": {"workshop": builder}}}
    )
    assert done.returncode != 0
    told = "workshop needs a Python: set its variable ansible_python_interpreter to one that is there"
    assert told in " ".join(done.stdout.split()), done.stdout


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_an_inventory_without_the_group_of_hosts_is_refused_by_each_playbook(tmp_path, playbook):
    name = {"site": "acrn-hosts"}.get(playbook, "acrn_host")
    done = plan(tmp_path, {name: {"vars": sample(tmp_path), "hosts": {"line-1": {}}}}, playbook=playbook)
    assert done.returncode != 0
    assert f"the inventory has no group acrn_hosts, which holds the Service VMs; rename the group {name}" in " ".join(
        done.stdout.split()
    )


def test_a_guest_that_cannot_be_reached_is_told_once_and_the_proof_is_kept_all_the_same(tmp_path):
    away = {"acrn_host": "line-1", "acrn_vm": "VM1", "ansible_host": "127.0.0.1", "ansible_port": 9}
    inventory = {
        "acrn_hosts": {"hosts": {"line-1": {**sample(tmp_path), "ivshmem_regions": [region()]}}},
        "acrn_guests": {"hosts": {"panel": {**away, "ansible_connection": "ssh", "ansible_ssh_retries": 0}}},
    }
    done = plan(tmp_path, inventory, "-e", "verify_json=out/proof/verify.json", playbook="verify")
    assert done.returncode == 2 and done.stdout.count("UNREACHABLE!") == 1, done.stdout
    (told,) = json.loads((tmp_path / "out/proof/verify.json").read_text())["regions"]
    assert told["state"] == "nobody"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"verify_json": "a", "verify_junit": "./a"}, "verify_json is FOLDER/a, verify_junit is FOLDER/a: of reports"),
        ({"verify_json": "hosts.yml/x"}, "its directory cannot be made: FOLDER/hosts.yml is no directory"),
        ({"verify_prometheus": "."}, "FOLDER: is not a regular file"),
    ],
)
def test_a_report_that_cannot_be_kept_is_refused_before_anybody_is_asked(tmp_path, files, told):
    away = {"acrn_host": "line-1", "acrn_vm": "VM1", "ansible_host": "127.0.0.1", "ansible_port": 9}
    inventory = {
        "acrn_hosts": {"hosts": {"line-1": {**sample(tmp_path), "ivshmem_regions": [region()]}}},
        "acrn_guests": {"hosts": {"panel": {**away, "ansible_connection": "ssh"}}},
    }
    done = plan(tmp_path, inventory, "-e", json.dumps(files), playbook="verify")
    assert done.returncode == 2 and "UNREACHABLE!" not in done.stdout, done.stdout
    assert told.replace("FOLDER", str(tmp_path)) in " ".join(done.stdout.split()), done.stdout


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_what_nobody_reads_is_told_by_each_playbook(tmp_path, playbook):
    # A host without a scenario ends most of them early; nothing is touched.
    own = {**sample(tmp_path), "acrn_scenario": None, "acrn_scenaro": "scenario.xml", "hypervisor_repo": "acrn.git"}
    guest = {"acrn_host": "line-1", "acrn_vm": "VM1", "guest_drivr": "vfio-pci", "ansible_connection": "local"}
    inventory = {"acrn_hosts": {"hosts": {"line-1": own}}, "acrn_guest": {"hosts": {"panel": guest}}}
    switches = [f"remove_{phase}=false" for phase in ("guests", "launch", "hypervisor", "builder", "controller")]
    done = plan(tmp_path, inventory, "--check", "-e", " ".join(switches), playbook=playbook)
    flat = " ".join(done.stdout.split())
    assert flat.count("line-1: acrn_scenaro is no variable of this collection; did you mean acrn_scenario?") == 1
    assert flat.count("acrn_guest is no group of this collection; did you mean acrn_guests") == 1
    told = "line-1: hypervisor_repo is set and does nothing there, since it is read of acrn_builders"
    assert flat.count(told) == 1


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_value_that_means_nothing_is_told_by_name_before_anything_else(tmp_path, playbook):
    own = {**sample(tmp_path), "ivshmem_regions": [region()], "launch_units": None}
    guest = {"acrn_host": "line-1", "acrn_vm": "VM1", "verify_write": "{{ much }}", "ansible_connection": "local"}
    builder = {"hypervisor_make_args": {"CC": "gcc-11"}, "ansible_connection": "local"}
    inventory = {
        "acrn_hosts": {"hosts": {"line-1": own}},
        "acrn_guests": {"hosts": {"panel": guest}},
        "acrn_builders": {"hosts": {"builder": builder}},
    }
    done = plan(tmp_path, inventory, "--check", "-e", "much=sometimes", playbook=playbook)
    # The table of a plan is a list of lines.
    flat = " ".join(re.sub(r'",\s*"', " ", done.stdout).split())
    assert done.returncode == (0 if playbook == "report" else 2), done.stdout
    for told in (
        "launch_units is null, which says nothing: write a value, or leave it out",
        "verify_write is 'sometimes': write idle, true or false",
        "hypervisor_make_args is {'CC': 'gcc-11'}: it must be a list",
    ):
        assert told in flat, done.stdout
    if playbook not in ("plan", "report"):
        assert "PLAY [Guests]" not in done.stdout and "changed=0" in done.stdout
