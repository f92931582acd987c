# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the value of a variable means, whichever way it was given: YAML, ``-e name=value``, INI or a quoted string.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, Mapping

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

Spec = Mapping[str, Any]
_TRUE = ("true", "yes", "on", "y", "t", "1")
_FALSE = ("false", "no", "off", "n", "f", "0")
_NULL = ("null", "none")
_SWITCH = ("yes", "no", "on", "off")
_PLAIN = (str, bytes, bool, int, float, list, tuple, Mapping)
_INTEGER = re.compile(r"[+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+]?[0-9]{1,18}(\.[0-9]*)?")


def convert(name: str, spec: Spec, value: Any) -> Any:
    """The value of a variable, or of a key in one, as ``spec`` of an argument_specs.yml says it is.

    None stays None, where a variable is left to its default. Raises IvshmemError, which names the variable.
    """
    if value is None:
        return None
    if not isinstance(value, _PLAIN):
        # What is in a vault is a text, and up to ansible-core 2.18 no str.
        value = str(value)
    kind = spec.get("type", "str")
    choices = spec.get("choices")
    if choices and kind != "list" and str(value) not in map(str, choices):
        every = ", ".join(map(str, choices))
        raise IvshmemError(f"{name} is {value!r}: write one of {every}{_instead(value, choices)}")
    if kind == "bool":
        return _boolean(name, value)
    if kind in ("int", "float"):
        return _number(name, kind, value)
    if kind == "list":
        inner = {"type": spec.get("elements", "raw"), "options": spec.get("options"), "choices": choices}
        return [_element(f"{name}[{index}]", inner, each) for index, each in enumerate(_list(name, spec, value))]
    if kind in ("str", "path") and not choices:
        _text(name, kind, value)
    if kind == "dict":
        options = spec.get("options") or {}
        found = _mapping(name, value)
        _known_keys(name, options, found)
        return {
            key: convert(f"{name}.{key}", options[key], each) if key in options else each for key, each in found.items()
        }
    return value


def _element(name: str, spec: Spec, value: Any) -> Any:
    """An element of a list. What is in it has no default, so that none says nothing."""
    if spec["type"] != "raw" and (value is None or (spec["type"] == "dict" and value == "")):
        said = "null" if value is None else "empty"
        raise IvshmemError(f"{name} is {said}, which says nothing: write a value, or take the element away")
    return convert(name, spec, value)


