# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An ivshmem function that is open: its memory (BAR2) and its doorbell (BAR0), through sysfs or VFIO.

This module util is PRIVATE to the collection: it can change at any time.

It runs in the guest and needs the standard library alone. Register layout: hypervisor/dm/vpci/ivshmem.c.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Sequence

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _functions, _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._listener import from_agent
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

DOORBELL = 0x0C
# How much of a memory is copied at a time: guests are small.
CHUNK = 1 << 20

# include/uapi/linux/vfio.h: _IO(';', 100 + n)
VFIO_GET_API_VERSION = 0x3B64
VFIO_CHECK_EXTENSION = 0x3B65
VFIO_SET_IOMMU = 0x3B66
VFIO_GROUP_GET_STATUS = 0x3B67
VFIO_GROUP_SET_CONTAINER = 0x3B68
VFIO_GROUP_GET_DEVICE_FD = 0x3B6A
VFIO_DEVICE_GET_REGION_INFO = 0x3B6C
VFIO_DEVICE_SET_IRQS = 0x3B6E
VFIO_IOMMU_TYPES = (3, 1)
VFIO_NOIOMMU = 8
VFIO_GROUP_VIABLE = 1
VFIO_MSIX = 2
VFIO_DATA_EVENTFD_TRIGGER = 0x4 | 0x20
VFIO_CONFIG_REGION = 7


def word_at(memory: mmap.mmap, offset: int) -> ctypes.c_uint32:
    """A 32-bit word that is loaded and stored in one access, as registers want it."""
    return ctypes.c_uint32.from_buffer(memory, offset)


