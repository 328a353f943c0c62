"""Products that sum: images meet only in axes that both factors keep, never in the axis that is summed."""

from __future__ import annotations

import onnx_ir as ir

from masktool.exporters.independence.elementwise import broadcast_rows, refuse_length
from masktool.exporters.independence.states import (
    BatchGraph,
    MixesError,
    Rows,
    States,
    UnprovedError,
    batch_rule,
    same,
    shared,
)
from masktool.exporters.node_inputs import input_of

SUMS = "sums over the batch"
PAIRS = "meets every image with every other"


@batch_rule("MatMul", "MatMulInteger")
def batch_matmul(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a matrix product with the images on the rows of the left, the columns of the right or an axis before."""
    if any(graph.rows(value) is not None for value in node.inputs[2:]):
        raise UnprovedError("its parameters depend on the images")
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None
    assert right is not None
    ranks = graph.rank(left), graph.rank(right)
    if min(ranks) < 1:
        raise UnprovedError("it multiplies scalars")
    refuse_sum(graph.rows(left), ranks[0] - 1)
    refuse_sum(graph.rows(right), max(ranks[1] - 2, 0))
    if 1 in ranks:
        return same(node, vector_product(graph, left, right, ranks))
    found = [rows for value in (left, right) if (rows := graph.rows(value)) is not None]
    own = [rows for value, rows in ((left, graph.rows(left)), (right, graph.rows(right))) if rows is not None]
    rank = max(ranks)
    in_matrix = [
        rows
        for value, rows in zip((left, right), map(graph.rows, (left, right)), strict=True)
        if rows is not None and rows.axis >= graph.rank(value) - 2
    ]
    if in_matrix:
        if len(found) > 1:
            raise MixesError(PAIRS)
        value = left if graph.rows(left) is not None else right
        return same(node, own[0].at(own[0].axis + rank - graph.rank(value)))
    return same(node, broadcast_rows(graph, [left, right], rank))


def refuse_sum(rows: Rows | None, axis: int) -> None:
    """Raises MixesError where the images lie on the axis that is summed."""
    if rows is not None and rows.axis == axis:
        raise MixesError(SUMS)


def vector_product(graph: BatchGraph, left: ir.Value, right: ir.Value, ranks: tuple[int, int]) -> Rows:
    """Returns where the images lie in a product with a vector, whose only axis is summed and dropped."""
    rows = graph.rows(left)
    if rows is not None:
        return rows
    rows = graph.rows(right)
    assert rows is not None
    return rows.at(rows.axis - (rows.axis == ranks[1] - 1))


@batch_rule("Gemm")
def batch_gemm(graph: BatchGraph, node: ir.Node) -> States:
    """Follows a Gemm with the images on the rows of the left factor or the columns of the right one.

    What is added has one row or column per image, or one for all.
    """
    found = []
    for index, (name, kept) in enumerate((("transA", 0), ("transB", 1))):
        rows = graph.rows(node.inputs[index])
        if rows is None:
            continue
        axis = 1 - rows.axis if node.attributes.get_int(name, 0) else rows.axis
        if axis != kept:
            raise MixesError(SUMS)
        found.append(rows.at(axis))
    added = input_of(node, 2)
    rows = graph.rows(added)
    if rows is not None:
        assert added is not None
        found.append(rows.at(rows.axis + 2 - graph.rank(added)))
    result = shared(found)
    if added is not None and rows is None:
        refuse_length(graph, added, result.axis - 2 + graph.rank(added))
    return same(node, result)


@batch_rule("Einsum")
def batch_einsum(graph: BatchGraph, node: ir.Node) -> States:
    """Follows an Einsum whose factors have the images under one letter, which the result keeps."""
    equation = (node.attributes.get_string("equation") or "").replace(" ", "")
    if "->" not in equation or "." in equation:
        raise UnprovedError(f"the equation {equation!r} is not followed")
    terms, result = equation.split("->")
    letters = set()
    for value, term in zip(node.inputs, terms.split(","), strict=True):
        rows = graph.rows(value)
        if rows is not None:
            letters.add((term[rows.axis], rows.outer, rows.inner))
    if len(letters) != 1:
        raise MixesError(PAIRS)
    letter, outer, inner = letters.pop()
    for value, term in zip(node.inputs, terms.split(","), strict=True):
        if graph.rows(value) is None and value is not None and letter in term:
            refuse_length(graph, value, term.index(letter))
    if letter not in result:
        raise MixesError(SUMS)
    if any(term.count(letter) > 1 for term in terms.split(",")):
        raise MixesError(PAIRS)
    return same(node, Rows(result.index(letter), outer, inner))
