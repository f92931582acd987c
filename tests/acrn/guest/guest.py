# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a virtual machine in the emulator does: binds its ivshmem functions, exchanges bytes, rings, and tells.

The work is done by the modules guest_device and guest_probe as Ansible sends them to a guest. What Ansible's controller
would do between two calls, the guests agree on through the first bytes of the shared memory, which no proof uses: each
VM of a region has a block there with a counter of the stages that it has finished, and what it has to tell.

All results are lines on the console, ``acrn-test: JSON``. The VM whose console is shown prints those of its peers too.
"""

import binascii
import ctypes
import json
import marshal
import sys
import time
import types
import zlib

BLOCK = 16384
HEAD = 8
VECTORS = 8
with open("/job.json") as job_file:
    JOB = json.load(job_file)


def words():
    """The arguments of the kernel that have a value."""
    with open("/proc/cmdline") as handle:
        return dict(word.split("=", 1) for word in handle.read().split() if "=" in word)


ME = int(words().get("vmid", "-1"))


def say(what, **facts):
    sys.stdout.write("acrn-test: " + json.dumps(dict(facts, vm=ME, what=what), sort_keys=True) + "\n")
    sys.stdout.flush()


def modules():
    """guest_device and guest_probe, loaded as a target loads them, and the part of the collection that runs them."""
    found = {}
    for name in ("guest_device", "guest_probe"):
        with open("/modules/" + name) as handle:
            parts, magic = marshal.loads(zlib.decompress(binascii.a2b_base64(handle.read())))
        own, source, code = parts[0]
        light = types.ModuleType(own)
        sys.modules[own] = light
        exec(marshal.loads(code) if magic == light_magic() else source, light.__dict__)
        found[name] = (light, light.load(parts[1:], magic))
    return found


def light_magic():
    from importlib._bootstrap_external import MAGIC_NUMBER

    return MAGIC_NUMBER


class Module:
    """A module of the collection with its defaults, as AnsibleModule would fill them in."""

    def __init__(self, light, module):
        self.light = light
        self.module = module

    def filled(self, spec, given):
        params = {}
        for name, option in spec.items():
            value = given.get(name, option.get("default"))
            inner = option.get("options")
            if inner and isinstance(value, dict):
                value = self.filled(inner, value)
            elif inner and isinstance(value, list):
                value = [self.filled(inner, item) for item in value]
            params[name] = value
        return params

    def __call__(self, **given):
        params = self.filled(self.module.ARGUMENTS["argument_spec"], given)
        return self.light.call(self.module.main, self.light.Light(params))


class Region:
    """A region of this VM: what the job says of it, and its first bytes, where the VMs of the region meet."""

    def __init__(self, probe_module, facts, bdf):
        self.vms = facts["vms"]
        self.peers = [vm for vm in self.vms if vm != ME]
        self.bdf = bdf
        # Named by its address from here on, also where ACRN's build chose it and size and order told it.
        self.device = dict(facts["device"], bdf=bdf)
        self.probe = probe_module
        self.stage = 0

    def words(self, mapped, vm):
        base = BLOCK * self.vms.index(vm)
        return [ctypes.c_uint32.from_buffer(mapped.memory, base + 4 * n) for n in range(2)]

    def opened(self):
        kernel = self.probe._pci.Kernel()
        function = next(each for each in self.probe._pci.scan(kernel) if each.bdf == self.bdf)
        return self.probe._probe.opened(kernel, function)

    def meet(self, told=None):
        """Tell the peers something and wait until all have come to this stage. Returns what each of them tells."""
        self.stage += 1
        mapped = self.opened()
        try:
            text = json.dumps(told).encode()
            own = BLOCK * self.vms.index(ME)
            if len(text) > BLOCK - HEAD:
                raise ValueError(f"too much to tell: {len(text)} bytes")
            mapped.memory[own + HEAD : own + HEAD + len(text)] = text
            stage, length = self.words(mapped, ME)
            length.value = len(text)
            stage.value = self.stage
            del stage, length
            heard = {}
            for vm in self.peers:
                stage, length = self.words(mapped, vm)
                limit = time.monotonic() + JOB["patience"]
                while stage.value < self.stage:
                    if time.monotonic() > limit:
                        del stage, length
                        raise RuntimeError(f"VM {vm} did not come to stage {self.stage}")
                    time.sleep(0.00005)
                base = BLOCK * self.vms.index(vm)
                heard[vm] = json.loads(bytes(mapped.memory[base + HEAD : base + HEAD + length.value]).decode())
                del stage, length
            return heard
        finally:
            mapped.close()


def step(probe, operation, region, **more):
    """The result of one step of guest_probe."""
    answer = probe(steps=[dict(more, operation=operation, device=region.device)], strict=False)
    if answer.get("failed") or not answer["results"]:
        return {"problems": [{"what": operation, "expected": "done", "found": answer.get("msg", "nothing")}]}
    return answer["results"][0]


def window(region, vm):
    """Where a VM of the region writes: each has 4 KiB of its own, from the end of the memory on."""
    return {"offset": -4096 * (region.vms.index(vm) + 1), "length": 4096}


def content(region, vm):
    """The bytes of a window, read past the collection."""
    where = window(region, vm)
    mapped = region.opened()
    try:
        start = len(mapped.memory) + where["offset"]
        return bytes(mapped.memory[start : start + where["length"]])
    finally:
        mapped.close()


def exchange(probe, region):
    """Bytes in all directions: each writes a token, each reads those of the others, each puts back what was there."""
    before = content(region, ME)
    wrote = step(probe, "write", region, **window(region, ME))
    read = []
    for vm, seed in sorted(region.meet(wrote.get("record", {}).get("seed")).items()):
        found = step(probe, "read", region, seed=seed, **window(region, vm))
        read.append({"from": vm, "same": found.get("same"), "problems": found["problems"]})
    region.meet()
    restored = step(probe, "restore", region)
    return {
        "wrote": wrote["problems"],
        "read": read,
        "back": content(region, ME) == before,
        "restored": restored["problems"],
    }


def bells(probe, region):
    """Doorbells: each VM rings each other on every vector once; all the others listen meanwhile, and count."""
    counted = []
    for sender in region.vms:
        for receiver in region.vms:
            if sender == receiver:
                continue
            armed = None if sender == ME else step(probe, "arm", region, timeout=JOB["patience"])
            region.meet()
            if sender == ME:
                rung = [step(probe, "ring", region, peer=receiver, vector=vector) for vector in range(VECTORS)]
                problems = [problem for each in rung for problem in each["problems"]]
                region.meet()
                counted.append({"from": sender, "to": receiver, "problems": problems})
            else:
                region.meet()
                got = step(probe, "collect", region)
                counted.append(
                    {
                        "from": sender,
                        "to": receiver,
                        "counts": got.get("counts"),
                        "receivable": armed.get("receivable"),
                        "reason": armed.get("reason"),
                        "problems": armed["problems"] + got["problems"],
                    }
                )
            region.meet()
    return counted


def bind(device, own, **how):
    """Bind the functions of all regions. Returns the answer of guest_device."""
    answer = device(devices=[facts["device"] for facts in own], persist=False, **how)
    say("guest_device", result=answer)
    if answer.get("failed"):
        raise RuntimeError(answer["msg"])
    return answer


def work():
    say("init", uptime=time.monotonic())
    loaded = modules()
    device = Module(*loaded["guest_device"])
    probe = Module(*loaded["guest_probe"])
    own = [facts for facts in JOB["regions"] if ME in facts["vms"]]
    own = [dict(facts, device=facts["devices"][str(ME)]) for facts in own]
    # uio_pci_generic shares memory and rings; for what it cannot do, receive, the functions go to vfio-pci then.
    answer = bind(device, own)
    regions = [Region(loaded["guest_probe"][1], facts, found["bdf"]) for facts, found in zip(own, answer["devices"])]
    told = []
    for region, facts, found in zip(regions, own, answer["devices"]):
        region.meet()
        told.append({"region": facts["name"], "function": found, "bytes": exchange(probe, region), "bells": None})
    if any(facts["doorbell"] for facts in own):
        bind(device, own, driver="vfio-pci", unsafe_noiommu=True, force=True)
    for region, facts, each in zip(regions, own, told):
        if facts["doorbell"]:
            each["bells"] = bells(probe, region)
        say("region", **each)
        for vm, theirs in sorted(region.meet(each).items()):
            say("peer", peer=vm, told=theirs)
    say("done", uptime=time.monotonic())


if __name__ == "__main__":
    try:
        work()
    except BaseException:
        import traceback

        for line in traceback.format_exc().splitlines():
            sys.stdout.write(f"acrn-test: error: {line}\n")
        sys.exit(1)
