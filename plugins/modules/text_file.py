#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: text_file
short_description: Keep a text in a file, the whole of it or nothing
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Writes plans, proofs, pages and variables on the controller. Who reads the file sees the old or the new text, also
    after a kill, with a full disk, and while two runs write it at once; nothing else is left in its directory.
  - M(ansible.builtin.copy) leaves a hidden file in the directory where it is killed, if the directory is on another
    file system than the temporary files.
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
  - acrn.ivshmem.private
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
      - The file. Directories on the way to it that are not there are made. A link is followed and stays one; mode and
        owner of a file that is there stay, a new one is open to all readers that the umask allows.
    type: path
    required: true
  content:
    description:
      - The text. A list or dictionary is written as JSON.
    type: raw
    required: true
seealso:
  - module: ansible.builtin.copy
"""

EXAMPLES = r"""
- name: Keep the proof beside the inventory
  acrn.ivshmem.text_file:
    path: "{{ inventory_dir }}/proof.json"
    content: "{{ verify_report | to_nice_json }}\n"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
size:
  description: How many bytes the text has.
  returned: success
  type: int
"""

import contextlib
import json
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import (
    check_paths,
    locked,
    read_file,
    replace_file,
    unified,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

LARGEST = 1 << 28


def check_folder(path, folder):
    """Raise IvshmemError where a file cannot be made in a directory, which may have to be made itself."""
    there = folder
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise IvshmemError(f"{path}: its directory cannot be made: {there} is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise IvshmemError(f"{path}: its directory {there} may not be written to")


def make_folder(path, folder):
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as exc:
        raise IvshmemError(f"{path}: its directory cannot be made: {exc.strerror}") from exc


def run(module):
    path, content = module.params["path"], module.params["content"]
    # Older versions of ansible-core make values of a text that looks like one.
    text = content if isinstance(content, str) else json.dumps(content, indent=4, sort_keys=True) + "\n"
    data = text.encode("utf-8")
    result = {"path": path, "size": len(data)}
    folder = os.path.dirname(os.path.abspath(path))
    if module.check_mode:
        check_folder(path, folder)
    else:
        make_folder(path, folder)
    alone = not os.path.isdir(folder)
    with contextlib.nullcontext() if alone else locked(path, what=f"text_file of {path}"):
        before = read_file(path, limit=LARGEST, missing=b"")
        changed = before != data
        if module._diff:
            old, new = (side.decode("utf-8", errors="replace") for side in (before, data))
            result["diff"] = unified(old, new, path)
        if changed and not module.check_mode:
            replace_file(module, path, data)
    return dict(result, changed=changed)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "raw", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        check_paths(module.params, module.argument_spec)
        result = run(module)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
