# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest and a Service VM that lie to the playbooks, beside honest ones that share memory.

VM1 lies, and so does the Service VM of the same machine. Its other guests share a region that VM1 is not in: they and
all other machines have to look as they would if nobody lied.
"""

from __future__ import annotations

import json
import re

import pytest

from ansible_collections.acrn.ivshmem.tests.reliability import figures, plant
from ansible_collections.acrn.ivshmem.tests.reliability.test_lying_guest import OBEYED, SPOKEN, lies

pytestmark = pytest.mark.skipif(plant.why_not() is not None, reason=str(plant.why_not()))

PLAYBOOKS = ("site", "verify", "plan", "report")
# Of the whole fleet, or of this run alone.
SHARED = {
    "__verify_fleet",
    "verify_report",
    "__verify_service",
    "groups",
    "look_at",
    "verify_json",
    "plan_json",
    "report_directory",
    "playbook_dir",
    "__verify_new_fleet",
    "__scenario_claims",
}
# A region of other guests, with all that a guest could say to have something written there or to pass for another.
ANOTHER = {
    **{"region": "hv:/ledger", "name": "ledger", "acrn_host": "h001", "guest": "h001-vm0", "vm": "VM0", "peer": "VM0"},
    **{
        "label": {"region": "hv:/ledger", "acrn_host": "h001", "vm": "VM0"},
        "device": {"name": "ledger", "bdf": "00:09.0"},
    },
    **{
        "offset": 0,
        "length": 43,
        "saved": "Zm9yZWlnbg==",
        "same": 1 << 20,
        "restored": 99,
        "left": 0,
        "iv_position": 3,
    },
    **{"write": {"region": "hv:/ledger", "offset": 0, "saved": "Zm9yZWlnbg=="}, "proof": {"foreign": 1}, "idle": True},
}


# Lies that make an answer one of another kind, or none.
ALONE = ("difference", "warnings", "changed", "failed", "results", "surrogate", "tagged", "fields", "template")


def merged(canary):
    """All keys of all lies that leave an answer what it is, in one."""
    keys, _texts = lies(canary)
    found = {}
    for name, lie in keys.items():
        if name not in ALONE:
            found.update(lie)
    # A host may say that it has changed something.
    found.pop("changed")
    found["warnings"] = [SPOKEN, f"{{{{ lookup('pipe', '{canary}') }}}}"]
    return {
        "keys": found,
        "inside": {key: found[key] for key in ("unreachable", "ansible_facts", "add_host")},
        "around": SPOKEN,
    }


def stories(canary, size):
    """Name -> what is answered (liar.py). What is told all at once as well as one by one is told at once."""
    keys, texts = lies(canary)
    found = {f"keys: {name}": {"keys": keys[name], "inside": keys[name]} for name in ALONE}
    found |= {f"text: {name}": {"text": text} for name, text in texts.items() if name != "huge"}
    leaves = (
        None,
        3,
        -1,
        10**30,
        1.5,
        "x",
        [],
        {},
        [[{}]],
        SPOKEN,
        f"{{{{ lookup('pipe', '{canary}') }}}}",
        "9" * 5000,
    )
    found |= {f"all values: {str(leaf)[:12]!r}": {"leaf": leaf} for leaf in leaves}
    found |= {
        "templates": {"suffix": f"{{{{ lookup('pipe', '{canary}') }}}}"},
        "around": {"around": SPOKEN},
        "another's": {"keys": ANOTHER, "inside": ANOTHER},
        "huge": {"text": "x", "times": size},
        "endless": {"endless": True},
        "no UTF-8": {"hex": b'{"changed": false, "msg": "\xff\xfe\x9b31m", "results": ["\xff"]}'.hex()},
        "merged": merged(canary),
    }
    return found


def files(folder):
    """Options of each playbook, so that it writes what it has found into a folder."""
    return {
        # Also where the proof of an earlier run still stands.
        "site": ("-e", f"verify_json={folder}/site.json", "-e", "verify_always=true"),
        "verify": ("-e", f"verify_json={folder}/verify.json"),
        "plan": ("-e", f"plan_json={folder}/plan.json"),
        "report": ("-e", f"verify_json={folder}/verify.json", "-e", f"report_directory={folder}"),
    }


# How a playbook ends whose last play has only hosts that fail.
ENDS = {
    "plan": r"Refuse what the site could not do.*^fatal",
    "site": r"^fatal: \[h\d+\]: .* is not done, see its error above",
}


def attack(place, folder):
    """Run all playbooks. Returns what each printed, and what everybody knew afterwards."""
    folder.mkdir()
    said, known = {}, {}
    for name, options in files(folder).items():
        done = place.run(name, "--diff", "-v", *options, look=folder / f"look-{name}.json")
        said[name] = done.stdout
        look = folder / f"look-{name}.json"
        if name in ENDS and not look.exists():
            # It has written what it found, and ends in an error where a host could not be asked: nothing comes after.
            assert re.search(ENDS[name], done.stdout, re.M | re.S), done.stdout[-5000:]
            assert (folder / f"{name}.json").exists()
            continue
        assert look.exists(), done.stdout[-5000:]
        known[name] = json.loads(look.read_text())
    return said, known


def nothing_came_through(place, folder, said, known, canary):
    """What must not be anywhere, whatever was answered."""
    assert not canary.with_name("ran").exists(), "a command of a host ran on the controller"
    for name, output in said.items():
        assert not OBEYED.search(output), f"{name} speaks to the terminal: {OBEYED.search(output)}"
        assert "Traceback" not in output and "Unexpected" not in output, output[-5000:]
        assert len(output) < 4 << 20
        if name not in known:
            continue
        groups = known[name]["groups"]
        assert sorted(groups["all"]) == sorted([*place.acrn_hosts, *place.guests])
        assert "foreign" not in groups
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        if path.name.startswith("look-"):
            text = "".join(json.loads(text)["groups"])
        assert not OBEYED.search(text), path.name
        assert "\\u001b" not in text and "\\u009b" not in text, path.name
        assert "lookup('pipe'" not in text or path.suffix == ".json", path.name


def lasting(value):
    """Without what is of one run alone: seeds of a proof, and warnings, which are text that nothing reads.

    Of the proof that is kept in a guest, whose name is that of one machine, whether there is one.
    """
    if isinstance(value, dict):
        kept = {key: lasting(each) for key, each in value.items() if key not in ("seed", "warnings", "deprecations")}
        if isinstance(kept.get("proof"), str):
            kept["proof"] = "kept"
        return kept
    return [lasting(each) for each in value] if isinstance(value, list) else value


def guests_know(known, names, doubtful=()):
    """What each playbook left in the variables of hosts. Whether the proof of ``doubtful`` ones stands is left out."""
    found = {}
    for playbook in known:
        for name in names:
            for key, value in known[playbook]["hosts"][name].items():
                if key in SHARED:
                    continue
                value = lasting(value)
                if name in doubtful and isinstance(value, dict):
                    value.pop("proof", None)
                found[playbook, name, key] = json.dumps(value, sort_keys=True)
    return found


def ledger(folder, name, host, *regions):
    """Rows about regions of a machine, in any order of rows and of words."""
    value = json.loads((folder / f"{name}.json").read_text())
    rows = []
    for part in ("regions", "pairs", "doorbells", "problems"):
        for row in value[part]:
            if row["region"] in [f"{region} on {host}" for region in regions]:
                rows.append((part, sorted(re.findall(r"\w+", json.dumps(row)))))
    return sorted(rows)


def planned(folder, host):
    return next(each for each in json.loads((folder / "plan.json").read_text())["hosts"] if each["host"] == host)


def card(folder, host):
    """What the page says of a machine."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return re.search(rf'<details class="host"[^>]*data-words="{host} .*?</details>', page, re.S).group()


