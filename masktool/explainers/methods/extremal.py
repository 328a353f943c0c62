"""Extremal perturbations: among all smooth masks of a given area, the one under which the class scores highest.

Source: Ruth Fong, Mandela Patrick and Andrea Vedaldi, "Understanding Deep Networks via Extremal Perturbations and
Smooth Masks", ICCV 2019, https://arxiv.org/abs/1910.08485.

    preserve:  f(x m + b (1 - m))          as high as possible (the paper's preservation game)
    delete:    f(x (1 - m) + b m)          as low as possible (its deletion game)
    both:      the first less the second   as high as possible
    each less  lambda mean (sort(m) - r)^2,  r = 0 ... 0 1 ... 1 with a share ``area`` of ones

f is the class's logit. The area's weight lambda starts at 300 and doubles after a third and after two thirds of the
steps; gradient descent has a momentum of .9. The paper makes 800 steps with a learning rate of .01; 190 steps whose
rate falls from .05 to a twentieth of it end at masks as good (docs/methods/extremal.md has the figures), and
``n_iterations=800, learning_rate=0.01, final_rate=1`` are the paper's.

A mask is smooth by construction: a coarse grid of parameters in 0..1 goes through a max-convolution with a Gaussian
kernel, and is enlarged bilinearly. What differs from the paper:

* The smooth maximum of k p over a window is T log mean exp(k p / T), divided by what a grid of ones gives, instead of
  the mean weighted by exp: it never falls when a parameter rises, so the mask reaches 0 and 1 and stays between them.
* The max-convolution is evaluated on the grid, at half the kernel's width, not at each pixel.
* The blur b has one width, of 10 / 224 of the shorter side, instead of one that grows as the mask falls.
* Pixels of the same value as the smallest kept one, but for rounding, share what is left of the area: order decides
  nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from masktool.explainers.hiding import HiddenParts
from masktool.explainers.interpolation import enlargement
from masktool.explainers.learned_mask import Learned, LearnedMask
from masktool.explainers.learning import Floats, Momentum, Step, learn
from masktool.explainers.mask_figures import SURVIVES
from masktool.explainers.method import register
from masktool.explainers.target import SettledTarget
from masktool.option_checks import check_choice, check_real
from masktool.progress import Advance

Aim = Literal["preserve", "delete", "both"]
AIMS: tuple[Aim, ...] = ("preserve", "delete", "both")
UNDECIDED = 0.5
"""Value of every parameter at the start."""
AREA_WEIGHT = 300.0
"""The area's weight lambda at the start."""
STAGES = 3
"""Number of stages: lambda doubles at the beginning of each but the first."""
SHARPNESS = 20.0
"""1 / T of the smooth maximum."""
CELLS_PER_WIDTH = 2
"""Cells of the grid in one kernel width: the kernel falls by 12 % from one to the next."""
REACH = 5
"""Cells to either side beyond which the kernel is left out: it has fallen to .04, and exp(.04 / T) to 2 of 5e8."""
SAME = 1e-6
"""Difference up to which values of a mask count as one: the first masks are symmetric, and single precision leaves
1e-7 between pixels that mirror each other, which must not decide which of them belong to the area."""


