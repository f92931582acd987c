# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print docs/rules.md, made from the rules in the code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

HEAD = """\
<!-- Made by script/rules from RULES in plugins/module_utils/_scenario/_rules.py; do not edit. -->
# Rules

What a declaration of regions is held against before anything is written. An *error* stops the run; all errors are told
at once, each with the region, the value, what to do, and in brackets the place of its rule on this page. A *warning* is
told and the run goes on. The IDs stay the same from release to release.

A rule holds for the ACRN versions of its row. Where the version is not known, the dialect of the scenario decides:
a rule that holds for all versions of that dialect keeps its severity, one that holds for some of them only warns.

| Rule | Severity | ACRN | What must hold |
|---|---|---|---|
"""
RULE = """
## {id}

{what}

- **{severity}**, ACRN: {versions}
- To do: {mend}
- Comes from: {source}
"""


def versions(rule: Any, first: tuple[int, int]) -> str:
    """The versions that a rule holds for, in words."""

    def text(version: tuple[int, int]) -> str:
        return f"v{version[0]}.{version[1]}"

    if rule.until is None:
        return "all" if rule.since <= first else f"{text(rule.since)} and later"
    if rule.since == rule.until:
        return text(rule.since)
    return f"up to {text(rule.until)}" if rule.since <= first else f"{text(rule.since)} to {text(rule.until)}"


def page() -> str:
    """The text of docs/rules.md."""
    # The code is imported by its full name, and a checkout may lie anywhere.
    with tempfile.TemporaryDirectory() as base:
        os.makedirs(os.path.join(base, "ansible_collections", "acrn"))
        os.symlink(ROOT, os.path.join(base, "ansible_collections", "acrn", "ivshmem"))
        sys.path.insert(0, base)
        utils = "ansible_collections.acrn.ivshmem.plugins.module_utils"
        code = importlib.import_module(f"{utils}._scenario._rules")
        first = importlib.import_module(f"{utils}._facts").FIRST
    rows, parts = [], []
    for rule in code.RULES:
        held = versions(rule, first)
        cells = [f"[`{rule.id}`](#{rule.id})", rule.severity, held, rule.what.replace("|", "\\|")]
        rows.append("| " + " | ".join(cells) + " |\n")
        told = {"what": rule.what, "mend": rule.mend, "source": rule.source}
        parts.append(RULE.format(id=rule.id, severity=rule.severity, versions=held, **told))
    return (HEAD + "".join(rows) + "".join(parts)).replace("<acrn", "&lt;acrn")


if __name__ == "__main__":
    argparse.ArgumentParser(prog="script/rules", description=__doc__).parse_args()
    sys.stdout.write(page())
