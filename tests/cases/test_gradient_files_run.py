"""Files with gradients are opened and run once written; pools with ``ceil_mode`` have the shapes that runtimes give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

import masktool
from masktool.errors import MasktoolError
from masktool.exporters import storage, write, write_extended

POOLS = {
    # name: operator, opset, (height, width), kernel, strides, pads of both sides, counts its padding
    "a last window behind the image": ("AveragePool", 21, (9, 12), (2, 2), (1, 3), (0, 0), False),
    "behind the image, padding counted": ("AveragePool", 18, (9, 12), (2, 2), (1, 3), (1, 0), True),
    "a maximum behind the image": ("MaxPool", 13, (10, 3), (2, 1), (2, 3), (1, 0), False),
    "behind the image in both axes": ("MaxPool", 18, (7, 6), (1, 2), (3, 4), (0, 0), False),
    "behind in one axis, over the edge in the other": ("MaxPool", 17, (8, 7), (3, 1), (2, 4), (0, 0), False),
    "an average, likewise": ("AveragePool", 19, (8, 7), (3, 1), (2, 4), (0, 0), False),
    "likewise, padding counted": ("AveragePool", 18, (8, 7), (3, 1), (2, 4), (0, 0), True),
    "over the edge alone": ("AveragePool", 22, (8, 8), (3, 3), (2, 2), (0, 0), False),
}
TOLERANCE = 1e-5
ELSE = "gives something else than the graph that was measured"


def build(pool: tuple, folder: Path) -> Path:
    """Writes a convolution, a pool in ceil mode, a mean and a linear layer."""
    op_type, opset, size, kernel, strides, pads, counts = pool
    attributes = f"kernel_shape = {list(kernel)}, strides = {list(strides)}, pads = {[*pads, *pads]}, ceil_mode = 1"
    attributes += ", count_include_pad = 1" if counts else ""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[N, 2, {size[0]}, {size[1]}] x) => (float[N, 3] y) '
        f"{{ c = Conv <pads = [1, 1, 1, 1]> (x, w) p = {op_type} <{attributes}> (c) "
        "f = GlobalAveragePool (p) h = Flatten (f) y = Gemm (h, v) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w": (4, 2, 3, 3), "v": (4, 3)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    path = folder / "plain.onnx"
    onnx.save(model, path)
    return path


def gradient_in_torch(pool: tuple, path: Path, images: np.ndarray, target: int) -> np.ndarray:
    op_type, _, _, kernel, strides, pads, counts = pool
    w, v = (torch.tensor(onnx.numpy_helper.to_array(each)) for each in onnx.load(path).graph.initializer)
    x = torch.tensor(images, requires_grad=True)
    maps = functional.conv2d(x, w, padding=1)
    if op_type == "MaxPool":
        maps = functional.max_pool2d(maps, kernel, strides, pads, ceil_mode=True)
    else:
        maps = functional.avg_pool2d(maps, kernel, strides, pads, ceil_mode=True, count_include_pad=counts)
    (maps.mean((2, 3)) @ v)[:, target].sum().backward()
    assert x.grad is not None
    return x.grad.numpy()


@pytest.mark.parametrize("name", POOLS)
def test_gradients_of_pools_in_ceil_mode_are_those_of_torch(name: str, tmp_path: Path) -> None:
    source, target = build(POOLS[name], tmp_path), tmp_path / "masked.onnx"
    masktool.export(source, target, gradient="logit")
    images = np.random.default_rng(1).standard_normal((2, 2, *POOLS[name][2]), np.float32)
    expected = gradient_in_torch(POOLS[name], source, images, 1)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    (gradient,) = session.run(["gradient_image"], {"x": images, "target": np.array([1])})
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    assert masktool.load(target).gradient(images[:1], target=1) is not None


HALF = {
    # name: nodes from features to a map, their constants, and the same in torch
    "overlapping maxima": (
        "r = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (c)", {}, lambda c: functional.max_pool2d(c, 3, 2)
    ),
    "a border of reflections": (
        'r = Pad <mode = "reflect"> (c, i)', {"i": (0, 0, 2, 1, 0, 0, 2, 1)},
        lambda c: functional.pad(c, (1, 1, 2, 2), mode="reflect"),
    ),
    "a border of the nearest": (
        'r = Pad <mode = "edge"> (c, i)', {"i": (0, 0, 2, 2, 0, 0, 2, 2)},
        lambda c: functional.pad(c, (2, 2, 2, 2), mode="replicate"),
    ),
    "channels gathered twice": ("r = Gather <axis = 1> (c, i)", {"i": (3, 3, 0)}, lambda c: c[:, [3, 3, 0]]),
    "rows in another order": ("r = Gather <axis = 2> (c, i)", {"i": (7, 0, 0, 2)}, lambda c: c[:, :, [7, 0, 0, 2]]),
}  # fmt: skip
HALF_TOLERANCE = 1e-2


@pytest.mark.parametrize("ends", ["float", "float16"])
@pytest.mark.parametrize("name", HALF)
def test_gradients_in_float16_are_those_of_torch(name: str, ends: str, tmp_path: Path) -> None:
    nodes, constants, in_torch = HALF[name]
    first, last = ("Cast <to = 10>", "Cast <to = 1>") if ends == "float" else ("Identity", "Identity")
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> g ({ends}[N, 3, 8, 8] x) => ({ends}[N, 2] y) {{ h = {first} (x) '
        f"c = Conv <pads = [1, 1, 1, 1]> (h, w) {nodes} s = Sigmoid (r) m = GlobalAveragePool (s) f = Flatten (m) "
        f"q = Slice (f, from, to, axes) z = MatMul (q, v) y = {last} (z) }}"
    )
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "v": rng.standard_normal((3, 2))}
    stored = {key: value.astype(np.float16) for key, value in weights.items()}
    stored |= {"from": np.array([0]), "to": np.array([3]), "axes": np.array([1])}
    stored |= {key: np.array(value) for key, value in constants.items()}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in stored.items())
    masktool.export(model, tmp_path / "masked.onnx", gradient="logit")
    images = rng.standard_normal((2, 3, 8, 8)).astype(np.float16)
    leaf = torch.tensor(images.astype(np.float32), requires_grad=True)
    w, v = (torch.tensor(stored[key].astype(np.float32)) for key in ("w", "v"))
    maps = in_torch(functional.conv2d(leaf, w, padding=1)).sigmoid()
    (maps.mean((2, 3))[:, :3] @ v)[:, 1].sum().backward()
    session = masktool.load(tmp_path / "masked.onnx")
    found = session.gradient(images if ends == "float16" else images.astype(np.float32), target=1)
    assert leaf.grad is not None
    expected = leaf.grad.numpy()
    np.testing.assert_allclose(found.image, expected, rtol=0, atol=HALF_TOLERANCE * np.abs(expected).max())


def test_a_file_that_does_not_say_what_was_measured_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = write.answer

    def shifted(*arguments: object) -> list[np.ndarray]:
        return [output + 1 for output in measured(*arguments)]

    monkeypatch.setattr(write, "answer", shifted)
    with pytest.raises(MasktoolError, match=ELSE):
        masktool.export(build(POOLS["over the edge alone"], tmp_path), tmp_path / "masked.onnx", gradient="logit")
    assert not (tmp_path / "masked.onnx").exists()


def test_a_file_of_other_weights_than_the_measured_ones_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = storage.Staging.write

    def spoiled(staged: storage.Staging) -> Path:
        path = written(staged)
        model = onnx.load(path)
        weights = next(each for each in model.graph.initializer if each.name == "v")
        weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) + 1, "v"))
        onnx.save(model, path)
        return path

    monkeypatch.setattr(storage.Staging, "write", spoiled)
    with pytest.raises(MasktoolError, match=ELSE):
        masktool.export(build(POOLS["over the edge alone"], tmp_path), tmp_path / "masked.onnx")
    assert not (tmp_path / "masked.onnx").exists()


def test_gradients_added_later_are_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masktool.export(build(POOLS["over the edge alone"], tmp_path), tmp_path / "masked.onnx")
    spoil = write_extended.with_gradients

    def spoiled(model: object, *arguments: object) -> object:
        metadata = spoil(model, *arguments)
        node = next(node for node in reversed(model.graph) if node.op_type == "Reshape")
        node.outputs[0].shape = None
        wrong = onnx.numpy_helper.from_array(np.array([7, 7]))
        constant = write.ir.Value(name="spoiled", const_value=write.ir.from_proto(wrong))
        model.graph.register_initializer(constant)
        node.replace_input_with(1, constant)
        return metadata

    monkeypatch.setattr(write_extended, "with_gradients", spoiled)
    with pytest.raises(MasktoolError, match=r"gradients\.onnx"):
        masktool.add_gradients_to(tmp_path / "masked.onnx", tmp_path / "gradients.onnx")
    assert not (tmp_path / "gradients.onnx").exists()
    monkeypatch.setattr(write_extended, "with_gradients", spoil)
    masktool.add_gradients_to(tmp_path / "masked.onnx", tmp_path / "gradients.onnx")
