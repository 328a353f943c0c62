"""Operators that ONNX defines by functions are exported like what they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from combinations import every_value
from torch import nn

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.rewrites.schema_functions import state_defaults

TOLERANCE = 1e-5
SIDE, PATCH = 16, 4


class Attending(nn.Module):
    """Patches that attend to each other, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.project, self.head = nn.Conv2d(3, 32, PATCH, PATCH), nn.Linear(32, 96), nn.Linear(32, 5)

    def forward(self, image: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens = tokens if kept is None else tokens[:, kept]
        queries, keys, values = self.project(tokens).reshape(tokens.shape[0], -1, 3, 4, 8).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return self.head((tokens + attended.transpose(1, 2).flatten(2)).mean(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Attending().eval()


@pytest.fixture(scope="module")
def plain(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same network in three opsets; Attention is an operator of its own from 23 on."""
    folder, found = tmp_path_factory.mktemp("attention"), {}
    for opset in (22, 23):
        found[opset] = folder / f"opset{opset}.onnx"
        shapes = ({0: torch.export.Dim("n")},)
        image = torch.rand(2, 3, SIDE, SIDE)
        torch.onnx.export(
            network, (image,), dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
        ).save(found[opset])
    model = onnx.load(found[23])
    assert "Attention" in {node.op_type for node in model.graph.node}
    model.opset_import[0].version = 24
    found[24] = folder / "opset24.onnx"
    onnx.save(model, found[24])
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [22, 23, 24])
def test_missing_patches_are_as_good_as_dropped_in_every_opset(
    opset: int, network: nn.Module, plain: dict[int, Path], tmp_path: Path
) -> None:
    parity = masktool.export(plain[opset], tmp_path / "masked.onnx").metadata.parity
    assert parity["ones"] <= TOLERANCE
    assert parity["invariance"] == 0
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 3, SIDE, SIDE, generator=generator)
    kept = torch.rand((SIDE // PATCH) ** 2, generator=generator) < 0.5
    blocks = kept.reshape(SIDE // PATCH, -1).repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    with torch.no_grad():
        expected, unmasked = network(image, kept).numpy(), network(image).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "masked.onnx", providers=["CPUExecutionProvider"])
    name = next(each.name for each in session.get_inputs() if each.name != "mask")
    mask = blocks[None, None].numpy().astype(np.float32)
    (logits,) = session.run(None, {name: image.numpy(), "mask": mask})
    assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert np.abs(unmasked - expected).max() >= 0.01 * np.abs(expected).max()


TOKENS = "[c] c = Conv <pads = [1, 1, 1, 1]> (x, w) f = Reshape (c, flat) t = Transpose <perm = [0, 2, 1]> (f) "
POOLED = " p = ReduceMean <keepdims = 0> (r, one) y = Gemm (p, v)"
FUNCTIONS = {
    "RMSNormalization": (23, TOKENS + "r = RMSNormalization <axis = -1> (t, s)" + POOLED),
    "Swish": (24, TOKENS + "r = Swish <alpha = 1.5> (t)" + POOLED),
    "attention of 2 heads in 3 axes": (
        23, TOKENS + "r = Attention <q_num_heads = 2, kv_num_heads = 2> (t, t, t)" + POOLED,
    ),
    "attention with a scale and a soft cap": (
        24, TOKENS + "r = Attention <q_num_heads = 4, kv_num_heads = 4, scale = 0.3, softcap = 2.0> (t, t, t)" + POOLED,
    ),
}  # fmt: skip


@every_value(gradient=[None, "logit"], name=FUNCTIONS)
def test_functions_are_exact_under_ones_and_do_not_look_under_the_mask(
    name: str, gradient: str | None, tmp_path: Path
) -> None:
    opset, nodes = FUNCTIONS[name]
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> g (float[N, 3, 8, 8] x) => (float[N, 5] y) {{ {nodes} }}'
    )
    rng = np.random.default_rng(0)
    for key, shape in {"w": (16, 3, 3, 3), "v": (16, 5), "s": (16,)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape, np.float32), key))
    for key, values in {"flat": (0, 16, 64), "one": (1,)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), key))
    onnx.save(model, tmp_path / "plain.onnx")
    parity = masktool.export(tmp_path / "plain.onnx", tmp_path / "masked.onnx", gradient=gradient).metadata.parity
    assert parity["ones"] <= TOLERANCE
    assert parity["invariance"] == 0
    assert parity["response"] > 0.01


def test_attributes_left_to_their_defaults_are_stated_before_a_function_is_written_out():
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y)
        { a = Shrink (x) b = Celu (a) c = ThresholdedRelu (b) d = Selu (c) y = HardSigmoid (d) }"""
    model = onnx_ir.from_proto(onnx.parser.parse_model(text))
    for node in model.graph:
        state_defaults(node, 20)
        schema = onnx.defs.get_schema(node.op_type, 20)
        assert set(node.attributes) == {name for name, each in schema.attributes.items() if not each.required}
        for name, attribute in node.attributes.items():
            assert attribute.value == onnx.helper.get_attribute_value(schema.attributes[name].default_value)


TWO_OPSETS = """<ir_version: 9, opset_import: ["" : {own}, "f" : 1]>
g (float[N,3,8,8] x) => (float[N,3] y) {{ c = f.block (x) p = GlobalAveragePool (c) y = Flatten (p) }}
<domain: "f", opset_import: ["" : {other}]> block (a) => (o) {{ {body} }}"""


@pytest.mark.parametrize(
    ("own", "other", "body"),
    [
        (14, 18, "o = Relu (a)"),
        (18, 13, "m = Sigmoid (a) o = Mul (a, m)"),
        (17, 20, "k = Constant <value_float = 0.5> () m = Add (a, k) o = Tanh (m)"),
    ],
)
def test_a_function_of_another_opset_counts_where_its_operators_have_one_form(
    own: int, other: int, body: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(onnx.parser.parse_model(TWO_OPSETS.format(own=own, other=other, body=body)), source)
    masktool.export(source, target, masking="fill")
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype("f")
    expected = onnxruntime.InferenceSession(source).run(None, {"x": x})[0]
    with masktool.load(target) as session:
        np.testing.assert_allclose(session(x), expected, atol=1e-6)


@pytest.mark.parametrize("other", [11, 12])
def test_a_function_whose_operators_had_another_form_is_refused(other: int, tmp_path: Path) -> None:
    """Softmax of opset 12 flattens to two axes, with 1 as the default axis; ONNX allows no such mixture."""
    onnx.save(
        onnx.parser.parse_model(TWO_OPSETS.format(own=18, other=other, body="o = Softmax (a)")), tmp_path / "in.onnx"
    )
    with pytest.raises(MasktoolError, match=f"got {other}, in which Softmax had another form; export"):
        masktool.export(tmp_path / "in.onnx", tmp_path / "out.onnx", masking="fill")


# GroupNormalization of opset 18, which ONNX deprecated and ONNX Runtime runs

GROUPS, CHANNELS = 2, 8
NORMALISED = "n = GroupNormalization <num_groups = 2, epsilon = 0.01> (c, s, b)"
PLACES = {
    "graph": NORMALISED,
    "branch": f"n = If (t) <then_branch = h () => (FLOAT[N,8,6,6] n) {{ {NORMALISED} }}, "
    "else_branch = e () => (FLOAT[N,8,6,6] m) { m = Relu (c) }>",
    "function": "n = d.F (c, s, b)",
}


def grouped(place: str = "graph", opset: int = 18, element: str = "float", groups: int = GROUPS) -> onnx.ModelProto:
    """Returns a network with one scale and one bias for each group, by channel from opset 21 on."""
    function = f'<domain: "d", opset_import: ["" : 18]> F (c, s, b) => (n) {{ {NORMALISED} }}'
    text = f"""<ir_version: 8, opset_import: ["" : {opset}, "d" : 1]> g (FLOAT[N,3,8,8] x) => (FLOAT[N,8] y)
        <bool t = {{1}}> {{ c = Conv (x, w) {PLACES[place]} r = Relu (n) p = GlobalAveragePool (r) y = Flatten (p) }}
        {function if place == "function" else ""}"""
    model = onnx.parser.parse_model(text.replace("FLOAT", element).replace("= 2", f"= {groups}"))
    random, dtype = np.random.default_rng(0), np.dtype({"float": "float32"}.get(element, element))
    scale, bias = random.normal(1, 1, groups), random.normal(0, 1, groups)
    if opset >= 21:
        scale, bias = scale.repeat(CHANNELS // groups), bias.repeat(CHANNELS // groups)
    for name, array in {"w": random.normal(0, 1, (8, 3, 3, 3)), "s": scale, "b": bias}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(dtype), name))
    return model


def run_plain(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


@pytest.mark.parametrize("masking", ["layer", "partial", "fill"])
@pytest.mark.parametrize(
    ("place", "opset", "element", "groups"),
    [
        ("graph", 18, "float", 2),
        ("graph", 19, "float", 4),
        ("graph", 20, "float", 8),
        ("graph", 18, "float", 1),
        ("graph", 18, "float16", 2),
        ("branch", 18, "float", 2),
        ("function", 18, "float", 2),
    ],
)
def test_a_normalisation_that_scales_groups(
    place: str, opset: int, element: str, groups: int, masking: str, tmp_path: Path
) -> None:
    model = grouped(place, opset, element, groups)
    dtype = np.dtype({"float": "float32"}.get(element, element))
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(dtype)
    masktool.export(model, tmp_path / "m.onnx", masking=masking)
    with masktool.load(tmp_path / "m.onnx") as session:
        ones = session.run(x)["y"]
    np.testing.assert_allclose(ones, run_plain(model, x), atol=2e-6 if element == "float" else 4e-3)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_groups_are_masked_as_the_operator_that_stayed_is(groups: int, tmp_path: Path) -> None:
    """The same network in opset 21, whose GroupNormalization has a mask rule, and torch's under ones."""
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    mask = np.ones((1, 1, 8, 8), np.float32)
    mask[..., 2:5, 1:6] = 0
    found = []
    for opset in (18, 21):
        masktool.export(grouped(opset=opset, groups=groups), tmp_path / "m.onnx", gradient="logit")
        with masktool.load(tmp_path / "m.onnx") as session:
            found.append(session.run(x, mask))
    for name, expected in found[1].items():
        np.testing.assert_allclose(found[0][name], expected, atol=2e-5, err_msg=name)
    weights = {
        each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy())
        for each in grouped(opset=21, groups=groups).graph.initializer
    }
    convolved = nn.functional.conv2d(torch.from_numpy(x), weights["w"])
    normal = nn.functional.group_norm(convolved, groups, weights["s"], weights["b"], eps=0.01)
    expected = normal.relu().mean((2, 3)).numpy()
    np.testing.assert_allclose(run_plain(grouped(groups=groups), x), expected, atol=2e-6)


# CenterCropPad, whose function computes with the shape


def cropped(batch: str, sides: list[int], *, by_input: bool = False) -> onnx.ModelProto:
    size = "int64[2] a" if by_input else ""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]> g (float[{batch},3,8,8] x{", " + size if size else ""}) =>
        (float[{batch},4] y) {{ c = Conv <pads = [1, 1, 1, 1]> (x, w)
        {"z = Max (a, least)" if by_input else ""}
        r = CenterCropPad <axes = [2, 3]> (c, z) q = Relu (r) p = GlobalAveragePool (q) y = Flatten (p) }}"""
    )
    next(node for node in model.graph.node if node.op_type == "CenterCropPad").name = "crop"
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(sides), "least" if by_input else "z"))
    return model


@every_value(sides=[[6, 6], [3, 8], [5, 10], [11, 12]], batch=["N", "2"], masking=["layer", "partial", "fill"])
def test_a_crop_whose_shape_arithmetic_is_folded(sides: list[int], batch: str, masking: str, tmp_path: Path) -> None:
    model = cropped(batch, sides)
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    masktool.export(model, tmp_path / "m.onnx", masking=masking)
    with masktool.load(tmp_path / "m.onnx") as session:
        np.testing.assert_allclose(session.run(x)["y"], run_plain(model, x), atol=1e-6)


def test_a_refused_node_of_a_function_is_named_after_the_users_own(tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match=r"\(node 'crop/\w+'\)"):
        masktool.export(cropped("N", [6, 6], by_input=True), tmp_path / "m.onnx")
