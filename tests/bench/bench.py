# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection costs, as ratios of CPU seconds that were taken in one run.

    script/bench [--hosts 1,10,50] [--connection ssh] [--repeats 3] [--parts fleet,builds,edit]

fleet    site.yml that finds nothing to do on N Service VMs with two guests each, against a bare ping of all 3 N hosts
         and against a playbook of stock modules (peer.playbook; up to 10 hosts at every repeat, up to 50 once);
         from 1000 hosts on once, whatever --repeats says
builds   how many builds N hosts with K configurations start, at first and in a second pass, and whether a build that
         is made again has the same bytes
edit     eight regions in one call of scenario_regions against eight, the edit alone against one parse by lxml, and
         whether an edit that changes nothing writes

CPU seconds are those of Ansible and of all that it starts, from a control group of their own where this machine has
them, else from the times of child processes. The simulated hosts (fleet.py) are here, so their part is in it, and with
--connection ssh that of an sshd on 127.0.0.1. The sides of a ratio are taken in turn and the median counts: other work
on the machine hits all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Iterator

import fleet

PROJECT = fleet.PROJECT
BIN = Path(sys.executable).parent
# Where the peer's modules come from: this release of the package "ansible" goes with the ansible-core of the tests.
PEER_PACKAGE = "ansible==12.3.0"
PEER_EVERY, PEER_ONCE = 10, 50
# One round over so many took half an hour.
ONCE = 1000


class Meter:
    """Runs commands and tells what they took. ``collections``: a directory of collections beside this one."""

    def __init__(self, collections: Path | None = None) -> None:
        self._group: Path | None = None
        self._paths = os.pathsep.join(filter(None, [os.environ["ANSIBLE_COLLECTIONS_PATH"], str(collections or "")]))
        for parent in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpuacct")):
            with contextlib.suppress(OSError):
                group = parent / f"acrn-ivshmem-bench-{os.getpid()}"
                group.mkdir()
                if self._read(group) is not None:
                    self._group = group
                    break
                group.rmdir()

    @staticmethod
    def _read(group: Path) -> float | None:
        for name, unit in (("cpu.stat", 1e6), ("cpuacct.usage", 1e9)):
            with contextlib.suppress(OSError):
                return float((group / name).read_text().replace("usage_usec", "").split()[0]) / unit
        return None

    @property
    def way(self) -> str:
        return "control group" if self._group else "times of child processes"

    def _seconds(self) -> float:
        if self._group:
            return self._read(self._group) or 0.0
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def _join(self) -> None:
        if self._group:
            (self._group / "cgroup.procs").write_text("0")

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": self._paths,
            "ANSIBLE_NOCOLOR": "1",
        }
        return subprocess.Popen(words, text=True, env=environment, preexec_fn=self._join, **options)

    def run(self, *words: str) -> dict[str, Any]:
        """CPU seconds, output, and the memory of the largest process (Ansible's main one) in MB."""
        before = self._seconds()
        with tempfile.TemporaryFile("w+") as output:
            process = self.start(*words, stdout=output, stderr=subprocess.STDOUT)
            _pid, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(words)}\n{text}")
        return {"cpu": self._seconds() - before, "output": text, "memory": used.ru_maxrss / 1024}

    def ansible(self, program: str, inventory: Path, *words: str) -> dict[str, Any]:
        return self.run(str(BIN / program), "-i", str(inventory), *words)

    def unchanged(self, inventory: Path, *words: str) -> dict[str, Any]:
        """A playbook that must not change anything."""
        done = self.ansible("ansible-playbook", inventory, *words)
        if changed(done["output"]):
            raise SystemExit(f"a pass that should change nothing did:\n{done['output']}")
        return done

    def end(self) -> None:
        if self._group:
            # Masters of ssh end by themselves, but not at once.
            for process in (self._group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), 15)
            for _number in range(50):
                with contextlib.suppress(OSError):
                    self._group.rmdir()
                    return
                time.sleep(0.1)


def changed(output: str) -> int:
    """How many results of a playbook were changes."""
    return sum(int(line.split("changed=")[1].split()[0]) for line in output.splitlines() if "changed=" in line)


SITE = "acrn.ivshmem.site"


