"""Insertion and deletion: known curves, fair ties, the passes they cost, and Quantus's pixel flipping."""

import numpy as np
import pytest

from evaluation.trials import Counting, black_fill, linear, make_trial
from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.insertion_deletion import InsertionDeletion
from masktool.evaluation.metrics.faithfulness.ranking import rank_pixels

ROUNDING = 1e-9
"""Sums of a few float64 in another order."""


def pixel_visible(position):
    """The model that is sure if one pixel of the first row is there, and sure of the contrary if not."""
    return black_fill(lambda images: images[:, 0, 0, position])


def test_a_step_function_has_the_area_beside_its_step():
    trial = make_trial({"map": np.arange(10, 0, -1)[None]}, pixel_visible(3))  # the fourth pixel to come
    found = InsertionDeletion(n_steps=10).measure(trial)["map"]
    assert found.curves["insertion"] == [0] * 4 + [1] * 7
    assert found.curves["deletion"] == [1] * 4 + [0] * 7
    assert found.figures["insertion"] == pytest.approx(0.65, abs=ROUNDING)  # .6 full, and half of the step's .1
    assert found.figures["deletion"] == pytest.approx(0.35, abs=ROUNDING)


def test_the_area_is_over_shares_of_pixels_where_steps_are_uneven():
    trial = make_trial({"map": np.arange(5, 0, -1)[None]}, linear(np.full((1, 5), 0.2)))
    found = InsertionDeletion(n_steps=3).measure(trial)["map"]  # 0, 2, 3 and 5 pixels
    assert found.curves["insertion"] == pytest.approx([0, 0.4, 0.6, 1], abs=1e-6)
    x, y = [0, 0.4, 0.6, 1], found.curves["insertion"]
    assert found.figures["insertion"] == pytest.approx(np.trapezoid(y, x), abs=ROUNDING)
    assert found.figures["insertion"] == pytest.approx(0.5, abs=1e-6)  # of a straight line


def test_curves_begin_and_end_with_the_whole_image_and_with_nothing():
    weights = np.random.default_rng(0).random((6, 6)) / 36
    trial = make_trial({"map": weights}, linear(weights))
    curves = InsertionDeletion(n_steps=6).measure(trial)["map"].curves
    assert curves["insertion"][0] == curves["deletion"][-1] == 0
    assert curves["insertion"][-1] == curves["deletion"][0] == trial.full
    assert len(curves["insertion"]) == len(curves["deletion"]) == 7


def test_a_linear_model_prefers_its_own_weights_to_any_other_map():
    random = np.random.default_rng(1)
    weights = random.random((8, 8)) / 32
    maps = {"own": weights, "opposite": -weights, **{f"random {n}": random.random((8, 8)) for n in range(5)}}
    found = InsertionDeletion(n_steps=16).measure(make_trial(maps, linear(weights)))
    insertion = {name: each.figures["insertion"] for name, each in found.items()}
    deletion = {name: each.figures["deletion"] for name, each in found.items()}
    assert max(insertion, key=insertion.get) == min(deletion, key=deletion.get) == "own"
    assert min(insertion, key=insertion.get) == max(deletion, key=deletion.get) == "opposite"


def test_a_map_costs_two_passes_a_step_and_no_batch_is_larger_than_asked():
    random = np.random.default_rng(2)
    counting = Counting(linear(random.random((12, 12))))
    maps = {name: random.random((12, 12)) for name in "ab"}
    InsertionDeletion(n_steps=60).measure(make_trial(maps, counting, batch=7))
    assert counting.images == 2 + 2 * 2 * 59  # both ends once, whatever the number of maps
    assert counting.largest == 7


def test_the_batch_does_not_matter():
    random = np.random.default_rng(3)
    weights, maps = random.random((9, 7)), {"map": random.random((9, 7)), "ties": np.ones((9, 7))}
    one, many = (
        InsertionDeletion(n_steps=9).measure(make_trial(maps, linear(weights), batch=batch)) for batch in (1, 64)
    )
    assert one == many


