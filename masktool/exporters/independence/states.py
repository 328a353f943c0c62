"""States of values while the batch is followed through a graph, and the tables of the operators' rules.

A value is one of five:

* one that depends on neither the images nor their number: it has no state;
* :class:`Rows`: the images lie on one axis of it, and what belongs to an image depends on that image alone. The axis
  may have other factors merged with it, as windows, heads or channels are: its index is ``(o · N + n) · inner + i``;
* :class:`Count`: it may depend on how many images there are, never on what they show: what follows from a ``Shape``;
* :class:`Places`: integers that say where in memory an image stands, as an indexed view of a batch computes them;
* :class:`Lost`: images were mixed, or may have been; the node that did it has been named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from masktool.exporters.independence.lengths import ONE, Product, multiply_lengths, product_of
from masktool.exporters.node_inputs import constant_of, input_of
from masktool.exporters.subgraphs import nodes_inside
from masktool.ops.rules import RuleTable

MOST_ELEMENTS = 64
"""Longest integer vector whose elements are followed: shapes, starts and ends are far shorter."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """The images lie on ``axis``, which has ``outer · N · inner`` places."""

    axis: int
    outer: Product = ONE
    inner: Product = ONE

    def at(self, axis: int) -> Rows:
        """Returns the same state with the images on another axis."""
        return dataclasses.replace(self, axis=axis)

    @property
    def pure(self) -> bool:
        """Whether the axis holds the images alone, with no other factor merged into it."""
        return self.outer == self.inner == ONE


@dataclasses.dataclass(frozen=True)
class Count:
    """The state of a value that follows from lengths.

    Attributes:
        varies: whether the value may depend on the number of images.
        elements: the elements of an integer scalar or vector, None for an unknown one; None where none are known.
    """

    varies: bool
    elements: tuple[Product | None, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Places:
    """Integers ``n · stride + c`` for image n, which lies on ``axis``; c, from ``low`` to ``high``, knows no image."""

    axis: int
    stride: int = 1
    low: int = 0
    high: int = 0


@dataclasses.dataclass(frozen=True)
class Lost:
    """The state of a value computed from what a named node gives: nothing is known of it."""


State = Rows | Count | Places | Lost | None
States = Sequence[State]
Kind = Literal["mixes", "unproved"]


class Obstacle(NamedTuple):
    """A node, input or output at which images are mixed, or may be, and the reason."""

    kind: Kind
    op_type: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.op_type} (node {self.name!r}): {self.reason}"


class BatchRuleError(Exception):
    """Raised by a rule for a node of whose results nothing is known; the message is the reason."""

    kind: Kind = "unproved"


class MixesError(BatchRuleError):
    """Raised by a rule for a node that mixes images, or whose result depends on their number."""

    kind: Kind = "mixes"


class UnprovedError(BatchRuleError):
    """Raised by a rule for a node of which it is not known whether it mixes images."""


class BatchGraph:
    """A graph along which the batch is followed: the states of its values, and what rules ask for.

    Args:
        image: the image input.
        batch: the symbol for the number of images; axis 0 of the image input itself may have a fixed length.
    """

    def __init__(self, image: ir.Value, batch: str) -> None:
        self.image = image
        self.batch = Product(1, (batch,))
        self._states: dict[ir.Value, State] = {image: Rows(0)}
        self.findings: list[Obstacle] = []

    def follow(self, nodes: Iterable[ir.Node]) -> None:
        """Gives the results of all nodes their states, and notes the nodes of whose results nothing is known."""
        for node in nodes:
            try:
                states = follow_node(self, node)
            except BatchRuleError as error:
                self.findings.append(Obstacle(error.kind, node.op_type, str(node.name), str(error)))
                states = [Lost()] * len(node.outputs)
            for value, state in zip(node.outputs, states, strict=True):
                self.set_state(value, state)

    def state(self, value: ir.Value | None) -> State:
        """Returns the state of a value."""
        return None if value is None else self._states.get(value)

    def set_state(self, value: ir.Value, state: State) -> None:
        """Sets the state of a value."""
        if state is None:
            self._states.pop(value, None)
        else:
            self._states[value] = state

    def values_with_rows(self) -> Iterator[tuple[ir.Value, Rows]]:
        """Yields every value that holds images, and where they lie."""
        yield from ((value, state) for value, state in self._states.items() if isinstance(state, Rows))

    def rows(self, value: ir.Value | None) -> Rows | None:
        """Returns where the images lie in a value, None where it holds nothing of them.

        Raises:
            MixesError: the value depends on how many images there are, or on their places in the batch.
        """
        state = self.state(value)
        if isinstance(state, Count):
            if state.varies:
                raise MixesError("its result depends on how many images there are")
            return None
        if isinstance(state, Places):
            raise MixesError("its result depends on the place in the batch")
        assert not isinstance(state, Lost)  # a node that reads such a value is never handed to its rule
        return state

    def rows_of(self, node: ir.Node, index: int = 0) -> Rows:
        """Returns where the images lie in an input that must hold them, all others being the same for all images.

        Raises:
            BatchRuleError: other inputs hold images too, or an input depends on how many there are.
        """
        found = [self.rows(value) for value in node.inputs]
        others = [rows for position, rows in enumerate(found) if position != index and rows is not None]
        if others:
            raise UnprovedError("its parameters depend on the images")
        rows = found[index]
        assert rows is not None
        return rows

    def rank(self, value: ir.Value | None) -> int:
        """Returns the number of axes of a value; UnprovedError where it is unknown."""
        if value is None or value.shape is None:
            raise UnprovedError("the rank of its input is unknown")
        return len(value.shape)

    def lengths(self, value: ir.Value | None) -> list[Product | None]:
        """Returns the lengths of a value's axes, that of the images' axis as a product with the batch."""
        rank = self.rank(value)
        assert value is not None
        assert value.shape is not None
        sizes = [size if isinstance(size, int) else size.value for size in value.shape]
        lengths = [product_of(size) for size in sizes]
        state = self._states.get(value)
        if isinstance(state, Rows):
            assert state.axis < rank
            lengths[state.axis] = multiply_lengths([state.outer, self.batch, state.inner])
        return lengths

    def elements(self, value: ir.Value | None) -> tuple[Product | None, ...] | None:
        """Returns the elements of an integer scalar or vector, None where they are unknown or there are more axes."""
        state = self.state(value)
        if isinstance(state, Count):
            return state.elements if value is not None and value.shape is not None and len(value.shape) <= 1 else None
        array = constant_of(value)
        if array is None or array.dtype.kind not in "iu" or array.ndim > 1 or array.size > MOST_ELEMENTS:
            return None
        return tuple(Product(int(number)) for number in array.reshape(-1))

    def inferred_lengths(self, value: ir.Value) -> list[Product | None]:
        """Returns a value's inferred lengths, None for those with symbols that the image input does not have."""
        known = {symbol for length in self.lengths(self.image) if length for symbol in length.symbols}
        return [length if length and known.issuperset(length.symbols) else None for length in self.lengths(value)]

    def refuse_varying(self, value: ir.Value | None, indices: Iterable[int], what: str) -> None:
        """Raises BatchRuleError where some elements of a vector depend, or may, on the images or on their number.

        Args:
            value: the vector.
            indices: the indices of these elements.
            what: the words for what these elements decide, such as "where it cuts", for the message.
        """
        state = self.state(value)
        if state is None or (isinstance(state, Count) and not state.varies):
            return
        if not isinstance(state, Count):
            raise UnprovedError(f"{what} depends on the images")
        for index in indices:
            each = None if state.elements is None else state.elements[index]
            if each is None:
                raise UnprovedError(f"{what} may depend on how many images there are")
            if self.batch.symbols[0] in each.symbols:
                raise MixesError(f"{what} depends on how many images there are")

    def holds_batch(self, length: Product | None) -> bool:
        """Tells whether a length is a multiple of the number of images."""
        return length is not None and length.over(self.batch) is not None

    def rows_along(self, lengths: Sequence[Product | None]) -> Rows:
        """Returns the state of a value that is the same for all images, repeated along the batch.

        Raises:
            UnprovedError: not exactly one length is known to be a multiple of the batch, or a length is unknown.
        """
        axes = [axis for axis, length in enumerate(lengths) if self.holds_batch(length)]
        if len(axes) != 1 or None in lengths:
            raise UnprovedError("its result has lengths that are not known to be the batch")
        length = lengths[axes[0]]
        assert length is not None
        inner = length.over(self.batch)
        assert inner is not None
        return Rows(axes[0], inner=inner)


