"""Makes a canonical graph compute in float16, and leaves in float32 what float16 cannot hold.

1. Products with weights (convolutions, matrix products) compute in float16, and so does every node that reads what was
   computed in it. What stands in front of the first of them, and behind a sum over many numbers, stays in float32.
2. What adds up many numbers or exponentials (means, norms, a softmax) computes in float32: half of the digits would be
   lost, and a sum over a map of 224 x 224 places goes beyond float16's largest number, 65504, where each place holds 2.
   Nor does it hold a small divisor: what is divided by a computed number is so in float32.
3. So does a node that reads or gives numbers beyond a ninth of that, as measured: the fill adds up nine places. And one
   with a weight beyond 65504, or with a lone number that would become 0, such as the ε of a division; what ONNX does
   not define for float16; and what holds subgraphs.
4. A weight is stored in float16 where nodes of that precision read it. Inputs and outputs stay float32.

This is done to the plain network, before it takes a mask: rules emit what they emit for any network of 16 bits, and
means over kept places are taken in the precision of the means themselves.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from masktool.exporters.opset import opset_of
from masktool.exporters.placement import schema_of

SINGLE, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
LARGEST_HALF = float(np.finfo(np.float16).max)
FILLED = 9
"""Places that the fill adds up before it divides."""
LARGEST_COMPUTED = LARGEST_HALF / FILLED
PRODUCTS = frozenset({"Conv", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"})
"""Operators that take nearly all of the time, and whose weights are nearly all of the file."""
SUMMING = frozenset(
    {
        *("AveragePool", "GlobalAveragePool", "LpPool", "GlobalLpPool", "CumSum", "LRN"),
        *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd"),
        *("ReduceLogSum", "ReduceLogSumExp", "Softmax", "LogSoftmax"),
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"),
        *("MeanVarianceNormalization", "LpNormalization", "LSTM", "GRU", "RNN"),
    }
)
"""Operators that add up many numbers one after the other, or exponentials."""
DIVIDING = frozenset({"Div", "Log", "Reciprocal"})
"""Operators of which a number that became 0 makes infinity or NaN: the last one that they read."""
BOUNDING = frozenset({"Clip"})
"""Operators whose constants bound their values, so that a bound beyond float16's largest number bounds nothing."""
NAMING_TYPES = ("to", "dtype", "value")
"""Attributes that tell the type of a result, whatever is read."""
SUMS, QUOTIENTS = "sums of many numbers", "divisions by computed numbers"
NUMBERS, WEIGHTS = "large numbers", "weights that float16 does not hold"
UNDEFINED = "operators without a float16 form"
"""Reasons to stay in float32."""


def narrow(model: ir.Model, largest: Mapping[str, float]) -> dict[str, list[str]]:
    """Makes a canonical model compute in float16, in place; what has to stay in float32 does.

    Args:
        model: the model, with known element types.
        largest: the largest magnitude of the numbers in a value, by its name, as far as it was measured.

    Returns:
        The names of the nodes that would compute in float16 and stay in float32, by the reason.
    """
    graph = model.graph
    floats = {value for value in values_of(graph) if is_single(value)}
    half: set[ir.Value] = set()
    narrowed, kept = [], collections.defaultdict(list)
    for node in graph:
        if not begins_or_follows(node, half):
            continue
        reason = reason_to_stay(node, floats, largest, opset_of(model))
        if reason is None:
            narrowed.append(node)
            half.update(output for output in node.outputs if output in floats)
        else:
            kept[reason].append(str(node.name))
    for value in half:
        value.type = ir.TensorType(HALF)
    Casts(graph, floats).connect(set(narrowed))
    return dict(kept)


def values_of(graph: ir.Graph) -> Iterable[ir.Value]:
    """Returns the inputs, weights and results of a graph, without those of its subgraphs."""
    results = [output for node in graph for output in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *results]


def is_single(value: ir.Value) -> bool:
    """Tells whether a value is a tensor of float32."""
    return isinstance(value.type, ir.TensorType) and value.dtype == SINGLE


def begins_or_follows(node: ir.Node, half: set[ir.Value]) -> bool:
    """Tells whether a node is a product of float32, or reads what was computed in float16."""
    begins = node.op_type in PRODUCTS and node.domain == "" and is_single(node.outputs[0])
    return begins or any(value in half for value in read_values(node))


def read_values(node: ir.Node) -> list[ir.Value]:
    """Returns the values that a node reads, in its subgraphs too."""
    inner = (value for graph in node.attributes.values() if is_graph(graph) for value in captured(graph.as_graph()))
    return [value for value in (*node.inputs, *inner) if value is not None]


def is_graph(attribute: ir.Attr) -> bool:
    """Tells whether an attribute holds a subgraph."""
    return attribute.type == ir.AttributeType.GRAPH