@contextlib.contextmanager
def ssh_server(meter: Meter, folder: Path) -> Iterator[int]:
    """An sshd on a port of 127.0.0.1 that takes folder/key."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        raise SystemExit("--connection ssh needs sshd (Debian package openssh-server)")
    for name in ("key", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\n"
        "PermitRootLogin prohibit-password\nUsePAM no\nPidFile none\nMaxStartups 500\nSubsystem sftp internal-sftp\n"
    )
    process = meter.start(program, "-D", "-f", str(folder / "sshd_config"))
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def peer_collections(cache: Path) -> Path:
    """A directory of collections with community.general."""
    place = cache / "peer"
    if not (place / ".complete").exists():
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-d", str(place), PEER_PACKAGE], check=True)
        (wheel,) = place.glob("ansible-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if name.startswith("ansible_collections/community/general/")]
            archive.extractall(place, wanted)
        wheel.unlink()
        (place / ".complete").touch()
    return place


def peer_regions() -> list[dict[str, Any]]:
    """The regions of the fleet as community.general.xml takes children."""
    lands = {"hypervisor": "Hypervisor", "device_model": "Device Model"}
    found = []
    for region in fleet.REGIONS:
        ends = [{"IVSHMEM_VM": {"_": [{"VM_NAME": vm["name"]}, {"VBDF": vm["vbdf"]}]}} for vm in region["vms"]]
        parts = [
            {"NAME": region["name"]},
            {"PROVIDED_BY": lands[region.get("provided_by", "hypervisor")]},
            {"IVSHMEM_SIZE": str(region["size"])},
            {"IVSHMEM_VMS": {"_": ends}},
        ]
        found.append({"IVSHMEM_REGION": {"_": parts}})
    return found


def peer_words(place: Path) -> list[str]:
    variables = {
        "peer_directory": str(place / "peer"),
        "peer_regions": peer_regions(),
    }
    return [str(PROJECT / "tests/bench/peer.playbook"), "-e", json.dumps(variables)]


PLAN = """\
- hosts: {host}
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: acrn.ivshmem.scenario
    - ansible.builtin.copy:
        content: "{{{{ scenario_plan.regions | to_json }}}}"
        dest: {dest}
      delegate_to: builder
"""


def give_proofs(meter: Meter, place: Path, inventory: Path, number: int) -> None:
    """Give each machine the proof that it would get: of a machine's own is that alone, and to make it takes long."""
    from ansible_collections.acrn.ivshmem.plugins.module_utils._guest import _kernel
    from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _verify

    (place / "plan.yml").write_text(PLAN.format(host=fleet.names(1)[0], dest=place / "regions.json"))
    meter.ansible("ansible-playbook", inventory, str(place / "plan.yml"))
    regions = json.loads((place / "regions.json").read_text())
    for each in range(1, number + 1):
        host, *guests = fleet.names(each)
        variables: dict[str, Any] = {host: {"scenario_plan": {"regions": regions}}}
        for guest, vm in zip(guests, fleet.VM_IDS):
            variables[guest] = {"acrn_host": host, "acrn_vm": vm, "guest_result": {"boot_id": fleet.BOOT}}
        text = _verify.proof(variables, host, guests)
        for vm in fleet.VM_IDS:
            path = place / "machines" / host / vm / _kernel.PROOF.lstrip("/")
            if each == 1 and path.read_text() != text:
                raise SystemExit(f"{path} is not the proof that was to be expected")
            path.write_text(text)


def prepare(meter: Meter, place: Path, number: int, port: int | None, peer: bool) -> Path:
    """A fleet that is as both playbooks want it. What a run gives the first machine, the others get as copies."""
    fleet.make(place, number, port)
    # Memory of nothing but zeros is proved by nobody who only reads.
    for memory in place.glob("machines/*/*/sys/bus/pci/devices/*/resource2"):
        memory.write_bytes(random.Random(memory.parent.name).randbytes(memory.stat().st_size))
    if port:
        shutil.copy(place.parent / "key", place / "key")
    inventory = place / "inventory.yml"
    first = ",".join(fleet.names(1))
    meter.ansible("ansible-playbook", inventory, SITE, "--limit", f"{first},builder")
    if peer:
        (place / "peer" / fleet.names(1)[0]).mkdir(parents=True)
        shutil.copy(place / "scenario.xml", place / "peer" / fleet.names(1)[0])
        meter.ansible("ansible-playbook", inventory, *peer_words(place), "--limit", f"{first},localhost")
    fleet.clone(place, number)
    give_proofs(meter, place, inventory, number)
    done = meter.unchanged(inventory, SITE)
    if "Prove the regions" in done["output"] or "Compare with the declaration" in done["output"]:
        raise SystemExit("the proofs that the machines were given do not stand")
    return inventory


