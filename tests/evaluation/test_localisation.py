"""Localisation on the demo network, whose objects are known exactly: methods beat maps that know nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from masktool import MasktoolError, demo, load
from masktool.datasets.dataset import Dataset, DatasetImage
from masktool.demo import shapes
from masktool.evaluation.maps import BASELINE_MAPS, MethodChoice
from masktool.evaluation.metrics.localisation.boxes import box_of
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.parts.localisation import BOX_FIGURES, LOWER_IS_BETTER, PIXEL_FIGURES, Localisation
from masktool.evaluation.running import run_part
from masktool.evaluation.scene import read_scene

N_IMAGES = 24
OCCLUSION = MethodChoice("occlusion", {"sliding_window_shapes": 12, "strides": 6})
LIME = MethodChoice("lime", {"n_segments": 20}, n_samples=100)


@pytest.fixture(scope="module")
def session():
    with load(demo.model_path(), "cpu", threads=1) as session:
        yield session


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Pictures with their classes and exact objects."""
    folder, pictures, found = tmp_path_factory.mktemp("pictures"), shapes.draw(11, N_IMAGES), []
    for index in range(N_IMAGES):
        path = folder / f"{index:02}.png"
        Image.fromarray(pictures.images[index]).save(path)
        found.append(
            DatasetImage(path.name, path, int(pictures.labels[index]), object_mask=pictures.object_masks[index])
        )
    return tuple(found)


@pytest.fixture(scope="module")
def few(samples):
    """Enough of them for what does not depend on chance."""
    return samples[:4]


@pytest.fixture(scope="module")
def part(session):
    return Localisation([NamedModel("layer", session)], [OCCLUSION, LIME])


@pytest.fixture(scope="module")
def evaluation(part, samples):
    return run_part(part, Dataset(samples))


@pytest.fixture(scope="module")
def evaluation_of_few(part, few):
    return run_part(part, Dataset(few))


def figures_of(evaluation):
    """Figures by method and name."""
    found = {}
    for table in evaluation.findings.tables:
        for row in table.rows:
            found.setdefault(row[0], {}).update(zip(table.columns, row, strict=True))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["occlusion", "lime"])
@pytest.mark.parametrize("name", [*PIXEL_FIGURES, *BOX_FIGURES])
def test_methods_beat_random_in_every_metric(evaluation, method, name):
    """In LE and OM by less than elsewhere: what exceeds the mean of a map that is no mask is seldom one tight piece."""
    figures = figures_of(evaluation)
    own, random = figures[method][name], figures["random"][name]
    assert own.n == random.n == N_IMAGES
    if name in LOWER_IS_BETTER:
        assert own.value < random.value - 0.05
    else:
        assert own.low > random.high


def test_every_method_stands_beside_all_baselines(evaluation_of_few):
    findings = evaluation_of_few.findings
    for table in findings.tables:
        assert [row[:2] for row in table.rows] == [
            ("occlusion", "layer"),
            ("lime", "layer"),
            *((name, "none") for name in BASELINE_MAPS),
        ]
    assert "true class" in findings.tables[0].caption
    assert len(findings.charts[0].x) == len(findings.tables[0].rows)


def test_what_ones_and_the_mean_passes_must_be(evaluation_of_few, few):
    figures = figures_of(evaluation_of_few)
    shares = [sample.object_mask.mean() for sample in few]
    assert figures["ones"]["pointing game"].value == pytest.approx(np.mean(shares))
    assert figures["ones"]["energy"].value == pytest.approx(np.mean(shares))
    assert figures["ones"]["PxAP"].value == pytest.approx(np.mean(shares))  # all pictures are of one size
    assert figures["ones"]["LE"].value == pytest.approx(1)  # no object fills half of the picture
    assert figures["lime"]["passes"] == 101
    assert figures["ones"]["passes"] is None


def test_an_exact_map_is_perfect_in_every_pixel_and_box_metric(part, few, monkeypatch):
    """A baseline that is the object itself."""

    def exact_map(scene, seed):
        return scene.inside.astype(float)

    monkeypatch.setitem(BASELINE_MAPS, "exact", exact_map)
    figures = figures_of(run_part(part, Dataset(few[:2])))["exact"]
    for name in ("pointing game", "energy", "PxAP", "MaxBoxAcc V1", "MaxBoxAcc V2"):
        assert figures[name].value == 1
    assert figures["LE"].value == 0