def captured(graph: ir.Graph) -> Iterable[ir.Value]:
    """Returns all values that the nodes of a subgraph read."""
    return [value for node in graph.all_nodes() for value in node.inputs if value is not None]


def reason_to_stay(node: ir.Node, floats: set[ir.Value], largest: Mapping[str, float], opset: int) -> str | None:
    """Returns why a node has to compute in float32; None where it may compute in float16."""
    if node.op_type in SUMMING:
        return SUMS
    if node.op_type in DIVIDING and node.inputs[-1] is not None and node.inputs[-1].const_value is None:
        return QUOTIENTS
    if any(map(is_graph, node.attributes.values())) or not defined_for_half(node, floats, opset):
        return UNDEFINED
    if any(largest.get(str(value.name), 0.0) > LARGEST_COMPUTED for value in (*node.inputs, *node.outputs) if value):
        return NUMBERS
    if any(not holds(value, node) for value in node.inputs if value in floats and value is not None):
        return WEIGHTS
    return None


def defined_for_half(node: ir.Node, floats: set[ir.Value], opset: int) -> bool:
    """Tells whether a node may have float16 wherever it has float32: ONNX defines that, and the node names no type."""
    schema = schema_of(node, opset)
    present = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    if schema is None or not all(isinstance(value.type, ir.TensorType) for value in present):
        return False
    if any(name in node.attributes for name in NAMING_TYPES) and any(output in floats for output in node.outputs):
        return False
    allowed = {each.type_param_str: set(each.allowed_type_strs) for each in schema.type_constraints}
    for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for position, value in enumerate(values):
            formal = formals[min(position, len(formals) - 1)]  # the last one may stand for many
            if value in floats and "tensor(float16)" not in allowed.get(formal.type_str, {formal.type_str}):
                return False
    return True


def holds(value: ir.Value, node: ir.Node) -> bool:
    """Tells whether float16 holds a weight that a node reads: no number becomes infinite, and a lone one not 0."""
    tensor = value.const_value
    if tensor is None or node.op_type in BOUNDING:
        return True
    numbers = tensor.numpy()
    finite = np.abs(numbers[np.isfinite(numbers)])
    if not finite.size:
        return True
    with np.errstate(over="ignore"):
        rounded = finite.max().astype(np.float16)
    return bool(np.isfinite(rounded)) and not (numbers.size == 1 and rounded == 0 != finite.max())


def rounded(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """Returns a weight in float16; a bound beyond its largest number becomes that."""
    numbers = tensor.numpy()
    bounded = np.where(np.isinf(numbers), numbers, np.clip(numbers, -LARGEST_HALF, LARGEST_HALF))
    return ir.tensor(bounded.astype(np.float16), name=name)


class Casts:
    """Casts between nodes of both precisions, one for each value and type, and weights in the type that is read.

    Args:
        graph: the graph, with the types of its results settled.
        floats: the values that were float32.
    """

    def __init__(self, graph: ir.Graph, floats: set[ir.Value]) -> None:
        self.graph = graph
        self.floats = floats
        self._other: dict[ir.Value, ir.Value] = {}

    def connect(self, narrowed: set[ir.Node]) -> None:
        """Gives every node its inputs in the precision in which it computes, and float32 to the graph's outputs."""
        for node in tuple(self.graph.all_nodes()):
            wanted = HALF if node in narrowed else SINGLE
            for index, value in enumerate(node.inputs):
                if value is not None and value in self.floats and value.dtype != wanted:
                    node.replace_input_with(index, self.in_other_type(value, wanted))
        for index, value in enumerate(tuple(self.graph.outputs)):
            if value in self.floats and value.dtype != SINGLE:
                self.graph.outputs[index] = self.returned(value)
        for value in tuple(self.graph.initializers.values()):
            if value in self.floats and not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self.graph.initializers[str(value.name)]

    def in_other_type(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """Returns a value in the other one of both precisions."""
        if value not in self._other:
            tensor = value.const_value
            stored = tensor is not None and not value.is_graph_input()
            self._other[value] = self.weight(value, tensor) if stored and tensor else self.cast(value, wanted)
        return self._other[value]

    def weight(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        """Returns a weight that holds another one's numbers in float16."""
        name = f"{value.name}/half"
        tensor = rounded(tensor, name)
        result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(HALF), const_value=tensor)
        self.graph.register_initializer(result)
        return result

    def cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """Returns a value behind a Cast, which stands as near to its producer as may be."""
        name = f"{value.name}/{'half' if wanted == HALF else 'single'}"
        node = ir.node("Cast", [value], {"to": wanted.value}, name=name)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        result = node.outputs[0]
        result.name, result.type, result.shape = f"{name}:0", ir.TensorType(wanted), value.shape
        return result

    def returned(self, value: ir.Value) -> ir.Value:
        """Returns an output in float32 under its own name."""
        result = self.in_other_type(value, SINGLE)
        result.name, value.name = value.name, f"{value.name}/computed"
        return result
