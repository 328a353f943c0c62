"""Gradients of single operators, in ONNX Runtime and float32, against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from masktool.exporters.canonical import canonicalise
from masktool.exporters.parity import open_session
from masktool.ops.samples import Sample
from ops.gradient_models import add_gradients
from ops.test_mask_rules import build

torch = pytest.importorskip("torch")
F = torch.nn.functional

TOLERANCE = 1e-5
"""Relative to the largest number of the gradient: both sides are float32."""
BATCH = 3

Function = Callable[..., Any]
ACTIVATIONS: dict[str, Function] = {
    "Abs": torch.abs,
    "Celu <alpha = 0.7>": lambda x: F.celu(x, 0.7),
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Elu <alpha = 0.7>": lambda x: F.elu(x, 0.7),
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Gelu": F.gelu,
    'Gelu <approximate = "tanh">': lambda x: F.gelu(x, approximate="tanh"),
    "HardSigmoid <alpha = 0.1666666667, beta = 0.5>": F.hardsigmoid,
    "HardSwish": F.hardswish,
    "LeakyRelu <alpha = 0.1>": lambda x: F.leaky_relu(x, 0.1),
    "Mish": F.mish,
    "Neg": torch.neg,
    "Relu": F.relu,
    "Selu": F.selu,
    "Shrink <lambd = 0.4>": lambda x: F.hardshrink(x, 0.4),
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Tanh": torch.tanh,
    "ThresholdedRelu <alpha = 0.3>": lambda x: F.threshold(x, 0.3, 0),
}
NORMS: dict[str, Function] = {
    "Softmax <axis = 1>": lambda x: x.softmax(1),
    "LogSoftmax <axis = -1>": lambda x: x.log_softmax(-1),
    "LRN <size = 3, alpha = 0.5>": lambda x: F.local_response_norm(x, 3, alpha=0.5),
    "LRN <size = 5, alpha = 0.5, beta = 0.5>": lambda x: F.local_response_norm(x, 5, 0.5, 0.5),
    "MeanVarianceNormalization <axes = [2, 3]>": F.instance_norm,
}
POOLS: dict[str, Function] = {
    "MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>": lambda x: F.max_pool2d(x, 3, 2, 1),
    "MaxPool <kernel_shape = [3, 2], strides = [2, 2], ceil_mode = 1>": lambda x: F.max_pool2d(
        x, (3, 2), 2, ceil_mode=True
    ),
    "MaxPool <kernel_shape = [3, 3], dilations = [2, 3], pads = [1, 1, 1, 1]>": lambda x: F.max_pool2d(
        x, 3, 1, 1, (2, 3)
    ),
    "AveragePool <kernel_shape = [2, 2], strides = [2, 2]>": lambda x: F.avg_pool2d(x, 2),
    "AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>": lambda x: F.avg_pool2d(
        x, 2, ceil_mode=True
    ),
    "AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1>": lambda x: F.avg_pool2d(
        x, 3, 2, 1, ceil_mode=True, count_include_pad=False
    ),
    "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>": lambda x: F.avg_pool2d(
        x, 3, 1, 1, count_include_pad=False
    ),
    "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>": lambda x: F.avg_pool2d(
        x, 3, 1, 1
    ),
    "AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1>": (
        lambda x: F.avg_pool2d(x, 3, 2, 1)
    ),
    "AveragePool <kernel_shape = [3, 5], strides = [3, 2], ceil_mode = 1>": lambda x: F.avg_pool2d(
        x, (3, 5), (3, 2), ceil_mode=True
    ),
    "LpPool <kernel_shape = [3, 3], strides = [2, 2], p = 3>": lambda x: (
        (F.avg_pool2d(x.abs() ** 3, 3, 2) * 9) ** (1 / 3)
    ),
    "GlobalLpPool <p = 2>": lambda x: x.norm(dim=(2, 3), keepdim=True),
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax((2, 3), keepdim=True),
}
OTHER_MAXIMA: dict[str, Function] = {
    "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>": lambda x: F.max_pool2d(x, 2),
    "MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>": lambda x: F.max_pool2d(x, 3, 1, 1),
    "MaxPool <kernel_shape = [3, 2], strides = [3, 1], pads = [1, 0, 1, 0]>": lambda x: F.max_pool2d(
        x, (3, 2), (3, 1), (1, 0)
    ),
    "MaxPool <kernel_shape = [2, 2], strides = [3, 3]>": lambda x: F.max_pool2d(x, 2, 3),
}
RESIZES = [
    ("linear", "half_pixel", (17, 13), lambda x: F.interpolate(x, (17, 13), mode="bilinear")),
    ("linear", "align_corners", (5, 7), lambda x: F.interpolate(x, (5, 7), mode="bilinear", align_corners=True)),
    ("cubic", "half_pixel", (17, 25), lambda x: F.interpolate(x, (17, 25), mode="bicubic")),
    ("nearest", "asymmetric", (17, 25), lambda x: F.interpolate(x, (17, 25), mode="nearest")),
    ("nearest", "asymmetric", (18, 33), lambda x: F.interpolate(x, (18, 33), mode="nearest")),
    ("nearest", "asymmetric", (4, 5), lambda x: F.interpolate(x, (4, 5), mode="nearest")),
]


def reflect(mode: str) -> Function:
    return lambda x, **_: F.pad(x, (2, 1, 1, 2), mode=mode)


def convolution(**options: Any) -> Function:
    return lambda x, w: F.conv2d(x, w, **options)


def transposed(**options: Any) -> Function:
    return lambda x, w: F.conv_transpose2d(x, w, **options)


JOINS: list[tuple[str, Function]] = [
    ("Add (x, a)", lambda x, a: x + a),
    ("Sub (a, x)", lambda x, a: a - x),
    ("Mul (x, a)", lambda x, a: x * a),
    ("Div (a, x)", lambda x, a: a / x),
    ("Div (x, a)", lambda x, a: x / a),
    ("Max (x, a)", lambda x, a: torch.maximum(x, a)),
    ("Min (a, x)", lambda x, a: torch.minimum(x, a)),
    ("Mean (x, a, x)", lambda x, a: (x + a + x) / 3),
    ("Sum (a, x, x)", lambda x, a: x + a + x),
    ("Mod <fmod = 1> (x, a)", lambda x, a: torch.fmod(x, a)),
]
BROADCASTS = {"the same": (4, 9, 11), "by channel": (4, 1, 1), "a new axis": (2, 1, 4, 1, 11)}
CONVOLUTIONS = [
    ("Conv <pads = [1, 1, 1, 1], strides = [2, 2]>", (6, 4, 3, 3), convolution(padding=1, stride=2)),
    ("Conv <strides = [2, 2]>", (6, 4, 1, 1), convolution(stride=2)),
    ("Conv <strides = [3, 3]>", (6, 4, 2, 2), convolution(stride=3)),
    ("Conv <strides = [4, 4], pads = [2, 2, 2, 2]>", (6, 4, 11, 11), convolution(stride=4, padding=2)),
    ("Conv <strides = [2, 1], pads = [1, 0, 1, 0]>", (6, 4, 3, 1), convolution(stride=(2, 1), padding=(1, 0))),
    ("Conv <pads = [2, 2, 2, 2]>", (6, 4, 1, 1), convolution(padding=2)),
    (
        "Conv <strides = [2, 2], dilations = [2, 2], pads = [2, 2, 2, 2]>",
        (6, 4, 3, 3),
        convolution(stride=2, dilation=2, padding=2),
    ),
    ("Conv <group = 2, strides = [2, 2]>", (6, 2, 4, 4), convolution(stride=2, groups=2)),
    (
        "Conv <group = 4, strides = [2, 2], pads = [2, 2, 2, 2]>",
        (4, 1, 5, 5),
        convolution(stride=2, padding=2, groups=4),
    ),
    ("ConvTranspose <strides = [2, 2]>", (4, 3, 3, 3), transposed(stride=2)),
    (
        "ConvTranspose <group = 2, strides = [3, 2], pads = [1, 0, 1, 0], output_padding = [2, 1]>",
        (4, 3, 3, 3),
        transposed(groups=2, stride=(3, 2), padding=(1, 0), output_padding=(2, 1)),
    ),
]
OTHERS: list[tuple[str, Function, dict[str, Any], dict[str, Any]]] = [
    (
        "f = Reshape (x, s) y = Conv <strides = [2], pads = [3, 2], dilations = [2]> (f, w)",
        lambda x, w: F.conv1d(F.pad(x.flatten(2), (3, 2)), w, stride=2, dilation=2),
        {"w": (5, 4, 4)},
        {"s": (-1, 4, 99)},
    ),
    (
        "f = Reshape (x, s) y = ConvTranspose <strides = [3], pads = [1, 1]> (f, w)",
        lambda x, w: F.conv_transpose1d(x.flatten(2), w, stride=3, padding=1),
        {"w": (4, 5, 4)},
        {"s": (-1, 4, 99)},
    ),
    (
        "f = Reshape (x, s) y = AveragePool <kernel_shape = [5], strides = [3], pads = [2, 2]> (f)",
        lambda x: F.avg_pool1d(x.flatten(2), 5, 3, 2, count_include_pad=False),
        {},
        {"s": (-1, 4, 99)},
    ),
    (
        "f = Reshape (x, s) y = MaxPool <kernel_shape = [5], strides = [3], pads = [2, 2]> (f)",
        lambda x: F.max_pool1d(x.flatten(2), 5, 3, 2),
        {},
        {"s": (-1, 4, 99)},
    ),
    ("r = Relu (x) y = Sqrt (r)", lambda x: x.relu().sqrt(), {}, {}),
    ("y = Transpose <perm = [1, 3, 0, 2]> (x)", lambda x: x.permute(1, 3, 0, 2), {}, {}),
    ("y = DepthToSpace <blocksize = 2> (x)", lambda x: blocks_to_space(x), {}, {}),
    ('y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)', lambda x: F.pixel_shuffle(x, 2), {}, {}),
    ('y = Pad <mode = "reflect"> (x, p)', reflect("reflect"), {}, {"p": (0, 0, 1, 2, 0, 0, 2, 1)}),
    ('y = Pad <mode = "edge"> (x, p)', reflect("replicate"), {}, {"p": (0, 0, 1, 2, 0, 0, 2, 1)}),
    ('y = Pad <mode = "wrap"> (x, p)', reflect("circular"), {}, {"p": (0, 0, 1, 2, 0, 0, 2, 1)}),
    ("y = Pad (x, p)", lambda x, **_: x[:, :, 1:, :-2], {}, {"p": (0, 0, -1, 0, 0, 0, 0, -2)}),
    (
        "y = Slice (x, s, e, a, t)",
        lambda x, **_: x[:, :, 1:9:3].flip(3)[:, :, :, 1::2],
        {},
        {"s": (1, -2), "e": (9, -100), "a": (2, 3), "t": (3, -2)},
    ),
    (
        "y = Gather <axis = 2> (x, i)",
        lambda x, **_: x[:, :, [[8, 0, 3], [3, 3, 8]]],
        {},
        {"i": ((8, 0, 3), (3, -6, 8))},
    ),
    ("y = Tile (x, r)", lambda x, **_: x.repeat(1, 2, 1, 3), {}, {"r": (1, 2, 1, 3)}),
    (
        "l = Constant <value_float = -0.5> () h = Constant <value_float = 0.7> () y = Clip (x, l, h)",
        lambda x: x.clamp(-0.5, 0.7),
        {},
        {},
    ),
    ("y = Pow (x, e)", lambda x, **_: x**3, {}, {"e": 3}),
    ("y = Pow (x, e)", lambda x, **_: x**2, {}, {"e": 2}),
    ("y = ReduceMax <keepdims = 0> (x, a)", lambda x, **_: x.amax((1, 3)), {}, {"a": (1, -1)}),
    ("y = ReduceMin (x, a)", lambda x, **_: x.amin(2, keepdim=True), {}, {"a": (2,)}),
    ("y = ReduceL1 <keepdims = 0> (x, a)", lambda x, **_: x.abs().sum((1, 2)), {}, {"a": (1, 2)}),
    ("y = ReduceL2 <keepdims = 0> (x, a)", lambda x, **_: x.norm(dim=(1, 2)), {}, {"a": (1, 2)}),
    ("y = ReduceMean <keepdims = 0> (x, a)", lambda x, **_: x.mean((1, 2)), {}, {"a": (1, 2)}),
    ("y = MatMul (w, x)", lambda x, w: w @ x, {"w": (2, 1, 1, 5, 9)}, {}),
    (
        "t = Conv (x, v) u = Transpose <perm = [0, 1, 3, 2]> (t) y = MatMul (x, u)",
        lambda x, v: x @ F.conv2d(x, v).mT,
        {"v": (1, 4, 1, 1)},
        {},
    ),
    ("y = PRelu (x, s)", lambda x, s: torch.where(x > 0, x, s * x), {"s": (4, 1, 1)}, {}),
    (
        "c = Conv (x, v) y = PRelu (x, c)",
        lambda x, v: torch.where(x > 0, x, F.conv2d(x, v) * x),
        {"v": (1, 4, 1, 1)},
        {},
    ),
    (
        "f = Flatten (x) y = Gemm <alpha = 0.5, transB = 1> (f, w, b)",
        lambda x, w, b: 0.5 * x.flatten(1) @ w.T + b,
        {"w": (5, 396), "b": (5,)},
        {},
    ),
    (
        "f = Flatten (x) y = Gemm <alpha = 0.5, beta = 2.0, transA = 1> (w, f, f)",
        lambda x, w: 0.5 * w.T @ x.flatten(1) + 2 * x.flatten(1),
        {"w": (3, 3)},
        {},
    ),
    ('y = Einsum <equation = "nchw,nchv->nw"> (x, x)', lambda x: torch.einsum("nchw,nchv->nw", x, x), {}, {}),
    (
        'y = Einsum <equation = "nchw,ck->nkh"> (x, u)',
        lambda x, u: torch.einsum("nchw,ck->nkh", x, u),
        {"u": (4, 5)},
        {},
    ),
    (
        "n = LayerNormalization <axis = 2> (x, g, b) y = Tanh (n)",
        lambda x, g, b: F.layer_norm(x, (9, 11), g, b).tanh(),
        {"g": (9, 11), "b": (9, 11)},
        {},
    ),
    (
        "y = InstanceNormalization (x, g, b)",
        lambda x, g, b: F.instance_norm(x, weight=g, bias=b),
        {"g": (4,), "b": (4,)},
        {},
    ),
    (
        "y = GroupNormalization <num_groups = 2> (x, g, b)",
        lambda x, g, b: F.group_norm(x, 2, g, b),
        {"g": (4,), "b": (4,)},
        {},
    ),
    (
        "s = Abs (v) y = BatchNormalization (x, g, b, a, s)",
        lambda x, g, b, a, v: F.batch_norm(x, a, v.abs(), g, b),
        {"g": (4,), "b": (4,), "a": (4,), "v": (4,)},
        {},
    ),
    ("a = Abs (x) s = Sqrt (a) l = Log (a) y = Mul (s, l)", lambda x: x.abs().sqrt() * x.abs().log(), {}, {}),
    ("e = Exp (x) r = Reciprocal (e) y = Pow (e, x)", lambda x: x.exp() ** x, {}, {}),
    ("g = Greater (x, w) y = Where (g, x, w)", lambda x, w: torch.where(x > w, x, w), {"w": (4, 1, 1)}, {}),
    (
        "i = Constant <value_int = 0> () f = Gather (x, i) m = ReduceMean (f, a) y = Mul (x, m)",
        lambda x: x * x[0].mean((1, 2), keepdim=True),
        {},
        {"a": (1, 2)},
    ),
    (
        "a, b = Split <axis = 1, num_outputs = 2> (x) c = Mul (a, b) y = Concat <axis = 2> (c, a)",
        lambda x: torch.cat([x[:, :2] * x[:, 2:], x[:, :2]], 2),
        {},
        {},
    ),
]


def blocks_to_space(x: Any) -> Any:
    n, c, h, w = x.shape
    return x.reshape(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


def compare(
    text: str,
    function: Function,
    weights: dict[str, Any],
    constants: dict[str, Any],
    *,
    indices_of_maxima: bool = True,
    ties: bool = False,
) -> None:
    """Compares the gradients of Σ seed · y with respect to x."""
    plain = build(Sample("against torch", text, weights, constants, opset=21))
    model = add_gradients(canonicalise(ir.from_proto(plain)), indices_of_maxima=indices_of_maxima)
    rng = np.random.default_rng(1)
    image = rng.standard_normal((BATCH, 4, 9, 11)).astype(np.float32)
    image = np.round(image) if ties else image
    given = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in plain.graph.initializer
    }
    x = torch.from_numpy(image).requires_grad_()
    expected = function(x, **{name: value for name, value in given.items() if name in weights})
    seed = rng.standard_normal(expected.shape).astype(np.float32)
    expected.backward(torch.from_numpy(seed))
    output, gradient = open_session(model.SerializeToString()).run(None, {"x": image, "seed": seed})
    np.testing.assert_allclose(output, expected.detach(), rtol=0, atol=TOLERANCE * expected.abs().max().item())
    np.testing.assert_allclose(gradient, x.grad, rtol=0, atol=TOLERANCE * x.grad.abs().max().item())


@pytest.mark.parametrize("node", [*ACTIVATIONS, *NORMS, *POOLS])
def test_one_map(node: str) -> None:
    compare(f"y = {node} (x)", (ACTIVATIONS | NORMS | POOLS)[node], {}, {})


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("node", [node for node in (POOLS | OTHER_MAXIMA) if node.startswith("MaxPool")])
def test_max_pools_without_indices(node: str, ties: bool) -> None:
    compare(f"y = {node} (x)", (POOLS | OTHER_MAXIMA)[node], {}, {}, indices_of_maxima=False, ties=ties)


def test_a_max_pool_of_one_axis_without_indices() -> None:
    text = "f = Reshape (x, s) y = MaxPool <kernel_shape = [5], strides = [3], pads = [2, 2]> (f)"
    (function,) = [function for other, function, *_ in OTHERS if other == text]
    compare(text, function, {}, {"s": (-1, 4, 99)}, indices_of_maxima=False)


@pytest.mark.parametrize("shape", BROADCASTS.values(), ids=BROADCASTS)
@pytest.mark.parametrize(("node", "function"), JOINS, ids=[node for node, _ in JOINS])
def test_joins(node: str, function: Function, shape: tuple[int, ...]) -> None:
    compare(f"y = {node}", function, {"a": shape}, {})


@pytest.mark.parametrize(("mode", "coordinates", "size", "function"), RESIZES)
def test_resize(mode: str, coordinates: str, size: tuple[int, int], function: Function) -> None:
    attributes = f'mode = "{mode}", coordinate_transformation_mode = "{coordinates}", nearest_mode = "floor"'
    text = f"y = Resize <{attributes}, cubic_coeff_a = -0.75, axes = [2, 3]> (x, , , z)"
    compare(text, lambda x: function(x), {}, {"z": size})


@pytest.mark.parametrize(("node", "shape", "function"), CONVOLUTIONS, ids=[node for node, _, _ in CONVOLUTIONS])
def test_convolutions(node: str, shape: tuple[int, ...], function: Function) -> None:
    compare(f"y = {node} (x, w)", function, {"w": shape}, {})


@pytest.mark.parametrize(("text", "function", "weights", "constants"), OTHERS, ids=[text for text, *_ in OTHERS])
def test_others(text: str, function: Function, weights: dict[str, Any], constants: dict[str, Any]) -> None:
    compare(text, function, weights, constants)