def complete(name: str, spec: Spec, value: Any) -> None:
    """Refuse a value, as convert gives it, that lacks a key which has no default. Raises IvshmemError."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            complete(f"{name}[{index}]", {"options": spec.get("options")}, each)
    elif isinstance(value, Mapping):
        for key, own in (spec.get("options") or {}).items():
            if own.get("required") and value.get(key) is None:
                raise IvshmemError(f"{name}: its {key} is missing; write it")
            complete(f"{name}.{key}", own, value.get(key))


def texts(name: str, value: Any) -> None:
    """Refuse a mapping of texts, such as an environment, in which one is none. Raises IvshmemError."""
    for key, each in value.items():
        if each is None or isinstance(each, (bool, list, tuple, Mapping)):
            said = "null" if each is None else repr(each)
            raise IvshmemError(f"{name}.{key} is {said}: write text, in quotes if it is a word such as yes or null")


def _instead(value: Any, choices: Iterable[Any]) -> str:
    """What a word that is no choice may have been."""
    # YAML reads some words as booleans, unless they stand in quotes.
    return ", in quotes" if isinstance(value, bool) else meant(str(value), map(str, choices))


def _boolean(name: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if isinstance(value, (bool, int, float, str)):
        if text in _TRUE or value == 1:
            return True
        if text in _FALSE or value == 0:
            return False
    raise IvshmemError(f"{name} is {value!r}: write true or false")


def _text(name: str, kind: str, value: Any) -> None:
    """Refuse what is neither text nor a number: it would be that of a file or thing that is called so."""
    what = "a path" if kind == "path" else "text"
    if isinstance(value, (list, tuple, Mapping)):
        raise IvshmemError(f"{name} is {value!r}: write {what}, and no list or mapping")
    # A key of a VM or region may be a name, and a text is what its quotes say; a variable may come from INI or -e.
    word = str(value).strip().lower() if name.isidentifier() else ""
    if isinstance(value, bool) or word in ("true", "false"):
        quoted = ", in quotes if that is its name" if isinstance(value, bool) else ""
        raise IvshmemError(f"{name} is {value!r}: it is no switch; write {what}{quoted}, or leave it out")
    # Hosts, VMs and groups may be called so. A file that is can be written in another way.
    if kind == "path" and word in (*_SWITCH, *_NULL):
        why = "it is no switch" if word in _SWITCH else "a text is never null"
        raise IvshmemError(
            f"{name} is {value!r}: {why}; write a path (./{str(value).strip()} if a file is called so), or leave it out"
        )


def _number(name: str, kind: str, value: Any) -> Any:
    """All numbers are counts, sizes and times, and none is below zero."""
    text = str(value).strip()
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        if _INTEGER.fullmatch(text):
            return int(text) if kind == "int" else float(text)
        if kind == "float" and _FLOAT.fullmatch(text):
            return float(text)
        if kind == "int" and isinstance(value, float) and value.is_integer() and value >= 0:
            return int(value)
    whole = "whole " if kind == "int" else ""
    raise IvshmemError(f"{name} is {value!r}: write a {whole}number in decimal digits, not below 0")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _list(name: str, spec: Spec, value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, str):
        text = value.strip()
        found = _parsed(text)
        if isinstance(found, list):
            return found
        words = [word.strip() for word in text.split(",")]
        # Words with blanks may be a command line, and a region has commas of its own.
        plain = text[:1] not in ("[", "{") and not any(re.search(r"\s", word) for word in words)
        if not text:
            return []
        plain = plain and text.lower() not in _NULL
        if plain and all(words) and spec.get("elements") in ("str", "path", "int"):
            return words
    raise IvshmemError(f"{name} is {value!r}: {_as_list(value, spec)}")


def _as_list(value: Any, spec: Spec) -> str:
    """How a value that is no list may be meant."""
    if isinstance(value, Mapping):
        of_each = [key for key, each in value.items() if isinstance(each, Mapping)]
        if of_each:
            return f"it must be a list, and no mapping: write each as - {{name: {of_each[0]}, ...}}"
        return "it must be a list: write a dash before its first key, as in [{...}]"
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        # On the line of a host, an INI inventory takes quotes away.
        return (
            'it must be a list, and is none as JSON: write each text in double quotes, as in ["a", "b"], and in an INI '
            "inventory single quotes around the whole"
        )
    if isinstance(value, str) and spec.get("elements") != "dict" and "\n" not in value.strip():
        # A region has commas; words with blanks are likely a command.
        words = [value] if "," in value else value.split()
        return f"it must be a list: write it in brackets, as in {json.dumps(words)}"
    return 'it must be a list, in YAML or as JSON such as ["a", "b"]'


def _mapping(name: str, value: Any) -> dict[str, Any]:
    found = (_parsed(value) if value.strip() else {}) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise IvshmemError(f'{name} is {value!r}: it must be a mapping, in YAML or as JSON such as {{"key": "value"}}')
    return dict(found)


def _known_keys(name: str, options: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for key in found if options else ():
        if key not in options:
            near = meant(str(key), options)
            raise IvshmemError(f"{name}: unknown key {key!r}; the keys are {', '.join(options)}{near}")


def joined(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The ``regions`` of several variables one behind the other, and with ``declared_in`` where each of them stands.

    ``values``: names of variables with what they are; False stands for one that is not set. ``unset`` says why all of
    them say nothing of what a host shall have. It is empty where one of them is set and none is null, or no text at all
    (INI and ``-e`` have no null): only an empty list says that a host shall have no region. Raises IvshmemError.
    """
    regions: list[Any] = []
    places: list[str] = []
    every = [(name, None if isinstance(value, str) and not value.strip() else value) for name, value in values]
    for name, value in every:
        if value is not None and value is not False:
            found = convert(name, {"type": "list", "elements": "raw"}, value)
            regions += found
            places += [f"{name}[{index}]" for index in range(len(found))]
    empty = [name for name, value in every if value is None]
    unset = ""
    if empty:
        unset = f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty (null), which says nothing"
    elif all(value is False for _name, value in every):
        names = ", ".join(name for name, _value in every)
        unset = f"no variable says which regions this host shall have ({names})"
    return {"regions": regions, "declared_in": places, "unset": unset}


def problems(specs: Mapping[str, Spec], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with those of the values that have a spec, a sentence each."""
    found = []
    for name in sorted(set(values) & set(specs)):
        try:
            convert(name, specs[name], values[name])
        except IvshmemError as exc:
            found.append(str(exc))
    return found


def misspelt(known: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Names that look like a known one and are none, each with the one that it looks like."""
    every = sorted(known)
    starts = sorted({name.split("_")[0] for name in every})
    same: dict[str, list[str]] = {}
    for name in every:
        for key in _keys(name):
            same.setdefault(key, []).append(name)
    found = {}
    for name in sorted(set(names) - set(every)):
        if name.startswith(("ansible_", "_")):
            continue
        plain = name.lower().replace("-", "_")
        alike = [each for key in _keys(name) for each in same.get(key, ())]
        close = difflib.get_close_matches(plain, alike, 1, 0)
        if not close and difflib.get_close_matches(plain.split("_")[0], starts, 1, 0.75):
            close = difflib.get_close_matches(plain, every, 1, 0.85)
        if close:
            found[name] = close[0]
    return found


def _keys(name: str) -> list[str]:
    """What names have in common that differ in the order or number of their words, or in how these are joined."""
    words = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_").split("_")
    ends = [re.sub("director(y|ie)$", "dir", re.sub("s$", "", word)) for word in words]
    return ["_".join(sorted(ends)), "".join(words)] if len(ends) > 1 else ["".join(words)]


def meant(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a word that is none of the known ones: which one may be meant, if one is near."""
    every = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), every, 1, 0.7)
    return f"; did you mean {every[close[0]]}?" if close else ""
