"""What a node reads: an input that may be left out, and a value that may be a constant."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Returns an input, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Returns a constant as an array, None where a value is left out or computed."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()
