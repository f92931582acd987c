# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What comes through the door of a host's answer."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import time

import pytest
from ansible.errors import AnsibleError

from ansible_collections.acrn.ivshmem.plugins.action import guest_probe, hypervisor_install
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _door

RETURN = """
devices:
  returned: success
  type: list
  elements: dict
  contains:
    name: {type: str}
    size: {type: int}
    ready: {type: bool}
speed: {type: float, returned: when measured}
free: {type: dict, returned: when there}
"""
GOOD = {"changed": True, "devices": [{"name": "a", "size": 2, "ready": True}], "speed": 3, "free": {"a": [{"b": None}]}}
CONTRACT = _door.Contract(RETURN)


def test_what_is_documented_stays():
    assert CONTRACT.admit(GOOD) == GOOD


def test_nothing_else_does_at_any_depth():
    more = {
        "add_host": {"host_name": "x", "groups": [], "host_vars": {"ansible_connection": "local"}},
        "add_group": "x",
        "ansible_facts": {"ansible_connection": "local", "acrn_vm": "VM2"},
        "ansible_stats": {"data": {"x": 1}},
        "unreachable": True,
        "skipped": True,
        "include": "/etc/passwd",
        "results": [{"unreachable": True}],
        "exception": "x",
        "invocation": {},
        "_ansible_no_log": True,
        "ansible_job_id": "1",
        "stdout": "x",
    }
    devices = [{**GOOD["devices"][0], **more}]
    answer = {**GOOD, **more, "devices": devices, "free": {"a": [{"b": None, "_ansible_x": 1}]}}
    assert CONTRACT.admit(answer) == GOOD


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"devices": None}, None),
        ({"devices": {}}, "devices is a dictionary, and not of the type list"),
        ({"devices": "x"}, "devices is text"),
        ({"devices": [1]}, r"devices\[0\] is a number, and not of the type dict"),
        ({"devices": [None]}, r"devices\[0\] is null"),
        ({"devices": [{"name": []}]}, r"devices\[0\].name is a list, and not of the type str"),
        ({"devices": [{"size": True}]}, r"devices\[0\].size is a boolean"),
        ({"devices": [{"size": 1.0}]}, r"devices\[0\].size is a number, and not of the type int"),
        ({"devices": [{"size": 10**30}]}, "too large"),
        ({"speed": float("nan")}, "no finite number"),
        ({"changed": "yes"}, "changed is text, and not a boolean"),
        ({"failed": 0}, "failed is a number, and not a boolean"),
        ({"rc": []}, "rc is a list"),
        ({"diff": 3}, "diff is a number"),
        ({"diff": {"before": [1], "after": ""}}, "diff.before is a list, and not text"),
        ({"warnings": [[1]]}, "warnings holds a list"),
        ({"free": {"a": "\ud800"}}, "free.a is no text in UTF-8"),
        ({"free": {"\ud800": 1}}, "no text in UTF-8"),
        ({"free": {1: 1}}, "a key that is no text"),
        ({"free": {"a": {1}}}, "free.a is a set"),
    ],
)
def test_a_wrong_type_is_refused_by_name(change, why):
    answer = {**GOOD, **change}
    if why is None:
        assert CONTRACT.admit(answer)["devices"] is None
    else:
        with pytest.raises(_door.Refused, match=why):
            CONTRACT.admit(answer)


def test_what_is_always_there_has_to_be_there():
    with pytest.raises(_door.Refused, match="it lacks devices"):
        CONTRACT.admit({"changed": False})
    assert CONTRACT.admit({"failed": True, "msg": "no"}) == {"failed": True, "msg": "no"}


def nested(depth, inner):
    value = inner
    for _each in range(depth):
        value = {"a": value}
    return value


def test_deep_values_are_refused():
    with pytest.raises(_door.Refused, match="nested too deep"):
        CONTRACT.admit({**GOOD, "free": nested(200, 1)})
    with pytest.raises(_door.Refused, match="nested too deep"):
        _door.read('{"a":' * 100000)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("[]", "it is a list"),
        ("null", "it is a NoneType"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "is no number"),
        ('{"a": ' + "9" * 100000 + "}", "100000 digits"),
        ('{"a": 1', "no JSON"),
    ],
)
def test_text_that_is_no_answer(text, why):
    with pytest.raises(_door.Refused, match=why):
        _door.read(text)


