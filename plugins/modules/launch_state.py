#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: launch_state
short_description: Tell in one call whether a Service VM is as its plan has it, and make its files so
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Compares launch scripts, other files, the memory of dm-land regions, and the VMs that run with what they are to be,
    and says what differs. Unless O(apply) is set, it changes nothing.
  - One call of this module stands for all the module runs that would find nothing to do, so that a pass over a fleet
    without changes is cheap. It decides with the code of M(acrn.ivshmem.launch_script) and
    M(acrn.ivshmem.dm_memory), and fails where they would.
options:
  apply:
    description:
      - Make O(wish.files) and O(wish.scripts) what they are to be, by the very description that they are compared with.
        VMs and memory are left as they are, and are not looked at.
      - What stands in the way of a file, and was made by others, is refused before anything is touched.
    type: bool
    default: false
    version_added: 1.0.0
  wish:
    description: What the Service VM is to be like.
    type: dict
    required: true
    suboptions:
      scripts:
        description: Launch scripts, each as M(acrn.ivshmem.launch_script) takes it.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: The script.
            type: path
            required: true
          content:
            description: What it is to hold before the devices are set. Without it the script keeps its content.
            type: str
          devices:
            description: Its ivshmem devices.
            type: list
            elements: dict
            default: []
          scenario_path:
            description: Scenario XML on the Service VM.
            type: path
          vm:
            description: Name of the VM.
            type: str
          uuid:
            description: As for M(acrn.ivshmem.launch_script).
            type: str
            version_added: 1.0.0
          acrn_version:
            description: ACRN version, for example C(3.3).
            type: str
          hypervisor_manifest:
            description: The manifest of the installed hypervisor.
            type: path
          exclusive:
            description: As for M(acrn.ivshmem.launch_script).
            type: bool
            default: true
          mode:
            description: Permissions in octal.
            type: str
      files:
        description:
          - Other files. With O(apply), directories are made, and what has O(wish.files[].content) or
            O(wish.files[].src). A link to anything, and one that is to go, only show what systemd does, and are
            compared alone.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: The file.
            type: path
            required: true
          state:
            description: What it is to be.
            type: str
            choices: [file, directory, link, absent]
            default: file
          content:
            description: Content of a file, to the byte.
            type: str
          src:
            description: Where a link leads.
            type: str
          mode:
            description: Permissions in octal.
            type: str
      backup:
        description: With O(apply), whether a copy of each script is kept before it changes.
        type: bool
        default: false
      acrn_dm:
        description: With O(apply), where C(acrn-dm) is to be; see RV(scripts[].start_problems).
        type: path
      regions:
        description: The dm-land regions of the host.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name, without prefix.
            type: str
            required: true
          size:
            description: Size in MB.
            type: int
            required: true
      absent:
        description: Names of dm-land regions that are no more, without prefix.
        type: list
        elements: str
        default: []
      vms:
        description: The VMs and the devices that they are to run with.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the VM.
            type: str
            required: true
          uuid:
            description: As for M(acrn.ivshmem.launch_script).
            type: str
            version_added: 1.0.0
          devices:
            description: Its ivshmem devices.
            type: list
            elements: dict
            default: []
      started:
        description: Names of the VMs that are to run.
        type: list
        elements: str
        default: []
      starter:
        description: What starts VMs and stops them.
        type: str
        choices: [units, commands, nobody]
        default: commands
      hsm:
        description: Devices of which one is there where ACRN runs; units ask for them.
        type: list
        elements: path
        default: []
      others:
        description: VMs that others start, and the devices that they are to run with.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the VM.
            type: str
            required: true
          uuid:
            description: As for M(acrn.ivshmem.launch_script).
            type: str
            version_added: 1.0.0
          devices:
            description: Its ivshmem devices.
            type: list
            elements: dict
            default: []
      hypervisor:
        description: Whose hv-land regions the VMs can have. Without it nothing is said of them.
        type: dict
        suboptions:
          manifest:
            description:
              - The manifest of the hypervisor that runs, as O(wish.scripts[].hypervisor_manifest). Where it is not
                there, a region counts that a VM runs with, one of O(wish.hypervisor.regions), and for its own script
                one that the script has.
            type: path
          has_all:
            description: Whether it is told to have all of them.
            type: bool
            default: false
          regions:
            description: Regions, with C(name) and C(size), that it has had from the start as far as anybody knows.
            type: list
            elements: dict
            default: []
          planned:
            description: The hv-land regions of the plan.
            type: list
            elements: dict
            default: []
      acrn_version:
        description: ACRN version, for example C(3.3).
        type: str
      directory:
        description: Where the memory of dm-land regions lies.
        type: path
        default: /dev/shm
      refused:
        description: What the caller found wrong with the plan. The module fails with these lines before it looks.
        type: list
        elements: str
        default: []
