"""Which nodes the tables of providers have fall back to the CPU."""

import contextlib
import json

import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from collect_kernels import render
from networks.small_graphs import parse

from masktool.contract import DEVICE_PROVIDERS
from masktool.exporters.placement import FACTS, facts_of, kernel_facts, place_file, place_nodes

HEAD = '<ir_version: 10, opset_import: ["" : {opset}, "other" : 1, "own" : 1]> '
POOLED = "(float[N, 3, 8, 8] x) => (float[N, 3, 4, 4] y) { y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }"


def place(text, provider, opset=20):
    return place_nodes(ir.from_proto(parse(HEAD.format(opset=opset) + text)), provider)


def reasons(placement):
    return {node.operator: (node.answer.where, node.answer.reason) for node in placement.others}


def test_every_provider_says_where_its_facts_come_from_and_of_which_version():
    assert set(kernel_facts()["providers"]) == {"cpu", *DEVICE_PROVIDERS}
    for provider in DEVICE_PROVIDERS:
        facts = facts_of(provider)
        assert facts["source"]
        assert facts["version"]
        assert len(facts.get("kernels", facts.get("operators"))) > 50
        assert facts["version"] in place(f"g {POOLED}", provider).source


def test_the_file_is_written_as_the_script_writes_it():
    assert render(json.loads(FACTS.read_text(encoding="utf-8"))) == FACTS.read_text(encoding="utf-8")


def test_a_kernel_without_an_end_takes_its_own_version_alone():
    assert place(f"g {POOLED}", "cuda", opset=21).others == ()
    newer = reasons(place(f"g {POOLED}", "cuda", opset=22))
    assert newer == {
        "MaxPool": ("cpu", "no kernel for its version 22, which opset 22 has; there are for 1, 8, 10, 11, 12")
    }


def test_types_tell():
    text = "g ({dtype}[N, 3] x, {dtype}[N, 3] z) => ({dtype}[N, 3] y) {{ y = Add (x, z) }}"
    assert place(text.format(dtype="float16"), "webgpu").on_device == 1
    assert reasons(place(text.format(dtype="int64"), "webgpu"))["Add"][0] == "cpu"
    assert reasons(place(text.format(dtype="bfloat16"), "webgpu"))["Add"][0] == "unknown"


@pytest.mark.parametrize(("provider", "where"), [("webgpu", "cpu"), ("tensorrt", "cpu"), ("cuda", "device")])
def test_max_pooling_with_indices(provider, where):
    text = (
        "g (float[N, 3, 8, 8] x) => (float[N, 3, 7, 7] y, int64[N, 3, 7, 7] i)"
        " { y, i = MaxPool <kernel_shape = [2, 2]> (x) }"
    )
    assert reasons(place(text, provider)).get("MaxPool", ("device",))[0] == where


def test_what_must_be_constant():
    fixed = (
        "g (float[3, 8] x) => (float[3] y) { a = Constant <value_ints = [1]> () y = ReduceSum <keepdims = 0> (x, a) }"
    )
    open_ = "g (float[3, 8] x, int64[1] a) => (float[3] y) { y = ReduceSum <keepdims = 0> (x, a) }"
    assert place(fixed, "tensorrt").others == ()
    assert reasons(place(open_, "tensorrt"))["ReduceSum"] == ("cpu", "its input 1 must be a constant")


def test_lengths_and_constants_are_not_counted():
    text = """g (float[N, 3] x) => (float[M, 3] y) {
        two = Constant <value_ints = [2, 1]> () s = Shape (x) t = Mul (s, two)
        c = ConstantOfShape (t) y = Add (c, c) }"""
    placement = place(text, "webgpu")
    assert (placement.on_lengths, placement.on_constants) == (2, 1)
    assert reasons(placement) == {"ConstantOfShape": ("cpu", "no kernel")}
    assert placement.on_device == 1


def test_functions_are_written_out_and_bodies_walked():
    text = """g (float[N, 3] x, bool b) => (float[N, 3] y) {
        m = own.gate (x)
        y = If (b) <then_branch = t () => (float[N, 3] p) { p = Sign (m) },
                    else_branch = e () => (float[N, 3] q) { q = CastLike (m, x) }> }
    <domain: "own", opset_import: ["" : 20]> gate (a) => (c) { d = Sign (a) c = Mul (a, d) }"""
    placement = place(text, "webgpu")
    assert [node.operator for node in placement.others] == ["Sign", "Sign"]
    assert placement.on_device == 3  # the product, the choice and the cast


def test_operators_of_others_and_new_opsets_are_not_made_up():
    assert reasons(place("g (float[3] x) => (float[3] y) { y = other.Thing (x) }", "cuda")) == {
        "other::Thing": ("cpu", "no kernel")
    }
    assert reasons(place("g (float[3] x) => (float[3] y) { y = Relu (x) }", "tensorrt", opset=22)) == {
        "Relu": ("unknown", "the table is for opsets 9 to 20, not for 22")
    }


def test_the_cpu_table_is_that_of_onnx_runtime():
    """A node that the table has a kernel for opens; one that it has none for does not."""
    for name, opens in [("float", True), ("double", False)]:
        (kernels,) = [each for version, *each in facts_of("cpu")["kernels"]["::Acosh"] if version == 9]
        assert any(name in kernel["T"].split() for kernel in kernels) == opens
        model = parse(HEAD.format(opset=21) + f"g ({name}[3] x) => ({name}[3] y) {{ y = Acosh (x) }}")
        with contextlib.nullcontext() if opens else pytest.raises(Exception, match="NOT_IMPLEMENTED"):
            onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_a_file_whose_weights_are_missing_is_placed(tmp_path):
    model = parse(
        HEAD.format(opset=20) + "g (float[N, 300] x) => (float[N, 9] y) <float[300, 9] w> { y = MatMul (x, w) }"
    )
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert place_file(tmp_path / "m.onnx", "coreml").others == ()
