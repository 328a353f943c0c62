"""What is no classifier of photographs of a fixed size: several inputs, open sizes, detectors, bands, fp16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.unusual_graphs import (
    detector,
    half_precision,
    many_channels,
    open_network,
    random_images,
    several_inputs,
    two_images,
)

import masktool
from masktool import MasktoolError
from masktool.contract import Metadata
from masktool.exporters.sources import load_source
from masktool.interface.check import check_export


def run_plain(model: onnx.ModelProto, **feed: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)


def assert_exact(metadata: Metadata) -> None:
    limited = {name: figure for name, figure in metadata.parity.items() if name not in ("response", "probes")}
    assert set(limited.values()) == {0.0}
    assert metadata.parity["response"] > 0.01


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_other_inputs_stay_and_are_fed(tmp_path: Path, batch: str | int):
    model = several_inputs(batch)
    assert_exact(masktool.export(model, tmp_path / "masked.onnx").metadata)
    rows = 4 if batch == 4 else 1
    images, facts = random_images(rows, 3, 8, 8), random_images(1, 2, seed=1)
    shift, temperature = np.array([2]), np.array([1.5], np.float32)
    expected = run_plain(model, image=images, facts=facts.repeat(rows, 0), temperature=temperature, shift=shift)[0]
    with masktool.load(tmp_path / "masked.onnx", "cpu") as session:
        assert [other.name for other in session.other_inputs] == ["facts", "temperature", "shift"]
        inputs = {"facts": facts, "temperature": 1.5, "shift": [2]}
        np.testing.assert_allclose(session(images, inputs=inputs), expected, rtol=1e-6)
        many = session(images[:1], np.ones((5, 1, 8, 8)), inputs=inputs)
        np.testing.assert_allclose(many, np.repeat(expected[:1], 5, 0), rtol=1e-6)


def test_the_image_is_the_input_that_was_named(tmp_path: Path):
    with pytest.raises(MasktoolError, match=r"image_input=.first. or .second."):
        masktool.export(two_images(), tmp_path / "masked.onnx")
    metadata = masktool.export(two_images(), tmp_path / "masked.onnx", image_input="first").metadata
    assert metadata.image_input == "first"
    assert_exact(metadata)
    assert not list(check_export(tmp_path / "masked.onnx", load_source(two_images(), image_input="first")).failed)


def test_an_open_size_makes_the_mask_required(tmp_path: Path):
    metadata = masktool.export(open_network(), tmp_path / "open.onnx").metadata
    assert_exact(metadata)
    with masktool.load(tmp_path / "open.onnx", "cpu") as session:
        assert session.mask_required
        assert session.spatial_shape == (None, None)
        for size in ((20, 33), (64, 48)):
            images = random_images(2, 3, *size)
            np.testing.assert_array_equal(session(images), run_plain(open_network(), image=images)[0])
            half = np.ones((1, 1, *size))
            half[..., : size[1] // 2] = 0
            poisoned = images.copy()
            poisoned[..., : size[1] // 2] = np.nan
            np.testing.assert_array_equal(session(poisoned, half), session(images, half))


def test_an_open_size_with_an_optional_mask_is_refused_with_a_way_out(tmp_path: Path):
    with pytest.raises(MasktoolError, match=r"fixed height and width.*input_size=\(H, W\), or mask_required=True"):
        masktool.export(open_network(), tmp_path / "open.onnx", mask_required=False)
    masktool.export(open_network(), tmp_path / "fixed.onnx", input_size=(20, 32))
    with masktool.load(tmp_path / "fixed.onnx", "cpu") as session:
        assert (session.mask_required, session.spatial_shape) == (False, (20, 32))


def test_an_open_size_is_measured_at_two_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from masktool.exporters import parity

    sizes = []
    measure = parity.measure_probe
    monkeypatch.setattr(parity, "measure_probe", lambda *args: (sizes.append(args[1].size), measure(*args))[1])
    masktool.export(open_network(), tmp_path / "open.onnx")
    assert sizes == ["224 x 224", "256 x 288"]


def test_a_network_that_does_not_run_at_the_usual_size_asks_for_one(tmp_path: Path):
    model = open_network()
    (weight,) = (each for each in model.graph.initializer if each.name == "weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(random_images(16 * 10 * 12, 4), "weight"))
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pool.op_type = "Identity"
    with pytest.raises(MasktoolError, match=r"does not run .*224 x 224.*input_size=\(H, W\)"):
        masktool.export(model, tmp_path / "masked.onnx")


@pytest.mark.slow
def test_a_real_network_of_open_size(data_dir: Path, tmp_path: Path):
    metadata = masktool.export(data_dir / "onnx" / "paddle_ocr_cls.onnx", tmp_path / "masked.onnx").metadata
    assert metadata.parity["ones"] <= 1e-5
    assert metadata.parity["invariance"] == 0


def test_a_detector_keeps_its_outputs(tmp_path: Path):
    metadata = masktool.export(detector(), tmp_path / "masked.onnx").metadata
    assert metadata.class_output is None
    assert_exact(metadata)
    images = random_images(1, 3, 16, 24)
    with masktool.load(tmp_path / "masked.onnx", "cpu") as session:
        assert session.output_shapes == {"boxes": (None, 24, 4), "scores": (None, 24, 2)}
        found = session.run(images, outputs=["scores"])
        np.testing.assert_array_equal(found["scores"], run_plain(detector(), image=images)[1])
        assert set(session.run(images)) == {"boxes", "scores"}


@pytest.mark.parametrize(
    "name",
    [
        "blazeface_front_nhwc",
        pytest.param("ultraface_rfb320", marks=pytest.mark.slow),
        pytest.param("yunet_s_320", marks=pytest.mark.slow),
        "matlab_rul_small_window20",
    ],
)
def test_real_detectors_and_regressors(data_dir: Path, tmp_path: Path, name: str):
    metadata = masktool.export(data_dir / "onnx" / f"{name}.onnx", tmp_path / "masked.onnx").metadata
    assert metadata.parity["ones"] <= 1e-5
    assert metadata.parity["invariance"] == 0
    assert metadata.class_output == ("fc_2_Flatten" if name.startswith("matlab") else None)


@pytest.mark.parametrize(("channels", "layout"), [(1, "NCHW"), (13, "NCHW"), (13, "NHWC"), (2, "NHWC")])
def test_any_number_of_channels(tmp_path: Path, channels: int, layout: str):
    metadata = masktool.export(many_channels(channels, layout), tmp_path / "masked.onnx").metadata
    assert metadata.layout == layout
    assert_exact(metadata)
    with masktool.load(tmp_path / "masked.onnx", "cpu") as session:
        assert (session.channels, session.spatial_shape, session.layout) == (channels, (10, 12), layout)


def test_half_precision_stays(tmp_path: Path):
    metadata = masktool.export(half_precision(), tmp_path / "masked.onnx").metadata
    assert metadata.parity["invariance"] == 0
    images = random_images(2, 3, 8, 8)
    expected = run_plain(half_precision(), image=images.astype(np.float16))[0]
    with masktool.load(tmp_path / "masked.onnx", "cpu") as session:
        scores = session(images)
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, expected.astype(np.float32))
        assert session.run(images)["scores"].dtype == np.float16
