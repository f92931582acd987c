# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: scenario
short_description: ACRN machines and their VMs, from scenario XML files
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Reads ACRN scenario XML files. Each machine becomes a host, which is its Service VM, and each other VM a host named
    C(MACHINE-VM), with load order, ID, regions and peers.
  - The file ends in C(acrn_scenario.yml) or C(acrn_scenario.yaml).
  - Machines are in the group C(acrn_hosts), all other VMs in C(acrn_vms), and those that O(vms) has connection
    variables for in C(acrn_guests), so that the playbooks of this collection find them.
  - Further groups are C(acrn_load_ORDER) (pre_launched, service, post_launched), C(acrn_region_NAME),
    C(acrn_land_hv) and C(acrn_land_dm), C(acrn_board_BOARD) and C(acrn_scenario_NAME). Characters that no group name
    can have become underscores.
  - A machine has the regions of its file as C(acrn_scenario_regions), and the group C(all) sets C(ivshmem_regions) to
    them, so that the playbooks keep what the file declares. Wherever else you set C(ivshmem_regions), that counts for
    more.
  - What is wrong with the regions of a file is a warning. A region that cannot be read, or a VM that is not there, is
    in C(acrn_scenario_regions) all the same, as the file has it, so that the playbooks refuse the machine rather than
    take the region out. Regions of a v2.x file that C(IVSHMEM_ENABLED) switches off are not in it.
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [acrn.ivshmem.scenario]
  scenarios:
    description: The scenario files, and the machines that run them.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Scenario XML, relative to the directory of the inventory file. A glob stands for every file that it fits.
        type: str
        required: true
      hosts:
        description:
          - Names of the machines, or ranges of names such as V(press-[1:20]). One file can be that of many. By default
            there is one machine, with the name of the file without C(.xml).
          - A port behind a name, such as V(press-1:2222), becomes C(ansible_port).
        type: list
        elements: str
      board_path:
        description: Board XML, relative to the directory of the inventory file.
        type: str
      acrn_version:
        description: ACRN version. By default that of the ACRN tree in which the file lies, if it lies in one.
        type: str
      vars:
        description: Variables of the machines.
        type: dict
      vms:
        description: As O(vms), for these machines alone.
        type: dict
  vms:
    description:
      - Variables of VMs, by name, ID, load order, or C(all), of which the first counts most.
      - A VM that is named here in one of these ways is in the group C(acrn_guests). C(all) does not mean the Service
        VM, which is the machine itself.
    type: dict
    default: {}
  compose:
    description:
      - Create variables of VMs from Jinja expressions. The machines themselves have C(vars) of O(scenarios).
  strict:
    description:
      - If V(true), an expression that fails for a VM makes the whole file fail, and none of its hosts is added.
      - A machine is only left out of the group then, since it may have no Service VM, and has nothing of O(compose).
notes:
  - With O(cache=true), what was read of a file is kept until the file changes.
  - In O(groups) and O(keyed_groups) a machine has its own name as C(acrn_host), as its VMs have it.
"""

EXAMPLES = r"""
# press.acrn_scenario.yml: two machines with one scenario, and a third
plugin: acrn.ivshmem.scenario
scenarios:
  - path: scenarios/press-line.xml
    hosts: [press-1, press-2]
    board_path: boards/whl-ipc-i5.xml
    acrn_version: "3.3"
  - path: scenarios/paint-1.xml
vms:
  post_launched:
    ansible_user: acrn
compose:
  # acrn_host is the name of the machine.
  ansible_host: acrn_host ~ '-vm' ~ acrn_vm_id ~ '.plant.example'
keyed_groups:
  - key: acrn_vm_type
    prefix: vm_type
