# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import tempfile

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _act, _binding, _functions, _kernel, _udev
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._binding import Wish
from ansible_collections.acrn.ivshmem.plugins.module_utils._guest._kernel import RULES, RUN_RULES, UIO, VFIO
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import (
    FakeKernel,
    any_wish,
    config_space,
    devices,
)

A, B, C = "0000:00:06.0", "0000:00:10.0", "0000:00:11.0"


def converge(kernel, wish):
    """Plan and apply; then a second plan must be empty and keep everything as it is."""
    state = _binding.observe(kernel, wish)
    todo = _binding.plan(state, wish)
    _act.apply(kernel, todo, state)
    again = _binding.plan(_binding.observe(kernel, wish), wish)
    assert again.actions == ()
    assert _binding.diffs(again) == []
    return todo


def kinds(todo):
    return [action.kind for action in todo.actions]


@pytest.fixture
def kernel(tmp_path):
    guest = FakeKernel(tmp_path)
    guest.add(A, size=2)
    return guest


def test_scan_reads_what_sysfs_shows(kernel):
    kernel.add(B, size=512, subsystem=(0x8086, 0x1001), vectors=0, iommu_group="9")
    kernel.put("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
    kernel.put("/sys/bus/pci/devices/0000:00:02.0/device", "0x1110\n")
    first, second = _functions.scan(kernel)
    assert (first.bdf, first.driver, first.size, first.region_id, first.vectors) == ("00:06.0", None, 2 << 20, None, 8)
    assert first.bars[0] == _functions.Bar(0xFEB06000, 256)
    assert first.bars[1] == _functions.Bar(0xFEC06000, 4096)
    assert first.bars[2] == _functions.Bar(0x600000000, 2 << 20)
    assert (second.bdf, second.size, second.region_id, second.vectors) == ("00:10.0", 512 << 20, 0x1001, 0)
    assert second.bars[1] is None
    assert second.iommu_group == "9"


@pytest.mark.parametrize("vectors", [0, 1, 8, 2048])
def test_msix_vectors_follow_the_capability_list(vectors):
    assert _functions.msix_vectors(config_space(vectors)) == vectors


def test_msix_is_unknown_to_an_unprivileged_reader():
    assert _functions.msix_vectors(config_space(8)[:64]) is None


def test_capability_list_that_runs_in_a_circle_ends():
    data = bytearray(config_space(8))
    data[0x50], data[0x51] = 0x05, 0x40
    assert _functions.msix_vectors(bytes(data)) == 0


def test_bind_all_as_the_guide_does(kernel):
    todo = converge(kernel, Wish())
    assert kinds(todo) == ["replace", "reload", "modprobe", "new_id", "bind"]
    assert kernel.driver(A) == UIO
    assert (f"{_kernel.SYSFS}/drivers/{UIO}/new_id", "1af4 1110") in kernel.writes
    # new_id has bound it, so nothing is written to bind.
    assert not [path for path, _text in kernel.writes if path.endswith("/bind")]
    facts = _functions.facts(kernel, _functions.read_function(kernel, A))
    assert (facts["uio"], facts["node"], facts["iv_position"], facts["msix"]) == ("uio3", "/dev/uio3", 7, True)


@pytest.mark.parametrize("duplicate_error", [True, False])
def test_id_that_is_there_already_is_success(tmp_path, duplicate_error):
    kernel = FakeKernel(tmp_path, loaded=[UIO], duplicate_error=duplicate_error)
    kernel.add(A)
    kernel.ids[UIO].append((0x1AF4, 0x1110))
    converge(kernel, Wish())
    assert kernel.driver(A) == UIO


def test_already_bound_by_whatever_way_changes_nothing_without_persistence(kernel):
    kernel.load(UIO)
    kernel.write(f"{_kernel.SYSFS}/drivers/{UIO}/new_id", "1af4 1110")
    for method in (_kernel.NEW_ID, _kernel.DRIVER_OVERRIDE):
        wish = Wish(persist=False, method=method)
        assert _binding.plan(_binding.observe(kernel, wish), wish).actions == ()


@pytest.mark.parametrize("driver", [UIO, VFIO])
@pytest.mark.parametrize("method", [_kernel.NEW_ID, _kernel.DRIVER_OVERRIDE])
def test_selection_leaves_other_functions_alone(kernel, driver, method):
    kernel.owners.clear()
    for address in (B, C):
        kernel.add(address, size=4, iommu_group="1")
    wish = Wish(devices=devices({"name": "x", "bdf": "00:10.0"}), driver=driver, method=method)
    converge(kernel, wish)
    assert (kernel.driver(A), kernel.driver(B), kernel.driver(C)) == (None, driver, None)
    kernel.reboot()
    assert (kernel.driver(A), kernel.driver(B), kernel.driver(C)) == (None, driver, None)
    assert _binding.plan(_binding.observe(kernel, wish), wish).actions == ()


def test_region_id_narrows_the_new_id(tmp_path):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, subsystem=(0x8086, 0x1000))
    kernel.add(B, subsystem=(0x8086, 0x1001))
    converge(kernel, Wish(devices=devices({"name": "x", "region_id": 0x1001})))
    assert (f"{_kernel.SYSFS}/drivers/{UIO}/new_id", "1af4 1110 8086 1001") in kernel.writes
    assert (kernel.driver(A), kernel.driver(B)) == (None, UIO)


