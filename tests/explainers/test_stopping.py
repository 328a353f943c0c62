"""Stopping: fixed moments whatever the batch, a count that repeats the answer, limits that hold."""

import json

import numpy as np
import pytest

from explainers.models import bright_photograph, noise_photograph
from masktool import MasktoolError, explain
from masktool.explainers import stopping
from masktool.explainers.method import METHODS
from masktool.explainers.stopping import FIRST_LOOK, SampleRun, Stopping
from masktool.explainers.top_order import TopOrder, mean_of_cells

DRAWING = sorted(name for name in METHODS if METHODS[name].most_samples is not None)
"""Methods whose number of samples may be left open."""
ONE_BY_ONE = ("lime", "rise")
"""Those that draw sample by sample, and never know a score exactly; others draw blocks, or know it at once."""


def run_to_the_end(run, batch, errors):
    """Draws to the end of a run; the map (1, 2) has a range of 1, and ``errors(count)`` as its standard error."""
    pauses = []
    for piece in run.pieces(batch):
        assert piece.stop == run.drawn
        if run.pauses:
            pauses.append(run.drawn)
            run.judge(np.array([[0.0, 1.0]]), np.full((1, 2), errors(run.drawn) ** 2))
    return pauses


@pytest.mark.parametrize("batch", [1, 8, 64, 1000])
def test_the_moments_do_not_depend_on_the_batch(batch):
    run = SampleRun(Stopping(), None, most=600)
    assert run_to_the_end(run, batch, lambda _: 1) == [32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 480, 576, 600]
    assert not run.settled


def test_the_first_moment_within_the_tolerance_ends_it():
    run = SampleRun(Stopping(tolerance=0.2), None, most=600)
    assert run_to_the_end(run, 8, lambda count: 1 / np.sqrt(count)) == [32, 64, 96, 128]  # 1.96 / sqrt(96) is .20004
    assert run.settled
    assert run.notes() == ((),)


def test_a_count_is_taken_exactly_unless_the_map_may_end_it():
    exact, limit = (SampleRun(Stopping(until=until), 70, most=600) for until in (None, "stable"))
    assert run_to_the_end(exact, 8, lambda _: 0) == [70]
    assert run_to_the_end(limit, 8, lambda _: 0) == [FIRST_LOOK]


