"""What the networks of drawn scenes learn: the losses, and what tells on held-out pictures how well. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.scenes.drawing import Scene
from benchmarks.scenes.networks import STRIDE, Detector

BOX_WEIGHT = 0.05
"""Weight of a pixel of a box's error beside the other losses."""


def boxes_of(masks: torch.Tensor) -> torch.Tensor:
    """Returns the boxes of objects (n, H, W): centre, width and height in pixels, (n, 4); of an empty one zeros."""
    ends = []
    for axis in (1, 2):
        there = masks.any(axis)
        first = there.int().argmax(1)
        last = there.shape[1] - there.flip(1).int().argmax(1)
        ends.append((first, last))
    (left, right), (top, bottom) = ends
    found = torch.stack([(left + right) / 2, (top + bottom) / 2, (right - left).float(), (bottom - top).float()], 1)
    return found * masks.flatten(1).any(1, keepdim=True)


def segmentation_loss(
    network: nn.Module, images: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Returns the cross-entropy of pictures whose objects are masks (N, n, H, W) of classes (N, n), -1 for none."""
    logits = network(images)
    step = masks.shape[-1] // logits.shape[-1]
    covered = nn.functional.avg_pool2d(masks.float(), step) > 0.5
    classes = (covered * (labels + 1)[:, :, None, None]).amax(1)
    return nn.functional.cross_entropy(logits, classes)


def detection_loss(network: Detector, images: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the loss of pictures whose objects are masks (N, n, H, W) of classes (N, n), -1 for none.

    The place that an object's centre lies in has to find it; of its neighbours nothing is asked.
    """
    raw = network.raw(images)
    side = images.shape[-1] // STRIDE
    picture, which = torch.nonzero(labels >= 0, as_tuple=True)
    boxes = boxes_of(masks[picture, which])
    columns, rows = (boxes[:, :2] / STRIDE).long().clamp(0, side - 1).T
    wanted = torch.zeros(len(images), side, side)
    wanted[picture, rows, columns] = 1
    asked = 1 - nn.functional.max_pool2d(wanted, 3, 1, 1) + wanted
    objectness = nn.functional.binary_cross_entropy_with_logits(raw[..., 4], wanted.flatten(1), asked.flatten(1))
    found = raw[picture, rows * side + columns]
    classes = nn.functional.cross_entropy(found[:, 5:], labels[picture, which])  # read through a sigmoid later
    independent = nn.functional.binary_cross_entropy_with_logits(
        found[:, 5:], nn.functional.one_hot(labels[picture, which], found.shape[1] - 5).float()
    )
    distance = (network.boxes(raw)[picture, rows * side + columns] - boxes).abs().mean()
    return 10 * objectness + classes + independent + BOX_WEIGHT * distance


def classification_loss(
    network: nn.Module, images: torch.Tensor, _: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Returns the cross-entropy of pictures with the probability of each class, (N, classes)."""
    return nn.functional.cross_entropy(network(images), labels)


def detection_accuracy(found: np.ndarray, scenes: Sequence[Scene]) -> float:
    """Returns the share of objects that the surest detection of their place finds: its class, and half of its box.

    Args:
        found: what the detector gives, (N, places, 5 + classes).
        scenes: the N scenes.
    """
    hits = []
    for rows, scene in zip(found, scenes, strict=True):
        boxes = boxes_of(torch.from_numpy(scene.masks)).numpy()
        for box, label in zip(boxes, scene.labels, strict=True):
            near = rows[np.abs(rows[:, :2] - box[:2]).max(axis=1) < STRIDE]
            best = near[near[:, 4].argmax()] if len(near) else None
            hits.append(best is not None and best[5:].argmax() == label and iou(best[:4], box) >= 0.5 and best[4] > 0.5)
    return float(np.mean(hits))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the intersection over union of two boxes, each centre, width and height."""
    low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
    shared = np.maximum(high - low, 0).prod()
    return float(shared / (one[2:].prod() + other[2:].prod() - shared))


def segmentation_accuracy(found: np.ndarray, scenes: Sequence[Scene]) -> float:
    """Returns the share of the objects' places that are predicted as their class; found: logits (N, K, h, w)."""
    step = scenes[0].masks.shape[-1] // found.shape[-1]
    hits = []
    for logits, scene in zip(found, scenes, strict=True):
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            inside = mask[step // 2 :: step, step // 2 :: step]
            hits.append(float((logits.argmax(axis=0)[inside] == label + 1).mean()))
    return float(np.mean(hits))
