"""Computes a network of 16 bits in float32: its weights stay as they are stored, and are cast where they are used.

A gradient in 16 bits is a coarse one: activations that were rounded tie in maxima and lie on the other side of a
ReLU's kink, so that whole pixels of a map change. And the slope of a ReLU is a step with a factor, 3e38, that float16
does not hold.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.builder import HALF

SINGLE = ir.DataType.FLOAT


def compute_in_single(model: ir.Model, image_input: str | None = None) -> dict[str, ir.DataType]:
    """Makes a canonical model compute in float32 what it computes in 16 bits, in place.

    The outputs become float32; inputs keep their types.

    Args:
        model: the model, plain or masked.
        image_input: the name of an input that becomes float32 too; None where all keep their types.

    Returns:
        The types that outputs had, by name, where they were of 16 bits.
    """
    narrow = {str(value.name): value.dtype for value in model.graph.outputs if value.dtype in HALF and value.dtype}
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in (*graph.initializers.values(), *graph.inputs):
            if value.dtype not in HALF:
                continue
            if value.name == image_input and graph is model.graph:
                value.type = ir.TensorType(SINGLE)
            else:
                cast_in_front(graph, value)
        for node in graph:
            widen_attributes(node)
            for output in node.outputs:
                if output.dtype in HALF:
                    output.type = ir.TensorType(SINGLE)
    return narrow


def cast_in_front(graph: ir.Graph, value: ir.Value) -> None:
    """Casts a weight or an input to float32 for all that read it."""
    cast = ir.node("Cast", [value], {"to": SINGLE.value}, name=f"{value.name}/single")
    result = cast.outputs[0]
    result.name, result.type, result.shape = f"{value.name}/single:0", ir.TensorType(SINGLE), value.shape
    for user, index in tuple(value.uses()):
        if user is not cast:
            user.replace_input_with(index, result)
    graph.insert_before(graph[0], cast)


def widen_attributes(node: ir.Node) -> None:
    """Makes a node that names 16 bits as its result's type, or holds them, give float32."""
    for name, attribute in tuple(node.attributes.items()):
        if attribute.type == ir.AttributeType.INT and name in ("to", "dtype") and attribute.as_int() in HALF:
            node.attributes[name] = ir.AttrInt64(name, SINGLE.value)
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALF:
            wide = attribute.as_tensor().numpy().astype(SINGLE.numpy())
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(wide))


def narrow_outputs(model: ir.Model, types: dict[str, ir.DataType]) -> None:
    """Gives outputs the types that they had, by name, in place."""
    graph = model.graph
    for index, value in enumerate(tuple(graph.outputs)):
        if value.name not in types:
            continue
        cast = ir.node("Cast", [value], {"to": types[value.name].value}, name=f"{value.name}/narrow")
        graph.append(cast)
        result = cast.outputs[0]
        result.name, result.type, result.shape = value.name, ir.TensorType(types[value.name]), value.shape
        value.name = f"{value.name}/single"
        graph.outputs[index] = result
