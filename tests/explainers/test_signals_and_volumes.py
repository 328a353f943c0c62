"""Maps of signals, volumes and videos: networks of one number that a known stretch or corner of the input decides."""

import json

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

import masktool
from masktool.cli import run
from masktool.errors import MasktoolError
from masktool.explainers.method import METHODS
from masktool.explainers.segmentation import axis_labels, grid_segments

SIZES = {1: (40,), 3: (6, 10, 8)}
TAUGHT = {1: (slice(20, 26),), 3: np.s_[1:3, 6:9, 2:5]}
"""The places that decide class 1."""
ABLE = sorted(name for name in METHODS if METHODS[name].any_rank)
SAMPLES = {
    "lime": {"n_samples": 200, "n_segments": 30},
    "kernel-shap": {"n_segments": 30},
    "rise": {"n_masks": 200},
    "smoothgrad": {"n_samples": 10},
}


def save_network(path, axes, channels=2):
    """A network whose class 1 is the mean of its first channel over some places; a convolution of 3 looks at them."""
    size, rng = SIZES[axes], np.random.default_rng(0)
    kernel = np.zeros((2, channels, *[3] * axes), np.float32)
    kernel[(slice(None), 0, *[1] * axes)] = 1
    template = np.zeros((1, 1, *size), np.float32)
    template[(0, 0, *TAUGHT[axes])] = 1
    text = (
        f'<ir_version: 10, opset_import: ["": 20]> network (float[N,{channels},{",".join(map(str, size))}] x)'
        " => (float[N,2] scores) {"
        f" a = Conv <pads = {[1] * 2 * axes}> (x, w) b = Mul (a, t) c = GlobalAveragePool (b) d = Flatten (c)"
        " scores = Gemm (d, v) }"
    )
    model = onnx.parser.parse_model(text)
    head = np.array([[0, 40 if axes == 3 else 10], [0, 0]], np.float32)
    for name, value in {"w": kernel, "t": template, "v": head}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, path)
    return rng.standard_normal((channels, *size)).astype(np.float32) + 2


@pytest.fixture(scope="module", params=sorted(SIZES), ids=lambda axes: f"{axes}-D")
def world(request, tmp_path_factory):
    """The number of axes, a masked file with gradients, and an input."""
    folder = tmp_path_factory.mktemp("ranks")
    values = save_network(folder / "plain.onnx", request.param)
    exported = masktool.export(
        folder / "plain.onnx", folder / "masked.onnx", output_kind="logits", gradient="logit", masking="fill"
    )
    assert exported.metadata.parity["ones"] == exported.metadata.parity["invariance"] == 0
    np.save(folder / "input.npy", values)
    return request.param, folder / "masked.onnx", values, folder


def test_a_file_says_its_layout_and_takes_masks_of_its_rank(world):
    axes, path, values, _ = world
    with masktool.load(path) as session:
        assert session.layout == {1: "NCL", 3: "NCDHW"}[axes]
        assert session.spatial_shape == session.known_size == SIZES[axes]
        masks = np.ones((2, 1, *SIZES[axes]), np.float32)
        masks[(1, 0, *TAUGHT[axes])] = 0
        whole, hidden = session(values[None], masks)
        assert whole[1] > 2 > 0.5 > abs(hidden[1])
        with pytest.raises(MasktoolError, match="wrong rank"):
            session(values[None], np.ones((1, 1, 8, 8), np.float32))
        with pytest.raises(MasktoolError, match=r"no photographs.*an input"):
            masktool.explain(session, Image.new("RGB", (8, 8)))


@pytest.mark.parametrize("name", ABLE)
def test_maps_find_what_decides(world, name):
    axes, path, values, _ = world
    with masktool.load(path) as session:
        found = masktool.explain(session, values, name, 1, score="probability", **SAMPLES.get(name, {}))
        again = masktool.explain(session, np.moveaxis(values, 0, -1), name, 1, **SAMPLES.get(name, {}))
    assert found.attributions.shape == found.model_attributions.shape == SIZES[axes]
    np.testing.assert_array_equal(found.attributions, again.attributions)
    inside = np.zeros(SIZES[axes], bool)
    inside[TAUGHT[axes]] = True
    strength = np.abs(found.attributions - np.median(found.attributions))
    assert strength[inside].mean() > 2 * strength[~inside].mean()
    document = json.loads(found.to_json())
    assert document["image"] == {"size": list(SIZES[axes])}
    np.testing.assert_allclose(np.array(document["attributions"], np.float32), found.attributions, rtol=1e-4, atol=1e-5)


def test_other_methods_refuse_by_name(world):
    _, path, values, _ = world
    with masktool.load(path) as session:
        for name in sorted(set(METHODS) - set(ABLE)):
            with pytest.raises(MasktoolError) as caught:
                masktool.explain(session, values, name)
            assert f"{METHODS[name].title} is for images" in caught.value.message
            assert "lime, occlusion" in caught.value.message


def test_the_command_line_explains_an_array(world, capsys):
    axes, path, _, folder = world
    here = folder / "input.npy"
    explain = ["explain", str(here), "-m", str(path), "--method"]
    assert run([*explain, "occlusion", "--target", "1", "-o", str(folder)]) == 0
    picture = Image.open(folder / "input.occlusion.png")
    assert min(picture.size) > 300
    assert run([*explain, "grad-cam"]) == 2
    assert run([*explain, "rise", "--samples", "20", "--json"]) == 0
    *_, last = capsys.readouterr().out.strip().splitlines()
    assert json.loads(last)["image"] == {"size": list(SIZES[axes])}


def test_pictures_show_the_map_where_it_is_strong(tmp_path):
    values = save_network(tmp_path / "plain.onnx", 3, channels=3)
    masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", output_kind="logits", masking="fill")
    with masktool.load(tmp_path / "masked.onnx") as session:
        found = masktool.explain(session, np.full_like(values, 2), "occlusion", 1)
    video = np.asarray(found.plot(), int)
    coloured = np.abs(video[:, :, 0] - video[:, :, 2]) > 60
    assert coloured.any()
    half = video.shape[1] // 2
    assert coloured[:, half:].sum() > coloured[:, :half].sum()  # the overlay stands beside the frames


@pytest.mark.parametrize(("size", "wanted"), [((40,), 8), ((6, 10, 8), 30), ((224, 224), 100), ((1, 1, 1), 5)])
def test_boxes_are_of_nearly_equal_size(size, wanted):
    labels = grid_segments(np.zeros((*size, 3), np.uint8), wanted)
    assert labels.shape == size
    assert len(axis_labels(size, wanted)) == len(size)
    counts = np.bincount(labels.ravel())
    assert (counts > 0).all()
    assert len(counts) <= max(1, 2 * wanted)
    assert len(counts) == 1 or counts.max() <= 8 * counts.min()
