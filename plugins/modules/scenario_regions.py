#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: scenario_regions
short_description: Set the shared-memory regions of an ACRN scenario XML
version_added: 0.1.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Makes a scenario XML hold the declared ivshmem regions, in the dialect of the file (ACRN v2.2 to v2.7, or v3.0 and
    later),
    and the C(shm_region) elements of a v2.x launch XML agree with it.
  - All regions are held against the rules of the ACRN version before anything is written, and every finding is
    reported at once.
    The rules and their IDs are listed in C(docs/rules.md) of the collection.
  - Before its first change, a file that is changed in place (without O(src)) is kept beside itself, with
    C(.before-acrn-ivshmem) behind its name.
  - Only the C(IVSHMEM) element is written. Every other byte of the file stays, and so do elements inside it that
    already say
    what they shall say.
  - A region provided by the device model has no place in a v2.x scenario. It is not written there, but it is
    returned, so that the
    launch script can have it.
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
options:
  path:
    description:
      - The scenario XML to change. A symbolic link is followed and stays one.
    type: path
    required: true
  src:
    description:
      - A scenario XML to start from instead of O(path), for example one of an ACRN tree that shall not be touched.
      - O(path) then becomes the content of O(src) with the regions, and its directory is made if need be. vBDFs that
        O(path) had are kept.
    type: path
  regions:
    description:
      - The regions. Each is a mapping, or the compact string V(hv:/NAME, SIZE, VM:VM) or V(dm:/NAME, SIZE, VM:VM).
      - A mapping has C(name) (1 to 27 ASCII letters, digits and underscores), C(size) in MB (a power of two from 2 to
        512),
        C(provided_by) (V(hypervisor), the default, or V(device_model)), C(vms), and from ACRN v3.3 on C(region_id)
        (0, or 4096 to 65535).
      - With C(reserved), applications leave that many bytes at the end of the region to the proof of the role
        P(acrn.ivshmem.verify#role) (a multiple of 4096, at most half of the region). It is in no file of ACRN, so it
        changes nothing but the plan, and goes when a region is not declared any more.
      - Each of C(vms) is the name or the ID of a VM, or a mapping with C(name) (or C(id)) and C(vbdf).
      - Without C(vbdf) the place that the file has is kept. A new VM gets the lowest free device of 00:08.0 to
        00:0f.0, then of 00:03.0 to 00:07.0, then of 00:10.0 to 00:1e.0.
      - Up to v2.7 only post-launched VMs have a place that can be chosen, and no file holds it. They get the highest
        free device of 00:03.0 to 00:1e.0, as launch scripts of that time count from below; give C(vbdf) to have it stay
        when other regions go.
      - Without C(region_id) the ID that the file has is kept.
      - With O(state=absent) names are enough.
    type: list
    elements: raw
    required: true
  declared_in:
    description:
      - Where each of O(regions) is declared, in the same order, such as C(ivshmem_host_regions[0]). Mistakes are told
        with it.
    type: list
    elements: str
    default: []
    version_added: 0.1.0
  names:
    description:
      - What O(src), O(board_path), O(launch_src) and O(regions) are called where they were set, by option, such as
        C(acrn_scenario). Files that cannot be read are told with it.
    type: dict
    default: {}
    version_added: 0.1.0
  unset:
    description:
      - Why O(regions) says nothing of what the scenario shall have, such as the names of variables that are not set.
        With it, and O(state=exact), a scenario that has regions is refused with the list of them, as they would all go.
    type: str
    default: ""
    version_added: 0.1.0
  state:
    description:
      - V(exact) makes these the only regions.
      - V(present) adds or changes these and leaves others alone.
      - V(absent) removes these and leaves others alone; no rule is asked then.
      - A v2.x scenario has one switch for all regions of the hypervisor, C(IVSHMEM_ENABLED). Where it is off, its
        regions count as not there. The first region of the hypervisor that is added turns it on.
    type: str
    choices: [exact, present, absent]
    default: exact
  board_path:
    description:
      - The board XML. It tells which PCI devices the Service VM has and how much memory the host has.
    type: path
  launch_path:
    description:
      - A launch XML of ACRN v2.x, whose C(shm_region) elements are set for each of its VMs.
    type: path
  launch_src:
    description:
      - A launch XML to start from instead of O(launch_path), as O(src) is for O(path).
    type: path
  acrn_version:
    description:
      - The ACRN version, such as V(2.7) or V(3.3).
      - Without it the C(VERSION) file of O(acrn_source), or else of the ACRN tree in which O(src) or O(path) lies is
        read. If there is none, rules that hold for some versions of the dialect only warn.
    type: str
  acrn_source:
    description:
      - An ACRN tree. Only its C(VERSION) file is read.
    type: path
  places_path:
    description:
      - A file that keeps the regions of a v2.x scenario with their places, which the XML cannot hold. Files of v3.x
        hold them themselves, and then nothing is written there.
    type: path
  known_places:
    description:
      - Places that a host has in use, by region (with C(hv:/) or C(dm:/)) and name of the VM, as
        P(acrn.ivshmem.places_in_use#filter) gives them. They are kept where neither O(regions) nor a file says
        otherwise.
    type: dict
    default: {}
  ask:
    description:
      - With V(true), nothing is written as long as a place had to be chosen that the host may know better. RV(asking)
        says so, and the next call has O(known_places).
    type: bool
    default: false
  unasked:
    description:
      - Why a host could not be asked for O(known_places). Then there is a warning for each place that had to be chosen.
    type: str
    default: ""
  guests:
    description:
      - The VM, by name or ID, that each guest says it is, by name of the guest. One that the scenario has not, and one
        that two guests are, is refused together with what is wrong with the regions.
    type: dict
    default: {}
    version_added: 0.1.0
  launch_vms:
    description:
      - The VMs that launch scripts are made for, as the role P(acrn.ivshmem.launch#role) takes them. What cannot become
        a script is refused together with what is wrong with the regions.
    type: list
    elements: dict
    default: []
    version_added: 0.1.0
  launch_mode:
    description:
      - How the role P(acrn.ivshmem.launch#role) makes these scripts.
    type: str
    default: template
    version_added: 0.1.0
  mistakes:
    description:
      - What else is wrong with the declaration, a sentence each. It is told, and refused, together with what is wrong
        with the regions.
    type: list
    elements: str
    default: []
    version_added: 0.1.0
  backup:
    description:
      - Keep a copy of each file that changes, with the time in its name.
    type: bool
    default: false
seealso:
  - module: acrn.ivshmem.scenario_info
  - module: acrn.ivshmem.hypervisor_build
"""

EXAMPLES = r"""
- name: Let the RT VM and a post-launched VM share 2 MB
  acrn.ivshmem.scenario_regions:
    path: /srv/acrn/line-a/scenario.xml
    board_path: /srv/acrn/whl-ipc-i5.xml
    acrn_version: "3.3"
    regions:
      - name: shm_region_0
        size: 2
        vms:
          - PRE_RT_VM0
          - name: POST_STD_VM1
            vbdf: "00:08.0"

- name: The same in the words of ACRN's guide, on a v2.7 tree that stays as it is
  acrn.ivshmem.scenario_regions:
    src: /opt/acrn-hypervisor/misc/config_tools/data/whl-ipc-i5/hybrid_rt.xml
    path: /srv/acrn/line-b/hybrid_rt.xml
    regions:
      - "hv:/shm_region_0, 2, 0:2"
      - "dm:/test, 2, 2:3"

- name: Remove one region
  acrn.ivshmem.scenario_regions:
    path: /srv/acrn/line-a/scenario.xml
    regions: [shm_region_0]
    state: absent
"""

RETURN = r"""
regions:
  description: The regions that the scenario has now, hypervisor regions first, with the place of each device.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name without prefix.
      type: str
    provided_by:
      description: V(hypervisor) or V(device_model).
      type: str
    size:
      description: Size in MB.
      type: int
    region_id:
      description: The region ID, or null.
      type: int
    reserved:
      description: How many bytes at its end are the proof's. Only where that is declared.
      type: int
    vms:
      description: The VMs that share it.
      type: list
      elements: dict
      contains:
        id:
          description: The VM ID, which is the peer ID for the doorbell.
          type: int
        name:
          description: The VM name. VMs without one, as in v2.2, are called C(VM) and their ID.
          type: str
        load_order:
          description: V(pre_launched), V(service) or V(post_launched).
          type: str
        vbdf:
          description:
            - The vBDF in hexadecimal, or null where ACRN's build chooses it (v2.x, VMs that are not post-launched).
          type: str
        slot:
          description: The device number in decimal, as C(acrn-dm -s) takes it, or null.
          type: int
start:
  description:
    - The hv-land regions of the scenario XML that O(src) names. A hypervisor that was built from it by hand has them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name without prefix.
      type: str
    size:
      description: The size in MB.
      type: int
before:
  description:
    - The regions that O(path) had, or O(src) where there was no O(path) yet, each as in RV(regions). A scenario of v2.x
      has no dm-land regions.
  returned: success
  type: list
  elements: dict
vms:
  description: All VMs of the scenario, in the order of the file.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The VM ID.
      type: int
    name:
      description: The VM name.
      type: str
    load_order:
      description: V(pre_launched), V(service) or V(post_launched).
      type: str
    vm_type:
      description: The type as the file has it.
      type: str
    uuid:
      description: What C(acrn-dm -U) takes up to ACRN v2.6, or null.
      type: str
dialect:
  description: V(v2) for scenarios of ACRN v2.2 to v2.7, V(v3) for later ones.
  returned: success
  type: str
acrn_version:
  description: The version whose rules were applied, or null.
  returned: success
  type: str
  sample: "3.3"
chosen:
  description: Places that were chosen by this call, since nothing told of them.
  returned: success
  type: list
  elements: dict
  contains:
    region:
      description: The region, with its prefix.
      type: str
    vm:
      description: The VM.
      type: str
    vbdf:
      description: The vBDF.
      type: str
asking:
  description: Whether O(ask) has kept this call from writing.
  returned: success
  type: bool
digest:
  description: SHA-256 of the scenario XML as it is now (or would be, in check mode).
  returned: success
  type: str
build_digest:
  description:
    - SHA-256 of what of the scenario XML decides the hypervisor. Regions of the device model, and the vBDFs of
      post-launched VMs, change nothing of it in ACRN v3.x.
  returned: success
  type: str
findings:
  description: What the rules say, without what made the module fail.
  returned: success
  type: list
  elements: dict
  contains:
    rule:
      description: The ID of the rule.
      type: str
    severity:
      description: V(warning).
      type: str
    region:
      description: The region, or an empty string.
      type: str
    place:
      description: What is to be mended, such as C(ivshmem_host_regions[0].size), or an empty string.
      type: str
    message:
      description: What was found.
      type: str
    mend:
      description: What to do about it.
      type: str
content:
  description: The scenario XML as it is now (or would be, in check mode), for a build on another host.
  returned: success
  type: str
launch_content:
  description: The text of the launch XML, also in check mode; null without O(launch_path).
  returned: success
  type: str
backup_files:
  description: The copies that were made.
  returned: changed and O(backup=true)
  type: list
  elements: str
"""

import contextlib
import json
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils import _guests
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import (
    locked,
    read_file,
    replace_file,
    unified,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._launch import _vms
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import (
    HYPERVISOR,
    PREFIXES,
    SERVICE,
    IvshmemError,
    some,
)
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._board import read_board
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide, find_version
from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._scenario import V2, parse_version, read_scenario
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document

MOST_WARNINGS = 30


def run(module):
    params = module.params
    if params["src"] == "":
        raise IvshmemError(f"{(params['names'] or {}).get('src', 'src')} is not set; give the path of the scenario XML")
    path, src = params["path"], params["src"] or params["path"]
    launch_path, launch_src = params["launch_path"], params["launch_src"] or params["launch_path"]
    found = find_version(os.path.join(params["acrn_source"] or "/", "VERSION")) or find_version(src)
    version = parse_version(params["acrn_version"]) if params["acrn_version"] else found
    board_path = params["board_path"]
    with _named(params, "board_path"):
        board = read_board(read_file(board_path), board_path) if board_path else None
    with _named(params, "src"):
        data = read_file(src)
    with _named(params, "launch_src"):
        launch = read_file(launch_src) if launch_src else None
    before = data if src == path else existing(path)
    launch_before = launch if launch_src == launch_path else existing(launch_path)
    if params["unset"] and params["state"] == "exact":
        _refuse_loss(params["unset"], src, [data, *([] if before is None else [before])])
    kept = _kept(params["places_path"])
    try:
        outcome = decide(
            data,
            src,
            params["regions"],
            params["state"],
            version=version,
            board=board,
            launch=launch,
            launch_where=launch_src or "",
            earlier=before,
            known=[_places(kept), params["known_places"] or {}],
            others=lambda scenario: _mistakes(params, scenario, version),
            declared_in=params["declared_in"] or _places_in(params),
        )
    except IvshmemError:
        _refuse_files(params, (("src", data, src), ("launch_src", launch, launch_src)))
        raise
    regions = [placed.as_dict() for placed in outcome.regions]
    chosen = [
        {"region": placed.region.prefixed, "vm": vm.vm.name, "vbdf": str(vm.vbdf)}
        for placed in outcome.regions
        for vm in placed.vms
        if vm.chosen
    ]
    # A machine without a Service VM has nobody to ask.
    asking = params["ask"] and bool(chosen) and any(vm.load_order == SERVICE for vm in outcome.scenario.vms)
    changes = [
        (name, old, new)
        for name, old, new in ((path, before, outcome.data), (launch_path, launch_before, outcome.launch))
        if new is not None and old != new
    ]
    backups = []
    places = [{key: each[key] for key in each if key != "reserved"} for each in regions]
    places_changed = params["places_path"] is not None and outcome.scenario.dialect == V2 and kept != places
    if not module.check_mode and not asking:
        for name, old, new in changes:
            try:
                # A file that is changed in place was written by others, and is kept as it was.
                in_place = (name, None) in ((path, params["src"]), (launch_path, params["launch_src"]))
                backups.append(replace_file(module, name, new, params["backup"], original=old if in_place else None))
            except IvshmemError as exc:
                # The launch XML comes second; together they are right again after the next run.
                done = f"; {path} has its new content already: run again" if backups else ""
                raise IvshmemError(f"{exc}{done}") from exc
        if places_changed:
            text = json.dumps({"regions": places}, indent=1, sort_keys=True) + "\n"
            replace_file(module, params["places_path"], text.encode())
    if params["unasked"] and chosen:
        told = ", ".join(f"{each['region']} in {each['vm']} {each['vbdf']}" for each in chosen)
        module.warn(
            f"{path}: these places were chosen without knowing which ones are in use, and move where the host has "
            f"others: {told} ({params['unasked']}); give vbdf to have them stay"
        )
    for finding in outcome.findings[:MOST_WARNINGS]:
        module.warn(f"{path}: {finding}")
    if len(outcome.findings) > MOST_WARNINGS:
        module.warn(f"{path}: {len(outcome.findings) - MOST_WARNINGS} more findings are in the result")
    result = {
        "changed": bool(changes) or places_changed,
        "regions": regions,
        "before": regions_of(data if before is None else before, path) if kept is None else kept,
        "start": [
            {"name": region["name"], "size": region["size"]}
            for region in regions_of(data, src)
            if region["provided_by"] == HYPERVISOR
        ],
        "chosen": chosen,
        "asking": asking,
        "vms": [vm.as_dict() for vm in outcome.scenario.vms],
        "dialect": outcome.scenario.dialect,
        "acrn_version": f"{version[0]}.{version[1]}" if version else None,
        "digest": outcome.digest,
        "build_digest": outcome.build_digest,
        "content": _text(outcome.data, path),
        "launch_content": None if outcome.launch is None else _text(outcome.launch, launch_path),
        "findings": [finding.as_dict() for finding in outcome.findings],
    }
    if any(backups):
        result["backup_files"] = [backup for backup in backups if backup]
    if module._diff:
        # A result that is not there yet is shown against what it starts from.
        starts = {path: data, launch_path: launch}
        result["diff"] = [
            unified(_text(starts[name] if old is None else old, name), _text(new, name), name)
            for name, old, new in changes
        ]
    return result


def _places_in(params):
    name = (params["names"] or {}).get("regions", "regions")
    return [f"{name}[{index}]" for index in range(len(params["regions"]))]


@contextlib.contextmanager
def _named(params, option):
    """Errors about a file begin with the variable that names it."""
    try:
        yield
    except IvshmemError as exc:
        name = (params["names"] or {}).get(option)
        raise IvshmemError(f"{name}: {exc}" if name else str(exc)) from None


def _refuse_files(params, files):
    """Something is wrong: where it is a file itself, that is told with the variable."""
    for option, data, path in files:
        if data is not None:
            with _named(params, option):
                read_scenario(data, path) if option == "src" else Document(data, path)


def _refuse_loss(unset, src, texts):
    """Unset is not "none": nobody has said that the regions of these files shall go."""
    found = [PREFIXES[region["provided_by"]] + region["name"] for data in texts for region in regions_of(data, src)]
    names = list(dict.fromkeys(found))
    if names:
        raise IvshmemError(
            f"{src}: {unset}, and this scenario would lose {some(names)}; declare what the host shall have, the whole "
            "of it (the playbook acrn.ivshmem.adopt writes it down), or ivshmem_regions: [] to remove them all"
        )


def regions_of(data, path):
    try:
        return [placed.as_dict() for placed in read_scenario(data, path).as_found()]
    except IvshmemError:  # with src, anything may have been at path before
        return []


def _mistakes(params, scenario, version):
    """What is wrong with those that use the VMs of a scenario."""
    vms = [vm.as_dict() for vm in scenario.vms]
    plan = {"vms": vms, "dialect": scenario.dialect}
    told = f"{version[0]}.{version[1]}" if version else ""
    scripts = _vms.problems(params["launch_vms"], plan, params["launch_mode"], told)
    return [*params["mistakes"], *_guests.problems(params["guests"], vms), *(f"launch_vms: {text}" for text in scripts)]


def _kept(path):
    """The regions with their places that an earlier call has kept, or None."""
    if not path or not os.path.exists(path):
        return None
    try:
        regions = json.loads(read_file(path))["regions"]
        _places(regions)
        return regions
    except (ValueError, KeyError, TypeError) as exc:
        raise IvshmemError(f"{path}: cannot be read ({exc!r}); remove it, and places are chosen anew") from None


def _places(regions):
    return {
        PREFIXES[region["provided_by"]] + region["name"]: {vm["name"]: vm["vbdf"] for vm in region["vms"] if vm["vbdf"]}
        for region in regions or []
    }


def existing(path):
    return read_file(path) if os.path.exists(path) else None


def make_folders(module):
    for src, path in (("src", "path"), ("launch_src", "launch_path")):
        # Only for a source that is there: a mistyped name shall not leave a directory behind.
        if module.params[src] and os.path.exists(module.params[src]):
            folder = os.path.dirname(os.path.realpath(module.params[path]))
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as exc:
                raise IvshmemError(f"{folder}: this directory cannot be made: {exc.strerror}") from exc


def _text(data, name):
    try:
        return Document(data, name).source.decode("utf-8")
    except IvshmemError:  # with src, anything may have been at path before
        return data.decode("utf-8", "replace")


ARGUMENTS = {
    "argument_spec": {
        "path": {"type": "path", "required": True},
        "src": {"type": "path"},
        "regions": {"type": "list", "elements": "raw", "required": True},
        "state": {"type": "str", "choices": ["exact", "present", "absent"], "default": "exact"},
        "board_path": {"type": "path"},
        "launch_path": {"type": "path"},
        "launch_src": {"type": "path"},
        "acrn_version": {"type": "str"},
        "acrn_source": {"type": "path"},
        "declared_in": {"type": "list", "elements": "str", "default": []},
        "names": {"type": "dict", "default": {}},
        "unset": {"type": "str", "default": ""},
        "places_path": {"type": "path"},
        "known_places": {"type": "dict", "default": {}},
        "ask": {"type": "bool", "default": False},
        "unasked": {"type": "str", "default": ""},
        "guests": {"type": "dict", "default": {}},
        "launch_vms": {"type": "list", "elements": "dict", "default": []},
        "launch_mode": {"type": "str", "default": "template"},
        "mistakes": {"type": "list", "elements": "str", "default": []},
        "backup": {"type": "bool", "default": False},
    },
    "required_by": {"launch_src": "launch_path"},
    "supports_check_mode": True,
}


def main(factory=AnsibleModule):
    module = factory(**ARGUMENTS)
    paths = [module.params[name] for name in ("path", "launch_path", "places_path") if module.params[name]]
    try:
        if module.check_mode:
            result = run(module)
        else:
            make_folders(module)
            with locked(*paths, what="scenario_regions"):
                result = run(module)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
