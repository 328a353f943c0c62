"""What the nodes of an ONNX graph have to be before anything else looks at them; see :mod:`.onnx_checks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import onnx

from masktool.errors import MasktoolError

Nodes: TypeAlias = "onnx.GraphProto | onnx.FunctionProto"
STANDARD = ("", "ai.onnx")
"""Names of the domain of ONNX's own operators."""
POSITIVE = frozenset(
    {
        *("blocksize", "dilations", "group", "kernel_shape", "kv_num_heads", "num_groups", "offset_group"),
        *("q_num_heads", "strides"),
    }
)
"""Attributes of the standard operators that count or measure something; all are integers."""
SWITCHES = frozenset(
    {
        *("allowzero", "ceil_mode", "count_include_pad", "exclusive", "is_causal", "keepdims", "noop_with_empty_axes"),
        *("reverse", "select_last_index", "transA", "transB"),
    }
)
"""Attributes of the standard operators that are 0 or 1. Of another number ONNX's shape inference takes 1 alone for yes,
and ONNX Runtime, by attribute, 1 or anything but 0."""
DIVIDED_BY = frozenset({"blocksize", "group", "kv_num_heads", "num_groups", "offset_group", "q_num_heads"})
"""Attributes that are multiplied with each other and divided by: 2⁴⁰ squared is 0 in 64 bits."""
AXES = frozenset({"axes", "axis", "batch_axis", "perm", "time_axis"})
"""Attributes of the standard operators that name axes."""
LARGEST_AXIS = 2**31 - 1
"""The largest axis from which ONNX Runtime cuts no bits off: axis 2⁴⁰ of a Softmax becomes axis 0."""
UNBOUNDED = 2**31 - 1
"""What ONNX gives for the largest number of inputs where there is none."""


def check_nodes(graph: Nodes, opset: int | None, where: object) -> None:
    """Raises MasktoolError for a node that its operator's definition does not allow.

    Args:
        graph: the graph or function whose own nodes are checked, not those of subgraphs.
        opset: version of the standard domain; None where none is imported.
        where: file or name, for messages.
    """
    for node in graph.node:
        refuse_attributes_twice(node, where)
        if node.domain not in STANDARD:
            continue
        if (schema := find_schema(node, opset)) is not None:
            check_types(node, schema, where)
            if opset is not None:
                check_arity(node, schema, where)
        if node.op_type == "Split":
            check_split(node, where)
        for attribute in node.attribute:
            if not attribute.ref_attr_name:  # of a function: its caller says
                check_number(node, attribute, where)


def describe_node(node: onnx.NodeProto) -> str:
    """Returns the operator and name of a node, or the name of its first output where it has none."""
    label = node.name or next((name for name in node.output if name), "")
    return f"{node.op_type if isinstance(node.op_type, str) else 'node'} {label!r}"


def refuse_attributes_twice(node: onnx.NodeProto, where: object) -> None:
    """Raises MasktoolError for an attribute that stands twice: ONNX Runtime refuses it, onnx_ir keeps the last one."""
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names):
        raise MasktoolError(
            "an attribute that stands twice in one node",
            where=f"{where}, {describe_node(node)}",
            got=next(name for name in names if names.count(name) > 1),
            fix="export the network again",
        )


def find_schema(node: onnx.NodeProto, opset: int | None) -> onnx.defs.OpSchema | None:
    """Returns ONNX's schema of a standard operator, the latest where no version is known; None without one."""
    try:
        if opset is None:
            return onnx.defs.get_schema(node.op_type, "")
        return onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def check_types(node: onnx.NodeProto, schema: onnx.defs.OpSchema, where: object) -> None:
    """Raises MasktoolError for an attribute of another type than ONNX gives it: ONNX Runtime refuses it too."""
    for attribute in node.attribute:
        declared = schema.attributes.get(attribute.name)
        if declared is None or attribute.type == onnx.AttributeProto.UNDEFINED:
            continue
        expected, got = str(declared.type).split(".")[-1], onnx.AttributeProto.AttributeType.Name(attribute.type)
        if expected == got:
            continue
        raise MasktoolError(
            f"not as {node.op_type}-{schema.since_version} is defined",
            where=f"{where}, {describe_node(node)}",
            expected=f"{attribute.name} of type {expected}",
            got=got,
            fix="export the network again",
        )


def check_arity(node: onnx.NodeProto, schema: onnx.defs.OpSchema, where: object) -> None:
    """Raises MasktoolError where a standard operator has fewer or more inputs or outputs than ONNX defines for it.

    ONNX Runtime refuses such nodes, and whoever reads a node's first input may rely on there being one.
    """
    inputs, outputs = trimmed(node.input), trimmed(node.output)
    needed = onnx.defs.OpSchema.FormalParameterOption.Single
    missing = [
        part.name for name, part in zip(inputs, schema.inputs, strict=False) if part.option == needed and not name
    ]
    if missing:
        expected, got = "all that must be given", f"no {missing[0]}"
    elif "" in some_of_many(node, schema):
        expected, got = "names alone", "an input without a name"  # ONNX Runtime follows a null pointer there
    elif not schema.min_input <= len(inputs) <= schema.max_input:
        expected, got = f"{describe_range(schema.min_input, schema.max_input)} inputs", str(len(inputs))
    elif not schema.min_output <= len(outputs) <= schema.max_output:
        expected, got = f"{describe_range(schema.min_output, schema.max_output)} outputs", str(len(outputs))
    else:
        return
    raise MasktoolError(
        f"not as {node.op_type}-{schema.since_version} is defined",
        where=f"{where}, {describe_node(node)}",
        expected=expected,
        got=got,
        fix="export the network again",
    )


def some_of_many(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> Sequence[str]:
    """Returns those inputs of a node of which its operator takes any number."""
    if not schema.inputs or schema.inputs[-1].option != onnx.defs.OpSchema.FormalParameterOption.Variadic:
        return ()
    return list(node.input[len(schema.inputs) - 1 :])


def trimmed(names: Sequence[str]) -> list[str]:
    """Returns names without the empty ones at the end, which stand for nothing."""
    found = list(names)
    while found and not found[-1]:
        found.pop()
    return found


def describe_range(least: int, most: int) -> str:
    """Returns a range of numbers in words, such as "2 or more"."""
    if least == most:
        return str(least)
    return f"{least} or more" if most == UNBOUNDED else f"{least} to {most}"


def check_split(node: onnx.NodeProto, where: object) -> None:
    """Raises MasktoolError for a Split with another number of outputs than it says.

    ONNX's shape inference (up to 1.23, which is in ONNX Runtime too) reads past the end of a list there, and aborts.
    """
    for attribute in node.attribute:
        said = attribute.i if attribute.name == "num_outputs" else len(attribute.ints)
        if attribute.ref_attr_name:  # of a function: its caller says how many
            continue
        if attribute.name in ("num_outputs", "split") and said != len(node.output):
            raise MasktoolError(
                "a Split with another number of outputs than it says",
                where=f"{where}, {describe_node(node)}",
                expected=f"{said}, its attribute {attribute.name}",
                got=len(node.output),
                fix="export the network again",
            )


def check_number(node: onnx.NodeProto, attribute: onnx.AttributeProto, where: object) -> None:
    """Raises MasktoolError for a count below 1, a switch that is neither 0 nor 1, or an axis that no value has.

    ONNX's shape inference (up to 1.23, which is in ONNX Runtime too) divides by the group of a ConvTranspose as it
    stands, which ends the process.
    """
    numbers = [*attribute.ints] or [attribute.i]
    got = min(numbers)
    if attribute.name in POSITIVE and got < 1:
        wrong, expected = "an attribute that must be positive", f"{attribute.name} of 1 or more"
    elif attribute.name in DIVIDED_BY and max(numbers) > LARGEST_AXIS:
        wrong, expected = "an attribute that is too large", f"{attribute.name} of 32 bits"
    elif attribute.name in SWITCHES and attribute.i not in (0, 1):
        wrong, expected = "an attribute that is 0 or 1", f"{attribute.name} of 0 or 1"
    elif attribute.name in AXES and max(map(abs, numbers)) > LARGEST_AXIS:
        wrong, expected = "an axis that no value has", f"{attribute.name} within the value's rank"
        got = max(numbers, key=abs)
    else:
        return
    raise MasktoolError(
        wrong,
        where=f"{where}, {describe_node(node)}",
        expected=expected,
        got=got,
        fix="export the network again",
    )
