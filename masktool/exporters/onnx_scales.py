"""Scales of a Resize or Upsample by which no length can be multiplied; see :mod:`.onnx_checks`.

ONNX's shape inference makes a length below 0 of NaN, of an infinity and of a negative scale, and ends the process at
the next Slice (up to 1.23, which is in ONNX Runtime too). Scales that are computed are looked at behind the door, in
:mod:`masktool.exporters.foreseen`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from masktool.errors import MasktoolError
from masktool.exporters.onnx_nodes import STANDARD, Nodes, describe_node
from masktool.limits import check_limit

RESIZING = ("Resize", "Upsample")
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)


def check_scales(graph: Nodes, where: object) -> None:
    """Raises MasktoolError for a scale that is no positive number, or beyond what one tensor may hold.

    Args:
        graph: the graph or function whose own nodes are checked, not those of subgraphs; its tensors hold as many
            numbers as their shapes say.
        where: file or name, for messages.
    """
    resizing = [node for node in graph.node if node.domain in STANDARD and node.op_type in RESIZING]
    tensors = constants_of(graph) if resizing else {}
    for node in resizing:
        place = f"{where}, {describe_node(node)}"
        for scale in scales_of(node, tensors):
            if not (np.isfinite(scale) and scale > 0):
                raise MasktoolError(
                    "a scale by which no length can be multiplied",
                    where=place,
                    expected="finite numbers above 0",
                    got=scale,
                    fix="export the network again",
                )
            check_limit("tensor", int(scale), where=place)


def constants_of(graph: Nodes) -> dict[str, onnx.TensorProto]:
    """Returns a graph's weights and the results of its Constant nodes by name, without those stored in another file."""
    found = {tensor.name: tensor for tensor in graph.initializer} if isinstance(graph, onnx.GraphProto) else {}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = attribute.t
                elif attribute.name == "value_floats":
                    found[node.output[0]] = onnx.numpy_helper.from_array(np.array(attribute.floats, np.float32))
    return {name: tensor for name, tensor in found.items() if tensor.data_location != onnx.TensorProto.EXTERNAL}


def scales_of(node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]) -> Iterator[float]:
    """Yields the known scales of a node: an attribute up to opset 8, later its input 1 or, of a Resize-11, input 2."""
    for attribute in node.attribute:
        if attribute.name == "scales":
            yield from attribute.floats
    for name in node.input[1:3]:
        tensor = tensors.get(name)
        is_roi = len(node.input) > 2 and name == node.input[1]
        if tensor is not None and not is_roi and tensor.data_type in FLOATS:
            yield from onnx.numpy_helper.to_array(tensor).astype(np.float64).ravel().tolist()
