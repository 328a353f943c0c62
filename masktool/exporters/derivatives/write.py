"""Writes a network's graph with gradients: :func:`differentiate`, the whole path."""

from __future__ import annotations

import dataclasses
import json
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from masktool.contract import METADATA_PREFIX, __version__
from masktool.errors import MasktoolError
from masktool.exporters.derivatives.scalar_ends import SUMMARIES, Scalar
from masktool.files import check_target
from masktool.messages import OneOf, Placeholder, parameter
from masktool.streams import unheard

if TYPE_CHECKING:
    import numpy.typing as npt

    from masktool.exporters.derivatives.differentiation import DerivativeGraph
    from masktool.exporters.derivatives.measurement import DerivativeFigures
    from masktool.exporters.derivatives.source import GraphSource, OnnxLike

__all__ = ["Derivative", "differentiate"]

PRODUCER = "masktool"
DERIVATIVE_PROPERTY = METADATA_PREFIX + "derivative"
"""Key of the ``metadata_props`` entry, one JSON document, that says what a file's gradients are of."""
GIVE_OTHERS = "give other values: " + parameter("inputs", Placeholder("NAME=FILE.npy"))
MIXED = (
    "the rows of the batch change one another's results, as measured: the gradient is that of the sum of all rows' "
    "numbers, and no row of it belongs to one of them"
)


@dataclasses.dataclass(frozen=True)
class Derivative:
    """A file with the gradient of a number of each row of an output.

    Attributes:
        path: the path of the file.
        gradients: names of the outputs that hold gradients, by the names of the inputs that they are with respect to.
        output: name of the output that is differentiated.
        target: the number of each of its rows: ``top``, ``sum``, ``weights`` or indices.
        batched: whether the first axis of the output is the batch; otherwise one number of the whole output is
            differentiated.
        objective: name of the output with the numbers that are differentiated.
        weights: name of the input that weighs the output; None where there is none.
        figures: what was measured: each gradient against central differences, relative to its length, by the name of
            its output; ``outputs``, the network's own outputs against the source's; ``against``, the precision of the
            central differences; ``spread``, how far these disagree with one another in float32; ``points``, what was
            fed.
        n_bytes: the size in bytes of the file and, where there is one, of the file beside it with its weights.
        notes: notes for the user, one sentence each.
    """

    path: Path
    gradients: Mapping[str, str]
    output: str
    target: str | tuple[int, ...]
    batched: bool
    objective: str
    weights: str | None
    figures: Mapping[str, float | str]
    n_bytes: int
    notes: tuple[str, ...]


