"""What the package ships: a model that knows the set, twice, and a sample whose object is known."""

import numpy as np
import pytest
from PIL import Image

from masktool import demo, load
from masktool.demo import shapes
from masktool.runtime.preprocessing import prepare

FRESH_SEED = 31_337


@pytest.fixture(scope="module")
def session():
    with load(demo.model_path(), providers="cpu") as session:
        yield session


@pytest.fixture(scope="module")
def fresh(session):
    drawn = shapes.draw(FRESH_SEED, 400)
    prepared = [prepare(Image.fromarray(image), session.metadata.preprocessing).array for image in drawn.images]
    return np.concatenate(prepared), drawn.labels


def test_both_files_are_small():
    for path in (demo.model_path(), demo.program_path()):
        assert path.stat().st_size < 1_000_000


def test_model_describes_itself(session):
    assert session.metadata.masking == "layer"
    assert session.metadata.labels == shapes.LABELS
    assert session.metadata.output_kind == "logits"
    assert session.metadata.preprocessing.size == (shapes.SIZE, shapes.SIZE)
    assert session.metadata.preprocessing.mean == shapes.MEAN
    assert session.metadata.preprocessing.std == shapes.STD


def test_model_knows_fresh_pictures(session, fresh):
    inputs, labels = fresh
    assert (session(inputs).argmax(axis=1) == labels).mean() >= 0.99


def test_export_equals_its_source(session, fresh):
    torch = pytest.importorskip("torch")
    inputs = fresh[0][:64]
    with torch.inference_mode():
        expected = torch.export.load(demo.program_path()).module()(torch.from_numpy(inputs)).numpy()
    assert np.abs(session(inputs) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_files_name_no_directory_of_the_machine_that_made_them():
    here = str(demo.model_path().parents[3]).encode()
    for path in (demo.model_path(), demo.program_path()):
        assert here not in path.read_bytes()


def test_sample_is_a_picture_from_the_set_with_its_object():
    with Image.open(demo.sample_path()) as picture, Image.open(demo.sample_mask_path()) as mask:
        assert picture.mode == "RGB"
        assert picture.size == mask.size == (480, 400)
        pixels, object_mask = np.asarray(picture) / 255, np.asarray(mask).astype(np.bool_)
    assert demo.sample_label() in shapes.LABELS
    assert shapes.AREA_RANGE[0] < object_mask.sum() / 400**2 < shapes.AREA_RANGE[1]
    assert not object_mask[:, :40].any()  # all of it stays in the square crop
    assert not object_mask[:, 440:].any()
    contrast = np.linalg.norm(pixels[object_mask].mean(axis=0) - pixels[~object_mask].mean(axis=0))
    assert contrast > shapes.MIN_CONTRAST / 2


def test_model_knows_the_sample(session):
    with Image.open(demo.sample_path()) as picture:
        scores = session.scores(prepare(picture, session.metadata.preprocessing).array)[0]
    assert shapes.LABELS[scores.argmax()] == demo.sample_label()
    assert scores.max() > 0.9
