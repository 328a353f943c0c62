"""What random graphs are drawn of: each rule emits a few nodes, with or without regard to the batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from fuzz.independence.drawing import FIXED_BATCH, Drawer

UNARY = ("Relu", "Neg", "Sigmoid", "Abs", "Tanh", "Identity", "Sign", "HardSwish", "Erf", "Floor")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
REDUCE = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceLogSumExp")
ALONG = ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
RULES: list[Callable[[Drawer], object]] = []


def rule(weight: int = 1) -> Callable[[Callable[[Drawer], object]], Callable[[Drawer], object]]:
    """Registers a rule, which is drawn so many times as often as one of weight 1."""

    def add(function: Callable[[Drawer], object]) -> Callable[[Drawer], object]:
        RULES.extend([function] * weight)
        return function

    return add


# Element by element


@rule(2)
def unary(d: Drawer) -> object:
    """One of the functions of one value."""
    return d.emit(d.choose(UNARY), d.pick())


@rule(3)
def binary(d: Drawer) -> object:
    """Two values, broadcast."""
    return d.emit(d.choose(BINARY), d.pick(), d.pick())


@rule(2)
def binary_with_constant(d: Drawer) -> object:
    """A value and a weight, which may have a row for each place of a fixed batch."""
    value = d.pick()
    shape = [length if d.chance(0.4) else 1 for length in d.shape(value)]
    return d.emit(d.choose(BINARY), value, d.normal(*shape[int(d.rng.integers(len(shape) + 1)) :]))


@rule()
def where(d: Drawer) -> object:
    """A choice by a threshold, which may be one over all images."""
    value, other = d.pick(), d.pick()
    limit = d.constant(0.2) if d.chance(0.5) else d.emit("ReduceMean", other, keepdims=int(d.chance(0.5)))
    return d.emit("Where", d.emit("Greater", other, limit), value, d.pick())


@rule()
def divided_by_count(d: Drawer) -> object:
    """A value over a length, which may be the number of images."""
    value = d.pick()
    count = d.emit("Size", value) if d.chance(0.3) else d.length(value, d.axis(value))
    return d.emit("Div", value, d.emit("Cast", count, to=1))


# Rearranging


@rule(3)
def transpose(d: Drawer) -> object:
    """Axes in any order."""
    value = d.pick(2)
    return d.emit("Transpose", value, perm=[int(axis) for axis in d.rng.permutation(len(d.shape(value)))])


@rule(4)
def merge_axes(d: Drawer) -> object:
    """Two neighbouring axes become one."""
    value = d.pick(2)
    axis = int(d.rng.integers(len(d.shape(value)) - 1))
    lengths = [d.length(value, each) for each in range(len(d.shape(value)))]
    merged = d.ints(-1) if d.chance(0.5) else d.emit("Mul", lengths[axis], lengths[axis + 1])
    return d.emit("Reshape", value, d.emit("Concat", *lengths[:axis], merged, *lengths[axis + 2 :], axis=0))


@rule(4)
def split_axis(d: Drawer) -> object:
    """One axis becomes two, a factor in front or behind."""
    value = d.pick()
    axis = d.axis(value)
    common = math.gcd(*(array.shape[axis] for array in d.values[value]))
    factor = d.choose([each for each in range(1, common + 1) if common % each == 0])
    lengths = [d.length(value, each) for each in range(len(d.shape(value)))]
    rest = d.ints(-1) if d.chance(0.5) else d.emit("Div", lengths[axis], d.ints(factor))
    parts = [d.ints(factor), rest] if d.chance(0.5) else [rest, d.ints(factor)]
    return d.emit("Reshape", value, d.emit("Concat", *lengths[:axis], *parts, *lengths[axis + 1 :], axis=0))


@rule(2)
def reshape_anyhow(d: Drawer) -> object:
    """A view with the lengths in another order, which puts parts of images together."""
    value = d.pick()
    order = d.rng.permutation(len(d.shape(value)))
    lengths = [d.length(value, int(axis)) for axis in order]
    if d.chance(0.4):
        lengths[int(d.rng.integers(len(lengths)))] = d.ints(-1)
    return d.emit("Reshape", value, d.emit("Concat", *lengths, axis=0))


@rule()
def reshape_by_numbers(d: Drawer) -> object:
    """Zeros, one -1, and numbers that may be the batch's."""
    value = d.pick()
    numbers = [0 if d.chance(0.5) else length for length in d.shape(value)]
    numbers[int(d.rng.integers(len(numbers)))] = -1
    return d.emit("Reshape", value, d.ints(*numbers[: int(d.rng.integers(1, len(numbers) + 1))]))


