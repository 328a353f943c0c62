"""Agreement of rankings against scipy's coefficients, on the figures and in every resample."""

import numpy as np
import pytest
import scipy.stats

from masktool.evaluation.bootstrap import resample
from masktool.evaluation.metrics.ranking_agreement import kendall_tau, rank_agreement, spearman_rho


@pytest.fixture
def figures():
    random = np.random.default_rng(0)
    quality = np.linspace(0, 1, 7)
    first, second = (quality + random.normal(scale=0.8, size=(12, 7)) for _ in range(2))
    return first, second


def test_coefficients_are_scipys_with_ties_too(figures):
    first, second = (np.round(values) for values in figures)
    for one, other in zip(first, second, strict=True):
        expected = scipy.stats.kendalltau(one, other).statistic, scipy.stats.spearmanr(one, other).statistic
        found = kendall_tau(one[None], other[None])[0], spearman_rho(one[None], other[None])[0]
        assert found == pytest.approx(expected, nan_ok=True)


def test_means_over_the_images_are_ranked_and_images_are_resampled_together(figures):
    found = rank_agreement(*figures, seed=3)
    means = [values.mean(axis=0) for values in figures]
    assert found.kendall.value == pytest.approx(scipy.stats.kendalltau(*means).statistic)
    assert found.spearman.value == pytest.approx(scipy.stats.spearmanr(*means).statistic)
    drawn = resample(12, 3)
    expected = [scipy.stats.kendalltau(weights @ figures[0], weights @ figures[1]).statistic for weights in drawn]
    assert (found.kendall.low, found.kendall.high) == pytest.approx(tuple(np.quantile(expected, (0.025, 0.975))))
    assert found.kendall.n == 12


def test_the_same_ranking_agrees_and_the_reverse_disagrees(figures):
    first, _ = figures
    assert [each.value for each in rank_agreement(first, 2 * first + 1)] == pytest.approx([1, 1])
    assert [each.value for each in rank_agreement(first, -first)] == pytest.approx([-1, -1])


def test_images_without_a_figure_do_not_count_and_one_tie_ranks_nothing(figures):
    first, second = (values.copy() for values in figures)
    second[3, 2] = np.nan
    rest = np.delete(np.arange(12), 3)
    assert rank_agreement(first, second).kendall == rank_agreement(first[rest], second[rest]).kendall
    assert np.isnan(rank_agreement(first, np.ones((12, 7))).spearman.value)
