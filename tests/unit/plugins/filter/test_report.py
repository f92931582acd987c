# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.acrn.ivshmem.plugins.filter import report as filters


def test_a_proof_is_read(tmp_path):
    path = tmp_path / "verify.json"
    path.write_text('{"pairs": [], "problems": []}')
    assert filters.report_proof(str(path)) == {"pairs": [], "problems": []}


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_a_proof_that_cannot_be_read_is_named_with_the_mend(tmp_path, content):
    path = tmp_path / "verify.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AnsibleFilterError, match=r"give the file that acrn\.ivshmem\.verify has") as caught:
        filters.report_proof(str(path))
    assert str(path) in str(caught.value)
