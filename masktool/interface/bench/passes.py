"""What one forward pass costs: plain, masked, with the mask left out, and with gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masktool.contract import MASK_INPUT
from masktool.interface.bench.plain import PlainNetwork, check_same_network
from masktool.interface.bench.spread import Call, Clocks, clocks_of, divide_laps, take_turns
from masktool.layouts import SPATIAL_AXES
from masktool.runtime.session import MaskedSession

PLAIN, MASKED, LEFT_OUT, GRADIENT = "plain", "masked", "left_out", "gradient"
"""Kinds of pass; the last three are compared with the first."""
GRID = 14
"""Cells a side of the masks, each kept with probability .5: holes as large as those of LIME's segments, in which a fill
has work to do in every layer."""


@dataclasses.dataclass(frozen=True)
class PassFigures:
    """What passes of each kind took, measured in turns.

    Attributes:
        batch: the number of images, each under a mask of its own, in one pass.
        seconds: the seconds of one pass, by its kind.
        ratios: the ratios to the plain pass of the same round, by kind; empty where the plain network is not known.
        absent: why a kind of pass was not measured, by kind.
    """

    batch: int
    seconds: Mapping[str, Clocks]
    ratios: Mapping[str, Clocks]
    absent: Mapping[str, str]


def measure_passes(
    masked: MaskedSession,
    image: NDArray[Any],
    rounds: int,
    *,
    plain: PlainNetwork | str,
    differentiable: MaskedSession | str,
) -> PassFigures:
    """Measures passes of ONNX Runtime alone, without anything of masktool around them.

    Args:
        masked: the file that takes a mask.
        image: the image, (1, C, H, W) or (1, H, W, C).
        rounds: the number of rounds, in each of which every kind of pass runs once.
        plain: the plain network, or the reason why there is none.
        differentiable: the file with gradients, or the reason why there is none.

    Raises:
        MasktoolError: the plain network is another one than the file's.
    """
    batch = 1 if masked.metadata.one_by_one else masked.batch_size()
    images = np.repeat(image, batch, axis=0)
    masks = draw_masks(batch, image.shape[slice(*spatial_range(masked))], masked.mask_type)
    calls: dict[str, Call] = {}
    absent: dict[str, str] = {}
    calls[MASKED] = session_call(masked, images, masks)
    if masked.mask_required:
        absent[LEFT_OUT] = "the file requires a mask"
    else:
        calls[LEFT_OUT] = session_call(masked, images, None)
    if isinstance(plain, str):
        absent[PLAIN] = plain
    else:
        calls[PLAIN] = plain_call(plain, masked, images)
    if isinstance(differentiable, str):
        absent[GRADIENT] = differentiable
    else:
        calls[GRADIENT] = session_call(differentiable, images, masks)
    laps = take_turns(calls, rounds)
    ratios = {name: divide_laps(each, laps[PLAIN]) for name, each in laps.items() if PLAIN in laps and name != PLAIN}
    return PassFigures(batch, {name: clocks_of(each) for name, each in laps.items()}, ratios, absent)


def spatial_range(session: MaskedSession) -> tuple[int, int]:
    """Returns the first of an image's spatial axes, and the axis behind the last."""
    axes = SPATIAL_AXES[session.layout]
    return axes[0], axes[-1] + 1


def draw_masks(count: int, size: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Returns masks (count, 1, ...) of 0 and 1: a grid of cells, each kept with probability .5."""
    masks = np.random.default_rng(0).random((count, 1, *[GRID] * len(size))) < 0.5
    for axis, length in enumerate(size, start=2):
        masks = np.take(masks, np.arange(length) * GRID // length, axis)
    return masks.astype(dtype)


def session_call(session: MaskedSession, images: NDArray[Any], masks: NDArray[Any] | None) -> Callable[[], list[Any]]:
    """Returns the call that runs a masked file in ONNX Runtime; None leaves the mask out."""
    names = [session.metadata.class_output or session.output_names[0]]
    feed = session.feed_image(images, None, names, len(images))
    if masks is not None:
        feed[MASK_INPUT] = masks
    runtime = session.runtime_session()
    return lambda: runtime.run(names, feed)


def plain_call(plain: PlainNetwork, masked: MaskedSession, images: NDArray[Any]) -> Callable[[], list[Any]]:
    """Returns the call that runs the plain network in ONNX Runtime, once it was seen to be the masked file's.

    Raises:
        MasktoolError: it is another network.
    """
    fed = masked.feed_image(images, None, masked.output_names[:1], len(images))
    needed = {node.name for node in plain.session.get_inputs()}
    feed = {name: value for name, value in fed.items() if name in needed} | {plain.image_input: images}

    def call() -> list[Any]:
        found: list[Any] = plain.session.run(None, feed)
        return found

    ones = np.ones((1, 1, *images.shape[slice(*spatial_range(masked))]), masked.mask_type)
    (expected,) = session_call(masked, images, np.repeat(ones, len(images), axis=0))()
    check_same_network(masked, call(), expected)
    return call
