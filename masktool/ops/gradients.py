"""The graph that gradient rules work on: reverse-mode differentiation, written out as standard operators.

A gradient rule (a vector-Jacobian product) gets the gradients of a node's outputs and emits those of its inputs. The
engine walks the nodes backwards and adds up what several users of a value send back; the rest is rules. A value that
depends on none of the inputs that are differentiated for gets no gradient and costs nothing: weights are constants.

Batches are equal throughout: images and masks are brought to one batch before anything else, so that a gradient never
has to be summed over images.

Source: Griewank and Walther, "Evaluating Derivatives", 2nd edition, 2008, section 3.2 (the incremental reverse mode).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from masktool.errors import UnsupportedNode, reported_as
from masktool.ops.blocked import lies_in_blocks
from masktool.ops.builder import HALF, GraphBuilder, dims_of, dtype_of, fixed_sizes, network_name
from masktool.ops.errors import RuleError
from masktool.ops.rules import RuleTable

Gradients = Sequence[ir.Value | None]
GradientRule = Callable[["GradientGraph", ir.Node, Gradients], Gradients]
"""It gets one gradient per output of the node, None where nothing depends on that output, and returns one per input,
None (or nothing at the end) for those that have none or need none."""
GRADIENT_RULES: RuleTable[GradientRule] = RuleTable("gradient rule")
gradient_rule = GRADIENT_RULES.register
REPORT = "nothing was written; this is a defect of masktool: please report the network"


SHAPES = frozenset({"Shape", "Size"})
"""Operators that read the lengths of a value, not its numbers."""
GRADIENT_IN_BLOCKS = ("Add", "Conv", "GlobalAveragePool", "ReduceMean")
"""Operators whose gradient rules leave gradients in blocks, or bring them there."""
FLAT = "flat: its output does not change with small changes of its input, so that no gradient passes"


def numbers_read(node: ir.Node) -> Sequence[ir.Value | None]:
    """Returns the values whose numbers a node reads: without those of which it reads the type or shape alone, and with
    those that its branches or its body capture from around it.
    """
    if node.op_type in SHAPES:
        return ()
    if node.op_type == "CastLike":
        return node.inputs[:1]
    inside = [each for graph in graphs_inside(node) for inner in graph.all_nodes() for each in inner.inputs]
    outputs = [each for graph in graphs_inside(node) for each in graph.outputs]
    return [*node.inputs, *inside, *outputs] if inside or outputs else node.inputs


def graphs_inside(node: ir.Node) -> Iterator[ir.Graph]:
    """Yields the branches or the body of a node."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


