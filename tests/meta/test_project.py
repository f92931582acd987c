# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of the project promise each other. Each test names the files that disagree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".cache", ".ansible", "__pycache__"}


def project_files():
    """Every file of the project, as a path relative to its root. In a work tree, ``.git`` is a file."""
    for directory, names, files in os.walk(ROOT):
        names[:] = sorted(n for n in names if n not in SKIPPED)
        for file in sorted(set(files) - SKIPPED):
            yield Path(directory, file).relative_to(ROOT)


FILES = list(project_files())
MODULES = sorted(p.stem for p in FILES if p.parts[:2] == ("plugins", "modules") and p.suffix == ".py")
INVENTORIES = sorted(p.stem for p in FILES if p.parts[:2] == ("plugins", "inventory") and p.suffix == ".py")
ROLES = sorted({p.parts[1] for p in FILES if p.parts[0] == "roles" and len(p.parts) > 2})
PLAYBOOKS = sorted(f"acrn.ivshmem.{path.stem}" for path in (ROOT / "playbooks").glob("*.yml"))


def load(*parts):
    """A YAML file of the project."""
    return yaml.safe_load(ROOT.joinpath(*parts).read_text(encoding="utf-8"))


def documentation(module):
    """The DOCUMENTATION of a module, without importing it."""
    tree = ast.parse((ROOT / "plugins/modules" / f"{module}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION":
            return yaml.safe_load(ast.literal_eval(node.value))
    return {}


@pytest.mark.parametrize("module", MODULES)
def test_module_has_unit_tests(module):
    # What is an action alone runs on the controller, and so do its tests.
    kind = "action" if module == "guarded" else "modules"
    assert (ROOT / f"tests/unit/plugins/{kind}/test_{module}.py").is_file()


@pytest.mark.parametrize("module", MODULES)
def test_module_documents_its_modes(module):
    attributes = documentation(module).get("attributes", {})
    assert {"check_mode", "diff_mode", "platform"} <= set(attributes)
    # What runs another module can no more than that one.
    assert attributes["check_mode"]["support"] == ("partial" if module == "guarded" else "full")


def test_action_group_is_all_modules():
    assert load("meta", "runtime.yml")["action_groups"]["ivshmem"] == MODULES
    fragment = "acrn.ivshmem.attributes.action_group"
    assert [name for name in MODULES if fragment not in documentation(name)["extends_documentation_fragment"]] == []


@pytest.mark.parametrize("role", ROLES)
def test_role_arguments_match_defaults(role):
    specs = load("roles", role, "meta", "argument_specs.yml")["argument_specs"]
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    defaults = (load("roles", role, "defaults", "main.yml") if path.exists() else None) or {}
    options = {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}
    assert set(defaults) <= set(options), "in defaults/main.yml, not in meta/argument_specs.yml"
    lacking = {name for name, option in options.items() if name not in defaults and not option.get("required")}
    assert not lacking, "neither required nor in defaults/main.yml"
    for name, option in options.items():
        if "default" in option and name in defaults:
            assert option["default"] == defaults[name], f"two defaults of {name}"


def nothing_is_asked(text):
    """Variables that are compared with none alone. To ansible-core 2.18 a template that is none is empty text."""
    return re.findall(r"\b(__\w+) is (?:not )?none\b", text)


def test_a_template_that_is_none_may_be_empty_text():
    paths = [path for path in FILES if path.parts[0] in ("roles", "playbooks") and path.suffix in (".yml", ".j2")]
    found = {str(path): nothing_is_asked((ROOT / path).read_text(encoding="utf-8")) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}
    assert nothing_is_asked("{{ omit if __a is none else __b }}") == ["__a"]


@pytest.mark.parametrize("role", ROLES)
def test_role_has_readme(role):
    assert (ROOT / "roles" / role / "README.md").is_file()


def test_readme_names_every_part():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [*MODULES, *ROLES, *PLAYBOOKS]
    assert [part for part in parts if not re.search(rf"(?<![\w-]){re.escape(part)}(?![\w-])", text)] == []


def test_readme_has_the_filters_that_are_not_private():
    """What is private says so, and script/docs puts it apart."""
    paths = [path for path in FILES if path.parts[:2] == ("plugins", "filter") and path.suffix == ".yml"]
    documented = {path.stem: load(path)["DOCUMENTATION"] for path in paths}
    private = {name for name, told in documented.items() if "extends_documentation_fragment" in told}
    (line,) = re.findall(r"(?ms)^Filters: (.*?)\. `ansible-doc`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert (set(re.findall(r"`(\w+)`", line)), len(private) > 0) == (set(documented) - private, True)


@pytest.mark.parametrize("plugin", INVENTORIES)
def test_inventory_plugin_has_unit_tests_and_a_word_in_the_readme(plugin):
    assert (ROOT / f"tests/unit/plugins/inventory/test_{plugin}.py").is_file()
    # A role or a module may have the same name.
    words = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"inventory plugin `acrn.ivshmem.{plugin}`" in words


def test_execution_environment_has_what_the_readme_promises():
    dependencies = load("meta", "execution-environment.yml")["dependencies"]
    lines = {}
    for kind in ("python", "system"):
        text = (ROOT / dependencies[kind]).read_text(encoding="utf-8")
        lines[kind] = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines["python"] == [], "the README promises that no Python package is needed"
    # ansible-builder installs the profile compile where wheels are built, and not in the image.
    wrong = [line for line in lines["system"] if not re.fullmatch(r"[a-z0-9.+-]+( \[platform:(dpkg|rpm)\])?", line)]
    assert (wrong, len(lines["system"]) > 0) == ([], True)


def test_links_between_pages_lead_somewhere():
    broken = []
    for path in FILES:
        if path.suffix == ".md":
            text = re.sub(r"^```.*?^```", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.M | re.S)
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
                if not re.match(r"[a-z]+:", target) and not (ROOT / path.parent / target).exists():
                    broken.append(f"{path}: {target}")
    assert broken == []


def test_pages_of_the_artefact_link_to_what_is_in_it():
    """Who has installed the collection reads them there. script/test knows what is in it."""
    text = (ROOT / "script/lib/checks.py").read_text(encoding="utf-8")
    shipped = re.compile("".join(re.findall(r'r"(.*)"', text[text.index("ARTEFACT = ") : text.index("LITTER = ")])))
    assert (shipped.match("docs/rules.md") is None, shipped.match("script/test") is None) == (False, True)
    wrong = []
    for path in FILES:
        if path.suffix == ".md" and shipped.match(str(path)):
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / path).read_text(encoding="utf-8")):
                meant = os.path.normpath(path.parent / target)
                if not re.match(r"[a-z]+:", target) and not shipped.match(meant + "/" * (ROOT / meant).is_dir()):
                    wrong.append(f"{path}: {target}")
    assert wrong == []


# Spelled so that this file does not hold them itself.
HOSTS = r"galaxy\.(ansible\.com)|pypi\.(org)|pythonhosted\.(org)|deb\.(debian\.org)"
FORBIDDEN = [
    ("host of a package registry", re.compile(HOSTS)),
    ("path of a developer's machine", re.compile(r"(?<![\w.$}{~*-])/(work/(main|shared|\.\w+)|tmp/w)/")),
    ("mark of an unfinished merge", re.compile(r"^(<{7}|>{7}) ", re.M)),
]


def test_no_forbidden_text():
    found = []
    for path in FILES:
        text = (ROOT / path).read_bytes().decode(errors="replace")
        found += [f"{path}: {match.group()!r}, {what}" for what, rule in FORBIDDEN for match in rule.finditer(text)]
    assert found == []


def test_python_files_name_their_licence():
    # REUSE-IgnoreStart
    line = "SPDX-License-Identifier: GPL-3.0-or-later"
    # REUSE-IgnoreEnd
    assert [str(p) for p in FILES if p.suffix == ".py" and line not in head(ROOT / p)] == []


def head(path):
    """The first lines of a file."""
    return "\n".join(path.read_text(encoding="utf-8").splitlines()[:6])


def test_private_code_says_so():
    """The inclusion rules want private module_utils to be marked twice: an underscore, and a word in the file."""
    paths = [p for p in FILES if p.parts[:2] == ("plugins", "module_utils") and p.name != "__init__.py"]
    public = [str(p) for p in paths if not p.name.startswith("_")]
    silent = [str(p) for p in paths if "private" not in (ROOT / p).read_text(encoding="utf-8")[:2000].lower()]
    assert (public, silent) == ([], [])


def test_nothing_is_exempt_from_the_checks():
    assert [str(p) for p in FILES if p.match("tests/sanity/ignore*")] == []
    settings = load(".ansible-lint")
    assert (settings["profile"], settings["skip_list"], settings["warn_list"]) == ("production", [], [])


def test_rules_page_is_generated():
    """docs/rules.md is what script/rules prints."""
    if not (ROOT / "script/rules").exists() and not (ROOT / "docs/rules.md").exists():
        pytest.skip("no docs/rules.md yet")
    printed = subprocess.run([ROOT / "script/rules"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    page = (ROOT / "docs/rules.md").read_text(encoding="utf-8")
    assert page == printed.stdout, "run script/rules >docs/rules.md"


def test_a_device_is_described_alike_whatever_its_option_is_called():
    tree = ast.parse((ROOT / "plugins/doc_fragments/device.py").read_text())
    (fragment,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    # What reads fragments wants literals, so that they stand there in full.
    texts = [yaml.safe_load(ast.literal_eval(node.value))["options"] for node in fragment.body]
    assert [list(text) for text in texts] == [["devices"], ["regions"]]
    assert texts[0]["devices"] == texts[1]["regions"]


@pytest.mark.parametrize(
    "name", sorted({path.name for path in (ROOT / "script").iterdir() if path.is_file()} - {"bench"})
)
def test_a_script_that_is_asked_for_help_gives_it_and_does_nothing(name):
    """script/bench is left out: its help is in what it installs first."""
    before = {path: (ROOT / path).stat().st_mtime_ns for path in FILES}
    done = subprocess.run([ROOT / "script" / name, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and f"script/{name}" in done.stdout, done.stdout + done.stderr
    assert {path: (ROOT / path).stat().st_mtime_ns for path in FILES} == before