@pytest.mark.long
def test_liars_beside_their_honest_twins(tmp_path):
    """Two machines, from the first run on. One tells all harmless-looking lies at once: it must look like the other."""
    canary = tmp_path / "canary"
    canary.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    canary.chmod(0o755)
    place = plant.Plant(tmp_path, 2)
    for name in ("h002", "h002-vm1"):
        place.lie(name, merged(str(canary)))
    out = tmp_path / "out"
    said, known = attack(place, out)
    nothing_came_through(place, out, said, known, canary)
    assert unlike(out, known) == []
    figures.add("lies at once to all playbooks", 2 * len(PLAYBOOKS), 2 * len(PLAYBOOKS))


def unlike(out, known):
    """How the second machine differs from the first. Of the lies nothing was kept, so the liars look honest as well."""
    hosts = ("h001", "h002")
    one, two = ([host, *(f"{host}-vm{number}" for number in range(3))] for host in hosts)
    values = guests_know(known, [*one, *two])
    mine = {key: value for key, value in values.items() if key[1] in one and key[2] != "ansible_python_interpreter"}
    assert len(mine) > 300
    wrong = []
    for (playbook, name, key), value in mine.items():
        other = values.get((playbook, name.replace(*hosts), key), "nothing").replace(*hosts[::-1])
        # What names the other machine is of the whole fleet.
        if other != value and hosts[1] not in value:
            wrong.append((playbook, name, key, value[:600], other[:600]))
    for name in ("site", "verify"):
        rows = [str(ledger(out, name, host, "hv:/ledger", "dm:/gossip")) for host in hosts]
        assert rows[0].count("proved") >= 2
        if rows[0] != rows[1].replace(*hosts[::-1]):
            wrong.append((name, *rows))
    texts = [json.dumps(planned(out, host)) for host in hosts]
    if texts[0] != texts[1].replace(*hosts[::-1]):
        wrong.append(("plan", *texts))
    texts = [card(out, host) for host in hosts]
    if texts[0] != texts[1].replace(*hosts[::-1]):
        wrong.append(("report", *texts))
    return wrong


