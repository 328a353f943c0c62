"""Masks that a file learns by itself: every option, when learning ends, and what is said of the class."""

import numpy as np
import pytest
from combinations import every_value, quickly
from networks.small_graphs import parse

import masktool
from embedding.against_python import assert_same, assert_same_as_python, explain_in_python, network, run
from masktool.contract import Preprocessing
from masktool.errors import MasktoolError
from masktool.explainers.learning import PATIENCE
from masktool.explainers.method import METHODS
from masktool.explainers.methods.neuromask import RANGE, draw_start

SIZE = (20, 16)
STEPS = 12
LEARNED = ("neuromask", "extremal")
BINARY = """
<ir_version: 10, opset_import: ["" : 20]>
binary (float[N, 3, 20, 16] image) => (float[N, 1] answer)
<float[6, 3, 3, 3] kernel, float[6, 1] weight, float[1] bias>
{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    answer = Gemm(flat, weight, bias)
}
"""
PUBLISHED = {"grid_size": None, "learning_rate": 0.03, "final_rate": 1}
"""NeuroMask as it was published, but for the number of steps."""
OPTIONS = [
    ("neuromask", {"setting": "imagenet", **PUBLISHED}),
    ("neuromask", {"setting": "imagenet", "learning_rate": 0.1}),
    ("neuromask", {"grid_size": 5, "final_rate": 0.5}),
    ("neuromask", {"lambda_p": 2.0, "lambda_s": 0.1, "lambda_sp": 0.01, "temperature": 0.7, "learning_rate": 0.1}),
    ("neuromask", {"through": "layer", "temperature": 3.0}),
    ("neuromask", {"through": "layer", "temperature": 3.0, "leak": 0}),
    ("extremal", {"aim": "delete", "area": 0.3}),
    ("extremal", {"aim": "both", "smoothness": 0.3, "learning_rate": 0.002}),
    ("extremal", {"through": "layer", "area": 0.5, "learning_rate": 0.002}),
    ("extremal", {"aim": "both", "through": "layer"}),
]
QUICK = [OPTIONS[0], *OPTIONS[2:5], *OPTIONS[7:9]]
"""Every option occurs among them; the others are slow tests."""


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(2, 3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize("case", quickly(QUICK, OPTIONS), ids=str)
def test_every_option_gives_the_map_of_python(tmp_path, images, case):
    method, options = case
    found = assert_same_as_python(tmp_path, network(*SIZE), method, images, seed=3, n_iterations=STEPS, **options)
    assert found["iterations"].tolist() == [STEPS] * len(images)


@every_value(method=LEARNED, baseline=["mean", "image-mean", "blur", "black", "20,200,90", "noise"])
def test_every_baseline(tmp_path, images, method, baseline):
    preprocessing = Preprocessing(size=SIZE, resize="exact", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.2))
    path, masked = tmp_path / "explained.onnx", tmp_path / "masked.onnx"
    of_export = {"output_kind": "logits", "preprocessing": preprocessing}
    slowly = {"baseline": baseline, "learning_rate": 0.03}  # rounding grows with every step, and with its length
    masktool.export_explained(network(*SIZE), path, method, n_samples=4, **slowly, **of_export)
    masktool.export(network(*SIZE), masked, gradient="logit", **of_export)
    found = run(path, image=images[:1])
    options = METHODS[method](n_iterations=4, **slowly)
    assert_same(found, 0, explain_in_python(masked, options, images[0]))


@pytest.mark.parametrize("chunk", [1, 2])
def test_both_games_in_one_pass_or_in_two(tmp_path, images, chunk):
    assert_same_as_python(tmp_path, network(*SIZE), "extremal", images, chunk=chunk, n_iterations=STEPS, aim="both")


SETTLING = {
    "neuromask": {"n_iterations": 400, "tolerance": 0.3, "lambda_p": 1e-9, "lambda_sp": 1e-9, **PUBLISHED}
    | {"learning_rate": 0.1},
    "extremal": {"n_iterations": 330, "tolerance": 0.9, "learning_rate": 1e-4, "final_rate": 1},
}
"""Losses that hardly move or fall evenly, so that rounding does not decide at which step they settle."""


