# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a whole host in the emulator has in the place of a disk driver and of sshd.

``agent.py disk`` serves the partition of the emulator's disk to the kernel (/dev/nbd0). ``agent.py mail`` does what
Ansible's controller asks for: requests and answers are sectors behind the partition, which the connection plugin of
these tests writes and reads in the file of the disk.
"""

import base64
import ctypes
import fcntl
import importlib
import json
import os
import socket
import struct
import sys
import time

SECTOR = 512
MOST = 256
HEADER = struct.Struct("<4sII")
# How Ansible starts Python, in the modules' two forms; here it does not have to be started for each of them.
PYTHON = "/usr/bin/kept-python3"
STARTED = [f"/bin/sh -c '{PYTHON}{words} && sleep 0'" for words in ("", " -S -E -")]


class Disk:
    """The disk's sectors. Two processes use its ports."""

    def __init__(self):
        self.library = ctypes.CDLL("/ata.so")
        if self.library.opened():
            raise OSError("no access to the ports of the disk")
        self.lock = os.open("/run/ata.lock", os.O_RDWR | os.O_CREAT)

    def _each(self, writes, start, buffer):
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            for done in range(0, len(buffer), MOST * SECTOR):
                count = min(MOST, (len(buffer) - done) // SECTOR)
                place = ctypes.byref(buffer, done)
                code = self.library.transfer(writes, start + done // SECTOR, count, place)
                if code:
                    raise OSError(f"sector {start + done // SECTOR}: transfer ends with {code}")
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    def read(self, start, count):
        buffer = ctypes.create_string_buffer(count * SECTOR)
        self._each(0, start, buffer)
        return buffer.raw

    def write(self, start, data):
        self._each(1, start, ctypes.create_string_buffer(data, len(data)))


# -- the partition -----------------------------------------------------------------------------------------------------

SET_SOCK, SET_BLKSIZE, DO_IT, CLEAR_SOCK, SET_SIZE_BLOCKS, SET_FLAGS = 0xAB00, 0xAB01, 0xAB03, 0xAB04, 0xAB07, 0xAB0A
REQUEST, REPLY = struct.Struct(">IIQQI"), struct.Struct(">IIQ")
READ, WRITE, LEAVE = 0, 1, 2


def received(line, size):
    parts = bytearray()
    while len(parts) < size:
        part = line.recv(size - len(parts))
        if not part:
            raise SystemExit(0)
        parts += part
    return bytes(parts)


def serve_disk(places):
    kernel, own = socket.socketpair()
    if os.fork():
        own.close()
        device = os.open("/dev/nbd0", os.O_RDWR)
        fcntl.ioctl(device, SET_BLKSIZE, 1024)
        fcntl.ioctl(device, SET_SIZE_BLOCKS, places["sectors"] // 2)
        fcntl.ioctl(device, CLEAR_SOCK)
        fcntl.ioctl(device, SET_SOCK, kernel.fileno())
        fcntl.ioctl(device, DO_IT)
        return
    kernel.close()
    disk = Disk()
    while True:
        _magic, kind, handle, at, size = REQUEST.unpack(received(own, REQUEST.size))
        data = b""
        if kind == LEAVE:
            return
        if kind == READ:
            data = disk.read(places["first"] + at // SECTOR, size // SECTOR)
        elif kind == WRITE:
            disk.write(places["first"] + at // SECTOR, received(own, size))
        own.sendall(REPLY.pack(0x67446698, 0, handle) + data)


# -- the controller's requests -----------------------------------------------------------------------------------------


def mail(disk, place):
    """Number and length of what lies in a mailbox."""
    magic, number, length = HEADER.unpack_from(disk.read(place, 1))
    return (number, length) if magic == b"MAIL" else (0, 0)


def executed(asked):
    given = base64.b64decode(asked["input"])
    if asked["command"] in STARTED:
        import kept

        code, output, errors = kept.apart(given)
    else:
        import subprocess

        done = subprocess.run(["/bin/sh", "-c", asked["command"]], input=given, capture_output=True, check=False)
        code, output, errors = done.returncode, done.stdout, done.stderr
    return {"code": code, "output": coded(output), "errors": coded(errors)}


def coded(data):
    return base64.b64encode(data).decode()


def put(asked):
    with open(asked["path"], "wb") as handle:
        handle.write(base64.b64decode(asked["data"]))
    return {}


def fetch(asked):
    with open(asked["path"], "rb") as handle:
        return {"data": coded(handle.read())}


DOES = {"execute": executed, "put": put, "fetch": fetch}


def answer(disk, places, last):
    """Do what a new request asks for. Returns the number of the last one that is done."""
    number, length = mail(disk, places["requests"])
    if number == last:
        return last
    start = time.monotonic()
    asked = json.loads(disk.read(places["requests"] + 1, -(-length // SECTOR))[:length])
    try:
        told = DOES[asked["do"]](asked)
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    data = json.dumps(told).encode()
    disk.write(places["answers"] + 1, data + bytes(-len(data) % SECTOR))
    disk.write(places["answers"], HEADER.pack(b"MAIL", number, len(data)).ljust(SECTOR, b"\0"))
    what = asked.get("command") or asked.get("path")
    print(f"acrn-host: {number} {what[:60]!r}, {length} bytes, {time.monotonic() - start:.2f} s", flush=True)
    return number


def serve_mail(places):
    os.environ.update(HOME="/root", USER="root", LC_ALL="C.UTF-8")
    os.chdir("/root")
    sys.path.insert(0, "/")
    for name in places["imported"]:
        importlib.import_module(name)
    disk = Disk()
    last, _length = mail(disk, places["answers"])
    print(f"acrn-host: ready, {last} requests were answered before", flush=True)
    while True:
        done = answer(disk, places, last)
        if done == last:
            time.sleep(0.002)
        last = done


if __name__ == "__main__":
    with open("/disk.json") as disk_file:
        {"disk": serve_disk, "mail": serve_mail}[sys.argv[1]](json.load(disk_file))