@rule(2)
def flatten(d: Drawer) -> object:
    """Two axes, cut anywhere."""
    value = d.pick()
    return d.emit("Flatten", value, axis=int(d.rng.integers(-1, len(d.shape(value)) + 1)))


@rule()
def squeeze(d: Drawer) -> object:
    """Drops one axis of length 1, or all of them."""
    value = d.pick(2)
    ones = [axis for axis in range(len(d.shape(value))) if all(a.shape[axis] == 1 for a in d.values[value])]
    axes = [d.ints(d.choose(ones))] if ones and d.chance(0.8) else []
    return d.emit("Squeeze", value, *axes)


@rule()
def unsqueeze(d: Drawer) -> object:
    """Adds an axis anywhere."""
    value = d.pick()
    return d.emit("Unsqueeze", value, d.ints(int(d.rng.integers(-1, len(d.shape(value)) + 1))))


@rule()
def expand(d: Drawer) -> object:
    """Repeats along axes of length 1, or in front."""
    value = d.pick()
    lengths = [d.length(value, axis) if d.chance(0.5) else d.ints(1) for axis in range(len(d.shape(value)))]
    lengths[int(d.rng.integers(len(lengths)))] = d.ints(d.choose((2, FIXED_BATCH)))
    lengths = [d.ints(d.choose((1, 2))), *lengths] if d.chance(0.3) else lengths
    return d.emit("Expand", value, d.emit("Concat", *lengths, axis=0))


@rule(2)
def tile(d: Drawer) -> object:
    """Repeats along any axis."""
    value = d.pick()
    repeats = [1] * len(d.shape(value))
    repeats[d.axis(value)] = 2
    return d.emit("Tile", value, d.ints(*repeats))


@rule()
def pad(d: Drawer) -> object:
    """Adds a border on one side of any axis."""
    value = d.pick()
    rank = len(d.shape(value))
    pads = [0] * (2 * rank)
    pads[d.axis(value) + d.choose((0, rank))] = 1
    return d.emit("Pad", value, d.ints(*pads), mode=d.choose(("constant", "edge")))


@rule()
def depth_to_space(d: Drawer) -> object:
    """Moves channels to places or back."""
    op_type = d.choose(("DepthToSpace", "SpaceToDepth"))
    return d.emit(op_type, d.pick(4), blocksize=2)


# Joining and cutting


@rule(4)
def concat(d: Drawer) -> object:
    """Joins two values, or a value and a weight, along any axis."""
    value = d.pick()
    shape = d.shape(value)
    axis = d.axis(value)
    others = [name for name, arrays in d.values.items() if joins(d, value, name, axis) and arrays[0].ndim]
    other = d.choose(others) if others and d.chance(0.8) else d.normal(*shape)
    return d.emit("Concat", *([value, other] if d.chance(0.5) else [other, value]), axis=axis)


def joins(d: Drawer, value: str, other: str, axis: int) -> bool:
    """Whether two values can be joined along an axis."""
    pairs = zip(d.values[value], d.values[other], strict=True)
    return all(
        one.dtype == two.dtype
        and one.ndim == two.ndim
        and one.shape[:axis] == two.shape[:axis]
        and one.shape[axis + 1 :] == two.shape[axis + 1 :]
        for one, two in pairs
    )


@rule(2)
def split(d: Drawer) -> object:
    """Cuts in halves along any axis; they may meet again."""
    value = d.pick()
    axis = d.axis(value)
    first = d.emit("Split", value, outputs=2, axis=axis, num_outputs=2)
    return d.emit("Mul", first, f"{first}_1") if d.chance(0.5) else None


