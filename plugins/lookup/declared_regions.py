# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup that joins what the inventory says of the regions of a host."""

from __future__ import annotations

DOCUMENTATION = """
name: declared_regions
short_description: Join the regions that the inventory declares for a host
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
extends_documentation_fragment:
  - acrn.ivshmem.private
description:
  - For the roles of this collection. Joins C(ivshmem_regions), C(ivshmem_group_regions) and C(ivshmem_host_regions),
    one behind the other.
  - Of several groups of a host that set C(ivshmem_group_regions), Ansible alone would take one. Here all of them count,
    in Ansible's order. What a host itself, a play or C(-e) sets replaces them, as usual.
  - A variable that is not set, or null, says nothing of what a host shall have. Only an empty list says that it shall
    have no region.
options:
  _terms:
    description: There are none.
  together:
    description: Whether what is wrong with the variables is returned, to be told with other mistakes, and is no error.
    type: bool
    default: false
"""

EXAMPLES = """
- name: See what the inventory declares
  ansible.builtin.debug:
    msg: "{{ lookup('acrn.ivshmem.declared_regions').regions }}"
"""

RETURN = """
_value:
  description:
    - One mapping with the C(regions), with C(declared_in), which says of each of them where it stands, with
      C(unset), why they say nothing (empty where they say all), and with C(mistakes), what is wrong with the variables.
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.helpers import sort_groups
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible.vars.plugins import get_vars_from_inventory_sources

from ansible_collections.acrn.ivshmem.plugins.module_utils import _words
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _variables

GROUPS = "ivshmem_group_regions"
NAMES = ("ivshmem_regions", GROUPS, "ivshmem_host_regions")
display = Display()


def of_groups(variables: dict[str, Any], loader: Any) -> list[tuple[str, Any]]:
    """The groups of the host that set the variable of groups, with the value of each as it stands there."""
    # Ansible has no public way to the variables of one group.
    inventory = variables["hostvars"]._inventory
    found = []
    for group in sort_groups(inventory.get_host(variables["inventory_hostname"]).get_groups()):
        # As in Ansible, files beside the inventory beat what stands in it.
        beside = get_vars_from_inventory_sources(loader, inventory._sources, [group], "task")
        own = {**group.get_vars(), **beside}
        if GROUPS in own:
            found.append((group.name, own[GROUPS]))
    return found


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core has no types
    """The lookup."""

    def run(self, terms: Any, variables: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        try:
            return [{**_words.joined(self._values(variables)), "mistakes": []}]
        except IvshmemError as exc:
            if not kwargs.get("together"):
                raise AnsibleError(str(exc)) from None
            return [{**_words.joined([]), "unset": "", "mistakes": [str(exc)]}]

    def _values(self, variables: Any) -> list[tuple[str, Any]]:
        values: list[tuple[str, Any]] = []
        for name in NAMES:
            several = self._groups(variables) if name == GROUPS and GROUPS in variables else []
            if several:
                values += several
            else:
                values.append((name, self._value(name, variables[name]) if name in variables else False))
        return values

    def _value(self, name: str, value: Any) -> Any:
        try:
            return self._templar.template(value)
        except AnsibleError as exc:
            raise IvshmemError(f"{name} cannot be worked out: {_variables.said(exc)}") from None

    def _groups(self, variables: dict[str, Any]) -> list[tuple[str, Any]]:
        """The values of several groups. Nothing where one alone counts, or where something else beats all of them."""
        try:
            found = of_groups(variables, self._loader)
        except (AttributeError, KeyError, TypeError) as exc:
            display.warning(
                f"This ansible-core does not tell what each group sets ({exc!r}). Of several groups that set {GROUPS}, "
                "one alone counts."
            )
            return []
        distinct = [
            each for index, each in enumerate(found) if each[1] not in [value for _name, value in found[:index]]
        ]
        if len(distinct) < 2 or variables[GROUPS] not in [value for _name, value in distinct]:
            return []
        return [(f"group {name}: {GROUPS}", self._value(f"group {name}: {GROUPS}", value)) for name, value in distinct]
