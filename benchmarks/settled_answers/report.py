"""What the runs tell, and its tables in Markdown."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from benchmarks.settled_answers.networks import NETWORKS
from masktool.evaluation.metrics.map_similarity import rank_correlation
from masktool.interface.bench.spread import Spread

MARK = "benchmarks.settled_answers"
SWEPT = ("rise", "lime")
"""Methods that are also asked for more samples."""
MANY = 100
"""Seed of the maps of many samples, which no other run has."""
HEAD = (
    "| | before: CPU s | wall s | passes | now: CPU s | wall s | passes | times less CPU "
    "| rank correlation | before, two seeds |"
)
Maps = Mapping["Run", NDArray[Any]]


class Run(NamedTuple):
    """One explanation: what was asked for, and what it took.

    Attributes:
        method: the method's name.
        version: ``before`` or ``after``.
        samples: the number of samples; None for the default.
        seed: the seed; repetitions have one after the other.
        wall: the seconds by the clock on the wall.
        cpu: the seconds of the process on the CPU.
        passes: the number of images pushed through the model.
        error: why there is no explanation; empty where there is one.
    """

    method: str
    version: str
    samples: int | None
    seed: int
    wall: float = 0.0
    cpu: float = 0.0
    passes: int = 0
    error: str = ""

    @property
    def key(self) -> Run:
        """What was asked for alone."""
        return Run(*self[:4])

    @property
    def map_name(self) -> str:
        """The name of the file of its map."""
        count = "default" if self.samples is None else str(self.samples)
        return f"{self.method}.{self.version}.{count}.{self.seed}.npy"


def summarise(runs: Sequence[Run], maps: Maps) -> list[dict[str, Any]]:
    """Returns the figures of every method, version and number of samples, as JSON values."""
    asked = dict.fromkeys((run.method, run.version, run.samples) for run in runs)
    groups = [[run for run in runs if (run.method, run.version, run.samples) == each] for each in asked]
    return [summarise_group(group, maps) for group in groups]


def summarise_group(group: Sequence[Run], maps: Maps) -> dict[str, Any]:
    """Returns the figures of runs that differ in their seeds alone."""
    first = group[0]
    found: dict[str, Any] = {"method": first.method, "version": first.version, "samples": first.samples}
    if errors := [run.error for run in group if run.error]:
        return {**found, "error": errors[0]}
    found |= {"seeds": [run.seed for run in group], "passes": spread_of(run.passes for run in group)}
    found |= {"wall": spread_of(run.wall for run in group), "cpu": spread_of(run.cpu for run in group)}
    own = [maps[run.key] for run in group]
    found["with itself"] = correlate(itertools.combinations(own, 2))
    if first.version != "before" or first.samples is not None:
        old = [(maps[run.key], maps.get(Run(run.method, "before", None, run.seed))) for run in group]
        found["with before"] = correlate((mine, other) for mine, other in old if other is not None)
    for version in ("before", "after"):
        limits = [each for each in maps if (each.method, each.version, each.seed) == (first.method, version, MANY)]
        pairs = [(mine, maps[limit]) for mine in own for limit in limits if limit != first.key]
        found[f"with many, {version}"] = correlate(pairs)
    return found


def spread_of(values: Iterable[float]) -> dict[str, Any]:
    """Returns median, lowest and highest as JSON values."""
    return dataclasses.asdict(Spread.of(values))


def correlate(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, Any] | None:
    """Returns the spread of the rank correlations of pairs of maps; None where there are no pairs."""
    found = [value for one, other in pairs if (value := rank_correlation(one, other)) is not None]
    return spread_of(found) if found else None


def write_table(report: Mapping[str, Any]) -> str:
    """Returns the tables of a run in Markdown."""
    return "\n".join(lines_of(report))


def lines_of(report: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of the tables."""
    yield f"{report['machine']['cpu']}, one thread; medians of up to {report['repeats']} runs (lowest to highest)."
    for network in report["networks"]:
        load = " and ".join("not known" if each is None else f"{each:.1f}" for each in network["load"])
        title = NETWORKS[network["network"]].title
        yield f"\n**{title}**, {network['image']}; load {load} before and after.\n"
        rows = network["methods"]
        default = {(row["method"], row["version"]): row for row in rows if row["samples"] is None}
        yield HEAD
        yield "|---|---|---|---|---|---|---|---|---|---|"
        for method in dict.fromkeys(row["method"] for row in rows):
            yield "| " + " | ".join(cells_of(method, default)) + " |"
        yield from more_lines(rows, default)


def cells_of(method: str, default: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    """Yields the cells of a method's row: its defaults before and now."""
    before, after = default[method, "before"], default[method, "after"]
    yield method
    for row in (before, after):
        yield from (name_failure(row["error"]), "", "") if "error" in row else cost_of(row)
    both = "error" not in before and "error" not in after
    yield f"{before['cpu']['median'] / after['cpu']['median']:.1f}" if both else ""
    yield show(after.get("with before")) if both else ""
    yield show(before.get("with itself"))


def more_lines(
    rows: Sequence[Mapping[str, Any]], default: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[str]:
    """Yields the table of the methods that were asked for more samples, too."""
    swept = [row for row in rows if row["method"] in SWEPT and "error" not in row]
    limits = [f"with many, {version}" for version in ("before", "after")]
    if any(row["samples"] for row in swept):
        yield "\nRank correlations of RISE's and LIME's maps:\n"
        yield "| method | | CPU s | passes | times less CPU | another seed | default before | many before | many now |"
        yield "|---|---|---|---|---|---|---|---|---|"
    for row in swept:
        before = default[row["method"], "before"]
        name = {"before": "before", "after": "now"}[row["version"]]
        asked = "default" if row["samples"] is None else f"{row['samples']:,} samples"
        cells = [row["method"], f"{name}, {asked}", show(row["cpu"]), show(row["passes"], ".0f")]
        cells.append(f"{before['cpu']['median'] / row['cpu']['median']:.1f}" if row["version"] == "after" else "")
        cells += [show(row.get(key)) for key in ("with itself", "with before", *limits)]
        yield "| " + " | ".join(cells) + " |"


def name_failure(error: str) -> str:
    """Returns why there is no explanation; a method that a version does not know is ``new``."""
    return "new" if "unknown method" in error else error.replace("|", "/")


def cost_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields CPU seconds, wall seconds and passes."""
    yield show(row["cpu"])
    yield show(row["wall"])
    yield show(row["passes"], ".0f")


def show(spread: Mapping[str, Any] | None, form: str = ".2f") -> str:
    """Returns a figure with its spread, where it has one, as text; nothing for None."""
    if spread is None:
        return ""
    middle, low, high = (format(spread[key], form) for key in ("median", "lowest", "highest"))
    return middle if low == high else f"{middle} ({low} to {high})"
