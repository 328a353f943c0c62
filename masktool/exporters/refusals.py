"""Why a node without a mask rule has none, and which file to export instead.

One table for operators, one for whole domains; a new entry is one line. The words stand behind the node's name in
:class:`masktool.errors.UnsupportedOperatorError`.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.errors import UnsupportedNode, UnsupportedOperatorError
from masktool.exporters.inference import MAKE_NO_TENSORS

FLOAT_OR_QDQ = "export the float model, or its QDQ file (QuantFormat.QDQ)"
AT_RUN_TIME = (
    f"its scale is measured at run time over the whole batch, missing pixels and other images included: {FLOAT_OR_QDQ}"
)
INTEGERS = f"it computes on integers whose scale is not written in the file: {FLOAT_OR_QDQ}"
OPTIMISED = "this file was optimised for one machine by ONNX Runtime; export the model as it was before optimisation"

WIDE = "integers of 4 and 16 bits are part of ONNX from opset 21 on; quantise the model in opset 21"

SEQUENCE = "it makes a sequence or an optional value, and masks lie on tensors alone; export the network without"

BY_OPERATOR = {
    "DynamicQuantizeLinear": AT_RUN_TIME,
    "DynamicQuantizeMatMul": AT_RUN_TIME,
    "ConvInteger": AT_RUN_TIME,
    "MatMulInteger": AT_RUN_TIME,
    "MatMulIntegerToFloat": AT_RUN_TIME,
    "QLinearConv": INTEGERS,
    "QLinearMatMul": INTEGERS,
    "QGemm": INTEGERS,
    "QuantizeLinear": WIDE,
    "DequantizeLinear": WIDE,
    "If": "its condition is computed at run time; export the network for one fixed input size, in evaluation mode",
    "Loop": "its number of iterations is computed at run time; export the network with the loop unrolled",
    **dict.fromkeys(MAKE_NO_TENSORS, SEQUENCE),
    "Scan": "it runs along an axis; export the network with the loop unrolled",
}
"""By op_type, in any domain."""

BY_DOMAIN = {
    "com.microsoft.nchwc": OPTIMISED,
    "com.microsoft": "only ONNX Runtime has this operator; export the model as it was before optimisation",
    "ai.onnx.contrib": "it belongs to onnxruntime-extensions; export the network without its pre- and postprocessing",
    "ai.onnx.ml": "it belongs to classical machine learning; export the network without what follows it",
    "org.pytorch.aten": "PyTorch's exporter found no ONNX operator for it; export again with a newer PyTorch",
}


OF_ANOTHER_FILE = frozenset({OPTIMISED, AT_RUN_TIME})
"""Reasons that no place in the graph changes: another file is needed, or ``fill``, one image at a time."""


def refuse_files_of_another_kind(model: ir.Model) -> None:
    """Raises UnsupportedOperatorError where a model was quantised dynamically or optimised for one machine."""
    refused = [
        unsupported(node, reason) for node in model.graph if (reason := reason_without_rule(node)) in OF_ANOTHER_FILE
    ]
    if refused:
        raise UnsupportedOperatorError(refused)


def unsupported(node: ir.Node, reason: str) -> UnsupportedNode:
    """Returns the line of a node in the list of those that cannot be treated."""
    op_type = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    opset = node.graph.opset_imports.get(node.domain, 1) if isinstance(node.graph, ir.Graph) else 1
    return UnsupportedNode(node.name or "", op_type, node.version or opset, reason)


def reason_without_rule(node: ir.Node) -> str:
    """Returns why a node has no mask rule, with what to do about it where that is known."""
    if node.op_type in BY_OPERATOR:
        return BY_OPERATOR[node.op_type]
    if node.domain in ("", "ai.onnx"):
        return "no rule for this operator"
    return BY_DOMAIN.get(
        node.domain, f"the domain {node.domain!r} is not part of ONNX, and no rule knows its operators"
    )
