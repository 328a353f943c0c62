"""Draws a map over its picture in the graph, by the rules and colours of :mod:`masktool.explainers.picture`.

A table of constants holds the colour and opacity of a fine series of values; they are those that the picture in Python
has there. Three more rows stand for a map without differences and for the two shades of the hatching over what the
model did not see.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx_ir as ir

from masktool.contract import Preprocessing
from masktool.embedding.flow import FLOAT, INT64, UINT8, Flow
from masktool.embedding.preprocessing import HEIGHT, RGB_CHANNELS, WIDTH, PhotographAxes, PreparedPhotograph, emit_grey
from masktool.embedding.resampling import Axis, emit_range
from masktool.explainers import colormap
from masktool.explainers.method import Method
from masktool.explainers.picture import (
    CAP,
    DESATURATION,
    HATCH_OPACITY,
    HATCH_SHADES,
    HATCH_SPACING,
    HATCH_WIDTH,
    Scale,
)
from masktool.normalisation import LEVELS

STEPS = 9 * (colormap.LEVELS - 1)
"""Steps of the table. An odd multiple of the colour map's, so that each of its colours spans as many steps to either
side; nine, so that opacities between two steps are within one grey level."""
TRANSPARENT, STRIPE, GAP = STEPS + 1, STEPS + 2, STEPS + 3
"""Rows of the table that stand for no value of a map."""
WHITE = LEVELS - 1
LARGEST = float(np.finfo(np.float32).max)


def draw_over_input(
    flow: Flow, images: ir.Value, maps: ir.Value, preprocessing: Preprocessing, method: Method
) -> ir.Value:
    """Emits the maps (n, 1, h, w) of images over what the images show, (n, h, w, 3) uint8 RGB.

    Args:
        flow: the graph to emit into.
        images: the images, as the network takes them.
        maps: their maps.
        preprocessing: how a photograph becomes such an image.
        method: the method that made the maps.
    """
    pictures = emit_input_pixels(flow, images, preprocessing)
    values = flow.typed(flow.emit("Squeeze", maps, flow.ints(1)), FLOAT)
    drawn = emit_overlay(flow, pictures, values, None, signed=method.signed, capped=method.capped)
    return flow.typed(drawn, UINT8, [None, *preprocessing.size, RGB_CHANNELS])


def draw_over_photograph(flow: Flow, photograph: PreparedPhotograph, maps: ir.Value, method: Method) -> ir.Value:
    """Emits the map (1, 1, h, w) of a photograph over it, (H, W, 3) uint8 RGB.

    Args:
        flow: the graph to emit into.
        photograph: the photograph, and how the network's input was cut from it.
        maps: its map.
        method: the method that made the map.
    """
    pictures = flow.as_type(flow.emit("Unsqueeze", photograph.pixels, flow.ints(0)), FLOAT)
    values, seen = emit_over_photograph(flow, maps, photograph.axes)
    drawn = emit_overlay(flow, pictures, values, seen, signed=method.signed, capped=method.capped)
    return flow.typed(flow.emit("Squeeze", drawn, flow.ints(0)), UINT8, [HEIGHT, WIDTH, RGB_CHANNELS])


def tabulate_colours(signed: bool) -> np.ndarray:
    """Returns (rows, 4) float32: what a value adds to a pixel's red, green and blue, and the share that it leaves."""
    scale = Scale(-1.0 if signed else 0.0, 1.0, signed)
    colours, opacities = scale.colours(np.linspace(scale.low, scale.high, STEPS + 1))
    shades = np.array([0, *HATCH_SHADES])[:, None].repeat(RGB_CHANNELS, axis=1)
    colours = np.concatenate([colours, shades])
    opacities = np.concatenate([opacities, np.array([0, HATCH_OPACITY, HATCH_OPACITY])[:, None]])
    return np.concatenate([WHITE * opacities * colours, 1 - opacities], axis=1).astype(np.float32)


