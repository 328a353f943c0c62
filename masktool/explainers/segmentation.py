"""Cutting the model's input into segments, labelled from 0 without gaps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.runtime.arrays import ARRAY_SUFFIX, read_array
from masktool.runtime.depth import WIDE_MODES
from masktool.runtime.pictures import LOSSY_FORMATS, open_picture

Segments = NDArray[np.int32]
"""Segments: (h, w) labels 0..n-1, each of them present."""

LABEL_MODES = ("1", "L", "P", *WIDE_MODES)
"""Pillow's modes whose values are the labels."""
BLUR_PIXELS = 1.0
COMPACTNESS = 20.0
"""Compactness of superpixels: scikit-image's 0 and 10 merge a noisy texture into one segment, and 100 wanted segments
of a photograph into 60."""

Segmenter = Callable[[NDArray[np.uint8], int], NDArray[Any]]


def slic_segments(pixels: NDArray[np.uint8], n_segments: int) -> NDArray[Any]:
    """Superpixels of similar colour (Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel
    Methods", TPAMI 2012).

    Args:
        pixels: the picture, (h, w, 3) uint8 RGB.
        n_segments: the rough number of segments.
    """
    from skimage.segmentation import slic  # slow to import, and the other segmentations do without

    labels: NDArray[Any] = slic(
        pixels, n_segments, compactness=COMPACTNESS, sigma=BLUR_PIXELS, start_label=0, channel_axis=-1
    )
    return labels


def grid_segments(pixels: NDArray[np.uint8], n_segments: int) -> NDArray[Any]:
    """Rectangles of nearly equal size, roughly ``n_segments`` of them, as square as the counts allow."""
    rows, columns = axis_labels((pixels.shape[0], pixels.shape[1]), n_segments)
    return rows[:, None] + columns


def axis_labels(size: tuple[int, int], n_segments: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns what each row (h,) and each column (w,) adds to the labels of :func:`grid_segments`."""
    height, width = size
    rows = min(height, n_segments, max(1, round((n_segments * height / width) ** 0.5)))
    columns = min(width, max(1, round(n_segments / rows)))
    return np.arange(height) * rows // height * columns, np.arange(width) * columns // width


def square_cells(size: tuple[int, int], grid_size: int) -> Segments:
    """Returns the cells of a grid over (height, width) pixels, ``grid_size`` along each axis or one for each pixel."""
    rows, columns = (np.arange(length) * min(grid_size, length) // length for length in size)
    return relabel(rows[:, None] * size[1] + columns)


SEGMENTERS: dict[str, Segmenter] = {"slic": slic_segments, "grid": grid_segments}


def relabel(labels: NDArray[Any]) -> Segments:
    """Renumbers any integer label map from 0 without gaps, in the order of the labels."""
    values, numbers = np.unique(labels, return_inverse=True)
    del values
    return numbers.reshape(labels.shape).astype(np.int32)


def read_label_map(path: str | Path) -> NDArray[Any]:
    """Reads a label map from a ``.npy`` file or from an image whose pixel values (grey, palette index or RGB) are
    the labels.

    Returns:
        The label map, (H, W) integers.

    Raises:
        MasktoolError: the file is missing or holds no two-dimensional map of integers.
    """
    path = Path(path)
    if path.suffix.lower() == ARRAY_SUFFIX:
        return check_label_map(read_array(path), where=path)
    with open_picture(path) as image:
        if image.format in LOSSY_FORMATS:
            expected = "a format that keeps exact values, such as PNG"
            raise MasktoolError("not a label map", where=path, expected=expected, got=image.format)
        labels = np.asarray(image if image.mode in LABEL_MODES else image.convert("RGB"))
    return check_label_map(labels, where=path)


def check_label_map(labels: NDArray[Any], where: object) -> NDArray[Any]:
    """Returns a label map (H, W) of integers, from one or from RGB colours as labels, or raises a MasktoolError."""
    labels = np.asarray(labels)
    if labels.ndim == 3 and labels.shape[2] == 3 and labels.dtype == np.uint8:
        labels = labels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    if labels.dtype == np.bool_:
        labels = labels.astype(np.int32)
    if labels.ndim != 2 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise MasktoolError(
            "not a label map", where=where, expected="(height, width) integers", got=f"{labels.shape} {labels.dtype}"
        )
    return labels
