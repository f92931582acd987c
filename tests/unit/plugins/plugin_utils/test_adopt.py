# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The declaration of a host that runs already."""

from __future__ import annotations

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._launch._takeover import read_script
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError, parse_region
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._adopt import Adoption, guest, overruling

VMS = [
    {"id": 0, "name": "PRE", "load_order": "pre_launched", "uuid": None},
    {"id": 1, "name": "SVC", "load_order": "service", "uuid": None},
    {"id": 2, "name": "VM1", "load_order": "post_launched", "uuid": "d2795438-25d6-11e8-864e-cb7a18b34643"},
    {"id": 3, "name": "VM2", "load_order": "post_launched", "uuid": None},
]


def region(name, size, vbdfs, region_id=None, provider="hypervisor"):
    vms = [
        {**{key: vm[key] for key in ("id", "name", "load_order")}, "vbdf": vbdfs[vm["name"]]}
        for vm in VMS
        if vm["name"] in vbdfs
    ]
    return {"name": name, "provided_by": provider, "size": size, "region_id": region_id, "vms": vms}


def scenario(*regions, version="3.3", vms=None):
    dialect = "v2" if version < "3" else "v3"
    return {"dialect": dialect, "acrn_version": version, "vms": vms or VMS, "regions": list(regions)}


def script(path, vm, *devices, uuid=None):
    keys = ("name", "size", "slot", "region_id")
    own = [{**dict(zip(keys, (*device, None))), "line": 1} for device in devices]
    return {"path": path, "vms": [{"name": vm, "uuid": uuid, "line": 1, "devices": own}]}


def found(*scripts, **more):
    return {"scripts": list(scripts), "running": [], "problems": [], "cmdline": "", "acrn": True, "unit": False, **more}


def test_slots_of_scripts_count_more_than_the_file():
    plc = region("plc", 4, {"PRE": "00:0c.0", "VM1": "00:08.0"}, 4097)
    own = Adoption(scenario(plc), None, found(script("/a.sh", "VM1", ("hv:/plc", 4, 5, 4097))))
    assert own.variables["ivshmem_regions"] == [
        {
            "name": "plc",
            "provided_by": "hypervisor",
            "size": 4,
            "vms": [{"name": "PRE", "vbdf": "00:0c.0"}, {"name": "VM1", "vbdf": "00:05.0"}],
            "region_id": 4097,
        }
    ]
    assert own.variables["launch_vms"] == [{"name": "VM1", "script": "/a.sh"}]
    assert "hv:/plc: VM1 has it at 00:05.0, and the scenario says 00:08.0; declared is what it has" in own.notes
    assert "no launch script was found for VM2; theirs are left alone" in own.notes


def test_places_that_a_reader_chose_for_a_v2_file_are_no_places():
    plc = region("plc", 4, {"SVC": None, "VM1": "00:1e.0", "VM2": "00:1e.0"})
    own = Adoption(scenario(plc, version="2.7"), None, found(script("/a.sh", "VM1", ("hv:/plc", 4, 5))))
    assert own.regions[0]["vms"] == ["SVC", {"name": "VM1", "vbdf": "00:05.0"}, "VM2"]
    assert any("the slot of VM2 was not found" in note for note in own.notes)
    running = {"name": "VM2", "pid": 7, "devices": [{"name": "hv:/plc", "slot": 9, "size": 4, "region_id": None}]}
    own = Adoption(scenario(plc, version="2.7"), None, found(running=[running]))
    assert own.regions[0]["vms"][2] == {"name": "VM2", "vbdf": "00:09.0"}


def test_up_to_v26_the_uuid_tells_the_vm():
    named = found(script("/a.sh", "vm1", ("dm:/x", 2, 5), uuid=VMS[2]["uuid"].upper()), script("/b.sh", "other"))
    own = Adoption(scenario(version="2.6"), None, named)
    assert own.variables["launch_vms"][0]["name"] == "VM1"
    assert "/b.sh: starts other, which is no VM of the scenario" in own.notes


def test_from_v27_on_the_name_tells_the_vm_and_an_old_uuid_is_told():
    plc = region("plc", 4, {"SVC": None, "VM1": "00:1e.0"})
    own = Adoption(
        scenario(plc, version="2.7"), None, found(script("/a.sh", "vm1", ("hv:/plc", 4, 5), uuid=VMS[2]["uuid"]))
    )
    assert "launch_vms" not in own.variables or own.variables["launch_vms"] == []
    (note,) = [note for note in own.notes if note.startswith("/a.sh")]
    assert "starts vm1, which is no VM of the scenario; its -U is that of VM1, but from ACRN v2.7 on" in note