def emit_overlay(
    flow: Flow, pictures: ir.Value, values: ir.Value, seen: ir.Value | None, *, signed: bool, capped: bool
) -> ir.Value:
    """Emits maps laid over their faded pictures.

    Args:
        flow: the graph to emit into.
        pictures: the pictures, (n, H, W, 3) float32 RGB, whole numbers in 0..255.
        values: the maps over the pictures, (n, H, W) float32.
        seen: which pixels the model saw, (H, W) bool; None for all.
        signed: whether colours tell support from opposition, see :class:`masktool.explainers.picture.Scale`.
        capped: whether the colours end at a percentile of the values, see there.

    Returns:
        The pictures, (n, H, W, 3) uint8 RGB.
    """
    low, high = (flow.reshape(end, -1, 1, 1) for end in emit_ends(flow, values, seen, signed=signed, capped=capped))
    spread = flow.emit("Sub", high, low)
    above = flow.emit("Sub", values, low)
    share = flow.emit("Clip", flow.emit("Div", above, flow.divisor(spread)), flow.floats(0), flow.floats(1))
    rows = flow.as_type(flow.emit("Round", flow.emit("Mul", share, flow.floats(STEPS))), INT64)
    rows = flow.emit("Where", flow.positive(spread), rows, flow.integer(TRANSPARENT))
    if seen is not None:
        rows = flow.emit("Where", seen, rows, emit_hatching(flow, values))
    table = tabulate_colours(signed)
    added = flow.emit("Gather", flow.floats(table[:, :RGB_CHANNELS]), rows)
    left = flow.emit("Gather", flow.floats(table[:, RGB_CHANNELS:]), rows)
    grey = flow.emit("Mul", emit_grey(flow, pictures), flow.floats(DESATURATION))
    faded = flow.emit("Add", flow.emit("Mul", pictures, flow.floats(1 - DESATURATION)), grey)
    painted = flow.emit("Round", flow.emit("Add", added, flow.emit("Mul", left, faded)))
    return flow.as_type(painted, UINT8)


def emit_ends(
    flow: Flow, values: ir.Value, seen: ir.Value | None, *, signed: bool, capped: bool
) -> tuple[ir.Value, ir.Value]:
    """Emits where the colours of each map begin and end, (n, 1) each, as :meth:`Scale.of` chooses it."""
    flat = flow.emit("Flatten", values, axis=1)
    counted = None if seen is None else flow.reshape(seen, 1, -1)

    def keep(numbers: ir.Value, other: float) -> ir.Value:
        """Returns numbers (n, pixels) with another one where the model saw nothing."""
        return numbers if counted is None else flow.emit("Where", counted, numbers, flow.floats(other))

    sizes = keep(flow.emit("Abs", flat) if signed else flat, -LARGEST)
    least = flow.floats(0)
    if not signed:
        least = flow.emit("ReduceMin", keep(flat, LARGEST), flow.ints(1), keepdims=1)
    high = flow.emit("ReduceMax", sizes, flow.ints(1), keepdims=1)
    if capped:
        count = flow.length_of(flat, 1)
        if counted is not None:
            count = flow.emit("ReduceSum", flow.as_type(counted, INT64), flow.ints(1), keepdims=0)
        percentile = emit_percentile(flow, sizes, count)
        high = flow.emit("Where", flow.emit("Greater", percentile, least), percentile, high)
    return flow.emit("Neg", high) if signed else least, high


def emit_percentile(flow: Flow, numbers: ir.Value, count: ir.Value) -> ir.Value:
    """Emits the percentile ``CAP`` of each row of (n, pixels), (n, 1), linear between two numbers.

    Args:
        flow: the graph to emit into.
        numbers: the numbers, those that count above all others.
        count: how many of each row count, (1,) int64.
    """
    share = Fraction(CAP) / 100
    along = flow.emit("Mul", flow.emit("Sub", count, flow.integer(1)), flow.integer(share.numerator))
    kept = flow.emit("Sub", count, flow.emit("Div", along, flow.integer(share.denominator)))
    node = flow.new_node("TopK", [numbers, kept], {"axis": 1, "largest": 1, "sorted": 1}, "", 2)
    flow.place(node)
    largest, places = node.outputs
    flow.typed(places, INT64)
    lower = flow.emit("Gather", largest, flow.emit("Sub", kept, flow.integer(1)), axis=1)
    before = flow.emit("Max", flow.emit("Sub", kept, flow.integer(2)), flow.integer(0))
    upper = flow.emit("Gather", largest, before, axis=1)
    rest = flow.as_type(flow.emit("Mod", along, flow.integer(share.denominator)), FLOAT)
    part = flow.emit("Div", rest, flow.floats(share.denominator))
    return flow.emit("Add", lower, flow.emit("Mul", part, flow.emit("Sub", upper, lower)))