def test_foreign_override_is_taken_off(kernel):
    kernel.put(f"{_kernel.SYSFS}/devices/{A}/driver_override", "vfio-pci\n")
    converge(kernel, Wish())
    assert kernel.driver(A) == UIO


def test_function_of_another_driver_is_refused_unless_forced(tmp_path):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, driver="ivshmem_app")
    with pytest.raises(IvshmemError, match=r"00:06\.0 is held by driver 'ivshmem_app'.*force"):
        _binding.plan(_binding.observe(kernel, Wish()), Wish())
    todo = converge(kernel, Wish(force=True))
    assert "unbind" in kinds(todo)
    assert kernel.driver(A) == UIO


def test_change_of_driver_of_our_own_needs_no_force(tmp_path):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, iommu_group="1")
    converge(kernel, Wish())
    converge(kernel, Wish(driver=VFIO))
    assert kernel.driver(A) == VFIO
    kernel.reboot()
    assert kernel.driver(A) == VFIO


def test_absent_undoes_present(kernel):
    kernel.load(UIO)
    before = kernel.snapshot()
    wish = Wish(devices=devices({"name": "shm", "bdf": "00:06.0"}), group="ivshmem")
    converge(kernel, wish)
    assert kernel.link("/dev/ivshmem/shm") == "uio3"
    assert kernel.owners[f"{_kernel.SYSFS}/devices/{A}/resource2"] == (990, 0o660)
    assert kernel.owners["/dev/uio3"] == (990, 0o660)
    converge(kernel, Wish(devices=wish.devices, present=False))
    assert kernel.driver(A) is None
    assert kernel.ids[UIO] == []
    after = kernel.snapshot()
    del after["owners"]["/dev/uio3"]
    folders = {kernel.path(path) for path in ("/etc", "/etc/udev", "/etc/udev/rules.d", "/dev", "/dev/ivshmem")}
    folders.add(kernel.path(f"{_kernel.SYSFS}/devices/{A}/uio"))
    assert {k: v for k, v in after.items() if k not in folders} == {k: v for k, v in before.items() if k not in folders}


def test_absent_after_reboot_takes_the_override_off(kernel):
    converge(kernel, Wish())
    kernel.reboot()
    assert kernel.override(A) == UIO
    assert kernel.driver(A) == UIO
    converge(kernel, Wish(present=False))
    assert kernel.driver(A) is None
    assert kernel.override(A) is None
    kernel.reboot()
    assert kernel.driver(A) is None


