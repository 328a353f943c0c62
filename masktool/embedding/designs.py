"""The graphs of mask designs: how rows become masks, in a file that explains itself and on a session's device.

Each graph gives what its design's ``expand`` gives in Python. On a device the rows come as inputs; in a file they come
from what is stored there. Only operators on float32, and ones that move values, are used: few providers compare or
calculate with whole numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from masktool.embedding.flow import FLOAT, Flow
from masktool.explainers.mask_design import MaskDesign, NoGraphError
from masktool.explainers.methods.occlusion import MissingWindows
from masktool.explainers.methods.rise import AXES, EnlargedGrids
from masktool.explainers.segment_method import KeptSegments


@functools.singledispatch
def emit_masks(design: MaskDesign, flow: Flow, rows: Mapping[str, ir.Value]) -> ir.Value:  # noqa: ARG001
    """Emits the masks (m, 1, h, w) float32 of a batch of rows.

    Args:
        design: how masks are made of rows.
        flow: the graph to emit into.
        rows: the rows of the batch, and what the design shares among all masks, by name.

    Raises:
        NoGraphError: no graph is written for designs of this type.
    """
    raise NoGraphError("no graph is written for masks of this design", where=type(design).__name__)


@emit_masks.register
def emit_missing_windows(design: MissingWindows, flow: Flow, rows: Mapping[str, ir.Value]) -> ir.Value:
    """Emits masks with one missing window each, from where it starts."""
    height, width = design.size
    inside_rows = emit_inside(flow, rows["top"], design.window[0], height)
    inside_columns = emit_inside(flow, rows["left"], design.window[1], width)
    inside = flow.emit(
        "Mul", flow.reshape(inside_rows, -1, 1, height, 1), flow.reshape(inside_columns, -1, 1, 1, width)
    )
    return flow.emit("Sub", flow.floats(1), inside)


def emit_inside(flow: Flow, starts: ir.Value, window: int, length: int) -> ir.Value:
    """Emits 1 for the places along an axis that lie within windows that start at (m,), 0 for others: (m, length)."""
    middles = flow.floats(np.arange(length)[None] - (window - 1) / 2)  # halves are exact
    distances = flow.emit("Abs", flow.emit("Sub", middles, flow.reshape(starts, -1, 1)))
    return flow.emit("Cast", flow.emit("Less", distances, flow.floats(window / 2)), to=FLOAT.value)


@emit_masks.register
def emit_kept_segments(design: KeptSegments, flow: Flow, rows: Mapping[str, ir.Value]) -> ir.Value:
    """Emits masks that keep some segments, from which ones and the segment of each pixel."""
    return spread_over_segments(flow, rows["kept"], rows["segments"], design.segments.shape)


def spread_over_segments(flow: Flow, kept: ir.Value, segments: ir.Value, size: Sequence[int]) -> ir.Value:
    """Emits masks (m, 1, h, w) that keep some segments.

    Args:
        flow: the graph to emit into.
        kept: which segments are kept, (m, S) float32 of 0 and 1.
        segments: the segment of each pixel, (h, w) integers.
        size: (height, width) of the masks in pixels.
    """
    return flow.reshape(flow.emit("Gather", kept, segments, axis=1), -1, 1, *size)


@emit_masks.register
def emit_enlarged_grids(design: EnlargedGrids, flow: Flow, rows: Mapping[str, ir.Value]) -> ir.Value:
    """Emits masks that are enlarged grids, from the cells that are kept and where the crop starts."""
    along = [
        flow.emit("Gather", rows[name], rows[start], axis=0) for name, start in zip(AXES, ("top", "left"), strict=True)
    ]
    return enlarge_grids(design, flow, rows["kept"], *along)


def enlarge_grids(design: EnlargedGrids, flow: Flow, kept: ir.Value, rows: ir.Value, columns: ir.Value) -> ir.Value:
    """Emits masks that are enlarged grids.

    Args:
        design: how masks are made of grids.
        flow: the graph to emit into.
        kept: which cells are kept, (m, g, g) float32.
        rows: the interpolation along each mask's height, (m, h, g) float32 in whole numbers.
        columns: the interpolation along each mask's width, (m, w, g) float32 in whole numbers.
    """
    enlarged = flow.emit("MatMul", rows, kept)
    enlarged = flow.emit("MatMul", enlarged, flow.emit("Transpose", columns, perm=[0, 2, 1]))
    if design.cut:
        masks = flow.as_type(flow.emit("GreaterOrEqual", enlarged, flow.floats(design.whole / 2)), FLOAT)
    else:
        masks = flow.emit("Div", enlarged, flow.floats(design.whole))
    return flow.reshape(masks, -1, 1, *design.size)