def emit_hatching(flow: Flow, values: ir.Value) -> ir.Value:
    """Emits the rows of the table that hatch pixels, (H, W) int64, for maps (n, H, W)."""
    rows, columns = (emit_range(flow, flow.length_of(values, axis)) for axis in (1, 2))
    diagonals = flow.emit("Add", flow.reshape(rows, -1, 1), columns)
    along = flow.emit("Mod", diagonals, flow.integer(HATCH_SPACING))
    stripe = flow.emit("Less", along, flow.integer(HATCH_WIDTH))
    return flow.emit("Where", stripe, flow.integer(STRIPE), flow.integer(GAP))


def emit_over_photograph(flow: Flow, maps: ir.Value, axes: PhotographAxes) -> tuple[ir.Value, ir.Value]:
    """Emits a map over the photograph, and which pixels of that the model saw.

    As :meth:`masktool.runtime.preprocessing.PreparedImage.to_original`: bilinear between the map's pixel centres.

    Args:
        flow: the graph to emit into.
        maps: the map over the network's input, (1, 1, h, w).
        axes: how the network's input was cut from the photograph.

    Returns:
        The map (1, H, W) float32, and (H, W) bool.
    """
    down, inside_rows = emit_spread(flow, axes.rows)
    across, inside_columns = emit_spread(flow, axes.columns)
    plane = flow.emit("Squeeze", maps, flow.ints(0))
    values = flow.emit("MatMul", flow.emit("MatMul", down, plane), flow.emit("Transpose", across, perm=[1, 0]))
    return values, flow.emit("And", flow.reshape(inside_rows, -1, 1), inside_columns)


def emit_spread(flow: Flow, axis: Axis) -> tuple[ir.Value, ir.Value]:
    """Emits the share (L, n) of each of n places of a cut in each of a photograph's L pixels, and which lie in the cut.

    A pixel lies in it where its centre does.
    """
    doubled = flow.emit("Mul", emit_range(flow, axis.length), flow.integer(2))
    centres = flow.emit("Mul", flow.emit("Add", doubled, flow.integer(1)), axis.resized)
    whole = flow.emit("Mul", axis.length, flow.integer(2))
    offsets = flow.emit("Sub", centres, flow.emit("Mul", axis.start, whole))
    count = flow.length_of(axis.places, 0)
    last = flow.emit("Mul", count, whole)
    inside = flow.emit(
        "Equal", flow.emit("Clip", offsets, flow.integer(0), flow.emit("Squeeze", last, flow.ints(0))), offsets
    )
    positions = flow.emit(
        "Sub", flow.emit("Div", flow.as_type(offsets, FLOAT), flow.as_type(whole, FLOAT)), flow.floats(0.5)
    )
    end = flow.as_type(flow.emit("Sub", count, flow.integer(1)), FLOAT)
    positions = flow.emit("Max", flow.emit("Min", positions, end), flow.floats(0))
    places = flow.as_type(emit_range(flow, count), FLOAT)
    distance = flow.emit("Abs", flow.emit("Sub", flow.reshape(positions, -1, 1), places))
    return flow.emit("Max", flow.emit("Sub", flow.floats(1), distance), flow.floats(0)), inside


def emit_input_pixels(flow: Flow, images: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    """Emits the network's inputs as pictures (n, h, w, 3) float32 of whole numbers in 0..255.

    As :func:`masktool.explainers.pixels.model_pixels`: undoes normalisation, scale, channel order and layout.
    """
    values = flow.as_type(images, FLOAT)
    if preprocessing.layout == "NCHW":
        values = flow.emit("Transpose", values, perm=[0, 2, 3, 1])
    values = flow.emit("Add", flow.emit("Mul", values, flow.floats(preprocessing.std)), flow.floats(preprocessing.mean))
    values = flow.emit("Round", flow.emit("Div", values, flow.floats(preprocessing.scale)))
    values = flow.emit("Clip", values, flow.floats(0), flow.floats(WHITE))
    if preprocessing.channel_order == "RGB":
        return values
    order = (0, 0, 0) if preprocessing.channel_order == "L" else (2, 1, 0)
    return flow.emit("Gather", values, flow.ints(*order), axis=3)
