"""Sensitivity-n: exactly 1 for a linear model and its own attributions; scipy's correlations; where undefined."""

import numpy as np
import pytest

from evaluation.trials import Counting, black_fill, linear, make_trial
from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.correlation import correlate
from masktool.evaluation.metrics.faithfulness.sensitivity_n import SensitivityN, draw_subsets, grid_labels

EXACT = 1e-6
"""Drops are differences of float64 scores whose images were float32."""


def test_gradient_times_input_is_perfect_on_a_linear_model():
    random = np.random.default_rng(0)
    image, weights = random.random((1, 1, 32, 32)).astype(np.float32), random.standard_normal((32, 32)) / 1024
    attributions = weights * image[0, 0]
    trial = make_trial({"own": attributions, "negative": -3 * attributions + 0}, linear(weights), image=image)
    found = SensitivityN().measure(trial)
    assert found["own"].curves["sensitivity-n"] == pytest.approx([1] * 6, abs=EXACT)
    assert found["own"].figures["sensitivity-n"] == pytest.approx(1, abs=EXACT)
    assert found["negative"].figures["sensitivity-n"] == pytest.approx(-1, abs=EXACT)


def test_an_unrelated_map_correlates_with_nothing():
    random = np.random.default_rng(1)
    weights, other = random.standard_normal((2, 32, 32))
    trial = make_trial({"other": other}, linear(weights / 1024), size=(32, 32))
    found = SensitivityN(n_subsets=200).measure(trial)["other"].figures["sensitivity-n"]
    # the 256 cells of both correlate by chance (1 / 16), and so do 200 subsets (1 / 14 each)
    assert abs(found) < 0.2


def test_the_correlation_is_scipys_over_the_very_subsets():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(2)
    weights, attributions = random.random((2, 8, 8))
    seen = []

    def answer(images, masks):
        if masks is not None:
            seen.append(masks[:, 0])
        kept = np.ones((1, 8, 8)) if masks is None else masks[:, 0]
        values = (kept * weights).sum(axis=(1, 2)) ** 2 / 4096
        return np.stack([values, 1 - values], axis=1)

    trial = make_trial({"map": attributions}, answer, batch=7)
    metric = SensitivityN(shares=(0.25, 0.5), n_subsets=20, cells=4)
    curve = metric.measure(trial)["map"].curves["sensitivity-n"]
    removed = (1 - np.concatenate(seen)).reshape(2, 20, 8, 8)
    for each, found, n_cells in zip(removed, curve, (4, 8), strict=True):
        assert (each.sum(axis=(1, 2)) == n_cells * 4).all()  # cells of 2 x 2 pixels
        drops = [trial.full - (((1 - one) * weights).sum() ** 2 / 4096) for one in each]
        expected = stats.pearsonr([(one * attributions).sum() for one in each], drops).statistic
        assert found == pytest.approx(expected, abs=EXACT)


def test_maps_share_their_passes():
    random = np.random.default_rng(3)
    counting = Counting(linear(random.random((16, 16)) / 256))
    maps = {str(number): random.random((16, 16)) for number in range(5)}
    SensitivityN(shares=(0.5,), n_subsets=30).measure(make_trial(maps, counting, batch=8))
    assert counting.images == 30 + 1
    assert counting.largest == 8


def test_undefined_correlations_are_none():
    weights = np.random.default_rng(4).random((16, 16)) / 256
    maps = {"ones": np.full((16, 16), 0.1), "zeros": np.zeros((16, 16)), "own": weights}
    found = SensitivityN(cells=4).measure(make_trial(maps, linear(weights)))
    assert found["ones"].curves["sensitivity-n"] == found["zeros"].curves["sensitivity-n"] == [None] * 6
    assert found["ones"].figures["sensitivity-n"] is None
    assert found["own"].figures["sensitivity-n"] == pytest.approx(1, abs=EXACT)
    noise = np.random.default_rng(5)
    indifferent = black_fill(lambda images: 0.5 + 1e-8 * noise.random(len(images)))
    assert SensitivityN().measure(make_trial(maps, indifferent))["own"].figures["sensitivity-n"] is None


def test_figures_do_not_depend_on_the_batch():
    random = np.random.default_rng(6)
    weights, maps = random.random((16, 16)) / 256, {"map": random.random((16, 16))}
    one, many = (SensitivityN().measure(make_trial(maps, linear(weights), batch=batch)) for batch in (1, 50))
    assert one["map"].curves["sensitivity-n"] == pytest.approx(many["map"].curves["sensitivity-n"], abs=EXACT)


def test_the_correlation_of_four_points():
    # deviations (-1.5, -.5, .5, 1.5) and (-1, 0, -1, 2): products sum to 4, squares to 5 and 6
    assert correlate(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 1, 4])) == pytest.approx(4 / 30**0.5)
    assert correlate(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])) is None
    assert correlate(np.array([1.0]), np.array([2.0])) is None


def test_cells_cover_the_image_without_gaps():
    labels = grid_labels((5, 7), 3)
    assert sorted(set(labels.ravel().tolist())) == list(range(9))
    assert grid_labels((2, 3), 16).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_subsets_have_n_features_each_as_likely_as_any():
    subsets = draw_subsets(np.random.default_rng(7), 4000, 10, 3)
    assert (subsets.sum(axis=1) == 3).all()
    assert subsets.mean(axis=0) == pytest.approx(0.3, abs=0.04)  # a standard error of .007


@pytest.mark.parametrize("options", [{"shares": (0.5, 1)}, {"shares": "half"}, {"n_subsets": 2}, {"cells": 1}])
def test_bad_options_are_refused(options):
    with pytest.raises(MasktoolError, match=next(iter(options))):
        SensitivityN(**options)
