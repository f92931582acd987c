#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hypervisor_install
short_description: Bring a built ACRN hypervisor onto a Service VM, try it, and make it the default
version_added: 0.1.0
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
attributes:
  action:
    description:
      - Indicates this has a corresponding action plugin so some parts of the options can be executed on the
        controller.
    support: full
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: full
    details:
      - Shows the change of C(grub.cfg).
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
        change.
    support: full
  platform:
    description: Target OS/families that can be operated against.
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
      - The regions that the Service VM takes part in, as P(acrn.ivshmem.vm_devices#filter) tells them. Those of the
        device model, which
        no hypervisor makes, are passed over.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - The name.
        type: str
        required: true
      size:
        description:
          - The size in MB.
        type: int
        required: true
      vbdf:
        description:
          - Where the Service VM sees it. Without it any place will do.
        type: str
      provided_by:
        description:
          - V(hypervisor) or V(device_model).
        type: str
        default: hypervisor
      region_id:
        description:
          - Not looked at.
        type: int
      slot:
        description:
          - Not looked at.
        type: int
      peers:
        description:
          - Not looked at.
        type: list
        elements: int
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

import base64
import copy
import os
from dataclasses import replace

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils import _boot as core
from ansible_collections.acrn.ivshmem.plugins.module_utils._boot_host import Artifact, Host, Settings, now
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import locked, unified
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import Bdf, IvshmemError


class Failure(Exception):
    """The host is as it shall be after a failure; the outcome is told."""

    def __init__(self, outcome, message, **facts):
        super().__init__(message)
        self.facts = dict(facts, outcome=outcome)


def hypervisor_regions(regions):
    """The regions that a hypervisor makes, each address as lspci prints it. Raises IvshmemError with the region."""
    found = []
    for region in regions:
        try:
            vbdf = str(Bdf.parse(region["vbdf"])) if region["vbdf"] else None
        except IvshmemError as exc:
            raise IvshmemError(f"regions: {region['name']}: vbdf: {exc}") from exc
        if region["provided_by"] == "hypervisor":
            found.append(dict(region, vbdf=vbdf))
    return found


class Install:
    """One call of the module."""

    def __init__(self, module, host):
        self.module = module
        self.params = module.params
        self.host = host
        self.boot = host.boot()
        self.before = host.state()
        self.state = copy.deepcopy(self.before)
        self.diff = None
        self.moved()

    def save(self):
        self.host.save_state(self.state, self.before)
        self.before = copy.deepcopy(self.state)

    def note(self, event, entry, detail=""):
        self.state.note(now(), event, entry, detail)

    def move(self, entry, given_up=False, also=()):
        """Make an entry the default, and what was the default the way back."""
        self.state.move = core.Move(self.boot.default, entry, given_up)
        self.save()
        self.host.set_env({core.DEFAULT: entry, **dict(also)}, "default")
        self.boot = replace(self.boot, default=entry)
        self.moved()

    def moved(self):
        """Record a change of the default, of this run or of one that ended before it could."""
        move = self.state.settle(self.boot)
        if move and move.given_up:
            self.state.failed[move.before] = "it was left on request"
            self.note("rolled back", move.after, f"from {move.before}")

    def menu(self, texts):
        before, after = self.host.set_menu(texts, self.params["sign"])
        first = self.diff["before"] if self.diff else before
        self.diff = unified(first, after, self.host.grub_cfg)

    def settings(self):
        params = self.params
        return Settings(
            cmdline=params["cmdline"],
            panic=params["panic"],
            root=params["root"] or "",
            kernel=params["kernel"] or "",
            initrd=params["initrd"] or "",
            modules=tuple(sorted((str(tag), str(path)) for tag, path in params["modules"].items())),
            title=params["title"] or "",
            keep=params["keep"],
            sign=params["sign"],
        )

    def present(self):
        given = self.params["_artifact"]
        if given:
            artifact = Artifact.parse(given["manifest.json"], base64.b64decode(given["scenario.xml"]))
            if self.params["key"] not in (None, artifact.key):
                raise IvshmemError(f"the artefact is of the key {artifact.key}, and not {self.params['key']}")
        elif self.params["key"]:
            artifact = self.host.artifact(self.params["key"])
        else:
            raise IvshmemError("state=present wants key or artifact_dir")
        self.check_signing()
        self.host.check_menu()
        settings = self.settings()
        self.regions = hypervisor_regions(self.params["regions"])
        entry, text = self.host.render(artifact, settings)
        facts = {"key": artifact.key, "entry": entry, "differs": self.differs(artifact, settings)}
        step = core.decide(entry, self.boot, self.state, self.params["retry"])
        self.stop_if_bad(step, entry)
        if step == core.ARM:
            self.host.check_one_shot()
            self.host.warn_of_menu()

        lacking = self.host.lacking(artifact, settings.sign)
        if lacking:
            self.host.check_room(artifact, lacking)
        if lacking and not self.host.dry:
            if not given:
                raise IvshmemError(
                    f"{artifact.key}: {', '.join(lacking)} of this build are damaged here; give artifact_dir"
                )
            if not self.params["_staged"]:
                return dict(facts, outcome="waiting", reboot_needed=True, _missing=lacking)
        self.host.add_files(artifact, lacking, self.params["_staged"], settings.sign)
        if artifact.key not in self.state.installed:
            self.state.installed.append(artifact.key)
            self.note("installed", entry)
        # A record that was lost must not cost the files of what runs.
        self.state.installed = core.with_found(self.state.installed, self.host.builds())
        self.state.wanted = entry
        self.host.add_entry(entry, text)
        # The new entry comes first, then what it is for, and only then what nobody needs any more goes.
        texts = dict(self.host.entries(), **{entry: text})
        self.menu([texts[name] for name in core.menu_order(texts, self.state.installed)])
        self.forget_other_trial(entry)
        facts.update(self.go_on(step, entry, artifact))
        keys = core.kept_keys(entry, self.boot, self.state, settings.keep)
        entries = core.menu_order(core.kept_entries(texts, keys, entry, self.boot, self.state), self.state.installed)
        self.menu([texts[name] for name in entries])
        gone = self.host.prune(keys, entries)
        # What a run removed that ended before it could record it, is gone too.
        there = {artifact.key, *self.host.builds()}.difference(gone)
        self.state.installed = [key for key in self.state.installed if key in there]
        if len(self.state.failed) > core.HISTORY:
            kept = self.state.installed
            self.state.failed = {name: why for name, why in self.state.failed.items() if core.key_of(name) in kept}
        self.save()
        return facts

    def differs(self, artifact, settings):
        lacking = self.host.lacking_arguments(artifact, settings)
        if lacking:
            self.host.warnings.append(
                "the host's own boot entry for ACRN gives arguments that the new one lacks: "
                f"{' '.join(lacking)}; add those that are needed to cmdline (in the role hypervisor_cmdline)"
            )
        return lacking

    def check_signing(self):
        if self.host.secure_boot() and not self.params["sign"]:
            raise IvshmemError(
                "Secure Boot is on, and GRUB loads signed files only; say how files are signed "
                "(sign, in the role hypervisor_sign), or switch Secure Boot off in the firmware"
            )

    def forget_other_trial(self, entry):
        """Judge the trial of an entry that nobody wants any more, or take it back."""
        lost = core.fallen(self.boot, self.state)
        if lost and lost != entry:
            self.state.failed[lost] = core.why_fallen(self.boot)
            self.state.trial = None
            self.note("fell_back", lost, self.state.failed[lost])
        left = self.boot.next
        if left and left != entry and left == self.state.trial:
            self.host.set_env({core.NEXT: None}, "no trial boot")
            self.boot = replace(self.boot, next=None)
            self.state.trial, self.state.came_up = None, False
            self.note("disarmed", left)

    def stop_if_bad(self, step, entry):
        """Record and report a trial that failed."""
        if step == core.FELL_BACK:
            why = core.why_fallen(self.boot)
            self.fail(entry, "fell_back", why)
            raise Failure(
                "fell_back",
                f"{entry} was rolled back: {why}. The host is as it was before. Build a hypervisor "
                "that boots, or try this one again "
                "with retry (in the role hypervisor_retry)",
                reboot_needed=False,
                entry=entry,
            )
        if step == core.REFUSE:
            raise Failure(
                "refused",
                f"{entry} is not installed again: {self.state.failed[entry]}. Build a hypervisor that "
                "boots, or try this one again with "
                "retry (in the role hypervisor_retry)",
                reboot_needed=self.boot.running != self.boot.default,
                entry=entry,
            )

    def fail(self, entry, event, why):
        # First the default, then the record: a record that is missing is made again, a default that is wrong is not.
        if self.boot.default == entry:
            self.host.set_env({core.DEFAULT: self.state.previous}, "default")
        # One that still runs fails again with each run, which is no news.
        if self.state.failed.get(entry) != why or self.state.trial == entry:
            self.note(event, entry, why)
        self.state.failed[entry] = why
        self.state.trial, self.state.came_up = None, False
        self.save()

    def go_on(self, step, entry, artifact):
        if step == core.DONE:
            self.host.sync_packaged(artifact)
            self.save()
            return {"outcome": "default", "reboot_needed": False}
        if step == core.PROVE:
            return self.prove(entry, artifact)
        if step == core.ARM and self.params["trial"]:
            # The record comes first. GRUB's own note tells later whether the trial really began.
            begun = self.state.trial == entry and not self.state.came_up and entry not in self.state.failed
            if not begun or self.boot.tried == entry:
                # Otherwise a run that ended before it could tell GRUB has recorded it.
                self.note("armed", entry)
            self.state.trial = entry
            self.state.came_up = False
            self.state.failed.pop(entry, None)
            self.save()
            self.host.set_env({core.NEXT: core.ID_PREFIX + entry, core.TRIED: None}, "trial boot")
            self.boot = replace(self.boot, next=entry, tried=None)
            return {"outcome": "armed", "reboot_needed": True}
        self.save()
        return {"outcome": "armed" if step == core.WAIT else "waiting", "reboot_needed": True}

    def prove(self, entry, artifact):
        params = self.params
        self.state.came_up = self.state.trial == entry
        self.save()
        # Nobody knows what a command does: in check mode it is not run.
        proofs = self.host.proofs(entry, params["proofs"], self.regions, [] if self.host.dry else params["commands"])
        wrong = [f"{proof['name']}: {proof['detail']}" for proof in proofs if not proof["ok"]]
        if wrong:
            why = "it runs, but " + "; ".join(wrong)
            self.fail(entry, "unproven", why)
            raise Failure(
                "unproven",
                f"{entry} did not prove itself: {why}. The next boot goes back to "
                f"{self.state_default(entry)}; the host is otherwise as it "
                "was before",
                reboot_needed=True,
                entry=entry,
                proofs=proofs,
            )
        if self.boot.default != entry:
            self.move(entry)
        self.state.trial, self.state.came_up = None, False
        self.state.failed.pop(entry, None)
        self.note("default", entry)
        self.save()
        self.host.sync_packaged(artifact)
        return {"outcome": "default", "reboot_needed": False, "proofs": proofs}

    def state_default(self, entry):
        default = self.state.previous if self.boot.default == entry else self.boot.default
        return default or "the entry of the host"

    def previous(self):
        boot, state = self.boot, self.state
        target = boot.default
        if state.trial or (boot.running and boot.running != boot.default):
            # A trial is under way: the default is the previous one.
            self.host.set_env({core.NEXT: None} if boot.next else {}, "no trial boot")
            left = state.trial or boot.running
            if left and left not in state.failed:
                state.failed[left] = "it was given up on request"
                self.note("given up", left)
            state.trial, state.came_up = None, False
        elif boot.default and state.previous != boot.default and state.previous not in state.failed:
            target = state.previous
            self.move(target, True, {core.NEXT: None} if boot.next else {})
        state.wanted = None
        self.save()
        if target:
            self.host.sync_packaged(self.host.artifact(core.key_of(target)))
        else:
            self.host.restore_packaged()
        done = boot.running == target
        return {
            "outcome": "default" if done else "waiting",
            "reboot_needed": not done,
            "entry": target,
            "key": core.key_of(target),
        }

    def absent(self):
        host, boot = self.host, self.boot
        if os.path.exists(host.script):
            self.check_signing()
        gone = {core.DEFAULT: None, core.TRIED: None, **({core.NEXT: None} if boot.next else {})}
        if os.path.exists(host.grubenv):
            host.set_env(gone, "default")
        self.menu(None)
        host.restore_packaged()
        host.remove_own_files()
        return {
            "outcome": "waiting" if boot.running else "default",
            "reboot_needed": bool(boot.running),
            "entry": None,
            "key": None,
        }


def work(module, host):
    install = Install(module, host)
    try:
        result = getattr(install, module.params["state"])()
    except Failure as exc:
        result = dict(exc.facts, failed=True, msg=str(exc))
    if module._diff and install.diff:
        result["diff"] = install.diff
    if host.warnings:
        result["warnings"] = host.warnings
    boot = install.boot if host.dry else host.boot()
    return dict(result, changed=bool(host.changed), steps=host.changed, running=boot.running, default=boot.default)


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
                "options": {
                    "name": {"type": "str", "required": True},
                    "size": {"type": "int", "required": True},
                    "vbdf": {"type": "str"},
                    "provided_by": {"type": "str", "default": "hypervisor"},
                    "region_id": {"type": "int"},
                    "slot": {"type": "int"},
                    "peers": {"type": "list", "elements": "int"},
                },
            },
            "commands": {"type": "list", "elements": "str", "default": []},
            # From the action plugin: the text of manifest.json, scenario.xml in base64, and where it put missing files.
            "_artifact": {"type": "dict"},
            "_staged": {"type": "path"},
        },
        supports_check_mode=True,
    )
    host = Host(lambda words: module.run_command(list(words)), dry=module.check_mode)
    try:
        if module.check_mode or (module.params["state"] != "present" and host.untouched()):
            result = work(module, host)
        else:
            if module.params["state"] == "present":
                host.check_menu()
                os.makedirs(host.boot_dir, exist_ok=True)
            # The lock is on a directory that removal does not take away.
            with locked(host.grub_cfg, what="hypervisor_install"):
                host.sweep()
                result = work(module, host)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc), steps=host.changed, changed=bool(host.changed))
    except OSError as exc:
        module.fail_json(msg=f"{exc.filename}: {exc.strerror}", steps=host.changed, changed=bool(host.changed))
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
