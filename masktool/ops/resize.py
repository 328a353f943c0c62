"""Operators that change the resolution of a map.

* ``Resize`` by nearest neighbour: ``m'`` is m resized alike.
* ``Resize`` by linear interpolation: ``y = resize(x · m) · resize(1) / resize(m)``, a mean over kept places;
  ``m' = resize(m) / resize([m > 0])``, which for a binary mask is [resize(m) > 0].
* ``Resize`` by cubic interpolation, a window of four taps: ``y = resize(fill(x, m))``, and m' is kept where linear
  interpolation sees a kept place.
* ``DepthToSpace``: a place becomes a block of places, and so does its mask. ``SpaceToDepth``: a place is kept where
  any place of its block is, ``m' = maxpool(m)``; what is missing of it is 0.

Source: the reasoning for pooling; Balasubramanian and Feizi, https://arxiv.org/abs/2211.14646, have none of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import (
    constant_input,
    dims_of,
    dtype_of,
    fixed_sizes,
    input_at,
    normalised_axes,
    rank_of,
    sizes_of,
)
from masktool.ops.errors import RuleError
from masktool.ops.fill import fill
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule
from masktool.ops.graph import Masked, MaskedGraph, mask_rule, state_of_input
from masktool.ops.samples import Sample, add_samples
from masktool.ops.windows import image_state

RESIZE_ATTRIBUTES = (
    "antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode",
)  # fmt: skip
CUBIC_REACH = 3
"""Pixels between the first and the last of four taps."""


@mask_rule("Resize")
def mask_resize(graph: MaskedGraph, node: ir.Node) -> None:
    """Resizes the mask along; interpolates between kept places only."""
    state, output = state_of_input(graph, node), node.outputs[0]
    mode = node.attributes.get_string("mode", "nearest")
    if node.attributes.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise RuleError("it crops: tf_crop_and_resize has no mask rule")
    if mode == "nearest":
        graph.set_state(output, state.recut(resized(graph, node, state, state.mask, same_attributes(node)), state.axes))
    elif mode == "cubic":
        resize_cubic(graph, node)
    else:
        resize_linear(graph, node, state)


def resize_linear(graph: MaskedGraph, node: ir.Node, state: Masked) -> None:
    """Interpolates between kept places only."""
    output, own = node.outputs[0], same_attributes(node)
    shares = resized(graph, node, state, state.mask, own)
    support = graph.divisor(resized(graph, node, state, graph.step(state.mask), own))
    whole = resized(graph, node, state, graph.filled_like(state.mask, 1), own)
    node.replace_input_with(0, graph.weighted(input_at(node, 0)))
    factor = graph.emit("Div", whole, graph.divisor(shares))
    new_state = state.replace(mask=graph.emit("Div", shares, support), zeroed=True)
    graph.set_state(graph.emit_after(output, "Mul", output, graph.as_type(factor, dtype_of(output))), new_state)


def resize_cubic(graph: MaskedGraph, node: ir.Node) -> None:
    """Fills missing places as far as the four taps reach, whose weights may be negative and so are no shares."""
    state, value = image_state(graph, node), input_at(node, 0)
    linear = same_attributes(node) | {"mode": "linear"}
    support = resized(graph, node, state, graph.step(state.mask), linear)
    node.replace_input_with(0, fill(graph, value, state.mask, CUBIC_REACH))
    graph.set_state(node.outputs[0], Masked(graph.step(support), tuple(range(2, rank_of(value)))))


def resized(
    graph: MaskedGraph, node: ir.Node, state: Masked, mask: ir.Value, attributes: Mapping[str, Any]
) -> ir.Value:
    """Returns a mask resized along the places of ``state`` as the node resizes its input.

    Raises:
        RuleError: the node resizes the batch, or to lengths that are not fixed.
    """
    output = node.outputs[0]
    axes, rank = list(state.axes), rank_of(output)
    scales = constant_input(node, 2, "the scale")
    if scales is not None and scales.size:
        given = normalised_axes(node.attributes.get_ints("axes") or range(rank), rank)
        by_axis = dict(zip(given, scales.tolist(), strict=True))
        if by_axis.get(state.batch, 1) != 1:
            raise RuleError("it resizes the batch")
        factors = graph.constant([by_axis.get(axis, 1) for axis in axes], ir.DataType.FLOAT)
        return graph.emit("Resize", mask, None, factors, axes=axes, **attributes)
    lengths = [sizes_of(output)[axis] for axis in axes]
    if None in lengths:
        raise RuleError("the size that it resizes to is not fixed")
    sizes = graph.constant(lengths, ir.DataType.INT64)
    return graph.emit("Resize", mask, None, None, sizes, axes=axes, **attributes)


def same_attributes(node: ir.Node) -> dict[str, Any]:
    """Returns the attributes of a Resize that the Resize of its mask has too."""
    return {name: node.attributes[name].value for name in RESIZE_ATTRIBUTES if name in node.attributes}


@mask_rule("DepthToSpace")
def mask_depth_to_space(graph: MaskedGraph, node: ir.Node) -> None:
    """Gives every place of a block the mask of the place that it came from."""
    state = image_state(graph, node)
    size = node.attributes["blocksize"].as_int()
    scales = graph.constant([1, 1, size, size], ir.DataType.FLOAT)
    floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    mask = graph.emit("Resize", state.mask, None, scales, mode="nearest", **floor)
    graph.set_state(node.outputs[0], state.replace(mask=mask))


@mask_rule("SpaceToDepth")
def mask_space_to_depth(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps a place where any place of its block is kept; what is missing of it is 0."""
    state = image_state(graph, node)
    size = node.attributes["blocksize"].as_int()
    node.replace_input_with(0, graph.zeroed(input_at(node, 0)))
    mask = graph.emit("MaxPool", state.mask, kernel_shape=[size, size], strides=[size, size])
    graph.set_state(node.outputs[0], Masked(mask, zeroed=True))


