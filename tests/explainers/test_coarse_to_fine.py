"""Coarse-to-fine occlusion: occlusion itself where every window is hidden, and near it for fewer passes."""

import numpy as np
import pytest

from explainers.models import SIZE, bright_photograph, noise_photograph
from masktool import MasktoolError, explain, explain_targets
from masktool.explainers.methods.coarse_to_fine import CoarseToFine, means_inside, most_worth, ratio_of_drops
from masktool.explainers.methods.occlusion import window_corners

SMALL = {"sliding_window_shapes": 2, "strides": 1}


@pytest.mark.parametrize("most_masks", [None, 10_000])
def test_its_limit_is_occlusion(session, most_masks):
    plain = explain(session, noise_photograph(), "occlusion", target=0, **SMALL)
    found = explain(session, noise_photograph(), "coarse-to-fine", target=0, most_masks=most_masks, **SMALL)
    assert np.array_equal(found.attributions, plain.attributions)
    assert found.quality == {"windows_hidden": 1}
    assert not found.notes


def test_passes_are_bounded_and_spent_where_big_windows_matter(session):
    found = explain(session, bright_photograph(), "coarse-to-fine", target=0, most_masks=150, enlargement=4, **SMALL)
    plain = explain(session, bright_photograph(), "occlusion", target=0, **SMALL)
    assert found.forward_passes == 151 < plain.forward_passes
    assert any("were not hidden" in note for note in found.notes)
    inside = np.s_[: SIZE[0] // 2, : SIZE[1] // 2]  # all that the class reads
    np.testing.assert_allclose(found.model_attributions[inside], plain.model_attributions[inside], atol=1e-6)
    assert np.abs(found.model_attributions - plain.model_attributions).max() < 0.25 * plain.model_attributions.max()


def test_the_default_is_within_250_passes_with_windows_of_a_fifth(session):
    found = explain(session, noise_photograph((224, 224)), "coarse-to-fine")
    assert found.forward_passes <= 250
    assert found.settings["sliding_window_shapes"] == [3, 5]  # of 16 x 24 pixels
    assert CoarseToFine().resolve((224, 224)) == ((45, 45), (9, 9))  # 441 of them, of which 232 have room


def test_a_window_of_ones_own_steps_by_half_of_itself():
    assert CoarseToFine(sliding_window_shapes=16).resolve((224, 224)) == ((16, 16), (8, 8))
    assert CoarseToFine(strides=20).resolve((224, 224)) == ((45, 45), (20, 20))


def test_estimates_are_scaled_by_least_squares_over_what_was_hidden_for_the_target():
    random = np.random.default_rng(0)
    found, estimates, chosen = random.random((9, 3)), random.random((9, 3)), random.random((9, 3)) < 0.6
    expected = [
        np.linalg.lstsq(estimates[rows, target][:, None], found[rows, target])[0].item()
        for target, rows in enumerate(chosen.T)
    ]
    np.testing.assert_allclose(ratio_of_drops(found, estimates, chosen), expected)


def test_drops_are_not_turned_into_rises_and_nothing_is_divided_by_nothing():
    ones, nothing = np.ones((2, 1)), np.zeros((2, 1))
    assert ratio_of_drops(-ones, ones, ones > 0) == [0]
    assert ratio_of_drops(ones, nothing, ones > 0) == [1]


def test_each_target_has_its_own_windows_and_its_own_answer(session):
    options = {"most_masks": 120, **SMALL}
    together = explain_targets(session, noise_photograph(), [0, 1], "coarse-to-fine", **options)
    for each in together:
        alone = explain(session, noise_photograph(), "coarse-to-fine", target=each.target, **options)
        np.testing.assert_allclose(alone.attributions, each.attributions, atol=1e-7)


def test_means_inside_windows_are_numpys():
    maps = np.random.default_rng(0).random((2, 9, 7))
    corners = window_corners((9, 7), (3, 2), (2, 2))
    expected = [[each[top : top + 3, left : left + 2].mean() for each in maps] for top, left in corners]
    np.testing.assert_allclose(means_inside(corners, (3, 2), maps), expected)


def test_of_equal_windows_the_first_are_taken():
    assert most_worth(np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]]), 2).tolist() == [
        [True, True],
        [True, True],
        [False, False],
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enlargement": 1}, "enlargement.*from 2, got 1"),
        ({"most_masks": 0}, "most_masks.*from 1, got 0"),
        ({"most_masks": 5, **SMALL}, "most_masks.*at least .* the big windows, got 5"),
        ({"sliding_window_shapes": 100}, "sliding_window_shapes.*at most 16 x 24"),
    ],
)
def test_bad_options_are_named(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), "coarse-to-fine", **options)
