"""Resizes a photograph in the graph, to the pixel values that Pillow 13 gives with the same filter.

Each axis is one product with a matrix of weights, which are computed in the graph from the photograph's own lengths.
Pillow rounds weights to 22 binary digits, sums exactly and rounds to whole pixel values after each axis. float32 holds
24 digits, so weights are split into two parts whose products with pixel values sum without rounding; that makes the
result independent of the order in which a runtime adds.

Source: the algorithm of Pillow's ``Image.resize``, https://pillow.readthedocs.io/en/stable/handbook/concepts.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.contract import Interpolation
from masktool.embedding.flow import FLOAT, INT64, Flow

DOUBLE = ir.DataType.DOUBLE
WEIGHT = 1 << 22
"""The weight 1 as Pillow's whole number."""
PART = 1 << 11
"""A weight is ``high * PART + low``; low is from -PART / 2. Both parts are exact even as NVIDIA's TensorFloat-32."""
HAMMING = (float(np.float32(0.54)), float(np.float32(0.46)))
"""Coefficients of the Hamming window, which Pillow has in single precision."""


class Filter(NamedTuple):
    """A filter of Pillow's.

    Attributes:
        support: the distance from its centre beyond which it is 0, in pixels of the coarser picture.
        emit: function that emits its values at offsets from its centre, float64.
    """

    support: float
    emit: Callable[[Flow, ir.Value], ir.Value]


class Axis(NamedTuple):
    """How one axis of a photograph is resized and cut.

    Attributes:
        length: the photograph's length, (1,) int64.
        resized: its length once resized, (1,) int64.
        start: where the cut starts in the resized photograph, (1,) int64; negative where that is shorter.
        places: the places of the cut in the resized photograph, (n,) int64; one outside it is at its nearest edge.
        inside: whether each of the places was inside, (n,) bool.
    """

    length: ir.Value
    resized: ir.Value
    start: ir.Value
    places: ir.Value
    inside: ir.Value


def double(flow: Flow, value: float) -> ir.Value:
    """Returns a float64 number, ()."""
    return flow.constant(value, DOUBLE)


def emit_box(flow: Flow, offsets: ir.Value) -> ir.Value:
    """Emits 1 in (-0.5, 0.5], else 0."""
    after, before = (
        flow.emit("Greater", offsets, double(flow, -0.5)),
        flow.emit("LessOrEqual", offsets, double(flow, 0.5)),
    )
    return flow.as_type(flow.emit("And", after, before), DOUBLE)


def emit_bilinear(flow: Flow, offsets: ir.Value) -> ir.Value:
    """Emits 1 - |x|, from 0."""
    return flow.emit("Max", flow.emit("Sub", double(flow, 1), flow.emit("Abs", offsets)), double(flow, 0))


def emit_bicubic(flow: Flow, offsets: ir.Value) -> ir.Value:
    """Emits Keys' cubic convolution with a = -0.5."""
    distance = flow.emit("Abs", offsets)
    near = emit_polynomial(flow, distance, 1.5, -2.5, 0, 1)
    far = flow.emit("Mul", emit_polynomial(flow, distance, 1, -5, 8, -4), double(flow, -0.5))
    return emit_within(flow, distance, 1, near, emit_within(flow, distance, 2, far, double(flow, 0)))


def emit_hamming(flow: Flow, offsets: ir.Value) -> ir.Value:
    """Emits the sinc function under a Hamming window, 0 from 1."""
    distance = flow.emit("Abs", offsets)
    wave = flow.emit("Cos", flow.emit("Mul", distance, double(flow, math.pi)))
    window = flow.emit("Add", double(flow, HAMMING[0]), flow.emit("Mul", double(flow, HAMMING[1]), wave))
    return emit_within(flow, distance, 1, flow.emit("Mul", emit_sinc(flow, distance), window), double(flow, 0))


