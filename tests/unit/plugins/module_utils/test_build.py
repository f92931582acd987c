# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The decisions behind a build: what counts as an input, what a version needs, and what ACRN's output means."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess

import pytest
import yaml

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder import _ask, _decide, _judge, _model, _store, _tools
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._decide import (
    expected_regions,
    key_of,
    scenario_name,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._findings import (
    meaning,
    read_findings,
    telling_lines,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._judge import read_header
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import BuildError, BuiltRegion, Request, Tree
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._store import find_artifact, last_manifest
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tools import (
    MODERN_PYTHON_PACKAGES,
    PYTHON_PACKAGES,
    check_compiler,
    check_python,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._tree import read_git, read_tree
from ansible_collections.acrn.ivshmem.plugins.module_utils._facts import Bound
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import read_scenario
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import standin

MB = 1 << 20


def tree_of(version, libraries=("lxml", "defusedxml", "elementpath", "xmlschema")):
    numbers = tuple(int(part) for part in version.split("."))
    return Tree("/src", numbers, version, "0" * 64, (), tuple(libraries), True, None)


# -- the tree ----------------------------------------------------------------------------------------------------------


def test_a_copy_elsewhere_has_the_same_digest(tmp_path):
    one, other = standin.copy_tree(tmp_path / "one"), standin.copy_tree(tmp_path / "other")
    for path in other.rglob("*"):
        os.utime(str(path), (1, 1))
    assert read_tree(str(one)).digest == read_tree(str(other)).digest
    assert read_tree(str(one)).version == (3, 3)


@pytest.mark.parametrize("name", ["VERSION", "Makefile", "hypervisor/Makefile", "misc/config_tools/standin.py"])
def test_a_local_change_is_seen(tmp_path, name):
    tree = standin.copy_tree(tmp_path / "tree")
    before = read_tree(str(tree)).digest
    with (tree / name).open("a") as handle:
        handle.write("# changed\n")
    assert read_tree(str(tree)).digest != before


def test_a_new_file_and_a_link_that_points_elsewhere_are_seen(tmp_path):
    tree = standin.copy_tree(tmp_path / "tree")
    digests = [read_tree(str(tree)).digest]
    link = tree / "hypervisor" / "link.h"
    for target in ("one.h", "two.h"):
        (tree / "hypervisor" / target).write_text("")
        digests.append(read_tree(str(tree)).digest)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(target)
        digests.append(read_tree(str(tree)).digest)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    "name",
    [
        "hypervisor/build/acrn.bin",
        "hypervisor/main.o",
        "misc/config_tools/__pycache__/standin.pyc",
        "misc/config_tools/data/bench/bench.xml",
        "devicemodel/main.c",
        "build/hypervisor/acrn.bin",
    ],
)
def test_what_the_build_does_not_read_is_not_seen(tmp_path, name):
    tree = standin.copy_tree(tmp_path / "tree")
    before = read_tree(str(tree)).digest
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text("something")
    assert read_tree(str(tree)).digest == before


def test_what_a_tree_needs_follows_from_its_files(tmp_path):
    tree = standin.copy_tree(tmp_path / "tree")
    found = read_tree(str(tree))
    assert (found.programs, found.libraries, found.compiles) == ((), (), False)
    (tree / "hypervisor" / "Makefile").write_text("all:\n\t$(CC) -c x.c\n\txsltproc a b\n")
    (tree / "misc" / "config_tools" / "standin.py").write_text("try:\n    import xmlschema\n")
    found = read_tree(str(tree))
    assert (found.programs, found.libraries, found.compiles) == (("xsltproc",), ("xmlschema",), True)


def test_a_directory_that_is_no_tree_is_refused(tmp_path):
    with pytest.raises(IvshmemError, match="no such directory"):
        read_tree(str(tmp_path / "none"))
    with pytest.raises(IvshmemError, match="no ACRN source tree"):
        read_tree(str(tmp_path))
    with pytest.raises(IvshmemError, match=r"v2\.1; shared memory regions came with v2\.2"):
        read_tree(str(standin.copy_tree(tmp_path / "old", "2.1")))


def git(folder, *args):
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    environment = {**os.environ, "GIT_COMMITTER_DATE": "1700000000 +0000", "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", *identity, *args], cwd=str(folder), check=True, env=environment, stdout=subprocess.DEVNULL)


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_the_git_state_that_goes_into_the_binary_is_read(tmp_path):
    tree = standin.copy_tree(tmp_path / "tree")
    assert read_tree(str(tree)).git is None
    git(tree, "init", "-q", "-b", "line")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "one")
    git(tree, "tag", "acrn-1")
    state = read_tree(str(tree)).git
    assert (state["branch"], state["tags"], state["dirty"]) == ("line", ["acrn-1"], False)
    assert state["commit_time"] == 1700000000
    # A file that was only touched is no change, although git's own diff-index says so until its index is refreshed.
    os.utime(str(tree / "Makefile"), (5, 5))
    assert read_tree(str(tree)).git == state
    (tree / "Makefile").write_text("changed")
    assert read_tree(str(tree)).git["dirty"]


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_repository_around_the_tree_is_none_of_its_business(tmp_path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "around")
    assert read_tree(str(standin.copy_tree(tmp_path / "tree"))).git is None


