# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a whole host in the emulator, and a VM that it has launched, have in the place of a disk driver and of sshd.

``agent.py disk`` serves the partition of the emulator's disk to the kernel (/dev/nbd0). ``agent.py mail`` does what
Ansible's controller asks for: requests and answers are sectors behind the partition, which the connection plugin of
these tests writes and reads in the file of the disk. ``agent.py guest`` does the same in a VM, whose disk is a file of
the host: the host hands on what the controller asks of the VM.
"""

import base64
import ctypes
import fcntl
import importlib
import json
import mmap
import os
import socket
import struct
import sys
import time

SECTOR = 512
MOST = 256
HEADER = struct.Struct("<4sII")
# Sectors of a VM's disk, as many again behind the first answer, and seconds of the host that a VM may take.
VM_DISK = {"requests": 0, "answers": 4096}
VM_PATIENCE = 120
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


class File:
    """Sectors of a file, or of a device without what the kernel remembers of it (``flags``: O_DIRECT)."""

    def __init__(self, path, flags=0):
        self.handle = os.open(path, os.O_RDWR | flags)

    def read(self, start, count):
        # Whole pages, as O_DIRECT wants them.
        with mmap.mmap(-1, count * SECTOR) as buffer:
            size = os.preadv(self.handle, [buffer], start * SECTOR)
            return buffer[:size]

    def write(self, start, data):
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            os.pwritev(self.handle, [buffer], start * SECTOR)

    def close(self):
        os.close(self.handle)


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


def opened(disk, place, length):
    return json.loads(disk.read(place + 1, -(-length // SECTOR))[:length])


def post(disk, places, box, number, content):
    data, place = json.dumps(content).encode(), places[box]
    if len(data) > (places["answers"] - places["requests"] - 1) * SECTOR:
        raise ValueError(f"{len(data)} bytes do not fit into the mailbox")
    disk.write(place + 1, data + bytes(-len(data) % SECTOR))
    # Last, since it tells that the rest is there.
    disk.write(place, HEADER.pack(b"MAIL", number, len(data)).ljust(SECTOR, b"\0"))


def ask(disk, places, wish, patience):
    """The answer to a request, which whoever has the other end of the mailbox gives. Raises TimeoutError."""
    number = mail(disk, places["requests"])[0] + 1
    post(disk, places, "requests", number, wish)
    end = time.monotonic() + patience
    while True:
        done, length = mail(disk, places["answers"])
        if done == number:
            return opened(disk, places["answers"], length)
        if time.monotonic() > end:
            raise TimeoutError("does not answer")
        time.sleep(0.01)


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


def handed_on(asked):
    """What a VM answers, whose disk is a file here."""
    disk = File(asked["disk"])
    try:
        return ask(disk, VM_DISK, asked["wish"], VM_PATIENCE)
    except TimeoutError as error:
        raise TimeoutError(f"the VM with the disk {asked['disk']} {error}") from error
    finally:
        disk.close()


DOES = {"execute": executed, "put": put, "fetch": fetch, "hand on": handed_on}


def answer(disk, places, last):
    """Do what a new request asks for. Returns the number of the last one that is done."""
    number, length = mail(disk, places["requests"])
    if number == last:
        return last
    start = time.monotonic()
    asked = opened(disk, places["requests"], length)
    try:
        told = DOES[asked["do"]](asked)
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    post(disk, places, "answers", number, told)
    what = asked.get("command") or asked.get("path") or asked["disk"]
    print(f"acrn-host: {number} {what[:60]!r}, {length} bytes, {time.monotonic() - start:.2f} s", flush=True)
    return number


def serve(disk, places, pause):
    os.environ.update(HOME="/root", USER="root", LC_ALL="C.UTF-8")
    os.chdir("/root")
    sys.path.insert(0, "/")
    with open("/imported.json") as names:
        for name in json.load(names):
            importlib.import_module(name)
    last, _length = mail(disk, places["answers"])
    print(f"acrn-host: ready, {last} requests were answered before", flush=True)
    while True:
        done = answer(disk, places, last)
        if done == last:
            time.sleep(pause)
        last = done


if __name__ == "__main__":
    if sys.argv[1:] == ["guest"]:
        # Each look costs the device model of the VM as well.
        serve(File("/dev/vda", os.O_DIRECT), VM_DISK, 0.02)
    with open("/disk.json") as disk_file:
        where = json.load(disk_file)
    if sys.argv[1:] == ["disk"]:
        serve_disk(where)
    else:
        serve(Disk(), where, 0.002)