def test_a_name_that_only_a_run_of_the_script_tells_is_no_matter_where_the_uuid_counts():
    text = f"#!/bin/sh\nvm_name=vm$1\nacrn-dm -A -U {VMS[2]['uuid']} -s 5,ivshmem,dm:/x,2 $vm_name\n"
    read = {"path": "/a.sh", **read_script(text.encode(), "/a.sh")}
    assert (read["vms"][0]["name"], read["problems"]) == (None, [])
    own = Adoption(scenario(version="2.6"), None, found(read))
    assert own.variables["launch_vms"] == [
        {"name": "VM1", "script": "/a.sh", "devices": own.variables["launch_vms"][0]["devices"]}
    ]
    own = Adoption(scenario(version="2.7"), None, found(read))
    (note,) = [note for note in own.notes if note.startswith("/a.sh")]
    assert "line 3: the name of the VM is only known when the script runs; its -U is that of VM1" in note
    bare = read_script(text.replace("-U", "-B").encode(), "/a.sh")
    assert bare["vms"] == [] and "line 3: which VM this call of acrn-dm starts is not clear" in bare["problems"][0]


def test_a_vm_that_runs_by_its_uuid_has_its_places():
    plc = region("plc", 4, {"SVC": None, "VM1": "00:1e.0"})
    device = {"name": "hv:/plc", "slot": 9, "size": 4, "region_id": None}
    running = {"name": "post_vm1", "uuid": VMS[2]["uuid"].upper(), "pid": 7, "devices": [device]}
    own = Adoption(scenario(plc, version="2.6"), None, found(running=[running]))
    assert own.regions[0]["vms"] == ["SVC", {"name": "VM1", "vbdf": "00:09.0"}]
    own = Adoption(scenario(plc, version="2.7"), None, found(running=[running]))
    assert own.regions[0]["vms"] == ["SVC", "VM1"]


def test_regions_that_only_scripts_know():
    both = [script(f"/{vm}.sh", vm, ("dm:/logs", 2, slot, 4096)) for vm, slot in (("VM1", 5), ("VM2", 12))]
    own = Adoption(scenario(), None, found(*both))
    assert own.regions == [
        {
            "name": "logs",
            "provided_by": "device_model",
            "size": 2,
            "vms": [{"name": "VM1", "vbdf": "00:05.0"}, {"name": "VM2", "vbdf": "00:0c.0"}],
            "region_id": 4096,
        }
    ]
    assert all(parse_region(each) for each in own.regions)
    assert not [note for note in own.notes if "logs" in note]


def test_vms_without_a_script_that_can_be_edited():
    """Started by a service itself, or by nobody knows what: their regions are declared, and that is all."""
    unit = script("/etc/systemd/system/vm1.service", "VM1", ("dm:/logs", 2, 5))
    device = {"name": "dm:/logs", "size": 2, "slot": 12, "region_id": None}
    running = [
        {"name": "VM1", "pid": 6, "devices": [{**device, "slot": 9}]},
        {"name": "VM2", "pid": 7, "devices": [device]},
    ]
    own = Adoption(scenario(), None, found(units=[unit], running=running))
    vms = [{"name": "VM1", "vbdf": "00:05.0"}, {"name": "VM2", "vbdf": "00:0c.0"}]
    assert own.variables["ivshmem_regions"] == [{"name": "logs", "provided_by": "device_model", "size": 2, "vms": vms}]
    assert "launch_vms" not in own.variables
    assert [note.split(". ")[0] for note in own.notes] == [
        "/etc/systemd/system/vm1.service: line 1: starts VM1 itself",
        "VM2 runs (process 7), and no script that starts it could be read",
    ]


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        ([("dm:/x", 2, 5)], "dm:/x: only VM1 has it"),
        ([("hv:/unknown", 2, 5)], "its devices are not those of the regions (hv:/plc, hv:/unknown)"),
        ([("hv:/plc", 8, 8)], "its devices are not those of the regions (hv:/plc)"),
        ([], "its devices are not those of the regions (hv:/plc)"),
    ],
)
def test_what_regions_cannot_say_stays_with_the_vm(devices, told):
    plc = region("plc", 4, {"PRE": "00:0c.0", "VM1": "00:08.0"})
    own = Adoption(scenario(plc), None, found(script("/a.sh", "VM1", *devices)))
    assert any(told in note for note in own.notes), own.notes
    (entry,) = own.variables["launch_vms"]
    assert entry["devices"] == [dict(zip(("name", "size", "slot"), device)) for device in devices]


