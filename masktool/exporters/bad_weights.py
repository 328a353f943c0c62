"""Finds weights that no network can use: NaN, infinite, or so large that their products overflow."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from masktool.printable import list_some

MULTIPLYING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "BatchNormalization"})
"""Operators whose weights are factors, so that an infinite weight is no more use than NaN."""
NAMED = 3
"""Weights that a message names at most."""


def find_spoiled_weights(model: ir.Model) -> str:
    """Returns the names of weights that hold NaN, or infinity in a factor; an empty text where there are none.

    An infinity that is added or chosen may be meant: that is how scores are ruled out.
    """
    found = []
    for graph in model.graphs():
        constants = [node.outputs[0] for node in graph if node.op_type == "Constant"]
        for value in (*graph.initializers.values(), *constants):
            tensor = ir.convenience.get_const_tensor(value)
            if tensor is not None and tensor.dtype.is_floating_point() and (count := count_spoiled(value, tensor)):
                found.append(f"{value.name!r} ({count} of {tensor.size} numbers)")
    return list_some(found, NAMED)


def find_huge_weights(model: ir.Model) -> str:
    """Returns the names of weights that are factors and whose square overflows; an empty text where there are none."""
    found = []
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or not any(node.op_type in MULTIPLYING for node in value.consumers()):
                continue
            if tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE) and tensor.size:
                numbers = tensor.numpy()
                largest = float(np.abs(numbers).max())
                if largest > np.sqrt(np.finfo(numbers.dtype).max):
                    found.append(f"{value.name!r} (up to {largest:.1e})")
    return list_some(found, NAMED)


def count_spoiled(value: ir.Value, tensor: ir.TensorProtocol) -> int:
    """Returns how many numbers of a weight are NaN, or infinite in a factor."""
    numbers = tensor.numpy().astype(np.float32)
    multiplied = any(node.op_type in MULTIPLYING for node in value.consumers())
    return int(np.count_nonzero(~np.isfinite(numbers) if multiplied else np.isnan(numbers)))
