# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The declaration of a host that runs already, from what was found on it.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller. What is declared leaves the host as it is; what cannot be declared so is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import Any, Mapping

import yaml

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._linux import own_arguments
from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import (
    REGION_IDS,
    REGION_IDS_SINCE,
    VM_NAMES_SINCE,
    spelt,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._acrn_dm import known_as
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._takeover import places_in_use
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    DEVICE_MODEL,
    POST_LAUNCHED,
    PREFIXES,
    PROVIDERS,
    Bdf,
    IvshmemError,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import given_version

Values = Mapping[str, Any]


class Adoption:
    """What is gathered about one host. ``variables`` are for its host_vars, ``notes`` for its user."""

    def __init__(self, scenario: Values, old: Values | None, found: Values, beside: Sequence[str] = ()) -> None:
        self.scenario = scenario
        # Other variables of regions that the inventory sets for the host.
        self.beside = beside
        self.old = old
        self.found = found
        self.notes: list[str] = []
        self.vms = {vm["name"]: vm for vm in scenario["vms"]}
        version = scenario.get("acrn_version")
        self.version = given_version(version)
        self.scripts = self._scripts()
        self.others = self._others()
        users = [{"vms": [{**vm, "name": name} for name, vm in self._users()]}]
        self.places = places_in_use(
            {"scripts": users, "running": found.get("running") or []}, scenario["vms"], self.version
        )
        self.regions = self._regions()
        self.variables = self._variables()
        _refuse_templates(self.variables)
        # Each is a comment in a file of YAML, to which lines end in more ways than to a terminal.
        self.notes = [" ".join(note.split()) for note in self.notes]

    # What scripts have

    def _name(self, vm: Values) -> str | None:
        """The scenario's name of a VM that a script starts, or that runs; up to v2.6 its UUID tells."""
        name = known_as(vm["name"], vm.get("uuid"), self.scenario["vms"], self.version)
        return name if name in self.vms else None

    def _scripts(self) -> dict[str, tuple[str, Values]]:
        """The script and its part for each VM of the scenario."""
        found: dict[str, tuple[str, Values]] = {}
        for script in self.found.get("scripts") or []:
            for vm in script["vms"]:
                name = self._name(vm)
                if name is None:
                    told = f"starts {vm['name']}, which is no VM of the scenario"
                    if vm["name"] is None:
                        told = f"line {vm['line']}: the name of the VM is only known when the script runs"
                    self.notes.append(f"{script['path']}: {told}{self._like(vm)}")
                elif name in found and found[name][0] != script["path"]:
                    self.notes.append(
                        f"{script['path']}: starts {name} as {found[name][0]} does, which is taken; name the "
                        "right one in launch_vms"
                    )
                else:
                    found[name] = (script["path"], vm)
        return found

    def _like(self, vm: Values) -> str:
        """Which VM a script means that was made for an older release."""
        name = known_as(None, vm.get("uuid"), self.scenario["vms"], None)
        if name is None:
            return ""
        return (
            f"; its -U is that of {name}, but from ACRN {spelt(VM_NAMES_SINCE)} on the last argument of acrn-dm "
            "counts, so that hv-land regions are refused to it: write that name there, and run this again"
        )

    def _others(self) -> dict[str, Values]:
        """The VMs of the scenario that something else than a script starts: a service itself, or nobody knows what."""
        found: dict[str, Values] = {}
        for unit in self.found.get("units") or []:
            for vm in unit["vms"]:
                name = self._name(vm)
                if name is not None and name not in self.scripts and name not in found:
                    found[name] = vm
                    self.notes.append(
                        f"{unit['path']}: line {vm['line']}: starts {name} itself. Its devices are declared as they "
                        "are, but a service is not edited; have it start a script, and name that in launch_vms"
                    )
        for vm in self.found.get("running") or []:
            name = self._name(vm)
            if name is not None and name not in self.scripts and name not in found:
                found[name] = {**vm, "devices": [{**device, "line": 0} for device in vm["devices"]]}
                self.notes.append(
                    f"{name} runs (process {vm['pid']}), and no script that starts it could be read. Its devices are "
                    "declared as they are; name its script in launch_vms, or its directory in adopt_launch_directories"
                )
        return found

    def _users(self) -> list[tuple[str, Values]]:
        """All VMs of which it is known what they have."""
        return [*((name, vm) for name, (_path, vm) in self.scripts.items()), *self.others.items()]

    # Regions

    def _regions(self) -> list[dict[str, Any]]:
        base = {self._key(region): region for region in (self.old or self.scenario)["regions"]}
        if self.old is not None:
            for key, region in ((self._key(each), each) for each in self.scenario["regions"]):
                if key not in base:
                    self.notes.append(f"{key}: is not in the scenario before the upgrade; taken from the new one")
                    base[key] = region
        regions = [region for region in map(self._from_scenario, base.values()) if region]
        return [*regions, *self._from_scripts(regions)]

    @staticmethod
    def _key(region: Values) -> str:
        name = str(region["name"])
        return name if name[:4] in PROVIDERS else str(PREFIXES[region["provided_by"]]) + name

    def _from_scenario(self, region: Values) -> dict[str, Any] | None:
        key = self._key(region)
        vms = []
        for vm in region["vms"]:
            name = self._renamed(vm)
            if name is None:
                self.notes.append(f"{key}: its VM {vm['name']} ({vm['id']}) is not in the scenario, and was left out")
                continue
            vbdf = self._vbdf(key, name, vm)
            vms.append({"name": name, "vbdf": vbdf} if vbdf else name)
        # A VM whose script has a dm-land region that the file gives to others as well.
        if region["provided_by"] == DEVICE_MODEL:
            named = {vm["name"] if isinstance(vm, dict) else vm for vm in vms}
            vms += [
                {"name": name, "vbdf": vbdf} for name, vbdf in self.places.get(key, {}).items() if name not in named
            ]
        return self._declared(key, region["provided_by"], region["size"], vms, region["region_id"]) if vms else None

    def _renamed(self, vm: Values) -> str | None:
        """The name in the scenario of a VM that may come from the file before an upgrade."""
        if vm["name"] in self.vms:
            return str(vm["name"])
        same = [name for name, own in self.vms.items() if own["id"] == vm["id"]]
        if same and self.old is not None:
            self.notes.append(f"VM {vm['name']} ({vm['id']}) of the scenario before is taken for {same[0]}")
        return same[0] if same else None

    def _vbdf(self, key: str, name: str, vm: Values) -> str | None:
        """Where a VM has a region: as its script has it, then the file before, then the file."""
        own = self.places.get(key, {}).get(name)
        source = self.old or self.scenario
        # Places of a v2.x file were chosen by the reader: it holds none.
        filed = vm["vbdf"] if source["dialect"] != "v2" else None
        if own and filed and own != filed:
            self.notes.append(f"{key}: {name} has it at {own}, and the scenario says {filed}; declared is what it has")
        if own or filed:
            return own or filed
        new = self._new_vbdf(key, name)
        if self.scenario["dialect"] != "v2":
            self.notes.append(f"{key}: where {name} had it before is not known; the scenario says {new}")
        elif self.vms[name]["load_order"] == POST_LAUNCHED:
            self.notes.append(f"{key}: the slot of {name} was not found; one is chosen when its script gets the device")
        return new

    def _new_vbdf(self, key: str, name: str) -> str | None:
        if self.scenario["dialect"] == "v2":
            return None
        for region in self.scenario["regions"]:
            for vm in region["vms"]:
                if self._key(region) == key and vm["name"] == name:
                    return str(vm["vbdf"]) if vm["vbdf"] else None
        return None

    def _from_scripts(self, others: Sequence[Values]) -> list[dict[str, Any]]:
        """dm-land regions that no scenario knows. ``others`` are those that one knows."""
        seen: dict[str, list[tuple[str, Values]]] = {}
        for name, vm in self._users():
            for device in vm["devices"]:
                seen.setdefault(str(device["name"]), []).append((name, device))
        regions = []
        known = {self._key(region) for region in others}
        taken = {region.get("region_id") for region in others}
        for key, users in seen.items():
            sizes = {device["size"] for _name, device in users}
            if key.startswith("hv:/") or key in known:
                continue
            stays = "a VM with a script keeps it as launch_vms[].devices, the others are left alone"
            if len(sizes) > 1 or None in sizes:
                told = ", ".join(f"{name} {device['size']} MB" for name, device in users)
                self.notes.append(f"{key}: has several sizes ({told}), so it is no region; {stays}")
            elif len(users) < 2:
                self.notes.append(f"{key}: only {users[0][0]} has it, so it is no region; {stays}")
            elif f"hv:/{key[4:]}" in known:
                self.notes.append(f"{key}: the scenario has a region of this name, so it is none of its own; {stays}")
            else:
                places = self.places.get(key, {})
                vms = [{"name": name, "vbdf": places[name]} if name in places else name for name, _device in users]
                ids = {device["region_id"] for _name, device in users}
                region_id = self._free_id(key, ids.pop(), taken) if len(ids) == 1 else None
                taken.add(region_id)
                regions.append(self._declared(key, DEVICE_MODEL, sizes.pop(), vms, region_id))
        return regions

    def _free_id(self, key: str, region_id: int | None, taken: Collection[int | None]) -> int | None:
        """The ID that a script gives a region, where a region may have it."""
        why = ""
        if not region_id:
            return None
        if self.version and self.version < REGION_IDS_SINCE:
            why = f"regions have IDs from ACRN {spelt(REGION_IDS_SINCE)} on"
        elif region_id not in REGION_IDS:
            why = f"IDs are {REGION_IDS.start} to {REGION_IDS.stop - 1}"
        elif region_id in taken:
            why = "another region has it"
        if why:
            self.notes.append(f"{key}: scripts give it the region ID {region_id}, and it is declared without: {why}")
        return None if why else region_id

    @staticmethod
    def _declared(key: str, provider: str, size: int, vms: Sequence[Any], region_id: int | None) -> dict[str, Any]:
        own = {"name": key[4:], "provided_by": provider, "size": size, "vms": list(vms)}
        return {**own, "region_id": region_id} if region_id else own

    # Variables

    def _variables(self) -> dict[str, Any]:
        result: dict[str, Any] = {"ivshmem_regions": self.regions}
        for name in self.beside:
            # They would be joined, and a region would be declared twice.
            result[name] = []
            self.notes.append(
                f"{name} is set for this host too, and is [] here: ivshmem_regions has all that the host has"
            )
        if self.scripts:
            result["launch_mode"] = "edit"
            result["launch_units"] = bool(self.found.get("unit"))
            result["launch_vms"] = [self._launch_vm(name, *own) for name, own in self.scripts.items()]
        known = {*self.scripts, *self.others}
        without = [name for name, vm in self.vms.items() if vm["load_order"] == POST_LAUNCHED and name not in known]
        if without:
            self.notes.append(f"no launch script was found for {', '.join(without)}; theirs are left alone")
        arguments = own_arguments((self.found.get("cmdline") or "").split())
        if not self.found.get("acrn"):
            self.notes.append("ACRN does not run there now, so the arguments of its boot entry are not known")
        elif arguments:
            result["hypervisor_cmdline"] = " ".join(arguments)
        self.notes += [
            f"{path}: is not there; see launch_vms and adopt_launch_directories"
            for path in self.found.get("missing") or []
        ]
        self.notes += self.found.get("problems") or []
        return result

    def _launch_vm(self, name: str, path: str, vm: Values) -> dict[str, Any]:
        """An entry of launch_vms, with devices of its own where regions do not give what the script has."""
        declared: dict[str, tuple[Any, Any, Any]] = {}
        for region in self.regions:
            for end in region["vms"]:
                if isinstance(end, dict) and end["name"] == name:
                    slot = Bdf.parse(end["vbdf"]).slot
                    declared[self._key(region)] = (region["size"], slot, self._written_id(region))
                elif end == name:
                    declared[self._key(region)] = (region["size"], None, self._written_id(region))
        has = {each["name"]: (each["size"], each["slot"], each["region_id"] or None) for each in vm["devices"]}
        entry = {"name": name, "script": path}
        if has == declared:
            return entry
        unlike = sorted(key for key in {*has, *declared} if has.get(key) != declared.get(key))
        self.notes.append(
            f"{path}: its devices are not those of the regions ({', '.join(unlike)}); {name} keeps "
            "them as launch_vms[].devices, which you remove to have it follow the regions"
        )
        keys = ("name", "size", "slot", "region_id")
        devices = [{key: each[key] for key in keys if each[key] is not None} for each in vm["devices"]]
        return {**entry, "devices": devices}

    def _written_id(self, region: Values) -> int | None:
        if self.version and self.version < REGION_IDS_SINCE:
            return None
        return region.get("region_id") or None


def overruling(path: str, variables: Values) -> list[str]:
    """A sentence for each file of host_vars that says something else than the one at ``path`` and beats it.

    Ansible reads the files of a directory in the order of their names, and the last one counts.
    """
    folder, own = os.path.split(path)
    found = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        root = os.path.join(folder, name)
        inner = [os.path.join(at, each) for at, _folders, files in os.walk(root) for each in files]
        for file in sorted(inner) if os.path.isdir(root) else [root]:
            if name > own and os.path.splitext(file)[1] in ("", ".yml", ".yaml", ".json"):
                names = [key for key, value in _top(file).items() if variables.get(key, value) != value]
                found += [_overrules(file, names, own)] if names else []
    return found


def _overrules(file: str, names: Sequence[str], own: str) -> str:
    return (
        f"{file} sets {' and '.join(names)}, and Ansible takes that in the place of what {own} beside it would say; "
        "take it away there and run this again, or see in another adopt_directory what would be written"
    )


class _Loader(yaml.SafeLoader):
    """What a file sets; what has a tag, such as a text in a vault, is like nothing else."""


_Loader.add_multi_constructor("", lambda _loader, _tag, _node: object())


def _top(file: str) -> Mapping[str, Any]:
    """The variables that a file sets, as far as it can be read here."""
    try:
        with open(file, encoding="utf-8") as handle:
            found = yaml.load(handle, _Loader)  # nosec B506  # it is a safe loader
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _refuse_templates(value: Any) -> None:
    """Raise IvshmemError where a variable would be run by Ansible: the next run trusts what host_vars say."""
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _refuse_templates(each)
    if isinstance(value, str) and re.search(r"\{[{%#]", value):
        raise IvshmemError(
            f"the host says '{' '.join(value.split())[:200]}': Ansible would take that for a template and run it on "
            "the controller, so nothing is written. See who owns the host; rename the script, or mend the boot entry"
        )


def guest(text: str, persistent: bool) -> tuple[dict[str, Any], list[str]]:
    """Variables of a guest, of lines ``BDF DRIVER`` of its ivshmem functions, and what is to be told of it."""
    drivers = [line.split()[1] for line in text.splitlines() if re.match(r"[0-9a-f:.]+ \S+$", line.strip())]
    if not drivers:
        return {"guest_devices": []}, ["has no ivshmem function now; remove guest_devices when it has"]
    known = set(drivers)
    if known == {"-"}:
        return {"guest_devices": []}, ["its ivshmem functions have no driver; remove guest_devices to have them bound"]
    if len(known) > 1 or not known <= {"uio_pci_generic", "vfio-pci"}:
        told = ", ".join(sorted(known))
        note = f"its ivshmem functions have the drivers {told}, and are left alone"
        return {"guest_devices": []}, [" ".join(note.split())]
    if persistent:
        return {"guest_driver": drivers[0], "guest_persist": True}, []
    # Rules and names would be new to it, and so would be their loss at the next boot.
    told = (
        f"its ivshmem functions are bound to {drivers[0]} by other means than this collection, and are left so; remove "
        "guest_devices to have them bound, and named /dev/ivshmem/NAME, for good"
    )
    return {"guest_driver": drivers[0], "guest_devices": []}, [told]