def test_every_target_must_settle():
    run = SampleRun(Stopping(), None, most=64)
    for _ in run.pieces(16):
        if run.pauses:
            run.judge(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert run.drawn == 64
    assert [bool(notes) for notes in run.notes()] == [False, True]


@pytest.mark.parametrize(("error", "settled"), [(0.0, True), (1e-9, False)])
def test_a_flat_map_settles_only_without_an_error(error, settled):
    run = SampleRun(Stopping(), None, most=40)
    for _ in run.pieces(16):
        if run.pauses:
            run.judge(np.ones((1, 2)), np.full((1, 2), error))
    assert run.settled is settled


def test_the_note_names_a_number_of_samples_that_would_do():
    run = SampleRun(Stopping(tolerance=0.05), None, most=250)
    run_to_the_end(run, 8, lambda count: 1 / np.sqrt(count))
    ((note,),) = run.notes()
    assert "n_samples=1600" in note  # (1.96 / .05)^2 = 1537
    assert str(note).startswith(
        "the map had not settled after 250 samples: half its 95 % interval is 0.12 of its range"
    )


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands at the number of seconds in its only element."""
    now = [0.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    return now


def test_time_that_is_over_ends_the_run_behind_a_piece_with_a_map_of_it(clock):
    run = SampleRun(Stopping(seconds=2), 1000, most=250)
    pauses = []
    for _ in run.pieces(10):
        clock[0] += 0.7
        if run.pauses:
            pauses.append(run.drawn)
            run.judge(np.array([[0.0, 1.0]]), np.ones((1, 2)))
    assert pauses == [run.drawn] == [30]
    ((note,),) = run.notes()
    assert "depends on the machine; n_samples=30 repeats it" in note


def test_time_may_run_out_between_a_piece_and_the_next(clock):
    run = SampleRun(Stopping(seconds=2), 1000, most=250)
    for _ in run.pieces(10):
        clock[0] += 0.7
        if run.pauses:
            run.judge(np.array([[0.0, 1.0]]), np.ones((1, 2)))
        clock[0] += 1
    assert run.drawn == 20  # the time was over behind the pause of the first piece, with no map of it
    assert run.quality()[0]["samples"] == 20


@pytest.mark.parametrize("method", DRAWING)
def test_the_count_that_was_drawn_repeats_the_map(session, method):
    found = explain(session, noise_photograph(), method, target=0, tolerance=0.3)
    drawn = found.settings[METHODS[method].samples_option]
    assert found.quality["samples"] == drawn
    again = explain(session, noise_photograph(), method, target=0, n_samples=drawn)
    assert np.array_equal(found.attributions, again.attributions)
    assert found.settings["tolerance"] == 0.3


@pytest.mark.parametrize("method", DRAWING)
def test_left_open_it_ends_where_the_map_is_stable(session, method):
    score = "log-odds" if method == "kernel-shap" else "probability"  # it is sure at once of a sum, as this score is
    tight, loose = (
        explain(session, noise_photograph(), method, target=0, tolerance=each, score=score) for each in (0.01, 0.5)
    )
    limit = METHODS[method].most_samples
    assert loose.quality["samples"] <= tight.quality["samples"] <= limit
    if method in ONE_BY_ONE:
        assert loose.quality["samples"] < tight.quality["samples"]
    assert loose.quality["settled"]
    assert 1.96 * loose.relative_error <= 0.5
    assert loose.forward_passes <= (250 if method == "sobol" else limit + 1)  # a point of its is many passes


@pytest.mark.parametrize("method", DRAWING)
@pytest.mark.parametrize("batch", [1, 8, 64])
def test_a_seed_gives_one_answer_whatever_the_batch(session, method, batch):
    options = {"target": 0, "tolerance": 0.2, "seed": 3}
    found = explain(session, noise_photograph(), method, perturbations_per_eval=batch, **options)
    usual = explain(session, noise_photograph(), method, **options)
    assert found.quality["samples"] == usual.quality["samples"]
    np.testing.assert_allclose(found.attributions, usual.attributions, atol=1e-6)


@pytest.mark.parametrize("method", sorted(set(DRAWING) - {"sobol"}))  # whose budget is of whole points: its own test
def test_the_budget_bounds_the_passes(session, method):
    found = explain(session, noise_photograph(), method, target=0, tolerance=1e-4, budget=60)
    assert found.forward_passes <= 60
    assert found.settings["budget"] == 60
    if method in ONE_BY_ONE:
        assert found.forward_passes == 60
        assert any("had not settled after 59 samples" in note for note in found.notes)


def test_the_time_is_a_limit_that_the_explanation_tells(session):
    found = explain(session, noise_photograph(), "rise", n_samples=100_000, seconds=0.05, perturbations_per_eval=8)
    assert found.quality["samples"] < 100_000
    assert any("depends on the machine" in note for note in found.notes)
    json.loads(found.to_json())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": "soon"}, "until.*stable.*got 'soon'"),
        ({"tolerance": 0}, "tolerance.*above 0 and below 1"),
        ({"budget": 2}, "budget.*from 3"),
        ({"seconds": -1.0}, "seconds.*above 0"),
    ],
)
def test_bad_limits_are_named(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), "lime", **options)


def test_a_method_without_samples_does_not_stop_early(session):
    with pytest.raises(MasktoolError, match=r"Occlusion draws no samples.*\(seconds=1.0\).*leave that out"):
        explain(session, bright_photograph(), "occlusion", budget=9, seconds=1.0)  # a budget is for every method


def run_with_orders(orders, batch, most=600, top_k=2):
    """Draws to the end of a run whose map (1, 4) is that of the last entry of ``orders`` not beyond the samples."""
    run = SampleRun(Stopping(until="top-k", top_k=top_k), None, most=most)
    for _ in run.pieces(batch):
        if run.pauses:
            values = orders[max(start for start in orders if start <= run.drawn)]
            run.judge(np.array([values], float), np.ones((1, len(values))))
    return run


@pytest.mark.parametrize("batch", [1, 8, 64, 1000])
def test_an_order_that_stands_over_two_doublings_ends_the_run(batch):
    run = run_with_orders({0: [1, 2, 3, 4]}, batch)
    assert run.drawn == 128  # first seen at 32
    assert run.settled
    assert run.quality()[0]["order_since"] == 32
    assert run.notes() == ((),)


@pytest.mark.parametrize("batch", [1, 8, 1000])
def test_an_order_that_changes_begins_anew(batch):
    run = run_with_orders({0: [1, 2, 3, 4], 96: [1, 2, 4, 3]}, batch)
    assert run.drawn == 384
    assert run.quality()[0]["order_since"] == 96


def test_what_stands_below_the_highest_does_not_count():
    swapped = {0: [1, 2, 3, 4], 64: [2, 1, 3, 4], 96: [0, 1, 30, 40]}
    assert run_with_orders(swapped, 8).drawn == 128
    assert run_with_orders(swapped, 8, top_k=3).drawn == 384  # the third changed at 64, and back at 96
    assert run_with_orders({0: [1, 2, 3, 4], 64: [1, 9, 3, 4]}, 8).drawn == 256  # a new one among the highest


def test_parts_that_differ_by_rounding_share_a_rank():
    assert run_with_orders({0: [0, 0, 1, 1], 64: [0, 0, 1 + 1e-9, 1], 96: [1e-9, 0, 1, 1 + 1e-9]}, 8).drawn == 128
    assert run_with_orders({0: [0, 0, 0, 0]}, 8).drawn == 128  # a flat map is one rank


def test_more_of_the_highest_than_there_are_is_all_of_them():
    assert run_with_orders({0: [1, 2, 3, 4]}, 8, top_k=9).drawn == 128
    assert run_with_orders({0: [1, 2, 3, 4], 64: [2, 1, 3, 4]}, 8, top_k=9).drawn == 256


def test_an_order_that_has_not_settled_is_noted_with_the_number_that_would_reach():
    run = run_with_orders({0: [1, 2, 3, 4], 64: [4, 3, 2, 1]}, 8, most=250)
    assert run.drawn == 250
    assert not run.settled
    ((note,),) = run.notes()
    assert str(note).startswith("the order of the 2 highest parts had not settled after 250 samples: it last changed")
    assert "at 64, and two doublings would be 256; n_samples=256 would reach there" in note


def test_every_targets_order_must_settle():
    run = SampleRun(Stopping(until="top-k", top_k=1), None, most=600)
    for _ in run.pieces(16):
        if run.pauses:
            later = [0.0, 1.0] if run.drawn < 64 else [1.0, 0.0]
            run.judge(np.array([[0.0, 1.0], later]), np.ones((2, 2)))
    assert run.drawn == 256
    assert [each["order_since"] for each in run.quality()] == [32, 64]


def test_of_pixels_the_cells_are_ordered():
    values = np.zeros((14, 21))
    values[4:6, 9:12], values[0:2, 0:3] = 3, 2  # cells (2, 3) and (0, 0) of 7 x 7
    means = mean_of_cells(values)
    assert means.reshape(7, 7)[2, 3] == 3
    assert means.reshape(7, 7)[0, 0] == 2
    assert means.sum() == 5
    order = TopOrder(2)
    for samples in (10, 20):
        order.look(values + np.random.default_rng(samples).normal(size=values.shape) * 0.1, samples)
    assert order.since == 10  # though no two pixels kept their order


@pytest.mark.parametrize("method", DRAWING)
@pytest.mark.parametrize("batch", [1, 64])
def test_top_k_gives_one_answer_whatever_the_batch(session, method, batch):
    options = {"target": 0, "until": "top-k", "top_k": 1, "seed": 3}
    found = explain(session, noise_photograph(), method, perturbations_per_eval=batch, **options)
    usual = explain(session, noise_photograph(), method, **options)
    assert found.quality["samples"] == usual.quality["samples"]
    assert found.quality["order_since"] == usual.quality["order_since"]
    assert (found.settings["until"], found.settings["top_k"]) == ("top-k", 1)
    repeated = explain(session, noise_photograph(), method, target=0, seed=3, n_samples=usual.quality["samples"])
    assert np.array_equal(repeated.attributions, usual.attributions)


@pytest.mark.parametrize("options", [{"until": "top-k", "tolerance": 0.1}, {"top_k": 3}])
def test_the_limit_of_the_other_question_is_refused(session, options):
    with pytest.raises(MasktoolError, match=r"which parts are highest.*leave one of them out"):
        explain(session, bright_photograph(), "lime", **options)
    with pytest.raises(MasktoolError, match="top_k"):
        explain(session, bright_photograph(), "lime", until="top-k", top_k=0)
