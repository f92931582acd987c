# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""script/docs: the documentation site, from the pages in docs/, the README, and what plugins and roles tell.

Pages stay what they are where GitHub or an installed collection shows them. For the site they are copied; a link from
one page to another stays, one that leaves docs/ goes to the repository, and docs/README.md with its lists becomes the
first page with its menu. Every warning of Sphinx is an error, and nothing is asked of the network.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Sequence

import machine

REPOSITORY = "https://github.com/acrn-ivshmem/acrn.ivshmem"
# Pages from outside of docs/, by their names on the site.
OUTSIDE = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
FENCE = re.compile(r"^ *```.*?^ *```$", re.M | re.S)
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
ITEM = re.compile(r"^- \[([^]]+)\]\(([^)#\s]+)\)", re.M)
# The theme has a table of contents beside each page, and calls one in the page an error.
CONTENTS = re.compile(r"^\.\. contents::\n(?:   :.*\n)*", re.M)
# What says of itself, by its documentation fragment, that it is no part of what users may rely on.
PRIVATE = "acrn.ivshmem.private"
KINDS = {"modules": "module", "filter": "filter", "lookup": "lookup", "callback": "callback", "inventory": "inventory"}
APART = """\
Private plugins
===============

They are parts of the roles and playbooks of the collection, and can change at any time.

{}
.. toctree::
    :maxdepth: 1
    :hidden:

{}"""


def site_path(path: str) -> str | None:
    """Where a file of the project is on the site, if it is a page or a picture there."""
    if path == "docs/README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path[len("docs/") :]
    return OUTSIDE.get(path)


def relinked(text: str, path: str, root: Path) -> str:
    """The text of a page with its links as the site has them. Blocks of code stay as they are."""

    def target(match: re.Match[str]) -> str:
        link, hash_mark, anchor = match[0].partition("#")
        if not link or re.match(r"[a-z]+:", link):
            return match[0]
        meant = os.path.normpath(os.path.join(os.path.dirname(path), link))
        here = site_path(meant)
        if here is None or not (root / meant).is_file():
            kind = "tree" if (root / meant).is_dir() else "blob"
            return f"{REPOSITORY}/{kind}/main/{meant}{hash_mark}{anchor}"
        return os.path.relpath(here, os.path.dirname(site_path(path) or "") or ".") + hash_mark + anchor

    parts, at = [], 0
    for fence in FENCE.finditer(text):
        # There is no lexer for drawings, which GitHub shows as such.
        block = fence[0].replace("```mermaid", "```text")
        parts += [LINK.sub(target, text[at : fence.start()]), block]
        at = fence.end()
    return "".join([*parts, LINK.sub(target, text[at:])])


def menu(text: str) -> str:
    """The menu of the site: each section of the first page, with the pages that its list links to."""
    found = []
    for section in re.split(r"(?m)^## ", text)[1:]:
        title = section.partition("\n")[0]
        pages = [f"{text} <{re.sub('[.]md$', '', link)}>" for text, link in ITEM.findall(section)]
        if title == "Reference":
            pages.append("Modules, roles, plugins <collection/index>")
        if pages:
            found.append("\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```", ""]))
    return "\n".join(found)


def pages(root: Path, source: Path) -> None:
    """Copy the pages to where Sphinx reads them."""
    wanted = {}
    for file in [*sorted((root / "docs").rglob("*")), *(root / name for name in OUTSIDE)]:
        path = file.relative_to(root).as_posix()
        place = site_path(path)
        if file.is_file() and place and not path.startswith("docs/docsite/"):
            data = file.read_bytes()
            if file.suffix == ".md":
                text = relinked(data.decode(), path, root)
                if place == "index.md":
                    text += "\n" + menu(text)
                data = text.encode()
            wanted[place] = data
    for name, place in (("conf.py", "conf.py"), ("site.css", "static/site.css")):
        wanted[place] = (root / "script/lib/site" / name).read_bytes()
    source.mkdir(parents=True, exist_ok=True)
    for old in [p for p in source.rglob("*") if p.is_file()]:
        place = old.relative_to(source).as_posix()
        if place not in wanted and not place.startswith("collection/"):
            old.unlink()
    for place, data in wanted.items():
        file = source / place
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_bytes() != data:
            file.write_bytes(data)


