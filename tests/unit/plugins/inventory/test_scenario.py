# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from ansible_collections.acrn.ivshmem.plugins.inventory import scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Heavy, Light, call
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.modules import scenario_regions
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

REGIONS = ("hv:/fast, 2, 0:2", {"name": "log_1", "provided_by": "device_model", "size": 4, "vms": [2, 3]})


def write_scenario(path, *regions):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = scenarios.scenario("v3").encode()
    path.write_bytes(decide(data, str(path), regions or REGIONS, "exact", version=(3, 3)).data)


class Refused(Exception):
    """ansible-inventory could not read the file."""


@pytest.fixture
def read(tmp_path):
    program = f"{os.path.dirname(sys.executable)}/ansible-inventory"
    if not os.path.exists(program):
        pytest.skip("needs ansible-inventory beside the Python of the tests")

    def run(*others, **config):
        """What ansible-inventory says of a file with these settings, and of other sources."""
        path = tmp_path / "plant.acrn_scenario.yml"
        path.write_text(yaml.safe_dump({"plugin": "acrn.ivshmem.scenario", **config}))
        environment = {**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_NOCOLOR": "1"}
        sources = [word for source in (*others, path) for word in ("-i", str(source))]
        words = [program, *sources, "--list", "--export"]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        run.told = " ".join(done.stderr.split())
        if done.returncode:
            # Older versions of ansible-core wrap lines.
            raise Refused(run.told)
        return json.loads(done.stdout, object_hook=unwrap)

    return run


class AdHoc:
    """The program ansible, with an inventory file of this plugin and others beside it."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder

    def write(self, **config):
        text = yaml.safe_dump({"plugin": "acrn.ivshmem.scenario", **config})
        (self.folder / "plant.acrn_scenario.yml").write_text(text)

    def __call__(self, *words, sources=("plant.acrn_scenario.yml",)):
        inventories = [word for name in sources for word in ("-i", str(self.folder / name))]
        # As Ansible does by default: a source that fails is a warning.
        environment = {**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "false"}
        words = (self.program, *inventories, *words)
        return subprocess.run(words, capture_output=True, text=True, env=environment, check=False).stdout


@pytest.fixture
def ad_hoc(tmp_path):
    program = f"{os.path.dirname(sys.executable)}/ansible"
    if not os.path.exists(program):
        pytest.skip("needs ansible beside the Python of the tests")
    return AdHoc(program, tmp_path)


def unwrap(value):
    """Texts without ansible-inventory's mark for those that are not templates."""
    return value.get("__ansible_unsafe", value)


def members(inventory, group):
    return sorted(inventory[group]["hosts"])


def variables(inventory, host):
    return inventory["_meta"]["hostvars"][host]


def vms_of(path):
    return read_scenario(path.read_bytes(), str(path)).vms


def test_machines_and_vms(read, tmp_path):
    path = tmp_path / "scenarios/line.xml"
    write_scenario(path)
    inventory = read(scenarios=[{"path": "scenarios/line.xml", "hosts": ["m1", "m2"], "acrn_version": "3.3"}])
    assert members(inventory, "acrn_hosts") == ["m1", "m2"]
    others = [vm.name for vm in vms_of(path) if vm.load_order != "service"]
    assert members(inventory, "acrn_vms") == sorted(f"{m}-{name}" for m in ("m1", "m2") for name in others)
    assert "acrn_guests" not in inventory
    machine = variables(inventory, "m1")
    assert (machine["acrn_scenario"], machine["acrn_version"]) == (str(path), "3.3")
    assert "acrn_host" not in machine
    names = {vm.id: vm.name for vm in vms_of(path)}
    log = members(inventory, "acrn_region_log_1")
    assert log == sorted(f"{m}-{names[vm]}" for m in ("m1", "m2") for vm in (2, 3))
    guest = variables(inventory, f"m1-{names[2]}")
    assert (guest["acrn_host"], guest["acrn_vm"], guest["acrn_vm_id"]) == ("m1", names[2], 2)
    fast, slow = guest["acrn_vm_regions"]
    assert (fast["name"], fast["provided_by"], fast["size"]) == ("fast", "hypervisor", 2)
    assert slow["peers"] == [f"m1-{names[3]}"]
    assert slow["slot"] == int(slow["vbdf"][3:5], 16)
    assert set(members(inventory, "acrn_land_dm")) == set(log)


def test_the_regions_of_the_file_are_what_site_would_keep(read, tmp_path):
    path = tmp_path / "line.xml"
    write_scenario(path)
    inventory = read(scenarios=[{"path": "line.xml", "hosts": ["m1"], "acrn_version": "3.3"}])
    assert inventory["all"]["vars"]["ivshmem_regions"] == "{{ acrn_scenario_regions | default([]) }}"
    regions = variables(inventory, "m1")["acrn_scenario_regions"]
    spec = scenario_regions.ARGUMENTS["argument_spec"]
    params = {name: option.get("default") for name, option in spec.items()}
    params.update(path=str(path), regions=regions, state="exact", acrn_version="3.3", backup=False)
    assert call(scenario_regions.main, Light(params))["changed"] is False
    with pytest.raises(Heavy):
        call(scenario_regions.main, Light({**params, "regions": regions[:1]}))


def test_a_region_with_a_mistake_is_told_and_never_lost(read, tmp_path):
    both = [("POST2", "00:08.0"), ("POST3", "00:08.0")]
    lost = [
        scenarios.region_v3("good", *both),
        scenarios.region_v3("badsize", *both, size="4 MB"),
        scenarios.region_v3("typo", ("PROE0", "00:09.0"), ("POST2", "00:09.0")),
        scenarios.region_v3("good", *both, provider="Device Model"),
    ]
    path = tmp_path / "line.xml"
    path.write_text(scenarios.scenario("v3", scenarios.block_v3(*lost)))
    write_scenario(tmp_path / "fine.xml")
    inventory = read(scenarios=[{"path": name, "acrn_version": "3.3"} for name in ("line.xml", "fine.xml")])
    for words in (
        "line.xml: error: region 'badsize': size must be a whole number of MB without a unit, not '4 MB'",
        "line.xml: error: region 'typo': VM 'PROE0' is not in the scenario",
        "line.xml: line 7 holds a region that is not readable, or there twice",
        "line.xml: line 9 holds a region that is not readable, or there twice",
    ):
        assert words in read.told
    assert "fine.xml" not in read.told
    assert members(inventory, "acrn_region_typo") == ["line-POST2"]
    # The playbooks refuse that machine alone.
    for machine, mistakes in (("line", 3), ("fine", 0)):
        regions = variables(inventory, machine)["acrn_scenario_regions"]
        file = tmp_path / f"{machine}.xml"
        try:
            assert decide(file.read_bytes(), "f", regions, version=(3, 3)).data == file.read_bytes()
        except IvshmemError as exc:
            assert f"{mistakes} mistakes" in str(exc)
        else:
            assert not mistakes


def test_regions_that_are_switched_off_are_told_and_not_there(read, tmp_path):
    block = scenarios.block_v2("hv:/shm, 2, 0:2", enabled="n")
    (tmp_path / "off.xml").write_text(scenarios.scenario("v2", block))
    inventory = read(scenarios=[{"path": "off.xml", "acrn_version": "2.7"}])
    assert "IVSHMEM_ENABLED (line 6) is not y, so ACRN ignores what the file lists: shm" in read.told
    assert variables(inventory, "off")["acrn_scenario_regions"] == []
    assert "acrn_region_shm" not in inventory


def test_what_only_the_playbooks_need_is_not_asked_for(read, tmp_path):
    write_scenario(tmp_path / "a.xml", "hv:/a, 2, 1:2")
    read(scenarios=[{"path": "a.xml"}])
    assert "a.xml" not in read.told


def test_settings_of_vms_from_the_general_to_the_particular(read, tmp_path):
    write_scenario(tmp_path / "a.xml")
    write_scenario(tmp_path / "b.xml")
    names = {vm.id: vm.name for vm in vms_of(tmp_path / "a.xml")}
    inventory = read(
        scenarios=[{"path": "a.xml", "vms": {2: {"ansible_port": 9}}}, {"path": "b.xml"}],
        vms={"all": {"ansible_user": "u", "ansible_port": 1}, names[2]: {"ansible_user": "v"}},
        compose={"ansible_host": "acrn_host ~ '-' ~ acrn_vm_id"},
        keyed_groups=[{"key": "acrn_vm_load_order", "prefix": "by"}],
        groups={"users": "ansible_user == 'v'"},
    )
    first, second = (variables(inventory, f"{m}-{names[2]}") for m in "ab")
    assert (first["ansible_user"], first["ansible_port"], first["ansible_host"]) == ("v", 9, "a-2")
    assert (second["ansible_user"], second["ansible_port"]) == ("v", 1)
    assert members(inventory, "users") == [f"{m}-{names[2]}" for m in "ab"]
    assert members(inventory, "acrn_guests") == members(inventory, "acrn_vms")
    # compose asks for acrn_host, which a machine has only where it is a guest as well.
    assert "ansible_host" not in variables(inventory, "a")
    assert f"a-{names[2]}" in members(inventory, "by_post_launched")


def test_files_of_one_name_keep_their_own_regions(read, tmp_path):
    write_scenario(tmp_path / "a/line.xml", "hv:/one, 2, 0:2")
    write_scenario(tmp_path / "b/line.xml", "hv:/two, 2, 0:2")
    paths = [{"path": f"{name}/line.xml", "hosts": [f"m{name}"]} for name in "ab"]
    inventory = read(scenarios=paths)
    for machine, name in (("ma", "one"), ("mb", "two")):
        assert [region["name"] for region in variables(inventory, machine)["acrn_scenario_regions"]] == [name]


@pytest.mark.parametrize("group", ["acrn_hosts", "all"])
def test_regions_that_the_user_declares_count_for_more(group, ad_hoc, tmp_path):
    write_scenario(tmp_path / "a.xml")
    ad_hoc.write(scenarios=[{"path": "a.xml"}])
    (tmp_path / "own.yml").write_text(yaml.safe_dump({group: {"vars": {"ivshmem_regions": ["hv:/mine, 2, 0:2"]}}}))
    words = ("acrn_hosts", "-m", "ansible.builtin.debug", "-a", "var=ivshmem_regions")
    assert "log_1" in ad_hoc(*words)
    for sources in (("plant.acrn_scenario.yml", "own.yml"), ("own.yml", "plant.acrn_scenario.yml")):
        said = ad_hoc(*words, sources=sources)
        assert ("hv:/mine" in said, "log_1" in said) == (True, False)


def test_compose_is_for_vms(read, tmp_path):
    write_scenario(tmp_path / "a.xml")
    names = {vm.id: vm.name for vm in vms_of(tmp_path / "a.xml")}
    compose = {"ansible_host": "acrn_host ~ '-vm' ~ acrn_vm_id"}
    inventory = read(scenarios=[{"path": "a.xml"}], vms={"service": {}}, compose=compose, strict=True)
    assert variables(inventory, "a")["acrn_host"] == "a"
    assert "ansible_host" not in variables(inventory, "a")
    assert variables(inventory, f"a-{names[2]}")["ansible_host"] == "a-vm2"


def test_a_machine_may_be_in_another_source_too(read, tmp_path):
    write_scenario(tmp_path / "a.xml")
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": {"ansible_host": "192.0.2.1"}}}}))
    machine = variables(read(tmp_path / "hosts.yml", scenarios=[{"path": "a.xml"}]), "a")
    assert (machine["ansible_host"], machine["acrn_scenario"]) == ("192.0.2.1", str(tmp_path / "a.xml"))


@pytest.mark.parametrize("mistake", [{"vms": {"NOBODY": {}}}, {"scenarios": [{"path": "a.xml"}, {"path": "none.xml"}]}])
def test_a_source_with_a_mistake_leaves_no_part_of_a_fleet(mistake, ad_hoc, tmp_path):
    write_scenario(tmp_path / "a.xml")
    ad_hoc.write(**{"scenarios": [{"path": "a.xml"}], **mistake})
    assert "hosts (0):" in ad_hoc("acrn_hosts,acrn_vms", "--list-hosts")


STRICT = {"strict": True, "compose": {"ansible_host": "nowhere ~ acrn_host"}}
NO_GROUP = {"keyed_groups": [{"key": "acrn_vm_id"}]}


@pytest.mark.parametrize("mistake", [STRICT, NO_GROUP], ids=["strict", "key"])
def test_an_expression_that_fails_leaves_no_part_of_a_fleet(mistake, ad_hoc, tmp_path):
    write_scenario(tmp_path / "a.xml")
    ad_hoc.write(scenarios=[{"path": "a.xml", "hosts": ["m1", "m2"]}], **mistake)
    own = {"plant": {"hosts": {"m1": {"acrn_scenario": "mine.xml"}, "other": None}}}
    (tmp_path / "own.yml").write_text(yaml.safe_dump(own))
    sources = ("own.yml", "plant.acrn_scenario.yml")
    words = ("all", "-m", "ansible.builtin.debug", "-a", "msg={{ [group_names, acrn_scenario | d()] }}")
    said = ad_hoc(*words, sources=sources)
    assert ("m1 |" in said, "other |" in said, said.count("SUCCESS")) == (True, True, 2)
    assert ("mine.xml" in said, "a.xml" in said, "acrn_" in said) == (True, False, False)
    ad_hoc.write(scenarios=[{"path": "a.xml", "hosts": ["m1", "m2"]}])
    assert "hosts (2):" in ad_hoc("acrn_hosts", "--list-hosts", sources=sources)


def test_strict_asks_a_machine_for_nothing_that_only_vms_have(read, tmp_path):
    vms = [vm for vm in scenarios.VMS if vm[2] != "service"]
    for name, text in (("a", scenarios.scenario("v2")), ("b", scenarios.scenario("v2", vms=vms))):
        (tmp_path / f"{name}.xml").write_text(text)
    inventory = read(
        scenarios=[{"path": "*.xml"}],
        strict=True,
        compose={"place": "'here' ~ acrn_vm_id"},
        keyed_groups=[{"key": "acrn_host", "prefix": "at"}, {"key": "acrn_vm_type"}, {"key": "place", "prefix": ""}],
        groups={"first": "acrn_host == 'a'"},
    )
    assert members(inventory, "at_a") == members(inventory, "first") == ["a", "a-POST2", "a-POST3", "a-PRE0"]
    assert members(inventory, "at_b") == ["b", "b-POST2", "b-POST3", "b-PRE0"]
    assert members(inventory, "_SERVICE_VM") == ["a"]
    assert members(inventory, "_here2") == ["a-POST2", "b-POST2"]
    assert "acrn_host" not in variables(inventory, "a")


def test_a_port_behind_a_name(read, tmp_path):
    write_scenario(tmp_path / "a.xml")
    config = {"scenarios": [{"path": "a.xml", "hosts": ["m-[1:2]:2222", "n", "[fe80::1]:23", 7]}]}
    inventory = read(**config)
    assert members(inventory, "acrn_hosts") == ["7", "fe80::1", "m-1", "m-2", "n"]
    hosts = ("m-1", "m-2", "n", "fe80::1", "n-POST2")
    ports = [variables(inventory, host).get("ansible_port") for host in hosts]
    assert ports == [2222, 2222, None, 23, None]
    config["scenarios"][0]["vars"] = {"ansible_port": 24}
    assert variables(read(**config), "m-1")["ansible_port"] == 24


def test_a_machine_has_the_name_of_no_other_group(read, tmp_path):
    write_scenario(tmp_path / "a.xml")
    (tmp_path / "own.yml").write_text(yaml.safe_dump({"plant": {"hosts": {"x": None}}}))
    for name in ("all", "ungrouped", "plant", "acrn_hosts", "acrn_region_fast", "mine"):
        with pytest.raises(Refused, match=f"the host {name} has the name of a group; name machine {name} otherwise"):
            read(tmp_path / "own.yml", scenarios=[{"path": "a.xml", "hosts": [name]}], groups={"mine": "true"})
    assert members(read(scenarios=[{"path": "a.xml", "hosts": ["acrn_1"]}]), "acrn_hosts") == ["acrn_1"]


def test_names_of_machines():
    names = ("m", "m.x", "7", "m_1-a", "fe80::1", "ü")
    assert [name for name in names if scenario.is_name(name)] == list(names)
    assert not [
        name for name in ("", "m 1", "m1,m2", "m1:x", "m[1", "a/b", "*", "!m", "x::m") if scenario.is_name(name)
    ]


@pytest.mark.parametrize(
    ("hosts", "machines"), [("m-1", ["m-1"]), (["m-[1:3]", "n"], ["m-1", "m-2", "m-3", "n"])], ids=["text", "range"]
)
def test_names_and_ranges_of_machines(hosts, machines, read, tmp_path):
    write_scenario(tmp_path / "a.xml")
    assert members(read(scenarios=[{"path": "a.xml", "hosts": hosts}]), "acrn_hosts") == machines


def test_the_board_of_a_scenario_that_does_not_name_it(read, tmp_path):
    (tmp_path / "board.xml").write_text(scenarios.board_xml().replace('board="board"', 'board="its-name"'))
    (tmp_path / "a.xml").write_text(scenarios.scenario("v3").replace('board="board" scenario="line"', ""))
    inventory = read(scenarios=[{"path": "a.xml", "board_path": "board.xml"}])
    assert members(inventory, "acrn_board_its_name") == ["a"]


def test_a_name_in_a_scenario_is_no_template(ad_hoc, tmp_path):
    (tmp_path / "a.xml").write_text(scenarios.scenario("v3").replace("<name>POST3<", "<name>{{ 6 * 7 }}<"))
    ad_hoc.write(scenarios=[{"path": "a.xml"}])
    said = ad_hoc("acrn_vms", "-m", "ansible.builtin.debug", "-a", "var=acrn_vm")
    assert ("{{ 6 * 7 }}" in said, "42" in said) == (True, False)


def test_a_glob_stands_for_one_machine_a_file(read, tmp_path):
    for name in ("one", "two"):
        write_scenario(tmp_path / f"{name}.xml")
    assert members(read(scenarios=[{"path": "*.xml"}]), "acrn_hosts") == ["one", "two"]
    with pytest.raises(Refused, match="stands for 2 files; leave hosts out"):
        read(scenarios=[{"path": "*.xml", "hosts": ["m"]}])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scenarios": [{"path": "none.xml"}]}, "none.xml: cannot be read"),
        ({"scenarios": [{"path": "bad.xml"}]}, "bad.xml"),
        ({"scenarios": [{}]}, "an entry of scenarios has no path"),
        ({"scenarios": [{"path": "a.xml", "host": "x"}]}, "the unknown host; it may have path, hosts"),
        ({"scenarios": [{"path": "a.xml"}, {"path": "./a.xml"}]}, "there are two hosts a; name this one otherwise"),
        ({"scenarios": [{"path": "a.xml"}], "vms": {"NOBODY": {}}}, "no scenario has the VM NOBODY of vms; they have"),
        ({"scenarios": [{"path": "a.xml", "acrn_version": "new"}]}, "new"),
        ({"scenarios": ["a.xml"]}, "is a mapping with path, not 'a.xml': write - path: a.xml"),
        ({"scenarios": [{"path": "a.xml", "vars": "x"}]}, "vars beside a.xml is a mapping of variables, not 'x'"),
        ({"scenarios": [{"path": "a.xml", "vms": {"NOBODY": {}}}]}, "has the VM NOBODY of vms beside .*a.xml; they"),
        ({"scenarios": [{"path": "a.xml"}], "vms": {2: "root"}}, "vms maps VMs to mappings of variables"),
        ({"scenarios": [{"path": "link.xml"}]}, "link.xml: holds only the path ../line.xml: .* checked out as text"),
        ({"scenarios": [{"path": "a.xml", "hosts": 5}]}, "hosts beside a.xml is 5; write a list of names"),
        ({"scenarios": [{"path": "a.xml", "hosts": {"m": None}}]}, "hosts beside a.xml is {'m': None}; write a list"),
        ({"scenarios": [{"path": "a.xml", "hosts": "m[1:"}]}, r"a.xml has 'm\[1:', which is no name and no range"),
        ({"scenarios": [{"path": "a.xml", "hosts": ["m[2:1]"]}]}, r"a.xml has 'm\[2:1\]', which is no name and no"),
        ({"scenarios": [{"path": "a.xml", "hosts": ["m", True]}]}, "a.xml has True, which is no name and no range"),
        ({"scenarios": [{"path": "a.xml", "hosts": ["m[1:3]", "m2"]}]}, "hosts beside a.xml names m2 twice"),
    ],
)
def test_mistakes_are_named(config, message, read, tmp_path):
    write_scenario(tmp_path / "a.xml")
    (tmp_path / "bad.xml").write_text("<a>")
    (tmp_path / "link.xml").write_text("../line.xml")
    with pytest.raises(Refused, match=message):
        read(**config)


