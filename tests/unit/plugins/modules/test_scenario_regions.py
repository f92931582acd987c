# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import stat
import time

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.modules import scenario_regions
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.scenarios import block_v2, found

V3 = scenarios.scenario("v3").encode()
V2 = scenarios.scenario("v2").encode()
A, B = "hv:/a, 2, 0:2", "hv:/b, 4, 2:3"


def execute(capsys, check=False, diff=False, **params):
    """Run the module and return its result, without warnings."""
    params = {"acrn_version": "3.3", **{key: str(v) if hasattr(v, "parent") else v for key, v in params.items()}}
    params = {**params, "_ansible_check_mode": check, "_ansible_diff": diff}
    with patch_module_args(params), pytest.raises(SystemExit):
        scenario_regions.main()
    result = json.loads(capsys.readouterr().out)
    result.pop("invocation", None)
    return result


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "line.xml"
    path.write_bytes(V3)
    return path


def state(path):
    """All that tells whether somebody wrote a file, or put another in its place."""
    info = os.stat(str(path))
    return info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_mode, info.st_uid, info.st_gid


def listing(tmp_path):
    return sorted(os.listdir(str(tmp_path)))


def test_check_mode_predicts_and_writes_nothing(capsys, tmp_path, path):
    before = state(path)
    predicted = execute(capsys, check=True, diff=True, path=path, regions=[A])
    assert (path.read_bytes(), state(path), listing(tmp_path)) == (V3, before, ["line.xml"])
    made = execute(capsys, diff=True, path=path, regions=[A])
    assert made == predicted
    assert (made["changed"], made["dialect"], made["acrn_version"]) == (True, "v3", "3.3")
    (diff,) = made["diff"]
    assert diff["before"].encode() == V3
    assert diff["after"].encode() == path.read_bytes()
    assert diff["before_header"] == diff["after_header"] == str(path)


def test_unset_is_not_none(capsys, tmp_path, path):
    assert not execute(capsys, path=path, regions=[], unset="nobody says")["changed"]  # there is nothing to lose
    execute(capsys, path=path, regions=[A, B])
    before = state(path)
    for check in (False, True):
        refused = execute(capsys, check=check, path=path, regions=[], unset="nobody says")
        assert refused["failed"]
        assert f"{path}: nobody says, and this scenario would lose hv:/a, hv:/b;" in refused["msg"]
    assert state(path) == before
    assert execute(capsys, path=path, regions=[A], unset="", state="absent")["changed"]
    assert execute(capsys, path=path, regions=[], unset="")["changed"]


def test_unset_keeps_what_an_earlier_run_has_declared(capsys, tmp_path, path):
    made = tmp_path / "made.xml"
    execute(capsys, src=path, path=made, regions=[A])
    refused = execute(capsys, src=path, path=made, regions=[], unset="nobody says")
    assert refused["failed"] and "would lose hv:/a;" in refused["msg"]


def test_the_second_run_changes_nothing(capsys, path):
    execute(capsys, path=path, regions=[A])
    before = state(path)
    for check in (False, True):
        again = execute(capsys, check=check, diff=True, path=path, regions=[A], backup=True)
        assert (again["changed"], again["diff"], "backup_files" in again) == (False, [], False)
    assert state(path) == before


