"""Photographs that a file prepares itself: the pixels are Pillow's, and prediction and map are those of Python."""

import dataclasses
import json

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import masktool
from embedding.against_python import SHARE, network, run
from embedding.explained_files import BATCH_MIXING, LABELS, NETWORK, SIZE, images, write_explained
from embedding.photographs import SIZES, draw, read
from masktool.contract import CHOICES, Metadata, Preprocessing
from masktool.embedding.flow import FLOAT, Flow
from masktool.embedding.preprocessing import declare_photograph, emit_preprocessing
from masktool.errors import MasktoolError
from masktool.option_names import for_command_line
from masktool.runtime.preprocessing import prepare

COLOURS = {"mean": (0.1, 0.2, 0.3), "std": (0.2, 0.3, 0.4)}
RULES = {
    "cropped": {"resize": "shortest", "resize_to": 14},
    "padded": {"resize": "shortest", "resize_to": 9},
    "exact": {"resize": "exact"},
    "as it is": {"resize": "none"},
}


def preparing(preprocessing):
    """Returns the function that prepares a photograph in a graph of nothing else."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="preparing")
    flow = Flow(graph)
    prepared = emit_preprocessing(flow, declare_photograph("photograph"), preprocessing, FLOAT)
    graph.inputs.append(prepared.pixels)
    flow.outputs_are([prepared.image])
    model = ir.to_proto(ir.Model(graph, ir_version=8))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda photograph: session.run(None, {"photograph": np.asarray(photograph)})[0]


def assert_same_as_pillow(preprocessing, photographs):
    prepare_in_graph = preparing(preprocessing)
    for photograph in photographs:
        expected = prepare(photograph, preprocessing).array
        assert np.array_equal(prepare_in_graph(photograph), expected), photograph.size


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("interpolation", CHOICES["interpolation"])
def test_the_pixels_are_pillows(interpolation, rule):
    preprocessing = Preprocessing(size=SIZE, interpolation=interpolation, **RULES[rule], **COLOURS)
    assert_same_as_pillow(preprocessing, [draw(size) for size in SIZES])


@pytest.mark.parametrize("interpolation", CHOICES["interpolation"])
def test_those_of_real_photographs_are_too(data_dir, interpolation):
    preprocessing = Preprocessing(size=(224, 224), resize_to=256, interpolation=interpolation, **COLOURS)
    assert_same_as_pillow(preprocessing, read(data_dir))


@pytest.mark.parametrize("layout", CHOICES["layout"])
@pytest.mark.parametrize("order", CHOICES["channel_order"])
def test_channels_and_layout_are_the_networks(order, layout):
    colours = {name: values[:1] if order == "L" else values for name, values in COLOURS.items()}
    preprocessing = Preprocessing(size=SIZE, resize_to=13, channel_order=order, layout=layout, scale=0.5, **colours)
    assert_same_as_pillow(preprocessing, [draw(size) for size in SIZES])


@pytest.mark.parametrize("crop", range(5, 13))
def test_half_pixels_are_cropped_to_the_same_side(crop):
    photographs = [draw((width, 9)) for width in range(4, 16)]
    assert_same_as_pillow(Preprocessing(size=(crop, crop), resize="none"), photographs)


def write(folder, network=NETWORK, method="occlusion", **options):
    """Writes a file that takes a photograph, and a masked one of the same network; returns their paths."""
    rule = Preprocessing(size=SIZE, resize_to=14, **COLOURS)
    known = {"output_kind": "logits", "labels": LABELS, "preprocessing": rule}
    path = write_explained(folder / "file.onnx", method, network, embed_preprocessing=True, **(known | options))
    of_mask = {name: value for name, value in options.items() if name not in ("target", "on_request", "embed_overlay")}
    masked = masktool.export(folder / "network.onnx", folder / "masked.onnx", gradient="logit", **(known | of_mask))
    return path, masked.path


@pytest.mark.parametrize("network", [NETWORK, BATCH_MIXING], ids=["any batch", "one by one"])
@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_prediction_and_map_are_those_of_python(tmp_path, method, network):
    path, masked = write(tmp_path, network, method)
    with masktool.load(masked, "cpu") as session:
        for size in SIZES:
            photograph = draw(size)
            found = run(path, image=np.asarray(photograph))
            expected = masktool.explain(session, photograph, method)
            assert found["saliency_map"].shape == (1, 1, *SIZE)
            own = found["saliency_map"][0, 0] - expected.model_attributions
            assert np.abs(own).max() <= SHARE * np.ptp(expected.model_attributions)
            logits = session.run(prepare(photograph, session.metadata.preprocessing).array)["logits"]
            assert found["logits"] == pytest.approx(logits, abs=1e-5)


def test_the_file_says_that_it_takes_a_photograph(tmp_path):
    path, _ = write(tmp_path)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    (image,) = model.graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim] == ["height", "width", 3]
    metadata = Metadata.from_properties({each.key: each.value for each in model.metadata_props})
    assert metadata.takes_photograph
    assert metadata.explanation["embed_preprocessing"] is True
    assert metadata.parity["preprocessing"] == 0
    assert metadata.parity["explanation"] <= SHARE
    properties = {each.key: each.value for each in model.metadata_props}
    explanation = json.loads(properties["masktool.explanation"]) | {"embed_preprocessing": "yes"}
    with pytest.raises(MasktoolError, match="damaged"):
        Metadata.from_properties(properties | {"masktool.explanation": json.dumps(explanation)})


def test_on_request_the_photograph_is_prepared_for_the_prediction_alone(tmp_path):
    path, _ = write(tmp_path, on_request="required", target="required")
    asked = {"image": np.asarray(draw((30, 20))), "target": np.array([2])}
    unwanted, wanted = (run(path, **asked, explain=np.array([wish])) for wish in (False, True))
    assert np.array_equal(unwanted["logits"], wanted["logits"])
    assert unwanted["saliency_map"].shape == (0, 1, *SIZE)
    assert np.ptp(wanted["saliency_map"]) > 0


@pytest.mark.parametrize("network", [NETWORK, BATCH_MIXING], ids=["any batch", "one by one"])
def test_a_session_takes_photographs(tmp_path, network):
    path, masked = write(tmp_path, network)
    photograph = draw((40, 31))
    with masktool.load(path, "cpu") as session, masktool.load(masked, "cpu") as other:
        assert (session.channels, session.spatial_shape) == (3, SIZE)
        prepared = prepare(photograph, session.metadata.preprocessing).array
        assert session(np.asarray(photograph)) == pytest.approx(other(prepared), abs=1e-5)
        assert session.forward_passes == 1
        with pytest.raises(MasktoolError, match="wrong rank"):
            session(images())


def test_models_that_take_no_photographs_are_refused(tmp_path):
    def refusal(**options):
        with pytest.raises(MasktoolError) as caught:
            write_explained(tmp_path / "file.onnx", embed_preprocessing=True, **options)
        return for_command_line(caught.value.message)

    assert "does not say how a photograph becomes its input" in refusal(preprocessing=None)
    grey = Preprocessing(size=SIZE, resize="exact", channel_order="L", mean=(0.0,), std=(1.0,))
    assert "expected 3 channels, got 1 (L)" in refusal(preprocessing=grey)
    assert "without a resize_to" in refusal(preprocessing=Preprocessing(size=SIZE))
    short = dataclasses.replace(Preprocessing(size=SIZE, resize="exact"), mean=(0.0,))
    assert "preprocessing does not fit the channels" in refusal(preprocessing=short)
    assert not (tmp_path / "file.onnx").exists()


def test_a_grey_network_sees_the_photographs_grey(tmp_path):
    single = NETWORK.replace("float[N, 3, 12, 10] image", "float[N, 1, 12, 10] image")
    single = single.replace("float[6, 3, 3, 3] kernel", "float[6, 1, 3, 3] kernel")
    grey = Preprocessing(size=SIZE, resize_to=14, channel_order="L", mean=(0.1,), std=(0.2,))
    path, masked = write(tmp_path, single, preprocessing=grey)
    photograph = draw((40, 31))
    with masktool.load(masked, "cpu") as session:
        logits = session(prepare(photograph, grey).array)
    assert run(path, image=np.asarray(photograph))["logits"] == pytest.approx(logits, abs=1e-5)


def test_channels_last_and_blue_first(tmp_path):
    steps = Preprocessing(size=SIZE, resize_to=14, channel_order="BGR", layout="NHWC", **COLOURS)
    source, photograph = network(*SIZE, layout="NHWC"), draw((31, 40))
    path, masked = tmp_path / "file.onnx", tmp_path / "masked.onnx"
    options = {"output_kind": "logits", "preprocessing": steps}
    masktool.export(source, masked, **options)
    masktool.export_explained(source, path, "lime", n_samples=40, n_segments=9, embed_preprocessing=True, **options)
    found = run(path, image=np.asarray(photograph))
    published = {"alpha": 1.0, "sampling": "independent"}  # as files have it
    expected = masktool.explain(masked, photograph, "lime", n_samples=40, segments="grid", n_segments=9, **published)
    difference = np.abs(found["saliency_map"][0, 0] - expected.model_attributions).max()
    assert difference <= SHARE * np.ptp(expected.model_attributions)


def test_a_portable_file_takes_no_photograph(tmp_path):
    with pytest.raises(MasktoolError, match="photographs are of any"):
        write_explained(tmp_path / "file.onnx", embed_preprocessing=True, portable=True)


def test_python_explains_by_such_a_file(tmp_path):
    path, masked = write(tmp_path, target="optional", embed_overlay=True)
    photograph = draw((40, 31))
    for target in (None, "dog"):
        found = masktool.explain(path, photograph, "occlusion", target)
        expected = masktool.explain(masked, photograph, "occlusion", target)
        assert found.target == expected.target
        assert found.crop_box == expected.crop_box
        assert np.abs(found.model_attributions - expected.model_attributions).max() <= SHARE * np.ptp(
            expected.model_attributions
        )
        assert found.attributions.shape == (31, 40)
        assert "overlay" not in found.quality
    with pytest.raises(MasktoolError, match="the file prepares photographs itself"):
        masktool.explain(path, images()[0], "occlusion")


def test_such_a_file_is_measured_again(tmp_path):
    path, _ = write(tmp_path, embed_overlay=True)
    found = masktool.check_export(path, tmp_path / "network.onnx")
    assert not found.failed
    assert {each.figure for each in found.verdicts} >= {"predictions", "explanation"}
    repetition, recorded = masktool.check_export(path).verdicts
    assert (repetition.figure, repetition.passed, recorded.figure) == ("batches", True, "explanation")
