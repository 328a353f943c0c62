"""Finding a feature map: a value of shape (N, c, h, w) inside a network."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from masktool.errors import MasktoolError

CHANNELS_FIRST = frozenset(
    {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "BatchNormalization", "InstanceNormalization", "LRN"}
)
"""Operators whose output is (N, c, h, w) by their definition."""
MOVES_AXES = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Einsum", "MatMul", "Expand"}
)
"""Operators behind which the layout has to be shown anew."""
MASKTOOL_PREFIX = "masktool/"
"""What the names of values that masktool added begin with."""


def find_feature_map(graph: ir.Graph, name: str | None, depends: Callable[[ir.Value], bool]) -> ir.Value | None:
    """Returns the feature map of that name, or the last one; None where the network has none.

    Args:
        graph: shapes inferred.
        name: of a value; None takes the last one of more than one pixel.
        depends: whether a value depends on the image.

    Raises:
        MasktoolError: no such feature map; the message names the last ones.
    """
    maps = [value for value in channels_first_values(graph) if depends(value) and is_map(value)]
    if name is None:
        return maps[-1] if maps else None
    chosen = [value for value in maps if value.name == name]
    if not chosen:
        last = ", ".join(str(value.name) for value in maps[-5:]) or "none"
        raise MasktoolError(
            "no such feature map", where=name, expected="a value (N, c, h, w) that depends on the image", got=last
        )
    return chosen[0]


def channels_first_values(graph: ir.Graph) -> list[ir.Value]:
    """Returns the values of the network itself that are known to be (N, c, h, w), in the graph's order."""
    known: dict[ir.Value, None] = {}
    for node in graph:
        inherits = node.op_type not in MOVES_AXES and any(value in known for value in node.inputs if value is not None)
        if node.op_type in CHANNELS_FIRST or inherits:
            known.update(dict.fromkeys(node.outputs))
    return [value for value in known if not (value.name or "").startswith(MASKTOOL_PREFIX)]


def is_map(value: ir.Value) -> bool:
    """Whether a value is floating point and has more than one place and channel."""
    shape = value.shape
    if shape is None or len(shape) != 4 or value.dtype is None or not value.dtype.is_floating_point():
        return False
    return shape[1] != 1 and not (shape[2] == 1 and shape[3] == 1)