def test_results_are_the_same_again_and_do_not_depend_on_which_images_ran_before(part, samples, session):
    scenes = [read_scene(sample, session) for sample in samples[:2]]
    forwards = [json.dumps(part.measure(scene)) for scene in scenes]
    backwards = [json.dumps(part.measure(scene)) for scene in scenes[::-1]]
    assert forwards == backwards[::-1]
    records = {sample.name: part.measure(scene) for sample, scene in zip(samples[:2], scenes, strict=True)}
    assert part.summarise(records) == part.summarise(json.loads(json.dumps(records)))


def relabelled(sample, label):
    return DatasetImage(sample.name, sample.path, label, object_mask=sample.object_mask)


def test_correct_only_leaves_out_what_the_model_gets_wrong(session, samples):
    data = Dataset((relabelled(samples[0], (samples[0].label + 1) % len(shapes.LABELS)), *samples[1:4]))
    models = [NamedModel("layer", session)]
    everything = figures_of(run_part(Localisation(models, [OCCLUSION]), data))["occlusion"]
    found = run_part(Localisation(models, [OCCLUSION], correct_only=True), data)
    correct = figures_of(found)["occlusion"]
    assert (everything["energy"].n, correct["energy"].n) == (4, 3)
    assert correct["OM"] == correct["LE"]
    assert everything["OM"].value == pytest.approx((1 + 3 * correct["OM"].value) / 4)
    assert "gets 3 of 4 images right" in found.findings.notes[0]


def test_all_images_wrong_leaves_every_figure_undefined(session, samples):
    wrong = tuple(relabelled(sample, (sample.label + 1) % len(shapes.LABELS)) for sample in samples[:2])
    found = run_part(Localisation([NamedModel("layer", session)], [OCCLUSION], correct_only=True), Dataset(wrong))
    assert {figures_of(found)["occlusion"][name].n for name in (*PIXEL_FIGURES, *BOX_FIGURES)} == {0}


def test_an_object_that_the_crop_leaves_out_is_undefined_and_never_0(session, tmp_path, samples):
    """A picture twice as wide as high: its left quarter is cropped away."""
    picture = np.zeros((64, 128, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "wide.png")
    out = DatasetImage("wide.png", tmp_path / "wide.png", 0, boxes=((0, 0, 20, 20),))
    found = run_part(Localisation([NamedModel("layer", session)], [OCCLUSION]), Dataset((out, samples[0])))
    for name in (*PIXEL_FIGURES, *BOX_FIGURES):
        assert figures_of(found)["random"][name].n == 1
    assert "Of 2 objects the crop left 1 out" in found.findings.notes[1]


def test_boxes_replace_masks_where_only_they_are_known(session, samples, part):
    sample = samples[0]
    boxed = DatasetImage(sample.name, sample.path, sample.label, boxes=(box_of(sample.object_mask),))
    by_mask, by_box = (part.measure(read_scene(each, session))["maps"]["layer"]["lime"] for each in (sample, boxed))
    for name in ("iou", "levels", "f1"):
        assert by_mask[name] == by_box[name]
    assert by_box["energy"] > by_mask["energy"]


@pytest.mark.parametrize(("change", "message"), [({"label": None}, "no label"), ({"object_mask": None}, "no object")])
def test_what_is_missing_is_a_problem_and_the_image_is_skipped(part, samples, change, message):
    known = {"label": samples[0].label, "object_mask": samples[0].object_mask} | change
    lacking = DatasetImage("lacking.png", samples[0].path, **known)
    found = run_part(part, Dataset((lacking, samples[1])))
    assert [problem.where for problem in found.problems] == ["lacking.png"]
    assert message in found.problems[0].what
    assert found.n_images == 1
    with pytest.raises(MasktoolError, match="no image could be measured"):
        run_part(part, Dataset((lacking,)))


def test_pictures_of_chosen_images(session, samples, tmp_path):
    part = Localisation(
        [NamedModel("layer", session)], [OCCLUSION], overlays=tmp_path, pictured=frozenset({samples[1].name})
    )
    run_part(part, Dataset(samples[:2]))
    assert [path.name for path in tmp_path.iterdir()] == [f"{samples[1].name}.layer.occlusion.png"]
