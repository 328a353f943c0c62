"""Reshape, Flatten, Squeeze and Unsqueeze: the mask is reshaped alike, in the smallest factors of both shapes.

Both shapes are cut into factors: (N, h, w, 4 · 6) to (N, h · w · 4, 6) has the factors N, h, w, 4 and 6. Along
each factor the mask varies or does not. Factors that are merged with places, and along which it does not vary, are
repeated; then the mask has the new shape, with length 1 where nothing in an axis varies. ``y = x``,
``m' = reshape(m)``.

* A merge with the batch (windows, heads) repeats the mask for every image first.
* Where shapes have no common factors, (8, 7) to (7, 8), two axes are merged before.
* Places with something else behind them in their axis (a pixel shuffle, copies of each pixel) are a map of a higher
  resolution.
* Into (N, features) the mask is spent: ``y = x · m``.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (flatten); the rest is bookkeeping.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from masktool.ops.builder import Length, dims_of, input_at, rank_of
from masktool.ops.errors import RuleError
from masktool.ops.factors import Common, NoCommonFactorError, common_factors, name_factors, parts_on, united
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule
from masktool.ops.graph import IMAGES, Masked, MaskedGraph, mask_rule, state_of_input
from masktool.ops.samples import Sample, add_samples


@mask_rule("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def mask_reshape(graph: MaskedGraph, node: ir.Node) -> None:
    """Reshapes the mask alike; a shape of (N, features) spends it."""
    state_of_input(graph, node)
    value, output = input_at(node, 0), node.outputs[0]
    if 0 in (*dims_of(value), *dims_of(output)):
        raise RuleError(f"it reshapes {dims_of(value)} to {dims_of(output)}: nothing, of a length of 0")
    while True:
        try:
            state = state_in_shape(graph, value, dims_of(output))
            break
        except NoCommonFactorError as error:  # 8 · 7 has no common factors with 7 · 8, but 56 has with both
            value = merge_axes(graph, value, error.axis)
    node.replace_input_with(0, graph.weighted(value) if state is None else value)
    graph.set_state(output, state)


def merge_axes(graph: MaskedGraph, value: ir.Value, axis: int) -> ir.Value:
    """Returns a value with two neighbouring axes, the later of them ``axis``, merged into one."""
    lengths = dims_of(value)
    first, second = lengths[axis - 1], lengths[axis]
    others = [length if isinstance(length, int) else -1 for length in lengths]
    if not (axis and isinstance(first, int) and isinstance(second, int)) or others.count(-1) > 1:
        raise RuleError(f"it reshapes {lengths}: lengths that are cut differently and not fixed")
    result = graph.emit("Reshape", value, shape_of(graph, [*others[: axis - 1], first * second, *others[axis + 1 :]]))
    result.shape = ir.Shape([*lengths[: axis - 1], first * second, *lengths[axis + 1 :]])
    graph.set_state(result, state_in_shape(graph, value, dims_of(result), spends=False))
    return result


def state_in_shape(
    graph: MaskedGraph, value: ir.Value, shape: Sequence[Length], *, spends: bool = True
) -> Masked | None:
    """Returns the state of a value in another shape; None for (N, features), which spends the mask if ``spends``.

    Raises:
        RuleError: the mask cannot follow.
        NoCommonFactorError: the mask can follow once two axes are merged.
    """
    state = graph.known_state(value)
    factors = name_factors(state, common_factors(dims_of(value), shape))
    batch = next((factor.target for factor in factors if factor.kind == "images"), None)
    if batch is None:
        raise RuleError(f"it reshapes {dims_of(value)} to {list(shape)}, without an axis for the images")
    parts = {axis: united(parts) for axis in range(len(shape)) if (parts := parts_on(factors, axis))}
    axes = tuple(axis for axis, own in parts.items() if any(holds_places for _, holds_places in own))
    images_alone = batch == 0 and parts.get(0, (IMAGES,)) == (IMAGES,)  # a batch of 1 has no parts
    if not axes or (spends and len(shape) == 2 and images_alone):
        return None
    merged = {axis: own for axis, own in parts.items() if axis in (batch, *axes) and len(own) > 1}
    mask = reshaped_mask(graph, value, len(shape), factors)
    return state.replace(mask=mask, axes=axes, batch=batch, merged=merged)


def reshaped_mask(graph: MaskedGraph, value: ir.Value, new_rank: int, factors: Sequence[Common]) -> ir.Value:
    """Returns the value's mask in another shape, with length 1 where the mask does not vary."""
    mask, rank = graph.known_state(value).mask, rank_of(value)
    carried = [factor for factor in factors if factor.kind in ("images", "places")]
    groups = [
        [f for f in factors if getattr(f, side) == getattr(factor, side) and f.length != 1]
        for factor in carried
        for side in ("source", "target")
    ]
    if all(len(group) <= 1 for group in groups):  # every axis moves as a whole
        moved = {f.source: f.target for f in carried if f.source is not None and f.target is not None}
        return graph.moved_mask(mask, moved, rank, new_rank)
    mask = graph.long_as_images(value)
    mask = graph.emit("Reshape", mask, shape_of(graph, [1 if f.kind == "free" else length_in(f) for f in factors]))
    repeated = [index for index, factor in enumerate(factors) if factor.kind == "repeated"]
    if repeated:
        mask = graph.emit("ReduceMax", mask, shape_of(graph, repeated))
    full_targets = {factor.target for factor in carried}
    spread = [fixed_length(f) if f.target in full_targets and f.kind in ("free", "repeated") else 1 for f in factors]
    if any(length != 1 for length in spread):
        mask = graph.emit("Expand", mask, shape_of(graph, spread))
    new_shape = [1] * new_rank
    for factor in factors:
        if factor.target in full_targets and factor.target is not None:
            new_shape[factor.target] *= length_in(factor)
    return graph.emit("Reshape", mask, shape_of(graph, [max(length, -1) for length in new_shape]))


