# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _binding, _kernel, _udev
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Light
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.modules import guest_device
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel

A, B = "0000:00:06.0", "0000:00:10.0"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    guest = FakeKernel(tmp_path)
    guest.add(A, size=2)
    monkeypatch.setattr(_kernel, "Kernel", lambda: guest)
    return guest


@pytest.fixture
def execute(capsys):
    def run(check=False, **params):
        arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            guest_device.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_check_mode_says_what_the_run_does(kernel, execute):
    before = kernel.snapshot()
    params = {"devices": [{"name": "shm", "vbdf": "00:06.0", "size": 2, "slot": 6, "peers": [1]}], "group": "ivshmem"}
    predicted = execute(check=True, **params)
    assert kernel.snapshot() == before
    made = execute(**params)
    assert made["changed"] and predicted["changed"]
    assert made["actions"] == predicted["actions"]
    assert made["diff"] == predicted["diff"]
    device = made["devices"][0]
    assert (device["name"], device["driver"], device["uio"]) == ("shm", "uio_pci_generic", "uio3")
    assert (device["node"], device["link"]) == ("/dev/uio3", "/dev/ivshmem/shm")
    assert device["bar2"] == {"address": "0x600000000", "size": 2097152}
    assert (device["msix"], device["vectors"], device["iv_position"]) == (True, 8, 7)
    again = execute(**params)
    assert not again["changed"] and again["actions"] == [] and again["diff"] == []
    assert again["devices"] == made["devices"]


def test_diff_shows_driver_and_file(kernel, execute):
    diff = execute(devices=[{"name": "shm", "slot": 6}])["diff"]
    assert diff[0]["before_header"] == "00:06.0"
    assert diff[0]["before"].startswith("driver: none\n") and diff[0]["after"].startswith("driver: uio_pci_generic\n")
    assert diff[1]["before_header"] == _kernel.RULES
    assert diff[1]["after"] == kernel.text(_kernel.RULES)


def test_left_out_devices_mean_all_and_an_empty_list_none(kernel, execute):
    assert not execute(devices=[])["changed"]
    assert kernel.driver(A) is None
    assert [device["bdf"] for device in execute()["devices"]] == ["00:06.0"]
    assert kernel.driver(A) == "uio_pci_generic"


def test_removed_region_is_gone_from_the_guest(kernel, execute):
    execute(devices=[{"name": "shm", "slot": 6}], exclusive=True)
    assert execute(devices=[], exclusive=True)["changed"]
    assert kernel.text(_kernel.RULES) is None and kernel.driver(A) is None
    assert not execute(devices=[], exclusive=True)["changed"]


def test_error_comes_as_a_message(kernel, execute):
    result = execute(devices=[{"name": "shm", "bdf": "00:07.0"}])
    assert result["failed"]
    assert "no such ivshmem function" in result["msg"] and "00:06.0 (2 MB)" in result["msg"]
    assert kernel.writes == []


def test_warning_where_access_has_no_meaning(kernel, execute):
    kernel.add(B, iommu_group="3")
    result = execute(devices=[{"bdf": "00:10.0"}], driver="vfio-pci", group="ivshmem")
    assert any("uio_pci_generic only" in str(warning) for warning in result["warnings"])
    assert result["devices"][0]["iv_position"] is None


def test_calls_at_the_same_time_keep_the_rules_of_each_other(tmp_path):
    """Each call reads the rules of all, and writes them with its own among them."""
    addresses = [f"0000:00:{slot:02x}.0" for slot in range(3, 11)]
    kernel = FakeKernel(tmp_path / "guest", loaded=[_kernel.UIO])
    for address in addresses:
        kernel.add(address)
    kernel.put("/etc/udev/rules.d/.acrn-ivshmem-x1y2z3.new", "half of a ru")
    kernel.put("/run/udev/rules.d/.acrn-ivshmem-Ab_9.new", "")
    children = []
    for address in addresses:
        child = os.fork()
        if not child:
            status = 1
            try:
                devices = [{"name": f"r{address[8:10]}", "bdf": address[5:]}]
                params = {
                    name: option.get("default") for name, option in guest_device.ARGUMENTS["argument_spec"].items()
                }
                module = Light({**params, "devices": devices})
                guest_device.run(module, kernel)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.WEXITSTATUS(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
    rules = kernel.text(_kernel.RULES)
    assert sorted(_udev.parse_rules(rules, _kernel.RULES)) == addresses
    for folder in ("/etc/udev/rules.d", "/run/udev/rules.d"):
        assert not [name for name in kernel.names(folder) if name.endswith(".new")]


def test_rules_that_cannot_be_read_are_not_written_anew(tmp_path):
    kernel = FakeKernel(tmp_path / "guest", loaded=[_kernel.UIO])
    kernel.add("0000:00:06.0")
    os.makedirs(kernel.path(_kernel.RULES))
    with pytest.raises(IvshmemError, match=r"70-acrn-ivshmem\.rules: is not a regular file; move it away"):
        _binding.observe(kernel, _binding.Wish())
