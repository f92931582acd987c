# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A builder whose artefacts lie, installed by the role hypervisor on hosts of its own and beside an honest one.

Each host gets an artefact with a lie of its own, fetched from the builder as the playbooks do. Its root directory, with
GRUB's files, and what the controller keeps are looked at afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.bench import fleet
from ansible_collections.acrn.ivshmem.tests.integration_acrn import controller
from ansible_collections.acrn.ivshmem.tests.reliability import figures, plant, service_vm, target
from ansible_collections.acrn.ivshmem.tests.reliability.test_lying_guest import OBEYED, SPOKEN

pytestmark = pytest.mark.skipif(plant.why_not() is not None, reason=str(plant.why_not()))

KEY = "0123456789abcdef0123456789abcdef"
PLAY = """
- hosts: acrn_hosts
  gather_facts: false
  environment: {PATH: "/opt/grub:/usr/sbin:/usr/bin:/bin"}
  tasks:
    - ansible.builtin.import_role: {name: acrn.ivshmem.hypervisor, tasks_from: install}
"""
# What this host's GRUB is asked; the test needs none on this machine.
TOOLS = {
    "grub-probe": 'case "$1" in *=fs_uuid) echo u1;; *=fs) echo ext2;; *) echo;; esac',
    "grub-mkrelpath": 'echo "$1"',
    "grub-script-check": "exit 0",
}


