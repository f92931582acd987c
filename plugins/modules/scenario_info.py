#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: scenario_info
short_description: Tell what an ACRN scenario XML holds
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Returns the VMs of a scenario, its shared-memory regions, the PCI functions in use in each VM, the dialect, the
    memory left for
    shared memory, and what the rules of the collection say about the regions that are there.
  - Changes nothing.
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
attributes:
  check_mode:
    support: full
    details:
      - This module changes nothing.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  path:
    description:
      - The scenario XML.
    type: path
    required: true
  board_path:
    description:
      - The board XML. It tells which PCI devices the Service VM has and how much memory the host has.
    type: path
  acrn_version:
    description:
      - The ACRN version, such as V(2.7) or V(3.3). Without it the C(VERSION) file of the ACRN tree in which O(path)
        lies is read.
    type: str
seealso:
  - module: acrn.ivshmem.scenario_regions
"""

EXAMPLES = r"""
- name: Look at a scenario
  acrn.ivshmem.scenario_info:
    path: /opt/acrn-hypervisor/misc/config_tools/data/whl-ipc-i5/hybrid_rt.xml
    board_path: /opt/acrn-hypervisor/misc/config_tools/data/whl-ipc-i5/whl-ipc-i5.xml
  register: scenario

- name: Tell which VMs are started by acrn-dm
  ansible.builtin.debug:
    msg: "{{ scenario.vms | selectattr('load_order', 'eq', 'post_launched') | map(attribute='name') }}"
"""

RETURN = r"""
dialect:
  description: V(v2) for scenarios of ACRN v2.2 to v2.7, V(v3) for later ones.
  returned: success
  type: str
acrn_version:
  description: The version whose rules were applied, or null.
  returned: success
  type: str
  sample: "3.3"
board:
  description:
    - The C(board) attribute of the scenario, or else, as in v3.x, the name of the board of O(board_path), if given.
  returned: success
  type: str
scenario:
  description: The C(scenario) attribute of the scenario; empty where it has none, as in v3.x.
  returned: success
  type: str
vms:
  description: The VMs in the order of the file.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The VM ID, which is the peer ID for the doorbell.
      type: int
    name:
      description: The VM name. VMs without one, as in v2.2, are called C(VM) and their ID.
      type: str
    load_order:
      description: V(pre_launched), V(service) or V(post_launched).
      type: str
    vm_type:
      description: The type as the file has it.
      type: str
    uuid:
      description: What C(acrn-dm -U) takes up to ACRN v2.6, or null.
      type: str
    functions:
      description:
        - The PCI functions of the VM that the scenario names, and with O(board_path) those of the board that the
          Service VM has, which are all but those given to a pre-launched VM.
      type: list
      elements: dict
      contains:
        bdf:
          description: Where it is, in hexadecimal. For a passthrough device this is the native BDF.
          type: str
        kind:
          description: V(ivshmem), V(vuart), V(passthrough) or V(native).
          type: str
        what:
          description: The region, the vUART connection, the description of the device, or the name of the board.
          type: str
regions:
  description: The regions, as M(acrn.ivshmem.scenario_regions) returns them.
  returned: success
  type: list
  elements: dict
memory:
  description:
    - How much shared memory this ACRN version can hold in this scenario on this board, as ACRN's own tools compute it,
      or null where version or board are not known well enough.
  returned: success
  type: dict
  contains:
    limit:
      description: The largest sum of region sizes in MB.
      type: int
    used:
      description: The sum of the sizes that count, in MB.
      type: int
    counts:
      description: The providers whose regions count.
      type: list
      elements: str
    guess:
      description: Whether the limit is that of any board, since none is given. The true one may be lower.
      type: bool
    unchecked:
      description:
        - The sum in MB above which nobody but the linker can tell, for up to ACRN v2.6 a scenario may set
          C(HV_RAM_SIZE); null where it does not.
      type: int
    service_vm:
      description:
        - The largest region in MB that the PCI windows of the board have room for in the Service VM, besides the
          regions of the file; null where version or board are not known, or there is no Service VM.
      type: int
findings:
  description: What the rules say about the regions of the file, errors first.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths, read_file
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import describe, find_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._version import parse_version


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "board_path": {"type": "path"},
            "acrn_version": {"type": "str"},
        },
        supports_check_mode=True,
    )
    path, board_path, version = (module.params[key] for key in ("path", "board_path", "acrn_version"))
    try:
        check_paths(module.params, module.argument_spec)
        version = parse_version(version) if version else find_version(path)
        board = read_board(read_file(board_path), board_path) if board_path else None
        result = describe(read_scenario(read_file(path), path), version, board)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
