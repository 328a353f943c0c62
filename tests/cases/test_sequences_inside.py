"""Sequences inside a network, as torch's TorchScript exporter writes them, against the plain model in ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from combinations import every_value
from onnx import helper

import masktool
from masktool.errors import MasktoolError, UnsupportedOperatorError

RNG = np.random.default_rng(0)
X = RNG.random((2, 3, 8, 8)).astype(np.float32)
M = (RNG.random((2, 1, 8, 8)) < 0.5).astype(np.float32)
WEIGHTS = {"k": (6, 3, 3, 3), "w4": (6, 4), "flat4": (192, 4)}

MAPS = "c = Conv <pads = [1, 1, 1, 1]> (x, k) r = Relu (c)"
HEAD = "p = GlobalAveragePool (d) f = Flatten (p) y = Gemm (f, w4)"
SCORES = f"{MAPS} p = GlobalAveragePool (r) f = Flatten (p) s = Gemm (f, w4)"
FIRST = "i = Constant <value = int64 {0}> ()"
SECOND = "j = Constant <value = int64 {1}> ()"
TRUE = "t = Constant <value = bool {1}> ()"
LOOP = "(int64 n, bool b, seq(float) old) => (bool e, seq(float) new) { e = Identity (b) row = Gather"

WRITTEN_OUT = {
    "parts of given lengths": f"""{MAPS} l = Constant <value_ints = [2, 4]> () q = SplitToSequence <axis = 1> (r, l)
        {FIRST} {SECOND} a = SequenceAt (q, i) b = SequenceAt (q, j) d = Concat <axis = 1> (b, a) {HEAD}""",
    "parts of one length, the last shorter": f"""{MAPS} l = Constant <value = int64 {{4}}> ()
        q = SplitToSequence <axis = 1> (r, l) {FIRST} {SECOND} a = SequenceAt (q, i) b = SequenceAt (q, j)
        d = Concat <axis = 1> (b, a) {HEAD}""",
    "parts of one place": f"""{MAPS} q = SplitToSequence <axis = -3> (r) {FIRST} {SECOND} a = SequenceAt (q, i)
        b = SequenceAt (q, j) d = Concat <axis = 1> (b, a, a, b, a, b) {HEAD}""",
    "parts without their axis": f"""{SCORES} q = SplitToSequence <axis = 1, keepdims = 0> (s) {FIRST}
        a = SequenceAt (q, i) u = Constant <value_ints = [1]> () v = Unsqueeze (a, u) y = Add (s, v)""",
    "parts of length 1 without their axis": f"""{SCORES} l = Constant <value = int64 {{1}}> ()
        q = SplitToSequence <axis = 1, keepdims = 0> (s, l) {FIRST} a = SequenceAt (q, i)
        u = Constant <value_ints = [1]> () v = Unsqueeze (a, u) y = Add (s, v)""",
    "listed parts keep their axis": f"""{SCORES} l = Constant <value_ints = [1, 3]> ()
        q = SplitToSequence <axis = 1, keepdims = 0> (s, l) {FIRST} a = SequenceAt (q, i) y = Add (s, a)""",
    "joined again": f"{MAPS} t = Tanh (r) q = SequenceConstruct (r, t) m = ConcatFromSequence <axis = 1> (q) "
    f"l = Constant <value_ints = [0, 2, 4, 7, 9, 11]> () d = Gather <axis = 1> (m, l) {HEAD}",
    "in a function": f"{SCORES} t = Tanh (s) q = local.pair (s, t) {SECOND} y = SequenceAt (q, j)",
}
"""Whose parts are known: no sequence is left, in no mode."""
LEFT = {
    "parts of the batch": f"{SCORES} q = SplitToSequence <axis = 0> (s) y = ConcatFromSequence <axis = 0> (q)",
    "put in and taken out": f"""{SCORES} t = Tanh (s) q0 = SequenceEmpty () q1 = SequenceInsert (q0, s) {FIRST}
        q2 = SequenceInsert (q1, t, i) q3 = SequenceErase (q2, i) n = SequenceLength (q3) v = Cast <to = 1> (n)
        a = SequenceAt (q3, i) y = Mul (a, v)""",
    "SequenceMap": f"""{SCORES} t = Tanh (s) q = SequenceConstruct (s, t)
        w = SequenceMap <body = g (float[N, 4] a) => (float[N, 4] b) {{ e = Exp (a) b = Neg (e) }}> (q)
        y = ConcatFromSequence <axis = 1> (w)""",
    "OptionalGetElement": f"{SCORES} o = Optional (s) y = OptionalGetElement (o)",
    "an optional sequence": f"""{SCORES} q = SequenceConstruct (s) o = Optional (q) h = OptionalHasElement (o)
        g = OptionalGetElement (o) {FIRST} a = SequenceAt (g, i) v = Cast <to = 1> (h) y = Mul (a, v)""",
    "a place that the image chooses": f"""{SCORES} t = Neg (s) q = SequenceConstruct (s, t)
        z = Constant <value_float = 0.01> () m = ReduceMean <keepdims = 0> (s) g = Greater (m, z) i = Cast <to = 7> (g)
        y = SequenceAt (q, i)""",
    "If gives sequences": f"""{SCORES} t = Neg (s) z = Constant <value_float = 0.01> ()
        m = ReduceMean <keepdims = 0> (s) g = Greater (m, z)
        q = If (g) <then_branch = yes () => (seq(float[N, 4]) v) {{ v = SequenceConstruct (s, t) }},
            else_branch = no () => (seq(float[N, 4]) v) {{ v = SequenceConstruct (t, s) }}> {FIRST}
        y = SequenceAt (q, i)""",
    "Loop carries a sequence and a tensor": f"""{SCORES} n = Shape <start = 0, end = 1> (s) m = Squeeze (n) {TRUE}
        q0 = SequenceEmpty () z = Constant <value_float = 0.0> ()
        q, total = Loop (m, t, q0, z) <body = g (int64 i, bool b, seq(float) old, float before) =>
            (bool e, seq(float) new, float after) {{ e = Identity (b) row = Gather <axis = 0> (s, i)
            new = SequenceInsert (old, row) h = ReduceMax <keepdims = 0> (row) after = Add (before, h) }}>
        u = ConcatFromSequence <axis = 0, new_axis = 1> (q) y = Mul (u, total)""",
    "Loop of known rounds": f"""{SCORES} m = Constant <value = int64 {{3}}> () {TRUE} q0 = SequenceEmpty ()
        q = Loop (m, t, q0) <body = g {LOOP} <axis = 1> (s, n) new = SequenceInsert (old, row) }}>
        y = ConcatFromSequence <axis = 1, new_axis = 1> (q)""",
    "of pixels": """q = SplitToSequence <axis = 1> (x) w = SequenceMap <body = g (float[N, 1, 8, 8] a) =>
        (float[N, 1, 8, 8] b) { b = Tanh (a) }> (q) z = ConcatFromSequence <axis = 1> (w)
        f = Flatten (z) y = Gemm (f, flat4)""",
}
"""Whose sequences stay, and the images with them go one by one."""


def build(body: str, batch: int | str = "N", opset: int = 17, output: str = "float y") -> onnx.ModelProto:
    functions = "local." in body
    text = f"""<ir_version: 8, opset_import: ["" : {opset}{', "local" : 1' if functions else ""}]>
        g (float[{batch}, 3, 8, 8] x) => ({output}) {{ {body} }}"""
    if functions:
        text += (
            f"""<domain: "local", opset_import: ["" : {opset}]> pair (a, b) => (q) {{ q = SequenceConstruct (a, b) }}"""
        )
    model = onnx.parser.parse_model(text)
    if model.graph.output[0].type.HasField("tensor_type"):
        model.graph.output[0].type.tensor_type.ClearField("shape")
    rng = np.random.default_rng(1)
    drawn = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in WEIGHTS.items()}
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(drawn[name], name) for name in WEIGHTS if name in read)
    return model


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def check_filled(source: onnx.ModelProto | Path, path: Path) -> Any:
    """Exports with ``fill`` and compares with the plain model on filled images; returns the metadata."""
    metadata = masktool.export(source, path, masking="fill", class_output="none").metadata
    content = source.read_bytes() if isinstance(source, Path) else source.SerializeToString()
    plain = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with masktool.load(path) as session:
        found = session.run(np.where(M == 0, np.nan, X).astype(np.float32), M)["y"]
    for index in range(len(X)):
        expected = plain.run(["y"], {"x": (X * M)[index : index + 1]})[0]
        np.testing.assert_allclose(np.reshape(found[index], expected.shape), expected, rtol=1e-5, atol=1e-6)
    return metadata


@every_value(name=WRITTEN_OUT, batch=["N", 1])
def test_known_parts_are_written_out(name: str, batch: int | str, tmp_path: Path) -> None:
    model = build(WRITTEN_OUT[name], batch)
    assert check_filled(model, tmp_path / "m.onnx").batching == "any"
    assert not any("Sequence" in operator for operator in operators(tmp_path / "m.onnx"))
    masktool.export(model, tmp_path / "layer.onnx", class_output="none")


@every_value(name=LEFT, batch=["N", 1])
def test_fill_takes_sequences(name: str, batch: int | str, tmp_path: Path) -> None:
    assert check_filled(build(LEFT[name], batch), tmp_path / "m.onnx").batching == "one"


@pytest.mark.parametrize("name", ["Loop of known rounds", "SequenceMap", "parts of the batch", "put in and taken out"])
def test_a_fixed_batch_whose_outputs_have_no_declared_shape(name: str, tmp_path: Path) -> None:
    model = build(LEFT[name], 3)
    masktool.export(model, tmp_path / "m.onnx", masking="fill", class_output="none")
    plain = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with masktool.load(tmp_path / "m.onnx") as session:
        found = session.run(X, M)["y"]
    for index in range(len(X)):
        expected = plain.run(["y"], {"x": np.repeat((X * M)[index : index + 1], 3, axis=0)})[0][:1]
        np.testing.assert_allclose(np.reshape(found[index], expected.shape), expected, rtol=1e-5, atol=1e-6)


@every_value(
    name=["parts of one place", "parts without their axis", "listed parts keep their axis"], opset=[11, 13, 17, 21]
)
def test_every_opset_with_and_without_declared_types(name: str, opset: int, tmp_path: Path) -> None:
    body = WRITTEN_OUT[name]
    if opset < 13:
        body = body.replace("u = Constant <value_ints = [1]> () v = Unsqueeze (a, u)", "v = Unsqueeze <axes = [1]> (a)")
    model = build(body, opset=opset)
    model.ir_version = 10
    check_filled(model, tmp_path / "m.onnx")
    check_filled(onnx.shape_inference.infer_shapes(model), tmp_path / "m.onnx")


def test_layer_masking_of_parts_is_that_of_a_split(tmp_path: Path) -> None:
    first = WRITTEN_OUT["parts of given lengths"]
    split = f"""{MAPS} l = Constant <value_ints = [2, 4]> () a, b = Split <axis = 1> (r, l)
        d = Concat <axis = 1> (b, a) {HEAD}"""
    found = []
    for body in (first, split):
        masktool.export(build(body), tmp_path / "m.onnx", class_output="none")
        with masktool.load(tmp_path / "m.onnx") as session:
            found.append(session.run(X, M)["y"])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("masking", ["layer", "partial"])
def test_a_sequence_of_maps_is_refused_where_masks_are_carried(masking: Any, tmp_path: Path) -> None:
    body = f"""{MAPS} t = Tanh (r) q0 = SequenceConstruct (r, t) q = SequenceErase (q0) {FIRST} d = SequenceAt (q, i)
        {HEAD}"""
    with pytest.raises(UnsupportedOperatorError) as caught:
        masktool.export(build(body), tmp_path / "m.onnx", masking=masking)
    assert caught.value.nodes[0].op_type == "SequenceConstruct"
    assert "it makes a sequence or an optional value, and masks lie on tensors alone" in str(caught.value)
    assert str(caught.value).endswith('masking="fill" takes this file')
    check_filled(build(body), tmp_path / "m.onnx")


def test_a_refused_sequence_of_parts_carries_the_name_of_the_node_in_the_file(tmp_path: Path) -> None:
    body = f"""{MAPS} l = Constant <value_ints = [2, 4]> () q0 = SplitToSequence <axis = 1> (r, l)
        q = SequenceErase (q0) {FIRST} e = SequenceAt (q, i) d = Concat <axis = 1> (e, e, e) {HEAD}"""
    model = build(body)
    next(node for node in model.graph.node if node.op_type == "SplitToSequence").name = "parts_of_maps"
    with pytest.raises(
        UnsupportedOperatorError, match=r"node 'parts_of_maps/SequenceConstruct'.*masking=\"fill\" takes this file"
    ):
        masktool.export(model, tmp_path / "m.onnx")


# torch's own files


@torch.jit.script
def over_images(z: torch.Tensor) -> torch.Tensor:
    out = []
    for i in range(z.shape[0]):
        out.append(torch.softmax(z[i], 0))
    return torch.stack(out)


@torch.jit.script
def over_channels(z: torch.Tensor) -> torch.Tensor:
    out = z[:, 0] * 0
    for t in z.unbind(1):
        out = out + torch.tanh(t)
    return out


class Convolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)))

    def head(self, maps: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class TensorSplit(Convolution):
    def head(self, maps: torch.Tensor) -> torch.Tensor:
        a, b, c = torch.tensor_split(maps.mean((2, 3)), 3, 1)
        return self.linear(torch.cat([c, a, b], 1))


class LoopOverImages(Convolution):
    def head(self, maps: torch.Tensor) -> torch.Tensor:
        return over_images(self.linear(maps.mean((2, 3))))


class Unbind(Convolution):
    def head(self, maps: torch.Tensor) -> torch.Tensor:
        return over_channels(maps.flatten(2))


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize(("module", "batching"), [(TensorSplit, "any"), (LoopOverImages, "one"), (Unbind, "one")])
def test_files_of_torch(module: type[Convolution], batching: str, opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "torch.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module().eval(),
            (torch.rand(2, 3, 8, 8),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "b"}, "y": {0: "b"}},
        )
    assert any("Sequence" in operator for operator in operators(path))
    assert check_filled(path, tmp_path / "m.onnx").batching == batching


# Sequences at the ends


def test_a_sequence_that_a_loop_gives_is_cut_off(tmp_path: Path) -> None:
    body = f"""{SCORES} n0 = Shape <start = 0, end = 1> (s) m = Squeeze (n0) {TRUE} q0 = SequenceEmpty ()
        y = Loop (m, t, q0) <body = g {LOOP} <axis = 0> (s, n) new = SequenceInsert (old, row) }}>"""
    masktool.export(build(body, output="seq(float) y"), tmp_path / "m.onnx")
    with masktool.load(tmp_path / "m.onnx") as session:
        assert session.output_names == ["s"]


def test_a_sequence_beside_what_is_taken_out_of_it(tmp_path: Path) -> None:
    model = build(f"{SCORES} t = Tanh (s) q = SequenceConstruct (s, t) {SECOND} y = SequenceAt (q, j)")
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
    model.graph.output.append(helper.make_value_info("q", kind))
    check_filled(model, tmp_path / "m.onnx")
    with masktool.load(tmp_path / "m.onnx") as session:
        assert session.output_names == ["y", "s", "t"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "float[N, 3, 8, 8] x) => (seq(float) y) { y = SplitToSequence <axis = 1> (x) }",
            "an output that is a sequence",
        ),
        ("float[N, 3, 8, 8] x, seq(float[N, 4]) e) => (float[N, 4] y) { y = SequenceAt (e, z) }", "input 'e'"),
        ("seq(float[1, 3, 8, 8]) e) => (float[1, 3, 8, 8] y) { y = SequenceAt (e, z) }", "no image input"),
    ],
)
def test_what_cannot_be_taken_is_said(text: str, expected: str, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({text}')
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), "z"))
    with pytest.raises(MasktoolError, match=expected):
        masktool.export(model, tmp_path / "m.onnx", masking="fill", class_output="none")


def test_an_image_without_a_batch_is_told_what_to_do(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[3, 8, 8] x) => (float[3, 8, 8] y) { y = Relu (x) }'
    )
    with pytest.raises(MasktoolError) as caught:
        masktool.export(model, tmp_path / "m.onnx", masking="fill")
    assert "got 'x' float (3, 8, 8); export the network with a batch axis in front" in str(caught.value)
