"""What an explanation reads of a model: the scores of its classes, or one of its outputs unchanged."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.subject import Subject
from masktool.explainers.targets import (
    ClassScore,
    Place,
    Target,
    hint_place,
    label_of,
    rank_scores,
    resolve_place,
    resolve_target,
)
from masktool.messages import Placeholder, parameter
from masktool.runtime.inputs import Inputs
from masktool.runtime.scores import drop_trailing_axes, note_corrected_scores, note_unknown_scores, to_log_odds
from masktool.runtime.session import MaskedSession

Scale = Literal["probability", "log-odds"]
"""Scale of the classes' scores: probabilities p (or the class output unchanged, where its kind is unknown), or the
log-odds log p - log(1 - p)."""
NEAR_ONE = 2.0**-24
"""Distance between neighbouring float32 numbers just below 1."""
ROUNDINGS = 16
"""Roundings within which a probability counts as rounded to 1: a softmax of many classes adds up about as many."""
FEW_ROUNDINGS = 4
"""Roundings of a score within which a map's values are noise: the difference of two scores has two, sums have a few."""
LISTED_NUMBERS = 16
"""Most values of an input that are all listed, of more shape and digest; and most labels that an error lists."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """The scores of one image with nothing missing, and how to read the same scores under masks.

    Attributes:
        session: the session of the model.
        output: the name of the output that is read unchanged; None for the classes' scores.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        values: the scores (K,) of the classes, or one image's output, of any shape.
        others: other outputs of the image, (...) float32 each, from the same pass, by name.
        scale: the scale of the classes' scores: ``probability`` or ``log-odds``.
    """

    session: MaskedSession
    output: str | None
    inputs: Mapping[str, npt.ArrayLike]
    values: NDArray[np.floating[Any]]
    others: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    scale: Scale = "probability"

    def under_masks(self, image: npt.ArrayLike, masks: npt.ArrayLike) -> NDArray[np.float32]:
        """Returns the scores (M, K) of one image (1, ...) under masks (M, 1, h, w), or its output laid out flat."""
        raw = self.session.metadata.class_output if self.scale == "log-odds" else self.output
        (scores,) = self.session.masked_scores(image, [masks], output=raw, inputs=self.inputs)
        return scores.reshape(len(scores), -1) if raw is None else self.to_scores(scores)

    @property
    def output_name(self) -> str:
        """The name of the output that is read: the one that was named, else the class output."""
        return str(self.session.metadata.class_output if self.output is None else self.output)

    def to_scores(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Returns the scores (M, K) that :meth:`under_masks` gives from the output that is read."""
        if self.output is not None:
            return values.reshape(len(values), -1)
        if self.scale == "log-odds":
            return to_log_odds(drop_trailing_axes(values), self.session.metadata.output_kind)
        return self.session.to_scores(values)

    def resolve(self, target: Target) -> int | Place:
        """Returns the index of the class, or the indices of the output value, that a target names."""
        if self.output is None:
            return resolve_target(target, self.values, self.session.metadata.labels)
        return resolve_place(target, self.values, self.output)

    def flat_index(self, place: int | Place) -> int:
        """Returns the position of a target among the values laid out flat."""
        return place if isinstance(place, int) else int(np.ravel_multi_index(place, self.values.shape)) if place else 0

    def label(self, target: int | Place) -> str | None:
        """Returns the label of a class; None where the target has none."""
        return label_of(target, self.session.metadata.labels) if isinstance(target, int) else None

    def ranked(self, target: int | Place) -> tuple[ClassScore, ...]:
        """Returns the five classes with the highest scores and the target, or an output value alone."""
        if isinstance(target, int):
            return rank_scores(self.values, target, self.session.metadata.labels)
        return (ClassScore(target, None, float(self.values[target])),)

    def notes(self, given: bool) -> Iterator[str]:
        """Yields notes on the scores that the reader of a map must know.

        Args:
            given: whether the user named the target; otherwise the target is the class or value with the highest score.
        """
        if self.output in (None, self.session.metadata.class_output):
            yield from note_corrected_scores(self.session.metadata)
        if self.output is None:
            yield from note_unknown_scores(self.session.metadata)
        elif not given and self.values.size > 1:
            chosen = parameter("target", (Placeholder("I"), Placeholder("J")))
            yield (
                f"this is the largest of all values of {self.output!r}, and the file does not say what they are: where "
                "some are coordinates, it may be one of them; " + chosen + " chooses"
            )

    def note_saturation(self, target: int | Place) -> Iterator[str]:
        """Yields a note where a probability is 0 or rounded to 1, which hides small changes, with what shows them."""
        score = float(self.values[target])
        if self.score_name != "probability" or (score != 0 and 1 - score > ROUNDINGS * NEAR_ONE):
            return
        if self.log_odds_tell_more(target):
            shown = " shows them" if self.session.metadata.takes_mask else " shows them, of a file that takes a mask"
            more: str = parameter("score", "log-odds") + shown
        else:
            end = "softmax" if self.session.metadata.output_kind == "probabilities" else "sigmoid"
            more = f"the graph takes its {end} itself: exported from in front of it, with its kind, it can show more"
        exact = f"exactly {score:g}" if score in (0.0, 1.0) else f"within {ROUNDINGS} roundings of 1"
        yield (
            f"the probability is {exact} in float32: smaller changes than it can tell leave no trace in the map; "
            + more
        )

    def log_odds_tell_more(self, target: int | Place) -> bool:
        """Tells whether log-odds still vary where the target's probability is rounded, because the rest is not."""
        kind = self.session.metadata.output_kind
        if kind == "probabilities":
            return float(self.values[target]) > 0 and bool(np.delete(self.values, target).any())
        if kind == "binary-probability":  # the positive class's is given, the negative one's is 1 - p
            return target == 0 and bool(self.values.all())
        return kind != "sigmoid"

    def is_rounding(self, target: int | Place, attributions: NDArray[np.floating[Any]]) -> bool:
        """Tells whether a map's values differ by no more than the rounding of the target's score in float32."""
        step = float(np.spacing(np.float32(abs(self.values[target]))))
        return 0 < float(attributions.max() - attributions.min()) <= FEW_ROUNDINGS * step

    @property
    def score_name(self) -> str:
        """The word for a score: ``probability``, ``log-odds``, ``score`` or ``value``."""
        if self.output is not None:
            return "value"
        if self.scale == "log-odds":
            return "log-odds"
        return "score" if self.session.metadata.output_kind is None else "probability"