class Artefact:
    """A build on the builder, with what its manifest says."""

    def __init__(self, folder, canary):
        self.folder = service_vm.artifact(folder / KEY, KEY)
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        self.canary = canary

    def say(self, **values):
        self.manifest.update(values)
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest))

    def text(self, data):
        (self.folder / "manifest.json").write_bytes(data)

    def output(self, name, **facts):
        outputs = self.manifest["outputs"]
        self.say(outputs={**outputs, name: {**outputs["acrn.bin"], **facts}})

    def file(self, name, data, matching=True):
        (self.folder / name).write_bytes(data)
        if matching:
            self.output(name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def deep(depth):
    return b'{"key": "%s", "outputs": %s1%s}' % (KEY.encode(), b'{"a":' * depth, b"}" * depth)


def template(canary):
    return f"{{{{ lookup('pipe', '{canary}') }}}}"


# Name -> what is done to an artefact, and what is told: None where it is installed all the same, without what is wrong.
REFUSED = "not what hypervisor_build writes|is no artefact|key"
LIES = {
    "honest": (lambda it: None, None),
    "up": (
        lambda it: [it.output(name) for name in ("../../../../etc/passwd", "acpi/../../up.bin", "/etc/shadow")],
        None,
    ),
    "newline": (lambda it: [it.output("acrn.bin\n"), it.output("acpi/ACPI_VM1.bin\n")], None),
    "many": (lambda it: [it.say(outputs={**it.manifest["outputs"], **many(it)})], None),
    "control": (lambda it: it.say(name=SPOKEN), "cannot hold control characters"),
    "lines": (lambda it: it.say(version="x\nmenuentry 'y' {\n}\n"), "cannot hold control characters"),
    "quotes": (lambda it: it.say(name="x' {'; menuentry 'y\" $(touch /ran) `touch /ran` \\"), None),
    "templates": (lambda it: [it.say(name=template(it.canary)), it.output(template(it.canary))], None),
    "key_up": (lambda it: it.say(key="../../etc"), REFUSED),
    "key_other": (lambda it: it.say(key="f" * 32), None),
    "key_line": (lambda it: it.say(key=f"{KEY}\n"), REFUSED),
    "key_long": (lambda it: it.say(key="a" * 5000), REFUSED),
    "key_template": (lambda it: it.say(key=template(it.canary)), REFUSED),
    "list": (lambda it: it.text(b"[]"), "outputs"),
    "outputs": (lambda it: it.say(outputs="acrn.bin"), REFUSED),
    "digest": (lambda it: it.output("acrn.bin", sha256="0" * 64), "is not what its manifest"),
    "no_digest": (lambda it: it.output("acrn.bin", sha256=[{}]), REFUSED),
    "size": (lambda it: it.output("acrn.bin", size=1 << 62), "free|room|space"),
    "negative": (lambda it: it.output("acrn.bin", size=-1), "is not what its manifest"),
    "smaller": (lambda it: it.output("acrn.bin", size=3), "is not what its manifest"),
    "true": (lambda it: it.output("acrn.bin", size=True), REFUSED),
    "deep": (lambda it: it.text(deep(100_000)), "nested|recursion|deep"),
    "deeper": (lambda it: it.text(deep(900)), "sha256|nested|digest|recursion|deep"),
    "bytes": (lambda it: it.text(b"\xff\xfe\0{"), "text|UTF-8|JSON|decode"),
    "digits": (lambda it: it.text(b'{"key": ' + b"9" * 10000 + b"}"), "digits|outputs"),
    "lacks": (lambda it: os.unlink(it.folder / "acrn.bin"), "acrn.bin"),
    "bomb": (lambda it: it.file("scenario.xml", BOMB), "DOCTYPE|document type|entit"),
    "utf16": (lambda it: it.file("scenario.xml", service_vm.SCENARIO.encode("utf-16-le")), "XML|encod|NUL"),
    "no_xml": (lambda it: it.file("scenario.xml", template(it.canary).encode()), "XML|well-formed"),
    "huge": (lambda it: it.text(b'{"key": "' + b"a" * (9 << 20) + b'"}'), "bytes long|went on after"),
}
BOMB = b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><acrn-config>&b;</acrn-config>'


def many(it):
    facts = it.manifest["outputs"]["acrn.bin"]
    return {
        f"acpi/ACPI_VM{number}.bin": facts for number in (*range(100, 5000), "9" * 300, "\N{ARABIC-INDIC DIGIT ONE}")
    }


def host(folder, name):
    """A Service VM in a directory, with GRUB's files and programs."""
    root = folder / "machines" / name / "root"
    service_vm.Machine(root)
    fleet.make_root(root)
    (root / "opt/grub").mkdir(parents=True)
    for tool, script in TOOLS.items():
        (root / "opt/grub" / tool).write_text(f"#!/bin/sh\n{script}\n")
        (root / "opt/grub" / tool).chmod(0o755)
    return root


def state(root):
    return target.listing(root, skip=("usr", "run/acrn-ivshmem", "boot/acrn/state.json"))


# Each kind once; all of them under --long.
SAMPLE = ("honest", "up", "quotes", "templates", "key_up", "deep", "digest")


@pytest.fixture(name="outcome", scope="module")
def _outcome(tmp_path_factory):
    every = LIES if os.environ.get("ACRN_IVSHMEM_LONG") else {name: LIES[name] for name in SAMPLE}
    folder = tmp_path_factory.mktemp("artefact")
    canary = folder / "canary"
    canary.write_text(f"#!/bin/sh\ntouch {folder}/ran\n")
    canary.chmod(0o755)
    hosts, before = {}, {}
    for name, (lie, _told) in every.items():
        (folder / "builder" / name).mkdir(parents=True)
        made = Artefact(folder / "builder" / name, canary)
        lie(made)
        root = host(folder, name)
        before[name] = state(root)
        hosts[name] = {
            "ansible_python_interpreter": fleet.wrapper(folder / "machines" / name / "python", root),
            "hypervisor_artifact_dir": str(made.folder),
            # As each host's own builder would: what one says of a key must not reach the host of another one.
            "hypervisor_artifact_host": f"builder_{name}",
        }
    local = {"ansible_connection": "local", "ansible_pipelining": True, "ansible_remote_tmp": "/tmp/.ansible-bench"}
    builders = {f"builder_{name}": {"ansible_python_interpreter": sys.executable} for name in every}
    settings = {"hypervisor_reboot": False, "hypervisor_arm": True}
    inventory = {
        "all": {
            "vars": local,
            "children": {"acrn_hosts": {"hosts": hosts, "vars": settings}, "acrn_builders": {"hosts": builders}},
        }
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "play.yml").write_text(PLAY)
    done = controller.command(folder, "ansible-playbook", "-i", "hosts.yml", "play.yml", "-f", "10", timeout=1200)
    yield folder, done, before
    shutil.rmtree(folder, ignore_errors=True)


def failure(name, said):
    """What is told of a host that failed; None where it did not."""
    lines = [line for line in said.splitlines() if line.startswith((f"fatal: [{name}", f"failed: [{name}"))]
    return lines[0] if lines else None


def test_a_lying_artefact_harms_nobody(outcome):
    folder, done, before = outcome
    assert not (folder / "ran").exists(), "a command of the builder ran on the controller"
    assert not OBEYED.search(done.stdout), OBEYED.search(done.stdout)
    assert "Traceback" not in done.stdout and "Unexpected" not in done.stdout, done.stdout[-5000:]
    wrong = []
    for name, tree in before.items():
        told = LIES[name][1]
        after = state(folder / "machines" / name / "root")
        new = {path for path in after if after[path] != tree.get(path, "none")}
        failed = failure(name, done.stdout)
        if told is None:
            if failed or "boot/grub/grub.cfg" not in new:
                wrong.append((name, "is not installed", failed))
            # An own menu entry, and nothing that is not a build's.
            key = "f" * 32 if name == "key_other" else KEY
            own = ("boot/acrn", "boot/grub", "etc/grub.d", "tmp")
            wrong += [(name, path) for path in new if not path.startswith(own)]
            builds = {path.split("/")[2] for path in after if path.startswith("boot/acrn/") and after[path] is None}
            wrong += [(name, builds)] if builds != {key} else []
            menu = after["boot/grub/grub.cfg"][1].decode()
            wrong += [(name, menu)] if menu.count("\nmenuentry ") != menus(tree) + 1 else []
        else:
            if not failed or not re.search(told, failed, re.I):
                wrong.append((name, "is not told", failed))
            wrong += [(name, path) for path in new - {"boot/acrn", "tmp"}]
    assert not wrong, wrong
    figures.add("artefacts that lie, through the role hypervisor", len(before), len(before))


def menus(files):
    return files["boot/grub/grub.cfg"][1].decode().count("\nmenuentry ")


def test_the_controller_keeps_files_of_builds_alone(outcome):
    folder, _done, _before = outcome
    kept = folder / ".acrn-ivshmem/artifacts"
    found = {path.relative_to(kept) for path in kept.rglob("*") if path.is_file()}
    assert {str(path).split("/", 2)[1] for path in found} == {KEY}
    names = {str(path).split("/", 2)[2] for path in found}
    assert names == {"manifest.json", "acrn.bin", "scenario.xml", "board.xml"}, names
    assert not (folder / ".acrn-ivshmem/up.bin").exists() and not (folder / "up.bin").exists()
    # Two builders have a build of one key. Neither host has got that of the other.
    for name in ("honest", "quotes"):
        there = folder / f"machines/{name}/root/boot/acrn" / KEY / "manifest.json"
        assert there.read_bytes() == (folder / "builder" / name / KEY / "manifest.json").read_bytes()
