"""How operators that slide windows over a map do so within frames.

A convolution or pool gives a patch of all places whose windows reach the frame of what it reads. Outside the map the
windows read what they read there in the whole map: 0, or in a maximum, minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from masktool.embedding.incremental.frames import Frame, Sliding, Span, slide
from masktool.embedding.incremental.patches import CHANNELS_FIRST, Patch, replace_low, without_step
from masktool.embedding.incremental.rewriting import (
    MAP_RANK,
    WHOLE_SHARE,
    NotLocalError,
    Rewriting,
    area,
    lengths,
    map_size,
)
from masktool.embedding.incremental.rules import local_rule

POOLS_OUTSIDE = {"MaxPool": -math.inf, "AveragePool": 0.0}
"""What pools read outside the map."""


@local_rule("Pad")
def pad_patch(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Puts the number that pads a map around it."""
    value = node.inputs[0]
    patch = rewriting.patch_of(value)
    amounts = constant_at(node, 1)
    number = constant_at(node, 2)
    if value is None or amounts is None or node.attributes.get_string("mode", "constant") != "constant":
        raise NotLocalError
    rows, columns = (MAP_RANK + axis for axis in patch.axes)
    others = [amount for place, amount in enumerate(amounts.tolist()) if place % MAP_RANK not in (rows, columns)]
    if len(amounts) != 2 * MAP_RANK or len(node.inputs) > 3 or any(others):
        raise NotLocalError
    begins = (int(amounts[rows]), int(amounts[columns]))
    outside = 0.0 if number is None else float(number)
    return Patch(rewriting.extended(value, patch.frame, outside), replace_low(patch.frame, begins), patch.axes)


def constant_at(node: ir.Node, index: int) -> np.ndarray | None:
    """Returns an input of a node that is a constant; None where it is left out, NotLocalError where it is computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or value.is_graph_input():
        raise NotLocalError
    return tensor.numpy()


@local_rule("Conv")
def convolve_patch(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Convolves patches that hold what the windows read, without padding."""
    return compute_windows(rewriting, node, 0.0)


@local_rule("MaxPool", "AveragePool")
def pool_patch(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Pools patches that hold what the windows read, without padding."""
    padded, attributes = any(node.attributes.get_ints("pads", ())), node.attributes
    rounded_up = attributes.get_int("ceil_mode", 0)
    if node.op_type == "AveragePool" and (rounded_up or (padded and not attributes.get_int("count_include_pad", 0))):
        raise NotLocalError  # the mean of fewer places at the border
    return compute_windows(rewriting, node, POOLS_OUTSIDE[node.op_type], ceil_mode=None)


@local_rule("ConvTranspose")
def spread_patch(rewriting: Rewriting, node: ir.Node) -> Patch:
    """Adds up what places spread over their neighbours, at stride 1."""
    kernel, strides, dilations, pads = window_attributes(node)
    if set(strides) != {1} or any(node.attributes.get_ints("output_padding", ())) or "output_shape" in node.attributes:
        raise NotLocalError
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    slides = [Sliding(extent, 1, extent - 1 - begin) for extent, begin in zip(extents, pads[:2], strict=True)]
    margins = [extent - 1 for extent in extents]
    return slide_windows(rewriting, node, slides, 0.0, pads=margins * 2)


def window_attributes(node: ir.Node) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]:
    """Returns the kernel, strides, dilations and pads of an operator that slides a window over an image."""
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotLocalError
    if "kernel_shape" in node.attributes:
        kernel = node.attributes.get_ints("kernel_shape", ())
    else:
        weight = node.inputs[1]
        kernel = () if weight is None else lengths(weight)[2:]
    if len(kernel) != 2:
        raise NotLocalError
    ones = (1, 1)
    return (
        kernel, node.attributes.get_ints("strides", ones), node.attributes.get_ints("dilations", ones),
        node.attributes.get_ints("pads", (0, 0, 0, 0)),
    )  # fmt: skip


def compute_windows(rewriting: Rewriting, node: ir.Node, outside: float, **changed: Any) -> Patch:
    """Computes an operator that slides a window, on patches that hold what the windows read."""
    kernel, strides, dilations, pads = window_attributes(node)
    slides = [
        Sliding((k - 1) * d + 1, stride, begin)
        for k, stride, d, begin in zip(kernel, strides, dilations, pads[:2], strict=True)
    ]
    return slide_windows(rewriting, node, slides, outside, pads=[0, 0, 0, 0], auto_pad=None, **changed)


def slide_windows(
    rewriting: Rewriting, node: ir.Node, slides: Sequence[Sliding], outside: float, **changed: Any
) -> Patch:
    """Emits an operator that slides a window, on patches that hold what the windows read."""
    value = node.inputs[0]
    patch = rewriting.patch_of(value)
    if value is None or patch.axes != CHANNELS_FIRST or not without_step(patch.frame):
        raise NotLocalError
    if any(each in rewriting.states for each in node.inputs[1:]):
        raise NotLocalError
    given, read = frames_of(patch.frame, slides, rewriting.windows.alignment)
    if area(given) >= WHOLE_SHARE * math.prod(map_size(node.outputs[0], patch.axes)):
        raise NotLocalError
    looks_beyond = any(by.extent > 1 or by.pad for by in slides)
    source = rewriting.extended(value, read, outside if looks_beyond else None)
    inputs = [source, *(None if each is None else rewriting.base(each) for each in node.inputs[1:])]
    return Patch(rewriting.finish(node, inputs, given, **changed), given, patch.axes)


def frames_of(frame: Frame, slides: Sequence[Sliding], alignment: tuple[int, int]) -> tuple[Frame, Frame]:
    """Returns the frame that windows over a frame give, and the frame that they read for it."""
    pairs: list[tuple[Span, Span]] = [
        slide(span, by, along) for span, by, along in zip(frame, slides, alignment, strict=True)
    ]
    return (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])
