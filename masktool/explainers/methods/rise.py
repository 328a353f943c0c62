"""RISE: average many random masks, each weighted by the score that the model keeps under it.

Source: Vitali Petsiuk, Abir Das and Kate Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018, equation 6, https://arxiv.org/abs/1806.07421.

    a(x) = 1 / (n p) * sum over i of  f(M_i) M_i(x)

Each mask is a 7 x 7 grid of cells that are kept with probability p, enlarged bilinearly to one cell more than the
input and cropped at a random offset (section 3.2). The sum is divided by its expectation n p, as published, and not by
the sum of the masks: the map estimates E[f(M) | x kept], so only differences within it mean anything. The
interpolation repeats the outermost cells.

The standard error of each pixel comes from running sums of f M and (f M)^2; ``quality`` reports its root mean square
over the pixels beside the map's range. Four times the masks halve it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.method import Attribution, Masks, Method, Task, check_count, check_real, register


@register
@dataclasses.dataclass(frozen=True)
class Rise(Method):
    """Mean score over the random masks that keep a pixel.

    Attributes:
        n_masks: number of masks; the paper uses 4000 for VGG-16 and 8000 for ResNet-50.
        p: probability that a cell of the grid is kept.
        grid_size: cells per side.
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"
    meaning: ClassVar[str] = "mean {score} while kept"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = "n_masks"

    n_masks: int = 4000
    p: float = 0.5
    grid_size: int = 7

    def __post_init__(self) -> None:
        check_count("n_masks", self.n_masks, minimum=2)  # one mask has no standard error
        check_real("p", self.p, above=0, below=1)
        check_count("grid_size", self.grid_size)

    def attribute(self, task: Task) -> Attribution:
        """Accumulates f M and (f M)^2 batch by batch, so that no more than a batch of masks exists at a time."""
        pixels = task.size[0] * task.size[1]
        sums = np.zeros((2, len(task.base), pixels))
        for masks, scores in task.evaluate(self.masks(task), self.n_masks):
            flat = masks.reshape(len(masks), pixels)
            weights = scores.astype(np.float32).T
            sums[0] += weights @ flat
            sums[1] += np.square(weights) @ np.square(flat)
        mean, mean_square = sums / self.n_masks
        variance = np.maximum(mean_square - np.square(mean), 0) / (self.n_masks - 1)
        attributions = (mean / self.p).reshape(-1, *task.size)
        errors = np.sqrt(variance.mean(axis=1)) / self.p
        return Attribution(
            attributions,
            settings=dataclasses.asdict(self),
            quality=tuple(
                {"attributions_error": float(error), "attributions_range": float(np.ptp(each))}
                for error, each in zip(errors, attributions, strict=True)
            ),
        )

    def masks(self, task: Task) -> Iterator[Masks]:
        """Yields the masks of one forward pass at a time; which masks these are does not depend on the batch."""
        cells_random, offsets_random = np.random.default_rng(task.seed).spawn(2)
        rows, columns = (enlargement(length, self.grid_size) for length in task.size)
        for piece in task.batch_ranges(self.n_masks):
            kept = cells_random.random((len(piece), self.grid_size, self.grid_size)) < self.p
            offsets = offsets_random.random((len(piece), 2))
            yield upsample(kept.astype(np.float32), offsets, rows, columns)


def enlargement(length: int, grid_size: int) -> NDArray[np.float32]:
    """Returns the bilinear interpolation along one axis for every possible offset.

    Returns:
        (cell, length, grid_size) float32, cell = ceil(length / grid_size): entry [offset] maps the grid, enlarged to
        (grid_size + 1) cells, to the ``length`` pixels that start at ``offset``. Rows sum to 1.
    """
    cell = -(-length // grid_size)
    enlarged = (grid_size + 1) * cell
    positions = np.clip((np.arange(enlarged) + 0.5) * grid_size / enlarged - 0.5, 0, grid_size - 1)
    weights = np.maximum(1 - np.abs(positions[:, None] - np.arange(grid_size)), 0).astype(np.float32)
    return np.stack([weights[offset : offset + length] for offset in range(cell)])


def upsample(
    grids: NDArray[np.float32],
    offsets: NDArray[np.float64],
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
) -> Masks:
    """Enlarges grids (M, g, g) to masks (M, 1, h, w); offsets (M, 2) are shares in [0, 1) of the possible ones."""
    row_weights = rows[(offsets[:, 0] * len(rows)).astype(int)]
    column_weights = columns[(offsets[:, 1] * len(columns)).astype(int)]
    masks: Masks = row_weights @ grids @ column_weights.transpose(0, 2, 1)
    return np.clip(masks, 0, 1)[:, None]
