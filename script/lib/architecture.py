# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the table of files in docs/architecture.md anew: each file with the first paragraph of its docstring."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- files: made by script/architecture -->\n", "<!-- end of files -->\n"


def files() -> list[Path]:
    """The private files of the collection's code, room by room."""
    found = [path for path in ROOT.glob("plugins/*_utils/**/_*.py") if path.name != "__init__.py"]
    return sorted(found, key=lambda path: (path.parent, path.name))


def rows() -> list[str]:
    """A row for each private file of the collection's code."""
    found = []
    for path in files():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        owns = " ".join(text.split("\n\n")[0].split())
        place = path.relative_to(ROOT / "plugins")
        found.append(f"| [`{path.name}`](../plugins/{place}) | {place.parent} | {owns} |\n")
    return found


def page(text: str) -> str:
    """The page with the table as it shall be."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n| File | Room | What it owns |\n|---|---|---|\n{''.join(rows())}\n{END}{after}"


if __name__ == "__main__":
    argparse.ArgumentParser(prog="script/architecture", description=__doc__).parse_args()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