@rule(2)
def cut(d: Drawer) -> object:
    """A part of any axis, from either end, or backwards."""
    value = d.pick()
    axis = d.axis(value)
    start, end, step = d.choose(
        ((0, 2**31, 1), (0, 2**31, 2), (1, 2**31, 1), (0, 1, 1), (0, -1, 1), (-1, -(2**31), -1))
    )
    ends = d.length(value, axis) if end == 2**31 and d.chance(0.4) else d.ints(end)
    return d.emit("Slice", value, d.ints(start), ends, d.ints(axis), d.ints(step))


# Indices


@rule(2)
def gather(d: Drawer) -> object:
    """Places by number."""
    value = d.pick()
    axis = d.axis(value)
    indices = d.constant(d.choose((0, -1, [0], [0, 0], [[0], [-1]])), np.int64)
    return d.emit("Gather", value, indices, axis=axis)


@rule(2)
def gather_computed(d: Drawer) -> object:
    """Places by what another value shows, of a table or of a value."""
    value, other = d.pick(), d.pick()
    indices = d.emit("ArgMax", other, axis=d.axis(other), keepdims=int(d.chance(0.5)))
    if d.chance(0.5):
        return d.emit("Gather", d.normal(2, 2), within(d, indices, 2))
    axis = d.axis(value)
    return d.emit("Gather", value, within(d, indices, least_length(d, value, axis)), axis=axis)


@rule(2)
def gather_elements(d: Drawer) -> object:
    """One place along an axis for every other place."""
    value, other = d.pick(), d.pick()
    axis = d.axis(value)
    indices = d.emit("ArgMax", value if d.chance(0.6) else other, axis=axis, keepdims=1)
    return d.emit("GatherElements", value, within(d, indices, least_length(d, value, axis)), axis=axis)


def least_length(d: Drawer, value: str, axis: int) -> int:
    """Returns the length of an axis in the smallest batch."""
    return int(min(array.shape[axis] for array in d.values[value]))


def within(d: Drawer, indices: str, length: int) -> str:
    """Returns indices that no image, whatever it shows, leads beyond a length."""
    return d.emit("Min", indices, d.constant(length - 1, np.int64))


@rule()
def scatter_elements(d: Drawer) -> object:
    """Writes at the largest number along an axis."""
    value = d.pick()
    axis = d.axis(value)
    indices = d.emit("ArgMax", value, axis=axis, keepdims=1)
    updates = d.emit("ReduceMax", value, d.ints(axis), keepdims=1)
    return d.emit("ScatterElements", value, indices, d.emit("Neg", updates), axis=axis)


@rule()
def gather_nd(d: Drawer) -> object:
    """Places by number, along several axes."""
    value = d.pick(2)
    depth = int(d.rng.integers(1, len(d.shape(value))))
    return d.emit("GatherND", value, d.constant(np.zeros((2, depth)), np.int64))


@rule()
def gather_nd_along(d: Drawer) -> object:
    """For every row its own place."""
    value = d.pick(2)
    indices = d.emit("ArgMax", value, axis=1, keepdims=0)
    indices = d.emit("Unsqueeze", within(d, indices, least_length(d, value, 1)), d.ints(-1))
    return d.emit("GatherND", value, indices, batch_dims=1)


@rule()
def scatter_nd(d: Drawer) -> object:
    """Writes over the first row."""
    value = d.pick()
    updates = d.emit("Gather", d.pick(), d.constant([-1], np.int64), axis=0)
    return d.emit("ScatterND", value, d.constant([[0]], np.int64), updates)


@rule()
def scatter_columns(d: Drawer) -> object:
    """Writes over the first column of every row."""
    value = d.pick(2)
    order = [1, 0, *range(2, len(d.shape(value)))]
    turned = d.emit("Transpose", value, perm=order)
    updates = d.emit("Abs", d.emit("Gather", turned, d.constant([-1], np.int64), axis=0))
    return d.emit("Transpose", d.emit("ScatterND", turned, d.constant([[0]], np.int64), updates), perm=order)