def test_an_answer_may_not_move_the_cursor():
    found = CONTRACT.admit({"failed": True, "msg": "a\x1b[2Jb\r\n\x9bc\u2028d", "warnings": ["\x07"]})
    assert found == {"failed": True, "msg": "a\ufffd[2Jb\ufffd\n\ufffdc\u2028d", "warnings": ["\ufffd"]}


def test_a_long_difference_is_not_compared():
    lines = "".join(f"{number}\n" for number in range(100000))
    assert CONTRACT.admit({**GOOD, "diff": {"before": "", "after": lines}})["diff"] == {
        "prepared": "(a difference that is too long to be shown)\n"
    }
    diff = {"before": {"mode": "1"}, "after": "x\n", "before_header": "h", "other": 1}
    assert CONTRACT.admit({**GOOD, "diff": diff})["diff"] == {
        "before": '{\n    "mode": "1"\n}\n',
        "after": "x\n",
        "before_header": "h",
    }


def test_arguments_are_shown_without_secrets():
    spec = guest_probe.ActionModule.module.ARGUMENTS["argument_spec"]
    step = {"operation": "write", "device": {"name": "a"}, "seed": "secret", "nonce": "secret", "peer": None}
    shown = _door.masked({"steps": [step, {**step, "nonce": None}], "strict": True}, spec)
    assert "secret" not in str(shown)
    assert shown["steps"][1]["nonce"] is None
    assert shown["steps"][0]["device"] == {"name": "a"}
    assert shown["strict"] is True
    # A text is a list of steps to Ansible, too.
    assert "secret" not in str(_door.masked({"steps": str([step])}, spec))
    assert "secret" not in str(_door.masked({"steps": [str(step)]}, spec))


def test_text_is_never_a_template():
    found = CONTRACT.admit({**GOOD, "free": {"a": "{{ lookup('pipe', 'id') }}"}})
    try:
        from ansible._internal._datatag._tags import TrustedAsTemplate
    except ImportError:
        assert type(found["free"]["a"]).__name__ == "AnsibleUnsafeText"
    else:
        assert not TrustedAsTemplate.is_tagged_on(found["free"]["a"])
        text = TrustedAsTemplate().tag("{{ 1 }}")
        assert not TrustedAsTemplate.is_tagged_on(CONTRACT.admit({**GOOD, "free": {"a": text}})["free"]["a"])


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (b"a\x1b[2J\x07\x7f\xc2\x9b\tb\r\n", "a\ufffd[2J\ufffd\ufffd\ufffd\tb\r\n".encode()),
        (b"ok: all\rFAILED\n", "ok: all\ufffdFAILED\n".encode()),
        (rb"C:\foo\bar\new", rb"C:\foo\bar\new"),
        (
            rb'{"a": "\u001b[2J\u009B\b\r \\u001b \\\u001b \r\n\t"}',
            rb'{"a": "\ufffd[2J\ufffd\ufffd\ufffd \\u001b \\\ufffd \r\n\t"}',
        ),
        ("{\u00e4\u20ac}".encode(), "{\u00e4\u20ac}".encode()),
    ],
)
def test_no_answer_speaks_to_a_terminal(said, left):
    assert _door.for_terminals(said) == left
    if said.startswith(b"{") and b'"' in said:
        assert "\x1b" not in json.loads(left)["a"]


@pytest.mark.parametrize("part", [b"\\", b"\n", b"\r", b" ", b"{", b"\\u001b", b"\\r"])
def test_how_long_an_answer_is_read_grows_with_its_length(part):
    def cost(count):
        start = time.process_time()
        _door.for_terminals(b"{" + part * count)
        return time.process_time() - start

    assert min(cost(80_000) / cost(5_000) for _pair in range(3)) < 64


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"path": "a\0b"}, r"path holds U\+0000 \(NUL\) at character 2,"),
        ({"content": "\ud800"}, r"content holds U\+D800 .* at character 1,"),
        ({"vms": [{"name": "x"}, {"name": "x\udcff"}]}, r"vms\[1\]\.name holds U\+DCFF"),
        ({"environment": {"a\ud800": "x"}}, r"a key of environment holds U\+D800"),
    ],
)
def test_an_argument_that_is_no_text_is_named(arguments, place):
    with pytest.raises(AnsibleError, match=place):
        _door.check_texts(arguments)


def test_any_other_argument_is_taken():
    _door.check_texts({"a": ["\x1b\x7f\ud7ff\ue000\U0010ffff", 3, None, True, 1.5, {"b": "ä\n"}]})


