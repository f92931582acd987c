#!/usr/bin/python
# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hypervisor_build
short_description: Build the ACRN hypervisor of a board and a scenario, once
version_added: 1.0.0
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
description:
  - Runs C(make hypervisor) in an ACRN source tree and keeps what it makes under a key, the digest of everything that
    decides the bytes. These are the tree with its local changes and its git state, board, scenario, scenario name,
    make arguments, environment, and the versions of compiler, linker, C(iasl), Python and the Python libraries. The
    same key again means no make at all.
  - Each build starts from nothing in one directory, since ACRN's make misses changes of the scenario by file time or by
    name, and copies board and scenario. The source tree is not written to. Builds on one O(work_dir) run one after
    the other, and two calls for the same key make it once.
  - Regions of the scenario that break a rule of the collection are told as warnings, since ACRN's tools build some of
    them without a word, such as one with a VM that the scenario does not have.
  - ACRN's own config tools judge the scenario before anything is compiled. Its warnings do not stop the build. A failed
    or skipped validation does, also where make says success. Before the result is kept, the generated configuration and
    the binary are compared with the regions of the scenario.
  - Two builds of one key are the same byte for byte, also in other directories. For this C(SOURCE_DATE_EPOCH) is set to
    the time of the tree's commit (without git to 2020-01-01), C(USER) to C(acrn), and paths are kept out of the debug
    information by options that are added to C(CC).
extends_documentation_fragment:
  - acrn.ivshmem.attributes
  - acrn.ivshmem.attributes.action_group
  - acrn.ivshmem.attributes.idempotent
attributes:
  check_mode:
    support: full
    details:
      - Computes the key and lets ACRN validate the scenario in a temporary directory, but does not compile.
      - A source tree or a Python that is not there yet is taken for one that an earlier task would have made. Nothing
        can be judged then, and the result has neither key nor files.
  diff_mode:
    support: full
    details:
      - Shows key and regions of the last build of the same board and scenario name beside those of this one.
  idempotent:
    support: partial
    details:
      - Not with O(force=true), which builds each time.
  platform:
    platforms: linux
    support: full
requirements:
  - C(make), GCC, binutils, C(iasl), C(xsltproc) and C(xmllint); on Debian the packages make, gcc, libc6-dev,
    acpica-tools, xsltproc and libxml2-utils
  - GCC 11 or older for ACRN v3.1 and older
  - lxml, defusedxml, elementpath and xmlschema in the Python that O(python) names, at versions that suit the ACRN
    version
options:
  source:
    description:
      - The ACRN source tree, v2.2 or later, from git or an archive.
    type: path
    required: true
  board:
    description:
      - The board XML, or the name of a board whose data the tree has.
    type: str
    required: true
  scenario:
    description:
      - The scenario XML, or the name of a scenario that the tree has for the board.
    type: str
    required: true
  scenario_content:
    description:
      - The text of the scenario XML, as M(acrn.ivshmem.scenario_regions) returns it. O(scenario) then only names it,
        and no such file is needed on the builder.
    type: str
  name:
    description:
      - The name of the scenario, which goes into the binary. Give hosts with equal scenarios the same name, and they
        share one build.
      - Without it the name is the C(scenario) attribute of the XML for v2.x. For v3.x it is the file's name, or that
        of its directory if the file is called C(scenario.xml).
    type: str
  artifacts_dir:
    description:
      - The directory that keeps the builds, one directory each.
    type: path
    required: true
  work_dir:
    description:
      - The directory to build in. It must be empty or made by this module; parts of it are wiped before each build.
      - Keep it the same, so that C(ccache) finds earlier results.
      - By default C(.work) in O(artifacts_dir).
    type: path
  release:
    description:
      - Whether to build the release variant. Without it the scenario decides.
    type: bool
  make_args:
    description:
      - More variables for make, each as C(NAME=value), such as C(CC=gcc-11).
      - The board, the scenario, C(O) and C(RELEASE) are not given here.
    type: list
    elements: str
    default: []
  environment:
    description:
      - More environment variables. Apart from these only E(PATH), E(HOME), E(TMPDIR) and E(CCACHE_DIR) of the caller
        reach the build.
    type: dict
    default: {}
  jobs:
    description:
      - How many compilers to run at once. By default as many as there are processors.
    type: int
  python:
    description:
      - The Python that runs ACRN's config tools, as an interpreter or a virtual environment.
      - By default the first C(python3) in E(PATH).
    type: str
  awaited:
    description:
      - Paths that earlier tasks of the play make, such as a clone of O(source) or the virtual environment of O(python).
      - In check mode these tasks have not made them, so one that is missing is told and leaves the result open.
        Any other that is missing is an error in check mode as it is in earnest.
      - By default both O(source) and O(python) may be missing in check mode.
    type: list
    elements: path
    version_added: 1.0.0
  ccache:
    description:
      - Whether to compile through C(ccache). By default if it is installed. Its cache is in O(work_dir) unless
        E(CCACHE_DIR) is set.
    type: bool
  validate_only:
    description:
      - Let ACRN validate the scenario and build nothing.
    type: bool
    default: false
  force:
    description:
      - Build even if the artefact is there, and replace it.
    type: bool
    default: false
