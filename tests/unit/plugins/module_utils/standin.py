# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of the stand-in for an ACRN tree (tests/standin_tree) with a board and a scenario, for tests of the build."""

from __future__ import annotations

import shutil
from pathlib import Path

TREE = Path(__file__).resolve().parents[3] / "standin_tree"
BOARD = b'<acrn-config board="bench">\n</acrn-config>\n'

_V3 = """\
<acrn-config>
  <hv><FEATURES><IVSHMEM>{regions}</IVSHMEM></FEATURES></hv>
  <vm id="0"><load_order>PRE_LAUNCHED_VM</load_order><name>PRE0</name></vm>
  <vm id="1"><load_order>SERVICE_VM</load_order><name>SVC</name></vm>
  <vm id="2"><load_order>POST_LAUNCHED_VM</load_order><name>POST2</name></vm>
</acrn-config>
"""
_V3_REGION = """
    <IVSHMEM_REGION>
      <NAME>{name}</NAME>
      <PROVIDED_BY>{provider}</PROVIDED_BY>
      <IVSHMEM_SIZE>{size}</IVSHMEM_SIZE>
      <IVSHMEM_VMS>
        <IVSHMEM_VM><VM_NAME>SVC</VM_NAME><VBDF>00:08.0</VBDF></IVSHMEM_VM>
        <IVSHMEM_VM><VM_NAME>POST2</VM_NAME><VBDF>00:09.0</VBDF></IVSHMEM_VM>
      </IVSHMEM_VMS>
    </IVSHMEM_REGION>"""
_V2 = """\
<acrn-config board="bench" scenario="{name}">
  <hv><FEATURES><IVSHMEM><IVSHMEM_ENABLED>{enabled}</IVSHMEM_ENABLED>{regions}</IVSHMEM></FEATURES></hv>
  <vm id="0"><vm_type>PRE_STD_VM</vm_type><name>PRE0</name></vm>
  <vm id="1"><vm_type>SERVICE_VM</vm_type><name>SVC</name></vm>
  <vm id="2"><vm_type>POST_STD_VM</vm_type><name>POST2</name></vm>
</acrn-config>
"""


def v3(*regions):
    """A scenario for v3.x; a region is a name and a size, and a provider where it is not the hypervisor."""
    texts = [
        _V3_REGION.format(name=name, size=size, provider=(provider or ["Hypervisor"])[0])
        for name, size, *provider in regions
    ]
    return _V3.format(regions="".join(texts)).encode()


def v2(*regions, enabled="y", name="bench_line"):
    """A scenario for v2.x; a region is its text."""
    texts = [f"<IVSHMEM_REGION>{region}</IVSHMEM_REGION>" for region in regions]
    return _V2.format(regions="".join(texts), enabled=enabled, name=name).encode()


def copy_tree(target, version=None):
    """A copy of the stand-in tree, of another version if wanted."""
    shutil.copytree(str(TREE), str(target), ignore=shutil.ignore_patterns("__pycache__"))
    if version:
        major, minor = version.split(".")
        (target / "VERSION").write_text(f"MAJOR_VERSION={major}\nMINOR_VERSION={minor}\nEXTRA_VERSION=\n")
    return target


def snapshot(folder):
    """Every path below a folder with its bytes and its time, to see whether anything was written."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }
