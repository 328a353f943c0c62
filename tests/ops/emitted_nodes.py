"""The nodes that masktool's own rules emit, of all samples, and what providers' tables have to say of them."""

from __future__ import annotations

import re

import onnx_ir as ir

from masktool.contract import DEVICE_PROVIDERS
from masktool.exporters.opset import opset_of
from masktool.exporters.placement import KernelAnswer, NodeKinds, answer_for, main_type, write_out_functions

Leaving = dict[str, set[str]]
"""By provider: what leaves the device, such as ``Min``, ``Where of int64``, ``AveragePool-19``."""
OWN = ("masktool/", "gradient/")
"""What the names of nodes begin with that rules emit."""


def note_leaving(model: ir.Model, leaving: Leaving, *, own_only: bool = True) -> None:
    """Adds the nodes of a model that leave a device, in the model's types and with half precision for single.

    Args:
        model: the model, changed in place.
        leaving: where they are added.
        own_only: whether nodes of other names than masktool gives are left out.
    """
    model = write_out_functions(model)
    kinds = NodeKinds(model.graph)
    own = [node for node in kinds.computed if not own_only or (node.name or "").startswith(OWN)]
    for half in (False, True):
        for node in own:
            if half:
                halve_types(node)
            for provider in DEVICE_PROVIDERS:
                found = answer_for(node, opset_of(model), provider, kinds.constants)
                if found.where != "device":
                    leaving.setdefault(provider, set()).add(label(node, found))


def halve_types(node: ir.Node) -> None:
    """Declares half precision of what a node reads and gives in single."""
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.dtype == ir.DataType.FLOAT:
            value.dtype = ir.DataType.FLOAT16


def label(node: ir.Node, found: KernelAnswer) -> str:
    """Returns a short name of what keeps a node from the device."""
    if opset := re.search(r"not for (\d+)$", found.reason):
        return f"opset {opset[1]}"
    if version := re.search(r"its version (\d+)", found.reason):
        return f"{node.op_type}-{version[1]}"
    if dtype := re.search(r"for (\w+)(;|$)", found.reason):
        return f"{node.op_type} of {dtype[1]}"
    if "indices" in found.reason:
        return f"{node.op_type} with indices"
    kind = node.op_type if (dtype := main_type(node)) in (None, "float", "float16") else f"{node.op_type} of {dtype}"
    return kind if found.where == "cpu" else f"{kind}, unknown"
