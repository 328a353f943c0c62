"""What a rule cannot treat: the right node is named, and nothing raw comes out; what it can treat is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

import masktool
from masktool.errors import MasktoolError, UnsupportedOperatorError
from masktool.limits import limits
from masktool.ops.gradients import GRADIENT_RULES
from masktool.ops.graph import MASK_RULES

HEAD = "g = GlobalAveragePool (last) h = Flatten (g) y = Gemm (h, v)"
Constants = dict[str, Sequence[int]]


def write(
    folder: Path, nodes: str, channels: int, size: str, weights: dict[str, tuple[int, ...]], constants: Constants
) -> Path:
    """Writes nodes from the image ``x`` to a map ``last``, with a classifier behind it."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> n (float[N, {channels}, {size}] x) => (float[N, 5] y) '
        f"{{ {nodes} {HEAD} }}"
    )
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    for name, values in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    path = folder / "plain.onnx"
    onnx.save(model, path)
    return path


CONV = "[conv] last = Conv <pads = [1, 1, 1, 1]> ({0}, w)"
TO_LAST = "[move] t = Transpose <perm = [0, 2, 3, 1]> (x) "
SCATTERED = {
    "a view where a permute was meant, 3 channels": (
        3, "12, 12", TO_LAST + "[view] r = Reshape (t, s) " + CONV.format("r"), {"s": (-1, 3, 12, 12)}, 3,
    ),
    "likewise, 4 channels": (
        4, "12, 12", TO_LAST + "[view] r = Reshape (t, s) " + CONV.format("r"), {"s": (-1, 4, 12, 12)}, 4,
    ),
    "likewise, then an activation and a norm": (
        4, "8, 8",
        TO_LAST + "[view] r = Reshape (t, s) a = Relu (r) e = Sigmoid (a) " + CONV.format("e"),
        {"s": (-1, 4, 8, 8)}, 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCATTERED)
def test_the_node_that_lost_the_map_is_named(name: str, tmp_path: Path) -> None:
    channels, size, nodes, constants, into = SCATTERED[name]
    source = write(tmp_path, nodes, channels, size, {"w": (3, into, 3, 3), "v": (3, 5)}, constants)
    with pytest.raises(UnsupportedOperatorError) as caught:
        masktool.export(source, tmp_path / "masked.onnx")
    assert len(caught.value.nodes) == 1
    assert caught.value.nodes[0][:2] == ("view", "Reshape")
    assert str(caught.value).endswith('masking="fill" takes this file')
    masktool.export(source, tmp_path / "filled.onnx", masking="fill")


def test_fill_is_not_offered_where_it_refuses_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: object, **options: object) -> None:
        raise MasktoolError("no")

    monkeypatch.setattr("masktool.exporters.preparation.fill_model", refuses)
    channels, size, nodes, constants, into = SCATTERED["likewise, 4 channels"]
    source = write(tmp_path, nodes, channels, size, {"w": (3, into, 3, 3), "v": (3, 5)}, constants)
    with pytest.raises(UnsupportedOperatorError) as caught:
        masktool.export(source, tmp_path / "masked.onnx")
    assert "masking=" not in str(caught.value)