"""

import glob
import hashlib
import os
import re
from contextlib import contextmanager
from typing import Any, Collection, Iterable, Iterator, Mapping

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19 every text is a template that is not marked as unsafe
    from ansible.utils.unsafe_proxy import wrap_var as as_found

    trust_as_template = str
else:
    as_found = None

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import read_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, parse_regions
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import describe, find_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._rule import ERROR, Finding
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import parse_version

SERVICE = "service"
LANDS = {"hypervisor": "hv", "device_model": "dm"}
SUBOPTIONS = ("path", "hosts", "board_path", "acrn_version", "vars", "vms")
KINDS = frozenset({"all", "pre_launched", "post_launched", SERVICE})
# The groups of this plugin, which no host can be named like.
OWN_GROUPS = re.compile(r"acrn_(hosts|vms|guests|builders|(load|region|land|board|scenario)_.*)")
# What the cache holds of a file; raise it with every change of that, so that no older entry is used.
FORMAT = 1
# Findings on what the inventory need not know; the playbooks tell them where it matters.
UNASKED = ("version-unknown", "board-unknown")
HOSTS_FORM = "write a list of names such as press-1 or press-1:2222, or of ranges such as press-[1:20]"


def no_template(value: Any) -> Any:
    """A value of a scenario file, which is never a template, whatever stands in it."""
    return as_found(value) if as_found else value


def group_name(*words: Any) -> str:
    """A valid name of a group."""
    return re.sub(r"[^A-Za-z0-9_]", "_", "_".join(["acrn", *map(str, words)]))


def is_name(text: str) -> bool:
    """Whether a machine can have this name: an IPv6 address, or nothing that means more in a pattern of hosts."""
    form = r"[0-9A-Fa-f:.]+" if text.count(":") > 1 else r"[^\s,:!&*?\[\]/]+"
    return bool(re.fullmatch(form, text))


def host_names(machine: str, vms: list[dict[str, Any]]) -> dict[int, str]:
    """Inventory names of VMs by their IDs: the machine's own for its Service VM."""
    names: dict[int, str] = {}
    for vm in vms:
        name = f"{machine}-{re.sub(r'[^A-Za-z0-9_.-]', '_', vm['name'])}"
        # "VM 1" and "VM_1" would be one.
        names[vm["id"]] = f"{name}-{vm['id']}" if name in names.values() else name
        if vm["load_order"] == SERVICE:
            names[vm["id"]] = machine
    return names


def told(findings: list[dict[str, Any]], regions: list[Any]) -> list[str]:
    """What to warn of: findings, and regions that the playbooks will not be able to read."""
    _readable, problems = parse_regions(regions)
    asked = [each for each in findings if each["rule"] not in UNASKED]
    wrong = [str(Finding(**{key: each[key] for key in each if key != "doc"})) for each in asked]
    return [*(f"{ERROR}: {problem}" for problem in problems), *wrong]


