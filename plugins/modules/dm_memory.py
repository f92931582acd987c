#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dm_memory
short_description: Remove the shared memory of dm-land regions that is in the way
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - C(acrn-dm) keeps the memory of a dm-land region in C(/dev/shm) and leaves it behind when the VM ends. After the
    region has got another size, C(acrn-dm) refuses the file that is there, and the memory of a region that is no more
    stays in use until the Service VM reboots.
  - Run on the Service VM, this module finds such files and removes those that no process has open or mapped. For the
    others it tells which VMs hold them; nothing is taken away from a VM that runs.
  - It also tells which VMs run, and whether they were started with the ivshmem devices that they are to have now.
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
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
  regions:
    description:
      - The dm-land regions as they are to be. A file of another size is in the way.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - The name without prefix.
        type: str
        required: true
      size:
        description:
          - Size in MB.
        type: int
        required: true
  absent:
    description:
      - Names, without prefix, of dm-land regions that are no more. A name that is also in O(regions) is not removed.
    type: list
    elements: str
    default: []
  vms:
    description:
      - VMs to compare with the C(acrn-dm) processes that run.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - The name of the VM.
        type: str
        required: true
      uuid:
        description:
          - Its UUID, by which C(acrn-dm) is told of it (C(-U)) up to ACRN v2.6.
        type: str
        version_added: 1.0.0
      devices:
        description:
          - Its ivshmem devices, as for M(acrn.ivshmem.launch_script).
        type: list
        elements: dict
        default: []
  acrn_version:
    description:
      - The ACRN version, such as V(2.7) or V(3.3), which decides whether a region ID is among the arguments.
    type: str
  on_held:
    description:
      - What to do about a stale file that is in use, V(warn) or V(fail). In check mode it is never a failure, as an
        earlier task of the play may stop the VM.
    type: str
    choices: [warn, fail]
    default: warn
  remove:
    description:
      - Whether to remove files. With V(false) they are only told of.
    type: bool
    default: true
  directory:
    description:
      - Where the files are.
    type: path
    default: /dev/shm
seealso:
  - module: acrn.ivshmem.launch_script
"""

EXAMPLES = r"""
- name: Clear the way for regions that have a new size
  acrn.ivshmem.dm_memory:
    regions:
      - name: test
        size: 4
    absent: [old_region]

- name: See which VMs still run with other devices
  acrn.ivshmem.dm_memory:
    vms:
      - name: POST_STD_VM1
        devices: "{{ scenario_plan | acrn.ivshmem.vm_devices('POST_STD_VM1') }}"
    remove: false
  register: state
"""

RETURN = r"""
memory:
  description: The files of O(regions) and O(absent) as they were found.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The region.
      type: str
    path:
      description: The file.
      type: str
    size:
      description: Its size in bytes, or null if it is not there.
      type: int
    wanted:
      description: The size in bytes that it must have, or null if it is to go.
      type: int
    stale:
      description: Whether it is in the way.
      type: bool
    held_by:
      description: Who has a stale file open or mapped.
      type: list
      elements: dict
      contains:
        pid:
          description: The process.
          type: int
        command:
          description: Its command line, cut to 200 characters.
          type: str
        vm:
          description: The VM that it belongs to, or null.
          type: str
removed:
  description: Files that were removed (or would be, in check mode).
  returned: success
  type: list
  elements: str
room:
  description: Why the memory of regions that C(acrn-dm) still has to make does not fit. Empty where it does.
  returned: success
  type: str
held:
  description: For each stale file that is in use, who uses it and what to do.
  returned: success
  type: list
  elements: str
others:
  description:
    - Names, without prefix, of dm-land regions that running VMs of O(vms) have, but that are not in O(regions).
    - A region that a VM outside O(vms) has as well is not among them.
  returned: success
  type: list
  elements: str
vms:
  description: The VMs that run.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the VM.
      type: str
    pid:
      description: Its C(acrn-dm).
      type: int
    fits:
      description: Whether it has the ivshmem devices of O(vms), or null if it is not in that list.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._clear import clear_memory
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


def main():
    module = AnsibleModule(
        argument_spec={
            "regions": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "size": {"type": "int", "required": True}},
            },
            "absent": {"type": "list", "elements": "str", "default": []},
            "vms": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "uuid": {"type": "str"},
                    "devices": {"type": "list", "elements": "dict", "default": []},
                },
            },
            "acrn_version": {"type": "str"},
            "on_held": {"type": "str", "choices": ["warn", "fail"], "default": "warn"},
            "remove": {"type": "bool", "default": True},
            "directory": {"type": "path", "default": "/dev/shm"},  # acrn-dm's place, nothing is made there  # nosec B108
        },
        supports_check_mode=True,
    )
    try:
        check_paths(module.params, module.argument_spec)
        result = clear_memory(module)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