# -- what a version needs ----------------------------------------------------------------------------------------------

# Each row was run with the config tools of that version: does it work?
TRIED = [
    ("2.7", "3.11.7", "2.5.3", "1.4.1", True),
    ("2.7", "3.11.7", "5.1.4", "4.3.2", True),
    ("2.4", "3.11.7", "4.8.0", "3.4.5", True),
    ("2.7", "3.13.0", "4.1.5", "2.5.1", True),
    ("2.7", "3.13.0", "2.5.0", "1.10.0", False),
    ("3.0", "3.11.7", "2.4.0", "1.9.2", True),
    ("3.0", "3.11.7", "2.5.0", "1.10.0", True),
    ("3.0", "3.11.7", "2.5.3", "1.9.2", False),
    ("3.0", "3.11.7", "3.0.2", "2.0.4", False),
    ("3.1", "3.11.7", "2.4.0", "1.9.2", False),
    ("3.1", "3.11.7", "2.5.3", "1.11.3", True),
    ("3.2", "3.11.7", "3.0.2", "2.0.4", True),
    ("3.2", "3.13.0", "4.0.1", "2.2.3", False),
    ("3.2", "3.13.0", "3.0.2", "2.1.1", False),
    ("3.3", "3.11.7", "2.4.0", "1.9.2", False),
    ("3.3", "3.11.7", "4.1.5", "2.5.1", True),
    ("3.3", "3.13.0", "4.1.5", "2.5.1", True),
    ("3.3", "3.13.0", "3.0.2", "2.1.1", False),
    ("3.3", "3.11.7", "4.8.0", "3.4.5", False),
    ("3.3", "3.11.7", "5.1.4", "4.3.2", False),
]


@pytest.mark.parametrize(("version", "python", "elementpath", "xmlschema", "works"), TRIED)
def test_library_versions(version, python, elementpath, xmlschema, works):
    found = {"lxml": "6.1.3", "defusedxml": "0.7.1", "elementpath": elementpath, "xmlschema": xmlschema}
    probe = {"python": python, "found": found, "broken": {}}
    if works:
        check_python(tree_of(version), probe, "python3")
    else:
        with pytest.raises(IvshmemError, match=rf"config tools of ACRN v{version}"):
            check_python(tree_of(version), probe, "python3")


