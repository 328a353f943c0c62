"""Stability over seeds: by hand, fair ties, and no more maps than needed."""

import numpy as np
import pytest

from evaluation.trials import linear, make_trial
from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.stability import Stability, membership, overlap
from masktool.evaluation.metrics.map_similarity import rank_correlation, structural_similarity

ROUNDING = 1e-9
"""Sums of a few hundred float64."""


def noisy_trial(noise, drawn=None):
    """A map whose redraws differ by noise."""
    own = np.add.outer(np.arange(16.0), np.arange(16.0))

    def redraw(name, seed):
        if drawn is not None:
            drawn.append((name, seed))
        return own + noise * np.random.default_rng(seed).standard_normal(own.shape)

    return make_trial({"map": own}, linear(np.ones((16, 16))), redraw=redraw, seed=3)


def test_a_method_without_random_choices_is_perfectly_stable_and_run_only_once_more():
    drawn = []
    found = Stability(n_seeds=5).measure(noisy_trial(0, drawn))["map"].figures
    assert found == pytest.approx({"spearman": 1, "ssim": 1, "overlap": 1}, abs=ROUNDING)
    assert drawn == [("map", 4)]


def test_more_noise_is_less_stable():
    drawn = []
    figures = [Stability(n_seeds=4).measure(noisy_trial(noise, drawn))["map"].figures for noise in (0.1, 3, 1000)]
    for name in ("spearman", "ssim", "overlap"):
        quiet, loud, deafening = (each[name] for each in figures)
        assert quiet > loud > deafening
    assert figures[-1]["overlap"] < 0.3
    assert drawn[:3] == [("map", 4), ("map", 5), ("map", 6)]


def test_figures_are_means_over_pairs():
    maps = [np.random.default_rng(seed).random((12, 12)) for seed in range(3)]
    found = Stability().judge(maps).figures
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert found["spearman"] == pytest.approx(np.mean([rank_correlation(maps[a], maps[b]) for a, b in pairs]))
    assert found["ssim"] == pytest.approx(np.mean([structural_similarity(maps[a], maps[b]) for a, b in pairs]))
    assert found["overlap"] == pytest.approx(np.mean([overlap(maps[a], maps[b], 0.1) for a, b in pairs]))


def test_overlap_by_hand():
    a, b = np.array([[4.0, 3, 2, 1]]), np.array([[4.0, 1, 3, 2]])
    assert overlap(a, b, 0.5) == 0.5  # the first two against the first and the third
    assert overlap(a, a, 0.25) == 1
    assert overlap(a, -a, 0.5) == 0


def test_pixels_of_one_value_share_the_last_places():
    steps = np.array([[3.0, 2, 2, 1]])
    assert membership(steps, 2).tolist() == [[1, 0.5, 0.5, 0]]
    assert overlap(steps, steps, 0.5) == 1
    assert overlap(steps, np.array([[3.0, 2, 0, 1]]), 0.5) == 0.75


def test_a_constant_map_is_undefined():
    ones, other = np.ones((12, 12)), np.random.default_rng(1).random((12, 12))
    trial = make_trial({"ones": ones}, linear(ones), redraw=lambda *_: ones)
    assert set(Stability().measure(trial)["ones"].figures.values()) == {None}
    assert overlap(ones, other, 0.1) is overlap(other, ones, 0.1) is None


@pytest.mark.parametrize("options", [{"n_seeds": 1}, {"share": 0}, {"share": 1}])
def test_bad_options_are_refused(options):
    with pytest.raises(MasktoolError, match=next(iter(options))):
        Stability(**options)