@gradient_rule("Resize")
def vjp_resize(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Multiplies with the transposed matrix of the interpolation, axis after axis.

    The matrix of an axis is what the node itself makes of the rows of a unit matrix; ONNX Runtime computes it once.
    """
    gradient, value, output, own = first_gradient(gradients), input_at(node, 0), node.outputs[0], node.attributes
    if own.get_string("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise RuleError("it crops: tf_crop_and_resize has no gradient rule")
    if own.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise RuleError("it keeps the aspect ratio, which has no gradient rule")
    rank = rank_of(value)
    for axis, scale in resized_axes(node):
        size, out_size = sizes_of(value)[axis], sizes_of(output)[axis]
        if size is None or out_size is None:
            raise RuleError(f"it resizes axis {axis}, whose length is not fixed")
        matrix = matrix_of_axis(graph, node, size, out_size, scale)
        if axis == rank - 2:
            gradient = graph.emit("MatMul", matrix, gradient)
            continue
        order = [*(other for other in range(rank) if other != axis), axis]
        if axis != rank - 1:
            gradient = graph.emit("Transpose", gradient, perm=order)
        gradient = graph.emit("MatMul", gradient, graph.emit("Transpose", matrix, perm=[1, 0]))
        if axis != rank - 1:
            gradient = graph.emit("Transpose", gradient, perm=[order.index(other) for other in range(rank)])
    return [gradient]


def resized_axes(node: ir.Node) -> list[tuple[int, float | None]]:
    """Returns the axes that a Resize changes, each with its scale, or with None where the node has sizes."""
    rank = rank_of(node.outputs[0])
    axes = normalised_axes(node.attributes.get_ints("axes") or range(rank), rank)
    scales = constant_input(node, 2, "the scale")
    if scales is not None and scales.size:
        return [(axis, scale) for axis, scale in zip(axes, scales.tolist(), strict=True) if scale != 1]
    before, after = dims_of(input_at(node, 0)), dims_of(node.outputs[0])
    return [(axis, None) for axis in axes if before[axis] is None or before[axis] != after[axis]]


def matrix_of_axis(graph: GradientGraph, node: ir.Node, size: int, out_size: int, scale: float | None) -> ir.Value:
    """Returns the transposed matrix of an interpolation along one axis, (size, out_size).

    Args:
        graph: the graph of gradients.
        node: the Resize.
        size: the length of the axis in the input.
        out_size: the length of the axis in the output.
        scale: the scale that the node has for the axis; None where the node has sizes.
    """
    dtype = dtype_of(input_at(node, 0))
    unit = graph.constant(np.eye(size)[None, None], dtype)
    attributes = same_attributes(node)
    if scale is None:
        sizes = graph.ints(1, 1, size, out_size)
        matrix = graph.emit("Resize", unit, None, None, sizes, **attributes)
    else:
        scales = graph.constant([1, 1, 1, scale], ir.DataType.FLOAT)
        matrix = graph.emit("Resize", unit, None, scales, **attributes)
    return graph.emit("Squeeze", matrix, graph.ints(0, 1))


@gradient_rule("DepthToSpace")
def vjp_depth_to_space(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Moves the pixels of each block back into channels."""
    gradient, size = first_gradient(gradients), node.attributes["blocksize"].as_int()
    if node.attributes.get_string("mode", "DCR") == "DCR":
        return [graph.emit("SpaceToDepth", gradient, blocksize=size)]
    channels, height, width = fixed_sizes(input_at(node, 0))[1:]
    blocks = graph.emit("Reshape", gradient, graph.ints(-1, channels // size**2, height, size, width, size))
    blocks = graph.emit("Transpose", blocks, perm=[0, 1, 3, 5, 2, 4])
    return [graph.emit("Reshape", blocks, graph.ints(-1, channels, height, width))]


@gradient_rule("SpaceToDepth")
def vjp_space_to_depth(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Moves the channels back into the pixels of each block."""
    return [graph.emit("DepthToSpace", first_gradient(gradients), blocksize=node.attributes["blocksize"].as_int())]


BEFORE_CONVOLUTION = "y = Conv <pads = [1, 1, 1, 1]> (r, w)"
add_samples(
    "Resize",
    Sample(
        "nearest, by scales",
        "s = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> () "
        'r = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , s) '
        + BEFORE_CONVOLUTION,
        {"w": (3, 4, 3, 3)},
    ),
    Sample(
        "linear, to a size",
        f'r = Resize <mode = "linear", axes = [2, 3]> (x, , , z) {BEFORE_CONVOLUTION}',
        {"w": (3, 4, 3, 3)},
        {"z": (20, 15)},
    ),
    Sample(
        "linear, aligned corners, smaller",
        'y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners", axes = [2, 3]> (x, , , z)',
        constants={"z": (5, 6)},
    ),
    Sample(
        "cubic, to a size",
        'y = Resize <mode = "cubic", axes = [2, 3]> (x, , , z)',
        constants={"z": (20, 15)},
    ),
    Sample(
        "nearest, channels last",
        "s = Constant <value_floats = [1.0, 2.0, 2.0, 1.0]> () t = Transpose <perm = [0, 2, 3, 1]> (x) "
        'r = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (t, , s) '
        "u = Transpose <perm = [0, 3, 1, 2]> (r) y = Conv <pads = [1, 1, 1, 1]> (u, w)",
        {"w": (3, 4, 3, 3)},
    ),
)
add_samples("DepthToSpace", Sample("blocks of 2", "y = DepthToSpace <blocksize = 2> (x)"))
add_samples("SpaceToDepth", Sample("blocks of 2", "y = SpaceToDepth <blocksize = 2> (x)", size=(8, 12)))
