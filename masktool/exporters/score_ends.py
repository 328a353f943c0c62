"""Reads off the end of a graph which operators moved, scaled, bounded or selected the values of an output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from masktool.contract import OutputKind

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
SOFTMAXES = frozenset({"Softmax", "LogSoftmax"})
BOUNDING = NORMALISING | {"Tanh", "HardSigmoid", "Clip"}
"""Operators whose results lie in a fixed range: a mean of these is no logit."""
SELECTING = frozenset(
    {
        *("TopK", "ArgMax", "ArgMin", "Hardmax", "OneHot", "NonMaxSuppression", "NonZero", "Unique"),
        *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor"),
    }
)
"""Operators whose results are decisions, places or the best few, never one score for each class."""
ELEMENTWISE = frozenset(
    {
        *("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Gelu", "Softplus", "Softsign"),
        *("Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Pow", "Sign", "Round", "Floor", "Ceil", "Erf", "Mish"),
        *("Tanh", "HardSigmoid", "HardSwish", "Clip", "LogSoftmax"),
    }
)
"""Operators that compute each value from one value: what they make of a selection is a selection too."""
DEEPEST = 8
"""Number of nested sums of selections that are followed."""
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
SMALL = 1e-3
"""A constant up to this beside a sum of exponentials only keeps it from 0."""
KINDS_OF_END: Mapping[str, tuple[OutputKind, ...]] = {
    "Softmax": ("probabilities",),
    "LogSoftmax": ("logits",),  # softmax of log-probabilities gives the probabilities back
    "Sigmoid": ("sigmoid",),
    "Sigmoid of one column": ("binary-probability", "sigmoid"),
    "Complement": ("probabilities",),  # p and 1 - p of one sigmoid
}
"""Kinds of output that may have such an end; the first is taken where the user says nothing."""


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


def end_of(value: ir.Value) -> ir.Node | None:
    """Returns the node that an output ends in, in front of nodes that rearrange it or scale an unbounded score."""
    node = find_score_producer(value)
    if is_unbounded(value):
        while node is not None and (inner := scaled_operand(node)) is not None:
            node = find_score_producer(inner)
    return node


def is_unbounded(value: ir.Value) -> bool:
    """Tells whether an output ends in a linear layer or in a mean over places, scaled and shifted or not, or in sums of
    such: a classifier that does gives unbounded scores, as cross-entropy training wants them. So do regressions and
    embeddings.
    """
    start = find_score_producer(value)
    waiting, seen = [start], {start}
    while waiting:
        node = waiting.pop()
        if node is None:
            return False
        if node.op_type in LINEAR | MEANS:
            continue
        inner = scaled_operand(node)
        operands = list(node.inputs) if node.op_type in SUMS else [inner]
        changing = [each for each in operands if each is not None and not is_constant(each)]
        if not changing:
            return False
        found = {find_score_producer(each) for each in changing} - seen
        seen |= found
        waiting.extend(found)
    return start is not None and not averages_shares(start)


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


def name_end(value: ir.Value, columns: int | None) -> str | None:
    """Returns what the end of a graph says of an output, a key of ``KINDS_OF_END``; None where it says nothing."""
    node, trail = behind_clips(value)
    if node is None:
        return None
    clipped = any(each.op_type in CLIPPING for each in trail)
    if node.op_type in ("Exp", "Log") and node.inputs[0] is not None:
        inverse = {"Exp": ("LogSoftmax", "Softmax"), "Log": ("Softmax", "LogSoftmax")}[node.op_type]
        before = softmax_over_columns(*behind_clips(node.inputs[0]), [node, *trail], columns)
        found = inverse[1] if before == inverse[0] else None
    elif is_sigmoid(node):
        return "Sigmoid of one column" if columns == 1 else "Sigmoid"
    elif columns == 2 and complements(node):
        return "Complement"
    else:
        found = softmax_over_columns(node, [], trail, columns)
    return None if found == "LogSoftmax" and clipped else found


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


def softmax_over_columns(
    node: ir.Node | None, before: Sequence[ir.Node], trail: Sequence[ir.Node], columns: int | None
) -> str | None:
    """Returns the operator of a softmax, written out or not, that goes over the columns of an output; else None.

    Args:
        node: the node that may be a softmax.
        before: the nodes between that node and the trail, in order.
        trail: the nodes that rearrange its results to the output, in order.
        columns: the number of columns of the output; None where it is not known.
    """
    if node is None:
        return None
    name, axes = (node.op_type, softmax_axes(node)) if node.op_type in SOFTMAXES else ("Softmax", shared_axes(node))
    shape = next((each.shape for each in (*node.outputs, *node.inputs) if each is not None and each.shape), None)
    if not axes or columns == 1:  # of one column each alone: 1, whatever the image
        return None
    return name if are_columns(axes, shape, [*before, *trail], columns) else None


def softmax_axes(node: ir.Node) -> list[int]:
    """Returns the axes that a Softmax or LogSoftmax goes over."""
    shape = next((each.shape for each in (*node.inputs, *node.outputs) if each is not None and each.shape), None)
    since_opset_13 = (node.version or node.graph.opset_imports.get("", 13) if node.graph else 13) >= 13
    axis = node.attributes.get_int("axis", -1 if since_opset_13 else 1)
    assert axis is not None
    return [axis] if since_opset_13 or shape is None else list(range(axis % shape.rank(), shape.rank()))


def shared_axes(node: ir.Node) -> list[int] | None:
    """Returns the axes of a softmax that is written out, exp(z) / Σ exp(z); None where a node is none."""
    numerator, denominator = fraction_of(node)
    if numerator is None or denominator is None:
        return None
    total = denominator.producer()
    while total is not None and (inner := kept_from_zero(total)) is not None:
        total = inner.producer()
    if (
        total is None
        or total.op_type not in ("ReduceSum", "ReduceL1")
        or not same_exponential(numerator, total.inputs[0])
    ):
        return None
    given = constant_behind(total.inputs[1]) if len(total.inputs) > 1 else None
    if given is not None:
        return [int(each) for each in given.reshape(-1)]
    listed = total.attributes.get_ints("axes", None)
    shape = None if total.inputs[0] is None else total.inputs[0].shape
    return list(listed) if listed is not None else None if shape is None else list(range(shape.rank()))


def kept_from_zero(node: ir.Node) -> ir.Value | None:
    """Returns the input that a node repeats, rearranges, clips or adds a small constant to."""
    if node.op_type == "Expand":
        return node.inputs[0]
    if node.op_type in SUMS:
        added = [number for each in node.inputs if (number := constant_behind(each)) is not None]
        small = all(np.abs(number).max(initial=0) <= SMALL for number in added)
        return lone_operand(node) if added and small else None
    return passed_on(node)


def fraction_of(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """Returns numerator and denominator of a division, or of a product with a reciprocal.

    Both are None for any other node, and the numerator alone for a Reciprocal.
    """
    if node.op_type == "Div":
        return node.inputs[0], node.inputs[1]
    if node.op_type == "Reciprocal":
        return None, node.inputs[0]
    if node.op_type == "Mul":
        for factor, other in (node.inputs, node.inputs[::-1]):
            producer = None if factor is None else find_score_producer(factor)
            if producer is not None and producer.op_type == "Reciprocal":
                return other, producer.inputs[0]
    return None, None


def same_exponential(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Tells whether two values are exponentials of the same value."""
    powers = [exponent_of(one), exponent_of(other)]
    return powers[0] is not None and powers[0] is powers[1]


