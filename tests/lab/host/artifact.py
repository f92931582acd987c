# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a directory that looks like an artefact of hypervisor_build, around a multiboot2 image that the lab can boot.

artifact.py DIRECTORY KEY IMAGE [untagged]

An untagged one has a scenario without a ramdisk_mod, as those that come with ACRN.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

SCENARIO = """\
<acrn-config board="lab" scenario="lab">
  <vm id="0">
    <load_order>SERVICE_VM</load_order>
    <name>ACRN_Service_VM</name>
    <os_config>
      <kern_type>KERNEL_BZIMAGE</kern_type>
      <kern_mod>Linux_bzImage</kern_mod>
      <ramdisk_mod>Linux_ramdisk</ramdisk_mod>
    </os_config>
  </vm>
</acrn-config>
"""


def make(directory: Path, key: str, image: bytes, scenario: str = SCENARIO) -> Path:
    """Write the artefact to ``directory/key`` and return that."""
    place = directory / key
    place.mkdir(parents=True, exist_ok=True)
    files = {"acrn.bin": image, "scenario.xml": scenario.encode(), "board.xml": b'<acrn-config board="lab"/>\n'}
    outputs = {}
    for name, data in files.items():
        (place / name).write_bytes(data)
        outputs[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    manifest = {"key": key, "name": "lab", "board": "lab", "version": "3.3", "regions": [], "outputs": outputs}
    (place / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    return place


if __name__ == "__main__":
    text = SCENARIO.replace("Linux_ramdisk", "") if sys.argv[4:] == ["untagged"] else SCENARIO
    print(make(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes(), text))
