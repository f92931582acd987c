# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest without Python is seen, planned for and changed as the module does it, in each shell."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils import _lock
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _act, _binding, _kernel, _udev
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._binding import Wish
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._kernel import RULES, UIO, VFIO
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.modules import guest_device
from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _guest_shell
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._door import Refused
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import (
    RELEASE,
    FakeKernel,
    any_wish,
    devices,
)
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_shell import (
    ACTS,
    SHELLS,
    Guest,
    state_of,
    tell,
)

A, B, C = "0000:00:06.0", "0000:00:10.0", "0000:00:11.0"

pytestmark = [
    pytest.mark.skipif(not os.path.exists(_guest_shell.FILES), reason="the role is not beside the tests"),
    pytest.mark.skipif(not SHELLS, reason="no POSIX shell here"),
]


def planned(ask):
    try:
        return ask()
    except IvshmemError as exc:
        return str(exc)


def compare(kernel, wish, shell):
    """The plan, or the message, of both ways."""
    ours = planned(lambda: _binding.plan(_binding.observe(kernel, wish), wish))
    assert planned(lambda: Guest(kernel, shell).plan(wish)) == ours
    return ours


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def shell(request):
    return request.param


def three(folder):
    kernel = FakeKernel(folder)
    kernel.add(A, size=2)
    kernel.add(B, size=4, subsystem=(0x8086, 0x1001), iommu_group="7")
    kernel.add(C, size=8, vectors=0)
    return kernel


@pytest.mark.parametrize(
    "wish",
    [
        Wish(),
        Wish(group="ivshmem"),
        Wish(group="nobody-has-it"),
        Wish(mode=0o640, persist=False),
        Wish(driver=VFIO),
        Wish(driver=VFIO, unsafe_noiommu=True),
        Wish(method=_kernel.DRIVER_OVERRIDE),
        Wish(devices=devices({"name": "a", "bdf": "00:10.0"}), group="ivshmem", mode=0o666),
        Wish(devices=devices({"name": "a", "region_id": 0x1001})),
        Wish(devices=devices({"name": "a", "size": 8}, {"name": "b", "bdf": "00:06.0", "size": 2}), exclusive=True),
        Wish(present=False),
        Wish(devices=()),
    ],
)
def test_same_plan(tmp_path, shell, wish):
    kernel = three(tmp_path / "guest")
    tell(kernel)
    before = kernel.snapshot()
    compare(kernel, wish, shell)
    if not wish.unsafe_noiommu and wish.driver == UIO and wish.group != "nobody-has-it":
        state = _binding.observe(kernel, wish)
        _act.apply(kernel, _binding.plan(state, wish), state)
        assert not compare(kernel, wish, shell).changed
    else:
        assert kernel.snapshot() == before


