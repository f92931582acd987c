# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines that are lost while ``site`` works on them, and two ``site`` at once.

The first Service VM and its guests are never disturbed. All others are made as it is, so whatever became of them on
the way, they have to end as it ends: every file, every byte of the shared memory, and nothing left beside them.
"""

from __future__ import annotations

import concurrent.futures
import random
import re

import pytest

from ansible_collections.acrn.ivshmem.tests.reliability import figures, injection, plant

pytestmark = pytest.mark.skipif(plant.why_not() is not None, reason=str(plant.why_not()))

# Of a guest in a run that finds everything to do; a Service VM has fewer.
CALLS = 7
# Where the connection is lost, a machine cannot but be missing. What dies on the machine may be run again at once.
LOST = ("off", "before", "answer")


def faults(chance):
    """What can happen to a call. Who dies within a module does so where it is about to change a file."""
    middle = () if injection.why_not() else (f"middle:{chance.randint(1, 9)}",)
    return (*LOST, "killed", *middle)


def filled(folder, hosts, **others):
    """A plant with bytes of applications in all shared memory."""
    place = plant.Plant(folder, hosts, **others)
    for name in place.guests:
        for memory in place.root(name).glob("sys/bus/pci/devices/*/resource2"):
            memory.write_bytes(random.Random(memory.parent.name).randbytes(2 << 20))
    return place


def lost(place, weather):
    """Machine -> fault, of those where one happened."""
    found = {}
    for name, (number, fault) in weather.items():
        count = int((place.folder / f"weather-{name}").read_text().split()[0])
        if count >= number:
            found[name] = fault
    return found


def named(name, said):
    """Whether a run has told that something failed on a machine."""
    return re.search(rf"^(fatal|failed): \[(\S+ -> )?{name}[\] ]", said, re.M)


def spared(name, said):
    """Whether it was lost in the look of a Service VM, without which regions are proved all the same, by reading."""
    return re.search(rf"^fatal: \[({name} -> \S+|\S+ -> {name})\]: UNREACHABLE!.*\n\.\.\.ignoring", said, re.M)


def recap(said):
    """Machine -> its numbers at the end of a run."""
    lines = re.findall(r"^(\S+) +: (ok=.*)", said.rpartition("PLAY RECAP")[2], re.M)
    return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)} for name, text in lines}


def flaky(place, weather, run=1):
    """A run in which machines are lost. Returns how many were; the others got theirs, and the missing are told."""
    place.lose(**{name.replace("-", "_"): each for name, each in weather.items()})
    done = place.run("site")
    hit = lost(place, weather)
    story = f"run {run}, {hit} of {weather}\n{done.stdout}"
    assert "Traceback" not in done.stdout and "Unexpected" not in done.stdout, story
    away = [name for name, fault in hit.items() if fault in LOST]
    for name in away:
        assert named(name, done.stdout), f"{name} is not named: {story}"
    numbers = recap(done.stdout)
    failed = [name for name, each in numbers.items() if each["failed"] or each["unreachable"]]
    assert (done.returncode != 0) == bool(failed), story
    steps = done.stdout.rpartition("NEXT STEPS")[2].partition("More: ")[0]
    for name in failed:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", steps), f"{name} is not among the next steps: {story}"
    for name in away:
        # What a guest has its Service VM asked is that guest's failure.
        own = [each for each in failed if each == name or (name in place.acrn_hosts and each.startswith(f"{name}-"))]
        assert own or spared(name, done.stdout), f"{name} counts as done: {story}"
    # A machine whose whole host is well has nothing to do with it.
    ill = {name.partition("-")[0] for name in weather}
    assert not [name for name in failed if name.partition("-")[0] not in ill], story
    assert {name for name in numbers if name.partition("-")[0] not in ill} >= {"h001", "h001-vm0"}, story
    return len(hit)


def converged(place, most, last=()):
    """Run until nothing changes any more, which has to be soon; then all hosts have to be as the first one is.

    ``last`` are options of the last run that may be.
    """
    place.lose()
    for run in range(most):
        done = place.done("site", *(last if run == most - 1 else ()))
        if not any(each["changed"] for each in recap(done.stdout).values()):
            break
    else:
        raise AssertionError(f"still not the same after {most} runs: {done.stdout}")
    wrong = unlike(place)
    assert not wrong, wrong
    for name in place.guests:
        assert (place.root(name) / "run/acrn-ivshmem/proof").exists(), f"nothing is proved on {name}"


def unlike(place):
    """What another host has otherwise than the first one, which nobody disturbed."""
    wrong = []
    first = [place.state(name) for name in place.names(1)]
    for number in range(1, place.hosts + 1):
        names = place.names(number)
        for name, right in zip(names, first):
            there = {path: as_first(value, names[0]) for path, value in place.state(name).items()}
            wrong += [(name, path) for path in {*right, *there} if right.get(path) != there.get(path)]
            # The journal of the proof, and files that are still to get their names.
            run = place.root(name) / "run/acrn-ivshmem"
            wrong += [(name, str(path)) for path in run.glob("*") if path.name not in ("lock", "proof")]
    kept = place.kept()
    right = {path: value for path, value in kept.items() if path.startswith("h001")}
    for name in place.acrn_hosts:
        there = {path: value for path, value in kept.items() if path.startswith(name)}
        there = {path.replace(name, "h001"): as_first(value, name) for path, value in there.items()}
        wrong += [(name, path) for path in {*right, *there} if right.get(path) != there.get(path)]
    return wrong


def as_first(value, host):
    """What a path has, in the words of the first host."""
    if isinstance(value, str):
        return value.replace(host, "h001")
    return value and (value[0], value[1].replace(host.encode(), b"h001"))


# The last call of a run that has everything to do on a Service VM, and a call of a guest.
SMALL = {"vms": {"VM0": 0, "VM2": 3}, "regions": [plant.LEDGER]}


def test_what_is_lost_comes_with_the_next_run(tmp_path):
    """The answer about what was done last on a Service VM, and a guest in the middle of its proof."""
    place = filled(tmp_path, 2, **SMALL)
    count = flaky(place, {"h002": (4, "answer"), "h002-vm0": (4, "answer")})
    assert count == 2
    # What the first host does in a third run, the other tells as well.
    converged(place, 2, last=("--limit", "h002,h002-vm0,h002-vm2,localhost"))
    figures.add("machines lost during site", count, count)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_runs_that_lose_machines_at_random(tmp_path, seed):
    """Three runs one after the other, each losing machines of each host but the first."""
    place = filled(tmp_path, 5)
    chance = random.Random(seed)
    count = 0
    for run in range(3):
        weather = {}
        for number in range(2, place.hosts + 1):
            for name in chance.sample(place.names(number), 2):
                calls = CALLS - 3 * (name in place.acrn_hosts)
                weather[name] = (chance.randint(1, calls), chance.choice(faults(chance)))
        count += flaky(place, weather, run)
    assert count > 8
    converged(place, 4)
    figures.add("machines lost during site", count, count)


@pytest.mark.long
def test_half_of_the_fleet_is_away(tmp_path):
    """Service VMs and guests that cannot be reached from the beginning on, or half way, for the whole run."""
    place = filled(tmp_path, 8)
    away = {"h002": 1, "h002-vm0": 1, "h002-vm1": 1, "h002-vm2": 1, "h003": 1, "h004": 3, "h005-vm0": 1, "h006-vm2": 1}
    away |= {"h006-vm0": 4, "h007": 5}
    count = flaky(place, {name: (number, "off") for name, number in away.items()})
    for host in ("h001", "h005", "h006", "h008"):
        assert (place.root(host) / "etc/acrn/launch/VM1.sh").exists(), host
    # VM2 of h006 waits for its restart and is not asked.
    assert count == len(away) - 1
    converged(place, 4)
    figures.add("machines away during site", count, count)


@pytest.mark.long
@pytest.mark.parametrize("own", [False, True], ids=["one inventory", "two controllers"])
def test_two_sites_at_once(tmp_path, own):
    """Both have everything to do. What one could not do because of the other, it tells; together they did it."""
    place = filled(tmp_path, 2, **SMALL)
    place.lose()
    both = (place, place.second(tmp_path) if own else place)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda each: each.run("site"), both))
    for each in done:
        assert "Traceback" not in each.stdout and "Unexpected" not in each.stdout, each.stdout
        failed = [name for name, numbers in recap(each.stdout).items() if numbers["failed"] or numbers["unreachable"]]
        assert (each.returncode != 0) == bool(failed), each.stdout
    converged(place, 3)
    figures.add("site at once", 2, 2)
