# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What modules take of the ivshmem device that a VM has of a region: C(DEVICE_OPTIONS) of C(_region) reads it."""

from __future__ import annotations


class ModuleDocFragment:
    # One for each name that the option has in modules: what reads fragments wants literals.
    DOCUMENTATION = r"""
options:
  devices:
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the region.
        type: str
      provided_by:
        description:
          - Who provides the memory. The hypervisor (hv-land) or acrn-dm (dm-land).
        type: str
        choices: [hypervisor, device_model]
      size:
        description: Size of the shared memory in MB, a power of two from 2 to 512.
        type: int
      vbdf:
        description: PCI address in the VM, in hexadecimal, as C(lspci) prints it, such as V(00:08.0).
        type: str
        aliases: [bdf]
      slot:
        description:
          - PCI slot in the VM, in decimal, as the C(-s) argument of C(acrn-dm) has it. Another way to give the address.
        type: int
      region_id:
        description:
          - Region ID of ACRN v3.3 and later, from 4096 to 65535, which is the PCI subsystem ID of the function.
          - 0 is none.
        type: int
      nth:
        description:
          - Which function it is, counted from 1 in the order of their addresses, where as many fit as C(nth_of) says.
          - ACRN up to v2.7 has no region IDs, and its build places the regions of a VM in the order of the scenario.
            P(acrn.ivshmem.vm_devices#filter) tells it. Only guests are looked at for it.
        type: int
      nth_of:
        description: How many functions fit.
        type: int
      peers:
        description:
          - IDs of the other VMs of the region.
          - Accepted because P(acrn.ivshmem.vm_devices#filter) returns it, and not used.
        type: list
        elements: int
"""

    REGIONS = r"""
options:
  regions:
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the region.
        type: str
      provided_by:
        description:
          - Who provides the memory. The hypervisor (hv-land) or acrn-dm (dm-land).
        type: str
        choices: [hypervisor, device_model]
      size:
        description: Size of the shared memory in MB, a power of two from 2 to 512.
        type: int
      vbdf:
        description: PCI address in the VM, in hexadecimal, as C(lspci) prints it, such as V(00:08.0).
        type: str
        aliases: [bdf]
      slot:
        description:
          - PCI slot in the VM, in decimal, as the C(-s) argument of C(acrn-dm) has it. Another way to give the address.
        type: int
      region_id:
        description:
          - Region ID of ACRN v3.3 and later, from 4096 to 65535, which is the PCI subsystem ID of the function.
          - 0 is none.
        type: int
      nth:
        description:
          - Which function it is, counted from 1 in the order of their addresses, where as many fit as C(nth_of) says.
          - ACRN up to v2.7 has no region IDs, and its build places the regions of a VM in the order of the scenario.
            P(acrn.ivshmem.vm_devices#filter) tells it. Only guests are looked at for it.
        type: int
      nth_of:
        description: How many functions fit.
        type: int
      peers:
        description:
          - IDs of the other VMs of the region.
          - Accepted because P(acrn.ivshmem.vm_devices#filter) returns it, and not used.
        type: list
        elements: int
"""