@pytest.mark.parametrize(
    ("build", "wish"),
    [
        (lambda k: k.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"), Wish()),
        (lambda k: k.put(RULES, "# mine\n"), Wish()),
        (lambda k: k.put(RULES, b"\xff\x00\x1b[2J no text"), Wish()),
        (lambda k: k.put(RULES, f"{_udev.MARKER}\n\n# caf\u00e9 \udcff\n".encode("utf-8", "surrogateescape")), Wish()),
        (lambda k: os.unlink(k.path("/run/udev/control")), Wish()),
        (lambda k: k.put(f"/lib/modules/{RELEASE}/modules.dep", "kernel/fs/ext4.ko:\n"), Wish()),
        (lambda k: k.put(f"/lib/modules/{RELEASE}/modules.builtin", "kernel/x/uio-pci-generic.ko\n"), Wish()),
        (lambda k: k.put("/etc/os-release", 'NAME="x"\nID="ubuntu"\n'), Wish(driver=VFIO)),
        (lambda k: k.put(_kernel.NOIOMMU_CONF, "options vfio x=1\n"), Wish()),
        (lambda k: setattr(k, "kernel_release", "4.12.9"), Wish()),
        (lambda k: setattr(k, "kernel_release", "3.16.0-4"), Wish()),
        (lambda k: k.add(B, driver="other"), Wish()),
        (lambda k: k.add(B, iommu_group="9"), Wish(driver=VFIO)),
        (lambda k: shutil.rmtree(k.path("/sys/bus/pci/devices/0000:00:06.0")), Wish()),
        (lambda k: k.put("/sys/bus/pci/devices/0000:00:06.0/resource", "0x1 0x0\nnonsense\n"), Wish()),
        (lambda k: k.put("/sys/bus/pci/devices/0000:00:06.0/config", b"\0" * 64), Wish()),
        (lambda k: k.put("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n"), Wish()),
    ],
)
def test_same_answer_to_an_odd_guest(tmp_path, shell, build, wish):
    kernel = FakeKernel(tmp_path / "guest")
    kernel.add(A)
    build(kernel)
    if kernel.kernel_release != RELEASE:
        kernel.put(f"/lib/modules/{kernel.kernel_release}/modules.dep", f"x/{UIO}.ko:\n")
    compare(kernel, wish, shell)


def test_all_can_be_given_back_where_nothing_could_be_bound(tmp_path, shell):
    kernel = FakeKernel(tmp_path / "guest", udev=False)
    kernel.add(A)
    kernel.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    assert compare(kernel, Wish(devices=(), exclusive=True), shell).actions == ()


WANTED = [
    {"name": "a", "bdf": "00:07.0"},
    {"name": "a", "bdf": "0:6.0"},
    {"name": "a", "bdf": "0000:00:06.0"},
    {"name": "a", "bdf": " 00:06.0 "},
    {"name": "a", "bdf": "00:0A.0"},
    {"name": "a", "bdf": "0a:0B.1", "slot": 11},
    {"name": "a", "bdf": "06.0"},
    {"name": "a", "slot": 16},
    {"name": "a", "slot": 32},
    {"name": "a", "slot": 16, "bdf": "00:06.0"},
    {"name": "a", "slot": 6, "bdf": "00:06.0"},
    {"name": "a", "bdf": "00:06.0", "size": 4},
    {"name": "a", "size": 2},
    {"name": "a", "bdf": "00:10.0", "region_id": 0x1002},
    {"name": "a", "region_id": 0x1005},
    {"name": "a", "region_id": 0, "size": 4},
    {"name": "a", "region_id": 0},
    {"name": "a" * 64, "slot": 6},
    {"name": "a" * 65, "slot": 6},
    {"name": ".", "slot": 6},
    {"name": ".a", "slot": 6},
    {"name": "-a", "slot": 6},
    {"name": "A_b-c.d", "slot": 6},
    {"name": "a'; reboot; '", "slot": 6},
    {"name": "a,b", "slot": 6},
    {"name": "", "slot": 6},
    {"slot": 6},
]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_same_devices(tmp_path, shell, wanted):
    """What a user writes is read once, in one place, before any guest is asked: here and in the module alike."""
    kernel = FakeKernel(tmp_path / "guest")
    kernel.add(A, size=2)
    kernel.add(B, size=2, subsystem=(0x8086, 0x1001))
    defaults = {name: spec.get("default") for name, spec in guest_device.ARGUMENTS["argument_spec"].items()}
    params = {**defaults, "devices": [wanted]}

    def by_module():
        wish = guest_device.wish_of(params)
        return guest_device.result_of(kernel, _binding.plan(_binding.observe(kernel, wish), wish), True)

    guest = Guest(kernel, shell)
    ours = planned(by_module)
    theirs = planned(lambda: _guest_shell.run(guest, guest_device, params, True, True))
    for result in (ours, theirs):
        if isinstance(result, dict):
            assert result.pop("warnings", []) == []
            for device in result["devices"]:
                del device["iv_position"]
    assert theirs == ours
    assert len(guest.commands) <= 1


def test_any_history_is_planned_alike():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    wishes = any_wish(st)

    # Each example starts some shells, which start some hundred processes.
    @hypothesis.settings(max_examples=max(10, hypothesis.settings().max_examples // 4))
    @hypothesis.given(st.lists(wishes, min_size=1, max_size=3), st.sampled_from(SHELLS))
    def check(sequence, shell):
        with tempfile.TemporaryDirectory() as folder:
            kernel = FakeKernel(os.path.join(folder, "guest"))
            kernel.add(A, iommu_group="1")
            kernel.add(B, subsystem=(0x8086, 0x1000), iommu_group="2")
            kernel.add(C, driver="somebody", iommu_group="3")
            for wish in sequence:
                if isinstance(compare(kernel, wish, shell), _binding.Plan):
                    state = _binding.observe(kernel, wish)
                    _act.apply(kernel, _binding.plan(state, wish), state)

    check()


# -- acting ------------------------------------------------------------------------------------------------------------


HISTORY = [
    Wish(devices=devices({"name": "a", "bdf": "00:06.0"}, {"name": "b", "bdf": "00:10.0"}), group="ivshmem"),
    Wish(devices=devices({"name": "c", "bdf": "00:10.0"}), exclusive=True, persist=False, mode=0o640),
    Wish(method=_kernel.DRIVER_OVERRIDE, exclusive=True),
    Wish(driver=VFIO, force=True, devices=devices({"name": "b", "bdf": "00:10.0"}), exclusive=True),
    Wish(present=False),
]


def test_a_history_ends_as_with_the_module(tmp_path, shell):
    ours, theirs = three(tmp_path / "module"), three(tmp_path / "shell")
    for wish in HISTORY:
        state = _binding.observe(ours, wish)
        _act.apply(ours, _binding.plan(state, wish), state)
        guest = Guest(theirs, shell, ACTS)
        seen, todo = guest.act(wish)
        assert todo.changed and len(guest.commands) == 2
        assert state_of(theirs) == state_of(ours)
        # What is told afterwards is of afterwards.
        assert _binding.observe(seen, wish) == _binding.observe(ours, wish)
        guest.commands.clear()
        again = guest.act(wish)[1]
        if wish.present:
            assert (again.actions, len(guest.commands)) == ((), 1)


FAILURES = [
    (lambda k: k.modules.clear(), Wish(), "modprobe uio_pci_generic failed"),
    (lambda k: k.put("/lib/modules/6.1.0-test/modules.dep", ""), Wish(), "has no module"),
    (lambda k: None, Wish(group="nobody-has-it"), "the guest has no group 'nobody-has-it': create it first"),
    (
        lambda k: setattr(k, "attach", lambda *_words: False),
        Wish(),
        "function 00:06.0 was not bound to uio_pci_generic",
    ),
    (lambda k: setattr(k, "udev", lambda *_words: None), HISTORY[0], "udev has not made /dev/ivshmem/a for uio3"),
    (lambda k: None, Wish(driver=VFIO, unsafe_noiommu=True), "was built without CONFIG_VFIO_NOIOMMU"),
]


@pytest.mark.parametrize(("build", "wish", "told"), FAILURES, ids=[told[:20] for _build, _wish, told in FAILURES])
def test_a_step_that_fails_is_told_as_by_the_module_and_files_come_back(tmp_path, shell, build, wish, told):
    kernels = []
    messages = []
    for name in ("module", "shell"):
        kernel = three(tmp_path / name)
        kernel.put(RULES, f"{_udev.MARKER}\n\n# function 0000:00:1f.0 name z driver uio_pci_generic\n")
        build(kernel)
        kernels.append(kernel)
    with pytest.raises(IvshmemError) as ours:
        state = _binding.observe(kernels[0], wish)
        _act.apply(kernels[0], _binding.plan(state, wish), state)
    with pytest.raises(IvshmemError) as theirs:
        Guest(kernels[1], shell, ACTS).act(wish)
    messages = [str(error.value).replace("FATAL: ", "") for error in (ours, theirs)]
    assert told in messages[0] and told in messages[1]
    assert [kernel.text(RULES).count("# function") for kernel in kernels] == [1, 1]
    assert state_of(kernels[1]) == state_of(kernels[0])


@pytest.mark.parametrize("fault", ["sync() { return 1; }", "mv() { echo full >&2; return 1; }"])
def test_a_write_that_fails_is_told(tmp_path, shell, fault):
    kernel = three(tmp_path / "guest")
    old = state_of(kernel)
    with pytest.raises(IvshmemError, match=r"replace /etc/udev/rules\.d/70-acrn-ivshmem\.rules: (full|it failed)"):
        Guest(kernel, shell, f"{ACTS}{fault}\n").act(Wish())
    made = [path for path in state_of(kernel)[0] if path not in old[0]]
    assert sorted(made) == ["/etc", "/etc/udev", "/etc/udev/rules.d"]


def test_what_somebody_else_changes_in_between_is_planned_for_anew(tmp_path, shell):
    kernel = three(tmp_path / "guest")

    class Meanwhile(Guest):
        def __call__(self, command):
            if len(self.commands) == 1:
                self.kernel.load(UIO)
            return super().__call__(command)

    guest = Meanwhile(kernel, shell, ACTS)
    assert "modprobe" not in [action.kind for action in guest.act(Wish())[1].actions]
    assert len(guest.commands) == 4


NO_FLOCK = """\
command() {
    case $1 in
        -v) [ "$2" != flock ] ;;
        stat) shift && /usr/bin/stat "$@" ;;
        chmod) shift && /bin/chmod "$@" ;;
    esac
}
"""


@pytest.mark.parametrize("spoiled", ["open", "group", "link", "folder link", "fifo", "dangling"])
def test_no_lock_where_others_could_hold_it(tmp_path, shell, spoiled):
    """As for modules, which take the same lock. A FIFO would be waited for."""
    kernel = three(tmp_path / "guest")
    lock = kernel.path(_lock.path_of(_kernel.LOCK))
    folder = os.path.dirname(lock)
    os.makedirs(folder, mode=0o700)
    if spoiled in ("open", "group"):
        os.chmod(os.path.dirname(folder), 0o1777 if spoiled == "open" else 0o770)
    elif spoiled == "folder link":
        os.rmdir(folder)
        os.mkdir(f"{folder}-of-somebody")
        os.symlink(f"{folder}-of-somebody", folder)
    elif spoiled == "fifo":
        os.mkfifo(lock)
    else:
        os.symlink("/etc/passwd" if spoiled == "link" else f"{kernel.root}.made", lock)
    tell(kernel)
    before = state_of(kernel)
    with pytest.raises(IvshmemError, match="cannot be locked"):
        Guest(kernel, shell, ACTS).act(Wish())
    assert state_of(kernel) == before
    assert not os.path.exists(f"{kernel.root}.made")


@pytest.mark.parametrize("tool", ["flock", "link"])
def test_one_writer_at_a_time(tmp_path, shell, tool, monkeypatch):
    if tool == "flock" and not shutil.which("flock"):
        pytest.skip("needs flock")
    monkeypatch.setattr(_lock, "LIMIT", 0)
    kernel = three(tmp_path / "guest")
    lock = kernel.path(_lock.path_of(_kernel.LOCK))
    os.makedirs(os.path.dirname(lock))
    functions = ACTS + (NO_FLOCK if tool == "link" else "")
    if tool == "link":
        os.symlink(str(os.getpid()), f"{lock}.link")
        with pytest.raises(IvshmemError, match=f"held the lock .* process {os.getpid()}"):
            Guest(kernel, shell, functions).act(Wish())
        # Of a process that is gone.
        os.unlink(f"{lock}.link")
        os.symlink("999999999", f"{lock}.link")
        assert Guest(kernel, shell, functions).act(Wish())[1].changed
        assert os.listdir(os.path.dirname(lock)) == []
        assert os.stat(kernel.path(RULES)).st_mode & 0o777 == 0o644
        return
    assert Guest(kernel, shell, functions).act(Wish(present=False))[1].actions == ()
    assert Guest(kernel, shell, functions).act(Wish(mode=0o640))[1].changed
    assert os.stat(lock).st_mode & 0o777 == 0o600
    monkeypatch.setenv(_lock.VARIABLE, os.path.dirname(lock))
    told = f"held the lock .* process {os.getpid()} for test"
    with _lock.held(_kernel.LOCK, what="test"), pytest.raises(IvshmemError, match=told):
        Guest(kernel, shell, functions).act(Wish())
    assert Guest(kernel, shell, functions).act(Wish())[1].changed


# -- answers of guests that lie ----------------------------------------------------------------------------------------

HONEST = ["r 6.1.0", "f /etc/os-release", " 49 44 3d", "n /sys/bus/pci/devices 0000:00:06.0", "g 12"]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["g 12"],
        [*HONEST, ""],
        [*HONEST, "z /etc"],
        [*HONEST, "n /sys/bus/pci/devices ../../../etc {{ lookup('pipe', 'id') }}"],
        [*HONEST, "l /a b c"],
        [*HONEST, "a 99999999999 777 /dev/uio0"],
        [*HONEST, "f /a/" + "b" * 300],
        [*HONEST, "f /etc/os-release"],
        [*HONEST, "f /a", "f /a"],
        [*HONEST, " 49 4"],
        [*HONEST, "f /x", *[" 00" * 16] * 4097],
        [*HONEST, *[f"n /sys/bus/pci/devices {number}" for number in range(256)]],
    ],
    ids=lambda lines: (lines or ["nothing"])[-1][:20],
)
def test_what_the_look_does_not_write_is_refused(lines):
    assert _guest_shell.SeenKernel(HONEST).release() == "6.1.0"
    with pytest.raises(Refused):
        _guest_shell.SeenKernel(lines)


@pytest.mark.parametrize(
    "output",
    [
        *("", "changed=1", "acrn.ivshmem: seen", "acrn.ivshmem: failed 1 error", "acrn.ivshmem: other"),
        "acrn.ivshmem: seen\nr 6.1\nacrn.ivshmem: end 1",
        "acrn.ivshmem: seen\nr 6.1\nacrn.ivshmem: end 1 2\nacrn.ivshmem: end 1 2",
        "acrn.ivshmem: seen\nr 6.1\nacrn.ivshmem: end 1 2; reboot",
    ],
)
def test_an_answer_of_another_form_is_refused(output):
    with pytest.raises(Refused):
        _guest_shell.carry_out(lambda _command: output, Wish(present=False), True)


@pytest.mark.parametrize("word", ["failed 0 error", "failed 99 error", "failed 1 error\nx", "done", "failed 1"])
def test_a_failure_of_no_step_is_refused(tmp_path, word):
    guest = Guest(three(tmp_path / "guest"), SHELLS[0])

    def ask(command):
        return f"acrn.ivshmem: {word}" if "main </dev/null" in command else guest(command)

    with pytest.raises(Refused if word != "failed 1 error\nx" else IvshmemError):
        _guest_shell.carry_out(ask, Wish(), False)


def test_no_line_of_a_file_ends_the_script(tmp_path, shell):
    kernel = three(tmp_path / "guest")
    command = _guest_shell.command("x\n")
    end = command.splitlines()[-1]
    hostile = f'{end}\n$(touch x) `touch x` \\ "\n'
    kernel.put(RULES, f"{_udev.MARKER}\n\n# function 0000:00:1f.0 name it's driver -\n{hostile}")
    guest = Guest(kernel, shell, ACTS)
    guest.act(Wish(devices=devices({"name": "a", "bdf": "00:06.0"})))
    assert hostile in kernel.text(RULES)
