"""LIME: the fit is scikit-learn's and the lime package's, and no segment is left out."""

import numpy as np
import pytest

from explainers.models import SIZE, bright_photograph, noise_photograph
from masktool import MasktoolError, explain, explain_targets
from masktool.explainers.methods.lime import (
    Lime,
    kernel_weights,
    leverages,
    ridge_matrix,
    weighted_r2,
    weighted_residuals,
)


@pytest.fixture
def fit():
    design = Lime().design(200, 12, seed=3)
    scores = np.random.default_rng(0).random((200, 2)) + design[:, :2] * np.array([[0.5, -0.7]])
    return design, scores


def test_fit_agrees_with_scikit_learn(fit):
    linear_model = pytest.importorskip("sklearn.linear_model")
    design, scores = fit
    weights = kernel_weights(design, 0.25)
    ridge = linear_model.Ridge(alpha=1.0).fit(design.astype(np.float64), scores, sample_weight=weights)
    coefficients = ridge_matrix(design, weights, 1.0) @ scores
    np.testing.assert_allclose(coefficients.T, ridge.coef_, atol=1e-10)
    residuals = weighted_residuals(design, weights, coefficients, scores)
    np.testing.assert_allclose(residuals, scores - ridge.predict(design), atol=1e-10)


def test_fit_and_r2_agree_with_the_lime_package(fit):
    lime_image = pytest.importorskip("lime.lime_image")
    design, scores = fit
    base = lime_image.LimeImageExplainer(kernel_width=0.25, random_state=0).base
    distances = lime_image.sklearn.metrics.pairwise_distances(design, design[:1], metric="cosine").ravel()
    weights = kernel_weights(design, 0.25)
    np.testing.assert_allclose(weights, base.kernel_fn(distances), rtol=1e-5)  # its distances are float32
    solution = ridge_matrix(design, weights, 1.0)
    coefficients = solution @ scores
    r2s = weighted_r2(weights, scores, weighted_residuals(design, weights, coefficients, scores))
    for label in (0, 1):
        _, features, r2, _ = base.explain_instance_with_data(
            design.astype(np.float64), scores, distances, label, num_features=12, feature_selection="none"
        )
        np.testing.assert_allclose(coefficients[:, label], [dict(features)[i] for i in range(12)], atol=1e-5)
        assert r2s[label] == pytest.approx(r2, abs=1e-5)


def test_empty_sample_has_distance_one():
    weights = kernel_weights(np.array([[1, 1], [0, 0]], np.float32), 0.5)
    np.testing.assert_allclose(weights, [1, np.exp(-2)])


def test_first_sample_keeps_everything_and_the_seed_decides_the_rest():
    design = Lime().design(50, 9, seed=1)
    assert (design[0] == 1).all()
    assert set(np.unique(design)) == {0.0, 1.0}
    assert np.array_equal(design, Lime().design(50, 9, seed=1))
    assert not np.array_equal(design, Lime().design(50, 9, seed=2))


def test_linear_model_is_recovered(session):
    labels = np.arange(SIZE[0])[:, None] // 8 * 2 + np.arange(SIZE[1])[None] // 12  # the model's own four quarters
    found = explain(session, bright_photograph(), "lime", target=0, feature_mask=labels, n_samples=400, alpha=1e-6)
    expected = np.where(labels == 0, 1.0, 0.0)
    np.testing.assert_allclose(found.model_attributions, expected, atol=1e-5)
    assert found.quality["r2"] == pytest.approx(1)
    assert found.quality["attributions_error"] < 1e-6


@pytest.mark.parametrize("segments", ["slic", "grid"])
def test_every_segment_is_perturbed_from_label_zero_on(session, segments):
    photograph = np.kron(noise_photograph((4, 6)), np.ones((4, 4, 1), np.uint8))  # patches of one colour
    found = explain(session, photograph, "lime", target=0, segments=segments, n_segments=12, n_samples=64)
    labels = np.unique(found.segments)
    assert labels.tolist() == list(range(len(labels)))
    assert len(labels) > 6
    assert len(labels) == found.settings["n_features"]
    assert len(np.unique(found.model_attributions)) == len(labels)  # a segment left out would have no weight of its own


