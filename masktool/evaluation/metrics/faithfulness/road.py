"""ROAD: pixels go in the order of a map and are replaced by what their neighbours suggest, plus a little noise.

Source: Yao Rong, Tobias Leemann, Vadim Borisov, Gjergji Kasneci and Enkelejda Kasneci, "A Consistent and Efficient
Evaluation Strategy for Attribution Methods", ICML 2022, section 4 (noisy linear imputation),
https://arxiv.org/abs/2202.00449. Every missing pixel is the weighted mean of its neighbours in the image, known or not,

    sum over neighbours j of  w_ij (x_j - x_i) = 0        w = 1/6 beside, above and below, 1/12 at the corners

one sparse linear system for all missing pixels, so that the shape of the hole tells less of what was there. The model
is the plain one, without a mask. Its accuracy is measured with the most, and with the least, important pixels gone;
published over 10 % to 90 %, here at five shares. On one image it is whether the target is (still) predicted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.maps import Map
from masktool.evaluation.metrics.faithfulness.metric import (
    Asks,
    Curve,
    Figure,
    Measured,
    Metric,
    check_shares,
    register,
)
from masktool.evaluation.metrics.faithfulness.ranking import counts_of, rank_pixels
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.layouts import CHANNEL_AXIS
from masktool.option_checks import check_real

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

NEIGHBOURS = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12, (1, -1): 1 / 12}
"""Weights by offset (rows, columns); each offset stands for its opposite too."""


@register
@dataclasses.dataclass(frozen=True)
class Road(Metric):
    """Predictions with parts imputed.

    Attributes:
        shares: shares of the pixels that are imputed.
        noise: standard deviation of the noise, in standard deviations of the image's channel; the authors' program has
            .01.
    """

    name: ClassVar[str] = "road"
    title: ClassVar[str] = "ROAD"
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure("most-first", "share of predictions kept, the most important pixels imputed", "lower"),
        Figure("least-first", "share of predictions kept, the least important pixels imputed", "higher"),
        Figure("gap", "score with the least important pixels imputed minus that with the most important", "higher"),
    )
    asks: ClassVar[Asks] = "images"

    shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
    noise: float = 0.01

    def __post_init__(self) -> None:
        check_shares("shares", self.shares)
        if self.noise != 0:
            check_real("noise", self.noise, above=0)

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves of kept predictions, with the most and with the least important pixels gone."""
        x, y_label = tuple(map(float, self.shares)), "share of predictions kept"
        return (
            Curve("road-most-first", "ROAD, the most important first", "share of the pixels imputed", y_label, x),
            Curve("road-least-first", "ROAD, the least important first", "share of the pixels imputed", y_label, x),
        )

    def measure(self, trial: Trial) -> Mapping[str, Measured]:
        """Judges the maps one after the other, all with the same noise."""
        channels = CHANNEL_AXIS[trial.layout]
        image = np.moveaxis(trial.image[0], channels - 1, 0)
        imputation = Imputation.of(image)
        noise = trial.random(self.name).standard_normal(image.shape) * image.std(axis=(1, 2), keepdims=True)
        found = {}
        for name, attributions in trial.maps.items():
            imputed = [
                np.moveaxis(np.where(missing, imputation.fill(missing) + self.noise * noise, image), 0, channels - 1)
                for missing in self.holes(trial, attributions)
            ]
            found[name] = self.judge(trial, trial.of_images(np.stack(imputed).astype(np.float32)))
        return found

    def holes(self, trial: Trial, attributions: Map) -> Iterator[NDArray[np.bool_]]:
        """Yields the pixels (h, w) that are missing: at each share the most important ones, then the least."""
        ranks, size = rank_pixels(attributions, trial.random("ties")), attributions.size
        counts = np.clip(counts_of(self.shares, size), 1, size - 1)
        for count in counts:
            yield ranks < count
        for count in counts:
            yield ranks >= size - count

    def judge(self, trial: Trial, probabilities: NDArray[np.floating[Any]]) -> Measured:
        """Judges one map by the probabilities (2 S, K) of its images."""
        scores = probabilities[:, trial.target].reshape(2, -1)
        kept = (probabilities.argmax(axis=1) == trial.target).astype(np.float64).reshape(2, -1)
        most, least = kept.mean(axis=1).tolist()
        gap = float(scores[1].mean() - scores[0].mean())
        curves = {"road-most-first": kept[0].tolist(), "road-least-first": kept[1].tolist()}
        return Measured({"most-first": most, "least-first": least, "gap": gap}, curves)


@dataclasses.dataclass(frozen=True)
class Imputation:
    """The linear system of one image.

    Attributes:
        image: image (C, h, w).
        laplacian: matrix (h w, h w) of the system: sum of a pixel's weights on the diagonal, minus the weights beside
            it; symmetric.
    """

    image: NDArray[np.float32]
    laplacian: csr_matrix

    @classmethod
    def of(cls, image: NDArray[np.float32]) -> Imputation:
        """Returns the system for an image (C, h, w)."""
        return cls(image, neighbour_laplacian((image.shape[1], image.shape[2])))

    def fill(self, missing: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Returns the image (C, h, w) with the missing pixels (h, w) imputed; at least one must be known.

        Known pixels border on every hole, so the system is positive definite: it is factored without pivoting, in an
        order made for symmetric matrices.
        """
        from scipy.sparse.linalg import splu

        values, hole = self.image.reshape(len(self.image), -1).T.astype(np.float64), missing.ravel()
        rows = self.laplacian[hole]
        factors = splu(rows[:, hole].tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        values[hole] = factors.solve(-(rows[:, ~hole] @ values[~hole]))
        return values.T.reshape(self.image.shape)


def neighbour_laplacian(size: tuple[int, int]) -> csr_matrix:
    """Returns the system's matrix over all pixels; neighbours outside the image do not count."""
    from scipy.sparse import coo_matrix, diags

    height, width = size
    index = np.arange(height * width).reshape(size)
    rows, columns, weights = [], [], []
    for (down, right), weight in NEIGHBOURS.items():
        here = index[: height - down, max(0, -right) : width - max(0, right)].ravel()
        there = index[down:, max(0, right) : width - max(0, -right)].ravel()
        rows += [here, there]
        columns += [there, here]
        weights += [np.full(2 * len(here), weight)]
    entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    neighbours = coo_matrix(entries, shape=(index.size, index.size)).tocsr()
    return (diags(np.asarray(neighbours.sum(axis=1)).ravel()) - neighbours).tocsr()
