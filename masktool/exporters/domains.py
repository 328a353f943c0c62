"""The random images that a network is measured with, and the ranges that their numbers come from.

Noise reaches neither the range that a quantisation was made for nor the domain of a logarithm. So the images are

1. pictures, through the preprocessing, where that is known;
2. integers, where the network takes integers;
3. pictures in the range of the quantisation that the network begins with;
4. N(0, 1), the range of most preprocessings;
5. pictures in (0, 1], then in 0..255, where the source gives no numbers on N(0, 1): a logarithm, a root or a power.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.contract import Layout, Preprocessing
from masktool.exporters.node_inputs import constant_of
from masktool.layouts import CHANNEL_AXIS

BYTE = 255
ABOVE_ZERO = 1e-3
"""Least number of the domain (0, 1]: a logarithm has no value at 0."""
GRIDS = (2, 5, 16)
"""Cells a side of the random grids that make a picture: large surfaces, objects, texture."""
WEIGHTS = (1.0, 0.7, 0.4)
"""Weights of the grids: contrast falls with the size of what is seen, as in photographs."""
SHARED = 0.7
"""Part of a picture that is the same in all channels."""
CONTRASTS = (0.5, 0.3, 0.15)
"""Standard deviations of pictures in turn, of the whole range: the first reaches both ends, the last is dim."""
PASSED_ON = frozenset({"Where", "Fill", "Identity", "Transpose", "Cast", "Mul", "Add"})
"""Operators between the image input and the quantisation in front of the first layer, of a plain or a masked graph;
``Fill`` is masktool's own function."""
DESCRIPTIONS = {
    "pixels": "pictures through the preprocessing",
    "integers": "pictures of integers",
    "range": "pictures in the range of the input's quantisation",
    "normal": "N(0, 1)",
    "unit": "pictures in (0, 1]; on N(0, 1) the source gives NaN",
    "bytes": "pictures in 0..255; on N(0, 1) and (0, 1] the source gives NaN",
}
"""What each domain holds, in words, by its name."""

Outputs = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Domain:
    """A range of numbers, for all channels or one for each.

    Attributes:
        name: the domain's key in :data:`DESCRIPTIONS`.
        low: the number that a black pixel becomes, for all channels or one for each; empty for numbers from N(0, 1).
        high: the number that a white pixel becomes, in the form of ``low``.
    """

    name: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Returns random images (N, C, ...) of the domain, in an element type."""
        if not self.low:
            return rng.standard_normal(shape).astype(dtype)
        by_channel = (-1, *[1] * (len(shape) - 2))
        low, high = (np.asarray(side, np.float32).reshape(by_channel) for side in (self.low, self.high))
        images = low + (high - low) * draw_pictures(rng, shape)
        return (np.rint(images) if dtype.kind in "iu" else images).astype(dtype)


NORMAL = Domain("normal")
"""The domain where nothing is known of the input."""


def draw_pictures(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Returns pictures (N, C, ...) float32 of surfaces, objects and texture, in 256 steps from 0 to 1.

    Some hold both ends, as photographs do.
    """
    count, channels, *sides = shape
    picture = np.zeros(shape, np.float32)
    for cells, weight in zip(GRIDS, WEIGHTS, strict=True):
        grid = rng.standard_normal((count, channels + 1, *[cells] * len(sides))).astype(np.float32)
        mixed = SHARED * grid[:, :1] + (1 - SHARED) * grid[:, 1:]
        picture += weight * enlarged(mixed, sides)
    deviation = picture.std(axis=tuple(range(1, len(shape))), keepdims=True) + np.finfo(np.float32).tiny
    contrasts = np.resize(np.asarray(CONTRASTS, np.float32), count).reshape(-1, *[1] * (len(shape) - 1))
    levels = np.clip(0.5 + contrasts * picture / deviation, 0, 1)
    return np.rint(levels * BYTE) / np.float32(BYTE)


