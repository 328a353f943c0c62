"""Inputs besides the image and the mask: what the model asks for, and what the caller gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from masktool.contract import BATCH_AXIS
from masktool.errors import MasktoolError
from masktool.messages import differently
from masktool.runtime.checks import show_shape
from masktool.runtime.one_by_one import is_row, shape_of_many
from masktool.tensor_types import numpy_type

Inputs = Mapping[str, npt.ArrayLike]


@dataclasses.dataclass(frozen=True)
class OtherInput:
    """An input that is neither the image nor the mask.

    Attributes:
        name: of the input.
        dtype: of its elements.
        shape: None for every axis of any length.
        per_result: whether its first axis has one row per result, so that one row serves all of them.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    per_result: bool

    @classmethod
    def of(cls, node: Any, one_by_one: bool = False) -> OtherInput:
        """Reads an input of ONNX Runtime's.

        Args:
            node: ONNX Runtime's description.
            one_by_one: whether the file takes one image at a time, so that one row is a result's.

        Raises:
            MasktoolError: it is no tensor of numbers.
        """
        shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
        dtype = numpy_type(node)
        if one_by_one and is_row(shape):
            return cls(node.name, dtype, shape_of_many(shape), per_result=True)
        return cls(node.name, dtype, shape, node.shape[:1] == [BATCH_AXIS])

    def __str__(self) -> str:
        return f"{self.name!r} {self.dtype} {show_shape(self.shape)}"

    def check(self, given: npt.ArrayLike, results: int) -> np.ndarray:
        """Returns what was given as the model takes it.

        Args:
            given: numbers; fewer axes than the input has are spread over it.
            results: rows to which a single row is repeated, where the input has one per result.

        Raises:
            MasktoolError: it does not fit.
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
        """Returns an array of fewer axes, repeated along those that it lacks; as it is where that does not fit."""
        try:
            return np.broadcast_to(array, [length or 1 for length in self.shape])
        except ValueError:
            return array


def check_others(others: Iterable[OtherInput], given: Inputs | None, results: int) -> dict[str, np.ndarray]:
    """Returns what to feed for the inputs besides the image and the mask.

    Args:
        others: the inputs that the model has.
        given: values by name.
        results: how many results there will be.

    Raises:
        MasktoolError: an input without a value, a value without an input, or one that does not fit.
    """
    known, values = {other.name: other for other in others}, dict(given or {})
    if missing := [str(other) for name, other in known.items() if name not in values]:
        raise MasktoolError(
            "the model needs more than the image",
            where=", ".join(missing),
            fix="give " + differently(python="inputs={NAME: array}", command="--input NAME=VALUE or NAME=FILE.npy"),
        )
    if unknown := sorted(set(values) - set(known)):
        raise MasktoolError(
            "no such input", where=", ".join(unknown), expected=", ".join(map(str, known.values())) or "none"
        )
    return {name: other.check(values[name], results) for name, other in known.items()}