def test_the_result_tells_places_and_digest(capsys, path):
    wanted = [
        A,
        {"name": "d", "provided_by": "device_model", "size": 8, "vms": [{"name": "POST2", "vbdf": "00:10.0"}, 3]},
    ]
    result = execute(capsys, path=path, regions=wanted)
    places = [
        [(vm["id"], vm["name"], vm["load_order"], vm["vbdf"], vm["slot"]) for vm in region["vms"]]
        for region in result["regions"]
    ]
    assert places == [
        [(0, "PRE0", "pre_launched", "00:08.0", 8), (2, "POST2", "post_launched", "00:08.0", 8)],
        [(2, "POST2", "post_launched", "00:10.0", 16), (3, "POST3", "post_launched", "00:08.0", 8)],
    ]
    assert [(r["name"], r["provided_by"], r["size"], r["region_id"]) for r in result["regions"]] == [
        ("a", "hypervisor", 2, None),
        ("d", "device_model", 8, None),
    ]
    again = execute(capsys, path=path, regions=wanted)
    assert again["digest"] == result["digest"]
    assert (result["before"], again["before"]) == ([], result["regions"])
    less = execute(capsys, path=path, regions=[A])
    assert less["digest"] != result["digest"]
    # The hypervisor knows nothing of regions of the device model.
    assert less["build_digest"] == result["build_digest"]
    assert execute(capsys, path=path, regions=[A.replace(", 2,", ", 4,")])["build_digest"] != result["build_digest"]


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o444])
def test_mode_owner_and_link_stay(capsys, tmp_path, path, mode):
    os.chmod(str(path), mode)
    if os.geteuid() == 0:
        os.chown(str(path), 12, 34)
    owner = (os.stat(str(path)).st_uid, os.stat(str(path)).st_gid)
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link.xml"
    link.symlink_to("../line.xml")
    result = execute(capsys, path=link, regions=[A], backup=True)
    assert os.readlink(str(link)) == "../line.xml"
    after = os.stat(str(path))
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (mode, *owner)
    (backup,) = result["backup_files"]
    assert os.path.dirname(backup) == str(tmp_path)
    with open(backup, "rb") as handle:
        assert handle.read() == V3
    assert listing(tmp_path / "links") == ["link.xml"]


def test_src_stays_and_slots_of_path_are_kept(capsys, tmp_path, path):
    out = tmp_path / "new" / "line.xml"
    predicted = execute(capsys, check=True, diff=True, src=path, path=out, regions=[A, B])
    assert not out.parent.exists()
    assert execute(capsys, diff=True, src=path, path=out, regions=[A, B]) == predicted
    assert path.read_bytes() == V3
    assert found(out.read_bytes(), "v3")["b"][3]["POST2"] == "00:09.0"
    path.write_bytes(V3.replace(b"<RELOC>y", b"<RELOC>n"))
    assert execute(capsys, src=path, path=out, regions=[B])["changed"]
    assert b"<RELOC>n" in out.read_bytes()
    assert found(out.read_bytes(), "v3")["b"][3]["POST2"] == "00:09.0"
    assert not execute(capsys, src=path, path=out, regions=[B])["changed"]


@pytest.mark.parametrize("junk", [b"", b"junk \xff", b"<!DOCTYPE x><x/>"])
def test_src_replaces_whatever_was_at_path(capsys, tmp_path, path, junk):
    out = tmp_path / "out.xml"
    out.write_bytes(junk)
    result = execute(capsys, diff=True, src=path, path=out, regions=[], backup=True)
    assert result["changed"]
    assert out.read_bytes() == V3
    assert execute(capsys, src=path, path=out, regions=[])["changed"] is False


@pytest.mark.parametrize("tag", ["uos", "user_vm"])
def test_launch_xml_is_set_by_the_same_call(capsys, tmp_path, path, tag):
    path.write_bytes(V2)
    launch = tmp_path / "launch.xml"
    launch.write_text(scenarios.launch_xml(tag=tag))
    call = {"path": path, "launch_path": launch, "regions": [A, "dm:/d, 2, 2:3"], "acrn_version": "2.7"}
    predicted = execute(capsys, check=True, diff=True, **call)
    result = execute(capsys, diff=True, backup=True, **call)
    assert len(result.pop("backup_files")) == 2
    assert result == predicted
    assert [diff["after_header"] for diff in result["diff"]] == [str(path), str(launch)]
    assert launch.read_text().count("hv:/") == launch.read_text().count("<shm_region>hv:/a,2</shm_region>") == 1
    assert "dm:/" not in path.read_text() + launch.read_text()
    assert [region["name"] for region in result["regions"]] == ["a", "d"]
    assert execute(capsys, **call)["changed"] is False
    # One that says something else is set right, and the scenario keeps its bytes.
    launch.write_text(scenarios.launch_xml(tag=tag))
    (diff,) = execute(capsys, diff=True, **call)["diff"]
    assert diff["after_header"] == str(launch)


