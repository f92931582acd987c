# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out the plan of a binding, action by action.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import contextlib
import errno
import re

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._binding import Action, Plan, State, module_mend, undo
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._functions import read_function, short
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._kernel import (
    FOLDERS,
    NOIOMMU_PARAMETER,
    SYSFS,
    VFIO,
    Kernel,
    told,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


def failure(action: Action, release: str, why: str, detail: str) -> IvshmemError:
    """A step that failed: ``why`` is a word for what was wrong, ``detail`` what the guest says of it."""
    target, value = action.target, action.value
    log = "see the guest's kernel log (dmesg)"
    if why == "unbound":
        found, _blank, said = detail.partition(" ")
        found = "None" if found == "-" else found
        hint = f"has the guest an IOMMU? {log.capitalize()}" if value == VFIO else log
        return IvshmemError(
            f"function {short(target)} was not bound to {value} ({said or 'the kernel gives no reason'}; "
            f"driver now: {found}): {hint}"
        )
    if why == "module":
        mend = module_mend(target, State(release=release))
        return IvshmemError(f"modprobe {target} failed ({detail or 'no driver appeared'}): {mend}")
    if why == "noiommu":
        return IvshmemError(
            f"kernel {release} was built without CONFIG_VFIO_NOIOMMU: give the guest an IOMMU, "
            "or a kernel with that option"
        )
    if why == "group":
        group = value.split(" ")[0]
        return IvshmemError(f"the guest has no group '{group}': create it first (ansible.builtin.group)")
    if why == "nodeless":
        return IvshmemError(f"function {short(target)} is bound, but has no uio node: {log}")
    if why == "nameless":
        return IvshmemError(f"udev has not made /dev/ivshmem/{value} for {detail}: see 'udevadm test' on the guest")
    hint = ": root is needed (become: true)" if re.search(r"permission denied|not permitted", detail.lower()) else ""
    return IvshmemError(f"{action.describe()}: {detail or 'it failed'}{hint}")


class _Failed(Exception):
    """A step that failed: the last two arguments of ``failure``."""


def _bind(kernel: Kernel, address: str, driver: str) -> None:
    """Bind what new_id or the override has made bindable, unless that write has bound it already."""
    base = f"{SYSFS}/devices/{address}"
    if kernel.link(f"{base}/driver") == driver:
        return
    said = ""
    try:
        # An id that was there before binds nothing when it is written again, hence the explicit bind.
        kernel.write(f"{SYSFS}/drivers/{driver}/bind", address)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            said = str(exc.strerror)
    found = kernel.link(f"{base}/driver")
    if found != driver:
        raise _Failed("unbound", f"{found or '-'} {said}")


def _remove_id(kernel: Kernel, driver: str, text: str) -> None:
    # Kernels before 5.11 keep an id as often as it was written; one that is not there is ENODEV.
    for _turn in range(16):
        try:
            kernel.write(f"{SYSFS}/drivers/{driver}/remove_id", text)
        except OSError as exc:
            if exc.errno == errno.ENODEV:
                return
            raise


def _modprobe(kernel: Kernel, driver: str) -> None:
    status, output = kernel.run("modprobe", driver)
    if status != 0 or not kernel.exists(f"{SYSFS}/drivers/{driver}"):
        raise _Failed("module", output)


def _noiommu(kernel: Kernel) -> None:
    kernel.run("modprobe", "vfio")
    if not kernel.exists(NOIOMMU_PARAMETER):
        raise _Failed("noiommu", "")
    kernel.write(NOIOMMU_PARAMETER, "1")


def _give(kernel: Kernel, target: str, value: str) -> None:
    group, mode = value.split(" ")
    path = target
    if not target.startswith("/"):
        function = read_function(kernel, target)
        if function.uio is None:
            return
        path = f"/dev/{function.uio}"
    gid = kernel.group_id(group) if group else -1
    if gid is None:
        raise _Failed("group", "")
    kernel.give(path, gid, int(mode, 8))


def _link(kernel: Kernel, address: str, name: str) -> None:
    kernel.run("udevadm", "settle", "--timeout=10")
    function = read_function(kernel, address)
    if function.uio is None:
        raise _Failed("nodeless", "")
    if kernel.link(f"/dev/ivshmem/{name}") == function.uio:
        return
    # udev has named the node before the rule was there: let it look again.
    kernel.run("udevadm", "trigger", "--action=change", "--subsystem-match=uio", f"--sysname-match={function.uio}")
    kernel.run("udevadm", "settle", "--timeout=10")
    if kernel.link(f"/dev/ivshmem/{name}") != function.uio:
        raise _Failed("nameless", function.uio)


def _act(kernel: Kernel, action: Action) -> None:
    kind, target, value = action.kind, action.target, action.value
    if kind == "replace":
        kernel.replace(target, value)
    elif kind == "remove":
        kernel.remove(target)
    elif kind == "reload":
        # udevd watches its directories, too; where this program is missing, so is what it would talk to.
        kernel.run("udevadm", "control", "--reload")
    elif kind == "modprobe":
        _modprobe(kernel, target)
    elif kind == "noiommu":
        _noiommu(kernel)
    elif kind == "unbind":
        kernel.write(f"{SYSFS}/drivers/{value}/unbind", target)
    elif kind == "override":
        kernel.write(f"{SYSFS}/devices/{target}/driver_override", value + "\n")
    elif kind == "new_id":
        try:
            kernel.write(f"{SYSFS}/drivers/{target}/new_id", value)
        except OSError as exc:
            if exc.errno != errno.EEXIST:
                raise
    elif kind == "remove_id":
        _remove_id(kernel, target, value)
    elif kind == "bind":
        _bind(kernel, target, value)
    elif kind == "access":
        _give(kernel, target, value)
    elif kind == "link":
        _link(kernel, target, value)
    else:
        raise AssertionError(kind)


def apply(kernel: Kernel, todo: Plan, state: State) -> None:
    """Carry out a plan. When a step fails, the files of this collection get their earlier content back."""
    for folder in FOLDERS:
        kernel.sweep(folder)
    try:
        for action in todo.actions:
            try:
                _act(kernel, action)
            except _Failed as exc:
                raise failure(action, kernel.release(), *exc.args) from exc
            except OSError as exc:
                raise told(exc, action.describe()) from exc
    except IvshmemError:
        for action in undo(todo, state):
            with contextlib.suppress(OSError):
                _act(kernel, action)
        raise
