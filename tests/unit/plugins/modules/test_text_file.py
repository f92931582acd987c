# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module text_file."""

from __future__ import annotations

import errno
import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.modules import text_file


class Exit(Exception):
    """The module ended; the first argument is its result."""


@pytest.fixture(name="run")
def _run(monkeypatch, documented):
    def end(_module, **result):
        documented(text_file.RETURN, result)
        raise Exit(result)

    monkeypatch.setattr(text_file.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(
        text_file.AnsibleModule, "fail_json", lambda module, **result: end(module, failed=True, **result)
    )

    def run(path, content, **more):
        with patch_module_args({"path": str(path), "content": content, **more}), pytest.raises(Exit) as ended:
            text_file.main()
        return ended.value.args[0]

    return run


def test_a_text_is_kept_once(run, tmp_path):
    path = tmp_path / "proof.json"
    assert run(path, "a\u00e4\n", _ansible_check_mode=True)["changed"]
    assert not path.exists()
    assert run(path, "a\u00e4\n") == {"changed": True, "path": str(path), "size": 4}
    path.chmod(0o600)
    assert not run(path, "a\u00e4\n")["changed"]
    result = run(path, "b\n", _ansible_diff=True)
    assert (result["diff"]["before"], result["diff"]["after"]) == ("a\u00e4\n", "b\n")
    assert path.read_text() == "b\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [path.name]


def test_in_check_mode_the_directory_may_be_still_to_come(run, tmp_path):
    assert run(tmp_path / "pages" / "report.html", "a", _ansible_check_mode=True)["changed"]
    assert not (tmp_path / "pages").exists()


def test_directories_on_the_way_are_made(run, tmp_path):
    path = tmp_path / "out" / "pages" / "report.html"
    assert run(path, "a")["changed"] and not run(path, "a")["changed"]
    assert path.read_text() == "a" and os.listdir(path.parent) == [path.name]


def test_what_is_no_text_is_json(run, tmp_path):
    run(tmp_path / "plan.json", [{"host": "h1"}])
    assert json.loads((tmp_path / "plan.json").read_text()) == [{"host": "h1"}]


def test_a_link_stays_one(run, tmp_path):
    (tmp_path / "link").symlink_to("page")
    (tmp_path / "page").write_text("old")
    assert run(tmp_path / "link", "new")["changed"]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "page").read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_error_names_the_file_and_leaves_it(run, tmp_path, monkeypatch, number):
    path = tmp_path / "page"
    path.write_text("old")

    def fail(_handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    result = run(path, "new")
    assert result["failed"]
    assert result["msg"] == f"{path}: cannot be written: {os.strerror(number)}; it was not changed"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_place_that_cannot_be(run, tmp_path):
    (tmp_path / "no").write_text("")
    assert run(tmp_path / "no/page", "x")["msg"] == f"{tmp_path}/no/page: its directory cannot be made: File exists"
    assert "is not a regular file" in run(tmp_path, "x")["msg"]