@rule()
def by_place(d: Drawer) -> object:
    """Counts images, and reads or moves each by its number."""
    value = d.pick()
    axis = d.choose(d.carrying(value) or [0])
    scalar = d.emit("Squeeze", d.length(value, axis), d.ints(0))
    places = d.emit("Range", d.constant(0, np.int64), scalar, d.constant(1, np.int64))
    if d.chance(0.3):
        places = d.emit("Mul", places, d.constant(d.choose((1, 2)), np.int64))
    if d.chance(0.3):
        shape = [-1, *[1] * (len(d.shape(value)) - 1 - axis)]
        return d.emit("Add", value, d.emit("Reshape", d.emit("Cast", places, to=1), d.ints(*shape)))
    return d.emit("Gather", value, places, axis=axis)


@rule()
def compress(d: Drawer) -> object:
    """Some places of any axis."""
    value = d.pick()
    axis = d.axis(value)
    condition = [True, *(bool(d.chance(0.5)) for _ in range(min(d.shape(value)[axis], 2) - 1))]
    return d.emit("Compress", value, d.constant(condition, np.bool_), axis=axis)


@rule()
def one_hot(d: Drawer) -> object:
    """A place, written out."""
    value = d.pick()
    chosen = d.emit("ArgMax", value, axis=d.axis(value), keepdims=int(d.chance(0.5)))
    return d.emit("OneHot", chosen, d.ints(4), d.constant([0, 1]), axis=d.choose((-1, 0, 1)))


# Along axes


@rule(4)
def reduce(d: Drawer) -> object:
    """Sums, means or extremes along any axes."""
    value = d.pick()
    axes = sorted({d.axis(value) for _ in range(d.choose((1, 1, 2)))})
    return d.emit(d.choose(REDUCE), value, d.ints(*axes), keepdims=int(d.chance(0.5)))


@rule(3)
def along(d: Drawer) -> object:
    """A softmax or a norm along any axis."""
    value = d.pick()
    return d.emit(d.choose(ALONG), value, axis=d.axis(value) - (len(d.shape(value)) if d.chance(0.3) else 0))


@rule()
def cumulate(d: Drawer) -> object:
    """Sums up along any axis."""
    value = d.pick()
    return d.emit("CumSum", value, d.constant(d.axis(value), np.int64), reverse=int(d.chance(0.5)))


@rule()
def top_k(d: Drawer) -> object:
    """The largest along any axis."""
    value = d.pick()
    return d.emit("TopK", value, d.ints(1), outputs=2, axis=d.axis(value))


@rule()
def layer_norm(d: Drawer) -> object:
    """Normalises from any axis on."""
    value = d.pick()
    return d.emit("LayerNormalization", value, d.constant(1.5), axis=d.axis(value))


@rule()
def spectrum(d: Drawer) -> object:
    """A Fourier transform along any axis, and its power."""
    value = d.pick()
    parts = d.emit("DFT", d.emit("Unsqueeze", value, d.ints(-1)), "", d.constant(d.axis(value), np.int64))
    return d.emit("ReduceL2", parts, d.ints(-1), keepdims=0)


@rule()
def trilu(d: Drawer) -> object:
    """One triangle of the last two axes."""
    return d.emit("Trilu", d.pick(2), upper=int(d.chance(0.5)))


@rule()
def maps(d: Drawer) -> object:
    """Operators that take axis 0 for the batch and axis 1 for channels."""
    value = d.pick(3)
    channels = d.shape(value)[1]
    op_type = d.choose(("GlobalAveragePool", "InstanceNormalization", "Conv", "MaxPool", "BatchNormalization"))
    spatial = len(d.shape(value)) - 2
    if op_type == "GlobalAveragePool":
        return d.emit(op_type, value)
    if op_type == "Conv":
        return d.emit(op_type, value, d.normal(2, channels, *[1] * spatial))
    if op_type == "MaxPool":
        return d.emit(op_type, value, kernel_shape=[2] * spatial, pads=[1] * (2 * spatial))
    ones, zeros = d.constant(np.ones(channels)), d.constant(np.zeros(channels))
    rest = [zeros, ones] if op_type == "BatchNormalization" else []
    return d.emit(op_type, value, ones, zeros, *rest)


