"""RISE: average many random masks, each weighted by the score that the model keeps under it.

Source: Vitali Petsiuk, Abir Das and Kate Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018, equation 6, https://arxiv.org/abs/1806.07421.

    a(x) = 1 / (n p) * sum over i of  f(M_i) M_i(x)

Each mask is a 7 x 7 grid of cells that are kept with probability p, enlarged bilinearly to one cell more than the
input and cropped at a random offset (section 3.2). The interpolation repeats the outermost cells. Two things differ
from the paper unless asked for:

* ``binary``: behind layer and partial masking the masks are cut at .5. There a soft value weighs in means and fills but
  hides nothing, so that soft masks would leave nearly everything visible.
* ``normalisation``: the sum is divided by the sum of the masks (``kept``), not by its expectation n p (``expected``,
  the paper's). Both tend to E[f(M) | x kept]; ours leaves out the noise of how often a pixel happened to be kept.

The standard error of each pixel comes from running sums; ``quality`` reports its root mean square over the pixels
beside the map's range. Four times the masks halve it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Masking
from masktool.explainers.interpolation import whole_enlargement
from masktool.explainers.mask_design import MaskDesign, Masks, MaskSums, Rows
from masktool.explainers.mask_figures import cut_masks
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.stopping import SampleRun
from masktool.explainers.task import Task
from masktool.option_checks import check_choice, check_count, check_real

AXES = ("rows", "columns")
"""Names of the interpolation along either axis of a mask."""


@register
@dataclasses.dataclass(frozen=True)
class Rise(Method):
    """Mean score over the random masks that keep a pixel.

    Attributes:
        n_masks: the number of masks; None draws until the map is stable. The paper uses 4000 for VGG-16 and 8000 for
            ResNet-50.
        p: the probability that a cell of the grid is kept.
        grid_size: the number of cells per side of the grid.
        binary: whether the masks are cut at .5; None cuts them where the model's masking ignores the scale of a soft
            mask.
        normalisation: the divisor of the sum: ``kept``, the sum of the masks, or, as published, ``expected``.
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"
    meaning: ClassVar[str] = "mean {score} while kept"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = "n_masks"
    most_samples: ClassVar[int] = 4000

    n_masks: int | None = None
    p: float = 0.5
    grid_size: int = 7
    binary: bool | None = None
    normalisation: Literal["kept", "expected"] = "kept"

    def __post_init__(self) -> None:
        if self.n_masks is not None:
            check_count("n_masks", self.n_masks, minimum=2)  # one mask has no standard error
        check_real("p", self.p, above=0, below=1)
        check_count("grid_size", self.grid_size)
        check_choice("binary", self.binary, (None, True, False))
        check_choice("normalisation", self.normalisation, ("kept", "expected"))

    def attribute(self, task: Task) -> Attribution:
        """Scores random masks batch by batch, holding no more than one batch, and returns the weighted means."""
        run = SampleRun(task.stopping, self.n_masks, self.most_samples)
        pieces = run.pieces(task.perturbations_per_eval)
        design, sums = self.design(task), MaskSums.nothing(len(task.targets), task.size[0] * task.size[1])
        for masks, scores in task.evaluate(self.rows(task, pieces), run.most, design):
            sums = sums.add(masks.add_up(scores.astype(np.float32).T, binary=design.cut))
            if run.pauses:
                maps, variances = self.weigh(sums, run.drawn)
                run.judge(maps, variances)
        return Attribution(
            maps.reshape(-1, *task.size),
            settings=dataclasses.asdict(self) | {"n_masks": run.drawn, "binary": self.cuts_masks(task.masking)},
            quality=run.quality(),
            notes=run.notes(),
        )

    def weigh(self, sums: MaskSums, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the map of each target, (T, pixels), and the squared standard errors of its values."""
        if self.normalisation == "kept":
            divisor = np.where(sums.masks > 0, sums.masks, 1)
            maps = sums.scored / divisor
            variances = sums.squared - 2 * maps * sums.scored_squares + np.square(maps) * sums.squares
            return maps, variances / np.square(divisor)
        mean = sums.scored / count
        return mean / self.p, (sums.squared / count - np.square(mean)) / (count - 1) / self.p**2

    def cuts_masks(self, masking: Masking) -> bool:
        """Returns whether the masks are cut at .5 behind a masking mode."""
        return masking != "fill" if self.binary is None else self.binary

    def design(self, task: Task) -> EnlargedGrids:
        """Returns how grids become the masks of a task."""
        return EnlargedGrids(task.size, self.grid_size, cut=self.cuts_masks(task.masking))

    def rows(self, task: Task, pieces: Iterable[range]) -> Iterator[Rows]:
        """Yields the rows of the masks, in pieces that follow each other; they do not depend on the pieces."""
        for kept, offsets in self.grids(task.size, task.seed, pieces):
            top, left = offsets.T.astype(np.int32)
            yield {"kept": kept.astype(np.float32), "top": top, "left": left}

    def grids(self, size: tuple[int, int], seed: int, pieces: Iterable[range]) -> Iterator[Grids]:
        """Yields the grids of the masks for an input of (height, width), in pieces that follow each other."""
        cells_random, offsets_random = np.random.default_rng(seed).spawn(2)
        cells = [cell_length(length, self.grid_size) for length in size]
        for piece in pieces:
            kept = cells_random.random((len(piece), self.grid_size, self.grid_size)) < self.p
            yield Grids(kept, (offsets_random.random((len(piece), 2)) * cells).astype(np.int64))


@dataclasses.dataclass(frozen=True)
class EnlargedGrids(MaskDesign):
    """Masks that are grids, enlarged and cropped.

    A row is which cells are kept, ``kept`` (M, g, g) float32, and where the crop starts, ``top`` and ``left`` (M,)
    int32 in pixels.

    Attributes:
        size: (height, width) of the masks in pixels.
        grid_size: the number of cells per side of the grid.
        cut: whether the masks are cut at .5; p = .5 then keeps as many pixels as cells.
    """

    size: tuple[int, int]
    grid_size: int
    cut: bool

    @functools.cached_property
    def shared(self) -> Rows:
        """The interpolation along either axis for every start of a crop, see :func:`enlargements`."""
        return {name: enlargements(length, self.grid_size) for name, length in zip(AXES, self.size, strict=True)}

    @property
    def whole(self) -> float:
        """The value of a pixel whose cells are all kept, before it is scaled to 1."""
        return float(np.prod([enlarged_grid(length, self.grid_size)[0].sum() for length in self.size]))

    def expand(self, rows: Rows) -> Masks:
        """Returns the masks of a batch of grids."""
        soft = upsample(rows["kept"], np.stack([rows["top"], rows["left"]], axis=1), *self.shared.values())
        return cut_masks(soft) if self.cut else soft


class Grids(NamedTuple):
    """The random choices behind m masks: the cells that are kept (m, g, g) bool, and the offsets (m, 2) in pixels."""

    kept: NDArray[np.bool_]
    offsets: NDArray[np.int64]


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
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
) -> Masks:
    """Enlarges grids (M, g, g) to masks (M, 1, h, w), cropped at offsets (M, 2)."""
    row_weights, column_weights = rows[offsets[:, 0]], columns[offsets[:, 1]]
    masks: Masks = np.matmul(row_weights @ grids, column_weights.transpose(0, 2, 1))
    masks /= rows[0, 0].sum() * columns[0, 0].sum()
    return masks[:, None]