@unheard()
def differentiate(
    model: OnnxLike,
    path: str | os.PathLike[str],
    *,
    of: str | Sequence[str],
    output: str,
    target: str | int | Sequence[int] | None = None,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
) -> Derivative:
    """Writes an ONNX file that also gives the gradient of a number of an output with respect to any float inputs.

    The network may be any: inputs and outputs of any number, rank and meaning. The file gives everything that the
    network gives; ``objective`` with the numbers that are differentiated; and ``gradient_NAME`` for each input, in its
    shape, as float32 (float64 where the input is that). A name that the network has already gets a ``_`` behind it.

    A number is differentiated for each row of the batch, which is the first axis of the output where that is as long as
    an input's, or open like it. The gradient is of the sum of these numbers: where no row changes another's results, a
    row of it is the gradient of that row's own number. An input without a batch axis gets the gradient of the sum.
    Where the output has no batch axis, one number of the whole output is differentiated.

    Args:
        model: the path of an ``.onnx`` file, or an ONNX model in memory; it stays as it is.
        path: the path of the file to write; the file appears only when everything has succeeded.
        of: the names of the float inputs that the gradient is with respect to.
        output: the name of the float output.
        target: the number of each row: indices of one place into all axes but the batch; ``top``, the largest; ``sum``;
            or ``weights``, Σ w · y with weights that are fed as a further input, ``OUTPUT_weights`` in the output's
            shape, which is the vector-Jacobian product. None takes the one number that a row holds.
        inputs: values for inputs by name, for the comparison with central differences; random ones are drawn for the
            others, and 0 for integers.

    Returns:
        What was written, and how it compares with central differences.

    Raises:
        UnsupportedOperatorError: nodes without a gradient rule, or that let no gradient pass; all of them are listed.
        MasktoolError: the model, an input, the output or the target is none that can be differentiated, or the gradient
            is not that of central differences. Then nothing is written.
    """
    from masktool.exporters.derivatives.differentiation import add_derivative
    from masktool.exporters.derivatives.measurement import measure_derivative
    from masktool.exporters.derivatives.source import read_any_graph
    from masktool.exporters.storage import staging

    check_target(path)
    scalar = read_scalar(target)
    source = read_any_graph(model)
    graph = add_derivative(source, [of] if isinstance(of, str) else list(of), output, scalar)
    with staging(Path(path), graph.model) as staged:
        measured = measure_derivative(source, graph, staged.open(), inputs or {})
        declare_unknown_ranks(graph.model, measured.ranks)
        graph.model.metadata_props[DERIVATIVE_PROPERTY] = json.dumps(describe_derivative(source, graph, measured))
        graph.model.producer_name, graph.model.producer_version = PRODUCER, __version__
        staged.write()
        staged.check()
        staged.commit()
        n_bytes = staged.count_bytes()
    return Derivative(
        Path(path),
        graph.gradients,
        output,
        graph.scalar,
        graph.batched,
        graph.objective,
        graph.weights,
        measured.figures,
        n_bytes,
        (*source.notes, *note_measured(measured)),
    )


def read_scalar(target: str | int | Sequence[int] | None) -> Scalar | None:
    """Returns the number of each row that a target names; None where none is named.

    Raises:
        MasktoolError: the target is neither a word nor indices.
    """
    for word in SUMMARIES:
        if target == word:
            return word
    if target is None:
        return None
    parts = target.split(",") if isinstance(target, str) else target if isinstance(target, Sequence) else [target]
    try:
        return tuple(int(part) if isinstance(part, str) else index_of(part) for part in parts)
    except (TypeError, ValueError):
        raise MasktoolError(
            "no such target",
            where=parameter("target", target),
            expected=f"indices such as 0,5, or one of {', '.join(SUMMARIES)}",
            fix="for example " + parameter("target", OneOf(((0, 5), *SUMMARIES), " | ")),
        ) from None


def index_of(value: Any) -> int:
    """Returns a whole number of any type; TypeError for True, False and what is none."""
    if isinstance(value, bool):
        raise TypeError(f"not an index: {value}")
    return operator.index(value)


def describe_derivative(source: GraphSource, graph: DerivativeGraph, measured: DerivativeFigures) -> dict[str, object]:
    """Returns what a file says of its gradients, as JSON values by name."""
    return {
        "source": source.name,
        "source_sha256": source.sha256,
        "gradients": dict(graph.gradients),
        "output": graph.output,
        "target": list(graph.scalar) if isinstance(graph.scalar, tuple) else graph.scalar,
        "batched": graph.batched,
        "objective": graph.objective,
        "weights": graph.weights,
        "figures": dict(measured.figures),
        "tool_version": __version__,
    }


def declare_unknown_ranks(model: ir.Model, ranks: Mapping[str, int]) -> None:
    """Declares the number of axes that a run found, in place, for outputs of unknown shape: ONNX wants it declared."""
    for value in model.graph.outputs:
        if value.shape is None:
            value.shape = ir.Shape([None] * ranks[str(value.name)])


def note_measured(measured: DerivativeFigures) -> Iterator[str]:
    """Yields what the user should know of the measurement."""
    if measured.mixes:
        yield MIXED
    if measured.zero:
        names = ", ".join(measured.zero)
        yield f"the gradient with respect to {names} is 0, but for rounding, at all that was measured; " + GIVE_OTHERS
