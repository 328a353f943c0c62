"""Baselines: what stands in for missing pixels where only the input is masked, in an exported graph and in a method.

A colour is meant in pixels, 0..255, whatever the network's normalisation: black is pixel 0, which becomes
(0 · scale − mean) / std, channel by channel. ``mean`` is 0 in the network's input: the data set's mean, which the
preprocessing subtracts. ``image-mean`` and ``blur`` have no numbers here: they are computed from the image at hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.contract import BASELINES, DEFAULT_BASELINE, Layout, Masking, Preprocessing
from masktool.errors import MasktoolError
from masktool.layouts import CHANNEL_AXIS, IN_WORDS
from masktool.messages import PREPROCESSINGS, SIZE, differently, parameter
from masktool.normalisation import normalise

BLACK, GREY, WHITE = 0.0, 127.5, 255.0
NAMED_COLOURS = {"black": (BLACK,), "grey": (GREY,)}
BLUR_SIGMA = 10 / 224
"""Standard deviation of ``blur`` as a share of the shorter side: 10 pixels of 224, as Fong and Vedaldi blur (2017,
https://arxiv.org/abs/1704.03296). Edges go, and where things are stays visible."""
NOISE_SEED = 0
"""Seed of the noise in a file, which is drawn at export, so that the same file gives the same answer."""
EXPECTED = f"{', '.join(BASELINES)}, a number or R,G,B in 0..255"
InputShape = tuple[int, *tuple[int | None, ...]]
"""(channels, height, width) of a network's input, or (channels, ...) with the lengths of its places, whatever its
layout; these may be open."""


def choose_baseline(masking: Masking, baseline: object | None) -> str | None:
    """Returns the baseline that goes with a masking mode: None for all modes but ``fill``.

    Args:
        masking: masking mode.
        baseline: baseline as the user gave it; None takes the default.

    Raises:
        MasktoolError: the baseline is unknown, or given for another mode than ``fill``.
    """
    if masking != "fill":
        if baseline is not None:
            raise MasktoolError(
                "only fill takes a baseline",
                where=parameter("masking", masking),
                got=baseline,
                fix="add " + parameter("masking", "fill"),
            )
        return None
    if baseline is None:
        return DEFAULT_BASELINE
    chosen = read_baseline(baseline)
    if chosen is None:
        raise MasktoolError("unknown baseline", where=parameter("baseline", baseline), expected=EXPECTED)
    return chosen


def read_baseline(value: object) -> str | None:
    """Returns a baseline as a text: a name, ``R,G,B``, or one number for all channels; None where the value is none."""
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        value = f"{value:g}" if BLACK <= value <= WHITE else None  # an integer may be beyond any float
    is_one = isinstance(value, str) and (value in BASELINES or read_colour(value) is not None)
    return str(value) if is_one else None


def read_colour(text: str) -> tuple[float, ...] | None:
    """Returns the numbers of ``R,G,B`` or of one number for every channel, each 0..255; None for any other text."""
    try:
        colour = tuple(float(part) for part in text.split(","))
    except ValueError:
        return None
    return colour if len(colour) in (1, 3) and all(BLACK <= value <= WHITE for value in colour) else None


def constant_baseline(
    baseline: str,
    shape: InputShape,
    preprocessing: Preprocessing | None,
    layout: Layout,
    *,
    where: str,
    seed: int = NOISE_SEED,
) -> NDArray[np.float32]:
    """Returns a baseline that does not depend on the image, as the network's input.

    Args:
        baseline: baseline from :func:`read_baseline`, neither ``image-mean`` nor ``blur``.
        shape: (channels, height, width) of the network's input, or (channels, ...) of one of another rank.
        preprocessing: preprocessing that turns pixels into the input; None where unknown, which ``mean`` allows.
        layout: order of the axes of the network's input.
        where: name of what gave the baseline, for messages.
        seed: seed of the noise.

    Returns:
        float32 (1, C, 1, 1), for ``noise`` (1, C, H, W), in the layout given; (1, 1, 1, 1) for ``mean``. Of other ranks
        likewise.

    Raises:
        MasktoolError: the preprocessing is unknown or for other channels, or ``noise`` is asked for an open size.
    """
    if baseline == "mean":
        return np.zeros((1,) * len(layout), np.float32)
    channels = shape[0]
    preprocessing = require_preprocessing(preprocessing, channels, where)
    places = len(shape) - 1
    if baseline == "noise":
        pixels = draw_noise(shape, seed, where)
    else:
        pixels = colour_pixels(baseline, channels, where).reshape(*(1,) * places, channels)
    values = normalise(pixels, preprocessing)[None]
    return np.ascontiguousarray(np.moveaxis(values, -1, CHANNEL_AXIS[layout]))


def require_preprocessing(preprocessing: Preprocessing | None, channels: int, where: str) -> Preprocessing:
    """Returns the preprocessing, once checked that it is known and fits the number of channels.

    Raises:
        MasktoolError: the preprocessing is unknown, or for another number of channels.
    """
    if preprocessing is None:
        raise MasktoolError(
            "a baseline in pixels needs to know how pixels become the input",
            where=where,
            fix="export with "
            + parameter("preprocessing", PREPROCESSINGS)
            + differently(python="", command=", or --mean and --std")
            + ", or take the baseline mean, image-mean or blur",
        )
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) != channels:
            raise MasktoolError(
                f"the preprocessing's {name} does not fit the model",
                where=where,
                expected=f"{channels} numbers",
                got=len(values),
            )
    return preprocessing


def colour_pixels(baseline: str, channels: int, where: str) -> NDArray[np.float64]:
    """Returns a colour as pixels (1, 1, C): red, green, blue, or one number for every channel.

    Raises:
        MasktoolError: the colour has three numbers, and the input another number of channels.
    """
    colour = NAMED_COLOURS.get(baseline) or read_colour(baseline)
    assert colour is not None  # the baseline has been read
    if len(colour) not in (1, channels):
        raise MasktoolError("the colour does not fit the model", where=where, expected="one number for all channels")
    return np.broadcast_to(np.array(colour), (1, 1, channels))


def draw_noise(shape: InputShape, seed: int, where: str) -> NDArray[Any]:
    """Returns noise (H, W, C), or of another rank (..., C), drawn independently and uniformly from 0, 1, …, 255.

    Raises:
        MasktoolError: the height or width of the input is open.
    """
    channels, *sides = shape
    lengths = [side for side in sides if side is not None]
    if len(lengths) < len(sides):
        raise MasktoolError(
            f"noise needs a fixed {IN_WORDS[len(sides)]}",
            where=where,
            fix="give " + parameter("input_size", SIZE) + ", or take another baseline",
        )
    return np.random.default_rng(seed).integers(0, int(WHITE), (*lengths, channels), endpoint=True)
