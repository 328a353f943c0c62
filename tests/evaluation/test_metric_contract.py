"""What every registered metric must do; one that is added is tried here without a line more."""

import json

import numpy as np
import pytest

from masktool.evaluation.metrics.faithfulness.metric import METRICS
from masktool.evaluation.metrics.faithfulness.trial import Trial

SIZE = (8, 8)
WEIGHTS = np.random.default_rng(0).normal(size=(64, 2))
MAPS = ("rows", "noise", "seeded")


def answer(images, masks):
    """Two classes by a linear layer, of what is kept."""
    kept = images if masks is None else images * masks
    logits = kept.mean(axis=1).reshape(len(kept), -1) @ WEIGHTS
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def draw_map(name, seed=0):
    """A map that every seed leaves alone, and two that it redraws."""
    rows = np.linspace(0, 1, 64).reshape(SIZE)
    return rows if name == "rows" else rows[::-1] + 0.3 * np.random.default_rng([len(name), seed]).normal(size=SIZE)


def make_trial(batch=4, **changes):
    values = {
        "name": "a.png",
        "image": np.random.default_rng(1).normal(size=(1, 3, *SIZE)).astype(np.float32),
        "layout": "NCHW",
        "maps": {name: draw_map(name) for name in MAPS},
        "redraw": draw_map,
        "target": 1,
        "answer": answer,
        "masking": "layer",
        "batch": batch,
        "seed": 7,
    }
    return Trial(**(values | changes))


@pytest.fixture(params=sorted(METRICS))
def metric(request):
    return METRICS[request.param]()


def test_it_says_what_its_figures_are(metric):
    assert metric.title
    assert metric.figures
    assert all(figure.meaning for figure in metric.figures)
    assert len({figure.name for figure in metric.figures}) == len(metric.figures)
    assert all(curve.x_label and curve.y_label and curve.x for curve in metric.curves)


def test_it_judges_every_map_with_every_figure_and_curve(metric):
    found = metric.measure(make_trial())
    assert set(found) == set(MAPS)
    for measured in found.values():
        assert set(measured.figures) == {figure.name for figure in metric.figures}
        assert {name: len(values) for name, values in measured.curves.items()} == {
            curve.name: len(curve.x) for curve in metric.curves
        }
        assert all(value is None or np.isfinite(value) for value in measured.figures.values())


def test_its_records_are_json(metric):
    found = metric.measure(make_trial())
    for measured in found.values():
        assert json.dumps([measured.figures, {name: list(values) for name, values in measured.curves.items()}])


def test_the_same_seed_gives_the_same_whatever_the_batch(metric):
    first, again, small = (metric.measure(make_trial(batch)) for batch in (4, 4, 3))
    assert first == again
    for name in MAPS:
        for figure, value in first[name].figures.items():
            assert small[name].figures[figure] == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_a_map_is_judged_by_itself(metric):
    together = metric.measure(make_trial())
    alone = metric.measure(make_trial(maps={"noise": draw_map("noise")}))
    assert alone["noise"].figures == pytest.approx(together["noise"].figures, rel=1e-6, abs=1e-9, nan_ok=True)
