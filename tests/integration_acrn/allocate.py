# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the allocators of an ACRN tree say: ``allocate.py TREE``, a list of [board, scenario] in JSON on stdin.

A line of JSON for each pair: where the hypervisor's image goes (start and size, or what went wrong), and what went
wrong with the BARs. This runs in the Python that has what ACRN's tools need.
"""

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout

TREE = sys.argv[1]
TOOLS = next(
    path for path in (TREE + "/misc/config_tools", TREE + "/misc/acrn-config") if os.path.isdir(path + "/library")
)
for part in ("static_allocators", "hv_config", "board_config", "scenario_config", "library"):
    sys.path.insert(0, os.path.join(TOOLS, part))

with open(os.path.join(TREE, "VERSION")) as lines:
    numbers = dict(line.strip().split("=") for line in lines if line.count("=") == 1)
VERSION = int(numbers["MAJOR_VERSION"]), int(numbers["MINOR_VERSION"])

import lxml.etree  # noqa: E402

common = __import__(
    "acrn_config_utilities" if os.path.exists(TOOLS + "/library/acrn_config_utilities.py") else "common"
)


def said(function, *args):
    """What a function returns, or in words why it does not."""
    try:
        return function(*args)
    except Exception as exc:
        return repr(exc)[:300]


def by_defconfig(scenario):
    """v2.2, v2.3 and v2.7 place the image in the tool that writes .config."""
    import board_defconfig
    import hv_item

    info = hv_item.HvInfo(scenario)
    info.get_info()
    config = io.StringIO()
    wrong = board_defconfig.get_memory(info, config)
    words = dict(line.split("=") for line in config.getvalue().split())
    # v2.7 checks the size here alone, and xforms/config_common.xsl takes the start, which its schema has a default for.
    start = words["CONFIG_HV_RAM_START"] if VERSION < (2, 7) else info.mem.hv_ram_start or "0x400000"
    return str(wrong) if wrong else [start, words.get("CONFIG_HV_RAM_SIZE", "")]


def by_allocator(board, scenario, allocation):
    import hv_ram

    hv_ram.fn(board, scenario, allocation)
    memory = "hv/MEMORY/"
    # xforms/config_common.xsl: what the scenario says wins.
    values = [
        scenario.findtext(memory + key) or allocation.findtext(memory + key) for key in ("HV_RAM_START", "HV_RAM_SIZE")
    ]
    return values


def bars(board, scenario, allocation):
    if VERSION <= (2, 4):
        import vbar_base_h

        vbar_base_h.generate_file(io.StringIO())
    else:
        import gpa

        # v2.5 has it in one with the rest.
        getattr(gpa, "allocate_pci_bar", gpa.fn)(board, scenario, allocation)


def allocate(board, scenario):
    common.BOARD_INFO_FILE, common.SCENARIO_INFO_FILE = board, scenario
    common.get_vm_num(scenario)
    (common.get_vm_types if VERSION < (3, 0) else common.get_load_order)()
    trees = [lxml.etree.parse(board), lxml.etree.parse(scenario)]
    trees.append(lxml.etree.ElementTree(lxml.etree.fromstring("<acrn-config></acrn-config>")))
    in_defconfig = VERSION <= (2, 3) or VERSION == (2, 7)
    memory = said(by_defconfig, scenario) if in_defconfig else said(by_allocator, *trees)
    return {"memory": memory, "bars": said(bars, *trees)}


for pair in json.load(sys.stdin):
    # Each in a process of its own: the tools keep what they read in globals.
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            result = said(allocate, *pair)
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        print(answer.read(), flush=True)
    os.waitpid(child, 0)
