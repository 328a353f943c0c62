"""RISE: average many random masks, each weighted by the score that the model keeps under it.

Source: Vitali Petsiuk, Abir Das and Kate Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018, equation 6, https://arxiv.org/abs/1806.07421.

    a(x) = 1 / (n p) * sum over i of  f(M_i) M_i(x)

Each mask is a 7 x 7 grid of cells that are kept with probability p, enlarged bilinearly to one cell more than the
input and cropped at a random offset (section 3.2). The interpolation repeats the outermost cells. Three things differ
from the paper unless asked for:

* ``binary``: behind layer and partial masking the masks are cut at .5. There a soft value weighs in means and fills but
  hides nothing, so that soft masks would leave nearly everything visible.
* ``normalisation``: the sum is divided by the sum of the masks (``kept``), not by its expectation n p (``expected``,
  the paper's). Both tend to E[f(M) | x kept]; ours leaves out the noise of how often a pixel happened to be kept.
* ``estimator``: the same E[f(M) | x kept] comes from a linear model of the scores (``regression``,
  :mod:`masktool.explainers.mask_regression`), which 250 masks determine about as well as 1,000 do the sum
  (``mean``). ``estimator=mean`` and ``n_masks=4000`` give the map of earlier versions.

The standard error of each pixel comes from running sums; ``quality`` reports its root mean square over the pixels
beside the map's range. Masks are drawn until that is small, but no more than 250 unless ``n_masks`` says so.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Masking, Size
from masktool.errors import MasktoolError
from masktool.explainers.interpolation import multiply_along, whole_enlargement
from masktool.explainers.mask_design import MaskDesign, Masks, MaskSums, Rows, coarsen_grid
from masktool.explainers.mask_figures import cut_masks
from masktool.explainers.mask_regression import MaskMoments, MaskRegression, smooth_roots
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.methods.occlusion import START_NAMES
from masktool.explainers.stopping import SampleRun
from masktool.explainers.task import ScoredMasks, Task
from masktool.option_checks import check_choice, check_count, check_real

FEWEST = 2
"""Masks: one has no standard error."""
AXES = ("rows", "columns")
"""Names of the interpolation along either axis of a mask of an image."""
AXES_OF: Mapping[int, tuple[str, ...]] = {1: AXES[1:], 2: AXES, 3: ("slices", *AXES)}
"""The same of any input, by its number of axes of places."""
GRID_SIZES: Mapping[int, int] = {1: 12, 2: 7, 3: 4}
"""Cells per side of a grid where that is left open, by the number of axes of places."""
LARGEST_GRID = 12
"""Largest grid of the regression: the work grows with the sixth power of its side."""
LARGEST_GRIDS: Mapping[int, int] = {1: LARGEST_GRID, 2: LARGEST_GRID, 3: 6}
"""The same by the number of axes of places: of a volume the work grows with the ninth power."""
SUM_ALONE = "set estimator=mean, which is the sum over the masks alone"
REACHES = (0.0, 1.0, 2.0)
"""How far like weights may reach, in half cells of the grid; the scores choose."""
FREE_MASKS, FREE_SHARE = 1 << 14, 16
"""Masks from which the regression knows their moments, without the model: so many, or this many for each mask scored,
which leaves about a twentieth of the map's variance to them."""
FREE_SEED = 0x6D61736B
"""Seed of those masks, which are the same whatever the seed of the explanation."""
FREE_PIECE = 1024
"""Most such masks in memory."""