# Products


@rule(2)
def matmul(d: Drawer) -> object:
    """A product with weights, or of a value with itself or another."""
    value = d.pick(2)
    if d.chance(0.5):
        return d.emit("MatMul", value, d.normal(d.shape(value)[-1], 3))
    order = [*range(len(d.shape(value)) - 2), len(d.shape(value)) - 1, len(d.shape(value)) - 2]
    turned = d.emit("Transpose", d.pick(2) if d.chance(0.3) else value, perm=order)
    return d.emit("MatMul", *([value, turned] if d.chance(0.5) else [turned, value]))


@rule()
def matmul_left(d: Drawer) -> object:
    """A product with weights on the left, which sums over rows."""
    value = d.pick(2)
    return d.emit("MatMul", d.normal(3, d.shape(value)[-2]), value)


@rule()
def gemm(d: Drawer) -> object:
    """A product of matrices, of the value as it is or turned."""
    value = d.pick(2)
    turn = int(d.chance(0.4))
    inner = d.shape(value)[0] if turn else d.shape(value)[1]
    added = [d.normal(*d.choose(([2], [1], [FIXED_BATCH, 1])))] if d.chance(0.5) else []
    if d.chance(0.3):
        return d.emit("Gemm", value, value, transA=turn, transB=1 - turn)
    return d.emit("Gemm", value, d.normal(inner, 2), *added, transA=turn)


@rule()
def einsum(d: Drawer) -> object:
    """Sums over letters, alone or with itself."""
    value = d.pick(2)
    letters = "abcdef"[: len(d.shape(value))]
    kept = "".join(letter for letter in letters if d.chance(0.7))
    if d.chance(0.4):
        return d.emit("Einsum", value, equation=f"{letters}->{kept}")
    return d.emit("Einsum", value, value, equation=f"{letters},{letters[:1]}{letters[1:]}->{kept}")


# Made of lengths


@rule()
def block_of_zeros(d: Drawer) -> object:
    """As many ones as the images need, joined or added."""
    value = d.pick()
    lengths = [d.length(value, axis) if d.chance(0.7) else d.ints(1) for axis in range(len(d.shape(value)))]
    made = d.emit("ConstantOfShape", d.emit("Concat", *lengths, axis=0), value=one())
    return d.emit("Concat", value, made, axis=d.axis(value)) if d.chance(0.6) else d.emit("Add", value, made)


@rule()
def token(d: Drawer) -> object:
    """A row of weights for every image, joined to its own."""
    value = d.pick(2)
    rank = len(d.shape(value))
    own = d.normal(*[1] * (rank - 1), d.shape(value)[-1])
    lengths = [d.length(value, axis) if axis in d.carrying(value) else d.ints(1) for axis in range(rank)]
    made = d.emit("Expand", own, d.emit("Concat", *lengths, axis=0))
    return d.emit("Concat", made, value, axis=d.axis(value))


@rule(2)
def divided_by_entry(d: Drawer) -> object:
    """A value over an entry of a table of lengths, in which the batch stands in one row, or in one column."""
    value = d.pick(2)
    lengths = [d.length(value, axis) for axis in range(2)]
    table = d.emit("Reshape", d.emit("Concat", *lengths, d.ints(2, 5), axis=0), d.ints(*d.choose(((2, 2), (4, 1)))))
    if d.chance(0.3):
        table = d.emit("Mul", table, d.ints(*d.choose(((1, 2), (3,)))))
    part = d.emit("Gather", table, d.constant(d.choose((0, 1, -1)), np.int64), axis=d.choose((0, 0, 1)))
    total = d.emit("ReduceSum", d.emit("Cast", part, to=1), keepdims=0)
    return d.emit("Div", value, total)


