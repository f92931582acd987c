# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel, _probe
from ansible_collections.acrn.ivshmem.plugins.modules import guest_probe
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel

A = "0000:00:06.0"
DEVICE = {"name": "shm", "bdf": "00:06.0", "size": 2}


@pytest.fixture
def memory(tmp_path, monkeypatch):
    guest = FakeKernel(tmp_path / "guest")
    guest.add(A, driver=_kernel.UIO)
    guest.put(f"{_kernel.SYSFS}/devices/{A}/resource2", os.urandom(2 << 20))
    monkeypatch.setattr(_kernel, "Kernel", lambda: guest)
    return guest.path(f"{_kernel.SYSFS}/devices/{A}/resource2")


def content(path):
    with open(path, "rb") as handle:
        return handle.read()


@pytest.fixture
def execute(capsys):
    def run(*steps, check=False, **params):
        arguments = {"steps": list(steps), **params, "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            guest_probe.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_write_and_restore(memory, execute):
    before = content(memory)
    result = execute({"operation": "write", "device": DEVICE})
    assert result["changed"] and set(result["results"][0]["record"]) == {"offset", "length", "token_length", "seed"}
    assert content(memory) != before
    result = execute({"operation": "restore", "device": DEVICE})
    assert result["changed"] and content(memory) == before
    assert not execute({"operation": "restore", "device": DEVICE})["changed"]


def test_check_mode_is_all_reading(memory, execute):
    before = content(memory)
    result = execute(
        {"operation": "write", "device": DEVICE},
        {"operation": "hash", "device": DEVICE, "nonce": "ab" * 16},
        check=True,
    )
    assert not result["changed"] and content(memory) == before
    assert [each["skipped"] for each in result["results"]] == [True, False]


def test_problem_fails_unless_it_is_only_to_be_told(memory, execute):
    wrong = {"operation": "read", "device": DEVICE, "seed": "ab" * 32}
    result = execute(wrong)
    assert result["failed"]
    assert result["msg"].startswith(
        "read shm (00:06.0): bytes: expected what was written at 2093056, 4096 bytes, found "
    )
    assert result["results"][0]["problems"]
    told = execute(wrong, strict=False)
    assert not told.get("failed") and told["results"][0]["problems"] == result["results"][0]["problems"]


def test_device_that_cannot_be_meant(memory, execute):
    assert "give vbdf" in execute({"operation": "check", "device": {"name": "x"}})["msg"]


def test_every_operation_is_documented_and_known():
    assert set(guest_probe.STEP_OPTIONS["operation"]["choices"]) == set(_probe.STEPS)
    assert set(_probe.WRITING) < set(_probe.STEPS)


def test_who_is_not_root_is_told_so(memory, execute, monkeypatch):
    def refuse(_self, path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(FakeKernel, "remove", refuse)
    result = execute({"operation": "write", "device": DEVICE})
    assert result["failed"]
    assert result["msg"] == "/run/acrn-ivshmem/proof: Permission denied: root is needed (become: true)"
    monkeypatch.setattr(FakeKernel, "remove", lambda *_: None)
    monkeypatch.setattr(FakeKernel, "replace", lambda self, path, _text, mode=0: refuse(self, path))
    (result,) = execute({"operation": "write", "device": DEVICE}, strict=False)["results"]
    assert "root is needed (become: true)" in result["problems"][0]["found"]


def test_a_proof_is_kept_until_a_step_writes_or_another_takes_its_place(memory, execute):
    def kept(*steps, **params):
        result = execute(*steps, **params)
        assert not result.get("failed"), result
        return _kernel.proof(_kernel.Kernel())["proof"]

    _kernel.Kernel().put(_kernel.BOOT_ID, "this one\n")
    assert execute()["boot_id"] == "this one"
    assert kept(proof="a") == kept() == kept(proof="b", check=True) == kept(proof="", check=True) == "a"
    assert kept(proof="") is None and kept(proof="") is None
    assert kept(proof="b") == "b"
    assert kept({"operation": "write", "device": DEVICE}) is None


def test_thousands_of_problems_are_no_message_of_thousands_of_lines(memory, execute):
    bad = {"operation": "check", "device": {"name": "x" * 20, "vbdf": "00:1f.0"}}
    result = execute(*[bad] * 3000)
    assert result["failed"] and len(result["results"]) == 3000
    assert len(result["msg"]) < 20_000 and "more" in result["msg"].splitlines()[-1]
