"""ONNX Runtime's names of the element types that numpy can feed to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from masktool.errors import MasktoolError

FLOAT_TYPES: Mapping[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
NUMPY_TYPES: Mapping[str, type[np.generic]] = {
    **FLOAT_TYPES,
    "tensor(bool)": np.bool_,
    **{f"tensor({name})": getattr(np, name) for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": getattr(np, name) for name in ("uint8", "uint16", "uint32", "uint64")},
}
"""numpy's types of numbers and booleans, by ONNX Runtime's names."""


def numpy_type(node: Any) -> np.dtype[Any]:
    """Returns the dtype of the elements of one of a session's inputs.

    Raises:
        MasktoolError: the input is no tensor of numbers, or of numbers that numpy does not have.
    """
    if node.type not in NUMPY_TYPES:
        raise MasktoolError("an input that is no tensor of numbers", where=f"input {node.name!r}", got=node.type)
    return np.dtype(NUMPY_TYPES[node.type])