def private(root: Path) -> set[str]:
    """The plugins that are private to the collection, as antsibull-docs names their pages."""
    files = [file for kind in KINDS for file in (root / "plugins" / kind).glob("*.*") if file.suffix in (".py", ".yml")]
    own = [file for file in files if re.search(rf"^ *- {re.escape(PRIVATE)}$", file.read_text(encoding="utf-8"), re.M)]
    return {f"{file.stem}_{KINDS[file.parent.name]}" for file in own}


def put_apart(index: str, names: set[str]) -> tuple[str, str]:
    """The index of all plugins without these, which get a page of their own: both texts."""
    moved: list[str] = []

    def take(match: re.Match[str]) -> str:
        if match["kind"] and f"{match['name']}_{match['kind']}" in names:
            moved.append(match[0])
            return ""
        return "" if match["page"] in names else match[0]

    item = r"^\* :ansplugin:`(?P<name>\w+) (?P<kind>\w+) <.*\n|^    (?P<page>\w+)\n"
    index = re.sub(item, take, index, flags=re.M)
    # A kind of which none is left.
    index = re.sub(
        r"^\.\. _\w+_plugins_in_\S+:\n\n.+\n~+\n\s+\.\. toctree::\n    :maxdepth: 1\n    :hidden:\n\n(?=\s*\.\. _)",
        "",
        index,
        flags=re.M,
    )
    if len(moved) != len(names):
        raise machine.MachineError(f"{len(moved)} of {len(names)} private plugins are in the index of antsibull-docs")
    index = index.rstrip("\n") + "\n\n.. toctree::\n    :maxdepth: 1\n\n    private\n"
    return index, APART.format("".join(moved), "".join(f"    {name}\n" for name in sorted(names)))


def build(base: Path, output: Path, run: Callable[..., object]) -> Path:
    """Build the site from a copy of the collection; return the directory of its HTML. ``run`` runs a command."""
    source = output / "source"
    root = machine.collection(base)
    pages(root, source)
    reference = source / "collection"
    reference.mkdir(exist_ok=True)
    reference.chmod(0o700)  # antsibull-docs wants that
    words = ("--use-current", "--squash-hierarchy", "--cleanup", "everything", "--fail-on-error")
    run("antsibull-docs", "collection", *words, "--dest-dir", str(reference), "acrn.ivshmem")
    index, apart = put_apart((reference / "index.rst").read_text(encoding="utf-8"), private(root))
    (reference / "index.rst").write_text(index, encoding="utf-8")
    (reference / "private.rst").write_text(apart, encoding="utf-8")
    for page in reference.glob("*.rst"):
        page.write_text(CONTENTS.sub("", page.read_text(encoding="utf-8")), encoding="utf-8")
    # -E: Sphinx tells what is wrong with a page when it reads it, and would not read it again.
    run("python", "-m", "sphinx", "-b", "html", "-q", "-E", "-W", "--keep-going", str(source), str(output / "html"))
    return output / "html"


def main(arguments: Sequence[str]) -> int:
    """The command line of script/docs."""
    parser = argparse.ArgumentParser(prog="script/docs", description="Build the documentation site; print where it is.")
    parser.add_argument("--output", type=Path, default=machine.CACHE / "docs", help="directory, default %(default)s")
    parser.add_argument("--fresh", action="store_true", help="build all of it anew")
    options = parser.parse_args(arguments)
    output = options.output.absolute()
    if options.fresh and output.exists():
        shutil.rmtree(output)
    try:
        machine.venv("docs", lambda text: print(text, file=sys.stderr, flush=True))
        base = machine.tree("docs")
        env = machine.environment("docs", base)

        def run(*words: str) -> None:
            done = subprocess.run(words, env=env, check=False)
            if done.returncode != 0:
                raise machine.MachineError(f"{words[0]}: exit code {done.returncode}")

        print(build(base, output, run) / "index.html")
    except machine.MachineError as error:
        print(f"script/docs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
