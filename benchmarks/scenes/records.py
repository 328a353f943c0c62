"""What is kept of each map, and the figures that are made of it: intervals are over pictures, not over objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.evaluation.bootstrap import Interval, interval_of
from masktool.evaluation.metrics.localisation.pointing_game import point
from masktool.evaluation.metrics.scaling import positive_part
from masktool.explainers.explanation import Explanation

WANTED_RATIO = 5.0


class ObjectRecord(NamedTuple):
    """A map of one object of a scene.

    Attributes:
        picture: the number of the scene.
        own: the share of the map's positive part inside the object.
        others: the share inside the other objects.
        hit: whether the largest value lies inside the object.
        passes: forward passes of the picture's maps together.
    """

    picture: int
    own: float
    others: float
    hit: float
    passes: int


def record_object(picture: int, found: Explanation, masks: NDArray[np.bool_], place: int) -> ObjectRecord:
    """Returns the record of a map of one of a scene's objects, whose pixels are masks (n, H, W)."""
    positive = positive_part(found.attributions.astype(np.float64), found.signed)
    others = np.delete(masks, place, axis=0).any(axis=0)
    total = positive.sum()
    own, beside = (float(positive[inside].sum() / total) if total else 0.0 for inside in (masks[place], others))
    hit = point(found.attributions.astype(np.float64), masks[place])
    return ObjectRecord(picture, own, beside, float(hit or 0), found.forward_passes)


def share(records: Sequence[ObjectRecord], value: Callable[[ObjectRecord], float]) -> Interval:
    """Returns the mean of a value over all objects."""
    return divide(records, value, lambda _: 1.0)


def divide(
    records: Sequence[ObjectRecord], above: Callable[[ObjectRecord], float], below: Callable[[ObjectRecord], float]
) -> Interval:
    """Returns one sum over all objects divided by another; the objects of a picture are resampled together."""
    pictures = sorted({each.picture for each in records})
    sums = np.zeros((2, len(pictures)))
    for each in records:
        sums[:, pictures.index(each.picture)] += above(each), below(each)
    return interval_of(lambda weights: (weights @ sums[0]) / np.maximum(weights @ sums[1], 1e-300), len(pictures))


def describe_objects(method: str, records: Sequence[ObjectRecord]) -> str:
    """Returns a row of the table: method, passes, energy inside own to inside others, shares, pointing game."""
    figures = (
        show(divide(records, lambda each: each.own, lambda each: each.others), "{:.1f}"),
        show(share(records, lambda each: each.own >= WANTED_RATIO * each.others)),
        show(share(records, lambda each: each.own)),
        show(share(records, lambda each: each.hit)),
    )
    return f"| {method} | {max(each.passes for each in records)} | {' | '.join(figures)} |"


OBJECT_HEAD = (
    "| method | passes | own : others | objects with 5 : 1 | energy in own | pointing game |\n|---|---|---|---|---|---|"
)


def show(interval: Interval, form: str = "{:.3f}") -> str:
    """Returns a figure with its interval as text, shares without the 0 in front."""
    value, low, high = (form.format(each) for each in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]".replace("0.", ".") if interval.high < 1 else f"{value} [{low}, {high}]"