def enlarged(grid: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Returns a grid (N, C, ...) interpolated linearly to as many places along each axis."""
    *others, last = sides
    for axis, side in enumerate(others, start=2):
        grid = np.moveaxis(interpolation(side, grid.shape[axis]) @ np.moveaxis(grid, axis, -2), -2, axis)
    result: np.ndarray = grid @ interpolation(last, grid.shape[-1]).T
    return result


def interpolation(length: int, cells: int) -> np.ndarray:
    """Returns the matrix (length, cells) float32 of linear interpolation between the cells of a line."""
    places = np.linspace(0, cells - 1, length)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells))).astype(np.float32)


def find_domains(
    model: ir.Model, image_input: str, layout: Layout, dtype: np.dtype[Any], preprocessing: Preprocessing | None
) -> list[Domain]:
    """Returns the domains that a network may be measured on, the best first.

    Args:
        model: the network, plain or masked.
        image_input: the name of its image input.
        layout: the layout of the image input.
        dtype: the element type of the image input.
        preprocessing: how a photograph becomes the input; None where that is unknown.
    """
    image = next(value for value in model.graph.inputs if value.name == image_input)
    assert image.shape is not None  # an image input has rank 4
    channels = image.shape[CHANNEL_AXIS[layout]]
    if preprocessing is not None and len(preprocessing.mean) == len(preprocessing.std) == channels:
        return [pixels_through(preprocessing)]
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return [Domain("integers", (float(max(bounds.min, -BYTE)),), (float(min(bounds.max, BYTE)),))]
    fallbacks = [NORMAL, Domain("unit", (ABOVE_ZERO,), (1.0,)), Domain("bytes", (0.0,), (float(BYTE),))]
    return [*range_of_quantisation(image), *fallbacks]


def pixels_through(preprocessing: Preprocessing) -> Domain:
    """Returns the domain of pictures through a preprocessing: what black and white become in each channel."""
    pairs = list(zip(preprocessing.mean, preprocessing.std, strict=True))
    ends = [tuple((level * preprocessing.scale - mean) / std for mean, std in pairs) for level in (0, BYTE)]
    return Domain("pixels", ends[0], ends[1])


def range_of_quantisation(image: ir.Value) -> Iterator[Domain]:
    """Yields the range of the QuantizeLinear that an image meets first, where its parameters are constants."""
    waiting, seen = [image], {image}
    while waiting:
        value = waiting.pop()
        for node in value.consumers():
            if node.op_type == "QuantizeLinear" and node.inputs[0] is value:
                yield from quantised_range(node)
                return
            if node.op_type in PASSED_ON and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])


def quantised_range(node: ir.Node) -> Iterator[Domain]:
    """Yields the domain from the least to the largest number that a QuantizeLinear tells apart."""
    parameters = [constant_of(value) for value in node.inputs[1:3]]
    if len(parameters) == 2 and all(each is not None and each.size == 1 for each in parameters):
        scale, zero = (each.reshape(()) for each in parameters if each is not None)
        bounds = np.iinfo(zero.dtype)
        ends = [float((end - int(zero)) * float(scale)) for end in (bounds.min, bounds.max)]
        yield Domain("range", (ends[0],), (ends[1],))


def choose_domain(run: Callable[[Domain], Outputs], domains: Sequence[Domain]) -> Domain | None:
    """Returns the first domain on which a network's outputs are all finite, else without NaN, else finite in part.

    Args:
        run: the function that runs the network on images of a domain.
        domains: the domains, the best first.

    Returns:
        The domain; None where on each of them some output has NaN, and some has no finite number.
    """
    answers = {}
    for domain in domains:
        answers[domain] = run(domain)
        if all(np.isfinite(each).all() for each in answers[domain]):
            return domain
    without_nan = [each for each, outputs in answers.items() if not any(np.isnan(array).any() for array in outputs)]
    with_numbers = [each for each, outputs in answers.items() if all(np.isfinite(array).any() for array in outputs)]
    return next(iter([*without_nan, *with_numbers]), None)


def describe_domain(domain: Domain) -> str:
    """Returns a domain's bounds in words."""
    return "N(0, 1)" if not domain.low else f"{min(domain.low):.3g} to {max(domain.high):.3g}"
