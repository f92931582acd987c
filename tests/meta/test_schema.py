# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON Schemas: made from the documentation, true for what the collection takes, and of use against mistakes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ansible_collections.acrn.ivshmem.plugins.module_utils import _region
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, parse_region
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _plan, _verdict, _verify, _waiting

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "meta/schema").glob("*.json")}


def wrong(schema, content):
    """What a schema has against a content."""
    return [error.message for error in jsonschema.Draft7Validator(SCHEMAS[schema]).iter_errors(content)]


def test_they_are_made_from_what_is_documented():
    done = subprocess.run([ROOT / "script/schema", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SCHEMAS)
def test_they_are_schemas(name):
    jsonschema.Draft7Validator.check_schema(SCHEMAS[name])
    own = yaml.safe_load((ROOT / "meta/inventory_variables.yml").read_text(encoding="utf-8"))["options"]
    assert [name for name, option in own.items() if not option.get("description")] == []


def inventories():
    """Inventories of the examples, of the pages, and of the tests."""
    for path in [*(ROOT / "examples").rglob("inventory.yml"), *(ROOT / "molecule").rglob("inventory/hosts.yml")]:
        yield str(path.relative_to(ROOT)), yaml.safe_load(path.read_text(encoding="utf-8"))
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, text in enumerate(re.findall(r"(?ms)^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"))):
            content = yaml.safe_load(text)
            if isinstance(content, dict) and "acrn_hosts" in content:
                yield f"{page.stem}-{number}", content


INVENTORIES = dict(inventories())


@pytest.mark.parametrize("name", INVENTORIES)
def test_inventories_of_the_project_hold(name):
    assert wrong("inventory", INVENTORIES[name]) == []


def test_variables_in_a_file_hold():
    path = ROOT / "examples/awx/inventory/group_vars/acrn_hosts.yml"
    assert wrong("variables", yaml.safe_load(path.read_text(encoding="utf-8"))) == []


REGION = {"name": "log", "size": 2, "vms": ["A", "B"]}
REGIONS = [
    *({**REGION, "size": size} for size in (4, "4", " 4 ", "0x4", 4.5, "4M", True, None, [])),
    *({**REGION, "name": name} for name in ("hv:/log", "dm:/log", " log ", "", 7, None)),
    *(
        {**REGION, "provided_by": by}
        for by in ("hypervisor", "device_model", "Device Model", "HV-land", "dm", None, "kvm")
    ),
    *({**REGION, "region_id": value} for value in (0, 4096, "0x1000", None, "four")),
    *({**REGION, "reserved": value} for value in (0, 4096, "8192", None, [])),
    *({**REGION, "vms": vms} for vms in ([1, "2"], [], "A", None, ["A", {"vbdf": "00:08.0"}], ["A", {"nme": "B"}])),
    *(
        {**REGION, "vms": ["A", {"name": "B", key: value}]}
        for key, value in (
            *(("vbdf", text) for text in ("00:08.0", "0000:00:0A.0", "0:8.0", "", None, "8", 8)),
            *(("slot", slot) for slot in (8, "8", None, 40)),
            *(("id", 2), ("load_order", "post_launched")),
        )
    ),
    {"name": "log", "size": 2},
    {"name": "log", "vms": ["A", "B"]},
    {**REGION, "sise": 4},
    "hv:/log, 2, 0:2",
    "dm:/log,2,A : B",
    "log",
    "hv:/log, 2",
    7,
]


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_a_region_is_refused_by_the_schema_only_where_the_collection_refuses_it(region):
    found = wrong("variables", {"ivshmem_regions": [region]})
    try:
        parse_region(region)
    except IvshmemError:
        assert found, "an editor would not tell this mistake"
    else:
        assert found == []


def test_the_schema_knows_each_key_of_a_region():
    mapping = SCHEMAS["variables"]["definitions"]["region"]["anyOf"][-1]["properties"]
    vm = mapping["vms"]["anyOf"][0]["items"]["anyOf"][-1]["properties"]
    assert (tuple(mapping), set(vm)) == (_region._KEYS, set(_region._VM_KEYS))


@pytest.mark.parametrize(
    "variables",
    [
        {"launch_mode": "tempalte"},
        {"launch_vms": [{"nmae": "A", "memory": 512}]},
        {"launch_vms": [{"name": "A", "disks": [{"options": "writethru"}]}]},
        {"hypervisor_install": "perhaps"},
        {"acrn_build": {"make_arg": []}},
        {"hypervisor_keep": "two"},
    ],
    ids=str,
)
def test_a_mistake_is_told_in_an_inventory(variables):
    assert wrong("variables", variables)
    assert wrong("inventory", {"acrn_hosts": {"hosts": {"press-1": variables}}})
    assert wrong("inventory", {"all": {"children": {"acrn_hosts": {"vars": variables}}}})


@pytest.mark.parametrize(
    "variables",
    [
        {
            "launch_mode": "{{ mode }}",
            "hypervisor_install": "no",
            "launch_restart": "{{ now }}",
            "hypervisor_keep": "2",
        },
        {"acrn_version": 3.3, "somebody_elses": {"a": 1}, "ivshmem_regions": None, "launch_vms": "{{ vms }}"},
        {"ivshmem_regions": ["{{ one }}", {**REGION, "size": "{{ size }}"}], "acrn_batch": [1, "10%"]},
    ],
    ids=str,
)
def test_templates_and_text_are_taken(variables):
    assert wrong("variables", variables) == []


def part(schema, *way):
    """The schema of a key of a file for programs; a list stands for its elements."""
    found = SCHEMAS[schema]
    for name in way:
        found = found["properties"][name]
        found = found.get("items", found)
    return found


def test_the_words_in_files_for_programs_are_those_of_the_code():
    assert part("plan", "format")["enum"] == [_plan.FORMAT]
    assert part("plan", "hosts", "waits", "state")["enum"] == list(_waiting.STATES)
    assert set(part("plan", "hosts", "regions", "change")["enum"]) == set(_plan.MARKS)
    assert list(part("plan", "summary")["properties"]) == list(_plan.summary([], []))
    assert part("verify", "mode")["enum"] == list(_verify.MODES)
    assert part("verify", "regions", "state")["enum"] == list(_verdict.STATES)


def test_a_file_for_programs_has_all_of_its_keys_and_no_others():
    """What the tests make is held against it everywhere (tests/unit/schemas.py)."""
    whole = _plan.document([_plan.without("press-1", "no")], [(["g1"], "it is away")], 0)
    assert wrong("plan", whole) == []
    (row,) = whole["hosts"]
    for other in ({**row, "more": 1}, {key: row[key] for key in row if key != "vms"}, {**row, "regions": None}):
        assert len(wrong("plan", {**whole, "hosts": [other]})) == 1
    assert wrong("verify", {}) != []


def test_files_of_programs_are_named_with_their_schemas():
    text = (ROOT / "docs/editors.md").read_text(encoding="utf-8")
    assert [name for name in SCHEMAS if f"`{name}.json`" not in text] == []
