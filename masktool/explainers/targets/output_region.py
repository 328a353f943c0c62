"""A class in a region of a segmentation: the mean of the class's scores over the places of the region.

    z_k(R) = sum over places p of  w_p z_kp  /  sum over p of  w_p

z are the scores (K, h, w) of an output, w_p is the share of place p that lies in the region R. Where R is ``auto`` it
is the places at which the class has the highest score of all, with nothing missing; w_p is 1 there. R stays what it is
while parts of the picture are hidden, so that the map says what the class in this region rests on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from masktool.contract import FEATURE_MAP_OUTPUTS, Metadata, Size
from masktool.errors import MasktoolError
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.regions import (
    AUTO,
    Region,
    RegionLike,
    cover_places,
    describe_region,
    hint_region,
    read_region,
    show_region,
    spread_places,
)
from masktool.explainers.target import (
    FEW_ROUNDINGS,
    TARGETS,
    TOP,
    ClassScore,
    Combined,
    OutputShape,
    SettledOutput,
    Target,
    TargetError,
    TargetWords,
    shorten_label,
)
from masktool.explainers.targets.class_target import label_of, rank_scores, resolve_target
from masktool.explainers.targets.output_value import flat_places, refuse_log_odds, show_axes
from masktool.layouts import CHANNEL_AXIS
from masktool.messages import Placeholder, parameter, parameters
from masktool.runtime.preprocessing import Box

RANK = 4
SUM_TOLERANCE = 1e-3
"""How far the scores of a place may lie from a sum of 1 for probabilities."""
MOST_PLACES = 50_000
"""Places of an output in which it is asked what its values are: the first ones tell."""


@TARGETS.add
@dataclasses.dataclass(frozen=True)
class OutputRegion(Target):
    """The mean score of a class over a region of a segmentation.

    Attributes:
        which: the class's index or label; None or ``top`` for the one with the highest mean score in the region.
        region: the region: ``auto``, a box in the picture's pixels, a mask of the picture, or the path of one.
        output: the name of the output; None where the model has one output (N, K, h, w) only.
        predicted: the class whose places ``auto`` takes; None takes those of ``which``.
    """

    name: ClassVar[str] = "region"
    syntax: ClassVar[str] = parameters(target=Placeholder("K|LABEL"), region=Placeholder("FILE|X0,Y0,X1,Y1|auto"))
    summary: ClassVar[str] = "the mean score of a class over a region of a segmentation"
    gradient: ClassVar[str] = "its own"

    which: TargetWords
    region: RegionLike = AUTO
    output: str | None = None
    predicted: TargetWords = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "region", read_region(self.region))

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The output, once it is known."""
        return () if self.output is None else (self.output,)

    @property
    def names_outputs(self) -> bool:
        """Whether the output is known."""
        return self.output is not None

    def fit(self, shapes: Mapping[str, OutputShape], size: Size, metadata: Metadata | None = None) -> OutputRegion:  # noqa: ARG002
        """Returns the target with its output: the one that is named, or the only one that can be a segmentation."""
        candidates = [name for name, shape in shapes.items() if name not in FEATURE_MAP_OUTPUTS and len(shape) == RANK]
        if self.output is None and len(candidates) != 1:
            found = ", ".join(f"{name} {show_axes(shape)}" for name, shape in shapes.items())
            message = "several outputs may be a segmentation" if candidates else "no output is a segmentation"
            expected = "one of (N, K, h, w) scores of K classes at h x w places"
            fix = "name it with " + parameter("output", Placeholder("NAME")) if candidates else None
            raise TargetError(message, where=parameter("region"), expected=expected, got=found, fix=fix)
        if self.output is not None and len(shape := shapes.get(self.output, (None,) * RANK)) != RANK:
            raise no_segmentation(self.output, shape)
        return dataclasses.replace(self, output=self.output or candidates[0])

    def settle(self, outputs: ModelOutputs) -> SettledRegion:
        """Returns the class by its index, and the region by the places of the output."""
        assert self.output is not None  # since fit
        refuse_log_odds(outputs, self.output)
        values = outputs.values[self.output]
        if values.ndim != RANK:
            raise no_segmentation(self.output, values.shape)
        axis = find_class_axis(values.shape, outputs.metadata)
        labels = fitting_labels(self.which, outputs.metadata, values.shape[axis])
        scores = np.moveaxis(values[0], axis - 1, 0)
        region: Region = self.region  # type: ignore[assignment]  # as __post_init__ left it
        if isinstance(region, str):
            weights = self.predict(scores, labels)
        else:
            assert outputs.prepared is not None  # as every reading has it
            weights = cover_places(region, outputs.prepared, scores.shape[1:])
        means = average_places(scores[None], weights)[0]
        index = resolve_target(self.which, means, labels)
        return SettledRegion(
            index,
            label_of(index, labels),
            given=self.which not in (None, TOP),
            output_name=self.output,
            axis=axis,
            region=RegionPlaces.of(weights, AUTO if isinstance(region, str) else region),
            labels=labels,
        )

    def predict(self, scores: NDArray[np.floating[Any]], labels: tuple[str, ...] | None) -> NDArray[np.float64]:
        """Returns the places that are predicted as the class, (h, w), from the scores (K, h, w)."""
        which = self.which if self.predicted is None else self.predicted
        if which in (None, TOP):
            raise TargetError(
                "a region that is predicted as a class needs the class",
                where=parameter("region", AUTO),
                fix="name it with " + parameter("target"),
            )
        if len(scores) == 1:
            raise TargetError(
                "an output of one class does not say where it is predicted",
                where=f"output {self.output!r}",
                fix=hint_region(),
            )
        index = resolve_target(which, scores.mean(axis=(1, 2)), labels)
        inside = scores.argmax(axis=0) == index
        if not inside.any():
            raise MasktoolError(
                "the class is predicted nowhere in the picture",
                where=f"target {label_of(index, labels) or index}, " + parameter("region", AUTO),
                fix=hint_region(),
            )
        return inside.astype(np.float64)


