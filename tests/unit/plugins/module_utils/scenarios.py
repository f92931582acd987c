# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small scenario, launch and board documents for tests, and what a stock XML parser reads in them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

# The VMs of every document: a pre-launched one, the Service VM, two post-launched ones.
VMS = ((0, "PRE0", "pre"), (1, "SVC", "service"), (2, "POST2", "post"), (3, "POST3", "post"))
POSTS = ("POST2", "POST3")
_TYPES = {
    "v2": {"pre": "PRE_STD_VM", "service": "SERVICE_VM", "post": "POST_STD_VM"},
    "v3": {"pre": "PRE_LAUNCHED_VM", "service": "SERVICE_VM", "post": "POST_LAUNCHED_VM"},
}
EMPTY = {
    "v2": """\
      <IVSHMEM>
        <IVSHMEM_ENABLED>n</IVSHMEM_ENABLED>
        <IVSHMEM_REGION/>
      </IVSHMEM>
""",
    "v3": "      <IVSHMEM/>\n",
}

# Where reference data of real ACRN versions may lie: beside the project, or where this variable says.
SHARED = Path(os.environ.get("ACRN_IVSHMEM_SHARED") or Path(__file__).resolve().parents[5] / "shared")


def vm_xml(dialect, vm_id, name, kind, more=""):
    """One <vm>; ``more`` goes before its end."""
    tag = "load_order" if dialect == "v3" else "vm_type"
    lines = [f'  <vm id="{vm_id}">', f"    <{tag}>{_TYPES[dialect][kind]}</{tag}>", f"    <name>{name}</name>"]
    return "\n".join([*lines, *([more] if more else []), "  </vm>\n"])


def pci_devs(*lines):
    """Passthrough devices of a VM."""
    return "    <pci_devs>" + "".join(f"<pci_dev>{line}</pci_dev>" for line in lines) + "</pci_devs>"


def vuart(name, *endpoints):
    """A PCI vUART connection between (VM name, vBDF) pairs, for ``hv``."""
    ends = "".join(f"<endpoint><vm_name>{vm}</vm_name><vbdf>{vbdf}</vbdf></endpoint>" for vm, vbdf in endpoints)
    return (
        f"    <vuart_connections><vuart_connection><name>{name}</name><type>pci</type>{ends}"
        "</vuart_connection></vuart_connections>\n"
    )


def scenario(dialect="v3", block=None, vms=VMS, hv="", more=None):
    """The text of a scenario XML.

    ``block`` is the IVSHMEM element (as upstream's empty one if None), ``hv`` more of <hv>, ``more`` maps VM names to
    more of their <vm>.
    """
    more = more or {}
    return (
        '<acrn-config board="board" scenario="line">\n'
        "  <hv>\n    <FEATURES>\n      <RELOC>y</RELOC>\n"
        f"{EMPTY[dialect] if block is None else block}"
        "    </FEATURES>\n"
        f"{hv}  </hv>\n"
        f"{''.join(vm_xml(dialect, *vm, more.get(vm[1], '')) for vm in vms)}"
        "</acrn-config>\n"
    )


def region_v3(name, *vms, size=2, provider="Hypervisor", region_id=None, indent="        "):
    """One IVSHMEM_REGION of v3.x; ``vms`` are (name, vBDF) pairs."""
    number = f"<IVSHMEM_REGION_ID>{region_id}</IVSHMEM_REGION_ID>" if region_id is not None else ""
    shared = "".join(f"<IVSHMEM_VM><VM_NAME>{vm}</VM_NAME><VBDF>{vbdf}</VBDF></IVSHMEM_VM>" for vm, vbdf in vms)
    return (
        f"{indent}<IVSHMEM_REGION> <NAME>{name}</NAME><PROVIDED_BY>{provider}</PROVIDED_BY>{number}"
        f"<IVSHMEM_SIZE>{size}</IVSHMEM_SIZE><IVSHMEM_VMS>{shared}</IVSHMEM_VMS></IVSHMEM_REGION>\n"
    )


def block_v3(*regions):
    """The IVSHMEM element of v3.x with regions of region_v3."""
    return f"      <IVSHMEM>\n{''.join(regions)}      </IVSHMEM>\n"