@pytest.mark.parametrize("version", ["2.4", "2.7", "3.0", "3.1", "3.2", "3.3"])
@pytest.mark.parametrize("python", ["3.8.18", "3.11.7", "3.12.1"])
def test_the_packages_that_a_message_names_would_do(version, python):
    empty = {"python": python, "found": {}, "broken": {}}
    with pytest.raises(IvshmemError) as caught:
        check_python(tree_of(version), empty, "/usr/bin/python3")
    words = str(caught.value).rpartition("virtual environment with ")[2].split(" and name")[0].split(", ")
    if words[0].startswith("Python"):
        assert (words.pop(0), python) == ("Python 3.11 or older", "3.12.1")
        python = "3.11.7"
    found = {word.partition("==")[0]: word.partition("==")[2] or "1.0" for word in words}
    check_python(tree_of(version), {"python": python, "found": found, "broken": {}}, "python3")


def test_a_message_names_every_problem_of_a_python():
    probe = {"python": "3.11.7", "found": {"lxml": "6.1", "elementpath": "5.0"}, "broken": {"lxml": "ImportError: x"}}
    with pytest.raises(IvshmemError) as caught:
        check_python(tree_of("3.3"), probe, "/opt/venv/bin/python3")
    text = str(caught.value)
    for part in ("/opt/venv", "lxml 6.1 cannot", "defusedxml is missing", "elementpath is 5.0", "xmlschema is missing"):
        assert part in text


def test_old_versions_need_an_old_python():
    probe = {"python": "3.11.7", "found": {"lxml": "6", "kconfiglib": "14"}, "broken": {}}
    with pytest.raises(IvshmemError, match=r"Python 3\.11\.7, and the config tools of ACRN v2\.2 need >=3\.5,<3\.9"):
        check_python(tree_of("2.2", ("lxml", "kconfiglib")), probe, "python3")
    check_python(tree_of("2.2", ("lxml", "kconfiglib")), {**probe, "python": "3.8.18"}, "python3")


def test_the_role_installs_what_the_core_recommends():
    role = standin.TREE.parents[1] / "roles" / "hypervisor"
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert tuple(defaults["hypervisor_venv_packages"]) == PYTHON_PACKAGES
    for name, spec in specs.items():
        assert spec.get("default") == defaults[name]
    assert all(package in str(specs["hypervisor_venv_packages"]) for package in MODERN_PYTHON_PACKAGES)


def test_bounds():
    assert str(Bound()) == "any version"
    assert str(Bound((2, 5), (4,))) == ">=2.5,<4"
    assert Bound((2, 5), (4,)).holds("2.5.0")
    assert not Bound((2, 5), (4,)).holds("4.0")
    assert not Bound((2, 4), (2, 5, 1)).holds("2.5.3")


@pytest.mark.parametrize(
    ("version", "cc", "family", "major", "mend"),
    [
        ("3.1", "gcc", "gcc", 12, "CC=gcc-11"),
        ("2.7", "gcc", "gcc", 14, "CC=gcc-11"),
        ("2.3", "gcc-10", "gcc", 10, "-fcommon"),
        ("3.2", "gcc", "gcc", 12, None),
        ("3.1", "gcc-11", "gcc", 11, None),
        ("3.1", "gcc -Wno-error=address", "gcc", 12, None),
        ("3.1", "clang", "clang", 14, None),
        ("2.3", "gcc -fcommon", "gcc", 10, None),
        ("2.3", "gcc-9", "gcc", 9, None),
    ],
)
def test_compilers(version, cc, family, major, mend):
    if mend is None:
        check_compiler(tree_of(version), cc, family, major)
    else:
        with pytest.raises(IvshmemError, match=mend):
            check_compiler(tree_of(version), cc, family, major)


# -- what ACRN says and makes ------------------------------------------------------------------------------------------