def bench_fleet(meter: Meter, folder: Path, hosts: list[int], repeats: int, port: int | None) -> list[dict[str, Any]]:
    found = []
    way = "ssh" if port else "local"
    for number in hosts:
        place = folder / f"fleet-{number}"
        inventory = prepare(meter, place, number, port, number <= PEER_ONCE)
        samples: list[dict[str, Any]] = []
        for count in range(1 if number >= ONCE else repeats):
            sample: dict[str, Any] = {}
            done = meter.ansible("ansible", inventory, "all", "-m", "ansible.builtin.ping")
            sample.update(ping=done["cpu"], ping_memory=done["memory"])
            done = meter.unchanged(inventory, SITE)
            sample.update(site=done["cpu"], site_memory=done["memory"], ratio=done["cpu"] / sample["ping"])
            if number <= PEER_EVERY or (number <= PEER_ONCE and not count):
                done = meter.unchanged(inventory, *peer_words(place))
                sample["peer"] = done["cpu"]
            samples.append(sample)
        middle = {key: statistics.median(each[key] for each in samples if key in each) for key in samples[0]}
        if "peer" in middle:
            # Not pair by pair: where the peer runs once, the first ping of a fleet, which is dear, would be its pair.
            middle["peer_ratio"] = middle["peer"] / middle["ping"]
        found.append({"hosts": number, "connection": way, "samples": samples, **middle})
        peer = f", stock modules {middle['peer_ratio']:.2f} x" if "peer_ratio" in middle else ""
        print(
            f"fleet   {way:5} {number:4} hosts: ping {middle['ping']:7.2f} s, site {middle['site']:7.2f} s = "
            f"{middle['ratio']:.2f} x ping{peer}; {middle['site'] / number:.3f} s a host, "
            f"{middle['site_memory']:.0f} MB (ping {middle['ping_memory']:.0f} MB)",
            flush=True,
        )
        shutil.rmtree(place)
    few, many = found[0], found[-1]
    for each in found:
        few = each if each["hosts"] <= 10 else few
    if many["hosts"] > few["hosts"]:
        span = many["hosts"] - few["hosts"]
        growth = (many["site"] / many["hosts"]) / (few["site"] / few["hosts"])
        memory = (many["site_memory"] - few["site_memory"]) / span * 1024
        many.update(growth=growth, memory_a_host_kb=memory)
        print(
            f"growth  {way:5} {few['hosts']} to {many['hosts']} hosts: {growth:.2f} x CPU seconds a host, "
            f"{memory:.0f} kB of the controller's memory a host (a Service VM and two guests)",
            flush=True,
        )
    return found


def digests(artifacts: Path) -> dict[str, str]:
    """SHA-256 of each binary, by key."""
    return {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(artifacts.glob("*/acrn.bin"))
    }


def bench_builds(meter: Meter, folder: Path, hosts: int, configurations: int) -> dict[str, Any]:
    place = folder / "builds"
    fleet.make(place, hosts, None)
    inventory = place / "inventory.yml"
    text = fleet.read_inventory(inventory)
    for index, values in enumerate(text["all"]["children"]["acrn_hosts"]["hosts"].values()):
        values["ivshmem_host_regions"] = [{"name": f"own_{index % configurations}", "size": 2, "vms": ["VM0", "VM1"]}]
    inventory.write_text(json.dumps(text))
    counts = []
    made: list[dict[str, str]] = []
    for again in (False, False, True):
        if again:
            for name in ("artifacts", "work"):
                shutil.rmtree(place / name)
        output = meter.ansible("ansible-playbook", inventory, SITE, "--limit", "acrn_hosts,builder")["output"]
        line = next(line for line in output.splitlines() if line.startswith("builder "))
        made.append(digests(place / "artifacts"))
        counts.append({"changed": int(line.split("changed=")[1].split()[0]), "artefacts": len(made[-1])})
    equal = made[0] == made[2]
    print(
        f"builds  {hosts} hosts, {configurations} configurations: {counts[0]['artefacts']} builds, then "
        f"{counts[1]['artefacts'] - counts[0]['artefacts']} (changed={counts[1]['changed']}); "
        f"made again: {'the same' if equal else 'OTHER'} bytes",
        flush=True,
    )
    return {"hosts": hosts, "configurations": configurations, "passes": counts, "same_bytes": equal}


