"""Constants that are stored small and expanded where they are used: bits packed into bytes, integers in few bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from masktool.embedding.flow import FLOAT, INT64, UINT8, Flow

BITS_PER_BYTE = 8
WIDTHS = (ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.INT32)
"""Types that integers are stored in, the narrowest first."""


def store_bits(flow: Flow, bits: NDArray[np.bool_]) -> ir.Value:
    """Returns a constant that holds bits of any shape, eight in a byte; :func:`emit_bits` reads it."""
    return flow.constant(np.packbits(bits.reshape(-1)), UINT8)


def emit_bits(flow: Flow, stored: ir.Value, positions: ir.Value) -> ir.Value:
    """Emits stored bits as 0 and 1 in float32.

    Args:
        flow: the graph to emit into.
        stored: what :func:`store_bits` returned.
        positions: the positions of the bits, counted through all axes: (...) int64. One beyond the last byte ends the
            run with an error.
    """
    length = flow.integer(BITS_PER_BYTE)
    places = flow.constant(1 << np.arange(BITS_PER_BYTE)[::-1], INT64)  # the first bit of a byte is its highest
    held = flow.as_type(flow.emit("Gather", stored, flow.emit("Div", positions, length)), INT64)
    shifted = flow.emit("Div", held, flow.emit("Gather", places, flow.emit("Mod", positions, length)))
    return flow.as_type(flow.emit("Mod", shifted, flow.integer(2)), FLOAT)


def store_integers(flow: Flow, values: NDArray[np.integer[Any]]) -> ir.Value:
    """Returns a constant that holds integers from 0 in the narrowest type that does."""
    largest = int(values.max())
    return flow.constant(values, next(width for width in WIDTHS if largest <= np.iinfo(width.numpy()).max))
