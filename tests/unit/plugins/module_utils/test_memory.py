# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import parse_region
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._memory import budget, service_places
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios


def region(name="r", vms=("PRE0", "POST2"), **more):
    return parse_region({"name": name, "size": 2, "vms": list(vms), **more})


def dm(name, **more):
    return region(name, ("POST2", "POST3"), provided_by="device_model", **more)


def board(**content):
    return read_board(scenarios.board_xml(**content).encode(), "board")


def count_of(total, post):
    """``total`` VMs, of which ``post`` are post-launched, one is the Service VM and the rest pre-launched."""
    kinds = ["pre"] * (total - post - 1) + ["service"] + ["post"] * post
    return tuple((number, f"VM{number}", kind) for number, kind in enumerate(kinds))


BUDGETS = [
    *[((2, 2), count_of(n, 1), 1024 - ram) for n, ram in ((2, 120), (3, 150), (4, 180), (5, 210), (6, 250))],
    *[((2, 2), count_of(n, 1), 1024 - ram) for n, ram in ((7, 280), (8, 328))],
    *[((2, 3), count_of(n, 1), 1024 - ram) for n, ram in ((2, 120), (4, 190), (6, 250), (7, 300), (8, 328))],
    *[((2, 4), count_of(n, 1), 1024 - ram) for n, ram in ((3, 150), (4, 190), (7, 300))],
    *[((2, minor), count_of(6, post), 502 - 8 * post) for minor in (5, 6, 7) for post in (1, 2, 3, 4, 5)],
    *[((3, minor), count_of(n, 1), limit) for minor in (0, 1) for n, limit in ((2, 462), (3, 442), (4, 422), (8, 342))],
    ((3, 2), count_of(4, 2), 940),
]


@pytest.mark.parametrize(("version", "vms", "limit"), BUDGETS)
def test_memory_budget(version, vms, limit):
    dialect = "v2" if version < (3, 0) else "v3"
    scenario = read_scenario(scenarios.scenario(dialect, vms=vms).encode(), "f")
    counted = [region("a", size=256), dm("b", size=64)]
    both = version >= (3, 0)
    told = budget(scenario, version, None, counted)
    assert told["limit"] == limit
    assert (told["used"], told["counts"]) == (320 if both else 256, ["hypervisor", "device_model"][: 1 + both])
    assert (told["guess"], told["unchecked"]) == (version != (2, 7), None)


def test_what_the_scenario_sets_goes_into_the_budget():
    more = {"POST2": "<secure_world_support>y</secure_world_support>"}
    text = scenarios.scenario("v3", hv="<CAPACITIES><MAX_VM_NUM>4</MAX_VM_NUM></CAPACITIES>", more=more)
    assert budget(read_scenario(text.encode(), "f"), (3, 2), None)["limit"] == 1024 - 20 - 16 - 16


@pytest.mark.parametrize("version", [(2, 2), (2, 4), (2, 6)])
def test_a_fixed_size_is_left_to_the_linker(version):
    text = scenarios.scenario("v2", hv="<MEMORY><HV_RAM_SIZE>0x16800000</HV_RAM_SIZE></MEMORY>")
    told = budget(read_scenario(text.encode(), "f"), version, board())
    # 360 MB, of which two post-launched VMs and the hypervisor take at least 40.
    assert told["limit"] == 320
    assert told["unchecked"] == 360 - {(2, 2): 180, (2, 4): 190, (2, 6): 52}[version]


@pytest.mark.parametrize(
    ("version", "vms", "ram", "limit"),
    [
        # The length of a range is a byte short there, so the whole of it is one step too much.
        ((2, 4), 4, [(1 << 28, 206 + 100), (4096, 2048)], 98),
        ((2, 6), 4, [(1 << 28, 16 + 52 + 200), (4096, 2048)], 98),
        ((2, 6), 4, [(1 << 28, 16 + 52 + 201), (4096, 2048)], 100),
        # From 256 MB on, whatever is below.
        ((2, 6), 4, [(1 << 20, 255 + 16 + 52 + 101), (4096, 2048)], 50),
        ((3, 1), 4, [(4 << 20, 180 + 201), (4096, 2048)], 100),
        ((3, 2), 4, [(4 << 20, 84 + 101), (4096, 2048)], 100),
        # The second range is low enough, the third is not.
        ((3, 1), 4, [(4 << 20, 100), (1 << 29, 180 + 301), (4096, 2048)], 150),
        ((3, 1), 4, [(4 << 20, 180 + 201), (2048, 600), (4096, 2048)], 100),
        # Where no range holds the image the boot loader looks for room below 4 GiB, and there is none.
        ((3, 1), 4, [(4 << 20, 180 + 201)], 100),
        # v2.x begins at 256 MB, but the boot loader does not.
        ((2, 6), 4, [(16 << 20, 401)], 174),
    ],
)
def test_the_image_goes_into_a_range_that_holds_it(version, vms, ram, limit):
    dialect = "v2" if version < (3, 0) else "v3"
    scenario = read_scenario(scenarios.scenario(dialect).encode(), "f")
    assert len(scenario.vms) == vms
    spans = [(first if first >= 1 << 20 else first << 20, length << 20) for first, length in ram]
    told = budget(scenario, version, board(ram=spans))
    assert (told["limit"], told["guess"]) == (limit, False)