HOSTILE = {
    "empty": b"",
    "truncated": V3[:-30],
    "doctype": b'<!DOCTYPE acrn-config [<!ENTITY x "y">]>' + V3,
    "wrong encoding": b'<?xml version="1.0" encoding="UTF-8"?>' + V3.replace(b"line", b"l\xefne"),
    "nul": V3.replace(b"line", b"\0"),
    "two blocks": V3.replace(b"<IVSHMEM/>", b"<IVSHMEM/><IVSHMEM/>"),
    "block elsewhere": V3.replace(b"<IVSHMEM/>", b"").replace(b"<vm id", b"<IVSHMEM/><vm id", 1),
    "twice the same id": V3.replace(b'id="1"', b'id="0"'),
    "launch XML": scenarios.launch_xml().encode(),
    "path of a link": b"../nuc11tnbi5/shared.xml",
    "huge": V3 + b" " * (17 << 20),
    "no hv": b'<acrn-config><vm id="0"><load_order>SERVICE_VM</load_order></vm></acrn-config>',
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
@pytest.mark.parametrize("check", [False, True])
def test_hostile_files_are_refused_and_left_alone(capsys, tmp_path, path, kind, check):
    path.write_bytes(HOSTILE[kind])
    before = state(path)
    result = execute(capsys, check=check, path=path, regions=[A], backup=True)
    assert result["failed"]
    assert str(path) in result["msg"]
    assert "exception" not in result
    assert (path.read_bytes(), state(path)) == (HOSTILE[kind], before)
    assert listing(tmp_path) == ["line.xml"]


def test_what_cannot_be_a_file_is_refused(capsys, tmp_path, path):
    (tmp_path / "fifo").mkdir()
    os.mkfifo(str(tmp_path / "fifo" / "x"))
    for wrong in (
        tmp_path,
        tmp_path / "nowhere.xml",
        tmp_path / "no" / "where.xml",
        tmp_path / "fifo" / "x",
        path / "x",
    ):
        for more in ({"path": wrong}, {"path": tmp_path / "new" / "out.xml", "src": wrong}):
            result = execute(capsys, regions=[A], **more)
            assert result["failed"], more
            assert "exception" not in result
    for name in ("board_path", "launch_path", "launch_src"):
        more = {"launch_path": tmp_path / "l.xml"} if name == "launch_src" else {}
        assert execute(capsys, path=path, regions=[A], **{**more, name: tmp_path})["failed"]
    assert execute(capsys, src=path, path=path / "x" / "out.xml", regions=[A])["failed"]
    assert path.read_bytes() == V3


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"regions": ["hv:/a, 3, 0:2", "hv:/b, 2, 0:9"]},
            ["2 mistakes", "[docs/rules.md#region-size]", "[docs/rules.md#vm-unknown]", "'a'", "'b'"],
        ),
        (
            {"regions": ["junk", {"name": "b"}]},
            ["3 mistakes", "regions[0]: region 'junk'", "regions[1]: region 'b'"],
        ),
        ({"regions": [A], "acrn_version": "2.7"}, ["[docs/rules.md#version-dialect]"]),
        ({"regions": [A], "acrn_version": "latest"}, ["acrn_version 'latest'"]),
        ({"regions": [None], "state": "absent"}, ["a region to remove"]),
    ],
)
def test_bad_declarations_change_nothing(capsys, path, params, words):
    result = execute(capsys, path=path, **params)
    assert result["failed"]
    assert [word for word in words if word not in result["msg"]] == []
    assert path.read_bytes() == V3


def test_warnings_are_told_and_returned(capsys, path):
    result = execute(capsys, path=path, regions=["hv:/a, 2, SVC:POST2"])
    assert [(finding["rule"], finding["severity"]) for finding in result["findings"]] == [("board-unknown", "warning")]
    assert "board-unknown" in json.dumps(result["warnings"])


def test_version_comes_from_the_tree(capsys, tmp_path, path):
    (tmp_path / "VERSION").write_text("MAJOR_VERSION=3\nMINOR_VERSION=1\n")
    assert execute(capsys, path=path, regions=[A], acrn_version=None)["acrn_version"] == "3.1"
    result = execute(
        capsys, path=path, regions=[{"name": "a", "size": 2, "vms": [0, 2], "region_id": 4096}], acrn_version=""
    )
    assert "[docs/rules.md#region-id-version]" in result["msg"]


def quietly(params):
    """Run the module in a process of its own."""
    with patch_module_args({"acrn_version": "3.3", **params}), open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        scenario_regions.main()