def no_segmentation(output: str, shape: OutputShape) -> TargetError:
    """Returns the error for an output that has no places."""
    return TargetError(
        "the output is no segmentation",
        where=f"output {output!r}",
        expected="(N, K, h, w): scores of K classes at h x w places",
        got=show_axes(shape),
    )


def find_class_axis(shape: tuple[int, ...], metadata: Metadata) -> int:
    """Returns the axis of the classes: the one that is as long as the labels, else that of the input's channels."""
    axis = CHANNEL_AXIS[metadata.layout or "NCHW"]
    axes = [each for layout, each in CHANNEL_AXIS.items() if len(layout) == len(shape)]
    fitting = [each for each in axes if metadata.labels and shape[each] == len(metadata.labels)]
    return fitting[0] if len(fitting) == 1 else axis


def fitting_labels(which: TargetWords, metadata: Metadata, count: int) -> tuple[str, ...] | None:
    """Returns the file's labels where there are as many as the output has classes; a label is refused elsewhere."""
    labels = None if metadata.labels is None else tuple(metadata.labels)
    if labels is None or len(labels) == count:
        return labels
    if isinstance(which, str) and which != TOP and not which.lstrip("-").isdigit():
        raise TargetError(
            "the file's labels do not fit the output", where=f"target {which!r}", expected=count, got=len(labels)
        )
    return None


