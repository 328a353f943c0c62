"""The tables of a run, in Markdown, for a page of the site."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.peers.problem import AGREEMENT, DRAWING, LONGER

TITLES = {
    "equal": "Equal settings: {samples} samples, batches of {batch}, the same segments and windows",
    "default": "Each one's default",
    "quality": "Equal quality: fewest samples, doubled from {first}, whose map agrees with that of ten times as many",
}
NAMES = {
    "masktool_layer": "masktool, `layer`",
    "masktool_fill": "masktool, `fill`",
    "captum": "Captum",
    "lime": "lime",
    "shap": "shap",
    "dianna": "DIANNA",
    "openvino_xai": "OpenVINO XAI",
    "grad_cam": "pytorch-grad-cam",
    "xplique": "Xplique",
}
HEAD = "| method | | CPU seconds | wall seconds | passes | samples | rank correlation |"
RULE = "|---|---|---|---|---|---|---|"
WIDTH = 120
ESTIMATED_FROM = 0.6
"""The rank correlation from which the samples that would do are estimated: below, that would be mostly noise too."""


def join_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns one report of several runs of the same problem, each with peers, methods or stages of its own."""
    joined: dict[str, Any] = {**reports[0], "versions": {}, "missing": {}, "stages": {}}
    for report in reports:
        for key in ("versions", "missing"):
            joined[key] |= report[key]
        for stage, rows in report["stages"].items():
            joined["stages"].setdefault(stage, []).extend(rows)
    return {**joined, "load": [each for report in reports for each in report["load"]]}


def write_stage_table(report: Mapping[str, Any], stage: str) -> str:
    """Returns the table of one stage of a run, and what it was measured with."""
    return "\n".join(lines_of(report, stage))


def lines_of(report: Mapping[str, Any], stage: str) -> Iterator[str]:
    """Yields the lines of a stage's table."""
    machine, versions, rows = report["machine"], report["versions"], report["stages"][stage]
    taking = dict.fromkeys(row["peer"] for row in rows)
    named = ", ".join(f"{name_of(peer)} {versions[peer]}" for peer in taking if peer != "masktool_fill")
    known = sorted(each for each in report["load"] if each is not None)
    load = f"load {known[0]:.1f} to {known[-1]:.1f}" if known else "load not known"
    yield f"**{TITLES[stage].format(**report['settings'])}**\n"
    told = f"{report['network']}, {report['image']}; {machine['cpu']}, one thread, {load}. {named}."
    yield textwrap.fill(told, WIDTH)
    for peer, reason in report["missing"].items():
        yield f"Not measured: {name_of(peer)} ({reason})."
    asked = any("reached" in row for row in rows)
    yield f"\n{HEAD}" + (f" samples for {AGREEMENT:g} | CPU seconds |" if asked else "")
    yield RULE + "---|---|" * asked
    for row in sorted(rows, key=lambda row: (str(row["method"]), list(NAMES).index(row["peer"]))):
        yield "| " + " | ".join(cells_of_row(row)) + " |"


def cells_of_row(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields the cells of a row."""
    yield str(row["method"])
    yield name_of(str(row["peer"]))
    if "error" in row:
        yield from (str(row["error"]).replace("|", "/"), "")
    else:
        for clock in ("cpu", "wall"):
            spread = row["seconds"][clock]
            yield f"{spread['median']:.2f} ({spread['lowest']:.2f} to {spread['highest']:.2f})"
    yield show(row.get("passes"), "d")
    yield show(row.get("samples") if row["method"] in DRAWING else None, "d")
    yield show(row.get("correlation"), ".3f")
    if "reached" in row:
        yield from cells_of_enough(row)


def cells_of_enough(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields samples and CPU seconds of equal quality; from too few samples both are estimates, with an ≈."""
    seconds, samples = row["seconds"]["cpu"]["median"], row["samples"]
    if row["reached"]:
        yield from (f"{samples:,}", f"{seconds:.1f}")
    elif row["correlation"] >= ESTIMATED_FROM:
        factor = noise_of(row["correlation"]) / noise_of(AGREEMENT)
        yield from (f"≈ {samples * factor:,.0f}", f"≈ {seconds * factor:.1f}")
    else:
        yield from ("many more", "")


def noise_of(correlation: float) -> float:
    """Returns the variance of a map's sampling error as a share of the variance of what it estimates.

    The error of a mean falls with the number of samples: a map with noise x and one of LONGER times as many samples,
    with noise x / LONGER, have the correlation 1 / sqrt((1 + x) (1 + x / LONGER)). This is solved for x.
    """
    total = 1 + LONGER
    return (math.sqrt(total**2 + 4 * LONGER * (correlation**-2 - 1)) - total) / 2


def show(value: Any, form: str) -> str:
    """Returns a number as text; nothing for None."""
    return "" if value is None else format(value, form)


def name_of(peer: str) -> str:
    """Returns the name of a peer as people know it."""
    return NAMES.get(peer, peer)
