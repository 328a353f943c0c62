"""Options of ``missingness``: what a network makes of images with parts removed, in each masking mode."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from masktool.datasets.hierarchy import read_hierarchy
from masktool.evaluation.maps import MethodChoice
from masktool.evaluation.named_models import count_classes
from masktool.evaluation.parts.missingness import CELLS, FRACTIONS, SALIENCY, Missingness
from masktool.evaluation.removal import ORDERS, Order, SegmentChoice, SegmentKind
from masktool.interface.part_options import (
    PART_OPTIONS,
    PartOptions,
    need_feature_map,
    need_gradients,
    need_head,
    read_methods,
)
from masktool.interface.study import Study

MODES = ("layer", "partial", "black", "grey", "blur")
"""Both ways of masking, and the fills that the literature compares them with."""


@PART_OPTIONS.register("missingness")
@dataclasses.dataclass(frozen=True)
class MissingnessOptions(PartOptions):
    """Options of the part ``missingness``.

    Attributes:
        modes: the masking modes to compare: ``layer``, ``partial``, or baselines of ``fill``; empty takes the usual
            ones, or that of an exported model.
        also: exported files that hold the network in further modes.
        segments: the kind of segments: ``grid`` (square cells), ``slic`` (superpixels), or ``given`` (each image's own
            label map).
        side: the side of a grid's cells, in pixels of the model's input; None takes a 14th of the input's shorter side.
        n_segments: the rough number of superpixels.
        orders: the orders in which segments are removed: ``random``, ``most-salient``, ``least-salient``.
        fractions: the fractions of the segments to remove, in 0..1.
        saliency: the name of the method that ranks the segments for the salient orders.
        hierarchy: the path of a JSON file {child: parent} of the classes; None where there is none.
    """

    modes: Sequence[str] = ()
    also: Sequence[str | os.PathLike[str]] = ()
    segments: SegmentKind = CELLS.kind
    side: int | None = CELLS.side
    n_segments: int = CELLS.n_segments
    orders: Sequence[Order] = ORDERS
    fractions: Sequence[float] = FRACTIONS
    saliency: str = SALIENCY.name
    hierarchy: str | os.PathLike[str] | None = None

    def build(self, study: Study) -> Missingness:
        """Returns the part with its models opened."""
        study.require_masks()
        orders = tuple(dict.fromkeys(self.orders))
        drawn = [] if orders == ("random",) else read_methods([self.saliency])
        models = study.compare_modes(
            self.modes,
            self.also,
            MODES,
            need_gradients(drawn),
            head=need_head(drawn),
            feature_map=need_feature_map(drawn),
        )
        session = models[0].session
        return Missingness(
            modes=models,
            segments=SegmentChoice(self.segments, self.side, self.n_segments),
            orders=orders,
            fractions=tuple(sorted(set(self.fractions))),
            saliency=MethodChoice(self.saliency),
            hierarchy=None
            if self.hierarchy is None
            else read_hierarchy(Path(self.hierarchy), session.metadata.labels, count_classes(session)),
            seed=study.seed,
            batch=study.batch,
        )
