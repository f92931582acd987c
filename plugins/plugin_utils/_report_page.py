# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of a report: what its template gets, and its rendering by Jinja2.

This plugin util is PRIVATE to the collection: it can change at any time.

What the template gets is the user's interface: docs/report.md describes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ansible_collections.acrn.ivshmem.plugins.plugin_utils import _templates
from ansible_collections.acrn.ivshmem.plugins.plugin_utils._report import (
    LANDS,
    STATES,
    Host,
    absent_hosts,
    counted,
    host_of,
    place_of,
    problem_line,
    totals,
)

TEMPLATE = "playbooks/templates/report.html.j2"
# Measures of the drawing, in pixels: the pills of regions on the left, the boxes of VMs on top.
LETTER, HEIGHT, ROW = 8, 30, 42
COLUMN, BOX, HEAD = 122, 42, 54
# A drawing gets no smaller than this, and is scrolled then.
LEAST = 640
# So many machines are open when the page comes up.
FEW = 4


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _slot(vm: Mapping[str, Any]) -> str:
    return "by build" if vm["slot"] is None else f"slot {vm['slot']}"


def drawing(host: Host) -> dict[str, Any]:
    """Which VM shares which region: a column for each VM, a row for each region, the slot where they meet.

    Lines cross at right angles only and no label lies on another, however many there are.
    """
    vms = {vm["id"]: vm for region in host.regions for vm in region["vms"]}
    names = [_cut(region["name"], 27) for region in host.regions]
    pill = 90 + LETTER * max(map(len, names))
    left = pill + 12
    columns = {vm: left + COLUMN * index + COLUMN // 2 for index, vm in enumerate(sorted(vms))}
    rows = [HEAD + ROW * index + ROW // 2 for index in range(len(host.regions))]
    width = left + COLUMN * len(vms)
    title = "; ".join(
        f"{region['name']} ({region['size']} MB) of {', '.join(vm['name'] for vm in region['vms'])}"
        for region in host.regions
    )
    return {
        "title": f"Regions of {host.name}: {title}",
        "width": width,
        "height": HEAD + ROW * len(rows),
        "least": min(width, LEAST),
        "pill": pill,
        "thick": HEIGHT,
        "box": BOX,
        "wide": COLUMN - 6,
        "regions": [
            {
                "name": name,
                "size": region["size"],
                "land": LANDS[region["provided_by"]][0],
                "y": y,
                "top": y - HEIGHT // 2,
                "end": max(columns[vm["id"]] for vm in region["vms"]),
                "ends": [{"x": columns[vm["id"]], "slot": _slot(vm)} for vm in region["vms"]],
            }
            for y, region, name in zip(rows, host.regions, names)
        ],
        "vms": [
            {
                "id": vm,
                "name": vms[vm]["name"],
                "short": _cut(vms[vm]["name"], 15),
                "long": len(vms[vm]["name"]) > 12,
                "load_order": vms[vm]["load_order"],
                "x": x,
                "start": x - COLUMN // 2 + 3,
                "last": max(y for y, each in zip(rows, host.regions) if vm in [end["id"] for end in each["vms"]]),
            }
            for vm, x in columns.items()
        ],
    }


def _regions(host: Host) -> list[dict[str, Any]]:
    rows = []
    for region, proof in zip(host.regions, host.proofs):
        land, words = LANDS[region["provided_by"]]
        vms = [
            {"name": vm["name"], "place": "place chosen by the build" if vm["slot"] is None else vm["vbdf"]}
            for vm in region["vms"]
        ]
        rows.append(
            {
                "name": f"{land}:/{region['name']}",
                "provided_by": words,
                "size": region["size"],
                "region_id": region["region_id"],
                "vms": vms,
                "state": proof.state,
                "lines": proof.lines,
            }
        )
    return rows


def _host(host: Host) -> dict[str, Any]:
    """A machine as the template gets it."""
    version = str(host.plan.get("acrn_version") or "")
    words = [host.name, host.board, version]
    for region in host.regions:
        words += [region["name"], *(vm["name"] for vm in region["vms"])]
    facts = [counted(len(host.regions), "region"), f"{sum(region['size'] for region in host.regions)} MB"]
    if host.error:
        facts = []
    facts += [f"ACRN v{version}"] if version else []
    facts += [host.board.rsplit("/", 1)[-1]] if host.board else []
    keys = (("runs", "running_key"), ("default", "default_key"), ("next boot", "next"))
    return {
        "name": host.name,
        "state": host.state,
        "words": " ".join(words).lower(),
        "lands": " ".join(sorted({LANDS[region["provided_by"]][0] for region in host.regions})),
        "facts": " · ".join(facts),
        "changed": bool(host.plan.get("changed")),
        "error": host.error,
        "regions": _regions(host),
        "drawing": drawing(host) if host.regions else None,
        "problems": host.others,
        "asked": bool(host.info),
        "hypervisors": [(told, str(host.info[key])) for told, key in keys if host.info.get(key)],
        "waits": host.waits,
        "skipped": host.said["skipped"],
    }


def _verdict(hosts: Sequence[Host], verified: Mapping[str, Any]) -> tuple[str, str]:
    """What the whole proof says, as the role verify has judged it: what is bad about it, and how much it covers."""
    if not verified:
        return "", "There is no proof yet: acrn.ivshmem.verify makes one."
    problems = len(verified.get("problems") or [])
    count = sum(len(host.regions) for host in hosts)
    proved = sum(proof.state == "ok" for host in hosts for proof in host.proofs)
    said = f"{proved} of {counted(count, 'region')} proved"
    time = verified.get("time") or "an unknown time"
    if verified.get("ok", not problems):
        return "", f"Proof of {time}: no problem, {said}."
    return f"The proof of {time} failed", f"{counted(problems, 'problem')}, {said}."


def view(hosts: Sequence[Host], verified: Mapping[str, Any], made: str, absent: Sequence[str] = ()) -> dict[str, Any]:
    """What the template gets as ``page``. ``verified`` is the report of the role verify, or empty."""
    states = [host.state for host in hosts]
    counts = {state: states.count(state) for state in STATES}
    told = ", ".join(f"{counts[state]} {words}" for state, words in STATES.items() if counts[state])
    names = {host.name for host in hosts}
    bad, verdict = _verdict(hosts, verified)
    return {
        "totals": totals(hosts) + (f". Machines: {told}" if told else ""),
        "bad": bad,
        "verdict": verdict,
        "made": made,
        "absent": absent_hosts(absent),
        "states": STATES,
        "counts": counts,
        "few": len(hosts) <= FEW,
        "elsewhere": [
            problem_line(row, place_of(row)) for row in verified.get("problems") or [] if host_of(row) not in names
        ],
        "hosts": [_host(host) for host in hosts],
        "style": _file("report.css"),
        "script": _file("report.js"),
    }


def _file(name: str) -> Markup:
    # The collection's own, without anything of an inventory in it.
    return Markup((_templates.COLLECTION / "playbooks/files" / name).read_text(encoding="utf-8"))  # nosec B704


def render(page: Mapping[str, Any], template: str = "") -> str:
    """The page. ``template`` is the path of a template of the user; it may extend or import report.html.j2.

    Raises IvshmemError, which names the template and its line.
    """
    render_page = _templates.renderer("report_template", TEMPLATE, template, autoescape=True)
    return render_page({"page": page})
