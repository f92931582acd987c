#!/usr/bin/python

# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: guest_device
short_description: Bind the ivshmem functions of a Linux guest to a driver
version_added: 1.0.0
description:
  - Finds the ivshmem PCI functions (1af4:1110) of a guest, binds them to C(uio_pci_generic) or C(vfio-pci), and keeps
    that over a reboot. One call does all functions of a guest.
  - Gives the functions stable names in C(/dev/ivshmem), and a group access to them. C(/dev/uio0) is never assumed.
  - Nothing is touched when something asked for cannot work. The message says what to do about it.
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
extends_documentation_fragment:
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.device
attributes:
  check_mode:
    support: full
    description: Predicts what a run would change, and changes nothing.
  diff_mode:
    support: full
    description: Shows the driver and access of each function, and the rules file, before and after.
  idempotent:
    support: full
    description: A second run with the same options changes nothing.
  platform:
    support: full
    platforms: linux
    description: The guests' operating system.
options:
  devices:
    description:
      - The functions, one entry each. Each entry must fit exactly one function of the guest. Every value that is given
        must fit, but for O(devices[].provided_by), which is not used.
      - O(devices[].name) becomes the stable name C(/dev/ivshmem/NAME) of the uio node.
      - Where the hypervisor is older than v3.3, and the function has no region ID, it is not compared.
      - Left out, all ivshmem functions of the guest are meant. An empty list means none of them, which together with
        O(exclusive) releases what earlier calls bound.
  state:
    description:
      - V(present) binds the functions.
      - V(absent) unbinds those that O(driver) holds, or another driver that an earlier call with O(persist) gave them,
        takes the PCI ID out of the driver again, and removes what makes it last. Functions that the guest does not
        have are no error.
    type: str
    choices: [present, absent]
    default: present
  driver:
    description:
      - V(uio_pci_generic) is enough to share memory and to ring a doorbell.
      - V(vfio-pci) can receive doorbell interrupts, too, but needs an IOMMU in the guest, or O(unsafe_noiommu).
    type: str
    choices: [uio_pci_generic, vfio-pci]
    default: uio_pci_generic
  method:
    description:
      - V(new_id) gives the PCI ID to the driver, as ACRN's guide does. The driver then takes every ivshmem function
        that no driver holds. So where O(devices) leaves such a function out, the ID is narrowed to the region ID
        (ACRN v3.3 and later), and where that cannot tell them apart, V(driver_override) is used instead.
      - V(driver_override) names the driver of single functions.
      - A function that O(driver) holds already is left as it is, however it came there.
    type: str
    choices: [new_id, driver_override]
    default: new_id
  force:
    description: Take a function away from another driver that holds it. Without it, such a function is an error.
    type: bool
    default: false
  persist:
    description:
      - Bind again after a reboot, by a udev rule in C(/etc/udev/rules.d/70-acrn-ivshmem.rules), which names each
        function (or all, without O(devices)), loads the module and sets C(driver_override). No other unit or file is
        needed.
      - Without it, names and access still come from a udev rule, in C(/run/udev/rules.d), which a reboot forgets. There
        it also stands which functions this module has bound.
    type: bool
    default: true
  exclusive:
    description:
      - Also release the functions that earlier calls of this module took and O(devices) does not list any more, and
        drop their rules. Functions that this module never had are left alone. With O(persist=false), so are those that
        were bound already when it came; they lose names and access alone, and a warning names them.
    type: bool
    default: false
  group:
    description:
      - Group of the uio node and of the files C(resource0), C(resource2) and C(resource2_wc), which programs map. It
        must exist. Only for O(driver=uio_pci_generic).
    type: str
  mode:
    description:
      - Mode of the same files, in octal digits. With O(group) the default is V(0660); without it, the kernel's V(0600)
        stays. Only for O(driver=uio_pci_generic).
    type: str
  unsafe_noiommu:
    description:
      - For O(driver=vfio-pci) in a guest without IOMMU, let vfio work without one. It needs a kernel with
        C(CONFIG_VFIO_NOIOMMU) and taints it, because a program can then make the function reach any memory.
    type: bool
    default: false
  python:
    description:
      - Whether the guest has Python 3.8 or later.
      - Without it, a POSIX shell tells the controller what the guest has, the controller decides as it would with
        Python, and the shell carries that out. Nothing is copied, and nothing stays behind. It needs C(stat -c),
        C(cksum), and C(od) or C(hexdump), which busybox has, too. The register RV(devices[].iv_position) is not read
        then.
    type: bool
    default: true
notes:
  - Needs root in the guest.
seealso:
  - module: acrn.ivshmem.guest_probe
"""

EXAMPLES = r"""
- name: Bind every ivshmem function as ACRN's guide does, and again after each reboot
  acrn.ivshmem.guest_device:

- name: Bind two regions, with names and access for a group
  acrn.ivshmem.guest_device:
    devices:
      - name: shm_region_0
        bdf: "00:08.0"
        size: 2
      - name: camera
        region_id: 4097
    group: ivshmem
    exclusive: true

- name: Receive doorbell interrupts
  acrn.ivshmem.guest_device:
    driver: vfio-pci
    devices:
      - name: shm_region_0
        slot: 8