def test_the_cache_never_shows_an_old_file(read, tmp_path):
    write_scenario(tmp_path / "a.xml")
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    config = {"scenarios": [{"path": "a.xml", "acrn_version": "3.3"}], **cache}
    assert "acrn_region_fast" in read(**config)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_text(kept.read_text().replace("fast", "from_the_cache"))
    assert "acrn_region_from_the_cache" in read(**config)
    write_scenario(tmp_path / "a.xml", "hv:/other, 2, 0:2")
    inventory = read(**config)
    assert "acrn_region_other" in inventory
    assert "acrn_region_from_the_cache" not in inventory


def shape(value):
    """The keys of all mappings in a value, of a list those of its first element."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_what_the_cache_holds_is_of_one_format(tmp_path, monkeypatch):
    """Whoever changes what is kept raises FORMAT, and with it the number here."""
    write_scenario(tmp_path / "a.xml")
    plugin = scenario.InventoryModule()
    plugin._options = {"scenarios": [{"path": "a.xml", "acrn_version": "3.3"}]}
    (entry,) = plugin._entries(str(tmp_path))
    vm = dict.fromkeys(("id", "name", "load_order", "vm_type", "uuid"))
    region = dict.fromkeys(("name", "provided_by", "size"))
    place = dict.fromkeys(("id", "name", "load_order", "vbdf", "slot"))
    assert (scenario.FORMAT, shape(plugin._read(entry))) == (
        1,
        {
            **dict.fromkeys(("dialect", "acrn_version", "board", "scenario")),
            "vms": [{**vm, "functions": [dict.fromkeys(("bdf", "kind", "what"))]}],
            "regions": [{**region, "region_id": None, "vms": [place]}],
            "declared": [{**region, "vms": [dict.fromkeys(("name", "vbdf"))]}],
            "told": None,
        },
    )
    monkeypatch.setattr(scenario, "FORMAT", 2)
    (later,) = plugin._entries(str(tmp_path))
    assert later["digest"] != entry["digest"]


def test_names_that_no_host_can_have():
    vms = [
        {"id": 0, "name": "ACRN PRE-LAUNCHED VM0", "load_order": "pre_launched"},
        {"id": 1, "name": "SOS", "load_order": "service"},
        {"id": 2, "name": "VM 1", "load_order": "post_launched"},
        {"id": 3, "name": "VM_1", "load_order": "post_launched"},
    ]
    names = scenario.host_names("m", vms)
    assert names == {0: "m-ACRN_PRE-LAUNCHED_VM0", 1: "m", 2: "m-VM_1", 3: "m-VM_1-3"}
    assert scenario.references(vms) == {vm["id"]: vm["name"] for vm in vms}
    assert scenario.references([*vms, {**vms[0], "id": 4}]) == {0: 0, 1: "SOS", 2: "VM 1", 3: "VM_1", 4: 4}
    assert scenario.group_name("board", "whl-ipc-i5") == "acrn_board_whl_ipc_i5"


def test_real_scenarios(read):
    paths = [str(path) for path, _dialect in scenarios.real_files()]
    if not paths:
        pytest.skip(f"no reference data in {scenarios.SHARED}")
    machines = [f"m{number}" for number in range(len(paths))]
    inventory = read(scenarios=[{"path": path, "hosts": [machine]} for path, machine in zip(paths, machines)])
    assert members(inventory, "acrn_hosts") == sorted(machines)
    for machine, path in zip(machines, paths):
        assert variables(inventory, machine)["acrn_scenario"] == path
        assert any(host.startswith(f"{machine}-") for host in inventory["acrn_vms"]["hosts"])