def test_no_update_is_lost(path):
    fork = multiprocessing.get_context("fork")
    names = [f"r{number}" for number in range(8)]
    jobs = [
        fork.Process(
            target=quietly, args=({"path": str(path), "regions": [f"hv:/{name}, 2, 0:2"], "state": "present"},)
        )
        for name in names
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
        assert job.exitcode == 0
    regions = found(path.read_bytes(), "v3")
    assert sorted(regions) == names
    assert len({region[3]["PRE0"] for region in regions.values()}) == 8


def swing(path):
    """Write one content and the other in turn, for ever."""
    while True:
        for regions in ([A], [A, B]):
            with contextlib.suppress(SystemExit):
                quietly({"path": path, "regions": regions})


def test_a_kill_leaves_the_old_or_the_new_file(capsys, tmp_path, path):
    whole = []
    for regions in ([A, B], [A]):
        execute(capsys, path=path, regions=regions)
        whole.append(path.read_bytes())
    moment = random.Random(0)
    fork = multiprocessing.get_context("fork")
    seen = set()
    for number in range(100):
        job = fork.Process(target=swing, args=(str(path),))
        job.start()
        # On a busy machine a run needs longer to get as far as a write.
        time.sleep(moment.uniform(0.01, 0.1) * (1 + number / 25))
        os.kill(job.pid, signal.SIGKILL)
        job.join()
        data = path.read_bytes()
        assert data in whole
        seen.add(data)
        kept = "line.xml.before-acrn-ivshmem"
        assert set(listing(tmp_path)) <= {"line.xml", ".line.xml.ivshmem-new", kept, f"{kept}.new"}
        if (tmp_path / kept).exists():
            assert (tmp_path / kept).read_bytes() == V3
        if number >= 24 and len(seen) == 2:
            break
    assert len(seen) == 2, "no run got as far as a write"
    execute(capsys, path=path, regions=[])
    assert (path.read_bytes(), listing(tmp_path)) == (V3, ["line.xml", kept])


def test_a_v2_scenario_is_turned_off_with_its_last_region(capsys, path):
    path.write_bytes(V2)
    execute(capsys, path=path, regions=[A], acrn_version="2.7")
    assert path.read_text() == scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2"))
    assert execute(capsys, path=path, regions=["a"], state="absent", acrn_version="2.7")["regions"] == []
    assert path.read_bytes() == V2


def test_a_region_that_the_file_has_off_is_a_new_one(capsys, path):
    path.write_text(scenarios.scenario("v2", block_v2("hv:/a, 2, 0:2", enabled="n")))
    before = path.read_bytes()
    assert execute(capsys, path=path, regions=[], acrn_version="2.7")["changed"] is False
    assert path.read_bytes() == before
    result = execute(capsys, path=path, regions=[A], acrn_version="2.7")
    assert (result["changed"], result["before"], [region["name"] for region in result["regions"]]) == (True, [], ["a"])
    assert found(path.read_bytes(), "v2") == ("y", [A])
    result = execute(capsys, path=path, regions=[A], acrn_version="2.7")
    assert (result["changed"], result["before"]) == (False, result["regions"])


def test_places_that_a_host_has_in_use_stay_and_are_kept(capsys, tmp_path):
    path, places = tmp_path / "v2.xml", tmp_path / "places.json"
    path.write_bytes(V2)
    options = {"path": path, "places_path": places, "regions": ["dm:/logs, 2, 2:3"], "acrn_version": "2.7"}
    asking = execute(capsys, ask=True, **options)
    assert (asking["asking"], listing(tmp_path), path.read_bytes()) == (True, ["v2.xml"], V2)
    names = [each["vm"] for each in asking["chosen"]]
    known = {"dm:/logs": {names[0]: "00:05.0"}, "hv:/nothing": {"nobody": "00:06.0", names[0]: "what"}}
    first = execute(capsys, known_places=known, **options)
    assert [vm["vbdf"] for vm in first["regions"][0]["vms"]] == ["00:05.0", "00:1e.0"]
    assert (first["changed"], [each["vm"] for each in first["chosen"]]) == (True, names[1:])
    again = execute(capsys, ask=True, **options)
    assert (again["changed"], again["asking"], again["regions"]) == (False, False, first["regions"])
    # What is declared counts more than what is in use.
    region = {"name": "dm:/logs", "size": 2, "vms": [{"id": 2, "vbdf": "00:07.0"}, 3]}
    moved = execute(capsys, **{**options, "regions": [region]})
    assert [vm["vbdf"] for vm in moved["regions"][0]["vms"]] == ["00:07.0", "00:1e.0"]
    assert moved["before"] == first["regions"]
    places.write_text("[]")
    assert f"{places}: cannot be read" in execute(capsys, **options)["msg"]


@pytest.mark.parametrize("dialect", ["v2", "v3"])
def test_reserved_bytes_are_in_the_plan_and_in_no_file(capsys, tmp_path, dialect):
    path = tmp_path / "line.xml"
    path.write_bytes(V2 if dialect == "v2" else V3)
    options = {"path": path, "places_path": tmp_path / "places", "acrn_version": "2.7" if dialect == "v2" else "3.3"}
    region = {"name": "a", "size": 2, "vms": [0, 2]}
    plain = execute(capsys, regions=[region], **options)
    assert "reserved" not in plain["regions"][0]
    before = {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)}
    for wish in (4096, "0x2000"):
        planned = execute(capsys, regions=[{**region, "reserved": wish}], **options)
        assert (planned["changed"], planned["digest"]) == (False, plain["digest"])
        assert planned["regions"] == [{**plain["regions"][0], "reserved": int(str(wish), 0)}]
        assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)} == before
    refused = execute(capsys, regions=[{**region, "reserved": 100}], **options)
    assert refused["failed"] and "100 bytes of its 2 MB are reserved" in refused["msg"]


