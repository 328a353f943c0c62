"""Baselines of a whole image: what a method puts where it takes the photograph away, given in pixels.

The names are those of ``fill`` masking. ``mean`` is 0 in the model's input: the data set's mean, which the
preprocessing subtracts. ``black``, ``grey`` and colours are pixels in 0..255 and go through the preprocessing;
``image-mean`` and ``blur`` come from the image at hand; ``noise`` draws every pixel and channel by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.filters import gaussian

from masktool.contract import BASELINES
from masktool.errors import MasktoolError
from masktool.explainers.task import Differentiable, Task
from masktool.runtime.preprocessing import normalise

BLACK, GREY, WHITE = 0.0, 127.5, 255.0
COLOURS = {"black": (BLACK,), "grey": (GREY,)}
BLUR_SIGMA = 10 / 224
"""Of the shorter side, as in fill masking: edges go, and what is where stays known."""


def check_baseline(name: str, value: object) -> str:
    """Returns a baseline's name, or raises a MasktoolError that names the option."""
    if isinstance(value, int | float) and not isinstance(value, bool) and BLACK <= value <= WHITE:
        value = f"{value:g}"
    if not isinstance(value, str) or (value not in BASELINES and read_colour(value) is None):
        expected = f"{', '.join(BASELINES)}, a number or R,G,B in 0..255"
        raise MasktoolError("option out of range", where=name, expected=expected, got=repr(value))
    return value


def read_colour(text: str) -> tuple[float, ...] | None:
    """Returns the numbers of ``R,G,B`` or of one number for all channels; None where the text is neither."""
    try:
        colour = tuple(float(part) for part in text.split(","))
    except ValueError:
        return None
    return colour if len(colour) in (1, 3) and all(BLACK <= value <= WHITE for value in colour) else None


def baseline_input(task: Task, model: Differentiable, baseline: str) -> NDArray[np.float32]:
    """Returns a baseline as the model's input, of the shape of ``task.prepared.array``.

    Raises:
        MasktoolError: the file does not say what a pixel becomes, or the colour is for other channels.
    """
    image = task.prepared.array
    if baseline == "mean":
        return np.zeros_like(image)
    height, width = task.size
    nhwc = model.session.layout == "NHWC"
    axes = (1, 2) if nhwc else (2, 3)
    if baseline == "image-mean":
        return np.broadcast_to(image.mean(axis=axes, keepdims=True), image.shape).astype(np.float32)
    if baseline == "blur":
        side = BLUR_SIGMA * min(height, width)
        sigma = [side if axis in axes else 0 for axis in range(image.ndim)]
        return gaussian(image, sigma, mode="nearest", preserve_range=True).astype(np.float32)
    channels = image.shape[3 if nhwc else 1]
    if baseline == "noise":
        pixels = np.random.default_rng(task.seed).integers(0, int(WHITE), (height, width, channels), endpoint=True)
    else:
        pixels = np.broadcast_to(np.array(spread_colour(baseline, channels)), (height, width, channels))
    return from_pixels(model, pixels.astype(np.float64), baseline)


def spread_colour(baseline: str, channels: int) -> tuple[float, ...]:
    """Returns a colour's channels, red first.

    Raises:
        MasktoolError: three numbers for another number of channels.
    """
    colour = COLOURS.get(baseline) or read_colour(baseline)
    assert colour is not None  # the option has been checked
    if len(colour) not in (1, channels):
        raise MasktoolError(
            "the colour does not fit the model", where=f"baseline {baseline}", expected="one number for all channels"
        )
    return colour * channels if len(colour) == 1 else colour


def from_pixels(model: Differentiable, pixels: NDArray[np.float64], baseline: str) -> NDArray[np.float32]:
    """Returns pixels (h, w, C) in 0..255 as the model's input.

    Raises:
        MasktoolError: the file does not say what a pixel becomes.
    """
    preprocessing = model.session.metadata.preprocessing
    if preprocessing is None:
        raise MasktoolError(
            "a baseline in pixels needs to know how pixels become the input",
            where=f"baseline {baseline}",
            fix="export again with --preprocess, or take the baseline mean",
        )
    values = normalise(pixels, preprocessing)
    array = values[None] if preprocessing.layout == "NHWC" else values.transpose(2, 0, 1)[None]
    return np.ascontiguousarray(array)
