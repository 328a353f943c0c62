"""Matrix products with a weight.

A product along the channels of a channels-last map is a 1 × 1 convolution: it happens within each place, and the mask
stays. A product along height or width, or of two values that both depend on the image (attention), is refused.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (the rule for a convolution without fill).
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.graph import MaskedGraph, input_at, rank_of
from masktool.ops.registry import RuleError, Sample, add_samples, mask_rule


@mask_rule("MatMul")
def mask_matmul(graph: MaskedGraph, node: ir.Node) -> None:
    """Multiplies the channels of each place with a weight: the mask stays."""
    value, weight = input_at(node, 0), input_at(node, 1)
    state = graph.state(value)
    if state is None or graph.state(weight) is not None:
        raise RuleError("its second factor depends on the image")
    last = rank_of(value) - 1
    if rank_of(weight) != 2 or last in (0, *state.axes):
        raise RuleError(f"it multiplies along axis {last}: expected a weight matrix, and neither of {list(state.axes)}")
    graph.set_state(node.outputs[0], state.replace(zeroed=False))


add_samples(
    "MatMul",
    Sample(
        "channels last, before a convolution",
        "t = Transpose <perm = [0, 2, 3, 1]> (x) p = MatMul (t, v) r = Transpose <perm = [0, 3, 1, 2]> (p) "
        "y = Conv <pads = [1, 1, 1, 1]> (r, w)",
        {"v": (4, 5), "w": (3, 5, 3, 3)},
        ones_tolerance=1e-6,  # without the mask, ONNX Runtime moves the Transpose behind the product
    ),
)
