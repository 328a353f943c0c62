"""Einsum: a product of values, summed over the labels that the result lacks.

As for matrix products: what is missing along a summed label is 0, ``y = Σ (A · m_A) (B · m_B)``; along the other labels
the smaller mask wins.

Source: Balasubramanian and Feizi, 2023, https://arxiv.org/abs/2211.14646 (fully connected layers).
"""

from __future__ import annotations

import onnx_ir as ir

from masktool.ops.builder import input_at, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.gradients import GradientGraph, Gradients, first_gradient, gradient_rule
from masktool.ops.graph import Masked, MaskedGraph, mask_rule
from masktool.ops.joins import smallest
from masktool.ops.samples import Sample, add_samples


@mask_rule("Einsum")
def mask_einsum(graph: MaskedGraph, node: ir.Node) -> None:
    """Sums over kept places only, and joins the masks of what is left."""
    operands, result = labels_of(node)
    states = []
    for index, labels in enumerate(operands):
        state = state_of_operand(graph, node, index, labels, result)
        if state is not None:
            states.append(state)
    graph.set_state(node.outputs[0], smallest(graph, states) if states else None)


def state_of_operand(graph: MaskedGraph, node: ir.Node, index: int, labels: str, result: str) -> Masked | None:
    """Returns the mask state that the result inherits from one operand; None when no mask is left of it."""
    value = input_at(node, index)
    state = graph.state(value)
    if state is None:
        return None
    if labels[state.batch] not in result:
        raise RuleError("it sums over the batch")
    summed = [axis for axis in state.axes if labels[axis] not in result]
    mask = state.mask
    if summed:
        node.replace_input_with(index, graph.zeroed(value))
        mask = graph.emit("ReduceMax", mask, graph.constant(summed, ir.DataType.INT64))
    left = tuple(axis for axis in state.axes if axis not in summed)
    if not left:
        return None
    targets = {axis: result.index(labels[axis]) for axis in (state.batch, *left)}
    mask = graph.moved_mask(mask, targets, rank_of(value), len(result))
    return state.recut(mask, summed, axes=left, zeroed=False).moved(targets.__getitem__)


@gradient_rule("Einsum")
def vjp_einsum(graph: GradientGraph, node: ir.Node, gradients: Gradients) -> Gradients:
    """Puts the gradient in the place of the operand, and swaps its labels with those of the result.

    Labels that no other operand nor the result has were summed away: there the gradient is repeated.
    """
    labels, result = labels_of(node)
    found: list[ir.Value | None] = []
    for index, own in enumerate(labels):
        value = input_at(node, index)
        if not graph.needs(value):
            found.append(None)
            continue
        terms = [first_gradient(gradients) if other == index else input_at(node, other) for other in range(len(labels))]
        term_labels = [result if other == index else labels[other] for other in range(len(labels))]
        known = [label for label in own if any(label in of_term for of_term in term_labels)]
        part = graph.emit("Einsum", *terms, equation=f"{','.join(term_labels)}->{''.join(known)}")
        missing = [axis for axis, label in enumerate(own) if label not in known]
        if missing:
            sizes = [size if axis in missing else 1 for axis, size in enumerate(sizes_of(value))]
            if None in sizes:
                raise RuleError(f"it sums {value.name!r} along an axis whose length is not fixed")
            part = graph.emit("Unsqueeze", part, graph.ints(*missing))
            part = graph.emit("Expand", part, graph.ints(*(size or 1 for size in sizes)))
        found.append(part)
    return found


def labels_of(node: ir.Node) -> tuple[list[str], str]:
    """Returns the labels of every operand, and those of the result.

    Raises:
        RuleError: the equation has no result or dots, or takes a diagonal.
    """
    equation = node.attributes["equation"].as_string().replace(" ", "")
    operands, arrow, result = equation.partition("->")
    if not arrow or "." in equation:
        raise RuleError(f"expected an equation with a result and without dots, got {equation!r}")
    labels = operands.split(",")
    if any(len(set(own)) < len(own) for own in labels):
        raise RuleError(f"it takes a diagonal: {equation!r}")
    return labels, result


add_samples(
    "Einsum",
    Sample(
        "scores and weighted mean of an attention, with places in another order",
        'q = Einsum <equation = "nchw,cd->nwhd"> (x, u) s = Einsum <equation = "nwhd,nwgd->nwhg"> (q, q) '
        'a = Softmax <axis = 3> (s) y = Einsum <equation = "nwhg,nwgd->nhwd"> (a, q)',
        {"u": (4, 5)},
    ),
    Sample("over the width", 'y = Einsum <equation = "nchw,wk->nchk"> (x, u)', {"u": (11, 5)}),
)
