# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of a launch script, from the template of the role launch or of its user.

This plugin util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _templates

TEMPLATE = "roles/launch/templates/vm.sh.j2"


def word(value: Any) -> str:
    """A word of a Bash array, always in quotes: what an unquoted comma means there is not plain to every reader."""
    text = str(value)
    quoted = shlex.quote(text)
    return f"'{text}'" if quoted == text else quoted


def values(parts: Iterable[Any]) -> str:
    """The parts of an argument that are there, with acrn-dm's commas between them."""
    return ",".join(str(part) for part in parts if part is not None)


def renderer(template: str = "") -> Callable[[Mapping[str, Any]], str]:
    """A function from _vms.values() to the text of a script. It raises IvshmemError."""
    filters = {"word": word, "quote": lambda value: shlex.quote(str(value)), "values": values}
    return _templates.renderer("launch_template", TEMPLATE, template, filters=filters)