@pytest.mark.parametrize("method", LEARNED)
def test_learning_ends_once_the_loss_has_settled(tmp_path, images, method):
    found = assert_same_as_python(tmp_path, network(*SIZE), method, images, **SETTLING[method])
    assert (found["iterations"] > PATIENCE).all()
    assert (found["iterations"] < SETTLING[method]["n_iterations"]).all()


@pytest.mark.parametrize("method", LEARNED)
def test_a_tolerance_of_0_makes_all_steps(tmp_path, images, method):
    options = SETTLING[method] | {"tolerance": 0, "n_iterations": 150}
    found = assert_same_as_python(tmp_path, network(*SIZE), method, images, **options)
    assert (found["iterations"] == 150).all()


@every_value(method=LEARNED, kind=["optional", "required"])
def test_the_number_of_steps_may_be_an_input(tmp_path, images, method, kind):
    path, masked = tmp_path / "explained.onnx", tmp_path / "masked.onnx"
    masktool.export_explained(network(*SIZE), path, method, output_kind="logits", n_samples=6, samples_input=kind)
    masktool.export(network(*SIZE), masked, output_kind="logits", gradient="logit")
    for number in (1, 7):
        found = run(path, image=images, n_iterations=np.array([number]))
        assert found["iterations"].tolist() == [number] * len(images)
        for position, image in enumerate(images):
            assert_same(found, position, explain_in_python(masked, METHODS[method](n_iterations=number), image))


@pytest.mark.parametrize("method", LEARNED)
def test_it_tells_whether_the_class_survives(tmp_path, images, method):
    path, masked = tmp_path / "explained.onnx", tmp_path / "masked.onnx"
    masktool.export_explained(network(*SIZE), path, method, output_kind="logits", n_samples=3, target="required")
    masktool.export(network(*SIZE), masked, output_kind="logits", gradient="logit")
    kept = []
    for target in range(4):
        found = run(path, image=images[:1], target=np.array([target]))
        expected = explain_in_python(masked, METHODS[method](n_iterations=3), images[0], target=target)
        kept.append(float(found["kept_cut"][0]))
        assert kept[-1] == expected.quality["kept_cut"]
    assert set(kept) == {0.0, 1.0}


@every_value(bias=[-9.0, 9.0], method=LEARNED)
def test_a_binary_head(tmp_path, images, method, bias):
    source = parse(BINARY, bias=[bias])
    of_export = {"output_kind": "binary"}
    assert_same_as_python(tmp_path, source, method, images, of_export=of_export, n_iterations=STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("method", LEARNED)
def test_channels_last(tmp_path, data_dir, method):
    images = np.random.default_rng(1).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    source = data_dir / "weights" / "mobilenet_v1_0.25_224_tf2onnx_nhwc.onnx"
    of_export = {"output_kind": "probabilities"}
    assert_same_as_python(tmp_path, source, method, images, of_export=of_export, n_iterations=4)


@pytest.mark.parametrize("method", LEARNED)
def test_masks_through_layers_need_layer_masking(tmp_path, method):
    with pytest.raises(MasktoolError, match=r"masks its input only.*export with masking=.layer."):
        masktool.export_explained(
            network(*SIZE), tmp_path / "x.onnx", method, output_kind="logits", through="layer", masking="fill"
        )


def test_a_start_has_256_values_and_one_byte_each(tmp_path):
    start = draw_start(0, (224, 224))
    values = np.unique(start)
    assert len(values) == 256
    assert np.ptp(values) < 2 * RANGE
    assert np.array_equal(np.diff(values), np.full(255, 2 * RANGE / 256, np.float32))
    small, large = (
        masktool.export_explained(
            network(*size), tmp_path / f"{size[0]}.onnx", "neuromask", output_kind="logits", n_samples=1, **PUBLISHED
        )
        for size in ((20, 16), (120, 100))
    )
    more = (tmp_path / "120.onnx").stat().st_size - (tmp_path / "20.onnx").stat().st_size
    assert small.metadata.explanation["settings"]["n_iterations"] == 1
    assert more < 2 * (120 * 100 - 20 * 16)  # float32 would take four
    assert large.metadata.parity["explanation"] <= 1e-4
