"""Explaining what is no class of a photograph: values of outputs, arrays, open sizes, further inputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from networks.small_graphs import parse
from networks.unusual_graphs import HEADER, detector, many_channels, open_network, random_images, several_inputs
from PIL import Image

import masktool
from explainers.models import noise_photograph
from masktool import MasktoolError, explain, explain_targets, load
from masktool.contract import Preprocessing
from masktool.explainers.pixels import array_pixels
from masktool.explainers.target import TargetError
from masktool.explainers.targets.output_value import resolve_place

METHODS = [("occlusion", {}), ("lime", {"n_samples": 40, "n_segments": 8}), ("rise", {"n_samples": 40})]
PIXELS = Preprocessing(size=(16, 24), resize="exact")


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "masked.onnx"
    masktool.export(detector(), path, preprocessing=PIXELS)
    with load(path, "cpu", threads=1) as session:
        yield session


def export_and_load(model, folder, **options):
    masktool.export(model, folder / "masked.onnx", **options)
    return load(folder / "masked.onnx", "cpu", threads=1)


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_a_value_of_an_output(detection, method, options):
    photograph = noise_photograph((16, 24))
    found = explain(detection, photograph, method, (5, 0), output="boxes", **options)
    assert (found.target, found.output, found.label, found.name) == ((5, 0), "boxes", None, "boxes[5, 0]")
    image = photograph.transpose(2, 0, 1)[None].astype(np.float32) / 255
    assert found.score == pytest.approx(float(detection.run(image)["boxes"][0, 5, 0]), rel=1e-5)
    assert np.ptp(found.attributions) > 0
    document = json.loads(found.to_json())
    assert document["target"] == {
        "output": "boxes", "index": [5, 0], "label": None, "value": pytest.approx(found.score, rel=1e-5)
    }  # fmt: skip
    assert document["meaning"].endswith(("value", "value when hidden", "value while kept"))
    assert found.plot().width > 500


def test_occlusion_is_the_drop_of_the_raw_value(detection):
    """The one window hides everything, so that every pixel is told the whole drop."""
    photograph = noise_photograph((16, 24))
    found = explain(
        detection, photograph, "occlusion", (3, 1), output="scores", sliding_window_shapes=(16, 24), strides=(16, 24)
    )
    image = photograph.transpose(2, 0, 1)[None].astype(np.float32) / 255
    empty = detection.run(image, np.zeros((1, 1, 16, 24)))["scores"][0, 3, 1]
    np.testing.assert_allclose(found.attributions, found.score - empty, atol=1e-6)


def test_several_values_share_the_passes_and_texts_mean_the_same(detection):
    before = detection.forward_passes
    found = explain_targets(detection, noise_photograph(), [(5, 0), "7,1", "top"], "occlusion", output="boxes")
    assert detection.forward_passes - before == found[0].forward_passes
    assert [each.target for each in found[:2]] == [(5, 0), (7, 1)]
    assert found[2].score >= found[0].score


def test_without_an_output_the_error_says_what_to_write(detection):
    message = r"no class output to explain.*got boxes \(N, 24, 4\), scores \(N, 24, 2\); for example output=.boxes."
    with pytest.raises(MasktoolError, match=message + r", target=\(0, 0\)"):
        explain(detection, noise_photograph())


@pytest.mark.parametrize(
    ("output", "target", "message"),
    [
        ("box", (0, 0), r"no such output \(box\): expected one of boxes \(N, 24, 4\)"),
        ("boxes", None, r"holds many values: expected one index for each axis of \(24, 4\); .*target=\(0, 0\)"),
        ("boxes", 5, r"boxes' \(24, 4\).*expected 2 indices with commas between them, got 5"),
        ("boxes", "5,4", "expected 0 to 23, 0 to 3, got 5,4"),
        ("boxes", (-1, 0), "got -1,0"),
        ("boxes", (0.5, 0), r"got 0\.5,0"),
        ("boxes", "cat", "got cat"),
    ],
)
def test_bad_outputs_and_places(detection, output, target, message):
    with pytest.raises(MasktoolError, match=message):
        explain(detection, noise_photograph(), "occlusion", target, output=output)


def test_places():
    values = np.array([[1, 5, 2], [0, 3, 4]], np.float32)
    assert resolve_place("top", values, "y") == (0, 1)
    assert resolve_place("1, 2", values, "y") == (1, 2)
    assert resolve_place(np.int64(1), values[0], "y") == (1,)
    assert resolve_place(None, values[:1, :1], "y") == (0, 0)
    assert resolve_place(None, np.float32(3).reshape(()), "y") == ()


def test_several_indices_without_an_output(session):
    for target in ((1, 0), "1,0"):
        with pytest.raises(TargetError, match=r"several indices are for an output.*output=NAME"):
            explain(session, noise_photograph(), "occlusion", target)


def test_the_class_output_as_it_is(session):
    found = explain(session, noise_photograph(), "occlusion", 1, output="scores")
    same = explain(session, noise_photograph(), "occlusion", 1)
    assert (found.target, same.target, found.score_name) == ((1,), 1, "value")
    np.testing.assert_array_equal(found.attributions, same.attributions)  # its scores are probabilities already


@pytest.mark.parametrize(("method", "options"), METHODS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_bands_from_arrays_and_files(tmp_path, layout, method, options):
    bands = random_images(1, 13, 10, 12)[0]
    np.save(tmp_path / "bands.npy", bands)
    with export_and_load(many_channels(13, layout), tmp_path) as session:
        found = [
            explain(session, image, method, 2, **options)
            for image in (bands, bands.transpose(1, 2, 0), tmp_path / "bands.npy", str(tmp_path / "bands.npy"))
        ]
        placed = bands[None] if layout == "NCHW" else bands.transpose(1, 2, 0)[None]
        assert found[0].score == pytest.approx(session.scores(placed)[0, 2])
    assert found[0].attributions.shape == (10, 12)
    assert np.isfinite(found[0].attributions).all()
    assert all(np.array_equal(found[0].attributions, each.attributions) for each in found[1:])
    picture = np.asarray(found[0].image)
    assert (picture.min(), picture.max()) == (0, 255)
    assert found[0].plot().width > 500


def test_one_channel_takes_photographs_and_arrays(tmp_path):
    grey = Preprocessing(size=(10, 12), resize="exact", channel_order="L", mean=(0.5,), std=(0.5,))
    with export_and_load(many_channels(1), tmp_path, preprocessing=grey) as session:
        assert explain(session, noise_photograph((20, 24)), "occlusion").image_size == (20, 24)
        assert explain(session, random_images(1, 10, 12)[0], "occlusion").image_size == (10, 12)


def test_photographs_for_a_model_of_bands_are_refused_with_a_way_out(tmp_path):
    message = r"takes no photographs.*13 channels.*\.npy.*\(13, 10, 12\)"
    with export_and_load(many_channels(13), tmp_path) as session, pytest.raises(MasktoolError, match=message):
        explain(session, noise_photograph())


def test_the_picture_of_an_array():
    array = np.zeros((1, 2, 2, 2), np.float32)
    assert (array_pixels(array, "NCHW") == 128).all()
    array[0, :, 0, 0], array[0, 1, 1, 1] = 3, np.nan
    assert array_pixels(array, "NCHW")[:, :, 0].tolist() == [[255, 0], [0, 0]]
    assert array_pixels(array.transpose(0, 2, 3, 1), "NHWC").shape == (2, 2, 3)


def test_an_open_size_is_the_preprocessings_unless_the_user_wants_another(tmp_path):
    photograph = noise_photograph((60, 90))
    with export_and_load(open_network(), tmp_path, preprocessing=Preprocessing((32, 48), "exact")) as session:
        usual = explain(session, photograph, "occlusion")
        wanted = explain(session, photograph, "occlusion", input_size=(40, 40))
        array = explain(session, random_images(1, 3, 20, 28)[0], "occlusion")
    assert usual.model_attributions.shape == (32, 48)
    assert usual.settings["input_size"] == [32, 48]
    assert wanted.model_attributions.shape == (40, 40)
    assert wanted.attributions.shape == (60, 90)
    assert array.attributions.shape == (20, 28)


def test_a_fixed_size_is_not_overruled(session):
    assert explain(session, noise_photograph(), "occlusion", input_size=(16, 24)).score > 0
    with pytest.raises(MasktoolError, match=r"fixed by the model.*expected 16 x 24, got 8 x 8.*leave input_size out"):
        explain(session, noise_photograph(), input_size=(8, 8))
    with pytest.raises(MasktoolError, match="an array of another size"):
        explain(session, random_images(1, 3, 16, 24)[0], input_size=(8, 8))


def test_further_inputs_are_fed_and_told(tmp_path):
    preprocessing = Preprocessing(size=(8, 8), resize="exact")
    inputs = {"facts": [0.5, -1], "temperature": 2.0, "shift": 1}
    with export_and_load(several_inputs(), tmp_path, preprocessing=preprocessing) as session:
        with pytest.raises(MasktoolError, match="needs more than the image"):
            explain(session, noise_photograph(), "occlusion")
        for method, options in METHODS:
            found = explain(session, noise_photograph(), method, 0, inputs=inputs, **options)
            assert found.settings["inputs"] == inputs
        image = Image.fromarray(noise_photograph())
        other = explain(session, image, "occlusion", 0, inputs=inputs | {"temperature": 0.1})
        first = explain(session, image, "occlusion", 0, inputs=inputs)
    assert not np.array_equal(other.attributions, first.attributions)


def one_number(tail, outputs, more=""):
    """A network that ends in ``tail`` behind six pooled channels, ``f``."""
    return parse(f"""{HEADER}
    numbers (float[N, 3, 16, 24] image) => ({outputs})
    <float[6, 3, 3, 3] kernel, float[6, 1] weight, float[6, 4] bits, int64[1] last = {{1}} {more}>
    {{
        h = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, kernel)
        r = Relu(h)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        {tail}
    }}""", last=[1])  # fmt: skip


def test_a_regressor_of_one_number_is_asked_by_its_name_or_by_none(tmp_path):
    network = one_number("g = MatMul(f, weight)\n age = Squeeze(g, last)", "float[N] age")
    with export_and_load(network, tmp_path, preprocessing=PIXELS) as session:
        found, same = (explain(session, noise_photograph(), "occlusion", output=name) for name in (None, "age"))
        image = noise_photograph().transpose(2, 0, 1)[None].astype(np.float32) / 255
        assert found.score == pytest.approx(float(session.run(image)["age"][0]), rel=1e-6)
        assert (found.name, found.score_name, found.question) == ("age", "value", same.question)
        np.testing.assert_array_equal(found.attributions, same.attributions)
        with pytest.raises(MasktoolError, match="no class output to explain"):
            explain(session, noise_photograph(), "occlusion", 0)
    column = one_number("age = MatMul(f, weight)", "float[N, 1] age")
    with export_and_load(column, tmp_path, preprocessing=PIXELS) as session:
        found = explain(session, noise_photograph(), "occlusion", output="age")
        assert (found.name, found.target) == ("age", (0,))


def test_one_bit_of_a_head_of_many_labels_is_asked_by_its_label(tmp_path):
    network = one_number("g = MatMul(f, bits)\n tags = Sigmoid(g)", "float[N, 4] tags")
    labels = ("cat", "dog", "egg", "sky")
    with export_and_load(network, tmp_path, preprocessing=PIXELS, labels=labels) as session:
        ask = {"output": "tags"}
        bit, raw = (explain(session, noise_photograph(), "occlusion", "dog", **each) for each in ({}, ask))
        place = explain(session, noise_photograph(), "occlusion", 1, **ask)
        contrast = explain(session, noise_photograph(), "occlusion", "dog", against="sky", **ask)
        with pytest.raises(TargetError, match=r"unknown label.*did you mean 'dog'"):
            explain(session, noise_photograph(), "occlusion", "dogs", **ask)
    assert (bit.name, bit.score_name) == ("dog", "probability")
    np.testing.assert_array_equal(bit.attributions, raw.attributions)
    assert (raw.name, raw.label, raw.target) == ("dog (tags[1])", "dog", (1,))
    assert raw.question == place.question
    assert contrast.name == "dog (tags[1]) against sky (tags[3])"
    assert json.loads(raw.to_json())["target"]["label"] == "dog"
