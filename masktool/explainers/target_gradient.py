"""Gradients of targets from the file that holds those of class scores, or of any values of one output.

A target is a function of some numbers z_i: its classes' logits, or values of its output. With w_i its derivatives with
respect to these, which may differ from image to image, its gradient is the sum over i of w_i times that of z_i. A file
with gradients of class scores gives them one class at a time: a pass for each number, which gives the number too. A
file with gradients of an output takes the w_i as its weights and gives the sum in one pass; where they depend on the
numbers, as those of a cosine do, a pass without gradients gives these first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.contract import Loss, Metadata
from masktool.errors import MasktoolError
from masktool.explainers.target import SettledTarget
from masktool.messages import call
from masktool.runtime.gradients import Gradient, describe_differentiated
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession

Numbers = NDArray[np.floating[Any]]
Rows = NDArray[np.intp]
"""Positions of images."""
KINDS_OF_VALUES = (None, "logits")
"""Kinds of class outputs whose values are what the gradients of class scores are of."""


class GradientRequest(NamedTuple):
    """What is asked of the model besides images, masks, and classes or weights.

    Attributes:
        session: a session whose file holds gradients.
        inputs: the values of the model's inputs other than the image and the mask, by name.
        loss: the form of a class's score; of an output's values gradients are of these as they are.
        of: the names of the values to differentiate with respect to.
    """

    session: MaskedSession
    inputs: Inputs
    loss: Loss
    of: Sequence[str]

    def run(self, images: npt.ArrayLike, masks: npt.ArrayLike | None, classes: npt.ArrayLike) -> Gradient:
        """Returns the gradients of classes' scores, one class for each result or one for all, in one pass."""
        return self.session.gradient(images, masks, self.inputs, target=classes, loss=self.loss, of=self.of)

    def weigh(self, images: npt.ArrayLike, masks: npt.ArrayLike | None, weights: npt.ArrayLike) -> Gradient:
        """Returns the gradients of an output's values times their weights, in one pass."""
        return self.session.gradient(images, masks, self.inputs, weights=weights, of=self.of)


def count_gradients(targets: Sequence[SettledTarget], session: MaskedSession) -> int:
    """Returns the number of passes, at most, that one gradient of each target takes in a session."""
    if session.gradient_output is None:
        return sum(target.n_numbers for target in targets)
    return len(targets) * (2 if asks_first(targets, session) else 1)


def asks_first(targets: Sequence[SettledTarget], session: MaskedSession) -> bool:
    """Tells whether an output's values have to be known before they are weighed: their derivatives or their number."""
    open_lengths = None in session.output_shapes[str(session.gradient_output)][1:]
    return open_lengths or not all(target.is_linear for target in targets)


def check_differentiable(title: str, target: SettledTarget, metadata: Metadata, path: Path) -> None:
    """Raises a MasktoolError where a target has no gradient, or a file holds none or those of something else.

    Args:
        title: the method that asks for the gradient.
        target: the target.
        metadata: the metadata of the file.
        path: the path of the file.
    """
    if target.n_numbers == 0:
        raise target.refuse_gradient(title)
    if serves(metadata, target):
        return
    name = target.outputs[0]
    wanted = f"{title} needs gradients of {describe_differentiated(name)}"
    if not metadata.has_gradients:
        add = (
            call("add_gradients_to", path, "NEW.onnx", loss="logit")
            if name is None
            else call("add_gradients_to", path, "NEW.onnx", gradient_output=name)
        )
        raise MasktoolError(f"{wanted}, and the file holds none", where=path, fix="add them: " + add)
    again = (
        call("export", metadata.source, "NEW.onnx", gradient="logit")
        if name is None
        else call("export", metadata.source, "NEW.onnx", gradient_output=name)
    )
    raise MasktoolError(
        f"{wanted}, and the file holds those of {describe_differentiated(metadata.gradient_output)}",
        where=path,
        got=target.name,
        fix=f"export {metadata.source} again: " + again,
    )


def serves(metadata: Metadata, target: SettledTarget) -> bool:
    """Tells whether the gradients that a file holds give that of a target."""
    if metadata.gradient_output is None:
        return metadata.has_gradients and bool(target.classes)
    needed = {metadata.class_output if name is None else name for name in target.outputs}
    return needed == {metadata.gradient_output} and (
        None not in target.outputs or metadata.output_kind in KINDS_OF_VALUES
    )


def differentiate_targets(
    request: GradientRequest,
    images: NDArray[np.float32],
    masks: NDArray[np.float32] | None,
    targets: Sequence[SettledTarget],
) -> Gradient:
    """Returns the gradients of targets, one for each image.

    Args:
        request: what is asked besides.
        images: the images, (n, ...).
        masks: the masks, (n, 1, h, w); None masks nothing.
        targets: the target of each image, (n,), which :func:`check_differentiable` has let pass.
    """
    if request.session.gradient_output is None:
        return differentiate_by_class(request, images, masks, targets)
    found = request.weigh(images, masks, weigh_values(request, images, masks, targets))
    assert found.output is not None  # the file's gradients are of it
    values = np.zeros(len(targets), np.float32)
    for target, rows in rows_of_each(targets):
        values[rows] = target.combine(read_places(found.output[rows], target)).values
    return dataclasses.replace(found, objective=values)


