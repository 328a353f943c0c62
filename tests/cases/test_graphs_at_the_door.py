"""Graphs that ONNX's libraries must never be given: one line each, and no time or memory spent on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import masktool
from masktool import export
from masktool.errors import MasktoolError
from masktool.exporters.onnx_door import read_onnx
from masktool.external_weights import find_locations
from masktool.interface.check import check_export

CORPUS = Path(__file__).parent / "corpus"
HEAD = '<ir_version: 9, opset_import: ["" : 18]> g '
NETWORK = "(float[N,3,8,8] x) => (float[N,4] y) { c = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (c) "
END = " p = GlobalAveragePool (r) y = Flatten (p) }"


def network(text: str = NETWORK + END) -> onnx.ModelProto:
    """Returns a model of that text with a weight w (4, 3, 3, 3)."""
    model = onnx.parser.parse_model(HEAD + text)
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def written(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refusal(model: onnx.ModelProto, folder: Path) -> str:
    with pytest.raises(MasktoolError) as caught:
        read_onnx(written(model, folder))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("abort-split", "expected 1, its attribute num_outputs, got 2"),
        ("serdeerror", "a name that is no text"),
        ("validationerror-two-values", "two sets of numbers"),
    ],
)
def test_files_of_the_corpus(name: str, said: str, tmp_path: Path) -> None:
    for masking in ("layer", "fill"):
        with pytest.raises(MasktoolError, match=said):
            export(CORPUS / f"{name}.onnx", tmp_path / "out.onnx", masking=masking)


@pytest.mark.parametrize(
    "body",
    [
        "(float[N,3,8,8] x) => (float[N,4,8,8] y) { c = Conv (x, w) y = Add (c, z) z = Add (c, y) }",
        "(float[N,3,8,8] x) => (float[N,4,8,8] y) { y = Add (y, y) }",
        "(float[N,3,8,8] x, bool b) => (float[N,4,8,8] y) { c = Conv <pads = [1, 1, 1, 1]> (x, w) z = Relu (y) "
        "y = If (b) <then_branch = t () => (float[N,4,8,8] o) { o = Relu (z) }, "
        "else_branch = e () => (float[N,4,8,8] q) { q = Relu (c) }> }",
    ],
)
def test_a_cycle_is_named(body: str, tmp_path: Path) -> None:
    assert "the graph has a cycle" in refusal(network(body), tmp_path)


def test_nodes_out_of_order_are_put_into_it(tmp_path: Path) -> None:
    model = network()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    export(written(model, tmp_path), tmp_path / "out.onnx")
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    expected = onnxruntime.InferenceSession(network().SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(onnxruntime.InferenceSession(tmp_path / "out.onnx").run(None, {"x": x})[0], expected)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (NETWORK.replace("(c) ", "(nothing) ") + END, "a value that nothing gives .*Relu 'r'.*: nothing"),
        (NETWORK + "r = Relu (c)" + END, "a value that is given twice .*: r"),
        (NETWORK + "w = Relu (c)" + END, "a value that is given twice .*: w"),
        ("(float[N,3,8,8] x) => (float[N,4] y) { c = Conv (x, w) }", "an output that nothing gives .*: y"),
        (NETWORK + "t = ConvTranspose <group = 0> (r, w)" + END, "expected group of 1 or more, got 0"),
        (NETWORK + "t = MaxPool <kernel_shape = [2, 2], strides = [1, -2]> (r)" + END, "strides of 1 or more, got -2"),
        (NETWORK + "t = SpaceToDepth <blocksize = 0> (r)" + END, "blocksize of 1 or more, got 0"),
        (NETWORK + "a, b, d = Split <axis = 1, split = [2, 2]> (r)" + END, "its attribute split, got 3"),
    ],
)
def test_names_that_lead_nowhere(body: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(MasktoolError, match=said):
        read_onnx(written(network(body), tmp_path))


def bad_tensor(**changes: object) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    for name, value in changes.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)  # type: ignore[arg-type]
        else:
            setattr(tensor, name, value)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (bad_tensor(raw_data=b"1234"), "expected 432 bytes for (4, 3, 3, 3), got 4"),
        (bad_tensor(dims=[2**40, 3, 3, 3]), "do not fill its shape"),
        (bad_tensor(dims=[-4, 3, 3, 3]), "negative length"),
        (bad_tensor(data_type=0), "an element type that ONNX does not know"),
        (bad_tensor(data_type=99), "an element type that ONNX does not know"),
        (bad_tensor(raw_data=b""), "got 0"),
    ],
)
def test_weights_that_are_not_what_they_say(tensor: TensorProto, said: str, tmp_path: Path) -> None:
    model = network()
    del model.graph.initializer[:]
    model.graph.initializer.append(tensor)
    assert said in refusal(model, tmp_path)


@pytest.mark.parametrize(("inputs", "got"), [("x", 1_200_000_000), ("z", 10**9)])
def test_what_a_few_bytes_declare_is_not_allocated(inputs: str, got: int, tmp_path: Path) -> None:
    body = NETWORK.replace("float[N,3,8,8] x", "float[N,3,20000,20000] x")
    if inputs == "z":
        body = NETWORK.replace("x)", "x, float[1000000000] z)", 1).replace("Relu (c)", "Relu (c) k = ReduceSum (z)")
    message = refusal(network(body + END), tmp_path)
    assert f"got {got}" in message
    assert f"limits(values={got})" in message


def test_bytes_of_any_kind_are_no_model(tmp_path: Path) -> None:
    whole = network().SerializeToString()
    for content in (b"\x00", b"hello", whole[: len(whole) // 2], b"\x3a\x00", os.urandom(300)):
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(MasktoolError, match=r"not an ONNX model, or a truncated one|damaged|no text"):
            read_onnx(tmp_path / "model.onnx")


# External weights


def with_external_weight(location: str) -> onnx.ModelProto:
    model = network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def test_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    folder, outside = tmp_path / "model", tmp_path / "secret.bin"
    folder.mkdir()
    outside.write_bytes(bytes(432))
    (folder / "link.bin").symlink_to(outside)
    (folder / "sub").symlink_to(tmp_path)
    for location in (str(outside), "../secret.bin", "a/../../secret.bin", "C:\\secret.bin", "..\\secret.bin", ""):
        assert "not in the model's folder" in refusal(with_external_weight(location), folder)
    for location in ("link.bin", "sub/secret.bin"):
        assert "a link out of the model's folder" in refusal(with_external_weight(location), folder)


def test_weights_as_a_hub_caches_them_are_read(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "b").write_bytes(numpy_helper.to_array(network().graph.initializer[0]).tobytes())
    written(with_external_weight("w.bin"), blobs)
    (snapshot / "model.onnx").symlink_to(blobs / "model.onnx")
    (snapshot / "w.bin").symlink_to(blobs / "b")
    model = read_onnx(snapshot / "model.onnx").model
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), numpy_helper.to_array(network().graph.initializer[0]))


def test_external_weights_that_are_short_missing_or_in_a_constant(tmp_path: Path) -> None:
    assert "missing external data" in refusal(with_external_weight("w.bin"), tmp_path)
    (tmp_path / "w.bin").write_bytes(bytes(431))
    assert "expected at least 432 bytes" in refusal(with_external_weight("w.bin"), tmp_path)
    model = with_external_weight("/etc/hostname")
    constant = helper.make_node("Constant", [], ["w"], value=model.graph.initializer[0])
    del model.graph.initializer[:]
    model.graph.node.insert(0, constant)
    assert "not in the model's folder" in refusal(model, tmp_path)


def test_a_constant_outside_the_graph_is_read(tmp_path: Path) -> None:
    model = with_external_weight("w.bin")
    (tmp_path / "w.bin").write_bytes(numpy_helper.to_array(network().graph.initializer[0]).tobytes())
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=model.graph.initializer[0]))
    del model.graph.initializer[:]
    assert export(written(model, tmp_path), tmp_path / "out.onnx").metadata.parity["ones"] == 0


@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "function", "sparse"])
def test_a_file_that_is_only_run_reads_nothing_outside_either(place: str, tmp_path: Path) -> None:
    masktool.export(network(), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    tensor = with_external_weight("../secret.bin").graph.initializer[0]
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    else:
        node = helper.make_node("Constant", [], ["k"], value=tensor)
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("k", TensorProto.FLOAT, None)])
        if place == "branch":
            node = helper.make_node("If", ["c"], ["k2"], then_branch=branch, else_branch=branch)
        if place == "function":
            model.functions.append(helper.make_function("d", "F", [], ["k"], [node], [helper.make_opsetid("", 18)]))
        else:
            model.graph.node.append(node)
    path = written(model, tmp_path)
    for open_it in (masktool.load, check_export):
        with pytest.raises(MasktoolError, match="not in the model's folder"):
            open_it(path)


def test_names_are_found_as_onnx_finds_them(tmp_path: Path) -> None:
    model = with_external_weight("a/b/c.bin")
    model.graph.initializer.add(name="v").CopyFrom(model.graph.initializer[0])
    model.graph.initializer[1].external_data[0].value = "d.bin"
    assert set(find_locations(model.SerializeToString())) == {"a/b/c.bin", "d.bin"}
    content = model.SerializeToString()
    for length in range(1, len(content), 7):
        (tmp_path / "cut.onnx").write_bytes(content[:length])
        with pytest.raises(MasktoolError):
            masktool.load(tmp_path / "cut.onnx")


# Sparse weights


def sparse(dense: np.ndarray, *, by_axis: bool) -> onnx.SparseTensorProto:
    places = np.argwhere(dense) if by_axis else np.flatnonzero(dense)
    values = numpy_helper.from_array(dense[dense != 0], "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), "i"), dense.shape)


@pytest.mark.parametrize("by_axis", [True, False])
def test_sparse_weights_are_made_dense(by_axis: bool, tmp_path: Path) -> None:
    model = network()
    dense = numpy_helper.to_array(model.graph.initializer[0]).copy()
    dense[np.abs(dense) < 1] = 0
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(sparse(dense, by_axis=by_axis))
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    metadata = export(written(model, tmp_path), tmp_path / "out.onnx").metadata
    plain = network()
    plain.graph.initializer[0].CopyFrom(numpy_helper.from_array(dense, "w"))
    expected = onnxruntime.InferenceSession(plain.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(onnxruntime.InferenceSession(tmp_path / "out.onnx").run(None, {"x": x})[0], expected)
    assert metadata.parity["ones"] == 0


def test_sparse_weights_that_lie(tmp_path: Path) -> None:
    model = network()
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(sparse(np.eye(4, dtype=np.float32), by_axis=False))
    model.graph.sparse_initializer[0].dims[:] = [2, 2]
    assert "indices do not fit its shape" in refusal(model, tmp_path)
    model.graph.sparse_initializer[0].dims[:] = [10**6, 10**6]
    assert "beyond a limit" in refusal(model, tmp_path)


@pytest.mark.parametrize("place", ["graph", "branch", "function", "outside"])
@pytest.mark.parametrize("masking", ["layer", "fill"])
def test_sparse_constants_are_made_dense(masking: Any, place: str, tmp_path: Path) -> None:
    """ONNX Runtime runs all of them but those whose numbers stand outside the graph, which ONNX allows too."""
    model = network()
    weight = numpy_helper.to_array(model.graph.initializer[0])
    dense = np.where(np.abs(weight) < 1, 0, weight)
    del model.graph.initializer[:]
    node = helper.make_node("Constant", [], ["w"], sparse_value=sparse(dense, by_axis=place != "branch"))
    if place == "branch":
        says = helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.array(True)))
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, None)])
        chosen = helper.make_node("If", ["t"], ["k"], then_branch=branch, else_branch=branch)
        model.graph.node[0].input[1] = "k"
        nodes = [says, chosen]
    elif place == "function":
        model.functions.append(helper.make_function("d", "F", [], ["w"], [node], [helper.make_opsetid("", 18)]))
        model.opset_import.append(helper.make_opsetid("d", 1))
        nodes = [helper.make_node("F", [], ["w"], domain="d")]
    else:
        nodes = [node]
    if place == "outside":
        values = node.attribute[0].sparse_tensor.values
        (tmp_path / "w.bin").write_bytes(numpy_helper.to_array(values).tobytes())
        values.ClearField("float_data")
        onnx.external_data_helper.set_external_data(values, "w.bin", length=4 * int(np.count_nonzero(dense)))
        values.ClearField("raw_data")
    others = [onnx.NodeProto.FromString(each.SerializeToString()) for each in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    plain = network()
    plain.graph.initializer[0].CopyFrom(numpy_helper.from_array(dense, "w"))
    expected = onnxruntime.InferenceSession(plain.SerializeToString()).run(None, {"x": x})[0]
    export(written(model, tmp_path), tmp_path / "out.onnx", masking=masking)
    with masktool.load(tmp_path / "out.onnx") as session:
        np.testing.assert_array_equal(session.run(x)["y"], expected)


def test_sparse_constants_that_lie(tmp_path: Path) -> None:
    model = network()
    del model.graph.initializer[:]
    node = helper.make_node("Constant", [], ["w"], name="k", sparse_value=sparse(np.eye(4, dtype="f"), by_axis=False))
    model.graph.node.insert(0, node)
    inside = model.graph.node[0].attribute[0].sparse_tensor
    inside.dims[:] = [2, 2]
    assert "indices do not fit its shape" in refusal(model, tmp_path)
    inside.dims[:] = [10**6, 10**6]
    assert "beyond a limit" in (said := refusal(model, tmp_path))
    assert "Constant 'k'" in said
    inside.values.ClearField("float_data")
    inside.values.raw_data = b"one"
    assert "numbers do not fill its shape" in refusal(model, tmp_path)


def test_a_sound_file_is_never_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(proto: onnx.ModelProto) -> None:
        raise KeyError("something new")

    monkeypatch.setattr("masktool.exporters.onnx_door.onnx_ir.from_proto", fails)
    message = refusal(network(), tmp_path)
    assert "ONNX Runtime opens the model" in message
    assert "damaged" not in message


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml", "own"])
@pytest.mark.parametrize("version", [-1, 2**31, 2**40, 2**63 - 1])
def test_a_version_that_no_operator_set_has(domain: str, version: int, tmp_path: Path) -> None:
    model = network()
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    model.opset_import[-1].version = version
    said = refusal(model, tmp_path)
    assert "a version that no operator set has" in said
    assert f"domain {domain or 'ai.onnx'!r}" in said
    assert f"to 2147483647, got {version}" in said


def test_a_version_that_no_operator_set_has_in_a_function(tmp_path: Path) -> None:
    model = network()
    model.functions.append(helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], []))
    model.functions[0].opset_import.append(helper.make_opsetid("", 2**31))
    assert "got 2147483648" in refusal(model, tmp_path)
