"""Masked maps stay in the layout in which ONNX Runtime keeps those of convolutions."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
from networks.small_graphs import parse

import masktool

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


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_move_no_map_between_layouts(name: str, tmp_path: Path) -> None:
    network = parse(
        '<ir_version: 10, opset_import: ["" : 18]> net (float[N, 3, 24, 24] x) => (float[N, 16] y)'
        f"<{WEIGHTS}> {{ {START} {NETWORKS[name]} {END} }}"
    )
    onnx.save(network, tmp_path / "plain.onnx")
    masktool.export(network, tmp_path / "masked.onnx", output_kind="logits")
    assert reorders(tmp_path / "masked.onnx", tmp_path) <= reorders(tmp_path / "plain.onnx", tmp_path)
