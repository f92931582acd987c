# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A picture of a fleet: one page of HTML that needs nothing else, and the same as Mermaid text.

This module util is PRIVATE to the collection: it can change at any time.

It runs on the controller. All text comes from inventories and machines, so all of it is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LANDS = {"hypervisor": ("hv", "hypervisor"), "device_model": ("dm", "device model")}
STATES = {"ok": "proved", "failed": "not as declared", "unknown": "not proved yet"}
# Measures of the drawing, in pixels: the pills of regions on the left, the boxes of VMs on top.
LETTER, HEIGHT, ROW = 8, 30, 42
COLUMN, BOX, HEAD = 122, 42, 54
# A drawing gets no smaller than this, and is scrolled then.
LEAST = 640


@dataclass(frozen=True)
class Host:
    """A machine: its plan, what it runs, and what the proof said of it. ``error`` is why there is no plan."""

    name: str
    plan: Mapping[str, Any]
    info: Mapping[str, Any]
    board: str
    error: str
    pairs: tuple[Mapping[str, Any], ...]
    problems: tuple[Mapping[str, Any], ...]

    @property
    def regions(self) -> Sequence[Mapping[str, Any]]:
        return self.plan.get("regions") or []

    @property
    def state(self) -> str:
        """Key of STATES."""
        if self.error or self.problems:
            return "failed"
        proved = {pair["region"] for pair in self.pairs}
        return "ok" if self.regions and all(self.place(region) in proved for region in self.regions) else "unknown"

    def place(self, region: Mapping[str, Any]) -> str:
        """A region as the role verify names it."""
        return f"{LANDS[region['provided_by']][0]}:/{region['name']} on {self.name}"


def hosts_of(variables: Iterable[Mapping[str, Any]], verified: Mapping[str, Any]) -> list[Host]:
    """Hosts from their variables (those that the playbook report sets) and from what the role verify reported."""
    found = []
    for each in variables:
        name = str(each["inventory_hostname"])
        mine = f" on {name}"
        found.append(
            Host(
                name,
                each.get("scenario_plan") or {},
                each.get("report_hypervisor") or {},
                str((each.get("scenario_build_inputs") or {}).get("board") or each.get("acrn_board") or ""),
                str(each.get("report_error") or ""),
                tuple(pair for pair in verified.get("pairs") or [] if str(pair["region"]).endswith(mine)),
                tuple(row for row in verified.get("problems") or [] if str(row["region"]).endswith(mine)),
            )
        )
    return found


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def drawing(host: Host) -> str:
    """Which VM shares which region, as SVG: a column for each VM, a row for each region, the slot where they meet.

    Lines cross at right angles only and no label lies on another, however many there are.
    """
    vms = {vm["id"]: vm for region in host.regions for vm in region["vms"]}
    names = [_cut(region["name"], 27) for region in host.regions]
    pill = 90 + LETTER * max(map(len, names))
    left = pill + 12
    columns = {vm: left + COLUMN * index + COLUMN / 2 for index, vm in enumerate(sorted(vms))}
    rows = [HEAD + ROW * index + ROW / 2 for index in range(len(host.regions))]
    width, height = left + COLUMN * len(vms), HEAD + ROW * len(rows)
    title = f"Regions of {host.name}: " + "; ".join(
        f"{region['name']} ({region['size']} MB) of {', '.join(vm['name'] for vm in region['vms'])}"
        for region in host.regions
    )
    parts = [
        f'<svg class="drawing" role="img" viewBox="0 0 {width} {height}" width="{width}" '
        f'style="min-width:{min(width, LEAST)}px">',
        f"<title>{_text(title)}</title>",
    ]
    for vm, x in columns.items():
        last = max(y for y, region in zip(rows, host.regions) if vm in [each["id"] for each in region["vms"]])
        parts.append(f'<path class="line" d="M{x:g},{BOX} V{last:g}"/>')
    for y, region, name in zip(rows, host.regions, names):
        land = LANDS[region["provided_by"]][0]
        end = max(columns[vm["id"]] for vm in region["vms"])
        parts.append(f'<path class="edge {land}" d="M{pill},{y:g} H{end:g}"/>')
        top = y - HEIGHT / 2
        parts.append(f'<rect class="region {land}" x="1" y="{top:g}" width="{pill - 1}" height="{HEIGHT}" rx="15"/>')
        parts.append(f'<text class="name" x="14" y="{y + 5:g}">{_text(name)}</text>')
        parts.append(f'<text class="size" x="{pill - 12}" y="{y + 5:g}">{_text(region["size"])} MB</text>')
        for vm in region["vms"]:
            x = columns[vm["id"]]
            label = "by build" if vm["slot"] is None else f"slot {vm['slot']}"
            parts.append(f'<circle class="end {land}" cx="{x:g}" cy="{y:g}" r="5"/>')
            parts.append(f'<text class="slot" x="{x + 8:g}" y="{y - 7:g}">{_text(label)}</text>')
    for vm_id, x in columns.items():
        vm, name = vms[vm_id], _cut(vms[vm_id]["name"], 15)
        order = _text(vm["load_order"])
        # Fonts differ: a long name is made to fit.
        fit = f' textLength="{COLUMN - 16}" lengthAdjust="spacingAndGlyphs"' if len(name) > 12 else ""
        start, wide = x - COLUMN / 2 + 3, COLUMN - 6
        parts.append(
            f'<rect class="vm {order}" x="{start:g}" y="1" width="{wide}" height="{BOX - 1}" rx="5"/>'
            f'<text class="number" x="{x:g}" y="17">VM {_text(vm_id)}</text>'
            f'<text class="vmname" x="{x:g}" y="34"{fit}>{_text(name)}<title>{_text(vm["name"])}</title></text>'
        )
    return f'<div class="wide">{"".join(parts)}</svg></div>'


