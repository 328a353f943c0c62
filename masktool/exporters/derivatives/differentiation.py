"""Adds the gradient of a number of each row of an output to a graph.

1. The graph is brought into canonical form; what computes in 16 bits computes in float32 from then on.
2. The number of each row is emitted behind the output that it is of (:mod:`.scalar_ends`).
3. The gradient rules of :mod:`masktool.ops` walk the graph backwards, as for a masked network.

The gradient is that of the sum of all rows' numbers. Where no row of the batch changes another's results, its rows are
the gradients of each row's own number.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from masktool.contract import GRADIENT_PREFIX, OBJECTIVE
from masktool.errors import MasktoolError, UnsupportedOperatorError
from masktool.exporters.canonical import canonicalise, infer_shapes
from masktool.exporters.declared_shapes import check_sizes
from masktool.exporters.derivatives.scalar_ends import SUMMARIES, Scalar, add_scalar_end, count_numbers
from masktool.exporters.derivatives.source import GraphSource
from masktool.exporters.gradient import add_output, carry_back
from masktool.exporters.names import every_value
from masktool.exporters.onnx_file import FLOAT_TYPES, describe_value
from masktool.exporters.tolerance import reach
from masktool.exporters.widening import compute_in_single, narrow_outputs
from masktool.messages import OneOf, Placeholder, parameter
from masktool.ops.builder import dims_of, sizes_of
from masktool.ops.gradients import GradientGraph, numbers_read

FLOATING = FLOAT_TYPES | {ir.DataType.BFLOAT16}
OPEN = "not fixed"
"""What stands in the reason of a node that is refused for an open length."""
FIX_LENGTHS = "write lengths in place of the open ones first, as onnxruntime.tools.make_dynamic_shape_fixed does"
SECOND_NAME = "_"
"""What a name gets behind it where the network has that name already."""


@dataclasses.dataclass(frozen=True)
class DerivativeGraph:
    """A graph with gradients, and what it is compared with.

    Attributes:
        model: the canonical graph with the gradients.
        plain: the canonical graph that gives the output alone.
        gradients: names of the outputs that hold gradients, by the names of the inputs that they are with respect to.
        output: the name of the output that is differentiated.
        scalar: the number of each of its rows.
        batched: whether the first axis of the output is the batch.
        objective: the name of the output with the numbers that are differentiated.
        weights: the name of the input that weighs the output; None where there is none.
    """

    model: ir.Model
    plain: ir.Model
    gradients: Mapping[str, str]
    output: str
    scalar: Scalar
    batched: bool
    objective: str
    weights: str | None


def add_derivative(source: GraphSource, of: Sequence[str], output: str, target: Scalar | None) -> DerivativeGraph:
    """Returns a network's graph with the gradient of a number of each row of an output.

    Args:
        source: the network, which stays as it is.
        of: names of the float inputs that the gradient is with respect to.
        output: the name of the float output.
        target: the number of each row; None takes the one that there is.

    Raises:
        UnsupportedOperatorError: nodes without a gradient rule, or that let no gradient pass; all of them are listed.
        MasktoolError: an input, the output or the number is none that can be differentiated.
    """
    check_inputs(source.model.graph, of)
    check_output(find_output(source.model.graph, output))
    model = canonicalise(source.model)
    check_sizes(model, source.name)
    narrow = compute_in_single(model)
    infer_shapes(model)
    sources = {name: widened_input(find_input(model.graph, name)) for name in of}
    value = find_output(model.graph, output)
    check_dependence(value, sources)
    batched = is_batched(value, sources.values())
    scalar = settle_scalar(value, target, batched=batched)
    plain = giving_alone(model.clone(), output)
    taken = {each.name for graph in model.graphs() for each in every_value(graph)}
    gradients = {name: free_name(GRADIENT_PREFIX + name, taken) for name in of}
    objective, weights = free_name(OBJECTIVE, taken), free_name(f"{output}_weights", taken)

    graph = GradientGraph(model.graph, sources.values())
    end = add_scalar_end(graph, value, scalar, weights, batched=batched)
    with advising_fixed_lengths():
        carry_back(graph, value, graph.like(value, end.seed), sources.values())
    add_output(graph, objective, end.objective, shape_of_value(value)[: int(batched)], own_type(value))
    for name, each in sources.items():
        add_output(graph, gradients[name], in_shape_of(graph, each), shape_of_value(each), own_type(each))
    narrow_outputs(model, narrow)
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
    given = None if end.weights is None else weights
    return DerivativeGraph(model, plain, gradients, output, scalar, batched, objective, given)


@contextlib.contextmanager
def advising_fixed_lengths() -> Iterator[None]:
    """Adds to a refusal of nodes, some of them for open lengths, how to fix these."""
    try:
        yield
    except UnsupportedOperatorError as error:
        if any(OPEN in node.reason for node in error.nodes):
            raise error.advised(FIX_LENGTHS) from error
        raise


def check_inputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Raises MasktoolError where a name is not that of a float input of known rank that callers feed."""
    inputs = {str(value.name): value for value in graph.inputs if value.name not in graph.initializers}
    described = ", ".join(map(describe_value, inputs.values())) or "no input"
    if not names:
        raise MasktoolError(
            "no input to differentiate for", got=described, fix="name one: " + parameter("of", Placeholder("INPUT"))
        )
    if len(set(names)) < len(names):
        raise MasktoolError("an input that is named twice", where=parameter("of"), got=", ".join(names))
    for name in names:
        where = parameter("of", name)
        if name not in inputs:
            raise MasktoolError("no such input", where=where, expected="the name of a float input", got=described)
        value = inputs[name]
        if not isinstance(value.type, ir.TensorType) or value.dtype not in FLOATING:
            raise MasktoolError(
                "a gradient is with respect to real numbers",
                where=where,
                expected="a float input",
                got=describe_value(value),
                fix="of an index into a table (Gather), split the network behind the table and take its rows as input",
            )
        if value.shape is None:
            raise MasktoolError(
                "an input of unknown rank",
                where=where,
                expected="a shape in the file, its open lengths as names",
                got=describe_value(value),
                fix="declare it, as onnx.tools.update_model_dims does",
            )


