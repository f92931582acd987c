# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that is read back, cut, doubled, twisted and blown up: the project's own error, or an answer in time."""

from __future__ import annotations

import copy
import json
import os
import resource
import sys
import time
import traceback

import pytest

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("lxml")

from hypothesis import strategies as st  # noqa: E402

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError  # noqa: E402
from ansible_collections.acrn.ivshmem.tests.reliability import figures  # noqa: E402
from ansible_collections.acrn.ivshmem.tests.reliability.readers import READERS  # noqa: E402
from ansible_collections.acrn.ivshmem.tests.reliability.target import FORK  # noqa: E402

SECONDS = 2  # of CPU, for an input of up to SIZE bytes
# What the host of a virtual machine gives to others counts as time of the process that waits for it. What is slow by
# itself is slow each time.
TRIES = 3
MEMORY = 500 << 20
SIZE = 1 << 16
TOKENS = [
    *(b"<", b">", b"/>", b"</", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"&amp;", b"&#0;", b"&x;", b"<?xml?>", b"<a>"),
    *(b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"<IVSHMEM>", b"</IVSHMEM>", b"<vm id='1'>", b"<name>x</name>", b"=", b"''"),
    *(b'"', b"'", b"`", b"$(", b"$((", b"${", b"}", b")", b"(", b"{", b"[", b"]", b"\\", b"\\\n", b"\n", b"\r\n"),
    *(b"\0", b"#", b" ", b"\t", b",", b":", b";", b"|", b"&&", b"if ", b"fi\n", b"case x in ", b"-s "),
    *(b"0", b"-1", b"9" * 40, b"1e999", b"0x", b"null", b"true", b"[[", b'{"a":', b"\xff", b"\xfe\xff"),
    *(b"\xe2\x80\xa8", b"acrn-dm "),
    *(b"../", b"/", b"%s", b"{{ 1 }}", b"a=", b"### BEGIN /", b" ###\n", b"menuentry 'x' {\n", b"### END /etc\n", b"1"),
    *(b"00:08.0", b"hv:/", b"dm:/", b"ivshmem", b"Traceback", b"error: ", b"{ .name = A, .size = 0x1UL, }, "),
]
# What a script or a menu may hold any number of: together they make what is quadratic show.
LINES = [
    *(
        b"<<E\n",
        b"<<E ",
        b"((",
        b'"$(',
        b'"`',
        b"a=1\n",
        b"a=$a\n",
        b"a=() ",
        b"w a=()",
        b"a+=(b)\n",
        b"f() { :; }\n",
        b"f\n",
    ),
    *(
        b"f() { f $1; }\n",
        b"x && ",
        b"case x in a) ;; esac\n",
        b"for a in b; do\n",
        b"set -- x\n",
        b"acrn-dm VM1\n",
        b"$a ",
    ),
    *(b"acrn-dm -s 5,ivshmem,dm:/a,2 VM1\n", b"echo $(x)\n", b"set a=1\n", b"multiboot2 /boot/acrn.bin $a\n", b"}\n"),
    *(b"### BEGIN /etc/grub.d/zzzz_acrn_ivshmem ###\n", b'if [ "${next_entry}" ] ; then\n'),
]
PAIRS = [
    (b"<<E\n", b"E\n"),
    (b"a=1\n", b"acrn-dm $a VM1\n"),
    (b"a=(1 2 3)\n", b'acrn-dm "${a[@]}" VM1\n'),
    (b"a=1 ", b"a=() "),
    (b"f() { acrn-dm $a VM1; }\n", b"f\n"),
    (b"set a=1\n", b"multiboot2 $a\n"),
    (b"menuentry x { multiboot2 /boot/acrn.bin $a\n", b"}\n"),
]
WEIRD = [None, True, False, 0, -1, 1 << 70, 1.5, float("inf"), "", "x", "../x", "\n", "{{ 1 }}", [], [[]], {}, {"a": 1}]


@st.composite
def edits(draw, sample):
    """A sample with some parts cut, doubled, moved, overwritten."""
    data = bytearray(sample)
    for _edit in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 1, 2, 8, 40, 400))))
        kind = draw(st.sampled_from(("cut", "token", "token", "double", "move", "flip", "end")))
        if kind == "cut":
            del data[start:end]
        elif kind == "token":
            data[start:end] = draw(st.sampled_from(TOKENS)) * draw(st.sampled_from((1, 1, 2, 30)))
        elif kind == "double":
            data[start:start] = data[start:end] * draw(st.sampled_from((1, 2, 10)))
        elif kind == "move":
            part = bytes(data[start:end])
            del data[start:end]
            at = draw(st.integers(0, len(data)))
            data[at:at] = part
        elif kind == "flip" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "end":
            del data[start:]
    return bytes(data[:SIZE])


@st.composite
def twists(draw, sample):
    """A JSON sample with some values replaced, left out, or put where others were."""
    value = json.loads(sample)
    for _twist in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(("weird", "weird", "drop", "other", "deep", "more")))
        if kind == "drop":
            del holder[key]
        elif kind == "other":
            other, where = draw(st.sampled_from(places))
            if where in other if isinstance(other, dict) else where < len(other):
                holder[key] = json.loads(json.dumps(other[where]))
        elif kind == "deep":
            for _level in range(draw(st.sampled_from((3, 60)))):
                holder[key] = [holder[key]]
        elif kind == "more" and isinstance(holder[key], (str, list)):
            holder[key] = holder[key] * 50
        else:
            # A copy: what is put into it later would be in all that come after, and in itself.
            holder[key] = copy.deepcopy(draw(st.sampled_from(WEIRD)))
    return json.dumps(value).encode()


