"""Extremal perturbations: smooth masks, their area, and what they do to the class."""

import numpy as np
import pytest

from explainers.shapes_model import write_shapes_model
from masktool import MasktoolError, explain, explain_images, load
from masktool.demo import shapes
from masktool.explainers.methods.extremal import AIMS, SmoothMasks, area_terms

PICTURES = shapes.draw(12, 8)
QUICK = {"n_iterations": 150}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    pytest.importorskip("torch")
    path = write_shapes_model(tmp_path_factory.mktemp("shapes") / "fill.onnx", "fill")
    with load(path, "cpu", threads=1) as opened:
        yield opened


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


@pytest.mark.parametrize("area", [0.05, 0.3, 0.99])
def test_area_is_judged_by_sorted_values(area):
    masks = numbers(2, 1, 7, 9)
    kept = round(area * 63)
    reference = np.repeat([0, 1], [63 - kept, kept])
    expected = np.square(np.sort(masks.reshape(2, -1)) - reference).mean(axis=1)
    found = area_terms(masks, area)
    np.testing.assert_allclose(found.losses, expected)
    for place in np.ndindex(masks.shape):
        change = np.zeros_like(masks)
        change[place] = 1e-6
        up, down = (area_terms(masks + sign * change, area).losses[place[0]] for sign in (1, -1))
        assert found.gradients[place] == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-8)


def test_equal_values_share_the_area():
    found = area_terms(np.full((1, 1, 4, 5), 0.5), 0.1)
    assert found.losses[0] == pytest.approx(0.25)
    np.testing.assert_allclose(found.gradients, 2 / 20 * (0.5 - 0.1))


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (6, 5)])
def test_family_runs_from_nothing_to_everything(size):
    family = SmoothMasks(size, 0.09, np.float64)
    none, all_ = (family.smooth(np.full((1, *family.grid), value)).masks for value in (0.0, 1.0))
    assert none.shape == (1, 1, *size)
    np.testing.assert_allclose(none, 0, atol=1e-12)
    np.testing.assert_allclose(all_, 1)


def test_masks_rise_with_every_parameter_and_are_smooth():
    family = SmoothMasks((64, 64), 0.09, np.float64)
    grids = (numbers(1, *family.grid) > 0.9).astype(float)
    low = family.smooth(grids).masks
    assert (family.smooth(np.minimum(grids + 0.1, 1)).masks >= low - 1e-12).all()
    assert 0 <= low.min() <= low.max() <= 1
    assert max(np.abs(np.diff(low, axis=axis)).max() for axis in (2, 3)) < 0.3
    assert np.abs(np.diff(grids, axis=1)).max() == 1


def test_gradients_are_those_of_the_masks():
    family = SmoothMasks((20, 28), 0.3, np.float64)
    grids, weights = numbers(2, *family.grid), numbers(2, 1, 20, 28, seed=1)
    found = family.pull_back(weights, family.smooth(grids))
    for place in np.ndindex(grids.shape):
        change = np.zeros_like(grids)
        change[place] = 1e-5
        up, down = ((family.smooth(grids + sign * change).masks * weights).sum() for sign in (1, -1))
        assert found[place] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("aim", [pytest.param(aim, marks=pytest.mark.slow if aim == "both" else ()) for aim in AIMS])
def test_masks_have_their_area_and_do_what_they_are_for(session, aim):
    found = explain_images(session, list(PICTURES.images[:3]), "extremal", aim=aim, **QUICK)
    for each, inside in zip(found, PICTURES.object_masks, strict=False):
        covered = each.model_attributions.mean()
        assert covered == pytest.approx(0.1, abs=0.03)
        assert each.quality["area_soft"] == pytest.approx(1 - covered if aim == "delete" else covered, rel=1e-5)
        assert each.model_attributions[inside].mean() > 3 * each.model_attributions[~inside].mean()
        if aim == "delete":
            assert each.quality["score_cut"] < each.score
            assert bool(each.notes) == each.quality["kept_cut"]
        else:
            assert each.quality["kept_cut"]
            assert each.notes == ()
        assert each.settings["area"] == 0.1


def test_same_run_same_bytes(session):
    one, two = (
        explain(session, PICTURES.images[0], "extremal", n_iterations=20).to_json().split('"timing"')[0]
        for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize(("option", "value"), [("aim", "keep"), ("area", 1.0), ("smoothness", 0), ("baseline", "red")])
def test_bad_options_are_named(session, option, value):
    with pytest.raises(MasktoolError, match=option):
        explain(session, PICTURES.images[0], "extremal", **{option: value})


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": True}, {"perturbations_per_eval": 0}])
def test_several_images_are_held_to_the_same_numbers_as_one(session, options):
    with pytest.raises(MasktoolError, match="out of range"):
        explain_images(session, list(PICTURES.images[:2]), "extremal", **QUICK, **options)


def test_masks_that_fail_say_so(session):
    wrong = (int(PICTURES.labels[0]) + 1) % len(shapes.LABELS)
    found = explain(session, PICTURES.images[0], "extremal", target=wrong, n_iterations=1)
    assert not found.quality["kept_cut"]
    assert "does not survive the mask cut at .5" in found.notes[0]


@pytest.mark.slow
def test_preserving_masks_lie_on_the_object(session):
    draws = [shapes.draw(seed, 24) for seed in (13, 14)]
    images, objects = (np.concatenate([getattr(each, name) for each in draws]) for name in ("images", "object_masks"))
    found = explain_images(session, list(images), "extremal", perturbations_per_eval=24)
    maps = np.stack([each.model_attributions for each in found])
    assert np.mean([each.quality["kept_cut"] for each in found]) >= 0.95
    assert maps[objects].mean() >= 10 * maps[~objects].mean()
    assert np.mean([inside[mask == mask.max()].mean() for mask, inside in zip(maps, objects, strict=True)]) >= 0.8
