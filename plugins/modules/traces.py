#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traces
short_description: Remove what this collection has left on a Service VM, a builder or the controller
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Removes units, launch scripts and ivshmem devices that P(acrn.ivshmem.launch#role) has brought, builds of
    M(acrn.ivshmem.hypervisor_build), and the files of P(acrn.ivshmem.scenario#role). The boot entry is a matter of
    M(acrn.ivshmem.hypervisor_install), and a guest one of M(acrn.ivshmem.guest_device).
  - Nothing goes because of where it lies. A file is known by a mark inside, by its name together with what it holds,
    or because an option names it. What others have put beside it stays.
  - Where nothing is left of the collection, nothing changes.
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the paths that go, and the scripts that get other content.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  launch:
    description:
      - On a Service VM, what the role launch was told.
      - A VM that runs keeps its unit and its script; RV(kept) says so.
    type: dict
    suboptions:
      directory:
        description:
          - Where the launch scripts are. Scripts that the role has written go. One that M(acrn.ivshmem.launch_script)
            has changed becomes the copy that was made before the first change; where something else has changed since,
            it gets the ivshmem devices of that copy.
        type: path
        required: true
      unit_directory:
        description:
          - Where the unit C(acrn-vm@.service) is.
        type: path
        default: /etc/systemd/system
      vms:
        description:
          - The VMs, each with O(launch.vms[].name) and, where it is not in O(launch.directory), with its script.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description:
              - The name.
            type: str
            required: true
          script:
            description:
              - The path of its script.
            type: path
          devices:
            description:
              - Its ivshmem devices beside those of O(launch.regions), as for M(acrn.ivshmem.launch_script).
            type: list
            elements: dict
            default: []
      regions:
        description:
          - The declared regions, as P(acrn.ivshmem.from_compact#filter) gives them. Of those of the device model
            without a device in any script that stays, RV(memory) tells.
        type: list
        elements: dict
        default: []
  builder:
    description:
      - On a builder, the variables of the role hypervisor.
    type: dict
    suboptions:
      artifacts_dir:
        description:
          - Where the builds are. Only directories with the name of a key and a manifest go.
        type: path
        required: true
      work_dir:
        description:
          - The work directory. It goes if M(acrn.ivshmem.hypervisor_build) has made it.
        type: path
        required: true
      venv:
        description:
          - The Python environment of ACRN's tools.
        type: path
      clone:
        description:
          - The clone of ACRN that the role has made.
        type: path
  controller:
    description:
      - On the controller, the variables of the role scenario.
    type: dict
    suboptions:
      directory:
        description:
          - Where the scenarios of the hosts are, a directory for each.
        type: path
        required: true
      files:
        description:
          - For each host that goes, the names of its scenario and launch XML.
        type: dict
        default: {}
      cache:
        description:
          - Where artefacts were put on their way to the Service VMs, if none of them is needed any more.
        type: path
seealso:
  - module: acrn.ivshmem.hypervisor_install
  - module: acrn.ivshmem.guest_device
"""

EXAMPLES = r"""
- name: Remove units, scripts and devices
  acrn.ivshmem.traces:
    launch:
      directory: /usr/share/acrn/launch
      vms: [{name: POST_STD_VM1, script: /opt/vms/hmi.sh}]
      regions: "{{ ivshmem_regions | map('acrn.ivshmem.from_compact') }}"
  become: true
  register: traces

- name: Remove the memory of regions that nobody has any more
  acrn.ivshmem.dm_memory:
    absent: "{{ traces.memory }}"
  become: true

- name: Remove the builds
  acrn.ivshmem.traces:
    builder:
      artifacts_dir: /var/lib/acrn-ivshmem/artifacts
      work_dir: /var/lib/acrn-ivshmem/work
      venv: /var/lib/acrn-ivshmem/venv
"""

RETURN = r"""
removed:
  description: The paths that went, or in check mode would go.
  returned: success
  type: list
  elements: str
restored:
  description: The scripts that got other content.
  returned: success
  type: list
  elements: str
kept:
  description: What stays although it is of this collection, and why, a sentence each.
  returned: success
  type: list
  elements: str
memory:
  description: The dm-land regions, without prefix, whose memory in C(/dev/shm) nobody needs any more.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._sweep import clear


def main():
    vm = {
        "name": {"type": "str", "required": True},
        "script": {"type": "path"},
        "devices": {"type": "list", "elements": "dict", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "launch": {
                "type": "dict",
                "options": {
                    "directory": {"type": "path", "required": True},
                    "unit_directory": {"type": "path", "default": "/etc/systemd/system"},
                    "vms": {"type": "list", "elements": "dict", "default": [], "options": vm},
                    "regions": {"type": "list", "elements": "dict", "default": []},
                },
            },
            "builder": {
                "type": "dict",
                "options": {
                    "artifacts_dir": {"type": "path", "required": True},
                    "work_dir": {"type": "path", "required": True},
                    "venv": {"type": "path"},
                    "clone": {"type": "path"},
                },
            },
            "controller": {
                "type": "dict",
                "options": {
                    "directory": {"type": "path", "required": True},
                    "files": {"type": "dict", "default": {}},
                    "cache": {"type": "path"},
                },
            },
        },
        mutually_exclusive=[("launch", "builder", "controller")],
        required_one_of=[("launch", "builder", "controller")],
        supports_check_mode=True,
    )
    try:
        check_paths(module.params, module.argument_spec)
        result = clear(module)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"{exc.filename or 'a trace'}: cannot be removed: {exc.strerror or exc}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