def _places(value):
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def is_json(sample):
    return sample.lstrip()[:1] in (b"{", b"[")


def inputs(reader):
    return st.sampled_from(reader.samples).flatmap(
        lambda sample: st.one_of(edits(sample), twists(sample)) if is_json(sample) else edits(sample)
    )


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.replace(" ", "-"))
def test_mutations(reader):
    seen = [0, 0]

    # The samples themselves are right.
    for sample in reader.samples:
        reader.read(sample)

    @hypothesis.settings(database=None, deadline=None)
    @hypothesis.given(inputs(reader))
    def attack(data):
        seen[0] += 1
        for _try in range(TRIES):
            began = time.process_time()
            try:
                reader.read(data)
            except IvshmemError as exc:
                assert 0 < len(str(exc)) < 20000, "an error that nobody can read"
            used = time.process_time() - began
            if used < SECONDS:
                break
        assert used < SECONDS, f"{used:.1f} s for {len(data)} bytes"
        seen[1] += 1

    try:
        attack()
    finally:
        figures.add(f"mutations: {reader.name}", seen[0], seen[1])


# ---- blown up ----


def blown_up(reader):
    """Long runs of one token in front of, in the middle of, behind, and instead of what is right."""
    sample = min(reader.samples, key=len)
    cuts = (0, len(sample) // 3, len(sample) // 2, len(sample))
    for token in TOKENS:
        run = token * ((SIZE - len(sample)) // len(token))
        yield token, "alone", run
        for cut in cuts:
            yield token, f"at {cut}", sample[:cut] + run + sample[cut:]
    if reader.name in ("launch script", "launch script edits", "grub.cfg"):
        for token in LINES:
            run = token * (SIZE // 8 // len(token))
            yield token, "line in the middle", sample[: cuts[2]] + run + sample[cuts[2] :]
        for first, second in PAIRS:
            yield first, f"and {second!r}", first * (SIZE // 8 // len(first)) + second * (SIZE // 8 // len(second))
    if is_json(sample):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            deep = opening * 5000 + b"1" + closing * 5000
            yield opening, "deep", deep
            for at in (b"1", b'"', b"null"):
                if at in sample:
                    yield opening, f"deep for {at!r}", sample.replace(at, deep if at != b'"' else deep + b'"', 1)
        yield b"9", "huge number", sample.replace(b"1", b"9" * 5000, 1)
    lines = sample.splitlines(keepends=True)
    for line in dict.fromkeys(lines):
        yield line[:20], "line", sample.replace(line, line * ((SIZE - len(sample)) // len(line)), 1)


def measured(reader, data, most=MEMORY):
    """What is wrong when a child reads this, or None. CPU and memory are the child's alone."""
    for _try in range(TRIES):
        problem = once(reader, data, most)
        if not (problem and "of CPU" in problem):
            break
    return problem


def once(reader, data, most):
    here, there = FORK.Pipe(False)

    def work():
        resource.setrlimit(resource.RLIMIT_CPU, (4 * SECONDS, 4 * SECONDS + 1))
        before = resource.getrusage(resource.RUSAGE_SELF)
        problems = []
        try:
            reader.read(data)
        except IvshmemError as exc:
            if not 0 < len(str(exc)) < 20000:
                problems.append(f"an error of {len(str(exc))} characters")
        except BaseException as exc:
            frame = traceback.extract_tb(exc.__traceback__)[-1]
            where = f"{os.path.basename(frame.filename)} {frame.lineno}"
            problems.append(f"{type(exc).__name__}: {str(exc)[:100]} ({where})")
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        memory = (after.ru_maxrss - before.ru_maxrss) * 1024
        if used > SECONDS:
            problems.append(f"{used:.1f} s of CPU")
        if memory > most:
            problems.append(f"{memory >> 20} MB")
        there.send(", ".join(problems) or None)

    job = FORK.Process(target=work)
    job.start()
    there.close()
    try:
        problem = here.recv()
    except EOFError:
        problem = f"more than {4 * SECONDS} s of CPU, or killed"
    job.join()
    return problem


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.replace(" ", "-"))
def test_blown_up(reader, long):
    every = list(blown_up(reader))
    # Another part for each reader, so that all of them together see every token at every place.
    step = 1 if long else 32
    chosen = every[READERS.index(reader) % step :: step]
    wrong = []
    for token, where, data in chosen:
        problem = measured(reader, data)
        if problem:
            wrong.append(f"{token!r} {where}, {len(data)} bytes: {problem}")
    figures.add("blown-up inputs", len(chosen), len(chosen) - len(wrong))
    assert not wrong, f"{len(wrong)} of {len(chosen)}:\n" + "\n".join(wrong[:20])


def test_the_limits_are_limits():
    """The measure sees what it shall see."""
    most = 16 << 20  # half a gigabyte may be more than this machine has to give

    class Slow:
        @staticmethod
        def read(data):
            began = time.process_time()
            while time.process_time() - began < SECONDS + 0.3:
                pass

    class Fat:
        @staticmethod
        def read(data):
            return bytearray(b"x" * (most + (16 << 20)))

    class Wrong:
        @staticmethod
        def read(data):
            sys.setrecursionlimit(100)
            json.loads("[" * 200)

    assert "CPU" in measured(Slow, b"")
    assert "MB" in measured(Fat, b"", most)
    assert measured(Fat, b"") is None
    assert "RecursionError" in measured(Wrong, b"")
