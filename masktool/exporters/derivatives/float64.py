"""A graph that computes in float64, as far as ONNX Runtime or ONNX's own evaluator has kernels for it.

ONNX Runtime has no convolution in float64 on the CPU; ONNX's evaluator has, in numpy, with operators of our own where
its own take minutes (:mod:`.numpy_operators`). Neither is believed: what they give is compared with what the network
gives in its own precision.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from masktool.errors import MasktoolError, reported_as
from masktool.exporters.derivatives.numpy_operators import OPERATORS
from masktool.exporters.derivatives.points import Feed
from masktool.exporters.storage import count_weight_bytes, open_model

Forward: TypeAlias = Callable[[Feed], np.ndarray]
"""Runs a network, and returns the output that is differentiated."""
DOUBLE, SINGLE = ir.DataType.DOUBLE, ir.DataType.FLOAT
LARGEST_WEIGHTS = 2**28
"""Bytes of weights beyond which a network is not copied in float64."""
PRODUCTS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
"""Operators that nearly all of a network's time goes into."""
LARGEST_WORK = 2e10
"""Products of numbers in one pass up to which a network is run in numpy: it takes them several seconds."""
KEPT_SINGLE = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that are float32 in every graph: scales, by operator."""
ADDS_IN = "GroupNormalization"
"""The operator that adds up in float32 unless it says another type."""


def possible_forwards(model: ir.Model, feed: Feed) -> Iterator[Forward]:
    """Yields what runs a graph in float64: ONNX Runtime where it opens that, then ONNX's evaluator.

    Args:
        model: a canonical graph of one output, which computes in float32; it stays as it is.
        feed: values for the inputs, which tell how long open axes are.
    """
    if count_weight_bytes(model) > LARGEST_WEIGHTS:
        return
    double = in_double(model.clone())
    with contextlib.suppress(MasktoolError):
        session = open_model(double)
        yield lambda point: np.asarray(session.run(None, widened_feed(point))[0])
    if count_products(model, feed) > LARGEST_WORK:
        return
    with contextlib.suppress(MasktoolError), reported_as("ONNX's evaluator does not take the graph"):
        evaluator = ReferenceEvaluator(ir.to_proto(double), new_ops=list(OPERATORS))
        yield lambda point: np.asarray(next(iter(evaluator.run(None, widened_feed(point)))))


def widened_feed(feed: Feed) -> Feed:
    """Returns values with all floats as float64."""
    return {name: each if each.dtype.kind in "biuSUO" else each.astype(np.float64) for name, each in feed.items()}


def in_double(model: ir.Model) -> ir.Model:
    """Returns a graph that computes in float64 what it computes in float32, made of it in place."""
    for graph in (model.graph, *model.graph.subgraphs()):
        kept = {value for node in graph for value in kept_single(node)}
        for value in graph.initializers.values():
            if value not in kept and value.const_value is not None and value.const_value.dtype == SINGLE:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float64), name=value.name)
                value.type = ir.TensorType(DOUBLE)
        for value in (*graph.inputs, *graph.outputs, *(each for node in graph for each in node.outputs)):
            if value.dtype is not None and value.dtype.is_floating_point():
                value.type = ir.TensorType(DOUBLE)
        for node in graph:
            widen_to_double(node)
    return model


def kept_single(node: ir.Node) -> list[ir.Value]:
    """Returns the inputs of a node that are float32 whatever it computes in."""
    indices = KEPT_SINGLE.get(node.op_type, ())
    return [value for index, value in enumerate(node.inputs) if index in indices and value is not None]


def widen_to_double(node: ir.Node) -> None:
    """Makes a node that names float32 or fewer bits, or holds a tensor of them, name or hold float64, in place."""
    for name, attribute in tuple(node.attributes.items()):
        floating = attribute.type == ir.AttributeType.INT and name in ("to", "dtype")
        if floating and ir.DataType(attribute.as_int()).is_floating_point():
            node.attributes[name] = ir.AttrInt64(name, DOUBLE.value)
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype.is_floating_point():
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(attribute.as_tensor().numpy().astype(np.float64)))
    if node.op_type == ADDS_IN:
        node.attributes["stash_type"] = ir.AttrInt64("stash_type", DOUBLE.value)


def count_products(model: ir.Model, feed: Feed) -> float:
    """Returns how many products of numbers one pass takes, about: lengths that are not known count as 1."""
    opened = {
        dim.value: length
        for value in model.graph.inputs
        if value.shape is not None and (array := feed.get(str(value.name))) is not None
        for dim, length in zip(value.shape, array.shape, strict=False)
        if isinstance(dim, ir.SymbolicDim)
    }

    def lengths(value: ir.Value | None) -> list[int]:
        shape = None if value is None else value.shape
        return [dim if isinstance(dim, int) else opened.get(dim.value, 1) for dim in shape or ()]

    total = 0.0
    for node in model.graph.all_nodes():
        if node.op_type in PRODUCTS and len(node.inputs) > 1:
            transposed, plain = node.op_type == "ConvTranspose", node.op_type in ("MatMul", "Gemm")
            mapped = node.inputs[0] if transposed else node.outputs[0]
            inner = lengths(node.inputs[0])[-1:] if plain else lengths(node.inputs[1])[1:]
            total += math.prod(lengths(mapped)) * math.prod(inner)
    return total
