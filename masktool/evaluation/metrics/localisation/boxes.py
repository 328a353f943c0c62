"""Boxes around pixels, and how far boxes agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.datasets.dataset import Box

SIDES = ((0, 1, 0), (1, 1, 1), (0, 1, 0))
"""Neighbours of a pixel that share a side with it: 4-connected components."""
CORNERS = ((1, 1, 1), (1, 1, 1), (1, 1, 1))
"""Neighbours that share a side or a corner: 8-connected components."""


def component_boxes(
    pixels: NDArray[np.bool_], neighbours: npt.ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Returns the tight rectangle and the number of pixels of every connected component.

    Args:
        pixels: whether each pixel belongs to a component, (h, w) bool.
        neighbours: neighbours that connect pixels, :data:`SIDES` or :data:`CORNERS`.

    Returns:
        Boxes (n, 4) as (x0, y0, x1, y1), in the order of their first pixels; and sizes (n,) in pixels. The last row and
        column of a component are inside: a single pixel (x, y) has the box (x, y, x + 1, y + 1).
    """
    from scipy import ndimage

    labels, n = ndimage.label(pixels, structure=np.asarray(neighbours))
    sizes = np.bincount(labels.reshape(-1), minlength=n + 1)[1:]
    rectangles = [
        (columns.start, rows.start, columns.stop, rows.stop) for rows, columns in ndimage.find_objects(labels)
    ]
    return np.array(rectangles, np.float64).reshape(n, 4), sizes


def largest_box(boxes: NDArray[np.float64], sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Returns the box of the largest component, (1, 4); the first of several as large; (0, 4) where there is none."""
    return boxes[sizes.argmax()][None] if len(boxes) else boxes


def best_iou(found: NDArray[np.float64], known: Sequence[Box]) -> float:
    """Returns the largest intersection over union of any found box (n, 4) with any known one; 0 where none is found."""
    if len(found) == 0:
        return 0.0
    wanted = np.asarray(known, np.float64)
    low = np.maximum(found[:, None, :2], wanted[None, :, :2])
    high = np.minimum(found[:, None, 2:], wanted[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    union = area_of(found)[:, None] + area_of(wanted) - shared
    return float((shared / union).max())


def area_of(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the areas (n,) of boxes (n, 4)."""
    areas: NDArray[np.float64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def box_of(pixels: NDArray[np.bool_]) -> Box | None:
    """Returns the tight rectangle of all pixels; None where there are none."""
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