def test_places_that_were_chosen_blindly_are_told(capsys, tmp_path, path):
    result = execute(capsys, path=path, regions=[A], unasked="no route to host")
    assert re.search(r"hv:/a in .*00:08\.0.*no route to host", str(result["warnings"]))
    again = execute(capsys, path=path, regions=[A], unasked="no route to host")
    assert again["chosen"] == []


def test_a_file_of_others_is_kept_before_it_is_changed_in_place(capsys, tmp_path, path):
    kept = tmp_path / "line.xml.before-acrn-ivshmem"
    execute(capsys, path=path, regions=[])
    execute(capsys, check=True, path=path, regions=[A])
    assert not kept.exists()
    execute(capsys, path=path, regions=[A])
    execute(capsys, path=path, regions=[A, B])
    assert kept.read_bytes() == V3
    execute(capsys, src=path, path=tmp_path / "result.xml", regions=[A])
    execute(capsys, src=path, path=tmp_path / "result.xml", regions=[B])
    assert listing(tmp_path) == ["line.xml", kept.name, "result.xml"]


@pytest.mark.parametrize(
    "name", [".line.xml.ivshmem-new", "line.xml.before-acrn-ivshmem.new", "line.xml.before-acrn-ivshmem"]
)
def test_a_copy_that_cannot_be_made_keeps_the_file_from_being_changed(capsys, tmp_path, path, name):
    (tmp_path / name).mkdir()
    result = execute(capsys, path=path, regions=[A], names={"path": "scenario_directory"})
    why = "cannot be written: .*was not changed" if name.endswith("new") else "is not a regular file; move it away"
    assert result["failed"] and re.search(rf"scenario_directory: {tmp_path}/line\.xml\S*: {why}", result["msg"])
    assert path.read_bytes() == V3
    assert listing(tmp_path) == sorted(["line.xml", name])


@pytest.mark.parametrize("where", ["directory", "result"])
def test_a_result_without_a_place_names_the_variable_of_its_directory(capsys, tmp_path, path, where):
    place = tmp_path / "results"
    if where == "directory":
        place.write_text("somebody's")
    else:
        (place / "line-1" / ".line.xml.ivshmem-new" / "x").mkdir(parents=True)
    names = {"src": "acrn_scenario", "path": "scenario_directory"}
    result = execute(capsys, src=path, path=place / "line-1" / "line.xml", regions=[A], names=names)
    assert result["failed"] and "exception" not in result
    assert result["msg"].startswith(f"scenario_directory: {place}/line-1"), result["msg"]