def test_a_start_that_the_scenario_sets_is_not_looked_for():
    holed = board(ram=[(4 << 20, 300 << 20), (1 << 32, 2 << 30)])
    for start, limit in ((0, 58), (0x11000000, 422), (0x70000000, 254)):
        hv = f"<MEMORY><HV_RAM_START>{start:#x}</HV_RAM_START></MEMORY>"
        scenario = read_scenario(scenarios.scenario("v3", hv=hv).encode(), "f")
        assert budget(scenario, (3, 1), holed)["limit"] == limit


GB = 1 << 30
# Two VMs, so that all page tables are small.
FEW = "<CAPACITIES><MAX_VM_NUM>2</MAX_VM_NUM><MAX_PCI_DEV_NUM>16</MAX_PCI_DEV_NUM></CAPACITIES>"
GIVEN = {"PRE0": "<memory><hpa_region><start_hpa>0x100000000</start_hpa><size_hpa>512</size_hpa></hpa_region></memory>"}
SIZED = {"PRE0": "<memory><size>512</size></memory>"}
# RAM (first byte, MB), what VMs have of it, and the largest sum besides one of so many MB.
BLOCKS = [
    # 28 MB at 4 MB are the hypervisor's; the tables of the VMs find room in the other range.
    ([(1 << 20, 1279), (1792 << 20, 255)], {}, 0, 1248),
    # The same without another range: 23 MB go to the tables of the VMs, one to the hypervisor's own.
    ([(1 << 20, 1279)], {}, 0, 1224),
    ([(1 << 20, 60)], {}, 0, 10),
    # The last range that holds all is taken from its end, whoever has the rest of it.
    ([(1 << 20, 3071), (4 * GB, 1024)], {}, 0, 3038),
    ([(1 << 20, 3071), (4 * GB, 1024)], GIVEN, 512, 460),
    ([(1 << 20, 3071), (4 * GB, 1024)], SIZED, 512, 460),
    ([(1 << 20, 3071), (4 * GB, 1024)], GIVEN, 1024, 460),
    # A larger sum goes into another range.
    ([(1 << 20, 3071), (4 * GB, 1024)], GIVEN, 1536, 3038),
]


