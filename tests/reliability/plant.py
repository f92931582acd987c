# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plant of Service VMs with three guests each, in directories of this machine, and playbooks that run on it.

The machines are those of the benchmark (tests/bench/fleet.py): each has a root directory of its own, and the guests of
a region map the same file, so bytes pass between them. VM1 shares ``gossip`` with VM2, which shares ``ledger`` with
VM0: what VM1 does must not matter to the ledger.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import yaml

from ansible_collections.acrn.ivshmem.tests.bench import fleet
from ansible_collections.acrn.ivshmem.tests.integration_acrn import controller
from ansible_collections.acrn.ivshmem.tests.reliability import target

VMS = {"VM0": 0, "VM1": 2, "VM2": 3}
GOSSIP = {
    "name": "gossip",
    "provided_by": "device_model",
    "size": 2,
    "vms": [{"name": "VM1", "vbdf": "00:08.0"}, {"name": "VM2", "vbdf": "00:08.0"}],
}
LEDGER = {
    "name": "ledger",
    "size": 2,
    "vms": [{"name": "VM0", "vbdf": "00:09.0"}, {"name": "VM2", "vbdf": "00:09.0"}],
}
REGIONS = [GOSSIP, LEDGER]
# After the playbook itself: what everybody knows now.
LOOK = """
- ansible.builtin.import_playbook: acrn.ivshmem.{name}
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        dest: "{{{{ look_at }}}}"
        content: "{{{{ {{'groups': groups, 'hosts': everybody}} | to_json }}}}"
      check_mode: false
      diff: false
      vars:
        everybody: "{{{{ dict(groups.all | zip(groups.all | map('extract', hostvars))) }}}}"
"""


@functools.lru_cache(maxsize=None)
def why_not():
    """Why there can be no such plant on this machine; None where there can."""
    if not pathlib.Path(sys.executable).with_name("ansible-playbook").exists():
        return "there is no ansible-playbook beside the Python of the tests"
    if os.geteuid() != 0:
        return "only root can give machines root directories of their own"
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"unshare: {done.stderr.strip()}"


class Plant:
    """``hosts`` Service VMs in a directory, with scripts and drivers as ``site`` leaves them if ``made``."""

    def __init__(self, folder, hosts, made=False, vms=None, regions=None):
        vms, regions = vms or VMS, regions or REGIONS
        self.folder = folder / "plant"
        self.hosts, self.vms = hosts, vms
        self.before: tuple[str, ...] = ()  # words before those of a playbook
        fleet.make(self.folder, hosts, None, regions, vms)
        self.inventory = fleet.read_inventory(self.folder / "inventory.yml")
        groups = self.inventory["all"]["children"]
        # What is built is the matter of other tests; units need a systemd that runs.
        del groups["acrn_builders"], groups["acrn_hosts"]["vars"]["acrn_source"]
        groups["acrn_hosts"]["vars"].update(launch_units=False, launch_started=False)
        self.inventory["all"]["vars"].update(verify_write=True, ansible_pipelining=True)
        self.acrn_hosts, self.guests = (groups[name]["hosts"] for name in ("acrn_hosts", "acrn_guests"))
        self.write()
        if made:
            # Guests of VMs whose scripts are new wait for their restart, and get their devices with the next run.
            for _run in range(2):
                self.done("site", "--limit", ",".join([*self.names(1), "localhost"]))
            fleet.clone(self.folder, hosts, vms)

    def names(self, number):
        """Service VM and guests number ``number``, from 1."""
        return fleet.names(number, self.vms)

    def machine(self, name):
        """Variables of a host."""
        return self.acrn_hosts.get(name) or self.guests[name]

    def write(self):
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(self.inventory, sort_keys=False))

    def replace_python(self, name, *words):
        """Have words before the Python of a machine."""
        variables = self.machine(name)
        python = self.folder / f"python-of-{name}"
        line = " ".join(shlex.quote(str(word)) for word in (*words, variables["ansible_python_interpreter"]))
        python.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        python.chmod(0o755)
        variables["ansible_python_interpreter"] = str(python)
        self.write()

    def lie(self, name, lie):
        """Have a machine tell a lie (liar.py) from now on."""
        path = self.folder / f"lie-of-{name}.json"
        path.write_text(json.dumps(lie))
        liar = pathlib.Path(__file__).with_name("liar.py")
        self.replace_python(name, sys.executable, "-S", "-E", "-B", liar, path)

    def root(self, name):
        """The root directory of a machine."""
        host, _dash, vm = name.partition("-")
        return self.folder / "machines" / host / (vm.upper() or "root")

    def state(self, name):
        """The files of a machine that a run leaves there."""
        return target.listing(self.root(name), skip=("usr", "tmp", "proc", "dev/ivshmem", "run/acrn-ivshmem"))

    def kept(self):
        """What the controller keeps."""
        return target.listing(self.folder / ".acrn-ivshmem")

    def lose(self, **weather):
        """Lose connections: machine -> which call and how (lossy.py). Without any, all are as they should be."""
        file = "{{ inventory_dir }}/weather-{{ inventory_hostname }}"
        self.inventory["all"]["vars"].update(ansible_connection="lossy", lossy_weather=file)
        self.write()
        for name in (*self.acrn_hosts, *self.guests):
            number, fault = weather.get(name.replace("-", "_"), (0, ""))
            (self.folder / f"weather-{name}").write_text(f"0 {number} {fault}")

    def second(self, folder):
        """Another controller of the same machines, with an inventory directory of its own."""
        other = copy.copy(self)
        other.folder = folder / "second"
        other.folder.mkdir()
        for name in ("inventory.yml", "scenario.xml", "board.xml"):
            shutil.copy(self.folder / name, other.folder / name)
        return other

    def run(self, playbook, *options, look=None):
        """The finished process of a playbook of the collection."""
        name = f"acrn.ivshmem.{playbook}"
        if look:
            name = self.folder / f"look-{playbook}.yml"
            name.write_text(LOOK.format(name=playbook))
            options = (*options, "-e", f"look_at={look}")
        words = ("ansible-playbook", "-i", "inventory.yml", str(name), "-f", "10", *options)
        words = ("env", f"ANSIBLE_CONNECTION_PLUGINS={pathlib.Path(__file__).parent / 'connection'}", *words)
        return controller.command(self.folder, *self.before, *words, timeout=1800)

    def done(self, playbook, *options):
        """The same, where it has to end well."""
        done = self.run(playbook, *options)
        assert done.returncode == 0, done.stdout[-5000:]
        return done
