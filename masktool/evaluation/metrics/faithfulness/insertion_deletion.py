"""Insertion and deletion: the score while pixels appear, or vanish, in the order of a map.

Source: Vitali Petsiuk, Abir Das and Kate Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018, section 4.1, https://arxiv.org/abs/1806.07421.

    AUC = area under the score of the target over the share of pixels inserted (deleted), by the trapezoid rule

Published with a blurred image behind insertion and a grey one behind deletion. Here pixels go missing as the model's
masking has it, the same for both, so that the same map measured through several modes shows what the measure itself
prefers. Both ends are the full and the empty image, which all maps share: with S steps a map costs 2 (S - 1) passes.
The same curves give the symmetric relevance gain, :mod:`.symmetric_relevance_gain`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.faithfulness.metric import Curve, Figure, Measured, Metric, register
from masktool.evaluation.metrics.faithfulness.ranking import counts_of, rank_pixels
from masktool.evaluation.metrics.faithfulness.symmetric_relevance_gain import (
    RemovalCurve,
    symmetric_relevance_gain,
)
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.explainers.mask_design import Masks
from masktool.option_checks import check_count


@register
@dataclasses.dataclass(frozen=True)
class InsertionDeletion(Metric):
    """Areas under the curves of insertion and deletion.

    Attributes:
        n_steps: number of steps from nothing to everything, of as many pixels each; one alone would judge no map.
    """

    name: ClassVar[str] = "insertion-deletion"
    title: ClassVar[str] = "Insertion and deletion"
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("insertion", "area under the score while pixels appear, the most important first", "higher"),
        Figure("deletion", "area under the score while pixels vanish, the most important first", "lower"),
        Figure(
            "srg", "symmetric relevance gain: area between removing the least and the most important first", "higher"
        ),
    )

    n_steps: int = 60

    def __post_init__(self) -> None:
        check_count("n_steps", self.n_steps, minimum=2)

    @property
    def shares(self) -> NDArray[np.float64]:
        """The shares of the pixels that are inserted or deleted at each step, (n_steps + 1,)."""
        return np.linspace(0, 1, self.n_steps + 1)

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves of insertion and of deletion."""
        x = tuple(self.shares.tolist())
        return (
            Curve("insertion", "Insertion", "share of the pixels inserted", "probability of the target", x),
            Curve("deletion", "Deletion", "share of the pixels deleted", "probability of the target", x),
        )

    def measure(self, trial: Trial) -> Mapping[str, Measured]:
        """Judges the maps one after the other."""
        (empty,) = trial.under_masks([np.zeros((1, 1, *trial.size), np.float32)])
        return {name: self.judge(trial, attributions, float(empty)) for name, attributions in trial.maps.items()}

    def judge(self, trial: Trial, attributions: Map, empty: float) -> Measured:
        """Judges one map, given the score with everything missing."""
        scores = trial.under_masks(self.masks(trial, attributions))
        inserted, deleted = np.split(scores, 2)
        counts = counts_of(self.shares, attributions.size)
        curves = {"insertion": [empty, *inserted, trial.full], "deletion": [trial.full, *deleted, empty]}
        shares = counts / counts[-1]
        figures = {name: float(np.trapezoid(curve, shares)) for name, curve in curves.items()}
        figures["srg"] = gain_of(curves, shares)
        return Measured(figures, {name: [float(score) for score in curve] for name, curve in curves.items()})

    def masks(self, trial: Trial, attributions: Map) -> Iterator[Masks]:
        """Yields, a batch at a time, the masks of insertion between its ends, then those of deletion."""
        ranks = rank_pixels(attributions, trial.random("ties"))
        inner = counts_of(self.shares, attributions.size)[1:-1, None, None, None]
        counts, deletes = np.concatenate([inner, inner]), np.repeat([False, True], len(inner))[:, None, None, None]
        for piece in trial.pieces(len(counts)):
            yield ((ranks < counts[piece]) ^ deletes[piece]).astype(np.float32)


def gain_of(curves: Mapping[str, Sequence[float]], shares: NDArray[np.float64]) -> float:
    """Returns the symmetric relevance gain from the curves of insertion and deletion over shares of the pixels.

    Where a share of the most important pixels has been inserted, the rest of them, the least important, is gone.
    """
    least_first = RemovalCurve(1 - shares[::-1], curves["insertion"][::-1])
    return symmetric_relevance_gain(least_first, RemovalCurve(shares, curves["deletion"]))