def _table(host: Host) -> str:
    rows = []
    for region in host.regions:
        land, words = LANDS[region["provided_by"]]
        key = host.place(region)
        proved = sum(1 for pair in host.pairs if pair["region"] == key)
        problems = [row for row in host.problems if row["region"] == key]
        said = "; ".join(
            f"{row['vm']}: {row['what']}: expected {row['expected']}, found {row['found']}" for row in problems
        ) or (f"{proved} pairs have the same bytes" if proved else "not proved yet")
        vms = ", ".join(
            f"{vm['name']} ({'place chosen by the build' if vm['slot'] is None else vm['vbdf']})"
            for vm in region["vms"]
        )
        cells = [f"{land}:/{region['name']}", words, f"{region['size']} MB", region["region_id"] or "-", vms, said]
        rows.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    heads = ("Region", "Provided by", "Size", "ID", "VMs and addresses", "Proof")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _hypervisor(host: Host) -> str:
    if not host.info:
        return ""
    names = (("running_key", "runs"), ("default_key", "default"), ("next", "next boot"))
    facts = [f"{words} <code>{_text(host.info[key])}</code>" for key, words in names if host.info.get(key)]
    return f'<p class="keys">Hypervisor: {", ".join(facts) or "none of this collection"}</p>'


def _section(host: Host) -> str:
    words = [host.name, host.board, str(host.plan.get("acrn_version") or "")]
    for region in host.regions:
        words += [region["name"], *(vm["name"] for vm in region["vms"])]
    lands = {LANDS[region["provided_by"]][0] for region in host.regions}
    count = len(host.regions)
    facts = [f"{count} region{'' if count == 1 else 's'}", f"{sum(region['size'] for region in host.regions)} MB"]
    if host.plan.get("acrn_version"):
        facts.append(f"ACRN v{host.plan['acrn_version']}")
    if host.board:
        facts.append(host.board.rsplit("/", 1)[-1])
    if host.error:
        body = f'<p class="error">{_text(host.error)}</p>'
    elif host.regions:
        body = drawing(host) + _table(host) + _hypervisor(host)
    else:
        body = "<p>No region is declared.</p>" + _hypervisor(host)
    return (
        f'<details class="host" data-words="{_text(" ".join(words).lower())}" data-state="{host.state}" '
        f'data-lands="{" ".join(sorted(lands))}"><summary><span class="title">{_text(host.name)}</span>'
        f'<span class="facts">{_text(" · ".join(facts))}</span>'
        f'<span class="state {host.state}">{STATES[host.state]}</span></summary>{body}</details>'
    )


