"""The door for ONNX: from the bytes of a file, or a model in memory, to a graph that the rest may trust.

1. The bytes are parsed, and every graph is checked (:mod:`masktool.exporters.onnx_checks`).
2. What follows the network and is no part of it is cut off (:mod:`masktool.exporters.onnx_tails`).
3. Sparse weights and constants become dense ones, and what a file declares of its weights beside them is not believed.
4. What ONNX's own reader refuses is judged by ONNX Runtime: only where that does not open the file either, the file is
   to blame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir

from masktool.contract import MASK_INPUT, METADATA_PREFIX
from masktool.errors import MasktoolError, describe_exception, reported_as
from masktool.exporters.onnx_checks import DAMAGED, check_external_data, check_proto, graphs_of
from masktool.exporters.onnx_nodes import Nodes, describe_node
from masktool.exporters.onnx_tails import Tail, cut_tail
from masktool.exporters.storage import load_small_weights, opens
from masktool.limits import check_limit


class Opened(NamedTuple):
    """A model that was checked and cut to its network.

    Attributes:
        model: the checked model, as onnx_ir represents it.
        tail: the labels and notes from the nodes that were cut off behind the network.
    """

    model: onnx_ir.Model
    tail: Tail


def read_onnx(path: Path) -> Opened:
    """Reads an ``.onnx`` file; external data stay on disk until they are used.

    Raises:
        MasktoolError: the file is no ONNX model, is truncated, or external data are missing, short or elsewhere.
    """
    with reported_as("not an ONNX model, or a truncated one", where=path, fix=DAMAGED):
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise MasktoolError("not an ONNX model, or a truncated one", where=path, expected="a graph", got="none")
    check_external_data(proto, path)
    opened = open_proto(proto, path)
    load_small_weights(opened.model)
    return opened


def open_proto(proto: onnx.ModelProto, where: object) -> Opened:
    """Checks a model, cuts it to its network and returns it as onnx_ir represents it.

    Args:
        proto: the model as it was read; it may be changed.
        where: file or name, for messages.

    Raises:
        MasktoolError: the graph cannot be given to ONNX's libraries, or they refuse it.
    """
    check_proto(proto, where)
    for graph in graphs_of(proto):
        for node in graph.node:
            for attribute in node.attribute:
                load_constant(attribute.t)
        densify(graph, where)
    believe_weights(proto)
    with reported_as("what follows the network cannot be cut off", where=where):
        tail = cut_tail(proto)
    try:
        return Opened(onnx_ir.from_proto(proto), tail)
    except Exception as error:  # the deserializer raises whatever a damaged field leads it to
        raise blame(where, error) from error


def load_constant(tensor: onnx.TensorProto) -> None:
    """Reads a constant that stands outside the graph into memory, in place: only weights may stay outside."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor.raw_data = onnx_ir.serde.deserialize_tensor(tensor).tobytes()
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")


def blame(where: object, error: Exception) -> MasktoolError:
    """Returns the error of a model that cannot be deserialized: its own fault only if ONNX Runtime says so too."""
    cause = describe_exception(error)
    if isinstance(where, Path) and opens(where):
        return MasktoolError(
            "ONNX Runtime opens the model, and masktool's reader (onnx_ir) does not",
            where=where,
            got=cause,
            fix="the file is sound; please report it",
        )
    return MasktoolError("damaged ONNX model", where=where, got=cause, fix=DAMAGED)


def believe_weights(model: onnx.ModelProto) -> None:
    """Drops, in place, what ``value_info`` declares of weights, and fills open lengths of inputs from the weights' own.

    ONNX Runtime overlooks what ``value_info`` declares of a weight; ONNX's converter, inference and check raise there.
    ONNX Runtime refuses an input that contradicts the weight of its name, which stays as it is, and fills open lengths
    in. The mask of a file that masktool wrote stays open: its weight is a default, and masks in any number are fed.
    """
    graphs = [graph for graph in graphs_of(model) if isinstance(graph, onnx.GraphProto)]
    names = {tensor.name for graph in graphs for tensor in graph.initializer}
    for graph in graphs:
        for index in reversed([index for index, value in enumerate(graph.value_info) if value.name in names]):
            del graph.value_info[index]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    if any(entry.key.startswith(METADATA_PREFIX) for entry in model.metadata_props):
        weights.pop(MASK_INPUT, None)
    for value in model.graph.input:
        if value.name in weights and value.type.tensor_type.HasField("shape"):
            fill_open_lengths(value.type.tensor_type.shape, weights[value.name].dims)


def fill_open_lengths(shape: onnx.TensorShapeProto, dims: Sequence[int]) -> None:
    """Writes lengths into a declared shape that leaves some of them open and contradicts none of them, in place."""
    declared = [dim.dim_value for dim in shape.dim]
    if len(declared) == len(dims) and all(said in (0, -1, size) for said, size in zip(declared, dims, strict=True)):
        for dim, size in zip(shape.dim, dims, strict=True):
            dim.dim_value = size


def densify(graph: Nodes, where: object) -> None:
    """Makes sparse weights and constants dense, in place.

    Raises:
        MasktoolError: a dense tensor is beyond the limit of size, or the indices do not fit it.
    """
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("sparse_tensor"):
                value = make_dense(attribute.sparse_tensor, f"{where}, {describe_node(node)}")
                attribute.CopyFrom(onnx.helper.make_attribute("value", value))
    if isinstance(graph, onnx.GraphProto):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(make_dense(sparse, f"{where}, sparse weight {sparse.values.name!r}"))
        del graph.sparse_initializer[:]


def make_dense(sparse: onnx.SparseTensorProto, place: str) -> onnx.TensorProto:
    """Returns a sparse tensor as a dense one of the same name.

    Source: ONNX IR, SparseTensorProto: indices are (NNZ,), counted through the flattened tensor, or (NNZ, rank).

    Raises:
        MasktoolError: the dense tensor is beyond the limit of size, or the indices do not fit it.
    """
    check_limit("tensor", math.prod(sparse.dims), where=place)
    with reported_as("a sparse weight whose indices do not fit its shape", where=place, fix=DAMAGED):
        for tensor in (sparse.values, sparse.indices):
            load_constant(tensor)
        values, indices = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
        if indices.ndim == 2:
            indices = np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims))
        dense = np.zeros(math.prod(sparse.dims), values.dtype)
        if len(indices) != len(values) or (len(indices) and indices.min() < 0):
            raise IndexError(f"{len(indices)} indices from {indices.min(initial=0)} for {len(values)} values")
        dense[indices] = values
        return onnx.numpy_helper.from_array(dense.reshape(sparse.dims), sparse.values.name)
