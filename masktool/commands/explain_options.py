"""Reading and checking the options of ``masktool explain``, before any model is opened."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

from masktool.data_files import descriptor_of, is_directory, is_there
from masktool.errors import MasktoolError
from masktool.explainers.detector import DETECTORS
from masktool.explainers.method import METHODS, build_method
from masktool.explainers.segmentation import LABEL_RANKS, SEGMENTERS, read_label_map
from masktool.explainers.stopping import Stopping, Until
from masktool.explainers.target import TARGETS
from masktool.explainers.targets.detection import LEAST_SCORE
from masktool.exported_files import LAST, name_feature_maps
from masktool.interface.folders.request import FOLDER_FORMATS, PARQUET
from masktool.interface.rows import arrow_schema
from masktool.option_names import for_command_line
from masktool.runtime.arrays import ARRAY_SUFFIX, read_array
from masktool.runtime.images import read_image
from masktool.runtime.pictures import picture_extensions

STOPPING_OPTIONS = (
    click.option(
        "--until",
        type=click.Choice(get_args(Until)),
        help="Stop before --samples once the map is stable, or the order of its highest segments.  [default: stable "
        "where --samples is not given]",
    ),
    click.option(
        "--tolerance",
        type=float,
        default=Stopping.tolerance,
        show_default=True,
        metavar="SHARE",
        help="What is stable: half of the map's 95 % interval, as a share of the map's range.",
    ),
    click.option(
        "--top-k",
        type=int,
        default=Stopping.top_k,
        show_default=True,
        metavar="K",
        help="How many segments --until top-k asks the order of.",
    ),
    click.option(
        "--budget",
        type=int,
        metavar="N",
        help="Most forward passes: what of the method is left open takes what makes the most of N.",
    ),
    click.option(
        "--seconds",
        type=float,
        metavar="S",
        help="Draw no samples after this time; the answer then depends on the machine.",
    ),
)
"""When methods that draw samples stop."""


def list_targets(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Prints the kinds of targets, each with what is typed for it and where it has a gradient, and ends the command."""
    if not wanted or context.resilient_parsing:
        return
    for kind in sorted(TARGETS.values(), key=lambda kind: not kind.is_general):
        click.echo(f"{kind.name}: {kind.summary}\n  {for_command_line(kind.syntax)}\n  gradient: {kind.gradient}")
    context.exit()


TARGET_OPTIONS = (
    click.option(
        "--target",
        "targets",
        metavar="top|INDEX|LABEL|I,J:K|box:K",
        multiple=True,
        help="Class to explain, or with --output indices into its axes behind the batch, or slices, of which the mean "
        "is explained, or a detection; may be repeated, and then shares the forward passes.  [default: top]",
    ),
    click.option(
        "--against",
        metavar="top|INDEX|LABEL|I,J:K",
        help="Why the target and not this: explain the difference of their logits.",
    ),
    click.option(
        "--region",
        metavar="FILE|X0,Y0,X1,Y1|auto",
        help="Explain the target over this region of a segmentation, by its mean score there: a mask picture or .npy "
        "of the photograph's size, a box in its pixels, or what is predicted as the target.",
    ),
    click.option(
        "--sum-with",
        metavar="INDEX|LABEL",
        multiple=True,
        help="Explain the target and this class as one, by the sum of their probabilities; may be repeated.",
    ),
    click.option(
        "--detector",
        type=click.Choice(list(DETECTORS)),
        help="What the outputs of a detector mean, for the targets box:K (the detection with the K-th highest score, "
        "from 0) and 'LABEL near X,Y'.  [default: found from their names and shapes]",
    ),
    click.option(
        "--least-score",
        type=click.FloatRange(0, 1),
        metavar="S",
        help="The score from which on a place of a detector's outputs counts as a detection.  "
        f"[default: {LEAST_SCORE:g}]",
    ),
    click.option(
        "--output", metavar="NAME", help="Explain values of this output of MODEL, as they are, instead of a class."
    ),
    click.option(
        "--reference",
        type=click.Path(path_type=Path),
        metavar="PHOTO",
        help="Explain how similar photographs are to this one: the cosine of their embeddings, which --output holds.",
    ),
    click.option(
        "--list-targets",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=list_targets,
        help="Print what can be explained, and how it is typed.",
    ),
)
"""What is explained."""
NOTHING = ("none", "None")
"""Spellings of Python's None, which help pages show, besides JSON's null."""


