# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated guest for unit tests: a sysfs tree of files whose writes are answered as Linux answers them.

Rules it follows: drivers/pci/pci-driver.c (new_id, remove_id, pci_match_device), drivers/base/bus.c (bind, unbind,
drivers_probe), uio_pci_generic and vfio-pci probes as far as they refuse. The lab's guests prove the real thing.
"""

from __future__ import annotations

import errno
import os
import re
import struct

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _functions, _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._binding import Wish
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._kernel import SYSFS, UIO, VFIO, Kernel

RELEASE = "6.1.0-test"


def devices(*values):
    return _functions.parse_devices([dict(value) for value in values])


def any_wish(st):
    """Wishes for the devices of a guest with functions at 6, 0x10 and 0x11; ``st`` is hypothesis.strategies."""
    choices = st.one_of(
        st.none(),
        st.lists(st.sampled_from(["00:06.0", "00:10.0", "00:11.0"]), unique=True).map(
            lambda chosen: devices(*({"name": f"n{bdf[3:5]}", "bdf": bdf} for bdf in chosen))
        ),
    )
    return st.builds(
        Wish,
        devices=choices,
        driver=st.sampled_from([UIO, VFIO]),
        method=st.sampled_from([_kernel.NEW_ID, _kernel.DRIVER_OVERRIDE]),
        present=st.booleans(),
        force=st.just(True),
        persist=st.booleans(),
        exclusive=st.booleans(),
        group=st.sampled_from([None, "ivshmem"]),
    )


def config_space(vectors):
    """A configuration space with a vendor capability first and MSI-X second, as a walk has to cope with."""
    data = bytearray(256)
    data[0x04] = 0x02
    if vectors:
        data[0x06] = 0x10
        data[0x34] = 0x40
        data[0x40:0x42] = bytes([0x09, 0x50])
        data[0x50:0x52] = bytes([0x11, 0x00])
        struct.pack_into("<H", data, 0x52, vectors - 1)
    return bytes(data)


class FakeKernel(Kernel):
    def __init__(self, root, release=RELEASE, udev=True, modules=(UIO, VFIO), loaded=(), duplicate_error=True):
        super().__init__(str(root))
        self.kernel_release = release
        self.duplicate_error = duplicate_error
        self.groups = {"root": 0, "ivshmem": 990}
        self.owners = {}
        self.ids = {}
        self.writes = []
        self.commands = []
        self.next_uio = 3
        self.put(f"{SYSFS}/drivers_probe", "")
        for name in ("devices", "drivers"):
            os.makedirs(self.path(f"{SYSFS}/{name}"), exist_ok=True)
        self.modules = set(modules)
        lines = [f"kernel/drivers/x/{name}.ko:" for name in modules]
        self.put(f"/lib/modules/{release}/modules.dep", "\n".join(["kernel/fs/ext4.ko:", *lines]) + "\n")
        if udev:
            self.put("/run/udev/control", "")
        for name in loaded:
            self.load(name)

    # building the guest

    def put(self, path, text):
        real = self.path(path)
        os.makedirs(os.path.dirname(real), exist_ok=True)
        with open(real, "wb") as handle:
            handle.write(text if isinstance(text, bytes) else text.encode())

    def add(self, address, size=2, subsystem=(0x1AF4, 0x1100), driver=None, vectors=8, iommu_group=None):
        base = f"{SYSFS}/devices/{address}"
        self.put(f"{base}/vendor", "0x1af4\n")
        self.put(f"{base}/device", "0x1110\n")
        self.put(f"{base}/subsystem_vendor", f"{subsystem[0]:#06x}\n")
        self.put(f"{base}/subsystem_device", f"{subsystem[1]:#06x}\n")
        self.put(f"{base}/driver_override", "(null)\n")
        self.put(f"{base}/config", config_space(vectors))
        slot = int(address[8:10], 16)
        bars = [(0xFEB00000 + slot * 0x1000, 256, 0x40200), (0, 0, 0), (slot << 32, size << 20, 0x14220C)]
        if vectors:
            bars[1] = (0xFEC00000 + slot * 0x1000, 4096, 0x40200)
        self.put(
            f"{base}/resource",
            "".join(f"{a:#018x} {a + s - 1 if s else 0:#018x} {f:#018x}\n" for a, s, f in bars) + "0x0 0x0 0x0\n" * 4,
        )
        for name in ("resource0", "resource2", "resource2_wc"):
            self.put(f"{base}/{name}", "")
            self.owners[f"{base}/{name}"] = (0, 0o600)
        if iommu_group:
            os.symlink(f"../../../kernel/iommu_groups/{iommu_group}", self.path(f"{base}/iommu_group"))
        if driver:
            self.load(driver)
            self.attach(address, driver)
        return address

    def load(self, driver):
        os.makedirs(self.path(f"{SYSFS}/drivers/{driver}"), exist_ok=True)
        self.ids.setdefault(driver, [])
        self.driver_attach(driver)

    def addresses(self):
        return self.names(f"{SYSFS}/devices")

    def override(self, address):
        text = self.text(f"{SYSFS}/devices/{address}/driver_override").strip()
        return None if text == "(null)" else text

    # what the kernel does

    def driver(self, address):
        return self.link(f"{SYSFS}/devices/{address}/driver")

    def matches(self, address, driver):
        override = self.override(address)
        if override:
            return override == driver
        base = f"{SYSFS}/devices/{address}"
        have = tuple(int(self.text(f"{base}/{n}"), 16) for n in ("vendor", "device"))
        have += tuple(int(self.text(f"{base}/{n}"), 16) for n in ("subsystem_vendor", "subsystem_device"))
        return any(have[: len(entry)] == entry for entry in self.ids.get(driver, []))

    def attach(self, address, driver):
        major, minor = (int(part) for part in re.match(r"(\d+)\.(\d+)", self.kernel_release).groups())
        if driver == UIO and (major, minor) < (4, 13):
            return False
        base = f"{SYSFS}/devices/{address}"
        if driver == VFIO and not self.link(f"{base}/iommu_group"):
            return False
        os.symlink(f"../../../bus/pci/drivers/{driver}", self.path(f"{base}/driver"))
        if driver == UIO:
            name, self.next_uio = f"uio{self.next_uio}", self.next_uio + 1
            os.makedirs(self.path(f"{base}/uio/{name}"))
            self.put(f"/dev/{name}", "")
            self.owners[f"/dev/{name}"] = (0, 0o600)
            self.udev(address, name)
        return True

    def detach(self, address):
        base = f"{SYSFS}/devices/{address}"
        os.unlink(self.path(f"{base}/driver"))
        for name in self.names(f"{base}/uio"):
            os.rmdir(self.path(f"{base}/uio/{name}"))
            os.unlink(self.path(f"/dev/{name}"))
            for link in self.names("/dev/ivshmem"):
                if self.link(f"/dev/ivshmem/{link}") == name:
                    os.unlink(self.path(f"/dev/ivshmem/{link}"))

    def driver_attach(self, driver):
        for address in self.addresses():
            if self.driver(address) is None and self.matches(address, driver):
                self.attach(address, driver)

    def write(self, path, text):
        self.writes.append((path, text))
        text = text.strip()
        known = re.fullmatch(rf"{SYSFS}/drivers/([^/]+)/(\w+)", path)
        if known:
            return self.driver_write(known.group(1), known.group(2), text)
        known = re.fullmatch(rf"{SYSFS}/devices/([^/]+)/driver_override", path)
        if known:
            return self.put(path, (text or "(null)") + "\n")
        raise AssertionError(path)

    def driver_write(self, driver, what, text):
        if driver not in self.ids:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        entries = self.ids[driver]
        if what == "new_id":
            entry = tuple(int(part, 16) for part in text.split())
            if entry in entries and self.duplicate_error:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            entries.append(entry)
            self.driver_attach(driver)
        elif what == "remove_id":
            entry = tuple(int(part, 16) for part in text.split())
            found = [known for known in entries if known[: len(entry)] == entry]
            if not found:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            entries.remove(found[0])
        elif what == "bind":
            if text not in self.addresses() or not self.matches(text, driver):
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            if self.driver(text):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            if not self.attach(text, driver):
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        elif what == "unbind":
            if self.driver(text) != driver:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            self.detach(text)
        else:
            raise AssertionError(what)

    def udev(self, address, uio):
        """Names by the rules, as far as these tests need them."""
        for folder in ("/etc/udev/rules.d", "/run/udev/rules.d"):
            for name in self.names(folder):
                for line in self.text(f"{folder}/{name}").splitlines():
                    link = re.search(r'SYMLINK\+="ivshmem/([^"]+)"', line)
                    if link and f'KERNELS=="{address}"' in line:
                        os.makedirs(self.path("/dev/ivshmem"), exist_ok=True)
                        target = self.path(f"/dev/ivshmem/{link.group(1)}")
                        if os.path.lexists(target):
                            os.unlink(target)
                        os.symlink(f"../{uio}", target)

    def reboot(self):
        """Everything that lives in the kernel is gone; then udev goes over the devices with the rules in /etc."""
        for address in self.addresses():
            if self.driver(address):
                self.detach(address)
            self.put(f"{SYSFS}/devices/{address}/driver_override", "(null)\n")
            for name in ("resource0", "resource2", "resource2_wc"):
                self.owners[f"{SYSFS}/devices/{address}/{name}"] = (0, 0o600)
        for driver in list(self.ids):
            os.rmdir(self.path(f"{SYSFS}/drivers/{driver}"))
        self.ids = {}
        for name in self.names("/run/udev/rules.d"):
            os.unlink(self.path(f"/run/udev/rules.d/{name}"))
        rules = self.text("/etc/udev/rules.d/70-acrn-ivshmem.rules") or ""
        for line in rules.splitlines():
            override = re.search(r'ATTR\{driver_override\}="([^"]+)"', line)
            kernel = re.search(r'KERNEL=="([^"]+)"', line)
            access = re.search(r"chgrp (\S+) \$\$f && chmod (\d+)", line)
            for address in self.addresses():
                if kernel and kernel.group(1) != address:
                    continue
                if override:
                    self.put(f"{SYSFS}/devices/{address}/driver_override", override.group(1) + "\n")
                    self.load(override.group(1))
                if access:
                    for name in ("resource0", "resource2", "resource2_wc"):
                        gid = self.groups[access.group(1)]
                        self.owners[f"{SYSFS}/devices/{address}/{name}"] = (gid, int(access.group(2), 8))
        for line in rules.splitlines():
            group, mode = re.search(r'GROUP="(\w+)"', line), re.search(r'MODE="(\d+)"', line)
            kernels = re.search(r'KERNELS=="([^"]+)"', line)
            for address in self.addresses():
                for uio in self.names(f"{SYSFS}/devices/{address}/uio"):
                    if mode and (not kernels or kernels.group(1) == address):
                        gid = self.groups[group.group(1)] if group else 0
                        self.owners[f"/dev/{uio}"] = (gid, int(mode.group(1), 8))

    # the rest of Kernel

    def run(self, *command):
        self.commands.append(command)
        if command[0] == "modprobe":
            name = command[1]
            if name not in self.modules:
                return 1, f"modprobe: FATAL: Module {name} not found"
            self.load(name)
        elif command[:2] == ("udevadm", "trigger"):
            uio = command[-1].split("=")[1]
            for address in self.addresses():
                if uio in self.names(f"{SYSFS}/devices/{address}/uio"):
                    self.udev(address, uio)
        return 0, ""

    def release(self):
        return self.kernel_release

    def group_id(self, name):
        return self.groups.get(name)

    def access(self, path):
        return self.owners.get(path)

    def give(self, path, gid, mode):
        old = self.owners[path]
        self.owners[path] = (old[0] if gid == -1 else gid, mode)

    def register(self, address, offset):
        return 7

    def snapshot(self):
        """Everything a check-mode run must leave as it is."""
        result = {"owners": dict(self.owners), "ids": {k: list(v) for k, v in self.ids.items()}}
        for folder, _folders, files in os.walk(self.root):
            for name in [*_folders, *files]:
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    result[path] = os.readlink(path)
                elif os.path.isfile(path):
                    with open(path, "rb") as handle:
                        result[path] = handle.read()
                else:
                    result[path] = None
        return result
