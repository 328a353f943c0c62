"""Operators that change the resolution of a map.

* ``Resize`` by nearest neighbour: ``m'`` is m resized alike.
* ``Resize`` by linear interpolation: ``y = resize(x · m) · resize(1) / resize(m)``, a mean over kept places;
  ``m' = resize(m) / resize([m > 0])``, which for a binary mask is [resize(m) > 0].
* ``DepthToSpace``: a place becomes a block of places, and so does its mask. ``SpaceToDepth``: a place is kept where
  any place of its block is, ``m' = maxpool(m)``; what is missing of it is 0.

Source: the reasoning for pooling; Balasubramanian and Feizi, https://arxiv.org/abs/2211.14646, have none of these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.ops.graph import (
    Masked,
    MaskedGraph,
    constant_of,
    dtype_of,
    input_at,
    rank_of,
    spatial_sizes,
)
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule

RESIZE_ATTRIBUTES = ("antialias", "coordinate_transformation_mode", "exclude_outside", "mode", "nearest_mode")


def spatial_state(graph: MaskedGraph, node: ir.Node) -> Masked:
    """Returns the state of the first input, provided that it is channels first."""
    state = graph.state(input_at(node, 0))
    if state is None or rank_of(input_at(node, 0)) != 4 or state.axes != (2, 3):
        raise RuleError("it does not change height and width alone")
    return state


@mask_rule("Resize")
def mask_resize(graph: MaskedGraph, node: ir.Node) -> None:
    """Resizes the mask along; interpolates between kept places only."""
    state, output = spatial_state(graph, node), node.outputs[0]
    mode = node.attributes.get_string("mode", "nearest")
    coordinates = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if mode == "cubic" or coordinates == "tf_crop_and_resize":
        raise RuleError(f"mode {mode} with {coordinates} coordinates gives weights that are no shares")

    def resize(mask: ir.Value) -> ir.Value:
        return graph.emit("Resize", mask, None, *spatial_target(graph, node), axes=[2, 3], **same_attributes(node))

    if mode == "nearest":
        graph.set_state(output, state.replace(mask=resize(state.mask)))
        return
    ones = graph.emit("ConstantOfShape", graph.emit("Shape", state.mask), value=ir.tensor([1], dtype_of(state.mask)))
    resized, one = resize(state.mask), graph.constant(1, dtype_of(state.mask))
    divisor = divisor_of(graph, resized, one)
    support = divisor_of(graph, resize(graph.emit("Sign", state.mask)), one)
    node.replace_input_with(0, graph.weighted(input_at(node, 0)))
    new_state = Masked(graph.emit("Div", resized, support), zeroed=True)
    factor = graph.emit("Div", resize(ones), divisor)
    graph.set_state(graph.emit_after(output, "Mul", output, factor), new_state)


def divisor_of(graph: MaskedGraph, value: ir.Value, one: ir.Value) -> ir.Value:
    """Returns a value that may be divided by: 1 where it is 0."""
    divisor = graph.emit("Where", graph.positive(value), value, one)
    divisor.type = value.type
    return divisor


def same_attributes(node: ir.Node) -> dict[str, Any]:
    """Returns the attributes of a Resize that hold for its mask too."""
    return {name: node.attributes[name].value for name in RESIZE_ATTRIBUTES if name in node.attributes}


def spatial_target(graph: MaskedGraph, node: ir.Node) -> tuple[ir.Value | None, ...]:
    """Returns the inputs ``scales`` and ``sizes`` of a Resize of height and width alone."""
    scales = constant_of(node, 2, "scales")
    if scales is not None and scales.size:
        axes = node.attributes.get_ints("axes") or range(4)
        by_axis = dict(zip(axes, scales.tolist(), strict=True))
        if any(by_axis.get(axis, 1) != 1 for axis in (0, 1)):
            raise RuleError("it resizes the batch or the channels")
        return (graph.constant([by_axis.get(2, 1), by_axis.get(3, 1)], ir.DataType.FLOAT),)
    sizes = np.array(spatial_sizes(node.outputs[0], Masked(node.outputs[0])))
    return None, graph.constant(sizes, ir.DataType.INT64)


@mask_rule("DepthToSpace")
def mask_depth_to_space(graph: MaskedGraph, node: ir.Node) -> None:
    """Gives every place of a block the mask of the place that it came from."""
    state = spatial_state(graph, node)
    size = node.attributes["blocksize"].as_int()
    scales = graph.constant([1, 1, size, size], ir.DataType.FLOAT)
    floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    mask = graph.emit("Resize", state.mask, None, scales, mode="nearest", **floor)
    graph.set_state(node.outputs[0], state.replace(mask=mask))


@mask_rule("SpaceToDepth")
def mask_space_to_depth(graph: MaskedGraph, node: ir.Node) -> None:
    """Keeps a place where any place of its block is kept; what is missing of it is 0."""
    state = spatial_state(graph, node)
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
