"""Networks for one image that drop the axis of their images at the end: a Squeeze, a first row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import masktool
from masktool.contract import Masking

HEAD = "c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) g = Gemm(f, v) "
AXIS = "a = Constant<value_ints = [0]>() "
DROPPED = {
    # name: nodes, output, shape of the output for three images, class output, kind
    "pooled": ("c = Conv(x, w) p = GlobalAveragePool(c) y = Squeeze(p)", "float[16] y", (3, 16), "y", None),
    "declared with the axis": (HEAD + "y = Squeeze(g)", "float[1, 5] y", (3, 5), "y", None),
    "not declared": (HEAD + "y = Squeeze(g)", "float[] y", (3, 5), "y", None),
    "the axis named": (HEAD + AXIS + "y = Squeeze(g, a)", "float[5] y", (3, 5), "y", None),
    "the first row": (HEAD + "i = Constant<value_int = 0>() y = Gather(g, i)", "float[5] y", (3, 5), "y", None),
    "the last row": (HEAD + "i = Constant<value_int = -1>() y = Gather(g, i)", "float[5] y", (3, 5), "y", None),
    "a softmax behind it": (HEAD + "s = Squeeze(g) y = Softmax(s)", "float[5] y", (3, 5), "y", "probabilities"),
    "a matrix behind it": (HEAD + "s = Squeeze(g) y = MatMul(s, u)", "float[4] y", (3, 4), "y", None),
    "a map": ("c = Conv(x, w) m = Conv(c, k) y = Squeeze(m)", "float[14, 14] y", (3, 14, 14), None, None),
}  # fmt: skip
WEIGHTS = {"w": (16, 3, 3, 3), "v": (16, 5), "u": (5, 4), "k": (1, 16, 1, 1)}  # channels fill blocks on any processor


def write(nodes: str, output: str, path: Path) -> Path:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3, 16, 16] x) => ({output}) {{ {nodes} }}'
    )
    rng, read = np.random.default_rng(0), {name for node in model.graph.node for name in node.input}
    for name in sorted(WEIGHTS.keys() & read):
        tensor = onnx.numpy_helper.from_array(rng.standard_normal(WEIGHTS[name], np.float32), name)
        model.graph.initializer.append(tensor)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("name", DROPPED)
def test_images_keep_apart_and_get_their_axis_back(name: str, masking: Masking, tmp_path: Path) -> None:
    nodes, output, shape, class_output, kind = DROPPED[name]
    source = write(nodes, output, tmp_path / "plain.onnx")
    metadata = masktool.export(source, tmp_path / "masked.onnx", masking=masking).metadata
    assert (metadata.batching, metadata.parity["ones"]) == ("any", 0)
    assert (metadata.class_output, metadata.output_kind) == (class_output, kind)
    images = np.random.default_rng(1).standard_normal((3, 3, 16, 16), np.float32)
    (found,) = onnxruntime.InferenceSession(tmp_path / "masked.onnx").run(None, {"x": images})
    assert found.shape == shape
    plain = onnxruntime.InferenceSession(source)
    for image, answer in zip(images, found, strict=True):
        np.testing.assert_allclose(answer.ravel(), plain.run(None, {"x": image[None]})[0].ravel(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_what_the_axis_is_needed_for_stays_for_one_image(masking: Masking, tmp_path: Path) -> None:
    source = write(HEAD + "s = Squeeze(g) y = Softmax<axis = 0>(s)", "float[5] y", tmp_path / "plain.onnx")
    metadata = masktool.export(source, tmp_path / "masked.onnx", masking=masking).metadata
    assert (metadata.batching, metadata.parity["ones"]) == ("one", 0)


def test_a_map_of_one_image_is_no_list_of_class_scores(tmp_path: Path) -> None:
    """Its first axis is no batch: 14 rows of one image are not one row of 14 images."""
    nodes = "c = Conv(x, w) m = Conv(c, k) a = Constant<value_ints = [14, 14]>() y = Reshape(m, a)"
    source = write(nodes, "float[14, 14] y", tmp_path / "plain.onnx")
    assert masktool.export(source, tmp_path / "masked.onnx", masking="fill").metadata.class_output is None
    with pytest.raises(masktool.MasktoolError, match=r"not one score per class.*N = 1, got 'y' float \(14, 14\)"):
        masktool.export(source, tmp_path / "masked.onnx", masking="fill", class_output="y")
