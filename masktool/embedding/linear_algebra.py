"""Linear algebra that ONNX has no operator for."""

from __future__ import annotations

import onnx_ir as ir

from masktool.embedding.flow import FLOAT, INT64, Flow


def identity(flow: Flow, size: int) -> ir.Value:
    """Emits the identity matrix (size, size) float32."""
    places = flow.emit("Range", flow.integer(0), flow.integer(size), flow.integer(1))
    same = flow.emit("Equal", flow.reshape(places, -1, 1), flow.reshape(places, 1, -1))
    return flow.typed(flow.as_type(same, FLOAT), FLOAT, [size, size])


def invert_matrix(flow: Flow, matrix: ir.Value, size: int) -> ir.Value:
    """Emits the inverse of a symmetric positive definite matrix (size, size) float32.

    Gauss-Jordan elimination beside the identity matrix, a column in each round of a loop. Such a matrix needs no choice
    of pivots (Golub and Van Loan, "Matrix Computations", section 4.2).
    """
    both = flow.typed(flow.emit("Concat", matrix, identity(flow, size), axis=1), FLOAT, [size, 2 * size])

    def eliminate(inside: Flow, number: ir.Value, carried: list[ir.Value]) -> tuple[list[ir.Value], list[ir.Value]]:
        index = inside.typed(inside.reshape(number, 1), INT64, [1])
        row = inside.emit("Gather", carried[0], index, axis=0)
        column = inside.emit("Gather", carried[0], index, axis=1)
        scaled = inside.emit("Div", row, inside.emit("Gather", row, index, axis=1))
        places = inside.emit("Range", inside.integer(0), inside.integer(size), inside.integer(1))
        here = inside.as_type(inside.emit("Equal", inside.reshape(places, -1, 1), index), FLOAT)
        rest = inside.emit(
            "Mul", inside.emit("Sub", column, here), scaled
        )  # of the pivot's row, all but the scaled one
        return [inside.typed(inside.emit("Sub", carried[0], rest), FLOAT, [size, 2 * size])], []

    (result,) = flow.loop(size, [both], eliminate).carried
    inverse = flow.emit("Slice", result, flow.ints(size), flow.ints(2 * size), flow.ints(1))
    return flow.typed(inverse, FLOAT, [size, size])