@pytest.mark.parametrize("booted", [False, True])
@pytest.mark.parametrize("bdf", [None, "00:06.0"])
def test_absent_gives_back_what_an_earlier_call_bound_to_another_driver(tmp_path, booted, bdf):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, iommu_group="1")
    chosen = devices({"bdf": bdf}) if bdf else None
    converge(kernel, Wish(devices=chosen, driver=VFIO))
    if booted:
        kernel.reboot()
    converge(kernel, Wish(devices=chosen, present=False))
    assert kernel.driver(A) is None
    assert kernel.override(A) is None
    assert kernel.ids[VFIO] == []


def test_absent_leaves_a_function_of_another_driver(tmp_path):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, driver=VFIO, iommu_group="1")
    assert converge(kernel, Wish(present=False)).actions == ()
    assert kernel.driver(A) == VFIO


def test_absent_of_what_is_not_there_is_no_error(tmp_path):
    kernel = FakeKernel(tmp_path)
    assert converge(kernel, Wish(present=False)).actions == ()
    assert converge(kernel, Wish(present=False, devices=devices({"name": "x", "bdf": "00:06.0"}))).actions == ()


def test_two_calls_keep_each_other_and_exclusive_releases(kernel):
    kernel.add(B, size=4)
    one = Wish(devices=devices({"name": "one", "bdf": "00:06.0"}))
    two = Wish(devices=devices({"name": "two", "bdf": "00:10.0"}))
    converge(kernel, one)
    converge(kernel, two)
    assert _binding.plan(_binding.observe(kernel, one), one).actions == ()
    kernel.reboot()
    assert (kernel.driver(A), kernel.driver(B)) == (UIO, UIO)
    converge(kernel, Wish(devices=two.devices, exclusive=True))
    assert (kernel.driver(A), kernel.driver(B)) == (None, UIO)
    assert "one" not in kernel.text(RULES)
    converge(kernel, Wish(devices=(), exclusive=True))
    assert (kernel.driver(A), kernel.driver(B)) == (None, None)
    assert kernel.text(RULES) is None


def test_exclusive_leaves_what_was_never_ours(kernel):
    kernel.add(B, driver=UIO)
    converge(kernel, Wish(devices=devices({"name": "one", "bdf": "00:06.0"}), exclusive=True))
    converge(kernel, Wish(devices=(), exclusive=True))
    assert (kernel.driver(A), kernel.driver(B)) == (None, UIO)


def test_released_function_is_not_taken_again_by_the_same_call(kernel):
    kernel.add(B, size=4)
    converge(kernel, Wish(devices=devices({"name": "one", "bdf": "00:06.0"})))
    converge(kernel, Wish(devices=devices({"name": "two", "bdf": "00:10.0"}), exclusive=True))
    assert (kernel.driver(A), kernel.driver(B)) == (None, UIO)


def test_name_that_moves_to_another_function(kernel):
    kernel.add(B, size=4)
    converge(kernel, Wish(devices=devices({"name": "x", "bdf": "00:06.0"}), exclusive=True))
    converge(kernel, Wish(devices=devices({"name": "x", "bdf": "00:10.0"}), exclusive=True))
    assert kernel.link("/dev/ivshmem/x") == _functions.read_function(kernel, B).uio


def test_without_persistence_a_reboot_forgets(kernel):
    wish = Wish(devices=devices({"name": "x", "bdf": "00:06.0"}), persist=False)
    converge(kernel, wish)
    assert kernel.text(RULES) is None
    assert "driver_override" not in kernel.text(RUN_RULES)
    assert kernel.link("/dev/ivshmem/x")
    kernel.reboot()
    assert kernel.driver(A) is None


def test_persistence_can_be_taken_off_and_put_on(kernel):
    converge(kernel, Wish())
    converge(kernel, Wish(persist=False))
    assert kernel.text(RULES) is None
    assert kernel.driver(A) == UIO
    converge(kernel, Wish())
    kernel.reboot()
    assert kernel.driver(A) == UIO


