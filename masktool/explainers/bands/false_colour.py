"""Three bands as a picture that people can read: as red, green and blue, each stretched between two percentiles."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.contract import Layout
from masktool.errors import MasktoolError
from masktool.explainers.subject import Subject
from masktool.layouts import CHANNEL_AXIS
from masktool.messages import parameter

PERCENTILES = (2.0, 98.0)
"""Where a band's black and its full colour are: what lies outside is cut, for a few bright roofs would darken all."""
COLOURS = ("red", "green", "blue")
IMAGE_RANK = 4
"""Axes of an image as the model takes it."""
MIDDLE_LEVEL = 128
"""Level of a band whose numbers are all the same."""


def draw_false_colours(array: NDArray[np.floating[Any]], layout: Layout, rgb: tuple[int, int, int]) -> Image.Image:
    """Returns three bands as an RGB picture.

    Args:
        array: the model's input, with the axis of the batch; NaN and infinity are black.
        layout: the order of its axes.
        rgb: the bands that are red, green and blue.

    Raises:
        MasktoolError: a band is outside the input.
    """
    planes = np.moveaxis(array[0], CHANNEL_AXIS[layout] - 1, 0)
    if max(rgb) >= len(planes):
        raise MasktoolError(
            "a band outside the input",
            where=parameter("rgb", rgb),
            expected=f"0 to {len(planes) - 1}",
            got=max(rgb),
        )
    return Image.fromarray(np.stack([stretch(planes[band]) for band in rgb], axis=-1))


def show_bands(subject: Subject, layout: Layout, rgb: tuple[int, int, int] | None) -> Subject:
    """Returns an array with three of its bands as the picture beneath the map; a photograph as it is.

    Args:
        subject: the image.
        layout: the order of the axes of the model's input.
        rgb: the bands that are red, green and blue; None takes the first three, where there are as many.

    Raises:
        MasktoolError: bands were given for what is shown in another way.
    """
    array = subject.prepared.array
    if subject.preprocessing is not None or array.ndim != IMAGE_RANK:
        if rgb is not None:
            raise MasktoolError(
                "only arrays of bands are shown by three of them",
                where=parameter("rgb", rgb),
                got="a photograph" if array.ndim == IMAGE_RANK else "no image",
                fix="leave that out",
            )
        return subject
    if rgb is None and array.shape[CHANNEL_AXIS[layout]] < len(COLOURS):
        return subject
    chosen = rgb or (0, 1, 2)
    picture = draw_false_colours(array, layout, chosen)
    return dataclasses.replace(subject, original=picture, notes=(*subject.notes, tell_colours(chosen)))


def stretch(plane: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Returns a band as bytes, 0 at its 2nd percentile and 255 at its 98th."""
    finite = np.isfinite(plane)
    if not finite.any():
        return np.zeros(plane.shape, np.uint8)
    low, high = np.percentile(plane[finite].astype(np.float64), PERCENTILES)
    if not high > low:
        low, high = float(plane[finite].min()), float(plane[finite].max())
    if not high > low:
        return np.where(finite, MIDDLE_LEVEL, 0).astype(np.uint8)
    share = np.clip((np.where(finite, plane, low) - low) / (high - low), 0, 1)
    return np.rint(share * 255).astype(np.uint8)


def tell_colours(rgb: tuple[int, int, int]) -> str:
    """Returns a note on what the picture shows."""
    shown = ", ".join(f"{band} as {colour}" for band, colour in zip(rgb, COLOURS, strict=True))
    low, high = PERCENTILES
    return f"the picture shows band {shown}, each stretched from its {low:g}nd to its {high:g}th percentile"


def check_rgb(rgb: object) -> tuple[int, int, int]:
    """Returns three bands, from numbers or from text with commas.

    Raises:
        MasktoolError: there are not three whole numbers from 0.
    """
    try:
        members = rgb.split(",") if isinstance(rgb, str) else list(rgb)  # type: ignore[call-overload]
        numbers = tuple(int(each) for each in members)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != len(COLOURS) or min(numbers) < 0:
        raise MasktoolError("not three bands", where=parameter("rgb", str(rgb)), expected="three, such as 3,2,1")
    return numbers[0], numbers[1], numbers[2]
