"""Mask rules and their gradients on signals (N, C, L) and volumes (N, C, D, H, W), against the rules in torch.

The reference (``tests/reference``) is written from the rules in words; here its rules are called one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_ir.passes import common

from masktool.contract import Masking, SamplerRule
from masktool.exporters.canonical import canonicalise, infer_shapes
from masktool.exporters.parity import open_session
from masktool.exporters.propagate import mask_model
from masktool.layouts import layouts_of_rank
from ops.gradient_models import add_gradients

torch = pytest.importorskip("torch")
F = torch.nn.functional
from reference.carried import Carried, carry_map  # noqa: E402  # after torch was found
from reference.cells import sampling  # noqa: E402
from reference.fill import neighbor_fill  # noqa: E402
from reference.registry import RULES  # noqa: E402
from reference.rules import RULES as ALL_RULES  # noqa: E402, F401  # fills the table

aten = torch.ops.aten
SIZES = {1: (23,), 3: (7, 8, 6)}
CHANNELS, BATCH = 4, 3
TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
"""Relative to the largest number: both sides are float32."""
CONVOLUTIONS = {1: aten.conv1d.default, 3: aten.conv3d.default}
MAX_POOLS = {1: aten.max_pool1d.default, 3: aten.max_pool3d.default}
AVERAGE_POOLS = {1: aten.avg_pool1d.default, 3: aten.avg_pool3d.default}
NEAREST = {1: aten.upsample_nearest1d.vec, 3: aten.upsample_nearest3d.vec}
LINEAR = {1: aten.upsample_linear1d.vec, 3: aten.upsample_trilinear3d.vec}
TRANSPOSED = {1: F.conv_transpose1d, 3: F.conv_transpose3d}

Rule = Callable[..., Any]
"""The reference of a sample: a carried map, its weights by name and the number of axes, to a carried map or tensor."""


@dataclasses.dataclass(frozen=True)
class RankSample:
    """A node for any number of axes of places; ``K3`` in its text stands for 3 along each axis, ``P1`` for pads of 1.

    Attributes:
        text: the nodes, from ``x`` to ``y``.
        reference: what they give under a mask, in torch.
        weights: shapes of the weights by name; ``...`` stands for the kernel's length along each axis.
        constants: integers by name, repeated for each axis.
        rule: the rule of samplers.
        masking: the masking mode.
    """

    text: str
    reference: Rule
    weights: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    kernel: int = 3
    rule: SamplerRule = "published"
    masking: Masking = "layer"
    channels_last: bool = False


def convolve(**options: Any) -> Rule:
    """The rule of a convolution with torch's options."""

    def rule(x: Carried, weights: dict[str, Any], axes: int) -> Any:
        return RULES[CONVOLUTIONS[axes]](x, weights["w"], weights.get("b"), **options)

    return rule


def convolve_behind(function: Rule) -> Rule:
    """A rule, and a convolution of 3 places a side behind it."""
    return lambda x, weights, axes: convolve(padding=1)(function(x, weights, axes), weights, axes)


def convolve_partially(x: Carried, weights: dict[str, Any], axes: int) -> Carried:
    """A convolution that is renormalised by the share of its window that is kept."""
    conv = {1: F.conv1d, 3: F.conv3d}[axes]
    mask, box = x.mask[:, :1], torch.ones(1, 1, *[3] * axes)
    kept, inside = conv(mask, box, padding=1), conv(torch.ones_like(mask), box, padding=1)
    sums = conv(x.value * mask, weights["w"], padding=1)
    value = sums / torch.where(kept > 0, kept / inside, 1) + weights["b"].view(1, -1, *[1] * axes)
    return carry_map(value, (kept > 0).float())


def transpose(stride: int, padding: int, reach: int) -> Rule:
    """A transposed convolution: filled as far as it reaches, kept wherever a kept place contributes or none does."""

    def rule(x: Carried, weights: dict[str, Any], axes: int) -> Carried:
        conv, w = TRANSPOSED[axes], weights["w"]
        mask, box = x.mask[:, :1], torch.ones(1, 1, *w.shape[2:])
        value = conv(neighbor_fill(x.value, mask, reach), w, weights["b"], stride, padding)
        touched = conv(mask, box, stride=stride, padding=padding) > 0
        reached = conv(torch.ones_like(mask), box, stride=stride, padding=padding) > 0
        return carry_map(value, (touched | ~reached).float())

    return rule