def test_access_survives_a_reboot(kernel):
    wish = Wish(devices=devices({"name": "x", "bdf": "00:06.0"}), group="ivshmem", mode=0o640)
    converge(kernel, wish)
    kernel.reboot()
    assert _binding.plan(_binding.observe(kernel, wish), wish).actions == ()
    assert kernel.owners[f"{_kernel.SYSFS}/devices/{A}/resource2_wc"] == (990, 0o640)


def test_missing_group_is_told_and_files_are_as_before(kernel):
    wish = Wish(group="nobody_has_it")
    state = _binding.observe(kernel, wish)
    with pytest.raises(IvshmemError, match="no group 'nobody_has_it'"):
        _act.apply(kernel, _binding.plan(state, wish), state)
    assert kernel.text(RULES) is None


@pytest.mark.parametrize(
    ("build", "wish", "message"),
    [
        (lambda k: k.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"), Wish(), "locked down"),
        (lambda k: k.put("/sys/kernel/security/lockdown", "none integrity [confidentiality]\n"), Wish(), "vfio-pci"),
        (lambda k: None, Wish(driver=VFIO), "IOMMU.*unsafe_noiommu"),
        (lambda k: k.put(RULES, "# mine\n"), Wish(), "was not written by"),
        (lambda k: os.unlink(k.path("/run/udev/control")), Wish(), "no udev.*persist"),
        (lambda k: None, Wish(devices=devices({"bdf": "00:07.0"})), r"(?s)no such ivshmem.*00:06\.0 \(2 MB\)"),
        (lambda k: None, Wish(devices=devices({"bdf": "00:06.0", "size": 4})), "should be 4 MB, but.* has 2 MB"),
    ],
)
def test_refusals_come_before_anything_is_touched(kernel, build, wish, message):
    build(kernel)
    before = kernel.snapshot()
    with pytest.raises(IvshmemError, match=message):
        _binding.plan(_binding.observe(kernel, wish), wish)
    assert kernel.snapshot() == before
    assert kernel.writes == [] and kernel.commands == []


def test_all_can_be_given_back_where_nothing_could_be_bound(tmp_path):
    kernel = FakeKernel(tmp_path, udev=False)
    kernel.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    wish = Wish(devices=(), exclusive=True)
    assert _binding.plan(_binding.observe(kernel, wish), wish).actions == ()


def test_lockdown_none_is_no_lockdown(kernel):
    kernel.put("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
    converge(kernel, Wish())


def test_vfio_under_lockdown_is_allowed(tmp_path):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, iommu_group="3")
    kernel.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    converge(kernel, Wish(driver=VFIO))
    assert kernel.driver(A) == VFIO


@pytest.mark.parametrize(
    ("system", "mend"),
    [
        ("ID=ubuntu\n", "install linux-modules-extra-6.1.0-test"),
        ("ID=debian\n", "cloud kernel"),
        ("", "CONFIG_UIO_PCI_GENERIC"),
    ],
)
def test_missing_module_names_the_package(tmp_path, system, mend):
    kernel = FakeKernel(tmp_path, modules=())
    kernel.add(A)
    kernel.put("/etc/os-release", system)
    with pytest.raises(IvshmemError, match=f"no module uio_pci_generic: .*{mend}"):
        _binding.plan(_binding.observe(kernel, Wish()), Wish())


def test_builtin_module_is_not_missing(tmp_path):
    kernel = FakeKernel(tmp_path, modules=())
    kernel.add(A)
    kernel.put("/lib/modules/6.1.0-test/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci.ko\n")
    assert _binding.module_missing(kernel, UIO)
    assert not _binding.module_missing(kernel, VFIO)


def test_old_kernel_is_named(tmp_path):
    kernel = FakeKernel(tmp_path, release="4.4.0-210-generic")
    kernel.add(A)
    with pytest.raises(IvshmemError, match=r"4\.4\.0-210-generic: before Linux 4\.13.*No IRQ"):
        _binding.plan(_binding.observe(kernel, Wish()), Wish())


def test_no_function_at_all(tmp_path):
    with pytest.raises(IvshmemError, match="no ivshmem function"):
        _binding.plan(_binding.observe(FakeKernel(tmp_path), Wish()), Wish())


def test_failing_bind_puts_the_files_back(kernel):
    kernel.modules = set()
    wish = Wish()
    state = _binding.observe(kernel, wish)
    with pytest.raises(IvshmemError, match="modprobe uio_pci_generic failed"):
        _act.apply(kernel, _binding.plan(state, wish), state)
    assert kernel.text(RULES) is None


def test_permission_denied_asks_for_root(kernel, monkeypatch):
    def denied(path, text):
        raise PermissionError(13, "Permission denied")

    kernel.load(UIO)
    monkeypatch.setattr(kernel, "write", denied)
    wish = Wish(persist=False)
    state = _binding.observe(kernel, wish)
    with pytest.raises(IvshmemError, match="become: true"):
        _act.apply(kernel, _binding.plan(state, wish), state)


def test_select_by_size_region_id_and_address():
    two = _functions.Function(A, bars=(None, None, _functions.Bar(0, 2 << 20)))
    four = _functions.Function(B, bars=(None, None, _functions.Bar(0, 4 << 20)))
    other = _functions.Function(
        C, bars=(None, None, _functions.Bar(0, 2 << 20)), subsystem_vendor=0x8086, subsystem_device=0x1000
    )
    functions = (two, four, other)
    wanted = devices({"name": "a", "size": 4}, {"name": "b", "region_id": 4096}, {"name": "c", "bdf": "0000:00:06.0"})
    assert list(_functions.select(functions, wanted).values()) == [four, other, two]
    # A size that is left over once the others are taken is enough.
    wanted = devices({"name": "a", "size": 2}, {"name": "b", "region_id": 4096, "size": 2})
    assert list(_functions.select(functions, wanted).values()) == [two, other]
    with pytest.raises(IvshmemError, match=r"fits 2 functions: 00:06\.0 .*00:11\.0 .*add its vbdf"):
        _functions.select(functions, devices({"size": 2}))
    with pytest.raises(IvshmemError, match=r"are one function: 00:06\.0"):
        _functions.select(functions, devices({"name": "a", "bdf": "00:06.0"}, {"name": "b", "slot": 6}))
    with pytest.raises(IvshmemError, match=r"region ID should be 5000, but function 00:11\.0 has 4096"):
        _functions.select(functions, devices({"bdf": "00:11.0", "region_id": 5000}))


def test_functions_alike_are_told_apart_by_their_order_where_it_is_known():
    alike = tuple(_functions.Function(each, bars=(None, None, _functions.Bar(0, 2 << 20))) for each in (A, B, C))
    four = _functions.Function("0000:00:1f.0", bars=(None, None, _functions.Bar(0, 4 << 20)))
    every = (*alike, four)
    wanted = [{"name": name, "size": 2, "nth": number, "nth_of": 3} for number, name in enumerate("abc", 1)]
    # Whichever of them are asked for, and in whatever order.
    for chosen in ([0, 1, 2], [2, 0], [1], [2, 1, 0]):
        ours = devices(*(wanted[index] for index in chosen), {"name": "d", "size": 4})
        assert list(_functions.select(every, ours).values()) == [*(alike[index] for index in chosen), four]
    with pytest.raises(IvshmemError, match=r"'a' \(size 2 MB, number 1 of 3\) fits 2 functions, not 3: 00:06.0"):
        _functions.select((*alike[:2], four), devices(wanted[0]))
    # Which one is missing, nobody knows.
    with pytest.raises(IvshmemError, match="fits 1 functions, not 3"):
        _functions.select((alike[1], four), devices(wanted[0]))
    assert list(_functions.select((four,), devices(wanted[0])).values()) == [None]
    for wrong in ({"nth": 1}, {"nth": 3, "nth_of": 2}, {"nth": 0, "nth_of": 2}, {"nth_of": 2}):
        with pytest.raises(IvshmemError, match="must be numbers from 1 on"):
            devices({"name": "a", "size": 2, **wrong})


def test_region_id_is_not_compared_on_a_hypervisor_that_writes_none():
    old = _functions.Function(A, bars=(None, None, _functions.Bar(0, 2 << 20)))
    assert list(_functions.select((old,), devices({"bdf": "00:06.0", "region_id": 4096})).values()) == [old]
    assert list(_functions.select((old,), devices({"size": 2, "region_id": 4096})).values()) == [old]
    assert list(_functions.select((old,), devices({"region_id": 4096})).values()) == [None]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "a;reboot", "bdf": "00:06.0"}, "letters, digits"),
        ({"name": '"', "bdf": "00:06.0"}, "letters, digits"),
        ({"name": "../x", "bdf": "00:06.0"}, "letters, digits"),
        ({"bdf": "00:26.0"}, "not a PCI address"),
        ({"slot": 32}, "0..31"),
        ({"slot": 10, "bdf": "00:10.0"}, r"slot 10 is 00:0a.0"),
        ({"size": 3}, "a power of two from 2 to 512"),
        ({"region_id": 4095}, r"region_id 4095 must be 0 \(none\) or 4096 to 65535"),
        ({"name": "a"}, "give vbdf"),
    ],
)
def test_devices_that_cannot_be_meant(value, message):
    with pytest.raises(IvshmemError, match=message):
        devices(value)