def test_findings_of_the_validator_of_v3():
    log = (
        "/t/schema_slicer.py:22: FutureWarning: This search incorrectly ignores the root element\n"
        "CRITICAL:root:/acrn-config/hv/FEATURES: Unexpected child with tag 'X' at position 4.\n"
        "WARNING:root:/acrn-config/vm[2]: no CPU\n"
        "ERROR:root:/acrn-config/vm[1]: device 01 shall not be used\n"
        "ERROR:root:/acrn-config/vm[1]: device 01 shall not be used\n"
        "ERROR:root:Board b and scenario s are inconsistent: 1 syntax errors, 1 data errors, 0 warnings.\n"
        "make: *** [Makefile:133: hvdefconfig] Error 2\n"
    )
    found = read_findings(log)
    assert found.errors == (
        "/acrn-config/hv/FEATURES: Unexpected child with tag 'X' at position 4.",
        "/acrn-config/vm[1]: device 01 shall not be used",
    )
    assert (found.warnings, found.skipped) == (("/acrn-config/vm[2]: no CPU",), False)


def test_findings_of_the_tools_of_v2():
    log = (
        "Board configurations for b is generated successfully.\n"
        "\x1b[1;31mError\x1b[0m: Scenario xml file validation failed:\n"
        "\x1b[1;31mError\x1b[0m: hv,FEATURES,IVSHMEM,IVSHMEM_REGION,0: The size should be a power of 2.\n"
    )
    assert read_findings(log).errors == ("hv,FEATURES,IVSHMEM,IVSHMEM_REGION,0: The size should be a power of 2.",)


def test_a_skipped_validation_is_seen():
    assert read_findings("ERROR:root:Python package `xmlschema` is not installed.\nThe scenario ...\n").skipped
    assert not read_findings("all is well\n").skipped


def test_telling_lines_are_few_and_tell():
    log = "\n".join(
        [
            *(f"gcc -Werror -c file{number}.c" for number in range(300)),
            "Traceback (most recent call last):",
            '  File "/src/misc/tool.py", line 7, in main',
            "KeyError: 'id'",
            "lib/md.c:10:3: error: the comparison will always evaluate as 'true' [-Werror=address]",
            "make: *** [Makefile:109: hypervisor] Error 2",
        ]
    )
    assert telling_lines(log) == [
        "KeyError: 'id' (tool.py line 7)",
        "lib/md.c:10:3: error: the comparison will always evaluate as 'true' [-Werror=address]",
        "make: *** [Makefile:109: hypervisor] Error 2",
    ]
    assert telling_lines("\n".join(f"x.c:{number}: error: e" for number in range(99)), 5)[-1] == "x.c:98: error: e"
    assert telling_lines("one\n\ntwo\n") == ["one", "two"]


def test_what_acrns_own_check_of_the_vms_says_is_told():
    """misc/hv_prebuild: v2.6 of a scenario with a Service VM and a pre-launched VM of type PRE_STD_VM."""
    log = [
        "gcc-11 -c lib/crypto/mbedtls/sha256.c",
        "sanitize_vm_config: pre-launched vm doesn't has higher severity than SOS ",
        "VM configuration check fail!",
        "make[1]: *** [Makefile:405: pre_build] Error 255",
    ]
    assert telling_lines("\n".join(log)) == [line.strip() for line in log[1:]]
    log[1] = "vm0: vcpu1 clos(9) exceed the max clos(7).VM configuration check fail!"
    assert telling_lines("\n".join(log[:2])) == log[1:2]
    assert telling_lines("VM configuration check pass!\nmake: *** [Makefile:9: a] Error 1")[0].startswith("make: ")


LINKER = {
    "larger than its memory": [
        "/usr/bin/ld: /w/O/hypervisor/acrn.out section `.bss' will not fit in region `ram'",
        "/usr/bin/ld: region `ram' overflowed by 35682468 bytes",
        "collect2: error: ld returned 1 exit status",
        "make: *** [Makefile:104: hypervisor] Error 2",
    ],
    "too high for it": [
        "arch/x86/boot/cpu_primary.S:104: Warning: value 0x100000000 truncated to 0x0",
        "/src/hypervisor/arch/x86/boot/cpu_primary.S:236:(entry+0xb1): relocation truncated to fit: R_X86_64_32S "
        "against `entry'",
        "collect2: error: ld returned 1 exit status",
    ],
    "without a passthrough device": [
        "/usr/bin/ld: /tmp/cc56cw8C.o:(.data.rel+0x80): undefined reference to `vm0_pci_devs'",
        "collect2: error: ld returned 1 exit status",
        "make: *** [Makefile:402: pre_build] Error 2",
    ],
}


