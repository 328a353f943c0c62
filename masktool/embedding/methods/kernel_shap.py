"""KernelSHAP in the graph: the regression does not depend on the scores, and is stored as matrices."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from masktool.embedding.flow import Flow
from masktool.embedding.kept_segments import (
    StoredSegmentMethod,
    refuse_superpixels,
    root_mean_square,
    settled_segments,
)
from masktool.embedding.method import Asked, Explained, ExplainedNetwork, register
from masktool.errors import MasktoolError
from masktool.explainers.methods.kernel_shap import KernelShap, PairFit, Pairs, coalitions, fit_differences
from masktool.explainers.segment_method import GIVEN
from masktool.limits import check_limit


@register
class EmbeddedKernelShap(StoredSegmentMethod[KernelShap]):
    """Shapley value of each segment."""

    name: ClassVar[str] = KernelShap.name
    defaults: ClassVar[Mapping[str, Any]] = {"segments": "grid"}

    def __init__(self, options: KernelShap, network: ExplainedNetwork) -> None:
        super().__init__(options, network)
        if options.feature_mask is None and options.segments == GIVEN:
            raise MasktoolError(
                "which sets of segments are scored depends on how many there are, and is settled at export",
                where="segments=input",
                fix="set segments=grid, or give one label map for all images as feature_mask",
            )
        refuse_superpixels(options)
        check_limit("segments", int(self.segments.max()) + 1, where=options.title)

    @functools.cached_property
    def segments(self) -> NDArray[np.int32]:
        """The segment of each pixel."""
        return settled_segments(self.options, self.network.size)

    @functools.cached_property
    def pairs(self) -> Pairs:
        """The samples."""
        options = self.options
        return options.weigh(options.draw(options.sample_limit, int(self.segments.max()) + 1, self.network.seed))

    @functools.cached_property
    def fit(self) -> PairFit:
        """The regression."""
        return fit_differences(self.pairs)

    @property
    def kept(self) -> NDArray[np.float32]:
        """Which segments the masks keep: none, then each sample and its complement."""
        return coalitions(self.pairs.kept)

    def finish(self, flow: Flow, scores: ir.Value, asked: Asked) -> Explained:
        """Emits the values, and their standard error."""
        n_pairs, fit = len(self.pairs.kept), self.fit
        whole, nothing = flow.rows(scores, 0, 1), flow.rows(scores, 1, 2)
        total = flow.reshape(flow.emit("Sub", whole, nothing), 1, 1)
        equal = flow.emit("Mul", total, flow.floats(1 / self.n_segments))
        if not n_pairs:
            return self.explained(flow, equal, flow.emit("Mul", flow.reshape(total, 1), flow.floats(0)), asked)
        sides = flow.reshape(flow.rows(scores, 2, self.n_rows), n_pairs, 2)
        differences = flow.emit("MatMul", sides, flow.floats([[1], [-1]]))
        unlike = flow.emit("Sub", differences, flow.emit("Mul", flow.floats(fit.shares[:, None]), total))
        deviations = flow.emit("MatMul", flow.floats(fit.solution), unlike)  # (S, 1)
        fitted = flow.emit("MatMul", flow.floats(fit.centred * fit.told[:, None]), deviations)
        left_out = flow.emit("Mul", flow.emit("Sub", unlike, fitted), flow.floats(fit.inflation[:, None]))
        variances = flow.emit("MatMul", flow.floats(np.square(fit.solution)), flow.emit("Mul", left_out, left_out))
        error = root_mean_square(flow, flow.reshape(variances, self.n_segments))
        return self.explained(flow, flow.emit("Add", equal, deviations), error, asked)
