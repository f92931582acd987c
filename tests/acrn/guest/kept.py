# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python as Ansible calls it, on a host in the emulator: runs the program on its standard input.

Ansible sends modules as archives of sources, which Python compiles at every call, each three times: minutes of
processor time here. What the image has compiled of these very sources is taken instead, and what other programs have
imported before.
"""

import _imp
import marshal
import os
import sys
import traceback
import zipimport

# What the image has compiled, by the hash of its source.
CODE = "/code/"
compiled = zipimport._compile_source
known = {}


def kept(path, source):
    if path not in known:
        try:
            with open(CODE + _imp.source_hash(1, source).hex(), "rb") as handle:
                known[path] = marshal.load(handle)
        except OSError:
            known[path] = compiled(path, source)
    return known[path]


def run(program):
    """The status with which Python ends."""
    zipimport._compile_source = kept
    sys.argv = ["-"]
    try:
        exec(compile(program, "<stdin>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def apart(program):
    """Run it in another process that has what this one has imported. Returns status, output and errors."""
    given, output, errors = ends = [os.memfd_create(name) for name in ("given", "output", "errors")]
    os.write(given, program)
    os.lseek(given, 0, os.SEEK_SET)
    child = os.fork()
    if not child:
        for number, end in enumerate(ends):
            os.dup2(end, number)
        # This process's own have read ahead, or hold what it has not written yet.
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(end, mode) for end, mode in enumerate("rww"))
        status = run(program)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    told = [os.pread(end, os.fstat(end).st_size, 0) for end in (output, errors)]
    for end in ends:
        os.close(end)
    return (status, *told)


if __name__ == "__main__":
    sys.exit(run(sys.stdin.read()))
