"""RISE in the graph: the grids are stored as bits; each is enlarged, in whole numbers, when its mask is needed.

The maps are sums over the masks, made in a loop of their own once all scores are known: with their mean taken off
first, the sums stay small, and float32 holds them for any number of masks. No mask is kept from the first loop; to make
one again costs little beside the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.embedding.compact import emit_bits, store_bits, store_integers
from masktool.embedding.designs import enlarge_grids
from masktool.embedding.flow import FLOAT, INT64, Flow
from masktool.embedding.method import Asked, Explained, ExplainedNetwork, register
from masktool.embedding.rounds import choose_chunk
from masktool.embedding.sampling import SamplingMethod
from masktool.errors import MasktoolError
from masktool.explainers.methods.rise import AXES, EnlargedGrids, Rise, enlarged_grid

PIXELS_AT_ONCE = 1 << 18
"""Pixels of masks that are summed in one round: few enough to stay in a processor's cache."""


class Moments(NamedTuple):
    """Sums over the masks, (1, h * w) each: of the masks, times the centred scores, and times their squares."""

    masks: ir.Value
    scored: ir.Value
    squared: ir.Value


@register
class EmbeddedRise(SamplingMethod[Rise]):
    """Mean score over the random masks that keep a pixel."""

    name: ClassVar[str] = Rise.name
    defaults: ClassVar[Mapping[str, Any]] = {"n_masks": 4000, "estimator": "mean"}

    def __init__(self, options: Rise, network: ExplainedNetwork) -> None:
        super().__init__(options, network)
        if options.estimator != "mean":
            raise MasktoolError(
                "a file sums up its masks, and fits no regression",
                where=f"estimator={options.estimator}",
                fix="leave the estimator out; with fewer masks the map has more noise",
            )

    @property
    def n_rows(self) -> int:
        """The number of masks, and one that keeps everything."""
        return 1 + self.options.sample_limit

    @property
    def design(self) -> EnlargedGrids:
        """How grids become masks."""
        cut = self.options.cuts_masks(self.network.metadata.masking)
        return EnlargedGrids(self.network.size, self.options.grid_size, cut=cut)

    @property
    def n_pixels(self) -> int:
        """The number of pixels of a mask."""
        return self.network.size[0] * self.network.size[1]

    def prepare(self, flow: Flow, asked: Asked) -> Mapping[str, ir.Value]:  # noqa: ARG002  # the same for all images
        """Emits the grids' cells as bits, the offsets, and the enlargement along each axis; row 0 has a full grid."""
        size, cells = self.network.size, self.options.grid_size
        ((kept, offsets),) = self.options.grids(size, self.network.seed, [range(self.options.sample_limit)])
        full = np.ones((1, cells, cells), np.bool_)
        return {
            "kept": store_bits(flow, np.concatenate([full, kept])),
            "offsets": store_integers(flow, np.concatenate([np.zeros((1, 2), np.int64), offsets])),
            "rows": store_integers(flow, enlarged_grid(size[0], cells).astype(np.int64)),
            "columns": store_integers(flow, enlarged_grid(size[1], cells).astype(np.int64)),
        }

    def masks(self, flow: Flow, rows: ir.Value, asked: Asked) -> ir.Value:
        """Emits the enlarged grids of rows, cut at .5 where Python cuts them."""
        cells = self.options.grid_size
        first = flow.reshape(flow.emit("Mul", rows, flow.integer(cells**2)), -1, 1)
        kept = emit_bits(flow, asked.extra["kept"], flow.emit("Add", first, flow.ints(*range(cells**2))))
        offsets = flow.as_type(flow.emit("Gather", asked.extra["offsets"], rows), INT64)
        along = [self.crop(flow, asked.extra[name], offsets, axis) for axis, name in enumerate(AXES)]
        return enlarge_grids(self.design, flow, flow.reshape(kept, -1, cells, cells), *along)

    def crop(self, flow: Flow, enlargement: ir.Value, offsets: ir.Value, axis: int) -> ir.Value:
        """Emits the enlargement along one axis from the offsets (m, 2) on: (m, length, cells) float32."""
        start = flow.emit("Gather", offsets, flow.ints(axis), axis=1)
        places = flow.emit("Add", start, flow.ints(*range(self.network.size[axis])))
        return flow.as_type(flow.emit("Gather", enlargement, places), FLOAT)

    def finish(self, flow: Flow, scores: ir.Value, asked: Asked) -> Explained:
        """Emits the weighted mean of the masks, and its standard error."""
        scores = flow.rows(scores, 1, self.n_rows)
        mean = flow.emit("ReduceMean", scores, flow.ints(0), keepdims=1)
        plain, squared = self.sum_up(flow, flow.emit("Sub", scores, mean), asked)
        if self.options.normalisation == "kept":
            values, variances = self.divide_by_kept(flow, mean, plain, squared)
        else:
            values, variances = self.divide_by_expected(flow, mean, plain, squared)
        variance = flow.emit("ReduceMean", flow.bounded(variances, low=0), flow.ints(1), keepdims=0)
        error = flow.typed(flow.emit("Sqrt", variance), FLOAT, [1])
        saliency_map = flow.typed(flow.reshape(values, 1, 1, *self.network.size), FLOAT, [1, 1, *self.network.size])
        return Explained({}, saliency_map, figures={"attributions_error": error})

    def sum_up(self, flow: Flow, centred: ir.Value, asked: Asked) -> tuple[Moments, Moments]:
        """Emits the sums over the masks, and those over the squares of the masks, from scores less their mean."""
        total = self.options.sample_limit
        chunk = choose_chunk(total, max(1, PIXELS_AT_ONCE // self.n_pixels))
        cut = self.design.cut
        shape = [len(Moments._fields), self.n_pixels]
        start = flow.emit("ConstantOfShape", flow.ints(*shape), value=ir.tensor([0], dtype=FLOAT))
        flow.typed(start, FLOAT, shape)

        def emit_round(
            inside: Flow, number: ir.Value, carried: list[ir.Value]
        ) -> tuple[list[ir.Value], list[ir.Value]]:
            first = inside.emit("Mul", inside.reshape(number, 1), inside.integer(chunk))
            places = inside.emit("Add", first, inside.ints(*range(chunk)))
            masks = self.masks(inside, inside.emit("Add", places, inside.integer(1)), asked)
            masks = inside.reshape(masks, chunk, self.n_pixels)
            weights = inside.reshape(inside.emit("Gather", centred, places), 1, chunk)
            ones = inside.floats(np.ones((1, chunk)))
            weights = inside.emit("Concat", ones, weights, inside.emit("Mul", weights, weights), axis=0)
            powers = [masks] if cut else [masks, inside.emit("Mul", masks, masks)]
            return [
                inside.typed(inside.emit("Add", before, inside.emit("MatMul", weights, power)), FLOAT, shape)
                for before, power in zip(carried, powers, strict=True)
            ], []

        sums = flow.loop(total // chunk, [start] if cut else [start, start], emit_round).carried
        plain, *squared = (Moments(*(flow.rows(each, index, index + 1) for index in range(shape[0]))) for each in sums)
        return plain, squared[0] if squared else plain  # a mask of 0 and 1 is its own square

    def divide_by_kept(self, flow: Flow, mean: ir.Value, plain: Moments, squared: Moments) -> tuple[ir.Value, ir.Value]:
        """Emits the sums over the sum of the masks, (1, h * w), and their variances; 0 where no mask keeps anything."""
        divisor = flow.divisor(plain.masks)
        values = flow.emit("Div", plain.scored, divisor)
        crossed = flow.emit("Mul", values, flow.emit("Mul", flow.floats(2), squared.scored))
        shifted = flow.emit("Mul", flow.emit("Mul", values, values), squared.masks)
        variances = flow.emit("Add", flow.emit("Sub", squared.squared, crossed), shifted)
        variances = flow.emit("Div", variances, flow.emit("Mul", divisor, divisor))
        with_mean = flow.emit("Add", values, mean)
        return flow.emit("Where", flow.positive(plain.masks), with_mean, flow.floats(0)), variances

    def divide_by_expected(
        self, flow: Flow, mean: ir.Value, plain: Moments, squared: Moments
    ) -> tuple[ir.Value, ir.Value]:
        """Emits the sums over the sum of the masks that is expected, (1, h * w), and their variances."""
        count, p = self.options.sample_limit, self.options.p
        total = flow.emit("Add", plain.scored, flow.emit("Mul", mean, plain.masks))
        average = flow.emit("Div", total, flow.floats(count))
        crossed = flow.emit("Mul", mean, flow.emit("Mul", flow.floats(2), squared.scored))
        shifted = flow.emit("Mul", flow.emit("Mul", mean, mean), squared.masks)
        second = flow.emit(
            "Div", flow.emit("Add", flow.emit("Add", squared.squared, crossed), shifted), flow.floats(count)
        )
        variances = flow.emit("Sub", second, flow.emit("Mul", average, average))
        return flow.emit("Div", average, flow.floats(p)), flow.emit("Div", variances, flow.floats((count - 1) * p**2))
