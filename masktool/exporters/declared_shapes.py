"""Infers the shapes of values inside a graph from its inputs, for those that a file declares may be wrong.

Converters declare no shape where they know none, an empty one, or that of the example they traced; ONNX Runtime only
warns, where ONNX's own inference and check raise. What inference can say counts; where it can say nothing, which is
behind operators that are not ONNX's, the declared shape stays, unless it is empty. In a graph with sequences no shape
that is declared inside stays: torch declares an element taken out of a sequence with an axis too many.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from masktool.exporters.inference import holds_sequences, infer_types_and_shapes
from masktool.limits import check_limit

BATCH = 0


def open_unknown_lengths(model: ir.Model) -> None:
    """Makes lengths of 0 or below in a model's inputs open, in place: some converters write unknown lengths so."""
    for value in model.graph.inputs:
        if value.shape is not None and value.name not in model.graph.initializers:
            value.shape = ir.Shape([None if isinstance(dim, int) and dim <= 0 else dim for dim in value.shape])


def infer_anew(model: ir.Model) -> None:
    """Replaces the shapes that a model declares inside by inferred ones, in place."""
    declared: dict[ir.Value, ir.Shape] = {}
    for graph in model.graphs():
        for node in graph:
            declared |= {value: value.shape for value in node.outputs if value.shape is not None}
    for value in declared:
        value.shape = None
    infer_types_and_shapes(model, check_type=False)
    unbelieved = set(declared) - set(model.graph.outputs) if holds_sequences(model) else set()
    for value, shape in declared.items():
        if value.shape is None and shape.rank() and value not in unbelieved:
            value.shape = ir.Shape([None if isinstance(dim, int) and dim <= 0 else dim for dim in shape])
        elif value.shape is not None and value.is_graph_output():
            value.shape = completed(value.shape, shape)


def check_sizes(model: ir.Model, where: object) -> None:
    """Raises MasktoolError where a node computes more numbers at once than the limit, as far as lengths are known.

    ONNX Runtime computes what depends on constants alone when it opens a file, whatever that takes.
    """
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None:
                known = math.prod(length for length in value.shape if isinstance(length, int))
                check_limit("tensor", known, where=f"{where}, {node.op_type} {value.name!r}")


def completed(inferred: ir.Shape, declared: ir.Shape) -> ir.Shape:
    """Returns an output's inferred shape, with declared lengths where inference knows none, but for the batch axis."""
    if inferred.rank() != declared.rank():
        return inferred
    return ir.Shape(
        [
            said if axis != BATCH and isinstance(said, int) and said > 0 and not isinstance(found, int) else found
            for axis, (found, said) in enumerate(zip(inferred, declared, strict=True))
        ]
    )
