"""Means, sums, norms and maxima along axes.

Over height and width they count kept places only. With r any of mean, sum, sum of squares, L1 and L2 norm, it is
``r(x · m) · r(1) / r(m)``, what r would give if the missing places were like the kept ones; the maximum is that of what
is kept. The mask is spent, an empty mask gives 0. Along other axes they stay within each place: the mask stays.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.graph import MaskedGraph, constant_of, input_at, normalised_axes, rank_of
from masktool.ops.pool import average_kept, max_kept
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule


@mask_rule("ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare")
def mask_reduce(graph: MaskedGraph, node: ir.Node) -> None:
    """Counts kept places only and scales up to the whole image, where it reduces the image at all."""
    if reduces_the_image(graph, node):
        average_kept(graph, node, keepdims=node.attributes.get_int("keepdims", 1))


@mask_rule("ReduceMax")
def mask_reduce_max(graph: MaskedGraph, node: ir.Node) -> None:
    """Takes the maximum over kept places, where it takes it over the image at all."""
    if reduces_the_image(graph, node):
        max_kept(graph, node, keepdims=node.attributes.get_int("keepdims", 1))


def reduces_the_image(graph: MaskedGraph, node: ir.Node) -> bool:
    """Whether a node reduces height and width; where it reduces neither, its output gets the mask that stays.

    Raises:
        RuleError: it reduces one of them, or other axes as well, or the batch.
    """
    value = input_at(node, 0)
    state = graph.state(value)
    if state is None:
        raise RuleError("its axes depend on the image")
    rank = rank_of(value)
    axes_input = constant_of(node, 1, "the list of axes")
    axes = list(range(rank)) if axes_input is None else normalised_axes(axes_input.tolist(), rank)
    reduced_places = [axis for axis in state.axes if axis in axes]
    if 0 in axes or (reduced_places and sorted(axes) != list(state.axes)):
        raise RuleError(f"it reduces axes {axes}: expected height and width alone {list(state.axes)}, or neither")
    if not reduced_places:
        keepdims = node.attributes.get_int("keepdims", 1)
        height, width = (place - (0 if keepdims else sum(axis < place for axis in axes)) for place in state.axes)
        graph.set_state(node.outputs[0], state.replace(axes=(height, width)))
    return bool(reduced_places)


add_samples(
    "ReduceMean",
    Sample("over the image", "y = ReduceMean <keepdims = 0> (x, axes)", constants={"axes": (2, 3)}),
    Sample("negative axes, kept", "y = ReduceMean <keepdims = 1> (x, axes)", constants={"axes": (-1, -2)}),
    Sample("over channels", "y = ReduceMean <keepdims = 1> (x, axes)", constants={"axes": (1,)}),
    Sample(
        "channels last",
        "t = Transpose <perm = [0, 2, 3, 1]> (x) y = ReduceMean <keepdims = 0> (t, axes)",
        constants={"axes": (1, 2)},
        ones_tolerance=1e-6,  # without the mask, ONNX Runtime moves the Transpose behind the mean
    ),
)
for op_type in ("ReduceSum", "ReduceL2", "ReduceSumSquare"):
    add_samples(
        op_type, Sample("over the image", f"y = {op_type} <keepdims = 1> (x, axes)", constants={"axes": (2, 3)})
    )
add_samples(
    "ReduceMax",
    Sample("over the image", "y = ReduceMax <keepdims = 0> (x, axes)", constants={"axes": (2, 3)}),
    Sample("over channels", "y = ReduceMax <keepdims = 1> (x, axes)", constants={"axes": (1,)}),
)
