"""Nodes and names that readers of ONNX take in different ways: refused, for each would be a guess at what is meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import numpy_helper

import masktool
from masktool import export
from masktool.errors import MasktoolError
from masktool.exporters.onnx_checks import find_order
from masktool.exporters.onnx_door import open_proto
from masktool.exporters.trial import open_source, try_source
from masktool.exporters.write import refuse_infinite_response

HEAD = '<ir_version: 10, opset_import: ["" : 18, "own" : 1]> g '
NETWORK = """(float[N,3,8,8] x) => (float[N,4] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    r = Relu (c)
    m = ReduceMean <keepdims = 1> (r, axes)
    f = Flatten (m)
    y = Gemm <transB = 1> (f, v)
}"""


def network(text: str = NETWORK, head: str = HEAD) -> onnx.ModelProto:
    """Returns a model of that text with weights w (4, 3, 3, 3), v (4, 4) and the axes 2, 3."""
    model, rng = onnx.parser.parse_model(head + text), np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "v": rng.standard_normal((4, 4))}
    for name, weight in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    return model


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(MasktoolError) as caught:
        open_proto(model, "file")
    return str(caught.value)


def test_the_network_itself_is_taken() -> None:
    open_proto(network(), "file")


@pytest.mark.parametrize("node", [0, 2, 4])
def test_an_attribute_that_stands_twice(node: int) -> None:
    model = network()
    attributes = model.graph.node[node].attribute
    attributes.add().CopyFrom(attributes[0])
    said = refusal(model)
    assert "stands twice in one node" in said
    assert attributes[0].name in said


def test_an_attribute_that_stands_twice_in_a_body_and_in_a_function() -> None:
    function = """(float[N,3,8,8] x) => (float[N,4,8,8] y) { y = own.f (x, w) }
        <domain: "own", opset_import: ["" : 18]> f (a, b) => (c) { c = Conv <pads = [1, 1, 1, 1]> (a, b) }"""
    body = """(float[N,3,8,8] x, bool b) => (float[N,4,8,8] y) { y = If (b) <
        then_branch = t () => (float[N,4,8,8] o) { o = Conv <pads = [1, 1, 1, 1]> (x, w) },
        else_branch = e () => (float[N,4,8,8] q) { q = Conv <pads = [1, 1, 1, 1]> (x, w) }> }"""
    for model in (network(function), network(body)):
        inner = model.functions[0].node[0] if model.functions else model.graph.node[0].attribute[0].g.node[0]
        inner.attribute.add().CopyFrom(inner.attribute[0])
        assert "stands twice in one node" in refusal(model)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("transB = 1", "transB = -1", "transB of 0 or 1, got -1"),
        ("keepdims = 1", "keepdims = 1048576", "keepdims of 0 or 1, got 1048576"),
        ("y = Gemm <transB = 1> (f, v)", "y = Gemm (f)", "expected 2 to 3 inputs, got 1"),
        ("Conv <pads = [1, 1, 1, 1]> (x, w)", "Conv <pads = [1, 1, 1, 1]> (x, , v)", "no W"),
        ("r = Relu (c)", "r = Softmax <axis = 1099511627776> (c)", "an axis that no value has"),
        ("r = Relu (c)", "r = Transpose <perm = [0, 1, 2, -1099511627776]> (c)", "an axis that no value has"),
        ("r = Relu (c)", "r = Min (, c)", "an input without a name"),
        ("r = Relu (c)", "r = Concat <axis = 1> (c, , c)", "an input without a name"),
        ("r = Relu (c)", "r = DepthToSpace <blocksize = 1099511627776> (c)", "blocksize of 32 bits"),
        ("r = Relu (c)", "r = Relu (c, c)", "expected 1 inputs, got 2"),
        ("r = Relu (c)", "r = MaxPool <kernel_shape = [1, 1]> ()", "not as MaxPool-12 is defined"),
        ("r = Relu (c)", "r, s = Relu (c)", "expected 1 outputs, got 2"),
        ("r = Relu (c)", "r = Sum ()", "expected 1 or more inputs, got 0"),
    ],
)
def test_a_node_that_is_none_of_its_operators(old: str, new: str, said: str) -> None:
    assert said in refusal(network(NETWORK.replace(old, new)))


def test_operators_that_onnx_does_not_know_are_left_to_onnx_runtime() -> None:
    open_proto(network(NETWORK.replace("Relu (c)", "Nobody (c)")), "file")


def test_weights_and_inputs_without_a_name() -> None:
    weight, inputs = network(NETWORK.replace("(x, w)", "(x, w, )")), network()
    weight.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), ""))
    inputs.graph.input.append(onnx.helper.make_tensor_value_info("", onnx.TensorProto.FLOAT, [1]))
    assert "a weight without a name" in refusal(weight)
    assert "an input without a name" in refusal(inputs)


def test_names_that_are_given_twice() -> None:
    weight, inputs, opset = network(), network(), network()
    weight.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w"))
    inputs.graph.input.add().CopyFrom(inputs.graph.input[0])
    opset.opset_import.add().CopyFrom(onnx.helper.make_opsetid("", 13))
    assert "a weight that is given twice (file): 'w'" in refusal(weight)
    assert "an input that is given twice (file): 'x'" in refusal(inputs)
    assert "an operator set that is imported twice" in refusal(opset)
    sparse = network()
    values = numpy_helper.from_array(np.ones(1, np.float32), "v")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "v_indices")
    sparse.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4, 4]))
    assert "a weight that is given twice (file): 'v'" in refusal(sparse)
    function = network("""(float[N,3,8,8] x) => (float[N,3,8,8] y) { y = own.f (x) }
        <domain: "own", opset_import: ["" : 18]> f (a) => (c) { c = Relu (a) }
        <domain: "own", opset_import: ["" : 18]> f (a) => (c) { c = Neg (a) }""")
    assert "a function that is given twice (file): 'own::f::'" in refusal(function)


def test_nodes_out_of_order_move_as_little_as_they_can() -> None:
    graph = onnx.parser.parse_graph(
        "g (float[N] x) => (float[N] y, float[N] z) { b = Neg (a) a = Relu (x) c = Neg (b) y = Relu (c) z = Neg (a) }"
    )
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    assert find_order(graph, {"x"}, producers, "file") == [1, 0, 2, 3, 4]


def test_a_pad_that_is_an_output_too_is_not_fused(tmp_path: Path) -> None:
    model = network("""(float[N,3,8,8] x) => (float[N,4] y, float[N,3,10,10] p) {
        p = Pad (x, pads) c = Conv (p, w) g = GlobalAveragePool (c) y = Flatten (g) }""")
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"))
    for masking in ("layer", "partial", "fill"):
        assert export(model, tmp_path / "out.onnx", masking=masking).metadata.parity["ones"] == 0


@pytest.mark.parametrize("shape", [[1, -1], [1, 256], [-1, 256]])
def test_a_network_of_one_image_may_reshape_its_places_into_features(shape: list[int], tmp_path: Path) -> None:
    model = network("""(float[1,3,8,8] x) => (float[1,4] y, float[4] z) {
        c = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (c) f = Reshape (r, shape) y = MatMul (f, u)
        z = ReduceMean <keepdims = 0> (y, zero) }""")
    rng = np.random.default_rng(1)
    model.graph.initializer.append(numpy_helper.from_array(np.array(shape), "shape"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal((256, 4), np.float32), "u"))
    metadata = export(model, tmp_path / "out.onnx").metadata
    assert metadata.batching == "one"
    assert metadata.parity["ones"] == 0


def test_a_class_output_of_several_rows_for_one_image_is_refused(tmp_path: Path) -> None:
    export(network(), tmp_path / "out.onnx", output_kind="logits")
    model = onnx.load(tmp_path / "out.onnx")
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    gemm.output[0] = "once"
    model.graph.node.append(onnx.helper.make_node("Concat", ["once", "once"], ["y"], axis=0))
    onnx.save(model, tmp_path / "out.onnx")
    with (
        masktool.load(tmp_path / "out.onnx", threads=1) as session,
        pytest.raises(MasktoolError, match="another number of rows"),
    ):
        session(np.zeros((1, 3, 8, 8), np.float32))


def test_weights_whose_products_overflow_are_named_instead_of_a_defect(tmp_path: Path) -> None:
    model = network()
    metadata = export(model, tmp_path / "out.onnx").metadata
    plain = onnx_ir.from_proto(model)
    trial = try_source(open_source(plain, "x", None), plain, "NCHW", None)
    with pytest.raises(MasktoolError, match="defect of masktool"):
        refuse_infinite_response(float("nan"), metadata, plain, trial)
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = -3e38
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    with pytest.raises(MasktoolError, match=r"numbers overflow \('w' \(up to 3\.0e\+38\)\)"):
        refuse_infinite_response(float("inf"), metadata, onnx_ir.from_proto(model), trial)


@pytest.mark.parametrize("mode", ["layer", "fill"])
@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        (onnx.helper.make_attribute("group", [3, 3]), "expected group of type INT, got INTS"),
        (onnx.helper.make_attribute("pads", 1), "expected pads of type INTS, got INT"),
        (onnx.helper.make_attribute("strides", "two"), "expected strides of type INTS, got STRING"),
    ],
)
def test_attributes_of_another_type_are_named(attribute, said, mode, tmp_path: Path) -> None:
    model = network()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    del conv.attribute[:]
    conv.attribute.append(attribute)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "C"  # the convolution is asked for it
    with pytest.raises(MasktoolError, match=f"not as Conv-11 is defined .*: {said}"):
        export(model, tmp_path / "out.onnx", masking=mode)


def test_attributes_of_another_type_are_named_where_no_opset_is_imported(tmp_path: Path) -> None:
    model = network()
    del model.opset_import[:]
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.attribute.append(onnx.helper.make_attribute("group", [1, 1]))
    with pytest.raises(MasktoolError, match=r"Conv 'c'.*: expected group of type INT, got INTS"):
        export(model, tmp_path / "out.onnx")


@pytest.mark.parametrize("dims", [[], [108]])
def test_a_kernel_of_too_few_axes_tells_no_channels(dims, tmp_path: Path) -> None:
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "C"
    kernel = next(each for each in model.graph.initializer if each.name == "w")
    kernel.CopyFrom(numpy_helper.from_array(np.ones(dims, np.float32), "w"))
    with pytest.raises(MasktoolError, match=r"Conv|channels"):
        export(model, tmp_path / "out.onnx")
