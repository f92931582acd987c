#!/usr/bin/python

# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: guest_probe
short_description: Test the shared memory and the doorbell of ivshmem functions in a Linux guest
version_added: 1.0.0
description:
  - Carries out a list of steps in one call. Bytes go through BAR2, doorbells through BAR0, interrupts come in through
    vfio.
  - The role P(acrn.ivshmem.verify#role) runs it on all guests of a region, so that what one writes the others read.
author:
  - acrn.ivshmem contributors (@acrn-ivshmem)
extends_documentation_fragment:
  - acrn.ivshmem.attributes.action_group
attributes:
  check_mode:
    support: full
    description: Steps that write are skipped. V(check), V(look), V(read), V(hash) and V(collect) are carried out.
  diff_mode:
    support: none
    description: What is written are random bytes, which are taken back.
  idempotent:
    support: partial
    details: V(write), V(ring) and V(measure) do something each time; V(restore) only once.
    description: A second run with the same options changes nothing.
  platform:
    support: full
    platforms: linux
    description: The guests' operating system.
options:
  steps:
    description:
      - What to do, in this order. A step that finds a problem does not keep the next ones from being carried out.
      - A step on a function whose slot, size or region ID is not as declared is not carried out.
    type: list
    elements: dict
    required: true
    suboptions:
      operation:
        description:
          - V(check) compares slot, size and region ID with O(steps[].device) and does no more.
          - V(look) also says what the function is, and who uses it (see RV(results[].idle)).
          - V(write) saves the bytes of a window and puts others there, which are made from O(steps[].seed). The saved
            ones are kept in the guest alone, in C(/run/acrn-ivshmem), which only root can read. A later V(restore) or
            V(write) puts them back, even when this run dies. What is put there tells other proofs that it is one; where
            they find such bytes, they write nothing.
          - V(restore) puts back each byte that still is the one that V(write) has put there. What a program has written
            in the meantime is left alone, byte by byte.
          - V(read) counts how many bytes of a window are those that are made from O(steps[].seed), wherever they were
            written. Fewer than an eighth of them are a problem, where those do not count that every proof writes.
          - V(hash) gives salted digests of the whole memory in 64 parts, for comparing it with that of a peer. Both map
            the memory read-only, except with driver C(vfio-pci).
          - V(ring) writes to the doorbell register.
          - V(listen) counts interrupts until O(steps[].timeout) or O(steps[].count).
          - V(arm) leaves a process behind that counts interrupts, and V(collect) ends it and returns the counts. With
            these, another guest can ring in between.
          - V(measure) gives MB/s of reading, and of writing to a window, which V(write) must have saved before; or,
            with O(steps[].request), the time of round trips to a peer that is armed with O(steps[].echo). What a
            program writes into the window during a measurement is lost, so measure where nobody uses the memory.
        type: str
        choices: [check, look, write, restore, read, hash, ring, listen, arm, collect, measure]
        required: true
      device:
        description: Which function, and what it must be like. Every value that is given must fit.
        type: dict
        required: true
        suboptions:
          name:
            description: Name of the region, for messages.
            type: str
          bdf:
            description: PCI address in the guest, hexadecimal, such as V(00:06.0).
            type: str
            aliases: [vbdf]
          slot:
            description: PCI slot in the guest, decimal.
            type: int
          region_id:
            description: Region ID of ACRN v3.3 and later. Not compared where the hypervisor writes none.
            type: int
          size:
            description: Size of the shared memory (BAR2) in MB.
            type: int
          provided_by:
            description: Who provides the region. Accepted so that a declaration can be given as it is; not used.
            type: str
            choices: [hypervisor, device_model]
          nth:
            description:
              - Which function it is of O(steps[].device.nth_of) that fit, counted from 1 in the order of addresses.
            type: int
          nth_of:
            description: How many functions fit.
            type: int
          peers:
            description: IDs of the other VMs. Accepted so that a declaration can be given as it is; not used.
            type: list
            elements: int
      offset:
        description: Start of the window in bytes. A negative one counts from the end. The default is the last 4 KiB.
        type: int
      length:
        description:
          - Length of the window in bytes. The default is 4096. V(write) takes 32 bytes to 16 MiB, as the guest keeps
            what was there.
        type: int
      seed:
        description:
          - For V(write) and V(read), from what the bytes are made, in 32 to 128 hexadecimal digits. V(write) makes one
            where there is none, and RV(results[].record) has it.
          - For V(restore), the seed of a V(write) with the same window, to see that it has come back. Where no journal
            has its bytes and they still stand there, that is a problem.
        type: str
      writer:
        description:
          - For V(write), V(look) and V(restore), the number, 0 to 16382, by which all proofs of this memory know this
            guest; the role P(acrn.ivshmem.verify#role) gives the VM's ID.
          - With one, V(look) counts as RV(results[].pending) what this guest has written into the window and, since it
            has booted again, will not put back, and V(restore) lets other proofs write there.
        type: int
      only_idle:
        description: For V(write), write only where nobody uses the function, and take it back if somebody came.
        type: bool
        default: false
      nonce:
        description: For V(hash), 32 to 128 hexadecimal digits, secret and the same for all peers that are compared.
        type: str
      mailbox:
        description:
          - For V(write), how many bytes at the end of the window are zeros, for V(measure), and not random. At most
            4096.
        type: int
        default: 0
      peer:
        description: For V(ring), the ID of the VM to interrupt.
        type: int
      vector:
        description: For V(ring), the vector to raise. ACRN has 8.
        type: int
        default: 0
      count:
        description: For V(ring), how often to ring (1 by default); for V(listen), how many interrupts to wait for.
        type: int
      timeout:
        description: Seconds for V(listen) (10 by default), or until the process of V(arm) ends by itself (300).
        type: float
      echo:
        description:
          - For V(arm), pairs of offsets. The word at the first is copied to the second whenever it changes.
          - The second is a word behind the token of a window that V(write) has saved before. Where nothing is saved,
            nothing is copied.
        type: list
        elements: list
      request:
        description: For V(measure), offset of the word that this guest writes.
        type: int
      reply:
        description: For V(measure), offset of the word in which the peer answers.
        type: int
  proof:
    description:
      - Text to be kept in the guest until it boots again, or a step writes. M(acrn.ivshmem.guest_device) returns it.
        With an empty one, what was kept is forgotten.
      - The role P(acrn.ivshmem.verify#role) keeps there for which plan and which boots of all guests the regions were
        proved. What VMs share is fixed when they start, so a proof stands as long as none of them boots again. A proof
        that finds a problem leaves none.
    type: str
  strict:
    description: Fail when a step has found a problem. Otherwise, problems are only in the result.
    type: bool
    default: true
notes:
  - Needs Python 3.8 or later in the guest, and root. V(check), V(read) and V(hash) are content with the group that
    M(acrn.ivshmem.guest_device) was given.
seealso:
  - module: acrn.ivshmem.guest_device
"""

EXAMPLES = r"""
- name: Overwrite the last 4 KiB, in the first guest
  acrn.ivshmem.guest_probe:
    steps:
      - operation: write
        device:
          bdf: "00:06.0"
          size: 2
  register: written

- name: See the same bytes, in the second guest
  acrn.ivshmem.guest_probe:
    steps:
      - operation: read
        device:
          bdf: "00:05.0"
          size: 2
        seed: "{{ hostvars['vm1'].written.results[0].record.seed }}"

- name: Put the bytes back, in the first guest
  acrn.ivshmem.guest_probe:
    steps:
      - operation: restore
        device:
          bdf: "00:06.0"

- name: Interrupt VM 2
  acrn.ivshmem.guest_probe:
    steps:
      - operation: ring
        device:
          bdf: "00:08.0"
        peer: 2
        vector: 3
"""

RETURN = r"""
boot_id:
  description: The guest's boot, as the kernel names it.
  returned: success
  type: str
results:
  description: The result of each step, in the order of O(steps). What else there is depends on the operation.
  returned: always
  type: list
  elements: dict
  contains:
    operation:
      description: The operation of the step.
      type: str
      sample: write
    bdf:
      description: PCI address of the function. None where there is no such function.
      type: str
      sample: "00:06.0"
    driver:
      description: Driver of the function.
      type: str
      sample: uio_pci_generic
    changed:
      description: Whether the step has changed memory or has rung.
      type: bool
      sample: true
    skipped:
      description: Whether the step was left out because of check mode.
      type: bool
      sample: false
    problems:
      description: What is not as expected. Empty when all is well.
      type: list
      elements: dict
      sample: [{"what": "size", "expected": "2 MB", "found": "4 MB"}]
      contains:
        what:
          description: What was looked at.
          type: str
        expected:
          description: As it should be.
          type: str
        found:
          description: As it is.
          type: str
    record:
      description: Of V(write), the window. What was saved stays in the guest.
      type: dict
      contains:
        offset:
          description: Start in bytes.
          type: int
        length:
          description: Length in bytes.
          type: int
        token_length:
          description: Length without the mailbox.
          type: int
        seed:
          description: From what the bytes are made.
          type: str
    written:
      description: Of V(write), how many bytes of the window stand there. Programs may have written the others.
      type: int
      sample: 4096
    idle:
      description:
        - Of V(look), and of V(write) with O(steps[].only_idle), whether nobody uses the function. No process has its
          resource files, its uio or vfio node or C(/dev/mem) open or mapped, and no driver holds it but
          C(uio_pci_generic) and C(vfio-pci). A process that cannot be looked at counts as a user.
      type: bool
      sample: true
    users:
      description: Of V(look), and of V(write) where it is not idle, the first of those who use the function.
      type: list
      elements: str
      sample: ["camera (process 812)"]
    pending:
      description: Of V(look), how many windows an ended run has left in the journal, and with O(steps[].writer) in the
        memory. The next V(write) or V(restore) puts back those of the journal.
      type: int
      sample: 0
    size:
      description: Of V(look), the size of the shared memory in MB.
      type: int
      sample: 2
    region_id:
      description: Of V(look), the region ID, where the hypervisor writes one.
      type: int
      sample: 4096
    iv_position:
      description: Of V(look), the register IVPosition, as of M(acrn.ivshmem.guest_device).
      type: int
      sample: 2
    vectors:
      description: Of V(look), V(arm) and V(listen), the number of interrupt vectors.
      type: int
      sample: 8
    offset:
      description: Of V(read), start of the window in bytes.
      type: int
    length:
      description: Of V(read), its length.
      type: int
    same:
      description: Of V(read), how many of its bytes are those that are made from the seed.
      type: int
      sample: 4096
    sums:
      description: Of V(hash), the digests of the parts.
      type: list
      elements: str
    used:
      description: Of V(hash), the numbers of the parts that hold anything but zeros, which are alike in every memory.
      type: list
      elements: int
      sample: [0, 63]
    windows:
      description: Of V(restore), how many windows were in the journal.
      type: int
      sample: 1
    restored:
      description: Of V(restore), how many bytes of them are as they were.
      type: int
      sample: 4096
    left:
      description: Of V(restore), how many bytes programs have written meanwhile. They are left as they are.
      type: int
      sample: 0
    lost:
      description: Of V(restore) with a seed, how many bytes still stand there though no journal has what was there.
      type: int
      sample: 0
    peer:
      description: Of V(ring), the receiver.
      type: int
    vector:
      description: Of V(ring), the vector.
      type: int
    count:
      description: Of V(ring), how often it rang.
      type: int
    receivable:
      description: Of V(arm) and V(listen), whether this guest can receive interrupts.
      type: bool
      sample: false
    reason:
      description: Why it cannot, and what it would need.
      type: str
      sample: "capable, not receivable: needs driver vfio-pci in this guest"
    counts:
      description: Of V(listen) and V(collect), the number of interrupts per vector.
      type: list
      elements: int
      sample: [0, 0, 0, 1, 0, 0, 0, 0]
    read_mb_s:
      description: Of V(measure), MB (10^6 bytes) read in a second.
      type: float
    write_mb_s:
      description: Of V(measure), MB (10^6 bytes) written in a second.
      type: float
    round_trip_us:
      description: Of V(measure), median of the round trips in microseconds.
      type: float
    round_trip_min_us:
      description: Of V(measure), the shortest of them.
      type: float
    rounds:
      description: Of V(measure), how many there were.
      type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel, _probe
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import DEVICE_OPTIONS, IvshmemError

STEP_OPTIONS = {
    "operation": {
        "type": "str",
        "required": True,
        "choices": [
            "check",
            "look",
            "write",
            "restore",
            "read",
            "hash",
            "ring",
            "listen",
            "arm",
            "collect",
            "measure",
        ],
    },
    "device": {"type": "dict", "required": True, "options": DEVICE_OPTIONS},
    "offset": {"type": "int"},
    "length": {"type": "int"},
    "mailbox": {"type": "int", "default": 0},
    "seed": {"type": "str", "no_log": True},
    "writer": {"type": "int"},
    "only_idle": {"type": "bool", "default": False},
    "nonce": {"type": "str", "no_log": True},
    "peer": {"type": "int"},
    "vector": {"type": "int", "default": 0},
    "count": {"type": "int"},
    "timeout": {"type": "float"},
    "echo": {"type": "list", "elements": "list"},
    "request": {"type": "int"},
    "reply": {"type": "int"},
}


def run(module, kernel):
    proof = module.params["proof"]
    if proof is not None and not module.check_mode:
        _probe.keep_proof(kernel, proof)
    results = _probe.run_steps(kernel, module.params["steps"], module.check_mode)
    problems = [
        f"{result['operation']} {step['device']['name'] or ''} ({result['bdf'] or 'no function'}): "
        f"{problem['what']}: expected {problem['expected']}, found {problem['found']}"
        for step, result in zip(module.params["steps"], results)
        for problem in result["problems"]
    ]
    return any(result["changed"] for result in results), results, problems


ARGUMENTS = {
    "argument_spec": {
        "steps": {"type": "list", "elements": "dict", "required": True, "options": STEP_OPTIONS},
        "proof": {"type": "str"},
        "strict": {"type": "bool", "default": True},
    },
    "supports_check_mode": True,
}


def main(factory=AnsibleModule):
    module = factory(**ARGUMENTS)
    kernel = _kernel.Kernel()
    try:
        # Before anything is done, for a guest can boot at any time.
        boot_id = _kernel.proof(kernel)["boot_id"]
        changed, results, problems = run(module, kernel)
    except (IvshmemError, OSError) as exc:
        why = _kernel.told(exc, exc.filename or "guest_probe") if isinstance(exc, OSError) else exc
        module.fail_json(msg=str(why), results=[])
    if problems and module.params["strict"]:
        module.fail_json(msg=str(IvshmemError("\n".join(problems))), changed=changed, results=results)
    module.exit_json(changed=changed, results=results, boot_id=boot_id)


if __name__ == "__main__":
    main()
