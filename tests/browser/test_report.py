# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report in a browser. The pictures stay for people to look at, in $ACRN_IVSHMEM_SCREENSHOTS."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from ansible_collections.acrn.ivshmem.tests.unit.plugins.plugin_utils.test_report import (
    FAST,
    LOG,
    host,
    page,
    problem,
    region,
    verified,
)

FULL = [
    region(f"region_with_a_long_name_{number}", *((vm, "post_launched", 8 + number) for vm in range(number % 3, 8, 2)))
    for number in range(8)
]
WAITING = host("full-1", *FULL)
WAITING["scenario_plan"]["changed"] = True
PROBLEM = {**problem("paint-1", LOG), "found": "others", "mend": "stop all VMs of the region first"}
GUEST = {**problem("paint-1", vm="paint-1-panel"), "what": "guest", "expected": "answers", "found": "ssh: no route"}
DEAF = {"from": "VM0", "to": "VM2", "received": None, "result": "capable, not receivable"}
BELLS = [{"region": "hv:/fast on press-1", **DEAF}]
LINES = ["dm:/log on press-2: VM3 does not take part, so that VM2 has not read it"]
VERIFIED = verified(
    *(("press-1", FAST), ("press-1", LOG), ("press-2", FAST), ("press-2", LOG, ["VM3"]), ("paint-1", LOG)),
    problems=[PROBLEM, GUEST],
    doorbells=BELLS,
    skipped=LINES,
    time="2026-01-02 03:04",
)
INFO = {"running_key": "5d1f6a7c0b1e4c9b8f3f0a2b6d9c7e11", "default_key": "5d1f6a7c0b1e4c9b8f3f0a2b6d9c7e11"}
PRESSES = [host("press-1", FAST, LOG, report_hypervisor=INFO), host("press-2", FAST, LOG)]
FEW = [*PRESSES, host("paint-1", LOG), WAITING]
MANY = [host(f"line{number // 20}-press-{number}", FAST, LOG, *FULL[: number % 6]) for number in range(200)]
LIGHT, DARK = (0xF6, 0xF7, 0xF9), (0x12, 0x16, 0x1C)


@pytest.fixture
def browse(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "the tests of the report need chromium"

    def run(hosts, *words, fragment="", script=""):
        path = tmp_path / "report.html"
        text = page(hosts, VERIFIED, absent=["press-3", "press-4"])
        path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        own = [f"--user-data-dir={tmp_path}/profile", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command = [chromium, "--headless=new", *own, "--virtual-time-budget=5000", *words, f"file://{path}{fragment}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def pictures(tmp_path):
    folder = Path(os.environ.get("ACRN_IVSHMEM_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def corner(path):
    """Size and first pixel of a PNG: whatever filter its row has, the first pixel is as it stands."""
    data = path.read_bytes()
    width, height, _depth, kind = struct.unpack(">IIBB", data[16:26])
    assert kind in (2, 6)
    chunks, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            chunks += data[at + 8 : at + 8 + length]
        at += 12 + length
    return (width, height), tuple(zlib.decompress(chunks)[1:4])


@pytest.mark.parametrize(
    ("name", "hosts", "size", "dark"),
    [
        ("light", FEW, (1200, 1400), False),
        ("dark", FEW, (1200, 1400), True),
        ("narrow", FEW, (500, 1400), False),
        ("many", MANY, (1200, 1200), False),
    ],
)
def test_a_picture(name, hosts, size, dark, browse, pictures):
    path = pictures / f"{name}.png"
    path.unlink(missing_ok=True)
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(hosts, *scheme, f"--window-size={size[0]},{size[1]}", f"--screenshot={path}")
    assert corner(path) == (size, DARK if dark else LIGHT)


@pytest.mark.parametrize("width", [500, 1200])
def test_nothing_sticks_out_of_the_page(width, browse):
    script = "document.title = document.documentElement.scrollWidth + ' of ' + innerWidth"
    (found,) = re.findall(
        r"<title>(\d+) of (\d+)</title>", browse(FEW, f"--window-size={width},900", "--dump-dom", script=script)
    )
    assert int(found[0]) <= int(found[1])


def test_on_a_phone_the_proof_is_seen_without_scrolling_sideways(browse):
    script = """
    var cells = Array.from(document.querySelectorAll("td:last-child"));
    document.title = cells.length + " " + cells.every(cell => cell.getBoundingClientRect().right <= innerWidth);
    """
    dom = browse(FEW, "--window-size=500,900", "--dump-dom", script=script)
    assert re.findall(r"<title>(\d+) (\w+)</title>", dom) == [
        (str(sum(len(each["scenario_plan"]["regions"]) for each in FEW)), "true")
    ]


def test_the_search_hides_what_does_not_fit(browse):
    hosts = [host("press-1", FAST), host("paint-1", LOG), host("paint-2", FAST)]
    dom = browse(hosts, "--dump-dom", fragment="#paint fast")
    found = re.findall(r'<details class="host"([^>]*)>', dom)
    assert ["hidden" in each for each in found] == [True, True, False]
    assert "1 of 3" in dom


def test_a_search_among_two_hundred_hosts_is_quick(browse):
    script = """
    var search = document.getElementById("search"), began = performance.now();
    search.value = "press-17";
    search.dispatchEvent(new Event("input"));
    document.body.offsetHeight;
    document.title = Math.round(performance.now() - began) + " ms";
    """
    dom = browse(MANY, "--dump-dom", script=script)
    assert "11 of 200" in dom
    # People take less than a tenth of a second for at once. This leaves room for a machine that is busy.
    assert int(re.findall(r"<title>(\d+) ms</title>", dom)[0]) < 1000


def test_on_paper_every_host_is_open(browse, pictures):
    sizes = []
    for name, hosts in (("few", FEW), ("many", MANY)):
        path = pictures / f"{name}.pdf"
        path.unlink(missing_ok=True)
        browse(hosts, "--no-pdf-header-footer", f"--print-to-pdf={path}")
        sizes.append(len(re.findall(rb"/Type\s*/Page\b", path.read_bytes())))
    # More than four hosts are closed on the screen.
    assert sizes[0] >= 1
    assert sizes[1] > 50
