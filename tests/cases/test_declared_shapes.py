"""Shapes that a file declares wrongly, not at all, or as 0; and what a fixed input size settles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import small_graphs
from onnx import TensorProto, helper, numpy_helper

import masktool
from masktool.errors import MasktoolError
from masktool.exporters.sources import load_source
from masktool.limits import limits

X = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
RESIDUAL = """<ir_version: 3, opset_import: ["" : OPSET]> g (float[BATCH,3,HEIGHT,8] x) => (float[BATCH,3] y) {
    c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w) b = Relu (c)
    d = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (b, w) s = Sum (d, x) t = Relu (s)
    p = GlobalAveragePool (t) y = Flatten (p) }"""


def residual(batch: str = "N", height: str = "8", opset: int = 9) -> onnx.ModelProto:
    text = RESIDUAL.replace("BATCH", batch).replace("HEIGHT", height).replace("OPSET", str(opset))
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weight.shape))
    return model


def expected() -> np.ndarray:
    return onnxruntime.InferenceSession(residual().SerializeToString()).run(None, {"x": X})[0]


def agrees(model: onnx.ModelProto, folder: Path, masking: Any = "layer") -> None:
    metadata = masktool.export(model, folder / "m.onnx", masking=masking).metadata
    assert metadata.parity["ones"] == 0
    with masktool.load(folder / "m.onnx") as session:
        np.testing.assert_array_equal(session.run(X)["y"], expected())


@pytest.mark.parametrize("masking", ["layer", "partial", "fill"])
@pytest.mark.parametrize("opset", [7, 9, 18])
@pytest.mark.parametrize("shape", [[], [1], ["N", 3, 5, 5], ["N", 3, 0, 0], [7, 3, 8, 8], [1, 2, 3, 4, 5]])
def test_inner_values_declared_wrongly(shape: list[Any], opset: int, masking: Any, tmp_path: Path) -> None:
    model = residual(opset=opset)
    for name in ("c", "b", "d", "s", "t"):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    agrees(model, tmp_path, masking)


@pytest.mark.parametrize("shape", [[], None, [1], [0, 3], [5, 7, 9]])
def test_outputs_declared_wrongly_or_not_at_all(shape: list[int] | None, tmp_path: Path) -> None:
    model = residual()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    agrees(model, tmp_path)


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("opset", [12, 18])
@pytest.mark.parametrize(
    ("element", "shape"),
    [
        (TensorProto.FLOAT, [8, 3, 5, 5]),
        (TensorProto.FLOAT, [1, 2, 3]),
        (TensorProto.FLOAT, []),
        (TensorProto.FLOAT, ["a", "b", "c", "d"]),
        (TensorProto.FLOAT, [0, 0, 0, 0]),
        (TensorProto.FLOAT16, [3, 3, 3, 3]),
        (TensorProto.INT64, [3, 3, 3, 3]),
    ],
)
def test_weights_declared_wrongly(element: int, shape: list[Any], opset: int, masking: Any, tmp_path: Path) -> None:
    model = residual(opset=opset)
    model.ir_version = 8
    del model.graph.input[1:]
    model.graph.value_info.append(helper.make_tensor_value_info("w", element, shape))
    agrees(model, tmp_path, masking)


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("opset", [12, 18])
def test_weights_of_branches_declared_wrongly(opset: int, masking: Any, tmp_path: Path) -> None:
    """ONNX Runtime overlooks that too, of a branch's own weights."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]> g (float[N,3,8,8] x) => (float[N,3] y)
        <bool t = {{1}}> {{ r = If (t) <
            then_branch = b1 () => (float[N,3,8,8] o1) {{
                c1 = Conv <pads = [1, 1, 1, 1]> (x, w) s1 = Mul (c1, k1) o1 = Relu (s1) }},
            else_branch = b2 () => (float[N,3,8,8] o2) {{ o2 = Relu (x) }}>
        p = GlobalAveragePool (r) y = Flatten (p) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(residual().graph.initializer[0])
    branch = next(each.g for each in model.graph.node[0].attribute if each.name == "then_branch")
    branch.initializer.append(numpy_helper.from_array(np.full((3, 1, 1), 2, np.float32), "k1"))
    branch.value_info.append(helper.make_tensor_value_info("k1", TensorProto.FLOAT, [7, 7]))
    x = {"x": X}
    plain = onnxruntime.InferenceSession(model.SerializeToString()).run(None, x)[0]
    masktool.export(model, tmp_path / "m.onnx", masking=masking)
    with masktool.load(tmp_path / "m.onnx") as session:
        np.testing.assert_allclose(session.run(X)["y"], plain, rtol=1e-6)


@pytest.mark.parametrize("masking", ["layer", "fill"])
@pytest.mark.parametrize("opset", [7, 12, 18])
@pytest.mark.parametrize("shape", [["a", "b", "c", "d"], [-1, 3, 3, -1], [3, 3, "h", "w"]])
def test_inputs_that_leave_lengths_of_their_weights_open(
    shape: list[Any], opset: int, masking: Any, tmp_path: Path
) -> None:
    model = residual(opset=opset)
    model.graph.input[1].CopyFrom(helper.make_tensor_value_info("w", TensorProto.FLOAT, shape))
    agrees(model, tmp_path, masking)


@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_inputs_that_contradict_their_weights(masking: Any, tmp_path: Path) -> None:
    """ONNX Runtime refuses them, and that is what is said."""
    model = residual(opset=18)
    model.ir_version = 8
    model.graph.input[1].CopyFrom(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 3, 5, 5]))
    with pytest.raises(MasktoolError, match="Shape of initializer w does not match"):
        masktool.export(model, tmp_path / "m.onnx", masking=masking)


