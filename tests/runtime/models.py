"""Small files that look like what ``masktool export`` writes, but need no exporter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from masktool.contract import MASK_INPUT, Metadata, Preprocessing

CLASSES = 3
SIZE = (8, 10)
IMAGE_INPUT = "image"


def write_model(
    path: Path,
    *,
    size: tuple[int | str, int | str] = SIZE,
    layout: str = "NCHW",
    mask_required: bool = False,
    masked: bool = True,
    trailing_axes: bool = False,
    channels: int = CLASSES,
    dtype: int = onnx.TensorProto.FLOAT,
    rules: dict[str, str] | None = None,
    **metadata,
) -> Path:
    """Class k is the sum of channel k over kept pixels (all pixels without a mask); a second output is its double."""
    height, width = size
    image_shape = ["N", channels, height, width] if layout == "NCHW" else ["N", height, width, channels]
    axes, numpy_type = ([2, 3] if layout == "NCHW" else [1, 2]), helper.tensor_dtype_to_np_dtype(dtype)
    nodes = [
        helper.make_node("Transpose", [MASK_INPUT], ["m"], perm=[0, 2, 3, 1] if layout == "NHWC" else [0, 1, 2, 3])
    ]
    nodes += [helper.make_node("Mul", [IMAGE_INPUT, "m"], ["kept"], name="multiply")]
    nodes += [helper.make_node("ReduceSum", ["kept", "axes"], ["sums"], keepdims=int(trailing_axes))]
    nodes += [helper.make_node("Identity", ["sums"], ["logits"]), helper.make_node("Add", ["sums", "sums"], ["twice"])]
    inputs = [helper.make_tensor_value_info(IMAGE_INPUT, dtype, image_shape)]
    initializers = [numpy_helper.from_array(np.array(axes, np.int64), "axes")]
    default = numpy_helper.from_array(
        np.ones((1, 1, *(n if isinstance(n, int) else 1 for n in size)), numpy_type), MASK_INPUT
    )
    if masked:
        inputs.append(helper.make_tensor_value_info(MASK_INPUT, dtype, ["M", 1, height, width]))
    if not (masked and mask_required):
        initializers.append(default)
    outputs = [helper.make_tensor_value_info(name, dtype, None) for name in ("logits", "twice")]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if rules is not None:
        for node in graph.node:
            for key, value in rules.items():
                node.metadata_props.add(key=key, value=value)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if masked:
        helper.set_model_props(model, make_metadata(layout=layout, size=size, **metadata).to_properties())
    onnx.save(model, path)
    return path


def make_metadata(*, layout: str = "NCHW", size=SIZE, **changes) -> Metadata:
    """Metadata of such a file."""
    fixed = size if all(isinstance(length, int) for length in size) else SIZE
    values = {
        "masking": "layer",
        "source": "sums.onnx",
        "source_sha256": "0" * 64,
        "image_input": IMAGE_INPUT,
        "class_output": "logits",
        "output_kind": "logits",
        "preprocessing": Preprocessing(size=fixed, resize="exact", layout=layout),
        "labels": ("red", "green", "blue"),
        "parity": {"ones_max_abs_difference": 0.0},
        "tool_version": "0.1.0",
    }
    return Metadata(**(values | changes))


def make_images(count: int = 1, *, size=SIZE, seed: int = 0) -> np.ndarray:
    """Images (N, C, H, W) of random numbers."""
    return np.random.default_rng(seed).standard_normal((count, CLASSES, *size)).astype(np.float32)


def make_masks(count: int = 1, *, size=SIZE, seed: int = 1) -> np.ndarray:
    """Binary masks (M, 1, H, W)."""
    return np.random.default_rng(seed).integers(0, 2, (count, 1, *size)).astype(np.float32)
