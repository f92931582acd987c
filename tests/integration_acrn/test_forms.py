# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each playbook says the same whichever way the booleans and numbers of its variables are given."""

from __future__ import annotations

import itertools
import json

import pytest
import yaml

from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _variables
from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import command, sample
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_messages import PLAYBOOKS, region

_WORDS = itertools.cycle(["false", "no", "off", "0", "False", "NO"])
# The others have a default, or may be 1.
_NUMBERS = {"verify_window_offset": 8}


def _pair(name, spec):
    if spec["type"] == "bool":
        return False, next(_WORDS)
    number = spec.get("default") or _NUMBERS.get(name, 1)
    return number, str(number)


# All at once: a run for each would take hours.
VALUES = {
    name: _pair(name, spec)
    for name, spec in sorted(_variables.SPECS.items())
    if spec.get("type") in ("bool", "int", "float")
}
# Which host speaks for all, and who answers first.
_TURNS = ("ok: ", "skipping: ", "changed: ", "included: ", "line-1 ", "panel ")


def fleet(folder):
    host = {**sample(folder), "ivshmem_regions": [region()], "launch_vms": [{"name": "VM1", "memory": 512}]}
    guest = {name: host[name] for name in ("ansible_connection", "ansible_python_interpreter")}
    return host, {**guest, "acrn_host": "line-1", "acrn_vm": "VM1"}


def in_yaml(folder):
    host, guest = fleet(folder)
    groups = {"acrn_hosts": {"hosts": {"line-1": host}}, "acrn_guests": {"hosts": {"panel": guest}}}
    (folder / "hosts").write_text(yaml.safe_dump(groups))


def in_ini(folder):
    host, guest = fleet(folder)
    texts = {name: pair[1] for name, pair in VALUES.items()}
    lines = []
    for section, values in (("acrn_hosts", host), ("acrn_guests", guest), ("all", texts)):
        name = {"acrn_hosts": "line-1", "acrn_guests": "panel"}.get(section)
        lines += [f"[{section}]", name] if name else []
        lines.append(f"[{section}:vars]")
        lines += [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
    (folder / "hosts").write_text("\n".join([*lines, ""]))


def told(done):
    """What a run says, in an order that no host's speed decides."""
    return done.returncode, sorted(line for line in done.stdout.splitlines() if not line.startswith(_TURNS))


# The plan looks at all variables; each other playbook looks at them by the same code, and takes a minute.
@pytest.mark.parametrize(
    "playbook", [name if name == "plan" else pytest.param(name, marks=pytest.mark.long) for name in PLAYBOOKS]
)
def test_words_and_numbers_mean_the_same_in_every_form(tmp_path, playbook):
    words = ("ansible-playbook", "-i", "hosts", f"acrn.ivshmem.{playbook}", "--check")
    in_yaml(tmp_path)
    as_values = told(command(tmp_path, *words, "-e", json.dumps({name: pair[0] for name, pair in VALUES.items()})))
    as_words = told(command(tmp_path, *words, "-e", " ".join(f"{name}={pair[1]}" for name, pair in VALUES.items())))
    in_ini(tmp_path)
    as_lines = told(command(tmp_path, *words))
    # Nothing is refused of them; that this guest has no such function is told in each form.
    assert not [line for line in as_values[1] if ": write " in line]
    assert as_words == as_values
    assert as_lines == as_values
    assert not (tmp_path / ".acrn-ivshmem").exists()
