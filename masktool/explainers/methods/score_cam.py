"""Score-CAM: a feature map's channels, each weighed by the score of the image with what it covers kept.

Source: Haofan Wang, Zifan Wang, Mengnan Du, Fan Yang, Zijian Zhang, Sirui Ding, Piotr Mardziel and Xia Hu, "Score-CAM:
Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR Workshops 2020, equations 4 to 7 and
algorithm 1, https://arxiv.org/abs/1910.01279.

    H_k = (U_k - min U_k) / (max U_k - min U_k),  U_k = A_k enlarged bilinearly to the input
    w = softmax over k of  f_y(the image under the mask H_k)
    a = relu(sum over k of  w_k A_k),  enlarged bilinearly to the input

A is the feature map of the image, from one pass, and every channel of it a mask, kept where the channel is largest. The
paper multiplies the image by H_k, which a file with ``fill`` masking of the mean does; here masks go the way of any
other method's, and are carried through the layers under ``layer`` masking. The score of a baseline image, which the
paper takes from each f_y, cancels in the softmax and is left out. f_y is the score that is explained: probabilities,
the paper's choice (section 3.3), differ by 1 at most, so that no weight is more than e times another; with log-odds a
channel's weight is proportional to the odds, and few channels make the map.

A pass for every channel would be 512 and more. ``n_channels`` of them are scored, those whose activations have the
largest variance over the places: weights differ little, so that these move the map most. The others have no weight. A
channel that is the same everywhere is no mask and is never scored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from masktool.explainers.feature_maps import choose_activations
from masktool.explainers.mask_design import Masks
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.methods.grad_cam import enlarge
from masktool.explainers.task import Task
from masktool.option_checks import check_count

MOST_CHANNELS = 249
"""Channels that are scored by default: 250 passes with that of the image as it is."""
FLAT = "no channel of the feature map differs between places, so that there is nothing to keep"


@register
@dataclasses.dataclass(frozen=True)
class ScoreCam(Method):
    """The features of an image, each channel weighed by the score with what it covers kept.

    Attributes:
        feature_map: the name of the feature map; None takes the one that the file gives, or of several the first.
        n_channels: the largest number of channels that are scored, a pass each: those of the largest variance.
    """

    name: ClassVar[str] = "score-cam"
    title: ClassVar[str] = "Score-CAM"
    meaning: ClassVar[str] = "features, weighed by the {score} with them kept"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = None
    needs_feature_map: ClassVar[bool] = True

    feature_map: str | None = None
    n_channels: int = MOST_CHANNELS

    def __post_init__(self) -> None:
        check_count("n_channels", self.n_channels)

    def within(self, budget: int, task: Task) -> Self:  # noqa: ARG002
        """Returns the method with as many channels as a budget has passes for; fewer than the user's where need be."""
        most = max(1, budget - 1)
        chosen = most if self.leaves_open("n_channels") else min(self.n_channels, most)
        return dataclasses.replace(self, n_channels=chosen)

    def count_passes(self, task: Task) -> int:
        """Returns the passes of the image as it is, and of every channel that is scored."""
        _, features = choose_activations(self.title, self.feature_map, task.feature_maps)
        return 1 + len(choose_channels(features, self.n_channels))

    def attribute(self, task: Task) -> Attribution:
        """Scores the image under a mask for each channel, and adds the channels up by their scores' softmax."""
        name, features = choose_activations(self.title, self.feature_map, task.feature_maps)
        chosen = choose_channels(features, self.n_channels)
        masks = self.make_masks(features[chosen], task)
        scores = np.concatenate(
            [np.zeros((0, len(task.targets))), *(batch.scores for batch in task.evaluate(masks, len(chosen)))]
        )
        maps = [weigh_scored(features[chosen], column) for column in scores.T]
        notes = describe_channels(len(chosen), len(features))
        return Attribution(
            np.stack([enlarge(each, task.image_size) for each in maps]),
            dataclasses.asdict(self) | {"feature_map": name, "n_channels": len(chosen)},
            quality=tuple({"largest_weight": float(weights_of(each).max(initial=0.0))} for each in scores.T),
            notes=(notes,) * len(task.targets),
        )

    def make_masks(self, features: NDArray[np.float32], task: Task) -> Iterator[Masks]:
        """Yields the masks (m, 1, h, w) of channels (c, h, w), enlarged and scaled from 0 to 1."""
        for piece in task.batch_ranges(len(features)):
            yield np.stack([scale_mask(enlarge(features[index], task.image_size)) for index in piece])[:, None]


def choose_channels(features: NDArray[np.float32], most: int) -> NDArray[np.intp]:
    """Returns the channels of a feature map (c, h, w) of the largest variance, the largest first, none that is flat."""
    flat = features.reshape(len(features), -1)
    variances = flat.astype(np.float64).var(axis=1)
    order = np.argsort(-variances, kind="stable")
    return order[np.ptp(flat, axis=1)[order] > 0][:most]


def scale_mask(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns values (h, w) as a mask from 0, where they are smallest, to 1; all kept where they are the same."""
    span = np.ptp(values)
    return (values - values.min()) / span if span > 0 else np.ones_like(values)


def weights_of(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the softmax (m,) of scores."""
    powers = np.exp(scores - scores.max(initial=-np.inf))
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def weigh_scored(features: NDArray[np.float32], scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the sum (h, w) of channels (m, h, w) by the softmax of their scores; 0 where it is below."""
    total = np.einsum("m,mhw->hw", weights_of(scores), features)
    return np.maximum(total, 0).astype(np.float32)


def describe_channels(scored: int, total: int) -> tuple[str, ...]:
    """Returns what the reader must know of the channels that were scored."""
    if scored == 0:
        return (FLAT,)
    return (f"{scored} of {total} channels were scored, those that vary most",) if scored < total else ()