def emit_lanczos(flow: Flow, offsets: ir.Value) -> ir.Value:
    """Emits the sinc function under a sinc window three times as wide, 0 from 3."""
    window = emit_sinc(flow, flow.emit("Div", offsets, double(flow, 3)))
    values = flow.emit("Mul", emit_sinc(flow, offsets), window)
    return emit_within(flow, flow.emit("Abs", offsets), 3, values, double(flow, 0))


def emit_polynomial(flow: Flow, values: ir.Value, *coefficients: float) -> ir.Value:
    """Emits a polynomial by Horner's rule, the coefficient of the highest power first."""
    found = double(flow, coefficients[0])
    for coefficient in coefficients[1:]:
        found = flow.emit("Add", flow.emit("Mul", found, values), double(flow, coefficient))
    return found


def emit_sinc(flow: Flow, offsets: ir.Value) -> ir.Value:
    """Emits sin(pi x) / (pi x), 1 at 0."""
    angle = flow.emit("Mul", offsets, double(flow, math.pi))
    at_zero = flow.emit("Equal", offsets, double(flow, 0))
    divisor = flow.emit("Where", at_zero, double(flow, 1), angle)
    return flow.emit("Where", at_zero, double(flow, 1), flow.emit("Div", flow.emit("Sin", angle), divisor))


def emit_within(flow: Flow, distance: ir.Value, limit: float, values: ir.Value, others: ir.Value) -> ir.Value:
    """Emits values where a distance is below a limit, and others elsewhere."""
    return flow.emit("Where", flow.emit("Less", distance, double(flow, limit)), values, others)


FILTERS: Mapping[Interpolation, Filter] = {
    "box": Filter(0.5, emit_box),
    "bilinear": Filter(1, emit_bilinear),
    "hamming": Filter(1, emit_hamming),
    "bicubic": Filter(2, emit_bicubic),
    "lanczos": Filter(3, emit_lanczos),
}
"""Filters by name; ``nearest`` is none."""


class Weights(NamedTuple):
    """Weights (length, n) float32 of a photograph's pixels in the n places of a cut, ``high * PART + low``."""

    high: ir.Value
    low: ir.Value


def emit_weights(flow: Flow, axis: Axis, interpolation: Interpolation) -> Weights:
    """Emits the weights of one axis as whole numbers of which ``WEIGHT`` is 1."""
    kernel, half = FILTERS[interpolation], double(flow, 0.5)
    length = flow.as_type(axis.length, DOUBLE)
    pixels = flow.reshape(flow.as_type(emit_range(flow, axis.length), DOUBLE), -1, 1)
    scale = flow.emit("Div", length, flow.as_type(axis.resized, DOUBLE))
    coarser = flow.emit("Max", scale, double(flow, 1))
    centres = flow.emit("Mul", flow.emit("Add", flow.as_type(axis.places, DOUBLE), half), scale)
    reach = flow.emit("Mul", coarser, double(flow, kernel.support))
    first = flow.emit("Floor", flow.emit("Add", flow.emit("Sub", centres, reach), half))
    end = flow.emit("Floor", flow.emit("Add", flow.emit("Add", centres, reach), half))
    offsets = flow.emit("Add", flow.emit("Sub", pixels, centres), half)
    values = kernel.emit(flow, flow.emit("Mul", offsets, flow.emit("Div", double(flow, 1), coarser)))
    counted = flow.emit("And", flow.emit("GreaterOrEqual", pixels, first), flow.emit("Less", pixels, end))
    values = flow.emit("Where", counted, values, double(flow, 0))
    shares = flow.emit("Div", values, flow.emit("ReduceSum", values, flow.ints(0), keepdims=1))
    return emit_parts(flow, flow.emit("Mul", shares, double(flow, WEIGHT)))


