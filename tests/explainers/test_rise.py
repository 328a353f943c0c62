"""RISE: masks as published, memory of one batch, and an honest standard error."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from explainers.models import SIZE, bright_photograph, noise_photograph, write_region_model
from masktool import MasktoolError, explain, load
from masktool.explainers.methods.rise import EnlargedGrids, Rise, enlargements, upsample
from masktool.explainers.subject import Subject
from masktool.explainers.targets.class_target import SettledClass
from masktool.explainers.task import Task
from masktool.runtime.preprocessing import PreparedImage


def make_task(size=(20, 30), seed=0, batch=7, masking="fill"):
    prepared = PreparedImage(np.zeros((1, 3, *size), np.float32), size, size, (0, 0, size[1], size[0]))
    return Task(
        subject=Subject(prepared, Image.new("RGB", size[::-1]), None),
        scores=np.zeros(1, np.float32),
        targets=(SettledClass(0, given=False),),
        base=np.zeros(1),
        masking=masking,
        seed=seed,
        perturbations_per_eval=batch,
        evaluate=None,
        predict=None,
    )


def collect(method, **task):
    asked = make_task(**task)
    return np.concatenate(
        list(map(method.design(asked).expand, method.rows(asked, asked.batch_ranges(method.n_masks))))
    )


def test_masks_do_not_depend_on_the_batch():
    method = Rise(n_masks=23)
    assert np.array_equal(collect(method, batch=7), collect(method, batch=23))
    assert not np.array_equal(collect(method), collect(method, seed=1))


def test_masks_have_the_right_shape_range_and_mean():
    masks = collect(Rise(n_masks=3000, p=0.3))
    assert masks.shape == (3000, 1, 20, 30)
    assert masks.dtype == np.float32
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert abs(masks.mean() - 0.3) < 0.01
    assert np.abs(masks.mean(axis=0) - 0.3).max() < 0.05


def test_masks_are_cut_where_the_masking_ignores_their_scale():
    soft = collect(Rise(n_masks=50))
    assert np.array_equal(collect(Rise(n_masks=50), masking="layer"), soft >= 0.5)
    assert np.array_equal(collect(Rise(n_masks=50, binary=False), masking="layer"), soft)
    assert np.array_equal(collect(Rise(n_masks=50, binary=True)), soft >= 0.5)


def test_enlargement_agrees_with_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    grid = np.random.default_rng(0).random((7, 7))
    rows, columns = enlargements(20, 7), enlargements(30, 7)
    full = transform.resize(grid, (8 * 3, 8 * 5), order=1, mode="edge", anti_aliasing=False)
    offsets = np.array([[2, 3]])
    (mask,) = upsample(grid[None].astype(np.float32), offsets, rows, columns)
    np.testing.assert_allclose(mask[0], full[2:22, 3:33], atol=1e-6)


def test_offsets_reach_every_position():
    assert enlargements(20, 7).shape == (3, 20, 7)
    assert enlargements(5, 7).shape == (1, 5, 7)
    assert (enlargements(30, 7).sum(axis=2) == 2 * 8 * 5).all()


@pytest.mark.parametrize("size", [(227, 227), (224, 299), (33, 32)])
def test_no_rounding_decides_where_a_mask_is_cut(size):
    rows, columns = (
        enlargements(length, 8) for length in size
    )  # with an odd number of cells no pixel lies on the edge
    method = Rise(n_masks=12, grid_size=8)
    ((kept, offsets),) = method.grids(size, 0, [range(12)])
    exact = rows[offsets[:, 0]].astype(np.int64) @ kept @ columns[offsets[:, 1]].astype(np.int64).transpose(0, 2, 1)
    whole = int(rows[0, 0].sum() * columns[0, 0].sum())
    assert np.array_equal(collect(method, size=size, masking="layer")[:, 0] == 1, 2 * exact >= whole)
    assert (2 * exact == whole).any()  # else the edge was not tried


def test_map_is_the_published_sum(session):
    method = Rise(n_masks=40)
    options = {"n_masks": 40, "binary": False, "estimator": "mean", "normalisation": "expected"}
    found = explain(session, noise_photograph(), "rise", target=0, **options)
    masks = collect(method, size=SIZE, batch=40)
    red = noise_photograph()[None, :, :, 0] / 255
    scores = (red * masks[:, 0])[:, :8, :12].sum(axis=(1, 2)) * 4 / (16 * 24)
    expected = (scores[:, None, None] * masks[:, 0]).sum(axis=0) / (40 * 0.5)
    np.testing.assert_allclose(found.model_attributions, expected, rtol=1e-5)


def test_map_is_the_mean_score_while_kept(session):
    found = explain(session, noise_photograph(), "rise", target=0, n_masks=40, estimator="mean")
    assert found.settings["binary"] is True
    masks = collect(Rise(n_masks=40), size=SIZE, batch=40, masking="layer")
    red = noise_photograph()[None, :, :, 0] / 255
    scores = (red * masks[:, 0])[:, :8, :12].sum(axis=(1, 2)) * 4 / (16 * 24)
    expected = [[scores[masks[:, 0, i, j] == 1].mean() for j in range(SIZE[1])] for i in range(SIZE[0])]
    np.testing.assert_allclose(found.model_attributions, expected, rtol=1e-5)


ESTIMATORS = [{}, {"estimator": "mean"}, {"estimator": "mean", "normalisation": "expected"}]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_region_stands_out(session, estimator):
    found = explain(session, bright_photograph(), "rise", target=1, n_samples=800, **estimator)
    inside = found.model_attributions[8:, 12:].mean()
    outside = found.model_attributions[:8, :12].mean()
    assert inside - outside > 3 * found.quality["attributions_error"]


@pytest.mark.parametrize("normalisation", ["kept", "expected"])
def test_standard_error_is_what_repeated_runs_show(session, normalisation):
    options = {"target": 0, "estimator": "mean", "normalisation": normalisation}
    runs = [explain(session, noise_photograph(), "rise", n_masks=200, seed=seed, **options) for seed in range(20)]
    spread = np.sqrt(np.var([run.model_attributions for run in runs], axis=0, ddof=1).mean())
    estimate = np.mean([run.quality["attributions_error"] for run in runs])
    assert estimate == pytest.approx(spread, rel=0.25)
    larger = explain(session, noise_photograph(), "rise", n_masks=800, **options)
    assert larger.quality["attributions_error"] == pytest.approx(estimate / 2, rel=0.1)


def test_only_one_batch_of_masks_exists_at_a_time(session):
    """Masks are read as they are needed: before batch i is scored, no later one has been made."""
    made, scored = [], []
    method = Rise(n_masks=30)
    original, original_run = EnlargedGrids.expand, session.run

    def counted(self, rows):
        masks = original(self, rows)
        made.append(len(masks))
        return masks

    def watched(images, masks=None, inputs=None, outputs=None):
        if masks is not None:
            scored.append(len(made))
        return original_run(images, masks, inputs, outputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EnlargedGrids, "expand", counted)
        patch.setattr(session, "run", watched)
        explain(session, bright_photograph(), "rise", n_masks=method.n_masks, perturbations_per_eval=10)
    assert made == [10, 10, 10]
    assert scored == [1, 2, 3]


@pytest.mark.parametrize("estimator", ["regression", "mean"])
def test_memory_does_not_grow_with_the_number_of_masks(tmp_path, estimator):
    size = (64, 64)
    path = write_region_model(tmp_path / "model.onnx", size=size)
    peaks = []
    options = {"estimator": estimator, "perturbations_per_eval": 32}
    with load(path, providers="cpu", threads=1) as session:
        for n_masks in (400, 4000):
            explain(session, noise_photograph(size), "rise", n_masks=n_masks, **options)  # whatever is made once
            tracemalloc.start()
            explain(session, noise_photograph(size), "rise", n_masks=n_masks, **options)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalisation": "sum"}, "normalisation.*kept"),
        ({"n_masks": 1}, "n_masks.*from 2"),
        ({"p": 0.0}, "p.*above 0"),
        ({"grid_size": 2.5}, "grid_size.*whole number"),
        ({"estimator": "median"}, "estimator.*regression | mean"),
        ({"normalisation": "expected"}, "the regression divides by no sum.*set estimator=mean"),
        ({"grid_size": 13}, r"too fine for the regression \(grid_size\): expected at most 12, got 13"),
    ],
)
def test_bad_options_are_named(session, options, message):
    with pytest.raises(MasktoolError, match=message):
        explain(session, bright_photograph(), "rise", **options)
