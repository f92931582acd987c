# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import re

import pytest
import yaml
from ansible.errors import AnsibleError

from ansible_collections.acrn.ivshmem.plugins.module_utils import _words
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _variables

ROOT = pathlib.Path(__file__).parents[4]


def documented(kind):
    """Variables of a type, those inside of lists and mappings with all the keys to them."""

    def below(path, specs):
        for name, spec in specs.items():
            if spec.get("type") == kind:
                yield (*path, (name, spec))
            yield from below((*path, (name, spec)), spec.get("options") or {})

    found = list(below((), _variables.SPECS))
    assert found
    return [pytest.param(path, id=".".join(name for name, _spec in path)) for path in found]


def nested(path, value):
    """The variable that has a value at the end of a path of keys, and the way back to it."""
    if len(path) == 1:
        return value
    inner = {path[1][0]: nested(path[1:], value)}
    return [inner] if path[0][1]["type"] == "list" else inner


def meaning(path, value):
    found = _words.convert(path[0][0], path[0][1], nested(path, value))
    for (_name, spec), (key, _spec) in zip(path, path[1:]):
        found = found[0][key] if spec["type"] == "list" else found[key]
    return found


@pytest.mark.parametrize("path", documented("bool"))
@pytest.mark.parametrize("text", ["false", "False", "no", "off", "0", " NO ", 0, False])
def test_every_documented_boolean_is_false_in_every_form(path, text):
    assert meaning(path, text) is False


@pytest.mark.parametrize("path", documented("bool"))
@pytest.mark.parametrize("text", ["true", "yes", "ON", "1", 1, True])
def test_every_documented_boolean_is_true_in_every_form(path, text):
    assert meaning(path, text) is True


@pytest.mark.parametrize("path", documented("bool"))
@pytest.mark.parametrize("text", ["maybe", "", "2", 2, [], {}, "None"])
def test_every_documented_boolean_refuses_other_words_by_its_name(path, text):
    with pytest.raises(IvshmemError, match=f"{path[-1][0]} is .*: write true or false"):
        meaning(path, text)


@pytest.mark.parametrize("path", [*documented("int"), *documented("float")])
def test_every_documented_number_is_the_same_as_text(path):
    assert meaning(path, "60") == meaning(path, 60) == 60
    for wrong in ("sixty", "", "1_0", "0x10", True, [60], "٣", -1, "-5"):
        with pytest.raises(IvshmemError, match=f"{path[-1][0]} is .*: write a .*number"):
            meaning(path, wrong)


@pytest.mark.parametrize("path", [path for path in documented("list") if not path.values[0][-1][1].get("options")])
def test_every_documented_list_is_json_or_refused_by_its_name(path):
    elements = path[-1][1].get("elements", "raw")
    choices = path[-1][1].get("choices")
    value = choices or {"int": [1, 2], "dict": [{"name": "a"}]}.get(elements, ["a", "b"])
    assert meaning(path, json.dumps(value)) == meaning(path, value) == value
    for wrong in ("acrnctl start {name}", "[a, b", 7, True, {"a": 1}):
        with pytest.raises(IvshmemError, match=f"{path[-1][0]} is .*must be a list"):
            meaning(path, wrong)
    if elements == "str":
        assert meaning(path, ", ".join(value)) == value


@pytest.mark.parametrize("path", documented("dict"))
def test_every_documented_mapping_is_json_or_refused_by_its_name(path):
    known = path[-1][1].get("options") or {"a": {}}
    assert meaning(path, json.dumps(dict.fromkeys(known))) == dict.fromkeys(known)
    for wrong in ("a=1", ["a"], 7):
        with pytest.raises(IvshmemError, match=f"{path[-1][0]} is .*must be a mapping"):
            meaning(path, wrong)


def test_null_is_left_to_its_default():
    assert [_variables.word(None, name) for name in ("launch_restart", "launch_vms", "hypervisor_keep")] == [None] * 3


# A module converts what it is given alone; in any other expression a text would be taken by its truth or its letters.
BOOLEANS = [name for name, spec in _variables.SPECS.items() if spec.get("type") == "bool"]
ASKED = [
    path
    for part in ("playbooks/*.yml", "roles/*/tasks/*.yml", "roles/*/vars/*.yml")
    for path in ROOT.glob(part)
    if "verify" not in path.parts
]