def places(axes: int) -> list[int]:
    """The axes of places."""
    return list(range(2, 2 + axes))


def norm_of_instance(x: Carried, weights: dict[str, Any], axes: int) -> Any:
    """Instance normalisation."""
    return RULES[aten.instance_norm.default](x, weights["g"], weights["s"], None, None, True, 0.1, 1e-5, True)


def norm_of_groups(x: Carried, weights: dict[str, Any], axes: int) -> Any:
    """Group normalisation of two groups."""
    return RULES[aten.group_norm.default](x, 2, weights["g"], weights["s"])


def batch_norm(x: Carried, weights: dict[str, Any], axes: int) -> Any:
    """Batch normalisation by statistics that are stored."""
    rule = RULES[aten._native_batch_norm_legit_no_training.default]
    return rule(x, weights["g"], weights["s"], weights["mean"], weights["var"].abs() + 0.5, 0.1, 1e-5)[0]


def residual(x: Carried, weights: dict[str, Any], axes: int) -> Any:
    """A block of a ResNet with a strided shortcut of one place."""
    conv, relu, add = RULES[CONVOLUTIONS[axes]], RULES[aten.relu.default], RULES[aten.add.Tensor]
    branch = conv(relu(conv(x, weights["w"], None, 2, 1)), weights["v"], None, 1, 1)
    return relu(add(branch, conv(x, weights["u"], None, 2, 0)))


def concatenated(x: Carried, weights: dict[str, Any], axes: int) -> Any:
    """A map beside its maximum over neighbours, joined over channels."""
    pooled = RULES[MAX_POOLS[axes]](x, 3, 1, 1)
    return RULES[aten.cat.default]([x, pooled], 1)


def every_other(x: Carried, weights: dict[str, Any], axes: int) -> Any:
    """Every other place along each axis, by slices one behind the other, and a number that shows what is kept."""
    for axis in places(axes):
        x = RULES[aten.slice.Tensor](x, axis, 0, None, 2)
    return x