@register
@dataclasses.dataclass(frozen=True)
class Rise(Method):
    """Mean score over the random masks that keep a pixel.

    Attributes:
        n_masks: the number of masks; None draws until the map is stable. The paper uses 4000 for VGG-16 and 8000 for
            ResNet-50.
        p: the probability that a cell of the grid is kept.
        grid_size: the number of cells per side of the grid; at its default, 12 along a signal and 4 along each side of
            a volume.
        binary: whether the masks are cut at .5; None cuts them where the model's masking ignores the scale of a soft
            mask.
        estimator: how the mean score is estimated: ``regression`` fits a linear model first, ``mean`` is the published
            sum over the masks alone.
        normalisation: the divisor of that sum: ``kept``, the sum of the masks, or, as published, ``expected``.
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"
    meaning: ClassVar[str] = "mean {score} while kept"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = "n_masks"
    most_samples: ClassVar[int] = 250
    any_rank: ClassVar[bool] = True

    n_masks: int | None = None
    p: float = 0.5
    grid_size: int = 7
    binary: bool | None = None
    estimator: Literal["regression", "mean"] = "regression"
    normalisation: Literal["kept", "expected"] = "kept"

    def __post_init__(self) -> None:
        if self.n_masks is not None:
            check_count("n_masks", self.n_masks, minimum=FEWEST)
        check_real("p", self.p, above=0, below=1)
        check_count("grid_size", self.grid_size)
        check_choice("binary", self.binary, (None, True, False))
        check_choice("estimator", self.estimator, ("regression", "mean"))
        check_choice("normalisation", self.normalisation, ("kept", "expected"))
        if self.estimator == "regression":
            self.check_regression()

    def check_regression(self) -> None:
        """Raises a MasktoolError where an option is of the sum over the masks alone, or the grid is too fine."""
        if self.normalisation != "kept":
            raise MasktoolError("the regression divides by no sum", where="normalisation=expected", fix=SUM_ALONE)
        if self.grid_size > LARGEST_GRID:
            raise too_fine(LARGEST_GRID, self.grid_size)

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with a grid of no more cells than half as many as there are masks."""
        if not self.leaves_open("grid_size"):
            return self
        n_masks, axes = min(self.most_within(task.stopping), budget - 1), len(task.size)
        return dataclasses.replace(self, grid_size=coarsen_grid(GRID_SIZES[axes], n_masks, axes))

    def count_passes(self, task: Task) -> int:  # noqa: ARG002
        """Returns the passes of the image as it is and of two masks, which a standard error needs."""
        return 1 + FEWEST

    def attribute(self, task: Task) -> Attribution:
        """Scores random masks batch by batch, holding no more than one batch, and returns the weighted means."""
        if self.leaves_open("grid_size") and self.grid_size != GRID_SIZES[len(task.size)]:
            return dataclasses.replace(self, grid_size=GRID_SIZES[len(task.size)]).attribute(task)
        if self.estimator == "regression" and self.grid_size > LARGEST_GRIDS[len(task.size)]:
            raise too_fine(LARGEST_GRIDS[len(task.size)], self.grid_size)
        run = SampleRun(task.stopping, self.n_masks, self.most_within(task.stopping))
        design, n_targets = self.design(task), len(task.targets)
        average: Averages = (
            RegressedMean(self, design, n_targets)
            if self.estimator == "regression"
            else PlainMean(self, design, n_targets)
        )
        made: collections.deque[Rows] = collections.deque()  # rows of the masks that are not scored yet

        def rows() -> Iterator[Rows]:
            for each in self.rows(task, run.pieces(task.perturbations_per_eval)):
                made.append(each)
                yield each

        for scored in task.evaluate(rows(), run.most, design):
            average.add(made.popleft(), scored)
            if run.pauses:
                maps, variances = average.maps()
                run.judge(maps, variances)
        return Attribution(
            maps.reshape(-1, *task.size),
            settings=dataclasses.asdict(self) | {"n_masks": run.drawn, "binary": self.cuts_masks(task.masking)},
            quality=run.quality(),
            notes=run.notes(),
        )

    def cuts_masks(self, masking: Masking) -> bool:
        """Returns whether the masks are cut at .5 behind a masking mode."""
        return masking != "fill" if self.binary is None else self.binary

    def design(self, task: Task) -> EnlargedGrids:
        """Returns how grids become the masks of a task."""
        return EnlargedGrids(task.size, self.grid_size, cut=self.cuts_masks(task.masking))

    def rows(self, task: Task, pieces: Iterable[range]) -> Iterator[Rows]:
        """Yields the rows of the masks, in pieces that follow each other; they do not depend on the pieces."""
        for grids in self.grids(task.size, task.seed, pieces):
            yield grids.rows()

    def grids(self, size: Size, seed: int, pieces: Iterable[range]) -> Iterator[Grids]:
        """Yields the grids of the masks for an input of (height, width), in pieces that follow each other."""
        cells_random, offsets_random = np.random.default_rng(seed).spawn(2)
        cells = [cell_length(length, self.grid_size) for length in size]
        for piece in pieces:
            kept = cells_random.random((len(piece), *[self.grid_size] * len(size))) < self.p
            yield Grids(kept, (offsets_random.random((len(piece), len(size))) * cells).astype(np.int64))


def too_fine(most: int, grid_size: int) -> MasktoolError:
    """Returns the error of a grid that is too fine for the regression."""
    return MasktoolError(
        "a grid too fine for the regression",
        where="grid_size",
        expected=f"at most {most}",
        got=grid_size,
        fix=SUM_ALONE,
    )


