#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hypervisor_install
short_description: Bring a built ACRN hypervisor onto a Service VM, try it, and make it the default
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Keeps builds of M(acrn.ivshmem.hypervisor_build) in C(/boot/acrn/KEY), and one file in C(/etc/grub.d) with one menu
    entry for each. Nothing else of the host's boot configuration is touched.
  - A new hypervisor is never the default before it has run. It is first booted once (GRUB's C(next_entry)); when the
    host is up
    again, the next call of this module asks for the proofs and makes it the default. When another entry is running
    instead, the call says so, fails, and leaves everything at the old hypervisor.
  - The entries stand behind all others of the menu, so that the host's own default, in whatever form it is given, stays
    what it is. What cannot work is refused before anything is written.
  - The module does not reboot. One call does what can be done now, and RV(outcome) says what the host waits for.
  - The power may go at any instant. The host then boots either the old default or the entry that is on trial, and the
    next call
    goes on from there.
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.device.regions
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
attributes:
  action:
    description:
      - Indicates this has a corresponding action plugin so some parts of the options can be executed on the
        controller.
    support: full
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the change of C(grub.cfg).
  idempotent:
    support: full
  platform:
    platforms: debian
    support: full
requirements:
  - GRUB 2 with a C(grub.cfg) made by C(grub-mkconfig) and a C(/boot/grub) that GRUB can write to, on BIOS or UEFI;
    where GRUB is named grub2, C(/boot/grub2)
  - the programs C(grub-probe), C(grub-mkrelpath) and C(grub-script-check), on Debian and Ubuntu in the package
    grub-common; with names that begin with C(grub2-) where GRUB is named so
options:
  state:
    description:
      - V(present) works towards the build O(key) being the default.
      - V(previous) goes back to the hypervisor that was the default before, or to the host's own entry if there was
        none. The one
        that is left is refused from then on, unless O(retry=true).
      - V(absent) removes all builds, the menu entries and the state. What others have put into C(/boot/acrn) stays. A
        host on which nothing was installed needs no GRUB for it.
    type: str
    choices: [present, previous, absent]
    default: present
  key:
    description:
      - The key of the build. Needed with O(state=present), unless O(artifact_dir) is given.
    type: str
  artifact_dir:
    description:
      - The directory of the artefact on the controller. Its files are sent if the host lacks them. Without it the
        host must have
        them.
    type: path
  trial:
    description:
      - Let the next boot be the trial, where one is due. Without it RV(outcome) is V(waiting), and a reboot boots
        what it booted
        before.
    type: bool
    default: false
  retry:
    description:
      - Try a hypervisor again that failed its trial on this host, or that was left with O(state=previous).
    type: bool
    default: false
  kernel:
    description:
      - The kernel of the Service VM. By default the newest one in C(/boot) that has C(CONFIG_ACRN_HSM), for ACRN v2.x
        also C(CONFIG_ACRN_VHM), in C(/boot/config-VERSION) or C(/lib/modules/VERSION/config), those with C(acrn) in
        their version first.
    type: path
  initrd:
    description:
      - The initrd of that kernel. By default the one beside it that has its version, under the names that distributions
        give it. V(none) loads none.
      - It gets the C(ramdisk_mod) of the scenario as its tag. Without a C(ramdisk_mod) it gets no tag, which ACRN takes
        as well; then a pre-launched Linux VM without a C(ramdisk_mod) would get it too, so it is left out where the
        root can be found without it, with a warning, and refused elsewhere.
    type: str
  modules:
    description:
      - Files on the host that the hypervisor gets as multiboot2 modules, by tag. The tags are the C(kern_mod) and
        C(ramdisk_mod) of the scenario.
      - Needed for the kernels of pre-launched VMs. The kernel of the Service VM and its initrd are found, and the
        ACPI tables of
        pre-launched VMs are part of the artefact.
    type: dict
    default: {}
  root:
    description:
      - The root file system of the Service VM, such as C(UUID=...) or C(PARTUUID=...). Without an initrd C(UUID=),
        C(LABEL=), C(/dev/mapper) and other names that udev makes are refused.
      - By default what the running kernel was given, with its C(rootflags=), C(rootfstype=), C(rootwait), C(rootdelay=)
        and, with an initrd, C(rd.*) and the like. These belong to the file system, so that they are kept too where
        this option names the same one.
    type: str
  cmdline:
    description:
      - More arguments for the kernel of the Service VM, and for the hypervisor, which reads the same line.
      - ACRN puts the arguments of the entry behind the C(bootargs) of the scenario, so that where both give one, Linux
        takes that of the entry. Both together have room for 2047 bytes.
    type: str
    default: ""
  panic:
    description:
      - Seconds after which the Service VM's kernel reboots when it panics; 0 for never.
    type: int
    default: 60
  title:
    description:
      - The title of the menu entry, to which the key is added. By default C(ACRN), version and scenario name.
    type: str
  keep:
    description:
      - How many builds stay on the host. The running one, the default, the previous one and O(key) stay in any case.
    type: int
    default: 2
  sign:
    description:
      - A command that signs the file whose path it gets as its last argument, such as C(gpg --batch --detach-sign),
        and leaves the signature beside it in a file with C(.sig) added to the name.
      - It is called on the host, for each file of the build and for C(grub.cfg), with O(state=absent) too.
      - Needed where Secure Boot is on.
    type: str
    default: ""
  proofs:
    description:
      - What must be true before a hypervisor becomes the default, beside that its entry booted the running kernel.
      - V(hypervisor) means that CPUID names ACRN, V(device) that C(/dev/acrn_hsm) or C(/dev/acrn_vhm) is there,
        V(regions) that the
        Service VM sees each of O(regions) as a PCI function at its place and of its size.
    type: list
    elements: str
    choices: [hypervisor, device, regions]
    default: [hypervisor, device, regions]
  regions:
    description:
      - The regions that the Service VM takes part in, as P(acrn.ivshmem.vm_devices#filter) tells them, each with name
        and size. Those of the device model, which no hypervisor makes, are passed over.
      - Without O(regions[].vbdf) and O(regions[].slot) any place will do. The region ID is not looked at.
    default: []
  commands:
    description:
      - Commands that must end with 0 before a hypervisor becomes the default. They are run without a shell.
    type: list
    elements: str
    default: []
  _artifact:
    description:
      - What the controller read of the artefact. It is set by the collection, not by users.
    type: dict
  _staged:
    description:
      - Where the controller left the files of the artefact. It is set by the collection, not by users.
    type: path
seealso:
  - module: acrn.ivshmem.hypervisor_build
  - module: acrn.ivshmem.hypervisor_info
"""

EXAMPLES = r"""
- name: Install the hypervisor, and let the next boot be its trial
  acrn.ivshmem.hypervisor_install:
    artifact_dir: /srv/acrn/artifacts/5d1f6a7c0b1e4c9b8f3f0a2b6d9c7e11
    trial: true
    modules:
      RT_bzImage: /boot/vmlinuz-6.1-rt
  register: install

- name: Boot it
  ansible.builtin.reboot:
  when: install.reboot_needed

- name: Make it the default, if it proves itself
  acrn.ivshmem.hypervisor_install:
    artifact_dir: /srv/acrn/artifacts/5d1f6a7c0b1e4c9b8f3f0a2b6d9c7e11
    modules:
      RT_bzImage: /boot/vmlinuz-6.1-rt
  when: install.reboot_needed

- name: Go back to the hypervisor that ran before, with the next reboot
  acrn.ivshmem.hypervisor_install:
    state: previous

- name: Remove every trace
  acrn.ivshmem.hypervisor_install:
    state: absent
"""

RETURN = r"""
outcome:
  description:
    - V(default) means that the hypervisor runs and is the default, V(armed) that the next boot will be its trial,
      V(waiting) that
      it is installed and its trial is due.
    - On failure V(fell_back) means that its trial ended with another entry running, V(unproven) that it runs but a
      proof is missing,
      V(refused) that it failed earlier.
    - With O(state=previous) and O(state=absent) it is V(default) or V(waiting).
  returned: always
  type: str
reboot_needed:
  description: Whether the host runs something else than it shall.
  returned: always
  type: bool
key:
  description: The key of the build. Null for the host's own entry.
  returned: success
  type: str
entry:
  description: The name of the boot entry, the key and a digest of the entry's text.
  returned: success
  type: str
  sample: 5d1f6a7c0b1e4c9b8f3f0a2b6d9c7e11.0c1f88aa
running:
  description: The entry that is running, or null for one that is not of this collection.
  returned: always
  type: str
default:
  description: The default entry, or null for the host's own default.
  returned: always
  type: str
proofs:
  description: What was asked of a hypervisor after its trial boot.
  returned: when there was a trial
  type: list
  elements: dict
  contains:
    name:
      description: The proof or the command.
      type: str
    ok:
      description: Whether it holds.
      type: bool
    detail:
      description: What was seen.
      type: str
differs:
  description:
    - Arguments that the host's own boot entry for ACRN gives and the new one does not, such as C(hugepages=10). They
      are told as a warning too; O(cmdline) takes them over. Empty once an entry of this collection runs.
  returned: when a build is installed
  type: list
  elements: str
steps:
  description: What was changed, in order.
  returned: always
  type: list
  elements: str
"""

import errno

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._files import runner
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._host import Host
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot._install import run
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import DEVICE_OPTIONS, IvshmemError


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "previous", "absent"], "default": "present"},
            "key": {"type": "str", "no_log": False},
            "artifact_dir": {"type": "path"},
            "trial": {"type": "bool", "default": False},
            "retry": {"type": "bool", "default": False},
            "kernel": {"type": "path"},
            "initrd": {"type": "str"},
            "modules": {"type": "dict", "default": {}},
            "root": {"type": "str"},
            "cmdline": {"type": "str", "default": ""},
            "panic": {"type": "int", "default": 60},
            "title": {"type": "str"},
            "keep": {"type": "int", "default": 2},
            "sign": {"type": "str", "default": ""},
            "proofs": {
                "type": "list",
                "elements": "str",
                "choices": ["hypervisor", "device", "regions"],
                "default": ["hypervisor", "device", "regions"],
            },
            "regions": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": DEVICE_OPTIONS,
            },
            "commands": {"type": "list", "elements": "str", "default": []},
            # From the action plugin: the text of manifest.json, scenario.xml in base64, and where it put missing files.
            "_artifact": {"type": "dict"},
            "_staged": {"type": "path"},
        },
        supports_check_mode=True,
    )
    host = Host(runner(module), dry=module.check_mode)
    try:
        check_paths(module.params, module.argument_spec)
        result = run(module.params, host, module._diff)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc), steps=host.changed, changed=bool(host.changed))
    except OSError as exc:
        mend = "; mount its file system writable, and run this again" if exc.errno == errno.EROFS else ""
        module.fail_json(
            msg=f"{exc.filename or host.boot_dir}: {exc.strerror or exc}{mend}",
            steps=host.changed,
            changed=bool(host.changed),
        )
    for text in result.pop("warnings", ()):
        module.warn(text)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
