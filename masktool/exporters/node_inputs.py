"""Reads a node's inputs, which may be left out, and values that may be constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Returns the input of a node at an index, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Returns a constant value as an array, None where the value is left out or computed."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()