def emit_parts(flow: Flow, weights: ir.Value) -> Weights:
    """Emits weights rounded to whole numbers, halves away from 0, in two parts."""
    half = double(flow, 0.5)
    below = flow.emit("Less", weights, double(flow, 0))
    down, up = flow.emit("Ceil", flow.emit("Sub", weights, half)), flow.emit("Floor", flow.emit("Add", weights, half))
    whole = flow.emit("Where", below, down, up)
    shifted = flow.emit("Add", whole, double(flow, PART // 2))
    high = flow.emit("Floor", flow.emit("Div", shifted, double(flow, PART)))
    low = flow.emit("Sub", whole, flow.emit("Mul", high, double(flow, PART)))
    return Weights(flow.as_type(high, FLOAT), flow.as_type(low, FLOAT))


def emit_range(flow: Flow, length: ir.Value) -> ir.Value:
    """Emits the whole numbers from 0 up to a length (1,), which is left out, int64."""
    return flow.emit("Range", flow.integer(0), flow.emit("Squeeze", length, flow.ints(0)), flow.integer(1))


def emit_resized(flow: Flow, planes: ir.Value, rows: Axis, columns: Axis, interpolation: Interpolation) -> ir.Value:
    """Emits the cut of a resized photograph.

    Pillow resizes along the rows' direction first, unless it takes more than twice as many pixels off the height as off
    the width; since it rounds in between, the order shows.

    Args:
        flow: the graph to emit into.
        planes: the photograph, (C, H, W) float32 of whole numbers in 0..255.
        rows: how its height is resized and cut.
        columns: how its width is resized and cut.
        interpolation: the filter, any but ``nearest``.

    Returns:
        The cut, (C, h, w) float32 of whole numbers in 0..255.
    """
    down, across = emit_weights(flow, rows, interpolation), emit_weights(flow, columns, interpolation)
    less_high, less_wide = (flow.emit("Sub", axis.length, axis.resized) for axis in (rows, columns))
    lower = flow.emit("Greater", less_high, flow.integer(0))
    steeper = flow.emit("Greater", less_high, flow.emit("Mul", less_wide, flow.integer(2)))
    (found,) = flow.branch(
        flow.emit("And", lower, steeper),
        lambda inside: [resize_across(inside, resize_down(inside, planes, down), across)],
        lambda inside: [resize_down(inside, resize_across(inside, planes, across), down)],
    )
    return flow.typed(found, FLOAT)


def resize_across(flow: Flow, planes: ir.Value, weights: Weights) -> ir.Value:
    """Emits planes (C, H, W) resized along their rows, (C, H, n)."""
    return emit_pixels(flow, *(flow.emit("MatMul", planes, part) for part in weights))


def resize_down(flow: Flow, planes: ir.Value, weights: Weights) -> ir.Value:
    """Emits planes (C, H, W) resized along their columns, (C, n, W)."""
    return emit_pixels(
        flow, *(flow.emit("MatMul", flow.emit("Transpose", part, perm=[1, 0]), planes) for part in weights)
    )


def emit_pixels(flow: Flow, high: ir.Value, low: ir.Value) -> ir.Value:
    """Emits pixel values, whole numbers in 0..255, from the sums of the two parts; halves go up."""
    part = flow.floats(PART)
    total = flow.emit("Add", high, flow.emit("Floor", flow.emit("Div", low, part)))
    rounded = flow.emit("Floor", flow.emit("Div", flow.emit("Add", total, flow.floats(WEIGHT / PART / 2)), part))
    return flow.emit("Clip", rounded, flow.floats(0), flow.floats(255))


def emit_nearest(flow: Flow, axis: Axis) -> ir.Value:
    """Emits which of the photograph's pixels stands in each place of a cut by ``nearest``, (n,) int64.

    Pillow adds up steps from pixel to pixel, and so does this: what is undecided falls to the same side.
    """
    scale = flow.emit("Div", flow.as_type(axis.length, DOUBLE), flow.as_type(axis.resized, DOUBLE))
    begins = flow.emit("Equal", emit_range(flow, axis.resized), flow.integer(0))
    steps = flow.emit("Where", begins, flow.emit("Mul", scale, double(flow, 0.5)), scale)
    positions = flow.as_type(flow.emit("CumSum", steps, flow.integer(0)), INT64)
    return flow.emit("Gather", positions, axis.places)