def unshuffled(images: np.ndarray, order: str) -> np.ndarray:
    """Cuts blocks of 2 × 2 pixels into channels, with the block's pixels behind or in front of the channels."""
    n, c, h, w = images.shape
    cut = images.reshape(n, c, h // 2, 2, w // 2, 2)
    moved = cut.transpose(0, 1, 3, 5, 2, 4) if order == "CRD" else cut.transpose(0, 3, 5, 1, 2, 4)
    return moved.reshape(n, 4 * c, h // 2, w // 2)


FOCUS = "".join(
    f"[s{i}{j}] f{i}{j} = Slice (x, b{i}{j}, end, axes, two) " for j in range(2) for i in range(2)
)  # fmt: skip
UNSHUFFLES = {
    "as torch writes it": (
        "CRD", "a = Reshape (x, s) b = Transpose <perm = [0, 1, 3, 5, 2, 4]> (a) r = Reshape (b, t) ",
        {"s": (-1, 3, 4, 2, 6, 2), "t": (-1, 12, 4, 6)},
    ),
    "depth in the last place": (
        "DCR", "a = Reshape (x, s) b = Transpose <perm = [0, 3, 5, 1, 2, 4]> (a) r = Reshape (b, t) ",
        {"s": (-1, 3, 4, 2, 6, 2), "t": (-1, 12, 4, 6)},
    ),
    "SpaceToDepth": ("DCR", "r = SpaceToDepth <blocksize = 2> (x) ", {}),
    "a Focus stem of strided slices": (
        "Focus", FOCUS + "r = Concat <axis = 1> (f00, f10, f01, f11) ",
        {f"b{i}{j}": (i, j) for i in range(2) for j in range(2)} | {"end": (1000, 1000), "axes": (2, 3), "two": (2, 2)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSHUFFLES)
@pytest.mark.parametrize("gradient", [None, "logit"])
def test_space_to_depth_written_out(name: str, gradient: str | None, tmp_path: Path) -> None:
    """A place is kept where any pixel of its block is, and a missing pixel is 0: what a mask of ones never shows."""
    order, nodes, constants = UNSHUFFLES[name]
    weights = {"w": (6, 12, 3, 3), "v": (6, 5)}
    source = write(tmp_path, nodes + "[conv] last = Conv (r, w)", 3, "8, 12", weights, constants)
    parity = masktool.export(source, tmp_path / "masked.onnx", gradient=gradient).metadata.parity
    assert parity["ones"] <= 1e-6
    assert parity["invariance"] == 0
    rng = np.random.default_rng(1)
    images = rng.standard_normal((2, 3, 8, 12), np.float32)
    mask = np.ones((2, 1, 8, 12), np.float32)
    mask[:, :, 1::2, ::2] = 0  # of each block three pixels stay, so that no place is missing
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(source).graph.initializer}
    if order == "Focus":
        cut = np.concatenate([(images * mask)[..., i::2, j::2] for j in range(2) for i in range(2)], 1)
    else:
        cut = unshuffled(images * mask, order)
    expected = functional.conv2d(torch.tensor(cut), torch.tensor(stored["w"])).mean((2, 3)).numpy() @ stored["v"]
    session = onnxruntime.InferenceSession(tmp_path / "masked.onnx", providers=["CPUExecutionProvider"])
    feeds = {"x": images, "mask": mask} | ({"target": np.array([0])} if gradient else {})
    if order != "Focus":  # there each slice is a map of its own, and holes in it are set to 0 as here or filled
        np.testing.assert_allclose(session.run(["y"], feeds)[0], expected, atol=1e-5 * np.abs(expected).max())


COPIES = 'r = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
SHUFFLES = {
    # name: written out, constants, channels behind it, the same as one operator
    "pixel shuffle, as torch writes it": (
        "a = Reshape (x, s) b = Transpose <perm = [0, 1, 4, 2, 5, 3]> (a) r = Reshape (b, t) ",
        {"s": (-1, 2, 2, 2, 6, 8), "t": (-1, 2, 12, 16)}, 2, 'r = DepthToSpace <blocksize = 2, mode = "CRD"> (x) ',
    ),
    "depth in the last place": (
        "a = Reshape (x, s) b = Transpose <perm = [0, 3, 4, 1, 5, 2]> (a) r = Reshape (b, t) ",
        {"s": (-1, 2, 2, 2, 6, 8), "t": (-1, 2, 12, 16)}, 2, "r = DepthToSpace <blocksize = 2> (x) ",
    ),
    "channels last, as Swin expands patches": (
        "c = Transpose <perm = [0, 2, 3, 1]> (x) a = Reshape (c, s) b = Transpose <perm = [0, 1, 3, 2, 4, 5]> (a) "
        "d = Reshape (b, t) r = Transpose <perm = [0, 3, 1, 2]> (d) ",
        {"s": (-1, 6, 8, 2, 2, 2), "t": (-1, 12, 16, 2)}, 2, "r = DepthToSpace <blocksize = 2> (x) ",
    ),
    "copies of each pixel": (
        "u = Unsqueeze (x, ax) a = Expand (u, s) r = Reshape (a, t) ",
        {"ax": (3, 5), "s": (1, 8, 6, 2, 8, 2), "t": (-1, 8, 12, 16)}, 8,
        f"f = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> () {COPIES} (x, , f) ",
    ),
    "joined with a map that was resized": (
        "a = Reshape (x, s) b = Transpose <perm = [0, 1, 4, 2, 5, 3]> (a) c = Reshape (b, t) "
        f"f = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> () {COPIES.replace('r =', 'd =')} (x, , f) "
        "r = Concat <axis = 1> (c, d) ",
        {"s": (-1, 2, 2, 2, 6, 8), "t": (-1, 2, 12, 16)}, 10,
        'c = DepthToSpace <blocksize = 2, mode = "CRD"> (x) f = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> () '
        f"{COPIES.replace('r =', 'd =')} (x, , f) r = Concat <axis = 1> (c, d) ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("masking", ["layer", "partial"])
@pytest.mark.parametrize("name", SHUFFLES)
def test_depth_to_space_written_out(name: str, masking: Literal["layer", "partial"], tmp_path: Path) -> None:
    """It gives what the operator itself gives, under masks of all kinds, and so do its gradients."""
    written_out, constants, channels, operator = SHUFFLES[name]
    rng = np.random.default_rng(1)
    images = rng.standard_normal((4, 8, 6, 8), np.float32)
    masks = (rng.random((4, 1, 6, 8)) < 0.5).astype(np.float32)
    masks[1, :, :, :4], masks[2] = 0, 0
    masks[3] = rng.random((1, 6, 8))
    found = []
    for folder, nodes in (("written", written_out), ("operator", operator)):
        (tmp_path / folder).mkdir()
        source = write(
            tmp_path / folder, nodes + CONV.format("r"), 8, "6, 8", {"w": (6, channels, 3, 3), "v": (6, 5)}, constants
        )
        target = tmp_path / folder / "masked.onnx"
        parity = masktool.export(source, target, masking=masking, gradient="logit").metadata.parity
        assert parity["ones"] == 0
        assert parity["invariance"] == 0
        session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
        feeds = {"x": images, "mask": masks, "target": np.array([1])}
        found.append(session.run(["y", "gradient_image", "gradient_mask"], feeds))
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_copies_of_the_whole_map_side_by_side_are_refused(tmp_path: Path) -> None:
    nodes = "a = Reshape (x, s) b = Transpose <perm = [0, 1, 2, 4, 3, 5]> (a) [merge] r = Reshape (b, t) "
    constants = {"s": (-1, 2, 2, 2, 6, 8), "t": (-1, 2, 12, 16)}
    source = write(tmp_path, nodes + CONV.format("r"), 8, "6, 8", {"w": (6, 2, 3, 3), "v": (6, 5)}, constants)
    with pytest.raises(UnsupportedOperatorError, match=r"'merge'\): it spreads the places"):
        masktool.export(source, tmp_path / "masked.onnx")


def test_a_dilation_beyond_the_map_takes_no_more_rounds_than_the_map_is_long(tmp_path: Path) -> None:
    nodes = "[conv] last = Conv <pads = [1200, 1200, 1200, 1200], dilations = [1200, 1200]> (x, w)"
    source = write(tmp_path, nodes, 3, "8, 8", {"w": (4, 3, 3, 3), "v": (4, 5)}, {})
    assert masktool.export(source, tmp_path / "masked.onnx").metadata.parity["ones"] == 0
    rounds = [node for node in onnx.load(tmp_path / "masked.onnx").graph.node if node.op_type == "NeighborFill"]
    assert len(rounds) == 7


def test_more_rounds_than_the_limit_are_refused_by_name(tmp_path: Path) -> None:
    nodes = "[conv] last = Conv <pads = [150, 150, 150, 150], dilations = [150, 150]> (x, w)"
    source = write(tmp_path, nodes, 1, "H, W", {"w": (2, 1, 3, 3), "v": (2, 5)}, {})
    with pytest.raises(MasktoolError, match=r"node 'conv'.*at most 256 rounds.*300.*limits\(fill_rounds=300\)"):
        masktool.export(source, tmp_path / "masked.onnx")
    nodes = "[conv] last = Conv <dilations = [2, 2]> (x, w)"
    source = write(tmp_path, nodes, 1, "8, 8", {"w": (2, 1, 3, 3), "v": (2, 5)}, {})
    with limits(fill_rounds=2), pytest.raises(MasktoolError, match="at most 2 rounds"):
        masktool.export(source, tmp_path / "masked.onnx")


MALFORMED = {
    "a kernel of 2**40": "[conv] last = Conv <kernel_shape = [1099511627776, 1099511627776]> (x, w)",
    "another kernel than the weights": "[conv] last = Conv <kernel_shape = [5, 3]> (x, w)",
    "a transposed one": "[conv] last = ConvTranspose <kernel_shape = [2, 3]> (x, w)",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_windows_end_in_an_error(name: str, tmp_path: Path) -> None:
    source = write(tmp_path, MALFORMED[name], 3, "8, 8", {"w": (3, 3, 3, 3), "v": (3, 5)}, {})
    with pytest.raises(MasktoolError):
        masktool.export(source, tmp_path / "masked.onnx")


@pytest.mark.parametrize("corpus", ["zero_division_reshape.onnx"])
def test_lengths_of_zero_are_refused(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(MasktoolError):
        masktool.export(Path(__file__).parent / "corpus" / corpus, tmp_path / "masked.onnx")


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError("y"), IndexError("z"), AssertionError()])
@pytest.mark.parametrize("gradient", [None, "logit"])
def test_whatever_a_rule_raises_names_its_node(
    error: Exception, gradient: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise error

    table = MASK_RULES if gradient is None else GRADIENT_RULES
    assert "Conv" in table  # all rules are registered
    monkeypatch.setitem(table._entries, "Conv", fails)
    source = write(tmp_path, "[conv] last = Conv (x, w)", 3, "8, 8", {"w": (4, 3, 3, 3), "v": (4, 5)}, {})
    kind = "mask" if gradient is None else "gradient"
    with pytest.raises(
        MasktoolError, match=rf"the {kind} rule for Conv failed \(node 'conv'\): {type(error).__name__}"
    ) as caught:
        masktool.export(source, tmp_path / "masked.onnx", gradient=gradient)
    assert caught.value.__cause__ is error