def check_output(value: ir.Value) -> None:
    """Raises MasktoolError where an output is no tensor of floats."""
    if not isinstance(value.type, ir.TensorType) or value.dtype not in FLOATING:
        raise MasktoolError(
            "only real numbers have a gradient",
            where=parameter("output", str(value.name)),
            expected="a float output",
            got=describe_value(value),
        )


def find_input(graph: ir.Graph, name: str) -> ir.Value:
    """Returns the input of a name that there is."""
    return next(value for value in graph.inputs if value.name == name)


def find_output(graph: ir.Graph, name: str) -> ir.Value:
    """Returns the output of a name; MasktoolError where there is none."""
    for value in graph.outputs:
        if value.name == name:
            return value
    raise MasktoolError(
        "no such output",
        where=parameter("output", name),
        expected="the name of an output",
        got=", ".join(map(describe_value, graph.outputs)) or "no output",
    )


def widened_input(value: ir.Value) -> ir.Value:
    """Returns what stands for an input in a graph that computes in float32: of one of 16 bits, its cast."""
    if value.dtype not in FLOAT_TYPES or value.dtype == ir.DataType.FLOAT16:
        return next(node.outputs[0] for node in value.consumers() if node.op_type == "Cast")
    return value


def check_dependence(output: ir.Value, sources: Mapping[str, ir.Value]) -> None:
    """Raises MasktoolError where an output is not computed from an input: its gradient would be 0 whatever is fed."""
    reached = reach(
        [output],
        lambda value: [] if (node := value.producer()) is None else [each for each in numbers_read(node) if each],
    )
    if unread := [name for name, value in sources.items() if value not in reached]:
        raise MasktoolError(
            f"the output {output.name!r} does not depend on the input, so that its gradient is 0 whatever is fed",
            where=parameter("of", unread[0]),
            expected="inputs that the output is computed from",
            got=", ".join(unread),
            fix="leave that out, or name another output",
        )


