"""The picture that a file draws is the one that Python draws: the same colours, range and hatching."""

import numpy as np
import onnx
import pytest
from combinations import every_value
from networks.small_graphs import parse
from PIL import Image

import masktool
from embedding.against_python import run
from embedding.explained_files import NETWORK, SIZE, images, write_explained
from embedding.photographs import SIZES, draw, read
from masktool.contract import Preprocessing
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS
from masktool.explainers.picture import Scale, overlay
from masktool.explainers.pixels import model_pixels
from masktool.option_names import for_command_line
from masktool.runtime.preprocessing import prepare

LEVELS = 1
"""Grey levels by which a pixel may differ: single precision rounds otherwise than double."""
METHODS_TO_DRAW = ("occlusion", "gradient")
"""One whose map is signed, and one whose map is not, and is capped."""


def export(folder, method="occlusion", **options):
    return write_explained(folder / "file.onnx", method, embed_overlay=True, **options)


def drawn_by_python(picture, values, method):
    kind = METHODS[method]
    return np.asarray(overlay(picture, values, Scale.of(values, kind.signed, kind.capped)))


def assert_alike(found, expected):
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= LEVELS


def test_the_methods_differ_in_what_they_draw():
    signed, capped = (METHODS[name] for name in METHODS_TO_DRAW)
    assert (signed.signed, signed.capped) == (True, False)
    assert (capped.signed, capped.capped) == (False, True)


@every_value(method=METHODS_TO_DRAW, resize_to=[14, 9])
def test_it_is_drawn_over_the_photograph(tmp_path, method, resize_to):
    rule = Preprocessing(size=SIZE, resize_to=resize_to)
    path = export(tmp_path, method, preprocessing=rule, embed_preprocessing=True)
    for size in SIZES:
        photograph = draw(size)
        found = run(path, image=np.asarray(photograph))
        values = prepare(photograph, rule).to_original(found["saliency_map"][0, 0])
        assert_alike(found["overlay"], drawn_by_python(photograph, values, method))


@pytest.mark.parametrize("method", METHODS_TO_DRAW)
def test_real_photographs_are_drawn_too(tmp_path, data_dir, method):
    rule = Preprocessing(size=SIZE, resize_to=14)
    path = export(tmp_path, method, preprocessing=rule, embed_preprocessing=True)
    for photograph in read(data_dir):
        found = run(path, image=np.asarray(photograph))
        values = prepare(photograph, rule).to_original(found["saliency_map"][0, 0])
        assert_alike(found["overlay"], drawn_by_python(photograph, values, method))


@every_value(method=METHODS_TO_DRAW, order=["RGB", "BGR"])
def test_each_image_of_a_batch_has_a_range_of_its_own(tmp_path, method, order):
    rule = Preprocessing(size=SIZE, resize="exact", channel_order=order, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    path = export(tmp_path, method, preprocessing=rule)
    batch = images(3) * np.array([1, 0.2, 3], np.float32)[:, None, None, None]
    found = run(path, image=batch)
    assert found["overlay"].shape == (3, *SIZE, 3)
    for position, image in enumerate(batch):
        picture = Image.fromarray(model_pixels(image[None], rule))
        values = found["saliency_map"][position, 0]
        assert_alike(found["overlay"][position], drawn_by_python(picture, values, method))


@pytest.mark.parametrize("method", METHODS_TO_DRAW)
def test_a_map_without_differences_leaves_the_faded_photograph(tmp_path, method):
    rule = Preprocessing(size=SIZE, resize="exact")
    blind = NETWORK.replace("float[6, 4] weight>", "float[6, 4] weight, float[1] nothing>").replace(
        "features = Conv<pads = [1, 1, 1, 1]>(image",
        "dark = Mul(image, nothing) features = Conv<pads = [1, 1, 1, 1]>(dark",
    )
    flat, path = parse(blind, nothing=0), tmp_path / "file.onnx"
    masktool.export_explained(
        flat, path, method, output_kind="logits", preprocessing=rule, embed_preprocessing=True, embed_overlay=True
    )
    photograph = draw((30, 20))
    found = run(path, image=np.asarray(photograph))
    assert np.ptp(found["saliency_map"]) == 0
    assert_alike(found["overlay"], drawn_by_python(photograph, np.zeros((20, 30), np.float32), method))


def test_it_comes_on_request(tmp_path):
    path = export(tmp_path, on_request="required")
    found = run(path, image=images(2), explain=np.array([False]))
    assert found["overlay"].shape == (0, *SIZE, 3)
    onnx.checker.check_model(str(path), full_check=True)
    wanted = run(path, image=images(2), explain=np.array([True]))["overlay"]
    always = export(tmp_path, on_request="always")
    assert_alike(wanted, run(always, image=images(2))["overlay"])


def test_it_needs_to_know_what_the_input_shows(tmp_path):
    with pytest.raises(MasktoolError) as caught:
        export(tmp_path, preprocessing=None)
    assert "does not say how a photograph becomes its input" in for_command_line(caught.value.message)


def test_the_declared_shape_is_the_photographs(tmp_path):
    path = export(tmp_path, embed_preprocessing=True)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    output = model.graph.output[-1]
    assert output.name == "overlay"
    assert [axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim] == ["height", "width", 3]
