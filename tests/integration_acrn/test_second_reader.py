# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection writes into scenario files, read again with lxml: what is declared, and nothing else touched."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import parse_version
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

PATH = Path(__file__).resolve().parents[1] / "lab" / "second_reader.py"
SPEC = importlib.util.spec_from_file_location("second_reader", PATH)
reader = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reader)

# Files of ACRN itself: <release>/<board>/<scenario>.xml.
REAL = [
    pytest.param(path.read_bytes(), dialect, parse_version(path.parts[-3]), id="-".join(path.parts[-3:]))
    for path, dialect in scenarios.real_files()
]
OWN = [
    pytest.param(scenarios.scenario(dialect).encode(), dialect, version, id=dialect)
    for dialect, version in (("v2", (2, 7)), ("v3", (3, 3)))
]


def edit(data, dialect, version):
    """Two regions in place of those that a file has; its bytes after it, and the declaration in the reader's words."""
    scenario = read_scenario(data, "f")
    # Some VMs of v2.2 have names that no region may have.
    vms = [vm for vm in scenarios.sharing(scenario, version) if " " not in (vm.name or "")]
    key = (lambda vm: vm.name) if dialect == "v3" else (lambda vm: str(vm.id))
    if len(vms) < 2:
        pytest.skip("it has no two VMs that may share memory")
    declared = [
        {"name": "second_eyes", "size": 2, "vms": [key(vm) for vm in vms[:2]]},
        {"name": "cam", "size": 16, "vms": [key(vm) for vm in (vms[0], vms[-1])]},
    ]
    if dialect == "v3":
        declared[0]["region_id"] = 4097
    return decide(data, "f", declared, "exact", version=version).data, declared


@pytest.mark.parametrize(("data", "dialect", "version"), [*OWN, *REAL])
def test_what_is_written_is_what_is_declared_and_nothing_else_is_touched(data, dialect, version):
    after, declared = edit(data, dialect, version)
    assert reader.problems(data, after, declared) == []
    back = decide(after, "f", [], "exact", version=version).data
    assert reader.problems(data, back, []) == []


@pytest.mark.parametrize(("data", "dialect", "version"), OWN)
def test_the_reader_sees_what_is_wrong(data, dialect, version):
    after, declared = edit(data, dialect, version)

    def told(old, new):
        assert old in after.decode()
        return " ".join(reader.problems(data, after.decode().replace(old, new, 1).encode(), declared))

    assert "region 'cam' is missing" in told("cam", "cab") and "'cab' is declared by nobody" in told("cam", "cab")
    assert "outside the IVSHMEM element" in told("<RELOC>y", "<RELOC>n")
    assert "outside the IVSHMEM element" in told("</acrn-config>", "<!-- more --></acrn-config>")
    size = "<IVSHMEM_SIZE>16<" if dialect == "v3" else " 16,"
    assert "size is 32, not 16" in told(size, size.replace("16", "32"))
    if dialect == "v3":
        assert "region_id is 4098, not 4097" in told(">4097<", ">4098<")
        assert "its VMs are" in told("<VM_NAME>POST3", "<VM_NAME>SVC")
