"""Lifting a fixed batch: every image gets what the original gave it, and what cannot be lifted is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from networks.small_graphs import classifier, parse

from masktool.exporters.batch import lift_batch, run_image_by_image
from masktool.exporters.canonical import canonicalise
from masktool.exporters.independence import Obstacle
from masktool.exporters.onnx_file import find_image_input
from masktool.exporters.sources import load_source

FIXED_BATCH_FILES = (
    "blazeface_front_nhwc.onnx",  # zero channels concatenated, four heads joined over positions
    "cifar_base_kw_pt04.onnx",  # flattened by shape arithmetic
    "cifar_resnet_2b.onnx",
    "cntk_mnist.onnx",
    "convnet_avgpool_pad.onnx",
    "sri_resnet_a.onnx",
    "ultraface_rfb320.onnx",  # decodes boxes with constants over all anchors
    "yunet_s_320.onnx",  # Resize to fixed sizes
)
BATCH = 5
"""None of those that the lift itself checks."""


def run(model: onnx_ir.Model | onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    proto = onnx_ir.to_proto(model) if isinstance(model, onnx_ir.Model) else model
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    name = next(value.name for value in session.get_inputs() if len(value.shape) == 4)
    return session.run(None, {name: images})


def lifted(proto: onnx.ModelProto) -> onnx_ir.Model:
    model = canonicalise(onnx_ir.from_proto(proto))
    independence = lift_batch(model, find_image_input(model).name)
    assert independence.verdict == "proved", independence.describe()
    onnx.checker.check_model(onnx_ir.to_proto(model), full_check=True)
    return model


def refusal(proto: onnx.ModelProto) -> Obstacle:
    """Returns the first node that keeps a batch from being opened."""
    model = canonicalise(onnx_ir.from_proto(proto))
    independence = lift_batch(model, find_image_input(model).name)
    assert independence.verdict == "mixing"
    return independence.findings[0]


def images_for(model: onnx_ir.Model, count: int) -> np.ndarray:
    image = find_image_input(model)
    shape = (count, *(int(side) for side in list(image.shape)[1:]))
    return np.random.default_rng(7).standard_normal(shape).astype(image.dtype.numpy())


def assert_same_per_image(original: onnx.ModelProto, model: onnx_ir.Model, batch: int = 1) -> None:
    images = images_for(model, BATCH)
    rows = []
    for image in images:
        outputs = run(original, np.repeat(image[None], batch, axis=0))
        rows.append([output.reshape(batch, -1)[0] for output in outputs])
    for found, expected in zip(run(model, images), map(np.stack, zip(*rows, strict=True)), strict=True):
        assert found.shape[0] == BATCH
        np.testing.assert_allclose(found.reshape(BATCH, -1), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", FIXED_BATCH_FILES)
def test_published_graphs_with_a_fixed_batch_are_lifted(data_dir: Path, name: str):
    path = data_dir / "onnx" / name
    source = load_source(path)
    assert find_image_input(source.model).shape[0] == 1
    model = lifted(onnx_ir.to_proto(source.model))
    assert find_image_input(model).shape[0] == onnx_ir.SymbolicDim("batch")
    assert all(value.shape[0] == onnx_ir.SymbolicDim("batch") for value in model.graph.outputs)
    assert_same_per_image(onnx.load(path), model)


def test_a_symbolic_batch_is_left_alone():
    model = canonicalise(onnx_ir.from_proto(classifier("N")))
    before = onnx_ir.to_proto(model).SerializeToString()
    lift_batch(model, "image")
    assert onnx_ir.to_proto(model).SerializeToString() == before


REWRITTEN = {
    "Reshape": "s = Constant<value_ints = [1, 192]>() y = Reshape(image, s)",
    "Reshape of the batch alone": "s = Constant<value_ints = [1, -1]>() y = Reshape(image, s)",
    "Reshape and back": """
        s = Constant<value_ints = [3, 64]>() t = Constant<value_ints = [1, 192]>()
        rows = Reshape(image, s) even = Softmax<axis = 1>(rows) y = Reshape(even, t)""",
    "Expand": """
        s = Constant<value_ints = [1, 6, 3, 8, 8]>() a = Constant<value_ints = [1]>()
        u = Unsqueeze(image, a) y = Expand(u, s)""",
    "Resize": 's = Constant<value_ints = [1, 3, 12, 10]>() y = Resize<mode = "linear">(image, , , s)',
    "Squeeze": "p = GlobalAveragePool(image) y = Squeeze(p)",
    "Concat": "s = Constant<value_ints = [1, 2, 8, 8]>() z = ConstantOfShape(s) y = Concat<axis = 1>(image, z)",
    "Channel shuffle across the batch": """
        s = Constant<value_ints = [1, 3, 64]>() t = Constant<value_ints = [3, 1, 64]>()
        a = Reshape(image, s) b = Transpose<perm = [1, 0, 2]>(a)
        u = Constant<value_ints = [3, -1, 1, 8, 8]>() c = Reshape(b, u)
        i = Constant<value_int = 1>() y = Gather<axis = 0>(c, i)""",
    "Heads in the batch": """
        s = Constant<value_ints = [4, 48]>() a = Reshape(image, s) b = Softmax(a)
        t = Constant<value_ints = [1, 4, 48]>() y = Reshape(b, t)""",
    "LSTM that starts at zero": """
        s = Constant<value_ints = [1, 3, 64]>() a = Reshape(image, s) b = Transpose<perm = [1, 0, 2]>(a)
        h = Constant<value_ints = [1, 1, 2]>() z = ConstantOfShape(h)
        v = Constant<value_ints = [1, 8, 64]>() w = ConstantOfShape<value = float[1] {0.01}>(v)
        r = Constant<value_ints = [1, 8, 2]>() q = ConstantOfShape<value = float[1] {0.1}>(r)
        p, last, cell = LSTM<hidden_size = 2>(b, w, q, , , z, z) y = Transpose<perm = [1, 0, 2]>(last)""",
    "Grid that all images share": """
        s = Constant<value_ints = [1, 4, 5, 2]>() g = ConstantOfShape<value = float[1] {0.3}>(s)
        y = GridSample(image, g)""",
    "Slice of the whole batch": """
        z = Constant<value_ints = [0]>() o = Constant<value_ints = [1]>() y = Slice(image, z, o, z)""",
    "Concat on a negative axis": """
        s = Constant<value_ints = [1, 3, 8, 1]>() z = ConstantOfShape(s) y = Concat<axis = -1>(image, z)""",
}


@pytest.mark.parametrize("body", REWRITTEN.values(), ids=REWRITTEN)
def test_each_way_to_write_down_a_batch(body: str):
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g (float[1, 3, 8, 8] image) => (float[] y) {{ {body} }}'
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")  # "float[]" declares a scalar
    assert_same_per_image(proto, lifted(proto))


def test_a_fixed_batch_above_one():
    proto = classifier(2)
    assert_same_per_image(proto, lifted(proto), batch=2)


def test_a_fixed_batch_of_fp16_images():
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float16[1, 3, 8, 8] image) => (float16[1, 4] y) <float16[192, 4] weight>
    { s = Constant<value_ints = [1, 192]>() flat = Reshape(image, s) y = MatMul(flat, weight) }"""
    model = lifted(parse(text))
    images = images_for(model, BATCH)
    assert images.dtype == np.float16
    alone = np.concatenate([run(model, images[i : i + 1])[0] for i in range(BATCH)])
    np.testing.assert_allclose(run(model, images)[0], alone, rtol=1e-2, atol=1e-2)


