"""Coarse-to-fine occlusion: occlusion itself where every window is hidden, and near it for fewer passes."""

import numpy as np
import pytest

from explainers.models import SIZE, bright_photograph, noise_photograph
from masktool import MasktoolError, explain, explain_targets
from masktool.explainers.methods.coarse_to_fine import CoarseToFine, means_inside, most_worth
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
    found = explain(session, bright_photograph(), "coarse-to-fine", target=0, most_masks=150, **SMALL)
    plain = explain(session, bright_photograph(), "occlusion", target=0, **SMALL)
    assert found.forward_passes == 151 < plain.forward_passes
    assert any("were not hidden" in note for note in found.notes)
    inside = np.s_[: SIZE[0] // 2, : SIZE[1] // 2]  # all that the class reads
    np.testing.assert_allclose(found.model_attributions[inside], plain.model_attributions[inside], atol=1e-6)
    assert np.abs(found.model_attributions - plain.model_attributions).max() < 0.2 * plain.model_attributions.max()


def test_the_default_is_within_250_passes_and_finer_than_occlusions(session):
    found = explain(session, noise_photograph((224, 224)), "coarse-to-fine")
    assert found.forward_passes <= 250
    assert CoarseToFine().resolve((224, 224)) == ((16, 16), (8, 8))


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