class Connection:
    """Answers with so many bytes."""

    def __init__(self, size):
        self.size = size

    def exec_command(self, _command):
        return 0, b"x" * self.size, b""


def test_a_long_answer_is_refused_before_anything_reads_it():
    for size, good in ((_door.BYTES, True), (_door.BYTES + 1, False)):
        connection = Connection(size)
        with _door.limited(connection):
            if good:
                assert len(connection.exec_command("x")[1]) == size
            else:
                with pytest.raises(_door.Refused, match=str(size)):
                    connection.exec_command("x")
        assert len(connection.exec_command("x")[1]) == size


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_an_answer_without_an_end_is_not_waited_for(stream):
    class Endless(Connection):
        def exec_command(self, command):
            with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                try:
                    return 0, *process.communicate()
                finally:
                    process.kill()

        put_file = fetch_file = exec_command

    connection = Endless(0)
    before = signal.getsignal(signal.SIGPROF), signal.getitimer(signal.ITIMER_PROF)
    memory = _door._memory()
    with _door.limited(connection):
        for way in (connection.exec_command, connection.fetch_file):
            with pytest.raises(_door.Refused, match=f"went on after {_door.BYTES} bytes"):
                way(f"exec yes{stream}")
        # What has an end, and takes as long.
        assert len(connection.exec_command(f"yes | head -c {_door.BYTES}")[1]) == _door.BYTES
    # Between two looks a busy machine may read on for a while.
    assert _door._memory() - memory < 1 << 30
    assert (signal.getsignal(signal.SIGPROF), signal.getitimer(signal.ITIMER_PROF)) == before


def test_a_file_without_an_end_does_not_fill_the_disk(tmp_path):
    class Copying(Connection):
        def fetch_file(self, path):
            with open(path, "wb") as handle:
                return subprocess.run(["head", "-c", "100000", "/dev/zero"], stdout=handle, check=False).returncode

        put_file = fetch_file

    path, connection = tmp_path / "file", Copying(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with _door.limited(connection, 50000):
        assert connection.fetch_file(path) != 0
        assert path.stat().st_size <= 50000
        assert connection.put_file(path) == 0
        assert path.stat().st_size == 100000
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
    assert connection.fetch_file(path) == 0


@pytest.mark.parametrize("said", [b"\0a", b"\r\r", rb'{"\b"}', rb'{"\u001b"}'])
def test_an_answer_of_control_characters_alone_is_refused(said):
    with pytest.raises(_door.Refused, match="control characters"):
        _door.for_terminals(said * 200_000)


def test_a_file_is_no_text_for_a_terminal():
    class Piped(Connection):
        def exec_command(self, _command):
            return 0, b"\x1b\r", "\x1b"

        def fetch_file(self, _path):
            return self.exec_command("dd")

    connection = Piped(0)
    with _door.limited(connection):
        assert connection.fetch_file("x") == (0, b"\x1b\r", "\x1b")
        assert connection.exec_command("x") == (0, "\ufffd\ufffd".encode(), "\ufffd")
    assert connection.exec_command("x") == (0, b"\x1b\r", "\x1b")


def test_a_host_gets_files_of_the_build_alone(tmp_path):
    facts = {"size": 1, "sha256": "0" * 64}
    outputs = {"acrn.bin": facts, "scenario.xml": facts, "../../secret": facts, "other": facts}
    artifact = {"manifest.json": json.dumps({"key": "a" * 16, "outputs": outputs}), "scenario.xml": ""}
    files = hypervisor_install.ActionModule._files
    assert files(artifact, ["scenario.xml", "acrn.bin"]) == ["acrn.bin", "scenario.xml"]
    # Not in its own list, and wanted by every host that has none of the build.
    assert files(artifact, ["acrn.bin", "manifest.json"]) == ["acrn.bin", "manifest.json"]
    for wanted in (["../../secret"], ["other"], ["/etc/shadow"], "acrn.bin", [["acrn.bin"]], {"acrn.bin": 1}, 3):
        with pytest.raises(_door.Refused, match="not of this build"):
            files(artifact, wanted)


def test_the_results_of_steps_have_what_they_document_only():
    step = {"operation": "read", "unreachable": True, "failed_when_result": True, "problems": [], "add_host": {}}
    found = guest_probe.ActionModule.contract.admit({"boot_id": None, "results": [step]})
    assert found == {"boot_id": None, "results": [{"operation": "read", "problems": []}]}
