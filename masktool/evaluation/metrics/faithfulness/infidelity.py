"""Infidelity: the mean squared error of a map as a linear model of what perturbations do to the score.

Source: Chih-Kuan Yeh, Cheng-Yu Hsieh, Arun Sai Suggala, David I. Inouye and Pradeep Ravikumar, "On the (In)fidelity and
Sensitivity of Explanations", NeurIPS 2019, definition 2.1 and the optimal scaling of section 2.1,
https://arxiv.org/abs/1901.09392. Over random perturbations I:

    infidelity = E[(b I·a - (f(x) - f(x - I)))²]        b = E[(I·a) (f(x) - f(x - I))] / E[(I·a)²]

I removes a random square of the image (the paper's "square removal"), as the model's masking has it: x is the mask of
ones, I is 1 within the square, f the probability. The factor b makes maps of any unit comparable. It may be negative,
so a map and its negative fare alike, and it does not move the map's zero: read sensitivity-n beside it. The unexplained
share divides by E[(f(x) - f(x - I))²], what a map of zeros has: it compares across models, whose drops differ in size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.metric import Figure, Measured, Metric, register
from masktool.evaluation.metrics.faithfulness.trial import SCORE_ROUNDING, Trial
from masktool.explainers.mask_design import Masks
from masktool.option_checks import check_count, check_real


@register
@dataclasses.dataclass(frozen=True)
class Infidelity(Metric):
    """Mean squared error of predicted drops under removal of random squares.

    Attributes:
        n_squares: number of perturbations.
        smallest: least side of a square, as a share of the image's shorter side.
        largest: greatest side of a square, as a share of the image's shorter side.
    """

    name: ClassVar[str] = "infidelity"
    title: ClassVar[str] = "Infidelity"
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("infidelity", "mean squared error of the drops that the map predicts, at its best scale", "lower"),
        Figure("unexplained", "the same as a share of the error of a map of zeros", "lower"),
    )

    n_squares: int = 100
    smallest: float = 0.1
    largest: float = 0.5

    def __post_init__(self) -> None:
        check_count("n_squares", self.n_squares)
        check_real("smallest", self.smallest, above=0)
        check_real("largest", self.largest, above=0, below=1)
        if self.smallest > self.largest:
            raise MasktoolError("option out of range", where="smallest", expected="at most largest", got=self.smallest)

    def measure(self, trial: Trial) -> Mapping[str, Measured]:
        """Judges all maps on the same squares, so that their number costs no forward passes."""
        maps = np.stack([each.ravel() for each in trial.maps.values()], axis=1)
        sums: list[NDArray[np.float64]] = []

        def masks() -> Iterator[Masks]:
            for removed in self.squares(trial):
                sums.append(removed.reshape(len(removed), -1) @ maps)
                yield (~removed)[:, None].astype(np.float32)

        drops = trial.full - trial.under_masks(masks())
        predicted = np.concatenate(sums).T
        return {name: judge(each, drops) for name, each in zip(trial.maps, predicted, strict=True)}

    def squares(self, trial: Trial) -> Iterator[NDArray[np.bool_]]:
        """Yields batches of squares (m, h, w): true within a square that lies in the image."""
        height, width = trial.size
        draws = trial.random(self.name).random((self.n_squares, 3))
        shares = self.smallest + draws[:, 0] * (self.largest - self.smallest)
        sides = np.maximum(np.rint(shares * min(trial.size)), 1)
        top, left = (np.floor(draws[:, 1 + axis] * (trial.size[axis] - sides + 1)) for axis in (0, 1))
        rows, columns = within(np.arange(height), top, sides), within(np.arange(width), left, sides)
        for piece in trial.pieces(self.n_squares):
            yield rows[piece][:, :, None] & columns[piece][:, None]


def within(positions: NDArray[np.intp], start: NDArray[np.float64], length: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns whether each of P positions lies in each of M ranges, (M, P)."""
    return (positions >= start[:, None]) & (positions < (start + length)[:, None])


def judge(predicted: NDArray[np.float64], drops: NDArray[np.float64]) -> Measured:
    """Judges one map by the drops that it predicts.

    Args:
        predicted: predicted drop I·a of each perturbation, (M,).
        drops: drop of the score f(x) - f(x - I) of each perturbation, (M,).
    """
    power = predicted @ predicted
    scale = predicted @ drops / power if power > 0 else 0.0  # a map of zeros predicts no drops at any scale
    error = float(np.mean((scale * predicted - drops) ** 2))
    unexplained = error / float(np.mean(drops**2)) if np.abs(drops).max() > SCORE_ROUNDING else None
    return Measured({"infidelity": error, "unexplained": unexplained})
