"""``masktool explain``: explains photographs and writes a picture of each explanation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click

from masktool.commands import options
from masktool.commands.band_options import BAND_OPTIONS, EACH, check_band_options, choose_band_formats
from masktool.commands.explain_band_runs import BandRequest, explain_bands_of
from masktool.commands.explain_options import (
    STOPPING_OPTIONS,
    TARGET_OPTIONS,
    check_jobs,
    choose_formats,
    feature_map_needs,
    first_with_gradients,
    head_needs,
    is_resumable,
    lime_segments,
    methods_that_count,
    parse_assignments,
    parse_image_inputs,
    share_options,
    share_stopping,
)
from masktool.commands.explain_runs import describe_explanation, explain_many, explain_single
from masktool.commands.source_options import READING_OPTIONS
from masktool.contract import Size
from masktool.data_files import is_directory
from masktool.explainers.method import METHODS
from masktool.explainers.methods.kernel_shap import KernelShap
from masktool.explainers.model_outputs import Scale
from masktool.explainers.regions import read_region
from masktool.explainers.stopping import Stopping
from masktool.explainers.subject import read_named
from masktool.explainers.target_choice import refuse_class_methods
from masktool.interface.explain import default_method
from masktool.interface.folders.request import FOLDER_FORMATS, ExplanationRequest
from masktool.interface.folders.settings import describe_folder_run
from masktool.interface.folders.workers import SessionOpening, share_threads
from masktool.interface.gradient_outputs import find_gradient_output
from masktool.interface.load import load
from masktool.interface.models import MODEL_VARIABLE, explains_itself, known_metadata
from masktool.interface.photographs import collect_photographs
from masktool.option_names import for_command_line
from masktool.writable import check_writable

BAD_INPUT = 2


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
@options.rule_option
@options.baseline_option
@click.option(
    "--method",
    "methods",
    type=click.Choice(list(METHODS)),
    multiple=True,
    help="How to explain; may be repeated.  [default: lime, or the method of a file that explains itself]",
)
@options.in_order(TARGET_OPTIONS)
@options.in_order(BAND_OPTIONS)
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
    metavar="NAME=VALUE|FILE",
    multiple=True,
    help="What MODEL asks for besides the image; FILE is a .npy file, or a photograph, which is prepared as IMAGE is. "
    "May be repeated.",
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
    help=f"Some of {','.join(FOLDER_FORMATS)}, of which parquet is one file for all.  [default: png; none with --json, "
    "unless -o is given]",
)
@options.provider_option
@options.provider_options_option
@options.measured_batch_option
@options.threads_option
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that explain, each with its share of the CPUs as threads unless --threads is given.",
)
@options.json_option
@click.pass_context
def command(
    context: click.Context,
    images: tuple[Path, ...],
    model: str | None,
    arch: str | None,
    input_size: Size | None,
    channels: int | None,
    image_input: str | None,
    preprocess: str | None,
    class_output: str | None,
    output_kind: Any,
    trust_code: bool,
    masking: Any,
    rule: Any,
    baseline: str | None,
    methods: tuple[str, ...],
    targets: tuple[str, ...],
    output: str | None,
    sum_with: tuple[str, ...],
    against: str | None,
    reference: Path | None,
    region: str | None,
    detector: str | None,
    least_score: float | None,
    bands: str | None,
    band_baseline: str,
    rgb: tuple[int, int, int] | None,
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
    jobs: int,
    as_json: bool,
) -> None:
    """Show which parts of photographs a model relied on.

    IMAGE is a photograph, a .npy file that holds the model's input as it is, or a directory of them, in which
    folders are not looked into. Writes one picture per photograph, method and target, and prints the paths; with
    --json, prints one JSON document per line instead. - is a photograph on standard input. A directory with -o can
    be resumed: the same command goes on where an earlier run was stopped. Exit code 2 when a photograph could not
    be explained; the others are nevertheless.
    """
    values = lime_segments(segments, n_segments) | parse_assignments(assignments)
    if bands is None:
        methods = methods or (default_method(known_metadata(model), budget),)
        formats_ = choose_formats(formats, as_json=as_json, directory=directory)
    else:
        check_band_options(bands, band_baseline, methods, list(values), jobs)
        formats_ = choose_band_formats(formats, as_json=as_json, directory=directory)
    resumable = bands is None and is_resumable(images, formats_, directory)
    drawing = bands is None or methods_that_count(methods)
    request = ExplanationRequest(
        methods=share_options(methods, samples if drawing else None, values),
        targets=tuple(dict.fromkeys(targets)) or (None,),
        output=output,
        sum_with=sum_with,
        against=against,
        reference=None if reference is None else read_named(reference),
        region=None if region is None else read_region(region),
        detector=detector,
        least_score=least_score,
        score=score,
        inputs=parse_image_inputs(inputs),
        input_size=input_size,
        seed=seed,
        batch=batch,
        band_baseline=band_baseline,
        rgb=rgb,
        stopping=share_stopping(
            methods if bands is None else (*methods, KernelShap.name),
            Stopping(until=until, tolerance=tolerance, top_k=top_k, budget=budget, seconds=seconds),
        ),
        threads=threads,
        directory=directory or Path(),
        formats=formats_,
        documents=as_json,
        timing=not resumable,
        spell=for_command_line,
        describe=describe_explanation,
    )
    if request.formats:
        check_writable(request.directory)
    photographs = collect_photographs(images, options.say)
    check_jobs(jobs, photographs)
    refuse_class_methods([METHODS[name] for name in request.methods], request.targets, request.shared_settings)
    itself = explains_itself(model)
    open_model = functools.partial(
        load,
        model,
        provider,
        share_threads(jobs, threads) if jobs > 1 else threads,
        provider_options=provider_options,
        say=options.say,
        arch=arch,
        input_size=input_size,
        channels=channels,
        image_input=image_input,
        preprocessing=preprocess,
        masking=masking,
        rule=rule,
        baseline=baseline,
        class_output=class_output,
        output_kind=output_kind,
        trust_code=trust_code,
    )
    differentiating = None if itself else first_with_gradients(request.methods)
    gradient_output = None
    if differentiating is not None:
        gradient_output = find_gradient_output(
            model, differentiating, request.targets, request.shared_settings, open_model
        )
    with open_model(
        gradient=differentiating is not None,
        feature_map=None if itself else feature_map_needs(request.methods),
        head=None if itself else head_needs(request.methods),
        gradient_output=gradient_output,
    ) as session:
        options.say(session.announcement)
        if bands is not None:
            asked = BandRequest(None if bands == EACH else bands, formats_, samples, request)
            if not explain_bands_of(session, photographs, asked):
                context.exit(BAD_INPUT)
            return
        if len(photographs) == 1 and not resumable:
            explain_single(session, photographs[0], request)
            return
        settings = describe_folder_run(session, request) if resumable else None
        opening = SessionOpening(session.path, provider, share_threads(jobs, threads), provider_options)
        briefly = any(map(is_directory, images))
        outcome = explain_many(session, photographs, request, settings, jobs, opening, briefly)
    if outcome.failures:
        context.exit(BAD_INPUT)