def test_ties_come_in_random_order():
    """A constant map has the expectation of a random order, wherever the object lies in the array."""
    areas = {}
    for position in (0, 99):
        trials = (make_trial({"ones": np.ones((1, 100))}, pixel_visible(position), seed=seed) for seed in range(200))
        areas[position] = np.mean(
            [InsertionDeletion(20).measure(trial)["ones"].figures["insertion"] for trial in trials]
        )
    # of one image the area is uniform on [0, 1]: a standard error of .29 / sqrt(200) = .02
    assert areas[0] == pytest.approx(0.5, abs=0.08)
    assert areas[99] == pytest.approx(0.5, abs=0.08)


def test_ranks_follow_the_map_and_the_seed_breaks_ties_only():
    ranks = rank_pixels(np.array([[1.0, 5.0], [3.0, 3.0]]), np.random.default_rng(0))
    assert ranks[0].tolist() == [3, 0]
    assert sorted(ranks[1].tolist()) == [1, 2]
    orders = {tuple(rank_pixels(np.zeros((1, 3)), np.random.default_rng(seed))[0]) for seed in range(100)}
    assert len(orders) == 6


def test_the_same_image_and_seed_give_the_same_figures_whatever_ran_before():
    weights, maps = np.random.default_rng(4).random((5, 5)), {"ones": np.ones((5, 5))}
    trial = make_trial(maps, linear(weights))
    first = InsertionDeletion(5).measure(trial)
    trial.random("something else").random(10)
    assert InsertionDeletion(5).measure(make_trial(maps, linear(weights))) == first
    assert InsertionDeletion(5).measure(make_trial(maps, linear(weights), name="other.png")) != first


@pytest.mark.parametrize("n_steps", [0, 1])  # of one step both ends are all, and every map has the same
def test_bad_options_are_refused(n_steps):
    with pytest.raises(MasktoolError, match="n_steps"):
        InsertionDeletion(n_steps=n_steps)


QUANTUS_FLIPPING = [
    0.4081717,
    0.186932,
    0.5543268,
    0.565558,
    0.6560735,
    0.2886181,
    0.2266011,
    0.2442376,
    0.3815653,
    0.2405751,
    0.1941292,
    0.3333333,
]
"""Quantus 0.6.0, ``PixelFlipping(features_in_step=3, perturb_baseline="black", normalise=False)`` of the case below."""


def flipping_case():
    """A linear softmax model with three classes, an image 6 x 6 and a map."""
    weights = np.sin(np.arange(108.0)).reshape(3, 36).astype(np.float32)
    image = np.abs(np.cos(np.arange(36.0))).reshape(1, 1, 6, 6).astype(np.float32)
    image[0, 0, 0, 0] = 0  # Quantus's black is the image's darkest value
    return weights, image, np.cos(np.arange(36.0) ** 2).reshape(6, 6)


def test_deletion_is_quantus_pixel_flipping():
    weights, image, attributions = flipping_case()

    def answer(images, masks):
        powers = np.exp((images if masks is None else images * masks).reshape(-1, 36) @ weights.T)
        return powers / powers.sum(axis=1, keepdims=True)

    trial = make_trial({"map": attributions}, answer, image=image)
    ours = InsertionDeletion(n_steps=12).measure(trial)["map"].curves["deletion"]
    assert ours[1:] == pytest.approx(QUANTUS_FLIPPING, abs=1e-6)  # float32 on both sides


def test_what_is_held_of_quantus_is_what_it_gives():
    quantus, torch = pytest.importorskip("quantus"), pytest.importorskip("torch")
    weights, image, attributions = flipping_case()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3, bias=False)).eval()
    network[1].weight.data = torch.as_tensor(weights)
    metric = quantus.PixelFlipping(features_in_step=3, perturb_baseline="black", normalise=False, disable_warnings=True)
    found = metric(network, image, np.array([0]), attributions[None, None], softmax=True, device="cpu")
    assert np.ravel(found).tolist() == pytest.approx(QUANTUS_FLIPPING, abs=1e-6)
