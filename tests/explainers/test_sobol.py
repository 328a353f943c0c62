"""Sobol: the indices are SciPy's and those of functions whose indices are known."""

import numpy as np
import pytest

from explainers.models import SIZE, bright_photograph, noise_photograph
from masktool import MasktoolError, explain, explain_targets
from masktool.explainers.halton_sequence import halton_points
from masktool.explainers.methods.sobol import Sobol, exchange_cells, total_indices

QUARTERS = 2
"""Cells per side of a grid whose cells are the model's own quarters."""


def score_rows(function, method, n_cells, seed=0):
    """The scores (N, 2 + S, 1) of a function of the cells (n, S)."""
    design = method.design(method.sample_limit, n_cells, seed)
    return function(design.kept.astype(np.float64))[design.rows][..., None]


def ishigami(cells):
    """A function in textbooks: its total indices are .558, .442 and .244."""
    first, second, third = (2 * cells.T - 1) * np.pi
    return np.sin(first) + 7 * np.square(np.sin(second)) + 0.1 * third**4 * np.sin(first)


def test_indices_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    first, second = random.random((2, 64, 5), dtype=np.float32)
    design = exchange_cells(first, second)
    assert len(design.kept) == 64 * 7

    def function(cells):
        return cells[..., 0] + cells[..., 1] * cells[..., 2] + 0.1 * cells[..., 4]

    scores = function(design.kept.astype(np.float64))[design.rows]
    found = total_indices(scores[..., None])
    given = {"f_A": scores[None, :, 0], "f_B": scores[None, :, 1], "f_AB": scores[:, 2:].T[:, None]}
    expected = stats.sobol_indices(func=given, n=64).total_order
    np.testing.assert_allclose(found.values[0], expected, atol=1e-10)


def test_indices_of_a_known_function():
    found = total_indices(score_rows(ishigami, Sobol(n_points=4096, binary=False), 3))
    np.testing.assert_allclose(found.values[0], [0.558, 0.442, 0.244], atol=0.02)


@pytest.mark.parametrize("binary", [True, False])
def test_the_error_is_what_repeated_runs_show(binary):
    def function(cells):
        return cells[:, 0] + cells[:, 1] * cells[:, 2]

    method = Sobol(n_points=32, binary=binary)
    runs = [total_indices(score_rows(function, method, 6, seed)) for seed in range(200)]
    spread = np.sqrt(np.var([run.values[0] for run in runs], axis=0, ddof=1).mean())
    error = np.sqrt(np.mean([np.square(run.errors).mean() for run in runs]))
    assert 0.8 * spread < error < 2.5 * spread  # points that are spread evenly do better than independent ones


def test_a_mask_that_stands_twice_costs_one_pass(session):
    found = explain(session, noise_photograph(), "sobol", target=0, n_points=6, grid_size=3)
    design = Sobol(grid_size=3).design(6, 9, 0)
    assert set(np.unique(design.kept)) == {0.0, 1.0}
    for number, (first, second) in enumerate(design.rows[:, :2]):
        agree = design.kept[first] == design.kept[second]
        assert (design.rows[number, 2:][agree] == first).all()
        for cell in np.flatnonzero(~agree):
            changed = design.kept[design.rows[number, 2 + cell]] != design.kept[first]
            assert np.flatnonzero(changed).tolist() == [cell]
    assert found.forward_passes == 1 + len(design.kept) < 1 + 6 * 11


def test_the_only_cells_that_count_are_found(session):
    found = explain(session, bright_photograph(), "sobol", target=0, grid_size=QUARTERS)
    expected = np.zeros(SIZE)
    expected[: SIZE[0] // 2, : SIZE[1] // 2] = found.model_attributions[0, 0]
    np.testing.assert_allclose(found.model_attributions, expected, atol=1e-12)
    assert found.model_attributions[0, 0] > 0.5


def test_a_score_that_never_changes_has_no_indices(session):
    found = explain(session, bright_photograph(), "sobol", target="background", n_points=4)
    assert (found.attributions == 0).all()
    assert found.quality["attributions_error"] == 0


def test_a_larger_number_goes_on_behind_the_same_points():
    few, many = (Sobol().design(count, 49, 3) for count in (3, 8))
    assert np.array_equal(few.kept, many.kept[: len(few.kept)])


def test_a_budget_of_passes_is_one_of_points(session):
    design = Sobol().design(8, 49, 0)
    found = explain(session, noise_photograph(), "sobol", target=0, budget=100)
    assert found.settings["n_points"] == max(point for point in range(9) if 1 + design.start(point) <= 100)
    assert found.forward_passes == 1 + design.start(found.settings["n_points"])
    needed = 1 + Sobol().design(8, 36, 0).start(2)
    with pytest.raises(MasktoolError, match=rf"two points.*at least {needed}"):
        explain(session, noise_photograph(), "sobol", target=0, budget=20, grid_size=6)


def test_no_more_points_are_drawn_than_the_budget_reaches_for(session, monkeypatch):
    drawn = []
    design = Sobol.design
    monkeypatch.setattr(Sobol, "design", lambda method, count, *of: drawn.append(count) or design(method, count, *of))
    bounded = explain(session, noise_photograph(), "sobol", target=0, n_points=10_000, budget=100)
    assert drawn == [50]
    free = explain(session, noise_photograph(), "sobol", target=0, n_points=bounded.settings["n_points"])
    assert np.array_equal(bounded.attributions, free.attributions)


def test_the_default_is_within_250_passes(session):
    passes = [explain(session, noise_photograph(), "sobol", seed=seed).forward_passes for seed in range(8)]
    assert max(passes) <= 250


def test_targets_share_the_passes_and_agree_with_single_runs(session):
    together = explain_targets(session, noise_photograph(), [0, "bottom right"], "sobol", n_points=4)
    for each in together:
        alone = explain(session, noise_photograph(), "sobol", target=each.target, n_points=4)
        assert np.array_equal(alone.attributions, each.attributions)


def test_the_sequence_is_haltons():
    qmc = pytest.importorskip("scipy.stats").qmc

    class InOrder:
        """Permutes nothing."""

        permutation = staticmethod(np.arange)

    np.testing.assert_allclose(halton_points(100, 20, InOrder()), qmc.Halton(20, scramble=False).random(100), atol=1e-9)


def test_random_digits_keep_the_points_spread():
    qmc = pytest.importorskip("scipy.stats").qmc
    random = np.random.default_rng(0)
    ours = np.mean([qmc.discrepancy(halton_points(64, 6, random)) for _ in range(20)])
    chance = np.mean([qmc.discrepancy(random.random((64, 6))) for _ in range(20)])
    assert ours < 0.6 * chance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_points": 1}, "n_points.*from 2, got 1"),
        ({"grid_size": 0}, "grid_size"),
        ({"binary": 1}, r"binary.*True \| False"),
    ],
)
def test_bad_options_are_named(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), "sobol", **options)