def test_an_upgrade_keeps_names_sizes_ids_and_places():
    old = scenario(region("plc", 4, {"PRE": "00:0c.0", "VM1": "00:05.0", "VM2": "00:06.0"}, 4097), version="3.2")
    new = scenario(
        region("plc", 4, {"PRE": "00:08.0", "VM1": "00:08.0", "VM2": "00:08.0"}), region("late", 2, {"VM1": "00:09.0"})
    )
    own = Adoption(new, old, found())
    assert own.regions[0]["region_id"] == 4097
    assert [vm["vbdf"] for vm in own.regions[0]["vms"]] == ["00:0c.0", "00:05.0", "00:06.0"]
    assert "hv:/late: is not in the scenario before the upgrade; taken from the new one" in own.notes


def test_an_upgrade_from_v2_has_slots_of_scripts_and_says_what_it_cannot_know():
    old = scenario(region("plc", 4, {"PRE": None, "VM1": "00:1e.0"}), version="2.7")
    renamed = [{**vm, "name": "PRE_RT"} if vm["name"] == "PRE" else vm for vm in VMS]
    new_region = region("plc", 4, {"PRE": "00:08.0", "VM1": "00:08.0"})
    new_region["vms"][0]["name"] = "PRE_RT"
    own = Adoption(scenario(new_region, vms=renamed), old, found(script("/a.sh", "VM1", ("hv:/plc", 4, 5))))
    assert own.regions[0]["vms"] == [{"name": "PRE_RT", "vbdf": "00:08.0"}, {"name": "VM1", "vbdf": "00:05.0"}]
    assert "hv:/plc: where PRE_RT had it before is not known; the scenario says 00:08.0" in own.notes
    assert "VM PRE (0) of the scenario before is taken for PRE_RT" in own.notes


def test_boot_arguments_are_those_of_a_host_that_runs_acrn():
    line = "BOOT_IMAGE=/boot/v root=UUID=1 ro rootflags=subvol=@ hugepages=4 quiet acrn_ivshmem.entry=k.1 -- x"
    assert Adoption(scenario(), None, found(cmdline=line)).variables["hypervisor_cmdline"] == "ro hugepages=4 quiet"
    own = Adoption(scenario(), None, found(cmdline=line, acrn=False))
    assert "hypervisor_cmdline" not in own.variables


@pytest.mark.parametrize(
    ("text", "persistent", "variables"),
    [
        ("0000:00:05.0 uio_pci_generic\n", False, {"guest_driver": "uio_pci_generic", "guest_devices": []}),
        ("0000:00:05.0 vfio-pci\nkept\n", True, {"guest_driver": "vfio-pci", "guest_persist": True}),
        ("0000:00:05.0 -\n", False, {"guest_devices": []}),
        ("0000:00:05.0 uio_pci_generic\n0000:00:06.0 vfio-pci\n", False, {"guest_devices": []}),
        ("0000:00:05.0 uio_ivshmem\n", False, {"guest_devices": []}),
        ("", False, {"guest_devices": []}),
    ],
)
def test_guests_are_left_as_they_are(text, persistent, variables):
    assert guest(text, persistent)[0] == variables


@pytest.mark.parametrize(
    "lie",
    [
        found(script("/root/{{ lookup('pipe', 'id') }}.sh", "VM1")),
        found(script("/a.sh", "VM1", ("dm:/{% if 1 %}", 2, 5))),
        found(cmdline="acrn_ivshmem.entry=a {{ lookup('pipe','id') }} {#"),
    ],
)
def test_what_a_host_says_is_no_template_of_the_next_run(lie):
    with pytest.raises(IvshmemError, match="for a template"):
        Adoption(scenario(), None, lie)


def test_a_note_is_one_line_to_yaml_too():
    lie = found(script("/a\u2028ansible_connection: local\x85b\nc.sh", "OTHER"), problems=["x\u2029y: z"])
    notes = Adoption(scenario(), None, lie).notes + guest("00:06.0 a\u2028b:\n00:07.0 x", False)[1]
    assert any("/a ansible_connection: local b c.sh" in note for note in notes)
    assert all(len(note.splitlines()) == 1 for note in notes)


