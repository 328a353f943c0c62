"""HSIC in the graph: the kernel of the scores of all pairs of masks, which are few beside the network's activations."""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from masktool.embedding.flow import Flow
from masktool.embedding.kept_segments import StoredSegmentMethod, root_mean_square
from masktool.embedding.method import Asked, Explained, register
from masktool.explainers.methods.hsic import Hsic, centred_signs
from masktool.explainers.segmentation import square_cells


@register
class EmbeddedHsic(StoredSegmentMethod[Hsic]):
    """Dependence between the score and whether a cell is kept."""

    name: ClassVar[str] = Hsic.name

    @functools.cached_property
    def segments(self) -> NDArray[np.int32]:
        """The cell of each pixel."""
        return square_cells(self.network.size, self.options.grid_size)

    @functools.cached_property
    def kept(self) -> NDArray[np.float32]:
        """Which cells the masks keep."""
        return self.options.draw(self.options.sample_limit, int(self.segments.max()) + 1, self.network.seed)

    def finish(self, flow: Flow, scores: ir.Value, asked: Asked) -> Explained:
        """Emits the criterion of every cell."""
        n_masks = len(self.kept)
        scores = flow.rows(scores, 1, self.n_rows)
        gaps = flow.emit("Sub", flow.reshape(scores, -1, 1), flow.reshape(scores, 1, -1))
        signs = flow.floats(centred_signs(self.kept))
        sums = flow.emit("MatMul", emit_similarity(flow, gaps, n_masks), signs)
        sums = flow.emit("Sub", sums, flow.emit("ReduceMean", sums, flow.ints(0), keepdims=1))
        own = flow.emit("Mul", flow.emit("Mul", signs, sums), flow.floats(1 / (2 * (n_masks - 1) ** 2)))
        values = flow.emit("ReduceSum", own, flow.ints(0), keepdims=1)
        off = flow.emit("Sub", own, flow.emit("Mul", values, flow.floats(1 / n_masks)))
        squares = flow.emit("ReduceSum", flow.emit("Mul", off, off), flow.ints(0), keepdims=0)
        error = root_mean_square(flow, flow.emit("Mul", squares, flow.floats(4)))
        return self.explained(flow, values, error, asked)


def emit_similarity(flow: Flow, gaps: ir.Value, n_masks: int) -> ir.Value:
    """Emits the Gaussian kernel (n, n) of differences of scores (n, n), as wide as their median distance."""
    distances = flow.emit("Abs", gaps)
    width = emit_median(flow, flow.reshape(distances, n_masks**2), n_masks)
    scaled = flow.emit("Div", gaps, flow.divisor(width))
    alike = flow.emit("Exp", flow.emit("Mul", flow.emit("Mul", scaled, scaled), flow.floats(-0.5)))
    same = flow.emit("Sub", flow.floats(1), flow.step(distances))
    return flow.emit("Where", flow.positive(width), alike, same)


def emit_median(flow: Flow, distances: ir.Value, n_masks: int) -> ir.Value:
    """Emits the median distance (1,) of all pairs of masks, from those (n * n,) in which every pair stands twice."""
    n_pairs = n_masks * (n_masks - 1) // 2
    ranks = n_pairs // 2, (n_pairs - 1) // 2  # from the largest, which is 0: one rank or two
    largest = flow.largest(distances, 2 * (ranks[0] + 1))
    middle = [flow.rows(largest, 2 * rank, 2 * rank + 1) for rank in ranks]
    return flow.emit("Mul", flow.emit("Add", *middle), flow.floats(0.5))
