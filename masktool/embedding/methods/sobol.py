"""Sobol indices in the graph: the masks are stored once each, and which of them belong together."""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from masktool.embedding.flow import INT64, Flow
from masktool.embedding.kept_segments import StoredSegmentMethod, root_mean_square
from masktool.embedding.method import Asked, Explained, register
from masktool.explainers.methods.sobol import ROUNDING, PointMasks, Sobol
from masktool.explainers.segmentation import square_cells


@register
class EmbeddedSobol(StoredSegmentMethod[Sobol]):
    """Total Sobol index of each cell of a grid."""

    name: ClassVar[str] = Sobol.name
    rounding: ClassVar[float] = 1e-3  # of differences of scores, squared, where the scores hardly differ

    @functools.cached_property
    def segments(self) -> NDArray[np.int32]:
        """The cell of each pixel."""
        return square_cells(self.network.size, self.options.grid_size)

    @functools.cached_property
    def design(self) -> PointMasks:
        """The masks of all points."""
        return self.options.design(self.options.sample_limit, int(self.segments.max()) + 1, self.network.seed)

    @property
    def kept(self) -> NDArray[np.float32]:
        """How much of each cell the masks keep."""
        return self.design.kept

    def finish(self, flow: Flow, scores: ir.Value, asked: Asked) -> Explained:
        """Emits the indices."""
        rows = 1 + self.design.rows
        n_points = len(rows)
        pairs, others = (
            flow.emit("Gather", scores, flow.constant(each, INT64), axis=0) for each in np.split(rows, [2], axis=1)
        )
        first = flow.emit("Gather", scores, flow.constant(rows[:, :1], INT64), axis=0)
        off = flow.emit("Sub", pairs, flow.emit("ReduceMean", pairs, flow.ints(0, 1), keepdims=1))
        spreads = flow.emit("ReduceMean", flow.emit("Mul", off, off), flow.ints(1), keepdims=1)  # (N, 1)
        variance = flow.emit("ReduceMean", spreads, flow.ints(0), keepdims=1)
        gaps = flow.emit("Sub", first, others)
        effects = flow.emit("Mul", flow.emit("Mul", gaps, gaps), flow.floats(0.5))
        largest = flow.emit("ReduceMax", flow.emit("Abs", pairs), flow.ints(0, 1), keepdims=1)
        rounding = flow.emit("Mul", largest, flow.floats(ROUNDING))
        varies = flow.emit("Greater", variance, flow.emit("Mul", rounding, rounding))
        divisor = flow.emit("Where", varies, variance, flow.floats(1))
        values = flow.emit("Div", flow.emit("ReduceMean", effects, flow.ints(0), keepdims=1), divisor)
        values = flow.emit("Where", varies, values, flow.floats(0))
        unlike = flow.emit("Div", flow.emit("Sub", effects, flow.emit("Mul", values, spreads)), divisor)
        squares = flow.emit("ReduceSum", flow.emit("Mul", unlike, unlike), flow.ints(0), keepdims=0)
        error = root_mean_square(flow, flow.emit("Div", squares, flow.floats(n_points * (n_points - 1))))
        return self.explained(flow, values, error, asked)