NORM = {"g": (CHANNELS,), "s": (CHANNELS,)}
CONV = {"w": (3, CHANNELS, ...)}
THEN = "y = Conv <pads = P1> (n, w)"
SAMPLES: dict[str, RankSample] = {
    "convolution": RankSample("y = Conv <pads = P1> (x, w, b)", convolve(padding=1), {**CONV, "b": (3,)}),
    "strided, dilated convolution": RankSample(
        "y = Conv <pads = P2, strides = K2, dilations = K2> (x, w)", convolve(padding=2, stride=2, dilation=2), CONV
    ),
    "depthwise convolution of 5": RankSample(
        "y = Conv <pads = P2, group = 4> (x, w)", convolve(padding=2, groups=4), {"w": (4, 1, ...)}, kernel=5
    ),
    "narrow convolution, published": RankSample("y = Conv <strides = K2> (x, w)", convolve(stride=2), CONV, kernel=1),
    "narrow convolution, cell": RankSample(
        "y = Conv <strides = K3> (x, w)", convolve(stride=3), CONV, kernel=1, rule="cell"
    ),
    "partial convolution": RankSample(
        "y = Conv <pads = P1> (x, w, b)", convolve_partially, {**CONV, "b": (3,)}, masking="partial"
    ),
    "channels last": RankSample(
        "t = Transpose <perm = TO_FIRST> (x) y = Conv <pads = P1> (t, w)", convolve(padding=1), CONV, channels_last=True
    ),
    "transposed convolution": RankSample(
        "y = ConvTranspose <strides = K2> (x, w, b)", transpose(2, 0, 0), {"w": (CHANNELS, 3, ...), "b": (3,)}, kernel=2
    ),
    "transposed convolution of 4, padded": RankSample(
        "y = ConvTranspose <strides = K2, pads = P1> (x, w, b)",
        transpose(2, 1, 1),
        {"w": (CHANNELS, 3, ...), "b": (3,)},
        kernel=4,
    ),
    "maximum": RankSample(
        "y = MaxPool <kernel_shape = K3, strides = K2, pads = P1> (x)",
        lambda x, _, axes: RULES[MAX_POOLS[axes]](x, 3, 2, 1),
    ),
    "narrow maximum, cell": RankSample(
        "y = MaxPool <kernel_shape = K1, strides = K2> (x)",
        lambda x, _, axes: RULES[MAX_POOLS[axes]](x, 1, 2),
        rule="cell",
    ),
    "average": RankSample(
        "y = AveragePool <kernel_shape = K3, strides = K2, pads = P1, count_include_pad = 1> (x)",
        lambda x, _, axes: RULES[AVERAGE_POOLS[axes]](x, [3] * axes, [2] * axes, [1] * axes),
    ),
    "average without pads": RankSample(
        "y = AveragePool <kernel_shape = K3, pads = P1> (x)",
        lambda x, _, axes: RULES[AVERAGE_POOLS[axes]](x, [3] * axes, [1] * axes, [1] * axes, False, False),
    ),
    "mean over places": RankSample(
        "y = GlobalAveragePool (x)", lambda x, _, axes: RULES[aten.mean.dim](x, places(axes), True)
    ),
    "maximum over places": RankSample(
        "y = GlobalMaxPool (x)", lambda x, _, axes: RULES[aten.amax.default](x, places(axes), True)
    ),
    "instance norm": RankSample(
        f"n = InstanceNormalization (x, g, s) {THEN}", convolve_behind(norm_of_instance), {**CONV, **NORM}
    ),
    "group norm": RankSample(
        f"n = GroupNormalization <num_groups = 2> (x, g, s) {THEN}", convolve_behind(norm_of_groups), {**CONV, **NORM}
    ),
    "batch norm": RankSample(
        f"a = Abs (var) h = Constant <value_float = 0.5> () v = Add (a, h) "
        f"n = BatchNormalization (x, g, s, mean, v) {THEN}",
        convolve_behind(batch_norm),
        {**CONV, **NORM, "mean": (CHANNELS,), "var": (CHANNELS,)},
    ),
    "residual": RankSample(
        "a = Conv <pads = P1, strides = K2> (x, w) r = Relu (a) b = Conv <pads = P1> (r, v) "
        "c = Conv <strides = K2> (x, u) d = Add (b, c) y = Relu (d)",
        residual,
        {"w": (5, CHANNELS, ...), "v": (3, 5, ...), "u": (3, CHANNELS, 1)},
    ),
    "concatenation": RankSample(
        "p = MaxPool <kernel_shape = K3, pads = P1> (x) y = Concat <axis = 1> (x, p)", concatenated
    ),
    "every other place, published": RankSample("y = Slice (x, from, to, over, by)", every_other),
    "every other place, cell": RankSample("y = Slice (x, from, to, over, by)", every_other, rule="cell"),
    "nearest": RankSample(
        'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> '
        "(x, , scales)",
        lambda x, _, axes: RULES[NEAREST[axes]](x, None, [2.0] * axes),
    ),
    "linear": RankSample(
        'y = Resize <mode = "linear"> (x, , scales)',
        lambda x, _, axes: RULES[LINEAR[axes]](x, None, False, [2.0] * axes),
    ),
}
CASES = [pytest.param((name, axes), id=f"{name}, {axes}-D") for name in SAMPLES for axes in SIZES]


def fill_in(text: str, axes: int) -> str:
    """Returns a sample's text for a number of axes of places."""
    numbers = {f"K{k}": [k] * axes for k in (1, 2, 3)} | {f"P{p}": [p] * 2 * axes for p in (1, 2)}
    numbers["TO_FIRST"] = [0, 1 + axes, *range(1, 1 + axes)]
    for name, values in numbers.items():
        text = text.replace(f"= {name}", f"= {values}")
    return text


