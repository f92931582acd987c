# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs of examples/application: compiled, and talking to each other through a file."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys

import pytest

from ansible_collections.acrn.ivshmem.tests.integration_acrn.controller import ROOT

# Ends at another place of the ring each time it goes round, and longer than the ring in all.
LINES = [b"%d %s" % (number, b"x" * (number % 700)) for number in range(6000)]


@pytest.fixture(name="place", scope="module")
def _place(tmp_path_factory):
    place = tmp_path_factory.mktemp("application") / "application"
    shutil.copytree(ROOT / "examples/application", place)
    done = subprocess.run(["make", "-s", "-C", str(place)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return place


def words(place, language):
    return [str(place / "talk")] if language == "C" else [sys.executable, str(place / "acrn_ivshmem.py")]


@pytest.mark.parametrize(("writer", "reader"), [("C", "C"), ("C", "Python"), ("Python", "C")])
def test_lines_arrive_whole_and_in_order(writer, reader, place, tmp_path):
    region = tmp_path / "region"
    region.write_bytes(bytes(1 << 20))
    got = tmp_path / "got"
    with got.open("wb") as out, subprocess.Popen(
        [*words(place, reader), "receive", str(region)], stdout=out
    ) as reading:
        try:
            subprocess.run(
                [*words(place, writer), "send", str(region)], input=b"\n".join([*LINES, b"."]), timeout=120, check=True
            )
            code = reading.wait(timeout=120)
        finally:
            reading.kill()
    assert (code, got.read_bytes().splitlines()) == (0, LINES)


@pytest.mark.parametrize("language", ["C", "Python"])
@pytest.mark.parametrize(("used", "length"), [(4, 5), (2, 0), (1 << 21, 4), (100, 0xFFFFFFFF)])
def test_a_reader_does_not_believe_its_peer(language, used, length, place, tmp_path):
    region = tmp_path / "region"
    ring = bytearray(1 << 20)
    struct.pack_into("<II", ring, 0, 0x474E4952, 1 << 19)
    struct.pack_into("<I", ring, 64, used)
    struct.pack_into("<I", ring, 192, length)
    region.write_bytes(ring)
    done = subprocess.run(
        [*words(place, language), "receive", str(region)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "what is in the ring is no message" in done.stderr) == (1, True), done.stderr


def test_what_is_no_region_is_told(place, tmp_path):
    for what in ("/dev/null", str(tmp_path / "none"), "ffff:00:1f.7"):
        done = subprocess.run(
            [*words(place, "C"), "receive", what], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr.startswith(f"{what}: ")) == (1, True), done.stderr
    done = subprocess.run(
        [str(place / "doorbell"), "wait", "ffff:00:1f.7", "0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "No such file" in done.stderr) == (1, True), done.stderr
