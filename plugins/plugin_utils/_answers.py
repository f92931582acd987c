# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a guest answers to the steps of a proof, as far as it is an answer to them.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller. Whoever owns a guest chooses what comes back, so an answer is taken whole or not at all: as
many results as there were steps, in their order, each with the documented fields in their range. Anything else is a
failure of this guest, in words that are short and plain whatever it sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

PARTS = 64
_WORDS = 300
_NO_ANSWER = "unreachable, or stopped by an earlier error"
_Check = Callable[[Any, Mapping[str, Any]], Any]


class Malformed(Exception):
    """Why an answer is none."""


@dataclass(frozen=True)
class Answers:
    """Results of all steps, or None and why there are none. ``tried`` is whether the guest was asked."""

    results: list[dict[str, Any]] | None
    failure: str = ""
    tried: bool = True


def plain(value: Any, length: int = _WORDS) -> str:
    """Text of a guest for a line of a terminal, a table or a file."""
    text = str.__str__(value)[: length + 1] if isinstance(value, str) else type(value).__name__
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= length else text[: length - 3] + "..."


# -- fields ------------------------------------------------------------------------------------------------------------


def _integer(least: int, most: int) -> _Check:
    def check(value: Any, _options: Mapping[str, Any]) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Malformed(f"no whole number from {least} to {most}")
        return int(value)

    return check


def _at_most_length(value: Any, options: Mapping[str, Any]) -> int:
    return int(_integer(0, int(options.get("length") or 0))(value, options))


def _number(value: Any, _options: Mapping[str, Any]) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value < 1e15
        or not math.isfinite(value)
    ):
        raise Malformed("no number")
    return round(float(value), 1)


def _boolean(value: Any, _options: Mapping[str, Any]) -> bool:
    if not isinstance(value, bool):
        raise Malformed("neither true nor false")
    return value


def _text(value: Any, _options: Mapping[str, Any]) -> str:
    if not isinstance(value, str):
        raise Malformed("no text")
    return plain(value)


def _list(check: _Check, most: int) -> _Check:
    def check_all(value: Any, options: Mapping[str, Any]) -> list[Any]:
        if not isinstance(value, (list, tuple)) or len(value) > most:
            raise Malformed(f"no list of at most {most}")
        return [check(each, options) for each in value]

    return check_all


def _or_none(check: _Check) -> _Check:
    return lambda value, options: None if value is None else check(value, options)


def _sum(value: Any, _options: Mapping[str, Any]) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{32}", value):
        raise Malformed("no digest")
    return str.__str__(value)


_COUNT = _integer(0, 1 << 40)
_VECTORS = _or_none(_integer(0, 2048))
_USERS = _list(_text, 8)
# Of a step without problems: name -> check, and what stands for a field that is not there.
_FIELDS: Mapping[str, Mapping[str, tuple[_Check, Any]]] = {
    "look": {
        "idle": (_boolean, None),
        "users": (_USERS, None),
        "vectors": (_VECTORS, None),
        "iv_position": (_or_none(_integer(0, (1 << 32) - 1)), None),
        "pending": (_integer(0, 1 << 20), None),
    },
    "write": {"written": (_at_most_length, 0), "users": (_USERS, [])},
    "hash": {"sums": (_list(_sum, PARTS), None), "used": (_list(_integer(0, PARTS - 1), PARTS), None)},
    "read": {"same": (_at_most_length, None)},
    "ring": {},
    "arm": {
        "receivable": (_boolean, None),
        "vectors": (_VECTORS, None),
        "reason": (_or_none(_text), None),
    },
    "collect": {"counts": (_or_none(_list(_COUNT, 2048)), None)},
    "restore": dict.fromkeys(("windows", "restored", "left", "lost"), (_COUNT, None)),
    "measure": {
        name: (_or_none(_number), "none")
        for name in ("read_mb_s", "write_mb_s", "round_trip_us", "round_trip_min_us", "rounds")
    },
}


def _problems(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, (list, tuple)) or len(value) > 50:
        raise Malformed("problems is no list of at most 50")
    for each in value:
        if not isinstance(each, Mapping) or not all(
            isinstance(each.get(k), str) for k in ("what", "expected", "found")
        ):
            raise Malformed("a problem has what, expected and found")
    return [{name: plain(each[name], 1000) for name in ("what", "expected", "found")} for each in value]


def _result(value: Any, operation: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping) or value.get("operation") != operation:
        raise Malformed(f"is not that of {operation}")
    result: dict[str, Any] = {"problems": _problems(value.get("problems")), "skipped": value.get("skipped") is True}
    if result["problems"] or result["skipped"]:
        return result
    for name, (check, default) in _FIELDS[operation].items():
        if name not in value and default is not None:
            if default != "none":
                result[name] = default
            continue
        try:
            result[name] = check(value.get(name), options)
        except Malformed as exc:
            raise Malformed(f"{name} is {exc}") from None
    return result


def _lines(registered: Any, key: str) -> list[str]:
    told = registered.get(key) if isinstance(registered, Mapping) else None
    lines = str.__str__(told)[:2000].splitlines() if isinstance(told, str) else []
    return [line.strip() for line in lines if line.strip()]


def _failure(registered: Any) -> str:
    """Why there is no answer. Ansible's own message may be a heading alone, and what was printed has the reason."""
    told = _lines(registered, "msg")
    printed = _lines(registered, "module_stderr")[-1:]
    reason = [*told[1:], *printed][-1:]
    return plain(": ".join([*(line.rstrip(".:") if reason else line for line in told[:1]), *reason])) or _NO_ANSWER


def read(registered: Any, steps: Sequence[tuple[str, Mapping[str, Any]]]) -> Answers:
    """The answers to these steps (operation, options) in what a task has registered."""
    if not steps:
        return Answers([], tried=False)
    if registered is None:
        return Answers(None, _NO_ANSWER, tried=False)
    if not isinstance(registered, Mapping) or registered.get("skipped") is True:
        return Answers(None, _NO_ANSWER, tried=False)
    if registered.get("failed") or registered.get("unreachable"):
        return Answers(None, _failure(registered))
    found = registered.get("results")
    if not found and isinstance(registered.get("msg"), str):
        # A task that may fail without ending the play keeps the message, and is not called failed.
        return Answers(None, _failure(registered))
    try:
        if not isinstance(found, (list, tuple)) or len(found) != len(steps):
            raise Malformed(f"there are not {len(steps)} results")
        results = []
        for number, (value, (operation, options)) in enumerate(zip(found, steps), 1):
            try:
                results.append(_result(value, operation, options))
            except Malformed as exc:
                raise Malformed(f"result {number}: {exc}") from None
    except Malformed as exc:
        return Answers(None, f"what it says is no answer of guest_probe ({exc}): see who owns its Python")
    return Answers(results)


def holders(registered: Any, name: str) -> list[str] | None:
    """Programs other than VMs that use the file of a dm-land region, by the module dm_memory; None if not known."""
    files = registered.get("memory") if isinstance(registered, Mapping) and not registered.get("failed") else None
    for each in files if isinstance(files, (list, tuple)) else ():
        if isinstance(each, Mapping) and each.get("name") == name and isinstance(each.get("held_by"), (list, tuple)):
            found = [item if isinstance(item, Mapping) else {} for item in each["held_by"]]
            words = [plain(item.get("command") or "").split(" ", maxsplit=1)[0] for item in found if not item.get("vm")]
            return [word.rsplit("/", 1)[-1] or "somebody" for word in words]
    return None
