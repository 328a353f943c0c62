"""Checks of images and masks before the model runs, so that an error names the input and not a node inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from masktool.contract import MASK_INPUT, Metadata
from masktool.errors import MasktoolError
from masktool.messages import call


def check_images(images: npt.ArrayLike, name: str, shape: Sequence[int | None], dtype: type[np.generic]) -> np.ndarray:
    """Returns the images as a contiguous array of the model's type.

    Args:
        images: floating-point numbers, of the input's rank; NaN and infinity are left for the mask to hide. Whole
            numbers where the model takes integers.
        name: name of the image input.
        shape: shape of the image input; None for an axis of any length.
        dtype: element type of the image input.

    Raises:
        MasktoolError: the images have a wrong type, rank or length of an axis.
    """
    array, where = np.asarray(images), f"input {name!r}"
    takes_integers = np.issubdtype(dtype, np.integer)
    if not np.issubdtype(array.dtype, np.floating) and not (takes_integers and array.dtype.kind in "iu"):
        raise MasktoolError(
            "wrong dtype",
            where=where,
            expected=np.dtype(dtype).name,
            got=array.dtype,
            fix="scale and normalise the image first",
        )
    if array.ndim != len(shape):
        fix = "add a batch axis" if array.ndim == len(shape) - 1 else None
        raise MasktoolError("wrong rank", where=where, expected=show_shape(shape), got=show_shape(array.shape), fix=fix)
    if any(length not in (None, got) for length, got in zip(shape, array.shape, strict=True)) or 0 in array.shape:
        raise MasktoolError("wrong shape", where=where, expected=show_shape(shape), got=show_shape(array.shape))
    if takes_integers and array.dtype != dtype:
        check_whole(array, where, dtype)
    return np.ascontiguousarray(array, dtype=dtype)


def check_whole(array: np.ndarray, where: str, dtype: type[np.generic]) -> None:
    """Raises MasktoolError unless an integer type holds every number of an array."""
    bounds = np.iinfo(np.dtype(dtype))
    low, high = array.min(), array.max()
    if not (low >= bounds.min and high <= bounds.max) or (array.dtype.kind == "f" and (np.rint(array) != array).any()):
        raise MasktoolError(
            "numbers that the model's image input cannot hold",
            where=where,
            expected=f"whole numbers from {bounds.min} to {bounds.max} ({np.dtype(dtype)})",
            got=f"{low:g} to {high:g}" + (" with fractions" if low >= bounds.min and high <= bounds.max else ""),
            fix="pixels go in as they are: scale 1, no mean",
        )


def check_masks(masks: npt.ArrayLike, size: Sequence[int], dtype: type[np.floating[Any]]) -> np.ndarray:
    """Returns the masks as a contiguous array of the model's type.

    Args:
        masks: masks (M, 1, H, W), or (M, 1, ...) with the images' axes of places, numbers or booleans; 1 = kept, 0 =
            missing.
        size: (H, W) of the images that the masks go with, or what their axes of places are.
        dtype: element type of the mask input.

    Raises:
        MasktoolError: the masks have a wrong type or shape, or a value that is not finite or outside [0, 1].
    """
    array, where = np.asarray(masks), f"input {MASK_INPUT!r}"
    if array.dtype.kind not in "biuf":
        raise MasktoolError("wrong dtype", where=where, expected="float32", got=array.dtype)
    expected = show_shape((None, 1, *size), batch="M")
    if array.ndim != 2 + len(size):
        raise MasktoolError("wrong rank", where=where, expected=expected, got=show_shape(array.shape))
    if array.shape[1:] != (1, *size) or len(array) == 0:
        raise MasktoolError("wrong shape", where=where, expected=expected, got=show_shape(array.shape))
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # a NaN fails both comparisons
        raise MasktoolError(
            "mask values out of range", where=where, expected="finite values in [0, 1]", got=f"{low} to {high}"
        )
    return np.ascontiguousarray(array, dtype=dtype)


def check_takes_mask(metadata: Metadata, where: object) -> None:
    """Raises MasktoolError for a file that explains itself: it runs under masks of its own alone."""
    if metadata.explanation is not None:
        raise MasktoolError(
            f"the file explains itself by {metadata.explanation['method']} and takes no mask",
            where=where,
            fix="export one with a mask: " + call("export", metadata.source, "NEW.onnx"),
        )


def check_batches(images: int, masks: int) -> None:
    """Raises MasktoolError unless the numbers of images and of masks are equal or one of them is 1."""
    if images != masks and 1 not in (images, masks):
        raise MasktoolError(
            "batches do not go together",
            where=f"{images} images, {masks} masks",
            expected="equal numbers, or one image or one mask for all",
        )


def show_shape(shape: Sequence[int | None], batch: str = "N") -> str:
    """Returns a shape as text, its open batch axis as a letter and other open axes as ``?``."""
    axes = [str(axis) if axis is not None else (batch if index == 0 else "?") for index, axis in enumerate(shape)]
    return f"({', '.join(axes)})"
