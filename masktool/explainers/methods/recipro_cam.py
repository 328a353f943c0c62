"""Recipro-CAM: what the layers behind a feature map make of each of its places alone.

Source: Seok-Yong Byun and Wonju Lee, "Recipro-CAM: Fast Gradient-free Visual Explanations for Convolutional Neural
Networks", 2022, https://arxiv.org/abs/2209.14074, equations 3 to 5.

    s(i, j) = h(A under M_ij),  M_ij = 1 at place (i, j), 0 elsewhere
    a = (s - min s) / (max s - min s),  enlarged bilinearly to the input

A is the feature map of the image, from one pass, and h the layers behind it, the *head*, with the class's score at its
end; it is run once for every place. The paper multiplies A by M_ij. Here the mask is carried through the head, as it is
through a whole network from the image on: what is missing has no influence, where zeros are activations like others,
and a mean is one over the place that is kept. In a network that ends in global pooling and one linear layer, the logits
are W A(i, j) + b therefore, those of the class activation map of Zhou et al. (2016); the paper's rule gives
W A(i, j) / (h w) + b there. A file with ``fill`` masking multiplies, as published.

No gradients are needed, so that quantised files are explained too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.contract import FEATURE_MAP, Masking
from masktool.errors import MasktoolError
from masktool.explainers.mask_design import Masks
from masktool.explainers.method import Attribution, Method, register
from masktool.explainers.methods.grad_cam import enlarge
from masktool.explainers.task import Task, TaskHead
from masktool.messages import Placeholder, call, parameter
from masktool.option_checks import check_choice

NEIGHBOURHOOD = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16
"""The authors' 3 x 3 Gaussian, by which ``fill`` masking multiplies. Masks that are carried weigh places against one
another, so that a common factor changes no mean: it is brought to 1, kept, at the place itself."""
FLAT = "the score is the same whichever place of the feature map is kept"


@register
@dataclasses.dataclass(frozen=True)
class ReciproCam(Method):
    """The score with each place of the feature map kept alone, between the lowest (0) and the highest (1).

    Attributes:
        feature_map: the name of the feature map; None takes the one that the file's head begins behind.
        gaussian: whether to keep a 3 x 3 Gaussian around each place, instead of the place alone.
    """

    name: ClassVar[str] = "recipro-cam"
    title: ClassVar[str] = "Recipro-CAM"
    meaning: ClassVar[str] = "{score} with this place alone, from its lowest (0) to its highest (1)"
    signed: ClassVar[bool] = False
    samples_option: ClassVar[str | None] = None
    needs_head: ClassVar[bool] = True
    outputs: ClassVar[Mapping[str, str]] = {FEATURE_MAP: call("export", Placeholder("MODEL"), ..., head="last")}

    feature_map: str | None = None
    gaussian: bool = False

    def __post_init__(self) -> None:
        check_choice("gaussian", self.gaussian, (True, False))

    def count_passes(self, task: Task) -> int:
        """Returns the passes of the image as it is, and of the layers behind the feature map for every place."""
        assert task.head is not None
        return 1 + int(np.prod(task.head.places))

    def attribute(self, task: Task) -> Attribution:
        """Runs the head once for every place of the feature map, and scales its scores."""
        head = task.head
        assert head is not None  # what asks for a head gets one
        self.check_feature_map(head)
        height, width = head.places
        masks = self.make_masks(head.places, head.perturbations_per_eval, self.kernel(task.masking))
        found = np.concatenate([batch.scores for batch in head.evaluate(masks, height * width)])
        by_place = found.T.reshape(-1, height, width)
        return Attribution(
            np.stack([enlarge(scale_scores(scores), task.image_size) for scores in by_place]),
            dataclasses.asdict(self) | {"feature_map": head.feature_map},
            quality=tuple({"lowest_score": float(each.min()), "highest_score": float(each.max())} for each in by_place),
            notes=tuple((FLAT,) if np.ptp(each) == 0 else () for each in by_place),
        )

    def check_feature_map(self, head: TaskHead) -> None:
        """Raises a MasktoolError where the head begins behind another feature map than the option names."""
        if self.feature_map not in (None, head.feature_map):
            raise MasktoolError(
                "the file's head begins behind another feature map",
                where=self.feature_map,
                got=head.feature_map,
                fix="export it again with " + parameter("head", self.feature_map),
            )

    def kernel(self, masking: Masking) -> NDArray[np.float32]:
        """Returns how much of a place, in the middle, and of its neighbours is kept, (3, 3)."""
        if not self.gaussian:
            return np.pad(np.ones((1, 1), np.float32), 1)
        factor = 1 if masking == "fill" else 1 / NEIGHBOURHOOD.max()
        return (NEIGHBOURHOOD * factor).astype(np.float32)

    def make_masks(self, places: tuple[int, int], batch: int, kernel: NDArray[np.float32]) -> Iterator[Masks]:
        """Yields the masks (m, 1, h, w) of all places, row by row, at most ``batch`` of them at once."""
        height, width = places
        for start in range(0, height * width, batch):
            rows, columns = np.divmod(np.arange(start, min(start + batch, height * width)), width)
            padded = np.zeros((len(rows), 1, height + 2, width + 2), np.float32)
            for down, across in np.ndindex(kernel.shape):
                padded[np.arange(len(rows)), 0, rows + down, columns + across] = kernel[down, across]
            yield np.ascontiguousarray(padded[:, :, 1:-1, 1:-1])


def scale_scores(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns scores (h, w) from 0, the lowest, to 1, the highest; 0 everywhere where all are the same."""
    span = np.ptp(scores)
    scaled = (scores - scores.min()) / (span if span > 0 else 1)
    return scaled.astype(np.float32)
