"""LIME in the graph: the design is stored as bits, and the linear model is fitted where the scores are.

The fit follows :mod:`masktool.explainers.methods.lime` step by step. It costs little beside the network, and what it
would take to store a solution instead depends on the number of segments, which an input may decide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.contract import SEGMENTS_INPUT
from masktool.embedding.compact import emit_bits, store_bits, store_integers
from masktool.embedding.designs import spread_over_segments
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.kept_segments import refuse_superpixels, settled_segments
from masktool.embedding.linear_algebra import identity, invert_matrix
from masktool.embedding.method import Asked, Comparison, Explained, ExplainedNetwork, ExtraInput, register
from masktool.embedding.sampling import SamplingMethod
from masktool.errors import MasktoolError
from masktool.explainers.methods.lime import Lime, kernel_weights, normal_equations
from masktool.explainers.segment_method import GIVEN
from masktool.explainers.segment_regression import FLAT_VARIANCE
from masktool.explainers.segmentation import axis_labels
from masktool.limits import check_limit

LARGEST_CONDITION = 1000
"""Condition number of the normal equations up to which float32 gives the coefficients to 1e-4 of their range."""


class Regression(NamedTuple):
    """A weighted ridge regression of n samples on S features, before any score is known.

    Attributes:
        design: which features each sample keeps, (n, S).
        shares: the weights of the samples, (n, 1), with a sum of 1.
        centred: the design without the weighted mean of its rows, (n, S).
        solution: the matrix (S, n) that takes the scores to the coefficients.
    """

    design: ir.Value
    shares: ir.Value
    centred: ir.Value
    solution: ir.Value


@register
class EmbeddedLime(SamplingMethod[Lime]):
    """Weight of each segment in a linear model of the score."""

    name: ClassVar[str] = Lime.name
    defaults: ClassVar[Mapping[str, Any]] = {
        "segments": "grid",
        "n_samples": 1000,
        "sampling": "independent",
        "alpha": 1.0,
    }

    def __init__(self, options: Lime, network: ExplainedNetwork) -> None:
        super().__init__(options, network)
        refuse_superpixels(options)
        refuse_choices(options)
        is_given = options.feature_mask is None and options.segments == GIVEN
        self.constant_labels = None if is_given else settled_segments(options, network.size)
        self.n_features = options.n_segments if self.constant_labels is None else int(self.constant_labels.max()) + 1
        check_limit("segments", self.n_features, where="LIME")
        self.refuse_beyond_float32()

    def refuse_beyond_float32(self) -> None:
        """Raises a MasktoolError where float32 cannot hold the regression."""
        design = self.options.design(self.n_rows, self.n_features, self.network.seed)
        weights = kernel_weights(design, self.options.kernel_width)
        if weights[1:].sum() < np.finfo(np.float32).eps:  # the first has a weight of 1
            raise MasktoolError(
                "in float32, in which a file computes, only the sample that keeps everything has a weight",
                where=f"kernel_width={self.options.kernel_width}",
                fix="raise kernel_width",
            )
        condition = float(np.linalg.cond(normal_equations(design, weights, self.alpha)[0]))
        if condition > LARGEST_CONDITION:
            raise MasktoolError(
                "the regression is too ill-conditioned for float32, in which a file computes",
                where=self.options.title,
                expected=f"a condition number of at most {LARGEST_CONDITION}",
                got=f"{condition:.1e}",
                fix="raise alpha or n_samples, or lower n_segments",
            )

    @property
    def alpha(self) -> float:
        """The strength of the ridge penalty."""
        assert self.options.alpha is not None  # refused before
        return self.options.alpha

    @property
    def n_rows(self) -> int:
        """The number of samples; the first keeps everything."""
        return self.options.sample_limit

    def extra_inputs(self) -> tuple[ExtraInput, ...]:
        """Returns the label map, where the image brings one."""
        return (
            ()
            if self.constant_labels is not None
            else (ExtraInput(SEGMENTS_INPUT, ir.DataType.INT32, self.network.size),)
        )

    def comparison(self) -> Comparison:
        """Returns the grid for a label map, where the image brings one."""
        if self.constant_labels is not None:
            return Comparison(self.options)
        return Comparison(
            dataclasses.replace(self.options, segments="grid"),
            {SEGMENTS_INPUT: settled_segments(self.options, self.network.size)},
            {"segments": GIVEN, "n_features": self.n_features},
        )

    def prepare(self, flow: Flow, asked: Asked) -> Mapping[str, ir.Value]:
        """Emits the label of every pixel, the number of segments, and the design as bits."""
        labels = self.labels(flow, asked)
        count = flow.integer(self.n_features)
        if self.constant_labels is None:
            count = flow.emit("Add", flow.emit("ReduceMax", labels, keepdims=0), flow.integer(1))
        design = self.options.draw(self.n_rows, self.n_features, self.network.seed)
        return {"labels": labels, "count": flow.typed(count, INT64, []), "design": store_bits(flow, design)}

    def labels(self, flow: Flow, asked: Asked) -> ir.Value:
        """Emits the segments (h, w) int64."""
        if self.options.feature_mask is not None:
            assert self.constant_labels is not None
            labels = flow.as_type(store_integers(flow, self.constant_labels), INT64)
        elif self.constant_labels is not None:
            rows, columns = axis_labels(self.network.size, self.options.n_segments)
            labels = flow.emit("Add", flow.constant(rows[:, None], INT64), flow.constant(columns[None], INT64))
        else:
            given = flow.as_type(asked.extra[SEGMENTS_INPUT], INT64)
            beyond = flow.integer(self.n_features)  # ends the run, where a negative index would count from the end
            labels = flow.emit("Where", flow.emit("Less", given, flow.integer(0)), beyond, given)
        return flow.typed(labels, INT64, self.network.size)

    def kept(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits which of the S features the samples (m,) keep, (m, S) of 0 and 1; there is none beyond the segments."""
        count = asked.extra["count"]
        features = flow.emit("Range", flow.integer(0), flow.integer(self.n_features), flow.integer(1))
        rows = flow.reshape(rows, -1, 1)
        positions = flow.emit("Add", flow.emit("Mul", rows, count), features)
        drawn = emit_bits(flow, asked.extra["design"], positions)
        first = flow.as_type(flow.emit("Equal", rows, flow.integer(0)), FLOAT)
        exists = flow.as_type(flow.emit("Less", features, count), FLOAT)
        return flow.typed(flow.emit("Mul", flow.most(drawn, first), exists), FLOAT, [None, self.n_features])

    def masks(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits the kept segments as masks."""
        kept = self.kept(flow, rows, asked)
        return spread_over_segments(flow, kept, asked.extra["labels"], self.network.size)

    def finish(self, flow: Flow, scores: ir.Value, asked: Asked) -> Explained:
        """Emits the coefficients of the linear model, and how well it fits."""
        count = flow.as_type(asked.extra["count"], FLOAT)
        fit = self.fit(flow, count, asked)
        scores = flow.reshape(scores, -1, 1)
        scores = flow.emit("Sub", scores, weighted_mean(flow, scores, fit.shares))
        coefficients = flow.emit("MatMul", fit.solution, scores)
        gaps = flow.emit("Sub", scores, flow.emit("MatMul", fit.design, coefficients))
        residuals = flow.emit("Sub", gaps, weighted_mean(flow, gaps, fit.shares))
        figures = {
            "r2": flow.typed(flow.reshape(explained_share(flow, scores, residuals, fit.shares), 1), FLOAT, [1]),
            "attributions_error": flow.typed(flow.reshape(standard_error(flow, residuals, fit, count), 1), FLOAT, [1]),
        }
        attributions = flow.typed(flow.reshape(coefficients, 1, self.n_features), FLOAT, [1, self.n_features])
        painted = flow.emit("Gather", attributions, asked.extra["labels"], axis=1)
        saliency_map = flow.reshape(painted, 1, 1, *self.network.size)
        return Explained({}, flow.typed(saliency_map, FLOAT, [1, 1, *self.network.size]), attributions, figures)

    def fit(self, flow: Flow, count: ir.Value, asked: Asked) -> Regression:
        """Emits the regression on ``count`` segments."""
        every = flow.emit("Range", flow.integer(0), flow.integer(self.n_rows), flow.integer(1))
        design = self.kept(flow, every, asked)
        weights = self.kernel_weights(flow, design, count)
        shares = flow.emit("Div", weights, flow.emit("ReduceSum", weights, flow.ints(0), keepdims=1))
        centred = flow.emit("Sub", design, weighted_mean(flow, design, shares))
        weighted = flow.emit("Transpose", flow.emit("Mul", centred, weights), perm=[1, 0])
        penalty = flow.emit("Mul", identity(flow, self.n_features), flow.floats(self.alpha))
        gram = flow.emit("Add", flow.emit("MatMul", weighted, centred), penalty)
        solution = flow.emit("MatMul", invert_matrix(flow, gram, self.n_features), weighted)
        return Regression(design, shares, centred, solution)

    def kernel_weights(self, flow: Flow, design: ir.Value, count: ir.Value) -> ir.Value:
        """Emits the weight (n, 1) of each sample by its cosine distance from the sample that keeps everything."""
        share = flow.emit("Div", flow.emit("ReduceSum", design, flow.ints(1), keepdims=1), count)
        distances = flow.emit("Sub", flow.floats(1), flow.emit("Sqrt", share))
        scaled = flow.emit("Div", distances, flow.floats(self.options.kernel_width))
        return flow.emit("Exp", flow.emit("Mul", flow.floats(-0.5), flow.emit("Mul", scaled, scaled)))


def refuse_choices(options: Lime) -> None:
    """Raises a MasktoolError where samples or fit are not the published ones, which a file has."""
    if options.settled_sampling != "independent":
        raise MasktoolError(
            "a file draws its samples independently", where=f"sampling={options.sampling}", fix="leave sampling out"
        )
    if options.alpha is None:
        raise MasktoolError("a file fits with a penalty that is known", where="alpha=None", fix="leave alpha out")


def weighted_mean(flow: Flow, values: ir.Value, shares: ir.Value) -> ir.Value:
    """Emits the weighted mean (1, c) of values (n, c)."""
    return flow.emit("ReduceSum", flow.emit("Mul", values, shares), flow.ints(0), keepdims=1)


def explained_share(flow: Flow, scores: ir.Value, residuals: ir.Value, shares: ir.Value) -> ir.Value:
    """Emits the weighted R^2 (1, 1) of residuals (n, 1), from scores whose weighted mean is 0."""
    variance = weighted_mean(flow, flow.emit("Mul", scores, scores), shares)
    unexplained = weighted_mean(flow, flow.emit("Mul", residuals, residuals), shares)
    flat = flow.floats(FLAT_VARIANCE)
    share = flow.emit("Sub", flow.floats(1), flow.emit("Div", unexplained, flow.most(variance, flat)))
    return flow.emit("Where", flow.emit("Greater", variance, flat), share, flow.floats(0))


def standard_error(flow: Flow, residuals: ir.Value, fit: Regression, count: ir.Value) -> ir.Value:
    """Emits the root mean square over the segments of the standard error of their coefficients (1,), HC3."""
    own = flow.emit("Mul", fit.centred, flow.emit("Transpose", fit.solution, perm=[1, 0]))
    leverages = flow.emit("Add", flow.emit("ReduceSum", own, flow.ints(1), keepdims=1), fit.shares)
    left_out = flow.emit("Div", residuals, flow.emit("Sub", flow.floats(1), leverages))
    squares = (flow.emit("Mul", value, value) for value in (fit.solution, left_out))
    total = flow.emit("ReduceSum", flow.emit("MatMul", *squares), flow.ints(0), keepdims=0)
    return flow.emit("Sqrt", flow.emit("Div", total, count))
