# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the tests of modules."""

from __future__ import annotations

import sys

import pytest
from ansible.module_utils import basic

from ansible_collections.acrn.ivshmem.plugins.module_utils._boot import _install
from ansible_collections.acrn.ivshmem.plugins.modules import hypervisor_info, hypervisor_install

try:
    # Here, since it makes this process a controller's: not in the midst of a test, behind on_a_target's back.
    from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door
except (ImportError, SyntaxError):  # a Python that is no controller's
    _door = None


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


def _unlike(given, kept):
    """Where a result has more than what was kept of it, or something else."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [f".{key}{rest}" for key in given for rest in _unlike(given[key], kept.get(key, "(left out)"))]
    if isinstance(given, (list, tuple)) and isinstance(kept, list) and len(given) == len(kept):
        return [f"[]{rest}" for pair in zip(given, kept) for rest in _unlike(*pair)]
    return [] if given == kept else [f": {kept!r}"]


def documented(returns, result):
    """See that a result is what the module documents: the controller keeps nothing else of a host's answer."""
    if _door is None:
        return
    own = ("invocation", "diff", "warnings", "deprecations", "exception", "_missing")
    given = {key: value for key, value in result.items() if key not in own and not key.startswith("_ansible")}
    assert not _unlike(given, _door.Contract(returns).admit(given))


@pytest.fixture(name="documented")
def _documented():
    return documented


@pytest.fixture(autouse=True)
def results_are_documented(monkeypatch):
    """Hold every result of a module against its RETURN."""

    def checked(end, failed):
        def call(self, *args, **result):
            # What AnsibleModule itself refuses is no result of the module.
            module = sys._getframe(1).f_globals
            if "RETURN" in module:
                documented(module["RETURN"], {"changed": False, **result, **({"failed": True} if failed else {})})
            return end(self, *args, **result)

        return call

    for ending in ("exit_json", "fail_json"):
        own = getattr(basic.AnsibleModule, ending)
        monkeypatch.setattr(basic.AnsibleModule, ending, checked(own, ending == "fail_json"))

    def held(owner, name, module):
        own = getattr(owner, name)

        def call(*args, **options):
            result = own(*args, **options)
            documented(module.RETURN, result)
            return result

        monkeypatch.setattr(owner, name, call)

    held(_install, "work", hypervisor_install)
    held(hypervisor_info, "look", hypervisor_info)