- name: Give everything back
  acrn.ivshmem.guest_device:
    state: absent
"""

RETURN = r"""
devices:
  description: The functions that were meant, as they are after the run, in the order of O(devices).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name in O(devices[].name).
      type: str
      sample: shm_region_0
    bdf:
      description: PCI address.
      type: str
      sample: "00:08.0"
    sysfs_path:
      description: The function's directory in sysfs.
      type: str
      sample: /sys/bus/pci/devices/0000:00:08.0
    driver:
      description: Driver that holds it.
      type: str
      sample: uio_pci_generic
    uio:
      description: Name of the uio device.
      type: str
      sample: uio0
    node:
      description: The uio node, or the node of the vfio group.
      type: str
      sample: /dev/uio0
    link:
      description: Stable name of the uio node.
      type: str
      sample: /dev/ivshmem/shm_region_0
    resource2:
      description: The file to map for the shared memory.
      type: str
      sample: /sys/bus/pci/devices/0000:00:08.0/resource2
    size:
      description: Size of the shared memory in MB.
      type: int
      sample: 2
    bar0:
      description: Address and size in bytes of BAR0, the registers.
      type: dict
      sample: {"address": "0xfebf1000", "size": 256}
    bar1:
      description: The same for BAR1, the MSI-X table. None where the function has none.
      type: dict
      sample: {"address": "0xfebf2000", "size": 4096}
    bar2:
      description: The same for BAR2, the shared memory.
      type: dict
      sample: {"address": "0xfe000000", "size": 2097152}
    subsystem_vendor:
      description: PCI subsystem vendor, hexadecimal.
      type: str
      sample: "8086"
    subsystem_device:
      description: PCI subsystem ID, hexadecimal.
      type: str
      sample: "1000"
    region_id:
      description: Region ID, where the hypervisor writes one (ACRN v3.3 and later).
      type: int
      sample: 4096
    msix:
      description: Whether the function has MSI-X, that is a doorbell. Regions of the Device Model have none.
      type: bool
      sample: true
    vectors:
      description: Number of interrupt vectors.
      type: int
      sample: 8
    iv_position:
      description:
        - The register IVPosition, which is the VM's own peer ID. ACRN up to v3.2 may show 0 instead. None without
          MSI-X, with driver C(vfio-pci), and with O(python=false).
      type: int
      sample: 2
boot_id:
  description: The guest's boot, as the kernel names it.
  returned: success
  type: str
proof:
  description: What O(acrn.ivshmem.guest_probe#module:proof) kept in the guest since it has booted, or null.
  returned: success
  type: str
actions:
  description: The steps that were taken, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: ["modprobe uio_pci_generic", "new_id uio_pci_generic 1af4 1110"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _act, _binding, _functions, _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._lock import held
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import DEVICE_OPTIONS, IvshmemError


def wish_of(params):
    return _binding.Wish(
        devices=None if params["devices"] is None else _functions.parse_devices(params["devices"]),
        driver=params["driver"],
        method=params["method"],
        present=params["state"] == "present",
        force=params["force"],
        persist=params["persist"],
        exclusive=params["exclusive"],
        group=params["group"] or None,
        mode=_functions.mode_bits(params["mode"] or None),
        unsafe_noiommu=params["unsafe_noiommu"],
    )


def result_of(kernel, todo, diff):
    result = {
        "changed": todo.changed,
        "actions": [action.describe() for action in todo.actions],
        "devices": [
            _functions.facts(kernel, _functions.read_function(kernel, function.address), device)
            for device, function in todo.selected
        ],
    }
    result.update(_kernel.proof(kernel))
    if diff:
        result["diff"] = _binding.diffs(todo)
    return result


def run(module, kernel):
    wish = wish_of(module.params)
    todo = _binding.plan(_binding.observe(kernel, wish), wish)
    if todo.changed and not module.check_mode:
        # A call that finds nothing to change needs no lock. This one looks again at what is to be changed.
        with held(_kernel.LOCK, what="guest_device"):
            state = _binding.observe(kernel, wish)
            todo = _binding.plan(state, wish)
            _act.apply(kernel, todo, state)
    for warning in todo.warnings:
        module.warn(warning)
    return result_of(kernel, todo, module._diff)


ARGUMENTS = {
    "argument_spec": {
        "devices": {"type": "list", "elements": "dict", "options": DEVICE_OPTIONS},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "driver": {"type": "str", "choices": ["uio_pci_generic", "vfio-pci"], "default": "uio_pci_generic"},
        "method": {"type": "str", "choices": ["new_id", "driver_override"], "default": "new_id"},
        "force": {"type": "bool", "default": False},
        "persist": {"type": "bool", "default": True},
        "exclusive": {"type": "bool", "default": False},
        "group": {"type": "str"},
        "mode": {"type": "str"},
        "unsafe_noiommu": {"type": "bool", "default": False},
        "python": {"type": "bool", "default": True},
    },
    "supports_check_mode": True,
}


def main(factory=AnsibleModule):
    module = factory(**ARGUMENTS)
    try:
        result = run(module, _kernel.Kernel())
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
