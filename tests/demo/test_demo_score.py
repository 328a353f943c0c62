"""Overlap of a map with a known object."""

import numpy as np
import pytest

from masktool.demo.score import expect_random_iou, measure_iou


@pytest.fixture
def object_mask():
    mask = np.zeros((20, 30), np.bool_)
    mask[5:11, 8:18] = True
    return mask


def test_the_object_itself_scores_one(object_mask):
    assert measure_iou(object_mask.astype(np.float32), object_mask) == 1


def test_anything_but_the_object_scores_zero(object_mask):
    assert measure_iou(-object_mask.astype(np.float32), object_mask) == 0


def test_half_an_overlap(object_mask):
    shifted = np.roll(object_mask, 5, axis=1)  # 30 of 60 pixels in common
    assert measure_iou(shifted.astype(np.float32), object_mask) == pytest.approx(30 / 90)


def test_pixels_that_were_not_seen_do_not_count(object_mask):
    attributions = object_mask.astype(np.float32)
    attributions[:, :10] = np.nan
    assert measure_iou(attributions, object_mask) == 1
    assert np.isnan(measure_iou(np.full_like(attributions, np.nan), object_mask))


def test_ties_at_the_cut_count_in_part(object_mask):
    attributions = np.zeros((20, 30))
    attributions[5:11, 8:28] = 1  # 120 pixels share the top value, 60 are the object's: expect to draw 30 of them
    assert measure_iou(attributions, object_mask) == pytest.approx(30 / 90)


def test_a_flat_map_scores_what_random_maps_do(object_mask):
    expected = expect_random_iou(object_mask.mean())
    rng = np.random.default_rng(0)
    drawn = [measure_iou(rng.random(object_mask.shape), object_mask) for _ in range(300)]
    assert measure_iou(np.zeros(object_mask.shape), object_mask) == pytest.approx(expected)
    assert np.mean(drawn) == pytest.approx(expected, abs=0.01)
