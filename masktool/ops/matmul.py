"""Matrix products.

* Along channels (a 1 × 1 convolution, the scores of attention): it happens within each place, or each pair of places;
  ``m' = min(m_A, m_B)``, each along its own axis.
* Along places (attention's weighted mean of values, a fully connected layer over tokens): what is missing is 0 on
  both sides, ``y = (A · m_A) (B · m_B)``; m' loses that axis, ``m' = max(m)`` along it.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (fully connected layers).
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.builder import dims_of, input_at, rank_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule
from masktool.ops.graph import Masked, MaskedGraph, mask_rule
from masktool.ops.joins import smallest
from masktool.ops.samples import Sample, add_samples


@mask_rule("MatMul")
def mask_matmul(graph: MaskedGraph, node: ir.Node) -> None:
    """Multiplies within each place or pair of places, or sums over kept places."""
    states = [state_of_factor(graph, node, index, contracted) for index, contracted in ((0, -1), (1, -2))]
    left = [state for state in states if state is not None]
    graph.set_state(node.outputs[0], smallest(graph, left) if left else None)


@mask_rule("Gemm")
def mask_gemm(graph: MaskedGraph, node: ir.Node) -> None:
    """Multiplies the rows of a matrix, one of them a place or an image, with a weight."""
    transposed = node.attributes.get_int("transA", 0) == 1
    if transposed or any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("expected rows that depend on the image, and a weight and bias that do not")
    graph.set_state(node.outputs[0], state_of_factor(graph, node, 0, -1))


def state_of_factor(graph: MaskedGraph, node: ir.Node, index: int, contracted: int) -> Masked | None:
    """Returns the mask state that the product inherits from one factor; None when no mask is left of it."""
    value, rank = input_at(node, index), rank_of(node.outputs[0])
    state, own_rank = graph.state(value), rank_of(value)
    if state is None:
        return None
    if own_rank < 2 or rank < own_rank:
        raise RuleError("it multiplies with a vector that depends on the image")
    axis = own_rank + contracted
    if axis == state.batch:
        raise RuleError("it sums over the batch")
    if axis in state.axes:
        node.replace_input_with(index, graph.zeroed(value))
        left = tuple(other for other in state.axes if other != axis)
        mask = graph.emit("ReduceMax", state.mask, graph.constant([axis], ir.DataType.INT64)) if left else state.mask
        state = state.recut(mask, [axis], axes=left)
    shift = rank - own_rank
    mask = graph.moved_mask(state.mask, {other: other + shift for other in range(own_rank)}, own_rank, rank)
    return state.moved(lambda other: other + shift, mask=mask, zeroed=False) if state.axes else None


@gradient_rule("MatMul")
def vjp_matmul(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy Bᵀ``, and ``Aᵀ dy``, each summed over the matrices that its factor was multiplied with."""
    gradient, (left, right) = first_gradient(gradients), (input_at(node, 0), input_at(node, 1))
    if min(rank_of(left), rank_of(right)) < 2:
        raise RuleError("it multiplies with a vector")
    if rank_of(left) == rank_of(right) == 2:
        return gradients_of_product(graph, gradient, left, right)
    by_left = by_right = None
    if graph.needs(left):
        by_left = summed_matrices(graph, node, left, graph.emit("MatMul", gradient, transposed(graph, right)))
    if graph.needs(right):
        by_right = summed_matrices(graph, node, right, graph.emit("MatMul", transposed(graph, left), gradient))
    return [by_left, by_right]


