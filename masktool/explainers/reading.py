"""What is read of a model's answers: the scores of its classes, or one of its outputs as it is."""

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
from masktool.runtime.scores import drop_trailing_axes, note_unknown_scores, to_log_odds
from masktool.runtime.session import MaskedSession

Scale = Literal["probability", "log-odds"]
"""Of the classes' scores: probabilities (or what the file holds, where its kind is unknown), or log p - log(1 - p)."""
NEAR_ONE = 2.0**-24
"""How far apart neighbours in float32 are just below 1."""
ROUNDINGS = 16
"""From 1 within which a probability counts as rounded to it: a softmax of many classes adds up about as many."""
FEW_ROUNDINGS = 4
"""Of a score, within which a map's values are its noise: the difference of two scores has two, their sums a few."""
LISTED_NUMBERS = 16
"""Values of an input up to which all of them are told; of more, shape and digest. Labels likewise, without the rest."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """The scores of one image with nothing missing, and how to read the same under masks.

    Attributes:
        session: that answers.
        output: name of the output that is read as it is; None for the classes' scores.
        inputs: what the model asks for besides the image and the mask.
        values: (K,) scores of the classes, or one image's output, of any shape.
        others: other outputs of one image (...), from the same pass, by name.
        scale: of the classes' scores.
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
        if self.scale == "log-odds":
            return to_log_odds(drop_trailing_axes(scores), self.session.metadata.output_kind)
        return scores.reshape(len(scores), -1)

    def resolve(self, target: Target) -> int | Place:
        """Returns the index of the class, or the indices of the value, that is meant."""
        if self.output is None:
            return resolve_target(target, self.values, self.session.metadata.labels)
        return resolve_place(target, self.values, self.output)

    def flat_index(self, place: int | Place) -> int:
        """Returns where a target stands among the values laid out flat."""
        return place if isinstance(place, int) else int(np.ravel_multi_index(place, self.values.shape)) if place else 0

    def label(self, target: int | Place) -> str | None:
        """Returns the label of a class, None where it has none."""
        return label_of(target, self.session.metadata.labels) if isinstance(target, int) else None

    def ranked(self, target: int | Place) -> tuple[ClassScore, ...]:
        """Returns the five highest classes and the target, or the target alone where there are no classes."""
        if isinstance(target, int):
            return rank_scores(self.values, target, self.session.metadata.labels)
        return (ClassScore(target, None, float(self.values[target])),)

    def notes(self, given: bool) -> Iterator[str]:
        """Yields what the reader of a map must know of the scores.

        Args:
            given: whether the target was named; otherwise it is the one with the highest score.
        """
        if self.output is None:
            yield from note_unknown_scores(self.session.metadata)
        elif not given and self.values.size > 1:
            chosen = parameter("target", (Placeholder("I"), Placeholder("J")))
            yield (
                f"this is the largest of all values of {self.output!r}, and the file does not say what they are: where "
                "some are coordinates, it may be one of them; " + chosen + " chooses"
            )

    def note_saturation(self, target: int | Place) -> Iterator[str]:
        """Yields that a probability is 0 or rounded to 1, so that small changes leave no trace, and what shows them."""
        score = float(self.values[target])
        if self.score_name != "probability" or (score != 0 and 1 - score > ROUNDINGS * NEAR_ONE):
            return
        if self.log_odds_tell_more(target):
            more: str = parameter("score", "log-odds") + " shows them"
        else:
            end = "softmax" if self.session.metadata.output_kind == "probabilities" else "sigmoid"
            more = f"the graph takes its {end} itself: exported from in front of it, with its kind, it can show more"
        exact = f"exactly {score:g}" if score in (0.0, 1.0) else f"within {ROUNDINGS} roundings of 1"
        yield (
            f"the probability is {exact} in float32: smaller changes than it can tell leave no trace in the map; "
            + more
        )

    def log_odds_tell_more(self, target: int | Place) -> bool:
        """Tells whether log-odds go on where a target's probability is rounded: not where the rest was rounded too."""
        kind = self.session.metadata.output_kind
        if kind == "probabilities":
            return float(self.values[target]) > 0 and bool(np.delete(self.values, target).any())
        if kind == "binary-probability":  # the positive class's is given, the negative one's is 1 - p
            return target == 0 and bool(self.values.all())
        return kind != "sigmoid"

    def is_rounding(self, target: int | Place, attributions: NDArray[np.floating[Any]]) -> bool:
        """Tells whether a map's values differ by no more than the rounding of the score that they come from."""
        step = float(np.spacing(np.float32(abs(self.values[target]))))
        return 0 < float(attributions.max() - attributions.min()) <= FEW_ROUNDINGS * step

    @property
    def score_name(self) -> str:
        """What a score is called."""
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
    """Scores an image with nothing missing, in one pass: its classes, or one output where that is named.

    Args:
        session: that answers.
        subject: the image.
        output: name of the output to read as it is; None for the classes' scores.
        inputs: what the model asks for besides the image and the mask.
        others: names of other outputs to read in the same pass, besides the classes' scores.
        scale: of the classes' scores.
    """
    if output is None:
        return read_classes(session, subject, inputs, others, scale)
    return read_output(session, subject, output, inputs)


def read_classes(
    session: MaskedSession, subject: Subject, inputs: Inputs | None, others: Sequence[str], scale: Scale
) -> Reading:
    """Scores the classes, and reads other outputs beside them.

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
    found = session.run(subject.prepared.array, inputs=inputs, outputs=[scores, *others])
    beside = {name: first_row(name, found[name]) for name in others}
    if scale == "log-odds":
        (values,) = to_log_odds(drop_trailing_axes(found[scores]), session.metadata.output_kind)
    else:
        (values,) = session.to_scores(found[scores])
    check_labels(session, len(values))
    return Reading(session, None, dict(inputs or {}), values, beside, scale)


def check_labels(session: MaskedSession, count: int) -> None:
    """Raises a MasktoolError where a file names more or fewer classes than it scores: which is which is not known."""
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
    """Computes one output.

    Raises:
        MasktoolError: there is no such output, or it holds no numbers.
    """
    output = session.check_output(output)
    values = session.run(subject.prepared.array, inputs=inputs, outputs=[output])[output]
    return Reading(session, output, dict(inputs or {}), first_row(output, values))


def first_row(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Returns what an output (1, ...) holds of one image, or raises a MasktoolError where it holds no numbers."""
    if values.ndim == 0 or values.dtype.kind not in "biuf":
        raise MasktoolError("an output without one row of numbers per image", where=name, got=values.dtype)
    return values[0].astype(np.float32)


def check_finite(
    scores: NDArray[np.floating[Any]], image: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.floating[Any]]:
    """Returns the scores, or raises a MasktoolError: a map made from NaN would be NaN everywhere.

    Args:
        scores: of a model.
        image: that they are of, which may be what is not finite.
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
