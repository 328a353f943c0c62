"""Infers shapes and types, those of sequences and optional values included.

onnx_ir takes from ONNX's inference the element type alone, and makes a tensor of a sequence that the file declares no
type for, as most files do of values inside the graph; ONNX Runtime then refuses the graph. Whether a value is a
sequence follows from the operators alone, and is stated behind every inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

Wrapper: TypeAlias = "type[ir.SequenceType] | type[ir.OptionalType]"
Kind: TypeAlias = "tuple[Wrapper, ...]"
"""The sequences and optional values around the tensor in a type, the outermost first; empty for a tensor."""
TENSOR: Kind = ()
SEQUENCE: Kind = (ir.SequenceType,)
MAKE_SEQUENCES = frozenset(
    {"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap", "SplitToSequence"}
)
MAKE_NO_TENSORS = MAKE_SEQUENCES | {"Optional"}
CARRIED = 2
"""Number of inputs of a Loop in front of the carried ones: trip count and condition."""


def infer_types_and_shapes(model: ir.Model, *, check_type: bool) -> None:
    """Infers a model's shapes and types, in place; an unknown operator leaves its own outputs unknown."""
    declare_weights(model)
    ShapeInferencePass(check_type=check_type, strict_mode=False, data_prop=True)(model)
    if holds_sequences(model):
        Kinds(model.functions).state(model.graph)
        forget_lengths(model)


def declare_weights(model: ir.Model) -> None:
    """Declares the types and shapes of weights of which the graph declares none, in place."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if value.type is None and tensor is not None:
                value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.numpy().shape)


def holds_sequences(model: ir.Model) -> bool:
    """Tells whether a model computes sequences or optional values anywhere."""
    return any(node.op_type in MAKE_NO_TENSORS for node in every_node(model))


def every_node(model: ir.Model) -> Iterable[ir.Node]:
    """Yields the nodes of a model, those of its functions included."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def forget_lengths(model: ir.Model) -> None:
    """Removes the names of open lengths that no input has, in place.

    Inference gives all elements taken out of one sequence the same names, whatever their lengths.
    """
    inputs = (value.shape for value in model.graph.inputs if value.shape is not None)
    names = {length for shape in inputs for length in shape}
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                if value.shape is not None:
                    lengths = (length if isinstance(length, int) or length in names else None for length in value.shape)
                    value.shape = ir.Shape(lengths)


class Kinds:
    """Which values are sequences or optional values, as the operators tell.

    Args:
        functions: the functions of the model by their identifiers.
    """

    def __init__(self, functions: Mapping[ir.OperatorIdentifier, ir.Function]) -> None:
        self.functions = functions
        self.known: dict[ir.Value, Kind] = {}
        self.calls: list[ir.OperatorIdentifier] = []

    def of(self, value: ir.Value | None) -> Kind:
        """Returns the kind of a value; that of a tensor where nothing else is known."""
        return TENSOR if value is None else self.known.get(value, TENSOR)

    def state(self, body: ir.Graph | ir.Function) -> None:
        """Gives all values that a graph computes their types, in place, subgraphs included."""
        for node in body:
            for value, kind in zip(node.outputs, self.given(node), strict=False):
                self.set(value, kind)

    def set(self, value: ir.Value, kind: Kind) -> None:
        """Sets the kind of a value; a sequence gets no shape, since the shapes of its elements differ."""
        self.known[value] = kind
        if kind == TENSOR:
            return
        value.shape = None
        if isinstance(value.type, ir.TensorType):
            value.type = wrapped(value.type, kind)

    def given(self, node: ir.Node) -> Sequence[Kind]:
        """Returns the kinds of a node's results."""
        inputs = [self.of(value) for value in node.inputs]
        function = self.functions.get(node.op_identifier())
        if function is not None:
            return self.given_by_function(function, inputs)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                self.enter(node, attribute.as_graph(), inputs)
        first = inputs[0] if inputs else TENSOR
        if node.domain not in ("", "ai.onnx"):
            found: Sequence[Kind] = ()
        elif node.op_type == "Loop":
            found = inputs[CARRIED:]
        elif node.op_type == "If":
            found = [self.of(value) for value in node.attributes["then_branch"].as_graph().outputs]
        elif node.op_type == "Optional":
            found = [(ir.OptionalType, *(first if node.inputs else declared(node)))]
        elif node.op_type == "OptionalGetElement":
            found = [first[1:] if first[:1] == (ir.OptionalType,) else first]
        elif node.op_type in MAKE_SEQUENCES or node.op_type == "Identity":
            found = [first if node.op_type == "Identity" else SEQUENCE] * len(node.outputs)
        else:
            found = ()
        return [*found, *[TENSOR] * (len(node.outputs) - len(found))]

    def enter(self, node: ir.Node, body: ir.Graph, inputs: Sequence[Kind]) -> None:
        """Gives the values of a subgraph their types; the body of a Loop gets the kinds of the carried values."""
        if node.op_type == "Loop":
            for value, kind in zip(body.inputs[CARRIED:], inputs[CARRIED:], strict=False):
                self.set(value, kind)
        self.state(body)

    def given_by_function(self, function: ir.Function, inputs: Sequence[Kind]) -> Sequence[Kind]:
        """Returns the kinds of a function's results; a function that calls itself, refused later, gives tensors."""
        if function.identifier() in self.calls:
            return [TENSOR] * len(function.outputs)
        self.calls.append(function.identifier())
        for value, kind in zip(function.inputs, inputs, strict=False):
            self.known[value] = kind
        self.state(function)
        self.calls.pop()
        return [self.of(value) for value in function.outputs]


def declared(node: ir.Node) -> Kind:
    """Returns the kind of value that an empty Optional declares."""
    attribute = node.attributes.get("type")
    kind, found = None if attribute is None else attribute.value.type, TENSOR
    while isinstance(kind, ir.SequenceType | ir.OptionalType):
        found, kind = (*found, type(kind)), kind.elem_type
    return found


def wrapped(kind: ir.TypeProtocol, wrappers: Kind) -> ir.TypeProtocol:
    """Returns a tensor's type inside the sequences and optional values of a kind."""
    for wrapper in reversed(wrappers):
        kind = wrapper(kind)
    return kind
