"""Prepares a photograph in the graph: resize, centre crop, channels, scale, normalise, layout.

The steps, and what they give to the last bit, are those of :mod:`masktool.runtime.preprocessing`. Only where that
module never holds the whole resized photograph (:data:`masktool.runtime.preprocessing.LARGEST_INTERMEDIATE`) do pixels
differ, by two grey levels at most.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.contract import Preprocessing
from masktool.embedding.flow import FLOAT, INT64, UINT8, Flow
from masktool.embedding.method import ExplainedNetwork
from masktool.embedding.resampling import Axis, emit_nearest, emit_resized
from masktool.embedding.settings import EmbeddingSettings
from masktool.errors import MasktoolError
from masktool.messages import parameter
from masktool.normalisation import LEVELS, normalise
from masktool.runtime.preprocessing import find_resized_size

GREY_SHARES = (19595, 38470, 7471)
"""Shares of red, green and blue in a grey value, of 65,536: ITU-R 601-2 as Pillow rounds it."""
GREY_WHOLE = 1 << 16
RGB_CHANNELS = 3
HEIGHT, WIDTH = "height", "width"
"""Names of the lengths of a photograph of any size."""


class PhotographAxes(NamedTuple):
    """How the height and the width of a photograph become those of the network's input."""

    rows: Axis
    columns: Axis


class PreparedPhotograph(NamedTuple):
    """A photograph and what became of it.

    Attributes:
        pixels: the photograph, (H, W, 3) uint8 RGB.
        image: the network's input, (1, C, h, w) or (1, h, w, C).
        axes: how the network's input was cut from the photograph.
    """

    pixels: ir.Value
    image: ir.Value
    axes: PhotographAxes


def choose_preprocessing(network: ExplainedNetwork, embedding: EmbeddingSettings) -> Preprocessing | None:
    """Returns the preprocessing of the network's own size, where the file prepares photographs or draws.

    Raises:
        MasktoolError: there is none, it is incomplete, or the network takes no photographs.
    """
    if not (embedding.embed_preprocessing or embedding.embed_overlay):
        return None
    drawing, preparing = parameter("embed_overlay", True), parameter("embed_preprocessing", True)
    option = preparing if embedding.embed_preprocessing else drawing
    if network.metadata.preprocessing is None:
        raise MasktoolError(
            "the model does not say how a photograph becomes its input",
            where=option,
            fix="give " + parameter("preprocessing"),
        )
    preprocessing = network.metadata.preprocessing.scaled_to(network.size)
    expected, found = photograph_channels(preprocessing), network.image_shape[network.channel_axis - 1]
    if expected != found:
        raise MasktoolError(
            "the preprocessing does not fit the model's input",
            where=option,
            expected=f"{found} channels",
            got=f"{expected} ({preprocessing.channel_order})",
        )
    if embedding.embed_preprocessing and (preprocessing.resize == "letterbox" or preprocessing.padding is not None):
        raise MasktoolError(
            "a file prepares no photographs with padding around them",
            where=option,
            got=f"resize {preprocessing.resize!r}, padding {preprocessing.padding}",
            fix="leave the option out",
        )
    if embedding.embed_preprocessing:
        find_resized_size((1, 1), preprocessing)  # tells where the rule lacks its length
    tabulate(preprocessing)  # tells where mean or std do not fit
    return preprocessing


def photograph_channels(preprocessing: Preprocessing) -> int:
    """Returns the number of channels of a prepared photograph."""
    return 1 if preprocessing.channel_order == "L" else RGB_CHANNELS


def tabulate(preprocessing: Preprocessing) -> np.ndarray:
    """Returns the normalised value of each value of a pixel in each of the network's channels, (C, LEVELS) float32."""
    levels = np.arange(LEVELS, dtype=np.uint8)[:, None, None].repeat(photograph_channels(preprocessing), axis=2)
    return np.ascontiguousarray(normalise(levels, preprocessing)[:, 0].T)


def declare_photograph(name: str) -> ir.Value:
    """Returns an input for one photograph, (height, width, 3) uint8 RGB."""
    return ir.Value(name=name, type=ir.TensorType(UINT8), shape=ir.Shape([HEIGHT, WIDTH, RGB_CHANNELS]))


def emit_preprocessing(
    flow: Flow, photograph: ir.Value, preprocessing: Preprocessing, dtype: ir.DataType
) -> PreparedPhotograph:
    """Emits the network's input, made from a photograph.

    Args:
        flow: the graph to emit into.
        photograph: the photograph, (H, W, 3) uint8 RGB.
        preprocessing: the preprocessing, for the network's own size.
        dtype: the element type of the network's input.
    """
    axes = find_axes(flow, photograph, preprocessing)
    pixels = emit_cut(flow, photograph, axes, preprocessing)
    if preprocessing.channel_order == "BGR":
        pixels = flow.emit("Gather", pixels, flow.ints(2, 1, 0), axis=0)
    values = emit_normalised(flow, pixels, tabulate(preprocessing))
    if may_pad(preprocessing):
        inside = flow.emit("And", flow.reshape(axes.rows.inside, -1, 1), axes.columns.inside)
        values = flow.emit("Where", inside, values, flow.floats(0))
    if preprocessing.layout == "NHWC":
        values = flow.emit("Transpose", values, perm=[1, 2, 0])
    shape: list[int] = [1, *preprocessing.size]
    shape.insert(1 if preprocessing.layout == "NCHW" else len(shape), photograph_channels(preprocessing))
    image = flow.as_type(flow.typed(flow.reshape(values, *shape), FLOAT), dtype)
    return PreparedPhotograph(photograph, flow.typed(image, dtype, shape), axes)


