# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What docs/fleet.md says of ansible-runner, ansible-pull and ansible-builder, with the tools themselves."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT, command, sample

SITE = "- name: Match the declaration\n  ansible.builtin.import_playbook: acrn.ivshmem.site\n"


def run(folder, *words):
    """What a command printed; it must end well."""
    done = command(folder, *words)
    assert done.returncode == 0, done.stdout
    return done.stdout


def recap(output):
    """Host -> count of changes, of the last recap in an output."""
    last = output[output.rindex("PLAY RECAP") :]
    assert "failed=0" in last, output
    return {host: int(count) for host, count in re.findall(r"^(\S+) +: .*changed=(\d+)", last, re.M)}


def make_plant(folder, state):
    """An inventory of one Service VM that is configured where it runs. Returns the script of its VM to be."""
    folder.mkdir(parents=True)
    host = {
        **sample(folder),
        "ivshmem_regions": ["dm:/log, 2, 2:3"],
        "scenario_directory": str(state / "scenarios"),
        "launch_dir": str(state / "launch"),
        "launch_hypervisor_manifest": "",
        "launch_units": False,
        "launch_vms": [{"name": "VM1", "memory": 512, "disks": [{"path": "/var/lib/acrn/VM1.img"}]}],
    }
    inventory = {"acrn_hosts": {"hosts": {"press-1": host}}, "acrn_guests": {"hosts": {}}}
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    return state / "launch/VM1.sh"


def test_runner(tmp_path):
    script = make_plant(tmp_path / "inventory", tmp_path / "state")
    (tmp_path / "project").mkdir()
    # ROOT ends in ansible_collections/acrn/ivshmem.
    (tmp_path / "project/collections").symlink_to(ROOT.parents[2])
    (tmp_path / "env").mkdir()
    (tmp_path / "env/envvars").write_text("ANSIBLE_COLLECTIONS_PATH: collections\n")
    words = ("ansible-runner", "run", ".", "-p", "acrn.ivshmem.site", "--inventory", "inventory/inventory.yml")
    assert recap(run(tmp_path, *words))["press-1"] > 0
    assert "ivshmem,dm:/log,2" in script.read_text()
    assert set(recap(run(tmp_path, *words)).values()) == {0}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_pull(tmp_path):
    repository = tmp_path / "plant.git"
    script = make_plant(repository, tmp_path / "state")
    (repository / "local.yml").write_text(SITE)
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "A plant")):
        run(repository, *git, *words)
    words = ("ansible-pull", "-U", f"file://{repository}", "-d", str(tmp_path / "plant"), "-i", "inventory.yml")
    words = (*words, "--limit", "press-1,localhost")
    assert recap(run(tmp_path, *words))["press-1"] > 0
    assert "ivshmem,dm:/log,2" in script.read_text()
    assert set(recap(run(tmp_path, *words)).values()) == {0}


def test_builder(tmp_path):
    # The definition as the document has it, with the artefact that it names.
    document = (ROOT / "docs/fleet.md").read_text()
    definition = re.search(r"```yaml\n(version: 3\n.*?)```", document, re.S).group(1)
    artefact = re.search(r"name: (acrn-ivshmem-\S+\.tar\.gz)", definition).group(1)
    definition = definition.replace("{{ your base image }}", "localhost/base:1")
    (tmp_path / "execution-environment.yml").write_text(definition)
    run(tmp_path, "ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(tmp_path))
    assert (tmp_path / artefact).exists(), "docs/fleet.md names another version than galaxy.yml"
    # Without a name it depends on what the machine has: podman's or docker's.
    run(tmp_path, "ansible-builder", "create", "--output-filename", "Containerfile")
    assert "FROM $EE_BASE_IMAGE" in (tmp_path / "context/Containerfile").read_text()
    assert (tmp_path / "context/_build" / artefact).exists()
    # In the image that this file builds, the builder asks the installed collections what they need.
    install = ("ansible-galaxy", "collection", "install", "--offline", "--force", artefact, "-p", "installed")
    run(tmp_path, *install)
    needs = yaml.safe_load(run(tmp_path, "ansible-builder", "introspect", "installed"))
    assert [line.split()[0] for line in needs["system"]] == ["openssh-client", "openssh-clients"], needs
    assert not needs.get("python"), needs
