# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: guarded
short_description: Run a module on a host that is not trusted
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Runs another module, and keeps of the host's answer what that module documents in its return values.
  - Who owns a host owns what its modules answer. Ansible takes facts out of the answer of each module, and facts go
    before the variables of the inventory and the defaults of roles, so a host could set variables of the tasks that
    follow, also of those that run on the controller.
  - The roles and playbooks of this collection run by this module what they run on hosts, builders and guests by modules
    of ansible-core. It is there for them; other playbooks may use it too.
  - The keywords of a task, such as C(become), C(loop), C(delegate_to) and C(register), are written as ever.
    Not C(async), and C(module_defaults) of the other module are not looked at. No verbosity shows O(args).
options:
  module:
    description: The full name of the module. One whose result is facts has none here.
    type: str
    required: true
  args:
    description: Its options. The command of M(ansible.builtin.raw) is C(_raw_params).
    type: dict
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
  - acrn.ivshmem.private
attributes:
  check_mode:
    support: partial
    details:
      - As the other module.
  diff_mode:
    support: partial
    details:
      - As the other module.
  idempotent:
    support: partial
    details:
      - As the other module.
  platform:
    platforms: posix, windows
    support: partial
    details:
      - As the other module.
notes:
  - An answer of more than 8 MiB is refused; of M(ansible.builtin.fetch) one of more than 256 MiB.
"""

EXAMPLES = r"""
- name: Make a work directory
  acrn.ivshmem.guarded:
    module: ansible.builtin.tempfile
    args:
      state: directory
  register: work
"""

RETURN = r"""
# What the other module documents.
"""