def transposed(graph: GradientGraph, value: ir.Value) -> ir.Value:
    """Returns matrices with their rows and columns swapped."""
    rank = rank_of(value)
    return graph.emit("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


def summed_matrices(graph: GradientGraph, node: ir.Node, value: ir.Value, gradient: ir.Value) -> ir.Value:
    """Returns the gradient of one factor, summed over the axes along which it was repeated."""
    before, after = dims_of(value), dims_of(node.outputs[0])
    added = len(after) - len(before)
    spread = [axis + added for axis in range(len(before) - 2) if before[axis] == 1 != after[axis + added]]
    if added or spread:
        gradient = graph.emit("ReduceSum", gradient, graph.ints(*range(added), *spread))
    return graph.emit("Squeeze", gradient, graph.ints(*range(added))) if added else gradient


@gradient_rule("Gemm")
def vjp_gemm(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """As for MatMul, of ``y = α A B + β C``, either factor transposed or not; C gets ``β dy``."""
    gradient, own = first_gradient(gradients), node.attributes
    found = gradients_of_product(
        graph,
        gradient,
        input_at(node, 0),
        input_at(node, 1),
        alpha=own.get_float("alpha", 1.0),
        turned=(own.get_int("transA", 0), own.get_int("transB", 0)),
    )
    if len(node.inputs) < 3 or not graph.needs(node.inputs[2]):
        return found
    scaled = graph.emit("Mul", gradient, graph.number(own.get_float("beta", 1.0), gradient))
    return [*found, graph.summed_to(input_at(node, 2), scaled, node.outputs[0])]


def gradients_of_product(
    graph: GradientGraph,
    gradient: ir.Value,
    left: ir.Value,
    right: ir.Value,
    *,
    alpha: float = 1.0,
    turned: tuple[int, int] = (0, 0),
) -> Gradients:
    """Returns the gradients of α A B for two matrices, of which those that are ``turned`` lie transposed.

    Gemm reads a weight in either direction, so that none has to be held transposed too.
    """
    turn_left, turn_right = turned
    by_left = by_right = None
    if graph.needs(left) and turn_left:
        by_left = graph.emit("Gemm", right, gradient, alpha=alpha, transA=turn_right, transB=1)
    elif graph.needs(left):
        by_left = graph.emit("Gemm", gradient, right, alpha=alpha, transB=1 - turn_right)
    if graph.needs(right) and turn_right:
        by_right = graph.emit("Gemm", gradient, left, alpha=alpha, transA=1, transB=turn_left)
    elif graph.needs(right):
        by_right = graph.emit("Gemm", left, gradient, alpha=alpha, transA=1 - turn_left)
    return [by_left, by_right]


add_samples(
    "MatMul",
    Sample(
        "channels last, before a convolution",
        "t = Transpose <perm = [0, 2, 3, 1]> (x) p = MatMul (t, v) r = Transpose <perm = [0, 3, 1, 2]> (p) "
        "y = Conv <pads = [1, 1, 1, 1]> (r, w)",
        {"v": (4, 5), "w": (3, 5, 3, 3)},
        ones_tolerance=1e-6,  # without the mask, ONNX Runtime moves the Transpose behind the product
    ),
    Sample(
        "attention of two heads",
        "f = Reshape (x, flat) t = Transpose <perm = [0, 2, 1]> (f) q = MatMul (t, wq) k = MatMul (t, wk) "
        "v = MatMul (t, wv) qr = Reshape (q, heads) kr = Reshape (k, heads) vr = Reshape (v, heads) "
        "qt = Transpose <perm = [0, 2, 1, 3]> (qr) kt = Transpose <perm = [0, 2, 3, 1]> (kr) "
        "vt = Transpose <perm = [0, 2, 1, 3]> (vr) s = MatMul (qt, kt) a = Softmax (s) o = MatMul (a, vt) "
        "ot = Transpose <perm = [0, 2, 1, 3]> (o) z = Reshape (ot, tokens) m = ReduceMean <keepdims = 0> (z, one) "
        "y = MatMul (m, u)",
        {"wq": (4, 6), "wk": (4, 6), "wv": (4, 6), "u": (6, 5)},
        {"flat": (-1, 4, 99), "heads": (-1, 99, 2, 3), "tokens": (-1, 99, 6), "one": (1,)},
        ones_tolerance=1e-6,
    ),
    Sample(
        "over tokens, with a weight",
        "f = Reshape (x, flat) p = MatMul (f, w) y = Relu (p)",
        {"w": (99, 7)},
        {"flat": (-1, 4, 99)},
    ),
)
add_samples(
    "Gemm",
    Sample(
        "tokens as rows",
        "f = Reshape (x, flat) t = Transpose <perm = [0, 2, 1]> (f) r = Reshape (t, rows) g = Gemm (r, w, b) "
        "z = Reshape (g, tokens) y = ReduceMean <keepdims = 0> (z, one)",
        {"w": (4, 5), "b": (5,)},
        {"flat": (-1, 4, 99), "rows": (-1, 4), "tokens": (-1, 99, 5), "one": (1,)},
        ones_tolerance=1e-6,
    ),
)
