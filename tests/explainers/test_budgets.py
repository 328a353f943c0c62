"""Budgets: no method exceeds one, each makes more of a larger one, and what is too small is one line."""

import numpy as np
import pytest

from explainers.models import noise_photograph, write_region_model
from explainers.small_network import SMALL_SIZE, export_small
from masktool import MasktoolError, explain, explain_targets, load
from masktool.explainers import budgets
from masktool.explainers.budgets import METHODS_BY_BUDGET, DefaultMethod, default_for_budget
from masktool.explainers.method import METHODS, Method
from masktool.explainers.methods.occlusion import window_corners, windows_within

BUDGETS = (3, 25, 100, 250, 1000)
OF_THE_FILE = {"masker"}
"""Methods that need an output that this network does not have."""
ALL = sorted(set(METHODS) - OF_THE_FILE)
NEVER_STABLE = {"tolerance": 1e-6}
TOO_SMALL = {
    3: {
        *("attribution-mask", "extremal", "integrated-gradients", "kernel-shap", "neuromask"),
        *("recipro-cam", "sobol"),
    },
    25: {"extremal", "neuromask", "recipro-cam"},
}
"""What cannot be had for a budget: 50 steps of a mask, 7 x 8 places, two points and their exchanges."""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with load(export_small(tmp_path_factory.mktemp("budgets") / "small.onnx"), "cpu", threads=1) as session:
        yield session


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(3).normal(size=(3, *SMALL_SIZE)).astype(np.float32)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("method", ALL)
def test_no_result_exceeds_its_budget(network, image, method, budget):
    if method in TOO_SMALL.get(budget, ()):
        with pytest.raises(MasktoolError, match=rf"budget={budget}.*at least \d+") as refused:
            explain(network, image, method, budget=budget)
        assert "\n" not in refused.value.message
        return
    before = network.forward_passes
    found = explain(network, image, method, budget=budget, **(NEVER_STABLE if METHODS[method].draws() else {}))
    assert network.forward_passes - before == found.forward_passes <= budget
    assert found.settings["budget"] == budget
    assert np.isfinite(found.attributions).all()


@pytest.mark.parametrize("method", ALL)
def test_the_budget_is_for_all_targets_together(network, image, method):
    before = network.forward_passes
    found = explain_targets(network, image, [0, 1, 2], method, budget=250)
    assert network.forward_passes - before == found[0].forward_passes <= 250


@pytest.mark.parametrize("method", sorted(name for name in ALL if METHODS[name].most_samples is not None))
def test_methods_that_draw_use_a_larger_budget_than_their_own(network, image, method):
    few, many = (explain(network, image, method, budget=n, tolerance=1e-6) for n in (250, 1000))
    assert few.forward_passes > 200
    assert many.forward_passes > 900
    stable = explain(network, image, method, budget=1000, tolerance=0.9)
    assert stable.forward_passes < 500  # it is the most that may be, and a stable map ends it


def test_what_the_user_sets_stays_and_is_cut_where_it_counts_passes(network, image):
    assert explain(network, image, "lime", budget=25, n_segments=40).settings["n_segments"] == 40
    assert explain(network, image, "lime", budget=25).settings["n_segments"] == 12
    found = [explain(network, image, "kernel-shap", budget=n).settings["n_segments"] for n in (10, 25, 250)]
    assert found == [4, 8, 24]
    assert [explain(network, image, "hsic", budget=n).settings["grid_size"] for n in (25, 100, 250)] == [2, 5, 7]
    assert explain(network, image, "lime", budget=60, n_samples=40).forward_passes == 41
    assert explain(network, image, "integrated-gradients", budget=25, n_steps=40).settings["n_steps"] == 22
    with pytest.raises(MasktoolError, match=r"too small for Occlusion.*budget=25.*at least 271"):
        explain(network, image, "occlusion", budget=25, sliding_window_shapes=[7, 8], strides=[3, 4])


@pytest.mark.parametrize("size", [(224, 224), (56, 64), (31, 57), (16, 24), (3, 200), (1, 1)])
@pytest.mark.parametrize("count", [1, 2, 5, 24, 99, 249, 999])
def test_windows_cover_the_input_and_fit(size, count):
    chosen = windows_within(count, size)
    corners = window_corners(size, *chosen)
    assert 1 <= len(corners) <= count
    seen = np.zeros(size, bool)
    for top, left in corners:
        seen[top : top + chosen.sliding_window_shapes[0], left : left + chosen.sliding_window_shapes[1]] = True
    assert seen.all()


def test_windows_stay_a_fifth_of_the_side_and_come_nearer():
    assert windows_within(100, (224, 224)) == ((45, 45), (20, 20))
    assert windows_within(169, (224, 224)) == ((45, 45), (15, 15))
    assert windows_within(10_000, (224, 224)) == ((45, 45), (7, 7))


def test_a_masking_model_costs_its_one_pass(tmp_path):
    with load(write_region_model(tmp_path / "model.onnx", saliency="green"), "cpu", threads=1) as session:
        found = explain(session, noise_photograph(), "masker", budget=3)
        assert found.forward_passes == 1


def test_a_method_that_does_not_say_its_cost_takes_no_budget(network, image, monkeypatch):
    monkeypatch.setattr(METHODS["gradient"], "count_passes", Method.count_passes)
    with pytest.raises(MasktoolError, match=r"Gradient does not say how many passes.*budget=9.*leave it out"):
        explain(network, image, "gradient", budget=9)


def test_the_default_method_is_chosen_by_the_budget_in_one_place(network, image, monkeypatch):
    fewest = [each.fewest_passes for each in METHODS_BY_BUDGET]
    assert fewest == sorted(fewest)
    assert fewest[0] == 0
    for each in METHODS_BY_BUDGET:
        method = METHODS[each.name]
        assert not any((method.needs_gradient, method.needs_head, method.outputs))
    monkeypatch.setattr(budgets, "METHODS_BY_BUDGET", (DefaultMethod(0, "occlusion"), DefaultMethod(100, "rise")))
    monkeypatch.setattr(budgets, "UNLIMITED", "hsic")
    assert [default_for_budget(each) for each in (3, 99, 100, 5000, None)] == [
        *("occlusion", "occlusion", "rise", "rise", "hsic")
    ]
    assert explain(network, image, budget=30).method == "occlusion"
    assert explain(network, image, budget=120).method == "rise"
    assert explain(network, image, n_samples=40, method=None).method == "hsic"
