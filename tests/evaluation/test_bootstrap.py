"""Intervals over images: scipy's, as often right as they say, and honest about what is undefined."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from masktool.evaluation import bootstrap
from masktool.evaluation.bootstrap import Interval, as_float, interval_of, interval_of_mean, resample
from masktool.evaluation.findings import Table

MONTE_CARLO = 0.03
"""Ends of intervals from 2000 and from 20000 resamples differ by less, in standard deviations of the figures."""


@pytest.mark.parametrize("draw", ["normal", "exponential", "binary"])
def test_intervals_of_means_are_scipys_percentile_intervals(draw):
    rng = np.random.default_rng(3)
    values = {
        "normal": rng.normal(size=80),
        "exponential": rng.exponential(size=80),
        "binary": (rng.random(80) < 0.3).astype(float),
    }[draw]
    own = interval_of_mean(values)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert own.value == pytest.approx(values.mean())
    assert own.n == 80
    tolerance = MONTE_CARLO * values.std()
    assert own.low == pytest.approx(expected.low, abs=tolerance)
    assert own.high == pytest.approx(expected.high, abs=tolerance)


def test_intervals_of_other_figures_are_scipys():
    values = np.random.default_rng(3).normal(size=60)

    def deviation(weights):
        return np.sqrt(weights @ values**2 - (weights @ values) ** 2)

    own = interval_of(deviation, len(values))
    expected = stats.bootstrap(
        (values,), np.std, method="percentile", n_resamples=20000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert own.value == pytest.approx(values.std())
    assert own.low == pytest.approx(expected.low, abs=MONTE_CARLO)
    assert own.high == pytest.approx(expected.high, abs=MONTE_CARLO)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    n_trials, held = 1000, 0
    for _ in range(n_trials):
        found = interval_of_mean(rng.normal(size=60))
        held += found.low <= 0 <= found.high
    assert 0.925 < held / n_trials < 0.965, "percentile intervals of 60 values hold it in about 94 %"


def test_resamples_are_counts_of_draws_with_replacement():
    weights = resample(7, seed=5, n_resamples=4000)
    counts = weights * 7
    np.testing.assert_allclose(counts, counts.round(), atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(counts.var(axis=0), 6 / 7, atol=0.1)  # binomial: n p (1 - p)
    assert np.corrcoef(counts[:, 0], counts[:, 1])[0, 1] == pytest.approx(-1 / 6, abs=0.06)  # multinomial: -1/(n - 1)


def test_intervals_come_from_the_seed_alone():
    values = np.random.default_rng(0).normal(size=30)
    assert interval_of_mean(values, seed=1) == interval_of_mean(values, seed=1)
    assert interval_of_mean(values, seed=1) != interval_of_mean(values, seed=2)


def test_many_images_need_no_more_memory_at_once(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = interval_of_mean(values)
    monkeypatch.setattr(bootstrap, "BLOCK_WEIGHTS", 50 * 30)
    sizes = []

    def mean(weights):
        sizes.append(weights.shape)
        return weights @ values

    pieces = interval_of(mean, 50)
    assert sizes[0] == (1, 50)
    assert max(rows for rows, _ in sizes) == 30
    assert sum(rows for rows, _ in sizes[1:]) == bootstrap.N_RESAMPLES
    assert pieces.value == pytest.approx(whole.value)
    assert pieces.low == pytest.approx(whole.low, abs=0.05)
    assert pieces.high == pytest.approx(whole.high, abs=0.05)


def test_undefined_figures_do_not_count():
    found = interval_of_mean([1, float("nan"), 3, as_float(None)])
    assert (found.value, found.n) == (2, 2)
    assert found == dataclasses.replace(interval_of_mean([1, 3]))
    nothing = interval_of_mean([float("nan")])
    assert (nothing.n, str(nothing)) == (0, "undefined")
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    assert str(interval_of(lambda weights: np.full(len(weights), np.nan), 3)) == "undefined"


def test_one_image_and_equal_images_have_no_spread():
    assert interval_of_mean([0.5]) == Interval(0.5, 0.5, 0.5, 1)
    found = interval_of_mean([0.25] * 9)
    assert [found.value, found.low, found.high] == pytest.approx([0.25] * 3)
    assert str(Interval(0.5, 0.25, 0.75, 4)) == "0.500 [0.250, 0.750]"


def test_tables_survive_json():
    row = ("word", 3, 0.5, Interval(1, 0, 2, 5), None, True)
    table = Table("t", "c", tuple("abcdef"), (row,))
    assert Table.from_json(json.loads(json.dumps(table.as_json(), allow_nan=False))) == table


def test_undefined_figures_in_tables_survive_json_as_undefined():
    undefined = Interval(float("nan"), float("nan"), float("nan"), 0)
    table = Table("t", "c", ("a", "b"), ((float("nan"), undefined),))
    document = json.dumps(table.as_json(), allow_nan=False)
    ((bare, interval),) = Table.from_json(json.loads(document)).rows
    assert str(bare) == str(interval) == "undefined"
