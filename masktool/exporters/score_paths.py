"""Walks back through a graph from an output's values: which operators only moved, scaled, clipped or picked them.

Everything that reads the end of a graph (:mod:`masktool.exporters.score_ends` and what it is made of) goes by these.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

ARRANGING = frozenset(
    {
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Cast", "Transpose"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
"""Operators that move class scores about and leave their values alone, but for rounding."""
PICKING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split", "Concat", "Expand", "Tile", "Where"})
"""Operators that keep some of their inputs' values, each as it is."""
SCALING = frozenset({"Add", "Sub", "Mul", "Div", "BatchNormalization"})
"""Operators that, with a constant, keep scores unbounded and their order (a negative factor apart)."""
NORMALISING = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
LINEAR = frozenset(
    {
        *("Gemm", "MatMul", "Conv", "ConvTranspose", "Einsum", "FusedGemm", "FusedMatMul", "FusedConv"),
        *("QLinearMatMul", "QLinearConv", "QGemm", "MatMulInteger", "ConvInteger"),
    }
)
MEANS = frozenset({"GlobalAveragePool", "AveragePool", "ReduceMean"})
SUMS = frozenset({"Add", "Sub", "Sum"})
CLIPPING = frozenset({"Clip", "Max", "Min"})
"""Operators that, with constants, keep probabilities from 0 and 1, where a logarithm ends."""


def core_of(value: ir.Value) -> ir.Value:
    """Returns the value in front of all nodes that only rearrange it."""
    node = value.producer()
    while node is not None and node.op_type in ARRANGING and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def find_score_producer(output: ir.Value) -> ir.Node | None:
    """Returns the node that computes an output's values, in front of all nodes that only rearrange them."""
    return core_of(output).producer()


def scaled_operand(node: ir.Node) -> ir.Value | None:
    """Returns what a node scales or shifts by constants; None where it does something else, such as to divide by it."""
    operand = lone_operand(node) if node.op_type in SCALING else None
    return None if node.op_type == "Div" and operand is not node.inputs[0] else operand


def lone_operand(node: ir.Node) -> ir.Value | None:
    """Returns the only input of a node that is no constant; None where there are several or none."""
    changing = [each for each in node.inputs if each is not None and not is_constant(each)]
    return changing[0] if len(changing) == 1 else None


def constant_behind(value: ir.Value | None) -> np.ndarray | None:
    """Returns the numbers of a constant, rearranged or not; None for anything else."""
    tensor = None if value is None else ir.convenience.get_const_tensor(core_of(value))
    return None if tensor is None else tensor.numpy()


def is_constant(value: ir.Value) -> bool:
    """Tells whether a value is a weight or the result of a Constant, rearranged or not."""
    core = core_of(value)
    producer = core.producer()
    if producer is not None:
        return producer.op_type in ("Constant", "ConstantOfShape")
    return core.const_value is not None or core.is_initializer()


def behind_clips(value: ir.Value) -> tuple[ir.Node | None, list[ir.Node]]:
    """Returns the node that computes a value's numbers, and those behind it that rearrange or clip them, in order."""
    trail: list[ir.Node] = []
    node = value.producer()
    while node is not None and (inner := passed_on(node)) is not None:
        trail.insert(0, node)
        node = inner.producer()
    return node, trail


def passed_on(node: ir.Node) -> ir.Value | None:
    """Returns the input that a node only rearranges, or clips between constants; None for any other node."""
    if node.op_type in ARRANGING:
        return node.inputs[0]
    return lone_operand(node) if node.op_type in CLIPPING else None


def first_changing(node: ir.Node) -> ir.Value | None:
    """Returns the first input of a node that is no constant."""
    return next((each for each in node.inputs if each is not None and not is_constant(each)), None)


def walk_back(node: ir.Node, through: frozenset[str], depth: int) -> Iterator[ir.Node]:
    """Yields the nodes that a node's first changing input comes from, through certain operators, and the one beyond."""
    for _ in range(depth):
        inner = first_changing(node)
        found = None if inner is None else inner.producer()
        if found is None:
            return
        yield found
        if found.op_type not in through:
            return
        node = found


def name_node(node: ir.Node) -> str:
    """Returns operator and name of a node, as messages show them."""
    return f"{node.op_type} (node {node.name!r})" if node.name else node.op_type
