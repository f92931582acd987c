# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What smoke.py runs inside a guest, over ssh: the shared memory and the doorbell of one ivshmem function, by hand.

    write BDF OFFSET TEXT        into the memory (resource2)
    read BDF OFFSET LENGTH       from the memory
    ring BDF PEER VECTOR...      write the doorbell register (resource0)
    receive BDF COUNT SECONDS    take the function by vfio-pci and print the vectors of COUNT interrupts as they come

Written apart from the collection's own code on purpose, so that the one can be checked by the other.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import struct
import subprocess
import sys
import time

SYSFS = "/sys/bus/pci/devices/0000:"
DOORBELL = 0x0C
IV_POSITION = 0x08
VECTORS = 8
# linux/vfio.h: ioctls are _IO(';', 100 + n)
SET_IOMMU, SET_CONTAINER, GET_DEVICE, REGION_INFO, SET_IRQS = (0x3B64 + n for n in (2, 4, 6, 8, 10))
TYPE1V2 = 3
CONFIG_REGION, MSIX_INDEX = 7, 2
DATA_EVENTFD, ACTION_TRIGGER = 1 << 2, 1 << 5


def put(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def resource(bdf: str, number: int) -> mmap.mmap:
    with open(f"{SYSFS}{bdf}/enable") as file:
        enabled = int(file.read())
    if not enabled:  # a bound driver has done it (and then this write would fail with EBUSY)
        put(f"{SYSFS}{bdf}/enable", "1")
    with open(f"{SYSFS}{bdf}/resource{number}", "r+b") as file:
        return mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size)


def release(bdf: str, driver: str) -> None:
    """Give the function to a driver ("" for none)."""
    put(f"{SYSFS}{bdf}/driver_override", driver or "\n")
    if os.path.exists(f"{SYSFS}{bdf}/driver"):
        put(f"{SYSFS}{bdf}/driver/unbind", f"0000:{bdf}")
    if driver:
        put("/sys/bus/pci/drivers_probe", f"0000:{bdf}")


def receive(bdf: str, count: int, seconds: float) -> None:
    subprocess.run(["modprobe", "-a", "vfio-pci", "vfio_iommu_type1"], check=True)
    release(bdf, "vfio-pci")
    group_path = f"/dev/vfio/{os.path.basename(os.readlink(SYSFS + bdf + '/iommu_group'))}"
    deadline = time.monotonic() + 5
    while not os.path.exists(group_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    group = os.open(group_path, os.O_RDWR)
    fcntl.ioctl(group, SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, TYPE1V2)
    device = fcntl.ioctl(group, GET_DEVICE, bytearray(f"0000:{bdf}\0".encode()))
    # struct vfio_region_info: argsz, flags, index, cap_offset, size, offset
    offsets = {}
    for index in (0, 2, CONFIG_REGION):
        info = fcntl.ioctl(device, REGION_INFO, struct.pack("IIIIQQ", 32, 0, index, 0, 0, 0))
        offsets[index] = struct.unpack("IIIIQQ", info)[5]
    command = struct.unpack("<H", os.pread(device, 2, offsets[CONFIG_REGION] + 4))[0]
    os.pwrite(device, struct.pack("<H", command | 0b110), offsets[CONFIG_REGION] + 4)  # memory, bus master
    events = [os.eventfd(0, os.EFD_NONBLOCK) for _number in range(VECTORS)]
    size = 20 + 4 * VECTORS
    fcntl.ioctl(
        device,
        SET_IRQS,
        struct.pack(f"5I{VECTORS}i", size, DATA_EVENTFD | ACTION_TRIGGER, MSIX_INDEX, 0, VECTORS, *events),
    )
    position = struct.unpack("<I", os.pread(device, 4, offsets[0] + IV_POSITION))[0]
    print(f"listening as peer {position}", flush=True)
    poll = select.poll()
    for event in events:
        poll.register(event, select.POLLIN)
    deadline = time.monotonic() + seconds
    while count > 0 and time.monotonic() < deadline:
        for descriptor, _what in poll.poll(1000):
            rung = os.eventfd_read(descriptor)
            memory = os.pread(device, 32, offsets[2]).rstrip(b"\0").decode("ascii", "replace")
            print(f"vector {events.index(descriptor)} x{rung}: {memory}", flush=True)
            count -= rung
    for descriptor in (*events, device, group, container):
        os.close(descriptor)
    release(bdf, "")
    sys.exit(0 if count <= 0 else 1)


def main(argv: list[str]) -> None:
    what, bdf, *rest = argv
    if what == "write":
        memory = resource(bdf, 2)
        data = rest[1].encode()
        memory[int(rest[0]) : int(rest[0]) + len(data)] = data
    elif what == "read":
        memory = resource(bdf, 2)
        print(memory[int(rest[0]) : int(rest[0]) + int(rest[1])].rstrip(b"\0").decode())
    elif what == "ring":
        # One 32-bit store each: assigning a slice of the mmap would be memcpy(3), which stores these 4 bytes twice.
        registers = memoryview(resource(bdf, 0)).cast("I")
        for vector in rest[1:]:
            registers[DOORBELL // 4] = int(rest[0]) << 16 | int(vector)
    elif what == "receive":
        receive(bdf, int(rest[0]), float(rest[1]))


main(sys.argv[1:])
