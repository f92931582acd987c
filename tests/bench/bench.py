# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection costs, as ratios of CPU seconds that were taken in one run.

    script/bench [--hosts 1,10,50] [--repeats 3] [--parts fleet,builds,edit]

fleet    site.yml that finds nothing to do on N Service VMs with two guests each, against a bare ping of all 3 N hosts
builds   how many builds N hosts with K configurations start, at first and in a second pass
edit     eight regions in one call of scenario_regions against eight, and the edit alone against one parse by lxml

CPU seconds are those of Ansible and of all that it starts; the simulated hosts (fleet.py) are here, so that their part
is in it. Both sides of a ratio are taken in turn and the median counts: other work on the machine hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import fleet

PROJECT = fleet.PROJECT
BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


def run(*words: str) -> tuple[float, str]:
    """CPU seconds and output of a command and of all that it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def site(inventory: Path, *words: str) -> tuple[float, str]:
    return run(str(BIN / "ansible-playbook"), "-i", str(inventory), "acrn.ivshmem.site", *words)


def changed(output: str) -> int:
    """How many results of a playbook were changes."""
    return sum(int(line.split("changed=")[1].split()[0]) for line in output.splitlines() if "changed=" in line)


def bench_fleet(folder: Path, hosts: list[int], repeats: int) -> list[dict[str, Any]]:
    found = []
    for number in hosts:
        place = folder / f"fleet-{number}"
        fleet.make(place, number, None)
        inventory = place / "inventory.yml"
        first = site(inventory)[0]
        samples = []
        for _number in range(repeats):
            ping = run(str(BIN / "ansible"), "all", "-i", str(inventory), "-m", "ansible.builtin.ping")[0]
            again, output = site(inventory)
            if changed(output):
                raise SystemExit(f"the second pass changed something:\n{output}")
            samples.append({"ping": ping, "site": again, "ratio": again / ping})
        middle = {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
        found.append({"hosts": number, "first_pass": first, "samples": samples, **middle})
        print(
            f"fleet   {number:4} hosts: ping {middle['ping']:7.2f} s, site {middle['site']:7.2f} s, "
            f"ratio {middle['ratio']:.2f}, {middle['site'] / number:.3f} s a host (first pass {first:.1f} s)",
            flush=True,
        )
    return found


def bench_builds(folder: Path, hosts: int, configurations: int) -> dict[str, Any]:
    place = folder / "builds"
    fleet.make(place, hosts, None)
    inventory = place / "inventory.yml"
    text = fleet.read_inventory(inventory)
    for index, values in enumerate(text["all"]["children"]["acrn_hosts"]["hosts"].values()):
        values["ivshmem_host_regions"] = [{"name": f"own_{index % configurations}", "size": 2, "vms": ["VM0", "VM1"]}]
    inventory.write_text(json.dumps(text))
    counts = []
    for _number in range(2):
        output = site(inventory, "--limit", "acrn_hosts,builder")[1]
        line = next(line for line in output.splitlines() if line.startswith("builder "))
        artefacts = len([path for path in (place / "artifacts").iterdir() if (path / "manifest.json").exists()])
        counts.append({"changed": int(line.split("changed=")[1].split()[0]), "artefacts": artefacts})
    print(f"builds  {hosts} hosts, {configurations} configurations: {counts[0]['artefacts']} builds, then", end=" ")
    print(f"{counts[1]['artefacts'] - counts[0]['artefacts']} (changed={counts[1]['changed']})", flush=True)
    return {"hosts": hosts, "configurations": configurations, "passes": counts}


def seconds(action: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of one call, from many."""
    before = time.process_time()
    for _number in range(repeats):
        action()
    return (time.process_time() - before) / repeats


def bench_edit(folder: Path, repeats: int) -> dict[str, Any]:
    import lxml.etree  # type: ignore[import-untyped]

    sys.path.insert(0, os.environ["ANSIBLE_COLLECTIONS_PATH"])
    from ansible_collections.acrn.ivshmem.plugins.module_utils._request import decide

    path = folder / "scenario.xml"
    original = (PROJECT / "molecule/default/inventory/scenario.xml").read_bytes()
    regions = [{"name": f"r{number}", "size": 2, "vms": ["VM1", "VM2"]} for number in range(8)]

    def edit() -> bytes:
        return decide(original, "scenario.xml", regions, "exact", version=(3, 3)).data

    samples = [(seconds(edit, 50), seconds(lambda: lxml.etree.fromstring(original), 500)) for _number in range(repeats)]
    in_process, parse = (statistics.median(column) for column in zip(*samples))

    def play(name: str, calls: list[list[dict[str, Any]]]) -> float:
        tasks = [
            {
                "acrn.ivshmem.scenario_regions": {
                    "path": str(path),
                    "regions": call,
                    "acrn_version": "3.3",
                    "state": "present",
                }
            }
            for call in calls
        ]
        (folder / name).write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        path.write_bytes(original)
        return run(str(BIN / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(folder / name))[0]

    pairs = [
        (play("one.json", [regions]), play("eight.json", [[each] for each in regions])) for _number in range(repeats)
    ]
    ratio = statistics.median(eight / one for one, eight in pairs)
    print(f"edit    eight calls against one: {ratio:.2f}; the edit alone {in_process * 1000:.1f} ms", end="")
    print(f", {in_process / parse:.0f} times one lxml parse of the file ({parse * 1000:.2f} ms)", flush=True)
    return {"eight_to_one": ratio, "edit_s": in_process, "lxml_parse_s": parse, "plays": pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1,10,50", help="numbers of Service VMs (default 1,10,50)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", default="fleet,builds,edit")
    parser.add_argument("--json", type=Path, default=Path(".cache/bench.json"), help="where all samples go")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("the simulated hosts need root: each has a root directory of its own (unshare, chroot)")
    parts = arguments.parts.split(",")
    result: dict[str, Any] = {"python": platform.python_version(), "processors": os.cpu_count()}
    result["ansible"] = run(str(BIN / "ansible"), "--version")[1].splitlines()[0]
    # In /tmp: the hosts see that of this machine.
    with tempfile.TemporaryDirectory(prefix="acrn-bench-") as name:
        folder = Path(name)
        if "fleet" in parts:
            result["fleet"] = bench_fleet(folder, [int(n) for n in arguments.hosts.split(",")], arguments.repeats)
        if "builds" in parts:
            result["builds"] = bench_builds(folder, 6, 2)
        if "edit" in parts:
            result["edit"] = bench_edit(folder, arguments.repeats)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"all samples: {arguments.json}")


if __name__ == "__main__":
    main()
