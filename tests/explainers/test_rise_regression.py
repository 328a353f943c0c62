"""The regression behind RISE: it is Bayesian ridge regression, its interval holds, and it needs fewer masks."""

import itertools

import numpy as np
import pytest

from masktool.explainers.evidence import PENALTIES
from masktool.explainers.mask_design import MasksInMemory
from masktool.explainers.mask_regression import MaskMoments, MaskRegression, smooth_roots
from masktool.explainers.methods.rise import CoarseGrids, EnlargedGrids, PlainMean, RegressedMean, Rise, free_moments
from masktool.explainers.task import ScoredMasks

SIZE = (32, 48)
METHOD = Rise(grid_size=4)
N_SEEDS = 30


def design(cut):
    return EnlargedGrids(SIZE, METHOD.grid_size, cut=cut)


def score(masks):
    """A score with parts that are linear in the masks (M, 1, h, w), and products and a bend that are not."""
    left, right, low = (masks[:, 0, 4:12, 4:12], masks[:, 0, 8:20, 30:40], masks[:, 0, 24:30, 8:40])
    left, right, low = (each.mean(axis=(1, 2), dtype=np.float64) for each in (left, right, low))
    return 1 / (1 + np.exp(3 - 3 * left - 4 * left * right - low))


def estimate(kind, count, seed, *, cut, of=score):
    """Returns map and squared standard errors, (h, w) each, from masks that a seed draws."""
    (grids,) = METHOD.grids(SIZE, seed, [range(count)])
    masks = design(cut).expand(grids.rows())
    average = kind(METHOD, design(cut), 1)
    average.add(grids.rows(), ScoredMasks(MasksInMemory(masks), of(masks)[:, None]))
    return tuple(each[0].reshape(SIZE) for each in average.maps())


@pytest.fixture(scope="module", params=[False, True], ids=["soft", "cut"])
def truth(request):
    """The map of very many masks, and whether these are cut."""
    maps = [estimate(PlainMean, 10_000, 1000 + seed, cut=request.param)[0] for seed in range(6)]
    return np.mean(maps, axis=0), request.param


def test_the_interval_covers_the_map_of_very_many_masks(truth):
    expected, cut = truth
    runs = [estimate(RegressedMean, 150, seed, cut=cut) for seed in range(N_SEEDS)]
    inside = [np.abs(found - expected) <= 1.96 * np.sqrt(variance) for found, variance in runs]
    assert 0.9 < np.mean(inside) < 0.995


def test_it_needs_less_than_half_of_the_masks(truth):
    expected, cut = truth

    def squared_error(kind, count):
        return np.mean([np.square(estimate(kind, count, seed, cut=cut)[0] - expected) for seed in range(N_SEEDS)])

    assert squared_error(RegressedMean, 150) < squared_error(PlainMean, 300)


@pytest.mark.parametrize("cut", [False, True])
def test_it_tends_to_the_mean_over_the_masks(cut):
    found = [estimate(kind, 6000, 5, cut=cut) for kind in (PlainMean, RegressedMean)]
    (plain, plain_variance), (regressed, variance) = found
    assert np.square(plain - regressed).mean() < 4 * (plain_variance + variance).mean()
    assert np.sqrt(variance.mean()) < 0.02 * np.ptp(plain)


def test_a_linear_score_is_recovered():
    coarse = CoarseGrids(design(cut=False), METHOD.p)
    weights = np.random.default_rng(0).normal(size=int(np.prod(coarse.patches)))
    (grids,) = METHOD.grids(SIZE, 3, [range(200)])
    features = coarse.features(coarse.values(grids.rows()))
    average = RegressedMean(METHOD, design(cut=False), 1)
    average.regression.add(features, 0.3 + features.astype(np.float64) @ weights[:, None])
    moments = free_moments(coarse, 1 << 14)
    found, _ = average.regression.maps(moments, smooth_roots(coarse.patches, (0.0,)))
    expected = 0.3 + moments.features @ weights + moments.covariance @ weights / moments.kept
    assert np.abs(found[0] - expected).max() < 1e-3 * np.ptp(expected)


def test_a_score_that_never_changes_gives_a_flat_map_without_an_error():
    found, variance = estimate(RegressedMean, 64, 0, cut=True, of=lambda masks: np.full(len(masks), 0.25))
    np.testing.assert_allclose(found, 0.25)
    assert variance.max() < 1e-20


def test_the_moments_of_soft_masks_are_those_of_the_grid():
    """Cov(M(u), M(x)) = p (1 - p) * the mean over offsets of the cells' shared weights, along both axes."""
    coarse = CoarseGrids(design(cut=False), 0.3)
    moments = free_moments(coarse, 1 << 14)
    shared = [np.einsum("oug,oxg->ux", each, each) / len(each) / each[0, 0].sum() ** 2 for each in coarse.enlargements]
    exact = 0.3 * 0.7 * np.kron(*shared)
    rows, columns = coarse.patches
    of_features = exact.reshape(-1, rows, 2, columns, 2).mean(axis=(2, 4)).reshape(len(exact), -1)
    np.testing.assert_allclose(moments.kept, 0.3, atol=0.02)
    np.testing.assert_allclose(moments.covariance, of_features, atol=0.01)


def test_it_is_bayesian_ridge_regression_of_the_highest_evidence():
    """The same by the kernel's side: the posterior of a Gaussian process, and the density of the scores."""
    random = np.random.default_rng(2)
    features, roots = random.normal(size=(20, 6)), smooth_roots((2, 3), (0.0, 1.0))
    scores = features @ [1.0, 1.2, 0.9, 0, 0, 0.1] + random.normal(size=20)
    moments = MaskMoments(np.full(4, 0.5), np.zeros(6), random.normal(size=(4, 6)), 10**9)
    regression = MaskRegression(6, 1)
    regression.add(features[:7], scores[:7, None])
    regression.add(features[7:], scores[7:, None])
    found, variances = regression.maps(moments, roots)

    x, y, degrees = features - features.mean(axis=0), scores - scores.mean(), 19
    best = None
    for root, share in itertools.product(roots, PENALTIES):
        penalty = share * np.trace(root.T @ x.T @ x @ root) / 6
        kernel = np.eye(20) + x @ root @ root.T @ x.T / penalty
        noise = y @ np.linalg.solve(kernel, y) / degrees
        density = -0.5 * (degrees * np.log(noise) + np.linalg.slogdet(kernel)[1])
        if best is None or density > best[0]:
            best = density, root @ root.T / penalty, kernel, noise
    _, prior, kernel, noise = best
    weights = prior @ x.T @ np.linalg.solve(kernel, y)
    spread = noise * (prior - prior @ x.T @ np.linalg.solve(kernel, x @ prior))
    along = moments.covariance / 0.5
    np.testing.assert_allclose(found[0], scores.mean() - features.mean(axis=0) @ weights + along @ weights, rtol=1e-9)
    expected = np.einsum("pf,fg,pg->p", along, spread, along) + noise / 20
    np.testing.assert_allclose(variances[0], expected, rtol=1e-6)
