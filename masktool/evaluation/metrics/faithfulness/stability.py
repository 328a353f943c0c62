"""Stability: how much maps of the same image agree over the seeds of a method's random choices.

    Spearman's rank correlation; SSIM of the maps scaled to [0, 1]; overlap |A ∩ B| / k of the k most important pixels

each as the mean over all pairs of seeds; sources of the first two in :mod:`masktool.evaluation.metrics.map_similarity`.

Where the border of the k most important pixels cuts through pixels of one value, each of these belongs to them by the
same share, so that a map always agrees with itself. A constant map has no order: undefined. A method whose second map
is the first, bit by bit, draws nothing at random, and is not run again.

Max-sensitivity (Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019), the same under noise
on the image, asks how smooth model and method are, at the price of explaining many more images; it is not measured.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.faithfulness.metric import Asks, Figure, Measured, Metric, register
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.evaluation.metrics.map_similarity import rank_correlation, structural_similarity
from masktool.evaluation.metrics.means import mean_of_defined
from masktool.evaluation.metrics.scaling import is_flat
from masktool.option_checks import check_count, check_real


@register
@dataclasses.dataclass(frozen=True)
class Stability(Metric):
    """Agreement of maps over seeds.

    Attributes:
        n_seeds: number of maps of each method.
        share: share of the pixels that count as the most important.
    """

    name: ClassVar[str] = "stability"
    title: ClassVar[str] = "Stability over seeds"
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("spearman", "rank correlation of maps over seeds", "higher"),
        Figure("ssim", "structural similarity of maps over seeds", "higher"),
        Figure("overlap", "share that the most important pixels of two seeds have in common", "higher"),
    )
    asks: ClassVar[Asks] = "nothing"

    n_seeds: int = 3
    share: float = 0.1

    def __post_init__(self) -> None:
        check_count("n_seeds", self.n_seeds, minimum=2)
        check_real("share", self.share, above=0, below=1)

    def measure(self, trial: Trial) -> Mapping[str, Measured]:
        """Judges the methods one after the other."""
        return {name: self.judge(self.maps_over_seeds(trial, name)) for name in trial.maps}

    def maps_over_seeds(self, trial: Trial, name: str) -> list[Map]:
        """Returns a method's maps of all seeds, or of two where these are the same."""
        maps = [trial.maps[name]]
        for offset in range(1, self.n_seeds):
            maps.append(trial.redraw(name, trial.seed + offset))
            if offset == 1 and np.array_equal(maps[0], maps[1]):
                break
        return maps

    def judge(self, maps: list[Map]) -> Measured:
        """Returns the agreement of one method's maps."""
        measures: dict[str, Callable[[Map, Map], float | None]] = {
            "spearman": rank_correlation,
            "ssim": structural_similarity,
            "overlap": lambda a, b: overlap(a, b, self.share),
        }
        pairs = list(itertools.combinations(maps, 2))
        return Measured(
            {name: mean_of_defined([measure(a, b) for a, b in pairs]) for name, measure in measures.items()}
        )


def overlap(a: Map, b: Map, share: float) -> float | None:
    """Returns the share of the most important pixels that two maps have in common; None where one is constant."""
    if is_flat(a) or is_flat(b):
        return None
    k = max(1, round(share * a.size))
    return float(np.minimum(membership(a, k), membership(b, k)).sum() / k)


def membership(attributions: Map, k: int) -> NDArray[np.float64]:
    """Returns the share (h, w) by which each pixel belongs to the k most important ones; the shares sum to k."""
    border = np.partition(attributions.ravel(), -k)[-k]
    above, tied = attributions > border, attributions == border
    return above + tied * ((k - above.sum()) / tied.sum())