@register
@dataclasses.dataclass(frozen=True)
class Extremal(LearnedMask):
    """How much of each pixel the best mask of the given area takes.

    Attributes:
        aim: what the mask is for: to ``preserve`` the class, to ``delete`` it, or ``both``.
        area: the share of the input that the mask keeps; with ``delete``, the share that it takes away.
        smoothness: the width of the kernel as a share of the input's shorter side.
    """

    name: ClassVar[str] = "extremal"
    title: ClassVar[str] = "Extremal perturbation"
    meaning: ClassVar[str] = "share in the mask that decides the {score}"

    baseline: str = "blur"
    n_iterations: int = 190
    learning_rate: float = 0.05
    aim: Aim = "preserve"
    area: float = 0.1
    smoothness: float = 0.09

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("aim", self.aim, AIMS)
        check_real("area", self.area, above=0, below=1)
        check_real("smoothness", self.smoothness, above=0, below=1)

    @property
    def passes_per_step(self) -> int:
        """One for what is kept or for what is taken away, two for both."""
        return 2 if self.aim == "both" else 1

    def learn(self, hidden: HiddenParts, seeds: Sequence[int], advance: Advance) -> Learned:
        """Learns the grids of all images and returns the masks that they make."""
        family = SmoothMasks(hidden.size, self.smoothness)
        start = np.full((len(seeds), *family.grid), UNDECIDED, np.float32)
        last_stage = (STAGES - 1) * self.n_iterations // STAGES

        def objective(grids: Floats, positions: NDArray[np.intp], step: int) -> Step:
            smooth = family.smooth(grids)
            reward = self.reward(hidden, smooth.masks, positions)
            area = area_terms(smooth.masks, self.area)
            weight = AREA_WEIGHT * 2 ** (step * STAGES // self.n_iterations)
            slope = weight * area.gradients - reward.gradients
            return Step(weight * area.losses - reward.losses, family.pull_back(slope, smooth))

        course = learn(
            start,
            objective,
            Momentum(start.shape, self.learning_rate),
            n_iterations=self.n_iterations,
            tolerance=self.tolerance,
            advance=advance,
            settles_from=last_stage,
            bounds=(0, 1),
            final_rate=self.final_rate,
        )
        chosen = family.smooth(course.parameters).masks
        return Learned(1 - chosen if self.aim == "delete" else chosen, chosen[:, 0].astype(np.float64), course)

    def reward(self, hidden: HiddenParts, masks: Floats, positions: NDArray[np.intp]) -> Step:
        """Returns the scores to maximise (n,), without the area term, and their gradients with respect to the masks."""
        losses, gradients = np.zeros(len(masks), np.float32), np.zeros_like(masks)
        if self.aim != "delete":
            kept = hidden.differentiate(masks, positions, "logit")
            losses, gradients = losses + kept.objective, gradients + kept.gradient
        if self.aim != "preserve":  # the gradient with respect to m of -f(1 - m) is +f'(1 - m)
            rest = hidden.differentiate(1 - masks, positions, "logit")
            losses, gradients = losses - rest.objective, gradients + rest.gradient
        return Step(losses, gradients)

    def settings(self, size: tuple[int, int]) -> dict[str, Any]:  # noqa: ARG002  # the same at every size
        """Returns the options as JSON values."""
        return dataclasses.asdict(self)

    def warn(self, figure: dict[str, float], target: SettledTarget) -> tuple[str, ...]:
        """Returns a note where the mask misses its aim: the class survives its deletion, or is not preserved."""
        if self.aim == "delete":
            return (SURVIVES,) if figure.get("kept_cut", False) else ()
        return super().warn(figure, target)


class Smooth(NamedTuple):
    """Masks (n, 1, h, w), and the weights (n, gh, gw, k, k) of each parameter in the smooth maxima around it."""

    masks: Floats
    weights: Floats


class SmoothMasks:
    """The family of smooth masks over an input, and the gradients of its parameters.

    Attributes:
        grid: (rows, columns) of the grid of parameters.
    """

    def __init__(self, size: tuple[int, int], smoothness: float, dtype: type[np.floating[Any]] = np.float32) -> None:
        cell = max(smoothness * min(size) / CELLS_PER_WIDTH, 1)
        self.grid: tuple[int, int] = (max(round(size[0] / cell), 1), max(round(size[1] / cell), 1))
        offsets = np.arange(-REACH, REACH + 1) / CELLS_PER_WIDTH
        self.kernel: Floats = np.exp(-(offsets[:, None] ** 2 + offsets**2) / 2).astype(dtype)
        self.rows, self.columns = (
            enlargement(length, cells).astype(dtype) for length, cells in zip(size, self.grid, strict=True)
        )
        ones = np.ones((1, *self.grid), dtype)
        self.of_ones: Floats = self.log_means(ones)[0]

    def log_means(self, grids: Floats) -> tuple[Floats, Floats]:
        """Returns log mean exp(k p / T) over each parameter's window (n, gh, gw), and its derivatives by k p."""
        padded = np.pad(grids, ((0, 0), (REACH, REACH), (REACH, REACH)))
        windows = sliding_window_view(padded, self.kernel.shape, axis=(1, 2))
        exponentials = np.exp(windows * (self.kernel * SHARPNESS))
        sums = exponentials.sum(axis=(3, 4))
        derivatives = exponentials * (SHARPNESS / sums)[..., None, None]
        return np.log(sums / self.kernel.size), derivatives

    def smooth(self, grids: Floats) -> Smooth:
        """Returns the masks made by parameters (n, gh, gw) in 0..1."""
        values, derivatives = self.log_means(grids)
        shares = values / self.of_ones
        masks = self.rows @ shares @ self.columns.T
        weights = derivatives * (self.kernel / self.of_ones[..., None, None])
        return Smooth(np.clip(masks, 0, 1)[:, None], weights)

    def pull_back(self, gradients: Floats, smooth: Smooth) -> Floats:
        """Returns gradients with respect to the parameters from those with respect to the masks (n, 1, h, w)."""
        shares = self.rows.T @ gradients[:, 0] @ self.columns
        parts = smooth.weights * shares[..., None, None]
        height, width = self.grid
        padded = np.zeros((len(gradients), height + 2 * REACH, width + 2 * REACH), parts.dtype)
        for row in range(2 * REACH + 1):
            for column in range(2 * REACH + 1):
                padded[:, row : row + height, column : column + width] += parts[..., row, column]
        return padded[:, REACH : REACH + height, REACH : REACH + width]


def area_terms(masks: Floats, area: float) -> Step:
    """Returns mean (sort(m) - r)^2 of masks (n, 1, h, w), and its gradients with respect to the masks.

    r belongs to each pixel by its rank: 1 for the share ``area`` of the highest values, else 0, and in between for
    those that are equal where the two meet, but for rounding.
    """
    flat = masks.reshape(len(masks), -1)
    pixels = flat.shape[1]
    kept = pixels_in_area(area, pixels)
    edge = np.partition(flat, pixels - kept, axis=1)[:, pixels - kept, None]
    above, at_edge = flat > edge + SAME, abs(flat - edge) <= SAME
    left = (kept - above.sum(axis=1, keepdims=True)) / at_edge.sum(axis=1, keepdims=True)
    wanted = (above + at_edge * left).astype(flat.dtype)
    losses = (wanted * np.square(1 - flat) + (1 - wanted) * np.square(flat)).mean(axis=1)
    return Step(losses, (2 / pixels * (flat - wanted)).reshape(masks.shape))


def pixels_in_area(area: float, pixels: int) -> int:
    """Returns the number of pixels that a share of them is, 1 at least."""
    return min(max(round(area * pixels), 1), pixels)
