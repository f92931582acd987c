# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON Schemas: of an inventory and of a file of variables, for editors, made from what the roles document; and of the
files that plan_json and verify_json name, for programs, made from what the filters document that put them together.

A schema of variables never refuses what the collection takes: each value may be a template, and a number or a boolean
may be text. It knows no rule of an ACRN version; these are asked by the playbook plan. A schema of a file has all of
its keys, and no others.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Mapping, Sequence

import yaml

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "meta/schema"
REPOSITORY = "https://github.com/acrn-ivshmem/acrn.ivshmem"

Schema = dict[str, Any]

TEMPLATE = {"type": "string", "pattern": r"\{\{|\{%"}
NUMBER = {"type": "string", "pattern": r"^ *(-?[0-9]+|0[xX][0-9A-Fa-f]+) *$"}
# Letter by letter: these expressions know no flags.
WORD = {
    "type": "string",
    "pattern": "^([yY]([eE][sS])?|[oO][nN]|[tT]([rR][uU][eE])?|1|[nN][oO]?|[oO][fF][fF]|[fF]([aA][lL][sS][eE])?|0)$",
}

SIZES = [2, 4, 8, 16, 32, 64, 128, 256, 512]
VBDF = "^(0{1,4}:)?[0-9A-Fa-f]{1,2}:[01]?[0-9A-Fa-f]\\.[0-7]$"
PROVIDER = "^([hH][vV]|[dD][mM]|[hH]ypervisor|HYPERVISOR|[dD]evice[ _-]?[mM]odel|DEVICE[ _-]?MODEL)([ _-]?[lL]and)?$"

VM = {
    "anyOf": [
        {"type": "string"},
        {"type": "integer", "minimum": 0},
        {
            "type": "object",
            "additionalProperties": False,
            "anyOf": [{"required": ["name"]}, {"required": ["id"]}],
            "properties": {
                "name": {"type": ["string", "integer"], "description": "The VM's name in the scenario."},
                "id": {"type": ["string", "integer", "null"], "description": "Its ID in the scenario."},
                "vbdf": {
                    "description": "Where the VM sees the region, in hexadecimal and in quotes, such as 00:08.0.",
                    "anyOf": [{"type": "string", "pattern": VBDF}, {"enum": ["", None]}, TEMPLATE],
                },
                "slot": {
                    "description": "The same in decimal, as acrn-dm writes it.",
                    "anyOf": [{"type": "integer", "minimum": 0, "maximum": 31}, NUMBER, {"type": "null"}, TEMPLATE],
                },
                "load_order": {"type": ["string", "null"], "description": "Not looked at."},
            },
        },
    ]
}
REGION = {
    "description": "A region of shared memory: a mapping, or hv:/NAME, SIZE, VM:VM as in ACRN's guide.",
    "anyOf": [
        {"type": "string", "pattern": r"^ *(hv|dm):/[^,]+,[^,]+,[^,]+:[^,]+$"},
        TEMPLATE,
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "size", "vms"],
            "properties": {
                "name": {
                    "description": "1 to 27 of A-Z a-z 0-9 _, unique on a host.",
                    "anyOf": [{"type": "string", "pattern": r"^ *((hv|dm):/)?[A-Za-z0-9_]{1,27} *$"}, TEMPLATE],
                },
                "provided_by": {
                    "description": "hypervisor (hv-land, the default) or device_model (dm-land).",
                    "anyOf": [
                        {"enum": ["hypervisor", "device_model", None]},
                        {"type": "string", "pattern": PROVIDER},
                        TEMPLATE,
                    ],
                },
                "size": {
                    "description": "MB, a power of two from 2 to 512.",
                    "anyOf": [{"enum": SIZES}, NUMBER, TEMPLATE],
                },
                "vms": {
                    "description": "The VMs that share it, by name or ID of the scenario.",
                    "anyOf": [{"type": "array", "minItems": 1, "items": VM}, TEMPLATE],
                },
                "region_id": {
                    "description": "By which guests tell regions apart, from ACRN v3.3 on; 0 for none.",
                    "anyOf": [
                        {"type": "integer", "minimum": 4096, "maximum": 65535},
                        {"enum": [0, None]},
                        NUMBER,
                        TEMPLATE,
                    ],
                },
                "reserved": {
                    "description": "Bytes at its end that applications leave to the proof.",
                    "anyOf": [
                        {"type": "integer", "minimum": 0, "multipleOf": 4096},
                        {"type": "null"},
                        NUMBER,
                        TEMPLATE,
                    ],
                },
            },
        },
    ],
}
KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "list": "array"}
# The files for programs, with the filter that documents each.
FILES = {"plan.json": ("plan_fleet", "plan_json"), "verify.json": ("probe_report", "verify_json")}
# Lists whose elements the documentation of Ansible cannot describe.
REGIONS = ("ivshmem_regions", "ivshmem_group_regions", "ivshmem_host_regions", "scenario_regions")


def plain(text: Any) -> str:
    """A description without Ansible's markup."""
    lines = [text] if isinstance(text, str) else text or []
    joined = " ".join(line.strip() for line in lines)
    joined = re.sub(r"\b[PM]\(([\w.]+)(?:#\w+)?\)", r"\1", joined)
    return re.sub(r"\b(?:RV|[VOCIB])\(((?:\\.|[^)\\])*)\)", lambda match: re.sub(r"\\(.)", r"\1", match[1]), joined)


