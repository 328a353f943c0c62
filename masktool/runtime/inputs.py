"""Inputs of a model besides the image and the mask: their description, and checks of the values given for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from masktool.contract import (
    BATCH_AXIS,
    EXPLAIN_INPUT,
    MASK_INPUT,
    SALIENCY_MAP,
    TARGET_INPUT,
    TOP_CLASS,
    WEIGHTS_INPUT,
    Metadata,
)
from masktool.errors import MasktoolError
from masktool.messages import differently, parameter
from masktool.runtime.checks import show_shape
from masktool.runtime.one_by_one import is_row, shape_of_many
from masktool.tensor_types import numpy_type

Inputs = Mapping[str, npt.ArrayLike]


@dataclasses.dataclass(frozen=True)
class OtherInput:
    """An input that is neither the image nor the mask.

    Attributes:
        name: name of the input.
        dtype: dtype of its elements.
        shape: length of each axis; None for an axis of any length.
        per_result: whether its first axis has one row per result, so that a single row serves all results.
        required: whether a value must be given.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    per_result: bool
    required: bool = True

    @classmethod
    def of(cls, node: Any, one_by_one: bool = False, *, required: bool = True) -> OtherInput:
        """Returns the input that ONNX Runtime describes.

        Args:
            node: ONNX Runtime's description of the input.
            one_by_one: whether the file takes one image at a time, so that a row belongs to one result.
            required: whether a value must be given.

        Raises:
            MasktoolError: the input is no tensor of numbers.
        """
        shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
        dtype = numpy_type(node)
        if one_by_one and is_row(shape):
            return cls(node.name, dtype, shape_of_many(shape), per_result=True, required=required)
        return cls(node.name, dtype, shape, node.shape[:1] == [BATCH_AXIS], required)

    def __str__(self) -> str:
        return f"{self.name!r} {self.dtype} {show_shape(self.shape)}"

    def check(self, given: npt.ArrayLike, results: int) -> np.ndarray:
        """Returns the value given for this input, in the input's dtype and shape.

        Args:
            given: numbers; an array of fewer axes than the input has is broadcast to it.
            results: number of rows to which a single row is repeated, where the input has one row per result.

        Raises:
            MasktoolError: the value's dtype or shape does not fit the input.
        """
        array = np.asarray(given)
        if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and self.dtype.kind != "f"):
            raise MasktoolError("wrong dtype", where=f"input {self.name!r}", expected=self.dtype, got=array.dtype)
        if array.ndim < len(self.shape):
            array = self.spread(array)
        fits = array.ndim == len(self.shape) and all(
            length in (None, got) for length, got in zip(self.shape, array.shape, strict=True)
        )
        if not fits:
            raise MasktoolError(
                "wrong shape",
                where=f"input {self.name!r}",
                expected=show_shape(self.shape),
                got=show_shape(array.shape),
            )
        if self.per_result and len(array) == 1:
            array = np.repeat(array, results, axis=0)
        return np.ascontiguousarray(array, dtype=self.dtype) if array.ndim else array.astype(self.dtype)

    def spread(self, array: np.ndarray) -> np.ndarray:
        """Returns an array of fewer axes than the input, broadcast to its shape; unchanged where that does not fit."""
        try:
            return np.broadcast_to(array, [length or 1 for length in self.shape])
        except ValueError:
            return array


def describe_other_inputs(
    required: Mapping[str, Any], inputs: Mapping[str, Any], metadata: Metadata
) -> tuple[OtherInput, ...]:
    """Returns the inputs of a file besides image, mask, and in a file with gradients what chooses these.

    Args:
        required: ONNX Runtime's descriptions of the inputs that must be given, by name.
        inputs: those of all inputs; the optional ones of a file that takes a mask are left to their defaults.
        metadata: what the file says about itself.
    """
    own = {metadata.image_input, MASK_INPUT, *([TARGET_INPUT, WEIGHTS_INPUT] if metadata.has_gradients else [])}
    return tuple(
        OtherInput.of(node, metadata.one_by_one, required=name in required)
        for name, node in (required if metadata.takes_mask else inputs).items()
        if name not in own
    )


def find_explanation(outputs: Sequence[str], metadata: Metadata) -> list[str]:
    """Returns the names of the outputs that an explanation adds, which stand behind the model's own."""
    return [] if metadata.takes_mask else list(outputs[outputs.index(SALIENCY_MAP) :])


def ask_top_class(others: Iterable[OtherInput], explanation: Sequence[str], outputs: Sequence[str]) -> Inputs:
    """Returns what a file that explains itself is asked where the caller says nothing; nothing for any other file.

    That is to explain the top class, and to explain at all where an output of the explanation is wanted.

    Args:
        others: inputs that the file has besides the image.
        explanation: names of the outputs that the explanation adds.
        outputs: names of the outputs that are wanted.
    """
    if not explanation:
        return {}
    asked = {TARGET_INPUT: TOP_CLASS, EXPLAIN_INPUT: not set(outputs).isdisjoint(explanation)}
    return {each.name: asked[each.name] for each in others if each.name in asked}


def check_others(
    others: Iterable[OtherInput], given: Inputs | None, results: int, left_out: Inputs | None = None
) -> dict[str, np.ndarray]:
    """Returns the checked values of the inputs besides the image and the mask, by name.

    Args:
        others: inputs that the model has besides the image and the mask.
        given: values by the inputs' names; None for none.
        results: number of results of the pass.
        left_out: values of inputs that are not given, by the inputs' names; None for none.

    Raises:
        MasktoolError: a required input has no value, a value no input, or a value does not fit its input.
    """
    if not isinstance(given, Mapping | None):
        raise MasktoolError(
            "not inputs", where=parameter("inputs"), expected="values by name", got=type(given).__name__
        )
    known, values = {other.name: other for other in others}, {**(left_out or {}), **(given or {})}
    if missing := [str(other) for name, other in known.items() if other.required and name not in values]:
        raise MasktoolError(
            "the model needs more than the image",
            where=", ".join(missing),
            fix="give " + differently(python="inputs={NAME: array}", command="--input NAME=VALUE or NAME=FILE"),
        )
    if unknown := sorted(set(values) - set(known)):
        raise MasktoolError(
            "no such input", where=", ".join(unknown), expected=", ".join(map(str, known.values())) or "none"
        )
    return {name: other.check(values[name], results) for name, other in known.items() if name in values}
