#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: scenario_regions
short_description: Set the shared-memory regions of an ACRN scenario XML
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Makes a scenario XML hold the declared ivshmem regions, in the dialect of the file (ACRN v2.2 to v2.7, or v3.0 and
    later),
    and the C(shm_region) elements of a v2.x launch XML agree with it.
  - All regions are held against the rules of the ACRN version before anything is written, and every finding is
    reported at once.
    The rules and their IDs are listed in C(docs/rules.md) of the collection.
  - Before its first change, a file that is changed in place (without O(src)) is kept beside itself, with
    C(.before-acrn-ivshmem) behind its name.
  - Only the C(IVSHMEM) element is written. Every other byte of the file stays, and so do elements inside it that
    already say
    what they shall say.
  - A region provided by the device model has no place in a v2.x scenario. It is not written there, but it is
    returned, so that the
    launch script can have it.
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
  path:
    description:
      - The scenario XML to change. A symbolic link is followed and stays one.
    type: path
    required: true
  src:
    description:
      - A scenario XML to start from instead of O(path), for example one of an ACRN tree that shall not be touched.
      - O(path) then becomes the content of O(src) with the regions, and its directory is made if need be. vBDFs that
        O(path) had are kept.
    type: path
  regions:
    description:
      - The regions. Each is a mapping, or the compact string V(hv:/NAME, SIZE, VM:VM) or V(dm:/NAME, SIZE, VM:VM).
      - A mapping has C(name) (1 to 27 ASCII letters, digits and underscores), C(size) in MB (a power of two from 2 to
        512),
        C(provided_by) (V(hypervisor), the default, or V(device_model)), C(vms), and from ACRN v3.3 on C(region_id)
        (0, or 4096 to 65535).
      - With C(reserved), applications leave that many bytes at the end of the region to the proof of the role
        P(acrn.ivshmem.verify#role) (a multiple of 4096, at most half of the region). It is in no file of ACRN, so it
        changes nothing but the plan, and goes when a region is not declared any more.
      - Each of C(vms) is the name or the ID of a VM, or a mapping with C(name) (or C(id)) and C(vbdf).
      - Without C(vbdf) the place that the file has is kept. A new VM gets the lowest free device of 00:08.0 to
        00:0f.0, then of 00:03.0 to 00:07.0, then of 00:10.0 to 00:1e.0.
      - Up to v2.7 only post-launched VMs have a place that can be chosen, and no file holds it. They get the highest
        free device of 00:03.0 to 00:1e.0, as launch scripts of that time count from below; give C(vbdf) to have it stay
        when other regions go.
      - Without C(region_id) the ID that the file has is kept.
      - With O(state=absent) names are enough.
    type: list
    elements: raw
    required: true
  declared_in:
    description:
      - Where each of O(regions) is declared, in the same order, such as C(ivshmem_host_regions[0]). Mistakes are told
        with it.
    type: list
    elements: str
    default: []
    version_added: 1.0.0
  names:
    description:
      - What O(src), O(board_path), O(launch_src), O(regions) and the directory of O(path) are called where they were
        set, by option, such as C(acrn_scenario). Files that cannot be read or written are told with it.
    type: dict
    default: {}
    version_added: 1.0.0
  unset:
    description:
      - Why O(regions) says nothing of what the scenario shall have, such as the names of variables that are not set.
        With it, and O(state=exact), a scenario that has regions is refused with the list of them, as they would all go.
    type: str
    default: ""
    version_added: 1.0.0
  state:
    description:
      - V(exact) makes these the only regions.
      - V(present) adds or changes these and leaves others alone.
      - V(absent) removes these and leaves others alone; no rule is asked then.
      - A v2.x scenario has one switch for all regions of the hypervisor, C(IVSHMEM_ENABLED). Where it is off, its
        regions count as not there. The first region of the hypervisor that is added turns it on.
    type: str
    choices: [exact, present, absent]
    default: exact
  board_path:
    description:
      - The board XML. It tells which PCI devices the Service VM has and how much memory the host has.
    type: path
  launch_path:
    description:
      - A launch XML of ACRN v2.x, whose C(shm_region) elements are set for each of its VMs.
    type: path
  launch_src:
    description:
      - A launch XML to start from instead of O(launch_path), as O(src) is for O(path).
    type: path
  acrn_version:
    description:
      - The ACRN version, such as V(2.7) or V(3.3).
      - Without it the C(VERSION) file of O(acrn_source), or else of the ACRN tree in which O(src) or O(path) lies is
        read. If there is none, rules that hold for some versions of the dialect only warn.
    type: str
  acrn_source:
    description:
      - An ACRN tree. Only its C(VERSION) file is read.
    type: path
  places_path:
    description:
      - A file that keeps the regions of a v2.x scenario with their places, which the XML cannot hold. Files of v3.x
        hold them themselves, and then nothing is written there.
    type: path
  known_places:
    description:
      - Places that a host has in use, by region (with C(hv:/) or C(dm:/)) and name of the VM, as
        P(acrn.ivshmem.places_in_use#filter) gives them. They are kept where neither O(regions) nor a file says
        otherwise.
    type: dict
    default: {}
  ask:
    description:
      - With V(true), nothing is written as long as a place had to be chosen that the host may know better. RV(asking)
        says so, and the next call has O(known_places).
    type: bool
    default: false
  unasked:
    description:
      - Why a host could not be asked for O(known_places). Then there is a warning for each place that had to be chosen.
    type: str
    default: ""
  guests:
    description:
      - The VM, by name or ID, that each guest says it is, by name of the guest. One that the scenario has not, and one
        that two guests are, is refused together with what is wrong with the regions.
    type: dict
    default: {}
    version_added: 1.0.0
  launch_vms:
    description:
      - The VMs that launch scripts are made for, as the role P(acrn.ivshmem.launch#role) takes them. What cannot become
        a script is refused together with what is wrong with the regions.
    type: list
    elements: dict
    default: []
    version_added: 1.0.0
  launch_mode:
    description:
      - How the role P(acrn.ivshmem.launch#role) makes these scripts.
    type: str
    default: template
    version_added: 1.0.0
  mistakes:
    description:
      - What else is wrong with the declaration, a sentence each. It is told, and refused, together with what is wrong
        with the regions.
    type: list
    elements: str
    default: []
    version_added: 1.0.0
  backup:
    description:
      - Keep a copy of each file that changes, with the time in its name.
    type: bool
    default: false
seealso:
  - module: acrn.ivshmem.scenario_info
  - module: acrn.ivshmem.hypervisor_build
"""

EXAMPLES = r"""
- name: Let the RT VM and a post-launched VM share 2 MB
  acrn.ivshmem.scenario_regions:
    path: /srv/acrn/line-a/scenario.xml
    board_path: /srv/acrn/whl-ipc-i5.xml
    acrn_version: "3.3"
    regions:
      - name: shm_region_0
        size: 2
        vms:
          - PRE_RT_VM0
          - name: POST_STD_VM1
            vbdf: "00:08.0"

- name: The same in the words of ACRN's guide, on a v2.7 tree that stays as it is
  acrn.ivshmem.scenario_regions:
    src: /opt/acrn-hypervisor/misc/config_tools/data/whl-ipc-i5/hybrid_rt.xml
    path: /srv/acrn/line-b/hybrid_rt.xml
    regions:
      - "hv:/shm_region_0, 2, 0:2"
      - "dm:/test, 2, 2:3"

- name: Remove one region
  acrn.ivshmem.scenario_regions:
    path: /srv/acrn/line-a/scenario.xml
    regions: [shm_region_0]
    state: absent
"""

RETURN = r"""
regions:
  description: The regions that the scenario has now, hypervisor regions first, with the place of each device.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name without prefix.
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
    reserved:
      description: How many bytes at its end are the proof's. Only where that is declared.
      type: int
    vms:
      description: The VMs that share it.
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
        vbdf:
          description:
            - The vBDF in hexadecimal, or null where ACRN's build chooses it (v2.x, VMs that are not post-launched).
          type: str
        slot:
          description: The device number in decimal, as C(acrn-dm -s) takes it, or null.
          type: int
start:
  description:
    - The hv-land regions of the scenario XML that O(src) names. A hypervisor that was built from it by hand has them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name without prefix.
      type: str
    size:
      description: The size in MB.
      type: int
before:
  description:
    - The regions that O(path) had, or O(src) where there was no O(path) yet, each as in RV(regions). A scenario of v2.x
      has no dm-land regions.
  returned: success
  type: list
  elements: dict
vms:
  description: All VMs of the scenario, in the order of the file.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The VM ID.
      type: int
    name:
      description: The VM name.
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
dialect:
  description: V(v2) for scenarios of ACRN v2.2 to v2.7, V(v3) for later ones.
  returned: success
  type: str
acrn_version:
  description: The version whose rules were applied, or null.
  returned: success
  type: str
  sample: "3.3"
chosen:
  description: Places that were chosen by this call, since nothing told of them.
  returned: success
  type: list
  elements: dict
  contains:
    region:
      description: The region, with its prefix.
      type: str
    vm:
      description: The VM.
      type: str
    vbdf:
      description: The vBDF.
      type: str
asking:
  description: Whether O(ask) has kept this call from writing.
  returned: success
  type: bool
digest:
  description: SHA-256 of the scenario XML as it is now (or would be, in check mode).
  returned: success
  type: str
build_digest:
  description:
    - SHA-256 of what of the scenario XML decides the hypervisor. Regions of the device model, and the vBDFs of
      post-launched VMs, change nothing of it in ACRN v3.x.
  returned: success
  type: str
findings:
  description: What the rules say, without what made the module fail.
  returned: success
  type: list
  elements: dict
  contains:
    rule:
      description: The ID of the rule.
      type: str
    severity:
      description: V(warning).
      type: str
    region:
      description: The region, or an empty string.
      type: str
    place:
      description: What is to be mended, such as C(ivshmem_host_regions[0].size), or an empty string.
      type: str
    message:
      description: What was found.
      type: str
    mend:
      description: What to do about it.
      type: str
    doc:
      description: A link to what explains the rule.
      type: str
content:
  description: The scenario XML as it is now (or would be, in check mode), for a build on another host.
  returned: success
  type: str
launch_content:
  description: The text of the launch XML, also in check mode; null without O(launch_path).
  returned: success
  type: str
backup_files:
  description: The copies that were made.
  returned: changed and O(backup=true)
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths, locked
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._write import make_folders, set_regions

ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "path": {"type": "path", "required": True},
        "src": {"type": "path"},
        "regions": {"type": "list", "elements": "raw", "required": True},
        "state": {"type": "str", "choices": ["exact", "present", "absent"], "default": "exact"},
        "board_path": {"type": "path"},
        "launch_path": {"type": "path"},
        "launch_src": {"type": "path"},
        "acrn_version": {"type": "str"},
        "acrn_source": {"type": "path"},
        "declared_in": {"type": "list", "elements": "str", "default": []},
        "names": {"type": "dict", "default": {}},
        "unset": {"type": "str", "default": ""},
        "places_path": {"type": "path"},
        "known_places": {"type": "dict", "default": {}},
        "ask": {"type": "bool", "default": False},
        "unasked": {"type": "str", "default": ""},
        "guests": {"type": "dict", "default": {}},
        "launch_vms": {"type": "list", "elements": "dict", "default": []},
        "launch_mode": {"type": "str", "default": "template"},
        "mistakes": {"type": "list", "elements": "str", "default": []},
        "backup": {"type": "bool", "default": False},
    },
    "required_by": {"launch_src": "launch_path"},
    "supports_check_mode": True,
}


def main(factory=AnsibleModule):
    module = factory(**ARGUMENTS)
    paths = [module.params[name] for name in ("path", "launch_path", "places_path") if module.params[name]]
    try:
        check_paths(module.params, ARGUMENTS["argument_spec"])
        if module.check_mode:
            result = set_regions(module)
        else:
            make_folders(module.params)
            with locked(*paths, what="scenario_regions"):
                result = set_regions(module)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