@pytest.mark.parametrize(("ram", "more", "used", "limit"), BLOCKS)
def test_from_v33_on_regions_are_one_block_of_ram(ram, more, used, limit):
    scenario = read_scenario(scenarios.scenario("v3", hv=FEW, more=more).encode(), "f")
    spans = [(first, length << 20) for first, length in ram]
    sizes = [256] * (used // 256)
    told = budget(scenario, (3, 3), board(ram=spans), [region(f"r{n}", size=size) for n, size in enumerate(sizes)])
    assert told.pop("service_vm") is None
    assert told == {"limit": limit, "used": used, "counts": ["hypervisor"], "guess": False, "unchecked": None}


def test_from_v33_on_nothing_is_told_without_the_boards_ram():
    scenario = read_scenario(scenarios.scenario("v3").encode(), "f")
    assert budget(scenario, (3, 3), None) is None
    assert budget(scenario, (3, 3), board(ram=())) is None
    assert budget(scenario, None, None) is None


def service(*sizes):
    return [region(f"r{number}", ["SVC", "POST2"], size=size) for number, size in enumerate(sizes)]


def unplaced(scenario, version, where, regions):
    """The first region that finds no room."""
    return next((each for each, inside in service_places(scenario, version, where, regions) if inside is None), None)


def first_unplaced(version, where, *sizes, **document):
    dialect = "v2" if version < (3, 0) else "v3"
    scenario = read_scenario(scenarios.scenario(dialect, **document).encode(), "f")
    found = unplaced(scenario, version, where, service(*sizes))
    return found and found.size


BAR = (
    '<device address="0x20000"><vendor>0x8086</vendor>'
    '<resource type="memory" id="bar0" width="32" min="{:#x}" max="{:#x}" len="0x1"/></device>'
)
GIB = (0x80000000, 0xBFFFFFFF)
HIGH = (0x4000000000, 0x7FFFFFFFFF)


@pytest.mark.parametrize("version", [(2, 5), (2, 6), (2, 7), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)])
def test_regions_of_the_service_vm_need_room_in_the_windows(version):
    # v2.5 to v2.7 take windows in which a device is; its page and those of the regions stand at the beginning.
    tree = BAR.format(0x80000000, 0x80000FFF)
    low = board(tree=tree, windows=[GIB])
    assert first_unplaced(version, low, 512) is None
    assert first_unplaced(version, low, 512, 256) is None
    assert first_unplaced(version, low, 512, 512) == 512
    assert first_unplaced(version, low, 256, 256, 256) is None
    assert first_unplaced(version, low, 64, 256, 256, 256, 256) == 256
    above = tree + BAR.format(HIGH[0], HIGH[0]).replace("0x20000", "0x30000")
    assert first_unplaced(version, board(tree=above, windows=[GIB, HIGH]), *[512] * 8) is None
    short = board(tree=tree, windows=[(0x80000000, 0x93FFFFFF)])
    scenario = read_scenario(scenarios.scenario("v2" if version < (3, 0) else "v3").encode(), "f")
    told = service_places(scenario, version, short, service(64, 128, 128))
    # Largest first: the third only begins in the window.
    assert [(each.size, inside) for each, inside in told] == [(128, True), (128, False), (64, True)]
    # Pages have room below 4 GiB alone.
    assert first_unplaced(version, board(tree=above, windows=[HIGH]), 2) == 2


def test_the_largest_region_that_the_service_vm_has_room_for():
    scenario = read_scenario(scenarios.scenario("v3").encode(), "f")
    low = board(tree=BAR.format(0x80000000, 0x80000FFF), windows=[GIB])
    for sizes, room in (([], 512), ([512], 256), ([512, 256], 128), ([512, 512], 0)):
        assert budget(scenario, (3, 3), low, service(*sizes))["service_vm"] == room
    alone = read_scenario(scenarios.scenario("v3", vms=((0, "PRE0", "pre"), (2, "POST2", "pre"))).encode(), "f")
    assert budget(alone, (3, 3), low)["service_vm"] is None


def test_what_a_pre_launched_vm_has_is_free_again():
    taken = board(tree=BAR.format(0xA0000000, 0xAFFFFFFF), windows=[(0x80000000, 0xAFFFFFFF)])
    assert first_unplaced((3, 3), taken, 256, 256) == 256
    more = {"PRE0": scenarios.pci_devs("00:02.0 VGA")}
    assert first_unplaced((3, 3), taken, 256, 256, more=more) is None


def test_windows_of_bridges_are_in_use_from_v32_on():
    bridge = (
        '<device address="0x20000"><resource type="memory" min="0x90000000" max="0xafffffff" len="0x20000000"/>'
        '<bus type="pci" address="0x1"/></device>'
    )
    bridged = board(tree=bridge + BAR.format(0x80000000, 0x80000FFF), windows=[(0x80000000, 0xAFFFFFFF)])
    assert first_unplaced((3, 2), bridged, 256) == 256
    assert first_unplaced((3, 1), bridged, 256) is None


@pytest.mark.parametrize("version", [(2, 3), (2, 4)])
def test_old_versions_take_the_windows_of_iomem(version):
    lines = ("80000000-bfffffff : PCI Bus 0000:00", "80000000-8fffffff : PCI Bus 0000:01", "c0000000-cfffffff : x")
    assert first_unplaced(version, board(lines=lines), 512) is None
    assert first_unplaced(version, board(lines=lines), 512, 512) is None  # it begins in the window
    assert first_unplaced(version, board(lines=lines), 512, 512, 2) == 2
    assert first_unplaced(version, board(), 2) == 2


def test_a_region_without_the_service_vm_needs_no_room():
    scenario = read_scenario(scenarios.scenario("v2").encode(), "f")
    lines = board(lines=("80000000-80ffffff : PCI Bus 0000:00",))
    both = [region("a", [0, 2], size=512), region("b", [0, 3], size=512), *service(2)]
    assert unplaced(scenario, (2, 4), lines, both) is None
    # v2.3 makes room for all as soon as it is in one.
    assert unplaced(scenario, (2, 3), lines, both).name == "b"
    assert unplaced(scenario, (2, 3), lines, both[:2]) is None
