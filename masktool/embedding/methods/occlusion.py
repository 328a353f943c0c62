"""Occlusion in the graph: windows are compared with the rows and columns of the image, none is stored as a mask.

The windows are all pairs of a row of starts and a column of starts, so that the mean drop of the windows over a pixel
is two products of matrices: the drops (rows, columns) between the means over the windows along each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from masktool.embedding.designs import emit_masks
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.method import Asked, Explained, register
from masktool.embedding.sampling import SamplingMethod
from masktool.explainers.methods.occlusion import (
    MissingWindows,
    Occlusion,
    rows_of_corners,
    window_corners,
    window_starts,
)


@register
class EmbeddedOcclusion(SamplingMethod[Occlusion]):
    """Drop in the target's score when a window is missing."""

    name: ClassVar[str] = Occlusion.name

    @property
    def n_rows(self) -> int:
        """The number of windows, and one mask without any."""
        return 1 + len(window_corners(self.network.size, *self.options.resolve(self.network.size)))

    def masks(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:  # noqa: ARG002  # the same for all images
        """Emits masks that are 0 inside the window of each row; row 0 has its window below the image."""
        size = self.network.size
        window, strides = self.options.resolve(size)
        corners = rows_of_corners([size, *window_corners(size, window, strides)])
        starts = {name: flow.emit("Gather", flow.floats(values), rows) for name, values in corners.items()}
        return emit_masks(MissingWindows(size, window), flow, starts)

    def finish(self, flow: Flow, scores: ir.Value, asked: Asked) -> Explained:  # noqa: ARG002
        """Emits the mean drop of the windows over each pixel."""
        size = self.network.size
        window, strides = self.options.resolve(size)
        starts = [window_starts(*along) for along in zip(size, window, strides, strict=True)]
        shares = [mean_of_windows(*along) for along in zip(starts, window, size, strict=True)]
        drops = flow.emit("Sub", flow.rows(scores, 0, 1), flow.rows(scores, 1, self.n_rows))
        drops = flow.reshape(drops, len(starts[0]), len(starts[1]))
        means = flow.emit("MatMul", flow.emit("MatMul", flow.floats(shares[0]), drops), flow.floats(shares[1].T))
        return Explained({}, flow.typed(flow.reshape(means, 1, 1, *size), FLOAT, [1, 1, *size]))


def mean_of_windows(starts: Sequence[int], window: int, length: int) -> np.ndarray:
    """Returns the matrix (length, windows) that takes values of windows along one axis to their mean at each place."""
    offsets = np.arange(length)[:, None] - np.array(starts)
    covers = ((offsets >= 0) & (offsets < window)).astype(np.float32)
    shares: np.ndarray = covers / covers.sum(axis=1, keepdims=True)
    return shares
