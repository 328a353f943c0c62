"""Means along axes.

A mean over height and width is the mean over kept places, ``mean(x · m) · mean(1) / mean(m)``; the mask is spent, an
empty mask gives 0. A mean along other axes happens within each place: the mask stays.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.graph import MaskedGraph, constant_of, input_at, normalised_axes, rank_of
from masktool.ops.pool import average_kept
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule


@mask_rule("ReduceMean")
def mask_reduce_mean(graph: MaskedGraph, node: ir.Node) -> None:
    """Averages over kept places, where it averages over the image at all."""
    value = input_at(node, 0)
    state = graph.state(value)
    if state is None:
        raise RuleError("its axes depend on the image")
    rank = rank_of(value)
    axes_input = constant_of(node, 1, "the list of axes")
    axes = list(range(rank)) if axes_input is None else normalised_axes(axes_input.tolist(), rank)
    keepdims = node.attributes.get_int("keepdims", 1)
    reduced_places = [axis for axis in state.axes if axis in axes]
    if reduced_places:
        if len(reduced_places) == 1 or 0 in axes or len(axes) > 2:
            raise RuleError(f"it averages over axes {axes}: expected height and width alone {list(state.axes)}")
        average_kept(graph, node, keepdims=keepdims)
        return
    if 0 in axes:
        raise RuleError("it averages over the batch")
    shift = [0 if keepdims else sum(axis < place for axis in axes) for place in state.axes]
    new_axes = (state.axes[0] - shift[0], state.axes[1] - shift[1])
    graph.set_state(node.outputs[0], state.replace(axes=new_axes))


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
