# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept of the answers of modules that are not ours."""

from __future__ import annotations

import os

import pytest
from ansible import modules

from ansible_collections.acrn.ivshmem.plugins.action import guarded
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door

LIE = {"ansible_facts": {"launch_generator_host": "localhost"}, "add_host": {"host_name": "x"}, "_ansible_x": 1}
HONEST = {
    "command": {"cmd": ["true"], "rc": 0, "stdout": "a", "stdout_lines": ["a"], "stderr": "", "msg": ""},
    "copy": {"dest": "/a", "mode": "0644", "uid": 0, "checksum": "1"},
    "find": {"files": [{"path": "/a", "size": 1}], "matched": 1, "examined": 1, "skipped_paths": {}},
    "git": {"before": None, "after": "a", "warnings": ["old"]},
    "group": {"gid": 5, "name": "a", "state": "present", "system": True},
    "pip": {"cmd": ["pip", "install"], "name": ["a"], "version": None, "virtualenv": "/v"},
    "raw": {"rc": 0, "stdout": "a\n", "stdout_lines": ["a"], "stderr": "", "stderr_lines": []},
    "slurp": {"content": "YQ==", "encoding": "base64", "source": "/a"},
    "systemd_service": {"status": {"ActiveState": "active"}},
    "tempfile": {"path": "/tmp/a"},
}


def contract(name):
    return guarded._contract(os.path.join(modules.__path__[0], f"{name}.py"), name)


@pytest.mark.parametrize("name", sorted(HONEST))
def test_what_the_module_documents_is_kept_and_nothing_else(name):
    answer = {"changed": True, **HONEST[name]}
    assert contract(name).admit({**answer, **LIE}) == answer


@pytest.mark.parametrize("name", ["fetch", "file", "reboot", "wait_for_connection"])
def test_modules_that_tell_nothing_that_is_used(name):
    assert contract(name).admit({"changed": True, **LIE}) == {"changed": True}


def test_a_wrong_type_is_refused():
    with pytest.raises(_door.Refused, match="path is a dictionary"):
        contract("tempfile").admit({"changed": True, "path": {"a": 1}})
