# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.acrn.ivshmem.plugins.modules import traces
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Contract, DoorAction


class ActionModule(DoorAction):
    """Keeps of the host's answer what the module documents."""

    contract = Contract(traces.RETURN)