@pytest.mark.parametrize("what", LINKER)
def test_what_the_linker_says_is_told_and_what_it_means(what):
    lines = LINKER[what]
    noise = ["/usr/bin/ld: warning: trampoline.o: missing .note.GNU-stack section implies executable stack"]
    more = [line.replace("S:236", f"S:{number}") for line in lines if "relocation" in line for number in range(20)]
    told = telling_lines("\n".join([*noise, *lines[:-1], *more, lines[-1]]))
    assert told == lines
    assert what in meaning(told)
    assert meaning(lines[2:]) == ""


def test_what_xmlschema_says_is_told():
    log = """Traceback (most recent call last):
  File "/src/misc/config_tools/scenario_config/validator.py", line 30, in validate
xmlschema.validators.exceptions.XMLSchemaChildrenValidationError: failed validating <Element 'FEATURES'>:

Reason: Unexpected child with tag 'IVSHMEM' at position 9.

Schema component:
Path: /acrn-config/hv/FEATURES
"""
    assert telling_lines(log)[1:] == [
        "Reason: Unexpected child with tag 'IVSHMEM' at position 9.",
        "Path: /acrn-config/hv/FEATURES",
    ]


def test_a_generated_header_is_read():
    header = (
        '#define IVSHMEM_SHM_REGION_0          "hv:/a"\n'
        '#define IVSHMEM_SHM_REGION_1          "hv:/b"\n'
        "#define IVSHMEM_SHM_SIZE              0x600000UL\n"
        "#define IVSHMEM_SHM_REGIONS            \\\n"
        "{ \\\n.name = IVSHMEM_SHM_REGION_0, \\\n.region_id = 4096, \\\n.size = 0x200000UL, \\\n}, \\\n"
        "{ \\\n.name = IVSHMEM_SHM_REGION_1, \\\n.size = 0x400000UL,\t\t/* 4M */ \\\n},\n\n#endif\n"
    )
    assert read_header(header) == (BuiltRegion("hv:/a", 2 * MB, 4096), BuiltRegion("hv:/b", 4 * MB))
    assert read_header("#ifndef IVSHMEM_CFG_H\n#endif\n") == ()
    with pytest.raises(IvshmemError, match="cannot be read"):
        read_header(header.replace("0x200000UL", "U"))


def test_any_header_of_the_standin_form_is_read_back():
    hypothesis = pytest.importorskip("hypothesis")
    strategies = pytest.importorskip("hypothesis.strategies")
    region = strategies.builds(
        BuiltRegion,
        strategies.from_regex(r"hv:/[A-Za-z0-9_]{1,27}", fullmatch=True),
        strategies.sampled_from([MB << power for power in range(1, 10)]),
        strategies.integers(0, 65535),
    )

    @hypothesis.given(strategies.lists(region, max_size=8))
    def check(regions):
        lines = [f'#define IVSHMEM_SHM_REGION_{index} "{one.name}"' for index, one in enumerate(regions)]
        lines.append("#define IVSHMEM_SHM_REGIONS \\")
        for index, one in enumerate(regions):
            values = (
                f".name = IVSHMEM_SHM_REGION_{index}",
                f".region_id = {one.region_id}",
                f".size = {one.size:#x}UL",
            )
            lines += ["{ \\", *(f"{value}, \\" for value in values), "}, \\"]
        assert read_header("\n".join(lines)) == tuple(regions)

    check()


