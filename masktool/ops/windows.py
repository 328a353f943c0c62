"""How rules read the sliding window of a convolution or pool, and the mask behind it."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import onnx_ir as ir

from masktool.layouts import IN_WORDS
from masktool.ops.builder import dtype_of, input_at, rank_of, sizes_of
from masktool.ops.errors import RuleError
from masktool.ops.graph import Masked, MaskedGraph
from masktool.ops.sliding import Window

MAP_RANK = 4
"""Rank of a map of an image."""


def window_of(node: ir.Node, graph: MaskedGraph) -> tuple[Window, Masked]:
    """Reads the window of a convolution or pooling node and the state of its input.

    Raises:
        RuleError: the node does not slide over the image's axes of places, or pads more than its kernel covers.
    """
    state = image_state(graph, node)
    given = node.attributes
    if given.get_string("auto_pad", "NOTSET") != "NOTSET":
        raise RuleError(f"auto_pad needs a fixed {IN_WORDS.get(rank_of(input_at(node, 0)) - 2, 'size')}")
    window = read_window(node)
    if not window.reaches_over_pads:
        raise RuleError(f"pads {window.pads} reach beyond the kernel {window.kernel}: windows without any input")
    return window, state


def read_window(node: ir.Node) -> Window:
    """Reads the window of a convolution, plain or transposed, or of a pooling node, with its pads written out."""
    given = node.attributes
    kernel = given.get_ints("kernel_shape") or sizes_of(input_at(node, 1))[2:]
    if None in kernel:
        raise RuleError("the size of its kernel is unknown")
    axes = len(kernel)
    window = Window(
        kernel=tuple(length for length in kernel if length is not None),
        strides=tuple(given.get_ints("strides") or [1] * axes),
        pads=tuple(given.get_ints("pads") or [0] * 2 * axes),
        dilations=tuple(given.get_ints("dilations") or [1] * axes),
        ceil_mode=given.get_int("ceil_mode", 0),
    )
    refuse_malformed(node, window)
    return window


def refuse_malformed(node: ir.Node, window: Window) -> None:
    """Raises RuleError for a window that contradicts itself or its weights."""
    axes = len(window.kernel)
    if (len(window.strides), len(window.dilations), len(window.pads)) != (axes, axes, 2 * axes):
        raise RuleError(
            f"it is malformed: kernel_shape {window.kernel}, but other attributes have other numbers of axes"
        )
    if min(*window.kernel, *window.strides, *window.dilations) < 1:
        raise RuleError("it is malformed: kernel_shape, strides or dilations below 1")
    if node.op_type in ("Conv", "ConvTranspose"):
        own = sizes_of(input_at(node, 1))[2:]
        if None not in own and own != window.kernel:
            raise RuleError(f"it is malformed: kernel_shape {list(window.kernel)}, but weights of {list(own)}")


def fixed_window(node: ir.Node) -> Window:
    """Reads the window of a node as :func:`read_window` does.

    Raises:
        RuleError: the node's pads are not written out.
    """
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        raise RuleError("its pads are not written out")
    return read_window(node)


def image_state(graph: MaskedGraph, node: ir.Node) -> Masked:
    """Returns the state of a node's first input, (N, C, ...) with its places behind, with a mask (M, 1, ...).

    Raises:
        RuleError: the input has another layout.
    """
    value = places_in_channels_zeroed(graph, node)
    state, rank = graph.state(value), rank_of(value)
    if state is None or rank < 3 or not state.is_image:
        refuse_layout(graph, node)
    assert state is not None
    places = tuple(range(2, rank))
    merged_places = (0,) if 0 in state.axes else ()
    state = state.replace(mask=graph.full_along(value, places), axes=merged_places + places)
    graph.set_state(value, state)
    return state.recut(state.mask, places)  # behind the node, what an axis was merged of is one thing


def places_in_channels_zeroed(graph: MaskedGraph, node: ir.Node) -> ir.Value:
    """Returns a node's first input, with the missing places that were merged into its channels set to 0.

    As behind SpaceToDepth, a place is then kept where any of the places in its channels is.
    """
    value = input_at(node, 0)
    state = graph.state(value)
    behind = tuple(range(1, rank_of(value)))
    if state is None or state.batch != 0 or set(state.axes) - {0} != set(behind) or set(state.merged) - {0, 1}:
        return value
    if rank_of(value) < MAP_RANK:  # places of tokens are channels of nothing
        return value
    zeroed = graph.zeroed(value)
    mask = graph.emit("ReduceMax", graph.full_along(value, behind), graph.constant([1], ir.DataType.INT64))
    axes = tuple(axis for axis in state.axes if axis != 1)
    graph.set_state(zeroed, state.recut(mask, behind, axes=axes, zeroed=True))
    node.replace_input_with(0, zeroed)
    return zeroed


def refuse_layout(graph: MaskedGraph, node: ir.Node) -> NoReturn:
    """Raises RuleError for an input that is no map, naming the node that merged places with channels, if one did."""
    value, named = input_at(node, 0), node
    while (producer := value.producer()) is not None:
        if not (producer.name or "").startswith(graph.prefix):
            named = producer
        before = [source for source in producer.inputs if source is not None and graph.state(source) is not None]
        if not before:
            break
        if has_own_axes(graph, value) < has_own_axes(graph, before[0]):
            needs = f"{node.op_type} {node.name!r} needs a map of shape (N, C, h, w)"
            raise RuleError(f"it spreads the places of the image over axes that hold other things too; {needs}", named)
        value = before[0]
    raise RuleError("its input is no map of shape (N, C, h, w)")


def has_own_axes(graph: MaskedGraph, value: ir.Value) -> bool:
    """Whether every axis of a value that holds places holds nothing but places."""
    state = graph.state(value)
    return state is not None and not set(state.merged) - {state.batch}


def kept_window(graph: MaskedGraph, window: Window) -> Window:
    """Returns the window that decides whether an output is kept: under the cell rule, no narrower than its stride."""
    return window.cell if graph.rule == "cell" else window


def pool_mask(graph: MaskedGraph, mask: ir.Value, window: Window) -> ir.Value:
    """Emits the mask behind a window: kept where any input of the window is (the largest value, for soft masks)."""
    if window.is_point and set(window.strides) == {1} and not any(window.pads):
        return mask
    source, slid = mask, window
    if any(pad >= kernel for pad, kernel in zip(window.pads, window.kernel * 2, strict=True)):
        # A dilated kernel may, but ONNX Runtime takes no pooling with pads as large as the kernel. It would also fuse a
        # Pad of zeros into exactly that; -1 loses against every mask as well.
        begins, ends = window.pads[: len(window.kernel)], window.pads[len(window.kernel) :]
        amounts = graph.constant([0, 0, *begins, 0, 0, *ends], ir.DataType.INT64)
        mask = graph.emit("Pad", mask, amounts, graph.constant(-1, dtype_of(mask)))
        window = dataclasses.replace(window, pads=(0,) * len(window.pads))
    pooled = graph.emit("MaxPool", mask, **window.attributes)
    graph.order.note_pool(pooled, source, slid)
    return pooled


def state_of_whole(graph: MaskedGraph, state: Masked) -> Masked | None:
    """Returns the state behind a pool over the whole image: None, unless its windows are merged into the batch."""
    if 0 not in state.axes:
        return None
    places = [axis for axis in state.axes if axis]
    mask = graph.emit("ReduceMax", state.mask, graph.constant(places, ir.DataType.INT64))
    return state.recut(mask, places, axes=(0,), zeroed=True)
