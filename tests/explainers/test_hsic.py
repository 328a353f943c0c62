"""HSIC: the criterion is the formula's, written out, and no matrix of all pairs is held."""

import tracemalloc

import numpy as np
import pytest

from explainers.models import SIZE, bright_photograph, noise_photograph
from masktool import MasktoolError, explain, explain_targets
from masktool.explainers.methods import hsic
from masktool.explainers.methods.hsic import BLOCK, Hsic, dependence, median_distance


def criterion(kept, scores):
    """The published formula, matrix by matrix."""
    n_masks = len(scores)
    centring = np.eye(n_masks) - 1 / n_masks
    gaps = np.abs(scores[:, None] - scores)
    width = np.median(gaps[np.triu_indices(n_masks, 1)])
    alike = np.exp(-np.square(gaps) / (2 * width**2))
    cells = [np.where(cell[:, None] == cell, 0.5, -0.5) for cell in kept.T]
    return [np.trace(cell @ centring @ alike @ centring) / (n_masks - 1) ** 2 for cell in cells]


def sample(n_masks, seed=0):
    """Masks of 7 cells and scores that depend on the first alone, and on the next two together."""
    random = np.random.default_rng(seed)
    kept = (random.random((n_masks, 7)) < 0.5).astype(np.float32)
    return kept, kept[:, 0] * 0.5 + kept[:, 1] * kept[:, 2] + 0.1 * random.random(n_masks)


@pytest.mark.parametrize("n_masks", [2, 3, 50, BLOCK + 40])
def test_the_criterion_is_the_formulas(n_masks):
    kept, scores = sample(n_masks)
    np.testing.assert_allclose(dependence(kept, scores).values, criterion(kept, scores), atol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 60, 301])
def test_the_median_distance_is_numpys(count):
    random = np.random.default_rng(count)
    pairs = np.triu_indices(count, 1)
    for scores in (random.random(count), random.integers(0, 3, count) / 2, np.zeros(count)):
        expected = np.median(np.abs(scores[:, None] - scores)[pairs])
        assert median_distance(scores) == pytest.approx(expected, abs=1e-14)


def test_fewer_rows_of_the_kernel_matrix_are_held_the_more_masks_there_are(monkeypatch):
    assert [len(range(100)[each]) for each in hsic.blocks(100)] == [100]
    monkeypatch.setattr(hsic, "BLOCK_VALUES", 1000)
    assert [len(range(100)[each]) for each in hsic.blocks(100)] == [10] * 10
    assert len(list(hsic.blocks(2000))) == 2000
    kept, scores = sample(100)
    np.testing.assert_allclose(dependence(kept, scores).values, criterion(kept, scores), atol=1e-12)


def test_scores_most_of_which_are_equal_have_a_criterion():
    kept, _ = sample(40)
    scores = kept[:, 0] * kept[:, 1] * kept[:, 2]  # more than half of all pairs are equal
    assert median_distance(scores) == 0
    found = dependence(kept, scores).values
    assert np.isfinite(found).all()
    assert found[:3].min() > found[3:].max()


def test_the_error_is_what_repeated_runs_show():
    runs = [dependence(*sample(250, seed)) for seed in range(150)]
    spread = np.std([run.values for run in runs], axis=0, ddof=1)
    error = np.sqrt(np.mean([run.variances for run in runs], axis=0))
    assert (0.75 * spread[:3] < error[:3]).all()
    assert (error[:3] < 1.3 * spread[:3]).all()
    assert (error[3:] < 2 * spread[3:]).all()  # without influence: on the cautious side
    assert (0.9 * spread[3:] < error[3:]).all()


def test_memory_does_not_grow_with_the_pairs():
    kept, scores = sample(6000)
    tracemalloc.start()
    dependence(kept, scores)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.3 * 8 * 6000**2


def test_the_only_cells_that_count_are_found(session):
    found = explain(session, bright_photograph(), "hsic", target=0, grid_size=2)
    quarter = found.model_attributions[: SIZE[0] // 2, : SIZE[1] // 2]
    assert np.ptp(quarter) == 0
    assert quarter[0, 0] > 10 * found.model_attributions[SIZE[0] // 2 :].max()


def test_a_score_that_never_changes_depends_on_nothing(session):
    found = explain(session, bright_photograph(), "hsic", target="background", n_masks=20)
    np.testing.assert_allclose(found.attributions, 0, atol=1e-12)


def test_a_larger_number_goes_on_behind_the_same_masks():
    few, many = (Hsic().draw(count, 49, 3) for count in (20, 90))
    assert np.array_equal(few, many[:20])


def test_targets_share_the_passes_and_agree_with_single_runs(session):
    together = explain_targets(session, noise_photograph(), [0, "bottom right"], "hsic", n_masks=40)
    assert [each.forward_passes for each in together] == [41, 41]
    for each in together:
        alone = explain(session, noise_photograph(), "hsic", target=each.target, n_masks=40)
        assert np.array_equal(alone.attributions, each.attributions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_masks": 1}, "n_masks.*from 2, got 1"),
        ({"p": 1}, "p.*above 0 and below 1"),
        ({"grid_size": 0}, "grid_size"),
    ],
)
def test_bad_options_are_named(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), "hsic", **options)
