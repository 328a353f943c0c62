"""From a method's answer about one image to an explanation of each target: scores, notes, settings, provenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.contract import Metadata
from masktool.explainers.explanation import Explanation
from masktool.explainers.method import Attribution, Method
from masktool.explainers.reading import Reading, describe_input
from masktool.explainers.target import SettledTarget
from masktool.explainers.task import Task
from masktool.messages import parameter

PROVENANCE = ("source", "source_sha256", "masking", "rule", "parity", "tool_version")
"""Metadata of the exported file that go into every explanation; of a calibrated file, ``calibration`` does too."""
HEAD_NOT_CORRECTED = (
    "the scores of the layers behind the feature map are as they are: the file's correction was fitted behind masks of "
    "the image"
)
"""What the reader of a map of a calibrated file's head must know."""


Map = NDArray[np.float32]
"""A map: attributions (H, W) in an image's own pixels."""


class Cost(NamedTuple):
    """The time in seconds and the number of forward passes of one image, or its share of those of its batch."""

    seconds: float
    forward_passes: int


@dataclasses.dataclass(frozen=True)
class ExplanationRun:
    """The answer of a method about one image, and all else that the explanations of its targets need.

    Attributes:
        method: the method that explained.
        task: the task that the method was given.
        reading: the model's scores with nothing missing.
        attribution: the method's answer.
        maps: one map (H, W) per target, in the image's own pixels.
    """

    method: Method
    task: Task
    reading: Reading
    attribution: Attribution
    maps: Sequence[Map]

    def explanations(self, cost: Cost) -> list[Explanation]:
        """Returns one explanation per target of the task."""
        return [self.explanation(position, target, cost) for position, target in enumerate(self.task.targets)]

    def explanation(self, position: int, target: SettledTarget, cost: Cost) -> Explanation:
        """Returns the explanation of one target, the ``position``-th of the task's."""
        whole = self.reading.whole
        score_name = target.score_name(whole)
        metadata, subject = self.reading.session.metadata, self.task.subject
        hidden = self.task.hidden_bands
        return Explanation(
            attributions=self.maps[position],
            model_attributions=self.attribution.attributions[position].astype(np.float32),
            segments=self.attribution.segments,
            target=target.index,
            label=target.label,
            scores=target.ranked(whole),
            score_name=score_name,
            method=self.method.name,
            title=self.method.title + ("" if hidden is None else f" in {hidden.group.title}"),
            meaning=self.method.meaning.format(score=score_name, logit=target.logit_name),
            signed=self.method.signed,
            settings={**self.attribution.settings, **describe_shared_settings(self.task, self.reading)},
            quality=self.attribution.quality[position],
            capped=self.method.capped,
            notes=(
                *subject.notes,
                *self.method_notes(position),
                *self.shared_notes(position, target),
            ),
            seconds=cost.seconds,
            forward_passes=cost.forward_passes,
            model=describe_origin(metadata),
            image=subject.original,
            output=target.output,
            crop_box=subject.prepared.crop_box,
            asked=target,
            value=float(self.task.base[position]),
            ranked_name=target.ranked_name(whole),
        )

    def method_notes(self, position: int) -> tuple[str, ...]:
        """Returns the method's notes on one target's map."""
        return self.attribution.notes[position] if self.attribution.notes else ()

    def shared_notes(self, position: int, target: SettledTarget) -> Iterator[str]:
        """Yields notes that the reader of one target's map must know, whatever the method."""
        yield from target.notes(self.reading.whole)
        if self.task.hidden_bands is not None:
            yield from self.task.hidden_bands.notes()
        if self.task.batch_measured:
            number = parameter("perturbations_per_eval", self.task.perturbations_per_eval)
            yield "the fastest batch was measured; " + number + " gives the same result again"
        yield from filter(None, (self.reading.session.device_note, self.reading.session.window_note))
        if self.method.needs_head and self.reading.session.metadata.calibration is not None:
            yield HEAD_NOT_CORRECTED
        of_scores = not self.method.needs_gradient and not self.method.outputs
        if of_scores:
            yield from target.precision_notes(self.reading.whole)
        values = self.attribution.attributions[position]
        if values.size > 1 and values.min() == values.max():
            yield "the map is the same everywhere: it does not tell one place from another"
        elif of_scores and 0 < float(values.max() - values.min()) <= target.rounding(self.reading.whole):
            yield "the map's values differ by no more than the rounding of the score in float32: it may be noise"


def describe_shared_settings(task: Task, reading: Reading) -> dict[str, Any]:
    """Returns the settings that decide a result besides the method's own options, as JSON values."""
    session = reading.session
    settings: dict[str, Any] = {
        "seed": task.seed,
        "perturbations_per_eval": task.perturbations_per_eval,
        "providers": session.providers,
        "threads": session.threads,
    }
    if session.provider_options:
        settings["provider_options"] = session.provider_options
    if None in session.spatial_shape:
        settings["input_size"] = list(task.size)
    if reading.whole.scale != "probability":
        settings["score"] = reading.whole.scale
    settings |= task.stopping.given
    if reading.inputs:
        settings["inputs"] = {name: describe_input(value) for name, value in reading.inputs.items()}
    if task.hidden_bands is not None:
        settings |= task.hidden_bands.describe()
    return settings


def describe_origin(metadata: Metadata) -> dict[str, Any]:
    """Returns what an explanation says of the file that it was made with, by name."""
    calibration = {} if metadata.calibration is None else {"calibration": metadata.calibration}
    return {name: getattr(metadata, name) for name in PROVENANCE} | calibration


def maps_of(task: Task, attribution: Attribution) -> list[Map]:
    """Returns the map of each target, brought back from the model's input to the image's own pixels."""
    return [task.prepared.to_original(each.astype(np.float32)) for each in attribution.attributions]
