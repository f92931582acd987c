# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where each region stands in each of its VMs: places that are kept, and those that are chosen.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Mapping, Tuple

from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import FUNCTIONS_SINCE, SLOT_ORDER, V2_SLOT_ORDER
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    POST_LAUNCHED,
    SERVICE,
    Bdf,
    IvshmemError,
    Region,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._vm import V2, Vm

if TYPE_CHECKING:
    from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import Scenario

# A region in a VM: the name of the region, and the ID of the VM.
Seat = Tuple[str, int]
Places = Mapping[Seat, Bdf]


@dataclass(frozen=True)
class PlacedVm:
    """A VM of a region at its place. ``vbdf`` is None where ACRN's build chooses it (v2.x, not post-launched).

    ``chosen`` is a place that no declaration, file or host tells.
    """

    vm: Vm
    vbdf: Bdf | None
    chosen: bool = False


@dataclass(frozen=True)
class PlacedRegion:
    """A region with its VMs resolved and placed."""

    region: Region
    vms: tuple[PlacedVm, ...]

    def as_dict(self) -> dict[str, Any]:
        """The region as modules return it; ``slot`` is decimal, as acrn-dm takes it."""
        # Only where it is declared: no file of ACRN holds it.
        reserved = {} if self.region.reserved is None else {"reserved": self.region.reserved}
        return {
            **reserved,
            "name": self.region.name,
            "provided_by": self.region.provided_by,
            "size": self.region.size,
            "region_id": self.region.region_id,
            "vms": [
                {
                    "id": placed.vm.id,
                    "name": placed.vm.name,
                    "load_order": placed.vm.load_order,
                    "vbdf": str(placed.vbdf) if placed.vbdf else None,
                    "slot": placed.vbdf.slot if placed.vbdf else None,
                }
                for placed in self.vms
            ],
        }


def several_functions(vm: Vm, version: tuple[int, int] | None) -> bool:
    """Whether regions of a VM may be functions of one device; a launch script has no words for that."""
    return version is not None and version >= FUNCTIONS_SINCE and vm.load_order != POST_LAUNCHED


def taken(vm: Vm, native: Iterable[Bdf]) -> dict[int, str]:
    """The device numbers of bus 0 that no region may use in a VM, and what holds each."""
    held = {function.bdf.device: function.what for function in vm.functions if function.bdf.bus == 0}
    held[0] = "the host bridge"
    if vm.load_order == SERVICE:
        held.update({bdf.device: f"the native device {bdf}" for bdf in native if bdf.bus == 0})
    if vm.load_order == POST_LAUNCHED:
        # acrn-dm: LPC, GPU and the LPC of GPU passthrough (misc/config_tools/launch_config/launch_cfg_gen.py).
        held.update(dict.fromkeys((0x01, 0x02, 0x1F), "acrn-dm"))
    return held


def place_regions(
    scenario: Scenario,
    regions: Iterable[Region],
    native: Iterable[Bdf] = (),
    earlier: Iterable[Places] = (),
    named: Iterable[Bdf] = (),
    version: tuple[int, int] | None = None,
) -> tuple[PlacedRegion, ...]:
    """Give every VM of every region its vBDF.

    A declared vBDF stands. Without one, that of the file (then of ``earlier`` ones) stays if it can be used; else the
    first free of SLOT_ORDER (V2_SLOT_ORDER) is taken, in the order of the regions. ``native`` are the PCI functions of
    the board, which the Service VM sees; there those that it only names (``named``) come last. In v2.x only
    post-launched VMs have a place to choose. Raises IvshmemError where a VM has no free place, or where a region names
    a VM that is not there.
    """
    regions = tuple(regions)
    ground = _Ground(scenario, native, version)
    seats = []
    for region in regions:
        for ref in region.vms:
            vm = scenario.vm(ref.vm)
            if scenario.dialect == V2 and vm.load_order != POST_LAUNCHED:
                continue
            seats.append((region, vm))
            if ref.vbdf:
                ground.settle(region, vm, ref.vbdf)
    for before in (scenario.places(), *earlier):
        ground.keep(seats, before)
    chosen = {_seat(region, vm) for region, vm in seats} - set(ground.places)
    last = {bdf.device for bdf in named}
    for region, vm in seats:
        if _seat(region, vm) not in ground.places:
            ground.choose(region, vm, last if vm.load_order == SERVICE else set())
    return tuple(
        PlacedRegion(
            region,
            tuple(
                PlacedVm(vm, ground.places.get(_seat(region, vm)), _seat(region, vm) in chosen)
                for vm in (scenario.vm(ref.vm) for ref in region.vms)
            ),
        )
        for region in regions
    )


def _seat(region: Region, vm: Vm) -> Seat:
    return region.name, vm.id


class _Ground:
    """The VMs of a scenario while regions get their places in them."""

    def __init__(self, scenario: Scenario, native: Iterable[Bdf], version: tuple[int, int] | None) -> None:
        native = tuple(native)
        self.places: dict[Seat, Bdf] = {}
        self._where, self._version = scenario.where, version
        self._order = V2_SLOT_ORDER if scenario.dialect == V2 else SLOT_ORDER
        self._taken = {vm.id: taken(vm, native) for vm in scenario.vms}
        self._ours: dict[int, set[Bdf]] = {vm.id: set() for vm in scenario.vms}

    def settle(self, region: Region, vm: Vm, vbdf: Bdf) -> None:
        """Give a region its place, whatever else is there: the rules tell what cannot be."""
        self.places[_seat(region, vm)] = vbdf
        self._ours[vm.id].add(vbdf)
        self._taken[vm.id].setdefault(vbdf.device, f"region '{region.name}'")

    def keep(self, seats: Iterable[tuple[Region, Vm]], before: Places) -> None:
        """Leave regions that have no place yet where they were before, as far as that can be."""

        def function(seat: tuple[Region, Vm]) -> int:
            vbdf = before.get(_seat(*seat))
            return vbdf.function if vbdf else 0

        # Functions 0 first, for others stand beside one.
        for region, vm in sorted(seats, key=function):
            vbdf = before.get(_seat(region, vm))
            if vbdf is not None and _seat(region, vm) not in self.places and self._usable(vm, vbdf):
                self.settle(region, vm, vbdf)

    def choose(self, region: Region, vm: Vm, last: set[int]) -> None:
        """Give a region the first free device number; those in ``last`` come behind the others."""
        order = sorted(self._order, key=lambda slot: slot in last)
        device = next((slot for slot in order if slot not in self._taken[vm.id]), None)
        if device is None:
            raise IvshmemError(
                f"{self._where}: VM '{vm.name}' has no free PCI slot left for region '{region.name}'; "
                "put it into fewer regions"
            )
        self.settle(region, vm, Bdf(0, device, 0))

    def _usable(self, vm: Vm, vbdf: Bdf) -> bool:
        if vbdf.bus:
            return False
        if not vbdf.function:
            return vbdf.device not in self._taken[vm.id]
        # Where a region has function 0, a version with several functions for a device may have more of them.
        ours = self._ours[vm.id]
        beside = replace(vbdf, function=0) in ours and vbdf not in ours
        return beside and several_functions(vm, self._version)
