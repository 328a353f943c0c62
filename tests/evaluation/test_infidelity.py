"""Infidelity: nothing for a linear model's own attributions, by hand, and against Captum's on the same squares."""

import numpy as np
import pytest

from evaluation.trials import Counting, black_fill, linear, make_trial
from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.infidelity import Infidelity, judge

EXACT = 1e-9
"""Squares of differences of float64 scores."""


def test_a_linear_models_own_attributions_explain_everything_at_any_scale():
    weights = np.random.default_rng(0).standard_normal((16, 16)) / 256
    maps = {"own": weights, "in another unit": 1000 * weights, "negative": -weights, "zeros": np.zeros((16, 16))}
    found = Infidelity().measure(make_trial(maps, linear(weights)))
    for name in ("own", "in another unit", "negative"):
        assert found[name].figures == pytest.approx({"infidelity": 0, "unexplained": 0}, abs=EXACT)
    assert found["zeros"].figures["unexplained"] == 1
    assert found["zeros"].figures["infidelity"] > 1e-4


def test_the_best_scale_by_hand():
    # b = (1·2 + 2·1) / (1 + 4) = .8; errors .8 - 2 and 1.6 - 1; E[d²] = 2.5
    found = judge(np.array([1.0, 2.0]), np.array([2.0, 1.0])).figures
    assert found == pytest.approx({"infidelity": (1.44 + 0.36) / 2, "unexplained": 0.9 / 2.5})


def test_the_figure_is_captums_on_the_same_squares():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("captum.metrics")
    random = np.random.default_rng(1)
    weights, image = random.standard_normal((3, 400)) / 4, random.random((1, 1, 20, 20)).astype(np.float32)
    attributions = random.standard_normal((20, 20)) * 5

    def answer(images, masks):
        powers = np.exp((images if masks is None else images * masks).reshape(-1, 400).astype(np.float64) @ weights.T)
        return powers / powers.sum(axis=1, keepdims=True)

    metric, trial = Infidelity(n_squares=60), make_trial({"map": attributions}, answer, image=image, target=1)
    removed = torch.as_tensor(np.concatenate(list(metric.squares(trial)))[:, None].astype(np.float64))
    theirs = metrics.infidelity(
        lambda masks: torch.as_tensor(answer(image, masks.numpy())[:, 1]),
        lambda masks: (removed, masks - removed),
        torch.ones((1, 1, 20, 20), dtype=torch.float64),
        torch.as_tensor(attributions)[None, None],
        n_perturb_samples=60,
        normalize=True,
    )
    ours = metric.measure(trial)["map"].figures["infidelity"]
    assert ours == pytest.approx(theirs.item(), rel=1e-9)
    assert ours > 1e-4  # it is not nothing that agrees


def test_squares_lie_in_the_image_and_have_the_sides_asked_for():
    trial = make_trial({"map": np.ones((20, 30))}, linear(np.ones((20, 30))), batch=64)
    removed = np.concatenate(list(Infidelity(n_squares=500, smallest=0.1, largest=0.5).squares(trial)))
    heights, widths = removed.any(axis=2).sum(axis=1), removed.any(axis=1).sum(axis=1)
    assert (heights == widths).all()
    assert (removed.sum(axis=(1, 2)) == heights * widths).all()
    assert set(heights) == set(range(2, 11))
    assert removed.any(axis=(0, 2)).all()  # up to every border
    assert removed.any(axis=(0, 1)).all()


def test_maps_share_their_passes_and_the_batch_does_not_matter():
    random = np.random.default_rng(2)
    weights = random.standard_normal((12, 12)) / 144
    maps = {str(number): random.random((12, 12)) for number in range(3)}
    counting = Counting(linear(weights))
    found = Infidelity(n_squares=30).measure(make_trial(maps, counting, batch=7))
    assert counting.images == 30 + 1
    assert counting.largest == 7
    again = Infidelity(n_squares=30).measure(make_trial(maps, linear(weights), batch=30))
    for name in maps:
        assert found[name].figures == pytest.approx(again[name].figures, abs=EXACT)


def test_an_indifferent_model_leaves_nothing_to_explain():
    trial = make_trial({"map": np.eye(8)}, black_fill(lambda images: np.full(len(images), 0.25)))
    assert Infidelity().measure(trial)["map"].figures == {"infidelity": 0, "unexplained": None}


@pytest.mark.parametrize("options", [{"n_squares": 0}, {"smallest": 0}, {"largest": 1}, {"smallest": 0.6}])
def test_bad_options_are_refused(options):
    with pytest.raises(MasktoolError, match=next(iter(options))):
        Infidelity(**options)
