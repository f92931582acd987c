# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the README and docs/ show: names that exist, inventories that can be planned, playbooks that can be read."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from ansible_collections.acrn.ivshmem.plugins.plugin_utils._variables import KNOWN
from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT, command

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
# File in an inventory -> file of the project.
FILES = {
    **{path.name: path for path in (ROOT / "examples").rglob("scenarios/*.xml")},
    "press-1.xml": ROOT / "examples/demo/scenarios/press-line.xml",
    "whl-ipc-i5.xml": ROOT / "molecule/default/inventory/board.xml",
}
PREFIX = r"(?:acrn|ivshmem|scenario|hypervisor|launch|guest|verify|plan|report|adopt|remove|examples)_"


def blocks(*kinds):
    """The blocks of code of these kinds: page and its number, text."""
    for page in PAGES:
        for number, (indent, kind, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
            if kind in kinds:
                yield f"{page.stem}-{number}", re.sub(f"(?m)^{indent}", "", text)


def hosts_of(content):
    """The ACRN hosts of a block, if it is an inventory."""
    group = content.get("acrn_hosts", {}) if isinstance(content, dict) else {}
    return group.get("hosts", {})


YAML = {name: yaml.safe_load(text) for name, text in blocks("yaml")}
COMMANDS = [(name, line) for name, text in blocks("console") for line in text.replace("\\\n", " ").splitlines()]
INVENTORIES = {
    name: content
    for name, content in YAML.items()
    if any("acrn_scenario" in (host or {}) for host in hosts_of(content).values())
}


def keys(value):
    if isinstance(value, dict):
        for key, part in value.items():
            yield str(key)
            yield from keys(part)
    elif isinstance(value, list):
        for part in value:
            yield from keys(part)


def test_there_is_something_to_test():
    assert (len(INVENTORIES) > 8, len(COMMANDS) > 40, len(YAML) > 15) == (True, True, True)


def test_variables_exist():
    groups = {"acrn_hosts", "acrn_guests", "acrn_builders"}
    wrong = [
        (name, key)
        for name, content in YAML.items()
        for key in keys(content)
        if re.match(PREFIX, key) and key not in KNOWN | groups
    ]
    for name, line in COMMANDS:
        said = re.findall(rf"-e '?({PREFIX}\w+)=", line) + re.findall(rf"\{{\"({PREFIX}\w+)\"", line)
        wrong += [(name, key) for key in said if key not in KNOWN]
    assert wrong == []


def test_playbooks_exist():
    named = [
        (name, part)
        for name, line in COMMANDS
        for part in re.findall(r"(?:playbook|run) .*?acrn\.ivshmem\.(\w+)", line)
    ]
    assert len(named) > 20
    assert [each for each in named if not (ROOT / f"playbooks/{each[1]}.yml").exists()] == []


def fleet(folder):
    """All inventories in one, the hosts of each with its name in front."""
    hosts, guests = {}, {}
    for block, content in INVENTORIES.items():

        def renamed(group, block=block, content=content):
            part = content.get(group, {}) or {}
            rows = {f"{block}-{name}": {**(row or {})} for name, row in part.get("hosts", {}).items()}
            common = {**part.get("vars", {})}
            for row in (*rows.values(), common):
                if "acrn_host" in row:
                    row["acrn_host"] = f"{block}-{row['acrn_host']}"
            return {"hosts": rows, "vars": common}

        hosts[f"{block.replace('-', '_')}_hosts"] = renamed("acrn_hosts")
        guests[f"{block.replace('-', '_')}_guests"] = renamed("acrn_guests")
    for row in [each for part in hosts.values() for each in (*part["hosts"].values(), part["vars"])]:
        for name in ("acrn_scenario", "acrn_board"):
            if "/" in row.get(name, ""):
                (folder / row[name]).parent.mkdir(exist_ok=True)
                shutil.copy(FILES[row[name].rpartition("/")[2]], folder / row[name])
        # There is no tree here that would tell the version.
        if row.pop("acrn_source", None):
            row["acrn_version"] = "2.7"
    inventory = {"acrn_hosts": {"children": hosts}, "acrn_guests": {"children": guests}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))
    return {name for part in hosts.values() for name in part["hosts"]}


def test_inventories_can_be_planned(tmp_path):
    hosts = fleet(tmp_path)
    words = ("-i", "hosts.yml", "acrn.ivshmem.plan", "-e", "plan_ask=false", "-e", "plan_json=plan.json")
    done = command(tmp_path, "ansible-playbook", *words, timeout=600)
    assert re.findall(r"What nobody reads\] \**\nok.*", done.stdout) == []
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert ({each["host"] for each in plan["hosts"]}, plan["errors"]) == (hosts, [])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name, content in YAML.items() if isinstance(content, list)])
def test_playbooks_can_be_read(name, tmp_path):
    if not any("import_playbook" in key or key == "hosts" for play in YAML[name] for key in play):
        pytest.skip("a list of something else than plays")
    (tmp_path / "play.yml").write_text(yaml.safe_dump(YAML[name]))
    done = command(tmp_path, "ansible-playbook", "--syntax-check", "play.yml")
    assert done.returncode == 0, done.stdout