def average_places(scores: NDArray[np.floating[Any]], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the weighted means over places of scores (M, K, h, w), (M, K) or of one class's (M, h, w), (M,)."""
    inside = weights > 0
    found: NDArray[np.float64] = scores[..., inside].astype(np.float64) @ weights[inside] / weights.sum()
    return found


@dataclasses.dataclass(frozen=True)
class RegionPlaces:
    """The places of a map that a region covers, as bytes, since targets are compared and hashed.

    Attributes:
        places: (h, w) of the map.
        packed: the share of each place that lies in the region, float32.
        given: what was given: ``auto``, a box, or the number of pixels of a mask.
    """

    places: tuple[int, int]
    packed: bytes
    given: str | Box | int

    @classmethod
    def of(cls, weights: NDArray[np.float64], region: Region) -> RegionPlaces:
        """Packs the share (h, w) of each place that lies in a region."""
        height, width = weights.shape
        given = int(region.sum()) if isinstance(region, np.ndarray) else region
        return cls((height, width), weights.astype(np.float32).tobytes(), given)

    @property
    def weights(self) -> NDArray[np.float64]:
        """The share of each place that lies in the region, (h, w)."""
        return np.frombuffer(self.packed, np.float32).reshape(self.places).astype(np.float64)

    @property
    def words(self) -> str:
        """The region in a title."""
        if isinstance(self.given, str):
            return "where it is predicted"
        return f"in {self.given} pixels" if isinstance(self.given, int) else f"in {show_region(self.given)}"


@dataclasses.dataclass(frozen=True)
class SettledRegion(SettledOutput):
    """A class by its index and a region by its places.

    Attributes:
        axis: the axis of the classes.
        region: the places.
        labels: the labels of all classes; None where they are unknown.
    """

    index: int
    axis: int = dataclasses.field(kw_only=True)
    region: RegionPlaces = dataclasses.field(kw_only=True)
    labels: tuple[str, ...] | None = dataclasses.field(kw_only=True, repr=False)

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the mean scores (M,)."""
        return average_places(self.scores(outputs)[:, self.index], self.region.weights)

    def scores(self, outputs: ModelOutputs) -> NDArray[np.floating[Any]]:
        """Returns the scores of all classes at all places, (M, K, h, w)."""
        values: NDArray[np.floating[Any]] = np.moveaxis(outputs.values[self.output_name], self.axis, 1)
        return values

    def score_name(self, outputs: ModelOutputs) -> str:
        """Returns ``mean logit``, or ``mean probability`` where the scores of each place are positive and sum to 1."""
        scores = self.scores(outputs)[0].reshape(self.scores(outputs).shape[1], -1)[:, :MOST_PLACES]
        if scores.min() < 0 or scores.max() > 1:
            return "mean logit"
        whole = len(scores) > 1 and bool(np.allclose(scores.sum(axis=0), 1, rtol=0, atol=SUM_TOLERANCE))
        return "mean probability" if whole else "mean score"

    @property
    def name(self) -> str:
        """The label, or ``class 3``, and the region."""
        return f"{self.label or f'class {self.index}'} {self.region.words}"

    @property
    def title(self) -> str:
        """The label, cut where it is long, the index and the region."""
        label = f"class {self.index}" if self.label is None else f"{shorten_label(self.label)} ({self.index})"
        return f"{label} {self.region.words}"

    def describe(self) -> dict[str, Any]:
        """Returns the kind, the output, the class and the region."""
        given = self.region.given
        region = {"pixels": given} if isinstance(given, int) else describe_region(given)
        shared = {"kind": OutputRegion.name, "output": self.output_name, "index": self.index, "label": self.label}
        return {**shared, "region": region, "places": round(float(self.region.weights.sum()), 3)}

    def ranked(self, outputs: ModelOutputs) -> tuple[ClassScore, ...]:
        """Returns the five classes with the highest mean scores in the region and the target, the highest first."""
        means = average_places(self.scores(outputs)[:1], self.region.weights)[0]
        return rank_scores(means, self.index, self.labels)

    def rounding(self, outputs: ModelOutputs) -> float:
        """Returns the range up to which a map is rounding: that of the largest score in the region."""
        inside = self.scores(outputs)[0, self.index][self.region.weights > 0]
        return FEW_ROUNDINGS * float(np.spacing(np.abs(inside).max().astype(np.float32)))

    def evidence_name(self, outputs: ModelOutputs) -> str:
        """Returns such as ``mean logits``."""
        name = self.score_name(outputs)
        return "mean probabilities" if name == "mean probability" else f"{name}s"

    @property
    def n_numbers(self) -> int:
        """The number of places in the region."""
        return int(np.count_nonzero(self.region.weights))

    def places(self, shape: Sequence[int]) -> NDArray[np.intp]:
        """Returns where the class's scores in the region stand."""
        of_class = np.moveaxis(flat_places(shape), self.axis - 1, 0)[self.index]
        return of_class[self.region.weights > 0]

    def combine(self, numbers: NDArray[np.floating[Any]]) -> Combined:
        """Returns the weighted means, in which each place weighs by its share in the region."""
        weights = self.region.weights
        shares = weights[weights > 0] / weights.sum()
        return Combined(numbers @ shares, np.broadcast_to(shares, numbers.shape))

    @property
    def logit_name(self) -> str:
        """The word for what gradients are of."""
        return "mean score"

    def holds(self, outputs: ModelOutputs) -> NDArray[np.bool_]:
        """Returns whether the class has the highest mean score of all in the region, (M,)."""
        return average_places(self.scores(outputs), self.region.weights).argmax(axis=1) == self.index

    def region_pixels(self, size: tuple[int, int], crop_box: Box) -> NDArray[np.bool_]:
        """Returns the pixels of the region in a picture of (height, width), of which the model saw a box."""
        return spread_places(self.region.weights, size, crop_box)
