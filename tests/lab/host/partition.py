# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a partition table (GPT) and GRUB's boot sector for BIOS into the file of a disk, without any device.

partition.py DISK BOOT_IMG CORE_IMG
"""

from __future__ import annotations

import struct
import sys
import uuid
import zlib

SECTOR = 512
MIB = 2048  # sectors
ENTRIES = 128
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
# Type, first sector, last sector.
PARTITIONS = [
    (BIOS_BOOT, 1 * MIB, 2 * MIB - 1),
    (EFI_SYSTEM, 2 * MIB, 18 * MIB - 1),
    (LINUX, 18 * MIB, 1218 * MIB - 1),
]


def table(sectors: int) -> tuple[bytes, bytes, bytes]:
    """The primary header, the entries, and the backup header, for a disk of so many sectors."""
    entries = b""
    for kind, first, last in PARTITIONS:
        entries += uuid.UUID(kind).bytes_le + uuid.uuid4().bytes_le + struct.pack("<QQQ72x", first, last, 0)
    entries = entries.ljust(ENTRIES * 128, b"\0")
    disk = uuid.uuid4().bytes_le

    def header(own: int, other: int, where: int) -> bytes:
        def pack(crc: int) -> bytes:
            usable = (34, sectors - 34)
            tail = struct.pack("<QIII", where, ENTRIES, 128, zlib.crc32(entries))
            return struct.pack("<8sIIIIQQQQ", b"EFI PART", 0x10000, 92, crc, 0, own, other, *usable) + disk + tail

        return pack(zlib.crc32(pack(0)))

    return header(1, sectors - 1, 2), entries, header(sectors - 1, 1, sectors - 33)


def main(disk_path: str, boot_path: str, core_path: str) -> None:
    with open(boot_path, "rb") as handle:
        boot = bytearray(handle.read())
    with open(core_path, "rb") as handle:
        core = bytearray(handle.read())
    first = PARTITIONS[0][1]
    # As grub-bios-setup does: the boot sector finds core.img, and the first sector of that finds the others.
    struct.pack_into("<Q", boot, 0x5C, first)
    boot[0x66:0x68] = b"\x90\x90"  # the drive is the one that the BIOS booted from
    struct.pack_into("<QHH", core, 0x1F4, first + 1, (len(core) + SECTOR - 1) // SECTOR - 1, 0x820)
    with open(disk_path, "r+b") as disk:
        sectors = disk.seek(0, 2) // SECTOR
        header, entries, backup = table(sectors)
        protective = struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, sectors - 1)
        for at, data in (
            (0, bytes(boot[:440]).ljust(446, b"\0") + protective.ljust(64, b"\0") + b"\x55\xaa"),
            (1, header),
            (2, entries),
            (first, bytes(core)),
            (sectors - 33, entries),
            (sectors - 1, backup),
        ):
            disk.seek(at * SECTOR)
            disk.write(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
