"""Models that make masks and sums beside a session's own: masks of 0 and 1 are the same as in memory, bit by bit."""

import numpy as np
import onnxruntime
import pytest

from masktool.embedding.device_graphs import DEVICE_GRAPHS
from masktool.explainers.mask_design import MasksInMemory
from masktool.explainers.methods.occlusion import MissingWindows, rows_of_corners, window_corners
from masktool.explainers.methods.rise import EnlargedGrids, Rise
from masktool.explainers.segment_method import KeptSegments

FLOAT32 = np.dtype(np.float32)
RANDOM = np.random.default_rng(3)


def run(model, **feeds):
    return onnxruntime.InferenceSession(model).run(None, feeds)


def grids(size, grid_size, count=40):
    ((kept, offsets),) = Rise(n_masks=count, grid_size=grid_size, p=0.4).grids(size, 5, [range(count)])
    top, left = offsets.T.astype(np.int32)
    return {"kept": kept.astype(np.float32), "top": top, "left": left}


def windows(size, window, strides):
    return MissingWindows(size, window), rows_of_corners(window_corners(size, window, strides))


def segments(size, count):
    labels = RANDOM.integers(0, count, size).astype(np.int32)
    return KeptSegments(labels), {"kept": RANDOM.integers(0, 2, (11, count)).astype(np.float32)}


CASES = {
    "windows of odd sides": windows((13, 10), (3, 5), (2, 2)),
    "windows of even sides": windows((12, 9), (4, 2), (3, 1)),
    "a window of all": windows((5, 4), (5, 4), (1, 1)),
    "segments": segments((9, 14), 7),
    "cut grids": (EnlargedGrids((45, 30), 7, cut=True), grids((45, 30), 7)),
    "cut grids of an even side": (EnlargedGrids((33, 32), 8, cut=True), grids((33, 32), 8)),
    "soft grids": (EnlargedGrids((33, 32), 7, cut=False), grids((33, 32), 7)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("design", "rows"), CASES.values(), ids=CASES)
def test_masks_are_those_in_memory(design, rows, dtype):
    model = DEVICE_GRAPHS.write_masks(design, rows, np.dtype(dtype))
    (found,) = run(model, **design.shared, **rows)
    expected = design.expand(rows).astype(dtype)
    assert found.dtype == dtype
    if isinstance(design, EnlargedGrids) and not design.cut:  # ONNX Runtime multiplies by 1/n instead of dividing by n
        np.testing.assert_allclose(found, expected, rtol=2 * np.finfo(dtype).eps)
    else:
        assert np.array_equal(found, expected)
    one = {name: value[:1] for name, value in rows.items()}  # any number of rows
    assert np.array_equal(run(model, **design.shared, **one)[0], found[:1])


@pytest.mark.parametrize("squares", [False, True])
def test_sums_are_those_in_memory(squares):
    masks = RANDOM.random((6, 1, 5, 4)).astype(np.float32)
    scores = RANDOM.random((2, 6)).astype(np.float32)
    weights = np.concatenate([np.ones((1, 6), np.float32), scores, np.square(scores)])
    found = run(DEVICE_GRAPHS.write_sums(FLOAT32, squares=squares), values=masks, weights=weights)
    expected = MasksInMemory(masks).add_up(scores, binary=not squares)
    np.testing.assert_allclose(found[0][0], expected.masks, rtol=1e-6)
    np.testing.assert_allclose(found[0][1:3], expected.scored, rtol=1e-6)
    if squares:
        np.testing.assert_allclose(found[1][0], expected.squares, rtol=1e-6)
        np.testing.assert_allclose(found[1][1:3], expected.scored_squares, rtol=1e-6)
        np.testing.assert_allclose(found[1][3:], expected.squared, rtol=1e-6)
    else:
        assert len(found) == 1


def test_a_mask_of_0_and_1_is_its_own_square():
    masks = RANDOM.integers(0, 2, (6, 1, 5, 4)).astype(np.float32)
    scores = RANDOM.random((2, 6)).astype(np.float32)
    for once, twice in zip(*(MasksInMemory(masks).add_up(scores, binary=each) for each in (True, False)), strict=True):
        assert np.array_equal(once, twice)


def test_steps_lie_on_the_straight_way():
    image, baseline = RANDOM.normal(size=(2, 1, 3, 4, 5)).astype(np.float32)
    places = np.array([0, 0.25, 1], np.float32)
    model = DEVICE_GRAPHS.write_steps(image, FLOAT32)
    (found,) = run(model, places=places, baseline=baseline, change=image - baseline)
    expected = baseline + places[:, None, None, None] * (image - baseline)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
