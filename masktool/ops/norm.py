"""Normalisations to a mean of 0 and a variance of 1.

* Within each place (``LayerNormalization`` over channels): ``m' = m``.
* Over places (``InstanceNormalization``, ``GroupNormalization``, ``LayerNormalization`` over height or width,
  ``MeanVarianceNormalization``): mean and variance of the kept places; ``m' = m``. The operator itself stays, so that a
  mask of ones is exact: it gets the mean at missing places, and its result is put right. Soft values weigh.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (masked means).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from masktool.ops.builder import dims_of, dtype_of, fixed_sizes, input_at, normalised_axes, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule, refuse_parameters
from masktool.ops.graph import MaskedGraph, mask_rule, state_of_input
from masktool.ops.kept import Centred, centred_on_kept
from masktool.ops.samples import Sample, add_samples

MEAN_VARIANCE_EPSILON = 1e-9
"""The ε of MeanVarianceNormalization, fixed by the ONNX specification."""


@mask_rule("LayerNormalization")
def mask_layer_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises each place by itself, or over the kept places; the mask stays."""
    state, rank = state_of_input(graph, node), rank_of(input_at(node, 0))
    first = normalised_axes([node.attributes.get_int("axis", -1)], rank)[0]
    if set(state.axes) & set(range(first, rank)):
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        normalise_over_kept(graph, node, range(first, rank), epsilon, node.inputs[1:])
    else:
        graph.set_state(node.outputs[0], state.replace(zeroed=False))


@mask_rule("MeanVarianceNormalization")
def mask_mean_variance_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises over the kept places; refuses statistics over the batch."""
    state, rank = state_of_input(graph, node), rank_of(input_at(node, 0))
    axes = normalised_axes(node.attributes.get_ints("axes") or (0, 2, 3), rank)
    if state.batch in axes:
        raise RuleError(f"it normalises over axes {axes}, among them the batch")
    normalise_over_kept(graph, node, axes, MEAN_VARIANCE_EPSILON, ())


@mask_rule("InstanceNormalization")
def mask_instance_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises every channel over its kept places."""
    state_of_input(graph, node)
    rank = rank_of(input_at(node, 0))
    per_channel = [by_channel(graph, input_at(node, index), rank) for index in (1, 2)]
    normalise_over_kept(graph, node, range(2, rank), node.attributes.get_float("epsilon", 1e-5), per_channel)


@mask_rule("GroupNormalization")
def mask_group_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises every group of channels over its kept places."""
    state, value = state_of_input(graph, node), input_at(node, 0)
    channels, *places = sizes_of(value)[1:]
    groups = node.attributes["num_groups"].as_int()
    axes = tuple(range(2, rank_of(value)))
    if not state.is_image or state.axes != axes or channels is None or None in places:
        raise RuleError("it needs a map of shape (N, C, h, w) with fixed sizes")
    if sizes_of(input_at(node, 2)) != (channels,):
        raise RuleError("it scales groups, not channels, as opset 18 alone has it")
    in_groups = [groups, channels // groups, *places]
    grouped = graph.emit("Reshape", value, graph.constant([0, *in_groups], ir.DataType.INT64))
    grouped.shape = ir.Shape([dims_of(value)[0], *in_groups])
    rank = rank_of(value)
    mask = graph.moved_mask(state.mask, {0: 0, **{axis: axis + 1 for axis in axes}}, rank, rank + 1)
    graph.set_state(grouped, state.replace(mask=mask, axes=tuple(axis + 1 for axis in state.axes)))
    centred = centred_on_kept(graph, grouped, range(2, rank + 1), node.attributes.get_float("epsilon", 1e-5))
    ungrouped = graph.emit("Reshape", centred.value, graph.constant([0, channels, *places], ir.DataType.INT64))
    ungrouped.shape = value.shape

    def per_channel(per_group: ir.Value) -> ir.Value:
        repeats = graph.constant([1, 1, channels // groups, *[1] * len(axes)], ir.DataType.INT64)
        return graph.emit(
            "Reshape",
            graph.emit("Expand", per_group, repeats),
            graph.constant([0, channels, *[1] * len(axes)], ir.DataType.INT64),
        )

    in_channels = Centred(ungrouped, per_channel(centred.factor), per_channel(centred.shift))
    correct_norm(graph, node, in_channels, [by_channel(graph, input_at(node, index), rank) for index in (1, 2)])


def by_channel(graph: MaskedGraph, parameter: ir.Value, rank: int) -> ir.Value:
    """Returns one number per channel in a shape that broadcasts against (N, C, ...)."""
    return graph.emit("Unsqueeze", parameter, graph.constant(list(range(1, rank - 1)), ir.DataType.INT64))


def normalise_over_kept(
    graph: MaskedGraph, node: ir.Node, axes: Sequence[int], epsilon: float, parameters: Sequence[ir.Value | None]
) -> None:
    """Makes a normalising node see the kept places along ``axes`` only; ``parameters`` are its scale and bias."""
    if len(node.outputs) > 1:
        raise RuleError("its further outputs (mean, deviation) have no mask rule")
    correct_norm(graph, node, centred_on_kept(graph, input_at(node, 0), axes, epsilon), parameters)


def correct_norm(graph: MaskedGraph, node: ir.Node, centred: Centred, parameters: Sequence[ir.Value | None]) -> None:
    """Corrects a node's result y for the centred value: ``y · f + (b · (1 − f) + a · shift)``; the mask stays."""
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


