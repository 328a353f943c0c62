"""Keeps a quantised graph quantised, and so exact, once mask rules have worked on it.

ONNX Runtime computes ``DequantizeLinear → operator → QuantizeLinear`` on integers, which rounds differently from the
same in float. What a rule puts in between would end that, and a mask of ones would change results by a step of the
quantisation. So:

1. An input that a rule has treated (filled, weighted) is quantised again as it was before. Under a mask of ones the
   treatment changes nothing, and quantising again what was quantised is the identity.
2. Of an output that a rule has treated (an average divided by the share that is kept), the treated value is taken only
   where it differs from the untreated one; elsewhere a twin of the operator, untouched by the treatment, gives the
   value as ONNX Runtime computes it on integers.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

EXACT = frozenset({"MaxPool", "GlobalMaxPool", "ReduceMax", "QuantizeLinear", "DequantizeLinear"})
"""Operators that give the same result on floats as on the integers they stand for."""


@dataclasses.dataclass(frozen=True)
class QuantisedNode:
    """A node that ONNX Runtime may compute on integers.

    Attributes:
        node: the node itself.
        inputs: the DequantizeLinear in front of each of the node's inputs that is no constant, by index.
        outputs: each QuantizeLinear behind the node, with the output of the node that it reads.
    """

    node: ir.Node
    inputs: dict[int, ir.Node]
    outputs: tuple[tuple[ir.Node, ir.Value], ...]


def find_quantised_nodes(graph: ir.Graph) -> list[QuantisedNode]:
    """Returns the nodes that stand behind a DequantizeLinear."""
    found = []
    for node in graph:
        if node.op_type in EXACT or node.domain != "":
            continue
        inputs = {index: producer for index, value in enumerate(node.inputs) if (producer := dequantizer_of(value))}
        outputs = [
            (user, value)
            for value in node.outputs
            for user, index in value.uses()
            if user.op_type == "QuantizeLinear" and index == 0 and len(node.outputs) == 1
        ]
        if inputs:
            found.append(QuantisedNode(node, inputs, tuple(outputs)))
    return found


def dequantizer_of(value: ir.Value | None) -> ir.Node | None:
    """Returns the DequantizeLinear that gives a value, unless what it dequantises is a constant."""
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    source = producer.inputs[0]
    return None if source is None or ir.convenience.get_const_tensor(source) is not None else producer


def requantize(graph: ir.Graph, nodes: list[QuantisedNode]) -> None:
    """Restores the surroundings of quantised nodes that mask rules have changed, in place.

    Args:
        graph: the graph after the mask rules.
        nodes: the nodes that :func:`find_quantised_nodes` found before the mask rules.
    """
    for quantised in nodes:
        for index, dequantizer in quantised.inputs.items():
            value = quantised.node.inputs[index]
            if value is not None and value.producer() is not dequantizer:
                again = emit_pair(graph, value, dequantizer, before=quantised.node)
                quantised.node.replace_input_with(index, again)
        for quantizer, output in quantised.outputs:
            treated = quantizer.inputs[0]
            if treated is not None and treated is not output:
                quantizer.replace_input_with(
                    0, untreated_where_equal(graph, quantised.node, output, treated, quantizer)
                )


def emit_pair(graph: ir.Graph, value: ir.Value, like: ir.Node, before: ir.Node) -> ir.Value:
    """Emits QuantizeLinear and DequantizeLinear with the scale and zero point of a node that is in the graph."""
    parameters, attributes = like.inputs[1:], like.attributes
    integers = emit(graph, before, "QuantizeLinear", [value, *parameters], attributes)
    result = emit(graph, before, "DequantizeLinear", [integers, *parameters], attributes)
    integer_type = parameters[1].type if len(parameters) > 1 and parameters[1] is not None else None
    integers.type, integers.shape = integer_type or ir.TensorType(ir.DataType.UINT8), value.shape
    result.type, result.shape = value.type, value.shape
    return result


def untreated_where_equal(
    graph: ir.Graph, node: ir.Node, output: ir.Value, treated: ir.Value, quantizer: ir.Node
) -> ir.Value:
    """Emits a twin of a node and the choice between its output and the treated one."""
    twin = emit(graph, quantizer, node.op_type, node.inputs, node.attributes)
    twin.type, twin.shape = output.type, output.shape
    exact = emit_pair(graph, twin, quantizer, before=quantizer)
    equal = emit(graph, quantizer, "Equal", [treated, output], {})
    equal.type, equal.shape = ir.TensorType(ir.DataType.BOOL), treated.shape
    chosen = emit(graph, quantizer, "Where", [equal, exact, treated], {})
    chosen.type, chosen.shape = treated.type, treated.shape
    return chosen


def emit(graph: ir.Graph, before: ir.Node, op_type: str, inputs: object, attributes: object) -> ir.Value:
    """Emits a node of the standard domain with one output in front of another."""
    name = f"masktool/{before.name}/{op_type}_requantized_{len(graph)}"
    node = ir.node(op_type, inputs, attributes, name=name)  # type: ignore[arg-type]
    graph.insert_before(before, node)
    return node.outputs[0]
