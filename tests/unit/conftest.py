# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of all unit tests."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import types

import pytest

try:
    import hypothesis
except ImportError:  # ansible-test may run without it; tests that need it skip themselves
    pass
else:
    # Machines that test are slow and shared: no deadline. The long run searches longer, and elsewhere each time.
    settings = {"deadline": None, "print_blob": True, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
    hypothesis.settings.register_profile("default", derandomize=True, **settings)
    hypothesis.settings.register_profile("long", max_examples=2000, **settings)
    # ansible-test runs everything once per Python: there it is about the Python, not about more examples.
    hypothesis.settings.register_profile("ansible-test", derandomize=True, max_examples=20, database=None, **settings)
    if "ANSIBLE_TEST_ANSIBLE_LIB_ROOT" in os.environ:
        profile = "ansible-test"
    else:
        profile = "long" if os.environ.get("ACRN_IVSHMEM_LONG") else "default"
    hypothesis.settings.load_profile(profile)

if importlib.util.find_spec("ansible.module_utils.testing") is None:  # ansible-core 2.17

    @contextlib.contextmanager
    def patch_module_args(module_args=None):
        """Give a module its arguments, as the function of this name in newer versions of ansible-core does."""
        from ansible.module_utils import basic

        before = basic._ANSIBLE_ARGS
        arguments = {"_ansible_remote_tmp": "/tmp", "_ansible_keep_remote_files": False, **(module_args or {})}
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
        try:
            yield
        finally:
            basic._ANSIBLE_ARGS = before

    module = types.ModuleType("ansible.module_utils.testing")
    module.patch_module_args = patch_module_args
    sys.modules[module.__name__] = module


@pytest.fixture(scope="session", autouse=True)
def own_locks(tmp_path_factory):
    """The locks of tests, and of what they start, are not those of this machine."""
    os.environ["ACRN_IVSHMEM_LOCKS"] = str(tmp_path_factory.mktemp("locks") / "locks")