def length_in(factor: Common) -> int:
    """Returns a factor's length as an entry of a target shape: -1 for the images."""
    return -1 if factor.kind == "images" else fixed_length(factor)


def fixed_length(factor: Common) -> int:
    """Returns the length of a factor that has to be fixed.

    Raises:
        RuleError: the length is not fixed.
    """
    if not isinstance(factor.length, int):
        raise RuleError("it merges or cuts height or width, whose lengths are not fixed")
    return factor.length


def shape_of(graph: MaskedGraph, lengths: Sequence[int]) -> ir.Value:
    """Returns a shape as a constant."""
    return graph.constant(lengths, ir.DataType.INT64)


@gradient_rule("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def vjp_reshape(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Reshapes the gradient back."""
    return [graph.reshaped_as(input_at(node, 0), first_gradient(gradients))]


add_samples("Unsqueeze", Sample("new axis", "y = Unsqueeze (x, a)", constants={"a": (1,)}))
add_samples(
    "Squeeze",
    Sample("an axis and back", "u = Unsqueeze (x, a) r = Sigmoid (u) y = Squeeze (r, a)", constants={"a": (1,)}),
)
add_samples("Flatten", Sample("features", "f = Flatten (x) y = Gemm (f, w)", {"w": (396, 5)}))
IN_WINDOWS = (
    "t = Transpose <perm = [0, 2, 3, 1]> (x) a = Reshape (t, cut) b = Transpose <perm = [0, 1, 3, 2, 4, 5]> (a) "
    "c = Reshape (b, windows) m = ReduceMean (c, places) d = Sub (c, m) e = Reshape (d, uncut) "
    "f = Transpose <perm = [0, 1, 3, 2, 4, 5]> (e) g = Reshape (f, whole) "
)
add_samples(
    "Reshape",
    Sample(
        "channel shuffle",
        "a = Reshape (x, s) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) c = Reshape (b, t) "
        "y = Conv <pads = [1, 1, 1, 1]> (c, w)",
        {"w": (3, 4, 3, 3)},
        {"s": (-1, 2, 2, 9, 11), "t": (-1, 4, 9, 11)},
    ),
    Sample("features", "f = Reshape (x, s) y = Gemm (f, w)", {"w": (396, 5)}, {"s": (-1, 396)}),
    Sample(
        "windows merged into the batch, and back",
        IN_WINDOWS + "r = Transpose <perm = [0, 3, 1, 2]> (g) y = Conv <pads = [1, 1, 1, 1]> (r, w)",
        {"w": (3, 4, 3, 3)},
        {
            "cut": (-1, 4, 2, 3, 4, 4),
            "windows": (-1, 8, 4),
            "places": (1,),
            "uncut": (-1, 4, 3, 2, 4, 4),
            "whole": (-1, 8, 12, 4),
        },
        size=(8, 12),
        ones_tolerance=1e-6,
    ),
    Sample(
        "the head of a detector: places and anchors in one axis",
        "c = Conv (x, w) t = Transpose <perm = [0, 2, 3, 1]> (c) a = Reshape (t, boxes) y = Softmax <axis = 2> (a)",
        {"w": (10, 4, 1, 1)},
        {"boxes": (-1, 198, 5)},
    ),
    Sample(
        "the whole image to groups, as torch writes a group norm, and to tokens",
        "a = Reshape (x, groups) m = ReduceMean (a, last) d = Sub (a, m) b = Reshape (d, tokens) "
        "c = Transpose <perm = [0, 2, 1]> (b) y = MatMul (c, w)",
        {"w": (4, 5)},
        {"groups": (-1, 2, 198), "last": (2,), "tokens": (-1, 4, 99)},
        ones_tolerance=1e-6,
    ),
    Sample(
        "tokens first, and the images merged behind them",
        "a = Reshape (x, flat) t = Transpose <perm = [2, 0, 1]> (a) r = Reshape (t, rows) g = MatMul (r, w) "
        "b = Reshape (g, tokens) s = Softmax <axis = 0> (b) y = ReduceSum <keepdims = 0> (s, first)",
        {"w": (4, 5)},
        {"flat": (-1, 4, 99), "rows": (-1, 4), "tokens": (99, -1, 5), "first": (0,)},
        ones_tolerance=1e-6,
    ),
    Sample(
        "a grid cut one way, then the other",
        "a = Reshape (x, cut) b = Reshape (a, otherwise) m = ReduceMean (b, every_other) y = Sub (b, m)",
        constants={"cut": (-1, 4, 3, 4, 5), "otherwise": (-1, 4, 4, 3, 5), "every_other": (2,)},
        size=(12, 5),
    ),
)
