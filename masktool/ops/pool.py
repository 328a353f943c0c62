"""Pooling over windows and over the whole image.

* ``MaxPool``: the maximum over kept places only; ``m' = maxpool(m)``; an empty window gives 0.
* ``AveragePool`` and ``LpPool``: ``pool(x · m) · pool(1) / pool(m)``, every pool with the original's own padding and
  count rule, so that the factor is exactly 1 under a mask of ones; ``m' = maxpool(m)``, which for a binary mask is
  [pool(m) > 0]; an empty window gives 0.
* ``GlobalAveragePool``, ``GlobalLpPool``, ``GlobalMaxPool``: the same over the whole image; the mask is spent. An empty
  mask gives 0.
* A pool that spans less than its stride, under the ``cell`` rule: filled and kept as a convolution of the same window
  is (:mod:`masktool.ops.conv`), ``pool(fill(x, m))``; nothing is hidden, for a window may hold no kept place while its
  cell does.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646. Average pooling there divides by the size
of the window, not by what of it is kept; ours agrees with the global pooling of the same paper.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import dtype_of, fixed_sizes, input_at, rank_of
from masktool.ops.errors import RuleError
from masktool.ops.fill import fill
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule
from masktool.ops.graph import Masked, MaskedGraph, mask_rule
from masktool.ops.kept import average_kept, extreme_kept
from masktool.ops.maxima import slides_of, spread_to_maxima
from masktool.ops.samples import Sample, add_samples
from masktool.ops.sliding import Window
from masktool.ops.windows import fixed_window, image_state, kept_window, pool_mask, state_of_whole, window_of

NON_NEGATIVE = ("Abs", "HardSigmoid", "Relu", "Sigmoid", "Softplus")
KEEPS_SIGN = ("AveragePool", "Concat", "Conv", "Identity", "MaxPool", "Mul")


@mask_rule("MaxPool")
def mask_max_pool(graph: MaskedGraph, node: ir.Node) -> None:
    """Hides missing places from the maximum; an empty window gives 0. Under the cell rule a narrow one fills.

    Where no value is negative (behind a ReLU), a 0 hides as well as −∞, and makes empty windows 0 by itself.
    """
    if len(node.outputs) > 1:
        raise RuleError("its second output (indices) has no mask rule")
    window, state = window_of(node, graph)
    if fill_narrow_pool(graph, node, window, state):
        return
    value, output = input_at(node, 0), node.outputs[0]
    new_state = state.replace(mask=pool_mask(graph, state.mask, window), zeroed=True)
    graph.set_state(output, new_state)
    if is_non_negative(value):
        node.replace_input_with(0, graph.zeroed(value))
        return
    node.replace_input_with(0, graph.replaced(value, empty=float("-inf")))
    zero = graph.constant(0, dtype_of(output))
    graph.set_state(graph.emit_after(output, "Where", graph.kept(output), output, zero), new_state)


def fill_narrow_pool(graph: MaskedGraph, node: ir.Node, window: Window, state: Masked) -> bool:
    """Fills the input of a pool narrower than its stride, under the cell rule; returns whether it is one."""
    cell = kept_window(graph, window)
    if cell == window:
        return False
    node.replace_input_with(0, fill(graph, input_at(node, 0), state.mask, cell.reach))
    graph.set_state(node.outputs[0], state.replace(mask=pool_mask(graph, state.mask, cell), zeroed=False))
    return True


def is_non_negative(value: ir.Value | None) -> bool:
    """Whether a value can be seen to hold no negative number, from the operators that made it."""
    if value is None:
        return False
    if (tensor := ir.convenience.get_const_tensor(value)) is not None:
        return not value.is_graph_input() and bool((tensor.numpy() >= 0).all())
    producer = value.producer()
    if producer is None:
        return False
    if producer.op_type in KEEPS_SIGN:
        return all(is_non_negative(source) for source in producer.inputs)
    return producer.op_type in NON_NEGATIVE


@mask_rule("AveragePool", "LpPool")
def mask_average_pool(graph: MaskedGraph, node: ir.Node) -> None:
    """Averages over kept places; an empty window gives 0. Under the cell rule a narrow one fills."""
    window, state = window_of(node, graph)
    if fill_narrow_pool(graph, node, window, state):
        return
    own = {name: node.attributes[name].value for name in ("count_include_pad", "p") if name in node.attributes}
    pooled = average_kept(graph, node, **window.attributes, **own)
    graph.set_state(pooled, state.replace(mask=pool_mask(graph, state.mask, window), zeroed=True))


@mask_rule("GlobalAveragePool", "GlobalLpPool")
def mask_global_average_pool(graph: MaskedGraph, node: ir.Node) -> None:
    """Averages over kept places; the mask is spent."""
    state = image_state(graph, node)
    own: dict[str, Any] = {"p": node.attributes["p"].value} if "p" in node.attributes else {}
    graph.set_state(average_kept(graph, node, **own), state_of_whole(graph, state))


@mask_rule("GlobalMaxPool")
def mask_global_max_pool(graph: MaskedGraph, node: ir.Node) -> None:
    """Takes the maximum over kept places; the mask is spent."""
    state = image_state(graph, node)
    pooled = extreme_kept(graph, node, "GlobalMaxPool", empty=float("-inf"))
    graph.set_state(pooled, state_of_whole(graph, state))


@gradient_rule("MaxPool")
def vjp_max_pool(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Adds the gradient at the indices of the maxima, which the node of the forward pass gives as a second output.

    A device without these finds the maxima by comparison, where the lengths are fixed: :mod:`masktool.ops.maxima`.
    """
    gradient, value = first_gradient(gradients), input_at(node, 0)
    if not graph.indices_of_maxima:
        sizes, out_sizes = fixed_sizes(value)[2:], fixed_sizes(node.outputs[0])[2:]
        slides = slides_of(fixed_window(node), sizes, out_sizes)
        return [spread_to_maxima(graph, value, node.outputs[0], gradient, slides)]
    if len(node.outputs) == 1:
        node.resize_outputs(2)
        indices = node.outputs[1]
        indices.name = f"{node.outputs[0].name}_indices"
        indices.shape, indices.type = node.outputs[0].shape, ir.TensorType(ir.DataType.INT64)
    flat = graph.ints(-1)  # the indices count through the whole tensor, batch and channels included
    zeros, places, updates = (
        graph.emit("Reshape", each, flat) for each in (graph.zeros_like(value), node.outputs[1], gradient)
    )
    return [graph.reshaped_as(value, graph.added_at(zeros, places, updates, axis=0))]