def exponent_of(value: ir.Value | None) -> ir.Value | None:
    """Returns the z of a value exp(z); None where a value is no exponential."""
    producer = None if value is None else find_score_producer(value)
    if producer is None or producer.op_type != "Exp" or producer.inputs[0] is None:
        return None
    return core_of(producer.inputs[0])


def is_sigmoid(node: ir.Node) -> bool:
    """Tells whether a node is a sigmoid: the operator, 1 / (1 + exp(-z)) or exp(z) / (1 + exp(z))."""
    if node.op_type == "Sigmoid":
        return True
    numerator, denominator = fraction_of(node)
    total = None if denominator is None else find_score_producer(denominator)
    if total is None or total.op_type not in ("Add", "Sum") or len(total.inputs) != 2:
        return False
    for one, power in (total.inputs, total.inputs[::-1]):
        if is_one(one) and exponent_of(power) is not None:
            return node.op_type == "Reciprocal" or is_one(numerator) or same_exponential(numerator, power)
    return False


def is_one(value: ir.Value | None) -> bool:
    """Tells whether a value is the constant 1."""
    number = constant_behind(value)
    return number is not None and number.size > 0 and bool((number == 1).all())


def complements(node: ir.Node) -> bool:
    """Tells whether a node joins p and 1 - p, of one sigmoid p, side by side."""
    if node.op_type != "Concat" or len(node.inputs) != 2 or node.attributes.get_int("axis", 0) not in (1, -1):
        return False
    for share, rest in (node.inputs, node.inputs[::-1]):
        difference = None if rest is None else find_score_producer(rest)
        if share is None or difference is None or difference.op_type != "Sub" or not is_one(difference.inputs[0]):
            continue
        taken = difference.inputs[1]
        if taken is not None and core_of(taken) is core_of(share) and name_end(share, 1) is not None:
            return True
    return False


