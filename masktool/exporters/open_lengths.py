"""One name for one open length: the batch keeps its name behind a Reshape or a broadcast, where inference renames it.

ONNX Runtime fuses a residual addition into a convolution only where it can see that both sides have the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

BROADCASTS = frozenset(
    {"Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where", "Concat", "MatMul", "Softmax"}
)
"""Operators whose output has, along an open axis, the length that all inputs agree on there."""


def name_open_lengths(graph: ir.Graph) -> None:
    """Renames open lengths that are shown to be the same, in place."""
    names: dict[str, str] = {}

    def resolve(name: str) -> str:
        while name in names:
            name = names[name]
        return name

    found = True
    while found:
        found = False
        for node in graph:
            for new, known in equal_lengths(node):
                new, known = resolve(new), resolve(known)
                if new != known:
                    names[new], found = known, True
        if found:
            rename_lengths(graph, {name: resolve(name) for name in names})


def equal_lengths(node: ir.Node) -> Iterator[tuple[str, str]]:
    """Yields pairs of names, one of an output's length and one of an input's, that must be equal."""
    output = node.outputs[0]
    if output.shape is None or node.domain not in ("", "ai.onnx"):
        return
    if node.op_type == "Reshape":
        value = node.inputs[0]
        if value is not None and value.shape is not None:
            (old, others), (new, rest) = single_open(value.shape), single_open(output.shape)
            if old is not None and new is not None and others == rest:
                yield new, old
    elif node.op_type == "Resize":
        yield from equal_lengths_of_resize(node, output.shape)
    elif node.op_type in BROADCASTS:
        for axis, length in enumerate(output.shape):
            name = None if isinstance(length, int) else length.value
            opposite = {known for value in node.inputs if (known := length_at(value, axis - len(output.shape))) != 1}
            if name is not None and len(opposite) == 1 and isinstance(known := opposite.pop(), str):
                yield name, known


def equal_lengths_of_resize(node: ir.Node, shape: ir.Shape) -> Iterator[tuple[str, str]]:
    """Yields pairs of names as :func:`equal_lengths` does, of the axes that a Resize scales by 1 or not at all."""
    scales = ir.convenience.get_const_tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if scales is None:
        return
    axes = node.attributes.get_ints("axes") or range(len(shape))
    scaled = {axis % len(shape) for axis, scale in zip(axes, scales.numpy().tolist(), strict=False) if scale != 1}
    for axis, length in enumerate(shape):
        known = length_at(node.inputs[0], axis - len(shape))
        if axis not in scaled and not isinstance(length, int) and length.value is not None and isinstance(known, str):
            yield length.value, known


def single_open(shape: ir.Shape) -> tuple[str | None, int]:
    """Returns the name of the only open length, None where there is none or several, and the product of the others."""
    names = [length.value for length in shape if not isinstance(length, int)]
    product = math.prod(length for length in shape if isinstance(length, int))
    return (names[0] if len(names) == 1 else None), product


def length_at(value: ir.Value | None, axis: int) -> int | str | None:
    """Returns the length of an axis counted from the end; 1 where the value has no such axis."""
    if value is None or value.shape is None:
        return None
    if -axis > len(value.shape):
        return 1
    length = value.shape[axis]
    return length if isinstance(length, int) else length.value


def rename_lengths(graph: ir.Graph, names: dict[str, str]) -> None:
    """Replaces names of open lengths everywhere."""
    for node in graph:
        for value in node.outputs:
            if value.shape is not None and any(not isinstance(length, int) for length in value.shape):
                lengths = [
                    length if isinstance(length, int) or length.value is None else names.get(length.value, length.value)
                    for length in value.shape
                ]
                value.shape = ir.Shape([None if isinstance(n, ir.SymbolicDim) else n for n in lengths])