def test_slot_is_decimal():
    assert devices({"slot": 16})[0].address == B


def test_equal_names_are_refused():
    with pytest.raises(IvshmemError, match="two devices are named 'a'"):
        devices({"name": "a", "slot": 5}, {"name": "a", "slot": 6})


@pytest.mark.parametrize("text", ["rw-rw----", "888", "07777", "1"])
def test_mode_is_octal(text):
    with pytest.raises(IvshmemError, match="octal"):
        _functions.mode_bits(text)


def test_group_cannot_smuggle_a_rule(kernel):
    with pytest.raises(IvshmemError, match="not the name of a group"):
        _binding.plan(_binding.observe(kernel, Wish(group='a"')), Wish(group='a", RUN+="x'))


def test_rules_of_all_come_before_those_of_one():
    text = _udev.render_rules({A: "# one\n", _functions.ALL: "# all\n"})
    assert text.index("# all") < text.index("# one")
    assert _udev.render_rules({}) is None


def test_rules_read_back():
    blocks = {key: _udev.rule_block(key, "n", UIO, "g", 0o660) for key in (A, B, _functions.ALL)}
    parsed = _udev.parse_rules(_udev.render_rules(blocks), RULES)
    assert {key: block for key, (block, _name, _driver) in parsed.items()} == blocks


