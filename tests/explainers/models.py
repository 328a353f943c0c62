"""A model whose every answer is known: class k is the mean brightness of region k, under the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from masktool.contract import MASK_INPUT, SALIENCY_MAP, Metadata, Preprocessing

SIZE = (16, 24)
LABELS = ("Top Left", "bottom right", "background")
IMAGE_INPUT = "image"


def region_weights(size=SIZE) -> np.ndarray:
    """(h*w, 3): class 0 reads the top left quarter, 1 the bottom right quarter, 2 nothing."""
    height, width = size
    weights = np.zeros((*size, 3), np.float32)
    weights[: height // 2, : width // 2, 0] = 1
    weights[height // 2 :, width // 2 :, 1] = 1
    return weights.reshape(-1, 3) * 4 / (height * width)


def write_region_model(
    path: Path, *, size=SIZE, preprocessing=None, nan_when_empty=False, saliency=None, **metadata
) -> Path:
    """Writes the model: scores are (red channel * mask) @ region_weights, as they are (0..1).

    ``saliency`` names a node's input that becomes the output ``saliency_map``: ``green`` is the green channel.
    """
    height, width = size
    nodes = [
        helper.make_node("Split", [IMAGE_INPUT], ["red", "green", "blue"], axis=1, num_outputs=3),
        helper.make_node("Mul", ["red", MASK_INPUT], ["kept"]),
        helper.make_node("Flatten", ["kept"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["linear" if nan_when_empty else "scores"]),
    ]
    if nan_when_empty:  # 0 / 0 where region 0 is hidden
        nodes.append(helper.make_node("Div", ["linear", "linear"], ["scores"]))
    inputs = [
        helper.make_tensor_value_info(IMAGE_INPUT, onnx.TensorProto.FLOAT, ["N", 3, height, width]),
        helper.make_tensor_value_info(MASK_INPUT, onnx.TensorProto.FLOAT, ["M", 1, height, width]),
    ]
    initializers = [
        numpy_helper.from_array(np.ones((1, 1, height, width), np.float32), MASK_INPUT),
        numpy_helper.from_array(region_weights(size), "weights"),
    ]
    outputs = [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, None)]
    if saliency is not None:
        nodes.append(helper.make_node("Identity", [saliency], [SALIENCY_MAP]))
        outputs.append(helper.make_tensor_value_info(SALIENCY_MAP, onnx.TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "regions", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    values = {
        "masking": "layer",
        "source": "regions.onnx",
        "source_sha256": "0" * 64,
        "image_input": IMAGE_INPUT,
        "class_output": "scores",
        "output_kind": "probabilities",
        "preprocessing": preprocessing or Preprocessing(size=size, resize="exact"),
        "labels": LABELS,
        "parity": {"ones_max_abs_difference": 0.0},
        "tool_version": "0.1.0",
    }
    helper.set_model_props(model, Metadata(**(values | metadata)).to_properties())
    onnx.save(model, path)
    return path


def bright_photograph(size=SIZE) -> np.ndarray:
    """(H, W, 3) uint8: all white, so that every pixel of a region counts the same."""
    return np.full((*size, 3), 255, np.uint8)


def noise_photograph(size=SIZE, seed=0) -> np.ndarray:
    """(H, W, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
