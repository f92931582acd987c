# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs and libraries that the build of a release needs, and which of them a builder has.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._ask import ask, first_line, refused
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import Tree
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tree import PROGRAMS
from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import Bound, release_of
from ansible_collections.acrn.ivshmem.plugins.module_utils._process import run_apart, run_quiet
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

_PROBE = """
import json, sys
names, do_import, found, broken = sys.argv[2:], sys.argv[1] == "import", {}, {}
for name in names:
    try:
        from importlib.metadata import version
        found[name] = version(name)
    except ImportError as exc:
        try:
            found[name] = getattr(__import__(name), "__version__", "unknown")
        except ImportError:
            pass
    if do_import and name in found:
        try:
            __import__("lxml.etree" if name == "lxml" else name)
        except Exception as exc:
            broken[name] = "%s: %s" % (type(exc).__name__, exc)
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], "found": found, "broken": broken}))
"""


# What to install so that every ACRN version from 2.4 on is satisfied (the role's default list is the same), and what
# does for v2.4 to v2.7 and v3.3 on Python 3.12 and later, where xmlschema before 2.2 breaks in pathlib.
PYTHON_PACKAGES = ("lxml", "defusedxml", "elementpath==2.5.0", "xmlschema==1.10.0")
MODERN_PYTHON_PACKAGES = ("lxml", "defusedxml", "elementpath==4.1.5", "xmlschema==2.5.1")


def check_python(tree: Tree, probe: Mapping[str, Any], python: str) -> None:
    """Refuse an interpreter that ACRN's config tools cannot work with. ``probe`` is what ``_PROBE`` printed.

    Raises IvshmemError that names every library that is missing, broken or of a wrong version.
    """
    label = f"ACRN v{tree.version_text}"
    release = release_of(tree.version)
    problems = []
    if not release.python.holds(probe["python"]):
        problems.append(f"it is Python {probe['python']}, and the config tools of {label} need {release.python}")
    for name in tree.libraries:
        bound = release.libraries.get(name, Bound())
        if name == "xmlschema" and Bound((3, 12)).holds(probe["python"]):
            bound = Bound((2, 2), bound.high)
        found = probe["found"].get(name)
        if found is None:
            problems.append(f"{name} is missing (needed: {bound})")
        elif name in probe["broken"]:
            problems.append(f"{name} {found} cannot be imported: {probe['broken'][name]}")
        elif found != "unknown" and not bound.holds(found):
            problems.append(f"{name} is {found}, needed is {bound}")
    if problems:
        raise IvshmemError(
            f"{python}: this Python cannot run the config tools of {label}, and without them ACRN skips the validation "
            "of the scenario or breaks in it: " + "; ".join(problems) + ". Make a virtual environment with "
            f"{', '.join(_packages_for(tree, probe['python']))} and name it in the python parameter"
        )


def _packages_for(tree: Tree, python: str) -> list[str]:
    if tree.kconfig:
        return ["Python 3.8", "lxml", "kconfiglib"]
    if not Bound((3, 12)).holds(python):
        return list(PYTHON_PACKAGES)
    if release_of(tree.version).python.holds(python):
        return list(MODERN_PYTHON_PACKAGES)
    return ["Python 3.11 or older", *PYTHON_PACKAGES]


def check_compiler(tree: Tree, cc: str, family: str, major: int) -> None:
    """Refuse a compiler that cannot compile this ACRN version, before any time is spent. Raises IvshmemError."""
    for needed in release_of(tree.version).gcc:
        if family == "gcc" and major >= needed.major and needed.word not in cc:
            why = needed.why.format(release=f"ACRN v{tree.version_text}")
            raise IvshmemError(f"'{cc}' is GCC {major}, which {why}; {needed.mend.format(cc=cc)}")


def find_python(value: str | None, environment: Mapping[str, str]) -> str:
    if value:
        python = os.path.join(value, "bin", "python3") if os.path.isdir(value) else value
        found = shutil.which(python, path=environment["PATH"])
        if not found:
            raise IvshmemError(
                f"python '{value}': is neither an interpreter nor a virtual environment with bin/python3"
            )
        return os.path.abspath(found)
    found = shutil.which("python3", path=environment["PATH"])
    if not found:
        raise IvshmemError("there is no python3 in PATH, which ACRN's make runs its config tools with")
    return found


