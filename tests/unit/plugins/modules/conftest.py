# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the tests of modules."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def on_a_target(monkeypatch):
    """Let modules run as on a target, also where another test has imported parts of the controller.

    From ansible-core 2.19 on a module in a controller's process prints its warnings instead of returning them.
    """
    try:
        from ansible.module_utils import _internal
    except ImportError:  # ansible-core 2.17
        return
    monkeypatch.setattr(_internal, "is_controller", False, raising=False)
