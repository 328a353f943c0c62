"""Arrays in place of photographs: a ``.npy`` file that holds the model's input already, for inputs of any kind."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Layout
from masktool.data_files import open_data
from masktool.errors import MasktoolError, describe_exception, reported_as
from masktool.layouts import CHANNEL_AXIS, SPATIAL_AXES, is_channels_first, layouts_of_rank
from masktool.limits import check_limit
from masktool.runtime.checks import show_shape
from masktool.runtime.preprocessing import PreparedImage, whole_box
from masktool.runtime.unwarned import unwarned

ARRAY_SUFFIX = ".npy"
EXPECTED = "a .npy file"
NUMBERS = "biuf"
"""numpy's kinds of dtype that are numbers: bool, int, uint, float."""
Shape = Sequence[int | None]
"""(channels, height, width), or (channels, ...) of another rank; None for any length."""


class ArrayHeader(NamedTuple):
    """The shape and dtype of the array in a ``.npy`` file, from the file's header."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads a ``.npy`` file.

    Raises:
        MasktoolError: the file is missing, empty, truncated or no array of numbers.
    """
    path = Path(path)
    with open_data(path, EXPECTED) as stream:
        check_header(stream, path)
        stream.seek(0)
        with reported_as("numpy cannot read the array", where=path):
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def check_header(stream: BinaryIO, path: Path) -> ArrayHeader:
    """Reads the header of a ``.npy`` file and checks it against the file's size, before memory is taken for the array.

    Raises:
        MasktoolError: the file is no ``.npy`` file, is truncated, holds no numbers, or more than the limit.
    """
    header = read_npy_header(stream, path)
    if header.dtype.kind not in NUMBERS:
        got = "pickled objects, which are not read" if header.dtype.hasobject else header.dtype
        raise MasktoolError("not an array of numbers", where=path, expected="float32", got=got)
    values = math.prod(header.shape)
    n_bytes = values * header.dtype.itemsize
    here = stream.tell()
    there = stream.seek(0, io.SEEK_END) - here
    if n_bytes > there:
        expected = f"{n_bytes} bytes behind the header, for {show_shape(header.shape)} {header.dtype}"
        raise MasktoolError("a truncated or damaged .npy file", where=path, expected=expected, got=there)
    check_limit("pixels", values, where=path)
    return header


def read_npy_header(stream: BinaryIO, path: Path) -> ArrayHeader:
    """Returns the header of a ``.npy`` file; whatever numpy raises over a damaged one becomes a MasktoolError."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with unwarned():  # that Python 2 wrote it
            shape, _, dtype = read(stream)  # version 3 differs from 2 in the names of fields, which numbers have not
    except Exception as error:  # ValueError, TokenError, MemoryError, RecursionError, ...
        raise MasktoolError("not a .npy file, or a damaged one", where=path, got=describe_exception(error)) from error
    if not all(type(length) is int and length >= 0 for length in shape):
        raise MasktoolError("a damaged .npy file", where=path, expected="whole numbers in its shape", got=shape)
    return ArrayHeader(tuple(shape), dtype)


def prepare_array(array: NDArray[Any], input_shape: Shape, layout: Layout) -> PreparedImage:
    """Makes the model's input from an array that holds it already, in either order of the axes.

    Args:
        array: numbers, (C, H, W) or (H, W, C), or (H, W) for one channel; a batch axis of length 1 may lead. Of a
            signal (C, L) or (L, C), of a volume (C, D, H, W) or (D, H, W, C).
        input_shape: shape of the model's image input, batch included, in the model's own layout; None for an open axis.
        layout: order of the axes of the model's image input.

    Returns:
        The same numbers as float32; where both orders would fit, the model's own is taken.

    Raises:
        MasktoolError: the array holds no numbers, or neither order fits the model.
    """
    if array.dtype.kind not in NUMBERS:
        raise MasktoolError("not an array of numbers", where="image", expected="float32", got=array.dtype)
    rank, channels = len(layout), input_shape[CHANNEL_AXIS[layout]]
    sides = [input_shape[axis] for axis in SPATIAL_AXES[layout]]
    values = array[0] if array.ndim == rank and len(array) == 1 else array
    if values.ndim == rank - 2 and channels in (1, None):
        values = values[None]
    for order in sorted(layouts_of_rank(rank), key=lambda each: each != layout):
        planes = values if is_channels_first(order) or values.ndim != rank - 1 else np.moveaxis(values, -1, 0)
        if values.ndim == rank - 1 and values.size and fits(planes.shape, (channels, *sides)):
            placed = planes if is_channels_first(layout) else np.moveaxis(planes, 0, -1)
            size = planes.shape[1:]
            return PreparedImage(to_float32(placed[None]), size, size, whole_box(size))
    shapes = [show_shape(each, batch="?") for each in ((channels, *sides), (*sides, channels))]
    raise MasktoolError(
        "the array does not fit the model", where="image", expected=" or ".join(shapes), got=show_shape(array.shape)
    )


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Returns numbers as float32.

    Raises:
        MasktoolError: a finite number is beyond float32's range.
    """
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(values, np.float32)
    if not np.array_equal(np.isinf(converted), np.isinf(values)):
        largest = np.abs(values[np.isfinite(values)]).max()
        raise MasktoolError(
            "the array holds numbers beyond float32",
            where="image",
            expected=f"at most {np.finfo(np.float32).max:.3g}, which the model's input can hold",
            got=f"{largest:.3g}",
        )
    return converted


def fits(shape: Sequence[int], expected: Shape) -> bool:
    """Tells whether a shape agrees with an expected one on every axis whose length the latter fixes."""
    return all(length in (None, got) for length, got in zip(expected, shape, strict=True))
