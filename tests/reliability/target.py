# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running modules of the collection as a target does, in processes that can be killed.

``call()`` answers in this process; ``run()`` starts one. On a guest or a Service VM the machine around the module is a
directory.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pathlib
import sys

from ansible.module_utils.testing import patch_module_args

PACKAGE = "ansible_collections.acrn.ivshmem"
ROOT = pathlib.Path(__file__).absolute().parents[2]


def call(name, params):
    """The result of a module, run in this process."""
    module = importlib.import_module(f"{PACKAGE}.plugins.modules.{name}")
    said = io.StringIO()
    with patch_module_args(params), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        module.main()
    result = json.loads(said.getvalue())
    result.pop("invocation", None)
    return result


def listing(folder):
    """Every path below a folder: what a link points to, the mode and the bytes of a file, None for a directory."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            if os.path.islink(path):
                value = os.readlink(path)
            elif os.path.isfile(path):
                value = (oct(os.stat(path).st_mode & 0o7777), pathlib.Path(path).read_bytes())
            else:
                value = None
            found[os.path.relpath(path, folder)] = value
    return found


def command(name, params, world=None):
    """The words that run a module in a process of its own; its result goes to standard output."""
    return [
        sys.executable,
        "-B",
        str(pathlib.Path(__file__).absolute()),
        name,
        json.dumps(params),
        json.dumps(world or {}),
    ]
