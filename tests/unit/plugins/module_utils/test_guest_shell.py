# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shell script of the role guest plans what the module plans: same steps, same files, same refusals."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils import _pci
from ansible_collections.acrn.ivshmem.plugins.module_utils._pci import RULES, UIO, VFIO, Wish
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import RELEASE, FakeKernel

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[".."] * 4, "roles/guest/files/guest_device.sh")
SHELLS = [shell for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(shell[0])]
A, B, C = "0000:00:06.0", "0000:00:10.0", "0000:00:11.0"

pytestmark = [
    pytest.mark.skipif(not os.path.exists(SCRIPT), reason="the role is not beside the tests"),
    pytest.mark.skipif(not SHELLS, reason="no POSIX shell here"),
]


def arguments(wish):
    result = ["--check", "--driver", wish.driver, "--method", wish.method]
    result += ["--absent"] * (not wish.present) + ["--force"] * wish.force + ["--no-persist"] * (not wish.persist)
    result += ["--exclusive"] * wish.exclusive + ["--unsafe-noiommu"] * wish.unsafe_noiommu
    result += ["--group", wish.group] if wish.group else []
    result += ["--mode", f"{wish.mode:04o}"] if wish.mode is not None else []
    if wish.devices is None:
        return [*result, "--all"]
    for device in wish.devices:
        values = (device.name, device.address and device.address[5:], device.region_id, device.size)
        result += ["--device", ",".join(str(value or "-") for value in values)]
    return result


def by_shell(kernel, wish, shell):
    kernel.put("/etc/group", "".join(f"{name}:x:{gid}:\n" for name, gid in kernel.groups.items()))
    kernel.put("/access", "".join(f"{path} {gid} {mode:o}\n" for path, (gid, mode) in kernel.owners.items()))
    environment = dict(os.environ, ACRN_IVSHMEM_ROOT=kernel.root, ACRN_IVSHMEM_RELEASE=kernel.kernel_release)
    command = [*shell, SCRIPT, *arguments(wish)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = done.stdout.splitlines()
    if done.returncode:
        return None, None, done.stderr.replace("acrn.ivshmem: ", "").strip()
    assert done.stderr == ""
    content = [line[2:] for line in lines if line.startswith("| ")]
    steps = [line for line in lines if not line.startswith("| ")]
    assert steps.pop() == f"changed={int(bool(steps))}"
    return steps, content, None


def by_module(kernel, wish):
    try:
        todo = _pci.plan(_pci.observe(kernel, wish), wish)
    except IvshmemError as exc:
        return None, None, str(exc)
    paths = (_pci.RULES, _pci.RUN_RULES, _pci.NOIOMMU_CONF)
    content = [line for path in paths if path in todo.files for line in todo.files[path][1].splitlines()]
    return [action.describe() for action in todo.actions], content, None


def compare(kernel, wish, shell):
    ours, theirs = by_module(kernel, wish), by_shell(kernel, wish, shell)
    assert theirs[:2] == ours[:2], theirs[2]
    return ours[2], theirs[2]


def devices(*values):
    return _pci.parse_devices([dict(value) for value in values])


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def shell(request):
    return request.param


@pytest.mark.parametrize(
    "wish",
    [
        Wish(),
        Wish(group="ivshmem"),
        Wish(mode=0o640, persist=False),
        Wish(driver=VFIO),
        Wish(driver=VFIO, unsafe_noiommu=True),
        Wish(method=_pci.DRIVER_OVERRIDE),
        Wish(devices=devices({"name": "a", "bdf": "00:10.0"}), group="ivshmem", mode=0o666),
        Wish(devices=devices({"name": "a", "region_id": 0x1001})),
        Wish(devices=devices({"name": "a", "size": 8}, {"name": "b", "bdf": "00:06.0", "size": 2}), exclusive=True),
        Wish(present=False),
        Wish(devices=()),
    ],
)
def test_same_steps_and_files(tmp_path, shell, wish):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, size=2)
    kernel.add(B, size=4, subsystem=(0x8086, 0x1001), iommu_group="7")
    kernel.add(C, size=8, vectors=0)
    compare(kernel, wish, shell)
    if not wish.unsafe_noiommu and wish.driver == UIO:
        state = _pci.observe(kernel, wish)
        _pci.apply(kernel, _pci.plan(state, wish), state)
        assert by_shell(kernel, wish, shell)[0] == []


