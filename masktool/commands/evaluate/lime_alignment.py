"""``masktool evaluate lime-alignment``: whether LIME finds the objects, in each masking mode."""

from __future__ import annotations

from pathlib import Path

import click

from masktool.commands.evaluate.common import EvaluationRequest, evaluation_options, measure_part
from masktool.commands.evaluate.modes import mode_options
from masktool.commands.evaluate.segments import segment_options
from masktool.evaluation.parts.lime_alignment import N_SAMPLES, N_SEEDS, N_TOP, SUPERPIXELS
from masktool.evaluation.removal import SegmentKind
from masktool.interface.parts.lime_alignment import MODES, LimeAlignmentOptions


@click.command(name="lime-alignment")
@evaluation_options
@mode_options(MODES)
@segment_options(SUPERPIXELS)
@click.option(
    "--samples", type=click.IntRange(min=2), default=N_SAMPLES, show_default=True, metavar="N", help="Masks per run."
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=N_SEEDS,
    show_default=True,
    metavar="N",
    help="Runs per image and mode; their seeds count up from --seed.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=N_TOP,
    show_default=True,
    metavar="N",
    help="Segments to compare between runs, and to delete.",
)
def command(
    request: EvaluationRequest,
    modes: tuple[str, ...],
    also: tuple[Path, ...],
    segments: SegmentKind,
    side: int | None,
    n_segments: int,
    samples: int,
    seeds: int,
    top: int,
) -> int:
    """Measure how well LIME's segments agree with the objects.

    LIME explains each image in FOLDER through MODEL in several masking modes. With --masks or --boxes of the objects:
    the cosine between LIME's weights and the segments' shares of the object. Always: how far the top segments of two
    runs agree, and what deleting them does to the class's probability.
    """
    return measure_part(
        request,
        LimeAlignmentOptions(
            modes=modes,
            also=also,
            segments=segments,
            side=side,
            n_segments=n_segments,
            n_samples=samples,
            n_seeds=seeds,
            n_top=top,
        ),
    )
