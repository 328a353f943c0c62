"""``masktool explain``: explains photographs and writes a picture of each explanation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from PIL import Image

from masktool.commands import options
from masktool.commands.explain_options import (
    STOPPING_OPTIONS,
    choose_formats,
    gradient_needs,
    head_needs,
    lime_segments,
    parse_assignments,
    parse_inputs,
    share_options,
    share_stopping,
)
from masktool.commands.source_options import READING_OPTIONS
from masktool.errors import MasktoolError
from masktool.explainers import Explanation
from masktool.explainers.explanation import FORMATS
from masktool.explainers.method import METHODS
from masktool.explainers.reading import Scale
from masktool.explainers.stopping import Stopping
from masktool.explainers.subject import read_subject
from masktool.explainers.targets import TargetError
from masktool.interface.explain import default_method, explain_targets
from masktool.interface.load import load
from masktool.interface.models import MODEL_VARIABLE, explains_itself, known_metadata
from masktool.interface.photographs import choose_stems, collect_photographs
from masktool.option_names import for_command_line
from masktool.runtime.batching import BatchSize
from masktool.runtime.session import MaskedSession
from masktool.writable import check_writable

BAD_INPUT = 2
NOISY = 0.1
"""Share of the map's range from which its standard error blurs the picture visibly."""
SLUG_LENGTH = 40


class OutputError(MasktoolError):
    """The files of an explanation cannot be written, so that going on with other photographs is of no use."""


@dataclasses.dataclass(frozen=True)
class ExplainRequest:
    """The methods, targets and settings that hold for every photograph.

    Attributes:
        methods: the options of each method, by the method's name.
        targets: the targets: ``top``, indices or labels; None for the class with the highest score, or the one value of
            an output that holds a single value.
        output: the name of the output that the targets are indices into; None where targets are classes.
        score: the score of a class that is explained: ``probability`` or ``log-odds``.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        input_size: (height, width) of the image input in pixels, for a model that leaves them open.
        seed: the seed of every random choice.
        batch: the number of masks per forward pass; None leaves it to the session, ``fastest`` measures it.
        stopping: when methods that draw samples stop, by the names of :func:`masktool.explain`.
        directory: the directory that the files are written into.
        formats: the formats of the files; empty writes none.
        as_json: whether stdout gets JSON documents instead of paths.
    """

    methods: Mapping[str, Mapping[str, Any]]
    targets: Sequence[str | None]
    output: str | None
    score: Scale
    inputs: Mapping[str, np.ndarray]
    input_size: tuple[int, int] | None
    seed: int
    batch: BatchSize
    stopping: Mapping[str, Any]
    directory: Path
    formats: Sequence[str]
    as_json: bool


@click.command(name="explain")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help=f"What `masktool export` wrote, or anything it takes: that is exported into a cache first.  "
    f"[default: ${MODEL_VARIABLE}, else a small built-in model]",
)
@options.in_order(READING_OPTIONS)
@options.masking_option
@options.baseline_option
@click.option(
    "--method",
    "methods",
    type=click.Choice(list(METHODS)),
    multiple=True,
    help="How to explain; may be repeated.  [default: lime, or the method of a file that explains itself]",
)
@click.option(
    "--target",
    "targets",
    metavar="top|INDEX|LABEL|I,J",
    multiple=True,
    help="Class to explain, or with --output indices into its axes behind the batch; may be repeated, and then shares "
    "the forward passes.  [default: top]",
)
@click.option(
    "--output", metavar="NAME", help="Explain one value of this output of MODEL, as it is, instead of a class."
)
@click.option(
    "--score",
    type=click.Choice(get_args(Scale)),
    default="probability",
    show_default=True,
    help="What of a class is explained; log-odds go on where a probability is rounded to 0 or 1.",
)
@click.option(
    "--input",
    "inputs",
    metavar="NAME=VALUE|FILE.npy",
    multiple=True,
    help="What MODEL asks for besides the image; may be repeated.",
)
@options.samples_option
@options.in_order(STOPPING_OPTIONS)
@click.option(
    "--segments", metavar="slic|grid|FILE", help="What LIME and KernelSHAP hide; FILE is a label map.  [default: slic]"
)
@click.option("--n-segments", type=int, metavar="N", help="Roughly how many.  [default: 100; 50 for kernel-shap]")
@options.assignments_option
@options.seed_option
@click.option(
    "-o",
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory for the files IMAGE.METHOD.png.  [default: .]",
)
@click.option(
    "--format",
    "formats",
    metavar="LIST",
    help=f"Some of {','.join(FORMATS)}.  [default: png; none with --json, unless -o is given]",
)
@options.provider_option
@options.provider_options_option
@options.measured_batch_option
@options.threads_option
@options.json_option
@click.pass_context
def command(
    context: click.Context,
    images: tuple[Path, ...],
    model: str | None,
    arch: str | None,
    input_size: tuple[int, int] | None,
    channels: int | None,
    image_input: str | None,
    preprocess: str | None,
    class_output: str | None,
    output_kind: Any,
    trust_code: bool,
    masking: Any,
    baseline: str | None,
    methods: tuple[str, ...],
    targets: tuple[str, ...],
    output: str | None,
    score: Any,
    inputs: tuple[str, ...],
    samples: int | None,
    until: Any,
    tolerance: float,
    top_k: int,
    budget: int | None,
    seconds: float | None,
    segments: str | None,
    n_segments: int | None,
    assignments: tuple[str, ...],
    seed: int,
    directory: Path | None,
    formats: str | None,
    provider: str,
    provider_options: Mapping[str, str],
    batch: Any,
    threads: int | None,
    as_json: bool,
) -> None:
    """Show which parts of photographs a model relied on.

    IMAGE is a photograph, a .npy file that holds the model's input as it is, or a directory of them. Writes one
    picture per photograph, method and target, and prints the paths; with --json, prints one JSON document per line
    instead. - is a photograph on standard input. Exit code 2 when a photograph could not be explained; the others are
    nevertheless.
    """
    methods = methods or (default_method(known_metadata(model)),)
    request = ExplainRequest(
        methods=share_options(methods, samples, lime_segments(segments, n_segments) | parse_assignments(assignments)),
        targets=tuple(dict.fromkeys(targets)) or (None,),
        output=output,
        score=score,
        inputs=parse_inputs(inputs),
        input_size=input_size,
        seed=seed,
        batch=batch,
        stopping=share_stopping(
            methods, Stopping(until=until, tolerance=tolerance, top_k=top_k, budget=budget, seconds=seconds)
        ),
        directory=directory or Path(),
        formats=choose_formats(formats, as_json=as_json, directory=directory),
        as_json=as_json,
    )
    if request.formats:
        check_writable(request.directory)
    photographs = collect_photographs(images, options.say)
    itself = explains_itself(model)
    gradient, feature_map = (False, None) if itself else gradient_needs(request.methods)
    with load(
        model,
        provider,
        threads,
        provider_options=provider_options,
        gradient=gradient,
        feature_map=feature_map,
        head=None if itself else head_needs(request.methods),
        say=options.say,
        arch=arch,
        input_size=input_size,
        channels=channels,
        image_input=image_input,
        preprocessing=preprocess,
        masking=masking,
        baseline=baseline,
        class_output=class_output,
        output_kind=output_kind,
        trust_code=trust_code,
    ) as session:
        options.say(session.announcement)
        failures = explain_photographs(session, photographs, request)
    if failures:
        context.exit(BAD_INPUT)