@pytest.mark.parametrize(
    ("version", "given", "declared", "told"),
    [
        ("3.3", 5000, 5000, ""),
        ("3.3", None, None, ""),
        ("3.3", 4097, None, "another region has it"),
        ("3.3", 1, None, "IDs are 4096 to 65535"),
        ("2.7", 5000, None, "regions have IDs from ACRN v3.3 on"),
    ],
)
def test_a_region_id_of_scripts_is_declared_where_a_region_may_have_it(version, given, declared, told):
    """A host whose declaration is refused would hold up the whole fleet."""
    plc = region("plc", 4, {"PRE": "00:0c.0", "VM1": "00:05.0"}, 4097)
    both = [script(f"/{vm}.sh", vm, ("dm:/log", 2, 9, given)) for vm in ("VM1", "VM2")]
    own = Adoption(scenario(plc, version=version), None, found(*both))
    assert own.variables["ivshmem_regions"][1].get("region_id") == declared
    if told:
        assert f"dm:/log: scripts give it the region ID {given}, and it is declared without: {told}" in own.notes
        assert own.variables["launch_vms"][1]["devices"] == [
            {"name": "dm:/log", "size": 2, "slot": 9, "region_id": given}
        ]
    else:
        assert "devices" not in own.variables["launch_vms"][1]


def test_two_regions_of_one_name_are_not_declared():
    plc = region("plc", 4, {"PRE": "00:0c.0", "VM1": "00:05.0"})
    both = [script(f"/{vm}.sh", vm, ("dm:/plc", 2, 9, None)) for vm in ("VM1", "VM2")]
    own = Adoption(scenario(plc), None, found(*both))
    assert [each["provided_by"] for each in own.variables["ivshmem_regions"]] == ["hypervisor"]
    assert any(note.startswith("dm:/plc: the scenario has a region of this name") for note in own.notes)


def test_a_slot_that_no_region_may_have_is_no_place():
    running = [
        {
            "name": vm,
            "uuid": None,
            "pid": 7,
            "devices": [{"name": "dm:/log", "size": 2, "slot": slot, "region_id": None}],
        }
        for vm, slot in (("VM1", 2), ("VM2", 9))
    ]
    (log,) = Adoption(scenario(), None, found(running=running)).variables["ivshmem_regions"]
    assert log["vms"] == ["VM1", {"name": "VM2", "vbdf": "00:09.0"}]


def test_a_place_of_scripts_that_is_not_there_is_told():
    assert Adoption(scenario(), None, found(missing=["/opt/scirpts"])).notes == [
        "no launch script was found for VM1, VM2; theirs are left alone",
        "/opt/scirpts: is not there; see launch_vms and adopt_launch_directories",
    ]


def test_regions_that_other_variables_declare_are_not_joined():
    plc = region("plc", 4, {"PRE": "00:0c.0", "VM1": "00:08.0"}, 4097)
    own = Adoption(scenario(plc), None, found(), ["ivshmem_group_regions"])
    assert own.variables["ivshmem_group_regions"] == [] and "ivshmem_host_regions" not in own.variables
    assert any("ivshmem_group_regions is set for this host too, and is [] here" in note for note in own.notes)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("main.yml", "launch_mode: template\nlaunch_units: false\n", "launch_mode"),
        ("main.yml", "launch_mode: edit\nother: 1\n", ""),
        ("main", "launch_mode:\nlaunch_units: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n", "launch_mode and launch_units"),
        ("more/all.yaml", "launch_units: true\n", "launch_units"),
        # Ansible reads this one first, and those not at all.
        ("a.yml", "launch_mode: template\n", ""),
        *((name, "launch_mode: template\n", "") for name in ("main.txt", "main.yml~", "main.orig")),
        # Whoever reads the inventory says so.
        ("main.yml", "launch_mode: [\n", ""),
        ("main.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", ""),
        ("main.yml", "", ""),
    ],
)
def test_a_file_that_ansible_reads_later_is_told(tmp_path, name, text, told):
    (tmp_path / "more").mkdir()
    (tmp_path / name).write_text(text)
    found = overruling(str(tmp_path / "acrn_ivshmem.yml"), {"launch_mode": "edit", "launch_units": False})
    assert [each.split(",")[0] for each in found] == ([f"{tmp_path / name} sets {told}"] if told else [])


def test_a_host_of_which_nothing_is_written_yet_has_no_such_file(tmp_path):
    assert overruling(str(tmp_path / "none/acrn_ivshmem.yml"), {"launch_mode": "edit"}) == []
