"""Rewrites pools with ``ceil_mode`` whose last window would lie behind the image without that window.

A window that begins behind the image and its padding at the front sees nothing, and no runtime computes it. Up to opset
21 the shape inference of ONNX counts it nevertheless, one place too many, and every shape behind it is wrong. Such a
pool gets ``ceil_mode = 0``; where another axis does hang over, axes lose the places at their end that no window sees.

Source: ONNX operator specification, MaxPool-22: "sliding windows that would start in the right padded region are
ignored".
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from masktool.exporters.rewrites.replacement import Replacement

POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})


@dataclasses.dataclass(frozen=True)
class PooledAxis:
    """One axis of a pool: the lengths in pixels of the axis, window, stride and padding, and the numbers of windows."""

    length: int
    extent: int
    stride: int
    begin: int
    end: int

    @property
    def left_over(self) -> int:
        """Length of the padded axis behind its first window."""
        return self.begin + self.length + self.end - self.extent

    @property
    def inferred(self) -> int:
        """Number of windows that begin within the padded axis, as ONNX's shape inference counts them."""
        return -(-self.left_over // self.stride) + 1

    @property
    def windows(self) -> int:
        """Number of windows that runtimes compute."""
        begins_behind = (self.inferred - 1) * self.stride >= self.length + self.begin
        return self.inferred - 1 if begins_behind else self.inferred

    @property
    def unseen(self) -> int:
        """Number of places at the padded axis's end that no window sees; below 0 where the last window hangs over."""
        return self.left_over - (self.windows - 1) * self.stride


def settle_ceil_mode(graph: ir.Graph) -> bool:
    """Rewrites the first pool whose length ONNX infers wrongly, in place, and forgets the shapes behind it.

    Returns:
        Whether there was such a pool: shapes have to be inferred again before the next.
    """
    for node in graph:
        rounds_up = node.op_type in POOLS and node.attributes.get_int("ceil_mode", 0) == 1
        axes = pooled_axes(node) if rounds_up else None
        if axes is not None and any(axis.inferred != axis.windows for axis in axes):
            forget_shapes_behind(node)
            if any(axis.unseen < 0 for axis in axes):
                cut_unseen(graph, node, axes)
            else:
                del node.attributes["ceil_mode"]
            return True
    return False


def pooled_axes(node: ir.Node) -> list[PooledAxis] | None:
    """Returns the axes of a pool; None where their lengths or the pool's pads are not written out."""
    value, kernel = node.inputs[0], node.attributes.get_ints("kernel_shape")
    if value is None or value.shape is None or not kernel or len(value.shape) != len(kernel) + 2:
        return None
    lengths = [length for length in value.shape[2:] if isinstance(length, int)]
    if len(lengths) < len(kernel) or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    strides = node.attributes.get_ints("strides") or [1] * len(kernel)
    dilations = node.attributes.get_ints("dilations") or [1] * len(kernel)
    pads = node.attributes.get_ints("pads") or [0] * 2 * len(kernel)
    if not (len(strides) == len(dilations) == len(kernel) and len(pads) == 2 * len(kernel) and min(strides) > 0):
        return None
    extents = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    begins, ends = pads[: len(kernel)], pads[len(kernel) :]
    return [PooledAxis(*axis) for axis in zip(lengths, extents, strides, begins, ends, strict=True)]


def cut_unseen(graph: ir.Graph, node: ir.Node, axes: list[PooledAxis]) -> None:
    """Cuts off the ends of a pool's axes that no window sees: padding first, then places."""
    unseen = [max(axis.unseen, 0) for axis in axes]
    ends = [max(axis.end - cut, 0) for axis, cut in zip(axes, unseen, strict=True)]
    node.attributes["pads"] = ir.AttrInt64s("pads", [*(axis.begin for axis in axes), *ends])
    lengths = [axis.length - max(cut - axis.end, 0) for axis, cut in zip(axes, unseen, strict=True)]
    if lengths != [axis.length for axis in axes]:
        new = Replacement(graph, node)
        operands = ([0] * len(axes), lengths, range(2, 2 + len(axes)))
        arrays = [new.constant(np.array(operand, np.int64)) for operand in operands]
        node.replace_input_with(0, new.emit("Slice", node.inputs[0], *arrays))


def forget_shapes_behind(node: ir.Node) -> None:
    """Forgets the shape of everything that is computed from a node's outputs."""
    left, seen = list(node.outputs), set(node.outputs)
    while left:
        value = left.pop()
        value.shape = None
        new = {output for user, _ in value.uses() for output in user.outputs} - seen
        seen |= new
        left += new
