"""How far two runs of the same network may lie apart: decided here alone, by the precision inside the graph.

A graph may take and return float32 and compute in float16 in between, as converters write it by default. So neither
the images' type nor the outputs' tells the precision; what is computed on the way from the image to an output does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_ir as ir

ONES_TOLERANCE = 1e-5
"""Relative to max |output|: what a lost fusion in the runtime may cost under a mask of ones. Most networks show 0."""
BATCH_TOLERANCE = 1e-4
"""Relative to max |output|: runtimes choose other kernels for other batch sizes, which round differently."""
LIFT_TOLERANCE = 1e-5
"""Relative to max |output|: a batch that was lifted against the source; beyond float32 rounding, images were mixed."""
HALF_TOLERANCE: Mapping[ir.DataType, float] = {ir.DataType.FLOAT16: 1e-2, ir.DataType.BFLOAT16: 8e-2}
"""Relative to max |output|, for all of them: ten and seven bits of mantissa, rounded at every layer."""
SPREAD_FACTOR = 2
"""Times a spread that was measured: the runtime does to the masked graph's answers what it does to the source's."""
SPREADS = ("source_spread", "masked_spread")
"""Figures that excuse others: how far the source's own answers move, and the masked graph's, with the runtime alone."""
LIMITS: Mapping[str, float] = {
    "ones": ONES_TOLERANCE,
    "left_out": ONES_TOLERANCE,
    "invariance": 0.0,
    "batches": BATCH_TOLERANCE,
    "one_image": BATCH_TOLERANCE,
    "ones_unfused": ONES_TOLERANCE,
    "head": ONES_TOLERANCE,
    "plain_branch": ONES_TOLERANCE,
    "masked_branch": ONES_TOLERANCE,
    "uncorrected": 0.0,
    "correction": BATCH_TOLERANCE,
}
"""What each figure may be at most in float32; ``response`` (the effect of masking half the image) has none."""
WIDENED = ("ones", "left_out", "batches", "one_image", "head", "plain_branch", "masked_branch", "correction")
"""Figures that are judged against a spread where that was measured."""
INTEGER_KERNELS = "QLinear"
"""Beginning of the names of operators that compute on integers, optimised or not."""


def limits_of(model: ir.Model, image_input: str, source: ir.Model | None = None) -> Mapping[str, float]:
    """Returns the limit of each parity figure, by the precision inside a graph, and inside its source where given.

    A file with gradients computes in float32 what its source computes in 16 bits.
    """
    graphs = [model] if source is None else [model, source]
    half = max(half_tolerance_of(each, image_input) for each in graphs)
    return {name: limit and max(limit, half) for name, limit in LIMITS.items()}


def without_unfused(limits: Mapping[str, float], source: ir.Model) -> Mapping[str, float]:
    """Returns the limits without that of ``ones_unfused`` where the source computes on integers in any case.

    Without optimisations the masked graph computes the same in float, and rounds other than an integer kernel does.
    """
    integers = any(node.op_type.startswith(INTEGER_KERNELS) for node in source.graph)
    return {name: limit for name, limit in limits.items() if name != "ones_unfused" or not integers}


def is_quantised(model: ir.Model) -> bool:
    """Tells whether a graph quantises anything, so that ONNX Runtime may compute on integers."""
    return any(node.op_type.startswith(INTEGER_KERNELS) or node.op_type == "QuantizeLinear" for node in model.graph)


def widened(limits: Mapping[str, float], figures: Mapping[str, object]) -> Mapping[str, float]:
    """Returns the limits, widened by the spreads that are among the figures."""
    measured = (figures.get(name) for name in SPREADS)
    spread = SPREAD_FACTOR * max((each for each in measured if isinstance(each, int | float)), default=0.0)
    return {name: max(limit, spread) if name in WIDENED else limit for name, limit in limits.items()}


def lift_tolerance_of(model: ir.Model, image_input: str) -> float:
    """Returns by how much the results of a lifted batch may differ, by the precision inside a graph."""
    return max(LIFT_TOLERANCE, half_tolerance_of(model, image_input))


def half_tolerance_of(model: ir.Model, image_input: str) -> float:
    """Returns the tolerance of the coarsest of the 16-bit types inside a graph, 0 where there is none."""
    types = types_inside(model, image_input)
    return max((tolerance for half, tolerance in HALF_TOLERANCE.items() if half in types), default=0.0)


def types_inside(model: ir.Model, image_input: str) -> set[ir.DataType | None]:
    """Returns the element types of values that are computed from the image and reach an output, or stand in a subgraph.

    A weight that is stored in 16 bits and cast before its use is none of them: rounded once, it is the same in each
    run. What runs in 16 bits has been cast to them or came in so; in between, types need not be known.
    """
    image = [value for value in model.graph.inputs if value.name == image_input]
    ahead = reach(image, lambda value: [result for node in value.consumers() for result in node.outputs])
    behind = reach(model.graph.outputs, inputs_of_producer)
    bodies = (node for function in model.functions.values() for node in function.all_nodes())
    nested = (node for graph in model.graph.subgraphs() for node in graph.all_nodes())
    values = (*(ahead & behind), *(value for node in (*bodies, *nested) for value in node.outputs))
    return {type_of_value(value) for value in values}


def inputs_of_producer(value: ir.Value) -> list[ir.Value]:
    """Returns the values that a value is computed from in one step."""
    node = value.producer()
    return [] if node is None else [each for each in node.inputs if each is not None]


def type_of_value(value: ir.Value) -> ir.DataType | None:
    """Returns the element type of a value, or that of its Cast where none is declared; None where nothing tells."""
    node = value.producer()
    if value.dtype is None and node is not None and node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int())
    return value.dtype


def reach(start: Iterable[ir.Value], follow: Callable[[ir.Value], Iterable[ir.Value]]) -> set[ir.Value]:
    """Returns the values that are reached from ``start`` by following ``follow``, those of ``start`` included."""
    found, waiting = set(start), list(start)
    while waiting:
        fresh = [value for value in follow(waiting.pop()) if value not in found]
        found.update(fresh)
        waiting.extend(fresh)
    return found
