#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: launch_info
short_description: Tell which shared memory a Service VM has in use
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Reads launch scripts, systemd units that run them or C(acrn-dm) itself, the VMs that run, the scenario of the
    installed hypervisor and the memory of dm-land regions, and tells which VM has which ivshmem device at which slot.
  - What cannot be read is told with its file and line. Nothing is run and nothing is changed.
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
attributes:
  check_mode:
    description: The module only looks.
    support: full
  diff_mode:
    description: There is never a difference to show.
    support: none
  platform:
    platforms: linux
    support: full
options:
  paths:
    description:
      - Launch scripts. One that is not there is left out.
    type: list
    elements: path
    default: []
  directories:
    description:
      - Directories whose files C(*.sh) are looked at as well, and those without an ending that begin with C(#!). Those
        that do not name C(acrn-dm) are left out, and so is a directory that is not there.
    type: list
    elements: path
    default: []
  units:
    description:
      - Directories with systemd units. Scripts that a service starts are read as those of O(paths), if they name
        C(acrn-dm).
    type: list
    elements: path
    default: [/etc/systemd/system]
  hypervisor:
    description:
      - The directory in which M(acrn.ivshmem.hypervisor_install) keeps builds. Of the build that runs, or of the only
        one, the scenario is read.
    type: path
    default: /boot/acrn
  memory:
    description:
      - Where the memory of dm-land regions lies.
    type: path
    default: /dev/shm
  unit:
    description:
      - The template unit of the role P(acrn.ivshmem.launch#role), to see whether the host has it.
    type: path
    default: /etc/systemd/system/acrn-vm@.service
seealso:
  - module: acrn.ivshmem.launch_script
  - module: acrn.ivshmem.scenario_info
"""

EXAMPLES = r"""
- name: See which VM has which shared memory
  acrn.ivshmem.launch_info:
    directories: [/usr/share/acrn/launch]
  register: found
"""

RETURN = r"""
scripts:
  description: The launch scripts.
  returned: success
  type: list
  elements: dict
  contains: &script
    path:
      description: The file.
      type: str
    vms:
      description: The VMs that it starts and of which all can be read.
      type: list
      elements: dict
      contains:
        name:
          description:
            - The name, which is the last argument of C(acrn-dm). Null where only a run of the script would tell, and
              C(-U) is known.
          type: str
        uuid:
          description: What C(-U) gives, or null.
          type: str
        style:
          description: V(command) or V(array).
          type: str
        line:
          description: The line of the call.
          type: int
        devices:
          description:
            - Its ivshmem devices, each with C(name) and prefix, C(size) in MB, C(region_id), C(slot) and C(line).
          type: list
          elements: dict
    problems:
      description: What cannot be read, with file and line.
      type: list
      elements: str
units:
  description:
    - The services that start C(acrn-dm) themselves, as in RV(scripts).
  returned: success
  type: list
  elements: dict
  contains: *script
running:
  description:
    - The VMs that run, with C(name), C(uuid), C(pid) and C(devices) as in RV(scripts[].vms[].devices), without lines.
  returned: success
  type: list
  elements: dict
installed:
  description: C(path) and C(regions) of the scenario of the installed hypervisor, or null.
  returned: success
  type: dict
memory:
  description: Files of dm-land regions that scripts or VMs have, with C(name), C(path) and C(size) in bytes.
  returned: success
  type: list
  elements: dict
cmdline:
  description: The arguments that the kernel was booted with.
  returned: success
  type: str
acrn:
  description: Whether ACRN runs.
  returned: success
  type: bool
unit:
  description: Whether O(unit) is there.
  returned: success
  type: bool
missing:
  description: Those of O(paths) and O(directories) that are not there.
  returned: success
  type: list
  elements: str
problems:
  description: All that could not be read.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._around import look_around
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


def main():
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "directories": {"type": "list", "elements": "path", "default": []},
            "units": {"type": "list", "elements": "path", "default": ["/etc/systemd/system"]},
            "hypervisor": {"type": "path", "default": "/boot/acrn"},
            "memory": {"type": "path", "default": "/dev/shm"},  # acrn-dm's place, nothing is made there  # nosec B108
            "unit": {"type": "path", "default": "/etc/systemd/system/acrn-vm@.service"},
        },
        supports_check_mode=True,
    )
    try:
        check_paths(module.params, module.argument_spec)
        result = look_around(module)
    except (IvshmemError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
