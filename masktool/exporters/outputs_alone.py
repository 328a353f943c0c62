"""What gives some of a model's outputs, without what is computed for the others alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common


def read_outputs_alone(path: Path, names: Collection[str]) -> bytes:
    """Returns the part of a file that gives some of its outputs, as a model in memory, weights included.

    Args:
        path: the path of the file.
        names: the names of the outputs.
    """
    model = ir.load(path)
    keep_outputs(model, [value for value in model.graph.outputs if value.name in names])
    ir.external_data.load_to_model(model)
    return as_bytes(model)


def keep_outputs(model: ir.Model, values: Sequence[ir.Value]) -> None:
    """Makes values the only outputs of a model, and removes what is needed for others alone, in place."""
    model.graph.outputs.clear()
    model.graph.outputs.extend(values)
    drop_unused(model)


def drop_unused(model: ir.Model) -> None:
    """Removes nodes, initializers and inputs that nothing needs, in place."""
    common.RemoveUnusedNodesPass()(model)
    graph = model.graph
    outputs = set(graph.outputs)
    for value in [value for value in graph.inputs if not value.uses() and value not in outputs]:
        graph.inputs.remove(value)
        graph.initializers.pop(str(value.name), None)  # its default


def as_bytes(model: ir.Model) -> bytes:
    """Returns a model as bytes."""
    return ir.to_proto(model).SerializeToString()
