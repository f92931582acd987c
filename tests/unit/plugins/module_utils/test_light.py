# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module without AnsibleModule gives the answer that it gives with one, for every kind of drift."""

from __future__ import annotations

import json
import os
import re

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.testing import patch_module_args

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel
from ansible_collections.acrn.ivshmem.plugins.module_utils._light import Done, Heavy, Light, call
from ansible_collections.acrn.ivshmem.plugins.modules import guest_device, guest_probe, scenario_regions
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils.guest_kernel import FakeKernel

A, B = "0000:00:06.0", "0000:00:10.0"


@pytest.fixture
def agree(capsys):
    """Run a module both ways, in check mode, and compare."""

    def run(module, **params):
        modes = {"_ansible_check_mode": True, "_ansible_diff": True}
        with patch_module_args({**params, **modes}), pytest.raises(SystemExit):
            module.main()
        usual = json.loads(capsys.readouterr().out)
        usual.pop("invocation", None)
        checked = ArgumentSpecValidator(module.ARGUMENTS["argument_spec"]).validate(params)
        assert not checked.error_messages
        light = json.loads(json.dumps(call(module.main, Light(checked.validated_parameters, True, True))))
        # AnsibleModule numbers and keeps warnings in its own way, and says failed in every failure.
        assert [re.sub(r"^\s+", "", str(text)) for text in light.pop("warnings", [])] == usual.pop("warnings", [])
        assert {**light, "failed": light.get("failed", False)} == {**usual, "failed": usual.get("failed", False)}
        return usual

    return run


def unload_uio(kernel):
    kernel.detach(A)


def other_driver(kernel):
    kernel.detach(A)
    kernel.load("vfio-pci")


def no_rule(kernel):
    kernel.remove(_kernel.RULES)


def other_rule(kernel):
    kernel.put(_kernel.RULES, "# mine\n")


def no_link(kernel):
    os.unlink(kernel.path("/dev/ivshmem/shm"))


def other_group(kernel):
    kernel.owners["/dev/uio3"] = (0, 0o600)


def other_size(kernel):
    base = f"{_kernel.SYSFS}/devices/{A}"
    kernel.put(f"{base}/resource", kernel.text(f"{base}/resource").replace("1fffff", "3fffff"))


def second_function(kernel):
    kernel.add(B, size=4)


def nothing(kernel):
    pass


GUEST_DRIFTS = [
    (nothing, False),
    (unload_uio, True),
    (other_driver, True),
    (no_rule, True),
    (other_rule, None),
    (no_link, True),
    (other_group, True),
    (other_size, None),
    (second_function, False),
]


@pytest.mark.parametrize(("drift", "changed"), GUEST_DRIFTS, ids=lambda value: getattr(value, "__name__", None))
def test_guest_device(drift, changed, tmp_path, monkeypatch, agree):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, size=2)
    monkeypatch.setattr(_kernel, "Kernel", lambda: kernel)
    wish = {"devices": [{"name": "shm", "vbdf": "00:06.0", "size": 2}], "group": "ivshmem"}
    checked = ArgumentSpecValidator(guest_device.ARGUMENTS["argument_spec"]).validate(wish).validated_parameters
    assert call(guest_device.main, Light(checked))["changed"]
    drift(kernel)
    result = agree(guest_device, **wish)
    assert result.get("failed", False) if changed is None else result["changed"] is changed


def test_guest_probe(tmp_path, monkeypatch, agree):
    kernel = FakeKernel(tmp_path)
    kernel.add(A, size=2)
    monkeypatch.setattr(_kernel, "Kernel", lambda: kernel)
    for size in (2, 4):
        steps = [{"operation": "check", "device": {"name": "shm", "bdf": "00:06.0", "size": size}}]
        assert agree(guest_probe, steps=steps).get("failed", False) is (size == 4)


V3 = scenarios.scenario("v3")
REGIONS = ["hv:/a, 2, 0:2"]


@pytest.mark.parametrize(
    ("drift", "changed"),
    [
        (lambda text: text, False),
        (lambda text: text.replace("hv:/a", "hv:/b").replace("<NAME>a<", "<NAME>b<"), True),
        (lambda text: text.replace("<IVSHMEM_SIZE>2<", "<IVSHMEM_SIZE>4<"), True),
        (lambda text: V3, True),
        (lambda text: text.replace("<vm ", "<vm  "), False),
        (lambda text: text + "<x", None),
    ],
    ids=["nothing", "other name", "other size", "no region", "white space elsewhere", "broken"],
)
def test_scenario_regions(drift, changed, tmp_path, agree, capsys):
    path = tmp_path / "line.xml"
    path.write_text(V3)
    wish = {"path": str(path), "regions": REGIONS, "acrn_version": "3.3"}
    with patch_module_args(wish), pytest.raises(SystemExit):
        scenario_regions.main()
    assert json.loads(capsys.readouterr().out)["changed"]
    path.write_text(drift(path.read_text()))
    result = agree(scenario_regions, **wish)
    assert result.get("failed", False) if changed is None else result["changed"] is changed


def test_a_file_that_has_to_change_needs_ansible_module(tmp_path):
    path = tmp_path / "line.xml"
    path.write_text(V3)
    spec = scenario_regions.ARGUMENTS["argument_spec"]
    params = {name: option.get("default") for name, option in spec.items()}
    params.update(path=str(path), regions=REGIONS, state="exact", acrn_version="3.3", backup=False, known_places={})
    with pytest.raises(Heavy):
        call(scenario_regions.main, Light(params))
    assert path.read_text() == V3
    assert os.listdir(tmp_path) == ["line.xml"]


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [(None, False), ("0755", False), ("755", False), (0o755, False), ("0644", Heavy), ("u+x", Heavy)],
)
def test_modes_are_compared_as_ansible_does(mode, outcome, tmp_path):
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o755)
    module = Light({})
    attributes = module.load_file_common_arguments({"mode": mode}, path=str(path))
    if outcome is Heavy:
        with pytest.raises(Heavy):
            module.set_fs_attributes_if_different(attributes, False)
    else:
        assert module.set_fs_attributes_if_different(attributes, False) is outcome


def test_what_light_does_not_have_is_heavy():
    for name in ("run_command", "atomic_move", "backup_local", "tmpdir"):
        with pytest.raises(Heavy):
            getattr(Light({}), name)
    with pytest.raises(Heavy):
        Light({}).load_file_common_arguments({"owner": "root"}, path="/")


def test_a_result_is_no_exception_that_a_module_catches():
    def main(factory):
        try:
            factory().exit_json(changed=True)
        except Exception:
            pytest.fail("caught")

    assert call(main, Light({})) == {"changed": True}
    assert not issubclass(Done, Exception)


def test_warnings_come_once():
    def main(factory):
        module = factory()
        module.warn("a")
        module.warn("a")
        module.fail_json(msg="no")

    assert call(main, Light({})) == {"failed": True, "msg": "no", "warnings": ["a"]}
