"""Regions of a picture: given as a box, a mask or a file, and what share of each place of a map they cover.

A map of (h, w) places covers the model's input, and the input a box of the picture, so that a place stands for a
rectangle of the picture's pixels, of any size. Its weight is the share of that rectangle that lies in the region: a
region smaller than a place still has one.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Size
from masktool.errors import MasktoolError
from masktool.explainers.segmentation import check_label_map, read_label_map
from masktool.layouts import show_size
from masktool.messages import parameter
from masktool.runtime.preprocessing import Box, PreparedImage

AUTO = "auto"
"""The region that is predicted as the class."""
SIDES = ("x0", "y0", "x1", "y1")
RegionLike = str | os.PathLike[str] | tuple[float, float, float, float] | NDArray[Any]
"""A region: ``auto``; a box (x0, y0, x1, y1) in the picture's pixels, also as text; a mask (H0, W0) of the picture's
size, which is 0 outside; or the path of a ``.npy`` file or a picture that holds such a mask."""
Region = str | Box | NDArray[np.bool_]
"""A region that was read: ``auto``, a box, or a mask."""


def read_region(given: RegionLike) -> Region:
    """Returns a region, with the file read where it is one.

    Raises:
        MasktoolError: the box has no area, or the file is no mask.
    """
    if isinstance(given, str):
        if given == AUTO:
            return AUTO
        if (numbers := parse_numbers(given)) is not None:
            return check_box(numbers, given)
    if isinstance(given, str | os.PathLike):
        return read_label_map(Path(given)) != 0
    if isinstance(given, tuple | list):
        return check_box(tuple(map(float, given)), given)
    return check_label_map(given, where=parameter("region")) != 0


def parse_numbers(text: str) -> tuple[float, ...] | None:
    """Returns the numbers in a text such as ``10,20,30.5,40``; None where it holds others, as a path does."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return None


def check_box(numbers: tuple[float, ...], given: object) -> Box:
    """Returns a box, or raises a MasktoolError where the numbers are none."""
    if len(numbers) != len(SIDES) or not all(map(math.isfinite, numbers)):
        raise MasktoolError("no such region", where=parameter("region"), expected=",".join(SIDES), got=given)
    x0, y0, x1, y1 = numbers
    if not (x0 < x1 and y0 < y1):
        raise MasktoolError(
            "a region without area", where=parameter("region"), expected="x0 < x1 and y0 < y1", got=given
        )
    return x0, y0, x1, y1


def describe_region(region: Region) -> Any:
    """Returns a region as JSON values: ``auto``, the four numbers of a box, or the number of a mask's pixels."""
    if isinstance(region, np.ndarray):
        return {"height": region.shape[0], "width": region.shape[1], "pixels": int(region.sum())}
    return region if isinstance(region, str) else list(region)


def cover_places(
    region: Box | NDArray[np.bool_], prepared: PreparedImage, places: tuple[int, int]
) -> NDArray[np.float64]:
    """Returns the share of each place of a map over the model's input that lies in a region, (h, w) in 0..1.

    Args:
        region: the region, in the picture's pixels.
        prepared: the model's input, with the part of the picture that it covers.
        places: (h, w) of the map.

    Raises:
        MasktoolError: the region reaches out of the picture, is of another size, or the model sees nothing of it.
    """
    if prepared.crop_box is None:
        raise MasktoolError(
            "a region is of a picture",
            where=parameter("region"),
            expected="an image as the model's input",
            got=f"an input of {show_size(prepared.size)}",
            fix="name a part of the output by its indices: " + parameter("target", "1,0:4,:,:"),
        )
    x0, y0, x1, y1 = prepared.crop_box
    rows, columns = np.linspace(y0, y1, places[0] + 1), np.linspace(x0, x1, places[1] + 1)
    if isinstance(region, np.ndarray):
        check_mask(region, prepared.original_size)
        along = share_lengths(region.astype(np.float64), rows)
        weights = share_lengths(along.T, columns).T
    else:
        check_inside(region, prepared.original_size)
        weights = np.outer(
            share_of_stretches(rows, region[1], region[3]), share_of_stretches(columns, region[0], region[2])
        )
    if not weights.any():
        raise MasktoolError(
            "the model sees nothing of the region",
            where=parameter("region"),
            expected=f"some of what the crop leaves, {show_box(prepared.crop_box)}",
            got=show_region(region),
        )
    return weights


def check_mask(mask: NDArray[np.bool_], size: Size) -> None:
    """Raises a MasktoolError where a mask is of another size than the picture, or empty."""
    if mask.shape != size:
        raise MasktoolError(
            "a region of another size than the picture",
            where=parameter("region"),
            expected=f"{size[1]} x {size[0]} pixels",
            got=f"{mask.shape[1]} x {mask.shape[0]}",
        )
    if not mask.any():
        raise MasktoolError("a region of no pixels", where=parameter("region"), expected="pixels that are not 0")


def check_inside(box: Box, size: Size) -> None:
    """Raises a MasktoolError where a box reaches out of a picture of (height, width)."""
    x0, y0, x1, y1 = box
    if not (x0 >= 0 and y0 >= 0 and x1 <= size[1] and y1 <= size[0]):
        raise MasktoolError(
            "a region outside the picture",
            where=parameter("region"),
            expected=f"x from 0 to {size[1]}, y from 0 to {size[0]}",
            got=show_box(box),
        )


def share_of_stretches(edges: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    """Returns the share of each stretch between n + 1 edges that lies between two numbers, (n,)."""
    shared = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    return np.clip(shared, 0, None) / np.diff(edges)


def share_lengths(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean of values (m, k) along their first axis over each stretch between n + 1 edges, (n, k).

    Value i covers [i, i + 1]; beyond the values there are zeros.
    """
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    places = np.clip(edges, 0, len(values))
    lower = np.minimum(places.astype(np.intp), len(values) - 1)
    part = (places - lower)[:, None]
    until = sums[lower] * (1 - part) + sums[lower + 1] * part
    return np.asarray(np.diff(until, axis=0) / np.diff(edges)[:, None])


def show_box(box: Box) -> str:
    """Returns a box as it is typed."""
    return ",".join(f"{number:g}" for number in box)


def show_region(region: Box | NDArray[np.bool_]) -> str:
    """Returns a region for a message."""
    return f"a mask of {int(region.sum())} pixels" if isinstance(region, np.ndarray) else show_box(region)


def hint_region() -> str:
    """Returns how else to say what region is meant."""
    return "give " + parameter("region") + " as a box or a file"


def spread_places(weights: NDArray[np.floating[Any]], size: tuple[int, int], crop_box: Box) -> NDArray[np.bool_]:
    """Returns the pixels of a picture that lie in a region, as it was taken: by the places of a map.

    Args:
        weights: the share of each place that lies in the region, (h, w).
        size: (height, width) of the picture.
        crop_box: the part of the picture that the map covers.
    """
    inside = weights >= 0.5 if (weights >= 0.5).any() else weights > 0
    x0, y0, x1, y1 = crop_box
    rows, columns = (
        np.floor((np.arange(length) + 0.5 - start) / (end - start) * count).astype(np.intp)
        for length, start, end, count in ((size[0], y0, y1, inside.shape[0]), (size[1], x0, x1, inside.shape[1]))
    )
    seen = np.outer((rows >= 0) & (rows < inside.shape[0]), (columns >= 0) & (columns < inside.shape[1]))
    found = inside[np.ix_(np.clip(rows, 0, inside.shape[0] - 1), np.clip(columns, 0, inside.shape[1] - 1))]
    return np.asarray(found & seen)
