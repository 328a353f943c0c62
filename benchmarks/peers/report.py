"""The table of a run, in Markdown, for a page of the site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.peers.problem import DRAWING

TITLES = {
    "equal": "Equal settings: {samples} samples, batches of {batch}, the same segments and windows",
    "default": "Each one's default",
    "quality": "Equal quality: the fewest samples whose map agrees with that of ten times as many",
}
NAMES = {
    "masktool_layer": "masktool, `layer`",
    "masktool_fill": "masktool, `fill`",
    "captum": "Captum",
    "dianna": "DIANNA",
    "openvino_xai": "OpenVINO XAI",
    "grad_cam": "pytorch-grad-cam",
    "xplique": "Xplique",
}
HEAD = "| method | | CPU seconds | wall seconds | passes | samples | rank correlation |"
RULE = "|---|---|---|---|---|---|---|"


def write_peers_table(report: Mapping[str, Any]) -> str:
    """Returns the tables of a run, and what they were measured with."""
    return "\n".join(lines_of(report))


def lines_of(report: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of the tables."""
    machine, versions = report["machine"], report["versions"]
    named = ", ".join(f"{name_of(peer)} {version}" for peer, version in versions.items() if peer != "masktool_fill")
    load = " and ".join("not known" if each is None else f"{each:.1f}" for each in report["load"])
    yield f"{report['network']}, {report['image']}; {machine['cpu']}, one thread, load {load} before and after."
    yield f"{named}."
    for peer, reason in report["missing"].items():
        yield f"Not measured: {name_of(peer)} ({reason})."
    for stage, rows in report["stages"].items():
        yield f"\n**{TITLES[stage].format(**report['settings'])}**\n"
        yield HEAD
        yield RULE
        for row in sorted(rows, key=lambda row: str(row["method"])):  # the peers' order stays
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


def show(value: Any, form: str) -> str:
    """Returns a number as text; nothing for None."""
    return "" if value is None else format(value, form)


def name_of(peer: str) -> str:
    """Returns the name of a peer as people know it."""
    return NAMES.get(peer, peer)
