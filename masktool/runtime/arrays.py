"""Arrays in place of photographs, for networks that look at something else: they are the model's input as it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Layout
from masktool.errors import MasktoolError
from masktool.runtime.checks import show_shape
from masktool.runtime.paths import check_readable
from masktool.runtime.preprocessing import PreparedImage

ARRAY_SUFFIX = ".npy"
Shape = Sequence[int | None]
"""(channels, height, width); None for any length."""


def read_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads a ``.npy`` file.

    Raises:
        MasktoolError: it is missing, empty, truncated or no array of numbers.
    """
    path = Path(path)
    check_readable(path, "a .npy file")
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MasktoolError("not a .npy file, or a truncated one", where=path, got=error) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise MasktoolError("not a .npy file", where=path, got="an archive of several arrays")
    return array


def prepare_array(array: NDArray[Any], input_shape: Shape, layout: Layout) -> PreparedImage:
    """Makes the model's input from an array that holds it already, in either order of the axes.

    Args:
        array: numbers, (C, H, W) or (H, W, C), or (H, W) for one channel; a batch axis of length 1 may lead.
        input_shape: of the model's image input, batch included, in the model's own layout; None for an open axis.
        layout: of the model's image input.

    Returns:
        The same numbers as float32; where both orders would fit, the model's own is taken.

    Raises:
        MasktoolError: it holds no numbers, or neither order fits the model.
    """
    if array.dtype.kind not in "biuf":
        raise MasktoolError("not an array of numbers", where="image", expected="float32", got=array.dtype)
    first, second, third = input_shape[1:]
    channels, height, width = (first, second, third) if layout == "NCHW" else (third, first, second)
    values = array[0] if array.ndim == 4 and len(array) == 1 else array
    if values.ndim == 2 and channels in (1, None):
        values = values[None]
    orders: list[Layout] = ["NCHW", "NHWC"] if layout == "NCHW" else ["NHWC", "NCHW"]
    for order in orders:
        planes = np.moveaxis(values, -1, 0) if order == "NHWC" and values.ndim == 3 else values
        if values.ndim == 3 and values.size and fits(planes.shape, (channels, height, width)):
            placed = planes if layout == "NCHW" else np.moveaxis(planes, 0, -1)
            size = (planes.shape[1], planes.shape[2])
            box = (0.0, 0.0, float(size[1]), float(size[0]))
            return PreparedImage(np.ascontiguousarray(placed[None], np.float32), size, size, box)
    shapes = [show_shape(each, batch="?") for each in ((channels, height, width), (height, width, channels))]
    raise MasktoolError(
        "the array does not fit the model", where="image", expected=" or ".join(shapes), got=show_shape(array.shape)
    )


def fits(shape: Sequence[int], expected: Shape) -> bool:
    """Tells whether a shape agrees with another wherever that is fixed."""
    return all(length in (None, got) for length, got in zip(expected, shape, strict=True))