def of_vm(vm: Mapping[str, Any], regions: list[dict[str, Any]], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """The regions of a VM, with its place in each and the hosts at their other ends."""
    found = []
    for region in regions:
        for end in region["vms"]:
            if end["id"] == vm["id"]:
                own = {key: region[key] for key in ("name", "provided_by", "size", "region_id")}
                peers = [names[each["id"]] for each in region["vms"] if each["id"] != vm["id"]]
                found.append({**own, "slot": end["slot"], "vbdf": end["vbdf"], "peers": peers})
    return found


def references(vms: list[dict[str, Any]]) -> dict[int, Any]:
    """What names each VM for certain, by ID: its name, or its ID where two have one name."""
    names = [vm["name"] for vm in vms]
    return {vm["id"]: vm["name"] if names.count(vm["name"]) == 1 else vm["id"] for vm in vms}


def check_settings(table: Any, what: str, vms: list[dict[str, Any]]) -> None:
    """Raise IvshmemError where variables of VMs are none, or are for a VM that is not there."""
    if not isinstance(table, Mapping) or not all(isinstance(each, (Mapping, type(None))) for each in table.values()):
        raise IvshmemError(f"{what} maps VMs to mappings of variables, such as {{VM1: {{ansible_user: root}}}}")
    known = {str(value) for vm in vms for value in (vm["name"], vm["id"])}
    lost = sorted({str(key) for key in table} - KINDS - known)
    if lost:
        have = ", ".join(dict.fromkeys(f"{vm['name']} ({vm['id']})" for vm in vms))
        raise IvshmemError(f"no scenario has the VM {', '.join(lost)} of {what}; they have {have}")


def settings_of(vm: Mapping[str, Any], *tables: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Variables for a VM, the most particular last; None where nothing names it."""
    found: dict[str, Any] | None = None
    for key in (*(["all"] if vm["load_order"] != SERVICE else []), vm["load_order"], vm["id"], vm["name"]):
        for table in tables:
            # YAML makes numbers of IDs, JSON and quotes do not.
            for spelled in dict.fromkeys((key, str(key))):
                if spelled in table:
                    found = {**(found or {}), **(table[spelled] or {})}
    return found


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """ACRN machines and their VMs."""

    NAME = "acrn.ivshmem.scenario"

    def verify_file(self, path: str) -> bool:
        """Whether the file is one for this plugin."""
        return bool(super().verify_file(path)) and path.endswith(("acrn_scenario.yml", "acrn_scenario.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory. Raises AnsibleParserError, which names the file and the mend."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        use = self.get_option("cache")
        key = self.get_cache_key(path)
        kept: Any = {}
        if use and cache:
            try:
                kept = self._cache[key]
            except KeyError:
                kept = {}
        fresh: dict[str, Any] = {}
        try:
            entries = list(self._entries(os.path.dirname(os.path.abspath(path))))
            for entry in entries:
                fresh[entry["digest"]] = kept.get(entry["digest"]) or self._read(entry)
            # All is checked before the first host is there: Ansible goes on with what a failed source has left.
            hosts = self._check(entries, fresh)
        except IvshmemError as exc:
            raise AnsibleParserError(f"{path}: {exc}") from exc
        if use and fresh != kept:
            self._cache[key] = fresh
        for entry in entries:
            for text in fresh[entry["digest"]]["told"]:
                # Some findings name the file, with the line.
                self.display.warning(text if entry["path"] in text else f"{entry['path']}: {text}")
        with self._all_or_none(hosts):
            for entry in entries:
                for machine in entry["hosts"]:
                    self._add(machine, entry, fresh[entry["digest"]])
        everybody = self.inventory.groups["all"]
        if "ivshmem_regions" not in everybody.vars:
            # There, for no other place counts for less: a declaration of the user's is not to be lost.
            template = trust_as_template("{{ acrn_scenario_regions | default([]) }}")
            self.inventory.set_variable("all", "ivshmem_regions", template)

    @contextmanager
    def _all_or_none(self, hosts: Iterable[str]) -> Iterator[None]:
        """Where an expression of the user's fails, put hosts back to what they were: Ansible goes on with them."""
        known = [self.inventory.hosts[name] for name in hosts if name in self.inventory.hosts]
        before = [(host, dict(host.vars), list(host.groups)) for host in known]
        try:
            yield
        except Exception:
            for host in [self.inventory.hosts[name] for name in hosts if name in self.inventory.hosts]:
                if host not in known:
                    self.inventory.remove_host(host)
            for host, variables, groups in before:
                host.vars = variables
                for group in [group for group in host.groups if group not in groups]:
                    group.remove_host(host)
            raise

    def _check(self, entries: list[dict[str, Any]], found: Mapping[str, Any]) -> Collection[str]:
        """The hosts that will be there. Raises IvshmemError where settings are of no use, or two hosts would be one."""
        owners: dict[str, str] = {}
        groups = {*self.inventory.groups, *(self.get_option("groups") or {})}
        for entry in entries:
            vms = found[entry["digest"]]["vms"]
            check_settings(entry["vms"], f"vms beside {entry['path']}", vms)
            for machine in entry["hosts"]:
                # A machine without a Service VM is a host as well.
                for host in (machine, *(name for name in host_names(machine, vms).values() if name != machine)):
                    if host in owners:
                        raise IvshmemError(
                            f"{entry['path']}: there are two hosts {host}; name this one otherwise in hosts "
                            f"(the other comes from {owners[host]})"
                        )
                    if host in groups or OWN_GROUPS.fullmatch(host):
                        # Ansible would put the group where the host is meant.
                        raise IvshmemError(
                            f"{entry['path']}: the host {host} has the name of a group; "
                            f"name machine {machine} otherwise in hosts"
                        )
                    owners[host] = entry["path"]
        check_settings(self.get_option("vms"), "vms", [vm for each in found.values() for vm in each["vms"]])
        return owners

    def _machines(self, given: Mapping[str, Any]) -> dict[str, int | None]:
        """The names of machines that an entry of scenarios has, each with its port or None."""
        where, asked = f"hosts beside {given['path']}", given.get("hosts")
        # One name without a list is what many write.
        asked = [] if asked is None else [asked] if isinstance(asked, str) else asked
        if not isinstance(asked, list):
            raise IvshmemError(f"{where} is {asked!r}; {HOSTS_FORM}")
        found: dict[str, int | None] = {}
        for each in asked:
            try:
                if isinstance(each, bool) or not isinstance(each, (str, int)):
                    raise ValueError("no name")
                names, port = self._expand_hostpattern(str(each))
                if not names or not all(map(is_name, names)):
                    raise ValueError("no name")
            except (AnsibleError, ValueError, IndexError):
                raise IvshmemError(f"{where} has {each!r}, which is no name and no range; {HOSTS_FORM}") from None
            twice = [name for name in names if name in found]
            if twice:
                raise IvshmemError(f"{where} names {twice[0]} twice; name each machine once")
            found.update(dict.fromkeys(names, port))
        return found

    def _entries(self, folder: str) -> Iterator[dict[str, Any]]:
        """The scenario files, each with the names of its machines and a digest of all that is read."""
        for given in self.get_option("scenarios"):
            if not isinstance(given, Mapping):
                raise IvshmemError(
                    f"an entry of scenarios is a mapping with path, not {given!r}: write - path: {given}"
                )
            unknown = sorted(set(given) - set(SUBOPTIONS))
            if unknown or not given.get("path"):
                what = f"the unknown {', '.join(unknown)}" if unknown else "no path"
                raise IvshmemError(f"an entry of scenarios has {what}; it may have {', '.join(SUBOPTIONS)}")
            pattern = os.path.join(folder, os.path.expanduser(str(given["path"])))
            if not isinstance(given.get("vars") or {}, Mapping):
                raise IvshmemError(f"vars beside {given['path']} is a mapping of variables, not {given['vars']!r}")
            hosts = self._machines(given)
            paths = sorted(glob.glob(pattern)) or [pattern]
            if hosts and len(paths) > 1:
                raise IvshmemError(f"{given['path']} stands for {len(paths)} files; leave hosts out, or name one file")
            for path in paths:
                name = re.sub(r"\.xml$", "", os.path.basename(path))
                data = read_file(path)
                board = given.get("board_path")
                board = os.path.join(folder, os.path.expanduser(str(board))) if board else None
                version = str(given["acrn_version"]) if given.get("acrn_version") else None
                known = f"{FORMAT}\0{path}\0{version or find_version(path)}"
                parts = [known.encode("utf-8", "surrogateescape"), data, read_file(board) if board else b""]
                yield {
                    "path": path,
                    "data": data,
                    "name": name,
                    "hosts": hosts or {name: None},
                    "board": board,
                    "version": version,
                    "vars": given.get("vars") or {},
                    "vms": given.get("vms") or {},
                    "digest": hashlib.sha256(b"\0".join(parts)).hexdigest(),
                }

    def _read(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        version = parse_version(entry["version"]) if entry["version"] else find_version(entry["path"])
        board = read_board(read_file(entry["board"]), entry["board"]) if entry["board"] else None
        scenario = read_scenario(entry["data"], entry["path"])
        found = describe(scenario, version, board)
        declared = scenario.declared()
        return {
            **{key: found[key] for key in ("dialect", "acrn_version", "board", "scenario", "vms", "regions")},
            "declared": declared,
            "told": told(found["findings"], declared),
        }

    def _add(self, machine: str, entry: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Add a machine and its VMs."""
        names = host_names(machine, found["vms"])
        self.inventory.add_host(machine)
        values = {
            "acrn_scenario": entry["path"],
            "acrn_version": found["acrn_version"],
            "acrn_board": entry["board"],
            "acrn_scenario_regions": no_template(found["declared"]),
            "ansible_port": entry["hosts"][machine],
        }
        for name, value in {**values, **entry["vars"]}.items():
            if value is not None:
                self.inventory.set_variable(machine, name, value)
        scenario = group_name("scenario", entry["name"])
        self._join(machine, "acrn_hosts", scenario)
        if found["board"]:
            self._join(machine, group_name("board", found["board"]))
        for vm in found["vms"]:
            self._add_vm(machine, names[vm["id"]], vm, names, entry, found)
        # It has nothing of compose, and may be no VM: what it lacks is no mistake.
        self._construct(machine, machine, {}, strict=False)

    def _add_vm(
        self,
        machine: str,
        host: str,
        vm: Mapping[str, Any],
        names: Mapping[int, str],
        entry: Mapping[str, Any],
        found: Mapping[str, Any],
    ) -> None:
        service = host == machine
        if not service:
            self.inventory.add_host(host)
        regions = of_vm(vm, found["regions"], names)
        settings = settings_of(vm, self.get_option("vms"), entry["vms"])
        values = {
            # A machine is a guest as well only where it is asked for.
            **({} if service and settings is None else {"acrn_host": machine}),
            "acrn_vm": no_template(references(found["vms"])[vm["id"]]),
            "acrn_vm_id": vm["id"],
            "acrn_vm_load_order": vm["load_order"],
            "acrn_vm_type": no_template(vm["vm_type"]),
            "acrn_vm_regions": no_template(regions),
        }
        for name, value in {**values, **(settings or {})}.items():
            self.inventory.set_variable(host, name, value)
        self._join(host, group_name("load", vm["load_order"]))
        for region in regions:
            land = LANDS[region["provided_by"]]
            self._join(host, group_name("region", region["name"]), group_name("land", land))
        if not service:
            self._join(host, "acrn_vms")
            self._construct(machine, host, self.get_option("compose"), self.get_option("strict"))
        if settings is not None:
            self._join(host, "acrn_guests")

    def _join(self, host: str, *groups: str) -> None:
        for group in groups:
            self.inventory.add_group(group)
            self.inventory.add_child(group, host)

    def _construct(self, machine: str, host: str, compose: Mapping[str, str], strict: bool) -> None:
        own = {"acrn_host": machine}
        variables = {**own, **self.inventory.get_host(host).get_vars()}
        self._set_composite_vars(compose, variables, host, strict)
        variables = {**own, **self.inventory.get_host(host).get_vars()}
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict)