def differentiate_by_class(
    request: GradientRequest,
    images: NDArray[np.float32],
    masks: NDArray[np.float32] | None,
    targets: Sequence[SettledTarget],
) -> Gradient:
    """Returns the gradients of targets from those of their classes, in as many passes as the most of them have."""
    counts = np.array([len(target.classes) for target in targets])
    if counts.max() == 1:
        return request.run(images, masks, np.array([target.classes[0] for target in targets], np.int64))
    passes: list[Gradient] = []
    rows_of_passes: list[Rows] = []
    for position in range(counts.max()):
        rows = np.flatnonzero(counts > position)
        classes = np.array([targets[row].classes[position] for row in rows.tolist()], np.int64)
        passes.append(request.run(images[rows], None if masks is None else masks[rows], classes))
        rows_of_passes.append(rows)
    return combine_passes(targets, passes, rows_of_passes)


def weigh_values(
    request: GradientRequest,
    images: NDArray[np.float32],
    masks: NDArray[np.float32] | None,
    targets: Sequence[SettledTarget],
) -> NDArray[np.float32]:
    """Returns what an output's values weigh in the gradient of each target, (n, ...); (1, ...) where all are alike.

    Args:
        request: what is asked besides.
        images: the images, (n, ...).
        masks: the masks, (n, 1, h, w); None masks nothing.
        targets: the target of each image, (n,).
    """
    session, output = request.session, str(request.session.gradient_output)
    if asks_first(targets, session):
        values = session.run(images, masks, request.inputs, [output])[output]
    else:
        each = targets[:1] if len(set(targets)) == 1 else targets
        values = np.zeros([len(each), *(length or 0 for length in session.output_shapes[output][1:])], np.float32)
        targets = each
    weights = np.zeros(values.shape, np.float32).reshape(len(values), -1)
    for target, rows in rows_of_each(targets):
        of_numbers = target.combine(read_places(values[rows], target)).weights
        if not np.isfinite(of_numbers).all():
            raise MasktoolError(
                "the target has no derivative there", where=target.name, expected="numbers", got="NaN or infinity"
            )
        np.add.at(weights, (rows[:, None], target.places(values.shape[1:])), of_numbers)
    return weights.reshape(values.shape)


def rows_of_each(targets: Sequence[SettledTarget]) -> Iterator[tuple[SettledTarget, Rows]]:
    """Yields each target once, with the positions of its images."""
    for target in dict.fromkeys(targets):
        yield target, np.array([row for row, each in enumerate(targets) if each == target])


def read_places(values: NDArray[Any], target: SettledTarget) -> Numbers:
    """Returns the numbers (n, P) that a target is a function of, of an output's values (n, ...)."""
    numbers: Numbers = values.reshape(len(values), -1)[:, target.places(values.shape[1:])].astype(np.float64)
    return numbers


def combine_passes(
    targets: Sequence[SettledTarget], passes: Sequence[Gradient], rows_of_passes: Sequence[Rows]
) -> Gradient:
    """Returns the gradients of targets from those of their classes.

    Args:
        targets: the target of each image.
        passes: gradients of one class of each target that has so many.
        rows_of_passes: the positions of the images in each pass; all of them in the first.
    """
    logits = np.zeros((len(targets), len(passes)), np.float32)
    for position, (found, rows) in enumerate(zip(passes, rows_of_passes, strict=True)):
        logits[rows, position] = found.objective
    values, weights = np.zeros(len(targets), np.float32), np.zeros_like(logits)
    for target, rows in rows_of_each(targets):
        combined = target.combine(logits[rows, : len(target.classes)])
        values[rows], weights[rows, : len(target.classes)] = combined.values, combined.weights

    def add_up(parts: Sequence[NDArray[Any] | None]) -> NDArray[np.float32] | None:
        if parts[0] is None:
            return None
        total = np.zeros_like(parts[0])
        for position, (each, rows) in enumerate(zip(parts, rows_of_passes, strict=True)):
            assert each is not None  # all passes were asked for the same
            total[rows] += weights[rows, position].reshape(-1, *[1] * (each.ndim - 1)) * each
        return total

    maps = zip(*(found.gradient_feature_maps for found in passes), strict=True)
    return dataclasses.replace(
        passes[0],
        objective=values,
        image=add_up([found.image for found in passes]),
        mask=add_up([found.mask for found in passes]),
        gradient_feature_map=add_up([found.gradient_feature_map for found in passes]),
        gradient_feature_maps=tuple(total for parts in maps if (total := add_up(parts)) is not None),
    )
