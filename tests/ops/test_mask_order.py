"""What is said of the order of masks holds for masks themselves, and is said where blocks of networks need it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
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
    mask = np.random.default_rng(0).random((SIDE, SIDE))
    pooled = {window: pool(mask, window) for window in WINDOWS}
    for small, large in itertools.product(WINDOWS, repeat=2):
        order, (source, one, other) = MaskOrder(), (ir.Value(name=name) for name in ("source", "one", "other"))
        order.note_pool(one, source, small)
        order.note_pool(other, source, large)
        for lesser, value in ((source, mask), (one, pooled[small])):
            if order.is_within(lesser, other):
                assert value.shape == pooled[large].shape
                assert (value <= pooled[large]).all()


def test_what_residual_blocks_and_concatenations_need_is_known() -> None:
    order = MaskOrder()
    source, same, halved, points, union, both = (ir.Value(name=str(number)) for number in range(6))
    order.note_pool(same, source, SAME)
    order.note_pool(halved, source, HALVED)
    order.note_pool(points, source, POINTS)
    order.note_union(union, (same, halved))
    order.note_intersection(both, (source, halved))
    assert order.smallest_of([same, source]) == [source]
    assert order.largest_of([source, same]) == [same]
    assert order.smallest_of([halved, points]) == [points]
    assert order.smallest_of([source, union]) == [source]
    assert order.smallest_of([both, same]) == [both]
    assert order.smallest_of([same, halved]) == [same, halved]
    assert not order.is_within(same, source)


def test_the_blocks_of_a_stage_share_what_the_fill_takes_from_their_mask(tmp_path: Path) -> None:
    masktool.export(parse(STAGE), tmp_path / "masked.onnx", output_kind="logits")
    nodes = onnx.load(tmp_path / "masked.onnx").graph.node
    assert [node.op_type for node in nodes].count("NeighborFill") == 3 * 2
    assert [node.op_type for node in nodes].count("FillWeight") == 2
