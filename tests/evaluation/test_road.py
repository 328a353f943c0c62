"""ROAD: the imputation against a hand-computed case, a dense solution and Quantus's; the order; undefined never."""

import numpy as np
import pytest

from evaluation.trials import black_fill, make_trial
from masktool.errors import MasktoolError
from masktool.evaluation.metrics.faithfulness.road import Imputation, Road, neighbour_laplacian

ROUNDING = 1e-9
"""Of a sparse factorisation of a few hundred unknowns in float64."""


def solve_densely(image, missing):
    """The same equations written out one by one, and solved by scipy's general sparse solver."""
    from scipy.sparse import lil_matrix
    from scipy.sparse.linalg import spsolve

    image, (height, width) = image.astype(np.float64), missing.shape
    unknowns = {place: number for number, place in enumerate(zip(*np.nonzero(missing), strict=True))}
    left, right = lil_matrix((len(unknowns), len(unknowns))), np.zeros((len(unknowns), len(image)))
    for (row, column), number in unknowns.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                y, x = row + down, column + across
                if (down, across) == (0, 0) or not (0 <= y < height and 0 <= x < width):
                    continue
                weight = 1 / 6 if 0 in (down, across) else 1 / 12
                left[number, number] += weight
                if (y, x) in unknowns:
                    left[number, unknowns[y, x]] -= weight
                else:
                    right[number] += weight * image[:, y, x]
    filled = image.copy()
    filled[:, missing] = spsolve(left.tocsc(), right).reshape(len(unknowns), -1).T
    return filled


def test_the_centre_of_three_by_three_is_the_weighted_mean_of_its_neighbours():
    image = np.array([[[12, 6, 0], [18, np.nan, 6], [24, 30, 36]]], np.float32)
    image[0, 1, 1] = 1000  # whatever was there
    missing = np.zeros((3, 3), bool)
    missing[1, 1] = True
    filled = Imputation.of(image).fill(missing)
    # beside, above and below: (6 + 18 + 6 + 30) / 6 = 10; corners: (12 + 0 + 24 + 36) / 12 = 6
    assert filled[0, 1, 1] == pytest.approx(16, abs=ROUNDING)
    assert (filled[0] == np.where(missing, 16, image[0])).sum() >= 8


def test_a_corner_has_three_neighbours_whose_weights_are_what_counts():
    image = np.array([[[1000, 6], [12, 3]]], np.float32)
    missing = np.array([[True, False], [False, False]])
    # (6 / 6 + 12 / 6 + 3 / 12) / (1 / 6 + 1 / 6 + 1 / 12)
    assert Imputation.of(image).fill(missing)[0, 0, 0] == pytest.approx(3.25 / (5 / 12), abs=ROUNDING)


def test_two_missing_pixels_suggest_each_other():
    image = np.array([[[1, 1000, 1000, 4]]], np.float32)
    missing = np.array([[False, True, True, False]])
    # x1 = (1 + x2) / 2 and x2 = (x1 + 4) / 2
    assert Imputation.of(image).fill(missing)[0, 0].tolist() == pytest.approx([1, 2, 3, 4], abs=ROUNDING)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("smooth", [False, True])
def test_the_imputation_is_the_direct_solution(share, smooth):
    random = np.random.default_rng(0)
    image = random.standard_normal((3, 21, 16)).astype(np.float32)
    order = np.add.outer(np.arange(21.0), np.arange(16.0) ** 1.5) if smooth else random.random((21, 16))
    missing = order >= np.quantile(order, 1 - share)
    assert np.abs(Imputation.of(image).fill(missing) - solve_densely(image, missing)).max() < ROUNDING


def test_the_system_is_symmetric_and_every_row_sums_to_nothing():
    laplacian = neighbour_laplacian((5, 7))
    assert abs(laplacian - laplacian.T).max() == 0
    assert np.abs(laplacian.sum(axis=1)).max() < ROUNDING
    assert laplacian.diagonal().reshape(5, 7)[2, 3] == pytest.approx(1, abs=ROUNDING)


def test_the_imputation_is_that_of_quantus():
    functions = pytest.importorskip("quantus.functions.perturb_func")
    random = np.random.default_rng(1)
    image = random.standard_normal((3, 12, 9)).astype(np.float32)
    for share in (0.2, 0.6, 0.9):
        missing = random.random((12, 9)) < share
        theirs = functions.noisy_linear_imputation(image.astype(np.float64), np.flatnonzero(missing), noise=0.0)
        assert np.abs(Imputation.of(image).fill(missing) - theirs).max() < ROUNDING


def bright_left(images):
    """Sure when the mean of the left half is above that of the right one."""
    half = images.shape[3] // 2
    difference = images[..., :half].mean(axis=(1, 2, 3)) - images[..., half:].mean(axis=(1, 2, 3))
    return 1 / (1 + np.exp(-40 * difference))


def bright_left_trial(**values):
    image = np.zeros((1, 1, 8, 8), np.float32)
    image[..., 4:] = 0.1
    image[..., 1:7, 1:3] = 1
    inside = (image[0, 0] == 1).astype(np.float64)
    return make_trial({"object": inside, "opposite": -inside}, black_fill(bright_left), image=image, **values)


