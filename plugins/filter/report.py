# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters of the playbook report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import open_regular
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _report, _report_page


def report_page(
    hosts: Iterable[Mapping[str, Any]],
    verified: Mapping[str, Any],
    made: str,
    absent: Iterable[str] = (),
    template: str = "",
) -> str:
    """A page of HTML about hosts."""
    page = _report_page.view(_report.hosts_of(hosts, verified), verified, made, list(absent))
    try:
        return _report_page.render(page, template)
    except IvshmemError as exc:
        raise AnsibleFilterError(str(exc)) from None


def report_markdown(hosts: Iterable[Mapping[str, Any]], made: str, absent: Iterable[str] = ()) -> str:
    """The drawings as Markdown."""
    return _report.markdown(_report.hosts_of(hosts, {}), made, list(absent))


def report_proof(path: str) -> dict[str, Any]:
    """The report of the role verify, from its file."""
    # Ansible would tell a cause as well, and all of it twice.
    try:
        with open_regular(path) as handle:
            return _report.proof(handle.read().decode("utf-8", "replace"), path)
    except OSError as exc:
        raise AnsibleFilterError(f"{path}: {exc.strerror}; {_report.MEND}") from None
    except IvshmemError as exc:
        raise AnsibleFilterError(str(exc)) from None


class FilterModule:
    """Filters of the playbook report."""

    def filters(self) -> dict[str, Any]:
        return {"report_page": report_page, "report_markdown": report_markdown, "report_proof": report_proof}
