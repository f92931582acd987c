# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs of a builder that are asked for one thing, such as their version: an exit code that is not 0 is an error.

This module util is PRIVATE to the collection: it can change at any time.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._process import run_apart
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


def ask(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a program prints that decides about the key. Raises IvshmemError where its code is not 0.

    What a program says that fails (for want of memory, say) is no answer, and neither is a warning: it would be built
    into another key.
    """
    code, text, errors = run_apart(command, environment)
    if code != 0:
        raise refused(command, code, errors or text)
    return text


def refused(command: Sequence[str], code: int, text: str) -> IvshmemError:
    """The error for a program that ends with a code, where the bytes of the build depend on it."""
    return IvshmemError(
        f"{' '.join(map(shlex.quote, command))}: ends with code {code}: {text.strip()[:200] or 'without a word'}; "
        "the bytes of the build depend on what it says"
    )


def first_line(command: Sequence[str], environment: Mapping[str, str]) -> str:
    text = ask(command, environment)
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
