"""Exact masks from COCO's segmentations, kept as run lengths: a photograph's take a kilobyte where its pixels take 300.

pycocotools trusts its input: counts that do not fill the mask show memory that was never written, and a vertex that is
no number or far away fills the memory. So both are checked first.

Source: the COCO API's mask.py and maskApi.c, https://github.com/cocodataset/cocoapi
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from masktool.data_files import shorten
from masktool.datasets.fields import read_numbers
from masktool.errors import MasktoolError
from masktool.extras import require_extra

MIN_COORDINATES = 6
"""Least numbers of a polygon, those of three vertices; pycocotools takes four numbers for a box."""
FAR = 1.0
"""Farthest that a vertex may lie outside the image, in the image's sides: more is no annotation of this image."""

FIRST_CHARACTER, LAST_CHARACTER = 48, 111
"""First and last character of a compressed count; the characters stand for 0 to 63."""
VALUE_BITS, MORE, NEGATIVE = 5, 0x20, 0x10
"""A character holds five bits, the low ones first, and whether more follow; the last one's top bit is the sign."""
FIRST_DIFFERENCE = 3
"""Position (from 0) of the first count that is written as its difference to the last count but one."""


@dataclasses.dataclass(frozen=True)
class RunLengthMask:
    """An object's pixels; ``numpy.asarray`` decodes them.

    Attributes:
        size: (height, width) of the mask in pixels.
        counts: compressed run lengths, as pycocotools has them.
    """

    size: tuple[int, int]
    counts: bytes

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Returns the mask (height, width), bool or the type asked for; always a new array, whatever ``copy`` says."""
        del copy
        from pycocotools.mask import decode

        pixels = decode({"size": list(self.size), "counts": self.counts})
        return np.ascontiguousarray(pixels).astype(bool if dtype is None else dtype)


def require_pycocotools() -> None:
    """Raises MasktoolError unless pycocotools is installed."""
    with require_extra("reading COCO segmentations"):
        import pycocotools.mask  # noqa: F401 - later imports of it are sure to succeed


def merge_segmentations(segmentations: Sequence[Any], size: tuple[int, int]) -> RunLengthMask:
    """Returns the union of objects' pixels as one mask.

    Args:
        segmentations: a list of polygons [x0, y0, x1, y1, ...] or run lengths {"size": [height, width], "counts": ...}
            for each object, at least one.
        size: (width, height) of the image in pixels.

    Raises:
        MasktoolError: a segmentation is malformed or of another size, or all together cover no pixel.
    """
    from pycocotools.mask import area, merge

    width, height = size
    merged = merge([encode_segmentation(each, height, width) for each in segmentations])
    if area(merged) == 0:
        raise MasktoolError("a segmentation that covers no pixel")
    return RunLengthMask((height, width), merged["counts"])


def encode_segmentation(segmentation: Any, height: int, width: int) -> Any:
    """Returns the compressed run lengths of one object's segmentation."""
    from pycocotools.mask import frPyObjects, merge

    if isinstance(segmentation, list):
        for polygon in segmentation:
            check_polygon(polygon, height, width)
        return merge(frPyObjects(segmentation, height, width))
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), list | str):
        raise MasktoolError("not a segmentation", expected="polygons or run lengths", got=shorten(segmentation))
    if segmentation.get("size") != [height, width]:
        expected = f"[height, width] [{height}, {width}]"
        raise MasktoolError("run lengths of another size", expected=expected, got=shorten(segmentation.get("size")))
    counts = segmentation["counts"]
    counts = expand_counts(counts) if isinstance(counts, str) else counts
    check_counts(counts, height * width)
    return frPyObjects({"size": [height, width], "counts": counts}, height, width)


def check_polygon(polygon: Any, height: int, width: int) -> None:
    """Raises MasktoolError unless a polygon has three vertices or more, none of them far outside the image."""
    expected = "[x0, y0, x1, y1, x2, y2, ...]"
    if not isinstance(polygon, list) or len(polygon) < MIN_COORDINATES or len(polygon) % 2:
        raise MasktoolError("not a polygon", expected=expected, got=shorten(polygon))
    numbers = read_numbers(polygon, len(polygon), "polygon", expected)
    if not all(math.isfinite(each) for each in numbers):
        raise MasktoolError("not a polygon", expected=expected, got=shorten(polygon))
    for values, side in ((numbers[::2], width), (numbers[1::2], height)):
        if min(values) < -FAR * side or max(values) > (1 + FAR) * side:
            raise MasktoolError("a polygon far outside the image", got=f"{min(values):g} to {max(values):g} of {side}")


def check_counts(counts: list[Any], n_pixels: int) -> None:
    """Raises MasktoolError unless run lengths fill a mask of ``n_pixels`` pixels."""
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in counts):
        raise MasktoolError("not run lengths", expected="whole numbers", got=shorten(counts))
    if sum(counts) != n_pixels:
        raise MasktoolError("run lengths that do not fill the mask", expected=f"{n_pixels} pixels", got=sum(counts))


def expand_counts(text: str) -> list[int]:
    """Returns the run lengths that a compressed text stands for.

    Raises:
        MasktoolError: the text is no compressed run lengths.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        if not FIRST_CHARACTER <= ord(character) <= LAST_CHARACTER:
            break
        bits = ord(character) - FIRST_CHARACTER
        value |= (bits & (MORE - 1)) << shift
        shift += VALUE_BITS
        if not bits & MORE:
            value -= (1 << shift) if bits & NEGATIVE else 0
            counts.append(value + (counts[-2] if len(counts) >= FIRST_DIFFERENCE else 0))
            value, shift = 0, 0
    else:
        if shift == 0:
            return counts
    raise MasktoolError("not compressed run lengths", got=shorten(text))
