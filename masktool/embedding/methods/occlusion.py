"""Occlusion in the graph: windows are compared with the rows and columns of the image, none is stored as a mask.

The windows are all pairs of a row of starts and a column of starts, so that the mean drop of the windows over a pixel
is two products of matrices: the drops (rows, columns) between the means over the windows along each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.method import Asked, Explained, register
from masktool.embedding.sampling import SamplingMethod
from masktool.explainers.methods.occlusion import Occlusion, window_corners, window_starts


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
        corners = np.array([size, *window_corners(size, window, strides)], np.int64)
        inside = [
            self.covered(flow, flow.emit("Gather", flow.constant(corners[:, axis], INT64), rows), axis, window[axis])
            for axis in (0, 1)
        ]
        covered = flow.emit(
            "And", flow.reshape(inside[0], -1, 1, size[0], 1), flow.reshape(inside[1], -1, 1, 1, size[1])
        )
        return flow.emit("Cast", flow.emit("Not", covered), to=FLOAT.value)

    def covered(self, flow: Flow, starts: ir.Value, axis: int, window: int) -> ir.Value:
        """Emits which places along an axis lie within windows that start at (m,): (m, length) booleans."""
        places = flow.constant(np.arange(self.network.size[axis])[None], INT64)
        offsets = flow.emit("Sub", places, flow.reshape(flow.typed(starts, INT64), -1, 1))
        after = flow.emit("GreaterOrEqual", offsets, flow.integer(0))
        before = flow.emit("Less", offsets, flow.integer(window))
        return flow.emit("And", after, before)

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
