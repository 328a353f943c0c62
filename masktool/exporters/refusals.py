"""Why a node without a mask rule has none, and which file to export instead.

One table for operators, one for whole domains; a new entry is one line. The words stand behind the node's name in
:class:`masktool.errors.UnsupportedOperatorError`.
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.contract import MASK_INPUT
from masktool.errors import UnsupportedNode, UnsupportedOperatorError
from masktool.exporters.inference import MAKE_NO_TENSORS

FLOAT_OR_QDQ = "export the float model, or its QDQ file (QuantFormat.QDQ)"
AT_RUN_TIME = (
    f"its scale is measured at run time over the whole batch, missing pixels and other images included: {FLOAT_OR_QDQ}"
)
SUMS = f"it computes on integers whose scale is not part of it, so that no rule can fill them: {FLOAT_OR_QDQ}"
INTEGERS = f"it computes on integers whose scale is not written in the file: {FLOAT_OR_QDQ}"
OPTIMISED = "this file was optimised for one machine by ONNX Runtime; export the model as it was before optimisation"

WIDE = "integers of 4 and 16 bits are part of ONNX from opset 21 on; quantise the model in opset 21"

SEQUENCE = "it makes a sequence or an optional value, and masks lie on tensors alone; export the network without"

BY_OPERATOR = {
    "DynamicQuantizeLinear": AT_RUN_TIME,
    "DynamicQuantizeMatMul": AT_RUN_TIME,
    "ConvInteger": SUMS,
    "MatMulInteger": SUMS,
    "MatMulIntegerToFloat": SUMS,
    "QLinearConv": INTEGERS,
    "QLinearMatMul": INTEGERS,
    "QGemm": INTEGERS,
    "QuantizeLinear": WIDE,
    "DequantizeLinear": WIDE,
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

MOVES = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool", "Slice", "Pad"})
"""Operators that hand integers on as they are."""
OF_ANOTHER_FILE = frozenset({OPTIMISED, AT_RUN_TIME, SUMS})
"""Reasons that no place in the graph changes: another file is needed, or ``fill``, one image at a time."""


def refuse_files_of_another_kind(model: ir.Model) -> None:
    """Raises UnsupportedOperatorError where a model computes on bare integers or was optimised for one machine."""
    refused = [
        unsupported(node, reason) for node in model.graph if (reason := reason_without_rule(node)) in OF_ANOTHER_FILE
    ]
    if refused:
        raise UnsupportedOperatorError(refused)


def unsupported(node: ir.Node, reason: str) -> UnsupportedNode:
    """Returns the entry of a node in the list of nodes that cannot be treated."""
    op_type = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    opset = node.graph.opset_imports.get(node.domain, 1) if isinstance(node.graph, ir.Graph) else 1
    return UnsupportedNode(node.name or "", op_type, node.version or opset, reason)


def reason_without_rule(node: ir.Node) -> str:
    """Returns why a node has no mask rule, with what to do about it where that is known."""
    if node.op_type == "If" and node.inputs[0] is not None:
        return reason_for_condition(node.inputs[0])
    if BY_OPERATOR.get(node.op_type) == SUMS and is_measured_at_run_time(node):
        return AT_RUN_TIME
    if node.op_type in BY_OPERATOR:
        return BY_OPERATOR[node.op_type]
    if node.domain in ("", "ai.onnx"):
        return "no rule for this operator"
    return BY_DOMAIN.get(
        node.domain, f"the domain {node.domain!r} is not part of ONNX, and no rule knows its operators"
    )


def is_measured_at_run_time(node: ir.Node) -> bool:
    """Tells whether a DynamicQuantizeLinear gives the integers that a node reads, or their scale or zero point."""
    waiting = [value for value in node.inputs if value is not None]
    while waiting:
        producer = waiting.pop().producer()
        if producer is None:
            continue
        if producer.op_type == "DynamicQuantizeLinear":
            return True
        if producer.op_type in MOVES and producer.inputs[0] is not None:
            waiting.append(producer.inputs[0])
    return False


def reason_for_condition(condition: ir.Value) -> str:
    """Returns why an If is still in the graph, by what its condition is computed from."""
    numbers, lengths = inputs_behind(condition)
    if MASK_INPUT in numbers:
        return "its condition is computed from the image; export the network with one of the two branches alone"
    if numbers:
        named, it = ", ".join(map(repr, numbers)), "it" if len(numbers) == 1 else "them"
        inputs = "input" if len(numbers) == 1 else "inputs"
        return f"its condition is computed from the {inputs} {named}; export the network with {it} fixed"
    if lengths:
        return "its condition is computed from the size of its inputs; export the network for one fixed input size"
    return "its condition is computed at run time; export the network in evaluation mode"


def inputs_behind(value: ir.Value) -> tuple[list[str], list[str]]:
    """Returns names of the graph's inputs whose numbers a value is computed from, and of those whose lengths are."""
    found: dict[ir.Value, bool] = {}
    waiting = [(value, False)]
    while waiting:
        each, of_length = waiting.pop()
        if each in found and (of_length or not found[each]):
            continue
        found[each] = of_length
        if (node := each.producer()) is not None:
            of_length = of_length or node.op_type in ("Shape", "Size")
            waiting.extend((read, of_length) for read in node.inputs if read is not None)
    inputs = [each for each in found if each.is_graph_input() and each.name]
    numbers = sorted(str(each.name) for each in inputs if not found[each])
    return numbers, sorted(str(each.name) for each in inputs if found[each])
