"""What convolution and pooling share: their window, and the mask that it sees."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx_ir as ir

from masktool.ops.builder import dtype_of, input_at, rank_of, sizes_of
from masktool.ops.graph import Masked, MaskedGraph
from masktool.ops.registry import RuleError


@dataclasses.dataclass(frozen=True)
class Window:
    """A sliding window over height and width, in pixels of the operator's input."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    ceil_mode: int

    @property
    def reach(self) -> int:
        """How far apart, in pixels, two inputs of one window can lie."""
        return max(d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def reaches_over_pads(self) -> bool:
        """Whether no window lies in the padding alone."""
        ends = [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)] * 2
        return all(pad <= end for pad, end in zip(self.pads, ends, strict=True))

    @property
    def attributes(self) -> dict[str, Any]:
        """The window as ONNX attributes of a pooling operator; AveragePool knows no dilations before opset 19."""
        attributes = {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "pads": list(self.pads),
            "ceil_mode": self.ceil_mode,
        }
        return attributes | ({"dilations": list(self.dilations)} if self.dilations != (1, 1) else {})


def window_of(node: ir.Node, graph: MaskedGraph) -> tuple[Window, Masked]:
    """Reads the window of a convolution or pooling node and the state of its input.

    Raises:
        RuleError: the node does not slide over the two axes of the image, or pads more than its kernel covers.
    """
    state = image_state(graph, node)
    given = node.attributes
    if given.get_string("auto_pad", "NOTSET") != "NOTSET":
        raise RuleError("auto_pad needs a fixed height and width")
    height, width = given.get_ints("kernel_shape") or sizes_of(input_at(node, 1))[2:]
    if height is None or width is None:
        raise RuleError("the size of its kernel is unknown")
    window = Window(
        kernel=(height, width),
        strides=tuple(given.get_ints("strides") or (1, 1)),  # type: ignore[arg-type]
        pads=tuple(given.get_ints("pads") or (0, 0, 0, 0)),  # type: ignore[arg-type]
        dilations=tuple(given.get_ints("dilations") or (1, 1)),  # type: ignore[arg-type]
        ceil_mode=given.get_int("ceil_mode", 0),
    )
    for axis in (0, 1):
        if max(window.pads[axis], window.pads[axis + 2]) > window.dilations[axis] * (window.kernel[axis] - 1):
            raise RuleError(f"pads {window.pads} reach beyond the kernel {window.kernel}: windows without any input")
    return window, state


def image_state(graph: MaskedGraph, node: ir.Node) -> Masked:
    """Returns the state of a node's first input, (N, C, h, w), with a mask (M, 1, h, w).

    Raises:
        RuleError: the input has another layout.
    """
    value = input_at(node, 0)
    state = graph.state(value)
    if state is None or rank_of(value) != 4 or not state.is_image:
        raise RuleError("its input is no map of shape (N, C, h, w)")
    state = state.replace(mask=graph.full_along(value, (2, 3)), axes=(2, 3))
    graph.set_state(value, state)
    return state


def pool_mask(graph: MaskedGraph, mask: ir.Value, window: Window) -> ir.Value:
    """Emits the mask behind a window: kept where any of its inputs is (the largest value, for soft masks)."""
    trivial = window.kernel == (1, 1) and window.strides == (1, 1) and not any(window.pads)
    if trivial:
        return mask
    if any(pad >= kernel for pad, kernel in zip(window.pads, window.kernel * 2, strict=True)):
        # A dilated kernel may, but ONNX Runtime takes no pooling with pads as large as the kernel. It would also fuse a
        # Pad of zeros into exactly that; -1 loses against every mask as well.
        top, left, bottom, right = window.pads
        amounts = graph.constant([0, 0, top, left, 0, 0, bottom, right], ir.DataType.INT64)
        mask = graph.emit("Pad", mask, amounts, graph.constant(-1, dtype_of(mask)))
        window = dataclasses.replace(window, pads=(0, 0, 0, 0))
    return graph.emit("MaxPool", mask, **window.attributes)
