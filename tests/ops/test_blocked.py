"""Masked maps and gradients stay in the layout in which ONNX Runtime keeps those of convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from networks.small_graphs import parse

import masktool
from masktool.exporters.canonical import canonicalise
from masktool.exporters.gradient import add_gradients
from masktool.exporters.gradient_ends import ScoreLosses

START = "s = Conv <pads = [1, 1, 1, 1]> (x, v) a = Relu (s)"
END = "p = GlobalAveragePool (z) y = Flatten (p)"
NETWORKS = {
    "fill": "b = Conv <pads = [1, 1, 1, 1]> (a, w) z = Relu (b)",
    "depthwise fill": "b = Conv <group = 16, pads = [1, 1, 1, 1]> (a, d) z = Relu (b)",
    "maximum": "b = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (a) z = Conv <pads = [1, 1, 1, 1]> (b, w)",
    "concatenation, then a maximum": "b = Conv <pads = [1, 1, 1, 1]> (a, w) c = Relu (b) e = Concat <axis = 1> (a, c) "
    "f = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (e) z = Conv (f, u)",
}
WEIGHTS = "float[16, 3, 3, 3] v, float[16, 16, 3, 3] w, float[16, 1, 3, 3] d, float[16, 32, 1, 1] u"


def reorders(path: Path, folder: Path) -> int:
    """Returns how many maps ONNX Runtime brings from one layout into the other; masks, of one channel, not counted."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimised.onnx").graph.node
    return sum(node.op_type in ("ReorderInput", "ReorderOutput") for node in nodes)


def network_with(middle: str) -> onnx.ModelProto:
    return parse(
        '<ir_version: 10, opset_import: ["" : 18]> net (float[N, 3, 24, 24] x) => (float[N, 16] y)'
        f"<{WEIGHTS}> {{ {START} {middle} {END} }}"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_move_no_map_between_layouts(name: str, tmp_path: Path) -> None:
    network = network_with(NETWORKS[name])
    onnx.save(network, tmp_path / "plain.onnx")
    masktool.export(network, tmp_path / "masked.onnx", output_kind="logits")
    assert reorders(tmp_path / "masked.onnx", tmp_path) <= reorders(tmp_path / "plain.onnx", tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
def test_files_with_gradients_spread_no_mask_and_keep_the_scores(name: str, tmp_path: Path) -> None:
    masked, with_gradient = tmp_path / "masked.onnx", tmp_path / "gradient.onnx"
    masktool.export(network_with(NETWORKS[name]), masked, output_kind="logits")
    masktool.add_gradients_to(masked, with_gradient)
    assert count_spreads(masked) > count_spreads(with_gradient) == 0
    draw = np.random.default_rng(0)
    images, masks = draw.normal(size=(2, 3, 24, 24)), draw.random((2, 1, 24, 24)) < 0.5
    arrays = images.astype(np.float32), masks.astype(np.float32)
    with masktool.load(masked, providers="cpu") as one, masktool.load(with_gradient, providers="cpu") as other:
        np.testing.assert_allclose(other.scores(*arrays), one.scores(*arrays), rtol=1e-4)


RESIDUAL = (
    "c1 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (a, w) r1 = Relu (c1) c2 = Conv <pads = [1, 1, 1, 1]> (r1, w) "
    "c3 = Conv <strides = [2, 2]> (a, o) b = Add (c2, c3) r = Relu (b) c4 = Conv <pads = [1, 1, 1, 1]> (r, w) "
    "r4 = Relu (c4) c5 = Conv <pads = [1, 1, 1, 1]> (r4, w) e = Add (c5, r) z = Relu (e)"
)
"""Two residual blocks, the first of stride 2."""


def residual_network() -> onnx.ModelProto:
    return parse(
        '<ir_version: 10, opset_import: ["" : 18]> net (float[N, 3, 24, 24] x) => (float[N, 16] y)'
        f"<{WEIGHTS}, float[16, 16, 1, 1] o> {{ {START} {RESIDUAL} {END} }}"
    )


def differentiate(path: Path, *, blocks: bool) -> None:
    model = canonicalise(ir.from_proto(residual_network()))
    add_gradients(model, "x", ScoreLosses("y", "logits"), blocks=blocks)
    ir.save(model, path)


def test_gradients_go_back_in_blocks_and_change_no_number(tmp_path: Path) -> None:
    feed = {"x": np.random.default_rng(0).normal(size=(3, 3, 24, 24)).astype(np.float32), "target": np.array([5])}
    paths, found = [tmp_path / "moved.onnx", tmp_path / "blocked.onnx"], []
    for path, blocks in zip(paths, (False, True), strict=True):
        differentiate(path, blocks=blocks)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found.append(session.run(["y", "gradient_image"], feed))
    (scores, gradient), (blocked_scores, blocked_gradient) = found
    assert scores.tobytes() == blocked_scores.tobytes()
    np.testing.assert_allclose(blocked_gradient, gradient, rtol=0, atol=1e-6 * np.abs(gradient).max())
    assert count_spreads(paths[1]) == 3  # where the gradients of two strided convolutions and of the mean come
    assert count_spreads(paths[0]) == 0
    moved, blocked = (reorders(path, tmp_path) for path in paths)
    assert blocked < moved


@pytest.mark.parametrize("options", [{"for_provider": "webgpu"}, {"portable": True}, {"precision": "fp16"}])
def test_files_for_other_runtimes_and_of_16_bits_move_no_gradient(options: dict[str, Any], tmp_path: Path) -> None:
    usual, other = tmp_path / "usual.onnx", tmp_path / "other.onnx"
    for path, more in ((usual, {}), (other, options)):
        masktool.export(residual_network(), path, masking="fill", gradient="logit", output_kind="logits", **more)
    assert count_spreads(usual) > 0
    assert count_spreads(other) == 0


def count_spreads(path: Path) -> int:
    """Returns how many convolutions have weights of 1, one for each channel that they give."""
    model = onnx.load(path)
    ones = {
        each.name
        for each in model.graph.initializer
        if list(each.dims[1:]) == [1, 1, 1] and (onnx.numpy_helper.to_array(each) == 1).all()
    }
    return sum(node.op_type == "Conv" and node.input[1] in ones for node in model.graph.node)
