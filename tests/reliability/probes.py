# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest with one region whose memory is a file, for proofs that are attacked."""

from __future__ import annotations

from ansible_collections.acrn.ivshmem.tests.reliability import target

ADDRESS = "0000:00:06.0"
DEVICE = {"name": "a", "bdf": "00:06.0", "size": 2}
FOLDER = f"sys/bus/pci/devices/{ADDRESS}"
MEMORY = bytes(range(256)) * 8192


def guest(folder):
    """The directory of a guest that uses its region."""
    root = folder / "w"
    target.StoredKernel(root).build({"address": ADDRESS, "size": 2, "driver": "uio_pci_generic"})
    config = bytearray((root / FOLDER / "config").read_bytes())
    config[4] |= 2  # the driver has enabled it
    (root / FOLDER / "config").write_bytes(config)
    (root / FOLDER / "resource2").write_bytes(MEMORY)
    return root


def memory(root):
    return (root / FOLDER / "resource2").read_bytes()


def step(operation, **others):
    return {"operation": operation, "device": DEVICE, **others}
