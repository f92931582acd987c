# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The programs of examples/application: compiled, talking to each other through a file, and ringing a register.

doorbell.c waits with vfio, which takes a PCI function: molecule/default runs it in the guests of the lab.
"""

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


# A function of a guest, as far as the programs see it: its place in sysfs, and the device node of its name.
FUNCTION = """
set -e
mount -t tmpfs none /sys/class && mkdir -p /sys/class/uio/uio7 && ln -s "$1/function" /sys/class/uio/uio7/device
mount -t tmpfs none /sys/bus && mkdir -p /sys/bus/pci/devices && ln -s "$1/function" /sys/bus/pci/devices/0000:00:06.0
touch "$1/uio7" && mount --bind /dev/null "$1/uio7" && ln -s uio7 "$1/press_state"
shift && exec "$@"
"""


@pytest.mark.parametrize("language", ["C", "Python"])
@pytest.mark.parametrize("name", ["0000:00:06.0", "press_state"])
def test_a_peer_is_rung_through_the_register_of_the_function(language, name, place, tmp_path):
    function = tmp_path / "function"
    function.mkdir()
    (function / "resource0").write_bytes(bytes(256))
    (function / "resource2").write_bytes(bytes(1 << 20))
    guest = ["unshare", "--map-root-user", "--mount", "sh", "-c", FUNCTION, "sh", str(tmp_path)]
    what = name if ":" in name else str(tmp_path / name)
    done = subprocess.run(
        [*guest, *words(place, language), "send", what, "5"],
        input=b"hello\n.\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")
    registers = (function / "resource0").read_bytes()
    # The peer's VM ID above, the vector below; no other register is touched.
    assert registers == bytes(12) + struct.pack("<I", 5 << 16) + bytes(240)
    got = subprocess.run(
        [*words(place, "C"), "receive", str(function / "resource2")], stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert got.stdout == b"hello\n"


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("talk", []),
        ("talk", ["shout", "region"]),
        ("doorbell", ["wait", "0000:00:06.0"]),
        ("doorbell", ["ring", "0000:00:06.0", "1"]),
        ("doorbell", ["listen", "0000:00:06.0", "1"]),
    ],
)
def test_what_is_called_wrongly_says_how_it_is_called(program, arguments, place):
    done = subprocess.run([str(place / program), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.startswith(f"usage: {program} ")) == (2, True)
