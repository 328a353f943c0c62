"""``masktool bench``: what masks, gradients and explanations by a model cost on this machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from masktool.commands import options
from masktool.commands.export_check import align
from masktool.commands.source_options import READING_OPTIONS
from masktool.explainers.method import METHODS
from masktool.files import atomic_path, check_target
from masktool.interface.bench.explanations import MethodFailure
from masktool.interface.bench.run import PARTS, QUICK, BenchReport, BenchSettings, measure_costs
from masktool.option_names import for_command_line

if TYPE_CHECKING:
    from masktool.interface.bench.spread import Clocks, Spread

DEFAULTS = BenchSettings()
MEBIBYTE = 2**20


@click.command("bench")
@click.argument("model", required=False)
@click.option(
    "--plain",
    metavar="SOURCE",
    help="The network that MODEL was exported from, to compare with.  [default: where it lies beside MODEL]",
)
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    metavar="IMAGE",
    help="Photograph or .npy file to explain.  [default: a sample picture, or noise where MODEL takes none]",
)
@click.option(
    "--part",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    help="What to measure: passes in ONNX Runtime, methods end to end, peak memory, or the start of the command; may "
    "be repeated.  [default: all]",
)
@click.option(
    "--method", "methods", type=click.Choice(list(METHODS)), multiple=True, help="May be repeated.  [default: all]"
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Repetitions of each method and start; passes take 5 times as many.  [default: {DEFAULTS.repeats}]",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples or steps of the methods that take any.  [default: each method's own]",
)
@click.option(
    "--memory-samples",
    nargs=2,
    type=click.IntRange(min=2),
    metavar="FEW MANY",
    help="Masks or steps that peak memory is measured with.  "
    f"[default: {DEFAULTS.memory_samples[0]} {DEFAULTS.memory_samples[1]}]",
)
@click.option("--quick", is_flag=True, help="Few repetitions and samples: whether all of it runs, not how fast it is.")
@options.in_order(READING_OPTIONS)
@options.masking_option
@options.rule_option
@options.baseline_option
@options.provider_option
@options.provider_options_option
@options.threads_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File for all figures with the description of the machine, as JSON.",
)
@options.json_option
def command(
    model: str | None,
    plain: str | None,
    image: Path | None,
    parts: tuple[str, ...],
    methods: tuple[str, ...],
    repeats: int | None,
    samples: int | None,
    memory_samples: tuple[int, int] | None,
    quick: bool,
    provider: str,
    provider_options: Mapping[str, str],
    threads: int | None,
    preprocess: str | None,
    output: Path | None,
    as_json: bool,
    **reading: Any,
) -> None:
    """Measure what masks, gradients and explanations by a model cost here.

    MODEL is what `masktool explain -m` takes; without it the built-in model is measured. Ratios are medians over rounds
    in which all sides take turns, so that whatever else the machine does falls on each. On a machine with other work,
    --threads 1 and the CPU column say more than the clock on the wall.
    """
    if output is not None:
        check_target(output)
    given: dict[str, Any] = {
        "parts": parts,
        "methods": methods,
        "repeats": repeats,
        "samples": samples,
        "memory_samples": memory_samples,
    }
    settings = dataclasses.replace(QUICK if quick else DEFAULTS, **{key: each for key, each in given.items() if each})
    report = measure_costs(
        model,
        image,
        plain,
        settings,
        providers=provider,
        threads=threads,
        provider_options=provider_options,
        say=options.say,
        preprocessing=preprocess,
        **reading,
    )
    document = json.dumps(document_report(report, quick=quick), indent=2)
    if output is not None:
        with atomic_path(output) as temporary:
            temporary.write_text(document + "\n", encoding="utf-8")
    if as_json:
        click.echo(document)
        return
    for line in write_report_lines(report):
        options.print_line(line)
    if quick:
        options.say("few repetitions and samples: these figures mean little")


def document_report(report: BenchReport, *, quick: bool) -> dict[str, Any]:
    """Returns a report as a document, ready for JSON."""
    document = dataclasses.asdict(report)
    document["quick"] = quick
    for figures in document["methods"].values():
        if "reason" in figures:
            figures["reason"] = for_command_line(figures["reason"])
    if report.passes is not None:
        document["passes"]["absent"] = {name: for_command_line(each) for name, each in report.passes.absent.items()}
    return document


def write_report_lines(report: BenchReport) -> Iterator[str]:
    """Yields a report as lines of text."""
    machine, model = report.machine, report.model
    yield (
        f"{machine['cpu']}, {machine['cores_usable']} of {machine['cores']} cores, load {write_load(machine['load'])}"
        f" before and {write_load(report.load_after)} after; {machine['system']}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"masktool {machine['masktool']}, Python {machine['python']}, {versions}"
    threads = "as ONNX Runtime chooses" if model["threads"] is None else model["threads"]
    rule = "" if model["rule"] is None else f", rule {model['rule']}"
    yield f"{model['path']} ({model['masking']}{rule}), {model['providers'][0]}, threads: {threads}"
    for rows in (rows_of_passes(report), rows_of_methods(report), rows_of_memory(report), rows_of_start(report)):
        if found := list(rows):
            yield ""
            yield from align(found)


def rows_of_passes(report: BenchReport) -> Iterator[tuple[str, ...]]:
    """Yields the table of passes."""
    passes = report.passes
    if passes is None:
        return
    yield (f"pass of {passes.batch} images", "wall", "lowest to highest", "CPU", "lowest to highest")
    for name, seconds in passes.seconds.items():
        yield (name.replace("_", " "), *write_clocks(seconds, " s"))
    for name, ratios in passes.ratios.items():
        yield (f"{name.replace('_', ' ')} / plain", *write_clocks(ratios, ""))
    for name, reason in passes.absent.items():
        yield (name.replace("_", " "), f"not measured: {for_command_line(reason)}")


def rows_of_methods(report: BenchReport) -> Iterator[tuple[str, ...]]:
    """Yields the table of methods."""
    if not report.methods:
        return
    yield ("method", "wall", "lowest to highest", "CPU", "lowest to highest", "passes", "inside ONNX Runtime")
    for name, found in report.methods.items():
        if isinstance(found, MethodFailure):
            yield (name, f"not measured: {for_command_line(found.reason)}")
        else:
            yield (name, *write_clocks(found.seconds, " s"), str(found.passes), f"{found.runtime_share.median:.1%}")


def rows_of_memory(report: BenchReport) -> Iterator[tuple[str, ...]]:
    """Yields the table of peak memory."""
    for number, (name, found) in enumerate(report.memory.items()):
        if number == 0:
            yield ("peak memory", "passes", "memory", "passes", "memory", "ratio")
        few, many = (f"{each / MEBIBYTE:.0f} MiB" for each in (found.few_bytes, found.many_bytes))
        yield (name, str(found.few_passes), few, str(found.many_passes), many, f"{found.ratio:.3f}")


def rows_of_start(report: BenchReport) -> Iterator[tuple[str, ...]]:
    """Yields the table of the command's start."""
    if report.start is not None:
        yield ("start of the command", "wall", "lowest to highest", "CPU", "lowest to highest")
        yield ("to its first pass", *write_clocks(report.start, " s"))


def write_clocks(clocks: Clocks, unit: str) -> tuple[str, ...]:
    """Returns a figure by both clocks as the cells of a row."""
    return (*write_spread(clocks.wall, unit), *write_spread(clocks.cpu, unit))


def write_spread(spread: Spread, unit: str) -> tuple[str, str]:
    """Returns a median, and what lies around it, as the cells of a row."""
    return f"{spread.median:.3g}{unit}", f"{spread.lowest:.3g} to {spread.highest:.3g}"


def write_load(load: float | None) -> str:
    """Returns the load as text."""
    return "not known" if load is None else f"{load:.1f}"
