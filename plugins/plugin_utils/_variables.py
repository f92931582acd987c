# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables that the collection documents: those of its roles and of its playbooks.

Read once per run, by the process that starts the workers: the action plugins import this.
"""

from __future__ import annotations

import difflib
import functools
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import split_host_pattern
from jinja2 import TemplateError

from ansible_collections.acrn.ivshmem.plugins.module_utils import _words
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, some
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _verify

_ROOT = pathlib.Path(__file__).parents[2]


def _load(path: pathlib.Path) -> Any:
    with path.open(encoding="utf-8") as handle:
        return yaml.load(handle, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # nosec B506  # both are safe loaders


def _read(own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    specs: dict[str, Any] = dict(own["options"])
    roles = {}
    for path in sorted(_ROOT.glob("roles/*/meta/argument_specs.yml")):
        roles[path.parts[-3]] = _load(path)["argument_specs"]
        # Of a variable of several entry points, main says most.
        for _name, entry in sorted(roles[path.parts[-3]].items(), key=lambda each: each[0] == "main"):
            specs.update(entry.get("options") or {})
    return specs, dict(own["options"]), roles


_OWN = _load(_ROOT / "meta" / "inventory_variables.yml")
FACTS = frozenset(_OWN["facts"])
# All variables, those that belong to no role, and those of each role.
SPECS, OWN, _ROLES = _read(_OWN)
GROUPS = {"acrn_hosts": "the Service VMs", "acrn_builders": "where the ACRN trees are", "acrn_guests": "the VMs"}
_BUILDS_HERE: Mapping[str, Sequence[str]] = {"acrn_builders": ["localhost"]}
KNOWN = frozenset({*SPECS, *FACTS})


def _readers() -> dict[str, list[str]]:
    """The groups of hosts of which a variable is read."""
    found: dict[str, list[str]] = {}
    for group, own in _OWN["readers"].items():
        entries = [_ROLES[role][entry] for role, names in own["roles"].items() for entry in names]
        for name in {*own["variables"], *(name for entry in entries for name in entry.get("options") or {})}:
            found.setdefault(name, []).append(group)
    return found


READERS = _readers()
COMMAND_LINE = frozenset(_OWN["command_line"])


def word(value: Any, name: str) -> Any:
    """What the value of a variable means. ``name`` may be that of a key too: ``acrn_build.release``."""
    first, *keys = name.split(".")
    spec = SPECS[first]
    for key in keys:
        spec = spec["options"][key]
    return _words.convert(name, spec, value)


def of_role(role: str, entry: str) -> dict[str, Any]:
    """The specs of the variables that an entry point of a role has."""
    return dict(_ROLES[role][entry]["options"])


def controller_path(value: Any, name: str, base: str) -> str:
    """The path that a variable names on the controller, or an empty text where it names none.

    A relative one is seen from ``base``, the directory of the inventory, where the files of a fleet lie; of an
    inventory that is no file, from the current directory. ``~`` is left for whoever opens the file.

    Raises IvshmemError.
    """
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise IvshmemError(f"{name} is {value!r}: write a path")
    text = str(value).strip()
    if not text or text[0] == "~":
        return text
    # Without slashes at the end: what comes of it is named after its last part. ".." stays: links may be in the way.
    return re.sub(r"(/\.)+(?=/|$)", "", os.path.join(os.path.abspath(base or "."), text)).rstrip("/") or "/"


def known_group(groups: Mapping[str, Any], name: str) -> str:
    """The name of a group that has hosts.

    Raises IvshmemError where it has none: a play would do nothing, and be green.
    """
    # A check of the syntax has no inventory.
    if groups.get(name) or not groups.get("all"):
        return name
    if name in groups:
        raise IvshmemError(f"the group {name} of the inventory ({GROUPS[name]}) has no hosts")
    near = difflib.get_close_matches(name, [_plain(each) for each in groups], 1, 0.75)
    meant = [each for each in groups if near and _plain(each) == near[0]]
    guess = f"rename the group {meant[0]}" if meant else "put them in it"
    raise IvshmemError(f"the inventory has no group {name}, which holds {GROUPS[name]}; {guess}")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def misspelt_groups(groups: Mapping[str, Any]) -> list[str]:
    """A sentence for each group that is nearly one of ours, and has hosts that are not in that one."""
    found = _words.misspelt(GROUPS, groups)
    return [
        f"{name} is no group of this collection; did you mean {meant} ({GROUPS[meant]})?"
        for name, meant in found.items()
        if not set(groups[name]) <= set(groups.get(meant) or [])
    ]


def alone(playbooks: Sequence[str]) -> bool:
    """Whether the playbooks of a command line are one of this collection, by name or path, and nothing else."""
    if len(playbooks) != 1:
        return False
    own = os.path.realpath(_ROOT / "playbooks")
    return playbooks[0].startswith("acrn.ivshmem.") or os.path.dirname(os.path.realpath(playbooks[0])) == own


def refused_tags(phases: Sequence[str], run: Sequence[str], skip: Sequence[str], only: bool) -> list[str]:
    """Why the tags of a run are refused: --tags and --skip-tags, as Ansible has them, for a playbook with these phases.

    For a tag that is nearly a phase Ansible leaves all phases out, or none, in silence. Where no phase is left, nothing
    would be done, and the run would be green; in a playbook of others (not ``only``) their tasks may be what is meant.
    """
    known = {*phases, "all", "always", "never", "tagged", "untagged"}
    near = {tag: difflib.get_close_matches(tag.lower(), phases, 1, 0.8) for tag in [*run, *skip] if tag not in known}
    found = [f"{tag} is no tag of a phase; did you mean {close[0]}?" for tag, close in near.items() if close]
    left = [
        phase for phase in phases if {phase, "all", "tagged"} & set(run) and not {phase, "all", "tagged"} & set(skip)
    ]
    if found or left or not only:
        return found
    words = [f"{option} {','.join(tags)}" for option, tags in (("--tags", run), ("--skip-tags", skip)) if tags]
    told = f"the tags are {', '.join(phases)}" if len(phases) > 1 else f"the only tag is {phases[0]}"
    return [f"{' '.join(words)}: nothing would be done; {told}"]


def unread(hosts: Mapping[str, Iterable[str]], groups: Mapping[str, Any]) -> list[str]:
    """A sentence for each name of a variable, of a host or a group, that is nearly one of ours and does nothing.

    ``hosts`` have the names of their variables.
    """
    seen: dict[str, list[str]] = {}
    for host, names in hosts.items():
        for name in names:
            seen.setdefault(name, []).append(host)
    told = [
        f"{some(sorted(seen[name]))}: {name} is no variable of this collection; did you mean {meant}?"
        for name, meant in _words.misspelt(KNOWN, seen).items()
    ]
    return [*told, *misspelt_groups(groups)]


def _reading(among: Iterable[str], groups: Mapping[str, Any]) -> list[str]:
    """The hosts of some groups, who are asked for a variable. Without builders the controller builds."""
    return [host for group in among for host in groups.get(group) or _BUILDS_HERE.get(group) or ()]


def _idle(hosts: Iterable[str], name: str, among: Iterable[str], mend: str) -> str:
    where = " or ".join(f"{group} ({GROUPS[group]})" for group in among)
    return f"{some(sorted(hosts))}: {name} is set and does nothing there, since it is read of {where}; {mend}"


def misplaced(hosts: Mapping[str, Iterable[str]], groups: Mapping[str, Any], extra: Collection[str]) -> list[str]:
    """A sentence for each variable of the collection that is set for hosts of which nobody reads it, and for no other.

    ``hosts`` have the names of their variables; ``extra`` are those of the command line, which all hosts have.
    """
    names = {host: {*own} - {*extra} for host, own in hosts.items()}
    told = []
    for name, among in sorted(READERS.items()):
        reading = _reading(among, groups)
        having = [host for host in names if name in names[host]]
        if having and reading and not {*having} & {*reading}:
            told.append(_idle(having, name, among, f"set it for {some(sorted(reading))}"))
    for name in sorted(COMMAND_LINE):
        having = [host for host in names if name in names[host]]
        if having:
            told.append(
                f"{some(sorted(having))}: {name} is set and does nothing there, since it is read of the command line "
                f"alone: -e {name}=..."
            )
    return told


# What a host is: the inventory plugin says it of Service VMs too.
_IDENTITY = ("acrn_host", "acrn_vm")


def overruled(values: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Any], extra: Collection[str]) -> list[str]:
    """A sentence for each variable that is set for hosts of which nobody reads it, and otherwise for those that count.

    ``values`` are the raw variables of hosts. What all hosts have that do not count is a default for the whole
    inventory, which those that count may well overrule.
    """
    told = []
    for name, among in sorted(READERS.items()):
        reading = _reading(among, groups)
        counting = [values[host][name] for host in reading if name in values.get(host, ())]
        others = [host for host in values if host not in reading]
        having = [host for host in others if name in values[host] and values[host][name] not in counting]
        if name in (*extra, *_IDENTITY) or not counting or not having or all(name in values[host] for host in others):
            continue
        count = some(sorted(host for host in reading if name in values.get(host, ())))
        told.append(_idle(having, name, among, f"the other value, of {count}, counts"))
    return told


# What a look at a variable may end with; newer versions of ansible-core say of an undefined one what Jinja says.
UNKNOWN = (AnsibleError, TemplateError)


def _parts(value: Any) -> Iterator[Any]:
    """What a value consists of, without the lists and mappings around it."""
    if isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _parts(each)
    else:
        yield value


def _templated(value: Any) -> bool:
    """Whether the raw value of a variable is a template, or has such a part."""
    return any(isinstance(part, str) and ("{{" in part or "{%" in part) for part in _parts(value))


def _in_vault(value: Any) -> bool:
    """Whether the raw value of a variable is a text in a vault, or has such a part."""
    return any(part is not None and not isinstance(part, (str, bool, int, float, bytes)) for part in _parts(value))


def _of_facts(value: Any) -> bool:
    """Whether the raw value of a variable is made of facts that plays of the collection leave."""
    # Of a text in a vault no look is taken: up to ansible-core 2.18 it is opened by that, which may fail.
    texts = [part for part in _parts(value) if isinstance(part, str)]
    return any(fact in text for text in texts for fact in FACTS)


def unclear(raw: Mapping[str, Mapping[str, Any]], read: Callable[[str, str], Any]) -> list[dict[str, Any]]:
    """What is wrong with each variable that is set and means nothing: a part of it cannot be worked out, so that
    ``default()`` would take it for unset, or it is no boolean, no number or none of the words that it can be.

    ``raw`` has the variables of hosts as they stand; ``read`` gives what one of them comes to. What is made of the
    facts that plays of the collection leave is known later, and what a list of regions has is judged by who knows the
    scenario. Of each, ``who`` are the hosts, ``error`` is why, and ``told`` both in a sentence.
    """
    seen: dict[str, list[str]] = {}
    for host, own in raw.items():
        if unfit_name(host):
            seen.setdefault(unfit_name(host), []).append(host)
        for name in set(own) & set(SPECS):
            value = own[name]
            if not _templated(value) and not _in_vault(value):
                why = _senseless(name, value)
            elif _of_facts(value):
                continue
            else:
                why = _unreadable(name, value, functools.partial(read, host, name))
            if why:
                seen.setdefault(why, []).append(host)
    return [
        {"who": sorted(hosts), "error": why, "told": f"{some(sorted(hosts))}: {why}"}
        for why, hosts in sorted(seen.items())
    ]


def _unreadable(name: str, value: Any, read: Callable[[], Any]) -> str:
    try:
        found = read()
        # Working one out may leave the same in parts of it. What is in a vault equals what it comes to, and is opened
        # only when it is looked at.
        if not (_templated(value) and found == value):
            why = _senseless(name, found)
            # A log is no place for what somebody has put into a vault.
            return (
                f"{name} has a part in a vault, and is no value that it can have" if why and _in_vault(value) else why
            )
        why = "a name in it is undefined"
    except UNKNOWN as exc:
        why = said(exc)
        if "'hostvars' is undefined" in why:
            why += ", which Ansible has in plays alone; write the value, or a variable of a group"
    return f"{name} cannot be worked out: {why}"


def _batches(value: Any) -> None:
    """Refuse what ``serial`` of a play cannot be."""
    every = value if isinstance(value, (list, tuple)) else str(value).split(",")
    if not every or not all(re.fullmatch(r"\s*[0-9]{1,9}%?\s*", str(each)) for each in every):
        raise IvshmemError(f"acrn_batch is {value!r}: write how many hosts at a time, as in 2, 10% or [1, 10%, 100%]")


# What the type of a variable does not say, by who reads it.
_READERS: dict[str, Callable[[Any], Any]] = {
    "acrn_batch": _batches,
    "acrn_build": lambda build: _words.texts("acrn_build.environment", build.get("environment") or {}),
    "verify_write": _verify.mode,
    **{
        name: functools.partial(_words.texts, name)
        for name in ("hypervisor_environment", "hypervisor_modules", "launch_environment")
    },
}


def _senseless(name: str, value: Any) -> str:
    """Why a value of a variable is none that it can have."""
    spec = SPECS[name]
    kind = spec.get("type", "str")
    if value is None or (value == "" and (kind in ("bool", "int", "float", "dict") or spec.get("choices"))):
        # Where there is no default, it is unset. Else a role would have this in the place of its default.
        said = "null" if value is None else "empty"
        return f"{name} is {said}, which says nothing: write a value, or leave it out" if "default" in spec else ""
    try:
        value = word(value, name)
        _words.complete(name, spec, value)
        if name in _READERS:
            _READERS[name](value)
    except IvshmemError as exc:
        return str(exc)
    return ""


# What takes a pattern of hosts apart, or is more than a name there.
_PATTERN = re.compile(r"[\s,*?\[\]]|^[!&~@]")


def unfit_name(host: str) -> str:
    """Why a host cannot be had by its name, so that a play that names its hosts would leave it out."""
    if split_host_pattern(host) == [host] and not _PATTERN.search(host):
        return ""
    return f"the name {host!r} is none by which Ansible finds a host: write it with letters, digits, - and _"


def said(exc: Exception) -> str:
    """What an error of Ansible or of Jinja says, in one line."""
    return re.sub("^A captured exception marker was tripped: ", "", " ".join(str(getattr(exc, "message", exc)).split()))


def unknown_board(board: Any, tree: Any) -> list[str]:
    """A sentence for the name of a board that no ACRN tree knows. A tree that is not on the controller may know it."""
    if not isinstance(board, str) or not board or set("/.{") & set(board):
        return []
    if not tree:
        what = f"{board} is a name, which an ACRN tree knows, and acrn_source is not set"
        return [f"acrn_board: {what}; write the path of a board XML"]
    folder = os.path.join(str(tree), "misc/config_tools/data")
    if not os.path.isdir(folder):
        return []
    known = sorted(each for each in os.listdir(folder) if os.path.exists(os.path.join(folder, each, f"{each}.xml")))
    if board in known:
        return []
    near = _words.meant(board, known)
    return [f"acrn_board: the ACRN tree {tree} has no board {board}, but {', '.join(known) or 'none'}{near}"]