@pytest.mark.parametrize("batch", ["0", "-1"])
@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_a_batch_of_nothing_is_open(batch: str, masking: Any, tmp_path: Path) -> None:
    model = residual()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = int(batch)
    agrees(model, tmp_path, masking)


def test_a_height_and_width_of_nothing_are_open(tmp_path: Path) -> None:
    model = residual()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 0
    agrees(model, tmp_path)
    assert masktool.load(tmp_path / "m.onnx").mask_required
    masktool.export(load_source(model, input_size=(8, 8)), tmp_path / "m.onnx")
    assert masktool.load(tmp_path / "m.onnx").spatial_shape == (8, 8)


def test_channels_of_nothing_are_those_of_the_first_convolution(tmp_path: Path) -> None:
    model = residual()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0
    masktool.export(model, tmp_path / "m.onnx")
    with masktool.load(tmp_path / "m.onnx") as session:
        assert session.input_shape[1] == 3


# What a fixed size settles

SQUEEZED = """<ir_version: 9, opset_import: ["" : 18]> g (float[N,3,h,w] x) => (y) {
    c = Conv (x, k) a = Shape <start = 2, end = 3> (c) one = Constant <value_ints = [1]> () e = Equal (a, one)
    two = Constant <value_ints = [2]> ()
    s = If (e) <then_branch = t () => (float q) { q = Squeeze (c, two) },
        else_branch = f () => (r) { r = Identity (c) }>
    z = Constant <value_ints = [0, -1]> () v = Reshape (s, z) y = ReduceSum <keepdims = 1> (v, m) }"""
INVERTED = """<ir_version: 9, opset_import: ["" : 18]> g (float[N,3,h,w] x) => (float[N,4] y) {
    c = Conv (x, k) n = Shape (c) h4 = Constant <value_ints = [0, 4, 1, -1]> ()
    a = Shape <start = 2, end = 3> (c) b = Shape <start = 3, end = 4> (c) d = Mul (a, b)
    two = Constant <value_ints = [2]> () half = Div (d, two) fore = Constant <value_ints = [0, 4, 2]> ()
    target = Concat <axis = 0> (fore, half) r = Reshape (c, target) f = Flatten (r)
    m2 = Constant <value_ints = [2, 3]> () q = ReduceSum <keepdims = 0> (r, m2) y = Identity (q) }"""


def sized(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "k"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "m"))
    return model


def test_an_if_with_an_identity_in_fill(tmp_path: Path) -> None:
    model = sized(SQUEEZED)
    assert masktool.export(model, tmp_path / "m.onnx", masking="fill").metadata.parity["ones"] == 0
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 8)).astype(np.float32)
    plain = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    with masktool.load(tmp_path / "m.onnx") as session:  # behind the If nobody knows what the first axis is: stacked
        np.testing.assert_array_equal(session.run(x)["y"], plain[:, None])