@pytest.mark.parametrize(
    ("build", "wish"),
    [
        (lambda k: k.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"), Wish()),
        (lambda k: k.put(RULES, "# mine\n"), Wish()),
        (lambda k: os.unlink(k.path("/run/udev/control")), Wish()),
        (lambda k: k.put(f"/lib/modules/{RELEASE}/modules.dep", "kernel/fs/ext4.ko:\n"), Wish()),
        (lambda k: k.put(_pci.NOIOMMU_CONF, "options vfio x=1\n"), Wish()),
        (lambda k: setattr(k, "kernel_release", "4.12.9"), Wish()),
        (lambda k: setattr(k, "kernel_release", "3.16.0-4"), Wish()),
        (lambda k: k.add(B, driver="other"), Wish()),
        (lambda k: None, Wish(driver=VFIO)),
    ],
)
def test_same_refusals_in_the_same_words(tmp_path, shell, build, wish):
    kernel = FakeKernel(tmp_path)
    kernel.add(A)
    build(kernel)
    if kernel.kernel_release != RELEASE:
        kernel.put(f"/lib/modules/{kernel.kernel_release}/modules.dep", f"x/{UIO}.ko:\n")
    ours, theirs = compare(kernel, wish, shell)
    assert ours is not None
    known = "CONFIG_UIO_PCI_GENERIC"
    if known in ours:
        ours, theirs = (text[: text.index(known)] for text in (ours, theirs))
    assert theirs in (ours, f"{ours}, nothing was changed")


def test_all_can_be_given_back_where_nothing_could_be_bound(tmp_path, shell):
    kernel = FakeKernel(tmp_path, udev=False)
    kernel.add(A)
    kernel.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    assert compare(kernel, Wish(devices=(), exclusive=True), shell) == (None, None)


@pytest.mark.parametrize(
    "wanted",
    [
        devices({"name": "a", "bdf": "00:07.0"}),
        devices({"name": "a", "bdf": "00:06.0", "size": 4}),
        devices({"name": "a", "size": 2}),
        devices({"name": "a", "bdf": "00:10.0", "region_id": 0x1002}),
        devices({"name": "a", "region_id": 0x1005}),
    ],
)
def test_both_refuse_devices_that_do_not_fit(tmp_path, shell, wanted):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, size=2)
    kernel.add(B, size=2, subsystem=(0x8086, 0x1001))
    ours, theirs = compare(kernel, Wish(devices=wanted), shell)
    assert ours and theirs


@pytest.mark.parametrize(
    "options", [["--group", 'a"'], ["--mode", "rwx"], ["--device", 'a",00:06.0,-,-'], ["--driver", "x"]]
)
def test_hostile_values_are_refused(tmp_path, shell, options):
    kernel = FakeKernel(tmp_path)
    kernel.add(A)
    environment = dict(os.environ, ACRN_IVSHMEM_ROOT=kernel.root, ACRN_IVSHMEM_RELEASE=RELEASE)
    command = [*shell, SCRIPT, "--check", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("acrn.ivshmem: ")


def test_any_history_is_planned_alike():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    choices = st.one_of(
        st.none(),
        st.lists(st.sampled_from(["00:06.0", "00:10.0", "00:11.0"]), unique=True).map(
            lambda chosen: devices(*({"name": f"n{bdf[3:5]}", "bdf": bdf} for bdf in chosen))
        ),
    )
    wishes = st.builds(
        Wish,
        devices=choices,
        driver=st.sampled_from([UIO, VFIO]),
        method=st.sampled_from([_pci.NEW_ID, _pci.DRIVER_OVERRIDE]),
        present=st.booleans(),
        force=st.just(True),
        persist=st.booleans(),
        exclusive=st.booleans(),
        group=st.sampled_from([None, "ivshmem"]),
    )

    # Each example starts some shells, which start some hundred processes.
    @hypothesis.settings(max_examples=max(10, hypothesis.settings().max_examples // 4))
    @hypothesis.given(st.lists(wishes, min_size=1, max_size=3), st.sampled_from(SHELLS))
    def check(sequence, shell):
        with tempfile.TemporaryDirectory() as folder:
            kernel = FakeKernel(folder)
            kernel.add(A, iommu_group="1")
            kernel.add(B, subsystem=(0x8086, 0x1000), iommu_group="2")
            kernel.add(C, driver="somebody", iommu_group="3")
            for wish in sequence:
                ours, theirs = compare(kernel, wish, shell)
                assert (ours is None) == (theirs is None)
                if ours is None:
                    state = _pci.observe(kernel, wish)
                    _pci.apply(kernel, _pci.plan(state, wish), state)

    check()


@pytest.mark.parametrize("tool", ["", "1"], ids=["flock", "mkdir"])
def test_one_writer_at_a_time(tmp_path, shell, tool):
    if not tool and not shutil.which("flock"):
        pytest.skip("needs flock")
    kernel = FakeKernel(tmp_path)
    lock = kernel.path("/run/acrn-ivshmem/shell.lock")
    environment = dict(os.environ, ACRN_IVSHMEM_ROOT=kernel.root, ACRN_IVSHMEM_LIMIT="0", ACRN_IVSHMEM_NO_FLOCK=tool)

    def run():
        command = [*shell, SCRIPT, "--absent", "--all"]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    assert (run().stdout, run().returncode) == ("changed=0\n", 0)
    assert not os.path.exists(f"{lock}.d")
    owner = f"{lock}.d/pid" if tool else f"{lock}.pid"
    os.makedirs(os.path.dirname(owner), exist_ok=True)
    with open(lock, "a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with open(owner, "w", encoding="utf-8") as named:
            named.write(f"{os.getpid()}\n")
        refused = run()
        assert refused.returncode == 1 and f"process {os.getpid()} of this guest has held" in refused.stderr
    # Of a process that is gone.
    gone = subprocess.Popen(["true"])
    gone.wait()
    with open(owner, "w", encoding="utf-8") as named:
        named.write(f"{gone.pid}\n")
    assert run().stdout == "changed=0\n"
