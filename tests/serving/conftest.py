"""Files of every kind that is served, and a server of them that most tests share."""

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

import masktool
from masktool import demo
from masktool.contract import Preprocessing
from serving.server_process import serving

SIZE = (24, 20)
LABELS = ("cat", "dog", "bird", "fish")
PREPROCESSING = Preprocessing(SIZE, resize_to=26, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
NETWORK = """
<ir_version: 10, opset_import: ["" : 18]>
classifier ({inputs}) => (float[N, 4] logits) {{
    {start}
    features = Conv<pads = [1, 1, 1, 1]>(x, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}}
"""


def make_network(inputs=f"float[N, 3, {SIZE[0]}, {SIZE[1]}] image", start="x = Identity(image)", width=6):
    """Returns a small classifier with weights that a seed draws."""
    draw = np.random.default_rng(7).standard_normal
    model = onnx.parser.parse_model(NETWORK.format(inputs=inputs, start=start))
    for name, shape in {"kernel": (width, 3, 3, 3), "weight": (width, 4)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(draw(shape).astype(np.float32), name))
    return model


def write_files(folder):
    """Writes a file of every kind, and returns their paths by name."""
    known = {"preprocessing": PREPROCESSING, "labels": LABELS}
    two = make_network(
        f"float[N, 3, {SIZE[0]}, {SIZE[1]}] image, float[N, 3, {SIZE[0]}, {SIZE[1]}] depth", "x = Add(image, depth)"
    )
    masktool.export(make_network(), folder / "masked.onnx", **known)
    masktool.export(two, folder / "two.onnx", image_input="image", **known)
    explained = {"method": "occlusion", "sliding_window_shapes": [8, 8], "strides": [4, 4], **known}
    masktool.export_explained(make_network(), folder / "explained.onnx", target="optional", **explained)
    masktool.export_explained(make_network(), folder / "asked.onnx", on_request="optional", **explained)
    return {path.stem: path for path in folder.glob("*.onnx")}


@pytest.fixture(scope="session")
def needs_server():
    """Skips a test where the extra is not installed."""
    for package in ("uvicorn", "starlette", "tritonclient"):
        pytest.importorskip(package, reason="run scripts/serving_environment.sh FOLDER, then FOLDER/bin/pytest")


@pytest.fixture(scope="session")
def served_files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def server(needs_server, served_files):
    """A server of all the files, and of the built-in model."""
    models = [f"demo={demo.model_path()}", *served_files.values()]
    with serving(*models, "--max-body", 2_000_000, "--max-batch", 16) as server:
        yield server


@pytest.fixture(scope="session")
def images():
    """Sixteen inputs for the small networks."""
    return np.random.default_rng(1).standard_normal((16, 3, *SIZE)).astype(np.float32)
