# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the machine lie beside the tests, as scripts do."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