class GradientGraph(GraphBuilder):
    """A graph to which gradients are added, behind the nodes that it holds already."""

    prefix = "gradient"

    def __init__(
        self, graph: ir.Graph, sources: Iterable[ir.Value], *, indices_of_maxima: bool = True, blocks: bool = False
    ) -> None:
        super().__init__(graph)
        self.blocks = blocks
        """Whether nodes are emitted that bring gradients into the layout of ONNX Runtime's convolutions on the CPU."""
        self.indices_of_maxima = indices_of_maxima
        """Whether a max pool may give the indices of its maxima, and numbers be added up at them."""
        self._nodes = tuple(graph)
        self._node: ir.Node | None = None
        self._gradients: dict[ir.Value, list[ir.Value]] = {}
        self._scaled: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._active = set(sources)
        self._flat: list[ir.Node] = []
        for node in self._nodes:
            if any(value in self._active for value in numbers_read(node)):
                quantises = node.op_type == "QuantizeLinear"  # followed through, so as to be refused by name
                self._active.update(output for output in node.outputs if quantises or may_be_differentiable(output))

    @property
    def label(self) -> str:
        """The name of the node whose rule runs."""
        return f"gradient/{self._node.name if self._node is not None else 'objective'}"

    def place(self, node: ir.Node) -> None:
        """Puts an emitted node at the end of the graph."""
        self.graph.append(node)

    def needs(self, value: ir.Value | None) -> bool:
        """Whether a value depends on an input that is differentiated for."""
        return value is not None and value in self._active

    def add(self, value: ir.Value, gradient: ir.Value) -> None:
        """Adds a summand to the gradient of a value."""
        self._gradients.setdefault(value, []).append(gradient)

    def total(self, value: ir.Value) -> ir.Value | None:
        """Returns the sum of the summands of a value's gradient; None where there are none."""
        parts = self._gradients.get(value)
        if not parts:
            return None
        while len(parts) > 1:
            parts[:2] = [self.like(value, self.emit("Add", parts[0], parts[1]))]
        return parts[0]

    def propagate(self) -> list[UnsupportedNode]:
        """Walks the graph backwards from the gradients added so far; returns the nodes that have no gradient."""
        refused = []
        for node in reversed(self._nodes):
            if not any(self.needs(value) for value in numbers_read(node)):
                continue
            gradients = [self.total(output) for output in node.outputs]
            if all(gradient is None for gradient in gradients):
                continue
            self._node = node
            try:
                rule = GRADIENT_RULES.rule_of(node)
                if rule is None:
                    raise RuleError("no gradient rule for this operator")
                found = run_gradient_rule(rule, self, node, gradients)
            except RuleError as error:
                refused.append(self.describe(node, str(error)))
                # go on as if it passed gradients through, only to find further refusals
                found = [gradients[0]] * len(node.inputs)
            passed = [
                (value, gradient)
                for value, gradient in zip(node.inputs, found, strict=False)
                if value is not None and gradient is not None and self.needs(value)
            ]
            for value, gradient in passed:
                self.add(value, self.like(value, gradient))
            if not passed:
                self._flat.append(node)
        self._node = None
        by_name = {node.name or str(number): node for number, node in enumerate(refused)}
        return list(by_name.values())[::-1]

    def flat_nodes(self, source: ir.Value) -> list[UnsupportedNode]:
        """Returns the nodes that passed no gradient on: their rule gave none, or their outputs are no real numbers.

        Args:
            source: the value that no gradient reached; nodes that do not depend on it, such as those that read masks
                alone, stopped nothing.
        """
        depends = {source}
        for node in self._nodes:
            if not depends.isdisjoint(numbers_read(node)):
                depends.update(node.outputs)
        decided = [
            node
            for node in self._nodes
            if node.op_type not in SHAPES
            and any(self.needs(value) for value in node.inputs)
            and not any(self.needs(value) for value in node.outputs)
        ]
        flat = [*decided, *reversed(self._flat)]
        return [self.describe(each, FLAT) for each in flat if not depends.isdisjoint(numbers_read(each))]

    def describe(self, node: ir.Node, reason: str) -> UnsupportedNode:
        """Returns the entry of a node, or of the one that a mask rule emitted it for, in a list of refused nodes."""
        own = network_name(node.name or "")
        node = next((each for each in self._nodes if own is not None and each.name == own), node)
        opset = self.graph.opset_imports.get(node.domain, 0)
        return UnsupportedNode(node.name or "", node.op_type, node.version or opset, reason)

    # What several rules share

    def like(self, value: ir.Value, result: ir.Value) -> ir.Value:
        """Declares that a result has the type and shape of a value; returns the result."""
        result.shape, result.type = value.shape, value.type
        return result

    def summed_to(self, value: ir.Value, gradient: ir.Value, output: ir.Value) -> ir.Value:
        """Returns the gradient of a value that was broadcast to ``output``'s shape: summed over the broadcast axes."""
        before, after = dims_of(value), dims_of(output)
        shift = len(after) - len(before)
        added = list(range(shift))
        spread = [i + shift for i, length in enumerate(before) if length == 1 != after[i + shift]]
        if spread or added:
            axes = self.ints(*added, *spread)
            gradient = self.emit("ReduceSum", gradient, axes, keepdims=1)
        if added:
            gradient = self.emit("Squeeze", gradient, self.ints(*added))
        return gradient

    def number(self, number: float, like: ir.Value) -> ir.Value:
        """Returns a constant of the element type of ``like``."""
        return self.constant(number, dtype_of(like))

    def reshaped_as(self, value: ir.Value, gradient: ir.Value) -> ir.Value:
        """Returns a gradient in the shape of a value with as many elements."""
        lengths = dims_of(value)
        if sum(not isinstance(length, int) for length in lengths) > 1:
            return self.emit("Reshape", gradient, self.emit("Shape", value))
        fixed = [length if isinstance(length, int) else -1 for length in lengths]
        return self.emit("Reshape", gradient, self.ints(*fixed))

    def ints(self, *numbers: int) -> ir.Value:
        """Returns a vector of int64 as a constant: axes, a shape, pads."""
        return self.constant(numbers, ir.DataType.INT64)

    def in_blocks(self, value: ir.Value, gradient: ir.Value) -> ir.Value:
        """Returns the gradient of a value, brought into blocks where the rules in front of it can go on in these.

        What is no convolution gives it in the ordinary layout. Where the step of a ReLU, which lies in blocks, comes
        next, ONNX Runtime would bring that step out of them for the product, the product back for the convolution
        behind it, and so on along all residual additions of a stage. A convolution of ones for each channel, which
        changes no number, costs one such move.
        """
        node = value.producer()
        read_by = {user.op_type for user, _ in value.uses() if any(map(self.needs, user.outputs))}
        next_in_blocks = node is not None and node.op_type == "Relu" and lies_in_blocks(value)
        if not self.blocks or not next_in_blocks or not read_by.issubset(GRADIENT_IN_BLOCKS):
            return gradient
        channels = fixed_sizes(value)[1]
        ones = self.constant(np.ones((channels, 1, 1, 1)), dtype_of(value))
        return self.emit("Conv", self.like(value, gradient), ones, group=channels)

    def zeros_like(self, value: ir.Value) -> ir.Value:
        """Returns zeros in the shape and type of a value."""
        return self.like(value, self.filled_like(value, 0))

    def added_at(self, value: ir.Value, indices: ir.Value, updates: ir.Value, axis: int) -> ir.Value:
        """Returns a value with ``updates`` added at ``indices`` along an axis; half precision is added up in single."""
        dtype = dtype_of(value)
        wide = ir.DataType.FLOAT if dtype in HALF else dtype
        operands = (self.as_type(value, wide), indices, self.as_type(updates, wide))
        return self.as_type(self.emit("ScatterElements", *operands, axis=axis, reduction="add"), dtype)

    def scaled_by_channel(self, gradient: ir.Value, factor: ir.Value) -> ir.Value:
        """Returns gradient · factor, with one factor per channel, and remembers both for :meth:`unscaled`."""
        result = self.emit("Mul", gradient, factor)
        self._scaled[result] = (gradient, factor)
        return result

    def unscaled(self, gradient: ir.Value) -> tuple[ir.Value, ir.Value | None]:
        """Returns a gradient without its factors per channel, and these, which a convolution takes into its weights."""
        return self._scaled.get(gradient, (gradient, None))

    def masked(self, gradient: ir.Value, condition: ir.Value) -> ir.Value:
        """Returns the gradient where a boolean tensor holds, 0 elsewhere."""
        return self.emit("Where", condition, gradient, self.number(0, gradient))

    def zero_where(self, gradient: ir.Value, condition: ir.Value) -> ir.Value:
        """Returns 0 where a boolean tensor holds, the gradient elsewhere."""
        result = self.emit("Where", condition, self.number(0, gradient), gradient)
        result.type = gradient.type
        return result

    def shared_by_equals(self, value: ir.Value, extreme: ir.Value, gradient: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Returns the gradient of a maximum or minimum along ``axes``, which equal numbers share."""
        if not axes:
            return gradient
        wins = self.as_type(self.emit("Equal", value, extreme), dtype_of(value))
        number = self.emit("ReduceSum", wins, self.ints(*axes))
        return self.emit("Mul", wins, self.emit("Div", gradient, self.divisor(number)))


def run_gradient_rule(rule: GradientRule, graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Runs a rule; whatever it raises but RuleError becomes a MasktoolError that names the node."""
    refusal: RuleError | None = None
    found: Gradients = []
    with reported_as(f"the gradient rule for {node.op_type} failed", where=f"node {node.name!r}", fix=REPORT):
        try:
            found = rule(graph, node, gradients)
        except RuleError as error:
            refusal = error
    if refusal is not None:
        raise refusal
    return found


def first_gradient(gradients: Gradients) -> ir.Value:
    """Returns the gradient of a node's first output.

    Raises:
        RuleError: another output depends on the image.
    """
    if gradients[0] is None:
        raise RuleError("its first output is not used, another one is")
    return gradients[0]


def passes_nothing(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:  # noqa: ARG001
    """Passes nothing: whole numbers and steps have no slope."""
    return []


def refuse_parameters(graph: GradientGraph, node: ir.Node) -> None:
    """Raises RuleError where an input of a node but the first depends on an input that is differentiated for."""
    if any(graph.needs(value) for value in node.inputs[1:]):
        raise RuleError("its parameters depend on the input that is differentiated for")


def may_be_differentiable(value: ir.Value) -> bool:
    """Whether a value is floating point, or may be: what no inference knows is followed, and refused by name."""
    return value.dtype is None or value.dtype.is_floating_point()
