"""What the paper found, where the objects are known to the pixel: the built-in network and pictures drawn for it.

`python -m benchmarks.maskers synthetic` shows the same on three networks, with means and spreads; here stands what
holds with a margin on one of them.
"""

import numpy as np
import pytest
from PIL import Image

import masktool
from masktool.contract import Preprocessing
from masktool.demo import program_path, shapes
from masktool.evaluation.metrics.localisation.boxes import box_of
from masktool.evaluation.metrics.localisation.pixel_average_precision import count_pixels, pixel_average_precision
from masktool.evaluation.metrics.localisation.tight_box import localisation_error, tight_box_iou
from masktool.maskers.settings import TrainingSettings
from masktool.maskers.train import train_masker
from masktool.runtime.preprocessing import prepare

pytestmark = pytest.mark.slow
PICTURES, EPOCHS, PER_CLASS, TESTED = 800, 8, 10, 300
PREPROCESSING = Preprocessing(size=(64, 64), resize="shortest", resize_to=64, mean=shapes.MEAN, std=shapes.STD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, drawn = tmp_path_factory.mktemp("pictures"), shapes.draw(500, PICTURES)
    for index, (picture, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
        place = root / shapes.LABELS[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def tested():
    return shapes.draw(3_000_000, TESTED)


@pytest.fixture(scope="module")
def measure(folder, tested, tmp_path_factory):
    """Returns a function that trains a masker and measures it; each only once."""
    known = {}

    def run(name, **settings):
        if name not in known:
            epochs = EPOCHS * PICTURES // (PER_CLASS * 8) * 2 // 3 if "per_class" in settings else EPOCHS
            chosen = TrainingSettings(stages="all", min_crop=1.0, epochs=epochs, **settings)
            path = tmp_path_factory.mktemp(name) / "masker.onnx"
            train_masker(
                program_path(), folder, path, preprocessing=PREPROCESSING, labels=shapes.LABELS, settings=chosen
            )
            known[name] = figures_of(path, tested)
        return known[name]

    return run


def figures_of(path, tested):
    images = np.concatenate([prepare(Image.fromarray(each), PREPROCESSING).array for each in tested.images])
    with masktool.load(path, "cpu") as session:
        found = session.run(images)
        maps = found["saliency_map"]
        cut = (maps >= 0.5).astype(np.float32)
        kept = (session(images, cut).argmax(1) == tested.labels).mean()
        lost = (session(images, 1 - cut).argmax(1) != tested.labels).mean()
    errors = [
        localisation_error(tight_box_iou(each[0].astype(float), [box_of(inside)]))
        for each, inside in zip(maps, tested.object_masks, strict=True)
    ]
    counts = [
        count_pixels(each[0].astype(float), inside) for each, inside in zip(maps, tested.object_masks, strict=True)
    ]
    return {
        "error": float(np.mean(errors)),
        "precision": pixel_average_precision(counts).value,
        "kept": float(kept),
        "lost": float(lost),
        "area": float(maps.mean()),
    }


def test_both_objectives_localise_better_than_either(measure):
    both, inside, outside = measure("both"), measure("in", objective="in"), measure("out", objective="out")
    assert both["error"] < inside["error"] - 0.02
    assert both["error"] < outside["error"] + 0.02  # less by the mean of three networks, see the benchmark
    assert both["precision"] > outside["precision"] + 0.02


def test_the_mask_is_the_object(measure, tested):
    both = measure("both")
    assert both["error"] < 0.2
    assert both["precision"] > 0.9
    assert tested.object_masks.mean() / 2 < both["area"] < tested.object_masks.mean() * 2
    assert both["kept"] > 0.7
    assert both["lost"] > 0.7


def test_ten_pictures_of_each_class_nearly_suffice(measure):
    assert measure("few", per_class=PER_CLASS)["error"] < measure("both")["error"] + 0.03
