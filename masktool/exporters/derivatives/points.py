"""Where a network is measured: values for all its inputs, drawn until it runs on them and gives numbers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from masktool.errors import MasktoolError, describe_exception
from masktool.exporters.onnx_file import describe_value
from masktool.messages import Placeholder, parameter

Feed: TypeAlias = "dict[str, np.ndarray]"
"""A value for every input, by its name."""
Kind = Literal["normal", "unit"]
KINDS: Mapping[Kind, str] = {
    "normal": "random numbers of mean 0 and deviation 1",
    "unit": "random numbers from 0 to 1",
}
"""What floats are drawn as, in the order in which it is tried, and what each is called; integers and booleans are 0."""
BATCHES = (2, 1, 4, 3)
"""Lengths of an open batch that are tried: two first, in which rows that change one another show."""
LENGTHS = (16, 32, 64, 224, 8, 3, 1)
"""Lengths of other open axes that are tried, all of one length."""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How points are drawn.

    Attributes:
        inputs: the inputs of the network.
        given: values that the user gave, by name, which stay.
        kind: what floats are drawn as.
        batch: the length of an open first axis.
        length: the length of every other open axis.
    """

    inputs: tuple[ir.Value, ...]
    given: Mapping[str, np.ndarray]
    kind: Kind
    batch: int
    length: int

    def draw(self, rng: np.random.Generator) -> Feed:
        """Returns a value for every input."""
        return {str(value.name): self.given.get(str(value.name), self.draw_value(value, rng)) for value in self.inputs}

    def draw_value(self, value: ir.Value, rng: np.random.Generator) -> np.ndarray:
        """Returns a value for one input."""
        assert value.dtype is not None  # check_fed looks at it
        shape, dtype = [self.settle(*each) for each in enumerate(value.shape or ())], value.dtype.numpy()
        if not value.dtype.is_floating_point():
            return np.zeros(shape, dtype)
        return (rng.standard_normal(shape) if self.kind == "normal" else rng.random(shape)).astype(dtype)

    def settle(self, axis: int, length: int | ir.SymbolicDim) -> int:
        """Returns the length of an axis: its own, that of a value given for an axis of its name, or the one drawn."""
        if isinstance(length, int):
            return length
        for value in self.inputs:
            if (array := self.given.get(str(value.name))) is not None and value.shape is not None:
                for other, own in zip(value.shape, array.shape, strict=False):
                    if other == length and length.value is not None:
                        return own
        return self.batch if axis == 0 else self.length


def find_drawing(
    inputs: Iterable[ir.Value], given: Mapping[str, npt.ArrayLike], run: Callable[[Feed], np.ndarray]
) -> Drawing:
    """Returns how to draw points on which a network runs and gives numbers.

    Args:
        inputs: the inputs of the network.
        given: values that the user gave, by name.
        run: the function that runs the network and returns the output that is differentiated.

    Raises:
        MasktoolError: a value that was given does not fit its input, or the network runs on nothing that was tried.
    """
    values = tuple(inputs)
    checked = check_fed(values, given)
    failed: MasktoolError | None = None
    for drawing in possible_drawings(values, checked):
        try:
            if np.isfinite(run(drawing.draw(np.random.default_rng(0)))).all():
                return drawing
        except MasktoolError as error:
            failed = failed or error
    example = parameter("inputs", Placeholder("NAME=FILE.npy"))
    raise MasktoolError(
        "the network gives NaN or infinity on all that was tried" if failed is None else "the network does not run",
        where="inputs " + ", ".join(map(describe_value, values)),
        got=None if failed is None else describe_exception(failed.__cause__ or failed),
        fix="give values that it takes, for the comparison with central differences: " + example,
    )


def possible_drawings(inputs: tuple[ir.Value, ...], given: Mapping[str, np.ndarray]) -> Iterator[Drawing]:
    """Yields the ways of drawing that are tried, without those that differ in nothing."""
    shapes = [value.shape for value in inputs if value.shape is not None and value.name not in given]
    batches = BATCHES if any(shape and not isinstance(shape[0], int) for shape in shapes) else BATCHES[:1]
    lengths = LENGTHS if any(not isinstance(each, int) for shape in shapes for each in shape[1:]) else LENGTHS[:1]
    for length, kind, batch in itertools.product(lengths, KINDS, batches):
        yield Drawing(inputs, given, kind, batch, length)


def check_fed(inputs: tuple[ir.Value, ...], given: Mapping[str, npt.ArrayLike]) -> dict[str, np.ndarray]:
    """Returns the values that were given, in their inputs' types.

    Raises:
        MasktoolError: a value does not fit its input, or an input for which none was given cannot be drawn.
    """
    by_name = {str(value.name): value for value in inputs}
    described = ", ".join(map(describe_value, inputs))
    found = {}
    for name, own in given.items():
        where = parameter("inputs", name)
        if name not in by_name:
            raise MasktoolError("no such input", where=where, expected="the name of an input", got=described)
        value, array = by_name[name], np.asarray(own)
        if value.dtype is None or value.shape is None:
            raise MasktoolError("an input of unknown type or rank", where=where, got=describe_value(value))
        if not fits_input(array, value.dtype, value.shape):
            got = f"{array.dtype} ({', '.join(map(str, array.shape))})"
            raise MasktoolError(
                "a value that does not fit its input", where=where, expected=describe_value(value), got=got
            )
        found[name] = array.astype(value.dtype.numpy())
    for name, value in by_name.items():
        if name not in found and not can_be_drawn(value):
            raise MasktoolError(
                "an input that cannot be drawn", where=f"input {name!r}", expected="a tensor of numbers of known rank",
                got=describe_value(value), fix="declare its shape in the file",
            )  # fmt: skip
    return found


def fits_input(array: np.ndarray, dtype: ir.DataType, shape: ir.Shape) -> bool:
    """Tells whether an array of numbers can be fed for an input: integers for floats too, and never the reverse."""
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not dtype.is_floating_point()):
        return False
    return array.ndim == len(shape) and all(
        not isinstance(length, int) or length == own for length, own in zip(shape, array.shape, strict=True)
    )


def can_be_drawn(value: ir.Value) -> bool:
    """Tells whether an input is a tensor of numbers whose rank is known."""
    if not isinstance(value.type, ir.TensorType) or value.shape is None:
        return False
    return value.dtype is not None and value.dtype != ir.DataType.STRING