class Mapped:
    """An ivshmem function that is open: ``memory`` is BAR2."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory

    def ring(self, peer: int, vector: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.memory.close()


class SysfsMapped(Mapped):
    """Through the resource files of sysfs: without driver, or with a uio one."""

    def __init__(self, kernel: _kernel.Kernel, function: _functions.Function, writable: bool = True) -> None:
        self.folder = kernel.path(function.sysfs)
        if not function.enabled:
            raise IvshmemError(
                f"function {function.bdf} does not answer to memory accesses: no driver has enabled it; bind it "
                "with guest_device"
            )
        super().__init__(self._map("resource2", function.size, writable))

    def _map(self, name: str, size: int, writable: bool) -> mmap.mmap:
        path = os.path.join(self.folder, name)
        try:
            handle = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
            try:
                protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
                # The length of the BAR exactly: the kernel refuses any more (EINVAL).
                return mmap.mmap(handle, size, mmap.MAP_SHARED, protection)
            finally:
                os.close(handle)
        except OSError as exc:
            hint = ""
            if exc.errno == errno.EPERM:
                hint = ": is the kernel locked down (Secure Boot)?"
            elif exc.errno == errno.EACCES:
                hint = ": root is needed (become: true), or membership in the group given to guest_device"
            elif exc.errno == errno.EINVAL:
                hint = ": does vfio-pci hold the function?"
            raise IvshmemError(f"{path} cannot be mapped: {exc.strerror}{hint}") from exc
        except (ValueError, OverflowError) as exc:
            raise IvshmemError(f"{path} cannot be mapped: it is shorter than the {size} bytes of its BAR") from exc

    def ring(self, peer: int, vector: int) -> None:
        registers = self._map("resource0", 256, True)
        try:
            word = word_at(registers, DOORBELL)
            word.value = peer << 16 | vector
            del word
        finally:
            registers.close()


def _ioctl(handle: int, request: int, argument: int | bytearray, what: str) -> int:
    """The return value of the call; a bytearray is changed in place (for bytes Python would return a copy)."""
    try:
        return int(fcntl.ioctl(handle, request, argument))
    except OSError as exc:
        raise IvshmemError(f"vfio: {what}: {exc.strerror}") from exc


class VfioMapped(Mapped):
    """Through VFIO: a group that is opened here, or a device that the running agent hands over.

    A group can be open once only, so while an agent listens for interrupts everybody else goes through it.
    """

    def __init__(self, kernel: _kernel.Kernel, function: _functions.Function) -> None:
        self.handles: list[int] = []
        self.device = -1
        try:
            device = from_agent(kernel, function.address)
            self.device = self._open(kernel, function) if device is None else device
            self.handles.append(self.device)
            config = self._region(VFIO_CONFIG_REGION)[1]
            command = struct.unpack("<H", os.pread(self.device, 2, config + 4))[0]
            # Memory decoding for the mapping, bus mastering for MSI-X.
            os.pwrite(self.device, struct.pack("<H", command | 0x06), config + 4)
            size, offset = self._region(2)
            super().__init__(mmap.mmap(self.device, size, offset=offset))
        except OSError as exc:
            self._close_handles()
            raise IvshmemError(f"function {function.bdf} cannot be used through vfio: {exc.strerror}") from exc
        except IvshmemError:
            self._close_handles()
            raise

    def _open(self, kernel: _kernel.Kernel, function: _functions.Function) -> int:
        node = _functions.vfio_node(kernel, function)
        if node is None:
            raise IvshmemError(f"function {function.bdf} has no node in /dev/vfio: bind it with guest_device")
        container = os.open(kernel.path("/dev/vfio/vfio"), os.O_RDWR | os.O_CLOEXEC)
        self.handles.append(container)
        try:
            group = os.open(kernel.path(node), os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                raise IvshmemError(f"{node} is in use by another program: stop that program first") from exc
            raise
        self.handles.append(group)
        status = bytearray(struct.pack("<II", 8, 0))
        _ioctl(group, VFIO_GROUP_GET_STATUS, status, "group status")
        if not struct.unpack("<II", bytes(status))[1] & VFIO_GROUP_VIABLE:
            raise IvshmemError(f"{node}: other functions of its IOMMU group are bound to other drivers")
        _ioctl(group, VFIO_GROUP_SET_CONTAINER, bytearray(struct.pack("<i", container)), "set container")
        wanted = (VFIO_NOIOMMU,) if "noiommu" in node else VFIO_IOMMU_TYPES
        kind = next((k for k in wanted if fcntl.ioctl(container, VFIO_CHECK_EXTENSION, k)), None)
        if kind is None:
            raise IvshmemError("the kernel offers no IOMMU type that this collection knows")
        _ioctl(container, VFIO_SET_IOMMU, kind, "set IOMMU type")
        name = bytearray(function.address.encode() + b"\0")
        return _ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name, f"open {function.bdf}")

    def _region(self, index: int) -> tuple[int, int]:
        """Size and file offset of a VFIO region."""
        info = bytearray(struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
        _ioctl(self.device, VFIO_DEVICE_GET_REGION_INFO, info, f"region {index}")
        fields = struct.unpack("<IIIIQQ", bytes(info))
        return fields[4], fields[5]

    def ring(self, peer: int, vector: int) -> None:
        # vfio carries out an aligned write of four bytes as one 32-bit access.
        os.pwrite(self.device, struct.pack("<I", peer << 16 | vector), self._region(0)[1] + DOORBELL)

    def interrupts(self, events: Sequence[int]) -> None:
        """Tie MSI-X vector i to events[i]."""
        size = 20 + 4 * len(events)
        request = struct.pack("<IIIII", size, VFIO_DATA_EVENTFD_TRIGGER, VFIO_MSIX, 0, len(events))
        request += struct.pack(f"<{len(events)}i", *events)
        _ioctl(self.device, VFIO_DEVICE_SET_IRQS, bytearray(request), "MSI-X")

    def _close_handles(self) -> None:
        while self.handles:
            os.close(self.handles.pop())

    def close(self) -> None:
        super().close()
        self._close_handles()


def opened(kernel: _kernel.Kernel, function: _functions.Function, writable: bool = True) -> Mapped:
    if function.driver == _kernel.VFIO:
        return VfioMapped(kernel, function)
    return SysfsMapped(kernel, function, writable)
