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

import onnx_ir as ir

from masktool.ops.builder import constant_of, dtype_of, input_at, normalised_axes, rank_of, sizes_of
from masktool.ops.fill import fill
from masktool.ops.graph import Masked, MaskedGraph, state_of_input
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule
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
    support = graph.divisor(resized(graph, node, state, graph.emit("Sign", state.mask), own))
    node.replace_input_with(0, graph.weighted(input_at(node, 0)))
    factor = graph.emit("Div", resized(graph, node, state, graph.ones_like(state.mask), own), graph.divisor(shares))
    new_state = state.replace(mask=graph.emit("Div", shares, support), zeroed=True)
    graph.set_state(graph.emit_after(output, "Mul", output, graph.as_type(factor, dtype_of(output))), new_state)


def resize_cubic(graph: MaskedGraph, node: ir.Node) -> None:
    """Fills from neighbours, as far as the four taps reach; their weights may be negative, and are no shares."""
    state, value = image_state(graph, node), input_at(node, 0)
    linear = same_attributes(node) | {"mode": "linear"}
    support = resized(graph, node, state, graph.emit("Sign", state.mask), linear)
    node.replace_input_with(0, fill(graph, value, state.mask, CUBIC_REACH))
    graph.set_state(node.outputs[0], Masked(graph.emit("Sign", support)))


def resized(
    graph: MaskedGraph, node: ir.Node, state: Masked, mask: ir.Value, attributes: Mapping[str, Any]
) -> ir.Value:
    """Returns a mask resized along the places of ``state`` as the node resizes its input.

    Raises:
        RuleError: the node resizes the batch, or to lengths that are not fixed.
    """
    output = node.outputs[0]
    axes, rank = list(state.axes), rank_of(output)
    scales = constant_of(node, 2, "the scale")
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
    """Returns the attributes of a Resize that hold for its mask too."""
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
)
add_samples("DepthToSpace", Sample("blocks of 2", "y = DepthToSpace <blocksize = 2> (x)"))
add_samples("SpaceToDepth", Sample("blocks of 2", "y = SpaceToDepth <blocksize = 2> (x)", size=(8, 12)))
add_samples(
    "Resize",
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
