# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes acrn-dm's command line and holds the memory of its dm-land regions as it does; there is no guest.

For tests that ask who holds which memory, and who is stopped when. SIGINT ends it well. A copy of it is called
acrn-dm, and has a first line that names the Python of the machine.
"""

import mmap
import os
import signal
import sys

held = []
for word in sys.argv:
    if ",ivshmem,dm:/" in word:
        name, size = word.split("dm:/")[1].split(",")[:2]
        # devicemodel/hw/pci/ivshmem.c, create_ivshmem_from_dm: made once, never removed, refused with another size.
        handle = os.open("/dev/shm/" + name, os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(handle).st_size not in (0, int(size) << 20):
            sys.exit("shm size is different")
        os.ftruncate(handle, int(size) << 20)
        held.append(mmap.mmap(handle, int(size) << 20))
        os.close(handle)
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
print("ready", flush=True)
signal.pause()