def test_noiommu_is_asked_for_and_kept(tmp_path):
    kernel = FakeKernel(tmp_path)
    kernel.add(A)
    wish = Wish(driver=VFIO, unsafe_noiommu=True)
    todo = _binding.plan(_binding.observe(kernel, wish), wish)
    assert kinds(todo)[:4] == ["replace", "replace", "reload", "noiommu"]
    with pytest.raises(IvshmemError, match="CONFIG_VFIO_NOIOMMU"):
        _act.apply(kernel, todo, _binding.observe(kernel, wish))
    assert kernel.text(_kernel.NOIOMMU_CONF) is None


def test_any_sequence_of_wishes_converges_and_survives_a_reboot():
    """Whatever was asked for before: the second run is empty, a reboot changes nothing, nobody else's is touched."""
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    wishes = any_wish(st)

    @hypothesis.given(st.lists(wishes, min_size=1, max_size=4), st.booleans())
    def check(sequence, duplicate_error):
        with tempfile.TemporaryDirectory() as folder:
            kernel = FakeKernel(folder, duplicate_error=duplicate_error)
            kernel.add(A, iommu_group="1")
            kernel.add(B, subsystem=(0x8086, 0x1000), iommu_group="2")
            kernel.add(C, driver="somebody", iommu_group="3")
            for wish in sequence:
                touches = wish.devices is None or any(device.address == C for device in wish.devices)
                before = kernel.driver(C)
                try:
                    converge(kernel, wish)
                except IvshmemError as exc:
                    assert "an earlier call without devices" in str(exc)
                    continue
                if not touches and before == "somebody":
                    assert kernel.driver(C) == "somebody"
                if wish.present:
                    meant = [A, B, C] if wish.devices is None else [device.address for device in wish.devices]
                    assert all(kernel.driver(address) == wish.driver for address in meant)
                    if wish.persist:
                        kernel.reboot()
                        assert all(kernel.driver(address) == wish.driver for address in meant)
                        assert _binding.plan(_binding.observe(kernel, wish), wish).actions == ()

    check()


