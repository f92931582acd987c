# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The JSON Schemas of the files for programs, for all tests that make such a file."""

from __future__ import annotations

import json
import pathlib
import re

PLACE = pathlib.Path(__file__).absolute().parents[2] / "meta/schema"


def holds(name, value):
    """A value that is as its schema (``plan`` or ``verify``) says. Old environments have no jsonschema."""
    try:
        import jsonschema
    except ImportError:
        return value
    schema = json.loads((PLACE / f"{name}.json").read_text(encoding="utf-8"))
    wrong = jsonschema.Draft7Validator(schema).iter_errors(json.loads(json.dumps(value)))
    assert [f"{error.json_path}: {error.message}"[:400] for error in wrong] == []
    return value


def kept(folder, words):
    """Hold against their schemas what a playbook has been asked to keep with -e plan_json= or verify_json=."""
    if not {"acrn.ivshmem.plan", "acrn.ivshmem.site", "acrn.ivshmem.verify"}.intersection(words):
        return
    for name, path in re.findall(r"(?m)^(plan|verify)_json=(\S+)$", "\n".join(words)):
        file = pathlib.Path(folder, path)
        if file.is_file():
            holds(name, json.loads(file.read_text(encoding="utf-8")))