def block_v2(*lines, enabled="y"):
    """The IVSHMEM element of v2.x with regions of text."""
    regions = "".join(f"        <IVSHMEM_REGION>{line}</IVSHMEM_REGION>\n" for line in lines)
    return f"      <IVSHMEM>\n        <IVSHMEM_ENABLED>{enabled}</IVSHMEM_ENABLED>\n{regions}      </IVSHMEM>\n"


def board_xml(pci=(), ram=((0x100000, 0x40000000),), tree="", windows=(), lines=()):
    """The text of a board XML: BDFs of PCI functions, (first, length) of blocks of RAM.

    ``tree`` is what its first PCI bus holds, ``windows`` are (first, last) of that bus, ``lines`` more of /proc/iomem.
    """
    devices = "".join(f"\t{bdf} Some device: of somebody\n" for bdf in pci)
    memory = "".join(f"\t{start:08x}-{start + length - 1:08x} : System RAM\n" for start, length in ram)
    memory += "".join(f"\t{line}\n" for line in lines)
    resources = "".join(
        f'<resource type="memory" min="{first:#x}" max="{last:#x}" len="{last + 1 - first:#x}"/>'
        for first, last in windows
    )
    bus = f'<devices><bus type="pci" address="0x0">{resources}{tree}</bus></devices>\n' if resources or tree else ""
    return (
        f'<acrn-config board="board">\n<PCI_DEVICE>\n{devices}</PCI_DEVICE>\n'
        f"<IOMEM_INFO>\n\t00000000-00000fff : Reserved\n{memory}</IOMEM_INFO>\n{bus}</acrn-config>\n"
    )


def launch_xml(users=(1, 2), tag="user_vm", regions="<shm_regions><shm_region></shm_region></shm_regions>"):
    """The text of a v2.x launch XML with VMs of these numbers."""
    vms = "".join(f'  <{tag} id="{user}">\n    <name>U{user}</name>\n    {regions}\n  </{tag}>\n' for user in users)
    return f'<acrn-config board="board" scenario="line" user_vm_launcher="2">\n{vms}</acrn-config>\n'


def found(data, dialect):
    """What a stock parser reads in the IVSHMEM element: {name: (provider, size, ID, {VM: vBDF})} for v3.x, else
    (enabled, texts). None without such an element."""
    block = ElementTree.fromstring(data).find("hv/FEATURES/IVSHMEM")
    if block is None:
        return None
    regions = block.findall("IVSHMEM_REGION")
    if dialect == "v2":
        return block.findtext("IVSHMEM_ENABLED"), [region.text for region in regions if region.text]
    return {
        region.findtext("NAME"): (
            region.findtext("PROVIDED_BY"),
            region.findtext("IVSHMEM_SIZE"),
            region.findtext("IVSHMEM_REGION_ID"),
            {vm.findtext("VM_NAME"): vm.findtext("VBDF") for vm in region.findall("IVSHMEM_VMS/IVSHMEM_VM")},
        )
        for region in regions
    }


def around(text):
    """What stands before and behind the IVSHMEM element of a text that has one outside comments."""
    match = re.search(r"<IVSHMEM(\s[^>]*?)?(/>|>.*?</IVSHMEM>)", text, re.DOTALL)
    return text[: match.start()], text[match.end() :]


def real_files():
    """The XML files of reference data: scenarios by (path, dialect)."""
    paths = sorted(SHARED.glob("acrn-data/*/*/*.xml"))
    scenarios = [path for path in paths if b"<vm id=" in path.read_bytes() and "launch" not in path.name]
    return [(path, "v3" if b"<load_order" in path.read_bytes() else "v2") for path in scenarios]


def sharing(scenario, version):
    """The VMs of a scenario that may have regions of the hypervisor on an ACRN version."""

    def fits(vm):
        backed = any(function.kind == "passthrough" for function in vm.functions)
        return version > (2, 2) or vm.load_order == "post_launched" or (vm.load_order == "pre_launched" and backed)

    return [vm for vm in scenario.vms if fits(vm)]
