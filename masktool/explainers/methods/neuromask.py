"""NeuroMask: learn the smallest smooth mask under which the network still recognises the class.

Source: Moustafa Alzantot, Amy Widdicombe, Simon Julier and Mani Srivastava, "NeuroMask: Explaining Predictions of Deep
Neural Networks through Mask Learning", SMARTCOMP 2019, https://arxiv.org/abs/1908.04389.

    m = sigmoid(w / T),  x~ = x m + b (1 - m)
    loss = lambda_p cross-entropy(f(x~), class) + lambda_s mean |w + W| + lambda_sp mean (K * w)^2

w is one map in the input's resolution, drawn uniformly from 256 values in -W..W, W = 10; K is a Laplacian whose centre
balances its ones, 3 x 3 or 5 x 5, without padding. RMSProp with r = .03, a decay of .9, epsilon = 1e-10 and mean
squares that start at 1 makes 2,000 steps, or fewer when the loss has settled. The settings ``imagenet`` and ``cifar``
are published.

K without padding is centred on no pixel of the outermost one or two rows and columns, and so leaves them rough: single
pixels there often end as the mask's highest. The finished mask repeats its inside there.

The published baseline b is black. An object on black is nothing that the network was trained on, and a mask can please
it without showing where the object is; the data set's mean, the default here, localises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.hiding import HiddenParts
from masktool.explainers.learned_mask import Learned, LearnedMask
from masktool.explainers.learning import Floats, RmsProp, Step, learn
from masktool.explainers.method import register
from masktool.option_checks import check_choice, check_real
from masktool.progress import Advance
from masktool.runtime.scores import sigmoid

RANGE = 10.0
"""W: the map starts within -W..W, and is drawn towards -W, where it hides."""
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
        setting: the published setting: ``imagenet`` or ``cifar``; None chooses it by the input's size.
        lambda_p: the weight of the cross-entropy; None takes the setting's.
        lambda_s: the weight of the mask's size; None takes the setting's.
        lambda_sp: the weight of the mask's roughness; None takes the setting's.
        temperature: the temperature T of the sigmoid; None takes the setting's.
    """

    name: ClassVar[str] = "neuromask"
    title: ClassVar[str] = "NeuroMask"
    meaning: ClassVar[str] = "share kept to preserve the {score}"

    setting: SettingName | None = None
    lambda_p: float | None = None
    lambda_s: float | None = None
    lambda_sp: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("setting", self.setting, (None, *SETTINGS))
        for name in ("lambda_p", "lambda_s", "lambda_sp", "temperature"):
            if (value := getattr(self, name)) is not None:
                check_real(name, value, above=0)

    def learn(self, hidden: HiddenParts, seeds: Sequence[int], advance: Advance) -> Learned:
        """Learns the maps w of all images and returns the masks that they make."""
        chosen = self.choose(hidden.size)
        start = np.stack([draw_start(seed, hidden.size) for seed in seeds])
        course = learn(
            start,
            lambda maps, positions, _: evaluate_maps(maps, hidden, positions, chosen),
            RmsProp(start.shape, self.learning_rate),
            n_iterations=self.n_iterations,
            tolerance=self.tolerance,
            advance=advance,
        )
        masks = extend_inside(sigmoid(course.parameters / chosen.temperature), chosen.kernel_size // 2)
        return Learned(masks, masks[:, 0].astype(np.float64), course)

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