@dataclasses.dataclass(frozen=True)
class EnlargedGrids(MaskDesign):
    """Masks that are grids, enlarged and cropped.

    A row is which cells are kept, ``kept`` (M, g, g) float32, and where the crop starts, ``top`` and ``left`` (M,)
    int32 in pixels; of signals and volumes it has their axes.

    Attributes:
        size: (height, width) of the masks in pixels, or what their axes are.
        grid_size: the number of cells per side of the grid.
        cut: whether the masks are cut at .5; p = .5 then keeps as many pixels as cells.
    """

    size: Size
    grid_size: int
    cut: bool

    @functools.cached_property
    def shared(self) -> Rows:
        """The interpolation along either axis for every start of a crop, see :func:`enlargements`."""
        names = AXES_OF[len(self.size)]
        return {name: enlargements(length, self.grid_size) for name, length in zip(names, self.size, strict=True)}

    @property
    def whole(self) -> float:
        """The value of a pixel whose cells are all kept, before it is scaled to 1."""
        return float(np.prod([enlarged_grid(length, self.grid_size)[0].sum() for length in self.size]))

    def expand(self, rows: Rows) -> Masks:
        """Returns the masks of a batch of grids."""
        soft = upsample(rows["kept"], self.offsets(rows), *self.shared.values())
        return cut_masks(soft) if self.cut else soft

    def offsets(self, rows: Rows) -> NDArray[np.int64]:
        """Returns where the crops of a batch of rows start along each axis, (M, 2) of images."""
        return np.stack([rows[name] for name in START_NAMES[len(self.size)]], axis=1)


