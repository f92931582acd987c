# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.acrn.ivshmem.plugins.modules import launch_state
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Contract
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._light_action import LightAction, bundle


class ActionModule(LightAction):
    """Runs the module without what it has no need of."""

    module = launch_state
    contract = Contract(launch_state.RETURN)
    parts = bundle(launch_state)
