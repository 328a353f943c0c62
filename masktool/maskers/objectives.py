"""The losses of a masker: masked-in, masked-out, and how ragged its masks are.

With c = [f(x) is right], m̄ = mean m, H the entropy of the softmax, E the mean over images:

    L_in  = CE(f(x m), y) - λ_in E relu([f(x m) is right] - m̄) + TV
    L_out = -E c H(f(x (1 - m))) - λ_out E relu(c [f(x (1 - m)) is wrong] - m̄) + TV
    TV    = λ_tv / (2 N) (Σ (Δx m)² + Σ (Δy m)² + .3 Σ over the border m²)

A target area a takes relu(m̄ - a) for m̄. ``out_loss=classification`` takes CE for H.
Source: Phang, Park and Geras, 2020, section 3, https://arxiv.org/abs/2010.09750.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from masktool.maskers.judges import Judge
from masktool.maskers.settings import TrainingSettings

BORDER_WEIGHT = 0.3
"""Published weight of mask values on the image's border."""


class ClassifiedBatch(NamedTuple):
    """Images (N, C, H, W), labels (N,), and whether the classifier is right about each image, (N,) 0 or 1."""

    images: Tensor
    labels: Tensor
    right: Tensor


class MaskerLoss(NamedTuple):
    """The masker's loss on a batch, and its terms.

    Attributes:
        total: loss (), to be differentiated.
        terms: terms and accuracies by name, for the log; ``objective_in`` and ``objective_out`` are mean cross-entropy
            and mean entropy, or the cross-entropy where that is the out loss; ``area_in``, ``area_out`` and ``tv`` are
            weighted as they go into the total; ``accuracy_in`` and ``accuracy_out`` are over masked images.
    """

    total: Tensor
    terms: dict[str, Tensor]


def masker_loss(judge: Judge, batch: ClassifiedBatch, masks: Tensor, settings: TrainingSettings) -> MaskerLoss:
    """Returns the masker's loss for the masks of a batch.

    Args:
        judge: judge of masked images.
        batch: batch of N images.
        masks: masks (N, 1, H, W) float32 in [0, 1], 1 = kept, with gradients.
        settings: settings of the training: its objective and weights.
    """
    areas = masks.mean((1, 2, 3))
    costs = areas if settings.target_area is None else torch.relu(areas - settings.target_area)
    raggedness = settings.lambda_tv * total_variation(masks)
    total = masks.new_zeros(())
    terms = {"tv": raggedness, "area": areas.mean()}
    if settings.objective != "out":
        loss, found = masked_in(judge, batch, masks, costs, settings)
        total = total + loss + raggedness
        terms |= found
    if settings.objective != "in":
        loss, found = masked_out(judge, batch, masks, costs, settings)
        total = total + loss + raggedness
        terms |= found
    return MaskerLoss(total, {"loss": total, **terms})


def masked_in(
    judge: Judge, batch: ClassifiedBatch, masks: Tensor, costs: Tensor, settings: TrainingSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns L_in without TV, and its terms."""
    found = judge(batch.images, masks, batch.labels, "log-softmax")
    right = is_right(found.scores, batch.labels)
    error = -found.objective.mean()
    reward = settings.lambda_in * torch.relu(right - costs).mean()
    return error - reward, {"objective_in": error, "area_in": -reward, "accuracy_in": right.mean()}


def masked_out(
    judge: Judge, batch: ClassifiedBatch, masks: Tensor, costs: Tensor, settings: TrainingSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns L_out without TV, and its terms."""
    classify = settings.out_loss == "classification"
    found = judge(batch.images, 1 - masks, batch.labels, "log-softmax" if classify else "entropy")
    right = is_right(found.scores, batch.labels)
    confusion = -found.objective if classify else found.objective
    gain = (batch.right * confusion).mean()
    reward = settings.weight_out * torch.relu(batch.right * (1 - right) - costs).mean()
    terms = {"objective_out": confusion.mean(), "area_out": -reward, "accuracy_out": right.mean()}
    return -gain - reward, terms


def is_right(scores: Tensor, labels: Tensor) -> Tensor:
    """Returns (N,) float32: 1 where the greatest of the scores (N, K) is the label's."""
    return (scores.argmax(1) == labels).float()


def total_variation(masks: Tensor) -> Tensor:
    """Returns half the sum, per mask (), of squared differences of neighbours and .3 times squares on the border.

    Args:
        masks: masks (N, 1, H, W).
    """
    rows = (masks[:, :, 1:] - masks[:, :, :-1]).square().sum()
    columns = (masks[..., 1:] - masks[..., :-1]).square().sum()
    squares = masks.square()
    border = squares.sum() - squares[:, :, 1:-1, 1:-1].sum()
    return (rows + columns + BORDER_WEIGHT * border) / (2 * len(masks))
