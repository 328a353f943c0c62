"""The regression behind LIME: the published limit, with less noise, an error that holds, and Bayes' formulas."""

import itertools

import numpy as np
import pytest

from explainers.models import noise_photograph
from masktool import explain
from masktool.explainers.evidence import strongest_evidence
from masktool.explainers.methods.lime import Lime, kernel_weights, ridge_matrix
from masktool.explainers.segment_regression import (
    SegmentRegression,
    choose_log_odds,
    count_free_sets,
    decompose,
    draw_free_sets,
    prior_roots,
    size_probabilities,
)
from masktool.explainers.segmentation import axis_labels

SIDE = 6
SEGMENTS = np.add(*np.ix_(*axis_labels((24, 24), SIDE**2))).astype(np.int32)
PUBLISHED = Lime(alpha=1.0, sampling="independent")


def saturating_scores(kept):
    """Returns probabilities whose log-odds are a sum over segments in the middle, and over pairs of neighbours."""
    places = np.stack(np.divmod(np.arange(SIDE**2), SIDE)) - (SIDE - 1) / 2
    weights = 1.6 * np.exp(-np.square(places).sum(axis=0) / 4) + 0.3 * np.random.default_rng(0).normal(size=SIDE**2)
    pairs = 0.5 * np.random.default_rng(1).normal(size=SIDE**2 - 1)
    signs = 2.0 * kept - 1
    odds = signs @ weights + (signs[:, 1:] * signs[:, :-1]) @ pairs - 1
    return 1 / (1 + np.exp(-odds))


def every_set(n_features):
    return np.array(list(itertools.product([0, 1], repeat=n_features)), np.float32)


def limit(kept, scores, kernel_width=0.25):
    """Returns the coefficients (S,) of plain weighted least squares."""
    return ridge_matrix(kept, kernel_weights(kept, kernel_width), 1e-9) @ scores


@pytest.fixture(scope="module")
def truth():
    """The limit of the scores above, from many sets."""
    kept = Lime(sampling="independent").design(200_000, SIDE**2, seed=99)
    return limit(kept, saturating_scores(kept))


def fits(method, count, seeds):
    """Returns the coefficients (seeds, S) and their reported variances."""
    fit = method.fit_by_ridge if method.alpha is not None else method.fit_by_evidence(SEGMENTS)
    found = []
    for seed in seeds:
        design = method.design(count, SIDE**2, seed)
        found.append(fit(design, saturating_scores(design)[:, None]))
    return np.stack([each.coefficients[0] for each in found]), np.stack([each.variances[0] for each in found])


@pytest.mark.parametrize("count", [90, 250])
@pytest.mark.parametrize("sampling", ["orthogonal", "independent"])
def test_the_reported_error_is_the_distance_from_the_limit(truth, count, sampling):
    coefficients, variances = fits(Lime(sampling=sampling), count, range(20))
    error = np.sqrt(np.square(coefficients - truth).mean())
    reported = np.sqrt(variances.mean(axis=1)).mean()
    assert 0.75 * error < reported < 1.5 * error


def test_fewer_samples_come_nearer_than_the_published_way(truth):
    new, _ = fits(Lime(), 250, range(20))
    published, _ = fits(PUBLISHED, 250, range(20))
    longer, _ = fits(PUBLISHED, 500, range(20))
    new, published, longer = (np.sqrt(np.square(each - truth).mean()) for each in (new, published, longer))
    assert new < 0.6 * published
    assert new < longer


@pytest.mark.parametrize("spread", [0.05, 2.0])
def test_of_noise_less_is_left_than_in_the_published_way(spread):
    scores = 1 / (1 + np.exp(-spread * np.random.default_rng(0).normal(size=(250, 1)) - 1))
    found, published = (
        np.sqrt(np.square(fit(method.design(250, SIDE**2, 0), scores).coefficients).mean())
        for method, fit in ((Lime(), Lime().fit_by_evidence(SEGMENTS)), (PUBLISHED, PUBLISHED.fit_by_ridge))
    )
    assert found < 0.4 * published