def explain_photographs(session: MaskedSession, photographs: Sequence[Path], request: ExplainRequest) -> int:
    """Explains one photograph after the other, and returns the number of photographs that could not be explained."""
    failures = 0
    for path, stem in zip(photographs, choose_stems(photographs), strict=True):
        try:
            photograph = read_subject(path)
            for method in request.methods:
                found = explain_photograph(session, photograph, method, request)
                write_explanations(found, path, f"{stem}.{method}", request)
        except (TargetError, OutputError):
            raise  # whatever the photograph
        except MasktoolError as error:
            if len(photographs) == 1:
                raise
            where = "" if str(path) in str(error) else f"{path}: "
            options.say(f"masktool: error: {where}" + error.message)
            failures += 1
    return failures


def explain_photograph(
    session: MaskedSession, photograph: Image.Image | np.ndarray, method: str, request: ExplainRequest
) -> list[Explanation]:
    """Explains one photograph by one method; returns one explanation per target."""
    found = explain_targets(
        session,
        photograph,
        request.targets,
        method,
        output=request.output,
        score=request.score,
        inputs=request.inputs,
        input_size=request.input_size,
        seed=request.seed,
        perturbations_per_eval=request.batch,
        progress=options.progress,
        **(request.stopping if METHODS[method].draws() else {}),
        **request.methods[method],
    )
    spelled = [dataclasses.replace(each, notes=tuple(map(for_command_line, each.notes))) for each in found]
    return list({explanation.target: explanation for explanation in spelled}.values())


def write_explanations(explanations: Sequence[Explanation], path: Path, stem: str, request: ExplainRequest) -> None:
    """Writes the files of one photograph and method, and prints the paths or the documents.

    Raises:
        OutputError: a file cannot be written.
    """
    for explanation in explanations:
        name = stem + (f".{target_slug(explanation)}" if len(request.targets) > 1 else "")
        try:
            written = explanation.save(request.directory, request.formats, name)
        except MasktoolError as error:
            raise OutputError(error.message) from error
        options.say(f"{path}: {describe_explanation(explanation)}")
        for note in explanation.notes:
            options.say(f"{path}: {note}")
        if request.as_json:
            for piece in explanation.json_pieces({"file": str(path), "written": [str(each) for each in written]}):
                click.echo(piece, nl=False)
            click.echo()
        else:
            for each in written:
                options.print_path(each)


def target_slug(explanation: Explanation) -> str:
    """Returns the target as part of a file name: its index and, where known, its label, or its output and indices."""
    if explanation.output is not None:
        return re.sub(r"\W+", "-", explanation.name).strip("-")
    label = re.sub(r"\W+", "_", explanation.label or "").strip("_")[:SLUG_LENGTH]
    return f"{explanation.target}-{label}" if label else str(explanation.target)


def describe_explanation(explanation: Explanation) -> str:
    """Returns one line on what was explained, at what cost, and with what sampling error and gap."""
    line = (
        f"{explanation.title} of {explanation.name}, {explanation.score_name} {explanation.score:.3g}, "
        f"{explanation.cost} in {explanation.seconds:.1f} s"
    )
    error = explanation.relative_error
    if error is not None:
        line += f", sampling error {error:.1%} of the map's range"
        if error > NOISY:
            line += " (four times the --samples halve it)"
    gap = explanation.quality.get("completeness_gap")
    if gap is not None:
        line += f", completeness gap {gap:.3g}"
        if (total := explanation.quality.get("completeness_total")) is not None:
            line += f" of {total:.3g}"
    return line
