# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's scenarios built by a real ACRN tree, as they are and with regions.

``ACRN_SRC`` is an ACRN tree of v2.7 or v3.x, ``ACRN_PYTHON`` an interpreter or virtual environment for its config tools
(default: the Python of this test). A build takes some 25 s of processor time, and there are six.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import sys
from dataclasses import replace

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder import _tree
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._decide import plan
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import BuildError, Request
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._run import build, validate
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = os.environ.get("ACRN_SRC")
SCENARIOS = {2: ("press-line.xml", "PRESS_RT", "PRESS_PANEL"), 3: ("paint-line.xml", "PAINT_SERVICE", "PAINT_CAMERA")}
# What a machine may lack, as the pre-flight words it.
LACKS = re.compile(r"not found in PATH|cannot run the config tools|set CC=")

pytestmark = pytest.mark.skipif(not SOURCE, reason="no ACRN tree: set ACRN_SRC")


def listing(folder):
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in sorted(folder.rglob("*"))
        if ".git" not in path.parts
    }


@pytest.fixture(name="bench", scope="module")
def _bench(tmp_path_factory):
    """A function that plans a build of the demo's scenario, with regions or with another text in some places."""
    folder = tmp_path_factory.mktemp("build")
    version = _tree.read_tree(SOURCE).version
    if version[0] == 2 and version != (2, 7):
        pytest.skip(f"{SOURCE} is v{version[0]}.{version[1]}; the demo has scenarios for v2.7 and v3.x")
    name, first, second = SCENARIOS[version[0]]
    demo = (ROOT / "examples" / "demo" / "scenarios" / name).read_bytes()
    compilers = ("CC=gcc-11",) if version <= (3, 1) and shutil.which("gcc-11") else ()

    def planned(*regions, source=SOURCE, work="work", store="store", change=None, **params):
        declared = [{"name": region, "size": size, "vms": [first, second]} for region, size in regions]
        data = decide(demo, name, declared, version=version).data if declared else demo
        if change:
            assert change[0] in data
            data = data.replace(*change)
        path = folder / name
        path.write_bytes(data)
        return plan(
            Request(
                source=str(source),
                board="whl-ipc-i5",
                scenario=str(path),
                artifacts_dir=str(folder / store),
                work_dir=str(folder / work),
                make_args=compilers,
                jobs=len(os.sched_getaffinity(0)),
                python=os.environ.get("ACRN_PYTHON") or sys.executable,
                **params,
            )
        )

    planned.version, planned.folder = version, folder
    try:
        planned()
    except IvshmemError as exc:
        if LACKS.search(str(exc)):
            pytest.skip(str(exc))
        raise
    return planned


def image(todo):
    return pathlib.Path(todo.path, "acrn.bin").read_bytes()


def test_the_demo_builds_as_it_is_and_once(bench):
    before = listing(pathlib.Path(SOURCE))
    todo = bench()
    manifest, built = build(todo)
    assert built
    assert (manifest["board"], manifest["regions"]) == ("whl-ipc-i5", [])
    assert {"acrn.bin", "acrn.32.out"} <= set(manifest["outputs"])
    assert ("acpi/ACPI_VM0.bin" in manifest["outputs"]) == (bench.version[0] == 2)
    assert b"hv:/" not in image(todo)
    again = bench()
    assert again.key == todo.key
    assert build(again) == (manifest, False)
    assert listing(pathlib.Path(SOURCE)) == before


def test_regions_are_compiled_in_and_a_new_size_is_another_build(bench):
    small, large = bench(("force", 2), ("parts", 4)), bench(("force", 8), ("parts", 4))
    assert small.key != large.key
    for todo, size in ((small, 2), (large, 8)):
        manifest, built = build(todo)
        assert built
        assert [(region["name"], region["size"]) for region in manifest["regions"]] == [
            ("hv:/force", size),
            ("hv:/parts", 4),
        ]
        assert b"hv:/force\0" in image(todo)
    assert image(small) != image(large)