@rule()
def as_long_as_another(d: Drawer) -> object:
    """An axis repeated, cut or resized by a length, which may be the number of images."""
    value = d.pick(2)
    rank, axis, count = len(d.shape(value)), d.axis(value), d.length(d.pick(), 0)
    kind = d.choose(("expand", "cut", "resize", "ones"))
    if kind == "expand":
        lengths = [d.ints(1) for _ in range(rank + 1)]
        lengths[axis] = count
        wider = d.emit("Unsqueeze", value, d.ints(axis))
        return d.emit("ReduceSum", d.emit("Expand", wider, d.emit("Concat", *lengths, axis=0)), d.ints(axis))
    if kind == "cut":
        return d.emit("Slice", value, d.ints(0), d.ints(2**31), d.ints(axis), count)
    if kind == "resize":
        return d.emit("Resize", value, "", "", count, axes=[axis], mode="nearest")
    lengths = [d.length(value, 0), d.emit("Add", count, d.ints(1))]
    made = d.emit("ConstantOfShape", d.emit("Concat", *lengths, axis=0), value=one())
    return d.emit("Mul", d.emit("Flatten", value), d.emit("ReduceSum", made, d.ints(1), keepdims=1))


def one() -> onnx.TensorProto:
    """Returns the value of a ConstantOfShape."""
    return onnx.numpy_helper.from_array(np.ones(1, np.float32))


# Control


@rule()
def branch(d: Drawer) -> object:
    """A choice by the images, by their number, or by neither."""
    value = d.pick()
    kind = d.choose(("images", "count", "nothing"))
    if kind == "images":
        condition = d.emit("Greater", d.emit("ReduceMean", value, keepdims=0), d.constant(0.3))
    elif kind == "count":
        count = d.emit("Squeeze", d.length(value, d.axis(value)), d.ints(0))
        condition = d.emit("Greater", count, d.constant(1, np.int64))
    else:
        condition = d.emit("Greater", d.constant(1.0), d.constant(0.0))
    yes, no = (subgraph(f"{op}{d.count}", op, value) for op in ("Neg", d.choose(("Abs", "Neg"))))
    return d.emit("If", condition, then_branch=yes, else_branch=no)


def subgraph(name: str, op_type: str, value: str) -> onnx.GraphProto:
    """Returns a branch of one node."""
    node = onnx.helper.make_node(op_type, [value], [f"{name}_out"], f"{name}_inner")
    return onnx.helper.make_graph([node], name, [], [onnx.ValueInfoProto(name=f"{name}_out")])


@rule(2)
def scan(d: Drawer) -> object:
    """Goes along any axis, with or without something that is carried on."""
    value = d.pick(2)
    axis, carries, number = d.axis(value), d.chance(0.6), d.count
    rank = len(d.shape(value)) - 1
    named = [
        onnx.helper.make_tensor_value_info(f"{label}{number}", 1, [None] * rank)
        for label in ("before", "row", "after", "made")
    ]
    before, row, after, made = (each.name for each in named)
    nodes = [onnx.helper.make_node("Add", [before, row], [after])] if carries else []
    nodes.append(onnx.helper.make_node("Tanh", [after if carries else row], [made]))
    ends = ([named[0], named[1]], [named[2], named[3]]) if carries else ([named[1]], [named[3]])
    body = onnx.helper.make_graph(nodes, f"body{number}", *ends)
    start = [d.emit("ReduceMax", value, d.ints(axis), keepdims=0)] if carries else []
    placed = d.axis(value) - (rank + 1 if d.chance(0.3) else 0)
    options = {"scan_input_axes": [axis], "scan_output_axes": [placed], "num_scan_inputs": 1}
    for side in ("input", "output"):
        options[f"scan_{side}_directions"] = [int(d.chance(0.3))]
    return d.emit("Scan", *start, value, outputs=2 if carries else 1, body=body, **options)


@rule()
def recurrent(d: Drawer) -> object:
    """A recurrent layer, which takes axis 1 for the batch."""
    value = d.pick(3)
    if len(d.shape(value)) > 3:
        value = d.emit("ReduceMean", value, d.ints(d.choose((1, 2, 3))), keepdims=0)
        width = d.sides[2]
    else:
        width = d.shape(value)[2]
    hidden = 2
    weights = d.normal(1, hidden, width), d.normal(1, hidden, hidden)
    result = d.emit("RNN", value, *weights, outputs=2, hidden_size=hidden)
    return d.emit("Squeeze", f"{result}_1", d.ints(0)) if d.chance(0.6) else None


