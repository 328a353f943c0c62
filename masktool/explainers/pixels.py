"""The model's input turned back into a picture, from which segments are cut: they follow what the model sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Layout, Preprocessing
from masktool.layouts import CHANNEL_AXIS

MIDDLE = 128
"""Grey of the picture of an array whose numbers are all the same."""


def model_pixels(array: NDArray[np.floating[Any]], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Returns the model's input as a picture: undoes normalisation, scale, channel order and layout.

    Args:
        array: the model's input, (1, C, h, w), or (1, h, w, C) for an NHWC model.
        preprocessing: the preprocessing that made the input.

    Returns:
        The picture, (h, w, 3) uint8 RGB; a grey channel three times.
    """
    channels_last = array[0] if preprocessing.layout == "NHWC" else np.moveaxis(array[0], 0, -1)
    mean, std = (np.asarray(numbers, np.float64) for numbers in (preprocessing.mean, preprocessing.std))
    values = (channels_last * std + mean) / preprocessing.scale
    values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if preprocessing.channel_order == "L":
        return np.repeat(values[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(values[:, :, ::-1] if preprocessing.channel_order == "BGR" else values)


def array_pixels(array: NDArray[np.floating[Any]], layout: Layout) -> NDArray[np.uint8]:
    """Returns the mean of all channels as a grey picture, its smallest number black and its largest white.

    Args:
        array: the model's input, (1, C, h, w), or (1, h, w, C) for an NHWC model, in any units; NaN and infinity count
            as the smallest number. Of a signal or a volume it has their axes.
        layout: the layout of the array.

    Returns:
        The picture, (h, w, 3) uint8; mid-grey everywhere where all numbers are the same. Of a volume (d, h, w, 3).
    """
    channels = np.moveaxis(array[0], CHANNEL_AXIS[layout] - 1, 0)
    plane = channels[0].astype(np.float32)  # single and in place: every explanation of an array pays for this picture
    for channel in channels[1:]:
        plane += channel
    return np.stack([scale_to_bytes(plane)] * 3, axis=-1)


def scale_to_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns numbers as bytes, the smallest 0 and the largest 255; the array is used for that.

    NaN and infinity count as the smallest; where all are the same, they are in the middle.
    """
    finite = np.isfinite(values)
    shown = values if finite.all() else values[finite]
    low, high = (shown.min(), shown.max()) if shown.size else (0.0, 0.0)
    if not high > low:
        return np.full(values.shape, MIDDLE, np.uint8)
    values[~finite] = low
    values -= low
    values /= high - low
    values *= 255
    return np.rint(values, out=values).astype(np.uint8)
