"""Cutting the model's input into segments, labelled from 0 without gaps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Size
from masktool.errors import MasktoolError
from masktool.runtime.arrays import ARRAY_SUFFIX, read_array
from masktool.runtime.depth import WIDE_MODES
from masktool.runtime.pictures import LOSSY_FORMATS, open_picture

Segments = NDArray[np.int32]
"""Segments: (h, w) labels 0..n-1, each of them present; of signals (l,), of volumes (d, h, w)."""

LABEL_MODES = ("1", "L", "P", *WIDE_MODES)
"""Pillow's modes whose values are the labels."""
BLUR_PIXELS = 1.0
COMPACTNESS = 20.0
"""Compactness of superpixels: scikit-image's 0 and 10 merge a noisy texture into one segment, and 100 wanted segments
of a photograph into 60."""

IMAGE_RANKS = (2,)
"""Axes of a label map of an image."""
LABEL_RANKS = (1, 2, 3)
"""Axes of label maps: of signals, images and volumes."""

Segmenter = Callable[[NDArray[np.uint8], int], NDArray[Any]]


def slic_segments(pixels: NDArray[np.uint8], n_segments: int) -> NDArray[Any]:
    """Superpixels of similar colour (Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel
    Methods", TPAMI 2012).

    Args:
        pixels: the picture, (h, w, 3) uint8 RGB, or that of a volume, (d, h, w, 3).
        n_segments: the rough number of segments.
    """
    from skimage.segmentation import slic  # slow to import, and the other segmentations do without

    labels: NDArray[Any] = slic(
        pixels, n_segments, compactness=COMPACTNESS, sigma=BLUR_PIXELS, start_label=0, channel_axis=-1
    )
    return labels


def grid_segments(pixels: NDArray[np.uint8], n_segments: int) -> NDArray[Any]:
    """Rectangles of nearly equal size, roughly ``n_segments`` of them, as square as the counts allow.

    Of a signal they are intervals, of a volume boxes.
    """
    return add_axes(axis_labels(pixels.shape[:-1], n_segments))


def axis_labels(size: Size, n_segments: int) -> tuple[NDArray[np.int64], ...]:
    """Returns what each place along each axis, such as each row and column, adds to :func:`grid_segments`' labels."""
    counts: list[int] = []
    wanted: float = n_segments
    for axis, length in enumerate(size):
        behind = size[axis + 1 :]
        share = (wanted * length ** len(behind) / math.prod(behind)) ** (1 / (1 + len(behind)))
        counts.append(min(length, n_segments, max(1, round(share))))
        wanted /= counts[-1]
    return tuple(
        np.arange(length) * count // length * math.prod(counts[axis + 1 :])
        for axis, (length, count) in enumerate(zip(size, counts, strict=True))
    )


def add_axes(along: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Returns the sum, at each place, of what its axes add."""
    return functools.reduce(np.add, np.ix_(*along))


def square_cells(size: Size, grid_size: int) -> Segments:
    """Returns the cells of a grid over (height, width) pixels, ``grid_size`` along each axis or one for each pixel.

    Of signals and volumes it has their axes.
    """
    along = [np.arange(length) * min(grid_size, length) // length for length in size]
    return relabel(add_axes([each * math.prod(size[axis + 1 :]) for axis, each in enumerate(along)]))


SEGMENTERS: dict[str, Segmenter] = {"slic": slic_segments, "grid": grid_segments}


def relabel(labels: NDArray[Any]) -> Segments:
    """Renumbers any integer label map from 0 without gaps, in the order of the labels."""
    values, numbers = np.unique(labels, return_inverse=True)
    del values
    return numbers.reshape(labels.shape).astype(np.int32)


def read_label_map(path: str | Path, ranks: Sequence[int] = IMAGE_RANKS) -> NDArray[Any]:
    """Reads a label map from a ``.npy`` file or from an image whose pixel values (grey, palette index or RGB) are
    the labels.

    Args:
        path: the path of the file.
        ranks: the numbers of axes that it may have.

    Returns:
        The label map, (H, W) integers, or with the axes of a signal or volume.

    Raises:
        MasktoolError: the file is missing or holds no map of integers of such a rank.
    """
    path = Path(path)
    if path.suffix.lower() == ARRAY_SUFFIX:
        return check_label_map(read_array(path), where=path, ranks=ranks)
    with open_picture(path) as image:
        if image.format in LOSSY_FORMATS:
            expected = "a format that keeps exact values, such as PNG"
            raise MasktoolError("not a label map", where=path, expected=expected, got=image.format)
        labels = np.asarray(image if image.mode in LABEL_MODES else image.convert("RGB"))
    return check_label_map(labels, where=path)


def check_label_map(labels: NDArray[Any], where: object, ranks: Sequence[int] = IMAGE_RANKS) -> NDArray[Any]:
    """Returns a label map (H, W) of integers, from one or from RGB colours as labels, or raises a MasktoolError.

    Where ``ranks`` allow it, it is one of a signal (L,) or of a volume (D, H, W).
    """
    labels = np.asarray(labels)
    if labels.ndim == 3 and labels.shape[2] == 3 and labels.dtype == np.uint8:
        labels = labels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    if labels.dtype == np.bool_:
        labels = labels.astype(np.int32)
    if labels.ndim not in ranks or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise MasktoolError(
            "not a label map", where=where, expected="(height, width) integers", got=f"{labels.shape} {labels.dtype}"
        )
    return labels
