"""Images with what is known of them, brought to the model's input; and the maps that any method must beat."""

import dataclasses

import numpy as np
import pytest
from explainers.models import noise_photograph, write_region_model
from PIL import Image

from masktool import MasktoolError, load
from masktool.contract import Preprocessing
from masktool.datasets.dataset import DatasetImage
from masktool.evaluation.maps import BASELINE_MAPS, MethodChoice, explain_scene, save_overlay
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.scene import fill_boxes, read_scene, require_label


@pytest.fixture
def session(tmp_path):
    """A model that takes the middle 16 x 24 pixels of a photograph whose shorter side is 20."""
    preprocessing = Preprocessing(size=(16, 24), resize="shortest", resize_to=20)
    with load(write_region_model(tmp_path / "model.onnx", preprocessing=preprocessing), "cpu") as session:
        yield session


def write_photograph(path, size=(50, 100), seed=0):
    Image.fromarray(noise_photograph(size, seed)).save(path)
    return path


@pytest.mark.parametrize(("width", "height"), [(100, 50), (60, 60), (48, 160), (31, 20)])
def test_boxes_move_with_the_pixels_that_pillow_moves(session, tmp_path, width, height):
    scale = 20 / min(width, height)
    resized = (round(width * scale), round(height * scale))
    left, top = ((resized[0] - 24) / 2, (resized[1] - 16) / 2)
    box = (0.3 * width, 0.25 * height, 0.7 * width, 0.8 * height)
    write_photograph(tmp_path / "p.png", (height, width))
    scene = read_scene(DatasetImage("p.png", tmp_path / "p.png", boxes=(box,)), session)
    across, down = resized[0] / width, resized[1] / height
    expected = (
        max(box[0] * across - left, 0),
        max(box[1] * down - top, 0),
        min(box[2] * across - left, 24),
        min(box[3] * down - top, 16),
    )
    assert scene.boxes[0] == pytest.approx(expected, abs=0.51)  # the crop starts at a whole pixel


@pytest.mark.parametrize("box", [(30, 12, 58, 40), (0, 0, 100, 50), (45, 20, 46, 30)])
def test_a_white_box_in_a_photograph_is_where_its_box_is(session, tmp_path, box):
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).save(tmp_path / "p.png")
    scene = read_scene(DatasetImage("p.png", tmp_path / "p.png", boxes=(box,)), session)
    brightness = scene.array[0, 0]
    (x0, y0, x1, y1) = scene.boxes[0]
    assert brightness.sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=0.05)
    rows, columns = np.indices(brightness.shape) + 0.5
    centre = [(brightness * each).sum() / brightness.sum() for each in (columns, rows)]
    assert centre == pytest.approx([(x0 + x1) / 2, (y0 + y1) / 2], abs=0.1)
    np.testing.assert_array_equal(scene.inside, fill_boxes(scene.boxes, (16, 24)))


def test_boxes_that_the_crop_leaves_out_are_gone(session, tmp_path):
    write_photograph(tmp_path / "p.png")
    boxes = ((0, 0, 10, 50), (40, 10, 60, 40))
    scene = read_scene(DatasetImage("p.png", tmp_path / "p.png", boxes=boxes), session)
    assert len(scene.boxes) == 1
    assert scene.inside.any()
    gone = read_scene(DatasetImage("p.png", tmp_path / "p.png", boxes=boxes[:1]), session)
    assert gone.boxes == ()
    assert not gone.inside.any()
    unknown = read_scene(DatasetImage("p.png", tmp_path / "p.png"), session)
    assert unknown.inside is None


def test_the_mask_is_the_object_where_both_are_known(session, tmp_path):
    write_photograph(tmp_path / "p.png")
    mask = np.zeros((50, 100), np.uint8)
    mask[20:30, 45:55] = 7
    Image.fromarray(mask).save(tmp_path / "m.png")
    by_file = DatasetImage("p.png", tmp_path / "p.png", boxes=((0, 0, 100, 50),), object_mask=tmp_path / "m.png")
    by_pixels = dataclasses.replace(by_file, object_mask=mask > 0)
    scene = read_scene(by_file, session)
    np.testing.assert_array_equal(scene.inside, read_scene(by_pixels, session).inside)
    assert scene.inside.sum() == 16  # 10 x 10 pixels of 50 x 100, at 20 x 40
    np.testing.assert_array_equal(scene.at_input(mask) > 0, scene.inside)
    with pytest.raises(MasktoolError):
        read_scene(dataclasses.replace(by_file, object_mask=np.ones((9, 9), bool)), session)