def page(hosts: Sequence[Host], made: str, verified: str, style: str, script: str) -> str:
    """The report. ``made`` and ``verified`` are times; the latter may be empty. CSS and script go in as they are."""
    counts = {state: sum(host.state == state for host in hosts) for state in STATES}
    totals = f"{len(hosts)} machines, {sum(len(host.regions) for host in hosts)} regions"
    states = ", ".join(f"{counts[state]} {words}" for state, words in STATES.items() if counts[state])
    if states:
        totals += f": {states}"
    proof = f"Proof of {verified}." if verified else "There is no proof yet: acrn.ivshmem.verify makes one."
    options = "".join(f'<option value="{key}">{text} ({counts[key]})</option>' for key, text in STATES.items())
    few = " open" if len(hosts) <= 4 else ""
    sections = "".join(_section(host) for host in hosts).replace('<details class="host"', f'<details class="host"{few}')
    return _PAGE.format(
        style=style,
        script=script,
        totals=_text(totals),
        made=_text(made),
        proof=_text(proof),
        options=options,
        sections=sections,
    )


def mermaid(hosts: Sequence[Host]) -> str:
    """The same as a Mermaid flowchart, for wikis."""

    def quoted(text: str) -> str:
        # Mermaid's own entities: quotes and angle brackets would end the label or become HTML.
        for sign, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
            text = text.replace(sign, entity)
        return f'"{" ".join(text.split())}"'

    lines = ["flowchart LR"]
    for number, host in enumerate(hosts):
        lines.append(f"  subgraph h{number} [{quoted(host.name)}]")
        vms = {vm["id"]: vm["name"] for region in host.regions for vm in region["vms"]}
        lines += [f"    h{number}v{vm}[{quoted(f'{vm} · {name}')}]" for vm, name in sorted(vms.items())]
        for index, region in enumerate(host.regions):
            land = LANDS[region["provided_by"]][0]
            label = f"{land}:/{region['name']} · {region['size']} MB"
            lines.append(f"    h{number}r{index}([{quoted(label)}])")
            for vm in region["vms"]:
                slot = "by build" if vm["slot"] is None else f"slot {vm['slot']}"
                line = "---" if land == "hv" else "-.-"
                lines.append(f"    h{number}v{vm['id']} {line}|{slot}| h{number}r{index}")
        lines.append("  end")
    return "\n".join(lines) + "\n"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>Shared memory of the fleet</title>
<style>
{style}</style>
</head>
<body>
<header>
<div><h1>Shared memory of the fleet</h1><p>{totals}. {proof} <span class="dim">Made {made}.</span></p></div>
<button type="button" id="theme" aria-label="Light or dark">&#x25D0;</button>
</header>
<form role="search" onsubmit="return false">
<input type="search" id="search" placeholder="Host, VM, region, board, version" aria-label="Search">
<select id="state" aria-label="State"><option value="">every state</option>{options}</select>
<select id="land" aria-label="Provided by"><option value="">both lands</option>
<option value="hv">hypervisor</option><option value="dm">device model</option></select>
<button type="button" id="open">Open all</button><span id="shown" role="status"></span>
</form>
<p class="legend">
<span><i class="edge hv"></i> by the hypervisor</span><span><i class="edge dm"></i> by the device model</span>
<span><i class="vm pre_launched"></i> pre-launched</span><span><i class="vm service"></i> Service VM</span>
<span><i class="vm post_launched"></i> post-launched</span>
</p>
<main>
{sections}
</main>
<script>
{script}</script>
</body>
</html>
"""