def averages_shares(end: ir.Node) -> bool:
    """Tells whether a sum or mean is taken of values that a softmax, a sigmoid or the like has bounded already."""
    waiting, seen = [end], {end}
    while waiting:
        node = waiting.pop()
        if node.op_type in BOUNDING or is_sigmoid(node) or shared_axes(node) is not None:
            return True
        if node.op_type in LINEAR:
            continue
        if node is end or node.op_type in ARRANGING | PICKING | SCALING | MEANS | SUMS:
            producers = (each.producer() for each in node.inputs if each is not None)
            found = {each for each in producers if each is not None and each not in seen}
            seen |= found
            waiting.extend(found)
    return False


def are_columns(axes: Sequence[int], shape: ir.Shape | None, trail: Sequence[ir.Node], columns: int | None) -> bool:
    """Tells whether axes of a value are the columns of an output: as many, as far as shapes say, and not the images.

    Args:
        axes: the axes of the value.
        shape: the shape of the value; None where it is not known.
        trail: the nodes that rearrange the value to the output, in order.
        columns: the number of columns of the output; None where it is not known.
    """
    if shape is None or not shape.rank():
        return 0 not in axes
    rank = shape.rank()
    places = {axis % rank for axis in axes}
    lengths = [shape[place] for place in places]
    known = columns is not None and all(isinstance(length, int) for length in lengths)
    if known and product(lengths) != columns:
        return False
    if known and all(shape[other] == 1 for other in set(range(rank)) - places):
        return True  # all that there is of one image
    return 0 not in moved_axes(places, trail)


def moved_axes(axes: set[int], trail: Sequence[ir.Node]) -> set[int]:
    """Returns where nodes that rearrange values move axes to; the first axis stays where it is under a Reshape."""
    for node in trail:
        order = node.attributes.get_ints("perm", None) if node.op_type == "Transpose" else None
        if order is not None and max(axes) < len(order):
            axes = {order.index(axis) for axis in axes}
        elif node.op_type == "Transpose" and (shape := node.inputs[0].shape if node.inputs[0] else None):
            axes = {shape.rank() - 1 - axis for axis in axes}
    return axes


def product(lengths: Sequence[object]) -> int:
    """Returns the product of those lengths that are numbers."""
    result = 1
    for length in lengths:
        assert isinstance(length, int)
        result *= length
    return result


def scales_to_unit_length(node: ir.Node) -> bool:
    """Tells whether a node divides by an L2 norm."""
    if node.op_type == "LpNormalization":
        return True
    operands = [each for each in node.inputs if each is not None]
    if node.op_type not in ("Div", "Mul") or len(operands) < 2:
        return False
    return any(is_norm(each) for each in (operands[1:] if node.op_type == "Div" else operands))


NORM_PATH = ARRANGING | {"Expand", "Clip", "Max", "Add", "Reciprocal"}
"""Operators between a norm and the division by it, which add an epsilon to the norm and repeat it."""


def is_norm(value: ir.Value) -> bool:
    """Tells whether a value is an L2 norm, kept from 0 and repeated or not."""
    node = value.producer()
    while node is not None and node.op_type in NORM_PATH and (inner := first_changing(node)) is not None:
        node = inner.producer()
    if node is None:
        return False
    if node.op_type == "ReduceL2":
        return True
    return node.op_type in ("Sqrt", "Pow", "Rsqrt") and any(
        upstream.op_type in ("ReduceSumSquare", "ReduceSum") for upstream in walk_back(node, NORM_PATH, depth=4)
    )


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


def find_selection(value: ir.Value, depth: int = DEEPEST) -> ir.Node | None:
    """Returns the node that selected, compared or decided the values of an output; None where no node did.

    Args:
        value: the output, or a value that it is computed from.
        depth: the number of nested sums of two selections that are followed.
    """
    waiting, seen = [value], {value}
    while waiting:
        node = waiting.pop().producer()
        if node is None:
            continue
        if node.op_type in SELECTING:
            return node
        passes = node.op_type in ARRANGING | PICKING | NORMALISING | ELEMENTWISE
        if passes or (node.op_type in SCALING and lone_operand(node) is not None):
            found = [each for each in passed_values(node) if each not in seen]
            seen.update(found)
            waiting.extend(found)
        elif node.op_type in SCALING | SUMS | CLIPPING and depth:
            changing = [each for each in node.inputs if each is not None and not is_constant(each)]
            selections = [find_selection(each, depth - 1) for each in changing]
            if selections and all(selections):
                return selections[0]
    return None


def passed_values(node: ir.Node) -> list[ir.Value]:
    """Returns the inputs whose values a node passes on or picks from: of a Where the two values, and the condition only
    where both are constant, so that it alone tells images apart.
    """
    inputs = [each for each in node.inputs if each is not None]
    if node.op_type != "Where" or all(map(is_constant, inputs[1:])):
        return inputs
    return inputs[1:]


def name_node(node: ir.Node) -> str:
    """Returns operator and name of a node, as messages show them."""
    return f"{node.op_type} (node {node.name!r})" if node.name else node.op_type
