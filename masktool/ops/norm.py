"""Normalisations, and the softmax.

* Within each place (``LayerNormalization`` and ``Softmax`` over channels, ``LRN`` over neighbouring channels):
  ``m' = m``. So do ``LpNormalization``, which over places divides by the norm of the kept ones scaled up to all, and
  ``Hardmax``.
* Over places (``InstanceNormalization``, ``GroupNormalization``, ``LayerNormalization`` over height or width,
  ``MeanVarianceNormalization``): mean and variance of the kept places; ``m' = m``. The operator itself stays, so that a
  mask of ones is exact: it gets the mean at missing places, and its result is put right. Soft values weigh.
* ``Softmax`` over places (attention): a missing place gets no weight, ``softmax(x or −∞)``; ``m' = m``. A soft
  value counts as kept.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (masked means).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from masktool.ops.builder import dims_of, dtype_of, fixed_sizes, input_at, normalised_axes, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, given, gradient_rule, passes_nothing, refuse_parameters
from masktool.ops.graph import MaskedGraph, mask_rule, state_of_input
from masktool.ops.kept import Centred, centred_on_kept
from masktool.ops.samples import Sample, add_samples

MEAN_VARIANCE_EPSILON = 1e-9
"""Of MeanVarianceNormalization, fixed by the ONNX specification."""


@mask_rule("LRN")
def mask_lrn(graph: MaskedGraph, node: ir.Node) -> None:
    """Divides each place by what its neighbouring channels hold: the mask stays, and zeros under it."""
    state = state_of_input(graph, node)
    if {state.batch, *state.axes} & {1}:
        raise RuleError("it sums over neighbouring places, not channels")
    graph.set_state(node.outputs[0], state)


@mask_rule("Hardmax", "Softmax", "LogSoftmax")
def mask_softmax(graph: MaskedGraph, node: ir.Node) -> None:
    """Gives a missing place no weight, where it runs over places; the mask stays."""
    state, value = state_of_input(graph, node), input_at(node, 0)
    axis = normalised_axes([node.attributes.get_int("axis", -1)], rank_of(value))[0]
    if axis == state.batch:
        raise RuleError("it runs over the batch")
    if axis in state.axes:
        lowest = np.finfo(dtype_of(value).numpy()).min  # −∞ would make NaN of a row without any kept place
        node.replace_input_with(0, graph.replaced(value, empty=float(lowest)))
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


@mask_rule("LpNormalization")
def mask_lp_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Divides by the norm of each place's channels, or by that of the kept places scaled up to all; the mask stays."""
    state, value, output = state_of_input(graph, node), input_at(node, 0), node.outputs[0]
    axis = normalised_axes([node.attributes.get_int("axis", -1)], rank_of(value))[0]
    if axis == state.batch:
        raise RuleError("it normalises over the batch")
    new_state = state.replace(zeroed=False)
    if axis in state.axes:
        reduction, along = norm_of(node), graph.constant([axis], ir.DataType.INT64)
        of_mask, of_ones = (graph.emit(reduction, each, along) for each in (state.mask, graph.ones_like(state.mask)))
        share = graph.emit("Div", of_mask, of_ones)
        node.replace_input_with(0, graph.weighted(value))
        output = graph.emit_after(output, "Mul", output, graph.as_type(share, dtype_of(output)))
    graph.set_state(output, new_state)


def norm_of(node: ir.Node) -> str:
    """Returns the operator that gives the norm by which an LpNormalization divides."""
    return f"ReduceL{node.attributes.get_int('p', 2)}"


