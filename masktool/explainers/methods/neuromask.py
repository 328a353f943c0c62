"""NeuroMask: learn the smallest smooth mask under which the network still recognises the class.

Source: Moustafa Alzantot, Amy Widdicombe, Simon Julier and Mani Srivastava, "NeuroMask: Explaining Predictions of Deep
Neural Networks through Mask Learning", SMARTCOMP 2019, https://arxiv.org/abs/1908.04389.

    m = sigmoid(w / T),  x~ = x m + b (1 - m)
    loss = lambda_p cross-entropy(f(x~), class) + lambda_s mean |w + W| + lambda_sp mean (K * w)^2

w is one map in the input's resolution; W = 10; K is a Laplacian whose centre balances its ones, 3 x 3 or 5 x 5, without
padding. RMSProp has a decay of .9 and epsilon = 1e-10. The settings ``imagenet`` and ``cifar`` are published.

What is published besides has a number for each pixel, drawn uniformly from 256 values in -W..W, mean squares that start
at 1, and 2,000 steps with r = .03. Most of these steps smooth the noise that they start from, and what is left hides in
single pixels: cut at .5, such masks lose the class. So the map is interpolated bilinearly from a grid by default, whose
values start at 0, and 180 steps with a rate that falls from .5 do. The published way is
``grid_size=None, n_iterations=2000, learning_rate=0.03, final_rate=1``.

K without padding is centred on no pixel of the outermost one or two rows and columns, and so leaves them rough: single
pixels there often end as the mask's highest. The finished mask repeats its inside there.

The published baseline b is black. An object on black is nothing that the network was trained on, and a mask can please
it without showing where the object is; the data set's mean, the default here, localises.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.hiding import HiddenParts
from masktool.explainers.interpolation import enlargement
from masktool.explainers.learned_mask import Learned, LearnedMask
from masktool.explainers.learning import Floats, RmsProp, Step, learn
from masktool.explainers.method import register
from masktool.option_checks import check_choice, check_count, check_real
from masktool.progress import Advance
from masktool.runtime.scores import sigmoid

RANGE = 10.0
"""W: the map of single pixels starts within -W..W, and every map is drawn towards -W, where it hides."""
HALF = 0.0
"""Value from which a grid starts: the mask keeps half of everything, where the sigmoid is steepest."""
LEVELS = 256
"""Number of values that the map starts from, the middles of as many equal parts of -W..W: so a file that draws the mask
by itself holds a start in one byte per pixel. Each value and each step of its computation is exact in float32."""
LEVEL_STEP = np.float32(2 * RANGE / LEVELS)
LOWEST_LEVEL = np.float32(RANGE / LEVELS - RANGE)
SMALL_SIDE = 64
"""Input sides up to here take the setting ``cifar`` unless one is named; CIFAR's pictures have 32 x 32 pixels."""


SettingName = Literal["imagenet", "cifar"]


class Setting(NamedTuple):
    """Published weights of the loss, temperature T, and side of the Laplacian K."""

    lambda_p: float
    lambda_s: float
    lambda_sp: float
    temperature: float
    kernel_size: int


SETTINGS: dict[SettingName, Setting] = {
    "imagenet": Setting(lambda_p=0.4, lambda_s=0.35, lambda_sp=0.03, temperature=0.3, kernel_size=5),
    "cifar": Setting(lambda_p=0.4, lambda_s=0.35, lambda_sp=0.15, temperature=1.0, kernel_size=3),
}


