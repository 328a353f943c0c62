"""Writes out operators that ONNX itself defines by a function (Attention, RMSNormalization, Swish).

Only operators without a mask rule of their own: where a rule exists, the runtime's own kernel stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx.inliner
import onnx_ir as ir
from onnx_ir.passes import common

from masktool.errors import reported_as
from masktool.exporters.opset import attach_weights, detach_large_weights, opset_of
from masktool.ops.graph import MASK_RULES

STAY = frozenset({"AffineGrid", "Bernoulli", "DynamicQuantizeLinear", "Range", "SequenceMap"})
"""Operators whose bodies draw numbers, measure a whole batch, loop or choose: no rule treats the bodies' nodes."""


def inline_schema_functions(model: ir.Model) -> ir.Model:
    """Returns a model with operators that ONNX defines by a function written out: itself where there are none.

    Args:
        model: the model with its shapes inferred: a function's body may depend on the types and ranks of its inputs.

    Raises:
        MasktoolError: ONNX cannot write one of the operators out.
    """
    names = sorted({node.op_type for node in model.graph.all_nodes() if is_function(node, opset_of(model))})
    if not names:
        return model
    for node in model.graph.all_nodes():
        if node.op_type in names:
            state_defaults(node, opset_of(model))
    callers = {
        name: [value.name for value in node.outputs]
        for node in model.graph.all_nodes()
        if node.op_type in names and (name := node.name)
    }
    large = detach_large_weights(model.graph)
    with reported_as(
        f"ONNX cannot write out {', '.join(names)} as the functions that they are", fix="export in opset 22"
    ):
        proto = onnx.inliner.inline_selected_functions(
            ir.to_proto(model), [("", name) for name in names], inline_schema_functions=True
        )
    inlined = ir.from_proto(proto)
    attach_weights(inlined.graph, large)
    name_bodies(inlined, callers)
    common.NameFixPass()(inlined)
    return inlined


def name_bodies(model: ir.Model, callers: Mapping[str, Sequence[str | None]]) -> None:
    """Names the nodes of written-out functions after the nodes that they stand for, in place, for messages.

    Args:
        model: the model, in which the nodes without a name are those of functions' bodies.
        callers: the names of each replaced node's outputs, by the node's name, in the order in which they compute.
    """
    producers = {value.name: node for node in model.graph.all_nodes() for value in node.outputs}
    for caller, outputs in callers.items():
        waiting = [producers.get(name) for name in outputs]
        while waiting:
            node = waiting.pop()
            if node is not None and not node.name:
                node.name = f"{caller}/{node.op_type}"
                waiting += [value.producer() for value in node.inputs if value is not None]


def state_defaults(node: ir.Node, opset: int) -> None:
    """Writes down the attributes that a node leaves to their defaults, in place: the inliner would leave them open."""
    for name, attribute in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        if name not in node.attributes and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            node.attributes[name] = ir.serde.deserialize_attribute(attribute.default_value)


def is_function(node: ir.Node, opset: int) -> bool:
    """Whether a node has no mask rule, but a definition in other operators."""
    if node.domain not in ("", "ai.onnx") or node.op_type in STAY or MASK_RULES.rule_of(node) is not None:
        return False
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return False
    names = ("has_function", "has_context_dependent_function")  # which onnx's type stubs leave out
    return any(getattr(schema, name) for name in names)
