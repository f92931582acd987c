# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-in for ACRN's validator, for tests: it knows one rule, the size of a region. Usage: BOARD SCENARIO."""

from __future__ import annotations

import os
import sys
from xml.etree import ElementTree


def main() -> int:
    fault = os.environ.get("STANDIN_FAULT")
    if fault == "skip":
        print("ERROR:root:Python package `xmlschema` is not installed.", file=sys.stderr)
        return 0
    scenario = ElementTree.parse(sys.argv[2]).getroot()
    bad = 0
    for region in scenario.findall("hv/FEATURES/IVSHMEM/IVSHMEM_REGION"):
        size = region.findtext("IVSHMEM_SIZE") or [*(region.text or "").split(","), "2"][1].strip()
        if size not in ("2", "4", "8", "16", "32", "64", "128", "256", "512"):
            bad += 1
            path = "/acrn-config/hv/FEATURES/IVSHMEM/IVSHMEM_REGION/IVSHMEM_SIZE"
            print(f"CRITICAL:root:{path}: {size} MB cannot be the size of a region", file=sys.stderr)
    if bad:
        print(f"ERROR:root:Board x and scenario y are inconsistent: {bad} syntax errors", file=sys.stderr)
    elif fault == "warn":
        print("WARNING:root:/acrn-config/vm[1]: this VM looks lonely", file=sys.stderr)
        print("WARNING:root:Board x and scenario y are potentially inconsistent: 1 warnings.", file=sys.stderr)
        return 1
    return 0 if fault == "quiet" else min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