def schema_of(name: str, option: Mapping[str, Any]) -> Schema:
    """The schema of a variable, or of a key in one."""
    kind = option.get("type", "str")
    forms: list[Schema] = []
    if name in REGIONS:
        forms = [{"type": "array", "items": {"$ref": "#/definitions/region"}}, {"type": "null"}, TEMPLATE]
    elif option.get("choices") and kind != "list":
        forms = [{"enum": option["choices"]}, TEMPLATE]
    elif kind == "bool":
        forms = [{"type": "boolean"}, {"enum": [0, 1, "", None]}, WORD, TEMPLATE]
    elif kind in ("int", "float"):
        forms = [{"type": "number"}, {"enum": ["", None]}, {"type": "string", "pattern": r"^ *-?[0-9.]+ *$"}, TEMPLATE]
    elif kind == "list":
        element = {"type": option.get("elements", "str"), **{key: option.get(key) for key in ("options", "choices")}}
        items = schema_of("", element)
        # A list may be given as text: Ansible divides it at its commas.
        forms = [{"type": "array", "items": items}, {"type": ["null", "string"]}]
    elif kind == "dict":
        found: Schema = {"type": "object"}
        if option.get("options"):
            found["properties"] = {key: schema_of(key, part) for key, part in option["options"].items()}
            found["additionalProperties"] = False
            required = [key for key, part in option["options"].items() if part.get("required")]
            if required:
                found["required"] = required
        forms = [found, {"type": "null"}, TEMPLATE]
    elif kind in ("str", "path"):
        forms = [{"type": ["string", "number", "boolean", "null"]}]
    result: Schema = {"anyOf": forms} if len(forms) > 1 else dict(forms[0]) if forms else {}
    if option.get("description"):
        result["description"] = plain(option["description"])
    if option.get("default") not in (None, "", [], {}):
        result["default"] = option["default"]
    return result


def returned(value: Mapping[str, Any]) -> Schema:
    """The schema of a value that is returned. It may be null where its description has that word.

    A key that is said to be ``returned`` sometimes need not be there.
    """
    told = plain(value["description"])
    kind = KINDS[value["type"]]
    result: Schema = {"type": [kind, "null"] if re.search(r"\bnull\b", told) else kind, "description": told}
    if value.get("choices"):
        result["enum"] = [*value["choices"], *([None] if isinstance(result["type"], list) else [])]
    inner = value.get("contains")
    element: Schema = {"type": KINDS[value.get("elements", "dict")]} if kind == "array" else result
    if inner:
        element["properties"] = {name: returned(part) for name, part in inner.items()}
        element["required"] = [name for name, part in inner.items() if not part.get("returned")]
        element["additionalProperties"] = False
    if kind == "array":
        result["items"] = element
    return result


def variables() -> Schema:
    """The schema of the variables of a host or a group. Others are none of our business."""
    options: dict[str, Any] = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            for name, option in (entry.get("options") or {}).items():
                options.setdefault(name, option)
    own = yaml.safe_load((ROOT / "meta/inventory_variables.yml").read_text(encoding="utf-8"))["options"]
    options.update(own)
    return {"type": "object", "properties": {name: schema_of(name, options[name]) for name in sorted(options)}}


def schemas() -> dict[str, Schema]:
    """The schemas, by the names of their files."""

    def whole(name: str, title: str, content: Schema, **definitions: Schema) -> Schema:
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": f"{REPOSITORY}/raw/main/meta/schema/{name}",
            "title": title,
            "$comment": "Made by script/schema; do not edit.",
            **content,
            **({"definitions": definitions} if definitions else {}),
        }

    found = {"anyOf": [{"$ref": "#/definitions/variables"}, {"type": "null"}]}
    group = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "hosts": {"type": ["object", "null"], "additionalProperties": found},
            "vars": found,
            "children": {"type": ["object", "null"], "additionalProperties": {"$ref": "#/definitions/group"}},
        },
    }
    tree: Schema = {"type": "object", "additionalProperties": {"$ref": "#/definitions/group"}}
    files = {
        "variables.json": whole(
            "variables.json", "host_vars and group_vars of acrn.ivshmem", variables(), region=REGION
        ),
        "inventory.json": whole(
            "inventory.json",
            "An inventory of acrn.ivshmem",
            tree,
            region=REGION,
            group=group,
            variables=variables(),
        ),
    }
    for name, (plugin, option) in FILES.items():
        documented = yaml.safe_load((ROOT / f"plugins/filter/{plugin}.yml").read_text(encoding="utf-8"))
        files[name] = whole(name, f"What {option} of acrn.ivshmem keeps", returned(documented["RETURN"]["_value"]))
    return files


def main(arguments: Sequence[str]) -> int:
    """The command line of script/schema."""
    parser = argparse.ArgumentParser(prog="script/schema", description="Write the JSON Schemas.")
    parser.add_argument("--check", action="store_true", help="only tell whether they are as they should be")
    options = parser.parse_args(arguments)
    wrong = []
    for name, content in schemas().items():
        path, text = PLACE / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.append(str(path.relative_to(ROOT)))
            if not options.check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if options.check and wrong:
        print(f"{', '.join(wrong)}: run script/schema", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