@gradient_rule("LayerNormalization")
def vjp_layer_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Differentiates mean and deviation too, which the node of the forward pass gives as further outputs."""
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
    scaled = graph.emit("Mul", first_gradient(gradients), input_at(node, 1))
    return [normalise_back(graph, scaled, normal, inverse, axes)]


@gradient_rule("InstanceNormalization")
def vjp_instance_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Differentiates mean and variance over places too, computed once more: the node does not give them."""
    refuse_parameters(graph, node)
    rank = rank_of(input_at(node, 0))
    by_channel = graph.emit("Unsqueeze", input_at(node, 1), graph.ints(*range(1, rank - 1)))
    scaled = graph.emit("Mul", first_gradient(gradients), by_channel)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return [gradient_of_normal(graph, input_at(node, 0), scaled, range(2, rank), epsilon)]


@gradient_rule("GroupNormalization")
def vjp_group_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """As for InstanceNormalization, over groups of channels and places, which lie in one axis."""
    refuse_parameters(graph, node)
    value, scale = input_at(node, 0), input_at(node, 1)
    channels, rank, groups = fixed_sizes(value)[1], rank_of(value), node.attributes["num_groups"].as_int()
    if sizes_of(scale) != (channels,):
        raise RuleError("it scales groups, not channels, as opset 18 alone has it")
    scaled = graph.emit(
        "Mul", first_gradient(gradients), graph.emit("Unsqueeze", scale, graph.ints(*range(1, rank - 1)))
    )
    grouped, scaled = (graph.emit("Reshape", part, graph.ints(0, groups, -1)) for part in (value, scaled))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return [graph.reshaped_as(value, gradient_of_normal(graph, grouped, scaled, [2], epsilon))]


@gradient_rule("MeanVarianceNormalization")
def vjp_mean_variance_normalization(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """As for InstanceNormalization; ε, here outside the root, is too small to matter."""
    value = input_at(node, 0)
    axes = normalised_axes(node.attributes.get_ints("axes") or (0, 2, 3), rank_of(value))
    if 0 in axes:
        raise RuleError(f"it normalises over axes {axes}, among them the batch")
    return [gradient_of_normal(graph, value, first_gradient(gradients), axes, MEAN_VARIANCE_EPSILON**2)]


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
    """Returns ``(g − mean(g) − n · mean(g · n)) / σ``, the gradient of a normalisation's input.

    Args:
        graph: the graph of gradients.
        gradient: g, the gradient of the normalised value.
        normal: n, the normalised value.
        inverse: 1 / σ.
        axes: the axes over which the value was normalised.
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