def test_label_map_with_gaps_and_negative_labels(session):
    labels = np.where(np.arange(24)[None] < 12, -5, 700).repeat(16, axis=0)
    found = explain(session, bright_photograph(), "lime", target=0, feature_mask=labels, n_samples=64)
    assert np.unique(found.segments).tolist() == [0, 1]
    assert found.settings["segments"] == "feature_mask"
    left, right = found.model_attributions[0, 0], found.model_attributions[0, -1]
    assert left > 0.5 > abs(right)


def test_label_map_in_the_photographs_pixels(session):
    labels = np.zeros((32, 48), int)
    labels[16:, 24:] = 1
    photograph = bright_photograph((32, 48))
    found = explain(session, photograph, "lime", target=1, feature_mask=labels, n_samples=64)
    expected = np.zeros(SIZE, int)
    expected[8:, 12:] = 1
    assert np.array_equal(found.segments, expected)


def test_one_segment_alone(session):
    found = explain(session, bright_photograph(), "lime", target=0, feature_mask=np.zeros(SIZE, int), n_samples=32)
    assert found.settings["n_features"] == 1
    assert np.isfinite(found.attributions).all()


def test_targets_share_the_passes_and_agree_with_single_runs(session):
    together = explain_targets(session, noise_photograph(), [0, "bottom right"], "lime", n_samples=64, n_segments=6)
    assert [each.forward_passes for each in together] == [65, 65]
    for each in together:
        alone = explain(session, noise_photograph(), "lime", target=each.target, n_samples=64, n_segments=6)
        assert np.array_equal(alone.attributions, each.attributions)


def test_leverage_is_what_a_score_does_to_its_own_fit(fit):
    design, scores = fit
    weights = kernel_weights(design, 0.25)
    solution = ridge_matrix(design, weights, 1.0)

    def fitted(of):
        residuals = weighted_residuals(design, weights, solution @ of, of)
        return of - residuals

    changed = scores.copy()
    changed[5] += 1
    moved = (fitted(changed) - fitted(scores))[5]
    np.testing.assert_allclose(moved, leverages(design, weights, solution)[5], rtol=1e-9)


@pytest.mark.parametrize("n_samples", [60, 300])
def test_standard_error_of_the_ridge_is_what_repeated_runs_show(session, n_samples):
    runs = [
        explain(
            session,
            noise_photograph(),
            "lime",
            target=0,
            segments="grid",
            n_segments=60,
            n_samples=n_samples,
            sampling="independent",
            alpha=1.0,
            seed=seed,
        )
        for seed in range(12)
    ]
    spread = np.sqrt(np.var([run.model_attributions for run in runs], axis=0, ddof=1).mean())
    estimate = np.mean([run.quality["attributions_error"] for run in runs])
    assert 0.75 * spread < estimate < 1.8 * spread  # few samples: on the cautious side


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 1}, "n_samples.*from 2, got 1"),
        ({"segments": "slik"}, r"unknown segments \(slik\): expected one of slic, grid"),
        ({"n_segments": 0}, "n_segments"),
        ({"p": 1}, "p.*above 0 and below 1, got 1"),
        ({"kernel_width": 0}, "kernel_width.*above 0"),
        ({"alpha": float("nan")}, "alpha"),
        ({"sampling": "even"}, r"sampling.*orthogonal \\| independent"),
        ({"sampling": "orthogonal", "p": 0.3}, r"orthogonal.*p=0\.5.*got p=0\.3.*sampling=independent"),
        ({"feature_mask": np.zeros((3, 3), int)}, r"label map of another size.*\(16, 24\).*got \(3, 3\)"),
        ({"feature_mask": np.zeros(SIZE)}, "not a label map.*float64"),
    ],
)
def test_bad_options_are_named(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), "lime", **options)


@pytest.mark.parametrize(("p", "sampling"), [(0.5, "orthogonal"), (0.3, "independent")])
def test_samples_are_orthogonal_where_p_allows_it(session, p, sampling):
    found = explain(session, bright_photograph(), "lime", p=p, n_samples=32)
    assert found.settings["sampling"] == sampling


def test_fewer_segments_take_the_first_of_the_same_choices():
    method = Lime()
    many, few = method.draw(20, 12, seed=4), method.draw(20, 5, seed=4)
    assert np.array_equal(few.reshape(-1), many.reshape(-1)[: few.size])


def test_segments_of_an_input_are_for_files(session):
    with pytest.raises(MasktoolError, match=r"only a file that explains itself.*feature_mask"):
        explain(session, bright_photograph(), "lime", segments="input")