def test_one_function_is_refused_beside_a_rule_for_all(tmp_path):
    """After a boot the rule for all would win over the one for a single function, so both are never written."""
    kernel = FakeKernel(str(tmp_path))
    kernel.add(A, iommu_group="1")
    kernel.add(B, subsystem=(0x8086, 0x1000), iommu_group="2")

    def wish(chosen, driver):
        return Wish(
            devices=chosen,
            driver=driver,
            method=_kernel.NEW_ID,
            present=True,
            force=True,
            persist=True,
            exclusive=False,
            group=None,
        )

    converge(kernel, wish(None, VFIO))
    with pytest.raises(IvshmemError, match="an earlier call without devices"):
        converge(kernel, wish(devices({"name": "n06", "bdf": "00:06.0"}), UIO))
    assert kernel.driver(A) == VFIO


@pytest.mark.parametrize("udev", [True, False])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("access", [{"group": "ivshmem"}, {}])
def test_what_was_bound_by_hand_is_not_given_back_without_persistence(tmp_path, udev, named, access):
    kernel = FakeKernel(tmp_path, loaded=(UIO,), udev=udev)
    kernel.add(A, size=2)
    kernel.driver_write(UIO, "new_id", "1af4 1110")  # by hand, as ACRN's guide does
    kernel.driver_write(UIO, "remove_id", "1af4 1110")
    kernel.add(B, size=4)
    assert (kernel.driver(A), kernel.driver(B)) == (UIO, None)
    wanted = devices({"name": "a", "bdf": "00:06.0"}, {"name": "b", "bdf": "00:10.0"}) if named else None
    wish = Wish(devices=wanted, persist=False, exclusive=True, **access)
    converge(kernel, wish)
    assert (kernel.driver(A), kernel.driver(B)) == (UIO, UIO)
    # A run in between changes nothing about whose they are.
    converge(kernel, wish)
    removed = converge(kernel, Wish(devices=(), persist=False, exclusive=True))
    assert (kernel.driver(A), kernel.driver(B)) == (UIO, None)
    assert kernel.text(RUN_RULES) is None
    told = [
        text for text in removed.warnings if text.startswith("function 00:06.0 had its driver uio_pci_generic before")
    ]
    # Where no rule was needed, nothing is known of it, and nothing was to be given back.
    assert len(told) == (udev and (named or bool(access)))
    if udev and access:
        assert kernel.owners[f"/sys/bus/pci/devices/{A}/resource2"] == (0, 0o600)


def test_what_was_bound_for_good_is_given_back_also_when_that_was_taken_off(kernel):
    wanted = devices({"name": "a", "bdf": "00:06.0"})
    converge(kernel, Wish(devices=wanted, exclusive=True))
    converge(kernel, Wish(devices=wanted, exclusive=True, persist=False))
    converge(kernel, Wish(devices=(), exclusive=True))
    assert kernel.driver(A) is None


def test_the_id_goes_before_the_functions(kernel):
    """A kill in between leaves what the next run sees."""
    converge(kernel, Wish(exclusive=True))
    wish = Wish(devices=(), exclusive=True)
    todo = _binding.plan(_binding.observe(kernel, wish), wish)
    assert kinds(todo).index("remove_id") < kinds(todo).index("unbind")