def test_the_regions_that_a_scenario_asks_for():
    v3 = read_scenario(standin.v3(("a", 2), ("b", 4, "Device Model")), "x")
    assert expected_regions(v3, (3, 3)) == (BuiltRegion("hv:/a", 2 * MB),)
    texts = ("hv:/a, 2, 1:2", "dm:/b, 4, 1:2")
    assert expected_regions(read_scenario(standin.v2(*texts, enabled="n"), "x"), (2, 7)) == ()
    # v2.5 to v2.7 compile a dm:/ text in as if it were hv:/.
    both = expected_regions(read_scenario(standin.v2(*texts), "x"), (2, 7))
    assert [region.name for region in both] == ["hv:/a", "dm:/b"]
    with pytest.raises(IvshmemError, match=r"line 2 cannot be read"):
        expected_regions(read_scenario(standin.v2("rubbish"), "x"), (2, 7))


def test_region_ids_count_where_the_version_has_them():
    text = standin.v3(("a", 2)).replace(b"<IVSHMEM_VMS>", b"<IVSHMEM_REGION_ID>4096</IVSHMEM_REGION_ID><IVSHMEM_VMS>")
    scenario = read_scenario(text, "x")
    assert [expected_regions(scenario, version)[0].region_id for version in ((3, 2), (3, 3))] == [0, 4096]


@pytest.mark.parametrize(
    ("path", "data", "wanted", "name"),
    [
        ("/a/paint-line.xml", standin.v3(), None, "paint-line"),
        ("/a/hostA/scenario.xml", standin.v3(), None, "hostA"),
        ("/a/paint-line.xml", standin.v3(), "other", "other"),
        ("/a/file.xml", standin.v2(), None, "bench_line"),
        ("/a/file.xml", standin.v2(), "other", "other"),
    ],
)
def test_scenario_names(path, data, wanted, name):
    assert scenario_name(path, read_scenario(data, path), wanted) == name


@pytest.mark.parametrize("name", ["a b", "$(x)", "a/b", "-x", "a.xml"])
def test_names_that_make_cannot_take(name):
    with pytest.raises(IvshmemError, match="cannot be a scenario name"):
        scenario_name("/a/x.xml", read_scenario(standin.v3(), "x"), name)


# -- key and store -----------------------------------------------------------------------------------------------------

INPUTS = {"format": 1, "name": "x", "make_args": ["A=1", "B=2"], "environment": {}, "release": None}


def test_a_key_follows_every_input_and_no_order_of_names():
    keys = {
        key_of(inputs)
        for inputs in (
            INPUTS,
            {**INPUTS, "name": "y"},
            {**INPUTS, "make_args": ["B=2", "A=1"]},
            {**INPUTS, "make_args": ["A=1B=2"]},
            {**INPUTS, "environment": {"A": "1"}},
            {**INPUTS, "release": False},
        )
    }
    assert len(keys) == 6
    assert key_of(dict(reversed(list(INPUTS.items())))) == key_of(INPUTS)
    assert len(key_of(INPUTS)) == 32


@pytest.fixture(name="artifact")
def _artifact(tmp_path):
    key = key_of(INPUTS)
    folder = tmp_path / key
    folder.mkdir()
    (folder / "acrn.bin").write_bytes(b"bytes")
    (folder / "build.log").touch()
    manifest = {"key": key, "board": "b", "name": "x", "inputs": INPUTS, "outputs": _store.outputs(str(folder))}
    region = {"name": "hv:/a", "size": 2, "region_id": 0}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "regions": [region], "warnings": []}))
    return folder


def manifest_with(**keys):
    """What changes keys of an artefact's manifest; one that is None goes."""

    def damage(folder):
        manifest = {**json.loads((folder / "manifest.json").read_text()), **keys}
        kept = {key: value for key, value in manifest.items() if value is not None}
        (folder / "manifest.json").write_text(json.dumps(kept))

    return damage


def no_log_in_the_manifest(folder):
    manifest_with(outputs={"acrn.bin": _store.outputs(str(folder))["acrn.bin"]})(folder)


def pipe_for_a_log(folder):
    (folder / "build.log").unlink()
    os.mkfifo(folder / "build.log")