def seconds(action: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of one call, from many."""
    before = time.process_time()
    for _number in range(repeats):
        action()
    return (time.process_time() - before) / repeats


def bench_edit(meter: Meter, folder: Path, repeats: int) -> dict[str, Any]:
    import lxml.etree  # type: ignore[import-untyped]

    from ansible_collections.acrn.ivshmem.plugins.module_utils._scenario._request import decide

    path = folder / "scenario.xml"
    original = (PROJECT / "examples/demo/scenarios/press-line.xml").read_bytes()
    regions = [{"name": f"r{number}", "size": 2, "vms": [2, 3]} for number in range(8)]

    def edit() -> bytes:
        return decide(original, "scenario.xml", regions, "exact", version=(2, 7)).data

    samples = [(seconds(edit, 50), seconds(lambda: lxml.etree.fromstring(original), 500)) for _number in range(repeats)]
    in_process, parse = (statistics.median(column) for column in zip(*samples))

    def play(calls: list[list[dict[str, Any]]], start: bytes) -> float:
        same = {"path": str(path), "acrn_version": "2.7", "state": "present"}
        tasks = [{"acrn.ivshmem.scenario_regions": {**same, "regions": call}} for call in calls]
        (folder / "edit.json").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        path.write_bytes(start)
        words = ("-i", "localhost,", "-c", "local", str(folder / "edit.json"))
        return float(meter.run(str(BIN / "ansible-playbook"), *words)["cpu"])

    pairs = [(play([regions], original), play([[each] for each in regions], original)) for _number in range(repeats)]
    ratio = statistics.median(eight / one for one, eight in pairs)
    # Another indentation, or other line ends, are no reason for a write, which would cost a build.
    spaced = edit().replace(b"<IVSHMEM_REGION>", b"\t<IVSHMEM_REGION>").replace(b"\n", b"\r\n")
    play([regions], spaced)
    written = path.read_bytes() != spaced
    print(f"edit    eight calls against one: {ratio:.2f}; the edit alone {in_process * 1000:.1f} ms", end="")
    print(
        f", {in_process / parse:.0f} times one lxml parse of the file ({parse * 1000:.2f} ms); an equal edit", end=" "
    )
    print("WRITES" if written else "writes nothing", flush=True)
    return {"eight_to_one": ratio, "edit_s": in_process, "lxml_parse_s": parse, "plays": pairs, "equal_writes": written}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1,10,50", help="numbers of Service VMs (default 1,10,50)")
    parser.add_argument("--connection", choices=["local", "ssh"], default="local")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", default="fleet,builds,edit")
    parser.add_argument("--json", type=Path, default=Path(".cache/bench.json"), help="where all samples go")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("the simulated hosts need root: each has a root directory of its own (unshare, chroot)")
    sys.path.insert(0, os.environ["ANSIBLE_COLLECTIONS_PATH"])
    parts = arguments.parts.split(",")
    hosts = sorted(int(number) for number in arguments.hosts.split(","))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    peer = peer_collections(arguments.json.parent) if "fleet" in parts and hosts[0] <= PEER_ONCE else None
    meter = Meter(peer)
    result: dict[str, Any] = {"python": platform.python_version(), "processors": os.cpu_count(), "cpu": meter.way}
    result["ansible"] = meter.run(str(BIN / "ansible"), "--version")["output"].splitlines()[0]
    # In /tmp: the hosts see that of this machine.
    with tempfile.TemporaryDirectory(prefix="acrn-bench-") as name:
        folder = Path(name)
        try:
            if "fleet" in parts:
                with contextlib.ExitStack() as stack:
                    ssh = arguments.connection == "ssh"
                    port = stack.enter_context(ssh_server(meter, folder)) if ssh else None
                    result["fleet"] = bench_fleet(meter, folder, hosts, arguments.repeats, port)
            if "builds" in parts:
                result["builds"] = bench_builds(meter, folder, 6, 2)
            if "edit" in parts:
                result["edit"] = bench_edit(meter, folder, arguments.repeats)
        finally:
            meter.end()
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"all samples: {arguments.json}")


if __name__ == "__main__":
    main()