def read_scores(
    session: MaskedSession,
    subject: Subject,
    output: str | None,
    inputs: Inputs | None,
    others: Sequence[str] = (),
    scale: Scale = "probability",
) -> Reading:
    """Scores an image with nothing missing, in one pass: the classes, or one output where an output is named.

    Args:
        session: the session of the model.
        subject: the image.
        output: the name of the output to read unchanged; None for the classes' scores.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        others: the names of other outputs to read in the same pass, besides the classes' scores.
        scale: the scale of the classes' scores: ``probability`` or ``log-odds``.
    """
    if output is None:
        return read_classes(session, subject, inputs, others, scale)
    return read_output(session, subject, output, inputs)


def read_classes(
    session: MaskedSession, subject: Subject, inputs: Inputs | None, others: Sequence[str], scale: Scale
) -> Reading:
    """Returns the scores of the classes, and other outputs from the same pass.

    Raises:
        MasktoolError: the model has no class output; the error lists its outputs and how to choose from them.
    """
    scores = session.metadata.class_output
    if scores is None:
        name, shape = next(iter(session.output_shapes.items()))
        raise MasktoolError(
            "the model has no class output to explain",
            where=session.path,
            expected="the name of an output, and indices into it",
            got=session.describe_outputs(),
            fix=hint_place(name, shape[1:]),
        )
    found = session.run(subject.fed, inputs=inputs, outputs=[scores, *others])
    beside = {name: first_row(name, found[name]) for name in others}
    if scale == "log-odds":
        (values,) = to_log_odds(drop_trailing_axes(found[scores]), session.metadata.output_kind)
    else:
        (values,) = session.to_scores(found[scores])
    check_labels(session, len(values))
    return Reading(session, None, dict(inputs or {}), values, beside, scale)


def check_labels(session: MaskedSession, count: int) -> None:
    """Raises a MasktoolError where a file has more or fewer labels than scores: no label can be matched to a class."""
    labels = session.metadata.labels
    if labels is not None and len(labels) != count:
        raise MasktoolError(
            "the file's labels do not fit the scores",
            where=session.path,
            expected=count,
            got=f"{len(labels)}: {', '.join(map(repr, labels[:LISTED_NUMBERS]))}",
            fix="export the model again",
        )


def read_output(session: MaskedSession, subject: Subject, output: str, inputs: Inputs | None) -> Reading:
    """Returns one output of the model for an image with nothing missing.

    Raises:
        MasktoolError: there is no such output, or the output holds no numbers.
    """
    output = session.check_output(output)
    values = session.run(subject.fed, inputs=inputs, outputs=[output])[output]
    return Reading(session, output, dict(inputs or {}), first_row(output, values))


def first_row(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the one row of an output (1, ...), or raises a MasktoolError where the output has no row of numbers."""
    if values.ndim == 0 or values.dtype.kind not in "biuf":
        raise MasktoolError("an output without one row of numbers per image", where=name, got=values.dtype)
    return values[0].astype(np.float32)


def check_finite(
    scores: NDArray[np.floating[Any]], image: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.floating[Any]]:
    """Returns the scores, or raises a MasktoolError where they are not finite: NaN would make a map of NaN.

    Args:
        scores: the scores of a model.
        image: the image that the scores are of, for the message where the image itself is not finite; None skips that
            check.
    """
    if np.isfinite(scores).all():
        return scores
    if image is not None and not np.isfinite(image).all():
        n_wrong = int(np.count_nonzero(~np.isfinite(image)))
        raise MasktoolError(
            "the image holds NaN or infinity, and the model's scores are not finite for it",
            where="image",
            got=f"{n_wrong} of {image.size} numbers that are not finite",
            fix="put numbers in their place",
        )
    raise MasktoolError("the model's scores are not finite", expected="numbers", got="NaN or infinity")


def describe_input(value: npt.ArrayLike) -> Any:
    """Returns an input's numbers, or its shape and SHA-256 where they are many, as JSON values."""
    array = np.asarray(value)
    if array.size <= LISTED_NUMBERS:
        return array.tolist()
    return {"shape": list(array.shape), "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}