@register
@dataclasses.dataclass(frozen=True)
class NeuroMask(LearnedMask):
    """How much of each pixel a small smooth mask keeps that preserves the class.

    Attributes:
        grid_size: the number of cells per side of the grid that the map is interpolated from, where the input has more
            pixels; None learns a value for each pixel.
        setting: the published setting: ``imagenet`` or ``cifar``; None chooses it by the input's size.
        lambda_p: the weight of the cross-entropy; None takes the setting's.
        lambda_s: the weight of the mask's size; None takes the setting's.
        lambda_sp: the weight of the mask's roughness; None takes the setting's.
        temperature: the temperature T of the sigmoid; None takes the setting's.
    """

    name: ClassVar[str] = "neuromask"
    title: ClassVar[str] = "NeuroMask"
    meaning: ClassVar[str] = "share kept to preserve the {score}"

    grid_size: int | None = 28
    setting: SettingName | None = None
    lambda_p: float | None = None
    lambda_s: float | None = None
    lambda_sp: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid_size is not None:
            check_count("grid_size", self.grid_size)
        check_choice("setting", self.setting, (None, *SETTINGS))
        for name in ("lambda_p", "lambda_s", "lambda_sp", "temperature"):
            if (value := getattr(self, name)) is not None:
                check_real(name, value, above=0)

    def learn(self, hidden: HiddenParts, seeds: Sequence[int], advance: Advance) -> Learned:
        """Learns the maps w of all images and returns the masks that they make."""
        chosen, family = self.choose(hidden.size), self.family(hidden.size)
        start = np.stack([family.start(seed) for seed in seeds])

        def objective(parameters: Floats, positions: NDArray[np.intp], _: int) -> Step:
            found = evaluate_maps(family.enlarge(parameters), hidden, positions, chosen)
            return Step(found.losses, family.pull_back(found.gradients))

        course = learn(
            start,
            objective,
            RmsProp(start.shape, self.learning_rate, first_square=family.first_square),
            n_iterations=self.n_iterations,
            tolerance=self.tolerance,
            advance=advance,
            final_rate=self.final_rate,
        )
        maps = family.enlarge(course.parameters)
        masks = extend_inside(sigmoid(maps / chosen.temperature), chosen.kernel_size // 2)
        return Learned(masks, masks[:, 0].astype(np.float64), course)

    def family(self, size: tuple[int, int]) -> PixelMaps | GridMaps:
        """Returns the maps w that an input of (height, width) may have."""
        return PixelMaps(size) if self.grid_size is None else GridMaps(size, self.grid_size)

    def choose_name(self, size: tuple[int, int]) -> SettingName:
        """Returns the name of the setting for an input of (height, width)."""
        return self.setting or ("cifar" if max(size) <= SMALL_SIDE else "imagenet")

    def choose(self, size: tuple[int, int]) -> Setting:
        """Returns the setting for an input of (height, width), with the values that the options replace."""
        setting = SETTINGS[self.choose_name(size)]
        own = {name: getattr(self, name) for name in ("lambda_p", "lambda_s", "lambda_sp", "temperature")}
        return setting._replace(**{name: value for name, value in own.items() if value is not None})

    def settings(self, size: tuple[int, int]) -> dict[str, Any]:
        """Returns the options as JSON values, with the setting's values where an option is None."""
        return dataclasses.asdict(self) | self.choose(size)._asdict() | {"setting": self.choose_name(size)}


@dataclasses.dataclass(frozen=True)
class PixelMaps:
    """Maps w with a value of its own for each pixel of an input of (height, width), as published."""

    size: tuple[int, int]
    first_square: ClassVar[float] = 1

    def start(self, seed: int) -> NDArray[np.float32]:
        """Draws the map to start from, (1, h, w)."""
        return draw_start(seed, self.size)

    def enlarge(self, parameters: Floats) -> Floats:
        """Returns the maps of parameters (n, 1, h, w), which are maps themselves."""
        return parameters

    def pull_back(self, gradients: Floats) -> Floats:
        """Returns gradients with respect to the parameters from those with respect to the maps."""
        return gradients


@dataclasses.dataclass(frozen=True)
class GridMaps:
    """Maps w that are interpolated bilinearly from a grid.

    Attributes:
        size: (height, width) of the maps in pixels.
        grid_size: the number of cells per side of the grid; no more are made than there are pixels.
    """

    size: tuple[int, int]
    grid_size: int
    first_square: ClassVar[float] = 1e-4
    """The square of .01, some twenty times the slope that draws one cell of 28 x 28 towards -W: from 0, the first steps
    would go by the sign of the least slope."""

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, columns) of the grid."""
        return min(self.grid_size, self.size[0]), min(self.grid_size, self.size[1])

    @functools.cached_property
    def matrices(self) -> tuple[Floats, Floats]:
        """The interpolation along either axis: (h, rows) and (w, columns) float32."""
        rows, columns = (
            enlargement(length, cells).astype(np.float32) for length, cells in zip(self.size, self.cells, strict=True)
        )
        return rows, columns

    def start(self, seed: int) -> NDArray[np.float32]:  # noqa: ARG002  # a grid starts from one number
        """Returns the grid to start from, (1, rows, columns)."""
        return np.full((1, *self.cells), HALF, np.float32)

    def enlarge(self, parameters: Floats) -> Floats:
        """Returns the maps (n, 1, h, w) of grids (n, 1, rows, columns)."""
        rows, columns = self.matrices
        return rows @ parameters @ columns.T

    def pull_back(self, gradients: Floats) -> Floats:
        """Returns gradients with respect to the grids from those with respect to the maps."""
        rows, columns = self.matrices
        return rows.T @ gradients @ columns


def extend_inside(masks: Floats, margin: int) -> Floats:
    """Returns masks (n, 1, h, w) whose outermost ``margin`` rows and columns repeat their neighbours further in."""
    inside = masks[..., margin:-margin, margin:-margin]
    return np.pad(inside, ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode="edge")


def draw_start(seed: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Draws the map w to start from: (1, h, w), uniform in -W..W."""
    return draw_levels(seed, size) * LEVEL_STEP + LOWEST_LEVEL