MIXED = {
    "mean over the batch": (
        "ReduceMean",
        "axes = Constant<value_ints = [0]>() [mix] mean = ReduceMean(raw, axes) scores = Add(mean, raw)",
    ),
    "softmax over the batch": ("Softmax", "[mix] scores = Softmax<axis = 0>(raw)"),
    "the first image alone": ("Gather", "first = Constant<value_ints = [0]>() [mix] scores = Gather(raw, first)"),
    "sum over everything": ("ReduceSum", "[mix] sum = ReduceSum<keepdims = 1>(raw) scores = Add(sum, raw)"),
}


@pytest.mark.parametrize(("op_type", "body"), MIXED.values(), ids=MIXED)
def test_what_mixes_images_is_named(op_type: str, body: str):
    proto = classifier(1, f"raw = Gemm(flat, weight) {body}")
    assert refusal(proto)[1:3] == (op_type, "mix")


def test_a_constant_per_image_is_named():
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[2, 3, 8, 8] image) => (float[2, 3, 8, 8] y) <float[2, 1, 1, 1] gains> { [gain] y = Mul(image, gains) }"""
    assert refusal(parse(text))[1:3] == ("Mul", "gain")


def test_results_of_single_images_are_stacked_on_the_first_axis():
    images = np.arange(6.0).reshape(3, 2)
    doubled, merged, lone = run_image_by_image(lambda x: [2 * x, x.reshape(-1, 1), x.sum(axis=1)], images, 1)
    assert doubled.tolist() == (2 * images).tolist()
    assert merged.shape == (6, 1)
    assert lone.tolist() == [1, 5, 9]


def test_a_scalar_result_is_taken_once_per_image():
    (total,) = run_image_by_image(lambda x: [np.asarray(x.sum())], np.ones((3, 2)), 1)
    assert total.tolist() == [2, 2, 2]
