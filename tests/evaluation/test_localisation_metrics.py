"""The localisation metrics one by one: cases worked out by hand, other packages, slow programs."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from masktool.evaluation.bootstrap import resample
from masktool.evaluation.metrics.localisation.boxes import (
    CORNERS,
    SIDES,
    best_iou,
    box_of,
    component_boxes,
    largest_box,
)
from masktool.evaluation.metrics.localisation.energy import energy_inside
from masktool.evaluation.metrics.localisation.f1 import soft_f1
from masktool.evaluation.metrics.localisation.max_box_accuracy import (
    THRESHOLDS,
    V1_LEVELS,
    V2_LEVELS,
    max_box_accuracy,
    passed_levels,
)
from masktool.evaluation.metrics.localisation.pixel_average_precision import (
    N_BINS,
    average_precision,
    count_pixels,
    pixel_average_precision,
    unpack_counts,
)
from masktool.evaluation.metrics.localisation.pointing_game import point
from masktool.evaluation.metrics.localisation.tight_box import localisation_error, tight_box, tight_box_iou
from masktool.evaluation.metrics.scaling import min_max

NOTHING = np.zeros((3, 4), bool)
EXACT = 1e-12
"""Sums of the same few numbers in another order."""


def rectangle(size, x0, y0, x1, y1):
    pixels = np.zeros(size, bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def flood_fill(pixels, offsets):
    """Components as sets of (row, column), one pixel at a time."""
    left = {(int(row), int(column)) for row, column in np.argwhere(pixels)}
    found = []
    while left:
        front = [min(left)]
        left.remove(front[0])
        component = set(front)
        while front:
            row, column = front.pop()
            for down, right in offsets:
                neighbour = (row + down, column + right)
                if neighbour in left:
                    left.remove(neighbour)
                    component.add(neighbour)
                    front.append(neighbour)
        found.append(component)
    return found


def test_pointing_counts_the_share_of_a_shared_peak():
    inside = rectangle((3, 4), 1, 1, 3, 3)
    attributions = np.zeros((3, 4))
    attributions[1, 1] = 2
    assert point(attributions, inside) == 1
    attributions[0, 0] = 3
    assert point(attributions, inside) == 0
    attributions[1, 1] = attributions[2, 2] = 3
    assert point(attributions, inside) == pytest.approx(2 / 3)
    assert point(np.ones((3, 4)), inside) == pytest.approx(4 / 12)
    assert point(attributions, NOTHING) is None


def test_energy_of_signed_and_unsigned_maps():
    inside = rectangle((2, 3), 0, 0, 1, 2)
    attributions = np.array([[3.0, 1.0, -2.0], [-1.0, 0.0, 2.0]])
    assert energy_inside(attributions, inside, signed=True) == pytest.approx(3 / 6)
    assert energy_inside(attributions, inside, signed=False) == pytest.approx((5 + 1) / (5 + 3 + 0 + 1 + 2 + 4))
    assert energy_inside(np.ones((2, 3)), inside, signed=True) == pytest.approx(2 / 6)


def test_energy_without_a_positive_part_is_undefined():
    inside = rectangle((2, 3), 0, 0, 1, 2)
    assert energy_inside(-np.ones((2, 3)), inside, signed=True) is None
    assert energy_inside(np.ones((2, 3)), inside, signed=False) is None
    assert energy_inside(np.ones((3, 4)), NOTHING, signed=True) is None


def test_f1_by_hand_and_of_binary_masks_as_scikit_learn_has_it():
    box = rectangle((2, 3), 0, 0, 2, 2)
    attributions = np.array([[2.0, 1.0, -5.0], [0.0, 0.0, 1.0]])  # as a mask: 1, .5, 0 / 0, 0, .5
    assert soft_f1(attributions, box, signed=True) == pytest.approx(2 * 1.5 / (2 + 4))
    assert soft_f1(attributions, rectangle((2, 3), 0, 0, 0, 0), signed=True) is None
    assert soft_f1(np.zeros((2, 3)), box, signed=True) is None
    random = np.random.default_rng(0)
    for _ in range(10):
        mask, box = random.random((2, 7, 9)) < 0.4
        expected = f1_score(box.reshape(-1), mask.reshape(-1))
        assert soft_f1(mask.astype(float), box, signed=True) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize(
    ("neighbours", "offsets"),
    [
        (SIDES, [(0, 1), (1, 0), (0, -1), (-1, 0)]),
        (CORNERS, [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]),
    ],
)
def test_components_are_those_of_a_flood_fill(neighbours, offsets):
    random = np.random.default_rng(1)
    for share in (0.2, 0.4, 0.6):
        pixels = random.random((17, 23)) < share
        boxes, sizes = component_boxes(pixels, neighbours)
        expected = [
            (min(c for _, c in each), min(r for r, _ in each), max(c for _, c in each) + 1, max(r for r, _ in each) + 1)
            for each in flood_fill(pixels, offsets)
        ]
        assert sorted(map(tuple, boxes.tolist())) == sorted(expected)
        assert sorted(sizes) == sorted(len(each) for each in flood_fill(pixels, offsets))
        assert max(sizes) == sizes[(boxes == largest_box(boxes, sizes)).all(axis=1)].max()


def test_iou_by_hand():
    found = np.array([[0.0, 0.0, 2.0, 2.0], [10.0, 10.0, 14.0, 12.0]])
    assert best_iou(found[:1], [(1, 1, 3, 3)]) == pytest.approx(1 / 7)
    assert best_iou(found, [(1, 1, 3, 3), (10, 10, 12, 12)]) == pytest.approx(0.5)
    assert best_iou(found[:1], [(2, 0, 4, 2)]) == 0
    assert best_iou(found[:1], [(0, 0, 2, 2)]) == 1
    assert best_iou(found[:0], [(0, 0, 2, 2)]) == 0


def test_the_tight_box_includes_the_last_row_and_column_of_the_largest_component():
    attributions = np.zeros((6, 8))
    attributions[1:3, 2:5] = 1
    attributions[3, 5] = 5  # touches by a corner only, and is smaller
    np.testing.assert_array_equal(tight_box(attributions), [[2, 1, 5, 3]])
    attributions[3:, 5:] = 5
    np.testing.assert_array_equal(tight_box(attributions), [[5, 3, 8, 6]])
    np.testing.assert_array_equal(tight_box(np.full((6, 8), 0.1)), [[0, 0, 8, 6]])
    assert tight_box_iou(attributions, [(5, 3, 8, 6), (0, 0, 1, 1)]) == 1
    assert tight_box_iou(attributions, ()) is None


def test_localisation_error_asks_for_more_than_half_and_for_the_class():
    assert localisation_error(0.5) == 1
    assert localisation_error(0.51) == 0
    assert localisation_error(0.51, class_right=False) == 1


def test_box_of_pixels():
    assert box_of(rectangle((5, 6), 2, 1, 6, 4)) == (2, 1, 6, 4)
    assert box_of(np.zeros((5, 6), bool)) is None


def test_min_max():
    np.testing.assert_array_equal(min_max(np.array([[-1.0, 0.0, 3.0]])), [[0, 0.25, 1]])
    np.testing.assert_array_equal(min_max(np.full((2, 2), 7.0)), np.zeros((2, 2)))


def test_levels_passed_at_each_threshold_by_hand():
    """Of 8 x 10 pixels, a 4 x 4 plateau of .5 holds the 4 x 3 object; the largest value stands alone elsewhere."""
    attributions = np.zeros((8, 10))
    attributions[2:6, 2:6] = 0.5
    attributions[0, 9] = 1
    levels = passed_levels(attributions, [(2, 2, 6, 5)])
    at = dict(zip(THRESHOLDS, zip(levels["largest"], levels["any"], strict=True), strict=True))
    assert at[0.0] == ("0", "0")  # the whole image: 12 of 80
    assert at[0.01] == at[0.5] == ("3", "3")  # 12 of 16 is above .7
    assert at[0.51] == ("0", "0")
    small = passed_levels(attributions, [(9, 0, 10, 1)])
    assert (small["largest"][25], small["any"][25]) == ("0", "3")  # the smaller component is right
    assert passed_levels(attributions, ()) is None
    assert passed_levels(np.ones((8, 10)), [(0, 0, 10, 8)])["any"] == "3" + "0" * 99  # constant: only τ = 0 finds any


def levels_with(passed):
    return "".join(str(passed.get(index, 0)) for index in range(len(THRESHOLDS)))


def test_the_best_threshold_is_one_for_the_data_set_and_for_v2_one_per_level():
    images = [levels_with({10: 3, 40: 1}), levels_with({10: 1, 20: 2, 40: 1}), levels_with({20: 2, 30: 3})]
    assert max_box_accuracy(images, V1_LEVELS).value == pytest.approx(2 / 3)  # τ = .2: images 2 and 3
    # IoU .3 best at any of .1, .2, .4: 2 of 3; .5 at .2: 2 of 3; .7: 1 of 3
    assert max_box_accuracy(images, V2_LEVELS).value == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    assert max_box_accuracy([], V1_LEVELS).n == 0


def test_max_box_intervals_choose_the_threshold_again_in_every_resample():
    images = [levels_with({10: 2}), levels_with({20: 2})]
    interval = max_box_accuracy(images, V1_LEVELS, seed=3)
    assert interval.value == 0.5
    assert (interval.low, interval.high) == (0.5, 1)  # either both images, or one of them twice
    assert (resample(2, 3).max(axis=1) == 1).any()


def bounds_of_average_precision(counts):
    """Where AP must lie whatever the order within a bin: precision there is at least what all others of the bin first
    would leave, and at most what none of them would."""
    low = high = 0.0
    found_in = found_out = 0
    for here_in, here_out in zip(*counts[:, ::-1].astype(int), strict=True):
        if here_in:
            low += here_in * (found_in + 1) / (found_in + 1 + found_out + here_out)
            high += here_in * (found_in + here_in) / (found_in + here_in + found_out)
        found_in, found_out = found_in + here_in, found_out + here_out
    return low / found_in, high / found_in


def test_average_precision_is_that_of_scikit_learn_where_no_bin_mixes_values():
    random = np.random.default_rng(2)
    scores = random.integers(0, 40, (4, 12, 15)) / 40
    scores[:, 0, 0], scores[:, 0, 1] = 0, 1  # so that stretching changes nothing
    inside = random.random(scores.shape) < scores * 0.5
    packed = [count_pixels(*pair) for pair in zip(scores, inside, strict=True)]
    expected = average_precision_score(inside.reshape(-1), scores.reshape(-1))
    assert pixel_average_precision(packed).value == pytest.approx(expected, abs=EXACT)


def test_average_precision_differs_from_scikit_learn_by_no_more_than_the_bins_allow():
    random = np.random.default_rng(3)
    inside = rectangle((60, 80), 20, 10, 50, 40)
    maps = [np.where(inside, 0.4, 0) + random.standard_normal(inside.shape) ** power for power in (1, 2, 4)]
    packed = [count_pixels(each, inside) for each in maps]
    expected = average_precision_score(
        np.concatenate([inside.reshape(-1)] * 3), np.concatenate([min_max(each).reshape(-1) for each in maps])
    )
    found = pixel_average_precision(packed)
    low, high = bounds_of_average_precision(np.sum([unpack_counts(each) for each in packed], axis=0))
    assert low <= found.value <= high
    assert low <= expected <= high
    assert high - low < 0.05
    assert found.low <= found.value <= found.high


def test_counts_hold_every_pixel_once_and_a_constant_map_scores_the_share_of_the_object():
    inside = rectangle((5, 6), 0, 0, 3, 2)
    counts = unpack_counts(count_pixels(np.ones((5, 6)), inside))
    assert counts.shape == (2, N_BINS)
    assert counts.sum(axis=1).tolist() == [6, 24]
    assert average_precision(counts[None])[0] == pytest.approx(6 / 30)
    assert count_pixels(np.ones((3, 4)), NOTHING) is None
    assert pixel_average_precision([]).n == 0
