"""KernelSHAP: Shapley's values where every set is sampled, and near them where some are."""

import itertools
import math

import numpy as np
import pytest

from explainers.models import SIZE, bright_photograph, noise_photograph
from masktool import MasktoolError, explain
from masktool.explainers.methods.kernel_shap import KernelShap, coalitions, fit_differences, shapley_values

PLAYERS = 8


def game(seed=0, players=PLAYERS):
    """The worth of every set of players, by the set's members as bits."""
    return np.random.default_rng(seed).normal(size=1 << players)


def worth(values, kept):
    """The worth of sets (n, players) of 0 and 1."""
    return values[(np.asarray(kept, np.int64) << np.arange(kept.shape[1])).sum(axis=1)]


def exact_values(values, players=PLAYERS):
    """Shapley's formula: the mean gain over all sets without a player, each size of sets with the same weight."""
    found = np.zeros(players)
    for player, size in itertools.product(range(players), range(players)):
        others = [each for each in range(players) if each != player]
        gains = [
            values[sum(1 << each for each in members) | 1 << player] - values[sum(1 << each for each in members)]
            for members in itertools.combinations(others, size)
        ]
        found[player] += np.mean(gains) / players
    return found


def estimate(values, method, seed=0, players=PLAYERS):
    pairs = method.weigh(method.draw(method.sample_limit, players, seed))
    scores = worth(values, coalitions(pairs.kept))[:, None]
    total = np.array([values[-1] - values[0]])
    return shapley_values(fit_differences(pairs), total, scores[1::2] - scores[2::2])


def test_every_set_gives_shapleys_values_exactly():
    values = game()
    found = estimate(values, KernelShap(n_samples=10_000))
    np.testing.assert_allclose(found.values[0], exact_values(values), atol=1e-12)
    np.testing.assert_allclose(found.variances, 0, atol=1e-20)


def test_every_set_is_drawn_once_with_its_kernel_weight():
    method = KernelShap()
    pairs = method.weigh(method.draw(10_000, PLAYERS, 0))
    rows = coalitions(pairs.kept)
    assert len(rows) == (1 << PLAYERS) - 1  # all but the one that keeps everything
    assert len(np.unique(rows, axis=0)) == len(rows)
    sizes = rows[1::2].sum(axis=1).astype(int)
    kernel = [(PLAYERS - 1) / (math.comb(PLAYERS, size) * size * (PLAYERS - size)) for size in sizes]
    np.testing.assert_allclose(pairs.weights, 2 * np.array(kernel))  # once for either side of a pair


@pytest.mark.parametrize("sampling", ["leverage", "kernel"])
def test_the_values_add_up_whatever_is_sampled(sampling):
    values = game(3)
    found = estimate(values, KernelShap(n_samples=31, sampling=sampling))
    assert found.values.sum() == pytest.approx(values[-1] - values[0])


@pytest.mark.parametrize("sampling", ["leverage", "kernel"])
def test_the_mean_of_many_runs_is_shapleys_value_and_their_spread_the_error(sampling):
    values, method = game(1), KernelShap(n_samples=61, sampling=sampling)
    runs = [estimate(values, method, seed) for seed in range(400)]
    found = np.stack([run.values[0] for run in runs])
    spread = found.std(axis=0, ddof=1)
    exact = exact_values(values)
    assert np.abs(found.mean(axis=0) - exact).max() < 5 * spread.max() / np.sqrt(len(runs)) + 0.02
    error = np.sqrt(np.mean([run.variances[0].mean() for run in runs]))
    assert 0.75 < error / np.sqrt((spread**2).mean()) < 1.5


def test_leverage_sampling_is_nearer_than_the_kernel_as_published():
    off = {sampling: [] for sampling in ("leverage", "kernel")}
    for seed, sampling in itertools.product(range(60), off):
        values = game(seed)
        found = estimate(values, KernelShap(n_samples=101, sampling=sampling), seed)
        off[sampling].append(np.square(found.values[0] - exact_values(values)).mean())
    assert np.mean(off["leverage"]) < 0.8 * np.mean(off["kernel"])


def test_every_set_gives_what_captum_gives():
    torch = pytest.importorskip("torch")
    captum = pytest.importorskip("captum.attr")
    values = game(2, players=5)
    found = estimate(values, KernelShap(n_samples=1000), players=5).values[0]
    torch.manual_seed(0)

    def forward(kept):
        return torch.tensor(worth(values, kept.numpy()))

    captums = captum.KernelShap(forward).attribute(torch.ones(1, 5), n_samples=20_000)[0].numpy()
    np.testing.assert_allclose(found, exact_values(values, players=5), atol=1e-12)
    assert np.abs(found - captums).max() < 0.05 * np.ptp(found)


def test_a_larger_number_goes_on_behind_the_same_samples():
    few, many = (KernelShap().draw(count, 20, 4) for count in (21, 101))
    assert np.array_equal(few, many[:10])
    assert len(np.unique(many, axis=0)) == 50


@pytest.mark.parametrize("players", [1, 2, 3])
def test_few_segments(players):
    values = game(5, players)
    found = estimate(values, KernelShap(n_samples=50), players=players)
    np.testing.assert_allclose(found.values[0], exact_values(values, players), atol=1e-12)
    np.testing.assert_allclose(found.variances, 0, atol=1e-20)


def test_a_linear_model_is_recovered(session):
    labels = np.arange(SIZE[0])[:, None] // 8 * 2 + np.arange(SIZE[1])[None] // 12  # the model's own four quarters
    found = explain(session, bright_photograph(), "kernel-shap", target=0, feature_mask=labels)
    np.testing.assert_allclose(found.model_attributions, np.where(labels == 0, 1.0, 0.0), atol=1e-6)
    assert found.settings["n_samples"] == 15  # all sets but the whole
    assert found.forward_passes == 16


def test_too_few_samples_are_said(session):
    options = {"segments": "grid", "n_segments": 40}
    found = explain(session, noise_photograph(), "kernel-shap", target=0, n_samples=21, **options)
    assert any("not enough samples" in note for note in found.notes)
    _, first = np.unique(found.segments, return_index=True)
    whole = explain(session, noise_photograph(), "kernel-shap", target=0, feature_mask=np.zeros(SIZE, int))
    assert found.model_attributions.reshape(-1)[first].sum() == pytest.approx(whole.attributions[0, 0], abs=1e-6)
    more = explain(session, noise_photograph(), "kernel-shap", target=0, n_samples=201, **options)
    assert not more.notes
    assert more.quality["attributions_error"] < found.quality["attributions_error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 2}, "n_samples.*from 3, got 2"),
        ({"sampling": "even"}, r"sampling.*leverage \| kernel"),
        ({"segments": "slik"}, "unknown segments"),
    ],
)
def test_bad_options_are_named(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), "kernel-shap", **options)