def test_a_whole_artefact_is_found(artifact):
    assert find_artifact(str(artifact.parent), artifact.name)["name"] == "x"
    assert last_manifest(str(artifact.parent), "b", "x")["key"] == artifact.name
    assert last_manifest(str(artifact.parent), "b", "y") is None
    assert last_manifest(str(artifact.parent / "none"), "b", "x") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_text("null"),
        lambda folder: (folder / "manifest.json").write_text("[" * 100000),
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff{}"),
        lambda folder: (folder / "manifest.json").write_bytes(b" " * (5 << 20) + b"{}"),
        *(manifest_with(**{key: None}) for key in ("key", "name", "board", "regions", "warnings", "inputs", "outputs")),
        *(manifest_with(regions=regions) for regions in ("x", [3], [{}], [{"name": "a", "size": 2}])),
        *(manifest_with(outputs=outputs) for outputs in ([], {}, {"acrn.bin": 3, "build.log": None})),
        no_log_in_the_manifest,
        manifest_with(warnings="x"),
        pipe_for_a_log,
        lambda folder: (folder / "build.log").unlink(),
        lambda folder: (folder / "acrn.bin").unlink(),
        lambda folder: (folder / "acrn.bin").write_bytes(b"byteS"),
        lambda folder: (folder / "acrn.bin").write_bytes(b"byte"),
        lambda folder: folder.rename(folder.parent / ("0" * 32)),
    ],
)
def test_what_is_damaged_is_no_artefact(artifact, damage):
    damage(artifact)
    assert find_artifact(str(artifact.parent), artifact.name) is None
    last_manifest(str(artifact.parent), "b", "x")
    assert find_artifact(str(artifact.parent), "0" * 32) is None


def test_a_work_directory_of_others_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(IvshmemError, match="not empty and was not made by this module"):
        _store.own_folder(str(tmp_path))
    assert os.listdir(str(tmp_path)) == ["thesis.txt"]
    _store.own_folder(str(tmp_path / "new"))
    (tmp_path / "new" / "O").mkdir()
    _store.own_folder(str(tmp_path / "new"))


# -- requests ----------------------------------------------------------------------------------------------------------


def request_of(**params):
    common = {"source": "/src", "board": "b", "scenario": "s", "artifacts_dir": "/art", "work_dir": "/work"}
    return Request(**{**common, **params})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"make_args": ("-B",)}, "not of the form VARIABLE=value"),
        ({"make_args": ("O=/x",)}, "O cannot be given"),
        ({"make_args": ("RELEASE=y",)}, "use the release parameter"),
        ({"environment": {"MAKEFLAGS": "-n"}}, "MAKEFLAGS cannot be given"),
        ({"source": "/src with space"}, "white space"),
        ({"work_dir": "/work/$(x)"}, "white space or one of"),
    ],
)
def test_what_would_make_another_build_is_refused(params, message):
    with pytest.raises(IvshmemError, match=message.replace("(", r"\(")):
        _decide._check_words(request_of(**params))


def test_variables_are_taken_apart():
    assert _decide._check_words(request_of(make_args=("CC=gcc -A=1", "X="))) == {"CC": "gcc -A=1", "X": ""}


def test_a_binary_proves_what_it_is(tmp_path):
    regions = (BuiltRegion("hv:/a", 2 * MB),)
    plan = _model.Plan(request_of(), tree_of("3.3"), "k", {}, "line", "bench", b"", b"", regions, (), "", "cc", {})
    good = b"\0" * 16 + b"\xd6\x50\x52\xe8" + b"bench\0line\0hv:/a\0"
    _judge.check_binary(good, plan)
    for bad, message in (
        (good.replace(b"\xd6", b"\xd7"), "multiboot"),
        (good.replace(b"bench", b"wench"), "board name 'bench'"),
        (good.replace(b"line", b"lime"), "scenario name 'line'"),
        (good.replace(b"hv:/a", b"hv:/b"), r"holds the regions \['hv:/b'\], the scenario asks for \['hv:/a'\]"),
        (good + b"dm:/c\0", "dm:/c"),
        (good[16 + 4 :], "multiboot"),
    ):
        with pytest.raises(BuildError, match=message):
            _judge.check_binary(bad, plan)


