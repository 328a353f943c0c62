"""Baselines: what stands in for missing pixels when only the input is masked.

A colour is meant in pixels, 0..255, whatever the network's normalisation: black is pixel 0, which becomes
(0 · scale − mean) / std, channel by channel. ``image-mean`` and ``blur`` have no numbers here: the graph computes them
from the image at hand.
"""

from __future__ import annotations

import math

import numpy as np

from masktool.contract import BASELINES, DEFAULT_BASELINE, Layout, Masking, Preprocessing
from masktool.errors import MasktoolError

BLACK = 0.0
GREY = 127.5
"""The middle of 0..255."""
WHITE = 255.0
NOISE_SEED = 0
"""The noise is drawn at export, so that the same file gives the same answer."""
InputShape = tuple[int, int | None, int | None]
"""(channels, height, width) of a network's input, whatever its layout; height and width may be open."""
EXPECTED = f"{', '.join(BASELINES)}, a number or R,G,B in 0..255"


def choose_baseline(masking: Masking, baseline: str | None) -> str | None:
    """Returns the baseline that goes with a masking mode: None for all modes but ``fill``.

    Args:
        masking: the mode.
        baseline: as the user gave it; None takes the default.

    Raises:
        MasktoolError: an unknown baseline, or one beside another mode.
    """
    if masking != "fill":
        if baseline is not None:
            raise MasktoolError(
                "only fill takes a baseline", where=f"--masking {masking}", got=baseline, fix="add --masking fill"
            )
        return None
    if baseline is None:
        return DEFAULT_BASELINE
    if baseline not in BASELINES:
        read_colour(baseline)
    return baseline


def read_colour(text: str) -> tuple[float, ...]:
    """Reads ``R,G,B`` or one number for all channels, each 0..255.

    Raises:
        MasktoolError: the text is neither, nor the name of a baseline.
    """
    try:
        colour = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        colour = ()
    if len(colour) not in (1, 3) or not all(BLACK <= value <= WHITE for value in colour):
        raise MasktoolError("unknown baseline", where=f"--baseline {text}", expected=EXPECTED)
    return colour


def baseline_pixels(
    baseline: str, shape: InputShape, preprocessing: Preprocessing | None, layout: Layout
) -> np.ndarray:
    """Returns a baseline that does not depend on the image, as the network's input.

    Args:
        baseline: ``black``, ``grey``, ``noise``, a number or ``R,G,B``; ``mean`` is 0, the mean that was subtracted.
        shape: of the network's input.
        preprocessing: how pixels become the input.
        layout: of the network's input.

    Returns:
        float32 (1, C, 1, 1), for noise (1, C, H, W), in the layout given.

    Raises:
        MasktoolError: the preprocessing is unknown or for other channels, or noise for an open size.
    """
    if baseline == "mean":
        return np.zeros((1, 1, 1, 1), np.float32)
    preprocessing = check_channels(baseline, shape[0], preprocessing)
    if baseline == "noise":
        pixels = draw_noise(shape)
    else:
        colour = {"black": (BLACK,), "grey": (GREY,)}.get(baseline) or read_colour(baseline)
        pixels = spread_colour(baseline, colour, shape[0])
    if preprocessing.channel_order == "BGR":
        pixels = pixels[..., ::-1]
    values = (pixels * preprocessing.scale - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    values = values[None].astype(np.float32)
    return np.ascontiguousarray(values if layout == "NHWC" else values.transpose(0, 3, 1, 2))


def check_channels(baseline: str, channels: int, preprocessing: Preprocessing | None) -> Preprocessing:
    """Returns the preprocessing if it tells what a pixel becomes in every channel.

    Raises:
        MasktoolError: it does not.
    """
    where = f"--baseline {baseline}"
    if preprocessing is None:
        raise MasktoolError(
            "a baseline in pixels needs to know how pixels become the input",
            where=where,
            fix="add --preprocess imagenet|caffe|tf|FILE.json, or --mean and --std, or take --baseline mean, "
            "image-mean or blur",
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


def spread_colour(baseline: str, colour: tuple[float, ...], channels: int) -> np.ndarray:
    """Returns a colour as pixels (1, 1, C): red, green, blue, or one number for every channel.

    Raises:
        MasktoolError: three numbers for another number of channels.
    """
    if len(colour) not in (1, channels):
        raise MasktoolError(
            "the colour does not fit the model", where=f"--baseline {baseline}", expected="one number for all channels"
        )
    return np.broadcast_to(np.array(colour), (1, 1, channels))


def draw_noise(shape: InputShape) -> np.ndarray:
    """Draws every pixel and channel by itself, uniformly from 0, 1, …, 255: (H, W, C).

    Raises:
        MasktoolError: the height or width is open.
    """
    channels, height, width = shape
    if height is None or width is None:
        raise MasktoolError(
            "noise needs a fixed height and width",
            where="--baseline noise",
            fix="give --input-size H W, or take another baseline",
        )
    return np.random.default_rng(NOISE_SEED).integers(0, int(WHITE), (height, width, channels), endpoint=True)


def gaussian(sigma: float, radius: int) -> np.ndarray:
    """Returns the 2 · radius + 1 weights of a Gaussian, float32, of sum 1."""
    weights = [math.exp(-((offset / sigma) ** 2) / 2) for offset in range(-radius, radius + 1)]
    return (np.array(weights) / sum(weights)).astype(np.float32)
