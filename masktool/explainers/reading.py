"""What an explanation reads of a model: the outputs that its targets are made of, for the image and under masks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.explainers.model_outputs import ModelOutputs, Scale
from masktool.explainers.subject import Subject
from masktool.explainers.target import Target
from masktool.explainers.targets.output_value import hint_place
from masktool.messages import parameter
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession

Scores = TypeVar("Scores", bound=NDArray[np.floating[Any]])
LISTED_NUMBERS = 16
"""Most values of an input that are all listed, of more shape and digest; and most labels that an error lists."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """The outputs of one image with nothing missing, and how to have the same outputs under masks.

    Attributes:
        session: the session of the model.
        names: the names of the outputs that targets are made of.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        whole: the outputs of the image with nothing missing.
        others: other outputs of the image, (...) float32 each, from the same pass, by name.
        lists: the names of outputs that may be lists of another length under other masks.
    """

    session: MaskedSession
    names: tuple[str, ...]
    inputs: Mapping[str, npt.ArrayLike]
    whole: ModelOutputs
    others: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    lists: frozenset[str] = frozenset()

    def under_masks(self, image: npt.ArrayLike, masks: npt.ArrayLike) -> ModelOutputs:
        """Returns the outputs of one image (1, ...) under masks (M, 1, h, w)."""
        return self.answer(self.session.run(image, masks, self.inputs, self.names))

    def answer(self, found: Mapping[str, NDArray[Any]]) -> ModelOutputs:
        """Returns outputs by name as those of M images.

        Raises:
            MasktoolError: an output has lists of other lengths under other masks.
        """
        for name, values in found.items():
            if name not in self.lists:
                self.session.refuse_lists(name, values)
        return dataclasses.replace(self.whole, values=found)

    @property
    def has_classes(self) -> bool:
        """Whether the class output is among the outputs."""
        return self.session.metadata.class_output in self.names

    @property
    def class_scores(self) -> NDArray[np.float32]:
        """The scores (K,) of the classes with nothing missing; none where the class output is not read."""
        return self.whole.class_scores[0] if self.has_classes else np.zeros(0, np.float32)


def read_scores(
    session: MaskedSession,
    subject: Subject,
    targets: Sequence[Target],
    inputs: Inputs | None,
    others: Sequence[str] = (),
    scale: Scale = "probability",
) -> Reading:
    """Reads the outputs that targets need of an image with nothing missing, in one pass.

    Args:
        session: the session of the model.
        subject: the image.
        targets: the targets.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        others: the names of other outputs to read in the same pass.
        scale: the scale of the classes' scores: ``probability`` or ``log-odds``.

    Raises:
        MasktoolError: there is no such output, it holds no numbers, or the model has no class output.
    """
    wanted = dict.fromkeys(name for target in targets for name in target.outputs)
    classes = require_class_output(session) if None in wanted else None
    named = [session.check_output(name) for name in wanted if name is not None]
    names = tuple(dict.fromkeys([*([] if classes is None else [classes]), *named]))
    found = session.run(subject.fed, inputs=inputs, outputs=list(dict.fromkeys([*names, *others])))
    values = {name: first_row(name, found[name])[None] if name in named else found[name] for name in names}
    whole = ModelOutputs(session.metadata, values, scale, subject.prepared)
    if classes is not None:
        check_labels(session, whole.class_scores.shape[1])
    beside = {name: first_row(name, found[name]) for name in others}
    lists = frozenset(name for target in targets for name in target.lists)
    return Reading(session, names, dict(inputs or {}), whole, beside, lists)


def require_class_output(session: MaskedSession) -> str:
    """Returns the name of the class output.

    Raises:
        MasktoolError: the model has none; the error lists its outputs and how to choose from them.
    """
    scores = session.metadata.class_output
    if scores is None:
        name, shape = next(iter(session.output_shapes.items()))
        raise MasktoolError(
            "the model has no class output to explain",
            where=session.path,
            expected="the name of an output, and indices into it",
            got=session.describe_outputs(),
            fix=hint_place(name, shape[1:]) + ", or of a detector " + parameter("target", "box:0"),
        )
    return scores


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


def first_row(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the one row of an output (1, ...), or raises a MasktoolError where the output has no row of numbers."""
    if values.ndim == 0 or values.dtype.kind not in "biuf":
        raise MasktoolError("an output without one row of numbers per image", where=name, got=values.dtype)
    return values[0].astype(np.float32)


def check_finite(scores: Scores, image: NDArray[np.floating[Any]] | None = None) -> Scores:
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
