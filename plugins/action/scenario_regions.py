# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.acrn.ivshmem.plugins.modules import scenario_regions
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Contract
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._light_action import LightAction, bundle


class ActionModule(LightAction):
    """Runs the module without what it has no need of."""

    module = scenario_regions
    contract = Contract(scenario_regions.RETURN)
    parts = bundle(scenario_regions)
    in_process = True