def build(sample: RankSample, axes: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Returns the plain model of a sample, with a symbolic batch, and its weights by name."""
    rng = np.random.default_rng(0)
    shape = [*SIZES[axes], CHANNELS] if sample.channels_last else [CHANNELS, *SIZES[axes]]
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> sample (float[batch, {", ".join(map(str, shape))}] x) => (float y)'
        f" {{ {fill_in(sample.text, axes)} }}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    weights = {}
    for name, own in sample.weights.items():
        lengths = [sample.kernel if name != "u" else 1] * axes
        full = [*(own[:-1] if own[-1] in (..., 1) and len(own) == 3 else own), *(lengths if len(own) == 3 else [])]
        weights[name] = rng.standard_normal(full).astype(np.float32)
    integers = {"from": [0] * axes, "to": [2**31] * axes, "over": places(axes), "by": [2] * axes}
    constants = {name: np.array(values, np.int64) for name, values in integers.items()}
    constants["scales"] = np.array([1, 1, *[2] * axes], np.float32)
    for name, value in (weights | {each: constants[each] for each in constants if each in sample.text}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.output[0].CopyFrom(inferred.graph.output[0])
    return model, weights


class RankCase:
    """A sample in ONNX Runtime and in torch, with its plain form and its gradients; images have the channels first."""

    def __init__(self, name: str, axes: int) -> None:
        self.sample, self.axes = SAMPLES[name], axes
        self.plain, weights = build(self.sample, axes)
        self.weights = {key: torch.from_numpy(value) for key, value in weights.items()}
        self.masked = self.mask(required=False)
        self.session = open_session(ir.to_proto(self.masked).SerializeToString())

    def mask(self, *, required: bool) -> ir.Model:
        """Returns the masked model."""
        layout = layouts_of_rank(2 + self.axes)[self.sample.channels_last]
        model = canonicalise(ir.from_proto(self.plain))
        sample = self.sample
        mask_model(model, "x", layout, mask_required=required, masking=sample.masking, rule=sample.rule)
        return model

    def lay(self, images: np.ndarray) -> np.ndarray:
        """Returns images as the model takes them."""
        return np.ascontiguousarray(np.moveaxis(images, 1, -1)) if self.sample.channels_last else images

    def run(self, images: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
        """Returns what the masked model gives."""
        feed = {"x": self.lay(images)} | ({} if masks is None else {"mask": masks})
        return self.session.run(None, feed)[0]

    def expected(self, images: Any, masks: Any) -> Any:
        """Returns what the rules in torch give, differentiable by images."""
        with sampling(self.sample.rule):
            found = self.sample.reference(carry_map(images, masks), self.weights, self.axes)
        return found.value if isinstance(found, Carried) else found


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> RankCase:
    return RankCase(*request.param)


def draw(axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and binary masks: a missing half, a lone kept corner, and scattered places."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((BATCH, CHANNELS, *SIZES[axes])).astype(np.float32)
    masks = (rng.random((BATCH, 1, *SIZES[axes])) < 0.5).astype(np.float32)
    masks[0, ..., : SIZES[axes][-1] // 2] = 0
    masks[1] = 0
    masks[1][(0, *[slice(0, 2)] * axes)] = 1
    return images, masks


def test_outputs_are_those_of_the_rules_in_torch(case: RankCase) -> None:
    images, masks = draw(case.axes)
    found = case.run(images, masks)
    expected = case.expected(torch.from_numpy(images), torch.from_numpy(masks)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_ones_are_exact_and_what_is_missing_never_matters(case: RankCase) -> None:
    images, masks = draw(case.axes)
    plain = open_session(case.plain.SerializeToString()).run(None, {"x": case.lay(images)})[0]
    np.testing.assert_array_equal(case.run(images, None), plain)
    np.testing.assert_array_equal(case.run(images, np.ones_like(masks)), plain)
    clean = case.run(images, masks)
    assert np.isfinite(clean).all()
    assert np.abs(clean - plain).max() > 0.01
    for poison in (np.nan, np.inf, 1e30):
        np.testing.assert_array_equal(case.run(np.where(masks == 0, np.float32(poison), images), masks), clean)


def test_gradients_are_those_of_torch(case: RankCase) -> None:
    images, masks = draw(case.axes)
    model = case.mask(required=True)
    common.InlinePass()(model)
    image, mask = model.graph.inputs
    mask.shape = ir.Shape([image.shape[0], *mask.shape[1:]])
    infer_shapes(model)
    session: onnxruntime.InferenceSession = open_session(add_gradients(model).SerializeToString())
    value = torch.from_numpy(images).requires_grad_()
    output = case.expected(value, torch.from_numpy(masks))
    seed = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad((output * seed).sum(), value)
    feed = {"x": case.lay(images), "mask": masks, "seed": seed.numpy()}
    found = session.run(["gradient_x"], feed)[0]
    assert not found[np.broadcast_to(case.lay(masks) == 0, found.shape)].any()
    difference = np.linalg.norm(found - case.lay(expected.numpy()))
    assert difference <= GRADIENT_TOLERANCE * np.linalg.norm(expected.numpy())
