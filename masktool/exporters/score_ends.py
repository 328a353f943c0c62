"""What the end of a graph says of its values: which operators moved, scaled, bounded or selected them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from masktool.contract import OutputKind

ARRANGING = frozenset(
    {
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Cast", "Transpose"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
"""They move class scores about and leave their values alone, but for rounding."""
PICKING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split", "Concat", "Expand", "Tile", "Where"})
"""They keep some of their inputs' values, each as it is."""
SCALING = frozenset({"Add", "Sub", "Mul", "Div", "BatchNormalization"})
"""With a constant, they keep scores unbounded and their order (a negative factor apart)."""
NORMALISING = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
BOUNDING = NORMALISING | {"Tanh", "HardSigmoid", "Clip"}
"""What they give is in a fixed range: a mean of it is no logit."""
SELECTING = frozenset(
    {
        *("TopK", "ArgMax", "ArgMin", "Hardmax", "OneHot", "NonMaxSuppression", "NonZero", "Unique"),
        *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor"),
    }
)
"""What they give are decisions, places or the best few, never one score for each class."""
LINEAR = frozenset(
    {
        *("Gemm", "MatMul", "Conv", "ConvTranspose", "Einsum", "FusedGemm", "FusedMatMul", "FusedConv"),
        *("QLinearMatMul", "QLinearConv", "QGemm", "MatMulInteger", "ConvInteger"),
    }
)
UNBOUNDED = LINEAR | {"Add", "Sum", "GlobalAveragePool", "AveragePool", "ReduceMean"}
"""A classifier that ends in one of these gives unbounded scores, as cross-entropy training wants them. So do
regressions and embeddings."""
KINDS_OF_END: Mapping[str, tuple[OutputKind, ...]] = {
    "Softmax": ("probabilities",),
    "LogSoftmax": ("logits",),  # softmax of log-probabilities gives the probabilities back
    "Sigmoid": ("sigmoid",),
    "Sigmoid of one column": ("binary-probability", "sigmoid"),
}
"""What an output may hold that ends so; the first is taken where the user says nothing."""


def core_of(value: ir.Value) -> ir.Value:
    """Returns the value in front of everything that only rearranges it."""
    node = value.producer()
    while node is not None and node.op_type in ARRANGING and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def find_score_producer(output: ir.Value) -> ir.Node | None:
    """Returns the node that computes an output's values, behind all that only rearranges them."""
    return core_of(output).producer()


def end_of(value: ir.Value) -> ir.Node | None:
    """Returns the node that an output ends in: behind all that rearranges, or that scales an unbounded score."""
    end = node = find_score_producer(value)
    while node is not None and node.op_type in SCALING and (inner := lone_operand(node)) is not None:
        node = find_score_producer(inner)
        if node is not None and node.op_type in UNBOUNDED:
            end = node
    return end


def lone_operand(node: ir.Node) -> ir.Value | None:
    """Returns the one input that is no constant; None where several are."""
    changing = [each for each in node.inputs if each is not None and not is_constant(each)]
    return changing[0] if len(changing) == 1 else None


def is_constant(value: ir.Value) -> bool:
    """Tells whether a value is a weight or a Constant's, rearranged or not."""
    core = core_of(value)
    producer = core.producer()
    if producer is not None:
        return producer.op_type in ("Constant", "ConstantOfShape")
    return core.const_value is not None or core.is_initializer()


def name_end(node: ir.Node | None, columns: int | None) -> str | None:
    """Returns what a node at the end says of the values, a key of ``KINDS_OF_END``; None where it says nothing."""
    if node is None:
        return None
    if node.op_type == "Div" and divides_exponentials(node):
        return "Softmax"
    if node.op_type in ("Softmax", "LogSoftmax"):
        return node.op_type if goes_over_columns(node, columns) else None
    if node.op_type == "Sigmoid":
        return "Sigmoid of one column" if columns == 1 else "Sigmoid"
    return None


def averages_shares(end: ir.Node) -> bool:
    """Tells whether a sum or mean is one of what a softmax, a sigmoid or the like has bounded already."""
    waiting, seen = [end], {end}
    while waiting:
        node = waiting.pop()
        if node.op_type in BOUNDING or (node.op_type == "Div" and divides_exponentials(node)):
            return True
        if node.op_type in LINEAR:
            continue
        if node is end or node.op_type in ARRANGING | PICKING | SCALING | UNBOUNDED:
            producers = (each.producer() for each in node.inputs if each is not None)
            found = {each for each in producers if each is not None and each not in seen}
            seen |= found
            waiting.extend(found)
    return False


def goes_over_columns(node: ir.Node, columns: int | None) -> bool:
    """Tells whether a softmax goes over as many values as there are columns, as far as shapes say."""
    if columns == 1:
        return False  # each alone: 1, whatever the image
    shape = next((each.shape for each in (*node.inputs, *node.outputs) if each is not None and each.shape), None)
    if shape is None or columns is None:
        return True
    since_opset_13 = (node.version or node.graph.opset_imports.get("", 13) if node.graph else 13) >= 13
    axis = node.attributes.get_int("axis", -1 if since_opset_13 else 1)
    assert axis is not None
    rank = shape.rank()
    axes = [axis % rank] if since_opset_13 else range(axis % rank, rank)
    lengths = [shape[each] for each in axes]
    return not all(isinstance(length, int) for length in lengths) or product(lengths) == columns


def product(lengths: Sequence[object]) -> int:
    """Returns the product of lengths that are numbers."""
    result = 1
    for length in lengths:
        assert isinstance(length, int)
        result *= length
    return result


def divides_exponentials(node: ir.Node) -> bool:
    """Tells whether a Div is the last step of a softmax written out."""
    numerator = None if node.inputs[0] is None else node.inputs[0].producer()
    return numerator is not None and numerator.op_type == "Exp"


def scales_to_unit_length(node: ir.Node) -> bool:
    """Tells whether a node divides by an L2 norm."""
    if node.op_type == "LpNormalization":
        return True
    operands = [each for each in node.inputs if each is not None]
    if node.op_type not in ("Div", "Mul") or len(operands) < 2:
        return False
    return any(is_norm(each) for each in (operands[1:] if node.op_type == "Div" else operands))


NORM_PATH = ARRANGING | {"Expand", "Clip", "Max", "Add", "Reciprocal"}
"""What stands between a norm and the division by it: an epsilon, and its repetition."""


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
    """Returns the first input that is no constant."""
    return next((each for each in node.inputs if each is not None and not is_constant(each)), None)


def walk_back(node: ir.Node, through: frozenset[str], depth: int) -> Iterator[ir.Node]:
    """Yields what a node's first changing input comes from, as far as certain operators go, and the one beyond."""
    for _ in range(depth):
        inner = first_changing(node)
        found = None if inner is None else inner.producer()
        if found is None:
            return
        yield found
        if found.op_type not in through:
            return
        node = found


def find_selection(value: ir.Value) -> ir.Node | None:
    """Returns the node that selected, compared or decided what an output holds; None where none did."""
    waiting, seen = [value], {value}
    while waiting:
        node = waiting.pop().producer()
        if node is None:
            continue
        if node.op_type in SELECTING:
            return node
        passes = node.op_type in ARRANGING | PICKING | NORMALISING
        if passes or (node.op_type in SCALING and lone_operand(node) is not None):
            found = [each for each in values_of(node) if each not in seen]
            seen.update(found)
            waiting.extend(found)
    return None


def values_of(node: ir.Node) -> list[ir.Value]:
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