@pytest.mark.parametrize(("text", "size"), [(SQUEEZED, (3, 8)), (INVERTED, (10, 8))])
def test_the_refusal_says_that_a_size_settles_it(text: str, size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match=r"a fixed size settles (it|them): add input_size=\(H, W\)"):
        masktool.export(sized(text), tmp_path / "m.onnx")
    metadata = masktool.export(load_source(sized(text), input_size=size), tmp_path / "m.onnx").metadata
    assert metadata.parity["ones"] == 0


def test_no_size_is_promised_where_none_helps(tmp_path: Path) -> None:
    model = sized(INVERTED.replace("f = Flatten (r)", "f = CumSum (r, m)").replace("(r, m2)", "(f, m2)"))
    with pytest.raises(MasktoolError) as caught:
        masktool.export(model, tmp_path / "m.onnx")
    assert "input_size" not in str(caught.value)


# What would be allocated


@pytest.mark.parametrize(
    "huge",
    [
        "z = ConstantOfShape (big) o = ReduceMax <keepdims = 0> (z)",
        "z = Expand (unit, big) o = ReduceMax <keepdims = 0> (z)",
        "z = Tile (unit, big) o = ReduceMax <keepdims = 0> (z)",
    ],
)
def test_constants_of_any_size_are_not_folded(huge: str) -> None:
    from masktool.exporters.canonical import canonicalise

    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 18]> g (float[N,3,8,8] x) => (y) {{
        unit = Constant <value = float[2] {{1.0, 2.0}}> () big = Constant <value_ints = [2000000000]> ()
        {huge} a = Add (x, o) y = Conv (a, k) }}""".replace("float[2]", "float[1]").replace("{1.0, 2.0}", "{1.0}")
    )
    weight = np.zeros((4, 3, 3, 3), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "k"))
    with pytest.raises(MasktoolError, match=r"at most 200000000 numbers in one tensor .*limits\(tensor=2000000000\)"):
        load_source(model)  # before ONNX Runtime opens it, which would compute 8 GB of float32
    with limits(tensor=2_000_000_000):
        graph = canonicalise(load_source(model).model).graph
    assert max(value.const_value.nbytes for value in graph.initializers.values() if value.const_value) < 1 << 20


BEHIND_UNKNOWN = {
    "GroupNormalization": ("GroupNormalization<num_groups = 2>(c, s, s)", 21),
    "QuickGelu": ("com.microsoft.QuickGelu<alpha = 1.0>(c)", 18),
    "Gelu": ("com.microsoft.Gelu(c)", 18),
}
"""Operators of which ONNX's inference says nothing, so that what is declared behind them is all that is known."""


@pytest.mark.parametrize("options", [{}, {"masking": "partial"}, {"masking": "fill"}, {"gradient": "logit"}], ids=str)
@pytest.mark.parametrize("shape", [["N", 1], ["N", 7], [1, 5], ["N", 5, 1]])
@pytest.mark.parametrize("name", BEHIND_UNKNOWN)
def test_outputs_declared_wrongly_behind_what_inference_does_not_know(
    name: str, shape: list[Any], options: dict[str, Any], tmp_path: Path
) -> None:
    call, opset = BEHIND_UNKNOWN[name]
    text = f"""<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        g (float[N, 3, 8, 8] x) => (float[N, 5] y) <float[4, 3, 3, 3] k, float[4] s, float[4, 5] w> {{
        c = Conv(x, k) a = {call} p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, w) }}"""
    right = small_graphs.parse(text)
    wrong = onnx.ModelProto.FromString(right.SerializeToString())
    wrong.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    masktool.export(wrong, tmp_path / "m.onnx", class_output="y", **options)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert session.get_outputs()[0].shape[1:] == [5]
    expected = onnxruntime.InferenceSession(right.SerializeToString()).run(None, {"x": X})[0]
    target = {"target": np.zeros(1, np.int64)} if "gradient" in options else {}
    np.testing.assert_allclose(session.run(["y"], {"x": X} | target)[0], expected, rtol=0, atol=1e-5)
