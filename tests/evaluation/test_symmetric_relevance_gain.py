"""The symmetric relevance gain against scipy's integral of removals made one by one, and closed forms."""

import numpy as np
import pytest
import scipy.integrate

from evaluation.trials import Counting, black_fill, linear, make_trial
from masktool.evaluation.metrics.faithfulness.insertion_deletion import InsertionDeletion
from masktool.evaluation.metrics.faithfulness.symmetric_relevance_gain import RemovalCurve, symmetric_relevance_gain

ROUNDING = 1e-6
"""Masks and images are float32."""


def srg(maps, answer, n_steps, **values):
    found = InsertionDeletion(n_steps).measure(make_trial(maps, answer, **values))
    return {name: each.figures["srg"] for name, each in found.items()}


def remove_by_hand(answer, attributions, n_steps):
    """Both curves by their definition: pixels that are zeroed one step after the other in either order."""
    order = np.argsort(-attributions.reshape(-1), kind="stable")
    counts = [round(step / n_steps * order.size) for step in range(n_steps + 1)]
    areas = []
    for first in (order[::-1], order):
        scores = []
        for count in counts:
            mask = np.ones(order.size, np.float32)
            mask[first[:count]] = 0
            image = np.ones((1, 1, *attributions.shape), np.float32)
            scores.append(answer(image, mask.reshape(1, 1, *attributions.shape))[0, 0])
        areas.append(scipy.integrate.trapezoid(scores, np.array(counts) / order.size))
    return areas[0] - areas[1]


@pytest.mark.parametrize("n_steps", [2, 5, 8])
def test_it_is_the_area_between_removals_by_definition(n_steps):
    random = np.random.default_rng(0)
    weights, attributions = random.normal(size=(2, 5, 8))
    answer = black_fill(lambda images: 1 / (1 + np.exp(-(images * weights).sum(axis=(1, 2, 3)))))
    expected = remove_by_hand(answer, attributions, n_steps)
    assert srg({"map": attributions}, answer, n_steps)["map"] == pytest.approx(expected, abs=ROUNDING)


def test_it_is_insertion_minus_deletion_even_where_steps_are_uneven():
    random = np.random.default_rng(1)
    weights, attributions = random.random((2, 5, 5)) / 25
    figures = InsertionDeletion(2).measure(make_trial({"map": attributions}, linear(weights)))["map"].figures
    assert figures["srg"] == pytest.approx(figures["insertion"] - figures["deletion"], abs=1e-12)


def test_closed_form_of_one_pixel_that_decides():
    """The class is there as long as pixel 0 is; removed first the score falls over the first step, else the last."""
    answer = black_fill(lambda images: images[:, 0, 0, 0])
    attributions = np.arange(10.0, 0, -1)[None]
    found = srg({"right": attributions, "wrong": -attributions}, answer, 10)
    assert found["right"] == pytest.approx(0.95 - 0.05, abs=ROUNDING)
    assert found["wrong"] == pytest.approx(-0.9, abs=ROUNDING)


def test_closed_form_of_a_linear_score():
    """Weights w_i = 2 (n - i) / n (n + 1) in falling order: both curves are parabolas with known knots."""
    n = 16
    weights = (2 * (n - np.arange(n)) / (n * (n + 1)))[None]
    removed = np.arange(n + 1) / n
    most = 1 - np.concatenate([[0], np.cumsum(weights[0])])
    least = 1 - np.concatenate([[0], np.cumsum(weights[0][::-1])])
    expected = scipy.integrate.trapezoid(least - most, removed)
    assert expected == pytest.approx((n - 1) / (3 * n), abs=1e-9)
    assert srg({"own": weights}, linear(weights), n)["own"] == pytest.approx(expected, abs=ROUNDING)


def test_a_random_order_gains_nothing_on_average():
    weights = np.random.default_rng(2).random((6, 6)) / 18
    gains = [srg({"ones": np.ones((6, 6))}, linear(weights), 6, seed=seed)["ones"] for seed in range(200)]
    assert abs(np.mean(gains)) < 4 * np.std(gains) / np.sqrt(len(gains))


def test_it_costs_no_pass_of_its_own():
    counting = Counting(linear(np.full((4, 4), 1 / 16)))
    srg({"map": np.random.default_rng(3).random((4, 4))}, counting, 8)
    assert counting.images == 2 + 2 * 7


def test_the_gain_of_two_curves_is_the_difference_of_their_areas():
    least, most = RemovalCurve([0, 0.4, 1], [1, 1, 0]), RemovalCurve([0, 0.5, 1], [1, 0, 0])
    assert symmetric_relevance_gain(least, most) == pytest.approx(0.4 + 0.3 - 0.25)
