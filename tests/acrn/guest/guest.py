# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a virtual machine in the emulator does: binds its ivshmem functions, exchanges bytes, rings, and tells.

The work is done by the modules guest_device and guest_probe as Ansible sends them to a guest. What Ansible's controller
would do between two calls, the guests agree on through the first bytes of the shared memory, which no proof uses: each
VM of a region has two blocks there, one for stages of an even number and one for those of an odd, with the number of
the stage that it has come to and what it has to tell. None is ever two stages ahead of a peer, so that what it tells
stands until all have read it.

All results are lines on the console, ``acrn-test: JSON``. The VM whose console is shown prints those of its peers.
A Service VM first starts the VMs that are launched, by their scripts and ACRN's acrn-dm, and prints what they wrote.
"""

import binascii
import ctypes
import fcntl
import json
import marshal
import mmap
import os
import sys
import time
import types
import zlib

BLOCK = 8192
HEAD = 8
VECTORS = 8
# In front of a counter of stages: ACRN gives VMs memory that holds what was there before, and not zeros.
TAG = 0x5AC21E
# Where a process of the Service VM leaves a mark in the memory of dm-land regions, before acrn-dm finds it.
MARK_AT = 1 << 20
MARK = b"a process of the Service VM was here"
LOGS = "/tmp/log/"
with open("/job.json") as job_file:
    JOB = json.load(job_file)


def words():
    """The arguments of the kernel: those that have a value with it, the others with True."""
    with open("/proc/cmdline") as handle:
        parted = [word.partition("=") for word in handle.read().split()]
    return {name: value if sign else True for name, sign, value in parted}


ME = int(words().get("vmid", "-1"))
SHOWN = JOB["console"]


def say(what, **facts):
    sys.stdout.write("acrn-test: " + json.dumps(dict(facts, vm=ME, what=what), sort_keys=True) + "\n")
    sys.stdout.flush()


def poll_the_console():
    """Give the serial port interrupt 0, by which the kernel knows that it has to look at the port itself.

    Nobody else has the port open then: one whose interrupt could not be had stays broken until it is opened anew.
    """
    port = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    # struct serial_struct, whose fourth number is the interrupt.
    facts = bytearray(72)
    fcntl.ioctl(port, 0x541E, facts)  # TIOCGSERIAL
    facts[12:16] = bytes(4)
    fcntl.ioctl(port, 0x541F, facts)  # TIOCSSERIAL
    os.close(port)
    console = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY)
    for number in range(3):
        os.dup2(console, number)


def modules(*names):
    """Modules of the collection, loaded as a target loads them, each with the part of the collection that runs it."""
    found = {}
    for name in names:
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
        unknown = sorted(set(given) - set(spec))
        if unknown:
            # An alias, too, which nobody would resolve here.
            raise ValueError(f"options that the module does not have: {unknown}")
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


class Launched:
    """The VMs that this Service VM starts: by the scripts that the role ``launch`` wrote."""

    def __init__(self, wish):
        self.wish = wish
        self.running = {}

    def try_out(self):
        """acrn-dm with arguments that it, or the hypervisor, should refuse."""
        for name, arguments in self.wish["trials"].items():
            log = LOGS + "trial"
            status = os.system(f"timeout -s KILL 60 acrn-dm {arguments} </dev/null >{log} 2>&1")
            with open(log, errors="replace") as handle:
                lines = [line.rstrip() for line in handle if line.strip()]
            say("trial", name=name, status=os.waitstatus_to_exitcode(status), lines=lines[-12:])

    def start(self):
        for name, size in self.wish["memory"].items():
            # As another process would: acrn-dm takes memory that is there already, if its size is right.
            with open("/dev/shm/" + name, "wb") as handle:
                handle.truncate(size << 20)
                handle.seek(MARK_AT)
                handle.write(MARK)
        self.try_out()
        for script in self.wish["scripts"] if self.wish["start"] else []:
            name = os.path.basename(script)[: -len(".sh")]
            child = os.fork()
            if child == 0:
                log = os.open(LOGS + name, os.O_WRONLY | os.O_CREAT)
                for end, other in ((os.open("/dev/null", os.O_RDONLY), 0), (log, 1), (log, 2)):
                    os.dup2(end, other)
                os.execv(script, [script])
            self.running[name] = child
            say("started", script=script, uptime=time.monotonic())
            # One after the other, as the units of a host come up by what they need.
            while "acrn-test: init" not in self.log(name):
                self.check()
                time.sleep(0.05)

    def check(self):
        """Raises RuntimeError where a VM, or its acrn-dm, has ended or failed: nobody has to wait for it any longer."""
        for name, child in self.running.items():
            text = self.log(name)
            ended, status = os.waitpid(child, os.WNOHANG)
            # Not at the first line of an error: the rest of it is still on its way.
            if ended or "acrn-test: ended 1" in text:
                raise RuntimeError(f"{name} failed, {status}:\n{text[-3000:]}")

    @staticmethod
    def log(name):
        with open(LOGS + name, errors="replace") as handle:
            return handle.read()

    def tell(self):
        """What the VMs told on their own consoles, and what their memory looks like from here."""
        for name in self.running:
            for line in self.log(name).splitlines():
                if line.startswith("acrn-test: {"):
                    print(line)
        for facts in JOB["regions"]:
            if facts["name"] in self.wish["memory"]:
                with open("/dev/shm/" + facts["name"], "rb") as handle:
                    memory = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
                told = {vm: last_told(memory, 2 * n * BLOCK) for n, vm in enumerate(facts["vms"])}
                say("memory", region=facts["name"], size=len(memory), told=told)
        compare = Module(*modules("launch_state")["launch_state"])
        state = self.wish["state"]
        say("launch_state", result=compare(wish=state))
        # The same with every dm-land region resized: their memory is in the way now, and held.
        resized = [dict(region, size=2 * region["size"]) for region in state["regions"]]
        say("launch_state_resized", result=compare(wish=dict(state, regions=resized)))


def last_told(memory, base):
    """What a VM with its blocks at ``base`` has told at its last stage."""
    blocks = [memory[start : start + BLOCK] for start in (base, base + BLOCK)]
    stages = [[int.from_bytes(block[n : n + 4], "little") for n in (0, 4)] for block in blocks]
    (_stage, length), block = max(zip(stages, blocks), key=lambda each: each[0])
    return json.loads(block[HEAD : HEAD + length].decode())


LAUNCHED = Launched(JOB["launch"]) if JOB.get("launch") and JOB["launch"]["by"] == ME else None


class Region:
    """A region of this VM: what the job says of it, and its first bytes, where the VMs of the region meet."""

    def __init__(self, probe_module, facts, bdf):
        self.vms = facts["vms"]
        self.peers = [vm for vm in self.vms if vm != ME]
        self.bdf = bdf
        # Named by its address from here on, also where ACRN's build chose it and size and order told it.
        self.device = dict(facts["device"], vbdf=bdf)
        self.probe = probe_module
        self.stage = 0
        self.told = None

    def base(self, vm):
        """Where the block of a VM for this stage begins."""
        return BLOCK * (2 * self.vms.index(vm) + self.stage % 2)

    def words(self, mapped, vm):
        base = self.base(vm)
        return [ctypes.c_uint32.from_buffer(mapped.memory, base + 4 * n) for n in range(2)]

    def opened(self):
        kernel = self.probe._kernel.Kernel()
        function = next(each for each in self.probe._probe._functions.scan(kernel) if each.bdf == self.bdf)
        return self.probe._probe.opened(kernel, function)

    def meet(self, told=None):
        """Tell the peers something and wait until all have come to this stage. Returns what each of them tells."""
        self.stage += 1
        self.told = told
        mapped = self.opened()
        try:
            text = json.dumps(told).encode()
            own = self.base(ME)
            if len(text) > BLOCK - HEAD:
                raise ValueError(f"too much to tell: {len(text)} bytes")
            mapped.memory[own + HEAD : own + HEAD + len(text)] = text
            stage, length = self.words(mapped, ME)
            length.value = len(text)
            stage.value = TAG << 8 | self.stage
            del stage, length
            heard = {}
            for vm in self.peers:
                stage, length = self.words(mapped, vm)
                limit = time.monotonic() + JOB["patience"]
                pause, looked = 0.00005, time.monotonic()
                while stage.value != TAG << 8 | self.stage:
                    now = time.monotonic()
                    if now > limit:
                        del stage, length
                        raise RuntimeError(f"VM {vm} did not come to stage {self.stage}")
                    if LAUNCHED and now > looked + 1:
                        LAUNCHED.check()
                        looked = now
                    # A VM that waits leaves the processor to those that it waits for.
                    time.sleep(pause)
                    pause = min(2 * pause, 0.005)
                base = self.base(vm)
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


def mark(region):
    """What a process of the Service VM has left in the memory."""
    mapped = region.opened()
    try:
        return bytes(mapped.memory[MARK_AT : MARK_AT + len(MARK)]).decode("ascii", "replace")
    finally:
        mapped.close()


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


def stray(probe, region):
    """Doorbells for vectors and peers that do not exist: the first VM rings, and all the others listen meanwhile."""
    sender = region.vms[0]
    armed = None if sender == ME else step(probe, "arm", region, timeout=JOB["patience"])
    region.meet()
    if sender == ME:
        mapped = region.opened()
        try:
            for peer, vector in JOB["stray"]:
                mapped.ring(peer, vector)
        finally:
            mapped.close()
    region.meet()
    found = None if sender == ME else step(probe, "collect", region)
    region.meet()
    if sender == ME:
        return None
    return {"counts": found.get("counts"), "problems": armed["problems"] + found["problems"]}


def bind(device, own, **how):
    """Bind the functions of all regions. Returns the answer of guest_device."""
    answer = device(devices=[facts["device"] for facts in own], persist=False, **how)
    if ME == SHOWN:
        say("guest_device", result=answer)
    if answer.get("failed"):
        raise RuntimeError(answer["msg"])
    return answer


def work():
    say("init", uptime=time.monotonic())
    if LAUNCHED:
        LAUNCHED.start()
    if not JOB["regions"] or (LAUNCHED and not LAUNCHED.running):
        # Nobody to meet.
        say("done", uptime=time.monotonic())
        return
    loaded = modules("guest_device", "guest_probe")
    device = Module(*loaded["guest_device"])
    probe = Module(*loaded["guest_probe"])
    own = [dict(facts, device=facts["devices"][str(ME)]) for facts in JOB["regions"] if ME in facts["vms"]]
    # uio_pci_generic shares memory and rings; for what it cannot do, receive, the functions go to vfio-pci then.
    answer = bind(device, own)
    regions = [Region(loaded["guest_probe"][1], facts, found["bdf"]) for facts, found in zip(own, answer["devices"])]
    told = []
    for region, facts, found in zip(regions, own, answer["devices"]):
        region.meet()
        told.append({"region": facts["name"], "function": found, "bytes": exchange(probe, region), "bells": None})
        if not facts["doorbell"]:
            told[-1]["mark"] = mark(region)
    if any(facts["doorbell"] for facts in own):
        bind(device, own, driver="vfio-pci", unsafe_noiommu=True, force=True)
    for region, facts, each in zip(regions, own, told):
        if facts["doorbell"]:
            each["bells"] = bells(probe, region)
            if JOB["stray"]:
                each["stray"] = stray(probe, region)
        # A console is slow: what the VM that is shown tells, or reads in its own memory, need not be told here.
        quiet = ME != SHOWN and (SHOWN in region.vms or not facts["doorbell"])
        if not quiet:
            say("region", **each)
        heard = region.meet(each)
        if ME == SHOWN:
            for vm, theirs in sorted(heard.items()):
                say("peer", peer=vm, told=theirs)
    for region in regions:
        region.meet(region.told)
    if LAUNCHED:
        LAUNCHED.tell()
    say("done", uptime=time.monotonic())


if __name__ == "__main__":
    if "polled" in words():
        poll_the_console()
    try:
        work()
    except BaseException:
        import traceback

        for line in traceback.format_exc().splitlines():
            sys.stdout.write(f"acrn-test: error: {line}\n")
        sys.exit(1)
