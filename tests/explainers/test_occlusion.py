"""Occlusion: the drop is exact on a linear model, and every pixel is covered."""

import numpy as np
import pytest

from explainers.models import SIZE, bright_photograph
from masktool import MasktoolError, explain
from masktool.explainers.methods.occlusion import Occlusion, window_corners, window_masks, window_starts


def test_drop_is_the_hidden_share_of_the_region(session):
    found = explain(session, bright_photograph(), "occlusion", target=0, sliding_window_shapes=(4, 4), strides=4)
    expected = np.zeros(SIZE)
    expected[:8, :12] = 16 / (8 * 12)  # a window within the region hides 16 of its 96 pixels
    np.testing.assert_allclose(found.model_attributions, expected, atol=1e-6)
    assert found.forward_passes == 1 + 4 * 6


def test_overlapping_windows_are_averaged(session):
    found = explain(session, bright_photograph(), "occlusion", target=0, sliding_window_shapes=4, strides=2)
    drops, counts = np.zeros(SIZE), np.zeros(SIZE)
    for top in range(0, 13, 2):
        for left in range(0, 21, 2):
            inside = max(0, min(top + 4, 8) - top) * max(0, min(left + 4, 12) - left)
            drops[top : top + 4, left : left + 4] += inside / 96
            counts[top : top + 4, left : left + 4] += 1
    np.testing.assert_allclose(found.model_attributions, drops / counts, atol=1e-6)


@pytest.mark.parametrize(("length", "window", "stride"), [(10, 3, 2), (10, 3, 3), (7, 7, 1), (1, 1, 1), (11, 4, 4)])
def test_windows_cover_everything_and_end_flush(length, window, stride):
    starts = window_starts(length, window, stride)
    covered = np.zeros(length)
    for start in starts:
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert starts[-1] + window == length
    assert len(set(starts)) == len(starts)


def test_masks_are_zero_inside_the_window_alone():
    (mask,) = window_masks((5, 6), (2, 3), [(1, 2)])
    assert mask.dtype == np.float32
    assert (mask[0, 1:3, 2:5] == 0).all()
    assert mask.sum() == 30 - 6


def test_default_window_scales_with_the_input():
    assert Occlusion().resolve((224, 224)) == ((32, 32), (16, 16))
    assert Occlusion().resolve((64, 96)) == ((9, 14), (4, 7))
    assert Occlusion().resolve((2, 1)) == ((1, 1), (1, 1))
    assert len(window_corners((224, 224), (32, 32), (16, 16))) == 13 * 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sliding_window_shapes": 17}, r"sliding_window_shapes.*at most 16 x 24, the model's input, got 17 x 17"),
        ({"sliding_window_shapes": 2, "strides": 3}, r"strides.*at most 2 x 2, the window, got 3 x 3"),
        ({"sliding_window_shapes": 0}, "sliding_window_shapes.*from 1, got 0"),
        ({"strides": (1, 2, 3)}, "strides.*one number or two"),
        ({"strides": "4"}, "strides.*whole number"),
    ],
)
def test_bad_options_are_named(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), "occlusion", **options)
