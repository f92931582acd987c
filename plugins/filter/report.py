# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters of the playbook report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.acrn.ivshmem.plugins.module_utils import _report


def report_page(
    hosts: Iterable[Mapping[str, Any]], verified: Mapping[str, Any], made: str, style: str, script: str
) -> str:
    """A page of HTML about hosts."""
    return _report.page(_report.hosts_of(hosts, verified), made, str(verified.get("time") or ""), style, script)


def report_mermaid(hosts: Iterable[Mapping[str, Any]]) -> str:
    """The same as a Mermaid flowchart."""
    return _report.mermaid(_report.hosts_of(hosts, {}))


class FilterModule:
    """Filters of the playbook report."""

    def filters(self) -> dict[str, Any]:
        return {"report_page": report_page, "report_mermaid": report_mermaid}