@rule()
def recurrent_with_start(d: Drawer) -> object:
    """A recurrent layer that starts with a state of as many rows as it takes, or with one row."""
    value = d.pick(3)
    if len(d.shape(value)) > 3:
        value = d.emit("ReduceMax", value, d.ints(d.choose((1, 2, 3))), keepdims=0)
    value = d.emit("Transpose", value, perm=d.choose(([0, 1, 2], [1, 0, 2], [2, 0, 1])))
    hidden, rows = 2, d.emit("Shape", value, start=1, end=2)
    if d.fixed and d.chance(0.7):
        start = d.constant(np.zeros((1, FIXED_BATCH, hidden))) if d.chance(0.5) else d.normal(1, FIXED_BATCH, hidden)
    else:
        start = d.emit("Expand", d.normal(1, 1, hidden), d.emit("Concat", d.ints(1), rows, d.ints(1), axis=0))
    projected = d.emit("ReduceMean", value, d.ints(2), keepdims=1)
    weights = d.normal(1, 3 * hidden, 1), d.normal(1, 3 * hidden, hidden)
    result = d.emit("GRU", projected, *weights, "", "", start, outputs=2, hidden_size=hidden)
    return d.emit("Squeeze", f"{result}_1", d.ints(0))


@rule()
def resize(d: Drawer) -> object:
    """Twice as long along any axis, by a factor or by a length."""
    value = d.pick(2)
    axis, rank = d.axis(value), len(d.shape(value))
    if d.chance(0.4):
        return d.emit("Resize", value, "", d.constant([2 if each == axis else 1 for each in range(rank)]))
    lengths = [d.length(value, each) for each in range(rank)]
    lengths[axis] = d.emit("Mul", lengths[axis], d.ints(2))
    return d.emit("Resize", value, "", "", d.emit("Concat", *lengths, axis=0), mode="nearest")


@rule()
def grid_sample(d: Drawer) -> object:
    """Places of a map, by a grid that all share, that each has, or that is its own."""
    value = d.pick(4)
    kind = d.choose(("shared", "written", "own"))
    if kind == "written":
        return d.emit("GridSample", value, d.normal(FIXED_BATCH, 2, 2, 2))
    rows = d.emit("Shape", value, start=0, end=1)
    shape = d.emit("Concat", rows, d.ints(2, 2, 2), axis=0)
    grid = d.emit("Expand", d.normal(1, 2, 2, 2), shape)
    if kind == "own":
        mean = d.emit("ReduceMean", d.pick(4), d.ints(1, 2, 3), keepdims=1)
        grid = d.emit("Mul", grid, mean)
    return d.emit("GridSample", value, grid)


@rule()
def loop(d: Drawer) -> object:
    """Goes through the places of any axis and sums up, or starts anew."""
    value, number = d.pick(2), d.count
    axis, rank = d.axis(value), len(d.shape(value)) - 1
    rounds = d.emit("Squeeze", d.length(value, axis), d.ints(0))
    numbers = onnx.helper.make_tensor_value_info(f"i{number}", onnx.TensorProto.INT64, [])
    go, goes = (onnx.helper.make_tensor_value_info(f"{each}{number}", 9, []) for each in ("c", "d"))
    before, after, out = (
        onnx.helper.make_tensor_value_info(f"{each}{number}", 1, [None] * rank) for each in ("p", "q", "o")
    )
    nodes = [
        onnx.helper.make_node("Identity", [go.name], [goes.name]),
        onnx.helper.make_node("Gather", [value, numbers.name], [f"g{number}"], axis=axis),
        onnx.helper.make_node("Add", [before.name, f"g{number}"], [after.name]),
        onnx.helper.make_node("Tanh", [d.choose((after.name, f"g{number}"))], [out.name]),
    ]
    body = onnx.helper.make_graph(nodes, f"loop{number}", [numbers, go, before], [goes, after, out])
    start = d.emit("ReduceMin", value, d.ints(axis), keepdims=0)
    return d.emit("Loop", rounds, d.constant(True, np.bool_), start, outputs=2, body=body)
