# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python of a machine whose owner lies: it runs what is asked for, and answers what it likes.

    liar.py LIE.json PYTHON ARGUMENT ...

It knows both ways of a module: the light one, whose answer has a mark, and that of AnsibleModule, whose answer is all
that is printed. What is no answer of a module (a directory that was made) goes through as it is.
"""

from __future__ import annotations

import json
import subprocess
import sys

MARK = b"\nacrn.ivshmem:"


def at_any_depth(value, change):
    """A copy in which ``change(LEAF)`` stands for each value that has none inside, but booleans and the keys."""
    if isinstance(value, dict):
        return {key: at_any_depth(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [at_any_depth(each, change) for each in value]
    return value if isinstance(value, bool) else change(value)


def told(lie, answer):
    """The text in the place of an answer."""
    if "text" in lie:
        return lie["text"].encode("utf-8", "surrogatepass") * lie.get("times", 1)
    if "hex" in lie:
        return bytes.fromhex(lie["hex"])
    if "leaf" in lie:
        answer = at_any_depth(answer, lambda _value: lie["leaf"])
    if "suffix" in lie:
        answer = at_any_depth(answer, lambda value: value + lie["suffix"] if isinstance(value, str) else value)
    answer.update(lie.get("keys", {}))
    for each in answer.get("results") or []:
        if isinstance(each, dict):
            each.update(lie.get("inside", {}))
    return json.dumps(answer).encode()


def lied(lie, said):
    """What a command has printed, with the lie in it."""
    start, mark, text = said.partition(MARK)
    text, newline, rest = text.partition(b"\n") if mark else (said, b"", b"")
    try:
        answer = json.loads(text)
    except ValueError:
        return said
    if not isinstance(answer, dict) or "heavy" in answer:
        return said
    around = lie.get("around", "").encode()
    return (around + b"\n" if around else b"") + (start if mark else b"") + mark + told(lie, answer) + newline + rest


def main():
    with open(sys.argv[1], encoding="utf-8") as handle:
        lie = json.load(handle)
    while lie.get("endless"):
        sys.stdout.buffer.write(b"x" * 65536)
    done = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, check=False)
    sys.stdout.buffer.write(lied(lie, done.stdout))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