def test_more_samples_come_nearer(truth):
    few, many = (np.sqrt(np.square(fits(Lime(), count, range(6))[0] - truth).mean()) for count in (250, 4000))
    assert many < 0.35 * few


@pytest.mark.parametrize("kernel_width", [0.25, 0.1])
def test_the_limit_is_the_published_one_whatever_the_curve_misses(kernel_width):
    kept = every_set(6)
    draws = np.random.default_rng(5).random(len(kept)) * (kept @ [1, 2, -1, 0, 1, 0] > 0) * kept[:, 3]
    scores = np.clip(0.02 + 0.9 * draws, 0.01, 0.99)  # nothing like a curve of a sum
    expected = limit(kept, scores, kernel_width)
    method = Lime(kernel_width=kernel_width, sampling="independent")
    many = np.tile(kept, (400, 1))
    fit = method.fit_by_evidence(np.arange(6, dtype=np.int32)[None])(many, np.tile(scores, 400)[:, None])
    np.testing.assert_allclose(fit.coefficients[0], expected, atol=0.01 * np.ptp(expected))


def test_pairs_have_the_same_limit():
    kept = every_set(6)
    kept = np.stack([kept[:32], kept[::-1][:32]], axis=1).reshape(-1, 6)  # each before its complement
    scores = np.random.default_rng(5).random(64)
    design = np.concatenate([np.ones((1, 6), np.float32), np.tile(kept, (400, 1))])
    fit = Lime().fit_by_evidence(np.arange(6, dtype=np.int32)[None])
    found = fit(design, np.concatenate([[0.5], np.tile(scores, 400)])[:, None]).coefficients[0]
    expected = limit(kept, scores)
    np.testing.assert_allclose(found, expected, atol=0.01 * np.ptp(expected))


def test_free_sets_have_the_moments_of_sets_that_are_drawn_and_weighed():
    kept = every_set(7)
    shares = 0.3 ** kept.sum(axis=1) * 0.7 ** (7 - kept.sum(axis=1)) * kernel_weights(kept, 0.25)
    shares /= shares.sum()
    sizes = np.bincount(kept.sum(axis=1).astype(int), shares)
    np.testing.assert_allclose(size_probabilities(7, 0.3, 0.25), sizes, rtol=1e-6)
    free = draw_free_sets(4096, 7, 0.3, 0.25)
    covariance = np.cov(kept.T, aweights=shares, ddof=0)
    np.testing.assert_allclose(covariance, free.alone * np.eye(7) + free.together, atol=1e-6)
    np.testing.assert_allclose(free.kept.mean(axis=0), shares @ kept, atol=0.03)
    crossed = np.cov(free.kept.T, free.kept[:, 2] * free.kept[:, 5], ddof=0)[:-1, -1]
    np.testing.assert_allclose(
        free.linear_weights(free.kept[:, 2] * free.kept[:, 5]), np.linalg.solve(covariance, crossed), atol=1e-6
    )


def test_free_sets_grow_with_the_scored_ones_up_to_a_limit():
    assert [count_free_sets(n, 300) for n in (10, 400, 10_000)] == [4096, 6400, 6990]


@pytest.mark.parametrize("sampling", ["orthogonal", "independent"])
def test_one_segment_has_one_weight(sampling):
    method = Lime(sampling=sampling)
    design = method.design(60, 1, seed=0)
    for scores, weight in ((0.2 + 0.5 * design[:, 0], 0.5), (7 - 3 * design[:, 0], -3)):
        fit = method.fit_by_evidence(np.zeros((2, 2), np.int32))(design, scores[:, None])
        assert fit.coefficients[0, 0] == pytest.approx(weight, rel=0.01)