@pytest.mark.long
def test_each_lie_in_the_whole_plant(tmp_path):
    """Each lie by a guest and by a Service VM. All that is honest is compared with a run in which nobody lies."""
    canary = tmp_path / "canary"
    canary.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    canary.chmod(0o755)
    every = list(stories(str(canary), 100 << 20).items())
    width = 9
    place = plant.Plant(tmp_path, width + 1, made=True)
    honest_python = {
        name: place.machine(name)["ansible_python_interpreter"] for name in (*place.acrn_hosts, *place.guests)
    }
    _said, base = attack(place, tmp_path / "base")
    wrong = []
    for start in range(0, len(every), width):
        out = tmp_path / f"out{start}"
        liars = {}
        for name, python in honest_python.items():
            place.machine(name)["ansible_python_interpreter"] = python
        for number, (story, lie) in enumerate(every[start : start + width], 2):
            service, _vm0, guest, _vm2 = place.names(number)
            liars |= {service: story, guest: story}
            place.lie(service, lie)
            place.lie(guest, lie)
        said, known = attack(place, out)
        nothing_came_through(place, out, said, known, canary)
        honest = [name for name in honest_python if name not in liars]
        wrong += compared(place, tmp_path / "base", out, base, known, honest, said, liars)
        figures.add("lies to all playbooks", len(liars) * len(PLAYBOOKS), len(liars) * len(PLAYBOOKS))
    assert not wrong, "\n".join(wrong[:40])


def compared(place, before, after, base, known, honest, said, liars):
    """Where an honest machine is not as it is when nobody lies; and liars whose lie was no answer and is not named."""
    wrong = []
    # A proof is of all guests of a machine. Where one of them lies, none stands, and none stood before this run.
    beside = [name for name in honest if name not in place.names(1)]
    was, now = guests_know(base, honest, beside), guests_know(known, honest, beside)
    # That of the machine where nobody lies outlives any number of verify.
    assert "site" not in known or '"proof": "kept"' in now["site", "h001-vm0", "guest_result"]
    for key, value in was.items():
        if key[0] not in known:
            continue
        # A region with a liar in it is not what it was; the ledger, without one, is.
        if key[2].startswith("__verify_") and key[1].endswith("-vm2") and not key[1].startswith("h001"):
            continue
        if now.get(key) != value:
            wrong.append(f"{key} with {liars}: {value[:200]} is now {str(now.get(key))[:200]}")
    for name in ("site", "verify"):
        for number in range(1, place.hosts + 1):
            host, regions = place.names(number)[0], ("hv:/ledger",) if number > 1 else ("hv:/ledger", "dm:/gossip")
            if name == "verify" and ledger(before, name, host, *regions) != ledger(after, name, host, *regions):
                wrong.append(f"{name}: the rows of {regions} on {host} with {liars.get(host)}")
    if planned(before, "h001") != planned(after, "h001"):
        wrong.append("the plan of h001")
    if card(before, "h001") != card(after, "h001"):
        wrong.append("the card of h001")
    for name, story in liars.items():
        no_answer = story.startswith(("text: ", "huge", "endless", "no UTF-8"))
        if no_answer and not re.search(
            rf"{name}\b.*(refused|failed)|(failed|fatal): \[{name}[\] ]", said["site"] + said["verify"]
        ):
            wrong.append(f"{name} is not named: {story}")
    return wrong
