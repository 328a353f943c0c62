"""Normalisations within each place.

``LayerNormalization`` and ``Softmax`` over channels, and ``LRN``, which sums over neighbouring channels, look at no
other place of the image: ``m' = m``. What they would take from height or width is refused.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (the rule for batch normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from masktool.ops.graph import Masked, MaskedGraph, input_at, normalised_axes, rank_of
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule


def state_apart_from(graph: MaskedGraph, node: ir.Node, axes: Sequence[int]) -> Masked:
    """Returns the state of the first input, provided that ``axes`` of it lie within each place.

    Raises:
        RuleError: the batch, height or width is among them, or another input depends on the image.
    """
    state = graph.state(input_at(node, 0))
    if state is None or any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its parameters depend on the image")
    if {0, *state.axes} & set(axes):
        raise RuleError(f"it works along axes {list(axes)}: expected neither the batch nor {list(state.axes)}")
    return state


@mask_rule("LayerNormalization")
def mask_layer_normalization(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises each place by itself: the mask stays."""
    if any(graph.state(value) is not None for value in node.inputs[1:]):
        raise RuleError("its parameters depend on the image")
    rank = rank_of(input_at(node, 0))
    first = normalised_axes([node.attributes.get_int("axis", -1)], rank)[0]
    state = state_apart_from(graph, node, range(first, rank))
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


@mask_rule("Softmax", "LogSoftmax")
def mask_softmax(graph: MaskedGraph, node: ir.Node) -> None:
    """Normalises each place by itself: the mask stays."""
    axes = normalised_axes([node.attributes.get_int("axis", -1)], rank_of(input_at(node, 0)))
    graph.set_state(node.outputs[0], state_apart_from(graph, node, axes).replace(zeroed=False))


@mask_rule("LRN")
def mask_lrn(graph: MaskedGraph, node: ir.Node) -> None:
    """Divides each place by what its neighbouring channels hold: the mask stays, and zeros under it."""
    graph.set_state(node.outputs[0], state_apart_from(graph, node, (1,)))


TO_CHANNELS_LAST = "t = Transpose <perm = [0, 2, 3, 1]> (x)"
add_samples(
    "LayerNormalization",
    Sample(
        "channels last, before a convolution",
        f"{TO_CHANNELS_LAST} n = LayerNormalization (t, g, b) r = Transpose <perm = [0, 3, 1, 2]> (n) "
        "y = Conv <pads = [1, 1, 1, 1]> (r, w)",
        {"g": (4,), "b": (4,), "w": (3, 4, 3, 3)},
    ),
)
add_samples(
    "Softmax",
    Sample("over channels", "s = Softmax <axis = 1> (x) y = Conv <pads = [1, 1, 1, 1]> (s, w)", {"w": (3, 4, 3, 3)}),
)
add_samples("LRN", Sample("before a pool", "n = LRN <size = 3> (x) y = MaxPool <kernel_shape = [2, 2]> (n)"))