def test_pixels_belong_to_a_box_when_their_centre_does():
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:4] = True
    np.testing.assert_array_equal(fill_boxes(((1.6, 0.6, 4.4, 3.4),), (4, 6)), expected)
    np.testing.assert_array_equal(fill_boxes(((0, 0, 1, 1), (5, 3, 6, 4)), (4, 6)).nonzero(), ([0, 3], [0, 5]))
    assert not fill_boxes((), (4, 6)).any()


def test_random_numbers_are_the_images_own(session, tmp_path):
    path = write_photograph(tmp_path / "p.png")
    one, other = (read_scene(DatasetImage(name, path), session) for name in ("one", "other"))
    draws = [scene.random(seed).random(3).tolist() for scene in (one, other, one) for seed in (0, 1)]
    assert draws[:2] == draws[4:]
    assert len({tuple(each) for each in draws}) == 4


def test_a_label_that_is_not_known_is_an_error(session, tmp_path):
    path = write_photograph(tmp_path / "p.png")
    assert require_label(read_scene(DatasetImage("p", path, label=0), session)) == 0
    with pytest.raises(MasktoolError, match="no label"):
        require_label(read_scene(DatasetImage("p", path), session))


def test_digests_tell_whatever_changed(tmp_path):
    for name in ("p.png", "q.png", "m.png", "s.png"):
        (tmp_path / name).write_bytes(name.encode())
    sample = DatasetImage("p", tmp_path / "p.png", 1, ((0, 0, 1, 1),), tmp_path / "m.png", tmp_path / "s.png")
    variants = [
        sample,
        dataclasses.replace(sample, path=tmp_path / "q.png"),
        dataclasses.replace(sample, path=tmp_path / "none.png"),
        dataclasses.replace(sample, label=2),
        dataclasses.replace(sample, boxes=((0, 0, 1, 2),)),
        dataclasses.replace(sample, object_mask=None),
        dataclasses.replace(sample, object_mask=np.ones((2, 3), bool)),
        dataclasses.replace(sample, object_mask=np.ones((3, 2), bool)),
        dataclasses.replace(sample, segments=None),
    ]
    digests = [variant.digest() for variant in variants]
    assert len(set(digests)) == len(variants)
    assert digests == [variant.digest() for variant in variants]
    (tmp_path / "m.png").write_bytes(b"changed")
    assert sample.digest() != digests[0]


def test_baseline_maps_are_what_they_are_called(session, tmp_path):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, 12:] = 255
    Image.fromarray(pixels).resize((30, 20), Image.Resampling.NEAREST).save(tmp_path / "p.png")
    scene = read_scene(DatasetImage("p.png", tmp_path / "p.png"), session)
    maps = {name: make(scene, 0) for name, make in BASELINE_MAPS.items()}
    assert {name: each.shape for name, each in maps.items()} == dict.fromkeys(maps, (16, 24))
    assert all(np.isfinite(each).all() for each in maps.values())
    assert maps["centre"].max() == pytest.approx(maps["centre"][8, 12])
    np.testing.assert_allclose(maps["centre"], maps["centre"][::-1, ::-1])
    assert len(np.unique(maps["random"])) == 16 * 24
    cells = maps["random-cells"]
    assert len(np.unique(cells)) == 7 * 7
    assert (np.count_nonzero(np.diff(cells, axis=0).any(axis=1)), np.count_nonzero(np.diff(cells).any(axis=0))) == (
        6,
        6,
    )
    assert (maps["ones"] == 1).all()
    assert set(maps["edges"].max(axis=0).argsort()[-2:]) == {11, 12}


def test_overlays_are_named_for_the_report(session, tmp_path):
    model = NamedModel("0.5,0,0", session)
    scene = read_scene(DatasetImage("folder/p.png", write_photograph(tmp_path / "p.png")), session)
    found = explain_scene(model, scene, MethodChoice("rise", {"p": 0.4}, n_samples=5), 1, seed=3)
    assert (found.method, found.target, found.settings["seed"], found.settings["p"]) == ("rise", 1, 3, 0.4)
    assert found.forward_passes == 6
    save_overlay(tmp_path / "overlays", scene, model, found)
    assert [path.name for path in (tmp_path / "overlays").iterdir()] == ["folder_p.png.0.5,0,0.rise.png"]
