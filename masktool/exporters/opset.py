"""Lifting a graph to an opset that mask rules know."""

from __future__ import annotations

from typing import TypeAlias

import onnx
import onnx_ir as ir

from masktool.errors import MasktoolError
from masktool.exporters.node_inputs import input_of
from masktool.exporters.rewrites.replacement import read_constant

MINIMUM_OPSET = 18
MINIMUM_IR_VERSION = 10
OPSET_OF_IR_VERSION_10 = 21
"""The latest opset that the IR version knows: both came with ONNX 1.16, in ONNX Runtime 1.18."""
COORDINATES_SINCE = 11
"""Opset in which Resize got an attribute for its coordinates, with another default than was the rule before."""
LARGE_BYTES = 1024
"""Weights beyond this size stay out of the conversion, which reads only shapes, axes, scales and the like, and cannot
take more than 2 GiB."""


def opset_of(model: ir.Model) -> int:
    """Returns the version of the standard domain that a model is written in."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def shorten_domain(model: ir.Model) -> None:
    """Calls the standard domain by its short name, the empty one, in place: nodes carry that already."""
    version = model.opset_imports.pop("ai.onnx", None)
    if version is not None:
        model.opset_imports.setdefault("", version)


Ends: TypeAlias = "list[tuple[str, onnx.defs.OpSchema.FormalParameterOption]]"
"""The names of an operator's inputs or outputs, and which may be left out."""


def has_one_form(operator: str, opset: int, other: int) -> bool:
    """Tells whether a standard operator has the same inputs, outputs, attributes and defaults in two opsets.

    Types that a version adds change nothing for a graph that did without them.
    """
    if opset == other:
        return True
    try:
        forms = [form_of(onnx.defs.get_schema(operator, version)) for version in (opset, other)]
    except onnx.defs.SchemaError:  # one of them does not have it
        return False
    return forms[0] == forms[1]


def form_of(schema: onnx.defs.OpSchema) -> tuple[dict[str, object], Ends, Ends]:
    """Returns an operator's attributes with their defaults, its inputs and its outputs, without the types it takes."""
    defaults: dict[str, object] = {
        name: (each.required, each.default_value.SerializeToString()) for name, each in schema.attributes.items()
    }
    inputs, outputs = ([(each.name, each.option) for each in end] for end in (schema.inputs, schema.outputs))
    return defaults, inputs, outputs


def lift_opset(model: ir.Model) -> ir.Model:
    """Returns a model in opset 18 or later: the model itself, changed or not, or a new one.

    Raises:
        MasktoolError: the converter does not know an operator, or cannot convert it.
    """
    model.ir_version = max(model.ir_version or 0, MINIMUM_IR_VERSION)  # below 4, every weight had to be an input
    opset = opset_of(model)
    if opset >= MINIMUM_OPSET:
        return model
    large = detach_large_weights(model.graph)
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), MINIMUM_OPSET))
    except Exception as error:  # the converter's assertions, and whatever the way there and back raises
        raise MasktoolError(
            "the opset cannot be lifted",
            expected=f"opset {MINIMUM_OPSET} or later",
            got=f"{opset}, and the converter says: {error}",
            fix=f"export the network again with opset {MINIMUM_OPSET} or later",
        ) from error
    attach_weights(converted.graph, large)
    if opset < COORDINATES_SINCE:
        state_coordinates(converted.graph)
    return converted


def detach_large_weights(graph: ir.Graph) -> dict[str, ir.TensorProtocol]:
    """Makes inputs of all large initializers, in place, and returns their tensors by name."""
    large = {}
    for name, value in tuple(graph.initializers.items()):
        if value.const_value is not None and value.const_value.nbytes > LARGE_BYTES:
            large[name] = value.const_value
            value.shape, value.dtype = ir.Shape(value.const_value.numpy().shape), value.const_value.dtype
            value.const_value = None
            del graph.initializers[name]
            if not value.is_graph_input():
                graph.inputs.append(value)
    return large


def attach_weights(graph: ir.Graph, weights: dict[str, ir.TensorProtocol]) -> None:
    """Makes initializers of the inputs that stand for weights, in place."""
    for value in tuple(graph.inputs):
        if value.name in weights:
            graph.inputs.remove(value)
            value.const_value = weights[value.name]
            graph.register_initializer(value)


def state_coordinates(graph: ir.Graph) -> None:
    """Writes down what Upsample and Resize did before opset 11, in place: the converter leaves it out.

    Position i of the output lies at i / scale of the input; ``nearest`` cuts off, or rounds up where it makes smaller.

    Source: ONNX operator specification, Upsample-9; ONNX Runtime's Resize for opset 10.
    """
    for node in graph:
        if node.op_type == "Resize" and node.domain == "":
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "asymmetric"
            )
            scales = read_constant(input_of(node, 2))
            shrinks = scales is not None and bool((scales < 1).any())
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "ceil" if shrinks else "floor")


def lower_opset(model: ir.Model) -> None:
    """Declares the opset and IR version that ONNX Runtime 1.18 knows, in place, where all nodes mean the same in it."""
    own, earlier = opset_of(model), OPSET_OF_IR_VERSION_10
    nodes = (node for graph in model.graphs() for node in graph if node.domain == "")
    if own > earlier and all(means_the_same(node, earlier, own) for node in nodes):
        model.opset_imports[""] = earlier
    if opset_of(model) <= earlier:
        model.ir_version = MINIMUM_IR_VERSION


def means_the_same(node: ir.Node, earlier: int, later: int) -> bool:
    """Tells whether a standard operator's node, written for a later opset, means the same in an earlier one.

    An attribute that came in between and that the node leaves out has the earlier meaning as its default.
    """
    try:
        before, after = (onnx.defs.get_schema(node.op_type, version) for version in (earlier, later))
    except onnx.defs.SchemaError:  # one of them does not have it
        return False
    (known, *ends), (others, *later_ends) = form_of(before), form_of(after)
    return ends == later_ends and set(node.attributes) <= set(known) and known.items() <= others.items()
