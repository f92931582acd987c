# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done so that functions are bound to their drivers, and stay so over a reboot.

This module util is PRIVATE to the collection: it can change at any time.

``observe`` reads, ``plan`` decides without touching anything; ``apply`` of ``_act`` writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import DEVICE, VENDOR
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._functions import (
    ALL,
    Function,
    group_name,
    listing,
    scan,
    select,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._kernel import (
    DRIVERS,
    FILES,
    LOCKDOWN,
    NEW_ID,
    NOIOMMU_CONF,
    NOIOMMU_PARAMETER,
    RESOURCES,
    RULES,
    RUN_RULES,
    SYSFS,
    SYSTEM,
    UIO,
    VFIO,
    Kernel,
    told,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._udev import (
    MARKER,
    parse_rules,
    render_rules,
    rule_block,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Device, IvshmemError


@dataclass(frozen=True)
class Wish:
    """What guest_device is asked for. ``devices`` None means every ivshmem function, an empty tuple none."""

    devices: tuple[Device, ...] | None = None
    driver: str = UIO
    method: str = NEW_ID
    present: bool = True
    force: bool = False
    persist: bool = True
    exclusive: bool = False
    group: str | None = None
    mode: int | None = None
    unsafe_noiommu: bool = False


@dataclass(frozen=True)
class State:
    """What there is before anything is done."""

    functions: tuple[Function, ...] = ()
    files: Mapping[str, str | None] = field(default_factory=dict)
    release: str = ""
    lockdown: str = "none"
    distribution: str = ""
    loaded: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    noiommu: bool = False
    udev: bool = True
    gid: int | None = None
    access: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """One change. ``kind`` names a branch of ``apply``."""

    kind: str
    target: str = ""
    value: str = ""

    def describe(self) -> str:
        """One line for the user; the content of a file is in the diff."""
        value = "" if self.kind == "replace" else self.value
        return " ".join(part for part in (self.kind, self.target, value) if part)


@dataclass(frozen=True)
class Plan:
    """The changes in their order, and what they are about. ``after`` maps an address to its driver afterwards."""

    actions: tuple[Action, ...]
    selected: tuple[tuple[Device | None, Function], ...]
    before: Mapping[str, str]
    after: Mapping[str, str]
    files: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.actions)


def module_missing(kernel: Kernel, driver: str) -> bool:
    """True where the running kernel's module list is there and does not know the driver."""
    base = f"/lib/modules/{kernel.release()}"
    lists = [kernel.data(f"{base}/{name}", 1 << 24) for name in ("modules.dep", "modules.builtin")]
    if lists[0] is None:
        return False
    names = {driver.replace("-", "_").encode(), driver.replace("_", "-").encode()}
    return not any(b"/" + name + b".ko" in (data or b"") for name in names for data in lists)


def _own_file(kernel: Kernel, path: str) -> str | None:
    try:
        return kernel.content(path)
    except OSError as exc:
        # What cannot be read must not pass for a file that is not there, and be written anew.
        raise told(exc, path) from exc


def observe(kernel: Kernel, wish: Wish) -> State:
    functions = scan(kernel)
    lockdown = re.search(r"\[(\w+)\]", kernel.text(LOCKDOWN) or "")
    system = re.search(r'^ID="?([\w.-]+)', kernel.text(SYSTEM) or "", re.MULTILINE)
    access = {}
    for function in functions:
        paths = [f"{function.sysfs}/{name}" for name in RESOURCES]
        if function.uio:
            paths.append(f"/dev/{function.uio}")
        for path in paths:
            found = kernel.access(path)
            if found is not None:
                access[path] = found
    links = {name: kernel.link(f"/dev/ivshmem/{name}") or "" for name in kernel.names("/dev/ivshmem")}
    return State(
        functions=functions,
        files={path: _own_file(kernel, path) for path in FILES},
        release=kernel.release(),
        lockdown=lockdown.group(1) if lockdown else "none",
        distribution=system.group(1) if system else "",
        loaded=frozenset(driver for driver in DRIVERS if kernel.exists(f"{SYSFS}/drivers/{driver}")),
        missing=frozenset(driver for driver in (wish.driver,) if module_missing(kernel, driver)),
        noiommu=(kernel.text(NOIOMMU_PARAMETER) or "N").strip() in ("Y", "1"),
        udev=kernel.exists("/run/udev/control"),
        gid=kernel.group_id(wish.group) if wish.group else None,
        access=access,
        links=links,
    )


def id_text(function: Function | None = None) -> str:
    """What new_id and remove_id take, in hexadecimal: every ivshmem function, or those of one region ID."""
    text = f"{VENDOR:04x} {DEVICE:04x}"
    if function is None:
        return text
    return f"{text} {function.subsystem_vendor:04x} {function.subsystem_device:04x}"


def _narrow(function: Function, others: Sequence[Function]) -> str | None:
    """The narrowest id that fits this function and none of the others, or None where no id can tell them apart."""
    if not others:
        return id_text()
    same = (function.subsystem_vendor, function.subsystem_device)
    if all((other.subsystem_vendor, other.subsystem_device) != same for other in others):
        return id_text(function)
    return None


def module_mend(driver: str, state: State) -> str:
    option = "CONFIG_UIO_PCI_GENERIC" if driver == UIO else "CONFIG_VFIO_PCI"
    if state.distribution == "ubuntu":
        return f"install linux-modules-extra-{state.release}"
    if state.distribution == "debian":
        return "install linux-image-amd64 (the cloud kernel leaves some out) and reboot, or another kernel"
    return f"install the extra modules of that kernel, or one built with {option}"


def _version(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else (99, 0)


def _refuse(state: State, wish: Wish, selected: Sequence[tuple[Device | None, Function]]) -> None:
    """Raise IvshmemError for what would fail or do harm, before anything is touched."""
    functions = [function for _device, function in selected]
    _refuse_held(state, wish, functions)
    # Where nothing is bound there is nothing that could not work, and all can be given back.
    unbound = [function for function in functions if function.driver != wish.driver]
    if functions and wish.driver == UIO and state.lockdown != "none":
        raise IvshmemError(
            f"the kernel is locked down ({state.lockdown}, as with Secure Boot), so that no program may map the shared "
            f"memory (resource2): boot the guest without lockdown, or use driver {VFIO} with an IOMMU"
        )
    if unbound:
        _refuse_driver(state, wish, unbound)
    if functions and wish.persist and not state.udev:
        raise IvshmemError("this guest runs no udev, which binds after a reboot: set persist to false")
    for path, text in state.files.items():
        if text and not text.startswith(MARKER):
            raise IvshmemError(f"{path} was not written by acrn.ivshmem.guest_device: move it away")


def _refuse_held(state: State, wish: Wish, functions: Sequence[Function]) -> None:
    """Functions that a driver holds, which is neither the wanted one nor one that this module gave them."""
    ours: dict[str, str] = {}
    for path in (RUN_RULES, RULES):
        ours.update({key: block[2] for key, block in parse_rules(state.files.get(path), path).items()})
    held = [
        f"function {function.bdf} is held by driver '{function.driver}', wanted is '{wish.driver}': "
        "stop what uses it and set force, or leave it out of devices"
        for function in functions
        if function.driver not in (None, wish.driver, ours.get(function.address), ours.get(ALL))
    ]
    if held and not wish.force:
        raise IvshmemError("\n".join(held))


def _refuse_driver(state: State, wish: Wish, unbound: Sequence[Function]) -> None:
    """What keeps the wanted driver from functions that it does not have yet."""
    if wish.driver not in state.loaded and wish.driver in state.missing:
        raise IvshmemError(f"kernel {state.release} has no module {wish.driver}: {module_mend(wish.driver, state)}")
    if wish.driver == UIO and _version(state.release) < (4, 13):
        raise IvshmemError(
            f"kernel {state.release}: before Linux 4.13 {UIO} refuses a function without an interrupt line, which "
            f"every ivshmem function of ACRN is ('No IRQ assigned to device'): use a newer kernel or driver {VFIO}"
        )
    bare = [function.bdf for function in unbound if function.iommu_group is None]
    if wish.driver == VFIO and bare and not state.noiommu and not wish.unsafe_noiommu:
        raise IvshmemError(
            f"{VFIO} needs an IOMMU, and {', '.join(bare)} is in no IOMMU group: give the guest one (and "
            "intel_iommu=on), or set unsafe_noiommu on a kernel with CONFIG_VFIO_NOIOMMU, which taints it"
        )


def _choose(state: State, wish: Wish) -> list[tuple[Device | None, Function]]:
    if wish.devices is None:
        if wish.present and not state.functions:
            raise IvshmemError(
                "this guest has no ivshmem function (1af4:1110): start its VM with the device (acrn-dm -s "
                "SLOT,ivshmem,NAME,SIZE; for pre-launched and Service VM by the scenario)"
            )
        return [(None, function) for function in state.functions]
    chosen = select(state.functions, wish.devices)
    absent = [device for device, function in chosen.items() if function is None]
    if wish.present and absent:
        raise IvshmemError(
            "\n".join(f"device {device.describe()}: the guest has no such ivshmem function" for device in absent)
            + f"\nivshmem functions of this guest: {listing(state.functions)}"
        )
    return [(device, function) for device, function in chosen.items() if function is not None]


def refuse_beside_all(blocks: Mapping[str, object]) -> None:
    """Raise IvshmemError where the rules name every function: one of them alone cannot be told from the rest then."""
    if ALL in blocks:
        raise IvshmemError(
            "an earlier call without devices made every ivshmem function of this guest persistent: first name "
            "those that shall stay (state present, exclusive), or release all (state absent without devices)"
        )


class _Planner:
    """Collects actions and the picture before and after them."""

    def __init__(self, state: State, wish: Wish, selected: list[tuple[Device | None, Function]]) -> None:
        self.state = state
        self.wish = wish
        self.selected = selected
        self.actions: list[Action] = []
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.files: dict[str, tuple[str, str]] = {}
        self.warnings: list[str] = []
        # For the default of 0600 of a group's files that nobody asked for: a group without access is no use.
        self.mode = 0o660 if wish.group and wish.mode is None else wish.mode
        # The blocks of an earlier call: those that outlive a reboot, and those that do not.
        self.old = parse_rules(state.files.get(RULES), RULES)
        self.passing = parse_rules(state.files.get(RUN_RULES), RUN_RULES)

    def show(self, function: Function, driver: str | None) -> None:
        self.before[function.bdf] = f"driver: {function.driver or 'none'}"
        self.after[function.bdf] = f"driver: {driver or 'none'}"

    def note(self, function: Function, before: str, after: str) -> None:
        self.before[function.bdf] += f"\n{before}"
        self.after[function.bdf] += f"\n{after}"

    def file(self, path: str, text: str | None) -> bool:
        old = self.state.files.get(path)
        if (old or "") == (text or "") and (old is None) == (text is None):
            return False
        self.files[path] = (old or "", text or "")
        self.actions.append(Action("remove", path) if text is None else Action("replace", path, text))
        return True

    def rules(self, persistent: Mapping[str, str], passing: Mapping[str, str]) -> None:
        if any([self.file(RULES, render_rules(persistent)), self.file(RUN_RULES, render_rules(passing))]):
            self.actions.append(Action("reload"))

    def present(self) -> None:
        wish = self.wish
        keys = [ALL] if wish.devices is None else [function.address for _device, function in self.selected]
        earlier = {**self.passing, **self.old}
        if wish.devices is not None and not wish.exclusive:
            refuse_beside_all(earlier)
        kept = {} if wish.exclusive or wish.devices is None else earlier
        if wish.exclusive:
            self.release_stale([key for key in earlier if key not in keys], earlier)
        rest = {key: block for key, (block, _name, _driver) in kept.items() if key not in keys}
        self.write_rules(rest, self.useful_blocks(keys, self.bound_by_us(earlier)))
        if wish.driver == VFIO and (wish.group or wish.mode is not None):
            self.warnings.append(f"group and mode are for {UIO} only: {VFIO} nodes are numbered by the kernel")
        self.bind_all()
        for device, function in self.selected:
            self.open_up(device, function)

    def write_rules(self, rest: Mapping[str, str], useful: Mapping[str, str]) -> None:
        """The files of rules: those of earlier calls that stay, and those of this one."""
        lasting = {key: block for key, block in rest.items() if key in self.old}
        fleeting = {key: block for key, block in rest.items() if key not in self.old}
        (lasting if self.wish.persist else fleeting).update(useful)
        self.noiommu_file()
        self.rules(lasting, self.without_udev(fleeting))

    def useful_blocks(self, keys: Sequence[str], by_us: Mapping[str, str]) -> dict[str, str]:
        """The rules of this call by their key. ``by_us`` are the functions that nobody else has bound."""
        wish = self.wish
        names = {function.address: device.name for device, function in self.selected if device}
        access_group = group_name(wish.group) if wish.group else None
        bound = {} if wish.persist else by_us
        blocks = {
            key: rule_block(
                key, names.get(key), wish.driver if wish.persist else None, access_group, self.mode, bound.get(key)
            )
            for key in keys
        }
        # Where the rule is one for all of them, it still is each of them that was bound or was not.
        blocks.update({key: rule_block(key, None, None, None, None, bound[key]) for key in bound if key not in keys})
        # A rule without binding, name or access would be a comment alone, which says something of what was bound only.
        return {key: block for key, block in blocks.items() if block.count("\n") > 1 or key in bound}

    def without_udev(self, fleeting: dict[str, str]) -> dict[str, str]:
        """The rules that do not outlive a reboot; of a guest without udev what the next run reads alone."""
        if self.state.udev or not fleeting:
            return fleeting
        self.warnings.append("this guest runs no udev: names in /dev/ivshmem are not made")
        heads = {key: block.partition("\n")[0] for key, block in fleeting.items()}
        return {key: f"{head}\n" for key, head in heads.items() if not head.endswith(" -")}

    def noiommu_file(self) -> None:
        """The option of vfio for a guest without an IOMMU, or its end."""
        wish = self.wish
        if wish.unsafe_noiommu and wish.driver == VFIO:
            text = f"{MARKER}\noptions vfio enable_unsafe_noiommu_mode=1\n"
            self.file(NOIOMMU_CONF, text if wish.persist else self.state.files.get(NOIOMMU_CONF))
        elif wish.exclusive:
            self.file(NOIOMMU_CONF, None)

    def bound_by_us(self, earlier: Mapping[str, tuple[str, str, str]]) -> dict[str, str]:
        """The functions that this run binds, or an earlier one has by its rule: nobody else has bound those by hand."""
        driver = self.wish.driver
        found = {}
        for _device, function in self.selected:
            rules = [earlier[key] for key in (function.address, ALL) if key in earlier]
            if function.driver != driver or any(rule[2] == driver for rule in rules):
                found[function.address] = driver
        return found

    def bind_all(self) -> None:
        wish, state = self.wish, self.state
        pending = [function for _device, function in self.selected if function.driver != wish.driver]
        for _device, function in self.selected:
            self.show(function, wish.driver)
        if not pending:
            return
        if wish.unsafe_noiommu and wish.driver == VFIO and not state.noiommu:
            self.actions.append(Action("noiommu"))
        if wish.driver not in state.loaded:
            self.actions.append(Action("modprobe", wish.driver))
        for function in pending:
            if function.driver:
                self.actions.append(Action("unbind", function.address, function.driver))
        self.take_back()
        others = self.others_unbound()
        ids: dict[str, None] = {}
        for function in pending:
            text = _narrow(function, others) if wish.method == NEW_ID else None
            if text is None:
                if function.override != wish.driver:
                    self.actions.append(Action("override", function.address, wish.driver))
                continue
            if function.override not in (None, wish.driver):
                self.actions.append(Action("override", function.address, ""))
            ids[text] = None
        self.actions.extend(Action("new_id", wish.driver, text) for text in ids)
        self.actions.extend(Action("bind", function.address, wish.driver) for function in pending)

    def others_unbound(self) -> list[Function]:
        """Functions that were not selected and have no driver then: new_id takes every unbound one that it fits."""
        chosen = {function.address for _device, function in self.selected}
        freed = {action.target for action in self.actions if action.kind == "unbind"}
        return [
            function
            for function in self.state.functions
            if function.address not in chosen and (function.driver is None or function.address in freed)
        ]

    def open_up(self, device: Device | None, function: Function) -> None:
        """Access to a function, and its name, for those who shall use it; vfio has other ways."""
        if self.wish.driver == VFIO:
            return
        if self.mode is not None or self.wish.group:
            self.give_access(function)
        name, state = device.name if device else None, self.state
        if name and state.udev and (function.uio is None or state.links.get(name) != function.uio):
            self.actions.append(Action("link", function.address, name))
            link = f"/dev/ivshmem/{name}"
            before = state.links.get(name) or "none"
            self.note(function, f"{link}: {before}", f"{link}: {function.uio or 'the uio node'}")

    def give_access(self, function: Function) -> None:
        wish, state = self.wish, self.state
        paths = [f"{function.sysfs}/{name}" for name in RESOURCES]
        paths = [path for path in paths if path in state.access]
        paths.append(f"/dev/{function.uio}" if function.uio else "")
        for path in paths:
            gid, mode = state.access.get(path, (0, 0o600))
            wanted = (gid if state.gid is None else state.gid, mode if self.mode is None else self.mode)
            if wanted != (gid, mode) or (wish.group and state.gid is None):
                self.actions.append(Action("access", path or function.address, f"{wish.group or ''} {wanted[1]:o}"))
                label = os.path.basename(path) or "uio node"
                self.note(function, f"{label}: {gid} {mode:04o}", f"{label}: {wish.group or gid} {wanted[1]:04o}")

    def release(self, function: Function, drivers: Sequence[str], ours: bool) -> None:
        """Give a function back: these drivers let go of it, resource files as the kernel makes them."""
        self.show(function, None if function.driver in drivers else function.driver)
        if function.driver in drivers:
            self.actions.append(Action("unbind", function.address, str(function.driver)))
        if function.override in drivers:
            self.actions.append(Action("override", function.address, ""))
            self.note(function, f"driver_override: {function.override}", "driver_override: none")
        if not ours:
            return
        for name in RESOURCES:
            path = f"{function.sysfs}/{name}"
            found = self.state.access.get(path)
            if found is not None and found != (0, 0o600):
                self.actions.append(Action("access", path, "root 600"))
                self.note(function, f"{name}: {found[0]} {found[1]:04o}", f"{name}: 0 0600")

    def release_stale(self, stale: Iterable[str], blocks: Mapping[str, tuple[str, str, str]]) -> None:
        chosen = {function.address for _device, function in self.selected}
        by_address = {function.address: function for function in self.state.functions}
        for key in sorted(stale):
            targets = list(by_address.values()) if key == ALL else [by_address[key]] if key in by_address else []
            driver = blocks[key][2]
            for function in targets:
                if function.address in chosen or (key == ALL and function.address in blocks):
                    continue
                self.release(function, (driver,) if driver in DRIVERS else (), ours=True)
                if driver not in DRIVERS and function.driver in DRIVERS:
                    self.warnings.append(
                        f"function {function.bdf} had its driver {function.driver} before this collection came, and "
                        "keeps it: state absent takes it away"
                    )
        self.take_back()

    def take_back(self) -> None:
        """Take the id out of each driver that gives a function back. What else it has bound stays bound.

        Before the function: after a kill in between, a function that is bound still tells the next run of the id.
        """
        freed = {action.value: None for action in self.actions if action.kind == "unbind" and action.value in DRIVERS}
        for driver in freed:
            action = Action("remove_id", driver, id_text())
            if action not in self.actions:
                first = next(at for at, one in enumerate(self.actions) if (one.kind, one.value) == ("unbind", driver))
                self.actions.insert(first, action)

    def absent(self) -> None:
        wish = self.wish
        earlier = {**self.passing, **self.old}
        gone = set(earlier) if wish.devices is None else self.meant(wish.devices, earlier)
        ours = {key: block for key, block in earlier.items() if key in gone}
        for _device, function in self.selected:
            # What an earlier call bound to another driver is given back just so: its rule goes, too.
            rules = [ours[key] for key in (function.address, ALL) if key in ours]
            taken = [driver for _block, _name, driver in rules if driver in DRIVERS]
            self.release(function, (wish.driver, *taken), ours=bool(rules))
        self.take_back()
        if wish.devices is None:
            self.file(NOIOMMU_CONF, None)
        self.rules(
            {key: block for key, (block, _n, _d) in self.old.items() if key not in gone},
            {key: block for key, (block, _n, _d) in self.passing.items() if key not in gone},
        )

    def meant(self, devices: Sequence[Device], earlier: Mapping[str, tuple[str, str, str]]) -> set[str]:
        """The rules of devices that are to be given back, those that are not there any more as well."""
        refuse_beside_all(earlier)
        addresses = {function.address for _device, function in self.selected}
        addresses |= {device.address for device in devices if device.address}
        names = {device.name for device in devices if device.name}
        return {key for key, (_block, name, _driver) in earlier.items() if key in addresses or name in names}


def plan(state: State, wish: Wish) -> Plan:
    """What has to be done, in order. Raises IvshmemError, before anything is touched, for what cannot work."""
    selected = _choose(state, wish)
    planner = _Planner(state, wish, selected)
    if wish.present:
        _refuse(state, wish, selected)
        planner.present()
    else:
        planner.absent()
    return Plan(
        actions=tuple(planner.actions),
        selected=tuple(selected),
        before=planner.before,
        after=planner.after,
        files=planner.files,
        warnings=tuple(planner.warnings),
    )


def undo(todo: Plan, state: State) -> tuple[Action, ...]:
    """What gives the files of this collection their earlier content when a step fails."""
    before = {path: state.files.get(path) for path in todo.files}
    actions = [Action("remove", path) if old is None else Action("replace", path, old) for path, old in before.items()]
    return (*actions, Action("reload")) if actions else ()


def diffs(todo: Plan) -> list[dict[str, str]]:
    """The value of ``diff`` in a module's result: the functions, then each file."""
    result = []
    for bdf in todo.before:
        if todo.before[bdf] != todo.after[bdf]:
            headers = {"before_header": bdf, "after_header": bdf}
            result.append({**headers, "before": todo.before[bdf] + "\n", "after": todo.after[bdf] + "\n"})
    for path, (before, after) in todo.files.items():
        result.append({"before_header": path, "after_header": path, "before": before, "after": after})
    return result