extends_documentation_fragment:
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.private
attributes:
  check_mode:
    description: Without O(apply) the module only looks. With it, check mode tells what would be written.
    support: full
  diff_mode:
    description: With O(apply) it shows what changes in files.
    support: full
  platform:
    description: Where it runs.
    platforms: linux
    support: full
"""

EXAMPLES = r"""
- name: See whether the launch script of a VM is as it should be, and the VM runs with it
  acrn.ivshmem.launch_state:
    wish:
      scripts:
        - path: /usr/share/acrn/launch/POST_STD_VM1.sh
          vm: POST_STD_VM1
          devices: [{name: "dm:/test", size: 2, slot: 6}]
      vms:
        - name: POST_STD_VM1
          devices: [{name: "dm:/test", size: 2, slot: 6}]
      started: [POST_STD_VM1]
  register: compared
"""

RETURN = r"""
same:
  description: Whether nothing differs.
  returned: success, but not with O(apply)
  type: bool
differences:
  description: What differs, a line each.
  returned: success, but not with O(apply)
  type: list
  elements: str
  sample: ["/usr/share/acrn/launch/POST_STD_VM1.sh: has other content", "VM POST_STD_VM1: does not run"]
changes:
  description: What would happen to devices of scripts, as RV(acrn.ivshmem.launch_script#module:changes), and to memory.
  returned: success, but not with O(apply)
  type: list
  elements: dict
  contains:
    change:
      description: Also V(drop), for a file of RV(ignore:changes[].old) bytes that has to go.
      type: str
    region:
      description: The region, with prefix.
      type: str
    vm:
      description: The VM, or null for V(drop).
      type: str
    old:
      description: The slot before, the size in MB for V(resize), or the bytes for V(drop).
      type: int
    new:
      description: What comes of it, or null.
      type: int
    path:
      description: The file, for V(drop). It comes again with RV(ignore:changes[].new) bytes, unless that is null.
      type: str
vms:
  description: The VMs that run, as M(acrn.ivshmem.dm_memory) returns them.
  returned: success, but not with O(apply)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM.
      type: str
    pid:
      description: The process of C(acrn-dm).
      type: int
    fits:
      description: Whether it runs with the devices of O(wish.vms); null for a VM that is not there.
      type: bool
launched:
  description: The names of O(wish.vms).
  returned: success, but not with O(apply)
  type: list
  elements: str
others:
  description: Those of O(wish.others).
  returned: success, but not with O(apply)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the VM.
      type: str
    fits:
      description: Whether it runs with its devices; null where it does not run.
      type: bool
waits:
  description: Whether scripts and VMs have to stay as they are until another hypervisor runs.
  returned: success, but not with O(apply)
  type: bool
start:
  description:
    - What can start VMs here, V(units), V(commands) or V(nobody), as O(wish.starter) says. V(no_systemd) and V(no_acrn)
      are why units cannot.
  returned: success, but not with O(apply)
  type: str
  sample: units
files:
  description:
    - In check mode, the SHA-256 of each file of O(wish.scripts) and O(wish.files) as it is, by its path; null where
      there is none. Else empty.
  returned: success, but not with O(apply)
  type: dict
hypervisor:
  description: The hypervisor that runs.
  returned: success, but not with O(apply)
  type: dict
  contains:
    running_key:
      description: Its key; null for one that this collection has not installed.
      type: str
    installed:
      description: The keys of the builds that are on the host.
      type: list
      elements: str
    told:
      description: O(wish.hypervisor.has_all).
      type: bool
    known:
      description: Whether it is known which regions it has.
      type: bool
    missing:
      description: Regions of O(wish.hypervisor.planned) that it has not, or is not known to have.
      type: list
      elements: str
    lacking:
      description: Those of them that scripts would get.
      type: list
      elements: str
    unsure:
      description: VMs that would not be known to start again after a stop.
      type: list
      elements: str
written:
  description: The files of O(wish.files) that were made or changed.
  returned: with O(apply)
  type: list
  elements: str
scripts:
  description: What became of each script, in the order of O(wish.scripts).
  returned: with O(apply)
  type: list
  elements: dict
  contains:
    vm:
      description: The VM.
      type: str
    path:
      description: The script.
      type: str
    changed:
      description: Whether it was changed.
      type: bool
    style:
      description: As RV(acrn.ivshmem.launch_script#module:style).
      type: str
    devices:
      description: As RV(acrn.ivshmem.launch_script#module:devices).
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
      description: As RV(acrn.ivshmem.launch_script#module:removed).
      type: list
      elements: str
    actions:
      description: As RV(acrn.ivshmem.launch_script#module:actions).
      type: list
      elements: str
    changes:
      description: As RV(acrn.ivshmem.launch_script#module:changes).
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
      description: Why its VM could not be started by it, as RV(acrn.ivshmem.launch_script#module:start_problems).
      type: list
      elements: str
    original:
      description: As RV(acrn.ivshmem.launch_script#module:original).
      type: str
    backup_file:
      description: As RV(acrn.ivshmem.launch_script#module:backup_file).
      type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._bring import bring
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._compare import compare
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "apply": {"type": "bool", "default": False},
        "wish": {
            "type": "dict",
            "required": True,
            "options": {
                "scripts": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {
                        "path": {"type": "path", "required": True},
                        "content": {"type": "str"},
                        "devices": {"type": "list", "elements": "dict", "default": []},
                        "scenario_path": {"type": "path"},
                        "vm": {"type": "str"},
                        "uuid": {"type": "str"},
                        "acrn_version": {"type": "str"},
                        "hypervisor_manifest": {"type": "path"},
                        "exclusive": {"type": "bool", "default": True},
                        "mode": {"type": "str"},
                    },
                },
                "files": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {
                        "path": {"type": "path", "required": True},
                        "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
                        "content": {"type": "str"},
                        "src": {"type": "str"},
                        "mode": {"type": "str"},
                    },
                },
                "backup": {"type": "bool", "default": False},
                "acrn_dm": {"type": "path"},
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
                "started": {"type": "list", "elements": "str", "default": []},
                "starter": {"type": "str", "choices": ["units", "commands", "nobody"], "default": "commands"},
                "hsm": {"type": "list", "elements": "path", "default": []},
                "others": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {
                        "name": {"type": "str", "required": True},
                        "uuid": {"type": "str"},
                        "devices": {"type": "list", "elements": "dict", "default": []},
                    },
                },
                "hypervisor": {
                    "type": "dict",
                    "options": {
                        "manifest": {"type": "path"},
                        "has_all": {"type": "bool", "default": False},
                        "regions": {"type": "list", "elements": "dict", "default": []},
                        "planned": {"type": "list", "elements": "dict", "default": []},
                    },
                },
                "acrn_version": {"type": "str"},
                "directory": {"type": "path", "default": "/dev/shm"},  # acrn-dm's place, nothing is made there  # nosec B108
                "refused": {"type": "list", "elements": "str", "default": []},
            },
        },
    },
    "supports_check_mode": True,
}


def main(factory=AnsibleModule):
    module = factory(**ARGUMENTS)
    try:
        check_paths(module.params, ARGUMENTS["argument_spec"])
        result = bring(module) if module.params["apply"] else compare(module)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
