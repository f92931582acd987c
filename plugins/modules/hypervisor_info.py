#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hypervisor_info
short_description: Tell which ACRN hypervisor a Service VM runs, and which one it will run
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Reads what M(acrn.ivshmem.hypervisor_install) keeps, GRUB's environment block, and the running kernel's command
    line.
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
attributes:
  check_mode:
    support: full
    details:
      - This module does not change anything.
  diff_mode:
    support: N/A
    details:
      - This module does not change anything.
  idempotent:
    support: full
  platform:
    platforms: debian
    support: full
seealso:
  - module: acrn.ivshmem.hypervisor_install
"""

EXAMPLES = r"""
- name: Ask which hypervisor runs
  acrn.ivshmem.hypervisor_info:
  register: hypervisor

- name: Say so
  ansible.builtin.debug:
    var: hypervisor.running_key
"""

RETURN = r"""
running:
  description: The entry that booted the running kernel; null for one that is not of this collection.
  returned: success
  type: str
running_key:
  description: The key of the hypervisor that runs, or null.
  returned: success
  type: str
default:
  description: The entry that is booted by default; null for the host's own default.
  returned: success
  type: str
default_key:
  description: Its key, or null.
  returned: success
  type: str
next:
  description: The entry that only the next boot takes, or null.
  returned: success
  type: str
waiting:
  description:
    - The entry that the host will run when it has been rebooted as often as it takes, where that is not the one that
      runs. Null for the host's own entry, and where RV(reboot_needed) is false.
  returned: success
  type: str
waiting_key:
  description: Its key, or null.
  returned: success
  type: str
reboot_needed:
  description: Whether the host waits for a reboot.
  returned: success
  type: bool
previous:
  description: The entry that a rollback goes to; null for the host's own entry.
  returned: success
  type: str
trial:
  description: The entry whose trial has begun and is not judged yet, or null.
  returned: success
  type: str
refused:
  description: Entries that failed here, or were left on request, with the reason. No run tries them again by itself.
  returned: success
  type: dict
builds:
  description: The builds on the host, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The key.
      type: str
    name:
      description: The scenario name.
      type: str
    version:
      description: The version of ACRN.
      type: str
    regions:
      description: The regions that are compiled in, each with C(name), C(size) in MB and C(region_id).
      type: list
      elements: dict
acrn_entry:
  description:
    - The host's own menu entry that boots ACRN, such as one of C(40_custom) or of ACRN's package grub-acrn. Where a
      Service VM runs, it is the one whose arguments the running kernel has; elsewhere the first of the menu. Null where
      there is none, and where an entry of this collection is running.
  returned: success
  type: dict
  contains:
    title:
      description: The title.
      type: str
    id:
      description: The menu ID, or null.
      type: str
    image:
      description: The hypervisor, as GRUB finds it.
      type: str
    arguments:
      description: All arguments of the hypervisor's line, which go to the Service VM's kernel too.
      type: list
      elements: str
    modules:
      description:
        - What is loaded for the VMs, each with C(path), C(tag), and C(arguments), which in place of the scenario's
          C(bootargs) go to a kernel.
      type: list
      elements: dict
arguments:
  description:
    - The arguments in use that M(acrn.ivshmem.hypervisor_install) does not give by itself, as its option C(cmdline)
      takes them over. They are those of RV(acrn_entry), or of the kernel of a running Service VM that no entry of the
      menu explains. Empty elsewhere.
  returned: success
  type: list
  elements: str
history:
  description:
    - What happened, the oldest first, each with C(time) in seconds since 1970, C(event), C(entry) and C(detail).
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._entries import (
    fallen,
    key_of,
    pending,
    why_fallen,
    with_found,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._files import runner
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._host import Host
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


def look(host):
    boot = host.loader.boot()
    state = host.state()
    state.settle(boot)
    builds = []
    found = host.builds()
    for key in with_found(state.installed, found):
        if key not in found:
            continue  # removed by hand
        manifest = host.artifact(key).manifest
        builds.append({"key": key, **{name: manifest.get(name) for name in ("name", "version", "regions")}})
    reboot_needed, waiting = pending(boot, state)
    lost = fallen(boot, state)
    entry = host.acrn_entry()
    refused = dict(state.failed, **({lost: why_fallen(boot)} if lost else {}))
    warnings = []
    if builds:
        try:
            host.loader.check_default(state.chosen(boot.running))
        except IvshmemError as exc:
            warnings.append(str(exc))
    return {
        **({"warnings": warnings} if warnings else {}),
        "running": boot.running,
        "running_key": key_of(boot.running),
        "default": boot.default,
        "default_key": key_of(boot.default),
        "next": boot.next,
        "waiting": waiting,
        "waiting_key": key_of(waiting),
        "reboot_needed": reboot_needed,
        "previous": state.previous,
        "trial": state.trial,
        "refused": refused,
        "builds": builds,
        "acrn_entry": entry.as_dict() if entry else None,
        "arguments": host.arguments_in_use(),
        "history": state.history,
    }


def main():
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        result = look(Host(runner(module), dry=True))
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
