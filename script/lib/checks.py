# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""script/test: every check of the project.

A check is a step: a function that runs commands on an own copy of the collection, with an own log. Steps run a few at
a time. A step that finds nothing to check, or that cannot run on this machine for a reason that is no fault of the
project (no Python 3.12), says so and is not counted.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Iterable, Mapping, Sequence

import docs
import machine

LOGS = machine.CACHE / "log"
# What virtual machines need.
LAB = ("tools", "lab", "host")
TAIL = 60  # lines of a failed step's log that are shown
# How tools begin the line of a finding: ansible-test, pytest in its summary, nox, the importer.
FINDING = re.compile(r"(ERROR|FATAL|WARNING):|(FAILED|ERROR) tests/|nox > Session \S+ (aborted|failed|raised)")


class Failed(Exception):
    """A check found something."""


class LeftOut(Exception):
    """There is nothing to do, or it cannot be done on this machine."""


@dataclass(frozen=True)
class Options:
    """What the user chose on the command line."""

    long: bool
    jobs: int
    extra: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One check. ``late``: virtual machines, which wait for each other and would suffer from the company of all that
    takes whole processors, so they run after the others, two at a time.
    """

    name: str
    about: str
    check: Callable[[Context], None]
    groups: tuple[str, ...] = ()
    venv: str = "main"
    apt: tuple[str, ...] = ()
    late: bool = False
    minutes: int = 40


class Processes:
    """The commands that run now, so that an interrupted run leaves none behind. Called from several threads."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self, words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        with self._lock:
            if self._stopped:
                raise Failed("interrupted")
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, text=True, start_new_session=True, **options)
            self._pids.add(process.pid)
            return process

    def ended(self, pid: int) -> None:
        """A command has ended."""
        with self._lock:
            self._pids.discard(pid)

    def stop(self) -> None:
        """End all commands; none starts any more."""
        with self._lock:
            self._stopped = True
            for pid in self._pids:
                kill(pid)