def lime_segments(segments: str | None, n_segments: int | None) -> dict[str, Any]:
    """Returns LIME's options from --segments and --n-segments."""
    values: dict[str, Any] = {} if n_segments is None else {"n_segments": n_segments}
    if segments is None:
        return values
    if segments in SEGMENTERS:
        return values | {"segments": segments}
    if not is_there(Path(segments)):
        expected = f"{', '.join(SEGMENTERS)} or a file"
        raise MasktoolError("no such segments", where=f"--segments {segments}", expected=expected)
    return values | {"feature_mask": read_label_map(segments, LABEL_RANKS)}


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Returns options from OPTION=VALUE, each value read as JSON where it is JSON, as None for none, else as text.

    The text itself is had in quotes, as JSON has it: ``"none"``.
    """
    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise MasktoolError("bad assignment", where=f"--set {assignment}", expected="OPTION=VALUE")
        try:
            values[name.strip()] = json.loads(text)
        except (ValueError, RecursionError):  # a number of thousands of digits, a deep nest: no option takes them
            values[name.strip()] = None if text.strip() in NOTHING else text
    return values


def parse_image_inputs(assignments: Sequence[str]) -> dict[str, Any]:
    """Returns inputs by name as :func:`parse_inputs`, but also from NAME=PHOTO, which is read and prepared later."""
    pairs = [(assignment, Path(assignment.partition("=")[2])) for assignment in assignments]
    photographs = {assignment: path for assignment, path in pairs if path.suffix.lower() in picture_extensions()}
    values: dict[str, Any] = parse_inputs([each for each in assignments if each not in photographs])
    return values | {each.partition("=")[0]: read_image(path) for each, path in photographs.items()}


def parse_inputs(assignments: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns inputs by name from NAME=VALUE|FILE.npy, where VALUE is a number, true, false or a JSON list of those."""
    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        where, expected = f"--input {assignment}", "NAME=NUMBER, NAME=[NUMBER, ...] or NAME=FILE.npy"
        if not equals or not name:
            raise MasktoolError("bad input", where=where, expected=expected)
        if text.lower().endswith(ARRAY_SUFFIX):
            values[name] = read_array(text)
            continue
        try:
            values[name] = np.asarray(json.loads(text))
        except (ValueError, RecursionError, OverflowError) as error:  # no JSON, or lists of different lengths
            raise MasktoolError("bad input", where=where, expected=expected) from error
        if values[name].dtype.kind not in "biuf":
            raise MasktoolError("bad input", where=where, expected=expected)
    return values


def share_options(
    methods: Sequence[str], samples: int | None, values: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Returns each method with those of the given options that it has.

    The number of samples goes to the methods that draw samples; where none does, to those that take steps, as their
    number of steps.

    Raises:
        MasktoolError: none of the methods has an option that was given, or a value is out of range.
    """
    counting = methods_that_count(methods)
    shared: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(methods):
        known = {field.name for field in dataclasses.fields(METHODS[name])}
        shared[name] = {key: value for key, value in values.items() if key in known}
        if samples is not None and name in counting:
            shared[name][counting[name]] = samples
    used = {key for given in shared.values() for key in given}
    if samples is not None and not counting:
        build_method(methods[0], {}, samples)  # says that this method draws no samples
    if unused := sorted(set(values) - used):
        known_names = sorted({field.name for name in shared for field in dataclasses.fields(METHODS[name])})
        raise MasktoolError(
            f"unknown option of {', '.join(shared)}",
            where=", ".join(unused),
            expected=f"some of {', '.join(known_names)}",
        )
    for name, given in shared.items():
        build_method(name, given)
    return {name: dict(given) for name, given in shared.items()}


def share_stopping(methods: Sequence[str], stopping: Stopping) -> dict[str, Any]:
    """Returns when the methods that draw samples stop, by the names of :func:`masktool.explain`.

    Raises:
        MasktoolError: something was given, and none of the methods draws samples.
    """
    if not any(METHODS[name].draws() for name in methods):
        stopping.refuse_for(METHODS[methods[0]].title)
    return stopping.given


def methods_that_count(methods: Sequence[str]) -> dict[str, str]:
    """Returns the methods that take a number of samples, each with the name of the option that holds it."""
    counting = {name: option for name in methods if (option := METHODS[name].samples_option) is not None}
    drawing = {name: option for name, option in counting.items() if METHODS[name].draws()}
    return drawing or counting


def first_with_gradients(methods: Iterable[str]) -> str | None:
    """Returns the title of the first of the methods that asks for gradients; None where none does."""
    return next((METHODS[name].title for name in methods if METHODS[name].needs_gradient), None)


def feature_map_needs(methods: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the names of the feature maps that methods ask for; ``last`` where nothing else makes the file give one.

    With gradients, and with a head, a file gives a feature map anyway.
    """
    kinds = {name: METHODS[name] for name in methods}
    reading = [methods[name] for name, kind in kinds.items() if kind.needs_gradient or kind.needs_feature_map]
    names = dict.fromkeys(each for given in reading for each in name_feature_maps(given.get("feature_map")))
    given_anyway = any(kind.needs_gradient or kind.needs_head for kind in kinds.values())
    needed = any(kind.needs_feature_map for kind in kinds.values())
    return tuple(names) or ((LAST,) if needed and not given_anyway else ())


def head_needs(methods: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns the name of the feature map whose head one of the methods asks for; None where none does."""
    asking = [given for name, given in methods.items() if METHODS[name].needs_head]
    return next((given.get("feature_map") or LAST for given in asking), None)


def choose_formats(text: str | None, *, as_json: bool, directory: Path | None) -> tuple[str, ...]:
    """Returns the formats to write.

    Raises:
        MasktoolError: a format is unknown.
    """
    if text is None:
        return () if as_json and directory is None else ("png",)
    formats = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if unknown := [each for each in formats if each not in FOLDER_FORMATS]:
        raise MasktoolError(
            "unknown format", where=f"--format {','.join(unknown)}", expected=f"some of {','.join(FOLDER_FORMATS)}"
        )
    if PARQUET in formats:
        arrow_schema()  # says what to install, before anything is explained
    return formats


def is_resumable(images: Sequence[Path], formats: Sequence[str], directory: Path | None) -> bool:
    """Tells whether a journal is kept: for a directory with -o, and wherever a table is made in the end."""
    return PARQUET in formats or (bool(formats) and directory is not None and any(map(is_directory, images)))


def check_jobs(jobs: int, photographs: Sequence[Path]) -> None:
    """Raises MasktoolError for several processes where a photograph comes through this one's standard input."""
    streams = [path for path in photographs if descriptor_of(path) is not None]
    if jobs > 1 and streams:
        raise MasktoolError(
            "other processes do not have this one's streams",
            where=f"--jobs {jobs}",
            got=streams[0],
            fix="write the photograph to a file, or leave --jobs out",
        )