@gradient_rule("AveragePool")
def vjp_average_pool(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Spreads the gradient over each window, divided by the number that the operator itself divides by."""
    window = fixed_window(node)
    sizes, out_sizes = fixed_sizes(input_at(node, 0))[2:], fixed_sizes(node.outputs[0])[2:]
    by_axis = (inputs_by_window(window, axis, size, out_sizes[axis]) for axis, size in enumerate(sizes))
    inside = functools.reduce(np.multiply.outer, by_axis)
    share = graph.number(1, node.outputs[0])
    if node.attributes.get_int("count_include_pad", 0) and (any(window.pads) or window.ceil_mode):
        # the share of places within the image, as the runtime has it: versions differ on what hangs over in ceil mode
        ones = graph.constant(np.ones((1, 1, *sizes)), dtype_of(node.outputs[0]))
        share = graph.emit("AveragePool", ones, **window.attributes, count_include_pad=1)
    numbers = inside.max() if (inside == inside.max()).all() else inside[None, None]
    share = graph.emit("Div", share, graph.constant(numbers, dtype_of(node.outputs[0])))
    return [spread(graph, node, graph.emit("Mul", first_gradient(gradients), share), window)]


@gradient_rule("LpPool")
def vjp_lp_pool(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``sign(x) |x|ᵖ⁻¹`` times the windows' sum of ``dy / yᵖ⁻¹``; 0 for a window of zeros."""
    value, power = input_at(node, 0), node.attributes.get_int("p", 2)
    share = graph.emit("Div", first_gradient(gradients), graph.divisor(raised(graph, node.outputs[0], power - 1)))
    spread_share = spread(graph, node, share, fixed_window(node))
    return [graph.emit("Mul", spread_share, signed_power(graph, value, power - 1))]


@gradient_rule("GlobalAveragePool")
def vjp_global_average_pool(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Spreads the gradient evenly over the image."""
    value = input_at(node, 0)
    sizes = fixed_sizes(value)[2:]
    gradient = graph.emit("Div", first_gradient(gradients), graph.number(float(np.prod(sizes)), value))
    return [graph.in_blocks(value, graph.emit("Expand", gradient, graph.ints(1, 1, *sizes)))]


@gradient_rule("GlobalLpPool")
def vjp_global_lp_pool(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy · sign(x) |x|ᵖ⁻¹ / yᵖ⁻¹``."""
    power = node.attributes.get_int("p", 2)
    share = graph.emit("Div", first_gradient(gradients), graph.divisor(raised(graph, node.outputs[0], power - 1)))
    return [graph.emit("Mul", signed_power(graph, input_at(node, 0), power - 1), share)]


@gradient_rule("GlobalMaxPool")
def vjp_global_max_pool(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Gives the gradient to the maxima, in equal shares."""
    value = input_at(node, 0)
    axes = list(range(2, rank_of(value)))
    return [graph.shared_by_equals(value, node.outputs[0], first_gradient(gradients), axes)]


def raised(graph: GradientGraph, value: ir.Value, power: int) -> ir.Value:
    """Returns a value raised to a whole power."""
    return value if power == 1 else graph.emit("Pow", value, graph.number(power, value))


def signed_power(graph: GradientGraph, value: ir.Value, power: int) -> ir.Value:
    """Returns sign(x) · |x|ᵖ, which is x itself for p = 1."""
    if power == 1:
        return value
    return graph.emit("Mul", graph.sign(value), raised(graph, graph.emit("Abs", value), power))


def inputs_by_window(window: Window, axis: int, size: int, out_size: int) -> np.ndarray:
    """Returns how many input pixels, padding not counted, each output pixel sees along an axis."""
    taps = window.dilations[axis] * np.arange(window.kernel[axis])
    seen = window.strides[axis] * np.arange(out_size)[:, None] - window.pads[axis] + taps
    return ((seen >= 0) & (seen < size)).sum(axis=1)


def spread(graph: GradientGraph, node: ir.Node, gradient: ir.Value, window: Window) -> ir.Value:
    """Returns, for every input pixel of a pool, the sum of the gradients of the windows that see it."""
    value = input_at(node, 0)
    sizes, out_sizes = fixed_sizes(value)[2:], fixed_sizes(node.outputs[0])[2:]
    if window.kernel == window.strides and set(window.dilations) == {1} and not any(window.pads):
        return repeat_pixels(graph, gradient, fixed_sizes(value), out_sizes, window.kernel)
    ends = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
    if set(window.strides) == set(window.dilations) == {1} and not window.ceil_mode:
        # the windows that see a pixel are a window too, which pools the gradient
        pads = [end - pad for end, pad in zip(ends * 2, window.pads, strict=True)]
        window = dataclasses.replace(window, pads=tuple(pads))
        pooled = graph.emit("AveragePool", gradient, **window.attributes, count_include_pad=1)
        return graph.emit("Mul", pooled, graph.number(math.prod(window.kernel), value))
    axes = len(window.kernel)
    paddings = [
        size - ((out - 1) * stride + end + 1 - begin - over)
        for size, out, stride, end, begin, over in zip(
            sizes, out_sizes, window.strides, ends, window.pads[:axes], window.pads[axes:], strict=True
        )
    ]
    over = [pad - min(padding, 0) for pad, padding in zip(window.pads[axes:], paddings, strict=True)]  # in ceil mode
    channel = graph.emit("Reshape", gradient, graph.ints(-1, 1, *out_sizes))
    spread_out = graph.emit(
        "ConvTranspose",
        channel,
        graph.constant(np.ones((1, 1, *window.kernel)), dtype_of(value)),
        strides=window.strides,
        dilations=window.dilations,
        pads=[*window.pads[:axes], *over],
        output_padding=[max(padding, 0) for padding in paddings],
    )
    return graph.reshaped_as(value, spread_out)


def repeat_pixels(
    graph: GradientGraph, gradient: ir.Value, shape: Sequence[int], out_sizes: Sequence[int], kernel: Sequence[int]
) -> ir.Value:
    """Returns every pixel of a gradient repeated over its window, with zeros up to the input's end."""
    covered = [out_size * length for out_size, length in zip(out_sizes, kernel, strict=True)]
    missing = [size - length for size, length in zip(shape[2:], covered, strict=True)]
    blocks = graph.emit("Unsqueeze", gradient, graph.ints(*range(3, 3 + 2 * len(kernel), 2)))
    blocks = graph.emit("Expand", blocks, graph.ints(1, 1, *(length for own in kernel for length in (1, own))))
    pixels = graph.emit("Reshape", blocks, graph.ints(-1, shape[1], *covered))
    none = [0] * (2 + len(kernel))
    return graph.emit("Pad", pixels, graph.ints(*none, 0, 0, *missing)) if any(missing) else pixels


add_samples(
    "MaxPool",
    Sample("3x3, stride 2", "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)"),
    Sample("ceil mode", "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)"),
    Sample("dilated", "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)"),
    Sample("every other place", "y = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (x)", narrow=True),
    Sample(
        "narrower than its stride, padded, ceil mode",
        "y = MaxPool <kernel_shape = [2, 2], strides = [3, 3], pads = [1, 0, 0, 1], ceil_mode = 1> (x)",
        size=(10, 12),
        narrow=True,
    ),
    Sample(
        "after negative values, before a convolution",
        "n = Neg (x) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (n) y = Conv <pads = [1, 1, 1, 1]> (p, w)",
        {"w": (3, 4, 3, 3)},
    ),
)
add_samples(
    "AveragePool",
    Sample("2x2, stride 2", "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)"),
    Sample(
        "padding counted", "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)"
    ),
    Sample("padding not counted", "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x)"),
    Sample("ceil mode", "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)"),
    Sample(
        "narrower than its stride, padding counted",
        "y = AveragePool <kernel_shape = [2, 2], strides = [3, 4], pads = [0, 1, 1, 0], count_include_pad = 1> (x)",
        narrow=True,
    ),
    Sample(
        "over tokens",
        "f = Reshape (x, flat) y = AveragePool <kernel_shape = [11], strides = [11]> (f)",
        constants={"flat": (-1, 4, 99)},
    ),
)
add_samples("GlobalAveragePool", Sample("whole image", "y = GlobalAveragePool (x)"))
add_samples("GlobalMaxPool", Sample("of negative values", "a = Abs (x) n = Neg (a) y = GlobalMaxPool (n)"))
add_samples(
    "LpPool",
    Sample("2x2, stride 2", "y = LpPool <kernel_shape = [2, 2], strides = [2, 2], p = 2> (x)"),
    Sample("narrow", "y = LpPool <kernel_shape = [1, 2], strides = [2, 3]> (x)", narrow=True),
    Sample("third norm, padded", "y = LpPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], p = 3> (x)"),
)
add_samples("GlobalLpPool", Sample("whole image", "y = GlobalLpPool <p = 2> (x)"))