def test_only_the_compiler_says_which_path_options_it_has(tmp_path):
    path = tmp_path / "cc"
    environment = {"PATH": os.environ["PATH"]}

    def maps(body):
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return _tools.prefix_maps(str(path), "/src", "/out", environment)

    assert len(maps("exit 0")) == 4
    lacking = "case $1 in -ffile*) echo \"cc: error: unrecognized option '$1'\"; exit 1 ;; esac"
    assert maps(lacking) == ["-fdebug-prefix-map=/src=/acrn", "-fdebug-prefix-map=/out=/acrn-build"]
    with pytest.raises(IvshmemError, match=r"ends with code 1: cc: fork: .* bytes of the build depend"):
        maps("echo 'cc: fork: Resource temporarily unavailable'; exit 1")


@pytest.mark.parametrize("tool", ["make", "iasl", "objcopy"])
def test_a_tool_that_warns_once_makes_no_other_key(tmp_path, tool):
    """What it answers is on its standard output."""
    tree = _model.Tree(str(tmp_path), (3, 3), "3.3", "", (), (), False, None)
    path = tmp_path / tool
    versions = []
    for warning in ("", f"{tool}: warning: 3.14 locales cannot be set", "9.9"):
        path.write_text(f"#!/bin/sh\necho '{warning}' >&2\necho 'GNU {tool} 4.3'\n")
        path.chmod(0o755)
        versions.append(_tools.toolchain_of(tree, {tool: str(path)}, "cc", {}, {"PATH": os.environ["PATH"]}))
        assert _ask.first_line([str(path)], {}) == f"GNU {tool} 4.3"
    assert versions == [{tool: f"GNU {tool} 4.3"}] * 3


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_warning_of_git_is_no_state_of_the_tree(tmp_path):
    tree = standin.copy_tree(tmp_path / "tree")
    user = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=m"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *user, *words], cwd=tree, check=True)
    before = read_git(str(tree), (3, 3))
    assert before["dirty"] is False
    # "warning: refname 'HEAD' is ambiguous." at each call that names it.
    subprocess.run(["git", "update-ref", "refs/heads/HEAD", "HEAD"], cwd=tree, check=True)
    after = read_git(str(tree), (3, 3))
    assert {**after, "branch": before["branch"]} == before


@pytest.mark.parametrize("tool", ["make", "iasl", "git"])
def test_a_tool_that_fails_once_makes_no_other_key(tmp_path, tool):
    path = tmp_path / tool
    path.write_text(f"#!/bin/sh\necho '{tool}: fork: Resource temporarily unavailable'\nexit 1\n")
    path.chmod(0o755)
    with pytest.raises(IvshmemError, match=f"{tool} --version: ends with code 1: {tool}: fork: .* bytes of the build"):
        _ask.ask([str(path), "--version"], {"PATH": os.environ["PATH"]})
    tree = _model.Tree(str(tmp_path), (3, 3), "3.3", "", (), (), False, None)
    with pytest.raises(IvshmemError, match="bytes of the build"):
        _tools.toolchain_of(tree, {tool: str(path)}, "cc", {}, {"PATH": os.environ["PATH"]})


@pytest.mark.parametrize("reads", [read_tree, _store.outputs, lambda folder: _judge.find_files(folder, "Makefile")])
def test_a_directory_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch, reads):
    """What is left out of a digest or of a manifest would be found out by nobody."""
    tree = str(standin.copy_tree(tmp_path / "tree"))
    reads(tree)
    scandir = os.scandir

    def failing(path="."):
        if str(path).endswith("misc/config_tools"):
            raise OSError(errno.EIO, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(IvshmemError, match=r"config_tools: cannot be read: Input/output error"):
        reads(tree)