def may_pad(preprocessing: Preprocessing) -> bool:
    """Tells whether a photograph can lack part of the crop."""
    if preprocessing.resize == "shortest":
        return preprocessing.resize_to is None or preprocessing.resize_to < max(preprocessing.size)
    return preprocessing.resize == "none"


def find_axes(flow: Flow, photograph: ir.Value, preprocessing: Preprocessing) -> PhotographAxes:
    """Emits how a photograph (H, W, 3) is resized and cropped along its two axes."""
    lengths = [flow.length_of(photograph, axis) for axis in (0, 1)]
    resized = emit_resized_lengths(flow, lengths, preprocessing)
    found = [cut_axis(flow, *each) for each in zip(lengths, resized, preprocessing.size, strict=True)]
    return PhotographAxes(*found)


def emit_resized_lengths(flow: Flow, lengths: list[ir.Value], preprocessing: Preprocessing) -> list[ir.Value]:
    """Emits height and width after resizing, (1,) int64 each; the longer side is rounded down."""
    if preprocessing.resize == "none":
        return lengths
    if preprocessing.resize == "exact":
        return [flow.ints(length) for length in preprocessing.size]
    assert preprocessing.resize_to is not None
    height, width = lengths
    short = flow.ints(preprocessing.resize_to)
    longest, shortest = flow.emit("Max", height, width), flow.emit("Min", height, width)
    long = flow.emit("Div", flow.emit("Mul", short, longest), shortest)
    upright = flow.emit("LessOrEqual", width, height)
    return [flow.emit("Where", upright, long, short), flow.emit("Where", upright, short, long)]


def cut_axis(flow: Flow, length: ir.Value, resized: ir.Value, crop: int) -> Axis:
    """Emits where a centre crop lies along one axis, as :func:`masktool.runtime.preprocessing.find_crop_start` does.

    Half of what is left over is rounded to even where it is cut off, and down where it is missing.
    """
    over = flow.emit("Sub", resized, flow.integer(crop))
    half = flow.emit("Div", flow.emit("Abs", over), flow.integer(2))
    odd = flow.emit("Mod", flow.emit("Abs", over), flow.integer(2))
    even = flow.emit("Add", half, flow.emit("Mul", odd, flow.emit("Mod", half, flow.integer(2))))
    start = flow.emit("Where", flow.emit("Less", over, flow.integer(0)), flow.emit("Neg", half), even)
    wanted = flow.emit("Add", flow.constant(np.arange(crop), INT64), start)
    last = flow.emit("Sub", resized, flow.integer(1))
    places = flow.emit("Max", flow.emit("Min", wanted, last), flow.integer(0))
    return Axis(length, resized, start, places, flow.emit("Equal", wanted, places))


def emit_cut(flow: Flow, photograph: ir.Value, axes: PhotographAxes, preprocessing: Preprocessing) -> ir.Value:
    """Emits the resized and cropped photograph as planes (C, h, w) float32 of whole numbers in 0..255."""
    if preprocessing.resize == "none" or preprocessing.interpolation == "nearest":
        rows, columns = axes
        if preprocessing.resize != "none":
            taken = emit_nearest(flow, rows), emit_nearest(flow, columns)
        else:
            taken = rows.places, columns.places
        pixels = flow.emit("Gather", flow.emit("Gather", photograph, taken[0], axis=0), taken[1], axis=1)
        return emit_planes(flow, pixels, preprocessing)
    return emit_resized(flow, emit_planes(flow, photograph, preprocessing), *axes, preprocessing.interpolation)


def emit_planes(flow: Flow, photograph: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    """Emits a photograph (H, W, 3) uint8 as planes (C, H, W) float32: red, green and blue, or its grey alone."""
    if preprocessing.channel_order == "L":
        return flow.emit("Transpose", emit_grey(flow, flow.as_type(photograph, FLOAT)), perm=[2, 0, 1])
    return flow.as_type(flow.emit("Transpose", photograph, perm=[2, 0, 1]), FLOAT)


def emit_grey(flow: Flow, pixels: ir.Value) -> ir.Value:
    """Emits the grey (..., 1) of RGB pixels (..., 3), float32 of whole numbers, as Pillow's mode ``L`` has it."""
    total = flow.emit("MatMul", pixels, flow.floats(np.array(GREY_SHARES)[:, None]))
    rounded = flow.emit("Add", total, flow.floats(GREY_WHOLE // 2))
    return flow.emit("Floor", flow.emit("Div", rounded, flow.floats(GREY_WHOLE)))


def emit_normalised(flow: Flow, pixels: ir.Value, table: np.ndarray) -> ir.Value:
    """Emits a table's (C, LEVELS) values for planes (C, h, w) of whole numbers."""
    starts = flow.constant(np.arange(len(table))[:, None, None] * LEVELS, INT64)
    positions = flow.emit("Add", flow.as_type(pixels, INT64), starts)
    return flow.emit("Gather", flow.floats(table.reshape(-1)), positions)