seealso:
  - module: acrn.ivshmem.scenario_regions
  - module: ansible.builtin.git
"""

EXAMPLES = r"""
- name: Build ACRN v3.3 for a scenario
  acrn.ivshmem.hypervisor_build:
    source: /opt/acrn-hypervisor
    board: whl-ipc-i5
    scenario: /srv/acrn/paint-line.xml
    artifacts_dir: /srv/acrn/artifacts
    python: /opt/acrn-venv
  register: build

- name: Say where the hypervisor lies
  ansible.builtin.debug:
    var: build.artifacts['acrn.bin']

- name: Build ACRN v2.7, which wants GCC 11
  acrn.ivshmem.hypervisor_build:
    source: /opt/acrn-hypervisor-2.7
    board: /srv/acrn/whl-ipc-i5.xml
    scenario: /srv/acrn/press-line.xml
    name: press-line
    release: true
    make_args:
      - CC=gcc-11
    artifacts_dir: /srv/acrn/artifacts
    python: /opt/acrn-venv

- name: Let ACRN judge a scenario
  acrn.ivshmem.hypervisor_build:
    source: /opt/acrn-hypervisor
    board: whl-ipc-i5
    scenario: /srv/acrn/paint-line.xml
    artifacts_dir: /srv/acrn/artifacts
    validate_only: true
"""

RETURN = r"""
key:
  description: The key of the build, 32 hexadecimal digits.
  returned: success, but not in check mode while source or Python are missing
  type: str
  sample: 5d1f6a7c0b1e4c9b8f3f0a2b6d9c7e11
directory:
  description: The directory of the artefact. It may not exist yet in check mode or with O(validate_only=true).
  returned: success, but not in check mode while source or Python are missing
  type: str
built:
  description: Whether make was run to the end in this call.
  returned: success
  type: bool
artifacts:
  description: The path of each file of the artefact by its name in the artefact, such as C(acrn.bin).
  returned: when the artefact is there
  type: dict
  sample: {"acrn.bin": "/srv/acrn/artifacts/5d1f6a7c0b1e4c9b8f3f0a2b6d9c7e11/acrn.bin"}
manifest:
  description:
    - What was built from what. It is kept as C(manifest.json) beside the files.
    - C(inputs) has the digest or version of each input, C(outputs) size and SHA-256 of each file.
  returned: when the artefact is there
  type: dict
name:
  description: The scenario name in the binary.
  returned: success, but not in check mode while source or Python are missing
  type: str
board:
  description: The board name in the binary.
  returned: success, but not in check mode while source or Python are missing
  type: str
version:
  description: The version of the tree.
  returned: success, but not in check mode while source or Python are missing
  type: str
  sample: "3.3"
regions:
  description: The regions that are compiled in.
  returned: success, but not in check mode while source or Python are missing
  type: list
  elements: dict
  contains:
    name:
      description: The name with its prefix, as C(acrn-dm) must give it.
      type: str
    size:
      description: The size in MB.
      type: int
    region_id:
      description: The region ID; 0 where there is none, and always before v3.3.
      type: int
validation:
  description: The warnings of ACRN's validator.
  returned: success, but not in check mode while source or Python are missing
  type: list
  elements: str
seconds:
  description: How long this call took, waiting for other builds included.
  returned: success
  type: float
log:
  description: The log of the build.
  returned: when there is one
  type: str
errors:
  description: What ACRN's tools said.
  returned: failure of a build or validation
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._build import build_or_find
from ansible_collections.acrn.ivshmem.plugins.module_utils._builder._model import BuildError
from ansible_collections.acrn.ivshmem.plugins.module_utils._files import check_paths
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError


def main():
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "board": {"type": "str", "required": True},
            "scenario": {"type": "str", "required": True},
            "scenario_content": {"type": "str"},
            "name": {"type": "str"},
            "artifacts_dir": {"type": "path", "required": True},
            "work_dir": {"type": "path"},
            "release": {"type": "bool"},
            "make_args": {"type": "list", "elements": "str", "default": []},
            "environment": {"type": "dict", "default": {}},
            "jobs": {"type": "int"},
            "python": {"type": "str"},
            "awaited": {"type": "list", "elements": "path"},
            "ccache": {"type": "bool"},
            "validate_only": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        check_paths(module.params, module.argument_spec)
        result = build_or_find(module)
    except BuildError as exc:
        message = "\n".join([str(exc), *(f"  {line}" for line in exc.lines)])
        if exc.log:
            message += f"\nThe whole log is {exc.log}"
        module.fail_json(msg=message, errors=exc.lines, log=exc.log)
    except IvshmemError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
