# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.acrn.ivshmem.plugins.filter import words as filters

DEFAULTS = filters.builder_settings({})


def test_a_builder_has_its_own_variables_or_the_defaults():
    assert DEFAULTS["hypervisor_artifacts_dir"] == "/var/lib/acrn-ivshmem/artifacts"
    assert DEFAULTS["hypervisor_release"] is None and "hypervisor_key" not in DEFAULTS
    found = filters.builder_settings({"hypervisor_artifacts_dir": "/mine", "hypervisor_venv": None, "other": 1})
    assert found == {**DEFAULTS, "hypervisor_artifacts_dir": "/mine"}


def test_variables_of_the_host_that_asks_are_not_the_builders_and_those_of_the_play_are():
    builder = {"hypervisor_source": "/builder", "hypervisor_repo": "of builder"}
    asking = {"hypervisor_source": "/host", "hypervisor_work_dir": "/host"}
    here = {
        **DEFAULTS,
        **asking,
        "hypervisor_release": "",
        "hypervisor_repo": "of play",
        "hypervisor_make_args": ["V=1"],
    }
    assert filters.builder_settings(builder, asking, here) == {
        **DEFAULTS,
        "hypervisor_source": "/builder",
        "hypervisor_repo": "of play",
        "hypervisor_make_args": ["V=1"],
    }