BatchRule = Callable[[BatchGraph, ir.Node], States]
PACKAGE = "masktool.exporters.independence"
IMAGE_RULES: RuleTable[BatchRule] = RuleTable("batch rule", PACKAGE)
"""Rules for nodes that read something of the images."""
COUNT_RULES: RuleTable[BatchRule] = RuleTable("count rule", PACKAGE)
"""Rules for nodes that read lengths alone; without a rule, their results vary where an input does."""
PLACE_RULES: RuleTable[BatchRule] = RuleTable("place rule", PACKAGE)
"""Rules for nodes that compute with places; without a rule, no more is known of a result than that places matter."""
batch_rule = IMAGE_RULES.register
count_rule = COUNT_RULES.register
place_rule = PLACE_RULES.register
CONTRADICTIONS = (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError)
"""Exceptions that rules run into where a graph is not what its operators' specification says."""
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


def follow_node(graph: BatchGraph, node: ir.Node) -> States:
    """Returns the states of a node's results; a node whose shapes or attributes contradict its operator is unproved.

    Raises:
        BatchRuleError: nothing is known of the results.
    """
    try:
        return apply_batch_rule(graph, node)
    except CONTRADICTIONS as error:
        raise UnprovedError(f"its shapes or attributes do not fit the operator ({type(error).__name__})") from error