def expressions(value, key=""):
    """The expressions of a YAML file, each without its quoted words."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from expressions(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from expressions(each, key)
    elif isinstance(value, str):
        found = (
            [value]
            if key in ("when", "that", "failed_when", "changed_when")
            else re.findall(r"\{\{.*?\}\}", value, re.S)
        )
        yield from (re.sub(r"'[^']*'", "''", each) for each in found)


@pytest.mark.parametrize("path", ASKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_booleans_are_asked_for_by_what_they_mean(path):
    for expression in expressions(yaml.safe_load(path.read_text(encoding="utf-8"))):
        for name in BOOLEANS:
            # As a whole argument it goes to a module, which converts it.
            if expression != "{{ " + name + " }}":
                for found in re.finditer(rf"(?<![\w.]){name}\b(?!\s*=)(.{{0,60}})", expression, re.S):
                    assert re.match(r"( \| default\(.*?\)+)* \| acrn\.ivshmem\.word\(", found.group(1)), expression


@pytest.mark.parametrize(
    "name, meant",
    [
        ("ivshmem_region", "ivshmem_regions"),
        ("acrn_scenaro", "acrn_scenario"),
        ("launch_restrat", "launch_restart"),
        ("hypervisor_instal", "hypervisor_install"),
        ("guest_drivr", "guest_driver"),
        ("ivshmem_host_region", "ivshmem_host_regions"),
        ("hypervizor_reboot", "hypervisor_reboot"),
        ("acrn-board", "acrn_board"),
        ("acrnboard", "acrn_board"),
        ("launchVms", "launch_vms"),
        ("ivshmem_regions_host", "ivshmem_host_regions"),
        ("ivshmem_region_group", "ivshmem_group_regions"),
        ("adopt_dir", "adopt_directory"),
        ("scenario_dir", "scenario_directory"),
        ("plan-launch", "plan_launch"),
        ("hypervisor-artifacts-dir", "hypervisor_artifacts_dir"),
    ],
)
def test_a_name_that_is_nearly_ours_is_told(name, meant):
    assert _words.misspelt({*_variables.SPECS, *_variables.FACTS}, [name]) == {name: meant}


def test_names_of_others_are_left_alone():
    names = [
        "ansible_host",
        "groups",
        "launch_pad_url",
        "lab_stage",
        "my_regions",
        *_variables.SPECS,
        *_variables.FACTS,
    ]
    assert _words.misspelt({*_variables.SPECS, *_variables.FACTS}, names) == {}


def joined(**values):
    names = ("ivshmem_regions", "ivshmem_group_regions", "ivshmem_host_regions")
    found = _words.joined([(name, values.get(name, False)) for name in names])
    return found["regions"], found["unset"], found["declared_in"]


def test_only_a_list_says_which_regions_a_host_shall_have():
    regions, unset, _places = joined()
    assert regions == [] and "ivshmem_regions, ivshmem_group_regions, ivshmem_host_regions" in unset
    assert joined(ivshmem_regions=[]) == ([], "", [])
    places = ["ivshmem_regions[0]", "ivshmem_host_regions[0]", "ivshmem_host_regions[1]"]
    assert joined(ivshmem_regions=["a"], ivshmem_host_regions=["b", "c"]) == (["a", "b", "c"], "", places)
    regions, unset, _places = joined(ivshmem_regions=["a"], ivshmem_host_regions=None)
    assert regions == ["a"] and unset == "ivshmem_host_regions is empty (null), which says nothing"
    assert joined(ivshmem_regions='["a"]')[:2] == (["a"], "")
    # What -e and INI have in the place of null.
    for nothing in ("", "  "):
        assert joined(ivshmem_regions=nothing)[1] == "ivshmem_regions is empty (null), which says nothing"
    assert joined(ivshmem_regions="[]") == ([], "", [])
    with pytest.raises(IvshmemError, match=r"ivshmem_regions is .*must be a list"):
        joined(ivshmem_regions={"name": "a"})


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        ({"name": "a", "size": 2, "vms": ["x"]}, "write a dash before its first key"),
        ({"a": {"size": 2}}, "write each as - {name: a, ...}"),
        ("hv:/a, 2, 1:2", 'write it in brackets, as in ["hv:/a, 2, 1:2"]'),
        (4, "in YAML or as JSON"),
        ("[hv:/a, 2, 1:2]", "and in an INI inventory single quotes around the whole"),
    ],
)
def test_what_is_no_list_is_told_how_it_becomes_one(value, mend):
    with pytest.raises(IvshmemError) as caught:
        joined(ivshmem_host_regions=value)
    assert str(caught.value).startswith(f"ivshmem_host_regions is {value!r}: it must be a list")
    assert mend in str(caught.value)


def test_of_a_variable_of_several_entry_points_main_says_what_it_means():
    assert _variables.word([{"memory": "512"}], "launch_vms") == [{"memory": 512}]
    with pytest.raises(IvshmemError, match=r"launch_vms\[0\]: unknown key 'memroy'.*did you mean memory"):
        _variables.word([{"memroy": 512}], "launch_vms")
    with pytest.raises(IvshmemError, match=r"launch_vms\[0\] is 'VM1': it must be a mapping"):
        _variables.word(["VM1"], "launch_vms")


def unclear(raw, read):
    return [each["told"] for each in _variables.unclear(raw, read)]


def test_what_cannot_be_worked_out_is_told_with_its_hosts():
    raw = {
        "a": {"acrn_board": "{{ nosuch }}", "launch_plan": "{{ scenario_plan }}", "own": "{{ nosuch }}"},
        "b": {"acrn_board": "{{ nosuch }}", "launch_vms": [{"name": "{{ known }}"}], "acrn_scenario": "plain"},
    }
    asked = []

    def read(host, name):
        asked.append((host, name))
        if name == "acrn_board":
            raise AnsibleError("'nosuch' is\nundefined")
        return [{"name": "VM1"}]

    assert unclear(raw, read) == ["a, b: acrn_board cannot be worked out: 'nosuch' is undefined"]
    # The others cost nothing, are no variable of the collection, or are known later.
    assert sorted(asked) == [("a", "acrn_board"), ("b", "acrn_board"), ("b", "launch_vms")]
    # Older versions of ansible-core leave what is undefined as it stands.
    assert unclear({"a": raw["a"]}, lambda host, name: raw[host][name]) == [
        "a: acrn_board cannot be worked out: a name in it is undefined"
    ]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("hypervisor_install", "perhaps", "'perhaps': write true or false"),
        ("launch_units", 2, "2: write true or false"),
        ("verify_timeout", "5 min", "'5 min': write a number in decimal digits"),
        ("launch_mode", "templat", "'templat': write one of template, generate, edit; did you mean template?"),
        ("guest_os", "Linux", "'Linux': write one of linux, windows; did you mean linux?"),
        ("acrn_board", ["a.xml"], "['a.xml']: write text, and no list or mapping"),
        (
            "launch_hypervisor_manifest",
            False,
            "False: it is no switch; write a path, in quotes if that is its name, or",
        ),
        ("launch_hypervisor_manifest", "false", "'false': it is no switch; write a path, or leave it out"),
        *(
            (name, word, f"{word!r}: it is no switch; write a path (./{word} if a file is called so), or leave it out")
            for name in ("launch_hypervisor_manifest", "verify_json", "acrn_scenario", "launch_template", "plan_json")
            for word in ("no", "off", "Yes", "on")
        ),
        # A host, VM or group may be called so, and so may a file.
        *((name, "no", "") for name in ("acrn_host", "acrn_vm", "guest_group", "launch_bridge")),
        *((name, value, "") for name in ("verify_json", "acrn_scenario") for value in ("./no", "no.xml", "")),
        ("acrn_scenario", True, "True: it is no switch; write a path"),
        ("verify_json", "True", "'True': it is no switch; write a path"),
        ("hypervisor_version", 3.3, ""),
        *(
            (name, value, "")
            for name, value in [("hypervisor_install", "no"), ("verify_timeout", "30"), ("guest_os", "linux")]
        ),
        ("launch_vms", "x", "'x': it must be a list"),
        ("acrn_build", "x", "'x': it must be a mapping"),
        ("verify_write", "sometimes", "'sometimes': write idle, true or false"),
        ("verify_write", "no", ""),
        ("acrn_batch", "many", "'many': write how many hosts at a time, as in 2, 10% or [1, 10%, 100%]"),
        *(("acrn_batch", value, "") for value in (1, "30%", [1, "10%"], "1,5")),
        ("launch_restart_policy", False, "False: write one of no, on-success"),
        ("launch_restart", None, "null, which says nothing: write a value, or leave it out"),
        ("launch_units", "", "empty, which says nothing"),
        ("launch_mode", "", "empty, which says nothing"),
        ("hypervisor_keep", "", "empty, which says nothing"),
        # These have no default, so they are left to nothing.
        *((name, None, "") for name in ("acrn_board", "hypervisor_install", "verify_window_offset")),
        ("verify_window_offset", "", ""),
        ("hypervisor_kernel", "", ""),
        # INI and -e have no null.
        ("verify_json", "None", "'None': a text is never null; write a path (./None if a file is called so)"),
        ("launch_after", "null", "'null': it must be a list: write it in brackets"),
    ],
)
def test_a_value_that_means_nothing_is_told_with_its_hosts(name, value, told):
    raw = {"a": {name: value}, "b": {name: value}, "c": {}}
    found = unclear(raw, None)
    assert [text[: len(f"a, b: {name} is {told}")] for text in found] == ([f"a, b: {name} is {told}"] if told else [])


def test_what_a_key_and_an_element_can_be_is_held_against_the_choices():
    raw = {"a": {"hypervisor_proofs": ["device", "regoins"]}}
    assert unclear(raw, None) == [
        "a: hypervisor_proofs[1] is 'regoins': write one of hypervisor, device, regions; did you mean regions?"
    ]
    assert "launch_vms[0].name is True: it is no switch" in unclear({"a": {"launch_vms": [{"name": True}]}}, None)[0]
    assert unclear({"a": {"launch_vms": [{"name": "true"}]}}, None) == []
    assert (
        "launch_vms[0].memory is '2G': write a whole number"
        in unclear({"a": {"launch_vms": [{"name": "VM1", "memory": "2G"}]}}, None)[0]
    )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("launch_vms", [None], "launch_vms[0] is null, which says nothing: write a value, or take the element away"),
        ("launch_vms", [{"name": "VM1"}, ""], "launch_vms[1] is empty, which says nothing"),
        ("launch_vms", [{"memory": 512}], "launch_vms[0]: its name is missing; write it"),
        ("launch_vms", [{"name": "VM1", "disks": [None]}], "launch_vms[0].disks[0] is null"),
        ("launch_vms", [{"name": "VM1", "disks": [{"path": None}]}], "launch_vms[0].disks[0]: its path is missing"),
        ("launch_vms", [{"name": "VM1", "passthrough": [{}]}], "launch_vms[0].passthrough[0]: its bdf is missing"),
        ("launch_vms", [{"name": "VM1", "extra_args": ["-A", None]}], "launch_vms[0].extra_args[1] is null"),
        ("launch_vms", [{"name": "VM1", "disks": None, "memory": None}], None),
        ("launch_after", [None], "launch_after[0] is null"),
        ("hypervisor_make_args", [""], None),
        ("launch_environment", {"A": None}, "launch_environment.A is null: write text, in quotes if it is a word"),
        ("launch_environment", {"A": True}, "launch_environment.A is True: write text"),
        ("hypervisor_environment", {"A": ["x"]}, "hypervisor_environment.A is ['x']: write text"),
        ("hypervisor_modules", {"tag": {}}, "hypervisor_modules.tag is {}: write text"),
        ("acrn_build", {"environment": {"CC": None}}, "acrn_build.environment.CC is null: write text"),
        ("acrn_build", {"environment": None}, None),
        ("launch_environment", {"A": 1, "B": "null"}, None),
    ],
)
def test_what_says_nothing_within_a_value_is_told_with_its_place(name, value, told):
    found = unclear({"a": {name: value}}, None)
    assert [text[: len(f"a: {told}")] for text in found] == ([f"a: {told}"] if told else [])


def test_a_value_that_is_made_of_others_or_in_a_vault_is_judged_as_any_other():
    raw = {"a": {"verify_require": "{{ much }}"}}
    assert unclear(raw, lambda _host, _name: "some") == [
        "a: verify_require is 'some': write one of all, reachable, any"
    ]


def test_a_vault_that_nobody_can_open_is_told_with_its_variable():
    class Locked:
        """As the one of ansible-core up to 2.18, which opens itself for whoever looks at it."""

        def __repr__(self):
            raise AnsibleError("no vault secrets found")

        __str__ = __repr__

    raw = {"a": {"acrn_board": Locked(), "launch_plan": ["{{ scenario_plan }}"], "launch_vms": [{"name": Locked()}]}}
    assert unclear(raw, lambda host, name: str(raw[host][name])) == [
        "a: acrn_board cannot be worked out: no vault secrets found",
        "a: launch_vms cannot be worked out: no vault secrets found",
    ]


@pytest.mark.parametrize("host", ["line 1", "a,b", "!a", "~a", "press*", "a[1]", "@a"])
def test_a_name_by_which_no_play_would_have_its_host_is_told(host):
    assert unclear({host: {}, "line-1": {}, "10.0.0.1": {}, "fe80::1": {}, "lïne_1.plant": {}}, None) == [
        f"{host}: the name {host!r} is none by which Ansible finds a host: write it with letters, digits, - and _"
    ]


def test_hostvars_in_a_variable_is_told_as_what_plays_alone_have():
    def read(_host, _name):
        raise AnsibleError("'hostvars' is undefined")

    (told,) = unclear({"a": {"acrn_source": "{{ hostvars['b'].tree }}"}}, read)
    assert told == (
        "a: acrn_source cannot be worked out: 'hostvars' is undefined, which Ansible has in plays alone; write the "
        "value, or a variable of a group"
    )


def misplaced(hosts, extra=(), **groups):
    every = {"acrn_hosts": ["line-1", "line-2"], "acrn_guests": ["g"], **groups}
    return _variables.misplaced(hosts, every, extra)


@pytest.mark.parametrize(
    ("host", "name", "group", "mend"),
    [
        ("line-1", "hypervisor_repo", "acrn_builders (where the ACRN trees are)", "set it for localhost"),
        ("g", "acrn_source", "acrn_hosts (the Service VMs)", "set it for line-1, line-2"),
        ("g", "ivshmem_host_regions", "acrn_hosts (the Service VMs)", "set it for line-1, line-2"),
        ("line-2", "guest_driver", "acrn_guests (the VMs)", "set it for g"),
        ("line-1", "verify_write", "acrn_guests (the VMs)", "set it for g"),
        ("localhost", "acrn_source", "acrn_hosts (the Service VMs)", "set it for line-1, line-2"),
    ],
)
def test_a_variable_of_hosts_that_are_not_asked_for_it_is_told(host, name, group, mend):
    assert misplaced({host: [name, "mine"], "other": []}) == [
        f"{host}: {name} is set and does nothing there, since it is read of {group}; {mend}"
    ]


def test_a_variable_that_all_hosts_have_or_that_nobody_can_have_yet_is_left_alone():
    everywhere = {host: ["hypervisor_repo", "guest_driver"] for host in ("line-1", "g", "localhost")}
    assert misplaced(everywhere) == []
    assert misplaced({"line-1": ["guest_driver"]}, acrn_guests=[]) == []
    assert misplaced({"line-1": ["hypervisor_repo"]}, acrn_builders=["line-1"]) == []


def test_a_value_that_another_one_overrules_is_told_unless_it_is_a_default_for_all():
    def overruled(values, extra=()):
        groups = {"acrn_hosts": ["line-1"], "acrn_builders": ["b"], "acrn_guests": ["g"]}
        return _variables.overruled({"localhost": {}, "g": {}, **values}, groups, extra)

    own, other = {"hypervisor_repo": "/srv/own.git"}, {"hypervisor_repo": "/srv/other.git"}
    assert overruled({"line-1": own, "b": other}) == [
        "line-1: hypervisor_repo is set and does nothing there, since it is read of acrn_builders (where the ACRN "
        "trees are); the other value, of b, counts"
    ]
    assert overruled({"line-1": own, "b": own}) == []
    assert overruled({"line-1": own, "b": {}}) == []  # misplaced: told already
    assert overruled({"line-1": own, "g": own, "localhost": own, "b": other}) == []
    assert overruled({"line-1": own, "b": other}, ["hypervisor_repo"]) == []
    # Whose variables the inventory plugin makes, each host has what it is.
    assert overruled({"line-1": {"acrn_vm": "SVC"}, "g": {"acrn_vm": "VM1"}}) == []


def test_a_variable_that_counts_on_the_command_line_alone_is_told():
    (told,) = misplaced({"line-1": ["acrn_batch"]})
    assert told.startswith("line-1: acrn_batch is set and does nothing there") and told.endswith("-e acrn_batch=...")
    assert misplaced({"line-1": ["acrn_batch"]}, ["acrn_batch"]) == []


def test_each_entry_point_of_a_role_and_each_variable_is_read_of_hosts_that_are_known():
    entries = {(role, entry) for role, own in _variables._ROLES.items() for entry in own}
    listed = [
        (role, entry)
        for own in _variables._OWN["readers"].values()
        for role, names in own["roles"].items()
        for entry in names
    ]
    assert sorted(listed) == sorted(entries)
    own = {name for each in _variables._OWN["readers"].values() for name in each["variables"]}
    assert own <= set(_variables.SPECS) and set(_variables.COMMAND_LINE) <= set(_variables.SPECS)


def test_text_is_no_list_and_a_key_that_nobody_knows_is_told():
    with pytest.raises(IvshmemError, match=r"acrn_board is \['/a'\]: write text"):
        _variables.word(["/a"], "acrn_board")
    with pytest.raises(IvshmemError, match=r"launch_dir is .*: write a path"):
        _variables.word({}, "launch_dir")
    with pytest.raises(
        IvshmemError, match=r"acrn_build: unknown key 'releas'; the keys are release.*; did you mean release\?"
    ):
        _variables.word({"releas": True}, "acrn_build")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a/b.xml", "/fleet/a/b.xml"),
        (" ./b.xml/ ", "/fleet/b.xml"),
        ("/a/b/", "/a/b"),
        ("~/b.xml", "~/b.xml"),
        (33, "/fleet/33"),
        ("/", "/"),
        ("", ""),
        (None, ""),
        (".", "/fleet"),
        ("a/./.b/../c.", "/fleet/a/.b/../c."),
    ],
)
def test_a_path_of_the_controller_is_seen_from_the_inventory(value, path):
    assert _variables.controller_path(value, "acrn_board", "/fleet") == path


def test_a_path_without_an_inventory_file_is_seen_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _variables.controller_path("b.xml", "acrn_board", "") == f"{tmp_path}/b.xml"


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True])
def test_what_is_no_path_is_refused_by_its_name(value):
    with pytest.raises(IvshmemError, match=r"acrn_board is .*: write a path"):
        _variables.controller_path(value, "acrn_board", "/fleet")


def test_a_group_that_is_misspelt_or_empty_is_refused():
    all_hosts = {"all": ["a"], "ungrouped": []}
    assert _variables.known_group({**all_hosts, "acrn_hosts": ["a"]}, "acrn_hosts") == "acrn_hosts"
    assert _variables.known_group({"all": [], "ungrouped": []}, "acrn_hosts") == "acrn_hosts"
    for name in ("acrn_host", "acrn-hosts", "ACRN_Hosts", "acrnhosts"):
        with pytest.raises(IvshmemError, match=rf"no group acrn_hosts, .*; rename the group {name}"):
            _variables.known_group({**all_hosts, name: ["a"]}, "acrn_hosts")
    with pytest.raises(IvshmemError, match=r"no group acrn_hosts, .*; put them in it"):
        _variables.known_group({**all_hosts, "machines": ["a"]}, "acrn_hosts")
    with pytest.raises(IvshmemError, match=r"acrn_hosts .* has no hosts"):
        _variables.known_group({**all_hosts, "acrn_hosts": []}, "acrn_hosts")


def test_a_board_that_the_tree_does_not_know_is_told(tmp_path):
    for name in ("whl-ipc-i5", "qemu"):
        (tmp_path / "misc/config_tools/data" / name).mkdir(parents=True)
        (tmp_path / "misc/config_tools/data" / name / f"{name}.xml").write_text("")
    (told,) = _variables.unknown_board("whl-ipc-i6", str(tmp_path))
    assert told.endswith("has no board whl-ipc-i6, but qemu, whl-ipc-i5; did you mean whl-ipc-i5?")
    for board in ("qemu", "./board.xml", "", None):
        assert _variables.unknown_board(board, str(tmp_path)) == []
    assert _variables.unknown_board("whl-ipc-i6", "/nowhere") == []
    (told,) = _variables.unknown_board("whl-ipc-i6", None)
    assert "acrn_source is not set; write the path" in told


def test_a_group_that_is_nearly_ours_is_told_unless_its_hosts_are_in_ours():
    groups = {"acrn_guest": ["g"], "acrn_hosts1": ["a"], "acrn_hosts": ["a", "b"], "press": ["g"]}
    assert _variables.misspelt_groups(groups) == [
        "acrn_guest is no group of this collection; did you mean acrn_guests (the VMs)?"
    ]


def test_what_nobody_reads_is_told_with_its_hosts():
    groups = {"acrn_hosts": ["a", "b"], "acrn_guest": ["g"]}
    hosts = {"b": ["acrn_scenaro", "press_size"], "a": ["acrn_scenaro", "ivshmem_regions"], "g": ["guest_drivr"]}
    assert _variables.unread(hosts, groups) == [
        "a, b: acrn_scenaro is no variable of this collection; did you mean acrn_scenario?",
        "g: guest_drivr is no variable of this collection; did you mean guest_driver?",
        *_variables.misspelt_groups(groups),
    ]


PHASES = ["scenario", "build", "install", "launch", "guests", "verify"]


@pytest.mark.parametrize("only", [True, False])
def test_a_tag_that_is_nearly_a_phase_is_told(only):
    assert _variables.refused_tags(PHASES, ["all", *PHASES, "never", "plant_3"], [], only) == []
    told = _variables.refused_tags(PHASES, ["scenarios", "guest"], ["verfy"], only)
    assert [text.split("did you mean ")[1] for text in told] == ["scenario?", "guests?", "verify?"]


@pytest.mark.parametrize(
    ("run", "skip", "told"),
    [
        (["all"], [], None),
        (["plant", "build"], [], None),
        (["tagged"], ["build"], None),
        (["all"], PHASES[1:], None),
        (["plant"], [], "--tags plant: nothing would be done; the tags are scenario, build, "),
        (["always"], [], "--tags always: "),
        (["untagged"], [], "--tags untagged: "),
        (["build"], ["build"], "--tags build --skip-tags build: "),
        (["all"], PHASES, "nothing would be done"),
        (["all"], ["tagged"], "nothing would be done"),
    ],
)
def test_tags_that_leave_no_phase_are_refused_where_no_other_tasks_are(run, skip, told):
    found = _variables.refused_tags(PHASES, run, skip, True)
    assert found == [] if told is None else [text for text in found if told in text] == found != []
    assert _variables.refused_tags(PHASES, run, skip, False) == []


def test_a_run_of_one_playbook_alone_is_known(tmp_path):
    own = str(pathlib.Path(_variables.__file__).parents[2] / "playbooks/site.yml")
    for words, found in (
        (["acrn.ivshmem.site"], True),
        ([own], True),
        (["plant.yml"], False),
        ([str(tmp_path / "site.yml")], False),
        (["acrn.ivshmem.site", "plant.yml"], False),
        ([], False),
    ):
        assert _variables.alone(words) is found, words


def test_the_tag_of_a_playbook_without_phases_is_told():
    assert _variables.refused_tags(["plan"], ["scenario"], [], True) == [
        "--tags scenario: nothing would be done; the only tag is plan"
    ]
