"""Sample graphs with their gradients, in float32, in float64 and in float16."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from masktool.contract import SamplerRule
from masktool.exporters.canonical import canonicalise, infer_shapes
from masktool.exporters.propagate import mask_model
from masktool.ops.gradients import GradientGraph
from masktool.ops.samples import Sample
from ops.float64_operators import OPERATORS
from ops.test_mask_rules import build

Result = TypeVar("Result")

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
DOUBLE = onnx.TensorProto.DOUBLE
SCALES_INPUT = 2
"""Of Resize: float32 in every graph."""


def once_per_sample(function: Callable[[Sample], Result]) -> Callable[[Sample], Result]:
    """Returns a function that keeps its results; samples hold dicts, so it knows them by identity, not by value."""
    results: dict[int, Result] = {}

    @functools.wraps(function)
    def recall(sample: Sample) -> Result:
        if id(sample) not in results:
            results[id(sample)] = function(sample)
        return results[id(sample)]

    return recall


@once_per_sample
def masked_sample(sample: Sample) -> onnx.ModelProto:
    """Returns the masked form of a sample of the registry, which is not to be changed."""
    return ir.to_proto(mask_and_inline(build(sample), rule_of(sample)))


def rule_of(sample: Sample) -> SamplerRule:
    """Returns the rule that emits most for a sample."""
    return "cell" if sample.narrow else "published"


@once_per_sample
def masked_sample_with_gradients(sample: Sample) -> onnx.ModelProto:
    """Returns the masked form of a sample of the registry with its gradients, which is not to be changed."""
    return add_gradients(ir.from_proto(masked_sample(sample)))


def mask_and_inline(model: onnx.ModelProto, rule: SamplerRule = "published") -> ir.Model:
    """Returns the masked form of a model, in standard operators alone, images and masks of one batch."""
    masked = canonicalise(ir.from_proto(model))
    mask_model(masked, "x", "NCHW", mask_required=True, rule=rule)
    common.InlinePass()(masked)
    image, mask = masked.graph.inputs
    mask.shape = ir.Shape([image.shape[0], *mask.shape[1:]])
    infer_shapes(masked)
    return masked


def add_gradients(model: ir.Model, *, indices_of_maxima: bool = True) -> onnx.ModelProto:
    """Returns a model with the input ``seed`` and an output ``gradient_<input>`` for each of its inputs.

    Raises:
        AssertionError: a node has no gradient.
    """
    inputs, output = tuple(model.graph.inputs), model.graph.outputs[0]
    graph = GradientGraph(model.graph, inputs, indices_of_maxima=indices_of_maxima)
    seed = ir.Value(name="seed", shape=output.shape, type=output.type)
    model.graph.inputs.append(seed)
    graph.add(output, seed)
    refused = graph.propagate()
    assert not refused, refused
    for value in inputs:
        gradient = graph.total(value) or graph.zeros_like(value)
        named = graph.emit("Identity", gradient)
        named.name = f"gradient_{value.name}"
        model.graph.outputs.append(graph.like(value, named))
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def to_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model that computes in float64 throughout."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    del graph.value_info[:]
    kept = {node.input[SCALES_INPUT] for node in graph.node if node.op_type == "Resize"}
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in FLOATS:
            value.type.tensor_type.elem_type = DOUBLE
    for tensor in graph.initializer:
        if tensor.name not in kept:
            tensor.CopyFrom(double_tensor(tensor))
    for node in graph.node:
        if node.op_type == "GroupNormalization":
            node.attribute.append(onnx.helper.make_attribute("stash_type", DOUBLE))
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in FLOATS:
                attribute.i = DOUBLE
            elif attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(double_tensor(attribute.t))
    return model


def double_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Returns a tensor in float64 if it is floating point."""
    if tensor.data_type not in FLOATS:
        return tensor
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a plain sample that computes in float16 between ``x`` and ``y``, which stay float32."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    kept = {node.input[SCALES_INPUT] for node in graph.node if node.op_type == "Resize"}
    for tensor in graph.initializer:
        if tensor.name not in kept:
            tensor.CopyFrom(half_tensor(tensor))
    for node in graph.node:
        node.input[:] = ["x_half" if name == "x" else name for name in node.input]
        node.output[:] = ["y_half" if name == "y" else name for name in node.output]
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
        if node.op_type == "Constant" and node.output[0] not in kept:
            tensor = ir.convenience.get_const_tensor(ir.from_proto(node).outputs[0])
            assert tensor is not None
            value = half_tensor(ir.to_proto(tensor))
            node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", value))
    graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["x_half"], to=onnx.TensorProto.FLOAT16))
    graph.node.append(onnx.helper.make_node("Cast", ["y_half"], ["y"], to=onnx.TensorProto.FLOAT))
    return model


def half_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Returns a tensor in float16 if it is float32."""
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return tensor
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)


def open_double(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Returns what runs a model in float64."""
    return ReferenceEvaluator(to_double(model), new_ops=OPERATORS)