def draw_levels(seed: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draws the levels of the map w to start from: (1, h, w), uniform in 0..255."""
    return np.random.default_rng(seed).integers(0, LEVELS, (1, *size), dtype=np.uint8)


def evaluate_maps(maps: Floats, hidden: HiddenParts, positions: NDArray[np.intp], setting: Setting) -> Step:
    """Returns the whole loss of maps w (n, 1, h, w) of the images at ``positions``, and its gradients."""
    masks = sigmoid(maps / setting.temperature)
    answer = hidden.differentiate(masks, positions, "log-softmax")
    terms = map_terms(maps, setting)
    slope = masks * (1 - masks) / setting.temperature
    return Step(
        terms.losses - setting.lambda_p * answer.objective,
        terms.gradients - setting.lambda_p * answer.gradient * slope,
    )


def map_terms(maps: Floats, setting: Setting) -> Step:
    """Returns the part of the loss that needs no network: lambda_s mean |w + W| + lambda_sp mean (K * w)^2.

    Args:
        maps: the maps w, (n, 1, h, w).
        setting: the weights of the loss, and the side of K.

    Returns:
        The losses (n,), and their gradients with respect to the maps.
    """
    residuals = laplacian(maps, setting.kernel_size)
    axes = (1, 2, 3)
    losses = setting.lambda_s * np.abs(maps + RANGE).mean(axes) + setting.lambda_sp * np.square(residuals).mean(axes)
    gradients = np.sign(maps + RANGE) * (setting.lambda_s / maps[0].size)
    weight = 2 * setting.lambda_sp / residuals[0].size
    return Step(losses, gradients + weight * laplacian_adjoint(residuals, setting.kernel_size))


def laplacian(maps: Floats, kernel_size: int) -> Floats:
    """Returns K * w: every value times k^2 less the sum of the k x k values around and including that value.

    Args:
        maps: the maps w, (n, 1, h, w).
        kernel_size: the side k of K, odd.

    Returns:
        K * w, (n, 1, h - k + 1, w - k + 1).
    """
    margin = kernel_size // 2
    return kernel_size**2 * maps[..., margin:-margin, margin:-margin] - box_sum(maps, kernel_size)


def laplacian_adjoint(residuals: Floats, kernel_size: int) -> Floats:
    """Returns a, (n, 1, h, w), with <K * w, r> = <w, a> for all w, of residuals r (n, 1, h - k + 1, w - k + 1)."""
    inner, margin = kernel_size // 2, kernel_size - 1
    untouched = ((0, 0), (0, 0))
    centred = np.pad(residuals, (*untouched, (inner, inner), (inner, inner)))
    return kernel_size**2 * centred - box_sum(
        np.pad(residuals, (*untouched, (margin, margin), (margin, margin))), kernel_size
    )


def box_sum(maps: Floats, side: int) -> Floats:
    """Returns the sums over all windows of side x side that lie within the maps (n, 1, h, w)."""
    height, width = maps.shape[2] - side + 1, maps.shape[3] - side + 1
    rows = sum(maps[:, :, offset : offset + height] for offset in range(1, side)) + maps[:, :, :height]
    total: Floats = sum(rows[..., offset : offset + width] for offset in range(1, side)) + rows[..., :width]
    return total