@dataclasses.dataclass(frozen=True)
class CoarseGrids:
    """Masks of grids as the regression sees them: at a lattice of points, and as means over two by two of these.

    Between points, four of which lie along a cell, the mean score changes slowly, since every mask has an offset of its
    own.

    Attributes:
        design: how grids become masks.
        p: the probability that a cell of the grid is kept.
    """

    design: EnlargedGrids
    p: float

    @property
    def patches(self) -> tuple[int, ...]:
        """The number of features along either axis: two for each cell, where the picture is large enough."""
        return tuple(max(1, min(2 * self.design.grid_size, length // 2)) for length in self.design.size)

    @functools.cached_property
    def places(self) -> list[NDArray[np.intp]]:
        """The pixels along either axis at which the points lie."""
        return [
            ((np.arange(2 * count) + 0.5) * length / (2 * count)).astype(np.intp)
            for length, count in zip(self.design.size, self.patches, strict=True)
        ]

    @functools.cached_property
    def enlargements(self) -> list[NDArray[np.float32]]:
        """The interpolation along either axis for every start of a crop, at the points."""
        return [shared[:, places] for shared, places in zip(self.design.shared.values(), self.places, strict=True)]

    def values(self, rows: Rows) -> NDArray[np.float32]:
        """Returns the masks at the points, (m, P)."""
        soft = upsample(rows["kept"], self.design.offsets(rows), *self.enlargements)
        return (cut_masks(soft) if self.design.cut else soft).reshape(len(soft), -1)

    def features(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the features (m, F) of masks (m, P) at the points."""
        pairs = [length for count in self.patches for length in (count, 2)]
        within = tuple(range(2, 1 + len(pairs), 2))
        means: NDArray[np.float32] = values.reshape(-1, *pairs).mean(axis=within)
        return means.reshape(len(values), -1)

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns maps (T, P) at the points, brought to every pixel by linear interpolation, (T, h * w)."""
        along = [
            np.stack([np.interp(np.arange(length), places, unit) for unit in np.eye(len(places))], axis=1)
            for length, places in zip(self.design.size, self.places, strict=True)
        ]
        lattice = values.reshape(-1, *map(len, self.places))
        return multiply_along(lattice, along).reshape(len(values), -1)


@functools.lru_cache(maxsize=4)
def free_moments(coarse: CoarseGrids, count: int) -> MaskMoments:
    """Returns the moments of random masks that no model has seen."""
    method = Rise(p=coarse.p, grid_size=coarse.design.grid_size)
    kept: Any = 0
    features: Any = 0
    crossed: Any = 0
    pieces = [range(start, min(start + FREE_PIECE, count)) for start in range(0, count, FREE_PIECE)]
    for grids in method.grids(coarse.design.size, FREE_SEED, pieces):
        values = coarse.values(grids.rows())
        patches = coarse.features(values)
        kept += values.sum(axis=0, dtype=np.float64)
        features += patches.sum(axis=0, dtype=np.float64)
        crossed += (values.T @ patches).astype(np.float64)
    covariance = crossed / count - np.outer(kept / count, features / count)
    return MaskMoments(np.maximum(kept, 1) / count, features / count, covariance, count)


class Averages(Protocol):
    """The mean score of each target while a pixel is kept."""

    def add(self, rows: Rows, scored: ScoredMasks) -> None:
        """Adds the masks of one pass, and the rows that they were made from."""

    def maps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the map of each target, (T, pixels), and the squared standard errors of its values."""


class RegressedMean:
    """The mean score of each target while a pixel is kept, from a linear model of the scores."""

    def __init__(self, method: Rise, design: EnlargedGrids, n_targets: int) -> None:
        self.coarse = CoarseGrids(design, method.p)
        self.regression = MaskRegression(int(np.prod(self.coarse.patches)), n_targets)

    def add(self, rows: Rows, scored: ScoredMasks) -> None:
        """Adds the masks of one pass, and the rows that they were made from."""
        self.regression.add(self.coarse.features(self.coarse.values(rows)), scored.scores)

    def maps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the map of each target, (T, pixels), and the squared standard errors of its values."""
        moments = free_moments(self.coarse, max(FREE_MASKS, FREE_SHARE * self.regression.count))
        maps, variances = self.regression.maps(moments, smooth_roots(self.coarse.patches, REACHES))
        return self.coarse.spread(maps), self.coarse.spread(variances)


class PlainMean:
    """The mean score of each target while a pixel is kept, over the masks that were scored."""

    def __init__(self, method: Rise, design: EnlargedGrids, n_targets: int) -> None:
        self.method, self.design, self.count = method, design, 0
        self.sums = MaskSums.nothing(n_targets, math.prod(design.size))

    def add(self, rows: Rows, scored: ScoredMasks) -> None:  # noqa: ARG002  # the masks say all
        """Adds the masks of one pass."""
        self.count += len(scored.scores)
        self.sums = self.sums.add(scored.masks.add_up(scored.scores.astype(np.float32).T, binary=self.design.cut))

    def maps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the map of each target, (T, pixels), and the squared standard errors of its values."""
        sums, count, p = self.sums, self.count, self.method.p
        if self.method.normalisation == "kept":
            divisor = np.where(sums.masks > 0, sums.masks, 1)
            maps = sums.scored / divisor
            variances = sums.squared - 2 * maps * sums.scored_squares + np.square(maps) * sums.squares
            return maps, variances / np.square(divisor)
        mean = sums.scored / count
        return mean / p, (sums.squared / count - np.square(mean)) / (count - 1) / p**2


class Grids(NamedTuple):
    """The random choices behind m masks: the cells that are kept (m, g, g) bool, and the offsets (m, 2) in pixels.

    Of signals and volumes they have one or three axes.
    """

    kept: NDArray[np.bool_]
    offsets: NDArray[np.int64]

    def rows(self) -> Rows:
        """Returns the rows of the masks."""
        starts = self.offsets.T.astype(np.int32)
        return {"kept": self.kept.astype(np.float32), **dict(zip(START_NAMES[len(starts)], starts, strict=True))}


def cell_length(length: int, grid_size: int) -> int:
    """Returns the number of pixels that a cell of the grid has along an axis of ``length`` pixels."""
    return -(-length // grid_size)


def enlarged_grid(length: int, grid_size: int) -> NDArray[np.float32]:
    """Returns the bilinear interpolation along one axis before it is cropped, in whole numbers.

    Whole numbers make a mask exact, whatever the order of its sums: where a pixel lies on the edge of what is kept, no
    rounding decides on which side. (In float32 that holds for inputs of up to about 1,800 x 1,800 pixels.)

    Returns:
        The matrix (pixels, grid_size) float32 that maps the grid to (grid_size + 1) cells; each row has the same sum.
    """
    return whole_enlargement((grid_size + 1) * cell_length(length, grid_size), grid_size).astype(np.float32)


def enlargements(length: int, grid_size: int) -> NDArray[np.float32]:
    """Returns the bilinear interpolation along one axis for every possible offset.

    Returns:
        The matrices, (cell, length, grid_size) float32: entry [offset] is the part of :func:`enlarged_grid` for the
        ``length`` pixels that start at ``offset``.
    """
    weights = enlarged_grid(length, grid_size)
    return np.stack([weights[offset : offset + length] for offset in range(cell_length(length, grid_size))])


def upsample(
    grids: NDArray[np.float32],
    offsets: NDArray[np.int64],
    *along: NDArray[np.float32],
) -> Masks:
    """Enlarges grids (M, g, g) to masks (M, 1, h, w), cropped at offsets (M, 2).

    Args:
        grids: the grids, with as many axes as the masks have.
        offsets: where each mask is cropped along each axis.
        *along: the interpolation along each axis for every start of a crop, see :func:`enlargements`.
    """
    weights = [each[starts] for each, starts in zip(along, offsets.T, strict=True)]
    masks: Masks = multiply_along(grids, weights)
    masks /= np.prod([each[0, 0].sum() for each in along])
    return masks[:, None]