def is_batched(output: ir.Value, sources: Iterable[ir.Value]) -> bool:
    """Tells whether the first axis of an output is the batch.

    It is where it is as long as the first of an input, or open as that is, or has the name of any open axis of one.
    """
    if output.shape is None:
        raise MasktoolError(
            "an output of unknown rank",
            where=parameter("output", str(output.name)),
            fix="an operator in front of it has no known shape: declare the output's shape in the file",
        )
    own = dims_of(output)[:1]
    given = [dims_of(value) for value in sources]
    first = [length for lengths in given for length in lengths[:1]]
    if not own:
        return False
    if isinstance(own[0], int):
        return own[0] in first
    return any(not isinstance(length, int) for length in first) or any(own[0] in lengths for lengths in given)


def settle_scalar(output: ir.Value, target: Scalar | None, *, batched: bool) -> Scalar:
    """Returns the number of each row that is differentiated.

    Raises:
        MasktoolError: a row holds several numbers and none was chosen, or not the one that was.
    """
    number = count_numbers(output, batched=batched)
    if target is None and number == 1:
        return "sum"
    whose = "each row of the batch" if batched else "it"
    if target is None:
        example = (0,) * (len(sizes_of(output)) - int(batched))
        raise MasktoolError(
            f"the output holds {'many' if number is None else number} numbers for {whose}, and a gradient is of one",
            where=parameter("output", str(output.name)),
            got=describe_value(output),
            fix="choose it: " + parameter("target", OneOf((example, *SUMMARIES), " | ")),
        )
    if isinstance(target, tuple):
        check_indices(output, target, batched=batched)
    return target


def check_indices(output: ir.Value, place: tuple[int, ...], *, batched: bool) -> None:
    """Raises MasktoolError where indices do not name one number of a row."""
    lengths = sizes_of(output)[int(batched) :]
    where = parameter("output", str(output.name)) + ", " + parameter("target", place)
    if len(place) != len(lengths):
        behind = "behind the batch" if batched else "(it has none of the batch)"
        raise MasktoolError(
            f"one index for each axis {behind} names a number",
            where=where,
            expected=f"{len(lengths)} indices" if len(lengths) != 1 else "1 index",
            got=len(place),
        )
    if any(index < 0 or (length is not None and index >= length) for index, length in zip(place, lengths, strict=True)):
        raise MasktoolError(
            "no such number",
            where=where,
            expected=", ".join("0 or more" if length is None else f"0 to {length - 1}" for length in lengths),
            got=", ".join(map(str, place)),
        )


def giving_alone(model: ir.Model, output: str) -> ir.Model:
    """Returns a graph that gives one of its outputs alone, made of the graph in place."""
    model.graph.outputs[:] = [find_output(model.graph, output)]
    common.RemoveUnusedNodesPass()(model)
    return model


def free_name(name: str, taken: set[str | None]) -> str:
    """Returns a name that nothing in the graph has, and remembers it as taken."""
    while name in taken:
        name += SECOND_NAME
    taken.add(name)
    return name


def shape_of_value(value: ir.Value) -> list[int | ir.SymbolicDim]:
    """Returns the shape of a value whose rank was looked at before."""
    assert value.shape is not None
    return list(value.shape)


def own_type(value: ir.Value) -> ir.DataType:
    """Returns the type in which a gradient or a number is given: float64 for that, else float32."""
    return ir.DataType.DOUBLE if value.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT


def in_shape_of(graph: GradientGraph, source: ir.Value) -> ir.Value:
    """Returns the gradient of an input.

    Where a length is open, a Reshape to the input's own shape refuses at run time what was summed over too few axes: a
    single row that was broadcast to many.
    """
    gradient = graph.total(source)
    assert gradient is not None  # carry_back refuses that
    if all(isinstance(length, int) for length in dims_of(source)):
        return gradient
    return graph.emit("Reshape", gradient, graph.emit("Shape", source))