def find_programs(tree: Tree, cc: str, variables: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The programs that the build will run, by role. Raises one IvshmemError that names all that are missing."""
    wanted = {"make": ("make", "make")}
    for program, _pattern, package in PROGRAMS:
        if program in tree.programs:
            wanted[program] = (program, package)
    if "iasl" in wanted and variables.get("ASL_COMPILER"):
        wanted["iasl"] = (variables["ASL_COMPILER"], "acpica-tools")
    if tree.compiles:
        words = shlex.split(cc)
        compiler = next((word for word in words if os.path.basename(word) not in ("ccache", "env")), "cc")
        # Without recommended packages, GCC comes without the headers that ACRN's own checks include.
        wanted["cc"] = (compiler, f"{'gcc' if compiler == 'cc' else os.path.basename(compiler)} libc6-dev")
        objcopy = variables.get("OBJCOPY") or environment.get("OBJCOPY") or "objcopy"
        wanted["objcopy"] = (shlex.split(objcopy)[0], "binutils")
        wanted["bash"] = ("bash", "bash")
    found, missing, packages = {}, [], []
    for role, (program, package) in wanted.items():
        path = shutil.which(program, path=environment["PATH"])
        if path:
            found[role] = path
        else:
            missing.append(program)
            packages.append(package)
    if missing:
        raise IvshmemError(
            f"{', '.join(missing)}: not found in PATH, but ACRN v{tree.version_text} needs it to build; "
            f"on Debian: apt-get install {' '.join(packages)}"
        )
    if shutil.which("clang-format", path=environment["PATH"]):
        # ACRN formats the generated C files with it where it is there, which moves line numbers in debug information.
        found["clang-format"] = "clang-format"
    return found


def _compiler(cc: str, environment: Mapping[str, str]) -> tuple[str, int]:
    # -x c with /dev/null as input keeps this independent of the shell; the macros come back expanded.
    words = shlex.split(cc)
    code, macros = run_quiet([*words, "-dM", "-E", "-x", "c", "/dev/null"], environment)
    found = dict(re.findall(r"^#define (\w+) (.*)$", macros, re.MULTILINE)) if code == 0 else {}
    if "__clang__" in found:
        return "clang", int(found.get("__clang_major__", "0"))
    if "__GNUC__" in found:
        return "gcc", int(found["__GNUC__"])
    raise IvshmemError(f"CC '{cc}': this is no C compiler that can be run: {macros.strip()[:200]}")


def toolchain_of(
    tree: Tree, programs: Mapping[str, str], cc: str, variables: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """The versions of what makes the bytes, by program."""
    versions = {}
    for role, path in sorted(programs.items()):
        if role in ("cc", "bash"):
            continue
        command = [path, "-v"] if role == "iasl" else [path, "--version"]
        text = ask(command, environment)
        lines = [line.replace(path, role).strip() for line in text.splitlines() if re.search(r"\d\.\d|\d{5}", line)]
        versions[role] = lines[0] if lines else text.strip()[:200]
    if tree.compiles:
        family, major = _compiler(cc, environment)
        check_compiler(tree, cc, family, major)
        words = shlex.split(cc)
        versions["cc"] = first_line([*words, "--version"], environment)
        for part in ("ld", "as"):
            path = variables.get("LD", "") if part == "ld" else ""
            path = path or first_line([*words, f"-print-prog-name={part}"], environment) or part
            versions[part] = first_line([path, "--version"], environment)
    return versions


def prefix_maps(cc: str, source: str, out: str, environment: Mapping[str, str]) -> list[str]:
    """Options that keep the paths of tree and build directory out of the debug information, and so out of the build ID.

    GCC 8 and later take the first kind, which covers __FILE__; but only the second reaches the assembler in GCC 11.
    """
    flags = []
    for option in ("-ffile-prefix-map", "-fdebug-prefix-map"):
        both = [f"{option}={source}=/acrn", f"{option}={out}=/acrn-build"]
        command = [*shlex.split(cc), *both, "-E", "-x", "c", "/dev/null"]
        code, told = run_quiet(command, environment)
        # Without them the same key would stand for other bytes, so only the compiler itself can say that it has none.
        if code == 0:
            flags += both
        elif option not in told:
            raise refused(command, code, told)
    return flags


def probe_python(python: str, tree: Tree, environment: Mapping[str, str], imports: bool) -> dict[str, Any]:
    """Ask an interpreter for its version and those of the libraries; with ``imports`` also whether they load."""
    words = [python, "-c", _PROBE, "import" if imports else "look", *tree.libraries]
    code, text, errors = run_apart(words, environment)
    try:
        if code == 0:
            probe: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
            return probe
    except (ValueError, IndexError):
        pass
    raise IvshmemError(f"{python}: this interpreter cannot be run: {(errors or text).strip()[-300:]}")