def test_two_builds_of_a_key_are_the_same_bytes_in_other_directories_too(bench):
    copy = bench.folder / "a_tree_with_a_longer_name"
    parts = [pathlib.Path(SOURCE, part) for part in (*_tree._TREE_PARTS, ".git")]
    for part in filter(os.path.exists, parts):
        target = copy / part.relative_to(SOURCE)
        if part.is_dir():
            shutil.copytree(part, target, symlinks=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(part, target)
    one = bench(("force", 2), ccache=False)
    two = bench(("force", 2), source=copy, work="work/elsewhere/deeper", store="store2", ccache=False)
    assert one.key == two.key
    outputs = [build(todo)[0]["outputs"] for todo in (one, two)]
    for name in set(outputs[0]) - {"build.log"}:
        assert outputs[0][name] == outputs[1][name], name


def test_what_the_key_leaves_out_is_not_in_the_hypervisor(bench):
    if bench.version[0] == 2:
        pytest.skip("a scenario of v2.x has no regions of the device model, and no vBDFs")
    plain = bench(("force", 2), ccache=False)
    vms = read_scenario(plain.scenario, "f").vms
    posts = [vm.name for vm in vms if vm.load_order == "post_launched"]
    moved = [{"name": SCENARIOS[3][1]}, {"name": SCENARIOS[3][2], "vbdf": "00:1e.0"}]
    more = [{"name": "frames", "provided_by": "device_model", "size": 16, "vms": posts[:2]}]
    asked = [{"name": "force", "size": 2, "vms": moved}, *(more if len(posts) > 1 else [])]
    raw = decide(plain.scenario, "f", asked, version=bench.version).data
    path = bench.folder / "raw.xml"
    path.write_bytes(raw)
    request = replace(plain.request, scenario=str(path), name=plain.name)
    todo = plan(request)
    assert todo.key == plain.key
    # As ACRN builds the whole file, and as the key has it.
    outputs = [build(each, force=True)[0]["outputs"] for each in (replace(todo, scenario=raw), plain)]
    for name in set(outputs[0]) - {"build.log", "scenario.xml"}:
        assert outputs[0][name] == outputs[1][name], name


def test_acrn_refuses_a_bad_size_before_anything_is_compiled(bench):
    wrong = (b"<IVSHMEM_SIZE>2<", b"<IVSHMEM_SIZE>3<") if bench.version[0] == 3 else (b"force, 2,", b"force, 3,")
    todo = bench(("force", 2), change=wrong)
    with pytest.raises(BuildError, match="refuses this scenario") as caught:
        build(todo)
    assert any("IVSHMEM" in line for line in caught.value.lines)
    assert " -c " not in pathlib.Path(caught.value.log).read_text()
    assert not os.path.exists(todo.path)


def test_a_region_that_acrn_would_silently_leave_out_is_refused(bench, tmp_path):
    if bench.version[0] == 2:
        pytest.skip("only v3.x leaves out a region for its white space")
    start = bench(("force", 2)).scenario
    block = re.search(rb"<IVSHMEM_REGION>.*?</IVSHMEM_REGION>", start, re.DOTALL).group()
    todo = bench(("force", 2), change=(block, re.sub(rb">\s+<", b"><", block)))
    with pytest.raises(BuildError, match=r"missing: hv:/force, 2 MB.*white space between its children"):
        validate(todo, str(tmp_path))


def test_warnings_do_not_stop_a_build(bench, tmp_path):
    if bench.version < (3, 1):
        pytest.skip("this validator has no warning for too much memory")
    todo = bench(change=(b"<size>512<", b"<size>999424<"))
    (warning,) = validate(todo, str(tmp_path))
    assert "total memory size" in warning


def test_the_release_variant_is_built_where_it_is_asked_for(bench):
    manifest, built = build(bench(release=True))
    assert built
    debug = next(
        path for path in pathlib.Path(bench.folder, "store").glob("*/manifest.json") if manifest["key"] not in str(path)
    )
    assert manifest["outputs"]["acrn.bin"]["size"] < (debug.parent / "acrn.bin").stat().st_size