class Context:
    """What a step works with: its copy of the collection, its environment, its log."""

    def __init__(self, step: Step, options: Options, log: IO[str], running: Processes) -> None:
        self.step = step
        self.options = options
        self.note = ""
        self._log = log
        self._running = running
        self._end = time.monotonic() + 60 * step.minutes * (4 if options.long else 1)
        self.base = machine.tree(step.name)
        self.root = machine.collection(self.base)
        self.env = machine.environment(step.venv, self.base)
        if options.long:
            self.env["ACRN_IVSHMEM_LONG"] = "1"

    def files(self, *patterns: str) -> list[str]:
        """Paths in the copy that match glob patterns, relative to its root, without git's own."""
        found = {p.relative_to(self.root) for pattern in patterns for p in self.root.glob(pattern)}
        return sorted(str(p) for p in found if p.parts[:1] != (".git",))

    def say(self, text: str) -> None:
        """Write a line to the log."""
        self._log.write(f"{text}\n")
        self._log.flush()

    def run(
        self,
        *words: str,
        cwd: Path | None = None,
        ok: Iterable[int] = (0,),
        keep: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command, its output going to the log. Raises Failed on an exit code that is not in ``ok``.

        ``keep``: standard output goes to the caller and not to the log.
        """
        self.say(f"$ {' '.join(words)}")
        process = self._running.start(
            words,
            cwd=cwd or self.root,
            env={**self.env, **(env or {})},
            stdout=subprocess.PIPE if keep else self._log,
            stderr=self._log if keep else subprocess.STDOUT,
        )
        try:
            output = process.communicate(timeout=max(1.0, self._end - time.monotonic()))[0]
        except subprocess.TimeoutExpired:
            kill(process.pid)
            process.wait()
            raise Failed(f"no end after {self.step.minutes} minutes: {words[0]}") from None
        finally:
            self._running.ended(process.pid)
        self.say("")
        if process.returncode not in ok:
            raise Failed(f"exit code {process.returncode}: {Path(words[0]).name} {' '.join(words[1:3])}")
        return output or ""

    def log_text(self) -> str:
        """What the log holds so far."""
        self._log.flush()
        return Path(self._log.name).read_text(errors="replace")


def kill(pid: int) -> None:
    """End a command and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


# ---- the checks ----


def check_nox(context: Context) -> None:
    """The sessions of noxfile.py that run by default: those of antsibull-nox."""
    words = ("nox", "--envdir", str(machine.CACHE / "nox"), "--reuse-existing-virtualenvs")
    # Else formatters change the copy, and are content.
    context.run(*words, *context.options.extra, env={"CI": "true"})
    log = context.log_text()
    # The importer's, which nox only shows.
    found = re.findall(r"^\s*(?:WARNING|ERROR): .*", log, re.M)
    if found:
        raise Failed(f"{len(found)} findings of the importer")
    sessions = re.findall(r"^nox > \* ([\w-]+): success", log, re.M)
    if not sessions:
        raise Failed("nox ran no session")
    context.note = ", ".join(sessions)


def check_mypy(context: Context) -> None:
    config = ["--config-file", str(context.root / "mypy.ini")]
    # From the directory above ansible_collections, so that full names resolve.
    paths = [str((context.root / p).relative_to(context.base)) for p in context.files("plugins/**/*.py")]
    if paths:
        context.run("mypy", *config, *paths, cwd=context.base)
    # Scripts import what lies beside them.
    for directory in ("script/lib", "tests/lab", "tests/acrn", "tests/bench"):
        scripts = [
            path for path in context.files(f"{directory}/*.py") if not re.match(r"test_|conftest", Path(path).name)
        ]
        if scripts:
            context.run("mypy", *config, *scripts, env={"MYPYPATH": f"{directory}:{context.base}"})


def check_shellcheck(context: Context) -> None:
    scripts = []
    for path in context.files("**/*"):
        file = context.root / path
        if file.is_file() and not file.is_symlink() and not path.endswith(".j2"):
            with open(file, "rb") as handle:
                first = handle.readline(80)
            if re.match(rb"#!.*\b(ba|da)?sh\b", first) or (path.endswith((".sh", ".bash")) and first):
                scripts.append(path)
    context.run("shellcheck", "--external-sources", *scripts)
    context.note = f"{len(scripts)} scripts"


def check_bandit(context: Context) -> None:
    """What runs on hosts, at every level; what runs on developers' machines, where it could matter."""
    context.run("bandit", "--quiet", "--recursive", "plugins")
    context.run("bandit", "--quiet", "--recursive", "-ll", "script")


def pytest(context: Context, *paths: str, without: Sequence[str] = ()) -> None:
    """Run pytest on those of the paths that exist, and not on what lies in ``without``."""
    present = [p for p in paths if (context.root / p).exists()]
    if not any(p.endswith(".py") or context.files(f"{p}/**/test_*.py") for p in present):
        raise LeftOut("nothing to do")
    marks = [] if context.options.long else ["-m", "not long"]
    context.run(
        *("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-ra", "--durations=5", "--color=no"),
        *marks,
        *(f"--ignore={path}" for path in without),
        *context.options.extra,
        *present,
        ok=(0, 5),
        env={"PYTHONPATH": str(context.base)},
    )
    summary = r"^(?:=+ )?(\d+ (?:passed|skipped|deselected).*?|no tests ran.*?) in "
    counts = re.findall(summary, context.log_text(), re.M)
    context.note = counts[-1] if counts else ""
    if not re.search(r"\d+ passed", context.note):
        raise LeftOut(f"nothing to do ({context.note})" if context.note else "nothing to do")


def check_unit(context: Context) -> None:
    pytest(context, "tests/unit")


def check_browser(context: Context) -> None:
    pictures = machine.CACHE / "screenshots"
    context.env["ACRN_IVSHMEM_SCREENSHOTS"] = str(pictures)
    pytest(context, "tests/browser")
    context.note += f"; pictures in {os.path.relpath(pictures)}"


def check_meta(context: Context) -> None:
    pytest(context, "tests/meta")


def check_integration(context: Context) -> None:
    """Playbooks on local hosts, and ACRN's tools as oracles. With trees of ACRN, a row of figures for each of them."""
    figures = machine.CACHE / "releases.jsonl"
    figures.unlink(missing_ok=True)
    context.env["ACRN_IVSHMEM_FIGURES"] = str(figures)
    pytest(context, "tests/integration_acrn")
    if figures.exists():
        rows = [json.loads(line) for line in figures.read_text().splitlines()]
        edits = sum(row["edits"] for row in rows)
        context.note += f"; {edits} edits for {len(rows)} releases: {os.path.relpath(figures)}"


def check_lab(context: Context) -> None:
    pytest(context, "tests/lab")


def check_acrn(context: Context) -> None:
    """ACRN itself in an emulator; without its source, the parts of that machine alone."""
    context.env["ACRN_IVSHMEM_CACHE"] = str(machine.CACHE)
    pytest(context, "tests/acrn")
    if not os.environ.get("ACRN_SRC"):
        context.note += "; to boot ACRN itself, set ACRN_SRC to a clone of acrn-hypervisor with its tags, or to a tree"


def check_reliability(context: Context) -> None:
    """Kills, failing calls, crowds and hostile input. The figures stay beside the logs' directory."""
    figures = machine.CACHE / "reliability.json"
    figures.unlink(missing_ok=True)
    context.env["ACRN_IVSHMEM_FIGURES"] = str(figures)
    pytest(context, "tests/reliability")
    if figures.exists():
        rows = json.loads(figures.read_text())
        tried, survived = (sum(row[name] for row in rows) for name in ("tried", "survived"))
        context.note += f"; {survived} of {tried} attacks survived: {os.path.relpath(figures)}"


def check_liars(context: Context) -> None:
    """Hosts that lie to playbooks and filters, on another ansible-core."""
    files = ("test_lying_guest.py", "test_liars_in_a_plant.py", "test_lying_hostvars.py")
    pytest(context, *(f"tests/reliability/{name}" for name in files))


def check_core(context: Context) -> None:
    """Unit tests and playbooks on another ansible-core. What knows nothing of ansible-core is left to the long run."""
    syntax(context)
    without: Sequence[str] = ()
    if not context.options.long:
        plain = [
            path for path in context.files("tests/unit/plugins/plugin_utils/test_*.py") if not asks_core(context, path)
        ]
        without = ("tests/unit/plugins/module_utils", "tests/unit/lab", *plain)
    pytest(context, "tests/unit", without=without)
    version = context.run("ansible", "--version", keep=True).splitlines()[0]
    context.note = f"{version}; {context.note}"


def asks_core(context: Context, test: str) -> bool:
    """Whether a test in plugin_utils, or the file that it is for, imports anything of ansible-core."""
    own = context.root / "plugins" / "plugin_utils" / Path(test).name.replace("test", "", 1)
    texts = [path.read_text(encoding="utf-8") for path in (context.root / test, own) if path.exists()]
    return any(re.search(r"^(?:from|import) ansible[. ]", text, re.M) for text in texts)


def syntax(context: Context, env: Mapping[str, str] | None = None) -> None:
    """ansible-playbook --syntax-check of every playbook, by its full name, without an inventory."""
    for playbook in context.files("playbooks/*.yml"):
        name = f"acrn.ivshmem.{Path(playbook).stem}"
        context.run("ansible-playbook", "--syntax-check", name, cwd=context.base, env=env)


def spell(minors: Iterable[str]) -> str:
    """Minor versions of Python 3 in their order, as one string."""
    return ", ".join(f"3.{minor}" for minor in sorted(minors, key=int))


# The tests of what runs on targets.
TARGETS = ("tests/unit/plugins/module_utils/", "tests/unit/plugins/modules/")


def check_ansible_units(context: Context) -> None:
    if not context.files("tests/unit/**/test_*.py"):
        raise LeftOut("nothing to do")
    # Modules and module_utils run on the target's Python, so their tests run on the oldest, too. The step "unit" has
    # run them on the controller's, and sanity imports everything on each.
    able = able_pythons(context)
    for version in able if context.options.long else able[:1]:
        words = ["--venv", "--python", version, "--color", "no", "--truncate", "0", *context.options.extra]
        if not context.options.long:
            words += [path for path in TARGETS if context.files(f"{path}test_*.py")]
        context.run("ansible-test", "units", *words)
    log = context.log_text()
    counts = re.findall(r"(\d+) passed", log)
    versions = set(re.findall(r"^Unit test \w+ with Python 3\.(\d+)$", log, re.M))
    if not counts or not versions:
        raise Failed("ansible-test ran no test")
    context.note = f"Python {spell(versions)}; {sum(map(int, counts))} passed"


def able_pythons(context: Context) -> list[str]:
    """The Pythons of this machine that the step's ansible-test can work with, the oldest first."""
    found = machine.pythons()
    table = "from ansible_test._util.target.common import constants as c\n"
    table += "print(*c.REMOTE_ONLY_PYTHON_VERSIONS, *c.CONTROLLER_PYTHON_VERSIONS)"
    return [version for version in context.run("python", "-c", table, keep=True).split() if version in found]


def check_sanity(context: Context) -> None:
    words = ("ansible-test", "sanity", "--color", "no", "--truncate", "0", *context.options.extra)
    newest = set(machine.pythons()) & set(machine.VENVS["newest"])
    # What takes most of the time is done once: each Python imports every file on one ansible-core, and the newest one
    # has the newest rules of pylint.
    if context.options.long or not newest:
        context.run(*words)
    elif context.step.venv == "main":
        context.run(*words, "--skip-test", "pylint")
    else:
        each = ("import", "compile")
        context.run(*words, *(word for test in each for word in ("--skip-test", test)))
        context.run(*words, *(w for test in each for w in ("--test", test)), "--python", able_pythons(context)[-1])
    log = context.log_text()
    # What is skipped for want of a tool is a warning to ansible-test.
    for line in re.findall(r"WARNING: (.*could not be found.*|Skipping.*missing.*)", log):
        context.say(f"note: {line}")
    versions = set(re.findall(r'sanity test "compile" on Python 3\.(\d+)$', log, re.M))
    if not versions or "All targets skipped" in log:
        raise Failed("ansible-test checked no file")
    context.note = f"Python {spell(versions)}"


def check_ansible_lint(context: Context) -> None:
    context.run("ansible-lint", "--offline", "--profile", "production", "--nocolor", *context.options.extra)
    counts = re.findall(r"in (\d+ files) processed", context.log_text())
    if not counts or counts == ["0 files"]:
        raise Failed("ansible-lint checked no file")
    context.note = counts[-1]


def check_docs_site(context: Context) -> None:
    """The site as users read it."""
    site = docs.build(context.base, machine.CACHE / "docs", context.run)
    pages = len(list(site.rglob("*.html")))
    context.note = f"{pages} pages; {os.path.relpath(site)}"


def check_changelog(context: Context) -> None:
    context.run("antsibull-changelog", "lint")


def build(context: Context) -> Path:
    """Build the artefact; return its path."""
    output = context.base / "artefact"
    output.mkdir(exist_ok=True)
    context.run("ansible-galaxy", "collection", "build", "--force", "--output-path", str(output))
    (artefact,) = output.glob("acrn-ivshmem-*.tar.gz")
    return artefact


# What the artefact holds; everything else in it is a mistake in the manifest of galaxy.yml.
ARTEFACT = re.compile(
    r"(LICENSE|README\.md|CHANGELOG\.md|CODE_OF_CONDUCT\.md|CONTRIBUTING\.md|MAINTAINERS\.md|SECURITY\.md"
    r"|REUSE\.toml|\.ansible-lint|changelogs/(config|changelog)\.yaml|(LICENSES|meta|plugins|roles|playbooks|docs|examples)/.*)$"
)
# What tools and people leave in a clone.
LITTER = (
    *(".coverage", ".idea/workspace.xml", ".nox/lint/a.py", ".vscode/settings.json", ".pre-commit-config.yaml"),
    *("collections/a/b.yml", "docs/.DS_Store", "node_modules/a/a.js", "plugins/modules/a.py.orig"),
    *("plugins/modules/__pycache__/a.cpython-311.pyc", "report.html", "roles/launch/tasks/.main.yml.swp", "venv/a.py"),
)


def check_artefact(context: Context) -> None:
    """Build the artefact in a clone that was worked in, look what is in it, install it, and use what was installed."""
    expected = {p for p in context.files("**/*") if (context.root / p).is_file() and ARTEFACT.match(p)}
    for path in LITTER:
        file = context.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    artefact = build(context)
    for path in LITTER:
        (context.root / path).unlink()
    with tarfile.open(artefact) as archive:
        names = {member.name for member in archive.getmembers() if not member.isdir()}
    wrong = sorted(names - expected - {"FILES.json", "MANIFEST.json"})
    lacking = sorted(expected - names)
    for text, paths in (("does not belong in the artefact", wrong), ("is not in the artefact", lacking)):
        for path in paths:
            context.say(f"{path}: {text}")
    if wrong or lacking:
        raise Failed("galaxy.yml, manifest: wrong content of the artefact")

    place = context.base / "installed"
    words = ("collection", "install", "--offline", "--no-deps", "--force", "--collections-path", str(place))
    context.run("ansible-galaxy", *words, str(artefact))
    installed = {"ANSIBLE_COLLECTIONS_PATH": str(place)}
    listed = context.run("ansible-doc", "--list", "--json", "acrn.ivshmem", cwd=context.base, keep=True, env=installed)
    for module in context.files("plugins/modules/*.py"):
        if f"acrn.ivshmem.{Path(module).stem}" not in json.loads(listed):
            raise Failed(f"ansible-doc does not find {module} in the installed collection")
    syntax(context, installed)
    context.note = f"{len(names)} files, {artefact.stat().st_size // 1024} KiB"


MACHINES: dict[str, threading.Lock] = {}


def check_molecule(scenario: str) -> Callable[[Context], None]:
    # host and host-long are about the same machine.
    machine_is_free = MACHINES.setdefault(scenario.partition("-")[0], threading.Lock())

    def check(context: Context) -> None:
        with machine_is_free:
            context.run(
                *("molecule", "test", "-s", scenario, *context.options.extra),
                env={
                    "MOLECULE_PRERUN": "false",
                    "MOLECULE_COMMAND_BORDERS": "false",
                    "NO_COLOR": "1",
                    "ANSIBLE_NOCOLOR": "1",
                    "COLUMNS": "140",
                },
            )

    return check


def steps(options: Options) -> list[Step]:
    """All steps, in the order in which they start: what takes long first."""
    found = [
        Step(
            "integration",
            "tests/integration_acrn with pytest: roles that run, real ACRN trees if ACRN_SRC is set",
            check_integration,
            apt=("tools",),
            minutes=60,
        ),
        Step("sanity", "ansible-test sanity, every Python", check_sanity, ("ansible-test",), apt=("tools",)),
        Step(
            "nox",
            "antsibull-nox: formatters, linters, licences, documentation, importer",
            check_nox,
            ("lint", "galaxy"),
        ),
        Step("mypy", "mypy, strict", check_mypy, ("lint",)),
        Step("shellcheck", "shellcheck of all shell scripts", check_shellcheck, ("lint",), apt=("tools",)),
        Step("bandit", "bandit: weaknesses in the Python code", check_bandit, ("lint",), venv="security"),
        Step("changelog", "antsibull-changelog lint", check_changelog, ("lint",)),
        Step("meta", "tests/meta: what the files of the project promise each other", check_meta, ("lint", "unit")),
        Step("unit", "tests/unit with pytest", check_unit, ("unit",), apt=("tools",)),
        Step(
            "reliability",
            "tests/reliability: kills, failing calls, crowds, hostile input",
            check_reliability,
            apt=("tools", "faults"),
        ),
        Step(
            "acrn",
            "tests/acrn: the hypervisor that the collection built, in an emulator, if ACRN_SRC is set",
            check_acrn,
            apt=("tools", "lab", "emulator") if os.environ.get("ACRN_SRC") else ("tools", "lab"),
            # Its own limits count processor time; this one is for what hangs on a machine that is busy with others.
            minutes=240,
        ),
        Step("browser", "the report in chromium, with pictures of it", check_browser, apt=("tools", "browser")),
        Step("ansible-lint", "ansible-lint, profile production", check_ansible_lint, ("lint",)),
        Step("docs-site", "the documentation site, without a warning", check_docs_site, venv="docs"),
        Step(
            "ansible-units",
            "ansible-test units on the oldest Python",
            check_ansible_units,
            ("ansible-test",),
            apt=("tools",),
        ),
        Step(
            "sanity-newest",
            "ansible-test sanity of the newest ansible-core",
            check_sanity,
            ("ansible-test", "newest"),
            venv="newest",
            apt=("tools",),
        ),
        Step("core-floor", "unit tests on the oldest ansible-core", check_core, ("floor",), "floor", ("tools",)),
        Step("core-newest", "unit tests on the newest ansible-core", check_core, ("newest",), "newest", ("tools",)),
        Step("artefact", "build, content, installation and use of the artefact", check_artefact, ("galaxy",)),
        Step(
            "lab",
            "tests/lab with pytest: virtual machines",
            check_lab,
            apt=LAB,
            late=True,
            minutes=60,
        ),
    ]
    if options.long:
        found += [
            Step(
                f"liars-{name}", f"hosts that lie, on the {which} ansible-core", check_liars, (name,), name, ("tools",)
            )
            for name, which in (("floor", "oldest"), ("newest", "newest"))
        ]
    scenarios = sorted((machine.ROOT / "molecule").glob("*/molecule.yml"))
    for path in scenarios:
        if options.long or not re.search(r"^# script/test: long$", path.read_text(), re.M):
            name = path.parent.name
            about = f"molecule scenario {name}"
            check = check_molecule(name)
            found.append(
                Step(
                    f"molecule-{name}",
                    about,
                    check,
                    ("molecule",),
                    apt=LAB,
                    late=True,
                    minutes=60,
                )
            )
    return found


def select(every: Sequence[Step], words: Sequence[str]) -> list[Step]:
    """The steps that the words (names of steps and groups) choose; all without words. Raises ValueError."""
    chosen = set()
    for word in words:
        fitting = {step.name for step in every if word == step.name or word in step.groups}
        if not fitting and word != "molecule":
            raise ValueError(f"no step or group {word!r}; see script/test --list")
        chosen |= fitting
    return [step for step in every if not words or step.name in chosen]


# ---- running them ----


class Report:
    """Lines on the terminal, and the counts for the last one. Methods are called from several threads."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: dict[str, list[str]] = {}  # step -> what it found
        self._lock = threading.Lock()

    def line(self, word: str, name: str, seconds: float | None, note: str = "") -> None:
        took = "" if seconds is None else f"{seconds:7.1f} s"
        with self._lock:
            print(f"{word:<9} {name:<18} {took:>9}  {note}".rstrip(), flush=True)

    def done(self, name: str, seconds: float, note: str) -> None:
        self.passed += 1
        self.line("ok", name, seconds, note)

    def broke(self, name: str, seconds: float, reason: str, log: Path) -> None:
        lines = log.read_text(errors="replace").rstrip().splitlines()
        with self._lock:
            self.failed[name] = [text for text in lines if FINDING.match(text)] or [reason]
            print(f"{'FAILED':<9} {name:<18} {seconds:7.1f} s  {reason}")
            before, shown = lines[:-TAIL], lines[-TAIL:]
            for text in [f"... ({len(before)} lines of the log are above this)", *shown] if before else shown:
                print(f"    {text}")
            print(f"    log: {os.path.relpath(log)}", flush=True)


def prepare(chosen: Sequence[Step], report: Report) -> dict[str, Exception]:
    """Make packages and virtual environments that the steps need. Returns what could not be made: name -> why."""
    problems: dict[str, Exception] = {}

    def one(name: str, make: Callable[[machine.Say], object]) -> None:
        start = time.monotonic()
        said: list[str] = []
        try:
            make(said.append)
        except machine.NoPython as error:
            problems[name] = error
            return  # the steps that need it say so
        except machine.MachineError as error:
            problems[name] = error
        if said or name in problems:
            report.line("setup", name, time.monotonic() - start, "failed" if name in problems else "; ".join(said))

    # Packages first: one of them may be what makes virtual environments possible.
    for group in sorted({group for step in chosen for group in step.apt}):
        one(f"apt {group}", lambda say, group=group: machine.apt(group, say))  # type: ignore[misc]
    names = list(dict.fromkeys(step.venv for step in chosen))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: one(f"venv {name}", lambda say: machine.venv(name, say)), names))
    return problems


def run_step(step: Step, options: Options, problems: dict[str, Exception], report: Report, running: Processes) -> None:
    """Run one step and report it."""
    path = LOGS / f"{step.name}.log"
    start = time.monotonic()
    with open(path, "w") as log:
        try:
            for need in (f"venv {step.venv}", *(f"apt {group}" for group in step.apt)):
                if need in problems:
                    log.write(f"{problems[need]}\n")
                    if isinstance(problems[need], machine.NoPython):
                        raise LeftOut(str(problems[need]))
                    raise Failed(f"could not set up {need}")
            context = Context(step, options, log, running)
            step.check(context)
        except LeftOut as reason:
            report.line("-", step.name, None, str(reason))
            return
        except (Failed, machine.MachineError, OSError, subprocess.SubprocessError, ValueError) as error:
            log.flush()
            report.broke(step.name, time.monotonic() - start, str(error), path)
            return
    report.done(step.name, time.monotonic() - start, context.note)


def main(arguments: Sequence[str]) -> int:
    """The command line of script/test."""
    parser = argparse.ArgumentParser(
        prog="script/test",
        description="Run every check of the project, or the steps and groups that are named.",
        epilog="Arguments after -- go to the tools of the steps (pytest, ansible-test, ansible-lint, molecule).",
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help="a step or a group of steps")
    parser.add_argument("--long", action="store_true", help="also what takes long")
    parser.add_argument("--list", action="store_true", help="list the steps and their groups")
    jobs = min(os.cpu_count() or 1, 4)
    parser.add_argument("--jobs", "-j", type=int, default=jobs, help="steps at a time, default %(default)s")
    arguments = list(arguments)
    extra: list[str] = []
    if "--" in arguments:
        place = arguments.index("--")
        arguments, extra = arguments[:place], arguments[place + 1 :]
    parsed = parser.parse_args(arguments)
    options = Options(long=parsed.long, jobs=max(1, parsed.jobs), extra=tuple(extra))
    every = steps(options)
    if parsed.list:
        for step in every:
            print(f"{step.name:<18} {step.about}{'  [' + ', '.join(step.groups) + ']' if step.groups else ''}")
        return 0
    try:
        chosen = select(every, parsed.steps)
    except ValueError as error:
        parser.error(str(error))

    def stop(*unused: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    LOGS.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    report = Report()
    running = Processes()
    try:
        problems = prepare(chosen, report)
        for late, jobs in ((False, options.jobs), (True, min(options.jobs, 2))):
            with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
                now = [step for step in chosen if step.late == late]
                futures = [pool.submit(run_step, step, options, problems, report, running) for step in now]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    running.stop()
                    raise
    except KeyboardInterrupt:
        running.stop()
        print("interrupted", file=sys.stderr)
        return 130
    print(f"\n{time.monotonic() - start:.0f} s; logs in {os.path.relpath(LOGS)}")
    # At the very end, for who sees no more of it than that.
    for name, findings in report.failed.items():
        print(f"failed: {name}")
        for text in findings[:TAIL]:
            print(f"    {text[:400]}")
    print(f"{report.passed} passed, {len(report.failed)} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
