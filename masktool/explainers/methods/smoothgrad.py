"""SmoothGrad: the mean of the gradients of many noisy copies of the image.

Source: Daniel Smilkov, Nikhil Thorat, Been Kim, Fernanda Viegas and Martin Wattenberg, "SmoothGrad: removing noise by
adding noise", 2017, section 3, https://arxiv.org/abs/1706.03825.

    a(x) = max over the channels c of  |1/n sum over i of  d f_y / d x_c (x + e_i)|,    e_i ~ N(0, sigma^2)

sigma is a share of the range of the model's normalised input, max x - min x; the paper finds 10 to 20 % best, with 50
samples. The noise is :class:`masktool.explainers.gaussian_noise.GaussianNoise`, which files that explain themselves
compute too. ``quality`` reports the root mean square over the pixels of the mean's standard error, in the channel that
is shown, beside the map's range: four times the samples halve it.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.gaussian_noise import GaussianNoise
from masktool.explainers.gradient_method import ClassMap, GradientMethod, channels_first
from masktool.explainers.method import register
from masktool.explainers.stopping import SampleRun
from masktool.explainers.task import Differentiable, Task
from masktool.option_checks import check_count, check_real

FEWEST = 2
"""Samples: one has no standard error."""
MOST_WITHIN = 100
"""Samples that a budget buys at most: the paper finds little gain beyond 50."""


@register
@dataclasses.dataclass(frozen=True)
class SmoothGrad(GradientMethod):
    """Largest magnitude among the channels of the mean gradient of noisy images.

    Attributes:
        n_samples: the number of noisy images.
        noise_level: the standard deviation of the noise, as a share of the range of the model's input.
    """

    name: ClassVar[str] = "smoothgrad"
    title: ClassVar[str] = "SmoothGrad"
    meaning: ClassVar[str] = "mean change in {logit} per unit of input, largest channel"
    signed: ClassVar[bool] = False
    capped: ClassVar[bool] = True
    any_rank: ClassVar[bool] = True
    samples_option: ClassVar[str | None] = "n_samples"

    n_samples: int = 50
    noise_level: float = 0.15

    def __post_init__(self) -> None:
        check_count("n_samples", self.n_samples, minimum=FEWEST)
        check_real("noise_level", self.noise_level, above=0)

    def within(self, budget: int, task: Task) -> Self:
        """Returns the method with as many samples as fit, up to those beyond which maps hardly change."""
        most = MOST_WITHIN if self.leaves_open("n_samples") else self.n_samples
        return dataclasses.replace(self, n_samples=min(most, max(FEWEST, self.steps_within(budget, task))))

    @property
    def passes_per_class(self) -> int:
        """The fewest samples."""
        return FEWEST

    def attribute_class(self, task: Task, model: Differentiable, position: int) -> ClassMap:
        """Returns the map of one target, from gradients and their squares summed batch by batch."""
        image = task.prepared.array
        sums, squares = np.zeros((2, *channels_first(image, model).shape[1:]))
        noise = GaussianNoise(task.seed, image[0].size)  # the same for every class
        deviation = noise_deviation(image, self.noise_level)
        stopping = task.stopping.share(len(task.targets), task.gradient_passes)
        run = SampleRun(stopping, self.n_samples, self.n_samples)
        with model.counting(run.most) as advance:
            for piece in run.pieces(task.perturbations_per_eval):
                drawn = noise.copies(piece.start, len(piece)).reshape(-1, *image.shape[1:])
                found = model.gradient(image + drawn * deviation, task.targets[position])
                assert found.image is not None
                gradients = channels_first(found.image, model)
                sums += gradients.sum(axis=0, dtype=np.float64)
                squares += np.square(gradients).sum(axis=0, dtype=np.float64)
                advance(len(piece))
                if run.pauses:
                    attributions, variances = show_largest(sums / run.drawn, squares / run.drawn, run.drawn)
                    run.judge(attributions[None], variances[None])
        ((quality,), (notes,)) = run.quality(), run.notes()
        return ClassMap(attributions, quality, notes)


def show_largest(
    mean: NDArray[np.float64], squares: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the largest magnitude among the channels of mean gradients (C, h, w), and its squared standard error."""
    shown = np.abs(mean).argmax(axis=0, keepdims=True)
    variances = (squares - np.square(mean)) / (count - 1)
    return np.take_along_axis(np.abs(mean), shown, axis=0)[0], np.take_along_axis(variances, shown, axis=0)[0]


def noise_deviation(image: NDArray[np.float32], noise_level: float) -> np.float32:
    """Returns the standard deviation of the noise for an image."""
    return np.float32(noise_level) * np.float32(np.ptp(image))