def apply_batch_rule(graph: BatchGraph, node: ir.Node) -> States:
    """Returns the states of a node's results, as the rule of its operator gives them.

    Raises:
        BatchRuleError: nothing is known of the results.
    """
    if node.op_type in RANDOM and node.domain in ("", "ai.onnx"):
        raise UnprovedError("draws random numbers")
    inner = list(nodes_inside(node))
    states = [graph.state(value) for each in (node, *inner) for value in each.inputs]
    if any(isinstance(state, Lost) for state in states):
        return [Lost()] * len(node.outputs)
    if inner or any(isinstance(state, Rows) for state in states):
        rule = IMAGE_RULES.rule_of(node)
        if rule is None:
            raise UnprovedError("nothing is known of this operator")
        return rule(graph, node)
    if all(state is None for state in states):
        return [None] * len(node.outputs)
    rule = (PLACE_RULES if any(isinstance(state, Places) for state in states) else COUNT_RULES).rule_of(node)
    if rule is not None:
        return rule(graph, node)
    return same(
        node, Count(any(isinstance(state, Places) or (isinstance(state, Count) and state.varies) for state in states))
    )


def same(node: ir.Node, state: State) -> States:
    """Returns the same state for every result of a node."""
    return [state] * len(node.outputs)


def axis_of(node: ir.Node, rank: int, default: int | None = None) -> int:
    """Returns a node's attribute ``axis``, counted from the front."""
    axis = node.attributes.get_int("axis", default)
    if axis is None:
        raise UnprovedError("it names no axis")
    return axis % max(rank, 1)


def listed_axes(node: ir.Node, index: int, rank: int) -> list[int] | None:
    """Returns axes from an input or else the attribute ``axes``, counted from the front; None where none are given.

    Raises:
        UnprovedError: the axes are computed.
    """
    value = input_of(node, index)
    given = node.attributes.get_ints("axes") if value is None else constant_of(value)
    if given is None:
        if value is not None:
            raise UnprovedError("the axes that it works along are computed")
        return None
    return [int(axis) % max(rank, 1) for axis in np.asarray(given).reshape(-1)]


def shared(found: Iterable[Rows]) -> Rows:
    """Returns the state that all of several values have.

    Raises:
        MixesError: the images lie differently in two of the values.
    """
    first, *others = found
    if any(other != first for other in others):
        raise MixesError("meets images with other images")
    return first
