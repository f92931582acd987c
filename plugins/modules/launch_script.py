#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: launch_script
short_description: Set the ivshmem devices in a launch script of an ACRN VM
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Makes the C(acrn-dm) call of a launch script carry the ivshmem devices of its VM, all of them in one go.
    Devices are added, moved to another slot, resized and removed; everything else in the script stays, byte for byte.
  - Both kinds of script are known, C(acrn-dm -A -m ... \) with continuation lines, variables and quotes, and the
    C(dm_params) array that ACRN's own C(launch_cfg_gen.py) writes since v3.0.
  - Devices are seen where the script tells them, also in variables, arrays, arguments of functions and C(set --). Where
    only a run of the script would tell, O(state=exact) is refused with the line, and otherwise there is a warning.
  - What C(acrn-dm) or the hypervisor would refuse when the VM is launched is refused here, with the line of the script.
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  path:
    description:
      - The launch script. A symbolic link is followed and stays one.
    type: path
    required: true
  src:
    description:
      - A script on the same host to start from, for example one that C(launch_cfg_gen.py) has just written. Virtio
        devices that the generator has placed where a region shall be go to free slots.
        O(path) becomes its content with the devices.
      - For devices without O(devices[].slot) and O(devices[].vbdf), slots that O(path) has had are kept.
    type: path
  content:
    description:
      - The text of a script to start from, as with O(src).
    type: str
  devices:
    description:
      - The ivshmem devices of the VM. The filter P(acrn.ivshmem.vm_devices#filter) gives them for a VM of a plan.
      - Without it they follow from O(scenario_path).
      - Each has a name, with or without C(hv:/) or C(dm:/) in front. O(devices[].provided_by) is not needed with such a
        prefix, and O(devices[].size) not with O(state=absent).
      - A slot is one of 3 to 30; bus and function are 0. Without one the slot that the script has stays, or
        the first free one of 8 to 15, 3 to 7 and 16 to 30 is taken.
      - The region ID is written in decimal, since C(acrn-dm) reads V(0x1000) as 0.
  scenario_path:
    description:
      - The scenario XML. Devices that it contradicts are refused; so is a VM that is not post-launched.
    type: path
  vm:
    description:
      - The VM, by name, or by ID if there is O(scenario_path).
      - Without it the script says which VM it starts, by the last argument of C(acrn-dm), or by C(-U) up to ACRN v2.6.
        Needed for a script that starts several VMs.
      - A call of C(acrn-dm) that can start more than one VM, because its name comes from arguments, a loop, a branch or
        another program, is refused with its line. So is a call that is run by C(xargs), C(eval) or a text for a shell.
    type: str
  uuid:
    description:
      - The UUID of O(vm). Up to ACRN v2.6 the hypervisor knows a VM by it (C(acrn-dm -U)), whatever its name is there,
        and a call that has it is the VM's. Default is that of O(scenario_path). Not read from v2.7 on.
    type: str
    version_added: 1.0.0
  state:
    description:
      - V(exact) makes these the only ivshmem devices of the VM.
      - V(present) adds or changes these and leaves others alone.
      - V(absent) removes the devices with these names and leaves others alone.
    type: str
    choices: [exact, present, absent]
    default: exact
  acrn_version:
    description:
      - The ACRN version, such as V(2.7) or V(3.3). Before 3.3 no region ID is written, and before 2.7 a VM name may be
        longer than 15 characters.
    type: str
  hypervisor_manifest:
    description:
      - The C(manifest.json) of the hypervisor that runs on the host, as M(acrn.ivshmem.hypervisor_build) leaves it
        beside C(acrn.bin).
      - A directory is that of M(acrn.ivshmem.hypervisor_install), C(/boot/acrn), where each build has its own manifest;
        that of the running entry is taken.
      - A device of a region that this hypervisor does not have is refused, with a warning only in check mode, as an
        earlier task of the play may install another hypervisor. If the file is not there, there is a warning.
    type: path
  acrn_dm:
    description:
      - The path of the C(acrn-dm) that a script without a path in its call means. With it, RV(start_problems) is
        returned.
    type: path
  exclusive:
    description:
      - Whether devices that are not in O(devices) are removed also from a script that this collection has not changed
        before. With V(false) such a script is refused, with the list of its devices. Only for O(state=exact).
      - Before its first change, a script is kept beside itself under its name with C(.before-acrn-ivshmem) behind. The
        copy is empty where there was no script.
    type: bool
    default: true
  backup:
    description:
      - Keep a copy of the script if it changes, with the time in its name.
    type: bool
    default: false
extends_documentation_fragment:
  - ansible.builtin.files
  - acrn.ivshmem.attributes
  - acrn.ivshmem.device
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
seealso:
  - module: acrn.ivshmem.scenario_regions
  - module: acrn.ivshmem.dm_memory
"""

EXAMPLES = r"""
- name: Give VM1 of ACRN's guide its shared memory
  acrn.ivshmem.launch_script:
    path: /usr/share/acrn/launch/VM1.sh
    vm: VM1
    devices:
      - name: dm:/test
        size: 2
        vbdf: "00:08.0"

- name: Let the devices follow from the scenario
  acrn.ivshmem.launch_script:
    path: /usr/share/acrn/launch/POST_STD_VM1.sh
    scenario_path: /usr/share/acrn/scenario.xml
    acrn_version: "3.3"
    hypervisor_manifest: /boot/acrn

- name: Take a generated script and set it right
  acrn.ivshmem.launch_script:
    src: /tmp/output/launch_user_vm_id1.sh
    path: /usr/share/acrn/launch/POST_STD_VM1.sh
    mode: "0755"
    devices: "{{ scenario_plan | acrn.ivshmem.vm_devices('POST_STD_VM1') }}"

- name: Remove one region from a script
  acrn.ivshmem.launch_script:
    path: /usr/share/acrn/launch/VM1.sh
    devices: [{name: dm:/test}]
    state: absent
"""

RETURN = r"""
vm:
  description: The VM that the script starts, or null where the script does not tell.
  returned: success
  type: str
style:
  description: V(command) for plain arguments, V(array) for arguments in a Bash array.
  returned: success
  type: str
devices:
  description: The devices of O(devices) or of the scenario, as they stand in the script. Empty with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The region's name without prefix.
      type: str
    provided_by:
      description: V(hypervisor) or V(device_model).
      type: str
    size:
      description: Size in MB.
      type: int
    region_id:
      description: The region ID, or null.
      type: int
    slot:
      description: The PCI slot, in decimal.
      type: int
    vbdf:
      description: The same as an address, in hexadecimal.
      type: str
    line:
      description: The line of the script.
      type: int
removed:
  description: Names, with prefix, of the regions whose device was removed.
  returned: success
  type: list
  elements: str
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["region 'dm:/test': moved from slot 6 to slot 8, because slot 6 is that of virtio-hyper_dmabuf (line 4)"]
changes:
  description: What happened to the devices that the script had, with O(state=exact).
  returned: success
  type: list
  elements: dict
  contains:
    change:
      description: V(add), V(move), V(resize) or V(remove).
      type: str
    region:
      description: The region, with prefix.
      type: str
    vm:
      description: The VM.
      type: str
    old:
      description: The slot before, or the size in MB for V(resize). Null for V(add).
      type: int
    new:
      description: The slot or size now. Null for V(remove).
      type: int
start_problems:
  description:
    - Why a VM could not be started by the script as it is now, as far as this can be seen without starting it, because
      its interpreter or its C(acrn-dm) is missing, or the interpreter does not read it.
  returned: success and O(acrn_dm)
  type: list
  elements: str
original:
  description: The copy of a script that was changed for the first time.
  returned: when it was made
  type: str
backup_file:
  description: The copy that was made.
  returned: changed and O(backup=true)
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths, locked
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._edit import STATES
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._script import set_script
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import DEVICE_OPTIONS, IvshmemError


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "src": {"type": "path"},
            "content": {"type": "str"},
            "devices": {"type": "list", "elements": "dict", "options": DEVICE_OPTIONS},
            "scenario_path": {"type": "path"},
            "vm": {"type": "str"},
            "uuid": {"type": "str"},
            "state": {"type": "str", "choices": list(STATES), "default": "exact"},
            "acrn_version": {"type": "str"},
            "hypervisor_manifest": {"type": "path"},
            "acrn_dm": {"type": "path"},
            "exclusive": {"type": "bool", "default": True},
            "backup": {"type": "bool", "default": False},
        },
        add_file_common_args=True,
        mutually_exclusive=[("src", "content")],
        required_one_of=[("devices", "scenario_path")],
        supports_check_mode=True,
    )
    try:
        check_paths(module.params, module.argument_spec)
        # Check mode writes nothing, and the directory may be one that an earlier task would have made.
        with locked(*([] if module.check_mode else [module.params["path"]]), what="launch_script"):
            result = set_script(module)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
