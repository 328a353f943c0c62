"""Writes a program as an ONNX model, in the dialect that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fuzz.networks.program import OPERATIONS, Program

AXES_AS_INPUT = {"ReduceMean": 18, "ReduceMax": 18, "ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
"""Opset from which an operator takes its axes as an input."""
IR_VERSION = 8
"""Old enough for every opset that is drawn, as most files in use are."""


class OnnxWriter:
    """Collects nodes and weights; every method returns the name of the value it made."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.opset = program.dialect.opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Emits a node; returns the name of its output, a list of names where there are several."""
        label = f"{op_type.lower()}_{len(self.nodes)}"
        names = [f"{label}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, label, **attributes))
        return names[0] if outputs == 1 else names

    def weight(self, array: np.ndarray, dtype: Any = np.float32) -> str:
        """Adds an initializer."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array).astype(dtype), name))
        return name

    def integers(self, *numbers: int) -> str:
        """Adds an initializer of int64."""
        return self.weight(np.array(numbers), np.int64)

    def along(self, op_type: str, value: str, axes: Sequence[int], **attributes: Any) -> str:
        """Emits a node whose axes are an input or an attribute, as the opset has it."""
        if self.opset >= AXES_AS_INPUT[op_type]:
            return str(self.node(op_type, value, self.integers(*axes), **attributes))
        return str(self.node(op_type, value, axes=list(axes), **attributes))

    def reshape(self, value: str, *rest: int) -> str:
        """Reshapes to (N, *rest) as exporters write it: with -1 or 0 for an open batch, the number for a fixed one."""
        batch = self.program.dialect.batch
        first = batch if isinstance(batch, int) else (0 if -1 in rest else -1)
        return str(self.node("Reshape", value, self.integers(first, *rest)))


def write_program(program: Program) -> onnx.ModelProto:
    """Returns the ONNX model of a program, float32, checked."""
    writer, dialect = OnnxWriter(program), program.dialect
    values = ["image"]
    if dialect.channels_last:
        values[0] = writer.node("Transpose", "image", perm=[0, 3, 1, 2])
    for step in program.instructions:
        spellings = OPERATIONS[step.operation].spellings
        spell = spellings[step.spelling % len(spellings)]
        values.append(spell(writer, [values[number] for number in step.inputs], step.parameters, step.weights))
    for name, number in program.outputs.items():
        writer.nodes.append(helper.make_node("Identity", [values[number]], [name], f"return_{name}"))
    channels, height, width = program.image_shape
    sides = (height, width, channels) if dialect.channels_last else (channels, height, width)
    graph = helper.make_graph(
        writer.nodes,
        f"network_{program.seed}",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [dialect.batch, *sides])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in program.outputs],
        writer.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", dialect.opset)], ir_version=IR_VERSION)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    if not dialect.shapes_inside:
        del inferred.graph.value_info[:]
    onnx.checker.check_model(inferred, full_check=True)
    return inferred
