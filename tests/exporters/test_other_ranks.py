"""Networks of signals and volumes: how their input is found and laid out, and ResNets against the rules in torch."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.canonical import canonicalise
from masktool.exporters.onnx_file import find_image_input, layout_of
from masktool.layouts import FROM_CHANNELS_FIRST, LAYOUTS, TO_CHANNELS_FIRST

TOLERANCE = 1e-5
"""Relative to the largest logit, in float32."""


def parse(inputs: str, nodes: str, **weights: np.ndarray) -> ir.Model:
    """Returns a graph of some nodes."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => (float y) {{ {nodes} }}')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return ir.from_proto(model)


W1, W2, W3 = (np.ones((4, 2, *[3] * axes), np.float32) for axes in (1, 2, 3))
ROW = {"w": W2, "a": np.array([2])}
CASES = {
    "signal": ("float[N,2,50] x", "y = Conv (x, w)", {"w": W1}, "NCL"),
    "signal, channels last": ("float[N,50,2] x", "t = Transpose <perm=[0,2,1]> (x) y = Conv (t, w)", {"w": W1}, "NLC"),
    "signal, normalised": ("float[N,2,50] x", "a = Mul (x, x) y = Conv (a, w)", {"w": W1}, "NCL"),
    "signal, back and forth": (
        "float[N,2,50] x",
        "t = Transpose <perm=[0,2,1]> (x) u = Transpose <perm=[0,2,1]> (t) y = Conv (u, w)",
        {"w": W1},
        "NCL",
    ),
    "a signal as a row": ("float[N,2,50] x", "u = Unsqueeze (x, a) y = Conv (u, w)", ROW, "NCL"),
    "a signal as a row, channels last": (
        "float[N,50,2] x",
        "u = Unsqueeze (x, a) t = Transpose <perm=[0,3,1,2]> (u) y = Conv (t, w)",
        {"w": W2, "a": np.array([1])},
        "NLC",
    ),
    "volume": ("float[N,2,9,9,9] x", "y = Conv (x, w)", {"w": W3}, "NCDHW"),
    "volume, channels last": (
        "float[N,9,9,9,2] x",
        "t = Transpose <perm=[0,4,1,2,3]> (x) y = Conv (t, w)",
        {"w": W3},
        "NDHWC",
    ),
    "image": ("float[N,2,9,9] x", "y = Conv (x, w)", {"w": W2}, "NCHW"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_operators_tell_the_layout(name: str) -> None:
    inputs, nodes, weights, layout = CASES[name]
    model = canonicalise(parse(inputs, nodes, **weights))
    assert layout_of(find_image_input(model)) == layout


def test_an_image_counts_before_a_volume_and_that_before_a_signal() -> None:
    both = parse("float[N,2,50] s, float[N,2,9,9,9] v", "a = Conv (s, w) y = Conv (v, u)", w=W1, u=W3)
    assert find_image_input(both).name == "v"
    three = parse("float[N,2,9,9,9] v, float[N,2,9,9] i", "a = Conv (v, u) y = Conv (i, w)", u=W3, w=W2)
    assert find_image_input(three).name == "i"


def test_tokens_are_no_signal_unless_they_are_named() -> None:
    tokens = parse("float[N,50,2] x", "y = MatMul (x, w)", w=np.ones((2, 3), np.float32))
    with pytest.raises(MasktoolError, match=r'if it is a signal.*image_input="x"'):
        find_image_input(tokens)
    assert find_image_input(tokens, "x").name == "x"


def test_permutations_bring_layouts_back() -> None:
    for layout in LAYOUTS:
        shape = np.arange(len(layout))
        assert list(shape[list(TO_CHANNELS_FIRST[layout])][list(FROM_CHANNELS_FIRST[layout])]) == list(shape)


def block(conv, norm, channels, wider, stride):
    """Two convolutions of 3 places a side beside a shortcut of one."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(conv(channels, wider, 3, stride, 1, bias=False), norm(wider), nn.ReLU())
            self.second = nn.Sequential(conv(wider, wider, 3, 1, 1, bias=False), norm(wider))
            self.shortcut = nn.Sequential(conv(channels, wider, 1, stride, bias=False), norm(wider))

        def forward(self, x):
            return (self.second(self.first(x)) + self.shortcut(x)).relu()

    return Block()


def resnet_of_signals():
    """A ResNet of 1-D convolutions."""
    from torch import nn

    conv, norm = nn.Conv1d, nn.BatchNorm1d
    stem = conv(3, 8, 7, 2, 3, bias=False), norm(8), nn.ReLU(), nn.MaxPool1d(3, 2, 1)
    blocks = block(conv, norm, 8, 8, 1), block(conv, norm, 8, 16, 2), block(conv, norm, 16, 24, 2)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 6))


def check_whole_network(network, size, folder, rules):
    """Exports a network and compares it with itself, with the rules in torch, and under what is missing."""
    import torch
    from reference.layer_masking import MaskedReference

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, *size, generator=generator)
    masks = (torch.rand(3, 1, *size, generator=generator) < 0.6).float()
    masks[1, ..., : size[-1] // 2] = 0
    for rule in rules:
        path = folder / f"{rule}.onnx"
        exported = masktool.export(network, path, input_size=size, channels=3, output_kind="logits", rule=rule)
        parity = exported.metadata.parity
        assert parity["ones"] == parity["left_out"] == parity["invariance"] == 0
        assert parity["framework"] <= TOLERANCE
        expected = MaskedReference(network, images, len(masks), rule)(images, masks).numpy()
        with masktool.load(path) as session:
            found = session(images.numpy(), masks.numpy())
            poisoned = np.where(masks.numpy() == 0, np.float32(np.nan), images.numpy())
            np.testing.assert_array_equal(session(poisoned, masks.numpy()), found)
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_a_resnet_of_signals_is_exported_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    check_whole_network(resnet_of_signals().eval(), (200,), tmp_path, ("published", "cell"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_a_resnet_of_videos_is_exported_exactly(tmp_path, torchvision_models):
    import torch

    torch.manual_seed(0)
    check_whole_network(torchvision_models.video.r3d_18(weights=None).eval(), (4, 32, 32), tmp_path, ("published",))
