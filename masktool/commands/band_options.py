"""Options of ``masktool explain`` that ask which bands of the input mattered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from masktool.errors import MasktoolError
from masktool.explainers.bands.band_explanation import BAND_FORMATS
from masktool.explainers.bands.baselines import read_band_baseline
from masktool.explainers.bands.false_colour import check_rgb
from masktool.explainers.bands.groups import read_groups
from masktool.explainers.bands.places import refuse_without_masks
from masktool.explainers.explanation import FORMATS
from masktool.explainers.method import METHODS

EACH = "each"
"""What ``--bands`` takes for a group of each band."""
OF_BANDS = tuple(dict.fromkeys((*BAND_FORMATS, *FORMATS)))


def read_rgb(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int, int] | None:
    """Returns three bands from text with commas."""
    return None if text is None else check_rgb(text)


BAND_OPTIONS = (
    click.option(
        "--bands",
        metavar="each|GROUPS",
        help="Which bands mattered: a number for every group, such as 0-3,4-6, and with --method a map of the places "
        "where each group does.",
    ),
    click.option(
        "--band-baseline",
        metavar="NAME|V,...",
        default="mean",
        show_default=True,
        help="What stands in a missing band: mean (0 in the model's input), image-mean, blur, or one number for all "
        "bands or for each.",
    ),
    click.option(
        "--rgb",
        metavar="R,G,B",
        callback=read_rgb,
        help="The bands of a .npy file or TIFF that its picture shows as red, green and blue.  [default: the mean of "
        "all; 0,1,2 with --bands]",
    ),
)
"""Which bands are asked about, and how they are shown."""


def choose_band_formats(text: str | None, *, as_json: bool, directory: Path | None) -> tuple[str, ...]:
    """Returns the formats to write of bands and their maps, some of png, json, csv and npz.

    Raises:
        MasktoolError: a format is unknown.
    """
    if text is None:
        return () if as_json and directory is None else ("png",)
    formats = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if unknown := [each for each in formats if each not in OF_BANDS]:
        expected = f"with --bands some of {','.join(OF_BANDS)}"
        raise MasktoolError("unknown format", where=f"--format {','.join(unknown)}", expected=expected)
    return formats


def check_band_options(bands: str, baseline: str, methods: Sequence[str], values: Sequence[str], jobs: int) -> None:
    """Raises a MasktoolError where bands are asked about in words that say nothing, or beside what does not go with it.

    Args:
        bands: the groups as they were typed.
        baseline: what stands in missing bands, as it was typed.
        methods: the names of the methods that draw maps.
        values: the names of their options.
        jobs: the number of processes.
    """
    read_band_baseline(baseline)
    if bands != EACH:
        read_groups(bands)
    for name in methods:
        refuse_without_masks(METHODS[name], bands)
    if values and not methods:
        raise MasktoolError("options of a method, and no method", where=", ".join(values), fix="add --method")
    if jobs > 1:
        raise MasktoolError("bands are asked about in one process", where=f"--jobs {jobs}", fix="leave --jobs out")
