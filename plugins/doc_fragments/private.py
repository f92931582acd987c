# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is documented, and not for others than the roles and playbooks of the collection."""

from __future__ import annotations


class ModuleDocFragment:
    # script/docs puts who has this apart.
    DOCUMENTATION = r"""
options: {}
notes:
  - This is PRIVATE to the collection, a part of its roles and playbooks. It can change at any time.
"""