def test_predictions_go_with_what_they_rest_on():
    found = Road(shares=(0.2, 0.5), noise=0).measure(bright_left_trial())
    assert found["object"].curves == {"road-most-first": [0, 0], "road-least-first": [1, 1]}
    assert found["object"].figures["most-first"] == 0
    assert found["object"].figures["least-first"] == 1
    assert found["object"].figures["gap"] > 0.5
    assert found["opposite"].figures["gap"] < -0.5


def test_noise_is_in_the_images_own_unit_and_alike_for_all_maps():
    seen = []

    def answer(images, masks):
        assert masks is None
        seen.append(images)
        return np.full((len(images), 2), 0.5)

    image = np.random.default_rng(2).standard_normal((1, 2, 40, 40)).astype(np.float32) * [[[[1]], [[50]]]]
    maps = {"a": np.ones((40, 40)), "b": np.ones((40, 40))}
    trial = make_trial(maps, answer, image=image.astype(np.float32), batch=64)
    Road(shares=(0.9,), noise=0.5).measure(trial)
    Road(shares=(0.9,), noise=0).measure(trial)
    noisy, again, clean, _ = seen
    assert np.array_equal(noisy, again)
    deviation = (noisy - clean)[0].std(axis=(1, 2)) / np.sqrt(0.9)
    assert deviation == pytest.approx([0.5, 25], rel=0.1)  # a standard error of 1 / sqrt(2 * 1440) = .02
    assert (noisy[0] == image[0].astype(np.float32)).mean() == pytest.approx(0.1, abs=0.001)


def test_layouts_agree():
    image = np.random.default_rng(3).random((1, 3, 10, 10)).astype(np.float32)
    maps = {"map": np.random.default_rng(4).random((10, 10))}

    def first(images, masks):
        values = images.mean(axis=(1, 2, 3))
        return np.stack([values, 1 - values], axis=1)

    nchw = Road().measure(make_trial(maps, first, image=image))
    nhwc = Road().measure(make_trial(maps, first, image=image.transpose(0, 2, 3, 1), layout="NHWC"))
    assert nhwc["map"].figures["gap"] == pytest.approx(nchw["map"].figures["gap"], abs=1e-6)


PERCENTAGES = (10, 30, 50, 70, 90)
QUANTUS_KEPT = [0.8, 0.55, 0.65, 0.6, 0.4]
"""Quantus 0.6.0, ``ROAD`` of the case below, by percentage, with its imputation at noise 0."""


def kept_case():
    """A linear model with three classes, 20 images 10 x 10 with the class it predicts, and their maps."""
    weights = np.sin(np.arange(300.0)).reshape(3, 100).astype(np.float32)
    images = np.cos(np.arange(2000.0) ** 2).reshape(20, 1, 10, 10).astype(np.float32)
    targets = (images.reshape(20, 100) @ weights.T).argmax(axis=1)
    return weights, images, targets, np.sin(np.arange(2000.0) ** 2 / 7).reshape(20, 10, 10)


def test_kept_predictions_are_those_of_quantus():
    weights, images, targets, maps = kept_case()
    road = Road(shares=[percentage / 100 for percentage in PERCENTAGES], noise=0)
    kept = []
    for image, target, each in zip(images, targets, maps, strict=True):
        trial = make_trial(
            {"map": each}, lambda seen, _: seen.reshape(-1, 100) @ weights.T, image=image[None], target=target
        )
        kept.append(road.measure(trial)["map"].curves["road-most-first"])
    assert np.mean(kept, axis=0).tolist() == pytest.approx(QUANTUS_KEPT, abs=ROUNDING)


def test_what_is_held_of_quantus_is_what_it_gives():
    quantus, torch = pytest.importorskip("quantus"), pytest.importorskip("torch")
    weights, images, targets, maps = kept_case()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(100, 3, bias=False)).eval()
    network[1].weight.data = torch.as_tensor(weights)
    impute = quantus.functions.perturb_func.noisy_linear_imputation
    metric = quantus.ROAD(percentages=list(PERCENTAGES), normalise=False, disable_warnings=True)
    metric.perturb_func = lambda arr, indices: impute(arr.astype(np.float64), indices, noise=0.0).astype(np.float32)
    metric(network, images, targets, maps[:, None], softmax=True, device="cpu")
    found = [float(metric.evaluation_scores[percentage]) for percentage in PERCENTAGES]
    assert found == pytest.approx(QUANTUS_KEPT, abs=ROUNDING)


def test_at_least_one_pixel_stays_and_at_least_one_goes():
    found = Road(shares=(0.001, 0.999)).measure(bright_left_trial())
    assert np.isfinite(found["object"].figures["gap"])


@pytest.mark.parametrize("options", [{"shares": ()}, {"shares": (0, 0.5)}, {"shares": (0.5, 0.2)}, {"noise": -1}])
def test_bad_options_are_refused(options):
    with pytest.raises(MasktoolError, match=next(iter(options))):
        Road(**options)
