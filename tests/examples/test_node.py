"""The example for Node, by every method, and the photograph's preprocessing in JavaScript against Python's."""

import json
import re

import numpy as np
import pytest
from combinations import quickly
from networks.small_graphs import parse
from PIL import Image

import masktool
from examples.files import EXAMPLES, PHOTOGRAPH, run_node
from masktool.contract import Preprocessing
from masktool.embedding.method import EMBEDDED_METHODS
from masktool.runtime.preprocessing import prepare

PREPARE = """
import { readFile, writeFile } from "node:fs/promises";
import { prepare } from %s;
const { photograph, metadata } = JSON.parse(await readFile("case.json"));
const { values, shape, box } = prepare({ ...photograph, data: await readFile("pixels") }, metadata);
await writeFile("values", values);
console.log(JSON.stringify({ shape, box }));
"""
SMALL = {"size": (17, 23), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
CASES = {
    **{
        f"{filter_}-{size}": (size, {**SMALL, "resize_to": 25, "interpolation": filter_})
        for filter_ in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
        for size in ((61, 40), (13, 19))
    },
    "exact": ((61, 40), {**SMALL, "resize": "exact"}),
    "cropped": ((61, 40), {**SMALL, "resize": "none"}),
    "padded": ((9, 40), {**SMALL, "resize": "none"}),
    "padded after resizing": ((40, 61), {**SMALL, "resize_to": 10}),
    "bgr": ((61, 40), {**SMALL, "resize_to": 25, "channel_order": "BGR"}),
    "grey": ((61, 40), {**SMALL, "resize_to": 25, "channel_order": "L", "mean": (0.5,), "std": (0.3,)}),
    "nhwc": ((61, 40), {**SMALL, "resize_to": 25, "layout": "NHWC", "scale": 1.0}),
    "as it is": ((23, 17), {**SMALL, "resize_to": 17}),
}
"""The photograph's (width, height), and the preprocessing."""

FRONT_PAGE_NETWORK = """
<ir_version: 10, opset_import: ["" : 18]>
classifier (float[N, 3, 224, 224] image) => (float[N, 4] scores)
<float[2, 3, 3, 3] kernel, float[2, 4] weight>
{
    features = Conv<strides = [2, 2]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    scores = Gemm(flat, weight)
}
"""
"""Of the names and the size that the front page speaks of."""


@pytest.fixture
def beside_packages(examples, node_modules):
    """The example's folder, with npm's packages in it."""
    folder = examples / "node"
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(node_modules)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_photograph_becomes_the_same_input_bit_for_bit(name, node, tmp_path):
    (width, height), options = CASES[name]
    preprocessing = Preprocessing(**options)
    pixels = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
    expected = prepare(Image.fromarray(pixels), preprocessing)
    photograph = {"width": width, "height": height, "step": 3}
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    case = {"photograph": photograph, "metadata": {"preprocessing": vars(preprocessing), "explanation": {}}}
    (tmp_path / "case.json").write_text(json.dumps(case))
    module = json.dumps((EXAMPLES / "browser" / "explained-file.mjs").as_uri())
    (tmp_path / "prepare.mjs").write_text(PREPARE % module)
    found = json.loads(run_node("prepare.mjs", folder=tmp_path))
    assert tuple(found["shape"]) == expected.array.shape
    assert np.allclose(found["box"], expected.crop_box, rtol=1e-12)
    values = np.frombuffer((tmp_path / "values").read_bytes(), np.float32).reshape(expected.array.shape)
    assert np.array_equal(values, expected.array)


def test_the_map_is_pythons(method, files, beside_packages, tmp_path):
    printed = run_node(beside_packages / "explain.mjs", files.path(method), PHOTOGRAPH, "result.json", folder=tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    files.expected(method).assert_same(found["label"], found["probability"], found["saliency_map"])
    assert printed.startswith(f"{found['label']}: {found['probability']:.4f}, explained by {method}")


def test_the_networks_own_input_does_too(files, beside_packages, tmp_path):
    method = sorted(EMBEDDED_METHODS)[0]
    (tmp_path / "image.f32").write_bytes(files.image.tobytes())
    run_node(beside_packages / "explain.mjs", files.path(method), "image.f32", "result.json", folder=tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    files.expected(method).assert_same(found["label"], found["probability"], found["saliency_map"])


@pytest.mark.parametrize("method", quickly(["grad-cam", "lime", "rise"], sorted(EMBEDDED_METHODS)))
def test_required_inputs_are_fed(method, files, beside_packages, tmp_path):
    path = files.path(method, target="required")
    run_node(beside_packages / "explain.mjs", path, PHOTOGRAPH, "result.json", folder=tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    files.expected(method).assert_same(found["label"], found["probability"], found["saliency_map"])


def test_the_weights_of_a_file_on_request_are_found_beside_it(files, beside_packages, tmp_path):
    method = sorted(EMBEDDED_METHODS)[0]
    path = files.path(method, on_request="required")
    assert path.with_name(path.name + ".data").exists()
    run_node(beside_packages / "explain.mjs", path, PHOTOGRAPH, "result.json", folder=tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    files.expected(method).assert_same(found["label"], found["probability"], found["saliency_map"])


def test_a_file_that_does_not_explain_itself_is_refused(files, beside_packages, tmp_path):
    with pytest.raises(AssertionError, match="does not explain itself: make one by `masktool export"):
        run_node(beside_packages / "explain.mjs", files.masked(), PHOTOGRAPH, "result.json", folder=tmp_path)


def test_a_file_that_prepares_the_photograph_gets_it_as_it_is(files, beside_packages, tmp_path):
    path = files.path("occlusion", embed_preprocessing=True)
    run_node(beside_packages / "explain.mjs", path, PHOTOGRAPH, "result.json", folder=tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    files.expected("occlusion").assert_same(found["label"], found["probability"], found["saliency_map"])


def test_the_front_page_runs(node_modules, tmp_path):
    """The block of JavaScript in README.md, as it stands there, beside a file of the names that it uses."""
    text = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```js\b[^\n]*\n(.*?)^```$", text, re.M | re.S)
    windows = {"sliding_window_shapes": [112, 112], "strides": [112, 112]}
    network = parse(FRONT_PAGE_NETWORK)
    masktool.export_explained(network, tmp_path / "explained.onnx", "occlusion", output_kind="logits", **windows)
    (tmp_path / "node_modules").symlink_to(node_modules)
    (tmp_path / "block.mjs").write_text(block)
    printed = run_node("block.mjs", folder=tmp_path)
    assert "Float32Array(4) [" in printed
    assert f"Float32Array({224 * 224}) [" in printed