@pytest.mark.parametrize(("shape", "wanted"), [("curve", True), ("sum", False), ("beyond", False)])
def test_log_odds_are_taken_where_they_are_nearer_to_a_sum(shape, wanted):
    design = PUBLISHED.design(200, SIDE**2, seed=0)
    one_by_one = SegmentRegression(design, kernel_weights(design, 0.25), np.arange(200), [None])
    scores = saturating_scores(design)
    if shape != "curve":
        scores = 0.5 + (design - 0.5) @ np.linspace(-0.03, 0.03, SIDE**2) + (1 if shape == "beyond" else 0)
    assert (choose_log_odds(one_by_one, scores) is not None) is wanted


def test_scores_of_exactly_0_and_1_are_finite():
    design = Lime().design(100, SIDE**2, seed=0)
    for scores in (design[:, 0].astype(float), np.zeros(100), np.ones(100)):
        fit = Lime().fit_by_evidence(SEGMENTS)(design, scores[:, None])
        assert np.isfinite(fit.coefficients).all()
        assert np.isfinite(fit.variances).all()
        np.testing.assert_allclose(fit.coefficients[0, 1:], 0, atol=1e-2)


@pytest.mark.parametrize("count", [20, 90])
def test_mean_and_variance_are_those_of_bayes(count):
    root = prior_roots(SEGMENTS)[2]
    design = PUBLISHED.design(count, SIDE**2, seed=0)
    scores = np.random.default_rng(0).normal(size=count)
    regression = SegmentRegression(design, np.ones(count), np.arange(count), [root])
    fit = regression.fit(scores)
    centred, prior = design - design.mean(axis=0), regression.priors[0]
    best = strongest_evidence(
        prior.values, (centred.T @ scores) @ prior.basis, count * scores.var(), count - 1, prior.values.sum() / SIDE**2
    )
    covariance = root @ root / best.penalty
    gain = covariance @ centred.T @ np.linalg.inv(np.eye(count) + centred @ covariance @ centred.T)
    np.testing.assert_allclose(fit.coefficients, gain @ (scores - scores.mean()), atol=1e-8)
    expected = best.noise * np.diag(covariance - gain @ centred @ covariance)
    np.testing.assert_allclose(fit.variances, expected, rtol=1e-6, atol=1e-12)


def test_few_units_and_many_are_decomposed_alike():
    few = np.random.default_rng(0).normal(size=(10, SIDE**2))
    for root in prior_roots(SEGMENTS)[:2]:
        short, padded = decompose(few, root), decompose(np.concatenate([few, np.zeros((60, SIDE**2))]), root)
        one, other = ((each.basis * each.values / (each.values + 1)) @ each.basis.T for each in (short, padded))
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_neighbours_have_like_weights_in_all_priors_but_the_first():
    roots = prior_roots(SEGMENTS)
    assert roots[0] is None
    for root in roots[1:]:
        covariance = root @ root
        np.testing.assert_allclose(np.diag(covariance), 1, atol=1e-9)
        assert covariance[0, 1] > covariance[0, 2] > covariance[0, SIDE**2 - 1] >= -1e-9


def test_many_segments_have_no_prior_of_neighbours():
    assert prior_roots(np.arange(401, dtype=np.int32)[None]) == [None]


def test_the_published_way_is_still_there(session):
    options = {"target": 0, "segments": "grid", "n_segments": 12, "n_samples": 50, "seed": 4}
    found = explain(session, noise_photograph(), "lime", alpha=1.0, sampling="independent", **options)
    design = PUBLISHED.design(50, found.settings["n_features"], seed=4)
    picture = noise_photograph()[..., 0] / np.float32(255)
    top_left = [np.where((found.segments == each)[:8, :12], picture[:8, :12], 0).sum() / 96 for each in range(12)]
    expected = ridge_matrix(design, kernel_weights(design, 0.25), 1.0) @ (design @ top_left)
    np.testing.assert_allclose(found.model_attributions, expected[found.segments], atol=1e-5)
