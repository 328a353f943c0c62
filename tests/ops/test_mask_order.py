"""What is said of the order of masks holds for masks themselves, and is said where blocks of networks need it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks.small_graphs import parse

import masktool
from masktool.ops.mask_order import MaskOrder
from masktool.ops.sliding import Window

SIDE = 9
WINDOWS = [
    Window((kernel, kernel), (stride, stride), (begin, begin, end, end), (dilation, dilation), 0)
    for kernel, stride, begin, end, dilation in itertools.product((1, 2, 3), (1, 2), (0, 1, 2), (0, 1, 2), (1, 2))
    if max(begin, end) <= dilation * (kernel - 1)
]
NARROW = [
    Window((kernel, kernel), (stride, stride), (begin, begin, end, end), (dilation, dilation), 0)
    for kernel, stride, begin, end, dilation in itertools.product((1, 2), (2, 3, 4), (0, 1), (0, 1), (1, 2))
    if max(begin, end) <= dilation * (kernel - 1) < stride - 1
]
CELLS = [window.cell for window in NARROW]
SAME = Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 0)
HALVED = Window((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 0)
POINTS = Window((1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 0)
STAGE = """<ir_version: 10, opset_import: ["" : 18]> net (float[N, 16, 12, 12] x) => (float[N, 16] y)
    <float[16, 16, 3, 3] w> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Add (a, x) c = Relu (b)
    d = Conv <pads = [1, 1, 1, 1]> (c, w) e = Add (d, c) f = Relu (e)
    g = Conv <pads = [1, 1, 1, 1]> (f, w) h = Add (g, f) p = GlobalAveragePool (h) y = Flatten (p) }"""


def pool(mask: np.ndarray, window: Window) -> np.ndarray:
    """Returns the maxima of a square mask over windows, written out."""
    begin, end = window.pads[0], window.pads[2]
    stride, reach = window.strides[0], window.dilations[0] * (window.kernel[0] - 1)
    padded = np.pad(mask, (begin, end), constant_values=-np.inf)
    starts = range(0, len(padded) - reach, stride)
    taps = np.arange(window.kernel[0]) * window.dilations[0]
    return np.array([[padded[np.ix_(i + taps, j + taps)].max() for j in starts] for i in starts])


def test_a_mask_said_to_be_within_another_is() -> None:
    mask, windows = np.random.default_rng(0).random((SIDE, SIDE)), dict.fromkeys([*WINDOWS, *NARROW, *CELLS])
    pooled = {window: pool(mask, window) for window in windows}
    for small, large in itertools.product(windows, repeat=2):
        order, (source, one, other) = MaskOrder(), (ir.Value(name=name) for name in ("source", "one", "other"))
        order.note_pool(one, source, small)
        order.note_pool(other, source, large)
        for lesser, value in ((source, mask), (one, pooled[small])):
            if order.is_within(lesser, other):
                assert value.shape == pooled[large].shape
                assert (value <= pooled[large]).all()


@pytest.mark.parametrize("side", [SIDE, SIDE + 1, SIDE + 2, SIDE + 3])
def test_a_cell_holds_what_the_window_sees_for_as_many_outputs(side: int) -> None:
    mask = np.random.default_rng(1).random((side, side))
    for window in [*WINDOWS, *NARROW]:
        seen, kept = pool(mask, window), pool(mask, window.cell)
        assert seen.shape == kept.shape
        assert (seen <= kept).all()
        assert window.cell.cell == window.cell
    assert all(window.cell != window for window in NARROW)


def test_what_residual_blocks_and_concatenations_need_is_known() -> None:
    order = MaskOrder()
    source, same, halved, points, cells, union, both = (ir.Value(name=str(number)) for number in range(7))
    order.note_pool(same, source, SAME)
    order.note_pool(halved, source, HALVED)
    order.note_pool(points, source, POINTS)
    order.note_pool(cells, source, POINTS.cell)
    order.note_union(union, (same, halved))
    order.note_intersection(both, (source, halved))
    assert order.smallest_of([same, source]) == [source]
    assert order.largest_of([source, same]) == [same]
    assert order.smallest_of([halved, points]) == [points]
    assert order.smallest_of([halved, cells]) == [cells]
    assert order.smallest_of([cells, points]) == [points]
    assert order.smallest_of([source, union]) == [source]
    assert order.smallest_of([both, same]) == [both]
    assert order.smallest_of([same, halved]) == [same, halved]
    assert not order.is_within(same, source)


def test_the_blocks_of_a_stage_share_what_the_fill_takes_from_their_mask(tmp_path: Path) -> None:
    masktool.export(parse(STAGE), tmp_path / "masked.onnx", output_kind="logits")
    nodes = onnx.load(tmp_path / "masked.onnx").graph.node
    assert [node.op_type for node in nodes].count("NeighborFill") == 3 * 2
    assert [node.op_type for node in nodes].count("FillWeight") == 2
