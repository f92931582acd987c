# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one door for what a host or guest answers.

Whoever owns a guest owns its Python, and can answer what they like: keys that Ansible acts on (``add_host``,
``ansible_facts``, ``unreachable``, ``ansible_stats`` and others, not the same in each version), values of a wrong type
that end the run of the whole fleet, or 100 MB. So nothing is taken out here that is known to be bad. What stays is what
the module documents in RETURN, with the type that stands there, and the few keys that every module may return.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from ansible.errors import AnsibleAction, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.unsafe_proxy import wrap_var

# Of one command: output and errors, each. The longest honest answer, the files of a large build, is a tenth of it.
BYTES = 8 << 20
# Of a file, and of what stands for one. Some connections hold it in memory.
FILE = 1 << 28
# What reading may take beside four times of that: connections of ansible-core keep what comes in pieces and as a whole.
MEMORY = 96 << 20
# Of what a terminal obeys. To replace millions of places takes a second and a hundred times their length.
SPOKEN = 100_000
DEPTH = 40
# More is an address of no PCI device. Numbers of many digits also take long to print.
LARGEST = 1 << 64
# Text that people read. Ansible compares both sides of a difference in its main process, where all hosts wait for it.
WORDS, LINES = 1 << 16, 4000
NO_RESULT = ("_ansible_", "__ansible_")
# The variable of plays that only plan.
PLAN = "__acrn_plan"
# That of plays which go on where all their hosts are lost. Ansible lets nobody rescue a host that cannot be reached.
RESCUED = "__acrn_rescued"
# What they leave in the variables of such a host.
LOST = "__acrn_lost"
# How ansible-core says, in 2.17 and in 2.19 and later, that a host has no such Python.
_NO_PYTHON = re.compile(r"module interpreter .+ was not found|need to set the interpreter")
_PYTHON = "a Python: set its variable ansible_python_interpreter to one that is there, or install it"
MASK = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"

Spec = Mapping[str, Any]


class Refused(AnsibleError):  # type: ignore[misc]  # ansible-core has no types
    """A host's answer is none. The message says why, without naming host and module."""


# -- text to values ----------------------------------------------------------------------------------------------------


def _whole(digits: str) -> int:
    if len(digits) > 21:
        raise Refused(f"a number has {len(digits)} digits")
    return int(digits)


def _no_number(word: str) -> Any:
    raise Refused(f"{word} is no number")


def read(text: str) -> dict[str, Any]:
    """The mapping that a JSON text is."""
    try:
        value = json.loads(text, parse_int=_whole, parse_constant=_no_number)
    except RecursionError:
        raise Refused("it is nested too deep") from None
    except ValueError as exc:
        raise Refused(f"it is no JSON: {exc}") from None
    if not isinstance(value, dict):
        raise Refused(f"it is {_kind(value)}, and not a dictionary")
    return value


# -- values to results -------------------------------------------------------------------------------------------------


