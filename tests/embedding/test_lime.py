"""LIME in a file: the weights and figures of Python with every option, and segments that come with the image."""

import numpy as np
import onnxruntime
import pytest
from combinations import every_value
from networks.small_graphs import parse

import masktool
from embedding.against_python import assert_same_as_python, explain_in_python, network, run
from masktool.embedding.options import build_embedded_method
from masktool.errors import MasktoolError

SIZE = (32, 32)


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(2, 3, *SIZE)).astype(np.float32)


def label_map(n_labels, size=SIZE, seed=0):
    """Returns segments of random shapes, every label present."""
    labels = np.random.default_rng(seed).integers(0, n_labels, (8, 8))
    labels.flat[:n_labels] = np.arange(n_labels)
    return np.kron(labels, np.ones((size[0] // 8, size[1] // 8), np.int64)).astype(np.int32)


@every_value(
    masking=["layer", "fill"],
    options=[
        {},
        {"n_segments": 7},
        {"n_segments": 64, "n_samples": 30},
        {"p": 0.2, "kernel_width": 0.6, "alpha": 0.1},
        {"n_segments": 1},
        {"feature_mask": np.where(label_map(9) == 4, -7, 3 * label_map(9))},
    ],
)
def test_every_option_gives_the_map_of_python(tmp_path, images, masking, options):
    of_export = {"masking": masking} | ({"baseline": "mean"} if masking == "fill" else {})
    options = {"n_samples": 60, "n_segments": 16} | options
    found = assert_same_as_python(tmp_path, network(*SIZE), "lime", images, seed=3, of_export=of_export, **options)
    assert found["attributions"].dtype == np.float32
    for values, each in zip(found["attributions"], found["saliency_map"], strict=True):
        assert set(np.unique(each)) == set(values)


@pytest.mark.parametrize("size", [(224, 224), (227, 227)])
def test_larger_inputs(tmp_path, size):
    images = np.random.default_rng(1).normal(size=(1, 3, *size)).astype(np.float32)
    found = assert_same_as_python(tmp_path, network(*size), "lime", images, n_samples=40)
    assert found["attributions"].shape == (1, 100)


@pytest.mark.parametrize("chunk", [2, 7])
def test_several_masks_in_one_pass(tmp_path, images, chunk):
    assert_same_as_python(tmp_path, network(*SIZE), "lime", images, chunk=chunk, n_samples=56, n_segments=16)


def test_channels_last(tmp_path, images):
    source = network(*SIZE, layout="NHWC")
    assert_same_as_python(tmp_path, source, "lime", images.transpose(0, 2, 3, 1), n_samples=24, n_segments=9)


@pytest.mark.slow
def test_a_network_with_channels_last(tmp_path, data_dir):
    images = np.random.default_rng(1).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    source = data_dir / "weights" / "mobilenet_v1_0.25_224_tf2onnx_nhwc.onnx"
    of_export = {"output_kind": "probabilities"}
    assert_same_as_python(tmp_path, source, "lime", images, of_export=of_export, chunk=3, n_samples=24, n_segments=9)


@pytest.mark.parametrize("n_labels", [12, 5, 1])
def test_segments_of_the_image_give_the_map_of_python(tmp_path, images, n_labels):
    labels = label_map(n_labels)
    found = assert_same_as_python(
        tmp_path,
        network(*SIZE),
        "lime",
        images,
        seed=3,
        feed={"segments": labels},
        in_python={"segments": "grid", "feature_mask": labels},
        segments="input",
        n_segments=12,
        n_samples=60,
    )
    assert found["attributions"].shape == (2, 12)
    assert (found["attributions"][:, n_labels:] == 0).all()
    assert np.array_equal(found["saliency_map"][:, 0], found["attributions"][:, labels])


def test_one_file_takes_any_segments(tmp_path, images):
    path, masked = tmp_path / "explained.onnx", tmp_path / "masked.onnx"
    options = {"segments": "input", "n_segments": 30, "n_samples": 80}
    exported = masktool.export_explained(network(*SIZE), path, "lime", output_kind="logits", chunk=8, **options)
    assert exported.metadata.explanation["settings"] | options == exported.metadata.explanation["settings"]
    masktool.export(network(*SIZE), masked, output_kind="logits")
    for seed, n_labels in enumerate((30, 17)):
        labels = label_map(n_labels, seed=seed)
        found = run(path, image=images[:1], segments=labels)
        method = build_embedded_method("lime", {"feature_mask": labels, "n_samples": 80})
        expected = explain_in_python(masked, method, images[0])
        tolerance = 1e-4 * np.ptp(expected.model_attributions)
        assert np.abs(found["saliency_map"][0, 0] - expected.model_attributions).max() <= tolerance


@pytest.mark.parametrize("label", [-1, 12, 400])
def test_a_label_that_is_none_ends_the_run(tmp_path, images, label):
    path = tmp_path / "explained.onnx"
    options = {"segments": "input", "n_segments": 12, "n_samples": 20}
    masktool.export_explained(network(*SIZE), path, "lime", output_kind="logits", **options)
    labels = label_map(12)
    labels[3, 3] = label
    session = onnxruntime.InferenceSession(path)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="out of data bounds"):
        session.run(None, {"image": images, "segments": labels})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": "slic"}, "superpixels depend on the image.*segments=grid.*segments=input"),
        ({"feature_mask": np.zeros((16, 16), int)}, r"label map of another size.*\(32, 32\)"),
        ({"alpha": 1e-3, "n_samples": 30, "n_segments": 64}, "too ill-conditioned for float32.*raise alpha"),
        ({"kernel_width": 0.01}, r"only the sample that keeps everything.*kernel_width=0\.01"),
        ({"sampling": "orthogonal"}, "draws its samples independently.*sampling=orthogonal"),
        ({"sampling": None}, "draws its samples independently.*leave sampling out"),
        ({"alpha": None}, "penalty that is known.*leave alpha out"),
        ({"segments": "voronoi"}, "unknown segments.*slic, grid, input"),
    ],
)
def test_options_that_no_file_can_have_are_refused(tmp_path, options, message):
    with pytest.raises(MasktoolError, match=message):
        masktool.export_explained(network(*SIZE), tmp_path / "x.onnx", "lime", output_kind="logits", **options)


def test_an_input_called_segments_is_refused(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    taken (float[N, 3, 16, 16] image) => (float[N, 4] scores, float[N, 4, 16, 16] segments)
    <float[4, 3, 3, 3] kernel>
    {
        segments = Conv<pads = [1, 1, 1, 1]>(image, kernel)
        pooled = GlobalAveragePool(segments)
        scores = Flatten(pooled)
    }
    """
    known = {"output_kind": "logits", "class_output": "scores", "n_samples": 10}
    with pytest.raises(MasktoolError, match=r"names that an explanation adds.*segments"):
        masktool.export_explained(parse(text), tmp_path / "x.onnx", "lime", segments="input", **known)
    masktool.export_explained(parse(text), tmp_path / "x.onnx", "lime", **known)