@mask_rule("LayerNormalization")
def mask_layer_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises each place by itself, or over the kept places; the mask stays."""
    state, rank = state_of_input(graph, node), rank_of(input_at(node, 0))
    first = normalised_axes([node.attributes.get_int("axis", -1)], rank)[0]
    if set(state.axes) & set(range(first, rank)):
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        normalise(graph, node, range(first, rank), epsilon, node.inputs[1:])
    else:
        graph.set_state(node.outputs[0], state.replace(zeroed=False))


@mask_rule("MeanVarianceNormalization")
def mask_mean_variance_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises over the kept places; refuses statistics over the batch."""
    state, rank = state_of_input(graph, node), rank_of(input_at(node, 0))
    axes = normalised_axes(node.attributes.get_ints("axes") or (0, 2, 3), rank)
    if state.batch in axes:
        raise RuleError(f"it normalises over axes {axes}, among them the batch")
    normalise(graph, node, axes, MEAN_VARIANCE_EPSILON, ())


@mask_rule("InstanceNormalization")
def mask_instance_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises every channel over its kept places."""
    state_of_input(graph, node)
    rank = rank_of(input_at(node, 0))
    per_channel = [by_channel(graph, input_at(node, index), rank) for index in (1, 2)]
    normalise(graph, node, range(2, rank), node.attributes.get_float("epsilon", 1e-5), per_channel)


@mask_rule("GroupNormalization")
def mask_group_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises every group of channels over its kept places."""
    state, value = state_of_input(graph, node), input_at(node, 0)
    channels, *places = sizes_of(value)[1:]
    groups = node.attributes["num_groups"].as_int()
    if not state.is_image or state.axes != (2, 3) or channels is None or None in places:
        raise RuleError("it needs a map of shape (N, C, h, w) with fixed sizes")
    if sizes_of(input_at(node, 2)) != (channels,):
        raise RuleError("it scales groups, not channels, as opset 18 alone has it")
    in_groups = [groups, channels // groups, *places]
    grouped = graph.emit("Reshape", value, graph.constant([0, *in_groups], ir.DataType.INT64))
    grouped.shape = ir.Shape([dims_of(value)[0], *in_groups])
    mask = graph.moved_mask(state.mask, {0: 0, 2: 3, 3: 4}, 4, 5)
    graph.set_state(grouped, state.replace(mask=mask, axes=tuple(axis + 1 for axis in state.axes)))
    centred = centred_on_kept(graph, grouped, (2, 3, 4), node.attributes.get_float("epsilon", 1e-5))
    ungrouped = graph.emit("Reshape", centred.value, graph.constant([0, channels, *places], ir.DataType.INT64))
    ungrouped.shape = value.shape

    def per_channel(per_group: ir.Value) -> ir.Value:
        repeats = graph.constant([1, 1, channels // groups, 1, 1], ir.DataType.INT64)
        return graph.emit(
            "Reshape",
            graph.emit("Expand", per_group, repeats),
            graph.constant([0, channels, 1, 1], ir.DataType.INT64),
        )

    in_channels = Centred(ungrouped, per_channel(centred.factor), per_channel(centred.shift))
    finish(graph, node, in_channels, [by_channel(graph, input_at(node, index), 4) for index in (1, 2)])


def by_channel(graph: MaskedGraph, parameter: ir.Value, rank: int) -> ir.Value:
    """Returns one number per channel in a shape that broadcasts against (N, C, ...)."""
    return graph.emit("Unsqueeze", parameter, graph.constant(list(range(1, rank - 1)), ir.DataType.INT64))


def normalise(
    graph: MaskedGraph, node: ir.Node, axes: Sequence[int], epsilon: float, parameters: Sequence[ir.Value | None]
) -> None:
    """Lets a normalising node see the kept places along ``axes`` only; ``parameters`` are its scale and bias."""
    if len(node.outputs) > 1:
        raise RuleError("its further outputs (mean, deviation) have no mask rule")
    finish(graph, node, centred_on_kept(graph, input_at(node, 0), axes, epsilon), parameters)


def finish(graph: MaskedGraph, node: ir.Node, centred: Centred, parameters: Sequence[ir.Value | None]) -> None:
    """Puts right what the node makes of the centred value: ``y · f + (b · (1 − f) + a · shift)``; the mask stays."""
    state, output = state_of_input(graph, node).replace(zeroed=False), node.outputs[0]
    factor = graph.as_type(centred.factor, dtype_of(output))
    scale, bias = [*parameters, None, None][:2]
    rest = graph.as_type(centred.shift, dtype_of(output))
    if scale is not None:
        rest = graph.emit("Mul", scale, rest)
    if bias is not None:
        from_bias = graph.emit("Mul", bias, graph.emit("Sub", graph.constant(1, dtype_of(output)), factor))
        rest = graph.emit("Add", from_bias, rest)
    node.replace_input_with(0, centred.value)
    result = graph.emit_after(output, "Mul", output, factor)
    graph.set_state(graph.emit_after(result, "Add", result, rest), state)


@gradient_rule("Softmax")
def vjp_softmax(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``y · (dy − Σ dy · y)``."""
    gradient, output = given(gradients), node.outputs[0]
    axis = graph.ints(node.attributes.get_int("axis", -1))
    mean = graph.emit("ReduceSum", graph.emit("Mul", gradient, output), axis)
    return [graph.emit("Mul", output, graph.emit("Sub", gradient, mean))]


gradient_rule("Hardmax")(passes_nothing)


@gradient_rule("LpNormalization")
def vjp_lp_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``(dy − Σ dy · y · s) / norm`` with s = y, or sign(x) for the sum of absolute values; 0 where the norm is 0."""
    gradient, value, output = given(gradients), input_at(node, 0), node.outputs[0]
    axis = graph.ints(node.attributes.get_int("axis", -1))
    norm = graph.emit(norm_of(node), value, axis)
    total = graph.emit("ReduceSum", graph.emit("Mul", gradient, output), axis)
    direction = output if norm_of(node) == "ReduceL2" else graph.emit("Sign", value)
    across = graph.emit("Sub", gradient, graph.emit("Mul", direction, total))
    return [graph.masked(graph.emit("Div", across, graph.divisor(norm)), graph.positive(norm))]


@gradient_rule("LogSoftmax")
def vjp_log_softmax(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy − eʸ · Σ dy``."""
    gradient, output = given(gradients), node.outputs[0]
    total = graph.emit("ReduceSum", gradient, graph.ints(node.attributes.get_int("axis", -1)))
    return [graph.emit("Sub", gradient, graph.emit("Mul", graph.emit("Exp", output), total))]


@gradient_rule("LRN")
def vjp_lrn(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """``dy · s^−β − 2αβ · x · mean(dy · y / s)``, over the channels that see this one; s = k + α · mean(x²).

    A window over channels is an average pool over the first of two axes: channels, and all places in one.
    """
    gradient, value, output, own = given(gradients), input_at(node, 0), node.outputs[0], node.attributes
    alpha, beta, size = own.get_float("alpha", 1e-4), own.get_float("beta", 0.75), own["size"].as_int()
    before, after = (size - 1) // 2, size // 2
    base = pool_channels(graph, value, graph.emit("Mul", value, value), before, after)
    base = graph.emit("Mul", base, graph.number(alpha, value))
    base = graph.emit("Add", base, graph.number(own.get_float("bias", 1.0), value))
    straight = graph.emit("Mul", gradient, graph.emit("Pow", base, graph.number(-beta, value)))
    shares = graph.emit("Div", graph.emit("Mul", gradient, output), base)
    across = graph.emit("Mul", value, pool_channels(graph, value, shares, after, before))
    return [graph.emit("Sub", straight, graph.emit("Mul", across, graph.number(2 * alpha * beta, value)))]


def pool_channels(graph: GradientGraph, like: ir.Value, value: ir.Value, before: int, after: int) -> ir.Value:
    """Returns the means over neighbouring channels, where what lies outside is 0; the value has the shape of ``like``.

    Args:
        graph: the graph of gradients.
        like: (N, C, ...).
        value: of the same shape.
        before: number of channels in front of each one that its mean sees.
        after: likewise, behind it.
    """
    rows = graph.emit("Reshape", value, graph.ints(0, 1, fixed_sizes(like)[1], -1))
    window = {"kernel_shape": [before + 1 + after, 1], "pads": [before, 0, after, 0], "count_include_pad": 1}
    return graph.reshaped_as(like, graph.emit("AveragePool", rows, **window))


@gradient_rule("LayerNormalization")
def vjp_layer_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """With the mean and the deviation that the node of the forward pass gives as further outputs."""
    refuse_parameters(graph, node)
    value, rank = input_at(node, 0), rank_of(input_at(node, 0))
    axes = range(normalised_axes([node.attributes.get_int("axis", -1)], rank)[0], rank)
    if len(node.outputs) < 3:
        node.resize_outputs(3)
    for output, what in zip(node.outputs[1:], ("mean", "inverse_deviation"), strict=True):
        output.name = output.name or f"{node.outputs[0].name}_{what}"
        output.type = ir.TensorType(ir.DataType(node.attributes.get_int("stash_type", 1)))
    mean, inverse = (graph.as_type(output, dtype_of(value)) for output in node.outputs[1:])
    normal = graph.emit("Mul", graph.emit("Sub", value, mean), inverse)
    scaled = graph.emit("Mul", given(gradients), input_at(node, 1))
    return [normalise_back(graph, scaled, normal, inverse, axes)]


@gradient_rule("InstanceNormalization")
def vjp_instance_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """With mean and variance over places, computed once more: the node does not give them."""
    refuse_parameters(graph, node)
    rank = rank_of(input_at(node, 0))
    by_channel = graph.emit("Unsqueeze", input_at(node, 1), graph.ints(*range(1, rank - 1)))
    scaled = graph.emit("Mul", given(gradients), by_channel)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return [gradient_of_normal(graph, input_at(node, 0), scaled, range(2, rank), epsilon)]


@gradient_rule("GroupNormalization")
def vjp_group_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """The same over groups of channels and places, which lie in one axis."""
    refuse_parameters(graph, node)
    value, scale = input_at(node, 0), input_at(node, 1)
    channels, rank, groups = fixed_sizes(value)[1], rank_of(value), node.attributes["num_groups"].as_int()
    if sizes_of(scale) != (channels,):
        raise RuleError("it scales groups, not channels, as opset 18 alone has it")
    scaled = graph.emit("Mul", given(gradients), graph.emit("Unsqueeze", scale, graph.ints(*range(1, rank - 1))))
    grouped, scaled = (graph.emit("Reshape", part, graph.ints(0, groups, -1)) for part in (value, scaled))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return [graph.reshaped_as(value, gradient_of_normal(graph, grouped, scaled, [2], epsilon))]


@gradient_rule("MeanVarianceNormalization")
def vjp_mean_variance_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """The same; ε, here outside the root, is too small to tell."""
    value = input_at(node, 0)
    axes = normalised_axes(node.attributes.get_ints("axes") or (0, 2, 3), rank_of(value))
    if 0 in axes:
        raise RuleError(f"it normalises over axes {axes}, among them the batch")
    return [gradient_of_normal(graph, value, given(gradients), axes, MEAN_VARIANCE_EPSILON**2)]


def gradient_of_normal(
    graph: GradientGraph, value: ir.Value, gradient: ir.Value, axes: Sequence[int], epsilon: float
) -> ir.Value:
    """Returns the gradient of (x − mean) / √(variance + ε) with respect to x."""
    along = graph.ints(*axes)
    centred = graph.emit("Sub", value, graph.emit("ReduceMean", value, along))
    variance = graph.emit("ReduceMean", graph.emit("Mul", centred, centred), along)
    deviation = graph.emit("Sqrt", graph.emit("Add", variance, graph.number(epsilon, value)))
    inverse = graph.emit("Reciprocal", deviation)
    return normalise_back(graph, gradient, graph.emit("Mul", centred, inverse), inverse, axes)


def normalise_back(
    graph: GradientGraph, gradient: ir.Value, normal: ir.Value, inverse: ir.Value, axes: Sequence[int]
) -> ir.Value:
    """Returns ``(g − mean(g) − n · mean(g · n)) / σ``.

    Args:
        graph: the graph of gradients.
        gradient: g, of the normalised value.
        normal: n, the normalised value.
        inverse: 1 / σ.
        axes: over which it was normalised.
    """
    along = graph.ints(*axes)
    centred = graph.emit("Sub", gradient, graph.emit("ReduceMean", gradient, along))
    slope = graph.emit("ReduceMean", graph.emit("Mul", gradient, normal), along)
    return graph.emit("Mul", graph.emit("Sub", centred, graph.emit("Mul", normal, slope)), inverse)


TO_CHANNELS_LAST = "t = Transpose <perm = [0, 2, 3, 1]> (x)"
THEN_CONVOLUTION = "y = Conv <pads = [1, 1, 1, 1]> (n, w)"
add_samples(
    "LayerNormalization",
    Sample(
        "channels last, before a convolution",
        f"{TO_CHANNELS_LAST} n = LayerNormalization (t, g, b) r = Transpose <perm = [0, 3, 1, 2]> (n) "
        "y = Conv <pads = [1, 1, 1, 1]> (r, w)",
        {"g": (4,), "b": (4,), "w": (3, 4, 3, 3)},
    ),
    Sample(
        "over the whole image",
        f"n = LayerNormalization <axis = 1> (x, g, b) {THEN_CONVOLUTION}",
        {"g": (4, 9, 11), "b": (4, 9, 11), "w": (3, 4, 3, 3)},
    ),
)
add_samples(
    "Softmax",
    Sample("over channels", "s = Softmax <axis = 1> (x) y = Conv <pads = [1, 1, 1, 1]> (s, w)", {"w": (3, 4, 3, 3)}),
    Sample("over the width", "y = Softmax <axis = 3> (x)"),
)
add_samples("LRN", Sample("before a pool", "n = LRN <size = 3> (x) y = MaxPool <kernel_shape = [2, 2]> (n)"))
add_samples(
    "InstanceNormalization",
    Sample(
        "before a convolution",
        f"n = InstanceNormalization (x, g, b) {THEN_CONVOLUTION}",
        {"g": (4,), "b": (4,), "w": (3, 4, 3, 3)},
    ),
    Sample(
        "of groups, as torch writes it",
        "f = Reshape (x, s) i = InstanceNormalization (f, g, b) n = Reshape (i, t) " + THEN_CONVOLUTION,
        {"g": (2,), "b": (2,), "w": (3, 4, 3, 3)},
        {"s": (0, 2, -1), "t": (-1, 4, 9, 11)},
    ),
)
add_samples(
    "MeanVarianceNormalization",
    Sample(
        "per channel",
        "n = MeanVarianceNormalization <axes = [2, 3]> (x) " + THEN_CONVOLUTION,
        {"w": (3, 4, 3, 3)},
    ),
)
add_samples(
    "GroupNormalization",
    Sample(
        "two groups",
        "n = GroupNormalization <num_groups = 2> (x, g, b) " + THEN_CONVOLUTION,
        {"g": (4,), "b": (4,), "w": (3, 4, 3, 3)},
        opset=21,
    ),
)
add_samples(
    "LpNormalization",
    Sample(
        "of channels", "n = LpNormalization <axis = 1> (x) y = Conv <pads = [1, 1, 1, 1]> (n, w)", {"w": (3, 4, 3, 3)}
    ),
    Sample("of rows, by absolute values", "y = LpNormalization <axis = 3, p = 1> (x)"),
    Sample("of columns", "y = LpNormalization <axis = 2> (x)"),
)
add_samples(
    "Hardmax",
    Sample("over channels", "h = Hardmax <axis = 1> (x) y = Mul (h, x)"),
    Sample("over a row", "y = Hardmax (x)"),
)
