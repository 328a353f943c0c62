"""Options of ``lime-alignment``: how well LIME's segments agree with the objects, through each masking mode."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from masktool.evaluation.parts.lime_alignment import N_SAMPLES, N_SEEDS, N_TOP, SUPERPIXELS, LimeAlignment
from masktool.evaluation.removal import SegmentChoice, SegmentKind
from masktool.interface.part_options import PART_OPTIONS, PartOptions
from masktool.interface.study import Study

MODES = ("layer", "grey", "black")
"""Layer masking, and the two fills that are most often used with LIME."""


@PART_OPTIONS.register("lime-alignment")
@dataclasses.dataclass(frozen=True)
class LimeAlignmentOptions(PartOptions):
    """Options of the part ``lime-alignment``.

    Attributes:
        modes: the masking modes to compare; empty takes the usual ones, or that of an exported model.
        also: exported files that hold the network in further modes.
        segments: the kind of segments: ``grid`` (square cells), ``slic`` (superpixels), or ``given`` (each image's own
            label map).
        side: the side of a grid's cells, in pixels of the model's input; None takes a 14th of the input's shorter side.
        n_segments: the rough number of superpixels.
        n_samples: the number of masks per run of LIME.
        n_seeds: the number of runs per image and mode.
        n_top: the number of top segments that are compared between runs and deleted.
    """

    modes: Sequence[str] = ()
    also: Sequence[str | os.PathLike[str]] = ()
    segments: SegmentKind = SUPERPIXELS.kind
    side: int | None = SUPERPIXELS.side
    n_segments: int = SUPERPIXELS.n_segments
    n_samples: int = N_SAMPLES
    n_seeds: int = N_SEEDS
    n_top: int = N_TOP

    def build(self, study: Study) -> LimeAlignment:
        """Returns the part with its models opened."""
        study.require_masks()
        return LimeAlignment(
            modes=study.compare_modes(self.modes, self.also, MODES),
            segments=SegmentChoice(self.segments, self.side, self.n_segments),
            n_samples=self.n_samples,
            n_seeds=self.n_seeds,
            n_top=self.n_top,
            seed=study.seed,
            batch=study.batch,
        )
