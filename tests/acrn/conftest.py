# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the machine lie beside the tests, as scripts do."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="session")
def boots(tmp_path_factory):
    """Boot a machine, once for all tests that want it: what the collection made of it, and what its VMs said."""
    import devicemodel
    import emulator
    import image
    import real

    done = {}

    def booted(name, wanted):
        if real.source(wanted.version) is None:
            pytest.skip(f"ACRN_SRC has no ACRN v{wanted.text}")
        parts = [emulator.missing(), image.missing(), "" if wanted.service is None else devicemodel.missing()]
        if any(parts):
            pytest.skip(f"Debian packages are missing: {' '.join(filter(None, parts))}")
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            # A machine that failed is not booted again for each test of it.
            done[name] = None
            built = real.made(wanted, folder)
            told = real.boot(built, folder)
            print(f"{name}: {told.cpu:.0f} CPU s; {folder}/run/serial.log")
            done[name] = built, told
        if done[name] is None:
            pytest.fail(f"{name} has failed before")
        return done[name]

    return booted