def _kind(value: Any) -> str:
    names = {dict: "a dictionary", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def _plain_text(value: str, place: str) -> str:
    # Of no class of Ansible: they carry what a host may not say, for example that this is a template.
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refused(f"{place} is no text in UTF-8") from None
    return text


def plain(value: Any, place: str, depth: int = 0) -> Any:
    """A copy of plain values alone, at any depth, without keys that are Ansible's own."""
    if depth > DEPTH:
        raise Refused("it is nested too deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, place)
    if isinstance(value, int):
        if abs(value) > LARGEST:
            raise Refused(f"the number {place} is too large")
        return int.__int__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Refused(f"{place} is no finite number")
        return float.__float__(value)
    if isinstance(value, (list, tuple)):
        return [plain(each, f"{place}[{index}]", depth + 1) for index, each in enumerate(value)]
    if isinstance(value, Mapping):
        found = {}
        for key, each in value.items():
            if not isinstance(key, str):
                raise Refused(f"{place} has a key that is no text")
            if not key.startswith(NO_RESULT):
                name = _plain_text(key, f"a key of {place}")
                found[name] = plain(each, f"{place}.{name[:60]}", depth + 1)
        return found
    raise Refused(f"{place} is a {type(value).__name__}")


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def check_texts(value: Any, place: str = "") -> None:
    """Refuse arguments with what no file, path or program can have in it. Raises AnsibleError that names the place.

    Ansible sends it all the same, and every module ends in a traceback before its own code is reached.
    """
    if isinstance(value, str):
        found = _NO_TEXT.search(value)
        if found:
            what = "NUL" if found.group() == "\0" else "half of a character, or a byte that is no UTF-8"
            raise AnsibleError(
                f"{place} holds U+{ord(found.group()):04X} ({what}) at character {found.start() + 1}, so it is no "
                "text: mend the variable, file or command that it comes from"
            )
    elif isinstance(value, Mapping):
        for key, each in value.items():
            check_texts(key, f"a key of {place}" if place else "the name of an argument")
            check_texts(each, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            check_texts(each, f"{place}[{index}]")


def printable(value: Any) -> str:
    """Text for a terminal: short enough to be read, and nothing in it moves the cursor or changes a colour."""
    text = str.__str__(value) if isinstance(value, str) else str(value)[:WORDS]
    if len(text) > WORDS:
        text = f"{text[:WORDS]} ... ({len(text)} characters)"
    return re.sub(r"[^\n\t -~\u00a0-\ud7ff\ue000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)


def _lines(value: Any, place: str) -> list[str]:
    """Warnings: text, or the objects that newer versions of ansible-core make of it."""
    found = []
    for each in value if isinstance(value, (list, tuple)) else [value]:
        event = getattr(each, "event", None)
        text = each.get("msg") if isinstance(each, Mapping) else each if event is None else event.msg
        if not isinstance(text, str):
            raise Refused(f"{place} holds {_kind(text)}, and not text")
        found.append(printable(text))
    return found[:100]


def _difference(value: Any, place: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_difference(each, place) for each in value]
    if not isinstance(value, Mapping):
        raise Refused(f"{place} is {_kind(value)}, and not a dictionary")
    found = {}
    for key in ("before", "after", "before_header", "after_header", "prepared"):
        side = plain(value.get(key), f"{place}.{key}")
        if isinstance(side, dict) and key in ("before", "after"):
            side = json.dumps(side, indent=4, sort_keys=True) + "\n"
        elif side is not None and not isinstance(side, str):
            raise Refused(f"{place}.{key} is {_kind(side)}, and not text")
        if side is not None:
            found[key] = side
    if any(len(side) > 16 * WORDS or side.count("\n") > LINES for side in found.values()):
        return {"prepared": "(a difference that is too long to be shown)\n"}
    return found


def _boolean(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise Refused(f"{place} is {_kind(value)}, and not a boolean")
    return value


def _code(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"{place} is {_kind(value)}, and not a number")
    return int(plain(value, place))


def _said(value: Any, _place: str) -> str:
    return printable(value)


# What any module may return. The text of a module that failed to run at all is all there is to see of it.
COMMON = {
    "changed": _boolean,
    "failed": _boolean,
    "msg": _said,
    "rc": _code,
    "warnings": _lines,
    "deprecations": _lines,
    "diff": _difference,
    "module_stdout": _said,
    "module_stderr": _said,
}
_KINDS: dict[str, Any] = {
    "str": str,
    "path": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "list": (list, tuple),
    "dict": Mapping,
    "complex": (Mapping, list),
    "raw": object,
    "any": object,
}


class Contract:
    """What a module returns, by its own documentation. Ansible's keywords in RETURN have their usual meaning."""

    def __init__(self, returns: str | Spec | None, **more: Spec) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.keys: dict[str, Spec] = {
            # A safe loader, and a text of this collection.
            **((yaml.load(returns, loader) if isinstance(returns, str) else returns) or {}),  # nosec B506
            **more,
        }

    def admit(self, answer: Any) -> dict[str, Any]:
        """The part of an answer that the module documents. Raises Refused where that has a wrong type, or lacks."""
        if not isinstance(answer, Mapping):
            raise Refused(f"it is {_kind(answer)}, and not a dictionary")
        found: dict[str, Any] = {}
        for key, take in COMMON.items():
            if answer.get(key) is not None and key not in self.keys:
                found[key] = take(answer[key], key)
        # Versions of ansible-core differ in what they make of them, and they are about the module, not about the host.
        found["warnings"] = found.get("warnings", []) + found.pop("deprecations", [])
        if not found["warnings"]:
            del found["warnings"]
        failed = found.get("failed", bool(found.get("rc")))
        for key, spec in self.keys.items():
            if key in answer:
                found[key] = self._value(answer[key], spec, key)
            elif not failed and spec.get("returned") in ("always", "success"):
                raise Refused(f"it lacks {key}")
        return dict(wrap_var(found))

    def _value(self, value: Any, spec: Spec, place: str) -> Any:
        if value is None:
            return None
        kind = str(spec.get("type") or "raw")
        wrong = not isinstance(value, _KINDS[kind])
        # To Python, true is the number 1.
        if wrong or (isinstance(value, bool) and kind in ("int", "float")):
            raise Refused(f"{place} is {_kind(value)}, and not of the type {kind}")
        inner = spec.get("contains")
        if isinstance(value, Mapping) and inner:
            return {key: self._value(value[key], inner[key], f"{place}.{key}") for key in inner if key in value}
        if isinstance(value, (list, tuple)) and (inner or spec.get("elements")):
            each = {"type": spec.get("elements", "dict"), "contains": inner}
            return [self._element(item, each, f"{place}[{index}]") for index, item in enumerate(value)]
        return plain(value, place)

    def _element(self, value: Any, spec: Spec, place: str) -> Any:
        if value is None:
            raise Refused(f"{place} is null, and not of the type {spec['type']}")
        return self._value(value, spec, place)


def masked(value: Any, spec: Spec) -> Any:
    """Arguments as people may see them: by an argument_spec, what its ``no_log`` covers at any depth is left out."""
    if isinstance(value, (list, tuple)):
        return [masked(each, spec) for each in value]
    if not isinstance(value, Mapping):
        # JSON in a text, for example: what of it is secret cannot be told.
        return MASK if _secret(spec) and value is not None else value
    found = {}
    for key, each in value.items():
        option = spec.get(key, {})
        hidden = option.get("no_log") and each is not None
        found[key] = MASK if hidden else masked(each, option["options"]) if option.get("options") else each
    return found


def _secret(spec: Spec) -> bool:
    return any(option.get("no_log") or _secret(option.get("options") or {}) for option in spec.values())


# -- a task ------------------------------------------------------------------------------------------------------------


# Ansible prints parts of an answer before the contract sees it: what stands around the JSON, keys that it takes out, in
# newer versions warnings and deprecations. What a terminal obeys is gone by then, as bytes and as JSON spells it.
_OBEYED = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\r?\n)|\xc2[\x80-\x9f]")
_SPELLED = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\(?:[bf]|r(?!(?:\\r)?\\n)|u00(?:0[0-8bcdefBCDEF]|1[0-9a-fA-F]|7[fF]|[89][0-9a-fA-F]))"
)


def for_terminals(output: bytes) -> bytes:
    """What a host has printed, without what moves the cursor, changes a colour, or has a terminal answer."""
    output, count = _OBEYED.subn("\N{REPLACEMENT CHARACTER}".encode(), output, SPOKEN)
    # In text without any JSON a backslash is one, as in a path of Windows.
    if b"{" in output and count < SPOKEN:
        output, count = _SPELLED.subn(rb"\1\\ufffd", output, SPOKEN)
    if count == SPOKEN:
        raise Refused(f"it holds {SPOKEN} control characters or more")
    return output


class _Endless(BaseException):
    """Too much was read. No Exception: connections take those for a lost connection, and ask again."""


def _memory() -> int:
    """The most that this process has ever taken, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def bounded(most: int) -> Iterator[None]:
    """Stop reading what has no end. No connection of ansible-core has a limit, and each reads in its own way.

    Who reads takes processor time, and by that the clock goes: who waits is left alone, and so is the alarm that is the
    ``timeout`` of a task. A limit of memory would be one for what is started, too: local builds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    start = _memory()

    def look(_signal: int, _frame: Any) -> None:
        if _memory() - start > MEMORY + 4 * most:
            signal.setitimer(signal.ITIMER_PROF, 0)
            raise _Endless

    before = signal.signal(signal.SIGPROF, look)
    try:
        signal.setitimer(signal.ITIMER_PROF, 0.05, 0.05)
        yield
        signal.setitimer(signal.ITIMER_PROF, 0)
    except _Endless:
        raise Refused(f"it went on after {most} bytes, which are the most that is taken") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before or signal.SIG_DFL)


@contextlib.contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file that is written meanwhile, by this process or one that it starts, gets larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft == resource.RLIM_INFINITY or soft > most:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def limited(connection: Any, most: int = BYTES) -> Iterator[None]:
    """Refuse what is too long where it comes in, before it is decoded, cut into lines and parsed; keep it printable."""
    own: dict[str, Any] = {name: getattr(connection, name, None) for name in ("exec_command", "put_file", "fetch_file")}
    files = 0

    def exec_command(*args: Any, **kwargs: Any) -> Any:
        with bounded(most):
            code, *outputs = own["exec_command"](*args, **kwargs)
        for number, output in enumerate(outputs):
            if isinstance(output, (bytes, str)) and len(output) > most:
                raise Refused(f"it is {len(output)} bytes long; {most} are the most that is taken")
            if isinstance(output, bytes) and not files:
                outputs[number] = for_terminals(output)
            elif isinstance(output, str) and not files:
                outputs[number] = for_terminals(output.encode(errors="surrogatepass")).decode(errors="surrogatepass")
        return (code, *outputs)

    # Some connections move files by a command. Nothing of it is printed.
    def put_file(*args: Any, **kwargs: Any) -> Any:
        nonlocal files
        files += 1
        try:
            with bounded(FILE):
                return own["put_file"](*args, **kwargs)
        finally:
            files -= 1

    def fetch_file(*args: Any, **kwargs: Any) -> Any:
        nonlocal files
        files += 1
        try:
            with bounded(most), small_files(most):
                return own["fetch_file"](*args, **kwargs)
        finally:
            files -= 1

    ways = {"exec_command": exec_command, "put_file": put_file, "fetch_file": fetch_file}
    ways = {name: way for name, way in ways.items() if own[name]}
    for name, way in ways.items():
        setattr(connection, name, way)
    try:
        yield
    finally:
        for name in ways:
            delattr(connection, name)


@contextlib.contextmanager
def read_by_core() -> Iterator[None]:
    """What ansible-core itself stumbles over in an answer is the answer's fault, and no end of the play."""
    try:
        yield
    except (AnsibleError, RecursionError):
        raise
    except Exception as exc:
        raise Refused(f"ansible-core cannot read it: {type(exc).__name__}: {exc}") from exc


class DoorAction(ActionBase):  # type: ignore[misc]
    """Runs a module and keeps, of what the host answers, what ``contract`` has."""

    _supports_async = True

    contract = Contract(None)
    # Has ARGUMENTS where an option of it is nothing to show.
    module: Any = None
    most = BYTES

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if result.get("skipped"):
            return result
        try:
            check_texts(self._task.args)
            with limited(self._connection, self.most):
                answer = self._answer(task_vars or {})
            result.update(self._contract().admit(answer))
            if result.get("failed") and _NO_PYTHON.search(str(result.get("msg"))):
                # ansible-core 2.17 does not name it, and sends to outputs that no table has.
                missing = str(self._used_interpreter or "").lstrip("!#")
                result["msg"] = f"The Python {missing} was not found. {self._whom(task_vars)} needs {_PYTHON}"
        except (Refused, RecursionError) as exc:
            why = "it is nested too deep" if isinstance(exc, RecursionError) else exc.message
            result.update(
                failed=True, msg=printable(f"{self._whom(task_vars)}: the answer of {self._asked()} is refused: {why}")
            )
        except AnsibleAction:
            raise
        except AnsibleConnectionFailure as exc:
            # What a server says before anybody is logged in. Ansible prints it as it is, with all that it comes from.
            told = printable(exc.message)
            if self._task.ignore_unreachable or not (task_vars or {}).get(RESCUED):
                raise AnsibleConnectionFailure(told) from None
            result.update(failed=True, msg=f"{self._whom(task_vars)} cannot be reached: {told}")
        except AnsibleError as exc:
            # Such as sudo that is not there: raised, it would end the play whatever failed_when says.
            result.update(failed=True, msg=printable(str(exc)))
        spec = getattr(self.module, "ARGUMENTS", {}).get("argument_spec", {})
        result["invocation"] = {"module_args": masked(self._arguments(), spec)}
        if (task_vars or {}).get(PLAN):
            # Nothing is changed by a plan, and the recap says so; roles go on by what would be.
            result.update(differs=bool(result.get("changed")), changed=False)
        # A fact that the controller itself has found out.
        if getattr(self, "_discovered_interpreter_key", None):
            result["ansible_facts"] = {self._discovered_interpreter_key: self._discovered_interpreter}
        return result

    def _whom(self, task_vars: Any) -> str:
        return str(self._task.delegate_to or (task_vars or {}).get("inventory_hostname") or "the host")

    def _asked(self) -> str:
        return str(self._task.action)

    def _arguments(self) -> dict[str, Any]:
        """What was asked, from the controller's side."""
        return dict(self._task.args)

    def _contract(self) -> Contract:
        if not self._task.async_val:
            return self.contract
        job: dict[str, Spec] = {
            "ansible_job_id": {"type": "str"},
            "results_file": {"type": "str"},
            "started": {"type": "raw"},
            "finished": {"type": "raw"},
        }
        return Contract(None, **job)

    def _answer(self, task_vars: dict[str, Any]) -> Any:
        return self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)

    def _execute_module(self, *args: Any, **kwargs: Any) -> Any:
        with read_by_core():
            return super()._execute_module(*args, **kwargs)
