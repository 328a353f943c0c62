"""What a network is measured on: numbers that it was made for, as far as anything tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks.small_graphs import classifier, parse

import masktool
from masktool import MasktoolError
from masktool.contract import Preprocessing
from masktool.exporters.domains import Domain, draw_pictures, find_domains
from masktool.exporters.probes import Probe
from masktool.exporters.sources import load_source
from masktool.interface.check import check_export

HEAD = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[{batch}, 3, 16, 16] image) => (float[{batch}, 5] y) <float[16, 3, 3, 3] k, float[16, 5] w, {weights}>
    {{ {before} c = Conv<pads = [1, 1, 1, 1]>(l, k) r = Relu(c)
       m = GlobalAveragePool(r) f = Flatten(m) y = MatMul(f, w) }}"""
BEFORE = {
    "logarithm": ("l = Log(image)", "float one", {}),
    "square root": ("l = Sqrt(image)", "float one", {}),
    "gamma": ("l = Pow(image, e)", "float e", {"e": 0.45}),
    "optical density": ("q = Add(image, one) d = Div(q, all) p = Log(d) l = Neg(p)", "float one, float all",
                        {"one": 1, "all": 256}),
}  # fmt: skip
FLOAT = np.dtype(np.float32)


def network(name: str, batch: str = "N") -> onnx.ModelProto:
    before, weights, values = BEFORE[name]
    return parse(HEAD.format(batch=batch, before=before, weights=weights), **values)


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("name", BEFORE)
def test_a_network_without_negative_numbers_is_measured_on_none(name: str, batch: str, tmp_path: Path):
    model = network(name, batch)
    parity = masktool.export(model, tmp_path / "masked.onnx").metadata.parity
    assert parity["probes"] == "unit"
    assert parity["ones"] == parity["invariance"] == 0
    assert parity["response"] > 0
    assert not check_export(tmp_path / "masked.onnx").failed
    assert not check_export(tmp_path / "masked.onnx", load_source(model)).failed


def test_a_baseline_outside_of_the_domain_is_refused(tmp_path: Path):
    with pytest.raises(
        MasktoolError, match=r"gives NaN or infinity \(masking=.fill.\).*one to baseline=.image-mean. . .blur."
    ):
        masktool.export(network("logarithm"), tmp_path / "masked.onnx", masking="fill")


def test_pixels_go_through_the_known_preprocessing(tmp_path: Path):
    preprocessing = Preprocessing((8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    (domain,) = find_domains(ir.from_proto(classifier()), "image", "NCHW", FLOAT, preprocessing)
    images = domain.draw(np.random.default_rng(0), (8, 3, 32, 40), FLOAT)
    pixels = (
        images * np.float32([0.2, 0.25, 0.5]).reshape(3, 1, 1) + np.float32([0.5, 0.4, 0.3]).reshape(3, 1, 1)
    ) * 255
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-3)
    assert pixels.min() == pytest.approx(0, abs=1e-3)
    assert pixels.max() == pytest.approx(255, abs=1e-3)
    assert (
        masktool.export(classifier(), tmp_path / "m.onnx", preprocessing=preprocessing).metadata.parity["probes"]
        == "pixels"
    )


def test_pictures_are_smooth_and_differ():
    pictures = draw_pictures(np.random.default_rng(0), (8, 3, 64, 64))
    assert pictures.shape == (8, 3, 64, 64)
    assert np.abs(np.diff(pictures, axis=-1)).mean() < 0.05  # noise has .33
    assert all(picture.std() > 0.1 for picture in pictures)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_integers_are_drawn_as_integers(dtype: type):
    element = np.dtype(dtype)
    (domain,) = find_domains(ir.from_proto(classifier()), "image", "NCHW", element, None)
    probe = Probe.draw((3, 16, 16), "NHWC", element, domain)
    assert probe.images.dtype == element
    assert probe.images.shape == (8, 16, 16, 3)
    assert len(np.unique(probe.images)) > 50
    hidden = probe.masks.transpose(0, 2, 3, 1)[..., :1] == 0
    poisoned = probe.poisoned()
    assert poisoned.dtype == element
    np.testing.assert_array_equal(poisoned[~np.broadcast_to(hidden, poisoned.shape)],
                                  probe.images[~np.broadcast_to(hidden, poisoned.shape)])  # fmt: skip


def test_a_quantised_input_tells_its_range():
    model = parse(
        """<ir_version: 10, opset_import: ["" : 18]> g (float[N, 3, 8, 8] image) => (float[N, 3, 8, 8] y)
        <float scale, uint8 zero> { q = QuantizeLinear(image, scale, zero) y = DequantizeLinear(q, scale, zero) }""",
        scale=0.02, zero=100,
    )  # fmt: skip
    first = find_domains(ir.from_proto(model), "image", "NCHW", FLOAT, None)[0]
    assert first.name == "range"
    assert (first.low[0], first.high[0]) == pytest.approx((-2.0, 3.1))


def test_what_nothing_is_known_of_is_measured_on_noise(tmp_path: Path):
    assert masktool.export(classifier(), tmp_path / "masked.onnx").metadata.parity["probes"] == "normal"
    drawn = Domain("normal").draw(np.random.default_rng(0), (1, 3, 8, 8), FLOAT)
    np.testing.assert_array_equal(drawn, np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(FLOAT))
