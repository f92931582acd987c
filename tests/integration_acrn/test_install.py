# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the playbook install takes, up to the module that would install it: no host is installed here."""

from __future__ import annotations

import itertools
import re

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import next_steps
from ansible_collections.acrn.ivshmem.tests.integration_acrn.test_remove import Fleet


def test_install_takes_what_site_has_built(tmp_path):
    fleet = Fleet(tmp_path)
    done = fleet.play("install", "--check")
    assert done.returncode == 2
    assert "edits: builder has no build of its regions" in done.stdout
    assert "writes: builder has no build of its regions" in done.stdout
    assert not (tmp_path / ".acrn-ivshmem").exists()

    assert fleet.play("site").returncode == 0
    fleet.inventory["acrn_hosts"]["hosts"]["edits"]["hypervisor_install"] = "no"
    done = fleet.play("install", "--check", "-vv")
    (key,) = set(re.findall(r"artifacts/([0-9a-f]{32})", done.stdout))
    # This machine has no GRUB for it, and that is as far as it comes.
    assert (tmp_path / f".acrn-ivshmem/artifacts/builder/{key}/manifest.json").exists()
    failed = re.findall(r"fatal: \[(\w+)\]", done.stdout)
    # Its error, and the one that stops the batches.
    assert failed == ["writes", "writes"], done.stdout
    assert "TASK [acrn.ivshmem.hypervisor : Install the hypervisor]" in done.stdout
    # The one that wants no installation is none that was stopped.
    assert steps(done)["writes"] == "not done, see its error above"
    assert not steps(done).get("edits", "").startswith("not done")

    done = fleet.play("install", "--check", "--limit", "writes")
    # The builder need not be in the limit: it is asked by the host.
    assert set(re.findall(r"fatal: \[(\w+)\]", done.stdout)) == {"writes"}, done.stdout
    assert "TASK [acrn.ivshmem.hypervisor : Install the hypervisor]" in done.stdout


def steps(done):
    """Host -> what it waits for, of a table with a host a row."""
    found, name = {}, ""
    for line in itertools.takewhile(lambda line: not line.startswith("More: "), next_steps(done)[2:]):
        name = line[:16].strip() or name  # that of the row above
        found[name] = f"{found.get(name, '')} {line[18:36].strip()}".strip()
    return found


def test_a_rollout_that_stops_says_who_is_not_done(tmp_path):
    """No host here has a GRUB: the first one fails, and the other is not begun."""
    fleet = Fleet(tmp_path)
    assert fleet.play("site").returncode == 0
    for playbook, options in (("install", ()), ("site", ("-e", "hypervisor_install=true"))):
        done = fleet.play(playbook, "--check", *options)
        assert done.returncode == 2, done.stdout
        (first,) = set(re.findall(r"fatal: \[(\w+)\]", done.stdout))
        (other,) = {"edits", "writes"} - {first}
        assert steps(done) == {
            first: "not done, see its error above",
            other: "not done, the run has stopped before it",
        }, done.stdout
        assert "PLAY [Launch scripts]" not in done.stdout


def test_install_names_a_host_without_a_tree(tmp_path):
    fleet = Fleet(tmp_path)
    fleet.inventory["acrn_hosts"]["hosts"]["writes"]["acrn_source"] = ""
    done = fleet.play("install", "--check")
    assert done.returncode == 2
    assert "writes: acrn_scenario and acrn_source are needed" in done.stdout
